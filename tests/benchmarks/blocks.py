"""From a distance map to a halo catalogue on workers that could not hold the box, against one process that can.

    python tests/benchmarks/blocks.py [--cells 512] [--block 256] [--workers 2] [--memory 1.5GiB]

The map is that of `watershed.py`, in a zarr array of chunks of 64^3 cells. Labels and catalogue must be the same to the
last bit. Dask kills a worker that exceeds its memory; what each one took at most is printed, with all libraries. CPU
seconds are those of the workers and this process together, without making the map.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from bars import claim, verdict

BOXSIZE, CELL_MASS = 100.0, 1e9


def config():
    from kerasgal.apps.protohalo.config import TrainConfig
    from watershed import FLOOR, MARKER, MINIMUM, SEPARATION

    return TrainConfig(smoothing=0.0, marker=MARKER, separation=SEPARATION, floor=FLOOR, depth=2.5, minimum=MINIMUM)


def peak():
    """Largest memory that this process took, GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def make(folder, n, block):
    import zarr
    from watershed import distance_map

    made = distance_map(n)
    stored = zarr.create_array(folder / "map.zarr", shape=made.shape, chunks=(min(64, block),) * 3, dtype=made.dtype)
    stored[...] = made
    np.save(folder / "map.npy", made)


def whole(folder):
    """In one process: labels, catalogue, and what that took."""
    from kerasgal.apps.protohalo import predict, watershed
    from watershed import LINE

    distance = np.load(folder / "map.npy")
    begun, clock = time.process_time(), time.monotonic()
    halo_id = predict.find_haloes(distance, config(), watershed.Line(*LINE))
    catalogue = watershed.catalogue(halo_id, distance, BOXSIZE, CELL_MASS)
    took = {"cpu": time.process_time() - begun, "wall": time.monotonic() - clock, "peak": peak()}
    np.save(folder / "halo_id.npy", halo_id)
    np.savez(folder / "catalogue.npz", **catalogue)
    return took


def blocks(folder, block, workers, memory):
    """The same by blocks on workers; returns what that took, and whether it is the same."""
    import zarr
    from distributed import Client, LocalCluster
    from kerasgal.apps.protohalo import blocks, watershed
    from watershed import LINE

    distance = zarr.open_array(folder / "map.zarr", mode="r")
    n = distance.shape[0]
    halo_id = zarr.create_array(folder / "halo_id.zarr", shape=(n, n, n), chunks=(min(64, block),) * 3, dtype=np.int32)
    cluster = LocalCluster(n_workers=workers, threads_per_worker=1, memory_limit=memory,
                           dashboard_address="127.0.0.1:0")
    with cluster, Client(cluster) as client:
        idle = max(client.run(peak).values())
        begun, clock = time.process_time() + sum(client.run(time.process_time).values()), time.monotonic()
        born = set(client.run(os.getpid).values())
        catalogue = blocks.find_haloes(distance, config(), watershed.Line(*LINE), halo_id, boxsize=BOXSIZE,
                                       cell_mass=CELL_MASS, block=block, scratch=folder / "scratch", client=client)
        took = {"cpu": time.process_time() + sum(client.run(time.process_time).values()) - begun,
                "wall": time.monotonic() - clock, "idle": idle, "peak": max(client.run(peak).values()),
                "own": peak(), "died": len(born - set(client.run(os.getpid).values())),
                "haloes": len(catalogue["mass"]),
                "scratch": sum(file.stat().st_size for file in (folder / "scratch").iterdir()) / 2**30}
    expected = np.load(folder / "halo_id.npy", mmap_mode="r")
    took["labels"] = all(np.array_equal(halo_id[x:x + 64], expected[x:x + 64]) for x in range(0, n, 64))
    with np.load(folder / "catalogue.npz") as file:
        took["catalogue"] = all(np.array_equal(file[name], values) for name, values in catalogue.items())
    return took


def in_a_process(*words):
    done = subprocess.run([sys.executable, __file__, "--run", *map(str, words)], stdout=subprocess.PIPE, text=True,
                          check=True)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, default=512)
    parser.add_argument("--block", type=int, default=256)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--memory", default="1.5GiB")
    parser.add_argument("--run", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        name, folder, *words = arguments.run
        folder = Path(folder)
        if name == "make":
            print(json.dumps(make(folder, *map(int, words))))
        elif name == "whole":
            print(json.dumps(whole(folder)))
        else:
            print(json.dumps(blocks(folder, int(words[0]), int(words[1]), words[2])))
        sys.exit()
    with tempfile.TemporaryDirectory() as os.environ["NUMBA_CACHE_DIR"], tempfile.TemporaryDirectory() as place:
        for n, block in ((32, 16), (arguments.cells, arguments.block)):  # the first one compiles
            folder = Path(place) / str(n)
            folder.mkdir()
            in_a_process("make", folder, n, block)
            one = in_a_process("whole", folder)
            many = in_a_process("blocks", folder, block, arguments.workers, arguments.memory)
        print(f"one process, {n}^3: {one['cpu']:.1f} CPU s, {one['wall']:.1f} s, {one['peak']:.2f} GiB")
        print(f"{arguments.workers} workers of {arguments.memory}, blocks of {block}^3: {many['haloes']} haloes, "
              f"{many['cpu']:.1f} CPU s, {many['wall']:.1f} s; {many['peak']:.2f} GiB in the largest worker "
              f"({many['idle']:.2f} idle), {many['own']:.2f} in the one that joins, {many['scratch']:.2f} in scratch")
        claim("labels are those of one process", many["labels"])
        claim("the catalogue is, to the last bit", many["catalogue"])
        claim(f"no worker of {arguments.memory} died", not many["died"])
        verdict("CPU time, blocks on workers / one process", many["cpu"] / one["cpu"], 3)
