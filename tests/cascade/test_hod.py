"""The halo occupation baseline: what it draws in given haloes, and that its fit finds what made a mock."""

import dataclasses
import json
import shutil

import h5py
import numpy as np
import pytest
from scipy import stats

from kerasgal import nbody
from kerasgal.apps.cascade import baseline, hod
from kerasgal.apps.cascade.hod import HOD
from kerasgal.errors import DataError, ExistsError, UnseenError
from kerasgal.grid import deposit_ngp
from kerasgal.simulation import Simulation
from kerasgal.statistics import power_spectrum

BOXSIZE = 60.0
PARTICLE = 5e9
TRUE = HOD(log_minimum=11.5, log_first=12.7, alpha=1.0)


def catalogue(count, position):
    mass = count * PARTICLE
    radius = np.cbrt(3 * mass / (4 * np.pi * 200 * 8.6e10))
    return {"mass": mass, "count": count, "position": position, "radius": radius}


@pytest.fixture(scope="module")
def halos():
    """4000 haloes with a power law of masses on a lognormal field, the massive ones more clustered."""
    rng = np.random.default_rng(0)
    field = nbody.gaussian_field(48, BOXSIZE, nbody.PLANCK_2018, seed=0)
    field /= field.std()
    count = np.sort(np.minimum(40 * rng.random(4000)**(-1 / 0.9), 200_000).astype(np.int64))[::-1]
    position = np.empty((4000, 3))
    for group in np.array_split(np.arange(4000), 20):
        chance = np.exp((0.5 + 0.4 * np.log10(count[group] / 40).mean()) * field.ravel().astype(float))
        cell = rng.choice(field.size, len(group), p=chance / chance.sum())
        position[group] = np.stack(np.unravel_index(cell, field.shape), -1) + rng.random((len(group), 3))
    return catalogue(count, position * BOXSIZE / 48)


def distance(first, second):
    offset = first - second
    return np.linalg.norm(offset - BOXSIZE * np.rint(offset / BOXSIZE), axis=-1)


def test_expected_numbers_are_the_step_and_the_power_law():
    halos = catalogue(np.array([1000, 101, 100, 99]), np.zeros((4, 3)))
    central, satellites = hod.expected(halos, HOD(np.log10(100 * PARTICLE), np.log10(500 * PARTICLE), 1.5))
    np.testing.assert_allclose(central, [1, 1, 0.5, 0], atol=1e-9)
    np.testing.assert_allclose(satellites, (halos["mass"] / (500 * PARTICLE))**1.5)


def test_satellites_are_poisson_in_haloes_with_a_central():
    """1000 equal haloes far apart: distribution of their numbers, distances and directions."""
    axis = np.arange(10) * 6.0  # from the box's corner on
    position = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    halos = catalogue(np.full(1000, 2000), position)
    rng = np.random.default_rng(4)
    number, offset = [], []
    for _ in range(10):
        galaxies = hod.populate(halos, HOD(12.0, np.log10(2000 * PARTICLE / 3), 1.0), BOXSIZE, rng)
        assert galaxies.min() >= 0 and galaxies.max() < BOXSIZE
        np.testing.assert_array_equal(galaxies[:1000], position)
        host = np.rint(galaxies[1000:] / 6).astype(int) % 10 @ [100, 10, 1]
        number.append(np.bincount(host, minlength=1000))
        offset.append((galaxies[1000:] - position[host] + 3) % BOXSIZE - 3)
    number, offset = np.concatenate(number), np.concatenate(offset)
    assert number.mean() == pytest.approx(3, abs=4 * np.sqrt(3 / 10_000))
    assert number.var() == pytest.approx(3, rel=0.06)
    observed = np.bincount(np.minimum(number, 9), minlength=10)
    poisson = np.append(stats.poisson.pmf(np.arange(9), 3), stats.poisson.sf(8, 3))
    assert stats.chisquare(observed, 10_000 * poisson).pvalue > 0.001
    radius = np.linalg.norm(offset, axis=1)
    assert radius.max() <= halos["radius"][0]
    assert stats.kstest(radius / halos["radius"][0], "uniform").pvalue > 0.001
    for cosine in (offset / radius[:, None]).T:
        assert stats.kstest(cosine, stats.uniform(-1, 2).cdf).pvalue > 0.001


def test_galaxies_stand_within_the_radius_of_a_halo_across_the_faces(halos):
    galaxies = hod.populate(halos, TRUE, BOXSIZE, np.random.default_rng(1))
    above = halos["mass"] > 10**TRUE.log_minimum - PARTICLE / 2
    position, radius = halos["position"][above], halos["radius"][above]
    inside = [np.any(distance(one, position) <= radius) for one in galaxies]
    assert all(inside)
    assert np.any(np.abs(galaxies - BOXSIZE / 2) > 0.499 * BOXSIZE)


