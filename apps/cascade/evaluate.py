"""Runs against simulations that none of them saw, and against what else they are held to: Sec. 4 of Yip et al. 2019.

What is compared is named by a pair: ("truth", ""), ("runs", name), ("baselines", name) or ("bounds", name). Users name
their runs, so these names stand apart from ours, here as in metrics.json and in figures. The bounds are there for
galaxies that we painted: another drawing of them, below whose distance from the truth no difference says anything, and
the exact expectation of the rule, which no prediction can better.

A run, trees and the exact expectation are mean fields; halo models and other drawings are whole galaxies. Both are put
to the same rulers as follows. *Spectra*: a mean field's power and what its scatter adds (`scatter.shot_noise`), as that
of catalogues drawn from it. *As it is*: the paper's own, the mean field's power over that of the galaxies, which is not
1 for a perfect prediction. *Calibration*: the cross spectrum over the mean field's own, 1 for any conditional mean.
*Eq. 2*: the squared error of a mean field, summed over as many cells as a sub-cube has. *Correlation* with the truth,
*numbers* in bins of the prediction and of the density, *bispectra* of drawn catalogues. *Assembly bias*, where haloes
are known: see `assembly`.
"""

import functools
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from kerasgal import cluster, run_folder, statistics
from kerasgal.apps.cascade import assembly, baseline, data, figures, metrics, predict, scatter, trees
from kerasgal.apps.cascade.figures import FINER_TREES, FLOOR, ORACLE, TREES, TRUTH
from kerasgal.conditioning import parameters_of
from kerasgal.errors import DataError, RunError
from kerasgal.grid import deposit_ngp
from kerasgal.plotting import progress
from kerasgal.run import WORST, Evaluation, comparable, display_name
from kerasgal.simulation import opened

RECALLS = (0.9, 0.95, 0.99)  # at which phase 1 is held against a threshold on the density
SMOOTHING = 0.5  # cells, of the density that is thresholded: the best at cells of 0.39 Mpc/h
K1, K2, ANGLES = 1.2, 1.3, 20  # of the bispectrum [h/Mpc], as in the paper
EQUILATERAL = (0.5, 1.0, 1.5, 2.0)  # h/Mpc, sides of equal triangles
LONG, SQUEEZED = 0.4, (0.8, 1.2, 1.6, 2.0)  # h/Mpc: one long wave and two equal short ones
CUBES = 2  # per side of a box, by which bispectra get their errors
MASKED_RADII = 2.0  # of the richest halo, around which cells are masked
DRAWS = 4  # catalogues of a halo model or a mean field whose spectra are averaged
LOSS_CELLS = 32**3  # of a sub-cube, over which Eq. 2 sums squared errors
SEED = 7_000_000  # of other drawings of painted galaxies: none of a simulation's own


@dataclass
class Sample:
    """One simulation's fields, or the test cube's of it: each (n, n, n), in a box of side `boxsize` [Mpc/h]."""

    boxsize: float
    density: np.ndarray
    counts: dict  # the truth's and the mean fields' one field, the draws of others: {(kind, name): [fields]}
    probability: dict  # {("runs", name): field}
    scatter: dict = field(default_factory=dict)  # of all mean fields: {(kind, name): Scatter}
    masked: np.ndarray = None  # whether a cell is at the richest halo, or None where that is not known
    halos: dict = None  # of `baseline.described`; None where they are not known, or fields are of a part of the box


@dataclass
class Bars:
    """What runs are held against: halo models by name, and trees or None, of the density and of the finer grid, too."""

    halo_models: dict
    trees: object = None
    finer_trees: object = None


def named_runs(run, compare):
    """{("runs", name): Run} of a run and others, which are runs or their folders."""
    others = [other if isinstance(other, type(run)) else type(run).load(other) for other in compare]
    runs = [run, *others]
    folders = [one.folder if one.folder is not None else Path(f"untrained-{place}") for place, one in enumerate(runs)]
    return {("runs", name): one for name, one in zip(run_folder.named(folders), runs)}


