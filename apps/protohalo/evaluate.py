"""Evaluation on simulations that the network never saw: metrics and the figures of Bernardini et al. 2020, Sec. 4.1."""

import functools
from dataclasses import dataclass

import numpy as np

from kerasgal import cluster, run_folder
from kerasgal.apps.protohalo import clustering, data, excursion, figures, final, metrics, predict, watershed
from kerasgal.apps.protohalo.train import SEEN
from kerasgal.conditioning import parameter_names, parameters_of
from kerasgal.cosmology import growth_factor
from kerasgal.halos import renumbered
from kerasgal.plotting import track
from kerasgal.run import WORST, Evaluation, as_list, display_name, to_judge_on
from kerasgal.simulation import opened
from kerasgal.statistics import mass_bins
from kerasgal.twins import large_haloes, notes_of, paired, twin_labels

METHODS = ("adaptive", "native", "excursion_set", "ellipsoidal")
TWIN = "twin"


def predict_all_ways(run, simulation):
    """True and predicted maps and label volumes of one simulation: a dictionary of arrays, and its trajectories."""
    delta = simulation.delta()
    minimum = run.config.minimum
    halo_id = {"true": data.required_halo_id(simulation, minimum)}
    predicted = predict.predict_distance(run.network, run.config, delta, simulation.boxsize,
                                         parameters=parameters_of(simulation, parameter_names(run.config)))
    found = predict.find_trajectories(predicted, run.config)
    for method, sizes in (("native", found.size), ("adaptive", watershed.cut_sizes(found, run.line))):
        halo_id[method] = watershed.label_haloes(found, sizes, predicted.shape, minimum)
    growth = growth_factor(simulation.cosmology, np.array([simulation.redshift_final, simulation.redshift_initial]))
    linear = delta * np.float32(growth[0] / growth[1])
    halo_id["excursion_set"] = excursion.peak_haloes(linear, minimum)
    halo_id["ellipsoidal"] = excursion.peak_haloes(linear, minimum, collapse="ellipsoidal")
    return delta, data.distance_map(halo_id["true"]), predicted, halo_id, found


def of_training(run):
    """What the run folder has of the training simulations for the figures; empty for a run that has none."""
    path = run.folder / SEEN if run.folder is not None else None
    return run_folder.read_json(path) if path is not None and path.exists() else {}


def clustered(simulation, rows, halo_id, pairs, delta, motion, twin=None, twin_rows=()):
    """The `clustering.spectra` of true haloes and of those of all label volumes, where they end.

    rows: of the true haloes in the simulation's catalogue; halo_id: {method: (n, n, n)}; pairs: of the adaptive cut's
    `metrics.match`; motion: of `final.motion`; twin: the open Simulation whose haloes stand where it has them;
    twin_rows: as `rows`, of its catalogue. Those of the adaptive cut and the true ones are there in two parts, too:
    which are matched one to one, and which are not.
    """
    n, boxsize = len(delta), simulation.boxsize
    true = clustering.true_haloes(simulation, rows)
    haloes = {"true": true}
    for method, labels in ((clustering.MOVED, halo_id["true"]), *halo_id.items()):
        if method == TWIN:
            haloes[TWIN] = clustering.true_haloes(twin, twin_rows)
        elif method != "true":
            centre = watershed.catalogue(labels, np.zeros(delta.shape, np.float32), boxsize, 1.0)["position"]
            position, velocity = final.moved(labels, centre, boxsize, *motion)
            known = np.isfinite(position).all(axis=1)  # haloes without a cell of their own have none
            haloes[method] = position[known], velocity[known]
            if method == "adaptive":
                matched = np.isin(np.arange(len(position)), pairs[:, 1])
                found = np.isin(np.arange(len(true[0])), pairs[:, 0])
                haloes |= {"adaptive, matched": (position[known & matched], None),
                           "adaptive, others": (position[known & ~matched], None),
                           "true, matched": (true[0][found], None), "true, missed": (true[0][~found], None)}
    return clustering.spectra(haloes, clustering.matter(simulation, n), boxsize, simulation.cosmology,
                              simulation.redshift_final, n)


def not_found(source, rows, halo_id, pairs, masses):
    """The most massive true haloes of a simulation that the adaptive cut does not find, as metrics.json has them.

    rows: of the true haloes in the simulation's catalogue; halo_id: {method: (n, n, n)}; pairs: of `metrics.match`;
    masses: of the true haloes, (haloes,).
    """
    found = []
    missed = np.setdiff1d(np.arange(len(masses)), pairs[:, 0])
    for halo in missed[np.argsort(-masses[missed], kind="stable")][:WORST]:
        labels = halo_id["adaptive"][halo_id["true"] == halo]
        shared = np.bincount(labels[labels >= 0], minlength=1).max()
        found.append({"simulation": display_name(source), "halo": int(rows[halo]), "mass": float(masses[halo]),
                      "largest_part_in_one_halo": float(shared / max(len(labels), 1))})
    return found


