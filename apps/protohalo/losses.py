"""The normalised distance between predicted and true map, Eq. 3 of Bernardini et al. 2020."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("kerasgal")
class NormalisedDistance(keras.losses.Loss):
    """sum |g - p|^power / sum g^power over the inner cells of the batch, g the true map and p the predicted one.

    An all-zero prediction scores 1. `margin` cells at each face of the patches are left out (the paper: 16 of 128).
    The paper's equation prints a square, but its text says L1 and its loss of 0.6 fits L1: power 1 is our default. In
    float32 whatever the precision policy. On several devices each device's share of the batch is normalised by itself.
    """

    def __init__(self, margin=0, power=1, name="normalised_distance", **kwargs):
        super().__init__(name=name, dtype="float32", **{k: v for k, v in kwargs.items() if k != "dtype"})
        self.margin = margin
        self.power = power

    def call(self, y_true, y_pred):
        """(batch,) whose mean is the loss; y_true and y_pred (batch, x, y, z, 1)."""
        if self.margin:
            inner = slice(self.margin, -self.margin)
            y_true, y_pred = y_true[:, inner, inner, inner], y_pred[:, inner, inner, inner]
        cells = (1, 2, 3, 4)
        difference = ops.sum(ops.power(ops.abs(y_true - y_pred), self.power), axis=cells)
        # A batch of patches without any halo has nothing to normalise by: then cells are counted as they are.
        return difference / ops.maximum(ops.mean(ops.sum(ops.power(y_true, self.power), axis=cells)), 1.0)

    def get_config(self):
        return {**super().get_config(), "margin": self.margin, "power": self.power}
