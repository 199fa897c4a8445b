"""The predictive distributions against scipy's, restricted to the range by hand."""

import types

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad

from kerasgal.apps.halomass.distribution import mass_quantiles, predictive

LOW, HIGH = -0.8, 1.2
Y = np.array([-0.8, -0.3, 0.4, 1.19])


class TwoSidedCauchy(stats.rv_continuous):
    """Cauchy distributions of half-width 0.2 below zero and 0.5 above, equal at zero."""

    def _pdf(self, x):
        return 2 / (np.pi * 0.7) / (1 + (x / np.where(x < 0, 0.2, 0.5))**2)

    def _cdf(self, x):
        return (0.2 + 2 / np.pi * np.where(x < 0, 0.2 * np.arctan(x / 0.2), 0.5 * np.arctan(x / 0.5))) / 0.7


CASES = [("cauchy", (0.05,), stats.cauchy(scale=0.05)), ("cauchy", (2.0,), stats.cauchy(scale=2)),
         ("gaussian", (0.05,), stats.norm(scale=0.05)), ("gaussian", (0.4,), stats.norm(scale=0.4)),
         ("laplace", (0.05,), stats.laplace(scale=0.05)), ("laplace", (0.4,), stats.laplace(scale=0.4)),
         ("student_t", (0.2, 3.5), stats.t(3.5, scale=0.2)), ("two_sided_cauchy", (0.2, 0.5), TwoSidedCauchy()())]


@pytest.mark.parametrize("likelihood, scales, base", CASES)
def test_density_cdf_quantile_and_mean_are_scipys_restricted_to_the_range(likelihood, scales, base):
    distribution = predictive(likelihood, Y, scales, LOW, HIGH)
    assert distribution.batch_shape == (4,)
    value, probability = np.linspace(LOW, HIGH, 41)[:, None], np.linspace(0.01, 0.99, 23)[:, None]
    start, mass = base.cdf(LOW - Y), base.cdf(HIGH - Y) - base.cdf(LOW - Y)
    np.testing.assert_allclose(distribution.log_prob(value), base.logpdf(value - Y) - np.log(mass), atol=1e-7)
    np.testing.assert_allclose(distribution.cdf(value), (base.cdf(value - Y) - start) / mass, atol=1e-7)
    quantile = Y + base.ppf(start + probability * mass)
    np.testing.assert_allclose(distribution.quantile(probability), quantile, atol=1e-6)
    mean = [quad(lambda d, y=y: d * base.pdf(d - y), LOW, HIGH, points=[y])[0] for y in Y]
    np.testing.assert_allclose(distribution.mean(), mean / mass, atol=2e-4)
    assert np.all(np.isneginf(distribution.log_prob(np.array([[LOW - 0.1], [HIGH + 0.1]]))))


@pytest.mark.parametrize("likelihood, scales, base", CASES)
def test_samples_follow_the_restricted_distribution(likelihood, scales, base):
    sample = predictive(likelihood, Y, scales, LOW, HIGH).sample(4000, seed=(1, 2)).numpy()
    assert sample.shape == (4000, 4) and sample.min() >= LOW and sample.max() <= HIGH
    for column, y in zip(sample.T, Y):
        start, end = base.cdf(LOW - y), base.cdf(HIGH - y)
        assert stats.kstest((base.cdf(column - y) - start) / (end - start), "uniform").pvalue > 1e-3


@pytest.mark.parametrize("likelihood, scales, base", CASES)
def test_the_loss_is_minus_the_log_of_this_density(likelihood, scales, base):
    from kerasgal.apps.halomass.losses import negative_log_likelihood

    d = np.linspace(LOW, HIGH, 21)[:, None]
    loss = np.asarray(negative_log_likelihood(d, Y, [np.full(4, scale) for scale in scales], likelihood, LOW, HIGH))
    np.testing.assert_allclose(loss, -predictive(likelihood, Y, scales, LOW, HIGH).log_prob(d).numpy(), atol=1e-5)


def test_a_prediction_outside_the_range_has_the_distribution_of_its_end():
    value = np.linspace(-1, 1, 9)[:, None]
    outside, end = predictive("cauchy", [-7.0, 50.0], 0.2), predictive("cauchy", [-1.0, 1.0], 0.2)
    np.testing.assert_array_equal(outside.log_prob(value), end.log_prob(value))
    assert np.all(np.isfinite(outside.quantile(np.linspace(0, 1, 5)[:, None])))


def test_quantiles_in_mass_are_the_rescaled_ones():
    config = types.SimpleNamespace(likelihood="cauchy", low=12, high=14)
    found = mass_quantiles(config, np.zeros(3), 0.1, (0.16, 0.5, 0.84))
    assert found.shape == (3, 3)
    tail = stats.cauchy.cdf(-1, scale=0.1)
    expected = 13 + stats.cauchy.ppf(tail + 0.84 * (1 - 2 * tail), scale=0.1)
    np.testing.assert_allclose(found[0], [26 - expected, 13, expected], atol=1e-9)


def test_an_unknown_likelihood_is_refused():
    with pytest.raises(ValueError, match="poisson"):
        predictive("poisson", [0.0], 0.1)
