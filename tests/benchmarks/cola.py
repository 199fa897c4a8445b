"""What COLA loses against finer steps: in the matter, and in what a cascade run makes of it.

    python tests/benchmarks/cola.py steps                                # P(k) with more steps and finer meshes
    python tests/benchmarks/cola.py matter COLA=BOX,BOX finer=BOX,BOX    # P(k) of one suite of boxes over the other's
    python tests/benchmarks/cola.py run RUN COLA=BOX,BOX finer=BOX,BOX   # the rulers of `cascade evaluate`

Boxes of two suites belong together in their order: the same initial density. Errors of `run` are jackknives over
boxes, those of differences of both boxes of a pair together.
"""

import sys

import numpy as np

import kerasgal as kg
from kerasgal import cluster, nbody
from kerasgal.apps.cascade import evaluate
from kerasgal.apps.cascade.figures import TRUTH
from kerasgal.grid import density_contrast
from kerasgal.statistics import power_spectrum

EDGES = [(0.2, 0.5), (0.5, 1), (1, 2), (2, 4), (4, 8)]  # h/Mpc
CASES = [(20, 2), (60, 3), (100, 4)]  # steps, cells of the mesh of forces per particle and side


def in_edges(k, ratio):
    """{(low, high): mean} of a ratio, (..., shells), in those ranges of k in which there are some."""
    inside = {(low, high): (k >= low) & (k < high) for low, high in EDGES}
    return {edges: ratio[..., shells].mean(axis=-1) for edges, shells in inside.items() if shells.any()}


def steps(particles=32, boxsize=12.5, seeds=(5001, 5002, 5003)):
    """Print the power of fewer steps over that of the most, over boxes."""
    spectra = []
    for number, mesh in CASES:
        found = [nbody.simulate(particles, boxsize, seed=seed, steps=number, mesh_factor=mesh) for seed in seeds]
        each = [power_spectrum(density_contrast(one.position, 2 * particles, boxsize), boxsize) for one in found]
        spectra.append(np.mean([power for _, power, _ in each], axis=0))
    k = each[0][0]
    for (number, mesh), power in zip(CASES, spectra):
        words = ", ".join(f"{value:.3f} from {low:g} to {high:g} h/Mpc"
                          for (low, high), value in in_edges(k, power / spectra[-1]).items())
        print(f"{number} steps, mesh {mesh}: P(k) over that of {CASES[-1][0]} steps, mesh {CASES[-1][1]}: {words}")


def matter(suites, gridsize=128):
    """Print the power of one suite over that of the other."""
    spectra = []
    for boxes in suites.values():
        spectra.append([])
        for path in boxes:
            with kg.Simulation(path, ()) as box:
                delta, boxsize = density_contrast(box["final/position"][...], gridsize, box.boxsize), box.boxsize
            k, power, _ = power_spectrum(delta, boxsize)
            spectra[-1].append(power)
    one, other = np.array(spectra)
    names = " over ".join(suites)
    each = in_edges(k, one / other)
    for (low, high), value in in_edges(k, one.mean(axis=0) / other.mean(axis=0)).items():
        values = each[low, high]
        error = np.std(values, ddof=1) / len(values)**0.5
        print(f"{names}, {low:g} to {high:g} h/Mpc: {value:.3f} +- {error:.3f}")


def measured(run, bars, paths):
    """What `cascade evaluate` measures of each box."""
    runs = {("runs", "run"): run}
    return [evaluate.measure_one((list(runs), cluster.Runs(runs.values(), None), bars, path, run.config, None, False,
                                  False))[:2] for path in paths]


def rulers(boxes):
    """{(what, ruler): number} of boxes together."""
    keys = list(boxes[0][0].numbers)
    whole, found = evaluate.averaged([one for one, _ in boxes], keys), {}
    for key in keys:
        entry = evaluate.entry_of(whole, key)
        if "assembly_bias" in entry:
            found[key, "P over shuffled, k<1"] = entry["assembly_bias"]["power_over_shuffled_by_scale"]["large"]
        if key == TRUTH:
            continue
        number = whole.numbers[key]["density"]
        noisy = np.array(whole.curves["noisy"][key]) / whole.curves["noisy"][TRUTH]
        found |= {(key, "galaxies over true ones"): number[1].sum() / number[2].sum(),
                  (key, "P over the truth's, k<1"): np.nanmean(noisy[whole.k < 1]),
                  (key, "P over the truth's, k>1"): np.nanmean(noisy[whole.k >= 1]),
                  (key, "residual of P as it is"): entry["power_residual_by_scale"]["as_it_is"]["all"],
                  (key, "r, k<1"): entry["correlation_by_scale"]["large"],
                  (key, "r, k>1"): entry["correlation_by_scale"]["small"],
                  (key, "numbers in the wrong bin of density"): entry["misplaced_by_density"],
                  (key, "Eq. 2"): entry.get("squared_error"),
                  (key, "P_xy/P_xx off one, k<1"): entry.get("calibration_error", {}).get("large"),
                  (key, "P_xy/P_xx off one, k>1"): entry.get("calibration_error", {}).get("small")}
        if key[0] == "runs":
            rows = [row[key] for _, row in boxes]
            for what in ("recall", "precision"):
                found[key, f"{what} of phase 1"] = np.mean([row["at_half"][what] for row in rows])
            found[key, "gain at 90% recall"] = np.mean([row["at_recall"][0]["network"]["gain"] for row in rows])
    return {name: np.nan if value is None else float(value) for name, value in found.items()}


def without_each(boxes):
    """`rulers` of all boxes but one, for each: {name: (boxes,)}."""
    found = [rulers(boxes[:place] + boxes[place + 1:]) for place in range(len(boxes))]
    return {name: np.array([one[name] for one in found]) for name in found[0]}


def jackknife(values):
    """The error of what is found without each box in turn."""
    return np.sqrt((len(values) - 1) * np.var(values))


def run(folder, suites):
    """Print the rulers of a run and its bars for two suites, and their differences."""
    trained = kg.load(folder)
    bars = evaluate.bars_of(trained, None, [path for boxes in suites.values() for path in boxes])
    boxes = [measured(trained, bars, paths) for paths in suites.values()]
    whole, left = [rulers(each) for each in boxes], [without_each(each) for each in boxes]
    print(f"{'':70s}" + "".join(name.rjust(20) for name in (*suites, "difference")))
    for name in whole[0]:
        columns = [(one[name], jackknife(other[name])) for one, other in zip(whole, left)]
        columns.append((whole[1][name] - whole[0][name], jackknife(left[1][name] - left[0][name])))
        words = "".join(f"{value:.3f} +- {error:.3f}".rjust(20) for value, error in columns)
        print(f"{' '.join(name[0])[:32]:34s}{name[1]:36s}{words}")


def suites_of(texts):
    """{name: boxes} of texts like NAME=BOX,BOX."""
    return {name: boxes.split(",") for name, boxes in (text.split("=", 1) for text in texts)}


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    if what == "steps":
        steps()
    elif what == "matter":
        matter(suites_of(rest))
    else:
        run(rest[0], suites_of(rest[1:]))
