"""PINOCCHIO's catalogues of haloes in text (Monaco et al. 2002, 2013): pinocchio.Z.RUN.catalog.out.

The layout is that of src/write_halos.c of version 5.1 (github.com/pigimonaco/Pinocchio, commit ad54496), which those
from 4.1 on have, too. Its header states the units: Msun/h and comoving Mpc/h, or without h; velocities are peculiar
km/s. Positions are given twice: where the halo is, and where its matter was, in a box whose Lagrangian cell (i, j, k)
has its centre at (i + 1/2, j + 1/2, k + 1/2) cells. The box is not in the table, nor which particles are in which halo.
"""

import logging
import re
import struct

import numpy as np

from kerasgal.errors import DataError, MissingError
from kerasgal.readers import base, tables

TITLE = r"Group catalog for redshift (\S+) and minimal mass of (\d+) particles?"
# Columns as the header says them: numbers of the first and the last, and a pattern. LIGHT_OUTPUT leaves the last out.
COLUMNS = ((1, 1, "group ID"), (2, 2, r"group mass \((.*)\)"), (3, 5, r"initial position \((.*)\)"),
           (6, 8, r"final position \((.*)\)"), (9, 11, r"velocity \((.*)\)"), (12, 12, "number of particles"))
UNITS = {("Msun/h", "Mpc/h", "Mpc/h", "km/s"): True, ("Msun", "Mpc", "Mpc", "km/s"): False}  # whether over h
EQUAL = 1e-4  # of mass over number of particles, which is printed with seven digits
LIGHT_CONE, HISTORIES = "Group catalog on the Past Light Cone", "Merger histories for halos"

log = logging.getLogger(__name__)


def header(path):
    """What comments say: redshift, fewest particles, whether units are over h, and the number of columns."""
    lines = tables.comments(path)
    title = re.fullmatch(TITLE, lines[0])
    columns = [re.fullmatch(r"(\d+)(?:\s*-\s*(\d+))?\)\s*(.*)", line) for line in lines[1:]]
    said = [(int(column[1]), int(column[2] or column[1]), column[3]) for column in columns if column]
    units, number = [], 0
    for (first, last, words), known in zip(said, COLUMNS):
        match = re.fullmatch(known[2], words)
        if (first, last) != known[:2] or match is None:
            break
        units += match.groups()
        number = last
    if len(said) != len([known for known in COLUMNS if known[1] <= number]) or number < COLUMNS[4][1]:
        raise DataError(f"{path} says that its columns are {'; '.join(words for *_, words in said) or 'nothing'}; read "
                        "are the 11 or 12 of PINOCCHIO 4.1 to 5.1")
    if tuple(units) not in UNITS:
        raise DataError(f"{path} has units of {', '.join(units)}; accepted are Msun/h, Mpc/h and km/s, or Msun, Mpc "
                        "and km/s")
    try:
        redshift = float(title[1])
    except ValueError:
        raise DataError(f"{path} says redshift {title[1]}, which is no number") from None
    named = re.fullmatch(r"pinocchio\.(\d+\.\d+)\..*", path.name)
    if named and abs(float(named[1]) - redshift) > 1e-3:
        raise DataError(f"{path} says redshift {redshift:g}, and its name {named[1]}")
    return redshift, int(title[2]), UNITS[tuple(units)], number


def parts_of(path):
    """All files of a catalogue that was written in several, NAME.0, NAME.1, ..., from any of them."""
    name = re.fullmatch(r"(.*\.out)\.(\d+)", path.name)
    if not name:
        return [path]
    numbers = sorted(int(other.name.rpartition(".")[2]) for other in path.parent.glob(f"{name[1]}.*")
                     if other.name.rpartition(".")[2].isdigit())
    if numbers != list(range(len(numbers))):
        missing = next(number for number in range(len(numbers)) if number not in numbers)
        raise MissingError(f"{path} is one of several files, of which {name[1]}.{missing} is missing")
    log.info("%s is in %s files; none of them says how many there should be", path.with_name(name[1]), len(numbers))
    return [path.with_name(f"{name[1]}.{number}") for number in numbers]


