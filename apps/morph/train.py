"""Training PixelCNN++ on real galaxies and on their archetypes, Sec. 3.2 of Zanisi et al. 2020."""

from pathlib import Path

import click
import numpy as np

from kerasgal import training
from kerasgal.apps.morph import prepare
from kerasgal.apps.morph.config import APP
from kerasgal.apps.morph.losses import LogisticMixture
from kerasgal.apps.morph.model import initialise
from kerasgal.apps.morph.score import build
from kerasgal.errors import DataError
from kerasgal.plotting import track
from kerasgal.readers import images as readers

HELD_OUT = 10  # every tenth image validates
TURNS = 16  # angles, evenly spaced, at which an image is seen


def load(paths, config, masks=None):
    """All images of files, folders or globs, without sky and bad pixels: a list of (y, x) arrays of counts.

    Says which cannot be read or prepared; raises DataError where too few are left.
    """
    cleaned = []
    for image in readers.stream(paths, masks=masks):
        try:
            cleaned.append(prepare.clean(image, config))
        except DataError as error:
            click.echo(f"left out: {error}", err=True)
    if len(cleaned) < 2 * HELD_OUT:
        raise DataError(f"{len(cleaned)} images are too few to train on: at least {2 * HELD_OUT} are needed")
    return cleaned


def turned(images, config):
    """Images, (y, x) counts, prepared at several angles, evenly spaced: (n * TURNS, size, size, 1), or (n, ...)."""
    # Prepared once: an angle of its own for every sample would need Python in every step of the stream.
    angles = 360 / TURNS * np.arange(TURNS) if config.rotate else [0.0]
    return np.stack([prepare.stamp(image, config, angle) for image in track(images, "turning") for angle in angles])


def train_network(paths, config, folder, *, masks=None, **options):
    """Train one network on the images at `paths` into the run folder `folder`; every tenth image validates."""
    import keras

    from kerasgal.pipeline import rows

    images = load(paths, config, masks)
    held_out = np.stack([prepare.stamp(image, config) for image in images[::HELD_OUT]])
    inside = [image for number, image in enumerate(images) if number % HELD_OUT]
    click.echo(f"{len(inside):,} training images, {len(held_out):,} validation images")
    stamps = turned(inside, config)
    first = stamps[np.random.default_rng(config.seed).permutation(len(stamps))[:config.batch]]

    def compiled():
        model = build(config)
        initialise(model, first)
        rate = keras.optimizers.schedules.ExponentialDecay(config.learning_rate, 1, config.step_decay)
        model.compile(keras.optimizers.Adam(rate, use_ema=config.averaging > 0, ema_momentum=config.averaging),
                      loss=LogisticMixture(config.bits))
        return model

    def twice(dataset):
        """The images as inputs and as targets."""
        return dataset.map(lambda image: (image, image))

    return training.train(
        compiled, lambda first: twice(rows([stamps], config.batch, seed=config.seed, first=first)),
        lambda devices: twice(rows([held_out], config.batch, full=devices > 1)),
        config, folder, app=APP, data={"training": [str(Path(path).resolve()) for path in paths], "validation": []},
        **options)
