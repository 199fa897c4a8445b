"""From a density to a distance map, and from that to haloes, where no machine holds the box: block by block.

The map is that of the whole box to float32 rounding, haloes are the same to the last label.

Maps are read, and labels written, a block at a time: NumPy and zarr arrays and HDF5 datasets, the latter to be read
only. Where other processes work, through a client of Dask, arrays must be zarr's or HDF5's, on a disk that all see.

Steepest ascent is local but for its ways, which leave a block. So every cell first gets the number of where its way
ends within the block: a peak, or the cell at which it leaves. The cells at the faces of neighbouring blocks then say
where it goes on. Basins, their highest saddles and all that follows are tables, put together in one process. Blocks
leave what is large in a folder, `scratch`: 4 bytes for each cell and 16 for each in a region.

Importing this imports Numba.
"""

import contextlib
import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kerasgal.apps.protohalo import basins, watershed
from kerasgal.channel_names import names_of
from kerasgal.cluster import Runs, each
from kerasgal.compiled import compiled
from kerasgal.conditioning import check_given, parameter_names
from kerasgal.errors import DataError, MissingError, SettingError
from kerasgal.grid import wrapped_block
from kerasgal.tiling import asked

PEAK = basins.PEAK  # codes below it: the way leaves the block there, with the pointer that many higher
BLOCK = 256  # cells of a side of a block

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Box:
    """How a box is cut: `shape`, and for each axis the `edges` of its blocks, beginning with 0."""

    shape: tuple
    edges: tuple

    @classmethod
    def cut(cls, shape, block):
        """Into blocks of so many cells a side, the last of an axis smaller; `block`: a number, or one for each axis."""
        sides = (block,) * len(shape) if isinstance(block, int | np.integer) else tuple(block)
        if len(sides) != len(shape) or any(side < 1 for side in sides):
            raise SettingError(f"block={block!r}: accepted are whole numbers of at least 1, one or three", value=block)
        edges = tuple((*range(0, n, side), n) for n, side in zip(shape, sides))
        return cls(tuple(map(int, shape)), edges)

    @property
    def counts(self):
        """Blocks along each axis."""
        return tuple(len(edges) - 1 for edges in self.edges)

    def blocks(self):
        """For each block its start and its shape, two tuples, in C order."""
        for place in np.ndindex(self.counts):
            start = tuple(edges[at] for edges, at in zip(self.edges, place))
            stop = tuple(edges[at + 1] for edges, at in zip(self.edges, place))
            yield start, tuple(after - first for after, first in zip(stop, start))

    def beside(self, number, axis, step):
        """The number of the block beside one, across a face of the box if need be."""
        place = list(np.unravel_index(number, self.counts))
        place[axis] = (place[axis] + step) % self.counts[axis]
        return int(np.ravel_multi_index(place, self.counts))

    def holders(self, cells):
        """The numbers of the blocks that hold cells, given as flat indices."""
        places = [np.searchsorted(edges, at, side="right") - 1
                  for edges, at in zip(self.edges, np.unravel_index(cells, self.shape))]
        return np.ravel_multi_index(places, self.counts)


class Hdf5:
    """An HDF5 dataset that is opened anew for every reading, so that other processes can be given it."""

    def __init__(self, dataset):
        self.path, self.name = dataset.file.filename, dataset.name
        self.shape, self.dtype, self.ndim = dataset.shape, dataset.dtype, dataset.ndim

    def __getitem__(self, selection):
        import h5py

        with h5py.File(self.path) as file:
            return file[self.name][selection]


@dataclass(frozen=True)
class Field:
    """A periodic map, (nx, ny, nz), and how much it is to be smoothed when it is read [cells]."""

    array: object
    smoothing: float = 0.0

    def read(self, start, shape, context=0):
        """A block with some cells around it, float32 and contiguous."""
        reach = int(4 * self.smoothing + 0.5)  # where SciPy's Gaussian ends
        wide = context + reach
        values = wrapped_block(self.array, [at - wide for at in start], [side + 2 * wide for side in shape])
        values = values.astype(np.float32, copy=False)
        if not self.smoothing:
            return values
        from scipy import ndimage

        values = ndimage.gaussian_filter(values, self.smoothing, mode="nearest")
        return np.ascontiguousarray(values[(slice(reach, -reach),) * 3]) if reach else values


