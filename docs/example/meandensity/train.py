"""Training of meandensity, and a trained run."""

from pathlib import Path

from kerasgal import training
from kerasgal.apps.meandensity import data
from kerasgal.apps.meandensity.config import APP, TrainConfig
from kerasgal.apps.meandensity.model import cnn


def build(config):
    """The compiled network of a configuration."""
    import keras

    model = cnn(config.filters)
    model.compile(keras.optimizers.Adam(config.learning_rate), loss="mse")
    return model


def samples(paths, config, **options):
    """Cubes and targets of Simulation files as a tf.data.Dataset; `options`: those of `kerasgal.pipeline.patches`."""
    from kerasgal.pipeline import patches, tiles

    loaded = [data.load(path, config.patch) for path in paths]
    corners = [tiles(len(delta), 1) for delta, _ in loaded]  # a cube begins at every cell
    return patches([(delta,) for delta, _ in loaded], corners, config.patch, config.batch,
                   targets=[target for _, target in loaded], **options)


def train_run(simulations, validation, config, folder, **options):
    """Train on Simulation files; `options` are resume, overwrite and tensorboard of `kerasgal.training.train`."""
    seen = {"training": [str(Path(path).resolve()) for path in simulations],
            "validation": [str(Path(path).resolve()) for path in validation]}
    return training.train(
        lambda: build(config),
        lambda first: samples(simulations, config, seed=config.seed, first=first, symmetries="reflections"),
        (lambda devices: samples(validation, config, full=devices > 1)) if validation else None,
        config, folder, app=APP, data=seen, **options)


def load_run(folder):
    """Configuration and network, with its best weights, of a run folder."""
    config = training.load_config(folder, TrainConfig, APP)
    return config, training.load_weights(build(config), folder)
