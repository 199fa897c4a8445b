"""Time and memory of `kerasgal.simulate`, of its loops over particles, and of the ways that they replace.

    python tests/benchmarks/nbody.py [--large]

Each line is a process of its own. First 128^3 particles in 50 Mpc/h: the simulation with its haloes, then cloud-in-cell
by sparse matrices (`kerasgal.grid.cic_matrix`) and friends of friends by a list of all pairs (SciPy's
cKDTree.query_pairs and connected_components) beside ours on the particles of that simulation, and the forces of its
steps by NumPy's arrays. `--large` simulates 256^3 particles as well. What is printed says of each goal whether it
holds. CPU seconds differ twofold between machines, and between idle and busy ones: the ratios say more. Compiling, in
the first call of all, is measured by itself and not counted in the other lines.
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
from bars import verdict
from peers import plain_gravity

BOXSIZE, SEED = 50.0, 1
SECONDS, GIBIBYTES = 12, 8  # the goals: CPU seconds of 128^3 particles, peak memory of 256^3
SHARE = 0.18  # of what arrays and a list of pairs take, near the 0.15 that was found; no code of 0.1 stands here
STEPS = 20  # of `run`


def simulate(particles, path):
    import kerasgal as kg

    kg.simulate(path, particles=particles, boxsize=BOXSIZE, seed=SEED)


def run(particles, path):
    """The N-body simulation, then its haloes, without a file."""
    from kerasgal import halos, nbody

    simulation = nbody.simulate(particles, BOXSIZE, seed=SEED, steps=STEPS)
    start = time.process_time()
    halo_id = halos.friends_of_friends(simulation.position, BOXSIZE)
    found = halos.catalogue(halo_id, simulation.position, BOXSIZE, 1.0)
    finding = time.process_time() - start
    np.save(path, simulation.position)
    return {"haloes": len(found["mass"]), "finding": finding}


def friends(particles, path):
    from kerasgal.halos import friends_of_friends

    return {"haloes": int(friends_of_friends(np.load(path), BOXSIZE).max()) + 1}


def pairs(particles, path):
    import scipy.sparse
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    from kerasgal.halos import number_by_size

    position = np.load(path).astype(np.float64)
    tree = cKDTree(position, boxsize=BOXSIZE)
    found = tree.query_pairs(0.2 * BOXSIZE / len(position)**(1 / 3), output_type="ndarray")
    links = scipy.sparse.coo_array((np.ones(len(found), bool), found.T), shape=(len(position),) * 2)
    return {"haloes": int(number_by_size(connected_components(links, directed=False)[1], 20).max()) + 1}


def arrays(particles, path):
    """The forces of one step by NumPy's arrays."""
    plain_gravity(np, np.load(path), 2 * particles, BOXSIZE)


def cloud(particles, path):
    from kerasgal.grid import deposit_cic, interpolate_cic

    position = np.load(path)
    interpolate_cic(deposit_cic(position, 2 * particles, BOXSIZE), position, BOXSIZE)


def matrix(particles, path):
    from kerasgal.grid import cic_matrix

    position = np.load(path)
    share = cic_matrix(position, 2 * particles, BOXSIZE)
    share @ (share.T @ np.ones(len(position), np.float32))


def measure(name, particles, path, environment=()):
    """Run a function of this module in a process of its own; print and return what it took."""
    done = subprocess.run([sys.executable, __file__, "--run", name, str(particles), str(path)], stdout=subprocess.PIPE,
                          text=True, check=True, env={**os.environ, **dict(environment)})
    result = json.loads(done.stdout.splitlines()[-1])
    haloes = f", {result['haloes']} haloes" if "haloes" in result else ""
    finding = f" ({result['finding']:.1f} of them for haloes)" if "finding" in result else ""
    print(f"{name:8s} {particles}^3: {result['cpu']:.1f} CPU s{finding}, {result['wall']:.1f} s, peak memory "
          f"{result['peak']:.2f} GiB, {result['before']:.2f} of it before{haloes}", flush=True)
    return result


def first(particles, path):
    """The first call of all: Numba's start, and the loops compiled."""
    warm_up()


def warm_up():
    """Run everything once on a few particles."""
    from kerasgal import grid, halos, nbody

    position = nbody.simulate(8, BOXSIZE, steps=1).position
    halos.friends_of_friends(position, BOXSIZE)
    grid.interpolate_cic(grid.deposit_cic(position, 8, BOXSIZE), position, BOXSIZE)


def run_here(name, particles, path):
    """What `measure` starts."""
    from kerasgal import grid, halos, nbody, simulations  # noqa: F401, so that their imports are not counted

    if name != "first":
        warm_up()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cpu, wall = time.process_time(), time.monotonic()
    result = globals()[name](particles, path) or {}
    print(json.dumps({**result, "cpu": time.process_time() - cpu, "wall": time.monotonic() - wall,
                      "before": before / 2**20, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}))


def main(large):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "position.npy"
        measure("first", 8, path, {"NUMBA_CACHE_DIR": folder})  # as if nothing was compiled yet
        measure("first", 8, path)
        whole = measure("run", 128, path)
        verdict("128^3 particles, N-body and haloes", whole["cpu"], SECONDS, "CPU s")
        library = {}
        for ours, other, what in (("cloud", "matrix", "a deposit and a reading on 256^3 cells, loop / sparse matrix"),
                                  ("friends", "pairs", "friends of friends, union as pairs are met / list of pairs")):
            own, its = measure(ours, 128, path), measure(other, 128, path)
            verdict(f"{what}, CPU time", own["cpu"] / its["cpu"], 1)
            verdict(f"{what}, added memory", (own["peak"] - own["before"]) / (its["peak"] - its["before"]), 1)
            if own.get("haloes") != its.get("haloes"):
                raise SystemExit("the two find different haloes")
            library[other] = its["cpu"]
        plain = STEPS * measure("arrays", 128, path)["cpu"] + library["pairs"]
        verdict("128^3 particles, N-body and haloes / the forces by arrays and haloes by a list of pairs, CPU time",
                whole["cpu"] / plain, SHARE)
        measure("simulate", 128, Path(folder) / "box.h5")
        if large:
            whole = measure("simulate", 256, Path(folder) / "large.h5")
            verdict("256^3 particles, written to a file", whole["peak"], GIBIBYTES, "GiB")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--run", nargs=3, metavar=("NAME", "PARTICLES", "PATH"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        run_here(arguments.run[0], int(arguments.run[1]), arguments.run[2])
    else:
        main(arguments.large)
