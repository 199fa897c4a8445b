"""Tables with units: as astropy has them, and as files hold them."""

import csv
import importlib.util
import warnings
from pathlib import Path

import numpy as np

from kerasgal import __version__
from kerasgal.errors import MissingError, SettingError
from kerasgal.files import replacing

SUFFIXES = (".ecsv", ".fits", ".csv", ".hdf5", ".h5", ".parquet")
FLAT = (".csv", ".parquet")  # one number a column: CSV has no others, and pandas reads no others from Parquet
HDF5_PATH = "table"  # of the table in an HDF5 file
# What the texts of units here mean; h is astropy's littleh.
UNITS = {"Msun/h": ("Msun", "littleh"), "Mpc/h": ("Mpc", "littleh"), "kpc/h": ("kpc", "littleh")}


def quantities(columns, units, header):
    """An astropy table of columns with units.

    Parameters
    ----------
    columns : dict
        {name: array}.
    units : dict
        {name: text}, such as "Msun/h"; see `unit`.
    header : dict
        What stands in the table's `meta`.

    Returns
    -------
    astropy.table.QTable

    Examples
    --------
    >>> from kerasgal.tables import quantities
    >>> quantities({"mass": [1e12, 2e12]}, {"mass": "Msun/h"}, {"app": "protohalo"})["mass"].unit.to_string()
    'solMass / littleh'
    """
    from astropy.table import QTable

    table = QTable(dict(columns), meta=dict(header))
    for name, text in units.items():
        if name in table.colnames:
            table[name].unit = unit(text)
    return QTable(table)


def unit(text):
    """The astropy unit of a text; the h in it is astropy's littleh.

    Parameters
    ----------
    text : str
        Such as "Msun/h", "Mpc/h" or "km/s".

    Returns
    -------
    astropy.units.Unit

    Examples
    --------
    >>> from kerasgal.tables import unit
    >>> unit("Mpc/h").to_string()
    'Mpc / littleh'
    """
    import astropy.units as u
    from astropy.cosmology import units as cosmological

    # Astropy does not know littleh by its name until this is said: tables that have it would be read with a warning.
    u.add_enabled_units([cosmological.littleh])
    if text in UNITS:
        above, _ = UNITS[text]
        return u.Unit(above) / cosmological.littleh
    return u.Unit(text)


def write_table(path, table, header=None, overwrite=False):
    """Write a table by the suffix of its path, whole or not at all.

    Beside positions, (n, 3), stand their coordinates as x, y and z; .csv and .parquet have these alone, and any other
    column of several numbers a row as NAME_0, NAME_1, ... The header is the table's `meta`: of .ecsv, .hdf5 and
    .parquet as astropy keeps it, of .fits as keywords, of .csv as lines "# name: value" before the columns. It holds
    kerasgal's version. FITS and CSV have no unit with h in it, CSV no units at all: there they stand in the header,
    under the column's name.

    Parameters
    ----------
    path : str or Path
        File to write: .ecsv, .fits, .csv, .hdf5 or .h5 (in the group "table"), or .parquet.
    table : astropy.table.Table or dict
        A table, or columns {name: array}.
    header : dict, optional
        Of columns, {name: value}.
    overwrite : bool
        Replace the file if it exists.

    Raises
    ------
    SettingError
        For another suffix.
    MissingError
        For .parquet where pyarrow is not installed.
    ExistsError
        If the file exists.

    Examples
    --------
    >>> from kerasgal.tables import write_table
    >>> write_table("masses.csv", {"mass": [1e12, 2e12]}, {"run": "deep", "boxsize": 50.0})
    >>> print(open("masses.csv").read().splitlines()[1:])
    ['# run: deep', '# boxsize: 50.0', 'mass', '1000000000000.0', '2000000000000.0']
    """
    from astropy.table import QTable

    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise SettingError(f"{path}: accepted suffixes are {', '.join(SUFFIXES)}", value=path.suffix,
                           accepted=SUFFIXES)
    if path.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise MissingError(f"{path} needs pyarrow: pip install 'kerasgal[parquet]'; accepted without it are "
                           f"{', '.join(SUFFIXES[:-1])}")
    meta = {**getattr(table, "meta", {}), **(header or {})}
    if not isinstance(table, QTable):
        table = QTable(dict(table))
    table = QTable(scalars({name: table[name] for name in table.colnames}, vectors=path.suffix not in FLAT),
                   meta={"kerasgal": __version__, **{key: _plain(value) for key, value in meta.items()}})
    with replacing(path, overwrite) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Keyword name .* a HIERARCH card will be created")
        if path.suffix == ".csv":
            _write_csv(temporary, *_without_units(table, lambda unit: True))
        elif path.suffix == ".fits":
            columns, meta = _without_units(table, lambda unit: "littleh" in unit.to_string())
            QTable(columns, meta={key: _ascii(value) for key, value in meta.items()}).write(temporary)
        elif path.suffix in (".hdf5", ".h5"):
            _write_hdf5(temporary, table)
        else:
            table.write(temporary)


