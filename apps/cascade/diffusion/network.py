"""The network that finds the noise: the U-Net of Ono et al. 2024 (arXiv:2403.10648) for maps and for boxes."""

import math

import keras
import numpy as np
from keras import layers, ops

from kerasgal.apps.cascade.model import Scaling

FREQUENCIES = (0.25, 0.5, 1.0, 2.0)  # of the Fourier features, 2^-2 to 2^1 as in the paper's code
LONGEST = 10_000.0  # period of the slowest wave in the embedding of gamma


@keras.saving.register_keras_serializable("kerasgal")
class Waves(layers.Layer):
    """Embedding of gamma, (batch,): sines and cosines of 1000 times its place between gamma_min and gamma_max."""

    def __init__(self, size, gamma_min, gamma_max, **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.size, self.gamma_min, self.gamma_max = size, gamma_min, gamma_max

    def call(self, gamma):
        place = 1000 * (gamma - self.gamma_min) / (self.gamma_max - self.gamma_min)
        half = self.size // 2
        frequency = ops.exp(-math.log(LONGEST) / (half - 1) * ops.arange(half, dtype="float32"))
        phase = ops.reshape(place, (-1, 1)) * frequency
        return ops.concatenate([ops.sin(phase), ops.cos(phase)], axis=-1)

    def get_config(self):
        return {**{key: value for key, value in super().get_config().items() if key != "dtype"}, "size": self.size,
                "gamma_min": self.gamma_min, "gamma_max": self.gamma_max}


@keras.saving.register_keras_serializable("kerasgal")
class FourierFeatures(layers.Layer):
    """The field beside sines and cosines of it, which tell neighbouring counts apart (Sec. 5 of arXiv:2107.00630).

    standardised: whether the weights keep what each channel was divided by, so that periods are those of the counts.
    """

    def __init__(self, standardised=False, **kwargs):
        super().__init__(**kwargs)
        self.standardised = standardised

    def build(self, shape):
        if self.standardised:
            self.spread = self.add_weight(shape=(shape[-1],), initializer="ones", trainable=False, name="spread")

    def get_config(self):
        return {**super().get_config(), "standardised": self.standardised}

    def call(self, field):
        counted = field * ops.cast(self.spread, field.dtype) if self.standardised else field
        phases = [2 * math.pi * frequency * counted for frequency in FREQUENCIES]
        return ops.concatenate([field, *map(ops.sin, phases), *map(ops.cos, phases)], axis=-1)


@keras.saving.register_keras_serializable("kerasgal")
class Standardised(layers.Layer):
    """A field less a mean, over a standard deviation: two numbers that `adapt` measures and the weights keep.

    Of several channels each has its own two.
    """

    def __init__(self, **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})

    def build(self, shape):
        own = shape[-1:] if shape and shape[-1] > 1 else ()
        self.mean = self.add_weight(shape=own, initializer="zeros", trainable=False, name="mean")
        self.spread = self.add_weight(shape=own, initializer="ones", trainable=False, name="spread")

    def adapt(self, fields):
        """Take mean and standard deviation of arrays together; a field without any keeps its size."""
        axes = tuple(range(fields[0].ndim - len(self.mean.shape)))
        cells = sum(math.prod(field.shape[axis] for axis in axes) for field in fields)
        mean = sum(field.sum(axis=axes, dtype=np.float64) for field in fields) / cells
        square = sum(np.square(field - mean, dtype=np.float64).sum(axis=axes) for field in fields) / cells
        self.mean.assign(mean)
        self.spread.assign(np.where(square > 0, np.sqrt(square), 1.0))

    def call(self, field):
        return (field - self.mean) / self.spread

    def compute_output_shape(self, shape):
        return shape

    def get_config(self):
        return {key: value for key, value in super().get_config().items() if key != "dtype"}


