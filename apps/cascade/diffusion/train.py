"""Training the diffusion model: the variational bound, in bits per cell."""

import math
from pathlib import Path

import click
import keras
import numpy as np
import tensorflow as tf
from keras import ops

from kerasgal import training
from kerasgal.apps.cascade.diffusion import data, vdm
from kerasgal.apps.cascade.diffusion.config import APP
from kerasgal.apps.cascade.diffusion.network import score_network
from kerasgal.apps.cascade.diffusion.schedule import SCHEDULES
from kerasgal.pipeline import check_patch
from kerasgal.plotting import track

PARTS = ("prior", "reconstruction", "diffusion")


class VariationalDiffusion(keras.Model):
    """Network and noise schedule, trained together on (density, field, parameters).

    The network's weights lower the bound; a learned schedule, which between its ends does not change the bound, lowers
    the variance of its estimate instead (App. I.2 of arXiv:2107.00630).
    """

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.network = build(config)
        self.schedule = SCHEDULES[config.schedule](config.gamma_min, config.gamma_max)
        self.schedule.build((None,))
        self.levels = data.levels(config)
        self.seeds = keras.random.SeedGenerator(config.seed)
        self.parts = [keras.metrics.Mean(name=name) for name in ("loss", *PARTS)]
        self.built = True

    @property
    def metrics(self):
        return self.parts

    def denoiser(self, density, parameters, training=False):
        """The function from z and gamma to the noise that the network finds in z."""
        def denoise(z, gamma):
            inputs = [z, density, gamma, *([parameters] if self.config.names else [])]
            return vdm.noise_of(self.network(inputs, training=training), z, gamma, self.config.prediction)

        return denoise

    def losses_of(self, batch, schedule, seeds, training):
        """The three parts of the bound for each patch of a batch, (batch,) each, in bits per cell."""
        density, field, parameters = batch
        of_times, *of_noise = seeds
        times = vdm.antithetic_times(ops.shape(field)[0], keras.random.uniform((), seed=of_times))
        noise, noise_0 = (keras.random.normal(ops.shape(field), seed=seed) for seed in of_noise)
        nats = vdm.bound(field, self.denoiser(density, parameters, training), schedule, times, noise, noise_0,
                         self.levels)
        cells = ops.cast(ops.prod(ops.shape(field)[1:]), "float32")
        return [part / (cells * math.log(2)) for part in nats]

    def train_step(self, batch):
        weights, learned = self.network.trainable_variables, self.schedule.trainable_variables
        with tf.GradientTape(persistent=bool(learned)) as tape:
            seen = []

            def schedule(times):
                seen.append(self.schedule(times))
                return seen[-1]

            prior, reconstruction, diffusion = self.losses_of(batch, schedule, [self.seeds] * 3, training=True)
            gamma, slope = seen[-1]
            weight = vdm.velocity_weight(gamma) if self.config.weighting == "velocity" else 1.0
            each = prior + reconstruction + weight * diffusion
            scaled = self.optimizer.scale_loss(ops.mean(each)) / tf.distribute.get_strategy().num_replicas_in_sync
        gradients = tape.gradient(scaled, weights)
        if learned:
            # The gradient of the variance is that of the mean square, and that of the square follows from the loss's
            # own, which is at hand: d(loss^2) = 2 loss d(loss), through gamma and its slope alone.
            by_gamma, by_slope = tape.gradient(scaled, [gamma, slope])
            gradients += tape.gradient([gamma, slope], learned, [2 * each * by_gamma, 2 * each * by_slope])
        self.optimizer.apply_gradients(zip(gradients, weights + learned))
        return self.noted(prior, reconstruction, diffusion)

    def test_step(self, batch):
        # The same noise in every epoch, so that these can be compared.
        return self.noted(*self.losses_of(batch, self.schedule, (1, 2, 3), training=False))

    def noted(self, *losses):
        """The running means of the bound and its parts, with those of a batch, (batch,) each, in."""
        for metric, values in zip(self.parts, (sum(losses), *losses)):
            metric.update_state(values)
        return {metric.name: metric.result() for metric in self.parts}


def build(config):
    """The network of a configuration."""
    return score_network(
        config.dimensions, len(config.names), filters=config.filters, levels=config.levels, groups=config.groups,
        dropout=config.dropout, attention=config.attention, fourier=config.fourier, scaling=config.scaling,
        gamma_min=config.gamma_min, gamma_max=config.gamma_max)


def compiled(config, parameters):
    """A `VariationalDiffusion` with its optimiser; parameters: those of the training's simulations, (s, p)."""
    model = VariationalDiffusion(config)
    if config.names:
        model.network.get_layer("normalised_parameters").adapt(parameters)
    rate = config.learning_rate
    if config.decay == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(rate, config.epochs * config.steps_per_epoch)
    model.compile(keras.optimizers.AdamW(
        rate, weight_decay=config.weight_decay, global_clipnorm=config.clip or None, use_ema=config.averaging > 0,
        ema_momentum=config.averaging))
    return model


def train_run(simulations, validation, config, folder, **options):
    """Train on Simulation files with galaxies into the run folder `folder`."""
    inside, outside = ([data.load(path, config) for path in track(paths, "densities and galaxies")]
                       for paths in (simulations, validation))
    for density, *_ in (*inside, *outside):
        check_patch(len(density), config.patch)
    click.echo(f"{sum(density.shape[-1] for density, *_ in inside):,} training maps" if config.dimensions == 2 else
               f"{len(inside):,} training boxes")
    parameters = np.array([row for _, row, _ in inside])
    return training.train(
        lambda: compiled(config, parameters),
        lambda first: data.dataset(inside, config, config.stride, seed=config.seed, first=first),
        (lambda devices: data.dataset(outside, config, config.patch, full=devices > 1)) if outside else None,
        config, folder, app=APP, data={"training": [str(Path(path).resolve()) for path in simulations],
                                       "validation": [str(Path(path).resolve()) for path in validation]}, **options)
