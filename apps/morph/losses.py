"""The likelihood of a pixel: a mixture of logistics (PixelCNN++, arXiv:1701.05517), or one normal distribution.

Logistic. The network's parameters of a pixel of C channels, for M logistics: M logarithms of weights, C M means, C M
logarithms of scales, C (C - 1) / 2 M coefficients. Means and scales are those of y = 2 x - 1, where x in [0, 1] is the
stretched flux; a coefficient's tanh times y of an earlier channel is added to the mean of a later one (Eq. 3). What is
returned is about x: ln p(x) = ln p(y) + ln 2 per channel.

Normal, as in the code of Zanisi et al. (arXiv:2007.00039). The parameters are C means of x, C numbers a, of which
softplus(a) + 1e-4 is the standard deviation, and C (C - 1) / 2 coefficients. A coefficient times x of an earlier
channel is added to the mean of a later one, as in Eq. 3, but without the tanh: so it is any normal distribution of the
C channels together. Independent ones would count what all bands show of a galaxy once for each.
"""

import keras
import numpy as np
from keras import ops

LEAST_LOG_SCALE = -7.0
LEAST_DEVIATION = 1e-4
NORMAL, LOGISTIC = "normal", "logistic"


def mixture(parameters, channels=1):
    """The parameters apart: logarithms of normalised weights, means, logarithms of scales, coefficients.

    They are (..., 1, M), twice (..., C, M), and (..., C (C - 1) / 2, M): of channel 1 on 0, 2 on 0, 2 on 1, ...
    """
    pairs = channels * (channels - 1) // 2
    rows = ops.reshape(parameters, (*ops.shape(parameters)[:-1], 1 + 2 * channels + pairs, -1))
    weight, mean, scale = rows[..., :1, :], rows[..., 1:1 + channels, :], rows[..., 1 + channels:1 + 2 * channels, :]
    coefficient = ops.tanh(rows[..., 1 + 2 * channels:, :])
    return ops.log_softmax(weight), mean, ops.maximum(scale, LEAST_LOG_SCALE), coefficient


def conditional_means(y, mean, coefficient):
    """Means of all channels given the earlier channels' y, Eq. 3: (..., C, M); y: (..., C, 1)."""
    means, pair = [], 0
    for channel in range(mean.shape[-2]):
        means.append(mean[..., channel, :]
                     + ops.sum(coefficient[..., pair:pair + channel, :] * y[..., :channel, :], axis=-2))
        pair += channel
    return ops.stack(means, axis=-2)


def log_density(z, log_scale):
    """ln of the logistic density e^-z / (scale (1 + e^-z)^2) at z scales from the mean."""
    return -ops.abs(z) - 2 * ops.softplus(-ops.abs(z)) - log_scale


def log_mass(y, mean, log_scale, half):
    """ln of a logistic's probability of y +- half, Eq. 2; the bins at -1 and 1 reach to infinity."""
    inverse = ops.exp(-log_scale)
    above, below, width = (y + half - mean) * inverse, (y - half - mean) * inverse, 2 * half * inverse
    # sigmoid(above) - sigmoid(below) = sigmoid(above) sigmoid(-below) (1 - e^-width), and each factor has a logarithm
    # that is exact however narrow or far off the bin is. For a small width the last one is ln(width) - width / 2: so it
    # stays finite where the width is too small for float32. Both branches of a `where` are differentiated: the one not
    # taken gets an argument at which its slope is finite.
    narrow = width < 1e-3
    inside = ops.where(narrow, np.log(2 * half).item() - log_scale - width / 2,
                       ops.log(-ops.expm1(-ops.where(narrow, 1.0, width))))
    first, last = y < half - 1, y > 1 - half
    return (ops.where(last, 0.0, -ops.softplus(-above)) + ops.where(first, 0.0, -ops.softplus(below))
            + ops.where(ops.logical_or(first, last), 0.0, inside))


