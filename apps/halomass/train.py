"""Training the network, Sec. 3 of Lucie-Smith et al. 2020."""

from pathlib import Path

import click

from kerasgal import training
from kerasgal.apps.halomass import data, predict
from kerasgal.apps.halomass.config import APP
from kerasgal.apps.halomass.losses import LIKELIHOODS, ScaleMetric, SelectionLikelihood
from kerasgal.simulation import Simulation


def build(config, mean, deviation):
    """The compiled network of a configuration, which standardises its inputs by the given mean and deviation."""
    import keras

    model = predict.build(config)
    layer = next(layer for layer in model.layers if hasattr(layer, "deviation"))
    layer.mean.assign(mean)
    layer.deviation.assign(deviation)
    names = LIKELIHOODS[config.likelihood].names
    optimizer = keras.optimizers.Adam(config.learning_rate, amsgrad=True, global_clipnorm=config.gradient_norm or None)
    model.compile(optimizer, loss=SelectionLikelihood(config.likelihood),
                  metrics=[ScaleMetric(1 + column, name) for column, name in enumerate(names)])
    return model


def draw(paths, count, config, seed):
    """`count` particles over several simulations, as many from each: a list of `data.Sample`."""
    samples = []
    for number, path in enumerate(paths):
        share = count // len(paths) + (number < count % len(paths))
        with Simulation(path, require=("initial/delta", "halo_id", "halos/mass")) as simulation:
            particles, _ = data.sample_particles(simulation, share, config.low, config.high, (seed, number))
        samples.append(data.load(path, config, particles))
    return samples


def train_run(simulations, validation, config, folder, **options):
    """Train on Simulation files; returns the network with its best weights (None in all workers but the first).

    `options` are resume, overwrite and tensorboard of `kerasgal.training.train`.
    """
    samples = draw(simulations, config.samples, config, config.seed)
    held_out = draw(validation, config.validation_samples, config, config.seed + 1)
    for name, drawn in (("training", samples), ("validation", held_out)):
        if drawn:
            click.echo(f"{sum(len(sample.particles) for sample in drawn):,} {name} particles")
    mean, deviation = data.moments(samples, config)
    seen = {"training": [str(Path(path).resolve()) for path in simulations],
            "validation": [str(Path(path).resolve()) for path in validation]}
    return training.train(
        lambda: build(config, mean, deviation),
        lambda first: data.batches(samples, config, seed=config.seed, first=first),
        (lambda devices: data.batches(held_out, config, full=devices > 1)) if held_out else None,
        config, folder, app=APP, data=seen, **options)
