"""The command `kerasgal info`."""

import json
from pathlib import Path

import click

from kerasgal.commands.base import Command, print_table
from kerasgal.errors import DataError


@click.command(cls=Command)
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
