"""Runs compared on simulations that none of them saw: the figures and numbers of Lucie-Smith et al. 2020, Results.

What somebody calls a run, and what we call the baselines, never stand in one namespace: a prediction has the key
("runs", name) or ("baselines", name), and metrics.json has the two groups.
"""

import functools
import logging

import numpy as np

from kerasgal import cluster, run_folder
from kerasgal.apps.halomass import data, figures, metrics
from kerasgal.apps.halomass.distribution import predictive
from kerasgal.apps.halomass.predict import predict_particles
from kerasgal.errors import DataError
from kerasgal.plotting import track
from kerasgal.run import WORST, Evaluation, Run, as_list, comparable, display_name, to_judge_on
from kerasgal.simulation import opened
from kerasgal.twins import notes_of, paired, twin_masses

RUNS, BASELINES = "runs", "baselines"
TREES, TWIN, MEAN, RANDOM = ((BASELINES, name) for name in ("boosted trees", "twin", "mean", "random"))

log = logging.getLogger(__name__)


def evaluate(run, sources, *, compare=(), network=True, baseline=False, ceiling=(), sample=4000,
             outside_domain=False, client=None):
    """The `Evaluation` of a run, and of others to compare it with; see `HaloMass.evaluate`.

    network: whether the run's own network takes part, or only the baseline that is fitted to its particles.
    """
    sources, ceiling = to_judge_on(sources), as_list(ceiling)
    cluster.check_paths([*sources, *ceiling], client)
    runs = named(run, compare)
    for setting, words in (("low", "least masses"), ("high", "greatest masses")):
        comparable(runs, setting, words)
    for one in runs.values():
        one.check_unseen(sources)
    notes = [note for source in sources for note in check_domains(runs, source, outside_domain)]
    given = cluster.Runs(runs.values(), client)
    predictors = {(RUNS, name): predictor(given, place) for place, name in enumerate(runs)} if network else {}
    if baseline:
        from kerasgal.apps.halomass.baseline import fit

        log.info(f"fitting boosted trees to the training particles of {run.folder}")
        predictors[TREES] = trees(fit(run))
    histories = {name: one.history for name, one in runs.items() if network and one.history}
    twins = paired(sources, ceiling) if ceiling else None
    notes += notes_of(sources, twins) if ceiling else []
    made = compared(predictors, run.config.low, run.config.high, sources, sample=sample, histories=histories,
                    twins=twins, client=client)
    made.run = run
    if notes:
        made.metrics["notes"] = list(dict.fromkeys(notes))
    return made


def named(run, others):
    """{name: HaloMass} of a run and of others, run folders or loaded ones; raises RunError for one given twice."""
    others = [others] if isinstance(others, Run) else as_list(others)
    runs = [run, *(one if isinstance(one, Run) else type(run).load(one) for one in others)]
    names = run_folder.named([one.folder or "run in memory" for one in runs])
    return dict(zip(names, runs))


def check_domains(runs, source, outside_domain):
    """Notes on how a simulation differs from what each run was trained on; raises DomainError as `Run` does."""
    with opened(source) as simulation:
        for name, run in runs.items():
            known = data.features(simulation, run.config)
            for note in run.check_domain(source, known, outside_domain=outside_domain):
                yield note if len(runs) == 1 else f"{name}: {note}"


def predictor(runs, place):
    """A trained run as a function of a Simulation and particles, (m,), to what `compared` takes; runs: `cluster.Runs`.
    """
    def predict(simulation, particles):
        run = runs.get()[place]
        return {**predict_particles(run.network, run.config, simulation, particles),
                "likelihood": run.config.likelihood}

    return predict


def trees(fitted):
    """Fitted trees as a function of a Simulation and particles, (m,), to what `compared` takes."""
    return lambda simulation, particles: {"log_mass": fitted.predict(simulation, particles)}


def draw(simulation, number, count, low, high):
    """Particles of one simulation: flat indices (m,), and a dictionary of arrays (m,) that describe them.

    particle: the flat index again; log_mass: of the halo, log10 Msun/h; halo: a label that no other simulation's haloes
    have; place: third of the halo's radius, -1 where the simulation has no final positions.
    """
    particles, log_mass = data.sample_particles(simulation, count, low, high, seed=number)
    halo = simulation["halo_id"][...].ravel()[particles]
    place = np.full(len(particles), -1)
    if "final/position" in simulation:
        haloes = simulation.halos()
        place = metrics.radial_third(metrics.radius_fraction(
            simulation["final/position"][...][particles], haloes["position"][halo], haloes["radius"][halo],
            simulation.boxsize))
    return particles, {"particle": particles, "log_mass": log_mass, "place": place,
                       "halo": halo.astype(np.int64) + (number << 32)}


