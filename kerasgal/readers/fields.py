"""Fields: particles onto a grid as they stream by, cubes in NumPy, HDF5 and FITS files, and tables of parameters."""

import itertools
import re
from pathlib import Path

import numpy as np

from kerasgal.errors import DataError
from kerasgal.files import check_file, datasets
from kerasgal.readers.gadget import opened

ORDERS = {"ngp": 1, "cic": 2, "tsc": 3}  # cells along each axis over which a particle is spread
PARTICLES_AT_ONCE = 2**16  # so that what is worked out for them stays in the processor's cache
QUANTITIES = ("rho", "1+delta", "delta")
MEAN_TOLERANCE = 0.05  # of 1 + delta over a whole periodic box
# What the tables of CAMELS call the parameters of our cosmology; all others keep their names.
COSMOLOGY_NAMES = {"Omega_m": "Om0", "Omega0": "Om0", "sigma_8": "sigma8", "sigma8": "sigma8", "OmegaBaryon": "Ob0",
                   "HubbleParam": "h", "n_s": "ns", "ns": "ns"}
# The columns of the CAMELS Multifield Dataset's tables, which have no header (its documentation, "Description"); its
# runs of dark matter alone vary only the first two.
MULTIFIELD_NAMES = ("Omega_m", "sigma_8", "A_SN1", "A_AGN1", "A_SN2", "A_AGN2")


def deposit(total, position, weight, window):
    """Add particles to a periodic grid in place, with the window "ngp", "cic" or "tsc" (Hockney & Eastwood 1981).

    total: (n, n, n), contiguous, float64 where a cell may come to hold millions: to so many float32 adds no share of
    one. position: (particles, 3) in cells, cell (i, j, k) spanning [i, i + 1) and so
    on; weight: (particles,), or None for 1 each. No more memory is taken than for some particles, whatever the grid.
    """
    n, order = len(total), ORDERS[window]
    flat = total.reshape(-1)
    for start in range(0, len(position), PARTICLES_AT_ONCE):
        scaled = position[start:start + PARTICLES_AT_ONCE].T
        some = 1 if weight is None else weight[start:start + PARTICLES_AT_ONCE]
        lowest = np.floor(scaled - (order - 1) / 2)
        share = _shares((scaled - lowest).astype(np.float32), order)
        cell = (lowest.astype(np.int64)[None] + np.arange(order)[:, None, None]) % n  # (order, 3, particles)
        cell *= np.array([n * n, n, 1])[:, None]
        for x, y in itertools.product(range(order), repeat=2):
            row, part = cell[x, 0] + cell[y, 1], share[x][0] * share[y][1] * some
            for z in range(order):
                np.add.at(flat, row + cell[z, 2], (part * share[z][2]).astype(flat.dtype))


def _shares(distance, order):
    """Shares of the `order` cells from the lowest on; distance: (3, particles) from its lower edge, in cells."""
    if order == 1:
        return [np.ones_like(distance)]
    if order == 2:
        upper = distance - np.float32(0.5)
        return [1 - upper, upper]
    offset = distance - np.float32(1.5)  # from the centre of the nearest cell, at most 1/2
    return [0.5 * (0.5 - offset) ** 2, 0.75 - offset**2, 0.5 * (0.5 + offset) ** 2]


def density_contrast(snapshot, gridsize, window, progress=None):
    """Density contrast of a snapshot's particles, (gridsize, gridsize, gridsize) float32, read some at a time.

    snapshot: a `gadget.Snapshot` whose boxsize is known. progress: called with the number of particles done.
    """
    total = np.zeros((gridsize,) * 3)
    mass, done = 0.0, 0
    names = ("position",) if snapshot.equal else ("position", "mass")
    for fields in snapshot.read(*names):
        weight = None if snapshot.equal else fields[1]
        if weight is not None and not (np.isfinite(weight).all() and weight.min() >= 0):
            raise DataError(f"{snapshot.path} has particles whose mass is negative, NaN or infinite")
        deposit(total, fields[0] * (gridsize / snapshot.boxsize), weight, window)
        mass += len(fields[0]) if weight is None else weight.sum(dtype=np.float64)
        done += len(fields[0])
        if progress is not None:
            progress(done)
    if not mass > 0:
        raise DataError(f"{snapshot.path} has particles without mass")
    total *= gridsize**3 / mass
    total -= 1
    return total.astype(np.float32)


