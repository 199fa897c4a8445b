"""The ladder: how much of a halo's mass the mean, the dipole and the quadrupole of the density around a particle know.

Each rung sees the multipoles in the shells around a particle up to an order: l = 0, which is what spherical averages
have, l <= 1 and l <= 2. Boosted trees and a network are fitted to each, several times with other training particles and
other random numbers, and all predict the same particles of simulations that they never saw. What a rung adds is a
difference on these particles, so its error is from bootstrap samples of haloes that both rungs share: it is smaller
than those of the two.

An error has two parts: the bootstrap over haloes of the mean over the trainings, and the standard deviation of the
trainings over the root of their number. With one training the second is not known, and left out.
"""

import functools
import logging
import tempfile
from pathlib import Path

import numpy as np

from kerasgal import domain, run_folder
from kerasgal.apps.halomass import data, evaluate, figures, metrics, train
from kerasgal.apps.halomass.baseline import boosted
from kerasgal.apps.halomass.config import APP
from kerasgal.apps.halomass.predict import predict_particles
from kerasgal.conditioning import parameter_names
from kerasgal.config import read_values, replace
from kerasgal.errors import SettingError, UnseenError
from kerasgal.files import refuse_existing
from kerasgal.plotting import track
from kerasgal.run import Evaluation, as_list, check_once, comparable, display_name, names_of, to_judge_on
from kerasgal.simulation import opened
from kerasgal.tables import quantities
from kerasgal.training import train as train_network

TABLE = "ladder.ecsv"
UNITS = dict.fromkeys(("rms", "rms_error", "rms_haloes", "rms_seeds", "rms_gain", "rms_gain_error", "rms_total",
                       "rms_total_error"), "dex")

log = logging.getLogger(__name__)


class Ladder(Evaluation):
    """What `ladder` finds: its metrics have a list of `rungs`, of which `table` has the rows.

    ::

        model           "trees" or "network"
        rung            what it sees: "l = 0", "l <= 1", "l <= 2", or the input of runs that were given, and where
                        others have that, too, the folder of the first
        seeds           trainings
        r, rms          correlation of log10 masses and scatter [dex], means over the trainings
        ..._error       of each, from haloes and trainings; its parts: ..._haloes, of the mean, and ..._seeds, the
                        standard deviation of one training (NaN where there is only one)
        ..._gain        what it has more than the rung below, with a paired ..._error
        ..._total       what it has more than the lowest rung of the same model, with a paired ..._error
        divergence      K-L divergence of its residuals from those of the lowest rung, with its error
        divergence_ratio  the ratio of scatters of two Gaussians with that divergence, to be held against
        rms_ratio       that of the scatters themselves
    """

    @property
    def table(self):
        """The rungs as an astropy table."""
        rows = [{name: np.nan if value is None else value for name, value in row.items()}
                for row in self.metrics["rungs"]]
        header = {name: value for name, value in self.metrics.items() if name != "rungs"}
        return quantities({name: [row[name] for row in rows] for name in rows[0]}, UNITS, header)

    def _tables(self):
        return {TABLE: self.table}

    def save(self, folder, overwrite=False):
        """Write metrics.json, the figure and the table, ladder.ecsv, into a folder.

        Parameters
        ----------
        folder : str or Path
            Made if it is not there.
        overwrite : bool
            Replace what is in it.

        Raises
        ------
        ExistsError
            If the folder has one of them.
        """
        refuse_existing(Path(folder) / TABLE, overwrite)
        super().save(folder, overwrite)


