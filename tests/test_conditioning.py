"""Networks that are given the numbers of a simulation: protohalo and halomass over cosmologies.

The diffusion model's are tested with it, in tests/cascade.
"""

import json
import shutil
from unittest import mock

import h5py
import harness
import keras
import numpy as np
import pytest

import kerasgal as kg
from kerasgal import conditioning, domain
from kerasgal.apps.halomass import compress, dense
from kerasgal.apps.halomass.model import cnn, unpadded_side
from kerasgal.apps.protohalo import blocks
from kerasgal.apps.protohalo.model import Modulated, unet

COSMOLOGIES = [(0.25, 0.7), (0.35, 0.9), (0.3, 0.8), (0.3, 1.0)]  # Om0, sigma8: to train on, between them, beyond
APPS = ("protohalo", "halomass")
SOME = {"protohalo": {}, "halomass": {"particles": np.arange(0, 32**3, 1111)}}


@pytest.fixture(scope="module", autouse=True)
def without_graphs(eagerly):
    with eagerly(True):
        yield


@pytest.fixture(scope="module")
def universes(once, boxes):
    """Copies of one simulation that say another cosmology each, and the strength of some feedback."""
    def fill(folder):
        for number, (Om0, sigma8) in enumerate(COSMOLOGIES):
            shutil.copy(boxes[number % 3], folder / f"box_{number}.h5")
            with h5py.File(folder / f"box_{number}.h5", "r+") as file:
                file["cosmology"].attrs.update(Om0=Om0, sigma8=sigma8)
                file.create_group("parameters").attrs["A_SN1"] = number - 5.0

    folder = once("universes", fill)
    return [folder / f"box_{number}.h5" for number in range(len(COSMOLOGIES))]


@pytest.fixture(scope="module")
def runs(universes, tmp_path_factory, without_graphs):
    """A run of each app that is given Om0 and sigma8, and its weights moved, as a longer training would."""
    found = {}
    for app in APPS:
        folder = tmp_path_factory.mktemp("runs") / app
        settings = {**harness.RECIPES[app].settings, "preset": "demo", "epochs": 1, "steps_per_epoch": 1}
        validation = universes[2:3] if app == "protohalo" else []
        kg.train(app, universes[:2], validation, run=folder, parameters="Om0,sigma8", **settings)
        run = kg.load(folder)
        harness.disturbed(run.network)
        run.network.save_weights(folder / "best.weights.h5")
        found[app] = kg.load(folder)
    return found


def said(run, source, **options):
    """What a run says of all cells, or of some."""
    return run.predict(source, **SOME[run.app], **options)["distance" if run.app == "protohalo" else "log_mass"]


def test_names_are_told_apart_by_commas_and_each_stands_once():
    for app in (*APPS, "cascade diffusion"):
        for text, names in (("", ()), ("Om0", ("Om0",)), ("Om0, sigma8", ("Om0", "sigma8"))):
            assert conditioning.parameter_names(harness.config_of(app, parameters=text)) == names
    with pytest.raises(kg.SettingError, match="parameters='Om0,Om0' names one of them twice"):
        harness.config_of("protohalo", parameters="Om0,Om0")


@pytest.mark.parametrize("known, value, inside", [
    ([0.2, 0.4], 0.2, True), ([0.2, 0.4], 0.4, True), ([0.2, 0.4], np.float32(0.4), True), ([0.2, 0.4], 0.41, False),
    ([0.2, 0.4], 0.19, False), ([-2.0, -1.0], -2.0, True), ([-2.0, -1.0], -1.0, True), ([-2.0, -1.0], -0.9, False),
    ([3e9, 3e9], np.float32(3.0000001e9), True)])
def test_a_parameter_must_lie_within_the_range_of_the_training(known, value, inside):
    found = domain.differences({"A": known}, {"A": float(value)}, [], within=["A"])
    assert found == [] if inside else "A = " in found[0] and "the run was trained on A = " in found[0]


