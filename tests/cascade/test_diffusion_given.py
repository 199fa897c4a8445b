"""What the diffusion model draws and is given: dark matter given galaxies, and galaxies given what cascade expects."""

import json
import shutil
from types import SimpleNamespace

import h5py
import harness
import keras
import numpy as np
import pytest

import kerasgal as kg
from kerasgal import networks
from kerasgal.apps.cascade.diffusion import calibration, data, evaluate, matter, train
from kerasgal.apps.cascade.diffusion.model import VariationalDiffusion
from kerasgal.errors import DataError, DomainError, SettingError, UnseenError
from kerasgal.grid import density_contrast
from kerasgal.scratch import Store

pytestmark = pytest.mark.usefixtures("eager", "restored_once")

TINY = {"preset": "demo", **harness.RECIPES["cascade diffusion"].settings}
OF_MATTER = {"drawn": "matter", "field": "log", "gamma_min": -10.0, "gamma_max": 10.0}
FEW = {"draws": 2, "steps": 2, "sampler": "multistep"}


@pytest.fixture(scope="module")
def of_matter(painted, tmp_path_factory, invoke, eagerly):
    """A run that draws dark matter, trained on the command line."""
    folder = tmp_path_factory.mktemp("matter") / "run"
    options = [word for name, value in OF_MATTER.items() for word in (f"--{name.replace('_', '-')}", value)]
    with eagerly(True):
        invoke("cascade", "diffusion", "train", *painted[:2], *harness.flags("cascade diffusion"), *options, "--run",
               folder)
    return folder


def changed(path, place, change):
    """A copy of a simulation of which the open file was changed."""
    shutil.copy(path, place)
    with h5py.File(place, "r+") as file:
        change(file)
    return place


def test_dark_matter_is_drawn_given_galaxies_alone(of_matter, painted, tmp_path, invoke):
    output = tmp_path / "drawn.h5"
    said = invoke("cascade", "diffusion", "predict", of_matter, painted[2], "--draws", 2, "--steps", 2, "--output",
                  output).stdout
    assert "2 draws of dark matter for 4 maps along z of 32^2 cells" in said
    with h5py.File(output) as file:
        drawn = file["density"][...]
    assert drawn.shape == (4, 2, 32, 32) and drawn.min() >= 0 and len(np.unique(drawn)) > drawn.size / 4
    # Of a file without any dark matter they are the same.
    alone = changed(painted[2], tmp_path / "alone.h5", lambda file: file.pop("final"))
    draws = kg.load(of_matter).predict(alone, draws=2, steps=2)
    np.testing.assert_array_equal(draws["density"], drawn)
    assert draws.table["mean_density"][3] == pytest.approx(drawn[1, 1].mean()) and len(draws.plot().axes) == 4


def test_draws_of_matter_are_held_against_matter(of_matter, painted, invoke, tmp_path):
    said = invoke("cascade", "diffusion", "evaluate", of_matter, painted[2], "--draws", 2, "--steps", 2, "--maps", 2,
                  "--output", tmp_path / "judged").stdout
    assert "mean density" in said and "accuracy" not in said and "another map's galaxies" in said
    metrics = json.loads((tmp_path / "judged" / "metrics.json").read_text())
    with kg.Simulation(painted[2]) as simulation:
        run = kg.load(of_matter)
        true = data.density(simulation, run.config, axes=(2,))[..., :2]
    assert metrics["truth"]["mean_density"] == pytest.approx(true.mean())
    assert list(metrics["baselines"]) == ["boosted trees"]
    for name in ("regressor", "hod"):
        with pytest.raises(SettingError, match="draws dark matter"):
            run.evaluate(painted[2], **{name: "run"}, draws=2)


def test_galaxies_of_another_kind_are_refused(of_matter, painted, tmp_path):
    """Of three times as many galaxies each means another density; of a map of the density nothing is drawn at all."""
    def thrice(file):
        position = file["galaxies/position"][...]
        del file["galaxies/position"]
        file["galaxies/position"] = np.tile(position, (3, 1))

    def thinned(file):
        position = file["final/position"][::64]
        del file["final/position"], file["final/velocity"]
        file["final/position"] = position

    run = kg.load(of_matter)
    many = changed(painted[2], tmp_path / "many.h5", thrice)
    with pytest.raises(DomainError, match="galaxies in a"):
        run.predict(many, **FEW)
    assert any("galaxies in a" in note for note in run.predict(many, outside_domain=True, **FEW).notes)
    few = changed(painted[2], tmp_path / "few.h5", thinned)
    np.testing.assert_array_equal(run.predict(few, **FEW)["density"], run.predict(painted[2], **FEW)["density"])
    with pytest.raises(DomainError, match="particles for each cell"):  # to be judged on them they must be enough
        run.evaluate(few, draws=2, steps=1, maps=1)
    with pytest.raises(DataError, match="no galaxies"):
        run.predict(changed(painted[2], tmp_path / "none.h5", lambda file: file.pop("galaxies")), **FEW)
    with pytest.raises(SettingError, match="with galaxies"):
        run.predict(np.zeros((32, 32, 32), np.float32), boxsize=12.5, **FEW)


