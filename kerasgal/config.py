"""Hyper-parameters: one frozen dataclass per command is the flags, the JSON in the run folder and the docs.

    @dataclass(frozen=True)
    class TrainConfig:
        levels: int = setting(5, "Levels of the U-Net above its bottleneck.", demo=3, minimum=1)

The default is the paper's value and makes the preset `paper`; `demo` gives the value sized for two CPU cores where it
differs.
"""

import dataclasses
import json
import math
from pathlib import Path

import click

from kerasgal.errors import DataError

PRESETS = ("paper", "demo")


def setting(paper, help, *, demo=None, choices=None, minimum=None, maximum=None, resumable=False):
    """A field of a config dataclass: the paper's value, its help, the demo's value and what is accepted.

    `resumable`: whether a run may be resumed under another value and still be the same training.
    """
    metadata = {"help": help, "demo": paper if demo is None else demo, "choices": choices,
                "minimum": minimum, "maximum": maximum, "resumable": resumable}
    return dataclasses.field(default=paper, metadata=metadata)


def preset(config_class, name):
    """The config of a preset, "paper" or "demo"."""
    if name not in PRESETS:
        raise DataError(f"unknown preset {name!r}; accepted are {', '.join(PRESETS)}")
    if name == "paper":
        return config_class()
    return config_class(**{field.name: field.metadata["demo"] for field in dataclasses.fields(config_class)})


def replace(config, values, origin):
    """`config` with some values replaced, each checked; `origin` says in errors where they came from.

    Raises DataError for an unknown key, a value of the wrong type or one outside what is accepted.
    """
    fields = {field.name: field for field in dataclasses.fields(config)}
    for name, value in values.items():
        if name not in fields:
            raise DataError(f"{origin}: unknown key {name!r}; accepted are {', '.join(fields)}")
        _check(fields[name], value, origin)
    return dataclasses.replace(config, **values)


def _check(field, value, origin):
    accepted = (int, float) if field.type is float else field.type
    if not isinstance(value, accepted) or (isinstance(value, bool) and field.type is not bool):
        raise DataError(f"{origin}: {field.name} must be of type {field.type.__name__}, received {value!r}")
    if field.type is float and not math.isfinite(value):
        raise DataError(f"{origin}: {field.name} must be finite, received {value!r}")
    choices, minimum, maximum = (field.metadata[key] for key in ("choices", "minimum", "maximum"))
    if choices and value not in choices:
        raise DataError(f"{origin}: {field.name} must be one of {', '.join(choices)}, received {value!r}")
    if (minimum is not None and value < minimum) or (maximum is not None and value > maximum):
        bounds = f"at least {minimum}" if maximum is None else f"between {minimum} and {maximum}"
        raise DataError(f"{origin}: {field.name} must be {bounds}, received {value!r}")


def read(config_class, path):
    """The config stored under "config" in a JSON file, e.g. a run folder's config.json."""
    try:
        stored = json.loads(Path(path).read_text())["config"]
    except FileNotFoundError:
        raise DataError(f"no such file: {path}") from None
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
        raise DataError(f'{path} is not a configuration: expected JSON with an object "config"') from None
    if not isinstance(stored, dict):
        raise DataError(f'{path} is not a configuration: expected an object under "config", received {stored!r}')
    return replace(config_class(), stored, origin=path)


def options(config_class):
    """A decorator that gives a Click command --preset, --config and one flag per field of the dataclass.

    The command receives them as one dictionary argument `flags`, for `from_flags`. What two fields must agree on the
    dataclass checks in its `__post_init__`, raising DataError.
    """
    names = [field.name for field in dataclasses.fields(config_class)]

    def decorate(command):
        def collect(**arguments):
            flags = {name: arguments.pop(name) for name in ("preset", "config", *names)}
            return command(flags=flags, **arguments)

        collect.__name__, collect.__doc__ = command.__name__, command.__doc__
        collect.__click_params__ = getattr(command, "__click_params__", [])
        for field in reversed(dataclasses.fields(config_class)):
            collect = _flag(field)(collect)
        collect = click.option("--config", type=click.Path(dir_okay=False), metavar="FILE",
                               help="Start from a stored configuration, e.g. a run folder's config.json.")(collect)
        return click.option("--preset", type=click.Choice(PRESETS),
                            help="Where values come from that no flag gives: the paper's, or a demonstration's sized "
                                 "for two CPU cores.")(collect)

    return decorate


def _flag(field):
    name = "--" + field.name.replace("_", "-")
    paper, demo = field.default, field.metadata["demo"]
    help = f"{field.metadata['help']}  [default: {paper}{'' if demo == paper else f'; demo: {demo}'}]"
    if field.type is bool:
        return click.option(f"{name}/--no-{name[2:]}", default=None, help=help)
    choices, minimum, maximum = (field.metadata[key] for key in ("choices", "minimum", "maximum"))
    if choices:
        kind = click.Choice(choices)
    elif field.type is int and (minimum, maximum) != (None, None):
        kind = click.IntRange(minimum, maximum)
    elif field.type is float and (minimum, maximum) != (None, None):
        kind = click.FloatRange(minimum, maximum)
    else:
        kind = field.type
    return click.option(name, type=kind, default=None, help=help)


def from_flags(config_class, flags, default_preset="paper"):
    """The config that the flags of `options` ask for: a preset or a file, then the single flags."""
    flags = dict(flags)
    chosen, path = flags.pop("preset"), flags.pop("config")
    if chosen and path:
        raise click.UsageError("--preset and --config contradict each other: give one of them")
    config = read(config_class, path) if path else preset(config_class, chosen or default_preset)
    try:
        return replace(config, {name: value for name, value in flags.items() if value is not None}, origin="flags")
    except DataError as error:
        raise click.UsageError(str(error)) from error


def write(config, path, **header):
    """Write `config` as JSON, under "config", beside the entries of `header`."""
    document = {**header, "config": dataclasses.asdict(config)}
    Path(path).write_text(json.dumps(document, indent=2) + "\n")
