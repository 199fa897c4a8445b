import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from kerasgal.errors import DataError
from kerasgal.pipeline import centred, cube_symmetries, patches, tiles


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
