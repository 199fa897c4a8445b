"""kerasgal morph: how real does a simulated galaxy look? (Zanisi et al. 2020)"""

from pathlib import Path

import click
from click.core import ParameterSource

from kerasgal.apps.morph.config import TrainConfig
from kerasgal.commands import App, section, standard_commands, together
from kerasgal.commands.base import DASK, NetworkCommand, check_suffix, finite, old_option
from kerasgal.commands.frame import FIGURES, OUTSIDE, OVERWRITE, beside, write_evaluation
from kerasgal.errors import DataError

KINDS = click.Choice(["real", "archetype"])


@click.group(cls=App)
def cli():
    """How real a simulated galaxy looks: the likelihood ratio of two PixelCNN++ networks.

    Zanisi, Huertas-Company, Lanusse et al. 2020, arXiv:2007.00039.
    """


def pair_of(text, accepted):
    """("a", "b") of "a=b"; raises BadParameter for anything else."""
    name, separator, value = text.partition("=")
    if not (name and separator and value):
        raise click.BadParameter(f"{text!r}: accepted is {accepted}")
    return name, value


def masks_of(context, parameter, value):
    """The pair of --masks, or None."""
    return None if value is None else pair_of(value, "OLD=NEW, e.g. fitim=mskim")


def extension_of(context, parameter, value):
    """The name or the number of --extension."""
    return int(value) if value is not None and value.isdigit() else value


# Of every command that reads images
READING = section(
    "What the images are",
    click.option("--masks", metavar="OLD=NEW", callback=masks_of,
                 help="Masks lie in files beside the images whose names have NEW for OLD, e.g. fitim=mskim; nonzero is "
                      "bad."),
    click.option("--extension", metavar="NAME|N", callback=extension_of,
                 help="FITS extension or HDF5 dataset that is the image.  [default: chosen by name and content]"),
    click.option("--unit", metavar="UNIT", help="Unit of flux where files do not say it: counts, nanomaggies, maggies, "
                                                "electrons/s, Jy, ..."),
    click.option("--zero-point", type=float, callback=finite, help="AB magnitude of one unit of theirs."),
    click.option("--flux-scale", type=float, callback=finite,
                 help="What to multiply their pixels by to have them in the unit of the run."))
IMAGES = together([
    click.argument("run", required=False, metavar="RUN"),
    click.argument("given", nargs=-1, metavar="IMAGES..."),  # --images a b c: what the shell made of --images *.fits
    click.option("--run", "old_run", hidden=True, type=click.Path()),
    click.option("--images", multiple=True, metavar="PATH...",
                 help="Files, folders or globs of FITS, NumPy, HDF5, PNG or TIFF images: another way to give IMAGES, "
                      "and then RUN may be left out, which is morph-run."),
])


def run_and_images(run, given, old_run, images):
    """The run folder and the images of `RUN IMAGES...`, or of `[--run RUN] --images IMAGES...`."""
    words = [word for word in (run, *given) if word is not None]
    if not images and old_run is None:
        if len(words) < 2:
            raise click.UsageError("Missing argument 'IMAGES...'." if words else "Missing argument 'RUN'.")
        return words[0], words[1:]
    from kerasgal.networks import is_name

    is_run = words and ((Path(words[0]) / "real" / "config.json").exists() or is_name(words[0]))
    if is_run and old_run:
        raise click.UsageError(f"--run, an old spelling, and RUN, {words[0]}, contradict each other: give one of them")
    folder = old_run or (words.pop(0) if is_run else "morph-run")
    found = [*images, *words]
    if not found:
        raise click.UsageError("Missing argument 'IMAGES...'.")
    return folder, found


def train(cls, paths, images, masks, archetypes, **options):
    """Train one network, or with --archetypes both, on IMAGES. Every tenth validates.

    Both must see images alike: what --bands, --sky, --softening, --crop, --size, --rebin and --bits make of them is
    stored with the run and done again in scoring.
    """
    return cls.train([*images, *paths], archetypes=list(archetypes), masks=masks, **options)


train = READING(section(
    "Networks", click.option("--images", multiple=True, metavar="PATH...",
                             help="Files, folders or globs of images: another way to give IMAGES."),
    click.option("--on", type=KINDS, default="real", show_default=True, help="What the images are."),
    click.option("--archetypes", multiple=True, metavar="PATH",
                 help="Train on these, too, as archetypes: both networks in one command."))(train))


