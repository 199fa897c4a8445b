"""What a training would take, measured before it begins, and settings that fit the boxes and the machine.

A plan is the training itself, in a copy of its run folder, up to a few steps. So an app has nothing to say for it, and
what would be wrong with the data is found here. For the preset "auto" a class of runs says in `grid` and `fits` how
large patches may be; the rest is this rule:

- the other settings are the paper's where there is a GPU, and the demo's where there is none;
- the patch is the largest one, up to theirs, that the network takes and that fits into the smallest box;
- on a GPU that computes in bfloat16 the precision is mixed_bfloat16;
- a step of one sample is measured, and the batch is the largest divisor of theirs of which a step takes at most half of
  the memory; where not even one sample does, the next smaller patch is tried;
- accumulation makes up for a smaller batch, and an epoch has as many more steps.
"""

import contextvars
import logging
import math
import shutil
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from kerasgal import config as configuration
from kerasgal.errors import DataError, RunError, SettingError, out_of_memory

AUTO = "auto"  # the preset
STEPS, SECONDS = 8, 20  # that are measured at most after the first step
SHARE = 0.5  # of the memory that a step may take

log = logging.getLogger(__name__)
_asked = contextvars.ContextVar("kerasgal.planning", default=None)  # what is known so far, while there is a plan


class Planned(Exception):
    """Ends the training that was only to be planned; its argument is the `Plan`."""


class Greedy(DataError):
    """A step of a training that is planned does not fit into memory."""


@dataclass
class Plan:
    """What a training would take.

    Attributes
    ----------
    app : str
        Of the run.
    network : str
        Which of its networks was measured, the first; "" where there is one.
    config : Config
        The settings, those that the preset "auto" chose among them.
    data : dict
        Names of what is trained and validated on.
    samples : int
        That there are to be seen, in all their symmetries.
    shapes : list of tuple of int
        Of the arrays of a batch.
    parameters : int
        Of the network.
    epochs : int
        That are left.
    prepared, compiled, step : float
        Seconds that preparing the data takes, the first step and each further one.
    validation : float
        Seconds that validation takes in every epoch.
    memory, step_memory, limit : int
        Bytes: the peak of the process, or on a GPU of what is allocated there; what a step adds; what there is.
    device : str
        Where it was measured.

    Examples
    --------
    >>> import kerasgal as kg
    >>> plan = kg.plan("protohalo", ["box_0.h5", "box_1.h5"], preset="auto")        # doctest: +SKIP
    >>> plan.config.patch, plan.step                                                # doctest: +SKIP
    """

    app: str
    network: str
    config: configuration.Config
    data: dict
    samples: int
    shapes: list
    parameters: int
    epochs: int
    prepared: float
    compiled: float
    step: float
    validation: float
    memory: int
    step_memory: int
    limit: int
    device: str

    @property
    def seconds(self):
        """Seconds that the training of this network takes in all, if no patience ends it."""
        epoch = self.config.steps_per_epoch * self.step + self.validation
        return self.prepared + self.compiled + self.epochs * epoch

    @property
    def lines(self):
        """The plan as lines of text."""
        config, counts = self.config, {name: len(names) for name, names in self.data.items()}
        shapes = ", ".join(" x ".join(map(str, shape)) for shape in self.shapes)
        chosen = ", ".join(f"{name} {getattr(config, name)}" for name in
                           ("patch", "batch", "accumulation", "precision", "strategy") if hasattr(config, name))
        seen = self.epochs * config.steps_per_epoch * config.batch
        return [
            f"data: {counts.get('training', 0)} to train on, {counts.get('validation', 0)} to validate on; prepared in "
            + duration(self.prepared),
            f"settings: {chosen}",
            f"samples: {self.samples:,} with their symmetries, in batches of {shapes}; {self.epochs} epochs of "
            f"{config.steps_per_epoch} steps show {seen:,}",
            f"network: {self.parameters:,} parameters" + (f", {self.network}, the first of several; the others are not "
                                                          "measured" if self.network else ""),
            f"memory: {self.memory / 1e9:.2f} GB at most, {self.step_memory / 1e9:.2f} of it for a step; there are "
            f"{self.limit / 1e9:.1f} GB ({self.device})",
            f"step: {1000 * self.step:.0f} ms; the first, with compilation, {duration(self.compiled)}; validation "
            f"{duration(self.validation)} an epoch",
            f"training: {duration(self.seconds)} in all",
        ]

    def __repr__(self):
        return "\n".join(self.lines)


