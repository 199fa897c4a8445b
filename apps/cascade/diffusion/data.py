"""Maps and boxes of density and galaxies, and the patches that the diffusion model is trained on."""

import logging

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from kerasgal.apps.cascade import data
from kerasgal.apps.cascade.diffusion.counts import field_of
from kerasgal.conditioning import parameter_names, parameters_of
from kerasgal.errors import DataError
from kerasgal.pipeline import patches, tiles
from kerasgal.run import display_name
from kerasgal.simulation import opened

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


def left_out(simulation, config):
    """Notes, one where slabs do not fill the box along the axis that maps are taken along, which is logged, too."""
    gridsize = data.gridsize_of(simulation.path, simulation.boxsize, config.cell)
    rest = gridsize % config.depth if config.dimensions == 2 else 0
    if not rest:
        return []
    note = (f"{display_name(simulation)}: maps of {config.depth} cells show {gridsize - rest} of the {gridsize} along "
            f"their axis; the last {rest} are left out")
    log.info(note)
    return [note]


def load(source, config, axes=(0, 1, 2), stride=0):
    """Density and galaxies of a Simulation or its path, and its parameters; stride: of `slabs`.

    Returns density, in units of the mean, and galaxies in each cell, (n, n, n) float32 or for maps (n, n, maps), and
    parameters, (p,) float32. Raises DataError as `cascade.data.load` does, for a slab deeper than the box, a cell
    with more galaxies than `config.maximum`, and a parameter that the file has not.
    """
    with opened(source, ()) as simulation:
        counts = galaxies(simulation, config, axes, stride)
        return *given(simulation, config, axes, stride=stride), counts


def given(simulation, config, axes=(0, 1, 2), *, stride=0, known=None, sparse=False):
    """What draws are conditioned on: the density and the parameters of `load`, `known` ones not from the simulation."""
    density = data.density(simulation, config.cell, sparse=sparse)
    depth = config.depth if config.dimensions == 2 else 1
    return (project(simulation, density, config, axes, stride) / depth,
            parameters_of(simulation, parameter_names(config), known))


def galaxies(simulation, config, axes=(0, 1, 2), stride=0):
    """The galaxies of `load`."""
    counts = np.rint(project(simulation, data.galaxy_counts(simulation, config.cell), config, axes, stride))
    if counts.max() > config.maximum:
        raise DataError(f"{simulation.path} has a cell with {counts.max():g} galaxies; maximum={config.maximum} is the "
                        "most that the model can have")
    return counts


def dataset(samples, config, stride, *, seed=None, first=0, full=False):
    """Batches of ((density, field, parameters),) as a tf.data.Dataset: patches of what `load` gives of simulations.

    Of boxes the samples have, for the galaxies, the field, and both with a channel, (n, n, n, 1).
    With a seed an endless stream from sample `first` on, in all symmetries of the square or cube; without one, every
    patch once. Density and field are (batch, x, y, 1) or (batch, x, y, z, 1), parameters (batch, p).
    """
    import tensorflow as tf

    flat = config.dimensions == 2
    volumes, corners, rows = [], [], []
    for density, parameters, counts in side_by_side(samples) if flat else samples:
        volumes.append((density[..., None], field_of(counts, config.field)[..., None]) if flat else (density, counts))
        corners.append(tiles(density.shape[:3], (stride, stride, 1) if flat else stride))
        owner = corners[-1] % density.shape[2] if flat else np.zeros(len(corners[-1]), int)
        rows.append(np.atleast_2d(parameters)[owner])
    side = (config.patch, config.patch, 1) if flat else config.patch
    stream = patches(volumes, corners, side, config.batch, targets=rows, seed=seed, first=first, full=full,
                     symmetries=None if seed is None else "square" if flat else "reflections")
    # One thing to Keras, all of it what the model is given: its output is the loss.
    if flat:
        return stream.map(lambda density, field, parameters: ((tf.squeeze(density, 3), tf.squeeze(field, 3),
                                                               parameters),))
    return stream.map(lambda *batch: (batch,))


def side_by_side(samples):
    """Samples of maps as few: those of one size together, (n, n, maps) each, with a row of parameters for every map."""
    together = {}
    for sample in samples:
        together.setdefault(len(sample[0]), []).append(sample)
    for alike in together.values():
        density, parameters, counts = zip(*alike)
        rows = [np.tile(row, (maps.shape[2], 1)) for row, maps in zip(parameters, density)]
        yield np.concatenate(density, axis=2), np.concatenate(rows), np.concatenate(counts, axis=2)
