"""What runs are held against, and the rulers: halo models by counting, trees, floor and ceiling, scatter, spectra."""

import dataclasses
import shutil
import sys
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from colossus.cosmology import cosmology as colossus
from colossus.halo.mass_defs import changeMassDefinition
from scipy import stats
from scipy.ndimage import gaussian_filter

import kerasgal as kg
from kerasgal import cosmology, run_folder
from kerasgal.apps.cascade import baseline, data, evaluate, hod, metrics, occupation, scatter, trees
from kerasgal.apps.cascade.config import TrainConfig
from kerasgal.apps.cascade.figures import FLOOR, ORACLE, TREES, TRUTH
from kerasgal.apps.cascade.hod import HOD
from kerasgal.apps.cascade.occupation import Occupation
from kerasgal.apps.cascade.scatter import POISSON, Scatter
from kerasgal.config import preset
from kerasgal.errors import DamagedError, DataError, SettingError
from kerasgal.grid import deposit_ngp
from kerasgal.simulation import Simulation
from kerasgal.simulations import paint_galaxies
from kerasgal.statistics import power_spectrum

BOXSIZE = 40.0
CONFIG = preset(TrainConfig, "demo")
ONE_A_CELL = Scatter((1.0,), (0.0,))  # as little scatter as whole numbers can have


# Scatter

@pytest.mark.parametrize("given, mean, variance", [
    (ONE_A_CELL, 0.3, 0.3 * 0.7), (ONE_A_CELL, 1.0, 0.0), (ONE_A_CELL, 4.5, 3.5), (POISSON, 0.3, 0.3), (POISSON, 9, 9),
    (Scatter((1.0,), (0.9,)), 0.5, 0.45), (Scatter((1.0,), (2.5,)), 3.0, 7.5),
    (Scatter((0.1, 10.0), (1.0, 3.0)), 1.0, 2.0)])  # halfway in the logarithm of the mean
def test_drawn_numbers_have_the_mean_and_the_variance_that_is_asked_for(given, mean, variance):
    drawn = scatter.draw(np.full((60, 60, 60), mean), np.random.default_rng(0), given)
    assert drawn.mean() == pytest.approx(mean, abs=5 * np.sqrt(variance / drawn.size) + 1e-12)
    assert drawn.var() == pytest.approx(variance, rel=0.03, abs=1e-12)
    assert given.variance(mean) == pytest.approx(variance, rel=1e-6, abs=1e-12)
    assert drawn.min() >= 0 and (drawn == np.rint(drawn)).all()


def test_central_galaxies_are_drawn_once_where_poisson_numbers_would_be_two_or_none():
    mean = np.zeros((16, 16, 16))
    mean[::2] = 1.0
    rng = np.random.default_rng(3)
    np.testing.assert_array_equal(scatter.draw(mean, rng, ONE_A_CELL), mean)
    assert not np.array_equal(scatter.draw(mean, rng, POISSON), mean)
    drawn = scatter.draw(np.full((40, 40, 40), 0.6), rng, ONE_A_CELL)
    assert set(np.unique(drawn)) == {0, 1}


def test_the_scatter_that_is_measured_is_that_of_the_draws():
    rng = np.random.default_rng(1)
    mean = rng.lognormal(-1, 1.2, (64, 64, 64))
    for made in (POISSON, ONE_A_CELL, Scatter((1.0,), (2.0,))):
        found = scatter.measure(1.1 * mean, scatter.draw(mean, rng, made))  # too high an expectation is no scatter
        for value in (0.1, 0.5, 2.0):
            assert found.ratio_at(1.1 * value) == pytest.approx(made.ratio_at(value), abs=0.1)
    nowhere = np.where(mean > 0.3, mean, 0)  # galaxies where none is expected are no scatter of an expectation
    assert scatter.measure(nowhere, nowhere + (mean < 0.2)).mean[0] > 0.3
    assert scatter.measure(mean[:2, :2, :2], np.ones((2, 2, 2))) == POISSON


