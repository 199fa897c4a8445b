"""Cross-prediction: runs trained on several suites against galaxies of each of them, one table (Sether 2024).

Of each run on each suite the classifier's accuracy, recall and precision at the probability of one half, and its
training time; the power spectrum of both networks, its correlation with the truth, and the bispectrum. They are those
of `evaluate`, whose simulations are those of one suite.
"""

import functools

import numpy as np

from kerasgal import run_folder
from kerasgal.apps.cascade import data, evaluate
from kerasgal.apps.cascade.run import CLASSIFY, REGRESS, Cascade
from kerasgal.errors import DomainError, SettingError
from kerasgal.run import Evaluation, as_list, to_judge_on
from kerasgal.simulation import opened

TABLE = "table.csv"
FIGURES = "power_spectrum", "bispectrum"  # of each suite
MEANS = "accuracy", "recall", "precision"  # of a suite's simulations
OUTSIDE = "!"  # beside a suite that a run does not know, in the printed table


class Comparison(Evaluation):
    """What `compare` found; its folder holds the table as table.csv, too."""

    def _tables(self):
        rows = self.metrics["table"]
        return {TABLE: {name: np.array([np.nan if row[name] is None else row[name] for row in rows])
                        for name in rows[0]}}


def compare(runs, suites, *, tile=None, outside_domain=False, client=None):
    """Hold several runs against the galaxies of several suites.

    Parameters
    ----------
    runs : run folder or Cascade, or list of them
        On the same cells.
    suites : dict
        {name: path or Simulation, or list of them}: simulations with a final density and galaxies, of one box size in
        a suite, over which numbers are averaged.
    tile : int, optional
        See `Cascade.predict`.
    outside_domain : bool
        Go on where a suite is not like what a run was trained on: the table says where that is.
    client : distributed.Client, optional
        See `Cascade.evaluate`.

    Returns
    -------
    Comparison
        An `Evaluation`: `table`, a row for each run on each suite, and `suites`, the numbers of `Cascade.evaluate` of
        each. A row: run, suite, simulations, outside_domain; galaxies over true ones; accuracy, recall, precision,
        means over simulations; power_large and power_small, the mean relative residuals of the spectrum with the
        galaxies' scatter below and above 1 h/Mpc, and power_as_it_is, the paper's; correlation_large and _small, with
        the truth; bispectrum and bispectrum_error, the residual at the paper's triangles; classifier_minutes and
        regressor_minutes of training. None where something is not known. `bounds` are such rows, as far as they go, of
        another drawing of the same galaxies and of the exact expectation, in suites whose galaxies were painted.

    Raises
    ------
    SettingError
        If there is no run or no suite, or a suite's name does not do for a file's.
    DomainError
        If a suite is not like what a run was trained on, before anything is measured.
    UnseenError
        If a run was trained or validated on one of the simulations.
    """
    runs = [runs] if isinstance(runs, Cascade) else as_list(runs)
    suites = {name: as_list(sources) for name, sources in suites.items()}
    check(runs, suites)
    suites = {name: to_judge_on(sources) for name, sources in suites.items()}
    named = evaluate.named_runs(Cascade.load(runs[0]) if not isinstance(runs[0], Cascade) else runs[0], runs[1:])
    outside = {(key, suite): is_outside(run, sources, outside_domain)
               for key, run in named.items() for suite, sources in suites.items()}
    first, *others = named.values()
    judged = {suite: evaluate.evaluate(first, sources, compare=others, tile=tile, outside_domain=outside_domain,
                                       client=client, bars=evaluate.Bars({})) for suite, sources in suites.items()}
    rows = [row(key[1], run, suite, judged[suite], outside[key, suite])
            for key, run in named.items() for suite in suites]
    bounds = [dict.fromkeys(rows[0]) | {"run": name, "suite": suite, "outside_domain": False} | spectra_of(entry)
              for suite, found in judged.items() for name, entry in found["bounds"].items()]

    def draw():
        return {f"{suite}_{name}": figure for suite, found in judged.items()
                for name, figure in found.figures().items() if name in FIGURES}

    metrics = {"table": rows, "bounds": bounds, "suites": {suite: found.metrics for suite, found in judged.items()}}
    return Comparison(metrics, lines(rows, bounds), functools.cache(draw), first)


