"""kerasgal meandensity: the mean density that a cube of the universe will have."""

import click

from kerasgal.apps.meandensity.config import TrainConfig
from kerasgal.commands import App, standard_commands


@click.group(cls=App)
def cli():
    """The final mean density of a cube, from the initial density inside it: an example of an app."""


standard_commands(cli, "kerasgal.apps.meandensity.run:MeanDensity", TrainConfig)
