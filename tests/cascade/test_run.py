"""Both kinds of run through Python: trained, loaded, asked, judged, exported; and what they refuse to answer."""

import dataclasses
import json
import shutil

import h5py
import harness
import numpy as np
import pytest
from astropy.table import Table

import kerasgal as kg
from kerasgal import run_folder, tiling
from kerasgal.apps.cascade import data, evaluate, predict, scatter, train
from kerasgal.apps.cascade.scatter import Scatter
from kerasgal.errors import DataError, DomainError, RunError, SettingError, UnseenError
from kerasgal.grid import density_contrast
from kerasgal.scratch import Store
from kerasgal.tables import unit

pytestmark = pytest.mark.usefixtures("eager", "restored_once")

TINY = {"preset": "demo", **harness.RECIPES["cascade"].settings}


@pytest.fixture(scope="module")
def cascade(trained):
    return kg.load(trained("cascade"))


@pytest.fixture(scope="module")
def diffusion(trained):
    return kg.load(trained("cascade diffusion"))


def contrast(path):
    with kg.Simulation(path) as simulation:
        return density_contrast(simulation["final/position"][...], 32, simulation.boxsize)


def changed(path, place, **attributes):
    """A copy of a simulation with other attributes."""
    shutil.copy(path, place)
    with h5py.File(place, "r+") as file:
        file.attrs.update(attributes)
    return place


@pytest.fixture(scope="module")
def sparse(painted, tmp_path_factory):
    """A simulation with every 64th of its particles."""
    place = changed(painted[2], tmp_path_factory.mktemp("sparse") / "sparse.h5")
    with h5py.File(place, "r+") as file:
        position = file["final/position"][::64]
        del file["final/position"], file["final/velocity"]
        file["final/position"] = position
    return place


def test_a_run_sees_the_density_by_the_deposit_that_it_was_trained_with(cascade, painted):
    config = dataclasses.replace(cascade.config, deposit="tsc")
    run = kg.Cascade(config, cascade.networks, folder=cascade.folder, domain=cascade.domain)
    with kg.Simulation(painted[2]) as simulation:
        clouds = density_contrast(simulation["final/position"][...], 32, simulation.boxsize, "tsc")
    found = run.predict(painted[2])["probability"]
    np.testing.assert_allclose(found, cascade.predict(clouds, boxsize=12.5, redshift=0.0)["probability"], atol=1e-5)
    assert np.abs(found - cascade.predict(painted[2])["probability"]).max() > 1e-3
    with pytest.raises(DataError, match="different ways of putting particles on a grid cannot be compared"):
        run.evaluate(painted[2], compare=kg.Cascade(cascade.config, cascade.networks))


def test_boxes_of_two_sizes_are_not_averaged(cascade, painted, monkeypatch):
    sizes = iter([(12.5, 32), (12.5, 16)])
    monkeypatch.setattr(evaluate, "measure_one", lambda task: (None, {}, [], next(sizes), [], None))
    monkeypatch.setattr(kg.Cascade, "unseen", lambda self, source, margin: None)
    with pytest.raises(DataError, match="box_1.h5: all simulations must have one box size and grid to be averaged"):
        evaluate.evaluate(cascade, [painted[0], painted[1]], bars=evaluate.Bars({}))


