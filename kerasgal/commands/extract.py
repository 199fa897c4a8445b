"""The command `kerasgal extract`."""

import click

from kerasgal.commands.base import Command


@click.command(cls=Command, loads="kerasgal.extract")
@click.argument("path", metavar="FILE", type=click.Path())
@click.argument("name", metavar="NAME")
@click.argument("output", type=click.Path(dir_okay=False))
@click.option("--overwrite", is_flag=True, help="Replace OUTPUT if it exists.")
def extract(path, name, output, overwrite):
    """Write what is called NAME in FILE, an HDF5 file, to OUTPUT: a field as .npy, a catalogue as a table in .ecsv,
    .fits, .csv, .hdf5 or .parquet.

    \b
    kerasgal extract box.h5 final/delta delta.npy
    kerasgal extract box.h5 halos halos.fits

    FILE is a Simulation file, a prediction or anything else in HDF5, whose columns keep the units that it says;
    `kerasgal info` lists what is in the first two.
    """
    from kerasgal.extract import extract

    click.echo(f"{output}: {extract(path, name, output, overwrite)}")
