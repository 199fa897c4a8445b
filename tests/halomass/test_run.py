"""A run in Python: trained, loaded, asked about paths, simulations and arrays, held against its domain."""

import json
import shutil

import astropy.units as u
import h5py
import harness
import numpy as np
import pytest
from astropy.cosmology.units import littleh
from astropy.table import Table

import kerasgal as kg
from kerasgal import tiling
from kerasgal.apps.halomass.run import HaloMass
from kerasgal.errors import DataError, DomainError, SettingError, UnseenError

TINY = {"preset": "demo", **harness.RECIPES["halomass"].settings, "padding": "same"}


@pytest.fixture(scope="module")
def run(trained):
    return kg.load(trained("halomass"))


@pytest.fixture(scope="module")
def final(boxes, tmp_path_factory):
    """A run that sees the final particles."""
    folder = tmp_path_factory.mktemp("runs") / "final"
    return HaloMass.train(boxes[:1], boxes[1:2], run=folder, input="final", **TINY)


def delta_of(path):
    with kg.Simulation(path) as simulation:
        return simulation.delta()


def changed(path, source, attributes=(), **scaled):
    """A copy of a Simulation file with other attributes, and datasets multiplied by numbers."""
    shutil.copy(source, path)
    with h5py.File(path, "r+") as file:
        file.attrs.update(attributes)
        for name, factor in scaled.items():
            file[name.replace("_", "/")][...] *= factor
    return path


def test_the_whole_road_in_python(run, boxes, tmp_path):
    again = kg.load(str(run.folder))
    assert isinstance(again, HaloMass) and "cells of 0.7812 Mpc/h" in repr(again)
    masses = again.predict(boxes[2], sample=50)
    with kg.Simulation(boxes[2]) as simulation:
        opened = again.predict(simulation, sample=50)
        mass = simulation["halos/mass"][...][simulation["halo_id"][...].ravel()[masses["particle"]]]
    with kg.Simulation(boxes[2]) as simulation:
        particle_mass = simulation.particle_mass
    array = again.predict(delta_of(boxes[2]), particles=masses["particle"], boxsize=25)
    np.testing.assert_array_equal(masses["log_mass"], opened["log_mass"])
    np.testing.assert_allclose(masses["log_mass"], array["log_mass"], atol=1e-6)
    np.testing.assert_allclose(masses["log_mass_true"], np.log10(mass), rtol=1e-6)
    assert np.isnan(array["log_mass_true"]).all() and mass.min() > particle_mass
    assert any("assumed" in note and "redshift" in note for note in array.notes) and not masses.notes
    table = masses.table
    assert table["mass"].unit == u.Msun / littleh
    np.testing.assert_allclose(np.log10(table["mass"].value), masses["log_mass"])
    for made in (masses, array):
        assert made.plot().axes and "50 particles" in repr(made)
    masses.save(tmp_path / "masses.h5")
    with h5py.File(tmp_path / "masses.h5") as file:
        np.testing.assert_array_equal(file["log_mass"], masses["log_mass"])
        assert file.attrs["boxsize"] == 25 and file.attrs["source"] == str(boxes[2])
    array.save(tmp_path / "array.ecsv")
    assert "assumed" in Table.read(tmp_path / "array.ecsv").meta["notes"]
    evaluation = again.evaluate(boxes[2], sample=500)
    assert list(evaluation["runs"]) == ["run"] and "mean" in repr(evaluation)
    evaluation.save(tmp_path / "evaluation")
    assert (tmp_path / "evaluation" / "violins.png").stat().st_size > 5000
    assert (again.export(tmp_path / "served") / "kerasgal.json").exists()


