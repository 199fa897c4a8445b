"""Made-up galaxies with structure, for where no survey's images are at hand.

A galaxy is a bulge, a disc, perhaps a bar, and what makes it more than smooth profiles: logarithmic spiral arms with
dust along their inner edges, flocculent texture, clumps of young stars, a dust lane where a disc is seen from its side.
It is seen as the SDSS sees galaxies in r. The kinds of images show the same galaxies and differ only in how much of the
structure is there, as in simulations of lower and lower resolution, so that their realism is known: real, then fine,
then smooth, then the Sersic archetypes of `archetypes.py`. The rules are made up, to look right.
"""

import copy
from dataclasses import dataclass
from functools import cache

import numpy as np
import scipy.fft
from scipy.special import gammaincinv, i0e

from kerasgal.apps.morph.archetypes import (
    Camera, Canvas, draw_parameters, moffat_psf, observe, sersic, sersic_b, sersic_flux)
from kerasgal.errors import DataError

FWHM = 1.32  # arcsec: the SDSS's median seeing in r
ABOUT = Camera().about(FWHM)  # of an image set of such galaxies
TYPES = ("elliptical", "lenticular", "spiral")
MODES = 16  # waves that make up the texture of a disc
QUARTERS = 0.25, 0.5, 0.75


@dataclass(frozen=True)
class Kind:
    """What a kind of images keeps of the structure.

    smoothing: FWHM of the Gaussian that the structure is convolved with, kpc; clumps: share of the clumps, the
    brightest, that is there: the light of the others is spread over the disc.
    """

    smoothing: float
    clumps: float


# Fluxes of bulges (and bars) and of discs in a band over those in r, in counts of one zero point: made-up colours of
# g - r = 0.75 and 0.45, r - i = 0.4 and 0.2
COLOURS = {"g": (0.50, 0.66), "r": (1.0, 1.0), "i": (1.45, 1.20)}
# log10 of the specific star-formation rate [1/yr] of each of `TYPES`, made up, too, and its scatter
RATES, RATE_SCATTER, RATE_STREAM = (-12.0, -11.6, -10.2), 0.25, 1000
KINDS = {"real": Kind(0.0, 1.0), "fine": Kind(1.2, 0.3), "smooth": Kind(3.0, 0.05)}


def galaxies(number, kind, seed=0, size=128, first=0, bands=()):
    """Yields galaxies as dictionaries: `image`, (size, size) float32 sky-subtracted counts, and columns.

    kind: of `KINDS`; first: index of the first galaxy. Galaxy i of a seed is the same in every kind, with other noise.
    The columns: id, the index; type, 0, 1, 2 as in `TYPES`; redshift; log_mass (log10 Msun); log_ssfr (log10 of the
    star formation per stellar mass [1/yr]); and flux, radius, n, axis_ratio, angle of the Sersic profile that comes
    close, as `archetypes.sersic_parameters` takes them.
    bands: several of `COLOURS`; then the image is (size, size, band), where bulge and disc have other fluxes in each
    and all else is the same but the noise, and the Sersic columns are NAME_BAND. In r it is as without.
    Raises DataError for an unknown kind or band.
    """
    if kind not in KINDS:
        raise DataError(f"unknown kind {kind!r}; accepted are {', '.join(KINDS)}")
    unknown = sorted(set(bands) - set(COLOURS))
    if unknown or len(bands) == 1:
        raise DataError(f"bands={','.join(bands)}: accepted are several of {', '.join(COLOURS)}, or none for r alone",
                        value=bands, accepted=list(COLOURS))
    camera = Camera()
    canvas = Canvas(size, moffat_psf(FWHM, camera), camera)
    for index in range(first, first + number):
        rng = np.random.default_rng([seed, index])
        galaxy = draw_galaxy(rng, camera)
        images, columns = [], {}
        for band in bands or ("r",):
            seen = in_band(galaxy, band)
            stamp = draw_stamp(seen, kind, canvas, copy.deepcopy(rng))  # the same structure in each
            more = [] if band == "r" else [1 + list(COLOURS).index(band)]
            noise = np.random.default_rng([seed, index, 1 + list(KINDS).index(kind), *more])
            images.append(observe(stamp, camera, noise))
            found = one_component([part for part in (seen["bulge"], seen["bar"], seen["disc"]) if part])
            columns |= {f"{name}_{band}" if bands else name: value for name, value in found.items()}
        rate = RATES[galaxy["type"]] + RATE_SCATTER * np.random.default_rng([seed, index, RATE_STREAM]).normal()
        yield {"id": index, "image": np.stack(images, axis=-1) if bands else images[0], "type": galaxy["type"],
               "redshift": galaxy["redshift"], "log_mass": galaxy["log_mass"], "log_ssfr": rate, **columns}


