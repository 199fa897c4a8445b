import filecmp
import json
import logging
import os
from unittest import mock

import h5py
import numpy as np
import pytest
from pieces import dying, squared, who

from kerasgal import cluster
from kerasgal.errors import DataError, MissingError, SettingError


@pytest.fixture(scope="module")
def client():
    """Two processes, as `--dask local` has them on two cores."""
    pytest.importorskip("distributed")
    with mock.patch("os.cpu_count", return_value=2), cluster.connect("local") as client:
        client.wait_for_workers(2, timeout=120)
        yield client


def same_files(one, other):
    names = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert names and names == sorted(path.relative_to(other) for path in other.rglob("*") if path.is_file())
    assert [name for name in names if not filecmp.cmp(one / name, other / name, shallow=False)] == []


def test_results_come_in_order_with_what_was_logged_from_both_processes(client, caplog):
    assert list(cluster.each(squared, [2, 1, 5], client)) == [4, 1, 25]
    assert [record.getMessage() for record in caplog.records] == [f"squaring {number}" for number in (2, 1, 5)]
    found = set(cluster.each(who, range(8), client))
    assert len(found) == 2 and os.getpid() not in found


def test_items_are_taken_as_they_are_needed(client):
    taken = []
    results = cluster.each(abs, (taken.append(number) or number for number in range(100)), client)
    assert next(results) == 0 and len(taken) <= 10
    results.close()


@pytest.mark.parametrize("where", ["here", "there"])
def test_errors_of_the_data_come_back_as_they_are_and_stop_nothing(request, where):
    client = request.getfixturevalue("client") if where == "there" else None
    (one, none), (nothing, error), (two, _) = cluster.outcomes(squared, [1, 3, 2], client)
    assert (one, none, nothing, two) == (1, None, None, 4)
    assert type(error) is SettingError and str(error) == "number=3: accepted is any other" and error.value == 3
    with pytest.raises(SettingError, match="number=3"):
        list(cluster.each(squared, [1, 3, 2], client))
    with pytest.raises(ZeroDivisionError):  # a fault of ours is not hidden
        list(cluster.outcomes(squared, [4], client))


def test_without_a_scheduler_there_is_one_line():
    pytest.importorskip("distributed")
    with pytest.raises(MissingError, match="dask=nowhere.* no scheduler answers"), cluster.connect("nowhere:1"):
        pass
    with mock.patch.dict("sys.modules", {"distributed": None}), \
         pytest.raises(MissingError, match=r"pip install 'kerasgal\[dask\]'"), cluster.connect("local"):
        pass


def test_simulations_are_the_same_bytes(client, invoke, tmp_path):
    words = ["--particles", 8, "--boxsize", 10, "--realisations", 3, "--minimum", 2, "--steps", 2]
    said = [invoke("simulate", tmp_path / place / "box.h5", *words, *more).stdout.replace(f"{tmp_path / place}", "")
            for place, more in (("one", ()), ("two", ("--dask", client.scheduler.address)))
            if (tmp_path / place).mkdir() is None]
    assert said[0] == said[1] and "box_2.h5: 8^3 particles" in said[0]
    same_files(tmp_path / "one", tmp_path / "two")


