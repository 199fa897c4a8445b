"""Input and target of meandensity from a Simulation file."""

import numpy as np

from kerasgal.errors import DataError
from kerasgal.grid import density_contrast
from kerasgal.simulation import Simulation


def load(path, patch):
    """Input (n, n, n, 1) and target (n^3, 1) of one Simulation file, both float32.

    The input is the initial density contrast over its standard deviation; the target, for the cube of `patch` cells a
    side whose lowest cell it is, ln of its mean density at the end, in units of the mean. Raises DataError for a file
    without either, or a box smaller than the cube.
    """
    from scipy.ndimage import uniform_filter

    with Simulation(path, require=("initial/delta", "final/position")) as simulation:
        delta, n = simulation.delta(), simulation.gridsize
        final = density_contrast(simulation["final/position"][...], n, simulation.boxsize)
    if patch > n:
        raise DataError(f"{path}: the grid has {n} cells a side, fewer than --patch {patch}")
    # The box is periodic, and so is the mean; the origin moves the window to where its lowest cell is the cell itself.
    mean = uniform_filter(1 + final, patch, mode="wrap", origin=-(patch // 2))
    target = np.log(np.maximum(mean, 1e-3)).reshape(-1, 1)
    return (delta / delta.std())[..., None], target.astype(np.float32)
