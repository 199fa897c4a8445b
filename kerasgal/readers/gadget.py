"""Snapshots and group files of the Gadget family: Gadget-1 binary; HDF5 of Gadget, Arepo and IllustrisTNG.

Formats: the user guide of Gadget-2 (Springel 2005, astro-ph/0505010), section 6; the data specifications at
https://www.tng-project.org/data/docs/specifications. Only dark matter (particle type 1) is read. Masses are
in 1e10 Msun/h and velocities in km/s sqrt(a), as in all these codes by default; a file whose header states
other units is refused.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kerasgal.errors import DataError
from kerasgal.files import open_hdf5

# In the order in which they stand in binary files.
FIELDS = {"position": "Coordinates", "velocity": "Velocities", "id": "ParticleIDs"}
GROUP_COLUMNS = ("GroupMass", "GroupPos", "GroupLenType")
PARTICLES_AT_ONCE = 2**20
MASS_UNIT = 1e10  # Msun/h
LENGTH_UNITS_IN_CM = {"kpc": 3.085678e21, "Mpc": 3.085678e24}
OTHER_UNITS = {"UnitMass_in_g": 1.989e43, "UnitVelocity_in_cm_per_s": 1e5}
UNIT_TOLERANCE = 1e-3  # codes write the solar mass and the parsec with three to seven digits
BINARY_HEADER = [
    ("counts", "6u4"), ("masses", "6f8"), ("time", "f8"), ("redshift", "f8"), ("flags", "2i4"),
    ("totals", "6u4"), ("cooling", "i4"), ("files", "i4"), ("boxsize", "f8"), ("Om0", "f8"), ("lambda", "f8"),
    ("h", "f8"), ("rest", "V96"),
]


@dataclass(frozen=True)
class Snapshot:
    """What the headers of a snapshot say.

    paths: its files in the order of their particles; counts: (files, types) particles in them, int64;
    boxsize: in the files' own length unit; length_unit: "kpc" or "Mpc" (comoving, over h), None if the header
    does not say; particle_mass: of dark matter [Msun/h], 0 where the header has none; Ob0: 0 where the header
    has none; byteorder: "<" or ">" of a binary file, None for HDF5.
    """

    paths: tuple
    counts: np.ndarray
    boxsize: float
    length_unit: str | None
    redshift: float
    particle_mass: float
    Om0: float
    Ob0: float
    h: float
    byteorder: str | None

    @property
    def path(self):
        """The first file, by which messages name the snapshot."""
        return self.paths[0]

    @property
    def particles(self):
        """Number of dark-matter particles."""
        return int(self.counts[:, 1].sum())


@dataclass(frozen=True)
class Groups:
    """A group catalogue, in the order of the snapshot's particles.

    mass: (groups,) [Msun/h]; position: (groups, 3) and radius: (groups,), that of 200 times the mean density,
    in the files' own length unit, radius 0 where they have none; count: (groups,) dark-matter particles. The
    rest is as in `Snapshot`.
    """

    paths: tuple
    boxsize: float
    length_unit: str | None
    redshift: float
    mass: np.ndarray
    position: np.ndarray
    radius: np.ndarray
    count: np.ndarray

    @property
    def path(self):
        return self.paths[0]


def read_header(path):
    """The `Snapshot` to which a file belongs.

    `path`: its only file, one of several (`ics.0`, `snap_099.0.hdf5`), or the name without that number.
    Raises DataError if a file is missing, is no Gadget snapshot, has no box size (or another fact that is
    needed), has no dark matter or is in units that are not read.
    """
    import h5py

    path = _existing(path)
    snapshot = _hdf5_snapshot(path) if h5py.is_hdf5(path) else _binary_snapshot(path)
    if not snapshot.particles:
        raise DataError(f"{path} has no dark-matter particles (PartType1)")
    return snapshot


def read(snapshot, *names):
    """Yield the dark-matter particles in the order of the files: a list with one array for each of the names.

    Names: "position", (particles, 3) in the files' own length unit; "velocity", (particles, 3), peculiar
    [km/s]; "id", (particles,). No more than PARTICLES_AT_ONCE particles come at once. Raises DataError where
    a file lacks them or is cut short.
    """
    peculiar = (1 + snapshot.redshift) ** -0.5
    for path, counts in zip(snapshot.paths, snapshot.counts):
        for start in range(0, counts[1], PARTICLES_AT_ONCE):
            stop = min(counts[1], start + PARTICLES_AT_ONCE)
            if snapshot.byteorder is None:
                fields = _read_hdf5(path, names, start, stop)
            else:
                fields = [_read_binary(path, name, counts, start, stop, snapshot.byteorder) for name in names]
            yield [field * peculiar if name == "velocity" else field for name, field in zip(names, fields)]


def read_groups(path):
    """The `Groups` of a FoF/SUBFIND catalogue in HDF5; `path` as in `read_header`.

    Raises DataError if a file is missing or is no such catalogue.
    """
    path = _existing(path)
    with open_hdf5(path) as file:
        attributes = _attributes(file, "group file", ("BoxSize", "NumFiles", "Ngroups_ThisFile"))
    paths = _chunks(path, int(attributes["NumFiles"]), "NumFiles")
    # A catalogue may have no group, and then has no datasets.
    mass, radius, position = [np.zeros(0)], [np.zeros(0)], [np.zeros((0, 3))]
    counts = [np.zeros((0, 6), np.int64)]
    for chunk in paths:
        with open_hdf5(chunk) as file:
            number = int(_attributes(file, "group file", ("Ngroups_ThisFile",))["Ngroups_ThisFile"])
            if number == 0:
                continue
            missing = [name for name in GROUP_COLUMNS if f"Group/{name}" not in file]
            if missing:
                raise DataError(f"{chunk} has no {', '.join(missing)} in its group Group")
            mass.append(file["Group/GroupMass"][...] * MASS_UNIT)
            position.append(file["Group/GroupPos"][...])
            counts.append(file["Group/GroupLenType"][...])
            has_radius = "Group/Group_R_Mean200" in file
            radius.append(file["Group/Group_R_Mean200"][...] if has_radius else np.zeros(number))
    return Groups(
        paths=paths, boxsize=float(attributes["BoxSize"]), length_unit=_length_unit(attributes, path),
        redshift=_redshift(attributes, path), mass=np.concatenate(mass), position=np.concatenate(position),
        radius=np.concatenate(radius), count=np.concatenate(counts)[:, 1].astype(np.int64),
    )


def _existing(path):
    """`path`, or the first of the numbered files of which it is the name without the number."""
    path = Path(path)
    numbered = [f"{path.name}.0", f"{path.stem}.0{path.suffix}", f"{path.name}.0.hdf5"]
    for candidate in [path, *(path.parent / name for name in numbered)]:
        if candidate.is_file():
            return candidate
    raise DataError(f"no such file: {path}")


def _chunks(path, number, attribute):
    """All files of the snapshot or catalogue of `number` files to which `path` belongs, in order."""
    if number == 1:
        return (path,)
    name = re.fullmatch(r"(.*)\.\d+(\.hdf5|\.h5)?", path.name)
    if not name:
        raise DataError(f"{path}: {attribute} says {number} files, but the file's name has no number; "
                        "accepted are NAME.0, NAME.1, ... and NAME.0.hdf5, NAME.1.hdf5, ...")
    paths = [path.with_name(f"{name[1]}.{chunk}{name[2] or ''}") for chunk in range(number)]
    missing = [chunk.name for chunk in paths if not chunk.is_file()]
    if missing:
        raise DataError(f"{path}: {attribute} says {number} files, {number - len(missing)} found; "
                        f"missing: {', '.join(missing)}")
    return tuple(paths)


def _attributes(file, kind, needed):
    """All attributes of an HDF5 file's Header and Parameters, where Gadget-4 keeps cosmology and units."""
    if "Header" not in file:
        raise DataError(f"{file.filename} has no group Header, so it is no Gadget {kind}; it holds "
                        f"{', '.join(file) or 'nothing'}")
    attributes = {**(file["Parameters"].attrs if "Parameters" in file else {}), **file["Header"].attrs}
    missing = [name for name in needed if name not in attributes]
    if missing:
        raise DataError(f"{file.filename} has no {', '.join(missing)} in its header")
    return attributes