def test_a_cascade_from_training_to_evaluation(cascade, painted, tmp_path):
    run = kg.load(str(cascade.folder))
    assert type(run) is kg.Cascade and run.config == cascade.config
    assert {row["phase"] for row in run.history} == {"classify", "regress"} and "dark matter" in repr(run)
    galaxies = run.predict(painted[2], catalogue=True, seed=3)
    assert galaxies.header["seed"] == 3 and "parameters" not in galaxies.header
    with kg.Simulation(painted[2]) as simulation:
        np.testing.assert_array_equal(run.predict(simulation)["count"], galaxies["count"])
    given = run.predict(contrast(painted[2]), boxsize=12.5, redshift=0.0)
    np.testing.assert_allclose(given["count"], galaxies["count"], atol=1e-5)
    assert any("cosmology of the training" in note for note in given.notes)
    rounded = run.predict(painted[2], round=True)
    np.testing.assert_array_equal(rounded["count"], np.rint(galaxies["count"]))
    assert "their sum is not the expected number of galaxies" in rounded.notes[0] and "seed" not in rounded.header
    with pytest.raises(kg.SettingError, match="contradict each other"):
        run.predict(painted[2], round=True, catalogue=True)
    galaxies.save(tmp_path / "out.h5")
    galaxies.save(tmp_path / "out.ecsv")
    with h5py.File(tmp_path / "out.h5") as file:
        np.testing.assert_array_equal(file["galaxies/position"], galaxies["galaxies/position"])
        assert file.attrs["app"] == "cascade" and file.attrs["boxsize"] == 12.5 and "notes" not in file.attrs
    assert len(Table.read(tmp_path / "out.ecsv", format="ascii.basic")) == len(galaxies["galaxies/position"])
    assert galaxies.table["x"].unit == unit("Mpc/h")
    cells = run.predict(painted[2]).table
    assert len(cells) == np.count_nonzero(galaxies["count"])
    assert np.sum(cells["count"]) == pytest.approx(galaxies["count"].sum(), rel=1e-5)
    place = tuple(np.floor(cells[axis].value / 12.5 * 32).astype(int) for axis in "xyz")
    np.testing.assert_array_equal(galaxies["count"][place], cells["count"])
    assert len(galaxies.plot(layer=0).axes) == 4


def test_a_diffusion_from_training_to_evaluation(diffusion, cascade, painted, tmp_path):
    run = kg.load(diffusion.folder)
    assert type(run) is kg.Diffusion and run.domain["density_of"] == ["dark matter"]
    assert run.network.calibration.gammas[0] == run.config.gamma_max  # measured when the training ended
    options = {"draws": 2, "steps": 2, "sampler": "deterministic"}
    draws = run.predict(painted[2], **options)
    assert draws["count"].shape == (4, 2, 32, 32) and draws.header["axis"] == "z"
    assert draws.header["depth"] == run.config.depth == 8 and draws.notes == []
    with kg.Simulation(painted[2]) as simulation:
        np.testing.assert_array_equal(run.predict(simulation, **options)["count"], draws["count"])
    given = run.predict(contrast(painted[2]), boxsize=12.5, **options)
    assert np.mean(given["count"] == draws["count"]) > 0.99 and len(given.notes) == 3
    table = draws.table
    assert list(table.colnames) == ["map", "draw", "galaxies"] and len(table) == 8
    assert table["galaxies"][5] == draws["count"][2, 1].sum() and table["map"][5] == 2
    draws.save(tmp_path / "out.h5")
    with h5py.File(tmp_path / "out.h5") as file:
        assert file.attrs["axis"] == "z" and file.attrs["sampler"] == "deterministic"
    assert len(draws.plot().axes) == 4  # two maps and the bars of their colours
    judged = run.evaluate([painted[2]], regressor=cascade.folder, draws=2, steps=1, maps=1)
    assert list(judged["runs"]) == ["run"] and set(judged.figures()) == {"draws", "power_spectrum", "ranks"}
    shutil.copytree(diffusion.folder, tmp_path / "older")
    (tmp_path / "older" / "calibration.json").unlink()
    older = kg.load(tmp_path / "older").predict(painted[2], **options)
    assert "did not measure what its estimates stand for" in repr(older)
    for wrong, words in (({"steps": 0}, "steps=0: it must be a whole number of at least 1"),
                         ({"draws": 1.5}, "draws=1.5: it must be a whole number of at least 1"),
                         ({"sampler": "quick"}, "sampler='quick': accepted are ancestral"),
                         ({"axis": "xy"}, "axis='xy': accepted are x, y, z"),
                         ({"parameters": {"Om0": 0.3}}, "was not trained with Om0")):
        with pytest.raises(SettingError, match=words):
            run.predict(painted[2], **wrong)


