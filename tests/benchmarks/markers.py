"""What smoothing, floor and joining of the watershed are worth.

The line of the adaptive cut is fitted in one half of the boxes, and haloes are counted in the other, both ways.

    python tests/benchmarks/markers.py RUN box_0.h5 box_1.h5 ...
    python tests/benchmarks/markers.py perfect box_0.h5 box_1.h5 ...

with boxes that neither a training nor a test uses. `perfect` takes the true maps in place of predicted ones, under the
preset `demo`: what the watershed loses by itself.
"""

import sys
from dataclasses import replace

import numpy as np

import kerasgal as kg
from kerasgal.apps.protohalo import data, metrics, predict, watershed
from kerasgal.apps.protohalo.config import TrainConfig
from kerasgal.config import preset
from kerasgal.halos import renumbered

SETTINGS = [{"smoothing": smoothing, "floor": floor, "depth": depth, "dynamics": dynamics}
            for smoothing, floor, depth, dynamics in (
    (0.5, 0.02, 2.5, 0.0),  # the demo's
    (0.5, 0.02, 0.0, 0.0), (0.5, 0.02, 1.5, 0.0), (0.5, 0.02, 2.0, 0.0), (0.5, 0.02, 3.0, 0.0), (0.0, 0.02, 2.5, 0.0),
    (0.75, 0.02, 2.5, 0.0), (1.0, 0.02, 2.5, 0.0), (0.5, 0.0, 2.5, 0.0), (0.5, 0.05, 2.5, 0.0), (1.0, 0.0, 2.5, 0.0),
    (1.0, 0.02, 2.0, 0.0), (1.0, 0.02, 2.25, 0.0),  # the latter is that of the longer network
    (0.5, 0.02, 2.5, 0.15), (0.75, 0.02, 2.5, 0.1), (0.75, 0.02, 2.5, 0.15), (0.75, 0.02, 0.0, 0.2),
    (0.75, 0.02, 0.0, 0.3), (0.75, 0.02, 0.0, 0.5), (0.0, 0.0, 0.0, 0.5))]
BINS = 200 * 1.4**np.arange(14)  # cells


def opened(run, minimum, path):
    """The map of a box, predicted or without a run the true one, the true label volume, and the cells of its haloes."""
    with kg.open(path) as box:
        size = data.true_cells(box)
        large = np.flatnonzero(size >= minimum)
        halo_id = renumbered(data.lagrangian_halo_id(box, minimum), large)
        return run.predict(box).distance if run else data.distance_map(halo_id), halo_id, size[large]


def judged(config, boxes):
    """Haloes over true ones, summed residual, mean one, Dice, and the share of the true haloes that are found."""
    paths = [predict.find_trajectories(distance, config) for distance, _, _ in boxes]
    sizes, members, pairs = [], np.zeros(3, int), 0
    for half in (0, 1):
        fitted = range(1 - half, len(boxes), 2)
        line = watershed.calibrate([paths[number] for number in fitted],
                                   np.concatenate([boxes[number][2] for number in fitted]), config.minimum,
                                   config.calibration)
        for number in range(half, len(boxes), 2):
            _, true, true_size = boxes[number]
            found = watershed.label_haloes(paths[number], watershed.cut_sizes(paths[number], line), true.shape,
                                           config.minimum)
            sizes.append(np.bincount(found[found >= 0]))
            members += metrics.membership(true, found)
            pairs += len(metrics.match(true, found, len(true_size), len(sizes[-1])).pairs)
    true_size = np.concatenate([size for _, _, size in boxes])
    residual = metrics.mass_function_residual(true_size, np.concatenate(sizes), BINS)
    return (residual["total"], residual["summed_residual"], residual["mean_absolute_residual"], metrics.dice(members),
            pairs / len(true_size))


def main(folder, *paths):
    run = None if folder == "perfect" else kg.load(folder)
    config = run.config if run else preset(TrainConfig, "demo")
    boxes = [opened(run, config.minimum, path) for path in paths]
    print(f"{'smoothing':>10s}{'floor':>8s}{'depth':>8s}{'dynamics':>10s}{'haloes':>9s}{'summed':>9s}{'per bin':>9s}"
          f"{'Dice':>8s}{'one to one':>12s}")
    for settings in SETTINGS:
        total, summed, mean, dice, found = judged(replace(config, **settings), boxes)
        print(f"{settings['smoothing']:10.2f}{settings['floor']:8.2f}{settings['depth']:8.2f}"
              f"{settings['dynamics']:10.2f}{100 * (total - 1):+8.1f}%{summed:9.1%}{mean:9.1%}"
              f"{dice:8.3f}{found:12.1%}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
