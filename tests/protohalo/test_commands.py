"""The whole road through the command line, on small simulations, and every mistake a user can make on it."""

import json
import os
import stat
import shutil
import subprocess

import h5py
import harness
import numpy as np
import pytest
from astropy.table import Table
from skimage.segmentation import relabel_sequential

import kerasgal as kg
from kerasgal.grid import lattice
from kerasgal.simulation import Simulation

TINY = harness.flags("protohalo")


@pytest.fixture(scope="module")
def run(trained):
    folder = trained("protohalo")
    said = (folder.parent / "said.txt").read_text()
    assert "validating on" in said and "epoch 2/2" in said and str(folder) in said
    return folder


@pytest.fixture(scope="module")
def prediction(run, boxes, tmp_path_factory, invoke):
    output = tmp_path_factory.mktemp("predictions") / "haloes.h5"
    said = invoke("protohalo", "predict", run, boxes[2], "--output", output, "--format", "ecsv", "--format",
                    "fits").stdout
    assert str(output) in said and "haloes" in said
    return output


def test_outputs_of_several_inputs_and_settings_of_a_run_are_refused(run, invoke, tmp_path):
    for words, message in (
            (["predict", run, "a.h5", "b.h5", "--output", "out.h5"],
             "--output out.h5: 2 inputs need a folder, which is made"),
            (["predict", run, "a.h5", "other/a.h5", "--output", f"{tmp_path}/"],
             "a_protohalo.h5: give them in two commands"),
            (["summary", run, "--preset", "demo"],
             "a RUN has its own settings: leave --preset, --config and the others out")):
        done = invoke("protohalo", *words, check=False)
        assert done.returncode == 2 and message in " ".join(done.stderr.split()), done.stderr
    assert not list(tmp_path.iterdir())


def test_summary_prints_the_papers_network(invoke):
    shown = invoke("protohalo", "summary", "--preset", "paper").stdout
    assert "14,590,741" in shown


def test_the_products_agree_with_each_other(prediction, boxes):
    with h5py.File(prediction) as file, Simulation(boxes[2]) as simulation:
        halo_id, cells = file["halo_id"][...], file["halos/cells"][...]
        assert len(cells) > 3
        np.testing.assert_array_equal(np.bincount(halo_id[halo_id >= 0]), cells)
        assert relabel_sequential(halo_id + 1)[0].max() == len(cells) and np.all(np.diff(cells) <= 0)
        np.testing.assert_allclose(file["halos/mass"], cells * simulation.particle_mass)
        assert cells.min() >= 20
        edges, volume = file["mass_function/mass_edges"][...], simulation.boxsize**3
        counts = file["mass_function/differential"] * np.diff(np.log10(edges)) * volume
        np.testing.assert_allclose(counts, np.histogram(file["halos/mass"], edges)[0], atol=1e-6)
        cumulative = file["mass_function/cumulative"][...] * volume
        np.testing.assert_allclose(cumulative, counts[::-1].cumsum()[::-1], atol=1e-6)
        assert np.all((file["halos/position"][...] >= 0) & (file["halos/position"][...] <= simulation.boxsize))
        distance = file["distance"][...]
        assert distance.shape == (32, 32, 32) and distance.min() >= 0 and np.all(distance[halo_id >= 0] > 0)
        for suffix in ("ecsv", "fits"):
            table = Table.read(prediction.with_suffix(f".{suffix}"))
            np.testing.assert_allclose(table["mass"], file["halos/mass"])
            units = table.meta.get("mass", table.meta.get("MASS")) or str(table["mass"].unit)
            assert units == {"ecsv": "solMass / littleh", "fits": "Msun/h"}[suffix]
            np.testing.assert_allclose(np.stack([table[axis] for axis in "xyz"], 1), table["position"])


