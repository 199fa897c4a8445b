"""Figures as notebooks and files need them."""

import importlib.util
import io

import numpy as np
import pytest
from matplotlib import image

from kerasgal import plotting


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


@pytest.mark.parametrize("installed", [True, False])
def test_a_notebook_without_ipywidgets_has_no_bar(installed, monkeypatch):
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if installed else None)
    assert plotting.progress_bar().disable is not installed
