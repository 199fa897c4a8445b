"""Other people's simulations into a Simulation file.

Three ways lead there. From initial conditions, and a snapshot of the same particles: particles in Lagrangian order.
From either of them alone: its matter on a grid. From a density field: that field. Haloes and galaxies from catalogues
come with any of a final time.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from kerasgal import halos as finder
from kerasgal import simulation
from kerasgal.cosmology import Cosmology, mean_density
from kerasgal.errors import DataError
from kerasgal.files import refuse_existing
from kerasgal.grid import wrap
from kerasgal.readers import catalogues, fields, gadget, tipsy

IN_MPC = {"kpc": 1e-3, "Mpc": 1.0}
MEMORY_PER_PARTICLE = 96  # bytes at the peak, where the order of the initial particles is found
MEMORY_PER_MEMBER = 180  # bytes at the peak, of a particle in a table of members
MEMORY_PER_GROUP = 200  # bytes at the peak, where they are put in order
MEMORY_PER_CELL = 12  # bytes at the peak, where a field is written
MEMORY_OF_SOME = 2e8  # bytes, of the particles that are read at once
# Of the mean matter density: of one run that has gas, or of dark matter alone up to rounding. CAMELS goes down to 0.3.
SHARE_OF_DARK_MATTER = (0.05, 1.05)
# The displacements of neighbours differ by about a third of the density contrast, and that must be linear.
ROUGHNESS_LIMIT = 0.3  # cells
LAYERS = 32  # of the lattice, by which its order is found before it is checked throughout
# The median member lies within about one radius; a particle that is taken for a member, anywhere in the box.
DISTANCE_LIMIT = 5  # halo radii
BOXES = (1e-3, 1e6)  # Mpc/h
STELLAR_MASS = 2e8  # Msun/h; some 15 star particles at the resolution of CAMELS, 200 at that of TNG100
# What files may leave unsaid: its name in their headers, and the flag that says it.
UNSAID = {"boxsize": ("BoxSize", "--boxsize"), "redshift": ("Redshift", "--redshift"),
          "Om0": ("Omega0", "--omega-matter"), "h": ("HubbleParam", "--hubble")}


def memory_needed(initial=None, grid=None, groups=None, galaxies=None):
    """Bytes of memory that `convert` takes at its peak.

    initial, groups, galaxies: paths, as in `convert`; grid: cells a side, where there are no initial conditions.
    """
    listed = [catalogues.number_of_groups(path) for path in (groups, galaxies) if path is not None]
    of_groups = MEMORY_PER_GROUP * max((number for number in listed if number is not None), default=0)
    if grid:
        return MEMORY_OF_SOME + MEMORY_PER_CELL * grid**3 + of_groups
    return (MEMORY_PER_MEMBER if None in listed else MEMORY_PER_PARTICLE) * _open(initial).particles + of_groups


def convert(output, *, initial=None, final=None, groups=None, galaxies=None, density=None, counts=None, quantity=None,
            index=None, parameter_table=None, grid=None, window="cic", particles="dark", stellar_mass=None,
            minimum_stars=None, minimum=None, length_unit=None, boxsize=None, redshift=None, Om0=None, h=None, Ob0=None,
            ns=None, sigma8=None, overwrite=False, progress=None):
    """Write the Simulation file `output` from other people's files; one of initial, final or density is needed.

    initial: path of initial conditions, with `final` the snapshot whose structures are wanted; either alone and with
    `grid`: of a snapshot whose matter goes on a grid, whatever its IDs. Gadget-1 binary, HDF5 of Gadget, Arepo, Gizmo
    or IllustrisTNG, or TIPSY; see `readers.gadget` and `readers.tipsy`.
    groups: path of a catalogue of haloes of `final`: FoF/SUBFIND, CAESAR, Rockstar, HOP or a table of members; see
    `readers.catalogues`. With `initial`, haloes need members: those of FoF/SUBFIND are the particles that it lists
    (IDs/ID), or else the first ones of a snapshot that is sorted by group.
    galaxies: path of a SUBFIND or CAESAR catalogue; galaxies are its subhaloes with stars of at least `stellar_mass`
    (Msun/h; None is STELLAR_MASS) or, where minimum_stars is given, of at least so many particles. It may be that of
    another run with the same box, such as the hydrodynamic twin of a run of dark matter.
    density, quantity: of a field in a file, and what it is; counts: galaxies in the cells of the same grid; index:
    which simulation in the file; parameter_table: of such simulations; see `readers.fields`.
    grid, window, particles: cells a side of that field, "ngp", "cic" or "tsc", and which particles are put on it:
    "dark", "gas", "stars" or "all".
    length_unit: "kpc" or "Mpc" (comoving, over h), for files that do not say. Where it is not given, such a
    file must have the same BoxSize as another one that says.
    boxsize [Mpc/h], redshift, Om0, h: for files that do not say; redshift: of `final` and of catalogues.
    minimum: fewest dark-matter particles of a halo; smaller groups are left out. None keeps all.
    Ob0, ns, sigma8: recorded, not used. Those that are neither given nor in a header are Planck 2018's;
    Arepo's OmegaBaryon = 0, which only says that there is no gas, counts as not in the header.
    progress: called as progress(particles done, particles to do).

    What is written of particles with `initial`:

    - Particles stand in Lagrangian order. Their IDs must be consecutive, from whatever first one, and number
      a cubic lattice in C or Fortran order; see `lagrangian_order`. TIPSY files have no IDs: their order counts.
    - The lattice is put where the displacement has no mean. All positions are shifted by the same amount, so
      that the particle of Lagrangian cell (i, j, k) starts from (i + 1/2, j + 1/2, k + 1/2) cells.
    - initial/delta is minus the divergence of the displacement; see `linear_density`.
    - particle_mass is the mass of all matter per Lagrangian cell: that of a particle where `initial` holds
      dark matter alone, else that of a cell at the mean matter density, gas and all.
    - Without `final`, redshift_final is redshift_initial.

    What is written of a field: final/delta, of initial conditions initial/delta; particle_mass is the mass of all
    matter per particle of dark matter, or per cell of an initial field or one that comes from a file or of other
    particles; redshift_initial is redshift_final.

    Haloes have the groups' GroupMass, GroupPos and Group_R_Mean200 (or their catalogue's own); where that radius is
    missing or 0, the radius of the sphere of 200 times the mean matter density that holds the mass. Their count is of
    dark-matter particles. Without `groups`, a field with galaxies has the haloes of their catalogue, if it has any.

    Returns a summary: a dictionary of path, gridsize (of particles or cells), boxsize [Mpc/h], redshift_initial,
    redshift_final, halos and galaxies (their numbers; None without), lattice (in words) and assumed (what no file
    said, a list of words). Raises DataError for files that are missing, unreadable or not of one run, for particles in
    no Lagrangian order, and, naming the flag, for what no file says.
    """
    refuse_existing(output, overwrite)
    if groups is not None and final is None and density is None:
        raise DataError("a group catalogue (--groups) needs the snapshot that it belongs to (--final)")
    if initial is None and final is None and density is None:
        raise DataError("nothing to convert; accepted are --initial, --final or --density")
    if galaxies is not None and final is None and density is None:
        raise DataError("a catalogue of galaxies (--galaxies) needs the snapshot that it belongs to (--final)")
    if grid and initial is not None and final is not None:
        raise DataError("--grid is for initial conditions or a snapshot alone; give one of --initial and --final")
    if initial is None and final is not None and not grid:
        raise DataError("a snapshot without initial conditions goes on a grid; give --grid")
    given = {"boxsize": boxsize, "redshift": redshift, "Om0": Om0, "h": h, "Ob0": Ob0, "ns": ns, "sigma8": sigma8}
    parameters = _parameters(parameter_table, index, density, given)
    lagrangian = initial is not None and not grid
    start = None if initial is None else _open(initial, particles if grid else "dark")
    end = None if final is None else _open(final, "dark" if start else particles)
    catalogue = None if groups is None else catalogues.read_groups(groups, given["h"])
    hosts = None if galaxies is None else catalogues.read_galaxies(galaxies)
    if groups is None and hosts is not None and start is None and catalogues.has_groups(galaxies):
        catalogue = catalogues.read_groups(galaxies)
    _check_kind(catalogue, start)

    files = [item for item in (start, end, catalogue, hosts) if item is not None]
    headed = [item for item in files if not isinstance(item, catalogues.Members)]
    assumed = []
    source = start or end or density
    facts = _facts(source, headed, start, given, length_unit)
    in_mpc = _units(headed, facts["boxsize"], length_unit, assumed)
    facts["boxsize"] = facts["boxsize"] or headed[0].boxsize * in_mpc[headed[0].path]
    if not BOXES[0] <= facts["boxsize"] <= BOXES[1]:
        raise DataError(f"the box has {facts['boxsize']:g} Mpc/h; accepted are {BOXES[0]:g} to {BOXES[1]:g} (is the "
                        "length unit right, or a file damaged?)")
    start, end, catalogue, hosts = (_completed(item, facts, in_mpc) for item in (start, end, catalogue, hosts))
    _check_together([item for item in (start, end, catalogue, hosts) if getattr(item, "path", None) in in_mpc], in_mpc,
                    facts["boxsize"])
    _check_catalogue(start, end, catalogue, hosts, facts["redshift"])
    cosmology = _cosmology(facts, [start, end], given, assumed)
    boxsize = facts["boxsize"]

    if lagrangian:
        made = _from_particles(start, end, boxsize, in_mpc, progress)
    elif start is not None or end is not None:
        name, snapshot = ("final/delta", end) if start is None else ("initial/delta", start)
        delta = fields.density_contrast(snapshot, grid, window,
                                        None if progress is None else lambda done: progress(done, snapshot.particles))
        made = _Made({name: delta}, grid, f"{particles} particles by {window}")
    else:
        delta = fields.density_of(fields.read_cube(density, index), quantity, density)
        made = _Made({"final/delta": delta}, len(delta), f"{quantity} of {density}")
    if lagrangian or end is not None and particles == "dark":
        particle_mass = _particle_mass(start or end, boxsize, cosmology)
    else:
        particle_mass = mean_density(cosmology) * boxsize**3 / made.gridsize**3
    if counts is not None:
        made.datasets["galaxies/count"] = fields.read_cube(counts, index).astype(np.float32)
    if isinstance(catalogue, catalogues.Members):
        _add_members(made, catalogue, minimum, boxsize, particle_mass)
    elif catalogue is not None:
        _add_halos(made, catalogue, minimum, in_mpc[catalogue.path], boxsize, cosmology, start and end)
    if hosts is not None:
        # Rows of haloes are those of the galaxies' groups only where both are of one catalogue.
        alike = catalogue is not None and {path.resolve() for path in catalogue.paths} == {
            path.resolve() for path in hosts.paths}
        rank = made.rank if alike else None
        chosen = _galaxies(hosts, rank, stellar_mass, minimum_stars)
        chosen["position"] = _shifted(chosen["position"] * in_mpc[hosts.path], made.shift, boxsize)
        made.datasets.update({f"galaxies/{name}": values for name, values in chosen.items()})

    names = [str(item.path) for item in (start, end, catalogue, hosts) if item is not None]
    names += [str(item) for item in (density, counts, parameter_table) if item is not None]
    described = f"kerasgal convert: {', '.join(dict.fromkeys(names))}; {made.words}"
    if assumed:
        described += f"; assumed {', '.join(assumed)}"
    last = facts["redshift"] if start is None and end is None else (end or start).redshift
    first = last if start is None else start.redshift
    simulation.write(output, boxsize=boxsize, cosmology=cosmology, redshift_initial=first, redshift_final=last,
                     particle_mass=particle_mass, source=described, datasets=made.datasets, parameters=parameters,
                     overwrite=overwrite)
    return {
        "path": Path(output), "gridsize": made.gridsize, "boxsize": boxsize, "redshift_initial": first,
        "redshift_final": last, "halos": None if catalogue is None else len(made.datasets["halos/mass"]),
        "galaxies": None if hosts is None else len(made.datasets["galaxies/position"]), "lattice": made.words,
        "assumed": assumed,
    }


@dataclass
class _Made:
    """What is made so far.

    datasets: {name: array}; gridsize: particles or cells a side; words: what they are; shift: of all positions [Mpc/h].
    Of particles, the first ID and the order of the IDs, "C" or "Fortran", and the Lagrangian cells in the order of the
    final snapshot; of haloes, the row of each group of their catalogue, -1 for none.
    """

    datasets: dict
    gridsize: int
    words: str
    shift: np.ndarray = field(default_factory=lambda: np.zeros(3))
    first_id: int | None = None
    order: str | None = None
    cells: np.ndarray | None = None
    rank: np.ndarray | None = None


def _from_particles(start, end, boxsize, in_mpc, progress):
    """Initial conditions, and the snapshot `end` if it is not None, as `_Made`, in Lagrangian order."""
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
    order, offset = lagrangian_order(position, start.path)
    displacement = _displacement(_cube(position, gridsize, order), gridsize, offset)
    del position, cells
    displacement *= cellsize
    datasets = {
        "initial/delta": linear_density(displacement, boxsize),
        "initial/displacement": displacement,
        "initial/velocity": _cube(velocity, gridsize, order),
    }
    shift, cells = (0.5 - offset) * cellsize, None
    if end is not None:
        position, velocity, cells = _read(
            end, first_id, gridsize, order, np.float32, lambda done: reached(start.particles + done),
            lambda position: _shifted(position * in_mpc[end.path], shift, boxsize))
        datasets |= {"final/position": position, "final/velocity": velocity}
    place = ", ".join(f"{value:.3f}" for value in offset.round(3) + 0.0)  # + 0.0: no minus zero
    ids = "particles" if _counts_in_boxes(start) else f"IDs from {first_id}"
    words = f"{ids} in {order} order, lattice at ({place}) cells"
    return _Made(datasets, gridsize, words, shift, first_id, order, cells)


def _add_members(made, members, minimum, boxsize, particle_mass):
    """Add the haloes of a table of members."""
    position = made.datasets["final/position"]
    label = np.full(len(position), -1, np.int64)
    label[_member_cells(members.ids, made, members.path)] = members.halos
    halo_id = finder.number_by_size(label, minimum or 1)
    halos = finder.catalogue(halo_id, position, boxsize, particle_mass)
    made.datasets.update({f"halos/{name}": values for name, values in halos.items()})
    made.datasets["halo_id"] = halo_id.reshape((made.gridsize,) * 3)


def _add_halos(made, catalogue, minimum, in_mpc, boxsize, cosmology, end):
    """Add a catalogue's haloes, and where particles of a snapshot `end` are there, which of them are in haloes."""
    halos, made.rank = _halos(catalogue, minimum)
    halos["position"] = _shifted(halos["position"] * in_mpc, made.shift, boxsize)
    halos["radius"] = np.where(halos["radius"] > 0, halos["radius"] * in_mpc,
                               np.cbrt(3 * halos["mass"] / (800 * np.pi * mean_density(cosmology))))
    made.datasets.update({f"halos/{name}": values for name, values in halos.items()})
    if end is not None:
        ids = gadget.read_members(catalogue)
        members = made.cells[:catalogue.count.sum()] if ids is None else _member_cells(ids, made, catalogue.path)
        halo_id = np.full(end.particles, -1, np.int32)
        halo_id[members] = np.repeat(made.rank, catalogue.count)
        _check_members(halo_id, made.datasets["final/position"], halos, boxsize,
                       f"{end.path} is not sorted by the groups of {catalogue.path}" if ids is None else
                       f"the particles that {catalogue.path} lists are not its groups' in {end.path}")
        made.datasets["halo_id"] = halo_id.reshape((made.gridsize,) * 3)


