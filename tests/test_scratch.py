"""Volumes in a scratch file: the same samples and the same runs as from memory, within a budget."""

import os

import h5py
import harness
import numpy as np
import pytest

import kerasgal as kg
from kerasgal.cutting import cut
from kerasgal.errors import DataError, SettingError
from kerasgal.pipeline import patches, tiles
from kerasgal.scratch import Store, Stored, bytes_of


def volumes_of(shapes, channels=(1, 2)):
    rng = np.random.default_rng(0)
    return [tuple(rng.normal(size=(*shape, number)).astype(np.float32) for number in channels) for shape in shapes]


@pytest.mark.parametrize("text, size", [("4GB", 4 * 10**9), ("4g", 4 * 10**9), ("1.5MiB", 3 * 2**19), ("70", 70),
                                        (10**6, 10**6), ("2 kB", 2000), ("0", 0)])
def test_sizes_are_read_as_people_write_them(text, size):
    assert bytes_of(text) == size


@pytest.mark.parametrize("text", ["much", "4XB", "-1", "", True, "GB", 1.5e300, None])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(SettingError, match="it must be a number of bytes"):
        bytes_of(text)


def test_a_block_from_the_file_is_numpys_of_wrapped_indices(tmp_path):
    array, = volumes_of([(5, 6, 7)], channels=(2,))[0]
    with Store(0, tmp_path / "run").passing() as store:
        _, (stored,) = store.keep(volumes_of([(3, 4, 2)])[0]), store.keep([array])
        assert isinstance(stored, Stored) and stored.shape == array.shape
        np.testing.assert_array_equal(np.asarray(stored), array)
        for corner, sides in (((0, 0, 0), (2, 3, 4)), ((4, 5, 6), (5, 6, 7)), ((1, 5, 3), (5, 2, 7))):
            expected = array
            for axis in range(3):
                expected = expected.take(range(corner[axis], corner[axis] + sides[axis]), axis, mode="wrap")
            np.testing.assert_array_equal(cut(stored, corner, sides), expected)


@pytest.mark.parametrize("symmetries, seed", [(None, None), (None, 3), ("rotations", 5), ("reflections", 6)])
def test_batches_are_those_from_memory_bit_for_bit(symmetries, seed, tmp_path):
    volumes = volumes_of([(6, 6, 6), (8, 8, 8), (6, 6, 6)], channels=(4, 4))
    corners = [tiles(6, 1), tiles(8, 4), tiles(6, 2)]
    options = {"seed": seed, "symmetries": symmetries, "vector": 1 if symmetries else None}
    for memory in (0, 6**3 * 32, 10**6):
        with Store(memory, tmp_path / "run").passing() as store:
            kept = [store.keep(arrays) for arrays in volumes]
            stored = [isinstance(arrays[0], Stored) for arrays in kept]
            assert stored == {0: [True] * 3, 6**3 * 32: [False, True, True], 10**6: [False] * 3}[memory]
            made = [patches(given, corners, 4, 3, **options).take(20) for given in (volumes, kept)]
            batches = 0
            for one, other in zip(*made, strict=True):
                batches += 1
                for ours, theirs in zip(one, other, strict=True):
                    assert ours.numpy().tobytes() == theirs.numpy().tobytes()
            assert batches == 20


def test_boxes_of_one_grid_share_the_places_of_their_patches():
    one = tiles(12, 1)
    assert tiles((12, 12, 12), 1) is one and not one.flags.writeable
    np.testing.assert_array_equal(one, np.arange(12**3))


def test_the_scratch_file_has_no_name_and_its_room_is_given_back_whatever_happens(tmp_path):
    store = Store(0, tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        with store.passing():
            (stored,) = store.keep([np.ones((4, 4, 4, 1), np.float32)])
            with store.passing():
                store.keep([np.ones((8, 8, 8, 1), np.float32)])
                assert os.fstat(store.file.fileno()).st_size == 4 * (4**3 + 8**3)
            assert os.fstat(store.file.fileno()).st_size == 4 * 4**3
            assert list(tmp_path.iterdir()) == []
            raise KeyboardInterrupt
    assert os.fstat(store.file.fileno()).st_size == 0
    with pytest.raises(DataError, match="scratch file of this training is gone"):
        np.asarray(stored)


def test_a_disk_without_room_for_all_boxes_is_said_before_the_first_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 5 * 4 * 8**3})())
    store, box = Store(0, tmp_path / "run"), [np.ones((8, 8, 8, 1), np.float32)]
    with store.passing(boxes=5):
        store.keep(box)
    with store.passing(boxes=6), pytest.raises(DataError, match="no space left for the boxes that memory does not hold"
                                                                ": it needs 0.0123 MB, and 0.0102 MB are free"):
        store.keep(box)
    assert os.fstat(store.file.fileno()).st_size == 0


