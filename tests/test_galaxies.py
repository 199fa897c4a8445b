"""Painted galaxies: where they stand in their haloes, how many a halo has, and what the command writes."""

import re

import h5py
import numpy as np
import pytest
from colossus.cosmology import cosmology
from colossus.halo.profile_nfw import NFWProfile
from scipy import stats
from scipy.special import erf

from kerasgal import galaxies
from kerasgal.galaxies import GalaxyModel
from kerasgal.halos import catalogue
from kerasgal.simulation import Simulation

BOXSIZE = 50.0
PARTICLE = 2e10
BLIND = GalaxyModel(environment_minimum=0, environment_first=0)


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def haloes_of_particles(centre, halo, offset, background=0, rng=None):
    """Halo of each particle, positions and catalogue of haloes around `centre`, among particles in none."""
    position = centre[halo] + offset
    if background:
        position = np.concatenate([position, rng.uniform(0, BOXSIZE, (background, 3))])
    halo_id = np.concatenate([halo, np.full(background, -1)]).astype(np.int32)
    # Multiples of 2^-12, which float32 can shift without rounding
    position = (np.rint(position * 4096) / 4096 % BOXSIZE).astype(np.float32)
    return halo_id, position, catalogue(halo_id, position, BOXSIZE, PARTICLE)


@pytest.fixture
def round_haloes(rng):
    """400 haloes of 100 to 20 particles, round, one of them in the corner of the box, and 20,000 particles in none."""
    count = np.linspace(100, 20, 400).astype(int)
    centre = rng.uniform(0, BOXSIZE, (400, 3))
    centre[0] = 0
    halo = np.repeat(np.arange(400), count)
    return haloes_of_particles(centre, halo, rng.normal(0, 0.1, (len(halo), 3)), 20_000, rng)


def distance(first, second):
    offset = first - second
    return np.linalg.norm(offset - BOXSIZE * np.rint(offset / BOXSIZE), axis=-1)


@pytest.mark.parametrize("c", [3.0, 12.0])
def test_radii_follow_the_enclosed_mass_of_an_nfw_halo(rng, c):
    cosmology.setCosmology("planck18", persistence="")
    halo = NFWProfile(M=1e13, c=c, z=0.0, mdef="200m")
    radius = halo.RDelta(0.0, "200m")  # kpc/h
    identity = np.broadcast_to(np.eye(3), (20_000, 3, 3))
    offset = galaxies.satellite_offsets(np.full(20_000, radius), np.full(20_000, c), identity, rng)
    drawn = np.linalg.norm(offset, axis=1)
    assert drawn.max() <= radius
    assert stats.kstest(drawn, lambda r: halo.enclosedMass(r) / 1e13).pvalue > 0.01
    for cosine in (offset / drawn[:, None]).T:  # of the angle to each axis: evenly spread for random directions
        assert stats.kstest(cosine, stats.uniform(-1, 2).cdf).pvalue > 0.01


def test_satellites_have_the_shape_of_the_particles(rng):
    """Ellipsoids turned at random: satellites and particles have the same axes, in direction and in ratio."""
    turn = np.linalg.qr(rng.standard_normal((2, 3, 3)))[0]
    axes = np.array([[2.0, 1.0, 0.7], [1.0, 1.0, 0.5]])
    halo = np.repeat([0, 1], 10_000)
    offset = rng.normal(0, 0.2, (20_000, 3)) * axes[halo]
    centre = np.array([[0.1, 25.0, 49.9], [10.0, 10.0, 10.0]])
    halo_id, position, _ = haloes_of_particles(centre, halo, np.einsum("hij,hj->hi", turn[halo], offset))
    stretch = galaxies.stretches(centre, halo_id, position, BOXSIZE)
    np.testing.assert_allclose(np.linalg.det(stretch), 1)
    satellite = np.repeat([0, 1], 40_000)
    drawn = galaxies.satellite_offsets(np.ones(80_000), np.full(80_000, 5.0), stretch[satellite], rng)
    for which in (0, 1):
        in_axes = drawn[satellite == which] @ turn[which]
        size = np.sqrt(np.mean(in_axes**2, axis=0))
        np.testing.assert_allclose(size / np.cbrt(size.prod()), axes[which] / np.cbrt(axes[which].prod()), rtol=0.03)
        np.testing.assert_allclose(np.corrcoef(in_axes.T), np.eye(3), atol=0.03)
        # Stretched back, all are inside the sphere.
        back = np.linalg.solve(stretch[which], drawn[satellite == which].T)
        assert np.linalg.norm(back, axis=0).max() <= 1 + 1e-9