def lagrangian_order(position, name):
    """In which order particle IDs number the lattice, and where this stands.

    position: (n^3, 3) by ascending ID, periodic, in cells; name: of the file, for messages.
    Returns ("C" or "Fortran", the place of the lattice), (3,) in cells: the mean displacement from the points with
    whole coordinates (0 or 1/2 cell in most codes; where gas was split off the dark matter, another), rounded to what
    single precision resolves. In the right order lattice neighbours move almost alike, however far they move (beyond a
    cell, in simulations of high resolution); in a wrong one their displacements differ by cells. The order is the one
    in which they differ by an rms below ROUGHNESS_LIMIT. Raises DataError if not exactly one order does.
    """
    n = round(len(position) ** (1 / 3))
    layers = min(n, LAYERS)
    roughness = {order: _roughness(_displacement(_cube(position, n, order)[:layers], n)) for order in ("C", "Fortran")}
    found = [order for order, value in roughness.items() if value < ROUGHNESS_LIMIT]
    if len(found) == 1:
        order, = found
        displacement = _displacement(_cube(position, n, order), n)
        roughness[order] = _roughness(displacement)
        if roughness[order] < ROUGHNESS_LIMIT:
            return order, displacement.mean(axis=(0, 1, 2), dtype=np.float64).round(6)
    measured = ", ".join(f"{value:.2g} cells in {order} order" for order, value in roughness.items())
    raise DataError(f"{name}: particle IDs have no Lagrangian order, or these are no initial conditions: "
                    f"displacements of lattice neighbours differ by {measured}; accepted is exactly one "
                    f"below {ROUGHNESS_LIMIT}")


