"""Sets of galaxies compared by their likelihood ratios: Sec. 4 of Zanisi et al. 2020."""

import collections
import dataclasses
import functools
import itertools
import logging

import numpy as np
from scipy import stats

from kerasgal.apps.morph import differences, figures
from kerasgal.apps.morph.score import border_sky, galaxy_pixels, score_on, scores_of, sky_noise
from kerasgal.apps.morph.sensitivity import line, sensitivity
from kerasgal.errors import DataError, SettingError
from kerasgal.plotting import progress, track
from kerasgal.run import WORST, Evaluation

DRAWS = 1000  # of the bootstrap
SHOWN = 4  # images of each set beside their contributions
DISTURBED = 128  # images to whose sky noise is added
SENSITIVE = 64  # images that are seen with another point spread function, noise and sky
CONTROLS = 200  # images of empty sky that are made, at most
KEPT = 4  # sides of the cut: of larger images no more is kept for these two
SKY_WIDTH = 2  # pixels of the border that the noise of the sky is measured in
PLANES = (("log_mass", "log_radius"), ("n", "log_radius"), ("log_mass", "radius"), ("magnitude", "radius"),
          ("n", "radius"))  # of two with the same name of the figure, the first that the sets have

log = logging.getLogger(__name__)


class Comparison(Evaluation):
    """Sets of images compared by their likelihood ratios: an `Evaluation`.

    Attributes
    ----------
    planes : dict
        Mean ratios in the planes of size, mass and Sersic index, and their differences to the first set's; see
        `kerasgal.apps.morph.differences.planes`.
    """


def evaluate(run, sets, notes=(), *, match=(), control=None, client=None):
    """Score sets of images and compare them: a `Comparison`.

    run: a `Morph`; sets: {name: function that returns a stream of `Image`s}, the first of observations, with which the
    others are compared; notes: on them, which are kept with the numbers; match: columns in which sets are matched;
    control: name of the set of empty sky, made of the borders of the first set's images unless it is one of `sets`;
    client: of Dask, whose workers score.
    Raises DataError for a set without an image that can be scored, SettingError for columns that are not there.
    """
    scored, lost, reference = {}, [], next(iter(sets))
    if match:  # columns that are not there are said before hours of scoring
        stream = iter(sets[reference]())
        first = list(itertools.islice(stream, 1))
        for image in first:
            refuse_without(reference, differences.with_derived(numbers_of([image.columns])), match)
        sets = sets | {reference: lambda: itertools.chain(first, stream)}
    if control is not None and control not in sets and run.config.channels > 1:
        raise SettingError(f"control={control}: empty sky is made of the borders of images of one band; of "
                           f"{run.config.channels} bands give a set of this name", value=control)
    made = {} if control is None or control in sets else {
        control: lambda: empty_sky(scored[reference]["raw"], run.config)}
    for name in track([*sets, *made], "scoring"):
        scored[name] = collect(run, (sets | made)[name](), blank=name == control, keep=name == reference, client=client)
        failed, number = scored[name]["failed"], len(scored[name]["llr"])
        if not number:
            raise DataError(f"no image of {name} can be scored" + (f": {failed[0]}" if failed else ""))
        if failed:
            lost.append(f"{len(failed)} of {number + len(failed)} images of {name} could not be scored and are left "
                        f"out: {failed[0]}")
            log.warning(lost[-1])
    galaxies = {name: values for name, values in scored.items() if name != control}
    llr = {name: values["llr"] for name, values in galaxies.items()}
    columns = {name: differences.with_derived(values["columns"]) for name, values in galaxies.items()}
    matched, places, more = match_sets(llr, columns, match)
    apart = differences.differences({name: values["llr"] for name, values in scored.items()})
    raw = scored[reference]["raw"][:SENSITIVE]
    with progress("noise, point spread function and sky"):
        moved = {"sky": sky_test(run, scored[reference]["images"][:DISTURBED]), "sensitivity": sensitivity(run, raw)}
    result = {"reference": reference,
              "sets": {name: {**compare(values, scored[reference]), "not_scored": len(values["failed"]),
                              **{key: apart[name][key] for key in ("delta", "delta_error") if name != reference}}
                       for name, values in scored.items()}, **moved}
    result["worst_cases"] = least_real(reference, scored[reference])
    if matched:
        result["matched"] = matched
    bins = differences.by_bins(llr, columns, places)
    if bins:
        result["bins"] = bins
    if notes or lost or more:
        result["notes"] = [*notes, *lost, *more]
    planes = differences.planes(llr, columns, PLANES)

    def draw():
        shown = {}
        for name, values in scored.items():
            images = values["images"][:SHOWN]
            galaxy = [galaxy_pixels(figures.grey(image)) for image in images]
            shown[name] = images, values["real"][:SHOWN], values["archetype"][:SHOWN], galaxy
        drawn = {"llr": figures.ratios({name: values["llr"] for name, values in scored.items()},
                                       {name: in_words(entry) for name, entry in result["sets"].items()}),
                 "sky": figures.skies(scored), "contributions": figures.contributions(shown)}
        for (horizontal, vertical), plane in planes.items():
            name = f"{vertical.removeprefix('log_')}_{horizontal}"
            if name not in drawn:
                drawn[name] = figures.plane(plane, horizontal, vertical)
        return drawn

    found = Comparison(result, table(result), functools.cache(draw), run)
    found.planes = planes
    return found


