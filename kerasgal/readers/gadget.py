"""Snapshots and group files of the Gadget family: Gadget-1 binary; HDF5 of Gadget, Arepo, Gizmo and IllustrisTNG.

Formats: the user guide of Gadget-2 (Springel 2005, astro-ph/0505010), section 6; the data specifications at
https://www.tng-project.org/data/docs/specifications. Masses are in 1e10 Msun/h and velocities in km/s sqrt(a), as in
all these codes by default; a file whose header states other units is refused. What a header does not say is None here,
and the caller's to find.
"""

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kerasgal.errors import DataError
from kerasgal.files import check_file, open_hdf5

# In the order in which they stand in binary files.
FIELDS = {"position": "Coordinates", "velocity": "Velocities", "id": "ParticleIDs"}
GROUP_COLUMNS = ("GroupMass", "GroupPos", "GroupLenType")
KINDS = 6  # of particles; Gadget-4 may have been built for fewer
# Particle types; 2 and 3 are, in the runs read here, low-resolution dark matter and tracers without mass.
TYPES = {"dark": (1,), "gas": (0,), "stars": (4,), "all": (0, 1, 2, 4, 5)}
TYPE_NAMES = {0: "gas", 1: "dark matter", 2: "type 2", 3: "tracers", 4: "stars", 5: "black holes"}
PARTICLES_AT_ONCE = 2**20
MASS_UNIT = 1e10  # Msun/h
LENGTH_UNITS_IN_CM = {"kpc": 3.085678e21, "Mpc": 3.085678e24}
OTHER_UNITS = {"UnitMass_in_g": 1.989e43, "UnitVelocity_in_cm_per_s": 1e5}
UNIT_TOLERANCE = 1e-3  # codes write the solar mass and the parsec with three to seven digits
MOST_FILES = 100_000  # of one snapshot; a header that says more is not to be believed
BINARY_HEADER = [
    ("counts", "6u4"), ("masses", "6f8"), ("time", "f8"), ("redshift", "f8"), ("flags", "2i4"),
    ("totals", "6u4"), ("cooling", "i4"), ("files", "i4"), ("boxsize", "f8"), ("Om0", "f8"), ("lambda", "f8"),
    ("h", "f8"), ("rest", "V96"),
]


@dataclass(frozen=True)
class Snapshot:
    """What the headers of a snapshot say.

    paths: its files in the order of their particles; counts: (files, types) particles in them, int64; boxsize: in the
    files' own length unit, None if the header does not say; length_unit: "kpc" or "Mpc" (comoving, over h), None if
    the header does not say; redshift: None if the header does not say; particle_mass: of dark matter [Msun/h], 0 where
    the header has none; Om0, h: None where the header has none; Ob0: 0 where the header has none; byteorder: "<" or ">"
    of a binary file, None for HDF5; types: of particles that are read.
    """

    paths: tuple
    counts: np.ndarray
    boxsize: float | None
    length_unit: str | None
    redshift: float | None
    particle_mass: float
    Om0: float | None
    Ob0: float
    h: float | None
    byteorder: str | None
    types: tuple = (1,)

    @property
    def path(self):
        """The first file, by which messages name the snapshot."""
        return self.paths[0]

    @property
    def particles(self):
        """Number of particles that are read."""
        return int(self.counts[:, self.types].sum())

    @property
    def equal(self):
        """True if all particles that are read are known to have one mass."""
        return self.byteorder is not None or self.types == (1,) and self.particle_mass > 0

    def read(self, *names):
        """Yield the particles; see `read`."""
        yield from read(self, *names)


@dataclass(frozen=True)
class Groups:
    """A group catalogue, in the order of the snapshot's particles.

    mass: (groups,) [Msun/h]; position: (groups, 3) and radius: (groups,), that of 200 times the mean density,
    in the files' own length unit, radius 0 where they have none; count: (groups,) dark-matter particles; sorted: by
    these groups are the snapshot's particles sorted, so that the counts say which are the members. The rest is as in
    `Snapshot`.
    """

    paths: tuple
    boxsize: float | None
    length_unit: str | None
    redshift: float | None
    mass: np.ndarray
    position: np.ndarray
    radius: np.ndarray
    count: np.ndarray
    sorted: bool = True

    @property
    def path(self):
        return self.paths[0]


