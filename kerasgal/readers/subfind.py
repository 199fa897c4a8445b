"""Group catalogues of FoF and SUBFIND in HDF5, of Gadget, Arepo and IllustrisTNG. Units: see `gadget_header`."""

import numpy as np

from kerasgal.errors import DataError, MissingError
from kerasgal.readers import base, gadget_header
from kerasgal.readers.base import check_columns, check_values, columns_of, opened
from kerasgal.readers.gadget_header import attributes_of, number, numbers

GROUP_COLUMNS = ("GroupMass", "GroupPos", "GroupLenType")
KIND = "group file"
SUBHALOES_HERE = ("Nsubgroups_ThisFile", "Nsubhalos_ThisFile")  # the second in Gadget-4


def read_groups(path, h=None):
    """The `base.Groups` of a catalogue; `path` as in `gadget_hdf5.read_header`.

    Raises DataError if a file is missing or is no such catalogue.
    """
    path = base.existing(path)
    with opened(path) as file:
        attributes = attributes_of(file, KIND, ("NumFiles", "Ngroups_ThisFile"))
    paths = base.chunks(path, number(attributes, "NumFiles"), "NumFiles")
    unit = gadget_header.mass_unit(attributes, path)
    # A catalogue may have no group, and then has no datasets.
    mass, radius, position = ([np.zeros((0, *shape), np.float32)] for shape in ((), (), (3,)))
    counts = [np.zeros(0, np.int32)]
    for chunk in paths:
        with opened(chunk) as file:
            here = attributes_of(file, KIND, ("Ngroups_ThisFile",))
            _check_of_run(chunk, here, path, attributes)
            held = int(number(here, "Ngroups_ThisFile", 0))
            if held == 0:
                continue
            mass_here, position_here, count_here = columns_of(file, "Group", GROUP_COLUMNS)
            check_columns(chunk, position_here, mass=mass_here, count=count_here[:, 1])
            if len(mass_here) != held:
                raise DataError(f"{chunk} has {len(mass_here)} groups; its header says {held}")
            mass.append(mass_here * unit)
            position.append(position_here)
            counts.append(count_here[:, 1])
            has_radius = "Group/Group_R_Mean200" in file
            radius.append(file["Group/Group_R_Mean200"][...] if has_radius else np.zeros(held))
            check_columns(chunk, position_here, radius=radius[-1])
            check_values(chunk, GroupMass=mass_here, GroupLenType=count_here, Group_R_Mean200=radius[-1])
    count = np.concatenate(counts).astype(np.int64)
    _check_total(path, attributes, ("Ngroups_Total",), len(count), "groups")
    return base.Groups(
        paths=paths, boxsize=number(attributes, "BoxSize"), length_unit=gadget_header.length_unit(attributes, path),
        redshift=gadget_header.redshift(attributes), mass=np.concatenate(mass), position=np.concatenate(position),
        radius=np.concatenate(radius), count=count, sorted=True, members=lambda: _members(paths, count.sum()),
        cosmology=gadget_header.cosmology(attributes, path), finder="fof")


def _check_of_run(chunk, here, path, attributes):
    """Raise DataError if the attributes of a file are not those of the catalogue whose first file is at `path`."""
    for name in ("BoxSize", "Redshift", "Time"):
        if not np.array_equal(numbers(here.get(name)), numbers(attributes.get(name)), equal_nan=True):
            raise DataError(f"{chunk} is not of the catalogue of {path}: its {name} is another")


def _check_total(path, attributes, names, held, what):
    """Raise DataError unless a catalogue holds as many groups or subhaloes as its header says, under either name."""
    said = next((number(attributes, name) for name in names if name in attributes), None)
    if said is not None and said != held:
        raise DataError(f"{path}: its files hold {held} {what}, its header says {said:.0f}")


def _members(paths, expected):
    """IDs of the particles of all groups, one group after the other, (particles,); None where files do not list them.

    CAMELS does, in IDs/ID, for snapshots that are not sorted by group. Lists with other particles than dark matter are
    None, too.
    """
    ids = [np.zeros(0, np.uint32)]
    for path in paths:
        with opened(path) as file:
            if "IDs/ID" in file:
                ids.append(file["IDs/ID"][...])
    ids = np.concatenate(ids)
    return ids if ids.dtype.kind in "iu" and len(ids) and ids.shape == (expected,) else None


def number_of_groups(path):
    """How many groups a catalogue has, as its header says; 0 where it does not."""
    with opened(base.existing(path)) as file:
        return int(number(file["Header"].attrs, "Ngroups_Total", 0)) if "Header" in file else 0


