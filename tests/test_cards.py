"""Cards of the networks that come with the package: what must stand on one, that its commands are commands, and that
what it says comes back."""

import importlib
import re
import shlex
import sys
from pathlib import Path

import click
import pytest

import kerasgal as kg
from kerasgal import networks, run_folder
from kerasgal.cli import main

NAMES = sorted(networks.registry())
SAID = {"boxes": ("cells", "cosmology", "haloes"), "images": ("images",)}


def commands(card):
    """The words of the commands on a card, without `kerasgal`."""
    return [shlex.split(line)[1:] for line in card.splitlines() if line.startswith("    kerasgal ")]


def rows(card):
    """{first cell of a table's row: the others}."""
    lines = [line.strip("|").split("|") for line in card.splitlines() if line.startswith("|")]
    return {first.strip(): [cell.strip() for cell in others] for first, *others in lines}


def seeds_of(words):
    """The seeds of what a `simulate` makes."""
    given = dict(zip(words, words[1:]))
    first = int(given["--seed"])
    return range(first, first + int(given.get("--realisations", 1)))


@pytest.mark.parametrize("name", NAMES)
def test_a_card_says_what_it_is_of_and_how_it_was_measured(name):
    card, entry = networks.card(name), networks.registry()[name]
    table = rows(card)
    kind = "images" if entry["app"] == "morph" else "boxes"
    for what in ("app", "parameters", "trained on", "licence", *SAID[kind]):
        assert table[what][0], f"{name} does not say its {what}"
    assert entry["licence"] == table["licence"][0] and entry["app"] in table["app"][0]
    assert {what: table[what][0] for what in entry["figures"]} == entry["figures"]
    assert re.findall("^## (.*)", card, flags=re.MULTILINE)[1:] == ["What not to conclude"]
    assert "never saw" in card and len(card.rpartition("## What not to conclude")[2]) > 100


@pytest.mark.parametrize("name", NAMES)
def test_the_commands_on_a_card_are_commands_and_end_in_its_evaluation(name):
    found = commands(networks.card(name))
    for words in found:
        try:
            command, rest = main, words
            while isinstance(command, click.Group):
                _, command, rest = command.resolve_command(click.Context(command), rest)
            command.make_context(words[0], rest)  # checks options and what is required; runs nothing
        except click.UsageError as error:
            pytest.fail(f"{name}: {' '.join(words)}: {error.format_message()}")
    assert found[-1][found[-1].index("evaluate") + 1] == name


@pytest.mark.parametrize("name", NAMES)
def test_a_card_is_measured_on_seeds_that_the_network_never_saw(name):
    run = networks.folder_of(name)
    seen = set()
    for place in {path.parent for path in run.rglob(run_folder.PROVENANCE)}:
        seen |= {int(seed) for data in run_folder.recorded_data(place) for told in data
                 for seed in re.findall(r"seed (\d+)", told)}
    measured = {seed for words in commands(networks.card(name)) if "simulate" in words for seed in seeds_of(words)}
    assert seen and measured and not seen & measured


def test_what_is_not_to_be_concluded_is_what_make_models_would_write(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "data")
    monkeypatch.delitem(sys.modules, "networks", raising=False)
    written = {entry["name"]: entry["limits"].strip() for entry in importlib.import_module("networks").SHIPPED}
    assert written == {name: networks.limits_of(networks.folder_of(name)) for name in NAMES}


def test_what_the_card_of_a_cheap_network_says_comes_back_within_the_errors_of_one_box():
    box = kg.simulate(particles=64, boxsize=50, seed=1001)
    card = networks.registry()["halomass-dipole"]["figures"]
    mean, error = map(float, card["r"].split(" +- "))
    [row] = kg.load("halomass-dipole").evaluate(box, sample=2000)["runs"].values()
    assert row["r"] == pytest.approx(mean, abs=3 * 2 * error)  # that of four boxes is half of one's
