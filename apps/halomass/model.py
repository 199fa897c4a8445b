"""The convolutional network of Lucie-Smith et al. 2020 (Methods, architecture), and one for numbers of shells."""

import keras
import numpy as np
from keras import layers, ops

from kerasgal.apps.halomass.shells import shell_index

SLOPE = 0.03  # of every LeakyReLU


@keras.saving.register_keras_serializable("kerasgal")
class Standardise(layers.Layer):
    """Zero mean and unit variance: subtracts a mean and divides by a deviation per channel, (..., channel).

    Both are weights, though not trainable: they are of the training set, and travel with the network.
    """

    def build(self, input_shape):
        self.mean = self.add_weight(shape=input_shape[-1:], initializer="zeros", trainable=False, name="mean")
        self.deviation = self.add_weight(shape=input_shape[-1:], initializer="ones", trainable=False, name="deviation")

    def call(self, inputs):
        return (inputs - self.mean) / self.deviation


def standardising(network):
    """The layer of a network that standardises its input."""
    return next(layer for layer in network.layers if isinstance(layer, Standardise))


@keras.saving.register_keras_serializable("kerasgal")
class ShellCube(layers.Layer):
    """Averages over shells, (batch, shells), to a cube in which each cell has its shell's: (batch, x, y, z, 1)."""

    def __init__(self, side, **kwargs):
        super().__init__(**kwargs)
        self.side = side

    def call(self, averages):
        # A number more, for the cells beyond the last shell: the mean density.
        averages = ops.pad(averages, [(0, 0), (0, 1)])
        index = shell_index(self.side, averages.shape[-1] - 1).ravel()
        return ops.reshape(ops.take(averages, index, axis=1), (-1, self.side, self.side, self.side, 1))

    def get_config(self):
        return {**super().get_config(), "side": self.side}


@keras.saving.register_keras_serializable("kerasgal")
class Select(layers.Layer):
    """Some of the features, (batch, features) to (batch, kept): those that a compressed network still reads."""

    def __init__(self, kept, **kwargs):
        super().__init__(**kwargs)
        self.kept = [int(index) for index in kept]

    def call(self, features):
        return ops.take(features, np.array(self.kept, "int32"), axis=1)

    def get_config(self):
        return {**super().get_config(), "kept": self.kept}