def score_network(dimensions, parameters=0, channels=1, *, filters, levels, groups, epsilon, dropout, attention,
                  projections, fourier, scaling, standardise, gamma_min, gamma_max):
    """The network: [field with noise, density, gamma] or, with `parameters`, [..., parameters] to the noise's shape.

    dimensions: 2 for (batch, x, y, 1), 3 for (batch, x, y, z, 1); the sides are multiples of 2^levels.
    channels: of what is given in the place of the density.
    parameters: how many numbers describe the simulation, (batch, parameters); these are normalised inside.
    filters: of the first level, doubled with every further one; also the size of gamma's embedding.
    groups: of channels that are normalised together; 0 normalises the channels of each cell by themselves, so that
        what the network finds depends on nothing beyond its reach.
    projections: linear layers behind the attention; two is what versions before 0.2 had.
    The density is in units of its mean, scaled as `Scaling` says and, if so wished, `Standardised`. The output is
    float32.
    """
    Conv, Up = (layers.Conv2D, layers.Conv2DTranspose) if dimensions == 2 else (layers.Conv3D, layers.Conv3DTranspose)
    zeros = "zeros"  # initial weights of the last convolution of each block, which so begins as the identity

    def level_of(x):
        return (layers.GroupNormalization(groups, epsilon=epsilon) if groups else
                layers.LayerNormalization(epsilon=epsilon))(x)

    def normalised(x):
        return layers.Activation("silu")(level_of(x))

    def block(x, channels):
        y = Conv(channels, 3, padding="same")(normalised(x))
        shift = layers.Dense(channels, use_bias=False, kernel_initializer=zeros)(embedding)
        y = layers.Add()([y, layers.Reshape((1,) * dimensions + (channels,))(shift)])
        y = layers.Dropout(dropout)(normalised(y))
        y = Conv(channels, 3, padding="same", kernel_initializer=zeros)(y)
        if x.shape[-1] != channels:
            x = Conv(channels, 1)(x)
        return layers.Add()([x, y])

    def attended(x):
        channels = x.shape[-1]
        y = layers.Reshape((-1, channels))(level_of(x))
        attention = layers.MultiHeadAttention(1, channels)
        y = Flat()([attention(y, y), x])
        if projections == 1:
            attention.output_dense.kernel.assign(ops.zeros(attention.output_dense.kernel.shape))
        else:
            y = Conv(channels, 1, kernel_initializer=zeros)(y)
        return layers.Add()([x, y])

    field = keras.Input((None,) * dimensions + (1,), name="field")
    density = keras.Input((None,) * dimensions + (channels,), name="density")
    gamma = keras.Input((), name="gamma")
    inputs = [field, density, gamma]

    embedding = Waves(filters, gamma_min, gamma_max)(gamma)
    if parameters:
        inputs.append(keras.Input((parameters,), name="parameters"))
        embedding = layers.Concatenate()([embedding, layers.Normalization(name="normalised_parameters")(inputs[-1])])
    for _ in range(2):
        embedding = layers.Dense(4 * filters, activation="silu")(embedding)

    given = Scaling(scaling)(density)
    if standardise:
        given = Standardised(name="standardised_density")(given)
    x = layers.Concatenate()([field, given])
    if fourier:
        x = FourierFeatures(standardise, name="waves_of_the_field")(x)
    x = Conv(filters, 3, padding="same")(x)
    skips = []
    for level in range(levels):
        channels = filters * 2**level
        x = block(x, channels)
        skips.append(x)
        x = Conv(channels, 2, strides=2)(x)
    x = block(x, filters * 2**levels)
    if attention:
        x = block(attended(x), filters * 2**levels)
    for level in reversed(range(levels)):
        channels = filters * 2**level
        x = layers.Concatenate()([Up(channels, 2, strides=2)(x), skips[level]])
        x = block(x, channels)
    x = Conv(1, 3, padding="same", kernel_initializer=zeros, dtype="float32", name="output")(normalised(x))
    return keras.Model(inputs, x, name="score")


def radius(levels):
    """Cells to either side of an output cell that the network's convolutions see: 25 for 2 levels, 109 for 4.

    Two at the ends; on each level two blocks of two, 2^level cells wide, and one at the bottom; and 2^levels - 1 from a
    cell to the edge of the coarsest one that it lies in. Attention and `groups` see everything that is given.
    """
    blocks = sum(4 * 2**level for level in range(levels)) + 2 * 2**levels
    return 2 + blocks + 2**levels - 1


@keras.saving.register_keras_serializable("kerasgal")
class Flat(layers.Layer):
    """The inverse of flattening: [(batch, cells, channels), a tensor] to the shape of that tensor."""

    def call(self, inputs):
        flat, like = inputs
        return ops.reshape(flat, ops.shape(like))
