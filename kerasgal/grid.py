"""Particles to periodic grids and back, by the cloud-in-cell scheme (Hockney & Eastwood 1981) above all.

Cell (i, j, k) of a grid spans [i, i+1) x [j, j+1) x [k, k+1) cells; its value belongs to its centre, at
(i + 1/2, j + 1/2, k + 1/2).
"""

import itertools

import numpy as np
import scipy.fft
import scipy.sparse
from scipy.ndimage import uniform_filter

LEAST_MASS = 1e-6  # of a cell, in particles: with less it is as good as empty


def wrap(position, boxsize):
    """Positions moved into the box by whole periods.

    Parameters
    ----------
    position : array of float
        In any shape, in the unit of `boxsize`.
    boxsize : float
        Side of the periodic box.

    Returns
    -------
    array
        In [0, boxsize), of the shape and float type of `position`.

    Examples
    --------
    >>> import numpy as np
    >>> from kerasgal.grid import wrap
    >>> wrap(np.array([-1.0, 12.0]), 10).tolist()
    [9.0, 2.0]
    """
    wrapped = np.mod(position, float(boxsize))
    wrapped[wrapped >= float(boxsize)] = 0  # np.mod rounds a tiny negative number up to boxsize itself
    return wrapped


def lattice(gridsize, boxsize):
    """Centres of the Lagrangian cells.

    Parameters
    ----------
    gridsize : int
        Cells a side, n.
    boxsize : float
        Side of the box.

    Returns
    -------
    array
        (n, n, n, 3), float32, in the unit of `boxsize`.

    Examples
    --------
    >>> from kerasgal.grid import lattice
    >>> lattice(4, 10.0)[0, 1, 3].tolist()
    [1.25, 3.75, 8.75]
    """
    centre = ((np.arange(gridsize) + 0.5) * (boxsize / gridsize)).astype(np.float32)
    return np.stack(np.meshgrid(centre, centre, centre, indexing="ij"), axis=-1)


def cic_matrix(position, gridsize, boxsize):
    """The cloud-in-cell weights (Hockney & Eastwood 1981) as a sparse matrix.

    Each row holds a particle's shares of the 8 cells whose centres surround it, which add up to 1. The matrix times a
    (flattened) field interpolates it to the particles, the transpose times the particles' weights deposits them on the
    grid. That both are one matrix is what conserves momentum in a particle-mesh force.

    Parameters
    ----------
    position : array
        (particles, 3), any real numbers, in the unit of `boxsize`.
    gridsize : int
        Cells a side, n.
    boxsize : float
        Side of the periodic box.

    Returns
    -------
    scipy.sparse.csr_array
        (particles, n^3), float32.

    Raises
    ------
    ValueError
        If `position` has another shape.

    Examples
    --------
    >>> import numpy as np
    >>> from kerasgal.grid import cic_matrix
    >>> shares = cic_matrix(np.array([[2.5, 2.5, 5.0]]), gridsize=4, boxsize=10)
    >>> shares.sum(axis=1).tolist(), shares.max().tolist()
    ([1.0], 0.125)
    """
    position = np.asarray(position)
    if position.ndim != 2 or position.shape[1] != 3:
        raise ValueError(f"position must have the shape (particles, 3). Received: {position.shape}")
    integer = np.int32 if max(gridsize**3, 8 * len(position)) < 2**31 else np.int64
    scaled = np.ascontiguousarray(position.T) * (gridsize / float(boxsize)) - 0.5
    floor = np.floor(scaled)
    share = (scaled - floor).astype(np.float32)  # of the upper neighbour, (3, particles)
    lower = floor.astype(integer) % gridsize
    upper = lower + 1
    upper[upper == gridsize] = 0
    shares = np.stack([1 - share, share])
    cells = np.stack([lower, upper]) * np.array([[gridsize**2], [gridsize], [1]], integer)
    index = np.empty((len(position), 8), integer)
    weight = np.empty((len(position), 8), np.float32)
    for corner, (x, y, z) in enumerate(itertools.product((0, 1), repeat=3)):
        index[:, corner] = cells[x, 0] + cells[y, 1] + cells[z, 2]
        weight[:, corner] = shares[x, 0] * shares[y, 1] * shares[z, 2]
    rows = np.arange(0, index.size + 1, 8, dtype=integer)
    return scipy.sparse.csr_array((weight.ravel(), index.ravel(), rows), shape=(len(position), gridsize**3))


