"""Which of some images look most like observations: their likelihood ratios among those of observed galaxies."""

import functools

import numpy as np
from scipy import stats

from kerasgal.apps.morph import figures
from kerasgal.apps.morph.score import FLAGS, score
from kerasgal.apps.morph.tables import UNITS, columns_of
from kerasgal.errors import DataError
from kerasgal.run import Evaluation
from kerasgal.tables import quantities

DRAWS = 1000  # of the bootstrap
SHOWN = 12  # images of each end on the sheet
DIFFERENT = 0.01  # probability of such an area under the curve by chance, below which two sets are said to differ
FEWEST = 20  # observed images with which others can be compared


class Ranking(Evaluation):
    """Images in the order of their likelihood ratio, the most real first, and what their set is like as a whole.

    Attributes
    ----------
    columns : dict of array
        A row for each image: `rank` (from 1), `id`, `llr` [nats], `percentile` among the observed, its bootstrap error
        `percentile_error`, `flag`, and `ra`, `dec` [deg] and `object` where the headers have them. Images that cannot
        be scored stand last, with the `error`, and have no rank (0).
    """

    @property
    def table(self):
        """The ranks as an astropy table with units."""
        return quantities(self.columns, UNITS, {"app": "morph"})

    def _tables(self):
        return {"ranks.ecsv": self.table}


def rank(run, images, observed, notes=()):
    """Rank a stream of `Image`s among another one of observations: a `Ranking`.

    run: a `Morph`; notes: on the images, which are kept with the numbers. Raises DataError if fewer than 20 of the
    observed, or none of the others, can be scored.
    """
    rows, _ = scored(run, observed)
    reference = np.array([row["llr"] for row in rows if not row["error"]], float)
    if len(reference) < FEWEST:
        raise DataError(f"{len(reference)} observed images can be scored: at least {FEWEST} are needed to compare with",
                        value=len(reference), accepted=(FEWEST, None))
    rows, ends = scored(run, images)
    if not any(not row["error"] for row in rows):
        raise DataError("no image can be scored: " + (rows[0]["error"] if rows else "there is none"))
    columns = ranks(rows, reference)
    result = whole(columns, reference)
    if notes:
        result["notes"] = list(notes)

    def draw():
        llr = columns["llr"][columns["rank"] > 0]
        return {"llr": figures.ratios({"observed": reference, "ranked": llr}), "sheet": figures.ends(*ends)}

    made = Ranking(result, lines(result, columns), functools.cache(draw), run)
    made.columns = columns
    return made


def scored(run, images):
    """Rows of all images, and the prepared images at both ends of the order: two lists of (llr, id, image)."""
    rows, best, worst = [], [], []
    for some, batch in score(run, images):
        rows += some
        if batch is None:
            continue
        ratio = {row["id"]: row["llr"] for row in some if not row["error"]}
        here = [(ratio[name], name, image) for name, image in zip(batch[0], batch[1])]
        best = sorted(best + here, key=lambda each: -each[0])[:SHOWN]
        worst = sorted(worst + here, key=lambda each: each[0])[:SHOWN]
    return rows, (best, worst)


def ranks(rows, reference):
    """The columns of a `Ranking`, from rows of `score` and the ratios of observed images, (n,)."""
    columns = columns_of(rows)
    known = columns["error"] == ""
    order = np.lexsort((np.where(known, -columns["llr"], 0), ~known))
    columns = {name: values[order] for name, values in columns.items()}
    known, llr = known[order], columns["llr"]
    percentile = np.full(len(llr), np.nan)
    percentile[known] = below(reference, llr[known])
    rng = np.random.default_rng(0)
    squares = np.zeros(known.sum())
    for _ in range(DRAWS):
        squares += (below(rng.choice(reference, len(reference)), llr[known]) - percentile[known])**2
    error = np.full(len(llr), np.nan)
    error[known] = np.sqrt(squares / DRAWS)
    place = {name: columns[name] for name in ("object", "ra", "dec") if name in columns}
    return {"rank": np.where(known, np.arange(1, len(llr) + 1), 0), "id": columns["id"], "llr": llr,
            "percentile": percentile, "percentile_error": error, "flag": columns["flag"], **place,
            "error": columns["error"]}


def below(reference, llr):
    """Percentile of each ratio among those of a reference; of equal ones half are below."""
    reference = np.sort(reference)
    left, right = np.searchsorted(reference, llr, "left"), np.searchsorted(reference, llr, "right")
    return 50 * (left + right) / len(reference)


def whole(columns, reference):
    """What the set is like as a whole: its median, and whether it differs from the observed."""
    llr = columns["llr"][columns["rank"] > 0]
    test = stats.mannwhitneyu(reference, llr)
    rng = np.random.default_rng(1)

    def area(observed, others):
        return stats.mannwhitneyu(observed, others).statistic / (len(observed) * len(others))

    drawn = [(rng.choice(reference, len(reference)), rng.choice(llr, len(llr))) for _ in range(DRAWS)]
    medians = [(np.median(observed), np.median(others)) for observed, others in drawn]
    errors = np.std(medians, axis=0)
    return {"images": len(llr), "not_scored": int((columns["rank"] == 0).sum()),
            "flagged": int((columns["flag"][columns["rank"] > 0] > 0).sum()), "observed": len(reference),
            "median": float(np.median(llr)), "median_error": float(errors[1]),
            "median_observed": float(np.median(reference)), "median_observed_error": float(errors[0]),
            "area_under_curve": float(area(reference, llr)),
            "area_under_curve_error": float(np.std([area(*each) for each in drawn])),
            "probability_by_chance": float(test.pvalue), "differs": bool(test.pvalue < DIFFERENT)}


def lines(result, columns):
    """The most important numbers as lines of text."""
    yield (f"{result['images']} images: median LLR {result['median']:.2f} +- {result['median_error']:.2f} nats, of "
           f"{result['observed']} observed {result['median_observed']:.2f} +- {result['median_observed_error']:.2f}")
    area, error = result["area_under_curve"], result["area_under_curve_error"]
    yield (f"an observed one has the higher ratio in {100 * area:.1f} +- {100 * error:.1f}% of pairs: the sets "
           + ("differ" if result["differs"] else "are not shown to differ")
           + f" (probability by chance {result['probability_by_chance']:.2g})")
    for words, rows in (("most real", range(min(3, result["images"]))),
                        ("least real", range(max(0, result["images"] - 3), result["images"]))):
        for row in rows:
            yield (f"  {words}: rank {columns['rank'][row]:5d}  {columns['id'][row]}  LLR {columns['llr'][row]:.2f}, "
                   f"percentile {columns['percentile'][row]:.1f} +- {columns['percentile_error'][row]:.1f}"
                   + ("  " + _flags(columns["flag"][row]) if columns["flag"][row] else ""))
    if result["not_scored"]:
        yield f"{result['not_scored']} images could not be scored: see the column `error` of ranks.ecsv"


def _flags(value):
    """The words of a flag."""
    return "[" + ", ".join(name for name, bit in FLAGS.items() if value & bit) + "]"