def log_prob(x, parameters, bits=0, likelihood=LOGISTIC):
    """ln p of each pixel, (batch, y, x), in nats.

    x: (batch, y, x, channel) stretched flux in [0, 1]; parameters: (batch, y, x, parameter) as the network gives them.
    bits: 0 for the density of x over the whole real line, which integrates to 1 there; the 0 and 1 to which fluxes
        were clipped are values like others. Else the probability of the nearest of 2^bits values from 0 to 1, all of
        which sum to 1; of the mixture alone.
    likelihood: "normal" or "logistic", what the parameters are of.
    """
    x, parameters = ops.cast(x, "float32"), ops.cast(parameters, "float32")
    if likelihood == NORMAL:
        mean, deviation, coefficient = normal(parameters, x.shape[-1])
        if x.shape[-1] > 1:
            mean = conditional_means(x[..., None], mean[..., None], coefficient[..., None])[..., 0]
        of_channel = -0.5 * ops.square((x - mean) / deviation) - ops.log(deviation) - 0.5 * np.log(2 * np.pi).item()
        return ops.sum(of_channel, axis=-1)
    weight, mean, log_scale, coefficient = mixture(parameters, x.shape[-1])
    if bits:
        x = ops.clip(ops.round(x * (2**bits - 1)) / (2**bits - 1), 0, 1)
    y = ops.expand_dims(2 * x - 1, -1)
    mean = conditional_means(y, mean, coefficient)
    if bits:
        of_channel = log_mass(y, mean, log_scale, 1 / (2**bits - 1))
    else:
        of_channel = log_density((y - mean) * ops.exp(-log_scale), log_scale) + np.log(2).item()
    return ops.logsumexp(weight[..., 0, :] + ops.sum(of_channel, axis=-2), axis=-1)


def normal(parameters, channels=1):
    """Means and standard deviations of the normal distributions, (..., C) each, and (..., C (C - 1) / 2) coefficients.

    Those are of channel 1 on 0, 2 on 0, 2 on 1, ...
    """
    mean, raw, coefficient = ops.split(parameters, [channels, 2 * channels], axis=-1)
    return mean, ops.softplus(raw) + LEAST_DEVIATION, coefficient


def log_likelihood(x, parameters, bits=0, likelihood=LOGISTIC):
    """ln p of each image, (batch,): the sum of `log_prob` over its pixels."""
    return ops.sum(log_prob(x, parameters, bits, likelihood), axis=(1, 2))


def loss_of(config):
    """The loss of a `TrainConfig`: -ln p per pixel."""
    return Normal() if config.likelihood == NORMAL else LogisticMixture(config.bits)


@keras.saving.register_keras_serializable("kerasgal")
class PixelLikelihood(keras.layers.Layer):
    """`log_prob` as a layer: image and parameters to ln p of each pixel, (batch, y, x), in float32."""

    def __init__(self, bits=0, likelihood=LOGISTIC, **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.bits, self.likelihood = bits, likelihood

    def call(self, x, parameters):
        return log_prob(x, parameters, self.bits, self.likelihood)

    def get_config(self):
        return {**{key: value for key, value in super().get_config().items() if key != "dtype"}, "bits": self.bits,
                "likelihood": self.likelihood}


@keras.saving.register_keras_serializable("kerasgal")
class LogisticMixture(keras.losses.Loss):
    """-ln p of the images per pixel, in nats: `log_prob` averaged, in float32 whatever the precision policy.

    Averaged and not summed, so that runs with different sizes compare and half precision's scaled loss stays finite.
    """

    def __init__(self, bits=0, name="logistic_mixture", **kwargs):
        super().__init__(name=name, dtype="float32", **{k: v for k, v in kwargs.items() if k != "dtype"})
        self.bits = bits

    def call(self, y_true, y_pred):
        """(batch,) whose mean is the loss; y_true: (batch, y, x, channel), y_pred: (batch, y, x, parameter)."""
        return -ops.mean(log_prob(y_true, y_pred, self.bits), axis=(1, 2))

    def get_config(self):
        return {**super().get_config(), "bits": self.bits}


@keras.saving.register_keras_serializable("kerasgal")
class Normal(keras.losses.Loss):
    """-ln p of the images per pixel under one normal distribution for each, in nats; as `LogisticMixture`."""

    def __init__(self, name="normal", **kwargs):
        super().__init__(name=name, dtype="float32", **{k: v for k, v in kwargs.items() if k != "dtype"})

    def call(self, y_true, y_pred):
        """(batch,) whose mean is the loss; y_true: (batch, y, x, channel), y_pred: (batch, y, x, parameter)."""
        return -ops.mean(log_prob(y_true, y_pred, likelihood=NORMAL), axis=(1, 2))
