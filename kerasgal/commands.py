"""The commands that belong to no app: simulate, info and extract."""

from pathlib import Path

import click

from kerasgal.cli import finite
from kerasgal.errors import DataError

BOXES, PARTICLES, BOXSIZE = 5, 64, 50.0  # simulations that are made where a training is given none


def output_paths(output, realisations):
    """One path per realisation: `box.h5`, or `box_0.h5`, `box_1.h5`, ... where there are several."""
    output = Path(output)
    if realisations == 1:
        return [output]
    return [output.with_name(f"{output.stem}_{number}{output.suffix}") for number in range(realisations)]


def make_simulation(output, *, particles, boxsize, seed, steps, finder, minimum, cosmology, overwrite, galaxies=False):
    """Run one N-body simulation, find its haloes, paint galaxies if asked to, and write the Simulation file `output`.

    Returns the numbers of haloes and of galaxies.
    """
    from kerasgal import halos, nbody, simulation
    from kerasgal.cosmology import mean_density
    from kerasgal.files import check_room, refuse_existing
    from kerasgal.plotting import progress_bar

    refuse_existing(output, overwrite)
    check_room(output, 44 * particles**3)  # ten numbers and a halo of four bytes per particle
    particle_mass = mean_density(cosmology) * boxsize**3 / particles**3
    if galaxies:
        warn_of_coarse_haloes(minimum * particle_mass)
    with progress_bar() as progress:
        task = progress.add_task(f"{Path(output).name}: N-body", total=steps)
        run = nbody.simulate(particles, boxsize, cosmology, seed=seed, steps=steps,
                             progress=lambda step, steps: progress.update(task, completed=step))
        progress.update(task, description=f"{Path(output).name}: haloes")
        find = {"fof": halos.friends_of_friends, "hop": halos.hop}[finder]
        halo_id = find(run.position, boxsize, minimum=minimum)
        catalogue = halos.catalogue(halo_id, run.position, boxsize, particle_mass)
        painted = {}
        if galaxies:
            progress.update(task, description=f"{Path(output).name}: galaxies")
            painted = paint_galaxies(catalogue, halo_id, run.position, boxsize, seed)
    grid = (particles,) * 3
    simulation.write(
        output, boxsize=boxsize, cosmology=cosmology, redshift_initial=run.redshift_initial, redshift_final=0.0,
        particle_mass=particle_mass, overwrite=overwrite,
        source=f"kerasgal simulate: 2LPT and COLA, {steps} steps, seed {seed}, {finder} haloes of at least {minimum}"
               + ("; galaxies painted into them, not simulated" if galaxies else ""),
        datasets={"initial/delta": run.delta, "initial/displacement": run.displacement,
                  "final/position": run.position, "final/velocity": run.velocity, "halo_id": halo_id.reshape(grid),
                  **{f"halos/{name}": values for name, values in catalogue.items()},
                  **{f"galaxies/{name}": values for name, values in painted.items()}})
    return len(catalogue["mass"]), len(painted.get("position", ()))


def warn_of_coarse_haloes(smallest):
    """Say so if the smallest haloes [Msun/h] of a simulation are too large to have all of the painted galaxies."""
    from kerasgal.galaxies import GalaxyModel

    lightest = 10 ** (GalaxyModel.log_minimum - GalaxyModel.scatter)
    if smallest > lightest:
        click.echo(f"warning: galaxies are painted into haloes from {lightest:.2g} Msun/h on, but the smallest haloes "
                   f"here will have {smallest:.2g} Msun/h: the galaxies of smaller ones will be missing", err=True)


def paint_galaxies(catalogue, halo_id, position, boxsize, seed):
    """The galaxies of `kerasgal.galaxies.paint` at redshift 0, the same for the same seed of a simulation."""
    import numpy as np

    from kerasgal.galaxies import GalaxyModel, paint

    # A stream of random numbers beside that of the initial conditions, which has the seed itself
    rng = np.random.default_rng(np.random.SeedSequence(seed).spawn(1)[0])
    return paint(catalogue, halo_id, position, boxsize, 0.0, rng, GalaxyModel())


