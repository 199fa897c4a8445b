"""Halo and galaxy catalogues of other makes than FoF/SUBFIND: CAESAR, Rockstar, HOP, and plain tables of members.

Which one a file is, its own first lines or groups say. A catalogue of haloes alone, without their particles, goes with
a density field; Lagrangian particles need members.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kerasgal.errors import DataError
from kerasgal.readers import fields, gadget

ACCEPTED = ("FoF/SUBFIND and CAESAR catalogues in HDF5, Rockstar's and HOP's tables in text, and tables of particle ID "
            "and halo ID, in text or .npy")
# The names of the columns in out_*.list and in halos_*.ascii, in lower case.
ROCKSTAR = {"mass": ("mvir",), "radius": ("rvir",), "count": ("np", "num_p"), "x": ("x",), "y": ("y",), "z": ("z",)}
HOP_COLUMNS = {"mass": 1, "count": 2, "x": 7, "y": 8, "z": 9}
# In CAESAR's own unit registry "cm" at the end of a length says that it is comoving.
CAESAR_IN_MPC = {"kpccm": 1e-3, "Mpccm": 1.0}


@dataclass(frozen=True)
class Members:
    """A table of which particle is in which halo: ids and halos, (rows,) int64 each; halo -1 for none."""

    path: Path
    ids: np.ndarray
    halos: np.ndarray


def read_groups(path, h=None):
    """The `gadget.Groups` or the `Members` of a catalogue of any kind; h: for those that do not count in 1/h.

    Raises DataError if the file is missing, is not of a kind that is read, or lacks what is needed.
    """
    import h5py

    path = gadget.existing(path)
    if h5py.is_hdf5(path):
        return _caesar_groups(path) if _is_caesar(path) else gadget.read_groups(path)
    if path.suffix == ".npy":
        return _members(path, fields.memory_map(path))
    first = _first_line(path)
    if not first:
        raise DataError(f"{path} is empty; accepted are {ACCEPTED}")
    if _is_rockstar(first):
        return _rockstar(path, first)
    if _is_hop(first):
        return _hop(path, h)
    return _members(path, _table(path, None))


def _is_rockstar(first):
    """True for the first line of a table of Rockstar's."""
    return bool(re.match(r"#\s*id\s+(descid|num_p)\s", first, re.IGNORECASE))


def _is_hop(first):
    """True for the first line of a table of HOP's, as yt writes it."""
    return "HALOS FOUND WITH" in first or bool(re.match(r"# (Group\s+Mass|Center of mass does NOT)", first))


def read_galaxies(path):
    """The `gadget.Galaxies` of a SUBFIND or CAESAR catalogue; raises DataError as `gadget.read_galaxies`."""
    import h5py

    path = gadget.existing(path)
    if not h5py.is_hdf5(path):
        raise DataError(f"{path} is no catalogue of galaxies; accepted are SUBFIND's and CAESAR's, in HDF5")
    return _caesar_galaxies(path) if _is_caesar(path) else gadget.read_galaxies(path)


def number_of_groups(path):
    """How many groups a catalogue's header says that it has; 0 where it does not; None for a table of members."""
    import h5py

    path = gadget.existing(path)
    if h5py.is_hdf5(path):
        return gadget.number_of_groups(path)
    first = "" if path.suffix == ".npy" else _first_line(path)
    return 0 if _is_rockstar(first) or _is_hop(first) else None


def has_groups(path):
    """True if a catalogue of galaxies has their groups too."""
    with gadget.opened(gadget.existing(path)) as file:
        return "halo_data" in file if "simulation_attributes" in file else "Header" in file


def _first_line(path):
    with open(path, "rb") as file:
        return file.readline(4096).decode("latin-1")