def bars_of(run, given, sources):
    """The `Bars` of a run, made of its training simulations; a warning says what is missing, and why.

    given: a halo model, as in `baseline.chosen`: it stands in the place of the one fitted to the power spectrum. Models
    that need more than the haloes of `sources` have, or than the training simulations say, are left out.
    """
    folder = run.folder / run.phases[-1] if run.folder is not None else None  # the numbers are of phase 2
    first = baseline.chosen(given, folder, sources) if given is not None else None
    models = {baseline.NAMES["power"]: first} if first else {}
    try:
        training, validation = run_folder.data_to_read(folder)
    except RunError as error:
        lost, way = ("no halo model", f"; {baseline.GIVEN}") if given is None else ("no halo model but that given", "")
        baseline.log.warning(f"{lost} and no boosted trees to compare with: {error}{way}")
        return Bars(models)
    if baseline.comparable(True, sources):
        models = baseline.halo_models(training, validation, run.config, models)
    bars = Bars(models)
    try:
        bars.trees = trees.fit(training, validation, run.config)
        if run.config.finer:
            bars.finer_trees = trees.fit(training, validation, run.config, more=True)
    except DataError as error:
        baseline.log.warning(f"no boosted trees to compare with: {error}")
    return bars


def collect(runs, bars, source, config, tile=None, outside_domain=False):
    """The `Sample` of one simulation, and notes. runs: {key: Run}, which may be none."""
    notes = []
    with opened(source, ()) as simulation:
        for run in runs.values():
            notes += run.check_domain(source, run.features(simulation), outside_domain=outside_domain)
        notes += data.check_particles(simulation, config.cell, outside_domain,
                                      any(run.of_particles for run in runs.values()), config.deposit)
        density = data.density(simulation, config.cell, deposit=config.deposit, sparse=True)
        configs = {run.config.channels: run.config for run in runs.values()}
        seen = {channels: data.seen(simulation, one, density[..., None]) for channels, one in configs.items()}
        parameters = {key: parameters_of(simulation, run.config.names) for key, run in runs.items()}
        counts = data.galaxy_counts(simulation, config.cell)
        boxsize = simulation.boxsize
        known = all(name in simulation for name in baseline.NEEDED) and len(simulation["halos/mass"])
        halos = baseline.described(simulation) if known or bars.halo_models else None
        if known and "rank" not in halos and "cosmology" in simulation.file:
            halos["rank"] = assembly.rank(halos, density, boxsize, simulation.cosmology)
        if bars.halo_models and known:
            notes += baseline.unlike(bars.halo_models.values(), simulation)
        painting, unknown = baseline.painting(simulation)
        richest = richest_first(simulation)
    n = len(density)
    region = max((run.unseen(source, n) for run in runs.values()), key=lambda slices: slices[0].start or 0,
                 default=(slice(None),) * 3)
    fields, probability, scatters = {TRUTH: [counts[region]]}, {}, {}
    for key, run in runs.items():
        with progress(f"{key[1]}: {display_name(source)}") as tick:
            predicted = predict.predict_field(run.network, seen[run.config.channels], run.config,
                                              parameters=parameters[key], tile=tile, progress=tick)
        probability[key], fields[key] = predicted[..., 0][region], [predicted[..., 1][region]]
        scatters[key] = run.scatter
    for name, model in bars.halo_models.items():
        drawn = baseline.populated(model, halos, boxsize, range(DRAWS))
        if drawn is None:
            notes.append(f"no {name} in {display_name(source)}, whose haloes lack what it asks for")
        else:
            fields["baselines", name] = [deposit_ngp(position, n, boxsize)[region] for position in drawn]
    if bars.trees is not None:
        fields[TREES], scatters[TREES] = [bars.trees.predict(density)[region]], bars.trees.scatter
    if bars.finer_trees is not None:
        expected = bars.finer_trees.predict(density, seen["density,finer"][..., 1:])[region]
        fields[FINER_TREES], scatters[FINER_TREES] = [expected], bars.finer_trees.scatter
    if painting is None:
        notes.append(f"floor and ceiling are unknown: {unknown}")
    else:
        drawn = [painting.draw(np.random.default_rng(SEED + seed))["position"] for seed in range(DRAWS)]
        drawn = [deposit_ngp(position, n, boxsize) for position in drawn]
        expected = painting.expected(n)
        scatters[ORACLE] = scatter.measure(np.stack([expected] * DRAWS), np.stack(drawn))
        fields[FLOOR], fields[ORACLE] = [one_field[region] for one_field in drawn], [expected[region]]
    side = len(fields[TRUTH][0])
    return Sample(boxsize * side / n, density[region], fields, probability, scatters,
                  around_richest(richest, boxsize, n, region),
                  halos if known and "rank" in halos and side == n else None), notes