def least_real(name, values):
    """The images of a set with the lowest ratios, as metrics.json has them."""
    order = np.argsort(values["llr"], kind="stable")[:WORST]
    return [{"set": name, "id": values["id"][place], "llr": float(values["llr"][place])} for place in order]


def in_words(entry):
    """Median of a set and its Delta<LLR> with their errors, as a legend has them behind its name."""
    llr = entry["llr"]
    words = f": median {llr['median']:.0f} $\\pm$ {llr['median_error']:.0f}"
    if "delta" in entry:
        words += f", $\\Delta\\langle$LLR$\\rangle$ {entry['delta']:.0f} $\\pm$ {entry['delta_error']:.0f}"
    return words


def match_sets(llr, columns, match):
    """What `differences.matched` finds of the sets that have the columns, their cells (or None), and notes.

    Raises SettingError if the first set, or all others, lack one of them; DataError if no cell has galaxies of all.
    """
    if not match:
        return None, None, []
    reference, notes = next(iter(llr)), []
    missing = {name: [column for column in match if column not in table] for name, table in columns.items()}
    having = [name for name in llr if not missing[name]]
    refuse_without(reference, columns[reference], match)
    if len(having) < 2:
        for name, table in columns.items():
            refuse_without(name, table, match)
        raise SettingError(f"match={','.join(match)}: there is no other set than {reference} to match")
    for name in set(llr) - set(having):
        notes.append(f"{name} is not matched: it has no column {', '.join(missing[name])}")
    made, places = differences.matched({name: llr[name] for name in having}, {name: columns[name] for name in having},
                                       match)
    if made is None:
        raise DataError(f"no galaxies of all sets, {', '.join(having)}, are alike in {', '.join(match)}: there is "
                        "nothing to match")
    for name, entry in made["sets"].items():
        for column, value in entry.get("imbalance", {}).items():
            if abs(value) > differences.UNBALANCED:
                notes.append(f"{name} is not quite matched: its mean {column} is {value:+.2f} standard deviations off")
    for note in notes:
        log.warning(note)
    return made, places, notes


def refuse_without(name, columns, match):
    """Raise SettingError if a set does not have all columns in which it is to be matched."""
    missing = [column for column in match if column not in columns]
    if missing:
        raise SettingError(f"match={','.join(match)}: {name} has no column {', '.join(missing)}; its numbers are "
                           f"{', '.join(sorted(columns)) or 'none'}", value=list(match), accepted=sorted(columns))


def numbers_of(rows):
    """The columns of some images, a dictionary for each, that all have and that are numbers: {name: (n,)}."""
    common = set.intersection(*(set(row) for row in rows)) if rows else set()
    return {name: np.array([row[name] for row in rows], float) for name in common
            if np.isscalar(rows[0][name]) and not isinstance(rows[0][name], (str, bytes))}


def empty_sky(images, config):
    """Images of empty sky, patched together from the border of each of some images: a stream of `Image`s.

    An image whose border is too small, or nowhere good, makes none.
    """
    from kerasgal.apps.morph.archetypes import border_skies

    rng = np.random.default_rng(0)
    for image in images[:CONTROLS]:
        pixels = image.pixels if image.mask is None else np.where(image.mask, np.float32(np.nan), image.pixels)
        try:
            sky, = border_skies([pixels], 1, config.crop, rng)
        except DataError:
            continue
        yield dataclasses.replace(image, pixels=sky, mask=None, variance=None, sky=0.0, columns={})


