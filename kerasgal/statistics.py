"""Summary statistics of fields and catalogues."""

import functools
import math

import numpy as np
import scipy.fft
import scipy.special

from kerasgal.grid import density_contrast, wrap


WINDOWS = {None: 0, "ngp": 1, "cic": 2, "tsc": 3}  # the power of sinc that the window of one field is, per axis
# For the sum of the powers of two fields: b and c for which, per axis, the sum over a mode's aliases of both windows is
# 1 - b s + c s^2, where s = sin^2(pi k / (2 k_Nyquist)) (Jing 2005, astro-ph/0409240, for a field with itself). That
# sum is what the grid makes of a flat spectrum, such as shot noise.
ALIASED = {0: (0, 0), 2: (0, 0), 3: (1 / 2, 0), 4: (2 / 3, 0), 5: (5 / 6, 1 / 24), 6: (1, 2 / 15)}


def power_spectrum(delta, boxsize, bins=None, cross=None, compensate=None, shot_noise=0.0):
    """Power spectrum of a periodic field, averaged over shells of the wavenumber.

    Parameters
    ----------
    delta : array
        (n, n, n), or (n, n) for a map.
    boxsize : float
        Mpc/h.
    bins : array, optional
        Edges of the shells, h/Mpc. By default they are as wide as the fundamental mode 2 pi / boxsize, centred on its
        multiples, up to the Nyquist wavenumber.
    cross : array, optional
        A second field of the same shape, for the cross spectrum.
    compensate : {None, "ngp", "cic", "tsc"} or pair of them
        Divides out the window of both fields: "ngp" for particles counted in cells (nearest grid point), "cic" for
        cloud-in-cell, "tsc" for triangular-shaped clouds, a pair such as ("cic", "ngp") for two fields of different
        windows.
    shot_noise : float
        Subtracted, (Mpc/h)^3; that of the overdensity of N particles is boxsize^3 / N. On the grid it is flat for
        counts in cells, and less near the Nyquist wavenumber for a `compensate` of clouds, by aliasing (Jing 2005,
        astro-ph/0409240); so it is subtracted before the window is divided out.

    Returns
    -------
    k : array
        Mean length of the wavenumbers in each shell, h/Mpc; NaN in a shell without modes.
    power : array
        Their mean power, (Mpc/h)^3, of maps (Mpc/h)^2; NaN in a shell without modes.
    n_modes : array of int64
        Their number, where k and -k count as two although a real field has them in common: the sample variance of a
        Gaussian field is 2 P^2 / n_modes.

    Raises
    ------
    ValueError
        If the fields' shapes do not fit, or `compensate` is unknown or a pair without `cross`.

    Examples
    --------
    >>> import numpy as np
    >>> from kerasgal.statistics import power_spectrum
    >>> wave = np.cos(2 * np.pi * 3 * np.arange(16) / 16) * np.ones((16, 16, 16))  # the third mode of the box
    >>> k, power, n_modes = power_spectrum(wave, boxsize=100.0)
    >>> int(np.argmax(power)) + 1, int(n_modes[0])
    (3, 18)
    """
    n, dimensions = len(delta), delta.ndim
    if delta.shape not in ((n, n, n), (n, n)) or (cross is not None and cross.shape != delta.shape):
        received = delta.shape if cross is None else (delta.shape, cross.shape)
        raise ValueError(f"power_spectrum takes fields of one shape (n, n, n) or (n, n). Received: {received}")
    pair = tuple(compensate) if isinstance(compensate, tuple) and cross is not None else (compensate,)
    if not set(pair) <= set(WINDOWS) or len(pair) == 2 and None in pair or len(pair) > 2:
        raise ValueError("compensate must be None, 'ngp', 'cic' or 'tsc', or with `cross` a pair of the last three. "
                         f"Received: {compensate!r}")
    first = scipy.fft.rfftn(delta, workers=-1)
    second = first if cross is None else scipy.fft.rfftn(cross, workers=-1)
    power = (first.real * second.real + first.imag * second.imag) * (boxsize / n**2)**dimensions
    power, mean, k_mean, n_modes = _in_shells(power, boxsize, n, bins, compensate, shot_noise)
    return k_mean, mean(power.ravel()), n_modes


