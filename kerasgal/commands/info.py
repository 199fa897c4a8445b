"""The command `kerasgal info`."""

import json
from pathlib import Path

import click

from kerasgal.commands.base import Command, in_flags, print_table
from kerasgal.errors import DamagedError, DataError, RunError

OURS = (".h5", ".hdf5")


@click.command(cls=Command, loads="kerasgal.simulation")
@click.argument("paths", nargs=-1, required=True, metavar="FILE...", type=click.Path())
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON, an object for each file.")
def info(paths, as_json):
    """Show what is in each FILE: a Simulation file, an image-set file, a prediction, a run folder, or a foreign file.

    FILE may be the name of a network that `kerasgal models` lists, too.

    Of a snapshot, a catalogue or a field of another code it says what it holds, what it leaves unsaid, and the
    `convert` line to use. Exits with code 1 and names what is missing or inconsistent, if anything is.
    """
    failed = []
    for path in paths:
        try:
            rows, problems = described(path)
        except DataError as error:
            rows, problems = None, [str(error)]
        if rows is not None and as_json:
            click.echo(json.dumps({"file": str(path), **{name: plain(value) for name, value in rows},
                                   "problems": problems}))
        elif rows is not None:
            print_table(path, rows)
        if problems:
            failed.append("; ".join(problems))
    if len(paths) > 1:
        for line in failed:
            click.echo(f"Error: {in_flags(line, click.get_current_context().command)}", err=True)
        failed = [f"{len(failed)} of {len(paths)} files are not sound"] if failed else []
    if failed:
        raise DataError(failed[0])


def plain(value):
    """A value as JSON has it."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    return value if isinstance(value, str | int | float | list | dict | bool | None) else str(value)


def described(path):
    """What a file or folder is, as pairs of a name and a value, and what is wrong with it, a list of sentences."""
    from kerasgal import imageset, simulation
    from kerasgal.files import open_hdf5
    from kerasgal.networks import folder_of, is_name

    path = folder_of(path) if is_name(path) else Path(path)
    if path.is_dir() and ((path / "config.json").exists() or any(path.glob("*/config.json"))):
        return run(path), []
    if path.suffix in OURS and path.is_file():
        with open_hdf5(path) as file:
            made, app = file.attrs.get("format"), file.attrs.get("app")
        if made == imageset.FORMAT:
            return images(path)
        if made == simulation.FORMAT:
            return simulated(path)
        if app:
            return prediction(path), []
    return foreign(path), []


def foreign(path):
    """A file of another make: by the readers of simulations, or those of images."""
    from kerasgal.readers import describe, rows
    from kerasgal.readers import images as readers

    if path.is_dir() and not any(path.iterdir()):
        raise RunError(f"{path} is not a run folder: it is empty")
    if path.is_file() and path.suffix.lower() in IMAGES:
        stream = list(readers.stream([path]))
        sound = [image for image in stream if not image.error]
        if sound:
            first = sound[0]
            return [("kind", "images"), ("images", len(stream)), ("pixels", " x ".join(map(str, first.pixels.shape))),
                    ("pixel scale", "unknown" if first.pixel_scale is None else f"{first.pixel_scale:.4g} arcsec"),
                    ("unit", first.unit or "unknown"),
                    ("use", f"kerasgal morph score RUN {path}")]
    return rows(describe(path))


IMAGES = (".fits", ".fit", ".fz", ".gz", ".bz2", ".png", ".tif", ".tiff")


def images(path):
    """An image-set file."""
    from kerasgal.imageset import ImageSet

    with ImageSet(path) as opened:
        rows = [(name, value) for name, value in opened.file.attrs.items() if name not in ("format", "version")]
        rows.append(("images", f"{len(opened)} of {opened.shape[0]} x {opened.shape[1]} pixels"))
        rows += [(name, span(values)) for name, values in opened.table().items()]
        return rows, named(path, opened.problems())


def span(values):
    """From where to where the numbers of a column go; the type of what are none."""
    import numpy as np

    if values.dtype.kind not in "iuf":
        return values.dtype
    known = values[np.isfinite(values)]
    return f"{known.min():.4g} to {known.max():.4g}" if len(known) else "no number"


def prediction(path):
    """What a run predicted."""
    from kerasgal.files import datasets, open_hdf5

    with open_hdf5(path) as file:
        return [*file.attrs.items(),
                *((name, f"{item.shape} {item.dtype}") for name, item in datasets(file).items())]


def simulated(path):
    """A Simulation file."""
    from kerasgal.simulation import Simulation

    with Simulation(path, require=()) as opened:
        rows = list(opened.file.attrs.items())
        for group in ("cosmology", "parameters"):
            for name, value in (opened.file[group].attrs if group in opened else {}).items():
                rows.append((f"{group} {name}", f"{value:.5g}" if isinstance(value, float) else value))
        rows += [(name, f"{opened[name].shape} {opened[name].dtype}") for name in opened.datasets()]
        if "initial/delta" in opened:
            rows.append(("cells", f"{opened.cellsize:.4g} Mpc/h"))
        if "halos/mass" in opened and len(opened["halos/mass"]):
            mass = opened["halos/mass"]
            rows.append(("halo masses", f"{mass[-1]:.3g} to {mass[0]:.3g} Msun/h"))
        if "galaxies/position" in opened:
            number = len(opened["galaxies/position"])
            rows.append(("galaxies", f"{number}, {number / opened.boxsize**3:.3g} per (Mpc/h)^3"))
        elif "galaxies/count" in opened:
            rows.append(("galaxies", f"{opened['galaxies/count'][...].sum():g}"))
        return rows, named(path, opened.problems())


def named(path, problems):
    """What is wrong, as one sentence under the name of the file; nothing where nothing is."""
    return [f"{path}: {'; '.join(problems)}"] if problems else []


def run(folder):
    """A run folder: configuration, domain, data, and its best and last epoch, of every phase."""
    from kerasgal.run_folder import best_epoch, read_history

    if not (folder / "config.json").exists():
        phases = sorted(path.parent for path in folder.glob("*/config.json"))
        return [(f"{phase.name}: {name}", value) for phase in phases for name, value in run(phase)]
    rows = []
    for name in ("config.json", "domain.json", "provenance.json"):
        if not (folder / name).exists():
            continue
        for key, value in object_of(folder / name).items():
            pairs = value.items() if isinstance(value, dict) else [("", value)]
            if key == "sessions":
                pairs = [(f"{number} {inner}", words(entry)) for number, session in enumerate(value, 1)
                         for inner, entry in session.items()]
            elif name == "domain.json":
                low, *rest = value
                pairs = [("", " or ".join(value) if isinstance(low, str) else
                          f"{low:.5g}" if [low] == rest else f"{low:.5g} to {rest[0]:.5g}")]
                key = f"trained on {key}"
            rows += [(f"{key} {inner}".strip(), entry) for inner, entry in pairs]
    epochs = read_history(folder)
    if epochs:
        best, _ = best_epoch(epochs)
        rows += [(f"best {key}", f"{value:.6g}") for key, value in best.items()]
        rows += [(f"last {key}", f"{value:.6g}") for key, value in epochs[-1].items()]
    return rows


def words(value):
    """A dictionary as text; anything else as it is."""
    return ", ".join(f"{name} {entry}" for name, entry in value.items()) if isinstance(value, dict) else value


def object_of(path):
    """The object in a JSON file; raises DamagedError if there is none."""
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise DamagedError(f"{path} is damaged: {error}") from error
    if not isinstance(found, dict):
        raise DamagedError(f"{path} is damaged: it has no object")
    return found
