"""Images of galaxies in other people's formats, and in image-set files: FITS, NumPy, HDF5, PNG and TIFF.

One image after another, however many there are. What cannot be read is reported in its place and stops nothing. Masks,
variances, point spread functions and what else lies beside images are told apart from them (`kerasgal.readers.planes`);
what is said of the unit of flux is kept with an image (`kerasgal.readers.flux`).
"""

import bz2
import collections
import contextlib
import glob
import gzip
import io
import itertools
import logging
import os
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from kerasgal.errors import DataError, MissingError, first_line
from kerasgal.files import datasets, open_hdf5
from kerasgal.imageset import FORMAT, SLAB_PIXELS, ImageSet
from kerasgal.readers import bands as several
from kerasgal.readers import flux, planes

log = logging.getLogger(__name__)

NAMES = ("image", "images")  # of the dataset in an HDF5 file that has several
COLOURS = 4  # an array whose last axis is no longer is a colour image
PLACE = ("ra", "dec", "object")  # of a galaxy: columns of image sets, and of tables of scores
NAMED = 3  # files that one line names, of many


@dataclass
class Image:
    """One image, or why there is none.

    Attributes
    ----------
    id : str
    pixels : numpy.ndarray or None
        (y, x) float32 counts, or whatever `unit` says; NaN for a bad pixel. None if it could not be read.
    mask : numpy.ndarray or None
        (y, x) bool, True for a pixel not to be used.
    sky : float or None
        That is still in the image, per pixel.
    columns : dict
        What else its image set says of it.
    error : str or None
        One line, if it could not be read.
    variance : numpy.ndarray or None
        (y, x) float32, of the noise, where the file has it; infinite for a pixel without weight.
    unit : str or None
        Of flux, one of `kerasgal.readers.flux.UNITS`, or as the file has it where that is none; None if unknown.
    zero_point : float or None
        AB magnitude of one such unit.
    pixel_scale, psf_fwhm : float or None
        Arcsec.
    flux_scale : float or None
        How many units of those it will be compared with one of its units is, where the caller says so.
    facts : dict
        What else its header says, such as object, ra and dec [deg]; see `kerasgal.readers.flux.Said`.
    role : str
        Of `kerasgal.readers.planes.ROLES`: with an error, what it is instead of an image.
    bands : tuple of str
        Names of its bands, where they are known. With several, pixels, mask and variance are (y, x, band), and sky and
        the saturation of `facts` (band,).
    """

    id: str
    pixels: np.ndarray | None
    mask: np.ndarray | None = None
    sky: float | None = None
    columns: dict = field(default_factory=dict)
    error: str | None = None
    variance: np.ndarray | None = None
    unit: str | None = None
    zero_point: float | None = None
    pixel_scale: float | None = None
    psf_fwhm: float | None = None
    flux_scale: float | None = None
    facts: dict = field(default_factory=dict)
    role: str = "image"
    bands: tuple = ()

    @property
    def place(self):
        """Where its galaxy is, and what it is called, as far as its header or its image set says it.

        A dictionary of what is known of ra and dec [deg] and object.
        """
        said = {name: self.columns.get(name, self.facts.get(name)) for name in PLACE}
        found = {name: _degrees(said[name]) for name in ("ra", "dec")}
        found["object"] = str(said["object"]).strip() if isinstance(said["object"], (str, np.str_)) else None
        return {name: value for name, value in found.items() if value not in (None, "")}


def _degrees(value):
    """A finite number as such, None for anything else."""
    try:
        value = float(value)
    except (TypeError, ValueError):
        return None
    return value if np.isfinite(value) else None


def columns_of_places(places):
    """The columns ra, dec and object of the `place` of images: those that one of them has; NaN or "" where one has not.

    Examples
    --------
    >>> columns_of_places([{"object": "M 51"}, {}])
    {'object': array(['M 51', ''], dtype='<U4')}
    """
    known = [name for name in PLACE if any(name in place for place in places)]
    return {name: np.array([place.get(name, "" if name == "object" else np.nan) for place in places]) for name in known}


