"""The Sersic profile of a galaxy in an image: fitted with its sky, seen through the point spread function, neighbours
left out.

Units and angles are those of `kerasgal.apps.morph.archetypes`. Each fit has a `fit_flag`, the sum of what of `FLAGS` is
true of it:

1 shape: n or the axis ratio is at an end of the range that is searched;
2 radius: the half-light radius is at an end of its range, or above a quarter of the image's shorter side, where wings
  and sky can hardly be told apart;
4 centre: the centre is at the end of the search, a tenth of the image's side from its middle;
8 chi2: chi2 per pixel is above 2: the galaxy is not like one Sersic profile, or a neighbour is in the way;
16 masked: more than a fifth of the pixels within the half-light radius are masked or not finite.
"""

import numpy as np
import scipy.fft
import scipy.ndimage

from kerasgal.apps.morph.archetypes import N_RANGE, sersic_flux, transform
from kerasgal.errors import DataError

FLAGS = {"shape": 1, "radius": 2, "centre": 4, "chi2": 8, "masked": 16}
CORE, FINE = 5, 10  # pixels to either side of a fit's centre that are integrated, with so many points a side
BLUR = 2  # pixels: deviation of the Gaussian through which a galaxy is looked for
FLATTEST, SMALLEST = 0.05, 0.3  # axis ratio, and radius in pixels, that a fit may have
REACH, LEAST_REACH = 0.1, 3  # share of the side, and least pixels, that the centre may be from the middle
BAD_CHI2, BAD_SHARE, LARGE = 2.0, 0.2, 0.25
TILE = 16  # pixels a side of the squares that the noise is measured in
NOISELESS = 1e-7  # of an image's largest flux: noise below it is none
SHARP = 1.5  # pixels: deviation of the Gaussian through which neighbours are looked for
APART, PROMINENT, GROWN = 4, 0.25, 2  # least pixels between two galaxies; share of the fainter one's peak between its
# peak and the saddle, from which they are two; pixels by which a mask is larger than what is seen


