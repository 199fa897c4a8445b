"""Making simulations: initial conditions, N-body, haloes, painted galaxies."""

import logging
from dataclasses import asdict
from pathlib import Path

import numpy as np

from kerasgal import galaxies as painting
from kerasgal import halos as finders
from kerasgal import nbody, simulation
from kerasgal.cosmology import PLANCK_2018, Cosmology, mean_density
from kerasgal.domain import RULES
from kerasgal.errors import DataError, SettingError
from kerasgal.files import check_room, refuse_existing, refuse_inputs
from kerasgal.plotting import progress_bar
from kerasgal.twins import shared_field

MESH = 2  # cells of the force mesh per particle and side
BOXES, PARTICLES, BOXSIZE = 5, 64, 50.0  # simulations that are made where a training is given none
FINDERS = {"fof": finders.friends_of_friends, "hop": finders.hop}

log = logging.getLogger(__name__)


def simulate(output=None, *, particles=None, boxsize=None, seed=0, steps=20, mesh=MESH, finder="fof", minimum=20,
             galaxies=False, cosmology=None, twin_of=None, share=None, overwrite=False):
    """Run an N-body simulation.

    Gaussian initial conditions, second-order Lagrangian displacement, COLA time steps to redshift zero and a halo
    finder.

    Parameters
    ----------
    output : str or Path, optional
        Simulation file to write, .h5 or .hdf5. Without one the simulation is in memory alone.
    particles : int, optional
        Particles per side of the box: 64 without a number, or twice the cells of the box that this one is a twin of.
    boxsize : float, optional
        Side of the periodic box, comoving Mpc/h: 50 without a number.
    seed : int
        Seed of the initial conditions.
    steps : int
        COLA time steps.
    mesh : int
        Cells of the mesh of forces per particle and side. More of them, and of steps, are nearer to N-body at a price.
    finder : {"fof", "hop"}
        Friends of friends with linking length 0.2, or HOP (needs the extra `kerasgal[hop]`).
    minimum : int
        Fewest particles of a halo.
    galaxies : bool
        Paint galaxies into the haloes, by a rule: they are not simulated. To have all of them takes a simulation as
        fine as 128^3 particles in 50 Mpc/h.
    cosmology : Cosmology, optional
        Planck 2018 without one.
    twin_of : str, Path or Simulation, optional
        Make a twin of this box: the large waves of its initial density are kept, the small ones drawn anew. The twin
        has its side and cosmology.
    share : float, optional
        Waves of less than this wavenumber, h/Mpc, are kept; all of the box's grid without one.
    overwrite : bool
        Replace `output` if it exists.

    Returns
    -------
    Simulation
        Opened for reading.

    Raises
    ------
    SettingError
        For an argument that is not accepted, or contradicts the box of a twin.
    DataError
        If `output` exists or does not fit on the disk, or the box of a twin has no initial density or does
        not end at redshift 0.

    Examples
    --------
    >>> import kerasgal as kg
    >>> box = kg.simulate(particles=16, boxsize=12.5, seed=1)
    >>> box["final/position"].shape
    (4096, 3)
    """
    if twin_of is not None:
        if boxsize is not None or cosmology is not None:
            raise SettingError("a twin has the side and the cosmology of its box: give neither with `twin_of`")
        large, boxsize, cosmology = _initial_today(twin_of)
        particles = 2 * len(large) if particles is None else particles
    elif share is not None:
        raise SettingError("`share` says what a twin keeps: give the box as `twin_of`")
    particles = PARTICLES if particles is None else particles
    boxsize = BOXSIZE if boxsize is None else boxsize
    cosmology = cosmology or Cosmology()
    _check(particles, boxsize, seed, steps, mesh, finder, minimum)
    if output is not None:
        output = simulation.check_suffix(output)
        refuse_inputs([output], [getattr(twin_of, "path", twin_of)])
        refuse_existing(output, overwrite)
        check_room(output, 44 * particles**3)  # ten numbers and a halo of four bytes per particle
    name = Path(output).name if output is not None else "simulation"
    particle_mass = mean_density(cosmology) * boxsize**3 / particles**3
    if galaxies:
        warn_of_coarse_haloes(minimum * particle_mass)
    with progress_bar() as progress:
        task = progress.add_task(f"{name}: N-body", total=steps)
        delta = nbody.gaussian_field(particles, boxsize, cosmology, seed)
        if twin_of is not None:
            delta = shared_field(large, delta, boxsize, share)
        run = nbody.evolve(delta, boxsize, cosmology, steps=steps, mesh_factor=mesh,
                           progress=lambda step, steps: progress.update(task, completed=step))
        progress.update(task, description=f"{name}: haloes")
        halo_id = FINDERS[finder](run.position, boxsize, minimum=minimum)
        catalogue = finders.catalogue(halo_id, run.position, boxsize, particle_mass)
        painted = {}
        if galaxies:
            progress.update(task, description=f"{name}: galaxies")
            painted = paint_galaxies(catalogue, halo_id, run.position, boxsize, seed, run.velocity)
    finer = f"a mesh of {mesh} cells per particle and side, " if mesh != MESH else ""
    words = f"{steps} steps, {finer}seed {seed}, {finder} haloes of at least {minimum}"
    other = "".join(f", {name} {float(value)!r}" for name, value in asdict(cosmology).items()
                    if value != getattr(PLANCK_2018, name))  # else boxes of one seed would be called the same
    source = (f"kerasgal simulate: {particles}^3 particles in {boxsize:g} Mpc/h{other}, 2LPT and COLA, {words}"
              + ("; galaxies painted into them, not simulated" if galaxies else ""))
    if twin_of is not None:
        source += f"; a twin of {getattr(twin_of, 'path', twin_of)}, with all of its waves" + (
            f" below {share:g} h/Mpc" if share else "")
    made = simulation.write(
        output, boxsize=boxsize, cosmology=cosmology, redshift_initial=run.redshift_initial, redshift_final=0.0,
        particle_mass=particle_mass, overwrite=overwrite, source=source, finder=finder, minimum=minimum,
        density_of="dark matter",
        datasets={"initial/delta": run.delta, "initial/displacement": run.displacement,
                  "final/position": run.position, "final/velocity": run.velocity,
                  "halo_id": halo_id.reshape((particles,) * 3),
                  **{f"halos/{name}": values for name, values in catalogue.items()},
                  **{f"galaxies/{name}": values for name, values in painted.items()}})
    return made if output is None else simulation.Simulation(output)