# Finding files -------------------------------------------------------------------------


@dataclass
class _Found:
    """An image file; named: by itself, not by a folder or a pattern; role and owner: of `planes.role_of_file`."""

    path: Path
    named: bool
    role: str | None = None
    owner: Path | None = None


def find(paths, masks=None):
    """The image files among files, folders and glob patterns (one, or a list), sorted, as a list of paths.

    Of a folder or a pattern the files with the suffixes of `FORMATS` are taken; of a folder those in it, not in its
    sub-folders ("FOLDER/**/*.fits" has them too). Files whose names say that they are masks, point spread functions,
    weights or the like of others found are left out. masks: as for `read`; the masks of other files found are left out.
    Raises MissingError if a path or pattern leads to no image file.
    """
    return [file.path for file in _found(paths, masks)[0]]


def _found(paths, masks):
    """The image files that are to be read, sorted, and those that are left out by their names, as two lists."""
    found = {}
    for path in [paths] if isinstance(paths, (str, Path)) else paths:
        path = Path(path)
        if path.is_file():
            files = [path]
        else:
            files = path.iterdir() if path.is_dir() else map(Path, glob.glob(str(path), recursive=True))
        images = [file for file in files if _suffix(file) and file.is_file()]
        if not images:
            place = "no image file in" if path.is_dir() else "not an image file:" if path.exists() else "no such file:"
            raise MissingError(f"{place} {path}; accepted suffixes are {' '.join(FORMATS)}", value=str(path),
                               accepted=list(FORMATS))
        for file in images:
            found.setdefault(file, _Found(file, path == file))
    if masks is not None:
        for file in list(found):
            if _renamed(file, masks) != file:
                found.pop(_renamed(file, masks), None)
    _tell_apart(found.values())
    kept, left = [], []
    for file in sorted(found.values(), key=lambda file: file.path):
        # One that is named alone stays, for its reader to learn why it is none.
        out = file.role is not None and (not file.named or file.owner in found)
        (left if out else kept).append(file)
    if not kept:
        raise MissingError(f"no image among {_some([file.path for file in left])}: by their names they are "
                           f"{_counted(file.role for file in left)}")
    return kept, left


def _tell_apart(files):
    """Note in `_Found`s what their names say that they are, beside all image files of their folders."""
    beside = {}
    for folder in {file.path.parent for file in files}:
        others = [other for other in folder.iterdir() if _suffix(other)]
        beside[folder] = {_stem(other).lower(): other for other in others}
    for file in files:
        file.role, file.owner = planes.role_of_file(_stem(file.path), beside[file.path.parent])


def _some(paths):
    """The names of some files, in words."""
    names = ", ".join(Path(path).name for path in paths[:NAMED])
    return names if len(paths) <= NAMED else f"{names} and {len(paths) - NAMED} more"


def _counted(roles):
    """How many there are of each role, in words."""
    return ", ".join(f"{planes.ROLES[role]} ({number})" for role, number in collections.Counter(roles).items())


