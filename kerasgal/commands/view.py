"""The commands `kerasgal view` and `kerasgal plot`."""

import click

from kerasgal.commands.base import Command


@click.command(cls=Command, loads="kerasgal.view")
@click.argument("path", metavar="FILE", type=click.Path())
@click.option("--with", "beside", type=click.Path(), metavar="FILE",
              help="A second file of the same box, such as its predicted haloes: it stands beside, and its haloes are "
                   "drawn over both. Of an image set, the table of its scores, or the file that `morph score "
                   "--maps` wrote: then a map of each stands beside it.")
@click.option("--output", type=click.Path(dir_okay=False), metavar="PAGE.html",
              help="Write one page that needs no server, of boxes of at most 160 cells a side.")
@click.option("--port", type=click.IntRange(0, 65535), show_default="any free one", help="Of the server.")
@click.option("--no-browser", is_flag=True, help="Print the address only.")
@click.option("--overwrite", is_flag=True, help="Replace PAGE.html if it exists.")
def view(path, beside, output, port, no_browser, overwrite):
    """Look at FILE in a browser: slices of a box with its haloes or galaxies, or a sheet of images.

    The page is served on this machine alone, until Ctrl-C; of large boxes only the slices that are looked at are read.
    Needs kerasgal[view].
    """
    from kerasgal import view as looking

    if output and (port is not None or no_browser):
        raise click.UsageError("--port and --no-browser are of the server, and --output writes a page that needs none")
    if output:
        looking.page(path, output, beside, overwrite)
        click.echo(f"{output}: open it in a browser")
        return
    looking.serve(path, beside, port or 0, not no_browser,
                  started=lambda server, address: click.echo(f"{address}  (Ctrl-C ends it)"))


@click.command(cls=Command, loads="kerasgal.view")
@click.argument("path", metavar="FILE", type=click.Path())
@click.argument("name", metavar="NAME")
@click.argument("output", metavar="OUTPUT", type=click.Path(dir_okay=False))
@click.option("--with", "beside", multiple=True, type=click.Path(), metavar="RUN|FILE",
              help="Of losses those of another run, of a mass function that of another file; may be given several "
                   "times.")
@click.option("--axis", type=click.Choice(["x", "y", "z"]), help="That the slice is perpendicular to.  [default: z]")
@click.option("--place", type=click.IntRange(0), help="Cell of the slice along it.  [default: the middle]")
@click.option("--log", is_flag=True, help="Show the logarithm; of a density contrast that of 1 + delta.")
@click.option("--overwrite", is_flag=True, help="Replace OUTPUT if it exists.")
def plot(path, name, output, beside, axis, place, log, overwrite):
    """Draw one figure into OUTPUT (.png or .pdf): a slice of the field NAME of FILE, or of an image set the image NAME.

    `kerasgal info FILE` lists the fields. NAME may be `mass_function`, of the haloes of FILE, and with --with of others
    beside them. FILE may be a run folder, or the name of a network: NAME is then `loss`, and with --with the losses of
    several trainings are compared.
    """
    from pathlib import Path

    from kerasgal import view as looking
    from kerasgal.errors import SettingError
    from kerasgal.files import refuse_existing
    from kerasgal.networks import folder_of, is_name
    from kerasgal.plotting import loss_curves, save

    if Path(output).suffix not in (".png", ".pdf"):
        raise SettingError(f"{output}: accepted suffixes are .png, .pdf", value=output, accepted=[".png", ".pdf"])
    refuse_existing(output, overwrite)
    unused = [flag for flag, given in (("--axis", axis), ("--place", place is not None), ("--log", log)) if given]
    if unused and name in ("loss", "mass_function"):
        raise SettingError(f"{unused[0]} is of the slice of a field, and {name} is none")
    if is_name(path) or Path(path).is_dir():
        if name != "loss":
            raise SettingError(f"{name} of {path}: of a run folder `loss` can be drawn", value=name, accepted=["loss"])
        save(loss_curves([folder_of(run) for run in (path, *beside)]), output)
    elif name == "mass_function":
        save(looking.mass_function_figure([path, *beside]), output)
    elif beside:
        raise SettingError(f"--with {beside[0]}: losses of runs stand beside each other, and {path} is no run folder; "
                           f"or mass functions, and {name} is none")
    else:
        save(looking.figure_of(path, name, axis=axis, place=place, log=log), output)
    click.echo(f"{output}: {name} of {path}")
