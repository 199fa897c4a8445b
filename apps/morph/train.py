"""Training PixelCNN++ on real galaxies and on their archetypes, Sec. 3.2 of Zanisi et al. 2020."""

import logging

import numpy as np

from kerasgal import domain, training
from kerasgal.apps.morph import prepare
from kerasgal.apps.morph.config import APP
from kerasgal.apps.morph.losses import loss_of
from kerasgal.apps.morph.model import initialise
from kerasgal.apps.morph.score import build
from kerasgal.errors import DataError, DomainError, SettingError
from kerasgal.pipeline import rows
from kerasgal.plotting import track
from kerasgal.readers import bands as several
from kerasgal.readers.flux import to_unit

HELD_OUT = 10  # every tenth image validates
TURNS = 16  # angles, evenly spaced, at which an image is seen
LOST = 0.01  # share of the pixels below what discrete fluxes can say that may be

log = logging.getLogger(__name__)


def features(image):
    """What the domain knows of an image."""
    return {"pixel_scale": image.pixel_scale, "unit": image.unit, "zero_point": image.zero_point,
            "psf_fwhm": image.psf_fwhm, "bands": ",".join(image.bands) or None}


def load(images, config, known):
    """All images of a stream, without sky and bad pixels, in the unit of the first one that says its own.

    known: the domain of the network that is there already, in whose unit they are to be; empty without one.
    Returns a list of (y, x) arrays of counts, or (y, x, band), and their `features`. Says which cannot be read or
    prepared; raises DataError where too few are left, and DomainError for one with other bands than those of `config`,
    or other pixels than the images of the other network.
    """
    cleaned, described = [], []
    unit, zero_point = (known.get(name, [None])[0] for name in ("unit", "zero_point"))
    for image in images:
        if unit is None:
            unit, zero_point = image.unit, image.zero_point
        if not image.error:
            refuse_bands(image, config)
            other = domain.differences(known, features(image), ["pixel_scale"])
            if other:
                raise DomainError(f"{image.id} has {other[0]}")
        try:
            image = to_unit(image, unit, zero_point)
            cleaned.append(prepare.clean(image, config))
        except DataError as error:
            log.warning("left out: %s", error)
            continue
        described.append(features(image))
    if len(cleaned) < 2 * HELD_OUT:
        raise DataError(f"{len(cleaned)} images are too few to train on: at least {2 * HELD_OUT} are needed",
                        value=len(cleaned), accepted=(2 * HELD_OUT, None))
    return cleaned, described


def refuse_bands(image, config):
    """Raise DomainError if an image has other bands than those that a configuration names, or none of its names."""
    prepare.check_bands(image, config)
    if config.names and image.bands and image.bands != config.names:
        raise DomainError(f"{image.id} has {several.words(image.bands)}, and bands={config.bands} are to be seen",
                          value=image.bands, accepted=config.names)


def turned(images, config):
    """Images, (y, x) or (y, x, band) counts, prepared at several angles: (n * TURNS, size, size, bands), or (n, ...).

    The angles are evenly spaced.
    """
    # Prepared once: an angle of its own for every sample would need Python in every step of the stream.
    angles = 360 / TURNS * np.arange(TURNS) if config.rotate else [0.0]
    return np.stack([prepare.stamp(image, config, angle) for image in track(images, "turning") for angle in angles])


def refuse_negative(stamps, config):
    """Raise SettingError where discrete fluxes, which begin at 0, would not tell pixels of the prepared images apart.

    Those more than half a level below 0 count: the noise of a sky that was subtracted reaches there.
    """
    if not config.bits:
        return
    lost = float(np.mean(stamps < -0.5 / (2**config.bits - 1)))
    if lost > LOST:
        raise SettingError(f"bits={config.bits}: {lost:.0%} of the pixels are below 0 and would all be the value 0; "
                           "accepted is bits=0, which keeps them, or images whose sky is not subtracted",
                           value=config.bits, accepted=0)


def train_network(images, config, folder, known, **options):
    """Train one network on a stream of images into the run folder `folder`; every tenth image validates.

    known: see `load`.
    """
    cleaned, described = load(images, config, known)
    held_out = np.stack([prepare.stamp(image, config) for image in cleaned[::HELD_OUT]])
    refuse_negative(held_out, config)
    inside = [image for number, image in enumerate(cleaned) if number % HELD_OUT]
    log.info(f"{len(inside):,} training images, {len(held_out):,} validation images")
    stamps = turned(inside, config)
    first = stamps[np.random.default_rng(config.seed).permutation(len(stamps))[:config.batch]]

    def compiled():
        model = build(config)
        initialise(model, first)
        model.compile(training.optimizer(config), loss=loss_of(config))
        return model

    def twice(dataset):
        """The images as inputs and as targets."""
        return dataset.map(lambda image: (image, image))

    return training.train(
        compiled, lambda first: twice(rows([stamps], config.batch, seed=config.seed, first=first)),
        lambda devices: twice(rows([held_out], config.batch, full=devices > 1)),
        config, folder, app=APP, domain=domain.of(described) | {"softening": [config.softening] * 2}, **options)
