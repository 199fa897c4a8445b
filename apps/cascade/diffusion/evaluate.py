"""Draws of galaxies against those of simulations that the run never saw, trees, the regressor and the halo model.

Trees see what the network sees, the same maps or boxes. Where dark matter is drawn, they are all there is beside the
truth. The regressor's mean field is of the box, and the halo model
stands in the true haloes. Catalogues are drawn from the first two with the scatter that was measured about them. Where
we painted the galaxies ourselves they are painted again: what is nearer to the truth than that is so by chance.
What is compared is named by a pair: ("truth", ""), ("runs", name) or ("baselines", name), as in `cascade.evaluate`.
"""

import functools
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from kerasgal import cluster, run_folder, statistics
from kerasgal.apps.cascade import baseline, metrics, scatter, trees
from kerasgal.apps.cascade import data as densities
from kerasgal.apps.cascade.diffusion import data, figures, matter, sample
from kerasgal.apps.cascade.diffusion.config import SAMPLERS
from kerasgal.apps.cascade.diffusion.figures import FLOOR, HALO_MODEL, REGRESSOR, SHUFFLED, TREES, TRUTH
from kerasgal.apps.cascade.evaluate import SEED, farthest_off, put
from kerasgal.apps.cascade.run import Cascade
from kerasgal.errors import DataError
from kerasgal.grid import deposit_ngp
from kerasgal.plotting import progress
from kerasgal.run import Evaluation, comparable, display_name
from kerasgal.simulation import opened

CONSTANT = 1e-6  # relative deviation of a parameter that only float32 makes
BLOCK = 16  # cells per side of the blocks whose galaxies are ranked
BASELINES = 4  # catalogues of the halo model, of the trees, of the regressor's mean field, and of those painted again
SEEN = 4  # draws at most for each map that the run was trained on
STUDY = {"ancestral": (100, 50, 25), "multistep": (50, 25, 20, 10), "deterministic": (50, 20, 10)}  # numbers of steps
STUDY_DRAWS = 2  # for each map: they differ by the steps alone, not by their noise
STUDY_BINS = 8  # of the wavenumber: wide ones, so that what few draws say is not their scatter


@dataclass
class Sample:
    """The maps of one simulation, or its box: lists of fields, and of each prediction's several fields per map."""

    boxsize: float
    given: list  # of (n, n) or (n, n, n), or with channels
    truth: list
    drawn: dict  # {(kind, name): list of (fields, n, n) or (fields, n, n, n)}
    parameters: np.ndarray

    @property
    def seen(self):
        """What is given without what a regressor expects."""
        return [field if field.ndim == true.ndim else field[..., 0] for field, true in zip(self.given, self.truth)]


def key_of(run):
    """("runs", name) of a run: the name of its folder."""
    return "runs", next(iter(run_folder.named([run.folder]))) if run.folder is not None else "untrained"


