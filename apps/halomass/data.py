"""Particles, targets and inputs of halomass from Simulation files (Lucie-Smith et al. 2020, Methods)."""

import dataclasses
from dataclasses import dataclass

import numpy as np

from kerasgal.apps.halomass.config import SHELLS
from kerasgal.apps.halomass.model import unpadded_side
from kerasgal.apps.halomass.shells import multipoles, shell_index
from kerasgal.channel_names import WORDS, vector_of
from kerasgal.channels import initial_channels
from kerasgal.conditioning import named, parameter_names, parameters_of
from kerasgal.domain import of_box
from kerasgal.errors import DataError
from kerasgal.simulation import check_mean, opened
from kerasgal.tiling import Derived, deviation

INPUT_WORDS = {
    "raw": "initial density contrast in a cube centred on a particle's Lagrangian cell",
    "averaged": "initial density contrast averaged over spherical shells around a particle's Lagrangian cell",
    "multipoles": "initial density contrast in spherical shells around a particle's Lagrangian cell: its means over "
                  "the shells, then the magnitudes of its dipoles, then those of its quadrupoles",
    "final": "final density in units of the mean in a cube centred on a particle's final position"
}
DENSITY = ("density",)  # the channels of what sees that alone
CHUNK = 256  # samples from which the inputs' mean and deviation are taken


@dataclass(frozen=True)
class Scale:
    """The linear map between log10 halo mass in [low, high] and the network's [-1, 1]."""

    low: float
    high: float

    def to_target(self, log_mass):
        return 2 * (log_mass - self.low) / (self.high - self.low) - 1

    def to_log_mass(self, y):
        return self.low + (y + 1) / 2 * (self.high - self.low)


def particles_per_side(simulation):
    """Particles per side of the Lagrangian lattice; the density grid may be coarser."""
    return simulation["halo_id"].shape[0] if "halo_id" in simulation else simulation.gridsize


def halo_log_mass(simulation, particles):
    """log10 mass [Msun/h] of the haloes in which particles end, NaN outside haloes: (m,) for flat indices (m,).

    Raises DataError for an index outside the simulation.
    """
    check_particles(simulation, particles)
    if "halo_id" not in simulation or "halos/mass" not in simulation:
        return np.full(len(particles), np.nan)
    log_mass = np.append(np.log10(simulation["halos/mass"][...].astype(np.float64)), np.nan)  # the last is for id -1
    return log_mass[simulation["halo_id"][...].ravel()[particles]]


def check_particles(simulation, particles):
    """Raise DataError for flat indices of particles that the simulation does not have."""
    number = particles_per_side(simulation) ** 3
    wrong = particles[(particles < 0) | (particles >= number)]
    if len(wrong):
        raise DataError(f"{simulation.path} has no particle {wrong[0]}: accepted are 0 to {number - 1}",
                        value=int(wrong[0]), accepted=(0, number - 1))


def halo_particles(simulation, low, high):
    """Flat indices of all particles that end in haloes with log10 mass in [low, high], in ascending order."""
    log_mass = np.append(np.log10(simulation["halos/mass"][...].astype(np.float64)), -np.inf)
    wanted = (log_mass >= low) & (log_mass <= high)
    particles = np.flatnonzero(wanted[simulation["halo_id"][...].ravel()])
    if not len(particles):
        found = f"its haloes have {log_mass[-2]:.2f} to {log_mass[0]:.2f}" if len(log_mass) > 1 else "it has no halo"
        raise DataError(f"{simulation.path} has no particle in haloes with log10 mass between {low:g} and {high:g}; "
                        f"{found}")
    return particles


def sample_particles(simulation, count, low, high, seed):
    """`count` particles at random that end in haloes with log10 mass [Msun/h] in [low, high].

    Returns their flat indices and log10 halo masses, (m,) each; all, in random order, where there are fewer. Raises
    DataError if there is none.
    """
    particles = np.random.default_rng(seed).permutation(halo_particles(simulation, low, high))[:count]
    return particles, halo_log_mass(simulation, particles)


