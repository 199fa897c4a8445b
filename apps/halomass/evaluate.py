"""Runs compared on simulations that none of them saw: the figures and numbers of Lucie-Smith et al. 2020, Sec. 4."""

import csv
import json
from pathlib import Path

import numpy as np

from kerasgal.apps.halomass import data, figures, metrics
from kerasgal.apps.halomass.distribution import predictive
from kerasgal.apps.halomass.predict import load_run, predict_particles
from kerasgal.errors import DataError
from kerasgal.files import replacing
from kerasgal.simulation import Simulation
from kerasgal.training import check_unseen, named

TREES, MEAN, RANDOM = "boosted trees", "mean", "random"


def load_runs(folders, simulations):
    """The trained runs in folders, {name: (folder, Run)}, if they can be compared on these simulations.

    Raises DataError for runs whose targets differ, or a simulation that one of them was trained or validated on.
    """
    runs = {name: (Path(folder), load_run(folder)) for name, folder in named(folders).items()}
    ranges = {name: (run.config.low, run.config.high) for name, (_, run) in runs.items()}
    if len(set(ranges.values())) > 1:
        raise DataError("runs of different targets cannot be compared: " + ", ".join(
            f"{name} predicts log10 masses in [{low:g}, {high:g}]" for name, (low, high) in ranges.items()))
    for folder, _ in runs.values():
        check_unseen(folder, simulations)
    return runs


def draw(path, number, count, low, high):
    """Particles of one simulation: flat indices (m,), and a dictionary of arrays (m,) that describe them.

    log_mass: of the halo, log10 Msun/h; halo: a label that no other simulation's haloes have; place: third of the
    halo's radius, -1 where the simulation has no final positions.
    """
    with Simulation(path, require=("initial/delta", "halo_id", "halos/mass")) as simulation:
        particles, log_mass = data.sample_particles(simulation, count, low, high, seed=number)
        halo = simulation["halo_id"][...].ravel()[particles]
        place = np.full(len(particles), -1)
        if "final/position" in simulation:
            haloes = simulation.halos()
            place = metrics.radial_third(metrics.radius_fraction(
                simulation["final/position"][...][particles], haloes["position"][halo], haloes["radius"][halo],
                simulation.boxsize))
    return particles, {"log_mass": log_mass, "halo": halo.astype(np.int64) + (number << 32), "place": place}


def collect(predictors, low, high, simulations, count, progress):
    """What all predictors say of the same particles: the description of these as of `draw`, and {name: prediction}."""
    drawn, found = [], {name: [] for name in predictors}
    for number, path in enumerate(simulations):
        particles, described = draw(path, number, count, low, high)
        drawn.append(described)
        for name, predict in predictors.items():
            progress(name, path)
            found[name].append(predict(path, particles))
    sample = {key: np.concatenate([part[key] for part in drawn]) for key in drawn[0]}
    return sample, {name: parts[0] | {key: np.concatenate([part[key] for part in parts])
                                      for key in ("log_mass", "y") if key in parts[0]}
                    for name, parts in found.items()}


