"""The networks against NumPy evaluations written from the definitions of their layers, in float64."""

from itertools import product

import keras
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, maximum_filter
from scipy.special import softmax

from kerasgal.apps.cascade.model import (CHANNELS, INCEPTION_RADIUS, cascade, inception, r2unet, r2unet_radius,
                                         surroundings, surroundings_radius)
from kerasgal.periodic import periodic


def trainable(model):
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


def randomise(model, seed=0):
    """Random biases and batch-norm parameters and statistics; the kernels are random already."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        name = weight.path.split("/")[-1]
        if name in ("gamma", "moving_variance"):
            weight.assign(rng.uniform(0.5, 2, weight.shape))
        elif name != "kernel":
            weight.assign(rng.normal(0, 0.3, weight.shape))
    return model


def relu(x):
    return np.maximum(x, 0)


def convolution(x, kernel, bias=0):
    """out[i] = sum_k in[i + k - size // 2] kernel[k], zero outside; x (x, y, z, in), kernel (k, k, k, in, out)."""
    size, sides = len(kernel), x.shape[:3]
    padded = np.pad(x, [(size // 2, size // 2)] * 3 + [(0, 0)])
    out = np.zeros((*sides, kernel.shape[-1])) + bias
    for k in product(range(size), repeat=3):
        out += padded[tuple(slice(a, a + n) for a, n in zip(k, sides))] @ kernel[k].astype("f8")
    return out


def transposed_convolution(x, kernel, bias):
    """PyTorch's with stride 2, padding 1, output padding 1: out[2 i - 1 + k] += in[i] kernel[k], of size 2n."""
    sides = np.array(x.shape[:3])
    scattered = np.zeros((*(2 * sides + 1), kernel.shape[3]))  # begins at cell -1, which is not kept
    for k in product(range(3), repeat=3):
        scattered[tuple(slice(a, a + 2 * n, 2) for a, n in zip(k, sides))] += x @ kernel[k].T.astype("f8")
    return scattered[1:, 1:, 1:] + bias


def numpy_inception(model, x):
    def basic(x, name):
        kernel, = model.get_layer(f"{name}_convolution").get_weights()
        gamma, beta, mean, variance = model.get_layer(f"{name}_normalisation").get_weights()
        return (convolution(x, kernel) - mean) / np.sqrt(variance + 1e-5) * gamma + beta

    average = convolution(x, np.eye(x.shape[-1]) * np.full((3, 3, 3, 1, 1), 1 / 27))
    x = np.concatenate([relu(basic(x, f"branch_{size}")) for size in (1, 3, 5)]
                       + [relu(basic(average, "branch_average"))], axis=-1)
    return softmax(basic(relu(basic(relu(basic(x, "inner_1")), "inner_2")), "logits"), axis=-1)


def numpy_r2unet(model, x, t, finest_skip=False):
    """All but the last activation."""
    def of(name):
        return model.get_layer(name).get_weights()

    def unit(x, name):
        y = relu(convolution(x, *of(name)))
        for _ in range(t):
            y = relu(convolution(x + y, *of(name)))
        return y

    def block(x, name):
        x = convolution(x, *of(f"{name}_projection"))
        return x + unit(unit(x, f"{name}_recurrent_1"), f"{name}_recurrent_2")

    def pooled(x):
        a, b, c, channels = x.shape
        return x.reshape(a // 2, 2, b // 2, 2, c // 2, 2, channels).max(axis=(1, 3, 5))

    def doubled(x, name):
        return relu(transposed_convolution(x, *of(f"{name}_transposed")))

    given, zero = x, block(x, "down_0")
    one = block(pooled(zero), "down_1")
    two = block(pooled(one), "down_2")
    x = block(pooled(two), "bottom")
    x = block(np.concatenate([two, doubled(x, "up_2")], axis=-1), "up_2")
    x = block(np.concatenate([one, doubled(x, "up_1")], axis=-1), "up_1")
    x = doubled(x, "up_0")
    x = block(np.concatenate([zero, x], axis=-1) if finest_skip else x, "up_0")
    if finest_skip:
        x = relu(convolution(np.concatenate([x, given], axis=-1), *of("head_1")))
        x = relu(convolution(x, *of("head_2")))
    return convolution(x, *of("output"))


def density(*shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape).astype("f4")


def test_the_number_of_parameters_is_the_authors():
    assert trainable(inception()) == 30_799
    assert inception().count_params() == 30_937  # with the statistics of the batch normalisation
    assert r2unet().count_params() == 6_079_489
    assert r2unet(channels=2).count_params() == 6_079_521


@pytest.mark.parametrize("channels", [1, 2])
def test_inception_is_its_definition(channels):
    keras.utils.set_random_seed(channels)
    model = randomise(inception(channels))
    x = density(2, 9, 7, 8, channels)
    expected = np.stack([numpy_inception(model, cube) for cube in x])
    assert expected[..., 1].std() > 0.03
    np.testing.assert_allclose(model(x), expected, atol=1e-5)


@pytest.mark.parametrize("channels, outputs, filters, t", [(1, 1, 4, 3), (2, 1, 6, 1), (1, 2, 4, 2), (1, 1, 32, 3)])
def test_r2unet_is_its_definition(channels, outputs, filters, t):
    keras.utils.set_random_seed(filters + channels)
    model = randomise(r2unet(channels, outputs, filters=filters, t=t))
    x = density(1, 16, 8, 8, channels)
    raw = numpy_r2unet(model, x[0].astype("f8"), t)
    assert raw.std() > 0.05 and raw.min() < 0 < raw.max()
    inner = keras.Model(model.input, model.get_layer("output").output)
    np.testing.assert_allclose(inner(x)[0], raw, atol=1e-5)
    np.testing.assert_allclose(model(x)[0], relu(raw) if outputs == 1 else softmax(raw, axis=-1), atol=1e-5)


def test_the_output_may_leak_below_zero():
    keras.utils.set_random_seed(4)
    model = randomise(r2unet(filters=4, output_slope=0.05))
    x = density(1, 8, 8, 8, 1)
    raw = numpy_r2unet(model, x[0].astype("f8"), 3)
    np.testing.assert_allclose(model(x)[0], np.where(raw < 0, 0.05 * raw, raw), atol=1e-5)
    assert raw.min() < -0.05


def test_the_finest_skip_is_its_definition():
    keras.utils.set_random_seed(6)
    model = randomise(r2unet(2, filters=4, t=1, finest_skip=True, output_slope=1.0))
    x = density(1, 16, 8, 8, 2)
    np.testing.assert_allclose(model(x)[0], numpy_r2unet(model, x[0].astype("f8"), 1, finest_skip=True), atol=1e-5)


def test_softplus_is_its_definition_and_begins_at_few_galaxies():
    keras.utils.set_random_seed(4)
    model = r2unet(filters=4, output="softplus")
    np.testing.assert_allclose(model(np.zeros((1, 8, 8, 8, 1), "f4")), 0.1, rtol=1e-5)
    x, model = density(1, 8, 8, 8, 1), randomise(model)
    np.testing.assert_allclose(model(x)[0], np.log1p(np.exp(numpy_r2unet(model, x[0].astype("f8"), 3))), atol=1e-5)


def test_surroundings_are_those_of_gaussians_and_maxima_and_reach_no_farther_than_said():
    x = np.random.default_rng(0).lognormal(size=(48, 48, 48))
    found = np.asarray(periodic(surroundings())(x.astype("f4")[None, ..., None]))[0]
    fine = gaussian_filter(x, 0.5, mode="wrap")
    expected = [fine, *(gaussian_filter(x, width, mode="wrap") for width in (1, 2, 4)),
                *(maximum_filter(fine, side, mode="wrap") for side in (3, 5, 7))]
    np.testing.assert_allclose(found[..., 0], np.log1p(x) - 3, atol=1e-5)
    for channel, field in enumerate(expected, start=1):
        difference = np.log1p(field) - np.log1p(x)
        # A narrow Gaussian that is sampled by cells, and one of another, is one but nearly.
        assert np.std(found[..., channel] - difference) < 0.05 * difference.std()
    point = np.zeros((1, 64, 8, 8, 1), "f4")
    point[0, 32, 4, 4] = 1
    seen = np.flatnonzero(np.ptp(np.asarray(surroundings()(point))[0], axis=(1, 2)).max(axis=-1) > 0)
    assert seen.tolist() == list(range(32 - surroundings_radius(), 33 + surroundings_radius()))


def test_both_phases_in_one_take_the_density_alone():
    keras.utils.set_random_seed(1)
    classifier, regressor = inception(), r2unet(CHANNELS, filters=2, t=0, output="softplus")
    x = np.random.default_rng(0).lognormal(size=(1, 16, 16, 16, 1)).astype("f4")
    both = np.asarray(cascade(classifier, regressor, 0.5)(x))
    probability = np.asarray(classifier(x))[..., 1]
    np.testing.assert_allclose(both[..., 0], probability, atol=1e-6)
    expected = np.asarray(regressor(surroundings()(x)))[..., 0]
    np.testing.assert_allclose(both[..., 1], np.where(probability > 0.5, expected, 0), atol=1e-6)
    assert 0 < np.mean(probability > 0.5) < 1


@pytest.mark.parametrize("sides", [(8, 8, 8), (16, 24, 8), (32, 16, 16)])
def test_the_shape_stays(sides):
    x = density(2, *sides, 1)
    assert r2unet(filters=2, t=1)(x).shape == x.shape
    for classifier in (inception(), r2unet(outputs=2, filters=2, t=1)):
        probabilities = classifier(x)
        assert probabilities.shape == (2, *sides, 2)
        np.testing.assert_allclose(np.sum(probabilities, axis=-1), 1, atol=1e-6)


@pytest.mark.parametrize("build, radius", [(inception, INCEPTION_RADIUS),
                                           (lambda: r2unet(filters=2, t=0), r2unet_radius(0)),
                                           (lambda: r2unet(filters=2, t=1), r2unet_radius(1))])
def test_the_radius_is_how_far_a_cell_is_seen(build, radius):
    """With positive kernels all that sees the one cell which is not zero is positive, and nothing else is."""
    model, n = build(), 16 * (radius // 8 + 2)
    for weight in model.weights:
        if weight.path.endswith("kernel"):
            weight.assign(np.full(weight.shape, 1 / np.prod(weight.shape[:-1])))
    cell = n // 2 + np.arange(8)  # everywhere it can stand with respect to the poolings
    x = np.zeros((8, n, 8, 8, 1), "f4")
    x[np.arange(8), cell] = 1
    linear = keras.Model(model.input, model.layers[-2].output)  # a softmax would hide what is equal in both classes
    seen = [np.flatnonzero(row) for row in np.asarray(linear(x)).max(axis=(2, 3, 4)) > 0]
    assert radius == max(max(at - row.min(), row.max() - at) for at, row in zip(cell, seen))
