"""Training in two phases, Sec. 3 of Yip et al. 2019: which cells hold galaxies, then how many those hold."""

import logging
import shutil
from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import uniform_filter

from kerasgal import config as configuration
from kerasgal import domain, run_folder, training
from kerasgal.apps.cascade import data, metrics, model, motion, predict, scatter
from kerasgal.apps.cascade.config import APP
from kerasgal.apps.cascade.losses import WeightedCrossEntropy, WeightedPoisson, WeightedSquaredError
from kerasgal.apps.cascade.predict import CLASSIFY, REGRESS
from kerasgal.apps.cascade.trees import cubes
from kerasgal.conditioning import named, warn_of_constant
from kerasgal.domain import RULES
from kerasgal.errors import DataError, RunError, SettingError
from kerasgal.files import replacing
from kerasgal.pipeline import check_patch, patches, tiles
from kerasgal.plotting import track
from kerasgal.simulation import opened

PHASES = ("both", CLASSIFY, REGRESS)
SWEPT = ("w1", "w2")

log = logging.getLogger(__name__)


@dataclass
class Boxes:
    """Boxes that are trained or validated on."""

    density: list  # of (n, n, n, channel), the density, or what phase 2 sees of it, and what else is seen
    counts: list  # of (n, n, n, 1)
    corners: list  # of flat indices of the lowest cells of sub-cubes
    parameters: list = ()  # of the numbers, (p,), that the networks are given beside the density


def check_request(phase, sweep, resume):
    """Raise SettingError for a phase that is none, a sweep of something else than weights, and where they exclude."""
    if phase not in PHASES:
        raise SettingError(f"phase={phase!r}: accepted are {', '.join(PHASES)}", value=phase, accepted=PHASES)
    if not sweep:
        return
    for name, values in sweep.items():
        if name not in SWEPT or not len(values) or any(not value >= 0 for value in values):
            raise SettingError(f"`sweep` of {name} over {list(values)}: accepted are w1=... and w2=... with numbers of "
                               "at least 0", value=sweep, accepted=SWEPT)
    if phase != "both" or resume:
        raise SettingError("`sweep` trains both phases from the beginning: it goes with neither `phase` nor `resume`")


def load(sources, validation, config, store):
    """The `Boxes` of training and of validation; store: a `kerasgal.scratch.Store`, which keeps them.

    A single simulation without another to validate on is split by volume, as the paper's. Raises DataError as
    `data.load` and `data.split_by_volume` do.
    """
    def read(sources, stride):
        boxes = Boxes([], [], [], [])
        for source in track(sources, "densities and galaxies"):
            with opened(source, ()) as simulation:
                field, parameters = data.given(simulation, config)
                field, counts = store.keep([field[:, :, :], data.galaxy_counts(simulation, config.cell)[..., None]])
            check_patch(len(field), config.patch)
            boxes.density.append(field)
            boxes.counts.append(counts)
            boxes.corners.append(tiles(len(field), stride))
            boxes.parameters.append(parameters)
        return boxes

    train = read(sources, config.stride)
    if validation:
        return train, read(validation, config.patch)
    inside, held_out, _ = data.split_by_volume(len(train.density[0]), config.patch)
    return replace(train, corners=[inside]), replace(train, corners=[held_out])


def features(source, config):
    """What the domain knows of a simulation."""
    with opened(source, ()) as simulation:
        return data.features(simulation, config.cell, config.of_particles, config.finer) \
            | named(simulation, config.names)


def compiled(config, phase, boxes):
    """The network of a phase with its loss and Adam, and what it normalises by, as in the `Boxes` of training."""
    network = predict.build(config, phase)
    if config.velocity:
        network.get_layer("normalised_velocity").adapt_vectors([np.asarray(seen)[..., -3:] for seen in boxes.density])
    if config.names:
        network.get_layer("normalised_parameters").adapt(boxes.parameters)
    if phase == CLASSIFY:
        loss, config = WeightedCrossEntropy(config.w1), configuration.replace(config, {"averaging": 0.0})
    else:
        loss = {"squared": WeightedSquaredError, "poisson": WeightedPoisson}[config.loss](config.w2)
    network.compile(training.optimizer(config), loss=loss)
    return network


