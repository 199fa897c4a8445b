"""Runs compared through the command line, on small simulations, and what must be refused."""

import json
import shutil

import harness
import numpy as np
import pytest
from scipy import stats

from kerasgal.apps.halomass import evaluate, metrics
from kerasgal.apps.halomass.run import HaloMass
from kerasgal.errors import DataError
from kerasgal.simulation import Simulation

TINY = ["--preset", "demo", "--low", "11.8", "--high", "14", "--patch", "9", "--shells", "3", "--convolutions", "2",
        "--filters", "4", "--dense", "8", "--samples", "400", "--validation-samples", "100", "--epochs", "2",
        "--steps-per-epoch", "2"]


@pytest.fixture(scope="module")
def runs(boxes, tmp_path_factory, invoke, eagerly):
    folder = tmp_path_factory.mktemp("runs")
    for name, likelihood in (("raw", "cauchy"), ("averaged", "two_sided_cauchy")):
        with eagerly(True):
            invoke("halomass", "train", boxes[0], boxes[1], *TINY, "--input", name, "--likelihood", likelihood, "--run",
                   folder / name)
    return [folder / "raw", folder / "averaged"]


@pytest.fixture(scope="module")
def evaluation(runs, boxes, tmp_path_factory, invoke):
    folder = tmp_path_factory.mktemp("evaluations") / "evaluation"
    said = invoke("halomass", "evaluate", runs[0], boxes[2], "--compare", runs[1], "--sample", 800, "--baseline",
                  "--output", folder).stdout
    return folder, said


def test_the_comparison_has_all_numbers_and_figures(evaluation, runs):
    folder, said = evaluation
    result = json.loads((folder / "metrics.json").read_text())
    groups = {"runs": ["raw", "averaged"], "baselines": ["boosted trees", "mean", "random"]}
    names = [(group, name) for group, members in groups.items() for name in members]
    assert {group: list(result[group]) for group in groups} == groups and result["particles"] == 800
    assert all(name in said for _, name in names) and str(folder / "metrics.json") in said
    for group, name in names:
        row = result[group][name]
        others = {(kind, other): value for kind, members in result["divergence"][group][name].items()
                  for other, value in members.items()}
        assert set(others) == set(names) - {(group, name)}
        assert all(value["divergence"] > -1e-6 and value["error"] >= 0 for value in others.values())
        assert sum(bin["particles"] for bin in row["residuals_by_mass"]) == 800
        assert sum(bin["particles"] for bins in row["residuals_by_mass_and_place"].values() for bin in bins) == 800
    assert result["baselines"]["mean"]["r"] is None
    assert abs(result["baselines"]["random"]["r"]) < 0.1
    for row in result["runs"].values():
        assert np.all(np.array(row["gamma"]) > 0)
        assert list(row["coverage"].values()) == sorted(row["coverage"].values())
    assert [line.split("  ")[0] for line in harness.bars("halomass", result)] == ["r", "scatter, over trees'"]
    places = result["divergence_by_place"]
    assert list(places) == list(metrics.PLACES)
    assert places["inner"]["runs"]["raw"]["baselines"]["random"]["divergence"] > 0
    for name in ("violins", "comparison", "radii", "divergences", "likelihood", "calibration", "training"):
        assert (folder / f"{name}.png").stat().st_size > 5000


def test_the_numbers_are_those_of_the_predicted_table(evaluation, runs, boxes):
    """r, scatter and coverage of a run from its own predictions, by NumPy and scipy."""
    from kerasgal.apps.halomass.predict import predict_particles

    whole = json.loads((evaluation[0] / "metrics.json").read_text())
    result = whole["runs"]["raw"]
    with Simulation(boxes[2]) as simulation:
        particles, described = evaluate.draw(simulation, 0, 800, 11.8, 14.0)
        halo = simulation["halo_id"][...].ravel()[particles]
    run = HaloMass.load(runs[0])
    found = predict_particles(run.network, run.config, boxes[2], particles)
    true = found["log_mass_true"]
    np.testing.assert_allclose(true, described["log_mass"])
    assert result["r"] == pytest.approx(np.corrcoef(true, found["log_mass"])[0, 1], abs=1e-5)
    assert result["rms_dex"] == pytest.approx(np.sqrt(np.mean((found["log_mass"] - true)**2)), rel=1e-5)
    off, worst = np.abs(found["log_mass"] - true), whole["worst_cases"]
    assert worst[0]["prediction"] == "raw" and worst[0]["particle"] == particles[off.argmax()]
    each = sorted((off[halo == row].max() for row in np.unique(halo)), reverse=True)[:10]  # one of each halo
    np.testing.assert_allclose([abs(row["log_mass"] - row["log_mass_true"]) for row in worst], each, atol=1e-5)
    law = stats.cauchy(np.clip(found["y"], -1, 1), result["gamma"])
    d = 2 * (true - 11.8) / 2.2 - 1
    probability = (law.cdf(d) - law.cdf(-1)) / (law.cdf(1) - law.cdf(-1))
    assert result["coverage"]["0.68"] == pytest.approx(np.mean((probability > 0.16) & (probability < 0.84)), abs=2e-3)


