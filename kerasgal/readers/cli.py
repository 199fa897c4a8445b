"""The command `kerasgal convert`."""

import click


@click.command()
@click.argument("output", type=click.Path(dir_okay=False))
@click.option("--initial", required=True, type=click.Path(), metavar="FILE",
              help="Initial conditions, Gadget-1 binary or HDF5; of several files any, or their name without "
                   "the number.")
@click.option("--final", type=click.Path(), metavar="FILE",
              help="Snapshot of the same particles at the final time, likewise.")
@click.option("--groups", type=click.Path(), metavar="FILE",
              help="FoF/SUBFIND group file in HDF5 of the final snapshot, by which its particles are sorted.")
@click.option("--length-unit", type=click.Choice(["kpc", "Mpc"]),
              help="Length unit (comoving, over h) of files that do not say it themselves.")
@click.option("--minimum", type=click.IntRange(1),
              help="Fewest dark-matter particles of a halo.  [default: all groups]")
@click.option("--omega-baryon", "Ob0", type=float,
              help="Density of baryons today, to be recorded.  [default: the files', else Planck 2018]")
@click.option("--tilt", "ns", type=float,
              help="Spectral index of the initial density, to be recorded.  [default: Planck 2018]")
@click.option("--sigma8", "sigma8", type=float,
              help="Linear fluctuation in 8 Mpc/h spheres, to be recorded.  [default: Planck 2018]")
@click.option("--overwrite", is_flag=True, help="Replace OUTPUT if it exists.")
def convert(output, initial, **arguments):
    """Make OUTPUT, a Simulation file, from Gadget, Arepo or IllustrisTNG snapshots and their FoF groups.

    Particle IDs must number the points of the initial lattice; whether from 0 or 1, and in C or Fortran
    order, is found from the initial conditions.
    """
    from kerasgal.plotting import progress_bar
    from kerasgal.readers import convert as reader

    click.echo(f"{initial}: needs about {reader.memory_needed(initial) / 1e9:.2g} GB of memory", err=True)
    with progress_bar() as bar:
        task = bar.add_task("particles", total=None)
        made = reader.convert(output, initial=initial, **arguments,
                              progress=lambda done, total: bar.update(task, completed=done, total=total))
    halos = "" if made["halos"] is None else f", {made['halos']} haloes"
    click.echo(f"{made['path']}: {made['gridsize']}^3 particles in {made['boxsize']:g} Mpc/h{halos}, "
               f"redshift {made['redshift_initial']:.4g} to {made['redshift_final']:.4g}; {made['lattice']}")
    if made["assumed"]:
        click.echo(f"assumed, as no file says it: {'; '.join(made['assumed'])}")
