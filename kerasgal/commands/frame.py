"""The frame of an app's commands: summary, config, train, predict, evaluate, export, in one grammar.

    kerasgal APP VERB RUN INPUT... [--output PATH]
    kerasgal APP train INPUT... --run RUN

A verb that an app does not give is the plain call of the run's own method. One that has options of its own is a
function with Click's decorators and a docstring, whose body is that call:

    @click.option("--watershed", type=click.Choice(["adaptive", "native"]), default="adaptive")
    def predict(run, source, **options):
        \"\"\"Predict the haloes of each SIMULATION with the trained RUN.\"\"\"
        return run.predict(source, **options)

    standard_commands(cli, "kerasgal.apps.protohalo.run:Protohalo", TrainConfig, predict=predict)
"""

import shlex
import sys
from pathlib import Path

import click

from kerasgal import config as configuration
from kerasgal.commands.base import DASK, Command, NetworkCommand, in_flags, section, together
from kerasgal.commands.settings import settings_options
from kerasgal.errors import DataError, SettingError
from kerasgal.files import refuse_inputs
from kerasgal.plotting import FORMATS
from kerasgal.registry import imported

RUN = click.argument("run", type=click.Path())
OUTPUT = "Output"
OUTSIDE = click.option("--outside-domain", is_flag=True,
                       help="Go on where the data are not like those that RUN was trained on; the product says so.")
OVERWRITE = click.option("--overwrite", is_flag=True, help="Replace what exists.")
FIGURES = click.option("--figures", type=click.Choice(FORMATS), default="png", show_default=True,
                       help="Format of the figures beside the report.")


def standard_commands(group, run, config, *, inputs="SIMULATIONS", train=None, predict=None, evaluate=None,
                      export=None):
    """Give an app's Click group its verbs.

    run: "module:class" of its runs, imported where a command needs it; config: its config dataclass; inputs: what
    its inputs are called. train, predict, evaluate, export: see the module; they are called with

    - train(cls, inputs, **options), options being those of `Run.train`; returns the run, or None in other workers
    - predict(run, source, **options); returns a `Prediction`
    - evaluate(run, sources, **options); returns an `Evaluation`
    - export(run, directory, **options); returns the folder

    predict and evaluate may be Click commands instead, for an app whose inputs are not one file for each product.
    """
    def run_class():
        return imported(run)

    metavar = f"{inputs}..."
    group.add_command(_summary(run_class, config))
    group.add_command(_config(config))
    group.add_command(_train(run_class, config, metavar, train or default_train))
    for verb, given, otherwise, make in (("predict", predict, default_predict, _predict),
                                         ("evaluate", evaluate, default_evaluate, _evaluate)):
        ready = isinstance(given, click.Command)
        group.add_command(given if ready else make(run_class, metavar, given or otherwise), verb)
    group.add_command(_export(run_class, export or default_export))


def evaluation_command(group, run, body, *, folder, inputs="SIMULATIONS"):
    """Give a group one more verb like `evaluate`, of the name of `body`, which writes into `folder` of the run."""
    group.add_command(_evaluate(lambda: imported(run), f"{inputs}...", body, body.__name__, folder))


def default_train(cls, inputs, **options):
    """Train on SIMULATIONS."""
    return cls.train(inputs, **options)


def default_predict(run, source, **options):
    """Predict each of SIMULATIONS with the trained RUN."""
    return run.predict(source, **options)


def default_evaluate(run, sources, **options):
    """Hold the trained RUN against SIMULATIONS that it never saw."""
    return run.evaluate(sources, **options)


def default_export(run, directory, **options):
    """Write the trained RUN as a TensorFlow SavedModel, with a description of its inputs in kerasgal.json."""
    return run.export(directory, **options)


def _command(name, body, decorators):
    """A Click command of that name: the decorators' parameters around those that `body` has by itself."""
    body = together(decorators)(body)
    return click.command(name, cls=NetworkCommand)(body)


def _parameters(function):
    """Click's parameters of a function that has decorators of it."""
    return list(getattr(function, "__click_params__", []))


def _summary(run_class, config):
    def summary(run, preset, config, settings):
        """Print the network layer by layer: of a trained RUN, or of the settings that are given."""
        cls = run_class()
        if run is not None:
            if settings or preset or config:
                raise click.UsageError("a RUN has its own settings: leave --preset, --config and the others out")
            found = cls.load(run)
        else:
            found = cls(cls.configure(config, preset, **settings))
        click.echo(found.summary())

    argument = click.argument("run", type=click.Path(), required=False, metavar="[RUN]")
    return _command("summary", settings_options(config)(summary), [argument])


