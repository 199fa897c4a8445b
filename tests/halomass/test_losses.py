"""The likelihood against the original's printed formulae, SciPy and finite differences, all in float64."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats
from scipy.integrate import fixed_quad

from kerasgal.apps.halomass.losses import CAP, LIKELIHOODS, SelectionLikelihood, negative_log_likelihood

SCALES = {"cauchy": (0.2,), "gaussian": (0.4,), "laplace": (0.3,), "two_sided_cauchy": (0.15, 0.4),
          "student_t": (0.25, 2.6)}
D = np.linspace(-1, 1, 9)
Y = np.linspace(-2, 2, 33)
GAMMA = np.array([0.02, 0.2, 1.0, 3.0])


def papers_cauchy(d, y, gamma):
    """Eqs. 5 and 6 with alpha and beta as the authors print them, for a selection of [-1, 1]."""
    inside = (np.log(gamma) + np.log(1 + ((d - y) / gamma)**2)
              + np.log(np.arctan((1 - np.clip(y, -1, 1)) / gamma) - np.arctan((-1 - np.clip(y, -1, 1)) / gamma)))
    b = np.sign(y)
    pull = b * (d - b) / ((d - b)**2 + gamma**2)
    edge = 2 / ((4 * gamma + gamma**3) * np.arctan(2 / gamma))
    alpha = -np.exp(1 + np.e) / 2 - pull - edge
    beta = (0.5 * (np.e - 2) * np.exp(np.e) + pull + edge + np.log(1 + (d - b)**2 / gamma**2) + np.log(gamma)
            + np.log(np.arctan(2 / gamma)))
    return np.where(np.abs(y) <= 1, inside, np.exp(np.exp(np.abs(y))) + alpha * y**2 + beta)


def loss(d, y, scales, name="cauchy", low=-1.0, high=1.0, dtype="float64"):
    d, y, *scales = (tf.constant(np.asarray(value, dtype)) for value in (d, y, *scales))
    return negative_log_likelihood(d, y, scales, name, low, high)


def test_the_cauchy_loss_is_the_papers():
    d, y, gamma = np.meshgrid(D, Y, GAMMA, indexing="ij")
    expected = papers_cauchy(d, y, gamma)
    np.testing.assert_allclose(loss(d, y, [gamma]), expected, rtol=1e-12, atol=1e-12)
    single = loss(d, y, [gamma], dtype="float32").numpy()
    rounded = papers_cauchy(*(value.astype("f4").astype("f8") for value in (d, y, gamma)))
    assert single.dtype == np.float32
    inside = np.abs(y) <= 1
    np.testing.assert_allclose(single[inside], rounded[inside], rtol=1e-6, atol=1e-6)
    # Outside, rounding exp(exp(|y|)) alone costs a few units of the last place times exp(|y|).
    np.testing.assert_allclose(single[~inside], rounded[~inside], rtol=2e-6, atol=2e-6 * np.exp(np.e))


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_any_likelihood_is_normalised_over_the_selection(name):
    for low, high in ((-1.0, 1.0), (-0.5, 2.0)):
        for y in (low, -0.2, 0.7, high, low - 1, high + 1):
            inner = min(max(y, low), high)

            def density(d, inner=inner, low=low, high=high):
                return np.exp(-loss(d, inner, SCALES[name], name, low, high).numpy())

            total = sum(fixed_quad(density, *ends, n=100)[0] for ends in ((low, inner), (inner, high)))
            assert total == pytest.approx(1, abs=2e-7)


def test_likelihoods_are_scipys():
    def expected(law, y):
        return -(law.logpdf(D) - np.log(law.cdf(1) - law.cdf(-1)))

    for y in (-0.9, 0.0, 0.4, 1.0):
        for name, law in (("cauchy", stats.cauchy(y, 0.2)), ("gaussian", stats.norm(y, 0.4)),
                          ("laplace", stats.laplace(y, 0.3)), ("student_t", stats.t(2.6, y, 0.25))):
            np.testing.assert_allclose(loss(D, y, SCALES[name], name), expected(law, y), rtol=2e-7, atol=2e-7)


@pytest.mark.parametrize("nu", [1.0, 1.05, 1.5, 4.0, 30.0])
@pytest.mark.parametrize("gamma", [0.03, 0.3, 2.0])
def test_students_normalisation_holds_for_any_scales(nu, gamma):
    for y in (-1.0, 0.3, 1.0):
        law = stats.t(nu, y, gamma)
        expected = -(law.logpdf(D) - np.log(law.cdf(1) - law.cdf(-1)))
        np.testing.assert_allclose(loss(D, y, (gamma, nu), "student_t"), expected, rtol=1e-6, atol=1e-6)


def test_limits_of_the_general_likelihoods():
    np.testing.assert_allclose(loss(D, 0.3, (0.2, 0.2), "two_sided_cauchy"), loss(D, 0.3, (0.2,)), rtol=1e-12)
    np.testing.assert_allclose(loss(D, 0.3, (0.2, 1.0), "student_t"), loss(D, 0.3, (0.2,)), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", LIKELIHOODS)
@pytest.mark.parametrize("low, high", [(-1.0, 1.0), (-0.5, 2.0), (3.0, 3.5)])
def test_value_and_slope_meet_at_the_boundary(name, low, high):
    d = np.linspace(low, high, 8)[1:-1]
    for edge, outwards in ((low, -1), (high, 1)):
        y = tf.Variable(np.full(len(d), edge))

        def value_and_slope(shift):
            with tf.GradientTape() as tape:
                value = loss_of(y + shift)
            return value.numpy(), tape.gradient(value, y).numpy()

        def loss_of(at):
            return negative_log_likelihood(tf.constant(d), at, [tf.constant(s, tf.float64) for s in SCALES[name]], name,
                                           low, high)

        tiny = 1e-9 * (high - low)
        inside, outside = value_and_slope(-tiny * outwards), value_and_slope(tiny * outwards)
        np.testing.assert_allclose(inside[0], outside[0], atol=1e-6)
        np.testing.assert_allclose(inside[1], outside[1], rtol=1e-5, atol=1e-5)
        # In half widths of the selection the wall is the same wherever the selection is.
        assert np.all(loss_of(y + 0.5 * outwards * (high - low) / 2).numpy() > inside[0] + 5)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_the_gradient_is_that_of_finite_differences(name):
    d, y = (grid.ravel() for grid in np.meshgrid([-1.0, -0.31, 0.52, 1.0], [-1.7, -0.93, -0.2, 0.46, 1.2]))
    points = [tf.Variable(y), *(tf.Variable(np.full(len(y), scale)) for scale in SCALES[name])]

    def value():
        return negative_log_likelihood(tf.constant(d), points[0], points[1:], name)

    with tf.GradientTape() as tape:
        total = value()
    for point, gradient in zip(points, tape.gradient(total, points)):
        kept, step = point.numpy(), 1e-6
        point.assign(kept + step)
        above = value().numpy()
        point.assign(kept - step)
        below = value().numpy()
        point.assign(kept)
        np.testing.assert_allclose(gradient, (above - below) / (2 * step), rtol=2e-6, atol=1e-6)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_it_is_finite_for_any_prediction_in_float32(name):
    y = tf.Variable(np.array([-1e6, -50, -4.6, -1, 0, 1, 3, 4.6, 30, 1e6], "f4"))
    scales = [tf.Variable(np.full(10, scale, "f4")) for scale in SCALES[name]]
    with tf.GradientTape() as tape:
        value = negative_log_likelihood(tf.constant(0.9), y, scales, name)
    assert value.dtype == tf.float32 and np.isfinite(value).all()
    for gradient in tape.gradient(value, [y, *scales]):
        assert np.isfinite(gradient).all()
    assert np.all(np.diff(value[:4]) < 0) and np.all(np.diff(value[-4:]) > 0)


def test_beyond_the_cap_it_is_the_tangent():
    d, gamma = 0.2, (0.2,)
    values = loss(d, CAP + np.array([-1e-4, 0, 1e-4, 1.0, 2.0]), gamma).numpy()
    slope = np.exp(CAP + np.exp(CAP))
    assert values[4] - values[3] == pytest.approx(slope, rel=1e-6)
    assert values[2] - values[1] == pytest.approx(slope * 1e-4, rel=1e-6)
    assert values[1] - values[0] == pytest.approx(slope * 1e-4, rel=2e-3)


def test_the_loss_object_is_float32_and_survives_its_configuration():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        made = SelectionLikelihood("student_t", -1.0, 2.0)
    finally:
        keras.config.set_dtype_policy("float32")
    made = SelectionLikelihood.from_config(made.get_config())
    predicted = np.array([[0.1, 0.25, 2.6], [1.4, 0.25, 2.6]])
    result = made(np.array([[0.3], [-0.8]]), predicted)
    expected = loss([0.3, -0.8], predicted[:, 0], (0.25, 2.6), "student_t", -1.0, 2.0).numpy().mean()
    assert result.dtype == "float32" and float(result) == pytest.approx(expected, rel=1e-6)
