"""A trained run of halomass: halo masses from the density around particles (Lucie-Smith et al. 2020)."""

import numpy as np

from kerasgal import run_folder, workers
from kerasgal.apps.halomass.config import APP, TrainConfig
from kerasgal.conditioning import check_given, parameter_names
from kerasgal.errors import DataError, SettingError
from kerasgal.run import Prediction, Run, display_name


class Masses(Prediction):
    """Predicted masses of the haloes in which particles end.

    A mapping of columns, one row per particle, as they stand in the file that `save` writes:

    ::

        particle        number (x * n + y) * n + z of the particle
        log_mass_true   log10 mass of its halo [Msun/h], NaN outside haloes and where the haloes are not known
        log_mass        log10 mass that the network says [Msun/h]
        log_mass_p025   the 2.5% quantile of its predictive distribution, log10 [Msun/h]; likewise
        ..._p16, _p50, _p84, _p975
        attributes      app, run, source, kerasgal, boxsize [Mpc/h], unit (of all these columns), like (the
                        likelihood), scale0 ... (its scales, in the rescaled mass), low and high (range of log10 mass
                        in which the run predicts), notes; and of a network that is given some, parameters, in words

    HDF5 has a dataset for each column. The `table`, and so a table file, has `mass` [Msun/h] beside them.
    """

    units = {"mass": "Msun/h"}

    def columns(self):
        return {**self.arrays, "mass": 10 ** self["log_mass"]}

    def plot(self):
        """Predicted against true mass with the central 68%, or the predicted masses where the truth is not known."""
        from kerasgal.apps.halomass import figures

        return figures.masses(self, self.header["low"], self.header["high"])

    def words(self):
        return f"predicted log10 halo mass and its quantiles for {len(self['particle']):,} particles"


class MassMap(Prediction):
    """The predicted halo mass of every Lagrangian cell, were its particle to end in a halo of the run's range.

    A mapping of one array, as it stands in the file that `save` writes:

    ::

        log_mass        (n, n, n) log10 mass [Msun/h]
        attributes      app, run, source, kerasgal, boxsize [Mpc/h], unit, notes; parameters as of `Masses`

    The `table` has a row for every cell: `cell`, (x * n + y) * n + z, `log_mass`, and `mass` [Msun/h].
    """

    units = {"mass": "Msun/h"}

    def columns(self):
        log_mass = self["log_mass"][...].ravel()
        return {"cell": np.arange(log_mass.size), "log_mass": log_mass, "mass": 10.0 ** log_mass}

    def plot(self, layer=None):
        """A slice through the map; layer: cell along z, the middle one if not given."""
        from kerasgal.apps.halomass import figures

        layer = len(self["log_mass"]) // 2 if layer is None else layer
        return figures.mass_map(self["log_mass"][...], self.header["boxsize"], layer)

    def words(self):
        return f"predicted log10 halo mass of {self['log_mass'].size:,} cells"


