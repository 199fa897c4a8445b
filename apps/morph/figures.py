"""The figures of Zanisi et al. 2020."""

import numpy as np

from kerasgal.plotting import figure

LABELS = {"log_mass": "log$_{10}$ stellar mass / M$_\\odot$", "magnitude": "magnitude", "n": "Sersic index",
          "radius": "half-light radius [arcsec]"}


def ratios(llr):
    """Distributions of the likelihood ratio of each set, (n,) each, with their medians."""
    drawing, axis = figure(width=6)
    low, high = np.percentile(np.concatenate(list(llr.values())), (0.5, 99.5))
    bins = np.linspace(low, high, 40)
    for number, (name, values) in enumerate(llr.items()):
        colour = f"C{number}"
        axis.hist(values, bins, density=True, histtype="step", linewidth=1.6, color=colour, label=name)
        axis.axvline(np.median(values), color=colour, linestyle=":", linewidth=1)
    axis.set(xlabel="log-likelihood ratio of an image [nats]", ylabel="share of images", yticks=[])
    axis.legend(frameon=False)
    return drawing


def skies(scored):
    """Likelihood and ratio of each image against the noise of its sky: the first follows it, the second does not."""
    drawing, axes = figure(2)
    named = (("log_p_real", "ln p, network of real galaxies"), ("llr", "log-likelihood ratio"))
    for axis, (name, words) in zip(axes, named):
        for number, (label, values) in enumerate(scored.items()):
            axis.scatter(1000 * values["sky_noise"], values[name], s=5, alpha=0.5, color=f"C{number}", label=label)
        axis.set(xlabel="noise of the sky [1/1000 of the stretched flux]", ylabel=f"{words} [nats]")
    axes[0].legend(frameon=False, markerscale=2)
    return drawing


def contributions(shown):
    """Images beside what each pixel adds to ln p and to the ratio: {set: (images, real, archetype)}, (n, y, x) each."""
    examples = max(len(images) for images, *_ in shown.values())
    drawing, axes = figure(3 * examples, len(shown), width=1.5, height=1.6, squeeze=False)
    spread = np.percentile(np.abs(np.concatenate([real - archetype for _, real, archetype in shown.values()])), 99)
    for row, (name, (images, real, archetype)) in zip(axes, shown.items()):
        for number in range(examples):
            cells = row[3 * number:3 * number + 3]
            if number < len(images):
                ratio = real[number] - archetype[number]
                cells[0].imshow(images[number], origin="lower", cmap="gray", vmax=max(images[number].max(), 1e-3))
                cells[1].imshow(real[number], origin="lower", cmap="viridis")
                cells[2].imshow(ratio, origin="lower", cmap="RdBu_r", vmin=-spread, vmax=spread)
                for cell, words in zip(cells, ("image", "ln p", f"LLR {ratio.sum():.1f}")):
                    cell.set_title(words, fontsize=7)
            for cell in cells:
                cell.set(xticks=[], yticks=[])
        row[0].set_ylabel(name)
    return drawing


def plane(scored, horizontal, vertical):
    """The mean ratio of each set in cells of the plane of two columns."""
    drawing, axes = figure(len(scored), width=4, sharex=True, sharey=True, squeeze=False)
    x, y = (np.concatenate([values["columns"][name] for values in scored.values()]) for name in (horizontal, vertical))
    extent = (*np.percentile(x, (1, 99)), *np.percentile(y, (1, 99)))
    limits = np.percentile(np.concatenate([values["llr"] for values in scored.values()]), (10, 90))
    for axis, (name, values) in zip(axes[0], scored.items()):
        drawn = axis.hexbin(values["columns"][horizontal], values["columns"][vertical], values["llr"], gridsize=12,
                            extent=extent, cmap="viridis", vmin=limits[0], vmax=limits[1])
        axis.set(title=name, xlabel=LABELS[horizontal])
    axes[0, 0].set_ylabel(LABELS[vertical])
    drawing.colorbar(drawn, ax=axes[0].tolist(), label="mean log-likelihood ratio")
    return drawing


def ends(best, worst):
    """A contact sheet of the images at both ends of an order: two lists of (ratio, id, (y, x))."""
    columns = max(len(best), 1)
    drawing, axes = figure(columns, 2, width=1.3, height=1.6, squeeze=False)
    for row, shown, words in zip(axes, (best, worst), ("most real", "least real")):
        for cell in row:
            cell.set(xticks=[], yticks=[], frame_on=False)
        for cell, (ratio, name, image) in zip(row, shown):
            cell.imshow(image, origin="lower", cmap="gray", vmin=0, vmax=max(image.max(), 1e-3))
            cell.set_title(f"{str(name)[-18:]}\n{ratio:.1f} nats", fontsize=6)
        row[0].set_ylabel(words)
    return drawing


def sheet(images):
    """A contact sheet of images, (n, y, x)."""
    columns = int(np.ceil(np.sqrt(len(images))))
    drawing, axes = figure(columns, -(-len(images) // columns), width=1.4, height=1.4, squeeze=False)
    for cell in axes.ravel():
        cell.set_axis_off()
    for cell, image in zip(axes.ravel(), images):
        cell.imshow(image, origin="lower", cmap="gray", vmin=0)
    return drawing
