"""What cells really hold where the network expects so much: its estimate, put right by fields of which all is known.

A network whose training ended early finds some hundredths of a galaxy in empty cells, and too little in the others:
together that is the right number, but what lies scattered over thousands of cells never becomes a galaxy. The mean
number in cells of one estimate is the better estimate (isotonic regression: Zadrozny & Elkan 2002, KDD, 694).
"""

import dataclasses
import json
from dataclasses import dataclass

import numpy as np

from kerasgal import run_folder
from kerasgal.apps.cascade.diffusion import vdm
from kerasgal.apps.cascade.diffusion.counts import field_of
from kerasgal.errors import DamagedError

FILE = "calibration.json"  # in the run folder
STEPS = 17  # from time 1 to 0 between the noises at which it is measured
CELLS = 2**18  # of the training, and of the validation, that it is measured in at most; one map or box at least
FEWEST = 50  # cells that a mean is taken of
# Of the estimate, in units of the first galaxy, where none and one are told apart.
EDGES = np.array([-0.1, -0.05, -0.03, -0.02, -0.01, 0, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6,
                  0.7, 0.8, 0.9, 1])
# From here on estimates stay as they are: rich cells are few, and what a few clusters have too much or too little would
# be put into all others, in every step again.
SAME = 1.5


@dataclass(frozen=True)
class Calibration:
    """Mean of the field against what the network expects, for several noises.

    gammas: tuple of falling numbers; expected, true: for each a tuple, both rising. Between them all is linear; above
    the last the field is in proportion to what is expected.
    """

    gammas: tuple
    expected: tuple
    true: tuple

    def lines(self, gamma):
        """(expected, true, weight) of the one or two noises between which gamma lies."""
        place = float(np.interp(-gamma, -np.array(self.gammas), np.arange(len(self.gammas))))
        first, share = int(place), place - int(place)
        return [(np.array(self.expected[row]), np.array(self.true[row]), weight)
                for row, weight in ((first, 1 - share), (first + 1, share)) if weight > 1e-6]

    def __call__(self, field, gamma):
        """The mean of the field, of any shape, where the network expects it to be `field` at the noise gamma."""
        result = 0
        for expected, true, weight in self.lines(gamma):
            mean = np.interp(field, expected, true)
            result = result + weight * np.where(field > expected[-1], field * (true[-1] / expected[-1]), mean)
        return np.asarray(result, np.float32)


def measure(find, model, config, samples, seed=0):
    """The `Calibration` of a `VariationalDiffusion` by fields of known galaxies, which are noised.

    find: function of a map's or box's density and of parameters to what `sample.finding` returns. samples: lists of
    those of `train.load`, of the training and of the validation: what was not trained on is worth more, but one
    simulation has few rich clusters. None where there are too few cells to tell.
    """
    gammas, _ = model.schedule(np.linspace(1, 0, STEPS + 1, dtype=np.float32))
    places, rng = np.asarray(gammas).tolist(), np.random.default_rng(seed)
    found, true = [[] for _ in places], []
    for density, parameters, field in [field for several in samples for field in fields_of(several, config)]:
        denoise = find(density, parameters)
        noised = np.asarray(model.noised(field))
        true.append(field.ravel())
        for rows, gamma in zip(found, places):
            alpha, sigma = vdm.parts(gamma)
            z = (alpha * noised + sigma * rng.standard_normal(field.shape, np.float32))[..., None]
            rows.append(np.ravel(model.field_of((z - sigma * denoise(z, gamma)) / alpha)))
    true = np.concatenate(true)
    lines = [means(np.concatenate(rows), true) for rows in found]
    if any(line is None for line in lines):
        return None
    return Calibration(tuple(places), *(tuple(tuple(values.tolist()) for values in side) for side in zip(*lines)))


def fields_of(samples, config):
    """(density, parameters, field) of CELLS of `train.load`'s samples, maps or boxes that lie evenly among all."""
    maps = [(sample, number) for sample in samples
            for number in range(1 if config.dimensions == 3 else sample[0].shape[-1])]
    most = max(1, CELLS // samples[0][0][..., 0].size) if maps else 0
    for place in np.linspace(0, len(maps) - 1, min(most, len(maps))).astype(int):
        (density, parameters, target), number = maps[place]
        field = target if config.dimensions == 3 else field_of(target, config.field)
        yield density[..., number], parameters, np.asarray(field[..., number], np.float32)


def means(expected, true):
    """Means of both in bins of what is expected, those of the truth made to rise, and SAME; None for too few cells."""
    from sklearn.isotonic import IsotonicRegression

    place = np.digitize(expected, EDGES)
    cells, *sums = (np.bincount(place, values, minlength=len(EDGES) + 1) for values in
                    (np.ones(len(true)), expected, true))
    known = (cells >= FEWEST) & (np.arange(len(cells)) < len(EDGES))
    if known.sum() < 2:
        return None
    x, y = (values[known] / cells[known] for values in sums)
    y = np.minimum(IsotonicRegression().fit(x, y, cells[known]).predict(x), SAME)
    return np.append(x, SAME), np.append(y, SAME)


def write(calibration, folder):
    """Keep a `Calibration` in a run folder."""
    run_folder.write_json(dataclasses.asdict(calibration), folder / FILE)


def read(folder):
    """The `Calibration` that a run folder keeps, None where it was not measured; raises DamagedError."""
    if not (folder / FILE).exists():
        return None
    try:
        values = json.loads((folder / FILE).read_text())
        gammas = tuple(map(float, values["gammas"]))
        sides = [tuple(tuple(map(float, row)) for row in values[name]) for name in ("expected", "true")]
        rising = all(np.all(np.diff(row) > 0) for row in (*sides[0], [-gamma for gamma in gammas]))
        alike = [*map(len, sides[0])] == [*map(len, sides[1])] and len(sides[0]) == len(gammas) > 0
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{folder / FILE} does not hold a calibration: {error}") from None
    if not rising or not alike or not all(sides[0]):
        raise DamagedError(f"{folder / FILE} does not hold a calibration: for each of falling gammas, estimates must "
                           "rise, with one mean each")
    return Calibration(gammas, *sides)
