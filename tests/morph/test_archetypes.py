"""Sersic archetypes: light, shape and noise of what is drawn, tables of parameters, distributions, sky and fits."""

import warnings

import galsim
import numpy as np
import pytest
from astropy import units
from astropy.cosmology import FlatLambdaCDM
from astropy.io import fits
from astropy.table import MaskedColumn, Table
from scipy.special import gammainc
from scipy.stats import kstest

from kerasgal import imageset
from kerasgal.apps.morph import archetypes as sersic_archetypes
from kerasgal.apps.morph import catalogues, sets
from kerasgal.apps.morph.archetypes import (
    Camera, Canvas, archetypes, border_skies, draw_parameters, drawable_n, gaussian_psf, moffat_psf,
    note_on_n, observe, read_parameters, read_psf, sersic, sersic_parameters, smooth_stamp)
from kerasgal.apps.morph.fitting import FLAGS, fit_sersic, neighbours
from kerasgal.errors import DataError, SettingError
from kerasgal.tables import write_table

CAMERA = Camera()
GALAXY = {"flux": 1e5, "radius": 4.0, "n": 1.0, "axis_ratio": 0.5, "angle": 30.0}


@pytest.fixture(scope="module")
def psf():
    return moffat_psf(1.32, CAMERA)


def columns(**changed):
    """Good columns of two galaxies, some of them changed or, where None, left out."""
    good = {"id": [7, 9], "magnitude": [15.0, 16.0], "radius": [3.0, 2.0], "n": [1.0, 4.0], "axis_ratio": [0.5, 1.0],
            "angle": [10.0, 20.0], **changed}
    return {name: np.array(values) for name, values in good.items() if values is not None}


def moments(image):
    """Flux, centre (x, y) from the image's middle, and second moments xx, yy, xy, in pixels."""
    y, x = (axis - (side - 1) / 2 for axis, side in zip(np.indices(image.shape), image.shape))
    flux = image.sum()
    x0, y0 = (x * image).sum() / flux, (y * image).sum() / flux
    return flux, (x0, y0), [(a * b * image).sum() / flux for a, b in ((x - x0, x - x0), (y - y0, y - y0),
                                                                      (x - x0, y - y0))]


@pytest.mark.parametrize("size", [64, 75])
@pytest.mark.parametrize("changed", [
    {}, {"n": 4.0, "radius": 2.0}, {"x_offset": 3.3, "y_offset": -7.6, "angle": 120.0},
])
def test_stamp_is_what_galsim_itself_draws(size, changed, psf):
    galaxy = {**GALAXY, **changed}
    profile = sersic(*(galaxy[name] for name in ("flux", "radius", "n", "axis_ratio", "angle")))
    offset = galsim.PositionD(galaxy.get("x_offset", 0.0), galaxy.get("y_offset", 0.0))
    image = galsim.Convolve([profile, psf]).drawImage(nx=size, ny=size, scale=CAMERA.pixel_scale, method="no_pixel",
                                                      offset=offset)
    found = smooth_stamp(galaxy, Canvas(size, psf, CAMERA))
    np.testing.assert_allclose(found, image.array, atol=2e-4 * image.array.max())


@pytest.mark.parametrize("n", [0.5, 1.0, 2.5])
def test_light_within_ellipses_follows_the_sersic_profile(n):
    """The flux within an ellipse of semi-major axis a is gammainc(2n, b (a / r)^(1/n)) of the total."""
    galaxy = {**GALAXY, "n": n, "radius": 8.0, "axis_ratio": 0.6}
    stamp = smooth_stamp(galaxy, Canvas(256, gaussian_psf(0.6, CAMERA), CAMERA))
    y, x = (axis - 127.5 for axis in np.indices(stamp.shape))
    turn = np.deg2rad(galaxy["angle"])
    ellipse = np.hypot(x * np.cos(turn) + y * np.sin(turn), (y * np.cos(turn) - x * np.sin(turn)) / 0.6)
    b = sersic_archetypes.sersic_b(n)
    for share in (0.5, 1, 2):
        expected = gammainc(2 * n, b * share**(1 / n))
        radius = share * galaxy["radius"] / CAMERA.pixel_scale
        assert stamp[ellipse < radius].sum() / galaxy["flux"] == pytest.approx(expected, abs=0.01)
    assert gammainc(2 * n, b) == pytest.approx(0.5)


def test_gaussians_moments_add_up():
    """A Sersic profile of n = 1/2 is a Gaussian; its moments, the seeing's and a pixel's add up."""
    galaxy, scale = {**GALAXY, "n": 0.5}, CAMERA.pixel_scale
    stamp = smooth_stamp(galaxy, Canvas(128, gaussian_psf(2.0, CAMERA), CAMERA))
    flux, centre, (xx, yy, xy) = moments(stamp)
    own = np.array([galaxy["radius"], 0.5 * galaxy["radius"]])**2 / (2 * np.log(2)) / scale**2
    seeing = (2.0 / scale)**2 / (8 * np.log(2)) + 1 / 12
    turn = np.deg2rad(galaxy["angle"])
    assert flux == pytest.approx(1e5, rel=1e-4)
    np.testing.assert_allclose(centre, 0, atol=1e-6)
    cosine, sine = np.cos(turn), np.sin(turn)
    expected = [seeing + own @ [cosine**2, sine**2], seeing + own @ [sine**2, cosine**2],
                (own[0] - own[1]) * sine * cosine]
    np.testing.assert_allclose([xx, yy, xy], expected, rtol=1e-3)


