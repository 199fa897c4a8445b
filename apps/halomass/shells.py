"""Spherical shells around cells, and what a periodic field has in them: its mean, dipole and quadrupole."""

import numpy as np
import scipy.fft


def shell_index(side, shells):
    """The shell of each cell of a cube, (side, side, side) integers; `shells` for those beyond the last.

    A cell belongs to the first shell whose radius is not less than its distance from the central cell; the radii are
    evenly spaced from 2 cells to half the cube. The first text of Lucie-Smith et al. 2020 says from 2 to 75 cells; half
    of its cube of 75 is what the authors' code has.
    """
    axis = np.arange(side) - side // 2
    radius = np.sqrt(axis[:, None, None]**2 + axis[:, None]**2 + axis**2)
    return np.searchsorted(np.linspace(2, side / 2, shells), radius)


def has_empty(side, shells):
    """Whether one of the shells of a cube has no cell."""
    return len(np.unique(shell_index(side, shells)[side // 2:, side // 2:, side // 2:])) < shells + 1


def most_shells(side):
    """The most shells of a cube such that neither they nor any smaller number have one without a cell."""
    shells = 1
    while not has_empty(side, shells + 1):
        shells += 1
    return shells


def harmonics(direction, degree):
    """Functions of the direction of which the squared means do not depend on the axes: (cells, 2 degree + 1).

    direction: (cells, 3) unit vectors, or zero for the centre, which has no direction: it counts for degree 0 only.
    Degree 1 has the vector itself. Degree 2 has r r - 1/3 in an orthonormal basis of the traceless symmetric matrices:
    the squares of the five sum to those of the nine elements.
    """
    x, y, z = direction.T
    if degree == 0:
        return np.ones((len(x), 1))
    if degree == 1:
        return direction
    return np.stack([2 * x * y, 2 * y * z, 2 * x * z, x**2 - y**2, (2 * z**2 - x**2 - y**2) / np.sqrt(3)],
                    axis=1) / np.sqrt(2)


def multipoles(delta, cells, side, shells, order):
    """What a periodic field has in spherical shells around cells, (m, shells * (order + 1)) float32.

    First the means over the shells; from order 1 on the magnitudes of the dipoles, the mean of delta times the unit
    vector r to a cell of the shell; for order 2 those of the quadrupoles, the root of the sum of the squared elements
    of the mean of delta (r r - 1/3). None of them changes when the field is turned or mirrored about the cell.

    delta: (n, n, n); cells: (3, m) indices; side, shells: as of `shell_index`. By FFT, for all cells of the box at
    once, with a kernel for each component in each shell, 1, 3 and 5; it is zero outside its shell and wraps around the
    box.
    """
    modes, n = scipy.fft.rfftn(delta, workers=-1), len(delta)
    index, cells = shell_index(side, shells), tuple(cells)
    found = np.empty((order + 1, shells, len(cells[0])), np.float32)
    for shell in range(shells):
        offset = np.argwhere(index == shell) - side // 2
        direction = offset / np.maximum(np.linalg.norm(offset, axis=1), 1)[:, None]
        for degree in range(order + 1):
            squares = 0
            for weight in harmonics(direction, degree).T:
                kernel = np.zeros_like(delta)
                # A correlation is a convolution with the mirrored kernel.
                np.add.at(kernel, tuple(-offset.T % n), weight / len(offset))
                kernel = scipy.fft.rfftn(kernel, workers=-1)
                part = scipy.fft.irfftn(modes * kernel, delta.shape, workers=-1)[cells]
                squares = squares + part**2
            found[degree, shell] = part if degree == 0 else np.sqrt(squares)
    return np.ascontiguousarray(found.reshape(-1, found.shape[-1]).T)
