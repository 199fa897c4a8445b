"""What a snapshot, a catalogue of haloes or galaxies, and a table of members are; and which format a file is in.

Each format is one module of this package. It registers what it recognises, by what stands in a file and not by its
name, and the functions that read one. `recognise` looks into a file and returns the format. A new format is one more
module, with its name in MODULES.
"""

import contextlib
import importlib
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from kerasgal.errors import DamagedError, DataError, MissingError, first_line
from kerasgal.files import check_file, open_hdf5

log = logging.getLogger(__name__)
KINDS = 7  # of particles; Gadget's six and the neutrinos of SWIFT
TYPE_NAMES = {0: "gas", 1: "dark matter", 2: "type 2", 3: "type 3", 4: "stars", 5: "type 5", 6: "neutrinos"}
# Types 2, 3 and 5 are coarser dark matter in zoom simulations, or 2 neutrinos, 3 tracers without mass, 5 black holes.
CHOICES = {"dark": "dark matter", "gas": "gas", "stars": "stars", "all": "all matter"}
PARTICLES_AT_ONCE = 2**20
MOST_FILES = 100_000  # of one snapshot; a header that says more is not to be believed
CRITICAL_DENSITY = 27.7536627e10  # Msun/h / (Mpc/h)^3: 3 (100 km/s/Mpc)^2 / (8 pi G)
START = 2**16  # bytes that are looked at to recognise a file
MODULES = ("swift", "caesar", "subfind", "gadget_hdf5", "tipsy", "gadget_binary", "mp_gadget", "rockstar", "trees",
           "ahf", "hop", "pinocchio", "members", "unread", "yt")
ROLES = {"snapshot": "snapshot", "groups": "catalogue of haloes", "galaxies": "catalogue of galaxies"}
EXTENT, MANY = 0.02, 20  # of the box; of so many places that lie in a smaller part of it, the unit is another
SAME_MASS = 1e-3  # to which the header's mass of type 1 must be that of its particles
BOUNDARY = 0.01  # of the mass of other dark matter; black holes have less than a tenth of that


# What files hold --------------------------------------------------------------------------


@dataclass(frozen=True)
class Stated:
    """What the header of any file says.

    paths: its files in the order of their particles or rows; boxsize: in the files' own length unit, None if the header
    does not say; length_unit: "kpc" or "Mpc" (comoving, over h), or "box", the side itself; None if the header does not
    say; redshift: None if the header does not say; cosmology: {name: value} of those of Om0, Ob0, h, ns and sigma8 that
    it says.
    """

    paths: tuple
    boxsize: float | None
    length_unit: str | None
    redshift: float | None
    cosmology: dict = field(default_factory=dict, kw_only=True)

    @property
    def path(self):
        """The first file, by which messages name the snapshot or catalogue."""
        return self.paths[0]

    @property
    def in_boxes(self):
        """True where lengths are counted in sides of the box."""
        return self.length_unit == "box"

    def completed(self, boxsize, redshift, in_mpc):
        """The same with the box [Mpc/h] and the redshift where the header does not say them; in_mpc: Mpc/h a unit."""
        changes = {}
        if self.boxsize is None:
            changes["boxsize"] = boxsize / in_mpc
        if self.redshift is None:
            changes["redshift"] = redshift
        return replace(self, **changes)


