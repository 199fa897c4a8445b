"""Velocities of galaxies that are drawn from a field: that of the dark matter around them, and a scatter about it.

The dark matter says how a cell moves. What satellites move by in their halo, and what the cell does not show of a
halo's own velocity, is a scatter, the larger the denser the cell. It is measured in simulations that have both.
"""

import dataclasses
import json
import logging
from dataclasses import dataclass

import numpy as np

from kerasgal import run_folder
from kerasgal.apps.cascade import data
from kerasgal.errors import DamagedError, DataError
from kerasgal.grid import interpolate_cic
from kerasgal.simulation import opened

FILE = "motion.json"  # of phase 2, in its folder
NEEDED = (*data.MOTION, "galaxies/position", "galaxies/velocity")
EDGES = np.geomspace(1e-1, 1e5, 25)  # of the density of cells, over its mean, in which `measure` looks
FEWEST = 30  # galaxies that a dispersion is measured from

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Motion:
    """Dispersion along each axis of galaxies' velocities about the dark matter's, against the density of their cell.

    density, dispersion: tuples of the same length, in units of the mean, ascending, and in km/s; between them the
    dispersion is interpolated in the logarithm of the density, beyond them it stays.
    """

    density: tuple
    dispersion: tuple

    def dispersion_at(self, density):
        """The dispersion in cells of such densities, km/s, of the shape of `density`."""
        density = np.maximum(np.asarray(density, np.float64), 1e-30)
        return np.interp(np.log(density), np.log(self.density), self.dispersion)


def samples_of(sources, config, corner=None):
    """What `measure` takes of Simulations or their paths, one after another.

    Those without velocities, or with too few particles to make a field of them, are left out. Raises DataError where
    there are not as many velocities as galaxies.

    corner: lowest cell of a test cube along each axis, whose galaxies are left out, too.
    """
    for source in sources:
        with opened(source, ()) as simulation:
            if any(name not in simulation for name in NEEDED):
                continue
            sparse = data.sparseness(simulation, config.cell, of_particles=True)
            if sparse:
                log.warning(f"{sparse}: how its galaxies move is not measured")
                continue
            density = data.density(simulation, config.cell, deposit=config.deposit)
            field, boxsize = data.velocity(simulation, config.cell), simulation.boxsize
            position, velocity = (simulation[name][...] for name in NEEDED[2:])
        if velocity.shape != position.shape:
            raise DataError(f"{simulation.path}: galaxies/velocity has the shape {velocity.shape}, and "
                            f"galaxies/position {position.shape}")
        if corner is not None:
            kept = ~np.all(np.stack(cells_of(position, boxsize, len(density))) >= corner, axis=0)
            position, velocity = position[kept], velocity[kept]
        yield density, field, boxsize, position, velocity


def measure(samples):
    """The `Motion` of galaxies; None where there are too few to tell.

    samples: (density, velocity of the dark matter, boxsize, positions, velocities of galaxies) of simulations: (n, n,
    n) over the mean, (n, n, n, 3) km/s, Mpc/h, (g, 3) Mpc/h, (g, 3) km/s. Bins of the density with too few galaxies
    are joined with the next ones.
    """
    number, total, square = np.zeros((3, len(EDGES) + 1))
    for density, field, boxsize, position, velocity in samples:
        own = density[cells_of(position, boxsize, len(density))].astype(np.float64)
        away = velocity - interpolate_cic(field, position, boxsize)
        place = np.digitize(own, EDGES)
        number += np.bincount(place, minlength=len(number))
        total += np.bincount(place, own, len(number))
        square += np.bincount(place, np.mean(np.square(away, dtype=np.float64), axis=1), len(number))
    if number.sum() < FEWEST:
        return None
    first, groups = 0, []
    for last in range(1, len(number) + 1):
        if number[first:last].sum() >= FEWEST:
            groups.append(slice(first, last))
            first = last
    groups[-1] = slice(groups[-1].start, len(number))  # with those left over beyond it
    number, total, square = (np.array([values[group].sum() for group in groups]) for values in (number, total, square))
    return Motion(tuple((total / number).tolist()), tuple(np.sqrt(square / number).tolist()))


def cells_of(position, boxsize, gridsize):
    """The cells that points stand in, indices (g,) along each axis, a tuple."""
    return tuple((np.floor(np.asarray(position, np.float64) * (gridsize / boxsize)).astype(int) % gridsize).T)


def draw(position, density, field, boxsize, motion, seed=0):
    """Velocities of galaxies at positions (g, 3), Mpc/h: (g, 3) float32, km/s; the rest is as in `measure`.

    The dark matter's at the place of the galaxy, and a Gaussian one of the `Motion`'s dispersion along each axis.
    """
    rng = np.random.default_rng([seed, 1])  # beside the stream of the positions
    spread = motion.dispersion_at(density[cells_of(position, boxsize, len(density))])
    moving = interpolate_cic(field, position, boxsize) + spread[:, None] * rng.standard_normal(position.shape)
    return moving.astype(np.float32)


def write(motion, folder):
    """Keep a `Motion` in the folder of a phase; nothing where it is None."""
    if motion is not None:
        run_folder.write_json(dataclasses.asdict(motion), folder / FILE)


def read(folder):
    """The `Motion` that a folder keeps, None where it was not measured; raises DamagedError."""
    if not (folder / FILE).exists():
        return None
    try:
        values = json.loads((folder / FILE).read_text())
        found = Motion(*(tuple(float(value) for value in values[name]) for name in ("density", "dispersion")))
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{folder / FILE} does not hold velocities: {error}") from None
    if not len(found.density) == len(found.dispersion) > 0 or not np.all(np.diff([0, *found.density]) > 0) \
            or not np.all(np.asarray(found.dispersion) >= 0):
        raise DamagedError(f"{folder / FILE} does not hold velocities: densities must ascend from above 0, with one "
                           "dispersion each, 0 or more")
    return found