def test_few_particles_look_rounder_than_they_are(rng):
    halo = np.repeat([0, 1], [5000, 20])
    offset = rng.normal(0, 0.2, (5020, 3)) * [3, 1, 1]
    centre = np.full((2, 3), 25.0)
    halo_id, position, _ = haloes_of_particles(centre, halo, offset)
    large, small = np.linalg.eigvalsh(galaxies.stretches(centre, halo_id, position, BOXSIZE))
    assert large[2] / large[0] == pytest.approx(3, rel=0.1)
    assert 1 < small[2] / small[0] < 2.5


def test_the_centre_of_a_merging_halo_is_its_denser_part(rng):
    """Two clumps in one halo, across a face of the box: the centre of mass is between them."""
    offset = np.concatenate([rng.normal(0, 0.05, (600, 3)), rng.normal(0, 0.15, (500, 3)) + [1.0, 0, 0]])
    offset = np.concatenate([offset, rng.normal(0, 0.3, (20, 3))])
    centre = np.array([[49.6, 0.0, 20.0], [25.0, 25.0, 25.0]])
    halo_id, position, halos = haloes_of_particles(centre, np.repeat([0, 1], [1100, 20]), offset)
    found = galaxies.centres(halos, halo_id, position, BOXSIZE)
    assert distance(halos["position"], centre)[0] > 0.3
    assert distance(found, centre)[0] < 0.04
    assert distance(found, centre)[1] < 0.3


def test_occupation_is_the_closed_form():
    mass, rank = np.geomspace(1e11, 1e13, 6), np.linspace(0.05, 0.95, 6)
    model = GalaxyModel(log_minimum=11.5, scatter=0.3, log_first=12.9, alpha=1.1)
    central, satellites = galaxies.occupation(mass, np.full(6, 0.5), model)  # the shift is zero for the median
    np.testing.assert_allclose(central, (1 + erf((np.log10(mass) - 11.5) / 0.3)) / 2)
    np.testing.assert_allclose(satellites, (mass / 10**12.9)**1.1)
    dense, empty = galaxies.occupation(mass, rank, model), galaxies.occupation(mass, 1 - rank, model)
    for upper, lower in zip(dense, empty):
        np.testing.assert_array_equal(upper > lower, rank > 0.5)
    # Between the emptiest and the densest environment the masses move by 0.3 decades.
    np.testing.assert_allclose(galaxies.occupation(mass, np.ones(6), model)[1],
                               galaxies.occupation(mass * 10**0.3, np.zeros(6), model)[1])


def test_ranks_are_even_whatever_the_mass(rng):
    mass = np.sort(rng.lognormal(27, 1, 1234))[::-1]
    rank = galaxies.environment_rank(mass, mass * rng.lognormal(0, 0.3, 1234))  # heavy haloes in dense regions
    assert stats.kstest(rank, "uniform").pvalue > 0.99
    assert abs(stats.spearmanr(mass, rank).statistic) < 0.1
    assert galaxies.environment_rank(np.array([3.0, 2, 1]), np.array([5.0, 9, 7])).tolist() == [1 / 6, 5 / 6, 0.5]


def test_the_environment_is_the_mean_density_without_the_halo(rng):
    """A halo in a uniform box, and one in a ball of particles: mass counted by hand."""
    radius, centre = 3.0, np.array([[0.5, 25.0, 25.0], [30.0, 0.0, 10.0]])
    ball = rng.standard_normal((20_000, 3))
    ball *= 2.0 * np.cbrt(rng.random((20_000, 1))) / np.linalg.norm(ball, axis=1, keepdims=True)
    everywhere = np.concatenate([rng.uniform(0, BOXSIZE, (200_000, 3)), centre[1] + ball])
    halo_id = np.full(222_000, -1)
    halo_id[-2000:] = np.repeat([0, 1], 1000)
    position = np.concatenate([everywhere, np.repeat(centre, 1000, axis=0) + rng.normal(0, 0.1, (2000, 3))]) % BOXSIZE
    halos = catalogue(halo_id, position, BOXSIZE, PARTICLE)
    mean = 222_000 * 4 / 3 * np.pi * (radius / BOXSIZE)**3
    counted = [np.count_nonzero(distance(everywhere, c) < radius) / mean for c in centre]
    found = galaxies.environment(halos, centre, position, BOXSIZE, radius)
    np.testing.assert_allclose(found, counted, rtol=0.15, atol=0.15)


def paint_many(haloes, model, times=40):
    halo_id, position, halos = haloes
    rng = np.random.default_rng(5)
    painted = [galaxies.paint(halos, halo_id, position, BOXSIZE, 0.0, rng, model) for _ in range(times)]
    centrals, satellites = (
        sum(np.bincount(one["halo"][one["central"] == kind], minlength=len(halos["mass"])) for one in painted) / times
        for kind in (1, 0))
    return halos, centrals, satellites


