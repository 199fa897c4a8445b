"""Which particle ends in which halo: friends-of-friends, HOP, and the catalogue of either.

A finder returns `halo_id`, (particles,) int32: -1 outside haloes, else the number of the halo. Haloes are
numbered from the one of most particles down; of equal haloes that with the lowest particle index comes first.
"""

import numpy as np
import scipy.sparse
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from kerasgal.errors import DataError
from kerasgal.grid import wrap


def friends_of_friends(position, boxsize, linking_length=0.2, minimum=20):
    """Friends-of-friends haloes (Davis et al. 1985): `halo_id`, (particles,) int32.

    position: (particles, 3) in the unit of boxsize, periodic; linking_length: in units of the mean separation
    of the particles, boxsize / particles^(1/3); minimum: particles that a halo must have.
    """
    position = wrap(np.asarray(position, np.float64), boxsize)
    particles = len(position)
    length = linking_length * boxsize / particles**(1 / 3)
    pairs = cKDTree(position, boxsize=boxsize).query_pairs(length, output_type="ndarray")
    links = scipy.sparse.coo_array((np.ones(len(pairs), bool), pairs.T), shape=(particles, particles))
    return number_by_size(connected_components(links, directed=False)[1], minimum)


def hop(position, boxsize, threshold=160.0, minimum=20):
    """HOP haloes (Eisenstein & Hut 1998, astro-ph/9712200), by their own code: `halo_id`, (particles,) int32.

    position: (particles, 3) in the unit of boxsize, periodic; threshold: density that a halo's edge has, in
    units of the mean; minimum: particles that a halo must have.
    Raises DataError where the optional package yt_astro_analysis is missing.
    """
    try:
        from yt_astro_analysis.halo_analysis.halo_finding.hop.EnzoHop import RunHOP
    except ImportError as error:
        raise DataError("HOP needs the optional package yt_astro_analysis: install kerasgal[hop]") from error
    x, y, z = wrap(np.asarray(position, np.float64) / boxsize, 1).T.copy()
    mass = np.full(len(x), 1 / len(x))  # a mean density of 1
    return number_by_size(RunHOP(x, y, z, mass, threshold)[1], minimum)


def number_by_size(group, minimum):
    """Any labels of groups, negative outside, to `halo_id`."""
    label, first, inverse, count = np.unique(
        group, return_index=True, return_inverse=True, return_counts=True)
    halo = np.flatnonzero((label >= 0) & (count >= minimum))
    halo = halo[np.lexsort((first[halo], -count[halo]))]
    number = np.full(len(label), -1, np.int32)
    number[halo] = np.arange(len(halo))
    return number[inverse]


def catalogue(halo_id, position, boxsize, particle_mass):
    """The haloes of `halo_id`, (particles,), as a dictionary of arrays, one entry for each halo 0, 1, ...

    position: (particles, 3), Mpc/h, periodic; boxsize: Mpc/h; particle_mass: Msun/h. No halo may be wider
    than half a box. The arrays are
        mass: (haloes,), Msun/h;
        position: (haloes, 3), centre of mass in [0, boxsize), Mpc/h;
        radius: (haloes,), of the sphere of 200 times the mean matter density that holds the mass, Mpc/h;
        count: (haloes,), particles, int64.
    """
    count = np.bincount(halo_id[halo_id >= 0])
    member = np.flatnonzero(halo_id >= 0)
    member_halo = halo_id[member]
    _, first = np.unique(member_halo, return_index=True)
    anchor = np.asarray(position, np.float64)[member[first]]
    # Relative to one of the halo's own particles, a halo across the box's edge is in one piece.
    offset = position[member] - anchor[member_halo]
    offset -= boxsize * np.rint(offset / boxsize)
    mean_offset = [np.bincount(member_halo, offset[:, axis]) / count for axis in range(3)]
    # count * particle_mass = 4/3 pi radius^3 * 200 * len(position) * particle_mass / boxsize^3
    radius = boxsize * np.cbrt(3 * count / (4 * np.pi * 200 * len(position)))
    return {
        "mass": count * float(particle_mass),
        "position": wrap(anchor + np.stack(mean_offset, axis=-1), boxsize),
        "radius": radius,
        "count": count,
    }
