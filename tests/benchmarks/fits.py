"""Sersic fits of ten real galaxies against the published ones, ours and statmorph's.

    python tests/benchmarks/fits.py FOLDER

FOLDER is examples/postage_stamps of PyMorph (https://github.com/vvinuv/pymorph): SDSS stamps in r in counts a second,
with their sky, their PSFs, and in expected_results the fits of GALFIT, which took sky and neighbours along. Its authors
say that eight of the ten are like one Sersic profile. Nothing but image and PSF is given to our fit; statmorph, if it
is installed, gets the sky, the segmentation and the masks that ours found, and the noise map.
"""

import logging
import re
import sys
import time
from pathlib import Path

import numpy as np
from astropy.io import fits
from scipy.ndimage import gaussian_filter, label

from kerasgal.apps.morph import archetypes, catalogues, fitting

ZERO_POINT, PIXEL = 25.256, 0.396  # of the stamps
CLOSE = 0.1  # share of the radius, and magnitudes


def published(path):
    """Magnitude, half-light radius [pixels] and n of the galaxy, of GALFIT's output."""
    first = path.read_text().split("sersic", 1)[1]
    return [float(re.search(rf"^ {line}\)\s+([-\d.]+)", first, re.MULTILINE).group(1)) for line in (3, 4, 5)]


def ours(stamp, psf, camera):
    found = catalogues.fitted(stamp, archetypes.read_psf(psf, camera), camera, zero_point=ZERO_POINT)
    magnitude = camera.zero_point - 2.5 * np.log10(found["flux"][0])
    return magnitude, found["radius"][0] / PIXEL, found["n"][0]


def statmorphs(stamp, psf):
    import statmorph

    image, noise_map = (fits.getdata(path).astype(float) for path in (stamp, stamp.with_name(f"{stamp.stem}_W.fits")))
    used = np.isfinite(image)
    sky, noise = fitting.sky_level(image, used)
    others = fitting.neighbours(image - sky, used, noise)
    blurred = gaussian_filter(image - sky, fitting.SHARP)
    bright = (blurred > 3 * noise / (2 * np.pi**0.5 * fitting.SHARP)) & ~others
    pieces = label(bright)[0]
    middle = tuple(side // 2 for side in image.shape)
    kernel = fits.getdata(psf).astype(float)
    found, = statmorph.source_morphology(image - sky, (pieces == pieces[middle]).astype(int), mask=others,
                                         weightmap=noise_map, psf=kernel / kernel.sum())
    light = found.sersic_amplitude * archetypes.sersic_flux(found.sersic_rhalf, found.sersic_n, 1 - found.sersic_ellip)
    return ZERO_POINT - 2.5 * np.log10(light), found.sersic_rhalf, found.sersic_n


def main(folder):
    logging.getLogger("kerasgal").setLevel(logging.ERROR)
    logging.getLogger("astropy").setLevel(logging.ERROR)
    camera = archetypes.Camera()
    fitters = {"kerasgal": lambda stamp, psf: ours(stamp, psf, camera)}
    try:
        import statmorph  # noqa: F401
        fitters["statmorph"] = statmorphs
    except ImportError:
        print("statmorph is not installed")
    for name, fitter in fitters.items():
        close, start = 0, time.monotonic()
        for stamp in sorted((folder / "data").glob("*_r_stamp.fits")):
            magnitude, radius, n = published(folder / "expected_results" / f"G_r_{stamp.stem}.out")
            found = fitter(stamp, stamp.with_name(stamp.name.replace("stamp", "psf")))
            good = abs(found[0] - magnitude) < CLOSE and abs(found[1] / radius - 1) < CLOSE
            close += good
            print(f"{name} {stamp.stem[:8]}: magnitude {found[0] - magnitude:+.3f}, radius x {found[1] / radius:.3f}, "
                  f"n {found[2]:.2f} ({n:.2f}){'' if good else '  not close'}")
        print(f"{name}: {close} of 10 within {CLOSE:.0%} in radius and {CLOSE} mag, {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