def power_multipoles(delta, boxsize, orders=(0, 2), axis=2, bins=None, compensate=None, shot_noise=0.0):
    """Multipoles of the power spectrum of a periodic field about a line of sight, averaged over shells.

    P_l(k) is (2 l + 1) times the mean of P L_l(mu) over a shell, with mu the cosine between a mode and the line of
    sight, which is one for the whole box, and L_l the Legendre polynomial.

    Parameters
    ----------
    delta : array
        (n, n, n).
    boxsize : float
        Mpc/h.
    orders : sequence of int
        l of each multipole, even, as odd ones of a real field are zero; 0 is the monopole, which is what
        `power_spectrum` has, and 2 the quadrupole.
    axis : int
        The line of sight.
    bins, compensate, shot_noise : optional
        See `power_spectrum`.

    Returns
    -------
    k : array
        Mean length of the wavenumbers in each shell, h/Mpc; NaN in a shell without modes.
    power : array
        (orders, shells), (Mpc/h)^3.
    n_modes : array of int64
        Modes in each shell, as `power_spectrum` counts them.

    Raises
    ------
    ValueError
        If the field's shape does not fit, `compensate` is unknown, or an order is not an even number.

    Examples
    --------
    >>> import numpy as np
    >>> from kerasgal.statistics import power_multipoles
    >>> wave = np.cos(2 * np.pi * 3 * np.arange(16) / 16) * np.ones((16, 16, 16))  # along z: mu = 1
    >>> k, power, n_modes = power_multipoles(wave, boxsize=100.0)
    >>> bool(np.isclose(power[1, 2], 5 * power[0, 2]))
    True
    """
    n = len(delta)
    if delta.shape != (n, n, n):
        raise ValueError(f"power_multipoles takes a field of the shape (n, n, n). Received: {delta.shape}")
    if any(order < 0 or order % 2 for order in orders):
        raise ValueError(f"orders must be even, 0, 2, 4 and so on. Received: {orders!r}")
    if isinstance(compensate, tuple) or compensate not in WINDOWS:
        raise ValueError(f"compensate must be None, 'ngp', 'cic' or 'tsc'. Received: {compensate!r}")
    mode = scipy.fft.rfftn(np.moveaxis(delta, axis, 0), workers=-1)
    power = (mode.real**2 + mode.imag**2) * (boxsize / n**2)**3
    power, mean, k_mean, n_modes = _in_shells(power, boxsize, n, bins, compensate, shot_noise)
    (full, _), length, _ = _modes(n)
    mu = (full[:, None, None] / np.maximum(length, 1e-9)).ravel()
    found = [(2 * order + 1) * mean(power.ravel() * scipy.special.eval_legendre(order, mu)) for order in orders]
    return k_mean, np.stack(found), n_modes


def redshift_space(position, velocity, boxsize, cosmology, redshift, axis=2):
    """Positions as redshifts show them, to an observer far away along an axis (Kaiser 1987, MNRAS 227, 1).

    Parameters
    ----------
    position : array
        (objects, 3), comoving Mpc/h.
    velocity : array
        (objects, 3), peculiar, km/s.
    boxsize : float
        Mpc/h.
    cosmology : Cosmology
        A flat one.
    redshift : float
        Of the objects.
    axis : int
        The line of sight.

    Returns
    -------
    array
        (objects, 3), in [0, boxsize): along the axis further by velocity / (a H).

    Examples
    --------
    >>> import numpy as np
    >>> from kerasgal.cosmology import Cosmology
    >>> from kerasgal.statistics import redshift_space
    >>> redshift_space(np.array([[1.0, 2.0, 9.0]]), np.array([[0.0, 0.0, 300.0]]), 10.0, Cosmology(), 0.0).tolist()
    [[1.0, 2.0, 2.0]]
    """
    a = 1 / (1 + redshift)
    hubble = 100 * np.sqrt(cosmology.Om0 / a**3 + 1 - cosmology.Om0)  # km/s per Mpc/h
    moved = np.array(position, np.float64)
    moved[:, axis] += np.asarray(velocity)[:, axis] / (a * hubble)
    return wrap(moved, boxsize)


