"""The halo model as the baseline of a run: fitted to simulations, kept in a file, put into another's haloes."""

import dataclasses
import json
import logging
from pathlib import Path

import numpy as np

from kerasgal import run_folder
from kerasgal.apps.cascade import hod
from kerasgal.apps.cascade.config import APP
from kerasgal.errors import DataError, MissingError
from kerasgal.files import refuse_existing, replacing
from kerasgal.galaxies import centres
from kerasgal.grid import wrap
from kerasgal.run import display_name
from kerasgal.simulation import check_suffix, opened

NEEDED = ("halos/mass", "halos/position", "halos/radius")

log = logging.getLogger(__name__)


def haloes(simulation):
    """The halo catalogue of a Simulation, with positions at the densest points where its particles are there.

    There are the galaxies, too: the catalogue's centres of mass would put the halo model's beside them.
    """
    halos = simulation.halos()
    if "halo_id" in simulation and "final/position" in simulation and len(halos["mass"]):
        halos["position"] = wrap(centres(halos, simulation["halo_id"][...].ravel(), simulation["final/position"][...],
                                         simulation.boxsize), simulation.boxsize)
    return halos


def fit(sources):
    """`hod.HOD` fitted to haloes and galaxies of Simulations or their paths; raises DataError without either."""
    samples = []
    for source in sources:
        with opened(source, (*NEEDED, "galaxies/position")) as simulation:
            samples.append((haloes(simulation), simulation["galaxies/position"][...], simulation.boxsize))
    return hod.fit(samples)


def chosen(given, folder, sources):
    """The halo model that a run is held against in the haloes of `sources`, or None, with a warning that says why.

    given: an `hod.HOD`, the path of a file that `write` wrote, or None, which fits one to what the run in `folder` was
    trained on.
    """
    if isinstance(given, hod.HOD):
        model = given
    else:
        model = read(given) if given is not None else fit_to_training(folder)
    model = comparable(model, sources)
    if model:
        log.info(f"halo model: {words(model)}")
    return model


def fit_to_training(folder):
    """The halo model fitted to what a run folder was trained on; None, with a warning, where that is gone."""
    try:
        return fit(run_folder.recorded_data(folder)[0])
    except DataError as error:
        log.warning(f"no halo model to compare with: {error}")
        return None


def comparable(model, sources):
    """`model`, to be put into the haloes of Simulations; None, with a warning, where one of them has none."""
    for source in sources if model else ():
        with opened(source, ()) as simulation:
            missing = [name for name in NEEDED if name not in simulation]
        if missing:
            log.warning(f"no halo model to compare with: {display_name(source)} has no {', '.join(missing)}")
            return None
    return model


def words(model):
    """The parameters as text; masses in Msun/h."""
    return (f"log10 M_min = {model.log_minimum:.3f}, log10 M_1 = {model.log_first:.3f}, alpha = {model.alpha:.3f}")


def write(path, model, sources, overwrite=False):
    """Write the parameters as JSON, with the names of what they were fitted to."""
    with replacing(path, overwrite) as temporary:
        document = {"app": APP, "hod": dataclasses.asdict(model),
                    "simulations": [display_name(source) for source in sources]}
        temporary.write_text(json.dumps(document, indent=2) + "\n")


def read(path):
    """The parameters that `write` wrote; raises DataError for a file that has none."""
    try:
        return hod.HOD(**{name: float(value) for name, value in json.loads(Path(path).read_text())["hod"].items()})
    except FileNotFoundError:
        raise MissingError(f"no such file: {path}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DataError(f"{path} is not a halo model written by `kerasgal cascade hod`") from None


def populate(model, source, output, seed=0, overwrite=False):
    """Write galaxies in the haloes of a Simulation as HDF5, `galaxies/position` [Mpc/h]; returns how many."""
    import h5py

    with opened(source, NEEDED) as simulation:
        boxsize = simulation.boxsize
        position = hod.populate(haloes(simulation), model, boxsize, np.random.default_rng(seed))
    with replacing(output, overwrite) as temporary, h5py.File(temporary, "w") as file:
        file.attrs.update(app=APP, boxsize=boxsize, source=display_name(source), **dataclasses.asdict(model))
        file["galaxies/position"] = position
    return len(position)


def make(sources, output="hod.json", *, target=None, catalogue=None, seed=0, overwrite=False):
    """Fit the halo model to Simulations and write it; with a target, a Simulation, also galaxies in its haloes.

    catalogue: file for these, by default the target's name with _hod.h5, in the current folder. Raises DataError if a
    file exists (without `overwrite`) or there is nothing to fit to. Returns the model.
    """
    refuse_existing(output, overwrite)
    if target is not None:
        catalogue = check_suffix(catalogue or f"{Path(display_name(target)).stem}_hod.h5")
        refuse_existing(catalogue, overwrite)
    model = fit(sources)
    write(output, model, sources, overwrite)
    log.info(f"{output}: {words(model)}")
    if target is not None:
        number = populate(model, target, catalogue, seed, overwrite)
        log.info(f"{catalogue}: {number} galaxies in the haloes of {display_name(target)}")
    return model
