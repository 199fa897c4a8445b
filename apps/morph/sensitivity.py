"""How far likelihood ratios move where a set was observed a little otherwise than the run's training images.

A point spread function, a noise or a sky that differ by a few percent between two pipelines can move the mean ratio as
much as what galaxies look like: what a Delta<LLR> has to be held against.
"""

import numpy as np

from kerasgal.apps.morph import prepare
from kerasgal.apps.morph.score import scores_of, sky_noise
from kerasgal.readers.flux import to_unit

OFF = 0.05  # share by which the point spread function's width, and the noise, are larger; of the noise: the sky's error
WIDTH = 4  # pixels of the border that the noise of an image is measured in
PADDED = 8  # pixels beyond an image's edge that are mirrored before it is blurred
FWHM = (8 * np.log(2))**0.5  # of a Gaussian, in its standard deviations


def blurred(counts, deviation, noise, rng):
    """An image, (y, x), seen through a Gaussian more, whose white noise is as large and as white as before.

    deviation: of the Gaussian, pixels; noise: standard deviation of the image's. What the Gaussian takes from the noise
    is added again at each wavenumber. Of several bands, (y, x, band) and (band,), each is.
    """
    if counts.ndim == 3:
        return np.stack([blurred(counts[..., band], deviation, noise[band], rng) for band in range(counts.shape[2])],
                        axis=-1)
    padded = np.pad(np.asarray(counts, np.float64), PADDED, mode="reflect")
    k = 2 * np.pi * np.hypot(np.fft.fftfreq(padded.shape[0])[:, None], np.fft.rfftfreq(padded.shape[1]))
    kept = np.exp(-0.5 * (k * deviation)**2)
    more = rng.normal(0, noise, padded.shape)
    made = np.fft.irfft2(np.fft.rfft2(padded) * kept + np.fft.rfft2(more) * np.sqrt(1 - kept**2), padded.shape)
    return made[PADDED:-PADDED, PADDED:-PADDED]


def sensitivity(run, images):
    """How far the ratio and ln p under the network of real galaxies move, on average, where images are 5% otherwise.

    Parameters
    ----------
    run : kerasgal.apps.morph.run.Morph
    images : list of Image
        That can be scored.

    Returns
    -------
    dict
        "images"; and under "psf" (5% wider, the noise as it was; None where neither the images nor the run say its
        width), "noise" (of the sky, 5% larger) and "sky" (too bright by 5% of that noise) mean changes in nats, "llr"
        with its error "llr_error", and "log_p_real".
    """
    rng = np.random.default_rng(0)
    changed = {"before": [], "psf": [], "noise": [], "sky": []}
    for image in images:
        image = to_unit(image, run.unit, run.zero_point)
        counts = prepare.clean(image, run.config)
        noise = sky_noise(counts, WIDTH)
        changed["before"].append(counts)
        changed["noise"].append(counts + rng.normal(0, noise * ((1 + OFF)**2 - 1)**0.5, counts.shape))
        changed["sky"].append(counts + OFF * noise)
        width = _psf_width(run, image)
        if width is not None:
            changed["psf"].append(blurred(counts, width * ((1 + OFF)**2 - 1)**0.5, noise, rng))
    named = [name for name, group in changed.items() if len(group) == len(images)]  # "before" is the first
    stamps = np.stack([prepare.stamp(counts, run.config) for name in named for counts in changed[name]])
    scores = scores_of(run, stamps.astype(np.float32))
    llr, log_p = (scores[name].reshape(len(named), len(images)) for name in ("llr", "log_p_real"))
    made = {"images": len(images), "psf": None}
    for number, name in enumerate(named[1:], 1):
        moved = llr[number] - llr[0]
        made[name] = {"llr": float(moved.mean()), "llr_error": float(moved.std() / len(moved)**0.5),
                      "log_p_real": float((log_p[number] - log_p[0]).mean())}
    return made


def _psf_width(run, image):
    """Standard deviation of an image's point spread function, pixels; by the run's domain where it says none."""
    known = []
    for name in ("psf_fwhm", "pixel_scale"):
        value = getattr(image, name)
        if value is None and run.domain.get(name):
            value = float(np.mean(run.domain[name]))
        known.append(value)
    return known[0] / known[1] / FWHM if all(known) else None


def line(found):
    """What `sensitivity` found as one line of text."""
    said = [f"{words} by {found[name]['llr']:+.2f} +- {found[name]['llr_error']:.2f} nats"
            for name, words in (("psf", "a PSF 5% wider"), ("noise", "noise 5% larger"),
                                ("sky", "a sky too bright by 5% of the noise")) if found[name]]
    unknown = "" if found["psf"] else "; the width of the PSF is not known"
    return f"the mean LLR is moved: {', '.join(said)}{unknown}"