def read_cube(source, index=None):
    """A cube (n, n, n) from a file, as it is there.

    source: PATH or PATH:NAME. Of .npy files (n, n, n), or (simulations, n, n, n) with the `index` of one; of HDF5 files
    the dataset NAME, or their only one; of FITS files the extension NAME (a name or a number), or the first with an
    image. The axes stand as NumPy has them: the last one varies fastest in the file.
    Raises DataError if the file is missing, is damaged or holds no such cube.
    """
    path, name = _split(source)
    check_file(path)
    suffix = path.name.lower()
    if suffix.endswith(".npy"):
        cube = _numpy_cube(path, name, index)
    elif suffix.endswith((".h5", ".hdf5")):
        cube = _hdf5_cube(path, name, index)
    elif suffix.endswith((".fits", ".fit", ".fits.gz")):
        cube = _fits_cube(path, name, index)
    else:
        raise DataError(f"{path} is not a field that is read; accepted suffixes are .npy .h5 .hdf5 .fits .fit .fits.gz")
    if cube.dtype.kind not in "biuf":
        raise DataError(f"{path} has values of type {cube.dtype}; accepted are real numbers")
    return cube


def density_of(cube, quantity, path):
    """The density contrast, float32, of a cube of `quantity`: "rho" (in any unit), "1+delta" or "delta".

    Raises DataError for values that are negative (as a density) or not finite, and for a mean that is not the one of
    that quantity.
    """
    rho = cube.astype(np.float32)
    bad = np.count_nonzero(~np.isfinite(rho))
    if bad:
        raise DataError(f"{path} has {bad} values that are NaN or infinite")
    mean = float(rho.mean(dtype=np.float64))
    expected = {"1+delta": 1.0, "delta": 0.0}.get(quantity, mean)
    if abs(mean - expected) > MEAN_TOLERANCE:
        raise DataError(f"{path} has a mean of {mean:.4g}; that of {quantity} over a whole box is {expected:g} "
                        "(see --quantity)")
    rho += quantity == "delta"
    if rho.min() < -1e-3 * max(1.0, abs(mean)):
        raise DataError(f"{path} has values down to {cube.min():.4g}, which as {quantity} are negative densities "
                        "(see --quantity)")
    if quantity == "rho":
        if not mean > 0:
            raise DataError(f"{path} has a mean density of {mean:.4g}; accepted is one above 0")
        rho /= np.float32(mean)
    rho -= 1
    return rho


def read_parameters(path, index, rows=None):
    """A simulation's row of a table of parameters, {name: value}; those of the cosmology under our names.

    The table is one of CAMELS: names in the first line after #, then a row for each simulation, with its name in the
    first column and its random seed in the last, which are left out; or one of the CAMELS Multifield Dataset, six
    columns without names, or two. index: of the row, from 0; rows: how many there must be, None if that is not known.
    Raises DataError if the file is missing, is no such table or has no such row.
    """
    path = Path(path)
    check_file(path)
    lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
    header = [line.lstrip("# ").split() for line in lines if line.startswith("#")]
    table = [line.split() for line in lines if not line.startswith("#")]
    names = header[0] if header else MULTIFIELD_NAMES[:2 if table and len(table[0]) == 2 else None]
    wrong = next((row for row in table if len(row) != len(names)), None)
    if wrong is not None or not table:
        what = f"a row of {len(wrong)} columns" if table else "no rows"
        raise DataError(f"{path} has {what}; accepted are {len(names)}: {', '.join(names)}")
    if rows is not None and len(table) != rows:
        raise DataError(f"{path} has {len(table)} rows, and the file of fields {rows} simulations")
    if not 0 <= index < len(table):
        raise DataError(f"{path} has no row {index}; accepted are 0 to {len(table) - 1} (see --index)")
    found = {}
    for name, text in zip(names, table[index]):
        if re.fullmatch("(sim_)?name|seed", name, re.IGNORECASE):
            continue
        try:
            found[COSMOLOGY_NAMES.get(name, name)] = float(text)
        except ValueError:
            raise DataError(f"{path}: {name} is {text} in row {index}; accepted is a number") from None
    return found


