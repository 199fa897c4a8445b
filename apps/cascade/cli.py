"""kerasgal cascade: from dark matter to galaxies (Yip et al. 2019)."""

from pathlib import Path

import click

from kerasgal.apps.cascade.config import TrainConfig
from kerasgal.apps.cascade.diffusion.cli import diffusion
from kerasgal.cluster import connect
from kerasgal.commands import App, old_option, section, standard_commands
from kerasgal.commands.base import DASK, PARAMETER, named_numbers
from kerasgal.commands.frame import FIGURES, OUTPUT, OUTSIDE, OVERWRITE, write_evaluation


@click.group(cls=App)
def cli():
    """Galaxies from the density of dark matter: an Inception classifier, then a recurrent residual U-Net.

    Yip, Zhang, Wang, Zhang, Sun, Contardo, Villaescusa-Navarro, He, Genel & Ho 2019, arXiv:1910.07813.
    """


@click.option("--phase", type=click.Choice(["both", "classify", "regress"]), default="both", show_default=True,
              help="Which network to train; regress goes on from the phase 1 in the run folder, by default with its "
                   "settings and simulations.")
@click.option("--sweep", multiple=True, metavar="NAME=VALUES", callback=named_numbers,
              help="Train both phases with each weight, e.g. --sweep w1=100,500 --sweep w2=1,1.05, and keep the run "
                   "with the least MSE_sub on the validation sub-cubes.")
@old_option("--halving", "decay_epochs", type=click.IntRange(1))
def train(cls, simulations, **options):
    """Train on SIMULATIONS, Simulation files with a final density and galaxies.

    Several are trained on whole, and the last is validated on; a single one is split by volume as the paper's.
    Without any, simulations with painted galaxies are made first (128^3 particles, 50 Mpc/h) and the demo preset is
    used. --resume needs nothing but --run.
    """
    return cls.train(simulations, **options)


TILE = click.option("--tile", type=click.IntRange(24), help="Cells per side predicted at once, a multiple of 8. A "
                                                            "border of them is thrown away, as wide as the networks "
                                                            "see if that leaves a quarter.  [default: the whole box, "
                                                            "or what memory holds]")


@click.option("--round", is_flag=True, help="Round the expected numbers of galaxies to whole ones.")
@click.option("--catalogue", is_flag=True, help="Also draw galaxies from the field, with the scatter that was "
                                                   "measured in training, evenly in cells, and with velocities where "
                                                   "training could measure these.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of --catalogue.")
@PARAMETER
@TILE
def predict(run, source, **options):
    """Predict the galaxies of each of SIMULATIONS from its dark matter, with the trained RUN: expected numbers."""
    return run.predict(source, **options)


@click.option("--compare", multiple=True, type=click.Path(), metavar="RUN",
              help="Another run to compare with; may be given several times.")
@click.option("--hod", type=click.Path(dir_okay=False), metavar="FILE",
              help="Parameters of the halo model, written by `kerasgal cascade hod`.  [default: fitted to the "
                   "simulations that RUN was trained on]")
@TILE
@DASK
def evaluate(run, simulations, *, dask, **options):
    """Hold the trained RUN against SIMULATIONS whose galaxies it never saw, and against what it has to beat.

    That is made of the simulations that RUN was trained on: boosted trees that see the same density, and halo models,
    one fitted and others with galaxies counted in haloes. Of painted galaxies there are another drawing and the exact
    expectation, too. Of a simulation that a run was split by volume on, the test cube is used.

    Occupied cells (accuracy, recall, precision, how many times the sparsity falls); power spectra with the galaxies'
    scatter and as they are, and their calibration and correlation with the truth; bispectra, with and without the
    richest halo; numbers of galaxies in sub-cubes and in bins of the density; where haloes are known, assembly bias.
    With runs and simulations of several suites, `kerasgal cascade compare` makes the table of cross-prediction.
    """
    with connect(dask) as client:
        return run.evaluate(simulations, client=client, **options)


