"""The mathematics of the diffusion model, against Gaussian fields, of which all is known in closed form."""

import json
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats
from tensorflow_probability import distributions

from kerasgal import statistics
from kerasgal.apps.cascade.diffusion import calibration, counts, data, evaluate, model, sample, train, vdm
from kerasgal.apps.cascade.diffusion.config import DiffusionConfig
from kerasgal.apps.cascade.diffusion.figures import HALO_MODEL, SHUFFLED, TRUTH
from kerasgal.apps.cascade.diffusion.network import radius
from kerasgal.apps.cascade.diffusion.schedule import LearnedSchedule, LinearSchedule
from kerasgal.config import preset, read, replace
from kerasgal.errors import DamagedError, DataError

N = 12
LOW, HIGH = -6.0, 6.0
k = np.sqrt(np.fft.fftfreq(N, 1 / N)[:, None]**2 + np.fft.fftfreq(N, 1 / N)**2)
POWER = 5 / (1 + (k / 2)**2)**2 + 0.02  # variance of each mode, in the unitary transform
MEAN = 0.7 * np.cos(2 * np.pi * np.arange(N) / N)[:, None] * np.ones(N)


def filtered(white, response):
    """Fields, (batch, N, N, 1), with each mode times a response."""
    return np.fft.ifft2(np.fft.fft2(white[..., 0]) * response).real[..., None].astype(np.float32)


def gaussian(number, seed):
    white = np.random.default_rng(seed).standard_normal((number, N, N, 1)).astype(np.float32)
    return filtered(white, np.sqrt(POWER)) + MEAN[..., None].astype(np.float32)


def best_denoiser(z, gamma):
    """The expected noise in z: z - alpha m, each mode by its share of noise, over sigma."""
    gamma = np.reshape(np.asarray(gamma, np.float64), (-1, 1, 1))
    signal, noise = 1 / (1 + np.exp(gamma)), 1 / (1 + np.exp(-gamma))
    away = np.asarray(z)[..., 0] - np.sqrt(signal) * MEAN
    share = np.sqrt(noise) / (signal * POWER + noise)
    return (np.fft.ifft2(np.fft.fft2(away) * share).real[..., None]).astype(np.float32)


def bound_of(x, schedule, seed):
    rng = np.random.default_rng(seed)
    noise, noise_0 = rng.standard_normal((2, *x.shape), np.float32)
    times = vdm.antithetic_times(len(x), rng.uniform())
    return [np.asarray(part) for part in vdm.bound(x, best_denoiser, schedule, times, noise, noise_0)]


def closed_form():
    """Prior, reconstruction and diffusion loss of the Gaussian field with its best denoiser."""
    signal = 1 / (1 + np.exp(HIGH))
    squares = POWER.sum() + (MEAN**2).sum()
    prior = 0.5 * (signal * (squares - N**2) - N**2 * np.log(1 - signal))
    reconstruction = N**2 * (0.5 + 0.5 * np.log(2 * np.pi) + LOW / 2)
    diffusion = 0.5 * (HIGH - LOW + np.log((POWER + np.exp(LOW)) / (POWER + np.exp(HIGH)))).sum()
    return prior, reconstruction, diffusion


def within(values, expected, sigmas=4):
    error = values.std(ddof=1) / np.sqrt(len(values))
    assert abs(values.mean() - expected) < sigmas * error + 1e-5 * abs(expected), (values.mean(), expected, error)


def test_the_bound_of_a_gaussian_field_is_that_in_closed_form():
    x = gaussian(4000, 1)
    found = bound_of(x, LinearSchedule(LOW, HIGH), 2)
    for values, expected in zip(found, closed_form()):
        within(values, expected)


