"""The whole road through the command line, on small simulations, and the mistakes a user can make on it."""

import json
import shutil

import h5py
import harness
import numpy as np
import pytest

import kerasgal as kg
from kerasgal.apps.cascade import data, evaluate, predict
from kerasgal.apps.cascade.scatter import POISSON
from kerasgal.simulation import Simulation

pytestmark = pytest.mark.usefixtures("eager", "restored_once")

TINY = harness.flags("cascade")


@pytest.fixture(scope="module")
def run(trained):
    folder = trained("cascade")
    said = (folder.parent / "said.txt").read_text()
    for words in ("phase 1", "phase 2", "validating on", str(folder)):
        assert words in said
    return folder


def test_summary_prints_the_papers_networks(invoke):
    said = invoke("cascade", "summary", "--preset", "paper").stdout
    assert "classify: 30,799 trainable parameters" in said and "regress: 6,079,489 trainable parameters" in said
    assert "6,079,5" in invoke("cascade", "summary", "--classifier", "r2unet").stdout  # 17 more for the second output


def test_predict_writes_field_and_catalogue(run, painted, tmp_path, invoke):
    output = tmp_path / "out.h5"
    said = invoke("cascade", "predict", run, painted[2], "--output", output, "--catalogue").stdout
    assert "32^3 cells" in said and "drawn" in said
    with h5py.File(output) as file:
        probability, count = file["probability"][...], file["count"][...]
        position = file["galaxies/position"][...]
    assert probability.shape == count.shape == (32, 32, 32)
    assert (probability >= 0).all() and (probability <= 1).all() and (count >= 0).all()
    assert (count[probability <= 0.5] == 0).all()
    assert abs(len(position) - count.sum()) < 6 * np.sqrt(count.sum() + 1)
    assert len(position) == 0 or (position.min() >= 0 and position.max() <= 12.5)
    invoke("cascade", "predict", run, painted[2], "--output", output, "--round", "--overwrite")
    with h5py.File(output) as file:
        np.testing.assert_array_equal(file["count"][...], np.rint(count))


def test_a_tiled_prediction_of_phase_1_is_that_of_the_whole_box(run, painted):
    trained = kg.load(run)
    config, classifier = trained.config, trained.networks["classify"]
    density, _ = data.load(painted[2], config)
    tiled = predict.predict_field(classifier, density, config)
    wrapped = np.pad(density, 8, mode="wrap")
    whole = np.asarray(classifier(wrapped[None, ..., None]))[0, 8:-8, 8:-8, 8:-8]
    np.testing.assert_allclose(tiled, whole, atol=2e-6)  # the classifier sees 4 cells, the border has 8
    rolled = predict.predict_field(classifier, np.roll(density, (5, 11, 3), (0, 1, 2)), config)
    np.testing.assert_allclose(rolled, np.roll(tiled, (5, 11, 3), (0, 1, 2)), atol=2e-6)


def test_a_halo_model_is_fitted_and_put_into_haloes(painted, tmp_path, invoke):
    said = invoke("cascade", "hod", painted[0], painted[1], "--output", tmp_path / "hod.json", "--populate", painted[2],
                  "--catalogue", tmp_path / "galaxies.h5").stdout
    assert "log10 M_min" in said
    with Simulation(painted[2]) as simulation, h5py.File(tmp_path / "galaxies.h5") as file:
        assert 0.4 < len(file["galaxies/position"]) / len(simulation["galaxies/position"]) < 2.5


