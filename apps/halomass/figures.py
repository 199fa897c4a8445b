"""The figures of Lucie-Smith et al. 2020, Results and Methods."""

import numpy as np

from kerasgal.apps.halomass.metrics import PLACES, kernel_density, residual_grid
from kerasgal.plotting import figure

BINS = 12  # of true mass that have a violin each
PREDICTED, TRUE = "log$_{10}$ M$_{predicted}$ [M$_\\odot$/h]", "log$_{10}$ M$_{true}$ [M$_\\odot$/h]"
RESIDUAL = "log$_{10}$ (M$_{predicted}$ / M$_{true}$)"
FEWEST = 30  # particles that a distribution is drawn for
TRUTH = "0.35"


def colours(names):
    """One colour for each name."""
    return {name: f"C{number}" for number, name in enumerate(names)}


def mass_range(low, high, third):
    """The title of a panel for one third of the mass range."""
    edges = np.linspace(low, high, 4)
    return f"{edges[third]:.1f} $\\leq$ {TRUE} $\\leq$ {edges[third + 1]:.1f}"


def violins(true, predicted, low, high, names):
    """Distributions of the predicted mass in bins of true mass (Figs. 2 and 4 of the paper), one panel each.

    true: (particles,) and predicted: {key: (particles,)}, log10 masses; names: {key: what it is called}. From the
    second panel on, the left halves are those of the first prediction.
    """
    drawing, axes = figure(len(predicted), width=4.4, height=4, sharex=True, sharey=True, squeeze=False)
    edges = np.linspace(low, high, BINS + 1)
    colour = colours(predicted)
    first = next(iter(predicted))
    for axis, key in zip(axes[0], predicted):
        halves = [(key, "both")] if key == first else [(first, "low"), (key, "high")]
        for drawn, side in halves:
            for number, centre in enumerate((edges[1:] + edges[:-1]) / 2):
                inside = (true >= edges[number]) & (true <= edges[number + 1])
                if inside.sum() >= FEWEST:
                    violin(axis, predicted[drawn][inside], centre, 0.92 * (edges[1] - edges[0]), side, colour[drawn])
        axis.plot((low, high), (low, high), color="k", linewidth=1)
        axis.set(xlabel=TRUE, title=names[key] if key == first else f"{names[first]} (left), {names[key]} (right)")
    together = np.percentile(np.concatenate(list(predicted.values())), (0.05, 99.95))
    axes[0, 0].set(ylabel=PREDICTED, ylim=(min(low, together[0]) - 0.1, max(high, together[1]) + 0.1))
    return drawing


def violin(axis, values, centre, width, side, colour):
    """A violin, or its lower or higher half, with the median as a line; it ends with the data."""
    bodies = axis.violinplot([values], [centre], widths=width, side=side, showextrema=False, points=200)["bodies"]
    for body in bodies:
        body.set(facecolor=colour, edgecolor=colour, alpha=0.55, linewidth=0.8)
    left, right = (side != "high") * width / 2, (side != "low") * width / 2
    axis.hlines(np.median(values), centre - left, centre + right, color=colour, linewidth=1.5)


def comparison(residuals, third, low, high, labels, grey=None):
    """Residual distributions of all predictions in the three mass bins, Gaussian kernel density estimates.

    residuals: {key: (particles,)} in dex, drawn in their order, that of the key `grey` in grey; third: (particles,)
    mass bin; labels: {key: legend}.
    """
    drawing, axes = figure(3, sharex=True, sharey=True, width=4.2, height=4.4)
    grid = residual_grid(list(residuals.values()))
    colour = {**colours(key for key in residuals if key != grey), grey: TRUTH}
    for number, axis in enumerate(axes):
        for key, residual in residuals.items():
            inside = residual[third == number]
            if len(inside) >= FEWEST:
                style = {"linestyle": "--", "linewidth": 1.2} if key == grey else {"linewidth": 1.8}
                axis.plot(grid, kernel_density(inside, grid), color=colour[key], label=labels[key], **style)
        axis.axvline(0, color="k", linewidth=0.6, linestyle=":")
        axis.set(title=mass_range(low, high, number), xlabel=RESIDUAL, xlim=limits(residuals))
    axes[0].set_ylabel("share of particles per dex")
    axes[0].set_ylim(bottom=0)  # after all is drawn: it ends the automatic scaling of the axes, which are shared
    drawing.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return drawing


def limits(residuals):
    """Symmetric limits that leave a thousandth of each prediction's residuals out."""
    reach = max(np.percentile(np.abs(residual), 99.9) for residual in residuals.values())
    return -reach, reach


