"""Images of galaxies in other people's formats, and in image-set files: FITS, NumPy, HDF5, PNG and TIFF.

One image after another, however many there are. What cannot be read is reported in its place and stops nothing.
"""

import contextlib
import glob
import gzip
import io
import itertools
import os
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from kerasgal.errors import DataError
from kerasgal.files import datasets, open_hdf5
from kerasgal.imageset import FORMAT, SLAB_PIXELS, ImageSet

NAMES = ("image", "images")  # of the dataset in an HDF5 file that has several
COLOURS = 4  # an array whose last axis is no longer is a colour image


@dataclass
class Image:
    """One image, or why there is none.

    pixels: (y, x) float32 counts, NaN for a bad pixel; mask: (y, x) bool, True for a pixel not to be used, or None;
    sky: that is still in the image, counts per pixel, or None; columns: what else its image set says of it; error: one
    line, and pixels is None, if it could not be read.
    """

    id: str
    pixels: np.ndarray | None
    mask: np.ndarray | None = None
    sky: float | None = None
    columns: dict = field(default_factory=dict)
    error: str | None = None


def find(paths, masks=None):
    """The image files among files, folders and glob patterns (one, or a list), sorted, as a list of paths.

    Of a folder or a pattern the files with the suffixes of `FORMATS` are taken; of a folder those in it, not in its
    sub-folders ("FOLDER/**/*.fits" has them too). masks: as for `read`; the masks of other files found are left out.
    Raises DataError if a path or pattern leads to no image file.
    """
    found = set()
    for path in [paths] if isinstance(paths, (str, Path)) else paths:
        path = Path(path)
        if path.is_file():
            files = [path]
        else:
            files = path.iterdir() if path.is_dir() else map(Path, glob.glob(str(path), recursive=True))
        images = [file for file in files if file.is_file() and _suffix(file)]
        if not images:
            place = "no image file in" if path.is_dir() else "not an image file:" if path.exists() else "no such file:"
            raise DataError(f"{place} {path}; accepted suffixes are {' '.join(FORMATS)}")
        found.update(images)
    if masks is not None:
        found -= {_renamed(file, masks) for file in found if _renamed(file, masks) != file}
    return sorted(found)


def stream(paths, masks=None):
    """All images of the files that `find` finds, as `read` reads them; at most some of one file is in memory.

    Files of one name in several folders, or in several formats, are told apart by their paths below the folder that
    they have in common, and the images of several image sets by their files.
    """
    files = find(paths, masks)
    names = [_stem(file) for file in files]
    if len(set(names)) < len(names):
        common = os.path.commonpath([file.absolute().parent for file in files])
        names = [file.absolute().relative_to(common).as_posix() for file in files]
    for file, name in zip(files, names):
        for image in read(file, masks, name):
            # Image sets number their images alike; the ids of all others begin with the name.
            own = len(files) > 1 and image.id != name and not image.id.startswith(f"{name}[")
            yield replace(image, id=f"{name}[{image.id}]") if own else image


def read(path, masks=None, name=None):
    """Yield the images of one file, each an `Image`; one with an `error` in place of what cannot be read.

    FITS (also compressed): every image, and every plane of cubes; integers with the value BLANK become NaN. NumPy:
    (y, x) or (n, y, x). HDF5: an image-set file, or one with a single dataset (n, y, x), or with one of the `NAMES`.
    PNG and TIFF: grey ones.

    masks: a pair (old, new): the mask of each image is in the file whose name has `new` in place of `old`, e.g.
    (".fits", "_mask.fits"), nonzero where a pixel is not to be used; name: for ids, by default the file's without its
    suffix. An image's id is the name, with [extension] for extensions of FITS files, [index] for stacks and
    [extension,index] for both; in an image set it is its own.
    """
    path = Path(path)
    name = name or _stem(path)
    number = 0
    try:
        for image in _images(path, name) if masks is None else _masked_images(path, name, masks):
            number += 1
            yield image
        if not number:
            raise DataError(f"{path} has no image")
    except Exception as error:  # every library has exceptions of its own for files that are not sound
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if not isinstance(error, DataError):
            reason = f"{path} is damaged, cut short or of another format: {reason}"
        yield Image(name, None, error=reason)


def _suffix(path):
    """The one of the suffixes of `FORMATS` that a file has, None if none."""
    return next((suffix for suffix in FORMATS if path.name.lower().endswith(suffix)), None)


def _stem(path):
    return path.name[:-len(_suffix(path) or "")] or path.name


def _renamed(path, masks):
    return path.with_name(path.name.replace(*masks))