def test_evaluate_compares_runs_of_any_name_and_the_halo_model(run, painted, tmp_path, invoke, monkeypatch):
    """Runs called by the words for what they are held against are judged like any other."""
    monkeypatch.setattr(evaluate, "K1", 2.0)  # the box is too small for the triangles of 1.2 and 1.3 h/Mpc
    monkeypatch.setattr(evaluate, "K2", 2.5)
    names = ["target", "halo model"]
    target, twin = (shutil.copytree(run, tmp_path / name) for name in names)
    said = invoke("cascade", "evaluate", target, painted[2], "--compare", twin, "--output",
                  tmp_path / "evaluation").stdout
    assert "run halo model" in said and "\nhalo model " in said and "gain at 95%" in said
    result = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    assert list(result["runs"]) == names and {"halo model", "boosted trees"} <= set(result["baselines"])
    assert set(result["bounds"]) == {"another drawing", "exact expectation"} and "exact expectation" in said
    assert result["baselines"]["halo model"]["parameters"]["alpha"] > 0
    equal = result["runs"]["halo model"]["bispectra"]["equilateral"]
    line, = (line for line in said.splitlines() if line.startswith("bispectrum, equilateral: "))
    assert f"run halo model {evaluate.percent(equal['residual'], equal['residual_error'])}, " in line
    assert "\nbispectrum, squeezed: run target " in said and "exact expectation " in line
    bars = harness.bars("cascade", result)
    assert len(bars) >= 7 and not [line for line in bars if "nan" in line] and "exact expectation" in bars[0]
    for name in ("slices", "occupation", "power_spectrum", "counts", "bispectrum"):
        assert (tmp_path / "evaluation" / f"{name}.png").stat().st_size > 10_000
    rows = {row.pop("run"): row for row in result["table"]}
    invoke("cascade", "hod", painted[0], "--output", tmp_path / "hod.json")
    alone = kg.load(run).evaluate(painted[2], hod=tmp_path / "hod.json")
    expected = alone["table"][0]
    assert expected.pop("run") == "run" and expected["galaxies"] != expected["true_galaxies"]
    for name in names:
        assert rows[name] == expected and result["runs"][name] == alone["runs"]["run"]
    assert result["truth"] == alone["truth"]
    worst = alone["worst_cases"]
    with Simulation(painted[2]) as simulation:
        place, boxsize = simulation["galaxies/position"][...], simulation.boxsize
    side = boxsize / 2  # of sub-cubes of 16 of 32 cells, all of which are named
    assert len(worst) == 8 and worst[0]["simulation"] == str(painted[2])
    for row in worst:
        corner = np.array([row[axis] for axis in "xyz"])
        assert row["true_galaxies"] == ((place >= corner) & (place < corner + side)).all(axis=1).sum()
    assert sum(row["galaxies"] for row in worst) == pytest.approx(expected["galaxies"], rel=1e-5)
    fitted = json.loads((tmp_path / "hod.json").read_text())
    assert alone["baselines"]["halo model"]["parameters"] == fitted["hod"]
    done = invoke("cascade", "evaluate", run, painted[0], "--output", tmp_path / "no", check=False)
    assert done.returncode == 1 and "was used in the training of" in done.stderr and not (tmp_path / "no").exists()


@pytest.mark.slow
def test_a_single_simulation_is_split_by_volume_and_tested_on_what_is_left(painted, tmp_path, invoke):
    folder = tmp_path / "split"
    said = invoke("cascade", "train", painted[0], *TINY, "--run", folder).stdout
    assert "split by volume" in said
    invoke("cascade", "evaluate", folder, painted[0], "--output", tmp_path / "evaluation")
    result = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    with Simulation(painted[0]) as simulation:
        inside = (simulation["galaxies/position"][...] >= 6.25).all(axis=1).sum()
    assert result["table"][0]["true_galaxies"] == inside


@pytest.mark.slow
def test_phases_are_trained_one_by_one_and_resumed(painted, tmp_path, invoke):
    folder = tmp_path / "run"
    done = invoke("cascade", "train", painted[0], *TINY, "--run", folder, "--phase", "regress", check=False)
    assert done.returncode == 1 and "is not a run folder" in done.stderr
    invoke("cascade", "train", *painted[:2], *TINY, "--surroundings", "--focus", 8, "--run", folder, "--phase",
           "classify", "--classifier", "r2unet")
    done = invoke("cascade", "predict", folder, painted[2], check=False)
    assert done.returncode == 1 and "has phase 1 only" in done.stderr
    invoke("cascade", "train", "--run", folder, "--phase", "regress")  # the folder knows the rest
    config = json.loads((folder / "regress" / "config.json").read_text())["config"]
    assert config["filters"] == 2 and config["classifier"] == "r2unet"
    invoke("cascade", "train", "--run", folder, "--resume", "--epochs", "2")
    for phase in ("classify", "regress"):
        assert (folder / phase / "history.csv").read_text().count("\n") == 3
    assert np.isfinite(kg.load(folder).predict(painted[2])["count"]).all()
    said = invoke("info", folder).stdout
    assert "classify: last" in said and "regress: last" in said


