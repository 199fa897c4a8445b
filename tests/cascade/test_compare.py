"""Runs by suites: the table of cross-prediction, its command, and what is refused or flagged in it."""

import csv
import json
import shutil

import h5py
import numpy as np
import pytest

import kerasgal as kg
from kerasgal import run_folder
from kerasgal.apps.cascade import compare, evaluate
from kerasgal.errors import DomainError, SettingError

pytestmark = pytest.mark.usefixtures("eager")


@pytest.fixture(scope="module")
def folders(trained, tmp_path_factory):
    """Two runs: one, and its copy that took twelve minutes and three."""
    folder = trained("cascade")
    twin = tmp_path_factory.mktemp("compare") / "twin"
    shutil.copytree(folder, twin)
    for phase, seconds in (("classify", 720), ("regress", 180)):
        place = twin / phase / run_folder.PROVENANCE
        run_folder.write_json(run_folder.read_json(place) | {"wall_seconds": seconds}, place)
    return folder, twin


@pytest.fixture(scope="module")
def early(painted, tmp_path_factory):
    """A box whose file says that it is at redshift 1, and whose galaxies are not known to be painted."""
    place = tmp_path_factory.mktemp("early") / "early.h5"
    shutil.copy(painted[2], place)
    with h5py.File(place, "r+") as file:
        file.attrs.update(redshift_final=1.0, source="a hydrodynamic run")
    return place


@pytest.mark.slow
def test_a_command_writes_a_table_of_each_run_on_each_suite(folders, painted, early, tmp_path, invoke, monkeypatch):
    monkeypatch.setattr(evaluate, "K1", 2.0)  # the box is too small for the triangles of 1.2 and 1.3 h/Mpc
    monkeypatch.setattr(evaluate, "K2", 2.5)
    suites = ["--suite", f"ours={painted[2]}", "--suite", f"early={early}"]
    refused = invoke("cascade", "compare", *folders, *suites, "--output", tmp_path / "no", check=False)
    assert refused.returncode == 1 and "redshift" in refused.stderr and "--outside-domain" in refused.stderr
    assert not (tmp_path / "no").exists()
    said = invoke("cascade", "compare", *folders, *suites, "--output", tmp_path / "table", "--outside-domain").stdout
    made = json.loads((tmp_path / "table" / "metrics.json").read_text())
    rows = made["table"]
    assert [(row["run"], row["suite"], row["outside_domain"]) for row in rows] == [
        ("run", "ours", False), ("run", "early", True), ("twin", "ours", False), ("twin", "early", True)]
    with open(tmp_path / "table" / "table.csv", newline="", encoding="utf-8") as file:
        written = list(csv.DictReader(line for line in file if not line.startswith("#")))
    assert [float(row["recall"]) for row in written] == pytest.approx([row["recall"] for row in rows])
    assert [row["suite"] for row in written] == ["ours", "early"] * 2
    # Counted by hand from a prediction
    with kg.Simulation(painted[2]) as simulation:
        occupied = np.histogramdd(simulation["galaxies/position"][...], 32, [(0, 12.5)] * 3)[0] > 0
        number = len(simulation["galaxies/position"])
    found = kg.load(folders[0]).predict(painted[2])
    called = found["probability"] > 0.5
    assert rows[0]["accuracy"] == pytest.approx((called == occupied).mean())
    assert rows[0]["recall"] == pytest.approx(called[occupied].mean())
    assert rows[0]["precision"] == pytest.approx(occupied[called].mean() if called.any() else None)
    assert rows[0]["galaxies"] == pytest.approx(found["count"].sum() / number, rel=1e-4)
    assert rows[0]["bispectrum"] == made["suites"]["ours"]["runs"]["run"]["bispectra"]["paper"]["residual"]
    assert {name: value for name, value in rows[2].items() if name not in ("run", *minutes(rows[2]))} == {
        name: value for name, value in rows[0].items() if name not in ("run", *minutes(rows[0]))}
    assert (rows[2]["classifier_minutes"], rows[2]["regressor_minutes"]) == (12, 3)
    lines = said.splitlines()
    assert lines[0].startswith("run") and "12 + 3" in lines[3] and lines[2].split()[1] == "early!"
    # What is known of painted galaxies stands below; of the others, whose origin is not known, there is nothing.
    assert [(row["run"], row["suite"]) for row in made["bounds"]] == [
        ("another drawing", "ours"), ("exact expectation", "ours")]
    assert made["bounds"][1]["correlation_large"] == pytest.approx(
        made["suites"]["ours"]["bounds"]["exact expectation"]["correlation_by_scale"]["large"])
    assert lines[5].startswith("another drawing") and lines[6].startswith("exact expectation   ours")
    assert lines[7] == "! the suite is not like what the run was trained on"
    assert {path.name for path in (tmp_path / "table").glob("*.png")} == {
        f"{suite}_{name}.png" for suite in ("ours", "early") for name in ("power_spectrum", "bispectrum")}


def minutes(row):
    return [name for name in row if name.endswith("minutes")]


def test_a_comparison_from_python_takes_runs_and_refuses_what_it_does_not_know(folders, painted, early):
    run = kg.load(folders[1])
    with pytest.raises(DomainError, match="redshift"):
        compare.compare(run, {"early": early})
    for runs, suites in (([], {"a": painted[2]}), ([run], {}), ([run], {"a": []})):
        with pytest.raises(SettingError, match="a run or more, and suites of a simulation or more"):
            compare.compare(runs, suites)
    with pytest.raises(SettingError, match="suites='a/b': a suite's name"):
        compare.compare(run, {"a/b": painted[2]})
    with pytest.raises(SettingError, match="is given twice"):
        compare.compare(run, {"a": [painted[2], painted[2]]})
    assert compare.training_minutes(kg.Cascade(run.config, {}), "classify") is None
    assert compare.mean([None, 1.0, 3.0]) == 2 and compare.mean([None]) is None


def test_suites_that_cannot_be_read_are_one_line(folders, painted, invoke):
    for words in ("nothing", "=box.h5", "a="):
        done = invoke("cascade", "compare", folders[0], "--suite", words, check=False)
        assert done.returncode == 2 and "accepted is NAME=FILE,FILE,..." in done.stderr
    done = invoke("cascade", "compare", folders[0], "--suite", f"a={painted[2]}", "--suite", "a=b.h5", check=False)
    assert done.returncode == 2 and "a name that no other has" in done.stderr
