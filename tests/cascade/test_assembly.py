"""Assembly bias, of made-up haloes whose galaxies are known exactly, of painted ones, and in an evaluation."""

import numpy as np
import pytest

from kerasgal.apps.cascade import assembly, baseline, evaluate
from kerasgal.apps.cascade.config import TrainConfig
from kerasgal.apps.cascade.figures import FLOOR, ORACLE, TRUTH
from kerasgal.config import preset
from kerasgal.cosmology import Cosmology
from kerasgal.simulation import Simulation

N, BOXSIZE = 48, 60.0
CELL = BOXSIZE / N


@pytest.fixture(scope="module")
def halos():
    """One small halo in the middle of every fourth cell along each axis, 1728 of two masses; the density around them is
    a wave along x, and so is their rank."""
    cell = 4 * np.stack(np.meshgrid(*[np.arange(N // 4)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    rng = np.random.default_rng(0)
    wave = np.cos(2 * np.pi * cell[:, 0] / N)
    mass = np.where(rng.random(len(cell)) < 0.5, 2e12, 5e13)
    order = np.argsort(wave + 1e-6 * rng.random(len(cell)))
    rank = np.empty(len(cell))
    rank[order] = (np.arange(len(cell)) + 0.5) / len(cell)
    return {"mass": mass, "position": (cell + 0.5) * CELL, "radius": np.full(len(cell), 0.3 * CELL), "rank": rank,
            "cell": cell}


def field_of(halos, number):
    """A central galaxy in the cell of each halo, and the rest of its `number` in the next one along z."""
    field = np.zeros((N, N, N), np.float32)
    field[tuple(halos["cell"].T)] = np.minimum(number, 1)
    field[tuple((halos["cell"] + [0, 0, 1]).T % N)] = np.maximum(number - 1, 0)
    return field


def measured(halos, field):
    from kerasgal.statistics import power_spectrum

    k, power, modes = power_spectrum(field / field.mean() - 1, BOXSIZE)
    spectra, found = assembly.measure({TRUTH: [field]}, halos, BOXSIZE, {TRUTH: (power, power)})
    table, in_haloes = found[TRUTH]["occupation"], found[TRUTH]["in_haloes"]
    bins = assembly.given_bins(table)
    return assembly.entry(k, power, spectra[TRUTH], table, in_haloes, bins), power, spectra[TRUTH], modes


def test_numbers_that_follow_the_mass_alone_show_no_assembly_bias(halos):
    number = np.where(halos["mass"] > 1e13, 4, 1)
    found, power, mixed, _ = measured(halos, field_of(halos, number))
    assert found["log_mass"] == [[12.0, 12.5], [13.5, 14.0]]
    np.testing.assert_array_equal(found["mean_number"], [[1] * 4, [4] * 4])
    np.testing.assert_array_equal(found["mean_number_error"], 0)
    assert found["densest_over_emptiest"] == [1, 1] and found["in_haloes"] == 1
    np.testing.assert_allclose(mixed, power, rtol=1e-4)  # haloes of one mass are alike: nothing has changed
    np.testing.assert_allclose(np.array(found["power_over_shuffled"], float), 1, rtol=1e-4)


def test_numbers_that_follow_the_environment_are_counted_and_lose_their_wave_when_shuffled(halos):
    dense = halos["rank"] >= 0.5
    heavy = halos["mass"] > 1e13
    number = np.select([heavy & dense, heavy, dense], [6, 2, 1], 0)
    field = field_of(halos, number)
    found, power, _, modes = measured(halos, field)
    np.testing.assert_array_equal(found["mean_number"], [[0, 0, 1, 1], [2, 2, 6, 6]])
    assert found["densest_over_emptiest"] == [None, 3]
    # The galaxies' wave along x is an exact sum; of numbers exchanged at random among the haloes of a mass every wave
    # that does not see the lattice has the mean power V sum (n - mean)^2 / (sum n)^2 (and of a catalogue of few masses
    # what their places have to do with it, which is drawn here, too).
    cells = assembly.cells_of(halos, BOXSIZE, N)
    x = halos["cell"][:, 0]
    exact = BOXSIZE**3 * abs(np.sum(number * np.exp(2j * np.pi * x / N)))**2 / number.sum()**2
    assert exact / modes[0] * 2 <= power[0]
    many = []
    for seed in range(200):
        target = assembly.exchanged(halos["mass"], np.random.default_rng(seed))
        assert (halos["mass"][target] == halos["mass"]).all() and len(np.unique(target)) == len(target)
        moved = np.zeros(len(number))
        moved[target] = number
        if seed < 3:  # the field is that of the exchanged numbers, satellites beside their centrals
            np.testing.assert_array_equal(assembly.shuffled(field, cells, target), field_of(halos, moved))
        many.append(BOXSIZE**3 * abs(np.sum(moved * np.exp(2j * np.pi * x / N)))**2 / number.sum()**2)
    by_mass = np.where(heavy, number[heavy].mean(), number[~heavy].mean())
    kept = BOXSIZE**3 * abs(np.sum(by_mass * np.exp(2j * np.pi * x / N)))**2 / number.sum()**2
    spread = BOXSIZE**3 * np.sum((number - by_mass)**2) / number.sum()**2
    assert np.mean(many) == pytest.approx(kept + spread, rel=5 / np.sqrt(200))
    assert exact > 50 * np.mean(many) and found["power_over_shuffled"][0] > 10


def test_cells_belong_to_the_halo_from_which_they_are_nearest_in_units_of_its_reach():
    rng = np.random.default_rng(2)
    n, boxsize = 10, 5.0
    halos = {"position": rng.uniform(0, boxsize, (12, 3)), "radius": rng.uniform(0.05, 1.2, 12)}
    cells = assembly.cells_of(halos, boxsize, n)
    owner = np.full((n, n, n), -1)
    owner[tuple(cells.index.T)] = cells.halo
    for cell in np.ndindex(n, n, n):
        offset = (np.array(cell) + 0.5) * boxsize / n - halos["position"]
        offset -= boxsize * np.rint(offset / boxsize)
        share = np.linalg.norm(offset, axis=1) / (halos["radius"] + np.sqrt(3) / 2 * boxsize / n)
        assert owner[cell] == (share.argmin() if share.min() <= 1 else -1)
    field = rng.poisson(1.0, (n, n, n)).astype(np.float32)
    expected = [field[owner == halo].sum() for halo in range(12)]
    np.testing.assert_allclose(assembly.numbers(field, cells), expected)
    assert assembly.shuffled(field, cells, rng.permutation(12)).sum() == field.sum()
    nothing = assembly.cells_of({"position": np.zeros((0, 3)), "radius": np.zeros(0)}, boxsize, n)
    assert len(nothing.halo) == 0
    np.testing.assert_array_equal(assembly.shuffled(field, nothing, np.zeros(0, int)), field)


def test_ranks_of_a_density_are_those_of_its_particles(painted):
    with Simulation(painted[2]) as simulation:
        halos = baseline.described(simulation)
        from kerasgal.grid import density_contrast

        density = 1 + density_contrast(simulation["final/position"][...], 32, simulation.boxsize)
        found = assembly.rank(halos, density, simulation.boxsize, simulation.cosmology)
    assert np.corrcoef(found, halos["rank"])[0, 1] > 0.97
    # Of two haloes of one mass that with more matter around it has the higher rank.
    pair, dense = {"mass": np.full(2, 1e12), "position": np.array([[3.0, 3, 3], [9.0, 9, 9]])}, np.ones((16, 16, 16))
    dense[:8, :8, :8] = 2
    np.testing.assert_allclose(assembly.rank(pair, dense, 12.5, Cosmology()), [0.75, 0.25])
    np.testing.assert_allclose(assembly.rank(pair, dense[::-1, ::-1, ::-1], 12.5, Cosmology()), [0.25, 0.75])


def test_an_evaluation_of_painted_galaxies_knows_their_rule(painted):
    config = preset(TrainConfig, "demo")
    sample, _ = evaluate.collect({}, evaluate.Bars({}), painted[2], config)
    found = evaluate.measure(sample)
    with Simulation(painted[2]) as simulation:
        painting, _ = baseline.painting(simulation)
        host = np.bincount(simulation["galaxies/halo"][...], minlength=len(sample.halos["mass"]))
    rule = painting.central * (1 + painting.satellites)
    mass, rank = sample.halos["mass"], sample.halos["rank"]
    for key, number in ((ORACLE, rule), (TRUTH, host)):
        table = assembly.occupation(number.astype(float), mass, rank)
        seen = found.numbers[key]["occupation"]
        np.testing.assert_array_equal(seen[0], table[0])
        assert seen[1].sum() == pytest.approx(table[1].sum(), rel=0.1)
        contrast = [one[1, :, -1].sum() / one[1, :, 0].sum() for one in (seen, table)]
        assert contrast[0] == pytest.approx(contrast[1], rel=0.25)
        inside, everything = found.numbers[key]["in_haloes"]
        assert 0.9 < inside / everything <= 1
    assert {TRUTH, FLOOR, ORACLE} == set(found.curves["shuffled"])
    entry = evaluate.entry_of(found, TRUTH)["assembly_bias"]
    assert len(entry["power_over_shuffled"]) == len(found.k)
    words = list(assembly.lines({"truth": entry}))
    assert words[0].startswith("assembly bias: ") and words[2].startswith("truth")
