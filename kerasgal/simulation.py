"""The Simulation file: one HDF5 schema for a simulation, as the three-dimensional apps need it::

    /                      attributes: format, version, boxsize [Mpc/h], redshift_initial, redshift_final,
                           particle_mass [Msun/h], source (where it came from, in words); optional: density_of (what
                           /final/delta is the density of: "dark matter", "all matter", "gas" or "stars"), window
                           (by which particles were put on the grid of /final/delta: "ngp", "cic" or "tsc"),
                           particles_per_cell (of these, in the mean), finder (of the haloes, in words), minimum
                           (fewest particles of a halo)
    /cosmology             attributes: Om0, Ob0, h, ns, sigma8
    /parameters            optional; attributes: further numbers that the simulation was run with, such as the
                           strength of feedback, under any names
    /initial/delta         (n, n, n)     linear density contrast at redshift_initial on the Lagrangian grid; may be
                                         missing where /final/delta is there
    /initial/displacement  (n, n, n, 3)  optional: initial displacement from the lattice [Mpc/h]
    /initial/velocity      (n, n, n, 3)  optional: initial peculiar velocity [km/s]
    /final/position        (n^3, 3)      optional: final comoving position of every particle [Mpc/h]
    /final/velocity        (n^3, 3)      optional: final peculiar velocity of every particle [km/s]
    /final/delta           (m, m, m)     optional: density contrast at redshift_final
    /halo_id               (n, n, n)     optional: row of /halos in which each particle ends, -1 for none; may be
                                         missing where there are haloes and /initial/delta is not
    /halos/mass            (h,)          [Msun/h], in descending order
    /halos/position        (h, 3)        centre at redshift_final [Mpc/h]
    /halos/radius          (h,)          [Mpc/h]
    /halos/count           (h,)          particles
    /halos/velocity        (h, 3)        optional: peculiar velocity [km/s]
    /halos/initial_position  (h, 3)      optional: centre of its matter before it moved [Mpc/h]
    /galaxies/position     (g, 3)        optional: [Mpc/h]; any further columns have g rows
    /galaxies/halo         (g,)          optional: row of /halos in which each galaxy is, -1 for none
    /galaxies/central      (g,)          optional: 1 for the galaxy at the centre of its halo, 0 for a satellite
    /galaxies/velocity     (g, 3)        optional: peculiar velocity [km/s]
    /galaxies/count        (m, m, m)     optional: galaxies in each cell of the grid of /final/delta

Particle i and Lagrangian cell i are the same index, in C order: cell (x, y, z) of the grid is particle
(x * n + y) * n + z, and its unperturbed position is (x + 1/2, y + 1/2, z + 1/2) * boxsize / n. Lengths are comoving.
`halo_id` may have k times as many cells a side as `delta` (particles finer than the density grid).
"""

import contextlib
import os
from pathlib import Path

import numpy as np

from kerasgal.domain import COSMOLOGY
from kerasgal.errors import DataError, MissingError, SettingError
from kerasgal.files import CheckedFile, check_room, datasets, replacing, slabs

FORMAT = "kerasgal simulation"
VERSION = 1
HALO_COLUMNS = ("mass", "position", "radius", "count")
CONTRASTS = ("initial/delta", "final/delta")
POSITIONS = ("final/position", "halos/position", "halos/initial_position", "galaxies/position")
HDF5_OVERHEAD = 2**16  # bytes of a file beside its arrays, amply
SUFFIXES = (".h5", ".hdf5")
HEADER = ("boxsize", "redshift_initial", "redshift_final", "particle_mass")
CUBES = ("initial/delta", "final/delta", "halo_id", "galaxies/count")
# By letters, lengths that must be one and the same in a file.
SHAPES = {
    "initial/delta": ("n", "n", "n"),
    "initial/displacement": ("n", "n", "n", 3), "initial/velocity": ("n", "n", "n", 3),
    "final/position": ("p", 3), "final/velocity": ("p", 3), "final/delta": ("m", "m", "m"), "halo_id": ("k", "k", "k"),
    "halos/mass": ("h",), "halos/position": ("h", 3), "halos/radius": ("h",), "halos/count": ("h",),
    "halos/velocity": ("h", 3), "halos/initial_position": ("h", 3), "galaxies/position": ("g", 3),
    "galaxies/halo": ("g",), "galaxies/central": ("g",), "galaxies/velocity": ("g", 3),
    "galaxies/count": ("c", "c", "c"),
}


