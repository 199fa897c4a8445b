"""Patches of periodic arrays under the symmetries of the cube, cut and turned in one pass, without a copy of the array."""

import numba
import numpy as np


@numba.njit(cache=True, nogil=True)
def _cut(array, corner, permutation, reversal, vector, out):
    """Fill out, (x, y, z, channel), from array, (x, y, z, channel), C order both; vector: its first channel, or -1."""
    channels = array.shape[3]
    flat = array.reshape(-1)
    strides = (array.shape[1] * array.shape[2] * channels, array.shape[2] * channels, channels)
    # Along each axis of the patch, what its cells add to the place of a value in the array
    place = np.empty((3, max(out.shape[0], out.shape[1], out.shape[2])), np.int64)
    for axis in range(3):
        source, side = permutation[axis], out.shape[axis]
        for i in range(side):
            step = side - 1 - i if reversal[axis] else i
            place[axis, i] = (corner[source] + step) % array.shape[source] * strides[source]
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            row = place[0, i] + place[1, j]
            if channels == 1:
                for k in range(out.shape[2]):
                    out[i, j, k, 0] = flat[row + place[2, k]]
                continue
            for k in range(out.shape[2]):
                cell = row + place[2, k]
                for channel in range(channels):
                    out[i, j, k, channel] = flat[cell + channel]
                if vector >= 0:  # its components turn with the axes
                    for axis in range(3):
                        value = flat[cell + vector + permutation[axis]]
                        out[i, j, k, vector + axis] = -value if reversal[axis] else value


def cut(array, corner, permutation, reversal, out, vector=None):
    """One patch of a periodic array, turned by a symmetry of the cube, into an array that is there.

    Parameters
    ----------
    array : array of float32
        (x, y, z, channel), contiguous in C order.
    corner : array of int
        (3,), its lowest cell.
    permutation, reversal : array
        (3,) each, a symmetry; see `kerasgal.pipeline.cube_symmetries`.
    out : array of float32
        (i, j, k, channel), what is filled.
    vector : int, optional
        First of three channels that are the components of a vector, which turns with the cube.

    Examples
    --------
    >>> import numpy as np
    >>> from kerasgal.cutting import cut
    >>> array = np.arange(27, dtype="float32").reshape(3, 3, 3, 1)
    >>> out = np.empty((1, 1, 3, 1), "float32")
    >>> cut(array, np.array([0, 0, 1]), np.arange(3), np.zeros(3, bool), out)
    >>> out.ravel().tolist()
    [1.0, 2.0, 0.0]
    """
    _cut(array, corner, permutation, reversal, -1 if vector is None else vector, out)
