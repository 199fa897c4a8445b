"""What trained networks were asked to reach, beside what their evaluation found: a line each, which holds or does not.

    python tests/benchmarks/results.py protohalo=demo/evaluation halomass=demo-halomass/evaluation \\
      cascade=demo-cascade/evaluation diffusion=demo-diffusion/evaluation morph=demo-morph/evaluation

Folders are those that `kerasgal APP evaluate` writes; any number of them. `longer-protohalo` and `longer-cascade` take
the bars of trainings of hours. `cascade-machines` holds two runs of one evaluation, the same training on two machines,
against each other. Of an evaluation with `--study` the sampler is judged, too. The first run of each is judged. Behind
the verdict stands what is known of how well it can be done at all: by twins that share the large waves, by another
drawing of the same galaxies, by the exact expectation of the rule that painted them. Exit code 1 where something does
not hold.
"""

import json
import sys
from pathlib import Path

import numpy as np

# A line is (words, found, bar), and may have a note and whether the bar is the least, not the most, that is asked for.
AT_LEAST = True
TREES, FINER_TREES = "boosted trees", "boosted trees, finer"


def first(result):
    """The numbers of the run that was evaluated."""
    return next(iter(result["runs"].values()))


def known(result, words, *places):
    """Words and a number from a place in the result, or nothing where it was not measured."""
    for place in places:
        result = (result or {}).get(place)
    return "" if result is None else f"{words} {result:.3f}"


def protohalo(result, loss=0.52, dice=0.78):
    own = result["adaptive"]
    return [("loss", result["loss"], loss, known(result, "twins", "twin_loss")),
            ("Dice of the cells", own["dice"], dice, known(result, "twins", "twin", "dice"), AT_LEAST),
            ("mean residual per bin of mass", own["mean_absolute_residual"], 0.08,
             known(result, "twins", "twin", "mean_absolute_residual")
             or known(result, "by chance", "adaptive", "mean_absolute_residual_by_chance"))]


def longer_protohalo(result):
    return protohalo(result, loss=0.48, dice=0.80)


def halomass(result):
    own, trees = first(result), result["baselines"].get(TREES, {"rms_dex": np.nan})
    return [("r", own["r"], 0.80, known(result, "twins", "baselines", "twin", "r"), AT_LEAST),
            ("scatter, over trees'", own["rms_dex"] / trees["rms_dex"], 1.0)]


def cascade(result, squared_error=1.0):
    own, trees = first(result), result["baselines"].get(TREES, {"squared_error": np.nan})
    ceiling = result["bounds"].get("exact expectation")
    rows = [row for row in result["table"] if row["run"] == next(iter(result["runs"]))]
    galaxies = sum(row["galaxies"] for row in rows) / sum(row["true_galaxies"] for row in rows)
    k = np.array(result["k"])
    calibration = np.abs(np.array(own["calibration"], float)[k < 4] - 1)
    best = f"exact expectation {ceiling['squared_error'] / trees['squared_error']:.3f}" if ceiling else ""
    alike = []
    if FINER_TREES in result["baselines"]:
        ratio = own["squared_error"] / result["baselines"][FINER_TREES]["squared_error"]
        alike.append(("Eq. 2, over that of trees that see the same", ratio, 1.0))
    return [("Eq. 2, over trees'", own["squared_error"] / trees["squared_error"], squared_error, best), *alike,
            ("number of galaxies, from one", abs(galaxies - 1), 0.02),
            ("P_xy / P_xx up to 4 h/Mpc, from one, largest of a bin", np.nanmax(calibration), 0.03,
             f"mean {np.nanmean(calibration):.3f}"),
            ("P(k) of the field as it is", own["power_residual_by_scale"]["as_it_is"]["all"], 0.30,
             known(ceiling, "exact expectation", "power_residual_by_scale", "as_it_is", "all")),
            *bispectrum(result)]


def longer_cascade(result):
    return cascade(result, squared_error=0.85)


def cascade_machines(result):
    """The same training on two machines: `kerasgal cascade evaluate RUN ... --compare OTHER`."""
    one, other = (sum(row["galaxies"] for row in result["table"] if row["run"] == run) for run in result["runs"])
    return [("number of galaxies, over another machine's, from one", abs(one / other - 1), 0.03)]


