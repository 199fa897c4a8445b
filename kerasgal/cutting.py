"""Patches of periodic arrays under the symmetries of the cube, cut from where the arrays lie."""

import itertools

import numpy as np

ALIGNED = 64  # bytes; what begins at a multiple of them TensorFlow takes over without a copy


def empty(shape):
    """An array of float32 without values that TensorFlow can take over as it is."""
    count = int(np.prod(shape))
    room = np.empty(count + ALIGNED // 4, np.float32)
    skipped = -room.ctypes.data % ALIGNED // 4
    return room[skipped:skipped + count].reshape(shape)


def cut(array, corner, sides):
    """A block of a periodic array: a view where it lies inside, else a copy.

    Parameters
    ----------
    array : array or kerasgal.scratch.Stored
        (x, y, z, channel).
    corner : array of int
        (3,), its lowest cell.
    sides : sequence of int
        Its cells along each axis, at most the array's.

    Returns
    -------
    array
        (*sides, channel).

    Examples
    --------
    >>> import numpy as np
    >>> from kerasgal.cutting import cut
    >>> array = np.arange(27).reshape(3, 3, 3, 1)
    >>> cut(array, [0, 0, 1], (1, 1, 3)).ravel().tolist()
    [1, 2, 0]
    """
    if hasattr(array, "rows"):  # in a file
        array, corner = array.rows(corner, sides)
    parts = []
    for n, first, side in zip(array.shape, corner, sides):
        inside = min(side, n - first)
        parts.append([(slice(first, first + inside), slice(0, inside))])
        if inside < side:  # the rest comes from the other end
            parts[-1].append((slice(0, side - inside), slice(inside, side)))
    if max(map(len, parts)) == 1:
        return array[tuple(source for ((source, _),) in parts)]
    block = np.empty((*sides, array.shape[-1]), array.dtype)
    for corner_of_box in itertools.product(*parts):
        source, place = zip(*corner_of_box)
        block[place] = array[source]
    return block


def turn(block, permutation, reversal, out, vector=None):
    """Write a block, turned by a symmetry of the cube, into an array that is there.

    Parameters
    ----------
    block : array
        (x, y, z, channel).
    permutation, reversal : array
        (3,) each, a symmetry; see `kerasgal.pipeline.cube_symmetries`.
    out : array
        (i, j, k, channel), what is filled.
    vector : int, optional
        First of three channels that are the components of a vector, which turns with the cube.

    Examples
    --------
    >>> import numpy as np
    >>> from kerasgal.cutting import turn
    >>> out = np.empty((2, 1, 1, 1))
    >>> turn(np.array([[[[1.0], [2.0]]]]), [2, 0, 1], [True, False, False], out)
    >>> out.ravel().tolist()
    [2.0, 1.0]
    """
    steps = tuple(slice(None, None, -1 if reverse else 1) for reverse in reversal)
    out[...] = np.transpose(block, (*permutation, 3))[steps]
    if vector is not None:
        turned = out[..., vector:vector + 3][..., permutation] * np.where(reversal, -1, 1).astype(out.dtype)
        out[..., vector:vector + 3] = turned
