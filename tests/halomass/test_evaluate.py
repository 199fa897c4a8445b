"""Runs compared through the command line, on small simulations, and what must be refused."""

import json
import shutil

import numpy as np
import pytest
from scipy import stats

from kerasgal.apps.halomass import evaluate, metrics
from kerasgal.simulation import Simulation

TINY = ["--preset", "demo", "--low", "11.8", "--high", "14", "--patch", "9", "--shells", "3", "--convolutions", "2",
        "--filters", "4", "--dense", "8", "--samples", "1000", "--validation-samples", "200", "--epochs", "2",
        "--steps-per-epoch", "10"]


@pytest.fixture(scope="module")
def runs(boxes, tmp_path_factory, invoke):
    folder = tmp_path_factory.mktemp("runs")
    for name, likelihood in (("raw", "cauchy"), ("averaged", "two_sided_cauchy")):
        invoke("halomass", "train", boxes[0], boxes[1], *TINY, "--input", name, "--likelihood", likelihood, "--run",
               folder / name)
    return [folder / "raw", folder / "averaged"]


@pytest.fixture(scope="module")
def evaluation(runs, boxes, tmp_path_factory, invoke):
    folder = tmp_path_factory.mktemp("evaluations") / "evaluation"
    said = invoke("halomass", "evaluate", *runs, "--simulation", boxes[2], "--sample", 1500, "--baseline", "--output",
                  folder).stdout
    return folder, said


def test_the_comparison_has_all_numbers_and_figures(evaluation, runs):
    folder, said = evaluation
    result = json.loads((folder / "metrics.json").read_text())
    names = ["raw", "averaged", "boosted trees", "mean", "random"]
    assert list(result["predictions"]) == names and result["particles"] == 1500
    assert all(name in said for name in names) and str(folder / "comparison.png") in said
    for name in names:
        row = result["predictions"][name]
        assert set(result["divergence"][name]) == set(names) - {name}
        assert all(value["divergence"] > -1e-6 and value["error"] >= 0 for value in result["divergence"][name].values())
        assert sum(bin["particles"] for bin in row["residuals_by_mass"]) == 1500
        assert sum(bin["particles"] for bins in row["residuals_by_mass_and_place"].values() for bin in bins) == 1500
    assert result["predictions"]["mean"]["r"] is None
    assert abs(result["predictions"]["random"]["r"]) < 0.1
    for name in ("raw", "averaged"):
        assert np.all(np.array(result["predictions"][name]["gamma"]) > 0)
        assert list(result["predictions"][name]["coverage"].values()) == sorted(
            result["predictions"][name]["coverage"].values())
    for name in ("violins", "comparison", "radii", "likelihood", "calibration", "training"):
        assert (folder / f"{name}.png").stat().st_size > 5000


def test_the_numbers_are_those_of_the_predicted_table(evaluation, runs, boxes):
    """r, scatter and coverage of a run from its own predictions, by NumPy and scipy."""
    from kerasgal.apps.halomass.predict import load_run, predict_particles

    result = json.loads((evaluation[0] / "metrics.json").read_text())["predictions"]["raw"]
    particles, described = evaluate.draw(boxes[2], 0, 1500, 11.8, 14.0)
    found = predict_particles(load_run(runs[0]), boxes[2], particles)
    true = found["log_mass_true"]
    np.testing.assert_allclose(true, described["log_mass"])
    assert result["r"] == pytest.approx(np.corrcoef(true, found["log_mass"])[0, 1], abs=1e-5)
    assert result["rms_dex"] == pytest.approx(np.sqrt(np.mean((found["log_mass"] - true)**2)), rel=1e-5)
    law = stats.cauchy(np.clip(found["y"], -1, 1), result["gamma"])
    d = 2 * (true - 11.8) / 2.2 - 1
    probability = (law.cdf(d) - law.cdf(-1)) / (law.cdf(1) - law.cdf(-1))
    assert result["coverage"]["0.68"] == pytest.approx(np.mean((probability > 0.16) & (probability < 0.84)), abs=2e-3)


def test_places_in_haloes_are_of_the_final_positions(boxes):
    particles, described = evaluate.draw(boxes[2], 3, 500, 11.8, 14.0)
    with Simulation(boxes[2]) as simulation:
        halo = simulation["halo_id"][...].ravel()[particles]
        centre, size = simulation["halos/position"][...], simulation["halos/radius"][...]
        position, boxsize = simulation["final/position"][...], simulation.boxsize
    for particle, row, place in zip(particles[:40], halo, described["place"]):
        images = position[particle] + boxsize * np.stack(np.meshgrid(*[[-1, 0, 1]] * 3), axis=-1).reshape(-1, 3)
        fraction = np.linalg.norm(images - centre[row], axis=1).min() / size[row]
        assert place == min(int(3 * fraction), 2)
    assert np.all(described["halo"] >> 32 == 3)
    assert len(metrics.PLACES) == 3


def test_the_baseline_needs_no_network_to_be_held_against_the_truth(runs, boxes, invoke, tmp_path):
    said = invoke("halomass", "baseline", runs[0], "--simulation", boxes[2], "--sample", 500, "--output",
                  tmp_path / "b")
    result = json.loads((tmp_path / "b" / "metrics.json").read_text())
    assert list(result["predictions"]) == ["boosted trees", "mean", "random"] and "boosted trees" in said.stdout
    assert result["predictions"]["boosted trees"]["rms_dex"] < result["predictions"]["random"]["rms_dex"]


def test_mistakes_are_one_line_and_leave_nothing(evaluation, runs, boxes, invoke, tmp_path):
    other = shutil.copytree(runs[0], tmp_path / "other")
    document = json.loads((other / "config.json").read_text())
    document["config"]["high"] = 13.0
    (other / "config.json").write_text(json.dumps(document))
    cases = {
        "runs of different targets cannot be compared: raw predicts log10 masses in [11.8, 14], other predicts log10 "
        "masses in [11.8, 13]": [runs[0], other, "--simulation", boxes[2]],
        f"box_0.h5 was used in the training of {runs[0]}": [runs[0], "--simulation", boxes[2],
                                                            "--simulation", boxes[0]],
        f"box_1.h5 was used in the training of {runs[1]}": [runs[1], "--simulation", boxes[1]],
        "no such file": [runs[0], "--simulation", tmp_path / "none.h5"],
        "is not a run folder": [tmp_path, "--simulation", boxes[2]],
        "a run is given twice": [runs[0], runs[0], "--simulation", boxes[2]],
        "--overwrite": [runs[0], "--simulation", boxes[2], "--output", evaluation[0]],
    }
    for message, arguments in cases.items():
        if "--output" not in arguments:
            arguments = [*arguments, "--output", tmp_path / "out"]
        done = invoke("halomass", "evaluate", *arguments, check=False)
        assert done.returncode == 1 and message in done.stderr, done.stderr
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not (tmp_path / "out").exists()
