"""The likelihood of Lucie-Smith et al. 2020, Eqs. 5 and 6, and its alternatives.

The halo mass is rescaled so that the range [low, high] by which particles were selected becomes [-1, 1]. The network
says y, and the true d follows a distribution f(d - y) of trainable width, normalised over the selection (Eq. 5):

    -ln p(d | y) = -ln f(d - y) + ln of the integral of f(d' - y) over d' in [low, high],   low <= y <= high.

Outside, where no prediction should be, a super-exponential in y takes over (Eq. 6), equal in value and slope at the
boundary. A likelihood is given by three functions of the scales (its trainable parameters): `energy` is -ln f with
f(0) = 1, `slope` its derivative, `mass` the integral. All is in the arguments' float type.
"""

import keras
import numpy as np
from keras import ops

CAP = 3.0  # |y|, in half widths of the selection, beyond which the super-exponential goes on as its tangent
NODES = 48  # of the quadrature for Student's t


class Cauchy:
    """f = 1 / (1 + (x / gamma)^2), the paper's."""

    names, initial, least = ("gamma",), (0.2,), (0.0,)

    @staticmethod
    def energy(x, gamma):
        return ops.log1p(ops.square(x / gamma))

    @staticmethod
    def slope(x, gamma):
        return 2 * x / (ops.square(gamma) + ops.square(x))

    @staticmethod
    def mass(below, above, gamma):
        return gamma * (ops.arctan(above / gamma) + ops.arctan(below / gamma))


class Gaussian:
    """f = exp(-(x / gamma)^2 / 2)."""

    names, initial, least = ("gamma",), (0.4,), (0.0,)

    @staticmethod
    def energy(x, gamma):
        return ops.square(x / gamma) / 2

    @staticmethod
    def slope(x, gamma):
        return x / ops.square(gamma)

    @staticmethod
    def mass(below, above, gamma):
        width = np.sqrt(2.0).item() * gamma
        return np.sqrt(np.pi / 2).item() * gamma * (ops.erf(above / width) + ops.erf(below / width))


class Laplace:
    """f = exp(-|x| / gamma)."""

    names, initial, least = ("gamma",), (0.3,), (0.0,)

    @staticmethod
    def energy(x, gamma):
        return ops.abs(x) / gamma

    @staticmethod
    def slope(x, gamma):
        return ops.sign(x) / gamma

    @staticmethod
    def mass(below, above, gamma):
        return -gamma * (ops.expm1(-above / gamma) + ops.expm1(-below / gamma))


class TwoSidedCauchy:
    """A Cauchy distribution with one half-width for truths below the prediction and another for those above."""

    names, initial, least = ("gamma_below", "gamma_above"), (0.2, 0.2), (0.0, 0.0)

    @staticmethod
    def energy(x, gamma_below, gamma_above):
        return Cauchy.energy(x, ops.where(x < 0, gamma_below, gamma_above))

    @staticmethod
    def slope(x, gamma_below, gamma_above):
        return Cauchy.slope(x, ops.where(x < 0, gamma_below, gamma_above))

    @staticmethod
    def mass(below, above, gamma_below, gamma_above):
        return gamma_below * ops.arctan(below / gamma_below) + gamma_above * ops.arctan(above / gamma_above)


class StudentT:
    """f = (1 + (x / gamma)^2 / nu)^(-(nu + 1) / 2): Cauchy at nu = 1, Gaussian at infinity."""

    names, initial, least = ("gamma", "nu"), (0.2, 3.0), (0.0, 1.0)

    @staticmethod
    def energy(x, gamma, nu):
        return (nu + 1) / 2 * ops.log1p(ops.square(x / gamma) / nu)

    @staticmethod
    def slope(x, gamma, nu):
        return (nu + 1) * x / (nu * ops.square(gamma) + ops.square(x))

    @staticmethod
    def mass(below, above, gamma, nu):
        """With x = gamma sqrt(nu) cot(v^2) the integrand, 2 v sin(v^2)^(nu - 1), is smooth: Gauss-Legendre."""
        width = gamma * ops.sqrt(nu)
        node, weight = (ops.convert_to_tensor(value, width.dtype) for value in np.polynomial.legendre.leggauss(NODES))
        largest = np.sqrt(np.pi / 2).item()
        power = ops.expand_dims(nu - 1, -1)

        def side(distance):
            least = ops.sqrt(ops.arctan2(width, distance))
            v = ops.expand_dims(least, -1) + ops.expand_dims(largest - least, -1) * ((1 + node) / 2)
            return (largest - least) * ops.sum(weight * v * ops.exp(power * ops.log(ops.sin(ops.square(v)))), axis=-1)

        return width * (side(below) + side(above))


