import subprocess
import sys
from dataclasses import replace
from unittest import mock

import h5py
import numpy as np
import pytest
from harness import config_of, disturbed
from scipy import ndimage

from kerasgal.apps.protohalo import blocks, predict, watershed
from kerasgal.apps.protohalo.config import TrainConfig
from kerasgal.apps.protohalo.run import Protohalo
from kerasgal.errors import DataError, SettingError

LINE = watershed.Line((5.0, 500.0), (0.3, 0.8))


def smooth_map(shape, seed, sigma=1.2, levels=None):
    """A random periodic map from 0 to 1; with `levels`, of that many heights alone: full of ties."""
    noise = np.random.default_rng(seed).normal(size=shape)
    smooth = ndimage.gaussian_filter(noise, sigma, mode="wrap")
    smooth = np.clip(smooth / smooth.max(), -0.5, None).astype(np.float32)
    return smooth if levels is None else np.round(smooth * levels).astype(np.float32) / levels


def by_blocks(image, markers, floor, block, **options):
    labels = np.full(image.shape, -7, np.int32)
    blocks.native(image, markers, floor, labels, block=block, **options)
    return labels


@pytest.mark.parametrize("shape, block", [
    ((12, 12, 12), 6), ((12, 12, 12), 5), ((13, 9, 11), (4, 9, 3)), ((12, 10, 8), (12, 1, 3)), ((7, 7, 7), 7),
    ((2, 3, 5), 1), ((1, 4, 4), 2)])
@pytest.mark.parametrize("levels", [None, 4, 1])
@pytest.mark.parametrize("floor", [-1.0, 0.1])
def test_labels_are_those_of_the_whole_box(shape, block, levels, floor):
    """Ties, and plateaus across blocks, included."""
    image = smooth_map(shape, seed=len(shape) + shape[0], levels=levels)
    markers, _ = watershed.find_markers(image, 0.0, 0.3, 1)
    assert markers.any()
    np.testing.assert_array_equal(by_blocks(image, markers, floor, block), watershed.native(image, markers, floor))


@pytest.mark.parametrize("seed", range(4))
def test_markers_may_be_anywhere_and_few(seed):
    """Basins without any are joined as in the whole box, and of two in one basin the last counts."""
    image, rng = smooth_map((14, 14, 14), seed, sigma=0.0), np.random.default_rng(seed)
    cells = rng.choice(image.size, 40, replace=False)
    markers = np.zeros(image.shape, np.int32)
    markers.reshape(-1)[cells] = rng.permutation(40) + 1
    expected = watershed.native(image, markers, 0.05)
    assert (expected > 0).any()
    np.testing.assert_array_equal(by_blocks(image, (cells, markers.reshape(-1)[cells]), 0.05, (5, 4, 7)), expected)


def test_a_way_through_many_blocks_is_followed_to_its_end():
    ramp = np.sin(np.arange(48) / 48 * np.pi).astype(np.float32)[:, None, None] * np.ones((1, 2, 2), np.float32)
    markers = np.zeros(ramp.shape, np.int32)
    markers[24, 1, 1] = 3
    np.testing.assert_array_equal(by_blocks(ramp, markers, -1, (1, 1, 2)), 3)


@pytest.mark.parametrize("shape, block, separation", [
    ((16, 16, 16), 8, 2), ((11, 9, 8), (4, 5, 8), 1), ((9, 9, 9), 2, 3), ((6, 6, 6), 4, 0), ((5, 5, 5), 2, 4)])
@pytest.mark.parametrize("smoothing", [0.0, 0.7])
@pytest.mark.parametrize("levels", [None, 3])
def test_markers_are_those_of_the_whole_box(shape, block, separation, smoothing, levels):
    image = smooth_map(shape, seed=1, sigma=0.8, levels=levels)
    markers, _ = watershed.find_markers(image, smoothing, 0.1, separation)
    cells, numbers = blocks.find_markers(image, smoothing, 0.1, separation, block=block)
    np.testing.assert_array_equal(cells, np.flatnonzero(markers))
    np.testing.assert_array_equal(numbers, markers.reshape(-1)[cells])


