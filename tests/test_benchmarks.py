"""That the benchmarks which are for other machines run at all, and count rightly."""

import json
from unittest import mock

import harness
import keras
import numpy as np
import pytest
from harness import BENCHMARKS, benchmark, disturbed, in_another_process

from kerasgal import registry
from kerasgal.apps.cascade import data, model, predict


WITHOUT = """
import sys

class Blocker:
    names = {"tensorflow", "tf_keras", "tensorflow_probability", "numba", "astropy", "skimage", "hdf5plugin", "click",
             "matplotlib", "galsim", "psutil"}

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in self.names:
            raise ImportError(f"{name} is not there")

sys.meta_path.insert(0, Blocker())
sys.path.insert(0, sys.argv[1])
import gpu
import importlib

for name in ("protohalo", "cascade", "cascade.diffusion", "morph"):
    for part in ("config", "network" if name.endswith("diffusion") else "model", "losses"):
        if (name, part) != ("cascade.diffusion", "losses"):
            importlib.import_module(f"kerasgal.apps.{name}.{part}")
gpu.STEPS = 1
row = gpu.measure("halomass", "tiny", "float32", 2, "keras")
assert row["training"] > 0 and row["prediction"] > 0 and row["device"].startswith("JAX"), row
"""


@pytest.mark.slow
def test_the_gpu_benchmark_runs_on_jax_without_tensorflow_and_all_else():
    in_another_process(WITHOUT, BENCHMARKS, backend="jax")


def test_operations_are_counted_as_the_papers_network_has_them():
    """halomass's network has 17.08 thousand million multiplications and additions per cube of 75^3."""
    from kerasgal.apps.halomass.model import cnn

    gpu = benchmark("gpu")
    counted = gpu.operations_of(cnn(), [np.zeros((1, 75, 75, 75, 1), np.float32)])
    assert counted == pytest.approx(2 * 17.08e9, rel=1e-3)
    assert keras.layers.Layer.__call__.__name__ == "__call__"


@pytest.mark.parametrize("layer, size, multiplications", [
    (keras.layers.Conv2D(3, 3, padding="valid"), (6, 5, 2), 3 * 3 * 2 * 3 * (4 * 3)),
    (keras.layers.Conv2DTranspose(3, 2, strides=2), (6, 5, 2), 2 * 2 * 2 * 3 * (6 * 5)),
    (keras.layers.Dense(7), (4,), 28),
], ids=["convolution", "transposed", "dense"])
def test_operations_of_a_layer_are_those_of_its_definition(layer, size, multiplications):
    network = keras.Sequential([keras.Input(size), layer, keras.layers.ReLU()])
    assert benchmark("gpu").operations_of(network, [np.zeros((2, *size), np.float32)]) == 2 * multiplications


@pytest.mark.parametrize("name", ["protohalo", "halomass", "cascade classify", "cascade regress", "diffusion", "morph"])
def test_the_gpu_benchmark_builds_every_network(name):
    network, loss, shapes, _, _ = benchmark("gpu").made(name, "tiny")
    assert len(network.inputs) == len(shapes) and keras.losses.get(loss)


@pytest.mark.parametrize("name, app, settings", [
    ("protohalo", "protohalo", {}), ("halomass", "halomass", {}),
    ("r2unet", "cascade", {"classifier": "r2unet"}), ("inception", "cascade", {"classifier": "inception"}),
    pytest.param("pixelcnn", "morph", {"likelihood": "logistic"}, marks=pytest.mark.slow)])
def test_what_is_compared_with_pytorch_takes_its_batches(name, app, settings, eager):
    model, stream = benchmark("peers").ours(name, harness.config_of(app, **settings))
    assert np.isfinite(model.test_on_batch(*next(iter(stream)))).all()


def test_sub_cubes_are_predicted_with_zeros_beyond_their_faces(painted, eager):
    padding, cls = benchmark("padding"), registry.run_class("cascade")
    config = harness.config_of("cascade", surroundings=True, focus=16, threshold=0.0)
    made = {phase: disturbed(cls.build(config, phase)) for phase in cls.phases}
    whole, cubes, depth = padding.errors(cls(config, made), painted[0])
    assert whole.shape == cubes.shape == depth.shape == (32,) * 3
    # With a threshold of zero all cells are taken, and the second half of the box is a sub-cube.
    density, counts = data.load(painted[0], config)
    cut = (slice(16, None),) * 3
    seen = predict.surroundings(model.surroundings(), density[..., None], config)[cut]
    expected = np.maximum(made[predict.REGRESS](seen[None])[0, ..., 0], 0)
    np.testing.assert_allclose(cubes[cut], np.square(expected - counts[cut]), rtol=1e-3, atol=1e-5)
    assert not np.allclose(whole[cut], cubes[cut], rtol=1e-3, atol=1e-5)
    assert np.bincount(depth.ravel()).tolist() == [8 * (side**3 - (side - 2)**3) for side in range(16, 0, -2)]