def in_band(galaxy, band):
    """A galaxy of `draw_galaxy`, which is one in r, in another band of `COLOURS`."""
    bulge, disc = COLOURS[band]
    scales = {"bulge": bulge, "bar": bulge, "disc": disc}
    return galaxy | {name: galaxy[name] and (scale * galaxy[name][0], *galaxy[name][1:])
                     for name, scale in scales.items()}


def draw_galaxy(rng, camera):
    """What a galaxy is made of, at random, as a dictionary.

    type; redshift; log_mass; kpc, in an arcsec; bulge, bar (or None) and disc: their Sersic (flux, radius, n,
    axis_ratio, angle); and of the disc: arms, their number; strength, theirs; pitch, the tangent of their pitch angle;
    width, the concentration of the von Mises distribution across them; phase; dust, along them; texture, its rms;
    clumps, their share of the light; lane, the optical depth of a dust lane.
    """
    drawn = {name: column[0] for name, column in draw_parameters(1, rng).items()}
    flux = float(camera.counts(drawn["magnitude"]))
    radius, n, ratio, angle = (drawn[name] for name in ("radius", "n", "axis_ratio", "angle"))
    # Every number is drawn for every type, whether it needs it or not.
    share, size, contrast, winding, phase, dusty, texture, clumpy, barred, length = rng.random(10)
    arms, bulge_n = rng.choice([2, 2, 2, 2, 3, 4]), rng.choice([1.0, 2.0, 3.0])
    galaxy = {"redshift": drawn["redshift"], "log_mass": drawn["log_mass"],
              "kpc": drawn["radius_kpc"] / radius, "bar": None}
    structure = {"arms": 0, "strength": 0.0, "pitch": np.tan(np.deg2rad(11 + 16 * winding)), "dust": 0.0,
                 "width": 1 + 1.5 * contrast, "phase": 2 * np.pi * phase, "texture": 0.02 + 0.05 * texture,
                 "clumps": 0.0, "lane": 0.0}
    face_on = np.clip((ratio - 0.25) / 0.15, 0, 1)  # 0 where arms cannot be seen
    if drawn["early"] and barred < 0.6:  # a spheroid with a faint, rounder, slightly turned envelope
        kind, bulge = "elliptical", 0.85 + 0.12 * share
        galaxy["bulge"] = bulge * flux, radius, np.round(2 * n) / 2, ratio, angle  # few n: each needs a table
        galaxy["disc"] = (1 - bulge) * flux, 1.3 * radius, 1.0, min(1, ratio + 0.1), angle + 40 * (phase - 0.5)
    else:
        kind = "lenticular" if drawn["early"] else "spiral"
        if kind == "lenticular":
            bulge, bulge_radius, bulge_n = 0.4 + 0.3 * share, (0.3 + 0.3 * size) * radius, 3.0
            structure.update(lane=(1 - face_on) * dusty)
        else:
            bulge, bulge_radius = 0.4 * share**1.5, (0.12 + 0.16 * size) * radius
            structure.update(arms=arms, strength=face_on * (0.4 + 0.6 * contrast), dust=face_on * (0.1 + 0.3 * dusty),
                             texture=0.15 + 0.2 * texture, clumps=0.04 + 0.12 * clumpy,
                             lane=(1 - face_on) * (0.7 + dusty))
        bar = 0.05 + 0.3 * barred if barred < 0.45 and ratio > 0.4 and kind == "spiral" else 0.0
        galaxy["bulge"] = bulge * flux, bulge_radius, bulge_n, 0.65 + 0.35 * ratio, angle
        # A disc somewhat larger than the whole makes up for the bulge.
        galaxy["disc"] = (1 - bulge) * (1 - bar) * flux, (1 + 0.6 * bulge) * radius, 1.0, ratio, angle
        if bar:
            reach = (0.5 + 0.3 * length) * radius  # half of it holds half of the bar's light
            start = structure["phase"] / arms + np.log(reach / _scale(galaxy["disc"])) / structure["pitch"]
            galaxy["bar"] = ((1 - bulge) * bar * flux, *_inclined(0.6 * reach, 0.3, start, ratio, angle))
    return {**galaxy, **structure, "type": TYPES.index(kind)}


