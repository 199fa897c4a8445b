"""Several bands of a galaxy seen together: joined, read, prepared, trained on and scored."""

import shutil

import h5py
import harness
import numpy as np
import pytest
from astropy.io import fits
from scipy import stats

import kerasgal as kg
from kerasgal import imageset
from kerasgal.apps.morph import archetypes, figures, mock, prepare, sets
from kerasgal.apps.morph.config import TrainConfig
from kerasgal.apps.morph.distribution import distribution
from kerasgal.apps.morph.losses import log_prob
from kerasgal.apps.morph.sample import drawn
from kerasgal.readers import images as readers
from kerasgal.readers.bands import join

pytest.importorskip("galsim")
pytestmark = pytest.mark.usefixtures("eager", "restored_once")

ABOUT = {"unit": "counts", "zero_point": 28.26, "pixel_scale": 0.396}


@pytest.fixture(scope="module")
def folder(galaxies, tmp_path_factory, invoke):
    """A folder with 24 galaxies in g.h5 and r.h5, fainter in g, and in both.h5."""
    place = tmp_path_factory.mktemp("bands")
    with kg.ImageSet(galaxies / "real.h5") as images:
        pixels, table = images["image"][:24], {name: values[:24] for name, values in images.table().items()}
    noise = np.random.default_rng(0).normal(0, 5, pixels.shape)
    names = [f"galaxy {number}" for number in range(24)]
    # The same galaxies in g, in another order, fainter by 1 mag in counts of another zero point
    write = {"r": (pixels, 1.0, 28.26, names), "g": (0.4 * pixels + noise, 0.4, 27.26, names)}
    for band, (image, factor, zero_point, ids) in write.items():
        turn = slice(None, None, -1) if band == "g" else slice(None)
        columns = {name: (values * factor if name == "flux" else values)[turn] for name, values in table.items()}
        imageset.write(place / f"{band}.h5", id=ids[turn], image=image[turn], table=columns, source=f"made in {band}",
                       **{**ABOUT, "zero_point": zero_point})
    said = invoke("morph", "join", place / "both.h5", f"r={place / 'r.h5'}", f"g={place / 'g.h5'}")
    assert said.stdout.strip() == f"{place / 'both.h5'}: 24 galaxies in the bands r, g" and not said.stderr
    return place


@pytest.fixture(scope="module")
def run(folder, invoke, eagerly, tmp_path_factory):
    """A run of two bands whose network of archetypes is that of real galaxies, disturbed."""
    place = tmp_path_factory.mktemp("trained") / "run"
    with eagerly(True):
        said = invoke("morph", "train", folder / "both.h5", "--run", place, "--bands", "g,r", *harness.flags("morph"))
        assert "21 training images, 3 validation images" in said.stdout
        shutil.copytree(place / "real", place / "archetype")
        with h5py.File(place / "archetype" / "best.weights.h5", "r+") as file:
            file.visititems(lambda name, item: item.write_direct(1.1 * item[...]) if hasattr(item, "dtype")
                            and item.dtype.kind == "f" and item.ndim else None)
        return kg.load(place)


def test_sets_of_one_band_are_joined_galaxy_by_galaxy(folder, invoke):
    with kg.ImageSet(folder / "both.h5") as both, kg.ImageSet(folder / "r.h5") as r, kg.ImageSet(folder / "g.h5") as g:
        assert both.bands == ("r", "g") and both.shape == (128, 128) and both.file.attrs["version"] == 2
        assert both.problems() == [] and both.source == "r: made in r; g: made in g"
        place = {name: row for row, name in enumerate(both["id"][...])}
        for band, one in enumerate((r, g)):
            rows = [place[name] for name in one["id"][...]]
            expected = one["image"][...] * (10**0.4 if band else 1)  # g is brought to the zero point of r
            np.testing.assert_allclose(both["image"][...][rows][..., band], expected, rtol=1e-5)
            np.testing.assert_array_equal(both.table()[f"flux_{'rg'[band]}"][rows], one["table/flux"][...])
        assert "redshift" in both.table() and "redshift_g" not in both.table()  # a galaxy has one
        np.testing.assert_allclose(both.grey(0), both["image"][0].mean(axis=-1))
    assert "r,g" in invoke("info", folder / "both.h5").stdout


