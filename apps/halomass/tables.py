"""Which particles to predict, and the files that predictions are written to."""

import numpy as np

from kerasgal.apps.halomass import data
from kerasgal.apps.halomass.distribution import mass_quantiles
from kerasgal.errors import DataError
from kerasgal.files import replacing, write_table
from kerasgal.simulation import Simulation

SUFFIXES = (".h5", ".ecsv", ".fits")
QUANTILES = {"log_mass_p025": 0.025, "log_mass_p16": 0.16, "log_mass_p50": 0.5, "log_mass_p84": 0.84,
             "log_mass_p975": 0.975}


def choose(run, path, numbers=None, sample=None, seed=0):
    """Flat indices of the particles to predict, (m,): from a text file, a random sample, or all in haloes.

    Sample and haloes are of the run's range of masses. Raises DataError for a file without particle numbers, a particle
    outside the simulation, or a simulation without particles in that range.
    """
    if numbers:
        chosen = read_numbers(numbers)
        with Simulation(path) as simulation:
            data.check_particles(simulation, chosen)
        return chosen
    with Simulation(path, require=("initial/delta", "halo_id", "halos/mass")) as simulation:
        if sample:
            return data.sample_particles(simulation, sample, run.config.low, run.config.high, seed)[0]
        return data.halo_particles(simulation, run.config.low, run.config.high)


def read_numbers(path):
    """Integers of a text file, one per line, (m,); raises DataError where it holds anything else, or nothing."""
    try:
        with open(path) as file:
            numbers = [int(line) for line in file if line.strip()]
    except FileNotFoundError:
        raise DataError(f"no such file: {path}") from None
    except ValueError as error:
        raise DataError(f"{path} must have one particle number per line: {error}") from None
    if not numbers:
        raise DataError(f"{path} has no particle number")
    return np.array(numbers)


def write(path, run, found, folder, simulation, overwrite=False):
    """Write the result of `predict_particles` as a table, one row per particle, by the suffix .h5, .ecsv or .fits.

    Columns: particle; log_mass_true (NaN outside haloes); log_mass, the prediction; log_mass_p16 and the like,
    quantiles of its distribution; all masses log10 Msun/h. HDF5 has a dataset per column. The header has the
    likelihood, its scales and where all came from.
    """
    scales = np.atleast_1d(found["gamma"])
    quantiles = mass_quantiles(run, found["y"], found["gamma"], list(QUANTILES.values()))
    columns = {name: found[name] for name in ("particle", "log_mass_true", "log_mass")}
    columns.update(zip(QUANTILES, quantiles.T))
    header = {"app": "halomass", "run": str(folder), "source": str(simulation), "unit": "log10 Msun/h",
              "like": run.config.likelihood, **{f"scale{i}": float(value) for i, value in enumerate(scales)},
              "low": run.config.low, "high": run.config.high}
    if path.suffix != ".h5":
        write_table(path, columns, header, overwrite)
        return
    import h5py

    with replacing(path, overwrite) as temporary, h5py.File(temporary, "w") as file:
        file.attrs.update(header)
        for name, values in columns.items():
            file[name] = values


def write_map(path, log_mass, folder, simulation, overwrite=False):
    """Write the map of predicted log10 mass, (n, n, n), as the HDF5 dataset `log_mass`."""
    import h5py

    with replacing(path, overwrite) as temporary, h5py.File(temporary, "w") as file:
        file.attrs.update(app="halomass", run=str(folder), source=str(simulation), unit="log10 Msun/h")
        file["log_mass"] = log_mass
