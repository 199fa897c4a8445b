"""What the reference of the Python API lists has parameters, results and examples, and the examples run."""

import doctest
import inspect
import logging
import pydoc
import re
from pathlib import Path

import pytest
from numpydoc.validate import Validator, validate

import kerasgal

PAGES = sorted((Path(__file__).parents[1] / "docs" / "api").glob("*.md"))
DIRECTIVE = re.compile(r"\.\. auto(?:function|class|exception):: (\S+)\n((?:   .*\n)*)")
# Of numpydoc: a parameter without description, one that there is not, a result or what is yielded without any.
CODES = {"PR01", "PR02", "RT01", "YD01"}


def listed():
    """{name: names of its members} of all that the pages of the reference show."""
    found = {}
    for page in PAGES:
        for name, options in DIRECTIVE.findall(page.read_text()):
            members = re.search(r":members:((?:.*\n)(?:      +[^:].*\n)*)", options)
            found[name] = re.findall(r"\w+", members[1]) if members else []
    return found


LISTED = listed()
MEMBERS = [f"{name}.{member}" for name, members in LISTED.items() for member in members]


def object_called(name):
    return Validator._load_obj(name)


def takes_something(method):
    return not isinstance(method, property) and set(inspect.signature(method).parameters) - {"self"} != set()


class Printing(logging.Handler):
    """Shows what kerasgal says as a notebook does: information in the output, which doctest compares."""

    def emit(self, record):
        if record.levelno < logging.WARNING:
            print(record.getMessage())


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    handler = Printing()
    logging.getLogger("kerasgal").addHandler(handler)
    yield
    logging.getLogger("kerasgal").removeHandler(handler)


def test_help_and_a_star_show_the_front_door():
    shown = pydoc.plain(pydoc.render_doc(kerasgal))
    for name in ("load", "train", "simulate", "Simulation", "ImageSet", "DomainError", "Protohalo", "HaloMass",
                 "Cascade", "Diffusion", "Morph"):
        assert re.search(rf"^    (class )?{name}[ (]", shown, flags=re.MULTILINE), name
    assert set(kerasgal.__all__) == set(dir(kerasgal)) - {"__version__", "apps"}


def test_the_reference_lists_what_the_front_door_has():
    missing = [name for name in dir(kerasgal) if f"kerasgal.{name}" not in LISTED]
    assert missing == ["__version__", "apps"]
    assert len(LISTED) > 80 and len(MEMBERS) > 40


@pytest.mark.parametrize("name", LISTED)
def test_the_examples_of_what_is_public_run(name, notebook):
    item = object_called(name)
    found = doctest.DocTestFinder(recurse=False).find(item, name, globs={})
    # Of the kinds of errors the first one has an example of all; predictions stand in those of their runs.
    exempt = inspect.isclass(item) and issubclass(item, BaseException | kerasgal.Prediction)
    assert exempt or "Examples" in inspect.getdoc(item)
    runner = doctest.DocTestRunner(verbose=False)
    said = []
    for test in found:
        runner.run(test, out=said.append, clear_globs=True)
    assert not runner.failures, "".join(said)


@pytest.mark.parametrize("name", [*LISTED, *MEMBERS])
def test_what_is_public_says_what_it_takes_and_gives(name):
    item = object_called(name)
    if inspect.isclass(item) or name in MEMBERS and not takes_something(item):
        assert inspect.getdoc(item)
        return
    assert {code: text for code, text in validate(name)["errors"] if code in CODES} == {}
