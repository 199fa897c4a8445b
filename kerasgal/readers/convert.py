"""Other people's simulations into a Simulation file, with the particles in Lagrangian order."""

from pathlib import Path

import numpy as np

from kerasgal import simulation
from kerasgal.cosmology import Cosmology, mean_density
from kerasgal.errors import DataError
from kerasgal.files import refuse_existing
from kerasgal.grid import wrap
from kerasgal.readers import gadget

IN_MPC = {"kpc": 1e-3, "Mpc": 1.0}
MEMORY_PER_PARTICLE = 96  # bytes at the peak, where the order of the initial particles is found
# The displacements of neighbours differ by about a third of the density contrast, and that must be linear.
ROUGHNESS_LIMIT = 0.3  # cells
# The median member lies within about one radius; a particle that is taken for a member, anywhere in the box.
DISTANCE_LIMIT = 5  # halo radii


def memory_needed(initial):
    """Bytes of memory that `convert` takes at its peak for the initial conditions `initial` (a path)."""
    return MEMORY_PER_PARTICLE * gadget.read_header(initial).particles


def convert(output, *, initial, final=None, groups=None, length_unit=None, minimum=None, Ob0=None, ns=None,
            sigma8=None, overwrite=False, progress=None):
    """Write the Simulation file `output` from files of Gadget, Arepo or IllustrisTNG; see `readers.gadget`.

    initial, final: paths of the initial conditions and of the snapshot whose structures are wanted; groups:
    path of the FoF/SUBFIND catalogue of `final`, by whose groups the particles of `final` must be sorted.
    length_unit: "kpc" or "Mpc" (comoving, over h), for files that do not say. Where it is not given, such a
    file must have the same BoxSize as another one that says.
    minimum: fewest dark-matter particles of a halo; smaller groups are left out. None keeps all.
    Ob0, ns, sigma8: recorded, not used. Those that are neither given nor in a header are Planck 2018's;
    Arepo's OmegaBaryon = 0, which only says that there is no gas, counts as not in the header.
    progress: called as progress(particles done, particles to do).

    What is written:

    - Particles stand in Lagrangian order. Their IDs must be consecutive, from whatever first one, and number
      a cubic lattice in C or Fortran order; see `lagrangian_order`.
    - The lattice is put where the displacement has no mean. All positions are shifted by the same amount, so
      that the particle of Lagrangian cell (i, j, k) starts from (i + 1/2, j + 1/2, k + 1/2) cells.
    - initial/delta is minus the divergence of the displacement; see `linear_density`.
    - particle_mass is the mass of all matter per Lagrangian cell: that of a particle where `initial` holds
      dark matter alone, else that of a cell at the mean matter density, gas and all.
    - Haloes have the groups' GroupMass, GroupPos and Group_R_Mean200; where that radius is missing or 0, the
      radius of the sphere of 200 times the mean matter density that holds GroupMass. Their count is of
      dark-matter particles.
    - Without `final`, redshift_final is redshift_initial.

    Returns a summary: a dictionary of path, gridsize, boxsize [Mpc/h], redshift_initial, redshift_final,
    halos (their number; None without groups), lattice (in words) and assumed (what no file said, a list of
    words). Raises DataError for files that are missing, unreadable or not of one run, and for particles in no
    Lagrangian order.
    """
    refuse_existing(output, overwrite)
    if groups is not None and final is None:
        raise DataError("a group catalogue (--groups) needs the snapshot that it belongs to (--final)")
    start = gadget.read_header(initial)
    end = None if final is None else gadget.read_header(final)
    catalogue = None if groups is None else gadget.read_groups(groups)
    files = [item for item in (start, end, catalogue) if item is not None]
    assumed = []
    in_mpc = {item.path: IN_MPC[_length_unit(item, files, length_unit, assumed)] for item in files}
    boxsize = start.boxsize * in_mpc[start.path]
    _check_together(start, end, catalogue, in_mpc)
    cosmology = _cosmology(start, end, {"Ob0": Ob0, "ns": ns, "sigma8": sigma8}, assumed)
    particle_mass = _particle_mass(start, boxsize, cosmology)

    gridsize = round(start.particles ** (1 / 3))
    if gridsize**3 != start.particles:
        raise DataError(f"{start.path} has {start.particles} dark-matter particles, which is not the cube of "
                        "a whole number: they have no Lagrangian lattice")
    cellsize = boxsize / gridsize
    first_id = _first_id(start)
    total = start.particles + (0 if end is None else end.particles)

    def reached(done):
        if progress is not None:
            progress(done, total)

    position, velocity, cells = _read(start, first_id, gridsize, "C", np.float64, reached,
                                      lambda position: position * (gridsize / start.boxsize))
    order, displacement = lagrangian_order(position, start.path)
    del position, cells
    offset = displacement.mean(axis=(0, 1, 2), dtype=np.float64)
    displacement -= offset
    displacement *= cellsize
    datasets = {
        "initial/delta": linear_density(displacement, boxsize),
        "initial/displacement": displacement,
        "initial/velocity": _cube(velocity, gridsize, order),
    }
    shift = (0.5 - offset) * cellsize
    if end is not None:
        position, velocity, cells = _read(
            end, first_id, gridsize, order, np.float32, lambda done: reached(start.particles + done),
            lambda position: _shifted(position * in_mpc[end.path], shift, boxsize))
        datasets |= {"final/position": position, "final/velocity": velocity}
    if catalogue is not None:
        halos, rank = _halos(catalogue, minimum)
        halos["position"] = _shifted(halos["position"] * in_mpc[catalogue.path], shift, boxsize)
        halos["radius"] = np.where(halos["radius"] > 0, halos["radius"] * in_mpc[catalogue.path],
                                   np.cbrt(3 * halos["mass"] / (800 * np.pi * mean_density(cosmology))))
        halo_id = np.full(end.particles, -1, np.int32)
        halo_id[cells[:catalogue.count.sum()]] = np.repeat(rank, catalogue.count)
        _check_sorted(halo_id, position, halos, boxsize, end.path, catalogue.path)
        datasets["halo_id"] = halo_id.reshape(gridsize, gridsize, gridsize)
        datasets |= {f"halos/{name}": values for name, values in halos.items()}

    place = ", ".join(f"{value:.3f}" for value in offset.round(3) + 0.0)  # + 0.0: no minus zero
    lattice = f"IDs from {first_id} in {order} order, lattice at ({place}) cells"
    source = f"kerasgal convert: {', '.join(str(item.path) for item in files)}; {lattice}"
    if assumed:
        source += f"; assumed {', '.join(assumed)}"
    redshift_final = start.redshift if end is None else end.redshift
    simulation.write(output, boxsize=boxsize, cosmology=cosmology, redshift_initial=start.redshift,
                     redshift_final=redshift_final, particle_mass=particle_mass, source=source,
                     datasets=datasets, overwrite=overwrite)
    return {
        "path": Path(output), "gridsize": gridsize, "boxsize": boxsize, "redshift_initial": start.redshift,
        "redshift_final": redshift_final, "halos": None if catalogue is None else len(halos["mass"]),
        "lattice": lattice, "assumed": assumed,
    }


