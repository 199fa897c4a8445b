"""morph from Python, as a notebook has it, and what lies outside of a run's domain."""

import json
import shutil

import h5py
import numpy as np
import pytest

import kerasgal as kg

pytest.importorskip("galsim")
pytestmark = pytest.mark.usefixtures("eager", "restored_once")


@pytest.fixture(scope="module")
def run(trained):
    return kg.load(trained("morph"))


def test_a_notebook_loads_scores_and_compares(run, galaxies, tmp_path):
    assert isinstance(run, kg.Morph) and run.unit == "counts" and run.domain["pixel_scale"] == [0.396, 0.396]
    scores = run.predict(galaxies / "unseen_real.h5", maps=True)
    with kg.open(galaxies / "unseen_real.h5") as images:
        pixels = images["image"][...]
        assert np.array_equal(run.score(images)["llr"], scores["llr"])
    same = run.predict(pixels, unit="counts", zero_point=run.zero_point, pixel_scale=0.396)
    np.testing.assert_allclose(same["llr"], scores["llr"], atol=1e-3)
    table = scores.table
    assert len(table) == 20 and not np.any(table["flag"] & 17) and scores["image"].shape == (20, 8, 8)
    assert len(scores.plot().axes) == 1
    scores.save(tmp_path / "scores.ecsv")
    evaluation = run.evaluate({"observed": galaxies / "unseen_real.h5", "smooth": galaxies / "unseen_archetypes.h5"})
    assert set(evaluation["sets"]) == {"observed", "smooth"} and "median LLR" in repr(evaluation)
    evaluation.save(tmp_path / "evaluation")
    assert (tmp_path / "evaluation" / "llr.png").exists()


def test_images_that_were_trained_on_are_no_test(run, galaxies, tmp_path):
    with pytest.raises(kg.UnseenError, match="was used in the training"):
        run.evaluate({"observed": galaxies / "unseen_real.h5", "again": str(galaxies / "real*.h5")})


def test_a_second_network_that_is_resumed_before_it_was_begun_begins_as_the_first(run, galaxies, tmp_path, monkeypatch):
    from kerasgal.apps.morph import train

    folder, begun = tmp_path / "run", {}
    shutil.copytree(run.folder / "real", folder / "real")
    place = folder / "real" / "provenance.json"
    stored = json.loads(place.read_text())
    stored["data"]["read_with"] = {"unit": "counts"}
    place.write_text(json.dumps(stored | {"weights_from": str(run.folder / "real")}))
    monkeypatch.setattr(train, "train_network", lambda stream, config, place, known, *, init, data, **options:
                        begun.update({place.name: (init, known, data.get("read_with"))}))
    kg.Morph.train(run=folder, archetypes=galaxies / "archetypes.h5", resume=True)
    known = json.loads((folder / "real" / "domain.json").read_text())
    # What the first was read with is told anew of the others
    assert begun == {"real": (None, known, {"unit": "counts"}), "archetype": (run.folder / "archetype", known, None)}
    kg.Morph.train(galaxies / "real.h5", archetypes=galaxies / "archetypes.h5", run=folder, overwrite=True,
                   masks=("a", "b"))
    assert begun == {"real": (None, {}, {"masks": ["a", "b"]}), "archetype": (None, known, {"masks": ["a", "b"]})}


def test_both_networks_see_images_in_one_unit(run, galaxies, tmp_path):
    from kerasgal.apps.morph import train
    from kerasgal.readers import images

    def loaded(known):
        return train.load(images.stream(galaxies / "real.h5"), run.config, known)

    own, described = loaded({})
    other, converted = loaded({"unit": ["nanomaggies"], "zero_point": [22.5, 22.5]})
    np.testing.assert_allclose(other[0], own[0] * 10**(0.4 * (22.5 - described[0]["zero_point"])), rtol=1e-5)
    assert converted[0]["unit"] == "nanomaggies"
    with pytest.raises(kg.DomainError, match="pixels of 0.396 arcsec, and the run was trained on pixels of 0.2 arcsec"):
        loaded({"pixel_scale": [0.2, 0.2]})
    folder = shutil.copytree(run.folder, tmp_path / "run")
    place = folder / "archetype" / "domain.json"
    place.write_text(json.dumps(json.loads(place.read_text()) | {"zero_point": [25.0, 25.0]}))
    with pytest.raises(kg.RunError, match="trained on images of another zero_point, 28.26 and 25"):
        kg.load(folder)


