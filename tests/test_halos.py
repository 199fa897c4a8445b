import sys
import tracemalloc

import numpy as np
import pytest
import scipy.sparse
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from kerasgal import nbody, simulate
from kerasgal.errors import DataError
from kerasgal.halos import catalogue, friends_of_friends, hop, number_by_size

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


def scipys(position, boxsize, linking_length, minimum):
    """Friends of friends from SciPy's list of pairs and their connected components."""
    length = linking_length * boxsize / len(position)**(1 / 3)
    pairs = cKDTree(position, boxsize=boxsize).query_pairs(length, output_type="ndarray")
    links = scipy.sparse.coo_array((np.ones(len(pairs), bool), pairs.T), shape=(len(position),) * 2)
    return number_by_size(connected_components(links, directed=False)[1], minimum)


@pytest.mark.parametrize("linking_length", [0.05, 0.2, 0.5, 0.8, 2.0, 5.0, 12.0, 40.0])
def test_fof_is_scipys_list_of_pairs(clumps, rng, linking_length):
    """From no friends at all to cells as wide as the box; clumps across a face, an edge and the corner."""
    position = clumps[0]
    position[600:700] = rng.normal([0, 25, 40], 0.4, (100, 3)) % BOXSIZE
    position[700:800] = rng.normal([25, 0, BOXSIZE], 0.4, (100, 3)) % BOXSIZE
    for minimum in (1, 2, 20):
        np.testing.assert_array_equal(friends_of_friends(position, BOXSIZE, linking_length, minimum),
                                      scipys(position, BOXSIZE, linking_length, minimum))


def test_fof_links_at_the_linking_length_and_not_beyond():
    boxsize, side = 64.0, 4  # 64 particles: the linking length is 0.25 * 64 / 4 = 4, exactly
    step = np.array([[4.0, 0, 0], [0, 4.0, 0], [0, 0, 4.0], [0, 0, -4.0]])
    lattice = np.stack(np.meshgrid(*[np.arange(side) * 16.0] * 3, indexing="ij"), -1).reshape(-1, 3)
    for at in ([11.0, 11.0, 11.0], [62.0, 61.0, 63.0], [12.0, 60.0, 0.0]):
        for offset in step:
            position = lattice + 5  # none within 4 of the pairs below
            position[7], position[40] = at, (at + offset) % boxsize
            expected = np.full(64, -1)
            expected[[7, 40]] = 0
            np.testing.assert_array_equal(friends_of_friends(position, boxsize, 0.25, minimum=2), expected)
            position[40] = (at + offset * (1 + 1e-9)) % boxsize
            assert friends_of_friends(position, boxsize, 0.25, minimum=2).max() == -1


def test_fof_of_a_lattice_at_the_linking_length_is_one_halo():
    lattice = np.stack(np.meshgrid(*[np.arange(8) * 8.0] * 3, indexing="ij"), -1).reshape(-1, 3)
    assert (friends_of_friends(lattice, 64.0, 1.0) == 0).all()
    assert (friends_of_friends(lattice, 64.0, 1 - 1e-9) == -1).all()


def test_fof_makes_no_list_of_pairs(rng):
    """5,000 particles in one spot are 12 million pairs, of 16 bytes each in SciPy's list."""
    position = np.concatenate([rng.normal(10, 0.01, (5000, 3)), rng.uniform(0, BOXSIZE, (5000, 3))])
    friends_of_friends(position, BOXSIZE)  # compiled before it is measured
    tracemalloc.start()
    assert (friends_of_friends(position, BOXSIZE)[:5000] == 0).all()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    columns = (10000**(1 / 3) / 0.2)**2
    assert peak < 150 * 10000 + 30 * columns


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
    monkeypatch.setattr(nbody, "evolve", lambda *given, **options: pytest.fail("simulated before"))
    for call in (lambda: hop(clumps[0], BOXSIZE), lambda: simulate(particles=8, finder="hop")):
        with pytest.raises(DataError, match=r"kerasgal\[hop\]"):
            call()


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
