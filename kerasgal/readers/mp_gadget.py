"""Snapshots of MP-Gadget: folders in the bigfile format, read by the package bigfile, an optional one.

A folder has Header, whose attributes are those of Gadget's header, and a folder for each type of particles with the
blocks Position, Velocity, ID and Mass. Units: see `gadget_header`; velocities are a^2 dx/dt unless the header's
UsePeculiarVelocity says that they are peculiar (MP-Gadget's petaio.c).
"""

import contextlib
from dataclasses import dataclass

import numpy as np

from kerasgal.errors import DamagedError, DataError, MissingError, first_line
from kerasgal.readers import base, gadget_header
from kerasgal.readers.gadget_header import by_type, number, numbers

BLOCKS = {"position": "Position", "velocity": "Velocity", "id": "ID", "mass": "Mass"}


@contextlib.contextmanager
def opened(path):
    """The folder opened by bigfile; what it says of damage becomes a DataError."""
    try:
        import bigfile
    except ImportError as error:
        raise MissingError(f"{path} is a folder of MP-Gadget, which needs the optional package bigfile: install "
                           "kerasgal[bigfile]") from error
    try:
        with bigfile.File(str(path)) as folder:
            yield folder
    except DataError:
        raise
    except (bigfile.BigFileError, OSError, RuntimeError, LookupError, TypeError, ValueError) as error:
        reason = error.args[0] if error.args else error
        reason = reason.decode(errors="replace") if isinstance(reason, bytes) else first_line(error)
        reason = " ".join(reason.split(" @(")[0].split())
        raise DamagedError(f"{path} is a folder of MP-Gadget that is damaged or not complete: {reason}") from error


@dataclass(frozen=True)
class Snapshot(base.Snapshot):
    """A snapshot of MP-Gadget; peculiar: whether its velocities are."""

    peculiar: bool = True
    format: str = "MP-Gadget (bigfile)"

    def velocity_in_km_s(self):
        return self.velocity_unit * (1.0 if self.peculiar or self.redshift is None else 1 + self.redshift)

    def some(self, number, kind, start, stop, names):
        with opened(self.path) as folder:
            held = set(folder.list_blocks())
            fields = []
            for name in names:
                block = f"{kind}/{BLOCKS[name]}"
                if block in held:
                    fields.append(folder[block][start:stop])
                elif name == "mass" and self.masses[kind] > 0:
                    fields.append(np.full(stop - start, self.masses[kind], np.float32))
                else:
                    raise MissingError(f"{self.path} has no block {block}")
        for name, values in zip(names, fields):
            shape = (stop - start, 3) if name in ("position", "velocity") else (stop - start,)
            if values.shape != shape or values.dtype.kind not in ("iu" if name == "id" else "f"):
                raise DataError(f"{self.path}: {kind}/{BLOCKS[name]} has rows of the shape {values.shape[1:]} and type "
                                f"{values.dtype}, which are no {name}")
        return fields


def read_header(path, particles="dark"):
    """The `Snapshot` in a folder; particles: as in `gadget_hdf5.read_header`."""
    if not (path / "Header" / "attr-v2").is_file():
        raise DamagedError(f"{path} is a folder of MP-Gadget that is not complete: its Header has no attributes "
                           "(Header/attr-v2)")
    with opened(path) as folder:
        attributes = {name: values for name, values in folder["Header"].attrs.items()}
        counts = np.zeros((1, base.KINDS), np.int64)
        blocks = set(folder.list_blocks())
        for kind in range(base.KINDS):
            if f"{kind}/Position" in blocks:
                counts[0, kind] = folder[f"{kind}/Position"].size
        weighed = tuple(kind for kind in range(base.KINDS) if f"{kind}/Mass" in blocks)
    total = by_type(attributes, "TotNumPart")
    wrong = [kind for kind in range(base.KINDS) if total[kind] != counts[0, kind] and "TotNumPart" in attributes]
    if wrong:
        raise DamagedError(f"{path} has {counts[0, wrong[0]]} particles of type {wrong[0]}, TotNumPart says "
                           f"{total[wrong[0]]:.0f}")
    attributes.setdefault("Time", np.nan)
    snapshot = Snapshot(
        paths=(path,), counts=counts, boxsize=number(attributes, "BoxSize"),
        length_unit=gadget_header.length_unit(attributes, path), redshift=gadget_header.redshift(attributes),
        masses=by_type(attributes, "MassTable"), weighed=weighed,
        mass_unit=gadget_header.mass_unit(attributes, path),
        velocity_unit=gadget_header.velocity_unit(attributes, path), black_holes=True,
        peculiar=bool(numbers(attributes.get("UsePeculiarVelocity", 1))[0] > 0),
        cosmology=gadget_header.cosmology(attributes, path))
    return base.chosen(snapshot, particles)


base.register(
    name="MP-Gadget's folders (bigfile)", snapshot=read_header, recognises=lambda seen: seen.folder is not None
    and "Header" in seen.folder and "FOFGroups" not in seen.folder and any(name in seen.folder for name in "012345"))
