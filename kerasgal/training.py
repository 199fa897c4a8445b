"""Training a network into a run folder (see `kerasgal.run_folder`).

All randomness is folded from one seed and the epoch, and every epoch ends in an atomic write of the state, so a killed
and resumed run is the run that was not interrupted. One that was asked to stop (Ctrl-C) ends its step and writes the
state of that, too.
"""

import contextlib
import json
import logging
import math
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from kerasgal import planning, run_folder, workers
from kerasgal.config import Config, setting
from kerasgal.errors import DataError, RunError, first_line, out_of_memory
from kerasgal.files import replacing

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
DECAYS = ("none", "cosine", "step", "exponential")
OPTIMIZERS = ("adam", "muon")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingConfig(Config):
    """What every training has; an app's own dataclass adds settings to it and gives these other defaults.

    What each setting means stands beside it, and in ``kerasgal APP config``, which prints all of an app's.

    Raises
    ------
    SettingError
        For a value that is not accepted.

    Examples
    --------
    >>> from kerasgal.training import TrainingConfig
    >>> TrainingConfig(epochs=5, decay="cosine").decays_over_epochs
    True
    >>> TrainingConfig(learning_rate=-1.0)
    Traceback (most recent call last):
    kerasgal.errors.SettingError: learning_rate=-1.0: it must be at least 0.0
    """

    groups = {
        "Optimiser": ("optimizer", "learning_rate", "decay", "decay_factor", "decay_epochs", "gradient_norm",
                      "averaging"),
        "Length": ("batch", "accumulation", "epochs", "steps_per_epoch", "patience"),
        "Machine": ("seed", "precision", "strategy"),
    }

    optimizer: str = setting("adam", "What makes steps of gradients: Adam; or Muon, which is ahead in short trainings, "
                                     "with Adam for biases and layers of one output.", choices=OPTIMIZERS)
    learning_rate: float = setting(1e-4, "Learning rate.", minimum=0.0)
    decay: str = setting("none", "How the learning rate falls: it does not; to zero along a cosine; by decay_factor in "
                                 "steps, or evenly, every decay_epochs.", choices=DECAYS)
    decay_factor: float = setting(0.5, "What the learning rate is multiplied by, with the decays step and exponential.",
                                  minimum=0.0, maximum=1.0)
    decay_epochs: int = setting(1, "Epochs in which that happens once; 0: in every step.", minimum=0)
    gradient_norm: float = setting(0.0, "Global norm to which a step's gradient is clipped; 0 does not clip.",
                                   minimum=0.0)
    averaging: float = setting(0.0, "Polyak averaging of the weights: the share of the old average that a step keeps; "
                                    "0 does not average.", minimum=0.0, maximum=1.0)
    batch: int = setting(16, "Samples per step, over all devices.", minimum=1)
    accumulation: int = setting(1, "Steps whose gradients are averaged before the weights change: for large batches on "
                                   "small devices.", minimum=1)
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
        return self.decay == "cosine"


class TrainingInterrupted(KeyboardInterrupt):
    """Training was asked to stop and has saved its state; the message says where it stands and how to go on."""


def learning_rate(config):
    """The learning rate of a config.

    Parameters
    ----------
    config : TrainingConfig
        Whose learning_rate, decay, decay_factor, decay_epochs, epochs and steps_per_epoch count.

    Returns
    -------
    float or keras.optimizers.schedules.LearningRateSchedule

    Examples
    --------
    >>> from kerasgal.training import TrainingConfig, learning_rate
    >>> learning_rate(TrainingConfig(learning_rate=1e-3))
    0.001
    >>> halved = TrainingConfig(learning_rate=1e-3, decay="step", decay_epochs=2, steps_per_epoch=10)
    >>> [round(float(learning_rate(halved)(step)), 6) for step in (0, 19, 20)]
    [0.001, 0.001, 0.0005]
    """
    import keras

    schedules = keras.optimizers.schedules
    if config.decay == "none":
        return config.learning_rate
    if config.decay == "cosine":
        return schedules.CosineDecay(config.learning_rate, config.epochs * config.steps_per_epoch)
    steps = config.decay_epochs * config.steps_per_epoch or 1
    return schedules.ExponentialDecay(config.learning_rate, steps, config.decay_factor,
                                      staircase=config.decay == "step")


