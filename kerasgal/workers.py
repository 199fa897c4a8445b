"""The devices that a training runs on: precision, seed and distribution strategy, and Keras across workers."""

import contextlib
import json
import logging
import os
import threading
from pathlib import Path

from kerasgal.errors import DataError, RunError, SettingError

LOOK = 5.0  # seconds between two looks at the other workers
ANSWER = 8.0  # seconds in which one must answer
TRIES = 3  # looks in a row without an answer after which it is taken to be gone

log = logging.getLogger(__name__)


@contextlib.contextmanager
def arithmetic(precision):
    """Let Keras build networks of a precision, for a `with` block."""
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def prepare(config):
    """Set the seed of all that Keras builds from here on; returns the distribution strategy, or None.

    Raises SettingError for mixed precision without a GPU: TensorFlow's CPU kernels sum the bias gradients in bfloat16
    and return wrong kernel gradients for small volumes, without an error.
    """
    import keras
    import tensorflow as tf

    backend = keras.backend.backend()
    gpus = accelerators(backend)
    if config.precision != "float32" and not gpus:
        raise SettingError(f"precision={config.precision} trains wrongly without a GPU, and this machine has none: "
                           "use precision=float32", value=config.precision, accepted=("float32",))
    if config.strategy == "workers" and "TF_CONFIG" not in os.environ:
        raise SettingError("strategy=workers needs the environment variable TF_CONFIG, which names the workers")
    able = {"mirrored": ("tensorflow", "jax"), "workers": ("tensorflow",)}.get(config.strategy, (backend,))
    if backend not in able:
        raise SettingError(f"strategy={config.strategy} needs KERAS_BACKEND={' or '.join(able)}, received {backend}",
                           value=backend, accepted=able)
    is_chief(config)  # raises for a TF_CONFIG that is none, before TensorFlow waits for workers
    if config.strategy == "mirrored":
        strategy = Parallel() if backend == "jax" else tf.distribute.MirroredStrategy(
            [device.name for device in tf.config.list_logical_devices("GPU" if gpus else "CPU")])
    elif config.strategy == "workers":
        log.info(f"waiting for {', '.join(others().values()) or 'no other worker'}: training begins when all are there")
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    else:
        strategy = None
    if strategy and config.batch % strategy.num_replicas_in_sync:
        raise SettingError(f"batch={config.batch} cannot be shared by {strategy.num_replicas_in_sync} devices: "
                           "give a multiple")
    keras.utils.set_random_seed(config.seed)
    return strategy


def accelerators(backend):
    """The GPUs that the backend of Keras sees, a list."""
    if backend == "jax":
        import jax

        return [device for device in jax.devices() if device.platform != "cpu"]
    import tensorflow as tf

    return tf.config.list_physical_devices("GPU")


class Parallel:
    """Keras's own DataParallel on all devices of this process, on JAX, with what TensorFlow's strategies have."""

    def __init__(self):
        import keras

        devices = keras.distribution.list_devices()
        self.num_replicas_in_sync = len(devices)
        self._distribution = keras.distribution.DataParallel(devices=devices)

    def scope(self):
        """In which a model is built and, unlike with TensorFlow, trained."""
        return self._distribution.scope()


def fitting(strategy):
    """The context in which a model of a strategy is trained."""
    return strategy.scope() if isinstance(strategy, Parallel) else contextlib.nullcontext()


