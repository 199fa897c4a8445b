"""The losses by hand, against TensorFlow's own weighted cross-entropy, and where float32 ends."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasgal.apps.cascade.losses import WeightedCrossEntropy, WeightedPoisson, WeightedSquaredError

TINY = 1.17549435e-38  # float32's smallest normal number


def cube(*values):
    """(1, 1, 1, voxels, channels)"""
    return np.array(values, "f4").reshape(1, 1, 1, len(values), -1)


def value_and_gradient(loss, y_true, y_pred):
    y_pred = tf.Variable(y_pred)
    with tf.GradientTape() as tape:
        value = loss(y_true, y_pred)
    return value.numpy(), tape.gradient(value, y_pred).numpy()


def test_cross_entropy_by_hand():
    galaxies = cube(0, 1, 3, 0)
    probabilities = cube([0.75, 0.25], [0.5, 0.5], [0.2, 0.8], [0.9, 0.1])
    expected = -(np.log(0.75) + 500 * np.log(0.5) + 500 * np.log(0.8) + np.log(0.9)) / 4 / 501
    assert float(WeightedCrossEntropy()(galaxies, probabilities)) == pytest.approx(expected, rel=1e-6)


def test_cross_entropy_is_tensorflows():
    rng = np.random.default_rng(0)
    galaxies, logit = rng.poisson(0.1, (3, 4, 5, 6, 1)), rng.normal(0, 5, (3, 4, 5, 6, 1))
    voxels = tf.nn.weighted_cross_entropy_with_logits((galaxies > 0).astype("f8"), logit, 20.0).numpy() / 21
    p = 1 / (1 + np.exp(-logit))
    result = WeightedCrossEntropy(20.0, reduction="none")(galaxies, np.concatenate([1 - p, p], axis=-1))
    np.testing.assert_allclose(result, voxels.mean(axis=(1, 2, 3, 4)), rtol=2e-6)


def test_both_probabilities_are_used_as_they_are():
    """1 - 1e-12 is 1 in float32; its complement still tells how wrong the classifier is."""
    result = float(WeightedCrossEntropy(500.0)(cube(0, 1), cube([1e-12, 1], [1, 1e-20])))
    assert result == pytest.approx(-(np.log(1e-12) + 500 * np.log(1e-20)) / 2 / 501, rel=1e-6)


def test_cross_entropy_of_certainties():
    worst = -np.log(TINY)
    certain = cube([1, 0], [0, 1])
    right, slope = value_and_gradient(WeightedCrossEntropy(9.0), cube(0, 2), certain)
    assert right == 0 and np.isfinite(slope).all()
    for truth, expected in (((1, 0), worst / 2), ((1, 1), 0.9 * worst / 2), ((0, 0), 0.1 * worst / 2)):
        wrong, slope = value_and_gradient(WeightedCrossEntropy(9.0), cube(*truth), certain)
        assert wrong == pytest.approx(expected, rel=1e-6) and np.isfinite(slope).all()
    edge = cube([TINY, 1], [1, TINY])
    assert np.isfinite(value_and_gradient(WeightedCrossEntropy(), cube(0, 1), edge)[1]).all()


@pytest.mark.parametrize("logit", [1e-3, 1.0, 30.0, 80.0, 100.0, 1e4])
def test_the_gradient_behind_the_softmax_is_finite(logit):
    logits = tf.Variable(cube([logit, 0], [0, logit]))  # all wrong
    with tf.GradientTape() as tape:
        value = WeightedCrossEntropy(3.0)(cube(1, 0), tf.nn.softmax(logits))
    gradient = tape.gradient(value, logits).numpy()
    p = 1 / (1 + np.exp(-logit)) if logit < 87 else 0  # beyond, the bound leaves no slope
    np.testing.assert_allclose(gradient[0, 0, 0], [[3 * p / 8, -3 * p / 8], [-p / 8, p / 8]], rtol=1e-5)


def test_samples_without_a_galaxy_weigh_like_others():
    """Each sub-cube's loss depends on itself alone, whatever else is in the batch."""
    rng = np.random.default_rng(1)
    galaxies = np.stack([np.zeros((4, 4, 4, 1)), rng.integers(0, 3, (4, 4, 4, 1)), np.ones((4, 4, 4, 1))])
    p = rng.uniform(size=galaxies.shape)
    probabilities = np.concatenate([1 - p, p], axis=-1)
    loss = WeightedCrossEntropy(reduction="none")
    together = np.asarray(loss(galaxies, probabilities))
    alone = [float(loss(galaxies[i:i + 1], probabilities[i:i + 1])[0]) for i in range(3)]
    np.testing.assert_allclose(together, alone, rtol=1e-6)
    assert together[0] == pytest.approx(-np.log(1 - p[0]).mean() / 501, rel=1e-5)
    assert together[2] == pytest.approx(-np.log(p[2]).mean() * 500 / 501, rel=1e-5)
    assert float(WeightedCrossEntropy()(galaxies, probabilities)) == pytest.approx(together.mean(), rel=1e-6)