def field_of(array, smoothing, client):
    """A `Field` that can be sent to where it is read. Raises SettingError for an array in this process's memory."""
    if type(array).__module__.startswith("h5py"):
        array = Hdf5(array)
    if client is not None and isinstance(array, np.ndarray):
        raise SettingError("other processes cannot read an array in the memory of this one: give a zarr array or an "
                           "HDF5 dataset, or client=None")
    if len(array.shape) != 3:
        raise SettingError(f"a map has three axes, received the shape {tuple(array.shape)}", value=array.shape)
    return Field(array, float(smoothing))


def check_cube(shape):
    """Raise SettingError for a box of unequal sides, whose `boxsize` would be that of one of them alone."""
    if len(set(shape)) > 1:
        raise SettingError(f"a box of {' x '.join(map(str, shape))} cells is no cube: `boxsize` is the length of all "
                           "its sides", value=tuple(shape))


@contextlib.contextmanager
def folder_of(scratch, client):
    """The folder for what blocks leave to each other: `scratch`, which stays, or a temporary one."""
    if scratch is None and client is not None:
        raise SettingError("`scratch` is missing: a folder that all workers see")
    with contextlib.ExitStack() as stack:
        path = Path(scratch or stack.enter_context(tempfile.TemporaryDirectory(prefix="kerasgal-blocks-")))
        path.mkdir(parents=True, exist_ok=True)
        yield path.resolve()


@compiled
def point_uphill(padded, origin, shape, floor, labels):
    """As `basins.point_uphill`, in a block of a box of that shape whose first cell is `origin`.

    padded: the map with one more layer on each side. What points out of the block has its pointer plus PEAK.
    """
    side = labels.shape
    for x in range(side[0]):
        for y in range(side[1]):
            for z in range(side[2]):
                highest = padded[x + 1, y + 1, z + 1]
                if not highest > floor:
                    labels[x, y, z] = 0
                    continue
                at = ((x + origin[0]) * shape[1] + y + origin[1]) * shape[2] + z + origin[2]
                best = PEAK
                for pointer in range(basins.Z_ABOVE, 0):
                    i, j, k = stepped(x, y, z, pointer)
                    value = padded[i + 1, j + 1, k + 1]
                    if value >= highest:
                        index = (((i + origin[0]) % shape[0] * shape[1] + (j + origin[1]) % shape[1]) * shape[2]
                                 + (k + origin[2]) % shape[2])
                        if value > highest or index > at:
                            highest, at, best = value, index, pointer
                if best != PEAK:
                    i, j, k = stepped(x, y, z, best)
                    if i < 0 or j < 0 or k < 0 or i == side[0] or j == side[1] or k == side[2]:
                        best += PEAK
                labels[x, y, z] = best


@compiled
def stepped(x, y, z, pointer):
    """The cell that a pointer points to, maybe outside the block."""
    if pointer == basins.X_BELOW:
        x -= 1
    elif pointer == basins.X_ABOVE:
        x += 1
    elif pointer == basins.Y_BELOW:
        y -= 1
    elif pointer == basins.Y_ABOVE:
        y += 1
    elif pointer == basins.Z_BELOW:
        z -= 1
    elif pointer == basins.Z_ABOVE:
        z += 1
    return x, y, z


@compiled
def number_ends(flat, cell, way):
    """Number from 1 the cells at which ways end: peaks, and those that point out of the block; in flat labels.

    Written are the end's flat index in the block, and the pointer there, 0 at a peak.
    """
    count = 0
    for at in range(flat.size):
        if flat[at] <= PEAK:
            count += 1
            cell[count] = at
            way[count] = 0 if flat[at] == PEAK else flat[at] - PEAK
            flat[at] = count


def climb(task):
    """First pass over a block: the ends of all ways, kept as labels in `scratch`, and the saddles between them.

    task: (number, start, shape, field, floor, shape of the box, flat indices of marked cells, scratch)

    Returns the number of ends, the peaks among them, their cells in the box and their heights, the cells of each end,
    the end of each marked cell, and the saddles (one, other, low, high).
    """
    number, start, shape, field, floor, box, marked, scratch = task
    padded = field.read(start, shape, 1)
    labels = np.empty(shape, np.int32)
    point_uphill(padded, start, box, floor, labels)
    count = np.count_nonzero(labels <= PEAK)
    cell, way = np.zeros(count + 1, np.int64), np.zeros(count + 1, np.int8)
    number_ends(labels.reshape(-1), cell, way)
    basins.follow_pointers(labels, 0, shape[0])
    size = np.zeros(count + 1, np.int64)
    basins.count_cells(labels.reshape(-1), size)
    np.save(scratch / f"ends_{number}.npy", labels)
    inner = padded[1:-1, 1:-1, 1:-1]
    faces = {}
    for axis in range(3):
        for name, layer in (("first", 0), ("last", -1)):
            faces[f"{name}_{axis}"] = labels.take(layer, axis)
            faces[f"{name}_{axis}_map"] = inner.take(layer, axis)
    np.savez(scratch / f"faces_{number}.npz", cell=cell, way=way, **faces)
    peak = np.flatnonzero(way == 0)[1:]
    place = np.unravel_index(cell[peak], shape)
    whole, height = np.ravel_multi_index([at + first for at, first in zip(place, start)], box), inner[place]
    at = np.unravel_index(marked, box)
    ends = labels[tuple(index - first for index, first in zip(at, start))]
    # One more layer without labels, so that no neighbour is seen across the block's faces
    open_labels = np.zeros([side + 1 for side in shape], np.int32)
    open_labels[:-1, :-1, :-1] = labels
    del labels, inner
    return count, peak, whole, height, size, ends, block_saddles(np.ascontiguousarray(padded[1:, 1:, 1:]), open_labels)