def test_prediction_needs_no_haloes_and_moves_with_the_box(run, prediction, boxes, tmp_path, invoke):
    with h5py.File(boxes[2]) as old, h5py.File(tmp_path / "bare.h5", "w") as new:
        new.attrs.update(old.attrs)
        new["initial/delta"] = np.roll(old["initial/delta"][...], (10, 4, 2), axis=(0, 1, 2))
    said = invoke("protohalo", "predict", run, tmp_path / "bare.h5", "--output", tmp_path / "out.h5", "--tile", 32,
                    "--context", 12).stdout
    invoke("protohalo", "predict", run, boxes[2], "--output", tmp_path / "still.h5", "--tile", 32, "--context", 12)
    with h5py.File(tmp_path / "out.h5") as moved, h5py.File(tmp_path / "still.h5") as still:
        assert f"{len(still['halos/mass'])} haloes" in said
        np.testing.assert_allclose(np.sort(moved["halos/mass"]), np.sort(still["halos/mass"]))


def test_evaluation_writes_metrics_and_figures(run, boxes, tmp_path, invoke):
    said = invoke("protohalo", "evaluate", run, boxes[2], "--output", tmp_path / "evaluation").stdout
    assert "excursion_set" in said
    metrics = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    with Simulation(boxes[2]) as simulation:
        count = simulation["halos/count"][...]
        edges = np.array(metrics["mass_edges"]) / simulation.particle_mass
    assert metrics["haloes"]["true"] == (count >= 20).sum()
    assert metrics["haloes_per_simulation"] == {name: [number] for name, number in metrics["haloes"].items()}
    np.testing.assert_array_equal(metrics["adaptive"]["true"], np.histogram(count[count >= 20], edges * (1 - 1e-6))[0])
    assert 0 < metrics["loss"] < 1.2
    report = (tmp_path / "evaluation" / "report.html").read_text()
    assert "What the run is good for" in report and f"kerasgal protohalo predict {run} INPUT" in report
    assert "Not the fate of a single halo" in report and "<code>ceiling</code>" in report
    predicted = kg.load(run).predict(boxes[2]).halo_id
    with Simulation(boxes[2]) as simulation:
        true, mass = simulation["halo_id"][...], simulation["halos/mass"][...]
    for row in metrics["worst_cases"]:
        inside = predicted[true == row["halo"]]
        parts = np.bincount(inside[inside >= 0], minlength=1)
        assert row["largest_part_in_one_halo"] == pytest.approx(parts.max() / len(inside))
        # Either it is broken, or what holds most of it is more than twice as large.
        assert 2 * parts.max() <= len(inside) or (predicted == parts.argmax()).sum() >= 2 * parts.max()
        assert row["mass"] == pytest.approx(mass[row["halo"]], rel=1e-4)
    masses = [row["mass"] for row in metrics["worst_cases"]]
    missed = (count >= 20).sum() - metrics["adaptive"]["objects"]["pairs"]
    assert masses == sorted(masses, reverse=True) and len(masses) == min(missed, 10)
    assert 0 < metrics["adaptive"]["dice"] < 1
    assert [line.split("  ")[0] for line in harness.bars("longer-protohalo", metrics)] == [
        "loss", "Dice of the cells", "mean residual per bin of mass"]
    found = metrics["adaptive"]["objects"]
    assert 0 < found["pairs"] == round(found["completeness"] * (count >= 20).sum())
    assert len(metrics["adaptive"]["purity_by_mass"]) == len(edges) - 1
    found = metrics["clustering"]["haloes"]
    numbers = {name: row["number"] for name, row in found.items() if name != "moved"}
    matched, pairs = metrics["adaptive"]["objects"]["pairs"], numbers.pop("adaptive, matched")
    assert pairs == numbers.pop("true, matched") == matched
    assert numbers.pop("adaptive, others") == metrics["haloes"]["adaptive"] - matched
    assert numbers.pop("true, missed") == metrics["haloes"]["true"] - matched
    assert numbers == metrics["haloes"]
    # 2LPT knows where true patches go.
    assert found["true"]["large_scale_correlation"] == pytest.approx(1) and "where they end" in said
    assert found["adaptive"]["large_scale_correlation"] < found["moved"]["large_scale_correlation"]
    assert found["moved"]["large_scale_correlation"] > 0.98
    for name in ("distance_maps", "halo_slices", "close_up", "trajectories", "cell_masses", "mass_function",
                 "cumulative_mass_function", "found_by_mass", "clustering"):
        assert (tmp_path / "evaluation" / f"{name}.png").stat().st_size > 5000


