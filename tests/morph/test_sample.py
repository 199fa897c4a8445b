"""Drawn images against the loop over the whole network, and against the distributions they are drawn from."""

import keras
import numpy as np
import pytest
from scipy import stats

from kerasgal.apps.morph.distribution import distribution
from kerasgal.apps.morph.model import ShiftedTransposed, WeightNormalised, initialise, pixelcnn
from kerasgal.apps.morph.sample import Convolution, Transposed, drawn, sample, sample_naively, start


def network(shape, blocks=1, filters=6, mixtures=3, seed=1, likelihood="logistic"):
    """A network with random weights whose draws depend much on the pixels before, and seldom leave [0, 1]."""
    keras.utils.set_random_seed(seed)
    model = pixelcnn(shape, blocks, filters, mixtures, likelihood=likelihood)
    sides = [side or 8 for side in shape[:2]]
    initialise(model, np.random.default_rng(seed).random((16, *sides, shape[2])).astype("f4"))
    layer, channels = model.get_layer("parameters"), shape[2]
    means, log_scales = (slice(mixtures * (1 + first), mixtures * (1 + first + channels)) for first in (0, channels))
    factor, constant = np.ones(layer.filters), np.zeros(layer.filters)
    if likelihood == "normal":
        means, log_scales = slice(0, channels), slice(channels, 2 * channels)
        constant[means], factor[means] = 0.4, 0.1
    factor[means], factor[log_scales], constant[log_scales] = 0.5, 0.3, -3
    layer.g.assign(layer.g * factor)
    layer.b.assign(layer.b * factor + constant)
    return model


def independent(parameters, shape, likelihood="logistic"):
    """A network whose pixels do not depend on each other."""
    model = pixelcnn(shape, 1, 2, 2, likelihood=likelihood)
    layer = model.get_layer("parameters")
    layer.g.assign(np.zeros(layer.filters))
    layer.b.assign(parameters)
    return model


def test_images_are_those_of_the_naive_loop():
    model, shape = network((None, None, 2)), (3, 4, 2)
    fast, naive = (function(model, 4, 11, shape, 3) for function in (sample, sample_naively))
    np.testing.assert_allclose(fast, naive, atol=1e-5)


@pytest.mark.parametrize("shape, blocks, bits, likelihood", [
    pytest.param((6, 6, 1), 2, 0, "logistic", marks=pytest.mark.slow), ((7, 5, 1), 1, 8, "logistic"),
    pytest.param((3, 6, 3), 1, 0, "logistic", marks=pytest.mark.slow), ((6, 6, 1), 1, 0, "normal")])
def test_each_pixel_is_drawn_from_what_the_network_says_of_those_before(shape, blocks, bits, likelihood):
    """One pass over the drawn images gives the distributions from which their pixels come: as the naive loop, then."""
    model = network((None, None, shape[2]), blocks, likelihood=likelihood)
    images = sample(model, 4, 11, shape, bits, likelihood)
    assert images.shape == (4, *shape) and images.dtype == np.float32 and images.min() >= -1 and images.max() <= 1
    assert images.std() > 0.05 and ((images > 0) & (images < 1)).mean() > 0.8
    _, uniforms = start(model, 4, 11, shape)
    flat = [np.asarray(values).reshape(-1, values.shape[-1]) for values in (model(images), uniforms)]
    np.testing.assert_allclose(images, drawn(*flat, bits, likelihood).reshape(images.shape), atol=1e-5)
    if likelihood == "normal":  # by SciPy, not by what drew them
        said = distribution(model(images), likelihood="normal")
        expected = stats.norm.ppf(uniforms[..., 1], said.loc, said.scale).clip(-1, 1)
        np.testing.assert_allclose(images[..., 0], expected, atol=1e-5)
    if bits:
        np.testing.assert_allclose(images * (2**bits - 1), np.round(images * (2**bits - 1)), atol=1e-4)


def test_the_seed_decides():
    model = network((4, 4, 1))
    np.testing.assert_array_equal(sample(model, 2, 3), sample(model, 2, 3))
    assert np.abs(sample(model, 2, 3) - sample(model, 2, 4)).mean() > 0.05


