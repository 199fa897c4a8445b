"""The figures of Bernardini et al. 2020, Sec. 4."""

import numpy as np

from kerasgal.apps.protohalo import metrics, watershed
from kerasgal.plotting import figure
from kerasgal.statistics import mass_bins

NAMES = {"adaptive": "U-Net + adaptive watershed", "native": "U-Net + native watershed",
         "excursion_set": "peaks that collapse as spheres", "ellipsoidal": "peaks that collapse as ellipsoids",
         "twin": "twin: the same large waves", "true": "N-body simulation", "moved": "true patches, moved by 2LPT"}
COLOURS = {"adaptive": "C0", "native": "C1", "excursion_set": "C2", "ellipsoidal": "C4", "twin": "C3", "true": "k",
           "moved": "0.6"}
DISTANCE = "distance from the border"  # of a cell to that of its halo, 1 at the centre: what a colour bar says
DRAWN = ("twin", "excursion_set", "ellipsoidal", "native", "adaptive")  # one over the other


def distance_maps(delta, true, predicted, boxsize, true_id=None):
    """Slices through the initial density, the true distance map if there is one, and the predicted one (Fig. 5).

    With the true haloes, two windows of the maps are shown closer, under the borders of these: A where the predicted
    map is farthest from the true one, and B where it is nearest among those with as much in haloes.
    """
    drawing, axes = figure(2 if true is None else 3, sharey=True)
    layer = predicted.shape[2] // 2
    panels = (("initial density contrast", delta / delta.std(), {"cmap": "RdBu_r", "vmin": -3, "vmax": 3}),
              ("true distance map", true, {"cmap": "magma", "vmin": 0, "vmax": 1}),
              ("predicted distance map", predicted, {"cmap": "magma", "vmin": 0, "vmax": 1}))
    shown = [panel for panel in panels if panel[1] is not None]
    for axis, (title, volume, options) in zip(axes, shown):
        image = axis.imshow(volume[:, :, layer].T, origin="lower", extent=(0, boxsize, 0, boxsize), **options)
        drawing.colorbar(image, ax=axis, shrink=0.8, label=DISTANCE if "distance" in title else "standard deviations")
        axis.set(title=title, xlabel="x [Mpc/h]")
    drawing.supxlabel(height_of(layer, boxsize / len(predicted)), fontsize="small")
    axes[0].set_ylabel("y [Mpc/h]")
    if true_id is None:
        return drawing
    cell, side = boxsize / len(true), max(len(true) // INSET, 2)
    corners = windows(true[:, :, layer], predicted[:, :, layer], side)
    places = inset_places(np.array(corners) / len(true), side / len(true))
    for name, (i, j), place in zip("AB", corners, places):
        extent = (i * cell, (i + side) * cell, j * cell, (j + side) * cell)
        for axis, (_, volume, options) in zip(axes[1:], shown[1:]):
            inset = axis.inset_axes(place, xlim=extent[:2], ylim=extent[2:], xticks=[], yticks=[])
            inset.imshow(volume[i:i + side, j:j + side, layer].T, origin="lower", extent=extent, **options)
            draw_borders(inset, true_id[i:i + side, j:j + side, layer], extent)
            inset.text(0.06, 0.94, name, color="w", va="top", transform=inset.transAxes,
                       bbox={"facecolor": "k", "edgecolor": "none", "pad": 1})
            axis.indicate_inset_zoom(inset, edgecolor="w")
            inset.spines[:].set_color("w")
    return drawing


def height_of(layer, cellsize):
    """Words for where a slice across z lies; cellsize: Mpc/h."""
    return f"slice at z = {(layer + 0.5) * cellsize:.3g} Mpc/h"


INSET = 5  # windows in a side of the box
INSETS = [(x, y, 0.34, 0.34) for x in (0.02, 0.64) for y in (0.02, 0.64)]  # where they may stand in their panel


def inset_places(corners, side):
    """For windows, given by their lower corners and side in units of the panel, the nearest of INSETS that is free."""
    def hides(place):
        return any(abs(x + side / 2 - place[0] - place[2] / 2) < (side + place[2]) / 2
                   and abs(y + side / 2 - place[1] - place[3] / 2) < (side + place[3]) / 2 for x, y in corners)

    free, chosen = list(INSETS), []
    for x, y in corners:
        visible = [place for place in free if not hides(place)] or free
        chosen.append(min(visible, key=lambda place: abs(place[0] - x) + abs(place[1] - y)))
        free.remove(chosen[-1])
    return chosen


def windows(true, predicted, side):
    """First cells (i, j) of two windows of two maps, (n, n): where they differ most, and where least, by sum |g - p|.

    The second one is among the upper half, by what they have of the true map, of windows that have any.
    """
    n = len(true)
    corners = np.array([(i, j) for i in range(0, n - side + 1, side) for j in range(0, n - side + 1, side)])

    def sums(field):
        return np.array([field[i:i + side, j:j + side].sum() for i, j in corners])

    difference, content = sums(np.abs(true - predicted)), sums(true)
    rich = np.flatnonzero(content >= np.median(content[content > 0])) if content.any() else np.arange(len(corners))
    share = difference[rich] / np.maximum(content[rich], 1e-6)
    return [tuple(corners[np.argmax(difference)].tolist()), tuple(corners[rich[np.argmin(share)]].tolist())]


def draw_borders(axis, labels, extent, colour="lime"):
    """Draw the borders between the labels of a slice, (n, m), along the faces of the cells."""
    from matplotlib.collections import LineCollection

    (n, m), (left, right, bottom, top) = labels.shape, extent
    dx, dy = (right - left) / n, (top - bottom) / m
    i, j = np.nonzero(labels[1:] != labels[:-1])
    upright = [((left + (a + 1) * dx, bottom + b * dy), (left + (a + 1) * dx, bottom + (b + 1) * dy))
               for a, b in zip(i, j)]
    i, j = np.nonzero(labels[:, 1:] != labels[:, :-1])
    level = [((left + a * dx, bottom + (b + 1) * dy), (left + (a + 1) * dx, bottom + (b + 1) * dy))
             for a, b in zip(i, j)]
    axis.add_collection(LineCollection(upright + level, colors=colour, linewidths=0.8))


def close_up(predicted, halo_id, boxsize):
    """The largest true halo and what is around it: the predicted map and both watersheds, under true borders (Fig. 6).

    The slice goes through the cell of the halo in which the predicted map is highest, in the middle of the window.
    """
    n, true = len(predicted), halo_id["true"]
    side = min(n, 2 * int(2 * (3 * (true == true[true >= 0].min()).sum() / (4 * np.pi)) ** (1 / 3)) + 2)
    inside = np.where(true == true[true >= 0].min(), predicted, -1)
    centre = np.unravel_index(np.argmax(inside), inside.shape)
    around = [(np.arange(side) - side // 2 + at) % n for at in centre[:2]]
    window = np.ix_(*around, [centre[2]])
    shown = {name: halo_id[name] for name in ("true", "native", "adaptive")}
    slices = {name: volume[window][..., 0] for name, volume in shown.items()}
    pictures = coloured(slices, counterparts(shown))
    drawing, axes = figure(3, sharey=True)
    half = side / 2 * boxsize / n
    extent = (-half, half, -half, half)
    image = axes[0].imshow(predicted[window][..., 0].T, origin="lower", extent=extent, cmap="magma", vmin=0, vmax=1)
    drawing.colorbar(image, ax=axes[0], shrink=0.8, label=DISTANCE)
    axes[0].set_title("predicted distance map")
    for axis, name in zip(axes[1:], ("native", "adaptive")):
        show_haloes(axis, pictures[name], extent)
        axis.set_title(NAMES[name])
    for axis, colour in zip(axes, ("lime", "k", "k")):
        draw_borders(axis, slices["true"], extent, colour)
        axis.set(xlabel="x [Mpc/h]", xlim=extent[:2], ylim=extent[2:])
    axes[0].set_ylabel("y [Mpc/h]")
    drawing.supxlabel(f"{height_of(centre[2], boxsize / n)}; lines: borders of the true haloes", fontsize="small")
    return drawing


def halo_slices(halo_id, boxsize):
    """Slices through the label volumes, true and predicted: a halo that was found has the colour of the true one."""
    names = ("true", "native", "adaptive")
    drawing, axes = figure(len(names), sharey=True)
    n, _, depth = halo_id["true"].shape
    shown = {name: halo_id[name] for name in names}
    pictures = coloured({name: volume[:, :, depth // 2] for name, volume in shown.items()}, counterparts(shown))
    for axis, name in zip(axes, names):
        show_haloes(axis, pictures[name], (0, boxsize, 0, boxsize))
        axis.set(title=NAMES[name], xlabel="x [Mpc/h]")
    axes[0].set_ylabel("y [Mpc/h]")
    drawing.supxlabel(f"{height_of(depth // 2, boxsize / n)}; a halo has one colour in all panels", fontsize="small")
    return drawing


def counterparts(halo_id):
    """Which haloes of label volumes, {name: volume}, are the same: {name: {label: (earlier name, its label)}}.

    A halo is that of the first volume in which it has a twin: either shares more cells with the other than with any
    else.
    """
    found = {}
    for name, volume in halo_id.items():
        found[name] = {}
        for earlier in list(found)[:-1]:
            for label, twin in twins(halo_id[earlier], volume).items():
                first = found[earlier].get(twin, (earlier, twin))
                if label not in found[name] and first not in found[name].values():
                    found[name][label] = first
    return found


def twins(one, other):
    """{label of the other volume: that of the one with which it shares most cells, and which does so with it}."""
    *labels, cells = metrics.shared_cells(one, other)
    order = np.argsort(cells, kind="stable")  # the most cells last, which is what a dictionary keeps
    first, second = (rows[order].tolist() for rows in labels)
    of_one, of_other = dict(zip(first, second)), dict(zip(second, first))
    return {label: twin for label, twin in of_other.items() if of_one[twin] == label}


def coloured(slices, same=None):
    """Slices of labels, {name: (n, m), -1 for none}, as pictures, {name: (n, m, 4)}.

    Haloes that touch, in any of the slices, differ in colour. same: of `counterparts`, whose haloes have one colour.
    """
    same = same or {}

    def halo(name, label):
        return same.get(name, {}).get(int(label), (name, int(label)))

    area, touching = {}, {}
    for name, labels in slices.items():
        for label, cells in zip(*np.unique(labels[labels >= 0], return_counts=True)):
            area[halo(name, label)] = area.get(halo(name, label), 0) + cells
        for pair in neighbours(labels):
            one, other = (halo(name, label) for label in pair)
            touching.setdefault(one, set()).add(other)
            touching.setdefault(other, set()).add(one)
    palette, used, chosen = haloes_palette(), {}, {}
    for one in sorted(area, key=area.get, reverse=True):
        taken = {chosen[other] for other in touching.get(one, ()) if other in chosen}
        free = [colour for colour in range(len(palette)) if colour not in taken] or range(len(palette))
        chosen[one] = min(free, key=lambda colour: used.get(colour, 0))
        used[chosen[one]] = used.get(chosen[one], 0) + 1
    pictures = {name: np.zeros((*labels.shape, 4)) for name, labels in slices.items()}
    for name, labels in slices.items():
        for label in np.unique(labels[labels >= 0]):
            pictures[name][labels == label] = palette[chosen[halo(name, label)]]
    return pictures


def haloes_palette():
    """Colours that tell haloes apart on grey, (18, 4): strong ones first."""
    from matplotlib import colormaps

    pairs = np.delete(colormaps["tab20"](np.arange(20)).reshape(10, 2, 4), 7, axis=0)  # without the greys
    return np.concatenate([pairs[:, 0], pairs[:, 1]])


def neighbours(labels):
    """Pairs of different labels, none of them -1, of cells that are at most two apart along an axis: a set."""
    found = set()
    for apart in (1, 2):
        for one, other in ((labels[apart:], labels[:-apart]), (labels[:, apart:], labels[:, :-apart])):
            touch = (one != other) & (one >= 0) & (other >= 0)
            found |= set(zip(one[touch].tolist(), other[touch].tolist()))
    return found


def show_haloes(axis, picture, extent):
    """Draw a picture of `coloured`."""
    axis.imshow(picture.transpose(1, 0, 2), origin="lower", extent=extent, interpolation="nearest")
    axis.set_facecolor("0.92")


def prediction(distance, halo_id, boxsize, layer):
    """A slice through a predicted distance map and the haloes cut from it."""
    drawing, axes = figure(2, sharey=True)
    image = axes[0].imshow(distance[:, :, layer].T, origin="lower", extent=(0, boxsize, 0, boxsize), cmap="magma",
                           vmin=0, vmax=1)
    drawing.colorbar(image, ax=axes[0], shrink=0.8, label=DISTANCE)
    show_haloes(axes[1], coloured({"found": halo_id[:, :, layer]})["found"], (0, boxsize, 0, boxsize))
    height = (layer + 0.5) * boxsize / len(distance)
    for axis, title in zip(axes, ("predicted distance map", "haloes")):
        axis.set(title=f"{title}, z = {height:.3g} Mpc/h", xlabel="x [Mpc/h]")
    axes[0].set_ylabel("y [Mpc/h]")
    return drawing


def trajectories(sampled, line, minimum, true_sizes, training=None):
    """All trajectories in the plane of volume and mean distance, and the line on which they are cut (Fig. 7).

    Of the training simulations, where the run has what `metrics.trajectory_counts` counted of them, and of those that
    the run is evaluated on. Of these two regions are drawn by themselves: the largest, and the median one among those
    of at least the minimum. Points are the calibration by itself of each mass bin.
    """
    counts = metrics.trajectory_counts(sampled)
    if counts is None:  # a network that has learned nothing has no peaks
        return None
    panels = [("training boxes", training)] * (training is not None) + [("unseen boxes", counts)]
    drawing, axes = figure(len(panels), width=5.5, height=4.2, sharex=True, sharey=True, squeeze=False)
    for axis, (title, shown) in zip(axes[0], panels):
        image = axis.pcolormesh(shown["volume_edges"], shown["distance_edges"],
                                np.ma.masked_equal(shown["counts"], 0).T, cmap="Greys", norm="log")
        drawing.colorbar(image, ax=axis, label="regions")
        axis.plot(sampled.volume, line(sampled.volume), color="C3", label="calibrated cut d(V)")
        axis.axvline(minimum, color="C0", linestyle=":", label=f"smallest halo, {minimum} cells")
        axis.set(xscale="log", xlabel="volume V [cells]", title=title)
    if line.points:
        axes[0, 0].plot(*np.transpose(line.points), "o", color="C0", label="mass bins, training")
    for region in examples(sampled.size, minimum):
        axis.plot(sampled.volume, sampled.distance[region], color="k", linewidth=1)
    edges = mass_bins(minimum, max(true_sizes.max(), 2 * minimum), watershed.BIN_RATIO)
    centre, chosen, count = watershed.calibration_points(sampled, true_sizes, edges)
    axis.plot(centre[count > 0], chosen[count > 0], "o", mfc="none", color="C1", label="mass bins, these boxes")
    axes[0, 0].set_ylabel("mean distance d [cells]")
    for axis in axes[0]:
        axis.legend(loc="upper right", fontsize="small")
    return drawing


def examples(size, minimum):
    """The regions that stand for all: of the largest, and of the median size among those of at least the minimum."""
    order = np.argsort(size)
    large = order[size[order] >= minimum]
    return {order[-1]} | ({large[len(large) // 2]} if len(large) else set())


STYLES = dict(zip(metrics.SIGMAS, ("-", "-.", ":")))


def cell_masses(cells, training=None):
    """Halo mass of each cell, predicted against true, and the 1, 2 and 3 sigma in bins of true mass (Fig. 8).

    cells: {method: (true, predicted)}; training: {method: `metrics.cell_mass_counts`} of the training simulations,
    which stand in a row of their own above.
    """
    methods = ("native", "adaptive")
    unseen = {method: metrics.cell_mass_counts(*cells[method]) for method in methods}
    rows = [("training boxes", training)] * (training is not None) + [("unseen boxes", unseen)]
    if not any(row[method] for _, row in rows for method in methods):
        return None
    drawing, axes = figure(2, len(rows), sharex=True, sharey=True, squeeze=False)
    for row, (title, shown) in zip(axes, rows):
        for axis, method in zip(row, methods):
            axis.set(xscale="log", yscale="log", title=f"{NAMES[method]}, {title}")
            if shown[method]:
                draw_cell_masses(axis, shown[method])
        row[0].set_ylabel("predicted halo mass of a cell [Msun/h]")
    for axis in axes[-1]:
        axis.set_xlabel("true halo mass of a cell [Msun/h]")
    axes[0, 0].legend(loc="upper left", fontsize="small")
    return drawing


def draw_cell_masses(axis, counts):
    """One panel of `cell_masses`; counts: of `metrics.cell_mass_counts`."""
    edges, wide = np.array(counts["edges"]), np.array(counts["wide_edges"])
    axis.pcolormesh(edges, edges, np.ma.masked_equal(counts["counts"], 0).T, cmap="viridis", norm="log")
    axis.plot(edges, edges, color="C3", linewidth=1)
    for sigma, bounds in counts["bounds"].items():
        for part, bound in enumerate(bounds):
            axis.plot(np.sqrt(wide[1:] * wide[:-1]), np.array(bound, float), color="turquoise",
                      linestyle=STYLES[int(sigma)], linewidth=1, label=None if part else rf"{sigma} $\sigma$")


def cumulative_mass_function(mass, boxes):
    """Number of haloes above each mass, predicted and true with its Poisson error, and the deviation below (Fig. 9).

    mass: {method: masses of the haloes of all boxes [Msun/h]}, true ones under "true".
    """
    drawing, (top, bottom) = figure(1, 2, width=6, height=3, sharex=True, height_ratios=(2, 1))
    true = np.sort(mass["true"])
    levels = np.geomspace(true[0], true[-1], 100)

    def above(values):
        return len(values) - np.searchsorted(np.sort(values), levels)

    count = above(true)
    error = np.sqrt(count)
    top.plot(levels, count, color="k", label="N-body simulation")
    top.fill_between(levels, count - error, count + error, color="0.85", label="Poisson error")
    bottom.fill_between(levels, -100 / error, 100 / error, color="0.85")
    for name in (name for name in DRAWN if name in mass):
        found = above(mass[name])
        top.plot(levels, np.where(found > 0, found, np.nan), color=COLOURS[name], label=NAMES[name])
        bottom.plot(levels, 100 * (found / count - 1), color=COLOURS[name])
    bottom.axhline(0, color="k", linewidth=0.5)
    top.set(xscale="log", yscale="log", ylabel="N(> M)", title=f"unseen boxes: {boxes}")
    top.legend(frameon=False)
    bottom.set(xlabel="halo mass M [Msun/h]", ylabel="deviation [%]", ylim=(-100, 100))
    return drawing


def clustering(found):
    """Haloes where they end, by wavenumber: power, correlation with the true ones, bias, redshift space.

    found: of `clustering.summed`.
    """
    drawing, ((power, agreement), (bias, multipoles)) = figure(2, 2, width=5, height=3.6, sharex=True)
    k = np.array(found["k"])
    names = [name for name in ("moved", *DRAWN, "true") if name in found["haloes"]]

    def draw(axis, name, column, scale=1.0, **options):
        row = found["haloes"][name]
        values, errors = (np.array(row[key], float) * scale for key in (column, f"{column}_error"))
        style = {"color": COLOURS[name], "marker": ".", "linewidth": 1.2, **options}
        axis.errorbar(k, values, None if np.isnan(errors).all() else errors, capsize=1.5, elinewidth=0.6, **style)

    for name in names:
        label = NAMES[name]
        draw(power, name, "power", k, label=label)
        draw(bias, name, "bias")
        if name != "true":
            draw(agreement, name, "correlation")
        draw(multipoles, name, "monopole", k)
        draw(multipoles, name, "quadrupole", k, linestyle="--", marker="")
    power.plot(k, k * np.array(found["matter_power"], float), color="k", linestyle=":", linewidth=1, label="matter")
    power.set(ylabel="k P(k) [(Mpc/h)$^2$], less shot noise")
    power.legend(frameon=False, fontsize="x-small")
    agreement.set(ylabel="r(k) with the true haloes", ylim=(min(0, agreement.get_ylim()[0]), 1.05))
    bias.set(xlabel="k [h/Mpc]", ylabel="bias, P$_{hm}$ / P$_{mm}$")
    multipoles.set(xlabel="k [h/Mpc]", ylabel="k P$_\\ell$(k) [(Mpc/h)$^2$], redshift space")
    multipoles.plot([], [], color="k", marker=".", label="monopole")
    multipoles.plot([], [], color="k", linestyle="--", label="quadrupole")
    multipoles.axhline(0, color="k", linewidth=0.5)
    multipoles.legend(frameon=False, fontsize="x-small")
    return drawing


def mass_function(result):
    """Number of haloes per mass bin against truth, with Poisson errors, and the residuals below."""
    drawing, (top, bottom) = figure(1, 2, width=6, height=3, sharex=True, height_ratios=(2, 1))
    edges = np.array(result["mass_edges"])
    centre = np.sqrt(edges[1:] * edges[:-1])
    true = np.array(result["adaptive"]["true"])
    error = np.sqrt(true)
    top.errorbar(centre, true, error, fmt="ko", markersize=4, label="N-body simulation")
    with np.errstate(divide="ignore", invalid="ignore"):
        bottom.fill_between(centre, -100 * error / true, 100 * error / true, color="0.85", label="Poisson error")
        for name in (name for name in DRAWN if name in result):
            predicted = np.array(result[name]["predicted"])
            top.plot(centre, np.where(predicted > 0, predicted, np.nan), color=COLOURS[name], marker=".",
                     label=NAMES[name])
            bottom.plot(centre, 100 * (predicted - true) / true, color=COLOURS[name], marker=".")
    bottom.axhline(0, color="k", linewidth=0.5)
    boxes = f"{len(result['simulations'])} unseen boxes" if len(result["simulations"]) > 1 else "an unseen box"
    top.set(xscale="log", yscale="log", ylabel="haloes per bin",
            title=f"{boxes}, haloes of at least {result['minimum_cells']} cells")
    top.legend(frameon=False)
    bottom.set(xlabel="halo mass [Msun/h]", ylabel="residual [%]", ylim=(-100, 100))
    bottom.legend(frameon=False, loc="upper left")
    return drawing


def found_by_mass(result):
    """Shares of the true haloes that are found and of the predicted ones that are real, one to one, by mass.

    result: of `evaluate.evaluate`. Errors are binomial, with one halo more of either kind than a bin has (Laplace's
    rule of succession): two of two found is no certainty.
    """
    drawing, (left, right) = figure(2, sharey=True, height=3.6)
    edges = np.array(result["mass_edges"])
    centre = np.sqrt(edges[1:] * edges[:-1])
    for name in (name for name in DRAWN if name in result):
        row = result[name]
        for axis, share, number in ((left, "completeness_by_mass", "true"), (right, "purity_by_mass", "predicted")):
            share, number = np.array(row[share], float), np.array(row[number])
            some = number > 0
            share, number = share[some], number[some]
            likely = (share * number + 1) / (number + 2)
            error = np.sqrt(likely * (1 - likely) / number)
            axis.errorbar(centre[some], share, error, color=COLOURS[name], marker=".", capsize=1.5, elinewidth=0.6,
                          linewidth=1.2, label=NAMES[name])
    left.set(ylabel="share", title="of the true haloes that are found", ylim=(0, 1.05))
    right.set(title="of the predicted haloes that are real")
    for axis in (left, right):
        axis.set(xscale="log", xlabel="halo mass [Msun/h]")
    drawing.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False,
                   fontsize="small")
    return drawing
