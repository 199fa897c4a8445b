"""Networks under names: packed from a run, loaded, listed, and refused where a byte is another one."""

import functools
import http.server
import json
import shutil
import threading
import zipfile

import click
import h5py
import harness
import numpy as np
import pytest

import kerasgal as kg
from kerasgal import networks


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty registry in the place of the package's."""
    place = tmp_path / "shipped"
    place.mkdir()
    (place / "registry.json").write_text("{}")
    monkeypatch.setattr(networks, "SHIPPED", place)
    monkeypatch.setenv("KERASGAL_CACHE", str(tmp_path / "cache"))
    return place


def packed(run, name="tiny", **options):
    return networks.pack(run, name, summary="small cells", figures={"loss": "0.9"}, card="# tiny\n\nFor tests.",
                         **options)


def test_a_network_is_loaded_by_its_name_and_predicts_as_the_run(place, trained, boxes, invoke, tmp_path, monkeypatch):
    run = trained("protohalo")
    folder = packed(run)
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md", "best.weights.h5", "calibration.json", "config.json", "domain.json", "history.csv",
        "provenance.json"]
    by_name, by_folder = kg.load("tiny"), kg.load(run)
    assert by_name.domain == by_folder.domain and by_name.line == by_folder.line
    one, other = (loaded.predict(boxes[2]).distance for loaded in (by_name, by_folder))
    np.testing.assert_allclose(one, other, atol=5e-3)  # weights to three digits
    with h5py.File(folder / "best.weights.h5") as file:
        kinds = set()
        file.visititems(lambda _, item: kinds.add(item.dtype) if isinstance(item, h5py.Dataset) else None)
    assert kinds == {np.dtype(np.float16)}
    table = kg.models()
    assert list(table["name"]) == ["tiny"] and table["app"][0] == "protohalo" and table["MB"][0] > 0
    shown = invoke("models")
    assert "tiny" in shown.stdout and "loss 0.9" in shown.stdout
    assert "For tests." in invoke("models", "tiny").stdout
    assert json.loads(invoke("info", "tiny", "--json").stdout)["config levels"] == 1
    assert "loss of tiny" in invoke("plot", "tiny", "loss", tmp_path / "loss.png", "--with", run).stdout
    monkeypatch.chdir(tmp_path)
    said = invoke("protohalo", "predict", "tiny", boxes[2], "--output", "haloes.h5")
    assert "haloes" in said.stdout
    refused = invoke("protohalo", "export", "tiny", check=False)
    assert refused.returncode == 2 and "nothing is written beside" in refused.stderr


def test_nothing_of_the_machine_is_published_and_training_data_stay_known(place, trained, boxes, tmp_path):
    folder = packed(trained("protohalo"))
    published = (folder / "provenance.json").read_text()
    assert "/" not in published.replace("Mpc/h", "") and "of the source: kerasgal simulate" in published
    copied = tmp_path / "copy.h5"
    shutil.copy(boxes[0], copied)  # another path, the same simulation
    with pytest.raises(kg.UnseenError, match="was used in the training"):
        kg.load("tiny").evaluate(copied)
    with kg.Simulation(copied) as box:
        again = kg.simulate(particles=32, boxsize=25, seed=7)  # as it was made
        np.testing.assert_array_equal(again.delta(), box.delta())
    with pytest.raises(kg.UnseenError, match="was used in the training"):
        kg.load("tiny").evaluate(again)


def test_what_was_trained_on_in_memory_is_published_by_its_words(place, tmp_path):
    words = "kerasgal simulate: 32^3 particles in 25 Mpc/h, 2LPT and COLA, 20 steps, seed 7, fof haloes of at least 20"
    found = networks._without_paths({"data": {"training": [words], "validation": [str(tmp_path / "gone.h5")]}})
    assert found["data"] == {"training": [f"of the source: {words}"], "validation": ["gone.h5"]}


def test_what_weights_saw_before_is_published_by_its_words_too():
    seen = ["of the source: some words", "/gone.h5"]
    found = networks._without_paths({"weights_from": "/a/run", "seen_before": seen})
    assert found["weights_from"] == "run" and found["seen_before"] == ["of the source: some words", "gone.h5"]


