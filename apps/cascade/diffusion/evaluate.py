"""Draws of galaxies against those of simulations that the run never saw, the regressor and the halo model."""

import json
from dataclasses import dataclass

import numpy as np
from scipy import stats

from kerasgal import statistics
from kerasgal.apps.cascade import baseline, hod, metrics, predict
from kerasgal.apps.cascade.data import density
from kerasgal.apps.cascade.diffusion import data, figures, sample
from kerasgal.errors import DataError
from kerasgal.files import replacing
from kerasgal.grid import deposit_ngp
from kerasgal.simulation import Simulation

TARGET, DRAWS, REGRESSOR, HALO_MODEL = "target", "diffusion", "regressor", "halo model"
BLOCK = 16  # cells per side of the blocks whose galaxies are ranked
BASELINES = 4  # catalogues of the halo model and of the regressor's mean field
STUDY = {"ancestral": (5, 10, 20, 50, 100, 250, 1000), "deterministic": (5, 10, 20, 50, 100)}  # numbers of steps
STUDY_BINS = 8  # of the wavenumber: wide ones, so that what few draws say is not their scatter


@dataclass
class Sample:
    """The maps of one simulation, or its box: lists of fields, and of each prediction's several fields per map."""

    boxsize: float
    density: list  # of (n, n) or (n, n, n)
    target: list
    drawn: dict  # {name: list of (fields, n, n) or (fields, n, n, n)}
    parameters: np.ndarray


def collect(run, path, draws, options, *, regressor=None, model=None, most=None, progress=lambda line: None):
    """The `Sample` of one simulation: of maps, the first `most` along the last axis.

    run: a `sample.Run`; options: of `sample.draw`; regressor: a `cascade.predict.Run`, model: an `hod.HOD`, or None.
    """
    config = run.config
    given, parameters, counts = data.load(path, config, axes=(2,))
    with Simulation(path, require=()) as simulation:
        boxsize = simulation.boxsize
        halos = baseline.haloes(simulation) if model else None

    def separate(field):
        """A box, or the maps that lie side by side, as a list."""
        return [field] if config.dimensions == 3 else list(np.moveaxis(field, -1, 0)[:most])

    others = {}
    if regressor:
        progress(f"{path}: the regressor's mean field")
        others[REGRESSOR] = from_mean(path, regressor, BASELINES)
    if halos is not None:
        others[HALO_MODEL] = [deposit_ngp(hod.populate(halos, model, boxsize, np.random.default_rng(seed)),
                                          round(boxsize / config.cell), boxsize) for seed in range(BASELINES)]
    result = Sample(boxsize, separate(given), separate(counts), {}, parameters)
    result.drawn = {name: [np.stack(alike) for alike in zip(*(separate(data.project(path, field, config, (2,)))
                                                              for field in fields))]
                    for name, fields in others.items()}
    result.drawn[DRAWS] = []
    for number, field in enumerate(result.density):
        progress(f"{path}: drawing {number + 1} of {len(result.density)}")
        result.drawn[DRAWS].append(sample.draw(run, field, draws, parameters=parameters, **{
            **options, "seed": options["seed"] + number}))
    return result


def from_mean(path, regressor, number):
    """Poisson catalogues drawn from the mean field that a cascade's regressor predicts, (n, n, n) each."""
    with Simulation(path, require=()) as simulation:
        box = density(simulation, regressor.config.cell)
    mean = predict.predict_field(regressor.network(), box, regressor.config)[..., 1]
    return [np.random.default_rng(seed).poisson(mean).astype(np.float32) for seed in range(number)]


def power(fields, boxsize, mean, bins=None):
    """k and the power spectra of fields of galaxies, (fields, k), relative to a mean number in a cell."""
    found = [statistics.power_spectrum(field / mean, boxsize, bins) for field in fields]
    return found[0][0], np.array([spectrum for _, spectrum, _ in found])