def test_minimum_and_first_mass_give_the_number(halos):
    """Also between the few masses that small haloes have."""
    for number in (300, 1234.5, 3999):
        above = np.sum(hod.expected(halos, HOD(hod.minimum_mass(halos, number), 13.0, 1.0))[0])
        assert above == pytest.approx(number, abs=1e-3)
    assert 10**hod.minimum_mass(halos, 4000) < halos["mass"].min()
    for log_minimum, alpha in ((11.4, 0.8), (11.9, 1.2)):
        found = HOD(log_minimum, hod.first_mass(halos, log_minimum, alpha, 5000), alpha)
        drawn = [len(hod.populate(halos, found, BOXSIZE, np.random.default_rng(seed))) for seed in range(30)]
        assert np.mean(drawn) == pytest.approx(5000, rel=0.01)
    assert hod.first_mass(halos, 11.0, 1.0, 2000) == np.inf  # more haloes than galaxies


def test_expected_power_is_the_mean_over_draws(halos):
    place = hod.places(halos, np.random.default_rng(0))
    _, power = hod.expected_power(halos, place, TRUE, BOXSIZE, 40)
    drawn = []
    for seed in range(60):
        counts = deposit_ngp(hod.populate(halos, TRUE, BOXSIZE, np.random.default_rng(seed)), 40, BOXSIZE)
        drawn.append(power_spectrum(counts / counts.mean() - 1, BOXSIZE)[1])
    error = np.std(drawn, axis=0) / np.sqrt(60)
    assert np.all(np.abs(np.mean(drawn, axis=0) - power) < 4 * error + 0.005 * power)
    np.testing.assert_allclose(np.mean(drawn, axis=0), power, rtol=0.05)


def test_fit_recovers_what_made_its_mocks(halos):
    rng = np.random.default_rng(8)
    mocks = [hod.populate(halos, TRUE, BOXSIZE, rng) for _ in range(4)]
    found = hod.fit([(halos, mock, BOXSIZE) for mock in mocks])
    assert found.log_minimum == pytest.approx(TRUE.log_minimum, abs=0.03)
    assert found.log_first == pytest.approx(TRUE.log_first, abs=0.08)
    assert found.alpha == pytest.approx(TRUE.alpha, abs=0.06)
    central, satellites = hod.expected(halos, found)
    assert 4 * np.sum(central * (1 + satellites)) == pytest.approx(sum(map(len, mocks)), rel=0.01)


@pytest.mark.slow
def test_fit_takes_cells_as_it_takes_positions(halos):
    mock = hod.populate(halos, TRUE, BOXSIZE, np.random.default_rng(3))
    found = hod.fit([(halos, mock, BOXSIZE)], k_maximum=0.5)
    assert hod.fit([(halos, deposit_ngp(mock, 80, BOXSIZE), BOXSIZE)], k_maximum=0.5) == found
    counts = deposit_ngp(mock, 20, BOXSIZE)
    np.testing.assert_array_equal(hod._coarse_counts(deposit_ngp(mock, 80, BOXSIZE), BOXSIZE, 0.5), counts)


def test_a_few_haloes_are_enough_and_none_are_not():
    rng = np.random.default_rng(2)
    few = catalogue(np.array([900, 400, 100, 100, 100]), rng.uniform(0, BOXSIZE, (5, 3)))
    none = catalogue(np.zeros(0, int), np.zeros((0, 3)))
    galaxies = rng.uniform(0, BOXSIZE, (7, 3))
    found = hod.fit([(few, galaxies, BOXSIZE)])
    central, satellites = hod.expected(few, found)
    assert np.sum(central * (1 + satellites)) == pytest.approx(7, rel=0.01)
    with np.errstate(all="raise"):  # also where trial occupations leave one of the simulations empty
        small = catalogue(np.full(5, 30), rng.uniform(0, BOXSIZE, (5, 3)))
        hod.fit([(few, galaxies, BOXSIZE), (small, galaxies[:2], BOXSIZE)])
    for sample, message in (
            ((none, galaxies, BOXSIZE), "no halo"),
            ((few, galaxies[:0], BOXSIZE), "no galaxy"),
            ((few, np.zeros((8, 8, 8)), BOXSIZE), "no galaxy"),
            ((few, rng.uniform(0, BOXSIZE, (60, 3)), BOXSIZE), "60 galaxies do not fit into 5 haloes"),
            ((few, galaxies, 4.0), "no wave of 1 h/Mpc or longer fits into a box of 4 Mpc/h")):
        with pytest.raises(DataError, match=message):
            hod.fit([sample])


def test_the_halo_model_is_compared_where_every_simulation_has_haloes(painted, tmp_path, caplog):
    model, bare = HOD(11.5, 12.8, 1.0), tmp_path / "bare.h5"
    shutil.copy(painted[1], bare)
    with h5py.File(bare, "r+") as file:
        del file["halos"]
    assert baseline.comparable(model, painted[:2]) is model
    assert baseline.comparable(None, [bare]) is None and not caplog.messages
    assert baseline.comparable(model, [painted[0], bare]) is None
    assert f"{bare} has no halos/mass, halos/position, halos/radius" in caplog.text