def test_what_does_not_belong_together_is_left_out_or_refused(tmp_path, caplog):
    rng = np.random.default_rng(1)
    same = rng.normal(size=(3, 16, 16))
    imageset.write(tmp_path / "g.h5", id=["a_g", "b_g", "only"], image=same, source="", **ABOUT)
    imageset.write(tmp_path / "r.h5", id=["a_r", "b_r", "other"], image=2 * same, source="", **ABOUT)
    assert join(tmp_path / "gr.h5", {"g": tmp_path / "g.h5", "r": tmp_path / "r.h5"}) == 2
    with kg.ImageSet(tmp_path / "gr.h5") as images:
        assert sorted(images["id"][...]) == ["a", "b"]
    said = "\n".join(caplog.messages)
    assert "left out, as not all bands are there and alike: 2 galaxies, such as only has no band r" in said
    assert "bands g and r have the same noise in their skies (correlation 1.00)" in said
    imageset.write(tmp_path / "coarse.h5", id=["a_i"], image=same[:1], source="", **{**ABOUT, "pixel_scale": 0.2})
    imageset.write(tmp_path / "small.h5", id=["a_i"], image=same[:1, :8], source="", **ABOUT)
    imageset.write(tmp_path / "unknown.h5", id=["a_i"], image=same[:1], source="")
    for name, message in (("coarse", "band i has pixels of 0.2 arcsec, band g of 0.396"),
                          ("small", "band i has 8 x 16 pixels, band g 16 x 16"),
                          ("unknown", "band i is in an unknown unit of an unknown zero point, band g in counts of ")):
        with pytest.raises(kg.DataError, match=message):
            join(tmp_path / "bad.h5", {"g": tmp_path / "g.h5", "i": tmp_path / f"{name}.h5"})
    for name, scale in (("set", 0.396), ("fine", 0.2), ("unsaid", None)):
        for band in "gr":
            imageset.write(tmp_path / f"{name}_{band}.h5", id=["a"], image=same[:1], source="",
                           **{**ABOUT, "pixel_scale": scale})
    for name, message in (("fine", "set.a. has pixels of 0.396 arcsec, fine.a. of 0.2 arcsec: all images of a"),
                          ("unsaid", "unsaid.a. has pixels of unknown size, set.a. of 0.396 arcsec: all images")):
        with pytest.raises(kg.DataError, match=message):
            join(tmp_path / "bad.h5", {band: [tmp_path / f"set_{band}.h5", tmp_path / f"{name}_{band}.h5"]
                                       for band in "gr"})
    for name, about in (("sharper", {"psf_fwhm": 1.3}), ("unnamed", {"unit": None, "zero_point": None})):
        for band in "gr":
            imageset.write(tmp_path / f"{name}_{band}.h5", id=["a"], image=same[:1], source="", **{**ABOUT, **about})
        with pytest.raises(kg.DataError, match=f"{name}.a. has another unit, zero point or seeing than set.a.: all"):
            join(tmp_path / "bad.h5", {band: [tmp_path / f"set_{band}.h5", tmp_path / f"{name}_{band}.h5"]
                                       for band in "gr"})
    imageset.write(tmp_path / "twice.h5", id=["a_g", "a-g"], image=same[:2], source="", **ABOUT)
    for second in ("r.h5", "g.h5"):  # of which the first has the galaxy, too
        with pytest.raises(kg.DataError, match="band g has two images that are called a"):
            join(tmp_path / "bad.h5", {"g": tmp_path / "twice.h5", "r": tmp_path / second})
    with pytest.raises(kg.SettingError, match="at least two bands are joined"):
        join(tmp_path / "bad.h5", {"g": tmp_path / "g.h5"})
    assert not (tmp_path / "bad.h5").exists()


