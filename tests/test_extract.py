"""Extracting fields and catalogues: what other libraries read of them is what the HDF5 file holds."""

import re

import h5py
import numpy as np
import pytest
from astropy.table import Table

from kerasgal import __version__, imageset
from kerasgal import extract as module
from kerasgal.simulation import FORMAT


@pytest.fixture
def path(tmp_path):
    rng = np.random.default_rng(0)
    with h5py.File(tmp_path / "file.h5", "w") as file:
        file["final/delta"] = rng.normal(size=(9, 9, 9)).astype(np.float32)
        file["halos/mass"], file["halos/position"] = rng.random(5), rng.random((5, 3)).astype(np.float32)
        file["halos/count"] = np.arange(5)
        file["mixed/a"], file["mixed/b"] = np.arange(3), np.arange(4)
        file["none/a"] = np.zeros((0, 3))
        file["text/id"], file["text/x"] = ["one", "zwo", "drei"], np.arange(3)
        file["galaxies/halo"], file["galaxies/count"] = np.arange(4), np.ones((4, 4, 4))
        file.create_group("empty")
        file.attrs["format"] = FORMAT
    return tmp_path / "file.h5"


@pytest.mark.parametrize("at_once", [2**26, 700])
def test_field(path, tmp_path, invoke, monkeypatch, at_once):
    monkeypatch.setattr(module, "BYTES_AT_ONCE", at_once)
    said = invoke("extract", path, "final/delta", tmp_path / "delta.npy").stdout
    assert said == f"{tmp_path}/delta.npy: (9, 9, 9) float32\n"
    delta = np.load(tmp_path / "delta.npy")
    with h5py.File(path) as file:
        assert delta.dtype == np.float32 and np.array_equal(delta, file["final/delta"][...])
    assert invoke("extract", path, "none/a", tmp_path / "none.npy") and np.load(tmp_path / "none.npy").shape == (0, 3)


@pytest.mark.parametrize("suffix", ["ecsv", "fits", "csv", "hdf5", "h5"])
def test_a_catalogue_has_units_box_and_x_y_z_beside_positions_in_every_format(path, tmp_path, invoke, suffix):
    output = tmp_path / f"halos.{suffix}"
    with h5py.File(path, "r+") as file:
        file.attrs["boxsize"] = 12.5
    names = "count, mass, x, y, z" if suffix == "csv" else "count, mass, position, x, y, z"
    assert invoke("extract", path, "halos", output).stdout == f"{output}: 5 rows of {names}\n"
    table = Table.read(output, **({"comment": "#"} if suffix == "csv" else {}))
    with h5py.File(path) as file:
        for name in ("mass", "position", "count"):
            found = table[name] if name in table.colnames else np.stack([table[axis] for axis in "xyz"], axis=-1)
            np.testing.assert_allclose(found, file[f"halos/{name}"][...], rtol=1e-7)
        np.testing.assert_array_equal(np.stack([table[axis] for axis in "xyz"], axis=-1).astype("f4"),
                                      file["halos/position"][...])
    meta = {name.lower(): value for name, value in table.meta.items()}
    if suffix in ("ecsv", "hdf5", "h5"):
        assert [str(table[name].unit) for name in ("mass", "position", "z")] == [
            "solMass / littleh", "Mpc / littleh", "Mpc / littleh"]
    elif suffix == "fits":  # which has no unit with h
        assert (meta["mass"], meta["position"], meta["z"]) == ("Msun/h", "Mpc/h", "Mpc/h")
    else:
        meta = dict(line.split(": ", 1) for line in meta["comments"])
        assert (meta["mass"], meta["x"]) == ("Msun/h", "Mpc/h")
    assert (float(meta["boxsize"]), meta["kerasgal"]) == (12.5, __version__)
    assert meta["source"] == f"{path}: halos"


def test_a_table_of_a_prediction_says_the_run_that_made_it(path, tmp_path, invoke):
    with h5py.File(path, "r+") as file:
        file.attrs.update(app="protohalo", run="runs/deep", kerasgal="0.1.7", boxsize=50.0)
        del file.attrs["format"]
    invoke("extract", path, "halos", tmp_path / "halos.ecsv")
    meta = Table.read(tmp_path / "halos.ecsv").meta
    assert [meta[name] for name in ("app", "run", "kerasgal", "boxsize")] == ["protohalo", "runs/deep", "0.1.7", 50.0]


@pytest.fixture
def foreign(tmp_path):
    """A catalogue of another make; its units are in an attribute of each column, if at all."""
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["cat/mass"], file["cat/position"] = np.array([1e12, 2e12]), np.zeros((2, 3))
        file["cat/radius"], file["cat/count"] = np.ones(2), np.arange(2)
        file["cat/mass"].attrs["unit"] = "Msun"
        file["cat/position"].attrs["units"] = b"kpc"
        file["cat/radius"].attrs["unit"] = "box sides"
    return tmp_path / "other.h5"


