"""Training on whole boxes: the network sees the other side of the box beyond a face."""

import keras
import numpy as np
import pytest

from kerasgal import load
from kerasgal.apps.protohalo import predict, train
from kerasgal.apps.protohalo.config import TrainConfig
from kerasgal.apps.protohalo.run import Protohalo
from kerasgal.config import preset, replace
from kerasgal.errors import DataError, SettingError
from kerasgal.periodic import periodic

SMALL = {"patch": 32, "whole": True, "margin": 0, "levels": 2, "filters": 4, "minimum": 30, "epochs": 1,
         "steps_per_epoch": 4}


def small(**settings):
    return replace(preset(TrainConfig, "demo"), {**SMALL, **settings})


def test_its_loss_is_that_of_all_cells_of_a_box_without_faces():
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    field, target = rng.normal(size=(1, 32, 32, 32, 1)), rng.uniform(size=(1, 32, 32, 32, 1))
    network = train.compiled(small())
    loss = network.test_on_batch(field, target)
    said = np.asarray(network(field, training=False))
    assert loss == pytest.approx(np.abs(said - target).sum() / target.sum(), rel=1e-5)
    moved = [np.roll(array, (4, 8, 16), (1, 2, 3)) for array in (field, target)]
    assert network.test_on_batch(*moved) == pytest.approx(loss, rel=1e-5)
    # The same layers with zeros beyond the faces say something else there.
    padded = predict.build(small())
    padded.set_weights(network.get_weights())
    off = np.abs(np.asarray(padded(field)) - said)[0, ..., 0]
    assert off[0].mean() > 1e-3
    np.testing.assert_allclose(periodic(padded)(field), said, atol=1e-5)


def test_layers_are_told_that_they_are_trained():
    field = np.random.default_rng(0).normal(size=(1, 32, 32, 32, 1))
    network = train.compiled(small(output_slope=0.5, dropout=0.5))
    assert np.min(network(field, training=False)) == 0
    said = [np.asarray(network(field, training=True)) for _ in range(2)]
    assert np.min(said[0]) < 0 and not np.array_equal(*said)  # the slope below zero, and dropout


def test_parameters_are_given_to_a_network_of_whole_boxes():
    rng = np.random.default_rng(0)
    config = small(parameters="Om0,sigma8")
    network = train.compiled(config, parameters=np.float32([[0.3, 0.8], [0.2, 0.9]]))
    padded = predict.build(config)
    padded.set_weights(network.get_weights())
    given = rng.normal(size=(1, 32, 32, 32, 1)), np.float32([[0.25, 0.85]])
    np.testing.assert_allclose(network(given), periodic(padded)(given), atol=1e-5)


def test_a_run_is_trained_on_whole_boxes_by_command_and_predicts_like_any_other(boxes, tmp_path, invoke):
    folder = tmp_path / "run"
    flags = [word for name, value in SMALL.items() if name != "whole"
             for word in (f"--{name.replace('_', '-')}", value)]
    invoke("protohalo", "train", boxes[0], "--validation", boxes[1], "--preset", "demo", "--whole", *flags,
           "--run", folder)
    run = Protohalo.load(folder)
    assert run.config.whole
    # The validation loss in the history, from the run that was written
    (field, target), = train.load(boxes[1:2], run.config, Protohalo.store(None, folder))[0]
    network = train.compiled(run.config)
    network.set_weights(run.network.get_weights())
    assert network.test_on_batch(field[None], target[None]) == pytest.approx(run.history[-1]["val_loss"], rel=1e-4)
    assert run.predict(boxes[2])["distance"].shape == (32, 32, 32)


def test_what_does_not_fit_is_refused(boxes, tmp_path):
    with pytest.raises(SettingError, match="margin=4: a whole box has no face"):
        small(margin=4)
    with pytest.raises(DataError, match="has 32 cells a side: with whole=True they must be those of patch=16"):
        Protohalo.train(boxes[:1], boxes[1:2], run=tmp_path / "run", config=small(patch=16))
    assert not (tmp_path / "run").exists()


def test_the_network_that_ships_predicts_as_a_training_of_the_preset_would():
    """`make longer-protohalo` and `protohalo-longer` are of the same settings, but for how long the last part is."""
    made, shipped = preset(TrainConfig, "whole"), load("protohalo-longer").config
    named = [*made.groups["Prediction and watershed"], "channels", "whole", "margin", "minimum"]
    assert {name: getattr(shipped, name) for name in named} == {name: getattr(made, name) for name in named}
