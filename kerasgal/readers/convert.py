"""Other people's simulations into a Simulation file.

Three ways lead there. From initial conditions, and a snapshot of the same particles: particles in Lagrangian order.
From either of them alone: its matter on a grid. From a density field: that field. Haloes and galaxies from catalogues
come with any of a final time.
"""

import logging
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from kerasgal import halos as finders
from kerasgal import plotting, simulation
from kerasgal.cosmology import mean_density
from kerasgal.errors import DataError, SettingError
from kerasgal.files import refuse_existing, refuse_inputs
from kerasgal.readers import base, cubes, facts, fields, lagrangian, request

log = logging.getLogger(__name__)
MEMORY_PER_PARTICLE = 96  # bytes at the peak, where the order of the initial particles is found
MEMORY_PER_MEMBER = 180  # bytes at the peak, of a particle in a table of members
MEMORY_PER_GROUP = 200  # bytes at the peak, where they are put in order
MEMORY_PER_CELL = 12  # bytes at the peak, where a field is written
MEMORY_OF_SOME = 2e8  # bytes, of the particles that are read at once
RATE = 1e6  # particles a second, at least
# In halo radii, the mean distance of the members of the median halo. That is 0.7 of friends-of-friends; in a table that
# is off by one row 2.4, and 7 in that of another run, whose patches of initial particles stay together.
DISTANCE_LIMIT = 2
SPREAD_LIMIT = 0.25  # of the box, likewise of any halo; it is 0.48 of particles all over the box
SAME_MASS = 1.01  # of the heaviest and the lightest particle of a lattice


