"""Training the diffusion model: the variational bound, in bits per cell."""

import logging
import math
from pathlib import Path

import keras
import numpy as np

from kerasgal import domain, training
from kerasgal.apps.cascade.data import features
from kerasgal.apps.cascade.diffusion import calibration, data, sample
from kerasgal.apps.cascade.diffusion.config import APP
from kerasgal.apps.cascade.diffusion.counts import field_of
from kerasgal.apps.cascade.diffusion.model import VariationalDiffusion
from kerasgal.apps.cascade.model import SCALINGS
from kerasgal.conditioning import named, warn_of_constant
from kerasgal.errors import SettingError
from kerasgal.pipeline import check_patch
from kerasgal.plotting import track
from kerasgal.simulation import opened

log = logging.getLogger(__name__)


SEEN = 0.25  # of the noise at time 1, above which the richest cell's galaxies are still seen in it
SURE = 4  # standard deviations of the noise at time 0 to where an empty cell is taken for one with a galaxy


def compiled(config, parameters, samples=()):
    """A `VariationalDiffusion` with its optimiser.

    parameters: those of the training's simulations, (s, p). samples: of `data.load` or `load`, by which fields are
    standardised.
    """
    if config.schedule == "learned" and keras.backend.backend() != "tensorflow":
        raise SettingError("schedule='learned' is trained with TensorFlow alone: it needs KERAS_BACKEND=tensorflow, "
                           f"received {keras.backend.backend()}", value=config.schedule, accepted=("linear",))
    model = VariationalDiffusion.of(config)
    if config.names:
        model.network.get_layer("normalised_parameters").adapt(parameters)
    if config.standardise and samples:
        model.standardised.adapt([field_of(counts, config.field) if config.dimensions == 2 else np.asarray(counts)
                                  for *_, counts in samples])
        scale, density_layer = SCALINGS[config.scaling][0], model.network.get_layer("standardised_density")
        density_layer.adapt([np.asarray(scale(np.asarray(density))) for density, *_ in samples])
        if config.fourier:
            spreads = [float(layer.spread) for layer in (model.standardised, density_layer)]
            model.network.get_layer("waves_of_the_field").spread.assign(spreads)
    model.compile(training.optimizer(config, "AdamW", weight_decay=config.weight_decay))
    return model


def check_ends(model, config, samples):
    """Warn where the noise does not begin and end where the training's galaxies do."""
    richest = max(float(np.max(counts)) for *_, counts in samples)
    if config.dimensions == 2:
        richest = float(field_of(np.float32(richest), config.field))
    last, empty, one = (float(model.noised(np.float32(value))) for value in
                        (richest, *field_of(np.arange(2, dtype=np.float32), config.field)))
    seen = last * math.exp(-config.gamma_max / 2)
    if seen > SEEN:
        log.warning(f"the richest cell is seen in the noise at time 1, at {seen:.2g} of it, and will be drawn too poor "
                    f"by the deterministic sampler: gamma_max={math.ceil(20 * math.log(10 * last)) / 10:g} hides it")
    away = (one - empty) / 2 * math.exp(-config.gamma_min / 2)
    if away < SURE:
        log.warning(f"the noise at time 0 will turn empty cells into ones with a galaxy, {away:.2g} standard "
                    f"deviations away: gamma_min={math.floor(20 * math.log((one - empty) / 2 / SURE)) / 10:g} does not")


def load(source, config, store, stride=0):
    """What `data.dataset` takes of a simulation, kept by `store`; stride: of `data.slabs`."""
    density, parameters, counts = data.load(source, config, stride=stride)
    if config.dimensions == 2:
        store.hold(2 * density.nbytes + 2 * counts.nbytes, "maps")
        return density, parameters, counts
    density, field = store.keep([density[..., None], field_of(counts, config.field)[..., None]])
    return density, parameters, field


def fit(sources, validation, config, folder, *, store, **options):
    """Train on simulations with galaxies into the run folder `folder`, and measure what its estimates stand for.

    store: a `kerasgal.scratch.Store`, which keeps boxes; maps are few beside the boxes, and joined as one. options: of
    `kerasgal.training.train`.
    """
    inside, outside = ([load(source, config, store, stride) for source in track(sources, "densities and galaxies")]
                       for sources, stride in ((sources, config.slab_stride), (validation, 0)))
    for density, *_ in (*inside, *outside):
        check_patch(len(density), config.patch)
    log.info(f"{sum(density.shape[-1] for density, *_ in inside):,} training maps" if config.dimensions == 2 else
             f"{len(inside):,} training boxes")
    parameters = np.array([row for _, row, _ in inside])
    warn_of_constant(config.names, parameters)

    def build():
        model = compiled(config, parameters, inside)
        check_ends(model, config, inside)
        return model

    model = training.train(
        build,
        lambda first: data.dataset(inside, config, config.stride, seed=config.seed, first=first),
        (lambda devices: data.dataset(outside, config, config.patch, full=devices > 1)) if outside else None,
        config, folder, app=APP, domain=domain.of([described(source, config) for source in sources]),
        stale=(calibration.FILE,), **options)
    if model is not None:
        found = sample.calibrated(model, config, [inside, outside])
        if found is not None:
            calibration.write(found, Path(folder))
    return model


def described(source, config):
    """What the domain knows of a simulation."""
    with opened(source, ()) as simulation:
        return features(simulation, config.cell) | named(simulation, config.names)
