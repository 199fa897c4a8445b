"""The unit of flux of an image, and what a FITS header says of it.

What an image says of its flux is its `unit` and its `zero_point`: the AB magnitude of a source with a flux of one such
unit. Units of flux density have a zero point of their own; that of counts is the camera's and the exposure's. What
neither file nor caller says is None: it is unknown, and nothing here makes it up.
"""

import math
import warnings
from dataclasses import dataclass, replace

import numpy as np

from kerasgal.errors import DataError, DomainError, SettingError

JANSKY = 8.9  # AB magnitude of one jansky, to 0.0002: 2.5 log10(3631)
# Magnitude of one unit: AB, but for SDSS's maggies, which differ from AB by 0.01 in r and less (Doi et al. 2010)
ZERO_POINTS = {"maggies": 0.0, "nanomaggies": 22.5, "Jy": JANSKY, "mJy": JANSKY + 7.5, "uJy": JANSKY + 15,
               "nJy": JANSKY + 22.5}
BRIGHTNESS = "MJy/sr"  # its zero point is that of the solid angle of a pixel
UNITS = ("counts", "counts/s", "electrons", "electrons/s", *ZERO_POINTS, BRIGHTNESS)
# How headers and users write a unit, in lower case, without blanks and plural s
NAMES = {
    "counts": ("count", "ct", "cnt", "adu", "dn", "datanumber"),
    "electrons": ("electron", "e", "e-", "el", "photoelectron", "ele"),
    "maggies": ("maggy", "maggie", "mgy"),
    "nanomaggies": ("nanomaggy", "nanomaggie", "nmgy", "nmaggy", "nmaggie"),
    "Jy": ("jy", "jansky"),
    "mJy": ("mjy", "millijansky"),
    "uJy": ("ujy", "microjansky", "\u00b5jy", "\u03bcjy"),
    "nJy": ("njy", "nanojansky"),
}
PER_SECOND = ("/second", "/sec", "/s", "s-1", "s^-1", "s**-1", ".s-1", "*s-1", "persecond", "persec")
PER_PIXEL = ("/pixel", "/pix", "pixel-1", "pix-1")
# Cards that hold the magnitude of one unit of the image, and those that hold the flux of a magnitude
MAGNITUDES = ("MAGZERO", "MAGZPT", "MAGZP", "ZP", "ZEROPT", "ZEROPNT", "ZEROPOIN", "ZPT", "PHOTZP", "PHOTZPT", "ABZP",
              "ABMAGZP", "ZPAB", "MAG_ZP", "MAG0", "ZEROPOINT")
FLUXES = {"FLUXMAG0": 0.0, "FLUX20": 20.0}
POSSIBLE = 0, 60  # zero points of headers that are taken for one: others are what a card has that has no value
AGREEMENT = 0.02  # magnitudes by which two statements of one zero point may differ
SCALES = ("PIXSCALE", "PIXSCAL", "PIXSCAL1", "PIXSCL", "SECPIX", "SECPIX1", "PIXELSCL")  # arcsec
AREAS = {"PIXAR_A2": 1.0, "PIXAR_SR": (180 / math.pi * 3600)**2}  # to square arcsec
EXPOSURES, GAINS = ("EXPTIME", "EXPOSURE", "TEXPTIME", "XPOSURE"), ("GAIN", "EGAIN", "CCDGAIN")
# Of the object, right ascension and declination; where the camera pointed (CRVAL) is not where the object is
POSITIONS = (("RA", "DEC"), ("RA_OBJ", "DEC_OBJ"), ("RA_TARG", "DEC_TARG"), ("OBJRA", "OBJDEC"))
SATURATIONS = ("SATURATE", "SATURATA", "SATLEVEL", "SATURLEV")


@dataclass
class Said:
    """What a header says of its image; None where it says nothing.

    unit: of `UNITS`, or as it stands there if it is none of them; zero_point: magnitude of one unit; pixel_scale:
    arcsec; facts: what else, by names: object, ra and dec (degrees), exposure (s), gain,
    saturation (in units of the pixels as stored), nanomaggies_per_count, soft_bias.
    """

    unit: str | None
    zero_point: float | None
    pixel_scale: float | None
    facts: dict