def test_positions_fall_evenly_into_their_cells():
    cells = np.repeat([1 * 16 + 2 * 4 + 3, 0], [500, 2])
    position = scatter.within(cells, (4, 4, 4), 8.0, np.random.default_rng(0))
    np.testing.assert_array_equal(deposit_ngp(position, 4, 8.0), np.bincount(cells, minlength=64).reshape(4, 4, 4))
    assert all(stats.kstest(part % 2 / 2, "uniform").pvalue > 0.001 for part in position[:500].T)


def test_a_run_folder_keeps_a_scatter_and_damage_is_one_line(tmp_path):
    assert scatter.read(tmp_path) is None
    made = Scatter((0.1, 2.0), (0.9, 1.5))
    scatter.write(made, tmp_path)
    assert scatter.read(tmp_path) == made
    for content in ("{", "{}", '{"mean": [2, 1], "ratio": [1, 1]}', '{"mean": [1], "ratio": []}'):
        (tmp_path / scatter.FILE).write_text(content)
        with pytest.raises(DamagedError, match="does not hold a scatter"):
            scatter.read(tmp_path)


# Rulers

def sample_of(truth, mean, made, boxsize, key=("runs", "it"), density=None):
    return evaluate.Sample(boxsize, mean if density is None else density, {TRUTH: [truth], key: [mean]}, {},
                           {key: made})


def test_rulers_of_a_poisson_field_of_known_mean_have_their_closed_forms():
    """P of the galaxies is P of the mean and 1/n; P_xy / P_xx is 1; r is sqrt(P_xx / (P_xx + 1/n))."""
    rng = np.random.default_rng(0)
    mean = np.exp(gaussian_filter(rng.normal(size=(64, 64, 64)), 1.5, mode="wrap") * 8).astype(np.float32)
    mean *= 0.2 / mean.mean()
    truth = rng.poisson(mean).astype(np.float32)
    key = ("runs", "it")
    k, modes, curves = evaluate.power(sample_of(truth, mean, POISSON, 64.0))
    _, own, _ = power_spectrum(mean / mean.mean() - 1, 64.0)
    noise = 1 / truth.mean()
    few = 4 * np.sqrt(2 / modes) + 0.01
    np.testing.assert_allclose(curves["raw"][key], own, rtol=1e-4)
    assert np.all(np.abs(curves["noisy"][key] / (own + noise) - 1) < 0.01)
    assert np.all(np.abs(curves["noisy"][TRUTH] / curves["noisy"][key] - 1) < few)
    # The error of the cross spectrum over the field's own is the noise's: sqrt(noise / own / modes) for each shell
    assert np.all(np.abs(curves["calibration"][key] - 1) < 4 * np.sqrt(2 * noise / own / modes) + 0.01)
    np.testing.assert_allclose(curves["correlation"][key], np.sqrt(own / (own + noise)), atol=0.05)
    table = evaluate.numbers(sample_of(truth, mean, POISSON, 64.0), key, [truth])
    for what in ("density", "expected"):
        _, expected, true = table[what]
        assert np.all(np.abs(true - expected) < 5 * np.sqrt(expected + 1))
        assert metrics.misplaced(table[what]) < 0.02
    wrong = metrics.calibration(2 * mean, truth, 64.0)[1]
    np.testing.assert_allclose(wrong, curves["calibration"][key] / 2, rtol=1e-4)


def test_scales_are_averaged_apart_and_what_is_undefined_is_left_out():
    found = metrics.by_scale(np.array([0.2, 0.9, 1.0, 3.0]), np.array([1.0, np.nan, 3.0, 5.0]))
    assert found == {"large": 1.0, "small": 4.0, "all": 3.0}
    assert metrics.by_scale(np.array([2.0]), np.array([1.0]))["large"] is None
    table = metrics.counts_in_bins(np.array([0.5, 5.0, 99.0]), np.array([0, 1, 10, np.inf]), [1, 2, 3], [1, 0, 5])
    np.testing.assert_array_equal(table, [[1, 1, 1], [1, 2, 3], [1, 0, 5]])
    assert metrics.misplaced(table) == pytest.approx(4 / 6)


