"""Hyper-parameters: one frozen dataclass per app is the flags, the JSON in the run folder and the docs.

    @dataclass(frozen=True)
    class TrainConfig(TrainingConfig):
        groups = {"Network": ("levels",)}
        levels: int = setting(5, "Levels of the U-Net above its bottleneck.", demo=3, minimum=1)
        learning_rate: float = default(1e-4, demo=1e-3)

The default is the paper's value and makes the preset `paper`; `demo` gives the value sized for two CPU cores where it
differs. `default` gives an inherited setting other values and leaves its help and what it accepts as they are. A class
may name further presets in `presets`, each by what differs from another one.
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
VERSION = 5  # of config.json; 1 is that without a version, of kerasgal 0.1 before it had one


def setting(paper, help, *, demo=None, choices=None, minimum=None, maximum=None, resumable=False):
    """A field of a config dataclass: a setting of an app.

    Parameters
    ----------
    paper : bool, int, float or str
        The paper's value, which is the default.
    help : str
        What it is, for the help of the command line and `toml`.
    demo : optional
        The value of the preset `demo`, where it differs.
    choices : sequence of str, optional
        What it may be.
    minimum, maximum : number, optional
        The least and the greatest that it may be.
    resumable : bool
        Whether a run may be resumed under another value and still be the same training.

    Returns
    -------
    dataclasses.Field

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> from kerasgal.config import Config, setting
    >>> @dataclass(frozen=True)
    ... class Small(Config):
    ...     filters: int = setting(32, "Filters of the first level.", demo=4, minimum=1)
    >>> Small().filters
    32
    >>> Small(filters=0)
    Traceback (most recent call last):
    kerasgal.errors.SettingError: filters=0: it must be at least 1
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
    """An inherited setting with another value; its help and what it accepts stay.

    Parameters
    ----------
    paper : bool, int, float or str
        The paper's value.
    demo : optional
        The demo's, where it differs.

    Returns
    -------
    Default

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> from kerasgal.config import default, preset
    >>> from kerasgal.training import TrainingConfig
    >>> @dataclass(frozen=True)
    ... class Mine(TrainingConfig):
    ...     epochs: int = default(100, demo=3)
    >>> Mine().epochs, preset(Mine, "demo").epochs
    (100, 3)
    """
    return Default(paper, paper if demo is None else demo)


@dataclasses.dataclass(frozen=True)
class Config:
    """Base of the config dataclasses: values are checked wherever one is made.

    A class overrides `check` for what several settings must agree on, and `migrate` for what a renaming does not do.

    Attributes
    ----------
    groups : dict
        Of the class: headings under which its settings stand in help, and their names.
    renamed : dict
        Of the class: settings that had another name in version 1 of config.json, {old: new}.
    meant : dict
        Of the class: what a config.json means that is older than a setting and leaves it out, where that is not the
        paper's value, {first version with the setting: {name: value}}.
    presets : dict
        Of the class: further presets, {name: (the preset it is like, {setting: value that differs})}.

    Raises
    ------
    SettingError
        For a value that is not accepted.

    Examples
    --------
    >>> from kerasgal.apps.protohalo.config import TrainConfig
    >>> TrainConfig(loss="l7")
    Traceback (most recent call last):
    kerasgal.errors.SettingError: loss='l7': it must be one of l1, l2
    """

    groups: ClassVar[dict] = {}
    renamed: ClassVar[dict] = {}
    meant: ClassVar[dict] = {}
    presets: ClassVar[dict] = {}

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
        """The settings of a config.json of version 1 as those of today.

        Parameters
        ----------
        stored : dict
            {name: value}.

        Returns
        -------
        dict
            {name: value}.
        """
        return {cls.renamed.get(name, name): value for name, value in stored.items()}


def preset(config_class, name):
    """The config of a preset.

    Parameters
    ----------
    config_class : type
        A subclass of `Config`.
    name : str
        One of `preset_names`: "paper", "demo", or one of the class's own.

    Returns
    -------
    Config
        Of that class.

    Raises
    ------
    SettingError
        For another name.

    Examples
    --------
    >>> from kerasgal.apps.protohalo.config import TrainConfig
    >>> from kerasgal.config import preset
    >>> preset(TrainConfig, "paper").patch, preset(TrainConfig, "demo").patch
    (128, 64)
    """
    return config_class(**preset_values(config_class, name))


def preset_names(config_class):
    """The names of a class's presets: "paper" and "demo", which all have, then its own."""
    return (*PRESETS, *config_class.presets)


