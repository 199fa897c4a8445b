"""kerasgal cascade diffusion through the command line, on small simulations, and a user's mistakes."""

import json
import shutil

import h5py
import harness
import numpy as np
import pytest

import kerasgal as kg
from kerasgal.apps.cascade.diffusion import data, sample

pytestmark = pytest.mark.usefixtures("eager", "restored_once")

TINY = harness.flags("cascade diffusion")


@pytest.fixture(scope="module")
def with_feedback(painted, tmp_path_factory):
    """The same simulations with a made-up strength of feedback each, as a converted file would have it."""
    folder = tmp_path_factory.mktemp("feedback")
    paths = [shutil.copy(path, folder) for path in painted]
    for number, path in enumerate(paths):
        with h5py.File(path, "a") as file:
            file.create_group("parameters").attrs["A_SN1"] = (0.5, 1.5, 0.5)[number]
    return paths


@pytest.fixture(scope="module")
def run(with_feedback, tmp_path_factory, invoke, eagerly):
    folder = tmp_path_factory.mktemp("runs") / "run"
    with eagerly(True):
        said = invoke("cascade", "diffusion", "train", with_feedback[0], with_feedback[1], *TINY, "--parameters",
                      "A_SN1", "--schedule", "learned", "--run", folder).stdout
    assert "validating on" in said and "48 training maps" in said
    return folder


def test_a_run_folder_has_the_three_parts_of_the_bound(run, invoke):
    header, row = (line.split(",") for line in (run / "history.csv").read_text().split())
    values = dict(zip(header, map(float, row)))
    for prefix in ("", "val_"):
        parts = [values[prefix + name] for name in ("prior", "reconstruction", "diffusion")]
        assert parts[0] > 0 and parts[2] > 0 and parts[1] > -1e-6  # nearly no noise is left to round to a wrong number
        np.testing.assert_allclose(sum(parts), values[prefix + "loss"], rtol=1e-4, atol=1e-6)
    assert "cascade diffusion" in invoke("info", run).stdout


@pytest.mark.slow  # test_docs.py prints the first
def test_summary_prints_the_network(invoke):
    assert "parameters" in invoke("cascade", "diffusion", "summary", "--preset", "demo").stdout
    assert "Conv3D" in invoke("cascade", "diffusion", "summary", "--preset", "demo", "--dimensions", 3).stdout


def test_predict_writes_draws_of_every_map(run, with_feedback, tmp_path, invoke):
    output = tmp_path / "out.h5"
    said = invoke("cascade", "diffusion", "predict", run, with_feedback[2], "--draws", 3, "--steps", 4, "--axis", "y",
                  "--output", output).stdout
    assert "3 draws for 4 maps along y of 32^2 cells" in said
    trained = kg.load(run)
    density, parameters, _ = data.load(with_feedback[2], trained.config, axes=(1,))
    with h5py.File(output) as file:
        assert file["count"].shape == (4, 3, 32, 32) and file.attrs["axis"] == "y"
        expected = sample.draw(trained.network, trained.config, density[..., 1], 3, steps=4, seed=1,
                               parameters=parameters)
        np.testing.assert_array_equal(file["count"][1], expected)
    once = ["cascade", "diffusion", "predict", run, with_feedback[2], "--draws", 1, "--steps", 2, "--sampler",
            "deterministic", "--parameter", "A_SN1=3", "--output", output, "--overwrite"]
    done = invoke(*once, check=False)
    assert done.returncode == 1 and "A_SN1 = 3, and the run was trained on A_SN1 = 0.5" in done.stderr
    invoke(*once, "--outside-domain")
    with h5py.File(output) as file:
        assert file.attrs["parameters"] == "A_SN1 = 3"
        assert "outside the domain of the run" in file.attrs["notes"] and file["count"].shape == (4, 1, 32, 32)
    done = invoke("cascade", "diffusion", "predict", run, with_feedback[2], "--output", output, check=False)
    assert done.returncode == 1 and "exists already" in done.stderr


