"""The figures of Bernardini et al. 2020, Sec. 4."""

import numpy as np

from kerasgal.plotting import figure

NAMES = {"adaptive": "U-Net + adaptive watershed", "native": "U-Net + native watershed",
         "excursion_set": "peaks above the collapse barrier"}
COLOURS = {"adaptive": "C0", "native": "C1", "excursion_set": "C2"}


def distance_maps(delta, true, predicted, boxsize):
    """Slices through the initial density, the true distance map if there is one, and the predicted one."""
    drawing, axes = figure(2 if true is None else 3, sharey=True)
    layer = predicted.shape[2] // 2
    panels = (("initial density contrast", delta / delta.std(), {"cmap": "RdBu_r", "vmin": -3, "vmax": 3}),
              ("true distance map", true, {"cmap": "magma", "vmin": 0, "vmax": 1}),
              ("predicted distance map", predicted, {"cmap": "magma", "vmin": 0, "vmax": 1}))
    shown = [panel for panel in panels if panel[1] is not None]
    for axis, (title, volume, options) in zip(axes, shown):
        image = axis.imshow(volume[:, :, layer].T, origin="lower", extent=(0, boxsize, 0, boxsize), **options)
        drawing.colorbar(image, ax=axis, shrink=0.8)
        axis.set(title=title, xlabel="x [Mpc/h]")
    axes[0].set_ylabel("y [Mpc/h]")
    return drawing


def halo_slices(halo_id, boxsize):
    """Slices through the label volumes, true and predicted; colours tell haloes apart and mean nothing else."""
    names = ("true", "native", "adaptive")
    drawing, axes = figure(len(names), sharey=True)
    shuffled = shuffle(max(volume.max() for volume in halo_id.values()))
    layer = halo_id["true"].shape[2] // 2
    for axis, name in zip(axes, names):
        show_haloes(axis, halo_id[name][:, :, layer], boxsize, shuffled)
        axis.set(title=NAMES.get(name, "true haloes"), xlabel="x [Mpc/h]", facecolor="0.92")
    axes[0].set_ylabel("y [Mpc/h]")
    return drawing


def shuffle(last):
    """Numbers in a random order, by which the labels 0 to `last` are coloured."""
    return np.random.default_rng(0).permutation(last + 2)


def show_haloes(axis, labels, boxsize, shuffled):
    """Draw a slice of labels, (n, n), -1 for none."""
    axis.imshow(np.ma.masked_where(labels < 0, shuffled[labels]).T, origin="lower", cmap="prism",
                extent=(0, boxsize, 0, boxsize), interpolation="nearest")


def prediction(distance, halo_id, boxsize, layer):
    """A slice through a predicted distance map and the haloes cut from it."""
    drawing, axes = figure(2, sharey=True)
    image = axes[0].imshow(distance[:, :, layer].T, origin="lower", extent=(0, boxsize, 0, boxsize), cmap="magma",
                           vmin=0, vmax=1)
    drawing.colorbar(image, ax=axes[0], shrink=0.8, label="distance from the border")
    show_haloes(axes[1], halo_id[:, :, layer], boxsize, shuffle(halo_id.max()))
    height = (layer + 0.5) * boxsize / len(distance)
    for axis, title in zip(axes, ("predicted distance map", "haloes")):
        axis.set(title=f"{title}, z = {height:.3g} Mpc/h", xlabel="x [Mpc/h]")
    axes[0].set_ylabel("y [Mpc/h]")
    axes[1].set_facecolor("0.92")
    return drawing


def trajectories(sampled, line, minimum):
    """All trajectories in the plane of volume and mean distance, and the line on which they are cut."""
    finite = np.isfinite(sampled.distance)
    if not finite.any():  # a network that has learned nothing has no peaks
        return None
    drawing, axis = figure(width=5.5, height=4.2)
    volume = np.broadcast_to(sampled.volume, sampled.distance.shape)[finite]
    _, _, _, image = axis.hist2d(volume, sampled.distance[finite], cmap="Greys", norm="log",
                                 bins=(np.geomspace(1, sampled.volume[-1] * 1.01, 60), 60))
    drawing.colorbar(image, ax=axis, label="regions")
    axis.plot(sampled.volume, line(sampled.volume), color="C3", label="calibrated cut d(V)")
    axis.axvline(minimum, color="C0", linestyle=":", label=f"smallest halo, {minimum} cells")
    axis.set(xscale="log", xlabel="volume V [cells]", ylabel="mean distance d [cells]")
    axis.legend(frameon=False, loc="upper left")
    return drawing


def cell_masses(cells):
    """Halo mass of each cell, predicted against true (Fig. 8 of the paper), for both watersheds."""
    drawing, axes = figure(2, sharex=True, sharey=True)
    together = np.concatenate([cells[name].ravel() for name in ("native", "adaptive")])
    if not len(together):
        return None
    edges = np.geomspace(together.min() * 0.9, together.max() * 1.1, 36)
    for axis, name in zip(axes, ("native", "adaptive")):
        true, predicted = cells[name]
        axis.hist2d(true, predicted, bins=(edges, edges), cmap="viridis", norm="log")
        axis.plot(edges, edges, color="C3", linewidth=1)
        axis.set(xscale="log", yscale="log", title=NAMES[name], xlabel="true halo mass of a cell [Msun/h]")
    axes[0].set_ylabel("predicted halo mass of a cell [Msun/h]")
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
        for name in ("excursion_set", "native", "adaptive"):
            predicted = np.array(result[name]["predicted"])
            top.plot(centre, np.where(predicted > 0, predicted, np.nan), color=COLOURS[name], marker=".",
                     label=NAMES[name])
            bottom.plot(centre, 100 * (predicted - true) / true, color=COLOURS[name], marker=".")
    bottom.axhline(0, color="k", linewidth=0.5)
    top.set(xscale="log", yscale="log", ylabel="haloes per bin",
            title=f"{len(result['simulations'])} unseen boxes, haloes of at least {result['minimum_cells']} cells")
    top.legend(frameon=False)
    bottom.set(xlabel="halo mass [Msun/h]", ylabel="residual [%]", ylim=(-100, 100))
    bottom.legend(frameon=False, loc="upper left")
    return drawing
