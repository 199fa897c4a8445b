"""Runs against simulations that none of them saw, and against the halo model: Sec. 4 of Yip et al. 2019."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from kerasgal import statistics
from kerasgal.apps.cascade import baseline, data, figures, hod, metrics, predict
from kerasgal.errors import DataError
from kerasgal.files import replacing
from kerasgal.grid import deposit_ngp
from kerasgal.simulation import Simulation
from kerasgal.training import check_unseen, recorded_simulations

RECALLS = (0.9, 0.95, 0.99)  # at which phase 1 is held against a threshold on the density
SMOOTHING = 0.5  # cells, of the density that is thresholded: the best at cells of 0.39 Mpc/h
K1, K2, ANGLES = 1.2, 1.3, 20  # of the bispectrum [h/Mpc], as in the paper
DRAWS = 4  # catalogues of a halo model or a mean field whose spectra are averaged
TARGET, HALO_MODEL = "target", "halo model"


@dataclass
class Sample:
    """One simulation's fields, or the test cube's of it: each (n, n, n), in a box of side `boxsize` [Mpc/h]."""

    path: Path
    boxsize: float
    density: np.ndarray
    counts: dict  # of the target, each run, and each draw of the halo model: {name: [fields]}
    probability: dict  # {run: field}


def was_split(folder):
    """Whether a run was trained on one simulation split by volume, so that a part of this is left to test on."""
    training, validation = recorded_simulations(Path(folder) / predict.CLASSIFY)
    return len(training) == 1 and not validation


def region_of(folder, path, gridsize, patch):
    """The part of a simulation that a run never saw, three slices; raises DataError where there is none."""
    folder = Path(folder) / predict.CLASSIFY
    if was_split(folder.parent) and str(Path(path).resolve()) in recorded_simulations(folder)[0]:
        return (slice(data.test_corner(gridsize, patch), None),) * 3
    check_unseen(folder, [path])
    return (slice(None),) * 3


def collect(runs, model, path, tile=None, progress=lambda name, path: None):
    """The `Sample` of one simulation. runs: {name: (folder, Run)}; model: an `hod.HOD` for its haloes, or None."""
    config = next(iter(runs.values()))[1].config
    density, counts = data.load(path, config)
    n = len(density)
    regions = [region_of(folder, path, n, run.config.patch) for folder, run in runs.values()]
    region = max(regions, key=lambda slices: slices[0].start or 0)
    with Simulation(path, require=()) as simulation:
        boxsize = simulation.boxsize
        halos = baseline.haloes(simulation) if model else None
    fields, probability = {TARGET: [counts[region]]}, {}
    for name, (_, run) in runs.items():
        progress(name, path)
        predicted = predict.predict_field(run.network(), density, run.config, tile=tile)
        probability[name], fields[name] = predicted[..., 0][region], [predicted[..., 1][region]]
    if halos is not None:
        drawn = [hod.populate(halos, model, boxsize, np.random.default_rng(seed)) for seed in range(DRAWS)]
        fields[HALO_MODEL] = [deposit_ngp(position, n, boxsize)[region] for position in drawn]
    side = len(fields[TARGET][0])
    return Sample(Path(path), boxsize * side / n, density[region], fields, probability)


def overdensity(counts):
    """n / mean(n) - 1, and zero everywhere where there is nothing at all."""
    mean = counts.mean(dtype=np.float64)
    return (counts / mean - 1).astype(np.float32) if mean > 0 else np.zeros_like(counts)


def poisson(counts, boxsize):
    """Shot noise 1 / n of the overdensity of as many galaxies, (Mpc/h)^3."""
    total = counts.sum(dtype=np.float64)
    return boxsize**3 / total if total > 0 else 0.0


def power(sample):
    """Spectra of the target, the runs and the halo model: k, {name: P without shot noise}, {name: with it}, {name: r}.

    A run's field is a mean and has no shot noise: that of a Poisson catalogue drawn from it is added for the second.
    No window is divided out: all fields are counted in the same cells, which leaves ratios as they are.
    """
    without, noisy, coefficient = {}, {}, {}
    target = overdensity(sample.counts[TARGET][0])
    for name, fields in sample.counts.items():
        discrete = name not in sample.probability
        spectra, correlations = [], []
        for field in fields:
            delta, noise = overdensity(field), poisson(field, sample.boxsize)
            k, spectrum, _ = statistics.power_spectrum(delta, sample.boxsize)
            spectra.append((spectrum - noise, spectrum) if discrete else (spectrum, spectrum + noise))
            if name != TARGET:
                correlations.append(statistics.correlation_coefficient(target, delta, sample.boxsize)[1])
        without[name], noisy[name] = np.mean(spectra, axis=0)
        if correlations:
            coefficient[name] = np.mean(correlations, axis=0)
    return k, without, noisy, coefficient


def catalogues(sample, name):
    """Fields of whole galaxies: the target's, the halo model's, or Poisson catalogues drawn from a run's mean field."""
    if name not in sample.probability:
        return sample.counts[name]
    return [np.random.default_rng(seed).poisson(sample.counts[name][0]).astype(np.float32) for seed in range(DRAWS)]


