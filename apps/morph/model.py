"""PixelCNN++ (Salimans et al. 2017, arXiv:1701.05517): an image's likelihood, pixel after pixel.

Two streams of features run through the network, both causal by shifting: at (y, x) the vertical one knows the rows
above y, the horizontal one these rows and, in row y, the pixels left of x. Each goes down to a quarter of the
resolution and up again, and the horizontal one also takes the vertical one in. It ends in the parameters of the
distribution of pixel (y, x).
"""

import keras
from keras import layers, ops

LEVELS = 3  # resolutions
SIZES = {"vertical": (2, 3), "horizontal": (2, 2)}  # of the streams' kernels, (y, x)


class WeightNormalised(layers.Layer):
    """A linear layer with bias b whose filters are g v / ||v|| (Salimans & Kingma 2016, arXiv:1602.07868).

    filters: number of filters; size: of the kernel, (y, x); scale: what `initialise` makes the output's standard
    deviation.
    """

    initialising = False  # True while `initialise` runs
    filter_axis = 3  # of v

    def __init__(self, filters, size=(1, 1), scale=1.0, **kwargs):
        super().__init__(**kwargs)
        self.filters, self.size, self.scale = filters, tuple(size), scale

    def build(self, x_shape, like_shape=None):
        shape = [*self.size, x_shape[-1]]
        shape.insert(self.filter_axis, self.filters)
        # No autocast: half precision would lose most of the sum that is the norm.
        self.v = self.add_weight(name="v", shape=shape, initializer=keras.initializers.RandomNormal(stddev=0.05),
                                 autocast=False)
        self.g = self.add_weight(name="g", shape=(self.filters,), initializer=keras.initializers.Constant(self.scale),
                                 autocast=False)
        self.b = self.add_weight(name="b", shape=(self.filters,), initializer="zeros", autocast=False)

    def kernel(self, g=None):
        """g v / ||v||, float32, with the layer's g unless one is given."""
        g = self.g if g is None else g
        v = ops.moveaxis(self.v, self.filter_axis, 3)
        kernel = g * v / ops.sqrt(ops.sum(ops.square(v), axis=(0, 1, 2)))
        return ops.moveaxis(kernel, 3, self.filter_axis)

    def call(self, x, like=None):
        if WeightNormalised.initialising:
            raw = ops.cast(self.linear(x, ops.cast(self.kernel(1.0), self.compute_dtype), like), "float32")
            mean, variance = ops.moments(raw, axes=(0, 1, 2))
            # A filter without any variance, as where nothing is known yet, is left as it is.
            self.g.assign(self.scale / ops.sqrt(ops.where(variance < 1e-8, 1.0, variance)))
            self.b.assign(-mean * self.g)
        x = self.linear(x, ops.cast(self.kernel(), self.compute_dtype), like)
        return x + ops.cast(self.b, self.compute_dtype)

    def get_config(self):
        return {**super().get_config(), "filters": self.filters, "size": self.size, "scale": self.scale}