def known_unit(text):
    """The one of `UNITS` that a text means, in whichever spelling, or None.

    Examples
    --------
    >>> known_unit("nanomaggy"), known_unit("DN / s"), known_unit("furlong")
    ('nanomaggies', 'counts/s', None)
    """
    plain = "".join(str(text).split())
    if plain.lower() == BRIGHTNESS.lower() and plain[0] == "M":
        return BRIGHTNESS
    if plain.lower().startswith("mjy") and plain[0] == "M":
        return None  # megajansky, and not per solid angle
    plain = plain.lower()
    for ending in PER_PIXEL:
        plain = plain.removesuffix(ending)
    second = next((ending for ending in PER_SECOND if plain.endswith(ending) and plain != ending), "")
    plain = plain.removesuffix(second)
    stem = plain.removesuffix("s")
    found = next((unit for unit, names in NAMES.items() if plain in names or stem in names), None)
    if not second:
        return found
    return f"{found}/s" if found in ("counts", "electrons") else None


def check_unit(unit):
    """The one of `UNITS` that a caller's `unit` means; raises SettingError for any other."""
    found = known_unit(unit)
    if found is None:
        raise SettingError(f"unit={unit!r} is no unit of flux that is known; accepted are {', '.join(UNITS)}",
                           value=unit, accepted=list(UNITS))
    return found


def check_zero_point(zero_point):
    """Raise SettingError for a caller's `zero_point` that no unit of flux has."""
    if not -50 < zero_point < 100:
        raise SettingError(f"zero_point={zero_point} is no magnitude of a unit of flux; accepted are -50 to 100",
                           value=zero_point, accepted=(-50, 100))


def own_zero_point(unit, pixel_scale=None):
    """The magnitude of one unit that is the same for everybody; None for counts, electrons and what is unknown.

    pixel_scale: arcsec, which fluxes per solid angle need.
    """
    if unit == BRIGHTNESS and pixel_scale:
        steradians = (pixel_scale / 3600 * math.pi / 180)**2
        return JANSKY - 2.5 * math.log10(1e6 * steradians)
    return ZERO_POINTS.get(unit)


def of_header(header, own=None):
    """What a FITS header says of the flux, the pixels and the object of its image, as `Said`.

    header: anything whose `get` gives the value of a card, or None; own: the header that may have a WCS, by default the
    same. Raises DataError where two cards contradict each other on the zero point.
    """
    text = _text(header, "BUNIT")
    unit = None if text is None else known_unit(text) or text
    scale = _pixel_scale(header, header if own is None else own)
    facts = {"object": _text(header, "OBJECT"), "exposure": _positive(header, EXPOSURES),
             "gain": _positive(header, GAINS), "saturation": _positive(header, SATURATIONS),
             "nanomaggies_per_count": _positive(header, ("NMGY",)), "soft_bias": _positive(header, ("SOFTBIAS",))}
    facts |= _position(header)
    zero_point = own_zero_point(unit, scale)
    if zero_point is None and unit != BRIGHTNESS:
        zero_point = _zero_point(header, unit, facts)
    return Said(unit, zero_point, scale, {name: value for name, value in facts.items() if value is not None})