@pytest.fixture(scope="module")
def twin(boxes, once, invoke):
    """The same in tests/halomass: it is made once."""
    folder = once("twin", lambda folder: invoke(
        "simulate", folder / "twin.h5", "--twin-of", boxes[2], "--particles", 32, "--share", 3.5, "--seed", 90))
    return folder / "twin.h5"


def test_a_twin_stands_beside_the_predictions(run, boxes, twin, tmp_path, invoke):
    metrics = kg.load(run).evaluate(boxes[2], ceiling=twin)
    assert "a twin's map" in repr(metrics) and metrics["twin_loss"] < metrics["loss"]
    assert metrics["twin"]["dice"] > metrics["adaptive"]["dice"]  # 3.5 of at most 4.02 h/Mpc are shared
    assert all("twins 0." in line for line in harness.bars("protohalo", metrics.metrics))
    found = metrics["clustering"]["haloes"]
    assert found["twin"]["large_scale_correlation"] > found["adaptive"]["large_scale_correlation"]
    with Simulation(twin) as other:
        assert metrics["haloes"]["twin"] == (other["halos/count"][...] >= 20).sum()
    for given, words in (((boxes[1],), "none of"), ((twin, twin), "is left over")):
        refused = invoke("protohalo", "evaluate", run, boxes[2], *(word for path in given for word in
                         ("--ceiling", path)), "--output", tmp_path / "no", check=False)
        assert refused.returncode == 1 and words in " ".join(refused.stderr.split()) and not (tmp_path / "no").exists()


def test_predicted_haloes_say_where_they_end(run, prediction, boxes):
    with h5py.File(prediction) as file, Simulation(boxes[2]) as box:
        moved = file["halos/final_position"][...] - file["halos/position"][...]
        moved = np.abs((moved + 12.5) % 25 - 12.5)
        # As far as the particles of the simulation move, on average
        there = np.abs((box["final/position"][...] - lattice(32, 25.0).reshape(-1, 3) + 12.5) % 25 - 12.5)
        assert 0.6 * there.mean() < moved.mean() < 1.6 * there.mean()
        assert file["halos/velocity"].shape == moved.shape


@pytest.mark.slow
def test_evaluation_where_there_is_nothing_to_see(run, boxes, tmp_path, invoke):
    """A network that has learned nothing has no peaks; a minimum that no halo reaches is named."""
    invoke("protohalo", "train", boxes[0], *TINY[:-6], "--epochs", 1, "--steps-per-epoch", 1, "--batch", 1, "--run",
           tmp_path / "untrained")
    invoke("protohalo", "evaluate", tmp_path / "untrained", boxes[2], "--output", tmp_path / "nothing")
    assert json.loads((tmp_path / "nothing" / "metrics.json").read_text())["adaptive"]["dice"] >= 0
    stored = json.loads((run / "config.json").read_text())
    stored["config"]["minimum"] = 10**6
    high = tmp_path / "high"
    high.mkdir()
    for name in ("best.weights.h5", "provenance.json", "calibration.json"):
        (high / name).write_bytes((run / name).read_bytes())
    (high / "config.json").write_text(json.dumps(stored))
    done = invoke("protohalo", "evaluate", high, boxes[2], check=False)
    assert done.returncode == 1 and "has no halo of at least 1000000 cells" in done.stderr


def test_the_watershed_is_calibrated_anew_without_training(run, boxes, tmp_path, invoke):
    again = tmp_path / "again"
    again.mkdir()
    for path in run.iterdir():
        if path.is_file():
            (again / path.name).write_bytes(path.read_bytes())
    invoke("protohalo", "train", "--run", again, "--resume", "--depth", "0", "--calibration", "histogram")
    assert (again / "last.weights.h5").read_bytes() == (run / "last.weights.h5").read_bytes()
    assert json.loads((again / "config.json").read_text())["config"]["depth"] == 0
    assert (again / "calibration.json").read_text() != (run / "calibration.json").read_text()