def _displacement(position, n, place=(0, 0, 0)):
    """Displacements of the first layers of a lattice that stands at `place`, (layers, n, n, 3) float32, in cells.

    position: of the same shape, in cells.
    """
    displacement = np.empty(position.shape, np.float32)
    for axis in range(3):
        along = np.arange(position.shape[axis]).reshape(np.roll((-1, 1, 1), axis))
        component = position[..., axis] - (along + place[axis])
        component -= n * np.rint(component / n)
        displacement[..., axis] = component
    return displacement


def _roughness(displacement):
    """The rms difference of the displacements (layers, n, n, 3) of neighbours, periodic where all layers are there."""
    layers, n = displacement.shape[:2]
    squares, pairs = 0.0, 0
    for layer in range(layers):  # one by one: little memory, and that stays in the processor's cache
        here, upper = displacement[layer], displacement[(layer + 1) % n] if layer + 1 < layers or layers == n else None
        for other in (np.roll(here, 1, 0), np.roll(here, 1, 1), upper):
            if other is not None:
                difference = (here - other).ravel()
                squares += float(np.vdot(difference, difference))
                pairs += difference.size
    return (squares / pairs) ** 0.5


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


def _open(path, particles="dark"):
    """The header of a snapshot in any of the formats."""
    return (tipsy if tipsy.is_tipsy(Path(path)) else gadget).read_header(Path(path), particles)