def redshift_space_multipoles(position, velocity, boxsize, cosmology, redshift, gridsize, orders=(0, 2, 4), bins=None,
                              shot_noise=None):
    """Multipoles of the power spectrum of tracers in redshift space, the mean of three lines of sight.

    In turn along each axis of the periodic box, for an observer far away, tracers are moved by their velocities, put on
    a grid by cloud-in-cell, and the window is divided out: `redshift_space` and then `power_multipoles`.

    Parameters
    ----------
    position : array
        (tracers, 3), comoving Mpc/h.
    velocity : array
        (tracers, 3), peculiar, km/s.
    boxsize : float
        Mpc/h.
    cosmology : Cosmology
        A flat one.
    redshift : float
        Of the tracers.
    gridsize : int
        Cells a side of the grid, n.
    orders : sequence of int
        l of each multipole.
    bins : array, optional
        Edges of the shells, h/Mpc; see `power_spectrum`. Aliases of smaller waves grow towards its last ones.
    shot_noise : float, optional
        Subtracted, (Mpc/h)^3, which is of account to the monopole alone; boxsize^3 / tracers without one.

    Returns
    -------
    k : array
        Mean length of the wavenumbers in each shell, h/Mpc; NaN in a shell without modes.
    power : array
        (orders, shells), (Mpc/h)^3.
    n_modes : array of int64
        Modes in each shell, as `power_spectrum` counts them, for one line of sight.

    Raises
    ------
    ValueError
        If there is no tracer, or the shapes do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from kerasgal.cosmology import Cosmology
    >>> from kerasgal.statistics import redshift_space_multipoles
    >>> rng = np.random.default_rng(0)
    >>> position, velocity = rng.uniform(0, 100, (5000, 3)), rng.normal(0, 300, (5000, 3))
    >>> k, power, n_modes = redshift_space_multipoles(position, velocity, 100.0, Cosmology(), 0.0, gridsize=32)
    >>> power.shape
    (3, 15)
    """
    if np.shape(position) != np.shape(velocity) or np.ndim(position) != 2 or not len(position):
        raise ValueError("position and velocity must have one shape, (tracers, 3), of one tracer or more. "
                         f"Received: {np.shape(position)} and {np.shape(velocity)}")
    noise = boxsize**3 / len(position) if shot_noise is None else shot_noise
    found = []
    for axis in range(3):
        moved = redshift_space(position, velocity, boxsize, cosmology, redshift, axis)
        k, power, n_modes = power_multipoles(density_contrast(moved, gridsize, boxsize), boxsize, orders, axis, bins,
                                             "cic", noise)
        found.append(power)
    return k, np.mean(found, axis=0), n_modes


def correlation_coefficient(first, second, boxsize, bins=None):
    """Correlation of two periodic fields by scale, r(k) = P_xy / sqrt(P_xx P_yy): how well their phases agree.

    The windows of the fields cancel, the shot noise does not.

    Parameters
    ----------
    first, second : array
        (n, n, n), or (n, n) for maps.
    boxsize : float
        Mpc/h.
    bins : array, optional
        Edges of the shells, h/Mpc; see `power_spectrum`.

    Returns
    -------
    k : array
        Mean length of the wavenumbers in each shell, h/Mpc.
    r : array
        From -1 to 1; NaN in shells where a field has no power.

    Raises
    ------
    ValueError
        If the fields' shapes do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from kerasgal.statistics import correlation_coefficient
    >>> field = np.random.default_rng(0).normal(size=(16, 16, 16))
    >>> k, r = correlation_coefficient(field, -2 * field, boxsize=100.0)
    >>> bool(np.allclose(r, -1))
    True
    """
    k, both, _ = power_spectrum(first, boxsize, bins, cross=second)
    power = [power_spectrum(field, boxsize, bins)[1] for field in (first, second)]
    with np.errstate(invalid="ignore"):
        return k, both / np.sqrt(power[0]) / np.sqrt(power[1])


