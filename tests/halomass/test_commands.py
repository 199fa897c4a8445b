"""The whole road through the command line, on small simulations, and the mistakes a user can make on it."""

import json

import h5py
import harness
import numpy as np
import pytest
from astropy.table import Table

from kerasgal.apps.halomass import compress, predict
from kerasgal.apps.halomass.run import HaloMass
from kerasgal.simulation import Simulation

TINY = [*harness.flags("halomass"), "--padding", "same"]


@pytest.fixture(scope="module")
def run(trained):
    folder = trained("halomass")
    said = (folder.parent / "said.txt").read_text()
    for words in ("400 training particles", "validating on", "input neurons", str(folder)):
        assert words in said
    return folder


def test_summary_prints_the_papers_network(invoke):
    assert "2,108,258 trainable parameters" in invoke("halomass", "summary", "--preset", "paper").stdout
    assert "averages" in invoke("halomass", "summary", "--preset", "demo", "--input", "averaged").stdout


def test_tables_hold_the_prediction_and_its_quantiles(run, boxes, tmp_path, invoke):
    (tmp_path / "numbers.txt").write_text("5\n32767\n\n1000\n")
    with Simulation(boxes[2]) as simulation:
        log_mass = np.append(np.log10(simulation["halos/mass"][...]), np.nan)
        true = log_mass[simulation["halo_id"][...].ravel()]
    expected = {"given": [5, 32767, 1000], "all": np.flatnonzero((true >= 11.9) & (true <= 13.8)), "some": None}
    for name, suffix, arguments in (("given", "ecsv", ["--particles", tmp_path / "numbers.txt"]), ("all", "h5", []),
                                    ("some", "fits", ["--sample", 40]), ("some", "csv", ["--sample", 40])):
        output = tmp_path / f"{name}.{suffix}"
        said = invoke("halomass", "predict", run, boxes[2], *arguments, "--output", output).stdout
        assert str(output) in said
        if suffix == "h5":
            with h5py.File(output) as file:
                table, header = {column: file[column][...] for column in file}, dict(file.attrs)
        else:
            table = Table.read(output, **({"comment": "#"} if suffix == "csv" else {}))
            header = {key.lower(): value for key, value in table.meta.items()}
        if expected[name] is not None:
            np.testing.assert_array_equal(table["particle"], expected[name])
        np.testing.assert_allclose(table["log_mass_true"], true[table["particle"]], rtol=1e-5)
        assert len(table["particle"]) == (40 if name == "some" else len(expected[name]))
        if suffix != "h5":
            np.testing.assert_allclose(table["mass"], 10 ** np.asarray(table["log_mass"]), rtol=1e-5)
        if suffix != "csv":
            assert header["unit"] == "log10 Msun/h" and header["like"] == "cauchy" and header["scale0"] > 0
            assert header["app"] == "halomass" and header["boxsize"] == 25 and header["run"] == str(run)
        quantiles = np.stack([table[f"log_mass_p{q}"] for q in ("025", "16", "50", "84", "975")])
        assert np.all(np.diff(quantiles, axis=0) > 0) and quantiles.min() >= 11.9 and quantiles.max() <= 13.8
    found = HaloMass.load(run).predict(boxes[2], particles=[5, 32767, 1000])
    np.testing.assert_allclose(Table.read(tmp_path / "given.ecsv")["log_mass"], found["log_mass"], atol=1e-5)


def test_bfloat16_predicts_nearly_the_same(run, boxes, tmp_path, invoke):
    for precision in ("float32", "mixed_bfloat16"):
        invoke("halomass", "predict", run, boxes[2], "--sample", 50, "--precision", precision, "--output",
               tmp_path / f"{precision}.h5")
    with h5py.File(tmp_path / "float32.h5") as one, h5py.File(tmp_path / "mixed_bfloat16.h5") as other:
        np.testing.assert_allclose(one["log_mass"], other["log_mass"], atol=0.05)


def kill_neurons(run, folder):
    """A run folder whose network has weights of zero out of half its features and neurons."""
    trained = HaloMass.load(run)
    for layer in compress.dense_layers(trained.network):
        kernel, bias = (np.array(value) for value in layer.get_weights())
        kernel[::2] = 0
        kernel[1, -1] = 0.5  # one active weight keeps a neuron
        layer.set_weights([kernel, bias + 0.1])
    compress.write(folder, trained, trained.network, False)
    return trained


