"""Pages and figures of files: what is shown is what NumPy slices, through the server, too."""

import asyncio
import shutil
import threading
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

import kerasgal as kg
from kerasgal import imageset, view
from kerasgal.tables import write_table


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_layer_is_read_alone_and_stands_upright(axis, boxes):
    with kg.Simulation(boxes[0]) as box:
        whole = box["initial/delta"][...]
        found = view.cut(box["initial/delta"], axis, 5)
    assert found[7, 3] == {0: whole[5, 3, 7], 1: whole[3, 5, 7], 2: whole[3, 7, 5]}[axis]  # row up, column across


def test_figures_are_drawn_on_the_command_line(boxes, invoke, tmp_path):
    for name, flags in (("initial/delta", ("--log",)), ("halo_id", ("--axis", "x", "--place", "3"))):
        made = invoke("plot", boxes[0], name, tmp_path / f"{name.replace('/', '_')}.png", *flags)
        assert name in made.stdout
    assert len(list(tmp_path.iterdir())) == 2
    for name, flags, words in (("density", (), "initial/delta"), ("initial/delta", ("--place", "32"), "0 to 31"),
                               ("halo_id", ("--log",), "--log: halo_id has labels")):
        refused = invoke("plot", boxes[0], name, tmp_path / "no.png", *flags, check=False)
        assert refused.returncode == 2 and words in refused.stderr and not (tmp_path / "no.png").exists()
    assert invoke("plot", boxes[0], "halo_id", tmp_path / "no.txt", check=False).returncode == 2


def test_a_page_needs_nothing_else(boxes, invoke, tmp_path):
    pytest.importorskip("bokeh")
    made = invoke("view", boxes[0], "--with", boxes[0], "--output", tmp_path / "box.html")
    text = (tmp_path / "box.html").read_text(encoding="utf-8")
    assert "box.html" in made.stdout and "<script src" not in text and "mass function" in text
    again = invoke("view", boxes[0], "--output", tmp_path / "box.html", check=False)
    assert again.returncode == 1 and "--overwrite" in again.stderr
    other = tmp_path / "other.h5"
    kg.simulate(other, particles=16, boxsize=12.5, seed=1).close()
    refused = invoke("view", boxes[0], "--with", other, "--output", tmp_path / "no.html", check=False)
    assert refused.returncode == 1 and "12.5 Mpc/h" in refused.stderr and not (tmp_path / "no.html").exists()
    refused = invoke("view", boxes[0], "--port", "0", "--output", tmp_path / "no.html", check=False)
    assert refused.returncode == 2 and "are of the server" in refused.stderr and not (tmp_path / "no.html").exists()


def test_all_pictures_of_a_page_shrink_to_a_narrow_screen(boxes):
    pytest.importorskip("bokeh")
    from bokeh.document import Document
    from bokeh.models import CustomJS, Plot

    document = Document()
    view._fill(document, view._layout(boxes[0], boxes[1], live=False))
    shrink, = document.callbacks.js_event_callbacks["document_ready"]
    assert isinstance(shrink, CustomJS) and len(shrink.args["pictures"]) == 4  # two boxes, masses, spectra
    assert set(shrink.args["pictures"]) == set(document.roots[0].select({"type": Plot}))


def test_fields_on_other_grids_are_cut_by_their_own_cells(boxes, tmp_path, monkeypatch):
    pytest.importorskip("bokeh")
    from bokeh.models import Select

    finer = tmp_path / "finer.h5"
    shutil.copy(boxes[0], finer)
    with h5py.File(finer, "r+") as file:
        labels = file["halo_id"][...].repeat(2, 0).repeat(2, 1).repeat(2, 2)
        del file["halo_id"]
        file["halo_id"] = labels
    with kg.open(finer) as file:
        one = view._View(file, 25.0, live=True)
        one.choice.value = "initial/delta"
        controls = {name: SimpleNamespace(value=12.5, active=2 if name == "axis" else 0,
                                          on_change=lambda *given: None) for name in ("slider", "axis", "scale")}
        one.connect(controls, None)
        one.choice.value = "halo_id"
        expected = view.scaled(view.cut(labels, 2, 32), "halo_id", False)
        np.testing.assert_array_equal(one.source.data["image"][0], expected)
    made = view._layout(finer, None, live=False)
    callback = made.select_one({"type": Select}).js_property_callbacks["change:value"][0]
    assert callback.args["sizes"]["halo_id"] == 64 and callback.args["sizes"]["initial/delta"] == 32
    monkeypatch.setattr(view, "LARGEST", 60)
    with pytest.raises(kg.DataError, match="has 64 cells a side; a page holds at most 60"):
        view._layout(finer, None, live=False)


