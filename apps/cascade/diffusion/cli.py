"""kerasgal cascade diffusion: galaxies drawn from the dark matter (Kingma et al. 2021; Ono et al. 2024)."""

import math
from pathlib import Path

import click

from kerasgal.apps.cascade.diffusion.config import APP, DiffusionConfig
from kerasgal.cli import App, check_suffix, prepare_training, together, training_options
from kerasgal.config import PRESETS, preset, replace
from kerasgal.errors import DataError

RUN = click.argument("run", type=click.Path(path_type=Path))


@click.group(cls=App)
def diffusion():
    """Galaxies drawn from the density of dark matter, by a variational diffusion model: many draws for one field.

    Kingma, Salimans, Poole & Ho 2021, arXiv:2107.00630; Ono et al. 2024, arXiv:2403.10648; Sether 2024.
    """


def sampling_options(steps):
    """A decorator with the options of the sampler."""
    return together([
        click.option("--steps", type=click.IntRange(1), default=steps, show_default=True, help="Steps of the sampler."),
        click.option("--sampler", type=click.Choice(["ancestral", "deterministic"]), default="ancestral",
                     show_default=True, help="With fresh noise in each step; or none, and fewer steps."),
        click.option("--seed", type=click.IntRange(0), default=0, show_default=True),
        click.option("--tile", type=click.IntRange(8), help="Cells per side that pass through the network at once, 16 "
                                                            "on either side of which are thrown away.  [default: a "
                                                            "whole map; of a box the training's patch and 32]"),
    ])


@diffusion.command()
@click.option("--preset", "name", type=click.Choice(PRESETS), default="paper", show_default=True)
@click.option("--dimensions", type=click.IntRange(2, 3), default=2, show_default=True)
def summary(name, dimensions):
    """Print the network layer by layer, with its number of parameters."""
    from kerasgal.apps.cascade.diffusion.train import build

    network = build(replace(preset(DiffusionConfig, name), {"dimensions": dimensions}, origin="flags"))
    network.summary()
    click.echo(f"{network.count_params():,} parameters")


@diffusion.command()
@training_options(DiffusionConfig, "diffusion-run")
def train(folder, resume, overwrite, tensorboard, flags, **request):
    """Train on SIMULATIONS, Simulation files with a final density and galaxies.

    The last of several is validated on. Without any, simulations with painted galaxies are made first (128^3 particles,
    50 Mpc/h) and the demo preset is used. --resume needs nothing but --run. The loss is the bound on -log2 p, in bits
    per cell; its three parts are in history.csv.
    """
    config, simulations, validation = prepare_training(
        DiffusionConfig, APP, folder=folder, resume=resume, overwrite=overwrite, flags=flags, **request,
        own={"particles": 128, "galaxies": True})
    from kerasgal.apps.cascade.diffusion.train import train_run

    train_run(simulations, validation, config, folder, resume=resume, overwrite=overwrite, tensorboard=tensorboard)
    click.echo(f"{folder}: run folder, loss curve in {folder / 'loss.png'}")


@diffusion.command()
@RUN
@click.argument("simulation", type=click.Path(dir_okay=False))
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="HDF5 file to write.  [default: the simulation's name with _draws.h5, here]")
@click.option("--draws", type=click.IntRange(1), default=8, show_default=True, help="Draws for each map, or the box.")
@click.option("--axis", type=click.Choice("xyz"), default="z", show_default=True,
              help="Along which the maps are taken, all there are; of no meaning for boxes.")
@sampling_options(100)
@click.option("--parameter", "changed", multiple=True, metavar="NAME=VALUE",
              help="Give the network this number for one of its parameters, not the simulation's own.")
@click.option("--overwrite", is_flag=True, help="Replace the output if it exists.")
def sample(run, simulation, output, draws, axis, steps, sampler, seed, tile, changed, overwrite):
    """Draw galaxies for SIMULATION from its dark matter, with the trained RUN."""
    import numpy as np

    from kerasgal.apps.cascade.diffusion import data, sample
    from kerasgal.files import refuse_existing
    from kerasgal.plotting import progress_bar
    from kerasgal.simulation import Simulation

    output = output or Path(f"{Path(simulation).stem}_draws.h5")
    check_suffix(output)
    refuse_existing(output, overwrite)
    trained = sample.load_run(run)
    flat = trained.config.dimensions == 2
    values = changed_parameters(trained, changed)
    with Simulation(simulation, require=()) as opened:
        boxsize = opened.boxsize
    density, parameters = data.given(simulation, trained.config, axes=("xyz".index(axis),), known=values)
    fields = np.moveaxis(density, -1, 0) if flat else density[None]
    counts = []
    with progress_bar() as progress:
        task = progress.add_task("", total=steps * len(fields))
        for number, field in enumerate(fields):
            progress.update(task, description=f"map {number + 1} of {len(fields)}" if flat else "box")
            counts.append(sample.draw(trained, field, draws, steps=steps, sampler=sampler, seed=seed + number,
                                      parameters=parameters, tile=tile, warn=click.echo,
                                      progress=lambda done, total: progress.advance(task)))
    counts = np.stack(counts) if flat else counts[0]
    sample.write(output, counts, boxsize=boxsize, run=run, simulation=simulation, axis=axis if flat else None,
                 overwrite=overwrite)
    where = f"{len(fields)} maps along {axis} of {fields.shape[1]}^2" if flat else f"a box of {len(density)}^3"
    click.echo(f"{output}: {draws} draws for {where} cells, {counts.sum() / draws:.0f} galaxies in each")