def _parameters(path, index, density, given):
    """The further numbers in a table of parameters; those of the cosmology go into `given`."""
    if path is None:
        return {}
    if index is None:
        raise DataError("a table of parameters (--parameter-table) needs the row of the simulation (--index)")
    table = fields.read_parameters(path, index, None if density is None else fields.simulations_in(density))
    for name in set(given) & set(table):
        if given[name] is not None and not np.isclose(given[name], table[name], rtol=1e-4):
            raise DataError(f"{path} says {name} = {table[name]:g} in row {index}, the command line {given[name]:g}")
        given[name] = table[name]
    return {name: value for name, value in table.items() if name not in given}


def _check_kind(catalogue, start):
    """Raise DataError for haloes without members among Lagrangian particles, or members without these."""
    if isinstance(catalogue, catalogues.Members):
        if start is None:
            raise DataError(f"{catalogue.path} is a table of which particles are in which halo; it needs their initial "
                            "conditions (--initial)")
    elif catalogue is not None and start is not None and not catalogue.sorted:
        raise DataError(f"{catalogue.path} has haloes, but not which particles are in them, which a file of particles "
                        "needs; accepted with --initial are FoF/SUBFIND catalogues and tables of members")


def _facts(source, headed, start, given, length_unit):
    """Box [Mpc/h], redshift, Om0 and h: what is given, else what files say; the box None if it is not given.

    source: the snapshot, or the path of a field; headed: all snapshots and catalogues; start: the initial conditions
    among them, whose redshift is their own. Raises DataError naming what a file does not say and the flags that do, and
    where what is given is not what a file says. One file's box or redshift is not taken for another's: they show
    whether the files belong together.
    """
    snapshots = [item for item in headed if isinstance(item, gadget.Snapshot)]
    if len(snapshots) > 1 and start.redshift is None:
        raise DataError(f"{start.path} has no Redshift in its header, and --redshift is that of the final snapshot")
    facts, missing = {}, {}
    for name, (word, flag) in UNSAID.items():
        among = headed if name in ("boxsize", "redshift") else snapshots[:1]
        said = {item.path: getattr(item, name) for item in among if not (name == "boxsize" and _counts_in_boxes(item))}
        facts[name] = given[name]
        lowest = -1 if name == "redshift" else 0
        if given[name] is not None and not lowest < given[name] < np.inf:
            raise DataError(f"{flag} is {given[name]:g}; accepted are numbers above {lowest}")
        if given[name] is None:
            for path in [path for path, value in said.items() if value is None]:
                missing.setdefault(path, []).append(name)
            if not said:
                missing.setdefault(getattr(source, "path", source), []).append(name)
        if name == "redshift" and start is not None and len(headed) > 1:
            said.pop(start.path)
        stated = {path: value for path, value in said.items() if value is not None}
        if name != "boxsize":
            for path, value in stated.items():
                if given[name] is not None and abs(value - given[name]) > 1e-3:
                    raise DataError(f"{path} says {word} = {value:g}, {flag} {given[name]:g}")
            facts[name] = given[name] if given[name] is not None else next(iter(stated.values()), None)
    unitless = {item.path for item in headed if item.length_unit is None and length_unit is None}
    for path, names in missing.items():
        words, flags = zip(*(UNSAID[name] for name in names))
        if "boxsize" in names and path in unitless:  # which no other file's BoxSize can tell
            words, flags = (*words, "UnitLength_in_cm"), (*flags, "--length-unit")
        where = ", and no other file says it" if path == source else " in its header"
        raise DataError(f"{path} has no {', '.join(words)}{where}; give {', '.join(flags)}")
    return facts


