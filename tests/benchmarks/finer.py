"""What it buys boosted trees to see where within cells particles are densest, on a finer grid of them.

    kerasgal simulate FOLDER/train.h5 --galaxies --particles 128 --realisations 5 --seed 1
    kerasgal simulate FOLDER/test.h5 --galaxies --particles 128 --realisations 4 --seed 3001
    python tests/benchmarks/finer.py FOLDER

Cells are those of the demo of cascade. Trees are fitted to all boxes train_0, train_1, ... but the last, at which they
end. Each line has how many times finer the grid is, what it is smoothed by, in its own cells, and the squared error of
Eq. 2 in the test boxes, the mean and its error; then the mean difference to the trees that see the density alone.
"""

import sys
from pathlib import Path

import numpy as np

from kerasgal.apps.cascade import data, finer, trees
from kerasgal.apps.cascade.config import TrainConfig
from kerasgal.apps.cascade.evaluate import LOSS_CELLS
from kerasgal.config import preset
from kerasgal.simulation import Simulation
from kerasgal.trees import regressor

CONFIG = preset(TrainConfig, "demo")
GRIDS = (2, (0.5,)), (2, (0.5, 1, 2)), (4, (0.5,)), (4, (1,)), (4, (2,)), (finer.DIVISIONS, finer.WIDTHS)


def squared_errors(inside, apart, unseen):
    """Eq. 2 in boxes that trees are not fitted to; all lists of (density, counts, everywhere, channels)."""
    model = regressor(trees.TREES, stops=True, seed=CONFIG.seed, **trees.OPTIONS)
    fitted = trees.fitted(model, inside, apart, CONFIG.seed)
    return np.array([np.mean(np.square(fitted.predict(density, more) - counts, dtype=float)) * LOSS_CELLS
                     for density, counts, _, more in unseen])


def main(folder):
    paths = [sorted(folder.glob(f"{kind}_?.h5")) for kind in ("train", "test")]
    boxes = [(*data.load(path, CONFIG), path) for path in (*paths[0], *paths[1])]
    first = None
    for divisions, widths in (None, ()), *GRIDS:
        seen = []
        for density, counts, path in boxes:
            with Simulation(path) as box:
                more = finer.finer(box["final/position"][...], len(density), box.boxsize, divisions, widths) \
                    if widths else None
            seen.append((density, counts, np.ones(counts.shape, bool), more))
        number = len(paths[0])
        found = squared_errors(seen[:number - 1], seen[number - 1:number], seen[number:])
        first = found if first is None else first
        words = [f"{one.mean():.2f} +- {one.std(ddof=1) / len(one)**0.5:.2f}" for one in (found, found - first)]
        print(f"{divisions} times finer, smoothed by {widths}" if widths else "the density alone", *words, sep=": ",
              flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
