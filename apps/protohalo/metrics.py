"""How well predicted haloes match the true ones: per mass bin, cell by cell, and object by object."""

from dataclasses import dataclass

import numpy as np

FEWEST = 20  # true haloes in a bin that its residual is quoted for


def normalised_l1(true, predicted):
    """sum |g - p| / sum g of two maps of the same shape: the loss of the paper on a whole box."""
    return float(np.abs(true - predicted).sum(dtype=np.float64) / true.sum(dtype=np.float64))


def mass_function_residual(true_mass, predicted_mass, edges):
    """Counts per mass bin and how far the prediction is off, as a dictionary.

    true, predicted: (bins,) counts.  residual: (predicted - true) / true, None in bins without true haloes.
    summed_residual: sum |predicted - true| / sum true over the bins with at least 20 true haloes.
    mean_absolute_residual: mean of |residual| over these bins.  total: predicted over true number, all masses.
    """
    true, predicted = np.histogram(true_mass, edges)[0], np.histogram(predicted_mass, edges)[0]
    rich = true >= FEWEST
    difference = np.abs(predicted - true)
    residual = [float((p - t) / t) if t else None for p, t in zip(predicted, true)]
    return {"true": true.tolist(), "predicted": predicted.tolist(), "residual": residual,
            "summed_residual": float(difference[rich].sum() / true[rich].sum()) if rich.any() else None,
            "mean_absolute_residual": float((difference[rich] / true[rich]).mean()) if rich.any() else None,
            "total": float(len(predicted_mass) / len(true_mass))}


def residual_by_chance(true_mass, predicted_mass, edges):
    """What the residuals of a prediction would be that is right on average, but scatters from box to box as this one.

    true_mass, predicted_mass: of each box, (haloes,). Of a bin's sum over boxes the scatter of predicted less true
    counts says the deviation; a normal number of that and mean zero is sqrt(2 / pi) of it away from zero on average.
    summed_residual_by_chance, mean_absolute_residual_by_chance: see `mass_function_residual`; None for a single box.
    """
    true, predicted = (np.array([np.histogram(masses, edges)[0] for masses in each])
                       for each in (true_mass, predicted_mass))
    total = true.sum(axis=0)
    rich = total >= FEWEST
    if len(true) == 1 or not rich.any():
        return {"summed_residual_by_chance": None, "mean_absolute_residual_by_chance": None}
    expected = np.sqrt(2 / np.pi * len(true) * (predicted - true).var(axis=0, ddof=1))
    return {"summed_residual_by_chance": float(expected[rich].sum() / total[rich].sum()),
            "mean_absolute_residual_by_chance": float((expected[rich] / total[rich]).mean())}


def cell_masses(true_id, predicted_id, true_mass, predicted_mass):
    """Mass of the halo that each cell ends in, true and predicted, for cells that are in a halo in both: two (c,)."""
    both = (true_id >= 0) & (predicted_id >= 0)
    return np.asarray(true_mass)[true_id[both]], np.asarray(predicted_mass)[predicted_id[both]]


@dataclass
class Matching:
    """Which predicted halo is which true one, by the cells they share.

    pairs: rows of the two that each hold more than half of the other's cells, (pairs, 2), so that none is in two pairs.
    iou: shared cells over cells of either, (pairs,).
    merged: true haloes of which a predicted one holds more than half, (predicted,): two or more are a false merge.
    split: predicted haloes of which a true one holds more than half, (true,): two or more are a false split.
    """

    pairs: np.ndarray
    iou: np.ndarray
    merged: np.ndarray
    split: np.ndarray


def match(true_id, predicted_id, true_count, predicted_count):
    """The `Matching` of two label volumes, -1 for none, whose labels are rows below these counts."""
    true, predicted, shared = shared_cells(true_id, predicted_id)
    of_true = np.bincount(true_id[true_id >= 0], minlength=true_count)[true]
    of_predicted = np.bincount(predicted_id[predicted_id >= 0], minlength=predicted_count)[predicted]
    holds_true, holds_predicted = 2 * shared > of_true, 2 * shared > of_predicted
    pair = holds_true & holds_predicted
    return Matching(np.stack([true[pair], predicted[pair]], axis=1),
                    (shared / (of_true + of_predicted - shared))[pair],
                    np.bincount(predicted[holds_true], minlength=predicted_count),
                    np.bincount(true[holds_predicted], minlength=true_count))


def objects(matchings, true_mass, predicted_mass, edges):
    """Numbers of the matchings of several boxes, a dictionary; true_mass, predicted_mass: of each box, by row.

    completeness, purity: shares of the true and of the predicted haloes that are in a pair, None without any;
    completeness_by_mass, purity_by_mass: in bins of the mass of each.  merges, splits: numbers of false ones.
    median_iou, mass_offset_dex, mass_scatter_dex: median IoU of the pairs, and of log10 predicted over true mass the
    median and the standard deviation, None without pairs.
    """
    found = [(np.isin(np.arange(len(true)), one.pairs[:, 0]), np.isin(np.arange(len(predicted)), one.pairs[:, 1]))
             for one, true, predicted in zip(matchings, true_mass, predicted_mass)]
    of_true, of_predicted = (np.concatenate(part) for part in zip(*found))
    ratio = np.concatenate([np.log10(predicted[one.pairs[:, 1]] / true[one.pairs[:, 0]])
                            for one, true, predicted in zip(matchings, true_mass, predicted_mass)])
    iou = np.concatenate([one.iou for one in matchings])
    return {"pairs": len(iou), "completeness": share(of_true), "purity": share(of_predicted),
            "completeness_by_mass": shares(of_true, np.concatenate(true_mass), edges),
            "purity_by_mass": shares(of_predicted, np.concatenate(predicted_mass), edges),
            "merges": int(sum((one.merged > 1).sum() for one in matchings)),
            "splits": int(sum((one.split > 1).sum() for one in matchings)),
            "median_iou": float(np.median(iou)) if len(iou) else None,
            "mass_offset_dex": float(np.median(ratio)) if len(iou) else None,
            "mass_scatter_dex": float(ratio.std()) if len(iou) else None}


