"""Likelihoods of images under both networks and their ratio (Zanisi et al. 2020, Sec. 3.3).

Each row of scores has a `flag`, the sum of what of `FLAGS` is true of its image:

1 blank: no pixel of the prepared image stands out of the sky as a galaxy;
2 saturated: the stretch is cut off in more than a tenth of the galaxy's pixels, or one of them reaches the saturation
  that the header states;
4 cut: the galaxy, or other light, reaches the border of the prepared image: a piece of it, or the whole border is
  brighter than three deviations of the noise;
8 bad: more than 5% of the pixels in the cut are masked or not finite, and filled in;
16 unit: whether the flux is in the unit that the run was trained in is not known;
32 not scored: the column `error` says why.
"""

import itertools

import numpy as np
from skimage.measure import label

from kerasgal.apps.morph import prepare
from kerasgal.apps.morph.losses import PixelLikelihood, log_prob
from kerasgal.apps.morph.model import pixelcnn
from kerasgal.cluster import each, run_of, token
from kerasgal.errors import DataError, DomainError, RunError
from kerasgal.readers.flux import to_unit
from kerasgal.readers.images import PLACE

REAL, ARCHETYPE = "real", "archetype"  # the run folders of the two networks, inside that of the app
BATCH = 64
DETECTION = 3.0  # standard deviations above the sky from which a pixel is the galaxy's
NUMBERS = ("log_p_real", "log_p_archetype", "llr", "galaxy_pixels", "log_p_real_galaxy", "log_p_archetype_galaxy",
           "llr_galaxy")
COLUMNS = ("id", *NUMBERS, "flag", "error", *PLACE)
FLAGS = {"blank": 1, "saturated": 2, "cut": 4, "bad": 8, "unit": 16, "not scored": 32}
SATURATED, BAD = 0.1, 0.05  # shares of the galaxy's pixels, and of those of the cut, above which an image has the flag


def build(config):
    """The network of a configuration, not compiled."""
    return pixelcnn((config.size, config.size, config.channels), blocks=config.blocks, filters=config.filters,
                    mixtures=config.mixtures, dropout=config.dropout, likelihood=config.likelihood)


def likelihood_maps(run, images):
    """ln p of every pixel given those before it, under both networks: two arrays (batch, y, x).

    images: (batch, y, x, band) prepared. Of all bands of a pixel together; a density per unit of stretched flux, or
    with bits a probability.

    run: a `kerasgal.apps.morph.run.Morph`, here and below.
    """
    like = run.config.bits, run.config.likelihood
    return tuple(np.asarray(log_prob(images, network.predict_on_batch(images), *like))
                 for network in (run.real, run.archetype))


def pair(run):
    """Both networks as one: prepared images to ln p of each pixel under both, (batch, y, x, 2)."""
    import keras
    from keras import ops

    inputs = keras.Input((run.config.size, run.config.size, run.config.channels), name="image")
    like = run.config.bits, run.config.likelihood
    maps = [PixelLikelihood(*like, name=f"log_p_{network.name}")(inputs, network(inputs))
            for network in (run.real, run.archetype)]
    return keras.Model(inputs, ops.stack(maps, axis=-1), name="morph")


def border_sky(image, width=1):
    """Median of the pixels at the border of an image, (y, x), and their standard deviation by the median deviation."""
    inside = np.zeros(image.shape, bool)
    inside[width:-width, width:-width] = True
    border = image[~inside]
    sky = np.median(border)
    return sky, 1.4826 * np.median(np.abs(border - sky))


def sky_noise(image, width=1):
    """Standard deviation of the pixels at the border of an image, (y, x), or of each band of (y, x, band)."""
    if image.ndim == 2:
        return border_sky(image, width)[1]
    return np.array([border_sky(image[..., band], width)[1] for band in range(image.shape[2])])


