"""kerasgal protohalo: haloes from initial conditions (Bernardini et al. 2020)."""

from pathlib import Path

import click

from kerasgal.apps.protohalo.config import APP, TrainConfig
from kerasgal.cli import App, check_suffix, prepare_training, training_options
from kerasgal.config import PRESETS, preset


@click.group(cls=App)
def cli():
    """Haloes from the initial density: a 3-D U-Net on distance maps and an adaptive watershed.

    Bernardini, Mayer, Reed & Feldmann 2020, MNRAS 496, 5116.
    """


@cli.command()
@click.option("--preset", "name", type=click.Choice(PRESETS), default="paper", show_default=True)
def summary(name):
    """Print the network layer by layer, with its number of parameters."""
    from kerasgal.apps.protohalo.predict import build

    build(preset(TrainConfig, name)).summary()


@cli.command()
@training_options(TrainConfig, "protohalo-run")
def train(folder, resume, overwrite, tensorboard, **request):
    """Train on SIMULATIONS, Simulation files with haloes, and calibrate the watershed.

    Without any, simulations are made first (64^3 particles, 50 Mpc/h) and the demo preset is used; otherwise the
    default preset is the paper's, for a GPU. --resume needs nothing but --run.
    """
    from kerasgal.apps.protohalo.train import train_run

    config, simulations, validation = prepare_training(TrainConfig, APP, folder=folder, resume=resume,
                                                       overwrite=overwrite, **request)
    model = train_run(simulations, validation, config, folder, resume=resume, overwrite=overwrite,
                      tensorboard=tensorboard)
    if model is not None:
        click.echo(f"{folder}: run of {model.count_params():,} parameters, loss curve in {folder / 'loss.png'}")


@cli.command()
@click.argument("run", type=click.Path())
@click.argument("simulation", type=click.Path(dir_okay=False))
@click.option("--output", type=click.Path(dir_okay=False), metavar="FILE",
              help="HDF5 file to write.  [default: the simulation's name with _protohalo.h5, here]")
@click.option("--format", "formats", multiple=True, type=click.Choice(["ecsv", "fits"]),
              help="Also write the catalogue as a table beside the output; may be given twice.")
@click.option("--watershed", type=click.Choice(["adaptive", "native"]), default="adaptive", show_default=True,
              help="Cut regions on the calibrated line, or keep them whole.")
@click.option("--tile", type=click.IntRange(1), help="Cells per side predicted at once, halo included.  [default: the "
                                                     "training's patch and a halo on either side]")
@click.option("--halo", type=click.IntRange(0), help="Cells of a tile's border that are thrown away.  [default: the "
                                                     "training's margin, rounded up to a multiple of 2^levels]")
@click.option("--overwrite", is_flag=True, help="Replace the output if it exists.")
def predict(run, simulation, output, formats, watershed, tile, halo, overwrite):
    """Predict the haloes of SIMULATION with the trained RUN: distance map, labels, catalogue and mass function.

    The simulation needs an initial density only.
    """
    from kerasgal.apps.protohalo import data, predict
    from kerasgal.apps.protohalo.watershed import catalogue
    from kerasgal.files import refuse_existing, write_table
    from kerasgal.plotting import progress_bar
    from kerasgal.simulation import Simulation

    output = Path(output or f"{Path(simulation).stem}_protohalo.h5")
    check_suffix(output)
    tables = [output.with_suffix(f".{suffix}") for suffix in dict.fromkeys(formats)]
    for path in (output, *tables):
        refuse_existing(path, overwrite)
    trained = predict.load_run(run)
    with Simulation(simulation) as opened:
        delta = data.normalise(opened.delta())
        boxsize, cell_mass = opened.boxsize, opened.cell_mass
    with progress_bar() as progress:
        task = progress.add_task("tiles", total=None)
        distance = predict.predict_distance(
            trained.model, trained.config, delta, tile=tile, halo=halo, warn=click.echo,
            progress=lambda done, total: progress.update(task, completed=done, total=total))
        progress.update(task, description="watershed", total=None)
        halo_id = predict.find_haloes(distance, trained.config, trained.line if watershed == "adaptive" else None)
    haloes = catalogue(halo_id, distance, boxsize, cell_mass)
    predict.write_prediction(output, distance=distance, halo_id=halo_id, catalogue=haloes, boxsize=boxsize,
                             cell_mass=cell_mass, minimum=trained.config.minimum, run=run, simulation=simulation,
                             overwrite=overwrite)
    for path in tables:
        # FITS has no unit with h in it: the units stand in the header, in either format.
        write_table(path, haloes, {"mass": "Msun/h", "position": "comoving Mpc/h, Lagrangian"}, overwrite)
    largest = f", the largest of {haloes['mass'][0]:.3g} Msun/h" if len(haloes["mass"]) else ""
    click.echo(f"{output}: {len(haloes['mass'])} haloes{largest}; distance map, labels, catalogue, mass function")
    for path in tables:
        click.echo(f"{path}: the catalogue")


