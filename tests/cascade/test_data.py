"""Density and galaxies on a grid, the split by volume, and how predictions are measured."""

import h5py
import numpy as np
import pytest

import kerasgal as kg
from kerasgal.apps.cascade import data, metrics, motion
from kerasgal.apps.cascade.config import TrainConfig
from kerasgal.errors import DataError, DomainError
from kerasgal.grid import deposit_tsc
from kerasgal.simulation import Simulation

sklearn_metrics = pytest.importorskip("sklearn.metrics")


def test_the_split_is_the_papers():
    train, validation, test = data.split_by_volume(1024, 32)
    assert len(test) == 18**3
    assert [round(100 * len(part) / 32**3, 1) for part in (train, validation, test)] == [63.1, 19.1, 17.8]
    assert len(np.unique(np.concatenate([train, validation, test]))) == 32**3
    assert data.test_corner(1024, 32) == 448
    corners = np.stack(np.unravel_index(test, (1024,) * 3))
    assert corners.min() == 448  # one coherent cube, up to the far corner of the box
    with pytest.raises(DataError, match="does not divide"):
        data.split_by_volume(100, 32)


def write(path, **datasets):
    with h5py.File(path, "w") as file:
        file.attrs.update(format="kerasgal simulation", version=1, boxsize=8.0, redshift_initial=50.0,
                          redshift_final=0.0, particle_mass=1.0)
        for name, values in datasets.items():
            file[name.replace("_", "/")] = values
    return path