def test_a_setting_that_the_network_is_not_given_is_compared_as_before():
    known, features = {"Om0": [0.3, 0.3], "sigma8": [0.8, 0.8]}, {"Om0": 0.32, "sigma8": 0.81}
    assert domain.differences(known, features, ["Om0", "sigma8"]) == []
    assert len(domain.differences(known, features, ["Om0"], within=["sigma8"])) == 1


def test_without_parameters_the_networks_are_as_they_were():
    assert not [layer for layer in unet(2, 4).layers if isinstance(layer, Modulated | keras.layers.Normalization)]
    assert len(unet(2, 4).inputs) == len(cnn(9, convolutions=2, filters=2, dense=(4, 2)).inputs) == 1


def test_a_new_network_with_parameters_begins_as_the_one_without():
    keras.utils.set_random_seed(0)
    plain, given = unet(2, 4, dropout=0.0), unet(2, 4, dropout=0.0, parameters=2)
    of_fields = [weight for weight in given.trainable_weights if "modulated" not in weight.path]
    for weight, other in zip(of_fields, plain.trainable_weights, strict=True):
        weight.assign(other)
    rng = np.random.default_rng(0)
    field, parameters = rng.normal(size=(2, 8, 8, 8, 1)), rng.normal(size=(2, 2))
    np.testing.assert_allclose(given([field, parameters]), plain(field), atol=1e-6)