@pytest.fixture(scope="module")
def painted_by_hand():
    """Galaxies in made-up haloes, one central and Poisson satellites, their exact expectation, and a density."""
    rng = np.random.default_rng(5)
    n, haloes = 48, 1500
    cell = rng.integers(0, n, (haloes, 3))
    cell[500:] = (cell[rng.integers(0, 500, 1000)] + rng.normal(0, 3, (1000, 3)).astype(int)) % n  # clustered
    mass = rng.pareto(1.0, haloes) + 1
    central, satellites = np.clip(mass / 3, 0, 1), np.minimum(mass / 6, 40)
    step = np.array([-1, 0, 1])
    spread = [(x, y, z) for x in step for y in step for z in step]
    mean, density = np.zeros((n, n, n)), np.zeros((n, n, n))
    for host in range(haloes):
        mean[tuple(cell[host])] += central[host]
        density[tuple(cell[host])] += mass[host]
        for offset in spread:
            mean[tuple((cell[host] + offset) % n)] += central[host] * satellites[host] / 27

    def draw(rng):
        truth = np.zeros((n, n, n), np.float32)
        there = rng.random(haloes) < central
        np.add.at(truth, tuple(cell[there].T), 1)
        host = np.repeat(np.arange(haloes), rng.poisson(satellites * there))
        np.add.at(truth, tuple(((cell[host] + rng.integers(-1, 2, (len(host), 3))) % n).T), 1)
        return truth

    return mean.astype(np.float32), gaussian_filter(density, 1.0, mode="wrap").astype(np.float32), draw


def scores(truth, mean, density):
    """By each ruler how far a mean field is off, less is better; `r` by how much it falls short of 1."""
    key = ("runs", "it")
    sample = sample_of(truth, mean, ONE_A_CELL, BOXSIZE, density=density)
    measured = evaluate.measure(sample)
    entry = evaluate.entry_of(measured, key)
    found = {"noisy": entry["power_residual_by_scale"]["with_shot_noise"]["all"],
             "calibration": entry["calibration_error"]["all"], "r": 1 - entry["correlation_by_scale"]["all"],
             "density": entry["misplaced_by_density"], "expected": entry["misplaced_by_expected"],
             "squares": entry["squared_error"]}
    assert found["squares"] == pytest.approx(np.mean((mean - truth)**2) * 32**3, rel=1e-4)
    return found | {shape: part["residual"] for shape, part in entry["bispectra"].items()}, entry


def test_a_perfect_model_scores_best_by_each_ruler(painted_by_hand):
    mean, density, draw = painted_by_hand
    truth = draw(np.random.default_rng(2))
    best, entry = scores(truth, mean, density)
    smooth = gaussian_filter(mean, 1.0, mode="wrap")
    steep = mean**1.2 * (mean.sum() / (mean**1.2).sum())
    false = mean + 0.2 * mean.mean() * density / density.mean()
    noisy = mean * np.random.default_rng(4).lognormal(-0.5, 1.0, mean.shape).astype(np.float32)
    wrong = {name: scores(truth, field.astype(np.float32), density)[0]
             for name, field in (("smooth", smooth), ("steep", steep), ("false", false),
                                 ("noisy", noisy), ("more", 1.3 * mean))}
    # The bispectrum of one truth scatters by more than that.
    least = "calibration", "r", "expected", "noisy", "density", "squares"
    for name, found in wrong.items():
        assert all(best[ruler] <= found[ruler] + 0.005 for ruler in least), name
        assert any(best[ruler] < 0.7 * found[ruler] for ruler in best), name
    for ruler in best:  # there is none by which a perfect model is far from the best
        assert best[ruler] < 1.2 * min(found[ruler] for found in wrong.values()) + 0.05, ruler
    assert best["noisy"] < 0.15 and best["calibration"] < 0.1
    # The paper's own ruler, the mean field's power as it is, does not know a perfect model.
    assert entry["power_residual_by_scale"]["as_it_is"]["all"] > 2 * best["noisy"]


