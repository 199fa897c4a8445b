"""Shells around cells: their means, dipoles and quadrupoles, against sums cell by cell and under symmetries."""

import itertools
import json
import shutil

import harness
import numpy as np
import pytest

import kerasgal as kg
from kerasgal import config as configuration
from kerasgal.apps.halomass import data, shells
from kerasgal.apps.halomass.config import TrainConfig
from kerasgal.apps.halomass.run import HaloMass
from kerasgal.errors import DataError, SettingError
from kerasgal.simulation import Simulation

RANGE = {"low": 11.9, "high": 14.0}


def noise(n, seed=0):
    return np.random.default_rng(seed).normal(size=(n, n, n)).astype("f4")


def summed(delta, cell, side, number, order):
    """The numbers of one cell, from sums over the cells of each shell, with the tensors written out."""
    n, reach = len(delta), side // 2
    radii = np.linspace(2, side / 2, number)
    found = [[[] for _ in range(number)] for _ in range(3)]
    for offset in itertools.product(range(-reach, reach + 1), repeat=3):
        distance = np.linalg.norm(offset)
        shell = next((index for index, radius in enumerate(radii) if distance <= radius), None)
        if shell is None:
            continue
        value = float(delta[tuple((np.array(cell) + offset) % n)])
        unit = np.array(offset) / distance if distance else np.zeros(3)
        found[0][shell].append(value)
        found[1][shell].append(value * unit)
        found[2][shell].append(value * (np.outer(unit, unit) - np.eye(3) / 3) if distance else np.zeros((3, 3)))
    return [np.linalg.norm(np.mean(values, axis=0)) if degree else np.mean(values)
            for degree in range(order + 1) for values in found[degree]]


