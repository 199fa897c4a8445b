"""The run folder::

    config.json         the app and its configuration
    domain.json         what the run was trained on, and so what it may be asked about
    provenance.json     versions, git revision, data, parameters, precision, wall time
    best.weights.h5     weights of the epoch with the lowest monitored loss
    last.weights.h5     weights, optimiser and training state of the last step: what resuming starts from
    history.csv         one row per epoch
    log.txt             what was said while it trained, with dates
    loss.png            the loss curve
    tensorboard/        TensorBoard logs, where they were asked for

An app of two networks has a folder of this kind for each, inside its own.
"""

import contextlib
import csv
import importlib.metadata
import json
import logging
import math
import os
import platform
import shutil
import subprocess
import sys
import time
import warnings
from dataclasses import fields
from pathlib import Path

from kerasgal import __version__, workers
from kerasgal import config as configuration
from kerasgal.errors import DamagedError, MissingError, RunError, UnseenError, first_line
from kerasgal.files import check_room, replacing

CONFIG, DOMAIN, PROVENANCE, HISTORY = "config.json", "domain.json", "provenance.json", "history.csv"
BEST, LAST, LOG = "best.weights.h5", "last.weights.h5", "log.txt"
TOLD = "of the source: "  # begins how data of networks with a name are recorded
FROM, BEFORE = "weights_from", "seen_before"  # in provenance, of a run that began from the weights of another
OPTIMIZER = "optimizer"  # the group of a weights file that prediction has no use for


def read_json(path):
    """The object in a JSON file; an empty one if the file is missing or holds something else."""
    try:
        stored = json.loads(Path(path).read_text())
    except (OSError, ValueError):
        return {}
    return stored if isinstance(stored, dict) else {}