def cells_of(simulation, particles):
    """Indices of the particles' Lagrangian cells in the density grid, (3, m)."""
    side = particles_per_side(simulation)
    return np.stack(np.unravel_index(particles, (side,) * 3)) // (side // simulation.gridsize)


def field(simulation, config):
    """The field that cubes are cut from, (n, n, n, channel) float32, for the inputs `raw` and `channels`."""
    delta = simulation.delta()
    return delta[..., None] if config.names == DENSITY else initial_channels(delta, simulation.boxsize, config.names)


def input_words(config):
    """What the network sees, in words."""
    if config.names == DENSITY:
        return INPUT_WORDS[config.input]
    words = "; ".join(WORDS[name] for name in config.names)
    return f"{words}: of the initial density, by linear theory, in a cube centred on a particle's Lagrangian cell"


def sliced_field(simulation, config):
    """`field` as something that can be sliced, of which the density alone is read from the file only then.

    Raises DataError for a density that is not finite, or no contrast.
    """
    if config.names != DENSITY:
        return field(simulation, config)
    delta = simulation["initial/delta"]
    check_mean(delta, f"{simulation.path}: initial/delta")
    return Derived(delta)


def cube_side(config):
    """Cells per side of the cubes that the network takes."""
    return unpadded_side(config.patch, config.convolutions) if config.padding == "none" else config.patch


@dataclass
class Sample:
    """Some particles of one simulation, and what their inputs are made from."""

    particles: np.ndarray  # (m,) flat indices
    log_mass: np.ndarray  # (m,) log10 Msun/h, NaN outside haloes
    places: np.ndarray  # (m, ...): corners of cubes; numbers of shells; final positions
    source: object  # what cubes are cut from: a field; None; all final positions and the box size
    # (p,) of the simulation, where the network is given some
    parameters: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.float32))


def required(config):
    """The datasets of a Simulation that inputs are made from."""
    return ("final/position",) if config.input == "final" else ("initial/delta",)


def features(source, config, known=None):
    """What the domain of a run knows of a Simulation or its path: `kerasgal.domain.of_box` of what the network sees.

    Of the initial density its cells and its amplitude, which is not divided out. Of the final positions how far
    particles are apart, for their cubes have cells in Mpc/h whatever the grid. And the parameters that it is given,
    `known` ones, {name: value}, not from the simulation.
    """
    with opened(source, require=required(config)) as simulation:
        given = named(simulation, parameter_names(config), known)
        if config.input != "final":
            return of_box(simulation, "initial/delta", deviation=deviation(simulation["initial/delta"])) | given
        side = np.cbrt(simulation["final/position"].shape[0])
        of_particles = of_box(simulation, "final/position", gridsize=side)
        spacing, _ = of_particles.pop("cellsize"), of_particles.pop("particles_per_cell")
        return {"spacing": spacing, **of_particles, **given}


def load(source, config, particles, known=None):
    """The `Sample` of particles, (m,) flat indices, of a Simulation or its path.

    known: parameters that are given, {name: value}, in place of the simulation's own. Raises DataError for a particle
    outside the simulation, a cube larger than the box, or a file without what the input is made from.
    """
    from kerasgal.pipeline import centred

    with opened(source, require=required(config)) as simulation:
        log_mass = halo_log_mass(simulation, particles)
        given = parameters_of(simulation, parameter_names(config), known)
        if config.input == "final":
            position = simulation["final/position"][...]
            return Sample(particles, log_mass, position[particles], (position, simulation.boxsize), given)
        side, n = odd_side(cube_side(config)), simulation.gridsize
        if side > n:
            raise DataError(f"{simulation.path}: the cube of {side} cells around a particle is larger than the box of "
                            f"{n}: choose a smaller `patch`, or a simulation with more cells", value=n,
                            accepted=(side, None))
        cells = cells_of(simulation, particles)
        if config.input in SHELLS:
            return Sample(particles, log_mass, shell_numbers(simulation.delta(), config, cells), None, given)
        return Sample(particles, log_mass, centred(np.ravel_multi_index(tuple(cells), (n,) * 3), n, side),
                      field(simulation, config), given)