def _counts_in_boxes(item):
    return item.length_unit == "box"


def _units(headed, boxsize, length_unit, assumed):
    """{path: Mpc/h per length unit of that file}; boxsize [Mpc/h]: as given, None if files say it."""
    in_mpc = {item.path: IN_MPC[_length_unit(item, headed, length_unit, assumed)] for item in headed
              if not _counts_in_boxes(item)}
    sides = [item.boxsize * in_mpc[item.path] for item in headed if item.path in in_mpc and item.boxsize]
    return {**{item.path: boxsize or sides[0] for item in headed if _counts_in_boxes(item)}, **in_mpc}


def _completed(item, facts, in_mpc):
    """A snapshot or catalogue with the box [in its own unit] and redshift that its files do not say."""
    if item is None or isinstance(item, catalogues.Members):
        return item
    changes = {"box": facts["boxsize"]} if isinstance(item, tipsy.Snapshot) else {}
    if item.boxsize is None:
        changes["boxsize"] = facts["boxsize"] / in_mpc[item.path]
    if item.redshift is None:
        changes["redshift"] = facts["redshift"]
    return replace(item, **changes)


def _length_unit(item, files, length_unit, assumed):
    """The length unit of a snapshot or catalogue: its own, the user's, or that of one of the same BoxSize."""
    if item.length_unit or length_unit:
        return item.length_unit or length_unit
    for other in files:
        if other.length_unit and None not in (other.boxsize, item.boxsize) and np.isclose(other.boxsize, item.boxsize):
            assumed.append(f"{other.length_unit}/h in {item.path.name}, as in {other.path.name} of the same "
                           "BoxSize")
            return other.length_unit
    stated = "" if item.boxsize is None else f" (its BoxSize is {item.boxsize:g})"
    raise DataError(f"{item.path} does not say its length unit{stated}; give --length-unit kpc or --length-unit Mpc")