def read_galaxies(path):
    """The `base.Galaxies` of a catalogue: its subhaloes with stars; `path` as in `gadget_hdf5.read_header`.

    Subhaloes whose SubhaloFlag is 0, which are not of cosmological origin, are left out (specification of
    IllustrisTNG). The central one of a group is its GroupFirstSub; `central` is None where the catalogue has
    none. Raises DataError if a file is missing, is no such catalogue, or has neither the mass nor the number of its
    stars.
    """
    path = base.existing(path)
    with opened(path) as file:
        if "Header" not in file and "Subhalo" not in file:
            raise DataError(f"{path} has neither a group Header nor Subhalo, so it is no SUBFIND catalogue; it holds "
                            f"{', '.join(file) or 'nothing'}")
        attributes = attributes_of(file, KIND) if "Header" in file else {}
    paths = base.chunks(path, number(attributes, "NumFiles"), "NumFiles")
    columns = {name: [] for name in ("position", "mass", "stars", "group", "row")}
    first, done = [], 0
    for chunk in paths:
        with opened(chunk) as file:
            here = attributes_of(file, KIND) if "Header" in file else {}
            _check_of_run(chunk, here, path, attributes)
            held = next((number(here, name, 0) for name in SUBHALOES_HERE if name in here), None)
            if "Group/GroupFirstSub" in file:
                first.append(np.ravel(file["Group/GroupFirstSub"][...]).astype(np.int64))
            if "Subhalo/SubhaloPos" not in file:
                if held:
                    raise MissingError(f"{chunk} has no SubhaloPos in its group Subhalo")
                continue  # a chunk without a subhalo has no datasets
            position, by_type, host, flag = _subhaloes(file)
            if held is not None and held != len(position):
                raise DataError(f"{chunk} has {len(position)} subhaloes; its header says {held:.0f}")
            some = next(column for column in by_type if column is not None) > 0
            check_columns(chunk, position, group=host, flag=flag, **dict(zip(("mass", "stars"), by_type)))
            keep = np.flatnonzero((flag != 0) & some)
            for name, values in zip(columns, (position, *by_type, host, np.arange(done, done + len(position)))):
                columns[name].append(None if values is None else values[keep])
            done += len(position)
    _check_total(path, attributes, ("Nsubgroups_Total", "Nsubhalos_Total"), done, "subhaloes")
    has_first = bool(first)
    first = np.concatenate([np.zeros(0, np.int64), *first])

    def joined(name, empty):
        values = columns[name]
        return None if any(item is None for item in values) else np.concatenate([empty, *values])

    host = joined("group", np.zeros(0, np.int64))
    if len(host) and host.max() >= len(first) and len(first):
        raise DataError(f"{path}: SubhaloGrNr runs to {host.max()}; there are {len(first)} groups")
    mass = joined("mass", np.zeros(0))
    return base.Galaxies(
        paths=paths, boxsize=number(attributes, "BoxSize"), length_unit=gadget_header.length_unit(attributes, path),
        redshift=gadget_header.redshift(attributes), position=joined("position", np.zeros((0, 3))),
        mass=None if mass is None else mass * gadget_header.mass_unit(attributes, path),
        stars=joined("stars", np.zeros(0, np.int64)), group=host,
        central=np.isin(joined("row", np.zeros(0, np.int64)), first[first >= 0]) if has_first else None,
        cosmology=gadget_header.cosmology(attributes, path))


def _subhaloes(file):
    """Positions, masses and numbers of stars (None for what is missing), groups and flags of one file's subhaloes."""
    group = file["Subhalo"]
    position = group["SubhaloPos"][...]
    by_type = [_stars(group[name][...]) if name in group else None for name in ("SubhaloMassType", "SubhaloLenType")]
    if all(column is None for column in by_type):
        raise MissingError(f"{file.filename} has neither SubhaloMassType nor SubhaloLenType in its group Subhalo")
    host = next((group[name][...] for name in ("SubhaloGrNr", "SubhaloGroupNr") if name in group),
                np.full(len(position), -1)).astype(np.int64)
    flag = group["SubhaloFlag"][...] if "SubhaloFlag" in group else np.ones(len(position), bool)
    return position, by_type, np.maximum(host, -1), flag


def _stars(by_type):
    """The column of stars of numbers by type, none where a run has so few types."""
    return by_type[:, 4] if by_type.shape[1:] > (4,) else np.zeros(len(by_type), by_type.dtype)


def has_groups(path):
    """True if a catalogue has the groups of its galaxies, too."""
    with opened(base.existing(path)) as file:
        return "Header" in file


base.register(
    name="FoF/SUBFIND in HDF5", groups=read_groups, galaxies=read_galaxies, size=number_of_groups,
    has_groups=has_groups, recognises=lambda seen: seen.hdf5 is not None and (
        "Group" in seen.hdf5 or "Subhalo" in seen.hdf5 or "Ngroups_ThisFile" in seen.hdf5.get("Header", ())))
