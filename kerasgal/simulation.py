"""The Simulation file: one HDF5 schema for a simulation, as the three-dimensional apps need it::

    /                      attributes: format, version, boxsize [Mpc/h], redshift_initial, redshift_final,
                           particle_mass [Msun/h], source (where it came from, in words)
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
    /galaxies/position     (g, 3)        optional: [Mpc/h]; any further columns have g rows
    /galaxies/halo         (g,)          optional: row of /halos in which each galaxy is, -1 for none
    /galaxies/central      (g,)          optional: 1 for the galaxy at the centre of its halo, 0 for a satellite
    /galaxies/count        (m, m, m)     optional: galaxies in each cell of the grid of /final/delta

Particle i and Lagrangian cell i are the same index, in C order: cell (x, y, z) of the grid is particle
(x * n + y) * n + z, and its unperturbed position is (x + 1/2, y + 1/2, z + 1/2) * boxsize / n. Lengths are comoving.
`halo_id` may have k times as many cells a side as `delta` (particles finer than the density grid).
"""

import numpy as np

from kerasgal.errors import DataError
from kerasgal.files import CheckedFile, check_room, datasets, replacing

FORMAT = "kerasgal simulation"
VERSION = 1
HALO_COLUMNS = ("mass", "position", "radius", "count")
HDF5_OVERHEAD = 2**16  # bytes of a file beside its arrays, amply
HEADER = ("boxsize", "redshift_initial", "redshift_final", "particle_mass")


class Simulation(CheckedFile):
    """A Simulation file opened for reading; arrays are HDF5 datasets, read only where they are sliced.

    Use as a context manager. `require` names datasets that must be there, e.g. ``("initial/delta", "halo_id")``.
    Raises DataError if the file is missing, is not HDF5, is not a Simulation file or lacks what is required.
    """

    def __init__(self, path, require=("initial/delta",)):
        super().__init__(path, require)

    def _check(self, require):
        attributes = self.file.attrs
        if attributes.get("format") != FORMAT:
            raise DataError(f"{self.path} is not a Simulation file (no attribute format = '{FORMAT}'); "
                            "make one with `kerasgal simulate` or `kerasgal convert`")
        if not attributes.get("version", 0) <= VERSION:
            raise DataError(f"{self.path} has Simulation file version {attributes['version']}; "
                            f"this kerasgal reads up to {VERSION}")
        missing = [name for name in HEADER if name not in attributes]
        missing += [name for name in require if name not in self.file]
        if missing:
            raise DataError(f"{self.path} has no {', '.join(missing)}; it holds {', '.join(self.datasets())}")
        for name in HEADER:
            number = np.asarray(attributes[name])
            if number.ndim or number.dtype.kind not in "iuf" or not np.isfinite(number):
                raise DataError(f"{self.path}: {name} is {attributes[name]!r}; it must be a finite number")
        for name in ("initial/delta", "halo_id"):
            if name in self.file and (self.file[name].ndim != 3 or len(set(self.file[name].shape)) != 1):
                raise DataError(f"{self.path}: {name} has shape {self.file[name].shape}; it must be a cube (n, n, n)")

    def __getitem__(self, name):
        """The HDF5 dataset `name`, e.g. ``simulation["initial/delta"]``."""
        return self.file[name]

    def datasets(self):
        """Names of all datasets in the file."""
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
        return float(self.file.attrs["particle_mass"])

    @property
    def cell_mass(self):
        """Mean mass in a cell of the initial density grid [Msun/h]."""
        particles = self.file["halo_id"].shape[0] if "halo_id" in self.file else self.gridsize
        return self.particle_mass * (particles / self.gridsize) ** 3

    @property
    def redshift_initial(self):
        return float(self.file.attrs["redshift_initial"])

    @property
    def redshift_final(self):
        return float(self.file.attrs["redshift_final"])

    @property
    def cosmology(self):
        """The cosmology, as `kerasgal.cosmology.Cosmology`."""
        from kerasgal.cosmology import Cosmology

        if "cosmology" not in self.file:
            raise DataError(f"{self.path} has no cosmology")
        return Cosmology(**{name: float(value) for name, value in self.file["cosmology"].attrs.items()})

    @property
    def parameters(self):
        """All numbers that the simulation was run with, those of its cosmology and any others: {name: float}."""
        return {name: float(value) for group in ("cosmology", "parameters") if group in self.file
                for name, value in self.file[group].attrs.items()}

    def delta(self):
        """The initial density contrast, (n, n, n) float32, read whole; raises DataError where it is not finite."""
        delta = self.file["initial/delta"][...].astype(np.float32, copy=False)
        bad = np.count_nonzero(~np.isfinite(delta))
        if bad:
            raise DataError(f"{self.path}: initial/delta has {bad} values that are NaN or infinite")
        return delta

    def halos(self):
        """The halo catalogue as a dictionary of arrays (mass, position, radius, count), most massive first."""
        return {name: self.file[f"halos/{name}"][...] for name in HALO_COLUMNS}

    def problems(self):
        """What is inconsistent in the file, one sentence each; an empty list for a sound file.

        Reads every dataset once, slab by slab.
        """
        found = []
        shapes = {name: self.file[name].shape for name in self.datasets()}
        if "initial/delta" not in shapes and "final/delta" not in shapes:
            found.append("there is neither initial/delta nor final/delta")
        if "cosmology" not in self.file:
            found.append("there is no cosmology")
        n = shapes["initial/delta"][0] if "initial/delta" in shapes else None
        for name in ("boxsize", "particle_mass"):
            value = float(self.file.attrs[name])
            if not value > 0 or not np.isfinite(value):
                found.append(f"{name} is {value:g}; it must be positive")
        for name, expected in (("initial/displacement", (n, n, n, 3)), ("initial/velocity", (n, n, n, 3))):
            if n and name in shapes and shapes[name] != expected:
                found.append(f"{name} has shape {shapes[name]}; expected {expected}")
        for name in shapes:
            dataset = self.file[name]
            if dataset.dtype.kind == "f":
                bad = sum(np.count_nonzero(~np.isfinite(dataset[slab])) for slab in _slabs(dataset.shape))
                if bad:
                    found.append(f"{name} has {bad} values that are NaN or infinite")
        if "halo_id" in shapes or "halos/mass" in shapes:
            found += self._halo_problems(shapes)
        return found + self._galaxy_problems(shapes)

    def _halo_problems(self, shapes):
        found = [f"halos/{name} is missing" for name in HALO_COLUMNS if f"halos/{name}" not in shapes]
        if "halo_id" not in shapes and "initial/delta" in shapes:
            found.append("halo_id is missing, although there is a halo catalogue")
        if found:
            return found
        rows = shapes["halos/mass"][0]
        for name in HALO_COLUMNS:
            expected = (rows, 3) if name == "position" else (rows,)
            if shapes[f"halos/{name}"] != expected:
                found.append(f"halos/{name} has shape {shapes[f'halos/{name}']}; expected {expected}")
        if np.any(np.diff(self.file["halos/mass"][...]) > 0):
            found.append("halos/mass is not in descending order")
        if "halo_id" not in shapes:  # haloes beside a field, without their particles
            return found
        halo_id = self.file["halo_id"]
        n = shapes.get("initial/delta", halo_id.shape)[0]
        if halo_id.shape[0] % n:
            found.append(f"halo_id has {halo_id.shape[0]} cells a side; expected {n} or a multiple of it")
        extremes = [(slab.min(), slab.max()) for slab in (halo_id[s] for s in _slabs(halo_id.shape))]
        lowest, highest = min(low for low, _ in extremes), max(high for _, high in extremes)
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
                found.append(f"{name} has {shape[0]} rows; galaxies/position has "
                             f"{shapes.get('galaxies/position', ('no',))[0]}")
        if "galaxies/halo" in shapes and shapes["galaxies/halo"][0]:
            halo, rows = self.file["galaxies/halo"][...], shapes.get("halos/mass", (0,))[0]
            if halo.min() < -1 or halo.max() >= rows:
                found.append(f"galaxies/halo runs from {halo.min()} to {halo.max()}; accepted are -1 (none) to "
                             f"{rows - 1}, the last of {rows} halos")
        if "galaxies/count" in shapes:
            shape = shapes["galaxies/count"]
            if len(shape) != 3 or len(set(shape)) != 1:
                return [*found, f"galaxies/count has shape {shape}; it must be a cube (m, m, m)"]
            if shape != shapes.get("final/delta", shape):
                found.append(f"galaxies/count has shape {shape}; final/delta has {shapes['final/delta']}")
            lowest = min(self.file["galaxies/count"][slab].min() for slab in _slabs(shape))
            if lowest < 0:
                found.append(f"galaxies/count has cells of {lowest:g} galaxies; accepted are 0 and more")
        return found

    def validate(self):
        """Raise DataError naming everything that `problems` finds."""
        found = self.problems()
        if found:
            raise DataError(f"{self.path}: " + "; ".join(found))