def test_galaxies_are_taken_for_poisson_at_the_price_of_their_power(painted_by_hand):
    """Centrals stand in one cell: adding 1/n to their expectation's power counts them twice."""
    mean, density, draw = painted_by_hand
    truth = [draw(np.random.default_rng(seed)) for seed in range(6)]
    key = ("runs", "it")
    found = {}
    others = np.stack([draw(np.random.default_rng(seed)) for seed in (8, 9)])
    own_scatter = scatter.measure(np.stack([mean] * 2), others)
    for made in (own_scatter, ONE_A_CELL, POISSON):
        curves = [evaluate.power(sample_of(one, mean, made, BOXSIZE))[2]["noisy"] for one in truth]
        own, true = (np.mean([one[which][8:] for one in curves], axis=0) for which in (key, TRUTH))
        found[made] = own / true
    assert abs(found[own_scatter].mean() - 1) < 0.03
    assert found[ONE_A_CELL].mean() < 0.95 and found[POISSON].mean() > 1.05


# Halo models

def halos_of(mass, position, particle=5e9):
    radius = np.cbrt(3 * mass / (4 * np.pi * 200 * 8.6e10))
    return {"mass": mass, "count": np.rint(mass / particle), "position": position, "radius": radius}


@pytest.fixture(scope="module")
def halos():
    rng = np.random.default_rng(0)
    mass = np.sort(2e11 * (rng.random(6000)**(-1 / 0.9)))[::-1]
    found = halos_of(np.minimum(mass, 1e15), rng.uniform(0, BOXSIZE, (6000, 3)))
    return found | {"rank": rng.random(6000), "concentration": np.full(6000, 7.0)}


def drawn_galaxies(halos, central, satellites, offsets, rng):
    there = rng.random(len(central)) < central
    host = np.repeat(np.arange(len(central)), rng.poisson(satellites * there))
    position = np.concatenate([halos["position"][there], halos["position"][host] + offsets(host)]) % BOXSIZE
    return {"position": position, "halo": np.concatenate([np.flatnonzero(there), host]),
            "central": np.repeat([1, 0], [there.sum(), len(host)])}


def test_an_occupation_is_that_which_made_the_galaxies(halos):
    rng = np.random.default_rng(1)
    shift = 0.4 * (halos["rank"] > 0.5)  # haloes in dense surroundings have more
    central = np.clip(0.3 * np.log10(halos["mass"] / 1e11) + 0.2 * (halos["rank"] > 0.5), 0, 1)
    satellites = (halos["mass"] / 10**(12.8 - shift))**0.9
    cloud = rng.normal(size=(200_000, 3))

    def offsets(host):  # a shell at half of the radius
        direction = cloud[:len(host)]
        return direction * (0.5 * halos["radius"][host] / np.linalg.norm(direction, axis=1))[:, None]

    samples = [(halos, drawn_galaxies(halos, central, satellites, offsets, rng), BOXSIZE) for _ in range(4)]
    found = occupation.measure(samples, environments=2, profile="measured")
    expected_central, expected_satellites = hod.expected(halos, found)
    for low, high in ((3e11, 1e12), (1e12, 1e13), (1e13, 1e16)):
        for dense in (False, True):
            inside = (halos["mass"] >= low) & (halos["mass"] < high) & ((halos["rank"] > 0.5) == dense)
            number = expected_central[inside] * (1 + expected_satellites[inside])
            true = central[inside] * (1 + satellites[inside])
            assert number.mean() == pytest.approx(true.mean(), rel=0.1)
    assert found.alpha == pytest.approx((0.9, 0.9), abs=0.06)
    np.testing.assert_allclose(found.radii, 0.5, rtol=1e-5)
    again = hod.populate(halos, found, BOXSIZE, np.random.default_rng(0))
    assert len(again) == pytest.approx(np.mean([len(sample[1]["halo"]) for sample in samples]), rel=0.05)
    blind = occupation.measure(samples, profile="nfw")
    assert len(blind.central) == 1 and len(hod.populate({name: halos[name] for name in halos if name != "rank"}, blind,
                                                        BOXSIZE, np.random.default_rng(0))) > 0
    with pytest.raises(DataError, match="no halo has a central"):
        occupation.measure([(halos, {name: values[:0] for name, values in samples[0][1].items()}, BOXSIZE)])