def check(runs, suites):
    """Raise SettingError for what `compare` does not accept."""
    if not runs or not suites or not all(suites.values()):
        raise SettingError("a comparison takes a run or more, and suites of a simulation or more: "
                           f"received {len(runs)} runs and {len(suites)} suites")
    for name in suites:
        if not name or not name.replace("-", "").replace("_", "").replace(".", "").isalnum():
            raise SettingError(f"suites={name!r}: a suite's name is of letters, digits and - _ . alone", value=name)


def is_outside(run, sources, outside_domain):
    """Whether a simulation is not like what the run was trained on; raises DomainError for that unless it may be."""
    for source in sources:
        try:
            run.check_domain(source)
            with opened(source, ()) as simulation:
                data.check_particles(simulation, run.config.cell, of_particles=run.of_particles, deposit=run.deposit)
        except DomainError:
            if not outside_domain:
                raise
            return True
    return False


def row(name, run, suite, judged, outside):
    """A row of the table; see `compare`. judged: the `Evaluation` of the suite."""
    each = [found for found in judged["table"] if found["run"] == name]
    minutes = {f"{words}_minutes": training_minutes(run, phase)
               for words, phase in (("classifier", CLASSIFY), ("regressor", REGRESS))}
    return {"run": name, "suite": suite, "simulations": len(each), "outside_domain": outside,
            "galaxies": sum(one["galaxies"] for one in each) / sum(one["true_galaxies"] for one in each),
            **{what: mean([one["at_half"][what] for one in each]) for what in MEANS},
            **spectra_of(judged["runs"][name]), **minutes}


def spectra_of(found):
    """What a row says of spectra. found: of `Cascade.evaluate`, a run's numbers, or those of a bound."""
    power, triangles = found["power_residual_by_scale"], found.get("bispectra", {}).get("paper", {})
    return {"power_large": power["with_shot_noise"]["large"], "power_small": power["with_shot_noise"]["small"],
            "power_as_it_is": power["as_it_is"]["all"],
            "correlation_large": found["correlation_by_scale"]["large"],
            "correlation_small": found["correlation_by_scale"]["small"],
            "bispectrum": triangles.get("residual"), "bispectrum_error": triangles.get("residual_error")}


def mean(values):
    """The mean of what is known; None where nothing is."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def training_minutes(run, phase):
    """Minutes of all epochs of a phase, as its folder says; None where it does not."""
    seconds = run_folder.read_json(run.folder / phase / run_folder.PROVENANCE).get("wall_seconds") \
        if run.folder is not None else None
    return None if seconds is None else seconds / 60


def lines(rows, bounds):
    """The table, and what is known of how well it can be done, as lines of text."""
    yield (f"{'run':20s}{'suite':16s}{'galaxies':>9s}{'accuracy':>10s}{'recall':>8s}{'precision':>11s}{'minutes':>13s}"
           f"{'P, k<1':>9s}{'k>1':>8s}{'as it is':>10s}{'r(k<1)':>8s}{'k>1':>6s}{'bispectrum':>16s}")
    for one in (*rows, *bounds):
        percent = {name: evaluate.percent(one[name]) for name in
                   (*MEANS, "power_large", "power_small", "power_as_it_is")}
        minutes = [one[f"{phase}_minutes"] for phase in ("classifier", "regressor")]
        minutes = "-" if one in bounds else " + ".join("?" if value is None else f"{value:.0f}" for value in minutes)
        yield (f"{one['run'][-19:]:20s}{one['suite'][-14:] + (OUTSIDE if one['outside_domain'] else ''):16s}"
               f"{evaluate.number(one['galaxies'], 3):>9s}{percent['accuracy']:>10s}{percent['recall']:>8s}"
               f"{percent['precision']:>11s}{minutes:>13s}{percent['power_large']:>9s}{percent['power_small']:>8s}"
               f"{percent['power_as_it_is']:>10s}{evaluate.number(one['correlation_large']):>8s}"
               f"{evaluate.number(one['correlation_small']):>6s}"
               f"{evaluate.percent(one['bispectrum'], one['bispectrum_error']):>16s}")
    if any(one["outside_domain"] for one in rows):
        yield f"{OUTSIDE} the suite is not like what the run was trained on"