class HaloMass(Run):
    """A trained run of halomass.

    What a simulation is compared by with those of the training is the cells of the initial density, its redshift and
    its standard deviation, for the network sees the amplitude as it is, and the redshift of the haloes. A run of
    ``input="final"`` sees particles: how far they are apart, and at which redshift.

    Examples
    --------
    >>> import kerasgal as kg
    >>> run = kg.load("RUN")                              # doctest: +SKIP
    >>> box = kg.simulate(particles=64, boxsize=50)       # doctest: +SKIP
    >>> masses = run.predict(box, sample=1000)            # doctest: +SKIP
    >>> masses.table["mass"].max()                        # doctest: +SKIP
    """

    app, Config, stores = APP, TrainConfig, True
    limits = ("Not what the density determines: numbers say what this network reads of it, after this training, in "
              "these cells and this range of masses; `ceiling` shows what there is to be read. Not that one input "
              "says more than another where they differ by less than their errors, which are of haloes and not of "
              "seeds. A mass is that of the halo if the particle ends in one of the range: whether it does is not "
              "said.")
    suffixes = (".h5", ".ecsv", ".fits", ".csv", ".parquet")
    streams = True

    @property
    def checked(self):
        """Features of the domain that must be alike."""
        if self.config.input == "final":
            return ("spacing", "redshift_final")
        return ("cellsize", "redshift_initial", "redshift_final", "deviation")

    @staticmethod
    def build(config, phase=""):
        from kerasgal.apps.halomass.predict import build

        return build(config)

    @classmethod
    def fits(cls, grids, config):
        from kerasgal.apps.halomass import data

        return config.input == "final" or data.odd_side(data.cube_side(config)) <= min(grids)

    @classmethod
    def restored(cls, config, phase, folder):
        from kerasgal.apps.halomass.compress import COMPRESSED
        from kerasgal.apps.halomass.predict import build

        left = run_folder.read_json(folder / COMPRESSED)  # empty where the run was not compressed
        with workers.arithmetic("float32"):
            return run_folder.load_weights(build(config, left.get("kept"), left.get("dense")), folder)

    @classmethod
    def fit(cls, training, validation, config, folder, **options):
        from kerasgal.apps.halomass.train import fit

        return fit(training, validation, config, folder, **options)

    def in_precision(self, precision):
        """Its network in another arithmetic, "mixed_bfloat16" or "mixed_float16", or itself for "float32"."""
        from kerasgal.apps.halomass import compress, predict

        predict.check_precision(precision)
        if precision == "float32":
            return self.network
        with workers.arithmetic(precision):
            network = predict.build(self.config, **compress.left_of(self.network))
        network.set_weights(self.network.get_weights())
        return network

    def predict(self, source, *, particles=None, sample=None, seed=None, map=False, boxsize=None, cosmology=None,
                redshift=None, precision="float32", parameters=None, outside_domain=False, output=None,
                overwrite=False):
        """Predict the masses of the haloes in which particles end.

        By default of all particles in haloes within the run's range of masses.

        Parameters
        ----------
        source : str, Path, Simulation or array
            A Simulation, or for a run that sees the initial density this itself: the density contrast, (n, n, n), with
            its amplitude. An array has no haloes: it needs `particles` or `map`.
        particles : array of int, str or Path, optional
            Numbers (x * n + y) * n + z of the particles, or a text file of them, one per line.
        sample : int, optional
            So many particles at random from haloes in the run's range of masses.
        seed : int, optional
            Of `sample`; 0 without one.
        map : bool
            Predict every cell of the box, at once or, where memory does not hold the layers of the network for it, tile
            by tile; for runs of ``padding="none"`` or ``input="multipoles"``.
        boxsize : float
            Side of the box of an array, Mpc/h.
        cosmology : Cosmology, optional
            Of an array; that of the training without one.
        redshift : float, optional
            Of the initial density in an array; that of the training without one.
        precision : {"float32", "mixed_bfloat16", "mixed_float16"}
            Arithmetic of the network; float16 needs a GPU.
        parameters : dict, optional
            Numbers that the network is given in place of the simulation's own, e.g. ``{"Om0": 0.3}``.
        outside_domain : bool
            Go on where the simulation is not like those of the training, with a note.
        output : str or Path, optional
            HDF5 file to write, a map as it is predicted, for one that does not fit into memory; its array is then the
            file's dataset.
        overwrite : bool
            Replace `output` if it exists.

        Returns
        -------
        Masses or MassMap

        Raises
        ------
        DomainError
            If the simulation is not like those of the training.
        DataError
            If what the run sees is missing or not finite, a particle is not there, a parameter is not known, or the box
            is too small.
        """
        from kerasgal.apps.halomass import data, dense, multipoles
        from kerasgal.apps.halomass.predict import choose, predict_particles
        from kerasgal.plotting import progress

        if (particles is not None) + (sample is not None) + bool(map) > 1:
            raise SettingError("`particles`, `sample` and `map` contradict each other: give one of them")
        check_whole(sample=(sample, 1), seed=(seed, 0))
        if seed is not None and sample is None:
            raise SettingError(f"seed={seed}: it is that of `sample`, which is not given", value=seed)
        check_given(parameter_names(self.config), parameters or {})
        if isinstance(source, np.ndarray):
            self.check_array(particles is not None or map)
        if map and self.config.input != "multipoles":
            dense.check_padding(self.config)
        network = self.in_precision(precision)
        require = data.required(self.config)
        with self.given(source, require=require, boxsize=boxsize, cosmology=cosmology, redshift=redshift,
                        parameters=parameters) as (simulation, notes):
            if not map:
                particles = choose(simulation, self.config, particles, sample, seed or 0)
            notes += self.check_domain(source, data.features(simulation, self.config, parameters),
                                       outside_domain=outside_domain)
            header = {"boxsize": simulation.boxsize, "unit": "log10 Msun/h", **self.told(simulation, parameters)}
            with progress(display_name(source)) as tick:
                if map:
                    def fill(arrays):
                        store = arrays["log_mass"].__setitem__
                        if self.config.input == "multipoles":
                            store(..., multipoles.predict_map(network, self.config, simulation, tick, parameters))
                        else:
                            dense.predict_map(network, self.config, simulation, known=parameters, store=store,
                                              progress=tick)
                        return {}

                    return MassMap.filled(self, source, {"log_mass": (simulation.gridsize,) * 3}, fill, notes,
                                          output=output, overwrite=overwrite, **header)
                found = predict_particles(network, self.config, simulation, particles, tick, parameters)
        masses = self.masses(source, found, notes, header)
        if output is not None:
            masses.save(output, overwrite=overwrite)
        return masses

    def masses(self, source, found, notes, header):
        """The `Masses` of what `predict_particles` found."""
        from kerasgal.apps.halomass.distribution import mass_quantiles
        from kerasgal.apps.halomass.predict import QUANTILES

        quantiles = mass_quantiles(self.config, found["y"], found["gamma"], list(QUANTILES.values()))
        columns = {name: found[name] for name in ("particle", "log_mass_true", "log_mass")}
        scales = {f"scale{i}": float(value) for i, value in enumerate(np.atleast_1d(found["gamma"]))}
        return Masses(self, source, {**columns, **dict(zip(QUANTILES, quantiles.T))}, notes, **header,
                      like=self.config.likelihood, **scales, low=self.config.low, high=self.config.high)

    def check_array(self, says_where):
        """Raise an error if an array is not enough for what is asked."""
        if self.config.input == "final":
            raise DataError("this run sees final particles (input=final), which an array of a density does not have: "
                            "give a Simulation")
        if not says_where:
            raise SettingError("an array has no haloes from which particles could be taken: give `particles`, or "
                               "map=True")

    def evaluate(self, sources, *, compare=(), baseline=False, ceiling=(), sample=4000, outside_domain=False,
                 client=None):
        """Compare the run with others and with the truth, on simulations that none of them saw.

        Residuals by mass and by place in the halo, correlation, the Kullback-Leibler divergence between the residuals
        of each two predictions with its bootstrap error, and the calibration of the predictive distributions.

        Parameters
        ----------
        sources : path or Simulation, or list of them
            Simulations with haloes and what the runs see.
        compare : run folder or HaloMass, or list of them
            Other runs, of the same range of masses.
        baseline : bool
            Also fit boosted trees to the particles that this run was trained on.
        ceiling : path or Simulation, or list of them
            A twin of each simulation, which shares its large waves: the mass that a particle has there stands beside
            the predictions as what these waves determine; see `kerasgal.simulate`.
        sample : int
            So many particles at random from each simulation.
        outside_domain : bool
            Go on where one is not like those of a run's training, with a note.
        client : distributed.Client, optional
            Of Dask, from `kerasgal.cluster.connect` or your own: its processes measure one simulation each. Numbers are
            the same as without.

        Returns
        -------
        Evaluation
            Its metrics have a row for each run under "runs", by the name of its folder, and under "baselines" what
            runs are held against: "boosted trees", "twin", "mean" and "random".

        Raises
        ------
        UnseenError
            If one of the runs was trained or validated on one of the simulations.
        DomainError
            If a simulation is not like those of a run's training.
        DataError
            If a simulation has no twin among those given, or one is no twin of any.
        """
        from kerasgal.apps.halomass.evaluate import evaluate

        check_whole(sample=(sample, 1))
        return evaluate(self, sources, compare=compare, baseline=baseline, ceiling=ceiling, sample=sample,
                        outside_domain=outside_domain, client=client)

    def baseline(self, sources, *, sample=4000, outside_domain=False):
        """Hold boosted trees against simulations, fitted to the particles that the run was trained on.

        They read the initial density averaged over spheres of 50 radii around a particle (needs kerasgal[baseline]).
        The network takes no part.

        Parameters
        ----------
        sources, sample, outside_domain
            See `evaluate`.

        Returns
        -------
        Evaluation
        """
        from kerasgal.apps.halomass.evaluate import evaluate

        check_whole(sample=(sample, 1))
        return evaluate(self, sources, network=False, baseline=True, sample=sample, outside_domain=outside_domain)

    def compress(self, output=None, overwrite=False):
        """Write the run without its dead neurons into another run folder, and return that run.

        Dead is a neuron of the dense layers if no weight that leaves it exceeds 1e-3.

        Parameters
        ----------
        output : str or Path, optional
            Run folder to write; `compressed` in the run folder without one.
        overwrite : bool
            Replace an earlier one.

        Returns
        -------
        HaloMass

        Raises
        ------
        ExistsError
            If the folder exists.
        RunError
            If it is to be replaced and is no run folder of halomass.
        """
        from kerasgal.apps.halomass.compress import compress

        return compress(self, output, overwrite)

    def served(self):
        from kerasgal.apps.halomass.data import input_words
        from kerasgal.apps.halomass.losses import LIKELIHOODS

        config = self.config
        given = list(parameter_names(config))
        description = {"input": input_words(config), "shape": list(self.network.inputs[0].shape[1:]),
                       **({"parameters": given} if given else {}),
                       "output": ["y", *LIKELIHOODS[config.likelihood].names], "likelihood": config.likelihood,
                       "log10_mass": f"{config.low:g} + (y + 1) / 2 * {config.high - config.low:g}"}
        return self.network, description


def check_whole(**arguments):
    """Raise SettingError unless each argument, name=(value, least), is None or a whole number of at least `least`."""
    for name, (value, least) in arguments.items():
        whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
        if value is not None and not (whole and value >= least):
            raise SettingError(f"{name}={value!r}: it must be a whole number of at least {least}", value=value,
                               accepted=(least, None))
