"""Training the diffusion model: the variational bound, in bits per cell."""

import functools
import logging
import math
import shutil
from pathlib import Path

import keras
import numpy as np

from kerasgal import domain, networks, run_folder, training
from kerasgal.apps.cascade import data as densities
from kerasgal.apps.cascade.diffusion import calibration, data, sample
from kerasgal.apps.cascade.diffusion.config import APP, REGRESSOR
from kerasgal.apps.cascade.diffusion.counts import field_of
from kerasgal.apps.cascade.diffusion.model import VariationalDiffusion
from kerasgal.apps.cascade.model import SCALINGS
from kerasgal.conditioning import named, warn_of_constant
from kerasgal.errors import DataError, DomainError, SettingError
from kerasgal.pipeline import check_patch
from kerasgal.plotting import track
from kerasgal.run import display_name
from kerasgal.simulation import opened

log = logging.getLogger(__name__)


LEFT = 0.01  # of the field's standard deviation, that the noise at time 0 may leave in what is drawn
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
        model.standardised.adapt([field_of(drawn, config.field) if config.dimensions == 2 else np.asarray(drawn)
                                  for *_, drawn in samples])
        scale, layer_of_given = SCALINGS[config.scaling][0], model.network.get_layer("standardised_density")
        layer_of_given.adapt([np.asarray(scale(np.asarray(seen))) for seen, *_ in samples])
        if config.fourier:
            spreads = [np.ravel(layer.spread) for layer in (model.standardised, layer_of_given)]
            model.network.get_layer("waves_of_the_field").spread.assign(np.concatenate(spreads))
    model.compile(training.optimizer(config, weight_decay=config.weight_decay))
    return model


def check_ends(model, config, samples):
    """Warn where the noise does not begin and end where the training's galaxies, or densities, do."""
    richest = max(float(np.max(drawn)) for *_, drawn in samples)
    if config.dimensions == 2:
        richest = float(field_of(np.float32(richest), config.field))
    last, empty, one = (float(model.noised(np.float32(value))) for value in
                        (richest, *field_of(np.arange(2, dtype=np.float32), config.field)))
    seen = last * math.exp(-config.gamma_max / 2)
    if seen > SEEN:
        log.warning(f"the richest cell is seen in the noise at time 1, at {seen:.2g} of it, and will be drawn too poor "
                    f"by the deterministic sampler: gamma_max={math.ceil(20 * math.log(10 * last)) / 10:g} hides it")
    if config.matter:
        spread = 1.0
        if not config.standardise:  # of boxes the samples have the field itself
            fields = (np.asarray(drawn) for *_, drawn in samples)
            spread = float(np.mean([np.std(field if config.dimensions == 3 else field_of(field, config.field))
                                    for field in fields]))
        left = math.exp(config.gamma_min / 2) / spread
        if left > LEFT:
            log.warning(f"the noise at time 0 stays in what is drawn, {left:.2g} of the field's standard deviation: "
                        f"gamma_min={math.floor(20 * math.log(LEFT * spread)) / 10:g} leaves a hundredth")
        return
    away = (one - empty) / 2 * math.exp(-config.gamma_min / 2)
    if away < SURE:
        log.warning(f"the noise at time 0 will turn empty cells into ones with a galaxy, {away:.2g} standard "
                    f"deviations away: gamma_min={math.floor(20 * math.log((one - empty) / 2 / SURE)) / 10:g} does not")


def load(source, config, store, stride=0, regressor=None):
    """What `data.dataset` takes of a simulation, kept by `store`; stride: of `data.slabs`, regressor: of `data.given`.
    """
    seen, parameters, drawn = data.load(source, config, stride=stride, regressor=regressor)
    if config.dimensions == 2:
        store.hold(2 * seen.nbytes + 2 * drawn.nbytes, "maps")
        return seen, parameters, drawn
    seen, field = store.keep([data.channelled(seen, 3), field_of(drawn, config.field)[..., None]])
    return seen, parameters, field