def block_saddles(smooth, labels):
    """The pairs of labels that touch and the highest saddle of each: pair (see `basins`), low, high."""
    rows = labels.shape[0] * labels.shape[1]
    room = 1 << max(12 * labels.shape[2], min(labels.size // 512, 2**19)).bit_length()
    found, first = [], 0
    while first < rows:  # a full table is put aside, and another begun
        keys, low, high = np.zeros(room, np.int64), np.empty(room, np.float32), np.empty(room, np.float32)
        first = basins.highest_saddles(smooth, labels, keys, low, high, first, rows)
        used = keys > 0
        found.append((keys[used], low[used], high[used]))
    return highest(*map(np.concatenate, zip(*found)))


def highest(pair, low, high):
    """The highest saddle of each pair, by rising pair; of two with one lower cell that with the higher other one."""
    order = np.lexsort((high, low, pair))
    last = order[np.diff(pair[order], append=-1) != 0]
    return pair[last], low[last], high[last]


def cross(task):
    """Second pass, over a block's faces: where ways go on, and the saddles to the next blocks.

    task: (number, box, scratch)

    Returns the ends that leave, the blocks and the ends there that they lead to; and for each axis the block above and
    the saddles to it (one here << 32 | one there, low, high).
    """
    number, box, scratch = task
    with np.load(scratch / f"faces_{number}.npz") as file:
        own = dict(file)
    shape = [len(own["first_1"]), len(own["first_0"]), own["first_0"].shape[1]]
    at = np.unravel_index(own["cell"], shape)
    leaving, block, end, saddles = [], [], [], []
    for axis in range(3):
        for name, step, pointer in (("first", 1, basins.X_ABOVE - axis), ("last", -1, basins.X_BELOW - axis)):
            other = box.beside(number, axis, step)
            with np.load(scratch / f"faces_{other}.npz") as file:
                there = file[f"{name}_{axis}"]
                heights = file[f"{name}_{axis}_map"] if step > 0 else None
            ends = np.flatnonzero(own["way"] == pointer)
            leaving.append(ends)
            block.append(np.full(len(ends), other))
            end.append(there[tuple(at[along][ends] for along in range(3) if along != axis)])
            if step > 0:
                here, mine = own[f"last_{axis}"], own[f"last_{axis}_map"]
                touch = (here > 0) & (there > 0)
                pair = here[touch].astype(np.int64) << 32 | there[touch]
                one, two = mine[touch], heights[touch]
                saddles.append((other, *highest(pair, np.minimum(one, two), np.maximum(one, two))))
    return np.concatenate(leaving), np.concatenate(block), np.concatenate(end), saddles


@dataclass
class Basins:
    """What the passes over the blocks found: tables, no volume.

    offset: of the ends of each block in a list of all, whose first one, number 0, is the background; (blocks + 1,).
    basin: of each end, numbered from 1 in the order of their peaks.  size: cells of each end.  top: height of each
    basin's peak, that of number 0 being 0, (basins + 1,).
    pair, low, high: the highest saddles of basins.  marked: basin of each marked cell.
    """

    offset: np.ndarray
    basin: np.ndarray
    size: np.ndarray
    top: np.ndarray
    pair: np.ndarray
    low: np.ndarray
    high: np.ndarray
    marked: np.ndarray

    def of_block(self, number, table):
        """The part of a table of ends that a block needs: by its own numbers, from 0 for the background."""
        return np.concatenate([table[:1], table[self.offset[number] + 1:self.offset[number + 1] + 1]])


def find_basins(field, box, floor, cells, scratch, client):
    """The two passes over all blocks; returns `Basins`. cells: flat indices of the marked cells."""
    holder = box.holders(cells)
    inside = [np.flatnonzero(holder == number) for number in range(np.prod(box.counts))]
    tasks = [(number, start, shape, field, floor, box.shape, cells[inside[number]], scratch)
             for number, (start, shape) in enumerate(box.blocks())]
    found = list(each(climb, tasks, client))
    offset = np.cumsum([0, *(count for count, *_ in found)])
    up = np.arange(offset[-1] + 1)
    size = np.concatenate([[0], *(sizes[1:] for _, _, _, _, sizes, _, _ in found)])
    peaks = np.concatenate([first + peak for first, (_, peak, *_) in zip(offset, found)])
    order = np.argsort(np.concatenate([whole for _, _, whole, *_ in found]))
    top = np.concatenate([np.zeros(1, np.float32), np.concatenate([height for _, _, _, height, *_ in found])[order]])
    marked = np.empty(len(cells), np.int64)
    pairs = []
    for number, (first, (*_, ends, (pair, low, high))) in enumerate(zip(offset, found)):
        marked[inside[number]] = np.where(ends > 0, first + ends, 0)
        pairs.append((first + (pair >> 32), first + (pair & 0xFFFFFFFF), low, high))
    del found
    crossings = each(cross, [(number, box, scratch) for number in range(len(tasks))], client)
    for first, (leaving, block, end, saddles) in zip(offset, crossings):
        up[first + leaving] = offset[block] + end
        for other, pair, low, high in saddles:
            pairs.append((first + (pair >> 32), offset[other] + (pair & 0xFFFFFFFF), low, high))
    while True:  # a way through many blocks
        farther = up[up]
        if np.array_equal(farther, up):
            break
        up = farther
    basin = np.zeros(len(up), np.int64)
    basin[peaks[order]] = np.arange(1, len(peaks) + 1)
    basin = basin[up]
    one, other, low, high = map(np.concatenate, zip(*pairs))
    return Basins(offset, basin, size, top, *between(basin[one], basin[other], low, high), basin[marked])


def between(one, other, low, high):
    """The highest saddles of pairs of labels that differ, neither of them 0: pair, low, high."""
    apart = (one != other) & (one > 0) & (other > 0)
    one, other = one[apart], other[apart]
    return highest(np.minimum(one, other) << 32 | np.maximum(one, other), low[apart], high[apart])


def falling(pair, low, high):
    """Pairs by falling height of their saddles: two labels, the smaller one first, and the height."""
    order = np.lexsort((-high, -low))
    return pair[order] >> 32, pair[order] & 0xFFFFFFFF, low[order]


def join_basins(found, numbers):
    """The label of each basin, (basins + 1,) int32, as in `watershed.native`; numbers: of the marked cells."""
    label = np.zeros(len(found.top), np.int32)
    label[found.marked] = numbers  # of several markers in a basin the last counts
    label[0] = 0
    one, other, _ = falling(found.pair, found.low, found.high)
    basins.join_unmarked(one, other, np.arange(len(found.top)), label)
    return label


def join_fragments(found, label, depth, dynamics):
    """New labels of the basins once fragments are joined, as in `watershed.join_fragments`."""
    count = int(label.max(initial=0)) + 1
    size, top = np.zeros(count, np.int64), np.zeros(count, np.float32)
    np.add.at(size, label[found.basin], found.size)
    np.maximum.at(top, label, found.top)
    pair, low, high = between(label[found.pair >> 32].astype(np.int64),
                              label[found.pair & 0xFFFFFFFF].astype(np.int64), found.low, found.high)
    one, other, height = falling(pair, low, high)
    joins = watershed.fragments(one, other, height, size, top, depth, dynamics)
    number = np.empty(count, np.int32)
    basins.components(one[joins], other[joins], np.arange(count), number)
    return number[label]


def checked_markers(markers, shape):
    """Flat indices of the marked cells, rising, and their numbers, of a pair of the two or of an array like the map."""
    if isinstance(markers, np.ndarray) and markers.shape == tuple(shape):
        cells = np.flatnonzero(markers)
        return cells, markers.reshape(-1)[cells]
    cells, numbers = (np.asarray(part) for part in markers)
    order = np.argsort(cells, kind="stable")
    return cells[order].astype(np.int64), numbers[order].astype(np.int32)


def write_block(task):
    """Third pass: the label of every cell of a block, by the label of its end."""
    number, start, shape, table, out, scratch = task
    labels = np.load(scratch / f"ends_{number}.npy").reshape(-1)
    basins.renumber(labels, table, 0, labels.size)
    out[tuple(slice(at, at + side) for at, side in zip(start, shape))] = labels.reshape(shape)


def native(distance, markers, floor, out, *, smoothing=0.0, block=BLOCK, scratch=None, client=None):
    """`watershed.native`, block by block: the same labels, whatever the blocks and wherever they are worked on.

    distance: the map to be flooded, (nx, ny, nz), once it is smoothed.  markers: flat indices of the marked cells and
    their numbers > 0, a pair of arrays, or an array as the map.  out: where int32 labels are written.  block: cells of
    a side, or of three; a process takes some 40 bytes for each cell of a block. Where other processes write into
    chunks of `out`, none may belong to two blocks.  scratch: see the module.
    """
    field = field_of(distance, smoothing, client)
    box = Box.cut(field.array.shape, block)
    check_output(out, box, client)
    cells, numbers = checked_markers(markers, box.shape)
    with folder_of(scratch, client) as folder:
        found = find_basins(field, box, floor, cells, folder, client)
        label = join_basins(found, numbers)
        _write(found, label, box, out, folder, client)


def _write(found, label, box, out, scratch, client):
    table = label[found.basin]
    tasks = ((number, start, shape, found.of_block(number, table), out, scratch)
             for number, (start, shape) in enumerate(box.blocks()))
    for _ in each(write_block, tasks, client):
        pass


def check_output(out, box, client):
    """Raise SettingError if blocks cannot be written there by several processes."""
    if tuple(out.shape) != box.shape:
        raise SettingError(f"an output of the shape {tuple(out.shape)} does not fit a box of {box.shape}",
                           value=out.shape, accepted=box.shape)
    if client is None:
        return
    if isinstance(out, np.ndarray) or type(out).__module__.startswith("h5py"):
        raise SettingError("other processes write their blocks at the same time, which only a zarr array takes")
    # Files are what is written as a whole: shards where there are some, else chunks
    for side, edges in zip(getattr(out, "shards", None) or out.chunks, box.edges):
        if any(edge % side for edge in edges[:-1]):
            raise SettingError(f"block={edges[1]}: two blocks would write into one chunk of {side} cells; give a "
                               f"multiple of {side}", value=edges[1], accepted=side)


def block_peaks(task):
    """Flat indices in the box of the peaks in a block, as `watershed.find_markers` finds them there."""
    start, shape, field, lowest, reach, box = task
    context = max(reach, 1)
    smooth = field.read(start, shape, context)
    markers, _ = watershed.find_markers(smooth, 0.0, lowest, reach)
    inside = np.nonzero(markers[(slice(context, -context),) * 3])
    return np.ravel_multi_index([at + first for at, first in zip(inside, start)], box)


def find_markers(distance, smoothing, marker, separation, *, block=BLOCK, client=None):
    """`watershed.find_markers`, block by block: flat indices of the peaks, rising, and their numbers, int32."""
    field = field_of(distance, smoothing, client)
    box = Box.cut(field.array.shape, block)
    reach = min(separation, max(box.shape) // 2)
    tasks = [(start, shape, field, marker, reach, box.shape) for start, shape in box.blocks()]
    cells = np.sort(np.concatenate(list(each(block_peaks, tasks, client))))
    at = np.unravel_index(cells, box.shape)
    one, other = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for step in list(np.ndindex(3, 3, 3))[14:]:  # one half of the neighbours, the others see them from there
        moved = np.ravel_multi_index([index + by - 1 for index, by in zip(at, step)], box.shape, mode="wrap")
        place = np.minimum(np.searchsorted(cells, moved), len(cells) - 1)
        touch = np.flatnonzero(cells[place] == moved) if len(cells) else place
        one.append(touch)
        other.append(place[touch])
    number = np.empty(len(cells), np.int32)
    basins.components(np.concatenate(one), np.concatenate(other), np.arange(len(cells)), number)
    return cells, number + np.int32(1)


@compiled
def region_cells(labels, table, distance, origin, box, label, cell, value):
    """Write label, flat index in the box and map, at least 0, of all cells of regions, in order."""
    count = 0
    shape = labels.shape
    for x in range(shape[0]):
        for y in range(shape[1]):
            for z in range(shape[2]):
                region = table[labels[x, y, z]]
                if region > 0:
                    label[count] = region
                    cell[count] = ((x + origin[0]) * box[1] + y + origin[1]) * box[2] + z + origin[2]
                    value[count] = max(distance[x, y, z], np.float32(0))
                    count += 1


def gather(task):
    """Sort the cells of a block's regions by the block that the region is cut in, and leave them there."""
    number, start, shape, field, table, size, owner, box, scratch = task
    labels = np.load(scratch / f"ends_{number}.npy")
    inside = size[table > 0].sum()
    label, cell, value = np.empty(inside, np.int32), np.empty(inside, np.int64), np.empty(inside, np.float32)
    region_cells(labels, table, field.read(start, shape), start, box, label, cell, value)
    goes = np.full(int(table.max(initial=0)) + 1, -1)
    goes[table] = owner
    goes[0] = -1
    places, to_each = np.unique(goes[goes >= 0]), goes[label]
    for to in places:
        # Most regions of a block are cut there
        chosen = slice(None) if len(places) == 1 else np.flatnonzero(to_each == to)
        with (scratch / f"cells_{to}_{number}.npy").open("wb") as file:  # one after another: .npz has checksums
            for part in (label, cell, value):
                np.save(file, part[chosen])
    return places


@compiled
def by_region(label, cell, value, position, cells, values):
    """Move cells to their regions, in order; position: where the next cell of each region goes, moved on."""
    for k in range(len(label)):
        at = position[label[k]]
        cells[at], values[at] = cell[k], value[k]
        position[label[k]] = at + 1


@compiled
def let_rise(cells, values, start, size):
    """Sort the cells of each region by themselves; those of one block rise already."""
    for region in range(len(start)):
        first, stop = start[region], start[region] + size[region]
        for k in range(first + 1, stop):
            if cells[k] < cells[k - 1]:
                order = np.argsort(cells[first:stop])
                cells[first:stop] = cells[first:stop][order]
                values[first:stop] = values[first:stop][order]
                break


@compiled
def measure_kept(cells, values, start, size, kept, last, box, x_wave, y_wave, z_wave, height, peak, centre):
    """What `cut_regions` says of each region, from its rising cells; the waves: (cos, sin) at the cells of an axis."""
    for region in range(len(start)):
        first, stop = start[region], start[region] + size[region]
        height[region] = lowest = values[first + np.searchsorted(cells[first:stop], last[region])]
        highest = values[first]
        for k in range(first, stop):
            value, cell = values[k], cells[k]
            highest = max(highest, value)
            if kept[region] > 0 and (value > lowest or (value == lowest and cell <= last[region])):
                row, z = cell // box[2], cell % box[2]
                x, y = row // box[1], row % box[1]
                for part in range(2):
                    centre[region, 0, part] += x_wave[part, x]
                    centre[region, 1, part] += y_wave[part, y]
                    centre[region, 2, part] += z_wave[part, z]
        peak[region] = highest


def cut_regions(task):
    """Cut the regions that a block owns; returns a table of them.

    Columns: label; kept, the cells left or 0; the map and the flat index of the last cell that is kept, with cells in
    the order of `watershed.trajectories`; peak; centre, sums of (cos, sin) as of `basins.measure`, (regions, 3, 2).
    """
    place, givers, line, minimum, volume, box, scratch = task
    parts = []
    for number in givers:
        with (scratch / f"cells_{place}_{number}.npy").open("rb") as file:
            parts.append([np.load(file) for _ in range(3)])
    unsorted, given, height = map(np.concatenate, zip(*parts))
    del parts
    # By tables of the box's regions: sorting as many labels as there are cells takes longer than all that follows
    counts = np.bincount(unsorted)
    label = np.flatnonzero(counts)
    size, own = counts[label], np.zeros(len(counts), np.int32)
    own[label] = np.arange(len(label))
    start = np.cumsum(size) - size
    cell, value = np.empty(len(given), np.int64), np.empty(len(given), np.float32)
    by_region(own[unsorted], given, height, start.copy(), cell, value)
    del unsorted, given, height
    let_rise(cell, value, start, size)
    original, in_order = value.copy(), cell.copy()
    spheres = watershed.radius(np.arange(1, size.max() + 1))
    basins.sort_regions(cell, value, value.view(np.uint32), start, size, spheres, volume == "native", 0,
                        len(size))
    paths = watershed.Trajectories(cell, start, size, value)
    kept = size if line is None else watershed.cut_sizes(paths, line)
    kept = np.where(kept >= minimum, kept, 0)
    last = cell[start + np.maximum(kept, 1) - 1]
    phases = [2 * np.pi * (np.arange(side) + 0.5) / side for side in box]
    waves = [np.stack([np.cos(phase), np.sin(phase)]) for phase in phases]
    height, peak = np.empty(len(size), np.float32), np.empty(len(size), np.float32)
    centre = np.zeros((len(size), 3, 2))
    measure_kept(in_order, original, start, size, kept, last, box, *waves, height, peak, centre)
    return label, kept, height, last, peak, centre


@compiled
def keep(labels, halo, height, last, distance, origin, box, halo_id):
    """Write the halo of every cell that is not below the last that its region keeps, -1 elsewhere.

    halo, height, last: by label; of two cells of one height that with the smaller flat index is the higher.
    """
    shape = labels.shape
    for x in range(shape[0]):
        for y in range(shape[1]):
            for z in range(shape[2]):
                end = labels[x, y, z]
                halo_id[x, y, z] = -1
                if halo[end] >= 0:
                    value = max(distance[x, y, z], np.float32(0))
                    cell = ((x + origin[0]) * box[1] + y + origin[1]) * box[2] + z + origin[2]
                    if value > height[end] or (value == height[end] and cell <= last[end]):
                        halo_id[x, y, z] = halo[end]


def write_haloes(task):
    """The last pass over a block: the halo of every cell, -1 for none."""
    number, start, shape, field, halo, height, last, out, box, scratch = task
    labels = np.load(scratch / f"ends_{number}.npy")
    halo_id = np.empty(shape, np.int32)
    keep(labels, halo, height, last, field.read(start, shape), start, box, halo_id)
    out[tuple(slice(at, at + side) for at, side in zip(start, shape))] = halo_id


def find_haloes(distance, config, line, out, *, boxsize, cell_mass, block=BLOCK, scratch=None, client=None):
    """From a map to the label volume of its haloes, written into `out`, and their catalogue, block by block.

    The same as `predict.find_haloes` and `watershed.catalogue`, to the last bit. line: None for the native watershed.
    A region is cut where most of its cells are: a process holds, beside a block, the cells of the regions cut there.

    Raises SettingError for a map that is no cube.
    """
    plain = field_of(distance, 0.0, client)
    check_cube(plain.array.shape)
    box = Box.cut(plain.array.shape, block)
    check_output(out, box, client)
    cells, numbers = find_markers(distance, config.smoothing, config.marker, config.separation, block=block,
                                  client=client)
    with folder_of(scratch, client) as folder:
        smoothing = config.smoothing if config.flooded == "smoothed" else 0.0
        found = find_basins(field_of(distance, smoothing, client), box, config.floor, cells, folder, client)
        label = join_basins(found, numbers)
        if config.depth or config.dynamics:
            label = join_fragments(found, label, config.depth, config.dynamics)
        table = label[found.basin]
        owner = owners(found, table)
        blocks = list(enumerate(box.blocks()))
        of_ends = (table, found.size, owner[table])
        tasks = ((number, start, shape, plain, *(found.of_block(number, of) for of in of_ends), box.shape, folder)
                 for number, (start, shape) in blocks)
        givers = {}
        for number, places in enumerate(each(gather, tasks, client)):
            for place in places.tolist():
                givers.setdefault(place, []).append(number)
        cuts = list(each(cut_regions, [(place, from_, line, config.minimum, config.volume, box.shape, folder)
                                       for place, from_ in sorted(givers.items())], client))
        regions = len(owner)
        kept, height, last = np.zeros(regions, np.int64), np.zeros(regions, np.float32), np.zeros(regions, np.int64)
        peak, centre = np.zeros(regions, np.float32), np.zeros((regions, 3, 2))
        for labels, *columns in cuts:
            for whole, column in zip((kept, height, last, peak, centre), columns):
                whole[labels] = column
        order = np.argsort(-kept, kind="stable")[:np.count_nonzero(kept)]
        halo = np.full(regions, -1, np.int32)
        halo[order] = np.arange(len(order))
        tasks = ((number, start, shape, plain, *(found.of_block(number, of[table]) for of in (halo, height, last)),
                  out, box.shape, folder) for number, (start, shape) in blocks)
        for _ in each(write_haloes, tasks, client):
            pass
    position = np.arctan2(centre[order, :, 1], centre[order, :, 0]) / (2 * np.pi) % 1 * boxsize
    return {"halo_id": np.arange(len(order)), "cells": kept[order], "mass": kept[order] * cell_mass,
            "position": position, "peak": peak[order]}


def owners(found, table):
    """The block that has most cells of each region, (labels,); table: label of each end."""
    labels = int(table.max(initial=0)) + 1
    block = np.repeat(np.arange(len(found.offset) - 1), np.diff(found.offset))
    key = table[1:].astype(np.int64) * (len(found.offset) - 1) + block
    keys, place = np.unique(key, return_inverse=True)
    cells = np.bincount(place, found.size[1:])
    region, holder = np.divmod(keys, len(found.offset) - 1)
    owner = np.zeros(labels, np.int64)
    order = np.argsort(cells, kind="stable")
    owner[region[order]] = holder[order]
    return owner


def predict_distance(run, density, out, *, boxsize, block=BLOCK, context=None, parameters=None, outside_domain=False,
                     client=None):
    """From an initial density contrast to the map that a `Protohalo` run predicts, written into `out`, block by block.

    Dask's `map_overlap` gives every block the cells around it, across the faces of the box. context: how many, a
    multiple of 2^levels as the block is; without it as far as the network sees, and the map is then that of the whole
    box. A block's side must be at least that. parameters: {name: value} of all that the network is given. Returns notes
    as of `Run.check_domain`.

    Raises SettingError for a box that is no cube, blocks that do not fit, a run that sees more than the density or a
    parameter that is missing, DataError for a density that is no contrast, and MissingError without Dask.
    """
    try:
        from dask import array, compute
    except ImportError as error:
        raise MissingError("the map by blocks needs the package dask: pip install 'kerasgal[dask]'") from error
    names = names_of(run.config.channels)
    if names != ("density",):
        raise SettingError(f"channels={run.config.channels}: those other than the density are made of the whole box; "
                           "by blocks there is density alone", value=run.config.channels, accepted=("density",))
    wanted, parameters = parameter_names(run.config), parameters or {}
    check_given(wanted, parameters)
    missing = [name for name in wanted if name not in parameters]
    if missing:
        raise SettingError(f"`parameters` must say {', '.join(missing)}, which the run is given and a density does not "
                           "say", accepted=wanted)
    source, multiple = field_of(density, 0.0, client).array, 2**run.config.levels
    check_cube(source.shape)
    box = Box.cut(source.shape, block)
    check_output(out, box, client)
    depth = seen(run.config.levels, context)
    sides = [after - first for edges in box.edges for first, after in zip(edges, edges[1:])]
    if any(side % multiple for side in sides):
        raise SettingError(f"block={block}: it and the sides of the box must be multiples of {multiple}", value=block)
    if min(sides) < depth:
        raise SettingError(f"block={block}: the smallest side of a block, {min(sides)}, is less than its context, "
                           f"context={depth}: give a larger `block` or a smaller `context`", value=block,
                           accepted=(depth, None))
    scheduler = client or "synchronous"
    chunks = tuple(tuple(np.diff(edges).tolist()) for edges in box.edges)
    field = array.from_array(source, chunks=chunks, name=False).astype(np.float32)
    mean, deviation = map(float, compute(field.mean(dtype=np.float64), field.std(dtype=np.float64),
                                         scheduler=scheduler))
    if not np.isfinite(deviation) or deviation == 0 or abs(mean) > 0.05 * deviation + 1e-6:
        raise DataError(f"the density has the mean {mean:.3g} and the standard deviation {deviation:.3g}: expected is "
                        "a density contrast of mean zero, finite everywhere")
    notes = run.check_domain("the density", {"cellsize": boxsize / source.shape[0], **parameters},
                             outside_domain=outside_domain)
    predicted = field.map_overlap(predict_block, depth=depth, boundary="periodic", allow_rechunk=False,
                                  dtype=np.float32, meta=np.empty((0, 0, 0), np.float32), runs=Runs([run], client),
                                  deviation=np.float32(deviation), parameters=[parameters[name] for name in wanted])
    compute(array.store(predicted, out, lock=False, compute=False), scheduler=scheduler)
    return notes


def seen(levels, context):
    """The cells around a block: `context`, or as many as a U-Net of so many levels sees, to the next multiple."""
    from kerasgal.apps.protohalo.model import receptive_radius  # with Keras, which the watershed does without

    multiple, radius = 2**levels, receptive_radius(levels)
    if context is None:
        return -(-radius // multiple) * multiple
    if context % multiple or context < 0:
        raise SettingError(f"context={context}: it must be a multiple of {multiple}", value=context)
    if context < radius:
        log.info(f"the network sees {radius} cells to either side and blocks have {context} around them: near their "
                 "faces it misses a part of that")
    return context


def predict_block(density, runs, deviation, parameters=()):
    """The distance map of a block with its context, (nx, ny, nz) float32. runs: `cluster.Runs` of a run."""
    run, = runs.get()
    inputs = (density / deviation)[None, ..., None]
    network = asked(run.network, parameters, run.config.mirrored)
    return np.asarray(network.predict_on_batch(inputs), np.float32)[0, ..., 0]
