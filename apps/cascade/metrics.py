"""How well occupied cells are found and galaxies counted (Yip et al. 2019, Secs. 3 and 4)."""

import numpy as np

from kerasgal.errors import DataError
from kerasgal.statistics import power_spectrum

SPLIT = 1.0  # h/Mpc: larger scales, which surveys measure, and smaller ones are averaged apart
# Edges of bins in which galaxies are counted: of the expected number in a cell, and of the density over its mean
EXPECTED_EDGES = np.array([0, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, np.inf])
DENSITY_EDGES = np.array([0, 1, 3, 10, 30, 100, 300, 1000, np.inf])


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


def calibration(expected, true, boxsize):
    """Cross spectrum of expected and true numbers over the spectrum of the expected ones, by scale: (k, ratio).

    expected, true: (n, n, n); boxsize: Mpc/h. 1 at all scales for a conditional mean, whatever the galaxies' scatter
    about it; below 1 where it expects too much of a contrast, above where too little. NaN where the field has no power.
    """
    first, second = (np.asarray(field, np.float64) - np.mean(field, dtype=np.float64) for field in (expected, true))
    k, cross, _ = power_spectrum(first, boxsize, cross=second)
    own = power_spectrum(first, boxsize)[1]
    with np.errstate(invalid="ignore", divide="ignore"):
        return k, np.where(own > 0, cross / own, np.nan)


def by_scale(k, values):
    """Means of `values`, (bins,), over scales larger than SPLIT, over smaller ones and over all; None without any."""
    values = np.asarray(values, float)

    def mean(chosen):
        known = chosen & np.isfinite(values)
        return float(values[known].mean()) if known.any() else None

    return {"large": mean(k < SPLIT), "small": mean(k >= SPLIT), "all": mean(k > 0)}


def counts_in_bins(values, edges, expected, true):
    """Cells, expected and true galaxies in bins of `values`: (3, bins); all fields of one shape."""
    place = np.clip(np.digitize(np.ravel(values), edges) - 1, 0, len(edges) - 2)
    return np.stack([np.bincount(place, None if weight is None else np.ravel(weight).astype(np.float64),
                                 minlength=len(edges) - 1) for weight in (None, expected, true)])


def misplaced(table):
    """Share of galaxies that are expected in the wrong bin or not at all, from `counts_in_bins`; 0 is best."""
    _, expected, true = table
    return float(np.abs(expected - true).sum() / true.sum()) if true.sum() else None
