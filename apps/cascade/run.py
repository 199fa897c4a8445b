"""A trained run of cascade: galaxies that are expected, from the density of dark matter (Yip et al. 2019)."""

import contextlib
import functools
import logging
from pathlib import Path

import numpy as np

from kerasgal import quiet, run_folder
from kerasgal.apps.cascade.config import APP, POOLINGS, TrainConfig
from kerasgal.conditioning import check_given, named
from kerasgal.errors import RunError, SettingError
from kerasgal.files import slabs
from kerasgal.networks import folder_of
from kerasgal.run import Prediction, Run, as_list, display_name, names_of, to_judge_on
from kerasgal.simulation import opened

CLASSIFY, REGRESS = PHASES = "classify", "regress"

log = logging.getLogger(__name__)


class Galaxies(Prediction):
    """The galaxies that are expected in a simulation, and those that were drawn from them.

    A mapping of arrays, as they stand in the file that `save` writes:

    ::

        probability         (n, n, n) float32: of a galaxy in the cell, see the model card for what it means
        count               (n, n, n) float32: galaxies that are expected in the cell
        galaxies/position   (g, 3) float32, Mpc/h: galaxies drawn from these, where a catalogue was asked for
        galaxies/velocity   (g, 3) float32, peculiar, km/s: where the training and the simulation have velocities
        attributes          app, run, source, kerasgal, boxsize [Mpc/h], threshold (of the probability, below which no
                            galaxy is expected), parameters (in words, where the run is given some), seed (of the
                            galaxies that were drawn), notes

    Its table is the drawn catalogue, or, without one, the cells in which galaxies are expected.
    """

    units = {**dict.fromkeys("xyz", "Mpc/h"), **dict.fromkeys(("vx", "vy", "vz"), "km/s")}

    def columns(self):
        if "galaxies/position" in self:
            columns = dict(zip("xyz", self["galaxies/position"][...].T))
            if "galaxies/velocity" in self:
                columns |= dict(zip(("vx", "vy", "vz"), self["galaxies/velocity"][...].T))
            return columns
        probability, count = self["probability"][...], self["count"][...]
        occupied = np.nonzero(count)
        centres = (np.array(occupied) + 0.5) * (self.header["boxsize"] / len(count))
        return {**dict(zip("xyz", centres.astype(np.float32))), "count": count[occupied],
                "probability": probability[occupied]}

    def plot(self, layer=None):
        """A slab of the box around a layer along z, by default the one with most galaxies."""
        from kerasgal.apps.cascade import figures

        probability, count = self["probability"][...], self["count"][...]
        layer = int(count.sum(axis=(0, 1)).argmax()) if layer is None else layer
        return figures.prediction(probability, count, self.header["boxsize"], layer)

    def words(self):
        drawn = f", {len(self['galaxies/position'])} drawn" if "galaxies/position" in self else ""
        count = self["count"]
        total = sum(float(slab.sum(dtype=float)) for slab in slabs(count))
        return f"probability and number of galaxies in {len(count)}^3 cells, {total:.0f} galaxies in all{drawn}"


class DensityRun(Run):
    """A run that sees the final density in cells of a size of its own: `Cascade`, and `Diffusion`."""

    own = {"particles": 128, "galaxies": True}
    field = "final/delta"
    checked = ("redshift_final", "density_of", "particles_per_cell", "sampling")  # cells are always those of the run
    stores, streams = True, True

    @property
    def finer(self):
        """Whether it sees what a finer grid of the particles says."""
        return getattr(self.config, "finer", False)

    @property
    def of_particles(self):
        """Whether it sees what is made of particles beside the density."""
        return getattr(self.config, "of_particles", False)

    @property
    def deposit(self):
        """How it puts particles on its grid."""
        return getattr(self.config, "deposit", "cic")

    @classmethod
    def grid(cls, source, config):
        from kerasgal.apps.cascade import data

        with opened(source, ()) as simulation:
            return data.cells_of(simulation, config.cell)

    def features(self, source, parameters=None):
        """What the domain knows of a simulation, in cells of the run; parameters: known ones that are not its own."""
        from kerasgal.apps.cascade import data

        with opened(source, ()) as simulation:
            return data.features(simulation, self.config.cell, self.of_particles, self.finer) \
                | named(simulation, self.config.names, parameters)

    @contextlib.contextmanager
    def asked(self, source, outside_domain, parameters=None, *, moving=False, **said):
        """`given` of a source, whose domain and particles are checked, too.

        moving: whether velocities are drawn where the source has those of its particles.
        """
        with self.given(source, field=self.field, require=(), parameters=parameters,
                        **said) as (simulation, notes):
            notes += self.check_domain(source, self.features(simulation, parameters), outside_domain=outside_domain)
            notes += self.check_matter(simulation, outside_domain, parameters, moving=moving)
            yield simulation, notes

    def check_matter(self, simulation, outside_domain, parameters=None, *, moving=False):
        """Notes on the dark matter of a simulation, whose particles must not be sparser than the cells.

        parameters, moving: see `asked`.
        """
        from kerasgal.apps.cascade import data

        of_particles = self.of_particles or moving and all(name in simulation for name in data.MOTION)
        return data.check_particles(simulation, self.config.cell, outside_domain, of_particles, self.deposit)


