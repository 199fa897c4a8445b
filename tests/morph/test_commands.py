"""The whole road through the command line, on a few small galaxies, and the mistakes a user can make on it."""

import csv
import itertools
import json
import shutil

import h5py
import harness
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from skimage.io import imsave

import kerasgal as kg
from kerasgal.apps.morph import evaluate, prepare, score, tables
from kerasgal.apps.morph.distribution import distribution
from kerasgal.imageset import ImageSet
from kerasgal.readers import images as readers

pytest.importorskip("galsim")

pytestmark = pytest.mark.usefixtures("eager", "restored_once")

TINY = harness.flags("morph")


@pytest.fixture(scope="module")
def run(trained):
    folder = trained("morph")
    said = (folder.parent / "said.txt").read_text()
    assert "36 training images, 4 validation images" in said and "network of archetype images" in said
    return folder


@pytest.fixture(scope="module")
def scored(run, galaxies, tmp_path_factory, invoke):
    """The folder of scores.csv and maps.h5 of all galaxies."""
    folder = tmp_path_factory.mktemp("scores")
    invoke("morph", "score", "--run", run, "--images", galaxies / "real.h5", "--output", folder / "scores.csv",
           "--maps", folder / "maps.h5")
    return folder


def prepared_otherwise(network, folder, **changes):
    """A copy of a run folder of one network under other settings of the preparation; returns it."""
    shutil.copytree(network, folder)
    stored = json.loads((folder / "config.json").read_text())
    stored["config"] |= changes
    (folder / "config.json").write_text(json.dumps(stored))
    return folder


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


@pytest.mark.slow  # the demo's is printed in test_docs.py
def test_summary_prints_the_papers_network(invoke):
    """5.4 million parameters; 550 fewer than in the authors' code, whose last layer of two has 10 outputs between."""
    assert "5,445,380 trainable parameters" in invoke("morph", "summary", "--preset", "paper").stdout


def test_the_third_preset_stands_beside_the_two_that_all_apps_have(invoke):
    shown = invoke("morph", "config", "--preset", "pixelcnn++").stdout
    assert "filters = 160" in shown and 'likelihood = "logistic"' in shown
    help = " ".join(invoke("morph", "config", "--help").stdout.split())
    assert "[paper|demo|pixelcnn++]" in help and "[default: 64; demo: 24; pixelcnn++: 160]" in help
    done = invoke("morph", "config", "--preset", "paper", "--mixtures", "3", check=False)
    said = " ".join(done.stderr.split())
    assert done.returncode == 2 and "accepted is --mixtures 1, or --likelihood logistic" in said
    assert "pixelcnn" not in invoke("protohalo", "config", "--help").stdout


def test_the_table_is_what_tensorflow_probability_says(run, galaxies, scored):
    rows = rows_of(scored / "scores.csv")
    assert len(rows) == 40 and [row["id"] for row in rows] == [str(number) for number in range(40)]
    trained = kg.load(run)
    with h5py.File(scored / "maps.h5") as file:
        maps = {name: file[name][...] for name in ("image", "log_p_real", "log_p_archetype")}
        assert file["id"].asstr()[...].tolist() == [row["id"] for row in rows]
    for number, image in enumerate(readers.stream(galaxies / "real.h5")):
        prepared = prepare.prepare(image, trained.config)
        np.testing.assert_array_equal(maps["image"][number], prepared[..., 0])
        if number % 10:
            continue
        for name, network in (("real", trained.real), ("archetype", trained.archetype)):
            parameters = np.asarray(network(prepared[None]))[0]
            expected = distribution(parameters).log_prob(prepared[..., 0].astype(float)).numpy()
            np.testing.assert_allclose(maps[f"log_p_{name}"][number], expected, atol=2e-4)
            assert float(rows[number][f"log_p_{name}"]) == pytest.approx(expected.sum(), abs=1e-2)
    for row in rows:
        for part in ("", "_galaxy"):
            difference = float(row[f"log_p_real{part}"]) - float(row[f"log_p_archetype{part}"])
            assert float(row[f"llr{part}"]) == pytest.approx(difference, abs=1e-9)


@pytest.mark.parametrize("suffix", ["ecsv", "fits"])
def test_other_tables_hold_the_same(suffix, scored, tmp_path):
    assert tables.convert(scored / "scores.csv", tmp_path / f"scores.{suffix}", False) == (40, 0)
    table, rows = Table.read(tmp_path / f"scores.{suffix}"), rows_of(scored / "scores.csv")
    np.testing.assert_allclose(table["llr"], [float(row["llr"]) for row in rows])


