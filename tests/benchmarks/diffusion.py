"""Seams of draws that are put together from tiles, and the rate of drawing many at once.

    python tests/benchmarks/diffusion.py [RUN SIMULATION]

Without a trained run, with an untrained network of random weights, and a made-up density.
"""

import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np  # noqa: E402
from bars import verdict  # noqa: E402

STEPS, TILE = 20, 32


def made_up():
    from kerasgal.apps.cascade.diffusion.config import DiffusionConfig
    from kerasgal.apps.cascade.diffusion.run import Diffusion
    from kerasgal.config import preset

    run = Diffusion(preset(DiffusionConfig, "demo"))
    rng = np.random.default_rng(0)
    for variable in run.network.network.trainable_variables:
        variable.assign(variable + rng.normal(0, 0.02, variable.shape))
    return run, np.exp(rng.normal(size=(128, 128))).astype(np.float32)


def trained(folder, simulation):
    from kerasgal.apps.cascade.diffusion import data
    from kerasgal.apps.cascade.diffusion.run import Diffusion
    from kerasgal.simulation import opened

    run = Diffusion.load(folder)
    with opened(simulation, ()) as box:
        return run, data.given(box, run.config, axes=(2,))[0][..., 0]


def seams(run, density):
    """How many galaxies stand elsewhere when a draw is made in tiles, near the seams and in all, by border."""
    from kerasgal.apps.cascade.diffusion.sample import draw

    def drawn(tile, context):
        return draw(run.network, run.config, density, 4, steps=STEPS, sampler="deterministic", tile=tile,
                    context=context)

    whole = drawn(1024, 48)
    edge = np.arange(len(density)) % TILE
    near = np.minimum(edge, TILE - 1 - edge) < 2
    near = near[:, None] | near
    for context in (0, 8, 16, 24, 32, 48):
        moved = np.abs(drawn(TILE + 2 * context, context) - whole)
        inside, close = moved.sum() / whole.sum(), moved[:, near].sum() / whole[:, near].sum()
        print(f"border of {context:2d} cells: {inside:.2%} of the galaxies are not as in the whole map, within 2 cells "
              f"of a seam {close:.2%}")


def rate(run, density):
    from kerasgal.apps.cascade.diffusion.sample import draw

    def seconds(function):
        function()
        start = time.monotonic()
        function()
        return time.monotonic() - start

    together = seconds(lambda: draw(run.network, run.config, density, 8, steps=STEPS, sampler="deterministic"))
    single = seconds(lambda: [draw(run.network, run.config, density, 1, steps=STEPS, sampler="deterministic",
                                   seed=seed) for seed in range(8)])
    verdict("wall time of 8 draws in one call / in 8 calls", together / single, 1)


if __name__ == "__main__":
    subject = trained(*sys.argv[1:]) if len(sys.argv) == 3 else made_up()
    seams(*subject)
    rate(*subject)
