"""What finer grids of the particles say of a cell: where in it, or beside it, the densest points are.

A central galaxy stands at the densest point of its halo. Which of two cells that is in, the density in these cells
hardly says; the particles do.
"""

import numpy as np
from scipy.ndimage import gaussian_filter, maximum_filter

from kerasgal.grid import wrap

DIVISIONS = 4  # of a cell along each axis
WIDTHS = (0.5, 1, 2)  # standard deviations of the Gaussians that smooth the finer grid, in its cells
NEIGHBOURHOODS = (3, 5)  # cells a side in whose densest point a cell's is compared
CHANNELS = len(WIDTHS) * (1 + len(NEIGHBOURHOODS))
USUAL = 3.0  # ln(1 + density) where galaxies are
LEAST = 1e-3  # density, where there is nothing
TRUNCATE = 3.0  # standard deviations at which a Gaussian is cut off
MARGIN = 2  # cells beyond a slab that its cells are made of: clouds and Gaussians reach 1 + 2 * 3 of the finer ones
MEMORY = 2**31  # bytes of a slab of the finer grid


def finer(position, gridsize, boxsize):
    """Channels of each cell, (n, n, n, CHANNELS) float32, from particles at `position`, (p, 3) in the unit of boxsize.

    For each of WIDTHS the logarithm of the highest density within the cell, on a grid that is finer by DIVISIONS, by
    cloud-in-cell and smoothed, in units of the mean; and this over the highest of the cells around.
    """
    channels = np.empty((gridsize,) * 3 + (CHANNELS,), np.float32)
    for place, highest in enumerate(highest_within(position, gridsize, boxsize)):
        first = place * (1 + len(NEIGHBOURHOODS))
        channels[..., first] = np.log1p(highest) - USUAL
        for more, side in enumerate(NEIGHBOURHOODS, 1):
            around = maximum_filter(highest, side, mode="wrap")
            channels[..., first + more] = np.log((highest + LEAST) / (around + LEAST))
    return channels


def highest_within(position, gridsize, boxsize, memory=MEMORY):
    """Highest density within each cell, for each of WIDTHS: (WIDTHS, n, n, n) float32. The finer grid is made slab by
    slab, of `memory` bytes at most unless that is too little for one layer of cells."""
    layer = 4 * DIVISIONS**3 * gridsize**2
    thick = min(gridsize, max(1, memory // layer - 2 * MARGIN))
    scaled = wrap(position, boxsize) * np.float32(gridsize / boxsize)
    order = np.argsort(scaled[:, 0])
    scaled = scaled[order]
    mean = len(scaled) / (DIVISIONS * gridsize)**3
    found = np.empty((len(WIDTHS),) + (gridsize,) * 3, np.float32)
    for start in range(0, gridsize, thick):
        stop = min(start + thick, gridsize)
        fine = slab(scaled, gridsize, start - MARGIN, stop + MARGIN) / np.float32(mean)
        for width, highest in zip(WIDTHS, found):
            smooth = gaussian_filter(fine, width, mode=("nearest", "wrap", "wrap"), truncate=TRUNCATE)
            smooth = smooth[DIVISIONS * MARGIN:-DIVISIONS * MARGIN]
            cells = smooth.reshape(stop - start, DIVISIONS, gridsize, DIVISIONS, gridsize, DIVISIONS)
            highest[start:stop] = cells.max(axis=(1, 3, 5))
    return found


def slab(scaled, gridsize, low, high):
    """Particles in each cell of a finer grid from the layer of cells `low` to `high`, which may lie beyond the box.

    scaled: positions in cells, (p, 3) float32, ascending along x. What is at the faces lacks some of its clouds.
    """
    from kerasgal import particle_kernels

    total = np.zeros((DIVISIONS * (high - low), DIVISIONS * gridsize, DIVISIONS * gridsize), np.float32)
    for period in range(low // gridsize * gridsize, high, gridsize):
        first, last = np.searchsorted(scaled[:, 0], [low - period, high - period])
        part = scaled[first:last] + np.array([period - low, 0, 0], np.float32)
        particle_kernels.deposit(part, np.float32(DIVISIONS), np.float32(0.5), np.ones(len(part), np.float32), total)
    return total