class Watch:
    """Looks in a thread whether the other workers are there, and lets TensorFlow's steps fail when one is not.

    TensorFlow's own heartbeats do not end a collective operation that waits for a dead worker (TensorFlow 2.21, where
    they take the place of a thread of its own, `CollectiveAllReduceExtended._check_health`, that does what this does).

    others: {TensorFlow's name of a worker: what it is called in messages}.  answers: whether the one of that name is
    there.  abort: fails what waits for others, now and later.  state: of the training, once there is one; see
    `training.State`.
    """

    def __init__(self, others, answers, abort):
        self.others, self.answers, self.abort, self.state = others, answers, abort, None
        self.missed, self.gone = dict.fromkeys(others, 0), None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="workers", daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._over.set()
        self._thread.join(2 * ANSWER)

    def look(self):
        """Look at all once, and note who did not answer how often; whether one is gone."""
        for worker in self.others:
            self.missed[worker] = 0 if self.answers(worker) else self.missed[worker] + 1
        return max(self.missed.values(), default=0) >= TRIES

    def names(self):
        """The workers that have not answered for the longest time, in words: those that stopped when these did not."""
        longest = max(1, *self.missed.values()) if self.missed else 1
        found = [self.others[worker] for worker, times in self.missed.items() if times == longest]
        return f"{', '.join(found) or 'another worker'} {'are' if len(found) > 1 else 'is'} gone"

    @property
    def finished(self):
        """Whether nobody is needed any more: a worker that is done with training ends."""
        return self._over.is_set() or (self.state is not None and self.state.finished)

    def _run(self):
        while not self._over.wait(LOOK):
            if self.look() and not self.finished:
                self.gone = self.names()
                self.abort(self.gone)
                return


@contextlib.contextmanager
def watched(config, folder):
    """For a `with` block around a training, in which the death of another worker is a RunError; yields a `Watch`.

    Without other workers it does nothing. What the message says of going on is so of the run in `folder`.
    """
    watch = Watch(others() if config.strategy == "workers" else {}, _answers, _abort)
    if not watch.others:
        yield watch
        return
    with watch:
        try:
            yield watch
        except Exception as error:
            if isinstance(error, DataError) or not (watch.gone or lost(error)):
                raise
            if not watch.gone:  # TensorFlow was the first to know
                watch.look()
            kept = watch.state.kept() if watch.state else ""
            if not kept and (Path(folder) / "config.json").exists():
                kept = ", with resume=True"
            raise RunError(f"{watch.gone or watch.names()}: start all workers again{kept}") from error


def _answers(worker):
    """Whether a worker answers, and is the one that the training began with: not one that was started again."""
    from tensorflow.python.eager import context  # the public interface has no such question

    try:
        context.context().check_collective_ops_peer_health(worker, timeout_in_ms=int(1000 * ANSWER))
    except Exception as error:
        log.debug(f"{worker} does not answer: {error}")
        return False
    return True


def _abort(why):
    """Let the collective operation that waits for another worker fail, and all that follow, with UnavailableError."""
    import tensorflow as tf
    from tensorflow.python.eager import context

    context.context().abort_collective_ops(tf.errors.UNAVAILABLE, why)


def lost(error):
    """Whether an exception of TensorFlow's says that another worker cannot be reached any more."""
    import tensorflow as tf

    return isinstance(error, tf.errors.UnavailableError | tf.errors.AbortedError | tf.errors.CancelledError
                      | tf.errors.DeadlineExceededError)


def others():
    """The other workers that TF_CONFIG names: {TensorFlow's name: what it is called in messages}."""
    described = json.loads(os.environ["TF_CONFIG"])
    own = described["task"]["type"], int(described["task"]["index"])
    return {f"/job:{job}/replica:0/task:{index}": f"{job} {index} ({address})" for job in ("chief", "worker")
            for index, address in enumerate(described["cluster"].get(job, ())) if (job, index) != own}


def is_chief(config):
    """Whether this process is the one that writes: the only one, or the first of several workers."""
    if config.strategy != "workers":
        return True
    try:
        workers = json.loads(os.environ.get("TF_CONFIG", "{}"))
        task, cluster = workers["task"], workers["cluster"]
        return task["type"] == "chief" or ("chief" not in cluster and task["type"] == "worker" and task["index"] == 0)
    except (json.JSONDecodeError, KeyError, TypeError):
        raise SettingError("the environment variable TF_CONFIG is not a TensorFlow cluster: expected JSON with cluster "
                           f"and task, received {os.environ.get('TF_CONFIG')!r}") from None


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
