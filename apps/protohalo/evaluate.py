"""Evaluation on simulations that the network never saw: metrics and the figures of Bernardini et al. 2020, Sec. 5."""

import json

import numpy as np

from kerasgal.apps.protohalo import data, excursion, figures, metrics, predict, watershed
from kerasgal.cosmology import growth_factor
from kerasgal.files import replacing
from kerasgal.simulation import Simulation
from kerasgal.statistics import mass_bins

METHODS = ("adaptive", "native", "excursion_set")


def predict_all_ways(run, simulation):
    """True and predicted maps and label volumes of one simulation: a dictionary of arrays, and its trajectories."""
    delta = simulation.delta()
    minimum = run.config.minimum
    halo_id = {"true": data.required_halo_id(simulation, minimum)}
    predicted = predict.predict_distance(run.model, run.config, data.normalise(delta))
    found = predict.find_trajectories(predicted, run.config)
    for method, sizes in (("native", found.size), ("adaptive", watershed.cut_sizes(found, run.line))):
        halo_id[method] = watershed.label_haloes(found, sizes, predicted.shape, minimum)
    growth = growth_factor(simulation.cosmology, np.array([simulation.redshift_final, simulation.redshift_initial]))
    halo_id["excursion_set"] = excursion.peak_haloes(delta * np.float32(growth[0] / growth[1]), minimum)
    return delta, data.distance_map(halo_id["true"]), predicted, halo_id, found


def evaluate(run, paths, folder, progress=lambda path: None):
    """Evaluate a run on Simulation files; writes metrics.json and figures into `folder` and returns the metrics.

    Mass functions are summed over the files. Each method (the adaptive watershed, the native one, and the
    excursion-set baseline) is held against the true haloes of at least the run's minimum of cells.
    """
    mass = {method: [] for method in ("true", *METHODS)}
    cells = {method: [] for method in METHODS}
    members = {method: np.zeros(3, int) for method in METHODS}
    losses, trajectories, cell_mass, first = [], [], 0.0, None
    for path in paths:
        progress(path)
        with Simulation(path, require=("initial/delta", "halo_id", "halos/count")) as simulation:
            delta, true, predicted, halo_id, found = predict_all_ways(run, simulation)
            cell_mass = max(cell_mass, simulation.cell_mass)
            true_size = data.true_cells(simulation)
            boxsize = simulation.boxsize
            # A halo's mass is that of its particles; its cells are as many unless particles share cells.
            masses = {"true": true_size * simulation.cell_mass}
            for method in METHODS:
                masses[method] = np.bincount(halo_id[method][halo_id[method] >= 0]) * simulation.cell_mass
                members[method] += metrics.membership(halo_id["true"], halo_id[method])
                cells[method].append(metrics.cell_masses(halo_id["true"], halo_id[method], masses["true"],
                                                         masses[method]))
            masses["true"] = masses["true"][true_size >= run.config.minimum]
        for method, values in masses.items():
            mass[method].append(values)
        losses.append(metrics.normalised_l1(true, predicted))
        trajectories.append(found)
        first = first or (delta, true, predicted, halo_id, boxsize)
    mass = {method: np.concatenate(values) for method, values in mass.items()}
    cells = {method: np.concatenate(values, axis=1) for method, values in cells.items()}
    edges = mass_bins(run.config.minimum * cell_mass, mass["true"].max(initial=2 * run.config.minimum * cell_mass))

    result = {"simulations": [str(path) for path in paths], "minimum_cells": run.config.minimum,
              "loss": float(np.mean(losses)), "loss_per_simulation": losses, "mass_edges": edges.tolist(),
              "haloes": {method: len(values) for method, values in mass.items()}}
    for method in METHODS:
        ratio = np.log10(cells[method][1] / cells[method][0])
        result[method] = {**metrics.mass_function_residual(mass["true"], mass[method], edges),
                          "dice": metrics.dice(members[method]),
                          "cell_mass_offset_dex": float(np.median(ratio)) if len(ratio) else None,
                          "cell_mass_scatter_dex": float(ratio.std()) if len(ratio) else None}
    figures.distance_maps(*first[:3], first[4], folder / "distance_maps.png")
    figures.halo_slices(first[3], first[4], folder / "halo_slices.png")
    figures.trajectories(watershed.sample(trajectories), run.line, run.config.minimum, folder / "trajectories.png")
    figures.cell_masses(cells, folder / "cell_masses.png")
    figures.mass_function(result, folder / "mass_function.png")
    with replacing(folder / "metrics.json") as temporary:
        temporary.write_text(json.dumps(result, indent=2) + "\n")
    return result
