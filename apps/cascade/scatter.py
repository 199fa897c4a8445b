"""Whole galaxies drawn from a field of expected numbers, with the scatter that the numbers really have.

A cell of a halo's centre has one galaxy or none: its number scatters less than a Poisson one of the same mean. What
scatters, and what a spectrum's shot noise is made of, is the variance of the number given the expectation. It is given
as its ratio to the mean (Fano factor): 1 for Poisson numbers.
"""

import dataclasses
import json
from dataclasses import dataclass

import numpy as np

from kerasgal import run_folder
from kerasgal.errors import DamagedError

FILE = "scatter.json"  # of phase 2, in its folder: what its expectations scatter by
EDGES = np.geomspace(1e-3, 100, 21)  # of the expected numbers in which `measure` looks
FEWEST = 30  # galaxies that a ratio is measured from


@dataclass(frozen=True)
class Scatter:
    """Variance over mean of the number of galaxies in a cell, against the mean.

    mean, ratio: tuples of the same length, in ascending order of the mean; between them the ratio is interpolated in
    the logarithm of the mean. Where a ratio is less than whole numbers can have as `draw` makes them, the least is
    taken: a galaxy with the probability min(1, mean), and a Poisson number for what is above 1.
    """

    mean: tuple
    ratio: tuple

    def ratio_at(self, expected):
        """The ratio where so many galaxies are expected, of the shape of `expected`."""
        expected = np.maximum(np.asarray(expected, np.float64), 1e-30)
        ratio = np.interp(np.log(expected), np.log(self.mean), self.ratio)
        return np.maximum(ratio, 1 - np.minimum(expected, 1)**2 / expected)

    def variance(self, expected):
        """The variance of the number where so many galaxies are expected."""
        return expected * self.ratio_at(expected)


POISSON = Scatter((1.0,), (1.0,))  # what is taken where nothing was measured


def measure(expected, counts):
    """The `Scatter` of galaxies about a field of expected numbers; POISSON where there are too few to tell.

    expected, counts: (n, n, n), of simulations that the field's maker did not see. In each bin of the expectation the
    variance is about that of its own mean: an expectation that is too high by a tenth is no scatter. Cells where next
    to nothing is expected are left out.
    """
    chosen = np.asarray(expected) >= EDGES[0]
    expected, counts = expected[chosen].astype(np.float64), counts[chosen].astype(np.float64)
    place = np.digitize(expected, EDGES)
    total, true = (np.bincount(place, values, minlength=len(EDGES) + 1) for values in (expected, counts))
    factor = true / np.maximum(total, 1e-30)
    square = np.bincount(place, (counts - factor[place] * expected)**2, minlength=len(EDGES) + 1)
    cells = np.bincount(place, minlength=len(EDGES) + 1)
    known = np.flatnonzero(true >= FEWEST)
    if not len(known):
        return POISSON
    return Scatter(tuple((total[known] / cells[known]).tolist()), tuple((square[known] / true[known]).tolist()))


def draw(expected, rng, scatter):
    """Numbers of galaxies drawn for cells, each by itself, with the mean `expected` and the variance of a `Scatter`.

    expected: (n, n, n); rng: a NumPy generator. Below a ratio of 1 a galaxy that is there or not and a Poisson number,
    as of a halo with a central galaxy and satellites; above it negative binomial numbers, as of haloes of which it is
    not known how rich they are. Returns float32 of the same shape.
    """
    expected = np.asarray(expected, np.float64)
    drawn = np.zeros(expected.shape, np.float32)
    filled = expected > 0
    mean = expected[filled]
    ratio = scatter.ratio_at(mean)
    sure = np.minimum(np.sqrt(mean * np.maximum(1 - ratio, 0)), np.minimum(mean, 1))
    number = (rng.random(len(mean)) < sure) + rng.poisson(mean - sure)
    wide = ratio > 1 + 1e-6
    number[wide] = rng.negative_binomial(mean[wide] / (ratio[wide] - 1), 1 / ratio[wide])
    drawn[filled] = number
    return drawn


def within(cells, shape, boxsize, rng):
    """Positions, (g, 3) float32, that fall evenly within cells, flat indices (g,) of a grid of that shape."""
    cell = np.stack(np.unravel_index(cells, shape), axis=1)
    return ((cell + rng.uniform(size=cell.shape)) * (boxsize / shape[0])).astype(np.float32)


def shot_noise(expected, boxsize, scatter):
    """What the scatter adds to the power spectrum of a field of expected numbers, (Mpc/h)^3; 1/n for Poisson numbers.

    Cells are drawn by themselves, so that the power of their deviations is flat: V sum(variance) / (sum mean)^2.
    """
    expected = np.asarray(expected, np.float64)
    total = expected.sum()
    return float(boxsize**3 * scatter.variance(expected).sum() / total**2) if total > 0 else 0.0


def write(scatter, folder):
    """Keep a `Scatter` in the folder of a phase."""
    run_folder.write_json(dataclasses.asdict(scatter), folder / FILE)


def read(folder):
    """The `Scatter` that a folder keeps, None where it was not measured; raises DamagedError."""
    if not (folder / FILE).exists():
        return None
    try:
        values = json.loads((folder / FILE).read_text())
        found = Scatter(*(tuple(float(value) for value in values[name]) for name in ("mean", "ratio")))
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{folder / FILE} does not hold a scatter: {error}") from None
    if not len(found.mean) == len(found.ratio) > 0 or not np.all(np.diff([0, *found.mean]) > 0):
        raise DamagedError(f"{folder / FILE} does not hold a scatter: means must ascend from above 0, one ratio each")
    return found