def test_reading_a_smoothed_block_is_smoothing_the_box():
    image = smooth_map((10, 11, 12), seed=2, sigma=0.0)
    whole = ndimage.gaussian_filter(image, 0.8, mode="wrap")
    read = blocks.Field(image, 0.8).read((8, 0, 5), (4, 3, 2), 1)
    np.testing.assert_array_equal(read, np.roll(whole, (-7, 1, -4), (0, 1, 2))[:6, :5, :4])


@pytest.mark.parametrize("line", [LINE, None])
@pytest.mark.parametrize("levels, depth, dynamics, flooded, volume", [
    (None, 0.8, 0.0, "map", "native"), (6, 0.0, 0.0, "map", "native"), (None, 0.8, 0.0, "smoothed", "current"),
    (None, 0.0, 0.1, "map", "native"), (6, 1.5, 0.05, "smoothed", "native")])
@pytest.mark.parametrize("block", [10, (8, 24, 7)])
def test_haloes_and_their_catalogue_are_those_of_the_whole_box(line, levels, depth, dynamics, flooded, volume, block):
    config = TrainConfig(smoothing=0.6, marker=0.2, separation=1, floor=0.05, depth=depth, minimum=6, flooded=flooded,
                         volume=volume, dynamics=dynamics)
    image = smooth_map((24, 24, 24), seed=3, sigma=1.5, levels=levels)
    expected = predict.find_haloes(image, config, line)
    assert expected.max() > 5 and (line is None or expected.max() < 1000)
    halo_id = np.empty(image.shape, np.int32)
    made = blocks.find_haloes(image, config, line, halo_id, boxsize=50.0, cell_mass=2.0, block=block)
    np.testing.assert_array_equal(halo_id, expected)
    for name, values in watershed.catalogue(expected, image, 50.0, 2.0).items():
        np.testing.assert_array_equal(made[name], values, err_msg=name)


def test_a_map_without_haloes_has_an_empty_catalogue():
    halo_id = np.empty((6, 6, 6), np.int32)
    made = blocks.find_haloes(np.zeros((6, 6, 6), np.float32), TrainConfig(), None, halo_id, boxsize=1.0,
                              cell_mass=1.0, block=4)
    assert (halo_id == -1).all() and len(made["mass"]) == 0


def test_maps_are_read_from_hdf5_and_what_blocks_leave_stays_in_scratch(tmp_path):
    image = smooth_map((9, 9, 9), seed=4)
    markers, _ = watershed.find_markers(image, 0.0, 0.2, 1)
    with h5py.File(tmp_path / "map.h5", "w") as file:
        file.create_dataset("distance", data=image, chunks=(4, 4, 4), compression="gzip")
    with h5py.File(tmp_path / "map.h5") as file:
        labels = by_blocks(file["distance"], markers, 0.1, 5, scratch=tmp_path / "scratch")
    np.testing.assert_array_equal(labels, watershed.native(image, markers, 0.1))
    assert len(list((tmp_path / "scratch").glob("ends_*.npy"))) == 8


def test_a_box_whose_sides_differ_has_no_one_length(untrained):
    out = np.zeros((8, 8, 6), np.float32)
    with pytest.raises(SettingError, match="a box of 8 x 8 x 6 cells is no cube"):
        blocks.find_haloes(smooth_map(out.shape, seed=0), TrainConfig(), None, out.astype(np.int32), boxsize=1.0,
                           cell_mass=1.0)
    pytest.importorskip("dask")
    with pytest.raises(SettingError, match="a box of 8 x 8 x 6 cells is no cube"):
        blocks.predict_distance(untrained, contrast(out.shape), out, boxsize=1.0)