def test_painted_numbers_follow_the_occupation(round_haloes):
    model = GalaxyModel(log_minimum=11.8, log_first=12.0, environment_minimum=0, environment_first=0)
    halos, centrals, satellites = paint_many(round_haloes, model)
    probability = (1 + erf((np.log10(halos["mass"]) - 11.8) / 0.2)) / 2
    mean = probability * halos["mass"] / 1e12
    for group in np.array_split(np.arange(400), 5):
        assert centrals[group].mean() == pytest.approx(probability[group].mean(), abs=0.015)
        assert satellites[group].mean() == pytest.approx(mean[group].mean(), rel=0.08)


@pytest.mark.parametrize("strength, differs", [(0, False), (-1, True)])
def test_the_environment_matters_at_fixed_mass_and_only_if_it_shall(rng, strength, differs):
    """200 equal haloes, half of them in a dense slab."""
    centre = rng.uniform(0, BOXSIZE, (200, 3))
    centre[:100, 0], centre[100:, 0] = rng.uniform(10, 15, 100), rng.uniform(30, 45, 100)
    halo = np.repeat(np.arange(200), 50)
    slab = rng.uniform(0, BOXSIZE, (60_000, 3)) * [0.2, 1, 1] + [7.5, 0, 0]
    halo_id, position, halos = haloes_of_particles(centre, halo, rng.normal(0, 0.1, (10_000, 3)), 20_000, rng)
    position, halo_id = np.concatenate([position, slab]), np.concatenate([halo_id, np.full(60_000, -1, np.int32)])
    model = GalaxyModel(log_minimum=np.log10(50 * PARTICLE), log_first=12.0,
                        environment_minimum=strength, environment_first=strength)
    _, centrals, satellites = paint_many((halo_id, position, halos), model)
    dense = distance(halos["position"][:, :1], 12.5) < 5
    assert dense.sum() == 100
    for number in (centrals, satellites):
        ratio = number[dense].mean() / number[~dense].mean()
        assert ratio > 1.5 if differs else ratio == pytest.approx(1, abs=0.1)


def test_galaxies_stand_in_their_haloes_and_in_the_box(round_haloes):
    halo_id, position, halos = round_haloes
    model = GalaxyModel(log_first=11.0)
    painted = galaxies.paint(halos, halo_id, position, BOXSIZE, 0.0, np.random.default_rng(0), model)
    again = galaxies.paint(halos, halo_id, position, BOXSIZE, 0.0, np.random.default_rng(0), model)
    other = galaxies.paint(halos, halo_id, position, BOXSIZE, 0.0, np.random.default_rng(1), model)
    assert {name: (value.dtype, value.shape[1:]) for name, value in painted.items()} == {
        "position": (np.float32, (3,)), "halo": (np.int32, ()), "central": (np.int8, ())}
    for name in painted:
        np.testing.assert_array_equal(painted[name], again[name])
    assert not np.array_equal(painted["position"], other["position"])
    assert painted["position"].min() >= 0 and painted["position"].max() < BOXSIZE
    central = painted["central"] == 1
    assert len(np.unique(painted["halo"][central])) == central.sum()
    assert np.isin(painted["halo"][~central], painted["halo"][central]).all()
    centre = galaxies.centres(halos, halo_id, position, BOXSIZE)
    stretch = galaxies.stretches(centre, halo_id, position, BOXSIZE)
    offset = painted["position"] - centre[painted["halo"]]
    offset -= BOXSIZE * np.rint(offset / BOXSIZE)
    back = np.linalg.solve(stretch[painted["halo"]], offset[..., None])[..., 0]
    scaled = np.linalg.norm(back, axis=1) / halos["radius"][painted["halo"]]
    assert scaled[central].max() < 1e-4 and 0.9 < scaled[~central].max() < 1 + 1e-4
    # The halo in the corner has satellites at all of its eight corners.
    corner = painted["position"][(painted["halo"] == 0) & ~central]
    assert len(corner) > 5 and (corner < 1).any() and (corner > BOXSIZE - 1).any()


