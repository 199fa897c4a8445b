import subprocess
import sys

import keras
import numpy as np
import pytest

from kerasgal.apps.halomass import data, dense, predict, train
from kerasgal.apps.halomass.config import LIKELIHOODS, TrainConfig
from kerasgal.apps.halomass.run import HaloMass
from kerasgal.config import preset, replace
from kerasgal.simulation import Simulation

SMALL = {"low": 11.9, "high": 13.8, "samples": 600, "validation_samples": 100, "patch": 9, "convolutions": 3,
         "filters": 4, "dense": 16, "shells": 4, "extent": 2.0, "batch": 20, "epochs": 2, "steps_per_epoch": 30,
         "learning_rate": 3e-3}


def small(**settings):
    return replace(preset(TrainConfig, "demo"), {**SMALL, **settings}, origin="test")


def trained(boxes, folder, config=None, **options):
    return HaloMass.train(boxes[:1], boxes[1:2], run=folder, config=config or small(), **options)


def rounds_of(run):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in run.history]


def test_gamma_is_trained_and_in_the_history(boxes, tmp_path, eager):
    run = trained(boxes, tmp_path / "run", small(steps_per_epoch=10))
    rows = run.history
    assert [row["epoch"] for row in rows] == [1, 2] and abs(rows[-1]["val_gamma"] - 0.2) > 1e-3
    best = min(rows, key=lambda row: row["val_loss"])
    assert predict.scales_of(run.network) == pytest.approx(best["val_gamma"], rel=1e-5)
    layer = run.network.layers[1]
    samples = train.draw(boxes[:1], 600, run.config, run.config.seed)
    mean, deviation = data.moments(samples, run.config)
    np.testing.assert_allclose([layer.mean, layer.deviation], [mean, deviation], rtol=1e-5)


@pytest.mark.parametrize("likelihood", [
    name if name == "student_t" else pytest.param(name, marks=pytest.mark.slow)
    for name in LIKELIHOODS[1:]])
def test_every_likelihood_trains(boxes, tmp_path, eager, likelihood):
    run = trained(boxes, tmp_path / "run", small(likelihood=likelihood, epochs=1, steps_per_epoch=1, input="averaged"))
    scales = np.atleast_1d(predict.scales_of(run.network))
    assert len(scales) == (2 if likelihood in ("two_sided_cauchy", "student_t") else 1) and np.all(scales > 0)
    columns = [name for name in run.history[0] if name.startswith(("val_gamma", "val_nu"))]
    assert len(columns) == len(scales)


@pytest.mark.parametrize("settings", [
    pytest.param({"input": name}, marks=pytest.mark.slow) for name in ("averaged", "multipoles", "final")] + [
    {"channels": "density,displacement,tide", "padding": "none", "patch": 7}])
def test_every_input_trains_and_predicts(boxes, tmp_path, eager, settings):
    run = trained(boxes, tmp_path / "run", small(epochs=1, steps_per_epoch=1, **settings))
    with Simulation(boxes[2]) as simulation:
        particles, log_mass = data.sample_particles(simulation, 30, 11.9, 13.8, 0)
    found = predict.predict_particles(run.network, run.config, boxes[2], particles)
    np.testing.assert_array_equal(found["log_mass_true"], log_mass)
    np.testing.assert_allclose(found["log_mass"], 11.9 + (found["y"] + 1) / 2 * 1.9)
    assert found["y"].std() > 0 and np.isfinite(found["y"]).all()
    if run.config.padding == "none":
        with Simulation(boxes[2]) as simulation:
            mapped = dense.predict_map(run.network, run.config, simulation).ravel()
        np.testing.assert_allclose(mapped[particles], found["log_mass"], atol=1e-4)


@pytest.mark.slow
def test_a_resumed_run_is_the_uninterrupted_one(boxes, tmp_path, eager):
    whole = trained(boxes, tmp_path / "whole", small(steps_per_epoch=2))
    trained(boxes, tmp_path / "parts", small(steps_per_epoch=2, epochs=1))
    parts = HaloMass.train(run=tmp_path / "parts", resume=True, epochs=2)
    assert rounds_of(whole) == rounds_of(parts)


@pytest.mark.slow
def test_the_whole_keras_file_reloads_in_a_fresh_process_and_goes_on_training(boxes, tmp_path):
    config = small()
    model = train.compiled(config, [0.1], [2.0])
    samples = train.draw(boxes[:1], 60, config, 0)
    batch = next(iter(data.batches(samples, config)))
    model.train_on_batch(*batch)
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "batch.npz", *batch)
    program = ("import keras, numpy as np, kerasgal.apps.halomass.train\n"
               f"model = keras.models.load_model(r'{tmp_path}/model.keras')\n"
               f"batch = list(np.load(r'{tmp_path}/batch.npz').values())\n"
               "out = model(batch[0])\n"
               f"np.savez(r'{tmp_path}/out.npz', out, model.train_on_batch(*batch, return_dict=True)['loss'])")
    subprocess.run([sys.executable, "-c", program], check=True)
    out, loss = np.load(tmp_path / "out.npz").values()
    np.testing.assert_allclose(out, model(batch[0]), atol=1e-6)
    model.reset_metrics()
    assert float(loss) == pytest.approx(model.train_on_batch(*batch, return_dict=True)["loss"], rel=1e-4)
    assert isinstance(model.optimizer, keras.optimizers.Adam) and model.optimizer.amsgrad
