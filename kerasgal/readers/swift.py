"""Snapshots of SWIFT in HDF5, by its documentation (swift.strw.leidenuniv.nl/docs, "Snapshots").

Its units stand in the group Units, in cgs; lengths are comoving, and neither they nor masses have an h in them.
Velocities are peculiar. The cosmology stands in the group Cosmology. Here all is brought to Mpc/h, Msun/h and km/s.
"""

from dataclasses import dataclass

import numpy as np

from kerasgal.errors import DataError, MissingError
from kerasgal.readers import base, gadget_hdf5, gadget_header
from kerasgal.readers.gadget_header import attributes_of, number, numbers

UNITS = {"length": "Unit length in cgs (U_L)", "mass": "Unit mass in cgs (U_M)", "time": "Unit time in cgs (U_t)"}
MPC, SOLAR_MASS = 3.08567758e24, 1.98841e33  # cm, g


@dataclass(frozen=True)
class Snapshot(gadget_hdf5.Snapshot):
    """A snapshot of SWIFT; positions are in Mpc/h. length: Mpc/h of the files' own unit."""

    length: float = 1.0
    format: str = "SWIFT in HDF5"
    coarse = (2,)  # 3 is sink particles

    def velocity_in_km_s(self):
        return self.velocity_unit

    def some(self, number, kind, start, stop, names):
        fields = super().some(number, kind, start, stop, names)
        return [values * self.length if name == "position" else values for name, values in zip(names, fields)]


def read_header(path, particles="dark"):
    """The `Snapshot` to which a file belongs, as `gadget_hdf5.read_header`."""
    path = base.existing(path)
    with base.opened(path) as file:
        attributes = attributes_of(file, "snapshot")
        missing = [name for name in ("Cosmology", "Units") if name not in file]
        if missing:
            raise MissingError(f"{path} has no group {' and no group '.join(missing)}, which a snapshot of SWIFT has")
        unit = {name: number(file["Units"].attrs, called) for name, called in UNITS.items()}
        said = dict(file["Cosmology"].attrs)
    if None in unit.values():
        raise MissingError(f"{path} does not say its units: its group Units has not all of {', '.join(UNITS.values())}")
    if "Cosmological run" in said and not numbers(said["Cosmological run"])[0]:
        raise DataError(f"{path} is of no cosmological run")
    h = number(said, "h")
    if h is None:
        raise MissingError(f"{path} does not say h, by which its lengths are brought to Mpc/h")
    sides = np.unique(numbers(attributes.get("BoxSize", 0.0)))
    if len(sides) > 1:
        raise DataError(f"{path} has a BoxSize of {sides}; accepted is a cube")
    if numbers(attributes.get("Virtual", 0))[0] > 0:  # one file through which all others are read
        attributes["NumFilesPerSnapshot"] = 1
    made = gadget_hdf5.particles_of(path, attributes, lambda attributes: (
        gadget_header.redshift(attributes), number(attributes, "BoxSize")))
    length, side = unit["length"] / MPC * h, number(attributes, "BoxSize")
    snapshot = base.chosen(Snapshot(
        boxsize=None if side is None else side * length, length_unit="Mpc", length=length,
        redshift=gadget_header.redshift({**said, **attributes} if "Redshift" in attributes else said),
        mass_unit=unit["mass"] / SOLAR_MASS * h, velocity_unit=unit["length"] / unit["time"] / 1e5,
        cosmology=gadget_header.cosmology(said, path), **made | {"black_holes": True}), particles)
    if particles is not None:
        gadget_hdf5.check_totals(snapshot, attributes)
    return snapshot


base.register(
    name="SWIFT in HDF5", snapshot=read_header, recognises=lambda seen: seen.hdf5 is not None and (
        "Cosmology" in seen.hdf5 and UNITS["length"] in seen.hdf5.get("Units", ())))
