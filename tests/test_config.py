import json
from dataclasses import dataclass

import click
import pytest
from click.testing import CliRunner

from kerasgal import config
from kerasgal.commands.base import Command
from kerasgal.commands.settings import settings_options
from kerasgal.errors import DataError, MissingError, SettingError


@dataclass(frozen=True)
class Base(config.Config):
    groups = {"Rates": ("rate",)}
    rate: float = config.setting(0.1, "Rate of all.", minimum=0.0)


@dataclass(frozen=True)
class Example(Base):
    groups = {"Network": ("levels", "smooth")}
    renamed = {"depth": "levels"}
    levels: int = config.setting(5, "Levels.", demo=3, minimum=1, maximum=9)
    rate: float = config.default(0.2, demo=0.3)
    loss: str = config.setting("l1", "Loss.", choices=("l1", "l2"))
    smooth: bool = config.setting(False, "Smooth or not.")

    def check(self):
        if self.smooth and self.loss == "l2":
            raise SettingError("smooth=True goes with loss=l1 only")


def run(*arguments):
    received = []

    @click.command(cls=Command)
    @settings_options(Example)
    def command(preset, config, settings):
        from kerasgal.config import layered

        received.append(layered(Example, preset, config, settings))

    result = CliRunner().invoke(command, list(map(str, arguments)))
    return result, received[0] if received else None


def test_presets_then_flags():
    assert run()[1] == Example()
    assert run("--preset", "demo")[1] == Example(levels=3, rate=0.3)
    assert run("--preset", "demo", "--levels", "4", "--smooth")[1] == Example(levels=4, rate=0.3, smooth=True)


def test_an_inherited_setting_keeps_its_help_and_what_it_accepts():
    assert Example().rate == 0.2 and Base().rate == 0.1
    assert "Rate of all.  [default: 0.2; demo: 0.3]" in run("--help")[0].output
    with pytest.raises(SettingError, match="rate=-1: it must be at least 0.0"):
        Example(rate=-1)


def test_stored_configuration_is_the_start(tmp_path):
    config.write(Example(levels=7, rate=1.0), tmp_path / "config.json", app="example")
    assert config.read(Example, tmp_path / "config.json") == Example(levels=7, rate=1.0)
    assert run("--config", tmp_path / "config.json", "--rate", "2")[1] == Example(levels=7, rate=2.0)


def test_a_partial_file_stands_between_preset_and_flags(tmp_path):
    (tmp_path / "mine.toml").write_text('levels = 8\nrate = 1\n')
    assert run("--config", tmp_path / "mine.toml")[1] == Example(levels=8, rate=1)
    assert run("--preset", "demo", "--config", tmp_path / "mine.toml", "--levels", 2)[1] == Example(levels=2, rate=1)
    (tmp_path / "demo.toml").write_text('preset = "demo"\nloss = "l2"\n')
    assert run("--config", tmp_path / "demo.toml")[1] == Example(levels=3, rate=0.3, loss="l2")


@pytest.mark.parametrize("made", [Example(), Example(levels=2, rate=1e-30, loss="l2"), Example(rate=3.0, smooth=True)])
def test_a_config_written_as_toml_is_read_as_itself(tmp_path, made):
    (tmp_path / "config.toml").write_text(config.toml(made))
    assert config.read(Example, tmp_path / "config.toml") == made
    assert "# Rate of all." in config.toml(made)


def test_help_shows_both_presets_under_headings():
    shown = run("--help")[0].output
    assert "[default: 5; demo: 3]" in shown and "--smooth / --no-smooth" in shown
    places = [shown.index(text) for text in ("Where settings come from:", "--preset", "Settings:", "--loss", "Network:",
                                             "--levels", "Rates:", "--rate")]
    assert places == sorted(places)


BAD = [
    ({"colour": 1}, "unknown setting 'colour'; accepted are rate, levels, loss, smooth"),
    ({"level": 1}, "unknown setting 'level' (did you mean levels?)"),
    ({"levels": 0}, "levels=0: it must be between 1 and 9"),
    ({"levels": 2.5}, "levels=2.5: it must be of type int"),
    ({"levels": True}, "levels=True: it must be of type int"),
    ({"loss": "l3"}, "loss='l3': it must be one of l1, l2"),
    ({"rate": -1}, "rate=-1: it must be at least 0.0"),
    ({"rate": float("nan")}, "rate=nan: it must be finite"),
    ({"rate": float("inf")}, "rate=inf: it must be finite"),
    ({"smooth": True, "loss": "l2"}, "smooth=True goes with loss=l1 only"),
]


@pytest.mark.parametrize("stored, message", BAD)
def test_bad_values_in_a_file_say_what_is_accepted(tmp_path, stored, message):
    (tmp_path / "config.json").write_text(json.dumps({"version": 2, "config": stored}))
    with pytest.raises(DataError) as error:
        config.read(Example, tmp_path / "config.json")
    assert message in str(error.value) and "config.json" in str(error.value)


@pytest.mark.parametrize("values, message", BAD[2:])
def test_bad_values_raise_wherever_a_config_is_made(values, message):
    with pytest.raises(SettingError) as error:
        Example(**values)
    assert str(error.value) == message
    with pytest.raises(SettingError):
        config.replace(Example(), values)


def test_errors_carry_what_was_received_and_what_is_accepted():
    with pytest.raises(ValueError) as error:
        Example(loss="l3")
    assert error.value.value == "l3" and error.value.accepted == ("l1", "l2")


def test_the_command_line_says_it_in_its_flags():
    for arguments, message in ((("--levels", "0"), "1<=x<=9"), (("--rate", "nan"), "--rate nan: it must be finite"),
                               (("--smooth", "--loss", "l2"), "--smooth goes with --loss l1 only")):
        result, _ = run(*arguments)
        assert result.exit_code == 2 and message in result.output


def test_a_fault_is_of_the_file_or_of_the_single_values_or_of_both_together(tmp_path):
    path = tmp_path / "mine.toml"
    for text, values, kind, message in (
            ("levels = 0", {"rate": 1.0}, DataError, f"{path}: levels=0: it must be between 1 and 9"),
            ("levels = 3", {"rate": -1.0}, SettingError, "rate=-1.0: it must be at least 0.0"),
            ("smooth = true", {"loss": "l2"}, SettingError, "smooth=True goes with loss=l1 only")):
        path.write_text(text)
        with pytest.raises(DataError) as error:
            config.layered(Example, None, path, values)
        assert str(error.value) == message and type(error.value) is kind


def test_files_that_are_no_configuration(tmp_path):
    with pytest.raises(MissingError, match="no such file"):
        config.read(Example, tmp_path / "none.json")
    for name, text, message in (("bad.json", "[1", "is not a configuration"), ("bad.toml", "levels =", "is not TOML"),
                                ("list.json", '{"config": [1]}', "expected an object under")):
        (tmp_path / name).write_text(text)
        with pytest.raises(DataError, match=message):
            config.read(Example, tmp_path / name)


def test_settings_of_earlier_versions_are_renamed_and_later_versions_refused(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"config": {"depth": 7}}))
    assert config.read(Example, path) == Example(levels=7)
    path.write_text(json.dumps({"version": 99, "config": {"levels": 7}}))
    with pytest.raises(DataError, match=f"has version 99; this kerasgal reads up to {config.VERSION}: it was written"):
        config.read(Example, path)
