"""The whole box at once against the same network applied cube by cube."""

import keras
import numpy as np
import pytest

from kerasgal import tiling
from kerasgal.apps.halomass import dense
from kerasgal.apps.halomass.model import cnn, pooled_side, unpadded_side


def network(patch, convolutions, channels=1, kept=None):
    keras.utils.set_random_seed(convolutions)
    model = cnn(unpadded_side(patch, convolutions), channels, convolutions=convolutions, filters=3, dense=(6, 4),
                padding="none", kept=kept)
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if hasattr(layer, "bias"):
            layer.bias.assign(rng.normal(size=layer.bias.shape))
    return model


def cube_by_cube(model, field, cells):
    side = model.input_shape[1]
    cubes = []
    for cell in cells:
        cube = field
        for axis in range(3):
            cube = np.take(cube, np.arange(side) + cell[axis] - side // 2, axis=axis, mode="wrap")
        cubes.append(cube)
    return np.concatenate([np.asarray(model.predict_on_batch(part))[:, 0]
                           for part in np.array_split(np.stack(cubes), max(1, len(cubes) // 25))])


def test_the_papers_sizes():
    assert unpadded_side(75, 6) == 160 and pooled_side(75, 6) == 3
    same, none = cnn(), cnn(160, padding="none")
    count = [sum(int(np.prod(weight.shape)) for weight in model.trainable_weights) for model in (same, none)]
    assert count == [2_108_258, 2_108_258]


def test_a_map_says_nothing_of_how_its_functions_are_traced(caplog):
    model = network(9, 4)
    field = np.random.default_rng(0).normal(size=(32, 32, 32, 1)).astype("f4")
    with caplog.at_level("WARNING"):
        for n in (32, 28):  # other shapes for each of the stages
            dense.predict_cells(model, field[:n, :n, :n])
    assert not [record for record in caplog.records if "retracing" in record.getMessage()]


@pytest.mark.parametrize("n, patch, convolutions, channels", [
    (24, 7, 3, 1), pytest.param(32, 9, 4, 2, marks=pytest.mark.slow), (27, 5, 3, 2)])
def test_the_map_is_the_cubes(n, patch, convolutions, channels, monkeypatch):
    model = network(patch, convolutions, channels)
    field = np.random.default_rng(n).normal(size=(n, n, n, channels)).astype("f4")
    assert unpadded_side(patch, convolutions) <= n
    predicted = dense.predict_cells(model, field)
    cells = np.random.default_rng(1).integers(0, n, size=(100, 3))
    cells[:4] = [[0, 0, 0], [n - 1, n - 1, n - 1], [0, n - 1, n // 2], [n // 2] * 3]
    np.testing.assert_allclose(predicted[tuple(cells.T)], cube_by_cube(model, field, cells), atol=1e-5)
    assert predicted.std() > 1e-3
    # Little memory: phases one by one, slabs of a cell or two.
    monkeypatch.setattr(dense, "LIMIT", 4000)
    done = []
    again = dense.predict_cells(model, field, progress=lambda d, t: done.append((d, t)))
    np.testing.assert_allclose(again, predicted, atol=1e-5)
    assert done[-1][0] == done[-1][1] >= n**3 and len(done) > 1


@pytest.mark.parametrize("n, tile", [(24, 30), (11, 26), (8, 1)])
def test_tiles_give_the_map_of_the_whole_box(n, tile):
    model = network(5, 3, 2)
    field = np.random.default_rng(n).normal(size=(n, n, n, 2)).astype("f4")
    whole, done, stored = dense.predict_cells(model, field), [], np.full((n, n, n), np.nan, np.float32)
    tiled = dense.predict_cells(model, field, tile=tile, progress=lambda d, t: done.append((d, t)))
    assert done[-1][0] == done[-1][1] > 1
    np.testing.assert_allclose(tiled, whole, atol=1e-6)
    assert dense.predict_cells(model, field, tile=tile, store=stored.__setitem__) is None
    np.testing.assert_array_equal(stored, tiled)


def test_little_memory_makes_tiles_that_it_holds(monkeypatch):
    model, sizes, apply = network(5, 3), [], dense._apply

    def watched(stage, reach, boxes, wrap):
        sizes.append((wrap, boxes.shape[1:4]))
        return apply(stage, reach, boxes, wrap)

    field = np.random.default_rng(0).normal(size=(48, 48, 48, 1)).astype("f4")
    whole = dense.predict_cells(model, field)
    monkeypatch.setattr(dense, "_apply", watched)
    room = 34**3 * 4 * dense.numbers(dense.stages_of(model)) / tiling.SHARE
    monkeypatch.setattr(tiling, "free_memory", lambda: room)
    np.testing.assert_allclose(dense.predict_cells(model, field), whole, atol=1e-6)
    assert not any(wrap for wrap, _ in sizes) and 30 < max(max(sides) for _, sides in sizes) <= 34


def test_memory_is_looked_at_for_what_goes_through_the_network(monkeypatch):
    """A box of 49 cells is continued before it goes through; by itself it would fit."""
    model, n = network(9, 3), 49
    side, multiple = model.inputs[0].shape[1], 2 ** (len(dense.stages_of(model)) - 1)
    assert n % multiple and dense.whole_side(n, side, multiple) >= n + side - 1
    assert dense.whole_side(n, side, multiple) % multiple == 0 and dense.whole_side(48, side, multiple) == 48
    monkeypatch.setattr(dense, "_whole", lambda *given: pytest.fail("the whole box takes more than there is"))
    room = (n + side - 2)**3 * 4 * dense.numbers(dense.stages_of(model)) / tiling.SHARE
    monkeypatch.setattr(tiling, "free_memory", lambda: room)
    field = np.random.default_rng(0).normal(size=(n, n, n, 1)).astype("f4")
    assert dense.predict_cells(model, field).shape == (n, n, n)


def test_a_compressed_network_draws_the_map_too():
    model = network(5, 3, kept=[0, 3, 17, 47])
    field = np.random.default_rng(0).normal(size=(24, 24, 24, 1)).astype("f4")
    cells = np.random.default_rng(1).integers(0, 24, size=(20, 3))
    np.testing.assert_allclose(dense.predict_cells(model, field)[tuple(cells.T)], cube_by_cube(model, field, cells),
                               atol=1e-5)


@pytest.mark.slow
def test_a_demo_sized_network_on_64_cells():
    keras.utils.set_random_seed(0)
    model = cnn(unpadded_side(21, 4), convolutions=4, filters=8, dense=(64, 32), padding="none")
    field = np.random.default_rng(0).normal(size=(64, 64, 64, 1)).astype("f4")
    cells = np.random.default_rng(1).integers(0, 64, size=(200, 3))
    predicted = dense.predict_cells(model, field)
    np.testing.assert_allclose(predicted[tuple(cells.T)], cube_by_cube(model, field, cells), atol=1e-5)
