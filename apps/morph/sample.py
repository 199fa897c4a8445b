"""Images drawn from a PixelCNN++, pixel by pixel, without computing anything twice (Ramachandran et al. 2017).

A pixel needs each layer's features at its own place alone; the earlier features that they are made of are kept
(arXiv:1704.06001). The vertical stream knows only the rows above: it takes one step per row, for all columns. The
horizontal one takes one step per pixel. At half and quarter resolution both have something new in every second and
fourth row and column alone. All in all that is the work of one evaluation of the network for the whole image, where
`sample_naively` takes one for every pixel. It is done in NumPy on one core: the matrices are small.
"""

import re

import numpy as np
from scipy.special import expit, logit, ndtri, softmax
from threadpoolctl import threadpool_limits

from kerasgal.apps.morph.losses import LEAST_DEVIATION, LEAST_LOG_SCALE, LOGISTIC, NORMAL
from kerasgal.apps.morph.model import LEVELS
from kerasgal.plotting import track


def elu(x):
    return np.maximum(x, 0) + np.expm1(np.minimum(x, 0))


def concatenated_elu(x):
    return elu(np.concatenate([x, -x], axis=-1))


def marked(x):
    return np.concatenate([2 * x - 1, np.ones_like(x[..., :1])], axis=-1)


class Convolution:
    """A ShiftedConvolution of features that come row by row, or pixel by pixel; it keeps the rows that its kernel sees.

    All features are (image, column, channel), the columns being `at`, a slice of one row.
    """

    def __init__(self, layer, number, width):
        kernel = np.asarray(layer.kernel(), np.float32)
        rows, columns, channels, filters = kernel.shape
        self.matrix, self.bias = kernel.reshape(-1, filters), np.asarray(layer.b, np.float32)
        self.stride, self.left = layer.stride, columns // 2
        self.kept = np.zeros((number, rows, width + columns - 1, channels), np.float32)  # zero-padded
        # (image, column, kernel's row, kernel's column, channel): what each output sees, a view of the kept rows
        self.seen = np.lib.stride_tricks.sliding_window_view(self.kept, columns, axis=2).transpose(0, 2, 1, 4, 3)

    def keep(self, x, at):
        if at.start == 0:  # a new row
            self.kept[:, :-1] = self.kept[:, 1:]
        self.kept[:, -1, self.left + at.start:self.left + at.stop] = x

    def output(self, at):
        seen = self.seen[:, at.start:at.stop:self.stride]
        return (seen.reshape(-1, len(self.matrix)) @ self.matrix + self.bias).reshape(*seen.shape[:2], -1)

    def __call__(self, x, at):
        self.keep(x, at)
        return self.output(at)


class Transposed:
    """A ShiftedTransposed: (image, column, channel) to (image, 2 rows, twice as many columns, filter)."""

    def __init__(self, layer):
        self.kernel, self.bias = np.asarray(layer.kernel(), np.float32), np.asarray(layer.b, np.float32)

    def __call__(self, x):
        columns, width = self.kernel.shape[1], x.shape[1]
        out = np.zeros((len(x), 2, 2 * width + columns - 2, len(self.bias)), np.float32) + self.bias
        for row in range(2):
            for column in range(columns):
                out[:, row, column:column + 2 * width:2] += x @ self.kernel[row, column].T
        left = (columns - 1) // 2
        return out[:, :, left:left + 2 * width]


class Block:
    """A GatedBlock."""

    def __init__(self, layer, number, width):
        self.first, self.second = (Convolution(part, number, width) for part in (layer.first, layer.second))
        self.more = Convolution(layer.more, number, width) if hasattr(layer, "more") else None

    def __call__(self, at, x, *more):
        hidden = self.first(concatenated_elu(x), at)
        if more:
            hidden += self.more(concatenated_elu(np.concatenate(more, axis=-1)), at)
        a, b = np.split(self.second(concatenated_elu(hidden), at), 2, axis=-1)
        return x + a * expit(b)