def test_conversions_are_the_same_bytes_and_a_broken_row_is_said(client, invoke, tmp_path):
    for number in range(3):
        np.save(tmp_path / f"{number}.npy", np.random.default_rng(number).random((4, 4, 4)).astype(np.float32))
    (tmp_path / "3.npy").write_bytes(b"nothing")
    table = tmp_path / "table.csv"
    table.write_text("output,density\n" + "".join(f"{number}.h5,{tmp_path / f'{number}.npy'}\n" for number in range(4)))
    words = ["--manifest", table, "--quantity", "rho", "--boxsize", 10, "--redshift", 0, "--omega-matter", 0.3,
             "--hubble", 0.7]
    done = [invoke("convert", tmp_path / place, *words, *more, check=False)
            for place, more in (("one", ()), ("two", ("--dask", client.scheduler.address)))]
    assert done[0].returncode == done[1].returncode == 1
    assert done[0].stderr.replace("/one/", "/two/") == done[1].stderr and "3.h5: failed" in done[0].stderr
    assert "two: 3 done, 0 skipped, 1 failed" in done[1].stdout
    same_files(tmp_path / "one", tmp_path / "two")
    again = invoke("convert", tmp_path / "two", *words, "--dask", client.scheduler.address, check=False)
    assert "two: 0 done, 3 skipped, 1 failed" in again.stdout
    for more in (("--jobs", 2), ("--manifest", "")):
        assert invoke("convert", tmp_path / "x", *words, *more, "--dask", "local", check=False).returncode == 2


def test_predictions_are_the_same_bytes_and_an_input_that_fails_is_said(client, trained, boxes, invoke, tmp_path):
    words = ["protohalo", "predict", trained("protohalo"), *boxes[1:], tmp_path / "none.h5", "--format", "csv"]
    done = [invoke(*words, "--output", f"{tmp_path / place}/", *more, check=False)
            for place, more in (("one", ()), ("two", ("--dask", client.scheduler.address)))]
    assert done[0].returncode == done[1].returncode == 1
    assert done[0].stderr == done[1].stderr and "none.h5" in done[1].stderr
    assert done[0].stdout.replace("/one/", "/two/") == done[1].stdout
    same_files(tmp_path / "one", tmp_path / "two")


