"""What the networks have to beat: the halo occupation distribution, which knows of a halo no more than its mass.

The baseline of Yip et al. 2019 (arXiv:1910.07813): one central galaxy in every halo above a minimum mass, and a Poisson
number of satellites with the mean (M / M_1)^alpha. The number of galaxies ties the minimum to M_1 and alpha; what is
left is fitted to the power spectrum on large scales. That of Sether 2024 has no centrals: a Poisson number of galaxies
with the same mean in every halo above the minimum mass. Both see the masses of haloes through the spectrum alone; what
was counted in haloes of each mass is in `occupation`.
"""

from dataclasses import dataclass, field

import numpy as np
import scipy.fft
from scipy.optimize import brentq, minimize_scalar

from kerasgal.errors import DataError
from kerasgal.grid import deposit_ngp, wrap
from kerasgal.statistics import power_spectrum

PLACES = 10  # per halo on average, over which the mean satellites are spread
ALPHA = np.linspace(0.3, 1.7, 15)  # that the fit tries before it refines the best
FEWEST_CENTRALS = 0.1  # of the galaxies that are fitted


@dataclass(frozen=True)
class HOD:
    """log_minimum, log_first: log10 of the minimum mass and of M_1 [Msun/h]; alpha: power of the satellites.

    centrals: whether haloes above the minimum have a galaxy at their centre; without them all are as the satellites.
    domain: what it was made of, as `baseline.domain_of` says it; empty where nobody knows.
    """

    log_minimum: float
    log_first: float
    alpha: float
    centrals: bool = True
    domain: dict = field(default_factory=dict, compare=False)

    lightest_as_others = False  # haloes below the minimum have no galaxy

    @property
    def lightest(self):
        """Mass of the smallest haloes with galaxies [Msun/h]."""
        return 10**self.log_minimum

    def expected(self, halos):
        """See `expected`."""
        # The step at the minimum is as wide as one particle's mass, to which masses are known: so many haloes have the
        # same few particles that a sharp one jumps over numbers of galaxies.
        mass = np.asarray(halos["mass"], np.float64)
        particle = mass / halos["count"]
        return np.clip(0.5 + (mass - 10**self.log_minimum) / particle, 0, 1), (mass / 10**self.log_first)**self.alpha

    def offsets(self, halos, host, rng):
        """See `offsets`."""
        return _within(halos["radius"][host], rng)


def expected(halos, model):
    """Probability of a central, and mean number of satellites if there is one: two arrays (haloes,).

    halos: catalogue, as `Simulation.halos` returns it; model: an `HOD` or an `occupation.Occupation`. Of an HOD without
    centrals the first is the probability of having galaxies at all.
    """
    return model.expected(halos)


def offsets(halos, model, host, rng):
    """Places of satellites relative to the centres of their haloes, rows `host` of `halos`: (satellites, 3), Mpc/h."""
    return model.offsets(halos, host, rng)


def minimum_mass(halos, number):
    """log10 of the mass [Msun/h] above which there are `number` haloes, at most all."""
    half = 0.5 / halos["count"]
    least, most = np.log10([np.min(halos["mass"] * (1 - half)), np.max(halos["mass"] * (1 + half))])
    return brentq(lambda log_mass: expected(halos, HOD(log_mass, np.inf, 1))[0].sum() - number,
                  least - 1e-6, most + 1e-6, xtol=1e-9)


def first_mass(halos, log_minimum, alpha, number, centrals=True):
    """log10 of the M_1 [Msun/h] with which `number` galaxies are expected; infinite where the centrals are enough.

    The sum of c (1 + (M / M_1)^alpha) over the haloes is the number, where c is the probability of a central; without
    centrals that of c (M / M_1)^alpha.
    """
    central, weight = expected(halos, HOD(log_minimum, 0, alpha))
    satellites = number - centrals * central.sum()
    return np.log10(np.sum(central * weight) / satellites) / alpha if satellites > 0 else np.inf


def populate(halos, model, boxsize, rng):
    """Positions of galaxies drawn for the haloes, (galaxies, 3), in [0, boxsize), Mpc/h: centrals, then satellites."""
    central, satellites = expected(halos, model)
    has_central = rng.random(len(central)) < central
    host = np.repeat(np.arange(len(central)), rng.poisson(satellites * has_central))
    placed = halos["position"][host] + offsets(halos, model, host, rng)
    if model.centrals:
        placed = np.concatenate([halos["position"][has_central], placed])
    return wrap(placed, boxsize)


def _within(radius, rng):
    """Places around the centres of haloes, (satellites, 3), up to their radius, (satellites,), Mpc/h."""
    # The paper's code draws the polar angle evenly, which crowds the poles: here all directions are alike. The distance
    # is drawn evenly, as there: a density of r^-2.
    direction = rng.standard_normal((len(radius), 3))
    return direction * (radius * rng.random(len(radius)) / np.linalg.norm(direction, axis=1))[:, None]


def places(halos, rng):
    """Places over which the mean satellites of haloes are spread: row of `halos`, (m,), and position, (m, 3), Mpc/h.

    Each halo has them in proportion to its mass, so that they sample the large ones well.
    """
    number = np.ceil(PLACES * halos["mass"] / np.mean(halos["mass"])).astype(int)
    host = np.repeat(np.arange(len(number)), number)
    return host, halos["position"][host] + _within(halos["radius"][host], rng)


