import json
import os
import subprocess
import sys

import click
import h5py
import numpy as np
import pytest

from kerasgal.cli import main

LEAVES = []


def walk(command, path):
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            walk(command.get_command(click.Context(command), name), [*path, name])
    LEAVES.append(path)


walk(main, [])


# Each command's help in a process of its own, split off from one that has imported what all commands do.
HELP = """
import contextlib, io, json, os, sys, time
from kerasgal.cli import main
common = time.process_time()
for path in json.loads(sys.argv[1]):
    if os.fork():
        os.wait()
        continue
    shown, wrong = io.StringIO(), ""
    try:
        with contextlib.redirect_stdout(shown):
            main([*path, "--help"], standalone_mode=False)
    except BaseException as error:
        wrong = repr(error)
    heavy = {"tensorflow", "keras", "matplotlib", "numba", "scipy", "skimage", "astropy"} & set(sys.modules)
    seconds = common + time.process_time()
    print(json.dumps([" ".join(path), shown.getvalue(), sorted(heavy), seconds, wrong]), flush=True)
    os._exit(0)
"""


@pytest.fixture(scope="module")
def helps():
    """{command: what its help shows, heavy modules that were imported, CPU seconds, what went wrong}."""
    done = subprocess.run([sys.executable, "-c", HELP, json.dumps(LEAVES)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {path: found for path, *found in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("path", LEAVES, ids=lambda path: " ".join(path) or "kerasgal")
def test_every_help_is_fast_and_imports_no_tensorflow(path, helps):
    """Time is counted in the process itself, in CPU seconds: what the machine does beside it hardly matters."""
    shown, heavy, seconds, wrong = helps[" ".join(path)]
    assert not wrong and not heavy and seconds < 1
    assert shown.startswith("Usage: ") and "--help" in shown


def test_version_and_the_module_entry(kerasgal):
    assert kerasgal("--version").stdout.startswith("kerasgal, version ")


def test_unknown_commands_are_usage_errors(kerasgal):
    assert kerasgal("protohalos", check=False).returncode == 2


IMPOSSIBLE = [("--particles", "-3"), ("--boxsize", "0"), ("--boxsize", "nan"), ("--boxsize", "inf"),
              ("--omega-matter", "2"), ("--omega-matter", "0"), ("--hubble", "0"), ("--sigma8", "-1"),
              ("--tilt", "nan"), ("--omega-baryon", "0.9")]


@pytest.mark.parametrize("flags", IMPOSSIBLE, ids=" ".join)
def test_impossible_universes_are_usage_errors(flags, invoke, tmp_path):
    done = invoke("simulate", tmp_path / "x.h5", *flags, check=False)
    assert done.returncode == 2 and list(tmp_path.iterdir()) == []


def test_a_set_of_realisations_is_refused_before_any_is_made(invoke, tmp_path):
    (tmp_path / "r_1.h5").write_text("mine")
    done = invoke("simulate", tmp_path / "r.h5", "--particles", "8", "--realisations", "3", check=False)
    assert done.returncode == 1 and "--overwrite" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["r_1.h5"]


@pytest.mark.parametrize("name", ["box.txt", "box", "box.hdf"])
def test_a_simulation_is_hdf5_by_its_name_too(name, invoke, tmp_path):
    done = invoke("simulate", tmp_path / "new" / "folder" / name, "--particles", "8", check=False)
    assert done.returncode == 2 and "accepted suffixes are .h5, .hdf5" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_list_of_commands_is_not_cut_off(kerasgal):
    shown = kerasgal("--help", COLUMNS="80").stdout
    assert "..." not in shown.split("Commands:")[1] and max(map(len, shown.splitlines())) <= 80


def test_a_reader_that_has_had_enough_is_no_error():
    """As in `kerasgal models | head -1`."""
    ours, its = os.pipe()
    os.close(ours)
    with os.fdopen(its, "wb") as closed:
        done = subprocess.run([sys.executable, "-m", "kerasgal", "models"], stdout=closed, stderr=subprocess.PIPE)
    assert done.returncode == 1 and not done.stderr


def test_info_shows_several_files_of_any_make_and_says_what_is_wrong(boxes, invoke, tmp_path):
    np.save(tmp_path / "delta.npy", np.zeros((8, 8, 8), np.float32))
    bad = tmp_path / "bad.h5"
    bad.write_bytes(boxes[0].read_bytes())
    with h5py.File(bad, "r+") as file:
        file["initial/delta"][0, 0, 0] = np.nan
    done = invoke("info", "--json", boxes[0], tmp_path / "delta.npy", bad, check=False)
    assert done.returncode == 1 and "1 of 3 files are not sound" in done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert found[0]["boxsize"] == 25 and found[0]["finder"] == "fof" and found[0]["problems"] == []
    assert found[1]["kind"] == "field" and found[1]["convert"].startswith("kerasgal convert")
    assert "initial/delta has 1 values that are NaN" in found[2]["problems"][0]
    shown = invoke("info", boxes[0]).stdout
    assert "density_of" in shown and "halo masses" in shown