def train_phase(phase, train, held_out, targets, config, folder, **options):
    """Train one network on sub-cubes of density and `targets`, (n, n, n, channel) of each box, training's first."""
    side, corners = config.patch, (train.corners, held_out.corners)
    if phase == REGRESS and config.focus:
        side = min(config.focus, config.patch)
        corners = (focused(sub_cubes(train, targets[0], config, config.stride)),
                   [found[called > 0] if called.any() else found
                    for found, called in sub_cubes(held_out, targets[1], config, side)])

    def batches(boxes, targets, corners, **order):
        volumes, rows = list(zip(boxes.density, targets)), None
        if config.names:
            rows = [np.tile(row, (len(found), 1)) for row, found in zip(boxes.parameters, corners)]
        vector = predict.density_channels(config, phase) if config.velocity else None
        stream = patches(volumes, corners, side, config.batch, targets=rows, vector=vector, **order)
        return stream.map(lambda field, target, row: ((field, row), target)) if config.names else stream

    return training.train(
        lambda: compiled(config, phase, train),
        lambda first: batches(train, targets[0], corners[0], seed=config.seed, first=first,
                              symmetries=None if config.symmetries == "none" else config.symmetries),
        lambda devices: batches(held_out, targets[1], corners[1], full=devices > 1),
        config, folder / phase, app=APP, stale=(scatter.FILE,), **options)  # of phase 2; phase 1 has none


def sub_cubes(boxes, targets, config, stride):
    """Sub-cubes of `focus` cells a side that lie within those of boxes, and how many cells phase 1 calls occupied.

    targets: of `masked_counts`. For each box the flat indices of their lowest cells, (m,), and these numbers, (m,).
    """
    side = min(config.focus, config.patch)
    for corners, target in zip(boxes.corners, targets):
        inside = in_cubes(cubes(len(target), corners, config.patch), side) == side**3
        called = in_cubes(np.asarray(target)[..., 1], side)
        found = tiles(len(target), stride)
        found = found[inside.ravel()[found]]
        if not len(found):
            raise SettingError(f"stride={stride}: none of the sub-cubes of {side} cells that far apart lies within "
                               f"those of training, of patch={config.patch}: choose a smaller `stride`")
        yield found, called.ravel()[found]


