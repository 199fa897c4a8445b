"""Snapshots in the TIPSY format, of PKDGRAV, Gasoline and ChaNGa; in both byte orders.

A header (time, which is the expansion factor; numbers of all particles, dimensions, gas, dark and star particles; in
the 'standard' form 4 more bytes), then all gas, dark and star particles, each with all its numbers. There are no IDs: a
particle keeps its place. In cosmological runs lengths are in box sides, from -1/2 to 1/2, and G = 1 with a critical
density of 1, so that H0 = sqrt(8 pi / 3) and velocities, dx/dt of comoving positions, are in box sides times H0 over
that root: so it is in ChaNGa's own initial conditions (see the tests). The mass of all particles is then Omega_m: the
file says it, but neither the box nor the rest of the cosmology.
"""

from dataclasses import dataclass, replace

import numpy as np

from kerasgal.errors import DamagedError, DataError
from kerasgal.readers import base

HEADER = [("time", "f8"), ("all", "i4"), ("dimensions", "i4"), ("gas", "i4"), ("dark", "i4"), ("stars", "i4")]
HEADER_SIZES = (28, 32)
COMMON = [("mass", "f4"), ("position", "3f4"), ("velocity", "3f4")]
# In the order in which they stand in files; the rest of a gas particle is density, temperature, smoothing, metals
# and potential, of a dark one softening and potential, of a star metals, formation time, softening and potential.
RECORDS = {"gas": [*COMMON, ("rest", "5f4")], "dark": [*COMMON, ("rest", "2f4")], "stars": [*COMMON, ("rest", "4f4")]}
KIND = {"gas": 0, "dark": 1, "stars": 4}
VELOCITY_UNIT = 100 / (8 * np.pi / 3) ** 0.5  # km/s per Mpc/h of box


@dataclass(frozen=True)
class Snapshot(base.Snapshot):
    """What the header of a TIPSY file says; boxsize is 1, in its own unit "box".

    start: {type of particles: byte at which they begin}; box: side in Mpc/h, by which velocities become km/s and masses
    Msun/h, None where it is not known.
    """

    byteorder: str = "<"
    start: dict | None = None
    box: float | None = None
    format: str = "TIPSY"
    numbered = False
    mass_says_Om0 = True

    def completed(self, boxsize, redshift, in_mpc):
        return replace(self, box=boxsize)

    def mass_in_msun(self):
        return None if self.box is None else base.CRITICAL_DENSITY * self.box**3

    def velocity_in_km_s(self):
        return np.float32(VELOCITY_UNIT * (self.box or 1.0) / (1 + self.redshift))

    def some(self, number, kind, start, stop, names):
        """As of every snapshot; positions are from 0 to 1, the id is the place among the particles that are read."""
        name, = (name for name, value in KIND.items() if value == kind)
        record = np.dtype(RECORDS[name]).newbyteorder(self.byteorder)
        values = np.fromfile(self.path, record, stop - start, offset=self.start[kind] + start * record.itemsize)
        if len(values) < stop - start:
            raise DamagedError(f"{self.path} is cut short")
        fields = {key: values[key].astype(values[key].dtype.newbyteorder("=")) for key in names if key != "id"}
        before = sum(int(self.counts[0, other]) for other in self.types[:self.types.index(kind)])
        fields["id"] = np.arange(before + start, before + stop)
        if "position" in names:
            fields["position"] += np.float32(0.5)
        return [fields[key] for key in names]


def is_tipsy(path):
    """True if a file is in the TIPSY format: its header's numbers must add up, and to the file's size."""
    return path.is_file() and _header(path) is not None


def read_header(path, particles="dark"):
    """The `Snapshot` of a TIPSY file; particles: which are to be read: dark, gas, stars or all, None for no choice.

    Raises DataError if it is no such file, has no such particles or its time is no expansion factor.
    """
    found = _header(path)
    if found is None:
        raise DataError(f"{path} is no TIPSY file: in neither byte order do the numbers in its header fit its size")
    header, byteorder, start = found
    time = float(header["time"])
    if not 1e-6 < time < 10:
        raise DataError(f"{path} has the time {time:g}; accepted is an expansion factor, as cosmological runs have")
    counts = np.zeros((1, base.KINDS), np.int64)
    for name, kind in KIND.items():
        counts[0, kind] = header[name]
    snapshot = Snapshot(
        paths=(path,), counts=counts, boxsize=1.0, length_unit="box", redshift=round(1 / time - 1, 12),
        masses=np.zeros(base.KINDS), byteorder=byteorder, start=start)
    return base.chosen(snapshot, particles)


def _header(path):
    """The header of a file, its byte order and where each type of particle begins; None if it is of another format."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        block = file.read(HEADER_SIZES[0])
    if len(block) < HEADER_SIZES[0]:
        return None
    for byteorder in "<>":
        header = np.frombuffer(block, np.dtype(HEADER).newbyteorder(byteorder))[0]
        numbers = {name: int(header[name]) for name in RECORDS}
        if header["dimensions"] != 3 or min(numbers.values()) < 0 or sum(numbers.values()) != header["all"]:
            continue
        place = size - sum(number * np.dtype(RECORDS[name]).itemsize for name, number in numbers.items())
        if place not in HEADER_SIZES:
            continue
        start = {}
        for name, number in numbers.items():
            start[KIND[name]] = place
            place += number * np.dtype(RECORDS[name]).itemsize
        return header, byteorder, start
    return None


base.register(name="TIPSY", snapshot=read_header, recognises=lambda seen: is_tipsy(seen.path))
