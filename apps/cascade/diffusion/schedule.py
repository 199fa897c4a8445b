"""Noise schedules: how gamma, minus the logarithm of the signal-to-noise ratio, rises with time from 0 to 1."""

import keras
from keras import ops

HIDDEN = 1024  # units of the learned schedule, as in App. H of arXiv:2107.00630


@keras.saving.register_keras_serializable("kerasgal")
class LinearSchedule(keras.layers.Layer):
    """gamma(t) = gamma_min + (gamma_max - gamma_min) t. Returns gamma and its slope, (batch,) each."""

    def __init__(self, gamma_min, gamma_max, **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.gamma_min, self.gamma_max = gamma_min, gamma_max

    def call(self, times):
        rise = self.gamma_max - self.gamma_min
        return self.gamma_min + rise * times, rise + ops.zeros_like(times)

    def get_config(self):
        return {**without_dtype(super().get_config()), "gamma_min": self.gamma_min, "gamma_max": self.gamma_max}


@keras.saving.register_keras_serializable("kerasgal")
class LearnedSchedule(keras.layers.Layer):
    """A monotone network from gamma_min at time 0 to gamma_max at time 1, whatever its weights.

    That of App. H of arXiv:2107.00630, t + sum of w3 sigmoid(w2 t + b) with positive w, put between the two ends; the
    scale of its linear part drops out there. Training is to lower the variance of the loss by it (App. I.2).
    """

    def __init__(self, gamma_min, gamma_max, **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.gamma_min, self.gamma_max = gamma_min, gamma_max

    def build(self, shape):
        normal = keras.initializers.RandomNormal
        self.steepness = self.add_weight(shape=(HIDDEN,), initializer=normal(1.0, 0.5), name="steepness")
        self.place = self.add_weight(shape=(HIDDEN,), initializer=normal(0.0, 1.0), name="place")
        # Small at first: the schedule begins nearly linear.
        self.height = self.add_weight(shape=(HIDDEN,), initializer=normal(-8.0, 0.1), name="height")

    def call(self, times):
        steepness, height = ops.softplus(self.steepness), ops.softplus(self.height)

        def rising(t):
            steps = ops.sigmoid(steepness * t[:, None] + self.place)
            return t + ops.sum(height * steps, axis=1), 1 + ops.sum(height * steepness * steps * (1 - steps), axis=1)

        value, slope = rising(times)
        ends, _ = rising(ops.convert_to_tensor([0.0, 1.0]))
        scale = (self.gamma_max - self.gamma_min) / (ends[1] - ends[0])
        return self.gamma_min + (value - ends[0]) * scale, slope * scale

    def get_config(self):
        return {**without_dtype(super().get_config()), "gamma_min": self.gamma_min, "gamma_max": self.gamma_max}


def without_dtype(config):
    """The configuration of a layer that is float32 whatever the precision policy."""
    return {key: value for key, value in config.items() if key != "dtype"}


SCHEDULES = {"linear": LinearSchedule, "learned": LearnedSchedule}
