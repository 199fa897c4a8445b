"""Figures as notebooks and files need them."""

import importlib.util
import io

import numpy as np
import pytest
from matplotlib import image
from rich.console import Console

from kerasgal import plotting
from kerasgal.run_folder import write_history


def test_a_notebook_shows_a_figure_without_pyplot():
    drawing, axes = plotting.figure(2, width=3, height=2)
    axes[0].plot([0, 1])
    # What IPython asks an object for, where nothing is registered for its class
    shown = image.imread(io.BytesIO(drawing._repr_png_()), format="png")
    assert shown.shape[:2] == (200, 600) and np.ptp(shown[..., :3]) == 1  # 100 dots an inch, black on white


def test_the_best_epoch_is_marked_in_the_loss_curve():
    history = [{"epoch": epoch, "loss": 1 / epoch, "val_loss": abs(epoch - 3) + 1} for epoch in range(1, 6)]
    axis, = plotting.loss_curve(history, best=3).axes
    labels = [text.get_text() for text in axis.get_legend().get_texts()]
    assert labels == ["training", "validation", "best, epoch 3"]
    assert axis.lines[-1].get_xydata().tolist() == [[3, 1]]
    assert all(tick == int(tick) for tick in axis.get_xticks())


def test_the_losses_of_several_runs_stand_in_one_figure(tmp_path, invoke):
    def history(folder, *losses, validated=True):
        folder.mkdir(parents=True)
        write_history([{"epoch": epoch, "loss": loss, **({"val_loss": loss + 1} if validated else {})}
                       for epoch, loss in enumerate(losses, start=1)], folder)

    history(tmp_path / "fast", 3.0, 1.0)
    history(tmp_path / "slow", 3.0, 2.0, validated=False)
    history(tmp_path / "two" / "classify", 0.5)
    history(tmp_path / "two" / "regress", 0.6)
    axis, = plotting.loss_curves([tmp_path / name for name in ("fast", "slow", "two")]).axes
    labels = [text.get_text() for text in axis.get_legend().get_texts()]
    assert labels == ["fast", "slow, training", "two, classify", "two, regress"]
    assert axis.lines[1].get_xydata().tolist() == [[1, 4], [2, 2]]
    assert axis.lines[2].get_xydata().tolist() == [[1, 3], [2, 2]]
    made = invoke("plot", tmp_path / "fast", "loss", tmp_path / "out.png", "--with", tmp_path / "slow")
    assert "out.png: loss of" in made.stdout and (tmp_path / "out.png").stat().st_size > 5000
    (tmp_path / "empty").mkdir()
    for words, code, *given in (("has no history of an epoch", 1, tmp_path / "empty", "loss"),
                                ("of a run folder `loss` can be drawn", 2, tmp_path / "fast", "accuracy"),
                                ("a run is given twice", 1, tmp_path / "fast", "loss", "--with", tmp_path / "fast"),
                                ("is no run folder", 2, tmp_path / "out.png", "loss", "--with", tmp_path / "fast")):
        done = invoke("plot", *given[:2], tmp_path / "no.png", *given[2:], check=False)
        assert done.returncode == code and words in " ".join(done.stderr.split()), done.stderr
    assert not (tmp_path / "no.png").exists()


@pytest.mark.parametrize("installed", [True, False])
def test_a_notebook_without_ipywidgets_has_no_bar(installed, monkeypatch):
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if installed else None)
    assert plotting.progress_bar().disable is not installed


def test_what_has_no_known_end_is_counted_with_its_rate(monkeypatch):
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    monkeypatch.setattr("rich.console.Console", lambda **_: console)
    clock = iter([0.0, 2.0, 4.0])
    monkeypatch.setattr(plotting.time, "monotonic", lambda: next(clock, 4.0))
    with plotting.counted("scored") as add:
        add(500)
        add(700)
    assert "scored: 1,200, 300.0 a second" in console.file.getvalue()