def convert(output=None, *, initial=None, final=None, groups=None, galaxies=None, density=None, counts=None,
            quantity=None, index=None, parameter_table=None, grid=None, window="cic", particles="dark", subsample=None,
            stellar_mass=None, minimum_stars=None, minimum=None, length_unit=None, boxsize=None, redshift=None,
            Om0=None, h=None, Ob0=None, ns=None, sigma8=None, overwrite=False, progress=None):
    """Make a Simulation from other people's files; one of initial, final or density is needed.

    Parameters
    ----------
    output : str or Path, optional
        Simulation file to write. Without one the simulation is in memory alone.
    initial : str or Path, optional
        Initial conditions. With `final`, the snapshot whose structures are wanted, particles stay particles, in
        Lagrangian order; with `grid` their matter goes on a grid, whatever their IDs. A snapshot is a file, one of
        several, or their name without the number; `kerasgal info` says of any file what it is.
    final : str or Path, optional
        Snapshot of the same particles at the final time; or alone, with `grid`.
    groups : str or Path, optional
        Catalogue of haloes of `final`. With `initial`, haloes need members: those of FoF/SUBFIND are the particles that
        it lists (IDs/ID), or else the first ones of a snapshot that is sorted by group; or a table of particle ID and
        halo ID.
    galaxies, stellar_mass, minimum_stars : str or Path, float, int, optional
        SUBFIND or CAESAR catalogue; galaxies are its subhaloes with stars of at least `stellar_mass` (Msun/h; None is
        2e8) or, where minimum_stars is given, of at least so many particles. It may be that of another run with the
        same box, such as the hydrodynamic twin of a run of dark matter.
    density, quantity : str or Path, str, optional
        A field in a file, PATH or PATH:NAME, of which `quantity` says what it is: "rho", "1+delta" or "delta".
    counts : str or Path, optional
        Galaxies in the cells of the same grid, as `density`.
    index, parameter_table : int, str or Path, optional
        Which simulation in a file of several, and the row of `parameter_table`, a table of such simulations.
    grid, window, particles : int, {"ngp", "cic", "tsc"}, {"dark", "gas", "stars", "all"}
        Cells a side of the field, and which particles are put on it and how. Dark matter is type 1 and, in zoom
        simulations, types 2, 3 and 5; not neutrinos of type 2 or 3, which are lighter than type 1.
    subsample : float, optional
        Share of the particles that are put on the grid, chosen at random, always the same.
    minimum : int, optional
        Fewest dark-matter particles of a halo; smaller groups are left out. None keeps all.
    length_unit : {"kpc", "Mpc"}, optional
        Comoving, over h, for files that do not say. Where it is not given, such a file must have the same BoxSize as
        another one that says.
    boxsize, redshift, Om0, h : float, optional
        For files that do not say; boxsize in Mpc/h, redshift of `final` and of catalogues.
    Ob0, ns, sigma8 : float, optional
        Recorded, not used. Those that are neither given nor in a header are Planck 2018's; Arepo's OmegaBaryon = 0,
        which only says that there is no gas, counts as not in the header.
    overwrite : bool
        Replace `output` if it exists.
    progress : callable, optional
        Called as progress(particles done, particles to do).

    Returns
    -------
    Simulation
        Opened for reading.

    Raises
    ------
    SettingError
        For arguments that contradict or need each other.
    DataError
        For files that are missing, unreadable or not of one run, for particles in no Lagrangian order, for matter that
        is not that of the box, and, naming the argument, for what no file says.

    Notes
    -----
    What is written of particles with `initial`:

    - Particles stand in Lagrangian order. Their IDs must be consecutive, from whatever first one, and number a cubic
      lattice in C or Fortran order. TIPSY files have no IDs: their order counts.
    - The lattice is put where the displacement has no mean. All positions are shifted by the same amount, so that the
      particle of Lagrangian cell (i, j, k) starts from (i + 1/2, j + 1/2, k + 1/2) cells.
    - initial/delta is minus the divergence of the displacement.
    - particle_mass is the mass of all matter per Lagrangian cell: that of a particle where `initial` holds dark matter
      alone, else that of a cell at the mean matter density, gas and all.
    - Without `final`, redshift_final is redshift_initial.

    What is written of a field: final/delta, of initial conditions initial/delta; particle_mass is the mass of all
    matter per particle of dark matter, or per cell of an initial field or one that comes from a file or of other
    particles; redshift_initial is redshift_final.

    Haloes have the groups' GroupMass, GroupPos and Group_R_Mean200 (or their catalogue's own); where that radius is
    missing or 0, the radius of the sphere of 200 times the mean matter density that holds the mass. Their count is of
    dark-matter particles. Those of PINOCCHIO have velocity and initial_position, too. Without `groups`, a field with
    galaxies has the haloes of their catalogue, if it has any.

    Examples
    --------
    >>> import numpy as np
    >>> import kerasgal as kg
    >>> np.save("delta.npy", np.zeros((8, 8, 8)))
    >>> box = kg.convert(density="delta.npy", quantity="delta", boxsize=25, redshift=0, Om0=0.3, h=0.7)
    >>> box["final/delta"].shape
    (8, 8, 8)
    """
    arguments = {name: value for name, value in locals().items() if name not in ("output", "overwrite", "progress")}
    with plotting.progress("particles") as bar:
        if output is None:
            made = make(*request.split(arguments), progress=progress or bar)
            summary = made.summary
        else:
            summary = write(output, overwrite=overwrite, progress=progress or bar, **arguments)
    if summary["assumed"]:
        log.info("assumed, as no file says it: %s", "; ".join(summary["assumed"]))
    return simulation.write(None, **made.content) if output is None else simulation.Simulation(output, require=())


def write(output, *, overwrite=False, progress=None, **arguments):
    """Write the Simulation file `output`; the arguments are those of `convert`.

    Returns a summary: a dictionary of path, gridsize (of particles or cells), boxsize [Mpc/h], redshift_initial,
    redshift_final, halos and galaxies (their numbers; None without), lattice (in words) and assumed (what no file
    said, a list of words).
    """
    sources, *others = request.split(arguments)
    check_output(output, sources, overwrite)
    made = make(sources, *others, progress=progress)
    simulation.write(output, **made.content, overwrite=overwrite)
    return {"path": Path(output), **made.summary}


def check_output(output, sources, overwrite):
    """Raise DataError if what a conversion makes may not be written there: another suffix, an input, what exists."""
    simulation.check_suffix(output)
    read = [cubes.split(source)[0] for source in vars(sources).values() if source is not None]
    refuse_inputs([output], read)
    refuse_parts(output, read)
    refuse_existing(output, overwrite)


