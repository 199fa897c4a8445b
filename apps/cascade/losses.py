"""The losses of the two phases, Eqs. 1 and 2 of Yip et al. 2019."""

import keras
import numpy as np
from keras import ops

LEAST = 1e-6  # galaxies in a cell, of whose logarithm no training gets far
TINY = np.finfo("float32").tiny.item()  # the smallest normal number, whose logarithm is -87.3


@keras.saving.register_keras_serializable("kerasgal")
class WeightedCrossEntropy(keras.losses.Loss):
    """Phase 1, Eq. 1: - [w y ln p + (1 - y) ln(1 - p)] / (w + 1), averaged over the voxels.

    y is 1 where there is a galaxy, else 0; p is the probability that there is; w is `weight`. In float32 whatever the
    precision policy. The authors' code divides by the sum of the batch's weights instead of the number of voxels times
    w + 1: with that, the fewer galaxies a batch has, the more its empty voxels count.
    """

    def __init__(self, weight=500.0, name="weighted_cross_entropy", **kwargs):
        super().__init__(name=name, dtype="float32", **{k: v for k, v in kwargs.items() if k != "dtype"})
        self.weight = weight

    def call(self, y_true, y_pred):
        """(batch,) whose mean is the loss.

        y_true: (batch, x, y, z, 1) numbers of galaxies; y_pred: (batch, x, y, z, 2) probabilities of [empty,
        occupied], both of them used as they are: the smaller one has digits that 1 less the larger has lost.
        """
        # A softmax does reach zero: bounded there, the loss and its gradient stay finite.
        logarithm = ops.log(ops.maximum(y_pred, TINY))
        value = ops.where(y_true[..., 0] > 0, self.weight * logarithm[..., 1], logarithm[..., 0])
        return -ops.mean(value, axis=(1, 2, 3)) / (self.weight + 1)

    def get_config(self):
        return {**super().get_config(), "weight": self.weight}


@keras.saving.register_keras_serializable("kerasgal")
class WeightedSquaredError(keras.losses.Loss):
    """Phase 2, Eq. 2: w (prediction - number of galaxies)^2, summed over the voxels that phase 1 calls occupied.

    w is `weight` in voxels with galaxies and 1 in those without: 1.05 in the paper, 0.95 in the authors' code. That
    code also counts the galaxies which phase 1 missed, a constant. In float32 whatever the precision policy.
    """

    def __init__(self, weight=1.05, name="weighted_squared_error", **kwargs):  # noqa: B042 an error, no exception
        super().__init__(name=name, dtype="float32", **{k: v for k, v in kwargs.items() if k != "dtype"})
        self.weight = weight

    def call(self, y_true, y_pred):
        """(batch,) whose mean is the loss.

        y_true: (batch, x, y, z, 2), [number of galaxies, 1 where phase 1 says occupied and else 0]; y_pred: (batch, x,
        y, z, 1) numbers of galaxies.
        """
        galaxies, occupied = y_true[..., :1], y_true[..., 1:]
        # Masked before it is squared: a large number elsewhere would overflow, and infinity times zero is no number.
        predicted = ops.where(occupied > 0, y_pred, galaxies)
        weight = ops.where(occupied > 0, ops.where(galaxies > 0, self.weight, 1.0), 0.0)
        return ops.sum(weight * self.of_cells(galaxies, predicted), axis=(1, 2, 3, 4))

    def of_cells(self, galaxies, predicted):
        """The loss of each cell."""
        return ops.square(predicted - galaxies)

    def get_config(self):
        return {**super().get_config(), "weight": self.weight}


@keras.saving.register_keras_serializable("kerasgal")
class WeightedPoisson(WeightedSquaredError):
    """Phase 2 by the likelihood of Poisson numbers: w (prediction - number ln prediction), summed likewise.

    As with Eq. 2 the best prediction is the expectation, if w is 1. But the error of a rich cell weighs less, as its
    number scatters more.
    """

    def __init__(self, weight=1.05, name="weighted_poisson", **kwargs):  # noqa: B042 an error, no exception
        super().__init__(weight, name, **kwargs)

    def of_cells(self, galaxies, predicted):
        return predicted - galaxies * ops.log(ops.maximum(predicted, LEAST))
