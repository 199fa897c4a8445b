"""Commands and groups: what they print of logs and errors, and how their options stand in the help."""

import contextlib
import copy
import functools
import importlib
import logging
import re
import sys
import time
import traceback

import click
from click.core import ParameterSource

from kerasgal import plotting
from kerasgal.errors import DataError, SettingError

# In a context's meta: what was given by an old name, and whether --quiet or --verbose was.
RENAMED, VOLUME = "kerasgal.renamed", "kerasgal.volume"


class Printing(logging.Handler):
    """Prints what the library logs: information as it is, warnings on the error stream."""

    def emit(self, record):
        line, now = record.getMessage(), time.strftime("%Y-%m-%d %H:%M:%S")
        if record.levelno >= logging.WARNING:
            context = click.get_current_context(silent=True)
            click.echo(f"warning: {in_flags(line, context.command) if context else line}", err=True)
        elif logging.getLogger("kerasgal").level <= logging.DEBUG:
            click.echo(f"{now} {record.name}: {line}")
        elif getattr(record, "dated", False) and not sys.stdout.isatty():
            click.echo(f"{now} {line}")
        else:
            click.echo(line)


@contextlib.contextmanager
def printing_logs():
    """Print what kerasgal's modules log, for a `with` block."""
    log, handler = logging.getLogger("kerasgal"), Printing()
    before = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before)


def in_flags(message, command):
    """The words of an error with a command's flags for Python's arguments: patch=7 becomes --patch 7."""
    flags = {}
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            flags[parameter.name] = (parameter.opts[0], parameter.secondary_opts)

    def flag(match):
        name, value = match.groups()
        if name not in flags:
            return match[0]
        on, off = flags[name]
        if value in ("True", "False"):
            return on if value == "True" or not off else off[0]
        return f"{on} {value.strip(chr(39))}"

    message = re.sub(r"(?<![\w.])([A-Za-z_]\w*)=('[^']*'|[\w./+-]*[\w/])", flag, message)
    return re.sub(r"`([A-Za-z_]\w*)`", lambda match: flags[match[1]][0] if match[1] in flags else match[0], message)


def _volume():
    """The options of every command that say how much it prints."""
    def choose(context, parameter, value):
        if not value:
            return
        if context.meta.setdefault(VOLUME, parameter.name) != parameter.name:
            raise click.UsageError("--quiet and --verbose contradict each other: give one of them", context)
        log = logging.getLogger("kerasgal")
        if parameter.name == "verbose":
            log.setLevel(logging.DEBUG)
            return
        for handler in log.handlers:
            if isinstance(handler, Printing):
                handler.setLevel(logging.WARNING)  # not the log's own level: log.txt of a run keeps all
        plotting.shown = False
        context.call_on_close(functools.partial(setattr, plotting, "shown", True))

    options = {"is_flag": True, "expose_value": False, "callback": choose}
    return [click.Option(["-q", "--quiet"], help="Print results, warnings and errors only.", **options),
            click.Option(["-v", "--verbose"], help="Print also when and where each line was said, what was decided on "
                                                   "the way, and where an error comes from.", **options)]


class Command(click.Command):
    """A command whose data errors are one line, and whose options stand under headings in the help.

    An option belongs under the heading in its attribute `section`; those without one come last, under "Options".
    Every command has --quiet and --verbose. loads: the module that does its work, if importing that takes a second.
    """

    def __init__(self, *arguments, loads=None, **options):
        super().__init__(*arguments, **options)
        self.params = [*self.params, *_volume()]
        self.loads = loads

    def invoke(self, context):
        try:
            return self.invoke_in_one_line(context)
        except click.ClickException as error:
            if context.meta.get(VOLUME) == "verbose" and error.__cause__ is not None:
                click.echo("".join(traceback.format_exception(error.__cause__)), err=True, nl=False)
            raise

    def invoke_in_one_line(self, context):
        """Invoke the command; what goes wrong with its data is a ClickException of one line."""
        try:
            if self.loads:
                with passing("loading ..."):
                    importlib.import_module(self.loads)
            for name, (new, value) in context.meta.get(RENAMED, {}).items():
                if context.get_parameter_source(new) is ParameterSource.COMMANDLINE:
                    raise click.UsageError(f"{name}, an old spelling, and {self.flag_of(new)} contradict each other: "
                                           "give one of them", context)
                context.params[new] = value
                click.echo(f"{name} is an old spelling: write {self.flag_of(new)}", err=True)
            return super().invoke(context)
        except SettingError as error:
            raise click.UsageError(in_flags(str(error), self), context) from error
        except BrokenPipeError:
            raise  # whoever read this, such as `head`, has had enough: Click ends without a word
        except (DataError, OSError) as error:  # OSError: a full disk, a read-only folder
            raise click.ClickException(in_flags(str(error), self)) from error
        except MemoryError as error:
            raise click.ClickException(f"out of memory: {error}") from error
        except KeyboardInterrupt as error:
            click.echo(in_flags(str(error), self) or "stopped", err=True)
            context.exit(130)

    def flag_of(self, name):
        """The flag, or the place, of one of its parameters."""
        parameter = next(parameter for parameter in self.params if parameter.name == name)
        return parameter.opts[0] if isinstance(parameter, click.Option) else parameter.make_metavar(
            click.Context(self))

    def format_options(self, context, formatter):
        sections = {}
        for parameter in self.get_params(context):
            record = parameter.get_help_record(context) if isinstance(parameter, click.Option) else None
            if record:
                sections.setdefault(getattr(parameter, "section", "Options"), []).append(record)
        last = sections.pop("Options", [])
        for heading, records in [*sections.items(), ("Options", last)]:
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)


