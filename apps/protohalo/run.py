"""A trained run of protohalo: haloes from the initial density (Bernardini et al. 2020)."""

from pathlib import Path

import numpy as np

from kerasgal import run_folder
from kerasgal.apps.protohalo.config import APP, TrainConfig
from kerasgal.conditioning import check_given, named, parameter_names
from kerasgal.domain import of_box
from kerasgal.errors import RunError, SettingError
from kerasgal.run import Prediction, Run, display_name

WATERSHEDS = ("adaptive", "native")
CALIBRATION = "calibration.json"


class Haloes(Prediction):
    """The haloes that are predicted for a simulation.

    A mapping of arrays, as they stand in the file that `save` writes:

    ::

        distance        (n, n, n) predicted distance map
        halo_id         (n, n, n) row of /halos of every Lagrangian cell, -1 for none
        halos/...       halo_id, cells, mass [Msun/h], position (Lagrangian, Mpc/h), peak; and where they end, if the
                        source says its redshift: final_position [Mpc/h], velocity [km/s]
        mass_function/  mass_edges [Msun/h], differential dn/dlog10 M and its error [(h/Mpc)^3 per decade],
                        cumulative n(> lower edge) [(h/Mpc)^3]
        attributes      app, run, source, boxsize [Mpc/h], cell_mass [Msun/h], watershed, notes; where it is known
                        where they end, of that redshift, Om0 and h; and of a network that is given some, parameters,
                        in words

    Attributes
    ----------
    naming : {None, "halotools", "rockstar"}
        Whose names and units the table's columns have; see the `columns` of `Protohalo.predict`.
    """

    naming = None
    _units = {"mass": "Msun/h", "x": "Mpc/h", "y": "Mpc/h", "z": "Mpc/h", "position": "Mpc/h",
              "final_position": "Mpc/h", "velocity": "km/s"}

    @property
    def distance(self):
        """The predicted distance map, (n, n, n) float32."""
        return self["distance"]

    @property
    def halo_id(self):
        """Row of the table of every Lagrangian cell, (n, n, n) int32, -1 for none."""
        return self["halo_id"]

    @property
    def units(self):
        """Of the table's columns."""
        from kerasgal.apps.protohalo.catalogues import UNITS

        return UNITS[self.naming] if self.naming else self._units

    @property
    def table(self):
        """The catalogue as an astropy QTable with units, under the names of `naming`; the header stands in `meta`."""
        table = super().table
        if self.naming:
            from kerasgal.apps.protohalo.catalogues import header

            table.meta.update(header(self, self.naming))
        return table

    def save(self, path, overwrite=False):
        """Write it: all arrays as HDF5, its table, or as Rockstar writes its own (.list); see `Prediction.save`."""
        if Path(path).suffix != ".list":
            return super().save(path, overwrite)
        from kerasgal.apps.protohalo.catalogues import write_rockstar

        return write_rockstar(path, self, overwrite)

    def columns(self):
        if self.naming:
            from kerasgal.apps.protohalo.catalogues import columns

            return columns(self, self.naming)
        columns = {name.removeprefix("halos/"): values for name, values in self.arrays.items()
                   if name.startswith("halos/")}
        return {**columns, **dict(zip("xyz", columns["position"].T))}

    def plot(self, layer=None):
        """A slice through the distance map and the haloes.

        Parameters
        ----------
        layer : int, optional
            Cell along z; the middle one without.

        Returns
        -------
        matplotlib.figure.Figure
        """
        from kerasgal.apps.protohalo import figures

        layer = len(self.distance) // 2 if layer is None else layer
        return figures.prediction(self.distance, self.halo_id, self.header["boxsize"], layer)

    def words(self):
        mass = self["halos/mass"]
        largest = f", the largest of {mass[0]:.3g} Msun/h" if len(mass) else ""
        return f"{len(mass)} haloes{largest}; distance map, labels, catalogue, mass function"