def stream(paths, masks=None, extension=None, unit=None, zero_point=None, flux_scale=None, bands=None):
    """All images of the files that `find` finds, as `read` reads them; at most some of one file is in memory.

    Files of one name in several folders, or in several formats, are told apart by their paths below the folder that
    they have in common, and the images of several image sets by their files. What a folder or a pattern has beside
    images - masks, weights, point spread functions and the like - is left out and counted in one line of the log; a
    file that was named alone and is none has its error in its place.

    Parameters
    ----------
    paths : str, Path, or a list of them
        Files, folders and glob patterns.
    masks, extension
        As for `read`.
    unit : str, optional
        The unit of flux of all of them, of `kerasgal.readers.flux.UNITS`, where the files do not say it.
    zero_point : float, optional
        AB magnitude of one unit of theirs.
    flux_scale : float, optional
        What to multiply their pixels by to have them in the unit that they are compared in, for
        `kerasgal.readers.flux.to_unit`.
    bands
        As for `read`.

    Yields
    ------
    Image

    Raises
    ------
    MissingError
        If a path leads to no image file, or to none that is an image by its name.
    SettingError
        If `unit` is no unit that is known.
    """
    if unit is not None:
        unit = flux.check_unit(unit)
    if zero_point is not None:
        flux.check_zero_point(zero_point)
    files, left = _found(paths, masks)
    left = [(file.path.name, file.role) for file in left]
    pedestals = 0
    names = [_stem(file.path) for file in files]
    if len(set(names)) < len(names):
        common = os.path.commonpath([file.path.absolute().parent for file in files])
        names = [file.path.absolute().relative_to(common).as_posix() for file in files]
    for file, name in zip(files, names):
        if file.role is not None and extension is None:
            kind = planes.ROLES[file.role] + (f" of {file.owner.name}" if file.owner else "")
            yield Image(name, None, role=file.role, error=f"{file.path} is {kind} by its name, and not an image; "
                                                          "extension=0 reads it all the same")
            continue
        for image in read(file.path, masks, name, extension, bands):
            if image.role != "image" and not file.named:
                left.append((image.id, image.role))
                continue
            pedestals += "soft_bias" in image.facts
            # Image sets number their images alike; the ids of all others begin with the name.
            own = len(files) > 1 and image.id != name and not image.id.startswith(f"{name}[")
            image = replace(image, id=f"{name}[{image.id}]") if own else image
            yield _as_told(image, unit, zero_point, flux_scale)
    if left:
        log.info("left out, as they are not images: %s: %s", _counted(role for _, role in left),
                 _some([name for name, _ in left]))
    if pedestals:
        log.info("SOFTBIAS of the header subtracted from the pixels of %d images", pedestals)


def _as_told(image, unit, zero_point, flux_scale):
    """An image with what the caller says of its flux; one with an error where that contradicts what the file says."""
    if image.error:
        return image
    if "contradiction" in image.facts and zero_point is None and flux_scale is None:
        return Image(image.id, None, error=f"{image.id}: {image.facts['contradiction']}")
    if unit is None and zero_point is None and flux_scale is None:
        return image
    if flux_scale is None and unit is not None and image.unit in flux.UNITS and image.unit != unit:
        return Image(image.id, None, error=f"{image.id}: unit={unit!r} was given, and its file says {image.unit}")
    known = unit or image.unit
    own = flux.own_zero_point(known, image.pixel_scale)
    stated = unit is not None and None not in (own, image.zero_point)
    if stated and flux_scale is None and abs(own - image.zero_point) > flux.AGREEMENT:
        return Image(image.id, None, error=f"{image.id}: unit={unit!r} was given, of which one has {own:g} mag, and "
                                           f"its file says that one of its units has {image.zero_point:g}")
    said = image.zero_point if own is None else own
    if flux_scale is None and None not in (zero_point, said) and abs(zero_point - said) > flux.AGREEMENT:
        return Image(image.id, None, error=f"{image.id}: zero_point={zero_point:g} was given, and one of its units, "
                                           f"{known or 'unknown'}, has {said:g}")
    return replace(image, unit=known, zero_point=said if zero_point is None else zero_point, flux_scale=flux_scale)


# Reading one file ----------------------------------------------------------------------


