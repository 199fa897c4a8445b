"""Catalogues for other codes: names, units, and a way back through the reader of Rockstar's tables."""

import copy
import re

import astropy.units as u
import numpy as np
import pytest
from astropy.table import Table

import kerasgal as kg
from kerasgal.cosmology import mean_density
from kerasgal.readers.rockstar import read_groups
from kerasgal.simulation import Simulation
from kerasgal.tables import unit


@pytest.fixture(scope="module")
def run(trained):
    return kg.load(trained("protohalo"))


@pytest.fixture(scope="module")
def haloes(run, boxes):
    return run.predict(boxes[2])


def test_rockstars_table_is_read_as_it_was_written(run, haloes, boxes, invoke, tmp_path):
    done = invoke("protohalo", "predict", run.folder, boxes[2], "--format", "list", "--format", "csv", "--columns",
                  "rockstar", "--output", tmp_path / "out.h5")
    assert "out.list: its table" in done.stdout
    alone = invoke("protohalo", "predict", run.folder, boxes[2], "--columns", "rockstar", "--output",
                   tmp_path / "no.h5", check=False)
    assert alone.returncode == 2 and "--format is not given" in alone.stderr and not (tmp_path / "no.h5").exists()
    found = read_groups(tmp_path / "out.list")
    with Simulation(boxes[2]) as box:
        assert found.boxsize == box.boxsize and found.redshift == box.redshift_final and found.finder == "rockstar"
        assert found.cosmology == pytest.approx({"Om0": box.cosmology.Om0, "h": box.cosmology.h}, rel=1e-5)
        density = mean_density(box.cosmology)
    np.testing.assert_allclose(found.mass, haloes["halos/mass"], rtol=1e-4)
    np.testing.assert_array_equal(found.count, haloes["halos/cells"])
    np.testing.assert_allclose(found.position, haloes["halos/final_position"], atol=1e-5)
    np.testing.assert_allclose(found.mass / (4 / 3 * np.pi * found.radius**3), 200 * density, rtol=1e-2)
    assert found.position.min() >= 0 and found.position.max() < found.boxsize
    # As Rockstar's own header: the first line names the columns, and units stand behind.
    text = (tmp_path / "out.list").read_text()
    assert text.startswith("#ID DescID Mvir Rvir Np X Y Z VX VY VZ PID\n#a = 1.000000\n#Om = ")
    assert "#Units: Velocities in km / s (physical, peculiar)\n" in text
    assert "#watershed: adaptive\n" in text and "#note:" not in text and "#parameters:" not in text
    velocity = np.loadtxt(tmp_path / "out.list", usecols=(8, 9, 10))
    np.testing.assert_allclose(velocity, haloes["halos/velocity"], atol=0.006)
    assert re.search(r"^# Rvir: kpc/h$", (tmp_path / "out.csv").read_text(), re.MULTILINE)


def test_rockstars_table_says_what_was_assumed_and_how(haloes, tmp_path):
    noted = copy.copy(haloes)
    noted.notes = ["outside the domain of the run: cells of 9 Mpc/h", "two\nlines"]
    noted.header = {**haloes.header, "watershed": "native", "parameters": "Om0 = 0.3"}
    noted.save(tmp_path / "out.list")
    lines = [line for line in (tmp_path / "out.list").read_text().splitlines() if line.startswith("#")]
    assert lines[-4:] == ["#watershed: native", "#parameters: Om0 = 0.3", f"#note: {noted.notes[0]}",
                          "#note: two lines"]
    np.testing.assert_array_equal(read_groups(tmp_path / "out.list").count, haloes["halos/cells"])


def test_halotools_finds_its_columns_metadata_and_units(run, boxes, haloes, tmp_path):
    """What halotools' UserSuppliedHaloCatalog asks for, and upid by which its models know hosts."""
    made = run.predict(boxes[2], columns="halotools")
    made.save(tmp_path / "haloes.ecsv")
    table = Table.read(tmp_path / "haloes.ecsv")
    assert {"halo_id", "halo_x", "halo_y", "halo_z", "halo_vx", "halo_vy", "halo_vz", "halo_mvir", "halo_rvir",
            "halo_upid", "halo_hostid"} <= set(table.colnames) and all(name[:5] == "halo_" for name in table.colnames)
    assert table.meta["Lbox"] == 25 and table.meta["redshift"] == 0.0 and table.meta["particle_mass"] > 0
    assert table["halo_mvir"].unit == unit("Msun/h")
    assert table["halo_x"].unit == table["halo_rvir"].unit == unit("Mpc/h")
    assert table["halo_vz"].unit == u.km / u.s and (table["halo_upid"] == -1).all()
    place = np.stack([table[f"halo_{axis}"] for axis in "xyz"], axis=1)
    np.testing.assert_allclose(place, haloes["halos/final_position"])
    np.testing.assert_allclose(table["halo_mvir"], haloes["halos/mass"])
    assert made.keys() == haloes.keys() and "position" in haloes.table.colnames  # only the table has other names


def test_catalogues_that_cannot_be_are_refused(run, boxes, tmp_path, invoke):
    with pytest.raises(kg.SettingError, match="columns='ahf': accepted are halotools, rockstar"):
        run.predict(boxes[2], columns="ahf")
    with Simulation(boxes[2]) as box:
        delta = box.delta()
    with pytest.raises(kg.DataError, match="a catalogue for halotools has the haloes where they end, .*`redshift`"):
        run.predict(delta, boxsize=25, columns="halotools")
    with pytest.raises(kg.DataError, match="a catalogue for rockstar has the haloes where they end"):
        run.predict(delta, boxsize=25).save(tmp_path / "out.list")
    assert not list(tmp_path.iterdir())
    (tmp_path / "out.list").touch()
    done = invoke("protohalo", "predict", run.folder, boxes[2], "--format", "list", "--output", tmp_path / "out.h5",
                  check=False)
    assert done.returncode == 1 and "out.list exists already" in done.stderr and not (tmp_path / "out.h5").exists()