def _redshift(attributes, path):
    if "Redshift" in attributes:
        return round(float(attributes["Redshift"]), 12)  # Arepo's final time is 1 up to rounding
    if "Time" in attributes:
        return round(1 / float(attributes["Time"]) - 1, 12)
    raise DataError(f"{path} has neither Redshift nor Time in its header")


def _length_unit(attributes, path):
    """The length unit that a header states, or None; raises DataError where any of its units is not read."""
    for name, accepted in OTHER_UNITS.items():
        if abs(attributes.get(name, accepted) / accepted - 1) > UNIT_TOLERANCE:
            raise DataError(f"{path} has {name} = {attributes[name]:g}; accepted is {accepted:g}")
    if "UnitLength_in_cm" not in attributes:
        return None
    stated = attributes["UnitLength_in_cm"]
    for unit, accepted in LENGTH_UNITS_IN_CM.items():
        if abs(stated / accepted - 1) < UNIT_TOLERANCE:
            return unit
    raise DataError(f"{path} has UnitLength_in_cm = {stated:g}; accepted are "
                    + " and ".join(f"{value:g} ({unit})" for unit, value in LENGTH_UNITS_IN_CM.items()))


def _hdf5_snapshot(path):
    needed = ("BoxSize", "HubbleParam", "MassTable", "NumFilesPerSnapshot", "NumPart_ThisFile", "Omega0")
    with open_hdf5(path) as file:
        attributes = _attributes(file, "snapshot", needed)
    paths = _chunks(path, int(attributes["NumFilesPerSnapshot"]), "NumFilesPerSnapshot")
    counts = []
    for chunk in paths:
        with open_hdf5(chunk) as file:
            counts.append(_attributes(file, "snapshot", needed)["NumPart_ThisFile"])
    return Snapshot(
        paths=paths, counts=np.array(counts, np.int64), boxsize=float(attributes["BoxSize"]),
        length_unit=_length_unit(attributes, path), redshift=_redshift(attributes, path),
        particle_mass=float(attributes["MassTable"][1]) * MASS_UNIT, Om0=float(attributes["Omega0"]),
        Ob0=float(attributes.get("OmegaBaryon", 0)), h=float(attributes["HubbleParam"]), byteorder=None,
    )


