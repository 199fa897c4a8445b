"""Images in the formats of other libraries, written by them, and real galaxies of the SDSS."""

import bz2
import gzip
import logging
import tracemalloc
import warnings

import h5py
import numpy as np
import pytest
from astropy import units
from astropy.io import fits
from skimage.io import imsave

from kerasgal import imageset
from kerasgal.errors import DataError, DomainError, SettingError
from kerasgal.readers import images as reader
from kerasgal.readers.flux import known_unit, own_zero_point, to_unit
from kerasgal.readers.images import Image, find, read, stream


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(100, 10, shape).astype("f4")


def only(path, **options):
    found, = read(path, **options)
    assert found.error is None and found.pixels.dtype == np.float32 and found.pixels.dtype.isnative
    return found


def assert_error(image, *words):
    assert image.pixels is None and "\n" not in image.error
    for word in words:
        assert word in image.error


# Formats -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.fits", "a.FIT", "a.fts", "a.fits.gz", "a.fits.bz2"])
def test_a_fits_image(tmp_path, name):
    pixels = noise(20, 30)
    pixels[3, 4], pixels[5, 6] = np.nan, np.inf
    fits.PrimaryHDU(pixels).writeto(tmp_path / name)
    image = only(tmp_path / name)
    assert image.id == "a" and image.mask is None and image.sky is None
    np.testing.assert_array_equal(image.pixels, pixels)


def test_fits_integers_are_scaled_and_blank_is_nan(tmp_path):
    hdu = fits.PrimaryHDU(np.arange(600, dtype="i2").reshape(20, 30))
    hdu.header["BLANK"] = 7
    hdu.writeto(tmp_path / "blank.fits")
    expected = np.arange(600.0).reshape(20, 30)
    expected[0, 7] = np.nan
    np.testing.assert_array_equal(only(tmp_path / "blank.fits").pixels, expected)
    fits.PrimaryHDU(np.arange(60000, 60600, dtype="u2").reshape(20, 30)).writeto(tmp_path / "unsigned.fits")
    np.testing.assert_array_equal(only(tmp_path / "unsigned.fits").pixels,
                                  np.arange(60000.0, 60600).reshape(20, 30))


def test_fits_extensions_cubes_and_tables(tmp_path):
    first, cube, unnamed = noise(20, 30), noise(3, 20, 30), noise(12, 12)
    table = fits.BinTableHDU.from_columns([fits.Column("z", "E", array=[0.1])])
    spectrum = fits.ImageHDU(np.zeros(50))
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(first, name="SCI"), table, fits.ImageHDU(cube, name="CUBE"),
                  fits.ImageHDU(unnamed), fits.ImageHDU(first + 1, name="SCI"),
                  fits.CompImageHDU(first + 2, name="TILES", compression_type="GZIP_1",
                                    quantize_level=0.0)]).writeto(tmp_path / "a.fits")
    found = list(read(tmp_path / "a.fits"))
    assert [image.id for image in found] == ["a[SCI]", "a[CUBE,0]", "a[CUBE,1]", "a[CUBE,2]", "a[4]", "a[5]",
                                             "a[TILES]"]
    for image, expected in zip(found, [first, *cube, unnamed, first + 1, first + 2]):
        assert image.error is None
        np.testing.assert_array_equal(image.pixels, expected)
    fits.HDUList([fits.PrimaryHDU(), spectrum]).writeto(tmp_path / "spectrum.fits")
    assert_error(*read(tmp_path / "spectrum.fits"), "spectrum.fits has no image, of shape (50,)")
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(tmp_path / "table.fits")
    assert_error(*read(tmp_path / "table.fits"), "table.fits has no image")
    fits.PrimaryHDU(cube).writeto(tmp_path / "cube.fits")
    assert [image.id for image in read(tmp_path / "cube.fits")] == ["cube[0]", "cube[1]", "cube[2]"]


def test_numpy_images_and_stacks(tmp_path):
    stack = np.random.default_rng(0).normal(size=(4, 9, 8))
    np.save(tmp_path / "stack.npy", np.asfortranarray(stack))
    np.save(tmp_path / "one.npy", stack[0].astype(">i4"))
    found = list(read(tmp_path / "stack.npy"))
    assert [image.id for image in found] == ["stack[0]", "stack[1]", "stack[2]", "stack[3]"]
    np.testing.assert_array_equal([image.pixels for image in found], stack.astype("f4"))
    np.testing.assert_array_equal(only(tmp_path / "one.npy").pixels, stack[0].astype("i4"))


@pytest.mark.parametrize("name, others", [("images", {"labels": (4,), "cube": (4, 9, 8)}), ("data/flux", {"z": (4,)})])
def test_hdf5_stacks_of_others(tmp_path, monkeypatch, name, others):
    monkeypatch.setattr(reader, "SLAB_PIXELS", 150)
    stack = noise(4, 9, 8)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file[name] = stack
        for other, shape in others.items():
            file[other] = np.zeros(shape)
    found = list(read(tmp_path / "a.h5"))
    assert [image.id for image in found] == ["a[0]", "a[1]", "a[2]", "a[3]"]
    np.testing.assert_array_equal([image.pixels for image in found], stack)


def test_images_of_several_image_sets_are_told_apart(tmp_path):
    for name in ("one", "two"):
        imageset.write(tmp_path / f"{name}.h5", id=["0", "1"], image=noise(2, 9, 8), source="")
    np.save(tmp_path / "three.npy", noise(2, 9, 8))
    assert [image.id for image in stream([tmp_path / "one.h5"])] == ["0", "1"]
    found = [image.id for image in stream([tmp_path / "one.h5", tmp_path / "two.h5", tmp_path / "three.npy"])]
    assert found == ["one[0]", "one[1]", "three[0]", "three[1]", "two[0]", "two[1]"]


