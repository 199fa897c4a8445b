"""Several bands of the same galaxies: images of one band each put together, and some of the bands taken out again.

Pixels of several bands are (y, x, band), and `Image.bands` names the bands in this order. All of them are in one unit
of flux with one zero point, that of the first.
"""

import logging
import re
from dataclasses import replace

import numpy as np

from kerasgal import imageset
from kerasgal.channel_names import band_names
from kerasgal.errors import DataError, DomainError, SettingError
from kerasgal.readers import flux

TOGETHER = 100  # galaxies that are written at once
LOOKED_AT = 20  # of which the noise of the bands is compared
SAME_NOISE = 0.5  # correlation of the noise of two bands above which it is the same: of real ones it is near 0
SAME_PIXELS = 0.02  # share by which the pixel scales of the bands may differ
PLACE = ("ra", "dec", "object")  # of a galaxy, whatever the band
SAME_PSF = 0.01  # and their seeing, for a set to have one number for it
RIM = 4  # rows at the upper and lower edge of an image in which the noise is compared

log = logging.getLogger(__name__)


def words(names, number=None):
    """Some bands in words; number: how many, where they have no names."""
    if names:
        return f"the band{'s' * (len(names) > 1)} {', '.join(names)}"
    return "one band" if number in (None, 1) else f"{number} bands without names"


def count(pixels):
    """How many bands pixels (y, x) or (y, x, band) have."""
    return 1 if pixels.ndim == 2 else pixels.shape[2]


def at(image, places):
    """Some of the bands of an image of several, by their places in it: a number for one, (y, x), or a list."""
    def of(values):
        return None if values is None else values[..., places]

    one = np.ndim(places) == 0
    facts = dict(image.facts)
    if "saturation" in facts:
        facts["saturation"] = of(facts["saturation"])
    sky = of(image.sky)
    names = tuple(image.bands[place] for place in np.atleast_1d(places)) if image.bands else ()
    return replace(image, pixels=of(image.pixels), mask=of(image.mask), variance=of(image.variance),
                   sky=float(sky) if one and sky is not None else sky, facts=facts, bands=names)


def pick(image, names):
    """The bands of these names of an image of several, in this order; the image as it is where it lacks one of them."""
    if image.error or image.pixels.ndim == 2 or not names or not set(names) <= set(image.bands):
        return image
    places = [image.bands.index(name) for name in names]
    return at(image, places if len(places) > 1 else places[0])


def stack(images, names, id):
    """One image of several bands, from one of each: pixels (y, x, band), in the unit and zero point of the first.

    images: of one galaxy, in the order of `names`. What they say differently of anything but the flux is left out.
    Raises DataError for one that could not be read, or where they have other pixels or no common unit of flux.
    """
    first, scaled = images[0], []
    for name, image in zip(names, images):
        if image.error:
            raise DataError(f"{id}: band {name}: {image.error}")
        if image.pixels.shape != first.pixels.shape:
            raise DataError(f"{id}: band {name} has {_by(image.pixels.shape)} pixels, band {names[0]} "
                            f"{_by(first.pixels.shape)}")
        scales = first.pixel_scale, image.pixel_scale
        if None not in scales and not _same_pixels(image.pixel_scale, first.pixel_scale):
            raise DomainError(f"{id}: band {name} has pixels of {scales[1]:.4g} arcsec, band {names[0]} of "
                              f"{scales[0]:.4g}", value=scales[1], accepted=scales[0])
        if image.unit is not None or image.zero_point is not None:
            image = flux.to_unit(image, first.unit, first.zero_point)
        if (image.unit, image.zero_point) != (first.unit, first.zero_point):
            raise DomainError(f"{id}: band {name} is in {_flux(image)}, band {names[0]} in {_flux(first)}: there is no "
                              "way from one to the other; give `unit` and `zero_point` of all", value=image.unit,
                              accepted=first.unit)
        scaled.append(image)
    masks = [image.mask for image in scaled]
    skies = [image.sky for image in scaled]
    return replace(
        first, id=id, bands=tuple(names), facts=_facts(scaled), columns={}, variance=None,
        pixels=np.stack([image.pixels for image in scaled], axis=-1),
        mask=None if all(mask is None for mask in masks) else np.stack(
            [np.zeros(first.pixels.shape, bool) if mask is None else mask for mask in masks], axis=-1),
        sky=None if all(sky is None for sky in skies) else np.array(
            [np.nan if sky is None else sky for sky in skies], np.float32),
        psf_fwhm=first.psf_fwhm if _same_psf(scaled) else None)


