"""The prediction for every cell of a whole periodic box at once, for networks without padding.

Cell by cell, neighbouring cubes repeat nearly all of each other's work. Without padding a convolution's output belongs
to a place in the box, whichever cube it is part of, so each needs to be computed only once. A pooling of stride 2 seen
from cubes at every cell becomes one of stride 1, of which the next layer takes every other value: the eight phases,
even or odd along each axis, are eight coarser boxes, each periodic, that go through the remaining layers by themselves.
The dense layers are a convolution over the cells that reach them. The result is that of every cube, exactly.

Where memory does not hold the first layers' maps of the whole box, it goes through tile by tile, each with the cells
around it that the cubes of its own reach. That is the same to float32 rounding, for more work.
"""

import itertools

import keras
import numpy as np
from keras import layers

from kerasgal import tiling
from kerasgal.apps.halomass import data
from kerasgal.apps.halomass.model import SLOPE, Select, standardising
from kerasgal.conditioning import parameter_names, parameters_of
from kerasgal.errors import DataError
from kerasgal.grid import wrapped_block
from kerasgal.quiet import without_retracing
from kerasgal.simulation import opened

LIMIT = 2**24  # numbers of a layer's output that are computed at once, and beyond which phases go one by one


def predict_map(network, config, source, *, known=None, tile=None, store=None, progress=None):
    """Predicted log10 mass [Msun/h] of every Lagrangian cell's halo, (n, n, n) float32, of a Simulation or its path.

    It is what the network says of a particle that ends in a halo of the sample's range; it does not say whether the
    cell's particle does. known: parameters that are given, {name: value}, in place of the simulation's own. tile,
    store, progress: of `predict_cells`. Raises DataError for a run that was trained with zero padding, a cube larger
    than the box, or a density that is not finite.
    """
    check_padding(config)
    scale, side = data.Scale(config.low, config.high), data.cube_side(config)

    def to_store(place, y):
        store(place, scale.to_log_mass(y).astype(np.float32))

    with opened(source) as simulation:
        n = simulation.gridsize
        if side > n:
            raise DataError(f"{simulation.path}: the cube of {side} cells around a particle is larger than the box of "
                            f"{n}", value=n, accepted=(side, None))
        field = data.sliced_field(simulation, config)
        y = predict_cells(network, field, parameters=parameters_of(simulation, parameter_names(config), known),
                          tile=tile, store=None if store is None else to_store, progress=progress)
    return None if store else scale.to_log_mass(y).astype(np.float32)


def check_padding(config):
    """Raise DataError for the configuration of a run that was trained with zero padding."""
    if config.padding != "none":
        raise DataError("only a network without padding can predict a whole box: train with padding=none",
                        value=config.padding, accepted=("none",))


