"""Snapshots in Gadget's own binary formats 1 and 2 (Springel 2005, astro-ph/0505010, user guide, section 6).

Before and after each block stands its length, as Fortran writes it. In format 2 a block of 8 bytes with the name of the
next one stands before each. Within a block particles stand type by type. Types of which the header says no mass have
theirs in a block of masses. Units: see `gadget_header`.
"""

from dataclasses import dataclass

import numpy as np

from kerasgal.errors import DamagedError, DataError
from kerasgal.readers import base, gadget_header, parameters

# In the order in which they stand in files, and their names in format 2.
BLOCKS = {"position": ("Coordinates", b"POS "), "velocity": ("Velocities", b"VEL "), "id": ("ParticleIDs", b"ID  "),
          "mass": ("Masses", b"MASS")}
HEADER = [
    ("counts", "6u4"), ("masses", "6f8"), ("time", "f8"), ("redshift", "f8"), ("flags", "2i4"),
    ("totals", "6u4"), ("cooling", "i4"), ("files", "i4"), ("boxsize", "f8"), ("Om0", "f8"), ("lambda", "f8"),
    ("h", "f8"), ("rest", "V96"),
]
OF_RUN = ("masses", "redshift", "totals", "files", "boxsize", "Om0", "h")  # the same in all files of a snapshot
# The first length, and that of the names in format 2, in both byte orders.
BEGINNINGS = {b"\0\1\0\0": ("<", 1), b"\0\0\1\0": (">", 1), b"\x08\0\0\0": ("<", 2), b"\0\0\0\x08": (">", 2)}


@dataclass(frozen=True)
class Snapshot(base.Snapshot):
    """A snapshot in Gadget's binary format 1 or 2, which `version` says; byteorder: "<" or ">"."""

    byteorder: str = "<"
    version: int = 1
    format: str = "Gadget binary"

    def some(self, number, kind, start, stop, names):
        return [self._rows(number, name, kind, start, stop) for name in names]

    def _rows(self, number, name, kind, start, stop):
        """Rows start to stop of a type of particles in a block."""
        if name == "mass" and self.masses[kind] > 0:
            return np.full(stop - start, self.masses[kind], np.float32)
        path, counts, word = self.paths[number], self.counts[number], BLOCKS[name][0]
        columns, type_of = (1, "u") if name == "id" else (1, "f") if name == "mass" else (3, "f")
        held = [int(count) if name != "mass" or not self.masses[other] > 0 else 0
                for other, count in enumerate(counts)]
        place, size = self._block(number, name)
        values_held = sum(held) * columns
        if size not in (4 * values_held, 8 * values_held):
            raise DamagedError(f"{path}: the block of {word} has {size} bytes; accepted are "
                               f"{4 * values_held} and {8 * values_held}")
        width = size // values_held
        place += (sum(held[:kind]) + int(start)) * columns * width
        values = np.fromfile(path, f"{self.byteorder}{type_of}{width}", int(stop - start) * columns, offset=place)
        if len(values) < (stop - start) * columns:
            raise DamagedError(f"{path} is cut short within its block of {word}")
        return values if columns == 1 else values.reshape(-1, columns)

    def _block(self, number, name):
        """The byte at which a block's content begins, and how many it has; raises DataError where there is none."""
        path, order = self.paths[number], {"<": "little", ">": "big"}[self.byteorder]
        names, size_of_file = list(BLOCKS), self.paths[number].stat().st_size
        place, found = (264, 0) if self.version == 1 else (0, None)
        with open(path, "rb") as file:
            while place + 8 <= size_of_file:
                file.seek(place)
                size = int.from_bytes(file.read(4), order)
                if self.version == 2 and size == 8:  # the name of the next block
                    found = file.read(4)
                    place += 16
                    continue
                if (names[found] if self.version == 1 else found) == (name if self.version == 1 else BLOCKS[name][1]):
                    return place + 4, size
                place += size + 8
                if self.version == 1:
                    found += 1
                    if found == len(names):
                        break
        if name == "mass":
            raise DamagedError(f"{path} has no block of Masses, which its header says its particles have")
        raise DamagedError(f"{path} is cut short: it has no block of {BLOCKS[name][0]}")


