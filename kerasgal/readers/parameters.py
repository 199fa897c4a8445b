"""Cosmological parameters under all their usual names, in headers and in tables of parameters."""

import logging
import re
from pathlib import Path

import numpy as np

from kerasgal.errors import DataError
from kerasgal.files import check_file

log = logging.getLogger(__name__)
OURS = ("Om0", "Ob0", "h", "ns", "sigma8")
# Names in headers and tables, without underscores and in lower case: those of Gadget, Gizmo, MP-Gadget, SWIFT, CAMELS,
# Quijote and CAESAR.
NAMES = {
    "omegam": "Om0", "omega0": "Om0", "omegamatter": "Om0", "om": "Om0", "om0": "Om0", "omegam0": "Om0",
    "omegab": "Ob0", "omegabaryon": "Ob0", "omegabaryons": "Ob0", "ob": "Ob0", "ob0": "Ob0", "omegab0": "Ob0",
    "hubbleparam": "h", "h": "h", "littleh": "h", "h0": "h", "hubbleconstant": "h",
    "ns": "ns", "spectralindex": "ns", "primordialindex": "ns", "scalarindex": "ns",
    "sigma8": "sigma8",
}
# In CLASS and CAMB these are Omega h^2: with a small letter they say neither one nor the other for sure.
AMBIGUOUS = ("omega_m", "omega_b", "omegam", "omegab", "om", "ob", "H")
LAMBDA = ("omegalambda", "omegal", "omegav", "omegade")
# What flat LCDM without neutrinos takes for granted: {name: its value}.
GRANTED = {"w": -1, "w0": -1, "wa": 0, "mnu": 0, "omegak": 0, "omeganu": 0, "omeganu0": 0, "sumnu": 0}
KNOWN = {*LAMBDA, *GRANTED}  # of headers: their other numbers are not cosmology
FLATNESS = 0.01  # radiation and neutrinos are less
TOLERANCE = 1e-3
# The columns of the CAMELS Multifield Dataset's tables, which have no header (its documentation, "Description"); its
# runs of dark matter alone vary only the first two.
MULTIFIELD_NAMES = ("Omega_m", "sigma_8", "A_SN1", "A_AGN1", "A_SN2", "A_AGN2")


def folded(name):
    """A name without underscores, blanks and case."""
    return re.sub(r"[_\s]", "", str(name)).casefold()


def our_name(name):
    """The one of OURS that a name stands for, None for another."""
    return None if name in AMBIGUOUS else NAMES.get(folded(name))


def cosmology_in(values, path):
    """Split {name: number}: what is said of the cosmology, under our names, and the rest under its own.

    Numbers that are not finite or not positive say nothing. Raises DataError where two names contradict each other, or
    matter and Lambda are no flat universe; logs a warning for what is said and not used.
    """
    found, names, rest = {}, {}, {}
    for name, value in values.items():
        ours = our_name(name)
        if ours is None:
            rest[name] = value
            continue
        if not (np.isfinite(value) and value > 0):
            continue
        if ours == "h" and value > 10:  # H0 in km/s/Mpc
            value = value / 100
        if ours in found and abs(found[ours] - value) > TOLERANCE:
            raise DataError(f"{path} contradicts itself: {names[ours]} = {found[ours]:g}, {name} = {value:g}")
        found.setdefault(ours, value)
        names.setdefault(ours, name)
    dark_energy = {name: value for name, value in rest.items() if folded(name) in LAMBDA and 0 < value < np.inf}
    for name, value in dark_energy.items():
        if "Om0" in found and abs(found["Om0"] + value - 1) > FLATNESS:
            raise DataError(f"{path} says {names['Om0']} = {found['Om0']:g} and {name} = {value:g}, which are no flat "
                            "universe; accepted is one in which they add up to 1")
    unused = [f"{name} = {value:g}" for name, value in rest.items() if np.isfinite(value) and (
        (name in AMBIGUOUS and name != "H") or abs(GRANTED.get(folded(name), value) - value) > 1e-6)]
    if unused:
        log.warning("%s says %s, which is recorded at most: growth and mean density are those of flat LCDM without it",
                    path, ", ".join(unused))
    return found, rest


def table_names(header, columns):
    """The names of a table's columns: the last comment of so many words, or those of the Multifield Dataset."""
    fitting = [names for names in header if len(names) == columns]
    if fitting:
        return fitting[-1]
    return MULTIFIELD_NAMES[:2] if columns == 2 else MULTIFIELD_NAMES


def read_parameters(path, index, rows=None):
    """A simulation's row of a table of parameters, {name: value}; those of the cosmology under our names.

    The table is one of CAMELS or Quijote: names in a line that begins with #, then a row for each simulation; columns
    of its name and its random seed are left out; or one of the CAMELS Multifield Dataset, six columns without names, or
    two. index: of the row, from 0; rows: how many there must be, None if that is not known.
    Raises DataError if the file is missing, is no such table, has no such row, or contradicts itself.
    """
    path = Path(path)
    names, table = read_table(path)
    if rows is not None and len(table) != rows:
        raise DataError(f"{path} has {len(table)} rows, and the file of fields {rows} simulations")
    if not 0 <= index < len(table):
        raise DataError(f"{path} has no row {index}; accepted are 0 to {len(table) - 1} (see `index`)")
    values = {}
    for name, text in zip(names, table[index]):
        if re.fullmatch("(sim_?)?name|seed", name, re.IGNORECASE):
            continue
        try:
            value = float(text)
        except ValueError:
            raise DataError(f"{path}: {name} is {text} in row {index}; accepted is a number") from None
        if not np.isfinite(value):
            raise DataError(f"{path}: {name} is {text} in row {index}; accepted is a number")
        values[name] = value
    found, rest = cosmology_in(values, f"{path}, row {index},")
    return {**found, **rest}


def read_table(path):
    """The names of the columns of a table of parameters, and its rows as lists of words."""
    check_file(path)
    lines = [line for line in Path(path).read_text(errors="replace").splitlines() if line.strip("# \t\r")]
    header = [line.lstrip("# ").split() for line in lines if line.lstrip().startswith("#")]
    table = [line.split() for line in lines if not line.lstrip().startswith("#")]
    names = table_names(header, len(table[0]) if table else 0)
    wrong = next((row for row in table if len(row) != len(names)), None)
    if wrong is not None or not table:
        what = f"a row of {len(wrong)} columns" if table else "no rows"
        raise DataError(f"{path} has {what}; accepted are {len(names)}: {', '.join(names)}"
                        + ("" if header else ", or as many as a first line, after #, has names"))
    return names, table
