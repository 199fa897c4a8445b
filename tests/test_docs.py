"""Commands, options and functions that the pages name exist; the cheap ones run, and so does the example of an app."""

import ast
import importlib
import json
import re
import shlex
from pathlib import Path

import click
import numpy as np
import pytest

import kerasgal.apps
from kerasgal.cli import main

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "data").glob("*.md")),
         *sorted(path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts)]
SMALL = {"simulate": ["--particles", "16", "--boxsize", "12.5", "--realisations", "2"], "info": [], "extract": [],
         "summary": ["--preset", "demo"]}


def blocks(text):
    """Lines of code of a page: indented, or between fences; those that end in a backslash joined with the next."""
    fenced, lines = False, []
    for line in text.replace("\\\n", " ").splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            lines.append(line.strip().removeprefix("!"))
    return lines


def commands(text):
    """The words of each command `kerasgal ...` in a page's code, without the first, and without where it is sent to."""
    split = [shlex.split(line.partition(" > ")[0], comments=True) for line in blocks(text)
             if re.match("kerasgal [a-z-]", line)]
    return [words[1:] for words in split]


def mentions(text):
    """The words of commands that stand in running text, such as `kerasgal info FILE`, without the first."""
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return [mention.split() for mention in re.findall(r"`kerasgal\s([a-z][^`]*)`", prose)]


def descend(words):
    """The command that words name, and the words left for it; a group where they end before a command."""
    command = main
    while isinstance(command, click.Group) and words and re.fullmatch("[a-z]+", words[0]):
        name, *words = words
        child = command.get_command(click.Context(command), name)
        assert child is not None, f"there is no command {name!r} in {command.name}"
        command = child
    return command, words


APP_OF = {"sether": "cascade"}  # of papers that have not given an app its name


def named_functions(page, text):
    """(module's file, name) of each function or class that a page of a paper names, such as `losses.Cauchy`."""
    for core, module, name in re.findall(r"`(kerasgal\.)?(\w+)\.(\w+)`", text):
        if module != "apps":
            app = APP_OF.get(page.stem, page.stem)
            yield (ROOT / "kerasgal" if core else ROOT / "apps" / app) / f"{module}.py", name


def each(find):
    return [pytest.param(words, id=f"{page.relative_to(ROOT)}: {' '.join(words)}"[:90])
            for page in PAGES for words in find(page.read_text())]


@pytest.fixture
def example(monkeypatch):
    """The example app, where kerasgal looks for apps."""
    monkeypatch.setattr(kerasgal.apps, "__path__", [*kerasgal.apps.__path__, str(ROOT / "docs" / "example")])
    importlib.invalidate_caches()


@pytest.mark.parametrize("words", each(commands))
def test_a_command_in_a_page_is_one(words, example):
    command, rest = descend(words)
    if rest in (["--help"], ["--version"]):
        return
    assert not isinstance(command, click.Group), f"{command.name} is no command"
    try:
        command.make_context(words[0], rest)  # checks options, choices, ranges and what is required; runs nothing
    except click.UsageError as error:
        pytest.fail(error.format_message())


@pytest.mark.parametrize("words", each(mentions))
def test_a_command_in_running_text_exists(words, example):
    command, rest = descend(words)
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    unknown = [word for word in rest if word.startswith("--") and word not in known | {"--help", "--version"}]
    assert not unknown


def scripts(text):
    """The words of each `python tests/benchmarks/NAME.py ...` in the code or in the text of a page, from NAME.py on."""
    joined = text.replace("\\\n", " ")
    found = [line for line in blocks(joined) if "tests/benchmarks/" in line]
    found += [mention for mention in re.findall(r"`([^`]*)`", re.sub(r"```.*?```", "", joined, flags=re.DOTALL))
              if re.match(r"(\w+=\S+ )*python\s+tests/benchmarks/", mention)]
    return [line.partition("tests/benchmarks/")[2].split() for line in found]


