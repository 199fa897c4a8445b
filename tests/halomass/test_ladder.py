"""The ladder: its numbers against what is known of made-up predictions, and the whole of it on small boxes."""

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from astropy.table import Table
from scipy.special import rel_entr

import kerasgal as kg
from kerasgal import domain
from kerasgal.apps.halomass import data, ladder, metrics
from kerasgal.apps.halomass.config import TrainConfig
from kerasgal.errors import DataError, DomainError, RunError, SettingError, UnseenError

SMALL = {"low": 11.9, "high": 13.8, "samples": 600, "validation_samples": 100, "patch": 9, "shells": 3, "dense": 12,
         "batch": 20, "epochs": 1, "steps_per_epoch": 10}
FLAGS = [word for name, value in SMALL.items() for word in (f"--{name.replace('_', '-')}", value)]


def made_up(rungs, true):
    """The rows of a ladder of predictions, every particle in a halo of its own."""
    described = {"log_mass": true, "halo": np.arange(len(true))}
    found = ladder.compared(rungs, described, TrainConfig(), ["a"], ["b"], ["c"])
    return found, {(row["model"], row["rung"]): row for row in found["rungs"]}


def test_errors_and_differences_are_those_of_predictions_of_which_they_are_known():
    rng = np.random.default_rng(0)
    m, trainings = 1500, 8
    true, common = rng.normal(size=(2, m))
    worse = true + common + 0.1 * rng.normal(size=(trainings, m))
    better = true + 0.8 * common + 0.1 * rng.normal(size=(trainings, m))
    _, rows = made_up({("trees", "l = 0"): worse, ("trees", "l <= 1"): better}, true)
    low, high = rows["trees", "l = 0"], rows["trees", "l <= 1"]
    # The error of a correlation of independent pairs is (1 - r^2) / sqrt(m).
    r = 1 / np.sqrt(2.01)
    assert low["r"] == pytest.approx(r, abs=0.04) and low["r_haloes"] == pytest.approx((1 - r**2) / m**0.5, rel=0.25)
    assert low["r_seeds"] == pytest.approx(np.std([np.corrcoef(true, one)[0, 1] for one in worse], ddof=1))
    assert low["r_error"] == pytest.approx(np.hypot(low["r_haloes"], low["r_seeds"] / trainings**0.5))
    assert low["rms"] == pytest.approx(np.sqrt(1.01), rel=0.05)
    # They share most of what is wrong in them, so their difference is known better than either.
    assert high["rms_gain"] == pytest.approx(np.sqrt(0.65) - np.sqrt(1.01), abs=0.03)
    assert high["rms_gain_error"] < 0.4 * low["rms_error"] and high["r_gain"] == high["r_total"] > 0
    assert high["rms_ratio"] == pytest.approx(np.sqrt(0.65 / 1.01), rel=0.02)
    assert high["divergence_ratio"] == pytest.approx(high["rms_ratio"], abs=0.03)
    assert low["r_gain"] is None and low["divergence"] is None and low["rms_ratio"] is None


def test_a_rung_that_adds_nothing_differs_by_nothing_and_one_training_has_the_haloes_error_alone():
    rng = np.random.default_rng(1)
    true = rng.normal(size=400)
    once = (true + rng.normal(size=400))[None]
    found, rows = made_up({("network", "l = 0"): once, ("network", "l <= 1"): once, ("network", "raw"): np.repeat(
        once, 2, axis=0)}, true)
    same, raw = rows["network", "l <= 1"], rows["network", "raw"]
    for row in (same, raw):
        for name in ("r_gain", "r_gain_error", "rms_total", "rms_total_error", "divergence", "divergence_error"):
            assert row[name] == pytest.approx(0, abs=1e-12)
        assert row["divergence_ratio"] == pytest.approx(1, abs=1e-4)
    assert same["r_seeds"] is None and same["r_error"] == same["r_haloes"] and raw["r_seeds"] == pytest.approx(0)
    assert "errors of one seed are of haloes alone" in found.lines
    assert np.isnan(found.table["r_seeds"][1]) and found.table["rms"].unit == "dex"


def test_a_divergence_is_read_as_the_ratio_of_scatters_of_two_gaussians():
    """Against the integral of p ln(p / q), and the paper's 0.03."""
    x = np.linspace(-8, 8, 20001)
    for scatter, ratio in ((0.5, 0.8), (0.3, 0.5), (0.7, 0.99)):
        p, q = (np.exp(-0.5 * x**2 / s2) / np.sqrt(2 * np.pi * s2)
                for s2 in ((ratio * scatter)**2 + 0.01, scatter**2 + 0.01))
        found = metrics.scatter_ratio(rel_entr(p, q).sum() * (x[1] - x[0]), scatter)
        assert found == pytest.approx(ratio, rel=1e-3)
    assert metrics.scatter_ratio(0.03, 0.54) == pytest.approx(0.83, abs=0.01)
    assert metrics.scatter_ratio(0.0, 0.54) == pytest.approx(1)


@pytest.fixture(scope="module")
def found(boxes, tmp_path_factory, invoke):
    folder = tmp_path_factory.mktemp("ladder") / "out"
    said = invoke("halomass", "ladder", boxes[0], "--validation", boxes[1], "--test", boxes[2], "--seeds", 2,
                  "--networks", 1, "--sample", 500, "--order", 1, "--output", folder, *FLAGS).stdout
    return folder, said


