"""Plans of trainings, and the preset that fits the boxes and the machine."""

import re
import shutil
import types

import harness
import pytest

import kerasgal as kg
from kerasgal import planning
from kerasgal.errors import DataError, RunError

FLAGS = ["--minimum", "20", "--filters", "2", "--levels", "1", "--steps-per-epoch", "3"]


def test_a_dry_run_says_what_would_be_trained_and_writes_nothing(boxes, tmp_path, invoke):
    said = invoke("protohalo", "train", *boxes[:2], *harness.flags("protohalo"), "--run", tmp_path / "new" / "run",
                  "--memory", "10kB", "--dry-run").stdout
    assert "data: 1 to train on, 1 to validate on" in said
    parameters = kg.Protohalo(harness.config_of("protohalo")).network.count_params()
    assert f"network: {parameters:,} parameters" in said
    # Corners every 4 of 32 cells, in 24 rotations; 2 epochs of 40 steps of 2
    assert f"samples: {8**3 * 24:,} with their symmetries, in batches of 2 x 16 x 16 x 16 x 1" in said
    assert "2 epochs of 40 steps show 160" in said and "step: " in said and "training: " in said and " in all" in said
    assert list(tmp_path.iterdir()) == []


def test_auto_chooses_a_patch_that_fits_the_box(boxes, tmp_path, trained, invoke):
    """The demo's patch has 64 cells, the boxes 32. A run that is to be replaced stays until then."""
    folder = shutil.copytree(trained("protohalo"), tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    said = invoke("protohalo", "train", *boxes[:2], *FLAGS, "--preset", "auto", "--run", folder, "--overwrite",
                  "--dry-run").stdout
    assert "preset auto, from demo: patch 32 (the smallest grid has 32 cells a side), batch 1" in said
    assert re.search(r"a sample takes \d+ ms in a step: [\d.]+ (s|min|h) for 48 steps\n", said)
    assert "settings: patch 32, batch 1, accumulation 1, precision float32" in said
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


class Measured:
    """In the place of `planning.plan`: a step takes 2 GB for each sample of 64^3 cells, less for smaller patches."""

    def __init__(self, monkeypatch, limit, most=10**9):
        self.tried, self.limit, self.most = [], limit, most
        monkeypatch.setattr(planning, "plan", self)

    def __call__(self, train, folder):
        config = train("anywhere")
        self.tried.append(config.patch)
        size = 2e9 * (config.patch / 64)**3 * config.batch
        if size > self.most:
            raise planning.Greedy("out of memory")
        return types.SimpleNamespace(step_memory=size, limit=self.limit, step=0.25 * config.batch, network="")


def chosen(monkeypatch, *, limit, grids=(64,), said=(), most=1e12, **settings):
    measured = Measured(monkeypatch, limit, most)
    cls = type("Made", (kg.Protohalo,), {
        "grid": classmethod(lambda cls, source, config: source),
        "train": classmethod(lambda cls, training, validation, run, config, overwrite: config)})
    config = cls.configure(preset="demo", **{"batch": 12, "steps_per_epoch": 10, **settings})
    made = planning.choose(cls, config, {*said, *settings} - {"batch", "steps_per_epoch"} | set(said), list(grids), [],
                           "run")
    return made, measured.tried


@pytest.mark.parametrize("limit, batch, accumulation", [(1e11, 12, 1), (3.9e10, 6, 2), (1.7e10, 4, 3), (4e9, 1, 12)])
def test_the_batch_fills_half_of_the_memory_and_accumulation_makes_up_for_it(monkeypatch, limit, batch, accumulation):
    made, _ = chosen(monkeypatch, limit=limit)
    assert (made.patch, made.batch, made.accumulation) == (64, batch, accumulation)
    assert made.steps_per_epoch == 10 * accumulation


def test_where_no_sample_fits_the_patch_is_the_next_smaller_one(monkeypatch):
    made, tried = chosen(monkeypatch, limit=2e9)
    assert made.patch == tried[-1] == 48 and tried == [64, 56, 48]  # multiples of 2^3; 2 GB (48 / 64)^3 < 1 GB
    made, tried = chosen(monkeypatch, limit=1e12, most=1e9)  # memory runs out in the step that is measured
    assert made.patch == 48 and tried == [64, 56, 48]
    with pytest.raises(DataError, match="not even one sample fits into memory"):
        chosen(monkeypatch, limit=1e3)


def test_the_patch_fits_the_smallest_box_and_what_was_given_stays(monkeypatch):
    assert chosen(monkeypatch, limit=1e11, grids=(64, 45))[0].patch == 40
    made, _ = chosen(monkeypatch, limit=1e11, said=("patch", "batch"), patch=48)
    assert (made.patch, made.batch, made.accumulation) == (48, 12, 1)
    with pytest.raises(DataError, match="no patch that the network takes fits into a box of 16 cells a side"):
        chosen(monkeypatch, limit=1e11, grids=(16,))  # a margin of 8 at each face leaves nothing


@pytest.mark.parametrize("app, grids, settings, patch", [
    ("halomass", [20], {}, 19), ("halomass", [8], {"input": "final"}, 21), ("cascade", [64, 40], {}, 32),
    ("cascade", [40], {}, 8), ("cascade", [48], {}, 24), ("cascade diffusion", [30, 30], {"patch": 64}, 28)])
def test_every_app_says_which_patches_it_can_cut(app, grids, settings, patch):
    cls = kg.registry.run_class(app)
    config = cls.configure(preset="demo", **settings)
    assert next(planning.patches(cls, config, grids)).patch == patch


def test_what_cannot_be_planned_is_refused_in_one_line(boxes, tmp_path, trained, invoke):
    for given, words in (([], "a plan needs simulations to look at"),
                         ([boxes[0], "--strategy", "workers"], "--strategy workers cannot be planned"),
                         ([boxes[0], "--preset", "auto", "--resume"], "leave --preset auto out"),
                         ([boxes[0], "--preset", "auto", "--strategy", "mirrored"], "--preset auto measures one dev")):
        done = invoke("protohalo", "train", *given, *FLAGS, "--run", tmp_path / "run", "--dry-run", check=False)
        assert done.returncode == 2 and words in done.stderr, done.stderr
        assert list(tmp_path.iterdir()) == []
    folder = trained("protohalo")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    with pytest.raises(RunError, match=f"^{folder} exists already"):
        kg.plan("protohalo", boxes[:2], run=folder, preset="demo")
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert invoke("morph", "train", "a.fits", "--preset", "auto", check=False).returncode == 2


@pytest.mark.slow
def test_a_plan_goes_on_from_a_run_and_times_are_added_up(trained):
    folder = trained("cascade")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    found = kg.plan("cascade", run=folder, resume=True, epochs=4)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert found.network == "classify" and found.epochs == 3 and "the first of several" in repr(found)
    assert 0 < found.step_memory <= found.memory < found.limit and found.step > 0 and found.validation > 0
    expected = found.prepared + found.compiled + 3 * (found.step + found.validation)
    assert found.seconds == pytest.approx(expected)


def test_times_are_said_in_two_figures():
    assert [planning.duration(seconds) for seconds in (0.123, 7.3, 119, 130, 9000, 86400 * 3.33)] == \
        ["0.12 s", "7.3 s", "119 s", "2.2 min", "2.5 h", "3.3 days"]