@pytest.mark.slow
def test_several_simulations_are_not_split_by_volume(painted, tmp_path):
    with pytest.raises(SettingError, match="with 2 simulations: a single one is split by volume"):
        kg.Cascade.train(painted[:2], [], run=tmp_path / "run", **TINY)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_phase_1_alone_is_a_run_that_cannot_predict_yet(painted, tmp_path):
    first = kg.train("cascade", painted[:2], run=tmp_path / "run", phase="classify", **TINY)
    assert first.phases == ("classify",) and {row["phase"] for row in first.history} == {"classify"}
    for call in (lambda: first.predict(painted[2]), lambda: kg.load(tmp_path / "run")):
        with pytest.raises(RunError, match="has phase 1 only"):
            call()
    with pytest.raises(kg.SettingError, match="`validation` goes with simulations to train on"):
        kg.Cascade.train(run=tmp_path / "run", phase="regress", validation=tmp_path / "other.h5")
    run = kg.Cascade.train(run=tmp_path / "run", phase="regress")  # the folder knows the rest
    assert run.predict(painted[2])["count"].shape == (32, 32, 32)
    for wrong, words in (({"phase": "third"}, "phase='third': accepted are both, classify, regress"),
                         ({"sweep": {"w3": [1]}}, r"`sweep` of w3 over \[1\]: accepted are w1=... and w2=..."),
                         ({"sweep": {"w1": [-1]}}, r"`sweep` of w1 over \[-1\]: .* numbers of at least 0"),
                         ({"sweep": {"w1": [1]}, "phase": "classify"}, "goes with neither `phase` nor `resume`"),
                         ({"filters": 3}, "filters=3 is odd: the last block of the R2U-Net has half as many")):
        with pytest.raises(SettingError, match=words):
            kg.train("cascade", painted[:2], run=tmp_path / "none", **{**TINY, **wrong})
    with pytest.raises(SettingError, match="strategy=workers trains one phase at a time: give phase='classify'"):
        train.fit(kg.Cascade, painted[:2], None, harness.config_of("cascade", strategy="workers"), tmp_path / "none",
                  store=None)
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_training_starts_from_the_weights_of_another_run(cascade, painted, tmp_path):
    settings = {**TINY, "learning_rate": 1e-9}
    run = kg.train("cascade", painted[0], painted[1], run=tmp_path / "run", init=cascade.folder, **settings)
    for phase in ("classify", "regress"):
        for new, old in zip(run.networks[phase].trainable_weights, cascade.networks[phase].trainable_weights):
            np.testing.assert_allclose(new, old, atol=1e-6)


def test_a_phase_2_that_is_resumed_before_it_was_begun_begins_as_phase_1_did(cascade, tmp_path, monkeypatch):
    folder, begun = tmp_path / "run", {}
    shutil.copytree(cascade.folder / "classify", folder / "classify")
    place = folder / "classify" / "provenance.json"
    place.write_text(json.dumps(json.loads(place.read_text()) | {"weights_from": str(cascade.folder / "classify")}))
    monkeypatch.setattr(train, "train_phase", lambda phase, *given, init, **options: begun.update({phase: init}))
    nothing = train.Boxes([], [], [])
    train.fit_phases(kg.Cascade, (nothing, nothing), cascade.config, folder, "both", store=Store(None, folder),
                     resume=True)
    assert begun == {"classify": None, "regress": cascade.folder / "regress"}  # phase 1 knows where it began


def test_a_phase_1_that_goes_on_to_other_weights_has_phase_2_begin_anew(cascade, tmp_path, monkeypatch, caplog):
    folder, begun, better = shutil.copytree(cascade.folder, tmp_path / "run"), [], False

    def train_phase(phase, *given, resume, **options):
        begun.append((phase, resume))
        if better and phase == "classify":
            row = run_folder.read_history(folder / phase)[-1]
            run_folder.write_history([row, {**row, "epoch": 9, "val_loss": row["val_loss"] - 1}], folder / phase)

    monkeypatch.setattr(train, "train_phase", train_phase)
    nothing = train.Boxes([], [], [])
    for better in (False, True):
        train.fit_phases(kg.Cascade, (nothing, nothing), cascade.config, folder, "both", store=Store(None, folder),
                         resume=True)
    assert begun == [("classify", True), ("regress", True), ("classify", True), ("regress", False)]
    assert "phase 2, trained on those, begins anew" in caplog.text and not (folder / "regress").exists()


