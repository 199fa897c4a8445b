"""AHF's tables of haloes (Knollmann & Knebe 2009, arXiv:0904.3662): *.AHF_halos.

Units by AHF's documentation: Msun/h and kpc/h, comoving. Taken are haloes that are in no other. The box is not in the
table; the redshift stands in its name.
"""

import re

import numpy as np

from kerasgal.errors import DataError
from kerasgal.readers import base, tables

# Mvir(4) and Rvir(12) are of the overdensity that AHF was run with; later versions call them Mhalo and Rhalo.
COLUMNS = {"mass": ("mvir", "mhalo"), "radius": ("rvir", "rhalo"), "count": ("npart",), "x": ("xc",), "y": ("yc",),
           "z": ("zc",), "parent": ("hosthalo",)}


def names_of(lines):
    """The names of a table's columns in its comments, None where they are not AHF's."""
    names = tables.line_of_names(lines, "hosthalo", "numsubstruct")
    return names if names and names[0] == "id" else None


def read_groups(path, h=None):
    """The `base.Groups` of a table."""
    part = re.fullmatch(r"(.+)\.(\d{4})(\.z[\d.]+\.AHF_halos)", path.name)
    if part and len(list(path.parent.glob(f"{part[1]}.*{part[3]}"))) > 1:
        raise DataError(f"{path} has the haloes of a part of the box, as one of several that AHF wrote; put the tables "
                        "into one: cat them")
    wanted = tables.places(names_of(tables.comments(path)), path, COLUMNS, "AHF")
    table = tables.read(path, tuple(wanted.values()), base.accepted("groups"))
    # The host is that halo's ID: 0 or -1 for none, by the version. Where the first ID is 0, none is -1.
    place, = (list(wanted).index(name) for name in ("parent",))
    host = table[:, place]
    none = -1 if np.any(host < 0) else 0
    column = dict(zip(wanted, table[host == none].T))
    base.check_values(path, **{name: column[name] for name in ("mass", "radius", "count")})
    redshift = re.search(r"\.z(\d+\.\d+)", path.name)
    return base.Groups(
        paths=(path,), boxsize=None, length_unit="kpc", redshift=float(redshift[1]) if redshift else None,
        mass=column["mass"], position=np.stack([column[axis] for axis in "xyz"], axis=-1), radius=column["radius"],
        count=column["count"].astype(np.int64), finder="ahf")


base.register(name="AHF's tables in text", groups=read_groups,
              recognises=lambda seen: seen.hdf5 is None and names_of(seen.comments) is not None)