def test_parameters_scale_and_shift_each_channel():
    layer, rng = Modulated(), np.random.default_rng(0)
    field, parameters = rng.normal(size=(3, 2, 2, 2, 4)), rng.normal(size=(3, 2))
    layer.build([field.shape, parameters.shape])
    kernel = rng.normal(size=(2, 8))
    layer.kernel.assign(kernel)
    scale, shift = (parameters @ kernel)[:, None, None, None, :4], (parameters @ kernel)[:, None, None, None, 4:]
    np.testing.assert_allclose(layer([field, parameters]), field * (1 + scale) + shift, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("app", [
    app if app == APPS[1] else pytest.param(app, marks=pytest.mark.slow) for app in APPS])
def test_a_run_keeps_what_its_parameters_are_standardised_by(app, runs):
    layer = runs[app].network.get_layer("normalised_parameters")
    np.testing.assert_allclose(np.ravel(layer.mean), np.mean(COSMOLOGIES[:2], axis=0), rtol=1e-6)
    np.testing.assert_allclose(np.ravel(layer.variance), np.var(COSMOLOGIES[:2], axis=0), rtol=1e-4)
    assert runs[app].config.parameters == "Om0,sigma8" and runs[app].domain["sigma8"] == [0.7, 0.9]


@pytest.mark.parametrize("app", APPS)
def test_a_prediction_depends_on_the_parameters_which_are_the_boxs_own_or_given(app, runs, universes):
    run, (Om0, sigma8) = runs[app], COSMOLOGIES[2]
    own = said(run, universes[2])
    np.testing.assert_array_equal(said(run, universes[2], parameters={"Om0": Om0, "sigma8": sigma8}), own)
    others = [said(run, universes[2], parameters=given) for given in ({"Om0": 0.26}, {"sigma8": 0.72})]
    assert all(np.abs(other - own).max() > 1e-3 * own.std() for other in others)
    with kg.Simulation(universes[2]) as box:
        array = said(run, box.delta(), boxsize=25, parameters={"Om0": Om0, "sigma8": sigma8})
    np.testing.assert_allclose(array, own, atol=1e-5)
    made = run.predict(universes[2], parameters={"Om0": 0.26}, **SOME[app])
    assert made.header["parameters"] == "Om0 = 0.26, sigma8 = 0.8" and not made.notes


@pytest.mark.parametrize("app", APPS)
def test_beyond_the_parameters_of_the_training_a_run_refuses_and_names_both(app, runs, universes):
    for source, options in ((universes[3], {}), (universes[2], {"parameters": {"sigma8": 1.0}})):
        with pytest.raises(kg.DomainError, match="sigma8 = 1, and the run was trained on sigma8 = 0.7 to 0.9"):
            said(runs[app], source, **options)
    with pytest.raises(kg.DomainError, match="sigma8 = 1, and"):
        runs[app].evaluate(universes[3])
    notes = runs[app].predict(universes[3], outside_domain=True, **SOME[app]).notes
    assert len(notes) == 1 and notes[0].startswith("outside the domain of the run")


@pytest.mark.parametrize("app", APPS)
def test_parameters_that_are_unknown_or_missing_are_refused_in_one_line(app, runs, universes, boxes, tmp_path):
    with pytest.raises(kg.SettingError, match="was not trained with h; its parameters are Om0, sigma8"):
        runs[app].predict(universes[2], parameters={"h": 0.7})
    with pytest.raises(kg.SettingError, match="Om0 is nan, accepted are finite numbers"):
        runs[app].predict(universes[2], parameters={"Om0": float("nan")})
    settings = {**harness.RECIPES[app].settings, "preset": "demo", "parameters": "A_SN1"}
    with pytest.raises(kg.DataError, match="does not say its A_SN1; it knows Ob0, Om0") as error:
        kg.train(app, boxes[:1], [], run=tmp_path / "run", **settings)
    assert len(str(error.value).splitlines()) == 1 and not (tmp_path / "run").exists()


def test_a_parameter_that_is_the_same_everywhere_is_warned_of(caplog):
    conditioning.warn_of_constant(["Om0", "A"], np.array([[0.3, 1.0], [0.3, 2.0]]))
    message, = caplog.messages
    assert message.startswith("Om0 is 0.3 in all simulations of the training")


def test_the_command_line_gives_parameters(runs, universes, tmp_path, invoke):
    run, output = runs["protohalo"], tmp_path / "out.h5"
    command = ("protohalo", "predict", run.folder, universes[2], "--output", output)
    invoke(*command, "--parameter", "Om0=0.26", "--parameter", "sigma8=0.75")
    with h5py.File(output) as file:
        np.testing.assert_allclose(file["distance"], said(run, universes[2],
                                                          parameters={"Om0": 0.26, "sigma8": 0.75}), atol=1e-6)
        assert file.attrs["parameters"] == "Om0 = 0.26, sigma8 = 0.75"
    for words, code, message in ((["--parameter", "Om0"], 2, "accepted is NAME=VALUE"),
                                 (["--parameter", "Om0=0,26"], 2, "Om0 has 2 numbers"),
                                 (["--parameter", "Om0=0.26", "--parameter", "Om0=0.27"], 2, "Om0 is given twice"),
                                 (["--parameter", "sigma8=1"], 1, "sigma8 = 0.7 to 0.9; give --outside-domain")):
        done = invoke(*command, "--overwrite", *words, check=False)
        assert done.returncode == code and message in done.stderr
    output = tmp_path / "masses.h5"
    invoke("halomass", "predict", runs["halomass"].folder, universes[2], "--sample", 5, "--parameter", "Om0=0.26",
           "--output", output)
    with h5py.File(output) as file:
        assert file.attrs["parameters"] == "Om0 = 0.26, sigma8 = 0.8"


def test_tiles_and_blocks_of_a_conditioned_network_are_the_whole_box(runs, universes):
    run, given = runs["protohalo"], {"Om0": 0.26, "sigma8": 0.75}
    whole = said(run, universes[2], parameters=given)
    np.testing.assert_allclose(said(run, universes[2], parameters=given, tile=40, context=12), whole, atol=1e-5)
    pytest.importorskip("dask")
    made = np.empty_like(whole)
    with kg.Simulation(universes[2]) as box:
        delta = box.delta()
    blocks.predict_distance(run, delta, made, boxsize=25.0, block=16, parameters=given)
    np.testing.assert_allclose(made, whole, atol=1e-5)
    for parameters, error, message in (({"Om0": 0.3}, kg.SettingError, "`parameters` must say sigma8"),
                                       (given | {"sigma8": 1.0}, kg.DomainError, "trained on sigma8 = 0.7 to 0.9")):
        with pytest.raises(error, match=message):
            blocks.predict_distance(run, delta, made, boxsize=25.0, block=16, parameters=parameters)


@pytest.mark.parametrize("kept", [None, [0, 3, 17, 48, 49]])
def test_the_map_of_a_conditioned_network_is_the_cubes(kept):
    keras.utils.set_random_seed(3)
    side = unpadded_side(5, 3)
    model = harness.disturbed(cnn(side, convolutions=3, filters=3, dense=(6, 4), padding="none", parameters=2,
                                  kept=kept))
    model.get_layer("normalised_parameters").adapt(np.array(COSMOLOGIES))
    field, parameters = np.random.default_rng(0).normal(size=(16, 16, 16, 1)).astype("f4"), [0.27, 0.75]
    cells = np.random.default_rng(1).integers(0, 16, size=(20, 3))
    cubes = np.stack([np.roll(field, side // 2 - cell, axis=(0, 1, 2))[:side, :side, :side] for cell in cells])
    expected = np.asarray(model([cubes, np.tile(parameters, (20, 1))]))[:, 0]
    found = dense.predict_cells(model, field, parameters=parameters)
    np.testing.assert_allclose(found[tuple(cells.T)], expected, atol=1e-5)
    other = dense.predict_cells(model, field, parameters=[0.33, 0.75])
    assert np.abs(other - found).max() > 1e-4
    tiled = dense.predict_cells(model, field, parameters=parameters, tile=side + 7)
    np.testing.assert_allclose(tiled, found, atol=1e-5)


@pytest.mark.slow
def test_a_conditioned_network_is_compressed(runs, universes, tmp_path):
    small = compress.compress(runs["halomass"], tmp_path / "small")
    np.testing.assert_allclose(said(small, universes[2]), said(runs["halomass"], universes[2]), atol=1e-2)


@pytest.mark.parametrize("settings", [
    {"input": "multipoles", "padding": "same", "shells": 3},
    pytest.param({"input": "averaged", "padding": "same", "shells": 3}, marks=pytest.mark.slow),
    pytest.param({"input": "final", "padding": "same", "extent": 2.0}, marks=pytest.mark.slow)])
def test_every_input_of_halomass_takes_parameters(settings, universes, tmp_path):
    settings = {**harness.RECIPES["halomass"].settings, "preset": "demo", "epochs": 1, "steps_per_epoch": 1,
                "parameters": "Om0,A_SN1", **settings}
    run = kg.train("halomass", universes[:2], [], run=tmp_path / "run", **settings)
    assert run.domain["A_SN1"] == [-5, -4]
    harness.disturbed(run.network)
    given = {"Om0": 0.3, "A_SN1": -4.5}
    with pytest.raises(kg.DomainError, match="A_SN1 = -3, and the run was trained on A_SN1 = -5 to -4"):
        run.predict(universes[2], sample=5)
    one, other = (run.predict(universes[2], sample=5, parameters=given | {"Om0": Om0})["log_mass"]
                  for Om0 in (0.26, 0.34))
    assert np.abs(one - other).min() > 1e-5
    if run.config.input == "multipoles":
        mapped = run.predict(universes[2], map=True, parameters=given)["log_mass"].ravel()
        found = run.predict(universes[2], particles=[0, 77, 4000], parameters=given)["log_mass"]
        np.testing.assert_allclose(mapped[[0, 77, 4000]], found, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("app", APPS)
def test_a_conditioned_network_is_exported_and_takes_its_parameters(app, runs, tmp_path):
    import tensorflow as tf

    folder = runs[app].export(tmp_path / app)
    assert json.loads((folder / "kerasgal.json").read_text())["parameters"] == ["Om0", "sigma8"]
    inputs = harness.inputs_of(runs[app].network)
    served = tf.saved_model.load(str(folder))
    np.testing.assert_allclose(served.serve(inputs), harness.outputs_of(runs[app].network, inputs), atol=1e-5)


def test_the_ladder_refuses_parameters():
    from kerasgal.apps.halomass.ladder import ladder

    with pytest.raises(kg.SettingError, match="parameters='Om0': networks and trees of the ladder see the same"):
        ladder([mock.Mock()], [mock.Mock()], [mock.Mock()], parameters="Om0")