def richest_first(simulation):
    """Centres and radii of haloes, those with most galaxies or else most mass first; None without any."""
    if any(name not in simulation for name in baseline.NEEDED) or not len(simulation["halos/mass"]):
        return None
    halos = simulation.halos()
    order = np.arange(len(halos["mass"]))  # most massive first
    if "galaxies/halo" in simulation:
        host = simulation["galaxies/halo"][...]
        order = np.argsort(-np.bincount(host[host >= 0], minlength=len(order)), kind="stable")
    return halos["position"][order], halos["radius"][order]


def around_richest(richest, boxsize, n, region):
    """Cells of the region within MASKED_RADII of the richest halo whose centre is in it; None where there is none."""
    if richest is None:
        return None
    centres, radii = richest
    axes = [np.arange(n)[part] for part in region]
    cell = np.floor(centres * n / boxsize).astype(int) % n
    inside = np.all([np.isin(cell[:, axis], axes[axis]) for axis in range(3)], axis=0)
    if not inside.any():
        return None
    first = np.flatnonzero(inside)[0]
    offset = [(axes[axis] + 0.5) * boxsize / n - centres[first, axis] for axis in range(3)]
    offset = [part - boxsize * np.rint(part / boxsize) for part in offset]
    square = offset[0][:, None, None]**2 + offset[1][:, None]**2 + offset[2]**2
    return square <= (MASKED_RADII * radii[first])**2


def overdensity(counts, masked=None):
    """n / mean(n) - 1, and zero everywhere where there is nothing at all; in masked cells, which do not count, zero."""
    if masked is None:
        mean = counts.mean(dtype=np.float64)
    else:
        mean = counts[~masked].mean(dtype=np.float64)
    if not mean > 0:
        return np.zeros_like(counts)
    delta = (counts / mean - 1).astype(np.float32)
    if masked is not None:
        delta[masked] = 0
    return delta


def poisson(counts, boxsize):
    """Shot noise 1 / n of the overdensity of as many galaxies, (Mpc/h)^3."""
    total = counts.sum(dtype=np.float64)
    return boxsize**3 / total if total > 0 else 0.0


RULERS = "noisy", "without", "raw", "correlation", "calibration"


def power(sample):
    """Spectra of all fields: k, modes, and {ruler: {key: curve}} for RULERS, and "each", "noisy" of each field.

    "noisy": P, shot noise included, of a mean field that which its scatter adds. "without": the same less 1/n. "raw": P
    of the field as it is. "correlation": r with the truth. "calibration": of mean fields, see `metrics.calibration`. No
    window is divided out: all fields are counted in the same cells, which leaves ratios as they are.
    """
    found = {ruler: {} for ruler in (*RULERS, "each")}
    truth = sample.counts[TRUTH][0]
    true = overdensity(truth)
    k, own, modes = statistics.power_spectrum(true, sample.boxsize)
    for key, fields in sample.counts.items():
        curves = {ruler: [] for ruler in RULERS}
        for one_field in fields:
            delta = overdensity(one_field)
            spectrum = statistics.power_spectrum(delta, sample.boxsize)[1]
            added = 0.0
            if key in sample.scatter:
                added = scatter.shot_noise(one_field, sample.boxsize, sample.scatter[key])
                curves["calibration"].append(metrics.calibration(one_field, truth, sample.boxsize)[1])
            curves["raw"].append(spectrum)
            curves["noisy"].append(spectrum + added)
            curves["without"].append(spectrum + added - poisson(one_field, sample.boxsize))
            if key != TRUTH:
                cross = statistics.power_spectrum(true, sample.boxsize, cross=delta)[1]
                with np.errstate(invalid="ignore", divide="ignore"):
                    curves["correlation"].append(cross / np.sqrt(own) / np.sqrt(spectrum))
        for ruler, values in curves.items():
            if values:
                found[ruler][key] = np.mean(values, axis=0)
        found["each"][key] = np.array(curves["noisy"])
    return k, modes, found


