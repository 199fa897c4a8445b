"""The command `kerasgal convert`."""

import click

from kerasgal.commands.base import DASK, Command, in_flags, section
from kerasgal.errors import DataError


@click.command(cls=Command, loads="kerasgal.readers.convert")
@click.argument("output", type=click.Path())
@section("What to read",
         click.option("--initial", type=click.Path(), metavar="FILE", help="Initial conditions."),
         click.option("--final", type=click.Path(), metavar="FILE",
                      help="Snapshot at the final time: of the same particles as --initial, or alone, with --grid. Of "
                           "several files any, or their name without the number."),
         click.option("--density", metavar="FILE[:NAME]",
                      help="Density field (n, n, n): .npy, HDF5 (dataset NAME) or FITS (extension NAME)."),
         click.option("--groups", type=click.Path(), metavar="FILE",
                      help="Haloes of the final snapshot: FoF/SUBFIND or CAESAR in HDF5, Rockstar, consistent-trees, "
                           "AHF, HOP, PINOCCHIO, or a table of particle ID and halo ID."),
         click.option("--galaxies", type=click.Path(), metavar="FILE",
                      help="Galaxies: a SUBFIND or CAESAR catalogue, of the same run or of its hydrodynamic twin."),
         click.option("--counts", metavar="FILE[:NAME]", help="Galaxies in each cell of the same grid, as --density."),
         click.option("--parameter-table", type=click.Path(), metavar="FILE",
                      help="Table of parameters, as CAMELS and Quijote have, a row for each simulation."))
@section("What to take from it",
         click.option("--grid", type=click.IntRange(2),
                      help="Cells a side of the field made of --final, or of --initial, alone."),
         click.option("--window", type=click.Choice(["ngp", "cic", "tsc"]), default="cic", show_default=True,
                      help="How particles are put on that grid."),
         click.option("--particles", type=click.Choice(["dark", "gas", "stars", "all"]), default="dark",
                      show_default=True, help="Which particles are put on that grid."),
         click.option("--subsample", type=float, metavar="SHARE",
                      help="Share of them that is put on it, chosen at random."),
         click.option("--quantity", type=click.Choice(["rho", "1+delta", "delta"]),
                      help="What the field of --density is; rho in any unit."),
         click.option("--index", type=click.IntRange(0),
                      help="Simulation in files of several, and row of --parameter-table."),
         click.option("--stellar-mass", type=click.FloatRange(0), metavar="MASS",
                      help="Least mass in stars of a galaxy [Msun/h].  [default: 2e8]"),
         click.option("--minimum-stars", type=click.IntRange(1), help="Instead: fewest star particles of a galaxy."),
         click.option("--minimum", type=click.IntRange(1),
                      help="Fewest dark-matter particles of a halo.  [default: all groups]"))
@section("What the files do not say",
         click.option("--length-unit", type=click.Choice(["kpc", "Mpc"]), help="Length unit (comoving, over h)."),
         click.option("--boxsize", type=float, help="Side of the box [Mpc/h]."),
         click.option("--redshift", type=float, help="Redshift of the snapshot, field or catalogue."),
         click.option("--omega-matter", "Om0", type=float, help="Density of matter today."),
         click.option("--hubble", "h", type=float, help="H0 / (100 km/s/Mpc)."),
         click.option("--omega-baryon", "Ob0", type=float,
                      help="Density of baryons today.  [default: Planck 2018]"),
         click.option("--tilt", "ns", type=float,
                      help="Spectral index of the initial density.  [default: Planck 2018]"),
         click.option("--sigma8", "sigma8", type=float,
                      help="Linear fluctuation in 8 Mpc/h spheres.  [default: Planck 2018]"))
@section("Many simulations",
         click.option("--manifest", type=click.Path(), metavar="FILE",
                      help="Table in CSV, a row for each simulation, with these options as columns and the name of its "
                           "file as `output`; OUTPUT is a folder then. What is there and sound is skipped."),
         click.option("--jobs", type=click.IntRange(1), default=1, show_default=True,
                      help="How many of them at a time."),
         DASK)
@click.option("--dry-run", is_flag=True,
              help="Write nothing: say all that is missing or wrong, and how much memory and time it takes.")