def collect(run, source, draws, options, *, regressor=None, model=None, forest=None, again=False, most=None,
            outside_domain=False):
    """The `Sample` of one simulation, of maps the first `most` along the last axis, and notes.

    options: of `sample.draw`; regressor: a `Cascade`, model: an `hod.HOD`, forest: `trees.Trees`, or None; again:
    whether galaxies are painted again.
    """
    config, others = run.config, {}

    def deposited(position):
        """Galaxies per cell of the box."""
        return deposit_ngp(position, gridsize, boxsize)

    with opened(source, ()) as simulation:
        notes = run.check_domain(source, outside_domain=outside_domain)
        notes += densities.check_particles(simulation, config.cell, outside_domain) if config.matter else \
            run.check_matter(simulation, outside_domain)
        given, parameters = data.given(simulation, config, axes=(2,), sparse=True, regressor=run.regressor)
        notes += data.left_out(simulation, config)
        true = data.target(simulation, config, axes=(2,), sparse=True)
        boxsize, gridsize = simulation.boxsize, densities.cells_of(simulation, config.cell)
        if regressor:
            notes += regressor.check_domain(source, outside_domain=outside_domain)
            others[REGRESSOR] = from_mean(simulation, regressor, BASELINES)
        if model:
            drawn = baseline.populated(model, baseline.described(simulation), boxsize, range(BASELINES))
            if drawn is None:
                raise DataError(f"{display_name(source)} lacks what the halo model asks of its haloes: give one of "
                                "`kerasgal cascade hod`")
            others[HALO_MODEL] = [deposited(position) for position in drawn]
            notes += baseline.unlike([model], simulation)
        painting, unknown = baseline.painting(simulation) if again else (None, None)
        if painting:
            others[FLOOR] = [deposited(painting.draw(np.random.default_rng(SEED + seed))["position"])
                             for seed in range(BASELINES)]
        elif again:
            notes.append(f"another drawing is unknown: {unknown}")

    def separate(field):
        """A box, or the maps that lie side by side, as a list."""
        return data.maps_of(field, config)[:most]

    result = Sample(boxsize, separate(given), separate(true), {}, parameters)
    if not config.matter and not any(true.any() for true in result.truth):
        raise DataError(f"{display_name(source)}: its {len(result.truth)} maps hold no galaxy that draws could be held "
                        "against" + ("" if most is None else ": give more `maps`"))
    if forest and config.matter:
        result.drawn[TREES] = [np.stack([forest.draw(field, np.random.default_rng([seed, number]))
                                         for seed in range(BASELINES)]) for number, field in enumerate(result.seen)]
    elif forest:
        result.drawn[TREES] = [
            np.stack([scatter.draw(mean, np.random.default_rng([seed, number]), forest.scatter)
                      for seed in range(BASELINES)])
            for number, mean in enumerate(forest.predict(field) for field in result.seen)]
    for key, fields in others.items():
        projected = [separate(data.project(source, field, config, (2,))) for field in fields]
        result.drawn[key] = [np.stack(alike) for alike in zip(*projected)]
    result.drawn[key_of(run)] = drawn = []
    for number, field in enumerate(result.given):
        with progress(f"{display_name(source)}: {number + 1} of {len(result.given)}") as tick:
            drawn.append(sample.draw(run.network, config, field, draws, parameters=parameters, progress=tick,
                                     **{**options, "seed": options["seed"] + number}))
    return result, notes


def collect_one(task):
    """`collect` of one simulation, in whichever process.

    task: (`cluster.Runs` of the run and, where there is one, the regressor; whether that takes part; what `collect`
    takes beside these: source, draws, options, and the others by name)
    """
    given, regressed, source, draws, options, others = task
    run, *regressor = given.get()
    return collect(run, source, draws, options, regressor=regressor[0] if regressed else None, **others)


def from_mean(simulation, regressor, number):
    """Catalogues drawn from the mean field that a `Cascade` predicts, with its scatter, (n, n, n) each."""
    mean = data.expected(simulation, regressor)
    return [scatter.draw(mean, np.random.default_rng(seed), regressor.scatter) for seed in range(number)]


def forest_of(run):
    """`trees.Trees`, or `matter.Trees`, of the maps or boxes that a run was trained on.

    None, with a warning, where these are gone.
    """
    try:
        training, validation = run_folder.data_to_read(run.folder)
        if not validation:
            raise DataError(f"{run.folder} does not say what it was validated on")
        inside, apart = ([item for source in sources for item in separated(source, run.config)]
                         for sources in (training, validation))
        if run.config.matter:
            return matter.fitted(inside, apart, run.config.seed)
        return trees.fitted(trees.regressor(trees.TREES, stops=True, seed=run.config.seed, **trees.OPTIONS), inside,
                            apart, run.config.seed)
    except DataError as error:
        baseline.log.warning(f"no boosted trees to compare with: {error}")
        return None


def separated(source, config):
    """(what is given, what is drawn, cells that count: all) of a simulation's box, or of each of its maps.

    What a regressor expects is left out.
    """
    seen, _, drawn = data.load(source, config)
    return [(*pair, np.ones(pair[0].shape, bool))
            for pair in zip(data.maps_of(seen, config), data.maps_of(drawn, config))]