def ladder(training, validation, test, *, config=None, preset=None, seeds=5, networks=3, raw=(), sample=2000, runs=None,
           overwrite=False, **settings):
    """Fit trees and networks to multipoles up to order after order, and compare them on particles that none saw.

    Parameters
    ----------
    training, validation, test : path or Simulation, or list of them
        Simulations with haloes: to fit to, to stop on, and to compare on.
    config, preset, **settings
        As for `Run.train`; without any the demo's. The `order` is that of the highest rung.
    seeds : int
        Trainings of the trees on each rung.
    networks : int
        Trainings of the network on each rung; none for 0.
    raw : run folder or HaloMass, or list of them
        Trained runs to stand above the ladder, such as of ``input="raw"``; those that differ in nothing but their seed
        are one rung.
    sample : int
        So many particles at random from each simulation of `test`.
    runs : str or Path, optional
        Folder in which the networks' run folders are kept; without one they are not kept.
    overwrite : bool
        Replace those that exist.

    Returns
    -------
    Ladder

    Raises
    ------
    SettingError
        For settings that are not accepted, nothing to validate or to test on, or a simulation that is given twice.
    UnseenError
        If something of `test` was trained or validated on.
    DomainError
        If simulations are not alike.
    RunError
        If one of `raw` is given twice.
    MissingError
        Without scikit-learn.

    Examples
    --------
    >>> from kerasgal.apps.halomass.ladder import ladder                        # doctest: +SKIP
    >>> found = ladder(["a.h5", "b.h5"], "c.h5", ["d.h5", "e.h5"], networks=1)  # doctest: +SKIP
    >>> found.table["rung", "r", "r_gain", "r_gain_error"]                      # doctest: +SKIP
    """
    from kerasgal.apps.halomass.run import HaloMass, check_whole

    check_whole(seeds=(seeds, 1), networks=(networks, 0), sample=(sample, 1))
    config = multipoles(HaloMass, config, preset, settings)
    if parameter_names(config):
        raise SettingError(f"parameters={config.parameters!r}: networks and trees of the ladder see the same, which is "
                           "multipoles alone: leave `parameters` out", value=config.parameters)
    given = [HaloMass.load(run) if isinstance(run, str | Path) else run for run in as_paths(raw)]
    run_folder.named([run.folder or "run in memory" for run in given])  # refuses one that is given twice
    training, validation, test = as_list(training), as_list(validation), as_list(test)
    for name, sources in (("training", training), ("validation", validation), ("test", test)):
        if not sources:
            raise SettingError(f"`{name}` is missing: the ladder needs simulations to train on, to validate on and to "
                               "test on")
    check_once([*training, *validation])
    test = to_judge_on(test)
    known = domain.of([data.features(source, config) for source in training])
    notes = check_alike(config, training, validation, test, given, known)
    drawn = [draw(training, config.samples, config, max(seeds, networks), 0),
             draw(validation, config.validation_samples, config, max(seeds, networks), 1)]
    described, tested = draw_test(test, config, sample)
    rungs = {}
    for order in range(config.order + 1):
        rungs["trees", called(order)] = np.stack([
            trees(*drawn, tested, replace(config, {"order": order}), number) for number in range(seeds)])
        say(rungs, described)
    with tempfile.TemporaryDirectory() as temporary:
        for order in range(config.order + 1 if networks else 0):
            rungs["network", called(order)] = np.stack([
                network(*drawn, tested, replace(config, {"order": order, "seed": config.seed + number}), number,
                        Path(runs or temporary), overwrite, domain=known,
                        data={"training": names_of(training), "validation": names_of(validation)})
                for number in range(networks)])
            say(rungs, described)
    for rung, alike in by_rung(given).items():
        rungs["network", rung] = np.stack([predicted_by(run, test, sample) for run in alike])
        say(rungs, described)
    made = compared(rungs, described, config, training, validation, test)
    if notes:
        made.metrics["notes"] = list(dict.fromkeys(notes))
    return made


def multipoles(cls, config, preset, settings):
    """The configuration of the highest rung; raises SettingError where another input than multipoles is asked for.

    cls: the class of runs; the rest as of `ladder`.
    """
    if isinstance(config, cls.Config):
        told = {"input": config.input}
    else:
        told = {} if config is None else read_values(cls.Config, config)[0]
    asked = {**told, **settings}.get("input", "multipoles")
    if asked != "multipoles":
        raise SettingError(f"input={asked!r}: the ladder is of multipoles; trained runs of other inputs stand above it "
                           "as `raw`", value=asked, accepted=("multipoles",))
    return cls.configure(config, preset, "demo", **{**settings, "input": "multipoles"})


def as_paths(runs):
    """A list of what is one or several runs or run folders."""
    from kerasgal.run import Run

    return [runs] if isinstance(runs, Run | str | Path) else list(runs)


def by_rung(runs):
    """Trained runs by the rung that they are: {name: [run, ...]}, of runs that differ in nothing but their seed.

    A rung is called by the input of its runs; where several have that, also by their first run's folder.
    """
    kinds = {}
    for run in runs:
        kinds.setdefault(replace(run.config, {"seed": 0}), []).append(run)
    inputs = [kind.input for kind in kinds]
    return {kind.input if inputs.count(kind.input) == 1 else
            f"{kind.input}, {display_name(alike[0].folder or 'run in memory')}": alike for kind, alike in kinds.items()}


def called(order):
    """What a rung is called."""
    return "l = 0" if order == 0 else f"l <= {order}"