def test_image_sets_come_with_ids_masks_and_sky(tmp_path, monkeypatch):
    pixels = noise(5, 9, 8)
    pixels[1, 2, 3] = np.nan
    sky = np.array([1, 2, np.nan, 4, 5], "f4")
    imageset.write(tmp_path / "set.hdf5", id=list("abcde"), image=pixels, mask=pixels > 110, sky=sky, source="")
    imageset.write(tmp_path / "plain.h5", id=list("abcde"), image=pixels, source="")
    monkeypatch.setattr(imageset, "SLAB_PIXELS", 150)
    found = list(read(tmp_path / "set.hdf5"))
    assert [image.id for image in found] == list("abcde")
    np.testing.assert_array_equal([image.pixels for image in found], pixels)
    np.testing.assert_array_equal([image.mask for image in found], pixels > 110)
    np.testing.assert_array_equal([image.sky for image in found], sky)
    plain = list(read(tmp_path / "plain.h5"))
    assert [(image.mask, image.sky) for image in plain] == [(None, None)] * 5
    with h5py.File(tmp_path / "set.hdf5", "a") as file:
        del file["sky"]
        file["sky"] = sky[:3]
    assert_error(list(read(tmp_path / "set.hdf5"))[-1], "set.hdf5")


@pytest.mark.parametrize("kind", ["u1", "u2"])
def test_grey_pictures(tmp_path, kind):
    pixels = (np.random.default_rng(0).random((20, 30)) * np.iinfo(kind).max).astype(kind)
    for name in ("a.png", "a.tif"):
        imsave(tmp_path / name, pixels, check_contrast=False)
        np.testing.assert_array_equal(only(tmp_path / name).pixels, pixels)


def test_tiff_keeps_floats_and_pages(tmp_path):
    stack = noise(5, 20, 30)
    imsave(tmp_path / "stack.tiff", stack, check_contrast=False)
    np.testing.assert_array_equal([image.pixels for image in read(tmp_path / "stack.tiff")], stack)


# Which planes are images ---------------------------------------------------------------


def galaxy(*shape, seed=0):
    """A galaxy on noise, float32."""
    y, x = np.indices(shape)
    distance = np.hypot(y - shape[0] / 2, x - shape[1] / 2)
    return (2000 * np.exp(-distance / 3)).astype("f4") + noise(*shape, seed=seed)


def write_planes(path, *extensions, **primary):
    """A file without an image in its first part; extensions: (name, pixels) or (name, pixels, cards)."""
    first = fits.PrimaryHDU()
    first.header.update(primary)
    hdus = [first]
    for name, pixels, *cards in extensions:
        hdus.append(fits.ImageHDU(pixels, name=name))
        hdus[-1].header.update(cards[0] if cards else {})
    fits.HDUList(hdus).writeto(path)


FLAGS = np.zeros((20, 30), "i4")
FLAGS[3, 4], FLAGS[10, 15] = 16, 32


@pytest.mark.parametrize("names, expected", [
    (("IMAGE", "MASK", "VARIANCE"), 9.0), (("SCI", "DQ", "ERR"), 81.0), (("SCI", "MSK", "WGT"), None),
    (("image", "flags", "invvar"), 1 / 9),
])
def test_a_file_of_several_extensions_is_one_image_with_its_mask_and_variance(tmp_path, names, expected):
    pixels, noise_map = galaxy(20, 30), np.full((20, 30), 9, "f4")
    write_planes(tmp_path / "a.fits", *zip(names, (pixels, FLAGS, noise_map)))
    image = only(tmp_path / "a.fits")
    assert image.id == f"a[{names[0].upper()}]"
    np.testing.assert_array_equal(image.pixels, pixels)
    np.testing.assert_array_equal(image.mask, FLAGS != 0)
    if expected is None:
        assert image.variance is None
    else:
        np.testing.assert_allclose(image.variance, expected, rtol=1e-6)


def test_pixels_without_weight_are_masked(tmp_path):
    weight = np.ones((20, 30), "f4")
    weight[5, 6] = 0
    write_planes(tmp_path / "a.fits", ("SCI", galaxy(20, 30)), ("IVAR", weight))
    image = only(tmp_path / "a.fits")
    assert np.argwhere(image.mask).tolist() == [[5, 6]] and np.isinf(image.variance[5, 6])


def test_what_lsst_detected_is_not_masked_but_what_is_bad_is(tmp_path):
    """Its masks have a plane, bit 5 here, for the pixels of all sources."""
    write_planes(tmp_path / "a.fits", ("IMAGE", galaxy(20, 30)),
                 ("MASK", FLAGS, {"MP_BAD": 0, "MP_CR": 4, "MP_DETECTED": 5}))
    assert np.argwhere(only(tmp_path / "a.fits").mask).tolist() == [[3, 4]]


def test_integer_masks_without_a_name_and_maps_of_zeros_are_no_images(tmp_path):
    pixels, regions = galaxy(20, 30), np.repeat(np.arange(4), 150).reshape(20, 30).astype("i2")
    fits.HDUList([fits.PrimaryHDU(pixels), fits.ImageHDU((FLAGS != 0).astype("u1")), fits.ImageHDU(regions),
                  fits.ImageHDU(np.zeros((20, 30)))]).writeto(tmp_path / "a.fits")
    image = only(tmp_path / "a.fits")
    np.testing.assert_array_equal(image.pixels, pixels)
    np.testing.assert_array_equal(image.mask, FLAGS != 0)


def test_chips_have_masks_of_their_own(tmp_path):
    pixels = [galaxy(20, 30, seed=seed) for seed in (0, 1)]
    hdus = [fits.PrimaryHDU()]
    for version in (1, 2):
        hdus += [fits.ImageHDU(pixels[version - 1], name="SCI", ver=version),
                 fits.ImageHDU(FLAGS + (version - 1) * np.eye(20, 30, dtype="i4"), name="DQ", ver=version)]
    fits.HDUList(hdus).writeto(tmp_path / "a.fits")
    one, two = read(tmp_path / "a.fits")
    assert [one.id, two.id] == ["a[SCI]", "a[3]"] and [one.mask.sum(), two.mask.sum()] == [2, 22]
    np.testing.assert_array_equal(two.pixels, pixels[1])


