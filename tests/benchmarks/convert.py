"""Memory and time of `kerasgal convert` on a run in the IllustrisTNG layout.

    python tests/benchmarks/convert.py [PARTICLES_A_SIDE]

216^3 particles (10 million) on a displaced lattice: initial conditions in Gadget-1 binary, a snapshot of 8 HDF5 files,
the same compressed with Blosc, and a group catalogue, made in a temporary folder. Each conversion is a fresh process,
of which the peak memory is printed, its start and imports in it. The goals are at most 1.5 GiB and at least a million
particles per second, each particle of each snapshot counted once.
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
from bars import verdict

GIBIBYTES, MILLIONS = 1.5, 1  # the goals: peak memory, particles per second
BOX, OM0, CHUNKS = 205.0, 0.3089, 8  # Mpc/h


def waves(n, phase, slab):
    """A smooth displacement (cells, 3) of the lattice cells `slab` along x, of amplitude 1."""
    angle = 2 * np.pi * np.stack(np.meshgrid(np.arange(slab.start, slab.stop), np.arange(n), np.arange(n),
                                             indexing="ij"), -1).reshape(-1, 3) / n
    return sum(np.sin(wave * angle + phase + wave) / wave for wave in (1, 2, 3))


def make(folder, n):
    """Write `ics`, `snap_099.0.hdf5` to `snap_099.7.hdf5` and `groups.hdf5`, units kpc/h and 1e10 Msun/h."""
    mass = OM0 * 27.7536627 * (BOX / n) ** 3
    slabs = [range(start, min(n, start + -(-n // CHUNKS))) for start in range(0, n, -(-n // CHUNKS))]
    header = np.zeros(1, [("counts", "6u4"), ("masses", "6f8"), ("time", "f8"), ("redshift", "f8"), ("flags", "2i4"),
                          ("totals", "6u4"), ("cooling", "i4"), ("files", "i4"), ("boxsize", "f8"), ("Om0", "f8"),
                          ("lambda", "f8"), ("h", "f8"), ("rest", "V96")])
    header["counts"][0, 1], header["masses"][0, 1], header["files"] = n**3, mass, 1
    header["time"], header["redshift"], header["boxsize"], header["Om0"], header["h"] = 0.02, 49, BOX * 1e3, OM0, 0.6774

    def lattice(slab):
        return np.stack(np.meshgrid(np.arange(slab.start, slab.stop), np.arange(n), np.arange(n), indexing="ij"),
                        -1).reshape(-1, 3)

    def block(file, size, values):
        np.array([size], "u4").tofile(file)
        for value in values:
            value.tofile(file)
        np.array([size], "u4").tofile(file)

    with open(folder / "ics", "wb") as file:
        block(file, 256, [header])
        block(file, 12 * n**3, (((lattice(slab) + 0.3 * waves(n, 0, slab)) % n * (BOX * 1e3 / n)).astype("f4")
                                for slab in slabs))
        block(file, 12 * n**3, ((100 * waves(n, 0, slab)).astype("f4") for slab in slabs))
        block(file, 4 * n**3, ((np.ravel_multi_index(lattice(slab).T, (n, n, n)) + 1).astype("u4") for slab in slabs))
    random = np.random.default_rng(0)
    for chunk, slab in enumerate(slabs):
        # Neither in the lattice's order nor wholly in disorder: as a snapshot's particles, which are sorted by group.
        order = np.argsort(random.random(len(slab) * n**2 // 64)).repeat(64) * 64
        order += np.tile(np.arange(64), len(order) // 64)
        with h5py.File(folder / f"snap_099.{chunk}.hdf5", "w") as file:
            file.create_group("Header").attrs.update(
                BoxSize=BOX * 1e3, HubbleParam=0.6774, MassTable=[0, mass, 0, 0, 0, 0], Omega0=OM0, OmegaBaryon=0.0486,
                NumFilesPerSnapshot=len(slabs), NumPart_ThisFile=[0, len(order), 0, 0, 0, 0], Redshift=0.0,
                UnitLength_in_cm=3.085678e21)
            group = file.create_group("PartType1")
            here = (lattice(slab) + 3 * waves(n, 1, slab)) % n * (BOX * 1e3 / n)
            group["Coordinates"] = here[order]
            group["Velocities"] = (100 * waves(n, 0, slab)).astype("f4")[order]
            group["ParticleIDs"] = (np.ravel_multi_index(lattice(slab).T, (n, n, n)) + 1).astype("u8")[order]
            with h5py.File(folder / f"blosc_099.{chunk}.hdf5", "w") as packed:
                packed.create_group("Header").attrs.update(file["Header"].attrs)
                for name, values in group.items():
                    packed.create_dataset(f"PartType1/{name}", data=values[...], chunks=True, **hdf5plugin.Blosc())
    with h5py.File(folder / "groups.hdf5", "w") as file:
        file.create_group("Header").attrs.update(BoxSize=BOX * 1e3, NumFiles=1, Ngroups_ThisFile=0, Redshift=0.0,
                                                 UnitLength_in_cm=3.085678e21)


def main(n):
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        make(folder, n)
        snapshot = ["--final", folder / "snap_099.0.hdf5"]
        cases = {
            "initial conditions and snapshot": (2, ["--initial", folder / "ics", *snapshot,
                                                    "--groups", folder / "groups.hdf5"]),
            "snapshot alone, on a grid of 256^3": (1, [*snapshot, "--grid", "256"]),
            "the same in Blosc": (1, ["--final", folder / "blosc_099.0.hdf5", "--grid", "256"]),
        }
        for name, (times, arguments) in cases.items():
            subprocess.run([sys.executable, __file__, name, str(times * n**3), folder / "out.h5", *arguments],
                           check=True)


def measure(name, particles, *arguments):
    from kerasgal.cli import main as kerasgal

    start = time.perf_counter()
    kerasgal(["convert", *arguments, "--overwrite"], standalone_mode=False)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{name}: {seconds:.1f} s, {time.process_time():.1f} CPU s", flush=True)
    verdict(f"{name}, rate", int(particles) / seconds / 1e6, MILLIONS, "million particles per second", least=True)
    verdict(f"{name}, peak memory", peak, GIBIBYTES, "GiB")


if __name__ == "__main__":
    if len(sys.argv) > 2:
        measure(*sys.argv[1:])
    else:
        main(int(sys.argv[1]) if len(sys.argv) == 2 else 216)
