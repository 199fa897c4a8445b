"""Hyper-parameters: one frozen dataclass per app is the flags, the JSON in the run folder and the docs.

    @dataclass(frozen=True)
    class TrainConfig(TrainingConfig):
        groups = {"Network": ("levels",)}
        levels: int = setting(5, "Levels of the U-Net above its bottleneck.", demo=3, minimum=1)
        learning_rate: float = default(1e-4, demo=1e-3)

The default is the paper's value and makes the preset `paper`; `demo` gives the value sized for two CPU cores where it
differs. `default` gives an inherited setting other values and leaves its help and what it accepts as they are.
"""

import dataclasses
import difflib
import json
import math
import tomllib
from pathlib import Path
from typing import ClassVar

from kerasgal.errors import DataError, MissingError, SettingError

PRESETS = ("paper", "demo")
VERSION = 2  # of config.json; 1 is that without a version, of kerasgal 0.1 before it had one


def setting(paper, help, *, demo=None, choices=None, minimum=None, maximum=None, resumable=False):
    """A field of a config dataclass: the paper's value, its help, the demo's value and what is accepted.

    `resumable`: whether a run may be resumed under another value and still be the same training.
    """
    metadata = {"help": help, "demo": paper if demo is None else demo, "choices": choices,
                "minimum": minimum, "maximum": maximum, "resumable": resumable}
    return dataclasses.field(default=paper, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Default:
    """What `default` gives until the class knows which setting it is of."""

    paper: object
    demo: object


def default(paper, *, demo=None):
    """An inherited setting with another value: the paper's, and the demo's where that differs."""
    return Default(paper, paper if demo is None else demo)


@dataclasses.dataclass(frozen=True)
class Config:
    """Base of the config dataclasses: values are checked wherever one is made.

    A class names under `groups` the headings under which its settings stand in help, under `renamed` the settings that
    had another name in earlier versions, {old: new}, and overrides `check` for what several settings must agree on and
    `migrate` for what a renaming does not do.
    """

    groups: ClassVar[dict] = {}
    renamed: ClassVar[dict] = {}

    def __init_subclass__(cls, **options):
        super().__init_subclass__(**options)
        for name, value in list(vars(cls).items()):
            if isinstance(value, Default):
                inherited = cls.__dataclass_fields__[name].metadata
                field = dataclasses.field(default=value.paper, metadata={**inherited, "demo": value.demo})
                setattr(cls, name, field)

    def __post_init__(self):
        for field in dataclasses.fields(self):
            _check(field, getattr(self, field.name))
        self.check()

    def check(self):
        """Raise SettingError where settings contradict each other."""

    @classmethod
    def migrate(cls, stored):
        """The settings of a config.json of version 1, {name: value}, as those of today."""
        return {cls.renamed.get(name, name): value for name, value in stored.items()}


def preset(config_class, name):
    """The config of a preset, "paper" or "demo"."""
    return config_class(**preset_values(config_class, name))


def preset_values(config_class, name):
    """The settings of a preset, {name: value}."""
    if name not in PRESETS:
        raise SettingError(f"unknown preset {name!r}; accepted are {', '.join(PRESETS)}", value=name, accepted=PRESETS)
    return {field.name: field.default if name == "paper" else field.metadata["demo"]
            for field in dataclasses.fields(config_class)}


def replace(config, values, origin=None):
    """`config` with some values replaced.

    origin: the file that the values came from, named in errors. Raises SettingError for an unknown name, a value of the
    wrong type or one outside what is accepted; DataError if that stands in a file.
    """
    check_names(type(config), values, origin)
    try:
        return dataclasses.replace(config, **values)
    except SettingError as error:
        if origin is None:
            raise
        raise DataError(f"{origin}: {error}", value=error.value, accepted=error.accepted) from None


def check_names(config_class, values, origin=None):
    """Raise an error if one of the names is no setting of a config: see `replace`."""
    names = [field.name for field in dataclasses.fields(config_class)]
    for name in values:
        if name not in names:
            near = difflib.get_close_matches(name, names, 1)
            guess = f" (did you mean {near[0]}?)" if near else ""
            message = f"unknown setting {name!r}{guess}; accepted are {', '.join(names)}"
            if origin:
                raise DataError(f"{origin}: {message}", value=name, accepted=names)
            raise SettingError(message, value=name, accepted=names)


def _check(field, value):
    """Raise SettingError unless the value is of the field's type and among what it accepts."""
    def refuse(expected, accepted=None):
        raise SettingError(f"{field.name}={value!r}: it must be {expected}", value=value, accepted=accepted)

    accepted = (int, float) if field.type is float else field.type
    if not isinstance(value, accepted) or (isinstance(value, bool) and field.type is not bool):
        refuse(f"of type {field.type.__name__}", field.type)
    if field.type is float and not math.isfinite(value):
        refuse("finite")
    choices, minimum, maximum = (field.metadata.get(key) for key in ("choices", "minimum", "maximum"))
    if choices and value not in choices:
        refuse(f"one of {', '.join(choices)}", choices)
    if (minimum is not None and value < minimum) or (maximum is not None and value > maximum):
        refuse(f"at least {minimum}" if maximum is None else f"between {minimum} and {maximum}", (minimum, maximum))


def read_values(config_class, path):
    """The settings in a file, {name: value}, and the preset that it starts from, or None.

    A JSON file has them under "config", as a run folder's config.json does; a TOML file at its top level, where
    `preset = "demo"` may stand too. Neither needs to have all of them. Settings of earlier versions are renamed. Raises
    MissingError, or DataError for a file that is neither or was written by a newer kerasgal.
    """
    path = Path(path)
    try:
        text = path.read_text()
        if path.suffix == ".toml":
            document = tomllib.loads(text)
            stored, version, start = document, VERSION, document.pop("preset", None)
        else:
            document = json.loads(text)
            stored, version, start = document["config"], document.get("version", 1), None
    except FileNotFoundError:
        raise MissingError(f"no such file: {path}") from None
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"{path} is not TOML: {error}") from None
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError):
        raise DataError(f'{path} is not a configuration: expected JSON with an object "config", or TOML') from None
    if not isinstance(stored, dict):
        raise DataError(f'{path} is not a configuration: expected an object under "config", received {stored!r}')
    if not isinstance(version, int) or version > VERSION:
        raise DataError(f"{path} has version {version}; this kerasgal reads up to {VERSION}: it was written by a "
                        "newer one", value=version, accepted=VERSION)
    values = config_class.migrate(stored) if version < VERSION else stored
    check_names(config_class, values, path)
    return values, start


