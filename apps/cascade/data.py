"""Density and galaxies on one grid, and the sub-cubes that networks are trained on (Yip et al. 2019, Sec. 2)."""

import logging

import numpy as np

from kerasgal.apps.cascade import finer
from kerasgal.conditioning import parameters_of
from kerasgal.domain import of_box
from kerasgal.errors import DataError, DomainError
from kerasgal.files import slabs
from kerasgal.grid import density_contrast, deposit_ngp, mean_velocity
from kerasgal.simulation import check_mean, opened
from kerasgal.tiling import Derived

log = logging.getLogger(__name__)

# Particles per cell. Each is spread over eight cells, so that half of one leaves few cells empty by chance, an eighth
# a third of them.
FEWEST = 0.5
TOLERANCE = 0.02  # by which a cell's side may differ from the run's
AGREEMENT = 0.8  # correlation of a field of the density with that of the particles beside it
MOTION = ("final/position", "final/velocity")  # what a velocity of the dark matter is made of
CORNER = 14 / 32  # where the paper's test cube begins along each axis, and its validation column ends along two


def gridsize_of(path, boxsize, cell):
    """Cells per side of a box, of about `cell` Mpc/h; raises DataError if the box is not so many cells wide."""
    gridsize = max(1, round(boxsize / cell))
    if abs(boxsize / gridsize / cell - 1) > TOLERANCE:
        raise DataError(f"{path}: a box of {boxsize:g} Mpc/h does not divide into cells of {cell:g} Mpc/h")
    return gridsize


def cells_of(simulation, cell):
    """`gridsize_of` a simulation: that of its own grid at redshift_final, if its cells are about as large."""
    for name in ("final/delta", "galaxies/count"):
        gridsize = simulation[name].shape[0] if name in simulation else 0
        if gridsize and abs(simulation.boxsize / gridsize / cell - 1) <= TOLERANCE:
            return gridsize
    return gridsize_of(simulation.path, simulation.boxsize, cell)


def is_gridded(simulation, gridsize):
    """Whether a simulation has its final density on a grid of so many cells a side."""
    return "final/delta" in simulation and simulation["final/delta"].shape == (gridsize,) * 3


def features(source, cell, of_particles=False, finer=False):
    """What `kerasgal.domain` knows of a Simulation, or its path, whose density is taken in cells of `cell` Mpc/h.

    of_particles: whether something else is made of its particles, too.  finer: whether that is what a finer grid says.
    """
    with opened(source, ()) as simulation:
        gridsize = cells_of(simulation, cell)
        found = of_box(simulation, "final/delta", gridsize=gridsize)
        if finer and "particles_per_cell" in found:
            found["sampling"] = found["particles_per_cell"]
        if is_gridded(simulation, gridsize) and (finer or not of_particles):
            found["particles_per_cell"] = simulation.particles_per_cell  # the density is not made of those in the file
        return found


def check_particles(simulation, cell, outside_domain=False, of_particles=False, deposit="cic"):
    """Notes for a product, where particles are sparser than cells, or were put on the grid in another way.

    Raises DomainError for those that are sparser, unless it may go on outside of the domain.
    """
    words = sparseness(simulation, cell, of_particles)
    if words and not outside_domain:
        raise DomainError(f"{words}; give outside_domain=True to go on all the same")
    notes = [note for note in (words, other_window(simulation, cell, deposit)) if note]
    for note in notes:
        log.warning(note)
    return notes


def sparseness(simulation, cell, of_particles=False):
    """Words for particles that are too few to make a density of, None where they are enough, or nobody knows.

    of_particles: whether something is made of them for which a field of the density does not do.
    """
    gridsize = cells_of(simulation, cell)
    shares = []
    if is_gridded(simulation, gridsize) and simulation.particles_per_cell is not None:
        shares.append(simulation.particles_per_cell)
    if "final/position" in simulation and (of_particles or not is_gridded(simulation, gridsize)):
        shares.append(simulation["final/position"].shape[0] / gridsize**3)
    if not shares or min(shares) >= FEWEST:
        return None
    return (f"{simulation.path} has {min(shares):.3g} particles for each cell of {cell:g} Mpc/h, and many cells none "
            f"by chance: it takes at least {FEWEST:g}")