def scored(name, **about):
    """The command that scores images, under one of its two names."""
    @click.command(name, cls=NetworkCommand, **about)
    @IMAGES
    @READING
    @section("Output",
             click.option("--output", type=click.Path(dir_okay=False, path_type=Path), default="scores.csv",
                          show_default=True, help="Table to write; the suffix, .csv, .ecsv, .fits, .hdf5 or "
                                                  ".parquet, says in which format."),
             click.option("--maps", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
                          help="Also write what each pixel adds, as HDF5."),
             click.option("--resume", is_flag=True, help="Go on with a table that was interrupted."),
             DASK, OUTSIDE, OVERWRITE)
    def score(run, given, old_run, images, output, maps, resume, dask, overwrite, **options):
        """Score IMAGES with RUN: ln p under both networks, their ratio LLR, and the parts of the galaxy's own pixels.

        An image that cannot be read or prepared has its error in the table; the others are scored, and the exit code is
        1. The column `flag` says what is doubtful: 1 blank, 2 saturated, 4 cut, 8 many bad pixels, 16 of unknown unit.
        """
        from kerasgal.apps.morph.run import Morph
        from kerasgal.cluster import connect
        from kerasgal.files import refuse_existing
        from kerasgal.readers.images import find

        folder, paths = run_and_images(run, given, old_run, images)
        check_suffix(output, Morph.suffixes)
        if resume and maps:
            raise click.UsageError("--resume goes on with a table; --maps are written from the beginning: give one of "
                                   "them")
        if maps and maps.resolve() == output.resolve():
            raise click.UsageError(f"--maps and --output are both {output}: give two files")
        for path in filter(None, (output, maps)):
            refuse_existing(path, overwrite)
        find(paths, options["masks"])  # a missing one is said before TensorFlow's and the networks' time is spent
        trained = Morph.load(folder)
        with connect(dask) as client:
            total, failed = trained.write_scores(paths, output, maps=maps, resume=resume, overwrite=overwrite,
                                                 client=client, **options)
        click.echo(f"{output}: {total} images" + (f", {failed} of which could not be scored" if failed else ""))
        if maps:
            click.echo(f"{maps}: prepared images and maps of ln p under both networks")
        if failed:
            raise DataError(f"{failed} of {total} images could not be scored: see the column `error` of {output}")

    return score


@click.command(cls=NetworkCommand)
@click.argument("run", required=False, metavar="RUN")
@click.argument("given", nargs=-1, metavar="NAME=PATH...")
@click.option("--run", "old_run", hidden=True, type=click.Path())
@click.option("--set", "old_sets", multiple=True, hidden=True)
@READING
@section("Comparison",
         click.option("--match", metavar="COLUMN,...",
                      help="Match the sets in these columns first, e.g. log_mass,radius_kpc,n."),
         click.option("--control", metavar="NAME",
                      help="Also compare empty sky: the set of this name, or one of the borders of the first set's "
                           "images."))
@section("Output",
         click.option("--output", type=click.Path(file_okay=False, path_type=Path), metavar="FOLDER",
                      help="Folder for the report, its numbers and figures.  [default: evaluation/ in RUN]"),
         DASK, FIGURES, OUTSIDE, OVERWRITE)
def evaluate(run, given, old_run, old_sets, output, dask, overwrite, figures, **options):
    """Compare sets of images by their likelihood ratios: Delta<LLR>, medians, separation, planes, maps.

    Each set has a name; the first is of observations, with which the others are compared. Several paths of one name are
    one set. Delta<LLR> is the mean ratio of a set less that of the first: the closer to 0, the better the agreement.
    """
    from kerasgal.apps.morph.run import Morph
    from kerasgal.cluster import connect
    from kerasgal.files import refuse_existing
    from kerasgal.readers.images import find

    if old_run or old_sets:
        given = (*([run] if run else []), *given, *old_sets)
        run = old_run or "morph-run"
        click.echo(f"--run and --set are old spellings: write kerasgal morph evaluate {run} {' '.join(given)}",
                   err=True)
    if run is None or not given:
        raise click.UsageError("Missing argument 'NAME=PATH...'." if run else "Missing argument 'RUN'.")
    sets = {}
    for text in given:
        name, path = pair_of(text, "NAME=PATH")
        sets.setdefault(name, []).append(path)
    folder = Path(output) if output else beside(run, "evaluation")
    refuse_existing(folder / "metrics.json", overwrite)
    for paths in sets.values():
        find(paths, options["masks"])  # a missing one is said before hours of scoring
    trained = Morph.load(run)
    with connect(dask) as client:
        found = trained.evaluate(sets, client=client, **options)
    write_evaluation(found, folder, overwrite, figures)
    failed = sum(entry["not_scored"] for entry in found["sets"].values())
    if failed:
        raise DataError(f"{failed} images could not be scored and are left out: see the notes")


