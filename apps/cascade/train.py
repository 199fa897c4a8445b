"""Training in two phases, Sec. 3 of Yip et al. 2019: which cells hold galaxies, then how many those hold."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np

from kerasgal import config as configuration
from kerasgal import training
from kerasgal.apps.cascade import data, metrics, predict
from kerasgal.apps.cascade.config import APP
from kerasgal.apps.cascade.losses import WeightedCrossEntropy, WeightedSquaredError
from kerasgal.apps.cascade.predict import CLASSIFY, REGRESS
from kerasgal.errors import DataError
from kerasgal.files import replacing
from kerasgal.plotting import track


@dataclass
class Boxes:
    """Boxes that are trained or validated on."""

    density: list  # of (n, n, n)
    counts: list  # of (n, n, n)
    corners: list  # of flat indices of the lowest cells of sub-cubes


def load(simulations, validation, config):
    """The `Boxes` of training and of validation.

    A single simulation without another to validate on is split by volume, as the paper's. Raises DataError as
    `data.load` and `data.split_by_volume` do.
    """
    from kerasgal.pipeline import check_patch, tiles

    def read(paths, stride):
        fields = [data.load(path, config) for path in track(paths, "densities and galaxies")]
        for density, _ in fields:
            check_patch(len(density), config.patch)
        return Boxes([density for density, _ in fields], [counts for _, counts in fields],
                     [tiles(len(density), stride) for density, _ in fields])

    train = read(simulations, config.stride)
    if validation:
        return train, read(validation, config.patch)
    inside, held_out, _ = data.split_by_volume(len(train.density[0]), config.patch)
    return Boxes(train.density, train.counts, [inside]), Boxes(train.density, train.counts, [held_out])


def compiled(network, loss, config):
    """A network with its loss and Adam, whose learning rate is halved every few epochs."""
    import keras

    rate = keras.optimizers.schedules.ExponentialDecay(config.learning_rate, config.halving * config.steps_per_epoch,
                                                       0.5, staircase=True)
    network.compile(keras.optimizers.Adam(rate), loss=loss)
    return network


def train_phase(build, train, held_out, targets, config, folder, **options):
    """Train one network on sub-cubes of density and `targets`, (n, n, n, channel) of each box, training's first."""
    from kerasgal.pipeline import patches

    def volumes(boxes, targets):
        return [(density[..., None], target) for density, target in zip(boxes.density, targets)]

    inside, outside = targets
    return training.train(
        build,
        lambda first: patches(volumes(train, inside), train.corners, config.patch, config.batch, seed=config.seed,
                              first=first, symmetries=None if config.symmetries == "none" else config.symmetries),
        lambda devices: patches(volumes(held_out, outside), held_out.corners, config.patch, config.batch,
                                full=devices > 1),
        config, folder, app=APP, **options)


def train_run(simulations, validation, config, folder, phase="both", *, resume=False, overwrite=False,
              tensorboard=False, boxes=None):
    """Train one phase or both on Simulation files with galaxies, into the run folder `folder`.

    boxes: what `load` gives, where that is at hand already.
    """
    if config.strategy == "workers" and phase == "both":
        raise DataError("--strategy workers trains one phase at a time: give --phase classify, then --phase regress")
    train, held_out = boxes or load(simulations, validation, config)
    options = {"tensorboard": tensorboard, "overwrite": overwrite,
               "data": {"training": [str(Path(path).resolve()) for path in simulations],
                        "validation": [str(Path(path).resolve()) for path in validation]}}
    if phase != REGRESS:
        if overwrite:
            shutil.rmtree(folder / REGRESS, ignore_errors=True)  # it would belong to another phase 1
        click.echo("phase 1: which cells hold galaxies")
        train_phase(lambda: compiled(predict.build_classifier(config), WeightedCrossEntropy(config.w1), config),
                    train, held_out, [[counts[..., None] for counts in boxes.counts] for boxes in (train, held_out)],
                    config, folder / CLASSIFY, resume=resume, **options)
    if phase != CLASSIFY:
        click.echo("phase 2: how many galaxies there are")
        first, classifier = predict.load_classifier(folder)
        if first.cell != config.cell:
            raise DataError(f"{folder}: phase 1 was trained on cells of {first.cell:g} Mpc/h; phase 2 needs the same, "
                            f"received --cell {config.cell:g}")
        masked = [[np.stack([counts, occupied(classifier, density, config)], axis=-1)
                   for density, counts in zip(boxes.density, boxes.counts)] for boxes in (train, held_out)]
        train_phase(lambda: compiled(predict.build_regressor(config), WeightedSquaredError(config.w2), config),
                    train, held_out, masked, config, folder / REGRESS,
                    resume=resume and (folder / REGRESS / "config.json").exists(), **options)


