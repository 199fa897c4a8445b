"""Input and target of meandensity from a Simulation file."""

import numpy as np
from scipy.ndimage import uniform_filter

from kerasgal.grid import density_contrast
from kerasgal.pipeline import check_patch
from kerasgal.simulation import opened


def load(source, patch):
    """Input (n, n, n, 1) and target (n^3, 1) of a Simulation or its path, both float32.

    The input is the initial density contrast over its deviation; the target of a cell is ln of the final mean density
    of the cube of `patch` cells a side whose lowest cell it is.
    """
    with opened(source, require=("initial/delta", "final/position")) as simulation:
        delta, n = simulation.delta(), simulation.gridsize
        final = density_contrast(simulation["final/position"][...], n, simulation.boxsize)
    check_patch(n, patch)
    # The box is periodic, and so is the mean; the origin moves the window to where its lowest cell is the cell itself.
    mean = uniform_filter(1 + final, patch, mode="wrap", origin=-(patch // 2))
    return (delta / delta.std())[..., None], np.log(np.maximum(mean, 1e-3)).reshape(-1, 1).astype(np.float32)
