"""Haloes one to one, against a count by loops; and what figures of them are made from."""

import numpy as np
import pytest

from kerasgal.apps.protohalo import figures, metrics


def volumes(seed, haloes=(9, 7), n=8):
    """Two label volumes that have much in common: the second one is the first, in places joined or cut or noise."""
    rng = np.random.default_rng(seed)
    true = rng.integers(-1, haloes[0], (n, n, 1), dtype=np.int32).repeat(n, axis=2)
    predicted = true % haloes[1]
    predicted[true < 0] = -1
    noisy = rng.uniform(size=true.shape) < 0.3
    predicted[noisy] = rng.integers(-1, haloes[1], noisy.sum())
    return true, predicted


@pytest.mark.parametrize("seed", range(4))
def test_haloes_are_matched_as_by_a_count_over_all_pairs(seed):
    true, predicted = volumes(seed)
    found = metrics.match(true, predicted, 10, 8)  # one row more of each than there are labels
    pairs, merged, split = {}, np.zeros(8, int), np.zeros(10, int)
    for row in range(10):
        for column in range(8):
            shared = ((true == row) & (predicted == column)).sum()
            either = ((true == row) | (predicted == column)).sum()
            much_of_true, much_of_predicted = (shared > 0.5 * (volume == label).sum()
                                               for volume, label in ((true, row), (predicted, column)))
            merged[column] += much_of_true
            split[row] += much_of_predicted
            if much_of_true and much_of_predicted:
                pairs[row, column] = shared / either
    assert pairs and (merged > 1).any()
    assert {(int(a), int(b)): iou for (a, b), iou in zip(found.pairs, found.iou)} == pytest.approx(pairs)
    np.testing.assert_array_equal(found.merged, merged)
    np.testing.assert_array_equal(found.split, split)


def test_the_numbers_of_two_boxes_are_those_of_lists_of_haloes():
    one = metrics.Matching(np.array([[0, 1], [2, 0]]), np.array([0.6, 0.8]), np.array([2, 1, 0]),
                           np.array([1, 0, 2, 3]))
    none = metrics.Matching(np.empty((0, 2), int), np.empty(0), np.array([], int), np.array([0]))
    true, predicted = [np.array([8.0, 4.0, 2.0, 1.0]), np.array([3.0])], [np.array([4.0, 2.0, 1.0]), np.array([])]
    found = metrics.objects([one, none], true, predicted, np.array([1.0, 3.0, 9.0]))
    assert (found["pairs"], found["merges"], found["splits"]) == (2, 1, 2)
    assert (found["completeness"], found["purity"]) == pytest.approx((2 / 5, 2 / 3))
    assert found["completeness_by_mass"] == pytest.approx([1 / 2, 1 / 3])
    assert found["purity_by_mass"] == pytest.approx([1 / 2, 1])
    ratios = np.log10([2 / 8, 4 / 2])
    assert found["mass_offset_dex"] == pytest.approx(ratios.mean()) and found["median_iou"] == pytest.approx(0.7)
    assert found["mass_scatter_dex"] == pytest.approx(ratios.std())


def test_a_prediction_without_haloes_matches_none():
    true = np.zeros((4, 4, 4), np.int32)
    one = metrics.match(true, true - 1, 1, 0)
    found = metrics.objects([one], [np.array([64.0])], [np.array([])], np.array([1.0, 100.0]))
    assert (found["completeness"], found["purity"], found["pairs"], found["median_iou"]) == (0.0, None, 0, None)
    assert found["purity_by_mass"] == [None]