def collect(run, images, blank=False, keep=False, client=None):
    """What is known of the images of one set that can be scored: numbers, (n,) each, and the first images and maps.

    blank: whether they are meant to show nothing; keep: whether to keep the first `Image`s, as `raw`; client: of Dask,
    whose workers score.
    """
    failed = []
    numbers = {name: [] for name in ("log_p_real", "log_p_archetype", "llr", "llr_galaxy", "sky_noise")}
    columns, names, first, raw = [], [], {"images": [], "real": [], "archetype": []}, []
    read = collections.deque()

    def noted(images):
        for image in images:
            read.append(image)
            yield image

    for rows, batch in score_on(client, run, noted(images), maps=True, begun=blank):
        for row in rows:
            image = read.popleft()
            if row["error"]:
                failed.append(f"{row['id']}: {row['error']}")
            else:
                for name in ("log_p_real", "log_p_archetype", "llr", "llr_galaxy"):
                    numbers[name].append(row[name])
                names.append(str(row["id"]))
                columns.append(image.columns or {})
                if keep and len(raw) < CONTROLS:
                    raw.append(_middle(image, KEPT * run.config.crop))
        if batch is None:
            continue
        _, prepared, (real, archetype) = batch
        numbers["sky_noise"] += [border_sky(figures.grey(image), SKY_WIDTH)[1] for image in prepared]
        if sum(map(len, first["images"])) < DISTURBED:
            for name, values in (("images", prepared), ("real", real), ("archetype", archetype)):
                first[name].append(values)
    return {**{name: np.array(values) for name, values in numbers.items()},
            **{name: np.concatenate(values) if values else np.empty((0, 1, 1)) for name, values in first.items()},
            "raw": raw, "id": names, "columns": numbers_of(columns), "failed": failed}


def _middle(image, side):
    """An image of no more than `side` x `side` pixels, those in the middle."""
    part = tuple(slice(max(0, (length - side) // 2), max(0, (length - side) // 2) + side) for length in
                 image.pixels.shape[:2])
    cut = {name: getattr(image, name)[part] for name in ("pixels", "mask", "variance")
           if getattr(image, name) is not None}
    return dataclasses.replace(image, **{name: values.copy() for name, values in cut.items()})


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

    images: (n, y, x), or (n, y, x, band), prepared. Mean absolute changes, in nats per image, and the ratio's over that
    of log p.
    """
    rng = np.random.default_rng(0)
    noisy = [image + rng.normal(0, np.maximum(sky_noise(image, SKY_WIDTH), 1e-4), image.shape) for image in images]
    galaxies = [galaxy_pixels(figures.grey(image)).reshape(*image.shape[:2], *[1] * (image.ndim - 2))
                for image in images]
    disturbed = np.stack([np.where(galaxy, image, np.clip(changed, -1, 1))
                          for galaxy, image, changed in zip(galaxies, images, noisy)]).astype(np.float32)
    before, after = (scores_of(run, stamps) for stamps in (images, disturbed))
    moved = {name: float(np.abs(after[name] - before[name]).mean()) for name in ("log_p_real", "llr")}
    return {"log_p_real": moved["log_p_real"], "llr": moved["llr"], "ratio": moved["llr"] / moved["log_p_real"]}


def table(result):
    """The comparison as lines of text."""
    yield (f"{'':20s}{'images':>8s}{'median LLR':>20s}{'mean LLR':>20s}{'Delta<LLR>':>20s}{'KS':>8s}{'AUC':>8s}")
    for name, entry in result["sets"].items():
        llr = entry["llr"]
        separation = "".join(f"{entry[key]:8.3f}" if key in entry else f"{'':8s}"
                             for key in ("kolmogorov_smirnov", "area_under_curve"))
        yield (f"{name[:19]:20s}{entry['images']:>8d}{llr['median']:>11.2f} +- {llr['median_error']:<5.2f}"
               f"{llr['mean']:>11.2f} +- {llr['mean_error']:<5.2f}{_apart(entry)}{separation}").rstrip()
    if "matched" in result:
        matched = result["matched"]
        yield f"matched in {', '.join(matched['columns'])}, {matched['bins']} bins of each:"
        for name, entry in matched["sets"].items():
            yield (f"  {name[:17]:18s}{entry['images']:>8d}{'':20s}{entry['mean']:>11.2f} +- "
                   f"{entry['mean_error']:<5.2f}{_apart(entry)}").rstrip()
    for column, rows in result.get("bins", {}).items():
        yield f"by {column}" + (", matched:" if "matched" in result else ":")
        for row in rows:
            yield (f"  {row['set'][:17]:18s}{row['images']:>8d}{_interval(row):>20s}{row['mean']:>11.2f} +- "
                   f"{row['mean_error']:<5.2f}{_apart(row)}").rstrip()
    sky = result["sky"]
    yield (f"noise added to the sky moves log p by {sky['log_p_real']:.3g} nats and the ratio by {sky['llr']:.3g}, "
           f"{100 * sky['ratio']:.1f}% of it")
    yield line(result["sensitivity"])


def _apart(entry):
    """Delta<LLR> of a set with its error, in a column of the table."""
    return f"{entry['delta']:>11.2f} +- {entry['delta_error']:<5.2f}" if "delta" in entry else f"{'':20s}"


def _interval(row):
    """The ends of a bin in words."""
    if row["low"] is None:
        return f"below {row['high']:g}"
    return f"{row['low']:g} and more" if row["high"] is None else f"{row['low']:g} to {row['high']:g}"