def fit_sersic(image, psf, camera, mask=None, sky=None, variance=None):
    """The Sersic profile, seen with the point spread function, that fits an image best.

    Parameters
    ----------
    image : numpy.ndarray
        (y, x) counts; the galaxy is the one next to the middle. Pixels that are not finite are not used.
    psf : galsim.GSObject
        As `kerasgal.apps.morph.archetypes.moffat_psf` makes it.
    camera : kerasgal.apps.morph.archetypes.Camera
    mask : numpy.ndarray, optional
        True for a pixel not to be used, as the image. Neighbours are found and masked in addition.
    sky : float, optional
        Counts in a pixel to subtract, 0 for an image without sky. By default it is fitted with the galaxy.
    variance : numpy.ndarray, optional
        Of the noise, as the image. By default the sky's noise is measured, and the galaxy's is that of its electrons,
        of which a count has as many more than the camera's as the measured noise is below the camera's.

    Returns
    -------
    dict
        flux, radius, n, axis_ratio, angle, x_offset and y_offset as `sersic_parameters` has them, with an n that can be
        drawn; fit_sky and fit_noise, counts in a pixel; chi2 per pixel; fit_flag, see the module.

    Raises
    ------
    DataError
        Where nothing near the middle stands out of the noise, or the fit does not converge.
    """
    from scipy.optimize import least_squares

    image = np.asarray(image, np.float64)
    given = np.isfinite(image) if mask is None else np.isfinite(image) & ~np.asarray(mask, bool)
    if not given.any():
        raise DataError("no galaxy to fit: all pixels are masked or not finite")
    level, noise = sky_level(image, given)
    level = level if sky is None else sky
    image = np.where(given, image - level, 0)
    if noise <= NOISELESS * np.abs(image).max():
        noise = camera.noise
    used = given & ~neighbours(image, given, noise)
    blurred = _blurred(image, used, BLUR)
    if variance is None:
        gain = camera.gain * (camera.noise / noise)**2
        variance = noise**2 + np.maximum(blurred, 0) / gain
    good = used & np.isfinite(variance) & (variance > 0)
    weight = np.where(good, 1 / np.sqrt(np.where(good, variance, 1)), 0)
    solve = _amplitudes(image, weight, with_sky=sky is None)
    see = _seeing(image.shape, psf, camera)

    def model(x):
        """The best multiple of the profile that `x` says, on the best sky, and both numbers."""
        profile = see(_sersic_pixels(image.shape, *_shape(x)))
        amplitude, base = solve(profile)
        return amplitude * profile + base, amplitude, base

    start = _first_guess(blurred, noise / (2 * np.pi**0.5 * BLUR))
    low, high = _limits(image.shape)
    found = least_squares(lambda x: ((model(x)[0] - image) * weight).ravel(),
                          np.clip(start, low + 1e-6, high - 1e-6), bounds=(low, high),
                          x_scale=[1, 1, 0.3, 0.3, 0.3, 0.3], xtol=1e-5, ftol=1e-5)
    _, amplitude, base = model(found.x)
    if not found.success or not amplitude > 0:
        raise DataError(f"the Sersic fit did not converge: {found.message}")
    x, y, radius, n, ellipticity, angle = _shape(found.x)
    axis_ratio = 1 - ellipticity
    rows, columns = image.shape
    chi2 = 2 * found.cost / np.count_nonzero(good)
    return {"flux": amplitude * sersic_flux(radius, n, axis_ratio), "radius": radius * camera.pixel_scale, "n": n,
            "axis_ratio": axis_ratio, "angle": np.rad2deg(angle) % 180, "x_offset": x - (columns - 1) / 2,
            "y_offset": y - (rows - 1) / 2, "fit_sky": level + base, "fit_noise": noise,
            "chi2": chi2, "fit_flag": _flag(found.x, low, high, chi2, good)}


def sky_level(image, used):
    """Sky per pixel and the standard deviation of its noise, of the pixels of an image (y, x) that are used.

    The sky is the median, clipped at three deviations; the noise that of the quietest quarter of the image's squares,
    where no galaxy makes it larger.
    """
    values = image[used]
    level, deviation = _median_deviation(values)
    for _ in range(20):
        kept = values[np.abs(values - level) <= 3 * deviation]
        level, last = np.median(kept), deviation
        deviation = _median_deviation(kept)[1]
        if abs(deviation - last) <= 1e-3 * last:
            break
    starts = [range(0, side - TILE + 1, TILE) for side in image.shape]
    tiles = [(slice(row, row + TILE), slice(column, column + TILE)) for row in starts[0] for column in starts[1]]
    quiet = [_median_deviation(image[tile][used[tile]])[1] for tile in tiles if used[tile].mean() > 0.5]
    if len(quiet) >= 4:
        deviation = min(deviation, np.percentile(quiet, 25))
    return level, deviation


def _median_deviation(values):
    level = np.median(values)
    return level, 1.4826 * np.median(np.abs(values - level))


def _blurred(image, used, width):
    """An image seen through a Gaussian, as if the pixels that are not used were like those around them."""
    weight = scipy.ndimage.gaussian_filter(used.astype(float), width)
    return scipy.ndimage.gaussian_filter(np.where(used, image, 0), width) / np.maximum(weight, 0.1)