@click.option("--overwrite", is_flag=True, help="Replace OUTPUT if it exists.")
@click.pass_context
def convert(context, output, overwrite, dry_run, manifest, jobs, dask, **arguments):
    """Make OUTPUT, a Simulation file, from other people's simulations.

    \b
    Particles:  --initial ics --final snap_099.hdf5 --groups fof_tab_099.hdf5
    A field:    --final snap_099.hdf5 --grid 128 --galaxies fof_tab_099.hdf5
    or:         --initial ics --grid 128
    or:         --density delta.npy --quantity delta --counts galaxies.npy --boxsize 75 ...

    Snapshots are Gadget binary (formats 1 and 2), HDF5 of Gadget, Arepo, Gizmo, IllustrisTNG, EAGLE or SWIFT, folders
    of MP-Gadget, or TIPSY. With --initial and no --grid, particle IDs must number the points of the initial lattice;
    whether from 0 or 1, and in C or Fortran order, is found from the initial conditions.
    """
    from pathlib import Path

    from kerasgal.plotting import progress
    from kerasgal.readers import convert as reader
    from kerasgal.readers import request

    if manifest:
        given = {name: value for name, value in arguments.items() if value is not None}
        convert_many(context.command, manifest, output, given, jobs, dask, overwrite, dry_run)
        return
    for flag, given in (("--dask", dask), ("--jobs", jobs > 1)):
        if given:
            raise click.UsageError(f"{flag} shares the rows of a --manifest: give one")
    if Path(output).is_dir():
        raise click.UsageError(f"OUTPUT {output} is a folder: give a file, or --manifest")
    if dry_run:
        if not plan(context.command, output, arguments, overwrite):
            context.exit(1)
        return
    parts = request.split(arguments)
    request.check(*parts)
    if not arguments["density"]:
        needed = reader.memory_needed(*parts[:2])
        first = arguments["initial"] or arguments["final"]
        click.echo(f"{first}: needs about {needed / 1e9:.2g} GB of memory", err=True)
    with progress("particles") as moved:
        made = reader.write(output, overwrite=overwrite, progress=moved, **arguments)
    for line in lines(made, "particles" if arguments["initial"] and not arguments["grid"] else "cells"):
        click.echo(line)


def plan(command, output, arguments, overwrite):
    """Print what a conversion would take; returns whether nothing stands in its way."""
    from kerasgal.readers import description

    planned = description.plan(output, overwrite=overwrite, **arguments)
    for line in description.plan_lines(planned):
        click.echo(f"{output}: {in_flags(line, command)}")
    return not planned["problems"]


def convert_many(command, manifest, folder, common, jobs, dask, overwrite, dry_run):
    """Convert every row of a table, or say what it would take; raises DataError in the end if some failed."""
    from collections import Counter
    from pathlib import Path

    from kerasgal.cluster import connect
    from kerasgal.readers import manifest as many

    if dask and jobs > 1:
        raise click.UsageError("--dask and --jobs contradict each other: give one of them")
    rows = many.read(manifest, common)
    outcomes = Counter()
    if dry_run:
        for name, arguments in rows:
            path = Path(folder) / name
            if path.exists() and not overwrite:
                click.echo(f"{path}: exists already, and is skipped if it is sound")
                outcomes["skipped"] += 1
            else:
                outcomes["done" if plan(command, path, arguments, overwrite) else "failed"] += 1
    else:
        with connect(dask) as client:
            for output, outcome, words in many.run(rows, folder, jobs=jobs, overwrite=overwrite, client=client):
                outcomes[outcome] += 1
                click.echo(f"{output}: {outcome}: {in_flags(words, command)}", err=outcome == "failed")
        click.echo(f"{folder}: {outcomes['done']} done, {outcomes['skipped']} skipped, {outcomes['failed']} failed")
    if outcomes["failed"]:
        raise DataError(f"{outcomes['failed']} of {len(rows)} rows failed")


def lines(made, what):
    """What a conversion made, in words; made: the summary of `readers.convert.write`."""
    found = [f"{made[name]} {word}" for name, word in (("halos", "haloes"), ("galaxies", "galaxies"))
             if made[name] is not None]
    redshift = f"redshift {made['redshift_initial']:.4g} to {made['redshift_final']:.4g}"
    if made["redshift_initial"] == made["redshift_final"]:
        redshift = f"redshift {made['redshift_final']:.4g}"
    yield (f"{made['path']}: {made['gridsize']}^3 {what} in {', '.join([f'''{made['boxsize']:g} Mpc/h''', *found])}, "
           f"{redshift}; {made['lattice']}")
    if made["assumed"]:
        yield f"assumed, as no file says it: {'; '.join(made['assumed'])}"
