"""What a network has to beat that sees the same density: gradient-boosted trees on ten numbers of the density.

They are fitted to the end in seconds, cell by cell, with the Poisson likelihood of the number of galaxies, whose best
prediction is the expectation. So they say what a short training leaves undone.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, maximum_filter

from kerasgal.apps.cascade import data
from kerasgal.apps.cascade.scatter import Scatter, measure
from kerasgal.errors import DataError
from kerasgal.plotting import progress
from kerasgal.simulation import opened
from kerasgal.trees import regressor

SMOOTHINGS = (0.5, 1, 2, 4, 8)  # standard deviations, in cells, beside the density as it is
NEIGHBOURHOODS = (3, 5, 7)  # cells a side in whose densest a cell is compared
LEAST = 1e-3  # density, where there is nothing
MISSED = 0.005  # of the occupied cells, which are so empty that no galaxy is expected in their like
TREES, LARGEST = 300, 2_000_000  # trees at most, and cells that they are fitted to
OPTIONS = {"loss": "poisson", "learning_rate": 0.05, "max_leaf_nodes": 31, "min_samples_leaf": 50,
           "l2_regularization": 1.0}


@dataclass(frozen=True)
class Trees:
    """Fitted trees; threshold: of the smoothed density, below which no galaxy is expected; scatter: about them."""

    model: object
    threshold: float
    scatter: Scatter

    def predict(self, density, more=None):
        """Expected numbers of galaxies, (n, n, n) float32, from the density in units of its mean, (n, n, n).

        more: further channels that the trees were fitted to, (n, n, n, channels).
        """
        chosen = smoothed(density) > self.threshold
        field = np.zeros(density.shape, np.float32)
        if chosen.any():
            field[chosen] = self.model.predict(features(density, chosen, more))
        return field


def smoothed(density):
    """The density smoothed by half a cell."""
    return gaussian_filter(density, SMOOTHINGS[0], mode="wrap")


def features(density, chosen, more=None):
    """What the trees read of the cells `chosen`, a boolean (n, n, n): (cells, 10) float32, and further channels.

    Logarithms of the density and of five smoothed ones, those of the smoothed over the densest of the neighbourhood,
    and over the density around it.
    """
    columns = [np.log1p(density[chosen])]
    fine = smoothed(density)
    for width in SMOOTHINGS:
        wide = gaussian_filter(density, width, mode="wrap")[chosen]
        columns.append(np.log1p(wide))
        if width == 2:
            columns.append(np.log((fine[chosen] + LEAST) / (wide + LEAST)))
    for side in NEIGHBOURHOODS:
        columns.append(np.log((fine[chosen] + LEAST) / (maximum_filter(fine, side, mode="wrap")[chosen] + LEAST)))
    if more is not None:
        columns += list(more[chosen].T)
    return np.stack(columns, axis=1).astype(np.float32)


def fit(training, validation, config, more=False):
    """`Trees` fitted to Simulations or their paths; those to validate on end the boosting.

    more: whether they read what a finer grid says of cells, too.

    One that is split by volume, as none is there for validation, is fitted in the sub-cubes of training. Raises
    DataError where scikit-learn is missing, or a simulation.
    """
    model = regressor(TREES, stops=True, seed=config.seed, **OPTIONS)

    def load(source):
        with opened(source, ()) as simulation:
            return *data.load(simulation, config), data.within_cells(simulation, config.cell) if more else None

    fields = [load(source) for source in training]
    if validation:
        inside, apart = ([(density, counts, np.ones(density.shape, bool), finer) for density, counts, finer in boxes]
                         for boxes in (fields, [load(source) for source in validation]))
    else:
        [(density, counts, finer)] = fields
        first, held_out, _ = data.split_by_volume(len(density), config.patch)
        inside, apart = ([(density, counts, cubes(len(density), corners, config.patch), finer)] for corners in
                         (first, held_out))
    return fitted(model, inside, apart, config.seed)


def fitted(model, inside, apart, seed=0):
    """`Trees` of a regressor; inside, apart: lists of (density, counts, cells that belong to it), (n, n, n) each, and
    maybe further channels, (n, n, n, channels)."""
    found = np.concatenate([smoothed(density)[cells & (counts > 0)] for density, counts, cells, *_ in inside])
    threshold = float(np.quantile(found, MISSED))

    def samples(boxes):
        inputs, targets = [], []
        for density, counts, cells, *more in boxes:
            chosen = cells & (smoothed(density) > threshold)
            inputs.append(features(density, chosen, *more))
            targets.append(counts[chosen])
        inputs, targets = np.concatenate(inputs), np.concatenate(targets)
        if len(targets) > LARGEST:
            kept = np.random.default_rng(seed).choice(len(targets), LARGEST, replace=False)
            inputs, targets = inputs[kept], targets[kept]
        return inputs, targets

    held_inputs, held_targets = samples(apart)
    if not held_targets.any():
        raise DataError("no galaxy to validate trees on")
    with progress("fitting boosted trees"):
        model.fit(*samples(inside), X_val=held_inputs, y_val=held_targets)
    return Trees(model, threshold, measure(model.predict(held_inputs), held_targets))


def cubes(gridsize, corners, side):
    """The cells of sub-cubes, a boolean (n, n, n); corners: flat indices of their lowest cells."""
    inside = np.zeros((gridsize,) * 3, bool)
    for x, y, z in zip(*np.unravel_index(corners, inside.shape)):
        inside[x:x + side, y:y + side, z:z + side] = True
    return inside
