import h5py
import numpy as np
import pytest
from scipy import ndimage

from kerasgal.apps.protohalo import data
from kerasgal.errors import DataError
from kerasgal.simulation import Simulation


def sphere(n, centre, size, label, halo_id):
    axis = np.arange(n)
    distance = [np.abs(axis - c) for c in centre]
    distance = [np.minimum(d, n - d) for d in distance]
    x, y, z = np.meshgrid(*distance, indexing="ij")
    halo_id[x**2 + y**2 + z**2 <= size**2] = label


@pytest.fixture
def halo_id():
    """Two touching spheres, one of them across the corner of the box, and a small one."""
    n = 24
    volume = np.full((n, n, n), -1, np.int32)
    sphere(n, (1, 23, 0), 6, 0, volume)
    sphere(n, (9, 23, 0), 4, 1, volume)
    sphere(n, (12, 12, 12), 2, 2, volume)
    return volume


def test_distance_map_is_scipys_halo_by_halo_in_the_periodic_box(halo_id):
    n = halo_id.shape[0]
    expected = np.zeros(halo_id.shape)
    for label in range(3):
        # Three copies a side have the whole surroundings of the middle one.
        inside = np.tile(halo_id == label, (3, 3, 3))
        distance = ndimage.distance_transform_edt(inside)[n:2 * n, n:2 * n, n:2 * n]
        expected += distance / distance.max()
    np.testing.assert_allclose(data.distance_map(halo_id), expected, atol=1e-6)


def test_distance_map_moves_with_the_box(halo_id):
    shifted = np.roll(halo_id, (5, -7, 11), axis=(0, 1, 2))
    np.testing.assert_allclose(np.roll(data.distance_map(halo_id), (5, -7, 11), axis=(0, 1, 2)),
                               data.distance_map(shifted), atol=1e-6)


def test_distance_map_is_one_at_centres_and_zero_outside(halo_id):
    distance = data.distance_map(halo_id)
    assert np.all((distance > 0) == (halo_id >= 0))
    assert [distance[halo_id == label].max() for label in range(3)] == [1, 1, 1]
    assert not data.distance_map(np.full((4, 4, 4), -1)).any()


def test_one_halo_that_fills_the_box_has_no_border():
    assert np.isfinite(data.distance_map(np.zeros((8, 8, 8), np.int32))).all()


def test_small_haloes_are_background(boxes):
    with Simulation(boxes[0]) as simulation:
        everything = data.lagrangian_halo_id(simulation, 1)
        np.testing.assert_array_equal(everything, simulation["halo_id"])
        count = simulation["halos/count"][...]
        large = data.lagrangian_halo_id(simulation, 100)
        assert set(np.unique(large)) == {-1, *np.flatnonzero(count >= 100)}
        np.testing.assert_array_equal(np.bincount(large[large >= 0]), count[count >= 100])


def test_the_most_massive_halo_has_a_shared_cell(boxes, tmp_path):
    with Simulation(boxes[0]) as simulation:
        fine = simulation["halo_id"][...]
        with h5py.File(tmp_path / "coarse.h5", "w") as file:
            file.attrs.update(simulation.file.attrs)
            file["initial/delta"] = simulation.delta()[::2, ::2, ::2]
            file["halo_id"] = fine
            file["halos/count"] = simulation["halos/count"][...]
    with Simulation(tmp_path / "coarse.h5") as simulation:
        coarse = data.lagrangian_halo_id(simulation, 1)
    for cell in np.ndindex(16, 16, 16):
        block = fine[tuple(slice(2 * i, 2 * i + 2) for i in cell)]
        assert coarse[cell] == min(block[block >= 0], default=-1)


def test_input_has_unit_variance_and_bad_files_are_named(boxes, tmp_path):
    delta, target, _ = data.load(boxes[0], 20)
    assert delta.std() == pytest.approx(1) and delta.shape == target.shape == (32, 32, 32, 1)
    with pytest.raises(DataError, match="has no halo of at least 100000 cells; its largest has"):
        data.load(boxes[0], 100000)
    broken = tmp_path / "nan.h5"
    broken.write_bytes(boxes[0].read_bytes())
    with h5py.File(broken, "a") as file:
        file["initial/delta"][0, 0, 0] = np.nan
    with pytest.raises(DataError, match="initial/delta has 1 values that are NaN"):
        data.load(broken, 20)
    with h5py.File(broken, "a") as file:
        file["initial/delta"][0, 0, 0] = 0
        file["initial/delta"][...] += 1
    with pytest.raises(DataError, match="nan.h5: initial/delta has the mean 1: expected is a density contrast"):
        data.load(broken, 20)
