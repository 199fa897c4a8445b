"""kerasgal protohalo: haloes from initial conditions (Bernardini et al. 2020)."""

import click

from kerasgal.apps.protohalo.config import NAMINGS, TrainConfig
from kerasgal.cluster import connect
from kerasgal.commands import App, old_option, standard_commands
from kerasgal.commands.base import DASK, PARAMETER


@click.group(cls=App)
def cli():
    """Haloes from the initial density: a 3-D U-Net on distance maps and an adaptive watershed.

    Bernardini, Mayer, Reed & Feldmann 2020, MNRAS 496, 5116.
    """


def train(cls, simulations, **options):
    """Train on SIMULATIONS, Simulation files with haloes, and calibrate the watershed.

    Without any, simulations are made first (64^3 particles, 50 Mpc/h) and the demo preset is used; otherwise the
    default preset is the paper's, for a GPU. --resume needs nothing but --run.
    """
    return cls.train(simulations, **options)


@click.option("--format", "formats", multiple=True, type=click.Choice(["ecsv", "fits", "csv", "parquet", "list"]),
              help="Also write the catalogue as a table beside the output, `list` as Rockstar writes its out_N.list; "
                   "may be given several times.")
@click.option("--columns", type=click.Choice(NAMINGS),
              help="Whose names and units the columns of these tables have, with the haloes where they end.  "
                   "[default: our own]")
@click.option("--watershed", type=click.Choice(["adaptive", "native"]), default="adaptive", show_default=True,
              help="Cut regions on the calibrated line, or keep them whole.")
@click.option("--tile", type=click.IntRange(1), help="Cells per side predicted at once, context included.  [default: "
                                                     "the whole box, or what memory holds]")
@click.option("--context", type=click.IntRange(0), help="Cells of a tile's border that are thrown away.  [default: as "
                                                        "many as the network sees, if they leave a quarter of a tile]")
@PARAMETER
@old_option("--halo", "context", type=click.IntRange(0))
def predict(run, source, **options):
    """Predict the haloes of each of SIMULATIONS with the trained RUN: distance map, labels, catalogue, mass function.

    A simulation needs an initial density only.
    """
    return run.predict(source, **options)


@click.option("--ceiling", multiple=True, type=click.Path(), metavar="TWIN",
              help="A twin of a simulation, made by `kerasgal simulate --twin-of`: its haloes stand beside the "
                   "predicted ones. One for each simulation.")
@DASK
def evaluate(run, simulations, *, dask, **options):
    """Hold the trained RUN against SIMULATIONS it never saw: mass function, cell masses, haloes one to one, figures.

    Beside the adaptive watershed stand the native one and peaks that collapse as spheres or ellipsoids, and with
    --ceiling what another simulation with the same large waves has: no network that sees these alone can be expected
    to do better.
    """
    with connect(dask) as client:
        return run.evaluate(simulations, client=client, **options)


def export(run, directory, **options):
    """Write the trained RUN as a TensorFlow SavedModel.

    It takes (batch, x, y, z, 1), the density contrast divided by the standard deviation of its whole box, or all of a
    run's --channels, and of a run with --parameters these, (batch, p), too; it returns the distance map, (batch, x, y,
    z, 1); x, y and z may be any multiples of the number in kerasgal.json beside it.
    """
    return run.export(directory, **options)


standard_commands(cli, "kerasgal.apps.protohalo.run:Protohalo", TrainConfig, train=train, predict=predict,
                  evaluate=evaluate, export=export)
