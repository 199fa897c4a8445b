"""Sersic archetypes: what is left of a galaxy when all its fine structure is taken away (Zanisi et al. 2020, Sec. 3).

Angles are in degrees from the x axis (the columns) towards the y axis (the rows), half-light radii in arcsec along the
major axis, fluxes in counts. Images are sky-subtracted counts, (y, x); a galaxy stands at the centre of its image,
which is between four pixels where the side is even.
"""

from dataclasses import dataclass
from functools import cache

import galsim
import numpy as np
import scipy.fft
from scipy.special import gamma, gammaincinv

from kerasgal.errors import DataError

N_RANGE = 0.3, 6.2  # of GalSim
N_DECIMALS = 1  # GalSim tabulates the transform of every n that it meets, at a tenth of a second each
# What a column may be called, in lower case. Where two say the same thing, the first named here is taken.
ALIASES = {
    "id": ("id", "name", "objid", "dr7objid", "objectid", "cataid", "galaxy"),
    "flux": ("flux", "counts", "total_flux", "flux_counts"),
    "magnitude": ("magnitude", "mag", "mag_r", "r_mag", "m_tot"),
    "radius": ("radius", "radius_arcsec", "re", "r_e", "re_arcsec", "reff", "r_eff", "r50", "half_light_radius", "hlr"),
    "radius_pixel": ("radius_pixel", "radius_px", "re_pixel", "re_pix", "re_px", "r_e_pix", "r50_pix"),
    "n": ("n", "sersic", "sersic_n", "n_sersic", "sersic_index", "nser"),
    "axis_ratio": ("axis_ratio", "q", "ba", "b_a", "b/a", "axrat"),
    "ellipticity": ("ellipticity", "ellip", "ell"),
    "angle": ("angle", "theta"),
    "position_angle": ("position_angle", "pa", "posang"),
    "x_offset": ("x_offset", "dx"),
    "y_offset": ("y_offset", "dy"),
}
# The columns that give a parameter, the values it may have, above the first and up to the second, and that in words
PARAMETERS = {
    "flux": (("flux", "magnitude"), 0, 1e15, "above 0 and at most 1e15"),  # counts whose Poisson noise can be drawn
    "radius": (("radius", "radius_pixel"), 0, np.inf, "positive"),
    "n": (("n",), 0, np.inf, "positive"),
    "axis_ratio": (("axis_ratio", "ellipticity"), 1e-4, 1, "above 0.0001 and at most 1"),
    "angle": (("angle", "position_angle"), -np.inf, np.inf, "a number"),
    "x_offset": (("x_offset",), -np.inf, np.inf, "a number"),
    "y_offset": (("y_offset",), -np.inf, np.inf, "a number"),
}
NANOMAGGIES = ("nmgy", "nanomaggy", "nanomaggies", "nmaggy", "nmaggies")
DRAWN = ("redshift", "log_mass", "magnitude", "radius", "radius_kpc", "n", "axis_ratio")  # that a user's table may give
SUN_R = 4.65  # absolute magnitude of the Sun in r, AB (Willmer 2018, arXiv:1804.07788)


@dataclass(frozen=True)
class Camera:
    """What makes light into counts; the defaults are those of the SDSS imaging camera in r.

    pixel_scale: side of a pixel, arcsec; zero_point: magnitude that gives one count; sky: counts in a pixel; gain:
    electrons per count; dark_variance: of read-out and dark current, counts^2 in a pixel.
    Counts and noise are those of SDSS corrected frames: 53.9 s at 24.05 mag for a count per second, 0.1 mag of
    extinction per airmass; 20.9 mag per arcsec^2 of sky. The noise of an empty pixel is then 5.5 counts.
    """

    pixel_scale: float = 0.396
    zero_point: float = 28.26
    sky: float = 137.0
    gain: float = 4.7
    dark_variance: float = 1.0

    def counts(self, magnitude):
        """Flux of a magnitude, in counts."""
        return 10 ** (0.4 * (self.zero_point - np.asarray(magnitude, np.float64)))

    @property
    def noise(self):
        """Standard deviation of the noise of an empty pixel, counts."""
        return (self.sky / self.gain + self.dark_variance)**0.5

    def about(self, psf_fwhm=None):
        """What an image set of this camera says of itself, see `kerasgal.imageset.writing`; psf_fwhm: arcsec."""
        return {"unit": "counts", "zero_point": self.zero_point, "pixel_scale": self.pixel_scale,
                "psf_fwhm": psf_fwhm}


