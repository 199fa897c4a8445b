import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from kerasgal.cutting import cut, empty
from kerasgal.errors import DataError
from kerasgal.pipeline import centred, cube_symmetries, deposits, patches, rows, tiles


def numbered(n, offset=0):
    """A volume whose cells carry their flat index, and a target that is its negative."""
    volume = (np.arange(n**3, dtype=np.float32) + offset).reshape(n, n, n, 1)
    return volume, -volume


def transform(volume, permutation, reversal):
    turned = np.transpose(volume, permutation)
    return np.flip(turned, [axis for axis in range(3) if reversal[axis]])


def test_patches_wrap_around_the_box():
    volume, target = numbered(6)
    corners = np.array([0, 5 * 36 + 4 * 6 + 3])
    inputs, targets = next(iter(patches([(volume, target)], [corners], 4, 2)))
    expected = volume.take(range(5, 9), 0, mode="wrap").take(range(4, 8), 1, mode="wrap").take(
        range(3, 7), 2, mode="wrap")
    np.testing.assert_array_equal(inputs[1], expected)
    np.testing.assert_array_equal(targets[1], -expected)


def test_tiles_cover_the_box_once():
    volume, target = numbered(8)
    inputs = np.concatenate([x for x, _ in patches([(volume, target)], [tiles(8, 4)], 4, 3)])
    assert inputs.shape == (8, 4, 4, 4, 1)
    np.testing.assert_array_equal(np.sort(inputs.ravel()), np.arange(512))


def test_overlapping_tiles_see_every_cell_equally_often():
    volume, target = numbered(8)
    inputs = np.concatenate([x for x, _ in patches([(volume, target)], [tiles(8, 2)], 4, 8)])
    assert np.all(np.bincount(inputs.ravel().astype(int)) == 8)


def test_centred_patches_have_their_cell_in_the_middle():
    volume, target = numbered(7)
    cells = np.array([0, 13, 342, 200])
    for inputs, _ in patches([(volume, target)], [centred(cells, 7, 5)], 5, 4):
        np.testing.assert_array_equal(inputs[:, 2, 2, 2, 0], cells)


def test_the_24_rotations_are_scipys():
    permutations, reversals = cube_symmetries()
    found = set()
    for permutation, reversal in zip(permutations, reversals):
        # The matrix that takes the index vector of the result to that of the argument.
        matrix = np.eye(3)[list(permutation)].T * np.where(reversal, -1, 1)
        found.add(tuple(np.round(matrix).astype(int).ravel()))
    group = Rotation.create_group("O").as_matrix()
    assert found == {tuple(np.round(matrix).astype(int).ravel()) for matrix in group}
    permutations, reversals = cube_symmetries(reflections=True)
    assert len({(*p, *r) for p, r in zip(permutations, reversals)}) == 48