class Simulation(CheckedFile):
    """A Simulation file opened for reading, or one in memory.

    Arrays are HDF5 datasets, read only where they are sliced: ``simulation["halo_id"][:10]``. A file is closed by
    ``close`` or at the end of a ``with`` block.

    Parameters
    ----------
    path : str or Path
        The file.
    require : sequence of str
        Datasets that must be there.

    Attributes
    ----------
    path : Path or str
        The file, or words for what is in memory.
    file : h5py.File
        What is read from.

    Raises
    ------
    DataError
        If the file is missing, is not HDF5, is not a Simulation file or lacks what is required.

    Examples
    --------
    >>> import kerasgal as kg
    >>> box = kg.simulate(particles=16, boxsize=12.5, seed=1)
    >>> box["initial/delta"].shape
    (16, 16, 16)
    >>> box.save("box.h5")
    >>> with kg.Simulation("box.h5") as simulation:
    ...     print(simulation.boxsize, simulation.keys()[0])
    12.5 final/position
    """

    def __init__(self, path, require=("initial/delta",)):
        super().__init__(path, require)

    @classmethod
    def from_file(cls, file, name, require=()):
        """The simulation in an open HDF5 file, such as one in memory; name: what errors call it."""
        return super().from_file(file, name, require)

    @property
    def in_memory(self):
        """Whether it is in memory, and no file on the disk."""
        return isinstance(self.path, str)

    def save(self, path, overwrite=False):
        """Write it as a Simulation file, whole or not at all.

        Parameters
        ----------
        path : str or Path
            File to write, .h5 or .hdf5.
        overwrite : bool
            Replace the file if it exists.

        Raises
        ------
        ExistsError
            If the file exists.
        SettingError
            For another suffix.
        """
        import h5py

        path = check_suffix(path)
        check_room(path, sum(self.file[name].nbytes for name in self.keys()) + HDF5_OVERHEAD)
        with replacing(path, overwrite) as temporary, h5py.File(temporary, "w") as file:
            file.attrs.update(self.file.attrs)
            for name in self.file:
                self.file.copy(name, file)

    def close(self):
        """Close the file; what is in memory is gone."""
        self.file.close()

    def __repr__(self):
        if not self.file:
            return f"<Simulation {self.path}, closed>"
        grid = f"{self.gridsize}^3 cells, " if "initial/delta" in self else ""
        return (f"<Simulation {self.path}: {grid}{self.boxsize:g} Mpc/h, redshift {self.redshift_initial:g} to "
                f"{self.redshift_final:g}\n holding {', '.join(self.keys())}>")

    def _check(self, require):
        attributes = self.file.attrs
        if attributes.get("format") != FORMAT:
            raise DataError(f"{self.path} is not a Simulation file (no attribute format = '{FORMAT}'); "
                            "make one with `kerasgal simulate` or `kerasgal convert`")
        if not attributes.get("version", 0) <= VERSION:
            raise DataError(f"{self.path} has Simulation file version {attributes['version']}; "
                            f"this kerasgal reads up to {VERSION}")
        missing = [name for name in HEADER if name not in attributes]
        if missing:
            raise DataError(f"{self.path} has no {', '.join(missing)}; it holds {', '.join(self.datasets())}")
        self.check_has(require)
        for name in HEADER:
            number = np.asarray(attributes[name])
            if number.ndim or number.dtype.kind not in "iuf" or not np.isfinite(number):
                raise DataError(f"{self.path}: {name} is {attributes[name]!r}; it must be a finite number")
        misshapen = _misshapen({name: self.file[name].shape or () for name in SHAPES if name in self.file})
        if misshapen:
            raise DataError(f"{self.path}: {misshapen[0]}")

    def check_has(self, require):
        """Raise MissingError if one of the datasets `require` is missing."""
        missing = [name for name in require if name not in self.file]
        if missing:
            raise MissingError(f"{self.path} has no {', '.join(missing)}; it holds {', '.join(self.datasets())}")

    def datasets(self):
        """Names of all datasets in the file, in its own order."""
        return list(datasets(self.file))

    @property
    def boxsize(self):
        """Side of the periodic box [comoving Mpc/h]."""
        return float(self.file.attrs["boxsize"])

    @property
    def gridsize(self):
        """Cells per side of the initial density grid."""
        return self.file["initial/delta"].shape[0]

    @property
    def cellsize(self):
        """Side of a cell of the initial density grid [Mpc/h]."""
        return self.boxsize / self.gridsize

    @property
    def particle_mass(self):
        """Mass of a particle [Msun/h]."""
        if "particle_mass" in self.file.attrs:
            return float(self.file.attrs["particle_mass"])
        from kerasgal.cosmology import mean_density

        return mean_density(self.cosmology) * self.cellsize**3  # of an array: a particle in every cell

    @property
    def cell_mass(self):
        """Mean mass in a cell of the initial density grid [Msun/h]."""
        particles = self.file["halo_id"].shape[0] if "halo_id" in self.file else self.gridsize
        return self.particle_mass * (particles / self.gridsize) ** 3

    @property
    def redshift_initial(self):
        """Redshift of initial/delta; NaN where an array does not say."""
        return float(self.file.attrs.get("redshift_initial", np.nan))

    @property
    def redshift_final(self):
        """Redshift of final/... and of the haloes; NaN where an array does not say."""
        return float(self.file.attrs.get("redshift_final", np.nan))

    @property
    def density_of(self):
        """What final/delta is the density of, in words; None where the file does not say."""
        return _text(self.file.attrs.get("density_of"))

    @property
    def window(self):
        """By which particles were put on the grid of final/delta; None where the file does not say."""
        return _text(self.file.attrs.get("window"))

    @property
    def particles_per_cell(self):
        """How many particles final/delta was made of for each cell; None where the file does not say."""
        value = self.file.attrs.get("particles_per_cell")
        return None if value is None else float(value)

    @property
    def finder(self):
        """The halo finder in words; None where the file does not say."""
        return _text(self.file.attrs.get("finder"))

    @property
    def minimum(self):
        """Fewest particles of a halo; None where the file does not say."""
        value = self.file.attrs.get("minimum")
        return None if value is None else int(value)

    @property
    def cosmology(self):
        """The cosmology, as `kerasgal.cosmology.Cosmology`."""
        from kerasgal.cosmology import Cosmology

        missing = self._missing_cosmology()
        if missing:
            raise DataError(f"{self.path} has no {missing}")
        known = _numbers(self.file["cosmology"])
        return Cosmology(**{name: known[name] for name in COSMOLOGY})

    @property
    def parameters(self):
        """All numbers that the simulation was run with, those of its cosmology and any others: {name: float}."""
        return {name: value for group in ("cosmology", "parameters") if group in self.file
                for name, value in _numbers(self.file[group]).items()}

    def delta(self):
        """The initial density contrast, read whole.

        Returns
        -------
        array
            (n, n, n), float32.

        Raises
        ------
        DataError
            If it is not finite, or no contrast.
        """
        delta = self.file["initial/delta"][...].astype(np.float32, copy=False)
        check_mean(delta, f"{self.path}: initial/delta")
        return delta

    def halos(self):
        """The halo catalogue, read whole.

        Returns
        -------
        dict
            `mass` [Msun/h], `position` [Mpc/h], `radius` [Mpc/h] and `count`, most massive first.
        """
        return {name: self.file[f"halos/{name}"][...] for name in HALO_COLUMNS}

    def problems(self):
        """What is inconsistent in the file, one sentence each; an empty list for a sound file.

        Reads every dataset slab by slab, positions twice and all others once.
        """
        shapes = {name: self.file[name].shape or () for name in self.datasets()}
        found = _misshapen(shapes)
        if found:
            return found
        if "initial/delta" not in shapes and "final/delta" not in shapes:
            found.append("there is neither initial/delta nor final/delta")
        missing = self._missing_cosmology()
        if missing:
            found.append(f"there is no {missing}")
        for name in ("boxsize", "particle_mass"):
            value = float(self.file.attrs[name])
            if not value > 0 or not np.isfinite(value):
                found.append(f"{name} is {value:g}; it must be positive")
        found += _uneven(shapes)
        for name in shapes:
            dataset = self.file[name]
            if dataset.dtype.kind != "f" or not shapes[name]:
                continue
            if name in CONTRASTS:
                found += _faults(check_mean, dataset, name)
            else:
                bad = sum(np.count_nonzero(~np.isfinite(slab)) for slab in slabs(dataset))
                if bad:
                    found.append(f"{name} has {bad} values that are NaN or infinite")
                elif name in POSITIONS and shapes[name][0]:
                    found += _faults(self._check_inside, dataset, name)
        if "halo_id" in shapes or "halos/mass" in shapes:
            found += self._halo_problems(shapes)
        return found + self._galaxy_problems(shapes)

    def _missing_cosmology(self):
        """Words for what is missing of the cosmology; None where nothing is."""
        if "cosmology" not in self.file:
            return "cosmology"
        known = _numbers(self.file["cosmology"])
        missing = [name for name in COSMOLOGY if name not in known]
        return f"{', '.join(missing)} in the cosmology" if missing else None

    def _check_inside(self, dataset, name):
        """Raise DataError if positions are more than a box outside it."""
        (lowest, highest), boxsize = _extremes(dataset), self.boxsize
        if lowest < -boxsize or highest > 2 * boxsize:
            raise DataError(f"{name} runs from {lowest:g} to {highest:g}, and the box has {boxsize:g} Mpc/h: is it in "
                            "another unit?")

    def _halo_problems(self, shapes):
        found = [f"halos/{name} is missing" for name in HALO_COLUMNS if f"halos/{name}" not in shapes]
        if "halo_id" not in shapes and "initial/delta" in shapes:
            found.append("halo_id is missing, although there is a halo catalogue")
        if found:
            return found
        rows = shapes["halos/mass"][0]
        if np.any(np.diff(self.file["halos/mass"][...]) > 0):
            found.append("halos/mass is not in descending order")
        if "halo_id" not in shapes:  # haloes beside a field, without their particles
            return found
        halo_id = self.file["halo_id"]
        n = shapes.get("initial/delta", halo_id.shape)[0]
        if halo_id.shape[0] % n:
            found.append(f"halo_id has {halo_id.shape[0]} cells a side; expected {n} or a multiple of it")
        lowest, highest = _extremes(halo_id)
        if lowest < -1 or highest >= rows:
            found.append(f"halo_id runs from {lowest} to {highest}; accepted are -1 (none) to {rows - 1}, "
                         f"the last of {rows} halos")
        return found

    def _galaxy_problems(self, shapes):
        found = []
        for name, shape in shapes.items():
            if not name.startswith("galaxies/") or name == "galaxies/count":
                continue
            if shape[:1] != shapes.get("galaxies/position", (None,))[:1]:
                found.append(f"{name} has {shape[0] if shape else 'no'} rows; galaxies/position has "
                             f"{shapes.get('galaxies/position', ('no',))[0]}")
        if "galaxies/halo" in shapes and shapes["galaxies/halo"][0]:
            halo, rows = self.file["galaxies/halo"][...], shapes.get("halos/mass", (0,))[0]
            if halo.min() < -1 or halo.max() >= rows:
                found.append(f"galaxies/halo runs from {halo.min()} to {halo.max()}; accepted are -1 (none) to "
                             f"{rows - 1}, the last of {rows} halos")
        if "galaxies/count" in shapes:
            shape = shapes["galaxies/count"]
            if shape != shapes.get("final/delta", shape):
                found.append(f"galaxies/count has shape {shape}; final/delta has {shapes['final/delta']}")
            lowest = min(slab.min() for slab in slabs(self.file["galaxies/count"]))
            if lowest < 0:
                found.append(f"galaxies/count has cells of {lowest:g} galaxies; accepted are 0 and more")
        return found

    def validate(self):
        """Raise DataError naming everything that `problems` finds."""
        found = self.problems()
        if found:
            raise DataError(f"{self.path}: " + "; ".join(found))