def refuse_parts(output, read):
    """Raise SettingError for an output that is one of the files of a snapshot of which another one is given."""
    name = base.numbered(output)
    for path in map(Path, read):
        of_read = base.numbered(path)
        alike = name and of_read and (name[1], name[3]) == (of_read[1], of_read[3])
        if alike and path.resolve().parent == Path(output).resolve().parent and Path(output).exists():
            raise SettingError(f"{output} is one of the files of which {path} is another: choose another name for what "
                               "is written", value=str(output))


@dataclass(frozen=True)
class Converted:
    """What is to be written: content, arguments of `simulation.write`; summary: as of `write`, without the path."""

    content: dict
    summary: dict


def make(sources, choices, unsaid, *, progress=None):
    """Everything that a conversion makes, as `Converted`; nothing is written. See `convert`."""
    run = opened(sources, choices, unsaid)
    boxsize, cosmology = run.boxsize, run.cosmology
    end, start = run.end, run.start
    if run.lagrangian:
        made = _from_particles(start, end, boxsize, run.in_mpc, progress)
        density_of = base.CHOICES["dark"]
    elif run.snapshot is not None:
        made = _on_grid(run, choices, progress)
        density_of = base.CHOICES[choices.particles]
    else:
        delta = cubes.density_of(cubes.read_cube(sources.density, choices.index), choices.quantity, sources.density)
        made = _Made({"final/delta": delta}, len(delta), f"{choices.quantity} of {sources.density}")
        density_of = cubes.what_of(sources.density)
    if run.lagrangian or end is not None and choices.particles == "dark":
        particle_mass = _particle_mass(start or end, boxsize, cosmology, choices.subsample)
    else:
        particle_mass = mean_density(cosmology) * boxsize**3 / made.gridsize**3
    if sources.counts is not None:
        made.datasets["galaxies/count"] = cubes.read_cube(sources.counts, choices.index).astype(np.float32)
    if isinstance(run.catalogue, base.Members):
        _add_members(made, run, choices.minimum, particle_mass)
    elif run.catalogue is not None:
        # Of all particles, of which `subsample` takes a part
        whole = particle_mass * (choices.subsample or 1)
        of_particles = whole if end is not None and choices.particles == "dark" else None
        _add_halos(made, run, choices.minimum, of_particles)
    if run.hosts is not None:
        _add_galaxies(made, run, choices)
    return _finished(made, run, sources, choices, particle_mass, density_of)


