"""Snapshots in the TIPSY format, of PKDGRAV, Gasoline and ChaNGa; in both byte orders.

A header (time, which is the expansion factor; numbers of all particles, dimensions, gas, dark and star particles; in
the 'standard' form 4 more bytes), then all gas, dark and star particles, each with all its numbers. There are no IDs: a
particle keeps its place. In cosmological runs lengths are in box sides, from -1/2 to 1/2, and G = 1 with a critical
density of 1, so that H0 = sqrt(8 pi / 3) and velocities, dx/dt of comoving positions, are in box sides times H0 over
that root: so it is in ChaNGa's own initial conditions (see the tests). The file says neither the box nor the
cosmology.
"""

from dataclasses import dataclass

import numpy as np

from kerasgal.errors import DataError
from kerasgal.readers import gadget

HEADER = [("time", "f8"), ("all", "i4"), ("dimensions", "i4"), ("gas", "i4"), ("dark", "i4"), ("stars", "i4")]
HEADER_SIZES = (28, 32)
COMMON = [("mass", "f4"), ("position", "3f4"), ("velocity", "3f4")]
# In the order in which they stand in files; the rest of a gas particle is density, temperature, smoothing, metals
# and potential, of a dark one softening and potential, of a star metals, formation time, softening and potential.
RECORDS = {"gas": [*COMMON, ("rest", "5f4")], "dark": [*COMMON, ("rest", "2f4")], "stars": [*COMMON, ("rest", "4f4")]}
VELOCITY_UNIT = 100 / (8 * np.pi / 3) ** 0.5  # km/s per Mpc/h of box


@dataclass(frozen=True)
class Snapshot(gadget.Snapshot):
    """What the header of a TIPSY file says; boxsize is 1, in its own unit "box".

    kinds: names of the particles that are read; start: {kind: byte at which they begin}; box: side in Mpc/h, by which
    velocities become km/s, None where it is not known.
    """

    kinds: tuple = ("dark",)
    start: dict | None = None
    box: float | None = None
    equal = False

    @property
    def particles(self):
        """Number of particles that are read."""
        return sum(self.numbers().values())

    def numbers(self):
        """Particles of each kind that are read."""
        return {kind: int(self.counts[0, gadget.TYPES[kind][0]]) for kind in self.kinds}

    def read(self, *names):
        """Yield the particles in the file's order: a list with one array for each of the names; see `gadget.read`.

        Positions are from 0 to 1; the id is the number in the file of a particle among those that are read.
        """
        factor = VELOCITY_UNIT * (self.box or 1.0) / (1 + self.redshift)
        done = 0
        for kind, number in self.numbers().items():
            record = np.dtype(RECORDS[kind]).newbyteorder(self.byteorder)
            for first in range(0, number, gadget.PARTICLES_AT_ONCE):
                count = min(number - first, gadget.PARTICLES_AT_ONCE)
                values = np.fromfile(self.path, record, count, offset=self.start[kind] + first * record.itemsize)
                if len(values) < count:
                    raise DataError(f"{self.path} is cut short")
                native = {name: values[name].astype(values[name].dtype.newbyteorder("=")) for name in names
                          if name != "id"}
                native["id"] = np.arange(done, done + count)
                if "position" in names:
                    native["position"] += np.float32(0.5)
                    gadget.check_positions(native["position"], 1.0, self.path)
                if "velocity" in names:
                    native["velocity"] *= np.float32(factor)
                done += count
                yield [native[name] for name in names]


def is_tipsy(path):
    """True if a file is in the TIPSY format: its header's numbers must add up, and to the file's size."""
    return path.is_file() and _header(path) is not None


def read_header(path, particles="dark", box=None):
    """The `Snapshot` of a TIPSY file; particles: which are to be read: dark, gas, stars or all; box: side in Mpc/h.

    Raises DataError if it is no such file, has no such particles or its time is no expansion factor.
    """
    found = _header(path)
    if found is None:
        raise DataError(f"{path} is no TIPSY file: in neither byte order do the numbers in its header fit its size")
    header, byteorder, start = found
    time = float(header["time"])
    if not 1e-6 < time < 10:
        raise DataError(f"{path} has the time {time:g}; accepted is an expansion factor, as cosmological runs have")
    kinds = tuple(RECORDS) if particles == "all" else (particles,)
    counts = np.zeros((1, 6), np.int64)
    for kind in RECORDS:
        counts[0, gadget.TYPES[kind][0]] = header[kind]
    snapshot = Snapshot(
        paths=(path,), counts=counts, boxsize=1.0, length_unit="box", redshift=round(1 / time - 1, 12),
        particle_mass=0.0, Om0=None, Ob0=0.0, h=None, byteorder=byteorder, kinds=kinds, start=start, box=box)
    if not snapshot.particles:
        raise DataError(f"{path} has no {' or '.join(kinds)} particles")
    return snapshot


def _header(path):
    """The header of a file, its byte order and where each kind of particle begins; None if it is not in this format."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        block = file.read(HEADER_SIZES[0])
    if len(block) < HEADER_SIZES[0]:
        return None
    for byteorder in "<>":
        header = np.frombuffer(block, np.dtype(HEADER).newbyteorder(byteorder))[0]
        numbers = {kind: int(header[kind]) for kind in RECORDS}
        if header["dimensions"] != 3 or min(numbers.values()) < 0 or sum(numbers.values()) != header["all"]:
            continue
        place = size - sum(number * np.dtype(RECORDS[kind]).itemsize for kind, number in numbers.items())
        if place not in HEADER_SIZES:
            continue
        start = {}
        for kind, number in numbers.items():
            start[kind] = place
            place += number * np.dtype(RECORDS[kind]).itemsize
        return header, byteorder, start
    return None
