"""The halo model as the baseline of a run: fitted to simulations, kept in a file, put into another's haloes."""

import dataclasses
import json
from pathlib import Path

import click
import numpy as np

from kerasgal.apps.cascade import hod
from kerasgal.apps.cascade.config import APP
from kerasgal.errors import DataError
from kerasgal.files import replacing
from kerasgal.galaxies import centres
from kerasgal.grid import wrap
from kerasgal.simulation import Simulation
from kerasgal.training import recorded_simulations

NEEDED = ("halos/mass", "halos/position", "halos/radius")


def haloes(simulation):
    """The halo catalogue of a Simulation file, with positions at the densest points where its particles are there.

    There are the galaxies, too: the catalogue's centres of mass would put the halo model's beside them.
    """
    halos = simulation.halos()
    if "halo_id" in simulation and "final/position" in simulation and len(halos["mass"]):
        halos["position"] = wrap(centres(halos, simulation["halo_id"][...].ravel(), simulation["final/position"][...],
                                         simulation.boxsize), simulation.boxsize)
    return halos


def fit(paths):
    """`hod.HOD` fitted to haloes and galaxies of Simulation files; raises DataError for a file without either."""
    samples = []
    for path in paths:
        with Simulation(path, require=(*NEEDED, "galaxies/position")) as simulation:
            samples.append((haloes(simulation), simulation["galaxies/position"][...], simulation.boxsize))
    return hod.fit(samples)


def fit_to_training(folder):
    """The halo model fitted to what the run folder says it was trained on; None, and a word why, where that is gone."""
    training, _ = recorded_simulations(folder)
    try:
        return fit(training)
    except DataError as error:
        click.echo(f"no halo model to compare with: {error}")
        return None


def comparable(model, simulations):
    """`model`, to be put into the haloes of Simulation files; None, and a word why, where one of them has none."""
    for path in simulations if model else ():
        with Simulation(path, require=()) as simulation:
            missing = [name for name in NEEDED if name not in simulation]
        if missing:
            click.echo(f"no halo model to compare with: {path} has no {', '.join(missing)}")
            return None
    return model


def words(model):
    """The parameters as text; masses in Msun/h."""
    return (f"log10 M_min = {model.log_minimum:.3f}, log10 M_1 = {model.log_first:.3f}, alpha = {model.alpha:.3f}")


def write(path, model, simulations):
    """Write the parameters as JSON, with the names of what they were fitted to."""
    with replacing(path) as temporary:
        document = {"app": APP, "hod": dataclasses.asdict(model), "simulations": [str(name) for name in simulations]}
        temporary.write_text(json.dumps(document, indent=2) + "\n")


def read(path):
    """The parameters that `write` wrote; raises DataError for a file that has none."""
    try:
        return hod.HOD(**{name: float(value) for name, value in json.loads(Path(path).read_text())["hod"].items()})
    except FileNotFoundError:
        raise DataError(f"no such file: {path}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DataError(f"{path} is not a halo model written by `kerasgal cascade hod`") from None


def populate(model, path, output, seed):
    """Write galaxies in the haloes of a Simulation file as HDF5, `galaxies/position`; returns how many."""
    import h5py

    with Simulation(path, require=NEEDED) as simulation:
        boxsize = simulation.boxsize
        position = hod.populate(haloes(simulation), model, boxsize, np.random.default_rng(seed))
    with replacing(output) as temporary, h5py.File(temporary, "w") as file:
        file.attrs.update(app=APP, boxsize=boxsize, source=str(path), **dataclasses.asdict(model))
        file["galaxies/position"] = position
    return len(position)