def test_fits_files_say_which_plane_is_of_which_band(tmp_path):
    cube = np.random.default_rng(0).normal(size=(3, 20, 20)).astype("f4")
    survey = fits.PrimaryHDU(cube)
    survey.header["BANDS"] = "grz"  # as cutouts of the Legacy Surveys have it
    survey.writeto(tmp_path / "cube.fits")
    planes = [fits.ImageHDU(plane) for plane in cube]
    for plane, name in zip(planes, ("g DECam SDSS", "r DECam SDSS", "z DECam SDSS")):
        plane.header["FILTER"] = name
    fits.HDUList([fits.PrimaryHDU(), *planes]).writeto(tmp_path / "several.fits")
    for name in ("cube", "several"):
        image, = readers.stream(tmp_path / f"{name}.fits", bands=("z", "g"))
        assert image.id == name and image.bands == ("z", "g") and not image.error
        np.testing.assert_array_equal(image.pixels, np.moveaxis(cube[[2, 0]], 0, -1))
        one, = readers.stream(tmp_path / f"{name}.fits", bands=("r",))
        np.testing.assert_array_equal(one.pixels, cube[1])
        lost, = readers.stream(tmp_path / f"{name}.fits", bands=("g", "i"))
        assert "no planes of the band i; its cards name g, r, z" in lost.error
        assert len(list(readers.stream(tmp_path / f"{name}.fits"))) == 3  # as ever, where no bands are asked for


def test_each_band_is_prepared_as_if_it_were_alone(folder):
    both = list(readers.stream(folder / "both.h5", bands=("g", "r")))
    alone = {image.id: image for image in readers.stream(folder / "r.h5", bands=())}
    for rebin in ("mean", "spline"):
        config = TrainConfig(bands="g,r", sky="border", rebin=rebin)
        for image in both[:3]:
            image.pixels[60:63, 70, 1] = np.nan  # a hole in one of the bands
            one = alone[image.id]
            one.pixels[60:63, 70] = np.nan
            for angle in (0.0, 30.0):
                made = prepare.prepare(image, config, angle)
                assert made.shape == (32, 32, 2) and made.dtype == np.float32
                np.testing.assert_array_equal(
                    made[..., 1:], prepare.prepare(one, TrainConfig(sky="border", rebin=rebin), angle))


@pytest.mark.parametrize("channels", [2, 3])
def test_the_likelihood_of_several_bands_is_that_of_tensorflow_probability(channels):
    """Both distributions; the normal one is also scipy's multivariate normal of the covariance written out."""
    rng = np.random.default_rng(channels)
    pairs = channels * (channels - 1) // 2
    x = rng.uniform(-0.3, 1, (2, 3, 4, channels)).astype("f4")
    given = rng.normal(0, 0.7, (2, 3, 4, 2 * channels + pairs)).astype("f4")
    found = np.asarray(log_prob(x, given, likelihood="normal"))
    said = distribution(given, likelihood="normal", channels=channels).log_prob(x.astype("f8"))
    np.testing.assert_allclose(found, said, rtol=1e-4, atol=1e-4)
    mean, raw, coefficient = np.split(given[0, 0, 0].astype("f8"), [channels, 2 * channels])
    mixing = np.eye(channels)
    mixing[np.tril_indices(channels, -1)] = -coefficient
    inverse = np.linalg.inv(mixing)
    covariance = inverse @ np.diag((np.logaddexp(raw, 0) + 1e-4)**2) @ inverse.T
    expected = stats.multivariate_normal(inverse @ mean, covariance).logpdf(x[0, 0, 0])
    assert found[0, 0, 0] == pytest.approx(expected, rel=1e-4)
    draws = drawn(np.tile(0.1 * given[0, 0, 0], (20_000, 1)) - np.repeat([0, 3, 0], [channels, channels, pairs]),
                  rng.random((20_000, 1 + channels)), 0, "normal")
    small = distribution(0.1 * given[0, 0, 0] - np.repeat([0, 3, 0], [channels, channels, pairs]), likelihood="normal",
                         channels=channels)
    np.testing.assert_allclose(draws.mean(axis=0), small.mean(), atol=2e-3)
    np.testing.assert_allclose(np.cov(draws.T), small.covariance(), atol=2e-4)

    given = rng.normal(0, 1, (2, 3, 4, 3 * (1 + 2 * channels + pairs))).astype("f4")
    said = distribution(given, channels=channels).log_prob(x.astype("f8"))
    np.testing.assert_allclose(log_prob(x, given), said, rtol=1e-4, atol=1e-4)
    for wrong, options in ((np.zeros(2 * channels), {"likelihood": "normal"}), (np.zeros(4), {}),
                           (given, {"bits": 8})):
        with pytest.raises(ValueError, match="channels"):
            distribution(wrong, channels=channels, **options)


