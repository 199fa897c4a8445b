import h5py
import numpy as np
import pytest

from kerasgal.apps.halomass import data
from kerasgal.apps.halomass.config import TrainConfig
from kerasgal.apps.halomass.shells import shell_index
from kerasgal.errors import DataError
from kerasgal.grid import density_contrast
from kerasgal.pipeline import deposits
from kerasgal.simulation import Simulation

RANGE = {"low": 11.9, "high": 14.0}


def wrapped_cube(field, cell, side):
    """A cube around a cell, taken axis by axis from the periodic field."""
    for axis in range(3):
        field = np.take(field, np.arange(side) + cell[axis] - side // 2, axis=axis, mode="wrap")
    return field


def inputs_of(path, config, particles, **options):
    sample = data.load(path, config, np.asarray(particles))
    return sample, [tuple(np.asarray(part) for part in batch) for batch in data.batches([sample], config, **options)]


def test_particles_are_drawn_from_haloes_in_the_range(boxes):
    with Simulation(boxes[0]) as simulation:
        particles, log_mass = data.sample_particles(simulation, 200, 12.3, 12.9, 3)
        mass, halo_id = simulation["halos/mass"][...], simulation["halo_id"][...].ravel()
        np.testing.assert_allclose(log_mass, np.log10(mass[halo_id[particles]]), rtol=1e-6)
        assert len(set(particles)) == 200 and log_mass.min() >= 12.3 and log_mass.max() <= 12.9
        again = data.sample_particles(simulation, 200, 12.3, 12.9, 3)[0]
        other = data.sample_particles(simulation, 200, 12.3, 12.9, 4)[0]
        np.testing.assert_array_equal(particles, again)
        assert set(other) != set(particles)
        everything = data.sample_particles(simulation, 10**6, 0, 20, 0)[0]
        assert sorted(everything) == np.flatnonzero(halo_id >= 0).tolist()
        with pytest.raises(DataError, match="no particle in haloes with log10 mass between 15 and 16; its haloes have"):
            data.sample_particles(simulation, 5, 15.0, 16.0, 0)
        with pytest.raises(DataError, match="has no particle 32768: accepted are 0 to 32767"):
            data.halo_log_mass(simulation, np.array([5, 32768]))
        outside = np.flatnonzero(halo_id < 0)[:3]
        assert np.isnan(data.halo_log_mass(simulation, outside)).all()


def test_the_scale_maps_the_range_to_one():
    scale = data.Scale(11.0, 13.4)
    np.testing.assert_allclose(scale.to_target(np.array([11.0, 12.2, 13.4])), [-1, 0, 1], atol=1e-12)
    np.testing.assert_allclose(scale.to_log_mass(scale.to_target(np.array([11.7]))), [11.7])


@pytest.mark.parametrize("padding, side", [("same", 9), ("none", 20)])
def test_raw_cubes_are_centred_and_periodic_at_every_face(boxes, padding, side):
    config = TrainConfig(patch=9, convolutions=3, padding=padding, batch=5, **RANGE)
    with Simulation(boxes[0]) as simulation:
        delta = simulation.delta()
    n = len(delta)
    cells = np.array([[0, 0, 0], [n - 1, 0, 5], [3, n - 1, n - 1], [0, 16, 0], [n - 1] * 3, [16, 16, 16], [1, 2, 3]])
    particles = np.ravel_multi_index(tuple(cells.T), (n,) * 3)
    sample, found = inputs_of(boxes[0], config, particles)
    cubes, targets = (np.concatenate(parts) for parts in zip(*found))
    assert data.cube_side(config) == side and cubes.shape == (7, side, side, side, 1)
    for cell, cube in zip(cells, cubes):
        np.testing.assert_array_equal(cube[..., 0], wrapped_cube(delta, cell, side))
        assert cube[side // 2, side // 2, side // 2, 0] == delta[tuple(cell)]
    expected = 2 * (sample.log_mass - 11.9) / (14.0 - 11.9) - 1
    np.testing.assert_allclose(targets[:, 0], expected, rtol=1e-5, atol=1e-6)


def test_symmetries_keep_the_particle_in_the_middle_and_its_target(boxes):
    for padding in ("same", "none"):
        config = TrainConfig(patch=5, convolutions=3, padding=padding, batch=48, symmetries="reflections", **RANGE)
        with Simulation(boxes[0]) as simulation:
            particles, log_mass = data.sample_particles(simulation, 1, 11.9, 14.0, 0)
            centre = simulation.delta().ravel()[particles[0]]
        sample = data.load(boxes[0], config, particles)
        (cubes, targets), = data.batches([sample], config, seed=1).take(1)
        middle = cubes.shape[1] // 2
        np.testing.assert_array_equal(cubes[:, middle, middle, middle, 0], np.full(48, centre))
        assert len({np.asarray(cube).tobytes() for cube in cubes}) == 48
        np.testing.assert_allclose(targets[:, 0], np.full(48, 2 * (log_mass[0] - 11.9) / 2.1 - 1), rtol=1e-4)


def test_particles_finer_than_the_grid_stand_in_their_cell(boxes, tmp_path):
    with h5py.File(boxes[0]) as old, h5py.File(tmp_path / "coarse.h5", "w") as new:
        new.attrs.update(old.attrs)
        new["initial/delta"] = old["initial/delta"][::2, ::2, ::2]
        for name in ("halo_id", "halos"):
            old.copy(name, new)
    config = TrainConfig(patch=5, convolutions=2, **RANGE)
    particle = np.ravel_multi_index((31, 6, 17), (32,) * 3)
    sample, ((cubes, _),) = inputs_of(tmp_path / "coarse.h5", config, [particle])
    with Simulation(tmp_path / "coarse.h5") as simulation:
        np.testing.assert_array_equal(cubes[0, ..., 0], wrapped_cube(simulation.delta(), (15, 3, 8), 5))
        halo = simulation["halo_id"][31, 6, 17]
    with Simulation(boxes[0]) as simulation:
        expected = np.log10(simulation["halos/mass"][halo]) if halo >= 0 else np.nan
    np.testing.assert_allclose(sample.log_mass, [expected])


def test_shells_are_evenly_spaced_from_two_cells_to_half_the_cube():
    index = shell_index(75, 20)
    radii = np.linspace(2, 37.5, 20)
    for cell in [(37, 37, 37), (37, 37, 39), (37, 37, 40), (0, 37, 37), (10, 50, 60), (0, 0, 0)]:
        distance = np.linalg.norm(np.array(cell) - 37)
        assert index[cell] == next((number for number, radius in enumerate(radii) if distance <= radius), 20)
    assert index[0, 37, 37] == 19 and index[0, 0, 0] == 20


def test_the_averaged_input_is_the_direct_mean_over_each_shell(boxes):
    config = TrainConfig(input="averaged", patch=15, shells=6, **RANGE)
    with Simulation(boxes[0]) as simulation:
        delta = simulation.delta()
    n = len(delta)
    cells = np.array([[0, 0, 0], [n - 1, 3, 16], [7, 8, 9]])
    _, ((averages, _),) = inputs_of(boxes[0], config, np.ravel_multi_index(tuple(cells.T), (n,) * 3))
    index = shell_index(15, 6)
    for cell, average in zip(cells, averages):
        cube = wrapped_cube(delta, cell, 15).astype(np.float64)
        expected = [cube[index == shell].mean() for shell in range(6)]
        np.testing.assert_allclose(average, expected, atol=1e-6 * delta.std())


def test_the_final_input_is_the_density_on_a_fine_grid_of_the_whole_box(boxes):
    """25 Mpc/h in 80 cells: the cubes are cut out of that grid where the particles stand on cell centres."""
    with Simulation(boxes[0]) as simulation:
        position, boxsize = simulation["final/position"][...], simulation.boxsize
    config = TrainConfig(input="final", patch=9, extent=9 * boxsize / 80, **RANGE)
    whole = density_contrast(position, 80, boxsize) + 1
    cells = np.array([[0, 0, 0], [79, 40, 3], [11, 79, 79]])
    centres = ((cells + 0.5) * boxsize / 80).astype("f4")
    (cubes, targets), = deposits([(position, boxsize)], [centres], config.extent, 9, 3,
                                 targets=[np.arange(3.)[:, None]])
    for cell, cube in zip(cells, cubes):
        np.testing.assert_allclose(cube[..., 0], wrapped_cube(whole, cell, 9), rtol=1e-3, atol=0.05)
    np.testing.assert_array_equal(targets[:, 0], [0, 1, 2])
    assert whole.max() > 100
    # Particles may stand in any period of the box.
    elsewhere = position + boxsize * np.random.default_rng(0).integers(-1, 2, position.shape)
    (same, _), = deposits([(elsewhere, boxsize)], [centres], config.extent, 9, 3, targets=[np.arange(3.)[:, None]])
    np.testing.assert_allclose(same, cubes, atol=0.05)
    # Around a particle, its own weight is in the central cell.
    sample, ((own, _),) = inputs_of(boxes[0], config, [77, 20000])
    np.testing.assert_array_equal(sample.places, position[[77, 20000]])
    assert np.all(own[:, 4, 4, 4, 0] >= (80 / 32)**3 * 0.999)


def test_inputs_are_standardised_by_the_training_values(boxes):
    for kind in ("raw", "averaged", "channels"):
        config = TrainConfig(input=kind, patch=7, shells=3, convolutions=2, batch=50, **RANGE)
        with Simulation(boxes[0]) as simulation:
            particles, _ = data.sample_particles(simulation, 60, 11.9, 14.0, 0)
        sample = data.load(boxes[0], config, particles)
        mean, deviation = data.moments([sample], config)
        inputs = np.concatenate([np.asarray(batch[0]) for batch in data.batches([sample], config)])
        if kind == "averaged":
            cubes = np.zeros((60, 7, 7, 7, 1))
            for shell in range(3):
                cubes[:, shell_index(7, 3) == shell, 0] = inputs[:, [shell]]
            inputs = cubes
        np.testing.assert_allclose(mean, inputs.mean(axis=(0, 1, 2, 3)), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(deviation, inputs.std(axis=(0, 1, 2, 3)), rtol=1e-4)


@pytest.mark.parametrize("settings, message", [
    ({"patch": 33}, "the cube of 33 cells around a particle is larger than the box of 32"),
    ({"patch": 33, "input": "averaged"}, "the cube of 33 cells around a particle is larger than the box of 32"),
    ({"patch": 15, "padding": "none", "convolutions": 4}, "the cube of 33 cells around a particle is larger"),
    ({"patch": 9, "input": "final", "extent": 20.0}, "a cube of 20 Mpc/h is wider than half the box of 25 Mpc/h"),
])
def test_cubes_larger_than_the_box_are_refused(boxes, settings, message):
    config = TrainConfig(**{"convolutions": 3, **RANGE, **settings})
    with pytest.raises(DataError, match=message):
        inputs_of(boxes[0], config, [5])


def test_configurations_that_contradict_themselves_are_refused():
    for settings, message in (({"channels": "tide", "input": "averaged"}, "channels='tide' are those of input=raw"),
                              ({"low": 13.0, "high": 12.0}, "leave no mass"), ({"patch": 8}, "is even"),
                              ({"padding": "none", "input": "averaged"}, "takes input=raw or input=channels")):
        with pytest.raises(DataError, match=message):
            TrainConfig(**settings)
