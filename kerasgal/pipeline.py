"""tf.data: patches of periodic fields, under the symmetries of the cube, in batches.

A volume is a tuple of arrays on one grid, e.g. (input, target), each (x, y, z, channel). A patch is named by the flat
C-order index of its lowest cell; the functions `tiles` and `centred` make lists of those. Where a grid fine enough for
the patches would not fit into memory, `deposits` makes each patch from the particles around it. A sample is made from
its number and the seed alone, so a data set that starts at sample i is the one that was interrupted there.
"""

import itertools
import weakref

import numpy as np
import tensorflow as tf

from kerasgal import planning
from kerasgal.cutting import cut, empty, turn
from kerasgal.errors import DataError
from kerasgal.grid import wrap

_tiles = weakref.WeakValueDictionary()  # one for every box would be twice its field, with a stride of 1


def tiles(shape, stride):
    """Flat indices of the lowest cells of patches every `stride` cells along each axis of a grid.

    With the patch's side as stride the patches tile the box, with half of it they overlap by half, with 1 they stand
    everywhere. The last stride is shorter where it does not divide the grid.

    Parameters
    ----------
    shape : int or sequence of three
        Cells of the grid along all axes, or along each.
    stride : int or sequence of three
        Cells between the patches.

    Returns
    -------
    array of int
        (patches,), C order; not to be written to, as boxes of one grid share it.

    Examples
    --------
    >>> from kerasgal.pipeline import tiles
    >>> tiles(4, 2).tolist()
    [0, 2, 8, 10, 32, 34, 40, 42]
    """
    key = (*np.broadcast_to(shape, 3).tolist(), *np.broadcast_to(stride, 3).tolist())
    made = _tiles.get(key)
    if made is None:
        corners = np.meshgrid(*(np.arange(0, side, step) for side, step in zip(key[:3], key[3:])), indexing="ij")
        made = np.ravel_multi_index([corner.ravel() for corner in corners], key[:3])
        made.flags.writeable = False
        _tiles[key] = made
    return made


def centred(cells, gridsize, patch):
    """Flat indices of the lowest cells of patches that are centred on given cells of a periodic grid.

    Parameters
    ----------
    cells : array of int
        (n,), flat indices into the grid, C order.
    gridsize : int
        Cells of the grid a side.
    patch : int
        Cells of a patch a side.

    Returns
    -------
    array of int
        (n,).

    Examples
    --------
    >>> import numpy as np
    >>> from kerasgal.pipeline import centred
    >>> centred(np.array([21]), gridsize=4, patch=3).tolist()  # of cell (1, 1, 1) the patch begins at (0, 0, 0)
    [0]
    """
    corner = np.stack(np.unravel_index(cells, (gridsize,) * 3)) - patch // 2
    return np.ravel_multi_index(tuple(corner % gridsize), (gridsize,) * 3)


def check_patch(gridsize, patch):
    """Refuse a patch that is larger than the grid it is cut from.

    Parameters
    ----------
    gridsize, patch : int
        Cells a side.

    Raises
    ------
    DataError
        If it is.

    Examples
    --------
    >>> from kerasgal.pipeline import check_patch
    >>> check_patch(64, 32)
    """
    if gridsize < patch:
        raise DataError(f"the grid has {gridsize} cells a side, fewer than the patch of {patch}: choose a smaller "
                        "`patch`, or a simulation with more cells")


def cube_symmetries(reflections=False):
    """The 24 rotations of the cube, or all 48 symmetries with reflections.

    Parameters
    ----------
    reflections : bool
        Whether reflections are among them.

    Returns
    -------
    permutations : array of int
        (symmetries, 3), the axes that become x, y and z.
    reversals : array of bool
        (symmetries, 3), which axes to reverse after permuting.

    Examples
    --------
    >>> from kerasgal.pipeline import cube_symmetries
    >>> [len(cube_symmetries(reflections)[0]) for reflections in (False, True)]
    [24, 48]
    """
    permutations, reversals = [], []
    for permutation in itertools.permutations(range(3)):
        parity = np.linalg.det(np.eye(3)[list(permutation)])
        for reversal in itertools.product((False, True), repeat=3):
            if reflections or parity * (-1) ** sum(reversal) > 0:
                permutations.append(permutation)
                reversals.append(reversal)
    return np.array(permutations), np.array(reversals)


