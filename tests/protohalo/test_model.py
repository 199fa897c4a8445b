from collections import Counter

import keras
import numpy as np
import pytest

from kerasgal.apps.protohalo.data import distance_map
from kerasgal.apps.protohalo.losses import NormalisedDistance
from kerasgal.apps.protohalo.model import receptive_radius, unet
from kerasgal.tiling import predict_box


def test_the_network_is_the_papers_table_1():
    model = unet()
    count = Counter(type(layer).__name__ for layer in model.layers)
    assert count["LeakyReLU"] == 27 and count["Dropout"] == 10 and count["MaxPooling3D"] == 5
    assert sum(layer.filters for layer in model.layers if isinstance(layer, keras.layers.Conv3DTranspose)) == 372
    assert model.count_params() == 14_590_741  # "14.5e6"
    assert model.layers[-1].slope == 0  # a native ReLU


def before(layer):
    """Names of the classes of the layers that a layer takes its inputs from."""
    inputs = layer.input if isinstance(layer.input, list) else [layer.input]
    return [type(tensor._keras_history.operation).__name__ for tensor in inputs]


def test_skips_split_off_before_dropout():
    """Sec. 3.1: after the second activation the data are split; along the second path are dropout and pooling."""
    model = unet(levels=2, filters=2, dropout=0.5)
    for layer in model.layers:
        if isinstance(layer, keras.layers.MaxPooling3D):
            assert before(layer) == ["Dropout"]
        if isinstance(layer, keras.layers.Concatenate):
            assert before(layer) == ["LeakyReLU", "Dropout"]  # the skip, and what comes up
        if isinstance(layer, keras.layers.Conv3D) and not isinstance(layer, keras.layers.Conv3DTranspose):
            assert "Dropout" not in before(layer)


def test_networks_of_earlier_versions_have_their_layers_and_the_same_weights():
    model = unet(levels=3, filters=2, dropout=0.5, arrangement="inner")
    count = Counter(type(layer).__name__ for layer in model.layers)
    assert count["LeakyReLU"] == 14 and count["Dropout"] == 7
    assert [weight.shape for weight in model.trainable_weights] == [weight.shape for weight in
                                                                    unet(3, 2).trainable_weights]


def test_networks_of_earlier_versions_predict_what_they_predicted():
    """Numbers are those of the code of then, before the ReLU."""
    model = unet(levels=2, filters=2, dropout=0.3, output_slope=0.05, arrangement="inner")
    for number, weight in enumerate(model.trainable_weights):
        weight.assign(0.4 * np.sin(np.arange(np.prod(weight.shape)) + number).reshape(weight.shape))
    box = np.cos(np.arange(512, dtype="f4")).reshape(1, 8, 8, 8, 1)
    found = np.asarray(keras.Model(model.input, model.layers[-2].output)(box))[0, ..., 0]
    np.testing.assert_allclose([found.mean(), found.max(), found[0, 0, 1], found[4, 3, 2]],
                               [-0.16797355, 0.013227861, -0.21068497, -0.025246019], rtol=1e-4)


def test_shapes_stay_and_predictions_are_never_negative():
    model = unet(levels=2, filters=4, dropout=0.5, output_slope=0.05)
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
    true[1] *= 0.01
    for power in (1, 2):
        difference = np.abs(true - predicted)[inner] ** power
        expected = difference.sum() / true[inner].sum()
        assert float(NormalisedDistance(2, power)(true, predicted)) == pytest.approx(expected, rel=1e-5)
        apart = np.mean([one.sum() / other.sum() for one, other in zip(difference, true[inner])])
        assert float(NormalisedDistance(2, power, "patch")(true, predicted)) == pytest.approx(apart, rel=1e-5)
    assert float(NormalisedDistance()(true, np.zeros_like(true))) == pytest.approx(1)


@pytest.mark.parametrize("over", ["batch", "patch"])
def test_without_a_halo_the_loss_is_a_mean(over):
    rng = np.random.default_rng(1)
    predicted = rng.uniform(size=(2, 8, 8, 8, 1)).astype("f4")
    none, inner = np.zeros_like(predicted), np.s_[:, 1:-1, 1:-1, 1:-1]
    assert float(NormalisedDistance(1, over=over)(none, predicted)) == pytest.approx(predicted[inner].mean())
    half = none.copy()
    half[0] = 0.5
    found = float(NormalisedDistance(over=over)(half, predicted))
    first, second = np.abs(half - predicted).mean(axis=(1, 2, 3, 4))
    assert found == pytest.approx((first + second) / 0.5 if over == "batch" else (first / 0.5 + second) / 2)


def test_a_map_of_zeros_scores_what_equation_3_gives():
    """sum g^2 / sum g, of distance maps of haloes."""
    halo_id = np.full((24, 24, 24), -1)
    halo_id[2:14, 3:12, 4:18] = 0
    halo_id[16:22, 3:12, 4:18] = 1
    true = distance_map(halo_id)[None, ..., None]
    found = float(NormalisedDistance(power=2)(true, np.zeros_like(true)))
    assert found == pytest.approx((true**2).sum() / true.sum(), rel=1e-5) and 0.4 < found < 0.7


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