def radii(residuals, third, place, low, high, names):
    """Residual distributions in the three mass bins for the inner, middle and outer thirds of haloes, a row each.

    residuals: {key: (particles,)} in dex; third, place: (particles,); names: {key: what it is called}.
    """
    drawing, axes = figure(3, len(residuals), sharex=True, sharey="row", width=4.2, height=2.8, squeeze=False)
    grid = residual_grid(list(residuals.values()))
    for row, (key, residual) in zip(axes, residuals.items()):
        for number, axis in enumerate(row):
            for shell, label in enumerate(PLACES):
                inside = residual[(third == number) & (place == shell)]
                if len(inside) >= FEWEST:
                    axis.plot(grid, kernel_density(inside, grid), color=("#440154", "#21918c", "#e8a80c")[shell],
                              linewidth=1.8, label=label)
            axis.axvline(0, color="k", linewidth=0.6, linestyle=":")
            axis.set(xlim=limits(residuals))
        row[0].set_ylabel(f"{names[key]}\nshare of particles per dex")
        row[0].set_ylim(bottom=0)
        if row[-1].get_legend_handles_labels()[0]:  # none where there are too few particles
            row[-1].legend(frameon=False, loc="upper right")
    for number in range(3):
        axes[0, number].set_title(mass_range(low, high, number))
        axes[-1, number].set_xlabel(RESIDUAL)
    return drawing


def divergences(by_mass, by_place, whole, low, high, first, keys, names):
    """K-L divergence of the first prediction's residuals from those of the others, by mass and by place in the halo.

    by_mass: for each third of the range of log10 mass, low to high, {group: {name: {group: {name: {"divergence",
    "error"}}}}}, or None where there are too few particles; by_place: likewise, {place: ...}, or None where it is
    unknown; whole: {key: {key: likewise}} of all particles; keys: of the predictions, the first among them; names:
    {key: what it is called}.
    """
    edges = np.linspace(low, high, 4)
    masses = [f"{edges[third]:.1f} to {edges[third + 1]:.1f}" for third in range(3)]
    panels = [(TRUE, dict(zip(masses, by_mass)))]
    if by_place is not None:
        panels.append(("third of the halo's radius", by_place))
    drawing, axes = figure(len(panels), width=4.6, height=3.8, sharey=True, squeeze=False)
    others = [key for key in keys if key != first]
    for axis, (words, parts) in zip(axes[0], panels):
        columns = [*parts, "all"]
        for number, key in enumerate(others):
            values = [None if part is None else part[first[0]][first[1]][key[0]][key[1]] for part in parts.values()]
            values.append(whole[first][key])
            known = [column for column, value in enumerate(values) if value is not None]
            shift = 0.08 * (number - (len(others) - 1) / 2)
            axis.errorbar([column + shift for column in known], [values[column]["divergence"] for column in known],
                          [values[column]["error"] for column in known], fmt="o", markersize=4, capsize=2,
                          color=f"C{number}", label=names[key])
        axis.set_xticks(range(len(columns)), columns)
        axis.set(xlabel=words, yscale="log")
    axes[0, 0].set_ylabel(f"K-L divergence of {names[first]} from it")
    drawing.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return drawing


