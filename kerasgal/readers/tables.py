"""Tables in text: their comment lines, the names of their columns, and their numbers."""

import re
import warnings

import numpy as np

from kerasgal.errors import DataError, first_line

# What comments of halo finders state of the run: Rockstar, consistent-trees, HOP.
PATTERNS = {
    "scale": r"^a = (\S+)", "boxsize": r"(?:Full )?box size\s*[:=] (\S+) Mpc/h",
    "redshift": r"REDSHIFT OF OUTPUT = (\S+)",
    "Om0": r"\b(?:Om|Omega_M) = ([^\s;]+)", "h": r"\b(?:h|h0) = ([^\s;]+)",
}


def comments(path):
    """The lines of a text file before its first row, those that begin with #, without it; empty ones are left out."""
    found = []
    with open(path, "rb") as file:
        for line in file:
            line = line.decode("latin-1").strip()
            if line and not line.startswith("#"):
                break
            if line.strip("# \t"):
                found.append(line.lstrip("#").strip())
    return found


def stated(path):
    """{name of PATTERNS: number} of what the comments of a table state."""
    found = {}
    for line in comments(path):
        for name, pattern in PATTERNS.items():
            match = re.search(pattern, line, re.IGNORECASE if name == "boxsize" else 0)
            if match and name not in found:
                try:
                    found[name] = float(match[1])
                except ValueError:
                    continue
    return {name: value for name, value in found.items() if np.isfinite(value)}


def cosmology_of(said):
    """The Om0 and h among what comments state."""
    return {name: said[name] for name in ("Om0", "h") if said.get(name, 0) > 0}


def redshift_of(said):
    """The redshift of a scale factor among what comments state, None without one."""
    return round(1 / said["scale"] - 1, 12) if said.get("scale", 0) > 0 else None


def names_in(line):
    """Names of columns in a comment, in lower case; numbers behind them, as in Mvir(4), are left out."""
    return [re.sub(r"\s*\(\d+\)$", "", word).casefold() for word in re.sub(r"\s+\((\d+)\)", r"(\1)", line).split()]


def line_of_names(lines, *needed):
    """The first of the comments that names all columns `needed`, as a list of names; None if there is none."""
    for line in lines:
        names = names_in(line)
        if all(name in names for name in needed):
            return names
    return None


def places(names, path, wanted, finder):
    """Numbers of columns, {key: place}; wanted: {key: names that it may have}. Raises DataError naming the missing."""
    place = {name: number for number, name in reversed(list(enumerate(names)))}
    missing = [accepted[0] for accepted in wanted.values() if not any(name in place for name in accepted)]
    if missing:
        raise DataError(f"{path} has no column {', '.join(missing)}; a table of {finder} that is read has them")
    return {key: next(place[name] for name in accepted if name in place) for key, accepted in wanted.items()}


def read(path, columns, accepted):
    """Numbers of some columns of a text table, (rows, columns) float64; `accepted`: what else would be, for errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a table without rows
        try:
            table = np.loadtxt(path, usecols=columns, ndmin=2)
        except (ValueError, IndexError, OverflowError) as error:  # UnicodeDecodeError among them
            reason = "it is no text" if isinstance(error, UnicodeDecodeError) else first_line(error)
            raise DataError(f"{path} is not a catalogue that is read ({reason}); accepted are {accepted}") from error
    return table if columns is None or table.size else table.reshape(0, len(columns))