def test_a_sweep_over_an_earlier_one_has_a_phase_1_of_its_own(tmp_path, monkeypatch):
    def fit_phases(cls, boxes, weights, place, phase, **options):
        for name in ("classify", "regress") if phase == "both" else ("regress",):
            (place / name).mkdir(parents=True, exist_ok=True)
            (place / name / "sweep").write_text(str(number))

    monkeypatch.setattr(train, "fit_phases", fit_phases)
    monkeypatch.setattr(train, "validation_error", lambda run, boxes: 1.0)
    monkeypatch.setattr(kg.Cascade, "load", lambda place: None)
    for number in (1, 2):
        train.fit_sweep(kg.Cascade, (None, None), kg.Cascade.configure(preset="demo"), tmp_path, {"w2": [1.0, 1.05]},
                        store=None, overwrite=True)
    assert {path.read_text() for path in tmp_path.glob("sweep/*/classify/sweep")} == {"2"}


def test_the_test_cube_of_a_run_that_began_from_another_is_unseen_if_that_saw_another_box(cascade, painted, tmp_path):
    folder = shutil.copytree(cascade.folder, tmp_path / "run")
    name = str(painted[2].resolve())

    def seen(before):
        for phase in cascade.phases:
            place = folder / phase / "provenance.json"
            place.write_text(json.dumps(json.loads(place.read_text()) | {
                "data": {"training": [name], "validation": []}, "seen_before": before}))
        return kg.load(folder)

    corner = data.test_corner(32, cascade.config.patch)
    assert seen([str(painted[0])]).unseen(painted[2], 32) == (slice(corner, None),) * 3
    with pytest.raises(UnseenError):
        seen([name]).unseen(painted[2], 32)


def test_a_refused_training_leaves_the_calibration(diffusion, tmp_path):
    folder = shutil.copytree(diffusion.folder, tmp_path / "run")
    (folder / "calibration.json").write_text("{}")
    with pytest.raises(RunError, match="was trained with another filters"):
        kg.Diffusion.train(run=folder, resume=True, filters=12)
    assert (folder / "calibration.json").exists()


def test_a_phase_2_that_goes_on_has_no_scatter_of_before(cascade, tmp_path, monkeypatch):
    folder = shutil.copytree(cascade.folder, tmp_path / "run")
    assert kg.load(folder).unmeasured() == []

    def stopped(build, dataset, validation, config, place, *, stale, app, **options):
        run_folder.open_folder(place, config, app, True, None, stale)

    monkeypatch.setattr(train.training, "train", stopped)
    nothing = train.Boxes([], [], [])
    train.train_phase("regress", nothing, nothing, ([], []), cascade.config, folder)
    assert "did not measure how galaxies scatter" in kg.load(folder).unmeasured()[0]


def test_maps_without_galaxies_are_no_test_of_draws(diffusion, painted, tmp_path):
    from kerasgal.apps.cascade.diffusion import evaluate

    empty = shutil.copy(painted[2], tmp_path / "empty.h5")
    with h5py.File(empty, "r+") as file:
        file["galaxies/position"][:, 2] = 0.99 * file.attrs["boxsize"]
    with pytest.raises(DataError, match="its 1 maps hold no galaxy that draws could be held against: give more `maps`"):
        evaluate.collect(diffusion, empty, 1, {"steps": 1, "seed": 0}, most=1)


@pytest.mark.parametrize("kind", ["cascade", "diffusion"])
def test_what_is_not_like_the_training_is_refused(kind, request, painted, sparse, tmp_path):
    run = request.getfixturevalue(kind)
    options = {"draws": 1, "steps": 1} if kind == "diffusion" else {}
    stars = changed(painted[2], tmp_path / "stars.h5", density_of="stars")
    early = changed(painted[2], tmp_path / "early.h5", redshift_final=1.0)
    for source, words in ((stars, ("a density of stars", "a density of dark matter")),
                          (early, ("redshift 1", "redshift 0")),
                          (sparse, ("0.01562 particles per cell", "1 particles per cell"))):
        for ask in (run.predict, run.evaluate):
            with pytest.raises(DomainError) as raised:
                ask(source, **(options if ask == run.predict else {}))
            assert all(word in str(raised.value) for word in words) and "\n" not in str(raised.value)
    made = run.predict(stars, outside_domain=True, **options)
    assert made.notes == [f"outside the domain of the run: {stars} has a density of stars, and the run was trained on "
                          "a density of dark matter"]
    silent = changed(painted[2], tmp_path / "silent.h5")
    with h5py.File(silent, "r+") as file:  # as files were before they said it
        del file.attrs["density_of"]
    assert run.predict(silent, **options).notes == [
        f"{silent} does not say what its density is of: taken for dark matter"]
    with pytest.raises(UnseenError):
        run.evaluate(painted[0])
    with pytest.raises(kg.DataError, match="NaN"):
        run.predict(np.full((32, 32, 32), np.nan), boxsize=12.5)
    with pytest.raises(kg.DataError, match="cells of 0.390625 Mpc/h make 64 a side"):
        run.predict(contrast(painted[2]), boxsize=25.0)


