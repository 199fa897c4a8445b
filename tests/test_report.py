"""The report of an evaluation: read back with the standard library's parser, and by a browser where there is one."""

import csv
import html.parser
import io
import json
import shutil
import subprocess
from types import SimpleNamespace

import pytest

import kerasgal as kg
from kerasgal import networks, registry, report
from kerasgal.commands.base import print_table
from kerasgal.errors import ExistsError, SettingError
from kerasgal.plotting import figure
from kerasgal.run import Evaluation
from kerasgal.training import TrainingConfig

METRICS = {
    "simulations": ["a.h5", "<b>.h5"], "loss": 0.57123456, "loss_per_simulation": [0.5, 0.64], "notes": ["a & b"],
    "adaptive": {"dice": 0.74, "residual": [0.1, None, -0.2]}, "native": {"dice": 0.73, "residual": [0.3, 0.1, 0.0]},
    "runs": {"raw": {"r": 0.75, "coverage": {"0.68": 0.7}, "rows": [{"n": 3, "median": 0.1}, {"n": 4}]}},
    "k": [0.5, 1.0, 2.0], "empty": [], "nothing": {},
}


class Page(html.parser.HTMLParser):
    """Tables, images and text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.images, self.scripts, self.outside, self.inside = [], [], 0, [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.outside += [attributes[name] for name in ("src", "href") if name in attributes
                         and not attributes[name].startswith("data:")]
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag == "img":
            self.images.append(attributes["src"])
        self.inside = tag

    def handle_data(self, data):
        if self.inside in ("td", "button"):
            self.tables[-1][-1][-1] += data

    def handle_endtag(self, tag):
        self.inside = None


def drawn():
    drawing, axes = figure()
    axes.plot([0, 1])
    return {"mass_function": drawing}


@pytest.fixture
def folder(tmp_path):
    Evaluation(METRICS, ["loss 0.571"], drawn).save(tmp_path / "e", command="kerasgal protohalo evaluate run <b>.h5")
    return tmp_path / "e"


def test_a_wide_figure_is_scrolled_on_a_narrow_screen(tmp_path):
    def draw():
        return {"wide": figure(4)[0], "square": figure()[0]}

    Evaluation({"loss": 0.5}, ["loss"], draw).save(tmp_path / "e")
    text = (tmp_path / "e" / "report.html").read_text()
    assert text.count('<figure class="wide"><div><img alt="wide"') == 1 and '<figure><div><img alt="square"' in text


def test_a_network_is_called_by_its_name_and_a_run_by_its_folder(tmp_path):
    network = kg.load("halomass-dipole")
    text = report.html(Evaluation({"loss": 0.5}, ["loss"], run=network), {})
    assert "<h1>halomass: halomass-dipole</h1>" in text
    assert report.about(network)["next"] == [
        "kerasgal halomass predict halomass-dipole INPUT", "kerasgal halomass summary halomass-dipole",
        "kerasgal halomass export halomass-dipole --output FOLDER"]
    folder = shutil.copytree(network.folder, tmp_path / "mine")
    assert report.about(kg.load(folder))["next"][0] == f"kerasgal halomass predict {folder} INPUT"


def test_a_report_says_what_not_to_conclude_in_the_words_of_the_card_or_of_the_app(tmp_path):
    network = kg.load("halomass-dipole")
    said = networks.card("halomass-dipole").partition("## What not to conclude")[2].strip()
    text = report.html(Evaluation({"loss": 0.5}, ["loss"], run=network), {})
    assert f"<h2>What not to conclude</h2>\n<p>{said}</p>" in html.unescape(text)
    copy = kg.load(shutil.copytree(network.folder, tmp_path / "mine"))
    mine = report.html(Evaluation({"loss": 0.5}, ["loss"], run=copy), {})
    assert "<p>Not what the density determines" in mine and "<code>ceiling</code>" in mine
    assert "What not to conclude" not in report.html(Evaluation({"loss": 0.5}, ["loss"]), {})
    assert all(len(registry.run_class(app).limits) > 100 for app in registry.places())


def test_the_page_has_every_table_and_figure_and_needs_nothing_else(folder):
    text = (folder / "report.html").read_text()
    page = Page(text)
    assert not page.outside and len(page.images) == 1 and page.images[0].startswith("data:image/png;base64,")
    assert ["loss", "0.5712"] in page.tables[0]
    methods = next(table for table in page.tables if table[0] == ["name", "dice"])
    assert methods[1:] == [["adaptive", "0.74"], ["native", "0.73"]]
    runs = next(table for table in page.tables if "coverage 0.68" in table[0])
    assert runs == [["name", "r", "coverage 0.68"], ["raw", "0.75", "0.7"]]
    assert [["n", "median"], ["3", "0.1"], ["4", "–"]] in page.tables
    assert [["simulations", "loss per simulation"], ["a.h5", "0.5"], ["<b>.h5", "0.64"]] in page.tables
    assert "&lt;b&gt;.h5" in text and "<b>" not in text and "<li>a &amp; b</li>" in text


@pytest.mark.parametrize("figures, start", [("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_figures_are_files_of_the_format_that_was_asked_for(figures, start, tmp_path):
    Evaluation(METRICS, ["loss 0.571"], drawn).save(tmp_path, figures=figures)
    assert (tmp_path / f"mass_function.{figures}").read_bytes().startswith(start)
    assert not list(tmp_path.glob("*.png"))
    page = Page((tmp_path / "report.html").read_text())
    assert page.images[0].startswith("data:image/png;base64,")


def test_figures_of_the_evaluation_that_is_replaced_go_and_nothing_else_does(tmp_path):
    def others():
        return {"power_&_phase": figure()[0]}

    Evaluation(METRICS, ["loss 0.571"], lambda: drawn() | others()).save(tmp_path)
    (tmp_path / "mine.png").write_bytes(b"")
    Evaluation(METRICS, ["loss 0.571"], drawn).save(tmp_path, overwrite=True)
    assert {path.name for path in tmp_path.glob("*.png")} == {"mass_function.png", "mine.png"}
    Evaluation(METRICS, ["loss 0.571"], drawn).save(tmp_path, overwrite=True, figures="svg")
    assert {path.name for path in tmp_path.glob("*.png")} == {"mine.png"}
    assert (tmp_path / "mass_function.svg").exists()


def test_an_evaluation_that_cannot_be_written_does_not_pass_for_the_one_before(tmp_path, monkeypatch):
    Evaluation(METRICS, ["loss 0.571"], drawn).save(tmp_path)
    monkeypatch.setattr(report, "html", lambda *given, **options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        Evaluation(METRICS, ["loss 0.571"], drawn).save(tmp_path, overwrite=True)
    assert not (tmp_path / "metrics.json").exists()


def test_another_format_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(SettingError, match="figures='gif' is no format of figures"):
        Evaluation(METRICS, ["loss 0.571"], drawn).save(tmp_path / "e", figures="gif")
    assert not (tmp_path / "e").exists()


def test_every_number_is_in_the_csv(folder):
    rows = list(csv.reader(io.StringIO((folder / "metrics.csv").read_text())))
    assert rows[0] == ["name", "value"] and ["adaptive.residual.1", ""] in rows and ["k.2", "2.0"] in rows

    def count(value):
        if isinstance(value, dict | list):
            return sum(count(inner) for inner in (value.values() if isinstance(value, dict) else value))
        return 1

    assert len(rows) - 1 == count(json.loads((folder / "metrics.json").read_text()))


def test_a_browser_sorts_the_tables_and_finds_no_error(folder):
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not browser:
        pytest.skip("no Chromium here")
    page = folder / "report.html"
    click = "<script>document.querySelectorAll('th button').forEach(b => { b.click(); b.click(); }); " \
        "document.title = 'sorted ' + [...document.images].every(i => i.naturalWidth > 0);</script></body>"
    page.write_text(page.read_text().replace("</body>", click))
    seen = subprocess.run([browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", page.as_uri()],
                          capture_output=True, text=True, timeout=120)
    assert "<title>sorted true</title>" in seen.stdout and "Uncaught" not in seen.stderr


def test_names_of_numbers_are_read_from_within():
    assert dict(report.flat({"a": [{"b": 1}, 2]})) == {"a.0.b": 1, "a.1": 2}


def test_words_of_a_domain_are_no_range():
    run = SimpleNamespace(config=TrainingConfig(), folder=None, app="protohalo",
                          domain={"finder": ["fof", "hop"], "boxsize": [25.0, 50.0]})
    assert report.about(run)["domain"] == {"finder": "fof or hop", "boxsize [Mpc/h]": "25 to 50"}


def test_files_that_an_evaluation_would_replace_are_kept(tmp_path):
    made = Evaluation({"loss": 1.0}, ["loss 1"], lambda: {"loss": figure()[0]})
    (tmp_path / "loss.png").write_bytes(b"mine")
    with pytest.raises(ExistsError, match="loss.png exists already"):
        made.save(tmp_path)
    assert (tmp_path / "loss.png").read_bytes() == b"mine" and len(list(tmp_path.iterdir())) == 1


def test_brackets_are_no_markup(capsys):
    print_table("[a]", [("columns", "ra [deg], dec [deg]")])
    assert "[a]" in (said := capsys.readouterr().out) and "ra [deg], dec [deg]" in said