def _config(config_class):
    def config(preset, config, settings):
        """Print the settings as TOML, each with its help, for `train --config FILE`."""
        click.echo(configuration.toml(configuration.layered(config_class, preset, config, settings)))

    # Not a NetworkCommand: it needs no network, and should not wait for TensorFlow.
    return click.command("config", cls=Command)(settings_options(config_class)(config))


def _train(run_class, config, metavar, body):
    def train(inputs, validation, dry_run, memory, **options):
        cls = run_class()
        settings = options.pop("settings")
        validation = list(validation) or None
        if memory is not None:
            options["memory"] = memory
        if dry_run:
            from kerasgal.planning import plan

            folder = options.pop("run") or cls.default_folder()
            click.echo(plan(lambda place: body(cls, list(inputs), validation=validation, run=place, **options,
                                               **settings), folder))
            return
        made = body(cls, list(inputs), validation=validation, **options, **settings)
        if made is not None:
            parameters = sum(network.count_params() for network in made.networks.values())
            curves = ", ".join(str(made.folder / phase / "loss.png") for phase in made.phases)
            click.echo(f"{made.folder}: run of {parameters:,} parameters; loss in {curves}")

    train.__doc__, train.__click_params__ = body.__doc__, _parameters(body)
    places = [
        click.argument("inputs", nargs=-1, type=click.Path(), metavar=f"[{metavar}]"),
        section("Data and run folder",
                click.option("--validation", multiple=True, type=click.Path(), metavar="FILE",
                             help="What to validate on; may be given several times.  [default: the last of several]"),
                click.option("--run", type=click.Path(file_okay=False), default=None, metavar="RUN",
                             help="Run folder to write.  [default: the app's name with -run, here]"),
                click.option("--resume", is_flag=True, help="Go on with the run in the folder."),
                click.option("--overwrite", is_flag=True, help="Replace the run in the folder."),
                click.option("--init", type=click.Path(), metavar="RUN",
                             help="Start from the weights of another run."),
                click.option("--tensorboard", is_flag=True, help="Write TensorBoard logs into the run folder."),
                click.option("--memory", metavar="SIZE",
                             help="What boxes may take of memory, e.g. 4GB; those beyond are read from a scratch file "
                                  "while the training lasts, which gives the same run.  [default: all of them]"),
                click.option("--dry-run", is_flag=True,
                             help="Print what would be trained, its memory and time, from some steps, and stop: "
                                  "nothing is written.")),
    ]
    return _command("train", settings_options(config, auto=True)(train), places)


def outputs_of(sources, output, label, suffixes, default=".h5"):
    """A path for the product of each source.

    output: of the command: a file for one source; a folder for several, or where it is one or ends in a slash; None is
    the current folder. There names are those of the sources, with a label.
    """
    names = [Path(f"{Path(source).stem}_{label}{default}") for source in sources]
    if output is None:
        paths = names
    elif len(sources) > 1 or str(output).endswith("/") or Path(output).is_dir():
        if Path(output).suffix in suffixes:
            raise click.UsageError(f"--output {output}: {len(sources)} inputs need a folder, which is made")
        paths = [Path(output) / name for name in names]
    else:
        paths = [Path(output)]
        if paths[0].suffix not in suffixes:
            raise click.UsageError(f"--output {output}: accepted suffixes are {', '.join(suffixes)}")
    twice = next((path for path in paths if paths.count(path) > 1), None)
    if twice:
        raise click.UsageError(f"two inputs would both be written to {twice}: give them in two commands")
    refuse_inputs(paths, sources)
    return paths


def say_each(sources, outcomes):
    """Print the lines made for every source; what fails of several is said at once, and the exit code is 1 in the end.

    outcomes: (lines, error) of each, as from `kerasgal.cluster.outcomes`.
    """
    failed, command = 0, click.get_current_context().command
    for lines, error in outcomes:
        for line in lines or ():
            click.echo(line)
        if error is None:
            continue
        if len(sources) == 1 or isinstance(error, SettingError):
            raise error
        failed += 1
        click.echo(f"Error: {in_flags(str(error), command)}", err=True)
    if failed:
        raise DataError(f"{failed} of {len(sources)} inputs failed")


def predict_one(task):
    """Predict one source and save its products; returns the lines that say so.

    task: (arguments of `cluster.run_of`, body of the command, source, options, paths, whether to overwrite)
    """
    from kerasgal.cluster import run_of
    from kerasgal.simulation import SUFFIXES

    run, body, source, options, (path, *tables), overwrite = task
    trained = run_of(*run)
    # Written while it is predicted where that can be, for what does not fit into memory
    written = trained.streams and path.suffix in SUFFIXES
    made = body(trained, source, **options, **({"output": path, "overwrite": overwrite} if written else {}))
    if not written:
        made.save(path, overwrite=overwrite)
    lines = [f"{path}: {made.words()}"]
    for table in tables:
        made.save(table, overwrite=overwrite)
        lines.append(f"{table}: its table")
    return lines


