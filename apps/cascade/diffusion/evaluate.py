"""Draws of galaxies against those of simulations that the run never saw, the regressor and the halo model.

What is compared is named by a pair: ("truth", ""), ("runs", name) or ("baselines", name), as in `cascade.evaluate`.
"""

import functools
from dataclasses import asdict, dataclass

import numpy as np
from scipy import stats

from kerasgal import run_folder, statistics
from kerasgal.apps.cascade import baseline, hod, metrics, predict
from kerasgal.apps.cascade import data as densities
from kerasgal.apps.cascade.diffusion import data, figures, sample
from kerasgal.apps.cascade.diffusion.figures import HALO_MODEL, REGRESSOR, SHUFFLED, TRUTH
from kerasgal.apps.cascade.evaluate import put
from kerasgal.apps.cascade.run import Cascade
from kerasgal.errors import DataError
from kerasgal.grid import deposit_ngp
from kerasgal.plotting import progress
from kerasgal.run import Evaluation, comparable, display_name
from kerasgal.simulation import opened

BLOCK = 16  # cells per side of the blocks whose galaxies are ranked
BASELINES = 4  # catalogues of the halo model and of the regressor's mean field
STUDY = {"ancestral": (5, 10, 20, 50, 100, 250, 1000), "deterministic": (5, 10, 20, 50, 100)}  # numbers of steps
STUDY_BINS = 8  # of the wavenumber: wide ones, so that what few draws say is not their scatter


@dataclass
class Sample:
    """The maps of one simulation, or its box: lists of fields, and of each prediction's several fields per map."""

    boxsize: float
    density: list  # of (n, n) or (n, n, n)
    truth: list
    drawn: dict  # {(kind, name): list of (fields, n, n) or (fields, n, n, n)}
    parameters: np.ndarray


def key_of(run):
    """("runs", name) of a run: the name of its folder."""
    return "runs", next(iter(run_folder.named([run.folder]))) if run.folder is not None else "untrained"


def collect(run, source, draws, options, *, regressor=None, model=None, most=None, outside_domain=False):
    """The `Sample` of one simulation, of maps the first `most` along the last axis, and notes.

    options: of `sample.draw`; regressor: a `Cascade`, model: an `hod.HOD`, or None.
    """
    config, others = run.config, {}
    with opened(source, ()) as simulation:
        notes = run.check_domain(source, outside_domain=outside_domain)
        notes += densities.check_particles(simulation, config.cell, outside_domain)
        density, parameters = data.given(simulation, config, axes=(2,), sparse=True)
        counts = data.galaxies(simulation, config, axes=(2,))
        boxsize = simulation.boxsize
        if regressor:
            notes += regressor.check_domain(source, outside_domain=outside_domain)
            others[REGRESSOR] = from_mean(simulation, regressor, BASELINES)
        if model:
            halos = baseline.haloes(simulation)
            others[HALO_MODEL] = [deposit_ngp(hod.populate(halos, model, boxsize, np.random.default_rng(seed)),
                                              round(boxsize / config.cell), boxsize) for seed in range(BASELINES)]

    def separate(field):
        """A box, or the maps that lie side by side, as a list."""
        return [field] if config.dimensions == 3 else list(np.moveaxis(field, -1, 0)[:most])

    result = Sample(boxsize, separate(density), separate(counts), {}, parameters)
    for key, fields in others.items():
        projected = [separate(data.project(source, field, config, (2,))) for field in fields]
        result.drawn[key] = [np.stack(alike) for alike in zip(*projected)]
    result.drawn[key_of(run)] = drawn = []
    for number, field in enumerate(result.density):
        with progress(f"{display_name(source)}: {number + 1} of {len(result.density)}") as tick:
            drawn.append(sample.draw(run.network, config, field, draws, parameters=parameters, progress=tick,
                                     **{**options, "seed": options["seed"] + number}))
    return result, notes


