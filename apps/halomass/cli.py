"""kerasgal halomass: what in the initial conditions decides a halo's mass (Lucie-Smith et al. 2020)."""

from pathlib import Path

import click

from kerasgal.apps.halomass.cli_evaluate import baseline, evaluate
from kerasgal.apps.halomass.config import APP, INPUTS, TrainConfig
from kerasgal.cli import App, check_suffix, prepare_training, training_options
from kerasgal.config import PRESETS, preset


@click.group(cls=App)
def cli():
    """Halo masses from the initial density around single particles: a 3-D CNN with a Cauchy likelihood.

    Lucie-Smith, Peiris, Pontzen, Nord & Thiyagalingam 2020, arXiv:2011.10577.
    """


cli.add_command(evaluate)
cli.add_command(baseline)


@cli.command()
@click.option("--preset", "name", type=click.Choice(PRESETS), default="paper", show_default=True)
@click.option("--input", type=click.Choice(INPUTS), default="raw", show_default=True)
def summary(name, input):
    """Print the network layer by layer, with its number of parameters."""
    import numpy as np

    from kerasgal.apps.halomass.predict import build
    from kerasgal.config import replace

    model = build(replace(preset(TrainConfig, name), {"input": input}, origin="flags"))
    model.summary()
    trainable = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    click.echo(f"{trainable:,} trainable parameters, the likelihood's scale among them")


@cli.command()
@training_options(TrainConfig, "halomass-run")
def train(folder, resume, overwrite, tensorboard, **request):
    """Train on particles of SIMULATIONS, Simulation files with haloes; those of --input final with final positions.

    Without any, simulations are made first (64^3 particles, 50 Mpc/h) and the demo preset is used; otherwise the
    default preset is the paper's, for a GPU. --resume needs nothing but --run.
    """
    from kerasgal.apps.halomass.compress import activity
    from kerasgal.apps.halomass.train import train_run

    config, simulations, validation = prepare_training(TrainConfig, APP, folder=folder, resume=resume,
                                                       overwrite=overwrite, **request)
    model = train_run(simulations, validation, config, folder, resume=resume, overwrite=overwrite,
                      tensorboard=tensorboard)
    if model is not None:
        show_activity(activity(model))
        click.echo(f"{folder}: run of {model.count_params():,} parameters, loss curve in {folder / 'loss.png'}")


def show_activity(counts):
    """Print the active neurons and weights of each dense layer."""
    for count in counts:
        click.echo(f"  {count['layer']:12s} {count['active_neurons']:,} of {count['neurons']:,} input neurons and "
                   f"{count['active_weights']:,} of {count['weights']:,} weights active (above 1e-3)")


@cli.command()
@click.argument("run", type=click.Path())
@click.argument("simulation", type=click.Path(dir_okay=False))
@click.option("--particles", type=click.Path(dir_okay=False), metavar="FILE",
              help="Text file of particle numbers (x * n + y) * n + z, one per line.")
@click.option("--sample", type=click.IntRange(1), metavar="NUMBER",
              help="So many particles at random from haloes in the run's range of masses.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of --sample.")
@click.option("--map", "whole", is_flag=True, help="Every cell of the box at once, as a map; for runs trained with "
                                                   "--padding none.")
@click.option("--output", type=click.Path(dir_okay=False), metavar="FILE",
              help="Table to write; the suffix, .h5, .ecsv or .fits, says in which format.  [default: the simulation's "
                   "name with _halomass.h5, here]")
@click.option("--precision", type=click.Choice(["float32", "mixed_bfloat16", "mixed_float16"]), default="float32",
              show_default=True, help="Arithmetic of the network.")