class NetworkCommand(Command):
    """A command that runs a network: TensorFlow is imported first, without its start-up notices."""

    def invoke(self, context):
        from kerasgal.quiet import import_tensorflow, keep_memory

        keep_memory()
        with passing("loading TensorFlow ..."):  # which takes seconds
            import_tensorflow(sparing=True)
        return super().invoke(context)


@contextlib.contextmanager
def passing(words):
    """Words that stand on a terminal while something lasts, and nowhere else."""
    shown = sys.stderr.isatty() and plotting.shown
    if shown:
        click.echo(words, nl=False, err=True)
    try:
        yield
    finally:
        if shown:
            click.echo("\r\033[K", nl=False, err=True)


class Group(click.Group):
    """A group whose list of commands shows their first sentences whole."""

    command_class = Command

    def format_commands(self, context, formatter):
        rows = []
        for name in self.list_commands(context):
            command = self.get_command(context, name)
            if command is not None and not command.hidden:
                rows.append((name, command.get_short_help_str(limit=300)))
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)


class App(Group):
    """The command group of an app."""

    command_class = NetworkCommand


def section(heading, *options):
    """A decorator of several options that stand under one heading in the help."""
    def decorate(command):
        command = together(options)(command)
        for parameter in command.__click_params__[-len(options):]:
            parameter.section = heading
        return command

    return decorate


def together(decorators):
    """One decorator of several; they take effect from the last to the first, so that help lists them in order."""
    def decorate(command):
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


def old_option(old, new, **options):
    """A hidden option by which `new`, the name of a parameter, may still be given; its use is said."""
    def note(context, parameter, value):
        if value is not None and value is not False and value != ():  # 0 is a value
            context.meta.setdefault(RENAMED, {})[old] = (new, value)

    parameter = f"old_{old.strip('-').replace('-', '_')}"  # it may be an argument's name by now
    return click.option(old, parameter, hidden=True, expose_value=False, callback=note, **options)


def old_command(group, old, new):
    """Keep a group's command under an earlier name, hidden; its use is said."""
    command = copy.copy(group.commands[new])
    command.name, command.hidden, body = old, True, command.callback

    def noted(**arguments):
        click.echo(f"{old} is an old spelling: write {new}", err=True)
        return body(**arguments)

    command.callback = noted
    group.add_command(command)


DASK = click.option("--dask", metavar="local|ADDRESS",
                    help="Share the work among processes of Dask: one for each core of this machine, or those of the "
                         "scheduler at ADDRESS. Needs kerasgal[dask].")


def named_numbers(context, parameter, texts):
    """A Click callback: {name: [numbers]} of texts like "w1=100,500"."""
    found = {}
    for text in texts:
        name, _, numbers = text.partition("=")
        if name in found:
            raise click.BadParameter(f"{name} is given twice: {text!r}")
        try:
            found[name] = [float(number) for number in numbers.split(",")]
        except ValueError:
            raise click.BadParameter(f"{text!r}: accepted is {parameter.metavar}, with numbers") from None
    return found


def named_number(context, parameter, texts):
    """A Click callback: {name: number} of texts like "Om0=0.3"."""
    found = named_numbers(context, parameter, texts)
    for name, numbers in found.items():
        if len(numbers) > 1:  # a decimal comma, it may be
            raise click.BadParameter(f"{name} has {len(numbers)} numbers: accepted is one, with a decimal point")
    return {name: number for name, (number,) in found.items()}


PARAMETER = click.option("--parameter", "parameters", multiple=True, metavar="NAME=VALUE", callback=named_number,
                         help="Give the network this number for one of its parameters, not the simulation's own.")


def finite(context, parameter, value):
    """A Click callback that refuses NaN and infinity."""
    import math

    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is not a finite number")
    return value


def check_suffix(output, accepted=(".h5", ".hdf5")):
    """Raise UsageError if the suffix of --output is not one of those that say its format."""
    if output.suffix not in accepted:
        raise click.UsageError(f"--output {output}: accepted suffixes are {', '.join(accepted)}")


def print_table(title, rows):
    """Print pairs of a name and a value as a table."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text  # in which a bracket is no markup

    table = Table("name", "value", title=Text(str(title)), title_justify="left")
    for name, value in rows:
        table.add_row(Text(str(name)), Text(str(value)))
    Console().print(table)