def neighbours(image, used, noise):
    """The pixels of other galaxies and stars than the one next to the middle of an image without sky: (y, x) bool.

    Peaks of the blurred image are the heads of watersheds; those that hardly rise above the saddle towards a brighter
    one are parts of it.
    """
    from skimage.feature import peak_local_max
    from skimage.segmentation import watershed

    blurred = _blurred(image, used, SHARP)
    deviation = noise / (2 * np.pi**0.5 * SHARP)
    bright = blurred > 3 * deviation
    peaks = peak_local_max(blurred, min_distance=APART, threshold_abs=5 * deviation, exclude_border=False)
    if not len(peaks):
        return np.zeros_like(bright)
    markers = np.zeros(blurred.shape, np.int32)
    markers[tuple(peaks.T)] = 1 + np.arange(len(peaks))
    basins = watershed(-blurred, markers, mask=bright)
    basins = _merged(basins, blurred, blurred[tuple(peaks.T)], 3 * deviation)
    own = basins == basins.flat[np.where(basins > 0, _distance(blurred.shape), np.inf).argmin()]
    others = (basins > 0) & ~own
    return scipy.ndimage.binary_dilation(others, iterations=GROWN) & ~own


def _merged(basins, blurred, peaks, least):
    """Basins (y, x) of watersheds, numbered from 1, with those that are parts of others given the others' numbers.

    peaks: the height of each; least: height above the saddle that any galaxy has.
    """
    saddles = {}
    for one, other in (((slice(None, -1), slice(None)), (slice(1, None), slice(None))),
                       ((slice(None), slice(None, -1)), (slice(None), slice(1, None)))):
        meet = (basins[one] != basins[other]) & (basins[one] > 0) & (basins[other] > 0)
        heights = np.minimum(blurred[one], blurred[other])[meet]
        for first, second, height in zip(basins[one][meet], basins[other][meet], heights):
            pair = min(first, second), max(first, second)
            saddles[pair] = max(saddles.get(pair, -np.inf), height)
    parent = np.arange(len(peaks) + 1)
    for pair, height in sorted(saddles.items(), key=lambda item: -item[1]):
        faint, strong = sorted((parent[number] for number in pair), key=lambda number: peaks[number - 1])
        top = peaks[faint - 1]
        if faint != strong and top - height < max(PROMINENT * top, least):
            parent[parent == faint] = strong
    return parent[basins]


def _distance(shape):
    """Distance of each pixel from the middle of an image."""
    rows, columns = np.indices(shape)
    return np.hypot(rows - (shape[0] - 1) / 2, columns - (shape[1] - 1) / 2)


def _amplitudes(image, weight, with_sky):
    """A function that finds the best multiple of a profile and the best even sky: linear, no need to search."""
    squares = weight**2
    light = (image * squares).sum()

    def solve(profile):
        weighted = profile * squares
        matched, power = (weighted * image).sum(), (weighted * profile).sum()
        if not with_sky:
            return matched / power, 0.0
        matrix = np.array([[power, weighted.sum()], [weighted.sum(), squares.sum()]])
        return np.linalg.lstsq(matrix, [matched, light], rcond=None)[0]

    return solve


def _limits(shape):
    """The least and the greatest of each number that is searched, see `_shape`."""
    rows, columns = shape
    middle = np.array([columns - 1, rows - 1]) / 2
    reach = np.maximum(LEAST_REACH, REACH * np.array([columns, rows]))
    low = [np.log(SMALLEST), np.log(N_RANGE[0]), FLATTEST - 1, FLATTEST - 1]
    high = [np.log(max(rows, columns)), np.log(N_RANGE[1]), 1 - FLATTEST, 1 - FLATTEST]
    return np.array([*(middle - reach), *low]), np.array([*(middle + reach), *high])


def _flag(found, low, high, chi2, used):
    """What of `FLAGS` is true of a fit, as their sum."""
    at_end = (found - low < 1e-2) | (high - found < 1e-2)
    x, y, radius, _, ellipticity, _ = _shape(found)
    rows, columns = np.indices(used.shape)
    inside = np.hypot(rows - y, columns - x) <= max(radius, 1)
    true = {"shape": at_end[3] or 1 - ellipticity < FLATTEST + 1e-2,
            "radius": at_end[2] or radius > LARGE * min(used.shape),
            "centre": at_end[:2].any(), "chi2": chi2 > BAD_CHI2, "masked": (~used[inside]).mean() > BAD_SHARE}
    return sum(FLAGS[name] for name, value in true.items() if value)


