"""Rockstar's tables of haloes (Behroozi et al. 2013, arXiv:1110.4372): out_*.list and halos_*.ascii.

Its header states the units: Msun/h, Mpc/h and kpc/h, comoving. Taken are virial masses and radii, of haloes that have
no parent, where the table says which have one. Rockstar-Galaxies finds galaxies too: haloes are its rows of Type 0.
"""

import logging
import re

import numpy as np

from kerasgal.errors import DataError
from kerasgal.readers import base, tables

log = logging.getLogger(__name__)
COLUMNS = {"mass": ("mvir",), "radius": ("rvir",), "count": ("np", "num_p"), "x": ("x",), "y": ("y",), "z": ("z",)}


def names_of(lines):
    """The names of a table's columns in its comments, None where they are not Rockstar's."""
    names = tables.line_of_names(lines, "id")
    return names if names and names[0] == "id" and names[1:2] in (["descid"], ["num_p"]) else None


def read_groups(path, h=None):
    """The `base.Groups` of a table."""
    part = re.fullmatch(r"(halos_.+)\.\d+\.ascii", path.name)
    if part and len(list(path.parent.glob(f"{part[1]}.*.ascii"))) > 1:
        raise DataError(f"{path} has the haloes of a part of the box, as one of several that Rockstar wrote at a time; "
                        "give its out_N.list, which has them all")
    names = names_of(tables.comments(path))
    wanted = tables.places(names, path, COLUMNS, "Rockstar")
    # Those that may be missing, and what they are of the haloes that are taken.
    choices = {name: value for name, value in (("pid", -1), ("type", 0)) if name in names}
    wanted |= {name: names.index(name) for name in choices}
    table = tables.read(path, tuple(wanted.values()), base.accepted("groups"))
    column = dict(zip(wanted, table.T))
    for name, value in choices.items():
        chosen = column[name] == value
        column = {other: values[chosen] for other, values in column.items()}
    if "pid" not in choices:
        log.warning("%s has no column PID, so that haloes within others are among its haloes; Rockstar's find_parents "
                    "makes one", path)
    said = tables.stated(path)
    base.check_values(path, **{name: column[name] for name in ("mass", "radius", "count")})
    return base.Groups(
        # Runs of a part of the universe without a period have a box of 0.
        paths=(path,), boxsize=said["boxsize"] if said.get("boxsize", 0) > 0 else None, length_unit="Mpc",
        redshift=tables.redshift_of(said), mass=column["mass"],
        position=np.stack([column[axis] for axis in "xyz"], axis=-1), radius=column["radius"] / 1e3,
        count=column["count"].astype(np.int64), cosmology=tables.cosmology_of(said), finder="rockstar")


base.register(name="Rockstar's tables in text", groups=read_groups,
              recognises=lambda seen: seen.hdf5 is None and names_of(seen.comments) is not None)
