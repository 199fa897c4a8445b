"""Tables of which particle is in which halo: two columns, particle ID and halo ID, in text or .npy."""

import numpy as np

from kerasgal.errors import DataError
from kerasgal.readers import base, tables
from kerasgal.readers.cubes import memory_map


def read(path, h=None):
    """The `base.Members` of a table; raises DataError for another shape, and for IDs that are no whole numbers."""
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty; accepted are {base.accepted('groups')}")
    table = memory_map(path) if _is_numpy(path) else tables.read(path, None, base.accepted("groups"))
    if table.size == 0 and table.ndim == 2:
        table = np.zeros((0, 2))
    if table.ndim != 2 or table.shape[1] != 2:
        raise DataError(f"{path} has the shape {table.shape}; a table of members has two columns, particle ID and halo "
                        f"ID. Accepted are {base.accepted('groups')}")
    whole = table.dtype.kind in "iuf" and np.all(np.isfinite(table)) and np.all(np.rint(table) == table)
    if not whole:
        raise DataError(f"{path} has particle or halo IDs that are not whole numbers")
    ids, halos = np.asarray(table).T.astype(np.int64)
    return base.Members(path, ids, np.maximum(halos, -1))


def _is_numpy(path):
    with open(path, "rb") as file:
        return path.suffix == ".npy" or file.read(6) == b"\x93NUMPY"


def _recognises(seen):
    """True for a .npy file of two columns, and for text of two numbers a row."""
    if seen.start[:6] == b"\x93NUMPY":
        return b", 2)" in seen.start[:256]
    rows = [line for line in seen.start[:4096].splitlines() if line.strip() and not line.startswith(b"#")]
    try:
        return bool(rows) and all(len([float(word) for word in line.split()]) == 2 for line in rows[:1])
    except ValueError:
        return False


base.register(name="tables of particle ID and halo ID, in text or .npy", groups=read, size=lambda path: None,
              recognises=lambda seen: seen.hdf5 is None and _recognises(seen))
