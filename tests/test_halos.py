import sys

import numpy as np
import pytest

from kerasgal.errors import DataError
from kerasgal.halos import catalogue, friends_of_friends, hop

BOXSIZE = 50.0


@pytest.fixture
def rng():
    return np.random.default_rng(5)


@pytest.fixture
def clumps(rng):
    """Positions and true halo: 300 particles at the box's corner, 200 at (20, 20, 20), 1000 anywhere."""
    truth = np.repeat([-1, 1, 0, -1], [500, 200, 300, 500]).astype(np.int32)
    position = rng.uniform(0, BOXSIZE, (1500, 3))
    position[truth == 0] = rng.normal(0, 0.3, (300, 3)) % BOXSIZE
    position[truth == 1] = rng.normal(20, 0.3, (200, 3))
    return position, truth


def brute_force(position, length):
    """Friends of friends from all distances, by merging labels pair by pair."""
    separation = np.abs(position[:, None] - position)
    separation = np.minimum(separation, BOXSIZE - separation)
    group = np.arange(len(position))
    for i, j in zip(*np.nonzero((separation**2).sum(-1) <= length**2)):
        group[group == group[j]] = group[i]
    return group


def test_fof_finds_two_clumps_one_across_the_corner(clumps):
    position, truth = clumps
    found = friends_of_friends(position, BOXSIZE)
    assert found.dtype == np.int32
    assert found.max() == 1
    # A few of the background fall into the clumps, and a few outliers of the clumps stay out.
    for halo in (0, 1):
        assert (found[truth == halo] == halo).mean() > 0.9
    assert (found[truth == -1] == -1).mean() > 0.98


def test_fof_is_the_brute_force_union(rng):
    position = rng.uniform(0, BOXSIZE, (300, 3))
    linking_length = 0.6  # near percolation: groups of all sizes
    group = brute_force(position, linking_length * BOXSIZE / 300**(1 / 3))
    found = friends_of_friends(position, BOXSIZE, linking_length, minimum=3)
    members = [np.flatnonzero(group == label) for label in np.unique(group)]
    members = sorted((m for m in members if len(m) >= 3), key=lambda m: (-len(m), m[0]))
    assert len(members) > 5 and len(members[0]) > len(members[-1])
    expected = np.full(300, -1)
    for number, member in enumerate(members):
        expected[member] = number
    np.testing.assert_array_equal(found, expected)


def test_fof_does_not_see_the_box_edge(clumps):
    position, _ = clumps
    reference = friends_of_friends(position, BOXSIZE)
    for shift in ([BOXSIZE / 2, 0, 0], [1.0, -7.0, 33.3], [-2 * BOXSIZE, BOXSIZE, 0]):
        np.testing.assert_array_equal(friends_of_friends(position + shift, BOXSIZE), reference)
    np.testing.assert_array_equal(friends_of_friends(np.float32(position), BOXSIZE), reference)


def test_equal_haloes_are_numbered_by_their_first_particle():
    clump = np.linspace(0, 0.1, 25)[:, None] * np.ones(3)
    position = np.concatenate([clump + 40, clump + 10, clump[:24] + 25, clump + 0])
    expected = np.repeat([0, 1, 3, 2], [25, 25, 24, 25])
    np.testing.assert_array_equal(friends_of_friends(position, BOXSIZE), expected)
    expected[expected == 3] = -1
    np.testing.assert_array_equal(friends_of_friends(position, BOXSIZE, minimum=25), expected)


def test_hop_finds_the_clumps(clumps):
    pytest.importorskip("yt_astro_analysis")
    position, truth = clumps
    found = hop(position, BOXSIZE)
    assert found.dtype == np.int32 and found.shape == truth.shape
    assert found.max() == 1
    for halo in (0, 1):
        assert (found[truth == halo] == halo).mean() > 0.9
    assert (found[truth == -1] == -1).mean() > 0.98


def test_hop_says_what_to_install(clumps, monkeypatch):
    monkeypatch.setitem(sys.modules, "yt_astro_analysis.halo_analysis.halo_finding.hop.EnzoHop", None)
    with pytest.raises(DataError, match=r"kerasgal\[hop\]"):
        hop(clumps[0], BOXSIZE)


def test_catalogue_of_a_clump_across_the_boundary(clumps):
    position, truth = clumps
    halos = catalogue(truth, position, BOXSIZE, particle_mass=2e10)
    np.testing.assert_array_equal(halos["count"], [300, 200])
    assert halos["count"].dtype == np.int64
    np.testing.assert_allclose(halos["mass"], [6e12, 4e12])
    # Unwrapped by hand, the clump's centre of mass is a plain mean.
    unwrapped = position[truth == 0]
    unwrapped = np.where(unwrapped > BOXSIZE / 2, unwrapped - BOXSIZE, unwrapped)
    np.testing.assert_allclose(halos["position"][0], unwrapped.mean(0) % BOXSIZE, atol=1e-9)
    np.testing.assert_allclose(halos["position"][1], position[truth == 1].mean(0), atol=1e-9)
    assert (halos["position"] >= 0).all() and (halos["position"] < BOXSIZE).all()
    mean_density = 1500 * 2e10 / BOXSIZE**3
    np.testing.assert_allclose(4 / 3 * np.pi * halos["radius"]**3 * 200 * mean_density, halos["mass"])


def test_catalogue_without_haloes(rng):
    position = rng.uniform(0, BOXSIZE, (100, 3))
    halos = catalogue(friends_of_friends(position, BOXSIZE), position, BOXSIZE, particle_mass=1e10)
    assert {name: value.shape for name, value in halos.items()} == {
        "mass": (0,), "position": (0, 3), "radius": (0,), "count": (0,)}
