"""Dark matter from a Gaussian field to z=0: second-order Lagrangian perturbation theory, then COLA.

A particle that starts from the lattice point q stands at x = q + D1 s1 + D2 s2 + residual. The displacements
s1 and s2 are Lagrangian perturbation theory (Bouchet et al. 1995, astro-ph/9406013) and their growth is
known. Only the residual is integrated, with forces from a particle mesh, so that some 20 steps are enough
(COLA: Tassev, Zaldarriaga & Eisenstein 2013, arXiv:1301.0322). Lengths are in comoving Mpc/h and times in
1/H0; a momentum is p = a^2 dx/dt, in units of 100 km/s.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.fft
from scipy.integrate import solve_ivp

from kerasgal.cosmology import PLANCK_2018, linear_power
from kerasgal.errors import DataError
from kerasgal.grid import cic_arguments, lattice, wrap

ROUNDED = 1e-3  # by which scale factors may be off, as files round redshifts
A_EARLY = 1e-3  # deep in matter domination: Lambda is 1e-9 of the density, radiation is not modelled


@dataclass(frozen=True)
class Run:
    """A finished simulation of n^3 particles. Particle i started from Lagrangian cell i, in C order.

    Attributes
    ----------
    delta : array
        (n, n, n), linear density contrast at the initial redshift, float32.
    displacement : array
        (n, n, n, 3), initial displacement from the cell's centre (2LPT), Mpc/h, float32.
    position : array
        (n^3, 3), final comoving position in [0, boxsize), Mpc/h, float32.
    velocity : array
        (n^3, 3), final peculiar velocity, km/s, float32.
    redshift_initial : float
        Redshift of `delta` and `displacement`.

    Examples
    --------
    >>> from kerasgal.nbody import simulate
    >>> run = simulate(8, 10.0, seed=1, steps=5)
    >>> run.delta.shape, run.position.shape, round(run.redshift_initial, 3)
    ((8, 8, 8), (512, 3), 19.0)
    """

    delta: np.ndarray
    displacement: np.ndarray
    position: np.ndarray
    velocity: np.ndarray
    redshift_initial: float


def simulate(particles, boxsize, cosmology=PLANCK_2018, seed=0, steps=20, a_initial=0.05, mesh_factor=2,
             fixed_amplitude=False, progress=None):
    """Simulate dark matter in a periodic box from a Gaussian field to z=0.

    The same arguments give the same run, bit for bit. `kerasgal.simulate` finds haloes as well and makes a Simulation.

    Parameters
    ----------
    particles : int
        A side.
    boxsize : float
        Mpc/h.
    cosmology : Cosmology
        Planck 2018 by default.
    seed : int
        Of the Gaussian field.
    steps : int
        COLA time steps, equal in the scale factor.
    a_initial : float
        Scale factor of the initial displacement.
    mesh_factor : int
        Cells of the force mesh per particle and side; with 1 most small haloes are missing.
    fixed_amplitude : bool
        See `gaussian_field`.
    progress : callable, optional
        Called as progress(step, steps) after each step.

    Returns
    -------
    Run

    Raises
    ------
    ValueError
        If a_initial or steps is out of range.

    Examples
    --------
    >>> from kerasgal.nbody import simulate
    >>> bool((simulate(8, 10.0, seed=1, steps=5).delta == simulate(8, 10.0, seed=1, steps=5).delta).all())
    True
    """
    delta = gaussian_field(particles, boxsize, cosmology, seed, fixed_amplitude)
    return evolve(delta, boxsize, cosmology, steps, a_initial, mesh_factor, progress)


def gaussian_field(particles, boxsize, cosmology, seed, fixed_amplitude=False):
    """Linear density contrast at z=0 on a grid.

    White noise drawn in real space is filtered with the root of the linear power spectrum.

    Parameters
    ----------
    particles : int
        Cells a side, n.
    boxsize : float
        Mpc/h.
    cosmology : Cosmology
        Of the spectrum.
    seed : int
        Of the noise.
    fixed_amplitude : bool
        Every mode keeps its random phase but has exactly the expected power (Angulo & Pontzen 2016, arXiv:1603.05253).

    Returns
    -------
    array
        (n, n, n), float32.

    Examples
    --------
    >>> from kerasgal.cosmology import Cosmology
    >>> from kerasgal.nbody import gaussian_field
    >>> delta = gaussian_field(16, 50.0, Cosmology(), seed=1)
    >>> delta.shape, bool(abs(delta.mean()) < 1e-6)
    ((16, 16, 16), True)
    """
    noise = np.random.default_rng(seed).standard_normal((particles,) * 3, dtype=np.float32)
    noise = scipy.fft.rfftn(noise, workers=-1)
    if fixed_amplitude:
        noise *= particles**1.5 / np.abs(noise)
    # Every |k|^2 is an integer number of squared fundamental modes: a table of the spectrum is exact.
    integer = np.rint(scipy.fft.fftfreq(particles, 1 / particles)).astype(int)
    squared = integer[:, None, None]**2 + integer[:, None]**2 + integer[:particles // 2 + 1]**2
    k = np.sqrt(np.arange(1, squared.max() + 1)) * (2 * np.pi / boxsize)
    power = np.concatenate([[0.0], linear_power(cosmology, k)])  # the box has the mean density
    noise *= np.sqrt(power * (particles / boxsize)**3).astype(np.float32)[squared]
    return _real(noise, (particles,) * 3)


def _wavenumbers(gridsize, boxsize):
    """The wavenumbers of a real FFT along its axes, shaped to broadcast: (n, 1, 1), (n, 1), (n // 2 + 1,)."""
    k = (2 * np.pi * scipy.fft.fftfreq(gridsize, boxsize / gridsize)).astype(np.float32)
    return k[:, None, None], k[:, None], np.abs(k[:gridsize // 2 + 1])


def _spectral(k, cell):
    """The exact derivative (over i); that of the Nyquist wave vanishes on the grid points."""
    return np.where(np.abs(k) * cell < 0.9999 * np.pi, k, 0)


def _potential(delta, boxsize):
    """The Fourier transform of phi, where the Laplacian of phi is delta, and the wavenumbers it stands on."""
    k = _wavenumbers(len(delta), boxsize)
    phi = scipy.fft.rfftn(delta, workers=-1)
    squared = k[0]**2 + k[1]**2 + k[2]**2
    squared[0, 0, 0] = np.inf  # no force from the mean density
    phi /= -squared
    return phi, k


def _real(modes, shape):
    """The inverse of a real FFT; `modes` are overwritten."""
    real = np.empty(shape, modes.real.dtype)
    real *= _real_into(real, modes)
    return real


def _real_into(real, modes):
    """Write the inverse of a real FFT, without its factor, into `real`; `modes` are overwritten. Returns the factor.

    As scipy.fft.irfftn in half of the time: that one gets memory for a copy and for the result each time.
    """
    modes = scipy.fft.ifftn(modes, axes=(0, 1), norm="forward", overwrite_x=True, workers=-1)
    for some in _slabs(real.shape):
        real[some] = scipy.fft.irfft(modes[some], real.shape[2], norm="forward", overwrite_x=True, workers=-1)
    return real.dtype.type(1 / real.size)


def _modes_into(modes, real):
    """The real FFT of `real`, as scipy.fft.rfftn, in the memory of `modes`."""
    for some in _slabs(real.shape):
        modes[some] = scipy.fft.rfft(real[some], workers=-1)
    return scipy.fft.fftn(modes, axes=(0, 1), overwrite_x=True, workers=-1)


def _slabs(shape):
    """Slices of the first axis of about half a million cells each."""
    size = max(1, 2**19 // math.prod(shape[1:]))
    return [slice(start, start + size) for start in range(0, shape[0], size)]


def displacement_1lpt(delta, boxsize):
    """First-order (Zel'dovich) displacement s1 of a linear density contrast (astro-ph/9406013).

    x = q + D1 s1 with s1 = -grad phi1 and Laplacian phi1 = delta.

    Parameters
    ----------
    delta : array
        (n, n, n).
    boxsize : float
        Mpc/h.

    Returns
    -------
    array
        (n, n, n, 3), Mpc/h.

    Examples
    --------
    >>> import numpy as np
    >>> from kerasgal.nbody import displacement_1lpt
    >>> x = 2 * np.pi * np.arange(16) / 16  # a plane wave as long as a box of 10 Mpc/h
    >>> delta = np.cos(x)[:, None, None] * np.ones((16, 16, 16))
    >>> bool(np.allclose(displacement_1lpt(delta, 10.0)[:, 0, 0, 0], -np.sin(x) * 10 / (2 * np.pi), atol=1e-5))
    True
    """
    phi, k = _potential(delta, boxsize)
    slope = [_spectral(axis, boxsize / len(delta)) for axis in k]
    displacement = np.empty((*delta.shape, 3), phi.real.dtype)
    for axis in range(3):
        displacement[..., axis] = _real(-1j * slope[axis] * phi, delta.shape)
    return displacement


def displacement_2lpt(delta, boxsize):
    """Second-order displacement s2 of a linear density contrast.

    x = q + D1 s1 + D2 s2, s2 = grad phi2, Laplacian phi2 = sum over i < j of (phi1,ii phi1,jj - phi1,ij^2), and D2 =
    -3/7 D1^2 Om(z)^(-1/143) to high accuracy, which is negative (Appendix D of Scoccimarro 1998, astro-ph/9711187).
    `growth_history` has the exact D2.

    Parameters
    ----------
    delta : array
        (n, n, n).
    boxsize : float
        Mpc/h.

    Returns
    -------
    array
        (n, n, n, 3), Mpc/h.

    Examples
    --------
    >>> import numpy as np
    >>> from kerasgal.nbody import displacement_2lpt
    >>> wave = np.cos(2 * np.pi * np.arange(16) / 16)[:, None, None] * np.ones((16, 16, 16))
    >>> bool(abs(displacement_2lpt(wave, 10.0)).max() < 1e-5)  # of a plane wave the first order is exact
    True
    """
    phi, k = _potential(delta, boxsize)
    # The sum is half of (trace^2 - sum over all i, j of phi1,ij^2), and the trace is delta itself.
    source = (delta - delta.mean())**2
    slope = [_spectral(axis, boxsize / len(delta)) for axis in k]
    for i, j, times in ((0, 0, 1), (1, 1, 1), (2, 2, 1), (0, 1, 2), (0, 2, 2), (1, 2, 2)):
        product = k[i]**2 if i == j else slope[i] * slope[j]
        source -= times * _real(-product * phi, delta.shape)**2
    source /= 2
    return -displacement_1lpt(source, boxsize)


def evolve(delta, boxsize, cosmology=PLANCK_2018, steps=20, a_initial=0.05, mesh_factor=2, progress=None):
    """Evolve a linear density contrast at z=0 from 2LPT at a_initial to z=0 with COLA (arXiv:1301.0322).

    Parameters
    ----------
    delta : array
        (n, n, n), linear density contrast at z=0.
    boxsize : float
        Mpc/h.
    cosmology : Cosmology
        Planck 2018 by default.
    steps : int
        Time steps, equal in the scale factor.
    a_initial : float
        Scale factor of the initial displacement.
    mesh_factor : int
        Cells of the force mesh per particle and side; with 1 most small haloes are missing.
    progress : callable, optional
        Called as progress(step, steps) after each step.

    Returns
    -------
    Run

    Raises
    ------
    ValueError
        If `delta` is not a cube, or a_initial or steps is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from kerasgal.nbody import evolve
    >>> still = evolve(np.zeros((4, 4, 4)), 10.0, steps=2)
    >>> still.position[0].tolist()
    [1.25, 1.25, 1.25]
    """
    if delta.ndim != 3 or len(set(delta.shape)) > 1:
        raise ValueError(f"delta must be a cube. Received a shape of {delta.shape}")
    if not A_EARLY < a_initial < 1 or steps < 1:
        raise ValueError(f"{A_EARLY} < a_initial < 1 and steps >= 1 must hold. Received {a_initial}, {steps}")
    from kerasgal import particle_kernels

    delta = delta.astype(np.float32)
    particles = len(delta)
    s1 = displacement_1lpt(delta, boxsize)
    s2 = displacement_2lpt(delta, boxsize)
    growth = growth_history(cosmology)
    now = growth(a_initial)
    displacement = now.D1 * s1 + now.D2 * s2
    position = (lattice(particles, boxsize) + displacement).reshape(-1, 3)
    s1, s2 = s1.reshape(-1, 3), s2.reshape(-1, 3)
    mesh = _Mesh(mesh_factor * particles, boxsize)
    residual = np.zeros_like(position)  # momentum beyond Lagrangian perturbation theory

    def drift(start, end):
        times = np.float32([end.D1 - start.D1, end.D2 - start.D2, end.drift - start.drift])
        particle_kernels.drift(position.ravel(), s1.ravel(), s2.ravel(), residual.ravel(), *times)

    scale_factor = np.linspace(a_initial, 1, steps + 1)
    edges = [growth(a) for a in scale_factor]
    # Where the forces are taken; the last drift is half a step
    middles = [growth(a) for a in (scale_factor[1:] + scale_factor[:-1]) / 2] + edges[-1:]
    drift(edges[0], middles[0])
    for step, middle in enumerate(middles[:-1]):
        # The force, less what Lagrangian perturbation theory has accounted for (Section 2 of arXiv:1301.0322)
        force = mesh.gravity(position)
        times = np.float32([middle.D1, middle.D2 - middle.D1**2, edges[step + 1].kick - edges[step].kick])
        particle_kernels.kick(residual.ravel(), force.ravel(), s1.ravel(), s2.ravel(), *times)
        del force
        drift(middle, middles[step + 1])
        if progress is not None:
            progress(step + 1, steps)
    momentum = residual + edges[-1].p1 * s1 + edges[-1].p2 * s2
    return Run(now.D1 * delta, displacement, wrap(position, boxsize), 100 * momentum, 1 / a_initial - 1)


def gravity(position, gridsize, boxsize):
    """Acceleration -grad phi at the particles, where the Laplacian of phi is their density contrast.

    A particle mesh with cloud-in-cell both ways.

    Parameters
    ----------
    position : array
        (particles, 3), Mpc/h, in any period.
    gridsize : int
        Cells of the mesh a side.
    boxsize : float
        Mpc/h.

    Returns
    -------
    array
        (particles, 3), Mpc/h.

    Examples
    --------
    >>> import numpy as np
    >>> from kerasgal.nbody import gravity
    >>> force = gravity(np.array([[4.0, 5.0, 5.0], [6.0, 5.0, 5.0]], "float32"), 32, 10.0)
    >>> bool(force[0, 0] > 0), bool(np.allclose(force[0], -force[1], atol=1e-3))
    (True, True)
    """
    return _Mesh(gridsize, boxsize).gravity(position)


class _Mesh:
    """The mesh of `gravity`. It keeps its arrays: to get new ones in each step takes as long as a Fourier transform."""

    def __init__(self, gridsize, boxsize):
        self.gridsize, self.boxsize, self.cell = gridsize, boxsize, boxsize / gridsize
        self.real = np.empty((gridsize,) * 3, np.float32)
        self.modes = np.empty((gridsize, gridsize, gridsize // 2 + 1), np.complex64)
        self.k = [axis.ravel() for axis in _wavenumbers(gridsize, boxsize)]
        # Undo the smoothing of the deposit. To undo that of the interpolation as well makes the force ring again.
        self.sharpen = 1 / np.sinc(self.k[1] * self.cell / (2 * np.pi))**2

    def gravity(self, position):
        from kerasgal import particle_kernels

        position, cells, half = cic_arguments(position, self.gridsize, self.boxsize)
        weight = np.full(len(position), self.gridsize**3 / len(position), np.float32)
        self.real.fill(0)
        particle_kernels.deposit(position, cells, half, weight, self.real)
        self.modes = _modes_into(self.modes, self.real)
        particle_kernels.solve_poisson(self.modes.view(np.float32), *self.k, self.sharpen)
        factor = _real_into(self.real, self.modes)
        # The gradient by differences of four neighbours (as FastPM, arXiv:1603.00476) fades out before the Nyquist
        # wavenumber. With the sharp cut of a spectral derivative the force of a particle rings with a period of two
        # cells, in step with the lattice of particles: a plane wave was off by 17%, not 2%.
        force = np.empty_like(position)
        particle_kernels.gradient(self.real, np.float32(-factor / (12 * self.cell)), position, cells, half, force)
        return force


class Growth(NamedTuple):
    """The time dependence of everything, at one scale factor: see `growth_history`.

    Attributes
    ----------
    D1, p1 : float
        First-order growth, and its momentum.
    D2, p2 : float
        Second-order growth, and its momentum.
    drift, kick : float
        What momentum and force are multiplied by.

    Examples
    --------
    >>> from kerasgal.cosmology import Cosmology
    >>> from kerasgal.nbody import growth_history
    >>> round(growth_history(Cosmology())(1.0).D1, 6)
    1.0
    """

    D1: float
    p1: float
    D2: float
    p2: float
    drift: float
    kick: float


def growth_history(cosmology):
    """A function of the scale factor, which returns its `Growth`, for a flat LCDM universe; D1 = 1 today.

    With Q = a^3 H / H0, a^2 d/dt = Q d/da. Newton's equation, Q d/da (Q dx/da) = -3/2 Om0 a grad phi (Eq. A.1 of
    arXiv:1301.0322), becomes to first and to second order in the displacement

    | Q dD1/da = p1,    Q dp1/da = 3/2 Om0 a D1,
    | Q dD2/da = p2,    Q dp2/da = 3/2 Om0 a (D2 - D1^2).

    A constant momentum moves a particle by the momentum times the difference of drift, Q d(drift)/da = 1; a constant
    -grad phi changes the momentum by that times the difference of kick, Q d(kick)/da = 3/2 Om0 a.

    Parameters
    ----------
    cosmology : Cosmology
        The universe.

    Returns
    -------
    callable
        From the scale factor, 1e-3 to 1, to a `Growth`; raises DataError for another.

    Examples
    --------
    >>> from kerasgal.cosmology import Cosmology, growth_factor
    >>> from kerasgal.nbody import growth_history
    >>> growth = growth_history(Cosmology())(0.5)
    >>> bool(abs(growth.D1 / growth_factor(Cosmology(), 1.0) - 1) < 1e-3), growth.D2 < 0
    (True, True)
    """
    def slope(log_a, y):
        D1, p1, D2, p2, _, _ = y
        a = np.exp(log_a)
        attraction = 1.5 * cosmology.Om0 * a
        Q = np.sqrt(cosmology.Om0 * a**3 + (1 - cosmology.Om0) * a**6)
        return a / Q * np.array([p1, attraction * D1, p2, attraction * (D2 - D1**2), 1, attraction])

    # The growing mode of a universe of matter only: D1 = a, D2 = -3/7 a^2
    a, Q = A_EARLY, np.sqrt(cosmology.Om0 * A_EARLY**3)
    early = [a, Q, -3 / 7 * a**2, -6 / 7 * a * Q, 0, 0]
    history = solve_ivp(slope, (np.log(a), 0), early, "DOP853", rtol=1e-9, atol=1e-15, dense_output=True).sol
    D1_today = history(0)[0]
    unit = np.array([D1_today, D1_today, D1_today**2, D1_today**2, 1, 1])

    def growth(a):
        if not A_EARLY * (1 - ROUNDED) <= a <= 1 + ROUNDED:
            raise DataError(f"growth is known from redshift {1 / A_EARLY - 1:g} to 0, received {1 / a - 1:g}", value=a,
                            accepted=(A_EARLY, 1))
        return Growth(*(history(np.log(a)) / unit).tolist())

    return growth
