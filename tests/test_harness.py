"""Everything that is registered and every run: reload, precision, backends, SavedModel, configuration."""

import csv
import dataclasses
import fnmatch
import functools
import json

import harness
import keras
import numpy as np
import pytest

import kerasgal as kg
from kerasgal import config, registry

APPS = harness.apps()
# JAX compiles a training step of a convolutional network for half a minute to a minute and a half; that of a perceptron
# is compiled at once.
QUICK = {"halomass": {"input": "multipoles", "padding": "same", "shells": 4}}


@pytest.fixture(scope="session")
def all_networks():
    keras.utils.set_random_seed(1)
    return {name: network for app in APPS for name, network in harness.networks(app).items()}


@pytest.fixture(scope="session")
def saved(all_networks, tmp_path_factory):
    """A function: the folder with the networks of some names as .keras, and their inputs and outputs."""
    @functools.cache
    def save(names):
        folder = tmp_path_factory.mktemp("networks")
        for name in fnmatch.filter(all_networks, names):
            network = all_networks[name]
            network.save(folder / f"{name}.keras")
            inputs = harness.inputs_of(network)
            np.savez(folder / f"{name}.npz", *inputs, outputs=harness.outputs_of(network, inputs))
        return folder

    return save


RELOAD = """
import csv, json, pathlib, sys
import numpy as np
import harness, keras
harness.register()
# What is loaded replaces what layers begin with, whose random numbers JAX would compile for each shape.
keras.initializers.VarianceScaling.__call__ = lambda self, shape, dtype=None: np.zeros(shape, np.float32)
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.keras")):
    network = keras.models.load_model(path, compile=False)
    with np.load(path.with_suffix(".npz")) as stored:
        inputs = [stored[f"arr_{number}"] for number in range(len(stored.files) - 1)]
        found, expected = harness.outputs_of(network, inputs), stored["outputs"]
    scale = np.abs(expected).max()
    assert scale > 0
    print("difference", path.stem, float(np.abs(found - expected).max() / scale))
"""


def differences(said):
    lines = [line.removeprefix("difference ") for line in said.splitlines() if line.startswith("difference ")]
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines}


def test_every_app_has_a_recipe():
    assert set(harness.RECIPES) == set(APPS)


@pytest.mark.slow  # on JAX those of one app are loaded in a fresh process, too
def test_every_network_reloads_in_a_fresh_process(saved, all_networks):
    found = differences(harness.in_another_process(RELOAD, saved("*")))
    assert found.keys() == all_networks.keys() and all(value < 1e-6 for value in found.values()), found


TRAIN = """
assert keras.backend.backend() == "jax"
for app, (data, options) in json.loads(sys.argv[2]).items():
    data = pathlib.Path(data) if isinstance(data, str) else data
    # Of two networks that are alike one will do: each is compiled for a minute.
    alone = {"archetypes": None} if "archetypes" in harness.sources(app, data) else {}
    folder = pathlib.Path(sys.argv[3]) / app.replace(" ", "_")
    harness.train(app, data, folder, epochs=1, steps_per_epoch=1, **alone, **options)
    losses = [float(row["loss"]) for path in folder.rglob("history.csv") for row in csv.DictReader(path.open())]
    print("losses", json.dumps([app, losses]))
"""


@pytest.fixture(scope="module")
def on_jax(saved, request, tmp_path_factory):
    """A function: what one process on JAX says, which loads some networks and then trains apps, {app: settings}."""
    pytest.importorskip("jax")

    def said(names, apps):
        data = {app: (request.getfixturevalue(harness.RECIPES[app].data), options) for app, options in apps.items()}
        return harness.in_another_process(RELOAD + TRAIN, saved(names), json.dumps(data, default=str),
                                          tmp_path_factory.mktemp("jax"), backend="jax")

    return said


@pytest.fixture(scope="module")
def said_on_jax(on_jax):
    """Of some networks of an app, and of the training that takes least."""
    return on_jax("halomass-[0-2]-*", QUICK)


@pytest.fixture(scope="module")
def said_on_jax_of_the_rest(on_jax):
    return on_jax("*", {app: {} for app in APPS})


def test_networks_of_particles_are_the_same_on_jax(said_on_jax):
    found = differences(said_on_jax)
    assert len(found) == 3  # cubes of either padding, and averages
    assert all(value < 1e-4 for value in found.values()), found


@pytest.mark.slow
def test_every_variant_of_a_network_is_the_same_on_jax(said_on_jax_of_the_rest, all_networks):
    found = differences(said_on_jax_of_the_rest)
    assert found.keys() == all_networks.keys()
    assert all(value < 1e-4 for value in found.values()), found