def said_of(task):
    """What all predictors say of particles of one simulation, as `collect` of several.

    task: (number of the simulation, source, twin or None, predictors, low, high, count)
    """
    number, source, twin, predictors, low, high, count = task
    with opened(source, require=("initial/delta", "halo_id", "halos/mass")) as simulation:
        particles, described = draw(simulation, number, count, low, high)
        if twin is not None:
            with opened(twin, require=("halo_id", "halos/mass")) as other:
                described["twin"] = np.log10(twin_masses(simulation, other)[particles])
        return described, {key: predict(simulation, particles) for key, predict in predictors.items()}


def collect(predictors, low, high, sources, count, twins=None, client=None):
    """What all predictors say of the same particles: the description of these as of `draw`, and {key: prediction}.

    With `twins`, of `kerasgal.twins.paired`, the description has `twin`, (m,), too: the log10 mass of the halo in which
    a particle ends in the twin, NaN for none.
    """
    tasks = [(number, source, twins[number][0] if twins else None, predictors, low, high, count)
             for number, source in enumerate(sources)]
    drawn, found = [], {key: [] for key in predictors}
    for described, said in track(cluster.each(said_of, tasks, client), "predicting", total=len(tasks)):
        drawn.append(described)
        for key, prediction in said.items():
            found[key].append(prediction)
    sample = {name: np.concatenate([part[name] for part in drawn]) for name in drawn[0]}
    return sample, {key: parts[0] | {name: np.concatenate([part[name] for part in parts])
                                     for name in ("log_mass", "y") if name in parts[0]}
                    for key, parts in found.items()}


def compared(predictors, low, high, sources, *, sample, histories=None, twins=None, client=None):
    """The `Evaluation` of predictions of the same particles.

    predictors: {(RUNS or BASELINES, name): function of a Simulation and particles, (m,), to a dictionary with
        `log_mass`, (m,) log10 Msun/h, and for networks `y`, (m,), `gamma` and `likelihood`}. The first one is that
        whose K-L divergence from the others is drawn and printed.
    low, high: range of log10 mass from which particles are drawn; sample: particles from each simulation.
    histories: of the trainings of runs, {name: rows}, for a figure.
    twins: of `kerasgal.twins.paired`, whose masses stand beside the predictions; see `twin_prediction`.
    client: of `kerasgal.cluster.connect`, whose processes then take one simulation each, or None.
    Two baselines are added that know nothing: the mean of the true masses, the best of all constants, and one that
    draws at random from them (the paper's comparison value, K-L 0.40).
    """
    drawn, found = collect(predictors, low, high, sources, sample, twins, client)
    true, halo, place = drawn["log_mass"], drawn["halo"], drawn["place"]
    if twins:
        found[TWIN] = {"log_mass": twin_prediction(true, drawn["twin"], low, high)}
    predicted = {key: prediction["log_mass"] for key, prediction in found.items()}
    residuals = {key: values - true for key, values in predicted.items()}
    residuals |= {MEAN: true.mean() - true, RANDOM: np.random.default_rng(0).permutation(true) - true}
    third = metrics.mass_third(true, low, high)
    weights = metrics.bootstrap_weights(halo)
    target = data.Scale(low, high).to_target(true)

    divergence = metrics.divergences(residuals, halo)
    rows = {}
    for key, residual in residuals.items():
        rows[key] = accuracy(true, true + residual, weights)
        if "y" in found.get(key, {}):
            rows[key] |= calibration(found[key], target, weights)
        rows[key]["residuals_by_mass"] = [metrics.summary(residual[third == number]) for number in range(3)]
        rows[key]["residuals_by_mass_and_place"] = {
            name: [metrics.summary(residual[(third == number) & (place == shell)]) for number in range(3)]
            for shell, name in enumerate(metrics.PLACES)}
    result = {"simulations": [display_name(source) for source in sources], "mass_range": [low, high],
              "particles": len(true), "haloes": len(np.unique(halo)), **grouped(rows),
              "divergence": grouped({key: grouped(others) for key, others in divergence.items()}),
              "divergence_by_mass": [divergences_of(residuals, halo, third == number) for number in range(3)],
              "divergence_by_place": by_place(residuals, halo, place)}
    if found:
        first, prediction = next(iter(found.items()))
        result["worst_cases"] = worst(called(first), prediction["log_mass"], drawn, sources)
    if twins:
        result["twins"] = ceiling_of(true, drawn["twin"], {key: true + residual for key, residual in residuals.items()},
                                     halo, low, high)
        result["twins"]["shared_up_to"] = min(wavenumber for _, wavenumber in twins)

    def draw_figures():
        names = {key: called(key) for key in residuals}
        labels = {key: label(key, rows, divergence) for key in residuals}
        networks = {key: prediction for key, prediction in found.items() if "y" in prediction}
        drawn = {"violins": figures.violins(true, predicted, low, high, names),
                 "comparison": figures.comparison({key: residuals[key] for key in (*found, RANDOM)}, third, low, high,
                                                  labels, grey=RANDOM)}
        if len(found) > 1:
            drawn["divergences"] = figures.divergences(result["divergence_by_mass"], result["divergence_by_place"],
                                                       divergence, low, high, next(iter(residuals)), list(residuals),
                                                       names)
        if np.all(place >= 0):
            drawn["radii"] = figures.radii({key: residuals[key] for key in found}, third, place, low, high, names)
        if networks:
            drawn["likelihood"] = figures.likelihood(target, {
                names[key]: (network["y"], density_function(network["likelihood"], network["gamma"]))
                for key, network in networks.items()})
            drawn["calibration"] = figures.calibration({names[key]: rows[key]["coverage"] for key in networks})
        if histories:
            drawn["training"] = figures.training(histories)
        return drawn

    return Evaluation(result, lines(result, rows, divergence), functools.cache(draw_figures))