def lagrangian_order(position, name):
    """In which order particle IDs number the lattice, and the displacements from it.

    position: (n^3, 3) by ascending ID, periodic, in cells; name: of the file, for messages.
    Returns ("C" or "Fortran", displacement), displacement (n, n, n, 3) float32 in cells, from the points with
    whole coordinates: its mean is the place of the lattice (0 or 1/2 cell in most codes; where gas was split
    off the dark matter, another). In the right order lattice neighbours move almost alike, however far they
    move (beyond a cell, in simulations of high resolution); in a wrong one their displacements differ by
    cells. The order is the one in which they differ by an rms below ROUGHNESS_LIMIT. Raises DataError if not
    exactly one order does.
    """
    n = round(len(position) ** (1 / 3))
    found, roughness = {}, {}
    for order in ("C", "Fortran"):
        cube = _cube(position, n, order)
        displacement = np.empty((n, n, n, 3), np.float32)
        squares = 0.0
        for axis in range(3):
            component = cube[..., axis] - np.arange(n).reshape(np.roll((n, 1, 1), axis))
            component -= n * np.rint(component / n)
            displacement[..., axis] = component
            for direction in range(3):
                squares += np.mean((component - np.roll(component, 1, direction)) ** 2) / 9
        roughness[order] = squares**0.5
        if roughness[order] < ROUGHNESS_LIMIT:
            found[order] = displacement
    if len(found) != 1:
        measured = ", ".join(f"{value:.2g} cells in {order} order" for order, value in roughness.items())
        raise DataError(f"{name}: particle IDs have no Lagrangian order, or these are no initial conditions: "
                        f"displacements of lattice neighbours differ by {measured}; accepted is exactly one "
                        f"below {ROUGHNESS_LIMIT}")
    return found.popitem()