@click.command(cls=NetworkCommand)
@click.argument("run", metavar="RUN")
@click.argument("images", nargs=-1, required=True, metavar="IMAGES...")
@click.option("--against", multiple=True, required=True, metavar="PATH",
              help="Images of observed galaxies that RUN was not trained on; may be given again.")
@READING
@section("Output",
         click.option("--output", type=click.Path(file_okay=False, path_type=Path), metavar="FOLDER",
                      help="Folder for the report, ranks.ecsv and the figures.  [default: ranking/ in RUN]"),
         FIGURES, OUTSIDE, OVERWRITE)
def rank(run, images, against, output, overwrite, figures, **options):
    """Rank IMAGES by how real they look: the likelihood ratio of each among those of observed galaxies.

    The table has rank, ratio, percentile among the observed with its error, flags, and place and name of the header;
    the report has the set as a whole and the images at both ends.
    """
    from kerasgal.apps.morph.run import Morph
    from kerasgal.files import refuse_existing
    from kerasgal.readers.images import find

    folder = output or beside(run, "ranking")
    refuse_existing(folder / "metrics.json", overwrite)
    for paths in (images, against):
        find(list(paths), options["masks"])  # a missing one is said before hours of scoring
    made = Morph.load(run).rank(list(images), list(against), **options)
    write_evaluation(made, folder, overwrite, figures)
    click.echo(f"{folder / 'ranks.ecsv'}: {len(made.table)} rows")
    failed = made["not_scored"]
    if failed:
        raise DataError(f"{failed} of {len(made.table)} images could not be scored: see the column `error`")


def export(run, directory, **options):
    """Write the trained RUN, both networks in one, as a TensorFlow SavedModel.

    It takes prepared images, (batch, y, x, bands) with the stretched flux in [0, 1], and returns (batch, y, x, 2): ln p
    of each pixel, of all bands together, under the network of real galaxies and under that of archetypes.
    """
    return run.export(directory, **options)


standard_commands(cli, "kerasgal.apps.morph.run:Morph", TrainConfig, inputs="IMAGES", train=train,
                  predict=scored("predict", hidden=True), evaluate=evaluate, export=export)
cli.add_command(scored("score"))
cli.add_command(rank)


@cli.command()
@click.argument("output", type=click.Path(dir_okay=False))
@click.argument("bands", nargs=-1, required=True, metavar="BAND=PATH...")
@READING
@section("Output", OVERWRITE)
def join(output, bands, **options):
    """Join images of one band each, such as g=g.h5 r=r.h5, to OUTPUT, an image set of several bands.

    Images belong together that have one id, without a band's name at its end: ngc1_g and ngc1_r do. Several paths of
    one band are taken together. What has not all bands is left out, and said.
    """
    from kerasgal.readers.bands import join as joined

    paths = {}
    for text in bands:
        name, path = pair_of(text, "BAND=PATH")
        paths.setdefault(name, []).append(path)
    number = joined(output, paths, **options)
    click.echo(f"{output}: {number} galaxies in the bands {', '.join(paths)}")


@cli.command()
@click.argument("output", type=click.Path(dir_okay=False))
@click.option("--kind", type=click.Choice(["real", "fine", "smooth"]), default="real", show_default=True,
              help="real: with all structure; fine and smooth: two simulated suites, with ever less of it.")
@click.option("--number", type=click.IntRange(1), default=1000, show_default=True, help="Galaxies.")
@click.option("--first", type=click.IntRange(0), default=0, show_default=True,
              help="Index of the first: galaxy i of a seed is the same in every kind.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the galaxies.")
@click.option("--bands", default="", metavar="BAND,...",
              help="Show them in several of g, r and i, whose bulges and discs have other colours.  [default: r alone]")