def worst(name, predicted, drawn, sources):
    """The particles whose predicted mass is farthest off, one of each halo, as metrics.json has them.

    name: of the prediction; predicted: (m,) log10 mass; drawn: of `draw`, of all simulations.
    """
    order = np.argsort(-np.abs(predicted - drawn["log_mass"]), kind="stable")
    _, first = np.unique(drawn["halo"][order], return_index=True)
    return [{"prediction": name, "simulation": display_name(sources[drawn["halo"][place] >> 32]),
             "particle": int(drawn["particle"][place]), "log_mass": float(predicted[place]),
             "log_mass_true": float(drawn["log_mass"][place])} for place in order[np.sort(first)[:WORST]]]


def twin_prediction(true, twin, low, high):
    """The masses that a twin has for particles, as a prediction for all of them: log10 Msun/h, (m,).

    twin: log10 mass of the halo in which each ends there, NaN for none. Like a network, the twin is told the range
    [low, high] of the sample: masses beyond are taken for its ends. Where most of the twin's matter is in no halo it
    says nothing; there the prediction is the mean of the true masses, the best constant.
    """
    outside = np.isnan(twin)
    constant = true[outside].mean() if outside.any() else np.nan
    return np.where(outside, constant, np.clip(twin, low, high))


def ceiling_of(true, twin, predicted, halo, low, high):
    """What metrics.json has of twins: how many particles end in no halo there, and all predictions of the others.

    `both` is for particles that end in haloes of the range in both boxes. There the two masses are draws from one
    distribution, that of the large waves. Whoever knew its mean had a correlation with either of the root of that of
    the two, and a scatter smaller by the root of two: `best`.
    """
    outside = np.isnan(twin)
    both = (twin >= low) & (twin <= high)
    if both.sum() < figures.FEWEST:
        raise DataError(f"`ceiling`: {both.sum()} particles end in haloes of the range of masses in both boxes; at "
                        f"least {figures.FEWEST} are needed: give a larger `sample`")
    weights = metrics.bootstrap_weights(halo[both])
    rows = {key: accuracy(true[both], values[both], weights) for key, values in predicted.items()}
    alike = rows[TWIN]
    constant = float(true[outside].mean()) if outside.any() else None
    return {"outside": float(outside.mean()), "outside_log_mass": constant,
            "beyond_range": float((~outside & ~both).mean()), "particles": int(both.sum()), "both": grouped(rows),
            "best": {"r": float(np.sqrt(max(alike["r"] or 0, 0))), "rms_dex": alike["rms_dex"] / np.sqrt(2)}}


def by_place(residuals, halo, place):
    """K-L divergences among the particles of each third of the halo's radius, {name: groups}; None of an unknown one.
    """
    if np.any(place < 0):
        return None
    return {name: divergences_of(residuals, halo, place == shell) for shell, name in enumerate(metrics.PLACES)}


def grouped(rows):
    """{(group, name): row} as {"runs": {name: row}, "baselines": {name: row}}."""
    return {group: {name: row for (kind, name), row in rows.items() if kind == group} for group in (RUNS, BASELINES)}