def _transform(patch, permutation, reversal):
    """One symmetry of the cube applied to the first three axes of a patch, (x, y, z, channel)."""
    shape = patch.shape
    patch = tf.transpose(patch, tf.concat([tf.cast(permutation, tf.int32), [3]], axis=0))
    patch = tf.raw_ops.Reverse(tensor=patch, dims=tf.concat([reversal, [False]], axis=0))
    return tf.ensure_shape(patch, shape)


def stream(make, samples, batch, *, seed=None, first=0, full=False):
    """Batches of samples that are made from their numbers, as a tf.data.Dataset.

    Parameters
    ----------
    make : callable
        From an int64 tensor, 0 to samples - 1, to a tensor or a tuple of them.
    samples : int
        How many there are.
    batch : int
        Samples per batch.
    seed : int, optional
        Without one every sample comes once, in order. A number gives an endless stream of full batches: every sample
        once in a random order, then again in another order.
    first : int
        Place in the endless stream to start at (steps done times batch).
    full : bool
        Whether to leave out a smaller last batch, as an endless stream always does.

    Returns
    -------
    tf.data.Dataset

    Examples
    --------
    >>> from kerasgal.pipeline import stream
    >>> [batch.numpy().tolist() for batch in stream(lambda number: 10 * number, samples=5, batch=2)]
    [[0, 10], [20, 30], [40]]
    >>> endless = stream(lambda number: number, samples=4, batch=4, seed=1)
    >>> [sorted(batch.numpy().tolist()) for batch in endless.take(2)]
    [[0, 1, 2, 3], [0, 1, 2, 3]]
    """
    dataset = _numbers(samples, seed, first).map(make, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return dataset.batch(batch, drop_remainder=full or seed is not None).prefetch(tf.data.AUTOTUNE)


def _numbers(samples, seed, first):
    """Numbers of samples in the order of `stream`, a dataset of int64 scalars."""
    if seed is None:
        return tf.data.Dataset.range(samples)
    planning.note(samples)

    def shuffled(place):
        turn = tf.cast(place // samples, tf.int32)
        return tf.random.experimental.index_shuffle(
            place % samples, tf.stack([seed, turn]), tf.constant(samples - 1, tf.int64))

    return tf.data.Dataset.counter(first).map(shuffled)


def rows(arrays, batch, *, seed=None, first=0, full=False):
    """Batches of the rows of arrays of equal length, as `stream` orders them.

    Parameters
    ----------
    arrays : list of array
        (rows, ...), each.
    batch : int
        Rows per batch.
    seed, first, full : optional
        See `stream`.

    Returns
    -------
    tf.data.Dataset
        Of tuples of float32 tensors, (batch, ...), one for each array.

    Examples
    --------
    >>> import numpy as np
    >>> from kerasgal.pipeline import rows
    >>> [batch.numpy().tolist() for (batch,) in rows([np.arange(3)], batch=2)]
    [[0.0, 1.0], [2.0]]
    """
    arrays = [tf.constant(array, tf.float32) for array in arrays]
    return stream(lambda number: tuple(array[number] for array in arrays), len(arrays[0]), batch, seed=seed,
                  first=first, full=full)


def _symmetries(name):
    """Permutations and reversals, (symmetries, 3) each, of what `patches` calls by name; for None the identity."""
    permutations, reversals = cube_symmetries(name in ("reflections", "square"))
    kept = np.ones(len(permutations), bool)
    if name == "square":
        kept = (permutations[:, 2] == 2) & ~reversals[:, 2]
    elif not name:
        kept = (permutations == [0, 1, 2]).all(axis=1) & ~reversals.any(axis=1)
    return permutations[kept], reversals[kept]


def _symmetric(make, places, symmetries):
    """From a maker of one sample per place, the maker of one per place and symmetry, and their number.

    `make` returns the arrays that turn with the cube, a tuple, and a tuple of those that do not.
    """
    permutations, reversals = (tf.constant(part) for part in _symmetries(symmetries))
    ways = len(permutations)

    def sample(number):
        symmetry, place = number % ways, number // ways
        arrays, others = make(place)
        if symmetries:
            arrays = tuple(_transform(array, permutations[symmetry], reversals[symmetry]) for array in arrays)
        return (*arrays, *others)

    return sample, places * ways


def _among(volumes, volume):
    """The result of one of several functions without arguments, chosen by an int32 tensor."""
    return tf.switch_case(volume, volumes) if len(volumes) > 1 else volumes[0]()


def patches(volumes, corners, patch, batch, *, targets=None, seed=None, first=0, symmetries=None, vector=None,
            full=False):
    """Batches of patches of several periodic volumes, under the symmetries of the cube.

    Parameters
    ----------
    volumes : list of tuple of array or kerasgal.scratch.Stored
        For each volume its arrays, (x, y, z, channel); grids may differ between volumes.
    corners : list of array of int
        For each volume the flat indices of its patches' lowest cells; see `tiles` and `centred`.
    patch : int or sequence of three
        Cells per side, or along each of the three axes: maps that lie in a volume side by side along z are cut by
        (side, side, 1).
    batch : int
        Samples per batch.
    targets : list of array, optional
        For each volume a row per corner, which the tuples then end with.
    seed : int, optional
        Without one every patch comes once, in order, as it stands. A number gives an endless stream: every patch in
        each of its symmetries once, in a random order, then again in another order.
    first : int
        Number of the sample to start the endless stream at (steps done times batch).
    symmetries : {None, "rotations", "reflections", "square"}
        The 24 rotations, all 48 symmetries, or of maps the 8 of the square.
    vector : int, optional
        First of three channels that are the components of a vector, which turns with the cube, of the arrays that have
        as many.
    full : bool
        Whether to leave out a smaller last batch, as an endless stream always does.

    Returns
    -------
    tf.data.Dataset
        Of tuples of float32 tensors, (batch, patch, patch, patch, channel), one for each array of a volume.

    Raises
    ------
    DataError
        If a grid is smaller than the patch.

    Examples
    --------
    >>> import numpy as np
    >>> from kerasgal.pipeline import patches, tiles
    >>> density = np.random.default_rng(0).normal(size=(16, 16, 16, 1))
    >>> data = patches([(density,)], [tiles(16, 8)], patch=8, batch=3)
    >>> [tuple(batch.shape) for (batch,) in data]
    [(3, 8, 8, 8, 1), (3, 8, 8, 8, 1), (2, 8, 8, 8, 1)]
    """
    sides = (patch,) * 3 if isinstance(patch, int) else patch
    for arrays in volumes:
        for gridsize, side in zip(arrays[0].shape, sides):
            check_patch(gridsize, side)
    # What is float32 already, and contiguous, is cut from where it lies.
    volumes = [tuple(array if hasattr(array, "rows") else np.ascontiguousarray(array, np.float32) for array in arrays)
               for arrays in volumes]
    grids = [arrays[0].shape[:3] for arrays in volumes]
    corners = [np.asarray(indices) for indices in corners]
    ends = np.cumsum([len(indices) for indices in corners])
    begins = ends - [len(indices) for indices in corners]
    target = None if targets is None else np.concatenate(targets).astype(np.float32)
    permutations, reversals = _symmetries(symmetries)
    ways = len(permutations)
    shapes = [(*sides, array.shape[-1]) for array in volumes[0]]

    def make(numbers):
        made = [empty((len(numbers), *shape)) for shape in shapes]
        place = numbers // ways
        for row, (way, volume) in enumerate(zip(numbers % ways, np.searchsorted(ends, place, side="right"))):
            lowest = np.unravel_index(corners[volume][place[row] - begins[volume]], grids[volume])
            for array, out in zip(volumes[volume], made):
                turned = vector if vector is None or array.shape[-1] >= vector + 3 else None
                turn(cut(array, lowest, sides), permutations[way], reversals[way], out[row], turned)
        return made if target is None else [*made, target[place]]

    shapes_of_all = shapes if target is None else [*shapes, target.shape[1:]]
    samples = int(ends[-1]) * ways
    numbers = _numbers(samples, seed, first).batch(batch, drop_remainder=full or seed is not None)

    def sample(numbers):
        made = tf.numpy_function(make, [numbers], [tf.float32] * len(shapes_of_all), stateful=False)
        return tuple(tf.ensure_shape(array, (*numbers.shape, *shape)) for array, shape in zip(made, shapes_of_all))

    return numbers.map(sample, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(tf.data.AUTOTUNE)


def deposits(clouds, centres, extent, patch, batch, *, targets=None, seed=None, first=0, symmetries=None,
             full=False):
    """Batches of density cubes around points among particles: no grid of the whole box is made.

    Parameters
    ----------
    clouds : list of (array, float)
        The particles of one periodic box each, (particles, 3), and its side, in one unit.
    centres : list of array
        For each box its points, (points, 3).
    extent : float
        Side of a cube, in the unit of the boxes' sides.
    patch : int
        Its cells per side.
    batch : int
        Samples per batch.
    targets, seed, first, symmetries, full : optional
        See `patches`.

    Returns
    -------
    tf.data.Dataset
        Of tuples of float32 tensors. The first is the density in units of the mean, by cloud-in-cell, (batch, patch,
        patch, patch, 1); targets stand behind it.

    Raises
    ------
    DataError
        If a cube is wider than half a box.

    Examples
    --------
    >>> import numpy as np
    >>> from kerasgal.pipeline import deposits
    >>> particles = np.random.default_rng(0).uniform(0, 10, (8000, 3)).astype("float32")
    >>> data = deposits([(particles, 10.0)], [particles[:2]], extent=4.0, patch=8, batch=2)
    >>> [tuple(cubes.shape) for (cubes,) in data]
    [(2, 8, 8, 8, 1)]
    """
    makers = [_deposit(position, boxsize, extent, patch) for position, boxsize in clouds]
    ends = tf.constant(np.cumsum([len(points) for points in centres]), tf.int64)
    centre = tf.constant(np.concatenate(centres), tf.float32)
    target = None if targets is None else tf.constant(np.concatenate(targets), tf.float32)

    def make(place):
        volume = tf.searchsorted(ends, [place], side="right", out_type=tf.int32)[0]
        cube = _among([lambda maker=maker: maker(centre[place]) for maker in makers], volume)
        return (cube,), () if target is None else (target[place],)

    sample, samples = _symmetric(make, len(centre), symmetries)
    return stream(sample, samples, batch, seed=seed, first=first, full=full)


def _deposit(position, boxsize, extent, patch):
    """A function from a point, (3,), to the density around it, (patch, patch, patch, 1)."""
    cell = extent / patch
    # Particles are sorted into bins as wide as what a cube draws on, so that along each axis it touches two of them.
    bins = int(boxsize // (extent + cell))
    if bins < 2:
        raise DataError(f"a cube of {extent:g} Mpc/h is wider than half the box of {boxsize:g} Mpc/h: "
                        "choose a smaller extent")
    position = wrap(np.asarray(position, np.float32), boxsize)
    place = np.minimum((position * (bins / boxsize)).astype(np.int64), bins - 1)
    place = np.ravel_multi_index(tuple(place.T), (bins,) * 3)
    begin = tf.constant(np.concatenate([[0], np.cumsum(np.bincount(place, minlength=bins**3))]), tf.int64)
    position = tf.constant(position[np.argsort(place, kind="stable")])
    corners = tf.constant(list(itertools.product((0, 1), repeat=3)))
    unit = boxsize**3 / len(position) / cell**3

    def cube(centre):
        lowest = tf.cast(tf.floor((centre - (extent + cell) / 2) * (bins / boxsize)), tf.int32)
        x, y, z = tf.unstack(tf.math.floormod(lowest + corners, bins), axis=1)
        near = (x * bins + y) * bins + z
        rows = tf.ragged.range(tf.gather(begin, near), tf.gather(begin, near + 1)).values
        offset = tf.gather(position, rows) - centre
        offset -= boxsize * tf.round(offset / boxsize)
        offset = offset / cell + (patch - 1) / 2  # in cells, whose centres are the integers
        lower = tf.floor(offset)
        share = offset - lower
        density = tf.zeros(patch**3)
        for corner in itertools.product((0, 1), repeat=3):
            at = tf.cast(lower, tf.int32) + corner
            weight = tf.reduce_prod(tf.where(np.array(corner, bool), share, 1 - share), axis=1)
            inside = tf.reduce_all((at >= 0) & (at < patch), axis=1)
            flat = (at[:, 0] * patch + at[:, 1]) * patch + at[:, 2]
            density += tf.math.unsorted_segment_sum(weight, tf.where(inside, flat, -1), patch**3)  # -1 is dropped
        return tf.reshape(density * unit, (patch, patch, patch, 1))

    return cube
