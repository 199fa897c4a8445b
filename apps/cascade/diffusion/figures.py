"""The figures of the diffusion model."""

import numpy as np

from kerasgal.apps.cascade.diffusion.config import SAMPLERS
from kerasgal.apps.cascade.figures import wide
from kerasgal.plotting import figure

TRUTH = ("truth", "")  # (kind, name): the run's is ("runs", its name), whatever that is
REGRESSOR, HALO_MODEL = ("baselines", "regressor"), ("baselines", "halo model")
TREES, FLOOR = ("baselines", "boosted trees"), ("baselines", "another drawing")
SHUFFLED = ("baselines", "given another map")
COLOUR = {TRUTH: "0.2", REGRESSOR: "C2", HALO_MODEL: "C1", TREES: "C4", FLOOR: "C5", SHUFFLED: "0.7"}


def label(key):
    """What a legend calls the truth, the run's draws or a baseline."""
    kind, name = key
    return {"truth": "truth", "runs": "draws"}.get(kind, name)


def colour(key):
    """The colour of the truth, the run's draws or a baseline."""
    return COLOUR.get(key, "C0")


def panels_of(panels, boxsize, words="", axis="z"):
    """Images side by side: [(title, image (n, n), limits of its colours or None, their unit)], and words below them.

    axis: of x, y and z the one that is looked along.
    """
    across, up = (other for other in "xyz" if other != axis)
    drawing, axes = figure(len(panels), width=3.2, height=4.2, sharey=True, squeeze=False)
    for panel, (name, image, limits, unit) in zip(axes[0], panels):
        low, high = limits or np.percentile(image, (1, 99.8))
        shown = panel.imshow(image.T, origin="lower", extent=(0, boxsize, 0, boxsize), cmap="magma", vmin=low,
                             vmax=high, interpolation="nearest")
        drawing.colorbar(shown, ax=panel, location="bottom", extend="max" if limits else "both", shrink=0.8, label=unit)
        panel.set(title=name, xlabel=f"{across} [Mpc/h]")
    axes[0, 0].set_ylabel(f"{up} [Mpc/h]")
    drawing.supxlabel(words, fontsize="small")
    drawing.get_layout_engine().set(h_pad=0.25)  # of squares side by side the layout forgets the titles
    return drawing


def depth_of(field, boxsize):
    """Words for which part of a box `flat` shows; none of a map."""
    return "" if field.ndim == 2 else f"slab of z = 0 to {max(1, len(field) // 8) * boxsize / len(field):.3g} Mpc/h"