@dataclass(frozen=True)
class Galaxies:
    """A catalogue of galaxies.

    position: (galaxies, 3) in the files' own length unit; mass: (galaxies,) in stars [Msun/h], None where the
    catalogue has none; stars: (galaxies,) star particles, likewise; group: (galaxies,) row of the group in which each
    galaxy is, -1 for none; central: (galaxies,) bool. The rest is as in `Snapshot`.
    """

    paths: tuple
    boxsize: float | None
    length_unit: str | None
    redshift: float | None
    position: np.ndarray
    mass: np.ndarray | None
    stars: np.ndarray | None
    group: np.ndarray
    central: np.ndarray

    @property
    def path(self):
        return self.paths[0]


def read_header(path, particles="dark"):
    """The `Snapshot` to which a file belongs.

    `path`: its only file, one of several (`ics.0`, `snap_099.0.hdf5`), or the name without that number; particles:
    which are to be read, one of TYPES. Raises DataError if a file is missing, is no Gadget snapshot, is cut short, has
    no such particles or is in units that are not read.
    """
    import h5py

    path = existing(path)
    if h5py.is_hdf5(path):
        snapshot = _hdf5_snapshot(path, TYPES[particles])
    elif particles == "dark":
        snapshot = _binary_snapshot(path)
    else:
        raise DataError(f"{path} is a Gadget snapshot in binary, of which dark matter alone is read; for "
                        f"--particles {particles} it must be in HDF5")
    if not snapshot.particles:
        wanted = ", ".join(f"PartType{kind}" for kind in snapshot.types)
        held = [f"{TYPE_NAMES[kind]} (PartType{kind})" for kind in range(6) if snapshot.counts[:, kind].any()]
        name = "dark-matter" if particles == "dark" else particles
        raise DataError(f"{path} has no {name} particles ({wanted})"
                        + (f"; it has {', '.join(held)}, see --particles" if held else ""))
    return snapshot


def read(snapshot, *names):
    """Yield the particles in the order of the files: a list with one array for each of the names.

    Names: "position", (particles, 3) in the files' own length unit; "velocity", (particles, 3), peculiar
    [km/s]; "id", (particles,); "mass", (particles,), in a unit of the files' own. No more than PARTICLES_AT_ONCE
    particles come at once. Raises DataError where a file lacks them or is cut short, and for positions that are not
    finite or far outside the box.
    """
    peculiar = 1.0 if snapshot.redshift is None else (1 + snapshot.redshift) ** -0.5
    for path, counts in zip(snapshot.paths, snapshot.counts):
        for kind in snapshot.types:
            for start in range(0, counts[kind], PARTICLES_AT_ONCE):
                stop = min(counts[kind], start + PARTICLES_AT_ONCE)
                if snapshot.byteorder is None:
                    fields = _read_hdf5(path, names, kind, start, stop, alone=len(snapshot.types) == 1)
                else:
                    fields = [_read_binary(path, name, counts, start, stop, snapshot.byteorder) for name in names]
                for name, field in zip(names, fields):
                    if name == "position":
                        check_positions(field, snapshot.boxsize, path)
                yield [field * peculiar if name == "velocity" else field for name, field in zip(names, fields)]


def check_positions(position, boxsize, path):
    """Raise DataError for positions that are not finite or, where boxsize is known, more than a box outside it."""
    if not len(position):
        return
    low, high = position.min(), position.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise DataError(f"{path} has positions that are NaN or infinite")
    if boxsize is not None and (low < -boxsize or high > 2 * boxsize):
        raise DataError(f"{path} has positions from {low:g} to {high:g} in a box of {boxsize:g} (is the length unit "
                        "right, or is the file damaged?)")


