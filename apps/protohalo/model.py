"""The three-dimensional U-Net of Bernardini et al. 2020, Sec. 3.1."""

import keras
from keras import layers

SLOPE = 0.05  # of every LeakyReLU


@keras.saving.register_keras_serializable("kerasgal")
class NonNegative(layers.Layer):
    """Output activation: zero below zero when predicting, slightly leaky while training.

    The paper's network ends in a ReLU. Started from most seeds it dies: the map becomes zero everywhere within 50
    steps and no gradient is left. A slope below zero keeps the gradient and is clipped away in prediction.
    """

    def __init__(self, slope, **kwargs):
        super().__init__(**kwargs)
        self.slope = slope

    def call(self, inputs, training=False):
        return keras.ops.leaky_relu(inputs, self.slope if training else 0.0)

    def get_config(self):
        return {**super().get_config(), "slope": self.slope}


@keras.saving.register_keras_serializable("kerasgal")
class Scaled(layers.Layer):
    """Divides each channel by its deviation: a weight that is not trained, is set from the training data, and travels
    with the network.
    """

    def build(self, input_shape):
        self.deviation = self.add_weight(shape=input_shape[-1:], initializer="ones", trainable=False, name="deviation")

    def call(self, inputs):
        return inputs / self.deviation


@keras.saving.register_keras_serializable("kerasgal")
class Modulated(layers.Layer):
    """[field, parameters] to the field with each channel scaled and shifted by what parameters, (batch, p), say.

    Feature-wise modulation (FiLM, Perez et al. 2018, arXiv:1709.07871): how much a channel counts may depend on the
    cosmology, which constant channels of the input, mere shifts of the first layer's, would have to be turned into. It
    begins as the identity, and is that at parameters of 0.
    """

    def build(self, input_shape):
        (*_, channels), (_, parameters) = input_shape
        self.kernel = self.add_weight(shape=(parameters, 2 * channels), initializer="zeros", name="kernel")

    def call(self, inputs):
        field, parameters = inputs
        said = keras.ops.matmul(parameters, keras.ops.cast(self.kernel, self.compute_dtype))
        scale, shift = keras.ops.split(keras.ops.reshape(said, (-1, 1, 1, 1, said.shape[-1])), 2, axis=-1)
        return field * (1 + scale) + shift

    def compute_output_shape(self, input_shape):
        return input_shape[0]


def dropped(x, rate):
    """Dropout, if there is any."""
    return layers.Dropout(rate)(x) if rate else x


def block(x, filters, dropout=0.0):
    """Two 3^3 convolutions with LeakyReLU, and dropout between them, which the paper does not have."""
    x = layers.Conv3D(filters, 3, padding="same")(x)
    x = dropped(layers.LeakyReLU(SLOPE)(x), dropout)
    x = layers.Conv3D(filters, 3, padding="same")(x)
    return layers.LeakyReLU(SLOPE)(x)


def unet(levels=5, filters=12, dropout=0.5, output_slope=0.0, arrangement="paper", channels=1, scaled=False,
         parameters=0):
    """The U-Net: (batch, x, y, z, 1) normalised density contrast to (batch, x, y, z, 1) normalised distance.

    With other `channels`, as many and `scaled` by their deviations, (batch, x, y, z, channels). With `parameters`, so
    many numbers of each box, [that, (batch, parameters)]: standardised by those of the training, they modulate what
    every block gives (see `Modulated`).

    x, y and z may have any size that is a multiple of 2^levels. With the defaults it is that of the paper's Table 1: 27
    LeakyReLU, 10 dropouts, 5 poolings, and 14,590,741 parameters, its 14.5 million. Filters are 12 to 192 and 384 in
    the bottleneck; 3^3 transposed convolutions of stride 2 halve the channels; skips are concatenated. On the way down
    dropout stands between the skip, which it leaves alone, and the pooling (Sec. 3.1); on the way up, of which the
    text says only that there is one on each level, in the mirrored place: between the transposed convolution and the
    skip. Table 1 prints a stride of 1 for the pooling, which would halve nothing: it is 2.

    arrangement: "inner" for the layers of earlier versions, which have the same weights: dropout in every block, and no
    activation behind transposed convolutions.
    """
    between, within = (dropout, 0.0) if arrangement == "paper" else (0.0, dropout)
    x = inputs = keras.Input((None, None, None, channels), name="delta")
    if parameters:
        inputs = [inputs, keras.Input((parameters,), name="parameters")]
        given = layers.Normalization(dtype="float32", name="normalised_parameters")(inputs[1])

    def modulated(x):
        return Modulated()([x, given]) if parameters else x

    if scaled:
        x = Scaled(dtype="float32", name="scaled")(x)
    skips = []
    for level in range(levels):
        x = modulated(block(x, filters * 2**level, within))
        skips.append(x)
        x = layers.MaxPooling3D(2)(dropped(x, between))
    x = modulated(block(x, filters * 2**levels, within))
    for level in reversed(range(levels)):
        x = layers.Conv3DTranspose(filters * 2**level, 3, strides=2, padding="same")(x)
        if arrangement == "paper":
            x = layers.LeakyReLU(SLOPE)(x)
        x = layers.Concatenate()([skips[level], dropped(x, between)])
        x = modulated(block(x, filters * 2**level, within))
    x = layers.Conv3D(1, 1, dtype="float32")(x)
    outputs = NonNegative(output_slope, dtype="float32", name="distance")(x)
    return keras.Model(inputs, outputs, name="protohalo")


def receptive_radius(levels):
    """Cells to either side of an output cell that the U-Net sees at most.

    Per level two convolutions on the way down and two on the way up reach 2^level cells each, the bottleneck's two
    2^levels each; pooling and transposed convolution add the cells of the coarser grid they touch.
    """
    convolutions = sum(4 * 2**level for level in range(levels)) + 2 * 2**levels
    upsampling = sum(2 * 2**level for level in range(levels))
    pooling = sum(2**level for level in range(levels))
    return convolutions + upsampling + pooling