def called(key):
    """What lines and figures call a prediction: a run by its name, with a word where a baseline has the same name."""
    group, name = key
    return f"run {name}" if group == RUNS and (BASELINES, name) in (TREES, MEAN, RANDOM) else name


def calibration(prediction, target, weights):
    """Width of a network's likelihood and how many particles its central intervals hold. target: (m,) true d."""
    distribution = predictive(prediction["likelihood"], prediction["y"], prediction["gamma"])
    probability = distribution.cdf(target).numpy()
    within = (np.abs(2 * probability - 1) <= 0.68).astype(float)
    return {"gamma": np.asarray(prediction["gamma"]).tolist(),
            "coverage": dict(zip(map(str, metrics.LEVELS), metrics.coverage(probability).tolist())),
            "coverage_error_68": float((weights @ within / weights.sum(axis=1)).std())}


def divergences_of(residuals, halo, chosen):
    """K-L divergences among the chosen particles, in groups; None where they are too few for a distribution."""
    if chosen.sum() < figures.FEWEST:
        return None
    found = metrics.divergences({key: residual[chosen] for key, residual in residuals.items()}, halo[chosen])
    return grouped({key: grouped(others) for key, others in found.items()})


def accuracy(true, predicted, weights):
    """Correlation and scatter of a prediction with their bootstrap errors; None for the correlation of a constant."""
    r = metrics.correlation(true, predicted)
    rms = metrics.root_mean_square(predicted - true)
    known = np.isfinite(r)
    return {"r": r if known else None,
            "r_error": float(metrics.correlation(true, predicted, weights).std()) if known else None,
            "rms_dex": rms, "rms_error": float(metrics.root_mean_square(predicted - true, weights).std())}


def density_function(likelihood, scales):
    """Function of a grid of d, (cells,), and predictions, (p,), to their predictive densities, (cells, p)."""
    return lambda grid, y: np.exp(predictive(likelihood, y, scales).log_prob(grid[:, None]).numpy())


def label(key, rows, divergence):
    """Legend of a prediction: r, and the K-L divergence of the first one's residuals from its own."""
    row, reference = rows[key], next(iter(rows))
    words = [called(key)] + ([f"r = {round(row['r'], 2) + 0:.2f}"] if row["r"] is not None else [])  # no minus zero
    if key != reference:
        value = divergence[reference][key]
        words.append(f"K-L of {called(reference)} from it {value['divergence']:.3f} $\\pm$ {value['error']:.3f}")
    return ", ".join(words)


def lines(result, rows, divergence):
    """The comparison as lines of text."""
    (low, high), reference = result["mass_range"], next(iter(rows))
    yield (f"{result['particles']} particles of {result['haloes']} haloes in {len(result['simulations'])} simulations, "
           f"log10 mass {low:g} to {high:g}")
    yield f"{'':16s}{'r':>15s}{'rms [dex]':>18s}{'within 68%':>14s}   K-L divergence of {called(reference)} from it"
    for key, row in rows.items():
        within = f"{100 * row['coverage']['0.68']:.1f}%" if "coverage" in row else ""
        value = divergence[reference].get(key)
        distance = f"{value['divergence']:.3f} +- {value['error']:.3f}" if value else ""
        yield (f"{called(key):16s}{r_of(row):>15s}{row['rms_dex']:>9.3f} +- {row['rms_error']:.3f}{within:>14s}   "
               f"{distance}").rstrip()
    if "twins" in result:
        yield from twin_lines(result["twins"])


def r_of(row):
    """A correlation with its error, as text."""
    return "undefined" if row["r"] is None else f"{row['r']:.3f} +- {row['r_error']:.3f}"


def twin_lines(found):
    """What twins say, as lines of text."""
    yield (f"the twins share waves up to {found['shared_up_to']:.2f} h/Mpc; {100 * found['outside']:.1f}% of the "
           "particles are in none of their haloes, where the row above has the mean mass of such")
    yield f"of the {found['particles']} that are in haloes of the range in both:"
    for group, rows in found["both"].items():
        for name, row in rows.items():
            if (group, name) not in (MEAN, RANDOM):
                yield f"{called((group, name)):16s}{r_of(row):>15s}{row['rms_dex']:>9.3f} +- {row['rms_error']:.3f}"
    best = found["best"]
    yield f"{'at best':16s}{best['r']:>6.3f}{best['rms_dex']:>18.3f}   for who knew the mean over all twins"