def bispectrum(delta, boxsize, k1, k2, theta, compensate=None):
    """Bispectrum B(k1, k2, theta) of a periodic field by FFT (Scoccimarro 2015, arXiv:1506.02729).

    The sides of the triangles are averaged over shells as wide as the fundamental mode 2 pi / boxsize about k1, k2 and
    k3, where k3^2 = k1^2 + k2^2 + 2 k1 k2 cos(theta). Shot noise is left in.

    Parameters
    ----------
    delta : array
        (n, n, n).
    boxsize : float
        Mpc/h.
    k1, k2 : float
        Lengths of two sides of the triangles, h/Mpc.
    theta : array
        (angles,), from the first side's direction to the second's.
    compensate : {None, "ngp", "cic", "tsc"}
        Divides out the field's window.

    Returns
    -------
    bispectrum : array
        (angles,), B in (Mpc/h)^6; NaN where there are no triangles.
    reduced : array
        (angles,), Q = B / (P1 P2 + P2 P3 + P3 P1), with the mean power P of each shell.
    n_triangles : array of int64
        (angles,), where each mode of each shell counts by itself: the sample variance of a Gaussian field is boxsize^3
        P1 P2 P3 / n_triangles if no shells share modes, twice that if two are the same, six times if all three are.

    Raises
    ------
    ValueError
        If the field's shape does not fit, `compensate` is unknown, a side is so short that its shell reaches the mean
        of the field, or the sides are so long that the grid aliases.

    Examples
    --------
    >>> import numpy as np
    >>> from kerasgal.statistics import bispectrum
    >>> field = np.random.default_rng(0).normal(size=(32, 32, 32))
    >>> value, reduced, triangles = bispectrum(field, 100.0, k1=0.3, k2=0.4, theta=np.array([0.5, 1.5, 2.5]))
    >>> value.shape, bool((triangles > 1000).all())
    ((3,), True)
    """
    n = len(delta)
    if delta.shape != (n, n, n):
        raise ValueError(f"bispectrum takes a field of the shape (n, n, n). Received: {delta.shape}")
    if isinstance(compensate, tuple) or compensate not in WINDOWS:
        raise ValueError(f"compensate must be None, 'ngp', 'cic' or 'tsc'. Received: {compensate!r}")
    side1, side2 = np.array([k1, k2]) * (boxsize / (2 * np.pi))  # in fundamental modes
    sides3 = np.sqrt(np.maximum(side1**2 + side2**2 + 2 * side1 * side2 * np.cos(theta), 0))
    shortest = min(side1, side2, sides3.min())
    if not shortest > 0.5:
        raise ValueError("every side of the triangles must be longer than half the fundamental mode, "
                         f"{np.pi / boxsize:.3g} h/Mpc. Received: {shortest * 2 * np.pi / boxsize:.3g} h/Mpc")
    # Modes that add up to less than the sampling wavenumber add up to 0 only where they close a triangle.
    needed = int(np.ceil(side1 + side2 + sides3.max() + 1.5))
    if needed > n:
        raise ValueError(f"the bispectrum of triangles this large needs a grid of {needed}^3 cells. Received: {n}^3")
    # No mode beyond the shells enters, so that a grid which is just fine enough gives the same.
    m = min(scipy.fft.next_fast_len(needed, real=True), n)
    axes, length, multiplicity = _modes(m)
    full, half = (np.rint(axis).astype(int) for axis in axes)
    mode = scipy.fft.rfftn(delta, norm="forward", workers=-1)[np.ix_(full, full, half)].astype(np.complex128)
    if compensate:
        mode /= _outer(*(np.sinc(axis / n)**WINDOWS[compensate] for axis in axes))

    def shell(side):
        return (length >= side - 0.5) & (length < side + 0.5)

    def sum_of_pairs(value):
        """Of `value`, for each mode: the sum of value(q1) value(q2) over the two shells' q1 + q2 = the mode."""
        field1, field2 = (scipy.fft.irfftn(value * shell(side), s=(m, m, m), norm="forward", workers=-1)
                          for side in (side1, side2))
        return scipy.fft.rfftn(field1 * field2, norm="forward", workers=-1)

    # The sum over x of the three shells' fields is, by Parseval's theorem, one over the third shell's modes.
    triple = multiplicity * (mode.conj() * sum_of_pairs(mode)).real
    triangles = multiplicity * sum_of_pairs(np.ones(length.shape)).real
    squared = multiplicity * (mode.real**2 + mode.imag**2)
    n_modes = np.broadcast_to(multiplicity, length.shape)

    def shell_power(inside):
        return boxsize**3 * squared[inside].sum() / n_modes[inside].sum()

    power1, power2 = shell_power(shell(side1)), shell_power(shell(side2))
    shells3 = [shell(side) for side in sides3]
    n_triangles = np.rint([triangles[inside].sum() for inside in shells3]).astype(np.int64)
    power3 = np.array([shell_power(inside) for inside in shells3])
    total = np.array([triple[inside].sum() for inside in shells3])
    with np.errstate(invalid="ignore", divide="ignore"):
        value = np.where(n_triangles, boxsize**6 * total / n_triangles, np.nan)
        reduced = value / (power1 * power2 + (power1 + power2) * power3)
    return value, reduced, n_triangles


