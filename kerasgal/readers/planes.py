"""Which planes of pixels are images of galaxies, and which are masks, weights, point spread functions and the like.

They are told apart by the names of FITS extensions, by the names of files that lie side by side, and by what is in
them. What each plane is, is one of the `ROLES`.
"""

import re

import numpy as np

# What a plane is, in words; what its extension may be called, as a whole or as a part between other signs than letters
ROLES = {
    "image": "an image",
    "mask": "a mask",
    "variance": "a map of variances",
    "sigma": "a map of standard deviations",
    "weight": "a map of weights",
    "inverse": "a map of inverse variances",
    "segmentation": "a segmentation map",
    "psf": "a point spread function",
    "model": "a model",
    "residual": "a residual",
    "other": "a map of something else than flux",
    "even": "the same number in every pixel",
}
EXTENSIONS = {
    "image": ("SCI", "SCIENCE", "IMAGE", "IMG", "PRIMARY", "INPUT", "DATA", "FLUX", "CUTOUT", "COADD"),
    "mask": ("MASK", "MSK", "MASKIM", "DQ", "DQI", "FLAG", "FLAGS", "BPM", "BADPIX", "BADPIXELS", "MK"),
    "variance": ("VARIANCE", "VAR"),
    "sigma": ("ERR", "ERROR", "ERRORS", "SIGMA", "RMS", "STD", "STDDEV", "UNC", "UNCERT", "UNCERTAINTY", "NOISE"),
    "weight": ("WGT", "WEIGHT", "WEIGHTS", "WHT", "WT"),
    "inverse": ("IVAR", "INVVAR", "INVVARIANCE", "INVERSE"),
    "segmentation": ("SEG", "SEGM", "SEGMAP", "SEGMENTATION", "LABELS"),
    "psf": ("PSF", "PRF", "KERNEL"),
    "model": ("MODEL", "MODELS", "FIT", "BESTFIT"),
    "residual": ("RESIDUAL", "RESIDUALS", "RESID", "RES"),
    "other": ("CTX", "CON", "CONTEXT", "SAMP", "TIME", "EXP", "EXPTIME", "EXPMAP", "COV", "COVERAGE", "NEXP", "NIMAGES",
              "NIMG", "SKY", "BACKGROUND", "BKG", "BACK", "AREA", "WAVELENGTH", "CALIB"),
}
# What the names of companions of an image file have beside or in place of the image's
FILES = {
    "mask": ("mask", "masks", "msk", "mskim", "maskim", "badpix", "bpm", "dq"),
    "sigma": ("sigma", "sigim", "sigmaim", "rms", "err", "error", "unc"),
    "variance": ("variance", "var", "varim"),
    "inverse": ("invvar", "ivar"),
    "weight": ("weight", "wht", "wgt", "w"),
    "segmentation": ("seg", "segm", "segim", "segmap", "segmentation"),
    "psf": ("psf", "psfim"),
    "model": ("model",),
    "residual": ("residual", "resid"),
}
IMAGE_ENDS = ("", "fitim", "image", "img", "im", "sci", "data", "stamp", "cutout")
NOISY = ("variance", "sigma", "inverse", "weight")  # maps that belong to an image, as its mask does
# Planes of masks of the LSST pipelines, and so of HSC's, that make a pixel unusable; others say what was detected there
BAD_PLANES = ("MP_BAD", "MP_SAT", "MP_CR", "MP_NO_DATA", "MP_UNMASKEDNAN", "MP_EDGE")
LABELLED = 0.8  # share of the neighbours of pixels that are not zero which have the same number, in a map of labels


def role_of_extension(name, header):
    """The role that a FITS image has by its name or by GALFIT's cards; None if they do not say."""
    parts = [part for part in re.split(r"[^A-Z]+", str(name).upper()) if part]
    # GALFIT names its planes by the object: its own name, then "model" and "residual map".
    title = str(header.get("OBJECT", "")).strip().lower()
    if title in ("model", "residual map"):
        return title.split()[0]
    if parts in ([], ["PRIMARY"]) and str(header.get("IMAGETYP", "")).strip().upper() in ("INVVAR", "IVAR"):
        return "inverse"  # cutouts of the Legacy Surveys
    for role, names in EXTENSIONS.items():
        if "".join(parts) in names:
            return role
    # SCI_MASK and F606W_PSF are a mask and a PSF: what is said last counts, and "image" says least.
    for part in reversed(parts):
        for role, names in EXTENSIONS.items():
            if part in names and part not in ("PRIMARY", "INPUT", "DATA", "IMAGE", "IMG"):
                return role
    return "image" if any(part in EXTENSIONS["image"] for part in parts) else None


def role_of_pixels(pixels):
    """What pixels (y, x) are if they cannot be a galaxy's image: "even", "mask" or "segmentation"; else None.

    A mask has two numbers; a segmentation map whole numbers that are alike wherever they are not zero, as no flux is.
    """
    finite = pixels[np.isfinite(pixels)]
    if not finite.size:
        return None  # nothing but bad pixels: that is said elsewhere
    low, high = finite.min(), finite.max()
    if low == high:
        return "even"
    if low < 0 or not _whole(finite):
        return None
    if ((finite == low) | (finite == high)).all():
        return "mask"
    labels = pixels != 0
    beside = labels[:, 1:] & labels[:, :-1]
    alike = (pixels[:, 1:] == pixels[:, :-1])[beside]
    return "segmentation" if alike.size and alike.mean() > LABELLED else None


def _whole(values):
    """Whether all values are whole numbers; the first few tell for nearly every image."""
    return all((part == np.floor(part)).all() for part in (values[:1000], values))


def bad_pixels(values, header):
    """The pixels of a mask that say "do not use", as booleans: those that are not zero, or have a bad plane's bit."""
    bits = [header[name] for name in BAD_PLANES if isinstance(header.get(name), int) and 0 <= header[name] < 63]
    if not bits or values.dtype.kind not in "iu":
        return values != 0
    return values.astype(np.int64) & sum(1 << bit for bit in bits) != 0


def variance_of(values, role):
    """Variances (y, x), float32, of what a plane holds; infinite where it gives a pixel no weight."""
    values = np.asarray(values, np.float32)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        found = {"variance": values, "sigma": values**2}.get(role)
        return np.where(values > 0, 1 / values, np.inf).astype(np.float32) if found is None else found


def role_of_file(stem, stems):
    """What a file is beside others, by its name: a role, and the stem that it belongs to; (None, None) for an image.

    stem: its name without suffix; stems: those of all files beside it, each under itself in lower case. mask_a and
    a_mask belong to a, GALAXYmskim to GALAXYfitim. A PSF is one also where no image has the rest of its name.
    """
    own = stem.lower()
    words = [(role, word) for role, some in FILES.items() for word in some if word in own]
    for role, word in words:
        for rest, image_ends in _without(own, word):
            for end in image_ends:
                if rest + end in stems and rest + end != own:
                    return role, stems[rest + end]
    if "psf" in re.split(r"[^a-z]+", own):
        return "psf", None
    return None, None


def _without(stem, word):
    """What is left of a stem without a word that is a part of it, each with the ends an image's name may then have."""
    for match in re.finditer(rf"(^|[^a-z]){word}(?=$|[^a-z])", stem):
        before, after = stem[:match.start()], stem[match.end():]
        for rest in {before + after, (match.group(1) + after if before else after[1:])}:
            if rest:
                yield rest, ("",)
        if not after:
            yield before + match.group(1), IMAGE_ENDS
    if stem.endswith(word) and len(stem) > len(word) > 1:
        yield stem[:-len(word)], IMAGE_ENDS[1:]