def test_observed_noise_is_that_of_electrons():
    rng = np.random.default_rng(0)
    stamp = np.repeat([[0.0], [300.0]], 100_000, axis=1)
    observed = observe(stamp, CAMERA, rng)
    assert observed.dtype == np.float32
    variance = (stamp[:, 0] + CAMERA.sky) / CAMERA.gain + CAMERA.dark_variance
    np.testing.assert_allclose(observed.mean(axis=1), stamp[:, 0], atol=5 * (variance.max() / 1e5)**0.5)
    np.testing.assert_allclose(observed.var(axis=1), variance, rtol=0.02)
    sky = rng.normal(0, 7, stamp.shape)
    on_sky = observe(stamp, CAMERA, rng, sky) - sky
    np.testing.assert_allclose(on_sky[0], 0, atol=1e-4)
    assert on_sky[1].var() == pytest.approx(300 / CAMERA.gain, rel=0.02)


def test_the_default_camera_has_the_noise_of_sdss_frames(shared_data):
    for name in ("ic3478rss_256", "n3073rss_small", "vcc1512rss_cutout"):
        border = fits.getdata(shared_data / "imfit_sdss" / f"{name}.fits")[:15].astype(float)
        empty = observe(np.zeros((100, 100)), CAMERA, np.random.default_rng(0))
        deviation = 1.4826 * np.median(np.abs(border - np.median(border)))
        assert empty.std() == pytest.approx(deviation, rel=0.15)


def test_archetypes_are_the_same_for_the_same_seed(psf):
    table = sersic_parameters(draw_parameters(3, np.random.default_rng(1)), CAMERA, "drawn")
    first, again = (list(archetypes(table, CAMERA, psf, size=32, seed=5)) for _ in range(2))
    other = next(archetypes(table, CAMERA, psf, size=32, seed=6))
    assert [galaxy["id"] for galaxy in first] == [0, 1, 2]
    assert first[0]["image"].shape == (32, 32) and first[0]["image"].dtype == np.float32
    for one, two in zip(first, again):
        np.testing.assert_array_equal(one["image"], two["image"])
    noise = [galaxy["image"] - smooth_stamp(galaxy, Canvas(32, psf, CAMERA)) for galaxy in (*first, other)]
    assert abs(np.corrcoef([n.ravel() for n in noise])[np.triu_indices(4, 1)]).max() < 0.15


def test_n_outside_galsims_range_is_drawn_with_the_nearest(psf):
    for n in (0.29, 6.21):
        with pytest.raises(galsim.GalSimRangeError):
            galsim.Sersic(n=n, half_light_radius=1.0)
    table = sersic_parameters(columns(n=[0.1, 8.0]), CAMERA, "table")
    assert note_on_n(table).startswith("2 of 2 galaxies have n outside 0.3 to 6.2")
    assert note_on_n(sersic_parameters(columns(), CAMERA, "table")) is None
    assert [galaxy["n"] for galaxy in archetypes(table, CAMERA, psf, size=16)] == [0.3, 6.2]
    assert drawable_n(1.26) == 1.3


def test_archetypes_on_real_sky(psf):
    table = sersic_parameters(columns(magnitude=[40.0, 40.0]), CAMERA, "table")
    skies = np.random.default_rng(0).normal(0, 6, (3, 40, 50)).astype(np.float32)
    for galaxy in archetypes(table, CAMERA, psf, size=40, skies=skies):
        # Without light, the image has the values of a part of one of the skies.
        found = np.sort(galaxy["image"].ravel())
        parts = [np.sort(sky[:, column:column + 40].ravel()) for sky in skies for column in range(11)]
        assert any(np.array_equal(found, part) for part in parts)
    with pytest.raises(DataError, match="at least 64 x 64"):
        next(archetypes(table, CAMERA, psf, size=64, skies=skies))


def test_border_skies_have_the_noise_but_not_the_sources():
    rng = np.random.default_rng(2)
    images = [3.0 + rng.normal(0, 5, (100, 90)) for _ in range(2)]
    images[0][40:60, 40:60] += 1000  # the galaxy
    images[0][2:6, 3:7] += 200  # a neighbour at the border
    images[1][40:60, :] += 20  # a wing that reaches the border
    skies = border_skies(images, 10, 64, rng)
    assert skies.shape == (10, 64, 64) and skies.dtype == np.float32
    assert skies.max() < 30
    np.testing.assert_allclose(skies.std(axis=(1, 2)), 5, rtol=0.1)
    np.testing.assert_allclose(skies.mean(axis=(1, 2)), 0, atol=1.0)
    with pytest.raises(DataError, match="no border of 16 pixels"):
        border_skies([np.zeros((10, 10))], 1, 32, rng)


def test_psf_image_is_as_good_as_its_formula(tmp_path, psf):
    image = psf.drawImage(nx=41, ny=41, scale=CAMERA.pixel_scale, method="no_pixel").array
    fits.writeto(tmp_path / "psf.fits", 3 * image)
    one, two = (smooth_stamp(GALAXY, Canvas(64, each, CAMERA))
                for each in (psf, read_psf(tmp_path / "psf.fits", CAMERA)))
    np.testing.assert_allclose(one, two, atol=0.005 * one.max())  # the formula has more wings


