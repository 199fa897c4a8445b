"""What finer grids of the particles say of a cell: where in it, or beside it, the densest points are.

A central galaxy stands at the densest point of its halo. Which of two cells that is in, the density in these cells
hardly says; the particles do.
"""

import functools
import math

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
MEMORY = 2**31  # bytes of a slab of the finer grid


def finer(position, gridsize, boxsize, divisions=DIVISIONS, widths=WIDTHS):
    """Channels of each cell, (n, n, n, channels) float32, from particles at `position`, (p, 3) in the unit of boxsize.

    For each of `widths` the logarithm of the highest density within the cell, on a grid that is finer by `divisions`,
    by cloud-in-cell and smoothed, in units of the mean; and this over the highest of the cells around. By default
    CHANNELS of them.
    """
    channels = []
    for highest in highest_within(position, gridsize, boxsize, divisions, widths):
        channels.append(np.log1p(highest) - USUAL)
        for side in NEIGHBOURHOODS:
            around = maximum_filter(highest, side, mode="wrap")
            channels.append(np.log((highest + LEAST) / (around + LEAST)))
    return np.stack(channels, axis=-1)


def highest_within(position, gridsize, boxsize, divisions=DIVISIONS, widths=WIDTHS, memory=MEMORY):
    """Highest density within each cell, for each of `widths`: (widths, n, n, n) float32.

    The finer grid is made slab by slab, of `memory` bytes at most unless that is too little for one layer of cells; a
    smoothed copy of it takes as much again.
    """
    margin = math.ceil((1 + TRUNCATE * max(widths)) / divisions)  # cells that clouds and Gaussians reach
    layer = 4 * divisions**3 * gridsize**2
    thick = min(gridsize, max(1, memory // layer - 2 * margin))
    scaled = (wrap(position, boxsize) * (gridsize / float(boxsize))).astype(np.float32)
    scaled = scaled[np.argsort(scaled[:, 0])]
    mean = len(scaled) / (divisions * gridsize)**3
    found = np.empty((len(widths),) + (gridsize,) * 3, np.float32)
    for start in range(0, gridsize, thick):
        stop = min(start + thick, gridsize)
        fine = slab(scaled, gridsize, start - margin, stop + margin, divisions)
        fine /= np.float32(mean)
        for width, highest in zip(widths, found):
            smooth = gaussian_filter(fine, width, mode=("nearest", "wrap", "wrap"), truncate=TRUNCATE)
            highest[start:stop] = within_blocks(smooth[divisions * margin:-divisions * margin], divisions)
    return found


def within_blocks(field, side):
    """The highest value within each block of `side` cells a side."""
    for axis in range(3):  # a reduction over short inner axes would take ten times as long
        rows = (slice(None),) * axis
        field = functools.reduce(np.maximum, [field[(*rows, slice(first, None, side))] for first in range(side)])
    return field


def slab(scaled, gridsize, low, high, divisions=DIVISIONS):
    """Particles in each cell of a finer grid from the layer of cells `low` to `high`, which may lie beyond the box.

    scaled: positions in cells, (p, 3) float32, ascending along x. Clouds in the first and last layers are not right.
    """
    from kerasgal import particle_kernels

    total = np.zeros((divisions * (high - low), divisions * gridsize, divisions * gridsize), np.float32)
    for period in range(low // gridsize * gridsize, high, gridsize):
        first, last = np.searchsorted(scaled[:, 0], [low - period, high - period])
        part = scaled[first:last] + np.array([period - low, 0, 0], np.float32)
        particle_kernels.deposit(part, np.float32(divisions), np.float32(0.5), np.ones(len(part), np.float32), total)
    return total