@dataclass(frozen=True)
class Snapshot(Stated):
    """A snapshot's headers, and its particles as they stand in the files.

    counts: (files, KINDS) particles in them, int64; masses: (KINDS,) of a particle, in the files' unit, where all of a
    type have the same mass, else 0; weighed: types whose particles have masses of their own; mass_unit: Msun/h, None
    where it is not known; velocity_unit: km/s; types: of particles that are read; black_holes: type 5 is; format: in
    words. A format has its own subclass with the method `some`. numbered: its particles have IDs; mass_says_Om0: the
    mass of all its particles, in the files' unit, is Omega_m; coarse: types that are coarser dark matter in zooms.
    """

    counts: np.ndarray = None
    masses: np.ndarray = None
    weighed: tuple = tuple(range(KINDS))
    mass_unit: float | None = 1e10
    velocity_unit: float = 1.0
    types: tuple = (1,)
    black_holes: bool = False
    format: str = ""
    numbered = True
    mass_says_Om0 = False
    coarse = (2, 3)

    @property
    def particles(self):
        """Number of particles that are read."""
        return int(self.counts[:, self.types].sum())

    @property
    def particle_mass(self):
        """Mass of a particle of dark matter [Msun/h], 0 where no single number says it."""
        return float(self.masses[1]) * (self.mass_in_msun() or 0.0)

    @property
    def present(self):
        """Types of which there are particles."""
        return tuple(int(kind) for kind in np.flatnonzero(self.counts.sum(axis=0)))

    @property
    def equal(self):
        """True if all particles that are read are known to have one mass."""
        masses = {float(self.masses[kind]) for kind in self.types if self.counts[:, kind].any()}
        return len(masses) == 1 and min(masses) > 0

    def massive(self, kind):
        """Whether the mass of particles of a type is known."""
        return self.masses[kind] > 0 or kind in self.weighed

    def total_mass(self, types):
        """Mass of all particles of some types, in the files' unit; None where that of one is not known."""
        total = 0.0
        for kind in types:
            if not self.counts[:, kind].any():
                continue
            if self.masses[kind] > 0:
                total += float(self.masses[kind]) * float(self.counts[:, kind].sum())
            elif kind in self.weighed:
                chosen = replace(self, types=(kind,))
                total += sum(float(mass.sum(dtype=np.float64)) for mass, in chosen.read("mass"))
            else:
                return None
        return total

    def mass_in_msun(self):
        """Msun/h of a unit of mass, None where it is not known."""
        return self.mass_unit

    def velocity_in_km_s(self):
        """Peculiar km/s of a unit of velocity: sqrt(a), by the convention of the Gadget family."""
        return self.velocity_unit * (1.0 if self.redshift is None else (1 + self.redshift) ** -0.5)

    def some(self, number, kind, start, stop, names):
        """Arrays of `names` of particles start to stop of one type in the file of that number, in the files' units."""
        raise NotImplementedError

    def read(self, *names):
        """Yield the particles in the order of the files: a list with one array for each of the names.

        Names: "position", (particles, 3) in the files' own length unit; "velocity", (particles, 3), peculiar [km/s];
        "id", (particles,); "mass", (particles,), in the files' own unit. No more than PARTICLES_AT_ONCE particles come
        at once. Raises DataError where a file lacks them or is cut short, and for positions that are not finite or far
        outside the box.
        """
        factor = self.velocity_in_km_s() if "velocity" in names else None
        for number, path in enumerate(self.paths):
            for kind in self.types:
                count = int(self.counts[number, kind])
                for start in range(0, count, PARTICLES_AT_ONCE):
                    fields = self.some(number, kind, start, min(count, start + PARTICLES_AT_ONCE), names)
                    if "position" in names:
                        check_positions(fields[names.index("position")], self.boxsize, path)
                    if "mass" in names:
                        check_masses(fields[names.index("mass")], path)
                    yield [values * factor if name == "velocity" else values for name, values in zip(names, fields)]


