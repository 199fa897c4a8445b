"""Shared fixtures: small simulations made once by the command line, and a way to call it in a fresh process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from kerasgal import quiet

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if "PYTEST_XDIST_WORKER" in os.environ:  # one thread for each of as many workers as there are cores
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

quiet.keep_memory()


def run_kerasgal(*arguments, check=True, cwd=None, **environment):
    """Run the command line in a fresh process; returns the finished process with its text output."""
    done = subprocess.run([sys.executable, "-m", "kerasgal", *map(str, arguments)], capture_output=True, text=True,
                          cwd=cwd, env={**os.environ, **environment}, timeout=300)
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="session")
def kerasgal():
    return run_kerasgal


def invoke_kerasgal(*arguments, check=True):
    """Run the command line in this process, where TensorFlow is imported once for all tests; returns the same."""
    from click.testing import CliRunner

    from kerasgal.cli import main

    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception  # a traceback is never the answer to a user's mistake
    if check:
        assert result.exit_code == 0, result.output
    return subprocess.CompletedProcess(arguments, result.exit_code, result.stdout, result.stderr)


@pytest.fixture(scope="session")
def invoke():
    return invoke_kerasgal


def spoil_hdf5(path, item, how):
    """Take one thing out of an HDF5 file, or put something else there; item: which, counted round; how: 0 to 5."""
    import h5py
    import numpy as np

    with h5py.File(path, "r+") as file:
        items = []
        file.visititems(lambda name, found: items.extend([(name, None), *((name, key) for key in found.attrs)]))
        name, key = items[item % len(items)]
        if key is not None:
            changed = ["text", np.zeros(0), -1, np.nan, [3, 4], 2**40][how]
            file[name].attrs[key] = changed
            return
        values = file[name][...] if hasattr(file[name], "shape") else None
        del file[name]
        if values is not None and how:
            file[name] = [values[:len(values) // 2], values.ravel(), values[..., None], np.full(values.shape, np.nan),
                          np.full(values.shape, b"x")][how - 1]


def spoil_and_use(path, use):
    """Spoil an HDF5 file in many ways, and `use` it each time; asserts that errors are DataErrors of one line."""
    import hypothesis
    import numpy as np
    from hypothesis import strategies

    from kerasgal.errors import DataError

    content = path.read_bytes()

    @hypothesis.settings(max_examples=60, deadline=None, derandomize=True, database=None)
    @hypothesis.given(strategies.integers(0, 50), strategies.integers(0, 5))
    def check_one(item, how):
        path.write_bytes(content)
        spoil_hdf5(path, item, how)
        try:
            with np.errstate(all="ignore"):
                use()
        except DataError as error:
            assert len(str(error).splitlines()) == 1

    check_one()


@pytest.fixture(scope="session")
def spoil():
    return spoil_and_use


@pytest.fixture(scope="session")
def boxes(tmp_path_factory):
    """Three simulations of 32^3 particles in 25 Mpc/h, made by `kerasgal simulate`."""
    folder = tmp_path_factory.mktemp("boxes")
    run_kerasgal("simulate", folder / "box.h5", "--particles", 32, "--boxsize", 25, "--realisations", 3, "--seed", 7)
    return [folder / f"box_{number}.h5" for number in range(3)]


@pytest.fixture(scope="session")
def shared_data():
    """The folder of small public data sets that some checkouts have beside them."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.exists():
        pytest.skip(f"no public sample data at {folder}")
    return folder
