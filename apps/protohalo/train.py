"""Training the U-Net and calibrating the watershed, Secs. 3 and 4 of Bernardini et al. 2020."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from kerasgal import training
from kerasgal.apps.protohalo import data, predict, watershed
from kerasgal.apps.protohalo.config import APP
from kerasgal.apps.protohalo.losses import NormalisedDistance
from kerasgal.errors import DataError
from kerasgal.files import replacing
from kerasgal.plotting import track
from kerasgal.simulation import Simulation


def build(config):
    """The U-Net, compiled with the paper's loss and Adam."""
    import keras

    model = predict.build(config)
    rate = config.learning_rate
    if config.decay == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(rate, config.epochs * config.steps_per_epoch)
    power = {"l1": 1, "l2": 2}[config.loss]
    model.compile(optimizer=keras.optimizers.Adam(rate, global_clipnorm=config.gradient_norm or None),
                  loss=NormalisedDistance(config.margin, power))
    return model


def load(paths, config):
    """Input and target of Simulation files, checked against the patch size."""
    from kerasgal.pipeline import check_patch

    volumes = []
    for path in track(paths, "distance maps"):
        volumes.append(data.load(path, config.minimum))
        check_patch(volumes[-1][0].shape[0], config.patch)
    return volumes


def datasets(simulations, validation, config):
    """Functions that make the training stream, from the samples already seen, and the validation data set, or None."""
    from kerasgal.pipeline import patches, tiles

    volumes, held_out = load(simulations, config), load(validation, config)
    symmetries = None if config.symmetries == "none" else config.symmetries
    corners = [tiles(arrays[0].shape[0], config.stride) for arrays in volumes]

    def stream(first):
        return patches(volumes, corners, config.patch, config.batch, seed=config.seed, first=first,
                       symmetries=symmetries)

    def held_out_patches(devices):
        # Tiles that overlap by two margins, so that the loss sees every cell of the box.
        places = [tiles(arrays[0].shape[0], config.patch - 2 * config.margin) for arrays in held_out]
        batch = min(config.batch, sum(map(len, places)) // devices * devices)
        if batch == 0:
            raise DataError(f"the validation data have fewer patches than there are devices ({devices}): give more")
        return patches(held_out, places, config.patch, batch, full=devices > 1)

    return stream, held_out_patches if validation else None


def train_run(simulations, validation, config, folder, **options):
    """Train on Simulation files and calibrate the watershed on them; returns the network.

    Of several workers only the first calibrates, and the others return None.

    `options` are resume, overwrite and tensorboard of `kerasgal.training.train`.
    """
    stream, held_out = datasets(simulations, validation, config)
    seen = {"training": [str(Path(path).resolve()) for path in simulations],
            "validation": [str(Path(path).resolve()) for path in validation]}
    model = training.train(lambda: build(config), stream, held_out, config, folder, app=APP, data=seen, **options)
    if model is not None:
        line = calibrate(model, config, simulations)
        with replacing(folder / "calibration.json") as temporary:
            temporary.write_text(json.dumps(asdict(line), indent=2) + "\n")
    return model


def calibrate(model, config, simulations):
    """The line of the adaptive cut, from the predicted maps of the training simulations and their true haloes."""
    found, sizes = [], []
    for path in track(simulations, "calibration of the watershed"):
        with Simulation(path, require=("initial/delta", "halo_id", "halos/count")) as simulation:
            distance = predict.predict_distance(model, config, data.normalise(simulation.delta()))
            true = data.true_cells(simulation)
        found.append(predict.find_trajectories(distance, config))
        sizes.extend(true[true >= config.minimum])
    return watershed.calibrate(found, np.array(sizes), config.minimum, config.calibration)
