"""Haloes where they end: spectra of catalogues whose spectra are known, and boxes that do not go together."""

import numpy as np
import pytest

import kerasgal as kg
from kerasgal.apps.protohalo import clustering
from kerasgal.simulation import Simulation


@pytest.fixture(scope="module")
def spectra(boxes):
    """Of two boxes: every fourth particle, taken for haloes, and points at random."""
    found = []
    for path in boxes[:2]:
        with Simulation(path) as box:
            position, velocity = box["final/position"][...][::4], box["final/velocity"][...][::4]
            somewhere = np.random.default_rng(len(found)).uniform(0, 25, position.shape)
            found.append(clustering.spectra({"true": (position, velocity), "random": (somewhere, None)},
                                            clustering.matter(box, 32), 25.0, box.cosmology, 0.0, 32))
    return found


def test_some_of_the_particles_cluster_as_matter_does_and_random_points_do_not(spectra):
    found = clustering.summed(spectra)
    true, random = found["haloes"]["true"], found["haloes"]["random"]
    assert found["boxes"] == 2 and len(found["k"]) == 8 and found["k"][0] == pytest.approx(2 * np.pi / 25, rel=0.3)
    np.testing.assert_allclose(true["bias"], 1, atol=0.05)
    np.testing.assert_allclose(true["power"], found["matter_power"], rtol=0.15)
    np.testing.assert_allclose(true["correlation"], 1)
    assert true["large_scale_bias"] == pytest.approx(1, abs=0.02) and true["large_scale_bias_error"] < 0.05
    assert np.abs(random["bias"]).max() < 0.3 and np.abs(random["correlation"]).max() < 0.3
    error = spectra[0]["haloes"]["random"]["shot_noise"] * np.sqrt(2 / (2 * np.array(found["modes"])))
    assert np.abs(np.array(random["power"]) / error).max() < 4
    # Infall makes the field along the line of sight denser on large scales (Kaiser 1987).
    assert true["monopole"][0] > true["power"][0] and true["quadrupole"][0] > 0
    assert random["monopole"] == [None] * 8


def test_a_single_box_has_no_errors_and_boxes_of_other_shells_no_sum(spectra):
    alone = clustering.summed(spectra[:1])["haloes"]["true"]
    assert alone["large_scale_bias_error"] is None and alone["power_error"] == [None] * 8
    other = clustering.spectra({"true": (np.zeros((0, 3)), None)}, None, 50.0, kg.Cosmology(), 0.0, 32)
    assert clustering.summed([spectra[0], other]) is None
    empty = clustering.summed([other])  # no halo, no matter: nothing is known
    assert empty["haloes"]["true"]["correlation"] == [None] * 8 == empty["matter_power"]


def test_true_haloes_move_as_their_particles_do(boxes):
    with Simulation(boxes[0]) as box:
        position, velocity = clustering.true_haloes(box, np.arange(3))
        for row in range(3):
            members = np.flatnonzero(box["halo_id"][...].ravel() == row)
            np.testing.assert_allclose(velocity[row], box["final/velocity"][...][members].mean(axis=0), rtol=1e-4)
        np.testing.assert_array_equal(position, box["halos/position"][:3])
