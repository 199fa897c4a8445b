"""Particles onto a grid as they stream by."""

import itertools

import numpy as np

from kerasgal.errors import DataError
from kerasgal.readers import base

ORDERS = {"ngp": 1, "cic": 2, "tsc": 3}  # cells along each axis over which a particle is spread
PARTICLES_AT_ONCE = 2**16  # so that what is worked out for them stays in the processor's cache
SEED = 0  # of the choice of particles of a subsample


def deposit(total, position, weight, window):
    """Add particles to a periodic grid in place, with the window "ngp", "cic" or "tsc" (Hockney & Eastwood 1981).

    total: (n, n, n), contiguous, float64 where a cell may come to hold millions: to so many float32 adds no share of
    one. position: (particles, 3) in cells, cell (i, j, k) spanning [i, i + 1) and so
    on; weight: (particles,), or None for 1 each. No more memory is taken than for some particles, whatever the grid.
    """
    n, order = len(total), ORDERS[window]
    flat = total.reshape(-1)
    for start in range(0, len(position), PARTICLES_AT_ONCE):
        scaled = position[start:start + PARTICLES_AT_ONCE].T
        some = 1 if weight is None else weight[start:start + PARTICLES_AT_ONCE]
        lowest = np.floor(scaled - (order - 1) / 2)
        share = _shares((scaled - lowest).astype(np.float32), order)
        cell = (lowest.astype(np.int64)[None] + np.arange(order)[:, None, None]) % n  # (order, 3, particles)
        cell *= np.array([n * n, n, 1])[:, None]
        for x, y in itertools.product(range(order), repeat=2):
            row, part = cell[x, 0] + cell[y, 1], share[x][0] * share[y][1] * some
            for z in range(order):
                np.add.at(flat, row + cell[z, 2], (part * share[z][2]).astype(flat.dtype))


def _shares(distance, order):
    """Shares of the `order` cells from the lowest on; distance: (3, particles) from its lower edge, in cells."""
    if order == 1:
        return [np.ones_like(distance)]
    if order == 2:
        upper = distance - np.float32(0.5)
        return [1 - upper, upper]
    offset = distance - np.float32(1.5)  # from the centre of the nearest cell, at most 1/2
    return [0.5 * (0.5 - offset) ** 2, 0.75 - offset**2, 0.5 * (0.5 + offset) ** 2]


def density_contrast(snapshot, gridsize, window, progress=None, subsample=None):
    """Density contrast of a snapshot's particles, read some at a time.

    snapshot: a `base.Snapshot` whose boxsize is known. progress: called with the number of particles done. subsample:
    share of the particles that are taken, at random, always the same ones; None takes all.
    Returns it, (gridsize, gridsize, gridsize) float32; the mass of all particles, in the snapshot's unit, scaled up
    from those that are taken, None where masses are not known; and how many are taken.
    """
    total = np.zeros((gridsize,) * 3)
    mass, done, taken, farthest = 0.0, 0, 0, 0.0
    names = ("position",) if snapshot.equal else ("position", "mass")
    random = np.random.default_rng(SEED)
    for fields in snapshot.read(*names):
        done += len(fields[0])
        farthest = max(farthest, fields[0].max(), -fields[0].min())
        if subsample is not None:
            some = random.random(len(fields[0])) < subsample
            fields = [values[some] for values in fields]
        weight = None if snapshot.equal else fields[1]
        deposit(total, fields[0] * (gridsize / snapshot.boxsize), weight, window)
        mass += len(fields[0]) if weight is None else weight.sum(dtype=np.float64)
        taken += len(fields[0])
        if progress is not None:
            progress(done)
    # All near the corner: those of a zoom, which are near each other too, are elsewhere
    base.check_extent(farthest, done, "particles", snapshot.boxsize, snapshot.path)
    if not mass > 0:
        raise DataError(f"{snapshot.path} has particles without mass" if taken else
                        f"{snapshot.path} has no particle in a subsample of subsample={subsample:g}")
    total *= gridsize**3 / mass
    total -= 1
    if not all(snapshot.massive(kind) for kind in snapshot.types):
        return total.astype(np.float32), None, taken
    if snapshot.equal:
        mass *= float(snapshot.masses[snapshot.types[0]])
    return total.astype(np.float32), float(mass) * done / taken, taken
