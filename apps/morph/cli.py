"""kerasgal morph: how real does a simulated galaxy look? (Zanisi et al. 2020)"""

from pathlib import Path

import click

from kerasgal.apps.morph.config import APP, TrainConfig
from kerasgal.cli import App, check_suffix, finite, flags_of_run, run_options, together
from kerasgal.config import PRESETS, from_flags, preset
from kerasgal.errors import DataError


@click.group(cls=App)
def cli():
    """How real a simulated galaxy looks: the likelihood ratio of two PixelCNN++ networks.

    Zanisi, Huertas-Company, Lanusse et al. 2020, arXiv:2007.00039.
    """


RUN = click.option("--run", "folder", type=click.Path(file_okay=False, path_type=Path), default="morph-run",
                   show_default=True, help="Run folder.")


def image_options(required=True):
    """A decorator with --images, which takes any number of paths, and --masks."""
    return together([
        click.option("--images", multiple=True, required=required, metavar="PATH...",
                     help="Files, folders or globs of FITS, NumPy, HDF5, PNG or TIFF images."),
        click.argument("more", nargs=-1, metavar=""),  # --images a b c: what the shell made of --images *.fits
        click.option("--masks", metavar="OLD=NEW", help="Masks lie in files beside the images whose names have NEW for "
                                                        "OLD, e.g. fitim=mskim; nonzero is bad."),
    ])


def pair_of(option, text, accepted):
    """("a", "b") of "a=b"; raises UsageError for anything else."""
    name, separator, value = text.partition("=")
    if not (name and separator and value):
        raise click.UsageError(f"{option} {text!r}: accepted is {accepted}")
    return name, value


def split_masks(masks):
    """("old", "new") of "old=new", or None."""
    return None if masks is None else pair_of("--masks", masks, "OLD=NEW, e.g. fitim=mskim")


@cli.command()
@click.option("--preset", "name", type=click.Choice(PRESETS), default="paper", show_default=True)
def summary(name):
    """Print the network layer by layer, with its number of parameters."""
    import numpy as np

    from kerasgal.apps.morph.score import build

    model = build(preset(TrainConfig, name))
    model.summary()
    click.echo(f"{sum(int(np.prod(weight.shape)) for weight in model.trainable_weights):,} trainable parameters")


@cli.command()
@click.argument("output", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--kind", type=click.Choice(["real", "fine", "smooth"]), default="real", show_default=True,
              help="real: with all structure; fine and smooth: two simulated suites, with ever less of it.")
@click.option("--number", type=click.IntRange(1), default=1000, show_default=True, help="Galaxies.")
@click.option("--first", type=click.IntRange(0), default=0, show_default=True,
              help="Index of the first: galaxy i of a seed is the same in every kind.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--overwrite", is_flag=True, help="Replace OUTPUT if it exists.")
def simulate(output, kind, number, first, seed, overwrite):
    """Make images of galaxies up and write them to OUTPUT, an image-set file with their Sersic parameters.

    Bulges, discs, spiral arms, bars and clumps, with the pixels, seeing, sky and noise of the SDSS in r.
    """
    from kerasgal.apps.morph.mock import ABOUT, galaxies

    write_set(output, galaxies(number, kind, seed=seed, first=first), number,
              f"kerasgal morph simulate: {kind}, seed {seed}, galaxies {first} to {first + number - 1}; made up",
              overwrite, ABOUT)
    click.echo(f"{output}: {number} made-up galaxies of the kind {kind}, with their Sersic parameters")


def write_set(output, galaxies, number, source, overwrite, about):
    """Write galaxies, dictionaries of image, id and columns, as an image set while they are made.

    about: what `imageset.writing` takes of flux, pixels and seeing.
    """
    import itertools

    import numpy as np

    from kerasgal import imageset
    from kerasgal.files import refuse_existing
    from kerasgal.plotting import progress_bar

    refuse_existing(output, overwrite)
    galaxies = iter(galaxies)
    with progress_bar() as progress, imageset.writing(output, source, overwrite, **about) as writer:
        task = progress.add_task("galaxies", total=number)
        while group := list(itertools.islice(galaxies, 100)):
            columns = {name: np.array([galaxy[name] for galaxy in group]) for name in group[0]}
            writer.append(columns.pop("id").astype(str), columns.pop("image"), table=columns)
            progress.advance(task, len(group))


@cli.command()
@click.argument("output", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--table", type=click.Path(dir_okay=False), metavar="FILE",
              help="Sersic parameters of galaxies, FITS, CSV or ECSV, or the image set that has them.")
@click.option("--fit", multiple=True, metavar="PATH", help="Images whose galaxies a Sersic profile is fitted to first.")
@click.option("--number", type=click.IntRange(1), help="Draw the parameters of so many galaxies instead.")
@click.option("--distribution", "distributions", multiple=True, metavar="COLUMN=FILE",
              help="With --number: the cumulative distribution of a column, e.g. n=cdf.txt.")
@click.option("--psf", type=click.Path(dir_okay=False), metavar="FILE",
              help="FITS image of the point spread function.  [default: a Moffat profile of --fwhm]")
