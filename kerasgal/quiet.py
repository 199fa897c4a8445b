"""TensorFlow without its notices at start-up, and without giving back memory that it takes again at once."""

import contextlib
import ctypes
import importlib
import logging
import os
import platform
import sys
from importlib.util import find_spec


# What TensorFlow and Keras import where it is there, for parts of theirs that no command uses: over a third of the
# time that their import takes.
DISPENSABLE = ("IPython", "jax", "matplotlib", "sklearn")


def import_tensorflow(sparing=False):
    """Import TensorFlow, if it is not yet, and let nothing of what it says then reach the terminal or a notebook.

    Its libraries write to the process's error stream before any logging level applies. Python's errors still come
    through. sparing: keep it from importing what commands do not need of it; Keras then has no plots of its own.
    """
    if "tensorflow" in sys.modules:
        return
    if os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow" and find_spec("tensorflow") is None:
        return  # another backend predicts without it; training, whose pipeline is TensorFlow's, says what is missing
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _without_error_stream(), _without(DISPENSABLE if sparing else ()):
        importlib.import_module("tensorflow")
        importlib.import_module("keras")


# Parameters of glibc's mallopt, malloc.h
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
LARGE = 2**30  # bytes, from which on an array's memory is given back when it is freed


def keep_memory():
    """Keep what is freed for what is taken next, in this process, where the C library is glibc; returns whether it is.

    By itself glibc gives the memory of every layer's output back to the system, and takes it again, page by page and
    zeroed, in the next step: a million page faults in a step of protohalo's demo. It has an effect on what is taken
    from then on, and threads that are there already keep what they have.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all([mallopt(M_ARENA_MAX, 1), mallopt(M_MMAP_THRESHOLD, LARGE), mallopt(M_TRIM_THRESHOLD, -1)])


@contextlib.contextmanager
def without_retracing():
    """A block in which TensorFlow does not warn of functions that it traces for several shapes, which are meant."""
    def other(record):
        return "retracing" not in record.getMessage()

    logger = logging.getLogger("tensorflow")
    logger.addFilter(other)
    try:
        yield
    finally:
        logger.removeFilter(other)


@contextlib.contextmanager
def _without(names):
    """Make modules that are not imported yet seem absent for a while."""
    hidden = [name for name in names if name not in sys.modules and name != os.environ.get("KERAS_BACKEND")]
    sys.modules.update(dict.fromkeys(hidden))
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


@contextlib.contextmanager
def _without_error_stream():
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
