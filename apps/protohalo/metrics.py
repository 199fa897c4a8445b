"""How well predicted haloes match the true ones: numbers per mass bin, and the masses that cells are given."""

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


def cell_masses(true_id, predicted_id, true_mass, predicted_mass):
    """Mass of the halo that each cell ends in, true and predicted, for cells that are in a halo in both: two (c,)."""
    both = (true_id >= 0) & (predicted_id >= 0)
    return np.asarray(true_mass)[true_id[both]], np.asarray(predicted_mass)[predicted_id[both]]


def membership(true_id, predicted_id):
    """Cells in haloes: counts of (true and predicted, true only, predicted only)."""
    true, predicted = true_id >= 0, predicted_id >= 0
    return np.array([(true & predicted).sum(), (true & ~predicted).sum(), (~true & predicted).sum()])


def dice(counts):
    """Dice coefficient of the counts of `membership`: 1 where the same cells are in haloes."""
    both, missed, wrong = counts
    return float(2 * both / max(2 * both + missed + wrong, 1))