def _check_together(headed, in_mpc, boxsize):
    """Raise DataError if the boxes of the files differ, or are not the one that is given [Mpc/h]."""
    for item in headed:
        side = item.boxsize * in_mpc[item.path]
        if np.isclose(side, boxsize, rtol=1e-4):
            continue
        first = headed[0].boxsize * in_mpc[headed[0].path]
        if np.isclose(first, boxsize, rtol=1e-4):
            raise DataError(f"{headed[0].path} and {item.path} are not of one run: their boxes are {first:g} "
                            f"and {side:g} Mpc/h")
        raise DataError(f"{item.path} says that its box is {side:g} Mpc/h, --boxsize {boxsize:g}")


def _check_catalogue(start, end, catalogue, hosts, redshift):
    """Raise DataError if initial conditions or catalogues are not those of the snapshot `end`."""
    if start is not None and end is not None and start.particles != end.particles:
        raise DataError(f"{start.path} and {end.path} are not of one run: they have {start.particles} and "
                        f"{end.particles} dark-matter particles")
    for other in (catalogue, hosts):
        if other is None or isinstance(other, catalogues.Members):
            continue
        # Twins agree in the logarithm of the expansion factor to some 1e-4.
        tolerance = 1e-3 * (1 + other.redshift)
        if end is None and not np.isclose(other.redshift, redshift, atol=tolerance):
            raise DataError(f"{other.path} is of the redshift {other.redshift:.3f}, another catalogue {redshift:.3f}")
        if end is not None and not np.isclose(end.redshift, other.redshift, atol=tolerance):
            raise DataError(f"{other.path} is not the group catalogue of {end.path}: their redshifts are "
                            f"{other.redshift:.3f} and {end.redshift:.3f}")
    if start is not None and isinstance(catalogue, gadget.Groups) and catalogue.count.sum() > end.particles:
        raise DataError(f"{catalogue.path} is not the group catalogue of {end.path}: it has "
                        f"{catalogue.count.sum()} dark-matter particles in groups, the snapshot "
                        f"{end.particles} in all")