def test_pixels_follow_their_mixture():
    parameters = np.array([0.3, -0.8, -0.2, 0.4, -3.5, -3])
    pixels = sample(independent(parameters, (24, 24, 1)), 10, 5).ravel()
    assert 0 < pixels.min() and pixels.max() < 1
    assert stats.kstest(pixels, lambda x: distribution(parameters).cdf(x).numpy()).pvalue > 0.01


def test_normal_pixels_follow_their_distribution():
    pixels = sample(independent([0.4, -3.0], (24, 24, 1), likelihood="normal"), 10, 5, likelihood="normal").ravel()
    assert stats.kstest(pixels, stats.norm(0.4, np.log1p(np.exp(-3)) + 1e-4).cdf).pvalue > 0.01


def test_discrete_pixels_follow_their_mixture_with_its_edges():
    parameters = np.array([0.3, -0.8, -0.6, 0.4, -1.5, -1])
    pixels = sample(independent(parameters, (24, 24, 1)), 10, 6, bits=2).ravel()
    found = np.bincount(np.round(3 * pixels).astype(int), minlength=4)
    expected = len(pixels) * distribution(parameters, 2).prob(np.arange(4.0)).numpy()
    assert stats.chisquare(found, expected).pvalue > 0.01


def test_channels_follow_those_before():
    """One logistic (its equal has no weight): y_1 less tanh(c) y_0 is a logistic, independent of y_0."""
    parameters = np.array([40.0, 0, 0.1, 0, -0.2, 0, -3, 0, -3.5, 0, 0.7, 0])
    red, green = 2 * sample(independent(parameters, (24, 24, 2)), 6, 7).reshape(-1, 2).T - 1
    rest = green - np.tanh(0.7) * red
    assert stats.kstest(red, stats.logistic(0.1, np.exp(-3)).cdf).pvalue > 0.01
    assert stats.kstest(rest, stats.logistic(-0.2, np.exp(-3.5)).cdf).pvalue > 0.01
    assert stats.pearsonr(red, rest).pvalue > 0.01


def multiplications(model, images):
    """Of one evaluation of the network: those of its convolutions."""
    total, call = 0, WeightNormalised.call

    def counted(layer, x, *more):
        nonlocal total
        output = call(layer, x, *more)
        # A transposed convolution multiplies each input by the whole kernel, the others each output.
        places = x.shape if isinstance(layer, ShiftedTransposed) else output.shape
        total += int(np.prod(places[:3])) * int(np.prod(layer.v.shape))
        return output

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WeightNormalised, "call", counted)
        model(images)
    return total


@pytest.mark.slow
def test_sampling_is_the_work_of_one_evaluation(monkeypatch):
    model, side, done = network((32, 32, 1)), 32, 0
    output, double = Convolution.output, Transposed.__call__

    def counted_output(self, at):
        nonlocal done
        result = output(self, at)
        done += result[..., 0].size * self.matrix.size
        return result

    def counted_double(self, x):
        nonlocal done
        done += x[..., 0].size * self.kernel.size
        return double(self, x)

    monkeypatch.setattr(Convolution, "output", counted_output)
    monkeypatch.setattr(Transposed, "__call__", counted_double)
    images = sample(model, 2, 8)
    assert 0.9 < done / multiplications(model, images) < 1  # the naive loop evaluates side^2 times
    assert side**2 / (done / multiplications(model, images)) > 50


@pytest.mark.slow  # which the work of sampling says, too
def test_sampling_never_evaluates_the_whole_network(monkeypatch):
    """The loop does so for every pixel; how much faster this is, tests/benchmarks/morph.py measures."""
    model, calls = network((16, 16, 1), filters=4), []
    monkeypatch.setattr(type(model), "predict_on_batch", lambda *arguments: calls.append(1))
    monkeypatch.setattr(type(model), "__call__", lambda *arguments, **options: calls.append(1))
    assert sample(model, 2, 9).shape == (2, 16, 16, 1) and not calls
