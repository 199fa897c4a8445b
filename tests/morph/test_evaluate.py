"""Sets compared by their likelihood ratios: Delta<LLR>, matching, bins and planes on made-up sets of known answer."""

import json

import numpy as np
import pytest
from scipy import ndimage, stats

from kerasgal.apps.morph import differences, evaluate, score, sensitivity
from kerasgal.apps.morph.config import TrainConfig
from kerasgal.apps.morph.run import Morph
from kerasgal.errors import DataError, SettingError
from kerasgal.readers.images import Image

pytestmark = pytest.mark.usefixtures("eager")

pytest.importorskip("galsim")


def test_delta_and_its_error_are_those_of_two_independent_means():
    rng = np.random.default_rng(0)
    llr = {"observed": rng.normal(50, 30, 400), "other": rng.normal(20, 60, 200)}
    found = differences.differences(llr)
    assert found["other"]["delta"] == pytest.approx(llr["other"].mean() - llr["observed"].mean())
    errors = {name: values.std(ddof=1) / len(values)**0.5 for name, values in llr.items()}
    for name, values in llr.items():
        assert found[name]["mean"] == pytest.approx(values.mean()) and found[name]["images"] == len(values)
        assert found[name]["mean_error"] == pytest.approx(errors[name], rel=0.08)
    assert found["other"]["delta_error"] == pytest.approx(np.hypot(*errors.values()), rel=0.08)
    assert "delta" not in found["observed"]


def test_matched_means_are_those_of_random_draws_of_as_many_of_each_set():
    """As Zanisi et al. 2020 match: from each cell as many at random as the set with the fewest has there."""
    rng = np.random.default_rng(1)
    llr, places = {}, {}
    for name, size, shift in (("a", 60, 0), ("b", 90, 1), ("c", 40, 2)):
        places[name] = rng.integers(shift, 6, size)
        llr[name] = places[name] * 3 + rng.normal(0, 1, size)
    drawn = {name: [] for name in llr}
    for _ in range(600):
        picked = {name: [] for name in llr}
        for cell in range(6):
            rows = {name: np.flatnonzero(place == cell) for name, place in places.items()}
            fewest = min(map(len, rows.values()))
            for name, found in rows.items():
                picked[name] += list(llr[name][rng.choice(found, fewest, replace=False)])
        for name, values in picked.items():
            drawn[name].append(np.mean(values))
    found = differences.differences(llr, places, draws=20)
    for name, values in drawn.items():
        assert found[name]["mean"] == pytest.approx(np.mean(values), abs=5 * np.std(values) / 600**0.5 + 1e-9)
    assert found["a"]["images"] == (places["a"] >= 2).sum()  # set c has none in the others


def test_cells_have_as_many_of_the_observed_and_nothing_from_beyond_them():
    rng = np.random.default_rng(2)
    columns = {"observed": {"m": rng.random(500), "n": rng.random(500)**3},
               "other": {"m": np.array([-1, 0.5, 2, np.nan, 0.5]), "n": np.array([0.5, 0.5, 0.5, 0.5, np.inf])}}
    places, bins = differences.cells({"observed": columns["observed"]}, ["m", "n"])
    counts = np.bincount(places["observed"])
    assert bins == 10 and len(counts) == 100 and abs(counts.reshape(10, 10).sum(axis=1) - 50).max() <= 1
    places, bins = differences.cells(columns, ["m", "n"])
    assert bins == 2 and (places["other"] >= 0).tolist() == [False, True, False, False, False]
    assert differences.differences({"a": np.ones(2), "b": np.ones(2)},
                                   {"a": np.array([0, 1]), "b": np.array([-1, 2])}) is None


# The talk's conclusions ----------------------------------------------------------------


