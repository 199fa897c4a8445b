"""Network and noise schedule as one Keras model, whose output is its loss: the variational bound of each patch."""

import math

import keras
import numpy as np
from keras import ops

from kerasgal.apps.cascade.diffusion import counts, vdm
from kerasgal.apps.cascade.diffusion.config import GALAXIES
from kerasgal.apps.cascade.diffusion.network import Standardised, score_network
from kerasgal.apps.cascade.diffusion.schedule import SCHEDULES

PARTS = ("prior", "reconstruction", "diffusion")
SETTINGS = ("dimensions", "drawn", "channels", "field", "maximum", "scaling", "standardise", "schedule", "gamma_min",
            "gamma_max", "prediction", "weighting", "filters", "levels", "norm_groups", "norm_epsilon", "dropout",
            "attention", "projections", "fourier", "seed")


@keras.saving.register_keras_serializable("kerasgal")
class VariationalDiffusion(keras.Model):
    """Network and noise schedule, trained together on (density, field, parameters).

    The network's weights lower the bound; a learned schedule, which between its ends does not change the bound, lowers
    the variance of its estimate instead (App. I.2 of arXiv:2107.00630), which takes TensorFlow.

    parameters: how many numbers describe a simulation. drawn: "galaxies", or "matter", and then the density stands for
    the galaxies that are given, and the field is continuous. channels: of what is given in the density's place. field,
    maximum: "log" or "count", and the most galaxies of a cell. seed: of times and noise in training. The others are
    those of `score_network`, `SCHEDULES` and `vdm`.
    Draws put its estimates right by its `calibration`, a `calibration.Calibration` or None.
    """

    def __init__(self, parameters=0, *, dimensions, drawn=GALAXIES, channels=1, field, maximum, scaling, standardise,
                 schedule, gamma_min, gamma_max, prediction, weighting, filters, levels, norm_groups, norm_epsilon,
                 dropout, attention, projections, fourier, seed, **kwargs):
        super().__init__(autocast=False, **kwargs)  # losses are float32 whatever the precision of the network
        self._settings = {
            "parameters": parameters, "dimensions": dimensions, "drawn": drawn, "channels": channels, "field": field,
            "maximum": maximum, "scaling": scaling, "standardise": standardise, "schedule": schedule,
            "gamma_min": gamma_min, "gamma_max": gamma_max, "prediction": prediction, "weighting": weighting,
            "filters": filters, "levels": levels, "norm_groups": norm_groups, "norm_epsilon": norm_epsilon,
            "dropout": dropout, "attention": attention, "projections": projections, "fourier": fourier, "seed": seed}
        self.parameters, self.prediction, self.weighting, self.field = parameters, prediction, weighting, field
        self.network = score_network(
            dimensions, parameters, channels, filters=filters, levels=levels, groups=norm_groups,
            epsilon=norm_epsilon, dropout=dropout, attention=attention, projections=projections, fourier=fourier,
            scaling=scaling, standardise=standardise, gamma_min=gamma_min, gamma_max=gamma_max)
        self.standardised = Standardised(name="standardised_field") if standardise else None
        if standardise:
            self.standardised.build(())
        self.schedule = SCHEDULES[schedule](gamma_min, gamma_max)
        self.schedule.build((None,))
        self.levels = counts.levels(field, maximum) if drawn == GALAXIES else None
        self.calibration = None
        self.seeds = keras.random.SeedGenerator(seed)
        self.parts = [keras.metrics.Mean(name=name) for name in ("loss", *PARTS)]
        self.built = True

    @classmethod
    def of(cls, config):
        """The model of a `DiffusionConfig`."""
        return cls(len(config.names), **{name: getattr(config, name) for name in SETTINGS})

    def get_config(self):
        return {"name": self.name, **self._settings}

    @property
    def metrics(self):
        return self.parts

    def noised(self, field):
        """What is noised of a field of `counts.field_of`: that itself, or standardised."""
        return self.standardised(field) if self.standardised else field

    def field_of(self, noised):
        """The field of what `noised` gave, an array or a tensor."""
        if not self.standardised:
            return noised
        mean, spread = (weight.value for weight in (self.standardised.mean, self.standardised.spread))
        if isinstance(noised, np.ndarray):
            mean, spread = np.asarray(mean), np.asarray(spread)
        return noised * spread + mean

    def denoiser(self, density, parameters, training=False):
        """The function from z and gamma to the noise that the network finds in z."""
        def denoise(z, gamma):
            inputs = [z, density, gamma, *([parameters] if self.parameters else [])]
            return vdm.noise_of(self.network(inputs, training=training), z, gamma, self.prediction)

        return denoise

    def losses_of(self, batch, seeds, training):
        """The three parts of the bound for each patch of a batch, (batch,) each, in bits per cell.

        seeds: of times, of the noise, and of that of the reconstruction. Returns the list of parts, and gamma and its
        slope at these times, (batch,) each.
        """
        density, field, parameters = batch
        field = self.noised(field)
        levels = None if self.levels is None else self.noised(ops.convert_to_tensor(self.levels))
        of_times, *of_noise = seeds
        seen = []

        def schedule(times):
            seen.append(self.schedule(times))
            return seen[-1]

        times = vdm.antithetic_times(ops.shape(field)[0], keras.random.uniform((), seed=of_times))
        noise, noise_0 = (keras.random.normal(ops.shape(field), seed=seed) for seed in of_noise)
        nats = vdm.bound(field, self.denoiser(density, parameters, training), schedule, times, noise, noise_0,
                         levels)
        cells = ops.cast(ops.prod(ops.shape(field)[1:]), "float32")
        if levels is None and self.standardised:  # a density of the field, and not of what that is divided by
            prior, reconstruction, diffusion = nats
            nats = prior, reconstruction + cells * ops.log(self.standardised.spread), diffusion
        return [part / (cells * math.log(2)) for part in nats], seen[-1]

    def weighted(self, parts, gamma):
        """What training lowers, (batch,): the bound, or that with the diffusion loss weighted."""
        prior, reconstruction, diffusion = parts
        weight = vdm.velocity_weight(gamma) if self.weighting == "velocity" else 1.0
        return prior + reconstruction + weight * diffusion

    def call(self, batch, training=False):
        """Prior, reconstruction and diffusion loss of each patch, (batch, 3), in bits per cell."""
        # The same noise in every validation, so that these can be compared.
        parts, (gamma, _) = self.losses_of(batch, [self.seeds] * 3 if training else (1, 2, 3), training)
        self.add_loss(ops.mean(self.weighted(parts, gamma)))
        return ops.stack(parts, axis=-1)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """The running means of the bound and its parts, with those of a batch, (batch, 3), in."""
        losses = [y_pred[:, place] for place in range(len(PARTS))]
        for metric, values in zip(self.parts, (sum(losses), *losses)):
            metric.update_state(values)
        return {metric.name: metric.result() for metric in self.parts}

    def train_step(self, *arguments):
        # Of TensorFlow alone where the schedule learns: `train.compiled` refuses other backends.
        if not self.schedule.trainable_variables:
            return super().train_step(*arguments)
        import tensorflow as tf

        batch, _, _ = keras.utils.unpack_x_y_sample_weight(*arguments)
        weights, learned = self.network.trainable_variables, self.schedule.trainable_variables
        with tf.GradientTape(persistent=True) as tape:
            parts, (gamma, slope) = self.losses_of(batch, [self.seeds] * 3, training=True)
            each = self.weighted(parts, gamma)
            scaled = self.optimizer.scale_loss(ops.mean(each)) / tf.distribute.get_strategy().num_replicas_in_sync
        gradients = tape.gradient(scaled, weights)
        # The gradient of the variance is that of the mean square, and that of the square follows from the loss's own,
        # which is at hand: d(loss^2) = 2 loss d(loss), through gamma and its slope alone.
        by_gamma, by_slope = tape.gradient(scaled, [gamma, slope])
        gradients += tape.gradient([gamma, slope], learned, [2 * each * by_gamma, 2 * each * by_slope])
        self.optimizer.apply_gradients(zip(gradients, weights + learned))
        return self.compute_metrics(batch, None, ops.stack(parts, axis=-1))