def share(found):
    """The share that is true of an array, None of an empty one."""
    return float(found.mean()) if len(found) else None


def shares(found, mass, edges):
    """`share` in each bin of mass, a list."""
    place = np.digitize(mass, edges) - 1
    return [share(found[place == number]) for number in range(len(edges) - 1)]


BINS = 60  # of the plane of trajectories, along each axis
MASS_BINS = 36  # of the masses of cells; bounds are of bins three times as wide
SIGMAS = (1, 2, 3)


def trajectory_counts(sampled):
    """Numbers of `watershed.SampledTrajectories` in bins of the plane of volume and distance, as JSON has them.

    A dictionary: volume_edges, distance_edges, counts, (volumes, distances); None without a trajectory.
    """
    finite = np.isfinite(sampled.distance)
    if not finite.any():
        return None
    volume = np.broadcast_to(sampled.volume, sampled.distance.shape)[finite]
    counts, *edges = np.histogram2d(volume, sampled.distance[finite],
                                    bins=(np.geomspace(1, sampled.volume[-1] * 1.01, BINS), BINS))
    return {"volume_edges": edges[0].tolist(), "distance_edges": edges[1].tolist(),
            "counts": counts.astype(int).tolist()}


def shared_cells(true_id, predicted_id):
    """Which labels share cells, and how many: rows of the two label volumes and numbers, (pairs,) each."""
    from scipy.sparse import coo_array

    both = (true_id >= 0) & (predicted_id >= 0)
    shape = (int(true_id.max(initial=-1)) + 1, int(predicted_id.max(initial=-1)) + 1)
    shared = coo_array((np.ones(both.sum(), np.int64), (true_id[both], predicted_id[both])), shape=shape)
    shared = shared.tocsr().tocoo()
    return *shared.coords, shared.data


def cell_mass_counts(true, predicted, number=None):
    """Numbers of cells in bins of true and predicted halo mass, and how the predicted ones spread, as JSON has them.

    true, predicted: masses, (pairs,), each of so many cells as `number` says, (pairs,), or of one. A dictionary:
    edges; counts, (true, predicted); wide_edges, and for each sigma the lower and upper bound in each wide bin of true
    mass, None where the cells are too few. None without a cell.
    """
    if not len(true):
        return None
    number = np.ones(len(true), np.int64) if number is None else number
    edges = np.geomspace(min(true.min(), predicted.min()) * 0.9, max(true.max(), predicted.max()) * 1.1, MASS_BINS)
    wide = edges[::3]  # bins of one halo or two would show these
    bounds = {str(sigma): [[None if np.isnan(value) else float(value) for value in bound]
                           for bound in spread(true, predicted, wide, sigma, number)] for sigma in SIGMAS}
    counts = np.histogram2d(true, predicted, (edges, edges), weights=number)[0]
    return {"edges": edges.tolist(), "counts": counts.astype(int).tolist(), "wide_edges": wide.tolist(),
            "bounds": bounds}


def spread(true, predicted, edges, sigma, number=None):
    """Lower and upper percentile of the predicted values at so many sigma, in bins of the true ones: two (bins,).

    NaN in bins whose values are too few for one of them to lie outside. number: how often each pair counts, (pairs,).
    """
    from scipy.stats import norm

    tail = norm.cdf(-sigma)
    found = np.full((2, len(edges) - 1), np.nan)
    number = np.ones(len(true), np.int64) if number is None else number
    place = np.digitize(true, edges) - 1
    for part in range(len(edges) - 1):
        inside = place == part
        if number[inside].sum() * tail >= 1:
            found[:, part] = quantiles(predicted[inside], number[inside], (tail, 1 - tail))
    return found


def quantiles(values, number, levels):
    """`np.quantile` of values that each count so many times, without a copy of them for each."""
    order = np.argsort(values)
    values, upto = values[order], np.cumsum(number[order])
    place = np.array(levels) * (upto[-1] - 1)
    low, high = (values[np.searchsorted(upto, np.round(side), side="right")] for side in (np.floor(place),
                                                                                          np.ceil(place)))
    return low + (place - np.floor(place)) * (high - low)


def membership(true_id, predicted_id):
    """Cells in haloes: counts of (true and predicted, true only, predicted only)."""
    true, predicted = true_id >= 0, predicted_id >= 0
    return np.array([(true & predicted).sum(), (true & ~predicted).sum(), (~true & predicted).sum()])


def dice(counts):
    """Dice coefficient of the counts of `membership`: 1 where the same cells are in haloes."""
    both, missed, wrong = counts
    return float(2 * both / max(2 * both + missed + wrong, 1))