def fit(sources, validation, config, folder, *, store, **options):
    """Train on simulations with galaxies into the run folder `folder`, and measure what its estimates stand for.

    store: a `kerasgal.scratch.Store`, which keeps boxes; maps are few beside the boxes, and joined as one. options: of
    `kerasgal.training.train`.
    """
    if options.get("init"):
        check_begun(config, options["init"])
    resume = options.get("resume", False)
    regressor = regressor_of(config, folder, [*sources, *validation], resume)
    inside, outside = ([load(source, config, store, stride, regressor)
                        for source in track(sources, "densities and galaxies")]
                       for sources, stride in ((sources, config.slab_stride), (validation, 0)))
    for kind, samples in (("training", () if config.slab_stride else inside), ("validation", outside)):
        for gridsize in sorted({len(seen) for seen, *_ in samples}):
            if words := data.unseen(gridsize, config):
                log.info(f"{kind}: {words}")
    for seen, *_ in (*inside, *outside):
        check_patch(len(seen), config.patch)
    log.info(f"{sum(seen.shape[2] for seen, *_ in inside):,} training maps" if config.dimensions == 2 else
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
        stale=(calibration.FILE,),
        begin=functools.partial(keep_regressor, regressor) if regressor and not resume else None, **options)
    if model is not None and not config.matter:
        found = sample.calibrated(model, config, [inside, outside])
        if found is not None:
            calibration.write(found, Path(folder))
    return model


def described(source, config):
    """What the domain knows of a simulation."""
    with opened(source, ()) as simulation:
        return data.features(simulation, config) | named(simulation, config.names)


def regressor_of(config, folder, sources, resume):
    """The `Cascade` whose mean field is given to the network, or None.

    Raises DataError for one of other cells, SettingError for one that the training would replace or that is to be read
    by several workers, and UnseenError for one that was trained on one of the sources: of those it knows the galaxies,
    and a network that sees its mean there would trust it too much elsewhere.
    """
    if not config.regressor:
        return None
    from kerasgal.apps.cascade.run import Cascade

    if config.strategy == "workers":
        raise SettingError("strategy=workers does not go with a regressor, whose fields are made before workers meet")
    folder = Path(folder).resolve()
    regressor = Cascade.load(folder / REGRESSOR if resume else config.regressor)
    place = regressor.folder.resolve()
    if not resume and (place.is_relative_to(folder) or folder.is_relative_to(place)):
        raise SettingError(f"regressor={config.regressor} and the run folder {folder} lie in one another: choose "
                           "another run folder")
    if regressor.config.cell != config.cell:
        raise DataError(f"{config.regressor} has cells of {regressor.config.cell:g} Mpc/h, and what it expects is to "
                        f"be given in cells of {config.cell:g}: they must be alike")
    regressor.check_unseen(sources)
    for source in sources:
        with opened(source, ()) as simulation:
            differing = domain.differences(regressor.domain or {}, regressor.features(simulation), regressor.checked,
                                           regressor.config.names, "the regressor was trained on")
            if differing:
                raise DomainError(f"{display_name(source)} has {'; '.join(differing)}")
            densities.check_particles(simulation, config.cell, False, regressor.of_particles, regressor.deposit)
    return regressor


def keep_regressor(regressor, folder):
    """Keep in a run folder what it takes to predict with a run of cascade."""
    for phase in regressor.phases:
        place = Path(folder) / REGRESSOR / phase
        place.mkdir(parents=True, exist_ok=True)
        for path in (regressor.folder / phase).iterdir():
            if path.is_file() and path.name not in networks.LEFT_OUT:
                shutil.copyfile(path, place / path.name)


def check_begun(config, init):
    """Raise SettingError for weights of a run that drew something else, or saw its field otherwise."""
    before = run_folder.load_config(Path(init), type(config), APP)
    for name in ("drawn", "field", "scaling", "standardise"):
        if getattr(before, name) != getattr(config, name):
            raise SettingError(f"{init} was trained with {name}={getattr(before, name)}, received "
                               f"{name}={getattr(config, name)}: weights of the one do not begin the other")