def export(run, directory, **options):
    """Write the trained RUN, both phases in one, as a TensorFlow SavedModel.

    It takes (batch, x, y, z, 1), the density in units of its mean, and of a run with parameters these, (batch, p). It
    returns (batch, x, y, z, 2): the probability that a cell holds a galaxy, and the expected number of galaxies; x, y
    and z may be any multiples of 8.
    """
    return run.export(directory, **options)


def named_files(context, parameter, texts):
    """A Click callback: {name: [files]} of texts like "NAME=box_0.h5,box_1.h5"."""
    found = {}
    for text in texts:
        name, _, files = text.partition("=")
        if not name or not files or name in found:
            raise click.BadParameter(f"{text!r}: accepted is {parameter.metavar}, with a name that no other has")
        found[name] = files.split(",")
    return found


standard_commands(cli, "kerasgal.apps.cascade.run:Cascade", TrainConfig, train=train, predict=predict,
                  evaluate=evaluate, export=export)
cli.add_command(diffusion)


@cli.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(), metavar="RUN...")
@click.option("--suite", "suites", multiple=True, required=True, metavar="NAME=FILE,FILE,...", callback=named_files,
              help="Simulations that numbers are averaged over, and what they are called; may be given several times.")
@TILE
@section(OUTPUT,
         click.option("--output", type=click.Path(file_okay=False), default="comparison", show_default=True,
                      metavar="FOLDER", help="Folder for the table (table.csv), the report, numbers and figures."),
         DASK, FIGURES, OUTSIDE, OVERWRITE)
def compare(runs, suites, output, dask, figures, overwrite, **options):
    """Hold each RUN against each suite of simulations: the table of cross-prediction.

    Accuracy, recall and precision of the classifier, its training time; power spectra and bispectra, with a figure of
    each suite. Without baselines, which `kerasgal cascade evaluate` has.
    """
    from kerasgal.apps.cascade.compare import compare as compared
    from kerasgal.files import refuse_existing

    refuse_existing(Path(output) / "metrics.json", overwrite)
    with connect(dask) as client:
        write_evaluation(compared(runs, suites, client=client, **options), Path(output), overwrite, figures)


@cli.command()
@click.argument("simulations", nargs=-1, required=True, type=click.Path(dir_okay=False), metavar="SIMULATIONS...")
@click.option("--output", type=click.Path(dir_okay=False), default="hod.json", show_default=True,
              help="JSON file for the parameters.")
@click.option("--fit", type=click.Choice(["power", "poisson", "occupation"]), default="power", show_default=True,
              help="Centrals and satellites, fitted to the power spectrum; a Poisson number of galaxies and no "
                   "centrals, fitted likewise; or numbers counted in haloes of each mass, with NFW satellites.")
@click.option("--populate", "target", type=click.Path(dir_okay=False), metavar="FILE",
              help="Also put galaxies into the haloes of this Simulation file.")
@click.option("--catalogue", type=click.Path(dir_okay=False), metavar="FILE",
              help="HDF5 file for the galaxies of --populate.  [default: its name with _hod.h5, here]")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of --populate.")
@click.option("--overwrite", is_flag=True, help="Replace what exists.")
def hod(simulations, output, target, catalogue, **options):
    """Fit the baseline, a halo occupation model, to the galaxies and haloes of SIMULATIONS.

    A central galaxy above the mass M_min, satellites of mean number (M / M_1)^alpha. M_1 follows from the number of
    galaxies; M_min and alpha are fitted to the power spectrum up to 1 h/Mpc. With --fit occupation galaxies are counted
    in haloes instead.
    """
    from kerasgal.apps.cascade import baseline

    for flag, given in (("--catalogue", catalogue), ("--seed", options["seed"])):
        if given and not target:
            raise click.UsageError(f"{flag} needs --populate")
    baseline.make(simulations, output, target=target, catalogue=catalogue, **options)
