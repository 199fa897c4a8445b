"""The distribution of a pixel, as a TensorFlow Probability distribution: a mixture of logistics (Eqs. 1 and 2 of
Salimans et al. 2017), or the one normal distribution of Zanisi et al. 2020."""

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from kerasgal.apps.morph.losses import LEAST_DEVIATION, LEAST_LOG_SCALE, LOGISTIC, NORMAL

tfd = tfp.distributions


def distribution(parameters, bits=0, likelihood=LOGISTIC):
    """The pixels' distributions for the network's parameters, (..., 3 M) or (..., 2), of images with one channel.

    Returns a TFP distribution in float64 (sample, mean, cdf, log_prob, ...) of batch shape (...): a mixture of
    logistics of the stretched flux; or with bits > 0 the mixture of these quantised, of the levels 0 ... 2^bits - 1,
    which stand for the fluxes level / (2^bits - 1); or with likelihood="normal" a normal distribution of the stretched
    flux. Raises ValueError if the parameters are not 3 per logistic, or not 2.
    """
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
