"""Cubes, (n, n, n), in NumPy, HDF5 and FITS files, and the density contrast of what they hold."""

import re
from pathlib import Path

import numpy as np

from kerasgal.errors import DamagedError, DataError, SettingError, first_line
from kerasgal.files import check_file, datasets
from kerasgal.readers.base import opened

QUANTITIES = ("rho", "1+delta", "delta")
MEAN_TOLERANCE = 0.05  # of 1 + delta over a whole periodic box
NEGATIVE = 1e-3  # of the mean density, to which rounding may make one negative
# What the files of the CAMELS Multifield Dataset are called: Grids_Mcdm_... (its documentation, "Data")
MULTIFIELD = {"Mcdm": "dark matter", "Mtot": "all matter", "Mgas": "gas", "Mstar": "stars"}


def what_of(source):
    """What the density in a file is of, by the names of the CAMELS Multifield Dataset; "unknown" of any other."""
    path, _ = split(source)
    named = re.match(r"Grids_(M[a-z]+)_", path.name)
    return MULTIFIELD.get(named[1], "unknown") if named else "unknown"


def read_cube(source, index=None):
    """A cube (n, n, n) from a file, as it is there.

    source: PATH or PATH:NAME. Of .npy files (n, n, n), or (simulations, n, n, n) with the `index` of one; of HDF5 files
    the dataset NAME, or their only one; of FITS files the extension NAME (a name or a number), or the first with an
    image. The axes stand as NumPy has them: the last one varies fastest in the file.
    Raises DataError if the file is missing, is damaged or holds no such cube.
    """
    path, name = split(source)
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
                        "(see `quantity`)")
    rho += quantity == "delta"
    if rho.min() < -NEGATIVE * (abs(mean) if quantity == "rho" else 1):
        raise DataError(f"{path} has values down to {cube.min():.4g}, which as {quantity} are negative densities "
                        "(see `quantity`)")
    if quantity == "rho":
        if not mean > 0:
            raise DataError(f"{path} has a mean density of {mean:.4g}; accepted is one above 0")
        rho /= np.float32(mean)
    rho -= 1
    return rho


def split(source):
    """The path, and the name behind its last colon, None if there is none."""
    source = str(source)
    path, colon, name = source.rpartition(":")
    return (Path(path), name) if colon and path and not Path(source).exists() else (Path(source), None)


def _one(path, array, index):
    """The cube, or the one of many with this index."""
    shape = tuple(array.shape)
    if len(shape) == 4 and len(set(shape[1:])) == 1:
        if index is None:
            raise DataError(f"{path} has fields of {shape[0]} simulations, of the shape {shape}; give `index`")
        if not 0 <= index < shape[0]:
            raise DataError(f"{path} has no field {index}; accepted are 0 to {shape[0] - 1} (see `index`)")
        return np.array(array[index])
    if len(shape) != 3 or len(set(shape)) != 1 or not shape[0]:
        raise DataError(f"{path} has the shape {shape}; accepted are (n, n, n) and (simulations, n, n, n)")
    return np.array(array[...])


def simulations_in(source):
    """How many simulations a .npy file of fields holds, None where it does not hold several."""
    path, _ = split(source)
    if not path.name.lower().endswith(".npy") or not path.is_file():
        return None
    shape = memory_map(path).shape
    return shape[0] if len(shape) == 4 else None


def memory_map(path):
    """The array of a .npy file, read where it is sliced; raises DataError if the file is damaged."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # of many kinds, from the parser of its header too
        raise DamagedError(f"{path} is damaged, cut short or no .npy file: {first_line(error)}") from error


def _numpy_cube(path, name, index):
    if name is not None and not name.isdigit():
        raise DataError(f"{path}:{name}: behind the colon of a .npy file stands a number, as `index` says it")
    array = memory_map(path)
    if name is not None and array.ndim == 3:
        raise DataError(f"{path}:{name}: the file has one field, of the shape {array.shape}, and no numbered ones")
    if None not in (name, index) and int(name) != index:
        raise SettingError(f"{path}:{name} is field {name}, and index={index} is another: give one of them",
                           value=index, accepted=int(name))
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
        except DataError:
            raise
        except (OSError, ValueError, TypeError, EOFError, KeyError, IndexError) as error:
            raise DamagedError(f"{path} is damaged, cut short or no FITS file: {first_line(error)}") from error
