import re
import shutil
from collections import namedtuple

import h5py
import numpy as np
import pytest

from kerasgal import imageset
from kerasgal.commands import info
from kerasgal.errors import DataError, MissingError
from kerasgal.imageset import ImageSet, write, writing


def some(count=5, side=8, seed=0):
    rng = np.random.default_rng(seed)
    image = rng.normal(1000, 5, (count, side, side + 2))
    image[:1, 2, 3] = np.nan
    return {"id": [f"galaxy {seed}-{number}" for number in range(count)], "image": image, "mask": image > 1005,
            "sky": rng.normal(1000, 1, count),
            "table": {"n": rng.uniform(0.5, 6, count), "ra": 180 + 1e-9 * rng.random(count),
                      "kind": np.array(["spiral", "bulge"])[rng.integers(2, size=count)]}}


def assert_holds(images, expected):
    assert list(images["id"][...]) == expected["id"]
    np.testing.assert_array_equal(images["image"][...], expected["image"].astype("f4"))
    np.testing.assert_array_equal(images["mask"][...], expected["mask"])
    np.testing.assert_allclose(images["sky"][...], expected["sky"], rtol=1e-6)
    table = images.table()
    assert set(table) == {"n", "ra", "kind"}
    for name, values in expected["table"].items():
        np.testing.assert_array_equal(table[name].astype(values.dtype), values)


def test_what_is_written_is_read(tmp_path):
    expected = some()
    write(tmp_path / "set.h5", source="made up", **expected)
    with ImageSet(tmp_path / "set.h5") as images:
        assert len(images) == 5 and images.shape == (8, 10) and images.source == "made up"
        assert_holds(images, expected)
        assert images["id"][3] == "galaxy 0-3" and images["image"].dtype == "f4" and images["mask"].dtype == bool
        assert images.problems() == []
        images.validate()
    with h5py.File(tmp_path / "set.h5") as file:  # the schema, without our own code
        assert file.attrs["format"] == "kerasgal image set" and file.attrs["version"] == 1
        assert set(file) == {"id", "image", "mask", "sky", "table"}
        assert file["id"][1] == b"galaxy 0-1"


def test_optional_parts_may_be_left_out(tmp_path):
    write(tmp_path / "set.h5", id=range(3), image=np.ones((3, 4, 4)), source="")
    with ImageSet(tmp_path / "set.h5") as images:
        assert list(images["id"][...]) == ["0", "1", "2"] and images.table() == {}
        assert "mask" not in images and "sky" not in images


def test_it_is_a_mapping_that_says_what_it_holds(tmp_path):
    write(tmp_path / "set.h5", source="made up", bands="r", **some())
    with ImageSet(tmp_path / "set.h5") as images:
        assert list(images) == images.keys() == ["id", "image", "mask", "sky", "table/kind", "table/n", "table/ra"]
        assert set(dict(images)) == set(images) and images["table/kind"][0] in ("spiral", "bulge")
        for name in ("table", "flux", 3):  # a group is no dataset
            with pytest.raises(KeyError, match=f"has no dataset {name}; it holds id, image, mask, sky, table/kind"):
                images[name]
        assert "5 images of 8 x 10 pixels in the bands r" in repr(images) and "table/n" in repr(images)
    assert repr(images).endswith("closed>")


def test_pieces_add_up_and_memory_does_not(tmp_path, monkeypatch):
    monkeypatch.setattr(imageset, "SLAB_PIXELS", 500)
    pieces = [some(count, seed=seed) for seed, count in enumerate((0, 3, 1, 0, 7))]
    with writing(tmp_path / "set.h5", "pieces") as writer:
        for piece in pieces:
            writer.append(**piece)
        assert writer.images == 11
        assert not (tmp_path / "set.h5").exists()
    whole = {key: np.concatenate([piece[key] for piece in pieces]) for key in ("image", "mask", "sky")}
    whole["id"] = sum((piece["id"] for piece in pieces), [])
    whole["table"] = {key: np.concatenate([piece["table"][key] for piece in pieces]) for key in pieces[0]["table"]}
    with ImageSet(tmp_path / "set.h5") as images:
        assert_holds(images, whole)
        assert images.slabs() == [slice(0, 6), slice(6, 11)]
        np.testing.assert_array_equal(np.concatenate([images["image"][slab] for slab in images.slabs()]),
                                      whole["image"].astype("f4"))


