"""Residuals, divergences and coverage against closed forms and scipy."""

import numpy as np
import pytest
from scipy import stats

from kerasgal.apps.halomass import metrics


def gaussian_divergence(mean_p, sigma_p, mean_q, sigma_q):
    """D(p || q) of two Gaussians: Kullback & Leibler 1951."""
    return np.log(sigma_q / sigma_p) + (sigma_p**2 + (mean_p - mean_q)**2) / (2 * sigma_q**2) - 0.5


@pytest.mark.parametrize("bandwidth", [0.1, 0.03])
def test_divergence_of_two_gaussians_is_the_closed_form_of_the_widened_ones(bandwidth):
    # Quantiles in place of random numbers: the estimate is then free of noise.
    level = (np.arange(200_000) + 0.5) / 200_000
    residuals = {"p": stats.norm.ppf(level, 0.1, 0.4), "q": stats.norm.ppf(level, -0.1, 0.5)}
    found = metrics.divergences(residuals, np.arange(len(level)) // 1000, bandwidth, draws=2)
    wide = np.hypot((0.4, 0.5), bandwidth)
    expected = gaussian_divergence(0.1, wide[0], -0.1, wide[1])
    assert found["p"]["q"]["divergence"] == pytest.approx(expected, rel=5e-3)
    if bandwidth == 0.1:
        expected = gaussian_divergence(-0.1, wide[1], 0.1, wide[0])
        assert found["q"]["p"]["divergence"] == pytest.approx(expected, rel=5e-3)
    else:  # narrow enough that the Gaussians themselves are met
        assert found["p"]["q"]["divergence"] == pytest.approx(gaussian_divergence(0.1, 0.4, -0.1, 0.5), rel=0.02)


def test_the_bootstrap_error_is_the_scatter_of_repeated_experiments():
    """Particles of a halo share a residual: the error must follow the number of haloes, not of particles."""
    generator = np.random.default_rng(0)
    haloes, members = 300, 20
    halo = np.repeat(np.arange(haloes), members)

    def experiment():
        shared = generator.normal(size=haloes)[halo]
        noise = 0.1 * generator.normal(size=(2, len(halo)))
        return {"p": 0.3 * shared + noise[0], "q": 0.5 * shared + 0.1 + noise[1]}

    repeated = [metrics.divergences(experiment(), halo, draws=2)["p"]["q"]["divergence"] for _ in range(60)]
    errors = [metrics.divergences(experiment(), halo, draws=60)["p"]["q"]["error"] for _ in range(5)]
    assert np.mean(errors) == pytest.approx(np.std(repeated), rel=0.35)
    of_particles = metrics.divergences(experiment(), np.arange(len(halo)), draws=60)["p"]["q"]["error"]
    assert of_particles < np.mean(errors) / 2


def test_density_is_scipys_kernel_density_estimate():
    residual = np.random.default_rng(1).normal(0, 0.4, 500)
    grid = metrics.residual_grid([residual])
    oracle = stats.gaussian_kde(residual, bw_method=metrics.BANDWIDTH / residual.std(ddof=1))(grid)
    np.testing.assert_allclose(metrics.kernel_density(residual, grid), oracle, atol=0.01)
    weights = np.random.default_rng(2).integers(0, 3, (1, 500))
    oracle = stats.gaussian_kde(np.repeat(residual, weights[0]), bw_method=metrics.BANDWIDTH
                                / np.repeat(residual, weights[0]).std(ddof=1))(grid)
    np.testing.assert_allclose(metrics.kernel_density(residual, grid, weights=weights)[0], oracle, atol=0.01)


def test_densities_that_do_not_overlap_have_a_finite_divergence():
    found = metrics.divergences({"p": np.full(50, 0.0), "q": np.full(50, 9.0)}, np.arange(50), draws=2)
    assert np.isfinite(found["p"]["q"]["divergence"]) and found["p"]["q"]["divergence"] > 100


def test_correlation_and_scatter_are_numpys_with_particles_repeated():
    generator = np.random.default_rng(3)
    true = 12 + generator.random(400)
    predicted = true + generator.normal(size=400)
    weights = metrics.bootstrap_weights(np.arange(400) // 4, draws=3)
    assert metrics.correlation(true, predicted) == pytest.approx(np.corrcoef(true, predicted)[0, 1])
    for number, weight in enumerate(weights):
        drawn = np.repeat(true, weight), np.repeat(predicted, weight)
        assert metrics.correlation(true, predicted, weights)[number] == pytest.approx(np.corrcoef(*drawn)[0, 1])
        assert metrics.root_mean_square(predicted - true, weights)[number] == pytest.approx(
            np.sqrt(np.mean((drawn[1] - drawn[0])**2)))
        assert np.all(np.ptp(weight.reshape(100, 4), axis=1) == 0)  # a halo's particles come together
    assert np.isnan(metrics.correlation(true, np.full(400, 12.3)))


def test_thirds_of_halo_and_mass_range():
    position = np.array([[0.1, 5, 5], [9.9, 5, 5], [1.1, 5, 5], [3.5, 5, 5]])
    centre = np.array([[9.9, 5, 5]] * 4)
    fraction = metrics.radius_fraction(position, centre, np.full(4, 2.0), 10.0)
    np.testing.assert_allclose(fraction, [0.1, 0, 0.6, 1.8])  # across the box's face
    np.testing.assert_array_equal(metrics.radial_third(fraction), [0, 0, 1, 2])
    np.testing.assert_array_equal(metrics.mass_third([11, 11.79, 11.81, 13.4], 11, 13.4), [0, 0, 1, 2])
    shells = metrics.radial_third(np.cbrt(np.random.default_rng(4).random(100_000)))  # an even ball
    np.testing.assert_allclose(np.bincount(shells) / 1e5, np.array([1, 7, 19]) / 27, atol=0.01)


def test_summary_of_residuals():
    found = metrics.summary(stats.norm.ppf((np.arange(10_000) + 0.5) / 10_000, 0.2, 0.5))
    assert found["particles"] == 10_000 and found["median"] == pytest.approx(0.2)
    assert found["high"] - found["low"] == pytest.approx(2 * 0.5 * stats.norm.ppf(0.84), abs=1e-3)
    assert metrics.summary(np.array([])) == {"particles": 0, "median": None, "low": None, "high": None}


def test_coverage_of_a_calibrated_and_of_an_overconfident_prediction():
    generator = np.random.default_rng(5)
    truth = generator.normal(size=200_000)
    np.testing.assert_allclose(metrics.coverage(stats.norm.cdf(truth)), metrics.LEVELS, atol=0.005)
    narrow = metrics.coverage(stats.norm.cdf(truth, scale=0.5), (0.68,))[0]
    assert narrow == pytest.approx(2 * stats.norm.cdf(0.5 * stats.norm.ppf(0.84)) - 1, abs=0.005)