def to_unit(image, unit, zero_point=None, flux_scale=None):
    """An image in another unit of flux.

    Parameters
    ----------
    image : kerasgal.readers.images.Image
        Its pixels, variance, sky and saturation are multiplied by one number.
    unit : str or None
        Of `UNITS`: the unit that is wanted, such as that of the images a run was trained on; None if nobody knows.
    zero_point : float, optional
        AB magnitude of one such unit; those of flux density have their own.
    flux_scale : float, optional
        The number of units that one of the image's is, where the caller knows better than all headers. By default
        ``image.flux_scale``, and where that is None what the units and zero points of both say.

    Returns
    -------
    Image
        In the unit that is wanted. An image of which nothing is said is returned as it is, with ``unit`` None: what
        it is in stays unknown. So does ``zero_point`` of an image in counts that has none.

    Raises
    ------
    SettingError
        If `unit` is none that is known, or the scale is not a positive number.
    DomainError
        If the image's unit is known and there is no way from it to the one that is wanted.

    Examples
    --------
    >>> import numpy as np
    >>> from kerasgal.readers.images import Image
    >>> image = Image("a", np.ones((2, 2), "f4"), unit="nanomaggies", zero_point=22.5)
    >>> to_unit(image, "counts", zero_point=25.0).pixels
    array([[10., 10.],
           [10., 10.]], dtype=float32)
    """
    unit = None if unit is None else check_unit(unit)
    if zero_point is not None:
        check_zero_point(zero_point)
    zero_point = own_zero_point(unit, image.pixel_scale) if zero_point is None else zero_point
    scale = image.flux_scale if flux_scale is None else flux_scale
    if image.error:
        return image
    if scale is not None:
        if not 1e-30 < scale < 1e30:
            raise SettingError(f"flux_scale={scale:g} must be a positive number, and one between two units of flux",
                               value=scale, accepted=(1e-30, 1e30))
        return _scaled(image, scale, unit, zero_point)
    if image.unit is None and image.zero_point is None or unit is None:
        return image
    if None not in (image.zero_point, zero_point):
        return _scaled(image, 10**(0.4 * (zero_point - image.zero_point)), unit, zero_point)
    if image.unit == unit:  # nobody says that they differ, nor that they are alike
        return image
    instrument = _within_instrument(image, unit)
    if zero_point is None and instrument is not None:
        return _scaled(image, instrument, unit, None)
    if image.zero_point is None and image.unit not in UNITS:
        reason = "which is no unit of flux that is known: give `unit` or `flux_scale`"
    elif image.zero_point is None:
        reason = f"whose zero point is not known, and {unit} are wanted: give `zero_point` or `flux_scale`"
    else:
        reason = f"and {unit} are wanted, whose zero point is not known: give `flux_scale`"
    raise DomainError(f"{image.id}: the image is in {image.unit or 'a unit without a name'}, {reason}",
                      value=image.unit, accepted=unit)


def _scaled(image, scale, unit, zero_point):
    facts = dict(image.facts)
    if "saturation" in facts:
        facts["saturation"] = facts["saturation"] * scale  # of several bands an array

    def times(values, factor):
        with np.errstate(over="ignore", invalid="ignore"):  # what float32 does not hold is a bad pixel
            return None if values is None else (values * np.float64(factor)).astype(np.float32)

    return replace(image, pixels=times(image.pixels, scale), variance=times(image.variance, scale**2), facts=facts,
                   sky=None if image.sky is None else image.sky * scale, unit=unit, zero_point=zero_point,
                   flux_scale=None)


def _within_instrument(image, unit):
    """What one unit of an image is in another of the same camera, by its exposure, gain or calibration; or None."""
    per_count = image.facts.get("nanomaggies_per_count")
    if image.unit == "nanomaggies" and unit == "counts" and per_count:
        return 1 / per_count
    electrons = {name: name.startswith("electrons") for name in (image.unit, unit)}
    rates = {name: str(name).endswith("/s") for name in (image.unit, unit)}
    if not {image.unit, unit} <= {"counts", "counts/s", "electrons", "electrons/s"}:
        return None
    gain, exposure = image.facts.get("gain"), image.facts.get("exposure")
    scale = 1.0
    if electrons[image.unit] != electrons[unit]:
        if gain is None:
            return None
        scale *= gain if electrons[unit] else 1 / gain
    if rates[image.unit] != rates[unit]:
        if exposure is None:
            return None
        scale *= exposure if rates[image.unit] else 1 / exposure
    return scale


def _value(header, name):
    """The value of a card, or None: also where it cannot be read."""
    try:
        return header.get(name)
    except Exception:  # what does not follow the standard raises an error of its own kind
        return None


def _text(header, name):
    value = _value(header, name)
    return value.strip() or None if isinstance(value, str) else None


def _number(header, name):
    """A card's number, also where it stands there as text; None for anything else."""
    value = _value(header, name)
    if isinstance(value, bool):
        return None
    try:
        value = float(value)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def _positive(header, names):
    """The first of some cards that holds a positive number, or None."""
    values = (_number(header, name) for name in names)
    return next((value for value in values if value is not None and value > 0), None)


