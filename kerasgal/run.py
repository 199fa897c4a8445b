"""A trained run: what all apps' runs are and can do.

An app has a class for its runs that extends `Run` and says what its networks are (`build`), how they are trained
(`fit`), and what they say (`predict`, `evaluate`). What a run says is a `Prediction`, how good it is an `Evaluation`.
"""

import contextlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from kerasgal import __version__, networks, planning, quiet, registry, run_folder, workers
from kerasgal import config as configuration
from kerasgal import domain as domains
from kerasgal.conditioning import in_words, named, parameter_names
from kerasgal.errors import DataError, RunError, SettingError
from kerasgal.files import CheckedFile, check_room, datasets, open_hdf5, refuse_existing, replacing
from kerasgal.scratch import Store
from kerasgal.simulation import Simulation, check_suffix, from_array, opened
from kerasgal.tables import quantities, write_table

CHUNK = 32  # cells per side of the chunks of fields that are written as they come
WORST = 10  # cases at most that an evaluation names as `worst_cases`

log = logging.getLogger(__name__)
_said = set()  # folders of earlier versions that were said to be so


def load(run):
    """Open a trained run.

    Parameters
    ----------
    run : str or Path
        A run folder, of any app, or the name of a network; see `kerasgal.models`.

    Returns
    -------
    Run
        Of the class of the folder's app: Protohalo, HaloMass, Cascade, Diffusion or Morph.

    Raises
    ------
    RunError
        If the folder is no run folder, or what its training keeps there is missing. One that was stopped after some
        epochs is a run with a warning, and a note in all that it says.

    Examples
    --------
    >>> import kerasgal as kg
    >>> run = kg.load("RUN")                # doctest: +SKIP
    >>> run.predict("box.h5").table         # doctest: +SKIP
    """
    folder = networks.folder_of(run)
    return registry.run_class(run_folder.app_of(folder)).load(folder)


def train(app, training=None, validation=None, *, run=None, **options):
    """Train a run of an app.

    Parameters
    ----------
    app : str
        "protohalo", "halomass", "cascade", "cascade diffusion", "morph", or another one that is installed.
    training, validation, run, **options
        See `Run.train`.

    Returns
    -------
    Run

    Examples
    --------
    >>> import kerasgal as kg
    >>> run = kg.train("protohalo", ["a.h5", "b.h5"], run="run", preset="demo", epochs=5)       # doctest: +SKIP
    """
    return registry.run_class(app).train(training, validation, run=run, **options)


def plan(app, training=None, validation=None, *, run=None, **options):
    """What a training would take: it is prepared as it would be, a few steps are measured, and nothing is written.

    Parameters
    ----------
    app : str
        See `train`.
    training, validation, run, **options
        See `Run.train`.

    Returns
    -------
    kerasgal.planning.Plan

    Examples
    --------
    >>> import kerasgal as kg
    >>> plan = kg.plan("protohalo", ["a.h5", "b.h5"], preset="auto")        # doctest: +SKIP
    >>> plan.config.patch, plan.seconds / 3600                              # doctest: +SKIP
    """
    return registry.run_class(app).plan(training, validation, run=run, **options)


