"""The figures of Yip et al. 2019."""

import numpy as np

from kerasgal.plotting import figure, save

COLOUR = {"target": "0.2", "halo model": "C1"}


def colours(names):
    """One colour for each name: grey the truth, orange the halo model."""
    runs = [name for name in names if name not in COLOUR]
    return COLOUR | {name: f"C{number + 2 * (number > 0)}" for number, name in enumerate(runs)}


def slices(sample, run, path):
    """Slabs through density, true galaxies, the run's and, where there is one, the halo model's (Fig. 1)."""
    thickness = max(1, len(sample.density) // 8)
    start = min(int(sample.density.sum(axis=(0, 1)).argmax()), len(sample.density) - thickness)
    layers = np.s_[:, :, start:start + thickness]
    panels = [("dark matter", np.log10(np.maximum(sample.density[layers].mean(axis=2), 1e-2)), "magma", (-1, 2))]
    panels += [(name, sample.counts[name][0][layers].sum(axis=2), "magma", None)
               for name in ("target", run, "halo model") if name in sample.counts]
    drawing, axes = figure(len(panels), width=4, height=4, sharey=True)
    for axis, (name, image, colours, limits) in zip(axes, panels):
        low, high = limits or (0, 3)  # most cells hold one galaxy or none
        drawn = axis.imshow(image.T, origin="lower", extent=(0, sample.boxsize, 0, sample.boxsize), cmap=colours,
                            vmin=low, vmax=high, interpolation="nearest")
        label = "log$_{10}$ density / mean" if limits else "galaxies"
        drawing.colorbar(drawn, ax=axis, shrink=0.7, location="bottom", label=label)
        axis.set(title={"target": "galaxies: target"}.get(name, name), xlabel="x [Mpc/h]")
    axes[0].set_ylabel("y [Mpc/h]")
    save(drawing, path)


def curves(rows, path):
    """Recall, precision and accuracy against threshold, and precision against recall beside the density's."""
    drawing, (left, right) = figure(2)
    for name, entries in rows.items():
        first = entries[0]["curve"]
        mean = {key: average([entry["curve"][key] for entry in entries]) for key in ("recall", "precision", "accuracy")}
        for style, key in (("-", "recall"), ("--", "precision"), (":", "accuracy")):
            left.plot(first["threshold"], mean[key], style, color=colours(rows)[name],
                      label=key if len(rows) == 1 else f"{name}: {key}")
        right.plot(mean["recall"], mean["precision"], color=colours(rows)[name], label=name)
    entries = next(iter(rows.values()))
    density = {key: average([entry["density_curve"][key] for entry in entries]) for key in ("recall", "precision")}
    right.plot(density["recall"], density["precision"], color="0.5", label="threshold on the density")
    left.set(xlabel="threshold on the probability")
    right.set(xlabel="recall", ylabel="precision", yscale="log", xlim=(0.5, 1.01))
    for axis in (left, right):
        axis.legend(frameon=False, fontsize=8)
    save(drawing, path)


def average(curves):
    """Mean of curves, (m, points), over those that are defined at a point; NaN where none is."""
    return np.ma.masked_invalid(curves).mean(axis=0).filled(np.nan)


def spectra(k, mean, path):
    """Power spectra without and with shot noise, their ratios to the target's, and correlation coefficients."""
    drawing, axes = figure(3, 2, height=2.8, sharex=True)
    without, noisy, coefficient = mean
    for column, (title, spectrum) in enumerate((("without shot noise", without), ("with shot noise", noisy))):
        for name, values in spectrum.items():
            axes[0, column].loglog(k, np.where(values > 0, values, np.nan), color=colours(spectrum)[name], label=name)
            if name != "target":
                axes[1, column].plot(k, values / spectrum["target"], color=colours(spectrum)[name])
        axes[0, column].set(title=title, ylabel="P(k) [(Mpc/h)$^3$]")
        axes[1, column].set(ylabel="ratio to target", xlabel="k [h/Mpc]", ylim=(0, 2))
        axes[1, column].axhline(1, color="0.6", linewidth=0.8)
        axes[1, column].set_xscale("log")
        axes[1, column].xaxis.set_minor_formatter("")
    for name, values in coefficient.items():
        axes[0, 2].plot(k, values, color=colours(without)[name], label=name)
    axes[0, 2].set(title="correlation with the target", ylabel="r(k)", ylim=(0, 1.02))
    axes[0, 0].legend(frameon=False, fontsize=8)
    axes[1, 2].set_visible(False)
    save(drawing, path)


def bispectra(theta, bispectra, path):
    """Bispectra against angle and their ratios to the target's."""
    drawing, (left, right) = figure(2)
    for name, values in bispectra.items():
        left.plot(theta / np.pi, values, color=colours(bispectra)[name], label=name)
        if name != "target":
            right.plot(theta / np.pi, values / bispectra["target"], color=colours(bispectra)[name])
    left.set(xlabel="angle / $\\pi$", ylabel="B(k$_1$, k$_2$, angle) [(Mpc/h)$^6$]", yscale="log")
    right.set(xlabel="angle / $\\pi$", ylabel="ratio to target", ylim=(0, 2))
    right.axhline(1, color="0.6", linewidth=0.8)
    left.legend(frameon=False, fontsize=8)
    save(drawing, path)


def distributions(counted, path):
    """Number of cells that hold so many galaxies."""
    drawing, axis = figure()
    last = max(values.nonzero()[0].max() for values in counted.values())
    for name, values in counted.items():
        shown = values[:last + 1]
        axis.step(np.arange(len(shown)), np.where(shown > 0, shown, np.nan), where="mid", label=name,
                  color=colours(counted)[name])
    axis.set(xlabel="galaxies in a cell", ylabel="cells", yscale="log")
    axis.legend(frameon=False)
    save(drawing, path)
