"""The prediction for every cell of a whole box, for networks that see multipoles in shells."""

import numpy as np

from kerasgal.apps.halomass import data
from kerasgal.conditioning import parameter_names, parameters_of
from kerasgal.errors import DataError
from kerasgal.simulation import opened
from kerasgal.tiling import beside

ROWS = 2**16  # cells at a time


def predict_map(network, config, source, progress=None, known=None):
    """Predicted log10 mass [Msun/h] of every Lagrangian cell's halo, (n, n, n) float32, of a Simulation or its path.

    As `dense.predict_map`, for a run of input=multipoles: the numbers of all cells come from one set of transforms.
    All are kept, 4 bytes each. known: parameters that are given, {name: value}, in place of the simulation's own.
    Raises DataError where the shells are wider than the box.
    """
    with opened(source, require=data.required(config)) as simulation:
        network = beside(network, parameters_of(simulation, parameter_names(config), known))
        delta, name = simulation.delta(), simulation.path
    n = len(delta)
    if config.patch > n:
        raise DataError(f"{name}: the cube of {config.patch} cells around a particle is larger than the box of {n}",
                        value=n, accepted=(config.patch, None))
    numbers = data.shell_numbers(delta, config, np.indices(delta.shape).reshape(3, -1))
    y = np.empty(len(numbers), np.float32)
    for first in range(0, len(y), ROWS):
        y[first:first + ROWS] = np.asarray(network.predict_on_batch(numbers[first:first + ROWS]))[:, 0]
        if progress:
            progress(min(first + ROWS, len(y)), len(y))
    return data.Scale(config.low, config.high).to_log_mass(y).astype(np.float32).reshape(delta.shape)
