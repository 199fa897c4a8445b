import itertools

import numpy as np
import pytest
import scipy.fft

from kerasgal import grid, statistics
from kerasgal.cosmology import Cosmology
from kerasgal.statistics import (bispectrum, bispectrum_in_cubes, correlation_coefficient, jackknife, mass_bins,
                                 mass_function, power_spectrum)

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


def overdensity(position, n, window, weight=None):
    """Of particles, by the window's name; nearest grid point by NumPy's histogram."""
    if window in grid.DEPOSITS:
        deposit = grid.DEPOSITS[window](position, n, BOXSIZE, weight)
    else:
        deposit = np.histogramdd(position, n, [(0, BOXSIZE)] * 3, weights=weight)[0]
    return deposit * (n**3 / len(position)) - 1


@pytest.mark.parametrize("window", ["cic", "ngp", "tsc"])
def test_compensation_undoes_the_window(window):
    # Particles so fine that their weights are a continuous wave, along an axis and along a diagonal
    fine = grid.lattice(96, BOXSIZE).reshape(-1, 3)
    for wave in ((4, 0, 0), (3, -3, 1)):
        weight = 1 + 0.3 * np.cos(FUNDAMENTAL * fine @ np.array(wave))
        delta = overdensity(fine, 12, window, weight)
        shell = round(np.linalg.norm(wave)) - 1
        _, power, n_modes = power_spectrum(delta, BOXSIZE, compensate=window)
        assert power[shell] * n_modes[shell] == pytest.approx(BOXSIZE**3 * 0.3**2 / 2, rel=0.02)
        assert power_spectrum(delta, BOXSIZE)[1][shell] < 0.75 * power[shell]
        other = "ngp" if window == "cic" else "cic"
        cross = overdensity(fine, 12, other, weight)
        both = power_spectrum(delta, BOXSIZE, cross=cross, compensate=(window, other))[1]
        assert both[shell] == pytest.approx(power[shell], rel=0.02)


@pytest.mark.parametrize("first, second", [("ngp", "ngp"), ("cic", "cic"), ("cic", "ngp"), ("ngp", "cic"),
                                           ("tsc", "tsc"), ("tsc", "cic"), ("ngp", "tsc")])
def test_shot_noise_of_a_single_particle(first, second):
    """Its spectrum, averaged over its positions in a cell, is the shot noise of N = 1, boxsize^3, and no more.

    Per axis the power is a polynomial of degree 4 or less in the position, or two where the nearest cell changes, so
    that three points of Gauss-Legendre quadrature in each half of the cell give the mean exactly; two do for degree 2.
    """
    n, shot_noise = 6, BOXSIZE**3
    nodes, weights = np.polynomial.legendre.leggauss(3 if "tsc" in (first, second) else 2)
    points = np.concatenate([0.25 + nodes / 4, 0.75 + nodes / 4])
    weights = [np.prod(three) for three in itertools.product(np.tile(weights, 2) / 4, repeat=3)]
    bins = np.array([0.5, 1.5, 2.5, 3.5, 6]) * FUNDAMENTAL  # also beyond the Nyquist wavenumber, 3
    compensate = first if first == second else (first, second)
    spectra = []
    for place in itertools.product(points, repeat=3):
        position = (np.array([place]) + 2) * (BOXSIZE / n)
        delta, cross = overdensity(position, n, first), overdensity(position, n, second)
        spectra.append([power_spectrum(delta, BOXSIZE, bins, cross, **options)[1] for options in (
            {}, {"compensate": compensate}, {"compensate": compensate, "shot_noise": shot_noise})])
    plain, compensated, without = np.average(spectra, axis=0, weights=weights)
    if first == second == "ngp":
        np.testing.assert_allclose(plain, shot_noise)
    else:
        assert (plain < 0.99 * shot_noise).all()
    least = 1.01 if "tsc" in (first, second) else 1.05
    assert (compensated[1:] > least * shot_noise).all()  # the window is that of the mode, not of its aliases
    np.testing.assert_allclose(without, 0, atol=1e-5 * shot_noise)


