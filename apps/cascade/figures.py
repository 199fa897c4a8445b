"""The figures of Yip et al. 2019."""

import numpy as np

from kerasgal.apps.cascade import scatter
from kerasgal.apps.cascade.metrics import DENSITY_EDGES
from kerasgal.plotting import figure
from kerasgal.statistics import jackknife

TRUTH, HALO_MODEL = ("truth", ""), ("baselines", "halo model")  # (kind, name): the runs' are ("runs", name)
TREES, DECORATED = ("baselines", "boosted trees"), ("baselines", "occupation and environment")
FINER_TREES = "baselines", "boosted trees, finer"
FLOOR, ORACLE = ("bounds", "another drawing"), ("bounds", "exact expectation")
COLOUR = {TRUTH: "0.2", HALO_MODEL: "C1", TREES: "C2", FINER_TREES: "darkgreen", DECORATED: "C4", FLOOR: "0.6",
          ORACLE: "0.4"}
RUN_COLOURS = "C0", "C3", "C5", "C6", "C8", "C9"
STYLE = {FLOOR: ":", ORACLE: "--"}


def label(key):
    """What a legend calls the truth, a run or a baseline: a run may have any name, also that of another kind."""
    kind, name = key
    return {"truth": "truth", "runs": f"run {name}"}.get(kind, name)


def colours(keys):
    """One colour for each key: grey the truth and the bounds, orange the halo model."""
    runs = [key for key in keys if key[0] == "runs"]
    return COLOUR | {key: RUN_COLOURS[number % len(RUN_COLOURS)] for number, key in enumerate(runs)}


def shown(keys):
    """Of what is compared that which has a line: of halo models the fitted one and that which knows most."""
    return [key for key in keys if key[0] == "runs" or key in COLOUR]