def made_up(number, seed, softening, heavier=0.0):
    """Ratios and columns of a simulation whose structure is lost below its softening length [kpc].

    The ratio grows with mass; a share of it is lost, the larger the smaller and the more concentrated a galaxy is.
    heavier: how much heavier, dex, its galaxies are than those of the SDSS on average.
    """
    from kerasgal.apps.morph.archetypes import draw_parameters

    rng = np.random.default_rng(seed)
    drawn = draw_parameters(6 * number, rng)
    keep = rng.random(6 * number) < 0.05 + 0.95 * np.clip((drawn["log_mass"] - 10) / 1.2, 0, 1)**(4 * heavier)
    columns = {name: drawn[name][keep][:number] for name in ("log_mass", "radius", "redshift", "n")}
    columns = differences.with_derived(columns)
    lost = np.clip(softening / columns["radius_kpc"] * columns["n"] / 2, 0, 2)
    return 100 * (columns["log_mass"] - 9.5) - 60 * lost + rng.normal(0, 30, len(lost)), columns


@pytest.fixture(scope="module")
def suites():
    """Observations, three simulations of lower and lower resolution, and one that differs by its masses alone."""
    made = {"observed": made_up(1200, 0, 0.0), "high": made_up(900, 1, 0.3, 0.3), "middle": made_up(900, 2, 0.7, 0.3),
            "low": made_up(900, 3, 1.5, 0.3), "perfect": made_up(900, 4, 0.0, 0.3)}
    return {name: llr for name, (llr, _) in made.items()}, {name: columns for name, (_, columns) in made.items()}


MATCH = ["log_mass", "log_radius", "n"]


def test_a_perfect_simulation_of_other_masses_is_told_from_observations_unless_matched(suites):
    llr, columns = ({name: values[name] for name in ("observed", "perfect")} for values in suites)
    raw = differences.differences(llr)["perfect"]
    matched, _ = differences.matched(llr, columns, MATCH)
    found = matched["sets"]["perfect"]
    assert raw["delta"] > 8 * raw["delta_error"] and raw["delta"] > 10
    assert abs(found["delta"]) < 3 * found["delta_error"] and found["delta_error"] < 3
    assert 0.7 < found["share"] <= 1 and max(map(abs, found["imbalance"].values())) < 0.1


def test_a_galaxy_without_stars_being_made_hides_no_imbalance(suites):
    llr, columns = ({name: values[name] for name in ("observed", "perfect")} for values in suites)
    columns = {name: dict(values) for name, values in columns.items()}
    plain = differences.matched(llr, columns, ["log_mass"])[0]["sets"]["perfect"]["imbalance"]["log_mass"]
    columns["observed"]["log_mass"] = np.where(np.arange(1200) == 0, -np.inf, columns["observed"]["log_mass"])
    found = differences.matched(llr, columns, ["log_mass"])[0]["sets"]["perfect"]["imbalance"]["log_mass"]
    assert np.isfinite(found) and found == pytest.approx(plain, abs=0.02)


def test_lower_resolution_is_worse_and_small_concentrated_galaxies_fare_worst(suites):
    """Zanisi et al.'s summary, on sets for which it is true."""
    llr, columns = suites
    matched, places = differences.matched(llr, columns, MATCH)
    found = matched["sets"]
    assert found["perfect"]["delta"] > found["high"]["delta"] > found["middle"]["delta"] > found["low"]["delta"]
    assert found["low"]["delta"] < -10 * found["low"]["delta_error"]
    rows = differences.by_bins(llr, columns, places)
    assert set(rows) == {"log_mass", "n"}  # no star formation
    for name in ("high", "middle", "low"):
        disc, concentrated = (row for row in rows["n"] if row["set"] == name)
        assert disc["high"] == concentrated["low"] == 2.5
        assert concentrated["delta"] < disc["delta"] - 2 * np.hypot(disc["delta_error"], concentrated["delta_error"])
    planes = differences.planes(llr, columns, [("log_mass", "log_radius"), ("n", "log_radius"), ("n", "nothing")])
    assert set(planes) == {("log_mass", "log_radius"), ("n", "log_radius")}
    low = planes["n", "log_radius"]["sets"]["low"]["difference"]
    assert np.nanmean(low[:, :3]) < np.nanmean(low[:, 5:]) - 20  # small; large
    assert np.nanmean(low[5:, :4]) < np.nanmean(low[:3, :4]) - 20  # small and concentrated; small


