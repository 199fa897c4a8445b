"""Training on whole boxes: one prediction for every fourth cell along each axis, in place of one for each cube.

What neighbouring cubes repeat of each other's work is computed once, as in `dense`, of which this is the part that
learns. The layers are those of `cnn` without padding, and see the same cells, from the other side of the box where a
cube reaches beyond a face. So what is trained here predicts particles and maps like any other run.

A box of 64^3 cells has 4,096 such places with the demo's four convolutions, so 64 cells for each, where its cube has
40^3, a thousand times as many. A third of the places are in haloes of the demo's masses.
"""

import keras
import numpy as np
from keras import layers, ops

from kerasgal.apps.halomass import data
from kerasgal.apps.halomass.dense import pooled_side_of
from kerasgal.apps.halomass.model import SLOPE, standardising
from kerasgal.channel_names import vector_of
from kerasgal.errors import DataError
from kerasgal.simulation import opened


@keras.saving.register_keras_serializable("kerasgal")
class Continued(layers.Layer):
    """A periodic field, (batch, x, y, z, channel), and behind it so many cells of its beginning along each axis."""

    def __init__(self, cells, **kwargs):
        super().__init__(**kwargs)
        self.cells = cells

    def call(self, field):
        for axis in (1, 2, 3):
            begin = (slice(None),) * axis + (slice(self.cells),)
            field = ops.concatenate([field, field[begin]], axis=axis)
        return field

    def get_config(self):
        return {**super().get_config(), "cells": self.cells}


@keras.saving.register_keras_serializable("kerasgal")
class Cubes(layers.Layer):
    """The features of every cube, (batch, cubes, features), of a field of which a cube has every other cell.

    side: cells per side of a cube. Features are in the order of `keras.layers.Flatten`.
    """

    def __init__(self, side, **kwargs):
        super().__init__(**kwargs)
        self.side = side

    def call(self, field):
        reach = 2 * (self.side - 1)
        places = np.subtract(field.shape[1:4], reach)
        steps = range(0, reach + 1, 2)
        cells = [field[:, x:x + places[0], y:y + places[1], z:z + places[2]] for x in steps for y in steps
                 for z in steps]
        return ops.reshape(ops.stack(cells, axis=4), (-1, int(places.prod()), len(cells) * field.shape[-1]))

    def get_config(self):
        return {**super().get_config(), "side": self.side}


def spacing(config):
    """Cells from one place that is predicted to the next."""
    return 2 ** (config.convolutions - 2)


def over_boxes(network, n):
    """A network over periodic boxes of n cells per side, of the layers of `network`, a `cnn` without padding.

    From (batch, n, n, n, channels) to [y, scales...] of the cubes whose lowest cells are `spacing` apart, (batch,
    cubes, 1 + scales). All poolings but the last make the field coarser; that one keeps its cells, of which a cube has
    every other one.
    """
    convolutions = [layer for layer in network.layers if isinstance(layer, layers.Conv3D)]
    dense = [layer for layer in network.layers if isinstance(layer, layers.Dense)]
    side = pooled_side_of(network)
    inputs = keras.Input((n, n, n, network.inputs[0].shape[-1]), name="box")
    x = standardising(network)(inputs)
    for number, layer in enumerate(convolutions):
        x = layers.LeakyReLU(SLOPE)(layer(Continued(2)(x)))
        if layer is convolutions[-1]:
            x = layers.MaxPooling3D(2, strides=1)(Continued(1)(x))
        elif number > 0:
            x = layers.MaxPooling3D(2)(x)
    x = Cubes(side)(Continued(2 * (side - 1))(x))
    for layer in dense[:-1]:
        x = layers.LeakyReLU(SLOPE)(layer(x))
    return keras.Model(inputs, network.get_layer("scales")(dense[-1](x)), name="halomass")


def load(source, config):
    """The field of a Simulation or its path, (n, n, n, channel), and the target of every cell, (n, n, n, 1).

    The target is in [-1, 1], or NaN outside haloes of the range of masses. Where cells hold several particles each, it
    is that of their first. Raises DataError for a box that the network does not fit into, or without such haloes.
    """
    with opened(source, require=("initial/delta", "halo_id", "halos/mass")) as simulation:
        n, side, step = simulation.gridsize, data.cube_side(config), spacing(config)
        if n < side or n % step:
            raise DataError(f"{simulation.path}: whole=True needs a box of at least {side} cells a side, and a "
                            f"multiple of {step}, received {n}", value=n, accepted=(side, None))
        data.halo_particles(simulation, config.low, config.high)
        finer = data.particles_per_side(simulation)
        particles = np.arange(finer**3).reshape((finer,) * 3)[(slice(None, None, finer // n),) * 3]
        log_mass = data.halo_log_mass(simulation, particles.ravel()).reshape(n, n, n, 1)
        field = data.field(simulation, config)
    wanted = (log_mass >= config.low) & (log_mass <= config.high)
    return field, np.where(wanted, data.Scale(config.low, config.high).to_target(log_mass), np.nan).astype(np.float32)


def load_all(sources, config, store=None):
    """`load` of several; store: a `kerasgal.scratch.Store`, which keeps them."""
    return [tuple(store.keep(box) if store else box) for box in (load(source, config) for source in sources)]


def words(boxes, name):
    """How many boxes there are, and what share of them is learnt from."""
    share = np.mean([np.isfinite(target[...]).mean() for _, target in boxes])
    return f"{len(boxes):,} {name} boxes; {share:.0%} of their cells are in haloes of the range"


def moments(boxes):
    """Mean and standard deviation of each channel of boxes, (channel,) each."""
    found = []
    for field, _ in boxes:  # one at a time: they may lie in a scratch file
        field = np.asarray(field[...], np.float64)
        found.append([(field**power).mean(axis=(0, 1, 2)) for power in (1, 2)])
    mean, squares = np.mean(found, axis=0)
    return mean, np.sqrt(np.maximum(squares - mean**2, 1e-30))


def batches(boxes, config, *, seed=None, first=0, full=False):
    """Boxes, targets, (batch, cubes, 1), and weights, (batch, cubes), as a tf.data.Dataset; see `pipeline.stream`.

    A weight is 0 where the particle ends in no halo of the range, and else 1. The endless stream that a seed gives has
    every box with its origin in every cell, in all the symmetries of the config; else each comes twice, with its
    origin at rest and half the spacing further along all axes.
    """
    import tensorflow as tf

    from kerasgal import pipeline

    n = {field.shape[0] for field, _ in boxes}
    if len(n) > 1:
        raise DataError(f"whole=True needs boxes of as many cells each, received {sorted(n)} a side")
    n, = n
    middle, step = data.cube_side(config) // 2, spacing(config)
    # The same array for all boxes: it is not to be held once for each.
    origins = np.arange(n**3) if seed is not None else np.ravel_multi_index(((0, step // 2),) * 3, (n,) * 3)
    turned = seed is not None and config.symmetries != "none"
    stream = pipeline.patches(boxes, [origins] * len(boxes), n, config.batch, seed=seed, first=first, full=full,
                              symmetries=config.symmetries if turned else None, vector=vector_of(config.names))

    def at_places(box, target):
        target = tf.roll(target, [-middle] * 3, axis=[1, 2, 3])[:, ::step, ::step, ::step]
        target = tf.reshape(target, (-1, (n // step) ** 3, 1))
        known = tf.math.is_finite(target)
        return box, tf.where(known, target, 0.0), tf.cast(known[..., 0], tf.float32)

    return stream.map(at_places)
