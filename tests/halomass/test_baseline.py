"""Boosted trees: what they read, what they learn, and what is said where they cannot be fitted."""

import json
import sys
import types

import numpy as np
import pytest

import kerasgal as kg
from kerasgal import run_folder
from kerasgal.apps.halomass import baseline, data
from kerasgal.apps.halomass.config import TrainConfig
from kerasgal.config import preset, replace
from kerasgal.errors import DataError, RunError
from kerasgal.simulation import Simulation


@pytest.fixture(scope="module")
def config():
    return replace(preset(TrainConfig, "demo"), {"low": 11.8, "high": 14.0, "samples": 2000, "patch": 9,
                                                 "validation_samples": 500}, "test")


@pytest.fixture(scope="module")
def run(boxes, config, tmp_path_factory):
    """A run as far as the baseline looks at one: what its folder says of its training data."""
    folder = tmp_path_factory.mktemp("run")
    seen = {"training": [str(boxes[0])], "validation": [str(boxes[1])]}
    (folder / "provenance.json").write_text(json.dumps({"data": seen}))
    return types.SimpleNamespace(folder=folder, config=config)


def test_densities_are_means_over_the_cells_of_a_sphere(boxes):
    particles = np.array([0, 5000, 32767])
    with Simulation(boxes[0]) as simulation:
        delta, cellsize = simulation.delta(), simulation.cellsize
    found = baseline.sphere_densities(boxes[0], particles, np.array([0.01, 7.0]) * cellsize)
    np.testing.assert_allclose(found[:, 0], delta.ravel()[particles], rtol=1e-3)
    axis = np.arange(-8, 9)
    offset = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    offset = offset[(offset**2).sum(axis=1) <= 7.0**2]
    cells = np.stack(np.unravel_index(particles, delta.shape), axis=-1)
    direct = [delta[tuple(((cell + offset) % 32).T)].mean() for cell in cells]
    np.testing.assert_allclose(found[:, 1], direct, atol=0.1 * delta.std())  # the sphere's edge cuts cells


def test_trees_know_more_of_an_unseen_box_than_the_mean(boxes, run, config):
    fitted = baseline.fit(run)
    with Simulation(boxes[2]) as simulation:
        particles, true = data.sample_particles(simulation, 2000, config.low, config.high, 0)
    predicted = fitted.predict(boxes[2], particles)
    assert np.corrcoef(true, predicted)[0, 1] > 0.3


def test_trees_beside_a_run_of_multipoles_read_the_same_numbers_as_its_network(boxes, run, config):
    config = replace(config, {"input": "multipoles", "shells": 4, "samples": 1000})
    fitted = baseline.fit(types.SimpleNamespace(folder=run.folder, config=config))
    with Simulation(boxes[2]) as simulation:
        particles, true = data.sample_particles(simulation, 1000, config.low, config.high, 0)
    numbers = data.load(boxes[2], config, particles).places
    assert numbers.shape == (1000, 12)
    np.testing.assert_array_equal(fitted.predict(boxes[2], particles), fitted.model.predict(numbers))
    assert np.corrcoef(true, fitted.predict(boxes[2], particles))[0, 1] > 0.3


def test_scikit_learn_is_optional(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    with pytest.raises(DataError, match=r"install kerasgal\[baseline\]"):
        baseline.fit(run)


def test_a_run_that_does_not_say_what_it_was_trained_on_has_no_baseline(run, tmp_path):
    for folder in (None, tmp_path):
        with pytest.raises(RunError, match="does not say which data it was trained on"):
            baseline.fit(types.SimpleNamespace(folder=folder, config=run.config))


def test_a_network_that_comes_without_its_simulations_has_no_baseline_and_says_why():
    words = ("no boosted trees to compare with: the data that this network was trained on do not come with it; they "
             "are fitted to the particles of a run of your own")
    with pytest.raises(RunError, match=f"^{words}$"):
        baseline.fit(kg.load("halomass-raw"))


def test_a_run_of_data_in_memory_has_no_baseline_and_says_why(run, tmp_path):
    run_folder.write_json({"data": {"training": ["kerasgal simulate: 32^3 particles, seed 7"], "validation": []}},
                          tmp_path / run_folder.PROVENANCE)
    with pytest.raises(RunError, match="was trained on data in memory, which no file has"):
        baseline.fit(types.SimpleNamespace(folder=tmp_path, config=run.config))