def own_simulations(folder, seed, particles=None, galaxies=False):
    """Make Simulation files in `folder` for a training that was given none; returns their paths.

    particles: per side, PARTICLES if not given; galaxies: whether to paint them. Both show in the names.
    """
    from kerasgal.cosmology import Cosmology

    particles = particles or PARTICLES
    kind = ("" if particles == PARTICLES else f"_{particles}") + ("_galaxies" if galaxies else "")
    seeds = range(seed, seed + BOXES)
    paths = [folder / f"box_seed{number}{kind}.h5" for number in seeds]
    click.echo(f"no simulation given: making {BOXES} of {particles}^3 particles in {BOXSIZE:g} Mpc/h"
               f"{' with painted galaxies' if galaxies else ''} in {folder}, where they are not there yet")
    for number, path in zip(seeds, paths):
        if not path.exists():
            make_simulation(path, particles=particles, boxsize=BOXSIZE, seed=number, steps=20, finder="fof", minimum=20,
                            cosmology=Cosmology(), overwrite=False, galaxies=galaxies)
    return paths


@click.command()
@click.argument("output", type=click.Path(dir_okay=False))
@click.option("--particles", type=click.IntRange(8), default=64, show_default=True,
              help="Particles per side of the box.")
@click.option("--boxsize", type=click.FloatRange(0, 1e6, min_open=True), default=50.0, show_default=True,
              callback=finite, help="Side of the periodic box in comoving Mpc/h.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True,
              help="Seed of the initial conditions; realisation i takes seed + i.")
@click.option("--realisations", type=click.IntRange(1), default=1, show_default=True,
              help="Number of boxes; several are written as OUTPUT_0, OUTPUT_1, ...")
@click.option("--steps", type=click.IntRange(2), default=20, show_default=True, help="COLA time steps.")
@click.option("--finder", type=click.Choice(["fof", "hop"]), default="fof", show_default=True,
              help="Friends of friends with linking length 0.2, or HOP (needs kerasgal[hop]).")
@click.option("--minimum", type=click.IntRange(2), default=20, show_default=True,
              help="Fewest particles of a halo.")
@click.option("--galaxies", is_flag=True,
              help="Paint galaxies into the haloes, by a rule: they are not simulated.")
@click.option("--omega-matter", "Om0", type=float, help="Density of matter today.  [default: Planck 2018]")
@click.option("--omega-baryon", "Ob0", type=float, help="Density of baryons today.  [default: Planck 2018]")
@click.option("--hubble", "h", type=float, help="Hubble constant in 100 km/s/Mpc.  [default: Planck 2018]")
@click.option("--tilt", "ns", type=float, help="Spectral index of the initial density.  [default: Planck 2018]")
@click.option("--sigma8", "sigma8", type=float, help="Linear fluctuation in 8 Mpc/h spheres.  [default: Planck 2018]")
@click.option("--overwrite", is_flag=True, help="Replace OUTPUT if it exists.")
def simulate(output, particles, boxsize, seed, realisations, steps, finder, minimum, galaxies, overwrite, **cosmology):
    """Run an N-body simulation and write it to OUTPUT, a Simulation file.

    Gaussian initial conditions, second-order Lagrangian displacement, COLA time steps to redshift zero and a halo
    finder. 64^3 particles take seconds.

    The galaxies of --galaxies follow the mass, the environment and the shape of their haloes. To have all of them takes
    a simulation as fine as 128^3 particles in 50 Mpc/h.
    """
    from kerasgal.cosmology import Cosmology
    from kerasgal.files import refuse_existing

    try:
        cosmology = Cosmology(**{name: value for name, value in cosmology.items() if value is not None})
    except DataError as error:
        raise click.UsageError(str(error)) from error
    paths = output_paths(output, realisations)
    for path in paths:
        refuse_existing(path, overwrite)
    for number, path in enumerate(paths):
        haloes, painted = make_simulation(path, particles=particles, boxsize=boxsize, seed=seed + number, steps=steps,
                                          finder=finder, minimum=minimum, cosmology=cosmology, overwrite=overwrite,
                                          galaxies=galaxies)
        click.echo(f"{path}: {particles}^3 particles in {boxsize:g} Mpc/h, seed {seed + number}, {haloes} haloes"
                   + (f", {painted} galaxies (painted, not simulated)" if galaxies else ""))


@click.command()
@click.argument("path", metavar="FILE", type=click.Path())
def info(path):
    """Show what is in FILE: a Simulation file, an image-set file, a prediction, or a run folder.

    Exits with code 1 and names what is missing or inconsistent, if anything is.
    """
    from kerasgal import imageset
    from kerasgal.files import open_hdf5

    if Path(path).is_dir():
        show_run(Path(path))
        return
    with open_hdf5(path) as file:
        made, app = file.attrs.get("format"), file.attrs.get("app")
    if made == imageset.FORMAT:
        show_images(path)
    elif app:
        show_prediction(path)
    else:
        show_simulation(path)