def test_residuals_by_chance_are_those_that_predictions_without_a_bias_have_on_average():
    rng, edges = np.random.default_rng(0), np.array([1.0, 2.0, 4.0, 8.0])

    def drawn():
        return [np.repeat([1.5, 3.0, 6.0], rng.poisson([20, 10, 1])) for _ in range(12)]

    pairs = [(drawn(), drawn()) for _ in range(400)]
    chance = [metrics.residual_by_chance(*pair, edges) for pair in pairs]
    found = [metrics.mass_function_residual(*map(np.concatenate, pair), edges) for pair in pairs]
    for name in ("summed_residual", "mean_absolute_residual"):
        assert np.mean([one[f"{name}_by_chance"] for one in chance]) == pytest.approx(
            np.mean([one[name] for one in found]), rel=0.08)
    # The last bin has fewer than 20 haloes as a rule, and does not count; of one box nothing is known.
    assert metrics.residual_by_chance(drawn()[:1], drawn()[:1], edges) == {
        "summed_residual_by_chance": None, "mean_absolute_residual_by_chance": None}


def test_bounds_of_sigma_are_those_of_a_normal_distribution():
    rng = np.random.default_rng(0)
    true = rng.uniform(1, 2, 200_000)
    predicted = 5 + 2 * rng.normal(size=true.size)
    for sigma in metrics.SIGMAS:
        low, high = metrics.spread(true, predicted, np.array([1.0, 2.0, 3.0]), sigma)
        np.testing.assert_allclose([low[0], high[0]], [5 - 2 * sigma, 5 + 2 * sigma], atol=0.1)
        assert np.isnan([low[1], high[1]]).all()


def test_pairs_of_haloes_count_as_their_cells_do():
    rng = np.random.default_rng(1)
    labels = [rng.integers(-1, 6, (8, 8, 8)) for _ in range(2)]
    mass = [10**rng.uniform(12, 14, 6) for _ in range(2)]
    rows, columns, number = metrics.shared_cells(*labels)
    of_cells = metrics.cell_masses(*labels, *mass)
    assert number.sum() == len(of_cells[0])
    found = metrics.cell_mass_counts(mass[0][rows], mass[1][columns], number)
    assert found == metrics.cell_mass_counts(*of_cells) and np.sum(found["counts"]) == number.sum()
    levels = (0.02, 0.3, 0.5, 1.0)
    np.testing.assert_allclose(metrics.quantiles(mass[1][columns], number, levels), np.quantile(of_cells[1], levels))
    assert metrics.cell_mass_counts(*metrics.cell_masses(labels[0], -np.ones((8, 8, 8), int), *mass)) is None
    assert len(metrics.shared_cells(labels[0], -np.ones((8, 8, 8), int))[0]) == 0
    # With what is known of the training the unseen boxes have a row below
    cells = dict.fromkeys(("native", "adaptive"), of_cells)
    assert len(figures.cell_masses(cells).axes) == 2
    assert len(figures.cell_masses(cells, dict.fromkeys(cells, found)).axes) == 4
    assert figures.cell_masses(dict.fromkeys(cells, (np.zeros(0), np.zeros(0)))) is None


def test_windows_are_where_maps_differ_most_and_least():
    true = np.zeros((20, 20))
    true[4:8, 8:12] = true[12:16, 0:4] = 1.0
    predicted = true.copy()
    predicted[4:8, 8:12] = 0.1
    assert figures.windows(true, predicted, 4) == [(4, 8), (12, 0)]


def test_insets_stand_beside_their_windows_and_hide_none():
    lower_left, upper_left, lower_right, upper_right = figures.INSETS
    assert figures.inset_places([(0.4, 0.1), (0.4, 0.7)], 0.2) == [lower_right, upper_right]
    assert figures.inset_places([(0.0, 0.0), (0.8, 0.8)], 0.2) in ([upper_left, lower_right], [lower_right, upper_left])


def test_borders_run_along_the_faces_between_labels():
    drawing, axis = figures.figure()
    figures.draw_borders(axis, np.array([[0, 0, 1], [0, 2, 1]]), (0.0, 2.0, 0.0, 3.0))
    found = {tuple(map(tuple, segment)) for segment in axis.collections[0].get_segments()}
    assert found == {((1, 1), (1, 2)), ((0, 2), (1, 2)), ((1, 1), (2, 1)), ((1, 2), (2, 2))}