def _initial_today(box):
    """The linear density contrast of a Simulation or its path at redshift 0, the box's side and its cosmology."""
    with simulation.opened(box) as box:
        if np.isfinite(box.redshift_final) and not RULES["redshift_final"].accepts(0.0, [box.redshift_final] * 2):
            raise DataError(f"{box.path} ends at redshift {box.redshift_final:g}, and a twin is evolved to redshift 0: "
                            "they could not be compared", value=box.redshift_final, accepted=0.0)
        if not np.isfinite(box.redshift_initial):
            raise DataError(f"{box.path} does not say the redshift of its initial density")
        growth = nbody.growth_history(box.cosmology)(1 / (1 + box.redshift_initial)).D1
        return box.delta() / np.float32(growth), box.boxsize, box.cosmology


def _check(particles, boxsize, seed, steps, mesh, finder, minimum):
    """Raise SettingError for an argument of `simulate` that is not accepted."""
    least = {"particles": (particles, 8), "seed": (seed, 0), "steps": (steps, 2), "mesh": (mesh, 1),
             "minimum": (minimum, 2)}
    for name, (value, lowest) in least.items():
        if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < lowest:
            raise SettingError(f"{name}={value!r}: it must be a whole number of at least {lowest}", value=value,
                               accepted=(lowest, None))
    if not (isinstance(boxsize, int | float | np.number) and 0 < boxsize <= 1e6):
        raise SettingError(f"boxsize={boxsize!r}: it must be a positive number of Mpc/h, at most 1e6", value=boxsize)
    if finder not in FINDERS:
        raise SettingError(f"finder={finder!r}: accepted are {', '.join(FINDERS)}", value=finder,
                           accepted=list(FINDERS))
    if finder == "hop":
        finders.hop_finder()  # what is not installed is said before hours of simulation


def warn_of_coarse_haloes(smallest):
    """Say so if the smallest haloes [Msun/h] of a simulation are too large to have all of the painted galaxies."""
    model = painting.GalaxyModel
    lightest = 10 ** (model.log_minimum - model.scatter)
    if smallest > lightest:
        log.warning(f"galaxies are painted into haloes from {lightest:.2g} Msun/h on, but the smallest haloes here "
                    f"will have {smallest:.2g} Msun/h: the galaxies of smaller ones will be missing")


def paint_galaxies(catalogue, halo_id, position, boxsize, seed, velocity=None):
    """The galaxies of `kerasgal.galaxies.paint` at redshift 0, the same for the same seed of a simulation."""
    # A stream of random numbers beside that of the initial conditions, which has the seed itself
    rng = np.random.default_rng(np.random.SeedSequence(seed).spawn(1)[0])
    return painting.paint(catalogue, halo_id, position, boxsize, 0.0, rng, painting.GalaxyModel(), velocity)


def own_simulations(folder, seed, particles=PARTICLES, galaxies=False):
    """Make Simulation files in `folder` for a training that was given none; returns their paths.

    particles: per side; galaxies: whether to paint them. Both show in the names.
    """
    kind = ("" if particles == PARTICLES else f"_{particles}") + ("_galaxies" if galaxies else "")
    seeds = range(seed, seed + BOXES)
    paths = [Path(folder) / f"box_seed{number}{kind}.h5" for number in seeds]
    log.info(f"no simulation given: making {BOXES} of {particles}^3 particles in {BOXSIZE:g} Mpc/h"
             f"{' with painted galaxies' if galaxies else ''} in {folder}, where they are not there yet")
    Path(folder).mkdir(parents=True, exist_ok=True)
    for number, path in zip(seeds, paths):
        if not path.exists():
            simulate(path, particles=particles, boxsize=BOXSIZE, seed=number, galaxies=galaxies).close()
    return paths
