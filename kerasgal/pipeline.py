"""tf.data: patches of periodic fields, under the symmetries of the cube, in batches.

A volume is a tuple of arrays on one grid, e.g. (input, target), each (x, y, z, channel). A patch is named by the flat
C-order index of its lowest cell; the functions `tiles` and `centred` make lists of those. Where a grid fine enough for
the patches would not fit into memory, `deposits` makes each patch from the particles around it. A sample is made from
its number and the seed alone, so a data set that starts at sample i is the one that was interrupted there.
"""

import itertools

import numpy as np
import tensorflow as tf

from kerasgal.errors import DataError


def tiles(shape, stride):
    """Flat indices of the lowest cells of patches every `stride` cells along each axis of a grid.

    shape, stride: an integer for all three axes, or one for each. With the patch's side as stride the patches tile the
    box, with half of it they overlap by half, with 1 they stand everywhere. The last stride is shorter where it does
    not divide the grid.
    """
    shape, stride = np.broadcast_to(shape, 3), np.broadcast_to(stride, 3)
    corners = np.meshgrid(*(np.arange(0, side, step) for side, step in zip(shape, stride)), indexing="ij")
    return np.ravel_multi_index([corner.ravel() for corner in corners], shape)


def centred(cells, gridsize, patch):
    """Flat indices of the lowest cells of patches centred on given cells, (n,) flat indices into the grid."""
    corner = np.stack(np.unravel_index(cells, (gridsize,) * 3)) - patch // 2
    return np.ravel_multi_index(tuple(corner % gridsize), (gridsize,) * 3)


def check_patch(gridsize, patch):
    """Raise DataError if a patch is larger than the grid it is cut from; both in cells per side."""
    if gridsize < patch:
        raise DataError(f"the grid has {gridsize} cells a side, fewer than the patch of {patch}: choose a smaller "
                        "`patch`, or a simulation with more cells")


def cube_symmetries(reflections=False):
    """The 24 rotations of the cube, or all 48 symmetries with reflections.

    Returns (s, 3) axis permutations and (s, 3) booleans, which axes to reverse after permuting.
    """
    permutations, reversals = [], []
    for permutation in itertools.permutations(range(3)):
        parity = np.linalg.det(np.eye(3)[list(permutation)])
        for reversal in itertools.product((False, True), repeat=3):
            if reflections or parity * (-1) ** sum(reversal) > 0:
                permutations.append(permutation)
                reversals.append(reversal)
    return np.array(permutations), np.array(reversals)


def _transform(patch, permutation, reversal, vector):
    """One symmetry of the cube applied to the first three axes of a patch (x, y, z, channel), and to its vector."""
    shape = patch.shape
    if vector is not None:  # the vector's components turn with the axes
        others = tf.range(shape[-1])
        patch = tf.gather(patch, tf.concat([others[:vector], vector + permutation, others[vector + 3:]], 0), axis=3)
        patch *= tf.concat([tf.ones(vector), tf.where(reversal, -1.0, 1.0), tf.ones(shape[-1] - vector - 3)], 0)
    patch = tf.transpose(patch, tf.concat([permutation, [3]], axis=0))
    patch = tf.raw_ops.Reverse(tensor=patch, dims=tf.concat([reversal, [False]], axis=0))
    return tf.ensure_shape(patch, shape)


