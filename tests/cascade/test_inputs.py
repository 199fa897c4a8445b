"""What the networks are given beside the density: velocities of the dark matter, and parameters of the simulation."""

import itertools
import shutil

import h5py
import harness
import keras
import numpy as np
import pytest

import kerasgal as kg
from kerasgal import grid
from kerasgal.apps.cascade import data, model, predict
from kerasgal.errors import DataError, DomainError, RunError, SettingError
from kerasgal.grid import deposit_cic, mean_velocity
from kerasgal.pipeline import patches

BOTH = {"channels": "density,velocity", "parameters": "Om0,sigma8"}


def config(**settings):
    return harness.config_of("cascade", **settings)


def same(channels):
    """A network that gives back what it is given."""
    inputs = keras.Input((None, None, None, channels))
    return keras.Model(inputs, keras.layers.Identity(name="same")(inputs))


# Velocities on the grid

def by_hand(position, velocity, n, boxsize):
    """Momentum over mass in cells by cloud-in-cell, particle by particle; NaN where there is none."""
    mass, momentum = np.zeros((n, n, n)), np.zeros((n, n, n, 3))
    for place, moving in zip(np.asarray(position, float) * n / boxsize - 0.5, velocity):
        lower = np.floor(place).astype(int)
        for corner in itertools.product((0, 1), repeat=3):
            share = np.prod(1 - np.abs(place - lower - corner))
            cell = tuple((lower + corner) % n)
            mass[cell] += share
            momentum[cell] += share * moving
    with np.errstate(invalid="ignore"):
        return np.where(mass[..., None] > 0, momentum / mass[..., None], np.nan)


def test_the_velocity_of_a_cell_is_its_momentum_over_its_mass():
    rng = np.random.default_rng(0)
    position, velocity = rng.uniform(0, 10, (300, 3)).astype("f4"), rng.normal(0, 300, (300, 3)).astype("f4")
    field, expected = mean_velocity(position, velocity, 6, 10.0), by_hand(position, velocity, 6, 10.0)
    known = np.isfinite(expected)
    assert known.mean() > 0.9 and field.shape == (6, 6, 6, 3) and field.dtype == np.float32
    np.testing.assert_allclose(field[known], expected[known], atol=0.5)  # of few shares of one particle, in float32
    np.testing.assert_allclose(np.median(np.abs(field - expected)[known]), 0, atol=1e-3)


def test_a_flow_that_is_the_same_everywhere_is_so_in_every_cell_and_empty_ones():
    position = np.random.default_rng(1).uniform(0, 10, (40, 3))
    field = mean_velocity(position, np.tile([100.0, -200, 50], (40, 1)), 12, 10.0)
    assert (deposit_cic(position, 12, 10.0) == 0).mean() > 0.5
    np.testing.assert_allclose(field, np.broadcast_to([100, -200, 50], field.shape), rtol=1e-4)


def test_a_plane_wave_is_seen_through_the_window_of_the_cells():
    """Particles on a lattice eight times as fine: a wave of wavenumber k is less by sinc^2, the window's part."""
    n, boxsize, k = 8, 10.0, 2 * np.pi / 10.0
    x = (np.arange(8 * n) + 0.5) * boxsize / (8 * n)
    position = np.stack(np.meshgrid(x, x[::4], x[::4], indexing="ij"), axis=-1).reshape(-1, 3)
    velocity = 300 * np.stack([np.sin(k * position[:, 0]), np.cos(k * position[:, 0]), 0 * position[:, 0]], axis=-1)
    field = mean_velocity(position, velocity, n, boxsize)
    centre = (np.arange(n) + 0.5) * boxsize / n
    window = np.sinc(k * boxsize / n / 2 / np.pi)**2
    for component, wave in enumerate((np.sin(k * centre), np.cos(k * centre), 0 * centre)):
        expected = np.broadcast_to(300 * window * wave[:, None, None], (n, n, n))
        np.testing.assert_allclose(field[..., component], expected, atol=0.6)  # of 300


