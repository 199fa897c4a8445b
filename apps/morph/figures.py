"""The figures of Zanisi et al. 2020."""

import numpy as np

from kerasgal.plotting import figure

LABELS = {"log_mass": "log$_{10}$ stellar mass / M$_\\odot$", "magnitude": "magnitude", "n": "Sersic index",
          "radius": "half-light radius [arcsec]", "log_radius": "log$_{10}$ half-light radius / kpc"}


def grey(image):
    """An image as it is shown, (y, x): of several bands, (y, x, band), their mean."""
    return image if image.ndim == 2 else image.mean(axis=-1)


def ratios(llr, said=None):
    """Distributions of the likelihood ratio of each set, (n,) each, with their medians.

    A few images have ratios far from all others: what is beyond the middle 95% stands in the bins at the ends. said:
    {name: what the legend says behind a name}.
    """
    drawing, axis = figure(width=7, height=4.2)
    low, high = np.percentile(np.concatenate(list(llr.values())), (1, 96))
    bins = np.linspace(low, high, 40)
    for number, (name, values) in enumerate(llr.items()):
        colour = f"C{number}"
        axis.hist(np.clip(values, low, high), bins, weights=np.full(len(values), 100 / len(values)), histtype="step",
                  linewidth=1.6, color=colour, label=name + (said or {}).get(name, ""))
        axis.axvline(np.median(values), color=colour, linestyle=":", linewidth=1)
    axis.set(xlabel="log-likelihood ratio of an image [nats]; at both ends all beyond", ylabel="share of images [%]")
    axis.plot([], [], color="0.4", linestyle=":", linewidth=1, label="medians")
    drawing.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False,
                   fontsize="small")
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
    """Images beside what each pixel adds to ln p and to the ratio, on which the galaxy's own pixels are outlined.

    shown: {set: (images, real, archetype, galaxy)}, (n, y, x) each, the last boolean. Of several bands images are
    (n, y, x, band); their mean is shown.
    """
    examples = max(len(images) for images, *_ in shown.values())
    drawing, axes = figure(3 * examples, len(shown), width=1.5, height=1.6, squeeze=False)
    spread = np.percentile(np.abs(np.concatenate([real - archetype for _, real, archetype, _ in shown.values()])), 99)
    low, high = np.percentile(np.concatenate([real for _, real, *_ in shown.values()]), (1, 99))
    for row, (name, (images, real, archetype, galaxy)) in zip(axes, shown.items()):
        for number in range(examples):
            cells = row[3 * number:3 * number + 3]
            if number < len(images):
                ratio = real[number] - archetype[number]
                shown_image = grey(images[number])
                cells[0].imshow(shown_image, origin="lower", cmap="gray", vmax=max(shown_image.max(), 1e-3))
                maps = (cells[1].imshow(real[number], origin="lower", cmap="viridis", vmin=low, vmax=high),
                        cells[2].imshow(ratio, origin="lower", cmap="RdBu_r", vmin=-spread, vmax=spread))
                if galaxy[number].any():
                    cells[2].contour(galaxy[number], levels=[0.5], colors="k", linewidths=0.6)
                for cell, words in zip(cells, ("image", "ln p", f"LLR {ratio.sum():.1f}")):
                    cell.set_title(words, fontsize=7)
            for cell in cells:
                cell.set(xticks=[], yticks=[])
        row[0].set_ylabel(name)
    for image, words in zip(maps, ("ln p of a pixel [nats]", "LLR of a pixel [nats]")):
        drawing.colorbar(image, ax=axes.ravel().tolist(), aspect=40, pad=0.01, label=words)
    return drawing


def plane(numbers, horizontal, vertical):
    """The mean ratio of each set in cells of the plane of two columns, and below its difference to the first set's.

    numbers: of one plane, as `differences.planes` has them.
    """
    sets = numbers["sets"]
    drawing, axes = figure(len(sets), 2 if len(sets) > 1 else 1, width=3.4, height=3, sharex=True, sharey=True,
                           squeeze=False)
    means = np.concatenate([entry["mean"].ravel() for entry in sets.values()])
    apart = np.abs(np.concatenate([entry["difference"].ravel() for entry in sets.values()]))
    limits = np.nanpercentile(means, (5, 95)) if np.isfinite(means).any() else (0, 1)
    most = max(np.nanpercentile(apart, 95), 1e-9) if np.isfinite(apart).any() else 1
    drawn = {}
    for column, (name, entry) in enumerate(sets.items()):
        drawn["mean"] = axes[0, column].pcolormesh(numbers["x"], numbers["y"], entry["mean"].T, cmap="viridis",
                                                   vmin=limits[0], vmax=limits[1])
        axes[0, column].set_title(name)
        if column:
            drawn["difference"] = axes[1, column].pcolormesh(numbers["x"], numbers["y"], entry["difference"].T,
                                                             cmap="RdBu", vmin=-most, vmax=most)
        axes[-1, column].set_xlabel(LABELS[horizontal])
    for row, words in zip(axes, ("mean log-likelihood ratio", f"difference to {next(iter(sets))}")):
        row[0].set_ylabel(LABELS[vertical])
        if words.startswith("mean") or "difference" in drawn:
            drawing.colorbar(drawn["mean" if words.startswith("mean") else "difference"], ax=row.tolist(), label=words)
    if len(sets) > 1:
        axes[1, 0].text(0.5, 0.5, "(itself)", transform=axes[1, 0].transAxes, ha="center", color="0.5")
    return drawing


def ends(best, worst):
    """A contact sheet of the images at both ends of an order: two lists of (ratio, id, (y, x)), or (y, x, band)."""
    columns = max(len(best), 1)
    drawing, axes = figure(columns, 2, width=1.3, height=1.6, squeeze=False)
    for row, shown, words in zip(axes, (best, worst), ("most real", "least real")):
        for cell in row:
            cell.set(xticks=[], yticks=[], frame_on=False)
        for cell, (ratio, name, image) in zip(row, shown):
            image = grey(image)
            cell.imshow(image, origin="lower", cmap="gray", vmin=0, vmax=max(image.max(), 1e-3))
            cell.set_title(f"{str(name)[-18:]}\n{ratio:.1f} nats", fontsize=6)
        row[0].set_ylabel(words)
    return drawing


def sheet(images):
    """A contact sheet of images, (n, y, x), or (n, y, x, band), of which the means over the bands are shown."""
    columns = int(np.ceil(np.sqrt(len(images))))
    drawing, axes = figure(columns, -(-len(images) // columns), width=1.4, height=1.4, squeeze=False)
    for cell in axes.ravel():
        cell.set_axis_off()
    for cell, image in zip(axes.ravel(), images):
        cell.imshow(grey(image), origin="lower", cmap="gray", vmin=0)
    return drawing
