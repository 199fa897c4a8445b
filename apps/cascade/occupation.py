"""The halo model whose occupation was counted, not fitted: how many galaxies haloes of each mass have in simulations.

A fit to the power spectrum (`hod.fit`) makes up by its numbers for what the model leaves out, such as environment; a
count does not. With environment it is the decorated model of Hearin et al. 2016 (arXiv:1512.03050), with one occupation
for each quarter of the haloes of a mass by the density around them.
"""

from dataclasses import dataclass, field

import numpy as np

from kerasgal.errors import DataError
from kerasgal.galaxies import satellite_offsets

WIDTH = 0.2  # decades of mass in a bin
FEWEST_HALOES, FEWEST_SATELLITES = 5, 20  # of a bin whose satellites are counted; others have the power law's
QUANTILES = 201  # of the measured profile
FARTHEST = 3.0  # radii of its halo, where the measured profile is cut
ITERATIONS = 50
NONE = -1e3  # logarithm of no satellites at all
PROFILES = {"nfw": "NFW", "measured": "measured profile", "critical": "r$^{-2}$ to R$_{200c}$"}


@dataclass(frozen=True)
class Occupation:
    """Occupation by mass, one for each class of environment, and where satellites stand.

    log_mass: (bins,) log10 of mass [Msun/h]; central: (environments, bins) probability of a central; log_satellites:
    (environments, bins) natural logarithm of the mean number of satellites where there is a central; alpha:
    (environments,) its slope beyond the bins; profile: "nfw", concentration of Duffy et al. 2008, to the radius of the
    halo; "measured", the radii of the satellites that were counted; "critical", density r^-2 to the radius of 200 times
    the critical density, as Yip et al. 2019; radii: quantiles of the measured radii over that of the halo, or empty.
    uncounted: share of the galaxies that are in no halo, and so were not counted; None where nobody knows. domain: what
    it was made of, as `baseline.domain_of` says it; empty where nobody knows.
    """

    log_mass: tuple
    central: tuple
    log_satellites: tuple
    alpha: tuple
    profile: str = "nfw"
    radii: tuple = ()
    uncounted: float | None = None
    domain: dict = field(default_factory=dict, compare=False)

    centrals = True  # not a field: every halo that has satellites has one

    @property
    def lightest(self):
        """Mass of the smallest haloes with galaxies [Msun/h]: of the lowest bin that has centrals."""
        bins = (mass for mass, *share in zip(self.log_mass, *self.central) if any(share))
        return 10 ** next(bins, self.log_mass[-1])

    @property
    def lightest_as_others(self):
        """Whether haloes below the lowest bin get the galaxies of that bin."""
        return any(share[0] > 0 for share in self.central)

    def expected(self, halos):
        """See `hod.expected`; with several environments `halos` has their "rank", as `baseline.described` adds it."""
        log_mass, classes = np.log10(halos["mass"]), len(self.central)
        rank = halos["rank"] if classes > 1 else np.zeros(len(log_mass))
        which = np.minimum((rank * classes).astype(int), classes - 1)
        central, satellites = np.zeros(len(log_mass)), np.zeros(len(log_mass))
        beyond = log_mass - np.clip(log_mass, self.log_mass[0], self.log_mass[-1])
        for place in range(classes):
            chosen = which == place
            central[chosen] = np.interp(log_mass[chosen], self.log_mass, self.central[place])
            logarithm = np.interp(log_mass[chosen], self.log_mass, self.log_satellites[place])
            satellites[chosen] = np.exp(logarithm + self.alpha[place] * np.log(10) * beyond[chosen])
        return central, satellites

    def offsets(self, halos, host, rng):
        """See `hod.offsets`; `halos` has "concentration" and "critical" beside its columns."""
        if self.profile == "nfw":
            shape = np.broadcast_to(np.eye(3), (len(host), 3, 3))
            return satellite_offsets(halos["radius"][host], halos["concentration"][host], shape, rng)
        direction = rng.standard_normal((len(host), 3))
        share = rng.random(len(host))
        if self.profile == "measured":
            distance = halos["radius"][host] * np.interp(share, np.linspace(0, 1, len(self.radii)), self.radii)
        else:
            distance = halos["critical"][host] * share
        return direction * (distance / np.linalg.norm(direction, axis=1))[:, None]


