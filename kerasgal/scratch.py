"""Volumes beyond a training's memory: in a scratch file, of which each patch reads its own rows.

The file has no name: the system takes its room back when the process ends, however that ends.
"""

import contextlib
import logging
import os
import re
import tempfile
from pathlib import Path

import numpy as np

from kerasgal.errors import DataError, SettingError, first_line
from kerasgal.files import check_room

UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
BINARY = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}

log = logging.getLogger(__name__)


def bytes_of(memory):
    """Bytes of a size as people write it.

    Parameters
    ----------
    memory : int or str
        Bytes, or a number with a unit: "4GB", "512MiB".

    Returns
    -------
    int

    Raises
    ------
    SettingError
        For something else.

    Examples
    --------
    >>> from kerasgal.scratch import bytes_of
    >>> bytes_of("4GB"), bytes_of("1.5 MiB"), bytes_of(1000)
    (4000000000, 1572864, 1000)
    """
    found = None if isinstance(memory, bool) else re.fullmatch(r"\s*(\d+\.?\d*)\s*(?:([kmgt])(i?)b?|b?)\s*",
                                                               str(memory), re.IGNORECASE)
    if not found:
        raise SettingError(f"memory={memory!r}: it must be a number of bytes, or one with a unit, as 4GB or 512MiB",
                           value=memory)
    number, unit, binary = found.groups()
    return int(float(number) * (BINARY if binary else UNITS)[(unit or "").lower()])


class Stored:
    """An array of float32 in a scratch file, (x, y, z, channel), that `kerasgal.pipeline.patches` cuts from.

    Attributes
    ----------
    shape : tuple of int
        Its shape.
    """

    dtype, ndim = np.dtype(np.float32), 4

    def __init__(self, file, place, shape):
        self.file, self.place, self.shape = file, place, shape

    def __len__(self):
        return self.shape[0]

    def __array__(self, dtype=None, copy=None):
        whole = np.empty(self.shape, np.float32)
        self._read(whole, 0)
        return whole if dtype is None else whole.astype(dtype, copy=False)

    def rows(self, corner, sides):
        """The whole rows along z of a periodic block, and the block's corner in them: see `kerasgal.cutting.cut`."""
        n, m, row = self.shape[0], self.shape[1], int(np.prod(self.shape[2:]))
        x, y, z = (int(first) for first in corner)
        block = np.empty((*sides[:2], *self.shape[2:]), np.float32)
        inside = min(sides[1], m - y)
        for layer in range(sides[0]):
            first = (x + layer) % n * m
            self._read(block[layer, :inside], (first + y) * row)
            if inside < sides[1]:
                self._read(block[layer, inside:], first * row)
        return block, (0, 0, z)

    def _read(self, out, skipped):
        """Fill an array, which is contiguous, with what stands so many numbers after the beginning."""
        # Not mapped into memory: the pages of a mapped file would count as the process's own.
        view, place = memoryview(out).cast("B"), self.place + 4 * skipped
        while len(view):
            count = os.preadv(self.file.fileno(), [view], place)
            if not count:
                raise DataError("the scratch file of this training is gone: it has ended")
            view, place = view[count:], place + count


class Store:
    """What keeps the volumes of a training within a budget of memory.

    Parameters
    ----------
    memory : int or str, optional
        Bytes, or as "4GB", that volumes may take; any number without one.
    folder : str or Path
        Run folder, beside which the scratch file lies.

    Raises
    ------
    SettingError
        For a `memory` that is no size.

    Examples
    --------
    >>> import numpy as np
    >>> from kerasgal.scratch import Store
    >>> store = Store(memory="2kB", folder="run")
    >>> with store.passing():
    ...     kept = [store.keep((np.ones((6, 6, 6, 1), "float32"),)) for _ in range(3)]
    ...     [type(volume).__name__ for volume, in kept]
    ['ndarray', 'ndarray', 'Stored']
    """

    def __init__(self, memory=None, folder="."):
        self.memory, self.folder = memory, Path(folder)
        self.free = float("inf") if memory is None else bytes_of(memory)
        self.file, self.end, self.boxes = None, 0, 0

    @contextlib.contextmanager
    def passing(self, boxes=0):
        """Give up, after a `with` block, what was kept in it; boxes: calls of `keep` that are to be expected."""
        free, end, before = self.free, self.end, self.boxes
        self.boxes += boxes
        try:
            yield self
        finally:
            self.free, self.end, self.boxes = free, end, before
            if self.file:
                # Not closed: what still reads ahead would read from whatever file is opened next.
                os.ftruncate(self.file.fileno(), end)

    def keep(self, arrays):
        """The arrays of a volume, as float32: themselves while there is memory for all of them, then `Stored` ones.

        Parameters
        ----------
        arrays : sequence of array
            (x, y, z, channel) each.

        Returns
        -------
        tuple of array or Stored

        Raises
        ------
        DataError
            Where the disk has no room.
        """
        arrays = [np.ascontiguousarray(array, np.float32) for array in arrays]
        size = sum(array.nbytes for array in arrays)
        self.boxes = max(self.boxes - 1, 0)
        if size <= self.free:
            self.free -= size
            return tuple(arrays)
        self.free = min(self.free, 0)  # one after another: which ones lie where is easily told
        # Those that are to come are taken to be as large.
        check_room(self.folder, (1 + self.boxes) * size, what="the boxes that memory does not hold")
        if self.file is None:
            log.info(f"boxes beyond {bytes_of(self.memory) / 1e9:.3g} GB of memory are read from a scratch file in "
                     f"{self.folder.absolute().parent}")
            self.file = tempfile.TemporaryFile(dir=self.folder.absolute().parent, buffering=0)
        return tuple(self._write(array) for array in arrays)

    def _write(self, array):
        self.file.seek(self.end)
        try:
            array.tofile(self.file)
        except OSError as error:
            raise DataError(f"the scratch file in {self.folder.absolute().parent} cannot be written: "
                            f"{first_line(error)}") from error
        stored = Stored(self.file, self.end, array.shape)
        self.end += array.nbytes
        return stored

    def hold(self, size, what):
        """Take note of bytes that stay in memory whatever is allowed; raises SettingError if they are too many."""
        if size > self.free:
            raise SettingError(f"memory={self.memory}: {what} are held in memory as a whole and take "
                               f"{size / 1e6:.3g} MB", value=self.memory)
        self.free -= size