def catalogues(sample, key):
    """Fields of whole galaxies: as they are, or drawn from a mean field with its scatter."""
    if key not in sample.scatter:
        return sample.counts[key]
    return [scatter.draw(sample.counts[key][0], np.random.default_rng(seed), sample.scatter[key])
            for seed in range(DRAWS)]


def shapes(boxsize, n):
    """The triangles whose bispectra a box resolves: {shape: (x, sides (triangles, 3) [h/Mpc])}.

    x: the angle in the paper's, else the wavenumber.
    """
    theta = np.linspace(0, np.pi, ANGLES)
    third = np.sqrt(np.maximum(K1**2 + K2**2 + 2 * K1 * K2 * np.cos(theta), 0))
    sides = {"paper": (theta, np.stack([np.full(ANGLES, K1), np.full(ANGLES, K2), third], axis=1))}
    sides["equilateral"] = np.array(EQUILATERAL), np.repeat(np.array(EQUILATERAL)[:, None], 3, axis=1)
    short = np.array(SQUEEZED)
    sides["squeezed"] = short, np.stack([short, short, np.full(len(short), LONG)], axis=1)
    fundamental = 2 * np.pi / boxsize
    found = {}
    for shape, (x, triangles) in sides.items():
        resolved = (triangles.min(axis=1) > fundamental / 2) & (triangles.sum(axis=1) / fundamental + 2.5 <= n)
        if shape == "paper" and not resolved.all():
            continue  # its curve is whole, or not there
        if resolved.any():
            found[shape] = x[resolved], triangles[resolved]
    return found


def bispectra(sample, fields, triangles, masked=None):
    """Bispectra of galaxy fields in cubes of the box: {shape: (fields, cubes, triangles)}."""
    sides = np.concatenate([sides for _, sides in triangles.values()])
    parts = np.stack([statistics.bispectrum_in_cubes(overdensity(one_field, masked), sample.boxsize, sides, CUBES)
                      for one_field in fields])
    ends = np.cumsum([len(sides) for _, sides in triangles.values()])[:-1]
    return dict(zip(triangles, np.split(parts, ends, axis=2)))


def numbers(sample, key, drawn):
    """Counts in bins of the density and, of a mean field, of its own expectation: {what: (3, bins)}; squares."""
    truth = sample.counts[TRUTH][0]
    mean = np.mean(sample.counts[key], axis=0)
    found = {"density": metrics.counts_in_bins(sample.density, metrics.DENSITY_EDGES, mean, truth)}
    if key in sample.scatter:
        found["expected"] = metrics.counts_in_bins(mean, metrics.EXPECTED_EDGES, mean, truth)
        found["squares"] = np.array([np.sum(np.square(mean - truth), dtype=np.float64), truth.size])
    found["cells"] = np.mean([np.bincount(one_field.astype(int).ravel(), minlength=200)[:200] for one_field in drawn],
                             axis=0)
    return found


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


def farthest_off(rows, name="galaxies"):
    """Of the rows of `worst_cases` those whose number of galaxies, or what else is named, is farthest off."""
    return sorted(rows, key=lambda row: -abs(row[name] - row[f"true_{name}"]))[:WORST]


