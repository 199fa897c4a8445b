"""Training the U-Net and calibrating the watershed, Secs. 3.2 and 4.1 of Bernardini et al. 2020."""

from dataclasses import asdict

import numpy as np

from kerasgal import domain, run_folder, training
from kerasgal.apps.protohalo import data, metrics, predict, watershed
from kerasgal.apps.protohalo.config import APP
from kerasgal.apps.protohalo.losses import NormalisedDistance
from kerasgal.channel_names import names_of, vector_of
from kerasgal.conditioning import parameter_names, parameters_of, warn_of_constant
from kerasgal.errors import DataError
from kerasgal.periodic import periodic
from kerasgal.pipeline import check_patch, patches, tiles
from kerasgal.plotting import track
from kerasgal.run import display_name
from kerasgal.simulation import opened

CALIBRATION = "calibration.json"  # in a run folder: the line of the adaptive cut
SEEN = "training_figures.json"  # and what figures show of the training simulations


def compiled(config, deviation=None, parameters=None):
    """The U-Net with the paper's loss and Adam.

    deviation: of each channel of the input, where they are scaled; parameters: of the training's boxes, (boxes, p),
    where the network is given some.
    """
    network = predict.build(config)
    if parameters is not None and parameter_names(config):
        network.get_layer("normalised_parameters").adapt(parameters)
    if names_of(config.channels) != ("density",) and deviation is not None:
        network.get_layer("scaled").deviation.assign(deviation)
    if config.whole:
        network = periodic(network)
    power = {"l1": 1, "l2": 2}[config.loss]
    network.compile(training.optimizer(config), loss=NormalisedDistance(config.margin, power, config.normalisation))
    return network


def load(sources, config, store):
    """Input and target of simulations, checked against the patch size, the features of each, and its mean squares.

    store: a `kerasgal.scratch.Store`, which keeps them.
    """
    volumes, features, squares = [], [], []
    names, given = names_of(config.channels), parameter_names(config)
    for source in track(sources, "distance maps"):
        *arrays, described = data.load(source, config.minimum, names, given)
        check_patch(arrays[0].shape[0], config.patch)
        if config.whole and arrays[0].shape[0] != config.patch:
            raise DataError(f"{display_name(source)} has {arrays[0].shape[0]} cells a side: with whole=True they must "
                            f"be those of patch={config.patch}", value=arrays[0].shape[0],
                            accepted=(config.patch, config.patch))
        squares.append(data.mean_squares(arrays[0], names))
        volumes.append(store.keep(arrays))
        features.append(described)
    return volumes, features, squares


def rows_of(features, config):
    """Parameters of boxes that the network is given, (boxes, p), from the features of each; p may be 0."""
    names = parameter_names(config)
    rows = [[known[name] for name in names] for known in features]
    return np.array(rows, np.float32).reshape(len(features), len(names))


def streams(volumes, held_out, config, parameters=None, held_out_parameters=None):
    """Functions that make the training stream, from the samples already seen, and the validation data set, or None.

    parameters: of the boxes, as of `rows_of`, where the network is given some.
    """
    symmetries = None if config.symmetries == "none" else config.symmetries
    corners = [tiles(arrays[0].shape[0], config.stride) for arrays in volumes]

    def made(volumes, corners, rows, batch, **options):
        if not parameter_names(config):
            return patches(volumes, corners, config.patch, batch, **options)
        rows = [np.broadcast_to(row, (len(places), len(row))) for row, places in zip(rows, corners)]
        dataset = patches(volumes, corners, config.patch, batch, targets=rows, **options)
        return dataset.map(lambda inputs, target, row: ((inputs, row), target))

    def stream(first):
        return made(volumes, corners, parameters, config.batch, seed=config.seed, first=first, symmetries=symmetries,
                    vector=vector_of(names_of(config.channels)))

    def validation(devices):
        # Tiles that overlap by two margins, so that the loss sees every cell of the box.
        places = [tiles(arrays[0].shape[0], config.patch - 2 * config.margin) for arrays in held_out]
        batch = min(config.batch, sum(map(len, places)) // devices * devices)
        if batch == 0:
            raise DataError(f"the validation data have fewer patches than there are devices ({devices}): give more")
        return made(held_out, places, held_out_parameters, batch, full=devices > 1)

    return stream, validation if held_out else None


def fit(simulations, held_out, config, folder, *, store, **options):
    """Train on simulations and calibrate the watershed on them; returns the network.

    Of several workers only the first calibrates, and the others return None. store: see `load`; options: of
    `kerasgal.training.train`.
    """
    volumes, features, squares = load(simulations, config, store)
    unseen, unseen_features, _ = load(held_out, config, store)
    deviation, parameters = np.sqrt(np.mean(squares, axis=0)), rows_of(features, config)
    warn_of_constant(parameter_names(config), parameters)
    stream, validation = streams(volumes, unseen, config, parameters, rows_of(unseen_features, config))

    network = training.train(
        lambda: compiled(config, deviation, parameters), stream, validation, config, folder, app=APP,
        domain=domain.of(features), stale=(CALIBRATION, SEEN), **options)  # without the line the run is not whole
    if network is not None:
        line, found = calibrate(network, config, simulations)
        run_folder.write_json(asdict(line), folder / CALIBRATION)
        run_folder.write_json(of_training(found, line, config, simulations), folder / SEEN)
    return network


def calibrate(network, config, simulations):
    """The line of the adaptive cut, from the predicted maps of the training simulations and their true haloes.

    Returns it and the `watershed.Trajectories` of each.
    """
    found, sizes = [], []
    for source in track(simulations, "calibration of the watershed"):
        with opened(source, require=("initial/delta", "halo_id", "halos/count")) as simulation:
            distance = predict.predict_distance(network, config, simulation.delta(), simulation.boxsize,
                                                parameters=parameters_of(simulation, parameter_names(config)))
            true = data.true_cells(simulation)
        found.append(predict.find_trajectories(distance, config))
        sizes.extend(true[true >= config.minimum])
    return watershed.calibrate(found, np.array(sizes), config.minimum, config.calibration), found


def of_training(found, line, config, simulations):
    """What the figures show of the training simulations beside those that a run is evaluated on, a dictionary.

    found: of `calibrate`. `trajectories` and, by watershed, `cell_masses` are of `metrics`.
    """
    cells = {"native": [], "adaptive": []}
    for source, paths in zip(simulations, found):
        with opened(source, require=("initial/delta", "halo_id", "halos/count")) as simulation:
            true, cell_mass = data.lagrangian_halo_id(simulation, config.minimum), simulation.cell_mass
            mass = data.true_cells(simulation) * cell_mass
        for method, sizes in (("native", paths.size), ("adaptive", watershed.cut_sizes(paths, line))):
            labels = watershed.label_haloes(paths, sizes, true.shape, config.minimum)
            rows, predicted, number = metrics.shared_cells(true, labels)
            cells[method].append([mass[rows], np.bincount(labels[labels >= 0])[predicted] * cell_mass, number])
    return {"simulations": len(found), "trajectories": metrics.trajectory_counts(watershed.sample(found)),
            "cell_masses": {method: metrics.cell_mass_counts(*map(np.concatenate, zip(*parts)))
                            for method, parts in cells.items()}}
