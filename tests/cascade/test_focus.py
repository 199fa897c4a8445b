"""Sub-cubes of phase 2: as often as phase 1 calls their cells occupied, and none of the held-out volume."""

import numpy as np
import pytest

from kerasgal.apps.cascade import data, train
from kerasgal.apps.cascade.config import TrainConfig
from kerasgal.config import preset, replace
from kerasgal.errors import SettingError
from kerasgal.pipeline import tiles

CONFIG = replace(preset(TrainConfig, "demo"), {"patch": 16, "focus": 8, "stride": 4})


def boxes_of(called, corners):
    target = np.stack([np.zeros(called.shape), called], axis=-1)
    return train.Boxes([None], [None], [corners]), [target]


def called_in(called, corner, side):
    """Cells of a cube that are called occupied, by wrapping indices."""
    place = np.unravel_index(corner, called.shape)
    rolled = np.roll(called, [-first for first in place], (0, 1, 2))
    return rolled[:side, :side, :side].sum()


def test_sub_cubes_are_taken_as_often_as_cells_of_theirs_are_called_occupied():
    called = np.random.default_rng(0).random((32, 32, 32)) < 0.01
    called[28:, :3, 14:17] = True  # a group at a face of the box
    (found, numbers), = train.sub_cubes(*boxes_of(called, tiles(32, 4)), CONFIG, CONFIG.stride)
    np.testing.assert_array_equal(found, tiles(32, 4))
    np.testing.assert_array_equal(numbers, [called_in(called, corner, 8) for corner in found])
    corners, = train.focused([(found, numbers)])
    often = np.bincount(np.searchsorted(found, corners), minlength=len(found))
    assert len(corners) == len(found) and np.abs(often - numbers * len(found) / numbers.sum()).max() < 1


def test_no_sub_cube_of_phase_2_reaches_into_the_held_out_volume():
    called = np.ones((64, 64, 64), bool)
    inside, _, _ = data.split_by_volume(64, 16)
    allowed = np.zeros(called.shape, bool)
    for corner in zip(*np.unravel_index(inside, called.shape)):
        allowed[tuple(slice(first, first + 16) for first in corner)] = True
    (found, _), = train.sub_cubes(*boxes_of(called, inside), CONFIG, CONFIG.stride)
    (found_whole, _), = train.sub_cubes(*boxes_of(called, inside), replace(CONFIG, {"focus": 40}), CONFIG.stride)
    assert set(inside) <= set(found_whole) < set(found)  # of at most `patch` cells
    with pytest.raises(SettingError, match="stride=13: none of the sub-cubes of 8 cells"):
        list(train.sub_cubes(*boxes_of(called[:32, :32, :32], [16 * (32**2 + 33)]), CONFIG, 13))
    assert len(found) > len(inside) and all(called_in(allowed, corner, 8) == 8**3 for corner in found)


def test_a_box_of_which_nothing_is_called_occupied_is_taken_somewhere():
    (corners,) = train.focused(train.sub_cubes(*boxes_of(np.zeros((32, 32, 32)), tiles(32, 4)), CONFIG, CONFIG.stride))
    assert len(corners) == 512


@pytest.mark.parametrize("settings, words", [({"focus": 12}, "focus=12 is not a multiple of 8"),
                                             ({"output_slope": 0.1}, "output_slope=0.1 is of a ReLU")])
def test_settings_that_contradict_each_other_are_one_line(settings, words):
    with pytest.raises(SettingError, match=words):
        replace(CONFIG, settings)
