"""What cells really hold where the network expects so much: its estimate, put right by fields of which all is known.

A network whose training ended early finds some hundredths of a galaxy in empty cells, and too little in the others:
together that is the right number, but what lies scattered over thousands of cells never becomes a galaxy. The mean
number in cells of one estimate is the better estimate (isotonic regression: Zadrozny & Elkan 2002, KDD, 694).
"""

import dataclasses
import json
import math
from dataclasses import dataclass

import numpy as np
from keras import ops

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


@dataclass(frozen=True, eq=False)
class Calibration:
    """Mean of the field where the network expects so much, for several noises; between them all is linear.

    gammas: (k,), falling; expected: (e,), rising; true: (k, e). Below the first of what is expected the mean is that
    of the first, above the last it is as far from it as there.
    """

    gammas: np.ndarray
    expected: np.ndarray
    true: np.ndarray

    def __call__(self, field, gamma):
        """The mean where the network expects `field`, an array or a tensor of any shape, at the noise gamma."""
        true = [np.interp(-gamma, -self.gammas, values) for values in self.true.T]
        slopes = [0, *(np.diff(true) / np.diff(self.expected)), 1]
        mean = float(true[0])
        for start, bend in zip(self.expected, np.diff(slopes)):  # a sum of ramps, which arrays and tensors have alike
            mean = mean + float(bend) * ops.relu(field - float(start))
        return mean


def measure(find, model, config, samples, seed=0):
    """The `Calibration` of a `VariationalDiffusion` by fields of known galaxies, which are noised.

    find: function of a map's or box's density and of parameters to what `sample.finding` returns. samples: lists of
    those of `train.load`, of the training and of the validation: what was not trained on is worth more, but one
    simulation has few rich clusters. None where there are too few cells to tell.
    """
    gammas = np.asarray(model.schedule(np.linspace(1, 0, STEPS + 1, dtype=np.float32))[0])
    alpha, sigma = np.float32([vdm.parts(gamma) for gamma in gammas]).T
    # At once, or for boxes, which are large, one by one.
    parts = [slice(None)] if config.dimensions == 2 else [slice(place, place + 1) for place in range(len(gammas))]
    sums, rng = np.zeros((len(gammas), 3, len(EDGES) + 1)), np.random.default_rng(seed)
    for density, parameters, field in [field for several in samples for field in fields_of(several, config)]:
        denoise, noised = find(density, parameters), np.asarray(model.noised(field))[..., None]
        for part in parts:
            noise = rng.standard_normal((*field.shape, len(gammas[part])), np.float32)
            z = alpha[part] * noised + sigma[part] * noise
            expected = model.field_of((z - sigma[part] * denoise(z, gammas[part])) / alpha[part])
            sums[part] += [sums_of(values.ravel(), field.ravel()) for values in np.moveaxis(expected, -1, 0)]
    lines = [line(*row) for row in sums]
    if any(means is None for means in lines):
        return None
    return Calibration(gammas, np.append(EDGES, SAME), np.array(lines))


def fields_of(samples, config):
    """(density, parameters, field) of CELLS of `train.load`'s samples, maps or boxes that lie evenly among all."""
    maps = [(sample, number) for sample in samples
            for number in range(1 if config.dimensions == 3 else sample[2].shape[-1])]
    most = max(1, CELLS // math.prod(samples[0][2].shape[:config.dimensions])) if maps else 0
    for place in np.linspace(0, len(maps) - 1, min(most, len(maps))).astype(int):
        (density, parameters, target), number = maps[place]
        if config.dimensions == 3:  # which may lie in a scratch file
            yield np.asarray(density), parameters, np.asarray(target)[..., 0]
        else:
            yield density[:, :, number], parameters, np.float32(field_of(target[..., number], config.field))


def sums_of(expected, true):
    """Of cells between EDGES of what is expected: their number, and the sums of what is expected and is true."""
    place = np.digitize(expected, EDGES)
    return [np.bincount(place, values, minlength=len(EDGES) + 1) for values in (np.ones(len(true)), expected, true)]


def line(cells, expected, true):
    """True means at EDGES and SAME by `sums_of`, made to rise; None where too few cells are known."""
    from sklearn.isotonic import IsotonicRegression

    known = (cells >= FEWEST) & (np.arange(len(cells)) < len(EDGES))
    if known.sum() < 2:
        return None
    x, y = (values[known] / cells[known] for values in (expected, true))
    y = np.minimum(IsotonicRegression().fit(x, y, cells[known]).predict(x), SAME)
    return np.interp(np.append(EDGES, SAME), np.append(x, SAME), np.append(y, SAME))


def write(calibration, folder):
    """Keep a `Calibration` in a run folder."""
    values = dataclasses.asdict(calibration)
    run_folder.write_json({name: np.round(array, 6).tolist() for name, array in values.items()}, folder / FILE)


def read(folder):
    """The `Calibration` that a run folder keeps, None where it was not measured; raises DamagedError."""
    if not (folder / FILE).exists():
        return None
    try:
        values = json.loads((folder / FILE).read_text())
        found = Calibration(*(np.array(values[name], float) for name in ("gammas", "expected", "true")))
        rising = all(axis.ndim == 1 and len(axis) and np.all(np.diff(axis) > 0)
                     for axis in (-found.gammas, found.expected))
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"{folder / FILE} does not hold a calibration: {error}") from None
    if not rising or found.true.shape != (len(found.gammas), len(found.expected)) or np.isnan(found.true).any():
        raise DamagedError(f"{folder / FILE} does not hold a calibration: for each of falling gammas there must be a "
                           "mean for each of rising estimates")
    return found