def test_the_determinant_of_a_covariance_has_no_bias_where_stamps_are_few():
    stamps, mixed = benchmark("stamps"), np.random.default_rng(0).normal(size=(60, 60))
    true = np.linalg.slogdet(mixed @ mixed.T)[1]
    found = [stamps.log_determinant(np.random.default_rng(seed).normal(size=(100, 60)) @ mixed.T)
             for seed in range(40)]
    assert np.mean(found) == pytest.approx(true, abs=4 * np.std(found) / len(found)**0.5)
    assert np.std(found) < 2  # without the correction it would be low by 24


def test_the_peer_of_an_n_body_step_computes_the_same_forces():
    from kerasgal.nbody import gravity

    position = np.random.default_rng(0).uniform(0, 10, (200, 3)).astype(np.float32)
    own = gravity(position, 16, 10.0)
    np.testing.assert_allclose(benchmark("peers").plain_gravity(np, position, 16, 10.0), own, rtol=0,
                               atol=1e-4 * own.std())


PRINTS = f"""
import sys
sys.path.append({str(BENCHMARKS)!r})
from bars import claim, verdict
print("some rate: 3, which is no bar")
verdict("time, ours / theirs", 0.504, 0.5)
verdict("rate", 0.95, 0.95, "of a copy", least=True)
claim("labels are the same", sys.argv[1:] == ["--fine"])
"""


def test_one_command_prints_all_bars_and_says_what_was_not_measured(monkeypatch, tmp_path, capfd):
    bars = benchmark("bars")
    (tmp_path / "prints.py").write_text(PRINTS)
    (tmp_path / "fails.py").write_text("raise SystemExit(3)")
    known = {"good": ([f"{tmp_path}/prints.py", "--fine"], ()), "bad": ([f"{tmp_path}/fails.py"], ()),
             "without": (["none.py"], ("no_such_package", "json"))}
    monkeypatch.setattr(bars, "BENCHMARKS", known)
    assert bars.main(["good"])
    assert not bars.main(list(known))
    said = capfd.readouterr().out
    assert said.count("some rate") == 2
    assert said.splitlines()[-7:] == [
        "All bars",
        "good        time, ours / theirs: 0.504, at most 0.5: does not hold",
        "good        rate: 0.95 of a copy, at least 0.95 of a copy: holds",
        "good        labels are the same: holds",
        "bad         ended with exit code 3: the rest was not measured",
        "without     not measured: there is no no_such_package",
        "2 hold, 1 do not, 2 not measured"]


def test_every_benchmark_of_the_one_command_is_there_with_its_options():
    for name, ((script, *options), _) in benchmark("bars").BENCHMARKS.items():
        text = (BENCHMARKS / script).read_text()
        assert [option for option in options if option.startswith("--") and f'"{option}"' not in text] == [], name


def test_peers_are_measured_one_by_one_and_say_whether_the_aim_holds(monkeypatch, capsys):
    peers = benchmark("peers")
    done = []
    monkeypatch.setattr(peers, "compare", lambda name, *more: done.append(name))
    monkeypatch.setattr(peers, "find_spec", lambda name: name)
    monkeypatch.setattr(peers, "gravity_beside_arrays", lambda: done.append("gravity"))
    peers.main(mock.Mock(only=["gravity", "r2unet"], agree=False, cores=[1]))
    assert done == ["r2unet", "gravity"]
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="need PyTorch"):
        peers.main(mock.Mock(only=["r2unet"], agree=False, cores=[1]))
    peers.main(mock.Mock(only=["gravity"], agree=False, cores=[1]))
    monkeypatch.setattr(peers, "timed", lambda way, times: {"cpu": way()})
    peers.alternated("work", {"ours": lambda: 3, "one": lambda: 2, "other": lambda: 4}, 1)
    assert capsys.readouterr().out.splitlines()[-1] == ("  work, CPU time, ours / one or other: 1.5, at most 1: "
                                                        "does not hold")