@dataclass
class Box:
    """What evaluation needs of one simulation: tables, and the volumes that are drawn of the first.

    masses: [Msun/h] of the true haloes of at least the minimum of cells, and by each method; (haloes,).
    cells, members, matchings: by method, of `metrics.cell_masses`, `metrics.membership` and `metrics.match`.
    missed: of `not_found`.
    """

    notes: list
    cell_mass: float
    masses: dict
    cells: dict
    members: dict
    matchings: dict
    missed: list
    spectra: dict
    true_sizes: np.ndarray
    loss: float
    twin_loss: float | None
    trajectories: watershed.SampledTrajectories
    drawn: tuple | None


def measure(task):
    """The `Box` of one simulation.

    task: (`cluster.Runs` of the run, source, (twin or None, wavenumber), whether to go on outside of the domain,
    whether it is the one that is drawn)
    """
    given, source, (twin, wavenumber), outside_domain, is_drawn = task
    run, = given.get()
    minimum, twin_loss = run.config.minimum, None
    with opened(source, require=("initial/delta", "halo_id", "halos/count")) as simulation:
        notes = run.check_domain(source, outside_domain=outside_domain)
        delta, true, predicted, halo_id, found = predict_all_ways(run, simulation)
        true_size = data.true_cells(simulation)
        # Catalogues are in descending order of mass, which need not be that of the cells: small haloes stand between.
        rows = np.flatnonzero(true_size >= minimum)
        true_size, halo_id["true"] = true_size[rows], renumbered(halo_id["true"], rows)
        boxsize, cell_mass = simulation.boxsize, simulation.cell_mass
        # A halo's mass is that of its particles; its cells are as many unless particles share cells.
        masses = {"true": true_size * cell_mass}
        for method in METHODS:
            masses[method] = np.bincount(halo_id[method][halo_id[method] >= 0]) * cell_mass
        matchings = {method: metrics.match(halo_id["true"], halo_id[method], len(rows), len(masses[method]))
                     for method in METHODS}
        pairs = matchings["adaptive"].pairs
        motion = final.motion(delta, boxsize, simulation.cosmology, simulation.redshift_initial,
                              simulation.redshift_final)
        if twin is not None:
            with opened(twin, require=("initial/delta", "halo_id", "halos/count", "halos/mass",
                                       "halos/position")) as other:
                halo_id[TWIN], masses[TWIN], _ = twin_labels(simulation, other, minimum, wavenumber)
                spectra = clustered(simulation, rows, halo_id, pairs, delta, motion, other,
                                    np.flatnonzero(large_haloes(simulation, other, minimum)))
            matchings[TWIN] = metrics.match(halo_id["true"], halo_id[TWIN], len(rows), len(masses[TWIN]))
            twin_loss = metrics.normalised_l1(true, data.distance_map(halo_id[TWIN]))
        else:
            spectra = clustered(simulation, rows, halo_id, pairs, delta, motion)
    del motion
    cells, members = {}, {}
    for method in matchings:
        members[method] = metrics.membership(halo_id["true"], halo_id[method])
        cells[method] = metrics.cell_masses(halo_id["true"], halo_id[method], masses["true"], masses[method])
    missed = not_found(source, rows, halo_id, pairs, masses["true"])
    return Box(notes, cell_mass, masses, cells, members, matchings, missed, spectra, true_size,
               metrics.normalised_l1(true, predicted), twin_loss, watershed.sample([found]),
               (delta, true, predicted, halo_id, boxsize) if is_drawn else None)


