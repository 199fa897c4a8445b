import keras
import numpy as np
import pytest

from kerasgal.muon import Muon
from kerasgal.training import TrainingConfig, optimizer

RATE = 0.01


def stepped(made, kernel, gradient, name="kernel"):
    """A weight after one step of an optimiser."""
    weight = keras.Variable(kernel, name=name)
    made.build([weight])
    made.apply([keras.ops.convert_to_tensor(gradient)])
    return keras.ops.convert_to_numpy(weight)


def random(*shape):
    rng = np.random.default_rng(0)
    return rng.standard_normal(shape, dtype=np.float32), rng.standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize("shape", [(3, 3, 3, 4, 16), (3, 3, 8, 5), (2, 2, 2, 6, 300)])
def test_a_step_of_a_kernel_is_a_matrix_of_like_singular_values_as_long_as_a_step_of_adam(shape):
    kernel, gradient = random(*shape)
    step = (kernel - stepped(Muon(RATE), kernel, gradient)).reshape(-1, shape[-1])
    gradient = gradient.reshape(step.shape)
    left, _, right = np.linalg.svd(gradient, full_matrices=False)
    values = np.linalg.svd(step, compute_uv=False)
    # Five Newton-Schulz steps bring singular values of such matrices between 0.7 and 1.2
    assert values.max() / values.min() < 2
    np.testing.assert_allclose(np.mean(values), 0.2 * RATE * max(step.shape)**0.5, rtol=0.2)
    # The same singular vectors: the matrix of the gradient's sign, so to say
    sign = left @ right
    assert np.sum(step * sign) / np.linalg.norm(step) / np.linalg.norm(sign) > 0.98


def test_a_step_of_a_matrix_is_that_of_keras():
    kernel, gradient = random(12, 7)
    made = stepped(keras.optimizers.Muon(RATE, weight_decay=None, adam_weight_decay=None), kernel, gradient)
    np.testing.assert_allclose(stepped(Muon(RATE, weight_decay=None), kernel, gradient), made, atol=1e-6)


@pytest.mark.parametrize("name, shape", [("bias", (16,)), ("gamma", (3, 16)), ("kernel", (3, 3, 3, 8, 1))])
def test_what_is_no_kernel_or_the_last_one_is_stepped_by_adam(name, shape):
    kernel, gradient = random(*shape)
    made = stepped(Muon(RATE, weight_decay=None, adam_weight_decay=None), kernel, gradient, name)
    np.testing.assert_allclose(made, stepped(keras.optimizers.Adam(RATE), kernel, gradient), atol=1e-6)


def test_kernels_of_all_networks_are_matrices_also_where_weights_are_normalised():
    kernel, gradient = random(3, 3, 4, 8)
    made = stepped(Muon(RATE, weight_decay=None, adam_weight_decay=None), kernel, gradient, "v")
    assert np.abs(made - stepped(keras.optimizers.Adam(RATE), kernel, gradient)).max() > RATE / 10


def test_the_setting_chooses_the_optimiser():
    chosen = TrainingConfig(optimizer="muon", learning_rate=2e-3, gradient_norm=1.0, averaging=0.9, accumulation=2)
    made = optimizer(chosen, weight_decay=0.1)
    assert isinstance(made, Muon) and made.global_clipnorm == 1 and made.ema_momentum == 0.9 and made.use_ema
    assert made.gradient_accumulation_steps == 2 and made.weight_decay == made.adam_weight_decay == 0.1
    assert type(optimizer(TrainingConfig(), amsgrad=True)) is keras.optimizers.Adam


def test_nothing_decays_where_no_decay_is_asked_for():
    kernel, gradient = random(4, 4)
    for name in ("kernel", "bias"):
        made = optimizer(TrainingConfig(optimizer="muon", learning_rate=RATE))
        np.testing.assert_array_equal(stepped(made, kernel, np.zeros_like(gradient), name), kernel)