def from_mean(simulation, regressor, number):
    """Poisson catalogues drawn from the mean field that a `Cascade` predicts, (n, n, n) each."""
    box = densities.density(simulation, regressor.config.cell, sparse=True)
    with progress("the regressor's mean field") as tick:
        mean = predict.predict_field(regressor.network, box, regressor.config, progress=tick)[..., 1]
    return [np.random.default_rng(seed).poisson(mean).astype(np.float32) for seed in range(number)]


def power(fields, boxsize, mean, bins=None):
    """k and the power spectra of fields of galaxies, (fields, k), relative to a mean number in a cell."""
    with np.errstate(invalid="ignore"):  # of no galaxies at all there is no spectrum: NaN
        found = [statistics.power_spectrum(field / mean, boxsize, bins) for field in fields]
    return found[0][0], np.array([spectrum for _, spectrum, _ in found])


def spectra(samples, run):
    """Spectra averaged over maps: k, {key: P}, and of the draws of `run` the scatter from draw to draw of that average.

    Each prediction's overdensity is relative to its own mean over all maps; shot noise is in all of them.
    """
    boxsize, mean, scatter = samples[0].boxsize, {}, None
    truth = [field for item in samples for field in item.truth]
    k, each = power(truth, boxsize, np.mean(truth))
    mean[TRUTH] = each.mean(axis=0)
    for key in samples[0].drawn:
        fields = [drawn for item in samples for drawn in item.drawn[key]]  # of (fields, n, n)
        level = np.mean(fields)
        each = np.array([power(drawn, boxsize, level)[1] for drawn in fields])  # (maps, fields, k)
        mean[key] = each.mean(axis=(0, 1))
        if key == run:
            scatter = each.mean(axis=0).std(axis=0, ddof=1)
    return k, mean, scatter


def correlation(samples, run):
    """Cross-correlation of each prediction with the truth, {key: r(k)}, and of draws given another map's density."""
    boxsize = samples[0].boxsize
    truth = [field for item in samples for field in item.truth]

    def mean(fields, truths):
        found = [statistics.correlation_coefficient(true, field, boxsize)[1]
                 for true, drawn in zip(truths, fields) for field in drawn]
        return np.ma.masked_invalid(found).mean(axis=0).filled(np.nan)

    result = {key: mean([drawn for item in samples for drawn in item.drawn[key]], truth) for key in samples[0].drawn}
    if len(truth) > 1:
        result[SHUFFLED] = mean([drawn for item in samples for drawn in item.drawn[run]], truth[1:] + truth[:1])
    return result


def ranks(samples, run, block=BLOCK, seed=0):
    """Place of the truth among the draws, by the galaxies in blocks of cells: (blocks,) integers from 0 to draws.

    Equal numbers are put in a random order, and blocks without any galaxy are left out: both leave the ranks of a
    calibrated model even.
    """
    rng, found = np.random.default_rng(seed), []
    for item in samples:
        for true, drawn in zip(item.truth, item.drawn[run]):
            sums = np.stack([metrics.sums_in_cubes(field, block).ravel() for field in (true, *drawn)])
            sums = sums[:, sums.any(axis=0)]
            order = sums + rng.uniform(0, 0.5, sums.shape)
            found.append((order[1:] < order[0]).sum(axis=0))
    return np.concatenate(found)


def evenness(places, draws, bins=8):
    """Histogram of ranks in a few bins, what even ranks would give, and the p-value of the chi-square test for that."""
    bins = min(bins, draws + 1)
    edge = np.arange(draws + 2) * bins // (draws + 1)  # bin of each rank; bins may differ in width by one
    expected = np.bincount(edge[:-1], minlength=bins) / (draws + 1) * len(places)
    observed = np.bincount(edge[places], minlength=bins)
    return observed, expected, float(stats.chisquare(observed, expected).pvalue)


def occupation(samples, key):
    """Accuracy, recall and precision of a prediction's occupied cells, mean over its fields; None where undefined."""
    found = [metrics.confusion((field > 0).astype(np.float32), true > 0, [0.5])
             for item in samples for true, drawn in zip(item.truth, item.drawn[key]) if true.any() for field in drawn]
    means = {name: np.ma.masked_invalid([entry[name][0] for entry in found]).mean()
             for name in ("accuracy", "recall", "precision")}
    return {name: None if value is np.ma.masked else float(value) for name, value in means.items()}