def bispectrum_in_cubes(delta, boxsize, sides, cubes=2):
    """Bispectrum of a periodic field in each of equal cubes of its box, whose mean is the bispectrum of the box.

    The estimator of `bispectrum` is a mean over the box of the product of three filtered fields; here the mean is taken
    over each cube. The scatter between the cubes gives errors, see `jackknife`. Shot noise is left in.

    Parameters
    ----------
    delta : array
        (n, n, n).
    boxsize : float
        Mpc/h.
    sides : array
        (triangles, 3), the lengths of the sides, h/Mpc, each averaged over a shell as wide as the fundamental mode.
    cubes : int
        Per side of the box.

    Returns
    -------
    array
        (cubes^3, triangles), (Mpc/h)^6; NaN where there are no triangles.

    Raises
    ------
    ValueError
        If the field's shape does not fit, a side is so short that its shell reaches the mean of the field, or the sides
        are so long that the grid aliases.

    Examples
    --------
    >>> import numpy as np
    >>> from kerasgal.statistics import bispectrum, bispectrum_in_cubes
    >>> field = np.random.default_rng(0).normal(size=(32, 32, 32))
    >>> parts = bispectrum_in_cubes(field, 100.0, [[0.3, 0.3, 0.3]])
    >>> whole, _, _ = bispectrum(field, 100.0, 0.3, 0.3, np.array([2 * np.pi / 3]))
    >>> parts.shape, bool(np.allclose(parts.mean(axis=0), whole))
    ((8, 1), True)
    """
    n = len(delta)
    if delta.shape != (n, n, n):
        raise ValueError(f"bispectrum_in_cubes takes a field of the shape (n, n, n). Received: {delta.shape}")
    sides = np.asarray(sides, float) * (boxsize / (2 * np.pi))  # in fundamental modes
    if not sides.min() > 0.5:
        raise ValueError("every side of the triangles must be longer than half the fundamental mode, "
                         f"{np.pi / boxsize:.3g} h/Mpc. Received: {sides.min() * 2 * np.pi / boxsize:.3g} h/Mpc")
    needed = int(np.ceil(sides.sum(axis=1).max() + 1.5))
    largest = n // cubes * cubes  # else cubes would not be equal
    if needed > largest:
        raise ValueError(f"the bispectrum of triangles this large in {cubes}^3 cubes needs a grid of "
                         f"{-(-needed // cubes) * cubes}^3 cells. Received: {n}^3")
    m = min(cubes * scipy.fft.next_fast_len(-(-needed // cubes), real=True), largest)
    full, half = (np.rint(axis).astype(int) for axis in _modes(m)[0])
    mode = scipy.fft.rfftn(delta, norm="forward", workers=-1)[np.ix_(full, full, half)].astype(np.complex128)
    sides = tuple(map(tuple, np.round(sides, 9)))
    product = _products(mode, m, sides)
    triangles = _triangles(m, sides)

    def means(field):
        return field.reshape((cubes, m // cubes) * 3).mean(axis=(1, 3, 5)).ravel()

    with np.errstate(invalid="ignore", divide="ignore"):
        return np.stack([np.where(count, boxsize**6 * means(field) / count, np.nan)
                         for field, count in zip(product, triangles)], axis=1)


def _products(mode, m, sides):
    """For each triangle the product of the fields of its three shells of modes, (m, m, m)."""
    length = _modes(m)[1]
    fields = {}
    for triangle in sides:
        for side in triangle:
            if side not in fields:
                inside = (length >= side - 0.5) & (length < side + 0.5)
                fields[side] = scipy.fft.irfftn(mode * inside, s=(m, m, m), norm="forward", workers=-1)
        yield fields[triangle[0]] * fields[triangle[1]] * fields[triangle[2]]


@functools.lru_cache(maxsize=16)
def _triangles(m, sides):
    """Numbers of triangles of modes, for each with these sides."""
    ones = np.ones(_modes(m)[1].shape)
    return tuple(np.rint(product.mean()) for product in _products(ones, m, sides))


def jackknife(statistic, *samples):
    """Error of something made of means, by leaving out one part of the data after another.

    Parameters
    ----------
    statistic : callable
        Takes the mean of each of the samples, returns a number or an array.
    *samples : array
        (parts, ...) each: measured in the same parts of the data, such as `bispectrum_in_cubes` returns them.

    Returns
    -------
    array
        Of the shape that `statistic` returns: one standard deviation.

    Examples
    --------
    >>> import numpy as np
    >>> from kerasgal.statistics import jackknife
    >>> values = np.random.default_rng(0).normal(size=400)
    >>> round(float(jackknife(float, values)), 3), round(float(values.std(ddof=1) / 20), 3)
    (0.05, 0.05)
    """
    parts = len(samples[0])
    left = np.array([statistic(*(np.delete(sample, part, axis=0).mean(axis=0) for sample in samples))
                     for part in range(parts)], float)
    return np.sqrt((parts - 1) * left.var(axis=0))


def _in_shells(power, boxsize, n, bins, compensate, shot_noise):
    """The power of modes, of a real FFT of n cells a side, without noise and window, and how it is averaged in shells.

    bins, compensate, shot_noise: of `power_spectrum`. Returns the corrected power; a function from a value for each
    mode, flat, to the means in the shells; the mean wavenumbers there; and the numbers of modes.
    """
    fundamental = 2 * np.pi / boxsize
    if bins is None:
        bins = fundamental * np.arange(0.5, n / 2)
    axes, k, multiplicity = _modes(n, power.ndim)
    k *= fundamental
    pair = compensate if isinstance(compensate, tuple) else (compensate, compensate)
    sinc_power = WINDOWS[pair[0]] + WINDOWS[pair[1]]
    if shot_noise:
        first, second = ALIASED[sinc_power]
        squares = [np.sin(np.pi / n * axis)**2 for axis in axes]
        power = power - shot_noise * _outer(*(1 - first * s + second * s**2 for s in squares), power.ndim)
    if compensate:
        power = power / _outer(*(np.sinc(axis / n)**sinc_power for axis in axes), power.ndim)
    shell = np.searchsorted(bins, k.ravel(), side="right")  # 0 below the first edge, len(bins) above the last
    weight = np.broadcast_to(multiplicity, k.shape).ravel()

    def sum_in_shells(value):
        return np.bincount(shell, value, minlength=len(bins) + 1)[1:len(bins)]

    n_modes = sum_in_shells(weight)

    def mean(value):
        with np.errstate(invalid="ignore"):
            return sum_in_shells(weight * value) / n_modes

    return power, mean, mean(k.ravel()), n_modes.astype(np.int64)


def _modes(n, dimensions=3):
    """The modes that a real FFT of n^3 or n^2 cells keeps: (full, half), their wavenumbers along an axis and along the
    last, and their length, (n, n, n // 2 + 1) or (n, n // 2 + 1), all in fundamental modes, and (n // 2 + 1,) how many
    modes each stands for."""
    full, half = scipy.fft.fftfreq(n, 1 / n), scipy.fft.rfftfreq(n, 1 / n)
    length = np.sqrt(sum(axis**2 for axis in np.meshgrid(*[full] * (dimensions - 1), half, indexing="ij", sparse=True)))
    # The real FFT leaves out the conjugates of all modes but the first plane's and, for even n, the last's.
    multiplicity = np.full(n // 2 + 1, 2)
    multiplicity[0] = 1
    if n % 2 == 0:
        multiplicity[-1] = 1
    return (full, half), length, multiplicity


def _outer(full, half, dimensions=3):
    """Product of a function along each axis, from its values along a full axis and along the last."""
    return math.prod(np.meshgrid(*[full] * (dimensions - 1), half, indexing="ij", sparse=True))


def mass_bins(mass_minimum, mass_maximum, ratio=1.4):
    """Edges of mass bins: the least mass times powers of a ratio, up to the first edge that reaches the greatest.

    There is one bin at least, also for masses that are all the same.

    Parameters
    ----------
    mass_minimum, mass_maximum : float
        Msun/h, or any other unit.
    ratio : float
        Of an edge to the one before.

    Returns
    -------
    array
        (bins + 1,).

    Examples
    --------
    >>> from kerasgal.statistics import mass_bins
    >>> mass_bins(1.0, 7.0, ratio=2).tolist()
    [1.0, 2.0, 4.0, 8.0]
    """
    # Less a little: a maximum that is an exact power must not gain a bin from rounding.
    least, greatest = float(mass_minimum), float(mass_maximum)
    number = max(1, int(np.ceil(np.log(greatest / least) / np.log(ratio) - 1e-9)))
    edges = least * float(ratio)**np.arange(number + 1)
    edges[-1] = max(edges[-1], greatest)
    return edges


def mass_function(mass, edges, volume):
    """Number of objects per volume and per decade of mass, dn/dlog10(M), with its Poisson error.

    Parameters
    ----------
    mass : array
        (objects,), Msun/h.
    edges : array
        (bins + 1,), of the mass bins; see `mass_bins`.
    volume : float
        (Mpc/h)^3.

    Returns
    -------
    differential, error : array
        (bins,), (h/Mpc)^3.

    Examples
    --------
    >>> import numpy as np
    >>> from kerasgal.statistics import mass_function
    >>> differential, error = mass_function(np.array([2e12, 3e12, 4e13]), np.array([1e12, 1e13, 1e14]), 100.0**3)
    >>> differential.tolist()
    [2e-06, 1e-06]
    """
    number = np.histogram(mass, edges)[0]
    per_object = 1 / (volume * np.diff(np.log10(edges)))
    return number * per_object, np.sqrt(number) * per_object
