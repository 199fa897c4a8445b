import json
from dataclasses import dataclass

import click
import pytest
from click.testing import CliRunner

from kerasgal import config
from kerasgal.errors import DataError


@dataclass(frozen=True)
class Example:
    levels: int = config.setting(5, "Levels.", demo=3, minimum=1, maximum=9)
    rate: float = config.setting(0.1, "Rate.", minimum=0.0)
    loss: str = config.setting("l1", "Loss.", choices=("l1", "l2"))
    smooth: bool = config.setting(False, "Smooth or not.")


def run(*arguments):
    received = []

    @click.command()
    @config.options(Example)
    def command(flags):
        received.append(config.from_flags(Example, flags))

    result = CliRunner().invoke(command, arguments)
    return result, received[0] if received else None


def test_presets_then_flags():
    assert run()[1] == Example()
    assert run("--preset", "demo")[1] == Example(levels=3)
    assert run("--preset", "demo", "--levels", "4", "--smooth", "--loss", "l2")[1] == Example(4, 0.1, "l2", True)


def test_stored_configuration_is_the_start(tmp_path):
    config.write(Example(levels=7, rate=1.0), tmp_path / "config.json", app="example")
    assert config.read(Example, tmp_path / "config.json") == Example(levels=7, rate=1.0)
    assert run("--config", str(tmp_path / "config.json"), "--rate", "2")[1] == Example(levels=7, rate=2.0)


def test_help_shows_both_presets():
    shown = run("--help")[0].output
    assert "[default: 5; demo: 3]" in shown and "--smooth / --no-smooth" in shown


@pytest.mark.parametrize("stored, message", [
    ({"depth": 1}, "unknown key 'depth'; accepted are levels, rate, loss, smooth"),
    ({"levels": 0}, "levels must be between 1 and 9, received 0"),
    ({"levels": 2.5}, "levels must be of type int, received 2.5"),
    ({"levels": True}, "levels must be of type int, received True"),
    ({"loss": "l3"}, "loss must be one of l1, l2, received 'l3'"),
    ({"rate": -1}, "rate must be at least 0.0, received -1"),
    ({"rate": float("nan")}, "rate must be finite, received nan"),
    ({"rate": float("inf")}, "rate must be finite, received inf"),
])
def test_bad_values_say_what_is_accepted(tmp_path, stored, message):
    (tmp_path / "config.json").write_text(json.dumps({"config": stored}))
    with pytest.raises(DataError) as error:
        config.read(Example, tmp_path / "config.json")
    assert message in str(error.value)


def test_files_that_are_no_configuration(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        config.read(Example, tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("[1")
    with pytest.raises(DataError, match="is not a configuration"):
        config.read(Example, tmp_path / "bad.json")


def test_contradictory_flags_are_usage_errors(tmp_path):
    config.write(Example(), tmp_path / "config.json")
    result, _ = run("--preset", "demo", "--config", str(tmp_path / "config.json"))
    assert result.exit_code == 2 and "contradict" in result.output
    assert run("--levels", "0")[0].exit_code == 2