def on_training(run, number, most, draws, options, given, client=None):
    """How well draws do on data that the run was trained on, for as many simulations; None where these are gone.

    Beside what is found on unseen ones it says what more volume could mend. given: `cluster.Runs` of the run.
    """
    training = [path for path in (run_folder.recorded_data(run.folder)[0] if run.folder is not None else ())
                if Path(path).is_file()]
    chosen = [training[place] for place in np.linspace(0, len(training) - 1, min(number, len(training))).astype(int)]
    if not chosen:
        return None
    own, draws = key_of(run), min(draws, SEEN)
    tasks = [(given, False, source, draws, options, {"most": most, "outside_domain": True}) for source in chosen]
    samples = [item for item, _ in cluster.each(collect_one, tasks, client)]
    if len({(item.boxsize, item.truth[0].shape) for item in samples}) > 1:
        return None
    k, mean, *_ = spectra(samples, own)
    drawn = [field for item in samples for field in item.drawn[own]]
    return {"simulations": [display_name(source) for source in chosen], "draws": draws, "maps": len(drawn),
            **amounts(run, [true for item in samples for true in item.truth], "true_"), **amounts(run, drawn),
            "k": k.tolist(), "power_ratio": numbers(mean[own] / mean[TRUTH]),
            "power_residual": metrics.mean_residual(mean[own], mean[TRUTH]),
            "power_largest_residual": largest_residual(mean[own], mean[TRUTH])}


def amounts(run, fields, prefix=""):
    """{"galaxies": how many, the mean over draws of all maps}, or {"mean_density": ...} where matter is drawn.

    fields: of each map, (n, n), or its draws, (draws, n, n), or such boxes.
    """
    if run.config.matter:
        return {f"{prefix}mean_density": float(np.mean(fields))}
    return {f"{prefix}galaxies": float(sum(np.sum(field) / (len(field) if field.ndim > run.config.dimensions else 1)
                                           for field in fields))}


def power(fields, boxsize, mean, bins=None):
    """k and the power spectra of fields of galaxies, (fields, k), relative to a mean number in a cell."""
    with np.errstate(invalid="ignore"):  # of no galaxies at all there is no spectrum: NaN
        found = [statistics.power_spectrum(field / mean, boxsize, bins) for field in fields]
    return found[0][0], np.array([spectrum for _, spectrum, _ in found])