class Stream:
    """One of the network's two streams from its input to its end, a step at a time."""

    def __init__(self, model, stream, number, width):
        widths = [-(-width // 2**level) for level in range(LEVELS)]

        def blocks(way, level):
            return [Block(layer, number, widths[level]) for layer in model.layers
                    if re.fullmatch(rf"{way}_{level}_\d+_{stream}", layer.name)]

        self.down, self.up = ([blocks(way, level) for level in range(LEVELS)] for way in ("down", "up"))
        self.halving = [Convolution(model.get_layer(f"down_{level + 1}_{stream}"), number, widths[level])
                        for level in range(LEVELS - 1)]
        self.doubling = [Transposed(model.get_layer(f"up_{level}_{stream}")) for level in range(LEVELS - 1)]
        # Per level, the two rows that were refined from the level below.
        self.doubled = [np.zeros((number, 2, 2 * widths[level + 1], len(self.doubling[level].bias)), np.float32)
                        for level in range(LEVELS - 1)]
        # Per level, the features at the last step there: the input and each block's on the way down, each block's up.
        self.skips, self.refined = [None] * LEVELS, [None] * LEVELS

    def step(self, x, row, at, other=None):
        """Features at the stream's end in the columns `at` of a row, from those at its beginning, x.

        other: the stream that this one takes in, after its own step to that row.
        """
        deepest = max(level for level in range(LEVELS) if row % 2**level == at.start % 2**level == 0)
        columns = [slice(at.start >> level, -(-at.stop >> level)) for level in range(LEVELS)]
        for level in range(deepest + 1):
            if level > 0:
                x = self.halving[level - 1].output(columns[level - 1])
            self.skips[level] = [x]
            for number, block in enumerate(self.down[level], 1):
                more = [] if other is None else [other.skips[level][number][:, columns[level]]]
                x = block(columns[level], x, *more)
                self.skips[level].append(x)
            if level < LEVELS - 1:
                self.halving[level].keep(x, columns[level])
        for level in reversed(range(deepest + 1)):
            skips = self.skips[level]
            if level == LEVELS - 1:
                *skips, x = skips
            else:
                x = self.doubled[level][:, (row >> level) % 2, columns[level]]
            self.refined[level] = []
            for number, (block, skip) in enumerate(zip(self.up[level], reversed(skips))):
                more = [] if other is None else [other.refined[level][number][:, columns[level]]]
                x = block(columns[level], x, *more, skip)
                self.refined[level].append(x)
            if level > 0:
                self.doubled[level - 1][:, :, 2 * columns[level].start:2 * columns[level].stop] = (
                    self.doubling[level - 1](x))
        return x


def drawn(parameters, uniforms, bits, likelihood=LOGISTIC):
    """A pixel's channels, (image, channel), for its parameters (image, parameter), see losses.py.

    uniforms: (image, 1 + channels) random numbers in [0, 1): of the logistic, then of each channel's value.
    """
    channels = uniforms.shape[1] - 1
    if likelihood == NORMAL:
        mean, raw, coefficients = np.split(parameters.astype("f8"), [channels, 2 * channels], axis=-1)
        spreads = (np.logaddexp(raw, 0) + LEAST_DEVIATION) * ndtri(uniforms[:, 1:])
        x, pair = np.zeros_like(mean), 0
        for channel in range(channels):
            given = np.sum(coefficients[:, pair:pair + channel] * x[:, :channel], axis=-1)
            x[:, channel] = np.clip(mean[:, channel] + given + spreads[:, channel], -1, 1)
            pair += channel
        return x
    rows = parameters.astype("f8").reshape(len(parameters), 1 + 2 * channels + channels * (channels - 1) // 2, -1)
    below = np.cumsum(softmax(rows[:, 0], axis=-1), axis=-1) <= uniforms[:, :1]
    logistic = np.minimum(below.sum(axis=-1), rows.shape[-1] - 1)
    rows = rows[np.arange(len(rows)), :, logistic]
    means, log_scales, coefficients = np.split(rows[:, 1:], [channels, 2 * channels], axis=-1)
    spreads = np.exp(np.maximum(log_scales, LEAST_LOG_SCALE)) * logit(uniforms[:, 1:])
    y, pair = np.zeros_like(means), 0
    for channel in range(channels):
        given = np.sum(np.tanh(coefficients[:, pair:pair + channel]) * y[:, :channel], axis=-1)
        y[:, channel] = np.clip(means[:, channel] + given + spreads[:, channel], -1 if bits else -3, 1)
        if bits:
            y[:, channel] = 2 * np.round((y[:, channel] + 1) / 2 * (2**bits - 1)) / (2**bits - 1) - 1
        pair += channel
    return (y + 1) / 2


def start(model, number, seed, shape):
    """Empty images (number, y, x, channel) and the random numbers (number, y, x, 1 + channel) that fill them."""
    shape = tuple(model.input.shape[1:]) if shape is None else tuple(shape)
    uniforms = np.random.default_rng(seed).random((number, *shape[:2], 1 + shape[2]))
    return np.zeros((number, *shape), np.float32), uniforms


# Where the cores are busy, threads that wait for each other after every small product take 40 times as long as one.
@threadpool_limits.wrap(limits=1, user_api="blas")
def sample(model, number, seed, shape=None, bits=0, likelihood=LOGISTIC):
    """Images of at most 1, (number, y, x, channel), drawn from a network of `model.pixelcnn`.

    shape: (y, x, channel), if the network's is not fixed. bits: as in the network's loss; then the pixels have 2^bits
    values from 0 to 1. With 0, a density's, a draw above 1 becomes 1 and one below -1 becomes -1, as prepared images.
    likelihood: as the network's, "normal" or "logistic".
    """
    images, uniforms = start(model, number, seed, shape)
    rows, columns = images.shape[1:3]
    vertical, horizontal = (Stream(model, stream, number, columns) for stream in ("vertical", "horizontal"))
    of_vertical, of_above, of_left = (Convolution(model.get_layer(f"input_{name}"), number, columns)
                                      for name in ("vertical", "above", "left"))
    end = Convolution(model.get_layer("parameters"), number, columns)
    for row in track(range(rows), "drawing"):
        whole = slice(0, columns)
        begin = above = np.zeros((number, columns, len(of_above.bias)), np.float32)
        if row > 0:
            last = marked(images[:, row - 1])
            begin, above = of_vertical(last, whole), of_above(last, whole)
        vertical.step(begin, row, whole)
        for column in range(columns):
            at, before = slice(column, column + 1), slice(column - 1, column)
            x = above[:, at]
            if column > 0:
                x = x + of_left(marked(images[:, row, before]), before)
            x = horizontal.step(x, row, at, vertical)
            images[:, row, column] = drawn(end(elu(x), at)[:, 0], uniforms[:, row, column], bits, likelihood)
    return images


def sample_naively(model, number, seed, shape=None, bits=0, likelihood=LOGISTIC):
    """What `sample` returns, from one evaluation of the whole network for every pixel."""
    images, uniforms = start(model, number, seed, shape)
    for row, column in np.ndindex(images.shape[1:3]):
        parameters = model.predict_on_batch(images)[:, row, column]
        images[:, row, column] = drawn(parameters, uniforms[:, row, column], bits, likelihood)
    return images