def bispectrum(sample, fields, theta):
    """Bispectrum of galaxy fields at (K1, K2, theta), the mean over them; None where the box cannot resolve it."""
    try:
        return np.mean([statistics.bispectrum(overdensity(field), sample.boxsize, K1, K2, theta)[0]
                        for field in fields], axis=0)
    except ValueError:
        return None


def occupation(sample, name, side):
    """How phase 1 of a run finds occupied cells, beside a threshold on the density; and the errors of its counts."""
    occupied = sample.counts[TARGET][0] > 0
    probability, counts = sample.probability[name], sample.counts[name][0]
    smoothed = gaussian_filter(sample.density, SMOOTHING, mode="wrap")
    thresholds = np.concatenate([[0], np.geomspace(1e-4, 0.5, 40), 1 - np.geomspace(0.5, 1e-4, 40)[1:]])
    at_recall = []
    for recall in RECALLS:
        row = {"recall": recall}
        for key, score in (("network", probability), ("density", smoothed)):
            threshold = metrics.threshold_at_recall(score, occupied, recall)
            row[key] = {"threshold": float(threshold)} | one(metrics.confusion(score, occupied, [threshold]))
        row["ratio_of_gains"] = row["network"]["gain"] / row["density"]["gain"]
        at_recall.append(row)
    quantiles = np.quantile(smoothed, 1 - np.geomspace(1e-5, 1, 80))
    return {"occupied_fraction": float(occupied.mean()),
            "at_half": one(metrics.confusion(probability, occupied, [0.5])),
            "at_recall": at_recall, "curve": metrics.confusion(probability, occupied, thresholds),
            "density_curve": metrics.confusion(smoothed, occupied, quantiles),
            "galaxies": float(counts.sum(dtype=np.float64)),
            "mse_sub": metrics.squared_error_in_cubes(counts, sample.counts[TARGET][0], side)}


def one(curve):
    """The numbers of a curve of one threshold; None for what is undefined."""
    return {key: float(values[0]) if np.isfinite(values[0]) else None for key, values in curve.items()
            if key != "threshold"}