def test_places_in_haloes_are_of_the_final_positions(boxes):
    with Simulation(boxes[2]) as simulation:
        particles, described = evaluate.draw(simulation, 3, 500, 11.8, 14.0)
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
    said = invoke("halomass", "baseline", runs[0], boxes[2], "--sample", 500, "--output", tmp_path / "b")
    result = json.loads((tmp_path / "b" / "metrics.json").read_text())
    assert list(result["baselines"]) == ["boosted trees", "mean", "random"] and "boosted trees" in said.stdout
    assert result["baselines"]["boosted trees"]["rms_dex"] < result["baselines"]["random"]["rms_dex"]
    assert result["runs"] == {}


@pytest.mark.slow
def test_the_baseline_in_python_is_that_of_the_command(runs, boxes, invoke, tmp_path):
    invoke("halomass", "baseline", runs[0], boxes[2], "--sample", 500, "--output", tmp_path / "b")
    again = HaloMass.load(runs[0]).baseline(boxes[2], sample=500)
    assert again["baselines"] == json.loads((tmp_path / "b" / "metrics.json").read_text())["baselines"]
    assert "violins" in again.figures()


@pytest.mark.slow
def test_a_run_may_be_called_what_a_baseline_is(evaluation, runs, boxes, invoke, tmp_path):
    """The numbers of a run are its own under any name, in the file, the lines and the figures."""
    expected = json.loads((evaluation[0] / "metrics.json").read_text())
    one, other = (shutil.copytree(run, tmp_path / name) for run, name in zip(runs, ("mean", "boosted trees")))
    found = HaloMass.load(one).evaluate(boxes[2], compare=other, baseline=True, sample=800)
    assert found["baselines"] == expected["baselines"]
    said = "\n".join(found.lines)
    for name, known in (("mean", "raw"), ("boosted trees", "averaged")):
        assert found["runs"][name] == expected["runs"][known]
        assert said.count(f"\nrun {name}") == 1 and said.count(f"\n{name}") == 1
    for kind in ("runs", "baselines"):
        for name, value in expected["divergence"]["runs"]["raw"][kind].items():
            name = "boosted trees" if (kind, name) == ("runs", "averaged") else name
            assert found["divergence"]["runs"]["mean"][kind][name] == value
    assert len(found.figures()["comparison"].legends[0].get_texts()) == 4


def test_a_perfect_predictor_called_mean_is_perfect(boxes):
    found = evaluate.compared({(evaluate.RUNS, "mean"): truth}, 11.8, 14.0, [boxes[2]], sample=300)
    assert found["runs"]["mean"]["r"] == pytest.approx(1) and found["runs"]["mean"]["rms_dex"] < 1e-6
    assert found["baselines"]["mean"]["r"] is None and found["baselines"]["mean"]["rms_dex"] > 0.1


def truth(simulation, particles):
    mass = np.log10(simulation["halos/mass"][...].astype(float))
    return {"log_mass": mass[simulation["halo_id"][...].ravel()[particles]]}


@pytest.fixture(scope="module")
def twin(boxes, once, invoke):
    """The same in tests/protohalo: it is made once."""
    folder = once("twin", lambda folder: invoke(
        "simulate", folder / "twin.h5", "--twin-of", boxes[2], "--particles", 32, "--share", 3.5, "--seed", 90))
    return folder / "twin.h5"


