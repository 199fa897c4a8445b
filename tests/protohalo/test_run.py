"""protohalo from Python, as a notebook has it, and the refusals that hold there and on the command line."""

import dataclasses
import json
import logging
import shutil

import h5py
import harness
import keras
import numpy as np
import pytest

import kerasgal as kg
from kerasgal.apps.protohalo import evaluate
from kerasgal.channels import initial_channels
from kerasgal.simulation import Simulation, write
from kerasgal.tiling import Mirrored

TINY = {"preset": "demo", **harness.RECIPES["protohalo"].settings}


@pytest.fixture(scope="module")
def run(trained):
    return kg.load(trained("protohalo"))


def test_a_notebook_loads_predicts_and_evaluates(trained, boxes, tmp_path, monkeypatch):
    run = kg.load(str(trained("protohalo")))
    assert isinstance(run, kg.Protohalo) and run.history[0]["epoch"] == 1
    assert len(repr(run).splitlines()) == 3 and "cells of 0.7812 Mpc/h" in repr(run)
    with Simulation(boxes[2]) as box:
        haloes = run.predict(box)
        from_array = run.predict(box.delta() * 7, boxsize=25)  # of any amplitude: it is normalised
    from_path = run.predict(boxes[2])
    for other in (from_array, from_path):
        np.testing.assert_array_equal(other.halo_id, haloes.halo_id)
    assert any("assumed" in note for note in from_array.notes) and not from_path.notes
    np.testing.assert_allclose(from_array["halos/mass"], haloes["halos/mass"], rtol=1e-6)
    table = haloes.table
    assert len(table) and table["mass"].unit.to_string() == "solMass / littleh" and table.meta["boxsize"] == 25
    assert len(haloes.plot().axes) == 3
    haloes.save(tmp_path / "haloes.h5")
    with kg.open(tmp_path / "haloes.h5") as file:
        assert file.header["app"] == "protohalo" and "halos/mass" in file.keys()
        np.testing.assert_array_equal(file["distance"][...], haloes.distance)
    measured, measure = [], evaluate.measure
    monkeypatch.setattr(evaluate, "measure", lambda task: measured.append(measure(task)) or measured[-1])
    evaluation = run.evaluate(boxes[2])
    assert evaluation["loss"] == evaluation.metrics["loss"] > 0
    assert evaluation["clustering"]["boxes"] == 1
    other = dataclasses.replace(measured[0], spectra={**measured[0].spectra, "k": 2 * measured[0].spectra["k"]})
    monkeypatch.setattr(evaluate, "measure", lambda task: [measured[0], other][task[1] == boxes[1]])
    monkeypatch.setattr(kg.Protohalo, "check_unseen", lambda self, sources: None)
    of_two = run.evaluate([boxes[2], boxes[1]])
    assert "clustering" not in of_two.metrics and len(of_two["loss_per_simulation"]) == 2
    assert "how haloes cluster is left out: the boxes differ in side or grid" in of_two["notes"]
    evaluation.save(tmp_path / "evaluation")
    assert json.loads((tmp_path / "evaluation" / "metrics.json").read_text()) == evaluation.metrics
    assert {path.stem for path in (tmp_path / "evaluation").glob("*.png")} == set(evaluation.figures())
    # Panels of the training beside those of the unseen box; those of trajectories have a colour bar each
    assert [len(evaluation.figures()[name].axes) for name in ("cell_masses", "trajectories")] == [4, 4]
    assert (run.export(tmp_path / "served") / "kerasgal.json").exists()
    assert "trainable parameters" in run.summary()


def test_a_simulation_in_memory_is_trained_on_and_then_no_test(tmp_path):
    made = [kg.simulate(particles=32, boxsize=25, seed=seed) for seed in (1, 2)]
    run = kg.train("protohalo", made[0], run=tmp_path / "run", **{**TINY, "steps_per_epoch": 1})
    with pytest.raises(kg.UnseenError, match="seed 1.* was used in the training"):
        run.evaluate(made[0])
    assert run.evaluate(made[1])["haloes"]["true"] > 0