def test_slices_are_served_as_they_are_asked_for(boxes):
    pytest.importorskip("bokeh")
    from bokeh.client import pull_session
    from bokeh.models import ColumnDataSource, RadioButtonGroup, Slider
    from tornado.httpclient import HTTPRequest
    from tornado.websocket import websocket_connect

    seen = {}

    async def connect(address):
        """What the page's own script does, which says where the page is from."""
        await websocket_connect(HTTPRequest(f"ws{address.removeprefix('http')}ws", headers={"Origin": address[:-1]}),
                                subprotocols=["bokeh", "none"])

    def ask(server, address):
        try:
            asyncio.run(connect(address))
            seen["connected"] = True
            session = pull_session(url=address)
            document = session.document
            slider = next(iter(document.select({"type": Slider})))
            across = next(group for group in document.select({"type": RadioButtonGroup}) if "across x" in group.labels)
            across.active = 0
            slider.value = 10.0
            session.force_roundtrip()
            session.pull()
            document = session.document
            seen["images"] = [np.array(source.data["image"][0]) for source in document.select(
                {"type": ColumnDataSource}) if "image" in source.data]
            session.close()
        finally:
            server.io_loop.add_callback(server.io_loop.stop)

    view.serve(boxes[0], browser=False,
               started=lambda *given: threading.Thread(target=ask, args=given, daemon=True).start())
    assert seen["connected"]
    with kg.Simulation(boxes[0]) as box:
        np.testing.assert_allclose(seen["images"][0], box["initial/delta"][int(10 / 25 * 32)].T)


def test_a_sheet_goes_by_the_likelihood_ratio(tmp_path, invoke):
    pytest.importorskip("bokeh")
    from astropy.table import Table
    from bokeh.models import Title

    rng = np.random.default_rng(0)
    names = [f"galaxy {i}" for i in range(5)]
    imageset.write(tmp_path / "set.h5", id=names, image=rng.normal(size=(5, 8, 8)).astype("float32"), source="made up",
                   unit="nanomaggies")
    ratio = [3.0, -1.0, 9.0, 0.5, 2.0]
    Table({"id": names, "llr": ratio}).write(tmp_path / "scores.ecsv")
    sheet = view._layout(tmp_path / "set.h5", tmp_path / "scores.ecsv", live=True)
    titles = [title.text for title in sheet.select({"type": Title}) if title.text]
    assert sorted(titles) == sorted(f"{name} {value:.1f} nats" for name, value in zip(names, ratio))
    drawn = [picture.title.text for picture in sheet.children[1].children]
    assert drawn == [f"{names[i]} {ratio[i]:.1f} nats" for i in np.argsort(ratio)]
    write_table(tmp_path / "scores.csv", {"id": names, "llr": [3.0, np.nan, 9.0, 0.5, 2.0]})
    sheet = view._layout(tmp_path / "set.h5", tmp_path / "scores.csv", live=True)
    assert "5 images" in sheet.children[0].text and "without 1 that have none" in sheet.children[0].text
    assert [picture.title.text.split(" ")[1] for picture in sheet.children[1].children] == ["3", "4", "0", "2"]
    (tmp_path / "scores.odd").write_text("no table")
    with pytest.raises(kg.DataError, match="cannot be read as a table"):
        view._layout(tmp_path / "set.h5", tmp_path / "scores.odd", live=True)
    Table({"id": names[1:], "llr": ratio[1:]}).write(tmp_path / "few.ecsv")
    refused = invoke("view", tmp_path / "set.h5", "--with", tmp_path / "few.ecsv", "--output", tmp_path / "no.html",
                     check=False)
    assert refused.returncode == 1 and "galaxy 0" in refused.stderr
    assert view.figure_of(tmp_path / "set.h5", "galaxy 3").axes[0].get_title() == "galaxy 3"
    for options in ({"axis": "x"}, {"place": 3}):
        with pytest.raises(kg.SettingError, match=f"{next(iter(options))}=. is of the slice of a field"):
            view.figure_of(tmp_path / "set.h5", "galaxy 3", **options)