def test_a_twin_stands_beside_the_predictions(boxes, twin):
    """The numbers by NumPy, from the twin's own haloes of the same particles."""
    found = evaluate.compared({(evaluate.RUNS, "truth"): truth}, 11.8, 14.0, [boxes[2]], sample=800,
                              twins=[(twin, 3.3)])
    with Simulation(boxes[2]) as box, Simulation(twin) as other:
        particles, drawn = evaluate.draw(box, 0, 800, 11.8, 14.0)
        halo, mass = other["halo_id"][...].ravel()[particles], np.log10(other["halos/mass"][...].astype(float))
    true, inside = drawn["log_mass"], halo >= 0
    there = np.where(inside, mass[halo], np.nan)
    said, row = found["twins"], found["baselines"]["twin"]
    assert said["outside"] == pytest.approx(np.mean(~inside)) and 0.01 < said["outside"] < 0.3
    assert said["outside_log_mass"] == pytest.approx(true[~inside].mean()) and said["shared_up_to"] == 3.3
    whole = np.where(inside, np.clip(there, 11.8, 14.0), true[~inside].mean())
    assert row["r"] == pytest.approx(np.corrcoef(true, whole)[0, 1])
    assert row["rms_dex"] == pytest.approx(np.sqrt(np.mean((true - whole)**2)))
    both = inside & (there >= 11.8) & (there <= 14.0)
    r = np.corrcoef(true[both], there[both])[0, 1]
    assert said["particles"] == both.sum() and said["both"]["baselines"]["twin"]["r"] == pytest.approx(r) and r > 0.9
    assert said["best"]["r"] == pytest.approx(r**0.5)
    assert said["both"]["runs"]["truth"]["r"] == pytest.approx(1)
    said = "\n".join(found.lines)
    assert "share waves up to 3.30 h/Mpc" in said and "at best" in said and "\ntwin " in said
    found["twins"]["both"]["runs"]["truth"]["r"] = None  # of a network that says the same of all
    assert sum("undefined" in line for line in evaluate.twin_lines(found["twins"])) == 1


def test_two_draws_about_one_mean_agree_as_well_as_the_root_says():
    """The mean of what large waves leave open correlates with one draw as the root of two draws' correlation."""
    rng = np.random.default_rng(2)
    mean = rng.normal(13, 0.5, 20000)
    one, other = (mean + rng.normal(0, 0.3, len(mean)) for _ in range(2))
    halo = np.arange(len(mean)) // 20
    best = evaluate.ceiling_of(one, other, {evaluate.TWIN: other}, halo, 0, 30)["best"]
    assert best["r"] == pytest.approx(np.corrcoef(one, mean)[0, 1], abs=0.005)
    assert best["rms_dex"] == pytest.approx(0.3, abs=0.005)


def test_twins_that_are_none_are_refused(runs, boxes, twin, invoke, tmp_path):
    for given, words in (((boxes[1],), "none of"), ((twin, twin), "is left over")):
        done = invoke("halomass", "evaluate", runs[0], boxes[2], *(word for path in given for word in
                      ("--ceiling", path)), "--sample", 100, "--output", tmp_path / "no", check=False)
        assert done.returncode == 1 and words in " ".join(done.stderr.split()) and not (tmp_path / "no").exists()
    with pytest.raises(DataError, match="0 particles end in haloes of the range of masses in both boxes"):
        nothing = np.full(50, np.nan)
        evaluate.ceiling_of(np.full(50, 13.0), nothing, {}, np.arange(50), 12, 14)


def test_mistakes_are_one_line_and_leave_nothing(evaluation, runs, boxes, invoke, tmp_path):
    other = shutil.copytree(runs[0], tmp_path / "other")
    document = json.loads((other / "config.json").read_text())
    document["config"]["high"] = 13.0
    (other / "config.json").write_text(json.dumps(document))
    alien = shutil.copytree(runs[0], tmp_path / "alien")
    (alien / "provenance.json").unlink()
    cases = {
        "runs of different greatest masses cannot be compared: raw has 14.0, other has 13.0":
            [runs[0], boxes[2], "--compare", other],
        f"box_0.h5 was used in the training of {runs[0]}": [runs[0], boxes[2], boxes[0]],
        f"box_1.h5 was used in the training of {runs[1]}": [alien, boxes[1], "--compare", runs[1]],
        "no such file": [runs[0], tmp_path / "none.h5"],
        "is not a run folder": [tmp_path, boxes[2]],
        "a run is given twice": [runs[0], boxes[2], "--compare", runs[0]],
        "--overwrite": [runs[0], boxes[2], "--output", evaluation[0]],
    }
    for message, arguments in cases.items():
        if "--output" not in arguments:
            arguments = [*arguments, "--output", tmp_path / "out"]
        done = invoke("halomass", "evaluate", *arguments, check=False)
        assert done.returncode == 1 and message in done.stderr, done.stderr
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_old_grammar_works_and_says_the_new_one(runs, boxes, invoke, tmp_path):
    done = invoke("halomass", "evaluate", *runs, "--simulation", boxes[2], "--sample", 300, "--output",
                  tmp_path / "old")
    assert f"evaluate {runs[0]} {boxes[2]} --compare {runs[1]}" in done.stderr and done.stderr.count("\n") == 1
    assert list(json.loads((tmp_path / "old" / "metrics.json").read_text())["runs"]) == ["raw", "averaged"]