def likelihood(target, networks, slices=4):
    """The truth at fixed prediction against the fitted likelihood (Fig. 5 of the paper), a row for each network.

    target: (particles,) rescaled true mass d; networks: {name: (y, density)}, y: (particles,), density: function of
    grid (cells,) and predictions (p,) to their predictive densities, (cells, p). Each panel takes the twentieth of
    the particles whose predictions are nearest to a quantile of all predictions, and draws their mean density.
    """
    drawing, axes = figure(slices, len(networks), sharex=True, width=3.3, height=2.6, squeeze=False)
    edges, grid = np.linspace(-1, 1, 31), np.linspace(-1, 1, 401)
    for row, (name, (y, density)) in zip(axes, networks.items()):
        order = np.argsort(y)
        size = max(len(y) // 20, 1)
        for axis, start in zip(row, np.linspace(0, len(y) - size, slices + 2).astype(int)[1:-1]):
            chosen = order[start:start + size]
            axis.hist(target[chosen], edges, density=True, histtype="stepfilled", color="0.8", label="truth")
            few = chosen[::max(size // 100, 1)]
            axis.plot(grid, density(grid, y[few]).mean(axis=1), color="C3", label="likelihood")
            axis.axvline(np.median(y[chosen]), color="k", linewidth=0.8, linestyle=":")
            axis.set(yticks=[], xlim=(-1, 1),
                     title=f"{y[chosen].min():.2f} $\\leq$ y $\\leq$ {y[chosen].max():.2f}")
        row[0].set_ylabel(f"{name}\np(d | y)")
        row[0].legend(frameon=False)
    for axis in axes[-1]:
        axis.set_xlabel("rescaled mass d")
    return drawing


def training(histories):
    """Loss and gamma against epoch (Fig. 6 of the paper). histories: {name: [{column: number}]}, a row per epoch."""
    from matplotlib.ticker import MaxNLocator

    drawing, (left, right) = figure(2)
    colour = colours(histories)
    for name, rows in histories.items():
        history = {column: [row[column] for row in rows] for column in rows[0]}
        left.plot(history["epoch"], history["loss"], color=colour[name], label=f"{name}, training")
        if "val_loss" in history:
            left.plot(history["epoch"], history["val_loss"], "--", color=colour[name], label=f"{name}, validation")
        widths = [column for column in history if column.startswith("gamma")]  # a two-sided likelihood has two
        for column, style in zip(widths, ("-", "--")):
            right.plot(history["epoch"], history[column], style, color=colour[name],
                       label=name if len(widths) == 1 else f"{name}, {column.removeprefix('gamma_')}")
    left.set(xlabel="epoch", ylabel="loss")
    right.set(xlabel="epoch", ylabel="$\\gamma$")
    for axis in (left, right):
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.legend(frameon=False)
    right.legend(frameon=False)
    return drawing


def calibration(coverages):
    """Share of particles within central intervals against their level. coverages: {name: {level: share}}."""
    drawing, axis = figure(width=4.4, height=4)
    axis.plot((0, 1), (0, 1), color="k", linewidth=0.8)
    axis.fill_between((0, 1), (-0.05, 0.95), (0.05, 1.05), color="0.92", label="$\\pm$ 5%")
    for name, coverage in coverages.items():
        axis.plot([float(level) for level in coverage], list(coverage.values()), marker=".", label=name)
    axis.set(xlabel="level of the central interval", ylabel="particles within", xlim=(0, 1), ylim=(0, 1))
    axis.legend(frameon=False, loc="upper left")
    return drawing


def masses(columns, low, high):
    """Predicted against true mass with the central 68% of a table, or the predicted ones where no truth is known.

    columns: arrays (particles,) of `run.Masses`; low, high: range of log10 mass in which the run predicts.
    """
    drawing, axis = figure(width=4.8, height=4.4)
    known = np.flatnonzero(np.isfinite(columns["log_mass_true"]))
    if len(known):
        shown = known[::max(1, len(known) // 2000)]  # more would be a blot
        true, predicted = columns["log_mass_true"][shown], columns["log_mass"][shown]
        axis.vlines(true, columns["log_mass_p16"][shown], columns["log_mass_p84"][shown], color="C0", linewidth=0.3)
        axis.plot(true, predicted, ".", color="C0", markersize=3)
        axis.plot((low, high), (low, high), color="k", linewidth=1)
        axis.set(xlabel=TRUE, ylabel=PREDICTED)
    else:
        axis.hist(columns["log_mass"], bins=np.linspace(low, high, 31), histtype="step", color="C0")
        axis.set(xlabel=PREDICTED, ylabel="particles")
    return drawing


def mass_map(log_mass, boxsize, layer):
    """A slice through a map of predicted log10 mass, (n, n, n)."""
    drawing, axis = figure(width=5, height=4.2)
    image = axis.imshow(log_mass[:, :, layer].T, origin="lower", extent=(0, boxsize, 0, boxsize))
    drawing.colorbar(image, ax=axis, label=PREDICTED)
    height = (layer + 0.5) * boxsize / len(log_mass)
    axis.set(title=f"z = {height:.3g} Mpc/h", xlabel="x [Mpc/h]", ylabel="y [Mpc/h]")
    return drawing


def ladder(rows):
    """Correlation, scatter, and what each rung has more than the one below, with errors. rows: of `ladder.Ladder`."""
    panels = [("r", "correlation r"), ("rms", "scatter [dex]")]
    if any(row["r_gain"] is not None for row in rows):  # a ladder may have one rung only
        panels.append(("r_gain", "r more than on the rung below"))
    drawing, axes = figure(len(panels), width=3.4, height=3.2)
    rungs = list(dict.fromkeys(row["rung"] for row in rows))
    models = list(dict.fromkeys(row["model"] for row in rows))
    for axis, (name, words) in zip(axes, panels):
        for number, model in enumerate(models):
            shown = [row for row in rows if row["model"] == model and row[name] is not None]
            shift = 0.12 * (number - (len(models) - 1) / 2)
            axis.errorbar([rungs.index(row["rung"]) + shift for row in shown], [row[name] for row in shown],
                          [row[f"{name}_error"] for row in shown], fmt="os^"[number], color=f"C{number}", markersize=4,
                          capsize=2, linewidth=1.2, label=model)
        shown = [rung for rung in rungs if any(row["rung"] == rung and row[name] is not None for row in rows)]
        places = [rungs.index(rung) for rung in shown]
        axis.set(xlim=(places[0] - 0.5, places[-1] + 0.5), ylabel=words)
        axis.set_xticks(places, [rung.replace("l <=", "$\\ell \\leq$").replace("l =", "$\\ell =$") for rung in shown])
        if name == "r_gain":
            axis.axhline(0, color="k", linewidth=0.6, linestyle=":")
    axes[0].legend(frameon=False)
    return drawing