def print_table(path, rows):
    """Print pairs of a name and a value as a table, under the path that they belong to."""
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "value", title=str(path), title_justify="left")
    for name, value in rows:
        table.add_row(name, str(value))
    Console().print(table)


def show_images(path):
    """Print an image-set file as a table, then raise DataError if it is not sound."""
    from kerasgal.imageset import ImageSet

    with ImageSet(path) as images:
        rows = [("source", images.source),
                ("images", f"{len(images)} of {images.shape[0]} x {images.shape[1]} pixels")]
        for name, values in images.table().items():
            span = f"{values.min():.4g} to {values.max():.4g}" if values.dtype.kind in "iuf" else values.dtype
            rows.append((name, span))
        print_table(path, rows)
        images.validate()


def show_prediction(path):
    """Print what a prediction holds as a table."""
    from kerasgal.files import datasets, open_hdf5

    with open_hdf5(path) as file:
        print_table(path, [*file.attrs.items(),
                           *((name, f"{item.shape} {item.dtype}") for name, item in datasets(file).items())])


def show_simulation(path):
    """Print a Simulation file as a table, then raise DataError if it is not sound."""
    from kerasgal.simulation import Simulation

    with Simulation(path, require=()) as simulation:
        rows = list(simulation.file.attrs.items())
        for group in ("cosmology", "parameters"):
            for name, value in (simulation.file[group].attrs if group in simulation else {}).items():
                rows.append((f"{group} {name}", f"{value:.5g}" if isinstance(value, float) else value))
        rows += [(name, f"{simulation[name].shape} {simulation[name].dtype}") for name in simulation.datasets()]
        if "halos/mass" in simulation and len(simulation["halos/mass"]):
            mass = simulation["halos/mass"]
            rows.append(("halo masses", f"{mass[-1]:.3g} to {mass[0]:.3g} Msun/h"))
        if "galaxies/position" in simulation:
            number = len(simulation["galaxies/position"])
            rows.append(("galaxies", f"{number}, {number / simulation.boxsize**3:.3g} per (Mpc/h)^3"))
        elif "galaxies/count" in simulation:
            rows.append(("galaxies", f"{simulation['galaxies/count'][...].sum():g}"))
        print_table(path, rows)
        simulation.validate()


def json_of(path):
    """The object in a JSON file; raises DataError if there is none."""
    import json

    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise DataError(f"{path} is damaged: {error}") from error
    if not isinstance(found, dict):
        raise DataError(f"{path} is damaged: it has no object")
    return found


def show_run(folder):
    """Print a run folder's configuration, provenance and last epoch as a table, one for each of several phases."""
    import csv

    if not (folder / "config.json").exists():
        phases = sorted(path.parent for path in folder.glob("*/config.json"))
        if not phases:
            raise DataError(f"{folder} is not a run folder: it has no config.json")
        for phase in phases:
            show_run(phase)
        return
    rows = []
    for name in ("config.json", "provenance.json"):
        if (folder / name).exists():
            for key, value in json_of(folder / name).items():
                pairs = value.items() if isinstance(value, dict) else [("", value)]
                rows += [(f"{key} {inner}".strip(), entry) for inner, entry in pairs]
    if (folder / "history.csv").exists():
        with (folder / "history.csv").open(newline="") as file:
            epochs = list(csv.DictReader(file))
        rows += [(f"last {key}", value) for key, value in epochs[-1].items()] if epochs else []
    print_table(folder, rows)


@click.command()
@click.argument("path", metavar="FILE", type=click.Path())
@click.argument("name", metavar="NAME")
@click.argument("output", type=click.Path(dir_okay=False))
@click.option("--overwrite", is_flag=True, help="Replace OUTPUT if it exists.")
def extract(path, name, output, overwrite):
    """Write what is called NAME in FILE, an HDF5 file, to OUTPUT: a field as .npy, a catalogue as .ecsv or .fits.

    \b
    kerasgal extract box.h5 final/delta delta.npy
    kerasgal extract box.h5 halos halos.fits

    FILE is a Simulation file, a prediction or anything else in HDF5; `kerasgal info` lists what is in the first two.
    """
    from kerasgal.extract import extract

    click.echo(f"{output}: {extract(path, name, output, overwrite)}")
