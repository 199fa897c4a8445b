"""Maps and boxes of density and galaxies, and the patches that the diffusion model is trained on."""

import logging

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from kerasgal.apps.cascade import data, predict
from kerasgal.apps.cascade.diffusion.counts import field_of
from kerasgal.conditioning import parameter_names, parameters_of
from kerasgal.errors import DataError
from kerasgal.pipeline import patches, tiles
from kerasgal.plotting import progress
from kerasgal.run import display_name
from kerasgal.simulation import opened

OF_DENSITY = ("density_of", "particles_per_cell")  # features of a density that is given

log = logging.getLogger(__name__)


def slabs(field, depth, axis, stride=0):
    """The maps of a box along an axis, (n, n, maps): sums over slabs of `depth` cells.

    They stand side by side, and what is left where the depth does not divide the box is not used. With a stride one
    begins after so many cells each, and the last ones go on at the other face: (n, n, ceil(n / stride)).
    """
    number = len(field) // depth
    field = np.moveaxis(field, axis, -1)
    if stride:
        field = np.concatenate([field, field[..., :depth - 1]], axis=-1)
        return sliding_window_view(field, depth, axis=-1)[..., ::stride, :].sum(axis=-1)
    field = field[..., :number * depth]
    return field.reshape(*field.shape[:2], number, depth).sum(axis=-1)


def project(source, field, config, axes=(0, 1, 2), stride=0):
    """A box as the configuration has it: itself, (n, n, n), or its maps along axes, (n, n, maps); stride: of `slabs`.

    Raises DataError for slabs deeper than the box.
    """
    if config.dimensions == 3:
        return field
    if config.depth > len(field):
        raise DataError(f"{display_name(source)}: depth={config.depth} is a slab deeper than the box of {len(field)} "
                        "cells")
    return np.concatenate([slabs(field, config.depth, axis, stride) for axis in axes], axis=-1)


def features(source, config):
    """What `kerasgal.domain` knows of a Simulation, or its path, of which the configuration draws.

    Where matter is drawn the galaxies are what must be alike, and of the density nothing need be known; whose density
    it is that was drawn stands under a name of its own.
    """
    with opened(source, ()) as simulation:
        found = data.features(simulation, config.cell)
        if config.matter:
            counts = data.galaxy_counts(simulation, config.cell)
            found["galaxy_density"] = float(counts.sum(dtype=float)) / simulation.boxsize**3
            found["drawn_of"] = found["density_of"]
            found = {name: value for name, value in found.items() if name not in OF_DENSITY}
        return found


def left_out(simulation, config):
    """Notes, one where slabs do not fill the box along the axis that maps are taken along, which is logged, too."""
    words = unseen(data.cells_of(simulation, config.cell), config)
    if not words:
        return []
    note = f"{display_name(simulation)}: {words}"
    log.info(note)
    return [note]


def unseen(gridsize, config):
    """Words for what slabs side by side leave out of a box of so many cells a side; none where they fill it."""
    rest = gridsize % config.depth if config.dimensions == 2 else 0
    if not rest:
        return ""
    return (f"maps of {config.depth} cells show {gridsize - rest} of the {gridsize} along their axis; the last {rest} "
            "are left out")


def load(source, config, axes=(0, 1, 2), stride=0, regressor=None):
    """What is given and drawn of a Simulation or its path, and its parameters; stride: of `slabs`.

    Returns what is given, as `given`, parameters, (p,) float32, and what is drawn, as `target`. Raises DataError as
    these do.
    """
    with opened(source, ()) as simulation:
        drawn = target(simulation, config, axes, stride)
        return *given(simulation, config, axes, stride=stride, regressor=regressor), drawn


def given(simulation, config, axes=(0, 1, 2), *, stride=0, known=None, sparse=False, regressor=None):
    """What draws are conditioned on, of a Simulation: its density, or galaxies, and its parameters, (p,) float32.

    The former is (n, n, n) float32 or for maps (n, n, maps). With a regressor, a `Cascade`, it has a last axis more:
    the density, and the galaxies that the regressor expects. known: parameters, {name: value}, that are not the
    simulation's own. Raises DataError as `cascade.data.load` does, for a slab deeper than the box and a parameter that
    the file has not.
    """
    parameters = parameters_of(simulation, parameter_names(config), known)
    if config.matter:
        return galaxies(simulation, config, axes, stride), parameters
    field = density(simulation, config, axes, stride, sparse)
    if regressor:
        mean = project(simulation, expected(simulation, regressor, known), config, axes, stride)
        field = np.stack([field, mean], axis=-1)
    return field, parameters