def worst(sample, key, side, source):
    """The sub-cubes of `side` cells whose number of galaxies is farthest off, as metrics.json has them.

    x, y and z are those of the lowest corner, Mpc/h, in what was evaluated.
    """
    own, true = (metrics.sums_in_cubes(sample.counts[name][0], side) for name in (key, TRUTH))
    width = side * sample.boxsize / len(sample.density)
    order = np.argsort(-np.abs(own - true), axis=None, kind="stable")[:WORST]
    return [{"run": key[1], "simulation": display_name(source), **dict(zip("xyz", (width * np.array(place)).tolist())),
             "galaxies": float(own[place]), "true_galaxies": float(true[place])}
            for place in zip(*np.unravel_index(order, own.shape))]


def one(curve):
    """The numbers of a curve of one threshold; None for what is undefined."""
    return {key: float(values[0]) if np.isfinite(values[0]) else None for key, values in curve.items()
            if key != "threshold"}


def measure_one(task):
    """Of one simulation its `Measured`, a row of the table for each run, notes, box size and cells, the `worst`
    sub-cubes of the first run, and the `Sample`.

    task: (names of the runs, `cluster.Runs` of these, `Bars`, source, config, tile, whether to go on outside of the
    domain, whether the `Sample` is wanted)
    """
    names, given, bars, source, config, tile, outside_domain, wanted = task
    runs = dict(zip(names, given.get()))
    sample, notes = collect(runs, bars, source, config, tile, outside_domain)
    measured = measure(sample)
    rows = {}
    for key in runs:
        residual = {ruler: metrics.mean_residual(measured.curves[ruler][key], measured.curves[ruler][TRUTH])
                    for ruler in ("noisy", "without")}
        rows[key] = {"run": key[1], "simulation": display_name(source),
                     "true_galaxies": float(sample.counts[TRUTH][0].sum()), **occupation(sample, key, config.patch),
                     "power_residual": residual["without"], "power_residual_with_shot_noise": residual["noisy"]}
    bad = worst(sample, names[0], config.patch, source)
    return measured, rows, notes, (round(sample.boxsize, 6), len(sample.density)), bad, sample if wanted else None


def evaluate(run, sources, *, compare=(), hod=None, tile=None, outside_domain=False, client=None, bars=None):
    """The `Evaluation` of runs, baselines and bounds on the galaxies of simulations; see `Cascade.evaluate`.

    bars: what runs are held against, where that is not made of the first run's training simulations. Spectra are
    averaged over simulations before they are compared.
    """
    cluster.check_paths(sources, client)
    runs = named_runs(run, compare)
    for setting, words in (("cell", "cells [Mpc/h]"), ("deposit", "ways of putting particles on a grid")):
        comparable({name: one for (_, name), one in runs.items()}, setting, words)
    for one in runs.values():
        for source in sources:
            one.unseen(source, 2 * one.config.patch)
    notes = [note for one in runs.values() for note in one.unmeasured()]
    bars = bars_of(run, hod, sources) if bars is None else bars
    given = cluster.Runs(runs.values(), client)
    tasks = [(list(runs), given, bars, source, run.config, tile, outside_domain, number == 0)
             for number, source in enumerate(sources)]
    rows, measured, bad, first, grid = {key: [] for key in runs}, [], [], None, None
    for source, (found, said, noted, size, far_off, sample) in zip(sources, cluster.each(measure_one, tasks, client)):
        notes += noted
        bad += far_off
        first, grid = first or sample, grid or size
        if size != grid:
            raise DataError(f"{display_name(source)}: all simulations must have one box size and grid to be averaged")
        measured.append(found)
        for key, row in said.items():
            rows[key].append(row)
    everywhere = [key for key in measured[0].numbers if all(key in one.numbers for one in measured)]
    whole = averaged(measured, everywhere)
    result = {"simulations": [display_name(source) for source in sources],
              "table": [{name: value for name, value in row.items() if not name.endswith("curve")}
                        for number in range(len(sources)) for row in (rows[key][number] for key in runs)],
              "worst_cases": farthest_off(bad),
              "k": whole.k.tolist(), "truth": {}, "runs": {}, "baselines": {}, "bounds": {}}
    for key in everywhere:
        put(result, key, entry_of(whole, key))
    for name, model in bars.halo_models.items():
        if name in result["baselines"]:
            result["baselines"][name]["parameters"] = json.loads(json.dumps(asdict(model)))  # lists, as in a file
    if notes:
        result["notes"] = list(dict.fromkeys(notes))

    def draw():
        drawn = {"slices": figures.slices(first, next(iter(runs))), "occupation": figures.curves(rows),
                 "power_spectrum": figures.spectra(whole.k, whole.modes * len(sources), whole.curves),
                 "counts": figures.distributions({key: values["cells"] for key, values in whole.numbers.items()}),
                 "calibration": figures.calibrations(whole.numbers)}
        if whole.curves.get("shuffled"):
            drawn["assembly_bias"] = figures.assembly_bias(
                whole.k, {key: entry_of(whole, key)["assembly_bias"] for key in everywhere})
        if whole.triangles:
            drawn["bispectrum"] = figures.bispectra(whole.triangles, whole.bispectra, whole.masked)
        return drawn

    return Evaluation(result, lines(result), functools.cache(draw), run)