def test_evaluate_compares_with_regressor_and_halo_model(run, with_feedback, trained, tmp_path, invoke):
    folder = tmp_path / "evaluation"
    # Numbers counted in haloes are put into them, too, as those of a fit are.
    invoke("cascade", "hod", with_feedback[0], "--fit", "occupation", "--output", tmp_path / "hod.json")
    said = invoke("cascade", "diffusion", "evaluate", run, with_feedback[2], "--regressor", trained("cascade"),
                  "--hod", tmp_path / "hod.json", "--draws", 3, "--steps", 3, "--maps", 2, "--output", folder).stdout
    assert "halo model" in said and "ranks of the truth among 3 draws" in said
    assert "on 2 fields of its training, 3 draws each: residual of P(k)" in said
    result = json.loads((folder / "metrics.json").read_text())
    assert result["maps"] == 2 and list(result["runs"]) == ["run"]
    assert set(result["baselines"]) == {"regressor", "halo model", "boosted trees", "another drawing"}
    # The rule by which galaxies were painted makes as many of them again, to their scatter.
    number = result["truth"]["galaxies"]
    assert abs(result["baselines"]["another drawing"]["galaxies"] - number) < 5 * number**0.5
    assert len(result["worst_cases"]) == 2  # of all maps
    assert sum(row["true_galaxies"] for row in result["worst_cases"]) == result["truth"]["galaxies"]
    entry = result["runs"]["run"]
    assert sum(row["galaxies"] for row in result["worst_cases"]) == pytest.approx(entry["galaxies"])
    assert entry["training"]["simulations"] == [str(with_feedback[0])] and entry["training"]["maps"] == 2
    # Trees that see the same map expect as many galaxies as there are, to what so few maps to fit them to allow.
    assert 0.4 < result["baselines"]["boosted trees"]["galaxies"] / result["truth"]["galaxies"] < 1.6
    assert len(entry["power_scatter"]) == len(result["k"])
    # It was trained on one simulation, and validated on the other.
    assert "response" not in entry
    assert any("A_SN1 is 0.5 in all simulations of the training" in note for note in result["notes"])
    for name in ("draws", "power_spectrum", "ranks"):
        assert (folder / f"{name}.png").stat().st_size > 10_000
    done = invoke("cascade", "diffusion", "evaluate", run, with_feedback[0], "--output",
                  tmp_path / "no", check=False)
    assert done.returncode == 1 and "was used in the training of" in done.stderr and not (tmp_path / "no").exists()


@pytest.mark.slow
def test_few_steps_are_compared_with_many(run, with_feedback, tmp_path, invoke, monkeypatch):
    from kerasgal.apps.cascade.diffusion import evaluate

    monkeypatch.setattr(evaluate, "STUDY", {"ancestral": (4, 2), "multistep": (4,), "deterministic": (2,)})
    said = invoke("cascade", "diffusion", "evaluate", run, with_feedback[2], "--draws", 2, "--steps", 2,
                  "--maps", 1, "--study", "--output", tmp_path / "study").stdout
    assert "ancestral, 2 steps: " in said and "of the power of 4 ancestral steps" in said
    study = json.loads((tmp_path / "study" / "metrics.json").read_text())["runs"]["run"]["study"]
    assert [row["steps"] for row in study["ancestral"]] == [4, 2] and study["maps"] == 1
    assert (tmp_path / "study" / "steps.png").stat().st_size > 10_000


@pytest.mark.slow
def test_a_resumed_run_is_the_run_that_was_not_interrupted(painted, tmp_path, invoke):
    settings = [*TINY, "--decay", "none", "--schedule", "learned"]
    invoke("cascade", "diffusion", "train", painted[0], painted[1], *settings, "--run", tmp_path / "parts")
    invoke("cascade", "diffusion", "train", "--resume", "--epochs", 2, "--run", tmp_path / "parts")
    invoke("cascade", "diffusion", "train", painted[0], painted[1], *settings, "--epochs", 2, "--run",
           tmp_path / "whole")
    histories = [np.genfromtxt(tmp_path / name / "history.csv", delimiter=",", skip_header=1)[:, :-1]
                 for name in ("parts", "whole")]
    np.testing.assert_array_equal(*histories)


@pytest.mark.slow
def test_boxes_are_trained_on_and_drawn_from(painted, tmp_path, invoke):
    folder = tmp_path / "run"
    invoke("cascade", "diffusion", "train", painted[0], *TINY, "--dimensions", 3, "--parameters", "Om0,sigma8",
           "--run", folder)
    said = invoke("cascade", "diffusion", "predict", folder, painted[2], "--draws", 2, "--steps", 2, "--tile", 64,
                  "--output", tmp_path / "out.h5").stdout
    assert "2 draws for a box of 32^3 cells" in said
    with h5py.File(tmp_path / "out.h5") as file:
        assert file["count"].shape == (2, 32, 32, 32) and "axis" not in file.attrs
    invoke("cascade", "diffusion", "evaluate", folder, painted[2], "--draws", 2, "--steps", 1, "--tile", 64,
           "--output", tmp_path / "evaluation")
    assert json.loads((tmp_path / "evaluation" / "metrics.json").read_text())["maps"] == 1


