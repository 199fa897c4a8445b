"""Where archetypes' parameters and skies come from: tables, image sets, fits, borders of images."""

import collections
import dataclasses
import logging

import numpy as np

from kerasgal.apps.morph import archetypes, fitting
from kerasgal.errors import DataError, DomainError
from kerasgal.imageset import ImageSet
from kerasgal.plotting import counting
from kerasgal.readers import images as readers
from kerasgal.readers.flux import AGREEMENT, own_zero_point, to_unit

log = logging.getLogger(__name__)

SKIES = 200  # stamps of sky that are patched together
FAR_NOISE, OTHER_NOISE = 1e-4, 2.0  # of the camera's: less is of another unit; a factor that is worth a word
SAME_PIXELS = 0.02  # share by which the pixel scales of an image and of the camera may differ
KNOWN = (*readers.PLACE, "redshift", "log_mass", "radius_kpc", "sfr", "log_ssfr")  # of a galaxy, beside its profile
QUALITY = ("fit_sky", "fit_noise", "chi2", "fit_flag")  # columns of fits beside their parameters


def parameters_of(path, camera):
    """Sersic parameters of a table, or of the columns of an image set; see `archetypes.sersic_parameters`.

    Of an image set also what else it knows of the galaxies, the columns of `KNOWN`.
    """
    if str(path).endswith((".h5", ".hdf5")):
        with ImageSet(path) as images:
            table = _table_of(images, camera)
            found = archetypes.sersic_parameters({"id": images["id"][...], **table}, camera, str(path))
            return found | {name: table[name] for name in KNOWN if name in table}
    return archetypes.read_parameters(path, camera)


def _table_of(images, camera):
    """The columns of an image set, in the counts and pixels of a camera where the set says what its own are."""
    table, about = images.table(), images.about()
    if about["pixel_scale"] is not None:
        pixels = about["pixel_scale"] / camera.pixel_scale
        lengths = sum((archetypes.ALIASES[name] for name in ("radius_pixel", "x_offset", "y_offset")), ())
        named = tuple(f"{name}_" for name in lengths)  # in one of several bands
        table |= {name: pixels * values for name, values in table.items()
                  if values.dtype.kind in "iuf" and (name.lower() in lengths or name.lower().startswith(named))}
    own = about["zero_point"]
    if own is None:
        own = own_zero_point(about["unit"], about["pixel_scale"])
    if own in (None, camera.zero_point):
        return table
    counts = 10**(0.4 * (camera.zero_point - own))
    return {name: counts * values if name.split("_")[0] == "flux" and values.dtype.kind in "iuf" else values
            for name, values in table.items()}


def parameters_of_bands(path, camera, bands=()):
    """The same in several bands, {band: parameters}: a column NAME_BAND is of that band, NAME of all of them.

    bands: their names, by default those of the image set; empty if that has one, or for a table.
    """
    is_set, known = str(path).endswith((".h5", ".hdf5")), {}
    if is_set:
        with ImageSet(path) as images:
            table = {"id": images["id"][...], **_table_of(images, camera)}
            bands = bands or (images.bands if len(images.bands) > 1 else ())
            known = {name: table[name] for name in KNOWN if name in table}
    else:
        table = archetypes.read_table(path) if bands else None
    return {band: known | archetypes.sersic_parameters(archetypes.columns_of_band(table, bands, band), camera,
                                                       f"{path}, band {band}") for band in bands}


def fitted(paths, psf, camera, *, sky=None, masks=None, extension=None, unit=None, zero_point=None, flux_scale=None):
    """Sersic parameters fitted to the galaxies of images.

    Parameters
    ----------
    paths : str, Path, or a list of them
        Of images; see `kerasgal.readers.images.stream`, also for `masks`, `extension`, `unit`, `zero_point` and
        `flux_scale`.
    psf : galsim.GSObject
        Point spread function, as `archetypes.moffat_psf` or `archetypes.read_psf` make it.
    camera : archetypes.Camera
        In the counts of which the parameters are: images with another zero point of their own are brought to its one.
    sky : float, optional
        Of a pixel, in the images' own unit, to subtract; 0 where it is subtracted already. By default what an image
        set says, and where nothing does it is fitted with each galaxy.

    Returns
    -------
    dict
        Columns (galaxies,) as of `archetypes.sersic_parameters`, and fit_sky and fit_noise [counts], chi2 per pixel and
        fit_flag, of `kerasgal.apps.morph.fitting`; and ra, dec [deg] and object where images have them. Images that
        cannot be fitted are left out, and logged as warnings, as are how many have which flag and how many images did
        not say their unit of flux, which are taken for the camera's counts.

    Raises
    ------
    DataError
        If no image could be fitted.
    """
    rows, places, assumed, left = [], [], 0, []
    for image in counting(readers.stream(paths, masks, extension, unit, zero_point, flux_scale), "fitted"):
        try:
            image, known = _as_counts(image, camera, sky)
            found = fitting.fit_sersic(image.pixels, psf, camera, image.mask, image.sky, image.variance)
            if not known and found["fit_noise"] < FAR_NOISE * camera.noise:
                raise DataError(f"the noise of its sky is {found['fit_noise']:.3g}, and the camera's "
                                f"{camera.noise:.3g} counts: it is in another unit; give `unit` or `flux_scale`")
        except DataError as error:
            left.append(f"{image.id}: {error}")
            log.warning("left out: %s", left[-1])
            continue
        assumed += not known
        rows.append({"id": image.id, **found})
        places.append(image.place)
    if not rows:
        raise DataError(f"no image could be fitted: {left[0]}" if left else "no image could be fitted")
    if assumed:
        log.warning("%d of %d images do not say their unit of flux: taken for counts of which one has %g mag",
                    assumed, len(rows), camera.zero_point)
    noise = float(np.median([row["fit_noise"] for row in rows]))
    if not 1 / OTHER_NOISE <= noise / camera.noise <= OTHER_NOISE:
        log.warning("the noise of the images' sky is %.3g counts, the camera's, with which archetypes are drawn where "
                    "no skies are given, %.3g", noise, camera.noise)
    _say_flags(rows)
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    quality = {name: columns.pop(name) for name in QUALITY}
    return archetypes.sersic_parameters(columns, camera, "the fits") | quality | readers.columns_of_places(places)


