"""Sets of galaxies compared by their likelihood ratios: Sec. 4 of Zanisi et al. 2020."""

import functools

import numpy as np
from scipy import stats

from kerasgal.apps.morph import figures
from kerasgal.apps.morph.score import BATCH, border_sky, galaxy_pixels, score, score_batch
from kerasgal.errors import DataError
from kerasgal.plotting import track
from kerasgal.run import Evaluation

DRAWS = 1000  # of the bootstrap
SHOWN = 4  # images of each set beside their contributions
DISTURBED = 128  # images to whose sky noise is added
SKY_WIDTH = 2  # pixels of the border that the noise of the sky is measured in


PLANES = (("log_mass", "radius"), ("magnitude", "radius"), ("n", "radius"))


def evaluate(run, sets, notes=()):
    """Score sets of images and compare them: an `Evaluation`.

    run: a `Morph`; sets: {name: function that returns a stream of `Image`s}, the first of observations, with which the
    others are compared; notes: on them, which are kept with the numbers. Raises DataError for a set without an image
    that can be scored.
    """
    scored = {}
    for name in track(list(sets), "scoring"):
        scored[name] = collect(run, sets[name]())
        if not len(scored[name]["llr"]):
            raise DataError(f"no image of {name} can be scored")
    reference = next(iter(scored))
    result = {"reference": reference, "sets": {name: compare(values, scored[reference])
                                               for name, values in scored.items()},
              "sky": sky_test(run, scored[reference]["images"][:DISTURBED])}
    if notes:
        result["notes"] = list(notes)

    def draw():
        shown = {name: (values["images"][:SHOWN], values["real"][:SHOWN], values["archetype"][:SHOWN])
                 for name, values in scored.items()}
        drawn = {"llr": figures.ratios({name: values["llr"] for name, values in scored.items()}),
                 "sky": figures.skies(scored), "contributions": figures.contributions(shown)}
        for horizontal, vertical in PLANES:
            known = {name: values for name, values in scored.items()
                     if {horizontal, vertical} <= values["columns"].keys()}
            if known:
                drawn[f"{vertical}_{horizontal}"] = figures.plane(known, horizontal, vertical)
        return drawn

    return Evaluation(result, table(result), functools.cache(draw), run)


def collect(run, images):
    """What is known of the images of one set that can be scored: numbers, (n,) each, and the first images and maps."""
    numbers = {name: [] for name in ("log_p_real", "log_p_archetype", "llr", "llr_galaxy", "sky_noise")}
    columns, first = [], {"images": [], "real": [], "archetype": []}
    described = {}

    def noted(images):
        for image in images:
            described[image.id] = image.columns
            yield image

    for rows, batch in score(run, noted(images)):
        if batch is None:
            continue
        _, prepared, (real, archetype) = batch
        for row in rows:
            if not row["error"]:
                for name in ("log_p_real", "log_p_archetype", "llr", "llr_galaxy"):
                    numbers[name].append(row[name])
                columns.append(described.pop(row["id"]) or {})
        numbers["sky_noise"] += [border_sky(image, SKY_WIDTH)[1] for image in prepared]
        if sum(map(len, first["images"])) < DISTURBED:
            for name, values in (("images", prepared), ("real", real), ("archetype", archetype)):
                first[name].append(values)
    common = set.intersection(*(set(entry) for entry in columns)) if columns else set()
    return {**{name: np.array(values) for name, values in numbers.items()},
            **{name: np.concatenate(values) if values else np.empty((0, 1, 1)) for name, values in first.items()},
            "columns": {name: np.array([entry[name] for entry in columns], float) for name in common
                        if np.isscalar(columns[0][name]) and not isinstance(columns[0][name], (str, bytes))}}


def compare(values, reference):
    """A set's distributions, and how far its likelihood ratios are from the reference's.

    The mean ratio is the difference of two K-L divergences, of the set from the model of archetypes and from that of
    real galaxies (Eq. 5 of the paper): higher is closer to the observations.
    """
    rng = np.random.default_rng(0)
    llr = values["llr"]
    entry = {"images": len(llr)}
    for name in ("llr", "llr_galaxy", "log_p_real", "log_p_archetype"):
        drawn = rng.choice(values[name], (DRAWS, len(llr)))
        entry[name] = {"median": float(np.median(values[name])), "median_error": float(np.median(drawn, axis=1).std()),
                       "mean": float(values[name].mean()), "mean_error": float(drawn.mean(axis=1).std()),
                       "low": float(np.percentile(values[name], 16)), "high": float(np.percentile(values[name], 84))}
    if values is not reference:
        distance = stats.ks_2samp(llr, reference["llr"])
        # The probability that a galaxy of the reference has the higher ratio: the area under the curve.
        rank = stats.mannwhitneyu(reference["llr"], llr)
        entry |= {"kolmogorov_smirnov": float(distance.statistic), "probability_of_the_same": float(distance.pvalue),
                  "area_under_curve": float(rank.statistic / (len(llr) * len(reference["llr"])))}
    return entry


def sky_test(run, images):
    """How far log p and the ratio move when noise as large as the sky's is added outside the galaxies.

    images: (n, y, x) prepared. Mean absolute changes, in nats per image, and the ratio's over that of log p.
    """
    rng = np.random.default_rng(0)
    noisy = [image + rng.normal(0, max(border_sky(image, SKY_WIDTH)[1], 1e-4), image.shape) for image in images]
    disturbed = np.stack([np.where(galaxy_pixels(image), image, np.clip(changed, -1, 1))
                          for image, changed in zip(images, noisy)]).astype(np.float32)
    before, after = (scores_of(run, stamps) for stamps in (images, disturbed))
    moved = {name: float(np.abs(after[name] - before[name]).mean()) for name in ("log_p_real", "llr")}
    return {"log_p_real": moved["log_p_real"], "llr": moved["llr"], "ratio": moved["llr"] / moved["log_p_real"]}


def scores_of(run, images):
    """The numbers of `score_batch` for any number of prepared images, (n, y, x)."""
    found = []
    for start in range(0, len(images), BATCH):
        group = images[start:start + BATCH, ..., None]
        padded = np.concatenate([group, np.repeat(group[:1], BATCH - len(group), axis=0)])
        found.append({name: values[:len(group)] for name, values in score_batch(run, padded)[0].items()})
    return {name: np.concatenate([part[name] for part in found]) for name in found[0]}


def table(result):
    """The comparison as lines of text."""
    yield f"{'':20s}{'images':>8s}{'median LLR':>20s}{'mean LLR':>20s}{'KS':>8s}{'AUC':>8s}"
    for name, entry in result["sets"].items():
        llr = entry["llr"]
        separation = "".join(f"{entry[key]:8.3f}" if key in entry else f"{'':8s}"
                             for key in ("kolmogorov_smirnov", "area_under_curve"))
        yield (f"{name[:19]:20s}{entry['images']:>8d}{llr['median']:>11.2f} +- {llr['median_error']:<5.2f}"
               f"{llr['mean']:>11.2f} +- {llr['mean_error']:<5.2f}{separation}").rstrip()
    sky = result["sky"]
    yield (f"noise added to the sky moves log p by {sky['log_p_real']:.3g} nats and the ratio by {sky['llr']:.3g}, "
           f"{100 * sky['ratio']:.1f}% of it")