@pytest.mark.slow
def test_a_run_of_two_bands_scores_what_tensorflow_probability_says(run, folder, tmp_path, invoke):
    """The set has r first, the run g: bands go by their names."""
    assert run.config.bands == "g,r" and run.domain["bands"] == ["g,r"]
    invoke("morph", "score", run.folder, folder / "both.h5", "--output", tmp_path / "scores.csv", "--maps",
           tmp_path / "maps.h5")
    scores = run.predict(folder / "both.h5", maps=True)
    assert len(scores["id"]) == 24 and not np.any(scores["error"] != "") and np.any(scores["llr"] != 0)
    with h5py.File(tmp_path / "maps.h5") as file:
        assert file["image"].shape == (24, 8, 8, 2) and file.attrs["bands"] == "g,r"
        np.testing.assert_array_equal(file["image"][...], scores["image"])
        np.testing.assert_array_equal(file["log_p_real"][...], scores["map_real"])
    prepared = np.stack([prepare.prepare(image, run.config)
                         for image in readers.stream(folder / "both.h5", bands=("g", "r"))])
    np.testing.assert_array_equal(scores["image"], prepared)
    for name, network in (("real", run.real), ("archetype", run.archetype)):
        parameters = np.asarray(network(prepared))
        expected = distribution(parameters, channels=2).log_prob(prepared.astype("f8")).numpy()
        np.testing.assert_allclose(scores[f"map_{name}"], expected, atol=2e-3, rtol=1e-4)
        np.testing.assert_allclose(scores[f"log_p_{name}"], expected.sum(axis=(1, 2)), rtol=1e-4)
    with kg.ImageSet(folder / "both.h5") as images:
        array = images["image"][...][..., ::-1]
    same = run.predict(array, unit="counts", zero_point=28.26, pixel_scale=0.396)
    np.testing.assert_allclose(same["llr"], scores["llr"], atol=1e-3)
    served, described = run.served()
    np.testing.assert_allclose(served(prepared[:2])[..., 0], scores["map_real"][:2], atol=1e-3)
    assert described["preparation"]["bands"] == "g,r" and run.sample(2).shape == (2, 8, 8, 2)


def refused(invoke, run, images, output):
    """The one line with which images of other bands are not scored."""
    done = invoke("morph", "score", run, images, "--output", output, check=False)
    line, = done.stderr.strip().splitlines()
    assert done.returncode == 1 and not output.exists()
    return line


@pytest.mark.slow
def test_other_bands_are_refused_in_one_line_that_names_both(run, galaxies, folder, tmp_path, invoke):
    shutil.copy(folder / "both.h5", tmp_path / "other.h5")
    with h5py.File(tmp_path / "other.h5", "r+") as file:
        file.attrs["bands"] = "g,i"
    for images, message in ((tmp_path / "other.h5", "the bands g,i, and the run was trained on the bands g,r"),
                            (galaxies / "real.h5", "one band, and the networks take the bands g, r")):
        assert message in refused(invoke, run.folder, images, tmp_path / "scores.csv")
    with pytest.raises(kg.DataError, match=r"\(n, y, x, 2\) or \(y, x, 2\)"):
        run.predict(np.zeros((3, 64, 64)))


def test_networks_of_one_band_and_settings_of_others_refuse(trained, galaxies, folder, tmp_path, invoke):
    said = refused(invoke, trained("morph"), folder / "both.h5", tmp_path / "scores.csv")
    assert "the bands r, g, and the networks take one band" in said
    for images, settings, message in ((folder / "both.h5", {}, "take one band"),
                                      (folder / "both.h5", {"bands": "g,i"}, "bands=g,i are to be seen"),
                                      (galaxies / "real.h5", {"bands": "g,i"}, "has one band, and the networks take")):
        with pytest.raises(kg.DomainError, match=message):
            kg.Morph.train(images, run=tmp_path / "run", preset="demo", **settings)
    with pytest.raises(kg.SettingError, match="each once, with commas between"):
        TrainConfig(bands="g,g")