def test_squared_error_by_hand():
    truth = cube([0, 1], [2, 1], [5, 0], [0, 0])  # number of galaxies, mask
    predicted = cube(0.5, 1.0, 0.0, 3.0)
    value, gradient = value_and_gradient(WeightedSquaredError(), truth, predicted)
    assert value == pytest.approx(0.25 + 1.05 * 1)
    np.testing.assert_allclose(gradient.ravel(), [2 * 0.5, -2 * 1.05, 0, 0])
    assert float(WeightedSquaredError(0.95)(truth, predicted)) == pytest.approx(0.25 + 0.95)


def test_squared_error_is_the_sum_of_each_sub_cube():
    rng = np.random.default_rng(2)
    galaxies, mask = rng.poisson(0.5, (3, 4, 5, 6, 1)), rng.integers(0, 2, (3, 4, 5, 6, 1))
    mask[1] = 0
    predicted = rng.uniform(0, 3, galaxies.shape)
    result = WeightedSquaredError(2.0, reduction="none")(np.concatenate([galaxies, mask], axis=-1), predicted)
    for i in range(3):
        square = (predicted[i] - galaxies[i])**2
        expected = square[mask[i] > 0].sum() + square[(mask[i] > 0) & (galaxies[i] > 0)].sum()  # these twice
        assert float(result[i]) == pytest.approx(expected, rel=1e-5)
    assert float(result[1]) == 0


@pytest.mark.parametrize("elsewhere", [3e38, np.inf, np.nan])
def test_what_is_predicted_outside_the_mask_is_of_no_account(elsewhere):
    value, gradient = value_and_gradient(WeightedSquaredError(), cube([1, 1], [2, 0]), cube(2.0, elsewhere))
    assert value == pytest.approx(1.05)
    np.testing.assert_allclose(gradient.ravel(), [2.1, 0])


def test_poisson_by_hand_and_its_best_is_the_mean():
    truth = cube([0, 1], [2, 1], [5, 0], [0, 0])
    predicted = cube(0.5, 3.0, 1.0, 7.0)
    assert float(WeightedPoisson(2.0)(truth, predicted)) == pytest.approx(0.5 + 2 * (3 - 2 * np.log(3)), rel=1e-6)
    numbers = np.random.default_rng(0).poisson(1.7, 400)
    many = cube(*np.stack([numbers, np.ones(400)], axis=1))
    _, gradient = value_and_gradient(WeightedPoisson(1.0), many, np.full(many.shape[:-1] + (1,), numbers.mean(), "f4"))
    assert gradient.sum() == pytest.approx(0, abs=1e-3)
    value, gradient = value_and_gradient(WeightedPoisson(), cube([1, 1], [2, 0], [3, 1]), cube(0.0, np.nan, -1.0))
    assert np.isfinite(value) and np.isfinite(gradient).all()


@pytest.mark.parametrize("loss, truth, predicted", [
    (WeightedPoisson, cube([0, 1], [3, 1]), cube(0.001, 3.002)),
    (WeightedCrossEntropy, cube(0, 1), cube([0.998, 0.002], [0.2, 0.8])),
    (WeightedSquaredError, cube([0, 1], [3, 1]), cube(0.001, 3.002))])
def test_losses_are_float32_and_survive_their_configuration(loss, truth, predicted):
    expected = float(loss(7.0)(truth, predicted))
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        made = loss(7.0)
    finally:
        keras.config.set_dtype_policy("float32")
    again = keras.losses.deserialize(keras.losses.serialize(made))
    assert type(again) is loss and again.weight == 7 and again.name == made.name
    for one in (made, again):
        result = one(truth, predicted)
        assert result.dtype == "float32" and float(result) == pytest.approx(expected, rel=1e-6)
