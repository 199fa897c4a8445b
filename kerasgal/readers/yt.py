"""Snapshots that no other reader here knows, by way of yt (Turk et al. 2011, arXiv:1011.3514), where it is installed.

yt says where the particles are, what they weigh, and the box, the redshift and the cosmology, all with units, which are
brought to comoving Mpc/h, Msun/h and peculiar km/s. What a file does not say of its units yt may assume: hold the mass
of the particles against the mean density. Periodic cubic boxes of cosmological runs are read, and of their particles
those whose types have names that say what they are.
"""

import contextlib
import importlib.util
from dataclasses import dataclass

import numpy as np

from kerasgal.errors import DataError, first_line
from kerasgal.readers import base

KIND = {"gas": 0, "parttype0": 0, "halo": 1, "parttype1": 1, "dm": 1, "darkmatter": 1, "dark_matter": 1, "disk": 2,
        "parttype2": 2, "bulge": 3, "parttype3": 3, "stars": 4, "star": 4, "parttype4": 4, "bndry": 5, "parttype5": 5,
        "parttype6": 6}
FIELDS = {"position": ("particle_position", "Mpccm/h"), "velocity": ("particle_velocity", "km/s"),
          "mass": ("particle_mass", "Msun/h"), "id": ("particle_index", None)}
# Of yt's own readers those of formats that are read here: a file of theirs that is not recognised here is damaged
READ_HERE = ("Gadget", "Gizmo", "Arepo", "Eagle", "OWLS", "Swift", "Tipsy", "AHF", "Rockstar", "HaloCatalog",
             "HDF5Image", "FITS")
EXACT = 2**53  # up to which a float64 holds whole numbers
INSTALL = "pip install 'kerasgal[yt]' may read it"


def is_installed():
    """True if yt is there."""
    return importlib.util.find_spec("yt") is not None


@dataclass(frozen=True)
class Snapshot(base.Snapshot):
    """What yt says of a snapshot; positions are in Mpc/h, masses in Msun/h. names: {type: yt's name of it}."""

    names: dict | None = None
    mass_unit: float = 1.0
    numbered = True

    def velocity_in_km_s(self):
        return 1.0

    def read(self, *names):
        """As of every snapshot, in the order of yt's chunks."""
        dataset = _load(self.path)
        with _errors_of(self.path):
            left = dataset.domain_left_edge.to("Mpccm/h").value
            for kind in self.types:
                for chunk in dataset.all_data().chunks([], "io"):
                    arrays = [_values(chunk[self.names[kind], FIELDS[name][0]], FIELDS[name][1]) for name in names]
                    for start in range(0, len(arrays[0]), base.PARTICLES_AT_ONCE):
                        found = [values[start:start + base.PARTICLES_AT_ONCE] for values in arrays]
                        yield [_checked(name, values, left, self) for name, values in zip(names, found)]


def _checked(name, values, left, snapshot):
    if name == "position":
        values = values - left
        base.check_positions(values, snapshot.boxsize, snapshot.path)
    if name == "mass":
        base.check_masses(values, snapshot.path)
    if name == "id":
        if values.dtype.kind == "f" and len(values) and not np.abs(values).max() < EXACT:
            raise DataError(f"{snapshot.path} has IDs of {EXACT:.3g} and more, which yt reads as numbers that cannot "
                            "tell them apart")
        values = values.astype(np.int64)
    return values


def _values(array, unit):
    """Plain numbers of an array of yt's, in a unit."""
    return np.asarray(array) if unit is None else np.asarray(array.to(unit).value)


@contextlib.contextmanager
def _errors_of(path):
    """Make a DataError of what yt, whose errors are of many kinds, raises over a file."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{path} cannot be read by yt: {first_line(error)}") from error


def _load(path):
    """yt's dataset of a file or folder."""
    import yt
    from yt.config import ytcfg

    yt.set_log_level("error")
    ytcfg["yt", "suppress_stream_logging"] = True  # and bars of progress
    with _errors_of(path):
        dataset = yt.load(str(path))
    if hasattr(dataset, "index_order"):
        dataset.index_order = (1, 1)  # a finer index would be written beside the file
    return dataset


def recognises(seen):
    """Whether yt is there and knows the file, as one of a format that is not read here."""
    if not is_installed() or seen.folder is None and not seen.start:
        return False
    try:
        dataset = _load(seen.path)
    except DataError:
        return False
    return not type(dataset).__name__.startswith(READ_HERE)


def read_header(path, particles="dark"):
    """The `Snapshot` of a file or folder that yt knows; particles: as of all formats.

    Raises DataError if yt does not know it, it is of no cosmological run, its box is no periodic cube, or nothing says
    what its particles are.
    """
    path = base.existing(path)
    dataset = _load(path)
    with _errors_of(path):
        if not dataset.cosmological_simulation:
            raise DataError(f"{path} is of no cosmological run, as yt reads it ({type(dataset).__name__})")
        sides = dataset.domain_width.to("Mpccm/h").value
        if not all(dataset.periodicity):
            raise DataError(f"{path} has a box that is not periodic, as yt reads it; accepted is a periodic cube")
        if not np.allclose(sides, sides[0], rtol=1e-4):
            raise DataError(f"{path} has a box of {' x '.join(f'{side:.5g}' for side in sides)} Mpc/h; accepted is a "
                            "periodic cube")
        held = {name: int(number) for name, number in dataset.particle_type_counts.items() if number}
        cosmology = {"Om0": float(dataset.omega_matter), "h": float(dataset.hubble_constant)}
        redshift = float(dataset.current_redshift)
    names = {KIND[name.lower()]: name for name in held if name.lower() in KIND}
    if not names:
        raise DataError(f"{path} has particles of the types {', '.join(held) or 'none'}, as yt reads it, of which "
                        "nothing says whether they are dark matter; put its density on a grid into a .npy file and "
                        "give `density`")
    counts = np.zeros((1, base.KINDS), np.int64)
    for kind, name in names.items():
        counts[0, kind] = held[name]
    return base.chosen(Snapshot(
        paths=(path,), boxsize=float(sides[0]), length_unit="Mpc", redshift=redshift, cosmology=cosmology,
        counts=counts, masses=np.zeros(base.KINDS), names=names, black_holes=True,
        format=f"{type(dataset).__name__.removesuffix('Dataset')} by yt"), particles)


base.register(name="what yt reads", snapshot=read_header, recognises=recognises, last=True)
