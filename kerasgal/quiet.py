"""TensorFlow without its notices at start-up."""

import contextlib
import importlib
import os
import sys
from importlib.util import find_spec


def import_tensorflow():
    """Import TensorFlow, if it is not yet, and let nothing of what it says then reach the terminal or a notebook.

    Its libraries write to the process's error stream before any logging level applies. Python's errors still come
    through.
    """
    if "tensorflow" in sys.modules:
        return
    if os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow" and find_spec("tensorflow") is None:
        return  # another backend predicts without it; training, whose pipeline is TensorFlow's, says what is missing
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with _without_error_stream():
        importlib.import_module("tensorflow")


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
