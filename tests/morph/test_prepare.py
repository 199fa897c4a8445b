import dataclasses
import sys

import numpy as np
import pytest
from astropy.stats import sigma_clipped_stats
from scipy import ndimage
from skimage.measure import block_reduce

from kerasgal.apps.morph.config import TrainConfig
from kerasgal.apps.morph.prepare import clean, fill, prepare, stamp
from kerasgal.errors import DataError
from kerasgal.readers.images import Image, read, stream

MEAN = TrainConfig(rebin="mean")


def gaussian(side=128, width=9.0, q=1.0, angle=0.0, peak=800.0):
    """An elliptical Gaussian at the centre; `angle` as that of `stamp`, in degrees from the x axis."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    sine, cosine = np.sin(np.radians(angle)), np.cos(np.radians(angle))
    along, across = cosine * x - sine * y, sine * x + cosine * y  # y runs downwards
    return (peak * np.exp(-0.5 * ((along / width)**2 + (across / (q * width))**2))).astype("f4")


def noisy(side=128, seed=0):
    return gaussian(side) + np.random.default_rng(seed).normal(0, 5, (side, side)).astype("f4")


def image(pixels, **options):
    return Image("galaxy", np.asarray(pixels, "f4"), **options)


def test_without_a_turn_it_is_the_papers_recipe():
    pixels = noisy()
    prepared = prepare(image(pixels), MEAN)
    assert prepared.shape == (32, 32, 1) and prepared.dtype == np.float32
    expected = np.arcsinh(block_reduce(pixels[32:96, 32:96].astype(float), (2, 2), np.mean) / 1000).clip(-1, 1)
    np.testing.assert_allclose(prepared[..., 0], expected, atol=2e-7)
    assert -0.1 < prepared.min() < 0 and 0.6 < prepared.max() < 0.8


def test_the_papers_spline_is_scipys_zoom():
    """Zanisi et al. shrink the cut by `zoom(x, 0.5)`, samples of a cubic spline; here of the whole image's."""
    pixels = noisy()
    prepared = prepare(image(pixels), TrainConfig())
    expected = np.arcsinh(ndimage.zoom(pixels[32:96, 32:96].astype(float), 0.5) / 1000).clip(-1, 1)
    np.testing.assert_allclose(prepared[1:-1, 1:-1, 0], expected[1:-1, 1:-1], atol=1e-3)  # it ends at the cut's edge
    np.testing.assert_allclose(prepared[8:-8, 8:-8, 0], expected[8:-8, 8:-8], atol=1e-6)
    turned = np.rot90(pixels)
    np.testing.assert_allclose(prepare(image(pixels), TrainConfig(), 90), prepare(image(turned), TrainConfig()))


def test_a_splines_noise_is_the_same_at_every_angle():
    """And 1.75 times that of means of four pixels, which is 1 / 2 of a pixel's."""
    noise = np.random.default_rng(0).normal(0, 5.49, (12, 128, 128))
    for angle in (0.0, 22.5, 45.0, 90.0):
        deviation = np.std([prepare(image(one), TrainConfig(), angle) for one in noise])
        assert deviation / (5.49e-3 / 2) == pytest.approx(1.75, abs=0.02)
    again = dataclasses.replace(TrainConfig(), size=64)  # nothing to shrink
    np.testing.assert_allclose(1000 * np.sinh(prepare(image(noise[0]), again)[..., 0].astype(float)),
                               noise[0, 32:96, 32:96], atol=1e-3)


