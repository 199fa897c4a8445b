"""The settings of a config dataclass as the flags of a command."""

import dataclasses

import click

from kerasgal.config import preset_names, preset_values, sections
from kerasgal.planning import AUTO

SOURCES = "Where settings come from"


def settings_options(config_class, auto=False):
    """A decorator that gives a command --preset, --config and one flag per setting, under their headings.

    The command receives the settings that were given as one dictionary `settings`, beside `preset` and `config`.
    auto: whether the preset may be chosen by data, where there are patches to choose.
    """
    names = [field.name for field in dataclasses.fields(config_class)]
    auto = auto and "patch" in names
    presets = {name: preset_values(config_class, name) for name in preset_names(config_class)}

    def decorate(command):
        def collect(**arguments):
            given = {name: arguments.pop(name) for name in names}
            settings = {name: value for name, value in given.items() if value is not None}
            return command(settings=settings, **arguments)

        collect.__name__, collect.__doc__ = command.__name__, command.__doc__
        collect.__click_params__ = list(getattr(command, "__click_params__", []))
        for heading, fields in reversed(sections(config_class)):
            for field in reversed(fields):
                collect = _flag(field, presets)(collect)
                collect.__click_params__[-1].section = heading
        for option in (
                click.option("--config", type=click.Path(dir_okay=False), metavar="FILE",
                             help="JSON or TOML file, such as a run folder's config.json or what `config` prints; it "
                                  "need not have all settings. Single flags go before it, it before the preset."),
                click.option("--preset", type=click.Choice((*presets, AUTO) if auto else tuple(presets)),
                             help="The paper's values, or a demonstration's sized for two CPU cores"
                                  + ("; auto: patch, batch, accumulation and precision by boxes and memory."
                                     if auto else "."))):
            collect = option(collect)
            collect.__click_params__[-1].section = SOURCES
        return collect

    return decorate


def _flag(field, presets):
    """The flag of a setting, whose help has its value in each preset; presets: {name: {setting: value}}."""
    name = "--" + field.name.replace("_", "-")
    values = {preset: settings[field.name] for preset, settings in presets.items()}
    differing = "".join(f"; {preset}: {value}" for preset, value in values.items() if value != field.default)
    help = f"{field.metadata['help']}  [default: {field.default}{differing}]"
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