def test_what_is_left_in_the_draws_is_said(caplog):
    config = kg.Diffusion.configure(**{**TINY, **OF_MATTER, "gamma_min": -3.5})
    train.check_ends(VariationalDiffusion.of(config), config, [(None, None, np.ones((8, 8, 1), np.float32))])
    assert "stays in what is drawn, 0.17 of" in caplog.text and "gamma_min=-9.3" in caplog.text


def test_trees_draw_matter_with_its_power():
    """Of fields that are known: what galaxies say, and a Gaussian field of a red spectrum that they do not say."""
    rng = np.random.default_rng(0)
    scale = matter.wavenumbers((64, 64))

    def field():
        galaxies = rng.poisson(0.3, (64, 64)).astype(np.float32)
        red = np.fft.ifftn(np.fft.fftn(rng.standard_normal((64, 64))) * 0.3 / (1 + 10 * scale)).real
        return galaxies, np.expm1(0.5 * galaxies + red + 2).astype(np.float32), np.ones((64, 64), bool)

    fields = [field() for _ in range(12)]
    made = matter.fitted(fields[:8], fields[8:])
    bins = np.linspace(0, 0.5, 6)

    def spectrum(maps):
        found = np.mean([np.abs(np.fft.fftn(np.log1p(one)))**2 for one in maps], axis=0)
        return np.array([found[(scale > low) & (scale <= high)].mean() for low, high in zip(bins, bins[1:])])

    unseen = [field() for _ in range(8)]
    drawn = [made.draw(galaxies, rng) for galaxies, *_ in unseen]
    np.testing.assert_allclose(spectrum(drawn), spectrum([density for _, density, _ in unseen]), rtol=0.12)


@pytest.mark.slow
def test_galaxies_are_drawn_given_what_cascade_expects(trained, painted, unseen, tmp_path):
    regressor = shutil.copytree(trained("cascade"), tmp_path / "regressor")
    run = kg.Diffusion.train(unseen("painted"), run=tmp_path / "run", regressor=str(regressor), **TINY)
    assert run.network.network.get_layer("density").output.shape[-1] == 2
    with kg.Simulation(painted[2]) as simulation:
        field = data.given(simulation, run.config, axes=(2,), regressor=run.regressor)[0]
        expected = run.regressor.predict(painted[2])["count"]
    assert field.shape == (32, 32, 4, 2)
    np.testing.assert_allclose(field[..., 1], expected.reshape(32, 32, 4, 8).sum(axis=3), rtol=1e-4, atol=1e-6)
    mean, spread = (np.asarray(values) for values in run.network.network.get_layer("standardised_density").weights)
    assert mean.shape == spread.shape == (2,) and spread.min() > 0
    packed = networks.pack(tmp_path / "run", "given", summary="small", figures={}, card="# given",
                           place=tmp_path / "registry", half=False)
    shutil.rmtree(regressor)  # the run keeps a copy
    assert kg.load(packed).regressor.folder == packed / "regressor" and run.config.regressor == str(regressor)
    assert kg.load(packed).config.regressor == "regressor"  # and not where it was trained
    moved = kg.load(shutil.move(tmp_path / "run", tmp_path / "moved"))
    draws = moved.predict(painted[2], **FEW)
    assert draws["count"].shape == (4, 2, 32, 32)
    with kg.Simulation(painted[2]) as simulation:
        delta = density_contrast(simulation["final/position"][...], 32, simulation.boxsize)
    again = moved.predict(delta, boxsize=12.5, **FEW)
    assert np.mean(again["count"] == draws["count"]) > 0.99
    with pytest.raises(UnseenError, match="box_0"):  # which the regressor was trained on
        moved.evaluate(painted[0], draws=2, steps=1, maps=1)
    judged = moved.evaluate(painted[2], draws=2, steps=1, maps=1)
    assert "draws" in judged.figures()
    exported = moved.export(tmp_path / "served", steps=1)
    assert "galaxies that are expected" in (exported / "kerasgal.json").read_text()