# What files say ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """All files of a conversion, opened, and what they and the arguments say together.

    start, end: initial conditions and snapshot; catalogue: haloes or members; hosts: galaxies; in_mpc: {path: Mpc/h per
    length unit of that file}; redshift: of what has none of its own; said: names of the parameters of the cosmology
    that are not assumed; parameters: further ones; assumed: in words.
    """

    start: base.Snapshot | None
    end: base.Snapshot | None
    catalogue: base.Groups | base.Members | None
    hosts: base.Galaxies | None
    in_mpc: dict
    boxsize: float
    redshift: float
    cosmology: object
    said: tuple
    parameters: dict
    assumed: list
    lagrangian: bool

    @property
    def snapshot(self):
        """The snapshot that goes on a grid."""
        return self.end if self.start is None else self.start


def opened(sources, choices, unsaid):
    """The `Run` of a request; nothing but headers and catalogues is read. Raises DataError as `convert`."""
    request.check(sources, choices, unsaid)
    given = {name: value for name, value in vars(unsaid).items() if name != "length_unit"}
    further = facts.given_parameters(sources.parameter_table, choices.index, sources.density, given)
    lagrangian_way = sources.initial is not None and not choices.grid
    start = None if sources.initial is None else base.open_snapshot(
        sources.initial, choices.particles if choices.grid else "dark")
    end = None if sources.final is None else base.open_snapshot(sources.final,
                                                                "dark" if start else choices.particles)
    if start is not None and end is not None and start.path.resolve() == end.path.resolve():
        raise SettingError(f"`initial` and `final` are one snapshot, {start.path}: accepted are the initial "
                           "conditions, and a later one of the same particles", value=str(start.path))
    catalogue = None if sources.groups is None else base.read_groups(sources.groups, given["h"])
    hosts = None if sources.galaxies is None else base.read_galaxies(sources.galaxies)
    if sources.groups is None and hosts is not None and start is None and base.has_groups(sources.galaxies):
        catalogue = base.read_groups(sources.galaxies, given["h"])
    facts.check_kind(catalogue, start)

    files = [item for item in (start, end, catalogue, hosts) if item is not None]
    headed = [item for item in files if not isinstance(item, base.Members)]
    assumed = []
    said = facts.gathered(start or end or sources.density, headed, start, given, unsaid.length_unit)
    in_mpc = facts.units(headed, said["boxsize"], unsaid.length_unit, assumed)
    said["boxsize"] = said["boxsize"] or headed[0].boxsize * in_mpc[headed[0].path]
    boxsize = said["boxsize"]
    facts.check_box(boxsize)
    start, end, catalogue, hosts = (
        item if item is None or isinstance(item, base.Members) else
        item.completed(boxsize, said["redshift"], in_mpc[item.path]) for item in (start, end, catalogue, hosts))
    facts.check_together([item for item in (start, end, catalogue, hosts) if getattr(item, "path", None) in in_mpc],
                         in_mpc, boxsize)
    facts.check_catalogue(start, end, catalogue, hosts, said["redshift"])
    named = tuple(name for name in said if said[name] is not None)
    cosmology = facts.cosmology(said, assumed)
    for snapshot in (start, end):
        if snapshot is not None:
            facts.check_equal_masses(snapshot, boxsize, cosmology)
    return Run(start, end, catalogue, hosts, in_mpc, boxsize, said["redshift"], cosmology, named, further, assumed,
               lagrangian_way)


def memory_needed(sources, choices):
    """Bytes of memory that a conversion takes at its peak."""
    listed = [base.number_of_groups(path) for path in (sources.groups, sources.galaxies) if path is not None]
    of_groups = MEMORY_PER_GROUP * max((number for number in listed if number is not None), default=0)
    if choices.grid:
        return MEMORY_OF_SOME + MEMORY_PER_CELL * choices.grid**3 + of_groups
    return ((MEMORY_PER_MEMBER if None in listed else MEMORY_PER_PARTICLE)
            * base.open_snapshot(sources.initial).particles + of_groups)


# What is made of them ---------------------------------------------------------------------


@dataclass
class _Made:
    """What is made so far.

    datasets: {name: array}; gridsize: particles or cells a side; words: what they are; shift: of all positions [Mpc/h].
    Of a final density, by which window its particles were put on the grid, and how many there are for each cell.
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
    window: str | None = None
    particles_per_cell: float | None = None


def _on_grid(run, choices, progress):
    """The matter of one snapshot on a grid, as `_Made`."""
    snapshot = run.snapshot
    delta, mass, taken = fields.density_contrast(
        snapshot, choices.grid, choices.window,
        None if progress is None else lambda done: progress(done, snapshot.particles), choices.subsample)
    facts.check_share(snapshot, choices.particles, mass, run.boxsize, run.cosmology, run.said)
    words = f"{choices.particles} particles"
    if len(snapshot.types) > 1:
        words += f" ({facts.type_words(snapshot.types)})"
    if choices.subsample is not None:
        words = f"a random {choices.subsample:g} of {words}"
    made = _Made({}, choices.grid, f"{words} by {choices.window}")
    if run.start is not None:
        made.datasets["initial/delta"] = delta
    else:
        made.datasets["final/delta"] = delta
        made.window, made.particles_per_cell = choices.window, taken / choices.grid**3
    return made


