"""Tables with units: as astropy has them, and as files hold them."""

import warnings
from pathlib import Path

from kerasgal.errors import SettingError
from kerasgal.files import replacing

SUFFIXES = (".ecsv", ".fits", ".csv")
# What the texts of units here mean; h is astropy's littleh.
UNITS = {"Msun/h": ("Msun", "littleh"), "Mpc/h": ("Mpc", "littleh")}


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

    if text in UNITS:
        above, _ = UNITS[text]
        return u.Unit(above) / cosmological.littleh
    return u.Unit(text)


def write_table(path, table, header=None, overwrite=False):
    """Write a table by the suffix of its path, whole or not at all.

    FITS has no unit with h in it: there units stand in the header, under the column's name, and in .csv they stand
    nowhere.

    Parameters
    ----------
    path : str or Path
        File to write: .ecsv, .fits or .csv.
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
    ExistsError
        If the file exists.

    Examples
    --------
    >>> from kerasgal.tables import write_table
    >>> write_table("masses.csv", {"mass": [1e12, 2e12]})
    >>> print(open("masses.csv").read().split())
    ['mass', '1000000000000.0', '2000000000000.0']
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