def test_a_peer_is_judged_by_the_median_of_the_ratios_to_the_faster_layout(capsys):
    """Rounds of 2 / min(4, 5), 3 / min(9, 4) and 1 / min(2, 4): 0.5, 0.75 and 0.5; of wall time 1, 0.8 and 0.7."""
    peers = benchmark("peers")

    def rounds(cpu, wall):
        return [{"cpu": one, "wall": other} for one, other in zip(cpu, wall)]

    answers = {"ours": rounds([2, 3, 1], [5, 4, 7]), "torch": rounds([4, 9, 2], [5, 5, 20]),
               "torch channels-last": rounds([5, 4, 4], [9, 8, 10])}
    peers.judge("inception", "1 core", 2, answers, busy=False)
    assert capsys.readouterr().out.splitlines() == [
        "  ours                   1000.00 CPU ms per sample   2500.00 ms wall",
        "  torch                  2000.00 CPU ms per sample   2500.00 ms wall",
        "  torch channels-last    2000.00 CPU ms per sample   4500.00 ms wall",
        "  inception, 1 core, CPU time, ours / torch of the faster layout: 0.5, at most 0.7: holds",
        "  inception, 1 core, wall time, ours / torch of the faster layout: 0.8, at most 0.7: does not hold"]
    peers.judge("inception", "1 core with others", 2, answers, busy=True)
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "  CPU time, ours / torch of the faster layout: 0.50",
        "  inception, 1 core with others, wall time, ours / torch of the faster layout: 0.8, at most 1: holds"]


def test_the_gpu_benchmark_fails_where_a_row_was_not_measured(monkeypatch, capsys):
    gpu = benchmark("gpu")
    monkeypatch.setattr("sys.argv", ["gpu.py", "--networks", "protohalo", "morph", "--ways", "XLA"])
    monkeypatch.setattr(gpu, "in_process", lambda chosen, name, *more: None)
    with pytest.raises(SystemExit, match="4 rows could not be measured"):
        gpu.main()
    monkeypatch.setattr(gpu, "in_process", lambda chosen, name, *more: {"device": "one"} if name == "morph" else None)
    with pytest.raises(SystemExit, match="2 rows could not be measured"):
        gpu.main()
    assert capsys.readouterr().out.splitlines()[-1] == "one"


def test_a_step_from_the_disk_is_of_batches_read_after_the_memory_of_the_file_was_emptied(monkeypatch, tmp_path):
    disk, done = benchmark("disk"), []
    monkeypatch.setattr(disk.os, "posix_fadvise", lambda *given: done.append("emptied"))
    network = mock.Mock(train_on_batch=lambda batch: done.append(batch))
    stream = ((number,) for number in range(100))
    with open(tmp_path / "scratch", "wb") as file:
        assert len(disk.block(network, stream, file)) == disk.BLOCK
    steps = [word for number in range(disk.WAITING, disk.WAITING + disk.BLOCK) for word in ("emptied", number)]
    assert done == ["emptied"] * disk.WAITING + steps
    done.clear()
    disk.block(network, stream, None)
    assert done == list(range(2 * disk.WAITING + disk.BLOCK, 2 * (disk.WAITING + disk.BLOCK)))


def test_ranges_of_k_in_which_there_is_none_are_left_out_with_their_label():
    k, ratio = np.array([0.6, 0.9, 3.0]), np.array([[1.0, 3.0, 5.0], [2.0, 4.0, 6.0]])
    found = benchmark("cola").in_edges(k, ratio)
    assert {edges: values.tolist() for edges, values in found.items()} == {(0.5, 1): [2.0, 3.0], (2, 4): [5.0, 6.0]}