def cic_arguments(position, gridsize, boxsize):
    """Checked positions, float32 or else float64, and the numbers that `kerasgal.particle_kernels` wants with them."""
    position = np.asarray(position)
    if position.ndim != 2 or position.shape[1] != 3:
        raise ValueError(f"position must have the shape (particles, 3). Received: {position.shape}")
    kind = np.float32 if position.dtype == np.float32 else np.float64
    return np.ascontiguousarray(position, kind), kind(gridsize / float(boxsize)), kind(0.5)


def deposit_cic(position, gridsize, boxsize, weight=None):
    """Particles on a periodic grid, by cloud-in-cell (Hockney & Eastwood 1981).

    Parameters
    ----------
    position : array
        (particles, 3), in the unit of `boxsize`.
    gridsize : int
        Cells a side, n.
    boxsize : float
        Side of the periodic box.
    weight : array, optional
        (particles,); 1 each without.

    Returns
    -------
    array
        (n, n, n), float32, the sum of weights in each cell: without weights its mean is particles / n^3.

    Raises
    ------
    ValueError
        If the shapes do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from kerasgal.grid import deposit_cic
    >>> grid = deposit_cic(np.array([[1.25, 1.25, 2.5]]), gridsize=4, boxsize=10)  # on the face of two cells
    >>> grid[0, 0].tolist()
    [0.5, 0.5, 0.0, 0.0]
    """
    from kerasgal import particle_kernels

    return _deposited(particle_kernels.deposit, position, gridsize, boxsize, weight)


def deposit_tsc(position, gridsize, boxsize, weight=None):
    """Particles on a periodic grid as triangular-shaped clouds (Hockney & Eastwood 1981).

    Each is spread over the 27 cells around it, which is smoother than cloud-in-cell: of a lattice of particles that
    lies with one in each cell, and is stretched, less is seen.

    Parameters
    ----------
    position : array
        (particles, 3), in the unit of `boxsize`.
    gridsize : int
        Cells a side, n, at least 3.
    boxsize : float
        Side of the periodic box.
    weight : array, optional
        (particles,); 1 each without.

    Returns
    -------
    array
        (n, n, n), float32, the sum of weights in each cell.

    Raises
    ------
    ValueError
        If the shapes do not fit, or the grid has less than three cells a side.

    Examples
    --------
    >>> import numpy as np
    >>> from kerasgal.grid import deposit_tsc
    >>> grid = deposit_tsc(np.array([[1.25, 1.25, 1.25]]), gridsize=4, boxsize=10)  # in the middle of a cell
    >>> grid.sum(axis=(0, 1)).tolist()
    [0.75, 0.125, 0.0, 0.125]
    """
    from kerasgal import particle_kernels

    if gridsize < 3:
        raise ValueError(f"deposit_tsc needs a grid of 3 cells a side or more. Received: {gridsize}")
    return _deposited(particle_kernels.deposit_tsc, position, gridsize, boxsize, weight)