def losses_of(said):
    losses = dict(json.loads(line.removeprefix("losses ")) for line in said.splitlines() if line.startswith("losses "))
    assert all(values and np.all(np.isfinite(values)) for values in losses.values()), losses
    return losses


def test_an_app_trains_on_jax(said_on_jax):
    assert losses_of(said_on_jax).keys() == set(QUICK)


@pytest.mark.slow  # some minutes; all other tests train these without graphs, and users with
@pytest.mark.parametrize("app", [app for app in APPS if not harness.RECIPES[app].graphs])
def test_every_app_trains_in_tensorflows_graphs(app, request, tmp_path):
    data = request.getfixturevalue(harness.RECIPES[app].data)
    run = harness.train(app, data, tmp_path / "run")
    assert all(np.isfinite(float(row["loss"])) for path in tmp_path.rglob("history.csv")
               for row in csv.DictReader(path.open()))
    assert type(run) is registry.run_class(app)


@pytest.mark.slow
def test_every_app_trains_on_jax(said_on_jax_of_the_rest):
    assert losses_of(said_on_jax_of_the_rest).keys() == set(APPS)


def layers_of(network):
    """All layers of a network, those inside others too."""
    return [item for item in network._flatten_layers(include_self=False)]


def registered():
    """Our classes that Keras knows by name."""
    return {name: cls for name, cls in keras.saving.get_custom_objects().items() if name.startswith("kerasgal>")}


def instances(all_networks):
    """An instance of every registered class: of the networks' layers, and of what is made beside them."""
    from kerasgal.apps.cascade.diffusion import sample, schedule
    from kerasgal.apps.cascade.losses import WeightedCrossEntropy, WeightedPoisson, WeightedSquaredError
    from kerasgal.apps.halomass import losses as halomass
    from kerasgal.apps.halomass.model import Select
    from kerasgal.apps.halomass.regularizers import SparseGroups
    from kerasgal.apps.halomass.whole import Continued, Cubes
    from kerasgal.apps.morph import losses as morph
    from kerasgal.apps.protohalo.losses import NormalisedDistance

    made = [NormalisedDistance(2, 2), WeightedCrossEntropy(7.0), WeightedPoisson(1.2), WeightedSquaredError(1.5),
            halomass.SelectionLikelihood("laplace"), halomass.ScaleMetric(1, "gamma"), Select([0, 2]),
            Continued(2), Cubes(3),
            morph.LogisticMixture(8), morph.Normal(), morph.PixelLikelihood(8), sample.NearestCount([0.0, 1.0, 2.0]),
            schedule.LinearSchedule(-5.0, 8.0), schedule.LearnedSchedule(-5.0, 8.0)]
    for network in all_networks.values():
        made += layers_of(network)
        made += [item.kernel_regularizer for item in layers_of(network)
                 if isinstance(getattr(item, "kernel_regularizer", None), SparseGroups)]
    return {keras.saving.get_registered_name(type(item)): item for item in made}


def test_everything_that_is_registered_survives_its_configuration(all_networks):
    known, found = registered(), instances(all_networks)
    apart = {"kerasgal>VariationalDiffusion"}  # a model of its own, tested with its app
    missing = set(known) - set(found) - apart
    assert known and not missing
    for name in set(known) - apart:
        item = found[name]
        stored = json.loads(json.dumps(keras.saving.serialize_keras_object(item)))
        again = keras.saving.deserialize_keras_object(stored)
        assert type(again) is type(item)
        assert json.dumps(again.get_config(), sort_keys=True) == json.dumps(item.get_config(), sort_keys=True), name


