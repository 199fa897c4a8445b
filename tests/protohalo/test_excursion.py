"""The baselines: peaks of the linear density that collapse as spheres or as ellipsoids."""

import numpy as np
import pytest

from kerasgal.apps.protohalo import excursion


def test_a_sphere_collapses_at_the_barrier_of_spheres():
    assert excursion.ellipsoidal_barrier([0.5, 0.5, 0.5]) == pytest.approx(1.686)


@pytest.mark.parametrize("deviation", [0.3, 1.0, 2.0])
def test_the_mean_shape_of_a_gaussian_field_has_the_barrier_of_the_excursion_set(deviation):
    """Eq. 4 of astro-ph/9907024: 1 + 0.47 (sigma^2 / 1.686^2)^0.615, at p = 0 and e = sigma / (sqrt(5) density)."""
    barrier = 1.686 * (1 + 0.47 * (deviation / 1.686)**1.23)
    ellipticity = deviation / np.sqrt(5) / barrier
    tides = barrier / 3 * np.array([1 - 3 * ellipticity, 1, 1 + 3 * ellipticity])
    assert excursion.ellipsoidal_barrier(tides) == pytest.approx(barrier, rel=1e-4)


def test_what_tides_pull_apart_along_one_axis_does_not_collapse():
    assert excursion.ellipsoidal_barrier([-1.0, 1.0, 3.0]) == np.inf


def test_the_tides_of_a_plane_wave_are_along_it():
    x = 2 * np.pi * np.arange(16) / 16
    wave = np.cos(2 * x)[:, None, None] * np.ones((16, 16, 16))
    cells = np.array([[0, 3, 5], [1, 0, 0], [4, 2, 1]])
    tides = excursion.tides_at(wave, cells)
    np.testing.assert_allclose(np.sort(np.abs(tides)), [[0, 0, abs(wave[tuple(cell)])] for cell in cells], atol=1e-12)


def test_ellipsoids_make_no_more_haloes_than_spheres():
    rng = np.random.default_rng(1)
    transform = np.fft.rfftn(rng.normal(size=(32, 32, 32)))
    k = np.sqrt(sum(np.square(part) for part in np.meshgrid(np.fft.fftfreq(32), np.fft.fftfreq(32),
                                                            np.fft.rfftfreq(32), indexing="ij")))
    delta = np.fft.irfftn(transform * np.exp(-(k * 20)**2), s=(32, 32, 32))
    delta *= 3 / delta.std()
    spheres, ellipsoids = (excursion.peak_haloes(delta, 30, collapse) for collapse in ("spherical", "ellipsoidal"))
    assert 0 < ellipsoids.max() + 1 <= spheres.max() + 1
    assert (ellipsoids >= 0).sum() < (spheres >= 0).sum()