def test_gridded_fields_are_taken_as_they_are_and_positions_are_counted_by_cell(tmp_path):
    rng = np.random.default_rng(0)
    density, count = rng.uniform(0, 4, (8, 8, 8)), rng.poisson(0.1, (8, 8, 8))
    delta = density / density.mean() - 1
    with Simulation(write(tmp_path / "a.h5", final_delta=delta, galaxies_count=count), require=()) as simulation:
        np.testing.assert_allclose(data.density(simulation, 1.0), 1 + delta, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(data.galaxy_counts(simulation, 1.01), count)
    cells = np.stack(np.unravel_index(np.repeat(np.arange(512), count.ravel()), (8, 8, 8)), axis=1)
    position = cells + rng.uniform(0, 1, cells.shape)
    with Simulation(write(tmp_path / "b.h5", final_position=rng.uniform(0, 8, (4096, 3)),
                          galaxies_position=position), require=()) as simulation:
        np.testing.assert_array_equal(data.galaxy_counts(simulation, 1.0), count)
        assert data.density(simulation, 1.0).mean(dtype=float) == pytest.approx(1, abs=1e-5)
        clouds = deposit_tsc(simulation["final/position"][...], 8, 8.0) / 8
        np.testing.assert_allclose(data.density(simulation, 1.0, deposit="tsc"), clouds, atol=1e-5)
        assert TrainConfig().deposit == "cic"  # as runs that do not say it
        config = TrainConfig(cell=1.0, deposit="tsc")
        np.testing.assert_allclose(data.load(simulation, config)[0], clouds, atol=1e-5)


@pytest.mark.parametrize("name", ["final_delta", "galaxies_count"])
def test_a_files_own_grid_is_taken_where_its_cells_are_about_those_of_the_run(name, tmp_path):
    """Of 96 cells of 0.0833 Mpc/h, where the box would be divided into 97 of them; TNG300 has 1024, for 1025."""
    datasets = {"galaxies_position": np.zeros((1, 3)), name: np.zeros((96,) * 3, np.float32)}
    if name == "galaxies_count":
        datasets = {name: np.ones((96,) * 3, np.uint8), "final_position": np.full((1, 3), 4.0)}
    with Simulation(write(tmp_path / "own.h5", **datasets), require=()) as simulation:
        assert data.density(simulation, 8 / 97, sparse=True).shape == (96,) * 3
        assert data.galaxy_counts(simulation, 8 / 97).shape == (96,) * 3
        assert kg.Cascade.grid(simulation, TrainConfig(cell=8 / 97)) == 96
        assert data.features(simulation, 8 / 97)["cellsize"] == 8 / 96
        assert kg.Cascade.grid(simulation, TrainConfig(cell=8 / 100)) == 100  # further off than the tolerance


@pytest.mark.parametrize("message, cell, datasets", [
    ("galaxies/count has the shape", 1.0, {"final_delta": np.zeros((8,) * 3), "galaxies_count": np.ones((4,) * 3)}),
    ("values that are negative", 1.0, {"final_delta": np.zeros((8,) * 3), "galaxies_count": np.full((8,) * 3, -1)}),
    ("not a single galaxy", 1.0, {"final_delta": np.zeros((8,) * 3), "galaxies_count": np.zeros((8,) * 3)}),
    ("has no galaxies", 1.0, {"final_delta": np.zeros((8,) * 3)}),
    ("512 values that are NaN or infinite", 1.0, {"final_delta": np.full((8,) * 3, np.nan)}),
    ("final/delta has the mean 1: expected is a density contrast", 1.0, {"final_delta": np.ones((8,) * 3)}),
    ("256 values that are negative", 1.0, {"final_delta": np.tile([-2.0, 2.0], (8, 8, 4))}),
    ("cells of 0.5 Mpc/h make 16 a side", 0.5, {"final_delta": np.zeros((8,) * 3)}),
    ("does not divide into cells of 3 Mpc/h", 3.0, {"final_delta": np.zeros((8,) * 3)}),
    ("has no final density", 1.0, {"galaxies_count": np.ones((8,) * 3)}),
])
def test_bad_fields_are_one_clear_line(message, cell, datasets, tmp_path):
    with Simulation(write(tmp_path / "bad.h5", **datasets), require=()) as simulation:
        with pytest.raises(DataError, match=message) as raised:
            data.density(simulation, cell)
            data.galaxy_counts(simulation, cell)
    assert "\n" not in str(raised.value)


def test_particles_sparser_than_cells_are_refused(tmp_path, caplog):
    """An eighth of a particle for each cell; a field on such cells needs none."""
    position = np.random.default_rng(0).uniform(0, 8, (64, 3))
    with Simulation(write(tmp_path / "few.h5", final_position=position), require=()) as simulation:
        with pytest.raises(DomainError, match="0.125 particles for each cell of 1 Mpc/h"):
            data.density(simulation, 1.0)
        with pytest.raises(DomainError, match="outside_domain=True"):
            data.check_particles(simulation, 1.0)
        assert data.density(simulation, 1.0, sparse=True).shape == (8, 8, 8) and not caplog.messages
        notes = data.check_particles(simulation, 1.0, outside_domain=True)
        assert len(notes) == 1 and caplog.messages == notes
        assert data.check_particles(simulation, 2.0) == [] and data.density(simulation, 2.0).shape == (4, 4, 4)
        assert data.features(simulation, 1.0)["particles_per_cell"] == 0.125
    with Simulation(write(tmp_path / "field.h5", final_position=position, final_delta=np.zeros((8,) * 3)),
                    require=()) as simulation:
        assert data.check_particles(simulation, 1.0) == [] and data.density(simulation, 1.0).max() == 1
        assert data.features(simulation, 1.0)["particles_per_cell"] is None
        config = TrainConfig(cell=1.0, channels="density,velocity")
        with pytest.raises(DomainError, match="0.125 particles for each cell"):
            data.given(simulation, config)


def test_a_field_does_not_make_up_for_few_particles_where_galaxies_move(tmp_path, caplog):
    position, run = np.random.default_rng(0).uniform(0, 8, (64, 3)), kg.Cascade(TrainConfig(cell=1.0), {"": None})
    path = write(tmp_path / "field.h5", final_position=position, final_velocity=position, galaxies_position=position,
                 galaxies_velocity=position, final_delta=np.zeros((8,) * 3))
    assert list(motion.samples_of([path], run.config)) == []
    assert len(caplog.messages) == 1 and caplog.messages[0].endswith(": how its galaxies move is not measured")
    with run.asked(path, False) as (simulation, _), pytest.raises(DomainError, match="0.125 particles for each cell"):
        with run.asked(simulation, False, moving=True):
            pass


def test_a_field_says_of_how_many_particles_it_is_and_how_they_were_put_on_it(tmp_path, caplog):
    path = write(tmp_path / "field.h5", final_delta=np.zeros((8,) * 3))
    with h5py.File(path, "r+") as file:
        file.attrs.update(window="ngp", particles_per_cell=0.25)
    with Simulation(path, require=()) as simulation:
        assert data.features(simulation, 1.0)["particles_per_cell"] == 0.25
        for refused in (data.check_particles, data.density):
            with pytest.raises(DomainError, match="0.25 particles for each cell of 1 Mpc/h"):
                refused(simulation, 1.0)
        notes = data.check_particles(simulation, 1.0, outside_domain=True, deposit="tsc")
        assert caplog.messages == notes and len(notes) == 2
        assert notes[1].endswith("of final/delta were put on its grid by ngp, and the run has tsc")
        assert data.other_window(simulation, 1.0, "ngp") is None
    with h5py.File(path, "r+") as file:
        file.attrs["particles_per_cell"] = 8.0
    caplog.clear()
    with Simulation(path, require=()) as simulation:
        assert data.density(simulation, 1.0).shape == (8, 8, 8)
        assert len(caplog.messages) == 1 and "by ngp, and the run has cic" in caplog.text


def test_recall_precision_and_accuracy_are_scikit_learns():
    rng = np.random.default_rng(1)
    occupied = rng.random((10, 10, 10)) < 0.1
    score = np.round(rng.random(occupied.shape) + 0.4 * occupied, 2)  # with ties
    thresholds = np.array([0.0, 0.3, 0.77, 1.0, 1.2])
    found = metrics.confusion(score, occupied, thresholds)
    for number, threshold in enumerate(thresholds):
        called = (score > threshold).ravel()
        for name, function in (("recall", sklearn_metrics.recall_score), ("accuracy", sklearn_metrics.accuracy_score),
                               ("precision", sklearn_metrics.precision_score)):
            assert found[name][number] == pytest.approx(function(occupied.ravel(), called))
        assert found["gain"][number] == pytest.approx(occupied[score > threshold].mean() / occupied.mean())
    assert np.isnan(metrics.confusion(score, occupied, [2.0])["precision"][0])
    with pytest.raises(DataError, match="no cell is occupied"):
        metrics.confusion(score, np.zeros_like(occupied), thresholds)


@pytest.mark.parametrize("recall", [0.5, 0.9, 1.0])
def test_a_threshold_reaches_its_recall_and_no_higher_one_does(recall):
    rng = np.random.default_rng(2)
    occupied, score = rng.random(1000) < 0.3, rng.random(1000).astype(np.float32)
    threshold = metrics.threshold_at_recall(score, occupied, recall)
    higher = np.sort(score[occupied & (score > threshold)])[0]
    reached = metrics.confusion(score, occupied, [threshold, higher])["recall"]
    assert reached[0] >= recall > reached[1]


def test_galaxies_are_conserved_in_sub_cubes():
    counts = np.random.default_rng(3).poisson(0.2, (8, 8, 8))
    sums = metrics.sums_in_cubes(counts, 4)
    assert sums.shape == (2, 2, 2) and sums.sum() == counts.sum() and sums[0, 1, 0] == counts[:4, 4:, :4].sum()
    assert metrics.squared_error_in_cubes(counts + 1 / 64, counts, 4) == pytest.approx(1)  # one more in each cube
    assert metrics.mean_residual(np.array([1.1, 0.8, np.nan]), np.array([1.0, 1.0, 1.0])) == pytest.approx(0.15)
