"""Made-up galaxies: their structure, kind by kind, and the Sersic profile that comes close."""

import numpy as np
import pytest

from kerasgal.apps.morph import mock
from kerasgal.apps.morph.archetypes import (
    Camera, Canvas, archetypes, moffat_psf, sersic_parameters, smooth_stamp)
from kerasgal.apps.morph.fitting import fit_sersic
from kerasgal.errors import DataError

CAMERA, SIZE, NUMBER = Camera(), 96, 40
SERSIC = ("flux", "radius", "n", "axis_ratio", "angle")


@pytest.fixture(scope="module")
def psf():
    return moffat_psf(mock.FWHM, CAMERA)


@pytest.fixture(scope="module")
def canvas(psf):
    return Canvas(SIZE, psf, CAMERA)


@pytest.fixture(scope="module")
def kinds():
    """The same galaxies in every kind."""
    return {kind: list(mock.galaxies(NUMBER, kind, seed=3, size=SIZE)) for kind in mock.KINDS}


def images(galaxies):
    return np.array([galaxy["image"] for galaxy in galaxies])


def columns(galaxies, names):
    return {name: np.array([galaxy[name] for galaxy in galaxies]) for name in names}


def test_galaxies_are_of_the_seed_and_the_index(kinds):
    again = list(mock.galaxies(2, "real", seed=3, size=SIZE, first=5))
    np.testing.assert_array_equal(images(again), images(kinds["real"][5:7]))
    assert [galaxy["id"] for galaxy in again] == [5, 6]
    other = next(mock.galaxies(1, "real", seed=4, size=SIZE))
    assert other["flux"] != kinds["real"][0]["flux"]
    assert again[0]["image"].shape == (SIZE, SIZE) and again[0]["image"].dtype == np.float32


def test_discs_with_arms_form_stars_and_others_do_not(kinds):
    rates = columns(kinds["real"], ["type", "log_ssfr"])
    spiral = rates["type"] == mock.TYPES.index("spiral")
    assert 5 < spiral.sum() < NUMBER - 5
    assert rates["log_ssfr"][spiral].min() > -11 > rates["log_ssfr"][~spiral].max()  # where `evaluate` cuts
    assert 0.1 < rates["log_ssfr"][spiral].std() < 0.4


def test_kinds_show_the_same_galaxies_with_other_noise(kinds):
    for kind in ("fine", "smooth"):
        for one, two in zip(kinds["real"], kinds[kind]):
            assert {name: value for name, value in one.items() if name != "image"} == \
                {name: value for name, value in two.items() if name != "image"}
    # Differences of neighbouring pixels, which have no light of the galaxies left
    corner = np.array([np.diff(images(galaxies)[:, :12, :12]).ravel() for galaxies in kinds.values()])
    assert np.abs(np.corrcoef(corner)[np.triu_indices(3, 1)]).max() < 0.1
    assert corner.std() == pytest.approx((2 * (CAMERA.sky / CAMERA.gain + CAMERA.dark_variance))**0.5, rel=0.05)


