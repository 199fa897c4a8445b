"""A trained run of the diffusion model: galaxies drawn from the density of dark matter."""

import functools
import logging

import numpy as np

from kerasgal.apps.cascade.diffusion.config import APP, REGRESSOR, SAMPLERS, DiffusionConfig
from kerasgal.apps.cascade.run import Cascade, DensityRun
from kerasgal.conditioning import check_given, named
from kerasgal.errors import SettingError
from kerasgal.files import slabs
from kerasgal.run import Prediction, display_name, to_judge_on
from kerasgal.simulation import opened

AXES = "xyz"
# What an exported network is given, by whether it draws matter and by channels.
SERVED = {(False, 1): "density in units of its mean", (True, 1): "galaxies in each cell",
          (False, 2): "density in units of its mean, and galaxies that are expected in each cell"}

log = logging.getLogger(__name__)


class Draws(Prediction):
    """Galaxies that were drawn for a simulation, or dark matter, several times.

    A mapping of one array, as it stands in the file that `save` writes:

    ::

        count           galaxies in each cell, float32: (draws, n, n, n) of a box, or of the maps along an axis
                        (maps, draws, n, n)
        density         in its place where dark matter was drawn: in units of the mean
        attributes      app, run, source, kerasgal, boxsize [Mpc/h], axis and depth [cells] (of maps alone), steps,
                        sampler, seed, parameters (in words, where the run is given some), notes

    Its table says how many galaxies each draw has in all, or its mean density.
    """

    @property
    def matter(self):
        """Whether dark matter was drawn."""
        return "density" in self

    @property
    def drawn(self):
        """What was drawn."""
        return self["density" if self.matter else "count"]

    def columns(self):
        axes = (-2, -1) if "axis" in self.header else (-3, -2, -1)
        totals = np.concatenate([slab.sum(axis=axes, dtype=float) for slab in slabs(self.drawn)])
        place = np.indices(totals.shape).reshape(totals.ndim, -1)
        names = ("map", "draw") if totals.ndim == 2 else ("draw",)
        if self.matter:
            cells = np.prod([self.drawn.shape[axis] for axis in axes])
            return {**dict(zip(names, place)), "mean_density": totals.ravel() / cells}
        return {**dict(zip(names, place)), "galaxies": totals.ravel()}

    def plot(self, number=None, most=4):
        """Some draws of a map, by default that with most galaxies, or matter; of a box, a slab of it."""
        from kerasgal.apps.cascade.diffusion import figures

        if "axis" not in self.header:
            return figures.prediction(self.drawn[:most], self.header["boxsize"], matter=self.matter)
        number = int(self.drawn[...].sum(axis=(1, 2, 3)).argmax()) if number is None else number
        return figures.prediction(self.drawn[number, :most], self.header["boxsize"], self.header["axis"], self.matter)

    def words(self):
        counts, axis = self.drawn, self.header.get("axis")
        if axis is None:
            where, draws = f"a box of {counts.shape[-1]}^3", len(counts)
        else:
            where, draws = f"{len(counts)} maps along {axis} of {counts.shape[-1]}^2", counts.shape[1]
        if self.matter:
            return f"{draws} draws of dark matter for {where} cells, of {self.columns()['mean_density'].mean():.3g} " \
                   "times the mean density"
        return f"{draws} draws for {where} cells, {self.columns()['galaxies'].sum() / draws:.0f} galaxies in each"


