"""Galaxies painted into the haloes of a dark-matter simulation: made up by a rule, not simulated.

The rule is a halo occupation distribution that sees more than the mass of a halo, so that the density field says more
about the galaxies than the masses of the haloes do: the environment moves the masses at which haloes have galaxies (as
in AbacusHOD: Yuan et al. 2022, arXiv:2110.11412), and the satellites follow the concentration and the shape of their
halo.

Where the particles' velocities are known galaxies have some, too: a central moves with its halo, a satellite differs
from that by a Gaussian velocity of the halo's virial dispersion along each axis (as in Tinker 2007, astro-ph/0604217,
without a velocity bias).
"""

from dataclasses import dataclass

import numpy as np
import scipy.fft
from colossus.halo.concentration import concentration
from colossus.halo.profile_nfw import NFWProfile
from colossus.utils.constants import G
from scipy.special import erf, lambertw

from kerasgal.grid import density_contrast, deposit_ngp, interpolate_cic, top_hats, wrap

SPHERE_SHRINKS, SPHERE_PARTICLES, SPHERE_SHARE = 0.9, 10, 0.01
ROUND_PARTICLES = 20  # that the shape of a halo is diluted with: as many as the smallest halo has
SIMILAR_HALOES = 100  # of about the same mass, among which an environment is ranked


@dataclass(frozen=True)
class GalaxyModel:
    """The parameters of the rule.

    The masses are like those for faint galaxies of the SDSS (Zehavi et al. 2011, arXiv:1005.2413): in boxes of 50 Mpc/h
    and 128^3 particles there are 0.021 galaxies per (Mpc/h)^3, 28% of them satellites. The environment raises their
    power spectrum by 35%, so that a few small boxes show it; that is twice the effect of the IllustrisTNG simulation,
    15% in the correlation function (Hadzhiyska et al. 2020, arXiv:1911.02610).

    Parameters
    ----------
    log_minimum : float
        log10 of the mass [Msun/h] at which half of the haloes have a central galaxy.
    scatter : float
        Width of that step, in decades (the sigma of Zheng et al. 2005, astro-ph/0408564).
    log_first : float
        log10 of the mass [Msun/h] at which a halo with a central galaxy has one satellite on average.
    alpha : float
        Power of the mass to which the mean number of satellites is proportional.
    environment_minimum, environment_first : float
        By how much log_minimum and log_first differ between the densest environment and the emptiest, in decades: below
        zero, dense regions have galaxies in lighter haloes.
    environment_radius : float
        Of the sphere in which the environment is measured, Mpc/h.

    Examples
    --------
    >>> from kerasgal.galaxies import GalaxyModel
    >>> GalaxyModel(alpha=1.1).log_minimum
    11.4
    """

    log_minimum: float = 11.4
    scatter: float = 0.2
    log_first: float = 12.8
    alpha: float = 1.0
    environment_minimum: float = -0.3
    environment_first: float = -0.3
    environment_radius: float = 3.0


def paint(halos, halo_id, position, boxsize, redshift, rng, model, velocity=None):
    """Galaxies in the haloes of a simulation.

    Centrals stand at the densest point of their halo, which `centres` finds, satellites around it.

    Parameters
    ----------
    halos : dict
        The catalogue, as `kerasgal.halos.catalogue` makes it.
    halo_id : array of int
        (particles,), the number of each particle's halo, -1 outside.
    position : array
        (particles, 3), Mpc/h, periodic.
    boxsize : float
        Mpc/h.
    redshift : float
        Of these.
    rng : numpy.random.Generator
        Where the draws come from.
    model : GalaxyModel
        The rule.
    velocity : array, optional
        (particles, 3), peculiar, km/s.

    Returns
    -------
    dict
        One entry for each galaxy in every array: `position`, (galaxies, 3), Mpc/h, in [0, boxsize), float32; `halo`,
        (galaxies,), row of `halos`, int32; `central`, (galaxies,), 1 for the galaxy at the centre of its halo, 0 for a
        satellite, int8; where the particles have some, `velocity`, (galaxies, 3), peculiar, km/s, float32. The others
        are the same with and without.

    Examples
    --------
    >>> import kerasgal as kg
    >>> import numpy as np
    >>> from kerasgal.galaxies import GalaxyModel, paint
    >>> box = kg.simulate(particles=16, boxsize=12.5, seed=1)
    >>> galaxies = paint(box.halos(), box["halo_id"][...].ravel(), box["final/position"][...], box.boxsize, 0.0,
    ...                  np.random.default_rng(0), GalaxyModel())
    >>> list(galaxies), galaxies["position"].shape[1]
    (['position', 'halo', 'central'], 3)
    """
    return prepare(halos, halo_id, position, boxsize, redshift, model, velocity).draw(rng)


