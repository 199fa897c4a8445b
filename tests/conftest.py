"""Shared fixtures: small simulations made once by the command line, and a way to call it in a fresh process."""

import contextlib
import fcntl
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import mock

import pytest

from kerasgal import quiet

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if "PYTEST_XDIST_WORKER" in os.environ:
    # One thread for each of as many workers as there are cores: those that wait for each other would keep the cores
    # from the other workers. NumPy, which reads this once, has not been imported yet.
    for name in ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    quiet.import_tensorflow(sparing=True)  # not in the process that shares the tests out, which needs none

quiet.keep_memory()

# The files that take longest, a minute of CPU or so each, longest first: one that is begun last would leave other cores
# without work at the end. The first ones train different apps, for which the others would wait.
DEAR = ("test_harness.py", "test_training.py", "cascade/test_commands.py", "morph/test_commands.py",
        "cascade/test_run.py", "cascade/test_diffusion.py", "halomass/test_evaluate.py", "morph/test_run.py",
        "protohalo/test_commands.py", "cascade/test_diffusion_commands.py", "cascade/test_diffusion_given.py",
        "halomass/test_run.py", "halomass/test_commands.py", "morph/test_score.py", "morph/test_sample.py",
        "morph/test_archetypes.py", "test_readers_training.py")


def pytest_configure(config):
    config.option.loadscopereorder = False  # or pytest-xdist begins with the files of most tests


def pytest_collection_modifyitems(items):
    """Begin with the files that take longest."""
    places = {Path(__file__).parent / name: place for place, name in enumerate(DEAR)}
    items.sort(key=lambda item: places.get(item.path, len(DEAR)))


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


def spoil_and_use(path, use, made=None):
    """Spoil an HDF5 file in many ways, and `use` it each time; asserts that errors are DataErrors of one line.

    made: the Simulation file that is made of it, which must be sound where nothing is refused.
    """
    import hypothesis
    import numpy as np
    from hypothesis import strategies

    from kerasgal.errors import DataError
    from kerasgal.simulation import Simulation

    content, refused = path.read_bytes(), []
    use()

    @hypothesis.settings(max_examples=30, deadline=None, derandomize=True, database=None)
    @hypothesis.given(strategies.integers(0, 50), strategies.integers(0, 5))
    def check_one(item, how):
        path.write_bytes(content)
        spoil_hdf5(path, item, how)
        try:
            with np.errstate(all="ignore"):
                use()
        except DataError as error:
            assert len(str(error).splitlines()) == 1
            refused.append(error)
            return
        if made is not None:
            with Simulation(made, require=()) as simulation:
                assert simulation.problems() == []

    check_one()
    assert refused


@pytest.fixture(scope="session")
def spoil():
    return spoil_and_use


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """A function that has a folder filled once for all workers of the tests: once(name, fill) returns the folder."""
    base = tmp_path_factory.getbasetemp()
    base = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "once"
    base.mkdir(exist_ok=True)

    def find(name, fill):
        folder, done = base / name, base / f"{name}.done"
        with open(base / f"{name}.lock", "w", encoding="ascii") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                fill(folder)
                done.touch()
        return folder

    return find


@pytest.fixture(scope="session")
def boxes(once):
    """Three simulations of 32^3 particles in 25 Mpc/h, made by `kerasgal simulate`."""
    folder = once("boxes", lambda folder: run_kerasgal(
        "simulate", folder / "box.h5", "--particles", 32, "--boxsize", 25, "--realisations", 3, "--seed", 7))
    return [folder / f"box_{number}.h5" for number in range(3)]


@pytest.fixture(scope="session")
def painted(once):
    """Three simulations of 32^3 particles in 12.5 Mpc/h with painted galaxies."""
    folder = once("painted", lambda folder: run_kerasgal(
        "simulate", folder / "box.h5", "--particles", 32, "--boxsize", 12.5, "--realisations", 3, "--seed", 5,
        "--galaxies"))
    return [folder / f"box_{number}.h5" for number in range(3)]


@pytest.fixture(scope="session")
def unseen(once):
    """A function to two simulations like those of `boxes` or `painted`, by the fixture's name, that no run has seen."""
    like = {"boxes": (25, []), "painted": (12.5, ["--galaxies"])}

    def find(name):
        boxsize, more = like[name]
        folder = once(f"unseen_{name}", lambda folder: invoke_kerasgal(
            "simulate", folder / "box.h5", "--particles", 32, "--boxsize", boxsize, "--realisations", 2, "--seed", 31,
            *more))
        return [folder / f"box_{number}.h5" for number in range(2)]

    return find