def read_groups(path):
    """The `Groups` of a FoF/SUBFIND catalogue in HDF5; `path` as in `read_header`.

    Raises DataError if a file is missing or is no such catalogue.
    """
    path = existing(path)
    with opened(path) as file:
        attributes = _attributes(file, "group file", ("NumFiles", "Ngroups_ThisFile"))
    paths = _chunks(path, _number(attributes, "NumFiles"), "NumFiles")
    # A catalogue may have no group, and then has no datasets.
    mass, radius, position = ([np.zeros((0, *shape), np.float32)] for shape in ((), (), (3,)))
    counts = [np.zeros(0, np.int32)]
    for chunk in paths:
        with opened(chunk) as file:
            number = int(_number(_attributes(file, "group file", ("Ngroups_ThisFile",)), "Ngroups_ThisFile", 0))
            if number == 0:
                continue
            mass_here, position_here, count_here = columns_of(file, "Group", GROUP_COLUMNS)
            check_columns(chunk, position_here, mass=mass_here, count=count_here[:, 1])
            if len(mass_here) != number:
                raise DataError(f"{chunk} has {len(mass_here)} groups; its header says {number}")
            mass.append(mass_here * MASS_UNIT)
            position.append(position_here)
            counts.append(count_here[:, 1])
            has_radius = "Group/Group_R_Mean200" in file
            radius.append(file["Group/Group_R_Mean200"][...] if has_radius else np.zeros(number))
            check_columns(chunk, position_here, radius=radius[-1])
            check_values(chunk, GroupMass=mass_here, GroupLenType=count_here, Group_R_Mean200=radius[-1])
    return Groups(
        paths=paths, boxsize=_number(attributes, "BoxSize"), length_unit=_length_unit(attributes, path),
        redshift=_redshift(attributes), mass=np.concatenate(mass), position=np.concatenate(position),
        radius=np.concatenate(radius), count=np.concatenate(counts).astype(np.int64),
    )


def read_members(groups):
    """IDs of the particles of all groups, one group after the other, (particles,); None where files do not list them.

    CAMELS does, in IDs/ID, for snapshots that are not sorted by group. Lists with other particles than dark matter are
    None, too.
    """
    ids = [np.zeros(0, np.uint32)]
    for path in groups.paths:
        with opened(path) as file:
            if "IDs/ID" in file:
                ids.append(file["IDs/ID"][...])
    ids = np.concatenate(ids)
    return ids if ids.dtype.kind in "iu" and len(ids) and ids.shape == (groups.count.sum(),) else None


def number_of_groups(path):
    """How many groups a catalogue has, as its header says; 0 where it does not."""
    with opened(existing(path)) as file:
        return int(_number(file["Header"].attrs, "Ngroups_Total", 0)) if "Header" in file else 0


def read_galaxies(path):
    """The `Galaxies` of a SUBFIND catalogue in HDF5: its subhaloes with stars; `path` as in `read_header`.

    Subhaloes whose SubhaloFlag is 0, which are not of cosmological origin, are left out (specification of
    IllustrisTNG). The central one of a group is its GroupFirstSub. Raises DataError if a file is missing, is no such
    catalogue, or has neither the mass nor the number of its stars.
    """
    path = existing(path)
    with opened(path) as file:
        if "Header" not in file and "Subhalo" not in file:
            raise DataError(f"{path} has neither a group Header nor Subhalo, so it is no SUBFIND catalogue; it holds "
                            f"{', '.join(file) or 'nothing'}")
        attributes = _attributes(file, "group file", ()) if "Header" in file else {}
    paths = _chunks(path, _number(attributes, "NumFiles"), "NumFiles")
    columns = {name: [] for name in ("position", "mass", "stars", "group", "row")}
    first, done = [np.zeros(0, np.int64)], 0
    for chunk in paths:
        with opened(chunk) as file:
            if "Group/GroupFirstSub" in file:
                first.append(np.ravel(file["Group/GroupFirstSub"][...]).astype(np.int64))
            if "Subhalo/SubhaloPos" not in file:
                if _number(attributes, "Nsubgroups_ThisFile", 0) and chunk == path:
                    raise DataError(f"{chunk} has no SubhaloPos in its group Subhalo")
                continue  # a chunk without a subhalo has no datasets
            group = file["Subhalo"]
            position = group["SubhaloPos"][...]
            by_type = [_stars(group[name][...]) if name in group else None
                       for name in ("SubhaloMassType", "SubhaloLenType")]
            if all(column is None for column in by_type):
                raise DataError(f"{chunk} has neither SubhaloMassType nor SubhaloLenType in its group Subhalo")
            host = next((group[name][...] for name in ("SubhaloGrNr", "SubhaloGroupNr") if name in group),
                        np.full(len(position), -1)).astype(np.int64)
            host = np.maximum(host, -1)
            flag = group["SubhaloFlag"][...] if "SubhaloFlag" in group else np.ones(len(position), bool)
            some = next(column for column in by_type if column is not None) > 0
            check_columns(chunk, position, group=host, flag=flag, **dict(zip(("mass", "stars"), by_type)))
            keep = np.flatnonzero((flag != 0) & some)
            for name, values in zip(columns, (position, *by_type, host, np.arange(done, done + len(position)))):
                columns[name].append(None if values is None else values[keep])
            done += len(position)
    first = np.concatenate(first)

    def joined(name, empty):
        values = columns[name]
        return None if any(item is None for item in values) else np.concatenate([empty, *values])

    host = joined("group", np.zeros(0, np.int64))
    if len(host) and host.max() >= len(first) and len(first):
        raise DataError(f"{path}: SubhaloGrNr runs to {host.max()}; there are {len(first)} groups")
    mass = joined("mass", np.zeros(0))
    return Galaxies(
        paths=paths, boxsize=_number(attributes, "BoxSize"), length_unit=_length_unit(attributes, path),
        redshift=_redshift(attributes), position=joined("position", np.zeros((0, 3))),
        mass=None if mass is None else mass * MASS_UNIT, stars=joined("stars", np.zeros(0, np.int64)), group=host,
        central=np.isin(joined("row", np.zeros(0, np.int64)), first[first >= 0]),
    )


