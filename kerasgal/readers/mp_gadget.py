"""Snapshots of MP-Gadget: folders in the bigfile format (github.com/MP-Gadget/bigfile).

A folder has Header, whose attributes are those of Gadget's header, and a folder for each type of particles with the
blocks Position, Velocity, ID and Mass. A block is a folder: its header, a text, says the type of its numbers, how many
there are in a row, and the rows in each of its files, which hold the bare numbers. Attributes are lines of a name, a
type, a number and the bytes in hexadecimal. Units: see `gadget_header`; velocities are peculiar where the header's
UsePeculiarVelocity says so. Else they are peculiar ones times a in snapshots, and over sqrt(a) in the initial
conditions of MP-GenIC (MP-Gadget's petaio.c and zeldovich.c), whose headers lack what only snapshots have.

The package bigfile is not used: it ends the process on some damaged headers.
"""

import logging
import math
import re
from dataclasses import dataclass

import numpy as np

from kerasgal.errors import DamagedError, DataError, MissingError
from kerasgal.readers import base, gadget_header
from kerasgal.readers.gadget_header import by_type, number, numbers

BLOCKS = {"position": "Position", "velocity": "Velocity", "id": "ID", "mass": "Mass"}
OF_SNAPSHOTS = ("RSDFactor", "TotNumPartInit")  # attributes that MP-GenIC does not write
log = logging.getLogger(__name__)
TYPES = re.compile(r"[<>=|]?[iuf][48]")


@dataclass(frozen=True)
class Block:
    """A block: its folder, type and columns, and the rows in each of its files."""

    path: object
    dtype: np.dtype
    columns: int
    rows: tuple

    @property
    def size(self):
        """Rows in all."""
        return sum(self.rows)

    def read(self, start, stop):
        """Rows start to stop, (rows,) or (rows, columns)."""
        pieces, before = [], 0
        for place, rows in enumerate(self.rows):
            low, high = max(start - before, 0), min(stop - before, rows)
            before += rows
            if low >= high:
                continue
            path, wanted = self.path / f"{place:06X}", (high - low) * self.columns
            if not path.is_file():
                raise _broken(self.path.parent.parent, f"there is no file {path}")
            piece = np.fromfile(path, self.dtype, wanted, offset=low * self.columns * self.dtype.itemsize)
            if len(piece) < wanted:
                raise _broken(self.path.parent.parent, f"{path} is cut short")
            pieces.append(piece)
        values = np.concatenate([np.zeros(0, self.dtype), *pieces])
        return values if self.columns == 1 else values.reshape(-1, self.columns)


def _broken(path, reason):
    return DamagedError(f"{path} is a folder of MP-Gadget that is damaged or not complete: {reason}")


def _text(root, path):
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        raise _broken(root, f"{path} is missing or no text") from None


def block_of(root, name):
    """The `Block` of that name in the folder `root`, None if there is none; raises DamagedError."""
    if not (root / name).is_dir():
        return None
    path, said = root / name / "header", {}
    rows = []
    for line in _text(root, path).splitlines():
        key, _, value = line.partition(":")
        if re.fullmatch(r"[0-9A-Fa-f]{6}", key.strip()):
            rows.append(value.split(":")[0].strip())
        else:
            said[key.strip()] = value.strip()
    counted = [said.get("NMEMB", ""), said.get("NFILE", ""), *rows]
    if not TYPES.fullmatch(said.get("DTYPE", "")) or not all(re.fullmatch(r"\d{1,18}", word) for word in counted) \
            or len(rows) != int(counted[1]) or int(counted[0]) < 1:
        raise _broken(root, f"{path} does not say the type, the columns and the rows of its files")
    return Block(root / name, np.dtype(said["DTYPE"]), int(counted[0]), tuple(map(int, rows)))


def attributes_of(root):
    """The attributes of the Header in the folder `root`, {name: array}, numbers alone."""
    path, found = root / "Header" / "attr-v2", {}
    if not path.is_file():
        raise _broken(root, "its Header has no attributes (Header/attr-v2)")
    for line in _text(root, path).splitlines():
        words = line.split()
        if len(words) < 4 or not TYPES.fullmatch(words[1]):
            continue
        try:
            found[words[0]] = np.frombuffer(bytes.fromhex(words[3]), words[1])
        except ValueError:
            raise _broken(root, f"{path} has a value of {words[0]} that is no number") from None
    return found