@dataclass
class Measured:
    """What was measured of all fields of a simulation, or of several: see `power`, `numbers`, `bispectra`."""

    k: np.ndarray
    modes: np.ndarray
    curves: dict
    numbers: dict
    triangles: dict
    bispectra: dict  # {key: {shape: (fields, cubes of all simulations, triangles)}}
    masked: dict  # the same without the richest halo; empty where that is not known


def measure(sample):
    """The `Measured` of one simulation."""
    k, modes, curves = power(sample)
    in_halos = {}
    if sample.halos is not None:
        as_they_are = {key: (curves["raw"][key], curves["without"][key]) for key in sample.counts}
        curves["shuffled"], in_halos = assembly.measure(sample.counts, sample.halos, sample.boxsize, as_they_are)
    drawn = {key: catalogues(sample, key) for key in sample.counts}
    triangles = shapes(sample.boxsize, len(sample.density))

    def of_all(masked):
        return {key: bispectra(sample, fields, triangles, masked) for key, fields in drawn.items()} if triangles else {}

    counted = {key: numbers(sample, key, fields) | in_halos.get(key, {}) for key, fields in drawn.items()}
    return Measured(k, modes, curves, counted, triangles, of_all(None),
                    of_all(sample.masked) if sample.masked is not None else {})


def averaged(measured, keys):
    """The mean of curves, the sum of numbers and the cubes of bispectra over simulations, of what all of them have."""
    first = measured[0]
    curves = {ruler: {key: np.mean([one.curves[ruler][key] for one in measured], axis=0) for key in keys
                      if all(key in one.curves.get(ruler, ()) for one in measured)} for ruler in first.curves}
    summed = {key: {what: np.sum([one.numbers[key][what] for one in measured], axis=0)
                    for what in first.numbers[key] if all(what in one.numbers[key] for one in measured)}
              for key in keys}

    def joined(parts):
        if not all(parts):
            return {}
        return {key: {shape: np.concatenate([part[key][shape] for part in parts], axis=1)
                      for shape in first.triangles} for key in keys}

    return Measured(first.k, first.modes, curves, summed, first.triangles,
                    joined([one.bispectra for one in measured]), joined([one.masked for one in measured]))