def stream(make, samples, batch, *, seed=None, first=0, full=False):
    """Batches of the samples that `make` builds from their numbers, 0 to samples - 1, as a tf.data.Dataset.

    seed: None gives every sample once, in order. A number gives an endless stream of full batches: every sample once
        in a random order, then again in another order.
    first: place in the endless stream to start at (steps done times batch).
    full: whether to leave out a smaller last batch, as an endless stream always does.
    """
    def sample(number):
        if seed is not None:
            turn = tf.cast(number // samples, tf.int32)
            number = tf.random.experimental.index_shuffle(
                number % samples, tf.stack([seed, turn]), tf.constant(samples - 1, tf.int64))
        return make(number)

    numbers = tf.data.Dataset.range(samples) if seed is None else tf.data.Dataset.counter(first)
    dataset = numbers.map(sample, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return dataset.batch(batch, drop_remainder=full or seed is not None).prefetch(tf.data.AUTOTUNE)


def rows(arrays, batch, *, seed=None, first=0, full=False):
    """Batches of the rows of arrays of equal length, as `stream` orders them: tuples of float32 tensors."""
    arrays = [tf.constant(array, tf.float32) for array in arrays]
    return stream(lambda number: tuple(array[number] for array in arrays), len(arrays[0]), batch, seed=seed,
                  first=first, full=full)


def _symmetric(make, places, symmetries, vector=None):
    """From a maker of one sample per place, the maker of one per place and symmetry, and their number.

    `make` returns the arrays that turn with the cube, a tuple, and a tuple of those that do not.
    """
    permutations, reversals = cube_symmetries(symmetries in ("reflections", "square"))
    if symmetries == "square":
        kept = (permutations[:, 2] == 2) & ~reversals[:, 2]
        permutations, reversals = permutations[kept], reversals[kept]
    permutations, reversals = tf.constant(permutations, tf.int32), tf.constant(reversals)
    ways = len(permutations) if symmetries else 1

    def sample(number):
        symmetry, place = number % ways, number // ways
        arrays, others = make(place)
        if symmetries:
            arrays = tuple(_transform(array, permutations[symmetry], reversals[symmetry], vector) for array in arrays)
        return (*arrays, *others)

    return sample, places * ways


def _among(volumes, volume):
    """The result of one of several functions without arguments, chosen by an int32 tensor."""
    return tf.switch_case(volume, volumes) if len(volumes) > 1 else volumes[0]()


def patches(volumes, corners, patch, batch, *, targets=None, seed=None, first=0, symmetries=None, vector=None,
            full=False):
    """Batches of patches of several periodic volumes, as a tf.data.Dataset of tuples of float32 tensors.

    volumes: list of tuples of arrays, each (x, y, z, channel); grids may differ between volumes.
    corners: one array of flat indices (see `tiles`, `centred`) per volume.
    patch: cells per side, or along each of the three axes: maps that lie in a volume side by side along z are cut by
        (side, side, 1).  batch: samples per batch.
    targets: one array per volume, a row per corner, which the tuples then end with.
    seed: None gives every patch once, in order, as it stands. A number gives an endless stream: every patch in each
        of its symmetries once, in a random order, then again in another order.
    first: number of the sample to start the endless stream at (steps done times batch).
    symmetries: None, "rotations" (24), "reflections" (48) or, of maps, "square" (8).
    vector: first of three channels that are the components of a vector, which turns with the cube.
    full: whether to leave out a smaller last batch, as an endless stream always does.

    The elements of a batch have shape (batch, patch, patch, patch, channel). Raises DataError if a grid is smaller
    than the patch.
    """
    sides = (patch,) * 3 if isinstance(patch, int) else patch
    for arrays in volumes:
        for gridsize, side in zip(arrays[0].shape, sides):
            check_patch(gridsize, side)
    # Wrapped once at the upper faces, a patch is one contiguous slice: measured ten times faster than gathering.
    padded = [tuple(tf.constant(np.pad(array, [*((0, side - 1) for side in sides), (0, 0)], mode="wrap"), tf.float32)
                    for array in arrays) for arrays in volumes]
    grid = tf.constant([arrays[0].shape[:3] for arrays in volumes], tf.int64)
    ends = tf.constant(np.cumsum([len(indices) for indices in corners]), tf.int64)
    corner = tf.constant(np.concatenate(corners), tf.int64)
    target = None if targets is None else tf.constant(np.concatenate(targets), tf.float32)

    def cut(place):
        volume = tf.searchsorted(ends, [place], side="right", out_type=tf.int32)[0]
        index = corner[place]
        x = index // (grid[volume, 1] * grid[volume, 2])
        y = index // grid[volume, 2] % grid[volume, 1]
        z = index % grid[volume, 2]
        arrays = _among([lambda arrays=arrays: tuple(
            tf.slice(array, [x, y, z, 0], [*sides, array.shape[-1]]) for array in arrays)
            for arrays in padded], volume)
        return arrays, () if target is None else (target[place],)

    sample, samples = _symmetric(cut, len(corner), symmetries, vector)
    return stream(sample, samples, batch, seed=seed, first=first, full=full)


def deposits(clouds, centres, extent, patch, batch, *, targets=None, seed=None, first=0, symmetries=None,
             full=False):
    """Batches of density cubes around points among particles, as a tf.data.Dataset of tuples of float32 tensors.

    clouds: list of (position, boxsize), the particles of one periodic box each, (p, 3), and its side.
    centres: one array of points, (m, 3), per box.
    extent: side of a cube in the unit of boxsize.  patch: its cells per side.
    The rest is as in `patches`. A batch's first element, (batch, patch, patch, patch, 1), is the density in units of
    the mean, by cloud-in-cell from the particles that stand there: no grid of the whole box is made. Raises DataError
    if a cube is wider than half a box.
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
    position = np.asarray(position, np.float32)
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
