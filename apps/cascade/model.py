"""The two networks of Yip et al. 2019: the Inception classifier and the recurrent residual U-Net, R2U-Net."""

import math

import keras
import numpy as np
from keras import layers, ops

LEVELS = 3  # poolings of the R2U-Net: its input's sides are multiples of 2^LEVELS
WIDTHS, NEIGHBOURS = (0.5, 1, 2, 4), 3  # of `surroundings`: standard deviations of Gaussians, and the farthest, cells
CHANNELS = 1 + len(WIDTHS) + NEIGHBOURS
USUAL = 3.0  # ln(1 + density) where galaxies are, in cells of 0.4 Mpc/h
REACH = 3  # standard deviations at which a Gaussian is cut off
HEAD = 32
FIRST_EXPECTATION = 0.1  # galaxies in a cell that phase 1 calls occupied, where training with a softplus begins
INCEPTION_RADIUS = 4  # cells to either side of an output cell that the classifier sees: 2 (of 5^3) + 1 + 1


def normalised(x, filters, size, name, dtype=None):
    """Convolution without bias, batch normalisation; zero-padded."""
    x = layers.Conv3D(filters, size, padding="same", use_bias=False, dtype=dtype, name=f"{name}_convolution")(x)
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, dtype=dtype, name=f"{name}_normalisation")(x)


def basic(x, filters, size, name):
    """Convolution, batch normalisation, ReLU."""
    return layers.ReLU(name=f"{name}_relu")(normalised(x, filters, size, name))


def inception(channels=1):
    """The Inception classifier: (batch, x, y, z, channels) to probabilities (batch, x, y, z, 2) of [empty, occupied].

    x, y and z may have any size. With one channel it has 30,799 trainable parameters. The probabilities are float32
    whatever the precision policy.
    """
    inputs = keras.Input((None, None, None, channels), name="density")
    # The average counts the padded zeros, which that of a pooling with padding="same" does not.
    average = layers.ZeroPadding3D(1, name="average_padding")(inputs)
    average = layers.AveragePooling3D(3, strides=1, name="average")(average)
    x = layers.Concatenate(name="branches")([basic(inputs, 6, 1, "branch_1"), basic(inputs, 8, 3, "branch_3"),
                                             basic(inputs, 10, 5, "branch_5"), basic(average, 3, 1, "branch_average")])
    x = basic(x, 27, 3, "inner_1")
    x = basic(x, 13, 3, "inner_2")
    # The authors' code has a ReLU here too: then no logit is negative, and where both are zero none learns any more.
    x = normalised(x, 2, 1, "logits", dtype="float32")
    return keras.Model(inputs, layers.Softmax(dtype="float32", name="probabilities")(x), name="inception")


def recurrent(x, filters, t, name):
    """Recurrent unit: y = f(x), then t times y = f(x + y), where f is one and the same 3^3 convolution with ReLU."""
    convolution = layers.Conv3D(filters, 3, padding="same", activation="relu", name=name)
    y = convolution(x)
    for step in range(t):
        y = convolution(layers.Add(name=f"{name}_input_{step + 1}")([x, y]))
    return y


def block(x, filters, t, name):
    """Recurrent residual block: what two recurrent units add to a 1^3 convolution."""
    x = layers.Conv3D(filters, 1, name=f"{name}_projection")(x)
    y = recurrent(x, filters, t, f"{name}_recurrent_1")
    y = recurrent(y, filters, t, f"{name}_recurrent_2")
    return layers.Add(name=name)([x, y])


def doubled(x, filters, name):
    """Transposed 3^3 convolution of stride 2 with ReLU, from n to 2n cells per side."""
    x = layers.Conv3DTranspose(filters, 3, strides=2, padding="valid", activation="relu", name=f"{name}_transposed")(x)
    # PyTorch's with padding 1 and output padding 1 takes off the first of 2n + 1 cells; padding="same" would the last.
    return layers.Cropping3D(((1, 0),) * 3, name=f"{name}_doubled")(x)