def weights(folder):
    found = {}
    for path in sorted(folder.rglob("*.weights.h5")):
        with h5py.File(path) as file:
            file.visititems(lambda name, item, path=path: found.update(
                {(str(path.relative_to(folder)), name): item[...]}) if hasattr(item, "shape") else None)
    return found


@pytest.mark.parametrize("app, options, place", [
    ("halomass", {}, "."), pytest.param("cascade", {"phase": "classify"}, "classify", marks=pytest.mark.slow)])
def test_a_run_within_a_budget_is_the_run_without_one(app, options, place, request, trained, tmp_path, caplog):
    """Bit for bit."""
    caplog.set_level("INFO", "kerasgal")
    data = request.getfixturevalue(harness.RECIPES[app].data)
    harness.train(app, data, tmp_path / "run", memory="10kB", **options)
    assert "boxes beyond 1e-05 GB of memory are read from a scratch file in" in caplog.text
    one, other = (weights(run / place) for run in (trained(app), tmp_path / "run"))
    assert one.keys() == other.keys() and len(one) > 10
    for key in one:
        assert one[key].tobytes() == other[key].tobytes(), key
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_the_second_network_of_cascade_sees_what_the_first_one_says(trained, painted, tmp_path):
    from kerasgal.apps.cascade import train

    run, made = kg.load(trained("cascade")), []
    for memory in (None, 0):
        with Store(memory, tmp_path / "run").passing() as store:
            boxes, _ = train.load(painted[:1], painted[1:2], run.config, store)
            target, = train.masked_counts(run.networks["classify"], boxes, run.config, store)
            assert isinstance(target, Stored) == (memory == 0)
            made.append(np.asarray(target))
    assert made[0].shape[-1] == 2 and made[0].tobytes() == made[1].tobytes()


def first_batches(app, sources, store):
    """The first batches of training and validation of an app that keeps its boxes in a store, arrays."""
    if app == "protohalo":
        from kerasgal.apps.protohalo import train

        config = harness.config_of(app)
        stream, validation = train.streams(*(train.load([source], config, store)[0] for source in sources), config)
        return [*next(iter(stream(0))), *next(iter(validation(1)))]
    from kerasgal.apps.cascade.diffusion import data, train

    config = harness.config_of(app, dimensions=3, patch=8)
    samples = [train.load(source, config, store) for source in sources]
    found = [next(iter(data.dataset(samples, config, 8, seed=seed)))[0] for seed in (1, None)]
    return [array for batch in found for array in batch]


@pytest.mark.parametrize("app", ["protohalo", "cascade diffusion"])
def test_an_app_sees_the_same_from_the_file(app, request, tmp_path):
    sources = request.getfixturevalue(harness.RECIPES[app].data)[:2]
    with Store(folder=tmp_path / "run").passing() as all_of_it, Store("10kB", tmp_path / "run").passing() as little:
        one, other = (first_batches(app, sources, store) for store in (all_of_it, little))
        assert all_of_it.file is None and little.end == 2 * 32**3 * 8
    for ours, theirs in zip(one, other, strict=True):
        assert np.asarray(ours).tobytes() == np.asarray(theirs).tobytes()
    assert np.asarray(one[0]).any()


def test_what_cannot_be_kept_within_a_budget_is_refused_in_one_line(boxes, tmp_path, invoke):
    places = {"run": tmp_path / "run", "memory": "10kB"}
    with pytest.raises(SettingError, match="memory=10kB: morph holds all that it trains on in memory"):
        kg.train("morph", ["nothing.fits"], **places)
    for settings, words in (({"input": "final"}, "final particles"),
                            ({"input": "averaged", "shells": 3}, "the averages around")):
        with pytest.raises(SettingError, match=f"memory=10kB: {words}.* are held in memory as a whole and take"):
            harness.train("halomass", boxes, tmp_path / "run", memory="10kB", padding="same", **settings)
    done = invoke("protohalo", "train", *boxes[:2], "--memory", "much", "--run", tmp_path / "run", check=False)
    assert done.returncode == 2 and "--memory much: it must be a number of bytes" in done.stderr
    assert not (tmp_path / "run").exists()