def read(path, masks=None, name=None, extension=None, bands=None):
    """Yield the images of one file, each an `Image`; one with an `error` in place of what cannot be read.

    FITS (also compressed): the image, of which extensions with other names are the mask and the variance; where several
    are images, or a cube, each of them; integers with the value BLANK become NaN. Of GALFIT's output the first plane.
    NumPy: (y, x) or (n, y, x). HDF5: an image-set file, or one with a single dataset (n, y, x), or with one of the
    `NAMES`. PNG and TIFF: grey ones. What is not an image by its content, such as a mask, has an error and its role.

    Parameters
    ----------
    path : str or Path
    masks : (str, str), optional
        A pair (old, new): the mask of each image is in the file whose name has `new` in place of `old`, e.g.
        (".fits", "_mask.fits"), nonzero where a pixel is not to be used.
    name : str, optional
        For ids, by default the file's without its suffix. An image's id is the name, with [extension] for extensions of
        FITS files, [index] for stacks and [extension,index] for both; in an image set it is its own.
    extension : str or int, optional
        Name or number of the FITS extension, or name of the HDF5 dataset, that is the image.
    bands : tuple of str, optional
        Names of the bands that are wanted, in this order: of an image set of several, and of a FITS file whose cards
        say which plane is of which band (BANDS of a cube, FILTER or BAND, or the name of an extension), they are taken
        as one image. Where an image set lacks one of them, or none is named, it gives all that it has. By default
        every plane is an image, and a set of several bands is an error.

    Yields
    ------
    Image
    """
    path = Path(path)
    name = name or _stem(path)
    number = 0
    try:
        images = _images(path, name, extension, bands)
        for image in images if masks is None else _masked_images(path, name, masks, images):
            number += 1
            yield image
        if not number:
            raise DataError(f"{path} has no image")
    except Exception as error:  # every library has exceptions of its own for files that are not sound
        reason = first_line(error)
        if not isinstance(error, DataError):
            reason = f"{path} is damaged, cut short or of another format: {reason}"
        yield Image(name, None, error=reason, role=getattr(error, "role", "image"))


class _NoImageError(DataError):
    """A file has planes, and none is an image; `role` is what the first of them is."""

    role = "image"


def _suffix(path):
    """The one of the suffixes of `FORMATS` that a file has, None if none."""
    return next((suffix for suffix in FORMATS if path.name.lower().endswith(suffix)), None)


def _stem(path):
    return path.name[:-len(_suffix(path) or "")] or path.name


def _renamed(path, masks):
    return path.with_name(path.name.replace(*masks))


def _masked_images(path, name, masks, images):
    """The images of a file with the masks of its companion."""
    companion = _renamed(path, masks)
    if companion == path or not companion.is_file():
        reason = f"its name has no {masks[0]!r}" if companion == path else f"no such file: {companion}"
        raise DataError(f"{path} has no mask: {reason}")
    for image, mask in itertools.zip_longest(images, _planes_of(companion, name)):
        if image is not None and image.error:
            yield image
            continue
        if image is None or mask is None:
            raise DataError(f"{path} and its mask {companion} do not have the same number of images")
        if image.pixels.shape[:2] != mask.pixels.shape:
            raise DataError(f"{path} has images of {image.pixels.shape} pixels, its mask {companion} of "
                            f"{mask.pixels.shape}")
        bad = (mask.pixels != 0).reshape(*mask.pixels.shape, *[1] * (image.pixels.ndim - 2))  # the same in every band
        bad = np.broadcast_to(bad, image.pixels.shape)
        yield replace(image, mask=bad if image.mask is None else bad | image.mask)


def _images(path, name, extension=None, bands=None):
    """The images of a file, with errors in place of planes that are none."""
    reader = _reader(path)
    if reader is _fits:
        yield from _fits(path, name, extension, bands)
    elif reader is _hdf5:
        yield from _hdf5(path, name, extension, bands=bands)
    elif extension is not None:
        raise DataError(f"{path}: extension={extension!r} was given, and it has no extensions, as FITS and HDF5 have")
    else:
        yield from map(_checked, reader(path, name))


def _planes_of(path, name):
    """All planes of a file, whatever they are."""
    reader = _reader(path)
    if reader is _fits:
        yield from _fits_planes(path, name)
    elif reader is _hdf5:
        yield from _hdf5(path, name, check=lambda image: image)
    else:
        yield from reader(path, name)


def _reader(path):
    suffix = _suffix(path)
    if suffix is None:
        raise DataError(f"{path} is not an image file; accepted suffixes are {' '.join(FORMATS)}")
    return FORMATS[suffix]


