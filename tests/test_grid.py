import tracemalloc

import h5py
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from kerasgal import grid
from kerasgal.readers import fields

BOXSIZE = 40.0


@pytest.fixture
def position(rng):
    return rng.uniform(0, BOXSIZE, (1000, 3))


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def test_deposit_is_the_triangular_kernel(rng):
    gridsize, few = 5, rng.uniform(-BOXSIZE, 2 * BOXSIZE, (20, 3))
    weight = rng.uniform(1, 2, 20)
    centre = (np.arange(gridsize) + 0.5) * BOXSIZE / gridsize
    expected = np.zeros((gridsize,) * 3)
    for x, w in zip(few, weight):
        distance = np.abs(centre - x[:, None])
        distance = np.minimum(distance % BOXSIZE, -distance % BOXSIZE)
        kernel = np.maximum(0, 1 - distance * gridsize / BOXSIZE)
        expected += w * np.einsum("i,j,k", *kernel)
    np.testing.assert_allclose(grid.deposit_cic(few, gridsize, BOXSIZE, weight), expected, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_deposit_and_interpolation_are_a_loop_over_corners_in_float64(rng, dtype):
    gridsize, weight = 6, rng.uniform(1, 2, 40)
    position = rng.uniform(-2 * BOXSIZE, 2 * BOXSIZE, (40, 3)).astype(dtype)
    position[:3] = [[0, 0, 0], [BOXSIZE, BOXSIZE / 2, -BOXSIZE], [BOXSIZE / 12] * 3]  # on faces, and on a centre
    field, expected, value = rng.standard_normal((gridsize,) * 3), np.zeros((gridsize,) * 3), np.zeros(40)
    for particle, x in enumerate(position.astype(float) * gridsize / BOXSIZE - 0.5):
        for corner in np.ndindex(2, 2, 2):
            cell = np.floor(x).astype(int) + corner
            share = np.prod(1 - abs(x - cell))
            expected[tuple(cell % gridsize)] += share * weight[particle]
            value[particle] += share * field[tuple(cell % gridsize)]
    tolerance = 1e-5 if dtype == np.float64 else 1e-4  # float32 knows a position this far out to 1e-5 cells
    np.testing.assert_allclose(grid.deposit_cic(position, gridsize, BOXSIZE, weight), expected, atol=tolerance)
    np.testing.assert_allclose(grid.interpolate_cic(field, position, BOXSIZE), value, atol=tolerance)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_triangular_clouds_are_boxes_and_their_overlap(rng, dtype):
    """The cloud is a triangle of two cells' width: a cell's share is the triangle's integral over it, by quadrature."""
    gridsize, weight = 5, rng.uniform(1, 2, 30)
    position = rng.uniform(-2 * BOXSIZE, 2 * BOXSIZE, (30, 3)).astype(dtype)
    position[:3] = [[0, 0, 0], [BOXSIZE, BOXSIZE / 2, -BOXSIZE], [BOXSIZE / 10] * 3]  # on faces, and on a centre
    fine = (np.arange(4000 * gridsize) + 0.5) / 4000  # along an axis, in cells
    expected = np.zeros((gridsize,) * 3)
    for x, w in zip(position.astype(float) * gridsize / BOXSIZE, weight):
        distance = np.abs(fine - x[:, None] % gridsize)
        triangle = np.maximum(0, 1 - np.minimum(distance, gridsize - distance))
        expected += w * np.einsum("i,j,k", *triangle.reshape(3, gridsize, 4000).mean(axis=2))
    np.testing.assert_allclose(grid.deposit_tsc(position, gridsize, BOXSIZE, weight), expected, atol=2e-4)
    assert grid.deposit_tsc(position, gridsize, BOXSIZE).sum(dtype=float) == pytest.approx(30, rel=1e-5)
    reader = np.zeros((gridsize,) * 3)  # beside the deposit of readers, by NumPy
    fields.deposit(reader, position.astype(float) * gridsize / BOXSIZE, weight, "tsc")
    np.testing.assert_allclose(grid.deposit_tsc(position, gridsize, BOXSIZE, weight), reader, atol=2e-4)


def test_a_contrast_of_triangular_clouds_is_their_deposit_and_other_clouds_are_refused(rng):
    position = rng.uniform(0, BOXSIZE, (500, 3))
    contrast = grid.density_contrast(position, 6, BOXSIZE, "tsc")
    np.testing.assert_allclose(contrast, grid.deposit_tsc(position, 6, BOXSIZE) * 6**3 / 500 - 1, atol=1e-5)
    assert contrast.std() < 0.9 * grid.density_contrast(position, 6, BOXSIZE).std()
    with pytest.raises(ValueError, match="must be 'cic' or 'tsc'. Received: 'ngp'"):
        grid.density_contrast(position, 6, BOXSIZE, "ngp")
    with pytest.raises(ValueError, match="3 cells a side or more"):
        grid.deposit_tsc(position, 2, BOXSIZE)


def test_loops_round_as_scipys_sparse_matrix(rng):
    position = rng.uniform(-BOXSIZE, 2 * BOXSIZE, (5000, 3)).astype(np.float32)
    weight = rng.uniform(1, 2, 5000).astype(np.float32)
    field = rng.standard_normal((9, 9, 9)).astype(np.float32)
    shares = grid.cic_matrix(position, 9, BOXSIZE)
    np.testing.assert_array_equal(grid.deposit_cic(position, 9, BOXSIZE, weight).ravel(), shares.T @ weight)
    np.testing.assert_array_equal(grid.interpolate_cic(field, position, BOXSIZE), shares @ field.ravel())


def test_deposit_takes_the_memory_of_two_grids_and_the_weights(rng):
    position = rng.uniform(0, BOXSIZE, (200_000, 3)).astype(np.float32)
    grid.deposit_cic(position, 4, BOXSIZE)  # compiled before it is measured
    tracemalloc.start()
    grid.deposit_cic(position, 64, BOXSIZE)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * 4 * 64**3 + 4 * 200_000 + 100_000


def test_deposit_conserves_mass_over_several_chunks(rng):
    many = rng.uniform(0, BOXSIZE, (2**18 + 1000, 3)).astype(np.float32)
    weight = rng.uniform(0, 1, len(many))
    deposit = grid.deposit_cic(many, 16, BOXSIZE, weight)
    assert deposit.dtype == np.float32
    assert deposit.sum(dtype=float) == pytest.approx(weight.sum(), rel=1e-6)
    assert grid.deposit_cic(many, 16, BOXSIZE).sum(dtype=float) == pytest.approx(len(many), rel=1e-6)


def test_deposit_is_periodic(position):
    reference = grid.deposit_cic(position, 8, BOXSIZE)
    np.testing.assert_allclose(grid.deposit_cic(position - 3 * BOXSIZE, 8, BOXSIZE), reference, atol=1e-4)
    shifted = grid.deposit_cic(position + [BOXSIZE / 8, 0, -BOXSIZE / 4], 8, BOXSIZE)
    np.testing.assert_allclose(shifted, np.roll(reference, (1, 0, -2), (0, 1, 2)), atol=1e-4)


def test_points_are_counted_in_their_cells(rng):
    points, weight = rng.uniform(0, BOXSIZE, (500, 3)), rng.uniform(0, 1, 500)
    for weights in (None, weight):
        expected = np.histogramdd(points, 7, [(0, BOXSIZE)] * 3, weights=weights)[0]
        np.testing.assert_allclose(grid.deposit_ngp(points, 7, BOXSIZE, weights), expected, rtol=1e-6)
        np.testing.assert_allclose(grid.deposit_ngp(points - 2 * BOXSIZE, 7, BOXSIZE, weights), expected, rtol=1e-6)
    assert grid.deposit_ngp(np.zeros((0, 3)), 4, BOXSIZE).sum() == 0
    almost = np.nextafter(np.float32(BOXSIZE), np.float32(0))
    assert grid.deposit_ngp(np.full((1, 3), almost), 4, BOXSIZE)[3, 3, 3] == 1


@pytest.mark.parametrize("gridsize", [8, 16])
def test_lattice_has_no_contrast(gridsize):
    lattice = grid.lattice(8, BOXSIZE).reshape(-1, 3)
    np.testing.assert_array_equal(lattice[1], np.array([0.5, 0.5, 1.5]) * BOXSIZE / 8)  # C order
    np.testing.assert_allclose(grid.density_contrast(lattice, gridsize, BOXSIZE), 0, atol=1e-6)


def test_particle_at_a_centre_fills_one_cell():
    centre = grid.lattice(8, BOXSIZE)[7, 0, 3][None]
    contrast = grid.density_contrast(centre, 8, BOXSIZE)
    assert contrast[7, 0, 3] == pytest.approx(8**3 - 1)
    assert contrast.mean() == pytest.approx(0, abs=1e-6)


def test_interpolation_is_scipys_periodic_trilinear(position, rng):
    field = rng.standard_normal((7, 7, 7, 2))
    index = (position * 7 / BOXSIZE - 0.5).T
    expected = [map_coordinates(field[..., channel], index, order=1, mode="grid-wrap") for channel in (0, 1)]
    value = grid.interpolate_cic(field, position - BOXSIZE, BOXSIZE)
    np.testing.assert_allclose(value, np.stack(expected, -1), atol=1e-5)
    np.testing.assert_allclose(grid.interpolate_cic(field[..., 1], position, BOXSIZE), expected[1], atol=1e-5)


def test_interpolation_is_exact_for_a_linear_field(position):
    centres = grid.lattice(16, BOXSIZE)
    field = centres @ np.array([1.0, -2.0, 0.5]) + 3
    inside = BOXSIZE / 32 + position * (15 / 16)  # between the first centres and the last
    np.testing.assert_allclose(
        grid.interpolate_cic(field, inside, BOXSIZE), inside @ [1.0, -2.0, 0.5] + 3, atol=1e-4)


def test_wrong_shapes_are_refused(position):
    with pytest.raises(ValueError, match=r"\(n, n, n\)"):
        grid.interpolate_cic(np.zeros((4, 4, 5)), position, BOXSIZE)
    with pytest.raises(ValueError, match="weight"):
        grid.deposit_cic(position, 4, BOXSIZE, np.ones(3))
    with pytest.raises(ValueError, match=r"\(particles, 3\)"):
        grid.deposit_cic(position.T, 4, BOXSIZE)
    with pytest.raises(ValueError, match=r"shape \(points, 3\). Received: \(.*, 2\)"):
        grid.deposit_ngp(position[:, :2], 4, BOXSIZE)
    with pytest.raises(ValueError, match="weight"):
        grid.deposit_ngp(position, 4, BOXSIZE, np.ones(3))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_wrap_stays_below_the_boxsize(dtype):
    boxsize = 67.7
    position = np.array([-1e-9, -1e-20, 0, boxsize, 3.5 * boxsize, -boxsize / 4], dtype)
    wrapped = grid.wrap(position, boxsize)
    assert wrapped.dtype == dtype
    assert (wrapped >= 0).all() and (wrapped.astype(float) < boxsize).all()
    np.testing.assert_allclose(wrapped[1:], [0, 0, 0, boxsize / 2, 0.75 * boxsize], atol=1e-4)


class Recorder:
    """Looks like a dataset, and counts what is read from it."""

    def __init__(self, array):
        self.array, self.shape, self.dtype, self.read = array, array.shape, array.dtype, 0

    def __getitem__(self, key):
        self.read += self.array[key].size
        return self.array[key]


@pytest.mark.parametrize("start, shape", [
    ((1, 2, 0), (3, 2, 5)), ((-2, -9, 4), (4, 6, 3)), ((5, 100, -1), (2, 7, 1)), ((3, -1, 2), (13, 8, 20)),
])
@pytest.mark.parametrize("channels", [(), (2,)])
def test_wrapped_block_equals_take(tmp_path, rng, start, shape, channels):
    field = rng.standard_normal((6, 7, 5, *channels)).astype(np.float32)
    expected = field
    for axis in range(3):
        expected = np.take(expected, np.arange(shape[axis]) + start[axis], axis, mode="wrap")
    np.testing.assert_array_equal(grid.wrapped_block(field, start, shape), expected)
    with h5py.File(tmp_path / "field.h5", "w") as file:
        dataset = file.create_dataset("field", data=field)
        block = grid.wrapped_block(dataset, start, shape)
    np.testing.assert_array_equal(block, expected)
    recorder = Recorder(field)
    grid.wrapped_block(recorder, start, shape)
    assert recorder.read == expected.size


def test_wrapped_block_is_a_copy():
    field = np.zeros((4, 4, 4))
    grid.wrapped_block(field, (0, 0, 0), (2, 2, 2))[:] = 1
    assert not field.any()


def test_top_hats_average_over_spheres(rng):
    """Waves that the grid resolves, averaged over points drawn evenly in spheres around some cells."""
    n, waves = 16, rng.integers(-3, 4, (5, 3))
    phase = rng.uniform(0, 2 * np.pi, 5)

    def field(position):  # in cells
        return np.cos(2 * np.pi / n * position @ waves.T + phase).sum(axis=-1)

    cells = np.stack(np.meshgrid(*[np.arange(n)] * 3, indexing="ij"), axis=-1)
    ball = rng.standard_normal((20_000, 3))
    ball *= np.cbrt(rng.random((20_000, 1))) / np.linalg.norm(ball, axis=1, keepdims=True)
    radii = (0.01, 1.7, 4.0)
    for radius, smooth in zip(radii, grid.top_hats(field(cells), radii), strict=True):
        for cell in ((0, 0, 0), (15, 3, 8)):
            assert smooth[cell] == pytest.approx(field(np.array(cell) + radius * ball).mean(), abs=0.05)
