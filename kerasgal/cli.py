"""The command line: `kerasgal VERB` and `kerasgal APP VERB`.

Each app is a folder of kerasgal.apps with a Click group `cli` in its cli.py, found by name and imported when it is
asked for. Modules that hold commands import what is slow (TensorFlow, SciPy, Matplotlib) inside the commands.
"""

import importlib
import math
import os
import pkgutil
import sys
from pathlib import Path

import click

from kerasgal import __version__
from kerasgal.config import from_flags, options
from kerasgal.errors import DataError

VERBS = {"simulate": "kerasgal.commands", "convert": "kerasgal.readers.cli", "info": "kerasgal.commands",
         "extract": "kerasgal.commands"}


def app_names():
    """Names of the apps installed, without importing them."""
    import kerasgal.apps

    return [module.name for module in pkgutil.iter_modules(kerasgal.apps.__path__) if module.ispkg]


class Front(click.Group):
    """A group whose commands are imported when they are asked for, and whose data errors are one line."""

    def list_commands(self, context):
        return [*VERBS, *app_names()]

    def get_command(self, context, name):
        if name in VERBS:
            return getattr(importlib.import_module(VERBS[name]), name)
        if name in app_names():
            return importlib.import_module(f"kerasgal.apps.{name}.cli").cli
        return None

    def invoke(self, context):
        try:
            return super().invoke(context)
        except (DataError, OSError) as error:  # OSError: a full disk, a read-only folder
            raise click.ClickException(str(error)) from error
        except MemoryError as error:
            raise click.ClickException(f"out of memory: {error}") from error


class NetworkCommand(click.Command):
    """A command that runs a network: TensorFlow is imported first, without its start-up notices.

    They are written to the process's error stream before any logging level applies. Python's errors still come through.
    """

    def invoke(self, context):
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        sys.stderr.flush()
        kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        try:
            importlib.import_module("tensorflow")
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.close(nowhere)
        return super().invoke(context)


class App(click.Group):
    """The command group of an app."""

    command_class = NetworkCommand


def training_options(config_class, default_run):
    """A decorator with the arguments of a `train` on simulations: these, and `run_options`.

    `prepare_training` makes sense of them.
    """
    return together([
        click.argument("simulations", nargs=-1, type=click.Path(dir_okay=False)),
        click.option("--validation", multiple=True, type=click.Path(dir_okay=False), metavar="FILE",
                     help="Simulation file to validate on; may be given several times.  [default: the last of "
                          "SIMULATIONS, if there are several]"),
        run_options(config_class, default_run),
    ])


def run_options(config_class, default_run):
    """A decorator with the options of every `train`: the run folder, and the fields of the config dataclass."""
    return together([
        click.option("--run", "folder", type=click.Path(file_okay=False, path_type=Path), default=default_run,
                     show_default=True, help="Run folder to write."),
        click.option("--resume", is_flag=True, help="Go on with the run in the folder."),
        click.option("--overwrite", is_flag=True, help="Replace the run in the folder."),
        click.option("--tensorboard", is_flag=True, help="Write TensorBoard logs into the run folder."),
        options(config_class),
    ])


def finite(context, parameter, value):
    """A Click callback that refuses NaN and infinity."""
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is not a finite number")
    return value


def check_suffix(output, accepted=(".h5", ".hdf5")):
    """Raise UsageError if the suffix of --output is not one of those that say its format."""
    if output.suffix not in accepted:
        raise click.UsageError(f"--output {output}: accepted suffixes are {', '.join(accepted)}")


def together(decorators):
    """One decorator of several; they take effect from the last to the first, so that help lists them in order."""
    def decorate(command):
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


def prepare_training(config_class, app, simulations, validation, folder, resume, overwrite, flags, *,
                     own=None, alone=None):
    """What an app's `train` was asked for: its config, and lists of the simulations to train and to validate on.

    The arguments are those of the command, `flags` those of `training_options`. A resumed run needs none but its
    folder: what is missing comes from there. Where no simulation is given some are made, with the options `own` of
    `commands.own_simulations`, and the demo preset is used. Without one to validate on, the last of several is held
    out; `alone` says what is done where there is only one.
    Raises UsageError for arguments that contradict each other, DataError for a folder that may not be written into.
    """
    from kerasgal.training import check_folder, recorded_simulations

    flags = flags_of_run(folder, resume, overwrite, flags)
    if resume and not simulations:
        simulations, validation = recorded_simulations(folder)
    if validation and not simulations:
        raise click.UsageError("--validation needs SIMULATIONS to train on")
    config = from_flags(config_class, flags, default_preset="paper" if simulations else "demo")
    check_folder(folder, app, resume, overwrite)
    if not simulations:
        if config.strategy == "workers":
            raise click.UsageError("--strategy workers needs SIMULATIONS: workers must not make them side by side")
        from kerasgal.commands import own_simulations

        simulations = own_simulations(folder.with_name(folder.name + "-simulations"), config.seed, **(own or {}))
    simulations, validation = list(simulations), list(validation)
    places = [Path(path).resolve() for path in (*simulations, *validation)]
    twice = next((path for path in places if places.count(path) > 1), None)
    if twice:
        raise click.UsageError(f"{twice} is given twice: what is validated on must not be trained on")
    if not validation and len(simulations) > 1:
        validation = [simulations.pop()]
        click.echo(f"validating on {validation[0]}, which is not trained on")
    elif not validation:
        click.echo(alone or "no simulation to validate on: the best epoch is the one with the lowest training loss")
    return config, simulations, validation


def flags_of_run(folder, resume, overwrite, flags):
    """`flags`, with the configuration in the folder of a resumed run where they name none.

    Raises UsageError for --resume with --overwrite.
    """
    if resume and overwrite:
        raise click.UsageError("--resume and --overwrite contradict each other: give one of them")
    if resume and not (flags["preset"] or flags["config"]):
        return {**flags, "config": folder / "config.json"}
    return flags


@click.group(cls=Front, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="kerasgal")
def main():
    """Deep learning for cosmic structure and galaxies.

    Start with `kerasgal simulate box.h5` (or `kerasgal convert` for your own simulation), then `kerasgal APP train
    --preset demo`, `predict` and `evaluate`.
    """


if __name__ == "__main__":
    sys.exit(main())