def in_cubes(field, side):
    """Sums of whole numbers over the cube of `side` cells that begins at each cell of a periodic field, (n, n, n)."""
    mean = uniform_filter(field.astype(np.float32), side, mode="wrap", origin=-(side // 2))
    return np.rint(mean * side**3).astype(int)


def focused(found):
    """The lowest cells of sub-cubes to train on in each box, from `sub_cubes`: each as often as cells are called there.

    That depends on the density alone: what is to be expected of a cell is the same as if all were taken alike. As many
    are taken as there are, at even steps of the sum over all.
    """
    chosen = []
    for corners, called in found:
        total = np.cumsum(called)
        step = (np.arange(len(corners)) + 0.5) / len(corners)
        chosen.append(corners[np.searchsorted(total, step * total[-1])])
    return chosen


def fit(cls, sources, validation, config, folder, *, store, phase="both", sweep=None, **options):
    """Train one phase or both on simulations with galaxies into the run folder `folder`, or a sweep of runs.

    cls: the class of the run. Returns the network that was trained last, None in all workers but the first. store: see
    `load`; options: of `kerasgal.training.train`.
    """
    if config.strategy == "workers" and phase == "both":
        raise SettingError("strategy=workers trains one phase at a time: give phase='classify', then phase='regress'")
    options["domain"] = domain.of([features(source, config) for source in sources])
    least, most = options["domain"].get("sampling", (0, 0))
    if not RULES["sampling"].accepts(most, [least, least]):
        raise DataError(f"channels={config.channels} takes simulations of as many particles in each cell: received "
                        f"{least:.3g} to {most:.3g}")
    boxes = load(sources, validation, config, store)
    warn_of_constant(config.names, boxes[0].parameters)
    options["moving"] = motion_of(sources, validation, config) if phase != CLASSIFY else None
    if sweep:
        return fit_sweep(cls, boxes, config, folder, sweep, store=store, **options)
    return fit_phases(cls, boxes, config, folder, phase, store=store, **options)


def motion_of(sources, validation, config):
    """How galaxies move about the dark matter, a `motion.Motion`, or None; not in the test cube of a single simulation.
    """
    corner = None
    if not validation:
        with opened(sources[0], ()) as simulation:
            gridsize = data.cells_of(simulation, config.cell)
        corner = data.test_corner(gridsize, config.patch)
    return motion.measure(motion.samples_of([*sources, *validation], config, corner))


def fit_phases(cls, boxes, config, folder, phase, *, store, moving=None, resume=False, overwrite=False, init=None,
               **options):
    """Train one phase or both on `Boxes` of training and of validation; see `fit`. moving: of `motion_of`."""
    train, held_out = boxes
    network = None
    if init and phase == "both":
        cls.check_phase(init, REGRESS)  # rather than once phase 1 is trained
    if phase != REGRESS:
        if overwrite:
            shutil.rmtree(folder / REGRESS, ignore_errors=True)  # it would belong to another phase 1
        before = best_of(folder)
        log.info("phase 1: which cells hold galaxies")
        network = train_phase(CLASSIFY, train, held_out, (train.counts, held_out.counts), config, folder,
                              resume=resume, overwrite=overwrite, init=init and init / CLASSIFY, **options)
        if (folder / REGRESS).exists() and best_of(folder) != before:
            log.warning("phase 1 calls other cells occupied than before: phase 2, trained on those, begins anew")
            shutil.rmtree(folder / REGRESS, ignore_errors=True)
    if phase != CLASSIFY:
        log.info("phase 2: how many galaxies there are")
        first = cls.first(folder)
        if first.config.cell != config.cell:
            raise RunError(f"{folder}: phase 1 was trained on cells of {first.config.cell:g} Mpc/h; phase 2 needs the "
                           f"same, received cell={config.cell:g}")
        for name in ("deposit", "channels", "parameters"):
            own, other = getattr(config, name), getattr(first.config, name)
            if own != other:
                raise RunError(f"{folder}: phase 1 was trained with {name}={other!r}; phase 2 needs the same, received "
                               f"{name}={own!r}")
        classifier = first.networks[CLASSIFY]
        going_on = resume and (folder / REGRESS / run_folder.CONFIG).exists()
        if resume and not going_on:  # interrupted before phase 2 was begun, which begins as phase 1 did
            init = init or run_folder.origin_of_phases(folder / CLASSIFY)
        with store.passing():
            masked = [masked_counts(classifier, boxes, config, store) for boxes in (train, held_out)]
            seen = surrounded(boxes, config, store) if config.surroundings else boxes
            network = train_phase(REGRESS, *seen, masked, config, folder, overwrite=overwrite, resume=going_on,
                                  init=init and init / REGRESS, **options)
        if network is not None:
            measure_scatter(cls.load(folder), held_out)
            motion.write(moving, folder / REGRESS)
    return network


def best_of(folder):
    """The epoch whose weights phase 1 of a run folder has, or None."""
    history = run_folder.read_history(folder / CLASSIFY)
    return run_folder.best_epoch(history)[0]["epoch"] if history else None


def measure_scatter(run, boxes):
    """Keep in the run folder how galaxies scatter about what the run expects in the sub-cubes of validation."""
    expected, true = [], []
    for density, counts, corners, row in zip(boxes.density, boxes.counts, boxes.corners, boxes.parameters):
        cells = cubes(len(density), corners, run.config.patch)
        expected.append(predict.predict_field(run.network, density, run.config, parameters=row)[..., 1][cells])
        true.append(np.asarray(counts)[..., 0][cells])
    scatter.write(scatter.measure(np.concatenate(expected), np.concatenate(true)), run.folder / REGRESS)


def surrounded(boxes, config, store):
    """`Boxes` of training and validation with what phase 2 sees in the place of the density, kept by `store`."""
    network, found = model.surroundings(), []
    for part in boxes:
        seen = [predict.surroundings(network, np.asarray(density), config) for density in part.density]
        found.append(replace(part, density=[store.keep([one])[0] for one in seen]))
    return found


def masked_counts(classifier, boxes, config, store):
    """The targets of phase 2, kept by `store`: counts, and 1 where phase 1 calls a cell occupied, (n, n, n, 2) each."""
    targets = []
    for density, counts, row in zip(boxes.density, boxes.counts, boxes.parameters):
        probability = predict.predict_field(classifier, np.asarray(density), config, parameters=row)[..., 1:]
        targets += store.keep([np.concatenate([counts, probability > config.threshold], axis=-1)])
    return targets


def fit_sweep(cls, boxes, config, folder, values, *, store, resume=False, **options):
    """Train with every combination of weights `values`, {"w1": [...], "w2": [...]}, and keep the best.

    Each is a run in folder/sweep; best is the one with the least MSE_sub on the validation sub-cubes, which becomes
    the run in `folder`. sweep.json has them all, the best first.
    """
    table, network = [], None
    for w1 in values.get("w1", [config.w1]):
        shared = None  # phase 1 does not know w2
        for w2 in values.get("w2", [config.w2]):
            place = folder / "sweep" / f"w1={w1:g},w2={w2:g}"
            weights = configuration.replace(config, {"w1": float(w1), "w2": float(w2)})
            if shared:
                shutil.rmtree(place / CLASSIFY, ignore_errors=True)  # of an earlier sweep
                shutil.copytree(shared / CLASSIFY, place / CLASSIFY)
            log.info(f"w1 = {w1:g}, w2 = {w2:g}")
            network = fit_phases(cls, boxes, weights, place, REGRESS if shared else "both", store=store, **options)
            shared = shared or place
            error = validation_error(cls.load(place), boxes[1])
            log.info(f"  MSE_sub {error:.4g}")
            table.append({"w1": w1, "w2": w2, "mse_sub": error, "run": place.name})
    table.sort(key=lambda row: row["mse_sub"])
    for name in (CLASSIFY, REGRESS):
        with replacing(folder / name) as temporary:
            shutil.copytree(folder / "sweep" / table[0]["run"] / name, temporary)
    run_folder.write_json(table, folder / "sweep.json")
    log.info(f"{folder}: the run with w1 = {table[0]['w1']:g}, w2 = {table[0]['w2']:g}; all {len(table)} in "
             f"{folder / 'sweep.json'}")
    return network


def validation_error(run, boxes):
    """MSE_sub of a run on the sub-cubes of validation."""
    side, squares = run.config.patch, []
    for density, counts, corners, row in zip(boxes.density, boxes.counts, boxes.corners, boxes.parameters):
        counts = np.asarray(counts)[..., 0]
        predicted = predict.predict_field(run.network, np.asarray(density), run.config, parameters=row)[..., 1]
        index = np.unravel_index(corners, counts.shape)
        inside = np.all([axis + side <= len(counts) for axis in index], axis=0)
        cube = tuple(axis[inside] // side for axis in index)
        error = metrics.sums_in_cubes(predicted, side) - metrics.sums_in_cubes(counts, side)
        squares.append(error[cube]**2)
    return float(np.mean(np.concatenate(squares)))
