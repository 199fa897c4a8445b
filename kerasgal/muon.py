"""Muon for convolutions.

Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon): a step of a matrix of weights is its momentum with all
singular values brought near to one. Keras has it for matrices alone.
"""

import keras


class Muon(keras.optimizers.Muon):
    """Keras' Muon, of kernels of convolutions, too: each is the matrix of its filters and what they see.

    Of a transposed convolution it is that of what is seen and what is made of it. Biases, scales, and kernels whose
    last axis is one are stepped by Adam at the same rate. Steps are as long as Adam's usually are (Liu et al. 2025,
    arXiv:2502.16982, Sec. 2.2).

    Examples
    --------
    >>> from kerasgal.muon import Muon
    >>> Muon(1e-3).name
    'muon'
    """

    def _should_use_adamw(self, variable):
        return variable.name not in ("kernel", "v") or variable.shape[-1] < 2  # v: of a weight-normalised one

    def zeropower_via_newtonschulz5(self, x, steps):
        """The nearest matrix with all singular values alike, nearly, of a kernel of any rank."""
        return keras.ops.reshape(super().zeropower_via_newtonschulz5(as_matrix(x), steps), x.shape)

    def lr_adjust(self, x):
        """The step brought to the length of Adam's."""
        return keras.ops.reshape(super().lr_adjust(as_matrix(x)), x.shape)


def as_matrix(kernel):
    """A kernel of any rank as the matrix of its last axis and all others."""
    return keras.ops.reshape(kernel, (-1, kernel.shape[-1]))