def occupied(classifier, density, config):
    """The mask of cells that phase 1 calls occupied, (n, n, n) float32 of 0 and 1."""
    probability = predict.predict_field(classifier, density, config)[..., 1]
    return (probability > config.threshold).astype(np.float32)


def sweep(simulations, validation, config, folder, values, **options):
    """Train with every combination of weights `values`, {"w1": [...], "w2": [...]}, and keep the best.

    Each is a run in folder/sweep; best is the one with the least MSE_sub on the validation sub-cubes, which becomes
    the run in `folder`. sweep.json has them all. Returns that table, a list of dictionaries, the best first.
    """
    boxes = load(simulations, validation, config)
    table = []
    for w1 in values.get("w1", [config.w1]):
        shared = None  # phase 1 does not know w2
        for w2 in values.get("w2", [config.w2]):
            place = folder / "sweep" / f"w1={w1:g},w2={w2:g}"
            chosen = configuration.replace(config, {"w1": w1, "w2": w2}, origin="--sweep")
            if shared and not (place / CLASSIFY).exists():
                shutil.copytree(shared / CLASSIFY, place / CLASSIFY)
            click.echo(f"w1 = {w1:g}, w2 = {w2:g}")
            train_run(simulations, validation, chosen, place, REGRESS if shared else "both", boxes=boxes,
                      **options)
            shared = shared or place
            error = validation_error(predict.load_run(place), boxes[1])
            click.echo(f"  MSE_sub {error:.4g}")
            table.append({"w1": w1, "w2": w2, "mse_sub": error, "run": place.name})
    table.sort(key=lambda row: row["mse_sub"])
    for name in (CLASSIFY, REGRESS):
        with replacing(folder / name) as temporary:
            shutil.copytree(folder / "sweep" / table[0]["run"] / name, temporary)
    with replacing(folder / "sweep.json") as temporary:
        temporary.write_text(json.dumps(table, indent=2) + "\n")
    return table


def validation_error(run, boxes):
    """MSE_sub of a run on the sub-cubes of validation."""
    side, squares = run.config.patch, []
    for density, counts, corners in zip(boxes.density, boxes.counts, boxes.corners):
        predicted = predict.predict_field(run.network(), density, run.config)[..., 1]
        index = np.unravel_index(corners, density.shape)
        inside = np.all([axis + side <= len(density) for axis in index], axis=0)
        cube = tuple(axis[inside] // side for axis in index)
        error = metrics.sums_in_cubes(predicted, side) - metrics.sums_in_cubes(counts, side)
        squares.append(error[cube]**2)
    return float(np.mean(np.concatenate(squares)))


def parse_sweep(texts):
    """{"w1": [...], "w2": [...]} of texts like "w1=300,500"; raises UsageError for anything else."""
    values = {}
    for text in texts:
        name, _, numbers = text.partition("=")
        try:
            values[name] = [float(number) for number in numbers.split(",")]
        except ValueError:
            values[name] = []
        if name not in ("w1", "w2") or not values[name] or any(not number >= 0 for number in values[name]):
            raise click.UsageError(f"--sweep {text!r}: accepted are w1=... and w2=... with numbers separated by "
                                   "commas, e.g. --sweep w1=100,500")
    return values