@pytest.mark.slow
def test_a_sheet_has_the_maps_of_a_scoring_beside_its_images(trained, galaxies, tmp_path, invoke):
    pytest.importorskip("bokeh")
    from bokeh.models.glyphs import Image

    images, maps = galaxies / "unseen_real.h5", tmp_path / "maps.h5"
    invoke("morph", "score", trained("morph"), images, "--output", tmp_path / "scores.csv", "--maps", maps)
    sheet = view._layout(images, maps, live=False)
    with h5py.File(maps) as file:
        ratio = file["log_p_real"][...].astype(float) - file["log_p_archetype"][...]
        names = file["id"].asstr()[...]
    first = int(np.argsort(ratio.sum(axis=(1, 2)))[0])
    picture = sheet.children[1].children[0]
    assert picture.title.text == f"{names[first]} {ratio[first].sum():.1f} nats"
    drawn = [one.data_source.data["image"][0] for one in picture.renderers if isinstance(one.glyph, Image)]
    np.testing.assert_allclose(drawn[1], ratio[first], atol=1e-4)
    with h5py.File(maps, "r+") as file:
        file["id"][0] = "another"
    refused = invoke("view", images, "--with", maps, "--output", tmp_path / "no.html", check=False)
    assert refused.returncode == 1 and "has no score of 1 of 20 images" in refused.stderr


def test_mass_functions_are_drawn_beside_each_other(boxes, invoke, tmp_path):
    made = invoke("plot", boxes[0], "mass_function", tmp_path / "n.png", "--with", boxes[1])
    assert "mass_function of" in made.stdout and (tmp_path / "n.png").stat().st_size > 5000
    with kg.Simulation(boxes[0]) as box:
        (mass, number, _), = view.mass_functions([box]).values()
        halos = len(box["halos/mass"])
    width = np.log10(mass[1] / mass[0])
    assert number.sum() * width * 25**3 == pytest.approx(halos, rel=1e-6)
    with h5py.File(shutil.copy(boxes[0], tmp_path / "bare.h5"), "r+") as file:
        del file["halos"]
    refused = invoke("plot", boxes[0], "mass_function", tmp_path / "no.png", "--with", tmp_path / "bare.h5",
                     check=False)
    assert refused.returncode == 1 and "bare.h5 has no haloes" in refused.stderr and not (tmp_path / "no.png").exists()
    for flags in (["--log"], ["--axis", "x"]):
        refused = invoke("plot", boxes[0], "mass_function", tmp_path / "no.png", *flags, check=False)
        words = f"{flags[0]} is of the slice of a field, and mass_function is none"
        assert refused.returncode == 2 and words in " ".join(refused.stderr.split())


def test_no_product_takes_the_place_of_what_it_is_made_of(boxes, trained, tmp_path, invoke, monkeypatch):
    box = shutil.copy(boxes[2], tmp_path / "box.h5")
    before = box.read_bytes()
    for words in (["extract", box, "halos", box], ["view", box, "--output", box],
                  ["protohalo", "predict", trained("protohalo"), box, "--output", box]):
        done = invoke(*words, "--overwrite", check=False)
        assert done.returncode == 2 and ("is what is read" in done.stderr or "HTML file" in done.stderr), done.stderr
    assert box.read_bytes() == before
    monkeypatch.chdir(tmp_path)
    invoke("plot", "./box.h5", "mass_function", "masses.png")


def test_words_of_a_file_are_words_on_the_page(tmp_path):
    pytest.importorskip("bokeh")
    from bokeh.models import Div

    rng = np.random.default_rng(0)
    imageset.write(tmp_path / "set.h5", id=["one"], image=rng.normal(size=(1, 8, 8, 2)).astype("float32"),
                   source="made up", unit="nanomaggies", bands="<b>g,r")
    sheet = view._layout(tmp_path / "set.h5", None, live=False)
    assert "&lt;b&gt;g, r" in sheet.select_one({"type": Div}).text
