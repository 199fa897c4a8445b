"""The command `kerasgal convert`."""

import click

SECTIONS = {
    "What to read": ("initial", "final", "density", "groups", "galaxies", "counts", "parameter_table"),
    "What to take from it": ("grid", "window", "particles", "quantity", "index", "stellar_mass", "minimum_stars",
                             "minimum"),
    "What the files do not say": ("length_unit", "boxsize", "redshift", "Om0", "h", "Ob0", "ns", "sigma8"),
}


class Sectioned(click.Command):
    """A command whose options stand in the help under the headings of SECTIONS."""

    def format_options(self, context, formatter):
        options = {option.name: option.get_help_record(context) for option in self.get_params(context)
                   if isinstance(option, click.Option)}
        for heading, names in SECTIONS.items():
            with formatter.section(heading):
                formatter.write_dl([options.pop(name) for name in names])
        with formatter.section("Options"):
            formatter.write_dl([record for record in options.values() if record])


@click.command(cls=Sectioned)
@click.argument("output", type=click.Path(dir_okay=False))
@click.option("--initial", type=click.Path(), metavar="FILE", help="Initial conditions.")
@click.option("--final", type=click.Path(), metavar="FILE",
              help="Snapshot at the final time: of the same particles as --initial, or alone, with --grid. Of several "
                   "files any, or their name without the number.")
@click.option("--density", metavar="FILE[:NAME]",
              help="Density field (n, n, n): .npy, HDF5 (dataset NAME) or FITS (extension NAME).")
@click.option("--groups", type=click.Path(), metavar="FILE",
              help="Haloes of the final snapshot: FoF/SUBFIND or CAESAR in HDF5, Rockstar, HOP, or a table of particle "
                   "ID and halo ID.")
@click.option("--galaxies", type=click.Path(), metavar="FILE",
              help="Galaxies: a SUBFIND or CAESAR catalogue, of the same run or of its hydrodynamic twin.")
@click.option("--counts", metavar="FILE[:NAME]", help="Galaxies in each cell of the same grid, as --density.")
@click.option("--parameter-table", type=click.Path(), metavar="FILE",
              help="CAMELS table of parameters, a row for each simulation.")
@click.option("--grid", type=click.IntRange(2),
              help="Cells a side of the field made of --final, or of --initial, alone.")
@click.option("--window", type=click.Choice(["ngp", "cic", "tsc"]), default="cic", show_default=True,
              help="How particles are put on that grid.")
@click.option("--particles", type=click.Choice(["dark", "gas", "stars", "all"]), default="dark", show_default=True,
              help="Which particles are put on that grid.")
@click.option("--quantity", type=click.Choice(["rho", "1+delta", "delta"]),
              help="What the field of --density is; rho in any unit.")
@click.option("--index", type=click.IntRange(0), help="Simulation in files of several, and row of --parameter-table.")
@click.option("--stellar-mass", type=click.FloatRange(0), metavar="MASS",
              help="Least mass in stars of a galaxy [Msun/h].  [default: 2e8]")
@click.option("--minimum-stars", type=click.IntRange(1), help="Instead: fewest star particles of a galaxy.")
@click.option("--minimum", type=click.IntRange(1),
              help="Fewest dark-matter particles of a halo.  [default: all groups]")
