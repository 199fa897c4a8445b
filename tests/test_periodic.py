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


def networks():
    keras.utils.set_random_seed(1)
    yield "unet", unet(levels=2, filters=2, dropout=0.5), receptive_radius(2), 4
    yield "inception", cascade.scaled(cascade.inception(), "log"), cascade.INCEPTION_RADIUS, 1
    yield "r2unet", cascade.r2unet(filters=2, t=0, output_slope=1.0), cascade.r2unet_radius(0), 8
    classifier = cascade.scaled(cascade.r2unet(outputs=2, filters=2, t=0), "log", "classify")
    regressor = cascade.scaled(cascade.r2unet(filters=2, t=0, output_slope=1.0), "log", "regress")
    yield "cascade", cascade.cascade(classifier, regressor, 0.5), cascade.r2unet_radius(0), 8


NETWORKS = {name: made for name, *made in networks()}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_whole_box_is_what_wide_tiles_make(name):
    network, radius, multiple = NETWORKS[name]
    harness.disturbed(network)
    field = np.random.default_rng(0).lognormal(size=(16, 16, 16, 1)).astype(np.float32)
    context = -(-radius // multiple) * multiple
    tiled = tiling.predict_box(network, field, tile=8 + 2 * context, context=context, multiple=multiple)
    whole = tiling.predict_whole(network, field, tile=0, context=0, radius=radius, multiple=multiple)
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


def test_without_memory_the_box_is_tiled_and_a_short_context_is_said(monkeypatch, caplog):
    caplog.set_level("INFO")
    network, radius, multiple = NETWORKS["unet"]
    field = np.random.default_rng(0).normal(size=(16, 16, 16, 1)).astype(np.float32)
    options = {"tile": 16, "context": 4, "multiple": multiple}
    monkeypatch.setattr(tiling, "free_memory", lambda: 2**16)
    found = tiling.predict_whole(network, field, radius=radius, **options)
    np.testing.assert_array_equal(found, tiling.predict_box(network, field, **options))
    line, = caplog.messages
    assert f"tiles of 16 cells, of which 4 at every border are left out; the network sees {radius}" in line
