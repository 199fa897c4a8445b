"""The image-set file: one HDF5 schema for images of galaxies in one band or several, as the image apps need them::

    /             attributes: format, version, source (where they came from, in words), and optionally
                  unit (of flux, as `kerasgal.readers.flux.UNITS`), zero_point (AB magnitude of one such unit),
                  pixel_scale (arcsec), psf_fwhm (arcsec), bands (their names, with commas between); what is not
                  there is not known
    /id           (n,)       names, each once
    /image        (n, y, x)  counts, float32; NaN for a bad pixel. The galaxy is at the centre
    /mask         (n, y, x)  optional: True for a pixel not to be used
    /sky          (n,)       optional: sky that is still in the image, counts per pixel; NaN where it is not known
    /table/NAME   (n,)       optional: any further columns, such as the parameters that an image was made from

Counts may be in any unit of flux that is the same for all images of a set, and that `unit` names. Row i of every
dataset is image i.

In a set of several bands image and mask are (n, y, x, band), sky is (n, band), and the attribute bands names them in
that order, such as "g,r,i"; unit, zero_point and pixel_scale are those of all bands. A column that differs between the
bands is NAME_BAND, such as flux_g and flux_r. Such a file has version 2; one of (n, y, x) has version 1, and may say
its one band, too.
"""

import collections
import contextlib
import math
from pathlib import Path

import numpy as np

from kerasgal.channel_names import band_names
from kerasgal.errors import DataError, MissingError, SettingError
from kerasgal.files import CheckedFile, check_room, datasets, replacing

FORMAT = "kerasgal image set"
VERSION, ONE_BAND = 2, 1  # the second one is that of images (n, y, x)
REQUIRED = ("id", "image")
CHUNK_PIXELS = 2**16  # small enough to read single images, large enough that small ones do not make a chunk each
SLAB_PIXELS = 2**20
NUMBERS = ("zero_point", "pixel_scale", "psf_fwhm")  # root attributes of which `about` tells, beside the unit
ROOM = 2**22  # bytes that a file needs beside its arrays, amply


