"""What a training shows of itself: a line that is renewed in a terminal, and a line for every epoch that is done."""

import logging
import time

import keras
from rich.progress import TextColumn

from kerasgal.plotting import progress_bar

log = logging.getLogger(__name__)


def duration(seconds):
    """A number of seconds in words: 12 s, 3 min 20 s, 2 h 5 min."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"


class Reporter(keras.callbacks.Callback):
    """Says how far a training is: epoch, loss, best so far, learning rate, time per step and the time that is left.

    state: `kerasgal.training.State`. Stands behind that state's own callback, which ends the epoch first.
    """

    def __init__(self, state):
        super().__init__()
        self.state, self.step_seconds, self.validation_seconds = state, None, 0.0
        self.bar = progress_bar(TextColumn("{task.description}"))  # the line is full without a bar

    def on_train_begin(self, logs=None):
        self.bar.start()
        self.task = self.bar.add_task("compiling the first step", total=None)

    def on_epoch_begin(self, epoch, logs=None):
        # Asked for before the first step: on JAX the optimiser's variables are out of reach between steps.
        self.rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        self.first = self.state.step

    def on_train_batch_begin(self, batch, logs=None):
        self.begun = time.monotonic()

    def on_train_batch_end(self, batch, logs=None):
        taken = time.monotonic() - self.begun
        # The first step is compiled; a running mean follows a machine that others use, too.
        if batch == 1 or self.step_seconds is None:
            self.step_seconds = taken
        self.step_seconds += 0.1 * (taken - self.step_seconds)
        done = self.state.epoch * self.state.config.steps_per_epoch + self.first + batch + 1
        state, config = self.state, self.state.config
        best = f", best {state.best:.4g}" if state.history else ""
        self.bar.update(self.task, completed=done, description=(
            f"epoch {state.epoch + 1}/{config.epochs} {done / (config.epochs * config.steps_per_epoch):.0%}, loss "
            f"{float(logs['loss']):.4g}{best}, rate {self.rate:.2g}, {self.pace(done)}"))

    def on_test_begin(self, logs=None):
        self.validated = time.monotonic()

    def on_test_end(self, logs=None):
        self.validation_seconds = time.monotonic() - self.validated

    def on_epoch_end(self, epoch, logs=None):
        state = self.state
        validation = f", validation {logs['val_loss']:.5g}" if "val_loss" in logs else ""
        kept = ", the best so far" if state.waited == 0 else self.best()
        done = state.epoch * state.config.steps_per_epoch
        log.info(f"epoch {state.epoch}/{state.config.epochs}: loss {logs['loss']:.5g}{validation}{kept}, learning rate "
                 f"{self.rate:.3g}, {self.pace(done)}", extra={"dated": True})

    def close(self):
        """Take the line away, however the training ended."""
        self.bar.stop()

    def best(self):
        """The best epoch so far and its loss, as a part of a line."""
        state = self.state
        return f" (best {state.best:.5g} in epoch {state.best_epoch})" if state.history else ""

    def pace(self, done):
        """Time per step and the time that is left, after so many steps of all."""
        config = self.state.config
        left = (config.epochs * config.steps_per_epoch - done) * (self.step_seconds or 0)
        left += (config.epochs - self.state.epoch) * self.validation_seconds
        return f"{1000 * (self.step_seconds or 0):.3g} ms a step, {duration(left)} left"
