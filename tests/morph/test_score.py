"""The unit of flux and the flags of scores, with networks that have learnt nothing: what is scored is what counts."""

import csv
import dataclasses

import h5py
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from kerasgal import __version__, imageset
from kerasgal.apps.morph import score, tables
from kerasgal.apps.morph.config import TrainConfig
from kerasgal.apps.morph.run import Morph
from kerasgal.errors import DataError, DomainError
from kerasgal.readers.images import Image, stream

pytestmark = pytest.mark.usefixtures("eager")

SDSS = 28.26  # magnitude of one count


@pytest.fixture(scope="module")
def run():
    config = TrainConfig(size=8, filters=4, likelihood="logistic", mixtures=2, blocks=1, dropout=0.0, sky="border",
                         rebin="mean")
    real, archetype = score.build(config), score.build(dataclasses.replace(config, mixtures=3))
    domain = {"unit": ["counts"], "zero_point": [SDSS, SDSS]}
    return Morph(config, {"real": real, "archetype": archetype}, domain=domain)


def galaxy(peak=800.0, width=6.0, seed=0, side=128):
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    noise = np.random.default_rng(seed).normal(0, 5, (side, side))
    return (peak * np.exp(-0.5 * (x**2 + y**2) / width**2) + noise).astype("f4")


def counts(pixels, **options):
    return Image("galaxy", np.asarray(pixels, "f4"), **{"unit": "counts", "zero_point": SDSS, **options})


def flag_of(run, *images):
    rows, _ = next(score.score(run, images, batch=len(images)))
    return [row["flag"] for row in rows]


def test_flags_say_what_is_wrong_with_an_image(run):
    good, half = galaxy(), np.zeros((128, 128), bool)
    half[40:50, 32:96] = True  # 10 of 64 rows
    star = galaxy()
    star[64, 64] = 5000
    # The limit, with three images that are sound: most of a set must show a galaxy.
    found = flag_of(run, counts(good), counts(galaxy(seed=1)), counts(galaxy(seed=2)), counts(galaxy(seed=4)),
                    counts(galaxy(peak=0)), counts(galaxy(peak=1e5, width=3)),
                    counts(galaxy(width=30)), counts(good, mask=half), counts(star, facts={"saturation": 4000.0}))
    assert found[:4] == [0] * 4
    assert found[4] == score.FLAGS["blank"]
    assert found[5] == score.FLAGS["saturated"]
    assert found[6] & score.FLAGS["cut"]
    assert found[7] == score.FLAGS["bad"]
    assert found[8] == score.FLAGS["saturated"]
    assert flag_of(run, counts(star)) == [0]


def test_images_are_brought_to_the_unit_of_the_run(run):
    """The same galaxy in four units: one score."""
    nanomaggies = 10**(0.4 * (22.5 - SDSS))  # in one count
    images = [counts(galaxy()), counts(galaxy() * nanomaggies, unit="nanomaggies", zero_point=22.5),
              counts(galaxy() * nanomaggies * 1e-9, unit="maggies", zero_point=0.0),
              counts(galaxy() * 3, zero_point=SDSS + 2.5 * np.log10(3)),
              counts(galaxy() / 7, unit=None, zero_point=None, flux_scale=7.0)]
    rows, _ = next(score.score(run, images, batch=5))
    np.testing.assert_allclose([row["llr"] for row in rows], rows[0]["llr"], rtol=1e-4)
    assert [row["flag"] for row in rows] == [0] * 5


def test_an_unknown_unit_is_flagged_and_a_strange_one_is_an_error(run):
    unknown = score.FLAGS["unit"]
    assert flag_of(run, counts(galaxy(), unit=None, zero_point=None)) == [unknown]
    assert flag_of(run, counts(galaxy(), zero_point=None)) == [unknown]
    assert flag_of(Morph(run.config, run.networks), counts(galaxy())) == [unknown]
    rows, _ = next(score.score(run, [counts(galaxy(), unit="K", zero_point=None)]))
    assert "in K, which is no unit of flux that is known" in rows[0]["error"]
    assert rows[0]["flag"] == score.FLAGS["not scored"] and rows[0]["llr"] == ""


def test_a_set_without_galaxies_stops_before_there_is_a_table(run, tmp_path):
    blank = [counts(galaxy(seed=seed) * 1e-12, unit=None, zero_point=None) for seed in range(3)]
    with pytest.raises(DomainError, match=r"3 of the first 4 images show no galaxy after the stretch "
                       r"arsinh\(flux / 1000\): their largest flux is 8\d\d in an unknown unit, and the run was "
                       r"trained on counts of which one has 28.26 mag; if they are galaxies, give `unit`"):
        tables.write(run, iter([*blank, counts(galaxy(), unit=None)]), tmp_path / "scores.csv")
    assert list(tmp_path.iterdir()) == []
    assert tables.write(run, iter([*blank[:1], counts(galaxy())]), tmp_path / "scores.csv") == (2, 0)
    with pytest.raises(DomainError, match="1 of the first 1 images"):  # everything is as bright as can be
        next(score.score(run, [counts(galaxy(), flux_scale=1e6)]))


