"""Particles in Lagrangian order: the order of their IDs, where the lattice stands, and the linear density.

Particle IDs number the points of the initial lattice, in C or Fortran order; which, the initial conditions say.
"""

import numpy as np

from kerasgal.errors import DataError
from kerasgal.grid import wrap

# The displacements of neighbours differ by about a third of the density contrast, and that must be linear.
ROUGHNESS_LIMIT = 0.3  # cells
LAYERS = 32  # of the lattice, by which its order is found before it is checked throughout


def lagrangian_order(position, name):
    """In which order particle IDs number the lattice, and where this stands.

    position: (n^3, 3) by ascending ID, periodic, in cells; name: of the file, for messages.
    Returns ("C" or "Fortran", the place of the lattice), (3,) in cells: the mean displacement from the points with
    whole coordinates (0 or 1/2 cell in most codes; where gas was split off the dark matter, another), rounded to what
    single precision resolves. In the right order lattice neighbours move almost alike, however far they move (beyond a
    cell, in simulations of high resolution); in a wrong one their displacements differ by cells. The order is the one
    in which they differ by an rms below ROUGHNESS_LIMIT. Raises DataError if not exactly one order does.
    """
    n = round(len(position) ** (1 / 3))
    layers = min(n, LAYERS)
    roughness = {}
    for order in ("C", "Fortran"):
        roughness[order] = _roughness(displacement_from(cube(position, n, order)[:layers], n))
    found = [order for order, value in roughness.items() if value < ROUGHNESS_LIMIT]
    if len(found) == 1:
        order, = found
        displacement = displacement_from(cube(position, n, order), n)
        roughness[order] = _roughness(displacement)
        if roughness[order] < ROUGHNESS_LIMIT:
            return order, displacement.mean(axis=(0, 1, 2), dtype=np.float64).round(6)
    measured = ", ".join(f"{value:.2g} cells in {order} order" for order, value in roughness.items())
    raise DataError(f"{name}: particle IDs have no Lagrangian order, or these are no initial conditions: "
                    f"displacements of lattice neighbours differ by {measured}; accepted is exactly one "
                    f"below {ROUGHNESS_LIMIT}")


def displacement_from(position, n, place=(0, 0, 0)):
    """Displacements of the first layers of a lattice that stands at `place`, (layers, n, n, 3) float32, in cells.

    position: of the same shape, in cells.
    """
    displacement = np.empty(position.shape, np.float32)
    for axis in range(3):
        along = np.arange(position.shape[axis]).reshape(np.roll((-1, 1, 1), axis))
        component = position[..., axis] - (along + place[axis])
        component -= n * np.rint(component / n)
        displacement[..., axis] = component
    return displacement


def _roughness(displacement):
    """The rms difference of the displacements (layers, n, n, 3) of neighbours, periodic where all layers are there."""
    layers, n = displacement.shape[:2]
    squares, pairs = 0.0, 0
    for layer in range(layers):  # one by one: little memory, and that stays in the processor's cache
        here, upper = displacement[layer], displacement[(layer + 1) % n] if layer + 1 < layers or layers == n else None
        for other in (np.roll(here, 1, 0), np.roll(here, 1, 1), upper):
            if other is not None:
                difference = (here - other).ravel()
                squares += float(np.vdot(difference, difference))
                pairs += difference.size
    return (squares / pairs) ** 0.5