@dataclass(frozen=True)
class Groups(Stated):
    """A group catalogue, in the order of the snapshot's particles.

    mass: (groups,) [Msun/h]; position: (groups, 3) and radius: (groups,), that of 200 times the mean density, in the
    files' own length unit, radius 0 where they have none; count: (groups,) dark-matter particles; counted: whether the
    catalogue says these numbers; sorted: by these groups are the snapshot's particles sorted, so that the counts say
    which are the members; members: function that returns the IDs of the particles of all groups, one group after the
    other, or None; finder: of the haloes, in words; further: columns that few catalogues have, {name: (groups, 3)}:
    "initial_position", where the matter was, in the files' own length unit, and "velocity", peculiar [km/s].
    """

    mass: np.ndarray = None
    position: np.ndarray = None
    radius: np.ndarray = None
    count: np.ndarray = None
    counted: bool = True
    sorted: bool = False
    members: Callable = lambda: None
    finder: str = ""
    further: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Galaxies(Stated):
    """A catalogue of galaxies.

    position: (galaxies, 3) in the files' own length unit; mass: (galaxies,) in stars [Msun/h], None where the
    catalogue has none; stars: (galaxies,) star particles, likewise; group: (galaxies,) row of the group in which each
    galaxy is, -1 for none; central: (galaxies,) bool, None where the catalogue does not say.
    """

    position: np.ndarray = None
    mass: np.ndarray | None = None
    stars: np.ndarray | None = None
    group: np.ndarray = None
    central: np.ndarray | None = None


@dataclass(frozen=True)
class Members:
    """A table of which particle is in which halo: ids and halos, (rows,) int64 each; halo -1 for none."""

    path: Path
    ids: np.ndarray
    halos: np.ndarray


# Formats ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Glimpse:
    """What is looked at to recognise a file.

    start: its first bytes, none of a folder; hdf5: {group at the top: names of its attributes}, with those of the file
    itself under "", None if it is not HDF5; folder: names of what is in a folder, None of a file.
    """

    path: Path
    start: bytes
    hdf5: dict | None = None
    folder: tuple | None = None

    @property
    def comments(self):
        """The lines that begin with #, without it, before the first that does not; none for what is no text."""
        found = []
        for line in self.start.decode("latin-1").splitlines():
            if line.strip() and not line.startswith("#"):
                break
            if line.strip():
                found.append(line.lstrip("#").strip())
        return found


@dataclass(frozen=True)
class Format:
    """One format of files.

    name: in words; recognises: function of a `Glimpse`; snapshot: function of a path and of which particles; groups: of
    a path and of h, None where that is not known; galaxies: of a path; size: of a path, how many groups a catalogue
    says that it has, 0 where it does not, None for a table of particles; has_groups: of a path, whether a catalogue of
    galaxies has their groups too. None for what is not in such files. instead: of a format that is not read, which tool
    makes one that is. last: it is another library's to recognise, which is asked for snapshots alone, and only of what
    no other format is, or none that is read.
    """

    name: str
    recognises: Callable
    snapshot: Callable | None = None
    groups: Callable | None = None
    galaxies: Callable | None = None
    size: Callable = lambda path: 0
    has_groups: Callable = lambda path: False
    instead: str = ""
    last: bool = False


FORMATS = []


def register(**arguments):
    """Add a `Format` to those that are known; the arguments are its fields."""
    FORMATS.append(Format(**arguments))


def formats():
    """All formats, in the order of their modules, in which they are tried."""
    for module in MODULES:
        importlib.import_module(f"kerasgal.readers.{module}")
    # They may have been registered in another: one module may import another one.
    return sorted(FORMATS, key=lambda format: MODULES.index(format.recognises.__module__.rsplit(".")[-1]))


def glimpse(path):
    """The `Glimpse` of a file or folder; raises DataError if it is missing or is damaged HDF5."""
    import h5py

    path = existing(path)
    if path.is_dir():
        return Glimpse(path, b"", folder=tuple(sorted(item.name for item in path.iterdir())))
    with open(path, "rb") as file:
        start = file.read(START)
    items = None
    if h5py.is_hdf5(path):
        with opened(path) as file:
            items = {"": set(file.attrs), **{name: set(file[name].attrs) for name in file}}
    return Glimpse(path, start, items)


def recognise(path, last=False):
    """The `Format` of a file and the path of its first file; the format is None where none is recognised.

    last: ask those, too, that are asked last. Raises DataError if there is no such file, or it is damaged.
    """
    seen = glimpse(path)
    found = next((format for format in formats() if not format.last and format.recognises(seen)), None)
    if last and (found is None or found.instead):
        found = next((format for format in formats() if format.last and format.recognises(seen)), found)
    return found, seen.path