def _cosmology(facts, snapshots, given, assumed):
    """The cosmology of the headers, completed with what is given and then with Planck 2018."""
    chosen = {name: given[name] for name in ("Ob0", "ns", "sigma8") if given[name] is not None}
    stated = [snapshot.Ob0 for snapshot in snapshots if snapshot is not None and snapshot.Ob0 > 0]
    if stated:
        chosen.setdefault("Ob0", stated[0])
    for name in ("Ob0", "ns", "sigma8"):
        if name not in chosen:
            assumed.append(f"{name} = {getattr(Cosmology(), name)} (Planck 2018)")
    return Cosmology(Om0=facts["Om0"], h=facts["h"], **chosen)


def _particle_mass(start, boxsize, cosmology):
    """All matter per Lagrangian cell [Msun/h]; raises DataError if the dark matter cannot be its part."""
    mean = mean_density(cosmology) * boxsize**3 / start.particles
    share = start.particle_mass / mean
    lowest, highest = SHARE_OF_DARK_MATTER
    if start.particle_mass > 0 and not lowest < share < highest:
        raise DataError(f"{start.path}: {start.particles} particles of {start.particle_mass:.4g} Msun/h in a "
                        f"box of {boxsize:g} Mpc/h are {share:.3g} of the mean matter density; accepted are "
                        f"{lowest} to {highest} (is the length unit right?)")
    alone = start.counts.sum() == start.particles
    return start.particle_mass if alone and start.particle_mass > 0 else mean


def _first_id(snapshot):
    """The lowest particle ID; raises DataError if the IDs span more numbers than there are particles."""
    extremes = [(ids.min(), ids.max()) for ids, in snapshot.read("id")]
    lowest, highest = int(min(low for low, _ in extremes)), int(max(high for _, high in extremes))
    if highest - lowest + 1 != snapshot.particles or highest >= 2**63:
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
    for ids, here, moving in snapshot.read("id", "position", "velocity"):
        if int(ids.min()) < first_id or int(ids.max()) >= first_id + snapshot.particles:
            raise DataError(f"{snapshot.path}: particle IDs run from {ids.min()} to {ids.max()}; accepted "
                            f"are {first_id} to {first_id + snapshot.particles - 1}, as in the initial "
                            "conditions")
        cell = _cells(ids, first_id, order, gridsize)
        position[cell], velocity[cell] = place(here), moving
        unread[cell] = False
        cells[done:done + len(cell)] = cell
        done += len(cell)
        progress(done)
    if unread.any():
        raise DataError(f"{snapshot.path}: {np.count_nonzero(unread)} particle IDs between {first_id} and "
                        f"{first_id + snapshot.particles - 1} are missing, others occur more than once")
    return position, velocity, cells


def _cells(ids, first_id, order, gridsize):
    """Lagrangian cells (in C order) of particle IDs, int64; IDs that are not of the lattice lead beyond it."""
    cell = ids.astype(np.int64) - first_id
    if order == "Fortran":
        x, y, z = cell % gridsize, cell // gridsize % gridsize, cell // gridsize**2
        cell = (x * gridsize + y) * gridsize + z + np.where((z < 0) | (z >= gridsize), gridsize**4, 0)
    return cell