def test_planes_have_scipys_means_where_there_are_galaxies_enough(suites):
    llr, columns = suites
    plane = differences.planes(llr, columns, [("n", "log_mass")], bins=5, fewest=4)["n", "log_mass"]
    x, y = (columns["high"][name] for name in ("n", "log_mass"))
    edges = [plane["x"], plane["y"]]
    mean, images = (stats.binned_statistic_2d(x, y, llr["high"], kind, bins=edges)[0] for kind in ("mean", "count"))
    found = plane["sets"]["high"]
    np.testing.assert_array_equal(found["images"], images)
    np.testing.assert_allclose(found["mean"], np.where(images >= 4, mean, np.nan))
    np.testing.assert_array_equal(found["difference"], found["mean"] - plane["sets"]["observed"]["mean"])


def test_columns_that_follow_from_others():
    made = differences.with_derived({"radius": np.array([1.0, 2.0]), "redshift": np.array([0.05, -1]),
                                     "log_mass": np.array([10.0, 11]), "sfr": np.array([1.0, 0])})
    assert made["radius_kpc"][0] == pytest.approx(0.977, abs=2e-3)  # Wright's calculator: 0.977 kpc/" for 70, 0.3
    assert np.isnan(made["radius_kpc"][1]) and made["log_radius"][0] == np.log10(made["radius_kpc"][0])
    assert made["log_ssfr"].tolist() == [-10, -np.inf]
    assert "log_radius" not in differences.with_derived({"radius": np.ones(2)})


def test_sets_without_the_columns_are_not_matched_and_that_is_said(suites, caplog):
    llr, columns = ({name: values[name] for name in ("observed", "high", "low")} for values in suites)
    columns = columns | {"low": {"n": columns["low"]["n"]}}
    made, places, notes = evaluate.match_sets(llr, columns, ["log_mass", "n"])
    assert set(made["sets"]) == set(places) == {"observed", "high"}
    assert "low is not matched: it has no column log_mass" in notes and notes[0] in caplog.text
    with pytest.raises(SettingError, match="match=sfr: observed has no column sfr; its numbers are log_mass, log_rad"):
        evaluate.match_sets(llr, columns, ["sfr"])
    with pytest.raises(SettingError, match="match=log_mass: low has no column log_mass; its numbers are n"):
        evaluate.match_sets({name: llr[name] for name in ("observed", "low")},
                            {name: columns[name] for name in ("observed", "low")}, ["log_mass"])
    far = {name: {"n": np.full(len(llr[name]), value)} for name, value in (("observed", 1.0), ("high", 2.0))}
    with pytest.raises(DataError, match="no galaxies of all sets, observed, high, are alike in n"):
        evaluate.match_sets({name: llr[name] for name in far}, far, ["n"])


# Sensitivity ---------------------------------------------------------------------------


def test_a_wider_point_spread_function_keeps_the_noise_and_adds_in_squares():
    rng, deviation, noise = np.random.default_rng(3), 0.45, 5.0
    white = rng.normal(0, noise, (256, 256))
    made = sensitivity.blurred(white, deviation, noise, rng)
    assert made.std() == pytest.approx(noise, rel=0.02)
    for shift in ((0, 1), (1, 1), (2, 0)):
        assert abs(np.mean(made * np.roll(made, shift, (0, 1)))) < 0.02 * noise**2
    assert ndimage.gaussian_filter(white, deviation).std() < 0.75 * noise  # which a blur alone takes
    y, x = np.mgrid[:65, :65] - 32
    wide = 1.5**2 + deviation**2
    expected = 1.5**2 / wide * np.exp(-0.5 * (x**2 + y**2) / wide)
    np.testing.assert_allclose(sensitivity.blurred(np.exp(-0.5 * (x**2 + y**2) / 1.5**2), deviation, 0, rng), expected,
                               atol=1e-6)


# Networks' place -----------------------------------------------------------------------