def spectra(samples):
    """Spectra averaged over maps: k, {name: P}, and of the draws the scatter from draw to draw of that average.

    Each prediction's overdensity is relative to its own mean over all maps; shot noise is in all of them.
    """
    boxsize, mean, scatter = samples[0].boxsize, {}, None
    target = [field for item in samples for field in item.target]
    k, each = power(target, boxsize, np.mean(target))
    mean[TARGET] = each.mean(axis=0)
    for name in samples[0].drawn:
        fields = [drawn for item in samples for drawn in item.drawn[name]]  # of (fields, n, n)
        level = np.mean(fields)
        each = np.array([power(drawn, boxsize, level)[1] for drawn in fields])  # (maps, fields, k)
        mean[name] = each.mean(axis=(0, 1))
        if name == DRAWS:
            scatter = each.mean(axis=0).std(axis=0, ddof=1)
    return k, mean, scatter


def correlation(samples):
    """Cross-correlation of each prediction with the target, {name: r(k)}, and of draws given another map's density."""
    boxsize = samples[0].boxsize
    target = [field for item in samples for field in item.target]

    def mean(fields, targets):
        found = [statistics.correlation_coefficient(true, field, boxsize)[1]
                 for true, drawn in zip(targets, fields) for field in drawn]
        return np.nanmean(found, axis=0)

    result = {name: mean([drawn for item in samples for drawn in item.drawn[name]], target)
              for name in samples[0].drawn}
    if len(target) > 1:
        result["shuffled"] = mean([drawn for item in samples for drawn in item.drawn[DRAWS]], target[1:] + target[:1])
    return result


def ranks(samples, block=BLOCK, seed=0):
    """Place of the target among the draws, by the galaxies in blocks of cells: (blocks,) integers from 0 to draws.

    Equal numbers are put in a random order, and blocks without any galaxy are left out: both leave the ranks of a
    calibrated model even.
    """
    rng, found = np.random.default_rng(seed), []
    for item in samples:
        for true, drawn in zip(item.target, item.drawn[DRAWS]):
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


def occupation(samples):
    """Accuracy, recall and precision of the occupied cells of each prediction, mean over its fields."""
    result = {}
    for name in samples[0].drawn:
        found = [metrics.confusion((field > 0).astype(np.float32), true > 0, [0.5])
                 for item in samples for true, drawn in zip(item.target, item.drawn[name]) if true.any()
                 for field in drawn]
        result[name] = {key: float(np.nanmean([entry[key][0] for entry in found]))
                        for key in ("accuracy", "recall", "precision")}
    return result


def evaluate(run, simulations, folder, *, draws, options, regressor=None, model=None, most=None, study=False,
             progress=lambda line: None):
    """Draw galaxies for simulations and compare; writes metrics.json and figures into `folder`, returns the metrics."""
    samples = []
    for path in simulations:
        samples.append(collect(run, path, draws, options, regressor=regressor, model=model, most=most,
                               progress=progress))
        if (samples[-1].boxsize, samples[-1].target[0].shape) != (samples[0].boxsize, samples[0].target[0].shape):
            raise DataError(f"{path}: all simulations must have one box size and grid to be averaged")
    k, mean, scatter = spectra(samples)
    r = correlation(samples)
    places = ranks(samples)
    observed, expected, p = evenness(places, draws)
    result = {"simulations": [str(path) for path in simulations], "draws": draws, **options,
              "maps": sum(len(item.target) for item in samples), "k": k.tolist(),
              "galaxies": {TARGET: float(sum(np.sum(item.target) for item in samples))} | {
                  name: float(sum(np.sum(item.drawn[name]) / len(item.drawn[name][0]) for item in samples))
                  for name in samples[0].drawn},
              "power": {name: values.tolist() for name, values in mean.items()},
              "power_scatter": scatter.tolist(),
              "power_residual": {name: metrics.mean_residual(values, mean[TARGET]) for name, values in mean.items()
                                 if name != TARGET},
              "power_largest_residual": {name: float(np.nanmax(np.abs(values / mean[TARGET] - 1)))
                                         for name, values in mean.items() if name != TARGET},
              "correlation": {name: values.tolist() for name, values in r.items()},
              "ranks": {"observed": observed.tolist(), "expected": expected.tolist(), "blocks": len(places),
                        "p_value": p},
              "occupation": occupation(samples)}
    if run.config.names:
        result["response"] = response(run, samples[0], draws, options, progress)
    folder.mkdir(parents=True, exist_ok=True)
    if study:
        result["study"] = steps_study(run, samples[0], draws, options, progress)
        figures.study(result["study"], folder / "steps.png")
    with replacing(folder / "metrics.json") as temporary:
        temporary.write_text(json.dumps(result, indent=2) + "\n")
    figures.draws(samples[0], folder / "draws.png")
    figures.spectra(k, mean, scatter, r, folder / "power_spectrum.png")
    figures.ranks(observed, expected, p, folder / "ranks.png")
    if "response" in result:
        figures.response(k, result["response"], folder / "response.png")
    return result