def test_haloes_of_which_nobody_knows_how_many_particles_they_have_take_no_fitted_model(painted, tmp_path, caplog):
    masses, model = tmp_path / "masses.h5", HOD(11.5, 12.8, 1.0)
    shutil.copy(painted[1], masses)
    with h5py.File(masses, "r+") as file:
        file["halos/count"][3] = 0
    with Simulation(masses) as simulation:
        halos, boxsize = baseline.described(simulation), simulation.boxsize
    assert "count" not in halos and "rank" not in halos and "concentration" in halos
    assert baseline.populated(model, halos, boxsize, range(2)) is None
    for call in (lambda: baseline.fit([painted[0], masses]),
                 lambda: baseline.populate(model, masses, tmp_path / "no.h5")):
        with pytest.raises(DataError, match="masses.h5 does not say how many particles its haloes have"):
            call()
    assert not (tmp_path / "no.h5").exists()
    counted = baseline.fit([masses], "occupation")
    assert baseline.populate(counted, masses, tmp_path / "galaxies.h5") > 0
    found = baseline.halo_models([masses], [painted[0]], None)
    assert set(found) == {baseline.NAMES[kind] for kind in ("nfw", "measured", "critical")}
    assert "no halo model and no halo model, Poisson to compare with: " in caplog.text


def test_haloes_unlike_those_of_a_halo_model_are_said(painted, tmp_path, caplog):
    made = baseline.fit([painted[0]], "occupation")
    with Simulation(painted[0]) as simulation:
        assert not baseline.unlike([made], simulation)
        mass, cosmology = simulation["halos/mass"][...], simulation.cosmology
    assert made.domain["least_mass"] == [mass.min()] * 2 and made.domain["Om0"] == [cosmology.Om0] * 2
    assert made.uncounted == 0 and not caplog.messages
    changed = tmp_path / "changed.h5"
    shutil.copy(painted[1], changed)
    with h5py.File(changed, "r+") as file:
        rows = np.count_nonzero(file["halos/mass"][...] > 3 * mass.min())
        for name, values in list(file["halos"].items()):
            del file[f"halos/{name}"]
            file[f"halos/{name}"] = values[:rows]
        file["halo_id"][...] = np.where(file["halo_id"][...] < rows, file["halo_id"][...], -1)
        file.attrs["redshift_final"] = 1.0
        file["cosmology"].attrs["Om0"] = 0.4
    assert baseline.populate(made, changed, tmp_path / "galaxies.h5") > 0
    assert len(caplog.messages) == 3 and f"{changed} has redshift 1, and the halo model is of redshift 0" in caplog.text
    assert "Om0 = 0.4, and the halo model is of Om0 = 0.3" in caplog.text
    assert "those of smaller haloes are missing" in caplog.messages[2]
    with h5py.File(tmp_path / "galaxies.h5") as file:
        assert file.attrs["notes"] == "; ".join(caplog.messages)
    with Simulation(changed) as simulation:
        coarse = dataclasses.replace(made, domain=baseline.domain_of([changed]))
        old = dataclasses.replace(made, domain={})  # of a file of an earlier version
        step = HOD(np.log10(simulation["halos/mass"][-1]), 13.0, 1.0)
        assert not baseline.unlike([coarse, step], simulation)
        assert len(baseline.unlike([old], simulation)) == 1
    with Simulation(painted[0]) as simulation:
        notes = baseline.unlike([dataclasses.replace(coarse, log_mass=tuple(np.add(made.log_mass, 0.5)))], simulation)
    assert "smaller ones are given the galaxies of these" in notes[-1]


def test_a_halo_model_is_not_judged_on_what_it_was_made_of(painted, tmp_path):
    known = {"simulations": [str(painted[0])]}
    baseline.write(tmp_path / "hod.json", HOD(11.5, 12.8, 1.0, domain=known))
    old = {"app": "cascade", "hod": {"log_minimum": 11.5, "log_first": 12.8, "alpha": 1.0}} | known
    (tmp_path / "old.json").write_text(json.dumps(old))
    for given in (tmp_path / "hod.json", tmp_path / "old.json", HOD(11.5, 12.8, 1.0, domain=known)):
        assert baseline.chosen(given, None, [painted[1]]) == HOD(11.5, 12.8, 1.0)
        with pytest.raises(UnseenError, match="the halo model was made of .*; evaluate on data it never saw"):
            baseline.chosen(given, None, painted[:2])
    with Simulation(painted[0]) as simulation:
        assert baseline.domain_of([simulation])["simulations"] == known["simulations"]


def test_a_fitted_halo_model_survives_its_file(tmp_path):
    model = HOD(11.5, 12.8, 1.0)
    baseline.write(tmp_path / "hod.json", model)
    assert baseline.read(str(tmp_path / "hod.json")) == model
    assert baseline.chosen(tmp_path / "hod.json", None, []) == baseline.chosen(model, None, []) == model
    with pytest.raises(ExistsError, match="overwrite=True"):
        baseline.make([], tmp_path / "hod.json")
    (tmp_path / "hod.json").write_text("{}")
    with pytest.raises(DataError, match="is not a halo model"):
        baseline.read(tmp_path / "hod.json")
