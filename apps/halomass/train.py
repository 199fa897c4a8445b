"""Training the network (Lucie-Smith et al. 2020, Methods)."""

import logging

import numpy as np

from kerasgal import domain, training
from kerasgal.apps.halomass import compress, data, predict, whole
from kerasgal.apps.halomass.config import APP
from kerasgal.apps.halomass.losses import LIKELIHOODS, ScaleMetric, SelectionLikelihood
from kerasgal.apps.halomass.model import standardising
from kerasgal.conditioning import parameter_names, warn_of_constant
from kerasgal.simulation import opened

log = logging.getLogger(__name__)


def compiled(config, mean, deviation, parameters=None, size=None):
    """The network with its likelihood and AMSGrad, which standardises its inputs by the given mean and deviation.

    parameters: of the training's simulations, (s, p), where it is given some, which it standardises, too. size: cells
    per side of whole boxes, of a network that is trained on these.
    """
    network = predict.build(config)
    if parameters is not None and parameter_names(config):
        network.get_layer("normalised_parameters").adapt(parameters)
    layer = standardising(network)
    layer.mean.assign(mean)
    layer.deviation.assign(deviation)
    names = LIKELIHOODS[config.likelihood].names
    if size is not None:
        network = whole.over_boxes(network, size)
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
    """Train on particles of simulations, or on whole boxes; returns the network (None in all workers but the first).

    That of whole boxes is one over these, with the weights of the run's. store: see `draw`; options: of
    `kerasgal.training.train`.
    """
    if config.whole:
        samples, validation = (whole.load_all(sources, config, store) for sources in (simulations, held_out))
        batches, (mean, deviation) = whole.batches, whole.moments(samples)
        parameters, size = None, samples[0][0].shape[0]
    else:
        samples = draw(simulations, config.samples, config, config.seed, store)
        validation = draw(held_out, config.validation_samples, config, config.seed + 1, store)
        batches, (mean, deviation) = data.batches, data.moments(samples, config)
        parameters, size = np.array([sample.parameters for sample in samples]), None
        warn_of_constant(parameter_names(config), parameters)
    for name, read in (("training", samples), ("validation", validation)):
        if read:
            log.info(whole.words(read, name) if config.whole else
                     f"{sum(len(sample.particles) for sample in read):,} {name} particles")
    network = training.train(
        lambda: compiled(config, mean, deviation, parameters, size),
        lambda first: batches(samples, config, seed=config.seed, first=first),
        (lambda devices: batches(validation, config, full=devices > 1)) if validation else None,
        config, folder, app=APP, domain=domain.of([data.features(source, config) for source in simulations]),
        **options)
    if network is not None:
        compress.log_activity(network)
    return network