@dataclass(frozen=True)
class Painting:
    """All that the rule knows of the haloes of a simulation before it draws galaxies; made by `prepare`.

    Parameters
    ----------
    boxsize : float
        Mpc/h.
    centre : array
        (haloes, 3), the densest points of the haloes, Mpc/h.
    radius, concentration : array
        (haloes,), Mpc/h, and of the satellites' profile.
    stretch : array
        (haloes, 3, 3), of their shape; see `stretches`.
    central, satellites : array
        (haloes,), probability of a central galaxy, and mean number of satellites where there is one.
    velocity : array or None
        (haloes, 3), the mean of the haloes' particles, km/s.
    dispersion : array or None
        (haloes,), of satellites about it along each axis, km/s; see `virial_dispersion`.
    """

    boxsize: float
    centre: np.ndarray
    radius: np.ndarray
    concentration: np.ndarray
    stretch: np.ndarray
    central: np.ndarray
    satellites: np.ndarray
    velocity: np.ndarray = None
    dispersion: np.ndarray = None

    def draw(self, rng):
        """Galaxies, drawn once.

        Parameters
        ----------
        rng : numpy.random.Generator
            Where the draws come from.

        Returns
        -------
        dict
            As `paint` returns it.
        """
        has_central = rng.random(len(self.central)) < self.central
        satellites = rng.poisson(self.satellites * has_central)
        host, central = np.repeat(np.arange(len(satellites)), satellites), np.flatnonzero(has_central)
        placed = np.concatenate([self.centre[central], self._satellites_of(host, rng)])
        found = {
            "position": wrap(placed.astype(np.float32), self.boxsize),
            "halo": np.concatenate([central, host]).astype(np.int32),
            "central": np.repeat(np.array([1, 0], np.int8), [len(central), len(host)]),
        }
        if self.velocity is not None:
            moving = self.velocity[found["halo"]]
            moving[len(central):] += self.dispersion[host, None] * rng.standard_normal((len(host), 3))
            found["velocity"] = moving.astype(np.float32)
        return found

    def expected(self, gridsize, samples=300, seed=0):
        """The mean number of galaxies in cells, over all drawings: what a perfect prediction would be.

        Parameters
        ----------
        gridsize : int
            Cells per side.
        samples : int
            Places for each satellite that is expected, over which the profile is averaged.
        seed : int
            Of these places.

        Returns
        -------
        array
            (gridsize, gridsize, gridsize), float32.
        """
        rng = np.random.default_rng(seed)
        mean = self.central * self.satellites
        number = 1 + np.ceil(samples * mean).astype(int)
        host = np.repeat(np.arange(len(number)), number)
        placed = self._satellites_of(host, rng)
        field = deposit_ngp(wrap(self.centre.astype(np.float32), self.boxsize), gridsize, self.boxsize, self.central)
        return field + deposit_ngp(wrap(placed.astype(np.float32), self.boxsize), gridsize, self.boxsize,
                                   (mean / number)[host])

    def variance(self):
        """Variance of the number of galaxies in the whole simulation, over all drawings.

        Returns
        -------
        float
        """
        return float(np.sum(self.central * (self.satellites + (1 - self.central) * (1 + self.satellites)**2)))

    def _satellites_of(self, host, rng):
        offset = satellite_offsets(self.radius[host], self.concentration[host], self.stretch[host], rng)
        return self.centre[host] + offset