def expected_power(halos, place, hod, boxsize, gridsize):
    """Power spectrum, shot noise included, of the galaxies that `populate` draws: its mean over draws, (k, P).

    place: as `places` returns it; k in h/Mpc and P in (Mpc/h)^3 as `power_spectrum` does. In given haloes the galaxies
    are a mean field and the deviations of each halo from it, which are independent, so that their power is flat: a halo
    with the probability c of a central, and s satellites if it has one, has the variance c s + c (1 - c) (1 + s)^2;
    without a central c s + c (1 - c) s^2.
    """
    central, satellites = expected(halos, hod)
    host, position = place
    field = deposit_ngp(halos["position"], gridsize, boxsize, central * hod.centrals)
    field += deposit_ngp(position, gridsize, boxsize, (central * satellites / np.bincount(host))[host])
    k, power, _ = power_spectrum(field / field.mean() - 1, boxsize)
    number = hod.centrals + satellites
    variance = np.sum(central * (satellites + (1 - central) * number**2))
    return k, power + boxsize**3 * variance / np.sum(central * number)**2


def fit(samples, k_maximum=1.0, seed=0, centrals=True):
    """The `HOD` whose galaxies are as many as the given ones, and nearest to their power spectrum.

    samples: list of (halos, galaxies, boxsize), one for each simulation: the catalogue as `Simulation.halos` returns
    it; positions (galaxies, 3), Mpc/h, or numbers in cells (m, m, m); Mpc/h. k_maximum: of the waves fitted, h/Mpc.
    centrals: as those of the `HOD`.
    Least squares of ln(P / P_given), shot noise included, weighted by the number of modes, over alpha and the minimum
    mass; M_1 follows from the number. P is the mean over all galaxies that could be drawn (`expected_power`), so that
    the fit does not follow the chance of a draw. Raises DataError if there are no haloes or galaxies, or too few
    haloes for so many galaxies.
    """
    rng = np.random.default_rng(seed)
    prepared, number = [], 0
    for halos, galaxies, boxsize in samples:
        if not len(halos["mass"]):
            raise DataError("a simulation has no halo: there is nothing that a halo occupation could fill")
        counts = _coarse_counts(galaxies, boxsize, k_maximum)
        if not counts.sum() > 0:
            raise DataError("a simulation has no galaxy that a halo occupation could be fitted to")
        k, power, modes = power_spectrum(counts / counts.mean() - 1, boxsize)
        use = (k <= k_maximum) & (modes > 0)
        if not use.any():
            raise DataError(f"no wave of {k_maximum:g} h/Mpc or longer fits into a box of {boxsize:g} Mpc/h")
        prepared.append((halos, places(halos, rng), boxsize, len(counts), use, power[use], modes[use]))
        number += counts.sum(dtype=float)
    everything = {name: np.concatenate([halos[name] for halos, *_ in prepared]) for name in ("mass", "count")}
    haloes, fewest = len(everything["mass"]), FEWEST_CENTRALS * number
    if haloes <= fewest:
        raise DataError(f"{number:g} galaxies do not fit into {haloes} haloes: less than {FEWEST_CENTRALS:.0%} would "
                        "be centrals. Haloes of lower mass are needed")
    # From all galaxies being centrals to few, but some in the most massive halo of every simulation
    most = min(minimum_mass(everything, fewest), *(np.log10(halos["mass"].max()) for halos, *_ in prepared))
    bounds = min(minimum_mass(everything, min(number, haloes)), most), most

    def occupation(log_minimum, alpha):
        first = first_mass(everything, log_minimum, alpha, number, centrals)
        return HOD(float(log_minimum), float(first), float(alpha), centrals)

    def misfit(log_minimum, alpha):
        hod, total = occupation(log_minimum, alpha), 0.0
        for halos, place, boxsize, gridsize, use, given, modes in prepared:
            power = expected_power(halos, place, hod, boxsize, gridsize)[1][use]
            total += np.sum(modes * np.log(power / given)**2)
        return total

    # For one alpha, power grows with the minimum mass, so that there is one best. Both at once are a narrow valley.
    def best(alpha):
        return minimize_scalar(misfit, bounds=bounds, args=(alpha,), method="bounded", options={"xatol": 1e-4})

    nearest, step = ALPHA[np.argmin([best(alpha).fun for alpha in ALPHA])], ALPHA[1] - ALPHA[0]
    alpha = minimize_scalar(lambda alpha: best(alpha).fun, bounds=(nearest - step, nearest + step), method="bounded",
                            options={"xatol": 1e-3}).x
    return occupation(best(alpha).x, alpha)


def _coarse_counts(galaxies, boxsize, k_maximum):
    """Galaxies, (galaxies, 3) or in cells (m, m, m), in cells whose Nyquist wavenumber is twice k_maximum or more."""
    needed = max(4, int(np.ceil(2 * k_maximum * boxsize / np.pi)))
    if np.ndim(galaxies) != 3:
        return deposit_ngp(galaxies, scipy.fft.next_fast_len(needed, real=True), boxsize)
    m = len(galaxies)
    factor = max(f for f in range(1, m + 1) if f == 1 or (m % f == 0 and m // f >= needed))
    n = m // factor
    return np.reshape(galaxies, (n, factor, n, factor, n, factor)).sum(axis=(1, 3, 5))
