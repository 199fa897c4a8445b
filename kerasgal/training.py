"""Training into a run folder::

    config.json         the app and its configuration
    provenance.json     versions, git revision, data, parameters, precision, wall time
    best.weights.h5     weights of the epoch with the lowest monitored loss
    last.weights.h5     weights, optimiser and training state of the last epoch: what --resume starts from
    history.csv         one row per epoch
    loss.png            the loss curve
    tensorboard/        with --tensorboard

All randomness is folded from one seed and the epoch, and every epoch ends in an atomic write of the state, so a killed
and resumed run is the run that was not interrupted.
"""

import contextlib
import csv
import importlib.metadata
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from kerasgal import __version__
from kerasgal import config as configuration
from kerasgal.config import setting
from kerasgal.errors import DataError
from kerasgal.files import replacing

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


@dataclass(frozen=True)
class TrainingConfig:
    """What every training has; an app's own dataclass adds to it and overrides defaults."""

    learning_rate: float = setting(1e-4, "Learning rate of Adam.", minimum=0.0)
    batch: int = setting(16, "Samples per step, over all devices.", minimum=1)
    epochs: int = setting(40, "Epochs; each ends with validation and a checkpoint.", minimum=1, resumable=True)
    steps_per_epoch: int = setting(50, "Steps per epoch.", minimum=1)
    patience: int = setting(0, "Stop after so many epochs without a better loss; 0 never stops early.", minimum=0,
                            resumable=True)
    seed: int = setting(0, "Seed of all randomness: weights, dropout, order of the samples.", minimum=0,
                        maximum=2**31 - 1)
    precision: str = setting("float32", "Arithmetic; mixed precision trains on GPUs only.", choices=PRECISIONS)
    strategy: str = setting("single", "Devices: one, all GPUs of this machine, or the workers that the environment "
                                      "variable TF_CONFIG lists.", choices=("single", "mirrored", "workers"))

    @property
    def decays_over_epochs(self):
        """Whether the learning rate depends on `epochs`: then a run cannot be resumed for more of them."""
        return False


def prepare(config):
    """Set precision and seed for all that Keras builds from here on; returns the distribution strategy.

    Raises DataError for mixed precision without a GPU: TensorFlow's CPU kernels sum the bias gradients in bfloat16 and
    return wrong kernel gradients for small volumes, without an error.
    """
    import keras
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if config.precision != "float32" and not gpus:
        raise DataError(f"--precision {config.precision} trains wrongly without a GPU, and this machine has none: "
                        "use --precision float32")
    if config.strategy == "workers" and "TF_CONFIG" not in os.environ:
        raise DataError("--strategy workers needs the environment variable TF_CONFIG, which names the workers")
    is_chief(config)  # raises for a TF_CONFIG that is none, before TensorFlow waits for workers
    if config.strategy == "mirrored":
        strategy = tf.distribute.MirroredStrategy(
            [device.name for device in tf.config.list_logical_devices("GPU" if gpus else "CPU")])
    elif config.strategy == "workers":
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    else:
        strategy = None
    if strategy and config.batch % strategy.num_replicas_in_sync:
        raise DataError(f"--batch {config.batch} cannot be shared by {strategy.num_replicas_in_sync} devices: "
                        "give a multiple")
    keras.config.set_dtype_policy(config.precision)
    keras.utils.set_random_seed(config.seed)
    return strategy