def test_psf_file_errors(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_psf(tmp_path / "none.fits", CAMERA)
    (tmp_path / "text.fits").write_text("nothing")
    with pytest.raises(DataError, match="not a FITS file"):
        read_psf(tmp_path / "text.fits", CAMERA)
    fits.writeto(tmp_path / "cube.fits", np.ones((2, 3, 4)))
    with pytest.raises(DataError, match=r"it has \(2, 3, 4\)"):
        read_psf(tmp_path / "cube.fits", CAMERA)
    fits.writeto(tmp_path / "zero.fits", np.zeros((3, 4)))
    with pytest.raises(DataError, match="the sum is 0"):
        read_psf(tmp_path / "zero.fits", CAMERA)


def test_tables_in_units_and_under_other_names_say_the_same(tmp_path):
    expected = sersic_parameters(columns(), CAMERA, "columns")
    np.testing.assert_allclose(expected["flux"], 10**(0.4 * (28.26 - np.array([15.0, 16.0]))))
    flux = 10**(0.4 * (22.5 - np.array([15.0, 16.0])))  # nanomaggies
    Table({"OBJID": [7, 9], "Flux": flux, "R_e": [3.0, 2.0] * units.arcsec, "sersic_n": [1.0, 4.0],
           "b_a": [0.5, 1.0], "PA": np.deg2rad([-80.0, -70.0]) * units.rad}).write(tmp_path / "t.fits")
    with fits.open(tmp_path / "t.fits", "update") as file:
        file[1].header["TUNIT2"] = "nanomaggies"  # as the SDSS writes, and astropy does not know
    Table({"id": [7, 9], "counts": expected["flux"], "re_pix": np.array([3.0, 2.0]) / 0.396, "n": [1.0, 4.0],
           "ellip": [0.5, 0.0], "theta": [10.0, 20.0]}).write(tmp_path / "t.csv")
    Table({"name": ["7", "9"], "mag": [15.0, 16.0] * units.mag, "hlr": np.array([3.0, 2.0]) / 0.396 * units.pixel,
           "n": [1.0, 4.0], "q": [0.5, 1.0], "angle": [10.0, 20.0] * units.deg}).write(tmp_path / "t.ecsv")
    for name in ("t.fits", "t.csv", "t.ecsv"):
        found = read_parameters(tmp_path / name, CAMERA)
        assert found.keys() == expected.keys()
        assert list(map(int, found["id"])) == [7, 9]
        for column in expected.keys() - {"id"}:
            np.testing.assert_allclose(found[column], expected[column], rtol=1e-6, err_msg=f"{column} of {name}")


@pytest.mark.parametrize("changed, message", [
    ({"n": None}, "has no column n; it has id, magnitude, radius, axis_ratio, angle"),
    ({"magnitude": None}, "has no column flux or magnitude"),
    ({"n": [1.0, 0.0]}, "n must be positive; galaxy 9 has 0$"),
    ({"axis_ratio": [1.5, -1]}, "axis_ratio must be above 0.0001 and at most 1; galaxy 7 has 1.5, and 1 more"),
    ({"radius": [3.0, np.nan]}, "radius must be positive; galaxy 9 has nan"),
    ({"angle": [np.inf, 0.0]}, "angle must be a number; galaxy 7 has inf"),
    ({"n": ["one", "two"]}, "n has something that is not a number"),
    ({"n": np.ones((2, 4))}, "n has 4 numbers per galaxy; accepted is one"),
    ({"id": np.ones((2, 2))}, "id has 2 numbers per galaxy"),
    ({"magnitude": [15.0, -60.0]}, "flux must be above 0 and at most 1e15; galaxy 9"),
])
def test_impossible_parameters(changed, message):
    with pytest.raises(DataError, match="table.*" + message):
        sersic_parameters(columns(**changed), CAMERA, "table")


def test_table_file_errors(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_parameters(tmp_path / "none.csv", CAMERA)
    (tmp_path / "table.txt").write_text("a b")
    with pytest.raises(DataError, match=r"not a table in FITS \(.fits\), CSV"):
        read_parameters(tmp_path / "table.txt", CAMERA)
    (tmp_path / "gap.csv").write_text("mag,re,n,q,angle\n15,3,1,0.5,10\n15,,1,0.5,10\n")
    with pytest.raises(DataError, match="re has no value in row 2"):
        read_parameters(tmp_path / "gap.csv", CAMERA)
    Table({**columns(), "radius": [3.0, 2.0] * units.kpc}).write(tmp_path / "kpc.ecsv")
    with pytest.raises(DataError, match="radius is in kpc; it must be in arcsec"):
        read_parameters(tmp_path / "kpc.ecsv", CAMERA)
    found = Table(columns())
    found["angle"].unit = "furlong"
    with pytest.raises(DataError, match="angle is in furlong; it must be in deg"):
        sersic_parameters(found, CAMERA, "table")
    Table({"n": []}).write(tmp_path / "empty.ecsv")
    with pytest.raises(DataError, match="has no galaxies"):
        read_parameters(tmp_path / "empty.ecsv", CAMERA)


def test_drawn_galaxies_are_what_the_sdss_sees():
    drawn = draw_parameters(4000, np.random.default_rng(0))
    assert 10 <= drawn["log_mass"].min() and drawn["log_mass"].max() <= 11.5
    assert 0.3 <= drawn["n"].min() and drawn["n"].max() <= 6.2
    assert drawn["early"].mean() == pytest.approx(0.35, abs=0.05)
    heavy = drawn["log_mass"] > 10.9
    assert drawn["early"][heavy].mean() > 0.6
    # The median late galaxy of 10^10.5: 3.4 kpc (Shen et al. 2003, Fig. 4), and -21.1 mag at 1.6 solar mass-to-light
    universe = FlatLambdaCDM(H0=70, Om0=0.3)
    typical = (drawn["early"] == 0) & (np.abs(drawn["log_mass"] - 10.5) < 0.05)
    absolute = drawn["magnitude"] - universe.distmod(drawn["redshift"]).value
    assert np.median(drawn["radius_kpc"][typical]) == pytest.approx(3.4, rel=0.1)
    assert np.median(absolute[typical]) == pytest.approx(-21.1, abs=0.1)
    np.testing.assert_allclose(drawn["radius_kpc"] / drawn["radius"],
                               universe.kpc_proper_per_arcmin(drawn["redshift"]).value / 60)


def test_distributions_take_the_place_of_the_default(shared_data):
    folder = shared_data / "meert_serexp_cdfs"
    files = {"n": folder / "SerExp_n_bulge.txt", "redshift": folder / "SerExp_z.txt",
             "magnitude": folder / "SerExp_tot_mag_obs.txt"}
    drawn = draw_parameters(5000, np.random.default_rng(3), files)
    for name, path in files.items():
        value, probability = np.loadtxt(path, delimiter=",", skiprows=1).T
        assert kstest(drawn[name], lambda x, v=value, p=probability: np.interp(x, v, p)).pvalue > 0.01
    default = draw_parameters(5000, np.random.default_rng(3))
    for name in ("log_mass", "radius_kpc", "axis_ratio", "angle", "early"):
        np.testing.assert_array_equal(drawn[name], default[name])


@pytest.mark.parametrize("text, message", [
    ("n,cdf\n1,0\n2\n", "two columns of numbers"),
    ("n,cdf\n1,0\ntwo,1\n", "two columns of numbers"),
    ("n,cdf\n1,0\n2,\n3,1\n", "n.txt: cdf has no value in row 2"),
    ("n,cdf\n,0\n2,1\n", "n.txt: n has no value in row 1"),
    ("n,cdf\n1,0\n1,1\n", "values must ascend"),
    ("n,cdf\n1,0\n2,0.9\n", "from 0 to 1; it goes from 0 to 0.9"),
])
def test_distribution_file_errors(tmp_path, text, message):
    (tmp_path / "n.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        draw_parameters(5, np.random.default_rng(0), {"n": tmp_path / "n.txt"})


def test_fluxes_of_an_image_set_are_brought_to_the_cameras_counts(galaxies, tmp_path):
    with imageset.ImageSet(galaxies / "real.h5") as images:
        flux, zero_point = images.table()["flux"], images.about()["zero_point"]
    found = catalogues.parameters_of(galaxies / "real.h5", Camera(zero_point=25.0))
    np.testing.assert_allclose(found["flux"], flux * 10**(0.4 * (25.0 - zero_point)))
    np.testing.assert_array_equal(catalogues.parameters_of(galaxies / "real.h5", Camera(zero_point=zero_point))["flux"],
                                  flux)
    with pytest.raises(SettingError, match="`unit` says how the images of `fit` and `skies` are read: there are none"):
        sets.make_archetypes(tmp_path / "smooth.h5", table=galaxies / "real.h5", unit="nanomaggies")


def test_distribution_errors(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        draw_parameters(5, np.random.default_rng(0), {"n": tmp_path / "none.txt"})
    with pytest.raises(DataError, match="no distribution of colour can be given; accepted are redshift"):
        draw_parameters(5, np.random.default_rng(0), {"colour": tmp_path / "none.txt"})


@pytest.mark.parametrize("changed", [
    {}, {"n": 4.0, "flux": 1e5, "axis_ratio": 0.8, "angle": 170.0},
    {"n": 2.5, "radius": 2.0, "axis_ratio": 0.35, "x_offset": 2.3},
])
def test_fit_finds_what_was_drawn(changed, psf):
    galaxy = {**GALAXY, "flux": 4e4, **changed}
    image = observe(smooth_stamp(galaxy, Canvas(80, psf, CAMERA)), CAMERA, np.random.default_rng(4))
    image[10:14, 60:64] += 500  # a neighbour
    mask = np.zeros(image.shape, bool)
    mask[8:16, 58:66] = True
    found = fit_sersic(image, psf, CAMERA, mask)
    for name in ("flux", "radius", "n", "axis_ratio"):
        assert found[name] == pytest.approx(galaxy[name], rel=0.1), name
    assert (found["angle"] - galaxy["angle"] + 90) % 180 - 90 == pytest.approx(0, abs=3)
    assert found["x_offset"] == pytest.approx(galaxy.get("x_offset", 0.0), abs=0.1)
    assert found["chi2"] == pytest.approx(1, abs=0.1)


def drawn(psf, size=80, camera=CAMERA, seed=4, **changed):
    """A galaxy as it is observed, and its parameters."""
    galaxy = {**GALAXY, "flux": 4e4, **changed}
    return observe(smooth_stamp(galaxy, Canvas(size, psf, camera)), camera, np.random.default_rng(seed)), galaxy


def assert_found(found, galaxy, rel=0.1):
    for name in ("flux", "radius", "n", "axis_ratio"):
        assert found[name] == pytest.approx(galaxy[name], rel=rel), name


@pytest.mark.parametrize("sky", [0.0, 155.0, -3.0])
def test_the_sky_is_fitted_with_the_galaxy_or_taken_as_given(sky, psf):
    image, galaxy = drawn(psf)
    found = fit_sersic(image + sky, psf, CAMERA)
    assert_found(found, galaxy)
    assert found["fit_sky"] == pytest.approx(sky, abs=0.5) and found["fit_flag"] == 0
    given = fit_sersic(image + sky, psf, CAMERA, sky=sky)
    assert_found(given, galaxy)
    assert given["fit_sky"] == sky


def test_neighbours_are_left_out_without_a_mask(psf):
    image, galaxy = drawn(psf, size=120)
    for star, x, y in ((3e5, 25, 10), (3e4, -22, 30), (2e4, 14, -14)):
        star = {"flux": star, "radius": 0.5, "n": 1.0, "axis_ratio": 0.9, "angle": 0.0, "x_offset": x, "y_offset": y}
        image = image + smooth_stamp(star, Canvas(120, psf, CAMERA))
    found = fit_sersic(image, psf, CAMERA)
    assert_found(found, galaxy)
    assert np.hypot(found["x_offset"], found["y_offset"]) < 0.2
    others = neighbours(image.astype(float), np.isfinite(image), 5.5)
    middle = (120 - 1) / 2
    for x, y in ((25, 10), (-22, 30), (14, -14)):
        assert others[round(middle + y), round(middle + x)]
    assert not others[58:62, 58:62].any() and others.mean() < 0.25


def test_the_noise_need_not_be_the_cameras(psf):
    """A stack of nine exposures: a third of the noise, also that of the galaxy's electrons."""
    stack = np.mean([drawn(psf, seed=seed)[0] for seed in range(9)], axis=0)
    found = fit_sersic(stack, psf, CAMERA)
    assert_found(found, drawn(psf)[1], rel=0.05)
    assert found["chi2"] == pytest.approx(1, abs=0.15)
    variance = np.full(stack.shape, 3.0, "f4")
    variance[20:30, 20:30] = np.inf
    stack[20:30, 20:30] = 1e4  # of no weight
    assert_found(fit_sersic(stack, psf, CAMERA, variance=variance), drawn(psf)[1], rel=0.05)


def test_flags_say_which_fits_are_to_be_looked_at(psf):
    good = fit_sersic(drawn(psf)[0], psf, CAMERA)
    assert good["fit_flag"] == 0
    large = drawn(psf, radius=10.0, flux=4e5)[0]  # 25 of 80 pixels
    assert fit_sersic(large, psf, CAMERA)["fit_flag"] & FLAGS["radius"]
    far = drawn(psf, x_offset=11.0)[0]
    assert fit_sersic(far, psf, CAMERA)["fit_flag"] & FLAGS["centre"]
    mask = np.zeros((80, 80), bool)
    mask[38:42, 30:50] = True
    assert fit_sersic(drawn(psf)[0], psf, CAMERA, mask)["fit_flag"] & FLAGS["masked"]
    ring = drawn(psf, flux=2e5)[0]
    y, x = np.mgrid[:80, :80] - 39.5
    ring[np.abs(np.hypot(x, y) - 12) < 2] += 200
    assert fit_sersic(ring, psf, CAMERA)["fit_flag"] & FLAGS["chi2"]
    star = drawn(psf, radius=0.01)[0]
    assert fit_sersic(star, psf, CAMERA)["fit_flag"] & FLAGS["radius"]


def test_made_up_stamps_with_sky_neighbour_and_nan(shared_data, psf):
    """n 1.1 and 5.2 arcsec, alone, on a sky of 155 counts, beside a neighbour eight times as bright, with a NaN."""
    folder = shared_data.parent / "inputs"
    if not folder.exists():
        pytest.skip(f"no made-up inputs at {folder}")
    alone = fit_sersic(fits.getdata(folder / "alone.fits"), psf, CAMERA)
    assert alone["n"] == pytest.approx(1.1, abs=0.05) and alone["radius"] == pytest.approx(5.2, abs=0.1)
    mask = fits.getdata(folder / "neighbour_mask.fits")
    for name, bad in (("with_sky", None), ("nan_pixel", None), ("neighbour", None), ("neighbour", mask)):
        found = fit_sersic(fits.getdata(folder / f"{name}.fits"), psf, CAMERA, bad)
        assert_found(found, alone, rel=0.07)
        assert np.hypot(found["x_offset"], found["y_offset"]) < 1
    skies = catalogues.skies([folder / "nan_pixel.fits"], 64, np.random.default_rng(0))
    assert np.isfinite(skies).all() and skies.shape == (catalogues.SKIES, 64, 64)
    with pytest.raises(DataError, match="flux has 4 numbers per galaxy; accepted is one"):
        read_parameters(folder / "vector_columns.fits", CAMERA)


def test_a_border_with_bad_pixels_gives_sky_and_one_without_good_ones_is_an_error(tmp_path):
    rng = np.random.default_rng(0)
    image = rng.normal(0, 5, (100, 100)).astype("f4")
    image[3, 50] = np.nan
    skies = border_skies([image, np.full((100, 100), np.nan, "f4")], 5, 64, rng)
    assert np.isfinite(skies).all() and skies.std() == pytest.approx(5, rel=0.1)
    with pytest.raises(DataError, match="no image has 16 x 16 pixels of border that are all good"):
        border_skies([np.full((100, 100), np.nan, "f4")], 5, 64, rng)
    hdu = fits.PrimaryHDU(np.round(image[10:] * 10).astype("i2"))
    hdu.data[0, 0] = -32768
    hdu.header["BLANK"] = -32768
    hdu.writeto(tmp_path / "blank.fits")
    assert np.isfinite(catalogues.skies([tmp_path / "blank.fits"], 32, rng)).all()


def write_stamp(path, image, **cards):
    fits.PrimaryHDU(image.astype("f4"), fits.Header(cards)).writeto(path)


def test_fits_bring_images_to_the_cameras_counts_and_keep_their_quality(tmp_path, psf, caplog):
    image, galaxy = drawn(psf)
    nanomaggies = 10**(0.4 * (22.5 - CAMERA.zero_point))
    write_stamp(tmp_path / "a.fits", (image + 100) * nanomaggies, BUNIT="nanomaggy", PIXSCALE=0.396)
    write_stamp(tmp_path / "b.fits", image + 100)
    write_stamp(tmp_path / "c.fits", image, PIXSCALE=0.2)
    write_stamp(tmp_path / "d.fits", np.where(np.indices(image.shape)[0] > 8, np.nan, image))
    write_stamp(tmp_path / "a_mask.fits", np.zeros(image.shape))
    found = catalogues.fitted(tmp_path, psf, CAMERA)
    assert list(found["id"]) == ["a", "b"]
    for name in ("flux", "radius", "n", "axis_ratio"):
        np.testing.assert_allclose(found[name], galaxy[name], rtol=0.1)
    np.testing.assert_allclose(found["fit_sky"], 100, atol=1)
    np.testing.assert_allclose(found["chi2"], 1, atol=0.15)
    assert list(found["fit_flag"]) == [0, 0]
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert any("left out: c: its pixels are of 0.2 arcsec, the camera's of 0.396: give pixel_scale=0.2" in line
               for line in said)
    assert any(line.startswith("left out: d: no galaxy to fit") for line in said)
    assert "1 of 2 images do not say their unit of flux: taken for counts of which one has 28.26 mag" in said
    stamps = list(archetypes(found, CAMERA, psf, size=32))
    assert {"fit_sky", "fit_noise", "chi2", "fit_flag"} <= stamps[0].keys()
    # The sky that is given is in the image's unit
    given = catalogues.fitted(tmp_path / "a.fits", psf, CAMERA, sky=100 * nanomaggies)
    assert given["fit_sky"][0] == pytest.approx(100, rel=1e-5)
    write_stamp(tmp_path / "e.fits", image * 1e-12)
    with pytest.raises(DataError, match="no image could be fitted: e: the noise of its sky is .*, and the camera's "
                                        "5.49 counts: it is in another unit; give `unit`"):
        catalogues.fitted(tmp_path / "e.fits", psf, CAMERA)
    caplog.clear()
    catalogues.fitted(tmp_path / "b.fits", psf, CAMERA, flux_scale=0.1)
    assert "the noise of the images' sky is 0.5" in caplog.text
    told = catalogues.fitted(tmp_path / "e.fits", psf, CAMERA, flux_scale=1e12)
    assert told["flux"][0] == pytest.approx(galaxy["flux"], rel=0.1)


def test_masks_beside_the_images_are_left_out_of_fits(tmp_path, psf, invoke):
    """The trail of a satellite through the galaxy, which no neighbour is."""
    image, galaxy = drawn(psf)
    trail = np.abs(np.arange(len(image)) - len(image) / 2 - 3) < 2
    write_stamp(tmp_path / "a_image.fits", np.where(trail, image + 1000, image))
    write_stamp(tmp_path / "a_mask.fits", trail * np.ones(image.shape))
    assert 1000 * trail.sum() * len(image) > 2 * galaxy["flux"]
    invoke("morph", "archetypes", tmp_path / "out.h5", "--fit", tmp_path / "a_image.fits", "--masks", "image=mask",
           "--size", 32)
    with imageset.ImageSet(tmp_path / "out.h5") as images:
        found = images.table()
    for name in ("flux", "radius", "axis_ratio"):
        assert found[name][0] == pytest.approx(galaxy[name], rel=0.1)


def test_fits_bring_an_images_own_zero_point_to_the_cameras(tmp_path, psf):
    """The same galaxy as three cameras count it: one magnitude."""
    image, galaxy = drawn(psf)
    for name, card, zero_point in (("a", "MAGZERO", 25.256), ("b", "PHOTZP", 31.0)):
        scale = 10**(0.4 * (zero_point - CAMERA.zero_point))
        write_stamp(tmp_path / f"{name}.fits", image * scale, **{card: zero_point})
    about = {"unit": "counts", "zero_point": 27.0, "pixel_scale": CAMERA.pixel_scale}
    imageset.write(tmp_path / "c.h5", id=["c"], image=image[None] * 10**(0.4 * (27 - CAMERA.zero_point)), source="",
                   **about)
    for camera in (CAMERA, Camera(zero_point=26.0, sky=137 * 10**(0.4 * (26 - 28.26)))):
        found = catalogues.fitted(tmp_path, psf, camera)
        assert list(found["id"]) == ["a", "b", "c"]
        magnitude = camera.zero_point - 2.5 * np.log10(found["flux"])
        np.testing.assert_allclose(magnitude, CAMERA.zero_point - 2.5 * np.log10(galaxy["flux"]), atol=0.05)
        np.testing.assert_allclose(found["flux"], found["flux"][0], rtol=1e-3)


def test_lengths_in_pixels_of_an_image_set_are_of_its_own_pixels(tmp_path):
    columns = {"flux": [9e4], "re_pix": [4.0], "n": [2.0], "q": [0.7], "angle": [30.0], "dx": [1.0]}
    for name, scale in (("fine.h5", 0.198), ("unknown.h5", None)):
        imageset.write(tmp_path / name, id=["a"], image=np.zeros((1, 8, 8)), source="", pixel_scale=scale,
                       table={column: np.array(values) for column, values in columns.items()})
    fine, unknown = (catalogues.parameters_of(tmp_path / name, Camera()) for name in ("fine.h5", "unknown.h5"))
    assert (fine["radius"][0], fine["x_offset"][0]) == pytest.approx((4 * 0.198, 0.5))
    assert (unknown["radius"][0], unknown["x_offset"][0]) == pytest.approx((4 * 0.396, 1.0))


def test_a_zero_point_that_contradicts_what_is_given_is_refused(tmp_path, psf, caplog):
    image, _ = drawn(psf)
    write_stamp(tmp_path / "a.fits", image, MAGZERO=25.256)
    with pytest.raises(DataError, match="flux_scale=2 was given, and by its own zero point, 25.256, one of its units "
                                        "is 15.91 counts of the camera, of which one has 28.26 mag"):
        catalogues.fitted(tmp_path / "a.fits", psf, CAMERA, flux_scale=2.0)
    agreed = catalogues.fitted(tmp_path / "a.fits", psf, CAMERA, flux_scale=15.9)
    assert agreed["flux"][0] == pytest.approx(catalogues.fitted(tmp_path / "a.fits", psf, CAMERA)["flux"][0], rel=0.01)
    with pytest.raises(DataError, match="unit='nanomaggies' was given, of which one has 22.5 mag, and its file says "
                                        "that one of its units has 25.256"):
        catalogues.fitted(tmp_path / "a.fits", psf, CAMERA, unit="nanomaggies")
    write_stamp(tmp_path / "b.fits", image, MAGZERO=25.256, PHOTZP=27.0)
    with pytest.raises(DataError, match="contradict each other .* MAGZERO 25.256, PHOTZP 27"):
        catalogues.fitted(tmp_path / "b.fits", psf, CAMERA)
    imageset.write(tmp_path / "c.h5", id=["c"], image=image[None], source="", unit="nanomaggies", zero_point=25.0)
    with pytest.raises(DataError, match="its unit is nanomaggies, of which one has 22.5 mag, and its zero_point 25"):
        catalogues.fitted(tmp_path / "c.h5", psf, CAMERA)
    write_stamp(tmp_path / "d.fits", image, BUNIT="electron/s")
    with pytest.raises(DataError, match="it is in electrons/s of an unknown zero point, .* give `flux_scale`"):
        catalogues.fitted(tmp_path / "d.fits", psf, CAMERA)


def test_a_made_up_stamp_is_fitted_alike_under_any_zero_point_of_its_own(tmp_path, shared_data, invoke):
    path = shared_data.parent / "inputs" / "alone.fits"
    if not path.exists():
        pytest.skip(f"no {path}")
    with fits.open(path) as file:
        pixels = file[0].data.astype("f4")
    write_stamp(tmp_path / "own.fits", pixels * 10**(0.4 * (25.256 - 28.26)), MAGZERO=25.256)
    found = {}
    for stamp in (path, tmp_path / "own.fits"):
        done = invoke("morph", "archetypes", tmp_path / f"{stamp.stem}.h5", "--fit", stamp, "--zero-point", 28.26)
        assert ("do not say their unit of flux" in done.stderr) == (stamp == path)
        with imageset.ImageSet(tmp_path / f"{stamp.stem}.h5") as images:
            assert images.about()["zero_point"] == 28.26
            found[stamp.stem] = images.table()
    for name in ("flux", "radius", "n", "axis_ratio", "fit_noise"):
        np.testing.assert_allclose(found["own"][name], found["alone"][name], rtol=2e-3)
    assert found["own"]["radius"][0] == pytest.approx(5.2, abs=0.2)
    assert found["own"]["n"][0] == pytest.approx(1.1, abs=0.1)


def test_archetypes_keep_where_the_galaxy_is(tmp_path, psf, invoke):
    image, _ = drawn(psf)
    write_stamp(tmp_path / "a.fits", image, RA="12:30:00", DEC=-10.5, OBJECT="NGC 1")
    write_stamp(tmp_path / "b.fits", image)
    invoke("morph", "archetypes", tmp_path / "fits.h5", "--fit", tmp_path / "*.fits", "--size", 64)
    invoke("morph", "archetypes", tmp_path / "again.h5", "--table", tmp_path / "fits.h5", "--size", 64)
    for name in ("fits.h5", "again.h5"):
        with imageset.ImageSet(tmp_path / name) as images:
            table = images.table()
        np.testing.assert_allclose(table["ra"], [187.5, np.nan])
        np.testing.assert_allclose(table["dec"], [-10.5, np.nan])
        assert table["object"].tolist() == ["NGC 1", ""]


def test_parameters_are_read_from_a_table_that_was_extracted_as_csv(tmp_path):
    write_table(tmp_path / "t.csv", {"magnitude": [15.0], "radius": [3.0], "n": [1.0], "axis_ratio": [0.5],
                                     "angle": [10.0]}, {"boxsize": 50.0})
    assert read_parameters(tmp_path / "t.csv", CAMERA)["radius"].tolist() == [3.0]


def test_ten_real_stamps_have_the_magnitudes_of_the_catalogue(shared_data):
    """Magnitudes as ProFit's table of first guesses has them (each of two halves); its radii are other kinds of radii,
    in pixels of 0.2 arcsec. Nearly all are of one Sersic profile with the noise that their sigma maps have."""
    folder = shared_data / "profit_sdss"
    table = {str(row["CATAID"]): row for row in Table.read(folder / "ExampleInit.tab", format="ascii")}
    camera = Camera(pixel_scale=0.339)
    near, like_sersic = [], []
    for path in sorted(folder.glob("*fitim.fits")):
        name = path.name[1:7]
        point = read_psf(folder / f"G{name}psfim.fits", camera)
        found = catalogues.fitted(path, point, camera, unit="maggies")
        magnitude = camera.zero_point - 2.5 * np.log10(found["flux"][0])
        near.append(abs(magnitude - (table[name]["sersic.mag1"] - 2.5 * np.log10(2))) < 0.11)
        like_sersic.append(found["fit_flag"][0] == 0)
        radius = found["radius"][0] / 0.2 / table[name]["sersic.re2"]
        assert 0.8 < radius < 1.6 and np.hypot(found["x_offset"][0], found["y_offset"][0]) < 1.5
        assert abs(found["fit_sky"][0]) < 2
    assert sum(near) >= 8 and sum(like_sersic) >= 9


def test_fit_of_a_real_galaxy_agrees_with_imfit(shared_data):
    """IC 3478: centre, position angle and ellipticity as imfit's documentation has them, for an exponential profile."""
    folder = shared_data / "imfit_sdss"
    image, mask = (fits.getdata(folder / f"ic3478rss_256{name}.fits") for name in ("", "_mask"))
    camera = Camera(sky=130.14, gain=4.725, dark_variance=(4.3 / 4.725)**2)
    found = fit_sersic(image, read_psf(folder / "psf_moffat_51.fits", camera), camera, mask, sky=0.0)
    assert found["x_offset"] + 128.5 == pytest.approx(128.8793, abs=0.1)  # imfit counts pixels from 1
    assert found["y_offset"] + 128.5 == pytest.approx(129.0589, abs=0.1)
    assert found["angle"] - 90 == pytest.approx(18.7492, abs=1)
    assert 1 - found["axis_ratio"] == pytest.approx(0.220646, abs=0.01)
    assert found["chi2"] < 1.964467  # the exponential's


def test_nothing_to_fit(psf):
    with pytest.raises(DataError, match="no galaxy to fit"):
        fit_sersic(np.zeros((32, 32)), psf, CAMERA)


def test_any_table_gives_parameters_or_one_line(tmp_path, psf):
    """Columns of all types and shapes, with and without units and gaps, in three formats."""
    hypothesis = pytest.importorskip("hypothesis")
    from hypothesis import strategies
    from hypothesis.extra import numpy as arrays

    names = ("id", "flux", "magnitude", "radius", "radius_pixel", "n", "N", "axis_ratio", "ellipticity", "angle", "pa")
    kinds = strategies.sampled_from(["f8", "f4", "i2", "i8", "u1", "u8", "?", "c8", "U3", "S3"])
    shapes = strategies.sampled_from([(2,), (2,), (2,), (2, 1), (2, 3), (2, 2, 2)])
    column = strategies.tuples(kinds, shapes).flatmap(lambda chosen: arrays.arrays(*chosen))
    unit = strategies.sampled_from([None, None, "count", "nanomaggies", "arcsec", "deg", "pix", "furlong", "mag"])
    gap = strategies.booleans()

    @hypothesis.settings(max_examples=30, deadline=None, derandomize=True, database=None)
    @hypothesis.given(strategies.dictionaries(strategies.sampled_from(names), strategies.tuples(column, unit, gap),
                                              min_size=1, max_size=3), strategies.sampled_from(["fits", "ecsv", "csv"]))
    def check(changed, suffix):
        lower = {name.lower() for name in changed}
        table = Table({name: values for name, values in columns().items() if name not in lower})
        path = tmp_path / f"t.{suffix}"
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                for name, (values, given, missing) in changed.items():
                    table[name] = MaskedColumn(values, mask=missing and np.arange(len(values)) == 0) \
                        if values.ndim == 1 and missing else values
                    table[name].unit = given
                table.write(path, overwrite=True)
        except Exception:  # what astropy itself does not write
            hypothesis.reject()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = read_parameters(path, CAMERA)
                stamps = list(archetypes(found, CAMERA, psf, size=16))
        except DataError as error:
            assert len(str(error).splitlines()) == 1
            return
        assert all(np.shape(values) == (2,) for values in found.values())
        assert all(np.isfinite(stamp["image"]).all() for stamp in stamps)

    check()