def _position(header):
    """ra and dec of the object in degrees: a dictionary, empty where no pair of cards says both."""
    for cards in POSITIONS:
        ra, dec = _angle(header, cards[0], hours=True), _angle(header, cards[1])
        if None not in (ra, dec) and -180 <= ra <= 360 and abs(dec) <= 90:
            return {"ra": ra % 360, "dec": dec}
    return {}


def _angle(header, card, hours=False):
    """A card's angle in degrees, None where it has none; hours: what those of sexagesimal texts without units are."""
    value = _number(header, card)
    text = _text(header, card)
    if value is not None or text is None:
        return value
    from astropy.coordinates import Angle

    # "12:30:00" and "12 30 00" are hours in a right ascension; "12h30m" and "187d30m" say what they are.
    named = any(letter in text.lower() for letter in "hd")
    try:
        angle = Angle(text) if named else Angle(text, "hourangle" if hours else "deg")
    except (ValueError, TypeError):  # astropy's, of several kinds
        return None
    return float(angle.deg)


def _pixel_scale(header, own):
    """Side of a pixel in arcsec, of the WCS or the cards that say it, or None."""
    scale = _wcs_scale(own)
    if scale is None:
        scale = _positive(header, SCALES)
    if scale is None:
        areas = [_number(header, card) for card in AREAS]
        squares = [area * factor for area, factor in zip(areas, AREAS.values()) if area is not None and area > 0]
        scale = math.sqrt(squares[0]) if squares else None
    return scale if scale is not None and 1e-6 < scale < 1e5 else None


def _wcs_scale(header):
    from astropy.wcs import WCS
    from astropy.wcs.utils import proj_plane_pixel_scales

    if not any(str(_value(header, f"CTYPE{axis}")).startswith(("RA", "DEC", "GLON", "GLAT")) for axis in (1, 2)):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sky = WCS(header, naxis=2).celestial
            sides = [float(side) * 3600 for side in proj_plane_pixel_scales(sky)]
    except Exception:  # wcslib's errors: a header that is not sound says nothing
        return None
    scale = math.sqrt(abs(sides[0] * sides[1])) if len(sides) == 2 else 0
    return scale if math.isfinite(scale) and scale > 0 else None


def _zero_point(header, unit, facts):
    """The magnitude of one unit of the image from the cards that say it, or None; DataError where they disagree."""
    found = {card: _number(header, card) for card in MAGNITUDES}
    for card, magnitude in FLUXES.items():
        flux = _positive(header, (card,))
        if flux is not None:
            found[card] = magnitude + 2.5 * math.log10(flux)
    per_count = facts["nanomaggies_per_count"]
    if per_count is not None and unit == "counts":
        found["NMGY"] = 22.5 - 2.5 * math.log10(per_count)
    found |= _hubble(header, unit, facts["exposure"])
    low, high = POSSIBLE
    found = {card: value for card, value in found.items() if value is not None and low < value < high}
    if found and max(found.values()) - min(found.values()) > AGREEMENT:
        said = ", ".join(f"{card} {value:g}" for card, value in found.items())
        raise DataError(f"the cards of its header contradict each other on the magnitude of one unit: {said}; give "
                        "`zero_point` or `flux_scale`")
    return next(iter(found.values()), None)


def _hubble(header, unit, exposure):
    """The zero point of the cards of the Hubble Space Telescope, which are of electrons a second, or none."""
    sensitivity, pivot = _positive(header, ("PHOTFLAM",)), _positive(header, ("PHOTPLAM",))
    if sensitivity is None or pivot is None:
        return {}
    # From erg / s / cm^2 / angstrom to AB (ACS Data Handbook, Sec. 5.1.1)
    rate = -2.5 * math.log10(sensitivity) - 5 * math.log10(pivot) - 2.408
    if unit in ("electrons/s", "counts/s"):
        return {"PHOTFLAM": rate}
    if unit in ("electrons", "counts") and exposure is not None:
        return {"PHOTFLAM": rate + 2.5 * math.log10(exposure)}
    return {}