def _misshapen(shapes):
    """What is wrong with datasets, {name: shape}, that are no arrays of the schema, one sentence each."""
    found = []
    for name, axes in SHAPES.items():
        shape = shapes.get(name)
        if shape is None:
            continue
        if name in CUBES and (len(shape) != 3 or len(set(shape)) != 1):
            found.append(f"{name} has shape {shape}; it must be a cube (n, n, n)")
        elif len(shape) != len(axes):
            found.append(f"{name} has shape {shape}; expected {_words(axes)}")
    return found


def _uneven(shapes):
    """What is wrong with datasets whose lengths do not fit to others, one sentence each."""
    found, lengths = [], {}
    for name, axes in SHAPES.items():
        if name not in shapes:
            continue
        expected = tuple(lengths.setdefault(axis, length) if isinstance(axis, str) else axis
                         for axis, length in zip(axes, shapes[name]))
        if shapes[name] != expected:
            found.append(f"{name} has shape {shapes[name]}; expected {expected}")
    if "p" in lengths and "k" in lengths and lengths["p"] != lengths["k"]**3:
        found.append(f"there are {lengths['p']} particles in final/..., and {lengths['k']**3} in halo_id")
    return found


def _words(axes):
    """A shape with letters in it, as Python writes one."""
    return str(axes).replace("'", "")


