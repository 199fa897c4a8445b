
import keras
import numpy as np
import pytest

from kerasgal.apps.protohalo.losses import NormalisedDistance
from kerasgal.apps.protohalo.model import receptive_radius, unet
from kerasgal.tiling import predict_box


def test_the_papers_number_of_parameters():
    assert unet().count_params() == 14_590_741  # "14.5e6"


def test_shapes_stay_and_predictions_are_never_negative():
    model = unet(levels=2, filters=4, dropout=0.5)
    box = np.random.default_rng(0).normal(size=(2, 8, 12, 16, 1))
    predicted = model(box)
    assert predicted.shape == box.shape and float(keras.ops.min(predicted)) == 0
    assert float(keras.ops.min(model(box, training=True))) < 0  # the gradient survives below zero
    assert float(keras.ops.min(unet(2, 4, 0.0, output_slope=0.0)(box, training=True))) == 0


@pytest.mark.parametrize("levels", [1, 2])
def test_nothing_beyond_the_receptive_radius_is_seen(levels):
    keras.utils.set_random_seed(levels)
    model = unet(levels, 4, dropout=0.0, output_slope=0.0)
    reach, n = receptive_radius(levels), 96
    before = np.random.default_rng(0).normal(size=(1, n, 8, 8, 1)).astype("f4")
    after = before.copy()
    after[:, n // 2] += 5.0
    # The layer before the clipping, where no change is hidden.
    inner = keras.Model(model.input, model.layers[-2].output)
    changed = np.flatnonzero(np.abs(inner(after) - inner(before)).max(axis=(0, 2, 3, 4)) > 1e-7)
    assert n // 2 - reach <= changed.min() and changed.max() <= n // 2 + reach
    assert changed.max() - changed.min() > reach  # it is not a trivial bound


@pytest.mark.parametrize("n", [20, 17])
def test_tiled_equals_whole(n):
    keras.utils.set_random_seed(0)
    model = unet(levels=1, filters=4, dropout=0.0)
    field = np.random.default_rng(n).normal(size=(n, n, n, 1)).astype("f4")
    halo = receptive_radius(1) + receptive_radius(1) % 2
    tiled = predict_box(model, field, tile=8 + 2 * halo, context=halo, multiple=2)
    whole = predict_box(model, field, tile=n + n % 2 + 2 * halo, context=halo, multiple=2)
    assert whole.std() > 0
    np.testing.assert_allclose(tiled, whole, atol=1e-5)


def test_the_loss_is_the_normalised_distance_of_the_inner_cells():
    rng = np.random.default_rng(0)
    true, predicted = rng.uniform(size=(2, 3, 8, 8, 8, 1)).astype("f4")
    inner = np.s_[:, 2:6, 2:6, 2:6]
    for power in (1, 2):
        expected = (np.abs(true - predicted)[inner] ** power).sum() / (true[inner] ** power).sum()
        assert float(NormalisedDistance(2, power)(true, predicted)) == pytest.approx(expected, rel=1e-5)
    assert float(NormalisedDistance()(true, np.zeros_like(true))) == pytest.approx(1)
    assert np.isfinite(float(NormalisedDistance()(np.zeros_like(true), predicted)))


def test_the_loss_is_in_float32_whatever_the_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        loss, model = NormalisedDistance(2, 1), unet(1, 4)
    finally:
        keras.config.set_dtype_policy("float32")
    true = np.random.default_rng(0).uniform(size=(1, 16, 16, 16, 1)).astype("f4")
    assert loss(true, 1.001 * true).dtype == "float32"
    assert float(loss(true, 1.001 * true)) == pytest.approx(0.001, rel=1e-2)
    assert model(true).dtype == "float32" and model.layers[1].compute_dtype == "bfloat16"