def test_a_regressor_must_be_new_to_what_it_expects_and_of_these_cells(trained, painted, unseen, tmp_path):
    others = unseen("painted")
    regressor = str(trained("cascade"))
    with pytest.raises(UnseenError, match="box_0"):
        kg.Diffusion.train([painted[0], *others], run=tmp_path / "run", regressor=regressor, **TINY)
    with pytest.raises(DataError, match="must be alike"):
        kg.Diffusion.train(others, run=tmp_path / "run", regressor=regressor, **{**TINY, "cell": 0.78125})
    with pytest.raises(SettingError, match="which drawn=matter is to draw"):
        kg.Diffusion.train(others, run=tmp_path / "run", regressor=regressor, **TINY, **OF_MATTER)
    with pytest.raises(SettingError, match="lie in one another"):
        kg.Diffusion.train(others, run=trained("cascade") / "draws", regressor=regressor, **TINY)
    of_workers = kg.Diffusion.configure(regressor=regressor, strategy="workers", **TINY)
    with pytest.raises(SettingError, match="before workers meet"):
        train.regressor_of(of_workers, tmp_path / "run", others, False)
    assert not (tmp_path / "run").exists()


def test_what_a_parameter_does_is_not_said_where_the_regressor_is_given_it(monkeypatch):
    layer = SimpleNamespace(mean=np.float32([[0.7]]), variance=np.float32([[0.1]]))
    config, own = SimpleNamespace(names=("sigma8",)), SimpleNamespace(config=SimpleNamespace(names=("sigma8",)))
    run = SimpleNamespace(network=SimpleNamespace(network=SimpleNamespace(get_layer=lambda name: layer)),
                          config=config, regressor=own)
    found, notes = evaluate.response(run, SimpleNamespace(parameters=np.float32([0.7])), 2, {})
    assert not found and "sigma8" in notes[0] and "the regressor" in notes[0]
    assert data.known_to(own, {"sigma8": 0.8, "Om0": 0.3}) == {"sigma8": 0.8}


def test_weights_of_the_other_direction_do_not_begin_this_one(of_matter, painted, tmp_path):
    with pytest.raises(SettingError, match="was trained with drawn=matter, received drawn=galaxies"):
        kg.Diffusion.train(painted[:2], run=tmp_path / "run", init=of_matter, **TINY)


def test_the_bound_of_matter_is_one_of_the_field(painted):
    """A field four times as wide has a quarter of the density, which is two bits a cell more, however it is divided."""
    rng = np.random.default_rng(0)
    seen, field, parameters = (keras.ops.convert_to_tensor(rng.uniform(0, 1, shape).astype(np.float32))
                               for shape in ((2, 16, 16, 1), (2, 16, 16, 1), (2, 0)))
    bits = {}
    for spread in (1.0, 4.0):
        model = VariationalDiffusion.of(kg.Diffusion.configure(**TINY, **OF_MATTER))
        model.standardised.spread.assign(spread)
        parts, _ = model.losses_of([seen, spread * field, parameters], (1, 2, 3), False)
        bits[spread] = np.array(parts)
    np.testing.assert_allclose(bits[4.0][1] - bits[1.0][1], 2, rtol=1e-4)
    np.testing.assert_allclose(bits[4.0][0], bits[1.0][0], rtol=1e-4)


def test_trees_of_fields_of_two_sizes_know_one_spectrum():
    rng = np.random.default_rng(0)
    scale, power = matter.spectrum([rng.standard_normal((side, side)) for side in (32, 48)])
    assert np.all(np.diff(scale) > 0) and np.average(power[1:]) == pytest.approx(1, abs=0.1)


def test_boxes_in_a_scratch_file_are_calibrated_on():
    store = Store(memory=1)
    box = np.random.default_rng(0).poisson(0.2, (8, 8, 8, 1)).astype(np.float32)
    seen, field = store.keep([box + 1, box])
    config = kg.Diffusion.configure(**{**TINY, "dimensions": 3, "patch": 8})
    (density, _, found), = calibration.fields_of([(seen, np.zeros(0), field)], config)
    np.testing.assert_array_equal(density, box + 1)
    np.testing.assert_array_equal(found, box[..., 0])
