"""How much a command prints: --quiet and --verbose."""

import logging

import click
import pytest
from click.testing import CliRunner

from kerasgal import plotting
from kerasgal.cli import main
from kerasgal.commands.base import Command, printing_logs
from kerasgal.errors import DataError
from test_cli import LEAVES

log = logging.getLogger("kerasgal.somewhere")


@click.command(cls=Command)
@click.option("--wrong", is_flag=True)
def count(wrong):
    log.debug("a detail")
    log.info("a step")
    log.warning("a doubt")
    click.echo(f"a result, bars {'shown' if plotting.shown else 'hidden'}")
    if wrong:
        try:
            int("seven")
        except ValueError as error:
            raise DataError("no number") from error


def call(*arguments):
    with printing_logs():
        done = CliRunner().invoke(count, arguments)
    return done.exit_code, done.stdout.splitlines(), done.stderr.splitlines()


def test_a_command_prints_steps_and_results_and_warns_on_the_error_stream():
    assert call() == (0, ["a step", "a result, bars shown"], ["warning: a doubt"])


@pytest.mark.parametrize("flag", ["-q", "--quiet"])
def test_a_quiet_command_prints_results_and_warnings(flag):
    assert call(flag) == (0, ["a result, bars hidden"], ["warning: a doubt"])
    assert plotting.shown


@pytest.mark.parametrize("flag", ["-v", "--verbose"])
def test_a_verbose_command_prints_all_with_time_and_place(flag):
    code, printed, _ = call(flag)
    assert code == 0 and [line.split(" ", 2)[2] for line in printed[:2]] == [
        "kerasgal.somewhere: a detail", "kerasgal.somewhere: a step"]
    assert printed[2] == "a result, bars shown"


def test_a_verbose_command_says_where_an_error_comes_from():
    assert call("--wrong")[2][1:] == ["Error: no number"]
    code, _, said = call("--wrong", "--verbose")
    assert code == 1 and any("ValueError: invalid literal" in line for line in said) and said[-1] == "Error: no number"


def test_both_contradict_each_other():
    code, printed, said = call("-q", "-v")
    assert code == 2 and not printed and "--quiet and --verbose contradict each other" in said[-1]


def test_every_command_has_both():
    for path in LEAVES:
        command, context = main, click.Context(main)
        for name in path:
            command = command.get_command(context, name)
        if not isinstance(command, click.Group):
            flags = {flag for parameter in command.params for flag in parameter.opts}
            assert {"-q", "--quiet", "-v", "--verbose"} <= flags, path
