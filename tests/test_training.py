import csv
import dataclasses
import json
import math
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from unittest import mock

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasgal import config as configuration
from kerasgal import run_folder, training, workers  # noqa: F401 (programs below take it from here)
from kerasgal.errors import DataError, RunError, UnseenError
from kerasgal.muon import Muon
from kerasgal.training import TrainingConfig, TrainingInterrupted, train

TINY = ["--preset", "demo", "--minimum", "20", "--patch", "16", "--stride", "4", "--margin", "2", "--levels", "1",
        "--filters", "4", "--dropout", "0.2"]


def build(rate=0.01):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "tanh"), keras.layers.Dropout(0.3),
                              keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(rate), "mse")
    return model


def frozen():
    """A network whose training leaves the weights that it began with."""
    model = build()
    model.compile(keras.optimizers.SGD(0.0), "mse")
    return model


def wide(units):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(units)])
    model.compile(keras.optimizers.Adam(), "mse")
    return model


def stream(first):
    def sample(number):
        x = tf.random.stateless_normal((4,), (0, tf.cast(number, tf.int32)))
        return x, tf.reduce_sum(x, keepdims=True)
    return tf.data.Dataset.counter(first).map(sample).batch(8)


def validation(devices=1):
    return stream(10**6).take(2)


def run(folder, epochs=4, **options):
    names = ("patience", "precision", "strategy", "averaging", "accumulation")
    settings = {name: options.pop(name) for name in names if name in options}
    config = TrainingConfig(batch=8, epochs=epochs, steps_per_epoch=options.pop("steps", 5),
                            seed=options.pop("seed", 3), **settings)
    return train(options.pop("build", build), options.pop("stream", stream), options.pop("validation", validation),
                 config, folder, app="test", data=options.pop("data", {}), **options)


def last_weights(folder):
    with h5py.File(folder / "last.weights.h5") as file:
        names = []
        file.visititems(lambda name, item: names.append(name) if hasattr(item, "shape") else None)
        return {name: file[name][...] for name in names}


def assert_same_weights(one, other, rtol=0.0):
    one, other = last_weights(one), last_weights(other)
    assert one.keys() == other.keys() and any("optimizer" in name for name in one)
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=rtol, atol=rtol, err_msg=name)