def test_a_set_of_several_bands_is_an_error_where_one_is_taken(folder, tmp_path, invoke):
    done = invoke("morph", "archetypes", tmp_path / "out.h5", "--fit", folder / "both.h5", check=False)
    assert done.returncode == 1 and "the bands r, g, and images of one band are taken here" in done.stderr


@pytest.mark.slow
def test_two_bands_are_evaluated_ranked_and_drawn(run, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(kg.Morph, "check_unseen", lambda self, sources: None)  # the same images: numbers are no matter
    both = folder / "both.h5"
    found = run.evaluate({"observed": both, "again": both})
    assert found["sets"]["again"]["delta"] == pytest.approx(0, abs=1e-3) and np.isfinite(found["sky"]["ratio"])
    assert found["sensitivity"]["psf"] is None and np.isfinite(found["sensitivity"]["noise"]["llr"])
    with pytest.raises(kg.SettingError, match="of 2 bands give a set of this name"):
        run.evaluate({"observed": both}, control="sky")
    assert len(run.rank(both, both).table) == 24
    sets.write_samples(run, tmp_path / "drawn.h5", number=2)
    with kg.ImageSet(tmp_path / "drawn.h5") as images:
        assert images["image"].shape == (2, 8, 8, 2) and images.bands == ("g", "r")


def test_figures_show_the_mean_over_the_bands():
    images = np.random.default_rng(0).random((2, 4, 5, 3))
    for axes, image in zip(figures.sheet(images).axes, images):
        np.testing.assert_array_equal(axes.images[0].get_array(), image.mean(axis=2))


def test_made_up_galaxies_have_other_colours_of_bulge_and_disc(tmp_path):
    """In r they are those of one band; in g they have the same structure, other fluxes and other noise."""
    one, = mock.galaxies(1, "real", seed=3)
    several, = mock.galaxies(1, "real", seed=3, bands=("g", "r"))
    np.testing.assert_array_equal(several["image"][..., 1], one["image"])
    assert several["flux_r"] == one["flux"] and 0.5 <= several["flux_g"] / one["flux"] <= 0.66
    border = several["image"][:12].reshape(-1, 2)
    assert abs(np.corrcoef(border.T)[0, 1]) < 0.1
    with pytest.raises(kg.DataError, match="accepted are several of g, r, i"):
        next(mock.galaxies(1, "real", bands=("g", "u")))


def test_archetypes_of_a_table_have_the_flux_of_each_band(tmp_path, invoke):
    (tmp_path / "table.csv").write_text("id,flux_g,flux_r,radius,n_g,n_r,axis_ratio,angle\n"
                                        "a,1e6,3e6,2.0,1.0,2.0,0.7,30\nb,2e6,2e6,2.0,1.0,1.0,1.0,0\n")
    invoke("morph", "archetypes", tmp_path / "both.h5", "--table", tmp_path / "table.csv", "--bands", "g,r")
    with kg.ImageSet(tmp_path / "both.h5") as images:
        assert images.bands == ("g", "r") and list(images["id"][...]) == ["a", "b"]
        pixels, table = images["image"][...], images.table()
    np.testing.assert_allclose(pixels.sum(axis=(1, 2)), [[1e6, 3e6], [2e6, 2e6]], rtol=0.02)
    assert table["n_g"].tolist() == [1, 1] and table["n_r"].tolist() == [2, 1]
    noise = pixels[1, :, :20].reshape(-1, 2)
    assert abs(np.corrcoef(noise.T)[0, 1]) < 0.1 and noise.std() == pytest.approx(archetypes.Camera().noise, rel=0.1)
    done = invoke("morph", "archetypes", tmp_path / "no.h5", "--number", 3, "--bands", "g,r", check=False)
    assert done.returncode == 2 and "--bands g,r: they are those of --table" in done.stderr