def _numbers(group):
    """The attributes of a group that are numbers: {name: float}."""
    found = {name: np.asarray(value) for name, value in group.attrs.items()}
    return {name: float(value) for name, value in found.items() if not value.ndim and value.dtype.kind in "iuf"}


def _extremes(dataset):
    """The least and the greatest number of a dataset, which is read slab by slab."""
    extremes = [(slab.min(), slab.max()) for slab in slabs(dataset)]
    return min(low for low, _ in extremes), max(high for _, high in extremes)


def _faults(check, dataset, name):
    """What a function finds wrong with a dataset, as a list of none or one sentence."""
    try:
        check(dataset, name)
    except DataError as error:
        return [str(error)]
    return []


def _text(value):
    return None if value is None else str(value)


def check_suffix(path):
    """`path` as a Path; raises SettingError if its suffix is not one of HDF5."""
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise SettingError(f"{path}: accepted suffixes are {', '.join(SUFFIXES)}", value=path.suffix, accepted=SUFFIXES)
    return path


def write(path, *, boxsize, cosmology, redshift_initial, redshift_final, particle_mass, source, datasets,
          parameters=None, density_of=None, window=None, particles_per_cell=None, finder=None, minimum=None,
          overwrite=False):
    """Write a Simulation file; it appears under its name only when it is complete and valid.

    Parameters
    ----------
    path : str or Path or None
        File to write; None makes a simulation in memory.
    boxsize : float
        Side of the periodic box, comoving Mpc/h.
    cosmology : Cosmology
        Of the simulation.
    redshift_initial, redshift_final : float
        Of what stands under initial/, and under final/, halos/ and galaxies/.
    particle_mass : float
        Msun/h.
    source : str
        Where it came from, in words.
    datasets : dict
        Arrays by the names of the schema, such as "initial/delta" and "halos/mass".
    parameters : dict, optional
        Further numbers that the simulation was run with.
    density_of, finder : str, optional
        What final/delta is the density of, and the halo finder, in words; None where they are unknown.
    window : {"ngp", "cic", "tsc"}, optional
        By which particles were put on the grid of final/delta.
    particles_per_cell : float, optional
        How many of them there are for each cell.
    minimum : int, optional
        Fewest particles of a halo.
    overwrite : bool
        Replace the file if it exists.

    Returns
    -------
    Simulation or None
        The one in memory; None where a file is written.

    Raises
    ------
    DataError
        If the file exists, or what is written does not fit together.

    Examples
    --------
    >>> import numpy as np
    >>> from kerasgal import simulation
    >>> from kerasgal.cosmology import Cosmology
    >>> made = simulation.write(None, boxsize=50.0, cosmology=Cosmology(), redshift_initial=50.0, redshift_final=0.0,
    ...                         particle_mass=4e10, source="made up", datasets={"initial/delta": np.zeros((8, 8, 8))})
    >>> made.cellsize
    6.25
    """
    import h5py

    datasets = {name: np.asarray(values) for name, values in datasets.items()}
    attributes = {"format": FORMAT, "version": VERSION, "boxsize": float(boxsize),
                  "redshift_initial": float(redshift_initial), "redshift_final": float(redshift_final),
                  "particle_mass": float(particle_mass), "source": source}
    optional = {"density_of": density_of, "window": window, "particles_per_cell": particles_per_cell,
                "finder": finder, "minimum": minimum}
    attributes |= {name: value for name, value in optional.items() if value is not None}

    def fill(file):
        file.attrs.update(attributes)
        group = file.create_group("cosmology")
        for name in COSMOLOGY:
            group.attrs[name] = float(getattr(cosmology, name))
        if parameters:
            file.create_group("parameters").attrs.update({name: float(value) for name, value in parameters.items()})
        for name, values in datasets.items():
            file.create_dataset(name, data=values.astype(np.float32) if values.dtype == np.float64 else values)

    if path is None:
        made = h5py.File.in_memory()
        fill(made)
        simulation = Simulation.from_file(made, source)
        simulation.validate()
        return simulation
    check_room(path, sum(values.nbytes for values in datasets.values()) + HDF5_OVERHEAD)
    with replacing(path, overwrite) as temporary:
        with h5py.File(temporary, "w") as file:
            fill(file)
        with Simulation(temporary, require=()) as simulation:
            found = simulation.problems()
        if found:
            raise DataError(f"not writing {path}: " + "; ".join(found))
    return None