@pytest.mark.parametrize("kind", ["cascade", "diffusion"])
def test_outside_the_domain_on_the_command_line(kind, request, sparse, tmp_path, invoke):
    run = request.getfixturevalue(kind)
    command = ["cascade", "predict"] if kind == "cascade" else ["cascade", "diffusion", "predict"]
    options = ["--draws", 1, "--steps", 1] if kind == "diffusion" else []
    output = tmp_path / "out.h5"
    done = invoke(*command, run.folder, sparse, *options, "--output", output, check=False)
    assert done.returncode == 1 and not output.exists() and len(done.stderr.splitlines()) == 1
    assert "particles per cell" in done.stderr and "--outside-domain" in done.stderr
    done = invoke(*command, run.folder, sparse, *options, "--output", output, "--outside-domain")
    assert "warning: " in done.stderr
    with h5py.File(output) as file:
        assert "outside the domain of the run" in file.attrs["notes"]


def test_a_run_that_does_not_know_its_domain_refuses_sparse_particles_too(cascade, sparse, tmp_path):
    folder = tmp_path / "old"
    shutil.copytree(cascade.folder, folder)
    for phase in ("classify", "regress"):
        (folder / phase / "domain.json").unlink()
    run = kg.load(folder)
    with pytest.raises(DomainError, match="0.0156 particles for each cell"):
        run.predict(sparse)
    assert any("0.0156 particles for each cell" in note for note in run.predict(sparse, outside_domain=True).notes)


def test_a_file_that_is_written_as_the_box_is_predicted_is_that_of_the_box_in_memory(cascade, painted, tmp_path):
    kept = cascade.predict(painted[2], catalogue=True, tile=32)
    written = cascade.predict(painted[2], catalogue=True, tile=32, output=tmp_path / "out.h5")
    assert list(written) == list(kept) and isinstance(written["count"], h5py.Dataset)
    for name in kept:
        np.testing.assert_array_equal(written[name], kept[name])
    assert repr(written) == repr(kept) and len(written.plot().axes) == 4
    written.save(tmp_path / "copy.h5")
    kept.save(tmp_path / "kept.h5")
    for name in ("out", "copy"):
        with h5py.File(tmp_path / f"{name}.h5") as file, h5py.File(tmp_path / "kept.h5") as expected:
            assert dict(file.attrs) == dict(expected.attrs) and file["count"].chunks == (32, 32, 32)
            np.testing.assert_array_equal(file["probability"], expected["probability"])
    assert len(written.table) == len(kept.table)
    with pytest.raises(kg.errors.ExistsError):
        cascade.predict(painted[2], output=tmp_path / "out.h5")
    with pytest.raises(SettingError, match="accepted suffixes"):
        cascade.predict(painted[2], output=tmp_path / "out.csv")
    with pytest.raises(SettingError, match="does not fit the network"):
        cascade.predict(painted[2], tile=20, output=tmp_path / "none.h5")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.h5", "kept.h5", "out.h5"]


def test_galaxies_are_drawn_alike_from_slabs(monkeypatch):
    counts = np.random.default_rng(0).uniform(0, 3, (8, 8, 8)).astype(np.float32)
    made = Scatter((0.1, 2.0), (0.9, 0.4))
    whole = predict.draw_galaxies(counts, 10.0, made, seed=2)
    monkeypatch.setattr(predict, "slabs", lambda field: tiling.slabs(field, cells=100))
    slabs = predict.draw_galaxies(counts, 10.0, made, seed=2)
    found = np.histogramdd(slabs, 8, [(0, 10)] * 3)[0]
    assert abs(found.sum() - counts.sum()) < 6 * np.sqrt(counts.sum())
    assert found.max() > 3 and found[counts < 0.01].sum() < 3 and len(slabs) != len(whole)  # other draws
    monkeypatch.undo()
    np.testing.assert_array_equal(predict.draw_galaxies(counts, 10.0, made, seed=2), whole)


