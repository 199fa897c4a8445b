"""From the image of a galaxy to what the networks see (Zanisi et al. 2020, arXiv:2007.00039), in training and scoring.

In this order: subtract the sky, replace bad pixels, rotate, cut out the centre, rebin, stretch. Rebinned by a spline,
an image is turned, cut and rebinned by one interpolation: turned or not, its noise has the same variance. The centre of
an image is the point about which its pixels are symmetric; where it has an odd number of them and the cut an even one,
the cut is half a pixel off, towards lower indices. Each band of an image of several is prepared as if it were alone.
"""

import math

import numpy as np

from kerasgal.errors import DataError, DomainError
from kerasgal.readers import bands

BORDER = 0.05  # of the side of an image: width of the frame in which the sky is measured
BAD_LIMIT = 0.2  # share of the cut's pixels that may be bad
RIM, SMOOTHING = 3, 1.0  # pixels around a hole that its filling is made from, and how little it follows each of them
SPLINE_REACH = 8  # pixels beyond which others weigh less than 1e-4 in a cubic spline (0.27 per pixel)


def prepare(image, config, angle=0.0):
    """An image as the networks see it: (size, size, bands) float32, at most 1 and about 0 in the sky.

    image: `kerasgal.readers.images.Image`; config: `TrainConfig`; angle: degrees, counter-clockwise when row 0 is at
    the top, see `stamp`. Raises DataError as `clean` does.
    """
    return stamp(clean(image, config), config, angle)


def check_bands(image, config):
    """Raise DomainError if an image has not as many bands as the networks of a configuration take."""
    found = bands.count(image.pixels)
    if found != config.channels:
        raise DomainError(f"{image.id} has {bands.words(image.bands, found)}, and the networks take "
                          f"{bands.words(config.names)} (see `bands`)", value=image.bands, accepted=config.names)


def grey(image):
    """A prepared image, (..., y, x, band), as (..., y, x): the mean over its bands."""
    return image[..., 0] if image.shape[-1] == 1 else image.mean(axis=-1)


def clean(image, config):
    """The part of an image that some rotation of the cut may need, without sky and bad pixels: (y, x) float32 counts.

    Of an image of several bands (y, x, band).

    Sky: where the image states its own, that; otherwise what config.sky says. Bad pixels (masked or not finite) are
    filled in smoothly from those around them, without noise. Raises DataError if the image could not be read, is
    smaller than config.crop, has no good pixel for the sky or too many bad ones in the cut, before it is turned.
    """
    if image.error:
        raise DataError(image.error)
    check_bands(image, config)
    if image.pixels.ndim == 3:
        return np.stack([clean_band(bands.at(image, place), config) for place in range(config.channels)], axis=-1)
    return clean_band(image, config)