def test_an_empty_cell_moves_as_its_nearest_neighbours(monkeypatch):
    """Two particles in the middle of cells, 8 cells of a box apart along x: the halves of the box follow them."""
    position = (np.array([[2, 4, 4], [10, 4, 4]]) + 0.5) * 1.0
    velocity = np.array([[100.0, 0, 0], [0, 0, -300]])
    field = mean_velocity(position, velocity, 16, 16.0)
    np.testing.assert_array_equal(field[2, 4, 4], [100, 0, 0])
    np.testing.assert_allclose(field[1, 3, 5], [100, 0, 0], rtol=1e-5)  # among the 27 cells of one of them
    np.testing.assert_allclose(field[12, 2, 4], [0, 0, -300], rtol=1e-5)  # among the 125
    np.testing.assert_allclose(field[6, 4, 4], [50, 0, -150], rtol=1e-5)  # among the 729 of both
    assert np.isfinite(field).all() and np.abs(field).max() == 300
    monkeypatch.setattr(grid, "LEAST_MASS", 1e-4)
    alone = mean_velocity(position[:1] + 0.3, velocity[:1], 32, 16.0)  # a 32768th of a particle in each cell
    np.testing.assert_allclose(alone, np.broadcast_to([100, 0, 0], alone.shape), rtol=1e-4)
    with pytest.raises(ValueError, match="velocity must have the shape of position"):
        mean_velocity(position, velocity[:1], 16, 16.0)


@pytest.fixture(scope="module")
def moving():
    """Positions in a box of 8, and velocities."""
    rng = np.random.default_rng(3)
    return rng.uniform(0, 8, (700, 3)), rng.normal(0, 200, (700, 3))


def seen_of(position, velocity):
    settings = config(cell=1.0, channels="density,velocity")
    return data.given(harness.box_of(position, velocity), settings)[0]


def turned_boxes(position, velocity):
    """The same box turned by a quarter around z, (x, y) to (-y, x), and mirrored along x: all of it by hand."""
    quarter = [np.stack([-v[:, 1], v[:, 0], v[:, 2]], axis=-1) for v in (position, velocity)]
    mirror = [v * [-1, 1, 1] for v in (position, velocity)]
    return {"quarter": (quarter[0] % 8, quarter[1]), "mirror": (mirror[0] % 8, mirror[1])}


def turned_fields(field):
    """The fields of these boxes, by hand, of that of the box itself."""
    density, (x, y, z) = field[..., 0], np.moveaxis(field[..., 1:], -1, 0)
    around, across = (lambda one: np.rot90(one, 1, (0, 1))), (lambda one: one[::-1])
    return {"quarter": np.stack([around(density), -around(y), around(x), around(z)], axis=-1),
            "mirror": np.stack([across(density), -across(x), across(y), across(z)], axis=-1)}


@pytest.mark.parametrize("name, symmetries", [("quarter", "rotations"), ("mirror", "reflections")])
def test_velocities_turn_with_a_box_and_with_a_patch(moving, name, symmetries):
    field, turned = seen_of(*moving), turned_boxes(*moving)[name]
    expected = turned_fields(field)[name]
    assert field.shape == (8, 8, 8, 4) and field[..., 1:].std() > 50
    np.testing.assert_allclose(seen_of(*turned), expected, rtol=1e-3, atol=0.05)
    stream = patches([(field,)], [np.zeros(1, int)], 8, 24, seed=0, symmetries=symmetries, vector=1)
    ways = np.concatenate([np.asarray(batch) for (batch,) in stream.take(2)])
    assert min(np.abs(way - expected).max() for way in ways) < 1e-3
    if name == "mirror":  # which is no rotation
        stream = patches([(field,)], [np.zeros(1, int)], 8, 24, seed=0, symmetries="rotations", vector=1)
        assert min(np.abs(way - expected).max() for way in np.asarray(next(iter(stream))[0])) > 50


@pytest.mark.parametrize("words, change", [
    ("has no final/velocity: the velocity of the dark matter is made of particles", None),
    (r"final/velocity has the shape \(699, 3\), and final/position \(700, 3\)", lambda v: v[1:]),
    ("final/velocity has 1 values that are NaN", lambda v: np.where(np.arange(2100).reshape(700, 3) == 5, np.nan, v))])