def numbers(values):
    """An array as JSON has it: None for what is undefined."""
    return [float(value) if np.isfinite(value) else None for value in values]


def evaluate(run, sources, *, draws, options, regressor=None, hod=None, most=None, study=False, outside_domain=False):
    """The `Evaluation` of draws for simulations; see `Diffusion.evaluate`. options: of `sample.draw`."""
    if regressor is not None and not isinstance(regressor, Cascade):
        regressor = Cascade.load(regressor)
    for one in (run, regressor) if regressor else (run,):
        one.check_unseen(sources)
    if regressor:
        comparable({"the run": run, "the regressor": regressor}, "cell", "cells [Mpc/h]")
    model = baseline.chosen(hod, run.folder, sources)
    own, samples, notes = key_of(run), [], []
    for source in sources:
        item, noted = collect(run, source, draws, options, regressor=regressor, model=model, most=most,
                              outside_domain=outside_domain)
        samples.append(item)
        notes += noted
        if (item.boxsize, item.truth[0].shape) != (samples[0].boxsize, samples[0].truth[0].shape):
            raise DataError(f"{display_name(source)}: all simulations must have one box size and grid to be averaged")
    k, mean, scatter = spectra(samples, own)
    r = correlation(samples, own)
    observed, expected, p = evenness(places := ranks(samples, own), draws)
    result = {"simulations": [display_name(source) for source in sources], "draws": draws, **options,
              "maps": sum(len(item.truth) for item in samples), "k": k.tolist(),
              "truth": {}, "runs": {}, "baselines": {}}
    for key, values in mean.items():
        if key == TRUTH:
            put(result, key, {"galaxies": float(sum(np.sum(item.truth) for item in samples)),
                              "power": numbers(values)})
            continue
        fields = [drawn for item in samples for drawn in item.drawn[key]]
        put(result, key, {
            "galaxies": float(sum(np.sum(drawn) / len(drawn) for drawn in fields)), "power": numbers(values),
            "power_residual": metrics.mean_residual(values, mean[TRUTH]),
            "power_largest_residual": largest_residual(values, mean[TRUTH]), "correlation": numbers(r[key]),
            "occupation": occupation(samples, key)})
    entry = result["runs"][own[1]]
    entry |= {"power_scatter": numbers(scatter),
              "ranks": {"observed": observed.tolist(), "expected": expected.tolist(), "blocks": len(places),
                        "p_value": p}}
    if SHUFFLED in r:
        entry["correlation_with_another_map"] = numbers(r[SHUFFLED])
    if model:
        result["baselines"][HALO_MODEL[1]]["parameters"] = asdict(model)
    if run.config.names:
        entry["response"] = response(run, samples[0], draws, options)
    if study:
        entry["study"] = steps_study(run, samples[0], draws, options)
    if notes:
        result["notes"] = list(dict.fromkeys(notes))

    def draw():
        drawn = {"draws": figures.draws(samples[0], own),
                 "power_spectrum": figures.spectra(k, mean, own, scatter, r, run.config.dimensions),
                 "ranks": figures.ranks(observed, expected, p)}
        if "response" in entry:
            drawn["response"] = figures.response(k, entry["response"])
        if study:
            drawn["steps"] = figures.study(entry["study"])
        return drawn

    return Evaluation(result, lines(result), functools.cache(draw), run)


