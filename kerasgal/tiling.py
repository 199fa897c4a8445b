"""Whole-box prediction: a periodic box through a network, tile by tile.

Each tile is predicted with neighbouring cells around it, its context, wrapped at the box's faces, and only its core is
kept. Where the context reaches as far as the network sees, the result is that of the whole box at once; memory grows
with the tile.
"""

import itertools
import logging

import numpy as np
import psutil

from kerasgal.errors import DataError, SettingError, out_of_memory
from kerasgal.grid import wrapped_block

HALVINGS = 8
SHARE = 0.5  # of the free memory that a whole box at once may take

log = logging.getLogger(__name__)


def predict_whole(network, field, *, tile, context, radius, multiple=1, progress=None):
    """Predict a whole periodic box at once where memory is enough, and else tile by tile.

    Parameters
    ----------
    network : keras.Model
        See `kerasgal.periodic.periodic`.
    field : array
        (n, n, n, channel).
    tile, context, multiple, progress : optional
        See `predict_box`, for where the box is predicted tile by tile.
    radius : int
        Cells to either side of an output cell that the network sees. A line is logged where a tile's context is less.

    Returns
    -------
    array
        (n, n, n, channel) float32.

    Examples
    --------
    >>> import keras
    >>> import numpy as np
    >>> from kerasgal.tiling import predict_whole
    >>> mean = keras.layers.Conv3D(1, 3, padding="same", kernel_initializer="ones")
    >>> network = keras.Sequential([keras.Input((None, None, None, 1)), mean])
    >>> np.unique(predict_whole(network, np.ones((4, 4, 4, 1)), tile=4, context=1, radius=1)).tolist()
    [27.0]
    """
    from kerasgal.periodic import largest, periodic

    cells = int(np.prod(field.shape[:-1]))
    fits = all(n % multiple == 0 for n in field.shape[:-1]) and largest(network) * cells * 4 < SHARE * free_memory()
    if fits:
        try:
            whole = periodic(network).predict_on_batch(np.asarray(field, np.float32)[None])
            if progress:
                progress(1, 1)
            return np.asarray(whole[0], np.float32)
        except Exception as error:
            if not out_of_memory(error):
                raise
    if context < radius:
        log.info(f"the box is predicted in tiles of {tile} cells, of which {context} at every border are left out; the "
                 f"network sees {radius}: near borders of tiles it misses a part of that")
    return predict_box(network, field, tile=tile, context=context, multiple=multiple, progress=progress)


def free_memory():
    """Bytes of memory that are free on this machine."""
    return psutil.virtual_memory().available


def predict_box(model, field, *, tile, context, multiple=1, batch=1, progress=None):
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
    progress : callable, optional
        Called as progress(done, total), in tiles.

    Returns
    -------
    array
        Of the field's shape, but for the channels, float32.

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
    grid = np.array(field.shape[:-1])
    if tile % multiple or context % multiple or tile <= 2 * context:
        raise SettingError(f"tile={tile} with context={context} does not fit the network: both must be multiples of "
                           f"{multiple}, and the tile larger than twice the context")
    # A core larger than the box would be predicted in vain.
    core = np.minimum(tile - 2 * context, -(-grid // multiple) * multiple)
    for _ in range(HALVINGS + 1):
        try:
            return _predict(model, field, grid, core, context, batch, progress)
        except Exception as error:
            if not out_of_memory(error):
                raise
            axis = int(np.argmax(core))
            half = core[axis] // 2 // multiple * multiple
            if half == 0:
                break
            core[axis] = half
            log.warning(f"out of memory: going on with tiles of "
                        f"{' x '.join(str(side + 2 * context) for side in core)}")
    raise DataError(f"out of memory even with tiles of {' x '.join(str(side + 2 * context) for side in core)} cells")


def _predict(model, field, grid, core, context, batch, progress):
    starts = list(itertools.product(*(range(0, n, side) for n, side in zip(grid, core))))
    output = None
    for first in range(0, len(starts), batch):
        group = starts[first:first + batch]
        blocks = np.stack([wrapped_block(field, np.array(start) - context, core + 2 * context) for start in group])
        predicted = np.asarray(model.predict_on_batch(blocks), np.float32)
        if output is None:
            output = np.empty((*grid, predicted.shape[-1]), np.float32)
        for start, block in zip(group, predicted):
            stop = np.minimum(np.array(start) + core, grid)
            inside = tuple(slice(context, context + side) for side in stop - start)
            output[tuple(map(slice, start, stop))] = block[inside]
        if progress:
            progress(min(first + batch, len(starts)), len(starts))
    return output