def _header(path):
    """The header of one file, a record array of no dimension, its byte order and version of the format."""
    with open(path, "rb") as file:
        start = file.read(24 + 256)
    byteorder, version = BEGINNINGS.get(start[:4], (None, None))
    skipped = 0 if version == 1 else 16
    block = start[skipped + 4:skipped + 260]
    if byteorder is None or len(block) < 256 or BEGINNINGS.get(start[skipped:skipped + 4]) != (byteorder, 1):
        raise DamagedError(f"{path} is no Gadget snapshot in binary, or its beginning is damaged: it has no header of "
                           "256 bytes in front")
    header = np.frombuffer(block, np.dtype(HEADER).newbyteorder(byteorder))[0]
    # Checked before anything is allocated: positions, velocities and IDs in their smallest kinds.
    particles = int(header["counts"].sum(dtype=np.int64))
    needed, held = (264 + 3 * 8 + 28 * particles) + (version == 2) * 4 * 16, path.stat().st_size
    if held < needed:
        raise DamagedError(f"{path} is cut short, or its header is damaged: {particles} particles take at least "
                           f"{needed} bytes, and it has {held}")
    return header, byteorder, version


def read_header(path, particles="dark"):
    """The `Snapshot` to which a file belongs; as `gadget_hdf5.read_header`."""
    path = base.existing(path)
    header, byteorder, version = _header(path)
    paths = base.chunks(path, int(header["files"]), "NumFilesPerSnapshot")
    masses = np.pad(np.where((header["masses"] > 0) & (header["masses"] < 1e20), header["masses"], 0), (0, 1))
    counts = []
    for chunk in paths:
        other, *kind = _header(chunk)
        if kind != [byteorder, version]:
            raise DamagedError(f"{chunk} is not of the snapshot of {path}: its byte order or format is another")
        differing = [name for name in OF_RUN if other[name].tobytes() != header[name].tobytes()]
        if differing:
            raise DataError(f"{chunk} is not of the snapshot of {path}: their headers differ in {', '.join(differing)}")
        counts.append(np.pad(other["counts"], (0, 1)))
    said = {name: float(header[column]) for name, column in
            (("Omega0", "Om0"), ("HubbleParam", "h"), ("OmegaLambda", "lambda"))}
    counts = np.array(counts, np.int64)
    _check_totals(path, counts.sum(axis=0), header["totals"].astype(np.int64))
    snapshot = Snapshot(
        paths=paths, counts=counts, boxsize=float(header["boxsize"]) if 0 < header["boxsize"] < np.inf else None,
        length_unit=None, redshift=float(header["redshift"]) if -1 < header["redshift"] < np.inf else None,
        masses=masses, weighed=tuple(kind for kind in range(6) if not masses[kind] > 0 and counts[:, kind].any()),
        mass_unit=gadget_header.MASS_UNIT, byteorder=byteorder, version=version,
        format=f"Gadget binary, format {version}", cosmology=parameters.cosmology_in(said, path)[0])
    return base.chosen(snapshot, particles)


def _check_totals(path, held, totals):
    """Raise DataError unless the files hold as many particles as a header says, if it does."""
    for kind, total in enumerate(totals if totals.any() else ()):
        # Of larger numbers the header holds the lower 32 bits here, and the rest elsewhere.
        if (held[kind] - total) % 2**32:
            raise DataError(f"{path}: its files hold {held[kind]} particles of type {kind}, its header says {total} in "
                            "all")


def _recognises(seen):
    """True for a header of 256 bytes in front; it may be cut short."""
    version = BEGINNINGS.get(seen.start[:4], (None, None))[1]
    return version == 1 or version == 2 and seen.start[4:8] == b"HEAD"


base.register(name="Gadget binary (formats 1 and 2)", snapshot=read_header,
              recognises=lambda seen: seen.hdf5 is None and seen.folder is None and _recognises(seen))
