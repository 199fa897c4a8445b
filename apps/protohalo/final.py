"""Where predicted haloes end up: their Lagrangian patches moved by perturbation theory.

A patch moves as its particles do on average. Second-order Lagrangian perturbation theory gives the motion of each
(Bouchet et al. 1995, astro-ph/9406013), as in PINOCCHIO (Monaco et al. 2002, astro-ph/0109323) and mass-Peak Patch
(Stein, Alvarez & Bond 2019, arXiv:1810.07727).
"""

import numpy as np

from kerasgal import nbody
from kerasgal.grid import wrap


def final_haloes(halo_id, position, delta, boxsize, cosmology, redshift_initial, redshift_final):
    """Positions and velocities of haloes at the final redshift, from the initial density.

    Parameters
    ----------
    halo_id : array of int
        (n, n, n), the halo of every Lagrangian cell, -1 for none.
    position : array
        (haloes, 3), Lagrangian centres of mass, Mpc/h.
    delta : array
        (n, n, n), linear density contrast at the initial redshift.
    boxsize : float
        Mpc/h.
    cosmology : Cosmology
        Of the growth.
    redshift_initial, redshift_final : float
        Of `delta`, and of the result.

    Returns
    -------
    final_position : array
        (haloes, 3), comoving Mpc/h in [0, boxsize).
    velocity : array
        (haloes, 3), peculiar, km/s.

    Examples
    --------
    >>> import numpy as np
    >>> import kerasgal as kg
    >>> from kerasgal.apps.protohalo.final import final_haloes
    >>> box = kg.simulate(particles=32, boxsize=25, seed=1)
    >>> cells = box["halo_id"][...]
    >>> found, velocity = final_haloes(cells, np.zeros((cells.max() + 1, 3)), box.delta(), 25.0, box.cosmology,
    ...                                box.redshift_initial, 0.0)
    >>> found.shape == velocity.shape == box["halos/position"].shape
    True
    """
    return moved(halo_id, position, boxsize, *motion(delta, boxsize, cosmology, redshift_initial, redshift_final))


def motion(delta, boxsize, cosmology, redshift_initial, redshift_final):
    """Displacement, comoving Mpc/h, and peculiar velocity, km/s, of every cell at the end: two (n, n, n, 3) float32.

    The arguments are those of `final_haloes`.
    """
    growth = nbody.growth_history(cosmology)
    a = 1 / (1 + redshift_final)
    then, now = growth(1 / (1 + redshift_initial)), growth(a)
    today = np.asarray(delta, np.float32) / np.float32(then.D1)
    first, second = nbody.displacement_1lpt(today, boxsize), nbody.displacement_2lpt(today, boxsize)
    # A momentum is a^2 dx/dt, a velocity a dx/dt.
    velocity = np.float32(100 / a) * (np.float32(now.p1) * first + np.float32(now.p2) * second)
    return np.float32(now.D1) * first + np.float32(now.D2) * second, velocity


def moved(halo_id, position, boxsize, displacement, velocity):
    """Positions and velocities of haloes, (haloes, 3) each, from those of their cells; see `final_haloes`."""
    haloes = len(position)
    return (wrap(position + mean_of_haloes(displacement, halo_id, haloes), boxsize),
            mean_of_haloes(velocity, halo_id, haloes))


def mean_of_haloes(vector, halo_id, haloes):
    """The mean of a vector field, (n, n, n, 3), over the cells of each halo: (haloes, 3); NaN for one without cells."""
    inside = halo_id >= 0
    cells = np.bincount(halo_id[inside], minlength=haloes)
    total = np.stack([np.bincount(halo_id[inside], vector[..., axis][inside], haloes) for axis in range(3)], axis=1)
    with np.errstate(invalid="ignore"):
        return total / cells[:, None]
