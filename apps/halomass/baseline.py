"""What the network has to beat: gradient-boosted trees on the initial density averaged over spheres.

The inputs of Lucie-Smith, Peiris & Pontzen 2019 (arXiv:1906.06339): the density contrast at a particle's Lagrangian
cell, smoothed with top-hats of many radii, evenly spaced in the logarithm up to the sphere of 1e15 Msun.
"""

from dataclasses import dataclass

import numpy as np

from kerasgal import run_folder, trees
from kerasgal.apps.halomass import data, train
from kerasgal.errors import RunError
from kerasgal.grid import top_hats
from kerasgal.simulation import opened

RADII = 50
LARGEST = 12.5  # Mpc/h, the radius of 1e15 Msun at the mean density
TREES = 500  # at most; fewer where the validation error stops falling


@dataclass(frozen=True)
class Trees:
    """Fitted trees and the radii of the spheres [Mpc/h] whose densities they read."""

    model: object
    radii: np.ndarray

    def predict(self, source, particles):
        """log10 halo mass [Msun/h] of particles, flat indices (m,), of a Simulation or its path."""
        return self.model.predict(sphere_densities(source, particles, self.radii))


def sphere_densities(source, particles, radii):
    """Initial density contrast averaged over spheres around particles' Lagrangian cells: (m, radii) float32.

    particles: flat indices (m,); radii: Mpc/h.
    """
    with opened(source) as simulation:
        cells = tuple(data.cells_of(simulation, particles))
        smoothed = top_hats(simulation.delta(), radii / simulation.cellsize)
        return np.stack([field[cells] for field in smoothed], axis=1).astype(np.float32)


def fit(run):
    """`Trees` for the particles that a run was trained on; its validation particles end the boosting.

    Raises DataError where scikit-learn is missing, or a simulation of the training.
    """
    config = run.config
    training, validation = run_folder.recorded_data(run.folder) if run.folder is not None else ((), ())
    # Without other simulations there is nothing to stop on: particles of the same haloes would not tell.
    model = trees.regressor(TREES, stops=bool(validation), seed=config.seed)
    if not training:
        raise RunError(f"{run.folder or 'this run'} does not say which simulations it was trained on: there is nothing "
                       "to fit the baseline to")
    with opened(training[0]) as simulation:
        smallest = simulation.cellsize * np.cbrt(3 / (4 * np.pi))  # a sphere of one cell's volume
    radii = np.geomspace(smallest, LARGEST, RADII)

    def densities_and_masses(paths, count, seed):
        samples = train.draw(paths, count, config, seed)
        densities = [sphere_densities(path, sample.particles, radii) for path, sample in zip(paths, samples)]
        return np.concatenate(densities), np.concatenate([sample.log_mass for sample in samples])

    held_out = {}
    if validation:
        held_out["X_val"], held_out["y_val"] = densities_and_masses(validation, config.validation_samples,
                                                                    config.seed + 1)
    return Trees(model.fit(*densities_and_masses(training, config.samples, config.seed), **held_out), radii)