def other_window(simulation, cell, deposit):
    """Words for a field whose particles were not put on its grid by `deposit`; None where that is right or unsaid."""
    gridsize = cells_of(simulation, cell)
    if not is_gridded(simulation, gridsize) or simulation.window in (None, deposit):
        return None
    return (f"{simulation.path}: the particles of final/delta were put on its grid by {simulation.window}, and the run "
            f"has {deposit}")


def density(simulation, cell, *, deposit="cic", sparse=False):
    """Dark-matter density at the final redshift in units of the mean, (n, n, n) float32, in cells of `cell` Mpc/h.

    The field of the file if it has one with such cells, else the mass of the particles, by cloud-in-cell or as the run
    has it (`deposit` of `kerasgal.grid.density_contrast`). Raises DataError where there is neither, or values that are
    negative or not finite; DomainError for particles that are sparser than the cells, unless `sparse`: a trained run
    has its own check, and cells that cannot be chosen.
    """
    return density_field(simulation, cell, deposit=deposit, sparse=sparse)[:, :, :][..., 0]


def density_field(simulation, cell, *, deposit="cic", sparse=False, of_particles=False):
    """The field of `density` as one that can be sliced, (n, n, n, 1), of which a file's grid is read only then.

    of_particles: whether something else is made of the particles, too, which must then be enough.
    """
    gridsize = cells_of(simulation, cell)
    if not sparse:
        words = sparseness(simulation, cell, of_particles)
        if words:
            raise DomainError(f"{words}: choose a larger `cell`, or a simulation with more particles")
        words = other_window(simulation, cell, deposit)
        if words:
            log.warning(words)
    if is_gridded(simulation, gridsize):
        delta = simulation["final/delta"]
        check_mean(delta, f"{simulation.path}: final/delta")
    elif "final/position" in simulation:
        delta = density_contrast(simulation["final/position"][...], gridsize, simulation.boxsize, deposit)
    elif "final/delta" in simulation:
        way_out = "give the run a field on its own cells" if sparse else "give the field's own `cell`"
        raise DataError(f"{simulation.path}: final/delta has the shape {simulation['final/delta'].shape}; cells of "
                        f"{cell:g} Mpc/h make {gridsize} a side: {way_out}, or a file with particles")
    else:
        raise DataError(f"{simulation.path} has no final density: it needs final/position or final/delta")
    bad = sum(np.count_nonzero(~(1 + slab > -1e-3)) for slab in slabs(delta))
    if bad:
        raise DataError(f"{simulation.path}: the final density has {bad} values that are negative")
    return Derived(delta, lambda contrast: np.maximum(1 + contrast, 0))


def given(simulation, config, *, known=None, sparse=False):
    """What the networks are given of a Simulation: the field of `seen`, and its parameters, (p,) float32.

    known: parameters, {name: value}, that are not the simulation's own. Raises DataError for one that it does not say.
    """
    density = density_field(simulation, config.cell, deposit=config.deposit, sparse=sparse,
                            of_particles=config.of_particles)
    field = seen(simulation, config, density)
    return field, parameters_of(simulation, config.names, known)


def seen(simulation, config, field):
    """What the networks see of a Simulation whose density is `field`, (n, n, n, 1): that, or, as the configuration has
    it, the density and what a finer grid says, (n, n, n, 1 + finer.CHANNELS), or its velocity, (n, n, n, 4)."""
    if config.finer:
        return np.concatenate([field[:, :, :], within_cells(simulation, config.cell)], axis=-1)
    if config.velocity:
        return np.concatenate([field[:, :, :], velocity(simulation, config.cell)], axis=-1)
    return field


def within_cells(simulation, cell):
    """What a finer grid says of each cell, (n, n, n, finer.CHANNELS) float32; see `finer.finer`.

    Raises DataError for a file without the positions of its particles, for some that are not finite, and for a field of
    the density that is not that of the particles.
    """
    if "final/position" not in simulation:
        raise DataError(f"{simulation.path} has no final/position: where in a cell the dark matter is densest is known "
                        "of particles alone")
    position, gridsize = simulation["final/position"][...], cells_of(simulation, cell)
    bad = np.count_nonzero(~np.isfinite(position))
    if bad or not len(position):
        raise DataError(f"{simulation.path}: final/position has {bad} of {position.size} values that are NaN or "
                        "infinite")
    if is_gridded(simulation, gridsize):
        own = density_contrast(position, gridsize, simulation.boxsize)
        with np.errstate(invalid="ignore", divide="ignore"):
            agreement = np.corrcoef(own.ravel(), simulation["final/delta"][...].ravel())[0, 1]
        if not agreement > AGREEMENT:
            raise DataError(f"{simulation.path}: final/delta and final/position are not of one density: their "
                            f"correlation in cells is {agreement:.2f}, and at least {AGREEMENT:g} is accepted")
    return finer.finer(position, gridsize, simulation.boxsize)


