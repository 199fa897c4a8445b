"""A training step of protohalo's demo network, with freed memory kept for the next step and given back to the system.

    python tests/benchmarks/memory.py [--steps 8] [--rounds 3]

The two take turns, each time in a process of its own; what is printed is of one step, the median of the rounds. Nothing
is left to gain where TensorFlow keeps memory by itself: the bar is that keeping it takes no more than 1.05 of the time.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time

import numpy as np
from bars import verdict

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def used():
    """Wall seconds, user and system CPU seconds and page faults of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return np.array([time.monotonic(), usage.ru_utime, usage.ru_stime, usage.ru_minflt])


def one(steps, keep):
    """Print what a step takes, as JSON."""
    from kerasgal import quiet

    if keep:
        quiet.keep_memory()
    quiet.import_tensorflow(sparing=True)

    import kerasgal as kg
    from kerasgal.apps.protohalo.train import compiled

    config = kg.Protohalo.configure(preset="demo")
    network = compiled(config)
    rng = np.random.default_rng(0)
    batch = [rng.random((config.batch, *(config.patch,) * 3, 1), np.float32) for _ in range(2)]
    for _ in range(3):
        network.train_on_batch(*batch)
    before = used()
    for _ in range(steps):
        network.train_on_batch(*batch)
    print(json.dumps(((used() - before) / steps).tolist()))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--run", choices=["kept", "given"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        one(arguments.steps, arguments.run == "kept")
        return
    found = {"given": [], "kept": []}
    for _ in range(arguments.rounds):
        for name, rows in found.items():
            done = subprocess.run([sys.executable, __file__, "--run", name, "--steps", str(arguments.steps)],
                                  stdout=subprocess.PIPE, text=True, check=True)
            rows.append(json.loads(done.stdout.splitlines()[-1]))
    for name, rows in found.items():
        wall, user, system, faults = np.median(rows, axis=0)
        print(f"{name}: {wall:.2f} s a step; {user + system:.2f} CPU s, {system:.2f} of them in the system; "
              f"{faults:,.0f} page faults")
    ratios = [sum(kept[1:3]) / sum(given[1:3]) for given, kept in zip(found["given"], found["kept"])]
    verdict("CPU time of a step, freed memory kept / given back", statistics.median(ratios), 1.05)


if __name__ == "__main__":
    main()