def accepted(role):
    """The formats of "snapshot", "groups" or "galaxies", in words."""
    return ", ".join(format.name for format in formats() if getattr(format, role) and not format.last)


def read_as(role, path, *arguments):
    """What is in a file as "snapshot", "groups" or "galaxies"; further arguments are those of the format's function.

    Raises DataError if the file is missing, damaged, of a format that is not read, or something else than that.
    """
    format, path = recognise(path, last=role == "snapshot")
    if format is not None and getattr(format, role):
        return getattr(format, role)(path, *arguments)
    if path.is_dir() and format is None:
        check_file(path)
    if path.stat().st_size == 0:
        raise DamagedError(f"{path} is empty; accepted are {accepted(role)}")
    if format is not None and format.instead:
        raise DataError(f"{path} is {format.name}, which is not read; {format.instead}")
    if format is not None:
        raise DataError(f"{path} is no {ROLES[role]}, but {format.name}; accepted are {accepted(role)}")
    further = f"; {_further()}" if role == "snapshot" and _further() else ""
    raise DataError(f"{path} is no {ROLES[role]} that is read{_contents(path)}; accepted are {accepted(role)}{further}")


def _further():
    """What to do about a snapshot that is not recognised, in words."""
    from kerasgal.readers import yt

    return "" if yt.is_installed() else yt.INSTALL


def _contents(path):
    """What is in a file that is not recognised, in words."""
    import h5py

    if not h5py.is_hdf5(path):
        return ""
    with opened(path) as file:
        return f": it holds {', '.join(file) or 'nothing'}"


def open_snapshot(path, particles="dark"):
    """The `Snapshot` of a file in any format; particles: which are to be read, of CHOICES, or None for no choice."""
    return read_as("snapshot", path, particles)


def read_groups(path, h=None):
    """The `Groups` or the `Members` of a catalogue in any format; h: for those that do not count in 1/h.

    A text or an array that is none of the others is read as a table of members, and what is wrong with it is said.
    """
    seen = glimpse(path)
    if seen.start and seen.hdf5 is None and recognise(path)[0] is None and (
            b"\0" not in seen.start or seen.start.startswith(b"\x93NUMPY")):
        return importlib.import_module("kerasgal.readers.members").read(seen.path)
    return read_as("groups", path, h)


def read_galaxies(path):
    """The `Galaxies` of a catalogue in any format."""
    return read_as("galaxies", path)


def number_of_groups(path):
    """How many groups a catalogue's header says that it has; 0 where it does not; None for a table of members."""
    format, path = recognise(path)
    return 0 if format is None else format.size(path)


def has_groups(path):
    """True if a catalogue of galaxies has their groups too."""
    format, path = recognise(path)
    return format is not None and format.has_groups(path)


# Reading ----------------------------------------------------------------------------------


def existing(path):
    """`path`, or the first of the numbered files of which it is the name without the number."""
    path = Path(path)
    numbered = [f"{path.name}.0", f"{path.stem}.0{path.suffix}", f"{path.name}.0.hdf5"]
    for candidate in [path, *(path.parent / name for name in numbered)]:
        if candidate.is_file():
            return candidate
    if not path.is_dir():
        check_file(path)
    return path


def numbered(path):
    """The match of a file's name with NAME.NUMBER or NAME.NUMBER.hdf5, as files of several are called; None without."""
    return re.fullmatch(r"(.*)\.(\d+)(\.hdf5|\.h5)?", Path(path).name)