def test_a_changed_byte_is_refused(place, trained, invoke, boxes):
    folder = packed(trained("protohalo"))
    weights = folder / "best.weights.h5"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    with pytest.raises(kg.DamagedError, match="not the file of the network tiny that was published"):
        kg.load("tiny")
    refused = invoke("protohalo", "predict", "tiny", boxes[2], "--output", "no.h5", check=False)
    assert refused.returncode == 1 and len(refused.stderr.strip().splitlines()) == 1


def test_an_unknown_name_lists_the_known_ones(place, trained):
    packed(trained("protohalo"))
    with pytest.raises(kg.MissingError, match="no such run folder: tiyn; networks that have a name: tiny"):
        kg.load("tiyn")
    with pytest.raises(kg.MissingError, match="no network called tiyn"):
        networks.card("tiyn")
    with pytest.raises(kg.SettingError, match="expected a run folder, or the name of a network, received 5"):
        kg.load(5)


def test_nothing_is_made_where_there_is_nothing_to_train_on_or_to_go_on_with(tmp_path):
    with pytest.raises(kg.SettingError, match="expected a path or a Simulation, received 5"):
        kg.train("protohalo", [5], run=tmp_path / "run", preset="demo")
    with pytest.raises(kg.RunError, match="resume=True: .*run has no run to go on with"):
        kg.train("protohalo", run=tmp_path / "run", resume=True)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_goes_before_a_name(place, trained, tmp_path, monkeypatch):
    packed(trained("protohalo"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()
    assert not networks.is_name("tiny")
    with pytest.raises(kg.RunError, match="no run folder|not a run folder"):
        kg.load("tiny")


@pytest.fixture
def server(tmp_path):
    """A file server on this machine: its address and its folder."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *words):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", folder
        running.shutdown()


def test_a_network_is_fetched_once_and_refused_if_it_is_another(place, trained, server, tmp_path):
    address, served = server
    folder = packed(trained("protohalo"))
    archive = served / "tiny.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in folder.iterdir():
            file.write(path, path.name)
            path.unlink()
    folder.rmdir()
    entries = json.loads((place / "registry.json").read_text())
    entries["tiny"] |= {"url": f"{address}/tiny.zip", "sha256": networks.sha256(archive)}
    (place / "registry.json").write_text(json.dumps(entries))
    assert kg.load("tiny").app == "protohalo"
    archive.unlink()
    assert kg.load("tiny").folder.is_relative_to(tmp_path / "cache")  # from the cache
    entries["other"] = {**entries["tiny"], "sha256": "0" * 64, "url": f"{address}/other.zip"}
    (place / "registry.json").write_text(json.dumps(entries))
    with pytest.raises(kg.DataError, match="cannot be fetched from .*other.zip"):
        kg.load("other")
    (served / "other.zip").write_bytes(b"something else")
    with pytest.raises(kg.DamagedError, match="not the archive of the network other"):
        kg.load("other")


def test_what_comes_with_the_package_is_whole_and_small():
    entries = networks.registry()
    for name in entries:
        folder = networks.folder_of(name)
        assert (folder / "README.md").exists() and entries[name]["figures"]
    assert sum(entry["bytes"] for entry in entries.values()) < 22e6


@pytest.mark.parametrize("app", [app if app != "morph" else pytest.param(app, marks=pytest.mark.slow)
                                 for app in harness.RECIPES if app != "protohalo"])
def test_runs_of_every_app_can_be_packed(app, place, trained):
    packed(trained(app))
    assert kg.load("tiny").app == app


def test_nothing_is_compressed_into_the_package(place, trained):
    packed(trained("halomass"))
    with pytest.raises(kg.SettingError, match="`output` is missing: nothing is written beside"):
        kg.load("tiny").compress()
    assert not (place / "tiny" / "compressed").exists()


def test_what_is_left_out_for_want_of_training_data_is_said_in_flags(capsys):
    from kerasgal.apps.cascade import baseline
    from kerasgal.cli import main
    from kerasgal.commands.base import printing_logs

    command = main.get_command(None, "cascade").get_command(None, "evaluate")
    with printing_logs(), click.Context(command):
        assert baseline.chosen(None, networks.SHIPPED / "cascade-demo" / "classify", []) is None
    line, = capsys.readouterr().err.splitlines()
    assert line == ("warning: no halo model to compare with: the data that this network was trained on do not come "
                    "with it; `kerasgal cascade hod` fits one to simulations with galaxies, for --hod hod.json")
