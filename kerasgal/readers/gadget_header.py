"""Headers of the HDF5 files of the Gadget family: snapshots, and the group catalogues of FoF and SUBFIND.

Formats: the user guide of Gadget-2 (Springel 2005, astro-ph/0505010), section 6; the data specifications at
https://www.tng-project.org/data/docs/specifications. Masses are in 1e10 Msun/h and velocities in km/s sqrt(a), as in
all these codes by default, unless a header states other units. What a header does not say is None here, and the
caller's to find.
"""

import numpy as np

from kerasgal.errors import DataError, MissingError
from kerasgal.readers import parameters
from kerasgal.readers.base import KINDS

MASS_UNIT = 1e10  # Msun/h
LENGTH_UNITS_IN_CM = {"kpc": 3.085678e21, "Mpc": 3.085678e24}
SOLAR_MASS = 1.989e33  # g
UNIT_TOLERANCE = 1e-3  # codes write the solar mass and the parsec with three to seven digits
# The names of the units, the second those of newer versions of Gizmo, which may count h in.
LENGTH, MASS, VELOCITY = (("UnitLength_in_cm", "UnitLength_In_CGS"), ("UnitMass_in_g", "UnitMass_In_CGS"),
                          ("UnitVelocity_in_cm_per_s", "UnitVelocity_In_CGS"))


def attributes_of(file, kind, needed=()):
    """All attributes of an HDF5 file's Header, of its Parameters, where Gadget-4 keeps cosmology and units, and Units.

    EAGLE's version of Gadget-3 has a group Units.
    """
    if "Header" not in file:
        raise DataError(f"{file.filename} has no group Header, so it is no Gadget {kind}; it holds "
                        f"{', '.join(file) or 'nothing'}")
    attributes = {}
    for group in ("Units", "Parameters", "Header"):
        attributes |= file[group].attrs if group in file else {}
    missing = [name for name in needed if name not in attributes]
    if missing:
        raise MissingError(f"{file.filename} has no {', '.join(missing)} in its header")
    return attributes


def numbers(attribute):
    """An attribute as a row of numbers, (n,) float64; a single NaN where it has none."""
    try:
        values = np.ravel(np.asarray(attribute, float))
    except (TypeError, ValueError):
        values = np.zeros(0)
    return values if len(values) else np.full(1, np.nan)


def number(attributes, name, otherwise=None):
    """A header's number, the first of several; `otherwise` where it has none or one that is not positive."""
    value = numbers(attributes.get(name, np.nan))[0]
    return float(value) if 0 < value < np.inf else otherwise


def by_type(attributes, name):
    """A header's numbers by particle type, (KINDS,) float64; zero for those that it does not say."""
    values = np.nan_to_num(numbers(attributes.get(name, 0.0)), nan=0, posinf=0, neginf=0)[:KINDS]
    return np.pad(values, (0, KINDS - len(values)))


def redshift(attributes):
    """The redshift of a header, or of its time, which is the expansion factor; None where it says neither."""
    if "Redshift" in attributes:
        # Arepo's final time is 1 up to rounding.
        value = round(float(numbers(attributes["Redshift"])[0]), 12)
    else:
        time = number(attributes, "Time")
        value = np.nan if time is None else round(1 / time - 1, 12)
    return value if -1 < value < np.inf else None


def stated_unit(attributes, names, path):
    """The name and the value of a unit that a header states, None where it states none.

    Raises DataError for one that is no number.
    """
    name = next((name for name in names if name in attributes), None)
    if name is None:
        return None
    value = number(attributes, name, np.nan)
    if not value > 0:
        raise DataError(f"{path} has {name} = {value:g}; accepted is a number above 0")
    return name, value


def length_unit(attributes, path):
    """The length unit that a header states, "kpc" or "Mpc" over h, or None; raises DataError for another."""
    stated = stated_unit(attributes, LENGTH, path)
    if stated is None:
        return None
    name, value = stated
    # Gizmo may write the unit with h counted in.
    factors = (1.0, number(attributes, "HubbleParam", 1.0)) if "CGS" in name else (1.0,)
    for unit, accepted in LENGTH_UNITS_IN_CM.items():
        if any(abs(value * factor / accepted - 1) < UNIT_TOLERANCE for factor in factors):
            return unit
    raise DataError(f"{path} has {name} = {value:g}; accepted are "
                    + " and ".join(f"{value:g} ({unit})" for unit, value in LENGTH_UNITS_IN_CM.items()))


def mass_unit(attributes, path):
    """Msun/h of a unit of mass; 1e10 where a header does not say."""
    stated = stated_unit(attributes, MASS, path)
    if stated is None:
        return MASS_UNIT
    name, value = stated
    exponent = np.log10(value / SOLAR_MASS)
    h = number(attributes, "HubbleParam", 1.0)
    if "CGS" in name and abs(exponent - np.rint(exponent)) > UNIT_TOLERANCE:
        exponent = np.log10(value * h / SOLAR_MASS)
    # Written with few digits: a power of ten means it.
    return float(10.0 ** (np.rint(exponent) if abs(exponent - np.rint(exponent)) < UNIT_TOLERANCE else exponent))


def velocity_unit(attributes, path):
    """km/s of a unit of velocity; 1 where a header does not say."""
    stated = stated_unit(attributes, VELOCITY, path)
    return 1.0 if stated is None else stated[1] / 1e5


def cosmology(attributes, path):
    """{name: value} of what a header says of the cosmology, under any of its usual names."""
    found, _ = parameters.cosmology_in({name: float(numbers(value)[0]) for name, value in attributes.items()
                                        if parameters.our_name(name) or parameters.folded(name) in parameters.KNOWN},
                                       path)
    return found