def test_the_map_of_an_array_is_that_of_its_simulation(run, boxes, tmp_path, monkeypatch):
    whole = run.predict(boxes[2], map=True)
    array = run.predict(delta_of(boxes[2]), map=True, boxsize=25)
    np.testing.assert_allclose(array["log_mass"], whole["log_mass"], atol=1e-6)
    assert whole["log_mass"].shape == (32, 32, 32) and len(whole.table) == 32**3
    written = run.predict(boxes[2], map=True, output=tmp_path / "map.h5")
    assert isinstance(written["log_mass"], h5py.Dataset) and repr(written) == repr(whole) and written.plot().axes
    np.testing.assert_array_equal(written.table["log_mass"], whole.table["log_mass"])
    with monkeypatch.context() as little:
        little.setattr(tiling, "free_memory", lambda: 2**20)
        np.testing.assert_allclose(run.predict(boxes[2], map=True)["log_mass"], whole["log_mass"], atol=1e-5)
    few = run.predict(boxes[2], sample=5, output=tmp_path / "few.h5")
    with h5py.File(tmp_path / "few.h5") as file:
        np.testing.assert_array_equal(file["log_mass"], few["log_mass"])
    assert whole.table["mass"].unit == u.Msun / littleh and whole.plot(layer=3).axes
    np.testing.assert_allclose(run.predict(boxes[2], particles=[0, 5])["log_mass"], whole["log_mass"].ravel()[[0, 5]],
                               atol=1e-5)


@pytest.mark.slow
def test_a_simulation_in_memory_is_known_again_when_it_was_trained_on(tmp_path):
    boxes = [kg.simulate(particles=16, boxsize=25, seed=seed) for seed in (1, 2, 3)]
    run = HaloMass.train(boxes[:2], run=tmp_path / "run", **{**TINY, "high": 15.0, "patch": 5, "convolutions": 2})
    for seen in boxes[:2]:
        with pytest.raises(UnseenError, match="was used in the training"):
            run.evaluate(seen)
    assert run.evaluate(boxes[2], sample=100)["particles"] == 100


def test_the_domain_has_what_the_network_sees(run, final, boxes):
    assert run.domain["cellsize"] == [25 / 32] * 2
    assert run.domain["deviation"] == pytest.approx([delta_of(boxes[0]).std()] * 2)
    assert final.domain["spacing"] == pytest.approx([25 / 32] * 2) and "cellsize" not in final.domain
    assert "particles 0.7812 Mpc/h apart" in repr(final)


@pytest.mark.parametrize("change, words", [
    ({"attributes": {"redshift_final": 1.0}}, "redshift 1, and the run was trained on redshift 0"),
    ({"attributes": {"redshift_initial": 49.0}}, "an initial density at redshift 49, and the run was trained on an "
                                                 "initial density at redshift"),
    ({"attributes": {"boxsize": 50.0}}, "cells of 1.562 Mpc/h, and the run was trained on cells of 0.7812 Mpc/h"),
    ({"initial_delta": 2.0}, "a density contrast with the standard deviation"),
])
def test_a_simulation_outside_of_the_domain_is_refused(change, words, run, boxes, tmp_path, invoke):
    other = changed(tmp_path / "other.h5", boxes[2], **change)
    for verb in ("predict", "evaluate"):
        output = tmp_path / ("out.h5" if verb == "predict" else "out")
        done = invoke("halomass", verb, run.folder, other, "--sample", 50, "--output", output, check=False)
        assert done.returncode == 1 and words in done.stderr and "--outside-domain" in done.stderr
        assert done.stderr.count("\n") == 1 and not output.exists()
        if verb == "evaluate" and "attributes" in change:  # one evaluation that goes on will do
            continue
        done = invoke("halomass", verb, run.folder, other, "--sample", 50, "--output", output, "--outside-domain")
        assert f"warning: outside the domain of the run: {other} has {words}" in done.stderr
    with h5py.File(tmp_path / "out.h5") as file:
        assert words in file.attrs["notes"]
    if "attributes" not in change:
        assert words in json.loads((tmp_path / "out" / "metrics.json").read_text())["notes"][0]


