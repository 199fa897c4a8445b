"""Figures of morph: numbers on every axis, and colour bars."""

import numpy as np
import pytest

from kerasgal.apps.morph import figures


def test_the_distribution_of_ratios_is_in_per_cent_of_the_images():
    rng = np.random.default_rng(0)
    axis, = figures.ratios({"observed": rng.normal(size=50), "mocks": rng.normal(1, 1, 2000)}).axes
    assert axis.get_ylabel() == "share of images [%]" and len(axis.get_yticks()) > 2
    for patch in axis.patches:
        heights = patch.get_xy()[1:-1:2, 1]
        assert heights.sum() == pytest.approx(100, abs=3)  # what is farther out than 99 per cent is not drawn
    assert [text.get_text() for text in axis.get_legend().get_texts()][-1] == "medians"


def test_maps_of_all_images_have_one_scale_and_colour_bars():
    rng = np.random.default_rng(0)
    images, real, archetype = rng.uniform(size=(3, 2, 8, 8))
    drawing = figures.contributions({"observed": (images, real, archetype), "mocks": (images, 3 * real, archetype)})
    panels = np.array(drawing.axes[:12]).reshape(2, 6)
    for column in (1, 2):
        scales = {panel.images[0].get_clim() for panel in panels[:, column::3].ravel()}
        assert len(scales) == 1
    assert [axis.get_ylabel() for axis in drawing.axes[12:]] == ["ln p of a pixel [nats]", "LLR of a pixel [nats]"]