@contextlib.contextmanager
def opened(source, require=("initial/delta",)):
    """A Simulation for a ``with`` block: that in the file at a path, or an open one, which stays open.

    Parameters
    ----------
    source : str, Path or Simulation
        What to open.
    require : sequence of str
        Datasets that must be there.

    Yields
    ------
    Simulation

    Raises
    ------
    DataError
        If a dataset is missing, or the simulation is closed.
    SettingError
        If `source` is neither.

    Examples
    --------
    >>> import kerasgal as kg
    >>> from kerasgal.simulation import opened
    >>> box = kg.simulate(particles=16, boxsize=12.5, seed=1)
    >>> with opened(box, require=("halo_id",)) as simulation:
    ...     print(simulation is box)
    True
    """
    if isinstance(source, Simulation):
        if not source.file:
            raise DataError(f"{source.path} is closed: open it again")
        source.check_has(require)
        yield source
        return
    if not isinstance(source, str | os.PathLike):
        raise SettingError(f"expected a Simulation or the path of one, received {type(source).__name__}")
    with Simulation(source, require) as simulation:
        yield simulation


def from_array(delta, *, boxsize, name="initial/delta", cosmology=None, redshift_initial=None, redshift_final=None,
               density_of=None, source="array"):
    """A Simulation in memory whose only field is an array.

    What is None stays unsaid: a run then takes what it was trained with, and says so.

    Parameters
    ----------
    delta : array
        Density contrast, (n, n, n), of mean zero.
    boxsize : float
        Mpc/h.
    name : {"initial/delta", "final/delta"}
        Which field it is.
    cosmology : Cosmology, optional
        Of the simulation.
    redshift_initial, redshift_final : float, optional
        Of the two fields.
    density_of : str, optional
        What it is the density of, in words.
    source : str
        What messages call it.

    Returns
    -------
    Simulation

    Raises
    ------
    DataError
        For another shape, values that are not finite, and a mean that is not that of a contrast.
    SettingError
        For a boxsize that is none.

    Examples
    --------
    >>> import numpy as np
    >>> from kerasgal.simulation import from_array
    >>> from_array(np.zeros((8, 8, 8)), boxsize=50.0).cellsize
    6.25
    >>> from_array(np.ones((8, 8, 8)), boxsize=50.0)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    kerasgal.errors.DataError: array has the mean 1: expected is a density contrast, ...
    """
    import h5py

    delta = check_contrast(delta, source)
    if not (np.isscalar(boxsize) and np.isfinite(boxsize) and boxsize > 0):
        raise SettingError(f"boxsize={boxsize!r}: it must be a positive number of Mpc/h", value=boxsize)
    file = h5py.File.in_memory()
    said = {"boxsize": float(boxsize), "redshift_initial": redshift_initial, "redshift_final": redshift_final,
            "density_of": density_of}
    file.attrs.update(format=FORMAT, version=VERSION, source=source)
    file.attrs.update({key: value for key, value in said.items() if value is not None})
    if cosmology is not None:
        group = file.create_group("cosmology")
        for parameter in COSMOLOGY:
            group.attrs[parameter] = float(getattr(cosmology, parameter))
    file[name] = delta
    return Simulation.from_file(file, source)


