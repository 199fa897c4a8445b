"""kerasgal cascade: from dark matter to galaxies (Yip et al. 2019)."""

from pathlib import Path

import click

from kerasgal.apps.cascade.config import APP, CLASSIFIERS, TrainConfig
from kerasgal.apps.cascade.diffusion.cli import diffusion
from kerasgal.cli import App, check_suffix, prepare_training, training_options
from kerasgal.config import PRESETS, preset, replace

RUN = click.argument("run", type=click.Path(path_type=Path))


@click.group(cls=App)
def cli():
    """Galaxies from the density of dark matter: an Inception classifier, then a recurrent residual U-Net.

    Yip, Zhang, Wang, Zhang, Sun, Contardo, Villaescusa-Navarro, He, Genel & Ho 2019, arXiv:1910.07813.
    """


cli.add_command(diffusion)


@cli.command()
@click.option("--preset", "name", type=click.Choice(PRESETS), default="paper", show_default=True)
@click.option("--classifier", type=click.Choice(CLASSIFIERS), default="inception", show_default=True)
def summary(name, classifier):
    """Print the two networks layer by layer, with their numbers of parameters."""
    import numpy as np

    from kerasgal.apps.cascade.predict import build_classifier, build_regressor

    config = replace(preset(TrainConfig, name), {"classifier": classifier}, origin="flags")
    for phase, model in (("phase 1", build_classifier(config)), ("phase 2", build_regressor(config))):
        model.summary(expand_nested=True)
        trainable = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
        click.echo(f"{phase}: {trainable:,} trainable parameters")


@cli.command()
@training_options(TrainConfig, "cascade-run")
@click.option("--phase", type=click.Choice(["both", "classify", "regress"]), default="both", show_default=True,
              help="Which network to train; regress goes on from the phase 1 in the run folder, by default with its "
                   "settings and simulations.")
@click.option("--sweep", "sweeps", multiple=True, metavar="NAME=VALUES",
              help="Train both phases with each weight, e.g. --sweep w1=100,500 --sweep w2=1,1.05, and keep the run "
                   "with the least MSE_sub on the validation sub-cubes.")
def train(folder, resume, overwrite, tensorboard, flags, phase, sweeps, **request):
    """Train on SIMULATIONS, Simulation files with a final density and galaxies.

    Several are trained on whole, and the last is validated on; a single one is split by volume as the paper's.
    Without any, simulations with painted galaxies are made first (128^3 particles, 50 Mpc/h) and the demo preset is
    used. --resume needs nothing but --run.
    """
    from kerasgal.apps.cascade import train as training
    from kerasgal.training import recorded_simulations

    values = training.parse_sweep(sweeps)
    if values and (phase != "both" or resume):
        raise click.UsageError("--sweep trains both phases from the beginning: it goes with neither --phase nor "
                               "--resume")
    if phase == "regress" and not (flags["preset"] or flags["config"]):
        flags = {**flags, "config": folder / "classify" / "config.json"}
    if phase == "regress" and not request["simulations"]:
        request["simulations"], request["validation"] = recorded_simulations(folder / "classify")
    place = folder / ("regress" if phase == "regress" else "classify")
    config, simulations, validation = prepare_training(
        TrainConfig, APP, folder=place, resume=resume, overwrite=overwrite, flags=flags, **request,
        own={"particles": 128, "galaxies": True}, alone="one simulation: split by volume into training, validation and "
                                                        "test cubes")
    options = {"overwrite": overwrite, "tensorboard": tensorboard}
    if values:
        table = training.sweep(simulations, validation, config, folder, values, **options)
        click.echo(f"{folder}: the run with w1 = {table[0]['w1']:g}, w2 = {table[0]['w2']:g}; all {len(table)} in "
                   f"{folder / 'sweep.json'}")
        return
    training.train_run(simulations, validation, config, folder, phase, resume=resume, **options)
    done = {"both": "classify and regress", "classify": "classify", "regress": "regress"}[phase]
    click.echo(f"{folder}: run folders {done}, each with its loss curve in loss.png")


@cli.command()
@RUN
@click.argument("simulation", type=click.Path(dir_okay=False))
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="HDF5 file to write.  [default: the simulation's name with _cascade.h5, here]")
@click.option("--round", "rounded", is_flag=True, help="Round the expected numbers of galaxies to whole ones.")
@click.option("--catalogue", is_flag=True, help="Also draw galaxies from the field: Poisson numbers, evenly in cells.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of --catalogue.")
@click.option("--tile", type=click.IntRange(24), help="Cells per side predicted at once, 8 on either side of which are "
                                                      "thrown away; a multiple of 8.  [default: the training's patch "
                                                      "and 16]")
@click.option("--overwrite", is_flag=True, help="Replace the output if it exists.")
def predict(run, simulation, output, rounded, catalogue, seed, tile, overwrite):
    """Predict the galaxies of SIMULATION from its dark matter, with the trained RUN: a field of expected numbers."""
    import numpy as np

    from kerasgal.apps.cascade import data, predict
    from kerasgal.files import refuse_existing
    from kerasgal.plotting import progress_bar
    from kerasgal.simulation import Simulation

    output = output or Path(f"{Path(simulation).stem}_cascade.h5")
    check_suffix(output)
    refuse_existing(output, overwrite)
    trained = predict.load_run(run)
    with Simulation(simulation, require=()) as opened:
        density, boxsize = data.density(opened, trained.config.cell), opened.boxsize
    with progress_bar() as progress:
        task = progress.add_task("tiles", total=None)
        field = predict.predict_field(
            trained.network(), density, trained.config, tile=tile, warn=click.echo,
            progress=lambda done, total: progress.update(task, completed=done, total=total))
    counts = np.rint(field[..., 1]) if rounded else field[..., 1]
    galaxies = predict.draw_galaxies(counts, boxsize, seed) if catalogue else None
    predict.write(output, field[..., 0], counts, boxsize=boxsize, run=run, simulation=simulation, galaxies=galaxies,
                  overwrite=overwrite)
    drawn = "" if galaxies is None else f", {len(galaxies)} drawn"
    click.echo(f"{output}: probability and number of galaxies in {len(counts)}^3 cells, {counts.sum():.0f} galaxies "
               f"in all{drawn}")


