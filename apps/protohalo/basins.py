"""What the watershed does cell by cell in a periodic box, compiled by Numba.

Importing this imports Numba. Volumes are (n, n, n) and contiguous, maps float32, labels int32; `flat` is a label
volume seen as (n^3,). Every function lets go of Python's lock. Those that take `first` and `last` work on these layers,
rows or regions alone, so that threads share the work (`in_threads`); the result is the same however it is shared. None
looks farther than one layer beyond its own, except `follow_pointers` along a pointer.
"""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from kerasgal.compiled import compiled, root

FEWEST = 2**21  # cells, below which starting threads does not pay

# What a cell holds before it has a label: where its highest neighbour is, or that none is higher.
X_BELOW, Y_BELOW, Z_BELOW, X_ABOVE, Y_ABOVE, Z_ABOVE, PEAK = range(-1, -8, -1)


def in_threads(kernel, length, *arguments, cells):
    """Call kernel(*arguments, first, last) for pieces of range(length); returns the list of what it returned."""
    pieces = min(length, os.cpu_count() or 1)
    if pieces < 2 or cells < FEWEST:
        return [kernel(*arguments, 0, length)]
    edges = [length * piece // pieces for piece in range(pieces + 1)]
    with ThreadPoolExecutor(pieces) as pool:
        return list(pool.map(lambda piece: kernel(*arguments, edges[piece], edges[piece + 1]), range(pieces)))


@compiled
def beside(x, y, z, pointer, shape):
    """The cell that a cell's pointer points to, across a face of the box if need be."""
    if pointer == X_BELOW:
        x = (x if x > 0 else shape[0]) - 1
    elif pointer == X_ABOVE:
        x = x + 1 if x + 1 < shape[0] else 0
    elif pointer == Y_BELOW:
        y = (y if y > 0 else shape[1]) - 1
    elif pointer == Y_ABOVE:
        y = y + 1 if y + 1 < shape[1] else 0
    elif pointer == Z_BELOW:
        z = (z if z > 0 else shape[2]) - 1
    elif pointer == Z_ABOVE:
        z = z + 1 if z + 1 < shape[2] else 0
    return x, y, z


@compiled
def mark_peaks(smooth, lowest, markers, first, last):
    """Markers 1 where a cell of at least `lowest` has no neighbour that is higher, 0 elsewhere."""
    shape = smooth.shape
    for x in range(first, last):
        for y in range(shape[1]):
            for z in range(shape[2]):
                value = smooth[x, y, z]
                peak = value >= lowest
                pointer = Z_ABOVE
                while peak and pointer < 0:
                    peak = not smooth[beside(x, y, z, pointer, shape)] > value
                    pointer += 1
                markers[x, y, z] = peak


@compiled
def components(one, other, up, number):
    """Number sets from 0, in the order of their first members, after joining those in `one` with those in `other`.

    up: 0, 1, 2, ...: every member is a set.  number: of every member's set, is written.
    """
    for pair in range(len(one)):
        a, b = root(up, one[pair]), root(up, other[pair])
        up[max(a, b)] = min(a, b)
    count = 0
    for member in range(len(up)):
        if up[member] == member:
            number[member] = count
            count += 1
        else:
            number[member] = number[root(up, member)]


@compiled
def join_low(one, other, height, dynamics, top, up, joins):
    """Set `joins` for pairs of which the lower peak is less than `dynamics` above their saddle; others keep what it is.

    Pairs come by falling height of their saddles. Regions that have joined are one, whose peak is the higher of theirs.

    top: the highest number of the map in each region, overwritten.  up: 0, 1, 2, ..., overwritten.
    """
    for pair in range(len(one)):
        a, b = root(up, one[pair]), root(up, other[pair])
        if a != b and (joins[pair] or min(top[a], top[b]) - height[pair] < dynamics):
            joins[pair] = True
            up[max(a, b)] = min(a, b)
            top[min(a, b)] = max(top[a], top[b])


@compiled
def highest_cells(smooth, labels, top):
    """The highest number of a map in each label above 0, written into `top`; all flat."""
    for cell in range(len(labels)):
        if labels[cell] > 0:
            top[labels[cell]] = max(top[labels[cell]], smooth[cell])


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
def number_peaks(flat):
    """Number the cells that are PEAK from 1, in flat labels; returns how many there are."""
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
def highest_saddles(smooth, labels, keys, low, high, first, last):
    """Note the pairs of labels that touch and the two cells of the highest saddle of each, in an open hash table.

    Of two saddles that with the higher lower cell is the higher, then that with the higher other cell: one cell may be
    the lower one of saddles to several labels.
    keys: (smaller label) 2^32 + larger label, 0 where the table of 2^m places is empty. low, high: the map at the two
    cells. first, last: rows, of which there are n^2. Returns the row at which the table had no room for one more, or
    `last`.
    """
    shape = smooth.shape
    mask = len(keys) - 1
    room = len(keys) // 2
    for row in range(first, last):
        if room < 3 * shape[2]:
            return row
        x, y = row // shape[1], row % shape[1]
        for z in range(shape[2]):
            label = labels[x, y, z]
            pointer = X_ABOVE if label else 0
            while pointer > PEAK and pointer < 0:  # X_ABOVE, Y_ABOVE, Z_ABOVE: each pair of cells comes once
                i, j, k = beside(x, y, z, pointer, shape)
                pointer -= 1
                other = labels[i, j, k]
                if other == 0 or other == label:
                    continue
                lower, higher = min(smooth[x, y, z], smooth[i, j, k]), max(smooth[x, y, z], smooth[i, j, k])
                key = min(label, other) << 32 | max(label, other)
                slot = (key * 0x1E3779B97F4A7C15 >> 32) & mask  # Fibonacci hashing
                while keys[slot] != key and keys[slot] != 0:
                    slot = (slot + 1) & mask
                if keys[slot] == 0:
                    room -= 1
                elif lower < low[slot] or (lower == low[slot] and higher <= high[slot]):
                    continue
                keys[slot], low[slot], high[slot] = key, lower, higher
    return last


@compiled
def join_unmarked(one, other, up, marker):
    """Give every basin without a marker that of the basins it is joined with, in place; (basins + 1,), 0 for none.

    one, other: basins that touch, by falling height of their highest saddle. Two are joined unless both have markers,
    which is Kruskal's algorithm for the tree of highest saddles. up: 0, 1, 2, ...
    """
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
def renumber(flat, number, first, last):
    """Replace every label by its new number, in place, in flat labels."""
    for cell in range(first, last):
        flat[cell] = number[flat[cell]]


@compiled
def count_cells(flat, count):
    """Add the cells of each label >= 0 to `count`."""
    for cell in range(flat.size):
        if flat[cell] >= 0:
            count[flat[cell]] += 1


@compiled
def gather_cells(distance, flat, position, cells, values):
    """Write the cells of all regions and what the map is there, at least 0, region by region; both volumes are flat.

    position: where the next cell of each label goes, (labels,), moved on.
    """
    for cell in range(flat.size):
        label = flat[cell]
        if label > 0:
            at = position[label]
            cells[at] = cell
            values[at] = distance[cell] if distance[cell] > 0 else 0
            position[label] = at + 1


@compiled
def sort_regions(cells, values, bits, start, size, radius, whole, first, last):
    """Sort the cells of each region by falling value, and replace values by mean value so far times radius, in place.

    bits: the same memory as `values`, seen as uint32, since a float that is not negative sorts like its bits. The sort
    goes byte by byte from the lowest, so that cells of one value stay in order. radius: of spheres of 1, 2, ... cells.
    whole: times the radius of all cells of the region, and not of those so far.
    """
    largest = 0
    for region in range(first, last):
        largest = max(largest, size[region])
    spare = np.empty((2, largest), np.int64)
    place = np.empty(256, np.int64)
    for region in range(first, last):
        begin, count = start[region], size[region]
        for shift in range(0, 8 * bits.itemsize, 8):
            for byte in range(len(place)):
                place[byte] = 0
            for k in range(count):
                spare[0, k], spare[1, k] = cells[begin + k], bits[begin + k]
                place[bits[begin + k] >> shift & 255] += 1
            after = begin + count
            for byte in range(len(place)):  # the largest byte comes first
                after -= place[byte]
                place[byte] = after
            for k in range(count):
                byte = spare[1, k] >> shift & 255
                cells[place[byte]], bits[place[byte]] = spare[0, k], spare[1, k]
                place[byte] += 1
        total = 0.0
        for k in range(count):
            total += values[begin + k]
            values[begin + k] = total / (k + 1) * radius[count - 1 if whole else k]


@compiled
def last_above(distance, start, size, line, cut):
    """Cells of each region up to the last at which its trajectory is not below the line, given for 1, 2, ... cells."""
    for region in range(len(start)):
        volume = size[region]
        while volume and not distance[start[region] + volume - 1] >= line[volume - 1]:
            volume -= 1
        cut[region] = volume


@compiled
def write_labels(cells, start, kept, number, flat):
    """Write the number of each region into the first of its cells, as many as are kept, in flat labels."""
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
                for part in range(wave.shape[2]):
                    centre[label, 0, part] += wave[0, x, part]
                    centre[label, 1, part] += wave[1, y, part]
                    centre[label, 2, part] += wave[2, z, part]