def linear_density(displacement, boxsize):
    """Density contrast to first order in the displacement, minus its divergence (Zel'dovich 1970, A&A 5, 84).

    displacement: (n, n, n, 3) from lattice points; boxsize in the same unit. Returns (n, n, n), float32, on
    the lattice, at the redshift of the displacement. The derivative is spectral; that of the Nyquist wave
    vanishes on the lattice. This is the Zel'dovich approximation: where the displacement is of second order
    (2LPT), the result is off by a fraction of the order of the density contrast itself.
    """
    n = len(displacement)
    wavenumber = 2 * np.pi * np.fft.fftfreq(n, boxsize / n)
    if n % 2 == 0:
        wavenumber[n // 2] = 0
    minus_divergence = np.zeros((n, n, n // 2 + 1), np.complex64)
    for axis in range(3):
        along = (wavenumber[:n // 2 + 1] if axis == 2 else wavenumber).reshape(np.roll((-1, 1, 1), axis))
        minus_divergence -= 1j * along.astype(np.float32) * np.fft.rfftn(displacement[..., axis])
    return np.fft.irfftn(minus_divergence, (n, n, n), axes=(0, 1, 2)).astype(np.float32)


def _length_unit(item, files, length_unit, assumed):
    """The length unit of a snapshot or catalogue: its own, the user's, or that of one of the same BoxSize."""
    if item.length_unit or length_unit:
        return item.length_unit or length_unit
    for other in files:
        if other.length_unit and np.isclose(other.boxsize, item.boxsize):
            assumed.append(f"{other.length_unit}/h in {item.path.name}, as in {other.path.name} of the same "
                           "BoxSize")
            return other.length_unit
    raise DataError(f"{item.path} does not say its length unit (its BoxSize is {item.boxsize:g}); "
                    "give --length-unit kpc or --length-unit Mpc")


def _check_together(start, end, catalogue, in_mpc):
    """Raise DataError if the files are not of one run, or the catalogue is not that of `end`."""
    for other in (end, catalogue):
        if other is None:
            continue
        first, second = (item.boxsize * in_mpc[item.path] for item in (start, other))
        if not np.isclose(first, second, rtol=1e-4):
            raise DataError(f"{start.path} and {other.path} are not of one run: their boxes are {first:g} "
                            f"and {second:g} Mpc/h")
    if end is not None and start.particles != end.particles:
        raise DataError(f"{start.path} and {end.path} are not of one run: they have {start.particles} and "
                        f"{end.particles} dark-matter particles")
    if catalogue is not None and not np.isclose(end.redshift, catalogue.redshift, atol=1e-3):
        raise DataError(f"{catalogue.path} is not the group catalogue of {end.path}: their redshifts are "
                        f"{catalogue.redshift:.3f} and {end.redshift:.3f}")
    if catalogue is not None and catalogue.count.sum() > end.particles:
        raise DataError(f"{catalogue.path} is not the group catalogue of {end.path}: it has "
                        f"{catalogue.count.sum()} dark-matter particles in groups, the snapshot "
                        f"{end.particles} in all")


def _cosmology(start, end, given, assumed):
    """The cosmology of the headers, completed with what is given and then with Planck 2018."""
    given = {name: value for name, value in given.items() if value is not None}
    stated = [snapshot.Ob0 for snapshot in (start, end) if snapshot is not None and snapshot.Ob0 > 0]
    if stated:
        given.setdefault("Ob0", stated[0])
    for name in ("Ob0", "ns", "sigma8"):
        if name not in given:
            assumed.append(f"{name} = {getattr(Cosmology(), name)} (Planck 2018)")
    return Cosmology(Om0=start.Om0, h=start.h, **given)


def _particle_mass(start, boxsize, cosmology):
    """All matter per Lagrangian cell [Msun/h]; raises DataError if the dark matter cannot be its part."""
    mean = mean_density(cosmology) * boxsize**3 / start.particles
    share = start.particle_mass / mean
    if start.particle_mass > 0 and not 0.5 < share < 1.05:
        raise DataError(f"{start.path}: {start.particles} particles of {start.particle_mass:.4g} Msun/h in a "
                        f"box of {boxsize:g} Mpc/h are {share:.3g} of the mean matter density; accepted are "
                        "0.5 to 1.05 (is the length unit right?)")
    alone = start.counts.sum() == start.particles
    return start.particle_mass if alone and start.particle_mass > 0 else mean


def _first_id(snapshot):
    """The lowest particle ID; raises DataError if the IDs span more numbers than there are particles."""
    extremes = [(ids.min(), ids.max()) for ids, in gadget.read(snapshot, "id")]
    lowest, highest = int(min(low for low, _ in extremes)), int(max(high for _, high in extremes))
    if highest - lowest + 1 != snapshot.particles:
        raise DataError(f"{snapshot.path}: particle IDs run from {lowest} to {highest}; accepted are "
                        f"consecutive ones, as the {snapshot.particles} particles of a lattice have")
    return lowest


def _read(snapshot, first_id, gridsize, order, dtype, progress, place):
    """Positions and velocities in Lagrangian order, and the Lagrangian cells in the snapshot's order.

    Returns (n^3, 3) of `dtype`, as `place` makes them of the file's positions, (n^3, 3) float32 and (n^3,).
    Raises DataError if the IDs are not all those from first_id.
    """
    position = np.empty((snapshot.particles, 3), dtype)
    velocity = np.empty((snapshot.particles, 3), np.float32)
    cells = np.empty(snapshot.particles, np.int64)
    unread = np.ones(snapshot.particles, bool)
    done = 0
    for ids, here, moving in gadget.read(snapshot, "id", "position", "velocity"):
        cell = ids.astype(np.int64) - first_id
        if cell.min() < 0 or cell.max() >= snapshot.particles:
            raise DataError(f"{snapshot.path}: particle IDs run from {ids.min()} to {ids.max()}; accepted "
                            f"are {first_id} to {first_id + snapshot.particles - 1}, as in the initial "
                            "conditions")
        if order == "Fortran":
            shape = (gridsize, gridsize, gridsize)
            cell = np.ravel_multi_index(np.unravel_index(cell, shape, "F"), shape)
        position[cell], velocity[cell] = place(here), moving
        unread[cell] = False
        cells[done:done + len(cell)] = cell
        done += len(cell)
        progress(done)
    if unread.any():
        raise DataError(f"{snapshot.path}: {np.count_nonzero(unread)} particle IDs between {first_id} and "
                        f"{first_id + snapshot.particles - 1} are missing, others occur more than once")
    return position, velocity, cells


def _cube(values, gridsize, order):
    """(n^3, 3) values by ascending ID as (n, n, n, 3) on the lattice."""
    cube = values.reshape(gridsize, gridsize, gridsize, 3)
    return cube if order == "C" else cube.transpose(2, 1, 0, 3)


def _shifted(position, shift, boxsize):
    """Positions moved by `shift` and back into the box, float32."""
    return wrap((position + shift).astype(np.float32), boxsize)


def _halos(catalogue, minimum):
    """The columns of /halos, lengths in the catalogue's unit, and each group's row in them, -1 for none."""
    row = np.argsort(-catalogue.mass, kind="stable")
    row = row[catalogue.count[row] >= (minimum or 0)]
    rank = np.full(len(catalogue.mass), -1, np.int32)
    rank[row] = np.arange(len(row))
    return {name: getattr(catalogue, name)[row] for name in simulation.HALO_COLUMNS}, rank


def _check_sorted(halo_id, position, halos, boxsize, snapshot, catalogue):
    """Raise DataError if the halos' particles are nowhere near them: the snapshot is not sorted by group."""
    members = np.flatnonzero(halo_id >= 0)
    members = members[::max(1, len(members) // 100_000)]
    halo = halo_id[members]
    separation = position[members] - halos["position"][halo]
    separation -= boxsize * np.rint(separation / boxsize)
    distance = np.median(np.linalg.norm(separation, axis=1) / halos["radius"][halo]) if len(members) else 0
    if distance > DISTANCE_LIMIT:
        raise DataError(f"{snapshot} is not sorted by the groups of {catalogue}: the median particle of a "
                        f"group would lie {distance:.0f} of its radii from its centre; accepted is up to "
                        f"{DISTANCE_LIMIT}")
