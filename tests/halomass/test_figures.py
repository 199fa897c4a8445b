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


def test_divergences_stand_at_their_mass_and_place_with_all_particles_beside():
    keys = [("runs", "a"), ("runs", "b")]

    def between(value):
        return {"runs": {"a": {"runs": {"b": {"divergence": value, "error": value / 10}}}}}

    whole = {keys[0]: {keys[1]: {"divergence": 0.09, "error": 0.01}}}
    drawn = {"by_mass": [between(0.01), None, between(0.03)],
             "by_place": {"inner": between(0.04), "mid": between(0.05), "outskirts": between(0.06)}}
    given = whole, 12.0, 14.4, keys[0], keys, {key: key[1] for key in keys}
    mass, place = figures.divergences(*drawn.values(), *given).axes
    for axis, columns, values in ((mass, [0, 2, 3], [0.01, 0.03, 0.09]),
                                  (place, [0, 1, 2, 3], [0.04, 0.05, 0.06, 0.09])):
        np.testing.assert_allclose(axis.lines[0].get_xydata(), np.transpose([columns, values]))
    said = [text.get_text() for text in mass.get_xticklabels()]
    assert said == ["12.0 to 12.8", "12.8 to 13.6", "13.6 to 14.4", "all"]
    assert mass.get_ylabel() == "K-L divergence of a from it" and "radius" in place.get_xlabel()
    assert len(figures.divergences(drawn["by_mass"], None, *given).axes) == 1