def test_the_critical_radius_is_that_of_an_nfw_halo():
    """Against colossus, which converts definitions of mass by itself."""
    universe = cosmology.Cosmology()
    colossus.setCosmology("mine", flat=True, H0=67.66, Om0=universe.Om0, Ob0=universe.Ob0, sigma8=universe.sigma8,
                          ns=universe.ns, relspecies=False, persistence="")
    mass, c = np.array([1e12, 1e14]), np.array([9.0, 5.0])
    for redshift in (0.0, 1.0):
        mean = 200 * cosmology.mean_density(universe)
        halos = {"mass": mass, "radius": np.cbrt(3 * mass / (4 * np.pi * mean)), "concentration": c}
        found = baseline.critical_radius(halos, universe, redshift)
        _, physical, _ = changeMassDefinition(mass, c, redshift, "200m", "200c")  # kpc/h
        np.testing.assert_allclose(found, physical / 1e3 * (1 + redshift), rtol=2e-3)
        halos["radius"] = found  # a catalogue that has this radius keeps it, if its mass is that within
        halos["mass"] = 4 / 3 * np.pi * found**3 * mean * (1 / (universe.Om0 * (1 + redshift)**3 / (
            universe.Om0 * (1 + redshift)**3 + 1 - universe.Om0)))
        np.testing.assert_allclose(baseline.critical_radius(halos, universe, redshift), found, rtol=1e-3)


def test_a_halo_model_without_centrals_is_fitted_and_drawn(halos):
    """Sether's: a Poisson number of galaxies (M / M_1)^alpha above the least mass, and nothing at the centre."""
    true = HOD(11.8, 12.2, 0.8, centrals=False)
    central, number = hod.expected(halos, true)
    drawn = [hod.populate(halos, true, BOXSIZE, np.random.default_rng(seed)) for seed in range(8)]
    assert np.mean([len(one) for one in drawn]) == pytest.approx(np.sum(central * number), rel=0.03)
    nearest = halos["position"][central > 0.999]
    assert not np.any(np.all(np.isclose(drawn[0][:, None], nearest[None, :50], atol=1e-9), axis=2))
    place = hod.places(halos, np.random.default_rng(0))
    _, power = hod.expected_power(halos, place, true, BOXSIZE, 32)
    mean = np.mean([power_spectrum(counts / counts.mean() - 1, BOXSIZE)[1] for counts in
                    (deposit_ngp(one, 32, BOXSIZE) for one in drawn)], axis=0)
    assert np.mean(mean / power) == pytest.approx(1, abs=0.05)
    found = hod.fit([(halos, drawn[0], BOXSIZE)], k_maximum=0.4, centrals=False)
    assert not found.centrals
    central, number = hod.expected(halos, found)
    assert np.sum(central * number) == pytest.approx(len(drawn[0]), rel=0.01)


def test_haloes_of_a_test_cube_are_not_counted(halos):
    galaxies = drawn_galaxies(halos, np.ones(6000), np.ones(6000), lambda host: np.zeros((len(host), 3)),
                              np.random.default_rng(0))
    left, kept = baseline.outside(halos, galaxies, 20.0)
    inside = np.all(halos["position"] >= 20, axis=1)
    assert len(left["mass"]) == np.sum(~inside) and 0 < inside.sum()
    np.testing.assert_array_equal(left["position"][kept["halo"]], kept["position"])


def test_galaxies_that_are_in_no_halo_are_said(halos, caplog):
    galaxies = drawn_galaxies(halos, np.ones(6000), np.ones(6000), lambda host: np.zeros((len(host), 3)),
                              np.random.default_rng(0))
    galaxies["halo"][::4] = -1
    number = len(galaxies["halo"])
    alone = int(np.ceil(number / 4))
    assert occupation.measure([(halos, galaxies, BOXSIZE)]).uncounted == alone / number
    baseline.say_uncounted([(halos, galaxies, BOXSIZE)], ["box.h5"])
    assert caplog.messages == [f"box.h5: {alone} of {number} galaxies are in no halo that is counted (halo -1): an "
                               "occupation leaves them out"]