@pytest.mark.parametrize("window", ["cic", "ngp", "tsc"])
def test_poisson_catalogue_of_a_known_spectrum(window):
    # Two waves, each in a shell of its own, the second close to the Nyquist wavenumber of 8
    rng = np.random.default_rng(5)
    position = rng.uniform(0, BOXSIZE, (200_000, 3))
    waves = np.array([[2, 1, 0], [4, -3, 5]])
    density = 1 + 0.4 * np.cos(FUNDAMENTAL * position @ waves.T).sum(axis=1)
    position = position[rng.uniform(0, 1.8, len(position)) < density]
    shot_noise = BOXSIZE**3 / len(position)
    delta = overdensity(position, 16, window)
    _, power, n_modes = power_spectrum(delta, BOXSIZE, compensate=window, shot_noise=shot_noise)
    signal = np.zeros(len(power))
    signal[np.rint(np.linalg.norm(waves, axis=1)).astype(int) - 1] = 2 * BOXSIZE**3 * 0.4**2 / 4
    signal /= n_modes
    error = shot_noise * np.sqrt(2 / n_modes)
    # A division by the window at most doubles the error. The signal's own comes from the noise in its two modes.
    assert (np.abs(power - signal) < 4 * 2 * error + 0.08 * signal).all()
    if window == "ngp":
        plain = power_spectrum(delta, BOXSIZE)[1]
        assert (np.abs(plain - shot_noise) < 4 * error)[signal == 0].all()


def test_correlation_coefficient():
    first, noise = np.random.default_rng(2).standard_normal((2, 32, 32, 32))
    k, r = correlation_coefficient(first, -3 * first, BOXSIZE)
    k_expected, _, n_modes = power_spectrum(first, BOXSIZE)
    np.testing.assert_array_equal(k, k_expected)
    np.testing.assert_allclose(r, -1)
    # Of fields with the powers P and P + N: 1 / sqrt(1 + N / P), with a standard error of (1 - r^2) / sqrt(n_modes)
    r = correlation_coefficient(first, first + 2 * noise, BOXSIZE)[1]
    deviation = (r - 5**-0.5) / (0.8 / np.sqrt(n_modes))
    assert np.abs(deviation).max() < 4
    assert 0.3 < (deviation**2).mean() < 2.5
    bins = np.array([1, 5]) * FUNDAMENTAL
    assert correlation_coefficient(first, noise, BOXSIZE, bins)[1] == pytest.approx(0, abs=0.2)
    assert np.isnan(correlation_coefficient(first, 0 * noise, BOXSIZE)[1]).all()