@keras.saving.register_keras_serializable("kerasgal")
class Scales(layers.Layer):
    """Appends the likelihood's trainable scales to predictions: (..., 1) to (..., 1 + scales).

    A scale is least + exp(rate * weight), e.g. gamma > 0 by construction, in float32 whatever the precision policy. A
    variable of the loss would not be trained; one of the last layer is. Adam moves every weight by about the learning
    rate a step: with `rate` the logarithm of a scale moves that many times faster than the network's weights.
    """

    def __init__(self, initial=(0.2,), least=(0.0,), rate=1.0, **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.initial, self.least, self.rate = list(initial), list(least), rate

    def build(self, input_shape):
        start = (np.log(np.subtract(self.initial, self.least)) / self.rate).astype("float32")
        self.log_scales = self.add_weight(shape=start.shape, name="log_scales",
                                          initializer=lambda shape, dtype: ops.convert_to_tensor(start, dtype))

    def call(self, prediction):
        scales = ops.exp(self.rate * self.log_scales) + np.array(self.least, "float32")
        scales = ops.broadcast_to(scales, (*ops.shape(prediction)[:-1], len(self.initial)))
        return ops.concatenate([prediction, scales], axis=-1)

    def get_config(self):
        config = {**super().get_config(), "initial": self.initial, "least": self.least, "rate": self.rate}
        return {name: value for name, value in config.items() if name != "dtype"}


def pooled_side(side, convolutions):
    """Cells per side that reach the dense layers of a zero-padded network."""
    for _ in range(convolutions - 1):
        side = -(-side // 2)
    return side


def unpadded_side(side, convolutions):
    """Side of the cube from which the same layers without padding leave as many cells as zero-padded from `side`.

    75 cells become 160. A convolution takes a cell off each face, a pooling halves what is left.
    """
    side = pooled_side(side, convolutions)
    for _ in range(convolutions - 1):
        side = 2 * side + 2
    return side + 2


def filters_of(filters, convolutions):
    """Filters of each convolution: the paper's 32, 32, 64, 128, 128, 128 for 32 and 6."""
    return [filters * (1, 1, 2, 4)[min(number, 3)] for number in range(convolutions)]


def cnn(side=75, channels=1, *, convolutions=6, filters=32, dense=(256, 128), padding="same", shells=None, kept=None,
        parameters=0, initial=(0.2,), least=(0.0,), rate=1.0, convolution_prior=None, dense_prior=None,
        last_prior=None):
    """The network: cubes around particles, (batch, side, side, side, channels), to [y, scales...], (batch, 1 + scales).

    y is the log mass, rescaled so that the sample's range is [-1, 1]; the scales are the likelihood's, the same for all
    (see `Scales`). With the defaults it has the paper's 2,108,258 trainable parameters, gamma among them; poolings
    of zero-padded networks are padded too, which is what gives that number.
    padding: "same", or "none" for a network whose prediction at a cell depends on no cube's faces. shells: number of
    spherical averages that are the input instead of cubes, (batch, shells). kept: features that enter the first dense
    layer, all by default. parameters: numbers of each simulation that the network is given, too, as [that, (batch,
    parameters)]: see `dense_layers`. initial, least, rate: those of `Scales`. last_prior: that of the last dense layer,
    on whose weights the authors' code has none.
    """
    if shells:
        inputs = keras.Input((shells,), name="averages")
        x = ShellCube(side, dtype="float32")(inputs)
    else:
        x = inputs = keras.Input((side, side, side, channels), name="cube")
    x = Standardise(dtype="float32")(x)
    mode = "same" if padding == "same" else "valid"
    for number, width in enumerate(filters_of(filters, convolutions)):
        x = layers.Conv3D(width, 3, padding=mode, kernel_regularizer=convolution_prior)(x)
        x = layers.LeakyReLU(SLOPE)(x)
        if number > 0:
            x = layers.MaxPooling3D(2, padding=mode)(x)
    given = given_parameters(parameters)
    x = dense_layers(layers.Flatten()(x), dense, kept, dense_prior, last_prior, given)
    x = Scales(initial, least, rate, name="scales")(x)
    return keras.Model([inputs, given] if parameters else inputs, x, name="halomass")


def perceptron(numbers, *, dense=(256, 128), kept=None, parameters=0, initial=(0.2,), least=(0.0,), rate=1.0,
               dense_prior=None, last_prior=None):
    """The dense layers of `cnn` alone, for some numbers of each particle: (batch, numbers) to (batch, 1 + scales).

    Each number is standardised by itself. The arguments are those of `cnn`.
    """
    inputs, given = keras.Input((numbers,), name="multipoles"), given_parameters(parameters)
    x = dense_layers(Standardise(dtype="float32")(inputs), dense, kept, dense_prior, last_prior, given)
    x = Scales(initial, least, rate, name="scales")(x)
    return keras.Model([inputs, given] if parameters else inputs, x, name="halomass")


def given_parameters(number):
    """The input of so many numbers of each simulation, (batch, number); None for 0."""
    return keras.Input((number,), name="parameters") if number else None


def dense_layers(x, dense, kept, prior, last_prior, given=None):
    """From features, (batch, features), to the prediction, (batch, 1).

    given: parameters of the simulation, which stand behind the features, standardised by those of the training: the
    convolutions see a density with its amplitude, and what it becomes in another cosmology is a function of that.
    """
    if given is not None:
        x = layers.Concatenate()([x, layers.Normalization(dtype="float32", name="normalised_parameters")(given)])
    if kept is not None:
        x = Select(kept)(x)
    for neurons in dense:
        x = layers.Dense(neurons, kernel_regularizer=prior)(x)
        x = layers.LeakyReLU(SLOPE)(x)
    return layers.Dense(1, kernel_regularizer=last_prior, dtype="float32", name="prediction")(x)