def _scale(disc):
    """Scale length of an exponential disc, arcsec."""
    return disc[1] / sersic_b(1.0)


def _inclined(radius, flatness, direction, ratio, angle):
    """A bar in a disc as it is seen: (radius, n, axis_ratio, angle).

    direction: in the disc from its nodes on, radian; ratio, angle: of the disc.
    """
    along = np.array([np.cos(direction), np.sin(direction)])
    plane = radius**2 * (flatness**2 * np.eye(2) + (1 - flatness**2) * np.outer(along, along))
    plane *= np.outer([1, ratio], [1, ratio])
    return _ellipse(plane, 0.5, angle)


def _ellipse(matrix, n, turned=0.0):
    """(radius, n, axis_ratio, angle) of an ellipse x^T matrix^-1 x = 1 that is turned by some degrees."""
    (small, large), vectors = np.linalg.eigh(matrix)
    return np.sqrt(large), n, np.sqrt(small / large), (turned + np.rad2deg(np.arctan2(*vectors[::-1, 1]))) % 180


def draw_stamp(galaxy, kind, canvas, rng):
    """The galaxy as one of the `KINDS`, (size, size) counts, without noise."""
    light = sum(canvas.transform(sersic(*part)) for part in (galaxy["bulge"], galaxy["bar"], galaxy["disc"]) if part)
    box, smoothing = canvas.box, KINDS[kind].smoothing / galaxy["kpc"] / canvas.camera.pixel_scale / 2.3548  # sigma
    structure = scipy.fft.rfft2(disc_structure(galaxy, kind, canvas, rng), (box, box))
    k = 2 * np.pi * np.hypot(scipy.fft.fftfreq(box)[:, None], scipy.fft.rfftfreq(box))
    structure *= np.exp(-0.5 * (k * smoothing)**2)
    return canvas.stamp(light, structure)


def disc_structure(galaxy, kind, canvas, rng):
    """What the disc of a galaxy has more or less than an exponential disc, (size, size) counts that add up to zero."""
    flux, _, _, ratio, angle = galaxy["disc"]
    scale, pixel, turn = _scale(galaxy["disc"]), canvas.camera.pixel_scale, np.deg2rad(angle)
    offset = (np.arange(canvas.size) - (canvas.size - 1) / 2) * pixel / scale
    # float32: its cosine takes a twentieth of the time
    along = np.float32(offset * np.cos(turn) + offset[:, None] * np.sin(turn))
    height = np.float32((offset[:, None] * np.cos(turn) - offset * np.sin(turn)) / ratio)
    radius, azimuth = np.hypot(along, height), np.arctan2(height, along)  # in the plane of the disc, scale lengths
    smooth = flux / (2 * np.pi * ratio) * (pixel / scale)**2 * np.exp(-radius)
    winding = np.log(np.hypot(radius, 0.3))
    inner = radius**2 / (radius**2 + 0.25)  # there is less structure at the centre

    # Waves of every number of arms, wound up more or less as the spiral is
    order, pitch, phase = rng.integers(1, 13, MODES), rng.uniform(15, 45, MODES), rng.uniform(0, 2 * np.pi, MODES)
    wound = order / np.tan(np.deg2rad(pitch))
    texture = sum(m**-0.5 * np.cos(m * azimuth - k * winding + p)
                  for m, k, p in zip(order.tolist(), wound.tolist(), phase.tolist()))
    texture /= np.sqrt(0.5 * (1 / order).sum())  # rms 1
    density = smooth * np.exp(galaxy["texture"] * inner * texture)
    if galaxy["arms"]:
        across = galaxy["arms"] * (azimuth - winding / galaxy["pitch"]) - galaxy["phase"] + 0.4 * inner * texture
        reach = inner * np.exp(-(radius / 5)**4)
        density *= 1 + galaxy["strength"] * reach * _crest(across, galaxy["width"])
        density *= np.exp(-galaxy["dust"] * reach * (1 + _crest(across + 0.9, 2 * galaxy["width"])))
    if galaxy["lane"]:
        # The near half of the dust is in front of most stars, and a little off the middle.
        dust = np.exp(-0.5 * ((height - 0.25) / 0.35)**2 - np.abs(along) / 2)
        density *= np.exp(-galaxy["lane"] * dust)
    clumps = _clumps(density * inner, galaxy, kind, smooth.sum(), rng) if galaxy["clumps"] else 0.0
    return density * ((smooth.sum() - np.sum(clumps)) / density.sum()) + clumps - smooth