def linear_density(displacement, boxsize):
    """Density contrast to first order in the displacement, minus its divergence (Zel'dovich 1970, A&A 5, 84).

    displacement: (n, n, n, 3) from lattice points; boxsize in the same unit. Returns (n, n, n), float32, on
    the lattice, at the redshift of the displacement. The derivative is spectral; that of the Nyquist wave
    vanishes on the lattice. This is the Zel'dovich approximation: where the displacement is of second order
    (2LPT), the result is off by a fraction of the order of the density contrast itself.
    """
    n = len(displacement)
    wavenumber = 2 * np.pi * np.fft.fftfreq(n, boxsize / n)
    if n % 2 == 0:
        wavenumber[n // 2] = 0
    minus_divergence = np.zeros((n, n, n // 2 + 1), np.complex64)
    for axis in range(3):
        along = (wavenumber[:n // 2 + 1] if axis == 2 else wavenumber).reshape(np.roll((-1, 1, 1), axis))
        minus_divergence -= 1j * along.astype(np.float32) * np.fft.rfftn(displacement[..., axis])
    return np.fft.irfftn(minus_divergence, (n, n, n), axes=(0, 1, 2)).astype(np.float32)


def first_id_of(snapshot):
    """The lowest particle ID; raises DataError if the IDs span more numbers than there are particles."""
    extremes = [(ids.min(), ids.max()) for ids, in snapshot.read("id")]
    lowest, highest = int(min(low for low, _ in extremes)), int(max(high for _, high in extremes))
    if highest - lowest + 1 != snapshot.particles or highest >= 2**63:
        raise DataError(f"{snapshot.path}: particle IDs run from {lowest} to {highest}; accepted are "
                        f"consecutive ones, as the {snapshot.particles} particles of a lattice have")
    return lowest


def read(snapshot, first_id, gridsize, order, dtype, progress, place):
    """Positions and velocities in Lagrangian order, and the Lagrangian cells in the snapshot's order.

    Returns (n^3, 3) of `dtype`, as `place` makes them of the file's positions, (n^3, 3) float32 and (n^3,).
    Raises DataError if the IDs are not all those from first_id.
    """
    position = np.empty((snapshot.particles, 3), dtype)
    velocity = np.empty((snapshot.particles, 3), np.float32)
    cells = np.empty(snapshot.particles, np.int64)
    unread = np.ones(snapshot.particles, bool)
    done = 0
    for ids, here, moving in snapshot.read("id", "position", "velocity"):
        if int(ids.min()) < first_id or int(ids.max()) >= first_id + snapshot.particles:
            raise DataError(f"{snapshot.path}: particle IDs run from {ids.min()} to {ids.max()}; accepted "
                            f"are {first_id} to {first_id + snapshot.particles - 1}, as in the initial "
                            "conditions")
        cell = cells_of(ids, first_id, order, gridsize)
        position[cell], velocity[cell] = place(here), moving
        unread[cell] = False
        cells[done:done + len(cell)] = cell
        done += len(cell)
        progress(done)
    if unread.any():
        raise DataError(f"{snapshot.path}: {np.count_nonzero(unread)} particle IDs between {first_id} and "
                        f"{first_id + snapshot.particles - 1} are missing, others occur more than once")
    return position, velocity, cells


def cells_of(ids, first_id, order, gridsize):
    """Lagrangian cells (in C order) of particle IDs, int64; IDs that are not of the lattice lead beyond it."""
    cell = ids.astype(np.int64) - first_id
    if order == "Fortran":
        x, y, z = cell % gridsize, cell // gridsize % gridsize, cell // gridsize**2
        cell = (x * gridsize + y) * gridsize + z + np.where((z < 0) | (z >= gridsize), gridsize**4, 0)
    return cell


def cube(values, gridsize, order):
    """(n^3, 3) values by ascending ID as (n, n, n, 3) on the lattice."""
    cube = values.reshape(gridsize, gridsize, gridsize, 3)
    return cube if order == "C" else cube.transpose(2, 1, 0, 3)


def shifted(position, shift, boxsize):
    """Positions moved by `shift` and back into the box, float32."""
    return wrap((position + shift).astype(np.float32), boxsize)


def member_cells(ids, gridsize, first_id, order, path):
    """Lagrangian cells of the particle IDs in the file `path`, each of which must be one, once."""
    particles = gridsize**3
    cell = cells_of(ids, first_id, order, gridsize)
    wrong = ids[(cell < 0) | (cell >= particles)]
    if len(wrong):
        raise DataError(f"{path} has the particle ID {wrong[0]}; accepted are {first_id} to "
                        f"{first_id + particles - 1}, as in the initial conditions")
    unique, count = np.unique(cell, return_counts=True)
    if len(unique) < len(cell):
        twice = ids[cell == unique[count > 1][0]][0]
        raise DataError(f"{path} has particle {twice} more than once; accepted is one halo for each")
    return cell