@pytest.mark.parametrize("symmetries, ways", [("rotations", 24), ("reflections", 48)])
def test_an_endless_stream_shows_every_patch_in_every_symmetry_once(symmetries, ways):
    volume, target = numbered(4)
    stream = patches([(volume, target)], [tiles(4, 4)], 4, 8, seed=3, symmetries=symmetries)
    inputs, targets = (np.concatenate(part) for part in zip(*stream.take(ways // 8)))
    expected = {transform(volume[..., 0], p, r).tobytes() for p, r in zip(*cube_symmetries(ways == 48))}
    assert {patch[..., 0].tobytes() for patch in inputs} == expected and len(expected) == ways
    np.testing.assert_array_equal(targets, -inputs)


def test_the_stream_depends_on_seed_and_number_only():
    volumes = [numbered(6), numbered(8, 1000), numbered(6, 5000)]
    corners = [tiles(6, 1), tiles(8, 4), tiles(6, 2)]

    def take(count, **options):
        stream = patches(volumes, corners, 4, 2, symmetries="rotations", **options)
        return [x.numpy() for x, _ in stream.take(count)]

    whole = take(12, seed=5)
    np.testing.assert_array_equal(whole, take(12, seed=5))
    np.testing.assert_array_equal(whole[7:], take(5, seed=5, first=14))
    assert not np.array_equal(whole, take(12, seed=6))
    seen = np.concatenate(take(400, seed=5)).reshape(800, -1)[:, 0]
    shares = [np.mean(seen < 1000), np.mean((seen >= 1000) & (seen < 5000)), np.mean(seen >= 5000)]
    np.testing.assert_allclose(shares, np.array([216, 8, 27]) / 251, atol=0.06)


def test_a_patch_larger_than_the_grid_is_refused():
    with pytest.raises(DataError, match="grid has 4 cells a side, fewer than the patch of 8"):
        patches([numbered(4)], [tiles(4, 4)], 8, 1)


def test_every_patch_brings_its_target():
    volumes = [numbered(6)[:1], numbered(8, 1000)[:1]]
    corners = [np.array([0, 100, 215]), np.array([7, 511])]
    targets = [np.array([[0.0], [100.0], [215.0]]), np.array([[1007.0], [1511.0]])]
    for options in ({}, {"seed": 1, "symmetries": "rotations"}):
        dataset = patches(volumes, corners, 3, 5, targets=targets, **options)
        for inputs, target in dataset.take(1 if not options else 24):
            # Under any symmetry the patch of that corner has its number at one of its own corners.
            assert all(target[i, 0] in inputs[i].numpy() for i in range(5))


def test_a_vector_turns_with_the_cube():
    """The displacement from a patch's centre is the same field in every symmetry."""
    n = 5
    axis = np.arange(n, dtype=np.float32) - n // 2
    radius = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)
    field = np.concatenate([(radius**2).sum(axis=-1, keepdims=True), radius, radius[..., :1] * 0 + 7], axis=-1)
    seen = 0
    for (inputs,) in patches([(field,)], [np.array([0])], n, 8, seed=0, symmetries="reflections", vector=1).take(6):
        np.testing.assert_array_equal(inputs, np.broadcast_to(field, inputs.shape))
        seen += len(inputs)
    assert seen == 48


def test_rows_come_in_order_or_shuffled_without_loss():
    one, other = np.arange(10.0)[:, None], np.arange(10.0) * 2
    batches = [(x.numpy(), y.numpy()) for x, y in rows([one, other], 4)]
    assert [len(x) for x, _ in batches] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate([x for x, _ in batches]), one)
    shuffled = np.concatenate([np.stack([x[:, 0], y]) for x, y in rows([one, other], 5, seed=2).take(4)], axis=1)
    np.testing.assert_array_equal(shuffled[1], 2 * shuffled[0])
    for turn in (shuffled[0, :10], shuffled[0, 10:]):
        np.testing.assert_array_equal(np.sort(turn), np.arange(10))
    assert not np.array_equal(shuffled[0, :10], shuffled[0, 10:])


def test_deposits_keep_the_mass_and_see_across_the_faces():
    rng = np.random.default_rng(0)
    position = rng.uniform(0, 10, size=(4000, 3)).astype("f4")
    centres = np.array([[0.1, 9.9, 5.0], [5.0, 5.0, 5.0]], "f4")
    (cubes,), = deposits([(position, 10.0)], [centres], 3.0, 6, 2)
    for cube, centre in zip(cubes, centres):
        # Cloud-in-cell by hand, particle by particle, in the wrapped frame of the centre.
        expected = np.zeros((6, 6, 6))
        offset = (position - centre + 5.0) % 10.0 - 5.0
        for at in offset / 0.5 + 2.5:
            for cell in np.ndindex(2, 2, 2):
                corner = np.floor(at).astype(int) + cell
                if np.all((corner >= 0) & (corner < 6)):
                    expected[tuple(corner)] += np.prod(1 - np.abs(at - corner))
        np.testing.assert_allclose(cube[..., 0], expected * 1000 / 4000 / 0.125, rtol=1e-3, atol=1e-3)
    with pytest.raises(DataError, match="wider than half the box"):
        deposits([(position, 10.0)], [centres], 6.0, 6, 2)


def test_fields_are_cut_where_they_lie():
    """Neither a padded copy of the fields is kept nor one of what TensorFlow takes over."""
    import tracemalloc

    fields = [tuple(np.random.default_rng(seed).normal(size=(64, 64, 64, 1)).astype(np.float32) for _ in range(2))
              for seed in range(2)]
    data = sum(array.nbytes for arrays in fields for array in arrays)
    tracemalloc.start()
    stream = patches(fields, [tiles(64, 32)] * 2, 16, 2, seed=0, symmetries="rotations")
    seen = [inputs.numpy().sum() for inputs, _ in stream.take(20)]
    assert tracemalloc.get_traced_memory()[1] < 0.3 * data
    tracemalloc.stop()
    assert len(set(seen)) == 20


@pytest.mark.parametrize("corner, sides", [((0, 0, 0), (2, 3, 4)), ((4, 5, 6), (5, 6, 7)), ((1, 5, 3), (5, 2, 7))])
def test_a_block_is_numpys_of_wrapped_indices(corner, sides):
    array = np.random.default_rng(0).normal(size=(5, 6, 7, 2))
    expected = array
    for axis in range(3):
        expected = expected.take(range(corner[axis], corner[axis] + sides[axis]), axis, mode="wrap")
    np.testing.assert_array_equal(cut(array, corner, sides), expected)


def test_an_array_for_tensorflow_begins_where_it_takes_it_over():
    for shape in ((1,), (3, 5), (2, 75, 75, 75, 1)):
        made = empty(shape)
        assert made.shape == shape and made.dtype == np.float32 and made.ctypes.data % 64 == 0