def _by(shape):
    return " x ".join(map(str, shape))


def _flux(image):
    """The unit and zero point of an image in words."""
    zero_point = "an unknown zero point" if image.zero_point is None else f"{image.zero_point:g} mag"
    return f"{image.unit or 'an unknown unit'} of {zero_point}"


def _same_psf(images):
    widths = [image.psf_fwhm for image in images]
    return None not in widths and max(widths) <= min(widths) * (1 + SAME_PSF)


def _facts(images):
    """What all bands say alike; a place and a name of the first that has them; the saturation of each."""
    facts = {}
    for name in dict.fromkeys(name for image in images for name in image.facts):
        values = [image.facts.get(name) for image in images]
        if name == "saturation":
            facts[name] = np.array([np.inf if value is None else value for value in values])
        elif name in ("object", "ra", "dec", "contradiction"):
            facts[name] = next(value for value in values if value is not None)
        elif all(value == values[0] for value in values):
            facts[name] = values[0]
    return facts


# Joining sets of one band each -------------------------------------------------------


def join(output, bands, *, overwrite=False, **options):
    """Join images of one band each to an image set of several bands.

    Images belong together that have one id, without a band's name at its end: "ngc1_g" and "ngc1_r" do. Masked pixels
    become NaN. Columns in which the bands differ are written for each, as NAME_BAND. What has not all bands is left
    out, and said. Images may stand in another order in each band; those that wait for the others are held.

    Parameters
    ----------
    output : str or Path
        Image-set file to write.
    bands : dict
        {name of the band: path, or list of paths, of files, folders or globs}, in the order of the bands.
    overwrite : bool
        Replace the file if it exists.
    **options
        masks, extension, unit, zero_point and flux_scale of `kerasgal.readers.images.stream`, for all bands.

    Returns
    -------
    int
        How many galaxies were written.

    Raises
    ------
    SettingError
        If fewer than two bands are given.
    DataError
        If the file exists, no galaxy has all bands, or images of one band share an id.

    Examples
    --------
    >>> import numpy as np
    >>> import kerasgal as kg
    >>> from kerasgal import imageset
    >>> from kerasgal.readers.bands import join
    >>> rng = np.random.default_rng(0)
    >>> for band in ("g", "r"):
    ...     imageset.write(f"{band}.h5", id=["a", "b"], image=rng.normal(size=(2, 8, 8)), source="noise")
    >>> join("both.h5", {"g": "g.h5", "r": "r.h5"})
    2
    >>> with kg.ImageSet("both.h5") as images:
    ...     print(images["image"].shape, images.bands)
    (2, 8, 8, 2) ('g', 'r')
    """
    from kerasgal.readers.images import stream

    names = band_names(",".join(bands))
    if len(names) < 2:
        raise SettingError(f"bands={','.join(names)!r}: at least two bands are joined", value=list(names))
    streams = {name: stream(paths, **options) for name, paths in zip(names, bands.values())}
    lost, columns, alike = [], [], []
    source = "; ".join(f"{name}: {_source(paths)}" for name, paths in zip(names, bands.values()))
    galaxies = _together(streams, names, lost, columns)
    first = next(galaxies, None)
    if first is None:
        raise DataError(f"no galaxy has all of {words(names)}" + (f": {lost[0]}" if lost else ""))
    about = {name: getattr(first, name) for name in ("unit", "zero_point", "pixel_scale", "psf_fwhm")}
    with imageset.writing(output, source, overwrite, bands=",".join(names), **about) as writer:
        group = [first]
        for image in galaxies:
            image = flux.to_unit(image, first.unit, first.zero_point)
            if not _same_pixels(image.pixel_scale, first.pixel_scale):
                said = ["of unknown size" if scale is None else f"of {scale:.4g} arcsec"
                        for scale in (image.pixel_scale, first.pixel_scale)]
                raise DataError(f"{image.id} has pixels {said[0]}, {first.id} {said[1]}: all images of a set have the "
                                "same")
            if image.psf_fwhm != first.psf_fwhm or (image.unit, image.zero_point) != (first.unit, first.zero_point):
                raise DataError(f"{image.id} has another unit, zero point or seeing than {first.id}: all images of a "
                                "set have the same")
            group.append(image)
            if len(group) == TOGETHER:
                _append(writer, group, alike)
                group = []
        if group:
            _append(writer, group, alike)
        writer.add_columns(_columns(columns, names))
    if lost:
        log.warning("left out, as not all bands are there and alike: %d galaxies, such as %s", len(lost), lost[0])
    _say_same_noise(alike, names)
    return writer.images


