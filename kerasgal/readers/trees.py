"""Haloes of consistent-trees (Behroozi et al. 2013b, arXiv:1110.4370) of one time: hlist_*.list.

Units stand in the header: Msun/h, Mpc/h and kpc/h, comoving. Taken are virial masses and radii of haloes without a
parent. The number of their particles is not there: it is the mass in particles, where the header says what one has.
"""

import re

import numpy as np

from kerasgal.errors import DataError
from kerasgal.readers import base, tables

COLUMNS = {"mass": ("mvir",), "radius": ("rvir",), "x": ("x",), "y": ("y",), "z": ("z",), "parent": ("pid",),
           "scale": ("scale",)}


def names_of(lines):
    """The names of a table's columns in its comments, None where they are not those of consistent-trees."""
    names = tables.line_of_names(lines, "scale", "desc_scale")
    return names if names and names[:2] == ["scale", "id"] else None


def read_groups(path, h=None):
    """The `base.Groups` of a table."""
    lines = tables.comments(path)
    wanted = tables.places(names_of(lines), path, COLUMNS, "consistent-trees")
    with open(path, "rb") as file:
        if any(line.lower().startswith(b"#tree") for line in file):
            raise DataError(f"{path} has merger trees, haloes of all times; give the list of one time, hlist_*.list, "
                            "that consistent-trees makes of them (halo_trees_to_catalog.pl)")
    table = tables.read(path, tuple(wanted.values()), base.accepted("groups"))
    column = dict(zip(wanted, table[table[:, list(wanted).index("parent")] == -1].T))
    scales = np.unique(table[:, list(wanted).index("scale")])
    if len(scales) > 1:
        raise DataError(f"{path} has haloes of {len(scales)} times; accepted is a list of one")
    base.check_values(path, **{name: column[name] for name in ("mass", "radius")})
    said = tables.stated(path)
    match = re.search(r"particle mass\s*[:=]\s*(\S+) Msun/h", "\n".join(lines), re.IGNORECASE)
    count = np.zeros(len(column["mass"]), np.int64)
    if match and float(match[1]) > 0:
        count = np.rint(column["mass"] / float(match[1])).astype(np.int64)
    return base.Groups(
        paths=(path,), boxsize=said["boxsize"] if said.get("boxsize", 0) > 0 else None, length_unit="Mpc",
        redshift=tables.redshift_of({"scale": float(scales[0])} if len(scales) else {}), mass=column["mass"],
        position=np.stack([column[axis] for axis in "xyz"], axis=-1), radius=column["radius"] / 1e3, count=count,
        counted=bool(match), cosmology=tables.cosmology_of(said), finder="rockstar")


base.register(name="consistent-trees' lists of one time (hlist)", groups=read_groups,
              recognises=lambda seen: seen.hdf5 is None and names_of(seen.comments) is not None)