@pytest.mark.slow
def test_a_sweep_keeps_the_run_of_least_error(painted, tmp_path, invoke):
    folder = tmp_path / "run"
    invoke("cascade", "train", painted[0], painted[1], *TINY, "--run", folder, "--sweep", "w1=50,500", "--sweep",
           "w2=1.05")
    table = json.loads((folder / "sweep.json").read_text())
    assert sorted(row["w1"] for row in table) == [50, 500] and table[0]["mse_sub"] <= table[1]["mse_sub"]
    kept = json.loads((folder / "classify" / "config.json").read_text())["config"]["w1"]
    assert kept == table[0]["w1"]
    run = kg.load(folder)
    density, counts = data.load(painted[1], run.config)
    predicted = predict.predict_field(run.network, density, run.config)[..., 1]
    cubes = [(slice(x, x + 16), slice(y, y + 16), slice(z, z + 16)) for x in (0, 16) for y in (0, 16) for z in (0, 16)]
    by_hand = np.mean([(predicted[cube].sum() - counts[cube].sum())**2 for cube in cubes])
    assert table[0]["mse_sub"] == pytest.approx(by_hand, rel=1e-3)


def test_drawn_galaxies_follow_the_field():
    counts = np.zeros((8, 8, 8))
    counts[2, 3, 4], counts[7, 0, 0] = 400, 100
    position = predict.draw_galaxies(counts, 16.0, POISSON)
    inside = ((position >= (4, 6, 8)) & (position < (6, 8, 10))).all(axis=1)
    assert abs(inside.sum() - 400) < 6 * 20 and abs((~inside).sum() - 100) < 6 * 10
    assert position[inside].mean(axis=0) == pytest.approx((5, 7, 9), abs=0.15)


@pytest.mark.parametrize("case, code, message", [
    ("missing", 1, "no such file"),
    ("no galaxies", 1, "has no galaxies"),
    ("cell", 1, "does not divide into cells"),
    ("patch", 2, "--patch 12 is not a multiple of 8"),
    ("large", 1, "fewer than the patch of 64"),
    ("sweep", 2, "accepted are w1=... and w2=..."),
    ("sweep text", 2, "accepted is NAME=VALUES, with numbers"),
    ("sweep phase", 2, "goes with neither --phase nor --resume"),
    ("sparse", 1, "0.125 particles for each cell of 0.195312 Mpc/h, and many cells none by chance"),
    ("exists", 1, "exists already; give --resume"),
    ("precision", 2, "trains wrongly without a GPU"),
    ("split", 1, "does not divide into training, validation and test cubes"),
])
def test_mistakes_in_training_are_one_line(case, code, message, painted, boxes, run, tmp_path, invoke):
    arguments = {
        "missing": [tmp_path / "none.h5"], "no galaxies": [boxes[0], "--cell", "0.78125"],
        "cell": [painted[0], "--cell", "9"], "patch": [painted[0], "--patch", "12"],
        "large": [painted[0], painted[1], "--patch", "64"], "sweep": [painted[0], "--sweep", "w3=1"],
        "sweep text": [painted[0], "--sweep", "w1=much"], "sparse": [painted[0], "--cell", "0.1953125"],
        "sweep phase": [painted[0], "--sweep", "w1=1", "--phase", "classify"],
        "exists": [painted[0], "--run", run], "precision": [painted[0], "--precision", "mixed_bfloat16"],
        "split": [painted[0], "--patch", "24"],
    }[case]
    done = invoke("cascade", "train", "--run", tmp_path / "run", *TINY, *arguments, check=False)
    assert done.returncode == code, done.stderr
    assert message in done.stderr and "Traceback" not in done.stderr
    if code == 1:
        assert done.stderr.strip().splitlines()[-1].startswith("Error: "), done.stderr
    assert not (tmp_path / "run" / "classify").exists()