LIKELIHOODS = {"cauchy": Cauchy, "gaussian": Gaussian, "laplace": Laplace, "two_sided_cauchy": TwoSidedCauchy,
               "student_t": StudentT}


def negative_log_likelihood(d, y, scales, likelihood="cauchy", low=-1.0, high=1.0):
    """-ln p(d | y) of Eqs. 5 and 6, of the broadcast shape of d and y.

    d: true values in [low, high]; y: predictions, any number; scales: the likelihood's trainable parameters, each a
    scalar or of the shape of y; likelihood: a key of LIKELIHOODS.
    """
    law = LIKELIHOODS[likelihood]
    centre, half = (high + low) / 2, (high - low) / 2
    # Branch-free: the inside at the nearest y of the selection, plus what lies beyond, which is zero inside.
    inner = ops.clip(y, low, high)
    mass = law.mass(inner - low, high - inner, *scales)
    inside = law.energy(d - inner, *scales) + ops.log(mass)

    # The slope of `inside` at the boundary, taken outwards: matched by the super-exponential's own and that of
    # coefficient (a^2 - 1), where a = |y| in half widths and E(a) = exp(exp(a)) (Eq. 6).
    slope = -law.slope(d - inner, *scales)
    slope += (ops.exp(-law.energy(low - inner, *scales)) - ops.exp(-law.energy(high - inner, *scales))) / mass
    outwards = half * slope * ops.sign(y - centre)
    e = np.e
    coefficient = (outwards - e * np.exp(e).item()) / 2
    beyond = ops.relu(ops.abs(y - centre) / half - 1)  # a - 1
    outside = coefficient * beyond * (beyond + 2)
    # E(a) - E(1) up to the cap, without cancellation, and its tangent from there: exp(exp(a)) leaves float32 at 4.49,
    # and one bad prediction must not ruin the optimiser's second moments.
    capped = ops.minimum(beyond, CAP - 1)
    outside += np.exp(e).item() * ops.expm1(e * ops.expm1(capped))
    outside += np.exp(np.exp(CAP) + CAP).item() * ops.relu(beyond - (CAP - 1))
    return inside + outside


@keras.saving.register_keras_serializable("kerasgal")
class SelectionLikelihood(keras.losses.Loss):
    """Negative log-likelihood of the true d, (..., 1), given [y, scales...], (..., 1 + scales).

    In float32 whatever the precision policy. The selection is [low, high] in the units of d. Where there are weights,
    the loss is the mean over what they leave.
    """

    def __init__(self, likelihood="cauchy", low=-1.0, high=1.0, name="selection_likelihood", **kwargs):
        super().__init__(**{"reduction": "mean_with_sample_weight", **kwargs, "name": name, "dtype": "float32"})
        self.likelihood, self.low, self.high = likelihood, low, high

    def call(self, y_true, y_pred):
        """(...) whose mean is the loss."""
        y = y_pred[..., 0]
        d = ops.reshape(y_true, ops.shape(y))
        scales = [y_pred[..., 1 + i] for i in range(len(LIKELIHOODS[self.likelihood].names))]
        return negative_log_likelihood(d, y, scales, self.likelihood, self.low, self.high)

    def get_config(self):
        return {**super().get_config(), "likelihood": self.likelihood, "low": self.low, "high": self.high}


@keras.saving.register_keras_serializable("kerasgal")
class ScaleMetric(keras.metrics.Mean):
    """The mean over an epoch of one of the likelihood's scales, the column `column` of [y, scales...]."""

    def __init__(self, column, name=None, dtype="float32"):
        super().__init__(name=name, dtype=dtype)
        self.column = column

    def update_state(self, y_true, y_pred, sample_weight=None):
        return super().update_state(y_pred[..., self.column])

    def get_config(self):
        return {**super().get_config(), "column": self.column}
