"""What the networks may see of cells from a finer grid of the particles: where in them it is densest."""

import itertools
import shutil

import h5py
import harness
import numpy as np
import pytest
from scipy.ndimage import convolve1d

import kerasgal as kg
from kerasgal import run_folder
from kerasgal.apps.cascade import data, evaluate, finer, predict, trees
from kerasgal.errors import DataError, DomainError, SettingError
from kerasgal.grid import deposit_cic

FINER = {"channels": "density,finer"}
PINNED = ([3.8840, 0, 0, 2.7046, 0, 0, 1.0521, 0, 0],
          [3.2379, -0.6470, -0.6470, 2.5009, -0.2045, -0.2045, 1.0027, -0.0504, -0.0504])


def config(**settings):
    return harness.config_of("cascade", **settings)


@pytest.fixture(scope="module")
def clump():
    """Particles in a box of 8 cells of 1: some everywhere, and a clump at (2.95, 4.5, 6.5), across a face of cells."""
    rng = np.random.default_rng(4)
    return np.concatenate([rng.uniform(0, 8, (600, 3)), rng.normal([2.95, 4.5, 6.5], 0.04, (200, 3))]).astype("f4")


def by_hand(position, width, n=8, boxsize=8.0):
    """Highest density within each cell: clouds on the finer grid particle by particle, and a Gaussian by its formula.
    """
    side = n * finer.DIVISIONS
    fine = np.zeros((side,) * 3)
    for place in np.asarray(position, float) * side / boxsize - 0.5:
        lower = np.floor(place).astype(int)
        for corner in itertools.product((0, 1), repeat=3):
            fine[tuple((lower + corner) % side)] += np.prod(1 - np.abs(place - lower - corner))
    fine /= fine.mean()
    offset = np.arange(-int(finer.TRUNCATE * width + 0.5), int(finer.TRUNCATE * width + 0.5) + 1)
    weight = np.exp(-0.5 * (offset / width)**2)
    for axis in range(3):
        fine = convolve1d(fine, weight / weight.sum(), axis=axis, mode="wrap")
    return np.array([[[part.max() for part in np.split(row, n, axis=2)] for row in np.split(plane, n, axis=1)]
                     for plane in np.split(fine, n, axis=0)])


@pytest.mark.parametrize("memory", [finer.MEMORY, 0, 7 * 4 * finer.DIVISIONS**3 * 64])
def test_the_highest_density_within_a_cell_is_that_by_hand_in_slabs_too(clump, memory):
    """In one slab, in one for each layer of cells, and in some of three layers, of which the last has two."""
    found = finer.highest_within(clump, 8, 8.0, memory=memory)
    for width, highest in zip(finer.WIDTHS, found):
        np.testing.assert_allclose(highest, by_hand(clump, width), rtol=1e-4, atol=1e-4)


def test_particles_at_the_faces_and_in_double_precision_are_all_there():
    """One that float32 rounds up to the side of the box, and one beyond it."""
    position = np.array([[8 - 1e-9, 4.5, 4.5], [3.5, 8 - 1e-9, 8 + 0.5], [-0.5, 4.5, 0.0]])
    for memory in (finer.MEMORY, 0):
        found = finer.highest_within(position, 8, 8.0, memory=memory)
        for width, highest in zip(finer.WIDTHS, found):
            np.testing.assert_allclose(highest, by_hand(position, width), rtol=1e-4, atol=1e-3)


def test_a_grid_that_is_no_cube_gets_its_particles_as_a_cube_does(clump):
    """The layers of a slab in the middle, whose clouds are whole, are those of the periodic grid."""
    scaled = clump[np.argsort(clump[:, 0])]
    whole = deposit_cic(clump, 8 * finer.DIVISIONS, 8.0)
    for low, high in ((1, 5), (-2, 3), (5, 12), (-3, 12)):
        part = finer.slab(scaled, 8, low, high)
        layers = np.arange(finer.DIVISIONS * low, finer.DIVISIONS * high) % len(whole)
        np.testing.assert_allclose(part[1:-1], whole[layers[1:-1]], atol=1e-4)


