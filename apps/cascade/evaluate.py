"""Runs against simulations that none of them saw, and against the halo model: Sec. 4 of Yip et al. 2019.

What is compared is named by a pair: ("truth", ""), ("runs", name) or ("baselines", name). Users name their runs, so
these names stand apart from ours, here as in metrics.json and in figures.
"""

import functools
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from kerasgal import run_folder, statistics
from kerasgal.apps.cascade import baseline, data, figures, hod, metrics, predict
from kerasgal.apps.cascade.figures import HALO_MODEL, TRUTH
from kerasgal.errors import DataError
from kerasgal.grid import deposit_ngp
from kerasgal.plotting import progress
from kerasgal.run import Evaluation, comparable, display_name
from kerasgal.simulation import opened

RECALLS = (0.9, 0.95, 0.99)  # at which phase 1 is held against a threshold on the density
SMOOTHING = 0.5  # cells, of the density that is thresholded: the best at cells of 0.39 Mpc/h
K1, K2, ANGLES = 1.2, 1.3, 20  # of the bispectrum [h/Mpc], as in the paper
DRAWS = 4  # catalogues of a halo model or a mean field whose spectra are averaged


@dataclass
class Sample:
    """One simulation's fields, or the test cube's of it: each (n, n, n), in a box of side `boxsize` [Mpc/h]."""

    boxsize: float
    density: np.ndarray
    counts: dict  # of the truth, each run, and each draw of the halo model: {(kind, name): [fields]}
    probability: dict  # {("runs", name): field}


def named_runs(run, compare):
    """{("runs", name): Run} of a run and others, which are runs or their folders."""
    others = [other if isinstance(other, type(run)) else type(run).load(other) for other in compare]
    runs = [run, *others]
    folders = [one.folder if one.folder is not None else Path(f"untrained-{place}") for place, one in enumerate(runs)]
    return {("runs", name): one for name, one in zip(run_folder.named(folders), runs)}


def collect(runs, model, source, tile=None, outside_domain=False):
    """The `Sample` of one simulation, and notes. runs: {key: Run}; model: an `hod.HOD` for its haloes, or None."""
    config = next(iter(runs.values())).config
    notes = []
    with opened(source, ()) as simulation:
        for run in runs.values():
            notes += run.check_domain(source, data.features(simulation, config.cell), outside_domain=outside_domain)
        notes += data.check_particles(simulation, config.cell, outside_domain)
        density = data.density(simulation, config.cell, sparse=True)
        counts = data.galaxy_counts(simulation, config.cell)
        boxsize = simulation.boxsize
        halos = baseline.haloes(simulation) if model else None
    n = len(density)
    region = max((run.unseen(source, n) for run in runs.values()), key=lambda slices: slices[0].start or 0)
    fields, probability = {TRUTH: [counts[region]]}, {}
    for key, run in runs.items():
        with progress(f"{key[1]}: {display_name(source)}") as tick:
            predicted = predict.predict_field(run.network, density, run.config, tile=tile, progress=tick)
        probability[key], fields[key] = predicted[..., 0][region], [predicted[..., 1][region]]
    if halos is not None:
        drawn = [hod.populate(halos, model, boxsize, np.random.default_rng(seed)) for seed in range(DRAWS)]
        fields[HALO_MODEL] = [deposit_ngp(position, n, boxsize)[region] for position in drawn]
    side = len(fields[TRUTH][0])
    return Sample(boxsize * side / n, density[region], fields, probability), notes


def overdensity(counts):
    """n / mean(n) - 1, and zero everywhere where there is nothing at all."""
    mean = counts.mean(dtype=np.float64)
    return (counts / mean - 1).astype(np.float32) if mean > 0 else np.zeros_like(counts)


def poisson(counts, boxsize):
    """Shot noise 1 / n of the overdensity of as many galaxies, (Mpc/h)^3."""
    total = counts.sum(dtype=np.float64)
    return boxsize**3 / total if total > 0 else 0.0