def moffat_psf(fwhm, camera, beta=3.0):
    """A Moffat point spread function, pixels included; fwhm: arcsec."""
    return galsim.Convolve([galsim.Moffat(beta=beta, fwhm=fwhm), galsim.Pixel(camera.pixel_scale)])


def gaussian_psf(fwhm, camera):
    """A Gaussian point spread function, pixels included; fwhm: arcsec."""
    return galsim.Convolve([galsim.Gaussian(fwhm=fwhm), galsim.Pixel(camera.pixel_scale)])


def read_psf(path, camera):
    """The point spread function of a FITS image: of a star, pixels included, centred, with the camera's pixels.

    Raises DataError where the file has no image of finite numbers whose sum is positive.
    """
    from astropy.io import fits

    try:
        with fits.open(path) as file:
            image = next((hdu.data.astype(np.float64) for hdu in file if hdu.is_image and hdu.data is not None), None)
    except FileNotFoundError:
        raise DataError(f"no such file: {path}") from None
    except OSError as error:
        raise DataError(f"{path} is not a FITS file: {error}") from None
    if image is None or image.ndim != 2:
        raise DataError(f"{path} must have an image (y, x); it has {'none' if image is None else image.shape}")
    if not np.isfinite(image).all() or not image.sum() > 0:
        raise DataError(f"{path} must have finite numbers with a positive sum; the sum is {image.sum():g}")
    return galsim.InterpolatedImage(galsim.Image(image, scale=camera.pixel_scale), flux=1.0)


