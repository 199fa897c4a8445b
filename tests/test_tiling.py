import keras
import numpy as np
import pytest
from scipy import ndimage

from kerasgal.errors import DataError
from kerasgal.tiling import Mirrored, mirrored_network, predict_box


def convolution(kernel):
    inputs = keras.Input((None, None, None, 1))
    layer = keras.layers.Conv3D(1, kernel.shape, padding="same", use_bias=False)
    model = keras.Model(inputs, layer(inputs))
    layer.set_weights([kernel[..., None, None]])
    return model


@pytest.mark.parametrize("n, tile, context, batch", [(16, 8, 2, 1), (13, 8, 1, 3), (7, 12, 3, 2), (5, 30, 4, 1)])
def test_tiles_give_the_periodic_convolution(n, tile, context, batch):
    rng = np.random.default_rng(n)
    field, kernel = rng.normal(size=(n, n, n, 1)).astype("f4"), rng.normal(size=(3, 3, 3)).astype("f4")
    predicted = predict_box(convolution(kernel), field, tile=tile, context=context, batch=batch)
    np.testing.assert_allclose(predicted[..., 0], ndimage.correlate(field[..., 0], kernel, mode="wrap"), atol=1e-5)


def test_the_mean_over_mirror_images_is_the_convolution_by_the_mean_kernel():
    rng = np.random.default_rng(0)
    field, kernel = rng.normal(size=(8, 6, 10, 1)).astype("f4"), rng.normal(size=(3, 3, 3)).astype("f4")
    model = convolution(kernel)
    for axis in range(3):
        kernel = (kernel + np.flip(kernel, axis)) / 2
    predicted = predict_box(Mirrored(model), field, tile=6, context=1)
    np.testing.assert_allclose(predicted[..., 0], ndimage.correlate(field[..., 0], kernel, mode="wrap"), atol=1e-5)


@pytest.mark.parametrize("vector", [None, 1])
def test_a_vector_is_mirrored_with_its_axes(vector):
    """A sum over channels keeps of a vector nothing, and of three numbers that are none their sum."""
    inputs = keras.Input((None, None, None, 4))
    model = keras.Model(inputs, keras.ops.sum(inputs, axis=-1, keepdims=True))
    field = np.random.default_rng(1).normal(size=(2, 4, 4, 4, 4)).astype("f4")
    expected = field.sum(axis=-1, keepdims=True) if vector is None else field[..., :1]
    np.testing.assert_allclose(Mirrored(model, vector).predict_on_batch(field), expected, atol=1e-6)
    np.testing.assert_allclose(mirrored_network(model, vector)(field), expected, atol=1e-6)


class Breaks:
    """A model that runs out of memory on more than `cells` cells."""

    def __init__(self, cells):
        self.cells = cells

    def predict_on_batch(self, blocks):
        if blocks.size > self.cells:
            raise MemoryError
        return blocks * 2


def test_out_of_memory_halves_the_tile_and_says_so(caplog):
    field = np.random.default_rng(0).normal(size=(16, 16, 16, 1)).astype("f4")
    predicted = predict_box(Breaks(1000), field, tile=20, context=2, multiple=2)
    np.testing.assert_array_equal(predicted, field * 2)
    assert caplog.messages[0] == "out of memory: going on with tiles of 12 x 20 x 20" and len(caplog.messages) == 5
    with pytest.raises(DataError, match="out of memory even with tiles of 6 x 6 x 6"):
        predict_box(Breaks(10), field, tile=20, context=2, multiple=2)


def test_tiles_that_do_not_fit_the_network_are_refused():
    for tile, context in ((10, 4), (8, 4), (16, 2)):
        with pytest.raises(DataError, match="does not fit the network"):
            predict_box(None, np.zeros((8, 8, 8, 1)), tile=tile, context=context, multiple=4)