def test_a_run_folder_holds_what_made_it(tmp_path):
    model = run(tmp_path / "run")
    folder = tmp_path / "run"
    rows = list(csv.DictReader((folder / "history.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    best = min(float(row["val_loss"]) for row in rows)
    assert model.evaluate(validation(), verbose=0) == pytest.approx(best, rel=1e-5)
    stored = json.loads((folder / "config.json").read_text())
    assert stored["app"] == "test" and stored["config"]["steps_per_epoch"] == 5
    provenance = json.loads((folder / "provenance.json").read_text())
    session, = provenance["sessions"]
    assert session["versions"]["keras"] == keras.__version__ and session["precision"] == "float32"
    assert provenance["parameters"] == model.count_params()
    assert provenance["wall_seconds"] == pytest.approx(float(rows[-1]["seconds"]), abs=0.1)
    assert (folder / "loss.png").stat().st_size > 1000
    lines = (folder / "log.txt").read_text().splitlines()
    assert len(lines) == 4 and "epoch 4/4: loss" in lines[3] and "ms a step, 0 s left" in lines[3]
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_tensorboard_logs_are_written(tmp_path):
    pytest.importorskip("tensorboard")
    run(tmp_path / "run", epochs=1, tensorboard=True)
    assert list((tmp_path / "run" / "tensorboard").rglob("events.out.tfevents*"))


@pytest.mark.parametrize("optimizer", [keras.optimizers.Adam, Muon])
def test_resumed_is_uninterrupted(tmp_path, optimizer):
    def stepped():
        model = build()
        model.compile(optimizer(0.01), "mse")
        return model

    run(tmp_path / "whole", build=stepped)
    run(tmp_path / "parts", build=stepped, epochs=2)
    run(tmp_path / "parts", build=stepped, resume=True)
    assert_same_weights(tmp_path / "whole", tmp_path / "parts")
    histories = [[{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(
        (tmp_path / name / "history.csv").open())] for name in ("whole", "parts")]
    assert histories[0] == histories[1]
    run(tmp_path / "other", build=stepped, seed=4)
    with pytest.raises(AssertionError):
        assert_same_weights(tmp_path / "whole", tmp_path / "other")


def test_patience_stops_and_stays_stopped(tmp_path):
    def worsening(first):
        return stream(first).map(lambda x, y: (x, y + 1000.0))  # ever farther from the validation data

    run(tmp_path / "run", epochs=50, patience=3, build=lambda: build(1.0), stream=worsening)
    rows = list(csv.DictReader((tmp_path / "run" / "history.csv").open()))
    best = int(np.argmin([float(row["val_loss"]) for row in rows]))
    assert len(rows) == best + 1 + 3
    run(tmp_path / "run", epochs=50, patience=3, build=lambda: build(1.0), stream=worsening, resume=True)
    assert len(list(csv.DictReader((tmp_path / "run" / "history.csv").open()))) == len(rows)


@pytest.mark.parametrize("patience, losses, stopped", [
    (0, [3, 2, 1], True), (2, [3, 1, 2, 2], False), (3, [3, 1, 2, 2], True), (0, [1] * 9, False), (0, [], False)])
def test_a_training_that_patience_ended_was_not_stopped(patience, losses, stopped, tmp_path):
    if losses:
        rows = [{"epoch": epoch, "loss": 1.0, "val_loss": loss} for epoch, loss in enumerate(losses, 1)]
        run_folder.write_history(rows, tmp_path)
    found = run_folder.notes_of_stopped(tmp_path, TrainingConfig(epochs=9, patience=patience))
    assert bool(found) is stopped and all(f"for {len(losses)} of 9 epochs" in note for note in found)


def test_nan_stops_with_a_clear_message(tmp_path):
    def breaking(first):
        return stream(first).map(lambda x, y: (x, y * math.nan))

    with pytest.raises(DataError, match="the loss became nan in epoch 1, step 1"):
        run(tmp_path / "run", stream=breaking)


def test_nan_in_validation_stops_too(tmp_path):
    with pytest.raises(DataError, match="val_loss became nan in epoch 1"):
        run(tmp_path / "run", validation=lambda devices: validation().map(lambda x, y: (x, y * math.nan)))


def killed_in_the_first_epoch(folder, **options):
    def dying(first):
        return stream(first).map(lambda x, y: (x, tf.ensure_shape(tf.py_function(die, [y], tf.float32), y.shape)))

    def die(y):
        raise ValueError("killed")

    with pytest.raises(tf.errors.OpError, match="killed"):
        run(folder, stream=dying, **options)
    assert not (folder / "last.weights.h5").exists()


def test_a_run_killed_in_its_first_epoch_starts_again(tmp_path):
    killed_in_the_first_epoch(tmp_path / "run")
    run(tmp_path / "run", resume=True)
    run(tmp_path / "whole")
    assert_same_weights(tmp_path / "run", tmp_path / "whole")


def test_resuming_begins_from_the_weights_that_the_run_was_to_begin_from(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"

    run(first, epochs=1)
    killed_in_the_first_epoch(second, init=first, epochs=1, build=frozen)
    model = run(second, epochs=1, resume=True, build=frozen)
    for one, other in zip(model.get_weights(), run_folder.load_weights(build(), first).get_weights()):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(RunError, match="began from the weights of .*first, not from those of .*other"):
        run(second, epochs=2, resume=True, init=tmp_path / "other")
    with pytest.raises(RunError, match="first began from random weights, not from those of .*second"):
        run(first, epochs=2, resume=True, init=second)


def test_data_that_the_weights_saw_with_which_a_run_began_are_seen(tmp_path):
    folders = [tmp_path / name for name in ("first", "second", "third")]
    for number, folder in enumerate(folders):
        data = {"training": [f"/training_{number}"], "validation": [f"/validation_{number}"]}
        run(folder, epochs=1, steps=1, init=folders[number - 1] if number else None, data=data)
    for kind in ("training", "validation"):
        for number in range(3):
            with pytest.raises(UnseenError, match=f"{kind}_{number} was used in the training of .*third"):
                run_folder.check_unseen(folders[2], [f"/{kind}_{number}"])
        run_folder.check_unseen(folders[0], [f"/{kind}_1"])
    assert run_folder.recorded_data(folders[2]) == (("/training_2",), ("/validation_2",))


def test_mixed_precision_is_refused_on_a_cpu(tmp_path):
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("this machine has a GPU")
    for precision in ("mixed_float16", "mixed_bfloat16"):
        with pytest.raises(DataError, match=f"precision={precision} trains wrongly without a GPU"):
            run(tmp_path / "run", precision=precision)
    assert not (tmp_path / "run").exists()


def test_after_a_training_in_mixed_precision_all_is_float32(tmp_path, monkeypatch):
    built = []

    def building():
        built.append(keras.config.dtype_policy().name)
        return wide(1)

    monkeypatch.setattr(workers, "accelerators", lambda backend: ["a GPU"])
    monkeypatch.setattr(training, "fit", lambda state, *given: run_folder.save_best(state.model, state.folder))
    model = run(tmp_path / "run", precision="mixed_bfloat16", build=building)
    assert built == ["mixed_bfloat16", "float32"] and model(np.ones((1, 4), "f4")).dtype == "float32"
    assert keras.config.dtype_policy().name == "float32"
    with pytest.raises(DataError, match="the loss"):
        monkeypatch.setattr(training, "fit", mock.Mock(side_effect=DataError("the loss became nan")))
        run(tmp_path / "other", precision="mixed_bfloat16")
    assert keras.config.dtype_policy().name == "float32"


def test_in_float16_what_is_kept_and_validated_is_the_average_of_the_weights(tmp_path, monkeypatch):
    """The average of three steps, by hand: beginning with the weights of the first, momentum 0.5."""
    steps = []

    class Averaging(keras.Sequential):
        def train_step(self, data):
            logs = super().train_step(data)
            steps.append(self.layers[0].kernel.numpy())
            return logs

    def building():
        model = Averaging([keras.Input((4,)), keras.layers.Dense(1)])
        model.compile(keras.optimizers.Adam(0.1, use_ema=True, ema_momentum=0.5), "mse", run_eagerly=True,
                      loss_weights=[1e-3])  # no overflow
        return model

    monkeypatch.setattr(workers, "accelerators", lambda backend: ["a GPU"])
    model = run(tmp_path / "run", epochs=1, steps=3, precision="mixed_float16", build=building)
    expected = steps[0] / 4 + steps[1] / 4 + steps[2] / 2
    np.testing.assert_allclose(model.layers[0].kernel.numpy(), expected, rtol=1e-5)
    validated = model.evaluate(validation(), verbose=0)
    assert float(losses(tmp_path / "run")[0][1]) == pytest.approx(validated, rel=0.01)


def test_folders_are_not_lost(tmp_path):
    run(tmp_path / "run", epochs=1)
    with pytest.raises(DataError, match="exists already; give resume=True"):
        run(tmp_path / "run")
    with pytest.raises(DataError, match="was trained with another seed"):
        run(tmp_path / "run", resume=True, seed=9)
    with pytest.raises(DataError, match="was trained on other data"):
        run(tmp_path / "run", resume=True, data={"training": ["elsewhere"]})
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text('{"app": "thesis"}')
    with pytest.raises(DataError, match="is not a run folder of test"):
        run(tmp_path / "mine", overwrite=True)
    with pytest.raises(DataError, match="is not a run folder"):
        run(tmp_path / "none", resume=True)
    measured = tmp_path / "run" / "measured.json"  # with the weights
    measured.touch()
    run(tmp_path / "run", resume=True, epochs=2, stale=(measured.name,))
    assert not measured.exists()
    measured.touch()
    with pytest.raises(DataError, match="was meant for 2 epochs, received 1"):
        run(tmp_path / "run", resume=True, epochs=1, stale=(measured.name,))
    with pytest.raises(DataError, match="does not fit the network"):
        run(tmp_path / "run", overwrite=True, init=tmp_path / "run", build=lambda: wide(9), stale=(measured.name,))
    (tmp_path / "run" / "last.weights.h5").unlink()
    with pytest.raises(DataError, match="has no last.weights.h5"):
        run(tmp_path / "run", resume=True, epochs=2, stale=(measured.name,))
    assert measured.exists() and (tmp_path / "run" / "best.weights.h5").exists()


def test_learning_rates_fall_as_their_formulas_say():
    rate, step = 2e-3, np.array([0, 1, 7, 20, 39, 40])
    for settings, expected in (
            ({"decay": "cosine", "epochs": 8}, rate * (1 + np.cos(np.pi * step / 40)) / 2),
            ({"decay": "exponential", "decay_factor": 0.3, "decay_epochs": 2}, rate * 0.3**(step / 10)),
            ({"decay": "exponential", "decay_factor": 0.99, "decay_epochs": 0}, rate * 0.99**step),
            ({"decay": "step", "decay_factor": 0.3, "decay_epochs": 2}, rate * 0.3**(step // 10))):
        found = training.learning_rate(TrainingConfig(learning_rate=rate, steps_per_epoch=5, **settings))
        np.testing.assert_allclose([float(found(number)) for number in step], expected, rtol=1e-5, atol=1e-9)


def test_a_run_whose_learning_rate_falls_to_its_end_is_not_given_another(tmp_path):
    kept = {decay: TrainingConfig(epochs=4, decay=decay) for decay in ("cosine", "step")}
    for decay, config in kept.items():
        (tmp_path / decay).mkdir()
        configuration.write(config, tmp_path / decay / "config.json", app="test")
    longer = {decay: dataclasses.replace(config, epochs=5) for decay, config in kept.items()}
    with pytest.raises(RunError, match=r"trained with another epochs \(on which the decay of the learning rate"):
        run_folder.check_resumed(tmp_path / "cosine", longer["cosine"], "test", {})
    run_folder.check_resumed(tmp_path / "cosine", kept["cosine"], "test", {})
    run_folder.check_resumed(tmp_path / "step", longer["step"], "test", {})


def test_a_full_disk_is_one_line_and_leaves_the_state_before(tmp_path, monkeypatch):
    model = frozen()
    state = training.State(model, TrainingConfig(epochs=4), tmp_path, True, "val_loss")
    state.save()
    before, state.epoch = (tmp_path / "last.weights.h5").read_bytes(), 1
    monkeypatch.setattr(model, "save_weights", mock.Mock(side_effect=OSError(28, "No space left on device")))
    with pytest.raises(DataError, match=r"the state of training cannot be written \(.*No space left on device\); .* "
                                        "holds the 1 epochs before, resume=True goes on with it"):
        state.save()
    assert [path.name for path in tmp_path.iterdir()] == ["last.weights.h5"]
    assert (tmp_path / "last.weights.h5").read_bytes() == before


def test_weights_of_another_network_are_refused(tmp_path):
    run(tmp_path / "run", epochs=1)
    other = wide(9)
    with pytest.raises(DataError, match="does not fit the network"):
        run_folder.load_weights(other, tmp_path / "run")
    with pytest.raises(DataError, match="has no weights"):
        run_folder.load_weights(other, tmp_path)


def in_a_terminal(command, until, key):
    """Run a command in a terminal of its own and press a key once `until` has happened: exit code and output."""
    process, terminal = pty.fork()
    if not process:
        os.execv(sys.executable, [sys.executable, "-m", "kerasgal", *map(str, command)])
    said, pressed, deadline = b"", False, time.monotonic() + 900
    while time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.05)[0]:
            try:
                said += os.read(terminal, 2**16)
            except OSError:  # the terminal is closed
                break
        if not pressed and until(said):
            os.write(terminal, key)
            pressed = True
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), said.decode()


@pytest.mark.slow
def test_a_run_killed_or_stopped_in_mid_epoch_and_resumed_is_the_uninterrupted_one(boxes, tmp_path, invoke):
    command = [*boxes[:2], *TINY, "--epochs", "3", "--steps-per-epoch", "30"]
    invoke("protohalo", "train", *command, "--run", tmp_path / "whole")
    killed = subprocess.Popen([sys.executable, "-m", "kerasgal", "protohalo", "train", *map(str, command), "--run",
                               str(tmp_path / "killed")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    history = tmp_path / "killed" / "history.csv"
    deadline = time.monotonic() + 900
    while not history.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.1)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert len(list(csv.DictReader(history.open()))) < 3, "killed too late to test anything"
    stopped = tmp_path / "stopped"
    code, said = in_a_terminal(["protohalo", "train", *command, "--run", stopped],
                               lambda said: b"epoch 2/3" in said, b"\x03")
    assert code == 130 and "stopped in epoch 2, after step" in said and "go on with --resume" in said
    assert (stopped / "loss.png").exists()
    for name in ("killed", "stopped"):
        invoke("protohalo", "train", "--run", tmp_path / name, "--resume")  # the folder knows the rest
        assert_same_weights(tmp_path / "whole", tmp_path / name)


def stopping_after(steps, asked=signal.SIGINT):
    """A training stream that sends this process a signal once so many batches are made of it, and goes on."""
    def made(first):
        def count(x):
            if first // 8 + made.batches == steps:
                os.kill(os.getpid(), asked)
            made.batches += 1
            return x

        made.batches = 0
        return stream(first).map(lambda x, y: (tf.ensure_shape(tf.py_function(count, [x], tf.float32), x.shape), y))

    return made


@pytest.mark.parametrize("averaging", [pytest.param(0.0, marks=pytest.mark.slow), 0.9], ids=["plain", "averaged"])
def test_ctrl_c_ends_the_step_and_resuming_gives_the_uninterrupted_run(tmp_path, averaging):
    def averaged():
        model = build()
        model.compile(keras.optimizers.Adam(0.01, use_ema=averaging > 0, ema_momentum=averaging or 0.99), "mse")
        return model

    options = {"epochs": 3, "steps": 40, "build": averaged}
    before = signal.getsignal(signal.SIGINT)
    run(tmp_path / "whole", **options)
    with pytest.raises(TrainingInterrupted, match=r"stopped in epoch 2, after step \d+ of 40; go on with resume=True"):
        run(tmp_path / "stopped", stream=stopping_after(60), **options)
    with h5py.File(tmp_path / "stopped" / "last.weights.h5") as file:
        state = json.loads(file.attrs["state"])
    assert state["epoch"] == 1 and 0 < state["step"] < 40
    run(tmp_path / "stopped", resume=True, **options)
    assert_same_weights(tmp_path / "whole", tmp_path / "stopped")
    assert losses(tmp_path / "whole") == losses(tmp_path / "stopped")
    assert signal.getsignal(signal.SIGINT) is before


def losses(folder):
    return [(row["loss"], row["val_loss"]) for row in csv.DictReader((folder / "history.csv").open())]


def test_accumulated_gradients_are_those_of_the_larger_batch(tmp_path):
    def plain(accumulation):
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(0.01, gradient_accumulation_steps=accumulation), "mse")
        return model

    def batches(size):
        return lambda first: stream(first).unbatch().batch(size)

    run(tmp_path / "large", epochs=1, steps=5, build=lambda: plain(None), stream=batches(16))
    run(tmp_path / "small", epochs=1, steps=10, build=lambda: plain(2), stream=batches(8), accumulation=2)
    kernels = []
    for name in ("large", "small"):
        with h5py.File(tmp_path / name / "last.weights.h5") as file:
            kernels.append(file["layers/dense/vars/0"][...])
    np.testing.assert_allclose(kernels[0], kernels[1], rtol=1e-5)


def test_the_best_weights_are_kept_without_the_optimiser(tmp_path):
    model = run(tmp_path / "run", epochs=2)
    with h5py.File(tmp_path / "run" / "best.weights.h5") as file:
        assert "optimizer" not in file
    best, last = ((tmp_path / "run" / f"{name}.weights.h5").stat().st_size for name in ("best", "last"))
    assert best < last
    other = build()
    run_folder.load_weights(other, tmp_path / "run")
    x = np.ones((2, 4), np.float32)
    np.testing.assert_array_equal(other.predict(x, verbose=0), model.predict(x, verbose=0))


def test_training_starts_from_the_weights_of_another_run(tmp_path):
    run(tmp_path / "first", epochs=3)
    model = run(tmp_path / "second", epochs=1, init=tmp_path / "first", build=frozen)
    for one, other in zip(model.get_weights(), run_folder.load_weights(build(), tmp_path / "first").get_weights()):
        np.testing.assert_array_equal(one, other)
    provenance = json.loads((tmp_path / "second" / "provenance.json").read_text())
    assert provenance["weights_from"] == str(tmp_path / "first")


def test_memory_that_runs_out_in_training_is_one_line(tmp_path):
    def greedy():
        def step(batch):
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

        model = build()
        model.train_step = step
        return model

    with pytest.raises(DataError, match="out of memory in training with batch=8: try batch=4 and accumulation=2"):
        run(tmp_path / "run", build=greedy)


def test_a_disk_without_room_for_an_epoch_is_said_before_the_first_and_keeps_the_last(tmp_path, monkeypatch):
    run(tmp_path / "run", epochs=1)
    kept = (tmp_path / "run" / "last.weights.h5").read_bytes()
    (tmp_path / "run" / "measured.json").touch()
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    with pytest.raises(DataError, match=r"no space left for an epoch of .*: it needs [\d.]+ MB, and 0.001 MB are free"):
        run(tmp_path / "none", epochs=1)
    with pytest.raises(DataError, match="the 1 epochs before are kept"):
        run(tmp_path / "run", epochs=2, resume=True, stale=("measured.json",))
    with pytest.raises(DataError, match="no space left for an epoch"):
        run(tmp_path / "run", epochs=2, overwrite=True)
    assert (tmp_path / "run" / "last.weights.h5").read_bytes() == kept and not (tmp_path / "none").exists()
    assert (tmp_path / "run" / "measured.json").exists()


def test_a_disk_that_fills_up_is_one_line(tmp_path):
    """A small file system in memory, where tests may mount one: what is on it stays as it was."""
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", small], capture_output=True).returncode:
        pytest.skip("no right to mount a file system")
    try:
        run(small / "run", epochs=1)
        kept = (small / "run" / "last.weights.h5").read_bytes()
        (small / "ballast").write_bytes(bytes(2 * 2**20))
        with pytest.raises(DataError) as error:
            run(small / "run", epochs=2, resume=True)
        assert len(str(error.value).splitlines()) == 1 and "the 1 epochs before are kept" in str(error.value)
        assert (small / "run" / "last.weights.h5").read_bytes() == kept
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_second_training_into_the_same_folder_is_refused(tmp_path):
    program = ("import sys\nfrom kerasgal import run_folder\n"
               "try:\n    with run_folder.locked(sys.argv[1]):\n        pass\n"
               "except run_folder.RunError as error:\n    print(error)\n")
    with run_folder.locked(tmp_path / "run"):
        done = subprocess.run([sys.executable, "-c", program, tmp_path / "run"], capture_output=True, text=True)
    assert "is being trained by another process" in done.stdout, done.stderr
    assert list(tmp_path.iterdir()) == []
    with run_folder.locked(tmp_path / "run"):  # free again
        pass


# One of two workers, the second of which kills itself; or one that goes on alone, and then two devices.
PROGRAM = """
import json, os, pathlib, signal, sys
sys.path.insert(0, sys.argv[1])
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import test_training
from kerasgal.errors import DataError
folder, build = pathlib.Path(sys.argv[2]), test_training.without_dropout
description = json.loads(os.environ["TF_CONFIG"])
if len(description["cluster"]["worker"]) == 1:
    test_training.run(folder / "workers", build=build, strategy="workers", resume=True)
    test_training.run(folder / "mirrored", build=build, strategy="mirrored")
    sys.exit()
test_training.workers.LOOK = 0.5
killed = {"stream": test_training.stopping_after(14, signal.SIGKILL)} if description["task"]["index"] else {}
try:
    test_training.run(folder / "workers", build=build, strategy="workers", **killed)
except DataError as error:
    print(error)
"""


def without_dropout():
    """A network without dropout, whose masks differ between devices."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.01), "mse")
    return model


def start(command, workers=None, index=0):
    environment = dict(os.environ)
    if workers:
        environment["TF_CONFIG"] = json.dumps({"cluster": {"worker": workers},
                                               "task": {"type": "worker", "index": index}})
    return subprocess.Popen([sys.executable, *map(str, command)], env=environment, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True)


def finish(*processes, codes=None):
    try:
        outputs = [process.communicate(timeout=900)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == (codes or [0] * len(processes)), outputs
    return outputs


def free_addresses():
    with socket.socket() as one, socket.socket() as two:
        one.bind(("localhost", 0))
        two.bind(("localhost", 0))
        return [f"localhost:{sock.getsockname()[1]}" for sock in (one, two)]


@pytest.mark.slow
def test_two_devices_or_workers_take_the_steps_of_one_and_the_death_of_a_worker_is_noticed(tmp_path):
    command = ["-c", PROGRAM, os.path.dirname(__file__), tmp_path]
    one, other = free_addresses()
    run(tmp_path / "single", build=without_dropout)
    said, _ = finish(*(start(command, [one, other], index) for index in range(2)), codes=[0, -signal.SIGKILL])
    done = len(list(csv.DictReader((tmp_path / "workers" / "history.csv").open())))
    assert 1 <= done < 4
    assert said.splitlines()[-1] == (f"worker 1 ({other}) is gone: start all workers again; {tmp_path / 'workers'} "
                                     f"holds the {done} epochs before, resume=True goes on with it")
    finish(start(command, [one]))  # those that are left may go on
    assert_same_weights(tmp_path / "single", tmp_path / "mirrored", rtol=1e-4)
    assert_same_weights(tmp_path / "single", tmp_path / "workers", rtol=1e-4)
    losses = [[[float(row["loss"]), float(row["val_loss"])] for row in csv.DictReader(
        (tmp_path / name / "history.csv").open())] for name in ("single", "mirrored", "workers")]
    np.testing.assert_allclose(losses[1:], [losses[0]] * 2, rtol=1e-4)


# Both trainings in one process of JAX, whose compiler takes longer than all else.
ON_JAX = """
import pathlib, sys
sys.path.insert(0, sys.argv[1])
import keras
import test_training
from kerasgal.errors import DataError
from kerasgal.muon import Muon
made = []
def build():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8), keras.layers.Dense(1)])
    model.compile(Muon(0.01), "mse")  # of which Adam is a part
    made.append(model)
    return model
folder = pathlib.Path(sys.argv[2])
test_training.run(folder / "single", build=build, epochs=2)
test_training.run(folder / "mirrored", build=build, epochs=1, strategy="mirrored")
test_training.run(folder / "mirrored", build=build, epochs=2, strategy="mirrored", resume=True)
single, _, mirrored, last = made[0], *made[-3:]
print([len(model.trainable_variables[0].value.sharding.device_set) for model in (single, mirrored, last)])
assert keras.distribution.distribution() is None
for strategy in ("mirrored", "workers"):
    try:
        test_training.workers.prepare(test_training.TrainingConfig(strategy=strategy, batch=3))
    except DataError as error:
        print(error)
"""


@pytest.mark.slow
def test_two_devices_of_jax_take_the_steps_of_one(tmp_path):
    environment = {**os.environ, "KERAS_BACKEND": "jax", "TF_CONFIG": "{}",
                   "XLA_FLAGS": "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0"}
    done = subprocess.run([sys.executable, "-c", ON_JAX, os.path.dirname(__file__), tmp_path], env=environment,
                          capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-3:] == [
        "[1, 2, 1]", "batch=3 cannot be shared by 2 devices: give a multiple",
        "strategy=workers needs KERAS_BACKEND=tensorflow, received jax"]
    assert_same_weights(tmp_path / "single", tmp_path / "mirrored", rtol=1e-4)


@pytest.mark.slow
def test_two_workers_train_through_the_command_line(boxes, tmp_path):
    command = ["-m", "kerasgal", "protohalo", "train", *boxes, *TINY, "--epochs", "2", "--steps-per-epoch", "4",
               "--batch", "2", "--strategy", "workers", "--run", tmp_path / "run"]
    workers = free_addresses()
    said = finish(*(start(command, workers, index) for index in range(2)))
    assert not any("loading" in each for each in said)  # which a terminal is told
    assert len(list(csv.DictReader((tmp_path / "run" / "history.csv").open()))) == 2
    assert (tmp_path / "run" / "calibration.json").exists()


def test_strategies_that_cannot_work_are_refused(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="TF_CONFIG"):
        run(tmp_path / "run", strategy="workers")
    monkeypatch.setenv("TF_CONFIG", "{")
    with pytest.raises(DataError, match="is not a TensorFlow cluster"):
        run(tmp_path / "run", strategy="workers")


@pytest.mark.parametrize("cluster, task, expected", [
    ({"worker": ["a", "b"]}, {"type": "worker", "index": 0}, True),
    ({"worker": ["a", "b"]}, {"type": "worker", "index": 1}, False),
    ({"chief": ["a"], "worker": ["b"]}, {"type": "chief", "index": 0}, True),
    ({"chief": ["a"], "worker": ["b"]}, {"type": "worker", "index": 0}, False),
])
def test_one_process_writes(cluster, task, expected, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": task}))
    assert workers.is_chief(TrainingConfig(strategy="workers")) is expected


class Absent:
    """The other workers, some of which do not answer."""

    def __init__(self, monkeypatch, *gone, look=0.01):
        self.gone, self.aborted = set(gone), threading.Event()
        monkeypatch.setattr(workers, "LOOK", look)
        monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": {"chief": ["a:1"], "worker": ["b:1", "c:1"]},
                                                    "task": {"type": "worker", "index": 0}}))
        monkeypatch.setattr(workers, "_answers", lambda worker: worker not in self.gone)
        monkeypatch.setattr(workers, "_abort", lambda why: self.aborted.set())


CHIEF, SECOND = "/job:chief/replica:0/task:0", "/job:worker/replica:0/task:1"
BY_WORKERS = TrainingConfig(strategy="workers")


@pytest.mark.parametrize("gone, words", [
    ([CHIEF], r"^chief 0 \(a:1\) is gone: start all workers again$"),
    ([SECOND, CHIEF], r"^chief 0 \(a:1\), worker 1 \(c:1\) are gone: start all workers again$")])
def test_workers_that_do_not_answer_are_named(gone, words, monkeypatch, tmp_path):
    absent = Absent(monkeypatch, *gone)
    with pytest.raises(DataError, match=words), workers.watched(BY_WORKERS, tmp_path):
        assert absent.aborted.wait(60)
        raise tf.errors.UnavailableError(None, None, "Collective ops is aborted")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(DataError, match="start all workers again, with resume=True$"), \
         workers.watched(BY_WORKERS, tmp_path):  # TensorFlow is the first to know
        raise tf.errors.UnavailableError(None, None, "Connection reset by peer")


def test_a_worker_that_answers_late_or_after_all_is_done_is_not_taken_to_be_gone(monkeypatch, tmp_path):
    absent = Absent(monkeypatch, SECOND, look=60)
    with workers.watched(BY_WORKERS, tmp_path) as watch:
        assert not watch.look() and not watch.look()
        absent.gone.clear()
        assert not watch.look()
        absent.gone.add(SECOND)
        assert [watch.look() for _ in range(3)] == [False, False, True]
    absent = Absent(monkeypatch, SECOND)
    with workers.watched(BY_WORKERS, tmp_path) as watch:
        watch.state = mock.Mock(finished=True)
        assert not absent.aborted.wait(0.3)


def test_other_errors_of_workers_stay_what_they_are(monkeypatch, tmp_path):
    Absent(monkeypatch, look=60)
    for error in (DataError("the loss became nan"), tf.errors.InvalidArgumentError(None, None, "shapes")):
        with pytest.raises(type(error)) as found, workers.watched(BY_WORKERS, tmp_path):
            raise error
        assert found.value is error
    with pytest.raises(DataError, match="^another worker is gone"), workers.watched(BY_WORKERS, tmp_path):
        raise tf.errors.AbortedError(None, None, "all answer")
    with pytest.raises(tf.errors.AbortedError), workers.watched(TrainingConfig(), tmp_path):
        raise tf.errors.AbortedError(None, None, "without other workers")
