"""Snapshots in HDF5 of the Gadget family: Gadget, Arepo, Gizmo, IllustrisTNG, EAGLE. Units: see `gadget_header`."""

from dataclasses import dataclass

import numpy as np

from kerasgal.errors import DamagedError, DataError, MissingError
from kerasgal.readers import base, gadget_header
from kerasgal.readers.gadget_header import attributes_of, by_type, number, numbers

# By the names of most codes, and those of EAGLE's; the last is that of SWIFT's black holes.
FIELDS = {"position": ("Coordinates",), "velocity": ("Velocities", "Velocity"), "id": ("ParticleIDs",),
          "mass": ("Masses", "Mass", "DynamicalMasses")}
BLACK_HOLES = ("BH_", "BlackHole", "Subgrid")  # names of datasets of type 5 begin so where it is black holes


@dataclass(frozen=True)
class Snapshot(base.Snapshot):
    """A snapshot of the Gadget family in HDF5."""

    format: str = "HDF5 of the Gadget family"

    def some(self, number, kind, start, stop, names):
        path = self.paths[number]
        with base.opened(path) as file:
            if f"PartType{kind}" not in file:
                raise MissingError(f"{path} has no group PartType{kind}, of which its header says it holds particles")
            group = file[f"PartType{kind}"]
            called = {name: _called(group, name) for name in names}
            missing = [FIELDS[name][0] for name in names if name != "mass" and called[name] is None]
            if missing:
                raise MissingError(f"{path} has no {', '.join(missing)} in its group PartType{kind}")
            fields = [self._same_mass(file, kind, stop - start) if called[name] is None else
                      group[called[name]][start:stop] for name in names]
        for name, values in zip(names, fields):
            _check(path, kind, name, called[name] or FIELDS[name][0], values, stop - start)
        return fields

    def _same_mass(self, file, kind, count):
        """Masses of particles that have no dataset of them."""
        same = by_type(attributes_of(file, "snapshot"), "MassTable")[kind]
        if not same > 0 and len(self.types) > 1:
            raise MissingError(f"{file.filename} has no masses of PartType{kind}, neither Masses nor in its MassTable, "
                               "which particles=all needs")
        # Without masses, particles of one type count alike.
        return np.full(count, same if same > 0 else 1, np.float32)


def _called(group, name):
    """What the dataset of a field is called in a group, None where there is none."""
    return next((called for called in FIELDS[name] if called in group), None)


def _check(path, kind, name, called, values, count):
    """Raise DataError for an array of the wrong length, shape or type."""
    if len(values) != count:
        raise DamagedError(f"{path} has fewer {called} in PartType{kind} than NumPart_ThisFile says")
    if values.shape[1:] != ((3,) if name in ("position", "velocity") else ()):
        raise DataError(f"{path}: {called} in PartType{kind} has the shape "
                        f"(..., {', '.join(map(str, values.shape[1:]))}); accepted are (n, 3) and, for one number "
                        "a particle, (n,)")
    if values.dtype.kind not in ("iu" if name == "id" else "iuf"):
        raise DataError(f"{path}: {called} in PartType{kind} is of type {values.dtype}; "
                        f"accepted are {'whole' if name == 'id' else 'real'} numbers")


def read_header(path, particles="dark"):
    """The `Snapshot` to which a file belongs.

    `path`: its only file, one of several (`snap_099.0.hdf5`), or the name without that number; particles: which are to
    be read, one of `base.CHOICES`, None for no choice. Raises DataError if a file is missing, is no such snapshot, is
    cut short, has no such particles or is in units that are not read.
    """
    path = base.existing(path)
    with base.opened(path) as file:
        attributes = attributes_of(file, "snapshot")
    sides = np.unique(numbers(attributes.get("BoxSize", 0.0)))
    if len(sides) > 1:
        raise DataError(f"{path} has a BoxSize of {sides}; accepted is a cube")
    made = particles_of(path, attributes, lambda attributes: (gadget_header.redshift(attributes),
                                                              number(attributes, "BoxSize")))
    snapshot = base.chosen(Snapshot(
        boxsize=number(attributes, "BoxSize"), length_unit=gadget_header.length_unit(attributes, path),
        redshift=gadget_header.redshift(attributes), mass_unit=gadget_header.mass_unit(attributes, path),
        velocity_unit=gadget_header.velocity_unit(attributes, path),
        cosmology=gadget_header.cosmology(attributes, path), **made), particles)
    if particles is not None:
        check_totals(snapshot, attributes)
    return snapshot


def particles_of(path, attributes, of_run):
    """What is in the files of a snapshot: its paths, counts, masses, weighed and black_holes, as of `base.Snapshot`.

    attributes: of the header of the file at `path`; of_run: function of such, whose values all files must share.
    """
    paths = base.chunks(path, number(attributes, "NumFilesPerSnapshot"), "NumFilesPerSnapshot")
    counts, weighed, black_holes = [], set(), False
    for chunk in paths:
        with base.opened(chunk) as file:
            counts.append(_counts(file))
            if of_run(attributes_of(file, "snapshot")) != of_run(attributes):
                raise DataError(f"{chunk} is not of the snapshot of {path}: its BoxSize or Redshift is another")
            weighed |= {kind for kind in range(base.KINDS) if f"PartType{kind}" in file
                        and _called(file[f"PartType{kind}"], "mass")}
            black_holes |= "PartType5" in file and any(name.startswith(BLACK_HOLES) for name in file["PartType5"])
    return {"paths": paths, "counts": np.array(counts, np.int64), "masses": by_type(attributes, "MassTable"),
            "weighed": tuple(sorted(weighed)), "black_holes": black_holes}


def check_totals(snapshot, attributes):
    """Raise DataError unless the files hold as many particles of the chosen types as their headers say."""
    for number_here, path in enumerate(snapshot.paths):
        with base.opened(path) as file:
            for kind in snapshot.types:
                name = f"PartType{kind}/Coordinates"
                if name in file and snapshot.counts[number_here, kind] > len(file[name]):
                    raise DamagedError(f"{path} has fewer Coordinates in PartType{kind} than NumPart_ThisFile says")
    if "NumPart_Total" not in attributes:
        return
    total = by_type(attributes, "NumPart_Total")
    for kind in snapshot.types:
        # Of larger numbers the header holds the lower 32 bits here, and the rest elsewhere.
        if (snapshot.counts[:, kind].sum() - total[kind]) % 2**32:
            raise DataError(f"{snapshot.path}: its files hold {snapshot.counts[:, kind].sum()} particles of "
                            f"PartType{kind}, NumPart_Total says {total[kind]:.0f}")


def _counts(file):
    """Particles of each type in an HDF5 file; the datasets say where the header does not.

    Types without positions, such as tracers, and those that a copy left out are none.
    """
    held = [len(file[f"PartType{kind}/Coordinates"]) if f"PartType{kind}/Coordinates" in file else 0
            for kind in range(base.KINDS)]
    attributes = attributes_of(file, "snapshot")
    if "NumPart_ThisFile" not in attributes:
        return held
    return by_type(attributes, "NumPart_ThisFile").astype(np.int64)


base.register(
    name="HDF5 of the Gadget family (Gadget, Arepo, Gizmo, IllustrisTNG, EAGLE)", snapshot=read_header,
    recognises=lambda seen: seen.hdf5 is not None and (
        any(name.startswith("PartType") for name in seen.hdf5) or "NumPart_ThisFile" in seen.hdf5.get("Header", ())))