def test_a_run_resumes_under_the_command_that_started_it(run, boxes, invoke):
    before = (run / "history.csv").read_bytes()
    said = invoke("protohalo", "train", boxes[0], boxes[1], *TINY, "--run", run, "--resume").stdout
    assert "validating on" in said and (run / "history.csv").read_bytes() == before


def test_a_box_of_the_training_is_no_test(run, boxes, invoke, tmp_path):
    done = invoke("protohalo", "evaluate", run, boxes[0], "--output", tmp_path / "none", check=False)
    assert done.returncode == 1 and "was used in the training of" in done.stderr and not (tmp_path / "none").exists()


def test_training_without_arguments_makes_its_own_simulations(tmp_path, invoke, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("kerasgal.simulations.BOXES", 2)
    monkeypatch.setattr(kg.Protohalo, "own", {"particles": 32})
    said = invoke("protohalo", "train", "--epochs", "1", "--steps-per-epoch", "1", "--filters", "2", "--levels", "1",
                  "--patch", "32", "--minimum", "20").stdout
    assert "no simulation given: making" in said
    assert (tmp_path / "protohalo-run" / "best.weights.h5").exists()
    stored = json.loads((tmp_path / "protohalo-run" / "config.json").read_text())["config"]
    assert stored["learning_rate"] == 1e-3  # the demo's, not the paper's


def test_a_box_that_is_trained_on_does_not_validate(boxes, tmp_path, invoke):
    for arguments in ((boxes[0], boxes[1], boxes[0]), (boxes[0], "--validation", boxes[0])):
        done = invoke("protohalo", "train", *arguments, *TINY, "--run", tmp_path / "run", check=False)
        assert done.returncode == 2 and not (tmp_path / "run").exists()
        assert "given twice: what is validated on must not be trained on" in " ".join(done.stderr.split())


def test_a_prediction_is_hdf5_and_shown_by_info(run, boxes, tmp_path, invoke):
    done = invoke("protohalo", "predict", run, boxes[2], "--output", tmp_path / "out.ecsv", check=False)
    assert done.returncode == 2 and "accepted suffixes are .h5, .hdf5" in done.stderr
    invoke("protohalo", "predict", run, boxes[2], "--output", tmp_path / "out.h5")
    shown = invoke("info", tmp_path / "out.h5").stdout
    assert "distance" in shown and "(32, 32, 32) float32" in shown and "halos/mass" in shown


def test_damaged_run_folders_are_named(run, boxes, tmp_path, invoke):
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "calibration.json").write_text('{"slope": 1}')
    done = invoke("protohalo", "predict", tmp_path / "run", boxes[2], "--output", tmp_path / "out.h5", check=False)
    assert done.returncode == 1 and "calibration.json has no line of the cut" in done.stderr
    (tmp_path / "run" / "history.csv").write_text("")
    assert "learning_rate" in invoke("info", tmp_path / "run").stdout
    (tmp_path / "run" / "config.json").write_text("{")
    done = invoke("info", tmp_path / "run", check=False)
    assert done.returncode == 1 and "config.json is damaged: Expecting property name" in done.stderr


def broken(boxes, path, change):
    path.write_bytes(boxes[0].read_bytes())
    with h5py.File(path, "a") as file:
        change(file)
    return path


def put_nan(file):
    file["initial/delta"][3, 2, 1] = np.nan


def drop_haloes(file):
    del file["halo_id"], file["halos"]


