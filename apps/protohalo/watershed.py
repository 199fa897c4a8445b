"""From a predicted distance map to haloes: the watershed, and its adaptive cut (Bernardini et al. 2020, Sec. 4).

The native watershed takes every cell above a fixed floor to the peak that lies uphill of it; fragments of one halo can
be joined. The adaptive one (Sec. 4.1) then raises, for each region by itself, the threshold above which cells belong to
the halo, to where the region's trajectory in volume and mean distance meets a line d(V) that was calibrated on the
training simulations. All is periodic. The loops over cells stand in `basins`.
"""

from dataclasses import dataclass

import numpy as np

from kerasgal.statistics import mass_bins

# `basins` imports Numba, so it is imported where it is called.

BIN_RATIO = 1.4  # upper over lower mass of a bin of the mass function
SAMPLES_PER_OCTAVE = 16  # at which trajectories are kept for the calibration
KNOTS = 9  # of d(V), linear in log V
SHIFTS = 4  # positions of the mass bins, a fraction of a bin apart, that the calibration looks at together


def radius(volume):
    """Radius of the sphere of a volume.

    The paper's Eq. 4 prints 3 / (4 pi) V^(1/3) but speaks of the sphere; (3 V / 4 pi)^(1/3) is the sphere.
    """
    return (3 * np.asarray(volume) / (4 * np.pi)) ** (1 / 3)