def flat(field):
    """A map as it is; of a box, a slab of it."""
    return field if field.ndim == 2 else field[:, :, :max(1, len(field) // 8)].sum(axis=2)


def panel_of_galaxies(words, field, limits=(0, 4)):
    """The panel of a field of galaxies, for `panels_of`."""
    return f"galaxies{words}", flat(field), limits, "galaxies"


def panel_of_matter(words, field, limits=None):
    """The panel of a density, in units of the mean, for `panels_of`."""
    return f"dark matter{words}", logarithm(field), limits, "log$_{10}$ density / mean"


def logarithm(density):
    """The logarithm of a density in units of the mean, which may be 0, as a map."""
    field = flat(density)
    return np.log10(np.maximum(field if density.ndim == 2 else field / (len(density) // 8 or 1), 1e-2))


def drawn_panels(drawn, matter=False, true=None):
    """The panels of draws of galaxies, or of dark matter, (draws, n, n) or (draws, n, n, n), in the colours of `true`.
    """
    panel, limits = panel_of_galaxies, {}
    if matter:
        panel = panel_of_matter
        limits = {"limits": tuple(np.percentile(logarithm(drawn[0] if true is None else true), (1, 99.8)))}
    return [panel(f": draw {number + 1}", field, **limits) for number, field in enumerate(drawn)]


def prediction(drawn, boxsize, axis="z", matter=False):
    """Some draws of a map, of galaxies or of dark matter, along an axis; of a box, a slab of it."""
    return panels_of(drawn_panels(drawn, matter), boxsize, depth_of(drawn[0], boxsize), axis)


def draws(item, run, most=3, matter=False):
    """What is given of a map, what is true and some draws, of galaxies or of dark matter; of a box, a slab of it."""
    first, second = (panel_of_galaxies, panel_of_matter) if matter else (panel_of_matter, panel_of_galaxies)
    panels = [first("", item.seen[0]), second(": truth", item.truth[0]),
              *drawn_panels(item.drawn[run][0][:most], matter, item.truth[0])]
    return panels_of(panels, item.boxsize, depth_of(item.truth[0], item.boxsize))


def spectra(k, mean, run, scatter, error, correlation, dimensions=2):
    """Power spectra with the draws' scatter, their ratios to the truth's with its error, and correlation coefficients.

    scatter, error: of `evaluate.spectra`; dimensions: of what was transformed, 2 for maps and 3 for boxes.
    """
    drawing, (left, middle, right) = figure(3, width=4)
    for key, values in mean.items():
        left.loglog(k, values, color=colour(key), label=label(key))
        if key != TRUTH:
            middle.plot(k, values / mean[TRUTH], color=colour(key))
    middle.fill_between(k, 1 - error / mean[TRUTH], 1 + error / mean[TRUTH], color="0.85", linewidth=0,
                        label="truth's scatter from map to map,\nover the root of their number")
    for axis, unit in ((left, 1), (middle, mean[TRUTH])):
        axis.fill_between(k, (mean[run] - scatter) / unit, (mean[run] + scatter) / unit, alpha=0.25, color=colour(run),
                          linewidth=0)
    for key, values in correlation.items():
        right.plot(k, values, color=colour(key), label=label(key))
    left.set(xlabel="k [h/Mpc]", ylabel=f"P(k) [(Mpc/h)$^{dimensions}$], shot noise included")
    middle.set(xlabel="k [h/Mpc]", ylabel="ratio to the truth", ylim=(0.4, 1.6), xlim=(k[0], k[-1]))
    middle.axhline(1, color=COLOUR[TRUTH])
    right.set(xlabel="k [h/Mpc]", ylabel="correlation with the truth, r(k)", ylim=(-0.2, 1.02),
              xlim=(k[0], k[-1]))
    left.yaxis.set_minor_formatter("")
    for axis in (left, middle, right):
        wide(axis)
        axis.legend(frameon=False, fontsize=8)
    return drawing


def ranks(observed, expected, p):
    """Ranks of the truth among the draws, beside even ones."""
    drawing, axis = figure()
    place = np.arange(len(observed))
    axis.bar(place, observed, width=0.9, color="C0", alpha=0.7)
    axis.step(np.append(place, len(place)) - 0.5, np.append(expected, expected[-1]), where="post", color="0.2")
    axis.fill_between(np.append(place, len(place)) - 0.5, *(np.append(expected, expected[-1]) + sign * np.sqrt(
        np.append(expected, expected[-1])) for sign in (-1, 1)), step="post", color="0.2", alpha=0.15, linewidth=0)
    axis.set(xlabel="rank of the truth among the draws, from low to high", ylabel="blocks", xticks=[],
             title=f"chance that even ranks are as uneven: {p:.2g}")
    return drawing


def study(result):
    """Power spectra with few steps over that of the longest ancestral sampler, with errors from map to map."""
    k = np.array(result["k"])
    drawing, axes = figure(3, width=4, sharey=True)
    for axis, sampler in zip(axes, SAMPLERS):
        for number, row in enumerate(result[sampler]):
            ratio, error = (np.array(row[name], float) for name in ("ratio", "error"))
            axis.errorbar(k, ratio, error, label=f"{row['steps']} steps", color=f"C{number}", capsize=2, linewidth=1)
        axis.set(title=sampler, xlabel="k [h/Mpc]")
        wide(axis)
        axis.axhspan(0.97, 1.03, color="0.93", zorder=0)
        axis.legend(frameon=False, fontsize=8)
    axes[0].set(ylabel=f"P(k) over that of {result['ancestral'][0]['steps']} ancestral steps")
    return drawing


def times(low, high):
    """How many times as many galaxies there are with a parameter high, in words; nothing of matter."""
    return f": galaxies x {high['galaxies'] / max(low['galaxies'], 1):.3g}" if "galaxies" in low else ""


def response(k, result):
    """Spectra of draws with each parameter high, over those with it low."""
    drawing, axis = figure()
    for name, sides in result.items():
        low, high = sides["low"], sides["high"]
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = np.array(high["power"]) / np.array(low["power"])
        axis.plot(k, ratio,
                  label=f"{name} {low['value']:.3g} to {high['value']:.3g}{times(low, high)}")
    axis.axhline(1, color="0.6", linewidth=0.8)
    # Draws without a galaxy have no ratio, and an axis without data no limits that a logarithm could take.
    axis.set(xlabel="k [h/Mpc]", ylabel="P(k), high over low", xlim=(k[0], k[-1]))
    wide(axis)
    axis.legend(frameon=False, fontsize=8)
    return drawing
