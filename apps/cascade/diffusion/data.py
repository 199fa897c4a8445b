"""Maps and boxes of density and galaxies, and the patches that the diffusion model is trained on."""

import numpy as np

from kerasgal.apps.cascade import data
from kerasgal.errors import DataError
from kerasgal.pipeline import patches, tiles
from kerasgal.simulation import Simulation


def slabs(field, depth, axis):
    """The maps of a box along an axis, (n, n, n // depth): sums over slabs of `depth` cells.

    What is left where the depth does not divide the box is not used.
    """
    number = len(field) // depth
    field = np.moveaxis(field, axis, -1)[..., :number * depth]
    return field.reshape(*field.shape[:2], number, depth).sum(axis=-1)


def project(path, field, config, axes=(0, 1, 2)):
    """A box as the configuration has it: itself, (n, n, n), or its maps along axes, (n, n, maps).

    Raises DataError for slabs deeper than the box.
    """
    if config.dimensions == 3:
        return field
    if config.depth > len(field):
        raise DataError(f"{path}: a slab of --depth {config.depth} is deeper than the box of {len(field)} cells")
    return np.concatenate([slabs(field, config.depth, axis) for axis in axes], axis=-1)


def load(path, config, axes=(0, 1, 2)):
    """Density and galaxies of the Simulation file `path`, and its parameters.

    Returns density, in units of the mean, and galaxies in each cell, (n, n, n) float32 or for maps (n, n, maps), and
    parameters, (p,) float32. Raises DataError as `cascade.data.load` does, for a slab deeper than the box, a cell
    with more galaxies than `config.maximum`, and a parameter that the file has not.
    """
    counts = galaxies(path, config, axes)
    return *given(path, config, axes), counts


def given(path, config, axes=(0, 1, 2), known=None):
    """What draws are conditioned on: the density and the parameters of `load`, `known` ones not from the file."""
    with Simulation(path, require=()) as simulation:
        density, parameters = data.density(simulation, config.cell), parameters_of(simulation, config, known or {})
    depth = config.depth if config.dimensions == 2 else 1
    return project(path, density, config, axes) / depth, parameters


def galaxies(path, config, axes=(0, 1, 2)):
    """The galaxies of `load`."""
    with Simulation(path, require=()) as simulation:
        counts = np.rint(project(path, data.galaxy_counts(simulation, config.cell), config, axes))
    if counts.max() > config.maximum:
        raise DataError(f"{path} has a cell with {counts.max():g} galaxies; --maximum {config.maximum} is the most "
                        "that the model can have")
    return counts


def parameters_of(simulation, config, known):
    """The parameters of an opened Simulation file that the network is given, (p,) float32, `known` ones not from it."""
    known = simulation.parameters | known
    missing = [name for name in config.names if name not in known]
    if missing:
        raise DataError(f"{simulation.path} does not say its {', '.join(missing)}; it knows {', '.join(known)}")
    return np.array([known[name] for name in config.names], np.float32)


def levels(config):
    """The field's value for every number of galaxies from 0 to the maximum, (maximum + 1,) float32."""
    return field_of(np.arange(config.maximum + 1, dtype=np.float32), config)


def field_of(counts, config):
    """The field that is noised, of numbers of galaxies."""
    return np.log2(1 + counts) if config.field == "log" else counts


def halfway(values):
    """What lies half way between each of some rising values and the next."""
    return (values[1:] + values[:-1]) / 2


def counts_of(field, config):
    """The numbers of galaxies whose field is nearest to the given one, float32."""
    return np.searchsorted(halfway(levels(config)), field).astype(np.float32)


def dataset(samples, config, stride, *, seed=None, first=0, full=False):
    """Batches of (density, field, parameters) as a tf.data.Dataset: patches of what `load` gives for each simulation.

    With a seed an endless stream from sample `first` on, in all symmetries of the square or cube; without one, every
    patch once. Density and field are (batch, x, y, 1) or (batch, x, y, z, 1), parameters (batch, p).
    """
    import tensorflow as tf

    flat = config.dimensions == 2
    volumes, corners, rows = [], [], []
    for density, parameters, counts in side_by_side(samples) if flat else samples:
        volumes.append((density[..., None], field_of(counts, config)[..., None]))
        corners.append(tiles(density.shape, (stride, stride, 1) if flat else stride))
        owner = corners[-1] % density.shape[2] if flat else np.zeros(len(corners[-1]), int)
        rows.append(np.atleast_2d(parameters)[owner])
    side = (config.patch, config.patch, 1) if flat else config.patch
    stream = patches(volumes, corners, side, config.batch, targets=rows, seed=seed, first=first, full=full,
                     symmetries=None if seed is None else "square" if flat else "reflections")
    if flat:
        stream = stream.map(lambda density, field, parameters: (tf.squeeze(density, 3), tf.squeeze(field, 3),
                                                                parameters))
    return stream


def side_by_side(samples):
    """Samples of maps as few: those of one size together, (n, n, maps) each, with a row of parameters for every map."""
    together = {}
    for sample in samples:
        together.setdefault(len(sample[0]), []).append(sample)
    for alike in together.values():
        density, parameters, counts = zip(*alike)
        rows = [np.tile(row, (maps.shape[2], 1)) for row, maps in zip(parameters, density)]
        yield np.concatenate(density, axis=2), np.concatenate(rows), np.concatenate(counts, axis=2)