@pytest.fixture(scope="session")
def galaxies(once):
    """A folder with made-up galaxies and their archetypes, real.h5 and archetypes.h5, and unseen_... to test on."""
    pytest.importorskip("galsim")

    def fill(folder):
        for prefix, number, seed in (("", 40, 3), ("unseen_", 20, 4)):
            real = folder / f"{prefix}real.h5"
            said = invoke_kerasgal("morph", "simulate", real, "--number", number, "--seed", seed).stdout
            assert f"{number} made-up galaxies" in said
            smooth = folder / f"{prefix}archetypes.h5"
            invoke_kerasgal("morph", "archetypes", smooth, "--table", real)
            assert f"{number} of 128 x 128 pixels" in invoke_kerasgal("info", smooth).stdout

    return once("galaxies", fill)


@pytest.fixture(scope="session", autouse=True)
def drawn_once(once):
    """Draw each figure once for all workers, and copy it where one of its name and its parts is drawn again.

    Setting its text takes Matplotlib a second or so, and every training and every evaluation draws some. Drawn once is
    without the rehearsal in which Matplotlib looks how large everything is, which takes as long again.
    """
    from kerasgal import plotting

    folder, save = once("figures", lambda folder: None), plotting.save

    def print_png(drawing, path, dpi):
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        drawing.set_dpi(dpi)
        FigureCanvasAgg(drawing).print_png(path)

    def draw_or_copy(drawing, path):
        parts = "-".join(str(len(axes.get_children())) for axes in drawing.axes)
        drawn = folder / f"{parts}-{Path(path).name}"
        if not drawn.exists():
            drawing.set_layout_engine("none")
            printed = functools.partial(print_png, drawing) if Path(path).suffix == ".png" else drawing.savefig
            with mock.patch.object(drawing, "savefig", printed):
                save(drawing, path)
            with tempfile.NamedTemporaryFile(dir=folder, delete=False) as copy:
                copy.write(Path(path).read_bytes())
            os.replace(copy.name, drawn)
            return
        shutil.copyfile(drawn, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plotting, "save", draw_or_copy)
        yield


@contextlib.contextmanager
def functions_run_eagerly(wanted):
    """TensorFlow's functions run as Python for a while, or as graphs."""
    import tensorflow as tf

    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(wanted)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


@pytest.fixture(scope="session")
def eagerly():
    """The same for fixtures of a module, which are made before `eager` is: with eagerly(True): ..."""
    return functions_run_eagerly


@pytest.fixture
def eager():
    """TensorFlow without graphs: a few steps of a deep network are sooner done than compiled.

    The runs of `trained` are trained with graphs all the same, but for the deepest.
    """
    with functions_run_eagerly(True):
        yield


@pytest.fixture(scope="module")
def restored_once():
    """In a module a trained network is built and filled once, and not by every command that loads its run.

    For modules that predict only: all runs of one folder share their networks.
    """
    from kerasgal.run import Run
    from kerasgal.run_folder import BEST

    restored, kept = Run.restored.__func__, {}

    def restored_or_kept(cls, config, phase, folder):
        weights = folder / BEST
        key = cls, config, phase, folder, weights.stat().st_mtime_ns if weights.exists() else None
        if key not in kept:
            kept[key] = restored(cls, config, phase, folder)
        return kept[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "restored", classmethod(restored_or_kept))
        yield


@pytest.fixture(scope="session", autouse=True)
def calibrated_on_few_cells():
    """Every training of the diffusion model measures what its estimates stand for: in few cells, which takes a second.
    """
    from kerasgal.apps.cascade.diffusion import calibration

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "CELLS", 2**13)
        yield


@pytest.fixture(scope="session")
def trained(request, once):
    """A function from an app to the run folder of its recipe in harness.py, trained once by its command.

    What the command printed stands beside it, in said.txt.
    """
    import harness

    def find(app):
        data = request.getfixturevalue(harness.RECIPES[app].data)

        def fill(folder):
            command = [*app.split(), "train", *harness.arguments(app, data), "--run", folder / "run"]
            with functions_run_eagerly(not harness.RECIPES[app].graphs):
                said = invoke_kerasgal(*command).stdout
            (folder / "said.txt").write_text(said, encoding="utf-8")

        return once(app.replace(" ", "_"), fill) / "run"

    return find


@pytest.fixture(scope="session")
def shared_data():
    """The folder of small public data sets that some checkouts have beside them."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.exists():
        pytest.skip(f"no public sample data at {folder}")
    return folder