class Diffusion(DensityRun):
    """A trained run of the diffusion model, which draws galaxies as they may stand given the dark matter.

    Or, trained with ``drawn="matter"``, the dark matter as it may lie given the galaxies, as Ono et al. 2024 do.

    Examples
    --------
    >>> import kerasgal as kg
    >>> run = kg.load("RUN")                                            # doctest: +SKIP
    >>> box = kg.simulate(particles=128, boxsize=75, seed=1)            # doctest: +SKIP
    >>> draws = run.predict(box, draws=8)                             # doctest: +SKIP
    >>> draws["count"].std(axis=1)                                      # doctest: +SKIP
    """

    app, Config = APP, DiffusionConfig
    parts = tuple(f"{REGRESSOR}/{phase}" for phase in Cascade.phases)
    limits = ("Not an uncertainty, unless the ranks of the truth among the draws are even. Not single galaxies: a "
              "draw is as they may stand, and no two draws agree; nor, where matter is drawn, single structures. Of "
              "painted galaxies nothing follows for the real connection of galaxies and matter.")
    label = "draws"

    @property
    def checked(self):
        """The features in which a simulation must be like those of the training."""
        return ("redshift_final", "galaxy_density", "drawn_of") if self.config.matter else super().checked

    @functools.cached_property
    def regressor(self):
        """The run of cascade whose expected galaxies the network is given, a `Cascade`, or None."""
        if not self.config.regressor:
            return None
        kept = self.folder / REGRESSOR if self.folder is not None else None
        return Cascade.load(kept if kept is not None and kept.exists() else self.config.regressor)

    def check_unseen(self, sources):
        """See `kerasgal.run.Run.check_unseen`; what the regressor was trained on is refused, too."""
        super().check_unseen(sources)
        if self.regressor:
            self.regressor.check_unseen(sources)

    def check_matter(self, simulation, outside_domain, parameters=None, *, moving=False):
        """Notes on what is given of a simulation: its dark matter, of which the regressor must know the like, too."""
        if self.config.matter:
            return []
        notes = super().check_matter(simulation, outside_domain, parameters)
        if self.regressor:
            from kerasgal.apps.cascade.diffusion import data

            features = self.regressor.features(simulation, data.known_to(self.regressor, parameters))
            said = self.regressor.check_domain(simulation, features, outside_domain=outside_domain) \
                + self.regressor.check_matter(simulation, outside_domain)
            notes += [f"the regressor: {note}" for note in said]
        return notes

    def features(self, source, parameters=None):
        from kerasgal.apps.cascade.diffusion import data

        with opened(source, ()) as simulation:
            return data.features(simulation, self.config) | named(simulation, self.config.names, parameters)

    @staticmethod
    def build(config, phase=""):
        from kerasgal.apps.cascade.diffusion.model import VariationalDiffusion

        return VariationalDiffusion.of(config)

    @classmethod
    def restored(cls, config, phase, folder):
        from kerasgal.apps.cascade.diffusion import calibration

        model = super().restored(config, phase, folder)
        model.calibration = calibration.read(folder)
        return model

    def unmeasured(self):
        """Notes, one where estimates are not put right, which is logged, too."""
        if self.config.matter or self.network.calibration is not None:
            return []
        note = f"{self.folder or 'this run'} did not measure what its estimates stand for: it draws too few galaxies"
        log.info(note)
        return [note]

    @classmethod
    def fit(cls, training, validation, config, folder, **options):
        from kerasgal.apps.cascade.diffusion.train import fit

        return fit(training, validation, config, folder, **options)

    def predict(self, source, *, boxsize=None, cosmology=None, redshift=None, draws=8, axis="z", steps=25,
                sampler="ancestral", seed=0, tile=None, parameters=None, outside_domain=False, output=None,
                overwrite=False):
        """Draw galaxies for a simulation from its dark matter, or dark matter from its galaxies.

        Parameters
        ----------
        source : str, Path, Simulation or array
            A Simulation with its final density or particles, or the density contrast itself, (n, n, n), on cells of the
            run. Where dark matter is drawn, a Simulation with galaxies.
        boxsize : float
            Side of the box of an array, Mpc/h.
        cosmology : Cosmology, optional
            Of an array; that of the training without one.
        redshift : float, optional
            Of an array.
        draws : int
            Draws for each map, or the box.
        axis : {"x", "y", "z"}
            Along which the maps are taken, all there are; of no meaning for boxes.
        steps : int
            Steps of the sampler.
        sampler : {"ancestral", "multistep", "deterministic"}
            With fresh noise in each step; the same to second order; or without noise.
        seed : int
            Of the noise.
        tile : int, optional
            Cells per side that pass through the network at once, as many on either side of which are thrown away as
            its convolutions see, see `Cascade.predict`. Without one the whole map or box where memory is enough, else
            the largest tile that memory holds.
        parameters : dict, optional
            Numbers that the network is given in place of the simulation's own, e.g. ``{"Om0": 0.3}``.
        outside_domain : bool
            Go on where the simulation is not like those of the training, or has fewer particles than cells, with a
            note.
        output : str or Path, optional
            HDF5 file that is written draw by draw; the arrays of the result are then the file's datasets.
        overwrite : bool
            Replace `output` if it exists.

        Returns
        -------
        Draws

        Raises
        ------
        DomainError
            If the simulation is not like those of the training, or its particles are sparser than the cells.
        DataError
            If there is no final density, its box does not divide into cells of the run, or a parameter is not known.
        """
        from kerasgal.apps.cascade.diffusion import data, sample
        from kerasgal.plotting import progress_bar

        config, flat = self.config, self.config.dimensions == 2
        check_sampling(draws, steps, sampler)
        if axis not in AXES or len(axis) != 1:
            raise SettingError(f"axis={axis!r}: accepted are x, y, z", value=axis, accepted=tuple(AXES))
        check_given(self.config.names, parameters or {})
        if config.matter and isinstance(source, np.ndarray):
            raise SettingError("this run draws dark matter given galaxies: it takes a Simulation with galaxies, "
                               "received an array of a density")
        with self.asked(source, outside_domain, parameters, boxsize=boxsize, cosmology=cosmology,
                        redshift=redshift) as (simulation, notes):
            notes += self.unmeasured()
            density, values = data.given(simulation, config, axes=(AXES.index(axis),), known=parameters, sparse=True,
                                         regressor=self.regressor)
            boxsize = simulation.boxsize
            said = {"boxsize": boxsize, "steps": steps, "sampler": sampler, "seed": seed,
                    **self.told(simulation, parameters)}
            if flat:
                said |= {"axis": axis, "depth": config.depth}
                notes += data.left_out(simulation, config)
        maps, grid = data.maps_of(density, config), density.shape[:config.dimensions]
        name = "density" if config.matter else "count"
        chosen = sample.tiles_for(self.network, config, grid, draws if flat else 1, tile)
        options = {"steps": steps, "sampler": sampler, "parameters": values, "layout": chosen}

        def fill(arrays):
            with progress_bar() as progress:
                task = progress.add_task(display_name(source), total=steps * (len(maps) if flat else draws))
                options["progress"] = lambda done, total: progress.advance(task)
                if flat:
                    for number, field in enumerate(maps):
                        arrays[name][number] = sample.draw(self.network, config, field, draws, seed=seed + number,
                                                           **options)
                    return {}
                for number in range(draws):  # one box at a time
                    drawn, = sample.draw(self.network, config, density, 1, first=number, seed=seed, **options)
                    arrays[name][number] = drawn
                return {}

        shape = (len(maps), draws, *grid) if flat else (draws, *grid)
        return Draws.filled(self, source, {name: shape}, fill, notes, output=output, overwrite=overwrite, **said)

    def evaluate(self, sources, *, regressor=None, hod=None, draws=16, maps=None, steps=25, sampler="ancestral",
                 seed=0, tile=None, study=False, outside_domain=False, client=None):
        """Hold draws against galaxies, or dark matter, that the run never saw, boosted trees and the halo model.

        Where the simulations of the training are still there, trees are fitted to them, and draws of some of their
        maps are compared, too. Galaxies that `kerasgal.simulate` painted are painted again, which says what is chance.

        Parameters
        ----------
        sources : path or Simulation, or list of them
            Simulations with a final density and galaxies, of one box size.
        regressor : run folder or Cascade, optional
            A run of cascade to compare with: catalogues drawn from its mean field, with its scatter.
        hod : str, Path or HOD, optional
            The halo model, or a file of one; see `Cascade.evaluate`.
        draws : int
            Draws for each map, or the box.
        maps : int, optional
            Maps of each simulation, along z; all without a number.
        steps, sampler, seed, tile
            See `predict`.
        study : bool
            Also draw with all samplers in few and many steps, and compare.
        outside_domain : bool
            Go on where a simulation is not like those of the training, with a note.
        client : distributed.Client, optional
            Of Dask, see `kerasgal.cluster.connect`: its processes then take one simulation each, which must be a file.

        Returns
        -------
        Evaluation
            Its metrics have the truth, the run by its name, and the baselines apart.

        Raises
        ------
        UnseenError
            If the run, or the regressor, was trained or validated on one of them, or a given halo model made of one.
        SettingError
            For a regressor or a halo model where dark matter is drawn.
        """
        from kerasgal.apps.cascade.diffusion.evaluate import evaluate

        if self.config.matter and (regressor is not None or hod is not None):
            raise SettingError("`regressor` and `hod` make galaxies, and this run draws dark matter: leave them out")
        check_sampling(draws, steps, sampler, fewest=2)
        return evaluate(self, to_judge_on(sources), regressor=regressor, hod=hod, draws=draws, most=maps, study=study,
                        options={"steps": steps, "sampler": sampler, "seed": seed, "tile": tile},
                        outside_domain=outside_domain, client=client)

    def served(self, steps=20):
        from kerasgal.apps.cascade.diffusion.sample import sampler_model

        config = self.config
        given = [SERVED[config.matter, config.channels], "standard normal noise",
                 *(["parameters: " + config.parameters] if config.names else [])]
        drawn = "density in units of its mean" if config.matter else "galaxies in each cell"
        return sampler_model(self.network, steps), {
            "input": given, "output": drawn, "cell": config.cell, "multiple": 2**config.levels,
            "steps": steps, **({"depth": config.depth} if config.dimensions == 2 else {})}

    def export(self, directory=None, overwrite=False, *, steps=20):
        """Write network and deterministic sampler in one, as a TensorFlow SavedModel; see `kerasgal.run.Run.export`.

        Parameters
        ----------
        directory, overwrite
            See `kerasgal.run.Run.export`.
        steps : int
            Steps of the sampler, which is in the graph.

        Returns
        -------
        Path
            The folder.
        """
        return super().export(directory, overwrite, steps=steps)


def check_sampling(draws, steps, sampler, fewest=1):
    """Raise SettingError for what a sampler does not accept."""
    for name, value, least in (("draws", draws, fewest), ("steps", steps, 1)):
        if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
            raise SettingError(f"{name}={value!r}: it must be a whole number of at least {least}", value=value,
                               accepted=(least, None))
    if sampler not in SAMPLERS:
        raise SettingError(f"sampler={sampler!r}: accepted are {', '.join(SAMPLERS)}", value=sampler, accepted=SAMPLERS)