def _deposited(kernel, position, gridsize, boxsize, weight):
    """Particles on a grid, by a loop of `kerasgal.particle_kernels`."""
    position, cells, half = cic_arguments(position, gridsize, boxsize)
    weight = np.ones(len(position), np.float32) if weight is None else np.ascontiguousarray(weight, np.float32)
    if weight.shape != (len(position),):
        raise ValueError(f"weight must have the shape ({len(position)},). Received: {weight.shape}")
    total = np.zeros((gridsize,) * 3, np.float32)
    # Sums of sums: to the many particles of a full cell float32 adds the share of one with a large error.
    size = max(2**18, gridsize**3 // 32)
    for start in range(0, len(position), size):
        part = np.zeros_like(total)
        kernel(position[start:start + size], cells, half, weight[start:start + size], part)
        total += part
    return total


def deposit_ngp(position, gridsize, boxsize, weight=None):
    """Points in the cells they stand in (nearest grid point).

    Parameters
    ----------
    position : array
        (points, 3), in the unit of `boxsize`, periodic.
    gridsize : int
        Cells a side, n.
    boxsize : float
        Side of the periodic box.
    weight : array, optional
        (points,); 1 each without.

    Returns
    -------
    array
        (n, n, n), float32, the sum of weights in each cell.

    Raises
    ------
    ValueError
        If the shapes do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from kerasgal.grid import deposit_ngp
    >>> deposit_ngp(np.array([[1.0, 1.0, 9.0], [1.0, 1.0, 9.9]]), gridsize=4, boxsize=10)[0, 0].tolist()
    [0.0, 0.0, 0.0, 2.0]
    """
    position = np.asarray(position, np.float64)
    if position.ndim != 2 or position.shape[1] != 3:
        raise ValueError(f"position must have the shape (points, 3). Received: {position.shape}")
    cell = np.floor(position * (gridsize / boxsize)).astype(np.int64) % gridsize
    flat = np.ravel_multi_index(tuple(cell.T), (gridsize,) * 3)
    return np.bincount(flat, weight, gridsize**3).astype(np.float32).reshape((gridsize,) * 3)


def density_contrast(position, gridsize, boxsize, deposit="cic"):
    """Density contrast of equal particles, rho / mean(rho) - 1.

    Parameters
    ----------
    position : array
        (particles, 3), in the unit of `boxsize`.
    gridsize : int
        Cells a side, n.
    boxsize : float
        Side of the periodic box.
    deposit : {"cic", "tsc"}
        Cloud-in-cell, or triangular-shaped clouds; see `deposit_cic` and `deposit_tsc`.

    Returns
    -------
    array
        (n, n, n), float32.

    Raises
    ------
    ValueError
        For another `deposit`.

    Examples
    --------
    >>> from kerasgal.grid import density_contrast, lattice
    >>> even = density_contrast(lattice(8, 10.0).reshape(-1, 3), 4, 10.0)
    >>> even.shape, bool(abs(even).max() < 1e-5)
    ((4, 4, 4), True)
    """
    if deposit not in DEPOSITS:
        raise ValueError(f"deposit must be 'cic' or 'tsc'. Received: {deposit!r}")
    delta = DEPOSITS[deposit](position, gridsize, boxsize)
    delta *= gridsize**3 / len(position)
    delta -= 1
    return delta


DEPOSITS = {"cic": deposit_cic, "tsc": deposit_tsc}


def mean_velocity(position, velocity, gridsize, boxsize):
    """Mean velocity of equal particles in cells: their momentum over their mass, both by cloud-in-cell.

    A cell that no particle reaches has the mean velocity of the 27 cells of which it is the middle, or, where none of
    these has a particle either, of 125, of 729, and so on.

    Parameters
    ----------
    position : array
        (particles, 3), in the unit of `boxsize`.
    velocity : array
        (particles, 3), in any unit.
    gridsize : int
        Cells a side, n.
    boxsize : float
        Side of the periodic box.

    Returns
    -------
    array
        (n, n, n, 3), float32, in the unit of `velocity`.

    Raises
    ------
    ValueError
        If the shapes do not fit, or there is no particle.

    Examples
    --------
    >>> import numpy as np
    >>> from kerasgal.grid import mean_velocity
    >>> two = np.array([[1.25, 1.25, 1.25], [1.25, 1.25, 1.25]])  # in one cell, and nothing elsewhere
    >>> field = mean_velocity(two, np.array([[100.0, 0, 0], [300.0, 0, 0]]), gridsize=4, boxsize=10)
    >>> field[0, 0, 0].tolist(), field[2, 2, 2].tolist()
    ([200.0, 0.0, 0.0], [200.0, 0.0, 0.0])
    """
    position, velocity = np.asarray(position), np.asarray(velocity)
    if velocity.shape != position.shape or not len(position):
        raise ValueError("velocity must have the shape of position, (particles, 3), with a particle or more. Received: "
                         f"{velocity.shape} and {position.shape}")
    mass = deposit_cic(position, gridsize, boxsize)
    momentum = [deposit_cic(position, gridsize, boxsize, np.ascontiguousarray(velocity[:, axis])) for axis in range(3)]
    field = np.empty((*mass.shape, 3), np.float32)
    empty, size = mass < LEAST_MASS, 1
    for axis in range(3):
        field[..., axis] = momentum[axis] / np.where(empty, 1, mass)
    while empty.any() and size < gridsize:
        size = 2 * size + 1 if size == 1 else 2 * size - 1
        around = uniform_filter(mass, size, np.float64, mode="wrap")
        found = empty & (around >= LEAST_MASS)
        for axis in range(3):
            field[found, axis] = (uniform_filter(momentum[axis], size, np.float64, mode="wrap")[found]
                                  / around[found])
        empty &= ~found
    field[empty] = velocity.mean(axis=0, dtype=np.float64)  # of so few particles that a box's window misses them
    return field


def interpolate_cic(field, position, boxsize):
    """A periodic field at the particles, by cloud-in-cell (Hockney & Eastwood 1981).

    Parameters
    ----------
    field : array
        (n, n, n) or (n, n, n, channel).
    position : array
        (particles, 3), in the unit of `boxsize`.
    boxsize : float
        Side of the periodic box.

    Returns
    -------
    array
        (particles,) or (particles, channel), float32.

    Raises
    ------
    ValueError
        If the field is not cubic.

    Examples
    --------
    >>> import numpy as np
    >>> from kerasgal.grid import interpolate_cic
    >>> field = np.zeros((4, 4, 4))
    >>> field[0, 0, 1] = 1
    >>> interpolate_cic(field, np.array([[1.25, 1.25, 2.5], [1.25, 1.25, 3.75]]), 10.0).tolist()
    [0.5, 1.0]
    """
    field = np.asarray(field, np.float32)
    gridsize = len(field)
    if field.ndim not in (3, 4) or field.shape[:3] != (gridsize,) * 3:
        raise ValueError(f"field must have the shape (n, n, n) or (n, n, n, channel). Received {field.shape}")
    from kerasgal import particle_kernels

    position, cells, half = cic_arguments(position, gridsize, boxsize)
    channels = field.reshape(*field.shape[:3], -1)
    value = np.empty((len(position), channels.shape[3]), np.float32)
    for channel in range(channels.shape[3]):
        of_one = np.ascontiguousarray(channels[..., channel])
        particle_kernels.read_out(of_one, np.float32(1), position, cells, half, value, channel)
    return value.reshape(len(position), *field.shape[3:])


def wrapped_block(field, start, shape):
    """The block ``field[start:start + shape]`` of a field that is periodic along its first axes, two or three.

    Parameters
    ----------
    field : array or h5py.Dataset
        (nx, ny, ...) or (nx, ny, nz, ...); of a dataset only what is needed is read.
    start : sequence of int
        For each of these axes; may be negative or beyond the grid.
    shape : sequence of int
        For each of these axes; may exceed the grid.

    Returns
    -------
    array
        A new array, of the sides `shape` and then as the field.

    Examples
    --------
    >>> import numpy as np
    >>> from kerasgal.grid import wrapped_block
    >>> wrapped_block(np.arange(4).reshape(2, 2), (-1, 1), (2, 3)).tolist()
    [[3, 2, 3], [1, 0, 1]]
    """
    block = np.empty((*shape, *field.shape[len(shape):]), field.dtype)
    pieces = [_periodic_pieces(*axis) for axis in zip(start, shape, field.shape)]
    for piece in itertools.product(*pieces):
        target, source = zip(*piece)
        block[target] = field[source]
    return block


def top_hats(field, radii):
    """A periodic field averaged over spheres, for one radius after another.

    Spheres smaller than a cell leave the field nearly as it is.

    Parameters
    ----------
    field : array
        (n, n, n), real.
    radii : sequence of float
        Of the spheres, in cells.

    Yields
    ------
    array
        (n, n, n), the field smoothed with that sphere.

    Examples
    --------
    >>> import numpy as np
    >>> from kerasgal.grid import top_hats
    >>> field = np.zeros((16, 16, 16))
    >>> field[8, 8, 8] = 1
    >>> [round(float(smooth.sum()), 3) for smooth in top_hats(field, [2, 4])]  # spread out, and still one in all
    [1.0, 1.0]
    """
    n = field.shape[0]
    transform = scipy.fft.rfftn(field, workers=-1)
    axis, last = 2 * np.pi * np.fft.fftfreq(n), 2 * np.pi * np.fft.rfftfreq(n)
    wavenumber = np.sqrt(axis[:, None, None]**2 + axis[:, None]**2 + last**2)
    for radius in radii:
        x = np.maximum(wavenumber * radius, 1e-4)
        window = 3 * (np.sin(x) - x * np.cos(x)) / x**3
        yield scipy.fft.irfftn(transform * window, s=field.shape, workers=-1)


def _periodic_pieces(start, length, period):
    """Contiguous pieces of [start, start + length): pairs of a slice of the block and one of the field."""
    pieces = []
    done = 0
    while done < length:
        first = (start + done) % period
        size = min(length - done, period - first)
        pieces.append((slice(done, done + size), slice(first, first + size)))
        done += size
    return pieces
