"""Predicted haloes under the names that other codes read: halotools' columns, and Rockstar's tables in text.

Of both the haloes stand where they end. Their masses are those that the network learnt, of the finder of its training,
and radii are those of the sphere of 200 times the mean matter density that holds the mass. What Rockstar measures
beside these, such as Vmax and Rs, is not predicted and has no column.
"""

import numpy as np

from kerasgal.apps.protohalo.config import NAMINGS
from kerasgal.errors import DataError, SettingError
from kerasgal.files import replacing

# The axes in the order of Rockstar's files; ID, DescID, Mvir, Rvir and Np before them, PID behind, as find_parents
# writes it.
ROCKSTAR_UNITS = {"Mvir": "Msun/h", "Rvir": "kpc/h", **dict.fromkeys(("X", "Y", "Z"), "Mpc/h"),
                  **dict.fromkeys(("VX", "VY", "VZ"), "km/s")}
HALOTOOLS_UNITS = {"halo_mvir": "Msun/h", "halo_rvir": "Mpc/h",
                   **dict.fromkeys(("halo_x", "halo_y", "halo_z"), "Mpc/h"),
                   **dict.fromkeys(("halo_vx", "halo_vy", "halo_vz"), "km/s")}
UNITS = {"halotools": HALOTOOLS_UNITS, "rockstar": ROCKSTAR_UNITS}


def check_naming(naming):
    """Raise SettingError for a naming of columns that is not known."""
    if naming is not None and naming not in NAMINGS:
        raise SettingError(f"columns={naming!r}: accepted are {', '.join(NAMINGS)}", value=naming, accepted=NAMINGS)


def ends_unknown(source, naming):
    """The DataError of a source that does not say its redshift."""
    return DataError(f"{source}: a catalogue for {naming} has the haloes where they end, which takes the redshift of "
                     "the initial density: give it as `redshift`, or a Simulation")


def columns(haloes, naming):
    """The columns of predicted `run.Haloes` under the names of halotools or Rockstar, and in their units.

    Returns {name: (haloes,)}. Every halo is one of its own: no other is its parent. Raises DataError where it is not
    known where the haloes end.
    """
    if "halos/final_position" not in haloes:
        raise ends_unknown(haloes.header["source"], naming)
    row = haloes["halos/halo_id"].astype(np.int64)
    mass, position, velocity = (haloes[f"halos/{name}"] for name in ("mass", "final_position", "velocity"))
    none = np.full(len(row), -1)
    # mass = 4/3 pi radius^3 * 200 * mean density, and a cell holds the mean density
    boxsize, cells = haloes.header["boxsize"], haloes["halos/cells"]
    radius = boxsize * np.cbrt(3 * cells / (4 * np.pi * 200 * haloes.distance.size))
    if naming == "halotools":
        return {"halo_id": row, **dict(zip(("halo_x", "halo_y", "halo_z"), position.T)),
                **dict(zip(("halo_vx", "halo_vy", "halo_vz"), velocity.T)), "halo_mvir": mass, "halo_rvir": radius,
                "halo_upid": none, "halo_pid": none, "halo_hostid": row}
    return {"ID": row, "DescID": none, "Mvir": mass, "Rvir": 1e3 * radius, "Np": cells,
            **dict(zip(("X", "Y", "Z"), position.T)), **dict(zip(("VX", "VY", "VZ"), velocity.T)), "PID": none}


def header(haloes, naming):
    """What such a table says of itself beside what every table does, by the names of halotools or in words."""
    said = {"columns": naming, "masses": "of the halo finder of the training", "radii": "of 200 times the mean density"}
    if naming == "halotools":
        return {**said, "Lbox": haloes.header["boxsize"], "particle_mass": haloes.header["cell_mass"],
                "redshift": haloes.header["redshift"]}
    return said


def write_rockstar(path, haloes, overwrite=False):
    """Write `run.Haloes` as Rockstar writes its out_N.list, in as many of its columns as there are.

    Raises DataError where it is not known where the haloes end, and ExistsError if the file exists.
    """
    table, said = columns(haloes, "rockstar"), haloes.header
    boxsize = said["boxsize"]
    for axis in "XYZ":  # in the digits of the file, too, inside the box
        table[axis] = np.round(table[axis], 5) % boxsize
    formats = {"ID": "%d", "DescID": "%d", "Mvir": "%.4e", "Rvir": "%.3f", "Np": "%d", "PID": "%d",
               **dict.fromkeys("XYZ", "%.5f"), **dict.fromkeys(("VX", "VY", "VZ"), "%.2f")}
    comments = [" ".join(table), f"a = {1 / (1 + said['redshift']):.6f}",
                f"Om = {said['Om0']:.6f}; Ol = {1 - said['Om0']:.6f}; h = {said['h']:.6f}",
                f"Particle mass: {said['cell_mass']:.5e} Msun/h", f"Box size: {boxsize:.6f} Mpc/h",
                "Units: Masses in Msun / h", "Units: Positions in Mpc / h (comoving)",
                "Units: Velocities in km / s (physical, peculiar)",
                "Units: Halo Distances, Lengths, and Radii in kpc / h (comoving)",
                f"kerasgal {said['kerasgal']}: haloes predicted from initial conditions, {said['source']}",
                "Mvir is the mass of the halo finder of the training; Rvir is of 200 times the mean density; Np are "
                "cells", f"watershed: {said['watershed']}"]
    if "parameters" in said:
        comments.append(f"parameters: {said['parameters']}")
    comments += [f"note: {note}" for note in haloes.notes]
    with replacing(path, overwrite) as temporary:
        rows = np.empty(len(table["ID"]), [(name, values.dtype) for name, values in table.items()])
        for name, values in table.items():
            rows[name] = values
        np.savetxt(temporary, rows, fmt=" ".join(formats[name] for name in table), comments="#",
                   header="\n".join(" ".join(line.split()) for line in comments))