@pytest.mark.parametrize("words", each(scripts))
def test_a_script_that_a_page_names_exists_and_has_the_options(words):
    script = (ROOT / "tests" / "benchmarks" / words[0]).read_text()
    assert not [word for word in words if word.startswith("--") and f'"{word}"' not in script]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_what_a_page_makes_is_a_target(page):
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    text = page.read_text()
    named = {line.split()[1] for line in blocks(text) if re.match(r"make [a-z]", line)}
    named |= set(re.findall(r"`make\s([a-z-]+)[^`]*`", text))
    assert named <= targets


@pytest.mark.parametrize("page", [page for page in PAGES if "simulate" in page.read_text()],
                         ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_cheap_commands_of_a_page_run(page, invoke, tmp_path, monkeypatch):
    """In their order: what simulates does so on a small grid, summaries are of the demo, the rest is left out."""
    monkeypatch.chdir(tmp_path)
    for words in commands(page.read_text()):
        if words[0] in ("info", "extract") and not Path(words[1]).exists() or "--twin-of" in words:
            continue  # of a file that another command would have made
        if "--dask" in words:
            continue  # needs an optional package
        if words[0] in ("simulate", "info", "extract") or words[1:2] == ["summary"]:
            invoke(*words, *SMALL[words[words[1:2] == ["summary"]]])


def test_the_recipes_for_small_public_files_run(shared_data, invoke, tmp_path, monkeypatch):
    """Those that name files which are among the public sample data."""
    for path in (shared_data / "arepo_L50n32").iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "imfit").symlink_to(shared_data / "imfit_sdss")
    monkeypatch.chdir(tmp_path)
    said = [invoke(*words).stdout for page in ("README.md", "sdss.md")
            for words in commands((ROOT / "data" / page).read_text())
            if {"arepo.h5", "few.h5"} & set(words)]
    assert len(said) == 3 and "61 haloes" in said[0] and "4.16e+14" in said[1] and "3 Sersic archetypes" in said[2]


def test_the_pages_have_what_is_tested_here():
    """That the patterns above still find something."""
    found = {page.relative_to(ROOT).as_posix(): commands(page.read_text()) for page in PAGES}
    assert len(found["README.md"]) >= 5 and len(found["docs/quickstart.md"]) >= 5
    tutorials = ("thirty_seconds", "protohalo", "halomass", "cascade", "diffusion", "morph")
    assert all(len(found[f"docs/tutorials/{name}.md"]) >= 3 for name in tutorials)


@pytest.mark.parametrize("page", [page for page in PAGES if "import kerasgal as kg" in page.read_text()],
                         ids=lambda page: page.relative_to(ROOT).as_posix())
def test_python_in_a_page_is_python_and_names_what_there_is(page, example):
    text = page.read_text()
    for code in re.findall(r"```(?:python|\{code-cell\} python)\n(?:---\n.*?---\n)?(.*?)```", text, flags=re.DOTALL):
        ast.parse(code)
    assert all(hasattr(kerasgal, name) for name in re.findall(r"\bkg\.([A-Za-z_]+)", text))


@pytest.fixture
def notebooks(monkeypatch):
    """The script that writes the tutorials as notebooks."""
    monkeypatch.syspath_prepend(ROOT / "docs")
    return importlib.import_module("notebooks")