def test_of_galfits_output_the_data_are_read(tmp_path):
    pixels = galaxy(20, 30)
    write_planes(tmp_path / "a.fits", ("", pixels, {"OBJECT": "ngc_1.fits[1:30,1:20]"}),
                 ("", pixels + 1, {"OBJECT": "model"}), ("", pixels + 2, {"OBJECT": "residual map"}),
                 ("", pixels + 3, {"OBJECT": "sersic"}))
    image = only(tmp_path / "a.fits")
    assert image.id == "a[1]"
    np.testing.assert_array_equal(image.pixels, pixels)


def test_an_extension_can_be_chosen_by_name_or_number(tmp_path):
    pixels = galaxy(20, 30)
    write_planes(tmp_path / "a.fits", ("SCI", pixels), ("MODEL", pixels + 1), ("VARIANCE", pixels + 2))
    for extension in ("model", "2", 2):
        np.testing.assert_array_equal(only(tmp_path / "a.fits", extension=extension).pixels, pixels + 1)
    assert_error(*read(tmp_path / "a.fits", extension="VARIANCE"), "VARIANCE is a map of variances by its name")
    assert_error(*read(tmp_path / "a.fits", extension="PSF"), "no image extension='PSF'; it holds 1 SCI, 2 MODEL")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["u"], file["v"] = galaxy(20, 30), galaxy(20, 30) + 1
    np.testing.assert_array_equal(only(tmp_path / "b.h5", extension="v").pixels, pixels + 1)
    assert_error(*read(tmp_path / "b.h5", extension="w"), "no dataset extension='w'; it holds u (20, 30)")
    np.save(tmp_path / "c.npy", pixels)
    assert_error(*read(tmp_path / "c.npy", extension=1), "it has no extensions")


def test_files_without_an_image_say_what_they_hold(tmp_path):
    write_planes(tmp_path / "a.fits", ("MASK", FLAGS), ("PSF", galaxy(20, 30)))
    image, = read(tmp_path / "a.fits")
    assert_error(image, "a.fits has no image; it holds MASK (a mask), PSF (a point spread function)")
    assert image.role == "mask"
    for name, pixels, words in (("b", (FLAGS > 0).astype("f4"), "b is a mask and not an image"),
                                ("c", np.zeros((20, 30), "f4"), "c has no galaxy: all pixels have the same number"),
                                ("d", np.arange(600).reshape(20, 30) // 150, "d is a segmentation map")):
        fits.PrimaryHDU(pixels).writeto(tmp_path / f"{name}.fits")
        assert_error(*read(tmp_path / f"{name}.fits"), words)


def test_photon_counts_and_eight_bit_pictures_are_images(tmp_path):
    rng = np.random.default_rng(0)
    fits.PrimaryHDU(rng.poisson(galaxy(40, 40) / 300).astype("i2")).writeto(tmp_path / "a.fits")
    assert only(tmp_path / "a.fits").pixels.max() > 3
    black = np.clip(galaxy(40, 40) / 8 - 40, 0, 255).astype("u1")  # nothing but black around the galaxy
    imsave(tmp_path / "b.png", black, check_contrast=False)
    assert (only(tmp_path / "b.png").pixels == 0).mean() > 0.5


def write_companions(folder):
    """Two galaxies with what lies beside them in four styles of names; returns the names that are images."""
    for number, name in enumerate(("G1fitim", "G2fitim", "n3", "mask_of_light", "vcc_cutout", "err")):
        fits.PrimaryHDU(galaxy(30, 30, seed=number)).writeto(folder / f"{name}.fits")
    for name in ("G1mskim", "G2mskim", "n3_mask", "vcc_mask_cutout"):
        fits.PrimaryHDU(np.zeros((30, 30), "f4")).writeto(folder / f"{name}.fits")
    for name in ("G1sigma", "G1psfim", "psf_moffat_51", "n3_rms", "n3-weight", "n3_W"):
        fits.PrimaryHDU(galaxy(30, 30)).writeto(folder / f"{name}.fits")
    fits.PrimaryHDU((galaxy(30, 30) > 500).astype("i4")).writeto(folder / "unnamed.fits")
    return ["G1fitim", "G2fitim", "err", "mask_of_light", "n3", "vcc_cutout"]


def test_a_folder_is_read_without_what_lies_beside_its_images(tmp_path, caplog):
    expected = write_companions(tmp_path)
    for paths in (tmp_path, tmp_path / "*.fits"):
        caplog.clear()
        with caplog.at_level(logging.INFO, "kerasgal"):
            found = list(stream(paths))
        assert [image.id for image in found] == expected and not any(image.error for image in found)
        line, = caplog.messages
        assert "left out, as they are not images: " in line and "a mask (5)" in line and "and 8 more" in line
    # What a shell makes of a pattern
    found = list(stream([path for path in tmp_path.iterdir() if path.stem not in ("unnamed", "psf_moffat_51")]))
    assert [image.id for image in found] == expected


def test_a_companion_that_is_named_alone_is_refused_with_the_reason(tmp_path):
    write_companions(tmp_path)
    for name, words in (("G1sigma", "a map of standard deviations of G1fitim.fits by its name"),
                        ("psf_moffat_51", "a point spread function by its name"),
                        ("n3_mask", "a mask of n3.fits by its name"), ("unnamed", "its pixels have two numbers")):
        assert_error(*stream(tmp_path / f"{name}.fits"), words)
    assert [image.error for image in stream(tmp_path / "n3_rms.fits", extension=0)] == [None]
    with pytest.raises(DataError, match=r"no image among n3_mask.fits, .*: by their names they are a mask \(2\)"):
        find(tmp_path / "*_mask*.fits")


def test_sdss_frames_of_dr8_are_one_image_in_nanomaggies(tmp_path):
    pixels = galaxy(20, 30)
    sky = fits.BinTableHDU.from_columns([fits.Column("ALLSKY", "9E", array=np.ones((1, 9)))])
    frame = fits.HDUList([fits.PrimaryHDU(pixels), fits.ImageHDU(np.full(30, 0.005, "f4")), sky])
    frame.writeto(tmp_path / "frame-r-1.fits")
    (tmp_path / "frame-r-1.fits.bz2").write_bytes(bz2.compress((tmp_path / "frame-r-1.fits").read_bytes()))
    for name in ("frame-r-1.fits", "frame-r-1.fits.bz2"):
        image = only(tmp_path / name)
        np.testing.assert_array_equal(image.pixels, pixels)
        assert (image.unit, image.zero_point) == ("nanomaggies", 22.5)
        assert image.facts["nanomaggies_per_count"] == pytest.approx(0.005)
    (tmp_path / "cut.fits.bz2").write_bytes((tmp_path / "frame-r-1.fits.bz2").read_bytes()[:400])
    assert_error(*read(tmp_path / "cut.fits.bz2"), "is damaged, cut short or of another format")


def test_tile_compressed_files_of_either_suffix(tmp_path):
    pixels = galaxy(64, 64)
    for name in ("a.fits.fz", "a.fz"):
        fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(pixels, compression_type="GZIP_1", quantize_level=0.0)]
                     ).writeto(tmp_path / name)
        np.testing.assert_array_equal(only(tmp_path / name).pixels, pixels)


