"""Training the diffusion model: the variational bound, in bits per cell."""

import logging

import keras
import numpy as np

from kerasgal import domain, training
from kerasgal.apps.cascade.data import features
from kerasgal.apps.cascade.diffusion import data
from kerasgal.apps.cascade.diffusion.config import APP
from kerasgal.apps.cascade.diffusion.counts import field_of
from kerasgal.apps.cascade.diffusion.model import VariationalDiffusion
from kerasgal.errors import SettingError
from kerasgal.pipeline import check_patch
from kerasgal.plotting import track
from kerasgal.simulation import opened

log = logging.getLogger(__name__)


def compiled(config, parameters):
    """A `VariationalDiffusion` with its optimiser; parameters: those of the training's simulations, (s, p)."""
    if config.schedule == "learned" and keras.backend.backend() != "tensorflow":
        raise SettingError("schedule='learned' is trained with TensorFlow alone: it needs KERAS_BACKEND=tensorflow, "
                           f"received {keras.backend.backend()}", value=config.schedule, accepted=("linear",))
    model = VariationalDiffusion.of(config)
    if config.names:
        model.network.get_layer("normalised_parameters").adapt(parameters)
    model.compile(training.optimizer(config, "AdamW", weight_decay=config.weight_decay))
    return model


def load(source, config, store):
    """What `data.dataset` takes of a simulation, kept by `store`."""
    density, parameters, counts = data.load(source, config)
    if config.dimensions == 2:
        store.hold(2 * density.nbytes + 2 * counts.nbytes, "maps")
        return density, parameters, counts
    density, field = store.keep([density[..., None], field_of(counts, config.field)[..., None]])
    return density, parameters, field


def fit(sources, validation, config, folder, *, store, **options):
    """Train on simulations with galaxies into the run folder `folder`.

    store: a `kerasgal.scratch.Store`, which keeps boxes; maps are few beside the boxes, and joined as one. options: of
    `kerasgal.training.train`.
    """
    inside, outside = ([load(source, config, store) for source in track(sources, "densities and galaxies")]
                       for sources in (sources, validation))
    for density, *_ in (*inside, *outside):
        check_patch(len(density), config.patch)
    log.info(f"{sum(density.shape[-1] for density, *_ in inside):,} training maps" if config.dimensions == 2 else
             f"{len(inside):,} training boxes")
    parameters = np.array([row for _, row, _ in inside])
    return training.train(
        lambda: compiled(config, parameters),
        lambda first: data.dataset(inside, config, config.stride, seed=config.seed, first=first),
        (lambda devices: data.dataset(outside, config, config.patch, full=devices > 1)) if outside else None,
        config, folder, app=APP, domain=domain.of([described(source, config) for source in sources]), **options)


def described(source, config):
    """What the domain knows of a simulation."""
    with opened(source, ()) as simulation:
        return features(simulation, config.cell)
