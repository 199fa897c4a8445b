"""Figures of halomass: units in titles, numbers on axes, whole epochs."""

import numpy as np

from kerasgal.apps.halomass import figures


def test_distributions_of_residuals_have_a_scale_and_bins_of_mass_their_unit():
    rng = np.random.default_rng(0)
    residuals, third = {"a": rng.normal(0, 0.3, 600)}, np.arange(600) % 3
    panels = figures.comparison(residuals, third, 12.0, 14.5, {"a": "a"}).axes
    assert panels[0].get_ylabel() == "share of particles per dex" and len(panels[0].get_yticks()) > 2
    curve = panels[0].lines[0]
    assert np.isclose(np.trapezoid(curve.get_ydata(), curve.get_xdata()), 1, atol=0.02)
    assert "/h]" in panels[0].get_title()
    rows = figures.radii(residuals, third, np.arange(600) // 3 % 3, 12.0, 14.5, {"a": "mine"}).axes
    assert rows[0].get_ylabel() == "mine\nshare of particles per dex"


def test_epochs_are_whole():
    rows = [{"epoch": epoch, "loss": 1 / epoch, "gamma": 0.2} for epoch in (1, 2, 3)]
    for axis in figures.training({"run": rows}).axes:
        assert all(float(tick).is_integer() for tick in axis.get_xticks())