# What is said of flux and pixels -------------------------------------------------------


@pytest.mark.parametrize("cards, unit, zero_point", [
    ({"BUNIT": "nanomaggy"}, "nanomaggies", 22.5), ({"BUNIT": "MAGGIES"}, "maggies", 0.0),
    ({"BUNIT": "uJy"}, "uJy", 23.9), ({"BUNIT": "DN", "MAGZERO": 30}, "counts", 30.0),
    ({"BUNIT": "ELECTRONS/S", "PHOTFLAM": 7.0723e-20, "PHOTPLAM": 8045.0}, "electrons/s", 25.94),
    ({"BUNIT": "ADU", "FLUXMAG0": 10**10.8}, "counts", 27.0), ({"BUNIT": "adu/s", "ZP": "25.1"}, "counts/s", 25.1),
    ({"BUNIT": "adu", "FLUX20": 2000.0}, "counts", 28.2526), ({"MAGZPT": 26.5}, None, 26.5),
    ({"BUNIT": "K"}, "K", None), ({"BUNIT": "count"}, "counts", None), ({}, None, None),
    ({"BUNIT": "MJy/sr", "PIXAR_SR": 2.35e-14}, "MJy/sr", 27.97), ({"MAGZERO": -99, "ZP": True}, None, None),
])
def test_unit_and_zero_point_of_headers(tmp_path, cards, unit, zero_point):
    """Zero points of the ACS (F814W) and of JWST's short wavelengths as their handbooks have them."""
    write_planes(tmp_path / "a.fits", ("SCI", galaxy(20, 30), cards))
    image = only(tmp_path / "a.fits")
    assert image.unit == unit
    assert image.zero_point == (None if zero_point is None else pytest.approx(zero_point, abs=0.01))


def test_facts_of_the_header_and_of_the_first_part(tmp_path):
    cards = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CD1_1": 0, "CD1_2": 0.396 / 3600, "CD2_1": 0.396 / 3600,
             "CD2_2": 0, "CRVAL1": 150.0, "CRVAL2": 2.0, "RA": 150.1, "DEC": "02:00:10"}
    write_planes(tmp_path / "a.fits", ("SCI", galaxy(20, 30), cards), OBJECT="NGC 1", EXPTIME=100.0, BUNIT="adu",
                 SATURATE=60000)
    image = only(tmp_path / "a.fits")
    assert image.pixel_scale == pytest.approx(0.396, rel=1e-6) and image.unit == "counts"
    assert image.facts == {"object": "NGC 1", "exposure": 100.0, "ra": 150.1, "dec": pytest.approx(2 + 10 / 3600),
                           "saturation": 60000}
    assert image.place == {"object": "NGC 1", "ra": 150.1, "dec": pytest.approx(2 + 10 / 3600)}
    for card, value, expected in (("PIXSCALE", 0.263, 0.263), ("PIXAR_A2", 0.0009, 0.03), ("SECPIX", "0.2", 0.2),
                                  ("PIXSCALE", -1, None)):
        fits.PrimaryHDU(galaxy(20, 30), fits.Header({card: value})).writeto(tmp_path / "b.fits", overwrite=True)
        found = only(tmp_path / "b.fits").pixel_scale
        assert found == (None if expected is None else pytest.approx(expected))


def test_a_soft_bias_is_taken_away_where_it_is_still_there(tmp_path, caplog):
    pixels = galaxy(20, 30)
    for name, bias in (("a", 1000), ("b", 0)):
        fits.PrimaryHDU(pixels + bias, fits.Header({"SOFTBIAS": 1000})).writeto(tmp_path / f"{name}.fits")
    with caplog.at_level(logging.INFO, "kerasgal"):
        with_bias, without = stream(tmp_path)
    np.testing.assert_allclose(with_bias.pixels, pixels, atol=2e-4)
    np.testing.assert_array_equal(without.pixels, pixels)
    assert with_bias.facts == {"soft_bias": 1000.0} and without.facts == {}
    assert caplog.messages == ["SOFTBIAS of the header subtracted from the pixels of 1 images"]


