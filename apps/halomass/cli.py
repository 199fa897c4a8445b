"""kerasgal halomass: what in the initial conditions decides a halo's mass (Lucie-Smith et al. 2020)."""

import click

from kerasgal.apps.halomass.config import TrainConfig
from kerasgal.cluster import connect
from kerasgal.commands import App, evaluation_command, standard_commands
from kerasgal.commands.base import DASK, PARAMETER, RENAMED, NetworkCommand
from kerasgal.commands.settings import settings_options
from kerasgal.training import PRECISIONS

RUN = "kerasgal.apps.halomass.run:HaloMass"
SAMPLE = click.option("--sample", type=click.IntRange(1), default=4000, show_default=True, metavar="NUMBER",
                      help="So many particles at random from each simulation.")


@click.group(cls=App)
def cli():
    """Halo masses from the initial density around single particles: a 3-D CNN with a Cauchy likelihood.

    Lucie-Smith, Peiris, Pontzen, Nord & Thiyagalingam 2020, arXiv:2011.10577.
    """


def train(cls, simulations, **options):
    """Train on particles of SIMULATIONS, Simulation files with haloes; those of --input final with final positions.

    Without any, simulations are made first (64^3 particles, 50 Mpc/h) and the demo preset is used; otherwise the
    default preset is the paper's, for a GPU. --resume needs nothing but --run.
    """
    return cls.train(simulations, **options)


@click.option("--particles", type=click.Path(dir_okay=False), metavar="FILE",
              help="Text file of particle numbers (x * n + y) * n + z, one per line.")
@click.option("--sample", type=click.IntRange(1), metavar="NUMBER",
              help="So many particles at random from haloes in the run's range of masses.")
@click.option("--seed", type=click.IntRange(0), show_default="0", help="Seed of --sample.")
@click.option("--map", is_flag=True, help="Every cell of the box at once, as a map; for runs of --padding none or "
                                          "--input multipoles.")
@click.option("--precision", type=click.Choice(PRECISIONS), default="float32", show_default=True,
              help="Arithmetic of the network.")
@PARAMETER
def predict(run, source, **options):
    """Predict the masses of the haloes in which particles of SIMULATIONS end, with the trained RUN.

    By default of all particles in haloes within the run's range of masses. The table has the prediction and quantiles
    of its distribution, as HDF5, ECSV, FITS or CSV; the map has log10 mass for every Lagrangian cell.
    """
    return run.predict(source, **options)


@click.option("--compare", multiple=True, type=click.Path(), metavar="RUN", help="Another run, of the same range of "
              "masses; may be given several times.")
@click.option("--baseline", is_flag=True, help="Also fit boosted trees to the particles of RUN.")
@click.option("--ceiling", multiple=True, type=click.Path(), metavar="TWIN",
              help="A twin of a simulation, made by `kerasgal simulate --twin-of`: the masses of the same particles "
                   "there stand beside the predicted ones. One for each simulation.")
@SAMPLE
@DASK
def evaluate(run, simulations, *, dask, **options):
    """Compare the trained RUN with others and with the truth, on SIMULATIONS that none of them saw.

    Residuals by mass and by place in the halo, correlation, the Kullback-Leibler divergence between the residuals of
    each two runs with its bootstrap error, and the calibration of the predictive distributions.
    """
    with connect(dask) as client:
        return run.evaluate(simulations, client=client, **options)


@SAMPLE
def baseline(run, simulations, **options):
    """Fit gradient-boosted trees to the particles RUN was trained on, and evaluate them on SIMULATIONS.

    They read the initial density averaged over spheres of 50 radii around a particle (needs kerasgal[baseline]). RUN
    gives the particles; its network takes no part.
    """
    return run.baseline(simulations, **options)


def export(run, directory, **options):
    """Write the trained RUN as a TensorFlow SavedModel.

    It standardises its inputs itself, of a run with --parameters these, too, (batch, p), and returns [y, scales of the
    likelihood], (batch, 2) for most likelihoods; y in [-1, 1] is the rescaled log10 mass. What the inputs are stands in
    kerasgal.json beside it.
    """
    return run.export(directory, **options)


standard_commands(cli, RUN, TrainConfig, train=train, predict=predict, evaluate=evaluate, export=export)
evaluation_command(cli, RUN, baseline, folder="baseline")


def second(context, parameter, value):
    """The old place of --output."""
    if value:
        context.meta.setdefault(RENAMED, {})["a second argument"] = ("output", value)


@cli.command(cls=NetworkCommand)
@click.argument("training", nargs=-1, required=True, type=click.Path(), metavar="SIMULATIONS...")
@click.option("--validation", multiple=True, required=True, type=click.Path(), metavar="FILE",
              help="What to stop the fits on; may be given several times.")
@click.option("--test", multiple=True, required=True, type=click.Path(), metavar="FILE",
              help="What to compare on, which nothing was fitted to; may be given several times.")
@click.option("--raw", multiple=True, type=click.Path(), metavar="RUN", help="A trained run to stand above the ladder, "
              "such as of --input raw; those that differ in their seed alone are one rung.")
@click.option("--seeds", type=click.IntRange(1), default=5, show_default=True, help="Trainings of the trees.")
@click.option("--networks", type=click.IntRange(0), default=3, show_default=True, help="Trainings of the network.")
@click.option("--sample", type=click.IntRange(1), default=2000, show_default=True, metavar="NUMBER",
              help="So many particles at random from each simulation of --test.")
@click.option("--output", type=click.Path(file_okay=False), default="ladder", show_default=True, metavar="FOLDER",
              help="Folder for the table, the figure and the networks' run folders.")
@click.option("--overwrite", is_flag=True, help="Replace what exists.")
@settings_options(TrainConfig)
def ladder(training, output, overwrite, settings, **options):
    """Fit trees and networks to multipoles about particles of SIMULATIONS, up to order after order, and compare them.

    The order 0 is what spherical averages have, 1 adds the dipoles and 2 the quadrupoles: what each adds to the
    correlation with the true mass, with a bootstrap over haloes that is paired, and over seeds. Needs
    kerasgal[baseline]. The default preset is the demo's.
    """
    from pathlib import Path

    from kerasgal.apps.halomass.ladder import TABLE, ladder
    from kerasgal.files import refuse_existing

    folder = Path(output)
    for path in (folder / TABLE, folder / "runs", folder / "metrics.json"):
        refuse_existing(path, overwrite)
    made = ladder(list(training), runs=folder / "runs", overwrite=overwrite, **options, **settings)
    made.save(folder, overwrite=overwrite)
    for line in made.lines:
        click.echo(line)
    click.echo(f"{folder / TABLE}: the table, with ladder.png beside it")


@cli.command()
@click.argument("run", type=click.Path())
@click.argument("old", required=False, type=click.Path(), metavar="", expose_value=False, callback=second)
@click.option("--output", type=click.Path(file_okay=False), metavar="FOLDER",
              help="Run folder to write.  [default: compressed/ in RUN]")
@click.option("--overwrite", is_flag=True, help="Replace what exists.")
def compress(run, output, overwrite):
    """Write the trained RUN without its dead neurons, a smaller run folder like any other.

    Dead is a neuron of the dense layers if no weight that leaves it exceeds 1e-3.
    """
    from kerasgal.apps.halomass.compress import compress

    made = compress(run, output, overwrite)
    click.echo(f"{made.folder}: run of {made.network.count_params():,} parameters")