def test_evaluations_have_the_same_numbers(client, trained, boxes, unseen, invoke, tmp_path, monkeypatch):
    monkeypatch.setattr("kerasgal.run.Evaluation.figures", lambda self: {})  # which take longer than all else
    other, said = unseen("boxes")[0], []
    for place, where in (("one", ()), ("two", ("--dask", client.scheduler.address))):
        done = invoke("protohalo", "evaluate", trained("protohalo"), boxes[2], other, "--output", tmp_path / place,
                      *where)
        said.append((done.stdout.replace(f"{tmp_path / place}", ""), done.stderr))
    assert said[0] == said[1]
    for name in ("metrics.json", "metrics.csv"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def pickled(pickle, function, items):
    """What `cluster.each` yields; what would go to another process and come back is pickled, by a module."""
    for item in items:
        there, given = pickle.loads(pickle.dumps((function, item)))
        yield pickle.loads(pickle.dumps(there(given)))


@pytest.fixture
def shared_alike(trained, request, unseen, monkeypatch):
    """A function that evaluates an app's trained run on two boxes, alone and in pieces, and asserts the same numbers.

    All but the other process: what goes there and comes back is pickled.
    """
    import kerasgal as kg

    def check(app, data, **options):
        pickle = pytest.importorskip("cloudpickle" if app == "halomass" else "pickle")  # whose pieces are closures

        def sent(function, items, client=None):
            return pickled(pickle, function, items) if client else map(function, items)

        def load(places, token):
            asked.append(places)
            return tuple(run if folder == run.folder else cls.load(folder) for cls, folder in places)

        run, asked = kg.load(trained(app)), []
        monkeypatch.setattr(cluster, "each", sent)
        monkeypatch.setattr(cluster, "_runs_of", load)
        monkeypatch.setattr("kerasgal.apps.cascade.trees.TREES", 3)
        boxes = [str(request.getfixturevalue(data)[2]), str(unseen(data)[0])]
        alone = run.evaluate(boxes, **options)
        assert not asked
        shared = run.evaluate(boxes, client="another process", **options)
        assert {places[0] for places in asked} == {(type(run), run.folder)}
        assert json.dumps(shared.metrics) == json.dumps(alone.metrics) and shared.lines == alone.lines

    return check


@pytest.mark.parametrize("app, data, options", [
    ("halomass", "boxes", {"sample": 500}), pytest.param("cascade", "painted", {}, marks=pytest.mark.slow),
    pytest.param("cascade diffusion", "painted", {"draws": 2, "steps": 2, "maps": 1}, marks=pytest.mark.slow)])
def test_evaluations_in_pieces_that_are_sent_have_the_same_numbers(app, data, options, shared_alike):
    shared_alike(app, data, **options)


@pytest.mark.slow
def test_a_regressor_goes_with_the_draws_that_it_is_compared_with(trained, shared_alike):
    shared_alike("cascade diffusion", "painted", draws=2, steps=1, maps=1, regressor=trained("cascade"))


def test_the_evaluation_of_draws_is_put_together_from_pieces(shared_alike, monkeypatch):
    """Of made-up draws, which are quick; the network's are in another test."""
    from kerasgal.apps.cascade.diffusion import evaluate

    def drawn(model, config, density, draws, *, seed, **options):
        rng = np.random.default_rng(seed)
        return rng.poisson(0.1 * density, (draws, *density.shape)).astype(np.float32)

    monkeypatch.setattr(evaluate.sample, "draw", drawn)
    monkeypatch.setattr(evaluate, "forest_of", lambda run: None)
    monkeypatch.setattr(evaluate.baseline, "chosen", lambda *given: None)
    shared_alike("cascade diffusion", "painted", draws=3)


def test_what_other_processes_cannot_read_is_refused(client, trained, boxes):
    import kerasgal as kg

    run = kg.load(trained("protohalo"))
    with kg.open(boxes[2]) as box, pytest.raises(SettingError, match="cannot read a simulation in the memory"):
        run.evaluate([boxes[2], box], client=client)
    run.folder = None
    with pytest.raises(SettingError, match="cannot load a run in the memory of this one"):
        run.evaluate(boxes[2], client=client)


def test_scores_are_the_same_bytes_and_are_gone_on_with(client, trained, galaxies, invoke, tmp_path, monkeypatch):
    from kerasgal.apps.morph import score

    monkeypatch.setattr(score, "BATCH", 16)
    (tmp_path / "broken.fits").write_bytes(b"SIMPLE")
    words = ["morph", "score", trained("morph"), galaxies / "real.h5", tmp_path / "broken.fits"]
    there = ("--dask", client.scheduler.address)
    for place, more in (("one", ()), ("two", there)):
        (tmp_path / place).mkdir()
        done = invoke(*words, "--output", tmp_path / place / "scores.csv", "--maps", tmp_path / place / "maps.h5",
                      *more, check=False)
        assert done.returncode == 1 and "41 images, 1 of which could not be scored" in done.stdout
    same_files(tmp_path / "one", tmp_path / "two")

    whole = score.score_on

    def stopped(*arguments, **options):
        for number, rows in enumerate(whole(*arguments, **options)):
            if number == 2:
                raise KeyboardInterrupt
            yield rows

    with monkeypatch.context() as patched:
        patched.setattr("kerasgal.apps.morph.tables.score_on", stopped)
        done = invoke(*words, "--output", tmp_path / "parts.csv", *there, check=False)
        assert done.returncode == 130 and "--resume" in done.stderr
    invoke(*words, "--output", tmp_path / "parts.csv", *there, "--resume", check=False)
    assert filecmp.cmp(tmp_path / "parts.csv", tmp_path / "one" / "scores.csv", shallow=False)


@pytest.mark.slow
def test_sets_are_compared_by_scores_of_workers(trained, galaxies, monkeypatch):
    """All but the other process: batches and what is made of them are pickled."""
    import pickle

    import kerasgal as kg
    from kerasgal.apps.morph import score

    monkeypatch.setattr(score, "BATCH", 8)
    monkeypatch.setattr(score, "each", lambda function, items, client: pickled(pickle, function, items))
    run = kg.load(trained("morph"))
    sets = {"observed": galaxies / "unseen_real.h5", "smooth": galaxies / "unseen_archetypes.h5"}
    alone, shared = (run.evaluate(sets, control="sky", client=client) for client in (None, "another process"))
    assert json.dumps(shared.metrics) == json.dumps(alone.metrics) and shared.lines == alone.lines


def test_sets_are_compared_on_the_command_line(client, trained, galaxies, invoke, tmp_path, monkeypatch):
    from kerasgal.apps.morph import score

    monkeypatch.setattr(score, "BATCH", 8)
    words = ["morph", "evaluate", trained("morph"), f"observed={galaxies / 'unseen_real.h5'}",
             f"smooth={galaxies / 'unseen_archetypes.h5'}"]
    for place, more in (("one", ()), ("two", ("--dask", client.scheduler.address))):
        invoke(*words, "--output", tmp_path / place, *more)
    assert filecmp.cmp(tmp_path / "one" / "metrics.json", tmp_path / "two" / "metrics.json", shallow=False)


def test_protohaloes_by_blocks_are_those_of_the_whole_box(client, tmp_path):
    zarr = pytest.importorskip("zarr")
    from scipy import ndimage

    from kerasgal.apps.protohalo import blocks, watershed

    image = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(16, 16, 16)), 1.5, mode="wrap")
    image = np.ascontiguousarray(image / image.max(), np.float32)
    markers, _ = watershed.find_markers(image, 0.0, 0.2, 1)
    stored = zarr.create_array(tmp_path / "map.zarr", shape=image.shape, chunks=(4, 4, 4), dtype=np.float32)
    stored[...] = image
    labels = zarr.create_array(tmp_path / "labels.zarr", shape=image.shape, chunks=(4, 4, 4), dtype=np.int32)
    options = {"scratch": tmp_path / "scratch", "client": client}
    blocks.native(stored, markers, 0.0, labels, block=8, **options)
    np.testing.assert_array_equal(labels[...], watershed.native(image, markers, 0.0))
    with pytest.raises(SettingError, match="block=6: two blocks would write into one chunk of 4 cells"):
        blocks.native(stored, markers, 0.0, labels, block=6, **options)
    with pytest.raises(SettingError, match="in the memory of this one"):
        blocks.native(image, markers, 0.0, labels, block=8, **options)
    with pytest.raises(SettingError, match="`scratch` is missing"):
        blocks.native(stored, markers, 0.0, labels, block=8, client=client)


