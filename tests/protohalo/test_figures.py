"""Figures of protohalo: which halo has which colour, and what an axis, a colour bar and a slice say of themselves."""

import numpy as np
from scipy.ndimage import grey_dilation

from kerasgal.apps.protohalo import figures


def volumes():
    """True haloes 0 to 3, and predicted ones of other numbers: 5 is 0, 2 is 1, 1 and 3 are parts of 2, 3 is lost."""
    true, other = np.full((2, 12, 12, 2), -1)
    true[0:5, 0:5], true[5:9, 0:5], true[0:9, 6:10], true[10:12, 10:12] = 0, 1, 2, 3
    other[0:5, 0:4], other[5:8, 0:5], other[0:6, 6:10], other[6:9, 6:10] = 5, 2, 1, 3
    return {"true": true, "adaptive": other}


def test_haloes_are_the_same_where_each_shares_most_cells_with_the_other():
    shown = volumes()
    same = {5: ("true", 0), 2: ("true", 1), 1: ("true", 2)}
    assert figures.counterparts(shown) == {"true": {}, "adaptive": same}
    again = np.where(shown["adaptive"] < 0, -1, shown["adaptive"] + 10)
    found = figures.counterparts(shown | {"native": again})["native"]
    assert found == {label + 10: twin for label, twin in same.items()} | {13: ("adaptive", 3)}  # the part, too
    nothing = np.full((4, 4, 4), -1)
    assert figures.counterparts({"true": nothing, "native": nothing}) == {"true": {}, "native": {}}


def test_a_halo_has_one_colour_in_all_panels_and_neighbours_have_others():
    shown = volumes()
    slices = {name: volume[:, :, 0] for name, volume in shown.items()}
    pictures = figures.coloured(slices, figures.counterparts(shown))
    colour = {(name, label): tuple(pictures[name][labels == label][0]) for name, labels in slices.items()
              for label in np.unique(labels[labels >= 0])}
    for label, twin in {5: 0, 2: 1, 1: 2}.items():
        assert colour["adaptive", label] == colour["true", twin]
    assert len(set(colour.values())) == 5  # four true haloes, and a part of one
    for name, labels in slices.items():
        assert np.all(pictures[name][labels < 0] == 0)  # nothing is drawn there


def test_neighbours_differ_among_more_haloes_than_there_are_colours():
    rng = np.random.default_rng(3)
    seeds = rng.uniform(0, 60, (150, 2))
    x, y = np.mgrid[:60, :60]
    labels = np.argmin((x[..., None] - seeds[:, 0])**2 + (y[..., None] - seeds[:, 1])**2, axis=-1)
    picture = figures.coloured({"found": labels})["found"]
    kinds = np.unique(picture.reshape(-1, 4), axis=0, return_inverse=True)[1].reshape(60, 60)
    assert kinds.max() == 17
    # Where another label is next to a cell, so is another colour: a cell sees both by the largest around it.
    cross = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]])
    border = (grey_dilation(labels, footprint=cross) != labels) | (-grey_dilation(-labels, footprint=cross) != labels)
    seen = (grey_dilation(kinds, footprint=cross) != kinds) | (-grey_dilation(-kinds, footprint=cross) != kinds)
    np.testing.assert_array_equal(seen, border)


def test_maps_say_where_the_slice_is_and_what_colours_mean():
    rng = np.random.default_rng(0)
    delta, true, predicted = rng.uniform(size=(3, 12, 12, 12)).astype(np.float32)
    drawing = figures.distance_maps(delta, true, predicted, 24.0)
    assert drawing._supxlabel.get_text() == "slice at z = 13 Mpc/h"
    bars = [axis.get_ylabel() for axis in drawing.axes[3:]]
    assert bars == ["standard deviations", figures.DISTANCE, figures.DISTANCE]
    halo_id = {"true": np.zeros((12, 12, 12), int), "native": np.zeros((12, 12, 12), int),
               "adaptive": np.full((12, 12, 12), -1)}
    assert "slice at z = 13 Mpc/h" in figures.halo_slices(halo_id, 24.0)._supxlabel.get_text()
    assert "borders of the true haloes" in figures.close_up(predicted, halo_id, 24.0)._supxlabel.get_text()


def test_shares_of_haloes_that_are_found_stand_at_their_mass_with_binomial_errors():
    result = {"mass_edges": [1e13, 1e14, 1e15, 1e16], "adaptive": {
        "true": [100, 16, 0], "predicted": [50, 0, 4], "completeness_by_mass": [0.5, 0.75, None],
        "purity_by_mass": [0.8, None, 1.0]}}
    found, real = figures.found_by_mass(result).axes
    np.testing.assert_allclose(found.lines[0].get_xydata(), [[10**13.5, 0.5], [10**14.5, 0.75]])
    np.testing.assert_allclose(real.lines[0].get_xydata(), [[10**13.5, 0.8], [10**15.5, 1]])
    bars = found.collections[0].get_segments()
    # Laplace's rule of succession: 12 of 16 are as likely as 13 of 18
    np.testing.assert_allclose([np.ptp(bar[:, 1]) / 2 for bar in bars], [0.05, (13 / 18 * 5 / 18 / 16)**0.5])
    assert found.get_xscale() == "log" and "Msun/h" in real.get_xlabel()