def stand_in(run, images):
    """ln p of pixels about the local mean: of the noise alone, or also of structure in proportion to the light."""
    images = images[..., 0]
    mean = ndimage.gaussian_filter(images, (0, 1, 1))
    noise = 0.0025
    return tuple(stats.norm.logpdf(images, mean, np.hypot(noise, share * mean)) for share in (0.05, 0.0))


@pytest.fixture
def run(monkeypatch):
    monkeypatch.setattr(score, "likelihood_maps", stand_in)
    return Morph(TrainConfig(rebin="mean"), {}, domain={"unit": ["counts"], "zero_point": [28.26, 28.26]})


@pytest.fixture(scope="module")
def kinds():
    """The same 30 galaxies as three kinds show them, (image, columns) each."""
    from kerasgal.apps.morph import mock

    return {kind: [(galaxy.pop("image"), galaxy) for galaxy in mock.galaxies(30, kind, seed=5)]
            for kind in ("real", "fine", "smooth")}


def images_of(galaxies, **options):
    return [Image(str(number), pixels, columns=columns, unit="counts", zero_point=28.26, pixel_scale=0.396, **options)
            for number, (pixels, columns) in enumerate(galaxies)]


@pytest.mark.slow  # the same of made-up ratios is above, and test_commands.py evaluates images
def test_made_up_galaxies_of_lower_resolution_are_worse(run, kinds):
    sets = {kind: lambda kind=kind: iter(images_of(kinds[kind], psf_fwhm=1.32)) for kind in kinds}
    found = evaluate.evaluate(run, sets, match=["log_mass", "n"], control="sky")
    entries = found["sets"]
    assert 0 > entries["fine"]["delta"] > entries["smooth"]["delta"]
    assert abs(entries["sky"]["llr"]["mean"]) < 0.1 * entries["real"]["llr"]["mean"]
    assert entries["sky"]["images"] == 30 and "sky" not in found["matched"]["sets"]
    # The same galaxies: nothing but their structure differs, and matching has nothing to do.
    for name in ("fine", "smooth"):
        assert found["matched"]["sets"][name]["delta"] == pytest.approx(entries[name]["delta"], rel=1e-9)
        assert found["matched"]["sets"][name]["share"] == 1
    assert found["sensitivity"]["images"] == 30
    assert found["sensitivity"]["psf"]["llr"] < 0 < found["sensitivity"]["noise"]["llr"]
    assert {"log_mass", "n"} == set(found["bins"]) and json.dumps(found.metrics)
    assert ("log_mass", "log_radius") in found.planes
    text = "\n".join(found.lines)
    for words in ("Delta<LLR>", "matched in log_mass, n, 2 bins of each", "by n, matched:", "a PSF 5% wider by -"):
        assert words in text, text


def never():
    """A set that is not to be read."""
    raise AssertionError("what is missing should have been said before")


def test_a_set_of_empty_fields_is_scored_where_it_is_the_control(run, kinds):
    """And a PSF of which nobody says the width is said to be unknown."""
    rng = np.random.default_rng(4)
    empty = [(rng.normal(0, 5.5, (128, 128)).astype("f4"), {}) for _ in range(12)]
    sets = {"observed": lambda: iter(images_of(kinds["real"][:12])), "fields": lambda: iter(images_of(empty))}
    found = evaluate.evaluate(run, sets, control="fields")
    assert found["sets"]["fields"]["images"] == 12 and found["sets"]["fields"]["delta"] < 0
    assert found["sensitivity"]["psf"] is None and "the width of the PSF is not known" in found.lines[-1]
    with pytest.raises(DataError, match="show no galaxy"):
        evaluate.evaluate(run, sets)
    with pytest.raises(SettingError, match="match=log_mass,size: observed has no column size; its numbers are"):
        evaluate.evaluate(run, {"observed": sets["observed"], "fields": never}, match=["log_mass", "size"])
    with pytest.raises(SettingError, match="match=n: there is no other set than observed to match"):
        evaluate.evaluate(run, {"observed": sets["observed"]}, match=["n"])
    with pytest.raises(SettingError, match="control=observed: the first set is that of the observed"):
        run.evaluate({"observed": np.zeros((1, 64, 64)), "other": np.zeros((1, 64, 64))}, control="observed")
