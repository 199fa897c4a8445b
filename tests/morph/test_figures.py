"""Figures of morph: numbers on every axis, and colour bars."""

import numpy as np
import pytest

from kerasgal.apps.morph import figures


def test_the_distribution_of_ratios_is_in_per_cent_of_the_images():
    rng = np.random.default_rng(0)
    drawing = figures.ratios({"observed": rng.normal(size=50), "mocks": rng.normal(1, 1, 2000)})
    axis, = drawing.axes
    assert axis.get_ylabel() == "share of images [%]" and len(axis.get_yticks()) > 2
    for patch in axis.patches:
        heights = patch.get_xy()[1:-1:2, 1]
        assert heights.sum() == pytest.approx(100)  # what is far out stands in the bins at the ends
    assert [text.get_text() for text in drawing.legends[0].get_texts()][-1] == "medians"


def test_one_image_far_from_all_others_does_not_press_them_into_a_bin():
    values = np.append(np.random.default_rng(0).normal(size=999), 1e4)
    drawing = figures.ratios({"observed": values}, {"observed": ": median 0 $\\pm$ 1"})
    axis, = drawing.axes
    heights = axis.patches[0].get_xy()[1:-1:2, 1]
    assert (heights > 0).sum() == 39 and heights.max() < 10 and heights.sum() == pytest.approx(100)
    assert drawing.legends[0].get_texts()[0].get_text() == "observed: median 0 $\\pm$ 1"


def test_maps_of_all_images_have_one_scale_and_colour_bars():
    rng = np.random.default_rng(0)
    images, real, archetype = rng.uniform(size=(3, 2, 8, 8))
    galaxy = np.zeros((2, 8, 8), bool)
    galaxy[0, 2:5, 3:6] = True  # of the second image no pixel is the galaxy's
    drawing = figures.contributions({"observed": (images, real, archetype, galaxy),
                                     "mocks": (images, 3 * real, archetype, galaxy)})
    panels = np.array(drawing.axes[:12]).reshape(2, 6)
    for column in (1, 2):
        scales = {panel.images[0].get_clim() for panel in panels[:, column::3].ravel()}
        assert len(scales) == 1
    assert [axis.get_ylabel() for axis in drawing.axes[12:]] == ["ln p of a pixel [nats]", "LLR of a pixel [nats]"]
    # The outline runs around the galaxy's pixels, half a pixel from the middles of those at its edge.
    outline = panels[0, 2].collections[0].get_paths()[0].vertices
    assert outline.min(0) == pytest.approx([2.5, 1.5]) and outline.max(0) == pytest.approx([5.5, 4.5])
    assert not panels[0, 5].collections