def prepare(halos, halo_id, position, boxsize, redshift, model, velocity=None):
    """What the rule needs of a simulation's haloes, whatever is drawn then.

    Parameters
    ----------
    halos, halo_id, position, boxsize, redshift, model, velocity
        See `paint`.

    Returns
    -------
    Painting

    Examples
    --------
    >>> import kerasgal as kg
    >>> from kerasgal.galaxies import GalaxyModel, prepare
    >>> box = kg.simulate(particles=32, boxsize=12.5, seed=1)
    >>> painting = prepare(box.halos(), box["halo_id"][...].ravel(), box["final/position"][...], box.boxsize, 0.0,
    ...                    GalaxyModel())
    >>> mean = painting.expected(32)
    >>> bool(abs(mean.sum() / (painting.central * (1 + painting.satellites)).sum() - 1) < 1e-4)
    True
    """
    centre = centres(halos, halo_id, position, boxsize)
    rank = environment_rank(halos["mass"], environment(halos, centre, position, boxsize, model.environment_radius))
    central, satellites = occupation(halos["mass"], rank, model)
    # Duffy et al. 2008 (arXiv:0804.2486), for a radius of 200 times the mean density, as that of the catalogue is
    c, _ = concentration(halos["mass"], "200m", redshift, model="duffy08", range_return=True)
    motion = () if velocity is None else (mean_velocities(halo_id, velocity, len(centre)),
                                          virial_dispersion(halos["mass"], halos["radius"], redshift))
    return Painting(boxsize, centre, halos["radius"], c, stretches(centre, halo_id, position, boxsize), central,
                    satellites, *motion)


def mean_velocities(halo_id, velocity, haloes):
    """The mean velocity of the particles of each halo.

    Parameters
    ----------
    halo_id : array of int
        (particles,), the number of each particle's halo, -1 outside.
    velocity : array
        (particles, 3), in any unit.
    haloes : int
        How many there are.

    Returns
    -------
    array
        (haloes, 3), in the unit of `velocity`; zero for a halo without particles.

    Examples
    --------
    >>> import numpy as np
    >>> from kerasgal.galaxies import mean_velocities
    >>> mean_velocities(np.array([0, -1, 0]), np.array([[100.0, 0, 0], [0, 0, 900], [300, 0, 0]]), 1).tolist()
    [[200.0, 0.0, 0.0]]
    """
    member = halo_id >= 0
    count = np.maximum(np.bincount(halo_id[member], minlength=haloes), 1)
    total = [np.bincount(halo_id[member], velocity[member, axis], haloes) for axis in range(3)]
    return np.stack(total, axis=-1) / count[:, None]


def virial_dispersion(mass, radius, redshift=0.0):
    """Dispersion of velocities in haloes along one axis: sigma^2 = G M / (2 R), as in an isothermal sphere.

    Parameters
    ----------
    mass : array
        Msun/h.
    radius : array
        Comoving, Mpc/h.
    redshift : float
        Of the haloes, whose radius is smaller by 1 + redshift than the comoving one.

    Returns
    -------
    array
        km/s.

    Examples
    --------
    >>> from kerasgal.galaxies import virial_dispersion
    >>> round(float(virial_dispersion(1e14, 1.114)))  # a small cluster
    439
    """
    return np.sqrt(1e-3 * G * mass * (1 + redshift) / (2 * radius))  # colossus counts in kpc


def occupation(mass, rank, model):
    """Probability of a central galaxy in haloes, and mean number of satellites where there is one.

    As Zheng et al. 2007 (astro-ph/0703457), with their M_0 of zero, and the two masses moved by the rank of the
    environment as in arXiv:2110.11412. The number of satellites is Poisson.

    Parameters
    ----------
    mass : array
        (haloes,), Msun/h.
    rank : array
        (haloes,), of the environment, between 0 and 1; see `environment_rank`.
    model : GalaxyModel
        The rule.

    Returns
    -------
    central, satellites : array
        (haloes,).

    Examples
    --------
    >>> import numpy as np
    >>> from kerasgal.galaxies import GalaxyModel, occupation
    >>> central, satellites = occupation(10 ** np.array([11.4, 12.8]), np.array([0.5, 0.5]), GalaxyModel())
    >>> central.round(2).tolist(), satellites.round(2).tolist()
    ([0.5, 1.0], [0.04, 1.0])
    """
    log_mass, rank = np.log10(mass), rank - 0.5
    central = 0.5 + 0.5 * erf((log_mass - model.log_minimum - model.environment_minimum * rank) / model.scatter)
    satellites = 10 ** (model.alpha * (log_mass - model.log_first - model.environment_first * rank))
    return central, satellites