def _read_hdf5(path, names, start, stop):
    with open_hdf5(path) as file:
        missing = [FIELDS[name] for name in names if f"PartType1/{FIELDS[name]}" not in file]
        if missing:
            raise DataError(f"{path} has no {', '.join(missing)} in its group PartType1")
        fields = [file[f"PartType1/{FIELDS[name]}"][start:stop] for name in names]
    for name, field in zip(names, fields):
        if len(field) != stop - start:
            raise DataError(f"{path} has fewer {FIELDS[name]} in PartType1 than NumPart_ThisFile says")
    return fields


def _binary_header(path):
    """The header of one Gadget-1 file, a record array of no dimension, and its byte order."""
    with open(path, "rb") as file:
        marker, block = file.read(4), file.read(256)
    # Before and after each block stands its length, as Fortran writes it: small in the right byte order.
    size, byteorder = min((int.from_bytes(marker, "little"), "<"), (int.from_bytes(marker, "big"), ">"))
    if size == 8:
        raise DataError(f"{path} is a Gadget snapshot in format 2; accepted are format 1 and HDF5 (format 3)")
    if size != 256 or len(block) != 256:
        raise DataError(f"{path} is no Gadget snapshot: neither HDF5 nor with a header of 256 bytes in front")
    return np.frombuffer(block, np.dtype(BINARY_HEADER).newbyteorder(byteorder))[0], byteorder


def _binary_snapshot(path):
    header, byteorder = _binary_header(path)
    needed = {"BoxSize": "boxsize", "HubbleParam": "h", "Omega0": "Om0"}
    missing = [name for name, field in needed.items() if not header[field] > 0]
    if missing:
        raise DataError(f"{path} has no {', '.join(missing)} in its header")
    paths = _chunks(path, max(1, int(header["files"])), "NumFilesPerSnapshot")
    return Snapshot(
        paths=paths, counts=np.array([_binary_header(chunk)[0]["counts"] for chunk in paths], np.int64),
        boxsize=float(header["boxsize"]), length_unit=None, redshift=float(header["redshift"]),
        particle_mass=float(header["masses"][1]) * MASS_UNIT, Om0=float(header["Om0"]), Ob0=0.0,
        h=float(header["h"]), byteorder=byteorder,
    )


def _read_binary(path, name, counts, start, stop, byteorder):
    """Rows start to stop of dark matter in a block of a Gadget-1 file, where particles stand type by type."""
    columns, kind = (1, "u") if name == "id" else (3, "f")
    numbers = int(counts.sum()) * columns
    with open(path, "rb") as file:
        file.seek(4 + 256 + 4)
        for field in FIELDS:
            size = int.from_bytes(file.read(4), "little" if byteorder == "<" else "big")
            if field == name:
                break
            file.seek(size + 4, 1)
        if size not in (4 * numbers, 8 * numbers):
            raise DataError(f"{path}: the block of {FIELDS[name]} has {size} bytes; accepted are "
                            f"{4 * numbers} and {8 * numbers}")
        width = size // numbers
        file.seek(int(counts[0] + start) * columns * width, 1)
        values = np.fromfile(file, f"{byteorder}{kind}{width}", int(stop - start) * columns)
    if len(values) < (stop - start) * columns:
        raise DataError(f"{path} is cut short within its block of {FIELDS[name]}")
    return values if columns == 1 else values.reshape(-1, columns)
