"""The command `kerasgal simulate`."""

from pathlib import Path

import click

from kerasgal.commands.base import DASK, Command, finite, section


def output_paths(output, realisations):
    """One path per realisation: `box.h5`, or `box_0.h5`, `box_1.h5`, ... where there are several."""
    output = Path(output)
    if realisations == 1:
        return [output]
    return [output.with_name(f"{output.stem}_{number}{output.suffix}") for number in range(realisations)]


@click.command(cls=Command, loads="kerasgal.simulations")
@click.argument("output", type=click.Path(dir_okay=False))
@section("Simulation",
         click.option("--particles", type=click.IntRange(8),
                      help="Particles per side of the box.  [default: 64; of a twin, twice the cells of its box]"),
         click.option("--boxsize", type=click.FloatRange(0, 1e6, min_open=True), callback=finite,
                      help="Side of the periodic box in comoving Mpc/h.  [default: 50, or that of a twin's box]"),
         click.option("--seed", type=click.IntRange(0), default=0, show_default=True,
                      help="Seed of the initial conditions; realisation i takes seed + i."),
         click.option("--realisations", type=click.IntRange(1), default=1, show_default=True,
                      help="Number of boxes; several are written as OUTPUT_0, OUTPUT_1, ..."),
         click.option("--steps", type=click.IntRange(2), default=20, show_default=True, help="COLA time steps."),
         click.option("--mesh", type=click.IntRange(1), default=2, show_default=True,
                      help="Cells of the mesh of forces per particle and side. More of them, and of steps, are nearer "
                           "to N-body at a price."))
@section("Twins",
         click.option("--twin-of", type=click.Path(), metavar="BOX",
                      help="Keep the large waves of this box's initial density and draw the small ones anew."),
         click.option("--share", type=click.FloatRange(0, min_open=True), callback=finite,
                      help="Keep waves of less than this wavenumber in h/Mpc.  [default: all of the box's grid]"))
@section("Haloes and galaxies",
         click.option("--finder", type=click.Choice(["fof", "hop"]), default="fof", show_default=True,
                      help="Friends of friends with linking length 0.2, or HOP (needs kerasgal[hop])."),
         click.option("--minimum", type=click.IntRange(2), default=20, show_default=True,
                      help="Fewest particles of a halo."),
         click.option("--galaxies", is_flag=True,
                      help="Paint galaxies into the haloes, by a rule: they are not simulated."))
@section("Cosmology",
         click.option("--omega-matter", "Om0", type=float, help="Density of matter today.  [default: Planck 2018]"),
         click.option("--omega-baryon", "Ob0", type=float, help="Density of baryons today.  [default: Planck 2018]"),
         click.option("--hubble", "h", type=float, help="Hubble constant in 100 km/s/Mpc.  [default: Planck 2018]"),
         click.option("--tilt", "ns", type=float,
                      help="Spectral index of the initial density.  [default: Planck 2018]"),
         click.option("--sigma8", "sigma8", type=float,
                      help="Linear fluctuation in 8 Mpc/h spheres.  [default: Planck 2018]"))
@DASK
@click.option("--overwrite", is_flag=True, help="Replace OUTPUT if it exists.")
def simulate(output, seed, realisations, dask, overwrite, Om0, Ob0, h, ns, sigma8, **options):
    """Run an N-body simulation and write it to OUTPUT, a Simulation file.

    Gaussian initial conditions, second-order Lagrangian displacement, COLA time steps to redshift zero and a halo
    finder. 64^3 particles take seconds.

    The galaxies of --galaxies follow the mass, the environment and the shape of their haloes. To have all of them takes
    a simulation as fine as 128^3 particles in 50 Mpc/h.

    A twin shows how much of the haloes the large waves determine: `kerasgal protohalo evaluate RUN box.h5 --ceiling
    twin.h5` takes its haloes for a prediction of the box's.
    """
    from kerasgal.cluster import connect, each
    from kerasgal.cosmology import Cosmology
    from kerasgal.files import refuse_existing
    from kerasgal.simulation import check_suffix

    given = {"Om0": Om0, "Ob0": Ob0, "h": h, "ns": ns, "sigma8": sigma8}
    given = {name: value for name, value in given.items() if value is not None}
    cosmology = Cosmology(**given) if given else None
    paths = output_paths(output, realisations)
    for path in paths:
        check_suffix(path)
        refuse_existing(path, overwrite)
    tasks = [(path, {"seed": seed + number, "cosmology": cosmology, "overwrite": overwrite, **options})
             for number, path in enumerate(paths)]
    with connect(dask) as client:
        for line in each(simulate_one, tasks, client):
            click.echo(line)


def simulate_one(task):
    """Write one simulation; returns the line that says so. task: (path, options of `simulations.simulate`)."""
    from kerasgal import simulations

    path, options = task
    with simulations.simulate(path, **options) as made:
        galaxies = ""
        if "galaxies/position" in made:
            galaxies = f", {len(made['galaxies/position'])} galaxies (painted, not simulated)"
        particles = len(made["halo_id"])
        return (f"{path}: {particles}^3 particles in {made.boxsize:g} Mpc/h, seed {options['seed']}, "
                f"{len(made['halos/mass'])} haloes{galaxies}")