def triangles_by_hand(delta, side1, side2, side3, boxsize):
    """Bispectrum and its reduced form by the sum over all pairs of modes, and the number of triangles."""
    n = len(delta)
    index = np.array(list(itertools.product(range(-(n // 2) + 1 - n % 2, n // 2 + 1), repeat=3)))
    length = np.linalg.norm(index, axis=1)
    shells = [index[(length >= side - 0.5) & (length < side + 0.5)] for side in (side1, side2, side3)]
    mode = np.fft.fftn(delta) / n**3
    third = -(shells[0][:, None] + shells[1])
    length = np.linalg.norm(third, axis=-1)
    closed = (length >= side3 - 0.5) & (length < side3 + 0.5)
    first, second = (np.broadcast_to(shell, third.shape)[closed]
                     for shell in (shells[0][:, None], shells[1]))
    product = mode[tuple(first.T)] * mode[tuple(second.T)] * mode[tuple(third[closed].T)]
    powers = [boxsize**3 * (np.abs(mode[tuple(shell.T)])**2).mean() for shell in shells]
    value = boxsize**6 * product.mean().real
    return value, value / sum(a * b for a, b in itertools.combinations(powers, 2)), len(product)


@pytest.mark.parametrize("n", [14, 15, 24])  # the smallest that does, an odd one, and one that is more than needed
def test_bispectrum_is_the_sum_over_triangles(n):
    delta = np.random.default_rng(n).standard_normal((n, n, n))**2
    theta = np.array([0.0, 0.7, 1.5, 2.6])
    side1, side2 = 3.2, 2.9
    value, reduced, number = bispectrum(delta, BOXSIZE, side1 * FUNDAMENTAL, side2 * FUNDAMENTAL, theta)
    for row, angle in enumerate(theta):
        side3 = abs(side1 + side2 * np.exp(1j * angle))
        expected = triangles_by_hand(delta, side1, side2, side3, BOXSIZE)
        np.testing.assert_allclose((value[row], reduced[row], number[row]), expected, rtol=1e-7)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bispectrum_of_three_waves(dtype):
    """cos(q1 x + a) etc. with q1 + q2 + q3 = 0 have the triangle of their q and its negative, and no other."""
    n = 20
    waves, phases, amplitudes = [(3, 0, 1), (0, 4, 0), (-3, -4, -1)], [0.3, -0.5, 0.9], [0.2, 0.3, 0.4]
    delta = sum(cosine(n, *wave) for wave in zip(waves, amplitudes, phases)).astype(dtype)
    right_angle = bispectrum(delta, BOXSIZE, 10**0.5 * FUNDAMENTAL, 4 * FUNDAMENTAL, [np.pi / 2, 1.0])
    total = 2 * np.prod(amplitudes) / 8 * np.cos(sum(phases)) * BOXSIZE**6
    np.testing.assert_allclose(right_angle[0] * right_angle[2], [total, 0], atol=1e-5 * total)


@pytest.mark.parametrize("window", ["cic", "ngp"])
def test_bispectrum_compensation(window):
    fine = grid.lattice(96, BOXSIZE).reshape(-1, 3)
    waves = np.array([(3, 0, 1), (0, 4, 0), (-3, -4, -1)])
    weight = 1 + 0.2 * np.cos(FUNDAMENTAL * fine @ waves.T).sum(axis=1)
    sides = 10**0.5 * FUNDAMENTAL, 4 * FUNDAMENTAL, [np.pi / 2]
    value, _, number = bispectrum(overdensity(fine, 16, window, weight), BOXSIZE, *sides, compensate=window)
    assert value[0] * number[0] == pytest.approx(2 * 0.1**3 * BOXSIZE**6, rel=0.02)


N, SIDE1, SIDE2 = 48, 8.0, 9.0  # of the random fields below; sides in fundamental modes
THETA = np.array([0.6, 1.1, 1.6, 2.1, 2.6])


def linear_spectrum(length):
    """In (Mpc/h)^3; length: of the modes, in fundamental modes."""
    return 100 / (1 + length)


def wavevector(n):
    return np.meshgrid(np.fft.fftfreq(n, 1 / n), np.fft.fftfreq(n, 1 / n), np.fft.rfftfreq(n, 1 / n), indexing="ij")


def gaussian_field(seed, n=N):
    """(n, n, n), without modes beyond the sphere of the Nyquist wavenumber, whose derivatives would be in doubt."""
    length = np.sqrt(sum(axis**2 for axis in wavevector(n)))
    white = scipy.fft.rfftn(np.random.default_rng(seed).standard_normal((n, n, n)))
    spectrum = np.where((length > 0) & (length < n / 2), linear_spectrum(length), 0)
    return scipy.fft.irfftn(white * np.sqrt(spectrum * n**3 / BOXSIZE**3), s=(n, n, n))


def test_gaussian_field_has_its_power_and_no_bispectrum():
    equal = 2 * np.pi / 3  # of all three sides, where the variance is six times that of different ones
    deviation = []
    for seed in range(20):
        delta = gaussian_field(seed)
        if seed < 3:
            k, power, n_modes = power_spectrum(delta, BOXSIZE)
            scatter = (power / linear_spectrum(k / FUNDAMENTAL) - 1) / np.sqrt(2 / n_modes)
            assert np.abs(scatter).max() < 4
        for side1, side2, theta, symmetry in ((SIDE1, SIDE2, THETA, 1), (SIDE1, SIDE1, np.array([equal]), 6)):
            value, _, number = bispectrum(delta, BOXSIZE, side1 * FUNDAMENTAL, side2 * FUNDAMENTAL, theta)
            side3 = np.abs(side1 + side2 * np.exp(1j * theta))
            variance = BOXSIZE**3 * symmetry * np.prod([linear_spectrum(side) for side in (side1, side2)])
            deviation.append(value / np.sqrt(variance * linear_spectrum(side3) / number))
    different, same = np.concatenate(deviation[::2]), np.concatenate(deviation[1::2])
    assert np.abs(different).max() < 4
    assert (different**2).mean() == pytest.approx(1, abs=4 * (2 / len(different))**0.5)
    assert (same**2).mean() == pytest.approx(1, abs=4 * (2 / len(same))**0.5)


def local_square(delta):
    return delta**2 - (delta**2).mean()


def eulerian_second_order(delta):
    """5/7 delta^2 + gradients of delta and the potential + 2/7 of the squared tidal tensor; potential'' = delta."""
    n = len(delta)
    axes = wavevector(n)
    square = sum(axis**2 for axis in axes)
    square[0, 0, 0] = 1
    mode = scipy.fft.rfftn(delta)

    def real(value):
        return scipy.fft.irfftn(value, s=(n, n, n))

    second = 5 / 7 * delta**2
    for axis in axes:
        second += real(1j * axis * mode) * real(-1j * axis / square * mode)
        for other in axes:
            second += 2 / 7 * real(axis * other / square * mode)**2
    return second - second.mean()


def f2(k1, k2, cosine):
    """Kernel of second-order perturbations (Bernardeau et al. 2002, astro-ph/0112551, Eq. 45)."""
    return 5 / 7 + cosine / 2 * (k1 / k2 + k2 / k1) + 2 / 7 * cosine**2


@pytest.mark.parametrize("second_order, kernel", [(local_square, lambda *triangle: 1), (eulerian_second_order, f2)])
def test_second_order_bispectrum(second_order, kernel):
    """B = 2 F(1, 2) P1 P2 + 2 F(2, 3) P2 P3 + 2 F(3, 1) P3 P1 of the field g + small * second order of g.

    The mean of the fields with g and with -g is free of what is odd in g, which is all the Gaussian noise.
    """
    small = 1e-4
    estimates = []
    for seed in range(60):
        linear = gaussian_field(seed)
        second = small * second_order(linear)
        sides = SIDE1 * FUNDAMENTAL, SIDE2 * FUNDAMENTAL, THETA
        even = [bispectrum(sign * linear + second, BOXSIZE, *sides)[0] for sign in (1, -1)]
        estimates.append(np.mean(even, axis=0) / small)
    side3 = np.abs(SIDE1 + SIDE2 * np.exp(1j * THETA))
    sides = [SIDE1, SIDE2, side3]
    expected = 0
    for first, second in ((0, 1), (1, 2), (2, 0)):
        a, b, opposite = sides[first], sides[second], sides[3 - first - second]
        cosine = (opposite**2 - a**2 - b**2) / (2 * a * b)
        expected = expected + 2 * kernel(a, b, cosine) * linear_spectrum(a) * linear_spectrum(b)
    mean, error = np.mean(estimates, axis=0), np.std(estimates, axis=0) / len(estimates)**0.5
    assert (np.abs(mean - expected) < 4 * error + 0.02 * expected).all()
    assert (error < 0.08 * expected).all()


def test_bispectrum_refuses_what_it_cannot_measure():
    delta = np.zeros((16, 16, 16))
    with pytest.raises(ValueError, match=r"\(4, 4, 5\)"):
        bispectrum(np.zeros((4, 4, 5)), BOXSIZE, FUNDAMENTAL, FUNDAMENTAL, [1.0])
    with pytest.raises(ValueError, match="tsc"):
        bispectrum(delta, BOXSIZE, FUNDAMENTAL, FUNDAMENTAL, [1.0], compensate="pcs")
    with pytest.raises(ValueError, match=r"18\^3 cells. Received: 16\^3"):
        bispectrum(delta, BOXSIZE, 4 * FUNDAMENTAL, 4 * FUNDAMENTAL, [0.0, 3.0])
    bispectrum(delta, BOXSIZE, 4 * FUNDAMENTAL, 4 * FUNDAMENTAL, [2.0])  # a smaller triangle on the same grid
    with pytest.raises(ValueError, match="longer than half the fundamental"):
        bispectrum(delta, BOXSIZE, 4 * FUNDAMENTAL, 4 * FUNDAMENTAL, [np.pi])


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match=r"\(4, 4, 5\)"):
        power_spectrum(np.zeros((4, 4, 5)), BOXSIZE)
    with pytest.raises(ValueError, match=r"\(5, 5, 5\)"):
        power_spectrum(np.zeros((4, 4, 4)), BOXSIZE, cross=np.zeros((5, 5, 5)))
    with pytest.raises(ValueError, match="tsc"):
        power_spectrum(np.zeros((4, 4, 4)), BOXSIZE, compensate="pcs")
    with pytest.raises(ValueError, match="with `cross`"):
        power_spectrum(np.zeros((4, 4, 4)), BOXSIZE, compensate=("cic", "ngp"))


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
    for number in (1, 5):
        masses = np.full(number, 3e12, np.float32)
        assert mass_function(masses, mass_bins(masses.min(), masses.max()), 1.0)[0].size == 1
        assert np.histogram(masses, mass_bins(masses.min(), masses.max()))[0].tolist() == [number]
    for bins in range(1, 40):  # the greatest mass is on the last edge but for rounding
        masses = np.array([1e12, 1e12 * 1.4**bins], np.float32)
        assert np.histogram(masses, mass_bins(*masses))[0].sum() == 2


def test_cubes_of_the_bispectrum_are_equal():
    """Of a grid that does not divide, and a resolution that needs nearly all of it."""
    delta, sides = np.random.default_rng(3).normal(size=(27, 27, 27)), [[8.1 * FUNDAMENTAL] * 3]
    whole = bispectrum(delta, BOXSIZE, *[8.1 * FUNDAMENTAL] * 2, np.array([2 * np.pi / 3]))[0]
    np.testing.assert_allclose(bispectrum_in_cubes(delta, BOXSIZE, sides).mean(axis=0), whole, rtol=1e-5)
    with pytest.raises(ValueError, match=r"in 5\^3 cubes needs a grid of 30\^3 cells. Received: 27\^3"):
        bispectrum_in_cubes(delta, BOXSIZE, sides, cubes=5)


@pytest.mark.parametrize("n, cubes", [(24, 2), (25, 2), (36, 3)])
def test_the_bispectrum_in_cubes_is_on_average_that_of_the_box(n, cubes):
    rng = np.random.default_rng(3)
    delta = rng.normal(size=(n, n, n))
    delta += 0.5 * delta**2
    theta = np.array([0.4, 1.3, 2 * np.pi / 3])
    whole = [bispectrum(delta, BOXSIZE, k * FUNDAMENTAL, 3 * FUNDAMENTAL, theta)[0] for k in (2, 3)]
    sides = [[k * FUNDAMENTAL, 3 * FUNDAMENTAL, FUNDAMENTAL * np.sqrt(k**2 + 9 + 6 * k * np.cos(angle))]
             for k in (2, 3) for angle in theta]
    parts = bispectrum_in_cubes(delta, BOXSIZE, sides, cubes)
    assert parts.shape == (cubes**3, 6)
    np.testing.assert_allclose(parts.mean(axis=0), np.concatenate(whole), rtol=1e-5)


def test_a_cube_that_holds_all_the_structure_holds_the_bispectrum():
    delta = np.zeros((32, 32, 32))
    delta[6:10, 6:10, 6:10] = 5.0
    parts = bispectrum_in_cubes(delta, BOXSIZE, [[4 * FUNDAMENTAL] * 3])[:, 0]
    assert parts[0] > 10 * np.abs(parts[1:]).max()


@pytest.mark.parametrize("sides, words", [([[0.01, 0.3, 0.3]], "half the fundamental mode"),
                                          ([[2.0, 2.0, 2.0]], "needs a grid of")])
def test_triangles_that_a_box_does_not_resolve_are_refused(sides, words):
    with pytest.raises(ValueError, match=words):
        bispectrum_in_cubes(np.zeros((16, 16, 16)), BOXSIZE, sides)


def test_a_jackknife_has_the_error_of_a_ratio():
    """Of the ratio of two correlated means, whose error is known in closed form to first order."""
    rng = np.random.default_rng(0)
    common = rng.normal(size=2000)
    first, second = 2 + common + 0.1 * rng.normal(size=2000), 1 + 0.5 * common
    expected = np.std(first / 2 - second, ddof=1) * 2 / np.sqrt(2000)
    assert float(jackknife(np.divide, first, second)) == pytest.approx(expected, rel=0.1)
    pairs = np.stack([first, second], axis=1)
    np.testing.assert_allclose(jackknife(np.copy, pairs), pairs.std(axis=0, ddof=1) / np.sqrt(2000), rtol=1e-6)


def test_multipoles_of_a_linear_redshift_space_field_are_kaisers():
    """delta_k (1 + beta mu^2) with equal power in all modes: P_0, P_2 and P_4 of Kaiser 1987."""
    n, beta = 32, 0.6
    along = np.fft.fftfreq(n)
    squared = along[:, None, None]**2 + along[:, None]**2 + along**2
    for axis in range(3):
        mu2 = np.moveaxis(np.broadcast_to(along[:, None, None]**2, (n, n, n)), 0, axis) / np.maximum(squared, 1e-12)
        field = np.fft.ifftn(1 + beta * mu2).real * n**1.5
        k, power, modes = statistics.power_multipoles(field, 100.0, orders=(0, 2, 4), axis=axis)
        plain = statistics.power_spectrum(field, 100.0)
        np.testing.assert_allclose(power[0], plain[1])
        np.testing.assert_allclose(k, plain[0])
        np.testing.assert_array_equal(modes, plain[2])
        expected = np.array([1 + 2 / 3 * beta + beta**2 / 5, 4 / 3 * beta + 4 / 7 * beta**2, 8 / 35 * beta**2])
        found = (power[:, 5:] * modes[5:]).sum(axis=1) / modes[5:].sum() / (100 / n)**3
        np.testing.assert_allclose(found, expected, atol=0.02)  # the lattice is not quite isotropic
    with pytest.raises(ValueError, match="shape"):
        statistics.power_multipoles(field[0], 100.0)
    with pytest.raises(ValueError, match="compensate"):
        statistics.power_multipoles(field, 100.0, compensate="pcs")
    for orders in ((0, 1), (-2,), (0.5,)):
        with pytest.raises(ValueError, match="orders must be even"):
            statistics.power_multipoles(field, 100.0, orders=orders)


def test_shot_noise_is_of_the_monopole_alone():
    position = np.random.default_rng(0).uniform(0, 100, (20000, 3))
    field = grid.density_contrast(position, 32, 100.0)
    _, power, modes = statistics.power_multipoles(field, 100.0, compensate="cic", shot_noise=100**3 / 20000)
    error = 50 * np.sqrt(2 / modes) * np.array([[1], [np.sqrt(5)]])
    assert np.abs(power / error).max() < 4


def test_redshifts_move_haloes_by_velocity_over_expansion():
    from astropy.cosmology import FlatLambdaCDM

    cosmology, z = Cosmology(Om0=0.3), 0.7
    astropys = FlatLambdaCDM(H0=100, Om0=0.3)
    velocity = np.array([[100.0, -300.0, 50.0], [0.0, 10.0, 900.0]])
    for axis in range(3):
        moved = statistics.redshift_space(np.full((2, 3), 10.0), velocity, 20.0, cosmology, z, axis)
        expected = np.full((2, 3), 10.0)
        expected[:, axis] += velocity[:, axis] * (1 + z) / astropys.H(z).value
        np.testing.assert_allclose(moved, expected % 20, rtol=1e-4)


def test_redshift_space_multipoles_of_a_linear_wave_are_kaisers():
    """Zel'dovich particles of one small wave: its amplitude grows by 1 + f mu^2 along each of three lines of sight."""
    from astropy.cosmology import FlatLambdaCDM

    boxsize, z, f, amplitude = 80.0, 0.5, 0.7, 0.01
    cosmology = Cosmology(Om0=0.3)
    hubble = FlatLambdaCDM(H0=100, Om0=0.3).H(z).value / (1 + z)  # a H, km/s per Mpc/h
    # No particle stands on a grid point: the kernel has a kink there, which would make harmonics of any small wave.
    start = grid.lattice(48, boxsize).reshape(-1, 3).astype(np.float64) + 0.2
    legendre = {0: lambda mu: 1, 2: lambda mu: (3 * mu**2 - 1) / 2, 4: lambda mu: (35 * mu**4 - 30 * mu**2 + 3) / 8}
    for wave in ((0, 0, 3), (2, 1, 0), (2, 2, 2)):
        k = 2 * np.pi / boxsize * np.array(wave)
        moved = amplitude * np.sin(start @ k)[:, None] * k / (k @ k)  # of a contrast -amplitude cos(k x)
        found_k, power, modes = statistics.redshift_space_multipoles(
            (start + moved) % boxsize, f * hubble * moved, boxsize, cosmology, z, gridsize=16, shot_noise=0.0)
        mu = k / np.sqrt(k @ k)
        shell = round(np.linalg.norm(wave)) - 1
        expected = [(2 * order + 1) * np.mean([(1 + f * one**2)**2 * value(one) for one in mu])
                    for order, value in legendre.items()]
        expected = boxsize**3 * amplitude**2 / 2 / modes[shell] * np.array(expected)
        np.testing.assert_allclose(power[:, shell], expected, rtol=0.03, atol=0.01 * expected[0])
        assert np.abs(np.delete(power, shell, axis=1)).max() < 1e-3 * expected[0]
        assert abs(found_k[shell] - np.sqrt(k @ k)) < np.pi / boxsize


def test_redshift_space_multipoles_are_a_direct_sum_over_modes():
    """Of clustered tracers: sums of exp(-i k s) over positions s = x + v / (a H), and Legendre polynomials by hand."""
    rng = np.random.default_rng(4)
    boxsize, tracers, cosmology = 60.0, 1500, Cosmology()
    centre = rng.uniform(0, boxsize, (100, 3))
    position = (np.repeat(centre, 15, axis=0) + rng.normal(0, 2, (tracers, 3))) % boxsize
    velocity = np.repeat(rng.normal(0, 400, (100, 3)), 15, axis=0) + rng.normal(0, 200, (tracers, 3))
    bins = 2 * np.pi / boxsize * np.array([0.5, 1.5, 2.5, 3.5])
    _, power, modes = statistics.redshift_space_multipoles(position, velocity, boxsize, cosmology, 0.0, 48, bins=bins)
    integer = np.stack(np.meshgrid(*[np.arange(-3, 4)] * 3, indexing="ij"), -1).reshape(-1, 3)
    length = np.linalg.norm(integer, axis=1)
    expected = np.zeros((3, 3))
    for axis in range(3):
        place = position.copy()
        place[:, axis] += velocity[:, axis] / 100  # a H today, km/s per Mpc/h
        value = np.exp(-2j * np.pi / boxsize * place @ integer.T).sum(axis=0)
        each = boxsize**3 * (np.abs(value)**2 / tracers**2 - 1 / tracers)
        mu = integer[:, axis] / np.maximum(length, 1e-9)
        for shell in range(3):
            inside = (length >= shell + 0.5) & (length < shell + 1.5)
            assert inside.sum() == modes[shell]
            polynomials = np.array([np.ones(len(mu)), (3 * mu**2 - 1) / 2, (35 * mu**4 - 30 * mu**2 + 3) / 8])
            expected[:, shell] += np.array([1, 5, 9]) * (polynomials * each)[:, inside].mean(axis=1) / 3
    np.testing.assert_allclose(power, expected, atol=0.01 * expected[0].max())
    with pytest.raises(ValueError, match="one shape"):
        statistics.redshift_space_multipoles(position, velocity[1:], boxsize, cosmology, 0.0, 48)
    with pytest.raises(ValueError, match="one tracer or more"):
        statistics.redshift_space_multipoles(position[:0], velocity[:0], boxsize, cosmology, 0.0, 48)
