"""From a predicted distance map to haloes: the watershed, and its adaptive cut (Bernardini et al. 2020, Sec. 4).

The native watershed floods from the peaks of the map down to a fixed floor; fragments of one halo can be joined. The
adaptive one then raises, for each region by itself, the threshold above which cells belong to the halo, to where the
region's trajectory in volume and mean distance meets a line d(V) that was calibrated on the training simulations.
"""

from dataclasses import dataclass

import numpy as np

from kerasgal.statistics import mass_bins

BIN_RATIO = 1.4  # upper over lower mass of a bin of the mass function
SAMPLES_PER_OCTAVE = 16  # at which trajectories are kept for the calibration
KNOTS = 9  # of d(V), linear in log V
SHIFTS = 4  # positions of the mass bins, a fraction of a bin apart, that the calibration looks at together


def radius(volume):
    """Radius of the sphere of a volume.

    The paper's Sec. 4.1 prints 3 / (4 pi) V^(1/3) but speaks of the sphere; (3 V / 4 pi)^(1/3) is the sphere.
    """
    return (3 * np.asarray(volume) / (4 * np.pi)) ** (1 / 3)


def find_markers(distance, smoothing, marker, separation):
    """Peaks of the map, numbered from 1, as (n, n, n) int32, and the smoothed map they are peaks of.

    A peak is the highest cell of the periodic cube of `separation` cells around it, and at least `marker` high.
    Cells of equal height that touch are one peak.
    """
    from scipy import ndimage

    smooth = ndimage.gaussian_filter(distance, smoothing, mode="wrap") if smoothing else distance
    peaks = smooth == ndimage.maximum_filter(smooth, 2 * separation + 1, mode="wrap")
    peaks &= smooth >= marker
    # Labelled with a rim of one cell that repeats the other side, so that a plateau across a face is one peak, too.
    rim, count = ndimage.label(np.pad(peaks, 1, mode="wrap"), structure=np.ones((3, 3, 3)))
    core = (slice(1, -1),) * 3
    repeated = np.pad(rim[core], 1, mode="wrap")
    inside = rim > 0
    return _joined(rim[inside], repeated[inside], count + 1)[rim[core]], smooth


def flood(smooth, markers, floor):
    """Marker-based watershed of a periodic map: (n, n, n) int32, the marker of every cell above `floor`, 0 elsewhere.

    scikit-image floods a box with walls, so the map is continued periodically at its faces. The result is periodic
    when the first layer beyond each face equals the layer it repeats; until it does, it is continued farther.
    """
    from skimage.segmentation import watershed

    n = smooth.shape[0]
    pad = min(32, n)  # 16 cells rarely suffice, and flooding again costs more than a wider rim
    while True:
        image = np.pad(smooth, pad, mode="wrap")
        mask = image > floor
        np.negative(image, out=image)
        labels = watershed(image, np.pad(markers, pad, mode="wrap"), mask=mask)
        del image, mask
        if pad == n or _wraps(labels, pad, n):
            core = slice(pad, pad + n)
            return np.ascontiguousarray(labels[core, core, core])
        pad = min(2 * pad, n)


def _wraps(labels, pad, n):
    """Whether the layers just outside the six faces of the core repeat the layers inside the opposite faces."""
    core = slice(pad, pad + n)
    for axis in range(3):
        for outside, inside in ((pad - 1, pad + n - 1), (pad + n, pad)):
            layers = [np.take(labels, layer, axis=axis)[core, core] for layer in (outside, inside)]
            if not np.array_equal(*layers):
                return False
    return True


def join_fragments(smooth, labels, depth):
    """Join neighbouring regions whose common border lies deep inside them; returns labels of the same shape.

    Two haloes that touch do so at their borders, where the map is low: about one cell over their radius. Where a
    saddle's height times the radius of the smaller region's sphere exceeds `depth` cells, the border runs through
    the inside of one halo that has several peaks: without this, the largest haloes of a noisy map come in pieces.
    The paper does not do this.
    """
    regions = labels.max() + 1
    size = np.bincount(labels.ravel(), minlength=regions)
    pairs = []
    for axis in range(3):
        beside = np.roll(labels, -1, axis)
        touching = np.flatnonzero((labels != beside) & (labels > 0) & (beside > 0))
        height = np.minimum(smooth.ravel()[touching], np.roll(smooth, -1, axis).ravel()[touching])
        one, other = labels.ravel()[touching], beside.ravel()[touching]
        deep = height * radius(np.minimum(size[one], size[other])) > depth
        pairs.append(np.stack([one[deep], other[deep]]))
    one, other = np.concatenate(pairs, axis=1)
    return _joined(one, other, regions)[labels]


