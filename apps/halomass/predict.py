"""A trained run applied to particles of a simulation: predicted halo masses."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kerasgal.apps.halomass import data
from kerasgal.apps.halomass.config import APP, TrainConfig
from kerasgal.apps.halomass.losses import LIKELIHOODS
from kerasgal.apps.halomass.model import cnn
from kerasgal.apps.halomass.regularizers import convolution_prior, dense_prior
from kerasgal.errors import DataError
from kerasgal.training import load_config, load_weights

COMPRESSED = "compressed.json"  # in a run folder: what is left of the dense layers


@dataclass
class Run:
    """A trained run: its configuration, the network with its best weights, and the map to log mass."""

    config: TrainConfig
    model: object
    scale: data.Scale


def build(config, kept=None, dense=None):
    """The network of a configuration, not compiled; `kept` and `dense` are those of a compressed one."""
    law = LIKELIHOODS[config.likelihood]
    return cnn(data.cube_side(config), data.CHANNELS[config.input], convolutions=config.convolutions,
               filters=config.filters, dense=dense or (config.dense, config.dense // 2), padding=config.padding,
               shells=config.shells if config.input == "averaged" else None, kept=kept, initial=law.initial,
               least=law.least, rate=config.scale_rate, convolution_prior=convolution_prior(config.alpha),
               dense_prior=dense_prior(config.alpha))


def load_run(folder, precision="float32"):
    """A `Run` from its folder, for prediction in the given arithmetic.

    Raises DataError if the folder is none or has no weights, and for float16 without a GPU.
    """
    import keras

    config = load_config(folder, TrainConfig, APP)
    path = Path(folder) / COMPRESSED
    left = json.loads(path.read_text()) if path.exists() else {}
    before = keras.config.dtype_policy()
    if precision == "mixed_float16" and not has_gpu():
        raise DataError("--precision mixed_float16 needs a GPU, and this machine has none: use mixed_bfloat16")
    keras.config.set_dtype_policy(precision)
    try:
        model = load_weights(build(config, **left), folder)
    finally:
        keras.config.set_dtype_policy(before)
    return Run(config, model, data.Scale(config.low, config.high))


def has_gpu():
    """Whether TensorFlow sees a GPU."""
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


def scales_of(model):
    """The likelihood's scales that a network has learnt: a number, or an array where there are several."""
    layer = model.get_layer("scales")
    scales = np.exp(layer.rate * np.asarray(layer.log_scales, np.float64)) + layer.least
    return float(scales[0]) if len(scales) == 1 else scales


def predict_particles(run, simulation, particles, progress=None):
    """Halo masses of particles, flat indices (m,), of the Simulation file `simulation`.

    Returns a dictionary: `particle` as given; `log_mass_true`, NaN outside haloes, and `log_mass`, predicted, (m,) in
    log10 Msun/h; `y`, the rescaled prediction, (m,); `gamma`, the likelihood's scale (an array where it has two).
    progress: called as progress(done, total) in particles. Raises DataError as `data.load` does.
    """
    particles = np.asarray(particles, np.int64)
    sample = data.load(simulation, run.config, particles)
    parts, done = [], 0
    for (inputs,) in data.batches([sample], run.config, targets=False):
        parts.append(np.asarray(run.model.predict_on_batch(inputs))[:, 0])
        done += len(inputs)
        if progress:
            progress(done, len(particles))
    y = np.concatenate(parts).astype(np.float64)
    return {"particle": particles, "log_mass_true": sample.log_mass, "log_mass": run.scale.to_log_mass(y), "y": y,
            "gamma": scales_of(run.model)}
