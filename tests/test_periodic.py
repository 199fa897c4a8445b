"""A whole periodic box at once, against tiles whose context reaches as far as the network sees."""

import harness
import keras
import numpy as np
import pytest
from scipy import ndimage

from kerasgal import tiling
from kerasgal.apps.cascade import model as cascade
from kerasgal.apps.protohalo.model import receptive_radius, unet
from kerasgal.periodic import largest, periodic

pytestmark = pytest.mark.usefixtures("eager")


def networks():
    keras.utils.set_random_seed(1)
    yield "unet", unet(levels=2, filters=2, dropout=0.5), receptive_radius(2), 4
    yield "inception", cascade.scaled(cascade.inception(), "log"), cascade.INCEPTION_RADIUS, 1
    yield "r2unet", cascade.r2unet(filters=2, t=0, output_slope=1.0), cascade.r2unet_radius(0), 8
    classifier = cascade.scaled(cascade.r2unet(outputs=2, filters=2, t=0), "log", "classify")
    regressor = cascade.scaled(cascade.r2unet(filters=2, t=0, output_slope=1.0), "log", "regress")
    yield "cascade", cascade.cascade(classifier, regressor, 0.5), cascade.r2unet_radius(0), 8


NETWORKS = {name: made for name, *made in networks()}


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=pytest.mark.slow) if name in ("cascade", "r2unet") else name for name in NETWORKS])
def test_the_whole_box_is_what_wide_tiles_make(name):
    network, radius, multiple = NETWORKS[name]
    harness.disturbed(network)
    field = np.random.default_rng(0).lognormal(size=(16, 16, 16, 1)).astype(np.float32)
    context = -(-radius // multiple) * multiple
    tiled = tiling.predict_box(network, field, tile=8 + 2 * context, context=context, multiple=multiple)
    whole = tiling.predict_whole(network, field, radius=radius, patch=8, multiple=multiple)
    assert np.abs(tiled).max() > 0
    np.testing.assert_allclose(whole, tiled, rtol=1e-4, atol=1e-5 * np.abs(tiled).max())


def test_a_convolution_is_scipys_in_a_periodic_box():
    kernel = np.random.default_rng(0).normal(size=(3, 5, 3)).astype(np.float32)
    layer = keras.layers.Conv3D(1, kernel.shape, padding="same", use_bias=False)
    network = keras.Sequential([keras.Input((None, None, None, 1)), layer])
    layer.set_weights([kernel[..., None, None]])
    field = np.random.default_rng(1).normal(size=(6, 7, 8)).astype(np.float32)
    found = np.asarray(periodic(network)(field[None, ..., None]))[0, ..., 0]
    np.testing.assert_allclose(found, ndimage.correlate(field, kernel, mode="wrap"), atol=1e-5)


def test_the_copy_follows_the_networks_weights():
    layer = keras.layers.Conv2D(1, 3, padding="same")
    network = keras.Sequential([keras.Input((None, None, 1)), layer])
    field = np.ones((1, 4, 4, 1), np.float32)
    before = np.asarray(periodic(network)(field))
    layer.set_weights([2 * weight for weight in layer.get_weights()])
    np.testing.assert_allclose(periodic(network)(field), 2 * before, rtol=1e-6)


def test_what_is_alive_at_once_is_counted_through_skips():
    x = inputs = keras.Input((None, None, None, 1))
    skip = keras.layers.Conv3D(4, 3, padding="same")(x)
    x = keras.layers.MaxPooling3D(2)(skip)
    x = keras.layers.UpSampling3D(2)(keras.layers.Conv3D(8, 1)(x))
    network = keras.Model(inputs, keras.layers.Concatenate()([skip, x]))
    # the skip, what was upsampled, and both together
    assert largest(network, side=4) == 4 + 8 + 12
    assert largest(keras.Sequential([keras.Input((None, None, None, 1)), network]), side=4) == 24


def test_where_memory_does_not_hold_the_box_tiles_reach_as_far_as_the_network_sees(monkeypatch, caplog):
    caplog.set_level("INFO")
    layers = [keras.layers.Conv3D(width, 3, padding="same") for width in (2, 1)]
    network = keras.Sequential([keras.Input((None, None, None, 1)), *layers])
    field = np.random.default_rng(0).normal(size=(10, 10, 10, 1)).astype(np.float32)
    options = {"radius": 2, "patch": 4}
    whole = tiling.predict_whole(network, field, **options)
    monkeypatch.setattr(tiling, "free_memory", lambda: 8**3 * 4 * largest(network) / tiling.SHARE + 1)
    assert tiling.choose_tiles((10,) * 3, numbers=largest(network), **options) == (8, 2)
    tiled, again = tiling.predict_whole(network, field, **options), np.empty_like(field)
    np.testing.assert_allclose(tiled, whole, rtol=1e-4, atol=1e-5 * np.abs(whole).max())
    assert tiling.predict_whole(network, field, **options, store=again.__setitem__) is None and not caplog.messages
    np.testing.assert_array_equal(again, tiled)


def test_where_memory_does_not_hold_what_the_network_sees_a_line_says_so(monkeypatch, caplog):
    caplog.set_level("INFO")
    network, radius, multiple = NETWORKS["unet"]
    field = np.random.default_rng(0).normal(size=(16, 16, 16, 1)).astype(np.float32)
    monkeypatch.setattr(tiling, "free_memory", lambda: 16**3 * 4 * largest(network) / tiling.SHARE - 1)
    found = tiling.predict_whole(network, field, radius=radius, patch=8, multiple=multiple)
    np.testing.assert_array_equal(found, tiling.predict_box(network, field, tile=12, context=4, multiple=multiple))
    line, = caplog.messages
    assert f"tiles of 12 cells, of which 4 at every border are left out; the network sees {radius}" in line


@pytest.mark.parametrize("given, chosen", [
    ({}, None), ({"tile": 64}, (64, 24)), ({"tile": 48}, (48, 8)), ({"tile": 24}, (24, 8)), ({"context": 8}, (32, 8)),
    ({"tile": 40, "context": 0}, (40, 0))])
def test_tiles_that_are_given_have_the_context_that_leaves_a_core(given, chosen):
    assert tiling.choose_tiles((64,) * 3, numbers=10, radius=20, patch=16, multiple=8, **given) == chosen
    assert tiling.choose_tiles((64, 60, 64), numbers=10, radius=20, patch=16, multiple=8) == (112, 24)  # not at once


def test_a_network_of_several_inputs_is_counted_and_wrapped_too():
    """The diffusion model's: a map, and a number that belongs to all of it."""
    from kerasgal.apps.cascade.diffusion.network import score_network

    options = {"filters": 4, "levels": 1, "groups": 2, "dropout": 0.0, "fourier": False, "scaling": "log",
               "gamma_min": -5.0, "gamma_max": 5.0, "epsilon": 1e-3, "projections": True, "standardise": True}
    plain, attentive = (score_network(2, 1, attention=attention, **options) for attention in (False, True))
    for network in (plain, attentive):
        harness.disturbed(network)
        rng, numbers = np.random.default_rng(0), [np.array([2.0], "f4"), np.array([[0.3]], "f4")]
        fields = [rng.lognormal(size=(1, 16, 16, 1)).astype("f4") for _ in range(2)]
        found = np.asarray(periodic(network)([*fields, *numbers]))
        shifted = np.asarray(periodic(network)([*(np.roll(field, 4, (1, 2)) for field in fields), *numbers]))
        np.testing.assert_allclose(np.roll(found, 4, (1, 2)), shifted, atol=1e-4 * np.abs(found).max())
    assert largest(attentive, 64) * 64**2 >= 32**4 > largest(plain, 64) * 64**2