def test_a_table_that_is_gone_on_with_may_end_in_blank_images(run, tmp_path, monkeypatch):
    monkeypatch.setattr(score, "BATCH", 2)
    images = [dataclasses.replace(counts(galaxy(peak=peak, seed=number)), id=str(number))
              for number, peak in enumerate((800, 800, 0, 0))]

    def interrupted():
        yield from images[:2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tables.write(run, interrupted(), tmp_path / "scores.csv")
    assert tables.write(run, iter(images), tmp_path / "scores.csv", resume=True) == (4, 0)


def test_tables_hold_the_flag(run, tmp_path):
    images = [counts(galaxy()), Image("lost", None, error="lost is damaged")]
    for name in ("scores.csv", "scores.ecsv", "scores.fits"):
        assert tables.write(run, iter(images), tmp_path / name) == (2, 1)
        table = Table.read(tmp_path / name, **({"comment": "#"} if name == "scores.csv" else {}))
        assert list(table["flag"]) == [0, 32] and np.issubdtype(table["flag"].dtype, np.integer)
    with open(tmp_path / ".scores.csv.partial", "w", newline="") as file:
        csv.writer(file).writerows([["id", "llr"], ["galaxy", 1]])
    with pytest.raises(DataError, match="has the columns id, llr; a table of scores has id, log_p_real"):
        tables.write(run, iter(images), tmp_path / "scores.csv", resume=True, overwrite=True)


def test_image_sets_without_a_unit_are_flagged(run, tmp_path):
    for name, about in (("old", {}), ("new", {"unit": "counts", "zero_point": SDSS})):
        imageset.write(tmp_path / f"{name}.h5", id=["a"], image=galaxy()[None], source="", **about)
    assert flag_of(run, *stream(tmp_path / "old.h5")) == [16]
    assert flag_of(run, *stream(tmp_path / "new.h5")) == [0]


def test_ten_real_stamps_in_maggies_are_refused_or_scored_apart(run, shared_data):
    folder = shared_data / "profit_sdss"
    with pytest.raises(DomainError, match="10 of the first 10 images show no galaxy .* give `unit`"):
        next(score.score(run, stream(folder)))
    rows, _ = next(score.score(run, stream(folder, unit="maggies")))
    ratios = [row["llr"] for row in rows]
    assert len(set(ratios)) == 10 and np.isfinite(ratios).all()
    assert all(row["galaxy_pixels"] > 0 and not row["flag"] & 17 for row in rows)
    # By hand, as counts
    scale = 10**(0.4 * SDSS)
    other, _ = next(score.score(run, stream(folder, flux_scale=scale)))
    np.testing.assert_allclose([row["llr"] for row in other], ratios, rtol=1e-5)


def test_scores_stand_beside_where_the_galaxy_is_and_what_it_is_called(run, tmp_path):
    """Of FITS headers, of image sets, and of images that say nothing."""
    stamps = tmp_path / "stamps"
    stamps.mkdir()
    cards = {"RA": "12:30:00", "DEC": "-10:30:00", "OBJECT": "NGC 1"}
    fits.PrimaryHDU(galaxy(), fits.Header(cards)).writeto(stamps / "a.fits")
    fits.PrimaryHDU(galaxy(seed=1)).writeto(stamps / "b.fits")
    imageset.write(stamps / "c.h5", id=["c"], image=galaxy(seed=2)[None], source="",
                   table={"ra": [10.25], "dec": [-3.5], "object": ["M 51"], "n": [2.0]})
    fits.PrimaryHDU(galaxy()[:9, :9], fits.Header(cards)).writeto(stamps / "d.fits")  # too small to be scored
    for name in ("scores.csv", "scores.ecsv", "scores.fits", "scores.h5"):
        assert run.write_scores(stamps, tmp_path / name) == (4, 1)
        table = Table.read(tmp_path / name, **({"comment": "#"} if name == "scores.csv" else {}))
        np.testing.assert_allclose(np.ma.filled(table["ra"], np.nan), [187.5, np.nan, 10.25, 187.5])
        np.testing.assert_allclose(np.ma.filled(table["dec"], np.nan), [-10.5, np.nan, -3.5, -10.5])
        assert [str(text) for text in np.ma.filled(table["object"], "")] == ["NGC 1", "", "M 51", "NGC 1"]
        assert str(table["ra"].unit) == ("None" if name == "scores.csv" else "deg")
    scores = run.predict(stamps)
    np.testing.assert_allclose(scores["ra"], [187.5, np.nan, 10.25, 187.5])
    assert scores["object"].tolist() == ["NGC 1", "", "M 51", "NGC 1"] and str(scores.table["dec"].unit) == "deg"
    scores.save(tmp_path / "prediction.h5")
    with h5py.File(tmp_path / "prediction.h5") as file:
        assert file["object"].asstr()[...].tolist() == ["NGC 1", "", "M 51", "NGC 1"]
    only = run.predict(stamps / "b.fits")
    assert not {"ra", "dec", "object"} & set(only)


def test_tables_of_scores_say_what_made_them(run, tmp_path):
    tables.write(run, iter([counts(galaxy())]), tmp_path / "scores.csv", source="here", notes="of # 1")
    lines = (tmp_path / "scores.csv").read_text().splitlines()
    assert lines[:4] == [f"# kerasgal: {__version__}", "# app: morph", "# source: here", "# notes: of # 1"]
    assert lines[4].startswith("id,log_p_real,")
    run.folder = tmp_path / "deep"
    try:
        tables.write(run, iter([counts(galaxy())]), tmp_path / "scores.fits")
    finally:
        run.folder = None
    assert fits.getheader(tmp_path / "scores.fits", 1)["RUN"] == str(tmp_path / "deep")