def test_a_massive_halo_of_few_cells_does_not_move_the_others_in_the_tables(trained, boxes, tmp_path):
    """As in catalogues whose mass is not that of the counted particles: rows go by mass, what is judged by cells."""
    run = kg.load(trained("protohalo"))
    run.config = dataclasses.replace(run.config, minimum=60)
    other = shutil.copy(boxes[2], tmp_path / "other.h5")
    with h5py.File(other, "r+") as file:
        few = np.flatnonzero(file["halos/count"][...] < run.config.minimum)[0]
        order = np.r_[few, np.delete(np.arange(len(file["halos/count"])), few)]
        for values in file["halos"].values():
            values[...] = values[...][order]
        file["halos/mass"][0] = 2 * file["halos/mass"][1]
        halo_id = file["halo_id"][...]
        file["halo_id"][...] = np.append(np.argsort(order), -1)[halo_id]
    expected, found = (run.evaluate(path).metrics for path in (boxes[2], other))
    assert few > 3 and expected["adaptive"]["objects"]["pairs"] > 0 and expected["worst_cases"]
    for row in (*expected["worst_cases"], *found["worst_cases"]):
        row.pop("simulation")
    assert [row.pop("halo") - 1 for row in found["worst_cases"]] == [row.pop("halo") for row in expected["worst_cases"]]
    expected["simulations"] = found["simulations"]
    assert json.dumps(found) == json.dumps(expected)


def test_a_run_whose_training_was_stopped_says_so(trained, boxes, tmp_path, caplog):
    folder = shutil.copytree(trained("protohalo"), tmp_path / "run")
    assert kg.load(folder).check_domain(boxes[2]) == []
    place = folder / "config.json"
    stored = json.loads(place.read_text())
    stored["config"]["epochs"] = 100
    place.write_text(json.dumps(stored))
    note, = kg.load(folder).check_domain(boxes[2])
    assert "was trained for 2 of 100 epochs: its training was stopped" in note and note in caplog.text