def optimizer(config, weight_decay=None, amsgrad=False):
    """The optimiser of a config.

    Parameters
    ----------
    config : TrainingConfig
        Its optimizer, learning rate and decay, gradient_norm, averaging and accumulation count.
    weight_decay : float, optional
        Decoupled from the gradient (AdamW); none without it.
    amsgrad : bool
        Of Adam; Muon has no such thing.

    Returns
    -------
    keras.optimizers.Optimizer

    Examples
    --------
    >>> from kerasgal.training import TrainingConfig, optimizer
    >>> optimizer(TrainingConfig(gradient_norm=1.0)).global_clipnorm
    1.0
    """
    import keras

    options = {
        "weight_decay": weight_decay, "global_clipnorm": config.gradient_norm or None, "use_ema": config.averaging > 0,
        "ema_momentum": config.averaging,
        "gradient_accumulation_steps": config.accumulation if config.accumulation > 1 else None}
    if config.optimizer == "muon":
        from kerasgal.muon import Muon

        return Muon(learning_rate(config), adam_weight_decay=weight_decay, **options)
    return keras.optimizers.Adam(learning_rate(config), amsgrad=amsgrad, **options)


def train(build, dataset, validation, config, folder, *, app, data, domain=None, stale=(), begin=None, init=None,
          resume=False, overwrite=False, tensorboard=False):
    """Train a network into a run folder. An app calls this; a user calls `kerasgal.train`.

    Parameters
    ----------
    build : callable
        Without arguments, returns a compiled Keras model.
    dataset : callable
        From the number of samples already seen to an endless tf.data.Dataset in batches.
    validation : callable or None
        From the number of devices to a finite tf.data.Dataset, of which every batch has a sample for every device;
        without it the training loss decides what is best. Both functions are called after the distribution strategy is
        made: TensorFlow accepts no workers later.
    config : TrainingConfig
        The settings.
    folder : str or Path
        Run folder to write.
    app : str
        Name of the app.
    data : dict
        What to record of where the data came from.
    domain : dict, optional
        Of that data, for domain.json; see `kerasgal.domain.of`.
    stale : sequence of str
        Names of files in the folder that were measured with the weights there are, and are removed once nothing is
        refused any more.
    begin : callable, optional
        Called with the folder once that is open and before the first step, to put there what belongs to the run.
    init : str or Path, optional
        Run folder whose best weights are what training starts from.
    resume : bool
        Go on with the run in the folder.
    overwrite : bool
        Replace the run in the folder.
    tensorboard : bool
        Write TensorBoard logs into the folder.

    Returns
    -------
    keras.Model or None
        With its best weights, in float32; None in all of several workers but the first.

    Raises
    ------
    DataError
        If the loss becomes NaN, memory or disk run out, another worker is gone, the folder exists (without `resume` or
        `overwrite`) or there is nothing to resume.
    TrainingInterrupted
        After Ctrl-C, once the step is done and saved.

    Examples
    --------
    >>> import keras
    >>> import numpy as np
    >>> from kerasgal.pipeline import rows
    >>> from kerasgal.training import TrainingConfig, optimizer, train
    >>> config = TrainingConfig(epochs=1, steps_per_epoch=2, batch=4)
    >>> x = np.linspace(0, 1, 8)[:, None]
    >>> def build():
    ...     network = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    ...     network.compile(optimizer(config), loss="mse")
    ...     return network
    >>> network = train(build, lambda first: rows([x, 2 * x], 4, seed=0, first=first), None, config, "line-run",
    ...                 app="line", data={})  # doctest: +ELLIPSIS
    epoch 1/1: loss ..., the best so far, learning rate 0.0001, ... ms a step, 0 s left
    >>> network.count_params()
    2
    """
    folder = Path(folder)
    planning.check_config(config)
    strategy = workers.prepare(config)
    chief = workers.is_chief(config)
    run_folder.check_folder(folder, app, resume, overwrite)
    if resume:
        run_folder.check_resumed(folder, config, app, data)
    origin = run_folder.origin(folder, init, resume)
    with workers.arithmetic(config.precision), workers.watched(config, folder) as watch:
        with strategy.scope() if strategy else contextlib.nullcontext():
            model = build()
            if origin and not (resume and (folder / run_folder.LAST).exists()):
                run_folder.load_weights(model, origin[run_folder.FROM])
            # Else Keras makes the optimizer's variables while it traces the first step, and then traces it again.
            model.optimizer.build(model.trainable_variables)
        state = State(model, config, folder, chief, monitor="val_loss" if validation else "loss")
        watch.state = state
        if resume:
            state.load()
        planning.measure(model, dataset, validation, config, strategy, app=app, data=data, folder=folder,
                         done=state.epoch)
        if chief:
            if not state.finished:
                run_folder.check_epoch_fits(model, folder, state.epoch)
            run_folder.open_folder(folder, config, app, resume, domain, stale)
            if begin:
                begin(folder)
            provenance = run_folder.Provenance(folder, config, data, model, origin)
        if not state.finished:
            with run_folder.logging_into(folder) if chief else contextlib.nullcontext(), workers.fitting(strategy):
                fit(state, dataset, validation, strategy, tensorboard)
    if chief:
        provenance.end(state.seconds)
        # A network of several workers would wait for them in every prediction, and one of mixed precision would round:
        # it is built anew, outside the strategy, as a run that is loaded has it.
        with workers.arithmetic("float32"):
            return run_folder.load_weights(build() if strategy or config.precision != "float32" else model, folder)
    return None