def write_json(document, path):
    """Write an object as JSON, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(document, indent=2) + "\n")


def app_of(folder):
    """The name of the app that a run folder is of.

    That of an app of two networks has a run folder for each.

    Parameters
    ----------
    folder : str or Path
        The folder.

    Returns
    -------
    str

    Raises
    ------
    MissingError
        If there is no such folder.
    RunError
        If it is no run folder.

    Examples
    --------
    >>> from pathlib import Path
    >>> from kerasgal import config, run_folder
    >>> from kerasgal.apps.protohalo.config import TrainConfig
    >>> Path("some-run").mkdir()
    >>> config.write(TrainConfig(), "some-run/config.json", app="protohalo")
    >>> run_folder.app_of("some-run")
    'protohalo'
    """
    folder = Path(folder)
    if not folder.exists():
        raise MissingError(f"no such run folder: {folder}")
    for place in (folder, *sorted(path.parent for path in folder.glob(f"*/{CONFIG}"))):
        app = read_json(place / CONFIG).get("app")
        if app:
            return app
    raise RunError(f"{folder} is not a run folder: it has no {CONFIG}")


def check_folder(folder, app, resume, overwrite):
    """Raise if training may not write into `folder`: it holds a run, or something that is none of the app."""
    folder = Path(folder)
    if resume or not folder.exists():
        return
    if not overwrite:
        raise RunError(f"{folder} exists already; give resume=True to go on with it or overwrite=True to replace it")
    if read_json(folder / CONFIG).get("app") != app:
        raise RunError(f"{folder} is not a run folder of {app}: not replacing it")


def check_resumed(folder, config, app, data):
    """Raise RunError if going on with the run in `folder` under this configuration would be another run."""
    stored = load_config(folder, type(config), app)
    changed = [field.name for field in fields(config) if getattr(config, field.name) != getattr(stored, field.name)
               and not field.metadata["resumable"]]
    if config.epochs != stored.epochs and config.decays_over_epochs:
        changed.append("epochs (on which the decay of the learning rate depends)")
    if changed:
        raise RunError(f"resume=True: {folder} was trained with another {', '.join(changed)}")
    if config.epochs < stored.epochs:
        raise RunError(f"resume=True: {folder} was meant for {stored.epochs} epochs, received {config.epochs}")
    seen = read_json(Path(folder) / PROVENANCE).get("data", data)
    if seen != data:
        raise RunError(f"resume=True: {folder} was trained on other data: {seen}")


@contextlib.contextmanager
def locked(folder, config=None):
    """Hold a run folder for one training; raises RunError if another one is at it.

    The lock is the system's and ends with the process, however that ends. config: of the training; of several workers
    one writes, and only that one holds the folder.
    """
    import fcntl

    if config is not None and not workers.is_chief(config):
        yield
        return
    folder = Path(folder).absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = folder.with_name(f".{folder.name}.training")
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RunError(f"{folder} is being trained by another process: wait for it, or train into another "
                           "folder") from None
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def recorded_data(folder):
    """Paths of the data that a run was trained and validated on, as its provenance names them.

    Parameters
    ----------
    folder : str or Path
        The run folder.

    Returns
    -------
    training, validation : tuple of str
        Absolute paths, or what simulations in memory say of themselves.

    Examples
    --------
    >>> from kerasgal.run_folder import recorded_data
    >>> recorded_data("a folder without any")
    ((), ())
    """
    seen = read_json(Path(folder) / PROVENANCE).get("data", {})
    return tuple(seen.get("training", ())), tuple(seen.get("validation", ()))


def read_with(folder):
    """How the images that a run was trained on were read, as its provenance has it: options of their reader."""
    return read_json(Path(folder) / PROVENANCE).get("data", {}).get("read_with", {})


def seen_by(folder):
    """All data that a run has seen: its own, and those of the runs whose weights it began from; a tuple as above."""
    training, validation = recorded_data(folder)
    return (*training, *validation, *seen_before(folder))


def seen_before(folder):
    """Those of `seen_by` that the runs saw whose weights a run began from."""
    return tuple(read_json(Path(folder) / PROVENANCE).get(BEFORE, ()))


def origin(folder, init, resume):
    """Where the weights of a training come from, as provenance keeps it; empty where they are drawn.

    init: run folder whose weights were asked for, or None; resume: whether the run in `folder` goes on, which then says
    so itself. Raises RunError if that contradicts `init`.
    """
    recorded = read_json(Path(folder) / PROVENANCE) if resume else {}
    if not recorded:
        return {FROM: str(Path(init).resolve()), BEFORE: sorted({*seen_by(init)})} if init else {}
    began = recorded.get(FROM)
    if init and (began is None or Path(began).resolve() != Path(init).resolve()):
        raise RunError(f"resume=True: {folder} began from {f'the weights of {began}' if began else 'random weights'}, "
                       f"not from those of {init}")
    return {name: recorded[name] for name in (FROM, BEFORE) if name in recorded}


def origin_of_phases(folder):
    """The run folder of several networks whose weights one of these, in `folder`, began from; or None."""
    began = read_json(Path(folder) / PROVENANCE).get(FROM)
    return Path(began).parent if began else None


def data_to_read(folder):
    """Paths of the training and of the validation data of a run, to fit to them what it is held against.

    folder: a run folder, of an app of two networks that of either; None for a run that was never saved. Raises RunError
    where there are no such paths: the data of a network with a name do not come with it, those in memory are gone.
    """
    training, validation = recorded_data(folder) if folder is not None else ((), ())
    if not training:
        raise RunError(f"{folder or 'this run'} does not say which data it was trained on")
    if any(name.startswith(TOLD) for name in training):
        raise RunError("the data that this network was trained on do not come with it")
    if not all(Path(name).is_absolute() for name in (*training, *validation)):
        raise RunError(f"{folder} was trained on data in memory, which no file has")
    return training, validation


def told_of(name):
    """How data are recorded where paths mean nothing: by what a file, or a simulation in memory, says of its origin.

    name: as data are called in provenance. None for a path at which there is no such file. Simulations of the same
    words and seeds are the same data.
    """
    import h5py

    if str(name).startswith(TOLD):
        return str(name)
    path = Path(name)
    if not path.is_file():
        return None if path.is_absolute() else TOLD + str(name)  # in memory it is called by what it says
    try:
        with h5py.File(path) as file:
            source = file.attrs.get("source")
    except OSError:
        return None
    return None if source is None else TOLD + (source.decode() if isinstance(source, bytes) else str(source))


def check_unseen(folder, paths):
    """Refuse files that a run was trained or validated on.

    Parameters
    ----------
    folder : str or Path
        The run folder.
    paths : list of str or Path
        The files.

    Raises
    ------
    UnseenError
        If there is one among them; also one that the run saw whose weights it began from.

    Examples
    --------
    >>> from kerasgal.run_folder import check_unseen
    >>> check_unseen("RUN", ["box_5.h5"])               # doctest: +SKIP
    """
    # A simulation in memory is recorded by what it says of itself, which is no path.
    seen = {*seen_by(folder)}
    again = [str(path) for path in paths if {str(path), str(Path(path).resolve())} & seen]
    again += told_again(folder, paths)
    if again:
        raise UnseenError(f"{', '.join(again)} was used in the training of {folder}; evaluate on data it never saw")


def told_again(folder, paths):
    """Those of `paths` that a network with a name was trained on: its record has no paths, but what files say."""
    told = {entry for entry in seen_by(folder) if entry.startswith(TOLD)}
    return [str(path) for path in paths if told and told_of(path) in told]


def named(folders, reserved=()):
    """{name: folder} of run folders: their last names, or their paths where those are alike.

    reserved: names that mean something else in what is made of them; a run that is called so is named by its path.
    Raises RunError for a folder that is given twice.
    """
    short = [Path(folder).resolve().name for folder in folders]
    if len(set(short)) < len(short) or set(short) & set(reserved):
        short = [str(folder) for folder in folders]
    names = [name if name not in reserved else str(Path(name).resolve()) for name in short]
    if len({Path(folder).resolve() for folder in folders}) < len(names):
        raise RunError(f"a run is given twice: {', '.join(names)}")
    return dict(zip(names, folders))


def open_folder(folder, config, app, resume, domain, stale=()):
    """Make the run folder, without an earlier run unless that is resumed, and write config.json and domain.json.

    stale: names of files of a run that is resumed which go, as they will not be of its weights any more.
    """
    folder = Path(folder)
    if folder.exists() and not resume:
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name in stale:
        (folder / name).unlink(missing_ok=True)
    with replacing(folder / CONFIG) as temporary:
        configuration.write(config, temporary, app=app)
    if domain:
        write_json(domain, folder / DOMAIN)


def load_config(folder, config_class, app):
    """The configuration of a run folder.

    Parameters
    ----------
    folder : str or Path
        The run folder.
    config_class : type
        A subclass of `kerasgal.config.Config`.
    app : str
        The app that it must be of.

    Returns
    -------
    Config
        Of that class.

    Raises
    ------
    RunError
        If the folder is no run folder, or another app's.

    Examples
    --------
    >>> from pathlib import Path
    >>> from kerasgal import config, run_folder
    >>> from kerasgal.apps.protohalo.config import TrainConfig
    >>> Path("long-run").mkdir()
    >>> config.write(TrainConfig(epochs=100), "long-run/config.json", app="protohalo")
    >>> run_folder.load_config("long-run", TrainConfig, "protohalo").epochs
    100
    """
    path = Path(folder) / CONFIG
    if not path.exists():
        raise RunError(f"{folder} is not a run folder: it has no {CONFIG}")
    owner = read_json(path).get("app")
    if owner not in (app, None):
        raise RunError(f"{folder} is a run of {owner}, not of {app}")
    return configuration.read(config_class, path)


def load_weights(model, folder):
    """Load a run folder's best weights into a network.

    Parameters
    ----------
    model : keras.Model
        A network of the folder's configuration.
    folder : str or Path
        The run folder.

    Returns
    -------
    keras.Model
        `model`.

    Raises
    ------
    RunError
        If there are no weights, or they do not fit.

    Examples
    --------
    >>> from kerasgal.run_folder import load_weights
    >>> network = load_weights(network, "RUN")          # doctest: +SKIP
    """
    path = Path(folder) / BEST
    if not path.exists():
        raise RunError(f"{folder} has no weights ({BEST}): train it first")
    try:
        with warnings.catch_warnings():  # of earlier versions the file has the optimiser, a network here has none
            warnings.filterwarnings("ignore", "Skipping variable loading for optimizer")
            model.load_weights(path)
    except (ValueError, KeyError, OSError) as error:
        raise RunError(f"{path} does not fit the network of {CONFIG}: {first_line(error)}") from error
    return model


def save_best(model, folder):
    """Write best.weights.h5: the weights of `model` without its optimiser, which is twice as large as they are."""
    import h5py

    folder = Path(folder)
    with replacing(folder / BEST) as temporary:
        everything = temporary.with_name(f"all.{BEST}")
        model.save_weights(everything)
        with h5py.File(everything) as source, h5py.File(temporary, "w") as file:
            file.attrs.update(source.attrs)
            for name in source:
                if name != OPTIMIZER:
                    source.copy(name, file)


def bytes_of_epoch(model):
    """What an epoch writes at most at one time: the state, whole, beside the one before, and the best weights."""
    variables = (*model.variables, *model.optimizer.variables)
    return 3 * sum(4 * math.prod(variable.shape) for variable in variables) + 2**21


def check_epoch_fits(model, folder, epoch):
    """Raise DataError, before they are written, if the files of an epoch do not fit on the disk.

    epoch: whole epochs that the folder has by then, which are kept.
    """
    kept = f"; the {epoch} epochs before are kept" if epoch else ""
    folder = Path(folder)
    place = folder / LAST if folder.is_dir() else folder  # a run that is refused leaves no folder
    check_room(place, bytes_of_epoch(model), what=f"an epoch of {folder}", kept=kept)


def read_history(folder):
    """The epochs of a run folder.

    Parameters
    ----------
    folder : str or Path
        The run folder.

    Returns
    -------
    list of dict
        {column: number} for each epoch; empty where none is finished.

    Raises
    ------
    DamagedError
        If history.csv is.

    Examples
    --------
    >>> from kerasgal.run_folder import read_history, write_history
    >>> write_history([{"epoch": 1, "loss": 0.9}, {"epoch": 2, "loss": 0.7}], ".")
    >>> read_history(".")[-1]
    {'epoch': 2.0, 'loss': 0.7}
    """
    path = Path(folder) / HISTORY
    if not path.exists():
        return []
    try:
        with path.open(newline="") as file:
            return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    except (ValueError, TypeError) as error:
        raise DamagedError(f"{path} is damaged: {error}") from None


def best_epoch(history):
    """The row of the epoch whose weights are kept, and the name of the loss that decides; history: not empty."""
    monitor = "val_loss" if "val_loss" in history[0] else "loss"
    return min(history, key=lambda row: row[monitor]), monitor


def notes_of_stopped(folder, config):
    """Notes, one where the training of a run folder has fewer epochs than its config wants and patience did not end it.

    Of a run without history nothing is known.
    """
    history = read_history(folder)
    if not history or len(history) >= config.epochs:
        return []
    waited = history[-1]["epoch"] - best_epoch(history)[0]["epoch"]
    if 0 < config.patience <= waited:
        return []
    return [f"{folder} was trained for {len(history)} of {config.epochs} epochs: its training was stopped, or goes on"]


def write_history(history, folder):
    """Write history.csv, a row for every epoch."""
    with replacing(Path(folder) / HISTORY) as temporary, temporary.open("w", newline="") as file:
        table = csv.DictWriter(file, fieldnames=list(history[0]))
        table.writeheader()
        table.writerows(history)


@contextlib.contextmanager
def logging_into(folder):
    """Append what kerasgal says meanwhile to log.txt, with dates."""
    log = logging.getLogger("kerasgal")
    handlers = [logging.FileHandler(Path(folder) / LOG)]
    handlers[0].setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    if not log.hasHandlers():  # in a notebook, which would show nothing of what the file's handler takes
        handlers.append(logging.StreamHandler(sys.stdout))
    before = log.level
    for handler in handlers:
        log.addHandler(handler)
    log.setLevel(min(before or logging.INFO, logging.INFO))
    try:
        yield
    finally:
        log.setLevel(before)
        for handler in handlers:
            log.removeHandler(handler)
        handlers[0].close()


class Provenance:
    """provenance.json: what one needs to know to make a run again, with one entry per session that trained it."""

    def __init__(self, folder, config, data, model, origin):
        libraries = ("tensorflow", "keras", "numpy", "numba", "scipy", "scikit-image", "edt", "h5py")
        self.path = Path(folder) / PROVENANCE
        before = read_json(self.path)
        session = {
            "kerasgal": __version__,
            "git": git_revision(),
            "python": platform.python_version(),
            "versions": {name: importlib.metadata.version(name) for name in libraries},
            "command": " ".join(sys.argv),
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "precision": config.precision,
        }
        self.content = {"data": data, "parameters": model.count_params(), "wall_seconds": None, **origin,
                        "sessions": [*before.get("sessions", []), session]}
        self.write()

    def end(self, seconds):
        """Note the wall time of all epochs, over all sessions."""
        self.content["wall_seconds"] = round(seconds, 1)
        self.write()

    def write(self):
        write_json(self.content, self.path)


def git_revision():
    """The revision of the checkout this package runs from, marked -dirty if it was changed, or None."""
    package = Path(__file__).parent
    if not (package.parent / ".git").exists():
        return None
    command = ["git", "-C", package, "describe", "--always", "--dirty", "--abbrev=40", "--exclude", "*"]
    result = subprocess.run(command, capture_output=True, text=True)
    return result.stdout.strip() or None