def _from_particles(start, end, boxsize, in_mpc, progress):
    """Initial conditions, and the snapshot `end` if it is not None, as `_Made`, in Lagrangian order."""
    for snapshot in (start, end):
        if snapshot is not None:
            _check_one_mass(snapshot)
    gridsize = round(start.particles ** (1 / 3))
    if gridsize**3 != start.particles:
        raise DataError(f"{start.path} has {start.particles} dark-matter particles, which is not the cube of "
                        "a whole number: they have no Lagrangian lattice")
    cellsize = boxsize / gridsize
    first_id = lagrangian.first_id_of(start)
    total = start.particles + (0 if end is None else end.particles)

    def reached(done):
        if progress is not None:
            progress(done, total)

    position, velocity, cells = lagrangian.read(start, first_id, gridsize, "C", np.float64, reached,
                                                lambda position: position * (gridsize / start.boxsize))
    order, offset = lagrangian.lagrangian_order(position, start.path)
    displacement = lagrangian.displacement_from(lagrangian.cube(position, gridsize, order), gridsize, offset)
    del position, cells
    displacement *= cellsize
    datasets = {
        "initial/delta": lagrangian.linear_density(displacement, boxsize),
        "initial/displacement": displacement,
        "initial/velocity": lagrangian.cube(velocity, gridsize, order),
    }
    shift, cells = (0.5 - offset) * cellsize, None
    if end is not None:
        position, velocity, cells = lagrangian.read(
            end, first_id, gridsize, order, np.float32, lambda done: reached(start.particles + done),
            lambda position: lagrangian.shifted(position * in_mpc[end.path], shift, boxsize))
        base.check_extent(np.ptp(position, axis=0).max(), len(position), "particles", boxsize, end.path)
        datasets |= {"final/position": position, "final/velocity": velocity}
    place = ", ".join(f"{value:.3f}" for value in offset.round(3) + 0.0)  # + 0.0: no minus zero
    ids = f"IDs from {first_id}" if start.numbered else "particles"
    words = f"{ids} in {order} order, lattice at ({place}) cells"
    return _Made(datasets, gridsize, words, shift, first_id, order, cells)


def _check_one_mass(snapshot):
    """Raise DataError if the particles of a lattice have not all the same mass."""
    if snapshot.equal or not all(snapshot.massive(kind) for kind in snapshot.types):
        return
    extremes = [(mass.min(), mass.max()) for mass, in snapshot.read("mass")]
    lightest, heaviest = min(low for low, _ in extremes), max(high for _, high in extremes)
    if heaviest > SAME_MASS * lightest:
        raise DataError(f"{snapshot.path} has dark-matter particles of masses from {lightest:.4g} to {heaviest:.4g} in "
                        "the file's unit, as zoom simulations have: they have no Lagrangian lattice; accepted are such "
                        "particles with `grid`")


def _particle_mass(start, boxsize, cosmology, subsample):
    """All matter per Lagrangian cell, or per particle that is put on a grid [Msun/h]."""
    mean = mean_density(cosmology) * boxsize**3 / start.particles
    alone = start.counts.sum() == start.particles
    mass = start.particle_mass if alone and start.equal and start.particle_mass > 0 else mean
    return mass / (subsample or 1)


def _add_members(made, run, minimum, particle_mass):
    """Add the haloes of a table of members."""
    members = run.catalogue
    position = made.datasets["final/position"]
    label = np.full(len(position), -1, np.int64)
    cells = lagrangian.member_cells(members.ids, made.gridsize, made.first_id, made.order, members.path)
    label[cells] = members.halos
    halo_id = finders.number_by_size(label, minimum or 1)
    halos = finders.catalogue(halo_id, position, run.boxsize, particle_mass)
    _check_members(halo_id, position, halos, run.boxsize,
                   f"{members.path} is not of the haloes of {run.end.path}, or has a number for none that is not "
                   "negative")
    made.datasets.update({f"halos/{name}": values for name, values in halos.items()})
    made.datasets["halo_id"] = halo_id.reshape((made.gridsize,) * 3)