@pytest.mark.parametrize("angle", [90, 180, -90, 450])
def test_quarter_turns_change_no_pixel(angle):
    expected = np.rot90(prepare(image(noisy()), MEAN), angle // 90)
    np.testing.assert_array_equal(prepare(image(noisy()), MEAN, angle), expected)


@pytest.mark.parametrize("angle", [1.0, 33.0, 137.5, -60.0, 300.0])
def test_other_turns_are_those_of_scipy(angle):
    for side in (128, 127):
        pixels = noisy(side)
        turned = ndimage.rotate(pixels, angle, reshape=False, order=3)
        low = (side - 64) // 2
        expected = np.arcsinh(block_reduce(turned[low:low + 64, low:low + 64], (2, 2), np.mean) / 1000).clip(-1, 1)
        np.testing.assert_allclose(prepare(image(pixels), MEAN, angle)[..., 0], expected, atol=1e-5)


@pytest.mark.parametrize("angle", [0.0, 10.0, 45.0, 200.0])
def test_a_round_galaxy_looks_the_same_from_every_angle_and_an_ellipse_turns(angle):
    round_one = prepare(image(gaussian()), MEAN)
    np.testing.assert_allclose(prepare(image(gaussian()), MEAN, angle), round_one, atol=2e-4)
    flat = gaussian(q=0.4)
    np.testing.assert_allclose(prepare(image(flat), MEAN, angle), prepare(image(gaussian(q=0.4, angle=angle)), MEAN),
                               atol=3e-4)
    if angle:
        assert np.abs(prepare(image(flat), MEAN, angle) - prepare(image(flat), MEAN)).max() > 0.05


def test_flux_is_kept():
    config = dataclasses.replace(MEAN, softening=1e4)
    pixels = gaussian(width=6)
    for angle in (0.0, 27.0):
        counts = 1e4 * np.sinh(prepare(image(pixels), config, angle).astype(float))
        np.testing.assert_allclose(counts.sum() * 4, pixels.sum(), rtol=1e-5)


def test_a_turn_leaves_the_noise_nearly_as_it_was():
    config = dataclasses.replace(MEAN, softening=1000)
    noise = np.random.default_rng(0).normal(300, 10, (5, 128, 128))
    still, turned = (np.mean([prepare(image(one), config, angle).var() for one in noise]) for angle in (0.0, 45.0))
    assert 0.9 < turned / still < 1.0


# Sky -----------------------------------------------------------------------------------


@pytest.mark.parametrize("sky", ["border", "clipped"])
def test_a_constant_sky_is_removed(sky):
    config = dataclasses.replace(MEAN, sky=sky)
    assert not prepare(image(np.full((128, 128), 1234.5)), config).any()
    without = prepare(image(gaussian(width=4)), MEAN)
    np.testing.assert_allclose(prepare(image(gaussian(width=4) + 1024), config), without, atol=1e-6)


def test_the_sky_is_the_median_of_the_border_or_the_clipped_one():
    pixels, mask = noisy() + 1000, np.zeros((128, 128), bool)
    mask[:, :4], mask[3, 40], mask[2, 70:90] = True, True, True
    pixels[mask] = 1e6
    pixels[0, 100] = np.nan
    frame = np.ones((128, 128), bool)
    frame[6:-6, 6:-6] = False
    good = frame & ~mask & np.isfinite(pixels)
    whole = image(pixels, mask=mask)
    for sky, expected in (("none", 0), ("border", np.median(pixels[good])),
                          ("clipped", sigma_clipped_stats(pixels, mask=mask | np.isnan(pixels))[1])):
        cleaned = clean(whole, dataclasses.replace(MEAN, sky=sky))
        np.testing.assert_allclose(cleaned[54, 54], pixels[64, 64] - expected, rtol=1e-5)
    assert cleaned.shape == (108, 108)


def test_the_sky_that_an_image_states_comes_first():
    pixels = noisy() + 1000
    for sky in ("none", "border", "clipped"):
        config = dataclasses.replace(MEAN, sky=sky)
        stated = prepare(image(pixels, sky=990.0), config)
        np.testing.assert_array_equal(stated, prepare(image(pixels - np.float32(990)), MEAN))
        np.testing.assert_array_equal(prepare(image(pixels, sky=np.nan), config), prepare(image(pixels), config))


# Bad pixels ----------------------------------------------------------------------------


def test_bad_pixels_are_filled_from_their_neighbours():
    pixels = gaussian()
    holes = pixels.copy()
    bad = np.zeros(pixels.shape, bool)
    bad[70:73, 60:62], bad[50, 32:96], bad[64, 64] = True, True, True
    holes[70:73, 60:62], holes[50], holes[64, 64] = np.nan, np.inf, -np.inf
    expected = prepare(image(pixels), MEAN)
    for angle in (0.0, 90.0):
        np.testing.assert_allclose(prepare(image(holes), MEAN, angle), np.rot90(expected, angle / 90), atol=3e-3)
    np.testing.assert_allclose(prepare(image(np.where(bad, 1e5, pixels), mask=bad), MEAN), expected, atol=3e-3)


def test_a_filling_follows_the_galaxy_and_not_the_noise():
    from astropy.convolution import Gaussian2DKernel, interpolate_replace_nans
    from skimage.restoration import inpaint_biharmonic

    def difference(pixels, other):
        return np.sqrt(np.mean((pixels - other)[bad]**2))

    y, x = np.mgrid[:128, :128]
    bad = np.hypot(x - 70, y - 72) < 4
    filled = fill(gaussian(), bad)
    averaged = interpolate_replace_nans(np.where(bad, np.nan, gaussian()), Gaussian2DKernel(2))
    assert difference(filled, gaussian()) < 0.2 * difference(averaged, gaussian())
    np.testing.assert_array_equal(filled[~bad], gaussian()[~bad])
    bad = np.hypot(x - 100, y - 90) < 10
    noise = np.random.default_rng(0).normal(0, 5, (128, 128)).astype("f4")
    assert difference(fill(noise, bad), 0) < 0.5 * difference(inpaint_biharmonic(noise, bad), 0)
    level = np.full((128, 128), 3e-12, "f4")
    np.testing.assert_allclose(fill(np.where(bad, np.nan, level), bad), level, rtol=1e-5)


def test_too_many_bad_pixels_are_refused_wherever_it_is_turned_to():
    pixels = noisy()
    pixels[:, :45] = np.nan  # 13 of the 64 columns of the cut: 20.3%
    for angle in (0.0, 45.0):
        with pytest.raises(DataError, match="galaxy: 20% of the pixels in the cut are bad; accepted are up to 20%"):
            prepare(image(pixels), MEAN, angle)
    pixels[:, 44] = 0
    assert np.isfinite(prepare(image(pixels), MEAN, 45.0)).all()


def test_a_border_of_bad_pixels_has_no_sky():
    pixels = noisy()
    pixels[:6], pixels[-6:], pixels[:, :6], pixels[:, -6:] = (np.nan,) * 4
    with pytest.raises(DataError, match="galaxy: all pixels of the border are bad, in which sky='border'"):
        prepare(image(pixels), dataclasses.replace(MEAN, sky="border"))


# Sizes ---------------------------------------------------------------------------------


def test_images_smaller_than_the_cut_and_unread_ones_are_refused():
    with pytest.raises(DataError, match="galaxy: the image has 63 x 200 pixels, fewer than crop=64"):
        prepare(image(np.zeros((63, 200))), MEAN)
    with pytest.raises(DataError, match="a.fits is damaged"):
        prepare(Image("a", None, error="a.fits is damaged"), MEAN)


def test_images_too_small_for_a_turn_take_the_next_quarter():
    """The corners of a cut of 64 pixels at 45 degrees are 45.25 pixels from the centre: 92 pixels have them."""
    small, large = noisy(91), noisy(92)
    for angle, quarters in ((44.0, 0), (46.0, 1), (200.0, 2), (-100.0, -1)):
        np.testing.assert_array_equal(prepare(image(small), MEAN, angle),
                                      prepare(image(np.rot90(small, quarters)), MEAN))
    assert np.abs(prepare(image(large), MEAN, 44.0) - prepare(image(large), MEAN)).max() > 0.01
    scene = noisy(128)
    inner = prepare(image(scene[18:110, 18:110]), MEAN, 45.0)  # nothing from beyond the edge is needed
    np.testing.assert_allclose(inner, prepare(image(scene), MEAN, 45.0), atol=2e-3)
    assert prepare(image(gaussian(64)), MEAN, 300.0).shape == (32, 32, 1)


def test_all_sizes_and_scales_fit_their_config():
    config = TrainConfig(crop=96, size=16, softening=50.0, rebin="mean")
    pixels = noisy(150)
    expected = np.arcsinh(block_reduce(pixels[27:123, 27:123], (6, 6), np.mean) / 50).clip(-1, 1)
    np.testing.assert_allclose(prepare(image(pixels), config)[..., 0], expected, atol=1e-6)


def test_no_pixel_is_prepared_by_itself():
    """An image takes some hundred calls of functions, however many pixels it has; benchmarks/morph.py has the time."""
    calls = []
    for side in (128, 256):
        one = image(noisy(side))
        calls.append(0)

        def count(frame, event, argument):
            calls[-1] += event in ("call", "c_call")

        before = sys.getprofile()
        sys.setprofile(count)
        try:
            stamp(clean(one, MEAN), MEAN)
        finally:
            sys.setprofile(before)
    assert calls[0] == calls[1] < 300


# Real galaxies -------------------------------------------------------------------------


def test_real_galaxies_of_the_sdss(shared_data):
    maggies = TrainConfig(softening=1e-9, sky="border")
    profit = list(stream(shared_data / "profit_sdss" / "*fitim.fits", ("fitim", "mskim")))
    counts = TrainConfig(sky="border")
    folder = shared_data / "imfit_sdss"
    imfit = [*read(folder / "ic3478rss_256.fits", (".fits", "_mask.fits")),
             *read(folder / "n3073rss_small.fits", (".fits", "_mask.fits")),
             *read(folder / "vcc1512rss_cutout.fits", ("_cutout", "_mask_cutout"))]
    assert len(profit) == 10 and len(imfit) == 3
    for galaxies, config in ((profit, maggies), (imfit, counts)):
        for galaxy in galaxies:
            for angle in (0.0, 37.0):
                prepared = prepare(galaxy, config, angle)[..., 0]
                assert prepared.shape == (32, 32) and prepared.min() > -0.3 and prepared.max() <= 1
                # The galaxy stands in the middle, and out of the sky.
                centre, corner = prepared[12:20, 12:20].mean(), prepared[:4, :4].mean()
                assert centre > 3 * corner and centre > 0.05
    wide = TrainConfig(crop=96)
    for galaxy in imfit[1:]:  # stars and galaxies in front of them
        assert prepare(galaxy, wide).sum() < prepare(dataclasses.replace(galaxy, mask=None), wide).sum()
