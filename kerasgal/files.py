"""Writing whole files or none, and opening HDF5 with errors a person can read."""

import contextlib
import math
import os
import shutil
import tempfile
from pathlib import Path

from kerasgal.errors import DamagedError, DataError, ExistsError, MissingError, SettingError, first_line


def refuse_existing(path, overwrite):
    """Raise DataError if `path` exists and `overwrite` is false."""
    if Path(path).exists() and not overwrite:
        raise ExistsError(f"{path} exists already; give overwrite=True to replace it")


def refuse_inputs(outputs, inputs):
    """Raise SettingError for an output that is one of the inputs, which it would replace."""
    read = {Path(path).resolve() for path in inputs if isinstance(path, str | os.PathLike)}
    for output in outputs:
        if Path(output).resolve() in read:
            raise SettingError(f"{output} is what is read: choose another name for what is written", value=str(output))


def check_room(path, size, what=None, kept=""):
    """Raise DataError, before any work is done, if `size` bytes cannot be written at `path`.

    HDF5 does not survive a disk that fills up while it writes: it prints a traceback, or crashes. what: words for what
    is written, instead of the path; kept: the end of the sentence.
    """
    folder = Path(path).absolute().parent
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):  # raises OSError where nothing may be written
        pass
    free = shutil.disk_usage(folder).free
    if free < size:
        raise DataError(f"no space left for {what or path}: it needs {size / 1e6:.3g} MB, and {free / 1e6:.3g} MB are "
                        f"free{kept}", value=free, accepted=(size, None))


@contextlib.contextmanager
def replacing(path, overwrite=True):
    """Yield a temporary path beside `path` and rename it to `path` when the block ends well.

    The temporary path keeps the suffix of `path` (libraries choose formats by it) and may become a file or a
    folder. If the block raises, it is removed and `path` stays as it was.
    """
    path = Path(path)
    refuse_existing(path, overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".writing-", dir=path.parent))
    try:
        temporary = folder / path.name
        yield temporary
        if path.is_dir():
            if not temporary.is_dir():
                raise ExistsError(f"{path} is a folder: not replacing it by a file")
            shutil.rmtree(path)
        os.replace(temporary, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_file(path):
    """Raise DataError if there is no file at `path`."""
    path = Path(path)
    if path.is_dir():
        raise DataError(f"{path} is a folder; give one of the files in it")
    if not path.is_file():
        raise MissingError(f"no such file: {path}")


def open_hdf5(path):
    """Open an HDF5 file for reading; raises DataError if it is missing or is not HDF5."""
    import h5py

    path = Path(path)
    check_file(path)
    if not h5py.is_hdf5(path):
        raise DamagedError(f"{path} is not an HDF5 file")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise DamagedError(f"{path} is damaged or cut short: {first_line(error)}") from error


def datasets(file):
    """All datasets of an open HDF5 file, {name: dataset}."""
    found = {}
    file.visititems(lambda name, item: found.update({name: item}) if hasattr(item, "shape") else None)
    return found


def slabs(dataset, cells=2**22):
    """The parts of an array or dataset along its first axis, of about so many numbers each, one after another."""
    thickness = max(1, cells // max(1, math.prod(dataset.shape[1:])))
    for start in range(0, dataset.shape[0], thickness):
        yield dataset[start:start + thickness]


class CheckedFile:
    """An HDF5 file opened for reading, as `file`, once `_check` has found it to be of the right kind.

    Use as a context manager, and as a mapping of names to datasets. Raises DataError if the file is missing, is not
    HDF5 or `_check` raises it; further arguments are those of `_check`.
    """

    def __init__(self, path, *arguments):
        self.path = Path(path)
        self.file = open_hdf5(path)
        try:
            self._check(*arguments)
        except DataError:
            self.file.close()
            raise

    @classmethod
    def from_file(cls, file, name, *arguments):
        """What is in an open file, such as one in memory, which has no such check; `name` stands in for its path."""
        made = cls.__new__(cls)
        made.path, made.file = name, file
        return made

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.file.close()

    def __contains__(self, name):
        return name in self.file

    def keys(self):
        """Names of all datasets, in alphabetical order."""
        return sorted(datasets(self.file))

    def __iter__(self):
        return iter(self.keys())

    def __getitem__(self, name):
        """The HDF5 dataset `name`; raises KeyError, which says what there is, for anything else."""
        found = self.file[name] if isinstance(name, str) and name in self.file else None
        if not hasattr(found, "shape"):  # a group is none
            raise KeyError(f"{self.path} has no dataset {name}; it holds {', '.join(self.keys())}")
        return found

    def _ipython_key_completions_(self):
        return self.keys()