def test_the_bound_is_close_to_the_likelihood():
    x = gaussian(4000, 3)
    index = np.arange(N**2)
    white = np.zeros((N**2, N, N, 1), np.float32)
    white[index, index // N, index % N] = 1
    covariance = filtered(white, POWER).reshape(N**2, N**2)
    exact = -stats.multivariate_normal(MEAN.ravel(), (covariance + covariance.T) / 2).logpdf(x.reshape(len(x), -1))
    excess = np.sum(bound_of(x, LinearSchedule(LOW, HIGH), 4), axis=0) - exact
    # Finite ends of the schedule leave out this much; without noise at time 0 it would be nothing.
    within(excess, sum(closed_form()) - 0.5 * (np.log(2 * np.pi * POWER) + 1).sum())
    assert 0 < excess.mean() < 0.1 * abs(exact.mean())


def test_the_bound_does_not_depend_on_the_schedule_between_its_ends():
    def bent(times):
        """Slow at first, and steep in the end."""
        times = tf.convert_to_tensor(times)
        return LOW + (HIGH - LOW) * (0.2 * times + 0.8 * times**3), (HIGH - LOW) * (0.2 + 2.4 * times**2)

    x = gaussian(4000, 5)
    learned = LearnedSchedule(LOW, HIGH)
    learned.build((None,))
    for variable in learned.trainable_variables:
        variable.assign(np.random.default_rng(1).normal(1, 2, variable.shape))
    straight = bound_of(x, LinearSchedule(LOW, HIGH), 6)[2]
    for schedule in (bent, learned):
        other = bound_of(x, schedule, 7)[2]
        error = np.hypot(straight.std(), other.std()) / np.sqrt(len(x))
        assert abs(straight.mean() - other.mean()) < 4 * error
        within(other, closed_form()[2])


def drawn_by(sampler, denoise, gammas, z, rng, settle=None):
    if sampler == "deterministic":
        return vdm.deterministic(denoise, gammas, z)
    return getattr(vdm, sampler)(denoise, gammas, z, lambda step: rng.standard_normal(z.shape, np.float32), settle)


@pytest.mark.parametrize("sampler, steps", [("ancestral", 300), ("multistep", 50), ("deterministic", 40)])
def test_draws_with_the_best_denoiser_have_the_fields_mean_and_spectrum(sampler, steps):
    rng = np.random.default_rng(8)
    gammas = np.linspace(HIGH, -9, steps + 1).tolist()
    z = rng.standard_normal((100, N, N, 1), np.float32)
    drawn = drawn_by(sampler, best_denoiser, gammas, z, rng)
    away = drawn[..., 0].astype(np.float64) - MEAN
    error = np.sqrt(POWER.mean() / len(z))
    assert np.abs(away.mean(axis=0)).max() < 4.5 * error
    power = np.abs(np.fft.fft2(away, norm="ortho"))**2
    for low in range(0, N // 2, 2):
        shell = (k >= low) & (k < low + 2)
        ratio = (power / POWER)[:, shell].mean()
        modes = len(z) * (shell.sum() + 1) / 2  # k and -k are one
        assert abs(ratio - 1) < 4 / np.sqrt(modes), (low, ratio)


def poisson_cells(rate, gamma_min, gamma_max, mean, spread, sampler, steps, cells=3000, settled=True):
    """Cells with Poisson numbers of a known rate, drawn with the best denoiser there is, in closed form."""
    number = np.arange(int(rate + 10 * np.sqrt(rate) + 10))
    levels, prior = (number - mean) / spread, stats.poisson(rate).logpmf(number)

    def denoise(z, gamma):
        signal, noise = 1 / (1 + np.exp(gamma)), 1 / (1 + np.exp(-gamma))
        log_share = prior - (z[:, None] - np.sqrt(signal) * levels)**2 / (2 * noise)
        share = np.exp(log_share - log_share.max(axis=1, keepdims=True))
        expected = share @ levels / share.sum(axis=1)
        return (z - np.sqrt(signal) * expected) / np.sqrt(noise)

    rng = np.random.default_rng(12)
    gammas = np.linspace(gamma_max, gamma_min, steps + 1).tolist()
    settle = counts.whole(levels, lambda: rng.random(cells)) if settled else None
    field = drawn_by(sampler, denoise, gammas, rng.standard_normal(cells), rng, settle)
    return counts.counts_of(field * spread + mean, "count", 99)


@pytest.mark.parametrize("sampler, steps", [("ancestral", 100), ("multistep", 25), ("deterministic", 25)])
def test_a_cell_of_forty_galaxies_is_drawn_with_forty(sampler, steps):
    config = preset(DiffusionConfig, "demo")
    drawn = poisson_cells(40, config.gamma_min, config.gamma_max, 0.06, 0.42, sampler, steps)
    assert abs(drawn.mean() - 40) < 0.8 and abs(drawn.std() / np.sqrt(40) - 1) < 0.1
    # Noise that ends before the data do, as that of a preset of version 4, leaves the flow too poor.
    if sampler == "deterministic":
        assert poisson_cells(40, -5.0, 8.0, 0.0, 1.0, sampler, steps).mean() < 37


@pytest.mark.parametrize("sampler, steps", [("ancestral", 50), ("multistep", 25)])
@pytest.mark.parametrize("rate, cells", [(0.01, 40_000), (0.06, 30_000), (0.7, 5_000)])
def test_rare_galaxies_are_drawn_as_often_as_they_are(sampler, steps, rate, cells):
    config = preset(DiffusionConfig, "demo")
    options = {"mean": 0.06, "spread": 0.42, "sampler": sampler, "steps": steps, "cells": cells}
    ends = config.gamma_min, config.gamma_max
    drawn = poisson_cells(rate, *ends, **options)
    assert abs(drawn.mean() / rate - 1) < 0.02 + 4 / np.sqrt(rate * cells)
    assert abs(drawn.var() / rate - 1) < 0.12 + 4 / np.sqrt(rate * cells)
    if rate == 0.06:  # what a normal step about the mean makes of them
        assert poisson_cells(rate, *ends, **options, settled=False).mean() < 0.9 * rate


def test_cells_of_which_nothing_more_is_known_are_drawn_about_as_they_are_expected():
    """To the end; the number nearest to 1.3 galaxies would be one in each, and more steps lead nearer to that."""
    config, rng, expected = preset(DiffusionConfig, "demo"), np.random.default_rng(21), 1.3
    levels = (np.arange(9) - 0.06) / 0.42

    def denoise(z, gamma):
        alpha, sigma = vdm.parts(gamma)
        return (z - alpha * np.interp(expected, np.arange(9), levels)) / sigma

    def mean(settle):
        gammas = np.linspace(config.gamma_max, config.gamma_min, 26).tolist()
        field = drawn_by("multistep", denoise, gammas, rng.standard_normal(20_000), rng, settle)
        return counts.counts_of(field * 0.42 + 0.06, "count", 8).mean()

    assert mean(counts.whole(levels, lambda: rng.random(20_000))) == pytest.approx(expected, rel=0.04)
    assert mean(None) < 1.1


def test_noise_of_short_steps_makes_that_of_a_long_one():
    """To a field that is known for certain both ways lead alike, and the noise of the long steps is standard normal."""
    rng, fine = np.random.default_rng(13), np.linspace(HIGH, LOW, 13).tolist()
    z, noise = rng.standard_normal(5000), rng.standard_normal((12, 5000))

    def denoise(z, gamma):
        return (z - 2 / np.sqrt(1 + np.exp(gamma))) * np.sqrt(1 + np.exp(-gamma))

    several = [vdm.together(fine[first:first + 5], noise[first:first + 4]) for first in (0, 4, 8)]
    assert all(abs(one.std() - 1) < 0.05 for one in several)
    for sampler in (vdm.ancestral, vdm.multistep):
        np.testing.assert_allclose(sampler(denoise, fine[::4], z, several.__getitem__),
                                   sampler(denoise, fine, z, noise.__getitem__), atol=1e-6)


def test_the_deterministic_sampler_is_of_second_order():
    z = np.random.default_rng(9).standard_normal((4, N, N, 1))
    exact = vdm.deterministic(best_denoiser, np.linspace(HIGH, LOW, 2001).tolist(), z)
    errors = [np.abs(vdm.deterministic(best_denoiser, np.linspace(HIGH, LOW, steps + 1).tolist(), z) - exact).max()
              for steps in (40, 80)]
    assert errors[1] < 0.35 * errors[0]  # a quarter; a half for one of first order


def test_noise_and_velocity_say_the_same():
    rng = np.random.default_rng(10)
    x, noise = rng.standard_normal((2, 5, N, N, 1), np.float32)
    gamma = np.linspace(LOW, HIGH, 5, dtype=np.float32)
    velocity = vdm.alpha(vdm.alike(gamma, x)) * noise - vdm.sigma(vdm.alike(gamma, x)) * x
    z = vdm.diffuse(x, noise, gamma)
    for output, prediction in ((velocity, "velocity"), (noise - z, "noise")):
        np.testing.assert_allclose(vdm.noise_of(output, z, gamma, prediction), noise, atol=2e-5)


def test_the_prior_is_that_of_tensorflow_probability():
    x = np.random.default_rng(11).normal(0, 3, (2, N, N, 1)).astype(np.float32)
    for gamma in (-2.0, 0.5, 9.0):
        z = distributions.Normal(np.float64(x) / np.sqrt(1 + np.exp(gamma)), 1 / np.sqrt(1 + np.exp(-gamma)))
        standard = distributions.Normal(np.float64(0), np.float64(1))
        expected = distributions.kl_divergence(z, standard).numpy().sum(axis=(1, 2, 3))
        np.testing.assert_allclose(vdm.prior_loss(x, gamma), expected, rtol=2e-4)


@pytest.mark.parametrize("field", ["log", "count"])
def test_the_probabilities_of_all_counts_add_up_to_one(field):
    levels = counts.levels(field, 40)
    for gamma in (-8.0, -3.0, 1.0):
        seen = 2.3
        noise = ((seen - levels) * np.exp(-gamma / 2)).astype(np.float32)  # what makes z_0 / alpha_0 of each level
        nats = vdm.reconstruction_loss(levels[:, None], noise[:, None], gamma, levels)
        np.testing.assert_allclose(np.exp(-np.asarray(nats, np.float64)).sum(), 1, atol=1e-5)


def test_times_are_spread_evenly():
    times = np.sort(vdm.antithetic_times(10, 0.73))
    np.testing.assert_allclose(np.diff(times), 0.1, atol=1e-6)
    assert 0 <= times[0] and times[-1] < 1


@pytest.mark.parametrize("seed", range(5))
def test_the_learned_schedule_is_monotone_and_keeps_its_ends_for_any_weights(seed):
    schedule = LearnedSchedule(-13.3, 5.0)
    schedule.build((None,))
    if seed:
        for variable in schedule.trainable_variables:
            variable.assign(np.random.default_rng(seed).normal(0, 4, variable.shape))
    times = tf.constant(np.linspace(0, 1, 501, dtype=np.float32))
    with tf.GradientTape() as tape:
        tape.watch(times)
        gamma, slope = schedule(times)
    np.testing.assert_allclose([gamma[0], gamma[-1]], [-13.3, 5.0], atol=1e-4)
    assert (np.asarray(slope) > 0).all() and (np.diff(gamma) >= 0).all()
    direct = tape.gradient(gamma, times)
    np.testing.assert_allclose(direct, slope, rtol=1e-3, atol=1e-3)


TINY = {"patch": 8, "filters": 4, "levels": 1, "depth": 2, "batch": 4, "maximum": 7, "cell": 1.0, "stride": 8,
        "field": "log", "gamma_max": 5.0, "norm_groups": 0}


def tiny(**changed):
    """A compiled model and its config."""
    config = replace(preset(DiffusionConfig, "demo"), {**TINY, **changed})
    made = train.compiled(config, np.array([[0.3, 0.8], [0.2, 0.7], [0.4, 0.9]])[:, :len(config.names)])
    for place, variable in enumerate(made.network.trainable_variables):  # the last convolutions begin at zero
        variable.assign(np.random.default_rng(place).normal(0, 0.2, variable.shape))
    return made, config


def batch_of(config, seed=0):
    rng = np.random.default_rng(seed)
    shape = (4, *[8] * config.dimensions, 1)
    galaxies = rng.poisson(0.3, shape).astype(np.float32)
    arrays = rng.lognormal(size=shape), counts.field_of(galaxies, config.field), rng.normal(
        0.3, 0.1, (4, len(config.names)))
    return tuple(tf.constant(array, tf.float32) for array in arrays)


@pytest.mark.parametrize("weighting", [pytest.param("bound", marks=pytest.mark.slow), "velocity"])
def test_the_schedules_gradient_is_that_of_the_variance(weighting, monkeypatch):
    made, config = tiny(schedule="learned", weighting=weighting)
    batch = batch_of(config)
    seen = {}
    monkeypatch.setattr(made.optimizer, "apply_gradients",
                        lambda pairs: seen.update({variable.path: gradient for gradient, variable in pairs}))
    start = np.array(made.seeds.state)
    made.train_step((batch,))
    made.seeds.state.assign(start)
    with tf.GradientTape(persistent=True) as tape:
        parts, (gamma, _) = made.losses_of(batch, [made.seeds] * 3, training=True)
        losses = parts[0] + parts[1] + parts[2] * (1 + tf.exp(gamma) if weighting == "velocity" else 1)
        loss, square = keras.ops.mean(losses), keras.ops.mean(keras.ops.square(losses))
    for target, owner in ((square, made.schedule), (loss, made.network)):
        variables = owner.trainable_variables
        for variable, gradient in zip(variables, tape.gradient(target, [variable.value for variable in variables])):
            expected = np.asarray(gradient)
            assert np.abs(expected).max() > 0
            np.testing.assert_allclose(seen[variable.path], expected, rtol=1e-2, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("changed", [
    pytest.param({}, marks=pytest.mark.slow), {"dimensions": 3, "parameters": "Om0"},
    pytest.param({"attention": True, "norm_groups": 2}, marks=pytest.mark.slow),
    pytest.param({"prediction": "noise"}, marks=pytest.mark.slow),
    pytest.param({"dimensions": 3, "parameters": "Om0,sigma8", "schedule": "learned", "attention": True},
                 marks=pytest.mark.slow),
])
def test_every_kind_of_model_trains_a_step(changed):
    made, config = tiny(**changed)
    before = [np.array(variable) for variable in made.network.trainable_variables]
    losses = made.train_step((batch_of(config),))
    assert np.isfinite(losses["loss"]) and losses["loss"] > 0
    np.testing.assert_allclose(losses["loss"], sum(losses[name] for name in model.PARTS), rtol=1e-5)
    moved = [np.abs(np.array(variable) - value).max() > 0 for variable, value in
             zip(made.network.trainable_variables, before)]
    assert np.mean(moved) > 0.9
    assert np.isfinite(made.test_step((batch_of(config),))["loss"])


def test_the_bound_is_reported_whatever_is_lowered():
    """Weights of what training lowers are not in history.csv, and validations have the same noise."""
    made, config = tiny(weighting="velocity")
    other, _ = tiny(weighting="bound")
    batch = batch_of(config)
    found = [{name: float(value) for name, value in one.test_step((batch,)).items()} for one in (made, other)]
    assert found[0] == found[1]
    np.testing.assert_array_equal(made(batch), made(batch))
    assert not np.array_equal(made(batch, training=True), made(batch, training=True))
    parts, (gamma, _) = made.losses_of(batch, (1, 2, 3), training=False)
    made(batch)
    np.testing.assert_allclose(made.losses[0], np.mean(parts[0] + parts[1] + parts[2] * (1 + np.exp(gamma))), rtol=1e-5)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("changed", [{}, {"dimensions": 3, "parameters": "Om0,sigma8", "schedule": "learned",
                                          "prediction": "noise", "weighting": "bound", "field": "log"}])
def test_the_model_survives_its_configuration_and_its_losses_are_float32(changed, policy, tmp_path):
    keras.config.set_dtype_policy(policy)
    try:
        made, config = tiny(**changed)
        again = model.VariationalDiffusion.from_config(made.get_config())
    finally:
        keras.config.set_dtype_policy("float32")
    assert again.get_config() == made.get_config()
    batch, path = batch_of(config), tmp_path / "model.weights.h5"
    made.save_weights(path)
    again.load_weights(path)
    losses = made(batch)
    assert losses.dtype == "float32" and losses.shape == (4, 3) and np.isfinite(losses).all()
    np.testing.assert_array_equal(again(batch), losses)
    for schedule in (made.schedule, LinearSchedule(-3.0, 4.0), LearnedSchedule(-3.0, 4.0)):
        other = keras.layers.deserialize(keras.layers.serialize(schedule))
        assert type(other) is type(schedule) and other.get_config() == schedule.get_config()


def test_parameters_change_what_the_network_finds():
    made, config = tiny(parameters="Om0,sigma8")
    density, field, parameters = batch_of(config)
    gamma = tf.zeros(4)
    one, other = (made.denoiser(density, values)(field, gamma) for values in (parameters, parameters + 0.2))
    assert np.abs(np.asarray(one) - np.asarray(other)).max() > 1e-4


def test_maps_hold_all_galaxies_of_the_box_along_each_axis():
    box = np.random.default_rng(0).poisson(0.2, (12, 12, 12)).astype(np.float32)
    config = replace(preset(DiffusionConfig, "demo"), TINY | {"depth": 3})
    maps = data.project("box", box, config)
    assert maps.shape == (12, 12, 12)
    for axis in range(3):
        own = maps[..., 4 * axis:4 * axis + 4]
        np.testing.assert_array_equal(own.sum(axis=2), box.sum(axis=axis))
    np.testing.assert_array_equal(maps[..., 5], box[:, 3:6].sum(axis=1))
    with pytest.raises(DataError, match="deeper than the box of 12 cells"):
        data.project("box", box, replace(config, {"depth": 13}))


@pytest.mark.parametrize("field", ["log", "count"])
def test_counts_survive_the_way_to_the_field_and_back(field):
    given = np.arange(64, dtype=np.float32)
    values = counts.field_of(given, field)
    np.testing.assert_array_equal(counts.counts_of(values, field, 63), given)
    noisy = values + np.random.default_rng(0).normal(0, 5, 64)
    np.testing.assert_array_equal(sample.NearestCount(counts.levels(field, 63))(noisy),
                                  counts.counts_of(noisy, field, 63))


def test_patches_of_maps_come_in_eight_symmetries_with_their_parameters():
    config = replace(preset(DiffusionConfig, "demo"), TINY | {"parameters": "Om0", "batch": 16})
    rng = np.random.default_rng(0)
    samples = [(rng.uniform(size=(16, 16, 3)).astype(np.float32), np.array([value], np.float32),
                rng.poisson(0.5, (16, 16, 3)).astype(np.float32)) for value in (0.2, 0.3)]
    seen, found = {}, iter(data.dataset(samples, config, 8, seed=1))
    for _ in range(2 * 3 * 4 * 8 // 16):
        for density, field, parameter in zip(*next(found)[0]):
            assert density.shape == field.shape == (8, 8, 1)
            seen.setdefault(round(float(np.sum(density)), 3), []).append((density.numpy(), float(parameter[0])))
    assert len(seen) == 24 and all(len({entry[0].tobytes() for entry in entries}) == 8 for entries in seen.values())
    for maps, (value,), _ in samples:
        sums = maps.reshape(2, 8, 2, 8, 3).sum(axis=(1, 3)).ravel()
        assert all({entry[1] for entry in seen[round(float(total), 3)]} == {value} for total in sums)
    (density, field, _), = next(iter(data.dataset(samples, config, 8)))
    assert density.shape == (16, 8, 8, 1)
    np.testing.assert_array_equal(density[1, ..., 0], samples[0][0][:8, :8, 1])
    np.testing.assert_allclose(field[1, ..., 0], np.log2(1 + samples[0][2][:8, :8, 1]))


@pytest.mark.parametrize("dimensions, changed", [
    (2, {}), *(pytest.param(*case, marks=pytest.mark.slow) for case in [(3, {}), (2, {"prediction": "noise"})])])
def test_tiles_leave_no_seams_where_the_border_is_wide_enough(dimensions, changed):
    made, config = tiny(dimensions=dimensions, **changed)
    side, steps = {2: (24, 3), 3: (16, 1)}[dimensions]  # in 3D the first step has all that tiles can do wrong
    density = np.random.default_rng(0).lognormal(size=(side,) * dimensions).astype(np.float32)
    whole = sample.draw(made, config, density, 2, steps=steps, seed=4, tile=side + 2 * 12, context=12)
    tiled = sample.draw(made, config, density, 2, steps=steps, seed=4, tile=8 + 2 * 12, context=12)
    np.testing.assert_array_equal(whole, tiled)
    assert whole.shape == (2, *density.shape) and 0 < whole.mean() < 7 and (whole[0] != whole[1]).any()
    assert radius(config.levels) <= 12
    at_once = sample.draw(made, config, density, 2, steps=steps, seed=4)
    assert np.mean(at_once == whole) > 0.99  # a count may lie between two
    second, = sample.draw(made, config, density, 1, steps=steps, seed=4, first=1)
    assert np.mean(second == at_once[1]) > 0.99


def test_the_network_of_the_preset_paper_is_as_large_as_the_papers(tmp_path):
    made = model.VariationalDiffusion.of(preset(DiffusionConfig, "paper"))
    assert made.network.count_params() - 2 == 32_659_441  # the two numbers that standardise the density are no weights
    # A run that an earlier version trained has what it had then.
    (tmp_path / "config.json").write_text(json.dumps({"version": 4, "config": {"averaging": 0.9999}}))
    config = read(DiffusionConfig, tmp_path / "config.json")
    old = model.VariationalDiffusion.of(config)
    assert old.network.count_params() == 33_250_033 and old.standardised is None
    assert (config.norm_epsilon, config.slab_stride) == (1e-3, 0)


def test_fields_are_standardised_by_the_trainings_own(tmp_path):
    rng, config = np.random.default_rng(0), replace(preset(DiffusionConfig, "demo"), TINY | {"field": "count"})
    samples = [(rng.lognormal(size=(8, 8, 3)), np.zeros(0), rng.poisson(rate, (8, 8, 3)).astype(np.float32))
               for rate in (1.0, 3.0)]
    made = train.compiled(config, np.zeros((2, 0)), samples)
    field = np.stack([counts for *_, counts in samples])
    noised = np.asarray(made.noised(field))
    assert abs(noised.mean()) < 1e-5 and abs(noised.std() - 1) < 1e-5
    np.testing.assert_allclose(made.field_of(noised), field, atol=1e-5)
    layer = made.network.get_layer("standardised_density")
    logarithms = np.log1p([density for density, *_ in samples])
    np.testing.assert_allclose([layer.mean, layer.spread], [logarithms.mean(), logarithms.std()], rtol=1e-5)
    waves = made.network.get_layer("waves_of_the_field")
    given = np.stack([noised[..., 0], noised[..., 0]], axis=-1)  # of whole galaxies all have the same phase
    sines = np.asarray(waves(given))[..., [2 + 2 * 2, 2 + 2 * 3]]
    np.testing.assert_allclose(sines, np.broadcast_to(sines.reshape(-1, 2)[0], sines.shape), atol=1e-3)
    made.save_weights(tmp_path / "model.weights.h5")
    again = train.compiled(config, np.zeros((2, 0)))
    again.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(again.noised(field), noised)


def test_training_warns_where_the_noise_does_not_end_where_the_data_do(caplog):
    config = replace(preset(DiffusionConfig, "demo"), TINY | {"field": "count", "maximum": 63, "gamma_max": 8.0,
                                                              "gamma_min": -1.0})
    maps = np.random.default_rng(0).poisson(0.1, (8, 8, 50)).astype(np.float32)
    maps[0, 0, 0] = 40
    samples = [(np.ones_like(maps), np.zeros(0), maps)]
    train.check_ends(train.compiled(config, np.zeros((1, 0)), samples), config, samples)
    advice = [float(record.message.split("gamma_" + name + "=")[1].split()[0])
              for name, record in zip(("max", "min"), caplog.records)]
    spread = maps.std()
    # The richest is then a tenth of the noise, and from no galaxy half way to one are four standard deviations.
    np.testing.assert_allclose(advice, [2 * np.log(10 * (40 - maps.mean()) / spread), 2 * np.log(0.5 / spread / 4)],
                               atol=0.1)
    caplog.clear()
    ends = replace(config, {"gamma_max": advice[0], "gamma_min": advice[1]})
    train.check_ends(train.compiled(ends, np.zeros((1, 0)), samples), ends, samples)
    assert not caplog.records


def test_a_parameter_that_was_the_same_in_all_of_the_training_is_said_and_left_out(caplog, monkeypatch, tmp_path):
    config = replace(preset(DiffusionConfig, "demo"), TINY | {"parameters": "A_SN1,A_AGN1"})
    maps = np.ones((32, 32, 4), np.float32)
    rows = iter(np.array([[0.7, 1.0], [0.7, 3.0]], np.float32))
    monkeypatch.setattr(train, "load", lambda *given: (maps, next(rows), maps))
    monkeypatch.setattr(train, "described", lambda *given: {})
    monkeypatch.setattr(train.training, "train", lambda *given, **options: None)
    train.fit(["a", "b"], [], config, tmp_path, store=None)
    assert len(caplog.messages) == 1 and caplog.messages[0].startswith("A_SN1 is 0.7 in all simulations")
    layer = SimpleNamespace(mean=np.float32([[0.7, 2.0]]), variance=np.float32([[0.0, 1.0]]))
    network = SimpleNamespace(network=SimpleNamespace(get_layer=lambda name: layer))
    monkeypatch.setattr(sample, "draw", lambda *given, parameters, **options: np.full((2, 8, 8), parameters[1]))
    item = SimpleNamespace(parameters=np.float32([0.7, 2.0]), given=[np.ones((8, 8))], boxsize=10.0)
    found, notes = evaluate.response(SimpleNamespace(network=network, config=config, regressor=None), item, 2, {})
    assert notes == ["A_SN1 is 0.7 in all simulations of the training: what it does is not known"]
    assert list(found) == ["A_AGN1"] and found["A_AGN1"]["low"]["galaxies"] == 64
    assert found["A_AGN1"]["high"]["galaxies"] == 3 * 64


def test_slabs_may_overlap():
    box = np.random.default_rng(0).poisson(0.2, (12, 12, 12)).astype(np.float32)
    maps = data.slabs(box, 4, 1, stride=2)
    assert maps.shape == (12, 12, 6)
    for number in range(6):
        cells = np.arange(2 * number, 2 * number + 4) % 12
        np.testing.assert_array_equal(maps[..., number], box[:, cells].sum(axis=1))


def test_draws_in_fewer_steps_share_the_noise_of_those_in_more():
    made, config = tiny()
    for variable in made.network.trainable_variables:
        variable.assign(0 * variable)  # what the network does not see does not depend on the steps
    density = np.ones((16, 16), np.float32)
    options = {"seed": 3, "finest": 48}
    many, few, other = (sample.draw(made, config, density, 2, **given) for given in (
        {"steps": 48, **options}, {"steps": 24, **options}, {"steps": 24, "seed": 3}))
    assert np.mean(many != few) < 0.3 * np.mean(many != other)


def test_a_draw_is_the_same_whatever_else_is_drawn():
    made, config = tiny()
    density = np.random.default_rng(0).lognormal(size=(16, 16)).astype(np.float32)
    three, one = (sample.draw(made, config, density, draws, steps=4, seed=1) for draws in (3, 1))
    np.testing.assert_array_equal(three[:1], one)
    other = sample.draw(made, config, density, 1, steps=4, seed=2)
    assert (other != one).any()


def test_the_sampler_as_a_model_draws_what_the_sampler_draws():
    made, config = tiny(parameters="Om0", fourier=False)
    made.standardised.mean.assign(0.2)
    made.standardised.spread.assign(0.5)
    made.calibration = calibration.Calibration(np.array([4.0, 0.0]), np.array([-0.2, 0.1, 1.0]),
                                               np.array([[0.0, 0.2, 1.1], [0.1, 0.2, 0.8]]))
    density = np.random.default_rng(0).lognormal(size=(16, 16)).astype(np.float32)
    drawn = sample.draw(made, config, density, 1, steps=5, sampler="deterministic", seed=3, parameters=[0.3], tile=16,
                        context=0)  # without what lies beyond the faces, as the model has it
    noise = np.random.default_rng([3, 0]).standard_normal(density.shape, np.float32)
    given = [density[None, ..., None], noise[None, ..., None], np.array([[0.3]], np.float32)]
    found = sample.sampler_model(made, 5)(given)
    assert np.mean(np.asarray(found)[0, ..., 0] == drawn[0]) > 0.99  # a count may lie between two


def test_a_calibration_is_linear_between_what_was_measured():
    gammas, expected = np.array([4.0, 0.0]), np.array([-0.2, 0.2, 1.0])
    true = np.array([[0.0, 0.1, 1.2], [0.1, 0.1, 1.0]])
    found = calibration.Calibration(gammas, expected, true)
    field = np.float32([-3, -0.2, 0.0, 0.6, 1.0, 10.0])
    first, last = (np.append(np.interp(field[:-1], expected, row), row[-1] + 9) for row in true)
    for gamma, mean in ((4.0, first), (9.0, first), (-1.0, last), (1.0, 0.25 * first + 0.75 * last)):
        np.testing.assert_allclose(found(field, gamma), mean, rtol=1e-6, atol=1e-6)


def test_a_calibration_finds_what_a_biased_estimate_stands_for(tmp_path, monkeypatch):
    """Half of the cells are known to hold 0.3 galaxies on average and are taken for 0.65, the others for -0.04."""
    monkeypatch.setattr(calibration, "CELLS", 2**18)
    made, config = tiny(field="count")
    rng = np.random.default_rng(0)
    chance = np.where(np.arange(64) % 2, 0.3, 0.0)[:, None, None] * np.ones((64, 64, 4))
    maps = (rng.random(chance.shape) < chance).astype(np.float32)
    said = np.float32(np.where(chance > 0, 0.65, -0.04))

    def find(density, parameters):
        def denoise(z, gamma):
            alpha, sigma = np.array([vdm.parts(value) for value in gamma]).T
            return (z - alpha * np.asarray(made.noised(density))[..., None]) / sigma
        return denoise

    found = calibration.measure(find, made, config, [[(said, np.zeros(0), maps)], []])
    assert len(found.gammas) == calibration.STEPS + 1 and found.gammas[-1] == pytest.approx(config.gamma_min)
    for gamma in (config.gamma_max, 0.3, config.gamma_min):
        np.testing.assert_allclose(found(np.float32([-0.04, 0.65]), gamma), [0, 0.3], atol=4 * 0.46 / np.sqrt(8192))
        np.testing.assert_allclose(found(np.float32([1.5, 30]), gamma), [1.5, 30], rtol=1e-6)  # rich cells stay
    calibration.write(found, tmp_path)
    np.testing.assert_allclose(calibration.read(tmp_path).true, found.true, atol=1e-6)
    assert calibration.read(tmp_path / "nowhere") is None
    for broken in ("[]", "{}", json.dumps({"gammas": [1], "expected": [0, 1], "true": [[0]]}),
                   json.dumps({"gammas": [1], "expected": [1, 0], "true": [[0, 1]]})):
        (tmp_path / calibration.FILE).write_text(broken)
        with pytest.raises(DamagedError, match="does not hold a calibration"):
            calibration.read(tmp_path)
    nothing = calibration.measure(find, made, config, [[], [(said[:2, :2, :1], np.zeros(0), maps[:2, :2, :1])]])
    assert nothing is None


def test_draws_are_put_right_by_the_calibration():
    """A network that says nothing of galaxies draws as many as its calibration says that there are."""
    made, config = tiny(field="count", gamma_max=14.0)
    for variable in made.network.trainable_variables:
        variable.assign(0 * variable)
    density = np.ones((64, 64), np.float32)
    for rate in (0.05, 0.4):
        made.calibration = calibration.Calibration(np.array([14.0]), np.array([-9.0, 9.0]), np.array([[rate, rate]]))
        drawn = sample.draw(made, config, density, 4, steps=10, sampler="multistep", seed=1)
        assert abs(drawn.mean() / rate - 1) < 4 / np.sqrt(rate * drawn.size) + 0.02, rate


def test_samplers_are_compared_on_all_maps_with_common_noise(monkeypatch):
    made, config = tiny()
    monkeypatch.setattr(evaluate, "STUDY", {"ancestral": (8, 4), "multistep": (8,), "deterministic": (8,)})
    rng = np.random.default_rng(0)
    maps = [rng.lognormal(size=(16, 16)).astype(np.float32) for _ in range(3)]
    item = evaluate.Sample(16.0, maps, [rng.poisson(0.5, (16, 16)) for _ in maps], {}, np.empty(0))
    run = SimpleNamespace(network=made, config=config)
    found = evaluate.steps_study(run, [item], {"seed": 0, "steps": 3, "sampler": "ancestral", "tile": None})
    assert found["maps"] == 3 and found["ancestral"][0]["residual"] == 0 and found["ancestral"][0]["power"] == 1
    assert 0 < found["ancestral"][1]["residual"] and 0 < found["deterministic"][0]["power_error"]
    values, others = rng.normal(5, 1, 1000), rng.normal(5, 1, 1000)
    ratio, error = evaluate.ratio_of_sums(values, others)
    np.testing.assert_allclose([ratio, error], [values.mean() / others.mean(), 0.2 * np.sqrt(2 / 1000)], rtol=0.1)


RUN = ("runs", "target")


def samples_of(rng, bias, maps=40, draws=16):
    rate = rng.uniform(0.2, 2, (maps, 32, 32))
    return [evaluate.Sample(10.0, list(rate), list(rng.poisson(rate * bias).astype(float)),
                            {RUN: [rng.poisson(each, (draws, 32, 32)).astype(float) for each in rate]},
                            np.empty(0))]


def test_ranks_are_even_for_a_calibrated_model_and_for_no_other():
    rng = np.random.default_rng(0)
    values = [evaluate.evenness(evaluate.ranks(samples_of(rng, 1.0), RUN, seed=seed)[0], 16)[2] for seed in range(10)]
    assert min(values) > 1e-3 and np.mean(values) > 0.1
    assert evaluate.evenness(evaluate.ranks(samples_of(rng, 1.1), RUN)[0], 16)[2] < 1e-6


def test_ranks_of_blocks_that_share_a_column_are_not_counted_twice():
    rng, values, naive = np.random.default_rng(2), [], []
    for _ in range(200):
        places = rng.integers(0, 17, 150)
        _, _, p, effect = evaluate.evenness(np.repeat(places, 3), 16, columns=np.repeat(np.arange(150), 3))
        values.append(p)
        naive.append(evaluate.evenness(np.repeat(places, 3), 16)[2])
        assert 2 < effect < 4
    assert 0.04 < np.mean(np.array(values) < 0.1) < 0.2 and np.mean(np.array(naive) < 0.1) > 0.5
    independent = [evaluate.evenness(rng.integers(0, 17, 450), 16, columns=np.repeat(np.arange(150), 3))
                   for _ in range(100)]
    assert 0.03 < np.mean([p < 0.1 for *_, p, _ in independent]) < 0.2
    assert abs(np.mean([effect for *_, effect in independent]) - 1) < 0.05


def test_spectra_and_correlations_are_those_of_known_fields():
    rng = np.random.default_rng(1)
    item = samples_of(rng, 1.0, maps=6)[0]
    item.drawn[HALO_MODEL] = [np.stack([field] * 2) for field in item.truth]  # the truth itself
    wave, mean, scatter, error = evaluate.spectra([item], RUN)
    np.testing.assert_allclose(mean[HALO_MODEL], mean[TRUTH])
    # White: Poisson noise and a rate without structure have the variance times the area of a cell.
    expected = np.var(item.truth) / np.mean(item.truth)**2 * (10 / 32)**2
    assert abs(mean[TRUTH].mean() / expected - 1) < 0.1 and (scatter > 0).all() and scatter.shape == wave.shape
    level = np.mean(item.truth)
    each = [statistics.power_spectrum(field / level, item.boxsize)[1] for field in item.truth]
    np.testing.assert_allclose(error, stats.sem(each))
    r = evaluate.correlation([item], RUN)
    np.testing.assert_allclose(r[HALO_MODEL], 1)
    assert abs(r[SHUFFLED].mean()) < 0.1 < r[RUN].mean()
    found = evaluate.occupation([item], HALO_MODEL)
    assert found["recall"] == found["precision"] == found["accuracy"] == 1


def test_draws_without_a_galaxy_can_be_drawn(tmp_path):
    """A run of which nothing comes out still has its figure, with empty lines."""
    from kerasgal.apps.cascade.diffusion import figures

    k, nothing = np.geomspace(0.1, 5, 6), {"power": [0.0] * 6, "galaxies": 0, "value": 0.3}
    with np.errstate(invalid="ignore"):
        drawing = figures.response(k, {"Om0": {"low": nothing, "high": nothing}})
    drawing.savefig(tmp_path / "response.png")
    assert (tmp_path / "response.png").stat().st_size > 1000