class ImageSet(CheckedFile):
    """An image-set file opened for reading; arrays are HDF5 datasets, read only where they are sliced.

    Use as a context manager; ``len`` is the number of images, and ``keys`` are names of datasets.

    Parameters
    ----------
    path : str or Path
        The file.

    Raises
    ------
    DataError
        If the file is missing, is not HDF5, is not an image set or lacks what one must have.

    Examples
    --------
    >>> import kerasgal as kg
    >>> import numpy as np
    >>> from kerasgal import imageset
    >>> imageset.write("few.h5", id=["a", "b"], image=np.zeros((2, 8, 8)), source="nothing", unit="counts")
    >>> with kg.ImageSet("few.h5") as images:
    ...     print(len(images), images.shape, images["id"][0], images.about()["unit"])
    2 (8, 8) a counts
    """

    def _check(self):
        if self.file.attrs.get("format") != FORMAT:
            raise DataError(f"{self.path} is not an image-set file (no attribute format = '{FORMAT}')")
        if not self.file.attrs.get("version", 0) <= VERSION:
            raise DataError(f"{self.path} has image-set version {self.file.attrs['version']}; this kerasgal reads up "
                            f"to {VERSION}")
        missing = [name for name in REQUIRED if name not in self.file]
        if missing:
            raise MissingError(f"{self.path} has no {', '.join(missing)}; it holds {', '.join(self.file)}")
        shape, bands = self.file["image"].shape, self.bands
        if len(shape) not in (3, 4) or len(shape) == 4 and not bands:
            raise DataError(f"{self.path}: image has shape {shape}; it must be (n, y, x), or (n, y, x, band) with an "
                            "attribute bands that names them")
        if bands and len(bands) != (shape[3] if len(shape) == 4 else 1):
            raise DataError(f"{self.path}: image has shape {shape}, and its attribute bands names {len(bands)}: "
                            f"{', '.join(bands)}")

    def __getitem__(self, name):
        """The HDF5 dataset `name`, e.g. ``images["image"]``; names read as str."""
        dataset = super().__getitem__(name)
        return dataset.asstr() if dataset.dtype.kind in "OS" else dataset

    def __repr__(self):
        if not self.file:
            return f"<ImageSet {self.path}, closed>"
        bands = f" in the bands {', '.join(self.bands)}" if self.bands else ""
        return (f"<ImageSet {self.path}: {len(self)} images of {self.shape[0]} x {self.shape[1]} pixels{bands}\n"
                f" holding {', '.join(self.keys())}>")

    def __len__(self):
        return self.file["image"].shape[0]

    @property
    def shape(self):
        """Pixels of every image, (y, x)."""
        return self.file["image"].shape[1:3]

    @property
    def bands(self):
        """Names of the bands, a tuple in the order of the last axis; empty where the file says none."""
        text = self.file.attrs.get("bands", "")
        text = text.decode(errors="replace") if isinstance(text, bytes) else text
        if not isinstance(text, str):
            raise DataError(f"{self.path}: the attribute bands is {text!r}; it must be text, such as 'g,r,i'")
        try:
            return band_names(text)
        except SettingError as error:
            raise DataError(f"{self.path}: the attribute {error}") from None

    def grey(self, rows):
        """Images to look at: of several bands their mean.

        Parameters
        ----------
        rows : int or slice
            Of the images.

        Returns
        -------
        array
            (y, x), or (n, y, x) of a slice.
        """
        images = self.file["image"][rows]
        return images.mean(axis=-1) if self.file["image"].ndim == 4 else images

    @property
    def source(self):
        """Where the images came from, in words."""
        return str(self.file.attrs.get("source", ""))

    def about(self):
        """What the file says of its flux, pixels and seeing: a dictionary of unit, zero_point, pixel_scale, psf_fwhm.

        None for what it does not say. Raises DataError for an attribute that cannot be what its name says.
        """
        unit = self.file.attrs.get("unit")
        unit = unit.decode(errors="replace") if isinstance(unit, bytes) else unit
        if unit is not None and not isinstance(unit, str):
            raise DataError(f"{self.path}: the attribute unit is {unit!r}; it must be text")
        found = {"unit": unit}
        for name in NUMBERS:
            value = self.file.attrs.get(name)
            try:
                found[name] = None if value is None else float(value)
            except (TypeError, ValueError):
                raise DataError(f"{self.path}: the attribute {name} is {value!r}; it must be a number") from None
            if value is not None:
                _check_number(name, found[name], self.path)
        return found

    def table(self):
        """The further columns, read whole: a dictionary of arrays (n,)."""
        return {name: self[f"table/{name}"][...] for name in self.file.get("table", ())}

    def slabs(self):
        """Slices of rows that together hold about a million pixels each, from the first image to the last."""
        thickness = max(1, SLAB_PIXELS // max(1, int(np.prod(self.file["image"].shape[1:]))))
        return [slice(start, min(start + thickness, len(self))) for start in range(0, len(self), thickness)]

    def problems(self):
        """What is inconsistent in the file, one sentence each; an empty list for a sound file. Reads all of it once."""
        found = [] if self.file["image"].size else [f"image has shape {self.file['image'].shape}: no pixels"]
        shape = self.file["image"].shape
        expected = {"id": shape[:1], "image": shape, "mask": shape, "sky": sky_shape(shape),
                    **{f"table/{name}": shape[:1] for name in self.file.get("table", ())}}
        for name, shape in expected.items():
            if name in self and self.file[name].shape != shape:
                found.append(f"{name} has shape {self.file[name].shape}; expected {shape}")
        for name, kinds, words in (("id", "OS", "strings"), ("image", "f", "floats"), ("mask", "b", "bool"),
                                   ("sky", "f", "floats")):
            if name in self and self.file[name].dtype.kind not in kinds:
                found.append(f"{name} is of type {self.file[name].dtype}; expected {words}")
        if found:
            return found
        (name, times), = collections.Counter(self["id"][...]).most_common(1)
        if times > 1:
            found.append(f"id {name!r} stands there {times} times; each must be unique")
        infinite = sum(np.count_nonzero(np.isinf(self["image"][slab])) for slab in self.slabs())
        if infinite:
            found.append(f"image has {infinite} infinite pixels; a bad pixel is NaN")
        return found

    def validate(self):
        """Raise DataError naming everything that `problems` finds."""
        found = self.problems()
        if found:
            raise DataError(f"{self.path}: " + "; ".join(found))


def sky_shape(shape):
    """The shape of sky beside images of a shape: (n,) for (n, y, x), (n, band) for (n, y, x, band)."""
    return (*shape[:1], *shape[3:])


def _check_number(name, value, path):
    """Raise DataError if a root attribute has a number that it cannot have."""
    if not math.isfinite(value) or name != "zero_point" and value <= 0:
        raise DataError(f"{path}: {name}={value} must be a {'finite' if name == 'zero_point' else 'positive'} number",
                        value=value)


@contextlib.contextmanager
def writing(path, source, overwrite=False, **about):
    """Write an image set piece by piece: a context manager that gives a `Writer`.

    The file appears under its name at the end of the block, and only when it is valid.

    Parameters
    ----------
    path : str or Path
        Image-set file to write.
    source : str
        Where the images came from, in words.
    overwrite : bool
        Replace the file if it exists.
    **about
        Of unit, zero_point, pixel_scale [arcsec], psf_fwhm [arcsec] and bands (names with commas between) what is
        known; None as if not given.

    Yields
    ------
    Writer

    Raises
    ------
    DataError
        If the file exists, no image was appended, an id came twice, or a number of `about` cannot be.

    Examples
    --------
    >>> import numpy as np
    >>> from kerasgal import imageset
    >>> with imageset.writing("many.h5", "noise", pixel_scale=0.396) as writer:
    ...     for name in ("a", "b", "c"):
    ...         writer.append([name], np.random.default_rng(0).normal(size=(1, 8, 8)))
    >>> writer.images
    3
    """
    import h5py

    about = {name: value for name, value in about.items() if value is not None}
    unknown = sorted(about.keys() - {"unit", "bands", *NUMBERS})
    if unknown:
        raise TypeError(f"writing() got an unexpected argument {unknown[0]!r}")
    for name in about.keys() & set(NUMBERS):
        _check_number(name, about[name], path)
    several = len(band_names(about.get("bands", ""))) > 1

    with replacing(path, overwrite) as temporary:
        with h5py.File(temporary, "w") as file:
            file.attrs.update(format=FORMAT, version=VERSION if several else ONE_BAND, source=source, **about)
            writer = Writer(file, Path(path))
            yield writer
        if not writer.images:
            raise DataError(f"not writing {path}: there are no images")
        with ImageSet(temporary) as written:
            found = written.problems()
        if found:
            raise DataError(f"not writing {path}: " + "; ".join(found))


class Writer:
    """Appends images to the file that `writing` opened.

    Attributes
    ----------
    images : int
        How many there are.

    Examples
    --------
    See `writing`.
    """

    def __init__(self, file, path):
        self.file, self.path, self.images = file, path, 0

    def append(self, id, image, mask=None, sky=None, table=None):
        """Append images. What the first piece had, all must have.

        Parameters
        ----------
        id : sequence of str
            (m,), names.
        image : array
            (m, y, x), NaN for a bad pixel; of several bands (m, y, x, band).
        mask : array of bool, optional
            Of the same shape, True for a pixel not to be used.
        sky : array, optional
            (m,), or (m, band), sky that is still in the image, per pixel; NaN where it is not known.
        table : dict, optional
            Further columns, (m,).

        Raises
        ------
        DataError
            If a piece does not fit, or no room is left.
        """
        import h5py

        columns = {"id": np.asarray(id).astype(str), "image": np.asarray(image, np.float32)}
        if mask is not None:
            columns["mask"] = np.asarray(mask, bool)
        if sky is not None:
            columns["sky"] = np.asarray(sky, np.float32)
        columns |= {f"table/{name}": np.asarray(values) for name, values in (table or {}).items()}
        shape, bands = columns["image"].shape, band_names(self.file.attrs.get("bands", ""))
        if len(shape) != (4 if len(bands) > 1 else 3) or shape[3:] not in ((), (len(bands),)):
            accepted = f"(m, y, x, {len(bands)}), of {', '.join(bands)}" if len(bands) > 1 else \
                "(m, y, x), or (m, y, x, band) where `bands` names them"
            raise DataError(f"{self.path}: image has shape {shape}; expected is {accepted}")
        wanted = {"image": shape, "mask": shape, "sky": sky_shape(shape)}
        for name, values in columns.items():
            if values.shape != wanted.get(name, shape[:1]):
                raise DataError(f"{self.path}: {name} has shape {values.shape}, image {shape}; expected are (m, y, x) "
                                "for image and mask, (m,) for all others, and of several bands (m, band) for sky")
        if not len(columns["image"]):
            return
        self._check_fit(columns)
        check_room(self.path, sum(values.nbytes for values in columns.values()) + ROOM)
        for name, values in columns.items():
            if not self.images:
                text = values.dtype.kind in "US"
                rows = max(1, CHUNK_PIXELS // max(1, int(np.prod(values.shape[1:]))))
                self.file.create_dataset(name, (0, *values.shape[1:]), h5py.string_dtype() if text else values.dtype,
                                         maxshape=(None, *values.shape[1:]), chunks=(rows, *values.shape[1:]))
            dataset = self.file[name]
            dataset.resize(self.images + len(values), axis=0)
            dataset[self.images:] = values.astype(object) if values.dtype.kind == "U" else values
        self.images += shape[0]

    def add_columns(self, table):
        """Add further columns of all images that were appended.

        Parameters
        ----------
        table : dict
            {name: array (images,)}.

        Raises
        ------
        DataError
            If a column has another length.
        """
        import h5py

        for name, values in table.items():
            values = np.asarray(values)
            if values.shape != (self.images,):
                raise DataError(f"{self.path}: the column {name} has shape {values.shape}; there are {self.images} "
                                "images")
            text = values.dtype.kind in "US"
            self.file.create_dataset(f"table/{name}", data=values.astype(object) if text else values,
                                     dtype=h5py.string_dtype() if text else values.dtype)

    def _check_fit(self, columns):
        """Raise DataError if a piece has other datasets, or images of another size, than the pieces before."""
        if not self.images:
            return
        before = datasets(self.file)
        if set(before) != set(columns):
            raise DataError(f"{self.path}: received {', '.join(sorted(columns))} after {', '.join(sorted(before))}; "
                            "all images of a set have the same")
        expected, received = self.file["image"].shape[1:], columns["image"].shape[1:]
        if received != expected:
            raise DataError(f"{self.path}: received images of {received} pixels after ones of {expected}; all images "
                            "of a set have one size")


def write(path, *, id, image, source, mask=None, sky=None, table=None, overwrite=False, **about):
    """Write an image set from whole arrays.

    Parameters
    ----------
    path : str or Path
        Image-set file to write.
    id, image, mask, sky, table
        See `Writer.append`.
    source : str
        Where the images came from, in words.
    overwrite : bool
        Replace the file if it exists.
    **about
        See `writing`.

    Raises
    ------
    DataError
        If the file exists, there are no images, an id comes twice, or the arrays do not fit together.

    Examples
    --------
    >>> import kerasgal as kg
    >>> import numpy as np
    >>> from kerasgal import imageset
    >>> imageset.write("one.h5", id=["a"], image=np.ones((1, 8, 8)), source="made up", table={"redshift": [0.1]})
    >>> with kg.open("one.h5") as images:
    ...     print(images.table()["redshift"].tolist())
    [0.1]
    """
    with writing(path, source, overwrite, **about) as writer:
        writer.append(id, image, mask, sky, table)
