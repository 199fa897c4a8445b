"""Whole-box prediction: a periodic box through a network, at once or tile by tile.

Each tile is predicted with neighbouring cells around it, its context, wrapped at the box's faces, and only its core is
kept. Where the context reaches as far as the network sees, the result is that of the whole box at once; memory grows
with the tile.
"""

import itertools
import logging

import numpy as np
import psutil

from kerasgal.errors import DataError, SettingError, out_of_memory
from kerasgal.files import slabs
from kerasgal.grid import wrapped_block

HALVINGS = 8
SHARE = 0.5  # of the free memory that a whole box at once, or a tile, may take
# A tile's side over that of its core, at most. Each cell passes through the network as many times as the cube of it:
# what the whole box would give is worth that, a context that falls short of it anyway is worth less.
EXACT, SHORT = 4, 2

log = logging.getLogger(__name__)


def free_memory():
    """Bytes of memory that are free on this machine."""
    return psutil.virtual_memory().available


def choose_tiles(grid, *, numbers, radius, patch, multiple=1, tile=None, context=None):
    """How a box is predicted: None for all of it at once, or the tile's side and its context.

    The whole box is where half of the free memory holds the network's layers for it. Else tiles have the largest side
    that memory allows, and their context is as far as the network sees; where that would leave less than a quarter of
    the tile as its core, the context is a quarter of the tile, and a line is logged.

    Parameters
    ----------
    grid : tuple of int
        Cells of the box along each axis.
    numbers : float
        That are alive at once for each cell; see `kerasgal.periodic.largest`.
    radius : int
        Cells to either side of an output cell that the network sees.
    patch : int
        Cells per side that it was trained on: of a tile's core where only its context is given.
    multiple : int
        Of what tile and context are.
    tile, context : int, optional
        Where they are given already.

    Returns
    -------
    tuple of int or None

    Examples
    --------
    >>> from kerasgal.tiling import choose_tiles
    >>> choose_tiles((64, 64, 64), numbers=100, radius=10, patch=32)
    >>> choose_tiles((64, 64, 64), numbers=100, radius=10, patch=32, tile=48)
    (48, 10)
    """
    room = SHARE * free_memory() / (4 * numbers)  # cells
    if tile is None and context is None and all(n % multiple == 0 for n in grid) and np.prod(grid, dtype=float) < room:
        return None
    field = _up(radius, multiple)
    if context is not None:
        tile = _up(patch, multiple) + 2 * context if tile is None else tile
    else:
        if tile is None:
            largest = _up(max(grid), multiple) + 2 * field
            tile = max(multiple, min(largest, int(room ** (1 / len(grid))) // multiple * multiple))
        context = field
        if (tile - 2 * field) * EXACT < tile:
            share = tile * (SHORT - 1) // (2 * SHORT) - multiple // 2  # of which the next multiple is the nearest
            context = max(0, min(_up(share, multiple), (tile - multiple) // 2 // multiple * multiple))
    if context < radius:
        log.info(f"the box is predicted in tiles of {tile} cells, of which {context} at every border are left out; the "
                 f"network sees {radius}: near borders of tiles it misses a part of that")
    return tile, context


def _up(cells, multiple):
    """The next multiple."""
    return -(-cells // multiple) * multiple


def predict_whole(network, field, *, radius, patch, multiple=1, tile=None, context=None, parameters=(), mirrored=False,
                  vector=None, store=None, progress=None):
    """Predict a whole periodic box: at once where memory is enough, and else tile by tile.

    Parameters
    ----------
    network : keras.Model
        See `kerasgal.periodic.periodic`.
    field : array or h5py.Dataset
        (n, n, n, channel).
    radius, patch, multiple, tile, context : optional
        See `choose_tiles`; the box is predicted in tiles where `tile` or `context` is given.
    parameters : sequence of float, optional
        Numbers that the network takes beside the field, (batch, parameters).
    mirrored, vector : optional
        Whether the result is the mean over the field and its mirror images; see `Mirrored`.
    store, progress : optional
        See `predict_box`.

    Returns
    -------
    array or None
        (n, n, n, channel) float32; None where `store` has it.

    Examples
    --------
    >>> import keras
    >>> import numpy as np
    >>> from kerasgal.tiling import predict_whole
    >>> mean = keras.layers.Conv3D(1, 3, padding="same", kernel_initializer="ones")
    >>> network = keras.Sequential([keras.Input((None, None, None, 1)), mean])
    >>> np.unique(predict_whole(network, np.ones((4, 4, 4, 1)), radius=1, patch=2)).tolist()
    [27.0]
    """
    from kerasgal.periodic import largest, periodic

    given = {"parameters": parameters, "mirrored": mirrored, "vector": vector}
    grid = field.shape[:-1]
    options = {"numbers": largest(network), "radius": radius, "patch": patch, "multiple": multiple}
    chosen = choose_tiles(grid, **options, tile=tile, context=context)
    log.debug("predicting the whole box at once" if chosen is None else
              f"predicting tiles of {chosen[0]} cells, of which {chosen[1]} at every border are left out")
    if chosen is None:
        try:
            return predict_at_once(asked(periodic(network), **given), field, store=store, progress=progress)
        except Exception as error:
            if not out_of_memory(error):
                raise
        chosen = choose_tiles(grid, **options, tile=max(grid) // 2 // multiple * multiple)
    tile, context = chosen
    return predict_box(asked(network, **given), field, tile=tile, context=context, multiple=multiple, store=store,
                       progress=progress)


class Beside:
    """A network of [field, parameters] as one of the field alone, of which parameters, (p,), are the same everywhere.
    """

    def __init__(self, network, parameters):
        self.network, self.parameters = network, np.asarray(parameters, np.float32)

    def predict_on_batch(self, blocks):
        return self.network.predict_on_batch([blocks, np.tile(self.parameters, (len(blocks), 1))])


def beside(network, parameters):
    """A network with the parameters that it takes beside its field; itself where there are none."""
    return Beside(network, parameters) if len(parameters) else network


def asked(network, parameters=(), mirrored=False, vector=None):
    """A network as a whole box asks it: `beside` the parameters that it takes, and `Mirrored` where that is wanted."""
    network = beside(network, parameters)
    return Mirrored(network, vector) if mirrored else network


class Mirrored:
    """A network as the mean of what it finds in a field and in its mirror images: eight of a cube, four of a map.

    Each is mirrored back. vector: first of the channels that are the components of a vector, one of which changes its
    sign in each mirror.
    """

    def __init__(self, network, vector=None):
        self.network, self.vector = network, vector

    def predict_on_batch(self, blocks):
        blocks, total = np.asarray(blocks), 0
        for axes, signs in mirrors(blocks.ndim - 2, blocks.shape[-1], self.vector):
            seen = np.flip(blocks, axes) * signs
            total = total + np.flip(np.asarray(self.network.predict_on_batch(seen), np.float32), axes)
        return total / 2**(blocks.ndim - 2)


def mirrors(dimensions, channels, vector=None):
    """The axes to be reversed of (batch, x, y[, z], channel), and each channel's sign then, for every mirror image.

    vector: first of the channels that are the components of a vector.

    Examples
    --------
    >>> from kerasgal.tiling import mirrors
    >>> [(axes, signs.tolist()) for axes, signs in mirrors(1, 2, vector=1)]
    [((), [1.0, 1.0]), ((1,), [1.0, -1.0])]
    """
    for reversed_ in itertools.product((False, True), repeat=dimensions):
        axes = tuple(axis for axis, found in enumerate(reversed_, start=1) if found)
        signs = np.ones(channels, np.float32)
        for axis in axes if vector is not None else ():
            signs[vector + axis - 1] = -1
        yield axes, signs


def mirrored_network(network, vector=None):
    """The same as `Mirrored`, as a Keras model of the network's inputs, of which the first is the field."""
    from keras import Input, Model, ops

    inputs = [Input(batch_shape=item.shape, name=item.name) for item in network.inputs]
    field, total = inputs[0], 0
    for axes, signs in mirrors(len(field.shape) - 2, field.shape[-1], vector):
        seen = ops.flip(field, axes) * signs
        total = total + ops.flip(network([seen, *inputs[1:]] if len(inputs) > 1 else seen), axes)
    return Model(inputs if len(inputs) > 1 else field, total / 2**(len(field.shape) - 2), name=network.name)


def predict_at_once(model, field, *, store=None, progress=None):
    """A whole box or map through a network that wraps at its faces; arguments and result as in `predict_box`."""
    whole = wrapped_block(field, (0,) * (len(field.shape) - 1), field.shape[:-1])
    found = np.asarray(model.predict_on_batch(np.asarray(whole, np.float32)[None]), np.float32)[0]
    if store is not None:
        store((slice(None),) * (found.ndim - 1), found)
    if progress:
        progress(1, 1)
    return None if store is not None else found


def predict_box(model, field, *, tile, context, multiple=1, batch=1, store=None, progress=None):
    """Predict a whole periodic box, or a periodic map, tile by tile.

    When memory runs out the tile's core is halved along its longest axis, a warning says so, and the prediction goes
    on, at most eight times.

    Parameters
    ----------
    model : keras.Model
        From (batch, x, y, z, channel) to (batch, x, y, z, channel) of the same spatial shape, or from (batch, x, y,
        channel).
    field : array or h5py.Dataset
        (n, n, n, channel) or (n, n, channel); only the tiles' blocks of it are read.
    tile : int
        Cells per side that pass through the network at once, context included.
    context : int
        Cells of a tile's border that are predicted and thrown away. Where it reaches as far as the network sees, the
        result is that of the whole box at once.
    multiple : int
        What tile and context must be multiples of, 2^levels for a network with `levels` poolings. Tiles then stand
        where the poolings of a whole box would.
    batch : int
        Tiles that pass through the network together.
    store : callable, optional
        Called as store(place, values) with each core, (x, y, z, channel) float32, and its place in the box, a tuple of
        slices, for results that are not kept in memory. After memory ran out it is called again for all.
    progress : callable, optional
        Called as progress(done, total), in tiles.

    Returns
    -------
    array or None
        Of the field's shape, but for the channels, float32; None where `store` has it.

    Raises
    ------
    SettingError
        If the tile leaves no core, or tile or context is no multiple.
    DataError
        If memory runs out all the same.

    Examples
    --------
    >>> import keras
    >>> import numpy as np
    >>> from kerasgal.tiling import predict_box
    >>> mean = keras.Sequential([keras.Input((None, None, None, 1)), keras.layers.AveragePooling3D(3, 1, "same")])
    >>> field = np.random.default_rng(0).normal(size=(8, 8, 8, 1)).astype("float32")
    >>> whole = predict_box(mean, field, tile=10, context=1)
    >>> bool(np.allclose(whole, predict_box(mean, field, tile=6, context=1), atol=1e-6))
    True
    """
    if tile % multiple or context % multiple or tile <= 2 * context:
        raise SettingError(f"tile={tile} with context={context} does not fit the network: both must be multiples of "
                           f"{multiple}, and the tile larger than twice the context")
    return predict_cores(model, field, tile - 2 * context, (context, context), multiple=multiple, batch=batch,
                         store=store, progress=progress)


def predict_cores(model, field, side, around, *, multiple=1, batch=1, store=None, progress=None):
    """`predict_box` by the side of the core, a multiple of `multiple`, and the cells before and behind it.

    The model's result is the whole block, or, of a network without padding, the core alone.
    """
    grid = np.array(field.shape[:-1])
    # A core larger than the box would be predicted in vain.
    core = np.minimum(side, _up(grid, multiple))
    for _ in range(HALVINGS + 1):
        try:
            return _predict(model, field, grid, core, around, batch, store, progress)
        except Exception as error:
            if not out_of_memory(error):
                raise
            axis = int(np.argmax(core))
            half = core[axis] // 2 // multiple * multiple
            if half == 0:
                break
            core[axis] = half
            log.warning(f"out of memory: going on with tiles of {_sides(core + sum(around))}")
    raise DataError(f"out of memory even with tiles of {_sides(core + sum(around))} cells")


def _sides(sides):
    return " x ".join(map(str, sides))


def _predict(model, field, grid, core, around, batch, store, progress):
    starts = list(itertools.product(*(range(0, n, side) for n, side in zip(grid, core))))
    output, before = None, around[0]
    for first in range(0, len(starts), batch):
        group = starts[first:first + batch]
        blocks = np.stack([wrapped_block(field, np.array(start) - before, core + sum(around)) for start in group])
        predicted = np.asarray(model.predict_on_batch(blocks), np.float32)
        if store is None and output is None:
            output = np.empty((*grid, predicted.shape[-1]), np.float32)
        left_out = before if predicted.shape[1:-1] == blocks.shape[1:-1] else 0
        for start, block in zip(group, predicted):
            stop = np.minimum(np.array(start) + core, grid)
            place = tuple(map(slice, map(int, start), map(int, stop)))
            values = block[tuple(slice(left_out, left_out + side) for side in stop - start)]
            if store is None:
                output[place] = values
            else:
                store(place, values)
        if progress:
            progress(min(first + batch, len(starts)), len(starts))
    return output


class Derived:
    """A field that is made of a dataset as it is read, cell by cell: (n, n, n, 1) float32 of (n, n, n).

    Parameters
    ----------
    dataset : array or h5py.Dataset
        (n, n, n).
    function : callable
        Of a part of it, float32, to the field there.

    Examples
    --------
    >>> import numpy as np
    >>> from kerasgal.tiling import Derived
    >>> Derived(np.zeros((2, 2, 2)), lambda delta: 1 + delta)[:1, :1, :].ravel().tolist()
    [1.0, 1.0]
    """

    dtype = np.dtype(np.float32)

    def __init__(self, dataset, function=np.asarray):
        self.dataset, self.function = dataset, function
        self.shape = (*dataset.shape, 1)

    def __getitem__(self, place):
        return self.function(np.asarray(self.dataset[place], np.float32))[..., None]


def deviation(dataset):
    """Standard deviation of a field that is read slab by slab, float."""
    total = squares = 0.0
    for slab in slabs(dataset):
        slab = np.asarray(slab, np.float64)
        total, squares = total + slab.sum(), squares + np.square(slab).sum()
    size = np.prod(dataset.shape, dtype=float)
    return float(np.sqrt(max(0.0, squares / size - (total / size)**2)))
