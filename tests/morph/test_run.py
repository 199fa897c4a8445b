"""morph from Python, as a notebook has it, and what lies outside of a run's domain."""

import json
import shutil

import h5py
import numpy as np
import pytest

import kerasgal as kg
from kerasgal.apps.morph import sets

pytest.importorskip("galsim")

TINY = {"preset": "demo", "crop": 64, "size": 8, "filters": 4, "mixtures": 2, "batch": 8, "epochs": 1,
        "steps_per_epoch": 2, "rotate": False}


@pytest.fixture(scope="module")
def galaxies(tmp_path_factory):
    folder = tmp_path_factory.mktemp("galaxies")
    for name, seed in (("training", 3), ("unseen", 4)):
        sets.simulate(folder / f"{name}.h5", number=30, seed=seed)
        sets.make_archetypes(folder / f"{name}_archetypes.h5", table=folder / f"{name}.h5", seed=seed)
    return folder


@pytest.fixture(scope="module")
def trained(galaxies, tmp_path_factory):
    return kg.train("morph", galaxies / "training.h5", archetypes=galaxies / "training_archetypes.h5",
                    run=str(tmp_path_factory.mktemp("runs") / "run"), **TINY)


def test_a_notebook_trains_scores_and_compares(trained, galaxies, tmp_path):
    run = kg.load(str(trained.folder))
    assert isinstance(run, kg.Morph) and run.unit == "counts" and run.domain["pixel_scale"] == [0.396, 0.396]
    scores = run.predict(galaxies / "unseen.h5", maps=True)
    with kg.open(galaxies / "unseen.h5") as images:
        pixels = images["image"][...]
        assert np.array_equal(run.score(images)["llr"], scores["llr"])
    same = run.predict(pixels, unit="counts", zero_point=run.zero_point, pixel_scale=0.396)
    np.testing.assert_allclose(same["llr"], scores["llr"], atol=1e-3)
    table = scores.table
    assert len(table) == 30 and not np.any(table["flag"] & 17) and scores["image"].shape == (30, 8, 8)
    assert len(scores.plot().axes) == 1
    scores.save(tmp_path / "scores.ecsv")
    evaluation = run.evaluate({"observed": galaxies / "unseen.h5", "smooth": galaxies / "unseen_archetypes.h5"})
    assert set(evaluation["sets"]) == {"observed", "smooth"} and "median LLR" in repr(evaluation)
    evaluation.save(tmp_path / "evaluation")
    assert (tmp_path / "evaluation" / "llr.png").exists()
    assert (run.export(tmp_path / "served") / "kerasgal.json").exists()


def test_images_that_were_trained_on_are_no_test(trained, galaxies, tmp_path):
    with pytest.raises(kg.UnseenError, match="was used in the training"):
        trained.evaluate({"observed": galaxies / "unseen.h5", "again": str(galaxies / "training*.h5")})


def test_images_of_other_pixels_are_refused_and_nothing_is_written(trained, galaxies, tmp_path, invoke):
    other = tmp_path / "other.h5"
    shutil.copy(galaxies / "unseen.h5", other)
    with h5py.File(other, "r+") as file:
        file.attrs["pixel_scale"] = 0.2
    output = tmp_path / "scores.csv"
    done = invoke("morph", "score", trained.folder, other, "--output", output, check=False)
    line, = done.stderr.strip().splitlines()
    assert done.returncode == 1 and "pixels of 0.2 arcsec, and the run was trained on pixels of 0.396 arcsec" in line
    assert "--outside-domain" in line and list(tmp_path.iterdir()) == [other]
    done = invoke("morph", "score", trained.folder, other, "--output", output, "--outside-domain")
    assert "warning: outside the domain of the run" in done.stderr and output.exists()
    notes = trained.predict(other, outside_domain=True).table.meta["notes"]
    assert "pixels of 0.2 arcsec" in notes


def test_what_are_no_images_is_refused(trained):
    for wrong in (np.zeros((2, 2, 2, 2)), np.zeros((0, 8, 8)), [], np.full((1, 4, 4), "a")):
        with pytest.raises(kg.DataError):
            trained.predict(wrong)
    with pytest.raises(kg.DataError, match="expected sets of images"):
        trained.evaluate(["a.h5"])


def test_a_run_of_version_1_scores_as_before_and_says_that_it_has_no_domain(trained, galaxies, tmp_path, caplog):
    old = tmp_path / "old"
    shutil.copytree(trained.folder, old)
    for phase in ("real", "archetype"):
        (old / phase / "domain.json").unlink()
        stored = json.loads((old / phase / "config.json").read_text())
        del stored["version"]
        settings = stored["config"]
        settings["step_decay"] = settings.pop("decay_factor")
        for name in ("decay", "decay_epochs", "gradient_norm", "accumulation"):
            del settings[name]
        (old / phase / "config.json").write_text(json.dumps(stored))
    run = kg.load(old)
    assert run.config == trained.config
    scores = run.predict(galaxies / "unseen.h5")
    np.testing.assert_allclose(scores["llr"], trained.predict(galaxies / "unseen.h5")["llr"], atol=1e-3)
    assert np.all(scores["flag"] & 16) and any("does not say what it was trained on" in line
                                               for line in caplog.messages)