def _stars(by_type):
    """The column of stars of numbers by type, none where a run has so few types."""
    return by_type[:, 4] if by_type.shape[1:] > (4,) else np.zeros(len(by_type), by_type.dtype)


@contextlib.contextmanager
def opened(path):
    """An HDF5 file opened for reading; what HDF5 says of damage in it becomes a DataError."""
    try:
        with open_hdf5(path) as file:
            yield file
    except (OSError, RuntimeError, LookupError, TypeError, ValueError) as error:  # h5py's, of many kinds
        reason = (str(error).strip("'\" ") or type(error).__name__).splitlines()[0]
        raise DataError(f"{path} is damaged or cut short: {reason}") from error


def check_columns(path, position, **columns):
    """Raise DataError unless positions are (n, 3) and all other columns (n,), numbers."""
    columns = {name: values for name, values in columns.items() if values is not None}
    fitting = position.shape == (len(position), 3) and position.dtype.kind in "iuf"
    if not fitting or any(values.shape != (len(position),) or values.dtype.kind not in "biuf"
                          for values in columns.values()):
        raise DataError(f"{path} has columns that do not fit together: positions of the shape {position.shape}, "
                        + ", ".join(f"{name} {values.shape} {values.dtype}" for name, values in columns.items()))


def check_values(path, **columns):
    """Raise DataError for columns with values that are negative or not finite."""
    bad = [name for name, values in columns.items() if not np.isfinite(values).all() or np.any(values < 0)]
    if bad:
        raise DataError(f"{path} has values that are negative, NaN or infinite in its columns {', '.join(bad)}")


def columns_of(file, group, names):
    """The datasets `names` of a group of an HDF5 file; raises DataError naming those that are missing."""
    missing = [name for name in names if f"{group}/{name}" not in file]
    if missing:
        raise DataError(f"{file.filename} has no {', '.join(missing)} in its group {group}")
    return [file[f"{group}/{name}"][...] for name in names]


def existing(path):
    """`path`, or the first of the numbered files of which it is the name without the number."""
    path = Path(path)
    numbered = [f"{path.name}.0", f"{path.stem}.0{path.suffix}", f"{path.name}.0.hdf5"]
    for candidate in [path, *(path.parent / name for name in numbered)]:
        if candidate.is_file():
            return candidate
    check_file(path)
    return path


def _chunks(path, number, attribute):
    """All files of the snapshot or catalogue of `number` files to which `path` belongs, in order.

    number: None where the header does not say, which is one file unless it has numbered neighbours.
    """
    name = re.fullmatch(r"(.*)\.(\d+)(\.hdf5|\.h5)?", path.name)
    if number is None and name:
        others = [path.with_name(f"{name[1]}.{int(name[2]) + step}{name[3] or ''}") for step in (-1, 1)]
        if any(other.is_file() for other in others):
            raise DataError(f"{path} has no {attribute} in its header, so that nothing says how many files there are; "
                            "accepted is one, without a numbered neighbour")
    if number is None or number <= 1:
        return (path,)
    number = int(number) if number <= MOST_FILES else number
    if not name:
        raise DataError(f"{path}: {attribute} says {number} files, but the file's name has no number; "
                        "accepted are NAME.0, NAME.1, ... and NAME.0.hdf5, NAME.1.hdf5, ...")
    if number > MOST_FILES:
        raise DataError(f"{path}: {attribute} says {number:g} files; accepted are up to {MOST_FILES}")
    paths = [path.with_name(f"{name[1]}.{chunk}{name[3] or ''}") for chunk in range(number)]
    missing = [chunk.name for chunk in paths if not chunk.is_file()]
    if missing:
        names = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise DataError(f"{path}: {attribute} says {number} files, {number - len(missing)} found; "
                        f"missing: {names}")
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