def wide(axis):
    """Make the x axis logarithmic, with numbers at 1, 2 and 5 that can be read."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())


def slab(axis, image, boxsize, low, high):
    """Draw a slab of a box, (n, n), and return its image."""
    return axis.imshow(image.T, origin="lower", extent=(0, boxsize, 0, boxsize), cmap="magma", vmin=low, vmax=high,
                       interpolation="nearest")


def prediction(probability, count, boxsize, layer):
    """A layer of the probability that a cell is occupied, and the galaxies that are expected in a slab around it."""
    n = len(count)
    thickness = max(1, n // 8)
    start = int(np.clip(layer - thickness // 2, 0, n - thickness))
    drawing, axes = figure(2, sharey=True)
    drawing.colorbar(slab(axes[0], probability[:, :, layer], boxsize, 0, 1), ax=axes[0], shrink=0.8,
                     label="probability of a galaxy")
    image = count[:, :, start:start + thickness].sum(axis=2)
    drawing.colorbar(slab(axes[1], image, boxsize, 0, 3), ax=axes[1], shrink=0.8, label="expected galaxies")
    cell = boxsize / n
    axes[0].set(title=f"z = {(layer + 0.5) * cell:.3g} Mpc/h", xlabel="x [Mpc/h]", ylabel="y [Mpc/h]")
    axes[1].set(title=f"z = {start * cell:.3g} to {(start + thickness) * cell:.3g} Mpc/h", xlabel="x [Mpc/h]")
    return drawing


def slices(sample, run):
    """Slabs through density, true galaxies and those of a run, trees and the halo model, and a zoom on them (Fig. 1).

    A mean field's panel has what is expected, on its own scale: a hundred cells share what the truth has in one. Beside
    that of the run stand galaxies that are drawn from it, as they scatter.
    """
    n = len(sample.density)
    thickness = max(1, n // 8)
    start = min(int(sample.density.sum(axis=(0, 1)).argmax()), n - thickness)
    layers = np.s_[:, :, start:start + thickness]
    panels = [("dark matter", np.log10(np.maximum(sample.density[layers].mean(axis=2), 1e-2)), (-1, 2),
               "log$_{10}$ density / mean")]
    for key in (TRUTH, run, TREES, DECORATED if DECORATED in sample.counts else HALO_MODEL):
        if key in sample.counts:
            mean_field = key in sample.scatter
            panels.append((f"galaxies: {label(key)}" if key == TRUTH else label(key),
                           sample.counts[key][0][layers].sum(axis=2), (0, 1 if mean_field else 3),
                           "expected galaxies" if mean_field else "galaxies"))
        if key == run and sample.scatter.get(run) is not None:
            drawn = scatter.draw(sample.counts[run][0], np.random.default_rng(0), sample.scatter[run])
            panels.append((f"drawn from {label(run)}", drawn[layers].sum(axis=2), (0, 3), "galaxies"))
    # The densest cell's surroundings, an eighth of the box
    side = max(2, n // 8)
    x, y = (int(np.clip(place - side // 2, 0, n - side)) for place in
            np.unravel_index(panels[0][1].argmax(), panels[0][1].shape))
    cell = sample.boxsize / n
    extent = (x * cell, (x + side) * cell, y * cell, (y + side) * cell)
    drawing, axes = figure(len(panels), 2, width=3.2, height=3.6)
    for column, (name, image, (low, high), words) in enumerate(panels):
        drawing.colorbar(slab(axes[0, column], image, sample.boxsize, low, high), ax=axes[0, column], shrink=0.8,
                         location="bottom", label=words)
        axes[0, column].plot(np.take(extent, [0, 1, 1, 0, 0]), np.take(extent, [2, 2, 3, 3, 2]), color="w",
                             linewidth=0.8)
        axes[1, column].imshow(image[x:x + side, y:y + side].T, origin="lower", extent=extent, cmap="magma", vmin=low,
                               vmax=high, interpolation="nearest")
        axes[0, column].set(title=name)
        axes[1, column].set(xlabel="x [Mpc/h]")
    axes[0, 0].set_ylabel("y [Mpc/h]")
    axes[1, 0].set_ylabel("y [Mpc/h]")
    drawing.supxlabel(f"slab of z = {start * cell:.3g} to {(start + thickness) * cell:.3g} Mpc/h; below: what is in "
                      "the white square", fontsize="small")
    return drawing


def curves(rows):
    """Recall, precision and accuracy against threshold, and precision against recall beside the density's.

    rows: {key of a run: [row of each simulation]}.
    """
    drawing, (left, right) = figure(2)
    for key, entries in rows.items():
        first = entries[0]["curve"]
        mean = {name: average([entry["curve"][name] for entry in entries])
                for name in ("recall", "precision", "accuracy")}
        for style, name in (("-", "recall"), ("--", "precision"), (":", "accuracy")):
            left.plot(first["threshold"], mean[name], style, color=colours(rows)[key],
                      label=name if len(rows) == 1 else f"{label(key)}: {name}")
        right.plot(mean["recall"], mean["precision"], color=colours(rows)[key], label=label(key))
    entries = next(iter(rows.values()))
    density = {name: average([entry["density_curve"][name] for entry in entries]) for name in ("recall", "precision")}
    right.plot(density["recall"], density["precision"], color="0.5", label="threshold on the density")
    left.set(xlabel="threshold on the probability")
    right.set(xlabel="recall", ylabel="precision", yscale="log", xlim=(0.5, 1.01))
    for axis in (left, right):
        axis.legend(frameon=False, fontsize=8)
    return drawing


def average(curves):
    """Mean of curves, (m, points), over those that are defined at a point; NaN where none is."""
    return np.ma.masked_invalid(curves).mean(axis=0).filled(np.nan)


def spectra(k, modes, curves):
    """Power spectra, their ratios to the truth's, and for mean fields what a ratio does not say; see `evaluate.power`.

    The band is the sample variance of a Gaussian field with the target's power in as many modes.
    """
    drawing, axes = figure(3, 2, height=3.2, sharex=True)
    keys = shown(curves["noisy"])
    colour = colours(keys)
    with np.errstate(divide="ignore"):
        spread = np.sqrt(2 / modes)

    def draw(axis, values, key, name=None):
        axis.plot(k, values, STYLE.get(key, "-"), color=colour[key], label=name)

    for column, ruler in enumerate(("noisy", "raw")):
        truth = curves[ruler][TRUTH]
        axes[0, column].fill_between(k, truth * np.maximum(1 - spread, 1e-3), truth * (1 + spread), color="0.85")
        axes[1, column].fill_between(k, 1 - spread, 1 + spread, color="0.85")
        for key in keys:
            values = curves[ruler][key]
            draw(axes[0, column], np.where(values > 0, values, np.nan), key, label(key))
            if key != TRUTH:
                draw(axes[1, column], values / truth, key)
        axes[0, column].set(yscale="log", ylabel="P(k) [(Mpc/h)$^3$]")
    axes[0, 0].set_title("with the galaxies' scatter")
    axes[0, 1].set_title("mean fields as they are")
    for key in keys:
        if key in curves["correlation"]:
            draw(axes[0, 2], curves["correlation"][key], key)
        if key in curves["calibration"]:
            draw(axes[1, 2], curves["calibration"][key], key, label(key))
    axes[0, 2].set(title="correlation with the truth", ylabel="r(k)", ylim=(0, 1.02))
    for axis, words in zip(axes[1], ("ratio to the truth", "ratio to the truth", "P$_{xy}$ / P$_{xx}$")):
        axis.set(ylabel=words, xlabel="k [h/Mpc]", ylim=(0, 2))
        wide(axis)
        axis.axhline(1, color="0.6", linewidth=0.8)
        axis.axvline(1, color="0.8", linewidth=0.8, linestyle=":")
    axes[0, 0].legend(frameon=False, fontsize=7)
    return drawing


def bispectra(triangles, found, masked):
    """Bispectra of each shape of triangles, above their ratios to the truth's with the jackknife's errors, below those
    with the richest halo masked.

    triangles: {shape: (x, sides)}; found, masked: {key: {shape: (fields, cubes, triangles)}}, the second may be empty.
    """
    rows = 3 if masked else 2
    drawing, axes = figure(len(triangles), rows, height=2.8, squeeze=False, sharex="col")
    keys = shown(found)
    colour = colours(keys)
    for column, (shape, (x, _)) in enumerate(triangles.items()):
        place = x / np.pi if shape == "paper" else x
        for key in keys:
            axes[0, column].plot(place, found[key][shape].mean(axis=(0, 1)), STYLE.get(key, "-"), color=colour[key],
                                 label=label(key))
            for row, parts in enumerate([found, masked][:rows - 1], start=1):
                if key != TRUTH:
                    values, error = ratio_with_error(parts[key][shape], parts[TRUTH][shape])
                    axes[row, column].errorbar(place, values, error, linestyle=STYLE.get(key, "-"), color=colour[key],
                                               linewidth=1, elinewidth=0.6)
        axes[0, column].set(title={"paper": "k$_1$ = 1.2, k$_2$ = 1.3 h/Mpc"}.get(shape, shape), yscale="log")
        for row in range(1, rows):
            axes[row, column].set(ylim=(0, 2))
            axes[row, column].axhline(1, color="0.6", linewidth=0.8)
        axes[-1, column].set(xlabel="angle / $\\pi$" if shape == "paper" else "k [h/Mpc]")
    axes[0, 0].set_ylabel("B [(Mpc/h)$^6$]")
    axes[1, 0].set_ylabel("ratio to the truth")
    if masked:
        axes[2, 0].set_ylabel("ratio, richest halo masked")
    axes[0, 0].legend(frameon=False, fontsize=7)
    return drawing


def ratio_with_error(own, true):
    """Ratio of the means of two samples, (fields, parts, m) each, and its error by a jackknife over the parts."""
    own, true = own.mean(axis=0), true.mean(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return own.mean(axis=0) / true.mean(axis=0), jackknife(np.divide, own, true)


def calibrations(found):
    """True over expected galaxies in bins of what a mean field expects, and of the density; see `evaluate.numbers`."""
    drawing, axes = figure(2, sharey=True)
    keys = [key for key in shown(found) if key != TRUTH]
    colour = colours(keys)
    for axis, what, words in zip(axes, ("expected", "density"), ("expected galaxies in a cell",
                                                                 "density / mean")):
        for key in keys:
            if what not in found[key]:
                continue
            cells, expected, true = found[key][what]
            place = expected / np.maximum(cells, 1)
            if what == "density":  # middles of the bins
                place = np.sqrt(np.maximum(DENSITY_EDGES[:-1], 0.3) * np.minimum(DENSITY_EDGES[1:], 3000))
            some = (true > 0) & (expected > 0)
            axis.errorbar(place[some], true[some] / expected[some], np.sqrt(true[some]) / expected[some],
                          linestyle=STYLE.get(key, "-"), marker=".", color=colour[key], label=label(key))
        axis.axhline(1, color="0.6", linewidth=0.8)
        axis.set(xscale="log", xlabel=words, ylim=(0, 2))
        axis.xaxis.set_minor_formatter("")
    axes[0].set_ylabel("true / expected")
    axes[1].legend(frameon=False, fontsize=7)
    return drawing


def distributions(counted):
    """Number of cells that hold so many galaxies."""
    drawing, axis = figure()
    keys = shown(counted)
    last = max(counted[key].nonzero()[0].max() for key in keys)
    for key in keys:
        values = counted[key][:last + 1]
        axis.step(np.arange(len(values)), np.where(values > 0, values, np.nan), STYLE.get(key, "-"), where="mid",
                  label=label(key), color=colours(counted)[key])
    axis.set(xlabel="galaxies in a cell", ylabel="cells", yscale="log")
    axis.legend(frameon=False, fontsize=7)
    return drawing


def assembly_bias(k, found):
    """Galaxies of haloes in the densest quarter over those in the emptiest, by mass, and spectra over shuffled ones.

    found: {key: as `assembly.entry` has it}.
    """
    drawing, (left, right) = figure(2)
    keys = shown(found)
    colour = colours(keys)
    for place, key in enumerate(keys):
        style = {"linestyle": STYLE.get(key, "-"), "color": colour[key]}
        numbers = [np.array(found[key][name], float) for name in
                   ("log_mass", "densest_over_emptiest", "densest_over_emptiest_error")]
        middle = numbers[0].mean(axis=1) + 0.02 * (place - len(keys) / 2) if len(numbers[0]) else numbers[0]
        left.errorbar(middle, *numbers[1:], marker=".", label=label(key), **style)
        right.plot(k, np.array(found[key]["power_over_shuffled"], float), **style)
    left.set(xlabel="log$_{10}$ mass [M$_\\odot$/h]", ylabel="galaxies in the densest / emptiest quarter", yscale="log",
             ylim=(0.4, 12))
    left.minorticks_off()
    left.set_yticks([0.5, 1, 2, 5, 10], ["0.5", "1", "2", "5", "10"])
    left.legend(frameon=False, fontsize=7)
    right.set(xlabel="k [h/Mpc]", ylabel="P(k) / P(k) of shuffled galaxies", ylim=(0.5, 2))
    wide(right)
    for axis in (left, right):
        axis.axhline(1, color="0.6", linewidth=0.8)
    return drawing