def test_halo_models_survive_their_files(tmp_path, halos):
    made = drawn_galaxies(halos, np.full(6000, 0.5), np.ones(6000), lambda host: 0.1 * np.ones((len(host), 3)),
                          np.random.default_rng(0))
    for number, model in enumerate((HOD(11.5, 12.8, 1.0, centrals=False),
                                    occupation.measure([(halos, made, BOXSIZE)], 4, "measured"))):
        model = dataclasses.replace(model, domain={"redshift_final": [0.0, 0.5], "simulations": ["box.h5"]})
        baseline.write(tmp_path / f"{number}.json", model)
        again = baseline.read(tmp_path / f"{number}.json")
        assert again == model and again.domain == model.domain and baseline.words(model)
    with pytest.raises(SettingError, match="fit='best'"):
        baseline.fit([], "best")


def test_an_occupation_is_counted_by_the_command_and_put_into_haloes(painted, tmp_path, invoke):
    said = invoke("cascade", "hod", painted[0], painted[1], "--fit", "occupation", "--output", tmp_path / "hod.json",
                  "--populate", painted[2], "--catalogue", tmp_path / "galaxies.h5").stdout
    assert "counted in" in said and isinstance(baseline.read(tmp_path / "hod.json"), Occupation)
    with Simulation(painted[2]) as simulation, h5py.File(tmp_path / "galaxies.h5") as file:
        assert 0.4 < len(file["galaxies/position"]) / len(simulation["galaxies/position"]) < 2.5
    bare = tmp_path / "bare.h5"
    shutil.copy(painted[0], bare)
    with h5py.File(bare, "r+") as file:
        del file["galaxies/halo"]
    done = invoke("cascade", "hod", bare, "--fit", "occupation", "--output", tmp_path / "no.json", check=False)
    assert done.returncode == 1 and "does not say in which halo its galaxies are" in done.stderr
    for flag, value in (("--catalogue", "out.h5"), ("--seed", 3)):
        done = invoke("cascade", "hod", painted[0], flag, value, "--output", tmp_path / "no.json", check=False)
        assert done.returncode == 2 and f"{flag} needs --populate" in done.stderr


def test_a_network_without_its_training_simulations_says_so_in_one_line(painted, caplog):
    run = kg.load("cascade-demo")
    assert evaluate.bars_of(run, None, [painted[2]]) == evaluate.Bars({})
    [record] = caplog.records
    assert record.getMessage() == (
        "no halo model and no boosted trees to compare with: the data that this network was trained on do not come "
        "with it; `kerasgal cascade hod` fits one to simulations with galaxies, for hod='hod.json'")
    caplog.clear()
    model = HOD(11.5, 12.8, 1.0)
    assert evaluate.bars_of(run, model, [painted[2]]) == evaluate.Bars({"halo model": model})
    [record] = (record for record in caplog.records if record.levelname == "WARNING")
    assert record.getMessage().startswith("no halo model but that given and no boosted trees to compare with: ")
    assert record.getMessage().endswith("do not come with it")


# Trees

def test_trees_find_the_galaxies_of_a_box_that_they_did_not_see(painted):
    fitted = trees.fit([painted[0]], [painted[1]], CONFIG)
    density, counts = data.load(painted[2], CONFIG)
    expected = fitted.predict(density)
    assert expected.shape == counts.shape and (expected >= 0).all()
    assert expected.sum() == pytest.approx(counts.sum(), rel=0.5)
    blurred = np.corrcoef(expected.ravel(), counts.ravel())[0, 1]
    assert blurred > 0.4 and np.corrcoef(density.ravel(), counts.ravel())[0, 1] < 0.7
    assert fitted.predict(np.full((16, 16, 16), 1e-3, np.float32)).sum() == 0