@click.option("--length-unit", type=click.Choice(["kpc", "Mpc"]), help="Length unit (comoving, over h).")
@click.option("--boxsize", type=float, help="Side of the box [Mpc/h].")
@click.option("--redshift", type=float, help="Redshift of the snapshot, field or catalogue.")
@click.option("--omega-matter", "Om0", type=float, help="Density of matter today.")
@click.option("--hubble", "h", type=float, help="H0 / (100 km/s/Mpc).")
@click.option("--omega-baryon", "Ob0", type=float, help="Density of baryons today.  [default: Planck 2018]")
@click.option("--tilt", "ns", type=float, help="Spectral index of the initial density.  [default: Planck 2018]")
@click.option("--sigma8", "sigma8", type=float, help="Linear fluctuation in 8 Mpc/h spheres.  [default: Planck 2018]")
@click.option("--overwrite", is_flag=True, help="Replace OUTPUT if it exists.")
def convert(output, initial, **arguments):
    """Make OUTPUT, a Simulation file, from other people's simulations.

    \b
    Particles:  --initial ics --final snap_099.hdf5 --groups fof_tab_099.hdf5
    A field:    --final snap_099.hdf5 --grid 128 --galaxies fof_tab_099.hdf5
    or:         --initial ics --grid 128
    or:         --density delta.npy --quantity delta --counts galaxies.npy --boxsize 75 ...

    Snapshots are Gadget-1 binary, HDF5 of Gadget, Arepo, Gizmo or IllustrisTNG, or TIPSY. With --initial and no --grid,
    particle IDs must number the points of the initial lattice; whether from 0 or 1, and in C or Fortran order, is found
    from the initial conditions.
    """
    _check(initial, **arguments)
    from kerasgal.plotting import progress_bar
    from kerasgal.readers import convert as reader

    if not arguments["density"]:
        needed = reader.memory_needed(initial, arguments["grid"], arguments["groups"], arguments["galaxies"])
        click.echo(f"{initial or arguments['final']}: needs about {needed / 1e9:.2g} GB of memory", err=True)
    with progress_bar() as bar:
        task = bar.add_task("particles", total=None)
        made = reader.convert(output, initial=initial, **arguments,
                              progress=lambda done, total: bar.update(task, completed=done, total=total))
    found = [f"{made[name]} {word}" for name, word in (("halos", "haloes"), ("galaxies", "galaxies"))
             if made[name] is not None]
    redshift = f"redshift {made['redshift_initial']:.4g} to {made['redshift_final']:.4g}"
    if made["redshift_initial"] == made["redshift_final"]:
        redshift = f"redshift {made['redshift_final']:.4g}"
    what = "particles" if initial and not arguments["grid"] else "cells"
    click.echo(f"{made['path']}: {made['gridsize']}^3 {what} in "
               f"{', '.join([f'''{made['boxsize']:g} Mpc/h''', *found])}, {redshift}; {made['lattice']}")
    if made["assumed"]:
        click.echo(f"assumed, as no file says it: {'; '.join(made['assumed'])}")


def _check(initial, final, density, counts, grid, quantity, index, galaxies, groups, parameter_table, stellar_mass,
           minimum_stars, particles, **others):
    """Raise UsageError for options that contradict or need each other."""
    if not (initial or final or density):
        raise click.UsageError("nothing to convert: give --initial, --final or --density")
    if density and (initial or final):
        raise click.UsageError("--density is a field of its own: leave --initial and --final out")
    field = density or not initial
    if final and not initial and not grid:
        raise click.UsageError("--final without --initial goes on a grid: give --grid, in cells a side")
    if grid and (initial and final or density):
        raise click.UsageError("--grid is for --final or --initial alone: with both, particles stay particles, and the "
                               "field of --density has a grid of its own")
    if particles != "dark" and not grid:
        raise click.UsageError("--particles goes with --grid")
    if density and not quantity:
        raise click.UsageError("--density needs --quantity: rho, 1+delta or delta")
    if quantity and not density:
        raise click.UsageError("--quantity is what the field of --density is: give --density")
    if counts and not field:
        raise click.UsageError("--counts goes with a field: --density, or --final without --initial")
    if counts and galaxies:
        raise click.UsageError("--counts and --galaxies are two ways to say the same: give one")
    if groups and not (final or density):
        raise click.UsageError("a group catalogue (--groups) needs the snapshot that it belongs to (--final)")
    if galaxies and not (final or density):
        raise click.UsageError("a catalogue of galaxies (--galaxies) needs the snapshot that it belongs to (--final)")
    if not galaxies and (stellar_mass is not None or minimum_stars is not None):
        raise click.UsageError("--stellar-mass and --minimum-stars choose --galaxies: give a catalogue")
    if stellar_mass is not None and minimum_stars is not None:
        raise click.UsageError("--stellar-mass and --minimum-stars are two ways to choose galaxies: give one")
    if parameter_table and index is None:
        raise click.UsageError("--parameter-table needs --index, the row of the simulation")