@pytest.mark.parametrize("cards, expected", [
    ({"RA": "12:30:00", "DEC": "-10:30:00"}, (187.5, -10.5)),
    ({"RA": "12h30m00s", "DEC": "-10d30m00s"}, (187.5, -10.5)),
    ({"RA": "12 30 00.0", "DEC": "+10 30 00"}, (187.5, 10.5)),
    ({"RA": "187.5", "DEC": 10.5}, (187.5, 10.5)),
    ({"RA": -172.5, "DEC": 10.5}, (187.5, 10.5)),
    ({"RA_OBJ": 187.5, "DEC_OBJ": 10.5}, (187.5, 10.5)),
    ({"RA": "unknown", "DEC": "", "RA_OBJ": 187.5, "DEC_OBJ": 10.5}, (187.5, 10.5)),
    ({"RA": 187.5}, None), ({"RA": 187.5, "DEC_OBJ": 10.5}, None), ({"RA": 187.5, "DEC": 120.0}, None),
    ({"RA": -999.0, "DEC": -99.0}, None),
    # Where the camera pointed, or the middle of the image, is not said to be where the galaxy is.
    ({"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 187.5, "CRVAL2": 10.5, "CDELT1": 1e-4, "CDELT2": 1e-4},
     None),
])
def test_positions_are_degrees_and_only_what_the_header_says_of_the_object(tmp_path, cards, expected):
    fits.PrimaryHDU(galaxy(20, 30), fits.Header(cards)).writeto(tmp_path / "a.fits")
    place = only(tmp_path / "a.fits").place
    assert place == ({} if expected is None else {"ra": pytest.approx(expected[0]), "dec": pytest.approx(expected[1])})


def test_zero_points_that_contradict_each_other_are_refused_until_one_is_given(tmp_path):
    fits.PrimaryHDU(galaxy(20, 30), fits.Header({"MAGZERO": 30.0, "ZP": 27.0})).writeto(tmp_path / "a.fits")
    assert_error(*stream(tmp_path), "contradict each other", "MAGZERO 30, ZP 27", "give `zero_point`")
    image, = stream(tmp_path, zero_point=27.0)
    assert image.zero_point == 27.0 and image.error is None


def test_what_the_caller_says_of_flux_must_not_contradict_the_file(tmp_path):
    fits.PrimaryHDU(galaxy(20, 30), fits.Header({"BUNIT": "nanomaggy"})).writeto(tmp_path / "a.fits")
    fits.PrimaryHDU(galaxy(20, 30)).writeto(tmp_path / "b.fits")
    refused, told = stream(tmp_path, unit="maggies")
    assert_error(refused, "unit='maggies' was given, and its file says nanomaggies")
    assert (told.unit, told.zero_point) == ("maggies", 0.0)
    refused, told = stream(tmp_path, zero_point=25)
    assert_error(refused, "zero_point=25 was given, and one of its units, nanomaggies, has 22.5")
    assert (told.unit, told.zero_point) == (None, 25)
    assert [image.flux_scale for image in stream(tmp_path, flux_scale=3.0)] == [3.0, 3.0]
    with pytest.raises(SettingError, match="zero_point=nan is no magnitude of a unit of flux"):
        next(stream(tmp_path, zero_point=np.nan))
    with pytest.raises(SettingError, match="unit='furlong' is no unit of flux that is known; accepted are counts"):
        next(stream(tmp_path, unit="furlong"))


def test_image_sets_tell_their_unit_and_pixels(tmp_path):
    pixels = np.stack([galaxy(9, 8), galaxy(9, 8)])
    about = {"unit": "counts", "zero_point": 28.26, "pixel_scale": 0.396, "psf_fwhm": 1.32}
    imageset.write(tmp_path / "a.h5", id=["a", "b"], image=pixels, source="", **about)
    imageset.write(tmp_path / "b.h5", id=["a", "b"], image=pixels, source="", unit="nmgy")
    imageset.write(tmp_path / "c.h5", id=["a", "b"], image=pixels, source="")
    image = next(read(tmp_path / "a.h5"))
    assert {name: getattr(image, name) for name in about} == about
    image = next(read(tmp_path / "b.h5"))
    assert (image.unit, image.zero_point, image.pixel_scale) == ("nanomaggies", 22.5, None)
    assert {getattr(next(read(tmp_path / "c.h5")), name) for name in about} == {None}


def test_flux_between_units_by_astropys_magnitudes():
    """A source of 17 mag has the same magnitude in all of them; sky, variance and saturation follow."""
    source = 17 * units.ABmag
    known = {"Jy": source.to_value(units.Jy), "nJy": source.to_value(units.nJy), "maggies": 10**(-0.4 * 17),
             "nanomaggies": 10**(0.4 * (22.5 - 17))}
    for unit, value in known.items():
        image = Image("a", np.full((2, 2), value, "f4"), unit=unit, zero_point=own_zero_point(unit), sky=value / 2,
                      variance=np.full((2, 2), value**2, "f4"), facts={"saturation": value})
        for wanted, expected in known.items():
            found = to_unit(image, wanted)
            np.testing.assert_allclose(found.pixels, expected, rtol=1e-3)
            assert found.sky == pytest.approx(expected / 2, rel=1e-3) and found.unit == wanted
            assert found.facts["saturation"] == pytest.approx(expected, rel=1e-3)
            np.testing.assert_allclose(found.variance, expected**2, rtol=2e-3)
        found = to_unit(image, "counts", zero_point=25)
        np.testing.assert_allclose(found.pixels, 10**(0.4 * 8), rtol=1e-3)
        assert (found.unit, found.zero_point) == ("counts", 25)


def test_flux_within_one_camera_needs_exposure_or_gain():
    image = Image("a", np.ones((2, 2), "f4"), unit="electrons/s", facts={"exposure": 100.0, "gain": 4.0})
    assert to_unit(image, "counts").pixels[0, 0] == 25 and to_unit(image, "electrons").pixels[0, 0] == 100
    frame = Image("b", np.ones((2, 2), "f4"), unit="nanomaggies", zero_point=22.5,
                  facts={"nanomaggies_per_count": 0.005})
    assert to_unit(frame, "counts").pixels[0, 0] == pytest.approx(200)
    with pytest.raises(DomainError, match="the image is in electrons, whose zero point is not known, and counts are"):
        to_unit(Image("c", np.ones((2, 2), "f4"), unit="electrons"), "counts", 28.26)
    with pytest.raises(DomainError, match="in maggies, and counts are wanted, whose zero point is not known"):
        to_unit(Image("c", np.ones((2, 2), "f4"), unit="maggies", zero_point=0.0), "counts")
    with pytest.raises(DomainError, match="in K, which is no unit of flux that is known: give `unit` or"):
        to_unit(Image("c", np.ones((2, 2), "f4"), unit="K"), "counts", 28.26)


def test_what_is_not_said_stays_unknown_and_what_the_caller_says_wins():
    image = Image("a", np.ones((2, 2), "f4"))
    assert to_unit(image, "counts", 28.26) is image
    counts = Image("a", np.ones((2, 2), "f4"), unit="counts")
    assert to_unit(counts, "counts", 28.26).zero_point is None
    scaled = to_unit(image, "counts", 28.26, flux_scale=2.0)
    assert (scaled.pixels[0, 0], scaled.unit, scaled.zero_point) == (2, "counts", 28.26)
    with pytest.raises(SettingError, match="flux_scale=-1 must be a positive number"):
        to_unit(image, "counts", flux_scale=-1)


@pytest.mark.parametrize("text, unit", [
    ("Counts", "counts"), ("DN/s", "counts/s"), ("e-/sec", "electrons/s"), ("electron s-1", "electrons/s"),
    ("e-", "electrons"), ("nanomaggy/pixel", "nanomaggies"), ("\u00b5Jy", "uJy"), ("MJy/sr", "MJy/sr"), ("MJy", None),
    ("mJy", "mJy"), ("mag", None), ("", None), ("s", None), ("maggies/s", None),
    ("Jy/beam", None), ("mJy/beam", None), ("Jy/pixel", "Jy"),
])
def test_spellings_of_units(text, unit):
    assert known_unit(text) == unit


# What cannot be read -------------------------------------------------------------------


def test_what_cannot_be_read_is_reported_and_the_rest_goes_on(tmp_path):
    pixels = noise(60, 50)
    fits.PrimaryHDU(pixels).writeto(tmp_path / "a.fits")
    whole = (tmp_path / "a.fits").read_bytes()
    (tmp_path / "b_cut.fits").write_bytes(whole[:9000])
    (tmp_path / "c_header.fits").write_bytes(whole[:1000])
    (tmp_path / "d_text.fits").write_text("this is no FITS file\n" * 500)
    (tmp_path / "e_empty.fits").write_text("")
    (tmp_path / "f_cut.fits.gz").write_bytes(gzip.compress(whole)[:9000])
    colour = np.random.default_rng(0).integers(255, size=(60, 50, 3), dtype=np.uint8)
    imsave(tmp_path / "g_colour.png", colour)
    imsave(tmp_path / "h_colour.tif", colour)
    (tmp_path / "i_cut.png").write_bytes((tmp_path / "g_colour.png").read_bytes()[:500])
    (tmp_path / "j_text.png").write_text("no picture")
    np.save(tmp_path / "k_words.npy", np.array([["a", "b"]]))
    (tmp_path / "l_text.npy").write_text("no array")
    np.save(tmp_path / "m_colour.npy", colour)
    with h5py.File(tmp_path / "n_two.h5", "w") as file:
        file["u"], file["v"] = np.zeros((2, 9, 9)), np.zeros((2, 9, 9))
    with h5py.File(tmp_path / "o_none.h5", "w") as file:
        file["image"] = np.zeros((0, 9, 9))
    with h5py.File(tmp_path / "p_colour.h5", "w") as file:
        file["images"] = np.zeros((2, 9, 9, 3))
    (tmp_path / "q_text.h5").write_text("no HDF5")
    np.save(tmp_path / "r_complex.npy", np.zeros((9, 9), complex))
    np.save(tmp_path / "z.npy", pixels[:40])
    found = list(stream(tmp_path))
    good = [image for image in found if image.error is None]
    assert [image.id for image in good] == ["a", "z"]
    assert [image.pixels.shape for image in good] == [(60, 50), (40, 50)]
    errors = {image.id[0]: image for image in found if image.error}
    assert sorted(errors) == list("bcdefghijklmnopqr")
    damaged = "is damaged, cut short or of another format"
    for letter in "bcdefijl":
        assert_error(errors[letter], damaged, f"{letter}_")
    for letter in "ghmp":
        assert_error(errors[letter], "a colour image, of shape")
    assert_error(errors["k"], "k_words.npy has pixels of type")
    assert_error(errors["n"], "has 2 datasets that could be images", "u (2, 9, 9), v (2, 9, 9)")
    assert_error(errors["o"], "o_none.h5 has no image")
    assert_error(errors["q"], "q_text.h5 is not an HDF5 file")
    assert_error(errors["r"], "pixels of type complex128; accepted are real numbers")


def test_the_images_before_a_cut_are_read(tmp_path):
    pixels = noise(60, 50)
    fits.HDUList([fits.PrimaryHDU(pixels)] + [fits.ImageHDU(pixels + number) for number in (1, 2)]).writeto(
        tmp_path / "a.fits")
    whole = (tmp_path / "a.fits").read_bytes()
    block = len(whole) // 3
    for end, number in ((block + 1000, 1), (block + 9000, 1), (2 * block + 2000, 2)):
        for name, content in (("cut.fits", whole[:end]), ("cut.fits.gz", gzip.compress(whole[:end]))):
            (tmp_path / name).write_bytes(content)
            *good, bad = read(tmp_path / name)
            assert [image.id for image in good] == ["cut", "cut[1]"][:number]
            assert_error(bad, "is damaged, cut short or of another format")
    np.save(tmp_path / "cube.npy", noise(4, 60, 50))
    cut = (tmp_path / "cube.npy").read_bytes()[:30000]
    (tmp_path / "cube.npy").write_bytes(cut)
    assert_error(*read(tmp_path / "cube.npy"), "cube.npy is damaged")


def test_files_that_only_lack_their_padding_are_read(tmp_path, recwarn):
    pixels = noise(60, 50)
    fits.PrimaryHDU(pixels).writeto(tmp_path / "a.fits")
    content = (tmp_path / "a.fits").read_bytes()
    (tmp_path / "a.fits").write_bytes(content[:2880 + pixels.nbytes])
    np.testing.assert_array_equal(only(tmp_path / "a.fits").pixels, pixels)
    assert not [warning for warning in recwarn if "truncated" in str(warning.message)]


# Masks ---------------------------------------------------------------------------------


def test_masks_of_companion_files(tmp_path):
    pixels, bad = noise(3, 20, 30), np.zeros((3, 20, 30), "i4")
    bad[0, 2, 3], bad[1, 4, 5], bad[2, 6, 7] = 1, -7, 300
    for number, name in enumerate("abc"):
        fits.PrimaryHDU(pixels[number]).writeto(tmp_path / f"{name}.fits")
        fits.PrimaryHDU(bad[number]).writeto(tmp_path / f"{name}_mask.fits")
    masks = (".fits", "_mask.fits")
    assert [path.name for path in find(tmp_path, masks)] == ["a.fits", "b.fits", "c.fits"]
    found = list(stream(tmp_path, masks))
    assert [image.id for image in found] == ["a", "b", "c"]
    np.testing.assert_array_equal([image.mask for image in found], bad != 0)
    np.testing.assert_array_equal([image.pixels for image in found], pixels)
    np.save(tmp_path / "d_image.npy", pixels)
    np.save(tmp_path / "d_weight.npy", bad)
    stack = list(read(tmp_path / "d_image.npy", ("image", "weight")))
    np.testing.assert_array_equal([image.mask for image in stack], bad != 0)


def test_masks_that_do_not_fit_are_reported(tmp_path):
    fits.PrimaryHDU(noise(20, 30)).writeto(tmp_path / "a.fits")
    assert_error(*read(tmp_path / "a.fits", (".fits", "_mask.fits")), "a.fits has no mask: no such file", "a_mask.fits")
    assert_error(*read(tmp_path / "a.fits", ("image", "mask")), "a.fits has no mask: its name has no 'image'")
    fits.PrimaryHDU(noise(30, 20)).writeto(tmp_path / "a_mask.fits")
    assert_error(*read(tmp_path / "a.fits", (".fits", "_mask.fits")), "images of (20, 30) pixels, its mask")
    fits.PrimaryHDU(noise(2, 20, 30)).writeto(tmp_path / "a_mask.fits", overwrite=True)
    *_, last = read(tmp_path / "a.fits", (".fits", "_mask.fits"))
    assert_error(last, "do not have the same number of images")
    (tmp_path / "a_mask.fits").write_text("no FITS")
    assert_error(*read(tmp_path / "a.fits", (".fits", "_mask.fits")), "is damaged")


# Finding files -------------------------------------------------------------------------


def test_files_folders_and_patterns(tmp_path):
    (tmp_path / "deep").mkdir()
    for name in ("b.npy", "a.npy", "deep/c.npy", "d.png"):
        np.save(tmp_path / "x.npy", noise(9, 8))
        (tmp_path / "x.npy").rename(tmp_path / name)
    (tmp_path / "README.txt").write_text("")

    def names(paths):
        return [path.relative_to(tmp_path).as_posix() for path in find(paths)]

    assert names(tmp_path) == names(str(tmp_path)) == ["a.npy", "b.npy", "d.png"]
    assert names([tmp_path / "*.npy", tmp_path / "a.npy"]) == ["a.npy", "b.npy"]
    assert names(tmp_path / "**" / "*.npy") == ["a.npy", "b.npy", "deep/c.npy"]
    for path, words in ((tmp_path / "none.fits", "no such file"), (tmp_path / "README.txt", "not an image file"),
                        (tmp_path / "*.fits", "no such file")):
        with pytest.raises(DataError, match=f"{words}.*accepted suffixes are .fits .fit .*tiff"):
            find([tmp_path, path])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no image file in .*empty; accepted suffixes are .fits .fit"):
        list(stream(tmp_path / "empty"))


def test_files_of_one_name_are_told_apart(tmp_path):
    for folder in ("1", "2"):
        (tmp_path / folder).mkdir()
        np.save(tmp_path / folder / "image.npy", noise(9, 8))
    assert [image.id for image in stream(tmp_path / "*" / "image.npy")] == ["1/image.npy", "2/image.npy"]
    assert [image.id for image in stream(tmp_path / "1")] == ["image"]


@pytest.mark.parametrize("name", ["a.npy", "a.fits", "a.h5"])
def test_a_large_file_is_not_held_in_memory(tmp_path, name):
    stack = np.tile(np.arange(100, dtype="f4"), (2000, 100, 1))
    if name == "a.npy":
        np.save(tmp_path / name, stack)
    elif name == "a.fits":
        fits.PrimaryHDU(stack[:300]).writeto(tmp_path / name)
    else:
        imageset.write(tmp_path / name, id=range(2000), image=stack, source="")
    size = (tmp_path / name).stat().st_size
    del stack
    list(read(tmp_path / name))[0]  # what is imported stays
    tracemalloc.start()
    number = sum(image.error is None for image in read(tmp_path / name))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert number == (300 if name == "a.fits" else 2000)
    assert peak < 0.25 * size


# Real galaxies -------------------------------------------------------------------------


def test_real_galaxies_of_the_sdss(shared_data):
    profit = list(stream(shared_data / "profit_sdss" / "*fitim.fits", ("fitim", "mskim")))
    assert len(profit) == 10 and profit[0].id == "G265911fitim"
    imfit = list(stream([shared_data / "imfit_sdss" / name for name in ("ic3478*.fits", "n3073*.fits")],
                        (".fits", "_mask.fits")))
    imfit += read(shared_data / "imfit_sdss" / "vcc1512rss_cutout.fits", ("_cutout", "_mask_cutout"))
    assert [(image.id, image.pixels.shape) for image in imfit] == [
        ("ic3478rss_256", (256, 256)), ("n3073rss_small", (200, 150)), ("vcc1512rss_cutout", (161, 121))]
    for image in profit + imfit:
        assert image.error is None and image.mask.dtype == bool and np.isfinite(image.pixels).all()
    assert [round(100 * image.mask.mean(), 1) for image in imfit] == [3.2, 4.2, 7.2]
    assert not any(image.mask.any() for image in profit)
    direct = fits.getdata(shared_data / "imfit_sdss" / "ic3478rss_256.fits")
    np.testing.assert_array_equal(imfit[0].pixels, direct)


def test_a_folder_of_real_galaxies_has_ten_of_them(shared_data):
    found = list(stream(shared_data / "profit_sdss"))
    assert len(found) == 10 and all(image.id.endswith("fitim") and not image.error for image in found)
    imfit = list(stream(shared_data / "imfit_sdss"))
    assert [image.id for image in imfit] == ["ic3478rss_256", "n3073rss_small", "vcc1512rss_cutout"]
    for image in imfit:
        assert image.unit == "counts" and image.zero_point is None  # their headers do not say it
        assert image.pixel_scale == pytest.approx(0.396, abs=1e-4) and "soft_bias" not in image.facts
        assert image.facts["exposure"] == pytest.approx(53.907456) and 100 < image.facts["ra"] < 200


# Anything at all -----------------------------------------------------------------------

CARDS = ("BUNIT", "MAGZERO", "ZP", "FLUXMAG0", "PHOTFLAM", "PHOTPLAM", "EXPTIME", "GAIN", "SATURATE", "NMGY",
         "SOFTBIAS", "OBJECT", "IMAGETYP", "RA", "DEC", "CTYPE1", "CTYPE2", "CD1_1", "CD2_2", "CRVAL1",
         "CRPIX1", "CDELT1", "CUNIT1", "PIXSCALE", "PIXAR_SR", "PIXAR_A2", "BSCALE", "BZERO", "BLANK", "EXTNAME",
         "EXTVER", "EXTEND", "MP_BAD", "FLUX20", "RADESYS", "EQUINOX", "PV1_1", "A_ORDER")
VALUES = (0, 1, -1, 7, 1e-300, 1e300, 2**31, -0.5, 3600.0, True, False, "", "SCI", "MASK", "nanomaggy", "MJy/sr",
          "RA---TAN", "DEC--SIP", "GLON-CAR", "model", "INVVAR", "12:00:00", "NaN", "1e400", "\t".strip(), "x" * 68)


def test_any_header_gives_an_image_or_one_line(tmp_path):
    hypothesis = pytest.importorskip("hypothesis")
    from hypothesis import strategies

    cards = strategies.dictionaries(strategies.sampled_from(CARDS), strategies.sampled_from(VALUES), max_size=8)
    kinds = strategies.sampled_from(["f4", "f8", "i2", "u1", "i8"])
    shapes = strategies.sampled_from([(20, 30), (20, 30), (2, 20, 30), (20,), (1, 1), (20, 3), (1, 20, 30), (0, 5)])
    plane = strategies.tuples(kinds, shapes, cards, strategies.integers(0, 3))
    pixels = galaxy(20, 30)

    @hypothesis.settings(max_examples=75, deadline=None, derandomize=True, database=None)
    @hypothesis.given(strategies.lists(plane, min_size=1, max_size=4),
                      strategies.lists(strategies.tuples(strategies.integers(0, 12000), strategies.integers(0, 255)),
                                       max_size=2))
    def check(planes, flips):
        hdus = []
        for kind, shape, header, content in planes:
            contents = np.resize(pixels, shape), np.zeros(shape), np.resize(FLAGS, shape), np.full(shape, np.nan)
            values = contents[content]
            with np.errstate(invalid="ignore"):
                values = values.astype(kind)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                hdus.append((fits.ImageHDU if hdus else fits.PrimaryHDU)(values))
                for name, value in header.items():
                    hdus[-1].header[name] = value
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                fits.HDUList(hdus).writeto(tmp_path / "a.fits", overwrite=True, output_verify="ignore")
        except Exception:  # what astropy itself does not write
            hypothesis.reject()
        content = bytearray((tmp_path / "a.fits").read_bytes())
        for place, value in flips:
            content[place % len(content)] = value
        (tmp_path / "a.fits").write_bytes(content)
        for options in ({}, {"zero_point": 25.0}, {"extension": 1}):
            for image in stream(tmp_path, **options):
                if image.error:
                    assert len(image.error.splitlines()) == 1 and image.pixels is None
                    continue
                assert image.pixels.ndim == 2 and image.pixels.dtype == np.float32
                for other in (image.mask, image.variance):
                    assert other is None or other.shape == image.pixels.shape
                assert image.pixel_scale is None or image.pixel_scale > 0
                assert image.zero_point is None or np.isfinite(image.zero_point)
                try:
                    to_unit(image, "counts", 28.26)
                except DomainError as error:
                    assert len(str(error).splitlines()) == 1

    check()
