"""TensorFlow at the start of a command: what it says, what is said meanwhile, and what it need not import."""

import os
import pty
import subprocess
import sys

import pytest

from kerasgal import quiet


def on_a_terminal(*arguments):
    """Everything that a command writes to a terminal."""
    ours, its = pty.openpty()
    process = subprocess.Popen([sys.executable, "-m", "kerasgal", *arguments], stdout=its, stderr=its, stdin=its)
    os.close(its)
    written = b""
    while True:
        try:
            part = os.read(ours, 1024)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        written += part
    process.wait(timeout=300)
    os.close(ours)
    return written.decode()


@pytest.mark.slow
def test_a_terminal_is_told_at_once_that_tensorflow_is_loaded(tmp_path):
    """That nothing else is told so is tested where two workers train."""
    shown = on_a_terminal("protohalo", "export", str(tmp_path / "none"))
    first, rest = shown.split("\r\033[K")
    assert first == "loading TensorFlow ..." and "no such run folder" in rest


def test_a_terminal_is_told_at_once_that_a_command_is_loaded(tmp_path):
    shown = on_a_terminal("info", str(tmp_path / "none.h5"))
    first, rest = shown.split("\r\033[K")
    assert first == "loading ..." and "none.h5" in rest


def test_a_command_imports_of_tensorflow_what_it_needs_and_hides_nothing_afterwards():
    program = ("import sys\n"
               "from kerasgal.quiet import DISPENSABLE, import_tensorflow\n"
               "import_tensorflow(sparing=True)\n"
               "assert 'keras' in sys.modules and not set(DISPENSABLE) & set(sys.modules)\n"
               "import matplotlib.figure\n"
               "import keras, numpy\n"
               "keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)]).predict(numpy.ones((1, 1)), verbose=0)\n")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not quiet.keep_memory(), reason="the C library is not glibc")
def test_memory_that_is_freed_is_there_for_what_comes_next():
    """Page faults of one array after another, with and without: a count, not a time."""
    program = ("import resource, sys\n"
               "import numpy as np\n"
               "from kerasgal.quiet import keep_memory\n"
               "keep_memory() if sys.argv[1:] else None\n"
               "np.ones(2**24)\n"
               "before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
               "for _ in range(4): np.ones(2**24)\n"
               "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)\n")
    small_pages = {**os.environ, "NUMPY_MADVISE_HUGEPAGE": "0"}
    plain, kept = (int(subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True,
                                      env=small_pages).stdout) for words in ([], ["x"]))
    assert kept < plain / 10