def _predict(run_class, metavar, body):
    def predict(run, sources, output, dask, overwrite, **options):
        from kerasgal import cluster
        from kerasgal.files import refuse_existing

        cls = run_class()
        formats = dict.fromkeys(options.pop("formats", ()))
        if options.get("columns") and not formats:
            raise click.UsageError("--columns is of the tables that --format writes, and --format is not given")
        paths = outputs_of(sources, output, cls.label or cls.app.split()[-1], cls.suffixes)
        products = [[path, *(path.with_suffix(f".{name}") for name in formats)] for path in paths]
        for path in sum(products, []):
            refuse_existing(path, overwrite)
        key = (cls, run, cluster.token())
        cluster.run_of(*key)  # its faults are said once, and before any work
        tasks = [(key, body, source, options, made, overwrite) for source, made in zip(sources, products)]
        with cluster.connect(dask) as client:
            say_each(sources, cluster.outcomes(predict_one, tasks, client))

    predict.__doc__, predict.__click_params__ = body.__doc__, _parameters(body)
    places = [
        RUN, click.argument("sources", nargs=-1, required=True, type=click.Path(), metavar=metavar),
        section(OUTPUT,
                click.option("--output", type=click.Path(), metavar="PATH",
                             help="File to write, or of several inputs the folder.  [default: each input's name with "
                                  "that of the app, here]"),
                DASK, OUTSIDE, OVERWRITE),
    ]
    return _command("predict", predict, places)


def beside(run, place):
    """Where what is made of a run goes if nobody says: into its folder, or here for a network that has a name."""
    from kerasgal.networks import is_name

    return Path(f"{run}_{place}") if is_name(run) else Path(run) / place


def write_evaluation(evaluation, folder, overwrite, figures):
    """Write an `Evaluation` into a folder and print what is most important."""
    evaluation.save(folder, overwrite=overwrite, figures=figures,
                    command=shlex.join(["kerasgal", *sys.argv[1:]]))
    for line in evaluation.lines:
        click.echo(line)
    click.echo(f"{folder / 'metrics.json'}: all numbers; {folder / 'report.html'}: they and the figures on one page")


def _evaluate(run_class, metavar, body, name="evaluate", place="evaluation"):
    def evaluate(run, sources, output, overwrite, figures, **options):
        from kerasgal.files import refuse_existing

        context = click.get_current_context()
        old = context.meta.get("kerasgal.simulations", ())
        if old:  # the old grammar: RUN... --simulation FILE ...
            others, sources = sources, old
            if others and "compare" not in options:
                raise click.UsageError(f"Got unexpected extra argument ({others[0]})")
            if others:
                options["compare"] = (*options["compare"], *others)
            words = " ".join([run, *sources, *(f"--compare {other}" for other in others)])
            click.echo(f"--simulation is an old spelling: write {context.command_path} {words}", err=True)
        if not sources:
            raise click.UsageError(f"Missing argument '{metavar}'.")
        folder = Path(output) if output else beside(run, place)
        refuse_existing(folder / "metrics.json", overwrite)
        write_evaluation(body(run_class().load(run), list(sources), **options), folder, overwrite, figures)

    def keep(context, parameter, value):
        context.meta["kerasgal.simulations"] = value

    evaluate.__doc__, evaluate.__click_params__ = body.__doc__, _parameters(body)
    places = [
        RUN, click.argument("sources", nargs=-1, type=click.Path(), metavar=metavar),
        click.option("--simulation", multiple=True, type=click.Path(), hidden=True, expose_value=False, callback=keep),
        section(OUTPUT,
                click.option("--output", type=click.Path(file_okay=False), metavar="FOLDER",
                             help=f"Folder for the report, its numbers and figures.  [default: {place}/ in RUN]"),
                FIGURES, OUTSIDE, OVERWRITE),
    ]
    return _command(name, evaluate, places)


def _export(run_class, body):
    def export(run, directory, output, **options):
        if directory is not None:
            if output is not None:
                raise click.UsageError("--output and the old DIRECTORY contradict each other: give one of them")
            click.echo(f"a second argument is the old spelling: write --output {directory}", err=True)
        trained = run_class().load(run)
        place = body(trained, output or directory, **options)
        click.echo(f"{place}: SavedModel; its inputs and outputs are described in {place / 'kerasgal.json'}")

    export.__doc__, export.__click_params__ = body.__doc__, _parameters(body)
    places = [
        RUN, click.argument("directory", required=False, type=click.Path(file_okay=False), metavar=""),
        section(OUTPUT,
                click.option("--output", type=click.Path(file_okay=False), metavar="FOLDER",
                             help="Folder to write.  [default: saved_model/ in RUN]"),
                OVERWRITE),
    ]
    return _command("export", export, places)
