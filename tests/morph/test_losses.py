"""The likelihood against TensorFlow Probability and SciPy in float64, and what every probability obeys."""

import dataclasses
import json
from itertools import product

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from scipy import stats

from kerasgal.apps.morph.config import TrainConfig
from kerasgal.apps.morph.distribution import distribution
from kerasgal.apps.morph.losses import LogisticMixture, Normal, PixelLikelihood, log_likelihood, log_prob, loss_of
from kerasgal.config import preset, read, write
from kerasgal.errors import SettingError

tfd = tfp.distributions


def parameters(*shape, mixtures=4, channels=1, seed=0, log_scale=(-3, 1)):
    """Random parameters (..., parameter): means spread over [-1, 1] and a little beyond."""
    rng = np.random.default_rng(seed)
    pairs = channels * (channels - 1) // 2
    parts = [rng.normal(0, 1, (*shape, mixtures)), rng.uniform(-1.2, 1.2, (*shape, channels * mixtures)),
             rng.uniform(*log_scale, (*shape, channels * mixtures)), rng.normal(0, 1, (*shape, pairs * mixtures))]
    return np.concatenate(parts, axis=-1).astype("f4")


def at(x, given, bits=0):
    """log_prob of the values x, (n,) or (n, channel), all for the same parameters (parameter,)."""
    x = np.asarray(x, "f4").reshape(1, 1, len(x), -1)
    return np.asarray(log_prob(x, np.broadcast_to(given, (1, 1, x.shape[2], len(given))), bits))[0, 0]


