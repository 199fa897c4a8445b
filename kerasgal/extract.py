"""Fields and catalogues out of the HDF5 files that kerasgal writes: .npy, and tables in ECSV or FITS."""

from pathlib import Path

import numpy as np

from kerasgal.errors import DataError
from kerasgal.files import check_room, open_hdf5, refuse_existing, replacing, write_table

ACCEPTED = "accepted are .npy for a field, .ecsv and .fits for a catalogue"
# Of the columns that catalogues have in all these files.
UNITS = {"mass": "Msun/h", "stellar_mass": "Msun/h", "position": "comoving Mpc/h", "radius": "comoving Mpc/h"}
BYTES_AT_ONCE = 2**26


def extract(path, name, output, overwrite=False):
    """Write one item of the HDF5 file `path`: a dataset as .npy, a group of columns as a table, .ecsv or .fits.

    name: of the dataset, such as "final/delta", or of the group, such as "halos". Fields are copied part by part, so
    that one larger than memory passes. Returns in words what is written.
    Raises DataError if the file is missing or has no such item, or the suffix of `output` is not one for it.
    """
    output = Path(output)
    refuse_existing(output, overwrite)
    with open_hdf5(path) as file:
        if name not in file:
            names = []
            file.visit(names.append)
            raise DataError(f"{path} has no {name}; it holds {', '.join(names) or 'nothing'}")
        item = file[name]
        is_field = hasattr(item, "shape")
        if output.suffix not in ([".npy"] if is_field else [".ecsv", ".fits"]):
            raise DataError(f"{name} in {path} is a {'field' if is_field else 'catalogue'}, not what {output} is for: "
                            f"{ACCEPTED}")
        if is_field:
            _copy(item, output, overwrite)
            return f"{item.shape} {item.dtype}"
        # A field may lie beside them, as the galaxies in cells do.
        columns = {column: values for column, values in item.items() if getattr(values, "ndim", 0) in (1, 2)}
        if len({len(values) for values in columns.values()}) != 1:
            raise DataError(f"{name} in {path} is no catalogue: its columns have not all the same length, or there are "
                            f"none ({', '.join(f'{column} {values.shape}' for column, values in columns.items())})")
        columns = {column: _values(values) for column, values in columns.items()}
    units = {column: unit for column, unit in UNITS.items() if column in columns}
    source = f"{path}: {name}".encode("ascii", "replace").decode()  # all that a FITS header holds
    write_table(output, columns, {"source": source, **units}, overwrite)
    return f"{len(next(iter(columns.values())))} rows of {', '.join(columns)}"


def _values(dataset):
    """All of a dataset, strings as text of one length."""
    return np.asarray(dataset.asstr()[...]).astype(str) if dataset.dtype.kind in "OS" else dataset[...]


def _copy(dataset, output, overwrite):
    """Write a dataset of any size as a .npy file."""
    check_room(output, dataset.nbytes)
    with replacing(output, overwrite) as temporary:
        if not dataset.size or not dataset.ndim or dataset.dtype.kind == "O":
            np.save(temporary, _values(dataset))
            return
        field = np.lib.format.open_memmap(temporary, "w+", dataset.dtype, dataset.shape)
        rows = max(1, BYTES_AT_ONCE // (dataset.nbytes // len(dataset)))
        for start in range(0, len(dataset), rows):
            field[start:start + rows] = dataset[start:start + rows]
        field.flush()