def _slabs(shape, cells=2**24):
    """Slices along the first axis that hold about `cells` numbers each."""
    thickness = max(1, cells // max(1, int(np.prod(shape[1:]))))
    return [slice(start, start + thickness) for start in range(0, max(shape[0], 1), thickness)]


def write(path, *, boxsize, cosmology, redshift_initial, redshift_final, particle_mass, source, datasets,
          parameters=None, overwrite=False):
    """Write a Simulation file; it appears under its name only when it is complete and valid.

    `datasets` maps the names of the schema (``"initial/delta"``, ``"halos/mass"``, ...) to arrays, `parameters` those
    of further numbers that the simulation was run with to them.
    Raises DataError if the file exists (without `overwrite`) or what is written does not fit together.
    """
    import h5py

    datasets = {name: np.asarray(values) for name, values in datasets.items()}
    check_room(path, sum(values.nbytes for values in datasets.values()) + HDF5_OVERHEAD)
    with replacing(path, overwrite) as temporary:
        with h5py.File(temporary, "w") as file:
            file.attrs.update(format=FORMAT, version=VERSION, boxsize=float(boxsize),
                              redshift_initial=float(redshift_initial), redshift_final=float(redshift_final),
                              particle_mass=float(particle_mass), source=source)
            group = file.create_group("cosmology")
            for name in ("Om0", "Ob0", "h", "ns", "sigma8"):
                group.attrs[name] = float(getattr(cosmology, name))
            if parameters:
                file.create_group("parameters").attrs.update({name: float(value) for name, value in parameters.items()})
            for name, values in datasets.items():
                file.create_dataset(name, data=values.astype(np.float32) if values.dtype == np.float64 else values)
        with Simulation(temporary, require=()) as simulation:
            found = simulation.problems()
        if found:
            raise DataError(f"not writing {path}: " + "; ".join(found))
