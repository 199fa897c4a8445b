"""Training the network (Lucie-Smith et al. 2020, Methods)."""

import logging

import numpy as np

from kerasgal import domain, training
from kerasgal.apps.halomass import compress, data, predict
from kerasgal.apps.halomass.config import APP
from kerasgal.apps.halomass.losses import LIKELIHOODS, ScaleMetric, SelectionLikelihood
from kerasgal.conditioning import parameter_names, warn_of_constant
from kerasgal.simulation import opened

log = logging.getLogger(__name__)


def compiled(config, mean, deviation, parameters=None):
    """The network with its likelihood and AMSGrad, which standardises its inputs by the given mean and deviation.

    parameters: of the training's simulations, (s, p), where it is given some, which it standardises, too.
    """
    network = predict.build(config)
    if parameters is not None and parameter_names(config):
        network.get_layer("normalised_parameters").adapt(parameters)
    layer = next(layer for layer in network.layers if hasattr(layer, "deviation"))
    layer.mean.assign(mean)
    layer.deviation.assign(deviation)
    names = LIKELIHOODS[config.likelihood].names
    network.compile(training.optimizer(config, amsgrad=True), loss=SelectionLikelihood(config.likelihood),
                    metrics=[ScaleMetric(1 + column, name) for column, name in enumerate(names)])
    return network


def draw(sources, count, config, seed, store=None):
    """`count` particles over several simulations, as many from each: a list of `data.Sample`.

    store: a `kerasgal.scratch.Store`, which keeps their fields.
    """
    samples = []
    for number, source in enumerate(sources):
        share = count // len(sources) + (number < count % len(sources))
        with opened(source, require=("initial/delta", "halo_id", "halos/mass")) as simulation:
            particles, _ = data.sample_particles(simulation, share, config.low, config.high, (seed, number))
            samples.append(data.load(simulation, config, particles))
        if store:
            keep(samples[-1], store)
    return samples


def keep(sample, store):
    """Have `store` keep the field of a `data.Sample`; what is no field stays in memory and is counted."""
    if isinstance(sample.source, np.ndarray):
        sample.source, = store.keep([sample.source])
    elif sample.source is None:
        store.hold(2 * sample.places.nbytes, "the averages around particles")
    else:
        store.hold(2 * sample.source[0].nbytes, "final particles")


def fit(simulations, held_out, config, folder, *, store=None, **options):
    """Train on particles of simulations; returns the network (None in all workers but the first).

    store: see `draw`; options: of `kerasgal.training.train`.
    """
    samples = draw(simulations, config.samples, config, config.seed, store)
    validation = draw(held_out, config.validation_samples, config, config.seed + 1, store)
    for name, drawn in (("training", samples), ("validation", validation)):
        if drawn:
            log.info(f"{sum(len(sample.particles) for sample in drawn):,} {name} particles")
    mean, deviation = data.moments(samples, config)
    parameters = np.array([sample.parameters for sample in samples])
    warn_of_constant(parameter_names(config), parameters)
    network = training.train(
        lambda: compiled(config, mean, deviation, parameters),
        lambda first: data.batches(samples, config, seed=config.seed, first=first),
        (lambda devices: data.batches(validation, config, full=devices > 1)) if validation else None,
        config, folder, app=APP, domain=domain.of([data.features(source, config) for source in simulations]),
        **options)
    if network is not None:
        compress.log_activity(network)
    return network