def test_a_run_draws_with_the_scatter_of_the_boxes_it_was_validated_on(cascade, painted, tmp_path, caplog):
    density, counts = data.load(painted[1], cascade.config)  # the second of two validates
    expected = predict.predict_field(cascade.network, density, cascade.config)[..., 1]
    assert scatter.read(cascade.folder / "regress") == cascade.scatter == scatter.measure(expected, counts)
    assert not any("Poisson" in note for note in cascade.predict(painted[2], catalogue=True).notes)
    shutil.copytree(cascade.folder, tmp_path / "old")
    (tmp_path / "old" / "regress" / scatter.FILE).unlink()
    old = kg.load(tmp_path / "old")
    assert old.scatter == scatter.POISSON and old.predict(painted[2]).notes == []
    with caplog.at_level("INFO"):
        note, = old.predict(painted[2], catalogue=True).notes
    assert note.endswith("they are drawn as Poisson numbers") and note in caplog.text


def test_draws_are_written_one_after_another(diffusion, painted, tmp_path):
    options = {"draws": 2, "steps": 1}
    kept, written = (diffusion.predict(painted[2], **options, **given) for given in ({}, {"output": tmp_path / "o.h5"}))
    np.testing.assert_array_equal(written["count"], kept["count"])
    assert repr(written) == repr(kept) and len(written.plot().axes) == 4
    np.testing.assert_array_equal(written.table["galaxies"], kept["count"].sum(axis=(2, 3)).ravel())


def test_maps_say_what_of_the_box_they_leave_out(diffusion, painted, tmp_path, caplog):
    config = dataclasses.replace(diffusion.config, depth=12)
    run = kg.Diffusion(config, diffusion.networks, folder=diffusion.folder, domain=diffusion.domain)
    draws = run.predict(painted[2], draws=1, steps=1, axis="x")
    words = f"{painted[2]}: maps of 12 cells show 24 of the 32 along their axis; the last 8 are left out"
    assert draws["count"].shape == (2, 1, 32, 32) and draws.notes == [words] and draws.header["depth"] == 12
    panel = draws.plot().axes[0]
    assert (panel.get_xlabel(), panel.get_ylabel()) == ("y [Mpc/h]", "z [Mpc/h]")
    assert words in run.evaluate(painted[2], draws=2, steps=1, maps=1)["notes"]
    with caplog.at_level("INFO"), pytest.raises(kg.DataError, match="fewer than the patch of 48"):
        harness.train("cascade diffusion", painted, tmp_path / "run", depth=12, patch=48, slab_stride=0)
    assert [line for line in caplog.messages if words.partition(": ")[2] in line][-2:] == [
        f"{kind}: {words.partition(': ')[2]}" for kind in ("training", "validation")]


@pytest.mark.slow
def test_a_gridded_density_stands_for_the_particles(cascade, painted, tmp_path, monkeypatch):
    place = changed(painted[2], tmp_path / "field.h5")
    with h5py.File(place, "r+") as file:
        del file["final/position"], file["final/velocity"]
        file["final/delta"] = contrast(painted[2])
    expected = cascade.predict(painted[2], tile=32)["count"]
    read, sliced = [], tiling.Derived.__getitem__
    monkeypatch.setattr(tiling.Derived, "__getitem__", lambda *given: read.append(sliced(*given)) or read[-1])
    np.testing.assert_array_equal(cascade.predict(place, tile=32)["count"], expected)
    assert max(max(part.shape) for part in read) <= 24  # of a tile no more than is on one side of a face
    with pytest.raises(kg.DataError, match="give the run a field on its own cells, or a file with particles"):
        cascade.predict(contrast(painted[2]), boxsize=25.0)
    with kg.Simulation(place, require=()) as simulation:
        assert data.features(simulation, 0.390625)["particles_per_cell"] is None
