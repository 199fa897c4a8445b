"""Velocities of galaxies that are drawn: the dark matter's, and a scatter that was measured about it."""

import json

import h5py
import numpy as np
import pytest
from astropy.table import Table

import kerasgal as kg
from kerasgal.apps.cascade import motion
from kerasgal.apps.cascade.motion import Motion
from kerasgal.errors import DamagedError, DataError
from kerasgal.tables import unit

pytestmark = pytest.mark.usefixtures("eager")

FLOW = np.array([100.0, -250.0, 40.0])


@pytest.fixture(scope="module")
def known():
    """A box of 10 Mpc/h that flows as one, half of it ten times as dense; galaxies scatter by 60 and 300 km/s there."""
    rng = np.random.default_rng(0)
    density = np.ones((8, 8, 8), np.float32)
    density[4:] = 10
    position = rng.uniform(0, 10, (4000, 3)).astype(np.float32)
    spread = np.where(position[:, :1] < 5, 60, 300)
    velocity = FLOW + spread * rng.standard_normal(position.shape)
    return density, np.broadcast_to(FLOW, (8, 8, 8, 3)).astype(np.float32), 10.0, position, velocity


def test_the_scatter_of_velocities_is_measured_by_density(known):
    found = motion.measure([known])
    np.testing.assert_allclose(found.density, [1, 10])
    np.testing.assert_allclose(found.dispersion, [60, 300], rtol=0.03)
    assert found.dispersion_at([0.0, 0.1, 1e6])[[0, 2]].tolist() == [found.dispersion[0], found.dispersion[1]]
    np.testing.assert_allclose(found.dispersion_at(np.sqrt(10)), 180, rtol=0.03)  # half way in the logarithm
    few = tuple(values if place < 3 else values[:20] for place, values in enumerate(known))
    assert motion.measure([few]) is None and motion.measure([]) is None
    joined = motion.measure([tuple(values if place < 3 else values[:40] for place, values in enumerate(known))])
    assert len(joined.density) == 1 and 1 < joined.density[0] < 10


