"""What a file is, what a conversion would need, and many conversions by a table."""

import json
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import h5py
import numpy as np
import pytest

from kerasgal.errors import DataError
from kerasgal.readers import describe, manifest, rows
from kerasgal.readers.description import plan
from kerasgal.simulation import Simulation

BOX, OM0, H, N = 20.0, 0.3, 0.7, 8
MASS = OM0 * 27.7536627 * BOX**3 / N**3  # 1e10 Msun/h


def write_snapshot(path, seed=0, **changes):
    """Dark matter in kpc/h; `changes` replace header attributes, None takes them out."""
    header = {"BoxSize": BOX * 1000, "HubbleParam": H, "Omega0": OM0, "OmegaBaryon": 0.045, "Redshift": 0.0,
              "MassTable": [0, MASS, 0, 0, 0, 0], "NumPart_ThisFile": [0, N**3, 0, 0, 0, 0],
              "UnitLength_in_cm": 3.085678e21} | changes
    with h5py.File(path, "w") as file:
        file.create_group("Header").attrs.update({name: value for name, value in header.items() if value is not None})
        file["PartType1/Coordinates"] = np.random.default_rng(seed).uniform(0, BOX * 1000, (N**3, 3))
        file["PartType1/ParticleIDs"] = np.arange(N**3)
    return path


# One file -----------------------------------------------------------------------------------


def test_a_snapshot(tmp_path):
    found = describe(write_snapshot(tmp_path / "snap.hdf5"))
    assert (found["kind"], found["format"]) == ("snapshot", "HDF5 of the Gadget family")
    assert found["particles"] == {"dark matter (type 1)": N**3} and found["files"] == 1
    assert (found["boxsize"], found["length_unit"], found["redshift"]) == (BOX, "Mpc/h", 0)
    assert found["cosmology"] == {"Om0": OM0, "h": H, "Ob0": 0.045} and found["missing"] == []
    assert found["convert"] == f"kerasgal convert snap.h5 --final {tmp_path}/snap.hdf5 --grid 8"
    json.dumps(found)
    assert dict(rows(found))["particles dark matter (type 1)"] == "512"


def test_the_line_that_converts_a_snapshot_does(tmp_path, invoke):
    found = describe(write_snapshot(tmp_path / "snap.hdf5"))
    words = found["convert"].split()[2:]
    invoke("convert", tmp_path / words[0], *words[1:])
    with Simulation(tmp_path / "snap.h5", require=("final/delta",)) as simulation:
        assert simulation.problems() == []


def test_what_a_snapshot_does_not_say(tmp_path):
    path = write_snapshot(tmp_path / "snap.hdf5", BoxSize=None, Redshift=None, Omega0=None, UnitLength_in_cm=None)
    found = describe(path)
    assert found["missing"] == ["boxsize", "redshift", "length_unit", "Om0"] and "boxsize" not in found
    assert found["convert"].endswith("--boxsize NUMBER --redshift NUMBER --length-unit kpc|Mpc --omega-matter NUMBER")


def test_initial_conditions_and_a_snapshot_without_dark_matter(tmp_path):
    assert "--initial" in describe(write_snapshot(tmp_path / "ics.hdf5", Redshift=99.0))["convert"]
    path = write_snapshot(tmp_path / "gas.hdf5", NumPart_ThisFile=[N**3, 0, 0, 0, 0, 0])
    with h5py.File(path, "r+") as file:
        file.move("PartType1", "PartType0")
    assert "--particles all" in describe(path)["convert"]


def test_catalogues_and_tables(tmp_path):
    with h5py.File(tmp_path / "fof.hdf5", "w") as file:
        file.create_group("Header").attrs.update(BoxSize=BOX * 1000, NumFiles=1, Ngroups_ThisFile=2, Redshift=0.0)
        file["Group/GroupMass"], file["Group/GroupPos"] = np.ones(2), np.ones((2, 3))
        file["Group/GroupLenType"] = np.ones((2, 6), int)
    found = describe(tmp_path / "fof.hdf5")
    assert (found["kind"], found["haloes"], found["missing"]) == ("catalogue", 2, ["length_unit"])
    assert found["convert"].endswith(f"--groups {tmp_path}/fof.hdf5")

    (tmp_path / "members.txt").write_text("# particle halo\n1 7\n2 7\n3 8\n4 -1\n")
    found = describe(tmp_path / "members.txt")
    assert (found["kind"], found["rows"], found["haloes"]) == ("table of members", 4, 2)

    (tmp_path / "params.txt").write_text("#Name Omega_m sigma_8 A_SN1 seed\nLH_0 0.3 0.8 1 5\n")
    found = describe(tmp_path / "params.txt")
    assert (found["kind"], found["rows"]) == ("table of parameters", 1)
    assert found["used"] == ["Omega_m as Om0", "sigma_8 as sigma8"]
    (tmp_path / "params.txt").write_text("#Omega_m sigma_8\n0.3 0.8\n")  # two columns, as members have
    assert describe(tmp_path / "params.txt")["kind"] == "table of parameters"