def _same_pixels(one, other):
    """True for two pixel scales that are one, or both unknown."""
    if None in (one, other):
        return one is other
    return abs(one / other - 1) <= SAME_PIXELS


def _source(paths):
    """What an image set says of where its images came from; of other files their name."""
    some = [paths] if not isinstance(paths, (list, tuple)) else paths
    said = []
    for path in some:
        try:
            with imageset.ImageSet(path) as images:
                said.append(images.source)
        except DataError:
            said.append(str(path))
    return ", ".join(said)


def _together(streams, names, lost, columns):
    """The galaxies of which all bands have come, as images of several; what is lost, and their columns, are noted."""
    waiting, done, live = {}, set(), dict(streams)
    while live:
        for name in list(live):
            image = next(live[name], None)
            if image is None:
                del live[name]
                continue
            key = re.sub(rf"[_.-]{re.escape(name)}(?=$|\[)", "", image.id)
            group = waiting.setdefault(key, {})
            if name in group or key in done:
                raise DataError(f"band {name} has two images that are called {key}")
            group[name] = image
            if len(group) < len(names):
                continue
            done.add(key)
            images = [waiting[key][band] for band in names]
            del waiting[key]
            try:
                made = stack(images, names, key)
            except DataError as error:
                lost.append(str(error))
                continue
            columns.append({band: image.columns | image.place | _seeing(image, made)
                            for band, image in zip(names, images)})
            yield made
    for key, group in waiting.items():
        reason = "; ".join(image.error for image in group.values() if image.error)
        missing = ", ".join(name for name in names if name not in group)
        lost.append(f"{key} has no band {missing}" + (f" ({reason})" if reason else ""))


def _seeing(image, made):
    """The column psf_fwhm of an image of one band, where that of all bands has none."""
    return {} if image.psf_fwhm is None or made.psf_fwhm is not None else {"psf_fwhm": image.psf_fwhm}


def _append(writer, group, alike):
    """Append galaxies to a set, and note how much the noise of two bands is alike in the first ones."""
    pixels = np.stack([image.pixels if image.mask is None else np.where(image.mask, np.float32(np.nan), image.pixels)
                       for image in group])
    bands = pixels.shape[-1]
    sky = np.stack([np.full(bands, np.nan) if image.sky is None else image.sky for image in group])
    for image in pixels[:LOOKED_AT - len(alike)] if len(alike) < LOOKED_AT else ():
        rim = np.concatenate([image[:RIM], image[-RIM:]])
        alike.append(_correlations(np.diff(rim, axis=1).reshape(-1, bands)))
    writer.append([image.id for image in group], pixels, sky=sky)


def _correlations(values):
    """Correlations of the columns of values, (n, bands): (bands, bands), of the rows that are finite; 0 where none."""
    good = values[np.isfinite(values).all(axis=1)].astype(np.float64)
    with np.errstate(all="ignore"):
        return np.nan_to_num(np.corrcoef(good, rowvar=False)) if len(good) > 2 else np.zeros((values.shape[1],) * 2)


def _say_same_noise(alike, names):
    """Warn of two bands that have the same noise, as made-up ones of the same seed have: no observed ones do."""
    found = np.median(alike, axis=0)
    for one, other in zip(*np.triu_indices(len(names), 1)):
        if found[one, other] > SAME_NOISE:
            log.warning("bands %s and %s have the same noise in their skies (correlation %.2f): made-up images need "
                        "another seed in each band", names[one], names[other], found[one, other])


def _columns(rows, names):
    """The columns of a set of several bands: those in which the bands agree as they are, others as NAME_BAND.

    rows: for each galaxy {band: {name: value}}. A column that not all galaxies have is left out; a place and a name on
    the sky are those of the first band that has them.
    """
    table = {}
    for name in dict.fromkeys(name for band in names for name in rows[0][band]):
        values = {band: np.array([row[band][name] for row in rows]) for band in names
                  if all(name in row[band] for row in rows)}
        values = {band: array.astype(str) if array.dtype.kind in "OS" else array for band, array in values.items()}
        first = next(iter(values.values()), None)
        if first is None:
            continue
        alike = len(values) == len(names) and all(
            np.array_equal(first, array, equal_nan=first.dtype.kind == "f") for array in values.values())
        if alike or name in PLACE:
            table[name] = first
        else:
            table |= {f"{name}_{band}": array for band, array in values.items()}
    return table
