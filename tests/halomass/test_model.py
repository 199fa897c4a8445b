import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasgal.apps.halomass.model import Scales, cnn, filters_of
from kerasgal.apps.halomass.shells import shell_index


def trainable(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


def test_the_papers_number_of_parameters():
    """Layer by layer by hand: 27 kernel cells, 3^3 cells of 128 filters that are left, biases, and gamma."""
    widths = [1, 32, 32, 64, 128, 128, 128]
    expected = sum(27 * before * after + after for before, after in zip(widths, widths[1:]))
    expected += 3456 * 256 + 256 + 256 * 128 + 128 + 128 + 1 + 1
    assert expected == 2_108_258 == trainable(cnn()) == trainable(cnn(shells=20))
    assert filters_of(32, 6) == widths[1:]


def test_the_scales_are_positive_float32_and_the_same_for_all():
    layer = Scales([0.2, 3.0], [0.0, 1.0], dtype="float16")
    out = np.asarray(layer(np.array([[0.5], [-0.3], [2.0]], "f4")))
    np.testing.assert_allclose(out, [[0.5, 0.2, 3.0], [-0.3, 0.2, 3.0], [2.0, 0.2, 3.0]], rtol=1e-6)
    fast = Scales([0.2, 3.0], [0.0, 1.0], rate=10.0)
    np.testing.assert_allclose(fast(np.array([[0.5]], "f4")), [[0.5, 0.2, 3.0]], rtol=1e-6)
    fast.log_scales.assign_add([0.01, 0.01])
    np.testing.assert_allclose(fast(np.array([[0.5]], "f4"))[0, 1], 0.2 * np.exp(0.1), rtol=1e-5)
    layer.log_scales.assign([-40.0, -40.0])
    out = np.asarray(layer(np.array([[0.5]], "f4")))
    assert out[0, 1] > 0 and out[0, 2] >= 1 and layer.compute_dtype == layer.variable_dtype == "float32"
    again = Scales.from_config(layer.get_config())
    assert again.initial == [0.2, 3.0] and again.least == [0.0, 1.0]


@pytest.mark.parametrize("policy, compute", [("mixed_bfloat16", "bfloat16"), ("mixed_float16", "float16")])
def test_head_and_scales_are_float32_under_every_policy(policy, compute):
    keras.config.set_dtype_policy(policy)
    try:
        model = cnn(9, convolutions=2, filters=2, dense=(4, 2))
    finally:
        keras.config.set_dtype_policy("float32")
    computed = {layer.name.split("_")[0]: layer.compute_dtype for layer in model.layers}
    assert computed["conv3d"] == computed["dense"] == compute
    assert computed["prediction"] == computed["scales"] == computed["standardise"] == "float32"
    assert all(weight.dtype == "float32" for weight in model.weights) and model.output.dtype == "float32"


def test_bfloat16_predicts_what_float32_does():
    cube = 20 * np.random.default_rng(0).normal(size=(4, 11, 11, 11, 1)).astype("f4")
    outputs = []
    for policy in ("float32", "mixed_bfloat16"):
        keras.config.set_dtype_policy(policy)
        try:
            keras.utils.set_random_seed(0)
            model = cnn(11, convolutions=3, filters=4, dense=(8, 4))
        finally:
            keras.config.set_dtype_policy("float32")
        outputs.append(model.predict_on_batch(cube))
    # On processors without instructions for it TensorFlow sums in bfloat16, too: 0.033 here, else 0.013.
    np.testing.assert_allclose(outputs[1], outputs[0], atol=0.05)
    assert not np.array_equal(*outputs) and np.std(outputs[0][:, 0]) > 0.02


def test_the_shells_of_a_cube_are_its_averages_and_zero_beyond():
    model = cnn(9, convolutions=2, filters=2, dense=(4, 2), shells=3)
    layer = model.get_layer(index=1)
    averages = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], "f4")
    cubes, index = np.asarray(layer(averages)), shell_index(9, 3)
    assert cubes.shape == (2, 9, 9, 9, 1)
    for cell in np.ndindex(9, 9, 9):
        expected = averages[:, index[cell]] if index[cell] < 3 else 0
        np.testing.assert_array_equal(cubes[(slice(None), *cell, 0)], expected)


def test_the_standardisation_is_not_trained():
    model = cnn(9, convolutions=2, filters=2, dense=(4, 2))
    layer = model.get_layer("standardise") if "standardise" in [x.name for x in model.layers] else model.layers[1]
    layer.mean.assign([2.0])
    layer.deviation.assign([4.0])
    np.testing.assert_allclose(layer(np.full((1, 9, 9, 9, 1), 10.0, "f4")), 2.0)
    assert len(layer.trainable_weights) == 0 and len(layer.weights) == 2


def test_gamma_learns_with_the_weights():
    from kerasgal.apps.halomass.losses import SelectionLikelihood

    model = cnn(9, convolutions=2, filters=2, dense=(4, 2))
    with tf.GradientTape() as tape:
        predicted = model(np.random.default_rng(0).normal(size=(3, 9, 9, 9, 1)).astype("f4"))
        value = SelectionLikelihood()(np.zeros((3, 1), "f4"), predicted)
    gradient = tape.gradient(value, model.get_layer("scales").log_scales.value)
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 1e-4