def read(config_class, path):
    """The config stored in a file; see `read_values`. What the file leaves out is the paper's, or its preset's."""
    values, start = read_values(config_class, path)
    return replace(preset(config_class, start or "paper"), values, origin=path)


def layered(config_class, preset_name=None, path=None, values=None, *, otherwise="paper"):
    """The config that a preset, a file and single values make, each over the ones before.

    preset_name: None takes the preset that the file names, or `otherwise`.
    """
    stored, start = read_values(config_class, path) if path else ({}, None)
    values = values or {}
    # In one step: settings that agree only together may come from several places.
    return replace(preset(config_class, preset_name or start or otherwise), {**stored, **values},
                   origin=path if stored and not values else None)


def write(config, path, **header):
    """Write `config` as JSON, under "config", beside a version and the entries of `header`."""
    document = {**header, "version": VERSION, "config": dataclasses.asdict(config)}
    Path(path).write_text(json.dumps(document, indent=2) + "\n")


def sections(config_class):
    """Headings and the fields under them, [(heading, [field])]: the class's own groups, then the inherited ones."""
    fields = {field.name: field for field in dataclasses.fields(config_class)}
    found = []
    for owner in config_class.__mro__:
        for heading, names in vars(owner).get("groups", {}).items():
            found.append((heading, [fields.pop(name) for name in names if name in fields]))
    if fields:
        found.insert(0, ("Settings", list(fields.values())))
    return [(heading, members) for heading, members in found if members]


def toml(config):
    """A config as TOML, each setting under its help as a comment."""
    import textwrap

    lines = []
    for heading, members in sections(type(config)):
        lines += [f"# {heading}", ""]
        for field in members:
            help = textwrap.wrap(field.metadata["help"], 110)
            if field.metadata["choices"]:
                help += textwrap.wrap("One of " + ", ".join(field.metadata["choices"]), 110)
            lines += [f"# {line}" for line in help]
            lines += [f"{field.name} = {_toml_value(getattr(config, field.name))}", ""]
    return "\n".join(lines)


def _toml_value(value):
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value)  # strings, whole numbers and truth values are written alike in both