def r2unet(channels=1, outputs=1, *, filters=32, t=3, finest_skip=False, output="relu", output_slope=0.0):
    """The R2U-Net: (batch, x, y, z, channels) to (batch, x, y, z, outputs), float32 whatever the precision policy.

    x, y and z are multiples of 8. With the defaults it has 6,079,489 parameters.
    outputs: 1 for the number of galaxies; 2 for the probabilities of [empty, occupied].
    filters: those at full resolution, doubled with every pooling; even.  t: recurrences of each unit.
    finest_skip: concatenate at full resolution, too, which the authors do not: the first block with what the last one
        takes, and the input with what comes of that, for two layers of HEAD units that see each cell by itself.
    output: what makes a number of galaxies of the last sum: "relu", or "softplus", ln(1 + exp(sum)), which is positive
        everywhere and cannot die.
    output_slope: of a ReLU below zero. 0 is the paper's, which may die, zero everywhere, in training; with another
        slope the output can be negative, and is to be clipped at zero in prediction.
    """
    x = inputs = keras.Input((None, None, None, channels), name="density")
    skips = []
    for level in range(LEVELS):
        x = block(x, filters * 2**level, t, f"down_{level}")
        skips.append(x)
        x = layers.MaxPooling3D(2, name=f"down_{level}_pooled")(x)
    x = block(x, filters * 2**LEVELS, t, "bottom")
    for level in reversed(range(LEVELS)):
        width = filters * 2**level
        x = doubled(x, width, f"up_{level}")
        if level > 0 or finest_skip:
            x = layers.Concatenate(name=f"up_{level}_skip")([skips[level], x])
        x = block(x, width // 2, t, f"up_{level}")
    if finest_skip:
        x = layers.Concatenate(name="head_input")([x, inputs])
        for layer in (1, 2):
            x = layers.Conv3D(HEAD, 1, activation="relu", name=f"head_{layer}")(x)
    begin = math.log(math.expm1(FIRST_EXPECTATION)) if outputs == 1 and output == "softplus" else 0.0
    x = layers.Conv3D(outputs, 1, bias_initializer=keras.initializers.Constant(begin), dtype="float32",
                      name="output")(x)
    if outputs == 1 and output == "softplus":
        x = layers.Activation("softplus", dtype="float32", name="galaxies")(x)
    elif outputs == 1:
        x = layers.LeakyReLU(output_slope, dtype="float32", name="galaxies")(x)
    else:
        x = layers.Softmax(dtype="float32", name="probabilities")(x)
    return keras.Model(inputs, x, name="r2unet")


def r2unet_radius(t):
    """Cells to either side of an output cell that the R2U-Net sees at most: 190 for t = 3.

    A block reaches 2 (t + 1) of its cells, 1, 2, 4 (twice each) and 8 wide; each pooling and each transposed
    convolution adds the cells of the coarser grid that it touches.
    """
    blocks = 2 * (t + 1) * (2 * sum(2**level for level in range(LEVELS)) + 2**LEVELS)
    return blocks + 2 * sum(2**level for level in range(LEVELS))


SCALINGS = {"none": (lambda x: x, lambda x: x), "log": (ops.log1p, ops.expm1), "asinh": (ops.arcsinh, ops.sinh)}


@keras.saving.register_keras_serializable("kerasgal")
class Scaling(layers.Layer):
    """The density, in units of its mean, as the network takes it: itself, ln(1 + density) or arsinh(density).

    `inverse` undoes it.
    """

    def __init__(self, kind="none", **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.kind = kind

    def call(self, density):
        return SCALINGS[self.kind][0](density)

    def inverse(self, scaled):
        return SCALINGS[self.kind][1](scaled)

    def get_config(self):
        return {**{key: value for key, value in super().get_config().items() if key != "dtype"}, "kind": self.kind}


@keras.saving.register_keras_serializable("kerasgal")
class Normalised(layers.Layer):
    """Each channel less a mean, over a spread: weights that are not trained, and that `adapt` takes from the training.
    """

    def __init__(self, **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})

    def build(self, shape):
        self.mean = self.add_weight(shape=shape[-1:], initializer="zeros", trainable=False, name="mean")
        self.spread = self.add_weight(shape=shape[-1:], initializer="ones", trainable=False, name="spread")

    def adapt(self, rows):
        """Take mean and standard deviation of each column of (rows, channels); what does not vary keeps its size."""
        rows = np.asarray(rows, np.float64)
        spread = rows.std(axis=0)
        self.mean.assign(rows.mean(axis=0))
        self.spread.assign(np.where(spread > 1e-6 * np.abs(rows).max(axis=0), spread, 1.0))

    def adapt_vectors(self, fields):
        """Take one spread for all components of vectors, (..., 3) each field, and no mean: no direction is another."""
        total = sum(np.square(field, dtype=np.float64).sum() for field in fields)
        self.spread.assign(np.full(3, math.sqrt(total / sum(field.size for field in fields)) or 1.0))

    def call(self, x):
        return (x - self.mean) / self.spread

    def compute_output_shape(self, shape):
        return shape

    def get_config(self):
        return {key: value for key, value in super().get_config().items() if key != "dtype"}


def scaled(network, kind, name="scaled", *, finer=0, velocity=False, parameters=0):
    """A network that takes the density in units of its mean and scales it first; one of `surroundings` as they are.

    finer: how many more channels follow, which are taken as they are.
    velocity: whether three more channels follow, the components of a velocity, which is normalised.
    parameters: how many numbers describe the simulation, (batch, parameters), a second input. Normalised they are the
    last channels of the inner network's input, the same in every cell.
    """
    channels = network.input_shape[-1] - parameters
    inputs, own = [keras.Input((None, None, None, channels), name="density")], channels - finer - 3 * velocity
    density = inputs[0][..., :own] if own < channels else inputs[0]
    seen = density if own > 1 else Scaling(kind, name="scaling")(density)
    if finer:
        seen = ops.concatenate([seen, inputs[0][..., own:own + finer]], axis=-1)
    if velocity:
        seen = ops.concatenate([seen, Normalised(name="normalised_velocity")(inputs[0][..., -3:])], axis=-1)
    if parameters:
        inputs.append(keras.Input((parameters,), name="parameters"))
        everywhere = layers.Reshape((1, 1, 1, parameters))(Normalised(name="normalised_parameters")(inputs[1]))
        seen = ops.concatenate([seen, ops.zeros_like(seen[..., :1]) + everywhere], axis=-1)
    return keras.Model(inputs if parameters else inputs[0], network(seen), name=name)


def surroundings():
    """What phase 2 may see of the density, as boosted trees do: (batch, x, y, z, 1) to (batch, x, y, z, CHANNELS).

    ln(1 + density), less its usual value where galaxies are; then, less that of the cell, the same of densities
    smoothed by Gaussians of WIDTHS, and of the densest cell among neighbours at most 1, 2 and 3 cells away. Each is
    made of the one before, by layers whose weights are fixed.
    """
    x = inputs = keras.Input((None, None, None, 1), name="density")
    fields, weights = [inputs], []
    for width, kernel in zip(WIDTHS, kernels()):
        for axis, shape in enumerate([(-1, 1, 1), (1, -1, 1), (1, 1, -1)]):
            weights.append(kernel.reshape(shape)[..., None, None])
            x = layers.Conv3D(1, kernel.reshape(shape).shape, padding="same", use_bias=False, trainable=False,
                              dtype="float32", name=f"smoothed_{width}_{'xyz'[axis]}".replace(".", "_"))(x)
        fields.append(x)
    x = fields[1]
    for cells in range(1, NEIGHBOURS + 1):
        x = layers.ZeroPadding3D(1, name=f"densest_{cells}_padding")(x)
        x = layers.MaxPooling3D(3, strides=1, name=f"densest_{cells}")(x)
        fields.append(x)
    own, *others = [ops.log1p(field) for field in fields]
    channels = [own - USUAL, *(other - own for other in others)]
    network = keras.Model(inputs, ops.concatenate(channels, axis=-1), name="surroundings")
    network.set_weights(weights)
    return network


def kernels():
    """Weights of neighbours along one axis, float32, that widen the density to each of WIDTHS in turn."""
    found, before = [], 0.0
    for width in WIDTHS:
        step = math.sqrt(width**2 - before**2)  # variances of Gaussians add
        offset = np.arange(-math.ceil(REACH * step), math.ceil(REACH * step) + 1)
        weight = np.exp(-0.5 * (offset / step)**2)
        found.append((weight / weight.sum()).astype(np.float32))
        before = width
    return found


def surroundings_radius():
    """Cells to either side of a cell that its `surroundings` are made of."""
    return sum(len(kernel) // 2 for kernel in kernels())


def cascade(classifier, regressor, threshold):
    """Both phases as one network: density to [probability of a galaxy, expected galaxies], (batch, x, y, z, 2).

    There are none where the probability does not exceed the threshold. The two must have different names. A regressor
    that takes more than the classifier sees the `surroundings`, which are made here. Where the two see more
    than the density, or are given parameters, so is this: [density, ...] side by side, and [these, parameters].
    """
    channels = classifier.inputs[0].shape[-1]
    inputs = keras.Input((None, None, None, channels), name="density")
    parameters = [keras.Input(item.shape[1:], name="parameters") for item in classifier.inputs[1:]]

    def asked(network, field):
        return network([field, *parameters] if parameters else field)

    probability = asked(classifier, inputs)[..., 1:]
    seen = inputs
    if regressor.inputs[0].shape[-1] > channels:
        seen = surroundings()(inputs[..., :1] if channels > 1 else inputs)
        if channels > 1:
            seen = ops.concatenate([seen, inputs[..., 1:]], axis=-1)
    counts = ops.relu(asked(regressor, seen)) * ops.cast(probability > threshold, "float32")
    found = ops.concatenate([probability, counts], axis=-1)
    return keras.Model([inputs, *parameters] if parameters else inputs, found, name="cascade")