@pytest.mark.parametrize("arguments, code, message", [
    (["--patch", "20", "--levels", "3"], 2, "cannot be halved 3 times"),
    (["--filters", "6", "--norm-groups", "4"], 2, "a multiple of --norm-groups 4"),
    (["--gamma-min", "15"], 2, "is not below --gamma-max"),
    (["--depth", "64"], 1, "deeper than the box of 32 cells"),
    (["--maximum", "1"], 1, "is the most that the model can have"),
    (["--parameters", "A_AGN1"], 1, "does not say its A_AGN1; it knows Ob0, Om0"),
    (["--patch", "48"], 1, "fewer than the patch of 48"),
])
def test_mistakes_in_training_are_one_line(arguments, code, message, painted, tmp_path, invoke):
    done = invoke("cascade", "diffusion", "train", painted[0], *TINY, *arguments, "--run", tmp_path / "run",
                  check=False)
    assert done.returncode == code, done.stderr
    assert message in done.stderr and not (tmp_path / "run").exists()


@pytest.mark.parametrize("arguments, code, message", [
    (["--parameter", "A_SN1"], 2, "accepted is NAME=VALUE"),
    (["--parameter", "Om0=0.3"], 2, "was not trained with Om0"),
    (["--parameter", "A_SN1=nan"], 2, "accepted are finite numbers"),
    (["--output", "out.npy"], 2, "--output out.npy: accepted suffixes are .h5, .hdf5"),
    (["--tile", "31"], 2, "does not fit the network"),
])
def test_mistakes_in_sampling_are_one_line(arguments, code, message, run, painted, with_feedback, tmp_path, invoke):
    done = invoke("cascade", "diffusion", "predict", run, with_feedback[2], "--output", tmp_path / "out.h5", *arguments,
                  check=False)
    assert done.returncode == code and message in done.stderr and not (tmp_path / "out.h5").exists()
    done = invoke("cascade", "diffusion", "predict", run, painted[2], "--output", tmp_path / "out.h5", check=False)
    assert done.returncode == 1 and "does not say its A_SN1" in done.stderr
    done = invoke("cascade", "predict", run, painted[2], "--output", tmp_path / "out.h5", check=False)
    assert done.returncode == 1 and "is not a run folder of cascade" in done.stderr


@pytest.mark.slow
def test_old_spellings_go_on_and_say_the_new_ones(run, painted, with_feedback, tmp_path, invoke):
    done = invoke("cascade", "diffusion", "sample", run, with_feedback[2], "--draws", 1, "--steps", 1, "--output",
                  tmp_path / "out.h5")
    assert "sample is an old spelling: write predict" in done.stderr and (tmp_path / "out.h5").exists()
    assert "\n  sample " not in invoke("cascade", "diffusion", "--help").stdout
    folder = tmp_path / "run"
    done = invoke("cascade", "diffusion", "train", painted[0], *TINY[:-8], "--groups", 0, "--clip", 0.25, *TINY[-6:],
                  "--run", folder)
    assert "write --norm-groups" in done.stderr and "write --gradient-norm" in done.stderr
    config = json.loads((folder / "config.json").read_text())["config"]
    assert config["norm_groups"] == 0 and config["gradient_norm"] == 0.25


@pytest.mark.slow  # those of protohalo, halomass and cascade are not
def test_a_run_folder_of_version_1_loads(run, with_feedback, tmp_path):
    """As kerasgal 0.1 wrote it: two settings with other names, and no domain."""
    old = tmp_path / "old"
    shutil.copytree(run, old)
    (old / "domain.json").unlink()
    settings = json.loads((old / "config.json").read_text())["config"]
    settings["clip"], settings["groups"] = settings.pop("gradient_norm"), settings.pop("norm_groups")
    for name in ("decay_factor", "decay_epochs", "accumulation"):
        del settings[name]
    (old / "config.json").write_text(json.dumps({"app": "cascade diffusion", "config": settings}))
    loaded, today = kg.load(old), kg.load(run)
    assert loaded.config == today.config and loaded.domain == {}
    options = {"draws": 1, "steps": 2}
    made = loaded.predict(with_feedback[2], **options)
    np.testing.assert_array_equal(made["count"], today.predict(with_feedback[2], **options)["count"])
    assert "does not say what it was trained on" in made.notes[0]