@dataclass(frozen=True)
class Snapshot(base.Snapshot):
    """A snapshot of MP-Gadget; peculiar: whether its velocities are, None if it does not say; evolved: it is no ICs."""

    peculiar: bool | None = True
    evolved: bool = True
    format: str = "MP-Gadget (bigfile)"
    coarse = ()  # 2 is neutrinos

    def velocity_in_km_s(self):
        if self.peculiar is None:
            log.warning("%s has no UsePeculiarVelocity in its header: its velocities are taken as MP-Gadget does, as "
                        "not peculiar", self.path)
        if self.peculiar or self.redshift is None:
            return self.velocity_unit
        return self.velocity_unit * (1 + self.redshift) ** (1 if self.evolved else -0.5)

    def some(self, number, kind, start, stop, names):
        return [self._rows(kind, start, stop, name) for name in names]

    def _rows(self, kind, start, stop, name):
        block = block_of(self.path, f"{kind}/{BLOCKS[name]}")
        if block is None:
            if name == "mass" and self.masses[kind] > 0:
                return np.full(stop - start, self.masses[kind], np.float32)
            raise MissingError(f"{self.path} has no block {kind}/{BLOCKS[name]}")
        columns = 3 if name in ("position", "velocity") else 1
        if block.columns != columns or block.dtype.kind not in ("iu" if name == "id" else "f"):
            raise DataError(f"{self.path}: {kind}/{BLOCKS[name]} has {block.columns} columns of type {block.dtype}, "
                            f"which are no {name}")
        if block.size < stop:
            raise _broken(self.path, f"{kind}/{BLOCKS[name]} has {block.size} rows, fewer than Position")
        return block.read(start, stop)


def read_header(path, particles="dark"):
    """The `Snapshot` in a folder; particles: as in `gadget_hdf5.read_header`."""
    attributes = attributes_of(path)
    counts, weighed = np.zeros((1, base.KINDS), np.int64), []
    for kind in range(base.KINDS):
        block = block_of(path, f"{kind}/Position")
        if block is None:
            continue
        counts[0, kind] = block.size
        held = sum(file.stat().st_size for file in block.path.iterdir())
        if held < block.size * block.columns * block.dtype.itemsize:  # before anything is allocated
            wanting = [f"{place:06X}" for place in range(min(len(block.rows), base.MOST_FILES))
                       if not (block.path / f"{place:06X}").is_file()]
            reason = f"has no file {wanting[0]}" if wanting else "is cut short"
            raise _broken(path, f"{kind}/Position {reason}")
        if (path / f"{kind}/Mass").is_dir():
            weighed.append(kind)
    total = by_type(attributes, "TotNumPart")
    wrong = [kind for kind in range(base.KINDS) if total[kind] != counts[0, kind] and "TotNumPart" in attributes]
    if wrong:
        raise _broken(path, f"it has {counts[0, wrong[0]]} particles of type {wrong[0]}, TotNumPart says "
                            f"{total[wrong[0]]:.0f}")
    snapshot = Snapshot(
        paths=(path,), counts=counts, boxsize=number(attributes, "BoxSize"),
        length_unit=gadget_header.length_unit(attributes, path), redshift=gadget_header.redshift(attributes),
        masses=by_type(attributes, "MassTable"), weighed=tuple(weighed),
        mass_unit=gadget_header.mass_unit(attributes, path),
        velocity_unit=gadget_header.velocity_unit(attributes, path), black_holes=True,
        peculiar=_peculiar(attributes), evolved=any(name in attributes for name in OF_SNAPSHOTS),
        cosmology=gadget_header.cosmology(attributes, path))
    return base.chosen(snapshot, particles)


def _peculiar(attributes):
    """Whether velocities are peculiar ones, None where no attribute says so."""
    if "UsePeculiarVelocity" not in attributes:
        return None
    return not math.isclose(numbers(attributes["UsePeculiarVelocity"])[0], 0)


base.register(
    name="MP-Gadget's folders (bigfile)", snapshot=read_header, recognises=lambda seen: seen.folder is not None
    and "Header" in seen.folder and "FOFGroups" not in seen.folder and any(name in seen.folder for name in "012345"))