def test_a_file_without_good_velocities_is_one_line(words, change, moving, tmp_path):
    place = tmp_path / "box.h5"
    harness.box_of(*moving).save(place)
    with h5py.File(place, "r+") as file:
        velocity = file["final/velocity"][...]
        del file["final/velocity"]
        if change:
            file["final/velocity"] = change(velocity)
    with kg.Simulation(place) as box:
        with pytest.raises(DataError, match=words) as raised:
            data.given(box, config(cell=1.0, channels="density,velocity"))
        assert "\n" not in str(raised.value)
        assert data.given(box, config(cell=1.0))[0].shape == (8, 8, 8, 1)


def test_a_field_of_the_density_does_not_make_up_for_few_particles():
    rng = np.random.default_rng(0)
    box = harness.box_of(rng.uniform(0, 8, (64, 3)), rng.normal(size=(64, 3)), **{"final/delta": np.zeros((8, 8, 8))})
    assert data.sparseness(box, 1.0) is None and data.features(box, 1.0)["particles_per_cell"] is None
    assert "0.125 particles for each cell" in data.sparseness(box, 1.0, of_particles=True)
    assert data.features(box, 1.0, of_particles=True)["particles_per_cell"] == 0.125


# Networks

def test_networks_without_options_are_those_of_before():
    for settings in ({}, {"surroundings": True, "classifier": "r2unet"}):
        made = config(**settings)
        assert made.channels == "density" and made.names == ()
        for phase in kg.Cascade.phases:
            network = kg.Cascade.build(made, phase)
            names = [layer.name for layer in network.layers]
            scaling = ["scaling"] if len(network.inputs) == 1 and network.input_shape[-1] == 1 else []
            assert names == ["density", *scaling, names[-1]] and names[-1] in ("inception", "r2unet")
            inner = network.layers[-1]
            assert inner.input_shape[-1] == (model.CHANNELS if phase == "regress" and made.surroundings else 1)
            assert network.count_params() == inner.count_params()
    assert kg.Cascade.build(config()).count_params() == 30_937


def test_what_is_given_beside_the_density_is_normalised_behind_it():
    """Two parameters, one of which was the same in all of the training; a velocity in units of one deviation."""
    network = model.scaled(same(6), "log", velocity=True, parameters=2)
    network.get_layer("normalised_parameters").adapt([[0.3, 0.8], [0.5, 0.8]])
    fields = [np.full((2, 2, 2, 3), 100.0), np.full((2, 2, 2, 3), -300.0)]
    network.get_layer("normalised_velocity").adapt_vectors(fields)
    assert not network.trainable_weights
    rng = np.random.default_rng(0)
    density, velocity = rng.uniform(0, 9, (2, 4, 4, 4, 1)), rng.normal(0, 200, (2, 4, 4, 4, 3))
    rows = np.array([[0.3, 0.8], [0.6, 0.81]], np.float32)
    found = np.asarray(network([np.concatenate([density, velocity], axis=-1).astype("f4"), rows]))
    np.testing.assert_allclose(found[..., :1], np.log(1 + density), rtol=1e-5)
    np.testing.assert_allclose(found[..., 1:4], velocity / np.sqrt((100**2 + 300**2) / 2), rtol=1e-5, atol=1e-6)
    for row, expected in zip(found, [[-1, 0], [2, 0.01]]):
        np.testing.assert_allclose(row[..., 4:], np.broadcast_to(expected, (4, 4, 4, 2)), atol=1e-5)


@pytest.fixture(scope="module")
def untrained():
    """A run of both, whose weights are noise, of small networks."""
    keras.utils.set_random_seed(2)
    made = config(surroundings=True, threshold=0.0, **BOTH)
    networks = {phase: harness.disturbed(kg.Cascade.build(made, phase)) for phase in kg.Cascade.phases}
    for network in networks.values():
        network.get_layer("normalised_parameters").adapt([[0.2, 0.7], [0.4, 0.9]])
        network.get_layer("normalised_velocity").adapt_vectors([np.full((1, 3), 100.0)])
    return kg.Cascade(made, networks)


