"""Tables with units: as astropy has them, and as files hold them."""

import warnings
from pathlib import Path

from kerasgal.errors import SettingError
from kerasgal.files import replacing

SUFFIXES = (".ecsv", ".fits", ".csv")
# What the texts of units here mean; h is astropy's littleh.
UNITS = {"Msun/h": ("Msun", "littleh"), "Mpc/h": ("Mpc", "littleh")}


def quantities(columns, units, header):
    """An astropy QTable of columns, {name: array}, with units, {name: text}, and a header in its `meta`."""
    from astropy.table import QTable

    table = QTable(dict(columns), meta=dict(header))
    for name, text in units.items():
        if name in table.colnames:
            table[name].unit = unit(text)
    return QTable(table)


def unit(text):
    """The astropy unit of a text such as "Msun/h" or "Mpc/h"."""
    import astropy.units as u
    from astropy.cosmology import units as cosmological

    if text in UNITS:
        above, _ = UNITS[text]
        return u.Unit(above) / cosmological.littleh
    return u.Unit(text)


def write_table(path, table, header=None, overwrite=False):
    """Write a table by the suffix of `path`: .ecsv, .fits or .csv.

    table: an astropy table, or columns {name: array} with a `header`, {name: value}. FITS has no unit with h in it:
    there units stand in the header, under the column's name, and in .csv they stand nowhere.
    """
    from astropy.table import QTable

    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise SettingError(f"{path}: accepted suffixes are {', '.join(SUFFIXES)}", value=path.suffix,
                           accepted=SUFFIXES)
    if not isinstance(table, QTable):
        table = QTable(dict(table), meta=dict(header or {}))
    if path.suffix == ".fits":
        table = _for_fits(table)
    elif path.suffix == ".csv":
        table = QTable({name: getattr(table[name], "value", table[name]) for name in table.colnames})
    with replacing(path, overwrite) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Keyword name .* a HIERARCH card will be created")
        table.write(temporary)


def _for_fits(table):
    """A table without units that FITS has not, which stand in the header then, in characters that it can have."""
    from astropy.table import QTable

    meta = {key: _ascii(value) for key, value in table.meta.items()}
    columns = {}
    for name in table.colnames:
        column = table[name]
        if getattr(column, "unit", None) is not None and "littleh" in column.unit.to_string():
            meta[name] = column.unit.to_string().replace(" / littleh", "/h").replace("solMass", "Msun")
            column = column.value
        columns[name] = column
    return QTable(columns, meta=meta)


def _ascii(value):
    return value.encode("ascii", "replace").decode() if isinstance(value, str) else value