@pytest.mark.slow
def test_the_command_fits_trees_and_networks_to_every_rung_and_writes_a_table(found, boxes, invoke):
    folder, said = found
    table = Table.read(folder / "ladder.ecsv")
    assert list(zip(table["model"], table["rung"], table["seeds"])) == [
        ("trees", "l = 0", 2), ("trees", "l <= 1", 2), ("network", "l = 0", 1), ("network", "l <= 1", 1)]
    for row in table[:2]:
        assert f"{row['r']:.3f} +- {row['r_error']:.3f}" in said and 0.3 < row["r"] < 1
    assert table["r_gain_error"][1] < table["r_error"][1] and table.meta["particles"] == 500
    assert table["rms"].unit == "dex" and (folder / "ladder.png").stat().st_size > 5000
    # The networks are runs like any other, and the table has what they predict.
    run = kg.load(folder / "runs" / "order_1_seed_0")
    assert run.config.input == "multipoles" and run.config.order == 1
    masses = run.predict(boxes[2], sample=500, seed=0)
    r = np.corrcoef(masses["log_mass"], masses["log_mass_true"])[0, 1]
    assert table["r"][3] == pytest.approx(r, abs=1e-4)
    with pytest.raises(UnseenError):
        run.evaluate(boxes[0])
    done = invoke("halomass", "ladder", boxes[0], "--validation", boxes[1], "--test", boxes[2], "--output", folder,
                  check=False)
    assert done.returncode == 1 and "--overwrite" in done.stderr and "Traceback" not in done.stderr


def test_runs_are_one_rung_only_where_nothing_but_the_seed_differs():
    def run(name, **settings):
        return SimpleNamespace(config=TrainConfig(**settings), folder=Path(name))

    alike = [run("a"), run("b", seed=1)]
    averaged, tide = run("c", input="averaged"), run("d", channels="density,tide")
    assert ladder.by_rung([*alike, averaged]) == {"raw": alike, "averaged": [averaged]}
    assert ladder.by_rung([alike[0], tide, alike[1]]) == {"raw, a": alike, "raw, d": [tide]}


def test_trained_runs_stand_above_the_ladder_in_python(trained, boxes):
    raw = trained("halomass")
    made = ladder.ladder([boxes[0]], [boxes[1]], boxes[2], seeds=1, networks=0, raw=raw, sample=300, order=0, **SMALL)
    assert [(row["model"], row["rung"]) for row in made["rungs"]] == [("trees", "l = 0"), ("network", "raw")]
    masses = kg.load(raw).predict(boxes[2], sample=300, seed=0)
    expected = np.corrcoef(masses["log_mass"], masses["log_mass_true"])[0, 1]
    assert made["rungs"][1]["r"] == pytest.approx(expected, abs=1e-4)
    assert made.figures()["ladder"].axes
    assert "notes" not in made.metrics
    with pytest.raises(RunError, match="a run is given twice"):
        ladder.ladder([boxes[0]], [boxes[1]], boxes[2], raw=[raw, os.path.relpath(raw)], **SMALL)
    with pytest.raises(DataError, match="different least masses"):
        ladder.ladder([boxes[0]], [boxes[1]], boxes[2], raw=[raw], **{**SMALL, "low": 12.0})


def test_what_differs_in_a_ladder_is_kept(boxes, trained, tmp_path):
    other = shutil.copy(boxes[2], tmp_path / "other.h5")
    with h5py.File(other, "r+") as file:
        file.attrs["finder"] = "hop"
    config, run = TrainConfig(input="multipoles", **SMALL), kg.load(trained("halomass"))
    known = domain.of([data.features(boxes[0], config)])
    one, two = ladder.check_alike(config, boxes[:1], boxes[1:2], [other], [run], known)
    assert one.startswith("the ladder: ") and two.startswith(f"{run.folder}: ")
    assert all("haloes of the finder hop" in note for note in (one, two))


def test_what_a_ladder_cannot_stand_on_is_refused(boxes, tmp_path):
    with pytest.raises(SettingError, match="`validation` is missing"):
        ladder.ladder([boxes[0]], [], boxes[2], **SMALL)
    with pytest.raises(UnseenError, match="is to be tested on, and was used in the training"):
        ladder.ladder([boxes[0]], [boxes[1]], [boxes[2], boxes[1]], **SMALL)
    with pytest.raises(SettingError, match="is given twice: what is validated on must not be trained on"):
        ladder.ladder(boxes[:2], [boxes[1]], boxes[2], **SMALL)
    (tmp_path / "raw.toml").write_text('input = "averaged"\n')
    for given in ({"input": "raw"}, {"config": tmp_path / "raw.toml"}, {"config": TrainConfig()}):
        with pytest.raises(SettingError, match="input='(raw|averaged)': the ladder is of multipoles"):
            ladder.ladder([boxes[0]], [boxes[1]], boxes[2], **given)
    with pytest.raises(SettingError, match="seeds=0: it must be a whole number of at least 1"):
        ladder.ladder([boxes[0]], [boxes[1]], boxes[2], seeds=0, **SMALL)
    coarse = kg.simulate(particles=16, boxsize=25, seed=3)
    with pytest.raises(DomainError, match="cells of 1.562 Mpc/h"):
        ladder.ladder([boxes[0]], [boxes[1]], coarse, **SMALL)