def train(build, dataset, validation, config, folder, *, app, data, resume=False, overwrite=False,
          tensorboard=False):
    """Train a network into the run folder `folder` and return it with its best weights (None in all workers but one).

    build: function without arguments that returns a compiled Keras model.
    dataset: function from the number of samples already seen to an endless tf.data.Dataset in batches.
    validation: function from the number of devices that returns a finite one, or None; then the training loss decides
        what is best. Every batch must have a sample for every device. Both functions are called after the
        distribution strategy is made: TensorFlow accepts no workers later.
    config: an instance of TrainingConfig or of a dataclass that extends it.
    app: name of the app.  data: what to record of where the data came from.

    Raises DataError if the loss becomes NaN, if the folder exists (without `resume` or `overwrite`) or if there is
    nothing to resume.
    """
    import keras
    import tensorflow as tf

    folder = Path(folder)
    strategy = prepare(config)
    chief = is_chief(config)
    check_folder(folder, app, resume, overwrite)
    if resume:
        check_resumed(folder, config, app, data)
    with strategy.scope() if strategy else contextlib.nullcontext():
        model = build()
        # Else Keras makes the optimizer's variables while it traces the first step, and then traces it again.
        model.optimizer.build(model.trainable_variables)
    state = State(model, config, folder, chief, monitor="val_loss" if validation else "loss")
    if resume:
        state.load()
    if chief:
        open_folder(folder, config, app, resume)
        provenance = Provenance(folder, config, data, model)
    if not state.finished:
        # Devices and workers share each batch; by files, TensorFlow's default, there would be nothing to share.
        sharding = tf.data.Options()
        sharding.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
        stream = dataset(state.epoch * config.steps_per_epoch * config.batch).with_options(sharding)
        devices = strategy.num_replicas_in_sync if strategy else 1
        held_out = validation(devices).with_options(sharding) if validation else None
        if config.strategy == "workers":
            fit_across_workers(model, stream)
        callbacks = [state.callback()]
        if model.optimizer.use_ema:
            callbacks.append(keras.callbacks.SwapEMAWeights())  # validates with the averaged weights
        if tensorboard and chief:
            callbacks.append(keras.callbacks.TensorBoard(folder / "tensorboard", write_graph=False))
        model.fit(stream, validation_data=held_out, initial_epoch=state.epoch, epochs=config.epochs,
                  steps_per_epoch=config.steps_per_epoch, callbacks=callbacks, shuffle=False,
                  verbose=("auto" if sys.stdout.isatty() else 2) if chief else 0)
    if chief:
        from kerasgal.plotting import loss_curve

        provenance.end(state)
        loss_curve(state.history, folder / "loss.png")
        # Built anew, outside the strategy: a network of several workers would wait for them in every prediction.
        return load_weights(build(), folder)
    return None


def is_chief(config):
    """Whether this process is the one that writes: the only one, or the first of several workers."""
    if config.strategy != "workers":
        return True
    try:
        workers = json.loads(os.environ.get("TF_CONFIG", "{}"))
        task, cluster = workers["task"], workers["cluster"]
        return task["type"] == "chief" or ("chief" not in cluster and task["type"] == "worker" and task["index"] == 0)
    except (json.JSONDecodeError, KeyError, TypeError):
        raise DataError("the environment variable TF_CONFIG is not a TensorFlow cluster: expected JSON with cluster "
                        f"and task, received {os.environ.get('TF_CONFIG')!r}") from None


def check_folder(folder, app, resume, overwrite):
    """Raise DataError if training may not write into `folder`: it holds a run, or something that is none of the app."""
    folder = Path(folder)
    if resume or not folder.exists():
        return
    if not overwrite:
        raise DataError(f"{folder} exists already; give --resume to go on with it or --overwrite to replace it")
    if _read_json(folder / "config.json").get("app") != app:
        raise DataError(f"{folder} is not a run folder of {app}: not replacing it")


def check_resumed(folder, config, app, data):
    """Raise DataError if going on with the run in `folder` under this configuration would be another run."""
    stored = load_config(folder, type(config), app)
    changed = [field.name for field in fields(config) if getattr(config, field.name) != getattr(stored, field.name)
               and not field.metadata["resumable"]]
    if config.epochs != stored.epochs and config.decays_over_epochs:
        changed.append("epochs (on which the decay of the learning rate depends)")
    if changed:
        raise DataError(f"--resume: {folder} was trained with another {', '.join(changed)}")
    if config.epochs < stored.epochs:
        raise DataError(f"--resume: {folder} was meant for {stored.epochs} epochs, received {config.epochs}")
    seen = _read_json(folder / "provenance.json").get("data", data)
    if seen != data:
        raise DataError(f"--resume: {folder} was trained on other data: {seen}")


def recorded_simulations(folder):
    """Paths of the training and of the validation data that a run folder's provenance names: two tuples."""
    seen = _read_json(Path(folder) / "provenance.json").get("data", {})
    return tuple(seen.get("training", ())), tuple(seen.get("validation", ()))


def check_unseen(folder, paths):
    """Raise DataError if the run in `folder` was trained or validated on one of the files at `paths`."""
    training, validation = recorded_simulations(folder)
    again = [str(path) for path in paths if str(Path(path).resolve()) in training + validation]
    if again:
        raise DataError(f"{', '.join(again)} was used in the training of {folder}; evaluate on data it never saw")