def _shape(x):
    """Centre, radius, n, ellipticity and angle [radian] from what is searched: the ellipticity's two components are
    smooth where the angle of a round galaxy is not."""
    return x[0], x[1], np.exp(x[2]), np.exp(x[3]), min(np.hypot(x[4], x[5]), 1 - FLATTEST), np.arctan2(x[5], x[4]) / 2


def _first_guess(blurred, noise):
    """Centre, radius and ellipticity by the moments of the bright piece next to the middle."""
    bright, _ = scipy.ndimage.label(blurred > 3 * noise)
    distance = np.where(bright > 0, _distance(blurred.shape), np.inf)
    allowed = max(LEAST_REACH, REACH * max(blurred.shape)) + BLUR
    if not distance.min() <= allowed:
        raise DataError("no galaxy to fit: nothing in the middle, or near it, is brighter than three deviations of the "
                        "noise")
    own = bright == bright.flat[distance.argmin()]
    rows, columns = np.indices(blurred.shape)
    light = blurred[own] / blurred[own].sum()
    x, y = (light * columns[own]).sum(), (light * rows[own]).sum()
    dx, dy = columns[own] - x, rows[own] - y
    xx, yy, xy = (light * dx**2).sum(), (light * dy**2).sum(), (light * dx * dy).sum()
    order = np.argsort(np.hypot(dx, dy))
    radius = np.hypot(dx, dy)[order][np.searchsorted(light[order].cumsum(), 0.5)]
    polarisation = np.hypot(xx - yy, 2 * xy) / max(xx + yy, 1e-6)  # (1 - q^2) / (1 + q^2)
    ellipticity = 1 - np.sqrt((1 - polarisation) / (1 + polarisation))
    angle = np.arctan2(2 * xy, xx - yy)
    return [x, y, np.log(max(radius, 1)), np.log(2), ellipticity * np.cos(angle), ellipticity * np.sin(angle)]


def _seeing(shape, psf, camera):
    """A function that convolves images of this shape, whose pixels are integrals, with a point spread function.

    That has the pixel's integral once more; the transform of a pixel, which is nowhere near zero, divides it out.
    """
    box = 2 * scipy.fft.next_fast_len(max(shape))
    pixel = np.sinc(scipy.fft.fftfreq(box))[:, None] * np.sinc(scipy.fft.rfftfreq(box))
    response = transform(psf, box, camera) / pixel

    def see(image):
        return scipy.fft.irfft2(scipy.fft.rfft2(image, (box, box)) * response, (box, box))[:shape[0], :shape[1]]

    return see


def _sersic_pixels(shape, x, y, radius, n, ellipticity, angle):
    """A Sersic profile, 1 at the half-light radius, in pixels (y, x); those of its core are integrated, the others
    taken at their centres."""
    from astropy.modeling.models import Sersic2D

    rows, columns = np.arange(shape[0]), np.arange(shape[1])
    profile = Sersic2D.evaluate(columns[None, :], rows[:, None], 1.0, radius, n, x, y, ellipticity, angle)
    core = [slice(max(0, round(centre) - CORE), max(0, round(centre) + CORE + 1)) for centre in (y, x)]
    offset = (np.arange(FINE) + 0.5) / FINE - 0.5
    fine_y, fine_x = (np.add.outer(axis[part], offset).ravel() for axis, part in zip((rows, columns), core))
    fine = Sersic2D.evaluate(fine_x[None, :], fine_y[:, None], 1.0, radius, n, x, y, ellipticity, angle)
    size = profile[core[0], core[1]].shape
    profile[core[0], core[1]] = fine.reshape(size[0], FINE, size[1], FINE).mean(axis=(1, 3))
    return profile
