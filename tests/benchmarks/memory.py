"""A training step of protohalo's demo network, with freed memory kept for the next step and given back to the system.

    python tests/benchmarks/memory.py [--steps 8]

Each runs in a process of its own; wall and system time and page faults are those of one step.
"""

import argparse
import json
import os
import resource
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
    parser.add_argument("--run", choices=["kept", "given"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        one(arguments.steps, arguments.run == "kept")
        return
    found = {}
    for name in ("given", "kept"):
        done = subprocess.run([sys.executable, __file__, "--run", name, "--steps", str(arguments.steps)],
                              capture_output=True, text=True, check=True)
        found[name] = json.loads(done.stdout.splitlines()[-1])
        wall, user, system, faults = found[name]
        print(f"{name}: {wall:.2f} s a step; {user:.2f} CPU s, {system:.2f} in the system; {faults:,.0f} page faults")
    verdict("CPU time of a step, freed memory kept / given back",
            sum(found["kept"][1:3]) / sum(found["given"][1:3]), 1)


if __name__ == "__main__":
    main()