def test_fields_and_arrays(tmp_path):
    np.save(tmp_path / "Grids_Mcdm_x.npy", np.zeros((3, 4, 4, 4)))
    found = describe(tmp_path / "Grids_Mcdm_x.npy")
    assert (found["kind"], found["shape"], found["density_of"]) == ("field", (3, 4, 4, 4), "dark matter")
    assert "--index NUMBER" in found["convert"]
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["cat/mass"] = np.ones(3)
    found = describe(tmp_path / "other.h5")
    assert (found["kind"], found["datasets"], found["convert"]) == ("arrays", ["cat/mass (3,)"], None)
    (tmp_path / "notes.txt").write_text("some words, and more\n")
    with pytest.raises(DataError, match="notes.txt is of no format that is known; read are"):
        describe(tmp_path / "notes.txt")
    (tmp_path / "empty").write_text("")
    with pytest.raises(DataError, match="is of no format that is known"):
        describe(tmp_path / "empty")
    with pytest.raises(DataError, match="no such file"):
        describe(tmp_path / "nowhere")


def test_a_format_that_is_not_read_says_which_tool_helps(tmp_path):
    (tmp_path / "output").mkdir()
    (tmp_path / "output" / "info_00080.txt").write_text("x")
    found = describe(tmp_path / "output")
    assert found["kind"] == "not read" and "yt and pynbody read it" in found["instead"] and found["convert"] is None


# Before a conversion ------------------------------------------------------------------------


def test_a_dry_run_says_all_that_is_missing_at_once(tmp_path, invoke):
    final = write_snapshot(tmp_path / "snap.hdf5", BoxSize=None, Omega0=None, UnitLength_in_cm=None)
    done = invoke("convert", tmp_path / "run.h5", "--final", final, "--grid", 16, "--groups", tmp_path / "none.hdf5",
                  "--parameter-table", tmp_path / "none.txt", "--dry-run", check=False)
    said = done.stdout.splitlines()
    assert done.returncode == 1 and not (tmp_path / "run.h5").exists()
    assert "512 particles; about 0.2 GB of memory, 1 s or less, a file of 0.0164 MB" in said[0]
    for part in ("`parameter_table` needs", "no such file: {0}/none.hdf5", "no such file: {0}/none.txt",
                 "has no BoxSize, Omega0, UnitLength_in_cm", "give --boxsize, --omega-matter, --length-unit"):
        part = part.replace("`parameter_table`", "--parameter-table").format(tmp_path)
        assert any(part in line for line in said), (part, said)


def test_a_dry_run_of_what_can_be_done_writes_nothing(tmp_path, invoke):
    final = write_snapshot(tmp_path / "snap.hdf5")
    done = invoke("convert", tmp_path / "run.h5", "--final", final, "--grid", 16, "--dry-run")
    assert len(done.stdout.splitlines()) == 1 and sorted(tmp_path.iterdir()) == [final]
    assert plan(final=final, grid=16)["problems"] == []
    assert any("it is for `final`" in problem or "`grid`" in problem for problem in plan(final=final)["problems"])


def test_a_conversion_writes_neither_over_what_it_reads_nor_under_a_name_that_is_none_of_hdf5(tmp_path, invoke):
    final = write_snapshot(tmp_path / "snap.hdf5")
    before = final.read_bytes()
    (tmp_path / "old.h5").touch()
    for more in ([], ["--dry-run"]):
        for output, options, said in ((final, ["--overwrite"], "is what is read"),
                                      (tmp_path / "run.npz", [], "accepted suffixes are .h5, .hdf5"),
                                      (tmp_path / "old.h5", [], "exists already; give --overwrite")):
            done = invoke("convert", output, "--final", final, "--grid", 16, *options, *more, check=False)
            assert done.returncode and said in done.stdout + done.stderr
    assert final.read_bytes() == before and sorted(tmp_path.iterdir()) == [tmp_path / "old.h5", final]