def bispectrum(result):
    """The lines of the bispectrum at the paper's triangles, where the boxes are large enough for them."""
    own = first(result).get("bispectra", {}).get("paper")
    if own is None:
        return []
    nothing = {"residual": np.nan, "residual_error": np.nan}
    others = {name: entry["bispectra"]["paper"] for name, entry in result["baselines"].items()}
    bars = [("trees'", others.pop(TREES, nothing))]
    if FINER_TREES in others:
        bars.append(("that of trees that see the same", others.pop(FINER_TREES)))
    # Of halo models the fitted one, which is the paper's, and the best, whatever it is told of the haloes.
    best = min(others, key=lambda name: others[name]["residual"], default="halo model")
    for name in dict.fromkeys(["halo model", best]):
        bars.append((f"that of '{name}'", others.get(name, nothing)))
    return [*((f"bispectrum, beside {words}", own["residual"], bar["residual"],
               f"errors {own['residual_error']:.3f}, {bar['residual_error']:.3f}") for words, bar in bars),
            ("bispectrum", own["residual"], 0.30,
             known(result, "another drawing", "bounds", "another drawing", "bispectra", "paper", "residual"))]


def diffusion(result):
    """Of draws of galaxies, or of dark matter, of which the mean density is asked in the place of their number."""
    own, large = first(result), np.array(result["k"]) < 1
    words, amount = next((text, name) for name, text in (("galaxies", "number of galaxies"),
                                                         ("mean_density", "mean density")) if name in own)

    def r(entry):
        return float(np.mean(np.array(entry["correlation"], float)[large]))

    # The halo model and another drawing are told the haloes, which no map says: they are no bars.
    bars = {name: entry for name, entry in result["baselines"].items() if name not in ("halo model", "another drawing")}
    return [("mean residual of P(k)", own["power_residual"], 0.08),
            ("largest residual of P(k)", own["power_largest_residual"], 0.15),
            (f"{words}, from one", abs(own[amount] / result["truth"][amount] - 1), 0.02),
            ("ranks: 1 - p", 1 - own["ranks"]["p_value"], 0.90),
            *((f"mean residual, over that of the {name}", own["power_residual"], entry["power_residual"])
              for name, entry in bars.items()),
            *((f"r(k) < 1 h/Mpc, short of one, over that of the {name}", 1 - r(own), 1 - r(entry))
              for name, entry in bars.items() if name == "boosted trees"),
            *sampler(result, own.get("study"))]


def sampler(result, study):
    """The line of the sampler and the number of steps that draws were made with, where they were studied."""
    rows = [row for row in study[result["sampler"]] if row["steps"] == result["steps"]] if study else []
    return [(f"power in {row['steps']} {result['sampler']} steps over that in 100 ancestral ones, from one",
             abs(row["power"] - 1), 0.03, f"error {row['power_error']:.3f}; largest of a bin "
             f"{np.nanmax(np.abs(np.array(row['ratio'], float) - 1)):.3f}") for row in rows]


def morph(result):
    return [("area under the curve against smooth", result["sets"]["smooth"]["area_under_curve"], 0.85, "", AT_LEAST)]


JUDGES = {judge.__name__.replace("_", "-"): judge for judge in (
    protohalo, longer_protohalo, halomass, cascade, longer_cascade, cascade_machines, diffusion, morph)}


def judged(words, found, bar, note="", at_least=False):
    """The text of a line, and whether its bar holds."""
    holds = bool(found >= bar if at_least else found <= bar)
    verdict = "holds" if holds else "does not hold" if np.isfinite([found, bar]).all() else "not measured"
    text = f"{words:70s}{found:8.3f}  at {'least' if at_least else 'most':5s} {bar:<8.3f}{verdict:15s}{note}"
    return text.rstrip(), holds


def main(arguments):
    pairs = [word.partition("=")[::2] for word in arguments]
    if not pairs or any(app not in JUDGES or not folder for app, folder in pairs):
        sys.exit(__doc__)
    missed = False
    for app, folder in pairs:
        result = json.loads((Path(folder) / "metrics.json").read_text())
        for line in JUDGES[app](result):
            text, holds = judged(*line)
            missed |= not holds
            print(f"{app:18s}{text}")
    sys.exit(missed)


if __name__ == "__main__":
    main(sys.argv[1:])