def _checked(image):
    """An image, or one with an error where its pixels show that it is none."""
    role = planes.role_of_pixels(image.pixels)
    if role is None:
        return image
    why = {"even": f"all pixels have the same number, {image.pixels[np.isfinite(image.pixels)][:1]}",
           "mask": "its pixels have two numbers", "segmentation": "its pixels are numbers of regions"}[role]
    kind = "has no galaxy" if role == "even" else f"is {planes.ROLES[role]} and not an image"
    return Image(image.id, None, role=role, error=f"{image.id} {kind}: {why}")


def _planes(array, shape, path, name, label=()):
    """The images of an array (..., y, x) that is read plane by plane; `label` is what its ids have in brackets."""
    _check_shape(shape, path)
    for index in np.ndindex(*shape[:-2]):
        yield Image(_identifier(name, label, index), _pixels(array[(*index, slice(None), slice(None))], path))


def _check_shape(shape, path):
    if len(shape) < 2 or len(shape) > 2 and shape[-1] <= COLOURS:
        kind = "a colour image" if len(shape) > 2 else "no image"
        raise DataError(f"{path} has {kind}, of shape {tuple(shape)}; accepted are (y, x) and (n, y, x), one channel")


def _identifier(name, label, index):
    labels = ",".join(map(str, (*label, *index)))
    return f"{name}[{labels}]" if labels else name


def _pixels(values, path):
    """A copy as float32; raises DataError if the values are not real numbers."""
    if values.dtype.kind not in "biuf":
        raise DataError(f"{path} has pixels of type {values.dtype}; accepted are real numbers")
    with np.errstate(over="ignore"):  # what float32 does not hold becomes infinite, and so a bad pixel
        return np.array(values, np.float32)


# FITS ----------------------------------------------------------------------------------


@contextlib.contextmanager
def _quiet():
    """Leave out astropy's warnings of what does not matter to pixels, but raise what hides a part of the file."""
    from astropy.utils.exceptions import AstropyWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyWarning)
        warnings.filterwarnings("error", "Error validating header", AstropyWarning)
        yield


@dataclass
class _Plane:
    """A FITS image or cube: its number, what its ids have in brackets, and its role, None where nothing says it."""

    hdu: object
    number: int
    label: tuple
    role: str | None

    @property
    def shape(self):
        return tuple(self.hdu.shape)

    def read(self, index=()):
        """The pixels (y, x) at an index of the axes before."""
        with _quiet(), np.errstate(all="ignore"):  # BSCALE may make infinities, which are bad pixels
            return self.hdu.section[(*index, slice(None), slice(None))]


@contextlib.contextmanager
def _opened(path):
    """The open FITS file; yields its planes, what 1-D calibration and other facts lie beside them, and an error.

    The error is what stopped the reading of headers in a file that is cut short; the planes are those before it.
    """
    from astropy.io import fits

    # Astropy takes the end of a compressed file that was cut short for the file's end; gzip and bz2 raise an error.
    ending = path.name.lower().rsplit(".", 1)[-1]
    unpack = {"gz": gzip.decompress, "bz2": bz2.decompress}.get(ending)
    with _quiet():
        hdus = fits.open(io.BytesIO(unpack(path.read_bytes())) if unpack else path, memmap=False)
    with hdus:
        found, known, error = [], set(), None
        for number in itertools.count():
            try:
                with _quiet():
                    hdu = hdus[number]
                    if not hdu.is_image or not hdu.shape:
                        continue
                    named = hdu.name if hdu.name and hdu.name not in known else number
                    known.add(named)
                    role = planes.role_of_extension(hdu.name, hdu.header)
                found.append(_Plane(hdu, number, (named,) if number else (), role))
            except IndexError:
                break
            except Exception as reason:  # astropy raises many kinds
                error = reason
                break
        yield hdus, found, error


def _fits_planes(path, name):
    """All planes of a FITS file that have two axes, whatever they are."""
    with _opened(path) as (_, found, error):
        for plane in found:
            if len(plane.shape) > 1:
                yield from _planes_of_cube(plane, path, name)
        if error is not None:
            raise error