def test_trees_of_a_split_simulation_know_nothing_of_its_test_cube(painted, monkeypatch):
    density, counts = data.load(painted[0], CONFIG)
    seen = []
    monkeypatch.setattr(trees, "fitted", lambda model, inside, apart, seed: seen.append((inside, apart)))
    config = CONFIG.__class__(**{**CONFIG.__dict__, "patch": 8})
    trees.fit([painted[0]], [], config)
    (inside, apart), = seen
    test = np.zeros(density.shape, bool)
    corner = data.test_corner(32, 8)
    test[corner:, corner:, corner:] = True
    assert not (inside[0][2] & test).any() and not (apart[0][2] & test).any() and not (inside[0][2] & apart[0][2]).any()
    assert (inside[0][2] | apart[0][2] | test).all()


def test_bars_that_cannot_be_made_are_said(painted, tmp_path, caplog, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    run = kg.Cascade(CONFIG, {}, folder=tmp_path)
    assert evaluate.bars_of(run, None, [painted[2]]) == evaluate.Bars({})
    [record] = caplog.records
    assert record.getMessage().startswith("no halo model and no boosted trees to compare with: ")
    assert "does not say which data it was trained on" in caplog.text
    (tmp_path / "regress").mkdir()
    run_folder.write_json({"data": {"training": [str(painted[0])], "validation": [str(painted[1])]}},
                          tmp_path / "regress" / run_folder.PROVENANCE)
    found = evaluate.bars_of(run, HOD(11.5, 12.8, 1.0), [painted[2]])
    assert "install kerasgal[baseline]" in caplog.text and found.trees is None
    assert set(found.halo_models) == set(baseline.NAMES.values())
    assert found.halo_models["halo model"] == HOD(11.5, 12.8, 1.0)


def test_errors_of_runs_that_are_compared_are_summed_over_the_same_cubes(monkeypatch):
    rng = np.random.default_rng(0)
    keys = [("runs", "first"), ("runs", "second")]
    truth, found = rng.poisson(0.5, (16, 16, 16)), rng.uniform(0, 1, (16, 16, 16))
    sample = evaluate.Sample(20.0, rng.uniform(0.5, 2, (16, 16, 16)), {TRUTH: [truth]} | {key: [found] for key in keys},
                             dict.fromkeys(keys, found), dict.fromkeys(keys, POISSON))
    monkeypatch.setattr(evaluate, "collect", lambda *given: (sample, []))
    runs = [SimpleNamespace(config=SimpleNamespace(patch=patch)) for patch in (8, 4)]
    _, rows, *_ = evaluate.measure_one((keys, SimpleNamespace(get=lambda: runs), None, "box.h5", runs[0].config, None,
                                        False, False))
    errors = (found - truth).reshape(2, 8, 2, 8, 2, 8).sum(axis=(1, 3, 5))
    for key in keys:
        assert rows[key]["mse_sub"] == pytest.approx(np.mean(errors**2), rel=1e-5)


# Floor and ceiling

def test_the_expectation_of_painted_galaxies_is_the_mean_of_many_paintings(painted):
    with Simulation(painted[2]) as simulation:
        painting, words = baseline.painting(simulation)
        own = paint_galaxies(simulation.halos(), simulation["halo_id"][...].ravel(), simulation["final/position"][...],
                             simulation.boxsize, 7)
        # The rule of the file; what was in double precision in memory is in single precision on the disk.
        np.testing.assert_allclose(own["position"], simulation["galaxies/position"][...], atol=1e-5)
    assert words is None
    drawn = [deposit_ngp(painting.draw(np.random.default_rng(seed))["position"], 16, painting.boxsize)
             for seed in range(200)]
    mean, error = np.mean(drawn, axis=0), np.sqrt(np.var(drawn, axis=0) / 200)
    expected = painting.expected(16)
    assert np.all(np.abs(mean - expected) < 5 * error + 0.03)
    totals = [float(one.sum()) for one in drawn]
    assert float(expected.sum()) == pytest.approx(np.mean(totals), abs=4 * np.std(totals) / np.sqrt(200))
    assert np.var(totals) == pytest.approx(painting.variance(), rel=0.3)


def test_floor_and_ceiling_are_known_of_our_own_galaxies_alone(painted, tmp_path):
    sample, notes = evaluate.collect({}, evaluate.Bars({}), painted[2], CONFIG)
    assert notes == [] and {TRUTH, FLOOR, ORACLE} == set(sample.counts) and sample.masked.any()
    for case, change in (("source", "a hydrodynamic run"), ("number", None)):
        other = tmp_path / f"{case}.h5"
        shutil.copy(painted[2], other)
        with h5py.File(other, "r+") as file:
            if change:
                file.attrs["source"] = change
            for name in ("position", "halo", "central") if not change else ():
                values = np.concatenate([file[f"galaxies/{name}"][...]] * 8)
                del file[f"galaxies/{name}"]
                file[f"galaxies/{name}"] = values
        sample, notes = evaluate.collect({}, evaluate.Bars({}), other, CONFIG)
        assert set(sample.counts) == {TRUTH} and len(notes) == 1
        assert notes[0].startswith("floor and ceiling are unknown: ") and str(other) in notes[0]


def test_the_richest_halo_is_masked_and_nothing_else(painted):
    with Simulation(painted[2]) as simulation:
        halos, host = simulation.halos(), simulation["galaxies/halo"][...]
        found = evaluate.richest_first(simulation)
    richest = np.bincount(host).argmax()
    np.testing.assert_array_equal(found[0][0], halos["position"][richest])
    mask = evaluate.around_richest(found, 12.5, 32, (slice(None),) * 3)
    centre = (np.stack(np.nonzero(mask), axis=1) + 0.5) * 12.5 / 32 - found[0][0]
    distance = np.linalg.norm(centre - 12.5 * np.rint(centre / 12.5), axis=1)
    assert distance.max() <= 2 * found[1][0] and mask.sum() == pytest.approx(
        4 / 3 * np.pi * (2 * found[1][0] * 32 / 12.5)**3, rel=0.2)
    counts = np.random.default_rng(0).poisson(1.0, mask.shape).astype(np.float32)
    counts[mask] += 100
    delta = evaluate.overdensity(counts, mask)
    assert not delta[mask].any() and abs(delta[~mask].mean()) < 1e-5
    far = np.array([[1.0, 1.0, 1.0]]), np.array([0.5])  # its centre is not in the region
    assert evaluate.around_richest(far, 12.5, 32, (slice(16, None),) * 3) is None


def test_evaluation_prints_floor_and_ceiling_beside_every_residual(trained, painted):
    run = kg.load(trained("cascade"))
    judged = run.evaluate(painted[2])
    assert set(judged["bounds"]) == {"another drawing", "exact expectation"}
    assert set(judged["baselines"]) == {*baseline.NAMES.values(), TREES[1]}
    for name in ("another drawing", "exact expectation", "boosted trees", "occupation, NFW"):
        assert any(line.startswith(name) for line in judged.lines)
    ceiling = judged["bounds"]["exact expectation"]
    assert ceiling["calibration_error"]["all"] < judged["runs"]["run"]["calibration_error"]["all"]
    assert ceiling["correlation_by_scale"]["all"] == max(
        entry["correlation_by_scale"]["all"] for kind in ("runs", "baselines", "bounds")
        for entry in judged[kind].values())
    assert len(judged["bounds"]["another drawing"]["power_residual_of_one_drawing"]) == evaluate.DRAWS
    assert {"calibration", "power_spectrum", "bispectrum", "slices"} <= set(judged.figures())
    start = next(place for place, line in enumerate(judged.lines) if line.startswith("assembly bias"))
    names = [line[:34].strip() for line in judged.lines[start + 2:]]
    assert names == ["truth", "run run", *judged["baselines"], *judged["bounds"]]
    assert judged["truth"]["assembly_bias"]["in_haloes"] > 0.9 and "assembly_bias" in judged.figures()
    unknown = judged.metrics | {"bounds": {}, "notes": ["floor and ceiling are unknown: it was not painted"]}
    assert list(evaluate.lines(unknown))[-1] == unknown["notes"][0]
    unknown["truth"].pop("assembly_bias")
    assert not any(line.startswith("assembly") for line in evaluate.lines(unknown))
