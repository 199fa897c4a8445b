"""kerasgal meandensity: the mean density that a cube of the universe will have."""

import click

from kerasgal.apps.meandensity.config import APP, TrainConfig
from kerasgal.cli import App, prepare_training, training_options
from kerasgal.config import PRESETS, preset


@click.group(cls=App)
def cli():
    """The final mean density of a cube, from the initial density inside it: an example of an app."""


@cli.command()
@click.option("--preset", "name", type=click.Choice(PRESETS), default="paper", show_default=True)
def summary(name):
    """Print the network layer by layer."""
    from kerasgal.apps.meandensity.train import build

    build(preset(TrainConfig, name)).summary()


@cli.command()
@training_options(TrainConfig, "meandensity-run")
def train(folder, resume, overwrite, tensorboard, **request):
    """Train on SIMULATIONS, Simulation files with an initial density and final positions."""
    from kerasgal.apps.meandensity.train import train_run

    config, simulations, validation = prepare_training(TrainConfig, APP, folder=folder, resume=resume,
                                                       overwrite=overwrite, **request)
    model = train_run(simulations, validation, config, folder, resume=resume, overwrite=overwrite,
                      tensorboard=tensorboard)
    if model is not None:
        click.echo(f"{folder}: run of {model.count_params():,} parameters, loss curve in {folder / 'loss.png'}")


@cli.command()
@click.argument("run", type=click.Path())
@click.argument("simulation", type=click.Path(dir_okay=False))
def evaluate(run, simulation):
    """Correlate the prediction of the trained RUN with the truth in SIMULATION, which it never saw."""
    import numpy as np

    from kerasgal.apps.meandensity.train import load_run, samples
    from kerasgal.training import check_unseen

    config, model = load_run(run)
    check_unseen(run, [simulation])
    pairs = [(model.predict_on_batch(cubes)[:, 0], target[:, 0]) for cubes, target in samples([simulation], config)]
    predicted, true = (np.concatenate(values) for values in zip(*pairs))
    click.echo(f"{simulation}: r = {np.corrcoef(predicted, true)[0, 1]:.3f} between predicted and true ln density of "
               f"{len(true):,} cubes")