def _planes_of_cube(plane, path, name):
    _check_shape(plane.shape, path)
    for index in np.ndindex(*plane.shape[:-2]):
        yield Image(_identifier(name, plane.label, index), _pixels(plane.read(index), path))


def _fits(path, name, extension=None, bands=None):
    with _opened(path) as (hdus, found, error):
        images = [plane for plane in found if len(plane.shape) > 1]
        if not images and found:
            _check_shape(found[0].shape, path)
        if extension is None:
            chosen = _chosen(images, path, whole=error is None)
        else:
            chosen = [_extension(images, extension, path)]

        def image_of(plane, index, described):
            image = Image(_identifier(name, plane.label, index), _pixels(plane.read(index), path))
            return described(_checked(_with_companions(image, plane, index, images)))

        named = _by_band(chosen, bands, path) if bands else {}
        if named:
            parts = [image_of(*named[band], _described(hdus, named[band][0], found)) for band in bands]
            yield several.stack(parts, bands, name) if len(bands) > 1 else replace(parts[0], bands=tuple(bands))
            chosen = []
        for plane in chosen:
            _check_shape(plane.shape, path)
            described = _described(hdus, plane, found)
            for index in np.ndindex(*plane.shape[:-2]):
                yield image_of(plane, index, described)
        if error is not None:
            raise error


def _by_band(chosen, bands, path):
    """Where the bands that are wanted are: {name: (plane, index)}; empty where no card names one.

    A cube says BANDS, such as "grz"; a plane of its own FILTER or BAND, whose first word counts, or it is the name of
    its extension. Raises DataError where one is not there, or twice.
    """
    found = []
    for plane in chosen:
        header = plane.hdu.header
        if len(plane.shape) == 3:
            said = str(header.get("BANDS", "")).strip()
            names = [name for name in said.replace(",", " ").split() if name]
            names = names if len(names) == plane.shape[0] else list(said)
            if len(names) == plane.shape[0]:
                found += [(name, plane, (place,)) for place, name in enumerate(names)]
        elif len(plane.shape) == 2:
            said = next((header[card] for card in ("FILTER", "BAND") if str(header.get(card, "")).strip()), "")
            first = str(said).split()[:1]
            found += [(name, plane, ()) for name in (first or [plane.hdu.name] * (plane.hdu.name in bands))]
    names = [name for name, _, _ in found]
    if not names:
        return {}
    for band in bands:
        if names.count(band) != 1:
            raise DataError(f"{path} has {names.count(band) or 'no'} planes of the band {band}; its cards name "
                            f"{', '.join(names)}")
    return {name: (plane, index) for name, plane, index in found if name in bands}


def _chosen(found, path, whole):
    """Those of the planes of a FITS file that are images; raises DataError if there are planes, and none is."""
    if len(found) > 1:
        for plane in found:
            if plane.role in (None, "image") and len(plane.shape) == 2:
                # One that was cut off has its error when it is its turn: those before it are read.
                with contextlib.suppress(OSError, TypeError, ValueError, EOFError):
                    plane.role = planes.role_of_pixels(_pixels(plane.read(), path)) or plane.role
    chosen = [plane for plane in found if plane.role in (None, "image")]
    if any(plane.role in ("model", "residual") for plane in found):
        chosen = chosen[:1]  # GALFIT's: what follows are the components of the model
    if not chosen and found and whole:
        held = ", ".join(f"{_name(plane)} ({planes.ROLES[plane.role]})" for plane in found)
        error = _NoImageError(f"{path} has no image; it holds {held}; `extension` takes one by its name or number")
        error.role = found[0].role
        raise error
    return chosen


def _name(plane):
    return plane.hdu.name or str(plane.number)