def duration(seconds):
    """A time in words, to two figures."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.2g} {unit}" if seconds < 100 * length else f"{seconds / length:.0f} {unit}"
    return f"{seconds:.2g} s" if seconds < 100 else f"{seconds:.0f} s"


def plan(train, folder):
    """The `Plan` of a training.

    train: called with a run folder, a copy of `folder`, and trains in it; all that is written is removed again.
    """
    folder = Path(folder)
    parent = next(place for place in folder.absolute().parents if place.is_dir())
    with tempfile.TemporaryDirectory(prefix=".planning-", dir=parent) as temporary:
        place = Path(temporary) / folder.name
        if folder.is_dir():
            shutil.copytree(folder, place, ignore=shutil.ignore_patterns("tensorboard", "saved_model", "sweep"))
        token = _asked.set({"begun": time.monotonic()})
        try:
            train(place)
        except Planned as planned:
            return planned.args[0]
        except DataError as error:
            error.args = (str(error).replace(str(place), str(folder)),)
            raise
        finally:
            _asked.reset(token)
    raise RunError(f"{folder}: this app does not train by kerasgal.training.train, which is where a plan is made")


def note(samples):
    """Take note of how many samples an endless stream has."""
    if _asked.get() is not None:
        _asked.get()["samples"] = samples


def check_data():
    """Raise SettingError where a plan is asked for without data, which a training would make."""
    if _asked.get() is not None:
        raise SettingError("a plan needs simulations to look at: give those to train on")


def check_config(config):
    """Raise SettingError where a plan is asked for of several workers, who would wait for each other."""
    if _asked.get() is not None and config.strategy == "workers":
        raise SettingError("strategy=workers cannot be planned: plan it with strategy=single")


def measure(model, dataset, validation, config, strategy, *, app, data, folder, done):
    """Where a plan is asked for, measure some steps of a training that is about to begin, and raise `Planned`."""
    known = _asked.get()
    if known is None:
        return
    import keras

    from kerasgal.registry import run_class

    prepared, times = time.monotonic() - known["begun"], []
    stream = dataset(0)
    memory = Memory()

    class Timer(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            float(logs["loss"])  # waits for the device
            times.append(time.monotonic())
            if len(times) > 2 and times[-1] - times[0] > SECONDS:
                self.model.stop_training = True

    begun = time.monotonic()
    try:
        model.fit(stream, epochs=1, steps_per_epoch=min(STEPS, config.steps_per_epoch - 1) + 1, callbacks=[Timer()],
                  shuffle=False, verbose=0)
    except Exception as error:
        if not out_of_memory(error):
            raise
        raise Greedy(f"out of memory in a step with batch={config.batch}") from error
    steps = [after - before for before, after in zip(times, times[1:])]
    devices = strategy.num_replicas_in_sync if strategy else 1
    phases = registered(run_class, app)
    raise Planned(Plan(
        app=app, network=Path(folder).name if len(phases) > 1 else "", config=config, data=data,
        samples=known.get("samples", 0), shapes=shapes_of(stream.element_spec), parameters=model.count_params(),
        epochs=config.epochs - done, prepared=prepared, compiled=times[0] - begun,
        step=statistics.median(steps) if steps else times[0] - begun,
        validation=time_of(model, validation(devices)) if validation else 0.0, memory=memory.peak(),
        step_memory=memory.added(), limit=memory.limit, device=memory.device))


def registered(run_class, app):
    """The phases of an app; of one that is not registered, as in a test of its own, one."""
    try:
        return run_class(app).phases
    except DataError:
        return ("",)


def shapes_of(spec):
    """The shapes of all tensors of a batch."""
    import tensorflow as tf

    return [tuple(item.shape) for item in tf.nest.flatten(spec)]


def time_of(model, batches, most=3):
    """Seconds that a validation takes, from some of its batches; the time of compiling is not counted."""
    number = int(batches.cardinality())
    number = number if number > 0 else sum(1 for _ in batches)
    few = min(number, most)
    model.evaluate(batches.take(1), verbose=0)
    begun = time.monotonic()
    model.evaluate(batches.take(few), verbose=0)
    return (time.monotonic() - begun) * number / few


class Memory:
    """What a training takes of the memory of its device, from when this is made.

    On a GPU what its allocator hands out; else the memory of the process, whose greatest Linux keeps a record of.
    """

    def __init__(self):
        self.gpu = gpu()
        if self.gpu:
            self.device, self.limit = self.gpu.name, self.gpu.limit
            self.before = self.gpu.used()
            return
        import psutil

        from kerasgal.tiling import free_memory

        try:
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # begins that record anew
        except OSError:
            pass
        self.before = psutil.Process().memory_info().rss
        self.device, self.limit = "memory of this machine", free_memory() + self.before

    def peak(self):
        """The most that was taken at one time, in bytes."""
        if self.gpu:
            return self.gpu.peak()
        import resource
        import sys

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

    def added(self):
        """What came to it since this was made."""
        return max(self.peak() - self.before, 1)


@dataclass
class GPU:
    """What is asked of a GPU."""

    name: str
    limit: int  # bytes
    bfloat16: bool  # whether it computes in it
    used: object  # functions: bytes now, and the most so far
    peak: object


def gpu():
    """The GPU that Keras's backend trains on, or None."""
    import keras

    if keras.backend.backend() == "jax":
        import jax

        device = jax.local_devices()[0]
        if device.platform != "gpu":
            return None
        return GPU(device.device_kind, device.memory_stats()["bytes_limit"], float(device.compute_capability) >= 8,
                   lambda: device.memory_stats()["bytes_in_use"], lambda: device.memory_stats()["peak_bytes_in_use"])
    import tensorflow as tf

    devices = tf.config.list_physical_devices("GPU")
    if not devices:
        return None
    from tensorflow.python.client import device_lib

    details = tf.config.experimental.get_device_details(devices[0])
    limit = next(item.memory_limit for item in device_lib.list_local_devices() if item.device_type == "GPU")
    return GPU(details.get("device_name", "GPU"), limit, details.get("compute_capability", (0, 0)) >= (8, 0),
               lambda: tf.config.experimental.get_memory_info("GPU:0")["current"],
               lambda: tf.config.experimental.get_memory_info("GPU:0")["peak"])