def spectra(samples, run):
    """Spectra averaged over maps: k, {key: P}, and of that average two errors, of draws of `run` and of the truth.

    That of the draws is their scatter from draw to draw, that of the truth what the scatter from map to map makes of
    it: NaN for a single map. Each prediction's overdensity is relative to its own mean over all maps; shot noise is in
    all of them.
    """
    boxsize, mean, scatter = samples[0].boxsize, {}, None
    truth = [field for item in samples for field in item.truth]
    k, each = power(truth, boxsize, np.mean(truth))
    mean[TRUTH] = each.mean(axis=0)
    error = each.std(axis=0, ddof=1) / np.sqrt(len(each)) if len(each) > 1 else np.full(len(k), np.nan)
    for key in samples[0].drawn:
        fields = [drawn for item in samples for drawn in item.drawn[key]]  # of (fields, n, n)
        level = np.mean(fields)
        each = np.array([power(drawn, boxsize, level)[1] for drawn in fields])  # (maps, fields, k)
        mean[key] = each.mean(axis=(0, 1))
        if key == run:
            scatter = each.mean(axis=0).std(axis=0, ddof=1)
    return k, mean, scatter, error


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
    calibrated model even. Beside the ranks stands the column of each block, (blocks,): blocks at one place of
    neighbouring maps share haloes.
    """
    rng, found, columns = np.random.default_rng(seed), [], []
    for number, item in enumerate(samples):
        for true, drawn in zip(item.truth, item.drawn[run]):
            sums = np.stack([metrics.sums_in_cubes(field, block).ravel() for field in (true, *drawn)])
            filled = np.flatnonzero(sums.any(axis=0))
            columns.append(number * sums.shape[1] + filled)
            sums = sums[:, filled]
            whole = np.array_equal(sums, np.rint(sums))  # else none are equal, and what is nearly so keeps its order
            order = sums + rng.uniform(0, 0.5, sums.shape) if whole else sums
            found.append((order[1:] < order[0]).sum(axis=0))
    return np.concatenate(found), np.concatenate(columns)


def evenness(places, draws, bins=8, columns=None):
    """Histogram of ranks in a few bins, what even ranks would give, the p-value of the chi-square test, and the effect.

    columns: of each block, where blocks of one column are not independent. The chi-square is divided by their effect
    on the variance of the histogram, which the scatter from column to column says (Rao & Scott 1984, Ann. Stat. 12,
    46): the number of independent columns that each counts for. Without columns the effect is 1.
    """
    bins = min(bins, draws + 1)
    edge = np.arange(draws + 2) * bins // (draws + 1)  # bin of each rank; bins may differ in width by one
    share = np.bincount(edge[:-1], minlength=bins) / (draws + 1)
    observed = np.bincount(edge[places], minlength=bins)
    square, effect = stats.chisquare(observed, share * len(places)).statistic, 1.0
    if columns is not None:
        _, place = np.unique(columns, return_inverse=True)
        number = place.max() + 1
        table = np.zeros((number, bins))
        np.add.at(table, (place, edge[places]), 1)
        away = table - table.sum(axis=1, keepdims=True) * share
        if number > 1:
            away = away - away.mean(axis=0)  # what all have in common is what is tested
            variance = (away**2).sum(axis=0) * number / (number - 1) / len(places)
            effect = float((variance / share).sum() / (bins - 1)) or 1.0
    return observed, share * len(places), float(stats.chi2.sf(square / effect, bins - 1)), effect


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


def evaluate(run, sources, *, draws, options, regressor=None, hod=None, most=None, study=False, outside_domain=False,
             client=None):
    """The `Evaluation` of draws for simulations; see `Diffusion.evaluate`. options: of `sample.draw`."""
    cluster.check_paths(sources, client)
    if regressor is not None and not isinstance(regressor, Cascade):
        regressor = Cascade.load(regressor)
    for one in (run, regressor) if regressor else (run,):
        one.check_unseen(sources)
    if regressor:
        comparable({"the run": run, "the regressor": regressor}, "cell", "cells [Mpc/h]")
    given = cluster.Runs([run, regressor] if regressor else [run], client)
    model = None if run.config.matter else baseline.chosen(hod, run.folder, sources)
    others = {"model": model, "forest": forest_of(run), "again": not run.config.matter, "most": most,
              "outside_domain": outside_domain}
    tasks = [(given, regressor is not None, source, draws, options, others) for source in sources]
    own, samples, notes = key_of(run), [], run.unmeasured()
    for source, (item, noted) in zip(sources, cluster.each(collect_one, tasks, client)):
        samples.append(item)
        notes += noted
        if (item.boxsize, item.truth[0].shape) != (samples[0].boxsize, samples[0].truth[0].shape):
            raise DataError(f"{display_name(source)}: all simulations must have one box size and grid to be averaged")
    k, mean, scatter, error = spectra(samples, own)
    r = correlation(samples, own)
    places, columns = ranks(samples, own)
    observed, expected, p, effect = evenness(places, draws, columns=columns)
    result = {"simulations": [display_name(source) for source in sources], "draws": draws, **options,
              "maps": sum(len(item.truth) for item in samples), "k": k.tolist(),
              "truth": {}, "runs": {}, "baselines": {}}
    for key, values in mean.items():
        if key == TRUTH:
            put(result, key, {**amounts(run, [true for item in samples for true in item.truth]),
                              "power": numbers(values), "power_error": numbers(error)})
            continue
        put(result, key, {
            **amounts(run, [drawn for item in samples for drawn in item.drawn[key]]), "power": numbers(values),
            "power_residual": metrics.mean_residual(values, mean[TRUTH]),
            "power_largest_residual": largest_residual(values, mean[TRUTH]), "correlation": numbers(r[key]),
            **({} if run.config.matter else {"occupation": occupation(samples, key)})})
    entry = result["runs"][own[1]]
    entry |= {"power_scatter": numbers(scatter),
              "ranks": {"observed": observed.tolist(), "expected": expected.tolist(), "blocks": len(places),
                        "p_value": p, "effect_of_columns": effect,
                        "p_value_of_independent_blocks": evenness(places, draws)[2]}}
    seen = on_training(run, len(sources), most, draws, options, given, client)
    if seen:
        entry["training"] = seen
    if SHUFFLED in r:
        entry["correlation_with_another_map"] = numbers(r[SHUFFLED])
    if model:
        result["baselines"][HALO_MODEL[1]]["parameters"] = asdict(model)
    if run.config.names:
        found, noted = response(run, samples[0], draws, options)
        notes += noted
        if found:
            entry["response"] = found
    if study:
        entry["study"] = steps_study(run, samples, options)
    result["worst_cases"] = worst(run, samples, own, sources)
    if notes:
        result["notes"] = list(dict.fromkeys(notes))

    def draw():
        drawn = {"draws": figures.draws(samples[0], own, matter=run.config.matter),
                 "power_spectrum": figures.spectra(k, mean, own, scatter, error, r, run.config.dimensions),
                 "ranks": figures.ranks(observed, expected, p)}
        if "response" in entry:
            drawn["response"] = figures.response(k, entry["response"])
        if study:
            drawn["steps"] = figures.study(entry["study"])
        return drawn

    return Evaluation(result, lines(result), functools.cache(draw), run)


def worst(run, samples, own, sources):
    """The maps, or boxes, whose number of galaxies, or mean density, is farthest off in the mean over draws."""
    rows = [{"simulation": display_name(source), "map": number, **amounts(run, [drawn]),
             **amounts(run, [true], "true_")} for source, item in zip(sources, samples)
            for number, (true, drawn) in enumerate(zip(item.truth, item.drawn[own]))]
    return farthest_off(rows, "mean_density" if run.config.matter else "galaxies")


def response(run, item, draws, options):
    """What each parameter does, one standard deviation of the training's below and above its mean, to one map's draws.

    {name: {"low", "high": {"value", "galaxies", or "mean_density", "power"}}}; all draws start from the same noise, and
    the other parameters are the simulation's own. And notes: what was the same in all of the training is left out.
    """
    layer = run.network.network.get_layer("normalised_parameters")
    middle, spread = np.ravel(layer.mean), np.sqrt(np.ravel(layer.variance))
    result, notes = {}, []
    for place, name in enumerate(run.config.names):
        if spread[place] <= CONSTANT * abs(middle[place]):
            notes.append(f"{name} is {middle[place]:g} in all simulations of the training: what it does is not known")
            continue
        if run.regressor and name in run.regressor.config.names:
            notes.append(f"what {name} does is left out: it is given to the regressor, too, whose field stays as it is")
            continue
        result[name] = {}
        for side, sign in (("low", -1), ("high", 1)):
            parameters = item.parameters.copy()
            parameters[place] = middle[place] + sign * spread[place]
            with progress(f"response to {name}") as tick:
                drawn = sample.draw(run.network, run.config, item.given[0], draws, parameters=parameters,
                                    progress=tick, **options)
            result[name][side] = {"value": float(parameters[place]), **amounts(run, [drawn]),
                                  "power": power(drawn, item.boxsize, max(drawn.mean(), 1e-9))[1].mean(0).tolist()}
    return result, notes


def steps_study(run, samples, options):
    """P(k) of all samplers with few and many steps, on all maps, over that of the longest ancestral one.

    Noise is common: the noise of a long step is that of the short ones within it. {"k", "draws", sampler: [{"steps",
    "galaxies", or "mean_density", "ratio", "error", "power", "residual"}]}; power: the ratio of all power, the mean of
    P over bins, and its error from map to map.
    """
    maps = [(field, item.parameters) for item in samples for field in item.given]
    mean = np.mean([field for item in samples for field in item.truth])
    fundamental = 2 * np.pi / samples[0].boxsize
    bins = fundamental * np.geomspace(0.9, len(maps[0][0]) / 2, STUDY_BINS + 1)
    finest = STUDY["ancestral"][0]
    result, longest = {}, None
    for sampler, several in STUDY.items():
        result[sampler] = []
        for steps in several:
            each, drawn_maps = [], []
            for number, (field, parameters) in enumerate(maps):
                with progress(f"{sampler}, {steps} steps: {number + 1} of {len(maps)}") as tick:
                    drawn = sample.draw(
                        run.network, run.config, field, STUDY_DRAWS, parameters=parameters, progress=tick,
                        finest=finest, **{**options, "steps": steps, "sampler": sampler,
                                          "seed": options["seed"] + number})
                k, spectrum = power(drawn, samples[0].boxsize, mean, bins)
                each.append(spectrum.mean(axis=0))
                drawn_maps.append(drawn)
            each = np.array(each)
            longest = each if longest is None else longest
            ratio, error = ratio_of_sums(each, longest)
            whole, uncertain = ratio_of_sums(each.mean(axis=1), longest.mean(axis=1))
            result[sampler].append({"steps": steps, **amounts(run, drawn_maps), "ratio": numbers(ratio),
                                    "error": numbers(error), "power": numbers([whole])[0],
                                    "power_error": numbers([uncertain])[0],
                                    "residual": metrics.mean_residual(ratio, np.ones(len(ratio)))})
    return {"k": k.tolist(), "draws": STUDY_DRAWS, "maps": len(maps), **result}


def ratio_of_sums(values, others):
    """Sum of values over that of others along the first axis, and the error of the ratio by the scatter along it."""
    with np.errstate(invalid="ignore", divide="ignore"):  # without a galaxy in the draws there is no ratio: NaN
        ratio = values.sum(axis=0) / others.sum(axis=0)
        away = values - ratio * others
        number = len(values)
        return ratio, np.sqrt((away**2).sum(axis=0) * number / max(number - 1, 1)) / others.sum(axis=0)


def largest_residual(values, true):
    """Largest |value / true - 1| of a spectrum; None where a prediction has no galaxy, and so no spectrum."""
    residual = np.abs(values / true - 1)
    return float(np.nanmax(residual)) if np.isfinite(residual).any() else None


def number_of(share):
    """A share as a number in text."""
    return "undefined" if share is None else f"{share:.4f}"


def amount(entry, prefix=""):
    """What `amounts` found, as text."""
    found = entry.get(f"{prefix}galaxies")
    return f"{entry[f'{prefix}mean_density']:.3f}" if found is None else f"{found:.0f}"


def percent(value):
    """A share as text."""
    return "undefined" if value is None else f"{100 * value:.1f}%"


def lines(result):
    """The comparison as lines of text."""
    of_galaxies = "galaxies" in result["truth"]
    cells = f"{'accuracy':>10s}{'recall':>9s}{'precision':>11s}" if of_galaxies else ""
    yield (f"{'':16s}{'galaxies' if of_galaxies else 'mean density':>13s}{cells}{'residual of P(k)':>18s}"
           f"{'largest':>9s}{'r(k) < 1 h/Mpc':>16s}")
    large = np.array(result["k"]) < 1
    yield f"{'truth':16s}{amount(result['truth']):>13s}"
    for kind in ("baselines", "runs"):
        for name, entry in result[kind].items():
            r, cells = np.mean(np.array(entry["correlation"], float)[large]), ""
            if of_galaxies:
                found = entry["occupation"]
                cells = f"{found['accuracy']:>10.4f}{found['recall']:>9.4f}{number_of(found['precision']):>11s}"
            power = f"{percent(entry['power_residual']):>18s}{percent(entry['power_largest_residual']):>9s}"
            yield f"{figures.label((kind, name)):16s}{amount(entry):>13s}{cells}{power}{r:>16.3f}"
    entry = next(iter(result["runs"].values()))
    if "correlation_with_another_map" in entry:
        r = np.mean(np.array(entry["correlation_with_another_map"], float)[large])
        yield f"draws given another map's {'density' if of_galaxies else 'galaxies'}: r(k) < 1 h/Mpc is {r:.3f}"
    if "training" in entry:
        seen = entry["training"]
        yield (f"on {seen['maps']} fields of its training, {seen['draws']} draws each: residual of P(k) "
               f"{percent(seen['power_residual'])}, largest {percent(seen['power_largest_residual'])}, "
               + (f"{amount(seen)} of {amount(seen, 'true_')} galaxies" if of_galaxies else
                  f"mean density {amount(seen)}, true {amount(seen, 'true_')}"))
    ranks = entry["ranks"]
    yield (f"ranks of the truth among {result['draws']} draws in {ranks['blocks']} blocks: even ones are as uneven "
           f"with a chance of p = {ranks['p_value']:.3g}; were blocks at one place of neighbouring maps independent, "
           f"{ranks['p_value_of_independent_blocks']:.3g}")
    for sampler in SAMPLERS if "study" in entry else ():
        most = entry["study"]["ancestral"][0]["steps"]
        for row in entry["study"][sampler]:
            yield (f"{sampler}, {row['steps']} steps: {percent(row['power'])} +- {percent(row['power_error'])} of the "
                   f"power of {most} ancestral steps, {percent(row['residual'])} away in the mean over bins, "
                   + (f"{amount(row)} galaxies" if of_galaxies else f"mean density {amount(row)}"))