def shell_numbers(delta, config, cells):
    """What the inputs `averaged` and `multipoles` have of cells, (3, m), of an initial density: (m, numbers)."""
    return multipoles(delta, cells, config.patch, config.shells, config.order if config.input == "multipoles" else 0)


def odd_side(side):
    """Side of the cubes that are cut: odd, so that a particle's cell is the centre of every rotation of its cube."""
    return side + 1 - side % 2


def batches(samples, config, *, batch=None, targets=True, seed=None, first=0, full=False):
    """Inputs, and targets in [-1, 1], (batch, 1), of samples as a tf.data.Dataset; see `kerasgal.pipeline.stream`.

    Inputs are cubes, (batch, x, y, z, channel), or for `averaged` and `multipoles` numbers, (batch, numbers); of a
    network that is given parameters a pair of that and these, (batch, p). Symmetries are those of cubes, for the
    endless stream that a seed gives.
    """
    given = len(parameter_names(config))
    rows = [with_parameters(sample, config, targets) for sample in samples] if given or targets else None
    dataset = _batches(samples, config, rows, batch=batch, seed=seed, first=first, full=full)
    if not given:
        return dataset
    if targets:
        return dataset.map(lambda inputs, row: ((inputs, row[:, :given]), row[:, given:]))
    return dataset.map(lambda inputs, row: ((inputs, row),))


def with_parameters(sample, config, targets):
    """Parameters of the particles of a sample, and where `targets` are wanted theirs behind them: (m, columns)."""
    scale = Scale(config.low, config.high)
    columns = [np.broadcast_to(sample.parameters, (len(sample.particles), len(sample.parameters)))]
    return np.concatenate(columns + [scale.to_target(sample.log_mass)[:, None]] * targets, axis=1)


def _batches(samples, config, rows, *, batch, seed, first, full):
    """`batches` of inputs, and behind them `rows` of each sample, (m, columns), where there are some."""
    from kerasgal import pipeline

    side, places = cube_side(config), [sample.places for sample in samples]
    options = {"batch": batch or config.batch, "seed": seed, "first": first, "full": full}
    if config.input in SHELLS:
        arrays = [np.concatenate(places)] + ([np.concatenate(rows)] if rows else [])
        return pipeline.rows(arrays, **options)
    turned = seed is not None and config.symmetries != "none"
    options.update(targets=rows, symmetries=config.symmetries if turned else None)
    sources = [sample.source for sample in samples]
    if config.input == "final":
        return pipeline.deposits(sources, places, config.extent, side, **options)
    dataset = pipeline.patches([(volume,) for volume in sources], places, odd_side(side),
                               vector=vector_of(config.names), **options)
    if side % 2:
        return dataset
    # The particle's cell is at side // 2 also of an even cube, whichever way it was turned.
    return dataset.map(lambda cubes, *rest: (cubes[:, :side, :side, :side], *rest))


def moments(samples, config):
    """Mean and standard deviation of each channel of the cubes, (channel,) each, over some training particles.

    Of `multipoles` those of each number, (numbers,).
    """
    chosen = [sample_of(sample, CHUNK // len(samples) + 1) for sample in samples]
    total, squares, count = 0.0, 0.0, 0
    for inputs, *_ in _batches(chosen, config, None, batch=16, seed=None, first=0, full=False):
        inputs = np.asarray(inputs, np.float64)
        if config.input == "averaged":
            inputs = np.pad(inputs, [(0, 0), (0, 1)])[:, shell_index(config.patch, config.shells).ravel(), None]
        inputs = inputs.reshape(-1, inputs.shape[-1])
        total, squares, count = total + inputs.sum(axis=0), squares + (inputs**2).sum(axis=0), count + len(inputs)
    mean = total / count
    return mean, np.sqrt(np.maximum(squares / count - mean**2, 1e-30))


def sample_of(sample, count):
    """The first `count` particles of a sample."""
    return Sample(sample.particles[:count], sample.log_mass[:count], sample.places[:count], sample.source,
                  sample.parameters)