def scalars(columns, vectors=False):
    """Columns with x, y and z beside positions, as a dictionary.

    columns: {name: array (n,) or (n, k)}; vectors: keep columns of several numbers a row, too. Without, those others
    than positions become NAME_0, NAME_1, ...
    """
    made = {}
    for name, values in columns.items():
        if np.ndim(values) != 2:
            made[name] = values
            continue
        axes = "xyz" if name == "position" and values.shape[1] == 3 else ""
        if vectors:
            made[name] = values
        for axis in range(values.shape[1] if axes or not vectors else 0):
            title = axes[axis] if axes else f"{name}_{axis}"
            if title not in columns:
                made[title] = values[:, axis]
    return made


def _without_units(table, which):
    """Columns of a table without the units for which a function is true, and its meta with these units in words."""
    meta, columns = dict(table.meta), {}
    for name in table.colnames:
        column = table[name]
        known = getattr(column, "unit", None)
        if known is not None and which(known):
            meta[name] = known.to_string().replace(" / littleh", "/h").replace("solMass", "Msun")
            column = column.value
        columns[name] = column
    return columns, meta


def _write_csv(path, columns, meta):
    """Columns (n,) as CSV, after lines "# name: value" of what stands in meta."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        for key, value in meta.items():
            file.write(f"# {key}: {' '.join(str(value).split())}\n")
        plain = csv.writer(file, lineterminator="\n")
        quoted = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
        for row in ([*columns], *zip(*map(_texts, columns.values()))):
            # Readers take what follows a # that is not quoted for a comment.
            writer = quoted if any("#" in text for text in row) else plain
            writer.writerow(row)


def _texts(column):
    """The values of a column as texts; empty where they are masked."""
    if hasattr(column, "unmasked"):  # astropy's, of a quantity
        column = np.ma.array(column.unmasked, mask=column.mask)
    values = np.ma.asarray(column)
    texts = values.data
    texts = np.char.decode(texts, "utf-8", "replace") if texts.dtype.kind == "S" else texts.astype(str)
    return np.where(np.ma.getmaskarray(values), "", texts).tolist()


def _write_hdf5(path, table):
    """A table as astropy writes it into HDF5, and its meta in the attributes of the file, too."""
    import h5py

    table.write(path, format="hdf5", path=HDF5_PATH, serialize_meta=True)
    with h5py.File(path, "r+") as file:
        file.attrs.update(table.meta)


def _plain(value):
    """A number of NumPy's as one of Python's, which all formats can write."""
    return value.item() if isinstance(value, np.generic) else value


def _ascii(value):
    """A text as FITS headers can have it: one line of ASCII; anything else as it is."""
    return " ".join(value.split()).encode("ascii", "replace").decode() if isinstance(value, str) else value