@click.option("--overwrite", is_flag=True, help="Replace the output if it exists.")
def predict(run, simulation, particles, sample, seed, whole, output, precision, overwrite):
    """Predict the masses of the haloes in which particles of SIMULATION end, with the trained RUN.

    By default of all particles in haloes within the run's range of masses. The table has the prediction and quantiles
    of its distribution; the map has log10 mass for every Lagrangian cell.
    """
    from kerasgal.apps.halomass import predict, tables
    from kerasgal.files import refuse_existing
    from kerasgal.plotting import progress_bar

    if sum((particles is not None, sample is not None, whole)) > 1:
        raise click.UsageError("--particles, --sample and --map contradict each other: give one of them")
    output = Path(output or f"{Path(simulation).stem}_halomass.h5")
    check_suffix(output, (".h5",) if whole else tables.SUFFIXES)
    refuse_existing(output, overwrite)
    trained = predict.load_run(run, precision)
    with progress_bar() as bar:
        task = bar.add_task("cells" if whole else "particles", total=None)

        def progress(done, total):
            bar.update(task, completed=done, total=total)

        if whole:
            from kerasgal.apps.halomass.dense import predict_map

            log_mass = predict_map(trained, simulation, progress)
            tables.write_map(output, log_mass, run, simulation, overwrite)
            said = f"predicted log10 halo mass of {log_mass.size:,} cells"
        else:
            chosen = tables.choose(trained, simulation, particles, sample, seed)
            found = predict.predict_particles(trained, simulation, chosen, progress)
            tables.write(output, trained, found, run, simulation, overwrite)
            said = f"predicted log10 halo mass and its quantiles for {len(chosen):,} particles"
    click.echo(f"{output}: {said}")


@cli.command()
@click.argument("run", type=click.Path())
@click.argument("output", type=click.Path(file_okay=False))
@click.option("--overwrite", is_flag=True, help="Replace OUTPUT if it exists.")
def compress(run, output, overwrite):
    """Remove the dead neurons of the trained RUN and write the smaller network to OUTPUT, a run folder like any other.

    Dead is a neuron of the dense layers if no weight that leaves it exceeds 1e-3.
    """
    from kerasgal.apps.halomass import compress
    from kerasgal.apps.halomass.predict import load_run
    from kerasgal.files import refuse_existing

    refuse_existing(Path(output), overwrite)
    trained = load_run(run)
    show_activity(compress.activity(trained.model))
    smaller, left = compress.compress(trained)
    change = compress.difference(trained, smaller)
    compress.write(output, run, smaller, left, overwrite)
    click.echo(f"{output}: run of {smaller.model.count_params():,} parameters instead of "
               f"{trained.model.count_params():,}; predictions y in [-1, 1] of 64 random inputs change by at most "
               f"{change:.1e}")


@cli.command()
@click.argument("run", type=click.Path())
@click.argument("directory", type=click.Path(file_okay=False))
@click.option("--overwrite", is_flag=True, help="Replace the directory if it exists.")
def export(run, directory, overwrite):
    """Write the trained RUN as a TensorFlow SavedModel to DIRECTORY.

    It standardises its inputs itself and returns [y, scales of the likelihood], (batch, 2) for most likelihoods; y in
    [-1, 1] is the rescaled log10 mass. What the inputs are stands in kerasgal.json beside it.
    """
    from kerasgal.apps.halomass.data import INPUT_WORDS
    from kerasgal.apps.halomass.losses import LIKELIHOODS
    from kerasgal.apps.halomass.predict import load_run
    from kerasgal.export import export

    trained = load_run(run)
    config = trained.config
    description = {"app": APP, "input": INPUT_WORDS[config.input], "shape": list(trained.model.input_shape[1:]),
                   "output": ["y", *LIKELIHOODS[config.likelihood].names], "likelihood": config.likelihood,
                   "log10_mass": f"{config.low:g} + (y + 1) / 2 * {config.high - config.low:g}"}
    export(trained.model, directory, description, overwrite)
    click.echo(f"{directory}: SavedModel; its inputs and outputs are described in {directory}/kerasgal.json")