@pytest.mark.parametrize("bits", [0, 1, 5, 8, 16])
@pytest.mark.parametrize("log_scale", [(-3, 1), (-5, -4), (2, 9)])
def test_the_likelihood_is_tfps(bits, log_scale):
    """From one edge to the other; with scales down to e^-5 the pixels are up to 300 scales off."""
    given = parameters(1, 6, 40, seed=bits, log_scale=log_scale)
    highest = 2**bits - 1 if bits else 255
    level = np.round(np.linspace(0, 1, 40) * highest) * np.ones((1, 6, 1))
    x = (level / highest).astype("f4")
    expected = distribution(given, bits).log_prob(level if bits else x.astype("f8"))
    np.testing.assert_allclose(log_prob(x[..., None], given, bits), expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("bits", [0, 8])
def test_far_tails_are_tfps(bits):
    """Thousands of scales off, where float32 probabilities are zero; a single logistic, so that nothing hides it."""
    mean, log_scale = np.meshgrid([-40.0, -3.0, -0.999, 0.2, 1.0, 7.0], [-30.0, -7.0, -6.5, -2.0, 12.0])
    given = np.stack([np.zeros_like(mean), mean, log_scale], axis=-1)[None].astype("f4")
    for level in (0, 1, 100, 254, 255):
        expected = distribution(given, bits).log_prob(level if bits else level / 255)
        x = np.full((*mean.shape, 1), level / 255, "f4")[None]
        # A pixel stands some 1e-7 off in float32, and that is 1e-4 of the least scale.
        np.testing.assert_allclose(log_prob(x, given, bits), expected, rtol=1e-5, atol=1e-4)
    if not bits:
        assert expected.numpy().min() < -40_000


@pytest.mark.parametrize("mixtures", [1, 3])
def test_the_density_integrates_to_one(mixtures):
    x = np.linspace(-6, 7, 200_001)
    for seed in range(3):
        density = np.exp(at(x, parameters(mixtures=mixtures, seed=seed, log_scale=(-4, -1)), 0))
        assert np.trapezoid(density.astype("f8"), x) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("bits, channels", [(1, 1), (4, 1), (8, 1), (16, 1), (3, 2), (2, 3)])
def test_the_probabilities_of_all_values_sum_to_one(bits, channels):
    values = np.array(list(product(range(2**bits), repeat=channels))) / (2**bits - 1)
    for seed in range(3):
        given = parameters(channels=channels, seed=seed, log_scale=(-5, 1))
        assert np.exp(at(values, given, bits).astype("f8")).sum() == pytest.approx(1, abs=1e-4)


def test_channels_are_conditioned_on_those_before():
    """Salimans et al. 2017, Eq. 3 and the text after it, with a logistic of TFP for every channel."""
    mixtures, x = 3, np.random.default_rng(1).random((1, 2, 5, 3)).astype("f4")
    given = parameters(1, 2, 5, mixtures=mixtures, channels=3, seed=2)
    weight = given[..., :mixtures]
    mean, scale, a = (part.reshape(1, 2, 5, 3, mixtures) for part in np.split(given[..., mixtures:], 3, axis=-1))
    a, y = np.tanh(a.astype("f8")), 2 * x[..., None] - 1
    # alpha, beta and gamma of the paper: green on red, blue on red, blue on green
    means = [mean[..., 0, :], mean[..., 1, :] + a[..., 0, :] * y[..., 0, :],
             mean[..., 2, :] + a[..., 1, :] * y[..., 0, :] + a[..., 2, :] * y[..., 1, :]]
    logistic = tfd.Independent(tfd.Logistic(np.stack(means, axis=-1), np.exp(scale.swapaxes(3, 4).astype("f8"))), 1)
    mixture = tfd.MixtureSameFamily(tfd.Categorical(logits=weight.astype("f8")), logistic)
    expected = mixture.log_prob(y[..., 0].astype("f8")) + 3 * np.log(2)
    np.testing.assert_allclose(log_prob(x, given), expected, rtol=1e-5, atol=1e-5)


def test_fine_bins_are_the_density_times_their_width():
    x, given = np.arange(3000, 60_000, 997) / 65_535, parameters(log_scale=(-3, 0))
    np.testing.assert_allclose(at(x, given, 16) + np.log(65_535), at(x, given), atol=1e-4)


def test_a_value_between_two_of_the_discrete_ones_counts_as_the_nearest():
    given = parameters(mixtures=2, channels=2)
    values = np.array([[0.4, 0.7], [-0.2, 1.3]])
    np.testing.assert_array_equal(at(values, given, 2), at([[1 / 3, 2 / 3], [0, 1]], given, 2))


@pytest.mark.parametrize("bits", [0, 1, 8])
@pytest.mark.parametrize("size", [1.0, 30.0, 1e4])
def test_value_and_gradient_are_finite_at_extremes(bits, size):
    given = tf.constant(parameters(2, 4, 4, channels=2) * np.float32(size))
    x = tf.constant(np.random.default_rng(3).integers(0, 2, (2, 4, 4, 2)).astype("f4"))
    with tf.GradientTape() as tape:
        tape.watch([given, x])
        value = LogisticMixture(bits)(x, given)
    gradients = tape.gradient(value, [given, x])
    assert np.isfinite(value) and all(np.isfinite(gradient).all() for gradient in gradients if gradient is not None)
    assert np.abs(gradients[0]).max() > 0


@pytest.mark.parametrize("bits", [0, 8])
def test_the_gradient_is_that_of_finite_differences(bits):
    given, x = parameters(1, 2, 3, mixtures=2), np.array([[[0, 0.2, 0.5], [0.6, 0.9, 1]]], "f4")
    level = np.round(x * 255)
    with tf.GradientTape() as tape:
        tape.watch(variable := tf.constant(given))
        value = log_likelihood(x[..., None], variable, bits)
    gradient, step = np.asarray(tape.gradient(value, variable)).ravel(), 1e-5
    moves = step * np.eye(given.size).reshape(given.size, *given.shape)  # one number in each
    below, above = (np.sum(distribution(given.astype("f8") + sign * moves, bits).log_prob(
        level if bits else x.astype("f8")), axis=(1, 2, 3)) for sign in (-1, 1))
    np.testing.assert_allclose(gradient, (above - below) / (2 * step), rtol=1e-3, atol=1e-4)


def test_the_loss_is_the_mean_over_pixels():
    given, x = parameters(3, 4, 5), np.random.default_rng(4).random((3, 4, 5, 1)).astype("f4")
    for bits in (0, 6):
        total = np.asarray(log_likelihood(x, given, bits))
        np.testing.assert_allclose(total, np.asarray(log_prob(x, given, bits)).sum(axis=(1, 2)), rtol=1e-6)
        loss = LogisticMixture(bits)
        np.testing.assert_allclose(loss.call(x, given), -total / 20, rtol=1e-5)
        assert float(loss(x, given)) == pytest.approx(-total.mean() / 20, rel=1e-5)


def test_the_loss_is_float32_and_survives_its_configuration():
    loss = keras.losses.deserialize(keras.losses.serialize(LogisticMixture(7)))
    assert loss.bits == 7 and loss.name == "logistic_mixture"
    given, x = parameters(1, 4, 4), np.random.default_rng(5).random((1, 4, 4, 1)).astype("f4")
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        assert LogisticMixture(7)(x, given).dtype == tf.float32
        np.testing.assert_array_equal(LogisticMixture(7)(x, given), loss(x, given))
    finally:
        keras.config.set_dtype_policy("float32")


def test_the_distribution_needs_three_parameters_per_logistic():
    with pytest.raises(ValueError, match="equal division"):
        distribution(np.zeros((2, 10)))


# One normal distribution per pixel -------------------------------------------------------


def normals(*shape, channels=1, seed=0):
    """Parameters and the means and standard deviations that they stand for, down to the least, 1e-4.

    Of several channels, which are independent: the coefficients are 0.
    """
    rng = np.random.default_rng(seed)
    mean, raw = (rng.uniform(*ends, (*shape, channels)).astype("f4") for ends in ((-0.2, 1.1), (-30, 2)))
    none = np.zeros((*shape, channels * (channels - 1) // 2), "f4")
    return np.concatenate([mean, raw, none], axis=-1), mean.astype("f8"), np.log1p(np.exp(raw.astype("f8"))) + 1e-4


def test_the_normal_likelihood_is_scipys():
    for channels in (1, 3):
        given, mean, deviation = normals(2, 6, 40, channels=channels)
        x = (mean + deviation * np.random.default_rng(1).normal(0, 4, mean.shape)).astype("f4")
        # A float32 has 7 digits, and is that far from its mean in units of the deviation.
        rounded = 1e-7 / deviation * np.abs(x - mean) / deviation
        expected = stats.norm.logpdf(x, mean, deviation)
        found = np.asarray(log_prob(x, given, likelihood="normal"))
        assert np.all(np.abs(found - expected.sum(axis=-1)) < 1e-4 + 4 * rounded.sum(axis=-1))
        if channels == 1:
            said = distribution(given, likelihood="normal").log_prob(x[..., 0].astype("f8"))
            np.testing.assert_allclose(said, expected[..., 0], rtol=1e-9)
    with pytest.raises(ValueError, match="too many values"):
        distribution(np.zeros((2, 3)), likelihood="normal")


@pytest.mark.parametrize("deviation", [1.1e-4, 0.01, 0.7])
def test_the_normal_density_integrates_to_one(deviation):
    raw = np.log(np.expm1(deviation - 1e-4))
    x = 0.3 + deviation * np.linspace(-9, 9, 20_001)
    density = np.exp(np.asarray(log_prob(x.reshape(1, 1, -1, 1), np.full((1, 1, len(x), 2), (0.3, raw)),
                                         likelihood="normal"))[0, 0])
    assert np.trapezoid(density.astype("f8"), x) == pytest.approx(1, abs=1e-3)


def test_an_image_is_worth_no_more_than_the_least_deviation_allows():
    """8.29 nats a pixel, -ln(1e-4 sqrt(2 pi)): 8490 for 32 x 32 pixels that are all known."""
    flat = np.full((1, 32, 32, 1), 0.25, "f4")
    given = np.broadcast_to(np.array([0.25, -100], "f4"), (1, 32, 32, 2))
    assert float(log_likelihood(flat, given, likelihood="normal")[0]) == pytest.approx(8490.4, abs=0.1)


def test_the_normal_loss_is_the_mean_over_pixels_and_finite_at_extremes():
    given, _, _ = normals(3, 4, 5)
    x = np.random.default_rng(4).random((3, 4, 5, 1)).astype("f4")
    assert isinstance(loss_of(TrainConfig()), Normal)
    total = np.asarray(log_likelihood(x, given, likelihood="normal"))
    loss = keras.losses.deserialize(keras.losses.serialize(Normal()))
    np.testing.assert_allclose(loss.call(x, given), -total / 20, rtol=1e-5)
    for size in (1.0, 1e3, 1e6):
        far = tf.constant(given * np.float32(size))
        with tf.GradientTape() as tape:
            tape.watch(far)
            value = loss(x, far)
        assert np.isfinite(value) and np.isfinite(tape.gradient(value, far)).all()


def test_what_is_exported_is_scipys_normal_likelihood(tmp_path):
    image, parameters = keras.Input((4, 5, 1)), keras.Input((4, 5, 2))
    made = PixelLikelihood(likelihood="normal")(image, parameters)
    keras.Model([image, parameters], made).export(tmp_path, verbose=False)
    given, mean, deviation = normals(3, 4, 5, seed=2)
    x = (mean + deviation).astype("f4")
    served = tf.saved_model.load(tmp_path).serve([x, given])
    np.testing.assert_allclose(served, stats.norm.logpdf(x, mean, deviation)[..., 0], atol=1e-2)


@pytest.mark.parametrize("settings, message", [({"mixtures": 3}, "mixtures=3: likelihood=normal has one"),
                                               ({"bits": 8}, "bits=8: likelihood=normal is a density")])
def test_settings_that_a_normal_distribution_has_no_use_for_are_refused(settings, message):
    with pytest.raises(SettingError, match=message):
        TrainConfig(**settings)
    assert TrainConfig(likelihood="logistic", **settings)


def test_there_is_a_preset_for_each_paper_and_one_for_two_cores(tmp_path):
    """Salimans et al.'s for CIFAR-10 and Zanisi et al.'s; a stored configuration without their names is the former."""
    paper, cifar, demo = (preset(TrainConfig, name) for name in ("paper", "pixelcnn++", "demo"))
    assert (paper.blocks, paper.filters, paper.likelihood, paper.mixtures) == (3, 64, "normal", 1)
    assert (cifar.blocks, cifar.filters, cifar.likelihood, cifar.mixtures) == (5, 160, "logistic", 10)
    assert (paper.rebin, cifar.rebin) == ("spline", "mean")
    assert (paper.learning_rate, paper.decay, paper.epochs * paper.steps_per_epoch) == (3e-6, "cosine", 10**6)
    assert (cifar.learning_rate, cifar.decay, cifar.averaging) == (1e-3, "exponential", 0.9995)
    assert (demo.likelihood, demo.rebin, demo.decay) == ("logistic", "mean", "exponential")
    with pytest.raises(SettingError, match="accepted are paper, demo, pixelcnn"):
        preset(TrainConfig, "cifar")
    for stored, version in ((cifar, 3), (demo, 3), (paper, 4)):
        write(stored, tmp_path / "config.json")
        document = json.loads((tmp_path / "config.json").read_text())
        if version == 3:
            del document["config"]["likelihood"], document["config"]["rebin"]
        (tmp_path / "config.json").write_text(json.dumps(document | {"version": version}))
        assert read(TrainConfig, tmp_path / "config.json") == stored
    (tmp_path / "mine.toml").write_text('preset = "pixelcnn++"\nblocks = 4\n')
    assert read(TrainConfig, tmp_path / "mine.toml") == dataclasses.replace(cifar, blocks=4)
