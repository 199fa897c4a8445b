"""A network for a whole periodic box: the same layers, but what lies beyond a face is the box's other side."""

import weakref

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


class Wrapped(layers.Layer):
    """A layer that is given a periodic field with some cells around it, and of whose output as many are taken off."""

    def __init__(self, inner, before, after=0):
        super().__init__(name=inner.name, dtype=inner.dtype_policy)
        self.inner, self.before, self.after = inner, before, after

    def call(self, x):
        x = self.inner(wrapped(x, self.before))
        if not self.after:
            return x
        return x[(slice(None), *(slice(self.after, -self.after),) * (len(x.shape) - 2))]


class Wrap(layers.Layer):
    """The cells of the other side around a periodic field, in the place of zeros."""

    def __init__(self, cells, **kwargs):
        super().__init__(**kwargs)
        self.cells = cells

    def call(self, x):
        return wrapped(x, self.cells)


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
        With weights of its own, equal to the network's now. It is the same one in every call for a network.

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
    def clone(layer):
        config = layer.get_config()
        if isinstance(layer, TRANSPOSED):
            return Wrapped(type(layer).from_config(config), 1, layer.strides[0])
        if isinstance(layer, CONVOLUTIONS) and layer.padding == "same":
            inner = type(layer).from_config({**config, "padding": "valid"})
            return Wrapped(inner, [side // 2 for side in layer.kernel_size])
        if isinstance(layer, PADDINGS):
            return Wrap([before for before, _ in layer.padding], name=layer.name)
        return type(layer).from_config(config)

    if network not in _made:
        _made[network] = keras.models.clone_model(network, clone_function=clone, recursive=True)
    _made[network].set_weights(network.get_weights())
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
    # Of several inputs some are fields, and the others are numbers that belong to all of it.
    shapes = [[side if length is None else length for length in item.shape[1:]] for item in network.inputs]
    tensors = [keras.Input(shape) for shape in shapes]
    tensors = tensors if isinstance(network.input_shape, list) else tensors[0]
    counted = keras.models.clone_model(network, input_tensors=tensors)
    inside = [largest(layer, side) * side**axes for layer in counted.layers if isinstance(layer, keras.Model)]
    depths = getattr(counted, "_functional", counted)._nodes_by_depth  # a Sequential keeps its graph inside
    nodes = [node for depth in sorted(depths, reverse=True) for node in depths[depth]]
    last = {id(tensor): place for place, node in enumerate(nodes) for tensor in node.input_tensors}
    last.update((id(tensor), len(nodes)) for tensor in counted.outputs)
    alive, most = {}, 0
    for place, node in enumerate(nodes):
        alive.update((id(tensor), _size(tensor)) for tensor in node.output_tensors)
        most = max(most, sum(alive.values()) + _attention(node))
        alive = {key: size for key, size in alive.items() if last.get(key, place) > place}
    return max([most, *inside]) / side**axes


def _attention(node):
    """Numbers of the table that attention makes of every two places, which no layer gives out."""
    if not isinstance(node.operation, layers.MultiHeadAttention):
        return 0
    return node.operation.num_heads * node.outputs[0].shape[1] ** 2


def _size(tensor):
    size = 1
    for side in tensor.shape[1:]:
        size *= side
    return size
