"""Channels of the initial density against closed forms, linear algebra, and themselves in a box that was turned."""

import numpy as np
import pytest

import kerasgal as kg
from kerasgal.channel_names import CHANNELS, count, names_of, vector_of
from kerasgal.channels import initial_channels, tidal_tensor
from kerasgal.pipeline import patches, tiles
from kerasgal.readers.lagrangian import linear_density


def noise(n, seed=0):
    delta = np.random.default_rng(seed).normal(size=(n, n, n))
    return (delta - delta.mean()).astype("f4")


def test_channels_are_those_of_a_plane_wave():
    n, boxsize = 16, 40.0
    k = 2 * np.pi / boxsize * 2
    x = (np.arange(n) + 0.5) * boxsize / n
    delta = np.broadcast_to(np.cos(k * x)[None, :, None], (n, n, n)).astype("f4")
    made = initial_channels(delta, boxsize, CHANNELS)
    np.testing.assert_array_equal(made[..., 0], delta)
    np.testing.assert_allclose(made[..., 1], -delta / k**2, atol=1e-4)
    # Matter leaves where the density is low: displacement -grad phi = -sin(k y) / k along y.
    expected = np.broadcast_to(-np.sin(k * x)[None, :, None] / k, (n, n, n))
    np.testing.assert_allclose(made[..., 3], expected, atol=1e-4)
    np.testing.assert_allclose(made[..., [2, 4]], 0, atol=1e-4)
    # The tensor is delta along y alone; less its trace it is delta diag(-1, 2, -1) / 3.
    np.testing.assert_allclose(made[..., 5], np.sqrt(6 / 9) * np.abs(delta), atol=1e-5)
    np.testing.assert_allclose(made[..., 6], np.cbrt(6 / 27) * delta, atol=1e-5)


def test_the_trace_of_the_tidal_tensor_is_the_density_and_its_invariants_are_of_its_eigenvalues():
    delta = noise(16)
    tensor = np.empty((16, 16, 16, 3, 3))
    for i, j, part in tidal_tensor(delta):
        tensor[..., i, j] = tensor[..., j, i] = part
    np.testing.assert_allclose(np.trace(tensor, axis1=3, axis2=4), delta, atol=1e-5)
    value = np.linalg.eigvalsh(tensor)
    value -= value.mean(axis=-1, keepdims=True)
    invariants = initial_channels(delta, 25.0, ["tide"])
    np.testing.assert_allclose(invariants[..., 0], np.sqrt((value**2).sum(-1)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(invariants[..., 1]**3, (value**3).sum(-1), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(initial_channels(5 * delta, 25.0, ["tide"]), 5 * invariants, rtol=1e-3, atol=1e-4)


def test_what_a_network_sees_of_a_turned_patch_are_the_channels_of_the_turned_density():
    names = ("potential", "displacement", "density", "tide")
    made = initial_channels(noise(8), 10.0, names)
    assert count(names) == made.shape[-1] == 7 and vector_of(names) == 1
    target = made[..., 4:5]
    stream = patches([(made, target)], [tiles(8, 8)], 8, 4, seed=3, symmetries="reflections", vector=vector_of(names))
    for turned, turned_target in list(stream.take(3)):
        for one, other in zip(np.asarray(turned), np.asarray(turned_target)):
            np.testing.assert_array_equal(one[..., 4], other[..., 0])
            np.testing.assert_allclose(one, initial_channels(one[..., 4], 10.0, names), atol=1e-3)


def test_the_displacement_channel_is_the_files_own_but_for_the_second_order():
    """So there is no channel of the file's own: it would be the same to some per cent, and missing from arrays."""
    with kg.simulate(particles=32, boxsize=25.0, seed=1) as box:
        own = box["initial/displacement"][...]
        assert 0.01 < away(initial_channels(box.delta(), 25.0, ["displacement"]), own) < 0.03
    # The density that `convert` makes is the divergence of the file's displacement, which FFTs lead back to.
    assert away(initial_channels(linear_density(own, 25.0), 25.0, ["displacement"]), own) < 0.01


def away(made, own):
    """Root mean square of a difference, over that of what it is from."""
    return np.sqrt(np.mean((made - own)**2) / np.mean(own**2))


@pytest.mark.parametrize("text", ["", "density,", "density,density", "tides", "density;tide"])
def test_channels_that_are_none_are_refused(text):
    with pytest.raises(kg.SettingError, match="accepted are density, potential, displacement, tide, each at most once"):
        names_of(text)
    for app in ("protohalo", "halomass"):
        with pytest.raises(kg.SettingError, match="channels="):
            kg.registry.run_class(app).configure(preset="demo", channels=text)
