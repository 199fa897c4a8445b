"""What the watershed does cell by cell in a periodic box, compiled by Numba.

Importing this imports Numba; the compiled code is kept beside this file, or in the user's cache where that cannot be
written. Volumes are (n, n, n) and contiguous, maps float32, labels int32. Every function lets go of Python's lock. Those
that take `first` and `last` work on these layers, or regions, alone, so that threads share the work (`in_threads`) and
the result is the same however it is shared. None looks farther than one layer of neighbours beyond its own, except
`follow_pointers` along a pointer and `mark_peaks` within its cube.
"""

import os
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np

compiled = numba.njit(nogil=True, cache=True, error_model="numpy")

# What a cell holds before it has a label: where its highest neighbour is, or that none is higher.
X_BELOW, X_ABOVE, Y_BELOW, Y_ABOVE, Z_BELOW, Z_ABOVE, PEAK = range(-1, -8, -1)
FEWEST = 2**21  # cells, below which starting threads does not pay


def in_threads(kernel, length, *arguments, cells):
    """Call kernel(*arguments, first, last) for pieces of range(length); returns the list of what it returned."""
    pieces = min(length, os.cpu_count() or 1) if cells > FEWEST else 1
    edges = [length * piece // pieces for piece in range(pieces + 1)] if pieces else [0]
    if pieces < 2:
        return [kernel(*arguments, 0, length)]
    kernel(*arguments, 0, 0)  # is compiled, or read from the cache, once
    with ThreadPoolExecutor(pieces) as pool:
        return list(pool.map(lambda piece: kernel(*arguments, edges[piece], edges[piece + 1]), range(pieces)))


@compiled
def beside(x, y, z, pointer, shape):
    """The cell that a cell's pointer points to, across a face of the box if need be."""
    if pointer == X_BELOW:
        return (x if x > 0 else shape[0]) - 1, y, z
    if pointer == X_ABOVE:
        return (x + 1 if x + 1 < shape[0] else 0), y, z
    if pointer == Y_BELOW:
        return x, (y if y > 0 else shape[1]) - 1, z
    if pointer == Y_ABOVE:
        return x, (y + 1 if y + 1 < shape[1] else 0), z
    if pointer == Z_BELOW:
        return x, y, (z if z > 0 else shape[2]) - 1
    if pointer == Z_ABOVE:
        return x, y, (z + 1 if z + 1 < shape[2] else 0)
    return x, y, z


@compiled
def root(up, member):
    """The one that stands for a member's set (union-find, with the ways halved)."""
    while up[member] != member:
        up[member] = up[up[member]]
        member = up[member]
    return member


@compiled
def mark_peaks(smooth, lowest, separation, markers, first, last):
    """Markers 1 where a cell of at least `lowest` is the highest within `separation` cells along each axis, or 0."""
    shape = smooth.shape
    for x in range(first, last):
        for y in range(shape[1]):
            for z in range(shape[2]):
                value = smooth[x, y, z]
                peak = value >= lowest
                for pointer in range(Z_ABOVE, 0):  # the nearest first: few cells get past them
                    if peak:
                        peak = not smooth[beside(x, y, z, pointer, shape)] > value
                if peak:
                    peak = _is_highest(smooth, x, y, z, separation)
                markers[x, y, z] = peak


@compiled
def _is_highest(smooth, x, y, z, separation):
    """Whether no cell of the cube around a cell is higher."""
    shape = smooth.shape
    value = smooth[x, y, z]
    for i in range(x - separation, x + separation + 1):
        for j in range(y - separation, y + separation + 1):
            for k in range(z - separation, z + separation + 1):
                if smooth[i % shape[0], j % shape[1], k % shape[2]] > value:
                    return False
    return True


@compiled
def number_markers(markers, cells):
    """Number the marked cells, given by their flat indices, from 1; those that touch, at corners too, get one number."""
    shape = markers.shape
    flat = markers.reshape(-1)
    up = np.arange(len(cells) + 1)
    for number, cell in enumerate(cells):
        flat[cell] = number + 1
    for cell in cells:
        x, y, z = cell // (shape[1] * shape[2]), cell // shape[2] % shape[1], cell % shape[2]
        for i in range(x - 1, x + 2):
            for j in range(y - 1, y + 2):
                for k in range(z - 1, z + 2):
                    other = markers[i % shape[0], j % shape[1], k % shape[2]]
                    if other:
                        one, other = root(up, flat[cell]), root(up, other)
                        up[max(one, other)] = min(one, other)
    number = _numbers(up)
    for cell in cells:
        flat[cell] = number[flat[cell]]


@compiled
def _numbers(up):
    """Sets numbered in the order of their first members, from 0; each is rooted in its first member."""
    number = np.empty(len(up), np.int32)
    count = 0
    for member in range(len(up)):
        if up[member] == member:
            number[member] = count
            count += 1
        else:
            number[member] = number[root(up, member)]
    return number


@compiled
def components(one, other, count):
    """New numbers, from 0, of `count` things of which those in `one` are the same as those beside them in `other`."""
    up = np.arange(count)
    for pair in range(len(one)):
        a, b = root(up, one[pair]), root(up, other[pair])
        up[max(a, b)] = min(a, b)
    return _numbers(up)


@compiled
def point_uphill(smooth, floor, labels, first, last):
    """In every cell above the floor a pointer to the highest of its six neighbours, or PEAK; in all others 0.

    Of cells of one height that with the larger index counts as the higher, so that no way uphill is a circle.
    """
    shape = smooth.shape
    for x in range(first, last):
        for y in range(shape[1]):
            for z in range(shape[2]):
                highest = smooth[x, y, z]
                if not highest > floor:
                    labels[x, y, z] = 0
                    continue
                at = (x * shape[1] + y) * shape[2] + z
                best = PEAK
                for pointer in range(Z_ABOVE, 0):
                    i, j, k = beside(x, y, z, pointer, shape)
                    value = smooth[i, j, k]
                    if value >= highest:
                        index = (i * shape[1] + j) * shape[2] + k
                        if value > highest or index > at:
                            highest, at, best = value, index, pointer
                labels[x, y, z] = best


@compiled
def number_peaks(labels):
    """Number the cells that are PEAK from 1; returns how many there are."""
    flat = labels.reshape(-1)
    count = 0
    for cell in range(flat.size):
        if flat[cell] == PEAK:
            count += 1
            flat[cell] = count
    return count


@compiled
def follow_pointers(labels, first, last):
    """Replace pointers by the number of the peak that they lead to.

    A way is walked twice, to find the number and to leave it there; later ways end where they meet it. So they do
    where another thread leaves its numbers: what it has not yet reached, the loop over the cells does.
    """
    shape = labels.shape
    for x in range(first, last):
        for y in range(shape[1]):
            for z in range(shape[2]):
                pointer = labels[x, y, z]
                i, j, k = x, y, z
                while pointer < 0:
                    i, j, k = beside(i, j, k, pointer, shape)
                    pointer = labels[i, j, k]
                label = pointer
                i, j, k = x, y, z
                pointer = labels[x, y, z]
                while pointer < 0:
                    labels[i, j, k] = label
                    i, j, k = beside(i, j, k, pointer, shape)
                    pointer = labels[i, j, k]


@compiled
def highest_saddles(smooth, labels, first, last):
    """The pairs of labels that touch and the height of the highest saddle of each, as an open hash table.

    A saddle is the lower one of two neighbouring cells. Returns keys, (smaller label) 2^32 + larger label, or 0 where
    the table is empty, and heights.
    """
    shape = smooth.shape
    keys, heights = np.zeros(1024, np.uint64), np.empty(1024, np.float32)
    count = 0
    for x in range(first, last):
        for y in range(shape[1]):
            for z in range(shape[2]):
                label = labels[x, y, z]
                if label == 0:
                    continue
                for pointer in (X_ABOVE, Y_ABOVE, Z_ABOVE):
                    i, j, k = beside(x, y, z, pointer, shape)
                    other = labels[i, j, k]
                    if other == 0 or other == label:
                        continue
                    height = min(smooth[x, y, z], smooth[i, j, k])
                    key = (np.uint64(min(label, other)) << np.uint64(32)) | np.uint64(max(label, other))
                    slot = _slot(keys, key)
                    if keys[slot] == key:
                        heights[slot] = max(heights[slot], height)
                        continue
                    keys[slot], heights[slot] = key, height
                    count += 1
                    if 2 * count > len(keys):
                        keys, heights = _enlarged(keys, heights)
    return keys, heights


@compiled
def _slot(keys, key):
    """Where a key is in a table of 2^m, or where it is to be put."""
    last = np.uint64(len(keys) - 1)
    slot = (key * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32) & last  # Fibonacci hashing
    while keys[slot] != 0 and keys[slot] != key:
        slot = (slot + np.uint64(1)) & last
    return slot


@compiled
def _enlarged(keys, heights):
    """The table with twice the room."""
    new_keys, new_heights = np.zeros(2 * len(keys), np.uint64), np.empty(2 * len(keys), np.float32)
    for old in range(len(keys)):
        if keys[old]:
            slot = _slot(new_keys, keys[old])
            new_keys[slot], new_heights[slot] = keys[old], heights[old]
    return new_keys, new_heights


@compiled
def join_unmarked(one, other, marker):
    """Give every basin without a marker that of the basins it is joined with, in place; (basins + 1,), 0 for none.

    one, other: basins that touch, by falling height of their highest saddle. Two are joined unless both have markers,
    which is Kruskal's algorithm for the tree of highest saddles.
    """
    up = np.arange(len(marker))
    for pair in range(len(one)):
        a, b = root(up, one[pair]), root(up, other[pair])
        if a != b and not (marker[a] and marker[b]):
            if marker[a]:
                up[b] = a
            else:
                up[a] = b
    for basin in range(len(marker)):
        marker[basin] = marker[root(up, basin)]


@compiled
def renumber(labels, number, first, last):
    """Replace every label by its new number, in place."""
    for x in range(first, last):
        for y in range(labels.shape[1]):
            for z in range(labels.shape[2]):
                labels[x, y, z] = number[labels[x, y, z]]


@compiled
def largest_label(labels):
    """The largest label, at least 0."""
    flat = labels.reshape(-1)
    largest = 0
    for cell in range(flat.size):
        largest = max(largest, flat[cell])
    return largest


@compiled
def count_cells(labels, count):
    """Add the cells of each label to `count`; labels below 0 are not counted."""
    flat = labels.reshape(-1)
    for cell in range(flat.size):
        if flat[cell] >= 0:
            count[flat[cell]] += 1


@compiled
def gather_cells(distance, labels, position, cells, values):
    """Write the cells of all regions and what the map is there, at least 0, region by region.

    position: where the next cell of each label goes, (labels,), moved on.
    """
    flat, height = labels.reshape(-1), distance.reshape(-1)
    for cell in range(flat.size):
        label = flat[cell]
        if label > 0:
            at = position[label]
            cells[at] = cell
            values[at] = max(height[cell], np.float32(0))
            position[label] = at + 1


@compiled
def sort_regions(cells, values, bits, start, size, radius, first, last):
    """Sort the cells of each region by falling value, and replace values by mean value so far times radius, in place.

    bits: `values` seen as uint32; a float that is not negative sorts like its bits, and with the place of its cell in
    the lower half of a key cells of one value stay in order. radius: of the sphere of 1, 2, ... cells.
    """
    for region in range(first, last):
        begin, cells_of_it = start[region], size[region]
        key = np.empty(cells_of_it, np.uint64)
        for k in range(cells_of_it):
            key[k] = (np.uint64(0xFFFFFFFF - bits[begin + k]) << np.uint64(32)) | np.uint64(k)
        key.sort()
        unsorted_cells, unsorted_values = cells[begin:begin + cells_of_it].copy(), values[begin:begin + cells_of_it].copy()
        total = 0.0
        for k in range(cells_of_it):
            old = np.int64(key[k] & np.uint64(0xFFFFFFFF))
            cells[begin + k] = unsorted_cells[old]
            total += unsorted_values[old]
            values[begin + k] = total / (k + 1) * radius[k]


@compiled
def last_above(distance, start, size, line, cut):
    """Cells of each region up to the last at which its trajectory is not below the line, given for 1, 2, ... cells."""
    for region in range(len(start)):
        volume = size[region]
        while volume and not distance[start[region] + volume - 1] >= line[volume - 1]:
            volume -= 1
        cut[region] = volume


@compiled
def write_labels(cells, start, kept, number, labels):
    """Write the number of each region into the first of its cells, as many as are kept."""
    flat = labels.reshape(-1)
    for region in range(len(start)):
        for k in range(start[region], start[region] + kept[region]):
            flat[cells[k]] = number[region]


@compiled
def measure(labels, distance, wave, cells, centre, peak):
    """Add up the cells of each label >= 0, and their (cos, sin) along each axis; and the highest value of the map.

    wave: (cos, sin) of the phases of the layers, (3, n, 2).  centre: (labels, 3, 2).
    """
    for x in range(labels.shape[0]):
        for y in range(labels.shape[1]):
            for z in range(labels.shape[2]):
                label = labels[x, y, z]
                if label < 0:
                    continue
                cells[label] += 1
                peak[label] = max(peak[label], distance[x, y, z])
                for part in range(2):
                    centre[label, 0, part] += wave[0, x, part]
                    centre[label, 1, part] += wave[1, y, part]
                    centre[label, 2, part] += wave[2, z, part]