def check_alike(config, training, validation, test, given, known):
    """Raise UnseenError for a simulation that is tested on and not unseen, DomainError for one that is not alike.

    known: the domain of the training. Returns notes on what differs all the same.
    """
    from kerasgal.apps.halomass.run import HaloMass

    seen = {*names_of(training), *names_of(validation)}
    for source, name in zip(test, names_of(test)):
        if name in seen:
            raise UnseenError(f"{display_name(source)} is to be tested on, and was used in the training")
    if given:
        mine = HaloMass(config)
        for setting, words in (("low", "least masses"), ("high", "greatest masses")):
            comparable({"the ladder": mine, **{display_name(run.folder): run for run in given}}, setting, words)
    like = HaloMass(config, domain=known)
    notes = []
    for run, sources in [(like, [*validation, *test]), *((run, test) for run in given)]:
        run.check_unseen(sources)
        name = "the ladder" if run is like else display_name(run.folder or "run in memory")
        for source in sources:
            notes += [f"{name}: {note}" for note in run.check_domain(source, data.features(source, run.config))]
    return notes


def draw(sources, count, config, seeds, shift):
    """Particles over simulations for each training, as `train.draw` draws them for its seed: lists of Samples.

    shift: added to the seed. The multipoles of a simulation are taken once, for the particles of all trainings.
    """
    found = [[] for _ in range(seeds)]
    for number, source in enumerate(track(sources, "multipoles")):
        share = count // len(sources) + (number < count % len(sources))
        with opened(source, require=("initial/delta", "halo_id", "halos/mass")) as simulation:
            particles = [data.sample_particles(simulation, share, config.low, config.high,
                                               (config.seed + seed + shift, number))[0] for seed in range(seeds)]
            whole = data.load(simulation, config, np.concatenate(particles))
        ends = np.cumsum([0] + [len(part) for part in particles])
        for samples, first, last in zip(found, ends, ends[1:]):
            samples.append(data.Sample(whole.particles[first:last], whole.log_mass[first:last],
                                       whole.places[first:last], None))
    return found


def draw_test(sources, config, count):
    """The particles to compare on: their description as of `evaluate.draw`, and their numbers, (m, numbers)."""
    described, numbers = [], []
    for number, source in enumerate(track(sources, "multipoles")):
        with opened(source, require=("initial/delta", "halo_id", "halos/mass")) as simulation:
            particles, description = evaluate.draw(simulation, number, count, config.low, config.high)
            described.append(description)
            numbers.append(data.load(simulation, config, particles).places)
    return {name: np.concatenate([part[name] for part in described]) for name in described[0]}, np.concatenate(numbers)


def joined(samples, config):
    """Samples of several simulations as one, with the numbers that a configuration sees."""
    particles, log_mass, numbers = (np.concatenate([getattr(sample, name) for sample in samples])
                                    for name in ("particles", "log_mass", "places"))
    return data.Sample(particles, log_mass, numbers[:, :config.shells * (config.order + 1)], None)


def trees(drawn, held_out, tested, config, number):
    """log10 masses that the trees of a training say of the tested particles, (m,)."""
    sample, validation = joined(drawn[number], config), joined(held_out[number], config)
    model = boosted(sample.places, sample.log_mass, (validation.places, validation.log_mass), config.seed + number)
    return model.predict(tested[:, :sample.places.shape[1]])


def network(drawn, held_out, tested, config, number, folder, overwrite, **recorded):
    """log10 masses that the network of a training says of the tested particles, (m,), which becomes a run in `folder`.

    recorded: `domain` and `data` of `kerasgal.training.train`.
    """
    sample, validation = joined(drawn[number], config), joined(held_out[number], config)
    mean, deviation = data.moments([sample], config)
    place = folder / f"order_{config.order}_seed_{config.seed}"
    with run_folder.locked(place, config):
        model = train_network(
            lambda: train.compiled(config, mean, deviation),
            lambda first: data.batches([sample], config, seed=config.seed, first=first),
            lambda devices: data.batches([validation], config, full=devices > 1), config, place, app=APP,
            overwrite=overwrite, **recorded)
    y = np.asarray(model(tested[:, :sample.places.shape[1]], training=False))[:, 0]  # few numbers: all at once
    return data.Scale(config.low, config.high).to_log_mass(y.astype(np.float64))


def predicted_by(run, sources, count):
    """log10 masses that a trained run says of the tested particles, (m,)."""
    found = []
    for number, source in enumerate(track(sources, "predicting")):
        with opened(source) as simulation:
            particles, _ = evaluate.draw(simulation, number, count, run.config.low, run.config.high)
            found.append(predict_particles(run.network, run.config, simulation, particles)["log_mass"])
    return np.concatenate(found)


def say(rungs, described):
    """Say how good the last rung is."""
    (model, rung), predicted = list(rungs.items())[-1]
    r = [metrics.correlation(described["log_mass"], one) for one in predicted]
    log.info(f"{model}, {rung}: r = {np.mean(r):.3f}, {len(r)} trainings")