def named(folders):
    """{name: folder} of run folders: their last names, or their paths where those are alike.

    Raises DataError for a folder that is given twice.
    """
    short = [Path(folder).resolve().name for folder in folders]
    names = short if len(set(short)) == len(short) else [str(folder) for folder in folders]
    if len(set(names)) < len(names):
        raise DataError(f"a run is given twice: {', '.join(names)}")
    return dict(zip(names, folders))


def _read_json(path):
    """The object in a JSON file; an empty one if the file is missing or holds something else."""
    try:
        stored = json.loads(Path(path).read_text())
    except (OSError, ValueError):
        return {}
    return stored if isinstance(stored, dict) else {}


def open_folder(folder, config, app, resume):
    """Make the run folder, without an earlier run unless that is resumed, and write config.json."""
    if folder.exists() and not resume:
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / "config.json") as temporary:
        configuration.write(config, temporary, app=app)


def load_config(folder, config_class, app):
    """The configuration of a run folder; raises DataError if it is none, or another app's."""
    path = Path(folder) / "config.json"
    if not path.exists():
        raise DataError(f"{folder} is not a run folder: it has no config.json")
    owner = _read_json(path).get("app")
    if owner not in (app, None):
        raise DataError(f"{folder} is a run of {owner}, not of {app}")
    return configuration.read(config_class, path)


def load_weights(model, folder):
    """Load a run folder's best weights into `model`; raises DataError if there are none or they do not fit."""
    path = Path(folder) / "best.weights.h5"
    if not path.exists():
        raise DataError(f"{folder} has no weights (best.weights.h5): train it first")
    try:
        with warnings.catch_warnings():  # the file has the optimiser too, which a network for prediction has not
            warnings.filterwarnings("ignore", "Skipping variable loading for optimizer")
            model.load_weights(path)
    except (ValueError, KeyError, OSError) as error:
        raise DataError(f"{path} does not fit the network of config.json: {str(error).splitlines()[0]}") from error
    return model


@contextlib.contextmanager
def averaged(model):
    """The model with the running average of its weights in place of these, where its optimiser keeps one."""
    if not model.optimizer.use_ema:
        yield
        return
    weights = [np.array(variable) for variable in model.trainable_variables]
    model.optimizer.finalize_variable_values(model.trainable_variables)
    yield
    for variable, value in zip(model.trainable_variables, weights):
        variable.assign(value)