class Run:
    """A trained run: configuration, domain, networks with their best weights.

    Made by `load` or `train`; ``Protohalo(config)`` is one that is not trained, for a look at its `summary`.

    Attributes
    ----------
    config : Config
        Its settings; a frozen dataclass.
    networks : dict
        {phase: Keras model}; the phase is "" where there is one network.
    folder : Path or None
        Where it was loaded from.
    domain : dict
        What it was trained on; see `kerasgal.domain`. Empty for a run of kerasgal 0.1.

    Examples
    --------
    >>> import kerasgal as kg
    >>> run = kg.load("RUN")                            # doctest: +SKIP
    >>> run.config.epochs, run.domain["cellsize"]       # doctest: +SKIP
    >>> kg.Protohalo(kg.Protohalo.configure(preset="demo", levels=1)).network.count_params() > 0
    True
    """

    app = None  # in config.json
    Config = None
    phases = ("",)  # its networks, and the folders of each inside the run folder
    parts = ()  # further folders inside the run folder that belong to it
    own = {}  # of `kerasgal.simulations.own_simulations`, which a training that is given none makes
    loss = None  # of its network, as Keras takes it
    field = "initial/delta"  # what it sees of a simulation
    checked = ("cellsize", "redshift_final")  # features of the domain that must be alike
    suffixes = (".h5", ".hdf5")  # of the files that predictions are saved as
    label = None  # in the names of these files, where it is not the app's last word
    limits = ""  # what is not to be concluded of any run of the app, for reports: text with code in backticks
    stores = False  # whether `fit` takes a `store`, which holds volumes beyond memory: see `kerasgal.scratch`
    streams = False  # whether `predict` takes `output` and `overwrite`, and then writes a file as it goes

    def __init__(self, config, networks=None, *, folder=None, domain=None):
        quiet.import_tensorflow()
        self.config, self.folder, self.domain = config, folder, domain or {}
        self.stopped = []  # notes, one for each network whose training did not come to its end
        self.networks = networks or {phase: self.build(config, phase) for phase in self.phases}

    # What an app says of itself

    @staticmethod
    def build(config, phase=""):
        """The network of a configuration, not compiled."""
        raise NotImplementedError

    @classmethod
    def fit(cls, training, validation, config, folder, **options):
        """Train the networks into `folder`; returns something, or None in all workers but the first.

        options: of `kerasgal.training.train`, and of an app that `stores` the `kerasgal.scratch.Store` `store`. This
        is for an app of one network, whose class says what `loss` it has and how `batches` are made of simulations;
        others say all of it themselves.
        """
        from kerasgal.training import optimizer, train

        def compiled():
            network = cls.build(config)
            network.compile(optimizer(config), loss=cls.loss)
            return network

        return train(
            compiled, lambda first: cls.batches(training, config, seed=config.seed, first=first),
            (lambda devices: cls.batches(validation, config, full=devices > 1)) if validation else None,
            config, folder, app=cls.app, domain=domains.of([cls.features(source) for source in training]), **options)

    @staticmethod
    def batches(sources, config, *, seed=None, first=0, full=False):
        """Inputs and targets of simulations as a tf.data.Dataset; see `kerasgal.pipeline.stream` for the rest."""
        raise NotImplementedError

    @classmethod
    def features(cls, source):
        """What the domain knows of a simulation; see `kerasgal.domain.of_box`."""
        with opened(source, (cls.field,)) as simulation:
            return domains.of_box(simulation, cls.field)

    @classmethod
    def grid(cls, source, config):
        """Cells a side of the grid that patches are cut from, of a simulation; for the preset "auto"."""
        with opened(source, (cls.field,)) as simulation:
            return simulation[cls.field].shape[0]

    @classmethod
    def fits(cls, grids, config):
        """Whether patches can be cut from simulations of such `grid`s, a list; for the preset "auto"."""
        return config.patch <= min(grids)

    def served(self, **options):
        """The network that is exported, and what a caller must know of it, a dictionary."""
        raise NotImplementedError

    def predict(self, source, **options):
        """What the run says of a simulation or of images.

        Parameters
        ----------
        source : str, Path, Simulation or array
            See the class of the app.
        **options
            See there.

        Returns
        -------
        Prediction
        """
        raise NotImplementedError

    def evaluate(self, sources, **options):
        """How good the run is on data that it never saw.

        Parameters
        ----------
        sources : path or Simulation, or list of them
            See the class of the app.
        **options
            See there.

        Returns
        -------
        Evaluation
        """
        raise NotImplementedError

    # What all have

    @classmethod
    def load(cls, run):
        """The run in a run folder.

        Parameters
        ----------
        run : str or Path
            The folder, or the name of a network.

        Returns
        -------
        Run

        Raises
        ------
        RunError
            If the folder is no run folder of the app, or what its training keeps there is missing.
        """
        quiet.import_tensorflow()
        folder = networks.folder_of(run)
        if not folder.is_dir():
            raise RunError(f"{folder} is a file, no run folder")
        restored, stopped = {}, []
        for phase in cls.phases:
            cls.check_phase(folder, phase)
            config = run_folder.load_config(folder / phase, cls.Config, cls.app)
            restored[phase] = cls.restored(config, phase, folder / phase)
            stopped += run_folder.notes_of_stopped(folder / phase, config)
        for note in stopped:
            log.warning(note)
        domain = run_folder.read_json(folder / cls.phases[-1] / run_folder.DOMAIN)
        made = cls(config, restored, folder=folder, domain=domain)
        made.stopped = stopped
        return made

    @classmethod
    def restored(cls, config, phase, folder):
        """The network of a phase with the best weights in its folder, in float32 whatever it was trained in."""
        with workers.arithmetic("float32"):
            return run_folder.load_weights(cls.build(config, phase), folder)

    @classmethod
    def check_phase(cls, folder, phase):
        """Raise RunError if a phase has not been trained; an app may say what to do about it."""
        if phase and not (folder / phase / run_folder.CONFIG).exists():
            raise RunError(f"{folder} is not a run folder of {cls.app}: it has no {phase}/{run_folder.CONFIG}")

    @classmethod
    def configure(cls, config=None, preset=None, otherwise="paper", **settings):
        """The configuration that a preset, a file or a config, and single settings make, each over the ones before.

        Parameters
        ----------
        config : Config, str or Path, optional
            A config, or a file of one in JSON or TOML, which need not have all settings.
        preset : {"paper", "demo"}, optional
            Where values come from that nothing else gives.
        otherwise : {"paper", "demo"}
            The preset where neither is given, and the file names none.
        **settings
            Single settings, such as ``epochs=5``.

        Returns
        -------
        Config

        Raises
        ------
        SettingError
            For settings that are not accepted.
        """
        if isinstance(config, cls.Config):
            if preset is not None:
                raise SettingError("`config` has all settings: leave `preset` out")
            return configuration.replace(config, settings)
        return configuration.layered(cls.Config, preset, config, settings, otherwise=otherwise)

    @classmethod
    def train(cls, training=None, validation=None, *, run=None, config=None, preset=None, resume=False,
              overwrite=False, init=None, tensorboard=False, memory=None, **settings):
        """Train a run.

        Parameters
        ----------
        training : path or Simulation, or list of them, optional
            What to train on. Without any, simulations are made first beside the run folder, and the preset is "demo".
        validation : path or Simulation, or list of them, optional
            What to validate on. Without any the last one of several is held out; an empty list validates on nothing.
        run : str or Path
            Run folder to write.
        config : Config, str or Path, optional
            A config, or a file of one, JSON or TOML, which need not have all settings.
        preset : {"paper", "demo", "auto"}, optional
            Where values come from that nothing else gives. "auto" is the paper's with a GPU and the demo's without, but
            chooses patch, batch, accumulation and precision by the boxes and the free memory: see `kerasgal.planning`.
        resume : bool
            Go on with the run in the folder; needs nothing else.
        overwrite : bool
            Replace the run in the folder.
        init : str or Path, optional
            Run folder of the same kind of network, whose weights training starts from.
        tensorboard : bool
            Write TensorBoard logs into the run folder.
        memory : int or str, optional
            What the volumes that are trained and validated on may take of memory, in bytes or as "4GB". What goes
            beyond lies in a scratch file beside the run folder while the training lasts; the run is the same.
        **settings
            Single settings, such as ``epochs=5``.

        Returns
        -------
        Run
            The trained run; None in all of several workers but the first.

        Raises
        ------
        SettingError
            For settings that are not accepted.
        DataError
            For data that cannot be trained on, a run folder that may not be written into, a loss that is no number, and
            where memory or disk run out.
        TrainingInterrupted
            After Ctrl-C, once the step is done and saved.
        """
        quiet.import_tensorflow()
        folder = Path(run if run is not None else cls.default_folder())
        store = cls.store(memory, folder)
        config, training, validation = cls.prepare(training, validation, folder, config, preset, resume, overwrite,
                                                   settings)
        data = {"training": names_of(training), "validation": names_of(validation)}
        with run_folder.locked(folder, config), store.passing(len(training) + len(validation)):
            done = cls.fit(training, validation, config, folder, data=data, resume=resume, overwrite=overwrite,
                           tensorboard=tensorboard, **({"init": networks.folder_of(init)} if init else {}),
                           **({"store": store} if cls.stores else {}))
        return None if done is None else cls.load(folder)

    @classmethod
    def plan(cls, training=None, validation=None, *, run=None, **options):
        """What a training would take: see `kerasgal.plan`.

        Parameters
        ----------
        training, validation, run, **options
            See `train`.

        Returns
        -------
        kerasgal.planning.Plan

        Raises
        ------
        DataError
            As `train` does before its first epoch.
        """
        quiet.import_tensorflow()
        folder = run if run is not None else cls.default_folder()
        return planning.plan(lambda place: cls.train(training, validation, run=place, **options), folder)

    @classmethod
    def store(cls, memory, folder):
        """The `kerasgal.scratch.Store` of a training; raises SettingError where the app cannot keep to `memory`."""
        if memory is not None and not cls.stores:
            raise SettingError(f"memory={memory}: {cls.app} holds all that it trains on in memory: leave `memory` out",
                               value=memory)
        return Store(memory, folder)

    @classmethod
    def default_folder(cls):
        """The run folder of a training that names none."""
        return f"{cls.app.split()[-1]}-run"

    @classmethod
    def prepare(cls, training, validation, folder, config, preset, resume, overwrite, settings, phase=None):
        """What a training was asked for: its config, and lists of what to train and to validate on.

        phase: the one that training begins with, the first if none is given.
        """
        if resume and overwrite:
            raise SettingError("resume=True and overwrite=True contradict each other: give one of them")
        auto = preset == planning.AUTO
        if resume and auto:
            raise SettingError("resume=True goes on with the settings of the run: leave preset='auto' out")
        training, validation = as_list(training), None if validation is None else as_list(validation)
        stored = folder / (cls.phases[0] if phase is None else phase)
        if resume:
            if config is None and preset is None:
                config = stored / run_folder.CONFIG
                if not config.exists():
                    raise RunError(f"resume=True: {folder} has no run to go on with")
            if not training:
                if validation is not None:
                    raise SettingError("resume=True without simulations goes on with those of the run: leave "
                                       "`validation` out")
                training, validation = map(list, run_folder.recorded_data(stored))
                if not training:
                    raise RunError(f"resume=True: {stored} does not say what it was trained on "
                                   f"({run_folder.PROVENANCE}): give the simulations")
        if validation and not training:
            raise SettingError("`validation` needs simulations to train on")
        said = cls.said(config, settings) if auto else ()
        config = cls.configure(config, planning.start() if auto else preset, "paper" if training else "demo",
                               **settings)
        planning.check_config(config)
        run_folder.check_folder(stored, cls.app, resume, overwrite)
        if not training:
            planning.check_data()
            if config.strategy == "workers":
                raise SettingError("strategy=workers needs simulations to train on: workers must not make them side "
                                   "by side")
            from kerasgal.simulations import own_simulations

            training = own_simulations(folder.with_name(f"{folder.name}-simulations"), config.seed, **cls.own)
        check_once([*training, *(validation or [])])
        if validation is None and len(training) > 1:
            validation = [training.pop()]
            log.info(f"validating on {names_of(validation)[0] if not resume else validation[0]}, which is not trained "
                     "on")
        elif not validation:
            log.info(cls.alone)
        if auto:
            config = planning.choose(cls, config, said, training, validation or [], folder)
        return config, training, validation or []

    @classmethod
    def said(cls, config, settings):
        """Names of the settings that a file or single settings give."""
        stored = configuration.read_values(cls.Config, config)[0] if isinstance(config, str | os.PathLike) else {}
        return {*stored, *settings}

    alone = "no simulation to validate on: the best epoch is the one with the lowest training loss"

    @property
    def network(self):
        """Its only network, a Keras model."""
        return self.networks[self.phases[0]]

    @property
    def history(self):
        """The epochs of its training, [{column: number}]; of several phases each row says which."""
        if self.folder is None:
            return []
        rows = [(phase, row) for phase in self.phases for row in run_folder.read_history(self.folder / phase)]
        return [{"phase": phase, **row} if phase else row for phase, row in rows]

    def summary(self):
        """Its networks layer by layer, with their numbers of parameters: text to print."""
        lines = []
        for phase, network in self.networks.items():
            network.summary(print_fn=lambda text, **options: lines.append(text), expand_nested=True, line_length=100)
            trainable = sum(int(np.prod(weight.shape)) for weight in network.trainable_weights)
            lines.append(f"{phase or self.app}: {trainable:,} trainable parameters")
        return "\n".join(lines)

    def export(self, directory=None, overwrite=False, **options):
        """Write the run as a TensorFlow SavedModel, with kerasgal.json beside its graph.

        Parameters
        ----------
        directory : str or Path, optional
            Folder to write; `saved_model` in the run folder without one.
        overwrite : bool
            Replace an earlier one.
        **options
            See the class of the app.

        Returns
        -------
        Path
            The folder.

        Raises
        ------
        ExistsError
            If the folder exists.
        """
        from kerasgal.export import export

        directory = self.place(directory, "saved_model", argument="directory")
        network, description = self.served(**options)
        export(network, directory, {"app": self.app, **description, "domain": self.domain}, overwrite)
        return directory

    def place(self, given, name, argument):
        """Where something that is made of the run goes: a `given` path, or what is called `name` in the run folder.

        Raises SettingError, which names the argument that would say where, if there is no folder to write into.
        """
        if given is not None:
            return Path(given)
        if self.folder is None:
            raise SettingError(f"`{argument}` is missing: this run has no folder to write into")
        if networks.is_shipped(self.folder):
            raise SettingError(f"`{argument}` is missing: nothing is written beside a network that has a name")
        return self.folder / name

    def check_unseen(self, sources):
        """Refuse data that the run was trained on.

        Parameters
        ----------
        sources : list of path or Simulation
            What it is to be judged on.

        Raises
        ------
        UnseenError
            If one of them was used in training or validation.
        """
        if self.folder is not None:
            for phase in self.phases:
                run_folder.check_unseen(self.folder / phase, names_of(sources))

    @contextlib.contextmanager
    def given(self, source, *, field="initial/delta", require=None, boxsize=None, cosmology=None, redshift=None,
              parameters=None):
        """The simulation that somebody asks about, for a `with` block, and notes on what had to be assumed of it.

        source: a path, a `Simulation`, or an array of the `field`, a density contrast, (n, n, n).
        boxsize [Mpc/h], cosmology, redshift: what an array does not say; of a file they must not be given. Cosmology
        and redshift that nobody says are taken to be those of the training, with the parameters that are given, {name:
        value}.
        """
        said = {"boxsize": boxsize, "cosmology": cosmology, "redshift": redshift}
        if not isinstance(source, np.ndarray):
            spare = [name for name, value in said.items() if value is not None]
            if spare:
                raise SettingError(f"{', '.join(f'`{name}`' for name in spare)}: a Simulation says so itself; that is "
                                   "for arrays")
            if source is None or isinstance(source, bool | int | float):
                raise SettingError(f"expected a path, a Simulation or an array, received {source!r}")
            with opened(source, (field,) if require is None else require) as simulation:
                yield simulation, []
            return
        if boxsize is None:
            raise SettingError("`boxsize` is missing: the side of the box in Mpc/h, which an array does not say")
        notes = []
        if cosmology is None:
            cosmology = self.assumed_cosmology(parameters)
            notes.append("assumed, as an array does not say it: the cosmology of the training")
        if redshift is None:
            notes.append("assumed, as an array does not say it: the redshift of the training")
        which = "redshift_initial" if field.startswith("initial") else "redshift_final"
        simulation = from_array(source, boxsize=boxsize, name=field, cosmology=cosmology, **{which: redshift})
        for note in notes:
            log.info(note)
        try:
            yield simulation, notes
        finally:
            simulation.close()

    def assumed_cosmology(self, parameters=None):
        """The cosmology of the training: the middle of its range, or Planck 2018 for a run that does not say.

        parameters: {name: value} that are given.
        """
        from kerasgal.cosmology import Cosmology

        known = {name: sum(self.domain[name]) / 2 for name in domains.COSMOLOGY if name in self.domain}
        return Cosmology(**known | {name: value for name, value in (parameters or {}).items()
                                    if name in domains.COSMOLOGY})

    def told(self, simulation, known=None):
        """What a product says of the parameters that the networks are given, a dictionary, empty without any.

        known: {name: value} in place of the simulation's own.
        """
        values = named(simulation, parameter_names(self.config), known)
        return {"parameters": in_words(values)} if values else {}

    def check_domain(self, source, features=None, *, outside_domain=False):
        """Compare a source with what the run was trained on.

        A run of an earlier version, which does not know its domain, says so once. The parameters that a network is
        given must lie within those of the training; a cosmology that it is not given, and another halo finder, are only
        noted.

        Parameters
        ----------
        source : path, Simulation or array
            What is asked about.
        features : dict, optional
            Of the source, where they are known already, the parameters that the network is given among them; see
            `kerasgal.domain.of_box`.
        outside_domain : bool
            Go on where the source is not like the training's data.

        Returns
        -------
        list of str
            Notes for a product; also that the run's training was stopped.

        Raises
        ------
        DomainError
            If the source is not like the training's data.
        """
        if not self.domain:
            place = self.folder or "this run"
            note = f"{place} does not say what it was trained on, as runs of kerasgal 0.1 do not: nothing is " \
                   "compared with that"
            if self.folder is not None and self.folder not in _said:
                _said.add(self.folder)
                log.warning(note)
            return [*self.stopped, note]
        within = parameter_names(self.config)
        if features is None:
            features = self.features(source)
            if within:
                with opened(source, ()) as simulation:
                    features |= named(simulation, within)
        notes = domains.check(self.domain, features, self.checked, what=display_name(source),
                              minor=(*domains.COSMOLOGY, "finder"), within=within, outside_domain=outside_domain)
        if domains.unsaid(self.domain, features, ["density_of"]):
            notes.append(f"{display_name(source)} does not say what its density is of: taken for "
                         f"{' or '.join(self.domain['density_of'])}")
            log.info(notes[-1])
        return self.stopped + notes

    def __repr__(self):
        parameters = sum(network.count_params() for network in self.networks.values())
        where = self.folder if self.folder is not None else "not trained"
        lines = [f"<{type(self).__name__} run {where}: {parameters:,} parameters"]
        known = [domains.RULES[name].say(self.domain[name]) for name in
                 ("cellsize", "spacing", "pixel_scale", "unit", "redshift_final", "density_of") if name in self.domain]
        lines.append(" trained on " + (", ".join(known) if known else "what it does not say"))
        lines.append(" " + self.state())
        return "\n".join(lines) + ">"

    def state(self):
        """Where the training ended, in words."""
        parts = []
        for phase in self.phases:
            rows = run_folder.read_history(self.folder / phase) if self.folder is not None else []
            if rows:
                best, name = run_folder.best_epoch(rows)
                words = "validation" if name == "val_loss" else "training"
                parts.append(f"{phase + ': ' if phase else ''}{words} loss {best[name]:.4g} in epoch "
                             f"{best['epoch']:.0f} of {len(rows)}")
        return "; ".join(parts) or "no epoch is known"


