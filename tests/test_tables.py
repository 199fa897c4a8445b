"""Tables in files: what other libraries read of them."""

import csv
import importlib.util
import io
import subprocess
import sys
import warnings

import h5py
import numpy as np
import pytest
from astropy.table import MaskedColumn, QTable, Table

from kerasgal import __version__
from kerasgal.errors import MissingError, SettingError
from kerasgal.tables import quantities, write_table

HEADER = {"app": "protohalo", "run": "runs/deep", "boxsize": np.float64(50.0), "notes": "assumed: \u03c3\nof 1"}


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    columns = {"position": rng.random((4, 3)).astype("f4"), "mass": 1e12 * rng.random(4), "cells": np.arange(4),
               "velocity": rng.normal(size=(4, 3)), "name": ["a", "b,c", "#d", "e # f"]}
    return quantities(columns, {"position": "Mpc/h", "mass": "Msun/h", "velocity": "km/s"}, HEADER)


@pytest.mark.parametrize("kind", [Table, QTable])
def test_the_header_is_that_of_the_table_and_what_is_given(kind, tmp_path):
    write_table(tmp_path / "a.ecsv", kind({"mass": [1.0]}, meta={"run": "deep", "box": 1}), {"box": 2})
    meta = Table.read(tmp_path / "a.ecsv").meta
    assert meta["run"] == "deep" and meta["box"] == 2


@pytest.mark.parametrize("suffix", ["ecsv", "fits", "csv", "hdf5", "h5"])
def test_astropy_reads_back_numbers_and_header(table, tmp_path, suffix):
    write_table(tmp_path / f"t.{suffix}", table)
    found = Table.read(tmp_path / f"t.{suffix}", **({"comment": "#"} if suffix == "csv" else {}))
    for axis, name in enumerate("xyz"):
        np.testing.assert_array_equal(found[name].astype("f4"), table["position"][:, axis].value)
    np.testing.assert_array_equal(found["mass"], table["mass"].value)
    assert [str(name) for name in found["name"]] == ["a", "b,c", "#d", "e # f"]
    assert ("position" in found.colnames) == (suffix != "csv")
    meta = found.meta if suffix != "csv" else dict(line.split(": ", 1) for line in found.meta["comments"])
    meta = {key.lower(): value for key, value in meta.items()}
    assert (meta["run"], float(meta["boxsize"]), meta["kerasgal"]) == ("runs/deep", 50.0, __version__)
    assert meta["notes"].split()[::2] == ["assumed:", "of"]


def test_csv_is_read_by_any_reader_that_knows_comments(table, tmp_path):
    from astropy.io import ascii

    write_table(tmp_path / "t.csv", table)
    assert ascii.read(tmp_path / "t.csv")["velocity_2"].tolist() == table["velocity"][:, 2].value.tolist()
    lines = (tmp_path / "t.csv").read_text().splitlines()
    header = [line for line in lines if line.startswith("#")]
    assert "# boxsize: 50.0" in header and "# mass: Msun/h" in header and "# velocity_0: km / s" in header
    assert lines[:len(header)] == header  # pandas: comment="#"
    rows = list(csv.reader(io.StringIO("\n".join(lines[len(header):]))))
    assert [row[rows[0].index("name")] for row in rows[1:]] == ["a", "b,c", "#d", "e # f"]
    # Of a cell with a # the whole row is quoted: pandas and others cut off what follows one that is not.
    assert all(line.startswith('"') for line in lines[len(header) + 3:])


def test_pandas_reads_csv(table, tmp_path):
    pandas = pytest.importorskip("pandas")
    write_table(tmp_path / "t.csv", table)
    found = pandas.read_csv(tmp_path / "t.csv", comment="#")
    assert found["name"].tolist() == ["a", "b,c", "#d", "e # f"]
    np.testing.assert_array_equal(found["mass"], table["mass"].value)


def test_masked_values_are_empty_in_csv(tmp_path):
    write_table(tmp_path / "t.csv", {"a": MaskedColumn([1.0, 2.0], mask=[True, False]), "b": [b"x", b"y"]})
    assert (tmp_path / "t.csv").read_text().splitlines()[1:] == ["a,b", ",x", "2.0,y"]


def test_hdf5_has_the_header_in_its_attributes_too(table, tmp_path):
    write_table(tmp_path / "t.h5", table)
    with h5py.File(tmp_path / "t.h5") as file:
        assert (file.attrs["app"], file.attrs["boxsize"]) == ("protohalo", 50.0)
        np.testing.assert_array_equal(file["table"]["mass"], table["mass"].value)


def test_units_with_h_are_read_without_a_warning_where_astropy_knows_h(table, tmp_path):
    write_table(tmp_path / "t.ecsv", table)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert QTable.read(tmp_path / "t.ecsv")["mass"].unit == table["mass"].unit
    # In a process of its own, by what docs/files.md says.
    lines = ["import sys, warnings", "warnings.simplefilter('error')", "import astropy.units as u",
             "from astropy.cosmology.units import littleh", "from astropy.table import QTable",
             "u.add_enabled_units([littleh])", "print(repr(QTable.read(sys.argv[1])['mass'].unit))"]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines), tmp_path / "t.ecsv"], capture_output=True, text=True)
    assert done.stdout == 'Unit("solMass / littleh")\n', done.stderr


def test_parquet_has_one_number_a_column(table, tmp_path):
    pytest.importorskip("pyarrow")
    from pyarrow import parquet

    write_table(tmp_path / "t.parquet", table)
    found = parquet.read_table(tmp_path / "t.parquet")
    assert {"x", "y", "z", "velocity_0"} < set(found.column_names) and "position" not in found.column_names
    np.testing.assert_array_equal(found["y"].to_numpy(), table["position"][:, 1].value)
    assert b"runs/deep" in found.schema.metadata[b"table_meta_yaml"]


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pyarrow" else found(name))
    with pytest.raises(MissingError, match=r"t.parquet needs pyarrow: pip install 'kerasgal\[parquet\]'"):
        write_table(tmp_path / "t.parquet", {"a": [1]})
    assert not list(tmp_path.iterdir())


def test_another_suffix_is_refused(tmp_path):
    with pytest.raises(SettingError, match="accepted suffixes are .ecsv, .fits, .csv, .hdf5, .h5, .parquet"):
        write_table(tmp_path / "t.txt", {"a": [1]})