def _crest(angle, width):
    """A wave of mean 0 whose crests are narrower than its troughs: a von Mises distribution over its mean, less 1."""
    return np.exp(width * (np.cos(angle) - 1)) / i0e(width) - 1


def _clumps(density, galaxy, kind, light, rng):
    """Clumps of young stars at random where the density, (size, size), is: their light, (size, size) counts.

    Numbers go with luminosity as L^-1.8 over a factor of 40, as those of star clusters and HII regions do. A clump is a
    point between four pixels.
    """
    size, number = len(density), 20 + rng.poisson(60)
    luminosity = np.sort((1 - 0.95 * rng.random(number))**(-1 / 0.8))[::-1]
    luminosity *= galaxy["clumps"] * light / luminosity.sum()
    cell = np.searchsorted(density.ravel().cumsum() / density.sum(), rng.random(number))
    row, column = np.unravel_index(np.minimum(cell, size**2 - 1), density.shape)
    down, right = rng.random((2, number))
    luminosity[int(np.ceil(KINDS[kind].clumps * number)):] = 0
    image = np.zeros((size + 1, size + 1))
    for i, j, part in ((0, 0, (1 - down) * (1 - right)), (1, 0, down * (1 - right)), (0, 1, (1 - down) * right),
                       (1, 1, down * right)):
        np.add.at(image, (row + i, column + j), part * luminosity)
    return image[:size, :size]


def one_component(parts):
    """The one Sersic profile that comes close to some together: flux, radius, n, axis_ratio, angle, as a dictionary.

    parts: (flux, radius, n, axis_ratio, angle) of each. Axis ratio and angle are those of the second moments, where
    each part has moments in proportion to its half-light radius squared, whatever its n: the sky hides the wings of
    high n. On ellipses of that shape the radius is that of half of the light, and n has the ratio of the radii of three
    quarters and one quarter. All this is exact for one part alone.
    """
    flux = sum(part[0] for part in parts)
    moments = 0.0
    for part, radius, _, ratio, angle in parts:
        axes = np.array([[np.cos(angle := np.deg2rad(angle)), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        moments = moments + part * radius**2 * axes.T @ np.diag([1, ratio**2]) @ axes
    radius, _, ratio, angle = _ellipse(moments / flux, None)
    a = radius * np.geomspace(1e-4, 30, 160)
    t = np.arange(24) * (np.pi / 24)  # the other half is the same
    turn = np.deg2rad(angle)
    x = a[:, None] * (np.cos(t) * np.cos(turn) - ratio * np.sin(t) * np.sin(turn))
    y = a[:, None] * (np.cos(t) * np.sin(turn) + ratio * np.sin(t) * np.cos(turn))
    ring = sum(_brightness(x, y, *part) for part in parts).mean(axis=1) * 2 * np.pi * ratio * a**2  # d flux / d ln a
    within = np.concatenate([[0], np.cumsum(ring[1:] + ring[:-1]) / 2]) * np.log(a[1] / a[0])
    low, half, high = np.interp(np.array(QUARTERS) * flux, within, a)
    return {"flux": flux, "radius": half, "n": np.interp(high / low, *_concentrations()), "axis_ratio": ratio,
            "angle": angle}


def _brightness(x, y, flux, radius, n, ratio, angle):
    """Surface brightness of a Sersic profile at x, y from its centre."""
    cosine, sine = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    relative = np.hypot(x * cosine + y * sine, (y * cosine - x * sine) / ratio) / radius
    return flux / sersic_flux(radius, n, ratio) * np.exp(-sersic_b(n) * (relative**(1 / n) - 1))


@cache
def _concentrations():
    """The ratio of the radii of three quarters and one quarter of the light, by n: (ratio, n), both ascending."""
    n = np.geomspace(0.3, 10, 400)
    low, high = (gammaincinv(2 * n, share)**n for share in (QUARTERS[0], QUARTERS[2]))
    return high / low, n
