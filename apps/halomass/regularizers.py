"""The priors on the weights, Eq. 7 of Lucie-Smith et al. 2020, as Keras regularizers; biases are free."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("kerasgal")
class SparseGroups(keras.regularizers.Regularizer):
    """alpha times [sum of |w| + sum over groups of the root of the group's sum of squares], in float32.

    For a dense kernel (inputs, outputs). A group is what leaves one input neuron: the group lasso switches off neurons,
    the L1 term single weights.
    """

    def __init__(self, alpha):
        self.alpha = alpha

    def __call__(self, kernel):
        kernel = ops.cast(kernel, "float32")
        squares = ops.sum(ops.square(kernel), axis=-1)
        # The root's gradient at zero is infinite, and infinity times zero is NaN: a group of zeros takes another root.
        alive = squares > 0
        norms = ops.where(alive, ops.sqrt(ops.where(alive, squares, 1.0)), 0.0)
        return self.alpha * (ops.sum(ops.abs(kernel)) + ops.sum(norms))

    def get_config(self):
        return {"alpha": self.alpha}


def convolution_prior(alpha):
    """alpha times the sum of squares of a convolution kernel: the Gaussian prior."""
    return keras.regularizers.L2(alpha) if alpha else None


def dense_prior(alpha):
    """The Laplacian prior and the group lasso on a dense kernel."""
    return SparseGroups(alpha) if alpha else None