def _numbers(attribute):
    """An attribute as a row of numbers, (n,) float64; a single NaN where it has none."""
    try:
        values = np.ravel(np.asarray(attribute, float))
    except (TypeError, ValueError):
        values = np.zeros(0)
    return values if len(values) else np.full(1, np.nan)


def _number(attributes, name, otherwise=None):
    """A header's number, the first of several; `otherwise` where it has none or one that is not positive."""
    value = _numbers(attributes.get(name, np.nan))[0]
    return float(value) if 0 < value < np.inf else otherwise


def _by_type(attributes, name):
    """A header's numbers by particle type, (KINDS,) float64; zero for those that it does not say."""
    values = np.nan_to_num(_numbers(attributes.get(name, 0.0)), nan=0, posinf=0, neginf=0)[:KINDS]
    return np.pad(values, (0, KINDS - len(values)))


def _redshift(attributes):
    if "Redshift" in attributes:
        # Arepo's final time is 1 up to rounding.
        redshift = round(float(_numbers(attributes["Redshift"])[0]), 12)
    else:
        time = _number(attributes, "Time")
        redshift = np.nan if time is None else round(1 / time - 1, 12)
    return redshift if -1 < redshift < np.inf else None


def _length_unit(attributes, path):
    """The length unit that a header states, or None; raises DataError where any of its units is not read."""
    for name, accepted in OTHER_UNITS.items():
        stated = _number(attributes, name, np.nan) if name in attributes else accepted
        if not abs(stated / accepted - 1) < UNIT_TOLERANCE:
            raise DataError(f"{path} has {name} = {stated:g}; accepted is {accepted:g}")
    if "UnitLength_in_cm" not in attributes:
        return None
    stated = _number(attributes, "UnitLength_in_cm", np.nan)
    for unit, accepted in LENGTH_UNITS_IN_CM.items():
        if abs(stated / accepted - 1) < UNIT_TOLERANCE:
            return unit
    raise DataError(f"{path} has UnitLength_in_cm = {stated:g}; accepted are "
                    + " and ".join(f"{value:g} ({unit})" for unit, value in LENGTH_UNITS_IN_CM.items()))


def _hdf5_snapshot(path, types):
    with opened(path) as file:
        attributes = _attributes(file, "snapshot", ())
        if "Cosmology" in file or "Units" in file:
            raise DataError(f"{path} is a snapshot of SWIFT, in units of its own, which are not read")
    sides = np.unique(_numbers(attributes.get("BoxSize", 0.0)))
    if len(sides) > 1:
        raise DataError(f"{path} has a BoxSize of {sides}; accepted is a cube")
    paths = _chunks(path, _number(attributes, "NumFilesPerSnapshot"), "NumFilesPerSnapshot")
    counts = []
    for chunk in paths:
        with opened(chunk) as file:
            counts.append(_hdf5_counts(file, types))
            here = _attributes(file, "snapshot", ())
            if _redshift(here) != _redshift(attributes) or _number(here, "BoxSize") != _number(attributes, "BoxSize"):
                raise DataError(f"{chunk} is not of the snapshot of {path}: its BoxSize or Redshift is another")
    counts = np.array(counts, np.int64)
    if "NumPart_Total" in attributes:
        total = _by_type(attributes, "NumPart_Total")
        for kind in types:
            # Of larger numbers the header holds the lower 32 bits here, and the rest elsewhere.
            if (counts[:, kind].sum() - total[kind]) % 2**32:
                raise DataError(f"{path}: its files hold {counts[:, kind].sum()} particles of PartType{kind}, "
                                f"NumPart_Total says {total[kind]:.0f}")
    masses = _by_type(attributes, "MassTable")
    return Snapshot(
        paths=paths, counts=counts, boxsize=_number(attributes, "BoxSize"),
        length_unit=_length_unit(attributes, path), redshift=_redshift(attributes),
        particle_mass=float(masses[1]) * MASS_UNIT,
        # Newer versions of Gizmo call it Omega_Matter, and Omega_Baryon.
        Om0=_number(attributes, "Omega0", _number(attributes, "Omega_Matter")),
        Ob0=_number(attributes, "OmegaBaryon", _number(attributes, "Omega_Baryon", 0.0)),
        h=_number(attributes, "HubbleParam"), byteorder=None, types=types,
    )