@pytest.mark.parametrize("n, side, number", [(12, 7, 3), (9, 9, 4), (16, 13, 5)])
def test_multipoles_are_the_direct_sums_over_each_shell_of_a_periodic_box(n, side, number):
    delta = noise(n)
    cells = np.array([[0, 0, 0], [n - 1, 3, 5], [n // 2, n - 2, 1]]).T
    found = shells.multipoles(delta, cells, side, number, 2)
    assert found.shape == (3, 3 * number) and found.dtype == np.float32
    for cell, numbers in zip(cells.T, found):
        np.testing.assert_allclose(numbers, summed(delta, cell, side, number, 2), atol=2e-6)
    np.testing.assert_array_equal(shells.multipoles(delta, cells, side, number, 1), found[:, :2 * number])


def test_multipoles_are_the_same_under_all_48_symmetries_of_the_cube():
    delta, cell = noise(11), np.array([[5], [5], [5]])
    expected = shells.multipoles(delta, cell, 9, 3, 2)
    assert expected.min(axis=0)[3:].min() > 1e-3
    for axes in itertools.permutations(range(3)):
        for mirrored in itertools.product((False, True), repeat=3):
            turned = np.flip(delta.transpose(axes), [axis for axis in range(3) if mirrored[axis]])
            np.testing.assert_allclose(shells.multipoles(turned, cell, 9, 3, 2), expected, atol=1e-6)


def test_an_even_density_has_neither_dipole_nor_quadrupole_and_a_slope_has_a_dipole_alone():
    cell = np.array([[8], [8], [8]])
    flat = shells.multipoles(np.full((17,) * 3, 2.0, np.float32), cell, 13, 4, 2)
    np.testing.assert_allclose(flat, [[2.0] * 4 + [0.0] * 8], atol=1e-5)
    slope = np.broadcast_to(np.arange(-8, 9, dtype="f4")[:, None, None], (17,) * 3).copy()
    found = shells.multipoles(slope, cell, 13, 4, 2)
    distance = np.linalg.norm(np.indices((13,) * 3) - 6, axis=0)
    # The mean of x r^ over a shell is a third of its mean radius along x, and nothing along the others.
    expected = [distance[shells.shell_index(13, 4) == shell].mean() / 3 for shell in range(4)]
    np.testing.assert_allclose(found[0], [0] * 4 + expected + [0] * 4, atol=1e-5)


def test_order_zero_is_the_averaged_input(boxes):
    inputs = {}
    for kind in ("averaged", "multipoles"):
        config = TrainConfig(input=kind, order=0, patch=15, shells=6, **RANGE)
        (inputs[kind], _), = data.batches([data.load(boxes[0], config, np.array([0, 77, 32767]))], config)
    np.testing.assert_array_equal(inputs["averaged"], inputs["multipoles"])


def test_each_multipole_is_standardised_by_itself(boxes):
    config = TrainConfig(input="multipoles", order=2, patch=9, shells=3, **RANGE)
    with Simulation(boxes[0]) as simulation:
        particles, _ = data.sample_particles(simulation, 60, 11.9, 14.0, 0)
    sample = data.load(boxes[0], config, particles)
    mean, deviation = data.moments([sample], config)
    assert mean.shape == (9,)
    np.testing.assert_allclose(mean, sample.places.mean(axis=0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(deviation, sample.places.std(axis=0), rtol=1e-3)


@pytest.mark.parametrize("kind", ["averaged", "multipoles"])
@pytest.mark.parametrize("patch, number", [(9, 20), (13, 20), (7, 10), (5, 10)])
def test_shells_without_a_cell_are_refused_with_how_many_there_may_be(kind, patch, number):
    with pytest.raises(SettingError, match=f"shells={number} in patch={patch} leaves shells without a cell") as caught:
        TrainConfig(input=kind, patch=patch, shells=number)
    least, most = caught.value.accepted
    for accepted in range(least, most + 1):
        index = shells.shell_index(patch, TrainConfig(input=kind, patch=patch, shells=accepted).shells)
        assert set(range(accepted)) <= set(index.ravel())
    TrainConfig(patch=patch, shells=number)  # the raw density has no shells


def test_the_command_line_refuses_shells_without_a_cell(boxes, tmp_path, invoke):
    done = invoke("halomass", "train", boxes[0], "--preset", "demo", "--input", "averaged", "--patch", "9", "--shells",
                  "20", "--run", tmp_path / "run", check=False)
    assert done.returncode == 2 and "--shells 20 in --patch 9 leaves shells without a cell" in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "run").exists()


def test_the_papers_preset_is_the_papers():
    found = configuration.preset(TrainConfig, "paper")
    np.testing.assert_allclose([found.low, found.high], np.array([11, 13.4]) + np.log10(0.701), atol=6e-4)
    assert not found.last_prior and configuration.preset(TrainConfig, "demo").last_prior
    for kind, expected in (("raw", -2.5), ("averaged", -4.3), ("final", -3)):
        strength = configuration.replace(found, {"input": kind}).prior_strength
        assert np.log10(strength) == pytest.approx(expected)
    assert configuration.replace(found, {"alpha": 0.0}).prior_strength == 0
    assert configuration.preset(TrainConfig, "demo").prior_strength == 1e-5
    with pytest.raises(SettingError, match="alpha=-0.5: it must be at least 0, or -1"):
        TrainConfig(alpha=-0.5)


def test_a_configuration_of_an_earlier_version_is_what_it_was(tmp_path):
    """One written before the paper's preset changed: all settings, and none of those that came later."""
    stored = {"low": 11.0, "high": 13.4, "samples": 200000, "validation_samples": 10000, "input": "averaged",
              "patch": 75, "shells": 20, "extent": 1.5, "symmetries": "none", "padding": "same", "convolutions": 6,
              "filters": 32, "dense": 256, "likelihood": "cauchy", "alpha": 10**-2.5, "scale_rate": 1.0}
    for header in ({}, {"version": 2}):
        (tmp_path / "config.json").write_text(json.dumps({"app": "halomass", **header, "config": stored}))
        found = configuration.read(TrainConfig, tmp_path / "config.json")
        assert (found.low, found.high, found.prior_strength) == (11.0, 13.4, 10**-2.5) and found.last_prior
    # Since then a run without that prior says so, and a file that leaves it out has the paper's.
    configuration.write(TrainConfig(), tmp_path / "new.json")
    assert not configuration.read(TrainConfig, tmp_path / "new.json").last_prior
    (tmp_path / "mine.toml").write_text("epochs = 3\n")
    assert not configuration.read(TrainConfig, tmp_path / "mine.toml").last_prior


def test_a_run_of_an_earlier_version_predicts_as_it_did(trained, boxes, tmp_path):
    before = shutil.copytree(trained("halomass"), tmp_path / "before")
    document = json.loads((before / "config.json").read_text())
    for name in ("order", "last_prior"):
        del document["config"][name]
    (before / "config.json").write_text(json.dumps({**document, "version": 2}))
    old, new = kg.load(before), kg.load(trained("halomass"))
    assert old.config == new.config and old.config.last_prior
    np.testing.assert_array_equal(old.predict(boxes[2], sample=20)["log_mass"],
                                  new.predict(boxes[2], sample=20)["log_mass"])


def test_a_run_of_multipoles_predicts_maps_and_is_exported_and_compressed(boxes, tmp_path, eager):
    settings = {**harness.RECIPES["halomass"].settings, "padding": "same", "steps_per_epoch": 5}
    run = HaloMass.train(boxes[:1], boxes[1:2], run=tmp_path / "run", preset="demo", input="multipoles", shells=3,
                         **settings)
    assert run.network.input_shape == (None, 9) and "9" in run.summary()
    whole = run.predict(boxes[2], map=True)
    particles = np.random.default_rng(0).integers(0, 32**3, 50)
    np.testing.assert_allclose(whole["log_mass"].ravel()[particles],
                               run.predict(boxes[2], particles=particles)["log_mass"], atol=1e-5)
    with Simulation(boxes[2]) as simulation:
        delta = simulation.delta()
    np.testing.assert_allclose(run.predict(delta, map=True, boxsize=25)["log_mass"], whole["log_mass"], atol=1e-5)
    served = json.loads((run.export(tmp_path / "served") / "kerasgal.json").read_text())
    assert "quadrupoles" in served["input"] and served["shape"] == [9]
    small = run.compress(tmp_path / "small")
    np.testing.assert_allclose(small.predict(boxes[2], particles=particles)["log_mass"],
                               whole["log_mass"].ravel()[particles], atol=0.02)
    with pytest.raises(DataError, match="the cube of 7 cells around a particle is larger than the box of 6"):
        run.predict(delta[:6, :6, :6] - delta[:6, :6, :6].mean(), map=True, boxsize=25 * 6 / 32, outside_domain=True)
