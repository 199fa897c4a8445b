"""How well predicted halo masses match the true ones, and how much two predictions differ (Eq. 2 of the paper).

Residuals are log10(M_predicted / M_true) of particles. Particles of one halo share their true mass and much of what
is predicted for them, so all errors come from a bootstrap over haloes: a sample has as many haloes as there are, drawn
with replacement, each with all its particles. Predictions are compared on the same particles, and drawn together.
"""

import numpy as np
from scipy.optimize import brentq
from scipy.special import rel_entr

BANDWIDTH = 0.1  # standard deviation of the kernel, in dex, as in the authors' code
DRAWS = 200  # of the bootstrap
PLACES = ("inner", "mid", "outskirts")
LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.68, 0.8, 0.9, 0.95)  # of the central intervals whose coverage is measured


def radius_fraction(position, centre, radius, boxsize):
    """Distance from the halo's centre over the halo's radius, (n,), in a periodic box.

    position, centre: (n, 3) and radius: (n,), each particle's own and its halo's; all in the unit of boxsize.
    """
    offset = np.asarray(position, np.float64) - centre
    offset -= boxsize * np.rint(offset / boxsize)
    return np.sqrt((offset**2).sum(axis=1)) / radius


def radial_third(fraction):
    """Which third of its halo's radius a particle is in: 0 inner, 1 mid, 2 outskirts, with all that is beyond.

    The authors' code draws three narrower shells, up to 0.2, 0.4 to 0.6 and beyond 0.8 of the virial radius.
    """
    return np.clip((3 * np.asarray(fraction)).astype(int), 0, 2)


def mass_third(log_mass, low, high):
    """Which third of the range [low, high] of log10 mass a halo is in: 0, 1 or 2, as in the authors' code."""
    return np.clip((3 * (np.asarray(log_mass) - low) / (high - low)).astype(int), 0, 2)


def bootstrap_weights(halo, draws=DRAWS, seed=0):
    """How often each particle is in each bootstrap sample of haloes: (draws, particles). halo: (particles,) labels."""
    label, index = np.unique(halo, return_inverse=True)
    drawn = np.random.default_rng(seed).multinomial(len(label), np.full(len(label), 1 / len(label)), size=draws)
    return drawn[:, index]


def correlation(true, predicted, weights=None):
    """Pearson's r of log10 masses, (particles,); NaN where the prediction is constant.

    weights: (samples, particles) gives r of each sample, (samples,).
    """
    weight = np.ones((1, len(true))) if weights is None else np.asarray(weights, np.float64)
    weight = weight / weight.sum(axis=1, keepdims=True)
    # About the overall means, which drop out: without them the variance of a constant would be its rounding error.
    true, predicted = true - np.mean(true), predicted - np.mean(predicted)
    mean = weight @ true, weight @ predicted
    covariance = weight @ (true * predicted) - mean[0] * mean[1]
    variance = weight @ true**2 - mean[0]**2, weight @ predicted**2 - mean[1]**2
    constant = np.ptp(predicted) < 1e-6
    r = np.full(len(weight), np.nan) if constant else covariance / np.sqrt(variance[0] * variance[1])
    return float(r[0]) if weights is None else r


def root_mean_square(residual, weights=None):
    """Root of the mean squared residual in dex; with weights (samples, particles) that of each sample."""
    if weights is None:
        return float(np.sqrt(np.mean(residual**2)))
    return np.sqrt(weights @ residual**2 / weights.sum(axis=1))


def summary(residual):
    """Number, median and central 68% of residuals, as a dictionary of numbers; None where there are none."""
    if not len(residual):
        return {"particles": 0, "median": None, "low": None, "high": None}
    low, median, high = np.percentile(residual, (16, 50, 84))
    return {"particles": len(residual), "median": float(median), "low": float(low), "high": float(high)}


def residual_grid(residuals, bandwidth=BANDWIDTH):
    """Centres of the cells, a tenth of a bandwidth wide, on which densities of all these residuals are estimated."""
    step = bandwidth / 10
    low = min(residual.min() for residual in residuals) - 5 * bandwidth
    high = max(residual.max() for residual in residuals) + 5 * bandwidth
    return np.arange(low, high + step, step)


def kernel_density(residual, grid, bandwidth=BANDWIDTH, weights=None):
    """Gaussian kernel density estimate of residuals on an even grid of cells, integrating to one.

    residual: (particles,); grid: (cells,) centres; weights: None, for (cells,), or (samples, particles), for
    (samples, cells). The kernel is not cut off: a density that were zero somewhere would make the divergence infinite.
    """
    step = grid[1] - grid[0]
    cell = np.clip(np.rint((residual - grid[0]) / step).astype(int), 0, len(grid) - 1)
    if weights is None:
        count = np.bincount(cell, minlength=len(grid)).astype(float)
    else:
        count = np.stack([np.bincount(cell, weight, minlength=len(grid)) for weight in weights])
    kernel = np.exp(-0.5 * ((grid[:, None] - grid) / bandwidth)**2)
    density = count @ kernel
    return density / (density.sum(axis=-1, keepdims=True) * step)


def divergence(p, q, step):
    """Kullback-Leibler divergence D(p || q) = integral of p ln(p / q), Eq. 2, of densities on the last axis."""
    # 38 bandwidths from its nearest particle a Gaussian kernel is zero in floating point, which it is not.
    return rel_entr(p, np.maximum(q, np.finfo(float).tiny)).sum(axis=-1) * step


def divergences(residuals, halo, bandwidth=BANDWIDTH, draws=DRAWS, seed=0):
    """K-L divergence between the residual distributions of each pair of predictions, with its bootstrap error.

    residuals: dictionary of (particles,), all of the same particles; halo: (particles,) labels.
    Returns {p: {q: {"divergence": D(p || q) in nats, "error": standard deviation over bootstrap samples}}}.
    The kernel widens both distributions; for two Gaussians the result is that of variances larger by its square.
    """
    grid = residual_grid(list(residuals.values()), bandwidth)
    step = grid[1] - grid[0]
    weights = bootstrap_weights(halo, draws, seed)
    density = {name: kernel_density(residual, grid, bandwidth) for name, residual in residuals.items()}
    sampled = {name: kernel_density(residual, grid, bandwidth, weights) for name, residual in residuals.items()}
    return {p: {q: {"divergence": float(divergence(density[p], density[q], step)),
                    "error": float(divergence(sampled[p], sampled[q], step).std())}
                for q in residuals if q != p} for p in residuals}


def scatter_ratio(divergence, scatter, bandwidth=BANDWIDTH):
    """The ratio of scatters, at most one, of two Gaussian residuals without bias, of which this is D(narrow || wide).

    scatter: of the wider one in dex, without the kernel, which widens both. What a divergence means: 0.03 is what a
    scatter gives that is a sixth smaller.
    """
    smoothed = brentq(lambda ratio: (ratio**2 - 1) / 2 - np.log(ratio) - max(divergence, 0), 1e-9, 1)
    squared = smoothed**2 * (scatter**2 + bandwidth**2) - bandwidth**2
    return float(np.sqrt(max(squared, 0)) / scatter)


def coverage(probability, levels=LEVELS):
    """Share of particles whose true mass is within the central interval of each level, (levels,).

    probability: (particles,), the predictive distribution's cdf at the true mass; uniform for a calibrated one.
    """
    off_centre = np.abs(2 * np.asarray(probability) - 1)
    return np.array([(off_centre <= level).mean() for level in levels])