def fit(state, dataset, validation, strategy, tensorboard):
    """Train from where `state` is to the end, with Keras's own loop."""
    import keras
    import tensorflow as tf

    from kerasgal.training_progress import Reporter

    config, model, folder = state.config, state.model, state.folder
    # Devices and workers share each batch; by files, TensorFlow's default, there would be nothing to share.
    sharding = tf.data.Options()
    sharding.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    devices = strategy.num_replicas_in_sync if strategy else 1
    held_out = validation(devices).with_options(sharding) if validation else None

    def run(epochs, steps):
        """So many steps in each epoch until `epochs` are done."""
        stream = dataset((state.epoch * config.steps_per_epoch + state.step) * config.batch).with_options(sharding)
        if config.strategy == "workers" and devices > 1:
            workers.fit_across_workers(model, stream)
        reporter = Reporter(state) if state.chief else None
        callbacks = [state.callback(), *([reporter] if reporter else [])]
        if keeps_average(model):
            callbacks.append(keras.callbacks.SwapEMAWeights())  # validates with the averaged weights
        if tensorboard and state.chief:
            callbacks.append(keras.callbacks.TensorBoard(folder / "tensorboard", write_graph=False))
        try:
            model.fit(stream, validation_data=held_out, initial_epoch=state.epoch, epochs=epochs, steps_per_epoch=steps,
                      callbacks=callbacks, shuffle=False, verbose=0)
        finally:
            if reporter:
                reporter.close()

    with state.interruptible():
        try:
            if state.step:  # the rest of an epoch that was stopped in its middle
                run(state.epoch + 1, config.steps_per_epoch - state.step)
                if not state.finished:
                    state.load()  # Keras leaves averaged weights where it keeps an average
            if not state.finished:
                run(config.epochs, config.steps_per_epoch)
        except Exception as error:
            if not out_of_memory(error):
                raise
            ways = [f"batch={max(1, config.batch // 2)}"] if config.batch > 1 else []
            ways += [f"accumulation={2 * config.accumulation}" if config.batch > 1 else "a smaller patch or network"]
            raise DataError(f"out of memory in training with batch={config.batch}: try {' and '.join(ways)}"
                            + state.kept()) from error