def chunks(path, number, attribute):
    """All files of the snapshot or catalogue of `number` files to which `path` belongs, in order.

    number: None where the header does not say, which is one file unless it has numbered neighbours.
    """
    name = numbered(path)
    if number is None and name:
        others = [path.with_name(f"{name[1]}.{int(name[2]) + step}{name[3] or ''}") for step in (-1, 1)]
        if any(other.is_file() for other in others):
            raise DataError(f"{path} has no {attribute} in its header, so that nothing says how many files there are; "
                            "accepted is one, without a numbered neighbour")
    if number is None or number <= 1:
        return (path,)
    number = int(number) if number <= MOST_FILES else number
    if not name:
        raise DataError(f"{path}: {attribute} says {number} files, but the file's name has no number; "
                        "accepted are NAME.0, NAME.1, ... and NAME.0.hdf5, NAME.1.hdf5, ...")
    if number > MOST_FILES:
        raise DataError(f"{path}: {attribute} says {number:g} files; accepted are up to {MOST_FILES}")
    paths = [path.with_name(f"{name[1]}.{chunk}{name[3] or ''}") for chunk in range(number)]
    missing = [chunk.name for chunk in paths if not chunk.is_file()]
    if missing:
        names = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise MissingError(f"{path}: {attribute} says {number} files, {number - len(missing)} found; "
                           f"missing: {names}")
    return tuple(paths)


@contextlib.contextmanager
def opened(path):
    """An HDF5 file opened for reading; what HDF5 says of damage in it becomes a DataError.

    The filters of hdf5plugin (Blosc, Zstd, LZ4, Bitshuffle ...) are there.
    """
    import hdf5plugin  # noqa: F401: it registers them

    try:
        with open_hdf5(path) as file:
            try:
                yield file
            except (OSError, RuntimeError) as error:
                missing = missing_filters(file)
                if missing:
                    raise MissingError(f"{path} is packed by {', '.join(missing)}, a filter that HDF5 has not here; "
                                       "h5repack -f NONE makes a file without it, where it is installed") from error
                raise
    except DataError:
        raise
    except (OSError, RuntimeError, LookupError, TypeError, ValueError) as error:  # h5py's, of many kinds
        reason = first_line(error).strip("'\" ")
        raise DamagedError(f"{path} is damaged or cut short: {reason}") from error


def missing_filters(file):
    """Names of the filters of an HDF5 file's datasets that are not installed."""
    from h5py import h5z

    from kerasgal.files import datasets

    found = set()
    try:
        for item in datasets(file).values():
            plist = item.id.get_create_plist()
            for number in range(plist.get_nfilters()):
                code, _, _, name = plist.get_filter(number)
                if not h5z.filter_avail(code):
                    found.add(f"{name.decode(errors='replace') or 'filter'} ({code})")
    except (OSError, RuntimeError, LookupError, TypeError, ValueError):  # of a file that is damaged besides
        pass
    return sorted(found)


def columns_of(file, group, names):
    """The datasets `names` of a group of an HDF5 file; raises DataError naming those that are missing."""
    missing = [name for name in names if f"{group}/{name}" not in file]
    if missing:
        raise MissingError(f"{file.filename} has no {', '.join(missing)} in its group {group}")
    return [file[f"{group}/{name}"][...] for name in names]


# Checks -----------------------------------------------------------------------------------


def chosen(snapshot, particles):
    """A snapshot with the types of particles of a choice, of CHOICES; None for all there are, known mass or not.

    Dark matter is type 1 and, in zoom simulations, types 2 and 3 (by the format) and 5: of 2 and 3 those that have a
    particle at least as heavy as one of type 1, which neutrinos are not, and 5 where it is not black holes. All matter
    is every type that has mass. Masses of the header are kept where particles have none of their own. Raises DataError
    if there are no such particles.
    """
    present = snapshot.present
    snapshot = replace(snapshot, masses=_masses_of_header(snapshot))
    if particles is None:
        return replace(snapshot, types=present)
    types = {"gas": (0,), "stars": (4,)}.get(particles)
    if particles == "dark":
        types = (1, *_coarse(snapshot))
        if 5 in present and snapshot.massive(5) and not snapshot.black_holes:
            others = snapshot.total_mass(types)
            if others is not None and snapshot.total_mass((5,)) > BOUNDARY * others:
                types = (*types, 5)
    elif particles == "all":
        # Tracers have no mass, and are no matter; of gas, dark matter and stars it is needed.
        types = tuple(kind for kind in present if kind in (0, 1, 4, 5) or snapshot.massive(kind))
    snapshot = replace(snapshot, types=types)
    if snapshot.particles:
        return replace(snapshot, types=tuple(kind for kind in types if kind in present))
    wanted = ", ".join(f"PartType{kind}" for kind in types) or "of any type"
    held = [f"{TYPE_NAMES[kind]} (PartType{kind})" for kind in present]
    name = "dark-matter" if particles == "dark" else particles
    raise DataError(f"{snapshot.path} has no {name} particles ({wanted})"
                    + (f"; it has {', '.join(held)}, see `particles`" if held else ""))


