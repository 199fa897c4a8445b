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
    if isinstance(main, click.Group) and path:
        assert len(done.stdout.splitlines()) > 5


def test_version_and_the_module_entry(kerasgal):
    assert kerasgal("--version").stdout.startswith("kerasgal, version ")


def test_unknown_commands_are_usage_errors(kerasgal):
    assert kerasgal("protohalos", check=False).returncode == 2
    assert kerasgal("simulate", "x.h5", "--particles", "-3", check=False).returncode == 2