def power(sample):
    """Spectra of truth, runs and halo model: k, {key: P without shot noise}, {key: with it}, {key: r}.

    A run's field is a mean and has no shot noise: that of a Poisson catalogue drawn from it is added for the second.
    No window is divided out: all fields are counted in the same cells, which leaves ratios as they are.
    """
    without, noisy, coefficient = {}, {}, {}
    true = overdensity(sample.counts[TRUTH][0])
    for key, fields in sample.counts.items():
        discrete = key not in sample.probability
        spectra, correlations = [], []
        for field in fields:
            delta, noise = overdensity(field), poisson(field, sample.boxsize)
            k, spectrum, _ = statistics.power_spectrum(delta, sample.boxsize)
            spectra.append((spectrum - noise, spectrum) if discrete else (spectrum, spectrum + noise))
            if key != TRUTH:
                correlations.append(statistics.correlation_coefficient(true, delta, sample.boxsize)[1])
        without[key], noisy[key] = np.mean(spectra, axis=0)
        if correlations:
            coefficient[key] = np.mean(correlations, axis=0)
    return k, without, noisy, coefficient


def catalogues(sample, key):
    """Fields of whole galaxies: the truth's, the halo model's, or Poisson catalogues drawn from a run's mean field."""
    if key not in sample.probability:
        return sample.counts[key]
    return [np.random.default_rng(seed).poisson(sample.counts[key][0]).astype(np.float32) for seed in range(DRAWS)]


def bispectrum(sample, fields, theta):
    """Bispectrum of galaxy fields at (K1, K2, theta), the mean over them; None where the box cannot resolve it."""
    try:
        return np.mean([statistics.bispectrum(overdensity(field), sample.boxsize, K1, K2, theta)[0]
                        for field in fields], axis=0)
    except ValueError:
        return None


def occupation(sample, key, side):
    """How phase 1 of a run finds occupied cells, beside a threshold on the density; and the errors of its counts."""
    occupied = sample.counts[TRUTH][0] > 0
    probability, counts = sample.probability[key], sample.counts[key][0]
    smoothed = gaussian_filter(sample.density, SMOOTHING, mode="wrap")
    thresholds = np.concatenate([[0], np.geomspace(1e-4, 0.5, 40), 1 - np.geomspace(0.5, 1e-4, 40)[1:]])
    at_recall = []
    for recall in RECALLS:
        row = {"recall": recall}
        for name, score in (("network", probability), ("density", smoothed)):
            threshold = metrics.threshold_at_recall(score, occupied, recall)
            row[name] = {"threshold": float(threshold)} | one(metrics.confusion(score, occupied, [threshold]))
        row["ratio_of_gains"] = row["network"]["gain"] / row["density"]["gain"]
        at_recall.append(row)
    quantiles = np.quantile(smoothed, 1 - np.geomspace(1e-5, 1, 80))
    return {"occupied_fraction": float(occupied.mean()),
            "at_half": one(metrics.confusion(probability, occupied, [0.5])),
            "at_recall": at_recall, "curve": metrics.confusion(probability, occupied, thresholds),
            "density_curve": metrics.confusion(smoothed, occupied, quantiles),
            "galaxies": float(counts.sum(dtype=np.float64)),
            "mse_sub": metrics.squared_error_in_cubes(counts, sample.counts[TRUTH][0], side)}


def one(curve):
    """The numbers of a curve of one threshold; None for what is undefined."""
    return {key: float(values[0]) if np.isfinite(values[0]) else None for key, values in curve.items()
            if key != "threshold"}