def test_both_networks_as_one_are_one_after_the_other(untrained):
    rng = np.random.default_rng(5)
    field = np.concatenate([rng.uniform(0, 9, (1, 16, 16, 16, 1)), rng.normal(0, 200, (1, 16, 16, 16, 3))],
                           axis=-1).astype("f4")
    row = np.array([[0.3, 0.85]], np.float32)
    found = np.asarray(untrained.network([field, row]))
    probability = np.asarray(untrained.networks["classify"]([field, row]))
    seen = np.concatenate([np.asarray(model.surroundings()(field[..., :1])), field[..., 1:]], axis=-1)
    counts = np.asarray(untrained.networks["regress"]([seen, row]))
    np.testing.assert_allclose(found, np.concatenate([probability[..., 1:], np.maximum(counts, 0)], axis=-1), atol=1e-5)
    for other in (np.array([[0.2, 0.85]], np.float32), np.array([[0.3, 0.7]], np.float32)):
        changed = np.asarray(untrained.network([field, other]))
        assert np.abs(changed - found).max(axis=(0, 1, 2, 3)).min() > 1e-3  # of both phases
    network, description = untrained.served()
    assert network is untrained.network and description["input"] == [
        "dark-matter density in units of its mean, velocity [km/s]", "parameters: Om0, sigma8"]


def test_tiles_are_given_the_same_parameters_as_the_whole_box(untrained):
    rng = np.random.default_rng(6)
    field = np.concatenate([rng.uniform(0, 9, (32, 16, 16, 1)), rng.normal(0, 200, (32, 16, 16, 3))], axis=-1)
    field, classifier = field.astype("f4"), untrained.networks["classify"]
    options = {"parameters": [0.3, 0.85]}
    whole = predict.predict_field(classifier, field, untrained.config, **options)
    tiled = predict.predict_field(classifier, field, untrained.config, tile=24, **options)
    np.testing.assert_allclose(tiled, whole, atol=1e-5)
    for wrong, words in (({}, "the run is given Om0, sigma8 as `parameters`, received none"),
                         ({"parameters": [0.3]}, "received 0.3")):
        with pytest.raises(SettingError, match=words):
            predict.predict_field(classifier, field, untrained.config, **wrong)
    with pytest.raises(SettingError, match="channels='density,velocity', received a density alone"):
        predict.predict_field(classifier, field[..., 0], untrained.config, **options)


# The whole road

def copied(path, place, drop=(), **cosmology):
    """A copy of a simulation with another cosmology, and without some data sets."""
    shutil.copy(path, place)
    with h5py.File(place, "r+") as file:
        file["cosmology"].attrs.update(cosmology)
        for name in drop:
            del file[name]
    return place


@pytest.fixture(scope="module")
def given(painted, tmp_path_factory, eagerly):
    """A run that is given velocities and parameters, of boxes that are said to be of several cosmologies."""
    folder = tmp_path_factory.mktemp("given")
    boxes = [copied(painted[number], folder / f"box_{number}.h5", sigma8=sigma8)
             for number, sigma8 in enumerate((0.75, 0.85, 0.8))]
    with eagerly(True):
        return harness.train("cascade", boxes, folder / "run", training=boxes[:2], validation=boxes[2:], **BOTH)


@pytest.fixture(scope="module")
def unseen(painted, tmp_path_factory):
    return copied(painted[2], tmp_path_factory.mktemp("unseen") / "box.h5", sigma8=0.8)


@pytest.mark.slow
def test_what_was_normalised_by_travels_with_the_run(given, painted):
    fields = []
    for path in painted[:2]:
        with kg.Simulation(path) as box:
            fields.append(mean_velocity(box["final/position"][...], box["final/velocity"][...], 32, box.boxsize))
    again = kg.load(given.folder)
    for network in again.networks.values():
        mean, spread = network.get_layer("normalised_parameters").get_weights()
        np.testing.assert_allclose([mean, spread], [[0.3111, 0.8], [1, 0.05]], rtol=1e-5)
        mean, spread = network.get_layer("normalised_velocity").get_weights()
        np.testing.assert_allclose([mean, spread], [[0] * 3, [np.sqrt(np.mean(np.square(fields)))] * 3], rtol=1e-4)
    assert again.domain["sigma8"] == [0.75, 0.85] and again.config.names == ("Om0", "sigma8")


