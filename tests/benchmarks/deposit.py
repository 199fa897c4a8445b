"""What it buys boosted trees to see the density by triangular-shaped clouds, or of eight times the particles.

    kerasgal simulate FOLDER/train.h5 --galaxies --particles 128 --realisations 5 --seed 1
    kerasgal simulate FOLDER/test.h5 --galaxies --particles 128 --realisations 4 --seed 3001
    python tests/benchmarks/deposit.py FOLDER [--fine]

Cells are those of the demo of cascade. With the boxes of 50 Mpc/h above, one particle for each cell; with --boxsize 25
eight, and with --fine also one of the eight, every second along each axis of the lattice that they started from: the
same galaxies, whose density is seen with fewer particles. Trees are fitted to all boxes train_0, train_1, ... but the
last, at which they end. Each line is the mean over the test boxes, and its error; then the mean difference to the first
line, whose error is the smaller, for the boxes are the same.
"""

import argparse
import time
from pathlib import Path

import numpy as np

from kerasgal.apps.cascade import data, metrics, scatter, trees
from kerasgal.apps.cascade.config import TrainConfig
from kerasgal.apps.cascade.evaluate import LOSS_CELLS, overdensity
from kerasgal.config import preset
from kerasgal.grid import density_contrast
from kerasgal.simulation import Simulation
from kerasgal.statistics import power_spectrum
from kerasgal.trees import regressor

CONFIG = preset(TrainConfig, "demo")
RULERS = "Eq. 2", "P as it is", "P, k<1", "P, k>1", "P_xy/P_xx, k>1"


def load(path, deposit, every):
    """Density by one of the deposits, of every so many particles along an axis, counts of galaxies, and boxsize."""
    with Simulation(path) as simulation:
        n = len(simulation["halo_id"])
        position = simulation["final/position"][...].reshape(n, n, n, 3)[::every, ::every, ::every].reshape(-1, 3)
        gridsize = data.gridsize_of(path, simulation.boxsize, CONFIG.cell)
        density = 1 + density_contrast(position, gridsize, simulation.boxsize, deposit)
        return density, data.galaxy_counts(simulation, CONFIG.cell), simulation.boxsize, len(position) / gridsize**3


def judged(fitted, density, counts, boxsize):
    """The numbers of RULERS, as `kerasgal cascade evaluate` has them."""
    expected = fitted.predict(density)
    k, true, _ = power_spectrum(overdensity(counts), boxsize)
    raw = power_spectrum(overdensity(expected), boxsize)[1]
    noisy = raw + scatter.shot_noise(expected, boxsize, fitted.scatter)
    away = metrics.by_scale(k, np.abs(noisy / true - 1))
    calibration = metrics.by_scale(k, np.abs(metrics.calibration(expected, counts, boxsize)[1] - 1))
    return [np.mean(np.square(expected - counts), dtype=float) * LOSS_CELLS, np.mean(np.abs(raw / true - 1)),
            away["large"], away["small"], calibration["small"]]


def measure(folder, deposit, every):
    """Numbers of the test boxes, (boxes, rulers), particles for each cell, and CPU seconds of the fit."""
    boxes = [load(path, deposit, every) for path in sorted(folder.glob("train_?.h5"))]
    start = time.process_time()
    everywhere = [(density, counts, np.ones(counts.shape, bool)) for density, counts, _, _ in boxes]
    fitted = trees.fitted(regressor(trees.TREES, stops=True, seed=CONFIG.seed, **trees.OPTIONS), everywhere[:-1],
                          everywhere[-1:], CONFIG.seed)
    seconds = time.process_time() - start
    found = []
    for path in sorted(folder.glob("test_?.h5")):
        density, counts, boxsize, _ = load(path, deposit, every)
        found.append(judged(fitted, density, counts, boxsize))
    return np.array(found), boxes[0][3], seconds


def words(values, percent):
    mean, error = values.mean(axis=0), values.std(axis=0, ddof=1) / np.sqrt(len(values))
    return f"{100 * mean:.1f}% +- {100 * error:.1f}" if percent else f"{mean:.2f} +- {error:.2f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--fine", action="store_true", help="Also with every second particle along each axis.")
    options = parser.parse_args()
    first = None
    for every in (2, 1) if options.fine else (1,):
        for deposit in ("cic", "tsc"):
            found, particles, seconds = measure(options.folder, deposit, every)
            first = found if first is None else first
            print(f"{deposit}, {particles:g} particles for each cell; {len(found)} boxes, fit of {seconds:.0f} CPU s",
                  flush=True)
            for place, name in enumerate(RULERS):
                print(f"  {name:16s}{words(found[:, place], place > 0):>20s}"
                      f"{words(found[:, place] - first[:, place], place > 0):>22s}", flush=True)


if __name__ == "__main__":
    main()