def preset_values(config_class, name):
    """The settings of a preset, {name: value}."""
    names = preset_names(config_class)
    if name not in names:
        raise SettingError(f"unknown preset {name!r}; accepted are {', '.join(names)}", value=name, accepted=names)
    fields = dataclasses.fields(config_class)
    if name == "paper":
        return {field.name: field.default for field in fields}
    if name == "demo":
        return {field.name: field.metadata["demo"] for field in fields}
    like, differing = config_class.presets[name]
    return preset_values(config_class, like) | differing


def replace(config, values, origin=None):
    """A config with some values replaced.

    Parameters
    ----------
    config : Config
        Where the others come from.
    values : dict
        {name: value}.
    origin : str or Path, optional
        The file that the values came from, named in errors.

    Returns
    -------
    Config

    Raises
    ------
    SettingError
        For an unknown name, a value of the wrong type or one outside what is accepted; DataError if that stands in a
        file.

    Examples
    --------
    >>> from kerasgal.apps.protohalo.config import TrainConfig
    >>> from kerasgal.config import replace
    >>> replace(TrainConfig(), {"epochs": 3}).epochs
    3
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
    values = config_class.migrate(stored) if version < 2 else stored
    for first, meant in config_class.meant.items():
        if version < first:
            values = {**meant, **values}
    check_names(config_class, values, path)
    return values, start


def read(config_class, path):
    r"""The config stored in a file. What the file leaves out is the paper's, or its preset's.

    A JSON file has the settings under "config", as a run folder's config.json does; a TOML file at its top level, where
    `preset = "demo"` may stand too. Settings of earlier versions are renamed.

    Parameters
    ----------
    config_class : type
        A subclass of `Config`.
    path : str or Path
        The file.

    Returns
    -------
    Config
        Of that class.

    Raises
    ------
    MissingError
        If there is no such file.
    DataError
        For a file that is neither, that a newer kerasgal wrote, or that has a setting which is not accepted.

    Examples
    --------
    >>> from pathlib import Path
    >>> from kerasgal.apps.protohalo.config import TrainConfig
    >>> from kerasgal.config import read
    >>> _ = Path("mine.toml").write_text('preset = "demo"\nepochs = 3\n')
    >>> mine = read(TrainConfig, "mine.toml")
    >>> mine.epochs, mine.patch
    (3, 64)
    """
    values, start = read_values(config_class, path)
    return replace(preset(config_class, start or "paper"), values, origin=path)


def layered(config_class, preset_name=None, path=None, values=None, *, otherwise="paper"):
    """The config that a preset, a file and single values make, each over the ones before.

    Parameters
    ----------
    config_class : type
        A subclass of `Config`.
    preset_name : str, optional
        One of `preset_names`. Without one it is that of the file, or `otherwise`.
    path : str or Path, optional
        A file of some settings; see `read`.
    values : dict, optional
        Single settings, {name: value}.
    otherwise : {"paper", "demo"}
        The preset where nothing else says one.

    Returns
    -------
    Config
        Of that class.

    Raises
    ------
    SettingError
        For what is not accepted; DataError if that stands in the file.

    Examples
    --------
    >>> from kerasgal.apps.protohalo.config import TrainConfig
    >>> from kerasgal.config import layered
    >>> layered(TrainConfig, "demo", values={"epochs": 3}).epochs
    3
    """
    stored, start = read_values(config_class, path) if path else ({}, None)
    values = values or {}
    begun = preset(config_class, preset_name or start or otherwise)
    try:  # in one step: settings that agree only together may come from several places
        return replace(begun, {**stored, **values}, origin=path if stored and not values else None)
    except SettingError:
        if stored and values and _accepts(begun, values):
            replace(begun, stored, origin=path)  # raises where the fault is the file's own
        raise


def _accepts(config, values):
    try:
        replace(config, values)
    except SettingError:
        return False
    return True


def write(config, path, **header):
    """Write a config as JSON, under "config", beside its version.

    Parameters
    ----------
    config : Config
        The settings.
    path : str or Path
        File to write.
    **header
        Further entries, such as the app.

    Examples
    --------
    >>> from kerasgal.apps.protohalo.config import TrainConfig
    >>> from kerasgal.config import read, write
    >>> write(TrainConfig(epochs=3), "config.json", app="protohalo")
    >>> read(TrainConfig, "config.json") == TrainConfig(epochs=3)
    True
    """
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
    """A config as TOML, each setting under its help as a comment.

    Parameters
    ----------
    config : Config
        The settings.

    Returns
    -------
    str

    Examples
    --------
    >>> from kerasgal.apps.protohalo.config import TrainConfig
    >>> from kerasgal.config import toml
    >>> toml(TrainConfig()).splitlines()[2:4]
    ["# Fewest cells of a halo; smaller ones are background. The paper's smallest halo has 4,525.", 'minimum = 4525']
    """
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