def test_what_a_resumed_training_cannot_go_on_with_is_refused(trained, boxes, tmp_path):
    folder = shutil.copytree(trained("protohalo"), tmp_path / "run")
    with pytest.raises(kg.SettingError, match="goes on with those of the run: leave `validation` out"):
        kg.Protohalo.train(run=folder, resume=True, validation=boxes[2])
    for spoil in (lambda place: place.write_text('{"data": {}}'), lambda place: place.unlink()):
        spoil(folder / "provenance.json")
        with pytest.raises(kg.RunError, match="does not say what it was trained on"):
            kg.Protohalo.train(run=folder, resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_training_that_goes_on_has_no_line_of_before_and_a_refused_one_keeps_it(trained, tmp_path, monkeypatch):
    folder = shutil.copytree(trained("protohalo"), tmp_path / "run")
    with pytest.raises(kg.RunError, match="was trained with another filters"):
        kg.Protohalo.train(run=folder, resume=True, filters=5)
    last = (folder / "last.weights.h5").rename(tmp_path / "last.weights.h5")
    with pytest.raises(kg.RunError, match="has no last.weights.h5"):
        kg.Protohalo.train(run=folder, resume=True, depth=0)
    last.rename(folder / last.name)
    assert (folder / "calibration.json").exists() and (folder / "training_figures.json").exists()
    monkeypatch.setattr("kerasgal.apps.protohalo.train.calibrate", lambda *given: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        kg.Protohalo.train(run=folder, resume=True, smoothing=1.0)
    with pytest.raises(kg.RunError, match="has no calibration.json: its training did not come to an end"):
        kg.load(folder)


def test_a_run_with_channels_trains_predicts_and_exports(boxes, tmp_path, eager):
    settings = {**TINY, "channels": "density,displacement,tide", "mirrored": True, "epochs": 1, "steps_per_epoch": 3}
    run = kg.train("protohalo", boxes[:1], run=tmp_path / "run", **settings)
    with Simulation(boxes[0]) as box:
        delta, boxsize = box.delta() / box.delta().std(), box.boxsize
    # What the channels are divided by: one number for a vector, and none for the density
    displacement, tide = (initial_channels(delta, boxsize, [name]) for name in ("displacement", "tide"))
    expected = [1, *[np.sqrt(np.mean(displacement**2))] * 3, *np.sqrt(np.mean(tide**2, axis=(0, 1, 2)))]
    stored = np.asarray(kg.load(tmp_path / "run").network.get_layer("scaled").deviation)
    np.testing.assert_allclose(stored, expected, rtol=1e-4)
    whole = run.predict(boxes[2])
    np.testing.assert_allclose(run.predict(boxes[2], tile=56, context=12).distance, whole.distance, atol=1e-4)
    described = json.loads((run.export(tmp_path / "served") / "kerasgal.json").read_text())
    assert "tidal invariants" in described["input"] and "first-order displacement" in described["input"]
    assert run.network.input_shape[-1] == 6
    # What is seen in all mirrors is the same in a mirror, and what leaves the folder sees them all, too.
    mirrored = run.predict(delta[:, ::-1], boxsize=boxsize).distance
    np.testing.assert_allclose(mirrored, run.predict(delta, boxsize=boxsize).distance[:, ::-1], atol=1e-5)
    seen = np.random.default_rng(0).normal(size=(1, 16, 16, 16, 6)).astype(np.float32)
    served, alone = run.served()[0], run.network
    np.testing.assert_allclose(served(seen), Mirrored(alone, 1).predict_on_batch(seen), atol=1e-5)
    assert np.abs(served(seen) - alone(seen)).max() > 1e-3


def noise(mean=0.0):
    delta = np.random.default_rng(0).normal(size=(32, 32, 32))
    return delta - delta.mean() + mean


@pytest.mark.parametrize("delta, options, message", [
    (np.full((32, 32, 32), np.nan), {"boxsize": 25}, "32768 values that are NaN"),
    (np.zeros((32, 32, 32, 1)), {"boxsize": 25}, r"shape \(32, 32, 32, 1\): expected is a cube"),
    (np.zeros((30, 32, 32)), {"boxsize": 25}, r"shape \(30, 32, 32\): expected is a cube"),
    (np.zeros((0, 0, 0)), {"boxsize": 25}, r"shape \(0, 0, 0\)"),
    (np.full((4, 4, 4), "a"), {"boxsize": 25}, "of type <U1: expected are numbers"),
    (np.zeros((32, 32, 32)), {"boxsize": 25}, "zero everywhere"),
    (noise(mean=1.0), {"boxsize": 25}, "has the mean 1: expected is a density contrast"),
    (noise(), {}, "`boxsize` is missing"),
    (noise(), {"boxsize": -1}, "boxsize=-1: it must be a positive number"),
    (noise(), {"boxsize": 50}, "cells of 1.562 Mpc/h, and the run was trained on cells of 0.7812 Mpc/h"),
    (noise(), {"boxsize": 25, "watershed": "deep"}, "watershed='deep': accepted are adaptive, native"),
    (None, {}, "expected a path, a Simulation or an array, received None"),
])
def test_arrays_that_cannot_be_right_are_refused(run, delta, options, message):
    with pytest.raises(kg.DataError, match=message):
        run.predict(delta, **options)


def test_a_box_of_other_cells_is_refused_and_nothing_is_written(run, tmp_path, invoke):
    kg.simulate(tmp_path / "wide.h5", particles=16, boxsize=25, seed=3).close()
    output = tmp_path / "out.h5"
    for verb in ("predict", "evaluate"):
        done = invoke("protohalo", verb, run.folder, tmp_path / "wide.h5", "--output", output, check=False)
        assert done.returncode == 1 and not output.exists()
        line, = done.stderr.strip().splitlines()
        assert "has cells of 1.562 Mpc/h, and the run was trained on cells of 0.7812 Mpc/h" in line
        assert "--outside-domain" in line
    done = invoke("protohalo", "predict", run.folder, tmp_path / "wide.h5", "--output", output, "--outside-domain")
    assert "warning: outside the domain of the run" in done.stderr
    with h5py.File(output) as file:
        assert "cells of 1.562 Mpc/h" in file.attrs["notes"]


def test_haloes_end_at_the_redshift_of_their_box_as_far_as_it_was_trained_on(trained, boxes):
    run = kg.load(trained("protohalo"))
    with Simulation(boxes[2]) as box:
        for trained_on, expected in (((0.0, 0.0), 0.0), ((0.0, 1.0), 0.0), ((0.5, 1.0), 0.5)):
            run.domain["redshift_final"] = list(trained_on)
            assert run.times(box)[2] == expected


def test_another_redshift_is_refused_and_another_cosmology_noted(run, boxes, tmp_path, caplog):
    for name, change in (("early", {"redshift_final": 1.0}), ("other", {})):
        with Simulation(boxes[2]) as box:
            cosmology = kg.Cosmology(Om0=0.2) if name == "other" else box.cosmology
            write(tmp_path / f"{name}.h5", boxsize=box.boxsize, cosmology=cosmology, source="test",
                  **{"redshift_initial": 19, "redshift_final": 0, "particle_mass": box.particle_mass, **change},
                  datasets={"initial/delta": box.delta()})
    with pytest.raises(kg.DomainError, match="has redshift 1, and the run was trained on redshift 0"):
        run.predict(tmp_path / "early.h5")
    with caplog.at_level(logging.WARNING):
        notes = run.predict(tmp_path / "other.h5").notes
    said = [record.message for record in caplog.records if record.name.startswith("kerasgal")]
    assert "has Om0 = 0.2, and the run was trained on Om0 = 0.3111" in notes[0] and said == notes
    with h5py.File(tmp_path / "other.h5", "r+") as file:
        file.attrs["finder"] = "rockstar"
    assert "has haloes of the finder rockstar, and the run was trained on haloes of the finder fof" in \
        run.check_domain(tmp_path / "other.h5")[1]


def test_a_run_folder_of_version_1_loads_and_says_that_it_has_no_domain(run, boxes, tmp_path, caplog):
    old = tmp_path / "old"
    shutil.copytree(run.folder, old)
    (old / "domain.json").unlink()
    stored = json.loads((old / "config.json").read_text())
    del stored["version"]
    for name in ("decay_factor", "decay_epochs", "averaging", "accumulation"):
        del stored["config"][name]
    (old / "config.json").write_text(json.dumps(stored))
    again = kg.load(old)
    assert again.config == run.config
    with caplog.at_level(logging.WARNING):
        haloes = [again.predict(boxes[2]) for _ in range(2)]
    said, = (record.message for record in caplog.records if record.name.startswith("kerasgal"))
    assert "does not say what it was trained on" in said
    np.testing.assert_array_equal(haloes[0].halo_id, run.predict(boxes[2]).halo_id)


def test_settings_that_a_run_folder_is_older_than_are_what_they_were(run, tmp_path):
    old = tmp_path / "old"
    shutil.copytree(run.folder, old)
    stored = json.loads((old / "config.json").read_text())
    for name in ("arrangement", "normalisation", "flooded", "volume"):
        del stored["config"][name]
    for version in (1, 2):
        (old / "config.json").write_text(json.dumps({**stored, "version": version}))
        again = kg.load(old)
        assert (again.config.arrangement, again.config.normalisation) == ("inner", "batch")
        assert (again.config.flooded, again.config.volume) == ("smoothed", "current")
        activations = [layer for layer in again.network.layers if isinstance(layer, keras.layers.LeakyReLU)]
        assert len(activations) == 6 * run.config.levels and again.network.count_params() == run.network.count_params()
    assert (run.config.arrangement, run.config.flooded, run.config.volume) == ("paper", "map", "native")


def test_several_boxes_are_predicted_in_one_command_and_one_that_fails_does_not_stop_it(run, boxes, tmp_path,
                                                                                         invoke):
    (tmp_path / "bad.h5").write_text("no")
    done = invoke("protohalo", "predict", run.folder, boxes[2], tmp_path / "bad.h5", boxes[1], "--output",
                  tmp_path / "out", check=False)
    assert done.returncode == 1 and "1 of 3 inputs failed" in done.stderr and "is not an HDF5 file" in done.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["box_1_protohalo.h5", "box_2_protohalo.h5"]


def test_old_spellings_work_and_say_the_new_one(run, boxes, tmp_path, invoke):
    done = invoke("protohalo", "predict", run.folder, boxes[2], "--halo", 8, "--output", tmp_path / "a.h5")
    assert "--halo is an old spelling: write --context" in done.stderr
    done = invoke("protohalo", "evaluate", run.folder, "--simulation", boxes[2], "--output", tmp_path / "b")
    assert f"write main protohalo evaluate {run.folder} {boxes[2]}" in done.stderr
    done = invoke("protohalo", "export", run.folder, tmp_path / "c")
    assert f"write --output {tmp_path / 'c'}" in done.stderr and (tmp_path / "c" / "kerasgal.json").exists()