@click.option("--fwhm", type=click.FloatRange(0, min_open=True), default=1.32, show_default=True, callback=finite,
              help="Seeing, arcsec.")
@click.option("--skies", multiple=True, metavar="PATH",
              help="Images whose borders are the sky and its noise.  [default: noise as the SDSS's]")
@click.option("--size", type=click.IntRange(8), default=128, show_default=True, help="Pixels per side.")
@click.option("--pixel-scale", type=click.FloatRange(0, min_open=True), callback=finite,
              help="Side of a pixel, arcsec.  [default: 0.396]")
@click.option("--zero-point", type=float, callback=finite,
              help="Magnitude that gives one count.  [default: 28.26]")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of noise and --number.")
@click.option("--overwrite", is_flag=True, help="Replace OUTPUT if it exists.")
def archetypes(output, table, fit, number, distributions, psf, fwhm, skies, size, pixel_scale, zero_point, seed,
               overwrite):
    """Make the smooth Sersic archetypes of galaxies and write them to OUTPUT, an image-set file."""
    import numpy as np

    from kerasgal.apps.morph import archetypes, catalogues

    if sum((table is not None, bool(fit), number is not None)) != 1:
        raise click.UsageError("give one of --table, --fit and --number")
    if distributions and number is None:
        raise click.UsageError("--distribution needs --number")
    changed = {"pixel_scale": pixel_scale, "zero_point": zero_point}
    camera = archetypes.Camera(**{name: value for name, value in changed.items() if value is not None})
    point = archetypes.read_psf(psf, camera) if psf else archetypes.moffat_psf(fwhm, camera)
    rng = np.random.default_rng(seed)
    if table:
        chosen = catalogues.parameters_of(table, camera)
    elif fit:
        chosen = catalogues.fitted(list(fit), point, camera)
    else:
        given = dict(pair_of("--distribution", text, "COLUMN=FILE") for text in distributions)
        drawn = archetypes.draw_parameters(number, rng, given)
        chosen = archetypes.sersic_parameters(drawn, camera, "the distributions")
    note = archetypes.note_on_n(chosen)
    if note:
        click.echo(note)
    sky = catalogues.skies(list(skies), size, rng, camera=camera) if skies else None
    count = len(chosen["n"])
    write_set(output, archetypes.archetypes(chosen, camera, point, size=size, seed=seed, skies=sky), count,
              "kerasgal morph archetypes", overwrite, camera.about(None if psf else fwhm))
    click.echo(f"{output}: {count} Sersic archetypes of {size}^2 pixels")


@cli.command()
@image_options(required=False)
@click.option("--on", type=click.Choice(["real", "archetype"]), default="real", show_default=True,
              help="What --images are.")
@click.option("--archetypes", multiple=True, metavar="PATH",
              help="Train on these, too, as archetypes: both networks in one command.")
@run_options(TrainConfig, "morph-run")
def train(images, more, masks, on, archetypes, folder, resume, overwrite, tensorboard, flags):
    """Train one network, or with --archetypes both, on images. Every tenth validates.

    Both must see images alike: what --sky, --softening, --crop, --size and --bits make of them is stored with the run
    and done again in scoring.
    """
    from kerasgal.apps.morph.train import train_network
    from kerasgal.training import check_folder, recorded_simulations

    jobs = {on: [*images, *more]} | ({"archetype": list(archetypes)} if archetypes else {})
    if archetypes and on == "archetype":
        raise click.UsageError("--on archetype says what --images are: give archetypes by one of the two")
    if not images and not resume:
        raise click.UsageError("--images is missing: what to train on")
    begun = [name for name in ("real", "archetype") if (folder / name / "config.json").exists()]
    if resume and not begun:
        raise DataError(f"--resume: {folder} has no run to go on with")
    if resume and not images:
        jobs = {name: list(recorded_simulations(folder / name)[0]) for name in begun}
    for name, paths in jobs.items():
        place = folder / name
        # Interrupted before the second network was begun: that sees images as the first does.
        alike = place if name in begun or not begun else folder / begun[0]
        config = from_flags(TrainConfig, flags_of_run(alike, resume, overwrite, flags))
        check_folder(place, APP, resume, overwrite)
        click.echo(f"network of {name} images")
        train_network(paths, config, place, masks=split_masks(masks), overwrite=overwrite, tensorboard=tensorboard,
                      resume=resume and name in begun)
        click.echo(f"{place}: run folder, loss curve in {place / 'loss.png'}")


@cli.command()
@image_options()
@RUN
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), default="scores.csv", show_default=True,
              help="Table to write; the suffix, .csv, .ecsv or .fits, says in which format.")
