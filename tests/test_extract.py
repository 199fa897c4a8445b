"""Extracting fields and catalogues: what other libraries read of them is what the HDF5 file holds."""

import re

import h5py
import numpy as np
import pytest
from astropy.table import Table

from kerasgal import extract as module


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


@pytest.mark.parametrize("suffix", ["ecsv", "fits"])
def test_catalogue(path, tmp_path, invoke, suffix):
    output = tmp_path / f"halos.{suffix}"
    assert invoke("extract", path, "halos", output).stdout == f"{output}: 5 rows of count, mass, position\n"
    table = Table.read(output)
    with h5py.File(path) as file:
        for name in ("mass", "position", "count"):
            assert np.array_equal(table[name], file[f"halos/{name}"][...])
    meta = {name.lower(): value for name, value in table.meta.items()}
    assert (meta["mass"], meta["position"]) == ("Msun/h", "comoving Mpc/h")


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
    ("halos", "halos.npy", "is a catalogue, not what .*halos.npy is for: accepted are .npy for a field, .ecsv and"),
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