def entry_of(whole, key):
    """The numbers of metrics.json of the truth, a run, a baseline or a bound."""
    curves, cells = whole.curves, whole.numbers[key]["cells"]
    entry = {"power": listed(curves["without"][key]), "power_with_shot_noise": listed(curves["noisy"][key]),
             "power_as_it_is": listed(curves["raw"][key]),
             "cells_by_count": cells[:cells.nonzero()[0].max() + 1].tolist()}
    for shape, (x, _) in whole.triangles.items():
        if key in whole.bispectra:
            entry.setdefault("bispectra", {})[shape] = {
                "x": x.tolist(), "value": listed(whole.bispectra[key][shape].mean(axis=(0, 1)))}
    if "occupation" in whole.numbers[key]:
        bins = assembly.given_bins(whole.numbers[TRUTH]["occupation"])
        entry["assembly_bias"] = assembly.entry(whole.k, curves["without"][key], curves["shuffled"][key],
                                                whole.numbers[key]["occupation"], whole.numbers[key]["in_haloes"], bins)
    if key == TRUTH:
        return entry
    away = {name: metrics.by_scale(whole.k, np.abs(ratio(curves[ruler][key], curves[ruler][TRUTH]) - 1))
            for name, ruler in (("with_shot_noise", "noisy"), ("without", "without"), ("as_it_is", "raw"))}
    entry |= {"power_residual": away["without"]["all"],
              "power_residual_with_shot_noise": away["with_shot_noise"]["all"],
              "power_residual_by_scale": away, "correlation_coefficient": listed(curves["correlation"][key]),
              "correlation_by_scale": metrics.by_scale(whole.k, curves["correlation"][key])}
    if key in curves["calibration"]:
        entry |= {"calibration": listed(curves["calibration"][key]),
                  "calibration_error": metrics.by_scale(whole.k, np.abs(curves["calibration"][key] - 1))}
    if key == FLOOR:
        single = [metrics.by_scale(whole.k, np.abs(ratio(one, curves["noisy"][TRUTH]) - 1))
                  for one in curves["each"][key]]
        entry["power_residual_of_one_drawing"] = single
    if "squares" in whole.numbers[key]:
        squares, size = whole.numbers[key]["squares"]
        entry["squared_error"] = float(squares / size * LOSS_CELLS)
    for what in ("density", "expected"):
        if what in whole.numbers[key]:
            entry[f"numbers_by_{what}"] = dict(zip(("cells", "predicted", "true"), whole.numbers[key][what].tolist()))
            entry[f"misplaced_by_{what}"] = metrics.misplaced(whole.numbers[key][what])
    for name, parts in (("residual", whole.bispectra), ("residual_masked", whole.masked)):
        for shape in whole.triangles if key in parts else ():
            own, true = parts[key][shape].mean(axis=0), parts[TRUTH][shape].mean(axis=0)
            entry["bispectra"][shape] |= {
                name: metrics.mean_residual(own.mean(axis=0), true.mean(axis=0)),
                f"{name}_error": listed([statistics.jackknife(residual_of, own, true)])[0]}
            if key == FLOOR:
                entry["bispectra"][shape][f"{name}_of_one_drawing"] = [
                    metrics.mean_residual(one.mean(axis=0), true.mean(axis=0)) for one in parts[key][shape]]
    return entry


def listed(values):
    """Numbers as a list; None for what is not finite, of which JSON knows nothing."""
    return [float(value) if np.isfinite(value) else None for value in values]