def test_the_notebooks_have_the_code_of_their_pages(tmp_path, notebooks):
    written = notebooks.write(tmp_path, outputs=False)
    assert {path.stem for path in written} == {"python", "thirty_seconds", "protohalo", "halomass", "cascade",
                                               "diffusion", "morph"}
    for path, page in zip(written, notebooks.PAGES, strict=True):
        cells = json.loads(path.read_text())["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        assert len(code) == page.read_text().count("{code-cell}")
        assert all(source.rstrip() in page.read_text() for source in code)
        # Links within the site lead nowhere from a notebook
        assert not [cell for cell in cells if ".md)" in "".join(cell["source"])]


def test_a_notebook_is_written_with_its_outputs(tmp_path, notebooks, monkeypatch, capsys):
    for needed in ("nbclient", "ipykernel", "nbformat"):
        pytest.importorskip(needed)
    page = tmp_path / "small.md"
    page.write_text("---\nfile_format: mystnb\nkernelspec:\n  name: python3\n  display_name: P\n---\n\n# Small\n\n"
                    "```{code-cell} python\nimport sys\n\nprint('bar', file=sys.stderr)\n"
                    "open('left.txt', 'w').close()\n6 * 7\n```\n")
    monkeypatch.setattr(notebooks, "PAGES", [page])
    path, = notebooks.write(tmp_path / "made")
    [_, code] = json.loads(path.read_text())["cells"]
    [output] = code["outputs"]
    assert output["data"] == {"text/plain": ["42"]} and code["execution_count"] == 1
    assert "small.ipynb: ran in" in capsys.readouterr().out
    assert sorted(file.name for file in tmp_path.rglob("*.*")) == ["small.ipynb", "small.md"]
    with pytest.raises(ValueError, match="no page called smal; there are small"):
        notebooks.write(tmp_path, ["smal"])


PAPERS = sorted((ROOT / "docs" / "papers").glob("*.md"))


@pytest.mark.parametrize("page", PAPERS, ids=lambda page: page.stem)
def test_the_functions_that_a_page_of_a_paper_names_exist(page):
    named = list(named_functions(page, page.read_text()))
    assert named
    for file, name in named:
        defined = {node.name for node in ast.parse(file.read_text()).body if hasattr(node, "name")}
        assert name in defined, f"{file.relative_to(ROOT)} has no {name}"


def test_links_of_the_readme_lead_somewhere():
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / "README.md").read_text())
    assert all(link.startswith("http") or (ROOT / link).exists() for link in links), links


@pytest.mark.slow
def test_the_example_app_trains_resumes_predicts_evaluates_and_exports(example, invoke, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    invoke("simulate", "box.h5", "--particles", 16, "--boxsize", 12.5, "--realisations", 3, "--seed", 7)
    boxes = [f"box_{number}.h5" for number in range(3)]
    train = ("meandensity", "train", *boxes[:2], "--preset", "demo", "--batch", 64, "--steps-per-epoch", 25,
             "--run", "run")
    assert "loss in run/loss.png" in invoke(*train).stdout
    # the initial density of a cube says most of what its mean becomes: a network that learnt nothing has r = 0
    said = invoke("meandensity", "evaluate", "run", boxes[2]).stdout
    assert float(re.search(r"r = (-?[\d.]+)", said)[1]) > 0.5
    refused = invoke("meandensity", "evaluate", "run", boxes[0], "--overwrite", check=False)
    assert refused.returncode == 1 and "was used in the training" in refused.stderr
    assert "trainable parameters" in invoke("meandensity", "summary", "run").stdout
    invoke("meandensity", "predict", "run", boxes[2], "--output", "cubes.h5")
    invoke("meandensity", "export", "run")
    invoke("meandensity", "train", "--run", "run", "--resume", "--epochs", 3)
    assert len((tmp_path / "run" / "history.csv").read_text().splitlines()) == 4

    import kerasgal as kg

    run = kg.load("run")
    with kg.open("cubes.h5") as file:
        assert file["predicted"].shape == (16**3,) and file.header["app"] == "meandensity"
    assert run.evaluate(boxes[2])["r"][0] > 0.5
    assert json.loads((tmp_path / "run" / "saved_model" / "kerasgal.json").read_text())["app"] == "meandensity"


def test_the_example_app_is_at_most_110_lines():
    files = (ROOT / "docs" / "example" / "meandensity").glob("*.py")
    assert sum(len(file.read_text().splitlines()) for file in files) <= 110


def test_the_target_of_the_example_app_is_the_mean_of_each_cube(example, boxes):
    from kerasgal.grid import density_contrast
    from kerasgal.simulation import Simulation

    data = importlib.import_module("kerasgal.apps.meandensity.data")
    _, target = data.load(boxes[0], patch=8)
    with Simulation(boxes[0]) as simulation:
        density = 1 + density_contrast(simulation["final/position"][...], simulation.gridsize, simulation.boxsize)
    for corner in ((0, 0, 0), (3, 17, 30), (31, 31, 31)):
        cube = np.roll(density, [-index for index in corner], axis=(0, 1, 2))[:8, :8, :8]
        index = np.ravel_multi_index(corner, density.shape)
        assert target[index, 0] == pytest.approx(np.log(cube.mean(dtype=float)), abs=1e-4)