@keras.saving.register_keras_serializable("kerasgal")
class ShiftedConvolution(WeightNormalised):
    """Convolution, zero-padded so that no output knows what is below it or, for an even kernel, right of it.

    The kernel's last row meets the output's own; so does its middle column if their number is odd, else its last one.
    With stride 2 the even rows and columns remain, ceil(n / 2) of n.
    """

    def __init__(self, filters, size=(1, 1), stride=1, scale=1.0, **kwargs):
        super().__init__(filters, size, scale, **kwargs)
        self.stride = stride

    def linear(self, x, kernel, like):
        rows, columns = self.size
        x = ops.pad(x, ((0, 0), (rows - 1, 0), (columns // 2, (columns - 1) // 2), (0, 0)))
        return ops.conv(x, kernel, strides=self.stride, padding="valid")

    # Keras would trace each of hundreds of layers to find its output's shape.
    def compute_output_shape(self, x_shape):
        batch, *sides, _ = x_shape
        return (batch, *(side and -(-side // self.stride) for side in sides), self.filters)

    def get_config(self):
        return {**super().get_config(), "stride": self.stride}


@keras.saving.register_keras_serializable("kerasgal")
class ShiftedTransposed(WeightNormalised):
    """Transposed convolution of stride 2, cut to the rows and columns of its second argument.

    Input (i, j) reaches the output rows 2 i and 2 i + 1, the columns 2 j and 2 j + 1, and, for a kernel of three
    columns, the column 2 j - 1.
    """

    filter_axis = 2

    def linear(self, x, kernel, like):
        x = ops.conv_transpose(x, kernel, strides=2, padding="valid")
        left = (self.size[1] - 1) // 2
        _, rows, columns, _ = ops.shape(like)
        return x[:, :rows, left:left + columns]

    def compute_output_shape(self, x_shape, like_shape):
        return (*like_shape[:3], self.filters)


def concatenated_elu(x):
    """ELU of x and of -x, twice as many channels."""
    return ops.elu(ops.concatenate([x, -x], axis=-1))


@keras.saving.register_keras_serializable("kerasgal")
class GatedBlock(layers.Layer):
    """Gated residual block: x plus a sigmoid(b), where a and b are the two halves of the second convolution.

    Takes x and, optionally, features that are added to the first convolution through one of size 1.
    size: of the kernels; dropout: share of the features dropped between the convolutions.
    """

    def __init__(self, size, dropout=0.5, **kwargs):
        super().__init__(**kwargs)
        self.size, self.rate = tuple(size), dropout

    def build(self, x_shape, more_shape=None):
        filters = x_shape[-1]
        doubled = (*x_shape[:-1], 2 * filters)
        self.first = ShiftedConvolution(filters, self.size, dtype=self.dtype_policy, name="first")
        self.first.build(doubled)
        if more_shape is not None:
            self.more = ShiftedConvolution(filters, dtype=self.dtype_policy, name="more")
            self.more.build((*more_shape[:-1], 2 * more_shape[-1]))
        self.dropout = layers.Dropout(self.rate, dtype=self.dtype_policy, name="dropout")
        self.second = ShiftedConvolution(2 * filters, self.size, scale=0.1, dtype=self.dtype_policy, name="second")
        self.second.build(doubled)

    def call(self, x, more=None, training=None):
        hidden = self.first(concatenated_elu(x))
        if more is not None:
            hidden = hidden + self.more(concatenated_elu(more))
        hidden = self.dropout(concatenated_elu(hidden), training=training)
        a, b = ops.split(self.second(hidden), 2, axis=-1)
        return x + a * ops.sigmoid(b)

    def compute_output_shape(self, x_shape, more_shape=None):
        return tuple(x_shape)

    def get_config(self):
        return {**super().get_config(), "size": self.size, "dropout": self.rate}


@keras.saving.register_keras_serializable("kerasgal")
class Marked(layers.Layer):
    """Images in [0, 1] as [-1, 1], with a channel of ones that tells them from the zeros of the padding."""

    def call(self, x):
        return ops.concatenate([2 * x - 1, ops.ones_like(x[..., :1])], axis=-1)

    def compute_output_shape(self, shape):
        return (*shape[:-1], shape[-1] + 1)


def shifted(x, rows, columns, name):
    """x, moved down and to the right by so many rows and columns of zeros."""
    x = layers.ZeroPadding2D(((rows, 0), (columns, 0)), name=f"{name}_padded")(x)
    return layers.Cropping2D(((0, rows), (0, columns)), name=f"{name}_shifted")(x)


def pixelcnn(shape, blocks=5, filters=160, mixtures=10, dropout=0.5, likelihood="logistic"):
    """PixelCNN++: images (batch, y, x, channel) in [0, 1] to parameters (batch, y, x, parameter) of their pixels.

    With the defaults, which are Salimans et al.'s for CIFAR-10, and one channel it has 53,644,220 trainable parameters;
    with 3 blocks, 64 filters and one normal distribution per pixel, as Zanisi et al. 2020 have it, 5,445,380. What
    `losses.log_prob` takes, float32 whatever the precision policy: those of pixel (y, x) are a function of the pixels
    before it, row by row. y and x may have any size: what grew to a multiple of 4 between the resolutions is cut again,
    where the authors' code stops.

    shape: (y, x, channel) of the images; y and x may be None.
    blocks: gated blocks at each of three resolutions; filters: of every block; mixtures: logistic distributions per
        pixel; dropout: the blocks' own; likelihood: "logistic", or "normal" for one normal distribution per
        pixel, of all of its channels.
    """
    images = keras.Input(shape, name="images")
    x = Marked(name="marked")(images)
    vertical = ShiftedConvolution(filters, (2, 3), name="input_vertical")(x)
    above = ShiftedConvolution(filters, (1, 3), name="input_above")(x)
    left = ShiftedConvolution(filters, (2, 1), name="input_left")(x)
    vertical = shifted(vertical, 1, 0, "input_vertical")
    horizontal = layers.Add(name="input_horizontal")([shifted(above, 1, 0, "input_above"),
                                                      shifted(left, 0, 1, "input_left")])

    def gated(stream, name, *inputs):
        return GatedBlock(SIZES[stream], dropout, name=f"{name}_{stream}")(*inputs)

    skips = []  # the features of both streams at each level: its input, then each block's output
    for level in range(LEVELS):
        if level > 0:
            vertical, horizontal = (
                ShiftedConvolution(filters, SIZES[stream], 2, name=f"down_{level}_{stream}")(features)
                for stream, features in (("vertical", vertical), ("horizontal", horizontal)))
        skips.append([(vertical, horizontal)])
        for block in range(blocks):
            vertical = gated("vertical", f"down_{level}_{block}", vertical)
            horizontal = gated("horizontal", f"down_{level}_{block}", horizontal, vertical)
            skips[level].append((vertical, horizontal))
    vertical, horizontal = skips[-1].pop()
    for level in reversed(range(LEVELS)):
        if level < LEVELS - 1:
            vertical, horizontal = (
                ShiftedTransposed(filters, SIZES[stream], name=f"up_{level}_{stream}")(features, skips[level][0][0])
                for stream, features in (("vertical", vertical), ("horizontal", horizontal)))
        for block, (above, left) in enumerate(reversed(skips[level])):
            vertical = gated("vertical", f"up_{level}_{block}", vertical, above)
            more = layers.Concatenate(name=f"up_{level}_{block}_more")([vertical, left])
            horizontal = gated("horizontal", f"up_{level}_{block}", horizontal, more)

    channels = shape[-1]
    # A weight per logistic; for each channel a mean and a scale; for each pair of channels a coefficient.
    parameters = mixtures * (1 + 2 * channels + channels * (channels - 1) // 2)
    if likelihood == "normal":
        parameters = 2 * channels + channels * (channels - 1) // 2  # without the weight
    horizontal = layers.Activation("elu", name="end")(horizontal)
    outputs = ShiftedConvolution(parameters, dtype="float32", name="parameters")(horizontal)
    return keras.Model(images, outputs, name="pixelcnn")


def initialise(model, images):
    """Set every g and b so that for these images each filter's outputs have mean 0 and the layer's standard deviation.

    That is 1, and 0.1 for the convolutions which end a residual block. Each layer sees what the layers before it give
    with their new g and b; nothing is dropped. images: (batch, y, x, channel) in [0, 1], a batch of the training data.
    """
    WeightNormalised.initialising = True
    try:
        if keras.backend.backend() == "jax":
            _assign_by_jax(model, images)
        else:
            model(images, training=False)
    finally:
        WeightNormalised.initialising = False


def _assign_by_jax(model, images):
    """Call a model that assigns to its weights; JAX would compile its hundreds of operations one by one."""
    import jax

    variables = model.trainable_variables

    def assigned(values):
        with keras.StatelessScope(state_mapping=zip(variables, values)) as scope:
            model(images, training=False)
        return [scope.get_current_value(variable) for variable in variables]

    for variable, value in zip(variables, jax.jit(assigned)([variable.value for variable in variables])):
        variable.assign(value)