def as_list(sources):
    """A list of what is one or several paths or simulations."""
    if sources is None:
        return []
    if isinstance(sources, str | os.PathLike | CheckedFile | np.ndarray):
        return [sources]
    return list(sources)


def check_once(sources):
    """Raise SettingError where something to train and to validate on is given twice."""
    names = names_of(sources)
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise SettingError(f"{twice} is given twice: what is validated on must not be trained on")


def to_judge_on(sources):
    """`as_list` of what a run is evaluated on; raises SettingError where that is nothing, or one is there twice."""
    sources = as_list(sources)
    if not sources:
        raise SettingError("there is nothing to evaluate on: the list is empty")
    # An array has no name, and what is in memory may share one with another
    known = [id(source) if isinstance(source, np.ndarray) or getattr(source, "in_memory", False) else name
             for source, name in zip(sources, names_of(sources))]
    for number, name in enumerate(known):
        if name in known[:number]:
            raise SettingError(f"{display_name(sources[number])} is given twice: it would count as two simulations")
    return sources


def names_of(sources):
    """What sources are called in provenance: absolute paths, or what a simulation in memory says of itself."""
    found = []
    for source in sources:
        path = getattr(source, "path", source)
        in_memory = isinstance(source, Simulation) and source.in_memory
        if isinstance(source, np.ndarray):
            found.append("array")
        elif not isinstance(path, str | os.PathLike):
            raise SettingError(f"expected a path or a Simulation, received {source!r}", value=source)
        else:
            found.append(str(path) if in_memory else str(Path(path).resolve()))
    return found


