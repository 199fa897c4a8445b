"""The command line: `kerasgal VERB` and `kerasgal APP VERB`.

Modules that hold commands import what is slow (TensorFlow, SciPy, Matplotlib) inside the commands.
"""

import importlib
import sys

import click

from kerasgal import __version__, registry
from kerasgal.commands.base import Group, printing_logs
from kerasgal.errors import first_line

VERBS = {name: f"kerasgal.commands.{name}"
         for name in ("simulate", "convert", "info", "extract", "view", "models", "doctor")}
VERBS["plot"] = VERBS["view"]


class Front(Group):
    """A group whose commands are imported when they are asked for, and which prints what the library says."""

    def list_commands(self, context):
        return [*VERBS, *registry.packages()]

    def get_command(self, context, name):
        if name in VERBS:
            return getattr(importlib.import_module(VERBS[name]), name)
        if name not in registry.packages():
            return None
        try:
            return registry.group_of(name)
        except Exception as error:
            if registry.is_ours(name):
                raise
            return unusable(name, f"{type(error).__name__}: {first_line(error)}")

    def invoke(self, context):
        with printing_logs():
            return super().invoke(context)


def unusable(name, why):
    """A command in the place of an app of another package that cannot be imported."""
    def refuse(**_):
        raise click.ClickException(f"the app {name} of {registry.packages()[name]} cannot be imported: {why}")

    return click.Command(name, callback=refuse, help=f"(cannot be imported: {why})", add_help_option=False,
                         context_settings={"ignore_unknown_options": True},
                         params=[click.Argument(["words"], nargs=-1, type=click.UNPROCESSED)])


@click.group(cls=Front, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="kerasgal")
def main():
    """Deep learning for cosmic structure and galaxies.

    Start with a network that is trained already: `kerasgal simulate box.h5`, then `kerasgal protohalo predict
    protohalo-demo box.h5`; `kerasgal models` lists the others. To train one: `kerasgal APP train --preset demo`, then
    `predict` and `evaluate`. Your own simulation is read by `kerasgal convert`.
    """


if __name__ == "__main__":
    sys.exit(main())