def compared(rungs, described, config, training, validation, test):
    """The `Ladder` of predictions of the same particles: {(model, rung): (trainings, m)}, the lowest rungs first."""
    true, halo = described["log_mass"], described["halo"]
    # The first sample is the one that there is, the others are of the bootstrap.
    weights = np.concatenate([np.ones((1, len(true)), int), metrics.bootstrap_weights(halo)])
    values = {key: (np.stack([metrics.correlation(true, one, weights) for one in predicted]),
                    np.stack([metrics.root_mean_square(one - true, weights) for one in predicted]))
              for key, predicted in rungs.items()}
    rows = []
    for key in rungs:
        same = [other for other in rungs if other[0] == key[0]]
        lowest, below = same[0], same[max(same.index(key) - 1, 0)]
        row = {"model": key[0], "rung": key[1], "seeds": len(rungs[key])}
        for name, column in (("r", 0), ("rms", 1)):
            row |= quoted(name, values[key][column], parts=True)
        for name, column in (("r", 0), ("rms", 1)):
            for word, other in (("gain", below), ("total", lowest)):
                row |= quoted(f"{name}_{word}", values[key][column], values[other][column], none=key == lowest)
        row |= quoted("divergence", divergences(rungs[key], rungs[lowest], true, weights), none=key == lowest)
        scatter, widest = (float(values[one][1][:, 0].mean()) for one in (key, lowest))
        known = key != lowest
        row |= {"divergence_ratio": metrics.scatter_ratio(row["divergence"], widest) if known else None,
                "rms_ratio": scatter / widest if known else None}
        rows.append(row)
    found = {"training": [display_name(source) for source in training],
             "validation": [display_name(source) for source in validation],
             "test": [display_name(source) for source in test], "mass_range": [config.low, config.high],
             "patch": config.patch, "shells": config.shells, "samples": config.samples, "particles": len(true),
             "haloes": len(np.unique(halo)), "rungs": rows}
    return Ladder(found, lines(found), functools.cache(lambda: {"ladder": figures.ladder(rows)}))


def quoted(name, values, other=None, *, parts=False, none=False):
    """Mean and error of a number, as entries of a row; of the difference from that of another rung, if one is given.

    values, other: (trainings, samples), of which the first sample is the one that there is. Trainings of two rungs are
    paired where there are as many of both. parts: give both parts of the error. none: there is no such number.
    """
    if none:
        return {name: None, f"{name}_error": None}
    both = [values] if other is None else [values, -other]
    if other is not None and len(values) == len(other):
        both = [values - other]
    mean = sum(one.mean(axis=0) for one in both)
    haloes = float(mean[1:].std())
    spread = [one[:, 0].std(ddof=1) if len(one) > 1 else 0.0 for one in both]
    of_mean = [one / np.sqrt(len(part)) for one, part in zip(spread, both)]
    row = {name: float(mean[0]), f"{name}_error": float(np.hypot(haloes, np.linalg.norm(of_mean)))}
    if parts:
        row |= {f"{name}_haloes": haloes, f"{name}_seeds": float(spread[0]) if len(values) > 1 else None}
    return row


def divergences(predicted, lowest, true, weights):
    """K-L divergences of the residuals of each training from those of one of the lowest rung: (trainings, samples)."""
    found = []
    for number, one in enumerate(predicted):
        residuals = one - true, lowest[number % len(lowest)] - true
        grid = metrics.residual_grid(residuals)
        p, q = (metrics.kernel_density(residual, grid, weights=weights) for residual in residuals)
        found.append(metrics.divergence(p, q, grid[1] - grid[0]))
    return np.stack(found)


def lines(found):
    """The ladder as lines of text."""
    (low, high), rows = found["mass_range"], found["rungs"]

    def number(row, name):
        return "" if row[name] is None else f"{row[name]:.3f} +- {row[f'{name}_error']:.3f}"

    yield (f"{found['particles']} particles of {found['haloes']} haloes in {len(found['test'])} simulations, "
           f"log10 mass {low:g} to {high:g}")
    yield (f"{'':9s}{'sees':12s}{'seeds':>5s}{'r':>17s}{'more than below':>18s}{'rms [dex]':>17s}"
           f"{'more than below':>18s}{'K-L from lowest':>17s}   scatter by K-L, by rms")
    for row in rows:
        ratios = "" if row["divergence_ratio"] is None else f"{row['divergence_ratio']:.2f}, {row['rms_ratio']:.2f}"
        columns = [number(row, name) for name in ("r", "r_gain", "rms", "rms_gain", "divergence")]
        yield (f"{row['model']:9s}{row['rung']:12s}{row['seeds']:>5d}"
               + "".join(f"{text:>{width}s}" for text, width in zip(columns, (17, 18, 17, 18, 17)))
               + f"   {ratios}").rstrip()
    if any(row["seeds"] == 1 for row in rows):
        yield "errors of one seed are of haloes alone"