def measure(samples, environments=1, profile="nfw"):
    """The `Occupation` of simulations that say in which halo each galaxy is.

    samples: list of (halos, galaxies, boxsize): the catalogue with "rank", if environments are more than one; `halo`,
    (galaxies,), row of the catalogue or -1, `central`, (galaxies,), and `position`, (galaxies, 3), Mpc/h; Mpc/h. Raises
    DataError where there is no halo with a galaxy.
    """
    log_mass, rank, central, satellites, radii = [], [], [], [], []
    for halos, galaxies, boxsize in samples:
        rows = len(halos["mass"])
        inside = galaxies["halo"] >= 0
        host, is_central = galaxies["halo"][inside], galaxies["central"][inside] == 1
        log_mass.append(np.log10(halos["mass"]))
        rank.append(halos["rank"] if environments > 1 else np.zeros(rows))
        central.append(np.minimum(np.bincount(host[is_central], minlength=rows), 1))
        satellites.append(np.bincount(host[~is_central], minlength=rows))
        if profile == "measured":
            around = host[~is_central]
            offset = galaxies["position"][inside][~is_central] - halos["position"][around]
            offset -= boxsize * np.rint(offset / boxsize)
            radii.append(np.linalg.norm(offset, axis=1) / halos["radius"][around])
    log_mass, rank, central, satellites = map(np.concatenate, (log_mass, rank, central, satellites))
    if not central.any():
        raise DataError("no halo has a central galaxy: there is no occupation to measure")
    radii = np.concatenate(radii) if profile == "measured" else np.zeros(0)
    radii = radii[radii < FARTHEST]
    if profile == "measured" and not len(radii):
        raise DataError("no halo has a satellite galaxy: there is no profile to measure")
    edges = np.arange(log_mass.min(), log_mass.max() + WIDTH, WIDTH)
    bins = np.digitize(log_mass, edges) - 1
    haloes = np.bincount(bins, minlength=len(edges))
    used = np.flatnonzero(haloes)
    middle = np.bincount(bins, log_mass)[used] / haloes[used]
    which = np.minimum((rank * environments).astype(int), environments - 1)
    found = [_of_class(middle, log_mass, bins, used, central, satellites, which == place) for place in
             range(environments)]
    quantiles = np.quantile(radii, np.linspace(0, 1, QUANTILES)) if len(radii) else np.zeros(0)
    host = np.concatenate([galaxies["halo"] for _, galaxies, _ in samples])
    return Occupation(tuple(middle.tolist()), *(tuple(part) for part in zip(*found)), profile,
                      tuple(quantiles.tolist()), uncounted=float(np.mean(host < 0)))


def _of_class(middle, log_mass, bins, used, central, satellites, chosen):
    """Probability of a central and logarithm of the satellites in bins of mass, and the slope of these, of the haloes
    that are `chosen`."""
    def totals(values):
        return np.bincount(bins[chosen], values[chosen], minlength=used[-1] + 1)[used]

    haloes, centrals, number = totals(np.ones(len(bins))), totals(central), totals(satellites)
    share = np.where(haloes > 0, centrals / np.maximum(haloes, 1), np.nan)
    share = np.interp(middle, middle[haloes > 0], share[haloes > 0]) if haloes.any() else np.zeros(len(middle))
    intercept, slope = _power_law(log_mass, satellites, chosen & (central > 0))
    logarithm = intercept + slope * np.log(10) * middle
    counted = (centrals >= FEWEST_HALOES) & (number >= FEWEST_SATELLITES)
    logarithm[counted] = np.log(number[counted] / centrals[counted])
    return tuple(share.tolist()), tuple(logarithm.tolist()), float(slope)


def _power_law(log_mass, number, chosen):
    """ln of the mean at mass 1 and the power of the mass, of Poisson numbers, by maximum likelihood; a power of 1 where
    there are too few satellites to tell."""
    x, n = np.log(10) * log_mass[chosen], number[chosen].astype(float)
    if not n.any():
        return NONE, 1.0
    if n.sum() < FEWEST_SATELLITES:
        return np.log(n.sum() / np.exp(x).sum()), 1.0
    shift = np.average(x, weights=n)
    beta = np.array([np.log(n.sum() / np.exp(x - shift).sum()), 1.0])
    design = np.stack([np.ones(len(x)), x - shift], axis=1)
    for _ in range(ITERATIONS):
        mean = np.exp(np.clip(design @ beta, -50, 50))
        hessian = design.T @ (mean[:, None] * design)
        if not np.linalg.cond(hessian) < 1e12:
            return np.log(n.sum() / np.exp(x).sum()), 1.0
        step = np.linalg.solve(hessian, design.T @ (n - mean))
        beta += np.clip(step, -1, 1)
        if np.abs(step).max() < 1e-10:
            break
    return beta[0] - beta[1] * shift, float(beta[1])