@pytest.mark.slow
def test_a_batch_without_any_galaxy_trains(painted, tmp_path, invoke):
    """One class only in every batch: the loss is defined, and so are the weights."""
    alone = tmp_path / "alone.h5"
    alone.write_bytes(painted[0].read_bytes())
    with h5py.File(alone, "a") as file:
        for name in ("position", "halo", "central", "velocity"):
            kept = file[f"galaxies/{name}"][:1]
            del file[f"galaxies/{name}"]
            file[f"galaxies/{name}"] = kept
    invoke("cascade", "train", alone, painted[1], *TINY, "--run", tmp_path / "run", "--stride", "16")
    history = (tmp_path / "run" / "regress" / "history.csv").read_text()
    assert "nan" not in history.lower()
    run = kg.load(tmp_path / "run")
    assert np.isfinite(predict.predict_field(run.network, np.ones((32, 32, 32), np.float32), run.config)).all()


def test_old_spellings_go_on_and_say_the_new_ones(run, painted, tmp_path, invoke):
    shutil.copytree(run, tmp_path / "twin")
    done = invoke("cascade", "evaluate", run, tmp_path / "twin", "--simulation", painted[0], check=False)
    assert f"evaluate {run} {painted[0]} --compare {tmp_path / 'twin'}" in done.stderr
    assert done.returncode == 1 and "box_0.h5 was used in the training of" in done.stderr
    served = tmp_path / "served"
    served.mkdir()
    done = invoke("cascade", "export", run, served, check=False)
    assert "write --output" in done.stderr and done.returncode == 1 and "served exists already" in done.stderr
    done = invoke("cascade", "train", painted[0], *TINY, "--halving", 3, "--phase", "classify", "--run",
                  tmp_path / "halved")
    assert "--halving is an old spelling: write --decay-epochs" in done.stderr
    assert json.loads((tmp_path / "halved" / "classify" / "config.json").read_text())["config"]["decay_epochs"] == 3


@pytest.fixture
def old(run, tmp_path):
    """A run as kerasgal 0.1 wrote it: no other decay than halving, and no domain; but for averaged weights."""
    old = tmp_path / "old"
    shutil.copytree(run, old)
    for phase in ("classify", "regress"):
        (old / phase / "domain.json").unlink()
        stored = json.loads((old / phase / "config.json").read_text())
        settings = stored["config"]
        settings["halving"] = settings.pop("decay_epochs")
        for name in ("decay", "decay_factor", "gradient_norm", "accumulation"):
            del settings[name]
        (old / phase / "config.json").write_text(json.dumps({"app": "cascade", "config": settings}))
    return old


def test_a_run_folder_of_version_1_loads(run, old, painted, tmp_path, invoke):
    loaded, today = kg.load(old), kg.load(run)
    assert loaded.config == today.config and loaded.config.decay_epochs == 4 and loaded.domain == {}
    for phase, network in loaded.networks.items():
        for one, other in zip(network.get_weights(), today.networks[phase].get_weights()):
            np.testing.assert_array_equal(one, other)
    invoke("cascade", "predict", old, painted[2], "--output", tmp_path / "out.h5")
    with h5py.File(tmp_path / "out.h5") as file:
        assert "does not say what it was trained on" in file.attrs["notes"]


@pytest.mark.slow
def test_a_run_folder_of_version_1_is_gone_on_with(old, invoke):
    invoke("cascade", "train", "--run", old, "--resume", "--epochs", 2)
    assert (old / "regress" / "history.csv").read_text().count("\n") == 3