@pytest.mark.parametrize("case, code, message", [
    ("missing", 1, "no such file"),
    ("text", 1, "is not an HDF5 file"),
    ("no haloes", 1, "has no halo_id, halos/mass, halos/count"),
    ("nan", 1, "initial/delta has 1 values that are NaN or infinite"),
    ("small grid", 1, "the grid has 32 cells a side, fewer than the patch of 64: choose a smaller --patch"),
    ("config", 1, "unknown setting 'colour'"),
    ("resume", 2, "--resume and --overwrite contradict each other"),
    ("patch", 2, "--patch 16 leaves no cell to the loss with --margin 8"),
    ("levels", 2, "--patch 16 cannot be halved 5 times"),
    ("exists", 1, "exists already; give --resume"),
    ("precision", 2, "trains wrongly without a GPU"),
])
def test_mistakes_in_training_are_one_line(case, code, message, boxes, run, tmp_path, invoke):
    (tmp_path / "text.h5").write_text("no")
    (tmp_path / "bad.json").write_text('{"config": {"colour": 3}}')
    arguments = {
        "missing": [tmp_path / "none.h5", *TINY], "text": [tmp_path / "text.h5", *TINY],
        "no haloes": [broken(boxes, tmp_path / "bare.h5", drop_haloes), *TINY],
        "nan": [broken(boxes, tmp_path / "nan.h5", put_nan), *TINY],
        "small grid": [boxes[0], "--preset", "demo", "--minimum", "20"],
        "config": [boxes[0], "--config", tmp_path / "bad.json"],
        "resume": [boxes[0], *TINY, "--resume", "--overwrite"],
        "patch": [boxes[0], *TINY, "--margin", "8"],
        "levels": [boxes[0], *TINY, "--levels", "5"],
        "exists": [boxes[0], *TINY, "--run", run],
        "precision": [boxes[0], *TINY, "--precision", "mixed_float16"],
    }[case]
    done = invoke("protohalo", "train", "--run", tmp_path / "run", *arguments, check=False)
    assert done.returncode == code, done.stderr
    assert message in done.stderr and "Traceback" not in done.stderr
    if code == 1:
        assert done.stderr.strip().splitlines()[-1].startswith("Error: ") and done.stderr.count("\n") == 1, done.stderr
    assert not (tmp_path / "run").exists()


def test_mistakes_in_prediction_are_one_line_and_leave_nothing(boxes, run, tmp_path, invoke):
    def fails(message, *arguments):
        done = invoke("protohalo", *arguments, check=False)
        assert done.returncode == 1 and message in done.stderr, done.stderr
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr

    output = tmp_path / "out.h5"
    fails("is not a run folder", "predict", tmp_path, boxes[2], "--output", output)
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.json").write_bytes((run / "config.json").read_bytes())
    fails("has no weights", "predict", bare, boxes[2], "--output", output)
    stored = json.loads((run / "config.json").read_text())
    stored["app"] = "morph"
    (bare / "config.json").write_text(json.dumps(stored))
    fails("is a run of morph, not of protohalo", "predict", bare, boxes[2], "--output", output)
    assert not output.exists()
    done = invoke("protohalo", "predict", run, boxes[2], "--output", output, "--tile", 10, "--context", 5, check=False)
    assert done.returncode == 2 and "--tile 10 with --context 5 does not fit the network" in done.stderr
    assert not output.exists()
    output.write_text("mine")
    fails("--overwrite", "predict", run, boxes[2], "--output", output)
    assert output.read_text() == "mine"


def test_folders_that_cannot_be_written_are_one_line(boxes, run, tmp_path, invoke):
    """A full device stands for the full disk; a read-only folder only where the tests do not run as root."""
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", small], capture_output=True)
    if mounted.returncode == 0:
        try:
            done = invoke("protohalo", "predict", run, boxes[2], "--output", small / "out.h5", check=False)
            simulated = invoke("simulate", small / "box.h5", "--particles", 16, check=False)
            left = list(small.iterdir())
        finally:
            subprocess.run(["umount", small], check=True)
        for refused in (done, simulated):
            assert refused.returncode == 1 and "no space left" in refused.stderr
            assert refused.stderr.count("\n") == 1, refused.stderr
        assert left == []
    if os.geteuid() != 0:
        small.chmod(stat.S_IRUSR | stat.S_IXUSR)
        done = invoke("protohalo", "predict", run, boxes[2], "--output", small / "out.h5", check=False)
        assert done.returncode == 1 and "Permission denied" in done.stderr and "Traceback" not in done.stderr
    elif mounted.returncode != 0:
        pytest.skip("running as root without the right to mount: nothing here can refuse a file")