@OVERWRITE
def simulate(output, kind, number, **options):
    """Make images of galaxies up and write them to OUTPUT, an image-set file with their Sersic parameters.

    Bulges, discs, spiral arms, bars and clumps, with the pixels, seeing, sky and noise of the SDSS in r.
    """
    from kerasgal.apps.morph import sets

    sets.simulate(output, kind=kind, number=number, **options)
    click.echo(f"{output}: {number} made-up galaxies of the kind {kind}, with their Sersic parameters")


@cli.command()
@click.argument("output", type=click.Path(dir_okay=False))
@section("Parameters",
         click.option("--table", type=click.Path(dir_okay=False), metavar="FILE",
                      help="Sersic parameters of galaxies, FITS, CSV or ECSV, or the image set that has them."),
         click.option("--bands", default="", metavar="BAND,...",
                      help="With --table: several bands, whose columns are NAME_BAND, such as flux_g; NAME is of all.  "
                           "[default: those of the image set]"),
         click.option("--fit", multiple=True, metavar="PATH",
                      help="Images whose galaxies a Sersic profile is fitted to first."),
         click.option("--number", type=click.IntRange(1), help="Draw the parameters of so many galaxies instead."),
         click.option("--distribution", "distributions", multiple=True, metavar="COLUMN=FILE",
                      help="With --number: the cumulative distribution of a column, e.g. n=cdf.txt."))
@section("Camera",
         click.option("--psf", type=click.Path(dir_okay=False), metavar="FILE",
                      help="FITS image of the point spread function.  [default: a Moffat profile of --fwhm]"),
         click.option("--fwhm", type=click.FloatRange(0, min_open=True), default=1.32, show_default=True,
                      callback=finite, help="Seeing, arcsec."),
         click.option("--skies", multiple=True, metavar="PATH",
                      help="Images whose borders are the sky and its noise.  [default: noise as the SDSS's]"),
         click.option("--size", type=click.IntRange(8), default=128, show_default=True, help="Pixels per side."),
         click.option("--pixel-scale", type=click.FloatRange(0, min_open=True), callback=finite,
                      help="Side of a pixel, arcsec.  [default: 0.396]"),
         click.option("--zero-point", type=float, callback=finite,
                      help="Magnitude that gives one count. Images that say a zero point of their own are brought to "
                           "it.  [default: 28.26]"))
@section("Images that are fitted, or whose sky is taken",
         click.option("--sky", type=float, callback=finite,
                      help="Sky of a pixel to subtract before the fit; 0 where it is subtracted already.  [default: "
                           "fitted with the galaxy]"),
         click.option("--masks", metavar="OLD=NEW", callback=masks_of, help="As in score."),
         click.option("--extension", metavar="NAME|N", callback=extension_of, help="As in score."),
         click.option("--unit", metavar="UNIT", help="Unit of flux, where files do not say it."),
         click.option("--flux-scale", type=float, callback=finite, help="Counts of the camera that one unit is, "
                                                                             "of images that do not say it."))
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of noise and --number.")
@OVERWRITE
def archetypes(output, distributions, size, **options):
    """Make the smooth Sersic archetypes of galaxies and write them to OUTPUT, an image-set file."""
    from kerasgal.apps.morph import sets

    source = click.get_current_context().get_parameter_source("fwhm")
    if options["psf"] and source is ParameterSource.COMMANDLINE:
        raise click.UsageError("--psf and --fwhm contradict each other: give one of them")
    given = dict(pair_of(text, "COLUMN=FILE") for text in distributions)
    count = sets.make_archetypes(output, distributions=given, size=size, **options)
    click.echo(f"{output}: {count} Sersic archetypes of {size}^2 pixels")


@cli.command()
@click.argument("run", required=False, default="morph-run", metavar="RUN")
@old_option("--run", "run", type=click.Path())
@click.option("--on", type=KINDS, default="real", show_default=True, help="Which network to draw from.")
@click.option("--number", type=click.IntRange(1), default=16, show_default=True, help="Images to draw.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the draws.")
@click.option("--output", type=click.Path(dir_okay=False), default="samples.h5", show_default=True,
              help="Image-set file to write; a contact sheet of the images stands beside it.")
@OVERWRITE
def sample(run, output, number, **options):
    """Draw images from a trained network, as counts: the stretch of the preparation is undone."""
    from kerasgal.apps.morph import sets
    from kerasgal.apps.morph.run import Morph

    trained = Morph.load(run)
    sheet = sets.write_samples(trained, output, number=number, **options)
    click.echo(f"{output}: {number} images of {trained.config.size}^2 pixels; {sheet}: the same as a picture")