def _joined(one, other, count):
    """New numbers for `count` labels of which those in `one` are the same as those beside them in `other`.

    Label 0, the background, is in neither and stays 0, the first component.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(one), bool), (one, other)), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.int32)


@dataclass
class Trajectories:
    """The cells of all regions in one sorted list: by region, and within it by falling value of the map.

    cell: flat indices of the cells.  start, size: where each region begins and how many cells it has, (r,).
    distance: mean normalised distance of the cells so far times the radius of their sphere, at each cell.
    """

    cell: np.ndarray
    start: np.ndarray
    size: np.ndarray
    distance: np.ndarray

    def volume(self):
        """Cells so far, at each cell: 1, 2, ..., size of the first region, 1, 2, ..."""
        return np.arange(1, len(self.cell) + 1) - np.repeat(self.start, self.size)


def trajectories(distance, labels):
    """The trajectory of every region in (V, d) as its threshold falls from its peak to the floor.

    One sort over all cells: region and inverted bits of the value make one 64-bit key (a non-negative float32 sorts
    like its bits).
    """
    cell = np.flatnonzero(labels)
    label = labels.ravel()[cell]
    value = np.maximum(distance.ravel()[cell], 0).astype(np.float32)
    order = np.argsort((label.astype(np.uint64) << np.uint64(32)) | (np.uint32(0xFFFFFFFF) - value.view(np.uint32)))
    cell, label, value = cell[order], label[order], value[order]
    del order
    start = np.flatnonzero(np.diff(label, prepend=0))
    size = np.diff(start, append=len(label))
    total = np.cumsum(value, dtype=np.float64)
    before = np.where(start > 0, total[start - 1], 0.0)
    total -= np.repeat(before, size)
    result = Trajectories(cell, start, size, None)
    volume = result.volume()
    result.distance = (total / volume * radius(volume)).astype(np.float32)
    return result


@dataclass(frozen=True)
class Line:
    """d(V): the distance at which trajectories are cut, linear in log V between knots and constant beyond them."""

    volume: tuple
    distance: tuple

    def __call__(self, volume):
        return np.interp(np.log(volume), np.log(self.volume), self.distance)


def cut_sizes(paths, line):
    """Cells of each region once it is cut by the line, (r,); 0 where its trajectory never reaches the line.

    A trajectory rises with the volume of its first cells, and falls when the flanks dilute its mean. It is cut where
    it last meets the line.
    """
    volume = paths.volume()
    table = line(np.arange(1, paths.size.max(initial=1) + 1)).astype(np.float32)
    reached = np.where(paths.distance >= table[volume - 1], volume, 0)
    return np.maximum.reduceat(reached, paths.start) if len(paths.start) else np.zeros(0, int)


def label_haloes(paths, sizes, shape, minimum):
    """The label volume of haloes of at least `minimum` cells: (n, n, n) int32, 0 the largest halo, -1 background.

    `sizes` is the number of cells to keep of each region, from `cut_sizes`, or `paths.size` for the native watershed.
    """
    kept = np.where(sizes >= minimum, sizes, 0)
    order = np.argsort(-kept, kind="stable")
    number = np.empty(len(order), np.int32)
    number[order] = np.arange(len(order))
    inside = paths.volume() <= np.repeat(kept, paths.size)
    halo_id = np.full(shape, -1, np.int32)
    halo_id.ravel()[paths.cell[inside]] = np.repeat(number, paths.size)[inside]
    return halo_id


def catalogue(halo_id, distance, boxsize, cell_mass):
    """Halo catalogue of a label volume: dictionary of arrays, one row per halo in descending mass.

    halo_id: row number, equal to the label.  cells.  mass: cells times mean mass of a cell [Msun/h].
    position: Lagrangian centre of mass in the periodic box [Mpc/h].  peak: highest value of the map.
    """
    cell = np.flatnonzero(halo_id >= 0)
    label = halo_id.ravel()[cell]
    cells = np.bincount(label)
    n = halo_id.shape[0]
    position = np.empty((len(cells), 3))
    for axis, index in enumerate(np.unravel_index(cell, halo_id.shape)):
        angle = 2 * np.pi * (index + 0.5) / n
        sine, cosine = (np.bincount(label, weights=part(angle)) for part in (np.sin, np.cos))
        position[:, axis] = np.arctan2(sine, cosine) / (2 * np.pi) % 1 * boxsize
    peak = np.zeros(len(cells), np.float32)
    np.maximum.at(peak, label, distance.ravel()[cell])
    return {"halo_id": np.arange(len(cells)), "cells": cells, "mass": cells * cell_mass, "position": position,
            "peak": peak}


@dataclass
class SampledTrajectories:
    """Trajectories of the regions of several boxes at common volumes: distance (r, v), NaN beyond a region's size."""

    volume: np.ndarray
    distance: np.ndarray
    size: np.ndarray


def sample(all_paths):
    """Trajectories of a list of boxes at `SAMPLES_PER_OCTAVE` volumes per factor of two, for the calibration."""
    largest = max(paths.size.max(initial=1) for paths in all_paths)
    octaves = np.arange(np.ceil(np.log2(largest) * SAMPLES_PER_OCTAVE) + 1) / SAMPLES_PER_OCTAVE
    volume = np.unique(np.round(2**octaves).astype(int))
    blocks = []
    for paths in all_paths:
        at = np.minimum(volume, paths.size[:, None])
        block = paths.distance[paths.start[:, None] + at - 1]
        blocks.append(np.where(volume <= paths.size[:, None], block, np.nan))
    return SampledTrajectories(volume, np.concatenate(blocks), np.concatenate([p.size for p in all_paths]))