def clean_band(image, config):
    """The same of an image of one band."""
    if min(image.pixels.shape) < config.crop:
        received = " x ".join(map(str, image.pixels.shape))
        raise DataError(f"{image.id}: the image has {received} pixels, fewer than crop={config.crop}",
                        value=image.pixels.shape, accepted=config.crop)
    bad = bad_pixels(image)
    share = cut(bad, config.crop).mean()
    if share > BAD_LIMIT:
        raise DataError(f"{image.id}: {share:.0%} of the pixels in the cut are bad; accepted are up to {BAD_LIMIT:.0%}")
    sky = image.sky if image.sky is not None and np.isfinite(image.sky) else measured_sky(image, bad, config.sky)
    reach = math.ceil(math.sqrt(2) * config.crop) + 1 + 2 * SPLINE_REACH
    around = tuple(slice(max(0, (side - reach) // 2), side - max(0, (side - reach) // 2)) for side in bad.shape)
    return fill(image.pixels[around] - np.float32(sky), bad[around])


def bad_pixels(image):
    """The pixels of an image that are masked or not finite: (y, x) or (y, x, band) bool."""
    bad = ~np.isfinite(image.pixels)
    return bad if image.mask is None else bad | image.mask


def measured_sky(image, bad, method):
    """Sky per pixel: 0 for "none"; "border": the median of the outermost 5%; "clipped": the sigma-clipped median."""
    if method == "none":
        return 0.0
    if method == "clipped":
        from astropy.stats import sigma_clipped_stats

        return sigma_clipped_stats(image.pixels[~bad])[1]
    y, x = (max(1, round(BORDER * side)) for side in bad.shape)
    frame = ~bad
    frame[y:-y, x:-x] = False
    if not frame.any():
        raise DataError(f"{image.id}: all pixels of the border are bad, in which sky='border' measures the sky")
    return np.median(image.pixels[frame])


def fill(pixels, bad):
    """The pixels (y, x), each hole of bad ones replaced by a smooth surface through the good ones around it.

    Radial basis functions of the distance itself follow a galaxy's slope, which averages of neighbours flatten, and
    take over less than half as much of the sky's noise as the thin plates of biharmonic inpainting do.
    """
    if not bad.any():
        return pixels
    from scipy import ndimage
    from scipy.interpolate import RBFInterpolator

    filled, touching = np.where(bad, np.float32(0), pixels), np.ones((3, 3))
    holes, _ = ndimage.label(bad, touching)
    for number, box in enumerate(ndimage.find_objects(holes), 1):
        box = tuple(slice(max(0, side.start - RIM), side.stop + RIM) for side in box)
        hole = holes[box] == number
        rim = ndimage.binary_dilation(hole, touching, RIM) & ~bad[box]
        surface = RBFInterpolator(np.argwhere(rim), pixels[box][rim], kernel="linear", smoothing=SMOOTHING)
        filled[box][hole] = surface(np.argwhere(hole))
    return filled


def stamp(counts, config, angle=0.0):
    """Counts turned by an angle, cut, rebinned and stretched: (y, x) -> (size, size, 1) float32 in [-1, 1].

    Of several bands (y, x, band) -> (size, size, band).

    An image whose sides are not larger than sqrt(2) times the cut would show corners that nobody observed: it is turned
    by the multiple of 90 degrees that is next to `angle`. Multiples of 90 degrees move pixels and change none.
    """
    if counts.ndim == 3:
        return np.concatenate([stamp(counts[..., band], config, angle) for band in range(counts.shape[2])], axis=-1)
    factor = config.crop // config.size
    if angle % 90 == 0 or min(counts.shape) - 1 < math.sqrt(2) * config.crop:
        counts, angle = np.rot90(counts, round(angle / 90)), 0.0
    if config.rebin == "spline":
        rebinned = turned_cut(counts, config.crop, angle, config.size)
    else:
        pixels = turned_cut(counts, config.crop, angle) if angle else cut(counts, config.crop)
        rebinned = pixels.reshape(config.size, factor, config.size, factor).mean(axis=(1, 3))
    # Only bright cores are cut off. The sky's noise goes below zero, and stays: clipped there, half of the sky would be
    # exactly zero, a value of infinite density.
    return np.arcsinh(rebinned / np.float32(config.softening)).clip(-1, 1)[..., None]


def turned_cut(counts, side, angle, points=None):
    """The cut of an image turned by an angle, (side, side), of which only the cut is computed.

    points: so many values along each side instead, evenly spaced from the centre of the first pixel to that of the
    last, as SciPy's `zoom` and Zanisi et al. take them.
    """
    from scipy.ndimage import affine_transform

    sine, cosine = math.sin(math.radians(angle)), math.cos(math.radians(angle))
    turn = np.array([[cosine, sine], [-sine, cosine]])
    centre = (np.array(counts.shape) - 1) / 2
    corner = (np.array(counts.shape) - side) // 2
    points = points or side
    step = (side - 1) / (points - 1)
    # A cubic spline leaves 95% of the variance of the noise in pixels rebinned by two, a linear interpolation 70%:
    # turned images must not look smoother than others.
    return affine_transform(counts, step * turn, centre - turn @ (centre - corner), (points, points), order=3,
                            mode="nearest")


def cut(array, side):
    """The `side` x `side` pixels at the centre of an array (y, x) or (y, x, band)."""
    y, x = ((length - side) // 2 for length in array.shape[:2])
    return array[y:y + side, x:x + side]