@pytest.mark.slow
def test_later_images_outside_the_domain_are_scored_or_counted(run, galaxies, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("kerasgal.apps.morph.run.PEEK", 4)
    other = shutil.copy(galaxies / "unseen_archetypes.h5", tmp_path / "other.h5")
    with h5py.File(other, "r+") as file:
        file.attrs["pixel_scale"] = 0.2
    images = [galaxies / "unseen_real.h5", other]
    assert list(run.predict(images)["error"] != "") == [False] * 20 + [True] * 20
    caplog.clear()
    assert not (run.predict(images, outside_domain=True)["error"] != "").any()
    assert "outside the domain of the run" in caplog.text
    found = run.evaluate({"observed": galaxies / "unseen_real.h5", "mixed": images})
    assert [entry["not_scored"] for entry in found["sets"].values()] == [0, 20]
    assert "20 of 40 images of mixed could not be scored and are left out: " in found["notes"][0]


def test_images_that_the_weights_saw_with_which_a_run_began_are_no_test(run, galaxies, tmp_path):
    folder = shutil.copytree(run.folder, tmp_path / "run")
    place = folder / "archetype" / "provenance.json"
    place.write_text(json.dumps(json.loads(place.read_text()) | {"seen_before": [str(galaxies / "unseen_real.h5")]}))
    with pytest.raises(kg.UnseenError, match="unseen_real.h5 was used in the training"):
        kg.load(folder).check_unseen([galaxies / "unseen_real.h5"])


def test_a_network_with_a_name_knows_the_images_that_it_was_trained_on(galaxies, tmp_path):
    network = kg.load("morph-demo")
    network.check_unseen([galaxies / "real.h5", galaxies / "archetypes.h5"])  # of another seed
    same = shutil.copy(galaxies / "real.h5", tmp_path / "same.h5")
    with h5py.File(same, "r+") as file:
        file.attrs["source"] = "kerasgal morph simulate: real, seed 1, galaxies 0 to 1999; made up"
    with pytest.raises(kg.UnseenError, match="same.h5 was used in the training of .*morph-demo"):
        network.check_unseen([galaxies / "real.h5", same])


def test_images_of_other_pixels_are_refused_and_nothing_is_written(run, galaxies, tmp_path, invoke):
    other = tmp_path / "other.h5"
    shutil.copy(galaxies / "unseen_real.h5", other)
    with h5py.File(other, "r+") as file:
        file.attrs["pixel_scale"] = 0.2
    output = tmp_path / "scores.csv"
    done = invoke("morph", "score", run.folder, other, "--output", output, check=False)
    line, = done.stderr.strip().splitlines()
    assert done.returncode == 1 and "pixels of 0.2 arcsec, and the run was trained on pixels of 0.396 arcsec" in line
    assert "--outside-domain" in line and list(tmp_path.iterdir()) == [other]
    done = invoke("morph", "score", run.folder, other, "--output", output, "--outside-domain")
    assert "warning: outside the domain of the run" in done.stderr and output.exists()
    notes = run.predict(other, outside_domain=True).table.meta["notes"]
    assert "pixels of 0.2 arcsec" in notes


def test_what_are_no_images_is_refused(run):
    for wrong, words in ((np.zeros((2, 2, 2, 2)), r"shape \(2, 2, 2, 2\) and the type float64: expected are numbers"),
                         (np.zeros((0, 8, 8)), r"shape \(0, 8, 8\)"), ([], "the list of paths is empty"),
                         (np.full((1, 4, 4), "a"), r"shape \(1, 4, 4\) and the type <U1")):
        with pytest.raises(kg.DataError, match=words):
            run.predict(wrong)
    with pytest.raises(kg.DataError, match="expected sets of images"):
        run.evaluate(["a.h5"])


@pytest.mark.slow  # those of protohalo, halomass and cascade are not
def test_a_run_of_version_1_scores_as_before_and_says_that_it_has_no_domain(run, galaxies, tmp_path, caplog):
    old = tmp_path / "old"
    shutil.copytree(run.folder, old)
    for phase in ("real", "archetype"):
        (old / phase / "domain.json").unlink()
        stored = json.loads((old / phase / "config.json").read_text())
        del stored["version"]
        settings = stored["config"]
        settings["step_decay"] = settings.pop("decay_factor")
        for name in ("decay", "decay_epochs", "gradient_norm", "accumulation", "likelihood", "rebin"):
            del settings[name]
        (old / phase / "config.json").write_text(json.dumps(stored))
    again = kg.load(old)
    assert again.config == run.config
    scores = again.predict(galaxies / "unseen_real.h5")
    np.testing.assert_allclose(scores["llr"], run.predict(galaxies / "unseen_real.h5")["llr"], atol=1e-3)
    assert np.all(scores["flag"] & 16) and any("does not say what it was trained on" in line
                                               for line in caplog.messages)
