"""HOP's table of haloes as yt writes it (HopAnalysis.out): masses in Msun, centres of mass in box sides."""

import re

import numpy as np

from kerasgal.errors import DataError
from kerasgal.readers import base, tables

COLUMNS = {"mass": 1, "count": 2, "x": 7, "y": 8, "z": 9}


def is_hop(lines):
    """True for the comments of such a table."""
    return any("HALOS FOUND WITH" in line or re.match(r"(Group\s+Mass|Center of mass does NOT)", line)
               for line in lines)


def read_groups(path, h=None):
    """The `base.Groups` of a table; h: of the run, which the table does not say."""
    if h is None:
        raise DataError(f"{path} has masses in Msun, not Msun/h; give `h`")
    table = tables.read(path, tuple(COLUMNS.values()), base.accepted("groups"))
    column = dict(zip(COLUMNS, table.T))
    base.check_values(path, **column)
    return base.Groups(
        paths=(path,), boxsize=1.0, length_unit="box", redshift=tables.stated(path).get("redshift"),
        mass=column["mass"] * h, position=np.stack([column[axis] for axis in "xyz"], axis=-1),
        # Its max_r is the distance of the outermost particle, not the radius of a mass.
        radius=np.zeros(len(table)), count=column["count"].astype(np.int64), finder="hop")


base.register(name="HOP's table in text", groups=read_groups,
              recognises=lambda seen: seen.hdf5 is None and is_hop(seen.comments))