def test_galaxies_that_are_drawn_move_as_those_that_were_measured(known):
    density, field, boxsize, position, _ = known
    drawn = motion.draw(position, density, field, boxsize, Motion((1.0, 10.0), (60.0, 300.0)), seed=1)
    assert drawn.dtype == np.float32 and drawn.shape == position.shape
    for part, sigma in ((position[:, 0] < 5, 60), (position[:, 0] >= 5, 300)):
        number = part.sum()
        np.testing.assert_allclose(drawn[part].mean(axis=0), FLOW, atol=5 * sigma / np.sqrt(number))
        np.testing.assert_allclose(drawn[part].std(axis=0), sigma, rtol=0.08)
    again = [motion.draw(position, density, field, boxsize, Motion((1.0,), (60.0,)), seed=seed) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(again[0], again[1])
    assert not np.array_equal(again[0], again[2])


def test_galaxies_take_the_velocity_of_their_place():
    """A velocity that rises along x, and no scatter: that of the cells around, by their shares."""
    field = np.zeros((8, 8, 8, 3), np.float32)
    field[..., 0] = np.arange(8)[:, None, None] * 100
    position = np.array([[1.5, 4, 4], [2.0, 1, 1], [2.25, 7, 3]])  # in cells: the middle of 1, its face to 2, beyond
    drawn = motion.draw(position, np.ones((8, 8, 8)), field, 8.0, Motion((1.0,), (0.0,)))
    np.testing.assert_allclose(drawn, [[100, 0, 0], [150, 0, 0], [175, 0, 0]], atol=1e-3)


def test_a_motion_is_kept_and_a_damaged_one_refused(tmp_path):
    motion.write(None, tmp_path)
    assert motion.read(tmp_path) is None
    motion.write(Motion((1.0, 3.0), (50.0, 70.0)), tmp_path)
    assert motion.read(tmp_path) == Motion((1.0, 3.0), (50.0, 70.0))
    for wrong in ({"density": [1.0]}, {"density": [2, 1], "dispersion": [1, 1]}, {"density": [1], "dispersion": [-1]},
                  {"density": [], "dispersion": []}, {"density": [1], "dispersion": ["much"]}):
        (tmp_path / motion.FILE).write_text(json.dumps(wrong))
        with pytest.raises(DamagedError, match="does not hold velocities"):
            motion.read(tmp_path)


@pytest.fixture(scope="module")
def run(trained):
    return kg.load(trained("cascade"))


def test_training_measures_how_painted_galaxies_move(run, painted):
    """By another count: galaxies about the mean of the eight cells around them, over both boxes."""
    square, number = 0.0, 0
    for path in painted[:2]:
        with kg.Simulation(path) as box:
            assert box["galaxies/velocity"].shape == box["galaxies/position"].shape
        (_, field, boxsize, position, velocity), = motion.samples_of([path], run.config)
        place = position * 32 / boxsize - 0.5
        lower = np.floor(place).astype(int)
        share, around = place - lower, 0.0
        for corner in np.ndindex(2, 2, 2):
            weight = np.prod(np.where(corner, share, 1 - share), axis=1)
            around = around + weight[:, None] * field[tuple(((lower + corner) % 32).T)]
        square, number = square + np.sum((velocity - around)**2) / 3, number + len(velocity)
    assert run.motion == motion.read(run.folder / "regress") and len(run.motion.density) <= number // motion.FEWEST
    low, high = min(run.motion.dispersion), max(run.motion.dispersion)
    assert low <= np.sqrt(square / number) <= high and 5 < low and high < 400
    (*_, position, _), = motion.samples_of([painted[0]], run.config, corner=16)
    with kg.Simulation(painted[0]) as box:  # all but the test cube's
        assert len(position) == np.sum((box["galaxies/position"][...] < 6.25).any(axis=1))


def test_fewer_velocities_than_galaxies_are_refused(painted, tmp_path, run):
    """One velocity would be taken for that of every galaxy."""
    path = tmp_path / "box.h5"
    path.write_bytes(painted[0].read_bytes())
    with h5py.File(path, "a") as file:
        kept = file["galaxies/velocity"][:1]
        del file["galaxies/velocity"]
        file["galaxies/velocity"] = kept
    with pytest.raises(DataError, match=r"galaxies/velocity has the shape \(1, 3\), and galaxies/position"):
        list(motion.samples_of([path], run.config))


def test_a_catalogue_has_velocities_where_they_are_known(run, painted, tmp_path, monkeypatch):
    made = run.predict(painted[2], catalogue=True)
    position, velocity = made["galaxies/position"], made["galaxies/velocity"]
    (density, field, boxsize, *_), = motion.samples_of([painted[2]], run.config)
    np.testing.assert_array_equal(velocity, motion.draw(position, density, field, boxsize, run.motion))
    assert made.notes == [] and made.table["vz"].unit == unit("km/s") and "velocity" not in run.predict(painted[2])
    made.save(tmp_path / "out.h5")
    made.save(tmp_path / "out.ecsv")
    with h5py.File(tmp_path / "out.h5") as file:
        np.testing.assert_array_equal(file["galaxies/velocity"], velocity)
    table = Table.read(tmp_path / "out.ecsv", format="ascii.basic")
    np.testing.assert_allclose(table["vx"], velocity[:, 0], rtol=1e-5)
    with kg.Simulation(painted[2]) as box:
        delta = density - 1
        assert "final/velocity" in box
    still = run.predict(delta, boxsize=boxsize, redshift=0.0, catalogue=True)
    assert "galaxies/velocity" not in still and "vx" not in still.table.colnames
    assert "array has no final/position and no final/velocity: galaxies are drawn without a velocity" in still.notes
    monkeypatch.setitem(run.__dict__, "motion", None)  # as of a run that was trained without
    still = run.predict(painted[2], catalogue=True)
    note, = still.notes
    assert note.startswith(f"{run.folder} did not measure how galaxies move") and "galaxies/velocity" not in still
    assert run.predict(painted[2]).notes == []