def test_the_cell_with_the_densest_point_is_told_from_its_neighbour(clump):
    """The density cannot: nearly half of the clump's clouds lie in the next cell."""
    channels = finer.finer(clump, 8, 8.0)
    assert channels.shape == (8, 8, 8, finer.CHANNELS) and channels.dtype == np.float32
    density = deposit_cic(clump, 8, 8.0)
    assert density[2, 4, 6] / density[3, 4, 6] < 1.5
    over = channels[..., 1::1 + len(finer.NEIGHBOURHOODS)]  # over the densest of the neighbours
    assert (over[2, 4, 6] == 0).all() and over[3, 4, 6, 0] < -0.3
    assert (channels[..., 1] <= 0).all() and (channels[..., 2] <= channels[..., 1]).all()


def test_channels_turn_with_the_box(clump):
    turned = np.stack([-clump[:, 1] % 8, clump[:, 0], clump[:, 2]], axis=-1)
    np.testing.assert_allclose(finer.finer(turned, 8, 8.0), np.rot90(finer.finer(clump, 8, 8.0), 1, (0, 1)), atol=1e-3)


def test_what_networks_were_trained_on_stays_what_it_is(clump):
    """The numbers of the cell of the clump and of its neighbour, which weights that ship depend on."""
    channels = finer.finer(clump, 8, 8.0)
    np.testing.assert_allclose(channels[2, 4, 6], PINNED[0], atol=1e-3)
    np.testing.assert_allclose(channels[3, 4, 6], PINNED[1], atol=1e-3)


def test_a_file_without_particles_is_refused(clump, tmp_path):
    box = harness.box_of(clump, clump)
    field, _ = data.given(box, config(cell=1.0, **FINER))
    np.testing.assert_array_equal(field[..., 1:], finer.finer(clump, 8, 8.0))
    assert data.features(box, 1.0, True, True)["sampling"] == 800 / 512 and "sampling" not in data.features(box, 1.0)
    box.save(tmp_path / "box.h5")
    with h5py.File(tmp_path / "box.h5", "r+") as file:
        del file["final/position"]
        file["final/delta"] = np.zeros((8, 8, 8), "f4")
    with kg.Simulation(tmp_path / "box.h5") as box, pytest.raises(DataError, match="is known of particles alone"):
        data.given(box, config(cell=1.0, **FINER))


def test_particles_that_are_no_numbers_or_not_those_of_the_field_are_refused(clump, tmp_path):
    delta, settings = deposit_cic(clump, 8, 8.0) / (len(clump) / 512) - 1, config(cell=1.0, **FINER)
    assert data.given(box_with(clump, delta), settings)[0].shape == (8, 8, 8, 1 + finer.CHANNELS)
    with pytest.raises(DataError, match="are not of one density: their correlation in cells is .*, and at least 0.8"):
        data.given(box_with((clump + 4) % 8, delta), settings)
    box_with(clump, delta).save(tmp_path / "box.h5")
    with h5py.File(tmp_path / "box.h5", "r+") as file:
        file["final/position"][7, 0] = np.nan
    with kg.Simulation(tmp_path / "box.h5") as box, pytest.raises(DataError, match="has 1 of 2400 values that are NaN"):
        data.given(box, settings)


def box_with(position, delta):
    return harness.box_of(position, np.zeros_like(position), **{"final/delta": delta.astype("f4")})


def test_simulations_of_several_samplings_are_no_training(painted, tmp_path):
    thick = shutil.copy(painted[1], tmp_path / "thick.h5")
    with h5py.File(thick, "r+") as file:
        for name in ("position", "velocity"):
            kept = np.repeat(file[f"final/{name}"][...], 2, axis=0)
            del file[f"final/{name}"]
            file[f"final/{name}"] = kept
    with pytest.raises(DataError, match="as many particles in each cell: received 1 to 2"):
        harness.train("cascade", painted, tmp_path / "run", training=[painted[0], thick], validation=painted[2:],
                      **FINER)