def target(simulation, config, axes=(0, 1, 2), stride=0, sparse=False):
    """What is drawn of a Simulation, (n, n, n) float32 or for maps (n, n, maps): galaxies in each cell, or the density.

    Raises DataError where that is not in the simulation, and for a cell with more galaxies than `config.maximum`.
    """
    if config.matter:
        return density(simulation, config, axes, stride, sparse)
    counts = galaxies(simulation, config, axes, stride)
    if counts.max() > config.maximum:
        raise DataError(f"{simulation.path} has a cell with {counts.max():g} galaxies; maximum={config.maximum} is the "
                        "most that the model can have")
    return counts


def density(simulation, config, axes=(0, 1, 2), stride=0, sparse=False):
    """Density in units of the mean, in the cells of a box or of its maps."""
    depth = config.depth if config.dimensions == 2 else 1
    return project(simulation, data.density(simulation, config.cell, sparse=sparse), config, axes, stride) / depth


def galaxies(simulation, config, axes=(0, 1, 2), stride=0):
    """Galaxies in the cells of a box or of its maps."""
    return np.rint(project(simulation, data.galaxy_counts(simulation, config.cell), config, axes, stride))


def known_to(regressor, known):
    """Those of the parameters, {name: value}, that a `Cascade` is given, too."""
    return {name: value for name, value in (known or {}).items() if name in regressor.config.names}


def expected(simulation, regressor, known=None):
    """Galaxies that a `Cascade` expects in the cells of a Simulation, (n, n, n) float32; known: see `given`."""
    field, parameters = data.given(simulation, regressor.config, known=known_to(regressor, known), sparse=True)
    with progress(f"{display_name(simulation)}: the regressor's mean field") as tick:
        return predict.predict_field(regressor.network, field, regressor.config, parameters=parameters,
                                     progress=tick)[..., 1]


def maps_of(field, config):
    """What `load` gives of one simulation as a list: its box, or its maps, (n, n) each or with channels (n, n, c)."""
    return [field] if config.dimensions == 3 else list(np.moveaxis(field, 2, 0))


def dataset(samples, config, stride, *, seed=None, first=0, full=False):
    """Batches of ((given, field, parameters),) as a tf.data.Dataset: patches of what `load` gives of simulations.

    Of boxes the samples have, for what is drawn, the field, and both with channels, (n, n, n, c).
    With a seed an endless stream from sample `first` on, in all symmetries of the square or cube; without one, every
    patch once. What is given is (batch, x, y, c) or (batch, x, y, z, c), the field too with one channel, parameters
    (batch, p).
    """
    import tensorflow as tf

    flat = config.dimensions == 2
    volumes, corners, rows = [], [], []
    for seen, parameters, drawn in side_by_side(samples) if flat else samples:
        volumes.append((channelled(seen, 3), field_of(drawn, config.field)[..., None]) if flat else (seen, drawn))
        corners.append(tiles(seen.shape[:3], (stride, stride, 1) if flat else stride))
        owner = corners[-1] % seen.shape[2] if flat else np.zeros(len(corners[-1]), int)
        rows.append(np.atleast_2d(parameters)[owner])
    side = (config.patch, config.patch, 1) if flat else config.patch
    stream = patches(volumes, corners, side, config.batch, targets=rows, seed=seed, first=first, full=full,
                     symmetries=None if seed is None else "square" if flat else "reflections")
    # One thing to Keras, all of it what the model is given: its output is the loss.
    if flat:
        return stream.map(lambda seen, field, parameters: ((tf.squeeze(seen, 3), tf.squeeze(field, 3), parameters),))
    return stream.map(lambda *batch: (batch,))


def channelled(field, axes):
    """A field of so many axes, and maybe channels, with channels."""
    return field[..., None] if field.ndim == axes else field


def side_by_side(samples):
    """Samples of maps as few: those of one size together, (n, n, maps) each, with a row of parameters for every map."""
    together = {}
    for sample in samples:
        together.setdefault(len(sample[0]), []).append(sample)
    for alike in together.values():
        seen, parameters, drawn = zip(*alike)
        rows = [np.tile(row, (maps.shape[2], 1)) for row, maps in zip(parameters, seen)]
        yield np.concatenate(seen, axis=2), np.concatenate(rows), np.concatenate(drawn, axis=2)