def evaluate(run, sources, *, compare=(), hod=None, tile=None, outside_domain=False):
    """The `Evaluation` of runs and of a halo model on the galaxies of simulations; see `Cascade.evaluate`.

    Spectra are averaged over simulations before they are compared.
    """
    runs = named_runs(run, compare)
    comparable({name: one for (_, name), one in runs.items()}, "cell", "cells [Mpc/h]")
    for one in runs.values():
        for source in sources:
            one.unseen(source, 2 * one.config.patch)
    model = baseline.chosen(hod, run.folder / predict.CLASSIFY if run.folder is not None else None, sources)
    theta = np.linspace(0, np.pi, ANGLES)
    rows, spectra, triangles, distributions, first, notes = {key: [] for key in runs}, [], [], [], None, []
    for source in sources:
        sample, noted = collect(runs, model, source, tile, outside_domain)
        notes += noted
        first = first or sample
        if (round(sample.boxsize, 6), len(sample.density)) != (round(first.boxsize, 6), len(first.density)):
            raise DataError(f"{display_name(source)}: all simulations must have one box size and grid to be averaged")
        k, *parts = power(sample)
        spectra.append(parts)
        drawn = {key: catalogues(sample, key) for key in sample.counts}
        triangles.append({key: bispectrum(sample, fields, theta) for key, fields in drawn.items()})
        distributions.append({key: np.mean([np.bincount(field.astype(int).ravel(), minlength=200)[:200]
                                            for field in fields], axis=0) for key, fields in drawn.items()})
        for key, one in runs.items():
            rows[key].append({"run": key[1], "simulation": display_name(source),
                              "true_galaxies": float(sample.counts[TRUTH][0].sum()),
                              **occupation(sample, key, one.config.patch),
                              "power_residual": metrics.mean_residual(parts[0][key], parts[0][TRUTH]),
                              "power_residual_with_shot_noise": metrics.mean_residual(parts[1][key], parts[1][TRUTH])})

    without, noisy, coefficient = ({key: np.mean([parts[kind][key] for parts in spectra], axis=0)
                                    for key in spectra[0][kind]} for kind in range(3))
    bispectra = {key: np.mean([part[key] for part in triangles], axis=0) for key in without
                 if all(part[key] is not None for part in triangles)}
    counted = {key: np.sum([part[key] for part in distributions], axis=0) for key in without}
    result = {"simulations": [display_name(source) for source in sources],
              "table": [{name: value for name, value in row.items() if not name.endswith("curve")}
                        for number in range(len(sources)) for row in (rows[key][number] for key in runs)],
              "k": k.tolist(), "truth": {}, "runs": {}, "baselines": {}}
    for key in without:
        entry = {"power": without[key].tolist(), "power_with_shot_noise": noisy[key].tolist(),
                 "cells_by_count": counted[key][:counted[key].nonzero()[0].max() + 1].tolist()}
        if key != TRUTH:
            entry |= {"power_residual": metrics.mean_residual(without[key], without[TRUTH]),
                      "power_residual_with_shot_noise": metrics.mean_residual(noisy[key], noisy[TRUTH]),
                      "correlation_coefficient": coefficient[key].tolist()}
        if key in bispectra:
            entry["bispectrum"] = bispectra[key].tolist()
            if key != TRUTH:
                entry["bispectrum_residual"] = metrics.mean_residual(bispectra[key], bispectra[TRUTH])
        if key == HALO_MODEL:
            entry["parameters"] = asdict(model)
        put(result, key, entry)
    if notes:
        result["notes"] = list(dict.fromkeys(notes))

    def draw():
        drawn = {"slices": figures.slices(first, next(iter(runs))), "occupation": figures.curves(rows),
                 "power_spectrum": figures.spectra(k, without, noisy, coefficient),
                 "counts": figures.distributions(counted)}
        return drawn | ({"bispectrum": figures.bispectra(theta, bispectra)} if TRUTH in bispectra else {})

    return Evaluation(result, lines(result), functools.cache(draw))


def put(result, key, entry):
    """Put the numbers of the truth, of a run or of a baseline where they belong in metrics.json."""
    kind, name = key
    if key == TRUTH:
        result[kind] = entry
    else:
        result[kind][name] = entry


def lines(result):
    """The comparison as lines of text: each run on each simulation, then spectra averaged over simulations."""
    yield (f"{'run':16s}{'simulation':24s}{'galaxies':>16s}{'recall':>9s}{'precision':>11s}{'gain at 95%':>13s}"
           f"{'(density)':>11s}{'MSE_sub':>10s}")
    for row in result["table"]:
        half, level = row["at_half"], row["at_recall"][1]
        yield (f"{row['run'][-15:]:16s}{Path(row['simulation']).name[-23:]:24s}{row['galaxies']:>8.0f}/"
               f"{row['true_galaxies']:<7.0f}{half['recall']:>9.4f}{half['precision'] or 0:>11.4f}"
               f"{level['network']['gain']:>12.1f}x{level['density']['gain']:>10.1f}x{row['mse_sub']:>10.4g}")
    yield f"{'mean residual of':40s}{'P(k)':>12s}{'with shot noise':>18s}{'bispectrum':>13s}"
    for kind in ("runs", "baselines"):
        for name, entry in result[kind].items():
            words = [f"{100 * entry[key]:.1f}%" if entry.get(key) is not None else "undefined"
                     for key in ("power_residual", "power_residual_with_shot_noise", "bispectrum_residual")]
            yield f"{figures.label((kind, name)):40s}{words[0]:>12s}{words[1]:>18s}{words[2]:>13s}"