def test_what_was_asked_of_networks_is_printed_line_by_line_with_its_verdict(tmp_path, capsys):
    """Numbers are made up, so that each line is known."""
    results = benchmark("results")
    good = {"loss": 0.5, "adaptive": {"dice": 0.79, "mean_absolute_residual": 0.1}, "twin_loss": 0.39,
            "twin": {"dice": 0.87, "mean_absolute_residual": 0.05}}
    assert [results.judged(*line)[1] for line in results.protohalo(good)] == [True, True, False]
    assert [results.judged(*line)[1] for line in results.longer_protohalo(good)] == [False, False, False]
    text, _ = results.judged(*results.protohalo(good)[1])
    assert text.split() == "Dice of the cells 0.790 at least 0.780 holds twins 0.870".split()

    def entry(squared_error, residual):
        return {"squared_error": squared_error, "bispectra": {"paper": {"residual": residual, "residual_error": 0.1}}}

    run = entry(30.0, 0.2) | {"calibration": [1.02, 0.96, 3.0], "power_residual_by_scale": {"as_it_is": {"all": 0.25}}}
    made = {"runs": {"cascade": run}, "k": [1.0, 3.0, 5.0], "table": [
        {"run": "cascade", "galaxies": 102.0, "true_galaxies": 100.0}, {"run": "other", "galaxies": 1.0},
        {"run": "cascade", "galaxies": 95.0, "true_galaxies": 100.0}],
        "baselines": {"boosted trees": entry(40.0, 0.3), "halo model": entry(None, 0.25), "told": entry(None, 0.1)},
        "bounds": {"exact expectation": entry(20.0, 0.05), "another drawing": entry(None, 0.14)}}
    lines = {line[0]: results.judged(*line) for line in results.cascade(made)}
    assert {words: holds for words, (_, holds) in lines.items()} == {
        "Eq. 2, over trees'": True, "number of galaxies, from one": True,  # 1.5% too few
        "P_xy / P_xx up to 4 h/Mpc, from one, largest of a bin": False, "P(k) of the field as it is": True,
        "bispectrum, beside trees'": True, "bispectrum, beside that of 'halo model'": True,
        "bispectrum, beside that of 'told'": False, "bispectrum": True}
    assert lines["Eq. 2, over trees'"][0].endswith("0.750  at most  1.000   holds          exact expectation 0.500")
    assert results.judged(*results.longer_cascade(made)[0])[1]  # 0.75 of the trees', where 0.85 is asked
    made["runs"]["other"], made["table"][1]["galaxies"] = entry(31.0, 0.3), 200.0
    text, holds = results.judged(*results.cascade_machines(made)[0])  # 197 galaxies and 200
    assert holds and text.split()[-5:] == ["0.015", "at", "most", "0.030", "holds"]
    assert not results.sampler({"sampler": "multistep", "steps": 25}, None)
    studied = {"steps": 25, "power": 0.96, "power_error": 0.01, "ratio": [0.9, None, 1.02]}
    study = {"multistep": [{"steps": 50}, studied]}
    text, holds = results.judged(*results.sampler({"sampler": "multistep", "steps": 25}, study)[0])
    assert not holds and text.endswith("error 0.010; largest of a bin 0.100")
    del made["baselines"]["boosted trees"]  # as of a network that comes without its training simulations
    text, holds = results.judged(*results.cascade(made)[0])
    assert "not measured" in text and not holds

    (tmp_path / "metrics.json").write_text(json.dumps({"sets": {"smooth": {"area_under_curve": 0.86}}}))
    with pytest.raises(SystemExit) as ended:
        results.main([f"morph={tmp_path}"])
    assert not ended.value.code and capsys.readouterr().out.split()[-1] == "holds"
    with pytest.raises(SystemExit, match="results.py protohalo="):
        results.main([f"unknown={tmp_path}"])


def test_the_error_of_a_centre_that_is_known_to_a_spread_is_that_of_the_normal_distribution(monkeypatch):
    from scipy.stats import norm

    from kerasgal.galaxies import Painting

    centres = benchmark("centres")
    monkeypatch.setattr(centres, "PLACES", 3000)
    guess, cells, spread = np.array([[2.3, 1.5, 2.5]]), 4, 0.3
    painting = Painting(boxsize=4.0, centre=guess, radius=np.ones(1), concentration=np.full(1, 5.0),
                        stretch=np.eye(3)[None], central=np.ones(1), satellites=np.zeros(1))
    counts = np.zeros((cells,) * 3)
    counts[2, 1, 2] = 1
    edges = norm.cdf(np.arange(cells + 1) - guess.T, scale=spread)
    chance = np.einsum("i,j,k->ijk", *np.diff(edges, axis=1))
    found = centres.error(painting, counts, guess, spread, np.random.default_rng(0)) / centres.LOSS_CELLS
    assert found == pytest.approx(np.mean((chance - counts)**2), rel=0.03)
    assert centres.error(painting, counts, guess, 0, np.random.default_rng(0)) == 0


def test_the_centroid_of_the_densest_cell_finds_a_centre_on_the_grid():
    from kerasgal.galaxies import Painting
    from kerasgal.grid import density_contrast

    centres, boxsize, rng = benchmark("centres"), 8.0, np.random.default_rng(0)
    true = np.array([[0.1, 3.7, 5.5], [6.0, 1.2, 7.9]])  # two are at a face
    particles = (true[:, None] + 0.2 * rng.normal(size=(2, 4000, 3))).reshape(-1, 3) % boxsize
    painting = Painting(boxsize, true, np.ones(2), np.full(2, 5.0), np.eye(3)[None].repeat(2, 0), np.array([1.0, 1.0]),
                        np.array([0.0, 3.0]))
    offset, galaxies = centres.guessed(painting, density_contrast(particles.astype("f4"), 16, boxsize))
    assert np.abs(offset).max() < 0.03 and galaxies.tolist() == [1, 4]
