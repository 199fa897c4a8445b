"""The patch pipeline against a plain memory copy of the same bytes, and against a training step; and its memory.

    python tests/benchmarks/pipeline.py

Memory is measured for several patches, each in a process of its own.
"""

import os
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np  # noqa: E402
from bars import verdict  # noqa: E402

PATCHES = 16, 75, 128  # cells a side: small, the paper's, the whole box
MEMORY, RATE = 1.3, 0.4  # the bars: of the fields' bytes, of the rate of a copy


def rate(iterator, count):
    """Elements per second of wall time, and of CPU time, after a warm-up."""
    for _ in range(max(2, count // 10)):
        next(iterator)
    start, used = time.monotonic(), time.process_time()
    for _ in range(count):
        next(iterator)
    return count / (time.monotonic() - start), count / (time.process_time() - used)


def copies(volume, patch, batch):
    """Endless batches of plain copies of as many bytes as the patches have."""
    sources = [np.ascontiguousarray(volume[corner:corner + patch, :patch, :patch]) for corner in range(batch)]
    while True:
        yield np.stack(sources)


def against_copy(n=256, patch=75, batch=64, count=12):
    from kerasgal.pipeline import patches, tiles

    volume = np.random.default_rng(0).normal(size=(n, n, n, 1)).astype(np.float32)
    copy, by_cpu = rate(copies(volume, patch, batch), count)
    for symmetries in (None, "rotations"):
        stream = patches([(volume,)], [tiles(n, 3)], patch, batch, seed=0, symmetries=symmetries)
        ours, own_cpu = rate(iter(stream), count)
        print(f"patches of {patch}^3, symmetries {symmetries}, per CPU s: {own_cpu / by_cpu:.2f} of a copy's rate")
        verdict(f"rate of patches of {patch}^3 from {n}^3, symmetries {symmetries}, of that of a memory copy",
                ours / copy, RATE, least=True)


def resident():
    """Bytes of the process in memory now."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def memory(patch, n=128, batch=1, boxes=8):
    """What a stream of patches adds to the process beside the fields, over the fields' bytes."""
    from kerasgal.pipeline import patches, tiles

    rng = np.random.default_rng(0)
    volumes = [(rng.random((n, n, n, 1), np.float32), rng.random((n, n, n, 1), np.float32)) for _ in range(boxes)]
    data = sum(array.nbytes for arrays in volumes for array in arrays)
    next(iter(patches(volumes[:1], [tiles(n, n)], 16, 1)))  # TensorFlow itself
    before = resident()
    stream = iter(patches(volumes, [tiles(n, 3)] * boxes, patch, batch, seed=0, symmetries="rotations"))
    for _ in range(20):
        next(stream)
    times = 1 + (resident() - before) / data
    verdict(f"memory with patches of {patch}^3 from {boxes} boxes of {n}^3, of that of the fields", times, MEMORY)


def against_training(steps=10):
    from kerasgal.apps.protohalo.config import TrainConfig
    from kerasgal.apps.protohalo.train import compiled
    from kerasgal.config import preset
    from kerasgal.pipeline import patches, tiles

    config = preset(TrainConfig, "demo")
    rng = np.random.default_rng(0)
    volumes = [tuple(rng.uniform(size=(64, 64, 64, 1)).astype(np.float32) for _ in range(2)) for _ in range(12)]
    corners = [tiles(64, config.stride)] * 12
    stream = iter(patches(volumes, corners, config.patch, config.batch, seed=0, symmetries=config.symmetries))
    model = compiled(config)
    batch = next(stream)
    for _ in range(3):
        model.train_on_batch(*batch)
    same = with_stream = 0.0
    for _ in range(steps):  # in turn, so that both see the same machine
        start = time.monotonic()
        model.train_on_batch(*batch)
        middle = time.monotonic()
        model.train_on_batch(*next(stream))
        same, with_stream = same + middle - start, with_stream + time.monotonic() - middle
    print(f"training step with the pipeline / with one batch kept in memory: {with_stream / same:.3f}")
    print(f"batches alone: {rate(stream, 100)[0] * same / steps:.0f} per training step")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--memory"]:
        memory(int(sys.argv[2]))
        sys.exit()
    for side in PATCHES:
        subprocess.run([sys.executable, __file__, "--memory", str(side)], check=True)
    against_copy()
    against_training()
