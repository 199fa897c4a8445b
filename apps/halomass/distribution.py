"""The predictive distribution of a particle's rescaled mass, Eq. 5 of Lucie-Smith et al. 2020, as TFP distributions.

The network says y and gamma; the particle's mass d then follows the likelihood, centred on y with the scale gamma and
restricted to the range [low, high] by which particles were selected. Where y is outside that range, the distribution
is the one centred on the nearer end: the loss adds there a term that penalises y and depends on no d.
"""

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from kerasgal.apps.halomass.data import Scale

tfd, tfb = tfp.distributions, tfp.bijectors


class QuantileFunction(tfb.Bijector):
    """Cumulative probability to the value that a distribution has there, on [low, high]; cdf is its inverse."""

    def __init__(self, distribution, low, high):
        super().__init__(forward_min_event_ndims=0, dtype=distribution.dtype, name="quantile_function")
        self.distribution, self.low, self.high = distribution, low, high

    @classmethod
    def _is_increasing(cls):
        return True

    def _forward(self, probability):
        return self.distribution.quantile(probability)

    def _inverse(self, value):
        return self.distribution.cdf(value)

    def _inverse_log_det_jacobian(self, value):
        # Far from the centre cdf is constant in floating point: it does not tell whether a value is inside.
        inside = (value >= self.low) & (value <= self.high)
        return tf.where(inside, self.distribution.log_prob(value), tf.cast(-np.inf, self.dtype))


class Truncated(tfd.TransformedDistribution):
    """A uniform distribution of probabilities sent through a quantile function; adds the mean."""

    def _mean(self):
        """The integral of the quantile function over [0, 1], by Gauss-Legendre quadrature."""
        node, weight = np.polynomial.legendre.leggauss(64)
        probability = tf.cast(tf.reshape((node + 1) / 2, [-1] + [1] * len(self.batch_shape)), self.dtype)
        return tf.tensordot(tf.cast(weight / 2, self.dtype), self.quantile(probability), axes=1)


def truncated(distribution, low, high):
    """A distribution restricted to [low, high], for those that TFP does not truncate itself."""
    return Truncated(tfd.Uniform(distribution.cdf(low), distribution.cdf(high)),
                     QuantileFunction(distribution, low, high), name=f"Truncated{distribution.name}")


def predictive(likelihood, y, scales, low=-1.0, high=1.0):
    """The distribution of the rescaled mass d on [low, high] for predictions y, (n,).

    scales: the likelihood's scales in its order, e.g. gamma, each a number.
    Returns a TensorFlow Probability distribution of batch shape (n,) in float64 (sample, mean, quantile, cdf,
    log_prob). Raises ValueError for an unknown likelihood.
    """
    low, high = np.float64(low), np.float64(high)
    y = np.clip(np.asarray(y, np.float64), low, high)
    scales = np.atleast_1d(np.asarray(scales, np.float64))
    if likelihood == "cauchy":
        return tfd.TruncatedCauchy(y, *scales, low, high)
    if likelihood == "gaussian":
        return tfd.TruncatedNormal(y, *scales, low, high)
    if likelihood == "laplace":
        return truncated(tfd.Laplace(y, *scales), low, high)
    if likelihood == "two_sided_cauchy":
        below, above = scales  # TFP's scale and skewness are their geometric mean and the root of their ratio
        return truncated(tfd.TwoPieceStudentT(np.float64(1), y, np.sqrt(below * above), np.sqrt(above / below)), low,
                         high)
    if likelihood == "student_t":
        gamma, nu = scales
        return truncated(tfd.StudentT(nu, y, gamma), low, high)
    raise ValueError(f"no predictive distribution of the likelihood {likelihood!r}")


def mass_quantiles(config, y, scales, probabilities):
    """Quantiles of the mass in log10(Msun/h), (n, probabilities), for predictions y, (n,), of a run's config."""
    column = np.asarray(probabilities, np.float64)[:, None]
    quantiles = predictive(config.likelihood, y, scales).quantile(column).numpy()
    return Scale(config.low, config.high).to_log_mass(quantiles).T