def test_compression_gives_the_smaller_network_equal_in_output(run, boxes, tmp_path, invoke):
    before = kill_neurons(run, tmp_path / "sparse")
    said = invoke("halomass", "compress", tmp_path / "sparse", "--output", tmp_path / "small").stdout
    sizes = [layer.kernel.shape for layer in compress.dense_layers(before.network)]
    assert f"{sizes[0][0] // 2} of {sizes[0][0]} input neurons" in said
    after = HaloMass.load(tmp_path / "small")
    assert [layer.kernel.shape[0] for layer in compress.dense_layers(after.network)] == [rows // 2 for rows, _ in sizes]
    cubes = np.random.default_rng(0).normal(size=(20, *before.network.input_shape[1:])).astype("f4")
    np.testing.assert_allclose(after.network(cubes), before.network(cubes), atol=1e-6)
    assert float(said.split("at most ")[1].split()[0]) < 1e-6
    assert compress.activity(after.network)[0]["active_neurons"] == sizes[0][0] // 2
    np.testing.assert_allclose(after.in_precision("mixed_bfloat16")(cubes), before.network(cubes), atol=0.2)
    assert after.domain == before.domain and after.history == before.history
    # It is a run like any other: it predicts, draws maps, exports and is compressed again.
    maps = []
    for name in ("sparse", "small"):
        invoke("halomass", "predict", tmp_path / name, boxes[2], "--map", "--output", tmp_path / f"{name}.h5")
        with h5py.File(tmp_path / f"{name}.h5") as file:
            maps.append(file["log_mass"][...])
    np.testing.assert_allclose(*maps, atol=1e-5)
    done = invoke("halomass", "compress", tmp_path / "small", tmp_path / "again")
    assert done.stderr.strip() == "a second argument is an old spelling: write --output"
    again = HaloMass.load(tmp_path / "again")
    np.testing.assert_allclose(again.network(cubes), before.network(cubes), atol=1e-6)
    assert again.network.count_params() == after.network.count_params()
    # In Python, of a folder or a loaded run.
    assert compress.compress(tmp_path / "small").folder == tmp_path / "small" / "compressed"
    assert again.compress(tmp_path / "last").network.count_params() == after.network.count_params()


def without(path, source, *names):
    path.write_bytes(source.read_bytes())
    with h5py.File(path, "a") as file:
        for name in names:
            del file[name]
    return path


@pytest.mark.slow
def test_training_without_simulations_makes_them_and_resumes_from_the_folder_alone(tmp_path, invoke, monkeypatch):
    monkeypatch.setattr("kerasgal.simulations.PARTICLES", 32)
    monkeypatch.setattr("kerasgal.simulations.BOXES", 2)
    monkeypatch.setattr(HaloMass, "own", {"particles": 32})
    small = ["--samples", "64", "--validation-samples", "64", "--patch", "9", "--convolutions", "2", "--filters", "2"]
    folder = tmp_path / "run"
    said = invoke("halomass", "train", "--run", folder, *small, "--epochs", "1", "--steps-per-epoch", "2").stdout
    assert "no simulation given: making 2 of 32^3" in said and "box_seed1.h5, which is not trained on" in said
    assert json.loads((folder / "config.json").read_text())["config"]["alpha"] == 1e-5  # the demo's, not the paper's
    invoke("halomass", "train", "--run", folder, "--resume", "--epochs", "2")
    assert (folder / "history.csv").read_text().count("\n") == 3


@pytest.mark.parametrize("case, code, message", [
    ("missing", 1, "no such file"),
    ("no haloes", 1, "has no halo_id, halos/mass"),
    ("no final", 1, "has no final/position"),
    ("range", 1, "no particle in haloes with log10 mass between 15 and 16"),
    ("empty range", 2, "leave no mass"),
    ("cube", 1, "the cube of 33 cells around a particle is larger than the box of 32"),
    ("extent", 1, "is wider than half the box of 25 Mpc/h"),
    ("even", 2, "--patch 8 is even"),
    ("dense", 2, "--padding none predicts whole boxes"),
    ("resume", 2, "--resume and --overwrite contradict each other"),
    ("exists", 1, "exists already; give --resume"),
    ("precision", 2, "trains wrongly without a GPU"),
])
def test_mistakes_in_training_are_one_line(case, code, message, boxes, run, tmp_path, invoke):
    arguments = {
        "missing": [tmp_path / "none.h5"], "empty range": [boxes[0], "--low", "14"],
        "no haloes": [without(tmp_path / "bare.h5", boxes[0], "halo_id", "halos")],
        "no final": [without(tmp_path / "early.h5", boxes[0], "final"), "--input", "final"],
        "range": [boxes[0], "--low", "15", "--high", "16"], "cube": [boxes[0], "--patch", "33"],
        "extent": [boxes[0], "--input", "final", "--extent", "20"], "even": [boxes[0], "--patch", "8"],
        "dense": [boxes[0], "--padding", "none", "--input", "averaged"],
        "resume": [boxes[0], "--resume", "--overwrite"], "exists": [boxes[0], "--run", run],
        "precision": [boxes[0], "--precision", "mixed_float16"],
    }[case]
    done = invoke("halomass", "train", "--run", tmp_path / "run", *TINY, *arguments, check=False)
    assert done.returncode == code, done.stderr
    assert message in done.stderr and "Traceback" not in done.stderr
    if code == 1:
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not (tmp_path / "run" / "best.weights.h5").exists()


def test_mistakes_in_prediction_are_one_line_and_leave_nothing(boxes, run, tmp_path, invoke):
    output = tmp_path / "out.h5"

    def fails(code, message, *arguments):
        done = invoke("halomass", *arguments, check=False)
        assert done.returncode == code and message in done.stderr, done.stderr
        assert code == 2 or len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert not output.exists()

    (tmp_path / "far.txt").write_text("3\n32768\n")
    (tmp_path / "words.txt").write_text("3\nfour\n")
    (tmp_path / "empty.txt").write_text("\n")
    to = ["--output", output]
    fails(1, "is not a run folder", "predict", tmp_path, boxes[2], *to)
    fails(1, "has no particle 32768: accepted are 0 to 32767", "predict", run, boxes[2], "--particles",
          tmp_path / "far.txt", *to)
    fails(1, "one particle number per line", "predict", run, boxes[2], "--particles", tmp_path / "words.txt", *to)
    fails(1, "has no particle number", "predict", run, boxes[2], "--particles", tmp_path / "empty.txt", *to)
    fails(1, "no such file", "predict", run, boxes[2], "--particles", tmp_path / "none.txt", *to)
    fails(1, "has no halo_id", "predict", run, without(tmp_path / "bare.h5", boxes[2], "halo_id", "halos"), *to)
    fails(2, "contradict each other", "predict", run, boxes[2], "--sample", "3", "--map", *to)
    fails(2, "--seed", "predict", run, boxes[2], "--seed", "3", *to)
    fails(2, "accepted suffixes are .h5, .ecsv, .fits, .csv", "predict", run, boxes[2], "--output",
          tmp_path / "out.txt")
    if not predict.has_gpu():
        fails(1, "needs a GPU", "predict", run, boxes[2], "--sample", "3", "--precision", "mixed_float16", *to)
    padded = tmp_path / "padded"
    invoke("halomass", "train", boxes[0], *TINY, "--run", padded)
    fails(1, "train with padding=none", "predict", padded, boxes[2], "--map", *to)
    fails(1, "exists already; give --overwrite", "compress", run, "--output", padded)
    fails(2, "contradict each other", "compress", run, padded, "--output", tmp_path / "small")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    fails(1, "is not a run folder of halomass: not replacing it", "compress", run, "--output", tmp_path / "mine",
          "--overwrite")
    assert (tmp_path / "mine" / "thesis.tex").exists()


def test_a_simulation_without_haloes_can_be_predicted(boxes, run, tmp_path, invoke):
    (tmp_path / "numbers.txt").write_text("7\n")
    bare = without(tmp_path / "bare.h5", boxes[2], "halo_id", "halos", "final")
    invoke("halomass", "predict", run, bare, "--particles", tmp_path / "numbers.txt", "--output", tmp_path / "out.h5")
    with h5py.File(tmp_path / "out.h5") as file:
        assert np.isnan(file["log_mass_true"][0]) and np.isfinite(file["log_mass"][0])
