"""Which particle ends in which halo: friends-of-friends, HOP, and the catalogue of either.

A finder returns `halo_id`, (particles,) int32: -1 outside haloes, else the number of the halo. Haloes are
numbered from the one of most particles down; of equal haloes that with the lowest particle index comes first.
"""

import numpy as np

from kerasgal.errors import MissingError
from kerasgal.grid import wrap


def friends_of_friends(position, boxsize, linking_length=0.2, minimum=20):
    """Friends-of-friends haloes (Davis et al. 1985, ApJ 292, 371).

    Particles are friends whose distance is at most the linking length.

    Parameters
    ----------
    position : array
        (particles, 3), in the unit of `boxsize`, periodic.
    boxsize : float
        Side of the box.
    linking_length : float
        In units of the mean separation of the particles, boxsize / particles^(1/3).
    minimum : int
        Fewest particles of a halo.

    Returns
    -------
    array
        `halo_id`, (particles,) int32: the number of the halo, from the one of most particles down, -1 outside haloes.

    Examples
    --------
    >>> import numpy as np
    >>> from kerasgal.halos import friends_of_friends
    >>> clump = np.random.default_rng(0).normal(5, 0.05, (30, 3))
    >>> friends_of_friends(np.concatenate([clump, [[1.0, 1.0, 1.0]]]), boxsize=10)[[0, 29, 30]].tolist()
    [0, 0, -1]
    """
    from kerasgal import particle_kernels

    position = wrap(np.asarray(position, np.float64), boxsize)
    particles = len(position)
    length = linking_length * boxsize / particles**(1 / 3)
    # A little wider than the linking length, lest rounding put friends two cells apart; no more than 2^30 columns
    cells = int(min(max(1, 0.999999 * boxsize / length), 2**15))
    order, column, height, first = _by_column(position, cells, boxsize)
    parent = np.arange(particles, dtype=order.dtype)
    particle_kernels.friends(position[order], column, height, first, cells, boxsize, length, parent)
    # As number_by_size, without a sort: a group is called after the first of its particles.
    lowest = np.full(particles, particles, order.dtype)
    np.minimum.at(lowest, parent, order)
    group = np.empty_like(parent)
    group[order] = lowest[parent]
    count = np.bincount(group, minlength=particles)
    halo = np.flatnonzero(count >= minimum)
    halo = halo[np.argsort(-count[halo], kind="stable")]
    number = np.full(particles, -1, np.int32)
    number[halo] = np.arange(len(halo))
    return number[group]


def _by_column(position, cells, boxsize):
    """The order of particles by column of cells and height in it; both in that order; where each column starts."""
    from kerasgal import particle_kernels

    cell = [np.minimum((position[:, axis] * (cells / boxsize)).astype(np.int32), cells - 1) for axis in range(3)]
    order = np.arange(len(position), dtype=np.int32 if len(position) < 2**31 else np.int64)
    result = np.empty_like(order)
    column = cell[0] * cells + cell[1]
    for key, keys in ((cell[2], cells), (column, cells**2)):
        first = np.zeros(keys + 1, order.dtype)
        np.cumsum(np.bincount(key, minlength=keys), out=first[1:])
        particle_kernels.counting_sort(key, order, first.copy(), result)
        order, result = result, order
    return order, column[order], cell[2][order], first


def hop(position, boxsize, threshold=160.0, minimum=20):
    """HOP haloes (Eisenstein & Hut 1998, astro-ph/9712200), by their own code.

    Parameters
    ----------
    position : array
        (particles, 3), in the unit of `boxsize`, periodic.
    boxsize : float
        Side of the box.
    threshold : float
        Density that a halo's edge has, in units of the mean.
    minimum : int
        Fewest particles of a halo.

    Returns
    -------
    array
        `halo_id`, (particles,) int32; see `friends_of_friends`.

    Raises
    ------
    DataError
        If the optional package yt_astro_analysis is missing.

    Examples
    --------
    >>> from kerasgal.halos import hop
    >>> halo_id = hop(position, boxsize=50.0)  # doctest: +SKIP
    """
    run = hop_finder()
    x, y, z = wrap(np.asarray(position, np.float64) / boxsize, 1).T.copy()
    mass = np.full(len(x), 1 / len(x))  # a mean density of 1
    return number_by_size(run(x, y, z, mass, threshold)[1], minimum)


