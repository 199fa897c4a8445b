"""The figures of Yip et al. 2019."""

import numpy as np

from kerasgal.plotting import figure

TRUTH, HALO_MODEL = ("truth", ""), ("baselines", "halo model")  # (kind, name): the runs' are ("runs", name)
COLOUR = {TRUTH: "0.2", HALO_MODEL: "C1"}


def label(key):
    """What a legend calls the truth, a run or a baseline: a run may have any name, also that of another kind."""
    kind, name = key
    return {"truth": "truth", "runs": f"run {name}"}.get(kind, name)


def colours(keys):
    """One colour for each key: grey the truth, orange the halo model."""
    runs = [key for key in keys if key not in COLOUR]
    return COLOUR | {key: f"C{number + 2 * (number > 0)}" for number, key in enumerate(runs)}


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
    """Slabs through density, true galaxies, the run's and, where there is one, the halo model's (Fig. 1)."""
    thickness = max(1, len(sample.density) // 8)
    start = min(int(sample.density.sum(axis=(0, 1)).argmax()), len(sample.density) - thickness)
    layers = np.s_[:, :, start:start + thickness]
    panels = [("dark matter", np.log10(np.maximum(sample.density[layers].mean(axis=2), 1e-2)), (-1, 2))]
    panels += [(label(key), sample.counts[key][0][layers].sum(axis=2), None)
               for key in (TRUTH, run, HALO_MODEL) if key in sample.counts]
    drawing, axes = figure(len(panels), width=4, height=4, sharey=True)
    for axis, (name, image, limits) in zip(axes, panels):
        low, high = limits or (0, 3)  # most cells hold one galaxy or none
        drawing.colorbar(slab(axis, image, sample.boxsize, low, high), ax=axis, shrink=0.7, location="bottom",
                         label="log$_{10}$ density / mean" if limits else "galaxies")
        axis.set(title=f"galaxies: {name}" if name == label(TRUTH) else name, xlabel="x [Mpc/h]")
    axes[0].set_ylabel("y [Mpc/h]")
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


def spectra(k, without, noisy, coefficient):
    """Power spectra without and with shot noise, their ratios to the truth's, and correlation coefficients."""
    drawing, axes = figure(3, 2, height=2.8, sharex=True)
    for column, (title, spectrum) in enumerate((("without shot noise", without), ("with shot noise", noisy))):
        for key, values in spectrum.items():
            axes[0, column].loglog(k, np.where(values > 0, values, np.nan), color=colours(spectrum)[key],
                                   label=label(key))
            if key != TRUTH:
                axes[1, column].plot(k, values / spectrum[TRUTH], color=colours(spectrum)[key])
        axes[0, column].set(title=title, ylabel="P(k) [(Mpc/h)$^3$]")
        axes[1, column].set(ylabel="ratio to the truth", xlabel="k [h/Mpc]", ylim=(0, 2))
        axes[1, column].axhline(1, color="0.6", linewidth=0.8)
        axes[1, column].set_xscale("log")
        axes[1, column].xaxis.set_minor_formatter("")
    for key, values in coefficient.items():
        axes[0, 2].plot(k, values, color=colours(without)[key], label=label(key))
    axes[0, 2].set(title="correlation with the truth", ylabel="r(k)", ylim=(0, 1.02))
    axes[0, 0].legend(frameon=False, fontsize=8)
    axes[1, 2].set_visible(False)
    return drawing


def bispectra(theta, bispectra):
    """Bispectra against angle and their ratios to the truth's."""
    drawing, (left, right) = figure(2)
    for key, values in bispectra.items():
        left.plot(theta / np.pi, values, color=colours(bispectra)[key], label=label(key))
        if key != TRUTH:
            right.plot(theta / np.pi, values / bispectra[TRUTH], color=colours(bispectra)[key])
    left.set(xlabel="angle / $\\pi$", ylabel="B(k$_1$, k$_2$, angle) [(Mpc/h)$^6$]", yscale="log")
    right.set(xlabel="angle / $\\pi$", ylabel="ratio to the truth", ylim=(0, 2))
    right.axhline(1, color="0.6", linewidth=0.8)
    left.legend(frameon=False, fontsize=8)
    return drawing


def distributions(counted):
    """Number of cells that hold so many galaxies."""
    drawing, axis = figure()
    last = max(values.nonzero()[0].max() for values in counted.values())
    for key, values in counted.items():
        shown = values[:last + 1]
        axis.step(np.arange(len(shown)), np.where(shown > 0, shown, np.nan), where="mid", label=label(key),
                  color=colours(counted)[key])
    axis.set(xlabel="galaxies in a cell", ylabel="cells", yscale="log")
    axis.legend(frameon=False)
    return drawing