def test_a_failure_leaves_the_old_file(tmp_path):
    path = tmp_path / "set.h5"
    write(path, id=["old"], image=np.ones((1, 4, 4)), source="")
    with pytest.raises(DataError, match="exists already; give overwrite=True"):
        write(path, source="", **some())
    with pytest.raises(RuntimeError, match="interrupted"), writing(path, "", overwrite=True) as writer:
        writer.append(**some())
        raise RuntimeError("interrupted")
    with ImageSet(path) as images:
        assert list(images["id"][...]) == ["old"]
    write(path, source="", overwrite=True, **some())
    with ImageSet(path) as images:
        assert len(images) == 5
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("change, message", [
    ({"id": ["a", "b", "a", "c", "d"]}, "id 'a' stands there 2 times; each must be unique"),
    ({"id": ["a"]}, "id has shape (1,), image (5, 8, 10)"),
    ({"image": np.zeros((5, 8))}, "image has shape (5, 8)"),
    ({"image": np.full((5, 8, 10), np.inf)}, "image has 400 infinite pixels; a bad pixel is NaN"),
    ({"mask": np.zeros((5, 10, 8))}, "mask has shape (5, 10, 8), image (5, 8, 10)"),
    ({"sky": np.zeros((5, 1))}, "sky has shape (5, 1), image (5, 8, 10)"),
    ({"table": {"n": np.zeros(4)}}, "table/n has shape (4,), image (5, 8, 10)"),
    ({"id": [], "image": np.zeros((0, 8, 10)), "mask": None, "sky": None, "table": None}, "there are no images"),
])
def test_what_does_not_fit_is_named_and_not_written(tmp_path, change, message):
    with pytest.raises(DataError) as error:
        write(tmp_path / "set.h5", source="", **{**some(), **change})
    assert message in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("change, message", [
    ({"mask": None}, "received id, image, sky, table/kind, table/n, table/ra after id, image, mask, sky"),
    ({"image": np.zeros((5, 9, 9)), "mask": np.zeros((5, 9, 9))}, "images of (9, 9) pixels after ones of (8, 10)"),
    ({"table": {"n": np.zeros(5)}}, "all images of a set have the same"),
])
def test_pieces_that_differ_are_refused(tmp_path, change, message):
    with pytest.raises(DataError, match=re.escape(message)), writing(tmp_path / "set.h5", "") as writer:
        writer.append(**some())
        writer.append(**{**some(seed=1), **change})
    assert list(tmp_path.iterdir()) == []


def test_a_set_may_have_several_bands_and_names_them(tmp_path):
    rng = np.random.default_rng(0)
    image, sky = rng.normal(size=(3, 6, 5, 2)), rng.normal(size=(3, 2))
    write(tmp_path / "gr.h5", id=range(3), image=image, mask=image > 1, sky=sky, source="", bands="g, r")
    with h5py.File(tmp_path / "gr.h5") as file:  # the schema, without our own code
        assert file.attrs["version"] == 2 and file["mask"].shape == (3, 6, 5, 2)
        np.testing.assert_array_equal(file["image"][...], image.astype("f4"))
    with ImageSet(tmp_path / "gr.h5") as images:
        assert images.bands == ("g", "r") and images.shape == (6, 5) and images.problems() == []
        np.testing.assert_allclose(images.grey(slice(None)), image.mean(axis=-1), atol=1e-6)
    write(tmp_path / "r.h5", id=range(3), image=image[..., 1], source="", bands="r")
    with ImageSet(tmp_path / "r.h5") as images:
        assert images.bands == ("r",) and images.file.attrs["version"] == 1