def ratio(values, true):
    """One curve over another; NaN where that is zero."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(true != 0, values / true, np.nan)


def residual_of(own, true):
    """`metrics.mean_residual` for a jackknife, NaN where it is undefined."""
    found = metrics.mean_residual(own, true)
    return np.nan if found is None else found


def put(result, key, entry):
    """Put the numbers of the truth, of a run, a baseline or a bound where they belong in metrics.json."""
    kind, name = key
    if key == TRUTH:
        result[kind] = entry
    else:
        result[kind][name] = entry


def lines(result):
    """The comparison as lines of text: each run on each simulation, then all that is compared, over simulations."""
    yield (f"{'run':16s}{'simulation':24s}{'galaxies':>16s}{'recall':>9s}{'precision':>11s}{'gain at 95%':>13s}"
           f"{'(density)':>11s}{'MSE_sub':>10s}")
    for row in result["table"]:
        half, level = row["at_half"], row["at_recall"][1]
        yield (f"{row['run'][-15:]:16s}{Path(row['simulation']).name[-23:]:24s}{row['galaxies']:>8.0f}/"
               f"{row['true_galaxies']:<7.0f}{half['recall']:>9.4f}{half['precision'] or 0:>11.4f}"
               f"{level['network']['gain']:>12.1f}x{level['density']['gain']:>10.1f}x{row['mse_sub']:>10.4g}")
    yield (f"{'mean residual of':34s}{'Eq. 2':>7s}{'P, k<1':>9s}{'k>1':>8s}{'as it is':>10s}{'P_xy/P_xx':>11s}"
           f"{'k>1':>8s}{'r(k<1)':>8s}{'k>1':>7s}{'numbers':>9s}{'bispectrum':>19s}{'without richest':>19s}")
    for kind in ("runs", "baselines", "bounds"):
        for name, entry in result[kind].items():
            yield line(figures.label((kind, name)), entry)
    yield from other_triangles(result)
    if "another drawing" in result["bounds"]:
        yield from ("", one_drawing(result["bounds"]["another drawing"]))
    if "assembly_bias" in result["truth"]:
        yield from ("", *assembly.lines({"truth": result["truth"]["assembly_bias"]} | {
            figures.label((kind, name)): entry["assembly_bias"] for kind in ("runs", "baselines", "bounds")
            for name, entry in result[kind].items()}))
    yield from (note for note in result.get("notes", ()) if note.startswith("floor"))


def other_triangles(result):
    """Residuals of the bispectrum at other triangles than the paper's, a line for each shape that boxes hold."""
    entries = {figures.label((kind, name)): entry["bispectra"] for kind in ("runs", "baselines", "bounds")
               for name, entry in result[kind].items() if "bispectra" in entry}
    for shape in dict.fromkeys(shape for found in entries.values() for shape in found if shape != "paper"):
        yield f"bispectrum, {shape}: " + ", ".join(
            f"{name} {percent(found[shape]['residual'], found[shape]['residual_error'])}"
            for name, found in entries.items())


def one_drawing(entry):
    """How far single drawings of painted galaxies are from the truth, a line: less than that is chance."""
    single = entry["power_residual_of_one_drawing"]
    ranges = [("P, k<1", [one["large"] for one in single]), ("P, k>1", [one["small"] for one in single])]
    triangles = entry.get("bispectra", {}).get("paper", {})
    ranges += [("bispectrum", triangles.get("residual_of_one_drawing", [])),
               ("without richest", triangles.get("residual_masked_of_one_drawing", []))]
    words = []
    for name, values in ranges:
        known = [value for value in values if value is not None]
        if known:
            words.append(f"{name} {percent(min(known))} to {percent(max(known))}")
    return "one other drawing is off by: " + ", ".join(words)


def line(name, entry):
    """One row of what is compared."""
    noisy, raw = (entry["power_residual_by_scale"][ruler] for ruler in ("with_shot_noise", "as_it_is"))
    calibration = entry.get("calibration_error", {"large": None, "small": None})
    correlation = entry["correlation_by_scale"]
    triangles = entry.get("bispectra", {}).get("paper", {})
    words = [percent(noisy["large"]).rjust(9), percent(noisy["small"]).rjust(8), percent(raw["all"]).rjust(10),
             percent(calibration["large"]).rjust(11), percent(calibration["small"]).rjust(8),
             number(correlation["large"]).rjust(8), number(correlation["small"]).rjust(7),
             percent(entry["misplaced_by_density"]).rjust(9)]
    for residual in ("residual", "residual_masked"):
        words.append(percent(triangles.get(residual), triangles.get(f"{residual}_error")).rjust(19))
    error = entry.get("squared_error")
    return f"{name[-33:]:34s}" + ("-" if error is None else f"{error:.1f}").rjust(7) + "".join(words)


def percent(value, error=None):
    """A share as text, with its error where there is one; - for what is undefined."""
    if value is None or not np.isfinite(value):
        return "-"
    return f"{100 * value:.1f}%" + (f" +- {100 * error:.0f}" if error is not None and np.isfinite(error) else "")


def number(value, digits=2):
    """A number of so many digits as text; - for what is undefined."""
    return "-" if value is None else f"{value:.{digits}f}"
