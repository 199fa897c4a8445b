"""Figures of cascade and of its diffusion model: units, colour bars, and which part of a box is shown."""

from types import SimpleNamespace

import numpy as np
import pytest

from kerasgal.apps.cascade import figures
from kerasgal.apps.cascade.diffusion import figures as diffusion
from kerasgal.apps.cascade.scatter import POISSON

RUN = ("runs", "mine")


def test_slabs_say_where_they_are():
    rng = np.random.default_rng(0)
    density = rng.uniform(0.5, 1.5, (16, 16, 16))
    density[:, :, 6] += 3  # the densest layer, where the slab begins
    counts = {figures.TRUTH: [rng.poisson(0.1, density.shape)], RUN: [rng.uniform(size=density.shape)]}
    drawing = figures.slices(SimpleNamespace(density=density, counts=counts, scatter={RUN: None}, boxsize=32.0), RUN)
    assert drawing._supxlabel.get_text().startswith("slab of z = 12 to 16 Mpc/h")
    bars = [axis.get_xlabel() for axis in drawing.axes[6:]]
    assert bars == ["log$_{10}$ density / mean", "galaxies", "expected galaxies"]


def test_what_is_drawn_from_a_mean_field_stands_beside_it_in_whole_galaxies():
    counts = {figures.TRUTH: [np.zeros((16, 16, 16))], RUN: [np.full((16, 16, 16), 0.25)]}
    sample = SimpleNamespace(density=np.ones((16, 16, 16)), counts=counts, scatter={RUN: POISSON}, boxsize=32.0)
    _, _, mean, drawn, *_ = figures.slices(sample, RUN).axes
    assert drawn.get_title() == "drawn from run mine"
    images = [np.asarray(axis.images[0].get_array()) for axis in (mean, drawn)]
    assert np.all(images[0] == 0.5) and np.all(images[1] % 1 == 0)  # slabs of two cells
    assert images[1].mean() == pytest.approx(0.5, abs=5 * (0.5 / 256)**0.5) and images[1].var() > 0.3


@pytest.mark.parametrize("dimensions, words", [(2, ""), (3, "slab of z = 0 to 4 Mpc/h")])
def test_draws_have_colour_bars_and_spectra_their_unit(dimensions, words):
    rng = np.random.default_rng(0)
    shape = (16,) * dimensions
    item = SimpleNamespace(seen=[rng.uniform(0.5, 1.5, shape)], truth=[rng.poisson(0.1, shape)], boxsize=32.0,
                           drawn={RUN: [rng.poisson(0.1, (2, *shape))]})
    drawing = diffusion.draws(item, RUN)
    assert [axis.get_xlabel() for axis in drawing.axes[4:]] == ["log$_{10}$ density / mean", *["galaxies"] * 3]
    assert drawing._supxlabel.get_text() == words
    k = np.array([0.1, 1.0])
    spectra = diffusion.spectra(k, {diffusion.TRUTH: k, RUN: k}, RUN, 0.1 * k, 0.2 * k, {RUN: k}, dimensions)
    assert f"[(Mpc/h)$^{dimensions}$]" in spectra.axes[0].get_ylabel()
