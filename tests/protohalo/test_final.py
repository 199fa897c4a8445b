"""Haloes at the end: the true patches of simulations, moved, against the haloes of the same particles."""

import numpy as np
import pytest

import kerasgal as kg
from kerasgal.apps.protohalo.final import final_haloes, mean_of_haloes
from kerasgal.nbody import growth_history


def periodic(difference, boxsize):
    return (difference + boxsize / 2) % boxsize - boxsize / 2


@pytest.fixture(scope="module")
def box():
    return kg.simulate(particles=48, boxsize=37.5, seed=3)


def test_moved_patches_are_where_the_haloes_of_their_particles_are(box):
    halo_id, L, n = box["halo_id"][...], box.boxsize, 48
    haloes = len(box["halos/count"])
    # The centre of a patch: the mean offset of its cells from one of them, which no border of the box divides.
    cell = (np.stack(np.meshgrid(*[np.arange(n)] * 3, indexing="ij"), -1) + 0.5) * L / n
    any_cell = np.zeros((haloes, 3))
    any_cell[halo_id[halo_id >= 0]] = cell[halo_id >= 0]
    offset = periodic(cell - any_cell[halo_id], L)
    patch = any_cell + mean_of_haloes(offset, halo_id, haloes)
    position, velocity = final_haloes(halo_id, patch, box.delta(), L, box.cosmology, box.redshift_initial, 0.0)
    large = box["halos/count"][...] >= 100
    assert large.sum() > 30

    def distance(found):  # mean, in cells
        return np.sqrt((periodic(found - box["halos/position"][...], L)[large]**2).sum(1)).mean() * n / L

    assert distance(position) < 0.65 < 3 < distance(patch)  # 0.39 and 4.9 of 200 cells or more in 50 Mpc/h
    true = np.stack([np.bincount(halo_id[halo_id >= 0], box["final/velocity"][:, axis][halo_id.ravel() >= 0], haloes)
                     for axis in range(3)], 1) / box["halos/count"][...][:, None]
    residual = velocity[large] - true[large]
    assert residual.std() < 0.45 * true[large].std()
    assert position.min() >= 0 and position.max() < L


def test_a_plane_wave_moves_as_zeldovich_says(box):
    # In a universe of a plane wave the displacement is -D1 grad phi, with Laplacian phi = delta.
    n, L = 32, 20.0
    k = 2 * np.pi / L
    x = (np.arange(n) + 0.5) * L / n
    growth = growth_history(box.cosmology)
    delta = (0.1 * growth(0.05).D1 * np.cos(k * x))[:, None, None] * np.ones((n, n, n))
    halo_id = np.full((n, n, n), -1)
    halo_id[5, 3, 4] = 0
    position, velocity = final_haloes(halo_id, np.array([[x[5], x[3], x[4]]]), delta, L, box.cosmology, 19.0, 1.0)
    moved = -0.1 * growth(0.5).D1 * np.sin(k * x[5]) / k
    np.testing.assert_allclose(position[0], [x[5] + moved, x[3], x[4]], atol=1e-5)
    # v = a H f D1 s, with f = dlnD1/dlna by differences
    step = 1e-4
    rate = np.log(growth(0.5 * (1 + step)).D1 / growth(0.5 * (1 - step)).D1) / (2 * step)
    hubble = 100 * np.sqrt(box.cosmology.Om0 / 0.5**3 + 1 - box.cosmology.Om0)
    np.testing.assert_allclose(velocity[0], [0.5 * hubble * rate * moved, 0, 0], atol=1e-3)


def test_a_halo_without_cells_has_no_motion():
    assert np.isnan(mean_of_haloes(np.ones((2, 2, 2, 3)), np.zeros((2, 2, 2), int), 2)[1]).all()
