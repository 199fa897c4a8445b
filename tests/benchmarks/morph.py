"""Rate and memory of scoring images with morph, and of sampling.

    python tests/benchmarks/morph.py [IMAGES]

Scores so many images (2,000 if not given) with an untrained demo run: in batches, and one image per call. What of that
is their preparation stands beside.
"""

import itertools
import os
import resource
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np  # noqa: E402
from bars import verdict  # noqa: E402

EARLY = 400  # images, about, after which the peak of memory is read for the first time


def images(number):
    """Round galaxies in noise."""
    from kerasgal.readers.images import Image

    rng = np.random.default_rng(0)
    y, x = np.mgrid[:128, :128] - 63.5
    for index in range(number):
        galaxy = rng.uniform(200, 2000) * np.exp(-np.hypot(y, x) / rng.uniform(3, 8))
        yield Image(str(index), (galaxy + rng.normal(0, 5, galaxy.shape)).astype(np.float32))


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def preparing(number):
    from kerasgal.apps.morph import prepare
    from kerasgal.apps.morph.config import TrainConfig
    from kerasgal.config import preset

    config, given = preset(TrainConfig, "demo"), list(images(number))
    start = time.process_time()
    for image in given:
        prepare.prepare(image, config)
    print(f"preparing an image of 128^2 pixels: {1000 * (time.process_time() - start) / number:.2f} ms of CPU time")


def scoring(number):
    import kerasgal as kg
    from kerasgal.apps.morph import score

    run = kg.Morph(kg.Morph.configure(preset="demo"))
    rates, seen, early = {}, 0, (0, 0.0)
    for batch, count in ((1, 100), (score.BATCH, number)):
        stream = score.score(run, images(count + 2 * batch), batch)
        seen += sum(len(rows) for rows, _ in itertools.islice(stream, 2))  # compiled
        start = time.monotonic()
        for rows, _ in stream:
            seen += len(rows)
            if batch > 1 and early[0] < EARLY:
                early = seen, peak()
        rates[batch] = count / (time.monotonic() - start)
    print(f"peak memory after {early[0]} images {early[1]:.0f} MiB, after {seen} {peak():.0f} MiB")
    verdict(f"images per second in batches of {score.BATCH}, of that of one per call", rates[score.BATCH] / rates[1], 1,
            least=True)
    verdict(f"peak memory after {seen} images / after {early[0]}", peak() / early[1], 1.1)


def sampling(number=8):
    from kerasgal.apps.morph import sample, score
    from kerasgal.apps.morph.config import TrainConfig
    from kerasgal.config import preset

    config = preset(TrainConfig, "demo")
    network = score.build(config)
    start = time.monotonic()
    sample.sample(network, number, seed=0, likelihood=config.likelihood)
    incremental = time.monotonic() - start
    network.predict_on_batch(np.zeros((number, 32, 32, 1), np.float32))
    start = time.monotonic()
    for _ in range(10):
        network.predict_on_batch(np.zeros((number, 32, 32, 1), np.float32))
    naive = (time.monotonic() - start) / 10 * 32 * 32
    verdict(f"time of drawing {number} images of 32^2 / a pass of the network per pixel", incremental / naive, 1)


if __name__ == "__main__":
    preparing(1000)
    scoring(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
    sampling()