def environment(halos, centre, position, boxsize, radius):
    """Matter in a sphere around each halo, without the halo itself, over that in a mean one.

    Parameters
    ----------
    halos : dict
        The catalogue, as `kerasgal.halos.catalogue` makes it.
    centre : array
        (haloes, 3), Mpc/h.
    position : array
        (particles, 3), Mpc/h.
    boxsize : float
        Mpc/h.
    radius : float
        Of the sphere, Mpc/h.

    Returns
    -------
    array
        (haloes,).

    Examples
    --------
    >>> import kerasgal as kg
    >>> from kerasgal.galaxies import environment
    >>> box = kg.simulate(particles=16, boxsize=12.5, seed=1)
    >>> halos = box.halos()
    >>> around = environment(halos, halos["position"], box["final/position"][...], box.boxsize, 3.0)
    >>> around.shape == halos["mass"].shape
    True
    """
    gridsize = scipy.fft.next_fast_len(int(np.ceil(4 * boxsize / radius)), real=True)
    smooth, = top_hats(density_contrast(position, gridsize, boxsize), [radius * gridsize / boxsize])
    mean_particles = len(position) * 4 / 3 * np.pi * (radius / boxsize)**3
    return 1 + interpolate_cic(smooth, centre, boxsize) - halos["count"] / mean_particles


def environment_rank(mass, environment, similar=SIMILAR_HALOES):
    """Rank of each halo's environment among those of haloes of similar mass.

    Parameters
    ----------
    mass : array
        (haloes,), in any unit.
    environment : array
        (haloes,); see `environment`.
    similar : int
        Haloes of about the same mass that are ranked together.

    Returns
    -------
    array
        (haloes,), in (0, 1), evenly spread.

    Examples
    --------
    >>> import numpy as np
    >>> from kerasgal.galaxies import environment_rank
    >>> environment_rank(np.ones(4), np.array([3.0, 1.0, 2.0, 4.0])).tolist()
    [0.625, 0.125, 0.375, 0.875]
    """
    rank = np.empty(len(mass))
    # Haloes of equal mass stand in the order of their places in the box, where neighbours have one environment.
    mixed = np.random.default_rng(0).permutation(len(mass))
    by_mass = mixed[np.argsort(mass[mixed], kind="stable")]
    for group in np.array_split(by_mass, max(1, len(mass) // similar)):
        rank[group[np.argsort(environment[group], kind="stable")]] = (np.arange(len(group)) + 0.5) / max(1, len(group))
    return rank


def _members(centre, halo_id, position, boxsize):
    """Halo (m,) of every particle that is in one, and its position relative to that halo's `centre`, (m, 3)."""
    member = np.flatnonzero(halo_id >= 0)
    halo = halo_id[member]
    offset = position[member] - centre[halo]
    return halo, offset - boxsize * np.rint(offset / boxsize)


def centres(halos, halo_id, position, boxsize):
    """The densest point of every halo: where a shrinking sphere ends (Power et al. 2003, astro-ph/0201544).

    The sphere holds the halo at first; it moves to the centre of mass of the particles inside and shrinks, as long as
    10 of the halo's particles, and 1% of them, are inside. In a halo that is merging or has a tail the centre of mass
    lies elsewhere.

    Parameters
    ----------
    halos : dict
        The catalogue, as `kerasgal.halos.catalogue` makes it.
    halo_id : array of int
        (particles,), the number of each particle's halo, -1 outside.
    position : array
        (particles, 3), Mpc/h.
    boxsize : float
        Mpc/h.

    Returns
    -------
    array
        (haloes, 3), Mpc/h, in any period.

    Examples
    --------
    >>> import kerasgal as kg
    >>> from kerasgal.galaxies import centres
    >>> box = kg.simulate(particles=16, boxsize=12.5, seed=1)
    >>> halos = box.halos()
    >>> found = centres(halos, box["halo_id"][...].ravel(), box["final/position"][...], box.boxsize)
    >>> found.shape == halos["position"].shape
    True
    """
    halo, offset = _members(halos["position"], halo_id, position, boxsize)
    haloes = len(halos["mass"])
    centre, radius = np.zeros((haloes, 3)), np.zeros(haloes)
    fewest = np.maximum(SPHERE_PARTICLES, SPHERE_SHARE * halos["count"])
    np.maximum.at(radius, halo, np.linalg.norm(offset, axis=1))
    while len(halo):
        inside = np.linalg.norm(offset - centre[halo], axis=1) <= radius[halo]
        count = np.bincount(halo[inside], minlength=haloes)
        large = count >= fewest  # a sphere of fewer stays where it was
        for axis in range(3):
            total = np.bincount(halo[inside], offset[inside, axis], minlength=haloes)
            centre[large, axis] = total[large] / count[large]
        radius *= SPHERE_SHRINKS
        halo, offset = halo[large[halo]], offset[large[halo]]
    return halos["position"] + centre


def stretches(centre, halo_id, position, boxsize):
    """Symmetric matrices that stretch a sphere to the shape of each halo, of determinant 1.

    The square root of the second moment of the halo's particles about `centre`. To them are added 20 particles of a
    round halo, because a few particles never look round.

    Parameters
    ----------
    centre : array
        (haloes, 3), Mpc/h.
    halo_id : array of int
        (particles,), the number of each particle's halo, -1 outside.
    position : array
        (particles, 3), Mpc/h.
    boxsize : float
        Mpc/h.

    Returns
    -------
    array
        (haloes, 3, 3).

    Examples
    --------
    >>> import numpy as np
    >>> from kerasgal.galaxies import stretches
    >>> cloud = np.random.default_rng(0).normal(5, [0.3, 0.1, 0.1], (1000, 3))
    >>> stretch = stretches(np.full((1, 3), 5.0), np.zeros(1000, int), cloud, 10.0)[0]
    >>> bool(stretch[0, 0] > 1.5 > stretch[1, 1]), round(float(np.linalg.det(stretch)), 6)
    (True, 1.0)
    """
    halo, offset = _members(centre, halo_id, position, boxsize)
    moment = np.empty((len(centre), 3, 3))
    for i, j in ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2)):
        moment[:, i, j] = moment[:, j, i] = np.bincount(halo, offset[:, i] * offset[:, j], minlength=len(centre))
    count = np.bincount(halo, minlength=len(centre))
    size = np.trace(moment, axis1=1, axis2=2) / (3 * np.maximum(count, 1))
    moment += (ROUND_PARTICLES * size)[:, None, None] * np.eye(3)
    square, direction = np.linalg.eigh(moment)
    axis = np.sqrt(square)
    axis /= np.cbrt(axis.prod(axis=1, keepdims=True))
    return direction * axis[:, None] @ direction.transpose(0, 2, 1)