def test_a_run_of_final_particles_minds_their_spacing_and_no_initial_density(final, boxes, tmp_path):
    louder = changed(tmp_path / "louder.h5", boxes[2], {"redshift_initial": 49.0}, initial_delta=2.0)
    assert not final.predict(louder, sample=20).notes
    with pytest.raises(DomainError, match="particles 1.562 Mpc/h apart, and the run was trained on particles 0.7812"):
        final.predict(changed(tmp_path / "wide.h5", boxes[2], {"boxsize": 50.0}), sample=20)
    with pytest.raises(DomainError, match="redshift 2"):
        final.predict(changed(tmp_path / "early.h5", boxes[2], {"redshift_final": 2.0}), sample=20)
    with pytest.raises(DataError, match="final particles .*give a Simulation"):
        final.predict(delta_of(boxes[2]), particles=[1], boxsize=25)


def test_arrays_that_are_not_what_the_network_saw_are_refused(run, boxes):
    delta = delta_of(boxes[2])
    normalised = delta / delta.std()
    with pytest.raises(DomainError, match="standard deviation 1, and the run was trained on"):
        run.predict(normalised, particles=[1], boxsize=25)
    with pytest.raises(DomainError, match="redshift 49"):
        run.predict(delta, particles=[1], boxsize=25, redshift=49.0)
    with pytest.raises(DomainError, match="cells of 1.562"):
        run.predict(delta, map=True, boxsize=50)
    made = run.predict(normalised, particles=[1], boxsize=25, outside_domain=True)
    assert any("standard deviation 1" in note for note in made.notes)
    for array, message in ((delta[:, :, :16], "expected is a cube"), (delta + 1, "has the mean"),
                           (np.where(delta == delta.max(), np.nan, delta), "NaN or infinite")):
        with pytest.raises(DataError, match=message):
            run.predict(array, particles=[1], boxsize=25)


@pytest.mark.parametrize("arguments, message", [
    ({}, "an array has no haloes"), ({"sample": 5}, "an array has no haloes"),
    ({"particles": [1], "boxsize": None}, "`boxsize` is missing"),
    ({"particles": []}, "`particles` must be particle numbers"),
    ({"particles": [0.5]}, "`particles` must be particle numbers"),
    ({"particles": [1], "sample": 3}, "contradict each other"), ({"particles": [1], "map": True}, "contradict"),
    ({"sample": 0}, "sample=0: it must be a whole number of at least 1"), ({"particles": [1], "seed": -1}, "seed=-1"),
    ({"particles": [1], "precision": "float64"}, "precision='float64': accepted are float32"),
])
def test_arguments_that_are_not_accepted_are_named(arguments, message, run, boxes):
    with pytest.raises(SettingError, match=message):
        run.predict(delta_of(boxes[2]), **{"boxsize": 25, **arguments})


def test_particles_that_are_not_there_are_named(run, boxes):
    with pytest.raises(DataError, match="has no particle 32768: accepted are 0 to 32767") as caught:
        run.predict(boxes[2], particles=np.array([3, 32768]))
    assert caught.value.value == 32768 and caught.value.accepted == (0, 32767)
    with pytest.raises(DataError, match="train with padding=none"):
        HaloMass(run.Config(padding="same", patch=5, convolutions=2)).predict(boxes[2], map=True)


def test_a_run_folder_of_version_1_gives_the_same_numbers(run, boxes, tmp_path):
    old = shutil.copytree(run.folder, tmp_path / "old")
    document = json.loads((old / "config.json").read_text())
    new = ("decay", "decay_factor", "decay_epochs", "averaging", "accumulation")
    stored = {name: value for name, value in document["config"].items() if name not in new}
    (old / "config.json").write_text(json.dumps({"app": "halomass", "config": stored}))
    (old / "domain.json").unlink()
    loaded = kg.load(old)
    assert loaded.config == run.config and "what it does not say" in repr(loaded)
    made = loaded.predict(boxes[2], sample=30)
    np.testing.assert_array_equal(made["log_mass"], run.predict(boxes[2], sample=30)["log_mass"])
    assert "does not say what it was trained on" in made.notes[0]
