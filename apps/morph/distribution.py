"""The distribution of a pixel, as a TensorFlow Probability distribution: a mixture of logistics (Eqs. 1 and 2 of
Salimans et al. 2017), or the one normal distribution of Zanisi et al. 2020."""

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from kerasgal.apps.morph.losses import LEAST_DEVIATION, LEAST_LOG_SCALE, LOGISTIC, NORMAL

tfd = tfp.distributions


def distribution(parameters, bits=0, likelihood=LOGISTIC, channels=1):
    """The pixels' distributions for the network's parameters, of images with so many channels.

    Returns a TFP distribution in float64 (sample, mean, cdf, log_prob, ...) of batch shape (...): a mixture of
    logistics of the stretched flux; or with bits > 0 the mixture of these quantised, of the levels 0 ... 2^bits - 1,
    which stand for the fluxes level / (2^bits - 1); or with likelihood="normal" a normal distribution of the stretched
    flux. Of several channels it has event shape (channels,): a mixture of autoregressive logistics, not quantised, or a
    multivariate normal distribution. Raises ValueError if the parameters, (..., 3 M) or (..., 2) for one channel, are
    not those of so many, or with bits of several channels.
    """
    if channels > 1:
        if bits:
            raise ValueError(f"bits={bits}: of {channels} channels only the density is made, bits=0")
        made = _multivariate_normal if likelihood == NORMAL else _autoregressive
        return made(np.asarray(parameters, np.float64), channels)
    if likelihood == NORMAL:
        mean, raw = np.moveaxis(np.asarray(parameters, np.float64), -1, 0)
        return tfd.Normal(mean, np.logaddexp(raw, 0) + LEAST_DEVIATION)
    weights, means, log_scales = np.split(np.asarray(parameters, np.float64), 3, axis=-1)
    # from y = 2 x - 1 to x
    means, scales = (means + 1) / 2, np.exp(np.maximum(log_scales, LEAST_LOG_SCALE)) / 2
    if bits:
        highest = 2.0**bits - 1
        # TFP gives level k what lies in (k - 1, k], and the last one all that lies above.
        shifted = tfd.Logistic(means * highest - 0.5, scales * highest)
        components = tfd.QuantizedDistribution(shifted, low=tf.constant(0.0, tf.float64), high=highest)
    else:
        components = tfd.Logistic(means, scales)
    return tfd.MixtureSameFamily(tfd.Categorical(logits=weights), components)


def _multivariate_normal(parameters, channels):
    """The normal distribution of all channels of a pixel, whose means and scales are those of `losses.log_prob`."""
    if parameters.shape[-1] != channels * (channels + 3) // 2:
        raise ValueError(f"{parameters.shape[-1]} parameters: of {channels} channels there are "
                         f"{channels * (channels + 3) // 2}")
    mean, raw, coefficient = np.split(parameters, [channels, 2 * channels], axis=-1)
    below = np.zeros((*mean.shape, channels))  # x = mean + below x + deviation z
    below[..., *np.tril_indices(channels, -1)] = coefficient
    mixing = np.linalg.inv(np.eye(channels) - below)
    deviation = np.logaddexp(raw, 0) + LEAST_DEVIATION
    return tfd.MultivariateNormalTriL((mixing @ mean[..., None])[..., 0], mixing * deviation[..., None, :])


def _autoregressive(parameters, channels):
    """The mixture of logistics of all channels of a pixel, each of whose means follow the channels before (Eq. 3)."""
    pairs = channels * (channels - 1) // 2
    if parameters.shape[-1] % (1 + 2 * channels + pairs):
        raise ValueError(f"{parameters.shape[-1]} parameters: of {channels} channels there are "
                         f"{1 + 2 * channels + pairs} for each logistic")
    rows = parameters.reshape(*parameters.shape[:-1], 1 + 2 * channels + pairs, -1)
    weights, means, log_scales, coefficients = np.split(rows, [1, 1 + channels, 1 + 2 * channels], axis=-2)
    means, scales, coefficients = (np.moveaxis(values, -2, -1) for values in (
        means, np.exp(np.maximum(log_scales, LEAST_LOG_SCALE)) / 2, np.tanh(coefficients)))  # (..., M, C)
    below = np.zeros((*means.shape, channels))
    below[..., *np.tril_indices(channels, -1)] = coefficients

    def given(x):
        y = means + tf.linalg.matvec(below, 2 * tf.cast(x, tf.float64) - 1)
        return tfd.Independent(tfd.Logistic((y + 1) / 2, scales), 1)

    components = tfd.Autoregressive(given, sample0=tf.zeros_like(means), num_steps=channels)
    return tfd.MixtureSameFamily(tfd.Categorical(logits=weights[..., 0, :]), components)