def _masses_of_header(snapshot):
    """The header's masses, 0 for types whose particles have others of their own.

    Those of gas and stars change in a run, and the header keeps the first. Those of type 1 do not: the first ones tell.
    """
    masses = np.array(snapshot.masses)
    for kind in set(snapshot.weighed) & set(snapshot.present) & set(np.flatnonzero(masses > 0)):
        if kind != 1 or not np.allclose(_first_masses(snapshot, 1), masses[1], rtol=SAME_MASS):
            masses[kind] = 0
    return masses


def _first_masses(snapshot, kind):
    """Masses of the first particles of a type, in the file's unit."""
    return next(replace(snapshot, types=(kind,)).read("mass"))[0]


def _coarse(snapshot):
    """Types of coarser dark matter; what is lighter than type 1, as neutrinos are, is left out, and that is said."""
    found = [kind for kind in snapshot.coarse if kind in snapshot.present and snapshot.massive(kind)]
    if not found or 1 not in snapshot.present or not snapshot.massive(1):
        return found
    lightest = _first_masses(snapshot, 1).min()
    heaviest = {kind: _first_masses(snapshot, kind).max() for kind in found}
    for kind, mass in heaviest.items():
        if 0 < mass < lightest:
            log.warning("%s: its particles of type %d are lighter than those of type 1, as neutrinos are, and are not "
                        "counted as dark matter", snapshot.path, kind)
    return [kind for kind, mass in heaviest.items() if mass >= lightest]


def check_masses(mass, path):
    """Raise DataError for masses that are negative or not finite."""
    if len(mass) and not (np.isfinite(mass).all() and mass.min() >= 0):
        raise DataError(f"{path} has particles whose mass is negative, NaN or infinite")


def check_positions(position, boxsize, path):
    """Raise DataError for positions that are not finite or, where boxsize is known, more than a box outside it."""
    if not len(position):
        return
    low, high = position.min(), position.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise DataError(f"{path} has positions that are NaN or infinite")
    if boxsize is not None and (low < -boxsize or high > 2 * boxsize):
        raise DataError(f"{path} has positions from {low:g} to {high:g} in a box of {boxsize:g} (is the length unit "
                        "right, or is the file damaged?)")


def check_extent(extent, number, what, boxsize, path):
    """Raise DataError if so many haloes or particles, `what`, lie in too small a part of the box."""
    if number >= MANY and extent < EXTENT * boxsize:
        raise DataError(f"{path} has {number} {what} within {extent / boxsize:.2g} of a box of {boxsize:g}: is its "
                        "length unit right?")


def check_columns(path, position, **columns):
    """Raise DataError unless positions are (n, 3) and all other columns (n,), numbers."""
    columns = {name: values for name, values in columns.items() if values is not None}
    fitting = position.shape == (len(position), 3) and position.dtype.kind in "iuf"
    if not fitting or any(values.shape != (len(position),) or values.dtype.kind not in "biuf"
                          for values in columns.values()):
        raise DataError(f"{path} has columns that do not fit together: positions of the shape {position.shape}, "
                        + ", ".join(f"{name} {values.shape} {values.dtype}" for name, values in columns.items()))


def check_values(path, **columns):
    """Raise DataError for columns with values that are negative or not finite."""
    bad = [name for name, values in columns.items() if not np.isfinite(values).all() or np.any(values < 0)]
    if bad:
        raise DataError(f"{path} has values that are negative, NaN or infinite in its columns {', '.join(bad)}")