def test_a_conversion_does_not_write_over_another_file_of_its_snapshot(tmp_path, invoke):
    first, second = tmp_path / "snap.0.hdf5", tmp_path / "snap.1.hdf5"
    for part in (first, second):
        write_snapshot(part)
    before = second.read_bytes()
    for more in ([], ["--dry-run"]):
        done = invoke("convert", second, "--final", first, "--grid", 16, "--overwrite", *more, check=False)
        assert done.returncode and "is one of the files of which" in done.stdout + done.stderr
    assert second.read_bytes() == before


# Many ---------------------------------------------------------------------------------------


@pytest.fixture
def many(tmp_path):
    """A table of three simulations with parameters in another table; the folder, and the table's path."""
    for number in range(3):
        write_snapshot(tmp_path / f"snap_{number}.hdf5", seed=number)
    lines = [f"LH_{row} {row + 0.5} 1\n" for row in range(3)]
    (tmp_path / "params.txt").write_text("#Name A_SN1 seed\n" + "".join(lines))
    (tmp_path / "table.csv").write_text("output, final, --index, window\n" + "".join(
        f"lh_{row}, {tmp_path}/snap_{row}.hdf5, {row}, {'ngp' if row == 1 else ''}\n" for row in range(3)))
    return tmp_path, tmp_path / "table.csv"


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_table_of_simulations(many, invoke, jobs):
    folder, table = many
    arguments = ["convert", folder / "out", "--manifest", table, "--grid", 4, "--parameter-table",
                 folder / "params.txt", "--jobs", jobs]
    said = invoke(*arguments).stdout.splitlines()
    assert said[-1] == f"{folder}/out: 3 done, 0 skipped, 0 failed" and len(said) == 4
    for row in range(3):
        with Simulation(folder / "out" / f"lh_{row}.h5", require=("final/delta",)) as simulation:
            assert simulation.parameters["A_SN1"] == row + 0.5 and simulation["final/delta"].shape == (4, 4, 4)
            window = "ngp" if row == 1 else "cic"
            assert simulation.file.attrs["source"].split(";")[1].strip() == f"dark particles by {window}"
    (folder / "out" / "lh_1.h5").unlink()
    assert invoke(*arguments).stdout.splitlines()[-1] == f"{folder}/out: 1 done, 2 skipped, 0 failed"


def test_a_process_that_is_killed_fails_what_was_not_done(monkeypatch, tmp_path):
    class Pool:
        """Of concurrent.futures, which says so of every task that was not done."""

        def __init__(self, *_, **__):
            self.left = 1

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def submit(self, function, task):
            future = Future()
            future.set_result((task[0], "done", "")) if self.left else future.set_exception(BrokenProcessPool("killed"))
            self.left = 0
            return future

    monkeypatch.setattr(manifest, "ProcessPoolExecutor", Pool)
    said = sorted(manifest.run([(f"{name}.h5", {}) for name in "abc"], tmp_path, jobs=2))
    assert [(Path(output).name, outcome) for output, outcome, _ in said] == [
        ("a.h5", "done"), ("b.h5", "failed"), ("c.h5", "failed")]
    assert "mostly for want of memory" in said[1][2]


def test_one_row_that_fails_stops_no_other_and_is_done_again(many, invoke):
    folder, table = many
    moved = (folder / "snap_1.hdf5").rename(folder / "moved.hdf5")
    arguments = ["convert", folder / "out", "--manifest", table, "--grid", 4, "--parameter-table",
                 folder / "params.txt"]
    done = invoke(*arguments, check=False)
    assert done.returncode == 1 and f"lh_1.h5: failed: no such file: {folder}/snap_1.hdf5" in done.stderr
    assert done.stdout.splitlines()[-1].endswith("2 done, 0 skipped, 1 failed")
    moved.rename(folder / "snap_1.hdf5")
    (folder / "out" / "lh_2.h5").write_bytes(b"not HDF5")
    done = invoke(*arguments, check=False)
    assert "lh_2.h5 is not an HDF5 file" in done.stderr
    assert done.stdout.splitlines()[-1].endswith("1 done, 1 skipped, 1 failed")
    assert invoke(*arguments, "--overwrite").stdout.splitlines()[-1].endswith("3 done, 0 skipped, 0 failed")
    dry = invoke(*arguments, "--dry-run", "--overwrite").stdout.splitlines()
    assert len(dry) == 3 and "512 particles" in dry[0]
    dry = invoke(*arguments, "--dry-run").stdout.splitlines()
    assert len(dry) == 3 and dry[0].endswith("lh_0.h5: exists already, and is skipped if it is sound")