def response(run, item, draws, options):
    """What each parameter does, one standard deviation of the training's below and above its mean, to one map's draws.

    {name: {"low", "high": {"value", "galaxies", "power"}}}; all draws start from the same noise, and the other
    parameters are the simulation's own.
    """
    layer = run.network.network.get_layer("normalised_parameters")
    middle, spread = np.ravel(layer.mean), np.sqrt(np.ravel(layer.variance))
    result = {}
    for place, name in enumerate(run.config.names):
        result[name] = {}
        for side, sign in (("low", -1), ("high", 1)):
            parameters = item.parameters.copy()
            parameters[place] = middle[place] + sign * spread[place]
            with progress(f"response to {name}") as tick:
                drawn = sample.draw(run.network, run.config, item.density[0], draws, parameters=parameters,
                                    progress=tick, **options)
            result[name][side] = {"value": float(parameters[place]), "galaxies": float(drawn.sum() / draws),
                                  "power": power(drawn, item.boxsize, max(drawn.mean(), 1e-9))[1].mean(0).tolist()}
    return result


def steps_study(run, item, draws, options):
    """P(k) of both samplers with few and many steps, on one map: how far it is from that of the longest ancestral one.

    {"k", sampler: [{"steps", "power", "residual"}]}
    """
    field, mean = item.density[0], np.mean(item.truth)
    fundamental = 2 * np.pi / item.boxsize
    bins = fundamental * np.geomspace(0.9, len(field) / 2, STUDY_BINS + 1)
    result = {}
    for sampler, numbers in STUDY.items():
        result[sampler] = []
        for steps in numbers:
            with progress(f"{sampler}, {steps} steps") as tick:
                drawn = sample.draw(run.network, run.config, field, draws, parameters=item.parameters, progress=tick,
                                    **{**options, "steps": steps, "sampler": sampler})
            k, each = power(drawn, item.boxsize, mean, bins)
            result[sampler].append({"steps": steps, "power": each.mean(axis=0),
                                    "error": each.std(axis=0, ddof=1) / np.sqrt(draws)})
    longest = result["ancestral"][-1]["power"]
    for rows in result.values():
        for row in rows:
            row["residual"] = metrics.mean_residual(row["power"], longest)
            row["power"], row["error"] = row["power"].tolist(), row["error"].tolist()
    return {"k": k.tolist(), **result}


def largest_residual(values, true):
    """Largest |value / true - 1| of a spectrum; None where a prediction has no galaxy, and so no spectrum."""
    residual = np.abs(values / true - 1)
    return float(np.nanmax(residual)) if np.isfinite(residual).any() else None


def percent(value):
    """A share as text."""
    return "undefined" if value is None else f"{100 * value:.1f}%"


def lines(result):
    """The comparison as lines of text."""
    yield (f"{'':14s}{'galaxies':>10s}{'accuracy':>10s}{'recall':>9s}{'precision':>11s}{'residual of P(k)':>18s}"
           f"{'largest':>9s}{'r(k) < 1 h/Mpc':>16s}")
    large = np.array(result["k"]) < 1
    yield f"{'truth':14s}{result['truth']['galaxies']:>10.0f}"
    for kind in ("baselines", "runs"):
        for name, entry in result[kind].items():
            found, r = entry["occupation"], np.mean(np.array(entry["correlation"], float)[large])
            yield (f"{figures.label((kind, name)):14s}{entry['galaxies']:>10.0f}{found['accuracy']:>10.4f}"
                   f"{found['recall']:>9.4f}{found['precision'] or 0:>11.4f}{percent(entry['power_residual']):>18s}"
                   f"{percent(entry['power_largest_residual']):>9s}{r:>16.3f}")
    entry = next(iter(result["runs"].values()))
    if "correlation_with_another_map" in entry:
        r = np.mean(np.array(entry["correlation_with_another_map"], float)[large])
        yield f"draws given another map's density: r(k) < 1 h/Mpc is {r:.3f}"
    ranks = entry["ranks"]
    yield (f"ranks of the truth among {result['draws']} draws in {ranks['blocks']} blocks: even with p = "
           f"{ranks['p_value']:.3g}")
    for sampler in sample.SAMPLERS if "study" in entry else ():
        enough = [row["steps"] for row in entry["study"][sampler] if row["residual"] < 0.1]
        yield (f"{sampler}: P(k) within 10% of {entry['study']['ancestral'][-1]['steps']} ancestral steps "
               + (f"from {min(enough)} steps on" if enough else "with no number of steps"))