@cli.command()
@click.argument("run", type=click.Path())
@click.argument("simulations", nargs=-1, required=True, type=click.Path(dir_okay=False))
@click.option("--output", type=click.Path(file_okay=False), metavar="FOLDER",
              help="Folder for metrics.json and the figures.  [default: evaluation/ in the run folder]")
@click.option("--overwrite", is_flag=True, help="Replace an earlier evaluation.")
def evaluate(run, simulations, output, overwrite):
    """Hold the trained RUN against SIMULATIONS it never saw: mass function, cell masses, figures.

    Beside the adaptive watershed stand the native one and the excursion-set baseline.
    """
    from kerasgal.apps.protohalo.evaluate import evaluate
    from kerasgal.apps.protohalo.predict import load_run
    from kerasgal.files import refuse_existing
    from kerasgal.training import check_unseen

    folder = Path(output) if output else Path(run) / "evaluation"
    refuse_existing(folder / "metrics.json", overwrite)
    trained = load_run(run)
    check_unseen(run, simulations)
    result = evaluate(trained, simulations, folder, progress=lambda path: click.echo(f"predicting {path}"))
    click.echo(f"loss {result['loss']:.3f}; {result['haloes']['true']} true haloes")
    for method in ("adaptive", "native", "excursion_set"):
        row = result[method]
        click.echo(f"  {method:14s} {result['haloes'][method]:5d} haloes ({100 * (row['total'] - 1):+.1f}%), summed "
                   f"residual {percent(row['summed_residual'])}, cell mass scatter "
                   f"{number(row['cell_mass_scatter_dex'])} dex")
    click.echo(f"{folder / 'metrics.json'}: all numbers\n{folder / 'mass_function.png'}: the mass function")


def percent(value):
    """A fraction as a percentage, or a word where there is none."""
    return "undefined" if value is None else f"{100 * value:.1f}%"


def number(value):
    """A number with three digits, or a word where there is none."""
    return "undefined" if value is None else f"{value:.3f}"


@cli.command()
@click.argument("run", type=click.Path())
@click.argument("directory", type=click.Path(file_okay=False))
@click.option("--overwrite", is_flag=True, help="Replace the directory if it exists.")
def export(run, directory, overwrite):
    """Write the trained RUN as a TensorFlow SavedModel to DIRECTORY.

    It takes (batch, x, y, z, 1), the density contrast divided by the standard deviation of its whole box, and returns
    the distance map in the same shape; x, y and z may be any multiples of the number in kerasgal.json beside it.
    """
    from kerasgal.apps.protohalo.predict import load_run
    from kerasgal.export import export

    trained = load_run(run)
    description = {"app": APP, "input": "density contrast / its standard deviation over the whole box",
                   "output": "normalised distance map, 1 at halo centres, 0 outside",
                   "multiple": 2**trained.config.levels, "minimum_cells": trained.config.minimum,
                   "cut": {"volume": trained.line.volume, "distance": trained.line.distance}}
    export(trained.model, directory, description, overwrite)
    click.echo(f"{directory}: SavedModel; normalisation and sizes are described in {directory}/kerasgal.json")