def galaxy_pixels(image):
    """The pixels of a prepared image, (y, x), that belong to its central galaxy: boolean, (y, x).

    Those that stand out of the sky, as the border shows it, in one piece with the brightest of the central pixels. Of
    several bands the image is their mean, which has the same pixels as their sum.
    """
    sky, noise = border_sky(image)
    bright = image > sky + DETECTION * max(noise, 1e-6)
    y, x = (side // 4 for side in image.shape)
    middle = np.where(bright, image, -np.inf)[y:-y, x:-x]
    if not np.isfinite(middle).any():
        return np.zeros_like(bright)
    top = np.unravel_index(np.argmax(middle), middle.shape)
    pieces = label(bright)
    return pieces == pieces[top[0] + y, top[1] + x]


def score_batch(run, images):
    """The numbers of the table for prepared images, (batch, y, x, band), a dictionary of arrays (batch,), and maps."""
    real, archetype = likelihood_maps(run, images)
    galaxy = np.stack([galaxy_pixels(prepare.grey(image)) for image in images])
    sums = {"log_p_real": real.sum(axis=(1, 2), dtype=float),
            "log_p_archetype": archetype.sum(axis=(1, 2), dtype=float),
            "galaxy_pixels": galaxy.sum(axis=(1, 2)),
            "log_p_real_galaxy": np.where(galaxy, real, 0).sum(axis=(1, 2), dtype=float),
            "log_p_archetype_galaxy": np.where(galaxy, archetype, 0).sum(axis=(1, 2), dtype=float)}
    for part in ("", "_galaxy"):
        sums[f"llr{part}"] = sums[f"log_p_real{part}"] - sums[f"log_p_archetype{part}"]
    return sums, (real, archetype)


def scores_of(run, images):
    """The numbers of `score_batch` for any number of prepared images, (n, y, x) or (n, y, x, band)."""
    found = []
    images = images[..., None] if images.ndim == 3 else images
    for start in range(0, len(images), BATCH):
        group = images[start:start + BATCH]
        padded = np.concatenate([group, np.repeat(group[:1], BATCH - len(group), axis=0)])
        found.append({name: values[:len(group)] for name, values in score_batch(run, padded)[0].items()})
    return {name: np.concatenate([part[name] for part in found]) for name in found[0]}


def flag(image, prepared, config, galaxy, unit_known):
    """What of `FLAGS` is true of an image, as their sum.

    image: `Image` in the unit of the run; prepared: (y, x, band), what became of it; galaxy: its `galaxy_pixels`;
    unit_known: whether the image is known to be in that unit. A pixel is saturated if it is in one of the bands.
    """
    clipped, prepared = (prepared >= 1).any(axis=-1), prepare.grey(prepared)
    saturated = clipped[galaxy].mean() > SATURATED if galaxy.any() else clipped.mean() > SATURATED
    limit = image.facts.get("saturation")
    if limit is not None:
        factor = config.crop // config.size
        full = np.atleast_3d(image.pixels >= limit).any(axis=-1)
        full = prepare.cut(full, config.crop).reshape(config.size, factor, config.size, factor)
        saturated |= bool((full.any(axis=(1, 3)) & galaxy).any())
    found = {"blank": not galaxy.any() and not saturated, "saturated": saturated,
             "cut": _reaches_border(prepared, galaxy),
             "bad": prepare.cut(prepare.bad_pixels(image), config.crop).mean() > BAD, "unit": not unit_known}
    return sum(FLAGS[name] for name, true in found.items() if true)


def _reaches_border(prepared, galaxy):
    """Whether a galaxy's pixels, or light all around, reach the border of a prepared image, (y, x)."""
    if galaxy[[0, -1]].any() or galaxy[:, [0, -1]].any():
        return True
    around = np.concatenate([prepared[0], prepared[1:, -1], prepared[-1, -2::-1], prepared[-2:0:-1, 0]])
    # Neighbours tell the noise also where a galaxy's slope makes the border uneven.
    noise = 1.4826 * np.median(np.abs(np.diff(around))) / 2**0.5
    return np.median(around) > DETECTION * max(noise, 1e-6)


def _prepared(run, image):
    """An image in the unit of the run, as its networks see it, and whether it is known to be in that unit.

    Raises DataError as `prepare.prepare` and `to_unit` do.
    """
    if image.error:
        raise DataError(image.error)
    told = image.flux_scale is not None
    image = to_unit(image, run.unit, run.zero_point)
    known = told or run.zero_point is not None and (image.unit, image.zero_point) == (run.unit, run.zero_point)
    return image, prepare.prepare(image, run.config), known


def _refuse_blank(run, images, prepared):
    """Raise DataError if in more than half of the prepared images, (batch, y, x, band), no pixel is a galaxy's."""
    blank = sum(not galaxy_pixels(prepare.grey(stamp)).any() for stamp in prepared)
    if 2 * blank <= len(prepared):
        return
    largest = max(float(np.max(image.pixels, where=np.isfinite(image.pixels), initial=-np.inf)) for image in images)
    unit = {image.unit for image in images}
    unit = unit.pop() if len(unit) == 1 else None
    wanted = run.unit or "a unit that it does not say"
    if run.zero_point is not None:
        wanted += f" of which one has {run.zero_point:g} mag"
    raise DomainError(f"{blank} of the first {len(prepared)} images show no galaxy after the stretch "
                      f"arsinh(flux / {run.config.softening:g}): their largest flux is {largest:.3g} in "
                      f"{unit or 'an unknown unit'}, and the run was trained on {wanted}; if they are galaxies, "
                      f"give `unit`, `zero_point` or `flux_scale`", value=largest, accepted=run.config.softening)


def score(run, images, batch=None, begun=False):
    """Score a stream of `Image`s in batches: yields, for each batch, its rows and (ids, images, maps) or None.

    Images are those that the networks saw, (batch, y, x), or (batch, y, x, band) of several bands.
    A row is a dictionary with COLUMNS as keys, and "" for what is not known. Images are brought to the unit of the run.
    One that cannot be read, brought to it or prepared has a row with the error and no numbers; nothing is held but a
    batch. Raises DomainError, before there is a row, if most images of the first batch show no galaxy; not if it has
    begun before.
    """
    images, batch = iter(images), batch or BATCH
    while group := list(itertools.islice(images, batch)):
        rows, prepared, kept, scaled, known = [], [], [], [], []
        for image in group:
            row = dict.fromkeys(COLUMNS, "") | {"id": image.id, **image.place}
            rows.append(row)
            try:
                for column, value in zip((scaled, prepared, known), _prepared(run, image)):
                    column.append(value)
                kept.append(row)
            except DataError as error:
                row |= {"error": str(error), "flag": FLAGS["not scored"]}
        if not kept:
            yield rows, None
            continue
        # Always of one size: another one would be compiled anew.
        full = np.stack(prepared + prepared[:1] * (batch - len(prepared)))
        count = len(kept)
        if not begun:
            _refuse_blank(run, scaled, full[:count])
            begun = True
        sums, maps = score_batch(run, full)
        for number, row in enumerate(kept):
            row.update({name: sums[name][number].item() for name in NUMBERS})
            galaxy = galaxy_pixels(prepare.grey(full[number]))
            row["flag"] = flag(scaled[number], full[number], run.config, galaxy, known[number])
        seen = full[:count, ..., 0] if run.config.channels == 1 else full[:count]
        yield rows, ([row["id"] for row in kept], seen, tuple(values[:count] for values in maps))


def score_on(client, run, images, maps=False, begun=False):
    """As `score`, with all batches but the first on the workers of a client of Dask; the same, in the same order.

    Images are read here. maps: whether (ids, images, maps) are wanted; else None comes in their place. Without a client
    it is `score`.
    """
    if client is None:
        yield from score(run, images, begun=begun)
        return
    if run.folder is None:
        raise RunError("other processes cannot load a run that was never saved: give one of a folder, or client=None")
    images = iter(images)
    for rows, made in score(run, images, begun=begun):
        yield rows, made
        if made:  # whether they are galaxies at all has been seen
            break
    key = (type(run), str(run.folder), token())
    groups = iter(lambda: list(itertools.islice(images, BATCH)), [])
    yield from each(_score_group, ((key, group, BATCH, maps) for group in groups), client)


def _score_group(task):
    """On a worker: the rows of one batch of images, and the rest where it is wanted."""
    key, group, batch, maps = task
    [(rows, made)] = score(run_of(*key), group, batch, begun=True)
    return rows, made if maps else None