def test_distance_maps_by_blocks_are_those_of_the_whole_box(client, trained, boxes, tmp_path):
    zarr = pytest.importorskip("zarr")
    import kerasgal as kg
    from kerasgal.apps.protohalo import blocks

    run, out = kg.load(trained("protohalo")), tmp_path / "map.zarr"
    made = zarr.create_array(out, shape=(32, 32, 32), chunks=(16, 16, 16), dtype=np.float32)
    with h5py.File(boxes[2]) as file:
        blocks.predict_distance(run, file["initial/delta"], made, boxsize=25.0, block=16, client=client)
    np.testing.assert_allclose(made[...], run.predict(boxes[2]).distance, rtol=0, atol=1e-5)


def test_a_worker_that_dies_is_said_and_its_work_done_again(client, tmp_path, caplog):
    caplog.set_level(logging.WARNING, "kerasgal")
    assert list(cluster.each(dying, [str(tmp_path / "died"), str(tmp_path)], client)) == ["survived", "survived"]
    assert any("workers died; what they did is done again" in record.getMessage() for record in caplog.records)
    # More than the workers that are left keep in their queues
    pieces = [str(tmp_path)] * 5 + [str(tmp_path / "once more"), *[str(tmp_path)] * 10]
    assert list(cluster.each(dying, pieces, client)) == ["survived"] * 16


def test_work_that_kills_its_workers_is_an_error_and_the_rest_is_done(client, tmp_path):
    (result, error), (other, none) = cluster.outcomes(dying, [None, str(tmp_path)], client)
    assert result is None and type(error) is DataError and "piece 1 of the work was given up" in str(error)
    assert (other, none) == ("survived", None)
