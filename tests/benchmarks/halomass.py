"""Rates of halomass: its cubes against a memory copy and a training step, the whole box against cube by cube.

    python tests/benchmarks/halomass.py [--paper]

CPU seconds of all threads, and for the pipeline wall time too. --paper predicts 128^3 cells with the paper's network,
in some minutes.
"""

import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np  # noqa: E402
from bars import verdict  # noqa: E402


def seconds(work):
    """Wall and CPU seconds of a function without arguments."""
    wall, cpu = time.monotonic(), time.process_time()
    work()
    return np.array([time.monotonic() - wall, time.process_time() - cpu])


def cubes_against_copy(n=256, side=75, batch=64, rounds=12):
    from kerasgal.pipeline import centred, patches

    rng = np.random.default_rng(0)
    volume = rng.normal(size=(n, n, n, 1)).astype(np.float32)
    corners = centred(rng.integers(0, n**3, 5000), n, side)
    targets = rng.normal(size=(5000, 1))
    source = rng.normal(size=(batch, side, side, side, 1)).astype(np.float32)
    target = np.empty_like(source)
    np.copyto(target, source)
    copies = {"memory that is there": lambda: np.copyto(target, source), "new memory": source.copy}
    plain = {name: seconds(lambda copy=copy: [copy() for _ in range(rounds)]) for name, copy in copies.items()}
    # Made after the copies were timed: it makes batches ahead, in threads of its own.
    stream = iter(patches([(volume,)], [corners], side, batch, targets=[targets], seed=0))
    for _ in range(5):  # what was prefetched
        next(stream)

    def consume():
        for _ in range(rounds):
            next(stream)

    ours = seconds(consume)
    for name, (wall, cpu) in plain.items():
        print(f"cubes of {side}^3 from {n}^3, with targets: {wall / ours[0]:.2f} of the rate of a memory copy into "
              f"{name} in wall time, {cpu / ours[1]:.2f} in CPU time")


def training_waits(kind, steps=20):
    from kerasgal.apps.halomass import data, predict
    from kerasgal.apps.halomass.config import TrainConfig
    from kerasgal.apps.halomass.losses import SelectionLikelihood
    from kerasgal.config import preset, replace

    config = replace(preset(TrainConfig, "demo"), {"input": kind}, origin="benchmark")
    rng, n, m = np.random.default_rng(0), 64, 5000
    particles, log_mass = rng.integers(0, n**3, m), rng.uniform(config.low, config.high, m)
    if kind == "raw":
        sample = data.Sample(particles, log_mass, particles, rng.normal(size=(n, n, n, 1)).astype(np.float32))
    else:
        position = rng.uniform(0, 50, (n**3, 3)).astype(np.float32)
        sample = data.Sample(particles, log_mass, position[particles], (position, 50.0))
    stream = iter(data.batches([sample], config, seed=0))
    model = predict.build(config)
    model.compile("adam", SelectionLikelihood())
    batch = next(stream)
    for _ in range(3):
        model.train_on_batch(*batch)
    same = streamed = 0.0
    for _ in range(steps):
        same = same + seconds(lambda: model.train_on_batch(*batch))
        streamed = streamed + seconds(lambda: model.train_on_batch(*next(stream)))
    print(f"{kind}: training step with the pipeline / with one batch kept in memory: {streamed[0] / same[0]:.2f} in "
          f"wall time; {same[1] / steps / config.batch * 1e3:.1f} CPU ms per sample")


def box_against_cubes(patch, convolutions, filters, dense, cubes, n=128):
    import keras

    from kerasgal.apps.halomass.dense import predict_cells
    from kerasgal.apps.halomass.model import cnn, unpadded_side
    from kerasgal.grid import wrapped_block

    keras.utils.set_random_seed(0)
    shape = {"convolutions": convolutions, "filters": filters, "dense": dense}
    side = unpadded_side(patch, convolutions)
    model, padded = cnn(side, padding="none", **shape), cnn(patch, **shape)
    field = np.random.default_rng(0).normal(size=(n, n, n, 1)).astype(np.float32)
    cells = np.random.default_rng(1).integers(0, n, size=(cubes, 3))
    found = {}

    def whole():
        found["box"] = predict_cells(model, field)

    def one_by_one():
        found["cubes"] = [model.predict_on_batch(wrapped_block(field, cell - side // 2, (side,) * 3)[None])[0, 0]
                          for cell in cells]

    def zero_padded():
        for cell in cells:
            padded.predict_on_batch(wrapped_block(field, cell - patch // 2, (patch,) * 3)[None])

    model.predict_on_batch(np.zeros((1, side, side, side, 1), np.float32))
    padded.predict_on_batch(np.zeros((1, patch, patch, patch, 1), np.float32))
    box, single, zero = seconds(whole)[1] / n**3, seconds(one_by_one)[1] / cubes, seconds(zero_padded)[1] / cubes
    difference = np.abs(found["box"][tuple(cells.T)] - found["cubes"]).max() / found["box"].std()
    print(f"network of {filters} filters and {convolutions} convolutions: {1 / box:,.0f} cells per CPU second of {n}^3"
          f" at once, {zero / box:,.0f} times the rate of zero-padded cubes of {patch}^3 singly")
    verdict("greatest difference of the box to its own cubes, of the standard deviation", difference, 1e-4)
    verdict(f"cells per CPU second of {n}^3 at once, of the rate of its cubes of {side}^3 singly", single / box, 1,
            least=True)


if __name__ == "__main__":
    if "--paper" in sys.argv:
        box_against_cubes(75, 6, 32, (256, 128), cubes=4)
    else:
        cubes_against_copy()
        training_waits("raw")
        training_waits("final")
        box_against_cubes(21, 4, 8, (64, 32), cubes=100)