@pytest.mark.parametrize("text, message", [
    ("output,final\n", "has no rows"),
    ("output,colour\na,b\n", "has the column 'colour'; accepted are output, initial, final"),
    ("output,final,--final\na,b,c\n", "has a column twice"),
    ("output,grid\na,many\n", "grid is many in row 0; accepted is a number"),
    ("output,grid\na,4\na,5\n", "has the output a.h5 twice"),
    ("output,grid\na,4,5\n", "has 3 columns in row 0; accepted are 2"),
    ("output,grid\n../a,4\n", "the output ../a.h5 of row 0 leads out of the folder"),
])
def test_tables_that_are_none(tmp_path, text, message):
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        manifest.read(tmp_path / "table.csv")


def test_names_of_columns_as_python_or_the_command_spells_them(tmp_path):
    (tmp_path / "table.csv").write_text("--final,omega-matter,h,stellar_mass\nx,0.3,0.7,\n")
    assert manifest.read(tmp_path / "table.csv", {"stellar_mass": 1e9, "h": 0.6}) == [
        ("table_0.h5", {"final": "x", "Om0": 0.3, "h": 0.7, "stellar_mass": 1e9})]


def test_a_folder_as_output_of_one(tmp_path, invoke):
    done = invoke("convert", tmp_path, "--final", "x", "--grid", 4, check=False)
    assert done.returncode == 2 and "is a folder: give a file, or --manifest" in " ".join(done.stderr.split())


def test_the_page_of_files_has_all_formats_that_are_read_and_all_flags():
    from kerasgal.apps.morph import fitting, score
    from kerasgal.readers import base, flux, images
    from kerasgal.tables import SUFFIXES

    page = (Path(__file__).parents[1] / "docs" / "files.md").read_text()
    rows = {cells[1].strip(): [cell.strip() for cell in cells[2:-1]] for cells in (
        line.split("|") for line in page.splitlines() if line.startswith("| "))}
    flat = " ".join(page.split())
    for format in base.formats():
        if format.instead:
            assert f" {format.name}" in flat, format.name
            continue
        row, = (said for name, said in rows.items() if name.startswith(format.name))
        expected = [role for role in ("snapshot", "groups", "galaxies") if getattr(format, role)]
        assert row == [", ".join(expected)], format.name
    listed, = (name for name, said in rows.items() if said == ["images"])
    stems, endings = (set(part.replace("`", "").replace(",", "").split()) for part in (
        listed.split("; ")[1].split("each also")))
    expected = {*stems, *(stem + ending for stem in stems for ending in endings), *(
        listed.split("; ")[2].replace("`", "").split())}
    assert expected == set(images.FORMATS)
    assert all(f"`{suffix}`" in page for suffix in SUFFIXES) and all(unit in flat for unit in flux.UNITS)
    section = page.split("## Scores of morph")[1]
    for flags, part in zip((score.FLAGS, fitting.FLAGS), section.split("and `fit_flag`")):
        stated = {cells[2].strip(): int(cells[1]) for cells in (
            line.split("|") for line in part.split("## ")[0].splitlines() if line[:2] == "| " and line[2].isdigit())}
        assert stated == flags


def test_a_table_of_ours_or_of_galaxies_is_described(tmp_path):
    from astropy import units

    from kerasgal.tables import write_table

    columns = {"mass": [2e13, 1e13] * units.Msun, "position": np.ones((2, 3))}
    for suffix in ("csv", "ecsv"):
        write_table(tmp_path / f"haloes.{suffix}", columns, {"app": "protohalo", "boxsize": 50.0})
        found = describe(tmp_path / f"haloes.{suffix}")
        assert found["kind"] == "table" and found["rows"] == 2 and found["convert"] is None
        assert any("mass" in name for name in found["columns"])
    assert "mass [solMass]" in found["columns"]
    (tmp_path / "sersic.csv").write_text("n,r_e,mag\n1.0,5.0,17.2\n")
    assert describe(tmp_path / "sersic.csv")["columns"] == ["n", "r_e", "mag"]
    (tmp_path / "noise.csv").write_bytes(bytes(range(1, 200)))
    with pytest.raises(DataError, match="no format that is known"):
        describe(tmp_path / "noise.csv")
