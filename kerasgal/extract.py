"""Fields and catalogues out of HDF5 files: .npy, and tables in the formats of `kerasgal.tables`.

Columns of the files that kerasgal writes have its units. Those of any other file have the units that the file says, in
an attribute `unit` or `units` of each, or none.
"""

from pathlib import Path

import numpy as np

from kerasgal.errors import DataError
from kerasgal.files import check_room, refuse_existing, refuse_inputs, replacing
from kerasgal.imageset import FORMAT as IMAGE_SET
from kerasgal.readers.base import opened
from kerasgal.simulation import FORMAT as SIMULATION
from kerasgal.tables import FLAT, SUFFIXES, quantities, scalars, unit, write_table

ACCEPTED = f"accepted are .npy for a field, {', '.join(SUFFIXES)} for a catalogue"
# Of the columns that catalogues have in all files that kerasgal writes; lengths are comoving.
UNITS = {"mass": "Msun/h", "stellar_mass": "Msun/h", "position": "Mpc/h", "radius": "Mpc/h"}
UNITS_OF_IMAGES = {"radius": "arcsec", "radius_kpc": "kpc", "ra": "deg", "dec": "deg"}
HEADER = ("app", "run", "boxsize", "kerasgal", "notes")  # attributes of our files that their tables have, too
STATED = ("unit", "units", "Unit", "Units")  # attributes of datasets in files of other makes
BYTES_AT_ONCE = 2**26


def extract(path, name, output, overwrite=False):
    """Write one item of the HDF5 file `path`: a dataset as .npy, a group of columns as a table.

    name: of the dataset, such as "final/delta", or of the group, such as "halos". Fields are copied part by part, so
    that one larger than memory passes. Returns in words what is written, and for a table of another make its units.
    Raises DataError if the file is missing or has no such item, or the suffix of `output` is not one for it.
    """
    output = Path(output)
    refuse_existing(output, overwrite)
    refuse_inputs([output], [path])
    with opened(path) as file:
        if name not in file:
            names = []
            file.visit(names.append)
            raise DataError(f"{path} has no {name}; it holds {', '.join(names) or 'nothing'}")
        item = file[name]
        is_field = hasattr(item, "shape")
        if output.suffix not in ([".npy"] if is_field else SUFFIXES):
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
        ours = file.attrs.get("format") in (SIMULATION, IMAGE_SET) or "app" in file.attrs
        said = {column: _stated(values) for column, values in columns.items()}
        usual = UNITS_OF_IMAGES if file.attrs.get("format") == IMAGE_SET else UNITS
        units = {column: said[column] or (usual.get(column) if ours else None) for column in columns}
        header = {"source": f"{path}: {name}"}
        header |= {key: _plain(file.attrs[key]) for key in HEADER if ours and key in file.attrs}
        columns = {column: _values(values) for column, values in columns.items()}
    units = {column: text for column, text in units.items() if text}
    # What astropy does not know as a unit stands in the header in words.
    header |= {column: text for column, text in units.items() if not _known(text)}
    known = {column: text for column, text in units.items() if _known(text)}
    write_table(output, quantities(columns, known, header), overwrite=overwrite)
    written = scalars(columns, vectors=output.suffix not in FLAT)
    words = f"{len(next(iter(columns.values())))} rows of {', '.join(written)}"
    if ours:
        return words
    named = ", ".join(f"{column} in {text}" for column, text in units.items())
    return f"{words}; {named or 'no units'}, as the file says"


def _plain(value):
    """An attribute's text as text."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _stated(dataset):
    """The unit in the attributes of a dataset, None where there is none."""
    for name in STATED:
        value = _plain(dataset.attrs.get(name))
        if isinstance(value, str) and value.strip():
            return value.strip()
    return None


def _known(text):
    """Whether a text is a unit of astropy's."""
    try:
        unit(text)
    except (ValueError, TypeError):
        return False
    return True


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