def test_centrals_move_with_their_halo_and_satellites_by_its_virial_dispersion_more(round_haloes, rng):
    halo_id, position, halos = round_haloes
    flow = rng.normal(0, 300, (400, 3))
    velocity = rng.normal(0, 50, position.shape)
    velocity[halo_id >= 0] += flow[halo_id[halo_id >= 0]]
    model = GalaxyModel(log_minimum=11.0, log_first=11.0)
    still = galaxies.paint(halos, halo_id, position, BOXSIZE, 1.0, np.random.default_rng(0), model)
    painted = galaxies.paint(halos, halo_id, position, BOXSIZE, 1.0, np.random.default_rng(0), model, velocity)
    assert set(painted) - set(still) == {"velocity"} and painted["velocity"].dtype == np.float32
    for name in still:
        np.testing.assert_array_equal(painted[name], still[name])
    mean = np.array([velocity[halo_id == halo].mean(axis=0) for halo in range(400)])
    central = painted["central"] == 1
    np.testing.assert_allclose(painted["velocity"][central], mean[painted["halo"][central]], atol=1e-3)
    # In physical units, from the mass and the radius of each halo: 4.3e-9 is G in Mpc (km/s)^2 / Msun
    sigma = np.sqrt(4.30092e-9 * halos["mass"] / (2 * halos["radius"] / (1 + 1.0)))
    host = painted["halo"][~central]
    away = (painted["velocity"][~central] - mean[host]) / sigma[host, None]
    assert len(away) > 3000 and stats.kstest(away.ravel(), "norm").pvalue > 0.01
    np.testing.assert_allclose(np.corrcoef(away.T), np.eye(3), atol=0.06)


def test_faces_of_the_box_are_like_any_place(round_haloes):
    halo_id, position, halos = round_haloes
    shift = np.float32([BOXSIZE / 2, 7, -19])
    moved = (position + shift) % BOXSIZE
    first = galaxies.paint(halos, halo_id, position, BOXSIZE, 0.0, np.random.default_rng(0), BLIND)
    second = galaxies.paint(catalogue(halo_id, moved, BOXSIZE, PARTICLE), halo_id, moved, BOXSIZE, 0.0,
                            np.random.default_rng(0), BLIND)
    np.testing.assert_array_equal(first["halo"], second["halo"])
    assert distance(first["position"] + shift, second["position"]).max() < 1e-4


def test_no_haloes_no_galaxies(rng):
    position = rng.uniform(0, BOXSIZE, (100, 3)).astype(np.float32)
    halo_id = np.full(100, -1, np.int32)
    painted = galaxies.paint(catalogue(halo_id, position, BOXSIZE, PARTICLE), halo_id, position, BOXSIZE, 0.0, rng,
                             GalaxyModel())
    assert {name: value.shape for name, value in painted.items()} == {"position": (0, 3), "halo": (0,), "central": (0,)}


def test_simulate_writes_the_galaxies(tmp_path, invoke):
    small = ["--particles", 32, "--boxsize", 12.5, "--seed", 3]
    done = invoke("simulate", tmp_path / "box.h5", *small, "--galaxies")
    assert "galaxies (painted, not simulated)" in done.stdout and "warning" not in done.stderr
    invoke("simulate", tmp_path / "again.h5", *small, "--galaxies")
    invoke("simulate", tmp_path / "without.h5", *small)
    with Simulation(tmp_path / "box.h5") as box, h5py.File(tmp_path / "again.h5") as again:
        number = len(box["galaxies/position"])
        assert 20 < number < 100 and f"{number} galaxies" in done.stdout
        assert "painted into them, not simulated" in box.file.attrs["source"]
        assert box["galaxies/halo"][...].max() < len(box["halos/mass"])
        assert box.problems() == []
        for name in box.datasets():
            np.testing.assert_array_equal(box[name], again[name])
        with Simulation(tmp_path / "without.h5") as without:  # the galaxies change nothing else
            assert set(box.datasets()) - set(without.datasets()) == {
                "galaxies/position", "galaxies/halo", "galaxies/central", "galaxies/velocity"}
            for name in without.datasets():
                np.testing.assert_array_equal(box[name], without[name])
    assert re.search(rf"galaxies +│ {number}, ", invoke("info", tmp_path / "box.h5").stdout)


def test_a_simulation_too_coarse_for_the_galaxies_says_so(tmp_path, invoke):
    done = invoke("simulate", tmp_path / "box.h5", "--particles", 16, "--boxsize", 25, "--galaxies")
    assert "the smallest haloes here will have 6.6e+12 Msun/h" in done.stderr
    assert done.stderr.count("\n") == 1


def test_own_simulations_of_each_kind_have_their_names(tmp_path, monkeypatch):
    from types import SimpleNamespace

    from kerasgal import simulations

    made = {}

    def simulate(path, **options):
        made[path.name] = options
        return SimpleNamespace(close=lambda: None)

    monkeypatch.setattr(simulations, "simulate", simulate)
    monkeypatch.setattr(simulations, "BOXES", 1)
    simulations.own_simulations(tmp_path, 3)
    simulations.own_simulations(tmp_path, 3, galaxies=True)
    assert simulations.own_simulations(tmp_path, 3, particles=128, galaxies=True) == [
        tmp_path / "box_seed3_128_galaxies.h5"]
    assert {name: (options["particles"], options["galaxies"]) for name, options in made.items()} == {
        "box_seed3.h5": (64, False), "box_seed3_galaxies.h5": (64, True), "box_seed3_128_galaxies.h5": (128, True)}