@pytest.mark.parametrize("app", APPS)
@pytest.mark.parametrize("policy", ["mixed_bfloat16", pytest.param("mixed_float16", marks=pytest.mark.slow)])
def test_every_head_is_float32_whatever_the_policy(app, policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        for network in harness.networks(app).values():
            assert all(keras.backend.standardize_dtype(item.dtype) == "float32" for item in network.outputs)
    finally:
        keras.config.set_dtype_policy(before)


SERVE = """
import pathlib, sys
sys.modules["kerasgal"] = sys.modules["keras"] = None
import numpy as np, tensorflow as tf
for path in sorted(pathlib.Path(sys.argv[1]).glob("*.npz")):
    model = tf.saved_model.load(str(path.with_suffix("")))
    with np.load(path) as stored:
        inputs = [stored[f"arr_{number}"] for number in range(len(stored.files) - 1)]
        found = np.asarray(model.serve(inputs if len(inputs) > 1 else inputs[0]))
        scale = np.abs(stored["outputs"]).max()
        assert scale > 0
        print("difference", path.stem, float(np.abs(found - stored["outputs"]).max() / scale))
"""


@pytest.mark.slow  # test_export.py has one in this process
@pytest.mark.parametrize("apps", [["halomass"], [app for app in APPS if app != "halomass"]],
                         ids=["one app", "the rest"])
def test_every_saved_model_serves_without_keras_or_our_code(trained, tmp_path, apps):
    for app in apps:
        run = kg.load(trained(app))
        name = app.replace(" ", "_")
        options = harness.RECIPES[app].export
        assert run.export(tmp_path / name, **options) == tmp_path / name
        network, description = run.served(**options)
        inputs = [10 * field for field in harness.inputs_of(network)]  # so that hardly trained diffusion draws galaxies
        np.savez(tmp_path / f"{name}.npz", *inputs, outputs=harness.outputs_of(network, inputs))
        stored = json.loads((tmp_path / name / "kerasgal.json").read_text())
        assert stored["app"] == app and "input" in stored and "output" in stored
        assert stored["domain"] == json.loads(json.dumps(run.domain))
    found = differences(harness.in_another_process(SERVE, tmp_path))
    assert len(found) == len(apps) and all(value < 1e-4 for value in found.values()), found


@pytest.mark.parametrize("app", APPS)
def test_a_run_is_what_all_runs_are(app, trained):
    run, again = (kg.load(trained(app)) for _ in range(2))
    assert type(again) is type(run) is registry.run_class(app)
    assert again.config == run.config == harness.config_of(app)
    assert again.domain and again.domain == run.domain
    assert len(repr(again).splitlines()) == 3 and "loss" in repr(again)
    assert again.history and all(np.isfinite(row["loss"]) for row in again.history)
    assert "trainable parameters" in again.summary()
    for phase, network in again.networks.items():
        for one, other in zip(network.get_weights(), run.networks[phase].get_weights()):
            np.testing.assert_array_equal(one, other)
    assert type(run).__name__ in dir(kg) and getattr(kg, type(run).__name__) is type(run)


@pytest.mark.parametrize("app", APPS)
def test_no_run_is_judged_on_nothing(app, trained):
    with pytest.raises(kg.SettingError, match="expected sets of images" if app == "morph" else "there is nothing to"):
        kg.load(trained(app)).evaluate([])


@pytest.mark.parametrize("app", [app for app in APPS if app != "morph"])
def test_no_simulation_counts_twice(app, trained, request):
    box = request.getfixturevalue(harness.RECIPES[app].data)[2]
    with pytest.raises(kg.SettingError, match="box_2.h5 is given twice"):
        kg.load(trained(app)).evaluate([box, str(box)])


@pytest.mark.parametrize("app", APPS)
@pytest.mark.parametrize("preset", config.PRESETS)
def test_every_configuration_is_read_as_it_was_written(app, preset, tmp_path):
    cls = registry.run_class(app)
    made = cls.configure(preset=preset)
    config.write(made, tmp_path / "config.json", app=app)
    (tmp_path / "config.toml").write_text(config.toml(made))
    for name in ("config.json", "config.toml"):
        assert config.read(cls.Config, tmp_path / name) == made


@pytest.mark.parametrize("app", APPS)
def test_every_setting_refuses_what_is_wrong_and_stands_under_a_heading(app):
    cls = registry.run_class(app)
    assert config.sections(cls.Config)[0][0] != "Settings"
    for field in dataclasses.fields(cls.Config):
        wrong = {int: 2.5, float: "much", str: 7, bool: "yes"}[field.type]
        with pytest.raises(kg.SettingError, match=field.name):
            cls.Config(**{field.name: wrong})
        if field.metadata["choices"]:
            with pytest.raises(kg.SettingError, match=field.name):
                cls.Config(**{field.name: "no such choice"})
        if field.metadata["minimum"] is not None and field.type is not str:
            with pytest.raises(kg.SettingError, match=field.name):
                cls.Config(**{field.name: field.metadata["minimum"] - 1})


@pytest.mark.parametrize("app", APPS)
def test_every_command_stands_in_one_grammar(app):
    import click

    group = registry.group_of(app.split()[0])
    for word in app.split()[1:]:
        group = group.commands[word]
    assert {"summary", "config", "train", "predict", "evaluate", "export"} <= set(group.commands)
    for verb in ("predict", "evaluate", "export"):
        first = next(parameter for parameter in group.commands[verb].params if isinstance(parameter, click.Argument))
        assert first.name == "run"
        assert "output" in {parameter.name for parameter in group.commands[verb].params}
    assert "figures" in {parameter.name for parameter in group.commands["evaluate"].params}