def test_a_bad_file_is_reported_and_does_not_stop_the_rest(run, galaxies, tmp_path, invoke):
    folder = tmp_path / "mixed"
    folder.mkdir()
    with ImageSet(galaxies / "real.h5") as images:
        good = images["image"][0]
    fits.PrimaryHDU(good).writeto(folder / "a_good.fits")
    whole = (folder / "a_good.fits").read_bytes()
    (folder / "b_cut.fits").write_bytes(whole[:len(whole) // 2])
    fits.PrimaryHDU(good[:40, :40]).writeto(folder / "c_small.fits")
    fits.PrimaryHDU(np.where(np.arange(128) % 2, good, np.nan)).writeto(folder / "d_nan.fits")
    imsave(folder / "e_colour.png", np.zeros((128, 128, 3), np.uint8), check_contrast=False)
    np.save(folder / "f_larger.npy", np.pad(good, 20))  # another size is no error
    done = invoke("morph", "score", "--run", run, "--images", folder, "--output", tmp_path / "scores.csv", check=False)
    assert done.returncode == 1 and "4 of 6 images could not be scored" in done.stderr
    errors = {row["id"]: row["error"] for row in rows_of(tmp_path / "scores.csv")}
    assert not errors["a_good"] and not errors["f_larger"]
    for name, words in (("b_cut", "cut short"), ("c_small", "fewer than crop=64"), ("d_nan", "are bad"),
                        ("e_colour", "a colour image")):
        assert words in errors[name], errors
    first, last = (row for row in rows_of(tmp_path / "scores.csv") if not row["error"])
    assert first["llr"] == last["llr"]  # the frame around the larger one is cut off


def test_an_interrupted_table_is_gone_on_with(run, galaxies, scored, tmp_path, invoke, monkeypatch):
    monkeypatch.setattr(score, "BATCH", 16)
    calls, inner = [], score.score_batch

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return inner(*arguments)

    monkeypatch.setattr(score, "score_batch", interrupted)
    done = invoke("morph", "score", "--run", run, "--images", galaxies / "real.h5", "--output", tmp_path / "parts.csv",
                  check=False)
    assert done.returncode == 130 and "go on with --resume" in done.stderr
    assert not (tmp_path / "parts.csv").exists() and len(rows_of(tmp_path / ".parts.csv.partial")) > 0
    partial = tmp_path / ".parts.csv.partial"
    with open(partial, "a") as file:
        file.write(rows_of(partial)[0]["id"][:1])  # of a line that was cut off, as by a full disk
    resumed = [run, galaxies / "real.h5", "--output", tmp_path / "parts.csv", "--resume"]
    other = invoke("morph", "score", *resumed, "--unit", "nanomaggies", check=False)
    assert other.returncode == 1 and "was begun by other networks, or with other options" in other.stderr
    again = []
    monkeypatch.setattr(score, "score_batch", lambda *arguments: again.append(1) or inner(*arguments))
    invoke("morph", "score", *resumed)
    assert not (tmp_path / ".parts.csv.partial").exists()
    assert len(rows_of(tmp_path / "parts.csv")) == 40 and 0 < len(again) < 3
    for one, other in zip(rows_of(tmp_path / "parts.csv"), rows_of(scored / "scores.csv")):
        assert one["id"] == other["id"] and float(one["llr"]) == pytest.approx(float(other["llr"]), abs=1e-3)


def test_no_more_than_a_batch_is_held(run, galaxies):
    """Memory does not grow with the number of images: a batch is scored before the next image is read."""
    read = []

    def counted():
        for image in itertools.islice(readers.stream(galaxies / "real.h5"), 16):
            read.append(image.id)
            yield image

    for number, (rows, _) in enumerate(score.score(kg.load(run), counted(), batch=8)):
        assert len(read) == 8 * (number + 1) and len(rows) == 8


def test_evaluate_compares_sets(run, galaxies, tmp_path, invoke):
    said = invoke("morph", "evaluate", run, f"observed={galaxies / 'unseen_real.h5'}",
                  f"smooth={galaxies / 'unseen_archetypes.h5'}", "--match", "n, log_mass", "--control", "sky",
                  "--output", tmp_path / "evaluation").stdout
    assert "median LLR" in said and "noise added to the sky" in said and "Delta<LLR>" in said
    assert "matched in n, log_mass, 2 bins of each" in said and "a PSF 5% wider by" in said
    result = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    scores = kg.load(run).predict(galaxies / "unseen_real.h5")
    least = scores["id"][np.argsort(scores["llr"])[:10]]
    assert [row["id"] for row in result["worst_cases"]] == list(least)
    assert "Not whether one galaxy is real" in (tmp_path / "evaluation" / "report.html").read_text()
    assert result["reference"] == "observed" and 0 <= result["sets"]["smooth"]["area_under_curve"] <= 1
    assert len(harness.bars("morph", result)) == 1
    assert set(result["sets"]) == {"observed", "smooth", "sky"} and set(result["bins"]) == {"log_mass", "n", "log_ssfr"}
    for name in ("llr", "sky", "contributions", "radius_n", "radius_log_mass"):
        assert (tmp_path / "evaluation" / f"{name}.png").stat().st_size > 5_000


def test_the_area_under_the_curve_is_scikit_learns():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    one, other = ({name: rng.normal(mean, 1, size) for name in ("llr", "llr_galaxy", "log_p_real", "log_p_archetype")}
                  for mean, size in ((1, 50), (0, 70)))
    entry = evaluate.compare(other, one)
    labels = np.repeat([1, 0], [50, 70])
    expected = metrics.roc_auc_score(labels, np.concatenate([one["llr"], other["llr"]]))
    assert entry["area_under_curve"] == pytest.approx(expected)
    assert entry["llr"]["mean_error"] == pytest.approx(1 / np.sqrt(70), rel=0.3)


def test_sample_draws_images(run, tmp_path, invoke):
    invoke("morph", "sample", "--run", run, "--number", 3, "--output", tmp_path / "drawn.h5")
    with ImageSet(tmp_path / "drawn.h5") as images:
        assert images["image"].shape == (3, 8, 8) and np.isfinite(images["image"][...]).all()
    assert (tmp_path / "drawn.png").exists()


def test_what_is_exported_is_both_networks_likelihoods(run, galaxies):
    trained = kg.load(run)
    images = np.stack([prepare.prepare(image, trained.config)
                       for image in list(readers.stream(galaxies / "real.h5"))[:3]])
    served, described = trained.served()
    assert described["preparation"]["size"] == 8
    np.testing.assert_allclose(served(images), np.stack(score.likelihood_maps(trained, images), axis=-1), atol=1e-4)


@pytest.mark.slow
def test_a_run_resumes_from_its_folder_alone(run, galaxies, tmp_path, invoke):
    folder = shutil.copytree(run, tmp_path / "run")
    shutil.rmtree(folder / "archetype")
    done = invoke("morph", "score", "--run", folder, "--images", galaxies / "real.h5", check=False)
    assert done.returncode == 1 and "has no network trained on archetype images" in done.stderr
    invoke("morph", "train", "--run", folder, "--resume", "--epochs", "2")
    assert (folder / "real" / "history.csv").read_text().count("\n") == 3
    # As if interrupted before the second network was begun.
    invoke("morph", "train", "--images", galaxies / "real.h5", "--archetypes", galaxies / "archetypes.h5", "--run",
           folder, "--resume")
    assert (folder / "archetype" / "history.csv").read_text().count("\n") == 3
    assert (folder / "real" / "history.csv").read_text().count("\n") == 3
    shutil.rmtree(folder / "archetype")
    prepared_otherwise(folder / "real", folder / "archetype", softening=500.0)
    done = invoke("morph", "score", "--run", folder, "--images", galaxies / "real.h5", check=False)
    assert done.returncode == 1 and "trained with another softening" in done.stderr


def test_the_galaxys_pixels_are_those_of_its_piece():
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:32, :32]
    image = rng.normal(0, 0.01, (32, 32)) + np.exp(-((x - 16)**2 + (y - 15)**2) / 18)
    image[2:4, 28:30] = 0.8  # a star in the corner
    found = score.galaxy_pixels(image)
    core, far = np.hypot(x - 16, y - 15) < 6, np.hypot(x - 16, y - 15) > 12
    assert found[core].all() and not found[far].any()
    assert not score.galaxy_pixels(rng.normal(0, 0.01, (32, 32)))[0].any()


@pytest.mark.parametrize("case, code, message", [
    ("empty", 1, "no image file in"),
    ("missing", 1, "no such file"),
    ("few", 1, "are too few to train on"),
    ("crop", 2, "the size must divide the crop"),
    ("nothing", 2, "images to train on are missing"),
    ("both", 2, "give --archetypes by one of the two"),
    ("masks", 2, "accepted is OLD=NEW"),
    ("exists", 1, "exists already; give --resume"),
    ("no run", 1, "has no run to go on with"),
    ("precision", 2, "trains wrongly without a GPU"),
    ("softening", 2, "--softening nan: it must be finite"),
    ("bits", 2, "of the pixels are below 0 and would all be the value 0; accepted is --bits 0"),
    ("likelihood", 2, "--bits 8: --likelihood normal is a density; accepted is --bits 0"),
])
def test_mistakes_in_training_are_one_line(case, code, message, galaxies, run, tmp_path, invoke):
    (tmp_path / "empty").mkdir()
    np.save(tmp_path / "few.npy", np.ones((3, 128, 128)))
    real = galaxies / "real.h5"
    arguments = {
        "empty": ["--images", tmp_path / "empty"], "missing": ["--images", tmp_path / "none.fits"],
        "few": ["--images", tmp_path / "few.npy"], "crop": ["--images", real, "--crop", "60"], "nothing": [],
        "both": ["--images", real, "--on", "archetype", "--archetypes", real],
        "masks": ["--images", real, "--masks", "x"],
        "no run": ["--resume"], "exists": ["--images", real, "--run", run],
        "precision": ["--images", real, "--precision", "mixed_bfloat16"],
        "softening": ["--images", real, "--softening", "nan"],
        "bits": ["--images", real, "--bits", "8", "--size", "32"],
        "likelihood": ["--images", real, "--likelihood", "normal", "--mixtures", "1", "--bits", "8"],
    }[case]
    done = invoke("morph", "train", "--run", tmp_path / "run", *TINY, *arguments, check=False)
    assert done.returncode == code, done.stderr
    assert message in done.stderr and "Traceback" not in done.stderr
    if code == 1:
        assert done.stderr.strip().splitlines()[-1].startswith("Error: "), done.stderr
    assert not (tmp_path / "run" / "real" / "best.weights.h5").exists()


@pytest.mark.parametrize("option", ["--fwhm", "--pixel-scale", "--zero-point"])
def test_what_is_no_number_makes_no_archetypes(option, tmp_path, invoke):
    done = invoke("morph", "archetypes", tmp_path / "out.h5", "--number", 3, option, "nan", check=False)
    assert done.returncode == 2 and "nan is not a finite number" in done.stderr and not (tmp_path / "out.h5").exists()


def test_options_that_contradict_each_other_are_refused(galaxies, tmp_path, invoke):
    done = invoke("morph", "archetypes", tmp_path / "out.h5", "--number", 3, "--psf", "psf.fits", "--fwhm", 1.32,
                  check=False)
    assert done.returncode == 2 and "--psf and --fwhm contradict each other" in done.stderr
    output = tmp_path / "scores.hdf5"
    done = invoke("morph", "score", "morph-demo", galaxies / "real.h5", "--output", output, "--maps",
                  tmp_path / "." / "scores.hdf5", "--overwrite", check=False)
    assert done.returncode == 2 and f"--maps and --output are both {output}" in " ".join(done.stderr.split())
    assert not any(tmp_path.iterdir())


def test_an_old_spelling_of_the_run_beside_the_run_is_refused(run, galaxies, tmp_path, invoke):
    real = galaxies / "real.h5"
    for words in (["sample", run, "--run", "other"], ["score", run, real, "--run", "other"],
                  ["evaluate", run, f"observed={real}", "--run", "other"]):
        done = invoke("morph", *words, check=False)
        assert done.returncode == 2, words
        assert "contradict each other" in done.stderr or "accepted is NAME=PATH" in done.stderr, done.stderr


def test_real_galaxies_of_the_sdss_are_scored(run, shared_data, tmp_path, invoke):
    """Thirteen real galaxies in two units of flux, to a table and maps each."""
    folder = shared_data / "imfit_sdss"
    counts = [folder / f"{name}.fits" for name in ("ic3478rss_256", "n3073rss_small", "vcc1512rss_cutout")]
    maggies = tmp_path / "maggies"
    for name in ("real", "archetype"):
        prepared_otherwise(run / name, maggies / name, sky="border", softening=1e-9)
    for folder, paths, number, masks in ((run, counts, 3, []), (maggies, [shared_data / "profit_sdss" / "*fitim.fits"],
                                                                10, ["--masks", "fitim=mskim"])):
        table, maps = tmp_path / f"{number}.csv", tmp_path / f"{number}.h5"
        invoke("morph", "score", "--run", folder, "--images", *paths, *masks, "--output", table, "--maps", maps)
        assert len(rows_of(table)) == number
        assert all(np.isfinite(float(row["llr"])) for row in rows_of(table))