def find_markers(distance, smoothing, marker, separation):
    """Peaks of the map, numbered from 1, as (n, n, n) int32, and the smoothed map they are peaks of, float32.

    A peak is the highest cell of the periodic cube of `separation` cells around it, above zero and at least `marker`
    high. Cells of equal height that touch are one peak.
    """
    from scipy import ndimage

    from kerasgal.apps.protohalo import basins

    smooth = np.ascontiguousarray(distance, np.float32)
    if smoothing:
        smooth = ndimage.gaussian_filter(smooth, smoothing, mode="wrap")
    markers = np.empty(smooth.shape, np.int32)
    least = max(marker, float(np.finfo(np.float32).tiny))  # where there is nothing, there is no peak
    basins.in_threads(basins.mark_peaks, len(smooth), smooth, least, markers, cells=smooth.size)
    peaks = np.flatnonzero(markers)
    height = smooth.reshape(-1)
    reach = min(separation, max(smooth.shape) // 2)
    for step in np.ndindex((2 * reach + 1,) * 3):
        lower = height[peaks] < height[_moved(peaks, np.subtract(step, reach), smooth.shape)]
        markers.reshape(-1)[peaks[lower]] = 0
        peaks = peaks[~lower]
    markers.reshape(-1)[peaks] = np.arange(1, len(peaks) + 1)
    number = np.arange(len(peaks) + 1)
    for step in list(np.ndindex(3, 3, 3))[14:]:  # one half of the neighbours, the others see them from there
        beside = markers.reshape(-1)[_moved(peaks, np.subtract(step, 1), smooth.shape)]
        number = _joined(number[1:][beside > 0], number[beside[beside > 0]], len(number))[number]
    markers.reshape(-1)[peaks] = number[1:]
    return markers, smooth


def _moved(cells, step, shape):
    """Flat indices of the cells a step away from others, in the periodic box."""
    return np.ravel_multi_index([index + by for index, by in zip(np.unravel_index(cells, shape), step)], shape,
                                mode="wrap")


def _joined(one, other, count):
    """New numbers for `count` labels of which those in `one` are the same as those beside them in `other`, int32.

    Label 0, the background, is in neither and stays 0.
    """
    from kerasgal.apps.protohalo import basins

    number = np.empty(count, np.int32)
    basins.components(one.astype(np.int64), other.astype(np.int64), np.arange(count), number)
    return number


def native(smooth, markers, floor, out=None):
    """Marker-based watershed of a periodic map: (n, n, n) int32, the marker of every cell above `floor`, 0 elsewhere.

    Nothing is flooded. Every cell points to the highest of its six neighbours, of equal ones to that with the largest
    index; the cells from which the way uphill ends on one peak are its basin; and a basin without a marker joins that
    beside it to which it has the highest saddle, and with it the next, until there is a marker. Cells that cannot reach
    one get 0. Where every peak has a marker and no two cells are equally high, this is what flooding finds. In a basin
    without a marker flooding goes on from cell to cell: what lies below its highest saddle may be reached from another
    flood first, where here it stays with its basin.

    markers: as from `find_markers`. Each is its whole basin's, and of several in one basin the last is; so they may be
    peaks of a smoothed map and `smooth` the map itself.  out: int32 and contiguous, where the labels are written; may
    be `markers`.
    """
    from kerasgal.apps.protohalo import basins

    smooth = np.ascontiguousarray(smooth, np.float32)
    marked = np.flatnonzero(markers)
    number = markers.reshape(-1)[marked]
    labels = np.empty(smooth.shape, np.int32) if out is None else out
    basins.in_threads(basins.point_uphill, len(smooth), smooth, floor, labels, cells=smooth.size)
    count = basins.number_peaks(labels.reshape(-1))
    basins.in_threads(basins.follow_pointers, len(smooth), labels, cells=smooth.size)
    marker = np.zeros(count + 1, np.int32)
    marker[labels.reshape(-1)[marked]] = number
    marker[0] = 0  # a marker that is not above the floor
    one, other, _ = saddles(smooth, labels)
    basins.join_unmarked(one, other, np.arange(count + 1), marker)
    basins.in_threads(basins.renumber, labels.size, labels.reshape(-1), marker, cells=labels.size)
    return labels


def saddles(smooth, labels):
    """The pairs of labels > 0 that touch in the periodic box, by falling height of their highest saddles.

    A saddle is two neighbouring cells, and as high as the lower one; of two of one height that with the higher other
    cell comes first. Returns two labels, the smaller one first, and the height, three arrays (pairs,).
    """
    from kerasgal.apps.protohalo import basins

    size = 1 << max(12 * labels.shape[2], min(labels.size // 512, 2**19)).bit_length()

    def noted(first, last):
        found = [(np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, np.float32))]
        while first < last:  # a full table is put aside, and another begun
            keys, low, high = np.zeros(size, np.int64), np.empty(size, np.float32), np.empty(size, np.float32)
            first = basins.highest_saddles(smooth, labels, keys, low, high, first, last)
            used = keys > 0
            found.append((keys[used], low[used], high[used]))
        return [np.concatenate(part) for part in zip(*found)]

    rows = labels.shape[0] * labels.shape[1]
    pair, low, high = map(np.concatenate, zip(*basins.in_threads(noted, rows, cells=labels.size)))
    order = np.lexsort((high, low, pair))
    highest = order[np.diff(pair[order], append=-1) != 0]  # the last one of each pair
    falling = highest[np.lexsort((-high[highest], -low[highest]))]
    return pair[falling] >> 32, pair[falling] & 0xFFFFFFFF, low[falling]


def join_fragments(smooth, labels, depth, dynamics=0.0, out=None):
    """Join neighbouring regions that are pieces of one halo, by `fragments`; returns labels of the same shape.

    out: int32 and contiguous, where the labels are written; may be `labels`.
    """
    from kerasgal.apps.protohalo import basins

    smooth = np.ascontiguousarray(smooth, np.float32)
    size = label_sizes(labels)
    top = np.zeros(len(size), np.float32)
    if dynamics:
        basins.highest_cells(smooth.reshape(-1), labels.reshape(-1), top)
    one, other, height = saddles(smooth, labels)
    joins = fragments(one, other, height, size, top, depth, dynamics)
    number = _joined(one[joins], other[joins], len(size))
    if out is None:
        out = labels.copy()
    elif out is not labels:
        out[...] = labels
    basins.in_threads(basins.renumber, out.size, out.reshape(-1), number, cells=out.size)
    return out


def fragments(one, other, height, size, top, depth, dynamics):
    """Which pairs of regions, by falling height of their saddles, are pieces of one halo; bool, (pairs,).

    Two haloes that touch do so at their borders, where the map is low: about one cell over their radius. So the border
    runs through the inside of one halo that has several peaks where a saddle's height times the radius of the smaller
    region's sphere exceeds `depth` cells, and where the lower peak is less than `dynamics` above the saddle, when every
    halo has a peak of 1 (its dynamics, Grimaud 1992, doi:10.1117/12.60650). Without either the largest haloes of a
    noisy map come in pieces. The paper does neither. 0 leaves a rule out.

    size, top: cells of each region and the highest number of the map in it; top is overwritten.
    """
    from kerasgal.apps.protohalo import basins

    joins = np.zeros(len(one), bool)
    if depth:
        joins |= height * radius(np.minimum(size[one], size[other])) > depth
    if dynamics:
        one, other = one.astype(np.int64), other.astype(np.int64)
        basins.join_low(one, other, height, dynamics, top, np.arange(len(size)), joins)
    return joins


def label_sizes(labels):
    """Cells of each label from 0 to the largest, (labels,) int64; those below 0 are not counted."""
    from kerasgal.apps.protohalo import basins

    count = np.zeros(max(int(labels.max(initial=0)), 0) + 1, np.int64)
    basins.count_cells(labels.reshape(-1), count)
    return count


@dataclass
class Trajectories:
    """The cells of all regions in one sorted list: by region, and within it by falling value of the map.

    cell: flat indices of the cells.  start, size: where each region begins and how many cells it has, (r,).
    distance: mean normalised distance of the cells so far, at each cell, times a radius: see `trajectories`.
    """

    cell: np.ndarray
    start: np.ndarray
    size: np.ndarray
    distance: np.ndarray

    def volume(self):
        """Cells so far, at each cell: 1, 2, ..., size of the first region, 1, 2, ..."""
        return np.arange(1, len(self.cell) + 1) - np.repeat(self.start, self.size)


def trajectories(distance, labels, volume="native"):
    """The trajectory of every region in (V, d) as its threshold falls from its peak to the floor.

    d is the mean normalised distance of the V cells times the radius of a sphere: of the whole region's volume, as in
    the paper's Eq. 4, where it falls all the way; or with volume="current" of V itself, where it first rises.
    Cells are gathered region by region, and each region is sorted by itself.
    """
    from kerasgal.apps.protohalo import basins

    size = label_sizes(labels)
    size[0] = 0
    position = np.cumsum(size) - size
    start, inside = position[size > 0], size.sum()
    size = size[size > 0]
    cell = np.empty(inside, np.int32 if labels.size < 2**31 else np.int64)
    value = np.empty(inside, np.float32)
    basins.gather_cells(np.ascontiguousarray(distance, np.float32).reshape(-1), labels.reshape(-1), position, cell,
                        value)
    spheres = radius(np.arange(1, size.max(initial=0) + 1))
    basins.in_threads(basins.sort_regions, len(size), cell, value, value.view(np.uint32), start, size, spheres,
                      volume == "native", cells=inside)
    return Trajectories(cell, start, size, value)


@dataclass(frozen=True)
class Line:
    """d(V): the distance at which trajectories are cut, linear in log V between knots and constant beyond them.

    points: (volume, distance) of each mass bin by itself, from `calibration_points` of the training; runs of earlier
    versions do not have them.
    """

    volume: tuple
    distance: tuple
    points: tuple = ()

    def __call__(self, volume):
        return np.interp(np.log(volume), np.log(self.volume), self.distance)


def cut_sizes(paths, line):
    """Cells of each region once it is cut by the line, (r,); 0 where its trajectory never reaches the line.

    A trajectory falls as the flanks dilute its mean; it is cut where it last meets the line, and so keeps as many cells
    as it can.
    """
    from kerasgal.apps.protohalo import basins

    table = line(np.arange(1, paths.size.max(initial=1) + 1)).astype(np.float32)
    cut = np.zeros(len(paths.size), np.int64)
    basins.last_above(paths.distance, paths.start, paths.size, table, cut)
    return cut


def label_haloes(paths, sizes, shape, minimum):
    """The label volume of haloes of at least `minimum` cells: (n, n, n) int32, 0 the largest halo, -1 background.

    `sizes` is the number of cells to keep of each region, from `cut_sizes`, or `paths.size` for the native watershed.
    """
    from kerasgal.apps.protohalo import basins

    kept = np.where(sizes >= minimum, sizes, 0)
    number = np.empty(len(kept), np.int32)
    number[np.argsort(-kept, kind="stable")] = np.arange(len(kept))
    halo_id = np.full(shape, -1, np.int32)
    basins.write_labels(paths.cell, paths.start, kept, number, halo_id.reshape(-1))
    return halo_id


def catalogue(halo_id, distance, boxsize, cell_mass):
    """Halo catalogue of a label volume: dictionary of arrays, one row per halo in descending mass.

    halo_id: row number, equal to the label.  cells.  mass: cells times mean mass of a cell [Msun/h].
    position: Lagrangian centre of mass in the periodic box [Mpc/h].  peak: highest value of the map.
    """
    from kerasgal.apps.protohalo import basins

    rows = max(int(halo_id.max()) + 1, 0)
    cells, centre, peak = np.zeros(rows, np.int64), np.zeros((rows, 3, 2)), np.zeros(rows, np.float32)
    phase = 2 * np.pi * (np.arange(len(halo_id)) + 0.5) / len(halo_id)
    wave = np.tile(np.stack([np.cos(phase), np.sin(phase)], axis=1), (3, 1, 1))
    basins.measure(halo_id, np.ascontiguousarray(distance, np.float32), wave, cells, centre, peak)
    position = np.arctan2(centre[..., 1], centre[..., 0]) / (2 * np.pi) % 1 * boxsize
    return {"halo_id": np.arange(rows), "cells": cells, "mass": cells * cell_mass, "position": position,
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


def joined(samples):
    """Sampled trajectories of boxes, each of `sample`, as `sample` gives them of all the boxes."""
    volume = max((sampled.volume for sampled in samples), key=len)
    distance = [np.pad(sampled.distance, ((0, 0), (0, len(volume) - len(sampled.volume))), constant_values=np.nan)
                for sampled in samples]
    return SampledTrajectories(volume, np.concatenate(distance), np.concatenate([one.size for one in samples]))


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
    knots = tuple(np.geomspace(fine[0], fine[-1], KNOTS))
    if not len(sampled.size):  # a network that has learned nothing yet has no peaks: there is nothing to cut
        return Line(knots, (0.0,) * KNOTS)

    highest = float(np.nanmax(sampled.distance))
    centre, chosen, true_count = calibration_points(sampled, true_sizes, fine[::SHIFTS])
    points = tuple(zip(centre[true_count > 0].tolist(), chosen[true_count > 0].tolist()))
    first = np.clip(_fit(centre, chosen, np.sqrt(true_count), knots), 0, highest)
    if method == "histogram":
        return Line(knots, tuple(first), points)

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
    return Line(knots, tuple(found.x), points)


def calibration_points(sampled, true_sizes, edges):
    """The distance in each bin of volume whose count of trajectories is nearest to that of true haloes (Fig. 7).

    Returns the bins' centres, the distances and the numbers of true haloes, three arrays (bins,).
    """
    distances = np.linspace(0, float(np.nanmax(sampled.distance)), 81)
    true_count = np.histogram(true_sizes, edges)[0]
    difference = np.abs(histogram(sampled, edges, distances) - true_count)
    # Several distances may match a bin; the one nearest to the best distance for all bins is meant.
    overall = distances[np.argmin((difference**2 / np.maximum(true_count, 1)).sum(axis=1))]
    nearest = np.abs(distances - overall)[:, None] / distances[-1]
    chosen = distances[np.argmin(difference + 0.5 * nearest, axis=0)]
    return np.sqrt(edges[1:] * edges[:-1]), chosen, true_count


def _fit(volume, distance, weight, knots):
    """Weighted least-squares values, at the knots, of a line that is linear in log V between them.

    Neighbouring knots are drawn together weakly, so that one without data is defined.
    """
    hats = np.stack([np.interp(np.log(volume), np.log(knots), unit) for unit in np.eye(KNOTS)], axis=1)
    together = 0.1 * weight.mean() * np.diff(np.eye(KNOTS), axis=0)
    values, *_ = np.linalg.lstsq(np.vstack([hats * weight[:, None], together]),
                                 np.append(distance * weight, np.zeros(KNOTS - 1)), rcond=None)
    return values