def changed_parameters(run, texts):
    """{name: value} of texts like "Om0=0.3"; raises UsageError for anything else, DataError for unknown names."""
    values = {}
    for text in texts:
        name, _, number = text.partition("=")
        try:
            values[name] = float(number)
        except ValueError:
            raise click.UsageError(f"--parameter {text!r}: accepted is NAME=VALUE, e.g. Om0=0.3") from None
        if not math.isfinite(values[name]):
            raise click.UsageError(f"--parameter {text!r}: accepted are finite numbers")
    unknown = [name for name in values if name not in run.config.names]
    if unknown:
        raise DataError(f"the run was not trained with {', '.join(unknown)}; its parameters are "
                        f"{', '.join(run.config.names) or 'none'}")
    return values


@diffusion.command()
@RUN
@click.option("--simulation", "simulations", multiple=True, required=True, type=click.Path(dir_okay=False),
              metavar="FILE", help="Simulation file that no run saw; may be given several times.")
@click.option("--regressor", type=click.Path(file_okay=False, path_type=Path), metavar="FOLDER",
              help="A trained `kerasgal cascade` run to compare with: Poisson catalogues drawn from its mean field.")
@click.option("--draws", type=click.IntRange(2), default=16, show_default=True, help="Draws for each map, or the box.")
@click.option("--maps", type=click.IntRange(1), help="Maps of each simulation, along z.  [default: all]")
@sampling_options(50)
@click.option("--study", is_flag=True, help="Also draw with both samplers in from 5 to 1,000 steps, and compare.")
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), metavar="FOLDER",
              help="Folder for metrics.json and the figures.  [default: evaluation/ in the run's folder]")
@click.option("--overwrite", is_flag=True, help="Replace an earlier evaluation.")
def evaluate(run, simulations, regressor, draws, maps, steps, sampler, seed, tile, study, output, overwrite):
    """Hold draws of the trained RUN against galaxies it never saw, and against the halo model.

    Occupied cells, power spectra with their scatter from draw to draw, cross-correlation also with draws given another
    map's density, the target's rank among the draws, and what the parameters do, if there are any.
    """
    from kerasgal.apps.cascade import baseline, predict
    from kerasgal.apps.cascade.diffusion import evaluate as evaluation
    from kerasgal.apps.cascade.diffusion.sample import load_run
    from kerasgal.files import refuse_existing
    from kerasgal.training import check_unseen

    folder = output or run / "evaluation"
    refuse_existing(folder / "metrics.json", overwrite)
    trained = load_run(run)
    check_unseen(run, simulations)
    other = None
    if regressor:
        other = predict.load_run(regressor)
        if other.config.cell != trained.config.cell:
            raise DataError(f"{regressor} has cells of {other.config.cell:g} Mpc/h, {run} of {trained.config.cell:g}")
        for name in (predict.CLASSIFY, predict.REGRESS):
            check_unseen(regressor / name, simulations)
    model = baseline.comparable(baseline.fit_to_training(run), simulations)
    if model:
        click.echo(f"halo model: {baseline.words(model)}")
    result = evaluation.evaluate(
        trained, simulations, folder, draws=draws, options={"steps": steps, "sampler": sampler, "seed": seed,
                                                            "tile": tile},
        regressor=other, model=model, most=maps, study=study, progress=click.echo)
    for line in evaluation.table(result):
        click.echo(line)
    click.echo(f"{folder / 'metrics.json'}: all numbers\n{folder / 'draws.png'}: draws, and figures beside it")


@diffusion.command()
@RUN
@click.argument("directory", type=click.Path(file_okay=False))
@click.option("--steps", type=click.IntRange(1), default=20, show_default=True,
              help="Steps of the deterministic sampler, which is in the graph.")
@click.option("--overwrite", is_flag=True, help="Replace the directory if it exists.")
def export(run, directory, steps, overwrite):
    """Write the trained RUN, network and deterministic sampler in one, as a TensorFlow SavedModel to DIRECTORY.

    It takes the density in units of its mean and standard normal noise, (batch, x, y, 1) or (batch, x, y, z, 1) each,
    and of a run with parameters these, (batch, p); it returns numbers of galaxies, another draw for other noise.
    """
    from kerasgal.apps.cascade.diffusion.sample import load_run, sampler_model
    from kerasgal.export import export

    trained = load_run(run)
    config = trained.config
    description = {"app": APP, "input": ["density in units of its mean", "standard normal noise",
                                         *(["parameters: " + config.parameters] if config.names else [])],
                   "output": "galaxies in each cell", "cell": config.cell, "multiple": 2**config.levels, "steps": steps,
                   **({"depth": config.depth} if config.dimensions == 2 else {})}
    export(sampler_model(trained, steps), directory, description, overwrite)
    click.echo(f"{directory}: SavedModel; its inputs and outputs are described in {directory}/kerasgal.json")