def evaluate(predictors, low, high, simulations, folder, *, count, reference, progress=lambda name, path: None):
    """Compare predictions of the same particles; writes metrics.json and figures into `folder`, returns the metrics.

    predictors: {name: function of a Simulation file's path and particles, (m,), to a dictionary with `log_mass`, (m,)
        log10 Msun/h, and for networks `y`, (m,), `gamma` and `likelihood`}.
    low, high: range of log10 mass from which particles are drawn; count: particles from each simulation.
    reference: the name whose K-L divergence from the others the comparison figure gives.
    Two predictions are added that know nothing: the mean of the true masses, the best of all constants, and one that
    draws at random from them (the paper's comparison value, K-L 0.40).
    """
    sample, found = collect(predictors, low, high, simulations, count, progress)
    true, halo = sample["log_mass"], sample["halo"]
    predicted = {name: prediction["log_mass"] for name, prediction in found.items()}
    residuals = {name: values - true for name, values in predicted.items()}
    residuals |= {MEAN: true.mean() - true, RANDOM: np.random.default_rng(0).permutation(true) - true}
    third = metrics.mass_third(true, low, high)
    weights = metrics.bootstrap_weights(halo)
    target = data.Scale(low, high).to_target(true)

    result = {"simulations": [str(path) for path in simulations], "mass_range": [low, high], "particles": len(true),
              "haloes": len(np.unique(halo)), "predictions": {},
              "divergence": metrics.divergences(residuals, halo),
              "divergence_by_mass": [divergences_of(residuals, halo, third == number) for number in range(3)]}
    for name, residual in residuals.items():
        row = accuracy(true, true + residual, weights)
        if "y" in found.get(name, {}):
            row |= calibration(found[name], target, weights)
        row["residuals_by_mass"] = [metrics.summary(residual[third == number]) for number in range(3)]
        row["residuals_by_mass_and_place"] = {
            place: [metrics.summary(residual[(third == number) & (sample["place"] == shell)]) for number in range(3)]
            for shell, place in enumerate(metrics.PLACES)}
        result["predictions"][name] = row

    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / "metrics.json") as temporary:
        temporary.write_text(json.dumps(result, indent=2) + "\n")
    figures.violins(true, predicted, low, high, folder / "violins.png")
    figures.comparison({name: residuals[name] for name in [*found, RANDOM]}, third, low, high,
                       {name: label(name, result, reference) for name in residuals}, folder / "comparison.png")
    if np.all(sample["place"] >= 0):
        figures.radii({name: residuals[name] for name in found}, third, sample["place"], low, high,
                      folder / "radii.png")
    networks = {name: prediction for name, prediction in found.items() if "y" in prediction}
    if networks:
        figures.likelihood(target, {name: (network["y"], density_function(network["likelihood"], network["gamma"]))
                                    for name, network in networks.items()}, folder / "likelihood.png")
        figures.calibration({name: result["predictions"][name]["coverage"] for name in networks},
                            folder / "calibration.png")
    return result


def calibration(prediction, target, weights):
    """Width of a network's likelihood and how many particles its central intervals hold. target: (m,) true d."""
    distribution = predictive(prediction["likelihood"], prediction["y"], prediction["gamma"])
    probability = distribution.cdf(target).numpy()
    within = (np.abs(2 * probability - 1) <= 0.68).astype(float)
    return {"gamma": np.asarray(prediction["gamma"]).tolist(),
            "coverage": dict(zip(map(str, metrics.LEVELS), metrics.coverage(probability))),
            "coverage_error_68": float((weights @ within / weights.sum(axis=1)).std())}


def divergences_of(residuals, halo, chosen):
    """K-L divergences among the chosen particles; None where they are too few for a distribution."""
    if chosen.sum() < figures.FEWEST:
        return None
    return metrics.divergences({name: residual[chosen] for name, residual in residuals.items()}, halo[chosen])


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


def label(name, result, reference):
    """Legend of a prediction: r, and the K-L divergence of the reference's residuals from its own."""
    row = result["predictions"][name]
    words = [name] + ([f"r = {round(row['r'], 2) + 0:.2f}"] if row["r"] is not None else [])  # + 0: no minus zero
    if name != reference:
        value = result["divergence"][reference][name]
        words.append(f"K-L of {reference} from it {value['divergence']:.3f} $\\pm$ {value['error']:.3f}")
    return ", ".join(words)


def network(run):
    """A trained run as a predictor for `evaluate`."""
    def predict(path, particles):
        return {**predict_particles(run, path, particles), "likelihood": run.config.likelihood}

    return predict


def trees(fitted):
    """Fitted trees as a predictor for `evaluate`."""
    return lambda path, particles: {"log_mass": fitted.predict(path, particles)}


def histories(folders):
    """The columns of each run's history.csv: {name: {column: (epochs,)}}."""
    columns = {}
    for name, folder in folders.items():
        with (folder / "history.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        columns[name] = {column: np.array([float(row[column]) for row in rows]) for column in rows[0]}
    return columns


def table(result, reference):
    """The comparison as lines of text."""
    low, high = result["mass_range"]
    yield (f"{result['particles']} particles of {result['haloes']} haloes in {len(result['simulations'])} simulations, "
           f"log10 mass {low:g} to {high:g}")
    yield f"{'':16s}{'r':>15s}{'rms [dex]':>18s}{'within 68%':>14s}   K-L divergence of {reference} from it"
    for name, row in result["predictions"].items():
        r = "undefined" if row["r"] is None else f"{row['r']:.3f} +- {row['r_error']:.3f}"
        within = f"{100 * row['coverage']['0.68']:.1f}%" if "coverage" in row else ""
        value = result["divergence"][reference].get(name)
        distance = f"{value['divergence']:.3f} +- {value['error']:.3f}" if value else ""
        yield f"{name:16s}{r:>15s}{row['rms_dex']:>9.3f} +- {row['rms_error']:.3f}{within:>14s}   {distance}".rstrip()