@click.option("--maps", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Also write what each pixel adds, as HDF5.")
@click.option("--resume", is_flag=True, help="Go on with a table that was interrupted.")
@click.option("--overwrite", is_flag=True, help="Replace what exists.")
def score(images, more, masks, folder, output, maps, resume, overwrite):
    """Score images: ln p under both networks, their ratio LLR, and the parts of the galaxy's own pixels, without sky.

    An image that cannot be read or prepared has its error in the table; the others are scored, and the exit code is 1.
    """
    from kerasgal.apps.morph import score, tables
    from kerasgal.files import refuse_existing
    from kerasgal.readers import images as readers

    check_suffix(output, tables.SUFFIXES)
    if resume and maps:
        raise click.UsageError("--resume goes on with a table; --maps are written from the beginning: give one of them")
    refuse_existing(output, overwrite)
    if maps:
        refuse_existing(maps, overwrite)
    run = score.load_run(folder)
    stream = readers.stream([*images, *more], masks=split_masks(masks))
    scored, failed = tables.write(run, stream, output, maps=maps, resume=resume, overwrite=overwrite)
    click.echo(f"{output}: {scored} images" + (f", {failed} of which could not be scored" if failed else ""))
    if maps:
        click.echo(f"{maps}: prepared images and maps of ln p under both networks")
    if failed:
        raise DataError(f"{failed} of {scored} images could not be scored: see the column `error` of {output}")


@cli.command()
@RUN
@click.option("--set", "sets", multiple=True, required=True, metavar="NAME=PATH",
              help="A set of images and its name; may be given several times. The first is of observations, with which "
                   "the others are compared.")
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), metavar="FOLDER",
              help="Folder for metrics.json and the figures.  [default: evaluation/ in the run folder]")
@click.option("--overwrite", is_flag=True, help="Replace an earlier evaluation.")
def evaluate(folder, sets, output, overwrite):
    """Compare sets of images by their likelihood ratios: medians, separation, planes of size and mass, maps."""
    from kerasgal.apps.morph import evaluate as evaluation
    from kerasgal.apps.morph.score import load_run
    from kerasgal.files import refuse_existing
    from kerasgal.readers import images as readers

    output = output or folder / "evaluation"
    refuse_existing(output / "metrics.json", overwrite)
    named = {}
    for text in sets:
        name, path = pair_of("--set", text, "NAME=PATH")
        named.setdefault(name, []).append(path)
    run = load_run(folder)
    for paths in named.values():
        readers.find(paths)  # a missing one is said before hours of scoring
    streams = {name: lambda paths=paths: readers.stream(paths) for name, paths in named.items()}
    result = evaluation.evaluate(run, streams, output, progress=lambda name: click.echo(f"scoring {name}"))
    for line in evaluation.table(result):
        click.echo(line)
    click.echo(f"{output / 'metrics.json'}: all numbers\n{output / 'llr.png'}: distributions, and figures beside it")


@cli.command()
@RUN
@click.option("--on", type=click.Choice(["real", "archetype"]), default="real", show_default=True,
              help="Which network to draw from.")
@click.option("--number", type=click.IntRange(1), default=16, show_default=True, help="Images to draw.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), default="samples.h5", show_default=True,
              help="Image-set file to write; a contact sheet of the images stands beside it.")
@click.option("--overwrite", is_flag=True, help="Replace what exists.")
def sample(folder, on, number, seed, output, overwrite):
    """Draw images from a trained network, as counts: the stretch of the preparation is undone."""
    import numpy as np

    from kerasgal import imageset
    from kerasgal.apps.morph import figures
    from kerasgal.apps.morph.sample import sample
    from kerasgal.apps.morph.score import load_network
    from kerasgal.files import refuse_existing

    sheet = output.with_suffix(".png")
    for path in (output, sheet):
        refuse_existing(path, overwrite)
    config, network = load_network(folder, on)
    drawn = sample(network, number, seed=seed, bits=config.bits)[..., 0]
    imageset.write(output, id=[f"sample_{index}" for index in range(number)], image=np.sinh(drawn) * config.softening,
                   source=f"kerasgal morph sample: {folder / on}, seed {seed}", overwrite=overwrite)
    figures.sheet(drawn, sheet)
    click.echo(f"{output}: {number} images of {config.size}^2 pixels; {sheet}: the same as a picture")


@cli.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("directory", type=click.Path(file_okay=False))
@click.option("--overwrite", is_flag=True, help="Replace the directory if it exists.")
def export(run, directory, overwrite):
    """Write the trained RUN, both networks in one, as a TensorFlow SavedModel to DIRECTORY.

    It takes prepared images, (batch, y, x, 1) with the stretched flux in [0, 1], and returns (batch, y, x, 2): ln p of
    each pixel under the network of real galaxies and under that of archetypes.
    """
    from kerasgal.apps.morph.score import PREPARATION, load_run, pair
    from kerasgal.export import export

    trained = load_run(run)
    description = {"app": APP, "input": "images prepared as `preparation` says, stretched flux in [0, 1]",
                   "preparation": {name: getattr(trained.config, name) for name in PREPARATION},
                   "output": ["ln p of the pixel, network of real galaxies", "the same, network of archetypes"]}
    export(pair(trained), directory, description, overwrite)
    click.echo(f"{directory}: SavedModel; its inputs and outputs are described in {directory}/kerasgal.json")
