"""Training on whole boxes: the same network, targets and loss as cube by cube."""

import h5py
import keras
import numpy as np
import pytest

from kerasgal import load
from kerasgal.apps.halomass import data, dense, predict, train, whole
from kerasgal.apps.halomass.config import TrainConfig
from kerasgal.apps.halomass.losses import SelectionLikelihood
from kerasgal.apps.halomass.run import HaloMass
from kerasgal.config import preset, replace
from kerasgal.errors import DataError, SettingError
from kerasgal.simulation import Simulation

SMALL = {"low": 11.9, "high": 13.8, "patch": 7, "convolutions": 3, "filters": 4, "dense": 16, "batch": 2, "epochs": 2,
         "steps_per_epoch": 3, "learning_rate": 3e-3}


def small(**settings):
    return replace(preset(TrainConfig, "whole"), {**SMALL, **settings}, origin="test")


@pytest.mark.parametrize("patch, convolutions, channels", [(7, 3, 2), (5, 4, 1)])
def test_a_network_over_boxes_says_of_every_place_what_it_says_of_its_cube(patch, convolutions, channels):
    keras.utils.set_random_seed(1)
    config = small(patch=patch, convolutions=convolutions,
                   channels="density" if channels == 1 else "density,potential")
    network = predict.build(config)
    field = np.random.default_rng(0).normal(size=(32, 32, 32, channels)).astype(np.float32)
    found = np.asarray(whole.over_boxes(network, 32)(field[None]))[0]
    step, side = whole.spacing(config), data.cube_side(config)
    places = (32 // step,) * 3
    assert found.shape == (np.prod(places), 2)
    # Of every cell, by the phases of its poolings: that is another way, and is compared with single cubes itself.
    cells = np.roll(dense.predict_cells(network, field), -(side // 2), (0, 1, 2))[::step, ::step, ::step]
    np.testing.assert_allclose(found[:, 0].reshape(places), cells, atol=1e-5)
    assert cells.std() > 1e-3 and np.ptp(found[:, 1]) == 0


def test_boxes_and_their_targets_stay_together_under_shifts_and_symmetries(boxes):
    config = small()
    field, target = whole.load(boxes[0], config)
    with Simulation(boxes[0]) as simulation:
        log_mass = data.halo_log_mass(simulation, np.arange(32**3)).reshape(target.shape)
    wanted = (log_mass >= 11.9) & (log_mass <= 13.8)
    assert 0.1 < wanted.mean() < 0.9 and np.array_equal(np.isfinite(target), wanted)
    np.testing.assert_allclose(target[wanted], (log_mass[wanted] - 11.9) / 0.95 - 1, rtol=1e-5)
    # A field that tells the target: whoever turns one without the other is found out.
    telling = np.where(wanted, target, 7).astype(np.float32)
    middle, step = data.cube_side(config) // 2, whole.spacing(config)
    seen = set()
    for _, (box, said, weight) in zip(range(6), whole.batches([(telling, target)], config, seed=3)):
        expected = np.roll(box, -middle, (1, 2, 3))[:, ::step, ::step, ::step].reshape(said.shape)
        assert said.shape == (2, (32 // step) ** 3, 1) and weight.shape == said.shape[:2]
        np.testing.assert_array_equal(weight, (expected != 7)[..., 0])
        np.testing.assert_array_equal(said, np.where(expected != 7, expected, 0))
        seen.update(float(value) for value in np.asarray(box)[:, 0, 0, 0, 0])
    assert len(seen) > 3  # other origins
    assert [len(box) for box, *_ in whole.batches([(field, target)] * 2, config)] == [2, 2]


def test_the_loss_is_the_mean_over_what_has_a_weight():
    rng = np.random.default_rng(0)
    true, said = rng.uniform(-1, 1, (2, 5, 1)), rng.normal(size=(2, 5, 1))
    said = np.concatenate([said, np.full((2, 5, 1), 0.3)], axis=-1)
    weight = np.array([[1, 0, 0, 1, 1], [0, 0, 0, 1, 0]], "float32")
    chosen = weight.astype(bool)
    loss = SelectionLikelihood()
    single = float(loss(true[chosen], said[chosen]))
    assert float(loss(true, said, sample_weight=weight)) == pytest.approx(single, rel=1e-5)
    assert float(loss(np.where(chosen[..., None], true, 0), said, sample_weight=weight)) == pytest.approx(single, 1e-5)
    assert single == pytest.approx(np.mean([float(loss(one[None], two[None])) for one, two in
                                            zip(true[chosen], said[chosen])]), rel=1e-5)


def test_a_run_is_trained_on_whole_boxes_and_predicts_like_any_other(boxes, tmp_path, eager, caplog):
    with caplog.at_level("INFO"):
        run = HaloMass.train(boxes[:1], boxes[1:2], run=tmp_path / "run", preset="whole", **SMALL)
    assert "1 training boxes" in caplog.text
    losses = [row["val_loss"] for row in run.history]
    assert losses[-1] < losses[0] and run.config.whole
    layer = run.network.layers[1]
    with Simulation(boxes[0]) as simulation:
        assert float(layer.deviation[0]) == pytest.approx(float(simulation.delta().std()), rel=1e-4)
    # The validation loss that is recorded, from the map of the run that was written, at the places that it is taken at
    best = min(run.history, key=lambda row: row["val_loss"])
    scale, step = data.Scale(run.config.low, run.config.high), whole.spacing(run.config)
    _, target = whole.load(boxes[1], run.config)
    y = scale.to_target(run.predict(boxes[1], map=True)["log_mass"].astype(np.float64))
    true, said = [], []
    for shift in (0, step // 2):
        axis = np.sort((np.arange(0, 32, step) + data.cube_side(run.config) // 2 + shift) % 32)
        cells = np.ix_(axis, axis, axis)
        known = np.isfinite(target[..., 0][cells])
        true.append(target[..., 0][cells][known])
        said.append(y[cells][known])
    true, said = np.concatenate(true), np.concatenate(said)
    gamma = np.full(len(said), predict.scales_of(run.network))
    loss = float(SelectionLikelihood()(true[:, None], np.stack([said, gamma], axis=1)))
    prior = sum(float(value) for value in run.network.losses)
    assert loss + prior == pytest.approx(best["val_loss"], rel=1e-3)


def test_what_does_not_fit_is_refused(boxes, tmp_path):
    for settings, said in (({"padding": "same"}, "whole=True takes a network without padding"),
                           ({"parameters": "Om0"}, "without parameters"),
                           ({"input": "averaged", "channels": "density"}, "padding=none predicts whole boxes")):
        with pytest.raises(SettingError, match=said):
            HaloMass.configure(preset="whole", **settings)
    with pytest.raises(DataError, match="at least 40 cells a side, and a multiple of 4, received 32"):
        whole.load(boxes[0], small(convolutions=4, patch=21))
    field, target = whole.load(boxes[0], small())
    with pytest.raises(DataError, match="as many cells each, received \\[16, 32\\]"):
        whole.batches([(field, target), (field[::2, ::2, ::2], target[::2, ::2, ::2])], small())


def test_of_particles_finer_than_the_grid_a_cell_takes_its_first(boxes, tmp_path):
    with h5py.File(boxes[0]) as old, h5py.File(tmp_path / "coarse.h5", "w") as new:
        new.attrs.update(old.attrs)
        new["initial/delta"] = old["initial/delta"][::2, ::2, ::2]
        for name in ("halo_id", "halos"):
            old.copy(name, new)
        log_mass = np.append(np.log10(old["halos/mass"]), np.nan)[old["halo_id"][...]][::2, ::2, ::2]
    config = small(patch=5, convolutions=2)
    _, target = whole.load(tmp_path / "coarse.h5", config)
    wanted = (log_mass >= config.low) & (log_mass <= config.high)
    np.testing.assert_array_equal(np.isfinite(target[..., 0]), wanted)
    np.testing.assert_allclose(target[wanted][:, 0], (log_mass[wanted] - 11.9) / 0.95 - 1, rtol=1e-5)


def test_its_moments_are_those_of_all_cells(boxes):
    read = [whole.load(box, small()) for box in boxes[:2]]
    fields = np.stack([field for field, _ in read])
    mean, deviation = whole.moments(read)
    cells = (0, 1, 2, 3)
    np.testing.assert_allclose([mean, deviation], [fields.mean(cells), fields.std(cells)], rtol=1e-4, atol=1e-6)
    assert train.compiled(small(), mean, deviation, size=32).count_params() == predict.build(small()).count_params()


def test_the_network_that_ships_is_one_of_the_preset():
    assert load("halomass-longer").config == preset(TrainConfig, "whole")