class Protohalo(Run):
    """A trained run of protohalo.

    Examples
    --------
    >>> import kerasgal as kg
    >>> run = kg.load("RUN")                              # doctest: +SKIP
    >>> box = kg.simulate(particles=64, boxsize=50)       # doctest: +SKIP
    >>> haloes = run.predict(box)                         # doctest: +SKIP
    >>> haloes.table["mass"].max()                        # doctest: +SKIP
    """

    app, Config, stores = APP, TrainConfig, True
    limits = ("Not the fate of a single halo: see how many are found one to one, and how far the masses of cells "
              "scatter. Not that more cannot be known: `ceiling` shows what the large waves determine. Not two-"
              "point statistics, before the bias of these haloes has been looked at. In the highest bins a box has "
              "few haloes, and chance decides.")
    checked = ("cellsize", "redshift_final")  # the initial redshift is divided out with the deviation

    def __init__(self, config, networks=None, *, line=None, **options):
        super().__init__(config, networks, **options)
        self.line = line

    @staticmethod
    def build(config, phase=""):
        from kerasgal.apps.protohalo.predict import build

        return build(config)

    @classmethod
    def load(cls, run):
        from kerasgal.apps.protohalo.watershed import Line

        made = super().load(run)
        path = made.folder / CALIBRATION
        if not path.exists():
            raise RunError(f"{run} has no {CALIBRATION}: its training did not come to an end; go on with resume=True")
        try:
            made.line = Line(**run_folder.read_json(path))
        except TypeError as error:
            raise RunError(f"{path} has no line of the cut: {error}") from error
        return made

    @classmethod
    def fit(cls, training, validation, config, folder, **options):
        from kerasgal.apps.protohalo.train import fit

        return fit(training, validation, config, folder, **options)

    def predict(self, source, *, boxsize=None, cosmology=None, redshift=None, watershed="adaptive", tile=None,
                context=None, columns=None, parameters=None, outside_domain=False):
        """Predict haloes from an initial density.

        Parameters
        ----------
        source : str, Path, Simulation or array
            A Simulation with an initial density, or this itself: the density contrast, (n, n, n), of any amplitude.
        boxsize : float
            Side of the box of an array, Mpc/h.
        cosmology : Cosmology, optional
            Of an array; that of the training without one.
        redshift : float, optional
            Of the initial density in an array.
        watershed : {"adaptive", "native"}
            Cut regions on the calibrated line, or keep them whole.
        tile : int, optional
            Cells per side predicted at once, context included; without one the whole box where memory is enough, else
            the largest that memory holds.
        context : int, optional
            Cells of a tile's border that are thrown away; without one as many as the network sees, but at most a
            quarter of the tile if that would leave less than a quarter of it.
        columns : {None, "halotools", "rockstar"}
            Give the table the names and units of that code, with the haloes where they end.
        parameters : dict, optional
            Numbers that the network is given in place of the simulation's own, e.g. ``{"Om0": 0.3}``.
        outside_domain : bool
            Go on where the simulation is not like those of the training, with a note.

        Returns
        -------
        Haloes

        Raises
        ------
        DomainError
            If the simulation is not like those of the training.
        DataError
            If there is no initial density, or one that is not finite or no contrast, or a parameter is not known.
        """
        from kerasgal.apps.protohalo import predict
        from kerasgal.apps.protohalo.catalogues import check_naming, ends_unknown
        from kerasgal.apps.protohalo.final import final_haloes
        from kerasgal.apps.protohalo.watershed import catalogue
        from kerasgal.plotting import progress

        check_naming(columns)
        if watershed not in WATERSHEDS:
            raise SettingError(f"watershed={watershed!r}: accepted are {', '.join(WATERSHEDS)}", value=watershed,
                               accepted=WATERSHEDS)
        names, parameters = parameter_names(self.config), parameters or {}
        check_given(names, parameters)
        with self.given(source, boxsize=boxsize, cosmology=cosmology, redshift=redshift,
                        parameters=parameters) as (simulation, notes):
            delta, values = simulation.delta(), named(simulation, names, parameters)
            features = of_box(simulation, "initial/delta", deviation=delta.std()) | values
            notes += self.check_domain(source, features, outside_domain=outside_domain)
            boxsize, cell_mass, said = simulation.boxsize, simulation.cell_mass, self.told(simulation, parameters)
            times = self.times(simulation)
            if columns and not times:
                raise ends_unknown(display_name(source), columns)
        with progress(display_name(source)) as tick:
            distance = predict.predict_distance(self.network, self.config, delta, boxsize, tile=tile, context=context,
                                                parameters=tuple(values.values()), progress=tick)
        line = self.line if watershed == "adaptive" else None
        halo_id = predict.find_haloes(distance, self.config, line)
        haloes = catalogue(halo_id, distance, boxsize, cell_mass)
        if times:
            said |= {"redshift": times[2], "Om0": times[0].Om0, "h": times[0].h}
            haloes["final_position"], haloes["velocity"] = final_haloes(halo_id, haloes["position"], delta, boxsize,
                                                                        *times)
        else:
            notes.append("where the haloes end is left out: the redshift of the initial density is not said")
        arrays = {"distance": distance, "halo_id": halo_id,
                  **{f"halos/{name}": values for name, values in haloes.items()},
                  **mass_functions(haloes["mass"], self.config.minimum * cell_mass, boxsize)}
        made = Haloes(self, source, arrays, notes, boxsize=boxsize, cell_mass=cell_mass, watershed=watershed, **said)
        made.naming = columns
        return made

    def times(self, simulation):
        """Cosmology, and redshifts of an initial density and of the run's haloes; None if not all are known."""
        final, own = self.domain.get("redshift_final") if self.domain else None, simulation.redshift_final
        if final:  # the simulation's own, as far as the run was trained on it
            own = np.clip(own, *final) if np.isfinite(own) else sum(final) / 2
        redshifts = simulation.redshift_initial, float(own)
        if "cosmology" not in simulation or not np.isfinite(redshifts).all():
            return None
        return simulation.cosmology, *redshifts

    def evaluate(self, sources, *, ceiling=(), outside_domain=False, client=None):
        """Hold the run against simulations that it never saw: mass function, cell masses, haloes one to one.

        Beside the adaptive watershed stand the native one and peaks that collapse as spheres or ellipsoids.

        Parameters
        ----------
        sources : path or Simulation, or list of them
            Simulations with an initial density and haloes.
        ceiling : path or Simulation, or list of them
            A twin of each: a simulation that shares the waves the network sees, and no smaller ones, stands beside the
            predictions as the best that these waves allow; see `kerasgal.simulate`.
        outside_domain : bool
            Go on where one is not like those of the training, with a note.
        client : distributed.Client, optional
            Of Dask, from `kerasgal.cluster.connect` or your own: its processes measure one simulation each. Numbers are
            the same as without.

        Returns
        -------
        Evaluation

        Raises
        ------
        UnseenError
            If the run was trained or validated on one of them.
        DataError
            If a simulation has no twin among those given, or one is no twin of any.
        """
        from kerasgal.apps.protohalo.evaluate import evaluate

        return evaluate(self, sources, ceiling=ceiling, outside_domain=outside_domain, client=client)

    def served(self):
        from kerasgal.channel_names import WORDS, names_of, vector_of
        from kerasgal.tiling import mirrored_network

        names, given = names_of(self.config.channels), list(parameter_names(self.config))
        description = {"input": "density contrast / its standard deviation over the whole box"
                       if names == ("density",) else f"{'; '.join(WORDS[name] for name in names)}: all of the density "
                       "contrast / its standard deviation over the whole box, by linear theory",
                       **({"parameters": given} if given else {}),
                       "output": "normalised distance map, 1 at halo centres, 0 outside",
                       "multiple": 2**self.config.levels, "minimum_cells": self.config.minimum,
                       "cut": {"volume": self.line.volume, "distance": self.line.distance}}
        network = mirrored_network(self.network, vector_of(names)) if self.config.mirrored else self.network
        return network, description


def mass_functions(mass, least, boxsize):
    """The mass function of haloes of at least a mass [Msun/h], differential and cumulative, as a file has them."""
    from kerasgal.statistics import mass_bins, mass_function

    edges = mass_bins(least, max(mass.max(initial=0), 2 * least))
    differential, error = mass_function(mass, edges, boxsize**3)
    cumulative = np.array([(mass >= edge).sum() for edge in edges[:-1]]) / boxsize**3
    return {"mass_function/mass_edges": edges, "mass_function/differential": differential,
            "mass_function/error": error, "mass_function/cumulative": cumulative}