@pytest.mark.parametrize("change, message", [
    ({"bands": None}, "image has shape (5, 6, 6, 2); expected is (m, y, x), or (m, y, x, band) where `bands` names"),
    ({"bands": "g,r,i"}, "image has shape (5, 6, 6, 2); expected is (m, y, x, 3), of g, r, i"),
    ({"bands": "g,g"}, "bands='g,g': they must have names, each once"),
    ({"sky": np.zeros(5)}, "sky has shape (5,), image (5, 6, 6, 2); expected are"),
])
def test_bands_that_do_not_fit_are_named_and_not_written(tmp_path, change, message):
    with pytest.raises(DataError) as error:
        write(tmp_path / "set.h5", source="", **{"id": range(5), "image": np.ones((5, 6, 6, 2)), "bands": "g,r",
                                                 **change})
    assert message in str(error.value) and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bands, message", [
    ("", "with an attribute bands that names them"), ("g,r,i", "names 3: g, r, i"),
    ("g,", "each once, with commas between"), (3, "it must be text, such as")])
def test_a_file_whose_bands_contradict_each_other_is_refused(tmp_path, bands, message):
    write(tmp_path / "gr.h5", id=["a"], image=np.ones((1, 4, 4, 2)), source="", bands="g,r")
    with h5py.File(tmp_path / "gr.h5", "r+") as file:
        file.attrs["bands"] = bands
    with pytest.raises(DataError, match=message):
        ImageSet(tmp_path / "gr.h5")


def test_a_full_disk_is_said_before_it_is_full(tmp_path, monkeypatch):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10**6))
    with pytest.raises(DataError, match="no space left for .*set.h5"):
        write(tmp_path / "set.h5", source="", **some())
    assert list(tmp_path.iterdir()) == []


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "set.h5"
    with pytest.raises(DataError, match="no such file"):
        ImageSet(path)
    path.write_text("not HDF5")
    with pytest.raises(DataError, match="is not an HDF5 file"):
        ImageSet(path)
    with h5py.File(path, "w") as file:
        file["image"] = np.zeros((2, 3, 3))
    with pytest.raises(DataError, match="is not an image-set file"):
        ImageSet(path)
    with h5py.File(path, "a") as file:
        file.attrs.update(format="kerasgal image set", version=3)
    with pytest.raises(DataError, match="has image-set version 3; this kerasgal reads up to 2"):
        ImageSet(path)
    with h5py.File(path, "a") as file:
        file.attrs["version"] = 1
    with pytest.raises(MissingError, match="has no id; it holds image"):
        ImageSet(path)
    with h5py.File(path, "a") as file:
        file["id"] = ["a", "b"]
        del file["image"]
        file["image"] = np.zeros((2, 3))
    with pytest.raises(DataError, match=r"image has shape \(2, 3\); it must be \(n, y, x\)"):
        ImageSet(path)


def test_problems_of_files_from_elsewhere_are_named(tmp_path):
    path = tmp_path / "set.h5"
    with h5py.File(path, "w") as file:
        file.attrs.update(format="kerasgal image set", version=1)
        file["id"], file["image"] = np.arange(3), np.zeros((2, 3, 3), int)
        file["mask"], file["sky"], file["table/n"] = np.zeros((2, 3)), np.zeros(2), np.zeros(1)
    with ImageSet(path) as images:
        found = images.problems()
        assert found == ["id has shape (3,); expected (2,)", "mask has shape (2, 3); expected (2, 3, 3)",
                         "table/n has shape (1,); expected (2,)", "id is of type int64; expected strings",
                         "image is of type int64; expected floats", "mask is of type float64; expected bool"]
        with pytest.raises(DataError, match="set.h5: id has shape"):
            images.validate()


def test_columns_without_numbers_or_images_are_shown(tmp_path):
    path = tmp_path / "set.h5"
    write(path, **some(3) | {"table": {"n": np.array([np.nan, 2, 5]), "z": np.full(3, np.nan)}}, source="")
    rows, problems = info.images(path)
    assert dict(rows)["n"] == "2 to 5" and dict(rows)["z"] == "no number" and not problems
    with h5py.File(path, "r+") as file:  # as from elsewhere: a file without images is not written here
        for name in ("id", "image", "mask", "sky", "table/n", "table/z"):
            values = file[name][:0]
            del file[name]
            file[name] = values
    rows, problems = info.images(path)
    assert dict(rows)["n"] == "no number" and "no pixels" in problems[0]
