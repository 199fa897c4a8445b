
import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasgal.apps.halomass.model import cnn
from kerasgal.apps.halomass.regularizers import SparseGroups, convolution_prior, dense_prior

KERNEL = np.array([[3.0, -4.0], [0.0, 0.0], [1.0, 0.0]], "f4")  # three input neurons, two outputs


def test_priors_are_those_computed_by_hand():
    assert float(SparseGroups(0.1)(KERNEL)) == pytest.approx(0.1 * ((3 + 4 + 1) + (5 + 0 + 1)))
    assert float(convolution_prior(0.1)(KERNEL)) == pytest.approx(0.1 * (9 + 16 + 1))
    assert dense_prior(0.0) is None and convolution_prior(0.0) is None


def test_a_group_of_zeros_has_a_gradient():
    kernel = tf.Variable(KERNEL)
    with tf.GradientTape() as tape:
        value = SparseGroups(0.1)(kernel)
    expected = 0.1 * (np.sign(KERNEL) + np.array([[3 / 5, -4 / 5], [0, 0], [1, 0]]))
    np.testing.assert_allclose(tape.gradient(value, kernel), expected, rtol=1e-6)


def test_configurations_come_back():
    prior = SparseGroups(0.25)
    assert SparseGroups.from_config(prior.get_config()).alpha == 0.25
    assert keras.regularizers.deserialize(keras.regularizers.serialize(prior)).alpha == 0.25


@pytest.mark.parametrize("last", [False, True])
def test_only_kernels_have_priors_each_its_own(last):
    """The last layer, as in the authors' code, has none unless it is asked for."""
    model = cnn(9, convolutions=2, filters=2, dense=(4, 2), convolution_prior=convolution_prior(0.5),
                dense_prior=dense_prior(0.5), last_prior=dense_prior(0.5) if last else None)
    expected = 0.0
    for layer in model.layers:
        if hasattr(layer, "kernel"):
            kernel = np.asarray(layer.kernel, np.float64)
            if kernel.ndim == 5:
                expected += 0.5 * (kernel**2).sum()
            elif last or layer.name != "prediction":
                expected += 0.5 * (np.abs(kernel).sum() + np.sqrt((kernel**2).sum(axis=1)).sum())
            layer.bias.assign(np.full(layer.bias.shape, 7.0))  # free
    assert float(sum(model.losses)) == pytest.approx(expected, rel=1e-5)