@pytest.mark.usefixtures("eager")
def test_a_run_with_parameters_and_velocities_is_asked(given, unseen, tmp_path):
    own = given.predict(unseen)
    other = given.predict(unseen, parameters={"sigma8": 0.76})
    assert own.header["parameters"] == "Om0 = 0.3111, sigma8 = 0.8"
    assert other.attributes()["parameters"] == "Om0 = 0.3111, sigma8 = 0.76"
    assert np.abs(other["probability"] - own["probability"]).max() > 1e-6
    with pytest.raises(DomainError, match="has sigma8 = 0.7, and the run was trained on sigma8 = 0.75 to 0.85"):
        given.predict(unseen, parameters={"sigma8": 0.7})
    with pytest.raises(SettingError, match="was not trained with h; its parameters are Om0, sigma8"):
        given.predict(unseen, parameters={"h": 0.7})
    silent = copied(unseen, tmp_path / "silent.h5", drop=["cosmology"])
    with pytest.raises(DataError, match="does not say its Om0, sigma8"):
        given.predict(silent)
    still = copied(unseen, tmp_path / "still.h5", drop=["final/velocity"])
    with pytest.raises(DataError, match="has no final/velocity"):
        given.predict(still)
    with pytest.raises(DataError, match="has no final/position and no final/velocity"):
        given.predict(np.zeros((32, 32, 32)), boxsize=12.5)


@pytest.mark.slow
@pytest.mark.usefixtures("eager")
def test_a_run_with_parameters_and_velocities_is_judged_and_gone_on_with(given, unseen, tmp_path):
    own = given.predict(unseen)["count"]
    silent = copied(unseen, tmp_path / "silent.h5", drop=["cosmology"])
    np.testing.assert_array_equal(given.predict(silent, parameters={"Om0": 0.3111, "sigma8": 0.8})["count"], own)
    assert "sigma8 = 0.7" in given.predict(unseen, parameters={"sigma8": 0.7}, outside_domain=True).notes[0]
    still = copied(unseen, tmp_path / "still.h5", drop=["final/velocity"])
    with pytest.raises(DataError, match="has no final/velocity"):
        given.evaluate(still)
    with pytest.raises(DomainError, match="sigma8 = 0.9"):
        given.evaluate(copied(unseen, tmp_path / "strong.h5", sigma8=0.9))
    judged = given.evaluate(unseen)
    assert judged["runs"]["run"]["squared_error"] > 0 and "boosted trees" in judged["baselines"]
    first = given.folder / "classify"
    shutil.copytree(first, tmp_path / "other" / "classify")
    with pytest.raises(RunError, match="phase 1 was trained with channels='density,velocity'; phase 2 needs the same"):
        harness.train("cascade", [], tmp_path / "other", training=[first.parents[1] / "box_0.h5"],
                      validation=[first.parents[1] / "box_2.h5"], phase="regress", parameters="Om0,sigma8")


@pytest.mark.slow
def test_parameters_are_asked_for_on_the_command_line(given, unseen, tmp_path, invoke, eager):
    output = tmp_path / "out.h5"
    command = ["cascade", "predict", given.folder, unseen, "--output", output]
    done = invoke(*command, "--parameter", "sigma8=0.95", check=False)
    assert done.returncode == 1 and "sigma8 = 0.95" in done.stderr and "--outside-domain" in done.stderr
    done = invoke(*command, "--parameter", "A_SN1=1", check=False)
    assert done.returncode == 2 and "its parameters are Om0, sigma8" in done.stderr
    invoke(*command, "--parameter", "sigma8=0.8")
    with h5py.File(output) as file:
        np.testing.assert_allclose(file["probability"], given.predict(unseen)["probability"], atol=1e-6)
