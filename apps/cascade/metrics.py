"""How well occupied cells are found and galaxies counted (Yip et al. 2019, Secs. 3 and 4)."""

import numpy as np

from kerasgal.errors import DataError


def confusion(score, occupied, thresholds):
    """Accuracy, recall, precision and gain of calling cells with score > threshold occupied, a dictionary of arrays.

    score, occupied (boolean): (cells,) or any equal shape; thresholds: (m,). `gain` is how many times more cells are
    occupied among those called so than in the whole: how many times the sparsity falls. Precision and gain are NaN
    where no cell is called occupied.
    """
    thresholds = np.asarray(thresholds)
    true, false = (np.sort(score[chosen].ravel()) for chosen in (occupied, ~occupied))
    if not len(true):
        raise DataError("no cell is occupied: recall and precision are undefined")
    hits = len(true) - np.searchsorted(true, thresholds, side="right")
    alarms = len(false) - np.searchsorted(false, thresholds, side="right")
    with np.errstate(invalid="ignore"):
        precision = hits / (hits + alarms)
    return {"threshold": thresholds, "accuracy": (hits + len(false) - alarms) / occupied.size,
            "recall": hits / len(true), "precision": precision, "gain": precision * occupied.size / len(true)}


def threshold_at_recall(score, occupied, recall):
    """The greatest threshold such that at least the fraction `recall` of the occupied cells scores above it."""
    true = np.sort(score[occupied])[::-1]
    last = true[int(np.ceil(recall * len(true))) - 1]
    return np.nextafter(last, last.dtype.type(-np.inf))


def sums_in_cubes(field, side):
    """Sums of a field, (n, n, n) or of a map (n, n), over its sub-cubes of `side` cells; what does not divide is left
    out."""
    count = len(field) // side
    if not count:
        raise DataError(f"a grid of {len(field)} cells holds no sub-cube of {side}")
    field = field[(slice(count * side),) * field.ndim].reshape((count, side) * field.ndim)
    return field.sum(axis=tuple(range(1, field.ndim, 2)), dtype=np.float64)


def squared_error_in_cubes(predicted, true, side):
    """MSE_sub: the mean squared error of the number of galaxies in sub-cubes of `side` cells."""
    return float(np.mean((sums_in_cubes(predicted, side) - sums_in_cubes(true, side))**2))


def mean_residual(predicted, true):
    """Mean over bins of |predicted / true - 1|, e.g. of power spectra; bins that are NaN or zero are left out."""
    known = np.isfinite(predicted) & np.isfinite(true) & (true != 0)
    return float(np.mean(np.abs(predicted[known] / true[known] - 1))) if known.any() else None