class Cascade(DensityRun):
    """A trained run of cascade: two networks, one that says where galaxies are and one that says how many.

    Examples
    --------
    >>> import kerasgal as kg
    >>> run = kg.load("RUN")                                            # doctest: +SKIP
    >>> box = kg.simulate(particles=128, boxsize=50, seed=1)            # doctest: +SKIP
    >>> galaxies = run.predict(box, catalogue=True)                     # doctest: +SKIP
    >>> galaxies.table["x"]                                             # doctest: +SKIP
    """

    app, Config, phases = APP, TrainConfig, PHASES
    limits = ("Not a catalogue: the field is an expectation, whose own spectrum falls short at small scales even "
              "where it is perfect; `catalogue` draws from it. Not that a difference means anything that is smaller "
              "than that of another drawing of the same galaxies, where that is known. Of painted galaxies nothing "
              "follows for the real connection of galaxies and matter: the network has learnt the rule that painted "
              "them. The bispectrum of a few boxes is that of their richest clusters.")
    alone = "one simulation: split by volume into training, validation and test cubes"

    @staticmethod
    def build(config, phase=CLASSIFY):
        from kerasgal.apps.cascade.predict import build

        return build(config, phase)

    @classmethod
    def check_phase(cls, folder, phase):
        if phase == REGRESS and not (folder / REGRESS / run_folder.CONFIG).exists():
            raise RunError(f"{folder} has phase 1 only: train phase 2, too, with phase='regress'")
        super().check_phase(folder, phase)

    @classmethod
    def first(cls, run):
        """Phase 1 of a run folder alone: a run that cannot predict yet."""
        folder = folder_of(run)
        cls.check_phase(folder, CLASSIFY)
        place = folder / CLASSIFY
        config = run_folder.load_config(place, cls.Config, cls.app)
        made = cls(config, {CLASSIFY: cls.restored(config, CLASSIFY, place)}, folder=folder,
                   domain=run_folder.read_json(place / run_folder.DOMAIN))
        made.phases = (CLASSIFY,)
        return made

    @classmethod
    def train(cls, training=None, validation=None, *, run=None, config=None, preset=None, phase="both", sweep=None,
              resume=False, overwrite=False, init=None, tensorboard=False, memory=None, **settings):
        """Train a run.

        Parameters
        ----------
        training, validation : path or Simulation, or list of them, optional
            Simulations with a final density and galaxies. Several are trained on whole, and the last one is validated
            on unless others are given; a single one is split by volume as the paper's. Without any, simulations with
            painted galaxies are made first, and the preset is "demo".
        run : str or Path
            Run folder to write.
        config, preset, resume, overwrite, init, tensorboard, memory, **settings
            See `kerasgal.run.Run.train`.
        phase : {"both", "classify", "regress"}
            Which network to train. "regress" goes on from the phase 1 in the run folder, by default with its settings
            and simulations.
        sweep : dict, optional
            Weights of the losses to train with, e.g. ``{"w1": [100, 500], "w2": [1, 1.05]}``: the run with the least
            MSE_sub on the validation sub-cubes is kept.

        Returns
        -------
        Cascade
            The trained run, which cannot predict if it is phase 1 alone; None in all of several workers but the first.

        Raises
        ------
        SettingError
            For settings that are not accepted.
        DataError
            As `kerasgal.run.Run.train`; DomainError for particles that are sparser than cells.
        """
        quiet.import_tensorflow()
        from kerasgal.apps.cascade import train

        train.check_request(phase, sweep, resume)
        folder = Path(run if run is not None else cls.default_folder())
        store = cls.store(memory, folder)
        if phase == REGRESS and not resume:
            cls.check_phase(folder, CLASSIFY)
            if config is None and preset is None:
                config = folder / CLASSIFY / run_folder.CONFIG
            if not as_list(training):
                if validation is not None:
                    raise SettingError("`validation` goes with simulations to train on: without any, both are those of "
                                       "phase 1")
                training, validation = run_folder.recorded_data(folder / CLASSIFY)
        config, training, validation = cls.prepare(training, validation, folder, config, preset, resume, overwrite,
                                                   settings, phase=REGRESS if phase == REGRESS else CLASSIFY)
        if len(training) > 1 and not validation:
            raise SettingError(f"validation=[] with {len(training)} simulations: a single one is split by volume; of "
                               "several, give one to validate on")
        data = {"training": names_of(training), "validation": names_of(validation)}
        with run_folder.locked(folder, config), store.passing(len(training) + len(validation)):
            done = train.fit(cls, training, validation, config, folder, phase=phase, sweep=sweep, data=data,
                             store=store, resume=resume, overwrite=overwrite, tensorboard=tensorboard,
                             **({"init": folder_of(init)} if init else {}))
        if done is None:
            return None
        return cls.first(folder) if phase == CLASSIFY else cls.load(folder)

    @classmethod
    def fits(cls, grids, config):
        # One simulation alone is split into sub-cubes.
        return all(config.patch <= n if len(grids) > 1 else n % config.patch == 0 and n >= 2 * config.patch
                   for n in grids)

    @functools.cached_property
    def network(self):
        """Both networks as one, of density, or [density, parameters], to [probability of a galaxy, expected galaxies].

        See `model.cascade`.
        """
        from kerasgal.apps.cascade.model import cascade

        if REGRESS not in self.networks:
            self.check_phase(self.folder, REGRESS)
        return cascade(self.networks[CLASSIFY], self.networks[REGRESS], self.config.threshold)

    @functools.cached_property
    def scatter(self):
        """What the numbers of galaxies scatter by, a `scatter.Scatter`: Poisson where no training measured it."""
        from kerasgal.apps.cascade import scatter

        found = scatter.read(self.folder / REGRESS) if self.folder is not None else None
        return found or scatter.POISSON

    @functools.cached_property
    def motion(self):
        """How galaxies move about the dark matter, a `motion.Motion`; None where no training measured it."""
        from kerasgal.apps.cascade import motion

        return motion.read(self.folder / REGRESS) if self.folder is not None else None

    def unmoved(self, simulation):
        """Notes, one where galaxies that are drawn have no velocities, which is logged, too."""
        from kerasgal.apps.cascade.data import MOTION

        missing = [name for name in MOTION if name not in simulation]
        if self.motion is None:
            why = f"{self.folder or 'this run'} did not measure how galaxies move, as its training had no velocities " \
                  "of both galaxies and particles"
        elif missing:
            why = f"{display_name(simulation)} has no {' and no '.join(missing)}"
        else:
            return []
        note = f"{why}: galaxies are drawn without a velocity"
        log.info(note)
        return [note]

    def unmeasured(self):
        """Notes, one where the scatter was not measured, which is logged, too."""
        from kerasgal.apps.cascade.scatter import FILE

        if self.folder is not None and (self.folder / REGRESS / FILE).exists():
            return []
        note = f"{self.folder or 'this run'} did not measure how galaxies scatter about what it expects: they are " \
               "drawn as Poisson numbers"
        log.info(note)
        return [note]

    def predict(self, source, *, boxsize=None, cosmology=None, redshift=None, round=False, catalogue=False, seed=0,
                tile=None, parameters=None, outside_domain=False, output=None, overwrite=False):
        """Predict the galaxies of a simulation from its dark matter.

        Parameters
        ----------
        source : str, Path, Simulation or array
            A Simulation with its final density or particles, or the density contrast itself, (n, n, n), on cells of the
            run.
        boxsize : float
            Side of the box of an array, Mpc/h.
        cosmology : Cosmology, optional
            Of an array; that of the training without one.
        redshift : float, optional
            Of an array.
        round : bool
            Round the expected numbers of galaxies to whole ones.
        catalogue : bool
            Draw galaxies from the field, too, with the scatter that numbers in cells have in the simulations that the
            run was validated on, evenly within cells. Of a run that did not measure it they are Poisson numbers, with a
            note. They have velocities where the training measured how galaxies move about the dark matter, and the
            simulation has the velocities of its particles; else a note says so.
        seed : int
            Of that catalogue.
        tile : int, optional
            Cells per side predicted at once, a multiple of 8. As many on either side as the networks see are thrown
            away, but at most a quarter of the tile if that would leave less than a quarter of it. Without one the whole
            box where memory is enough, else the largest tile that memory holds.
        parameters : dict, optional
            Numbers that the networks are given in place of the simulation's own, e.g. ``{"Om0": 0.3}``.
        outside_domain : bool
            Go on where the simulation is not like those of the training, or has fewer particles than cells, with a
            note.
        output : str or Path, optional
            HDF5 file that is written as the box is predicted, for fields that do not fit into memory; the arrays of the
            result are then the file's datasets.
        overwrite : bool
            Replace `output` if it exists.

        Returns
        -------
        Galaxies

        Raises
        ------
        DomainError
            If the simulation is not like those of the training, or its particles are sparser than the cells.
        DataError
            If there is no final density, its box does not divide into cells of the run, or a parameter is not known.
        SettingError
            For both `round` and `catalogue`.
        """
        from kerasgal.apps.cascade import data, motion, predict
        from kerasgal.plotting import progress

        if seed and not catalogue:
            raise SettingError(f"seed={seed} is of drawn galaxies: it goes with catalogue=True", value=seed)
        if round and catalogue:
            raise SettingError("`round` and `catalogue` contradict each other: galaxies are drawn from the expected "
                               "numbers, not from rounded ones")
        check_given(self.config.names, parameters or {})
        moving = catalogue and self.motion is not None
        with self.asked(source, outside_domain, parameters, moving=moving, boxsize=boxsize, cosmology=cosmology,
                        redshift=redshift) as (simulation, notes):
            density, values = data.given(simulation, self.config, known=parameters, sparse=True)
            boxsize = simulation.boxsize
            header = {"boxsize": boxsize, "threshold": self.config.threshold, **self.told(simulation, parameters)}
            field = None
            if round:
                notes.append("numbers are rounded to whole ones: their sum is not the expected number of galaxies")
            if catalogue:
                header["seed"] = seed
                notes += self.unmeasured()
                still = self.unmoved(simulation)
                notes += still
                if not still:
                    field = density[..., 1:] if self.config.velocity else data.velocity(simulation, self.config.cell)

            def fill(arrays):
                def store(place, values):
                    arrays["probability"][place] = values[..., 0]
                    arrays["count"][place] = np.rint(values[..., 1]) if round else values[..., 1]

                with progress(display_name(source)) as tick:
                    predict.predict_field(self.network, density, self.config, parameters=values, tile=tile,
                                          store=store, progress=tick)
                if not catalogue:
                    return {}
                position = predict.draw_galaxies(arrays["count"], boxsize, self.scatter, seed)
                if field is None:
                    return {"galaxies/position": position}
                moving = motion.draw(position, density[:, :, :][..., 0], field, boxsize, self.motion, seed)
                return {"galaxies/position": position, "galaxies/velocity": moving}

            shapes = dict.fromkeys(("probability", "count"), density.shape[:3])
            return Galaxies.filled(self, source, shapes, fill, notes, output=output, overwrite=overwrite, **header)

    def evaluate(self, sources, *, compare=(), hod=None, tile=None, outside_domain=False, client=None):
        """Hold the run, and others, against galaxies that they never saw, beside boosted trees and halo models.

        Parameters
        ----------
        sources : path or Simulation, or list of them
            Simulations with a final density and galaxies, of one box size. Of one that a run was split by volume on,
            the test cube is used.
        compare : run folder or Cascade, or list of them
            Other runs, on the same cells.
        hod : str, Path or HOD, optional
            The halo model, or a file of one that `kerasgal cascade hod` wrote. Without it several are made of the
            simulations that the run was trained on: one fitted, others with galaxies counted in haloes.
        tile : int, optional
            See `predict`.
        outside_domain : bool
            Go on where a simulation is not like those of a training, with a note.
        client : distributed.Client, optional
            Of Dask, from `kerasgal.cluster.connect` or your own: its processes measure one simulation each. Numbers are
            the same as without.

        Returns
        -------
        Evaluation
            Its metrics have the truth, the runs by name, and the baselines apart.

        Raises
        ------
        UnseenError
            If one of the runs was trained or validated on one of them, or a given halo model made of one.
        """
        from kerasgal.apps.cascade.evaluate import evaluate

        others = [compare] if isinstance(compare, Run) else as_list(compare)
        return evaluate(self, to_judge_on(sources), compare=others, hod=hod, tile=tile, outside_domain=outside_domain,
                        client=client)

    def unseen(self, source, gridsize):
        """The part of a simulation that the run never saw, three slices; raises UnseenError where there is none."""
        from kerasgal.apps.cascade import data

        name, = names_of([source])
        split = ((name,), ())  # trained on this one alone, a part of which was left to test on
        places = [self.folder / phase for phase in self.phases] if self.folder is not None else ()
        if places and all(run_folder.recorded_data(place) == split
                          and not {name, run_folder.told_of(name)} & {*run_folder.seen_before(place)}
                          for place in places):
            return (slice(data.test_corner(gridsize, self.config.patch), None),) * 3
        self.check_unseen([source])
        return (slice(None),) * 3

    def served(self):
        density = "dark-matter density in units of its mean" + (
            ", velocity [km/s]" if self.config.velocity else
            ", and the channels of kerasgal.apps.cascade.finer" if self.config.finer else "")
        given = [density, "parameters: " + ", ".join(self.config.names)] if self.config.names else density
        return self.network, {"input": given,
                              "output": ["probability that the cell holds a galaxy", "expected number of galaxies"],
                              "cell": self.config.cell, "multiple": POOLINGS, "threshold": self.config.threshold}
