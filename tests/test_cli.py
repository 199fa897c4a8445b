import subprocess
import sys

import click
import pytest

from kerasgal.cli import main

LEAVES = []


def walk(command, path):
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            walk(command.get_command(click.Context(command), name), [*path, name])
    LEAVES.append(path)


walk(main, [])


@pytest.mark.parametrize("path", LEAVES, ids=lambda path: " ".join(path) or "kerasgal")
def test_every_help_is_fast_and_imports_no_tensorflow(path):
    """Time is counted in the process itself, in CPU seconds: what the machine does beside it is no matter."""
    program = ("import sys, time\n"
               "from kerasgal.cli import main\n"
               f"main({[*path, '--help']!r}, standalone_mode=False)\n"
               "heavy = {'tensorflow', 'keras', 'matplotlib', 'scipy', 'skimage'} & set(sys.modules)\n"
               "assert not heavy, heavy\n"
               "assert time.process_time() < 0.5, time.process_time()\n")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Usage: ") and "--help" in done.stdout


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
