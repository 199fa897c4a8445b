"""The prediction for every cell of a whole periodic box at once, for networks without padding.

Cell by cell, neighbouring cubes repeat nearly all of each other's work. Without padding a convolution's output belongs
to a place in the box, whichever cube it is part of, so each needs to be computed only once. A pooling of stride 2 seen
from cubes at every cell becomes one of stride 1, of which the next layer takes every other value: the eight phases,
even or odd along each axis, are eight coarser boxes, each periodic, that go through the remaining layers by themselves.
The dense layers are a convolution over the cells that reach them. The result is that of every cube, exactly.
"""

import itertools

import keras
import numpy as np
from keras import layers

from kerasgal.apps.halomass import data
from kerasgal.apps.halomass.model import SLOPE, Select
from kerasgal.errors import DataError
from kerasgal.grid import wrapped_block
from kerasgal.simulation import opened

LIMIT = 2**24  # numbers of a layer's output that are computed at once, and beyond which phases go one by one


def predict_map(network, config, source, progress=None):
    """Predicted log10 mass [Msun/h] of every Lagrangian cell's halo, (n, n, n) float32, of a Simulation or its path.

    It is what the network says of a particle that ends in a halo of the sample's range; it does not say whether the
    cell's particle does. progress: called as progress(done, total) in cells. Raises DataError for a run that was
    trained with zero padding, or a cube larger than the box.
    """
    check_padding(config)
    with opened(source) as simulation:
        field, name = data.field(simulation, config), simulation.path
    side = data.cube_side(config)
    if side > len(field):
        raise DataError(f"{name}: the cube of {side} cells around a particle is larger than the box of {len(field)}",
                        value=len(field), accepted=(side, None))
    y = predict_cells(network, field, progress)
    return data.Scale(config.low, config.high).to_log_mass(y).astype(np.float32)


def check_padding(config):
    """Raise DataError for the configuration of a run that was trained with zero padding."""
    if config.padding != "none":
        raise DataError("only a network without padding can predict a whole box: train with padding=none",
                        value=config.padding, accepted=("none",))


def predict_cells(model, field, progress=None):
    """The network's prediction for the cube around every cell of a periodic field: (n, n, n) from (n, n, n, channel).

    model: a `cnn` without padding. Where n is not a multiple of 2^poolings the box is continued periodically by a cube
    and until it is.
    """
    stages, side = stages_of(model), model.input_shape[1]
    multiple, n = 2 ** (len(stages) - 1), len(field)
    if n % multiple:
        field = wrapped_block(field, (0, 0, 0), (-(-(n + side - 1) // multiple) * multiple,) * 3)
    total, done = len(field) ** 3, 0

    def tick(cells):
        nonlocal done
        done += cells
        if progress:
            progress(done, total)

    y = _evaluate(stages, field[None], tick)[0, :n, :n, :n, 0]
    return np.roll(y, side // 2, axis=(0, 1, 2))  # from a cube's lowest cell to the one in its middle


def stages_of(model):
    """The network cut after each pooling: models from boxes to boxes, with how many cells each takes off.

    Each pooling has stride 1 here, and the last stage is the dense layers, as convolutions.
    """
    convolutions = [layer for layer in model.layers if isinstance(layer, layers.Conv3D)]
    dense = [layer for layer in model.layers if isinstance(layer, layers.Dense)]
    stages = []
    # The first pooling follows the second convolution.
    for group in [convolutions[:2], *([layer] for layer in convolutions[2:])]:
        x = inputs = keras.Input((None, None, None, group[0].kernel.shape[-2]))
        if not stages:
            x = next(layer for layer in model.layers if hasattr(layer, "deviation"))(x)
        for layer in group:
            x = layers.LeakyReLU(SLOPE)(layer(x))
        x = layers.MaxPooling3D(2, strides=1)(x)
        stages.append((keras.Model(inputs, x), 2 * len(group) + 1))
    last = convolutions[-1].filters
    side = pooled_side_of(model)
    select = next((layer for layer in model.layers if isinstance(layer, Select)), None)
    kernel = np.asarray(dense[0].kernel)
    if select is not None:  # neurons that a compressed network left out have weights of zero
        full = np.zeros((side**3 * last, kernel.shape[1]), kernel.dtype)
        full[select.kept] = kernel
        kernel = full
    kernels = [kernel.reshape(side, side, side, last, -1)]
    kernels += [np.asarray(layer.kernel)[None, None, None] for layer in dense[1:]]
    x = inputs = keras.Input((None, None, None, last))
    made = []
    for kernel, layer in zip(kernels, dense):
        made.append(layers.Conv3D(kernel.shape[-1], kernel.shape[0], dtype=layer.dtype_policy))
        x = made[-1](x)
        if layer is not dense[-1]:
            x = layers.LeakyReLU(SLOPE)(x)
    head = keras.Model(inputs, x)
    for kernel, layer, convolution in zip(kernels, dense, made):
        convolution.set_weights([kernel, np.asarray(layer.bias)])
    return [*stages, (head, side - 1)]


def pooled_side_of(model):
    """Cells per side that reach the dense layers of a network."""
    return next(layer for layer in model.layers if isinstance(layer, layers.Flatten)).input.shape[1]


def _evaluate(stages, boxes, tick):
    """Periodic boxes, (b, n, n, n, channel), through the stages: value q is that of the cube at lowest cell q."""
    (stage, reach), *rest = stages
    if not rest:
        result = _apply(stage, reach, boxes)
        tick(result.size)
        return result
    pooled = _apply(stage, reach, boxes)
    phases = [(slice(None), *(slice(start, None, 2) for start in phase))
              for phase in itertools.product((0, 1), repeat=3)]
    result = np.empty((*pooled.shape[:4], 1), np.float32)
    if pooled.size > LIMIT:
        for phase in phases:
            result[phase] = _evaluate(rest, pooled[phase], tick)
    else:
        parts = _evaluate(rest, np.concatenate([pooled[phase] for phase in phases]), tick)
        for phase, part in zip(phases, np.split(parts, 8)):
            result[phase] = part
    return result


def _apply(stage, reach, boxes):
    """A stage on periodic boxes of the same size, slab by slab or several boxes at once, so that memory is bounded."""
    number, n = boxes.shape[:2]
    channels = stage.output_shape[-1]
    widest = max(channels, boxes.shape[-1])
    padded = np.pad(boxes, [(0, 0), *[(0, reach)] * 3, (0, 0)], mode="wrap")
    together = max(1, LIMIT // ((n + reach) ** 3 * widest))
    thickness = max(1, min(n, LIMIT // ((n + reach) ** 2 * widest)))
    result = np.empty((number, n, n, n, channels), np.float32)
    for first in range(0, number, together):
        for low in range(0, n, thickness):
            block = padded[first:first + together, low:low + thickness + reach]
            result[first:first + together, low:low + thickness] = stage.predict_on_batch(block)
    return result