def test_columns_of_other_makes_have_their_own_units(foreign, tmp_path, invoke):
    said = invoke("extract", foreign, "cat", tmp_path / "cat.ecsv").stdout
    assert said == (f"{tmp_path}/cat.ecsv: 2 rows of count, mass, position, x, y, z, radius; mass in Msun, "
                    "position in kpc, radius in box sides, as the file says\n")
    table = Table.read(tmp_path / "cat.ecsv")
    assert (str(table["mass"].unit), str(table["position"].unit), table["radius"].unit) == ("solMass", "kpc", None)
    assert table.meta["radius"] == "box sides" and "h" not in str(table["mass"].unit)


def test_columns_without_units_get_none(foreign, tmp_path, invoke):
    with h5py.File(foreign, "r+") as file:
        for name in ("mass", "position", "radius"):
            file[f"cat/{name}"].attrs.clear()
    for suffix in ("ecsv", "fits"):
        said = invoke("extract", foreign, "cat", tmp_path / f"cat.{suffix}").stdout
        assert said.endswith("; no units, as the file says\n")
        table = Table.read(tmp_path / f"cat.{suffix}")
        assert all(table[name].unit is None for name in table.colnames)
        assert "Msun" not in str(table.meta) and "Mpc" not in str(table.meta)


def test_public_file_with_units_of_its_own(shared_data, tmp_path, invoke):
    path = shared_data.parent / "inputs" / "own_units.hdf5"
    if not path.exists():
        pytest.skip(f"no {path}")
    invoke("extract", path, "cat", tmp_path / "cat.ecsv")
    table = Table.read(tmp_path / "cat.ecsv")
    assert (str(table["mass"].unit), str(table["position"].unit)) == ("solMass", "kpc")


def test_compressed_by_a_filter_of_hdf5plugin(tmp_path, invoke):
    import hdf5plugin

    with h5py.File(tmp_path / "file.h5", "w") as file:
        file.create_dataset("delta", data=np.arange(1000.0), **hdf5plugin.Blosc())
    invoke("extract", tmp_path / "file.h5", "delta", tmp_path / "delta.npy")
    assert np.array_equal(np.load(tmp_path / "delta.npy"), np.arange(1000.0))


def test_text(path, tmp_path, invoke):
    invoke("extract", path, "text/id", tmp_path / "id.npy")
    assert np.load(tmp_path / "id.npy").tolist() == ["one", "zwo", "drei"]
    for suffix in ("ecsv", "fits"):
        invoke("extract", path, "text", tmp_path / f"text.{suffix}")
        assert [str(name) for name in Table.read(tmp_path / f"text.{suffix}")["id"]] == ["one", "zwo", "drei"]


def test_a_field_beside_a_catalogue_is_left_out(path, tmp_path, invoke):
    invoke("extract", path, "galaxies", tmp_path / "galaxies.fits")
    assert Table.read(tmp_path / "galaxies.fits").colnames == ["halo"]


@pytest.mark.parametrize("name, output, message", [
    ("halo", "halos.ecsv", "has no halo; it holds empty, final, final/delta, galaxies, galaxies/count"),
    ("halos", "halos.npy", "is a catalogue, not what .*halos.npy is for: accepted are .npy for a field, .ecsv, .fits"),
    ("final/delta", "delta.fits", "is a field, not what .*delta.fits is for: accepted are .npy for a field"),
    ("halos", "halos", "is a catalogue, not what"),
    ("mixed", "mixed.ecsv", r"is no catalogue: its columns have not all the same length.*\(a \(3,\), b \(4,\)\)"),
    ("empty", "empty.ecsv", "is no catalogue"),
    ("final", "final.npy", "is a catalogue"),
])
def test_error(path, tmp_path, invoke, name, output, message):
    done = invoke("extract", path, name, tmp_path / output, check=False)
    assert done.returncode == 1
    assert re.search(message, " ".join(done.stderr.split()))
    assert [item.name for item in tmp_path.iterdir()] == ["file.h5"]


def test_nothing_is_replaced_unasked(path, tmp_path, invoke):
    (tmp_path / "delta.npy").write_text("mine")
    done = invoke("extract", path, "final/delta", tmp_path / "delta.npy", check=False)
    assert done.returncode == 1 and "exists already" in done.stderr
    assert (tmp_path / "delta.npy").read_text() == "mine"
    invoke("extract", path, "final/delta", tmp_path / "delta.npy", "--overwrite")
    assert np.load(tmp_path / "delta.npy").shape == (9, 9, 9)
    done = invoke("extract", tmp_path / "delta.npy", "x", tmp_path / "x.npy", check=False)
    assert done.returncode == 1 and "is not an HDF5 file" in done.stderr


def test_radii_of_images_are_angles(tmp_path):
    rows = Table({"radius": [1.2], "ra": [150.0]})
    imageset.write(tmp_path / "set.h5", id=["one"], image=np.ones((1, 8, 8), "f4"), source="made up",
                   unit="nanomaggies", table=rows)
    module.extract(tmp_path / "set.h5", "table", tmp_path / "table.ecsv")
    read = Table.read(tmp_path / "table.ecsv")
    assert str(read["radius"].unit) == "arcsec" and str(read["ra"].unit) == "deg"
