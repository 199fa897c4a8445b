"""CAESAR's catalogues of haloes and galaxies, in HDF5.

The layout is from CAESAR's documentation (caesar.readthedocs.io, "Catalog Quantities"), its code
(simulation_attributes.py) and other readers of it, and has not been tried on a catalogue of CAMELS.
"""

import numpy as np

from kerasgal.errors import DataError, MissingError
from kerasgal.readers import base
from kerasgal.readers.base import check_columns, check_values, columns_of, opened

# In CAESAR's own unit registry "cm" at the end of a length says that it is comoving.
IN_MPC = {"kpccm": 1e-3, "Mpccm": 1.0}


def _header(file):
    """Box side [Mpc], h, redshift and cosmology of a catalogue."""
    attributes = file["simulation_attributes"].attrs
    missing = [name for name in ("boxsize", "boxsize_units", "hubble_constant", "redshift") if name not in attributes]
    if missing:
        raise MissingError(f"{file.filename} has no {', '.join(missing)} in its simulation_attributes")
    h = float(attributes["hubble_constant"])
    said = {"h": h, "Om0": attributes.get("omega_matter"), "Ob0": attributes.get("omega_baryon")}
    return (float(attributes["boxsize"]) * _unit(file, attributes["boxsize_units"]), h, float(attributes["redshift"]),
            {name: float(value) for name, value in said.items() if value is not None and 0 < float(value) < np.inf})


def _unit(file, unit):
    unit = unit.decode() if isinstance(unit, bytes) else str(unit)
    if unit not in IN_MPC:
        raise DataError(f"{file.filename} has lengths in {unit}; accepted are {' and '.join(IN_MPC)}")
    return IN_MPC[unit]


def _lengths(file, name, h):
    """A dataset in Mpc/h."""
    return file[name][...] * (_unit(file, file[name].attrs.get("unit", "")) * h)


def read_groups(path, h=None):
    """The `base.Groups` of a catalogue."""
    with opened(path) as file:
        side, h, redshift, cosmology = _header(file)
        mass, count = columns_of(file, "halo_data", ("dicts/masses.total", "ndm"))
        centre = "halo_data/minpotpos" if "halo_data/minpotpos" in file else "halo_data/pos"
        columns_of(file, "halo_data", ("pos",))
        position = _lengths(file, centre, h)
        check_columns(path, position, mass=mass, count=count)
        check_values(path, mass=mass, count=count)
        # Radii there are those of 200 times the critical density; ours are of the mean: from the mass.
        return base.Groups(paths=(path,), boxsize=side * h, length_unit="Mpc", redshift=redshift, mass=mass * h,
                           position=position, radius=np.zeros(len(mass)), count=count.astype(np.int64),
                           cosmology=cosmology, finder="fof")


def read_galaxies(path):
    """The `base.Galaxies` of a catalogue."""
    with opened(path) as file:
        side, h, redshift, cosmology = _header(file)
        mass, stars, host, central = columns_of(
            file, "galaxy_data", ("dicts/masses.stellar", "nstar", "parent_halo_index", "central"))
        columns_of(file, "galaxy_data", ("pos",))
        position = _lengths(file, "galaxy_data/pos", h)
        check_columns(path, position, mass=mass, stars=stars, host=host, central=central)
        return base.Galaxies(
            paths=(path,), boxsize=side * h, length_unit="Mpc", redshift=redshift, position=position, mass=mass * h,
            stars=stars, group=np.maximum(host.astype(np.int64), -1), central=central.astype(bool),
            cosmology=cosmology)


def has_groups(path):
    """True if a catalogue has the haloes of its galaxies, too."""
    with opened(path) as file:
        return "halo_data" in file


base.register(
    name="CAESAR in HDF5", groups=read_groups, galaxies=read_galaxies, has_groups=has_groups,
    recognises=lambda seen: seen.hdf5 is not None and "simulation_attributes" in seen.hdf5 and (
        "galaxy_data" in seen.hdf5 or "halo_data" in seen.hdf5))
