"""kerasgal halomass evaluate and baseline: predictions held against truth and against each other."""

from pathlib import Path

import click

from kerasgal.cli import NetworkCommand


def shared(command):
    """The options that evaluation with and without networks have in common."""
    for option in reversed((
            click.option("--simulation", "simulations", multiple=True, required=True, type=click.Path(dir_okay=False),
                         metavar="FILE", help="Simulation file that no run saw; may be given several times."),
            click.option("--sample", type=click.IntRange(1), default=4000, show_default=True, metavar="NUMBER",
                         help="So many particles at random from each simulation."),
            click.option("--overwrite", is_flag=True, help="Replace an earlier evaluation."))):
        command = option(command)
    return command


def report(result, reference, folder):
    """Print the table and the paths of what was written."""
    from kerasgal.apps.halomass.evaluate import table

    for line in table(result, reference):
        click.echo(line)
    click.echo(f"{folder / 'metrics.json'}: all numbers")
    click.echo(f"{folder / 'comparison.png'}: residuals in three bins of mass, and figures beside it")


@click.command(cls=NetworkCommand)
@click.argument("runs", nargs=-1, required=True, type=click.Path(), metavar="RUN...")
@click.option("--baseline", is_flag=True, help="Also fit boosted trees to the particles of the first run.")
@click.option("--output", type=click.Path(file_okay=False), metavar="FOLDER",
              help="Folder for metrics.json and the figures.  [default: evaluation/ in the first run's folder]")
@shared
def evaluate(runs, baseline, output, simulations, sample, overwrite):
    """Compare trained RUNs with each other and with the truth, on simulations that none of them saw.

    Residuals by mass and by place in the halo, correlation, the Kullback-Leibler divergence between the residuals of
    each two runs with its bootstrap error, and the calibration of the predictive distributions. All runs must
    predict the same range of masses.
    """
    from kerasgal.apps.halomass import figures
    from kerasgal.apps.halomass import evaluate as evaluation
    from kerasgal.files import refuse_existing

    folder = Path(output) if output else Path(runs[0]) / "evaluation"
    refuse_existing(folder / "metrics.json", overwrite)
    trained = evaluation.load_runs(runs, simulations)
    predictors = {name: evaluation.network(run) for name, (_, run) in trained.items()}
    reference, (first, run) = next(iter(trained.items()))
    if baseline:
        from kerasgal.apps.halomass.baseline import fit

        click.echo(f"fitting boosted trees to the training particles of {reference}")
        predictors[evaluation.TREES] = evaluation.trees(fit(first, run.config))
    result = evaluation.evaluate(predictors, run.config.low, run.config.high, simulations, folder, count=sample,
                                 reference=reference,
                                 progress=lambda name, path: click.echo(f"predicting {path}: {name}"))
    figures.training(evaluation.histories({name: place for name, (place, _) in trained.items()}),
                     folder / "training.png")
    report(result, reference, folder)


@click.command(cls=NetworkCommand)
@click.argument("run", type=click.Path())
@click.option("--output", type=click.Path(file_okay=False), metavar="FOLDER",
              help="Folder for metrics.json and the figures.  [default: baseline/ in the run folder]")
@shared
def baseline(run, output, simulations, sample, overwrite):
    """Fit gradient-boosted trees to the particles RUN was trained on, and evaluate them on other simulations.

    They read the initial density averaged over spheres of 50 radii around a particle (needs kerasgal[baseline]). RUN
    gives the particles; its network takes no part.
    """
    from kerasgal.apps.halomass import evaluate as evaluation
    from kerasgal.apps.halomass.baseline import fit
    from kerasgal.files import refuse_existing

    folder = Path(output) if output else Path(run) / "baseline"
    refuse_existing(folder / "metrics.json", overwrite)
    (_, trained), = evaluation.load_runs([run], simulations).values()
    config = trained.config
    click.echo(f"fitting boosted trees to the training particles of {run}")
    fitted = fit(run, config)
    result = evaluation.evaluate({evaluation.TREES: evaluation.trees(fitted)}, config.low, config.high, simulations,
                                 folder, count=sample, reference=evaluation.TREES)
    report(result, evaluation.TREES, folder)