def satellite_offsets(radius, c, stretch, rng):
    """Satellites relative to the centres of their haloes, drawn from the profile of Navarro, Frenk & White.

    The profile (astro-ph/9611107) has the scale radius / c; satellites stand up to the radius, in all directions alike,
    then they are stretched.

    Parameters
    ----------
    radius : array
        (satellites,), of the halo of each, in any unit.
    c : array
        (satellites,), its concentration.
    stretch : array
        (satellites, 3, 3), its shape; see `stretches`.
    rng : numpy.random.Generator
        Where the draws come from.

    Returns
    -------
    array
        (satellites, 3), in the unit of `radius`.

    Examples
    --------
    >>> import numpy as np
    >>> from kerasgal.galaxies import satellite_offsets
    >>> round_halo = np.tile(np.eye(3), (1000, 1, 1))
    >>> offset = satellite_offsets(np.full(1000, 0.2), np.full(1000, 5.0), round_halo, np.random.default_rng(0))
    >>> offset.shape, bool(np.linalg.norm(offset, axis=1).max() <= 0.2)
    ((1000, 3), True)
    """
    direction = rng.standard_normal((len(radius), 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    # The radius within which a given share of the mass lies, in closed form: Robotham & Howlett 2018, arXiv:1805.09550
    mass = rng.random(len(radius)) * NFWProfile.mu(c)
    x = -1 / lambertw(-np.exp(-mass - 1)).real - 1
    return np.einsum("sij,sj->si", stretch, direction * (radius * x / c)[:, None])
