import numpy as np
import pytest

from kerasgal import grid
from kerasgal.statistics import mass_bins, mass_function, power_spectrum

BOXSIZE = 50.0
FUNDAMENTAL = 2 * np.pi / BOXSIZE


def cosine(n, wave, amplitude=0.3, phase=0.4):
    index = np.stack(np.meshgrid(*[np.arange(n)] * 3, indexing="ij"), -1)
    return amplitude * np.cos(2 * np.pi / n * index @ np.array(wave) + phase)


@pytest.mark.parametrize("n", [16, 17])
@pytest.mark.parametrize("wave", [(1, 0, 0), (0, 0, 1), (3, -2, 6), (6, 2, -3)])
def test_single_cosine(n, wave):
    k, power, n_modes = power_spectrum(cosine(n, wave), BOXSIZE)
    shell = round(np.linalg.norm(wave)) - 1
    # Its two modes carry amplitude^2 / 4 each; the mean over the shell is their sum over the number of modes.
    expected = np.zeros(len(k))
    expected[shell] = 2 * BOXSIZE**3 * 0.3**2 / 4 / n_modes[shell]
    np.testing.assert_allclose(power, expected, rtol=1e-6, atol=1e-9)


def test_shells_by_hand():
    # The lattice has 6 points at 1, 12 at sqrt 2 | 8 at sqrt 3, 6 at 2, 24 at sqrt 5, 24 at sqrt 6 | ...
    k, _, n_modes = power_spectrum(np.ones((8, 8, 8)), BOXSIZE)
    np.testing.assert_array_equal(n_modes[:2], [18, 62])
    mean = [(6 + 12 * 2**0.5) / 18, (8 * 3**0.5 + 12 + 24 * 5**0.5 + 24 * 6**0.5) / 62]
    np.testing.assert_allclose(k[:2] / FUNDAMENTAL, mean, rtol=1e-6)
    assert len(k) == 3  # up to 3.5, below the Nyquist wavenumber of 4


@pytest.mark.parametrize("n", [12, 13])
def test_parseval(n):
    delta = np.random.default_rng(0).standard_normal((n, n, n))
    everything = np.array([0, 0.5, 3, n]) * FUNDAMENTAL
    _, power, n_modes = power_spectrum(delta, BOXSIZE, bins=everything)
    assert n_modes.sum() == n**3
    assert (power * n_modes).sum() / BOXSIZE**3 == pytest.approx((delta**2).mean())


def test_white_noise_is_flat():
    delta = np.random.default_rng(1).standard_normal((48, 48, 48)).astype(np.float32)
    _, power, n_modes = power_spectrum(delta, BOXSIZE)
    expected = (BOXSIZE / 48)**3
    deviation = (power / expected - 1) / np.sqrt(2 / n_modes)
    assert np.abs(deviation).max() < 4
    assert 0.4 < (deviation**2).mean() < 2  # neither too much scatter nor too little


def test_cross_spectrum():
    delta = cosine(16, (2, 0, 0), phase=0.0)
    auto = power_spectrum(delta, BOXSIZE)[1]
    np.testing.assert_allclose(power_spectrum(delta, BOXSIZE, cross=-2 * delta)[1], -2 * auto, atol=1e-9)
    quarter_period = cosine(16, (2, 0, 0), phase=np.pi / 2)
    np.testing.assert_allclose(power_spectrum(delta, BOXSIZE, cross=quarter_period)[1], 0, atol=1e-9)


def test_compensation_undoes_the_cloud_in_cell_window():
    # Particles so fine that their weights are a continuous wave, along an axis and along a diagonal
    fine = grid.lattice(96, BOXSIZE).reshape(-1, 3)
    for wave in ((4, 0, 0), (3, -3, 1)):
        weight = 1 + 0.3 * np.cos(FUNDAMENTAL * fine @ np.array(wave))
        delta = grid.deposit_cic(fine, 12, BOXSIZE, weight) / 8**3 - 1
        shell = round(np.linalg.norm(wave)) - 1
        _, power, n_modes = power_spectrum(delta, BOXSIZE, compensate="cic")
        assert power[shell] * n_modes[shell] == pytest.approx(BOXSIZE**3 * 0.3**2 / 2, rel=0.02)
        assert power_spectrum(delta, BOXSIZE)[1][shell] < 0.7 * power[shell]


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match=r"\(4, 4, 5\)"):
        power_spectrum(np.zeros((4, 4, 5)), BOXSIZE)
    with pytest.raises(ValueError, match=r"\(5, 5, 5\)"):
        power_spectrum(np.zeros((4, 4, 4)), BOXSIZE, cross=np.zeros((5, 5, 5)))
    with pytest.raises(ValueError, match="ngp"):
        power_spectrum(np.zeros((4, 4, 4)), BOXSIZE, compensate="ngp")


def test_mass_function_of_a_power_law():
    # n(>M) = 1000 (M / 1e12)^-1 in a volume of 50^3: the i-th most massive object stands at its quantile
    mass = 1e12 * 1000 / (np.arange(1000) + 0.5)
    edges = np.array([1e12, 2e12, 1e13, 1e14])
    dn, error = mass_function(mass, edges, BOXSIZE**3)
    number = np.array([500, 400, 90])
    width = np.array([np.log10(2), np.log10(5), 1])
    np.testing.assert_allclose(dn, number / width / BOXSIZE**3)
    np.testing.assert_allclose(error, dn / np.sqrt(number))


def test_mass_bins():
    edges = mass_bins(1e12, 1e14)
    np.testing.assert_allclose(edges[1:] / edges[:-1], 1.4)
    assert edges[0] == 1e12 and edges[-2] < 1e14 <= edges[-1]
    np.testing.assert_allclose(mass_bins(1.0, 8.0, ratio=2), [1, 2, 4, 8])
