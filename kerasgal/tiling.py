"""Whole-box prediction: a periodic box through a network, tile by tile.

Each tile is predicted with a halo of neighbouring cells, wrapped at the box's faces, and only its core is kept. Where
the halo reaches as far as the network sees, the result is that of the whole box at once; memory grows with the tile.
"""

import itertools

import numpy as np

from kerasgal.errors import DataError
from kerasgal.grid import wrapped_block

HALVINGS = 8


def out_of_memory(error):
    """Whether an exception of any Keras backend says that memory ran out."""
    return isinstance(error, MemoryError) or "ResourceExhausted" in type(error).__name__ \
        or "RESOURCE_EXHAUSTED" in str(error)


def predict_box(model, field, *, tile, halo, multiple=1, batch=1, progress=None, warn=None):
    """Predict a whole periodic box, or a periodic map.

    model: a Keras model from (batch, x, y, z, channel) to (batch, x, y, z, channel) of the same spatial shape, or
        from (batch, x, y, channel).
    field: (n, n, n, channel) or (n, n, channel) array or HDF5 dataset; only the tiles' blocks of it are read.
    tile: cells per side that pass through the network at once, halo included.
    halo: cells per side of a tile that are predicted and thrown away.
    multiple: what tile and halo must be multiples of, 2^levels for a network with `levels` poolings. Tiles then stand
        where the poolings of a whole box would.
    progress: called as progress(done, total) in cells.  warn: called with a line when the tile is halved.

    Returns an array of the field's shape, but for the channels, float32. When memory runs out the tile's core is halved
    along its longest axis and the prediction goes on, at most eight times. Raises DataError for a tile that leaves no
    core.
    """
    grid = np.array(field.shape[:-1])
    if tile % multiple or halo % multiple or tile <= 2 * halo:
        raise DataError(f"tile {tile} with halo {halo} does not fit the network: both must be multiples of "
                        f"{multiple}, and the tile larger than twice the halo")
    # A core larger than the box would be predicted in vain.
    core = np.minimum(tile - 2 * halo, -(-grid // multiple) * multiple)
    for _ in range(HALVINGS + 1):
        try:
            return _predict(model, field, grid, core, halo, batch, progress)
        except Exception as error:
            if not out_of_memory(error):
                raise
            axis = int(np.argmax(core))
            half = core[axis] // 2 // multiple * multiple
            if half == 0:
                break
            core[axis] = half
            if warn:
                warn(f"out of memory: going on with tiles of {' x '.join(str(side + 2 * halo) for side in core)}")
    raise DataError(f"out of memory even with tiles of {' x '.join(str(side + 2 * halo) for side in core)} cells")


def _predict(model, field, grid, core, halo, batch, progress):
    starts = list(itertools.product(*(range(0, n, side) for n, side in zip(grid, core))))
    output = None
    for first in range(0, len(starts), batch):
        group = starts[first:first + batch]
        blocks = np.stack([wrapped_block(field, np.array(start) - halo, core + 2 * halo) for start in group])
        predicted = np.asarray(model.predict_on_batch(blocks), np.float32)
        if output is None:
            output = np.empty((*grid, predicted.shape[-1]), np.float32)
        for start, block in zip(group, predicted):
            stop = np.minimum(np.array(start) + core, grid)
            inside = tuple(slice(halo, halo + side) for side in stop - start)
            output[tuple(map(slice, start, stop))] = block[inside]
        if progress:
            progress(min(first + batch, len(starts)), len(starts))
    return output