def keeps_average(model):
    """Whether a model's optimiser keeps a running average of the weights."""
    # In float16 Keras wraps the optimiser in one that scales the loss, and that keeps none itself.
    return getattr(model.optimizer, "inner_optimizer", model.optimizer).use_ema


@contextlib.contextmanager
def averaged(model):
    """The model with the running average of its weights in place of these, where its optimiser keeps one."""
    import numpy as np

    if not keeps_average(model):
        yield
        return
    weights = [np.array(variable) for variable in model.trainable_variables]
    model.optimizer.finalize_variable_values(model.trainable_variables)
    yield
    for variable, value in zip(model.trainable_variables, weights):
        variable.assign(value)


class State:
    """What training remembers from step to step, kept in last.weights.h5 beside weights and optimiser.

    Keras's own EarlyStopping and BackupAndRestore lose their state when a run is resumed (they reset it in
    `on_train_begin`), so patience, best loss and history are kept here.
    """

    def __init__(self, model, config, folder, chief, monitor):
        self.model, self.config, self.folder, self.chief, self.monitor = model, config, Path(folder), chief, monitor
        self.epoch, self.best, self.waited, self.seconds, self.history = 0, math.inf, 0, 0.0, []
        self.step, self.middle = 0, None  # steps of an epoch that is not done, and what Keras knows of it
        self.asked_to_stop = False

    @property
    def finished(self):
        """Whether all epochs are done or patience has run out."""
        return self.epoch >= self.config.epochs or 0 < self.config.patience <= self.waited

    @property
    def best_epoch(self):
        """The epoch whose weights are kept, or None."""
        better = [row["epoch"] for row in self.history if row[self.monitor] == self.best]
        return better[0] if better else None

    def load(self):
        """Take up the state of last.weights.h5; raises RunError if the folder has lost it.

        A run that was killed in its first epoch has none yet, and starts from the beginning.
        """
        import h5py

        path = self.folder / run_folder.LAST
        if not path.exists() and not (self.folder / run_folder.HISTORY).exists():
            return
        if not path.exists():
            raise RunError(f"resume=True: {self.folder} has no {run_folder.LAST}; start again with overwrite=True")
        self.model.load_weights(path)
        with h5py.File(path, "r") as file:
            stored = json.loads(file.attrs["state"])
        self.epoch, self.best, self.waited = stored["epoch"], stored["best"], stored["waited"]
        self.seconds, self.history = stored["seconds"], stored["history"]
        self.step, self.middle = stored.get("step", 0), stored.get("middle")

    def save(self):
        """Write last.weights.h5, history.csv and the loss curve; the files before stay where that fails."""
        import h5py

        from kerasgal.plotting import loss_curve, save

        run_folder.check_epoch_fits(self.model, self.folder, self.epoch)
        try:
            with replacing(self.folder / run_folder.LAST) as temporary:
                self.model.save_weights(temporary)
                with h5py.File(temporary, "a") as file:
                    file.attrs["state"] = json.dumps({
                        "epoch": self.epoch, "best": self.best, "waited": self.waited, "seconds": self.seconds,
                        "history": self.history, "step": self.step, "middle": self.middle})
            if self.history:
                run_folder.write_history(self.history, self.folder)
                save(loss_curve(self.history, self.best_epoch), self.folder / "loss.png")
        except (OSError, RuntimeError) as error:  # h5py raises both where a disk is full
            raise DataError(f"{self.folder}: the state of training cannot be written ({first_line(error)})"
                            + self.kept()) from error

    def seeds(self):
        """The variables that hold the seeds of random layers."""
        return [variable for variable in self.model.variables if "seed_generator_state" in variable.path]

    def fold_seeds(self, epoch):
        """Give every random layer a seed made of the run's seed, the epoch and its own place in the network."""
        import numpy as np

        for place, variable in enumerate(self.seeds()):
            fresh = np.random.SeedSequence((self.config.seed, epoch, place)).generate_state(2)
            variable.assign(fresh.astype(variable.dtype))

    def begin_epoch(self):
        """Make seeds and running means those of the step at which the epoch goes on."""
        import numpy as np

        if not self.step:
            self.fold_seeds(self.epoch)
            return
        for variables, name in ((self.seeds(), "seeds"), (self.model.metrics_variables, "means")):
            for variable, value in zip(variables, self.middle[name], strict=True):
                variable.assign(np.asarray(value, variable.dtype))

    def stop(self, step):
        """Save an epoch in its middle, after so many steps of it, and raise TrainingInterrupted."""
        import numpy as np

        self.step = step
        self.middle = {"seeds": [np.asarray(variable).tolist() for variable in self.seeds()],
                       "means": [np.asarray(variable).tolist() for variable in self.model.metrics_variables]}
        if self.chief:
            self.save()
        raise TrainingInterrupted(f"{self.folder}: stopped in epoch {self.epoch + 1}, after step {step} of "
                                  f"{self.config.steps_per_epoch}; go on with resume=True")

    def kept(self):
        """What is left of a training that failed, as the end of a sentence."""
        return f"; {self.folder} holds the {self.epoch} epochs before, resume=True goes on with it" if self.epoch \
            else ""

    def advice(self):
        """What to do about a loss that is no number."""
        return "try a smaller `learning_rate`" + (f"; {self.folder} holds the epochs before" if self.epoch else "")

    def end_epoch(self, logs):
        """Take note of an epoch's metrics, keep its weights if they are the best, and save."""
        if not math.isfinite(logs[self.monitor]):
            raise DataError(f"{self.monitor} became {logs[self.monitor]} in epoch {self.epoch + 1}: {self.advice()}")
        self.epoch += 1
        self.step, self.middle = 0, None
        better = logs[self.monitor] < self.best
        self.waited = 0 if better else self.waited + 1
        if better:
            self.best = logs[self.monitor]
        self.history.append({"epoch": self.epoch, **logs, "seconds": round(self.seconds, 2)})
        if self.chief:
            if better:
                with averaged(self.model):
                    run_folder.save_best(self.model, self.folder)
            self.save()

    @contextlib.contextmanager
    def interruptible(self):
        """Let Ctrl-C end the step first; a second one ends all at once."""
        def ask(number, frame):
            if self.asked_to_stop:
                raise KeyboardInterrupt
            self.asked_to_stop = True
            log.warning("stopping after this step; press Ctrl-C again to stop at once")

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGINT, ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def callback(self):
        """The Keras callback that drives this state."""
        import keras

        state = self

        class Keeper(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None):
                self.first = state.step  # steps that were done in an earlier session
                state.begin_epoch()
                self.begun = time.monotonic()

            def on_train_batch_end(self, batch, logs=None):
                if not math.isfinite(logs["loss"]):
                    raise DataError(f"the loss became {logs['loss']} in epoch {state.epoch + 1}, step "
                                    f"{self.first + batch + 1}: " + state.advice())
                done = self.first + batch + 1
                if state.asked_to_stop and done < state.config.steps_per_epoch:
                    state.seconds += time.monotonic() - self.begun
                    assert self.model is state.model  # asking for it makes JAX's state that of the model
                    state.stop(done)

            def on_epoch_end(self, epoch, logs=None):
                state.seconds += time.monotonic() - self.begun
                state.end_epoch({name: float(value) for name, value in logs.items()})
                if state.finished:
                    self.model.stop_training = True
                elif state.asked_to_stop:
                    raise TrainingInterrupted(f"{state.folder}: stopped after epoch {state.epoch} of "
                                              f"{state.config.epochs}; go on with resume=True")

        return Keeper()