def evaluate(runs, model, simulations, folder, *, tile=None, progress=lambda name, path: None):
    """Compare runs and a halo model with the galaxies of simulations; writes metrics.json and figures, returns the
    metrics.

    runs: {name: (run folder, Run)}; model: an `hod.HOD`, or None; simulations: paths. Spectra are averaged over
    simulations before they are compared.
    """
    theta = np.linspace(0, np.pi, ANGLES)
    rows, spectra, triangles, distributions, boxsizes = [], [], [], [], set()
    for number, path in enumerate(simulations):
        sample = collect(runs, model, path, tile, progress)
        boxsizes.add((round(sample.boxsize, 6), len(sample.density)))
        if len(boxsizes) > 1:
            raise DataError(f"{path}: all simulations must have one box size and grid to be averaged")
        found = {name: occupation(sample, name, run.config.patch) for name, (_, run) in runs.items()}
        k, *parts = power(sample)
        spectra.append(parts)
        drawn = {name: catalogues(sample, name) for name in sample.counts}
        triangles.append({name: bispectrum(sample, fields, theta) for name, fields in drawn.items()})
        distributions.append({name: np.mean([np.bincount(field.astype(int).ravel(), minlength=200)[:200]
                                             for field in fields], axis=0) for name, fields in drawn.items()})
        rows += [{"run": name, "simulation": str(path), "true_galaxies": float(sample.counts[TARGET][0].sum()), **entry}
                 for name, entry in found.items()]
        for row in rows[-len(runs):]:
            row["power_residual"] = metrics.mean_residual(parts[0][row["run"]], parts[0][TARGET])
            row["power_residual_with_shot_noise"] = metrics.mean_residual(parts[1][row["run"]], parts[1][TARGET])
        if number == 0:
            first = sample

    names = list(spectra[0][0])
    mean = [{name: np.mean([part[kind][name] for part in spectra], axis=0) for name in names if name in part_names}
            for kind, part_names in ((0, names), (1, names), (2, [name for name in names if name != TARGET]))]
    bispectra = {name: np.mean([part[name] for part in triangles], axis=0) for name in names
                 if all(part[name] is not None for part in triangles)}
    counted = {name: np.sum([part[name] for part in distributions], axis=0) for name in names}
    result = {"simulations": [str(path) for path in simulations],
              "halo_model": None if model is None else asdict(model),
              "table": [{key: value for key, value in row.items() if not key.endswith("curve")} for row in rows],
              "k": k.tolist(), "predictions": {}}
    for name in names:
        entry = {"power": mean[0][name].tolist(), "power_with_shot_noise": mean[1][name].tolist(),
                 "cells_by_count": counted[name][:counted[name].nonzero()[0].max() + 1].tolist()}
        if name != TARGET:
            entry |= {"power_residual": metrics.mean_residual(mean[0][name], mean[0][TARGET]),
                      "power_residual_with_shot_noise": metrics.mean_residual(mean[1][name], mean[1][TARGET]),
                      "correlation_coefficient": mean[2][name].tolist()}
        if name in bispectra:
            entry["bispectrum"] = bispectra[name].tolist()
            if name != TARGET:
                entry["bispectrum_residual"] = metrics.mean_residual(bispectra[name], bispectra[TARGET])
        result["predictions"][name] = entry

    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / "metrics.json") as temporary:
        temporary.write_text(json.dumps(result, indent=2) + "\n")
    figures.slices(first, next(iter(runs)), folder / "slices.png")
    figures.curves({name: [row for row in rows if row["run"] == name] for name in runs}, folder / "occupation.png")
    figures.spectra(k, mean, folder / "power_spectrum.png")
    if TARGET in bispectra:
        figures.bispectra(theta, bispectra, folder / "bispectrum.png")
    figures.distributions(counted, folder / "counts.png")
    return result


def table(result):
    """The comparison as lines of text: each run on each simulation, then spectra averaged over simulations."""
    yield (f"{'run':16s}{'simulation':24s}{'galaxies':>16s}{'recall':>9s}{'precision':>11s}{'gain at 95%':>13s}"
           f"{'(density)':>11s}{'MSE_sub':>10s}")
    for row in result["table"]:
        half, level = row["at_half"], row["at_recall"][1]
        yield (f"{row['run'][-15:]:16s}{Path(row['simulation']).name[-23:]:24s}{row['galaxies']:>8.0f}/"
               f"{row['true_galaxies']:<7.0f}{half['recall']:>9.4f}{half['precision'] or 0:>11.4f}"
               f"{level['network']['gain']:>12.1f}x{level['density']['gain']:>10.1f}x{row['mse_sub']:>10.4g}")
    yield f"{'mean residual of':40s}{'P(k)':>12s}{'with shot noise':>18s}{'bispectrum':>13s}"
    for name, entry in result["predictions"].items():
        if name != TARGET:
            words = [f"{100 * entry[key]:.1f}%" if entry.get(key) is not None else "undefined"
                     for key in ("power_residual", "power_residual_with_shot_noise", "bispectrum_residual")]
            yield f"{name:40s}{words[0]:>12s}{words[1]:>18s}{words[2]:>13s}"


def check(runs, simulations):
    """Raise DataError for runs on different cells, or a simulation that a run was trained on, without a test cube."""
    cells = {name: run.config.cell for name, (_, run) in runs.items()}
    if len(set(cells.values())) > 1:
        raise DataError("runs on different cells cannot be compared: " + ", ".join(
            f"{name} has {cell:g} Mpc/h" for name, cell in cells.items()))
    for folder, run in runs.values():
        for path in simulations:
            region_of(folder, path, 2 * run.config.patch, run.config.patch)
