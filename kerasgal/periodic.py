"""A network for a whole periodic box: the same layers, but what lies beyond a face is the box's other side."""

import weakref
from functools import partial

import keras
from keras import layers, ops

CONVOLUTIONS = (layers.Conv2D, layers.Conv3D)
TRANSPOSED = (layers.Conv2DTranspose, layers.Conv3DTranspose)
PADDINGS = (layers.ZeroPadding2D, layers.ZeroPadding3D)

_made = weakref.WeakKeyDictionary()  # from networks to what `periodic` made of them, which has been compiled
_counted = weakref.WeakKeyDictionary()  # from networks to {side: `largest`}


def wrapped(x, cells):
    """A field, (batch, x, y[, z], channel), with so many cells of its other side before and behind it along each axis.

    cells: a number, or one for each axis; at most the field's side.
    """
    axes = len(x.shape) - 2
    for axis, pad in enumerate([cells] * axes if isinstance(cells, int) else cells, start=1):
        if not pad:
            continue
        all_before = (slice(None),) * axis
        x = ops.concatenate([x[(*all_before, slice(-pad, None))], x, x[(*all_before, slice(None, pad))]], axis=axis)
    return x


class Periodic(keras.Model):
    """A functional network as it is in a box without faces, of the network's own layers; see `periodic`."""

    def call(self, inputs, training=None, mask=None):
        return self._run_through_graph(inputs, operation_fn=partial(wrapping, training=training))


def graph_of(network):
    """The graph of a functional network, a `keras.Function`."""
    return keras.Function(*ends_of(network))


def ends_of(network):
    """Inputs and outputs of a functional network; one output is no list."""
    return network.inputs, network.outputs[0] if len(network.outputs) == 1 else network.outputs


def wrapping(operation, training=None):
    """What does the work of a layer, or of another operation of a graph, in a box without faces."""
    if isinstance(operation, keras.Model):
        graph = graph_of(operation)

        def work(inputs):
            return graph._run_through_graph(inputs, operation_fn=partial(wrapping, training=training))
    elif isinstance(operation, TRANSPOSED):
        def work(x):
            return without_border(operation(wrapped(x, 1)), operation.strides)
    elif isinstance(operation, CONVOLUTIONS) and operation.padding == "same":
        def work(x):
            return convolved(operation, wrapped(x, [side // 2 for side in operation.kernel_size]))
    elif isinstance(operation, PADDINGS):
        def work(x):
            return wrapped(x, [before for before, _ in operation.padding])
    elif training is not None and getattr(operation, "_call_has_training_arg", False):
        # The graph repeats what a layer was told when it was built.
        return lambda *inputs, **options: operation(*inputs, **{**options, "training": training})
    else:
        return operation
    return lambda x, **_: work(x)  # the graph keeps masks and the like, which none of these has


def without_border(x, cells):
    """A field, (batch, x, y[, z], channel), less so many cells before and behind it along each axis."""
    return x[(slice(None), *(slice(side, -side) for side in cells))]


def convolved(layer, x):
    """What a convolution makes of a field that has the cells around it already."""
    x, kernel = (ops.cast(item, layer.compute_dtype) for item in (x, layer.kernel))
    x = ops.conv(x, kernel, strides=1, padding="valid", dilation_rate=layer.dilation_rate)
    if layer.use_bias:
        x = x + ops.cast(layer.bias, layer.compute_dtype)
    return x if layer.activation is None else layer.activation(x)


def periodic(network):
    """The network as it is in a box without faces.

    Convolutions see the other side of the box where they would see zeros. The result is that of tiles whose context
    reaches as far as the network sees, at the cost of the box alone. Sides must be multiples of the network's strides.

    Parameters
    ----------
    network : keras.Model
        A functional model of convolutions of odd sides with stride 1, transposed ones as wide as twice their stride at
        most, poolings without overlap, and layers that work on each cell by itself.

    Returns
    -------
    keras.Model
        With the weights of the network. It is the same one in every call for a network.

    Examples
    --------
    >>> import keras
    >>> import numpy as np
    >>> from kerasgal.periodic import periodic
    >>> mean = keras.layers.Conv2D(1, 3, padding="same", kernel_initializer="ones")
    >>> network = keras.Sequential([keras.Input((None, None, 1)), mean])
    >>> field = np.ones((1, 4, 4, 1), "float32")
    >>> [np.unique(model(field)).tolist() for model in (network, periodic(network))]
    [[4.0, 6.0, 9.0], [9.0]]
    """
    if network not in _made:
        # Of its graph, not of the network itself, which `_made` would then keep for good.
        _made[network] = Periodic(*ends_of(network), name=network.name)
    return _made[network]


def largest(network, side=64):
    """Numbers for each cell of the input that are alive at once when the network is applied, at most.

    A layer's output is kept until the last layer that takes it has run, and beside it what that layer makes.

    Parameters
    ----------
    network : keras.Model
        From (batch, x, y[, z], channel), one or several of them; a functional model.
    side : int
        Cells of the box that this is counted in, a multiple of the network's strides.

    Returns
    -------
    float

    Examples
    --------
    >>> import keras
    >>> from kerasgal.periodic import largest
    >>> largest(keras.Sequential([keras.Input((None, None, 1)), keras.layers.Conv2D(3, 1)]))
    4.0
    """
    known = _counted.setdefault(network, {})
    if side not in known:
        known[side] = _largest(network, side)
    return known[side]


def _largest(network, side):
    axes = max(len(item.shape) for item in network.inputs) - 2
    graph = graph_of(network)
    nodes = [node for depth in sorted(graph._nodes_by_depth, reverse=True) for node in graph._nodes_by_depth[depth]]
    last = {id(tensor): place for place, node in enumerate(nodes) for tensor in node.input_tensors}
    last.update((id(tensor), len(nodes)) for tensor in graph.outputs)
    # Of several inputs some are fields, and the others are numbers that belong to all of it.
    known = {id(item): keras.KerasTensor([side if length is None and axis else length
                                          for axis, length in enumerate(item.shape)], item.dtype)
             for item in graph.inputs}
    alive, most = {}, 0
    for place, node in enumerate(nodes):
        if not node.is_input:
            arguments, options = node.arguments.fill_in(known)
            made = keras.tree.flatten(node.operation.compute_output_spec(*arguments, **options))
            known.update((id(tensor), found) for tensor, found in zip(node.outputs, made))
            if isinstance(node.operation, keras.Model):
                inner = known[id(node.input_tensors[0])].shape[1]
                most = max(most, largest(node.operation, inner) * inner**axes)
        alive.update((id(tensor), _size(known[id(tensor)])) for tensor in node.output_tensors)
        most = max(most, sum(alive.values()) + _attention(node, known))
        alive = {key: size for key, size in alive.items() if last.get(key, place) > place}
    return most / side**axes


def _attention(node, known):
    """Numbers of the table that attention makes of every two places, which no layer gives out."""
    if not isinstance(node.operation, layers.MultiHeadAttention):
        return 0
    return node.operation.num_heads * known[id(node.outputs[0])].shape[1] ** 2


def _size(tensor):
    size = 1
    for side in tensor.shape[1:]:
        size *= side
    return size