def test_structure_dwindles_from_real_to_fine_to_smooth_to_archetypes(kinds, canvas, psf):
    """What images have more than their smooth profile, after the preparation that the networks see them in."""
    table = sersic_parameters(columns(kinds["real"], ("id", *SERSIC)), CAMERA, "mock")
    rows = [{name: column[i] for name, column in table.items()} for i in range(NUMBER)]
    smooth = np.array([smooth_stamp(row, canvas) for row in rows])
    sets = {**kinds, "archetypes": list(archetypes(table, CAMERA, psf, SIZE, seed=1))}

    def prepared(image):
        centre = image[:, SIZE // 2 - 32:SIZE // 2 + 32, SIZE // 2 - 32:SIZE // 2 + 32]
        return np.clip(np.arcsinh(centre.reshape(-1, 32, 2, 32, 2).mean(axis=(2, 4)) / 1000), 0, 1)

    spiral = columns(kinds["real"], ("type",))["type"] == mock.TYPES.index("spiral")
    rms = np.array([np.sqrt(((prepared(images(galaxies)) - prepared(smooth))**2).mean(axis=(1, 2)))
                    for galaxies in sets.values()])
    real, fine, smoothed, archetype = rms[:, spiral].mean(axis=1)
    assert real > 1.15 * fine > 1.15 * 1.15 * smoothed > 1.15 * 1.15 * 1.5 * archetype
    assert (np.diff(rms[:, spiral], axis=0) < 0).mean(axis=1).min() > 0.9
    real, fine, smoothed, archetype = rms[:, ~spiral].mean(axis=1)
    assert min(real, fine, smoothed) > 1.1 * archetype


def test_galaxies_fill_the_middle_and_the_stretch(kinds):
    image = images(kinds["real"])
    middle = image[:, SIZE // 2 - 32:SIZE // 2 + 32, SIZE // 2 - 32:SIZE // 2 + 32].sum(axis=(1, 2))
    flux = columns(kinds["real"], ("flux",))["flux"]
    assert np.median(middle / flux) > 0.9
    np.testing.assert_allclose(np.median(image.sum(axis=(1, 2)) / flux), 1, atol=0.05)
    assert 300 < np.median(image.max(axis=(1, 2))) < 3000  # counts, of which 1175 are stretched to 1
    table = columns(kinds["real"], ("type", "log_mass", "redshift", *SERSIC))
    assert set(table["type"]) == {0, 1, 2}
    assert 10 <= table["log_mass"].min() and table["log_mass"].max() <= 11.5
    sersic_parameters(table, CAMERA, "mock")  # raises where it could not be drawn


def test_structure_moves_light_and_makes_none(canvas):
    for index in range(10):
        rng = np.random.default_rng([8, index])
        galaxy = mock.draw_galaxy(rng, CAMERA)
        structure = mock.disc_structure(galaxy, "real", canvas, rng)
        assert structure.sum() == pytest.approx(0, abs=1e-4 * galaxy["disc"][0])


def test_smoothing_keeps_the_large_and_takes_the_small(canvas):
    """In Fourier space, the ratio of smooth to real structure is the Gaussian of the smoothing, if clumps are away."""
    rng = np.random.default_rng(1)
    galaxy = {**mock.draw_galaxy(rng, CAMERA), "clumps": 0.0, "arms": 2, "strength": 0.8, "texture": 0.3, "bar": None}
    found = {}
    for kind in ("real", "smooth"):
        bare = {**galaxy, "arms": 0, "texture": 0.0, "lane": 0.0}
        stamps = [mock.draw_stamp(each, kind, canvas, np.random.default_rng(2)) for each in (galaxy, bare)]
        found[kind] = np.abs(np.fft.fft2(stamps[0] - stamps[1]))[0, 1:12]
    sigma = mock.KINDS["smooth"].smoothing / galaxy["kpc"] / CAMERA.pixel_scale / np.sqrt(8 * np.log(2))
    expected = np.exp(-0.5 * (2 * np.pi * np.arange(1, 12) / SIZE * sigma)**2)
    np.testing.assert_allclose(found["smooth"] / found["real"], expected, atol=0.06)  # stamps have edges


def test_one_part_alone_is_itself():
    part = (1000.0, 3.0, 2.5, 0.4, 165.0)
    found = mock.one_component([part])
    np.testing.assert_allclose([found[name] for name in SERSIC], part, rtol=5e-3)


def test_one_component_is_near_the_best_fit(canvas, psf):
    for bulge in (0.1, 0.3, 0.5):
        parts = [(bulge * 1e5, 1.5, 2.0, 0.8, 40.0), ((1 - bulge) * 1e5, 4.5, 1.0, 0.5, 40.0)]
        stamp = sum(smooth_stamp(dict(zip(SERSIC, part)), canvas) for part in parts)
        found, best = mock.one_component(parts), fit_sersic(stamp, psf, CAMERA)
        assert found["angle"] == pytest.approx(40)
        for name in ("flux", "radius", "axis_ratio"):
            assert found[name] == pytest.approx(best[name], rel=0.15), (bulge, name)
        assert found["n"] == pytest.approx(best["n"], rel=0.25)


def test_a_bar_is_foreshortened_with_its_disc():
    """Points within the bar's ellipse in the disc, seen from the side: the moments of where they are."""
    point = np.random.default_rng(0).uniform(-1, 1, (2, 400_000))
    x, y = 2.0 * point[:, (point**2).sum(axis=0) < 1] * [[1], [0.3]]
    turn, ratio = 0.7, 0.5
    x, y = x * np.cos(turn) - y * np.sin(turn), ratio * (x * np.sin(turn) + y * np.cos(turn))
    (small, large), axes = np.linalg.eigh(4 * np.cov(x, y))  # an ellipse's moments are a quarter of its axes squared
    radius, _, flatness, angle = mock._inclined(2.0, 0.3, turn, ratio, 20.0)
    assert radius == pytest.approx(large**0.5, rel=0.01)
    assert flatness == pytest.approx((small / large)**0.5, rel=0.01)
    expected = 20 + np.rad2deg(np.arctan2(axes[1, 1], axes[0, 1]))
    assert (angle - expected + 90) % 180 - 90 == pytest.approx(0, abs=0.5)


def test_unknown_kind():
    with pytest.raises(DataError, match="unknown kind 'rough'; accepted are real, fine, smooth"):
        next(mock.galaxies(1, "rough"))