def hop_finder():
    """HOP of yt_astro_analysis; raises MissingError where that is not installed."""
    try:
        from yt_astro_analysis.halo_analysis.halo_finding.hop.EnzoHop import RunHOP
    except ImportError as error:
        raise MissingError("HOP needs the optional package yt_astro_analysis: install kerasgal[hop]") from error
    return RunHOP


def number_by_size(group, minimum):
    """Any labels of groups as `halo_id`, numbered from the largest group down.

    Parameters
    ----------
    group : array of int
        (particles,), the same number for all particles of a group, negative outside.
    minimum : int
        Fewest particles of a halo; smaller groups are none.

    Returns
    -------
    array
        `halo_id`, (particles,) int32. Of equal haloes that with the lowest particle index comes first.

    Examples
    --------
    >>> import numpy as np
    >>> from kerasgal.halos import number_by_size
    >>> number_by_size(np.array([7, 4, 4, 4, -1, 7, 9]), minimum=2).tolist()
    [1, 0, 0, 0, -1, 1, -1]
    """
    label, first, inverse, count = np.unique(
        group, return_index=True, return_inverse=True, return_counts=True)
    halo = np.flatnonzero((label >= 0) & (count >= minimum))
    halo = halo[np.lexsort((first[halo], -count[halo]))]
    number = np.full(len(label), -1, np.int32)
    number[halo] = np.arange(len(halo))
    return number[inverse]


def catalogue(halo_id, position, boxsize, particle_mass):
    """The catalogue of haloes of which the particles are known.

    No halo may be wider than half a box.

    Parameters
    ----------
    halo_id : array of int
        (particles,), the number of each particle's halo, -1 outside.
    position : array
        (particles, 3), Mpc/h, periodic.
    boxsize : float
        Mpc/h.
    particle_mass : float
        Msun/h.

    Returns
    -------
    dict
        One entry for each halo 0, 1, ... in every array: `mass`, (haloes,), Msun/h; `position`, (haloes, 3), centre of
        mass in [0, boxsize), Mpc/h; `radius`, (haloes,), of the sphere of 200 times the mean matter density that holds
        the mass, Mpc/h; `count`, (haloes,), particles, int64.

    Examples
    --------
    >>> import numpy as np
    >>> from kerasgal.halos import catalogue
    >>> position = np.array([[0.1, 5.0, 5.0], [9.9, 5.0, 5.0], [3.0, 3.0, 3.0]])  # a halo across the box's face
    >>> found = catalogue(np.array([0, 0, -1]), position, boxsize=10.0, particle_mass=1e10)
    >>> found["position"].round(3).tolist(), found["mass"].tolist()
    ([[0.0, 5.0, 5.0]], [20000000000.0])
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


def renumbered(halo_id, rows):
    """Labels of some of the haloes of a catalogue, counted without the others.

    Parameters
    ----------
    halo_id : array of int
        Rows of the catalogue, -1 for no halo; of any shape.
    rows : array of int
        Those that are kept, each once.

    Returns
    -------
    array of int32
        Places in `rows`; -1 for no halo, and for one that is not kept.

    Examples
    --------
    >>> import numpy as np
    >>> from kerasgal.halos import renumbered
    >>> renumbered(np.array([0, 1, 3, -1]), np.array([1, 3])).tolist()
    [-1, 0, 1, -1]
    """
    place = np.full(max(halo_id.max(initial=-1), rows.max(initial=-1)) + 2, -1, np.int32)  # the last is of label -1
    place[rows] = np.arange(len(rows))
    return place[halo_id]
