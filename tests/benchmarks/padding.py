"""What the zeros cost that cascade's phase 2 sees beyond the faces of the sub-cubes that it is trained on.

    python tests/benchmarks/padding.py cascade-demo demo-cascade/test_0.h5 demo-cascade/test_1.h5 ...

Boxes are predicted whole, wrapped at the faces, and in sub-cubes as in training, with zeros beyond their faces. Each
line is the squared error of phase 2 (Eq. 2) of both, the mean over the boxes, and what the zeros add to it with its
error from box to box: in all cells, then by how far a cell is from the nearest face of its sub-cube.
"""

import sys

import numpy as np

import kerasgal as kg
from kerasgal.apps.cascade import data, model, predict
from kerasgal.apps.cascade.evaluate import LOSS_CELLS
from kerasgal.apps.cascade.predict import CLASSIFY, REGRESS

DEPTHS = (0, 1), (1, 2), (2, 4), (4, 8), (8, None)  # cells between a cell and the nearest face


def depth(n, side):
    """Cells between each cell of a box and the nearest face of its sub-cube, (n, n, n)."""
    place = np.arange(n) % side
    along = np.minimum(place, side - 1 - place)
    return np.minimum.reduce(np.meshgrid(along, along, along, indexing="ij"))


def errors(run, path):
    """Squared errors of cells in the whole box and in sub-cubes, and the depth of cells; all of whole sub-cubes."""
    density, counts = data.load(path, run.config)
    side = run.config.focus or run.config.patch
    probability = predict.predict_field(run.networks[CLASSIFY], density, run.config)[..., 1]
    seen = predict.surroundings(model.surroundings(), density[..., None], run.config)
    found = []
    for tile in (None, side):
        field = predict.predict_field(run.networks[REGRESS], seen, run.config, tile=tile,
                                      context=0 if tile else None)[..., 0]
        field = np.where(probability > run.config.threshold, np.maximum(field, 0), 0)
        found.append(np.square(field - counts, dtype=float))
    inside = (slice(len(counts) // side * side),) * 3
    return found[0][inside], found[1][inside], depth(len(counts), side)[inside]


def main(name, paths):
    run = kg.load(name)
    if not run.config.surroundings or run.config.names or run.config.of_particles:
        sys.exit(f"{name}: this takes a run that is shown the `surroundings` of the density and nothing else")
    boxes = [errors(run, path) for path in paths]
    for low, high in [(0, None), *DEPTHS]:
        rows = []
        for whole, cubes, deep in boxes:
            chosen = (deep >= low) & (deep < (high or np.inf))
            rows.append([chosen.mean(), whole[chosen].mean() * LOSS_CELLS, cubes[chosen].mean() * LOSS_CELLS])
        share, whole, cubes = np.mean(rows, axis=0)
        added = np.diff(rows, axis=1)[:, 1]
        error = added.std(ddof=1) / len(added)**0.5 if len(added) > 1 else np.nan
        print(f"{low} to {high or 'all'} cells from a face, {share:5.1%} of all: {whole:.2f} in the whole box, "
              f"{cubes:.2f} in sub-cubes, {added.mean():+.2f} ± {error:.2f}")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2:])
