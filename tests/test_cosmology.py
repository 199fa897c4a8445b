import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import hyp2f1, spherical_jn

from kerasgal.cosmology import PLANCK_2018, Cosmology, growth_factor, linear_power, mean_density

EINSTEIN_DE_SITTER = Cosmology(Om0=1.0)


@pytest.mark.parametrize("cosmology", [PLANCK_2018, Cosmology(Om0=0.25, h=0.7, ns=1.0, sigma8=0.9)])
def test_power_has_the_sigma8_that_was_asked_for(cosmology):
    def variance(log_k):
        k = np.exp(log_k)
        return k**3 * linear_power(cosmology, k) / (2 * np.pi**2) * (3 * spherical_jn(1, 8 * k) / (8 * k))**2

    assert np.sqrt(quad(variance, -9, 4, limit=200)[0]) == pytest.approx(cosmology.sigma8, rel=2e-3)


def test_power_has_the_primordial_tilt_on_the_largest_scales():
    k = np.array([[1e-5, 2e-5]])
    power = linear_power(PLANCK_2018, k)
    assert power.shape == k.shape
    assert power[0, 1] / power[0, 0] == pytest.approx(2**PLANCK_2018.ns, rel=1e-3)


def test_growth_is_the_closed_form():
    # D is proportional to a 2F1(1/3, 1; 11/6; -a^3 (1 - Om0) / Om0) for matter and Lambda
    z = np.array([0.0, 0.5, 1.0, 3.0, 19.0])
    a = 1 / (1 + z)
    ratio = (1 - PLANCK_2018.Om0) / PLANCK_2018.Om0
    expected = a * hyp2f1(1 / 3, 1, 11 / 6, -ratio * a**3) / hyp2f1(1 / 3, 1, 11 / 6, -ratio)
    np.testing.assert_allclose(growth_factor(PLANCK_2018, z), expected, rtol=1e-3)
    assert growth_factor(PLANCK_2018, 0.0) == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(growth_factor(EINSTEIN_DE_SITTER, z), a, rtol=1e-3)


def test_mean_density_is_the_critical_density_times_om0():
    # 3 H0^2 / (8 pi G), H0 = 100 km/s/Mpc, G = 4.30091e-9 Mpc (km/s)^2 / Msun
    assert mean_density(PLANCK_2018) == pytest.approx(0.3111 * 3e4 / (8 * np.pi * 4.30091e-9), rel=1e-4)


def test_nothing_is_written_to_the_home_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    unused_so_far = Cosmology(Om0=0.29)
    linear_power(unused_so_far, 0.1)
    growth_factor(unused_so_far, 1.0)
    assert not list(tmp_path.iterdir())