@without_retracing()
def predict_cells(model, field, *, parameters=(), tile=None, store=None, progress=None):
    """The network's prediction for the cube around every cell of a periodic field: (n, n, n) from (n, n, n, channel).

    model: a `cnn` without padding; field: an array or what reads one as it is sliced; parameters: (p,), that the
    network is given.
    tile: cells per side that go through the network at once, without one the whole box where memory is enough, else the
    largest tile that memory holds. store, progress: of `kerasgal.tiling.predict_box`, with values (x, y, z); without
    tiles progress is in cells.
    """
    stages, side, n = stages_of(model, parameters), model.inputs[0].shape[1], field.shape[0]
    multiple = 2 ** (len(stages) - 1)
    room = tiling.SHARE * tiling.free_memory() / (4 * numbers(stages))  # cells
    if tile is None and whole_side(n, side, multiple) ** 3 < room:
        y = _whole(stages, side, field, progress)
        return y if store is None else store((slice(None),) * 3, y)
    tile = int(room ** (1 / 3)) if tile is None else tile
    core = max(multiple, (tile - side + 1) // multiple * multiple)
    around = (side // 2, side - 1 - side // 2)
    y = tiling.predict_cores(Tile(stages), field, core, around, multiple=multiple, progress=progress,
                             store=None if store is None else lambda place, values: store(place, values[..., 0]))
    return None if store else y[..., 0]


def whole_side(n, side, multiple):
    """Cells a side that go through the network with all of a box of n: where these are no multiple of 2^poolings the
    box is continued periodically by a cube, and until they are."""
    return n if n % multiple == 0 else -(-(n + side - 1) // multiple) * multiple


def numbers(stages):
    """Numbers that are alive at once for each cell of a box, about: the maps of the first pooling are most of them.

    Beside them stand the field, twice, the result, and of one phase at a time the next pooling's maps and a copy.
    """
    channels, first = stages[0][0].input_shape[-1], stages[0][0].output_shape[-1]
    following = stages[1][0].output_shape[-1]
    return 2 * channels + 1 + first + (2 * first + following) / 8


class Tile:
    """The stages as `tiling.predict_cores` calls them: blocks to the values of all cubes that lie in them."""

    def __init__(self, stages):
        self.stages = stages

    def predict_on_batch(self, blocks):
        return _evaluate(self.stages, blocks, lambda cells: None, wrap=False)


def _whole(stages, side, field, progress):
    """All of a box at once, (n, n, n)."""
    multiple, n = 2 ** (len(stages) - 1), field.shape[0]
    field = wrapped_block(field, (0, 0, 0), (n, n, n)) if not isinstance(field, np.ndarray) else field
    if n % multiple:
        field = wrapped_block(field, (0, 0, 0), (whole_side(n, side, multiple),) * 3)
    total, done = len(field) ** 3, 0

    def tick(cells):
        nonlocal done
        done += cells
        if progress:
            progress(done, total)

    y = _evaluate(stages, field[None], tick)[0, :n, :n, :n, 0]
    return np.roll(y, side // 2, axis=(0, 1, 2))  # from a cube's lowest cell to the one in its middle


def stages_of(model, parameters=()):
    """The network cut after each pooling: models from boxes to boxes, with how many cells each takes off.

    Each pooling has stride 1 here, and the last stage is the dense layers, as convolutions. What parameters, (p,), add
    to the first of these is the same everywhere, and becomes a part of its bias.
    """
    convolutions = [layer for layer in model.layers if isinstance(layer, layers.Conv3D)]
    dense = [layer for layer in model.layers if isinstance(layer, layers.Dense)]
    stages = []
    # The first pooling follows the second convolution.
    for group in [convolutions[:2], *([layer] for layer in convolutions[2:])]:
        x = inputs = keras.Input((None, None, None, group[0].kernel.shape[-2]))
        if not stages:
            x = standardising(model)(x)
        for layer in group:
            x = layers.LeakyReLU(SLOPE)(layer(x))
        x = layers.MaxPooling3D(2, strides=1)(x)
        stages.append((keras.Model(inputs, x), 2 * len(group) + 1))
    last = convolutions[-1].filters
    side = pooled_side_of(model)
    select = next((layer for layer in model.layers if isinstance(layer, Select)), None)
    kernel = np.asarray(dense[0].kernel)
    features, biases = side**3 * last, [np.asarray(layer.bias) for layer in dense]
    if select is not None:  # neurons that a compressed network left out have weights of zero
        full = np.zeros((features + len(parameters), kernel.shape[1]), kernel.dtype)
        full[select.kept] = kernel
        kernel = full
    if len(parameters):
        given = model.get_layer("normalised_parameters")(np.asarray(parameters, np.float32)[None])
        biases[0] = biases[0] + np.asarray(given)[0] @ kernel[features:]
    kernels = [kernel[:features].reshape(side, side, side, last, -1)]
    kernels += [np.asarray(layer.kernel)[None, None, None] for layer in dense[1:]]
    x = inputs = keras.Input((None, None, None, last))
    made = []
    for kernel, layer in zip(kernels, dense):
        made.append(layers.Conv3D(kernel.shape[-1], kernel.shape[0], dtype=layer.dtype_policy))
        x = made[-1](x)
        if layer is not dense[-1]:
            x = layers.LeakyReLU(SLOPE)(x)
    head = keras.Model(inputs, x)
    for kernel, bias, convolution in zip(kernels, biases, made):
        convolution.set_weights([kernel, bias])
    return [*stages, (head, side - 1)]


def pooled_side_of(model):
    """Cells per side that reach the dense layers of a network."""
    return next(layer for layer in model.layers if isinstance(layer, layers.Flatten)).input.shape[1]


def _evaluate(stages, boxes, tick, wrap=True):
    """Boxes, (b, x, y, z, channel), through the stages: value q is that of the cube at lowest cell q.

    wrap: whether they are periodic; else what is left is the cubes that lie in them.
    """
    (stage, reach), *rest = stages
    pooled = _apply(stage, reach, boxes, wrap)
    if not rest:
        tick(pooled.size)
        return pooled
    phases = [(slice(None), *(slice(start, None, 2) for start in phase))
              for phase in itertools.product((0, 1), repeat=3)]
    if pooled.size > LIMIT:
        parts = (_evaluate(rest, pooled[phase], tick, wrap) for phase in phases)
    else:
        parts = np.split(_evaluate(rest, np.concatenate([pooled[phase] for phase in phases]), tick, wrap), 8)
    result = None
    for phase, part in zip(phases, parts):
        if result is None:
            result = np.empty((len(part), *(2 * side for side in part.shape[1:4]), 1), np.float32)
        result[phase] = part
    return result


def _apply(stage, reach, boxes, wrap):
    """A stage on boxes of the same size, slab by slab or several boxes at once, so that memory is bounded."""
    channels = stage.output_shape[-1]
    if wrap:
        boxes = np.pad(boxes, [(0, 0), *[(0, reach)] * 3, (0, 0)], mode="wrap")
    number, *sides = boxes.shape[:4]
    widest = max(channels, boxes.shape[-1])
    plane = sides[1] * sides[2] * widest
    together = max(1, LIMIT // (sides[0] * plane))
    thickness = max(1, min(sides[0] - reach, LIMIT // plane))
    result = np.empty((number, *(side - reach for side in sides), channels), np.float32)
    for first in range(0, number, together):
        for low in range(0, sides[0] - reach, thickness):
            block = boxes[first:first + together, low:low + thickness + reach]
            result[first:first + together, low:low + thickness] = stage.predict_on_batch(block)
    return result