def _extension(found, extension, path):
    """The plane of this name or number; raises DataError if there is none, or it is what cannot be an image."""
    wanted = str(extension).strip()
    named = [plane for plane in found if plane.hdu.name.upper() == wanted.upper()]
    numbered = [plane for plane in found if str(plane.number) == wanted]
    if not named + numbered:
        held = ", ".join(f"{plane.number} {plane.hdu.name}".strip() for plane in found) or "no image"
        raise DataError(f"{path} has no image extension={extension!r}; it holds {held}", value=extension)
    plane = (named + numbered)[0]
    if plane.role in ("mask", "segmentation", "psf", *planes.NOISY):
        raise DataError(f"{path}: the extension {_name(plane)} is {planes.ROLES[plane.role]} by its name, and not an "
                        "image", value=extension)
    return plane


def _with_companions(image, plane, index, found):
    """An image with the mask and the variance among the other planes of its file."""
    beside = [other for other in found if other is not plane and other.shape in (plane.shape, plane.shape[-2:])]
    versions = [other for other in beside if other.hdu.header.get("EXTVER") == plane.hdu.header.get("EXTVER")]
    several = sum(other.role in (None, "image") for other in found) > 1
    beside = versions if several else beside

    def read(other):
        return other.read(index if other.shape == plane.shape else ())

    bad = None
    for other in beside:
        if other.role == "mask":
            flagged = planes.bad_pixels(read(other), other.hdu.header)
        elif other.role in ("weight", "inverse"):
            flagged = ~(read(other) > 0)
        else:
            continue
        bad = flagged if bad is None else bad | flagged
    # JWST splits the variance in VAR_POISSON and others; ERR is the whole.
    noise = sorted((other for other in beside if other.role in ("variance", "sigma", "inverse")),
                   key=lambda other: ("_" in other.hdu.name, ("variance", "sigma", "inverse").index(other.role)))
    variance = planes.variance_of(read(noise[0]), noise[0].role) if noise else None
    return replace(image, mask=bad, variance=variance)


class _Cards:
    """The cards of an extension's header, and where it lacks one, those of the file's first."""

    def __init__(self, header, first):
        self.header, self.first = header, first

    def get(self, name):
        return self.header[name] if name in self.header else self.first.get(name)


def _described(hdus, plane, found):
    """A function that gives an image what the headers of its file say."""
    cards = _Cards(plane.hdu.header, hdus[0].header)
    try:
        said, reason = flux.of_header(cards, plane.hdu.header), None
    except DataError as error:
        said, reason = flux.Said(None, None, None, {}), str(error)
    if said.unit is None:
        frame = _frame_calibration(hdus, plane, found)
        if frame is not None:
            said = flux.Said("nanomaggies", 22.5, said.pixel_scale, {**said.facts, "nanomaggies_per_count": frame})

    def describe(image):
        if image.error:
            return image
        pixels, facts = image.pixels, dict(said.facts)
        pedestal = facts.pop("soft_bias", None)
        # SDSS's corrected frames have 1000 counts added to all pixels; from stamps made of them it often is taken away.
        finite = pixels[np.isfinite(pixels)]
        if pedestal is not None and finite.size and np.median(finite) > pedestal / 2:
            pixels, facts["soft_bias"] = pixels - np.float32(pedestal), pedestal
            facts |= {"saturation": facts["saturation"] - pedestal} if "saturation" in facts else {}
        return replace(image, pixels=pixels, unit=said.unit, zero_point=said.zero_point, pixel_scale=said.pixel_scale,
                       facts=facts | ({"contradiction": reason} if reason else {}))

    return describe


def _frame_calibration(hdus, plane, found):
    """Nanomaggies per count of an SDSS frame of DR8 and later, by its layout; None for other files.

    Its data model: the image in nanomaggies, the calibration of each column, a table of the sky (ALLSKY).
    """
    vectors = [other for other in found if other.shape == plane.shape[-1:] and other.number == 1]
    if plane.number or not vectors:
        return None
    tables = [hdu for hdu in hdus[2:] if "ALLSKY" in getattr(getattr(hdu, "columns", None), "names", ())]
    if not tables:
        return None
    with _quiet():
        calibration = float(np.median(vectors[0].hdu.data))
    return calibration if np.isfinite(calibration) and calibration > 0 else None