def start():
    """The preset in whose place "auto" stands."""
    return "paper" if gpu() else "demo"


def choose(cls, config, said, training, validation, folder):
    """A config whose patch, batch, accumulation and precision fit the boxes and the machine; see the module.

    cls: the class of the run; said: names of settings that somebody gave, which stay.
    """
    device = gpu()
    if config.strategy != "single":
        raise SettingError(f"preset='auto' measures one device; received strategy={config.strategy}")
    fixed = {name: getattr(config, name) for name in ("patch", "batch", "accumulation", "precision") if name in said}
    precision = "mixed_bfloat16" if device and device.bfloat16 else "float32"
    if "precision" not in fixed:
        config = configuration.replace(config, {"precision": precision})
    held_out = validation[:1] or training[1:2]
    grids = [cls.grid(source, config) for source in (*training, *validation)]
    for candidate in [config] if "patch" in fixed else patches(cls, config, grids):
        one = configuration.replace(candidate, {"batch": fixed.get("batch", 1), "accumulation": 1})
        try:
            # Of the copy of a run that is there: whether that may be replaced was asked before.
            found = plan(lambda place, one=one: cls.train(training[:1], held_out, run=place, config=one,
                                                          overwrite=True), folder)
        except Greedy:
            continue
        sample = found.step_memory * heaviest(cls, one) / one.batch
        most = int(SHARE * found.limit / sample)
        batch = fixed.get("batch") or largest_divisor(config.batch, most)
        if batch:
            break
    else:
        raise DataError(f"preset='auto': not even one sample fits into memory, of {found_limit(device)}")
    accumulation = fixed.get("accumulation") or math.ceil(config.batch * config.accumulation / batch)
    values = {"patch": candidate.patch, "batch": batch, "accumulation": accumulation}
    if "steps_per_epoch" not in said:
        values["steps_per_epoch"] = config.steps_per_epoch * accumulation // config.accumulation
    chosen = configuration.replace(config, values)
    seconds = found.step / one.batch
    steps = chosen.epochs * chosen.steps_per_epoch
    log.info(f"preset auto, from {start()}: patch {chosen.patch} (the smallest grid has {min(grids)} cells a side), "
             f"batch {batch}, accumulation {accumulation}, precision {chosen.precision}; a sample takes "
             f"{sample / 1e9:.2f} GB in a step, and {SHARE:.0%} of {found.limit / 1e9:.1f} GB may be taken")
    log.info(f"a sample takes {1000 * seconds:.0f} ms in a step: {duration(seconds * batch * steps)} for {steps:,} "
             f"steps{f' of {found.network}, the first of several networks' if found.network else ''}")
    return chosen


def found_limit(device):
    """What there is of memory, in words."""
    from kerasgal.tiling import free_memory

    return f"{(device.limit if device else free_memory()) / 1e9:.1f} GB"


def patches(cls, config, grids):
    """The config with each patch up to its own that its network takes and the boxes hold, the largest first."""
    found = False
    for side in range(config.patch, 0, -1):
        try:
            candidate = configuration.replace(config, {"patch": side})
        except SettingError:
            continue
        if cls.fits(grids, candidate):
            found = True
            yield candidate
    if not found:
        raise DataError(f"preset='auto': no patch that the network takes fits into a box of {min(grids)} cells a side",
                        value=min(grids))


def largest_divisor(number, most):
    """The largest divisor of a number that is at most `most`, or 0."""
    return next((divisor for divisor in range(min(number, most), 0, -1) if number % divisor == 0), 0)


def heaviest(cls, config):
    """How many times the memory of the first network of a run its largest one takes, by the maps of their layers."""
    if len(cls.phases) == 1:
        return 1
    from kerasgal.periodic import largest

    sizes = [largest(cls.build(config, phase)) for phase in cls.phases]
    return max(sizes) / sizes[0]