def response(run, item, draws, options, progress):
    """What each parameter does, one standard deviation of the training's below and above its mean, to one map's draws.

    {name: {"low", "high": {"value", "galaxies", "power"}}}; all draws start from the same noise, and the other
    parameters are the simulation's own.
    """
    layer = run.model.network.get_layer("normalised_parameters")
    middle, spread = np.ravel(layer.mean), np.sqrt(np.ravel(layer.variance))
    result = {}
    for place, name in enumerate(run.config.names):
        progress(f"response to {name}")
        result[name] = {}
        for side, sign in (("low", -1), ("high", 1)):
            parameters = item.parameters.copy()
            parameters[place] = middle[place] + sign * spread[place]
            drawn = sample.draw(run, item.density[0], draws, parameters=parameters, **options)
            result[name][side] = {"value": float(parameters[place]), "galaxies": float(drawn.sum() / draws),
                                  "power": power(drawn, item.boxsize, max(drawn.mean(), 1e-9))[1].mean(0).tolist()}
    return result


def steps_study(run, item, draws, options, progress):
    """P(k) of both samplers with few and many steps, on one map: how far it is from that of the longest ancestral one.

    {"k", sampler: [{"steps", "power", "residual"}]}
    """
    field, mean = item.density[0], np.mean(item.target)
    fundamental = 2 * np.pi / item.boxsize
    bins = fundamental * np.geomspace(0.9, len(field) / 2, STUDY_BINS + 1)
    result = {}
    for sampler, numbers in STUDY.items():
        result[sampler] = []
        for steps in numbers:
            progress(f"{sampler}, {steps} steps")
            drawn = sample.draw(run, field, draws, parameters=item.parameters,
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


def table(result):
    """The comparison as lines of text."""
    yield (f"{'':14s}{'galaxies':>10s}{'accuracy':>10s}{'recall':>9s}{'precision':>11s}{'residual of P(k)':>18s}"
           f"{'largest':>9s}{'r(k) < 1 h/Mpc':>16s}")
    large = np.array(result["k"]) < 1
    yield f"{TARGET:14s}{result['galaxies'][TARGET]:>10.0f}"
    for name, entry in result["occupation"].items():
        r = np.mean(np.array(result["correlation"][name])[large])
        yield (f"{name:14s}{result['galaxies'][name]:>10.0f}{entry['accuracy']:>10.4f}{entry['recall']:>9.4f}"
               f"{entry['precision']:>11.4f}{100 * result['power_residual'][name]:>17.1f}%"
               f"{100 * result['power_largest_residual'][name]:>8.1f}%{r:>16.3f}")
    if "shuffled" in result["correlation"]:
        r = np.mean(np.array(result["correlation"]["shuffled"])[large])
        yield f"draws given another map's density: r(k) < 1 h/Mpc is {r:.3f}"
    ranks = result["ranks"]
    yield (f"ranks of the target among {result['draws']} draws in {ranks['blocks']} blocks: even with p = "
           f"{ranks['p_value']:.3g}")
    for sampler in sample.SAMPLERS if "study" in result else ():
        rows = result["study"][sampler]
        enough = [row["steps"] for row in rows if row["residual"] < 0.1]
        yield (f"{sampler}: P(k) within 10% of {result['study']['ancestral'][-1]['steps']} ancestral steps "
               + (f"from {min(enough)} steps on" if enough else "with no number of steps"))