def display_name(source):
    """What messages call a source."""
    return "the array" if isinstance(source, np.ndarray) else str(getattr(source, "path", source))


class Prediction(Mapping):
    """What a run says of one source: arrays by name, a header, and notes.

    Attributes
    ----------
    header : dict
        app, run, source, kerasgal (version), and what else its file says of itself, such as boxsize [Mpc/h].
    notes : list of str
        What was assumed, and what lies outside of the domain of the run.

    Examples
    --------
    >>> import kerasgal as kg
    >>> haloes = kg.load("RUN").predict("box.h5")       # doctest: +SKIP
    >>> haloes.table["mass"].max()                      # doctest: +SKIP
    >>> haloes.save("haloes.h5")                        # doctest: +SKIP
    """

    units = {}  # of the table's columns: {name: unit as text}, e.g. "Msun/h"

    def __init__(self, run, source, arrays, notes=(), **header):
        self.arrays, self.notes = arrays, list(notes)
        self.header = {"app": run.app, "run": str(run.folder), "source": display_name(source),
                       "kerasgal": __version__, **header}

    @classmethod
    def filled(cls, run, source, shapes, fill, notes=(), *, output=None, overwrite=False, **header):
        """The prediction whose fields are filled part by part: in memory, or in an HDF5 file as they come.

        shapes: {name: shape} of the fields, float32; fill: a function that is given {name: array or dataset}, writes
        into them, and returns further arrays, {name: array}. Raises ExistsError and SettingError as `save`.
        """
        if output is None:
            arrays = {name: np.empty(shape, np.float32) for name, shape in shapes.items()}
            return cls(run, source, arrays | fill(arrays), notes, **header)
        import h5py

        output = check_suffix(output)
        refuse_existing(output, overwrite)
        check_room(output, sum(4 * int(np.prod(shape)) for shape in shapes.values()) + 2**20)
        with replacing(output, overwrite) as temporary, h5py.File(temporary, "w") as file:
            fields = {name: file.create_dataset(name, shape, "f4", chunks=tuple(min(side, CHUNK) for side in shape))
                      for name, shape in shapes.items()}
            more = fill(fields)
            file.attrs.update(cls(run, source, fields | more, notes, **header).attributes())
            for name, values in more.items():
                file[name] = values
        written = datasets(open_hdf5(output))
        return cls(run, source, {name: written[name] for name in [*shapes, *more]}, notes, **header)

    def __getitem__(self, name):
        if name not in self.arrays:
            raise KeyError(f"there is no {name}; accepted are {', '.join(self.arrays)}")
        return self.arrays[name]

    def __iter__(self):
        return iter(self.arrays)

    def __len__(self):
        return len(self.arrays)

    def columns(self):
        """Columns of its table, {name: array}."""
        raise NotImplementedError

    @property
    def table(self):
        """Its catalogue as an astropy QTable with units; the header stands in `meta`."""
        return quantities(self.columns(), self.units, self.attributes())

    def attributes(self):
        """The header as it stands in files, with the notes, if there are any."""
        return {**self.header, **({"notes": "; ".join(self.notes)} if self.notes else {})}

    def plot(self):
        """A Matplotlib figure of it."""
        raise NotImplementedError

    def words(self):
        """What it is, in words."""
        return ", ".join(f"{name} {np.shape(values)}" for name, values in self.arrays.items())

    def __repr__(self):
        lines = [f"<{type(self).__name__} of {self.header['source']}: {self.words()}", *self.notes]
        return "\n ".join(lines) + ">"

    def save(self, path, overwrite=False):
        """Write it: all arrays as HDF5 (.h5, .hdf5), or its table (.ecsv, .fits, .csv, .parquet), whole or not at all.

        Parameters
        ----------
        path : str or Path
            File to write.
        overwrite : bool
            Replace the file if it exists.

        Raises
        ------
        ExistsError
            If the file exists.
        SettingError
            For another suffix.
        """
        path = Path(path)
        if path.suffix not in (".h5", ".hdf5"):
            write_table(path, self.table, overwrite=overwrite)
            return
        import h5py

        check_room(path, sum(values.nbytes for values in self.arrays.values()) + 2**20)
        with replacing(path, overwrite) as temporary, h5py.File(temporary, "w") as file:
            file.attrs.update(self.attributes())
            for name, values in self.arrays.items():
                if isinstance(values, h5py.Dataset):  # of a file that it was written into
                    values.file.copy(values, file, name)
                    continue
                text = np.asarray(values).dtype.kind == "U"
                file[name] = values.astype(h5py.string_dtype()) if text else values