def _cube(values, gridsize, order):
    """(n^3, 3) values by ascending ID as (n, n, n, 3) on the lattice."""
    cube = values.reshape(gridsize, gridsize, gridsize, 3)
    return cube if order == "C" else cube.transpose(2, 1, 0, 3)


def _shifted(position, shift, boxsize):
    """Positions moved by `shift` and back into the box, float32."""
    return wrap((position + shift).astype(np.float32), boxsize)


def _halos(catalogue, minimum):
    """The columns of /halos, lengths in the catalogue's unit, and each group's row in them, -1 for none."""
    gadget.check_positions(catalogue.position, catalogue.boxsize, catalogue.path)
    row = np.argsort(-catalogue.mass, kind="stable")
    row = row[catalogue.count[row] >= (minimum or 0)]
    rank = np.full(len(catalogue.mass), -1, np.int32)
    rank[row] = np.arange(len(row))
    return {name: getattr(catalogue, name)[row] for name in simulation.HALO_COLUMNS}, rank


def _member_cells(ids, made, path):
    """Lagrangian cells of the particle IDs in the file `path`, each of which must be one, once."""
    particles = made.gridsize**3
    cell = _cells(ids, made.first_id, made.order, made.gridsize)
    wrong = ids[(cell < 0) | (cell >= particles)]
    if len(wrong):
        raise DataError(f"{path} has the particle ID {wrong[0]}; accepted are {made.first_id} to "
                        f"{made.first_id + particles - 1}, as in the initial conditions")
    unique, count = np.unique(cell, return_counts=True)
    if len(unique) < len(cell):
        twice = ids[cell == unique[count > 1][0]][0]
        raise DataError(f"{path} has particle {twice} more than once; accepted is one halo for each")
    return cell


def _galaxies(hosts, rank, stellar_mass, minimum_stars):
    """The columns of /galaxies, positions in the catalogue's unit; rank: rows of /halos of its groups, or None."""
    if minimum_stars is not None:
        size, least, what = hosts.stars, minimum_stars, "star particles"
        instead = "has no number of star particles (SubhaloLenType); give --stellar-mass"
    else:
        size, least, what = hosts.mass, STELLAR_MASS if stellar_mass is None else stellar_mass, "Msun/h in stars"
        instead = "has no stellar masses (SubhaloMassType); give --minimum-stars, a number of particles"
    if size is None:
        raise DataError(f"{hosts.path} {instead}")
    row = np.flatnonzero(size >= least)
    if not len(row):
        most = f"the largest has {size.max():g}" if len(size) else "there is none with stars"
        raise DataError(f"{hosts.path} has no galaxy of at least {least:g} {what}; {most}")
    gadget.check_positions(hosts.position[row], hosts.boxsize, hosts.path)
    columns = {"position": hosts.position[row], "central": hosts.central[row].astype(np.int8)}
    if hosts.mass is not None:
        columns["stellar_mass"] = hosts.mass[row].astype(np.float32)
    if rank is not None:
        group = hosts.group[row]
        if group.max() >= len(rank):
            raise DataError(f"{hosts.path} has galaxies in group {group.max()}; there are {len(rank)} groups")
        columns["halo"] = np.where(group >= 0, np.append(rank, -1)[group], -1).astype(np.int32)
    return columns


def _check_members(halo_id, position, halos, boxsize, fault):
    """Raise DataError, saying the fault, if the halos' particles are nowhere near them."""
    members = np.flatnonzero(halo_id >= 0)
    members = members[::max(1, len(members) // 100_000)]
    halo = halo_id[members]
    separation = position[members] - halos["position"][halo]
    separation -= boxsize * np.rint(separation / boxsize)
    distance = np.median(np.linalg.norm(separation, axis=1) / halos["radius"][halo]) if len(members) else 0
    if distance > DISTANCE_LIMIT:
        raise DataError(f"{fault}: the median particle of a group would lie {distance:.0f} of its radii from its "
                        f"centre; accepted is up to {DISTANCE_LIMIT}")
