"""What Eq. 2 can be where all is known of the haloes but where exactly their centres are.

    python tests/benchmarks/centres.py demo-cascade/test_0.h5 demo-cascade/test_1.h5 ...

The rule that painted the galaxies is given every halo, its mass, environment and shape, and for its centre a guess
that is off by a normal deviate; its prediction is then the mean over all centres that may be, given the guess. Each
line is a standard deviation along each axis and the error of such a prediction, the mean and its error over the
boxes. Then how far a guess from the density on the grid is off: the centroid of the 27
cells about the densest cell near the centre, in haloes that have a galaxy with a chance of a tenth or more.
"""

import sys
from dataclasses import replace

import numpy as np

from kerasgal.apps.cascade import baseline, data
from kerasgal.apps.cascade.config import TrainConfig
from kerasgal.apps.cascade.evaluate import LOSS_CELLS
from kerasgal.config import preset
from kerasgal.grid import density_contrast
from kerasgal.simulation import Simulation

CONFIG = preset(TrainConfig, "demo")
SPREADS = 0.0, 0.025, 0.05, 0.1  # Mpc/h
PLACES = 40  # that a centre may have, over which the prediction is averaged


def load(path):
    """A painting, the numbers of galaxies in cells that were drawn from it, and the density in the same cells."""
    with Simulation(path) as simulation:
        painting, why = baseline.painting(simulation)
        if why:
            sys.exit(why)
        counts = data.galaxy_counts(simulation, CONFIG.cell)
        return painting, counts, density_contrast(simulation["final/position"][...], len(counts), simulation.boxsize)


def error(painting, counts, guess, spread, rng):
    """The squared error of the mean number of galaxies in cells where centres are normal about a guess."""
    fields = np.array([replace(painting, centre=guess + rng.normal(0, spread, guess.shape)).expected(
        len(counts), samples=3, seed=number) for number in range(PLACES)])
    by_chance = fields.var(axis=0, ddof=1) / PLACES  # since the mean is of so many fields alone
    return np.mean(np.square(fields.mean(axis=0) - counts) - by_chance, dtype=float) * LOSS_CELLS


def guessed(painting, delta):
    """Offsets, (m, 3) in Mpc/h, of centres from the centroid of the densest cell near them and its 26 neighbours."""
    n = len(delta)
    cell, rich = painting.boxsize / n, painting.central > 0.1
    near = np.stack(np.meshgrid(*[np.arange(-1, 2)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    centre = painting.centre[rich] / cell
    around = np.floor(centre).astype(int)[:, None] + near
    density = 1 + delta[tuple(np.moveaxis(around % n, -1, 0))]
    densest = np.take_along_axis(around, density.argmax(axis=1)[:, None, None], axis=1)[:, 0]
    around = densest[:, None] + near
    weight = 1 + delta[tuple(np.moveaxis(around % n, -1, 0))][..., None]
    centroid = np.sum(weight * (around + 0.5), axis=1) / weight.sum(axis=1)
    return cell * (centroid - centre), painting.central[rich] * (1 + painting.satellites[rich])


def main(paths):
    boxes, rng = [load(path) for path in paths], np.random.default_rng(0)
    for spread in SPREADS:
        found = []
        for painting, counts, _ in boxes:
            guess = painting.centre + rng.normal(0, spread, painting.centre.shape)
            found.append(error(painting, counts, guess, spread, rng))
        scatter = np.std(found, ddof=1) / np.sqrt(len(found))
        print(f"centres known to {spread:.3f} Mpc/h: Eq. 2 {np.mean(found):.1f} +- {scatter:.1f}", flush=True)
    offset, galaxies = (np.concatenate(parts) for parts in zip(*(guessed(box[0], box[2]) for box in boxes)))
    offset -= np.average(offset, axis=0, weights=galaxies)
    rms = np.sqrt(np.average(np.mean(offset**2, axis=1), weights=galaxies))
    typical = np.median(np.abs(offset)) / 0.6745
    print(f"a centroid on the grid is off by {rms:.3f} Mpc/h along an axis (rms by galaxies; {typical:.3f} from the "
          f"median), a cell is {CONFIG.cell:.3f}")


if __name__ == "__main__":
    main(sys.argv[1:])