def sampled_cut_sizes(sampled, line):
    """Like `cut_sizes`, on sampled trajectories, interpolating between samples."""
    excess = sampled.distance - line(sampled.volume)
    reached = excess >= 0  # NaN compares false
    last = reached.shape[1] - 1 - np.argmax(reached[:, ::-1], axis=1)
    rows = np.arange(len(last))
    following = np.minimum(last + 1, reached.shape[1] - 1)
    above, below = excess[rows, last], excess[rows, following]
    with np.errstate(invalid="ignore"):
        fraction = np.clip(above / (above - below), 0, 1)
    step = np.where(np.isfinite(fraction), fraction, 1) * (sampled.volume[following] - sampled.volume[last])
    return np.where(reached.any(axis=1), np.minimum(sampled.volume[last] + step, sampled.size), 0)


def histogram(sampled, volume_edges, distances):
    """Regions per bin of volume in which their trajectories leave each distance, (distances, volume bins).

    Each trajectory passes every distance below its highest for a last time; there it counts, once per distance.
    """
    return np.stack([np.histogram(sampled_cut_sizes(sampled, Line((1.0, 2.0), (distance,) * 2)), volume_edges)[0]
                     for distance in distances])


def calibrate(all_paths, true_sizes, minimum, method="residual"):
    """Find the line d(V) for which the cut regions of the training boxes have the true mass function.

    all_paths: list of Trajectories.  true_sizes: sizes of all true haloes of these boxes, in cells.
    method "histogram" is the paper's: in each mass bin the distance whose count in the histogram of trajectories is
    nearest to the number of true haloes, then a piecewise-linear fit. "residual" starts from there, or from a better
    straight line, and minimises the squared residual of the mass function over its Poisson variance; bins chosen one by
    one are erratic where counts are small, and know nothing of each other. So that the line does not adapt to the
    edges of the bins, they stand at several positions; the total number counts as one more bin, and curvature costs
    as much as Poisson noise.
    """
    sampled = sample(all_paths)
    fine = mass_bins(minimum, max(true_sizes.max(), 2 * minimum), BIN_RATIO ** (1 / SHIFTS))
    edges = fine[::SHIFTS]
    knots = tuple(np.geomspace(fine[0], fine[-1], KNOTS))
    if not len(sampled.size):  # a network that has learned nothing yet has no peaks: there is nothing to cut
        return Line(knots, (0.0,) * KNOTS)

    highest = float(np.nanmax(sampled.distance))
    distances = np.linspace(0, highest, 81)
    true_count = np.histogram(true_sizes, edges)[0]
    difference = np.abs(histogram(sampled, edges, distances) - true_count)
    # Several distances may match a bin; the one nearest to the best distance for all bins is meant.
    overall = distances[np.argmin((difference**2 / np.maximum(true_count, 1)).sum(axis=1))]
    nearest = np.abs(distances - overall)[:, None] / highest
    chosen = distances[np.argmin(difference + 0.5 * nearest, axis=0)]
    first = np.clip(_fit(np.sqrt(edges[1:] * edges[:-1]), chosen, np.sqrt(true_count), knots), 0, highest)
    if method == "histogram":
        return Line(knots, tuple(first))

    from scipy.optimize import minimize

    def shifted_counts(sizes):
        return np.convolve(np.histogram(sizes, fine)[0], np.ones(SHIFTS), "valid")

    shifted_true = shifted_counts(true_sizes)

    def residual(distance):
        sizes = sampled_cut_sizes(sampled, Line(knots, tuple(distance)))
        bins = np.sum((shifted_counts(sizes) - shifted_true) ** 2 / np.maximum(shifted_true, 1)) / SHIFTS
        total = ((sizes >= minimum).sum() - len(true_sizes)) ** 2 / len(true_sizes)
        return bins + total + np.sum(np.diff(distance, 2) ** 2)

    levels = np.linspace(0, 1, 41)[:, None]
    straight = np.concatenate([levels * highest * np.ones(KNOTS), levels * radius(np.array(knots))])
    starts = [first, *np.clip(straight, 0, highest)]
    found = min((minimize(residual, start, method="Powell", bounds=[(0.0, highest)] * KNOTS,
                          options={"xtol": 1e-3, "ftol": 1e-4})
                 for start in sorted(starts, key=residual)[:3]), key=lambda result: result.fun)
    return Line(knots, tuple(found.x))


def _fit(volume, distance, weight, knots):
    """Weighted least-squares values, at the knots, of a line that is linear in log V between them.

    Neighbouring knots are drawn together weakly, so that one without data is defined.
    """
    hats = np.stack([np.interp(np.log(volume), np.log(knots), unit) for unit in np.eye(KNOTS)], axis=1)
    together = 0.1 * weight.mean() * np.diff(np.eye(KNOTS), axis=0)
    values, *_ = np.linalg.lstsq(np.vstack([hats * weight[:, None], together]),
                                 np.append(distance * weight, np.zeros(KNOTS - 1)), rcond=None)
    return values