class Canvas:
    """Draws profiles as a camera with a point spread function sees them, through their Fourier transforms.

    The periodic box is twice as wide as the stamp that is cut from it: what a profile has beyond the box, a few percent
    of the light of the largest galaxies with high n, is folded back as a nearly even glow far below the sky's noise.
    """

    def __init__(self, size, psf, camera):
        self.size, self.camera = size, camera
        self.box = 2 * scipy.fft.next_fast_len(size)
        self.psf = self.transform(psf)
        # For an even side the centre of the stamp is half a pixel beyond the middle one.
        shift = np.exp(-1j * np.pi * (size - 1) * scipy.fft.fftfreq(self.box))
        self.to_centre = shift[:, None] * shift[:self.box // 2 + 1]

    def transform(self, profile):
        """The Fourier transform of a GalSim profile, (box, box // 2 + 1), as of `scipy.fft.rfft2`."""
        return transform(profile, self.box, self.camera)

    def stamp(self, profile, image=0.0):
        """Light as it is seen, (size, size) counts without noise.

        profile: transform of a profile whose centre is to be the stamp's; image: transform of light in the stamp's
        pixels, beginning with the first.
        """
        seen = (profile * self.to_centre + image) * self.psf
        return scipy.fft.irfft2(seen, (self.box, self.box))[:self.size, :self.size]


def transform(profile, box, camera):
    """The Fourier transform of a GalSim profile, (box, box // 2 + 1), as that of `scipy.fft.rfft2` of an image.

    The profile's centre is in the first pixel of the periodic box, whose side is even.
    """
    bounds = galsim.BoundsI(0, box // 2, -box // 2, box // 2 - 1)
    image = galsim.ImageCD(bounds, scale=2 * np.pi / (box * camera.pixel_scale))
    profile.drawKImage(image=image, recenter=False)
    return scipy.fft.ifftshift(image.array, axes=0)


def drawable_n(n):
    """Sersic indices as they are drawn: moved into GalSim's range, 0.3 to 6.2, and rounded to one decimal."""
    return np.clip(np.round(n, N_DECIMALS), *N_RANGE)


def note_on_n(parameters):
    """One line on the galaxies whose n GalSim cannot draw, or None."""
    n = np.asarray(parameters["n"])
    outside = np.count_nonzero((n < N_RANGE[0]) | (n > N_RANGE[1]))
    if outside:
        return (f"{outside} of {len(n)} galaxies have n outside {N_RANGE[0]} to {N_RANGE[1]}, which is what GalSim "
                "draws: they are drawn with the nearest")


def sersic(flux, radius, n, axis_ratio, angle):
    """A Sersic profile as a GalSim object; radius: half-light, along the major axis, arcsec; angle: degrees."""
    round_one = galsim.Sersic(n=float(drawable_n(n)), half_light_radius=radius * axis_ratio**0.5, flux=flux)
    return round_one.shear(q=axis_ratio, beta=angle * galsim.degrees)  # keeps the area


def smooth_stamp(galaxy, canvas):
    """The Sersic image of one galaxy, (size, size), without noise; galaxy: a row of `sersic_parameters`."""
    profile = sersic(*(galaxy[name] for name in ("flux", "radius", "n", "axis_ratio", "angle")))
    scale = canvas.camera.pixel_scale
    offset = galaxy.get("x_offset", 0.0) * scale, galaxy.get("y_offset", 0.0) * scale
    return canvas.stamp(canvas.transform(profile.shift(*offset)))


def observe(stamp, camera, rng, sky=None):
    """A noise-free image as it is observed: sky-subtracted counts with noise, like `stamp`, float32.

    Without `sky`, the electrons of galaxy and sky have Poisson noise, read-out and dark current Gaussian noise. `sky`:
    an image of real sky, subtracted, like `stamp`, whose noise then is that of all but the galaxy's own electrons.
    """
    light = np.maximum(stamp, 0)  # the transform rings below zero by a trifle
    if sky is None:
        counts = rng.poisson((light + camera.sky) * camera.gain) / camera.gain - camera.sky
        counts += rng.normal(0, camera.dark_variance**0.5, stamp.shape)
    else:
        counts = rng.poisson(light * camera.gain) / camera.gain + sky
    return counts.astype(np.float32)


def archetypes(parameters, camera, psf, size=128, seed=0, skies=None):
    """Yields the Sersic archetype of each galaxy: a dictionary of its `image`, (size, size) float32, and parameters.

    seed: of the noise, a number or several.

    parameters: columns, as `sersic_parameters` returns; psf: as `moffat_psf` makes it; skies: (m, y, x) stamps of real
    sky with at least `size` pixels a side, of which each galaxy is set on one at random, turned or mirrored. The
    parameters are the columns' values, but n is the one that was drawn.
    Raises DataError where the stamps of sky are too small.
    """
    if skies is not None and min(np.shape(skies)[1:]) < size:
        raise DataError(f"the stamps of sky have {np.shape(skies)[1:]} pixels; at least {size} x {size} are needed")
    canvas = Canvas(size, psf, camera)
    for index in range(len(parameters["n"])):
        rng = np.random.default_rng([*np.atleast_1d(seed), index])
        galaxy = {name: column[index] for name, column in parameters.items()}
        sky = None if skies is None else _some_sky(skies, size, rng)
        yield {**galaxy, "n": drawable_n(galaxy["n"]),
               "image": observe(smooth_stamp(galaxy, canvas), camera, rng, sky)}


def _some_sky(skies, size, rng):
    sky = np.asarray(skies[rng.integers(len(skies))])
    row, column = (rng.integers(side - size + 1) for side in sky.shape)
    return _turned(sky[row:row + size, column:column + size], rng)


def _turned(image, rng):
    """One of the eight symmetries of a square image."""
    image = np.rot90(image, rng.integers(4))
    return image.T if rng.integers(2) else image


def border_skies(images, number, size, rng, width=16):
    """Stamps of real sky, (number, size, size) float32, patched together from the borders of galaxy images.

    images: a sequence of (y, x) counts, NaN for bad pixels; width: of the border and of the square patches, pixels.
    Each stamp is of one image: patches from anywhere in its border, turned or mirrored, less the median of the border;
    those with a bad pixel, or with something brighter than the noise explains, are left out. Raises DataError for an
    image that is too small for such a border, or where bad pixels leave no patch of any.
    """
    patches = [_border_patches(np.asarray(image, np.float32), width) for image in images]
    patches = [found for found in patches if len(found)]
    if not patches:
        raise DataError(f"no image has {width} x {width} pixels of border that are all good")
    chosen = rng.integers(len(patches), size=number)
    tiles = -(-size // width)
    skies = np.empty((number, size, size), np.float32)
    for stamp, index in zip(skies, chosen):
        found = patches[index]
        picked = [[_turned(found[i], rng) for i in row] for row in rng.integers(len(found), size=(tiles, tiles))]
        stamp[:] = np.block(picked)[:size, :size]
    return skies


def _border_patches(image, width):
    """The square patches of an image's border, (patches, width, width), without those that hold a source or NaN."""
    rows, columns = (range(0, side - width + 1, width // 2) for side in image.shape)
    last = image.shape[0] - width, image.shape[1] - width
    corners = {(row, column) for row in (0, last[0]) for column in columns}
    corners |= {(row, column) for row in rows for column in (0, last[1])}
    if min(last) < 0:
        raise DataError(f"an image of {image.shape[0]} x {image.shape[1]} pixels has no border of {width} pixels")
    patches = np.stack([image[row:row + width, column:column + width] for row, column in sorted(corners)])
    patches = patches[np.isfinite(patches).all(axis=(1, 2))]
    if not len(patches):
        return patches
    patches = patches - np.median(patches)
    deviation = 1.4826 * np.median(np.abs(patches))
    # A patch is empty if its mean and its brightest pixel (among 256: 5 deviations) are what noise gives.
    brightness = np.maximum(patches.max(axis=(1, 2)) / 5, np.abs(patches.mean(axis=(1, 2))) * width / 5)
    empty = brightness <= max(deviation, np.sort(brightness)[len(patches) // 4])  # a quarter at least
    return patches[empty]


def archetypes_of_bands(parameters, camera, psf, size=128, seed=0):
    """As `archetypes`, in several bands: images (size, size, band), and each Sersic parameter as NAME_BAND.

    parameters: {band: columns}. Each band has noise of its own.
    """
    made = [archetypes(columns, camera, psf, size, [seed, number])
            for number, columns in enumerate(parameters.values())]
    for galaxies in zip(*made):
        columns = {name: value for name, value in galaxies[0].items() if name not in (*PARAMETERS, "image")}
        for band, galaxy in zip(parameters, galaxies):
            columns |= {f"{name}_{band}": value for name, value in galaxy.items() if name in PARAMETERS}
        yield columns | {"image": np.stack([galaxy["image"] for galaxy in galaxies], axis=-1)}


def columns_of_band(table, bands, band):
    """The columns of a table or a dictionary as they are in one of several bands: NAME_BAND in the place of NAME.

    A column without a band's name is that of all bands.
    """
    names = list(getattr(table, "colnames", table))
    common = [name for name in names if not name.endswith(tuple(f"_{other}" for other in bands))]
    own = {name.removesuffix(f"_{band}"): table[name] for name in names if name.endswith(f"_{band}")}
    return {name: table[name] for name in common} | own


def read_table(path):
    """A table of galaxies in FITS, CSV or ECSV; raises DataError if it is none."""
    import warnings

    from astropy.table import Table
    from astropy.units import UnitsWarning

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnitsWarning)  # where a unit is unknown and needed, it is an error below
            # Tables in CSV that kerasgal writes begin with comments.
            table = Table.read(path, **({"comment": "#"} if str(path).lower().endswith(".csv") else {}))
    except FileNotFoundError:
        raise DataError(f"no such file: {path}") from None
    except Exception as error:  # astropy raises many kinds
        reason = next(iter(str(error).splitlines()), "")
        raise DataError(f"{path} is not a table in FITS (.fits), CSV (.csv) or ECSV (.ecsv): {reason}") from None
    return table


def read_parameters(path, camera):
    """Sersic parameters of a table of galaxies in FITS, CSV or ECSV, as `sersic_parameters` returns them."""
    return sersic_parameters(read_table(path), camera, path)


def sersic_parameters(table, camera, origin):
    """Sersic parameters in our units, a dictionary of arrays (galaxies,), from a table or a dictionary of columns.

    Needed are, under these names or their `ALIASES` in any case of letters:
        flux, in counts, or nanomaggies if its unit says so; or magnitude;
        radius: half-light, along the major axis, in arcsec or the unit that the column has; or radius_pixel;
        n: Sersic index;
        axis_ratio: minor over major; or ellipticity, 1 less that;
        angle: of the major axis from the x axis towards the y axis, degrees or the column's unit; or
            position_angle, from the y axis on, as north up and east left have it.
    There may be id (else rows are numbered), and x_offset, y_offset from the image's centre, pixels. Returned are id,
    flux, radius, n, axis_ratio, angle, x_offset and y_offset. `origin` says in errors where the table came from.
    Raises DataError where a column is missing or has a unit, a number or a gap that cannot be.
    """
    names = {str(name).lower(): name for name in getattr(table, "colnames", table)}
    found = {column: next(names[alias] for alias in aliases if alias in names)
             for column, aliases in ALIASES.items() if not names.keys().isdisjoint(aliases)}
    rows = len(table[next(iter(names.values()))]) if names else 0
    if not rows:
        raise DataError(f"{origin} has no galaxies")
    result = {"id": np.arange(rows)}
    if "id" in found:
        result["id"] = _identifiers(table[found["id"]], f"{origin}: {found['id']}")
    for name, (choices, low, high, words) in PARAMETERS.items():
        column = next((choice for choice in choices if choice in found), None)
        if column:
            values = _in_our_unit(column, table[found[column]], f"{origin}: {found[column]}", camera)
        elif name.endswith("offset"):
            values = np.zeros(rows)
        else:
            raise DataError(f"{origin} has no column {' or '.join(choices)}; it has {', '.join(names.values())}")
        wrong = np.flatnonzero(~((values > low) & (values <= high) & np.isfinite(values)))
        if len(wrong):
            raise DataError(f"{origin}: {name} must be {words}; galaxy {result['id'][wrong[0]]} has "
                            f"{values[wrong[0]]:g}" + (f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""))
        result[name] = values
    return result


def _check_column(column, where):
    """Raise DataError for a column of a table with several numbers per galaxy, or a gap."""
    if np.ndim(column) != 1:
        shape = " x ".join(map(str, np.shape(column)[1:]))
        raise DataError(f"{where} has {shape or 'no'} numbers per galaxy; accepted is one: make a column of those that "
                        "are meant")
    gaps = np.flatnonzero(np.ma.getmaskarray(column)) if hasattr(column, "mask") else []
    if len(gaps):
        raise DataError(f"{where} has no value in row {gaps[0] + 1}")


def _identifiers(column, where):
    """The names of galaxies, an array (galaxies,); text where they are bytes."""
    _check_column(column, where)
    values = np.asarray(column)
    return np.char.decode(values, "utf-8", "replace") if values.dtype.kind == "S" else values


def _in_our_unit(name, column, where, camera):
    """Numbers of a column that is one of `ALIASES`, in the unit of the parameter that it gives; `where`: for errors."""
    from astropy import units

    _check_column(column, where)
    try:
        values = np.asarray(column, np.float64)
    except (TypeError, ValueError):
        raise DataError(f"{where} has something that is not a number") from None
    given = getattr(column, "unit", None)
    if name == "flux" and str(given).lower() in NANOMAGGIES:
        return camera.counts(22.5) * values
    unit = {"flux": units.count, "radius": units.arcsec, "radius_pixel": units.pixel, "x_offset": units.pixel,
            "y_offset": units.pixel, "angle": units.deg, "position_angle": units.deg}.get(name)
    if given is not None and unit is not None:
        pixels = units.pixel_scale(camera.pixel_scale * units.arcsec / units.pixel)
        try:
            values = units.Unit(given).to(unit, values, [*pixels, (units.adu, units.count)])
        except (ValueError, TypeError):
            raise DataError(f"{where} is in {given}; it must be in {unit}") from None
    ours = {"magnitude": camera.counts, "radius_pixel": lambda pixels: pixels * camera.pixel_scale,
            "ellipticity": lambda ellipticity: 1 - ellipticity, "position_angle": lambda angle: angle + 90}
    return ours[name](values) if name in ours else values


def read_distribution(path):
    """A cumulative distribution, (value, probability), from a text file of these two columns, with or without a header.

    Raises DataError where the file has anything else, values do not ascend or probabilities do not go from 0 to 1.
    """
    from astropy.io import ascii

    try:
        table = ascii.read(str(path), guess=True)
        for name in table.colnames:
            _check_column(table[name], f"{path}: {name}")
        value, probability = (np.asarray(table[name], np.float64) for name in table.colnames)
    except FileNotFoundError:
        raise DataError(f"no such file: {path}") from None
    except DataError:  # which is a ValueError
        raise
    except (ValueError, ascii.InconsistentTableError) as error:
        reason = next(iter(str(error).splitlines()), "")
        raise DataError(f"{path} must have two columns of numbers, value and cumulative probability: "
                        f"{reason}") from None
    if not (np.diff(value) > 0).all() or not (np.diff(probability) >= 0).all():
        raise DataError(f"{path}: values must ascend, and their cumulative probability must not descend")
    if not np.allclose(probability[[0, -1]], [0, 1], atol=1e-3):
        raise DataError(f"{path}: the cumulative probability must go from 0 to 1; it goes from {probability[0]:g} to "
                        f"{probability[-1]:g}")
    return value, probability


def draw_parameters(number, rng, distributions=None):
    """Sersic parameters of galaxies at random: a dictionary of arrays (number,) that `sersic_parameters` takes.

    By default galaxies of 10^10 to 10^11.5 solar masses at redshifts 0.025 to 0.05 as the SDSS has them: masses of
    Baldry et al. 2012 (arXiv:1111.5707), radii of Shen et al. 2003 (astro-ph/0301527, with the erratum's 2.88e-6), half
    of them early types at 10^10.7; round numbers for what these leave open. distributions: files of cumulative
    distributions by the name of a column among `DRAWN`, which take the default's place; each is drawn by itself.
    Columns: id, redshift, log_mass (log10 Msun), early (1 for early types), magnitude, radius_kpc, radius (arcsec), n,
    axis_ratio, angle. Raises DataError for an unknown column.
    """
    distributions = distributions or {}
    unknown = sorted(set(distributions) - set(DRAWN))
    if unknown:
        raise DataError(f"no distribution of {unknown[0]} can be given; accepted are {', '.join(DRAWN)}")
    # Every default is drawn, needed or not, so that a distribution changes nothing but its own column.
    uniform = dict(zip((*DRAWN, "early", "angle"), rng.random((len(DRAWN) + 2, number))))
    normal = dict(zip(("radius", "n", "axis_ratio", "light"), rng.standard_normal((4, number))))

    def given(name, default):
        if name not in distributions:
            return default
        value, probability = read_distribution(distributions[name])
        return np.interp(uniform[name], probability, value)

    redshift = given("redshift", np.cbrt(0.025**3 + uniform["redshift"] * (0.05**3 - 0.025**3)))  # evenly in volume
    log_mass = given("log_mass", np.interp(uniform["log_mass"], *_mass_distribution()))
    mass = 10**log_mass
    early = uniform["early"] < 1 / (1 + np.exp(-(log_mass - 10.7) / 0.25))
    late_radius = 0.1 * mass**0.14 * (1 + mass / 3.98e10)**0.25
    scatter = 0.34 + 0.13 / (1 + (mass / 3.98e10)**2)
    radius_kpc = given("radius_kpc", np.where(early, 2.88e-6 * mass**0.56, late_radius)
                       * np.exp(np.clip(normal["radius"], -2, 2) * scatter))
    distance, kpc_per_arcsec = _distances(redshift)
    light = log_mass - np.where(early, 0.45, 0.2) + 0.1 * normal["light"]  # log10 of solar luminosities in r
    magnitude = given("magnitude", SUN_R - 2.5 * light + distance)
    n = given("n", np.clip(np.where(early, 4.0, 1.3) * 10**(np.where(early, 0.1, 0.15) * normal["n"]), 0.5, 6.2))
    # Thick discs at random inclinations; nearly round spheroids.
    inclined = np.sqrt(0.2**2 + (1 - 0.2**2) * uniform["axis_ratio"]**2)
    axis_ratio = given("axis_ratio", np.where(early, np.clip(0.75 + 0.15 * normal["axis_ratio"], 0.35, 1), inclined))
    return {"id": np.arange(number), "redshift": redshift, "log_mass": log_mass, "early": early.astype(np.int8),
            "magnitude": magnitude, "radius_kpc": radius_kpc, "radius": given("radius", radius_kpc / kpc_per_arcsec),
            "n": n, "axis_ratio": axis_ratio, "angle": 180 * uniform["angle"]}


@cache
def _mass_distribution():
    """Cumulative distribution of log10 mass from 10 to 11.5: (probability, value)."""
    value = np.linspace(10, 11.5, 301)
    x = 10**(value - 10.66)
    density = np.exp(-x) * (3.96 * x**(1 - 0.35) + 0.79 * x**(1 - 1.47))  # per decade
    probability = np.concatenate([[0], np.cumsum(density[1:] + density[:-1])])
    return probability / probability[-1], value


def _distances(redshift):
    """Distance modulus, and kpc in an arcsec."""
    luminosity = _universe().luminosity_distance(redshift).value  # Mpc
    return 5 * np.log10(luminosity) + 25, 1000 * np.deg2rad(luminosity / (1 + redshift)**2 / 3600)


@cache
def _universe():
    from astropy.cosmology import FlatLambdaCDM

    return FlatLambdaCDM(H0=70, Om0=0.3)


def sersic_b(n):
    """The b_n that makes the half-light radius of a Sersic profile what its name says."""
    return gammaincinv(2 * n, 0.5)


def sersic_flux(radius, n, axis_ratio):
    """Flux of a Sersic profile that has the surface brightness 1 at its half-light radius (Graham & Driver 2005,
    astro-ph/0503176, Eq. 4)."""
    b = sersic_b(n)
    return 2 * np.pi * n * axis_ratio * radius**2 * np.exp(b) * b**(-2 * n) * gamma(2 * n)