def check_contrast(delta, name):
    """An array as a density contrast, (n, n, n) float32; raises DataError if it cannot be one. name: for errors."""
    delta = np.asarray(delta)
    if delta.ndim != 3 or len(set(delta.shape)) != 1 or not delta.size:
        raise DataError(f"{name} has the shape {delta.shape}: expected is a cube (n, n, n)", value=delta.shape)
    if delta.dtype.kind not in "iuf":
        raise DataError(f"{name} is of type {delta.dtype}: expected are numbers", value=delta.dtype)
    delta = delta.astype(np.float32, copy=False)
    check_mean(delta, name)
    return delta


def check_mean(delta, name):
    """Raise DataError for a field that is not finite, or whose mean is not that of a density contrast.

    delta: an array, or a dataset, (n, n, n), which is read slab by slab; name: for errors.
    """
    bad, total, squares = 0, 0.0, 0.0
    for slab in slabs(delta):
        values = np.asarray(slab, np.float32)
        bad += np.count_nonzero(~np.isfinite(values))
        total += values.sum(dtype=float)
        squares += np.square(values).sum(dtype=float)
    if bad:
        raise DataError(f"{name} has {bad} values that are NaN or infinite")
    mean = total / np.prod(delta.shape)
    deviation = np.sqrt(max(0.0, squares / np.prod(delta.shape) - mean**2))
    if abs(mean) > 0.05 * deviation + 1e-6:
        raise DataError(f"{name} has the mean {mean:.3g}: expected is a density contrast, rho / mean(rho) - 1, whose "
                        "mean is zero", value=mean, accepted=0.0)
