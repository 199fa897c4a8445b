"""Likelihoods of images under both networks and their ratio (Zanisi et al. 2020, Sec. 3.3)."""

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from skimage.measure import label

from kerasgal.apps.morph import prepare
from kerasgal.apps.morph.config import APP, TrainConfig
from kerasgal.apps.morph.losses import PixelLikelihood, log_prob
from kerasgal.apps.morph.model import pixelcnn
from kerasgal.errors import DataError
from kerasgal.training import load_config, load_weights

REAL, ARCHETYPE = "real", "archetype"  # the run folders of the two networks, inside that of the app
PREPARATION = ("sky", "softening", "crop", "size", "bits")  # what both networks must have in common
BATCH = 64
DETECTION = 3.0  # standard deviations above the sky from which a pixel is the galaxy's
NUMBERS = ("log_p_real", "log_p_archetype", "llr", "galaxy_pixels", "log_p_real_galaxy", "log_p_archetype_galaxy",
           "llr_galaxy")
COLUMNS = ("id", *NUMBERS, "error")


@dataclass
class Run:
    """A trained run: the configuration of its preparation, and the two networks with their best weights."""

    config: TrainConfig
    real: object
    archetype: object


def build(config):
    """The network of a configuration, not compiled."""
    return pixelcnn((config.size, config.size, 1), blocks=config.blocks, filters=config.filters,
                    mixtures=config.mixtures, dropout=config.dropout)


def load_network(folder, name):
    """Configuration and network `name`, real or archetype, of a run folder; raises DataError if it has none."""
    folder = Path(folder) / name
    if not (folder / "config.json").exists():
        raise DataError(f"{folder.parent} has no network trained on {name} images: train it with `kerasgal morph train "
                        f"--on {name}`")
    config = load_config(folder, TrainConfig, APP)
    network = load_weights(build(config), folder)
    network.name = name  # two networks in one model need two names
    return config, network


def load_run(folder):
    """A `Run` from its folder; raises DataError if one of the networks is missing, or they see images differently."""
    config, real = load_network(folder, REAL)
    other, archetype = load_network(folder, ARCHETYPE)
    differ = [name for name in PREPARATION if getattr(config, name) != getattr(other, name)]
    if differ:
        raise DataError(f"{folder}: the two networks were trained with another {', '.join(differ)}; their likelihoods "
                        "cannot be compared")
    return Run(config, real, archetype)


def likelihood_maps(run, images):
    """ln p of every pixel given those before it, under both networks: two arrays (batch, y, x).

    images: (batch, y, x, 1) prepared. A density per unit of stretched flux, or with --bits a probability.
    """
    return tuple(np.asarray(log_prob(images, network.predict_on_batch(images), run.config.bits))
                 for network in (run.real, run.archetype))


def pair(run):
    """Both networks as one: prepared images to ln p of each pixel under both, (batch, y, x, 2)."""
    import keras
    from keras import ops

    inputs = keras.Input((run.config.size, run.config.size, 1), name="image")
    maps = [PixelLikelihood(run.config.bits, name=f"log_p_{network.name}")(inputs, network(inputs))
            for network in (run.real, run.archetype)]
    return keras.Model(inputs, ops.stack(maps, axis=-1), name="morph")


def border_sky(image, width=1):
    """Median of the pixels at the border of an image, (y, x), and their standard deviation by the median deviation."""
    inside = np.zeros(image.shape, bool)
    inside[width:-width, width:-width] = True
    border = image[~inside]
    sky = np.median(border)
    return sky, 1.4826 * np.median(np.abs(border - sky))


def galaxy_pixels(image):
    """The pixels of a prepared image, (y, x), that belong to its central galaxy: boolean, (y, x).

    Those that stand out of the sky, as the border shows it, in one piece with the brightest of the central pixels.
    """
    sky, noise = border_sky(image)
    bright = image > sky + DETECTION * max(noise, 1e-6)
    y, x = (side // 4 for side in image.shape)
    middle = np.where(bright, image, -np.inf)[y:-y, x:-x]
    if not np.isfinite(middle).any():
        return np.zeros_like(bright)
    top = np.unravel_index(np.argmax(middle), middle.shape)
    pieces = label(bright)
    return pieces == pieces[top[0] + y, top[1] + x]


def score_batch(run, images):
    """The numbers of the table for prepared images, (batch, y, x, 1): a dictionary of arrays (batch,), and the maps."""
    real, archetype = likelihood_maps(run, images)
    galaxy = np.stack([galaxy_pixels(image[..., 0]) for image in images])
    sums = {"log_p_real": real.sum(axis=(1, 2), dtype=float),
            "log_p_archetype": archetype.sum(axis=(1, 2), dtype=float),
            "galaxy_pixels": galaxy.sum(axis=(1, 2)),
            "log_p_real_galaxy": np.where(galaxy, real, 0).sum(axis=(1, 2), dtype=float),
            "log_p_archetype_galaxy": np.where(galaxy, archetype, 0).sum(axis=(1, 2), dtype=float)}
    for part in ("", "_galaxy"):
        sums[f"llr{part}"] = sums[f"log_p_real{part}"] - sums[f"log_p_archetype{part}"]
    return sums, (real, archetype)


def score(run, images, batch=None):
    """Score a stream of `Image`s in batches: yields, for each batch, its rows and (ids, images, maps) or None.

    A row is a dictionary with COLUMNS as keys. An image that cannot be read or prepared has a row with the error and
    no numbers; nothing is held but a batch.
    """
    images, batch = iter(images), batch or BATCH
    while group := list(itertools.islice(images, batch)):
        rows, prepared, kept = [], [], []
        for image in group:
            row = dict.fromkeys(COLUMNS, "") | {"id": image.id}
            rows.append(row)
            try:
                prepared.append(prepare.prepare(image, run.config))
                kept.append(row)
            except DataError as error:
                row["error"] = str(error)
        if not kept:
            yield rows, None
            continue
        # Always of one size: another one would be compiled anew.
        full = np.stack(prepared + prepared[:1] * (batch - len(prepared)))
        sums, maps = score_batch(run, full)
        for number, row in enumerate(kept):
            row.update({name: sums[name][number].item() for name in NUMBERS})
        count = len(kept)
        yield rows, ([row["id"] for row in kept], full[:count, ..., 0], tuple(values[:count] for values in maps))
