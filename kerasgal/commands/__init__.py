"""The command line: the verbs of the core, and the frame in which the verbs of every app stand."""

from kerasgal.commands.base import App, old_command, old_option, section, together
from kerasgal.commands.frame import evaluation_command, standard_commands

__all__ = ["App", "evaluation_command", "old_command", "old_option", "section", "standard_commands", "together"]