def read_groups(path, h=None):
    """The `base.Groups` of a catalogue, with the columns initial_position and velocity; h: where it is not over h."""
    paths = parts_of(path)
    headers = {header(part) for part in paths}
    if len(headers) > 1:
        raise DataError(f"{path} and the files beside it are not of one catalogue: their headers differ")
    (redshift, fewest, over_h, number), = headers
    if not over_h and h is None:
        raise DataError(f"{path} has masses in Msun and lengths in Mpc, neither over h; give `h`")
    found = []
    for part in paths:
        table = tables.read(part, None, base.accepted("groups"))
        table = table if table.size else np.zeros((0, number))
        if table.shape[1] != number:
            raise DataError(f"{part} has rows of {table.shape[1]} numbers, and says {number} columns")
        found.append(table)
    table = np.concatenate(found)
    factor = 1.0 if over_h else h
    mass, count = table[:, 1], table[:, 11] if number > 11 else np.zeros(len(table))
    base.check_values(path, mass=mass, **{"number of particles": count})
    check(path, table, fewest, number > 11)
    return base.Groups(
        paths=tuple(paths), boxsize=None, length_unit="Mpc", redshift=redshift, mass=mass * factor,
        position=table[:, 5:8] * factor, radius=np.zeros(len(table)), count=count.astype(np.int64),
        counted=number > 11, finder="pinocchio",
        further={"initial_position": table[:, 2:5] * factor, "velocity": table[:, 8:11]})


def check(path, table, fewest, counted):
    """Raise DataError for rows that contradict each other or the header."""
    if not np.isfinite(table).all():
        raise DataError(f"{path} has values that are NaN or infinite")
    names, times = np.unique(table[:, 0], return_counts=True)
    if np.any(times > 1):
        raise DataError(f"{path} has the group {names[times > 1][0]:.0f} more than once")
    if not counted or not len(table):
        return
    count, one = table[:, 11], table[:, 1] / np.maximum(table[:, 11], 1)
    if count.min() < fewest:
        raise DataError(f"{path} has a group of {count.min():.0f} particles, and says that the smallest has {fewest}")
    if np.ptp(one) > EQUAL * one.max():
        raise DataError(f"{path} has groups whose masses over their numbers of particles are {one.min():.6g} to "
                        f"{one.max():.6g}; all particles of PINOCCHIO have one mass")


def _begins(words):
    """A function that is true for a text whose first comment begins so."""
    return lambda seen: seen.hdf5 is None and bool(seen.comments) and seen.comments[0].startswith(words)


def _is_binary(seen):
    """Whether it is a catalogue of a run without CatalogInAscii: two numbers as Fortran writes them, tasks and size."""
    if len(seen.start) < 16:
        return False
    before, tasks, size, after = struct.unpack("<4i", seen.start[:16])
    return before == after == 8 and 0 < tasks < 2**20 and size in (48, 56, 88, 96)


base.register(name="PINOCCHIO's catalogues in text", groups=read_groups,
              recognises=lambda seen: seen.hdf5 is None and bool(seen.comments)
              and re.fullmatch(TITLE, seen.comments[0]) is not None)
base.register(name="PINOCCHIO's past light cone", recognises=_begins(LIGHT_CONE),
              instead="haloes of one time are in its pinocchio.Z.RUN.catalog.out")
base.register(name="PINOCCHIO's merger histories", recognises=_begins(HISTORIES),
              instead="haloes of one time are in its pinocchio.Z.RUN.catalog.out")
base.register(name="PINOCCHIO's binary catalogue", recognises=_is_binary,
              instead="run it with CatalogInAscii, or write it as text with its ReadPinocchio5.py")