def _table(path, columns):
    """Numbers of a text table, (rows, columns) float64; raises DataError for anything else."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a table without rows
        try:
            return np.loadtxt(path, usecols=columns, ndmin=2)
        except ValueError as error:
            raise DataError(f"{path} is not a catalogue that is read ({str(error).splitlines()[0]}); accepted are "
                            f"{ACCEPTED}") from error


def _members(path, table):
    if table.size == 0 and table.ndim == 2:
        table = np.zeros((0, 2))
    if table.ndim != 2 or table.shape[1] != 2:
        raise DataError(f"{path} has the shape {table.shape}; a table of members has two columns, particle ID and halo "
                        f"ID. Accepted are {ACCEPTED}")
    whole = table.dtype.kind in "iuf" and np.all(np.isfinite(table)) and np.all(np.rint(table) == table)
    if not whole:
        raise DataError(f"{path} has particle or halo IDs that are not whole numbers")
    ids, halos = np.asarray(table).T.astype(np.int64)
    return Members(path, ids, np.maximum(halos, -1))


def _rockstar(path, first):
    """Rockstar's table (Behroozi et al. 2013, arXiv:1110.4372): virial masses and radii; of those with a parent none.

    Its header states the units: Msun/h, Mpc/h and kpc/h, comoving. Rockstar-Galaxies finds galaxies too: haloes are its
    rows of Type 0.
    """
    part = re.fullmatch(r"(halos_.+)\.\d+\.ascii", path.name)
    if part and len(list(path.parent.glob(f"{part[1]}.*.ascii"))) > 1:
        raise DataError(f"{path} has the haloes of a part of the box, as one of several that Rockstar wrote at a time; "
                        "give its out_N.list, which has them all")
    names = first.lstrip("# ").split()
    places = {name.casefold(): place for place, name in reversed(list(enumerate(names)))}
    missing = [accepted[0] for accepted in ROCKSTAR.values() if not any(name in places for name in accepted)]
    if missing:
        raise DataError(f"{path} has no column {', '.join(missing)}; a Rockstar table that is read has them")
    wanted = {key: next(places[name] for name in accepted if name in places) for key, accepted in ROCKSTAR.items()}
    # Those that may be missing, and what they are of the haloes that are taken.
    choices = {name: value for name, value in (("pid", -1), ("type", 0)) if name in places}
    wanted |= {name: places[name] for name in choices}
    table = _table(path, tuple(wanted.values())).reshape(-1, len(wanted))
    column = dict(zip(wanted, table.T))
    for name, value in choices.items():
        chosen = column[name] == value
        column = {other: values[chosen] for other, values in column.items()}
    header = "".join(_comments(path))
    scale, box = _stated(r"#\s*a = (\S+)", header), _stated(r"#\s*Box size: (\S+) Mpc/h", header)
    gadget.check_values(path, **{name: column[name] for name in ("mass", "radius", "count")})
    return gadget.Groups(
        # Runs of a part of the universe without a period have a box of 0.
        paths=(path,), boxsize=box if box and box > 0 else None, length_unit="Mpc",
        redshift=round(1 / scale - 1, 12) if scale and scale > 0 else None, mass=column["mass"],
        position=np.stack([column[axis] for axis in "xyz"], axis=-1), radius=column["radius"] / 1e3,
        count=column["count"].astype(np.int64), sorted=False)


def _stated(pattern, header):
    """The number that a header states; None where it states none."""
    found = re.search(pattern, header)
    try:
        return float(found[1]) if found else None
    except ValueError:
        return None


def _comments(path):
    with open(path, "rb") as file:
        for line in file:
            if not line.startswith(b"#"):
                return
            yield line.decode("latin-1")


def _hop(path, h):
    """HOP's table as yt writes it (`HopAnalysis.out`): masses in Msun, centres of mass in box sides."""
    if h is None:
        raise DataError(f"{path} has masses in Msun, not Msun/h; give --hubble")
    table = _table(path, tuple(HOP_COLUMNS.values())).reshape(-1, len(HOP_COLUMNS))
    column = dict(zip(HOP_COLUMNS, table.T))
    gadget.check_values(path, **column)
    return gadget.Groups(
        paths=(path,), boxsize=1.0, length_unit="box",
        redshift=_stated(r"REDSHIFT OF OUTPUT = (\S+)", "".join(_comments(path))), mass=column["mass"] * h,
        position=np.stack([column[axis] for axis in "xyz"], axis=-1),
        # Its max_r is the distance of the outermost particle, not the radius of a mass.
        radius=np.zeros(len(table)), count=column["count"].astype(np.int64), sorted=False)


# CAESAR (caesar.readthedocs.io, "Catalog Quantities"; simulation_attributes.py of its code): the layout is from these
# and from other readers of it, and has not been tried on a catalogue of CAMELS.


def _is_caesar(path):
    with gadget.opened(path) as file:
        return "simulation_attributes" in file and ("galaxy_data" in file or "halo_data" in file)


def _caesar_header(file):
    """Box side [Mpc], h and redshift of a catalogue."""
    attributes = file["simulation_attributes"].attrs
    missing = [name for name in ("boxsize", "boxsize_units", "hubble_constant", "redshift") if name not in attributes]
    if missing:
        raise DataError(f"{file.filename} has no {', '.join(missing)} in its simulation_attributes")
    return (float(attributes["boxsize"]) * _caesar_unit(file, attributes["boxsize_units"]),
            float(attributes["hubble_constant"]), float(attributes["redshift"]))


def _caesar_unit(file, unit):
    unit = unit.decode() if isinstance(unit, bytes) else str(unit)
    if unit not in CAESAR_IN_MPC:
        raise DataError(f"{file.filename} has lengths in {unit}; accepted are {' and '.join(CAESAR_IN_MPC)}")
    return CAESAR_IN_MPC[unit]


def _caesar_lengths(file, name, h):
    """A dataset in Mpc/h."""
    return file[name][...] * (_caesar_unit(file, file[name].attrs.get("unit", "")) * h)


def _caesar_groups(path):
    with gadget.opened(path) as file:
        side, h, redshift = _caesar_header(file)
        mass, count = gadget.columns_of(file, "halo_data", ("dicts/masses.total", "ndm"))
        centre = "halo_data/minpotpos" if "halo_data/minpotpos" in file else "halo_data/pos"
        gadget.columns_of(file, "halo_data", ("pos",))
        position = _caesar_lengths(file, centre, h)
        gadget.check_columns(path, position, mass=mass, count=count)
        gadget.check_values(path, mass=mass, count=count)
        # Radii there are those of 200 times the critical density; ours are of the mean: from the mass.
        return gadget.Groups(paths=(path,), boxsize=side * h, length_unit="Mpc", redshift=redshift, mass=mass * h,
                             position=position, radius=np.zeros(len(mass)), count=count.astype(np.int64), sorted=False)


def _caesar_galaxies(path):
    with gadget.opened(path) as file:
        side, h, redshift = _caesar_header(file)
        mass, stars, host, central = gadget.columns_of(
            file, "galaxy_data", ("dicts/masses.stellar", "nstar", "parent_halo_index", "central"))
        gadget.columns_of(file, "galaxy_data", ("pos",))
        position = _caesar_lengths(file, "galaxy_data/pos", h)
        gadget.check_columns(path, position, mass=mass, stars=stars, host=host, central=central)
        return gadget.Galaxies(
            paths=(path,), boxsize=side * h, length_unit="Mpc", redshift=redshift,
            position=position, mass=mass * h, stars=stars,
            group=np.maximum(host.astype(np.int64), -1), central=central.astype(bool))