def _masked_images(path, name, masks):
    """The images of a file with the masks of its companion."""
    companion = _renamed(path, masks)
    if companion == path or not companion.is_file():
        reason = f"its name has no {masks[0]!r}" if companion == path else f"no such file: {companion}"
        raise DataError(f"{path} has no mask: {reason}")
    for image, mask in itertools.zip_longest(_images(path, name), _images(companion, name)):
        if image is None or mask is None:
            raise DataError(f"{path} and its mask {companion} do not have the same number of images")
        if image.pixels.shape != mask.pixels.shape:
            raise DataError(f"{path} has images of {image.pixels.shape} pixels, its mask {companion} of "
                            f"{mask.pixels.shape}")
        bad = mask.pixels != 0
        yield replace(image, mask=bad if image.mask is None else bad | image.mask)


def _images(path, name):
    suffix = _suffix(path)
    if suffix is None:
        raise DataError(f"{path} is not an image file; accepted suffixes are {' '.join(FORMATS)}")
    yield from FORMATS[suffix](path, name)


def _planes(array, shape, path, name, label=()):
    """The images of an array (..., y, x) that is read plane by plane; `label` is what its ids have in brackets."""
    if len(shape) < 2 or len(shape) > 2 and shape[-1] <= COLOURS:
        kind = "a colour image" if len(shape) > 2 else "no image"
        raise DataError(f"{path} has {kind}, of shape {tuple(shape)}; accepted are (y, x) and (n, y, x), one channel")
    for index in np.ndindex(*shape[:-2]):
        labels = ",".join(map(str, (*label, *index)))
        yield Image(f"{name}[{labels}]" if labels else name, _pixels(array[(*index, slice(None), slice(None))], path))


def _pixels(values, path):
    """A copy as float32; raises DataError if the values are not real numbers."""
    if values.dtype.kind not in "biuf":
        raise DataError(f"{path} has pixels of type {values.dtype}; accepted are real numbers")
    with np.errstate(over="ignore"):  # what float32 does not hold becomes infinite, and so a bad pixel
        return np.array(values, np.float32)


@contextlib.contextmanager
def _quiet():
    """Leave out astropy's warnings of what does not matter to pixels, but raise what hides a part of the file."""
    from astropy.utils.exceptions import AstropyWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyWarning)
        warnings.filterwarnings("error", "Error validating header", AstropyWarning)
        yield


class _Section:
    """The pixels of a FITS image, read where they are sliced."""

    def __init__(self, hdu):
        self.hdu = hdu

    def __getitem__(self, index):
        with _quiet():
            return self.hdu.section[index]


def _fits(path, name):
    from astropy.io import fits

    # Astropy takes the end of a compressed file that was cut short for the file's end; gzip raises an error.
    file = io.BytesIO(gzip.decompress(path.read_bytes())) if path.name.lower().endswith(".gz") else path
    with _quiet():
        hdus = fits.open(file, memmap=False)
    with hdus:
        known = set()
        for number in itertools.count():
            with _quiet():
                try:
                    hdu = hdus[number]
                except IndexError:
                    return
            if not hdu.is_image or not hdu.shape:
                continue
            extension = hdu.name if hdu.name and hdu.name not in known else number
            known.add(extension)
            yield from _planes(_Section(hdu), hdu.shape, path, name, (extension,) if number else ())


def _numpy(path, name):
    array = np.lib.format.open_memmap(path, mode="r")
    yield from _planes(array, array.shape, path, name)


def _hdf5(path, name):
    with open_hdf5(path) as file:
        if file.attrs.get("format") != FORMAT:
            yield from _foreign_hdf5(file, path, name)
            return
    with ImageSet(path) as images:
        columns = images.table()
        for slab in images.slabs():
            identifiers, pixels = images["id"][slab], _pixels(images["image"][slab], path)
            masks, skies = (images[key][slab] if key in images else [None] * len(pixels) for key in ("mask", "sky"))
            table = {key: values[slab] for key, values in columns.items()}
            for row, (identifier, image, mask, sky) in enumerate(zip(identifiers, pixels, masks, skies, strict=True)):
                yield Image(identifier, image, mask, None if sky is None else float(sky),
                            {key: values[row] for key, values in table.items()})


def _foreign_hdf5(file, path, name):
    found = datasets(file)
    named = [key for key in found if key.lower() in NAMES]
    stacks = named or [key for key, item in found.items() if item.ndim == 3]
    if len(stacks) != 1:
        held = ", ".join(f"{key} {item.shape}" for key, item in found.items()) or "nothing"
        raise DataError(f"{path} has {len(stacks)} datasets that could be images; accepted is one of the shape "
                        f"(n, y, x), or one with the name {' or '.join(NAMES)}; it holds {held}")
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


FORMATS = {".fits": _fits, ".fit": _fits, ".fits.gz": _fits, ".fit.gz": _fits, ".fits.fz": _fits, ".npy": _numpy,
           ".h5": _hdf5, ".hdf5": _hdf5, ".png": _picture, ".tif": _picture, ".tiff": _picture}
