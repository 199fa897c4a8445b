"""Images in the formats of other libraries, written by them, and real galaxies of the SDSS."""

import gzip
import tracemalloc

import h5py
import numpy as np
import pytest
from astropy.io import fits
from skimage.io import imsave

from kerasgal import imageset
from kerasgal.errors import DataError
from kerasgal.readers import images as reader
from kerasgal.readers.images import find, read, stream


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


@pytest.mark.parametrize("name", ["a.fits", "a.FIT", "a.fits.gz"])
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
    assert len(find(tmp_path)) == 6
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
    stack = np.zeros((2000, 100, 100), "f4")
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
