"""The normalised distance between predicted and true map, Eq. 3 of Bernardini et al. 2020."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("kerasgal")
class NormalisedDistance(keras.losses.Loss):
    """sum |g - p|^power / sum g over the inner cells, g the true map and p the predicted one.

    `margin` cells at each face of the patches are left out (the paper: 16 of 128). The paper's equation prints a
    square, but its text says L1 and its loss of 0.6 fits L1, under which an all-zero prediction scores 1: power 1 is
    our default. Sums are those of the batch, or with over="patch" of each patch by itself, which then weigh alike.
    Where there is no halo to normalise by, the loss is the mean of |p|^power. In float32 whatever the precision policy.
    On several devices each device's share of the batch is normalised by itself.
    """

    def __init__(self, margin=0, power=1, over="batch", name="normalised_distance", **kwargs):
        super().__init__(name=name, dtype="float32", **{k: v for k, v in kwargs.items() if k != "dtype"})
        self.margin = margin
        self.power = power
        self.over = over

    def call(self, y_true, y_pred):
        """(batch,) whose mean is the loss; y_true and y_pred (batch, x, y, z, 1)."""
        if self.margin:
            inner = slice(self.margin, -self.margin)
            y_true, y_pred = y_true[:, inner, inner, inner], y_pred[:, inner, inner, inner]
        cells = (1, 2, 3, 4)
        difference = ops.mean(ops.power(ops.abs(y_true - y_pred), self.power), axis=cells)
        truth = ops.mean(y_true, axis=cells)
        if self.over == "batch":
            truth = ops.mean(truth)
        return difference / ops.where(truth > 0, truth, 1.0)

    def get_config(self):
        return {**super().get_config(), "margin": self.margin, "power": self.power, "over": self.over}