def _add_halos(made, run, minimum, particle_mass):
    """Add a catalogue's haloes, and where Lagrangian particles are there, which of them are in haloes.

    particle_mass: of the snapshot [Msun/h], None where there is none; numbers of particles are the masses in it, for a
    catalogue that does not count them.
    """
    catalogue, boxsize, in_mpc = run.catalogue, run.boxsize, run.in_mpc[run.catalogue.path]
    count = catalogue.count
    if not catalogue.counted:
        if particle_mass is None and minimum:
            raise DataError(f"{catalogue.path} has no numbers of particles, which `minimum` chooses by")
        log.warning("%s has no numbers of particles: those of its haloes are %s", catalogue.path,
                    "unknown, and written as 0" if particle_mass is None else "their masses in particles")
        if particle_mass is not None:
            count = np.rint(catalogue.mass / particle_mass).astype(np.int64)
    halos, made.rank = _halos(catalogue, count, minimum)
    for name in {"position", "initial_position"} & halos.keys():
        halos[name] = lagrangian.shifted(halos[name] * in_mpc, made.shift, boxsize)
    halos["radius"] = np.where(halos["radius"] > 0, halos["radius"] * in_mpc,
                               np.cbrt(3 * halos["mass"] / (800 * np.pi * mean_density(run.cosmology))))
    made.datasets.update({f"halos/{name}": values for name, values in halos.items()})
    if not (run.lagrangian and run.end is not None):
        return
    ids = catalogue.members()
    members = made.cells[:catalogue.count.sum()] if ids is None else lagrangian.member_cells(
        ids, made.gridsize, made.first_id, made.order, catalogue.path)
    halo_id = np.full(run.end.particles, -1, np.int32)
    halo_id[members] = np.repeat(made.rank, catalogue.count)
    _check_members(halo_id, made.datasets["final/position"], halos, boxsize,
                   f"{run.end.path} is not sorted by the groups of {catalogue.path}" if ids is None else
                   f"the particles that {catalogue.path} lists are not its groups' in {run.end.path}")
    made.datasets["halo_id"] = halo_id.reshape((made.gridsize,) * 3)


def _halos(catalogue, count, minimum):
    """The columns of /halos, lengths in the catalogue's unit, and each group's row in them, -1 for none."""
    for where in (catalogue.position, catalogue.further.get("initial_position", catalogue.position)):
        base.check_positions(where, catalogue.boxsize, catalogue.path)
    if len(catalogue.position):
        base.check_extent(np.ptp(catalogue.position, axis=0).max(), len(catalogue.position), "haloes",
                          catalogue.boxsize, catalogue.path)
    row = np.argsort(-catalogue.mass, kind="stable")
    row = row[count[row] >= (minimum or 0)]
    rank = np.full(len(catalogue.mass), -1, np.int32)
    rank[row] = np.arange(len(row))
    columns = {"mass": catalogue.mass, "position": catalogue.position, "radius": catalogue.radius, "count": count,
               **catalogue.further}
    return {name: values[row] for name, values in columns.items()}, rank