def velocity(simulation, cell):
    """Mean velocity of the dark matter at the final redshift, (n, n, n, 3) float32 [km/s], in cells of `cell` Mpc/h.

    See `kerasgal.grid.mean_velocity`, also for empty cells. Raises DataError for a file without the velocities of its
    particles, and for values that are not finite.
    """
    missing = [name for name in MOTION if name not in simulation]
    if missing:
        raise DataError(f"{simulation.path} has no {' and no '.join(missing)}: the velocity of the dark matter is made "
                        "of particles")
    position, moving = (simulation[name][...] for name in MOTION)
    if moving.shape != position.shape:
        raise DataError(f"{simulation.path}: final/velocity has the shape {moving.shape}, and final/position "
                        f"{position.shape}")
    bad = np.count_nonzero(~np.isfinite(moving))
    if bad:
        raise DataError(f"{simulation.path}: final/velocity has {bad} values that are NaN or infinite")
    return mean_velocity(position, moving, cells_of(simulation, cell), simulation.boxsize)


def galaxy_counts(simulation, cell):
    """Galaxies in each cell of the same grid, (n, n, n) float32: counted by cell from positions, or the file's field.

    Raises DataError where there are no galaxies, or the field's shape differs or has negative values.
    """
    gridsize = cells_of(simulation, cell)
    if "galaxies/count" in simulation:
        counts = simulation["galaxies/count"][...].astype(np.float32)
        if counts.shape != (gridsize,) * 3:
            raise DataError(f"{simulation.path}: galaxies/count has the shape {counts.shape}, and the density "
                            f"{(gridsize,) * 3}: both must be on one grid")
        bad = np.count_nonzero(~(counts >= 0) | ~np.isfinite(counts))
        if bad:
            raise DataError(f"{simulation.path}: galaxies/count has {bad} values that are negative, NaN or infinite")
    elif "galaxies/position" in simulation:
        counts = deposit_ngp(simulation["galaxies/position"][...], gridsize, simulation.boxsize)
    else:
        raise DataError(f"{simulation.path} has no galaxies: it needs galaxies/position or galaxies/count; `simulate` "
                        "with galaxies=True paints some")
    if not counts.any():
        raise DataError(f"{simulation.path} has not a single galaxy")
    return counts


def load(source, config):
    """Density and galaxy counts of a Simulation or its path, each (n, n, n) float32; raises DataError as these do."""
    with opened(source, ()) as simulation:
        return density(simulation, config.cell, deposit=config.deposit), galaxy_counts(simulation, config.cell)


def split_by_volume(gridsize, patch):
    """Sub-cubes of one box for training, validation and testing, as lists of flat indices of their lowest cells.

    The paper's: the test set is the cube beyond 14/32 of the box along each axis, 17.8% of the volume; validation the
    column below it along two, 19.1%; training the rest. Raises DataError for a box that does not divide into sub-cubes.
    """
    if gridsize % patch or gridsize < 2 * patch:
        raise DataError(f"a box of {gridsize} cells does not divide into training, validation and test cubes of "
                        f"{patch} cells a side: choose a `patch` that divides it, or give several simulations")
    corner = np.arange(0, gridsize, patch)
    x, y, z = (axis.ravel() for axis in np.meshgrid(corner, corner, corner, indexing="ij"))
    low = test_corner(gridsize, patch)
    flat = np.ravel_multi_index((x, y, z), (gridsize,) * 3)
    test = (x >= low) & (y >= low) & (z >= low)
    validation = (x < low) & (y < low)
    return flat[~test & ~validation], flat[validation], flat[test]


def test_corner(gridsize, patch):
    """Lowest cell of the test cube along each axis."""
    return patch * max(1, round(CORNER * gridsize / patch))