@cli.command()
@click.argument("simulations", nargs=-1, required=True, type=click.Path(dir_okay=False))
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), default="hod.json", show_default=True,
              help="JSON file for the parameters.")
@click.option("--populate", type=click.Path(dir_okay=False), metavar="FILE",
              help="Also put galaxies into the haloes of this Simulation file.")
@click.option("--catalogue", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="HDF5 file for the galaxies of --populate.  [default: its name with _hod.h5, here]")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of --populate.")
@click.option("--overwrite", is_flag=True, help="Replace what exists.")
def hod(simulations, output, populate, catalogue, seed, overwrite):
    """Fit the baseline, a halo occupation model, to the galaxies and haloes of SIMULATIONS.

    A central galaxy above the mass M_min, satellites of mean number (M / M_1)^alpha. M_min follows from the number of
    galaxies; M_1 and alpha are fitted to the power spectrum up to 1 h/Mpc.
    """
    from kerasgal.apps.cascade import baseline
    from kerasgal.files import refuse_existing

    if catalogue and not populate:
        raise click.UsageError("--catalogue needs --populate")
    if populate:
        catalogue = catalogue or Path(f"{Path(populate).stem}_hod.h5")
        refuse_existing(catalogue, overwrite)
    refuse_existing(output, overwrite)
    model = baseline.fit(simulations)
    baseline.write(output, model, simulations)
    click.echo(f"{output}: {baseline.words(model)}")
    if populate:
        number = baseline.populate(model, populate, catalogue, seed)
        click.echo(f"{catalogue}: {number} galaxies in the haloes of {populate}")


@cli.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN...")
@click.option("--simulation", "simulations", multiple=True, required=True, type=click.Path(dir_okay=False),
              metavar="FILE", help="Simulation file that no run saw; may be given several times. Of one that a run was "
                                   "split by volume on, the test cube is used.")
@click.option("--hod", "fitted", type=click.Path(dir_okay=False), metavar="FILE",
              help="Parameters of the halo model, written by `kerasgal cascade hod`.  [default: fitted to the "
                   "simulations that the first run was trained on]")
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), metavar="FOLDER",
              help="Folder for metrics.json and the figures.  [default: evaluation/ in the first run's folder]")
@click.option("--tile", type=click.IntRange(24), help="As in predict.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier evaluation.")
def evaluate(runs, simulations, fitted, output, tile, overwrite):
    """Hold trained RUNs against galaxies they never saw, and against the halo model.

    Occupied cells (accuracy, recall, precision, how many times the sparsity falls), numbers of galaxies in sub-cubes,
    power spectra with and without shot noise, bispectra, counts in cells, cross-correlation. With runs and simulations
    of several suites the table is that of cross-prediction.
    """
    from kerasgal.apps.cascade import baseline
    from kerasgal.apps.cascade import evaluate as evaluation
    from kerasgal.apps.cascade.predict import CLASSIFY, load_run
    from kerasgal.files import refuse_existing
    from kerasgal.training import named

    folder = output or runs[0] / "evaluation"
    refuse_existing(folder / "metrics.json", overwrite)
    trained = {name: (run, load_run(run)) for name, run in named(runs).items()}
    evaluation.check(trained, simulations)
    model = baseline.read(fitted) if fitted else baseline.fit_to_training(runs[0] / CLASSIFY)
    model = baseline.comparable(model, simulations)
    if model:
        click.echo(f"halo model: {baseline.words(model)}")
    result = evaluation.evaluate(trained, model, simulations, folder, tile=tile,
                                 progress=lambda name, path: click.echo(f"predicting {path}: {name}"))
    for line in evaluation.table(result):
        click.echo(line)
    click.echo(f"{folder / 'metrics.json'}: all numbers\n{folder / 'power_spectrum.png'}: power spectra, and figures "
               "beside it")


@cli.command()
@RUN
@click.argument("directory", type=click.Path(file_okay=False))
@click.option("--overwrite", is_flag=True, help="Replace the directory if it exists.")
def export(run, directory, overwrite):
    """Write the trained RUN, both phases in one, as a TensorFlow SavedModel to DIRECTORY.

    It takes (batch, x, y, z, 1), the density in units of its mean, and returns (batch, x, y, z, 2): the probability
    that a cell holds a galaxy, and the expected number of galaxies; x, y and z may be any multiples of 8.
    """
    from kerasgal.apps.cascade.config import POOLINGS
    from kerasgal.apps.cascade.predict import load_run
    from kerasgal.export import export

    trained = load_run(run)
    description = {"app": APP, "input": "dark-matter density in units of its mean",
                   "output": ["probability that the cell holds a galaxy", "expected number of galaxies"],
                   "cell": trained.config.cell, "multiple": POOLINGS, "threshold": trained.config.threshold}
    export(trained.network(), directory, description, overwrite)
    click.echo(f"{directory}: SavedModel; its inputs and outputs are described in {directory}/kerasgal.json")
