"""Training from a scratch file: rate of steps beside that from memory, and memory of the process.

    python tests/benchmarks/disk.py [--full] [--steps 15]

The boxes are random numbers, a field and a target each: 20 of 64^3 cells, with --full 200 of 128^3, of which patches of
32^3 and 48^3 cells are cut for protohalo's demo network: with the demo's own 64^3 its steps alone take 2.9 GiB. Both
trainings take blocks of steps in turn in one process, so that both see the same machine; before each block the batches
that wait are drawn, so that those of a step from the disk were read after the system's memory of the file was emptied.
Memory is that of another process, which trains from the file alone. The scratch file lies in the current folder. The
goal: at least 0.95 of the rate, and at most 3 GiB.
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
WAITING = 5  # batches that are made ahead, at most
BLOCK = 5  # steps of one training that follow each other
MEMORY = {False: "10MB", True: "500MB"}  # that boxes may take


def volumes(boxes, n, store):
    """Fields and targets of boxes, made one after another."""
    rng = np.random.default_rng(0)
    return [store.keep([rng.random((n, n, n, 1), np.float32) for _ in range(2)]) for _ in range(boxes)]


def setting(arguments):
    """Config and network of protohalo, and the number of boxes and their cells."""
    from kerasgal import quiet

    quiet.keep_memory()
    quiet.import_tensorflow(sparing=True)

    import kerasgal as kg
    from kerasgal.apps.protohalo.train import compiled

    boxes, n = (200, 128) if arguments.full else (20, 64)
    config = kg.Protohalo.configure(preset="demo", patch=48 if arguments.full else 32)
    return config, compiled(config), boxes, n


def memory(arguments):
    """Print, as JSON, GiB of a process at most: training on two boxes in memory, then on all from the file."""
    from kerasgal.apps.protohalo.train import streams
    from kerasgal.scratch import Store

    config, network, boxes, n = setting(arguments)
    store = Store(MEMORY[arguments.full], "disk-run")  # its file has no name
    peaks = []
    with store.passing(boxes):
        for number, kept in ((2, Store()), (boxes, store)):
            stream = iter(streams(volumes(number, n, kept), [], config)[0](0))
            for _ in range(5):
                network.train_on_batch(*next(stream))
            peaks.append(peak())
    print(json.dumps(peaks))


def peak():
    """The most memory that the process has had, GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def rates(arguments):
    """Print, as JSON, milliseconds of batches and of steps, from memory, from the file and from the bare disk."""
    from kerasgal.apps.protohalo.train import streams
    from kerasgal.scratch import Store

    config, network, boxes, n = setting(arguments)
    store = Store(MEMORY[arguments.full], "disk-run")  # its file has no name
    with store.passing(boxes):
        made = [volumes(boxes, n, kept) for kept in (Store(), store)]
        data = [iter(streams(given, [], config)[0](0)) for given in made]
        batches = []
        for stream in data:
            next(stream)
            begun = time.monotonic()
            for _ in range(50):
                batch = next(stream)
            batches.append((time.monotonic() - begun) / 50)
        for _ in range(2):
            network.train_on_batch(*batch)
        steps = [[], [], []]
        for number in range(-(-arguments.steps // BLOCK)):
            for place in np.roll(range(3), number):  # each comes first, second and last as often
                steps[place] += block(network, data[min(place, 1)], store.file if place == 2 else None)
    wall, cpu = np.median(steps, axis=1).T
    print(json.dumps([batches, wall.tolist(), cpu.tolist()]))


def block(network, stream, file):
    """Wall and CPU seconds of steps that follow each other; a file that is given is read from the disk for each."""
    took = []
    for number in range(WAITING + BLOCK):
        if file is not None:  # nothing of it is left in the system's memory
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        begun, used = time.monotonic(), time.process_time()
        batch = next(stream)
        if number >= WAITING:
            network.train_on_batch(*batch)
            took.append((time.monotonic() - begun, time.process_time() - used))
    return took


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--part", choices=["memory", "rates"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        globals()[arguments.part](arguments)
        return
    found = {}
    for part in ("memory", "rates"):
        command = [sys.executable, __file__, "--part", part, "--steps", str(arguments.steps)]
        done = subprocess.run(command + ["--full"] * arguments.full, stdout=subprocess.PIPE, text=True, check=True)
        found[part] = json.loads(done.stdout.splitlines()[-1])
    boxes, n = (200, 128) if arguments.full else (20, 64)
    few, most = found["memory"]
    batches, wall, cpu = found["rates"]
    print(f"{boxes} boxes of {n}^3 cells, {boxes * n**3 * 8 / 2**30:.2f} GiB, {MEMORY[arguments.full]} of it in memory")
    print(f"memory of the process with two boxes: {few:.2f} GiB")
    verdict("memory of the process with all boxes", most, 3, "GiB")
    print(f"a batch alone: {1000 * batches[0]:.1f} ms from memory, {1000 * batches[1]:.1f} from the file")
    for place, name in ((1, "from the file"), (2, "from the disk, the system's memory of it emptied")):
        print(f"a step {name}: {1000 * wall[place]:.0f} ms, from memory {1000 * wall[0]:.0f} ms; CPU time "
              f"{cpu[0] / cpu[place]:.3f} of that")
        verdict(f"rate of steps {name}, to that from memory", wall[0] / wall[place], 0.95, least=True)


if __name__ == "__main__":
    main()
