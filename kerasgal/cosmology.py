"""A flat LCDM background and its linear theory, from colossus (Diemer 2018, arXiv:1712.04512)."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from colossus.cosmology import cosmology as colossus_cosmology

from kerasgal.errors import DataError, SettingError


@dataclass(frozen=True)
class Cosmology:
    """A flat LCDM universe; the defaults are Planck 2018 with lensing and BAO (arXiv:1807.06209, Table 2).

    Parameters
    ----------
    Om0, Ob0 : float
        Densities of matter and baryons over the critical density, at z=0.
    h : float
        H0 / (100 km/s/Mpc).
    ns : float
        Tilt of the primordial spectrum.
    sigma8 : float
        Linear rms in spheres of 8 Mpc/h, at z=0.

    Raises
    ------
    SettingError
        If this is no flat LCDM universe.

    Examples
    --------
    >>> import kerasgal as kg
    >>> kg.Cosmology(Om0=0.3).h
    0.6766
    """

    Om0: float = 0.3111
    Ob0: float = 0.0490
    h: float = 0.6766
    ns: float = 0.9665
    sigma8: float = 0.8102

    def __post_init__(self):
        # h above 10 is an H0 in km/s/Mpc, or nonsense of a damaged file, on which colossus overflows.
        if not (0 < self.Ob0 < self.Om0 <= 1 and 0 < self.h < 10 and 0 < self.sigma8 < 10 and abs(self.ns) < 10):
            raise SettingError("not a flat LCDM universe: needed are 0 < Ob0 < Om0 <= 1, 0 < h < 10, 0 < sigma8 < 10 "
                               f"and |ns| < 10, received Om0 {self.Om0:g}, Ob0 {self.Ob0:g}, h {self.h:g}, "
                               f"ns {self.ns:g}, sigma8 {self.sigma8:g}")


PLANCK_2018 = Cosmology()


@lru_cache
def _colossus(cosmology):
    # Without relativistic species the growth is that of the N-body integrator: matter and Lambda only.
    # persistence="": colossus would otherwise keep a cache in the home directory.
    return colossus_cosmology.Cosmology(
        name="kerasgal", flat=True, H0=100 * cosmology.h, Om0=cosmology.Om0, Ob0=cosmology.Ob0,
        sigma8=cosmology.sigma8, ns=cosmology.ns, relspecies=False, persistence="",
    )


def linear_power(cosmology, k):
    """Linear matter power spectrum at z=0 (Eisenstein & Hu 1998, astro-ph/9709112, with baryons).

    Parameters
    ----------
    cosmology : Cosmology
        The universe.
    k : float or array
        Wavenumbers above 0, h/Mpc, of any shape.

    Returns
    -------
    array
        (Mpc/h)^3, of the shape of `k`.

    Examples
    --------
    >>> from kerasgal.cosmology import Cosmology, linear_power
    >>> bool(linear_power(Cosmology(), 0.02) > linear_power(Cosmology(), 0.2))
    True
    """
    return _colossus(cosmology).matterPowerSpectrum(np.asarray(k, dtype=float), z=0.0)


def growth_factor(cosmology, z):
    """Linear growth factor D1, 1 at z=0.

    Parameters
    ----------
    cosmology : Cosmology
        The universe.
    z : float or array
        Redshifts, of any shape, up to 500.

    Returns
    -------
    array
        Of the shape of `z`.

    Raises
    ------
    DataError
        For a redshift outside of what colossus tabulates.

    Examples
    --------
    >>> from kerasgal.cosmology import Cosmology, growth_factor
    >>> growth_factor(Cosmology(), [0.0, 1.0]).round(3).tolist()
    [1.0, 0.608]
    """
    z = np.asarray(z, dtype=float)
    outside = z[~((z > -0.99) & (z <= 500))]
    if outside.size:
        raise DataError(f"growth is known up to redshift 500, received {outside[0]:g}", value=float(outside[0]),
                        accepted=(None, 500))
    return _colossus(cosmology).growthFactor(z)


def mean_density(cosmology):
    """Comoving mean matter density.

    Parameters
    ----------
    cosmology : Cosmology
        The universe.

    Returns
    -------
    float
        Msun h^2 / Mpc^3: times a volume in (Mpc/h)^3 it is a mass in Msun/h.

    Examples
    --------
    >>> from kerasgal.cosmology import Cosmology, mean_density
    >>> f"{mean_density(Cosmology()) * (50 / 64)**3:.2e} Msun/h"  # of a particle, 64^3 of them in 50 Mpc/h
    '4.12e+10 Msun/h'
    """
    return 1e9 * _colossus(cosmology).rho_m(0.0)  # colossus counts in Msun h^2 / kpc^3