@pytest.mark.parametrize("given, words", [({"block": 0}, "block=0"), ({"block": (4, 4)}, "block=")])
def test_blocks_that_are_none_are_refused(given, words):
    image = smooth_map((6, 6, 6), seed=0)
    with pytest.raises(SettingError, match=words):
        blocks.native(image, ([], []), 0.0, np.empty(image.shape, np.int32), **given)


def test_labels_of_another_shape_are_refused():
    with pytest.raises(SettingError, match="does not fit"):
        blocks.native(np.zeros((4, 4, 4), np.float32), ([], []), 0.0, np.empty((4, 4, 5), np.int32))


def test_workers_that_cut_haloes_do_without_tensorflow():
    """Whose import takes as long as the blocks of a small box."""
    subprocess.run([sys.executable, "-c", "import sys, kerasgal.apps.protohalo.blocks\n"
                    "assert not {'tensorflow', 'keras'} & sys.modules.keys()"], check=True)


@pytest.fixture(scope="module")
def untrained():
    """A run of a small network, which says nothing of its domain."""
    return Protohalo(config_of("protohalo"), {"": disturbed(predict.build(config_of("protohalo")))})


def contrast(shape=(32, 32, 32)):
    delta = np.random.default_rng(5).normal(size=shape).astype(np.float32)
    return delta - delta.mean()


@pytest.mark.parametrize("mirrored", [False, True])
def test_the_map_by_blocks_from_and_to_zarr_is_that_of_the_whole_box(mirrored, untrained, tmp_path):
    pytest.importorskip("dask")
    zarr = pytest.importorskip("zarr")
    untrained = Protohalo(replace(untrained.config, mirrored=mirrored), {"": untrained.network})
    delta = contrast()
    stored, out = (zarr.create_array(tmp_path / f"{name}.zarr", shape=delta.shape, chunks=(8, 8, 8), dtype=np.float32)
                   for name in ("delta", "map"))
    stored[...] = delta
    blocks.predict_distance(untrained, stored, out, boxsize=25.0, block=16)
    whole = predict.predict_distance(untrained.network, untrained.config, delta, 25.0)
    assert whole.std() > 1e-3
    np.testing.assert_allclose(out[...], whole, rtol=0, atol=1e-5)
    short = np.empty_like(whole)
    blocks.predict_distance(untrained, delta, short, boxsize=25.0, block=(16, 32, 20), context=2)
    assert np.abs(short - whole).max() > 1e-4  # the network sees farther
    np.testing.assert_allclose(short[5:10, 5:25, 5:15], whole[5:10, 5:25, 5:15], rtol=0, atol=whole.std())


@pytest.mark.parametrize("options, words", [
    ({"block": 15}, "block=15: it and the sides of the box must be multiples of 2"),
    ({"block": 8}, r"block=8: the smallest side of a block, 8, is less than its context, context=12"),
    ({"block": 16, "context": 3}, "context=3: it must be a multiple of 2")])
def test_blocks_that_do_not_fit_the_network_are_refused(options, words, untrained):
    pytest.importorskip("dask")
    with pytest.raises(SettingError, match=words):
        blocks.predict_distance(untrained, contrast(), np.empty((32, 32, 32), np.float32), boxsize=25.0, **options)


@pytest.mark.parametrize("change", [lambda delta: delta + 1, lambda delta: delta * np.nan, np.zeros_like])
def test_a_density_that_is_no_contrast_is_refused_by_blocks_too(change, untrained):
    pytest.importorskip("dask")
    with pytest.raises(DataError, match="expected is a density contrast of mean zero"):
        blocks.predict_distance(untrained, change(contrast()), np.empty((32, 32, 32), np.float32), boxsize=25.0,
                                block=16)


def test_channels_of_the_whole_box_are_refused_by_blocks():
    pytest.importorskip("dask")
    run = mock.Mock(config=config_of("protohalo", channels="density,tide"))
    with pytest.raises(SettingError, match="by blocks there is density alone"):
        blocks.predict_distance(run, contrast(), None, boxsize=25.0)