class Evaluation(Mapping):
    """How good runs are: numbers, lines of text, and figures that are drawn from them when they are asked for.

    Attributes
    ----------
    metrics : dict
        All numbers, as metrics.json has them. The evaluation itself is a mapping of them.
    lines : list of str
        The most important ones as a table.
    run : Run or None
        What was evaluated.

    Examples
    --------
    >>> from kerasgal.run import Evaluation
    >>> found = Evaluation({"loss": 0.57}, ["loss 0.570; 995 true haloes"])
    >>> found
    loss 0.570; 995 true haloes
    >>> found.save("evaluation")                        # report.html, metrics.json, a PNG of each figure
    >>> found["loss"]
    0.57
    """

    def __init__(self, metrics, lines, draw=dict, run=None):
        self.metrics, self.lines, self._draw, self.run = metrics, list(lines), draw, run

    def __getitem__(self, name):
        return self.metrics[name]

    def __iter__(self):
        return iter(self.metrics)

    def __len__(self):
        return len(self.metrics)

    def __repr__(self):
        return "\n".join(self.lines)

    def figures(self):
        """All figures, {name: Matplotlib figure}."""
        return self._draw()

    def _tables(self):
        """Tables that stand beside the numbers: {name of the file: astropy table}."""
        return {}

    def save(self, folder, overwrite=False, command=None, figures="png"):
        """Write report.html, metrics.json, metrics.csv, every figure and tables, where there are some, into a folder.

        Parameters
        ----------
        folder : str or Path
            Made if it is not there.
        overwrite : bool
            Replace the evaluation in it; figures of that one which this one has not go.
        command : str, optional
            The command that evaluated, for the report.
        figures : {"png", "pdf", "svg"}
            What files the figures are; the report holds them as PNG.

        Raises
        ------
        ExistsError
            If the folder has a metrics.json.
        SettingError
            If figures are asked for in another format.
        """
        from kerasgal import plotting, report

        if figures not in plotting.FORMATS:
            raise SettingError(f"figures={figures!r} is no format of figures", value=figures,
                               accepted=plotting.FORMATS)
        folder = Path(folder)
        refuse_existing(folder / "metrics.json", overwrite)
        drawn, pictures = self.figures(), {}  # before there is a file: an error in drawing leaves none
        tables = self._tables()
        for name in (report.REPORT, "metrics.csv", *(f"{name}.{figures}" for name in drawn), *tables):
            refuse_existing(folder / name, overwrite)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "metrics.json").unlink(missing_ok=True)  # without it a folder is not whole
        for path in report.figures_in(folder):
            path.unlink(missing_ok=True)
        for name, figure in drawn.items():
            path = folder / f"{name}.{figures}"
            plotting.save(figure, path)
            pictures[name] = path.read_bytes() if figures == "png" else plotting.png(figure)
        page = report.html(self, pictures, command=command)
        (folder / report.REPORT).write_text(page, encoding="utf-8")
        (folder / "metrics.csv").write_text(report.as_csv(self.metrics))
        for name, table in tables.items():
            write_table(folder / name, table, overwrite=True)
        run_folder.write_json(self.metrics, folder / "metrics.json")  # the last: with it a folder is whole


def comparable(runs, name, words):
    """Raise DataError if runs that are to be compared differ in a setting; runs: {name: Run}; words: for the error."""
    values = {key: getattr(run.config, name) for key, run in runs.items()}
    if len(set(values.values())) > 1:
        raise DataError(f"runs of different {words} cannot be compared: "
                        + ", ".join(f"{key} has {value}" for key, value in values.items()))