class State:
    """What training remembers from epoch to epoch, kept in last.weights.h5 beside weights and optimiser.

    Keras's own EarlyStopping and BackupAndRestore lose their state when a run is resumed (they reset it in
    `on_train_begin`), so patience, best loss and history are kept here.
    """

    def __init__(self, model, config, folder, chief, monitor):
        self.model, self.config, self.folder, self.chief, self.monitor = model, config, Path(folder), chief, monitor
        self.epoch, self.best, self.waited, self.seconds, self.history = 0, math.inf, 0, 0.0, []

    @property
    def finished(self):
        """Whether all epochs are done or patience has run out."""
        return self.epoch >= self.config.epochs or 0 < self.config.patience <= self.waited

    def load(self):
        """Take up the state of last.weights.h5; raises DataError if the folder has lost it.

        A run that was killed in its first epoch has none yet, and starts from the beginning.
        """
        import h5py

        path = self.folder / "last.weights.h5"
        if not path.exists() and not (self.folder / "history.csv").exists():
            return
        if not path.exists():
            raise DataError(f"--resume: {self.folder} has no last.weights.h5; start again with --overwrite")
        self.model.load_weights(path)
        with h5py.File(path, "r") as file:
            stored = json.loads(file.attrs["state"])
        self.epoch, self.best, self.waited = stored["epoch"], stored["best"], stored["waited"]
        self.seconds, self.history = stored["seconds"], stored["history"]

    def save(self):
        """Write last.weights.h5 and history.csv."""
        import h5py

        with replacing(self.folder / "last.weights.h5") as temporary:
            self.model.save_weights(temporary)
            with h5py.File(temporary, "a") as file:
                file.attrs["state"] = json.dumps({"epoch": self.epoch, "best": self.best, "waited": self.waited,
                                                  "seconds": self.seconds, "history": self.history})
        with replacing(self.folder / "history.csv") as temporary, temporary.open("w", newline="") as file:
            table = csv.DictWriter(file, fieldnames=list(self.history[0]))
            table.writeheader()
            table.writerows(self.history)

    def fold_seeds(self, epoch):
        """Give every random layer a seed made of the run's seed, the epoch and its own place in the network."""
        states = [variable for variable in self.model.variables if "seed_generator_state" in variable.path]
        for place, variable in enumerate(states):
            fresh = np.random.SeedSequence((self.config.seed, epoch, place)).generate_state(2)
            variable.assign(fresh.astype(variable.dtype))

    def advice(self):
        """What to do about a loss that is no number."""
        return "try a smaller --learning-rate" + (f"; {self.folder} holds the epochs before" if self.epoch else "")

    def end_epoch(self, logs):
        """Take note of an epoch's metrics, keep its weights if they are the best, and save."""
        if not math.isfinite(logs[self.monitor]):
            raise DataError(f"{self.monitor} became {logs[self.monitor]} in epoch {self.epoch + 1}: {self.advice()}")
        self.epoch += 1
        better = logs[self.monitor] < self.best
        self.waited = 0 if better else self.waited + 1
        if better:
            self.best = logs[self.monitor]
        self.history.append({"epoch": self.epoch, **logs, "seconds": round(self.seconds, 2)})
        if self.chief:
            if better:
                with replacing(self.folder / "best.weights.h5") as temporary, averaged(self.model):
                    self.model.save_weights(temporary)
            self.save()

    def callback(self):
        """The Keras callback that drives this state."""
        import keras

        state = self

        class Keeper(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None):
                state.fold_seeds(epoch)
                self.begun = time.monotonic()

            def on_train_batch_end(self, batch, logs=None):
                if not math.isfinite(logs["loss"]):
                    raise DataError(f"the loss became {logs['loss']} in epoch {state.epoch + 1}, step {batch + 1}: "
                                    + state.advice())

            def on_epoch_end(self, epoch, logs=None):
                state.seconds += time.monotonic() - self.begun
                state.end_epoch({name: float(value) for name, value in logs.items()})
                if state.finished:
                    self.model.stop_training = True

        return Keeper()


def fit_across_workers(model, dataset):
    """Let `model.fit` run under MultiWorkerMirroredStrategy.

    Keras 3 fails there in two places (keras-team/keras issue 20585): it reduces the first batch, a tuple, across
    workers in order to build the model, and it takes the mean of scalar metrics over an axis that they do not have.
    """
    def build(iterator=None, data_batch=None):
        with model.distribute_strategy.scope():
            model._symbolic_build(data_batch=next(iter(dataset)))

    def with_axis(step):
        return lambda batch: {name: value[None] for name, value in step(batch).items()}

    model._maybe_symbolic_build = build
    model.train_step, model.test_step = with_axis(model.train_step), with_axis(model.test_step)


class Provenance:
    """provenance.json: what one needs to know to make a run again, with one entry per session that trained it."""

    def __init__(self, folder, config, data, model):
        libraries = ("tensorflow", "keras", "numpy", "scipy", "scikit-image", "edt", "h5py")
        self.path = Path(folder) / "provenance.json"
        session = {
            "kerasgal": __version__,
            "git": git_revision(),
            "python": platform.python_version(),
            "versions": {name: importlib.metadata.version(name) for name in libraries},
            "command": " ".join(sys.argv),
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "precision": config.precision,
        }
        self.content = {"data": data, "parameters": model.count_params(), "wall_seconds": None,
                        "sessions": [*_read_json(self.path).get("sessions", []), session]}
        self.write()

    def end(self, state):
        """Note the wall time of all epochs, over all sessions."""
        self.content["wall_seconds"] = round(state.seconds, 1)
        self.write()

    def write(self):
        with replacing(self.path) as temporary:
            temporary.write_text(json.dumps(self.content, indent=2) + "\n")


def git_revision():
    """The revision of the checkout this package runs from, marked -dirty if it was changed, or None."""
    package = Path(__file__).parent
    if not (package.parent / ".git").exists():
        return None
    command = ["git", "-C", package, "describe", "--always", "--dirty", "--abbrev=40", "--exclude", "*"]
    result = subprocess.run(command, capture_output=True, text=True)
    return result.stdout.strip() or None
