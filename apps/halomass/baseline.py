"""What the network has to beat: gradient-boosted trees on the initial density averaged over spheres.

The inputs of Lucie-Smith, Peiris & Pontzen 2019 (arXiv:1906.06339): the density contrast at a particle's Lagrangian
cell, smoothed with top-hats of many radii, evenly spaced in the logarithm up to the sphere of 1e15 Msun. Beside a
network that sees multipoles in shells the trees read the same numbers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from kerasgal import run_folder, trees
from kerasgal.apps.halomass import data, train
from kerasgal.errors import RunError
from kerasgal.grid import top_hats
from kerasgal.plotting import progress, track
from kerasgal.simulation import opened

RADII = 50
LARGEST = 12.5  # Mpc/h, the radius of 1e15 Msun at the mean density
TREES = 500  # at most; fewer where the validation error stops falling


@dataclass(frozen=True)
class Trees:
    """Fitted trees, and the function of a Simulation or its path and particles, (m,), to what they read, (m, numbers).
    """

    model: object
    read: Callable

    def predict(self, source, particles):
        """log10 halo mass [Msun/h] of particles, flat indices (m,), of a Simulation or its path."""
        return self.model.predict(self.read(source, particles))


def sphere_densities(source, particles, radii):
    """Initial density contrast averaged over spheres around particles' Lagrangian cells: (m, radii) float32.

    particles: flat indices (m,); radii: Mpc/h.
    """
    with opened(source) as simulation:
        cells = tuple(data.cells_of(simulation, particles))
        smoothed = top_hats(simulation.delta(), radii / simulation.cellsize)
        return np.stack([field[cells] for field in smoothed], axis=1).astype(np.float32)


def reader(config, source):
    """The function of a Simulation and particles to what trees read beside a run of that config, trained on `source`.
    """
    if config.input == "multipoles":
        return lambda source, particles: data.load(source, config, particles).places
    with opened(source) as simulation:
        smallest = simulation.cellsize * np.cbrt(3 / (4 * np.pi))  # a sphere of one cell's volume
    return partial(sphere_densities, radii=np.geomspace(smallest, LARGEST, RADII))


def boosted(numbers, log_mass, held_out=None, seed=0):
    """Trees fitted to numbers, (m, k), and log10 masses, (m,); a pair `held_out` of both ends the boosting."""
    # Without other simulations there is nothing to stop on: particles of the same haloes would not tell.
    model = trees.regressor(TREES, stops=held_out is not None, seed=seed)
    with progress("fitting boosted trees"):
        return model.fit(numbers, log_mass, **dict(zip(("X_val", "y_val"), held_out or ())))


def fit(run):
    """`Trees` for the particles that a run was trained on; its validation particles end the boosting.

    Raises DataError where scikit-learn is missing, or a simulation of the training.
    """
    trees.regressor(TREES)  # before anything is read
    config = run.config
    try:
        training, validation = run_folder.data_to_read(run.folder)
    except RunError as error:
        raise RunError(f"no boosted trees to compare with: {error}; they are fitted to the particles of a run of your "
                       "own") from None
    read = reader(config, training[0])

    def numbers_and_masses(paths, count, seed):
        samples = train.draw(paths, count, config, seed)
        # What trees read beside a run of multipoles is in the samples already.
        numbers = [sample.places if config.input == "multipoles" else read(path, sample.particles)
                   for path, sample in track(list(zip(paths, samples)), "what trees read")]
        return np.concatenate(numbers), np.concatenate([sample.log_mass for sample in samples])

    held_out = numbers_and_masses(validation, config.validation_samples, config.seed + 1) if validation else None
    return Trees(boosted(*numbers_and_masses(training, config.samples, config.seed), held_out, config.seed), read)