def _say_flags(rows):
    """Log how many fits have which flag."""
    counts = collections.Counter(name for row in rows for name, bit in fitting.FLAGS.items() if row["fit_flag"] & bit)
    flagged = sum(row["fit_flag"] > 0 for row in rows)
    if flagged:
        words = ", ".join(f"{name} {counts[name]}" for name in fitting.FLAGS if counts[name])
        log.warning("%d of %d fits are to be looked at (column fit_flag): %s", flagged, len(rows), words)


def _as_counts(image, camera, sky=None):
    """An image in the counts of a camera, and whether it said what its flux is in; sky: of its pixels, its own unit.

    Raises DataError where it could not be read, has other pixels than the camera, or is in a unit from which there is
    no way to the camera's; and where a flux_scale that was given is not what its zero point and the camera's make it.
    """
    if image.error:
        raise DataError(image.error)
    scale = image.pixel_scale
    if scale is not None and abs(scale / camera.pixel_scale - 1) > SAME_PIXELS:
        raise DomainError(f"its pixels are of {scale:.4g} arcsec, the camera's of {camera.pixel_scale:g}: give "
                          f"pixel_scale={scale:.4g}", value=scale, accepted=camera.pixel_scale)
    if sky is not None:
        image = dataclasses.replace(image, sky=sky)
    elif image.sky is not None and not np.isfinite(image.sky):
        image = dataclasses.replace(image, sky=None)
    told = image.flux_scale is not None
    if told and image.zero_point is not None:
        own = 10**(0.4 * (camera.zero_point - image.zero_point))
        if not abs(2.5 * np.log10(image.flux_scale / own)) <= AGREEMENT:
            raise DomainError(f"flux_scale={image.flux_scale:g} was given, and by its own zero point, "
                              f"{image.zero_point:g}, one of its units is {own:.4g} counts of the camera, of which one "
                              f"has {camera.zero_point:g} mag: leave `flux_scale` out",
                              value=image.flux_scale, accepted=own)
    if not told and image.zero_point is None and image.unit not in (None, "counts"):
        # What `to_unit` would say, but the zero point that can be given here is the camera's.
        raise DomainError(f"it is in {image.unit} of an unknown zero point, and counts of the camera are wanted, of "
                          f"which one has {camera.zero_point:g} mag: give `flux_scale`", value=image.unit)
    image = to_unit(image, "counts", camera.zero_point)
    return image, told or image.zero_point is not None


def skies(paths, size, rng, *, camera=None, masks=None, extension=None, unit=None, zero_point=None, flux_scale=None):
    """Stamps of real sky from the borders of images, (SKIES, size, size) float32.

    camera: in the counts of which they are; where an image does not say what it is in, or without a camera, it is taken
    as it is. Others as for `fitted`. Images that cannot be read are logged and left out. Raises DataError where none is
    left.
    """
    good = []
    for image in readers.stream(paths, masks, extension, unit, zero_point, flux_scale):
        try:
            if image.error:
                raise DataError(image.error)
            if camera is not None:
                image, _ = _as_counts(image, camera)
        except DataError as error:
            log.warning("left out: %s: %s", image.id, error)
            continue
        good.append(image.pixels if image.mask is None else np.where(image.mask, np.float32(np.nan), image.pixels))
    if not good:
        raise DataError(f"no image that can be read in {', '.join(map(str, paths))}")
    return archetypes.border_skies(good, SKIES, size, rng)
