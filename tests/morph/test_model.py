"""PixelCNN++ against a NumPy evaluation written from its definition, its causality, and its initialisation."""

from itertools import product

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import expit

from kerasgal.apps.morph.model import ShiftedTransposed, WeightNormalised, initialise, pixelcnn


def images(*shape, seed=0):
    return np.random.default_rng(seed).random(shape).astype("f4")


def randomised(model, seed=0):
    """Random g and b, which without images to initialise by are 1 (or 0.1) and 0."""
    rng = np.random.default_rng(seed)
    for weight in model.trainable_weights:
        if weight.path.split("/")[-1] != "v":
            weight.assign(rng.normal(weight.numpy(), 0.3))
    return model


def elu(x):
    return np.where(x > 0, x, np.exp(np.minimum(x, 0)) - 1)


def concatenated_elu(x):
    return elu(np.concatenate([x, -x], axis=-1))


def filters(layer):
    """g v / ||v||, (row, column, input, output), and b."""
    v, g, b = (np.asarray(weight, "f8") for weight in (layer.v, layer.g, layer.b))
    if isinstance(layer, ShiftedTransposed):
        v = v.swapaxes(2, 3)
    return v / np.sqrt((v**2).sum(axis=(0, 1, 2))) * g, b


def convolution(x, layer, stride=1):
    """out[i, j] = sum_kl in[i + k - (rows - 1), j + l - columns // 2] kernel[k, l] + b, zero outside; x: (y, x, in)."""
    kernel, out = filters(layer)
    (rows, columns), (height, width) = kernel.shape[:2], x.shape[:2]
    padded = np.pad(x, ((rows - 1, 0), (columns // 2, (columns - 1) // 2), (0, 0)))
    for k, m in product(range(rows), range(columns)):
        out = out + padded[k:k + height, m:m + width] @ kernel[k, m]
    return out[::stride, ::stride]


def transposed(x, layer, height, width):
    """out[2 i + k, 2 j + l - (columns - 1) // 2] += in[i, j] kernel[k, l]."""
    kernel, b = filters(layer)
    first = (kernel.shape[1] - 1) // 2
    out = np.zeros((2 * len(x), 2 * x.shape[1] + 1, len(b)))
    for k, m in product(*map(range, kernel.shape[:2])):
        out[k::2, m:m + 2 * x.shape[1]:2] += x @ kernel[k, m]
    return out[:height, first:first + width] + b


def definition(model, blocks, x):
    """The parameters of one image (y, x, channel): Salimans et al. 2017, Fig. 2, as their code builds it."""
    def block(name, x, *more):
        layer = model.get_layer(name)
        hidden = convolution(concatenated_elu(x), layer.first)
        if more:
            hidden = hidden + convolution(concatenated_elu(np.concatenate(more, axis=-1)), layer.more)
        a, b = np.split(convolution(concatenated_elu(hidden), layer.second), 2, axis=-1)
        return x + a * expit(b)

    def of(name, x, **kwargs):
        return convolution(x, model.get_layer(name), **kwargs)

    x = np.concatenate([2 * x - 1, np.ones_like(x[..., :1])], axis=-1)
    v, h = np.zeros((2, *x.shape[:2], model.get_layer("input_left").filters))
    v[1:] = of("input_vertical", x)[:-1]
    h[1:] += of("input_above", x)[:-1]
    h[:, 1:] += of("input_left", x)[:, :-1]
    vs, hs, levels = [v], [h], [0]
    for level in range(3):
        if level > 0:
            vs.append(of(f"down_{level}_vertical", vs[-1], stride=2))
            hs.append(of(f"down_{level}_horizontal", hs[-1], stride=2))
            levels.append(level)
        for number in range(blocks):
            vs.append(block(f"down_{level}_{number}_vertical", vs[-1]))
            hs.append(block(f"down_{level}_{number}_horizontal", hs[-1], vs[-1]))
            levels.append(level)
    v, h, level = vs.pop(), hs.pop(), levels.pop()
    number = 0
    while vs:
        if levels[-1] < level:
            level, number = levels[-1], 0
            v = transposed(v, model.get_layer(f"up_{level}_vertical"), *vs[-1].shape[:2])
            h = transposed(h, model.get_layer(f"up_{level}_horizontal"), *vs[-1].shape[:2])
        v = block(f"up_{level}_{number}_vertical", v, vs.pop())
        h = block(f"up_{level}_{number}_horizontal", h, v, hs.pop())
        levels.pop()
        number += 1
    return of("parameters", elu(h))


def counted(filters, blocks, ends):
    """Trainable numbers of openai/pixel-cnn's `model_spec` for one channel and one of ones, without its last layer.

    ends: (inputs, outputs) of the last layers; each filter has its v and a g and a b.
    """
    def filters_of(size, inputs, outputs):
        return outputs * (size * inputs + 2)

    def gated(size, more):
        return (filters_of(size, 2 * filters, filters) + filters_of(size, 2 * filters, 2 * filters)
                + (filters_of(1, 2 * more * filters, filters) if more else 0))

    change = filters_of(6, filters, filters) + filters_of(4, filters, filters)  # of resolution, both streams
    down, up = gated(6, 0) + gated(4, 1), gated(6, 1) + gated(4, 2)
    first = sum(filters_of(size, 2, filters) for size in (6, 3, 2))
    return first + 3 * blocks * down + (3 * blocks + 2) * up + 4 * change + sum(
        filters_of(1, *end) for end in ends)


@pytest.mark.parametrize("settings, blocks, filters, outputs, number", [
    pytest.param({}, 5, 160, 30, 53_644_220, marks=pytest.mark.slow),  # Salimans et al.'s for CIFAR-10
    # Zanisi et al.'s, which `summary` counts, too
    pytest.param({"blocks": 3, "filters": 64, "likelihood": "normal"}, 3, 64, 2, 5_445_380, marks=pytest.mark.slow)])
def test_the_number_of_parameters_is_the_authors(settings, blocks, filters, outputs, number):
    model = pixelcnn((32, 32, 1), **settings)
    assert sum(int(np.prod(weight.shape)) for weight in model.trainable_weights) == number
    assert model.output.shape == (None, 32, 32, outputs)
    assert counted(filters, blocks, [(filters, outputs)]) == number
    if outputs == 2:  # between the features and the two numbers Zanisi et al. have Salimans et al.'s layer of ten
        assert counted(filters, blocks, [(filters, 10)]) + 10 * 2 + 2 - number == 550


@pytest.mark.parametrize("shape, blocks, mixtures, parameters", [
    pytest.param((8, 12, 1), 2, 3, 9, marks=pytest.mark.slow), ((7, 6, 1), 1, 1, 3), ((6, 5, 3), 1, 2, 20)])
def test_the_network_is_its_definition(shape, blocks, mixtures, parameters):
    keras.utils.set_random_seed(blocks)
    model = randomised(pixelcnn((None, None, shape[-1]), blocks, 6, mixtures))
    x = images(2, *shape)
    expected = np.stack([definition(model, blocks, image) for image in x.astype("f8")])
    assert expected.shape[-1] == parameters and expected.std() > 0.1
    np.testing.assert_allclose(model(x), expected, atol=1e-5)


@pytest.mark.parametrize("shape, likelihood", [((8, 8, 1), "logistic"), *(
    pytest.param(*case, marks=pytest.mark.slow) for case in [((7, 7, 1), "normal"), ((9, 6, 2), "logistic")])])
def test_a_pixel_depends_on_those_before_it_alone(shape, likelihood):
    """On all of them, row by row, and on no channel of its own: these are left to the likelihood."""
    keras.utils.set_random_seed(3)
    model = randomised(pixelcnn(shape, 2, 4, 1, likelihood=likelihood))
    pixels = shape[0] * shape[1]
    x = tf.repeat(images(1, *shape), pixels, axis=0)  # in image i, the gradient of pixel i
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs = tf.reduce_sum(model(x) * images(*model.output.shape[1:], seed=1), axis=3)
        value = tf.linalg.trace(tf.reshape(outputs, (pixels, pixels)))
    gradient = np.abs(tape.gradient(value, x)).max(axis=3)
    np.testing.assert_array_equal(gradient.reshape(pixels, pixels) > 0, np.tri(pixels, k=-1, dtype=bool))


def test_what_is_dropped_is_dropped_in_training_alone():
    keras.utils.set_random_seed(5)
    model = randomised(pixelcnn((8, 8, 1), 0, 6, 2))
    x = images(2, 8, 8, 1)
    np.testing.assert_array_equal(model(x), model(x))
    np.testing.assert_allclose(model(x)[0], definition(model, 0, x[0].astype("f8")), atol=1e-5)
    assert np.abs(model(x, training=True) - model(x, training=True)).max() > 0.1


def test_initialised_layers_have_the_mean_and_deviation_they_should(monkeypatch):
    keras.utils.set_random_seed(7)
    model = pixelcnn((12, 12, 1), 1, 6, 3)
    x = images(16, 12, 12, 1, seed=2) ** 3
    directions = [np.asarray(weight) for weight in model.weights if weight.path.endswith("v")]
    initialise(model, x)
    for before, after in zip(directions, (weight for weight in model.weights if weight.path.endswith("v"))):
        np.testing.assert_array_equal(before, after)
    seen, call = [], WeightNormalised.call

    def recorded(layer, *args):
        output = call(layer, *args)
        seen.append((layer, np.asarray(output)))
        return output

    monkeypatch.setattr(WeightNormalised, "call", recorded)
    model(x)
    assert len(seen) == 3 + 8 + 3 * (2 + 3) + 5 * (3 + 3) + 1  # input, down and up, blocks of both streams, end
    for layer, output in seen:
        scale = 0.1 if layer.name == "second" else 1
        np.testing.assert_allclose(output.mean(axis=(0, 1, 2)), 0, atol=1e-4 * scale)
        np.testing.assert_allclose(output.std(axis=(0, 1, 2)), scale, rtol=1e-3)


def test_a_filter_that_says_the_same_everywhere_is_not_inflated():
    """At quarter resolution an image of 4 pixels has one pixel, whose vertical stream knows nothing."""
    model = pixelcnn((4, 4, 1), 0, 6, 3)
    initialise(model, images(16, 4, 4, 1))
    assert max(np.abs(weight).max() for weight in model.weights if weight.path.endswith("g")) < 1000


def test_every_layer_gives_the_shape_that_it_says():
    """Ours say it themselves, or Keras would have to find out for each."""
    model = pixelcnn((12, 9, 1), blocks=1, filters=2, mixtures=1)
    ours = [layer for layer in model.layers if type(layer).__module__.startswith("kerasgal")]
    found = keras.Model(model.inputs, [layer.output for layer in ours])(images(2, 12, 9, 1))
    assert len(ours) > 15
    for layer, values in zip(ours, found):
        assert tuple(values.shape) == (2, *layer.output.shape[1:]), layer.name