def _split(source):
    """The path and the name behind its last colon, None if there is none."""
    source = str(source)
    path, colon, name = source.rpartition(":")
    return (Path(path), name) if colon and path and not Path(source).exists() else (Path(source), None)


def _one(path, array, index):
    """The cube, or the one of many with this index."""
    shape = tuple(array.shape)
    if len(shape) == 4 and len(set(shape[1:])) == 1:
        if index is None:
            raise DataError(f"{path} has fields of {shape[0]} simulations, of the shape {shape}; give --index")
        if not 0 <= index < shape[0]:
            raise DataError(f"{path} has no field {index}; accepted are 0 to {shape[0] - 1} (see --index)")
        return np.array(array[index])
    if len(shape) != 3 or len(set(shape)) != 1 or not shape[0]:
        raise DataError(f"{path} has the shape {shape}; accepted are (n, n, n) and (simulations, n, n, n)")
    return np.array(array[...])


def simulations_in(source):
    """How many simulations a .npy file of fields holds, None where it does not hold several."""
    path, _ = _split(source)
    if not path.name.lower().endswith(".npy") or not path.is_file():
        return None
    shape = memory_map(path).shape
    return shape[0] if len(shape) == 4 else None


def memory_map(path):
    """The array of a .npy file, read where it is sliced; raises DataError if the file is damaged."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # of many kinds, from the parser of its header too
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(f"{path} is damaged, cut short or no .npy file: {reason}") from error


def _numpy_cube(path, name, index):
    if name is not None and not name.isdigit():
        raise DataError(f"{path}:{name}: behind the colon of a .npy file stands a number, as --index says it")
    array = memory_map(path)
    if name is not None and array.ndim == 3:
        raise DataError(f"{path}:{name}: the file has one field, of the shape {array.shape}, and no numbered ones")
    return _one(path, array, index if name is None else int(name))


def _hdf5_cube(path, name, index):
    with opened(path) as file:
        found = datasets(file)
        held = ", ".join(f"{key} {item.shape}" for key, item in found.items()) or "nothing"
        if name is None and len(found) != 1:
            raise DataError(f"{path} has {len(found)} datasets; say which one by {path}:NAME; it holds {held}")
        key = next(iter(found)) if name is None else name.strip("/")
        if key not in found:
            raise DataError(f"{path} has no dataset {name}; it holds {held}")
        return _one(path, found[key], index)


def _fits_cube(path, name, index):
    import warnings

    from astropy.io import fits

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with fits.open(path, memmap=False) as hdus:
                held = {number: hdu for number, hdu in enumerate(hdus) if hdu.is_image and hdu.shape}
                wanted = [number for number, hdu in held.items()
                          if name is None or name in (str(number), hdu.name) or name.upper() == hdu.name]
                if not wanted:
                    names = ", ".join(f"{number} {hdu.name}".strip() for number, hdu in held.items()) or "none"
                    raise DataError(f"{path} has no image{'' if name is None else f' {name}'}; it has {names}")
                return _one(path, np.asarray(held[wanted[0]].data), index)
        except (OSError, ValueError, TypeError, EOFError, KeyError, IndexError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise DataError(f"{path} is damaged, cut short or no FITS file: {reason}") from error