# Other formats -------------------------------------------------------------------------


def _numpy(path, name):
    array = np.lib.format.open_memmap(path, mode="r")
    yield from _planes(array, array.shape, path, name)


def _hdf5(path, name, extension=None, check=_checked, bands=None):
    with open_hdf5(path) as file:
        if file.attrs.get("format") != FORMAT:
            yield from map(check, _foreign_hdf5(file, path, name, extension))
            return
    if extension is not None:
        raise DataError(f"{path}: extension={extension!r} was given, and an image set has none")
    with ImageSet(path) as images:
        columns, about, facts = images.table(), images.about(), {}
        if images["image"].ndim == 4 and bands is None:
            raise DataError(f"{path} has the bands {', '.join(images.bands)}, and images of one band are taken here",
                            value=images.bands)
        if about["unit"] is not None:
            about["unit"] = flux.known_unit(about["unit"]) or about["unit"]
            own = flux.own_zero_point(about["unit"], about["pixel_scale"])
            if None not in (own, about["zero_point"]) and abs(own - about["zero_point"]) > flux.AGREEMENT:
                facts["contradiction"] = (f"its unit is {about['unit']}, of which one has {own:g} mag, and its "
                                          f"zero_point {about['zero_point']:g}; give `flux_scale`")
            about["zero_point"] = own if about["zero_point"] is None else about["zero_point"]
        for slab in images.slabs():
            identifiers, pixels = images["id"][slab], _pixels(images["image"][slab], path)
            masks, skies = (images[key][slab] if key in images else [None] * len(pixels) for key in ("mask", "sky"))
            table = {key: values[slab] for key, values in columns.items()}
            for row, (identifier, image, mask, sky) in enumerate(zip(identifiers, pixels, masks, skies, strict=True)):
                yield several.pick(Image(identifier, image, mask, sky if np.ndim(sky) or sky is None else float(sky),
                                         {key: values[row] for key, values in table.items()}, facts=dict(facts),
                                         bands=images.bands, **about), bands)


def _foreign_hdf5(file, path, name, extension):
    found = datasets(file)
    held = ", ".join(f"{key} {item.shape}" for key, item in found.items()) or "nothing"
    if extension is not None:
        if str(extension) not in found:
            raise DataError(f"{path} has no dataset extension={extension!r}; it holds {held}", value=extension)
        stacks = [str(extension)]
    else:
        stacks = [key for key in found if key.lower() in NAMES]
        stacks = stacks or [key for key, item in found.items() if item.ndim == 3]
    if len(stacks) != 1:
        raise DataError(f"{path} has {len(stacks)} datasets that could be images; accepted is one of the shape "
                        f"(n, y, x), or one with the name {' or '.join(NAMES)}, or that `extension` names; it holds "
                        f"{held}")
    dataset = found[stacks[0]]
    if dataset.ndim != 3 or dataset.shape[-1] <= COLOURS:
        yield from _planes(dataset, dataset.shape, path, name)
        return
    # Compressed chunks are read whole: not anew for each of their images.
    rows = max(1, SLAB_PIXELS // max(1, int(np.prod(dataset.shape[1:]))), dataset.chunks[0] if dataset.chunks else 0)
    for start in range(0, len(dataset), rows):
        for offset, image in enumerate(_pixels(dataset[start:start + rows], path)):
            yield Image(f"{name}[{start + offset}]", image)


def _picture(path, name):
    from skimage.io import imread

    array = imread(path)
    yield from _planes(array, array.shape, path, name)


FORMATS = {**{f"{stem}{ending}": _fits for ending in ("", ".gz", ".bz2", ".fz") for stem in (".fits", ".fit", ".fts")},
           ".fz": _fits, ".npy": _numpy, ".h5": _hdf5, ".hdf5": _hdf5, ".png": _picture, ".tif": _picture,
           ".tiff": _picture}
