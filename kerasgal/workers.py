"""The devices that a training runs on: precision, seed and distribution strategy, and Keras across workers."""

import contextlib
import json
import os

from kerasgal.errors import SettingError


def prepare(config):
    """Set precision and seed for all that Keras builds from here on; returns the distribution strategy, or None.

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
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    else:
        strategy = None
    if strategy and config.batch % strategy.num_replicas_in_sync:
        raise SettingError(f"batch={config.batch} cannot be shared by {strategy.num_replicas_in_sync} devices: "
                           "give a multiple")
    keras.config.set_dtype_policy(config.precision)
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


def lost(error):
    """Whether an exception of TensorFlow's says that another worker cannot be reached any more."""
    import tensorflow as tf

    return isinstance(error, tf.errors.UnavailableError | tf.errors.AbortedError | tf.errors.CancelledError
                      | tf.errors.DeadlineExceededError)


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