def evaluate(run, sources, ceiling=(), outside_domain=False, client=None):
    """The `Evaluation` of a run on simulations that it never saw.

    Mass functions are summed over the simulations. Each method (the adaptive watershed, the native one, and the
    baselines of collapsing spheres and ellipsoids) is held against the true haloes of at least the run's minimum of
    cells: all together, cell by cell, one to one where two share more than half of the cells of each, and by how they
    cluster where they end. client: of `kerasgal.cluster.connect`, whose processes then measure one simulation each.
    """
    sources, ceiling = to_judge_on(sources), as_list(ceiling)
    cluster.check_paths([*sources, *ceiling], client)
    run.check_unseen(sources)
    twins = paired(sources, ceiling) if ceiling else [(None, None)] * len(sources)
    methods = METHODS + ((TWIN,) if ceiling else ())
    given = cluster.Runs([run], client)
    tasks = [(given, source, twin, outside_domain, number == 0)
             for number, (source, twin) in enumerate(zip(sources, twins))]
    notes = notes_of(sources, twins) if ceiling else []
    boxes = list(track(cluster.each(measure, tasks, client), "predicting", total=len(tasks)))
    notes += [note for box in boxes for note in box.notes]
    losses, true_sizes = [box.loss for box in boxes], [box.true_sizes for box in boxes]
    cell_mass = max(box.cell_mass for box in boxes)
    mass_by_box = {method: [box.masses[method] for box in boxes] for method in ("true", *methods)}
    mass = {method: np.concatenate(values) for method, values in mass_by_box.items()}
    cells = {method: np.concatenate([box.cells[method] for box in boxes], axis=1) for method in methods}
    edges = mass_bins(run.config.minimum * cell_mass, mass["true"].max(initial=2 * run.config.minimum * cell_mass))

    result = {"simulations": [display_name(source) for source in sources], "minimum_cells": run.config.minimum,
              "loss": float(np.mean(losses)), "loss_per_simulation": losses, "mass_edges": edges.tolist(),
              "haloes": {method: len(values) for method, values in mass.items()},
              "haloes_per_simulation": {method: [len(values) for values in each]
                                        for method, each in mass_by_box.items()}}
    if ceiling:
        result["twin_loss"] = float(np.mean([box.twin_loss for box in boxes]))
    for method in methods:
        ratio = np.log10(cells[method][1] / cells[method][0])
        objects = metrics.objects([box.matchings[method] for box in boxes], mass_by_box["true"], mass_by_box[method],
                                  edges)
        by_mass = {name: objects.pop(name) for name in ("completeness_by_mass", "purity_by_mass")}
        result[method] = {**metrics.mass_function_residual(mass["true"], mass[method], edges),
                          **metrics.residual_by_chance(mass_by_box["true"], mass_by_box[method], edges), **by_mass,
                          "dice": metrics.dice(sum(box.members[method] for box in boxes)),
                          "cell_mass_offset_dex": float(np.median(ratio)) if len(ratio) else None,
                          "cell_mass_scatter_dex": float(ratio.std()) if len(ratio) else None,
                          "objects": objects}
    missed = sorted((row for box in boxes for row in box.missed), key=lambda row: -row["mass"])
    if missed:
        result["worst_cases"] = missed[:WORST]
    found = clustering.summed([box.spectra for box in boxes])
    if found:
        result["clustering"] = found
    else:
        notes.append("how haloes cluster is left out: the boxes differ in side or grid")
    if notes:
        result["notes"] = list(dict.fromkeys(notes))
    delta, true, predicted, halo_id, boxsize = boxes[0].drawn
    trajectories = watershed.joined([box.trajectories for box in boxes])
    seen = of_training(run)

    def draw():
        drawn = {"distance_maps": figures.distance_maps(delta, true, predicted, boxsize, halo_id["true"]),
                 "halo_slices": figures.halo_slices(halo_id, boxsize),
                 "close_up": figures.close_up(predicted, halo_id, boxsize),
                 "trajectories": figures.trajectories(trajectories, run.line, run.config.minimum,
                                                      np.concatenate(true_sizes), seen.get("trajectories")),
                 "cell_masses": figures.cell_masses(cells, seen.get("cell_masses")),
                 "mass_function": figures.mass_function(result),
                 "cumulative_mass_function": figures.cumulative_mass_function(mass, len(sources)),
                 "found_by_mass": figures.found_by_mass(result),
                 "clustering": figures.clustering(result["clustering"]) if "clustering" in result else None}
        return {name: figure for name, figure in drawn.items() if figure is not None}

    return Evaluation(result, lines(result), functools.cache(draw), run)


def lines(result):
    """The most important numbers as lines of text."""
    bound = f" (a twin's map: {result['twin_loss']:.3f})" if "twin_loss" in result else ""
    yield f"loss {result['loss']:.3f}{bound}; {result['haloes']['true']} true haloes"
    for method in (name for name in (*METHODS, TWIN) if name in result):
        row = result[method]
        yield (f"  {method:14s} {result['haloes'][method]:5d} haloes ({100 * (row['total'] - 1):+.1f}%), residual "
               f"{percent(row['summed_residual'])} summed, {percent(row['mean_absolute_residual'])} per bin (by chance "
               f"{percent(row['mean_absolute_residual_by_chance'])}), cell mass scatter "
               f"{number(row['cell_mass_scatter_dex'])} dex")
        found = row["objects"]
        yield (f"  {'':14s} one to one: {percent(found['completeness'])} of the true and {percent(found['purity'])} of "
               f"the predicted haloes, mass scatter {number(found['mass_scatter_dex'])} dex, {found['merges']} merges, "
               f"{found['splits']} splits")
    if "clustering" in result:
        yield from clustering_lines(result["clustering"])


def clustering_lines(found):
    """Bias and correlation on large scales, as lines of text."""
    yield f"where they end, in modes up to {found['large_scales']:.2f} h/Mpc:"
    for name, row in found["haloes"].items():
        agreement = "" if name == "true" else f", correlation with the true haloes {valued(row, 'correlation')}"
        yield f"  {name:17s} bias {valued(row, 'bias')}{agreement}"


def valued(row, name):
    """A number of large scales with its error, as far as they are known."""
    value, error = row[f"large_scale_{name}"], row[f"large_scale_{name}_error"]
    return number(value) + (f" +- {error:.3f}" if error is not None else "")


def percent(value):
    """A fraction as a percentage, or a word where there is none."""
    return "undefined" if value is None else f"{100 * value:.1f}%"


def number(value):
    """A number with three digits, or a word where there is none."""
    return "undefined" if value is None else f"{value:.3f}"