def _check_members(halo_id, position, halos, boxsize, fault):
    """Raise DataError, saying the fault, if the halos' particles are nowhere near them."""
    members = np.flatnonzero(halo_id >= 0)
    members = members[::max(1, len(members) // 100_000)]
    halo = halo_id[members]
    separation = position[members] - halos["position"][halo]
    separation -= boxsize * np.rint(separation / boxsize)
    number = np.bincount(halo)
    held = np.flatnonzero(number)
    distance = np.bincount(halo, np.linalg.norm(separation, axis=1))[held] / number[held]
    in_radii = np.median(distance / halos["radius"][held]) if len(held) else 0
    if in_radii > DISTANCE_LIMIT:
        raise DataError(f"{fault}: the particles of the median halo would lie {in_radii:.1f} of its radii from its "
                        f"centre; accepted is up to {DISTANCE_LIMIT}")
    in_boxes = distance[number[held] >= base.MANY].max(initial=0) / boxsize
    if in_boxes > SPREAD_LIMIT:
        raise DataError(f"{fault}: the particles of a halo would lie {in_boxes:.2f} of the box from its centre; "
                        f"accepted is up to {SPREAD_LIMIT}")


def _add_galaxies(made, run, choices):
    """Add the galaxies of a catalogue."""
    catalogue, hosts = run.catalogue, run.hosts
    # Rows of haloes are those of the galaxies' groups only where both are of one catalogue.
    alike = isinstance(catalogue, base.Groups) and {path.resolve() for path in catalogue.paths} == {
        path.resolve() for path in hosts.paths}
    chosen = _galaxies(hosts, made.rank if alike else None, choices.stellar_mass, choices.minimum_stars)
    chosen["position"] = lagrangian.shifted(chosen["position"] * run.in_mpc[hosts.path], made.shift, run.boxsize)
    made.datasets.update({f"galaxies/{name}": values for name, values in chosen.items()})


def _galaxies(hosts, rank, stellar_mass, minimum_stars):
    """The columns of /galaxies, positions in the catalogue's unit; rank: rows of /halos of its groups, or None."""
    if minimum_stars is not None:
        size, least, what = hosts.stars, minimum_stars, "star particles"
        instead = "has no number of star particles (SubhaloLenType); give `stellar_mass`"
    else:
        size, what = hosts.mass, "Msun/h in stars"
        least = request.STELLAR_MASS if stellar_mass is None else stellar_mass
        instead = "has no stellar masses (SubhaloMassType); give `minimum_stars`, a number of particles"
    if size is None:
        raise DataError(f"{hosts.path} {instead}")
    row = np.flatnonzero(size >= least)
    if not len(row):
        most = f"the largest has {size.max():g}" if len(size) else "there is none with stars"
        raise DataError(f"{hosts.path} has no galaxy of at least {least:g} {what}; {most}")
    base.check_positions(hosts.position[row], hosts.boxsize, hosts.path)
    columns = {"position": hosts.position[row]}
    if hosts.central is None:
        log.warning("%s does not say which galaxies are central ones: galaxies/central is left out", hosts.path)
    else:
        columns["central"] = hosts.central[row].astype(np.int8)
    if hosts.mass is not None:
        columns["stellar_mass"] = hosts.mass[row].astype(np.float32)
    if rank is not None:
        group = hosts.group[row]
        if group.max() >= len(rank):
            raise DataError(f"{hosts.path} has galaxies in group {group.max()}; there are {len(rank)} groups")
        columns["halo"] = np.where(group >= 0, np.append(rank, -1)[group], -1).astype(np.int32)
    return columns


def _finished(made, run, sources, choices, particle_mass, density_of):
    """All that is made as `Converted`."""
    names = [str(item.path) for item in (run.start, run.end, run.catalogue, run.hosts) if item is not None]
    names += [str(item) for item in (sources.density, sources.counts, sources.parameter_table) if item is not None]
    described = f"kerasgal convert: {', '.join(dict.fromkeys(names))}; {made.words}"
    if run.assumed:
        described += f"; assumed {', '.join(run.assumed)}"
    last = run.redshift if run.snapshot is None else (run.end or run.start).redshift
    first = last if run.start is None else run.start.redshift
    haloes = run.catalogue is not None
    fewest = choices.minimum
    if haloes and fewest is None and len(made.datasets["halos/count"]):
        fewest = int(made.datasets["halos/count"].min()) or None
    content = {
        "boxsize": run.boxsize, "cosmology": run.cosmology, "redshift_initial": first, "redshift_final": last,
        "particle_mass": particle_mass, "source": described, "datasets": made.datasets, "parameters": run.parameters,
        "density_of": None if density_of == "unknown" else density_of,
        "window": made.window, "particles_per_cell": made.particles_per_cell,
        "finder": (getattr(run.catalogue, "finder", "") or "table of members") if haloes else None,
        "minimum": fewest if haloes else None,
    }
    summary = {
        "gridsize": made.gridsize, "boxsize": run.boxsize, "redshift_initial": first, "redshift_final": last,
        "halos": len(made.datasets["halos/mass"]) if haloes else None,
        "galaxies": None if run.hosts is None else len(made.datasets["galaxies/position"]), "lattice": made.words,
        "assumed": run.assumed,
    }
    return Converted(content, summary)
