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

TREES, MEAN, RANDOM = "boosted trees", "mean", "random"


def load_runs(folders, simulations):
    """The trained runs in folders, {name: (folder, Run)}, if they can be compared on these simulations.

    Raises DataError for runs whose targets differ, or a simulation that one of them was trained or validated on.
    """
    short = [Path(folder).resolve().name for folder in folders]
    names = short if len(set(short)) == len(short) else [str(folder) for folder in folders]
    if len(set(names)) < len(names):
        raise DataError(f"a run is given twice: {', '.join(names)}")
    runs = {name: (Path(folder), load_run(folder)) for name, folder in zip(names, folders)}
    ranges = {name: (run.config.low, run.config.high) for name, (_, run) in runs.items()}
    if len(set(ranges.values())) > 1:
        raise DataError("runs of different targets cannot be compared: " + ", ".join(
            f"{name} predicts log10 masses in [{low:g}, {high:g}]" for name, (low, high) in ranges.items()))
    for name, (folder, _) in runs.items():
        seen = json.loads((folder / "provenance.json").read_text())["data"]
        again = [str(path) for path in simulations
                 if str(Path(path).resolve()) in [*seen["training"], *seen["validation"]]]
        if again:
            raise DataError(f"{', '.join(again)} was used in the training of {name}; evaluate on simulations that no "
                            "run saw")
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


def evaluate(predictors, low, high, simulations, folder, *, count, reference, progress=lambda name, path: None):
    """Compare predictions of the same particles; writes metrics.json and figures into `folder`, returns the metrics.

    predictors: {name: function of a Simulation file's path and particles, (m,), to a dictionary with `log_mass`, (m,)
        log10 Msun/h, and for networks `y`, (m,), `gamma` and `likelihood`}.
    low, high: range of log10 mass from which particles are drawn; count: particles from each simulation.
    reference: the name whose residuals the comparison figure gives the K-L divergence from.
    Two predictions are added that know nothing: the mean of the true masses, the best of all constants, and one that
    draws at random from them (the paper's comparison value, K-L 0.40).
    """
    drawn, found = [], {name: [] for name in predictors}
    for number, path in enumerate(simulations):
        particles, described = draw(path, number, count, low, high)
        drawn.append(described)
        for name, predict in predictors.items():
            progress(name, path)
            found[name].append(predict(path, particles))
    true, halo, place = (np.concatenate([part[key] for part in drawn]) for key in ("log_mass", "halo", "place"))
    networks = {name: parts for name, parts in found.items() if "y" in parts[0]}
    predicted = {name: np.concatenate([part["log_mass"] for part in parts]) for name, parts in found.items()}
    informed = list(predicted)
    predicted[MEAN] = np.full(len(true), true.mean())
    predicted[RANDOM] = np.random.default_rng(0).permutation(true)
    residuals = {name: values - true for name, values in predicted.items()}
    third = metrics.mass_third(true, low, high)
    weights = metrics.bootstrap_weights(halo)

    result = {"simulations": [str(path) for path in simulations], "mass_range": [low, high], "particles": len(true),
              "haloes": len(np.unique(halo)), "predictions": {},
              "divergence": metrics.divergences(residuals, halo),
              "divergence_by_mass": [divergences_of(residuals, halo, third == number) for number in range(3)]}
    for name, residual in residuals.items():
        result["predictions"][name] = accuracy(true, predicted[name], weights) | {
            "residuals_by_mass": [metrics.summary(residual[third == number]) for number in range(3)],
            "residuals_by_mass_and_place": {
                label: [metrics.summary(residual[(third == number) & (place == shell)]) for number in range(3)]
                for shell, label in enumerate(metrics.PLACES)}}
    target = data.Scale(low, high).to_target(true)
    drawings, coverages = {}, {}
    for name, parts in networks.items():
        y, likelihood, scales = np.concatenate([part["y"] for part in parts]), parts[0]["likelihood"], parts[0]["gamma"]
        probability = predictive(likelihood, y, scales).cdf(target).numpy()
        coverages[name] = metrics.coverage(probability)
        within = (np.abs(2 * probability - 1) <= 0.68).astype(float)
        result["predictions"][name] |= {
            "gamma": np.asarray(scales).tolist(), "coverage": dict(zip(map(str, metrics.LEVELS), coverages[name])),
            "coverage_error_68": float((weights @ within / weights.sum(axis=1)).std())}
        drawings[name] = y, density_function(likelihood, scales)

    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / "metrics.json") as temporary:
        temporary.write_text(json.dumps(result, indent=2) + "\n")
    shown = {name: predicted[name] for name in informed}
    figures.violins(true, shown, low, high, folder / "violins.png")
    figures.comparison({name: residuals[name] for name in [*informed, RANDOM]}, third, low, high,
                       {name: label(name, result, reference) for name in residuals}, folder / "comparison.png")
    if np.all(place >= 0):
        figures.radii({name: residuals[name] for name in informed}, third, place, low, high, folder / "radii.png")
    if networks:
        figures.likelihood(target, drawings, folder / "likelihood.png")
        figures.calibration(metrics.LEVELS, coverages, folder / "calibration.png")
    return result


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