def _hdf5_counts(file, types):
    """Particles of each of the six types in an HDF5 file; the datasets say where the header does not."""
    held = [len(file[f"PartType{kind}/Coordinates"]) if f"PartType{kind}/Coordinates" in file else 0
            for kind in range(KINDS)]
    attributes = _attributes(file, "snapshot", ())
    if "NumPart_ThisFile" not in attributes:
        return held
    stated = _by_type(attributes, "NumPart_ThisFile").astype(np.int64)
    for kind in types:
        if f"PartType{kind}/Coordinates" in file and stated[kind] > held[kind]:
            raise DataError(f"{file.filename} has fewer Coordinates in PartType{kind} than NumPart_ThisFile says")
    return stated


def _read_hdf5(path, names, kind, start, stop, alone):
    with opened(path) as file:
        if f"PartType{kind}" not in file:
            raise DataError(f"{path} has no group PartType{kind}, of which its header says it holds particles")
        group = file[f"PartType{kind}"]
        missing = [FIELDS[name] for name in names if name != "mass" and FIELDS[name] not in group]
        if missing:
            raise DataError(f"{path} has no {', '.join(missing)} in its group PartType{kind}")
        fields = []
        for name in names:
            if name != "mass":
                fields.append(group[FIELDS[name]][start:stop])
            elif "Masses" in group:
                fields.append(group["Masses"][start:stop])
            else:
                same = _by_type(_attributes(file, "snapshot", ()), "MassTable")[kind]
                if not same > 0 and not alone:
                    raise DataError(f"{path} has no masses of PartType{kind}, neither Masses nor in its MassTable, "
                                    "which --particles all needs")
                # Without masses, particles of one type count alike.
                fields.append(np.full(stop - start, same if same > 0 else 1, np.float32))
    for name, field in zip(names, fields):
        if len(field) != stop - start:
            raise DataError(f"{path} has fewer {FIELDS.get(name, 'Masses')} in PartType{kind} than NumPart_ThisFile "
                            "says")
        if field.shape[1:] != ((3,) if name in ("position", "velocity") else ()):
            raise DataError(f"{path}: {FIELDS.get(name, 'Masses')} in PartType{kind} has the shape "
                            f"(..., {', '.join(map(str, field.shape[1:]))}); accepted are (n, 3) and, for one number "
                            "a particle, (n,)")
        if field.dtype.kind not in ("iu" if name == "id" else "iuf"):
            raise DataError(f"{path}: {FIELDS.get(name, 'Masses')} in PartType{kind} is of type {field.dtype}; "
                            f"accepted are {'whole' if name == 'id' else 'real'} numbers")
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
        raise DataError(f"{path} is no snapshot that is read: neither HDF5, nor with a header of 256 bytes in front as "
                        "Gadget's, nor of the size that a TIPSY header says")
    header = np.frombuffer(block, np.dtype(BINARY_HEADER).newbyteorder(byteorder))[0]
    # Checked before anything is allocated: positions, velocities and IDs in their smallest kinds.
    particles = int(header["counts"].sum(dtype=np.int64))
    needed, held = 264 + 3 * 8 + 28 * particles, path.stat().st_size
    if held < needed:
        raise DataError(f"{path} is cut short, or its header is damaged: {particles} particles take at least {needed} "
                        f"bytes, and it has {held}")
    return header, byteorder


def _binary_snapshot(path):
    header, byteorder = _binary_header(path)
    paths = _chunks(path, int(header["files"]), "NumFilesPerSnapshot")
    stated = {name: float(header[name]) if 0 < header[name] < np.inf else None for name in ("boxsize", "Om0", "h")}
    mass = float(header["masses"][1])
    return Snapshot(
        paths=paths, counts=np.array([_binary_header(chunk)[0]["counts"] for chunk in paths], np.int64),
        length_unit=None, redshift=float(header["redshift"]) if -1 < header["redshift"] < np.inf else None,
        particle_mass=mass * MASS_UNIT if 0 < mass < 1e20 else 0.0, Ob0=0.0, byteorder=byteorder, **stated,
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