@pytest.fixture(scope="module")
def run(painted, tmp_path_factory, eagerly):
    with eagerly(True):
        return harness.train("cascade", painted, tmp_path_factory.mktemp("finer") / "run", training=painted[:2],
                             validation=painted[2:], surroundings=True, **FINER)


@pytest.fixture(scope="module")
def unseen(painted, tmp_path_factory):
    """A simulation of other numbers than the training's."""
    return shutil.copy(painted[2], tmp_path_factory.mktemp("unseen") / "box.h5")


@pytest.mark.usefixtures("eager")
def test_a_run_that_sees_a_finer_grid_predicts_what_its_networks_find(run, unseen, tmp_path):
    found = run.predict(unseen)
    with kg.Simulation(unseen) as box:
        density = data.density(box, run.config.cell)
        seen = np.concatenate([density[..., None], finer.finer(box["final/position"][...], len(density), box.boxsize)],
                              axis=-1)
    drawn = run.predict(unseen, catalogue=True)
    assert drawn["galaxies/velocity"].shape == drawn["galaxies/position"].shape == (len(drawn["galaxies/position"]), 3)
    expected = predict.predict_field(run.network, seen, run.config)
    np.testing.assert_allclose(found["probability"], expected[..., 0], atol=1e-5)
    assert run.domain["sampling"] == [1, 1] and run.networks["classify"].input_shape[-1] == 1 + finer.CHANNELS
    with pytest.raises(SettingError, match="channels='density,finer', received a density alone"):
        predict.predict_field(run.network, density, run.config)
    with pytest.raises(DataError, match="has no final/position"):
        run.predict(np.zeros((32, 32, 32)), boxsize=12.5)
    with h5py.File(shutil.copy(unseen, tmp_path / "more.h5"), "r+") as file:  # eight of each particle
        position = file["final/position"][...]
        del file["final/position"]
        file["final/position"] = np.repeat(position, 8, axis=0)
    with pytest.raises(DomainError, match="a finer grid of 8 particles per cell, and the run was trained on .* of 1 "):
        run.predict(tmp_path / "more.h5")
    _, description = run.served()
    assert "kerasgal.apps.cascade.finer" in description["input"]


@pytest.mark.slow
@pytest.mark.usefixtures("eager")
def test_trees_that_see_the_same_stand_beside_the_run(run, unseen):
    found = run.evaluate(unseen)["baselines"]
    with kg.Simulation(unseen) as box:
        density, counts = data.load(box, run.config)
        within = finer.finer(box["final/position"][...], len(density), box.boxsize)
    for key, more in ((evaluate.TREES, None), (evaluate.FINER_TREES, within)):
        fitted = trees.fit(*run_folder.data_to_read(run.folder / "regress"), run.config, more=more is not None)
        expected = np.mean(np.square(fitted.predict(density, more) - counts, dtype=float)) * evaluate.LOSS_CELLS
        assert found[key[1]]["squared_error"] == pytest.approx(expected, rel=1e-6)


def test_trees_that_see_the_finer_grid_follow_what_only_that_says():
    """Galaxies stand where a channel says so and the density, which is noise, does not."""
    rng = np.random.default_rng(0)

    def box():
        density = rng.lognormal(0, 1, (24, 24, 24)).astype("f4")
        more = rng.normal(size=(24, 24, 24, 2)).astype("f4")
        return density, (more[..., 0] > 1.5).astype("f4"), np.ones((24,) * 3, bool), more

    inside, apart = [box(), box()], [box()]
    found = trees.fitted(trees.regressor(50, stops=True, **trees.OPTIONS), inside, apart)
    blind = trees.fitted(trees.regressor(50, stops=True, **trees.OPTIONS), [one[:3] for one in inside],
                         [one[:3] for one in apart])
    density, counts, _, more = box()
    errors = [np.mean((one - counts)**2) for one in (found.predict(density, more), blind.predict(density))]
    assert errors[0] < 0.3 * errors[1]
