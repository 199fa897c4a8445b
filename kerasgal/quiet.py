"""TensorFlow without its notices at start-up."""

import contextlib
import importlib
import os
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
