"""Assembly bias: whether haloes of one mass have more galaxies in dense surroundings, and what that does to clustering.

Two rulers, of the truth and of all that is held against it alike, because a network has numbers in cells and nothing
else. *Occupation*: the mean number of galaxies in the cells of a halo, for haloes of a mass in quarters by the density
around them. *Shuffling* (Croton, Gao & White 2007, astro-ph/0605636): what the cells of a halo hold is moved, as it
lies about the halo's centre, to another halo of the same mass; the power spectrum of the galaxies as they are over that
of the shuffled ones is 1 without assembly bias.
"""

from dataclasses import dataclass

import numpy as np

from kerasgal.apps.cascade import metrics
from kerasgal.cosmology import mean_density
from kerasgal.galaxies import GalaxyModel, environment_rank
from kerasgal.grid import interpolate_cic, top_hats
from kerasgal.statistics import power_spectrum

WIDTH = 0.1  # decades of mass within which haloes are alike, and shuffled
EDGES = np.append(np.arange(10, 14, 0.5), [14, 17])  # log10 of mass [Msun/h], of the table
QUARTERS = 4
SHUFFLES = 4  # of one field, whose spectra are averaged
FEWEST_GALAXIES, FEWEST_HALOES = 50, 5  # in a bin of mass, and in each of its quarters, of a number that is given
HALF_DIAGONAL = np.sqrt(3) / 2  # of a cell: no point of it is farther from its centre
CANDIDATES = 2**21  # cells that are looked at together


@dataclass(frozen=True)
class Cells:
    """The cells of haloes on a grid of n^3; see `cells_of`.

    index: (cells, 3), of each cell that belongs to a halo; halo: (cells,), the row of that; centre: (haloes, 3), the
    cell in which each halo has its centre; n.
    """

    index: np.ndarray
    halo: np.ndarray
    centre: np.ndarray
    n: int

    def flat(self, index):
        """Flat places of cells, (cells, 3), of any period."""
        return np.ravel_multi_index(tuple(np.transpose(index % self.n)), (self.n,) * 3)


def rank(halos, density, boxsize, cosmology):
    """Rank of the environment of haloes, (haloes,) in (0, 1), from the density in units of its mean, (n, n, n).

    As `kerasgal.galaxies` ranks it from particles: matter in a sphere of the same radius without the halo's own.
    """
    radius = GalaxyModel.environment_radius
    smooth, = top_hats(density, [radius * len(density) / boxsize])
    own = halos["mass"] / (mean_density(cosmology) * 4 / 3 * np.pi * radius**3)
    return environment_rank(halos["mass"], interpolate_cic(smooth, halos["position"], boxsize) - own)


def cells_of(halos, boxsize, n):
    """The `Cells` of haloes: those that the sphere of a halo's radius may touch.

    A cell that several haloes may touch belongs to that from which it is nearest, in units of how far each reaches.
    """
    place = np.asarray(halos["position"], np.float64) * (n / boxsize)
    reach = np.asarray(halos["radius"], np.float64) * (n / boxsize) + HALF_DIAGONAL
    centre = np.floor(place).astype(np.int64)
    steps = np.minimum(np.floor(reach + 0.5).astype(np.int64), (n - 1) // 2)
    distance, index, halo = [np.zeros(0)], [np.zeros((0, 3), np.int64)], [np.zeros(0, np.int64)]
    for step in np.unique(steps):
        span = np.arange(-step, step + 1)
        offset = np.stack(np.meshgrid(span, span, span, indexing="ij"), axis=-1).reshape(-1, 3)
        rows = np.flatnonzero(steps == step)
        for some in np.array_split(rows, len(rows) * len(offset) // CANDIDATES + 1):
            cell = centre[some, None] + offset
            share = np.linalg.norm(cell + 0.5 - place[some, None], axis=2) / reach[some, None]
            inside = share <= 1
            distance.append(share[inside])
            index.append(cell[inside] % n)
            halo.append(np.broadcast_to(some[:, None], inside.shape)[inside])
    distance, index, halo = (np.concatenate(parts) for parts in (distance, index, halo))
    # In the order of their distance the first of each cell is its nearest halo.
    order = np.argsort(distance, kind="stable")
    _, first = np.unique(np.ravel_multi_index(tuple(index[order].T), (n,) * 3), return_index=True)
    nearest = order[first]
    return Cells(index[nearest], halo[nearest], centre % n, n)


def numbers(field, cells):
    """Numbers of galaxies in the cells of each halo, (haloes,), of a field (n, n, n)."""
    return np.bincount(cells.halo, field[tuple(cells.index.T)], minlength=len(cells.centre))


def occupation(number, mass, ranks):
    """Haloes, galaxies and squares of galaxies in bins of mass and quarters of the environment, (3, bins, QUARTERS).

    number, mass [Msun/h], ranks: (haloes,). Haloes outside of EDGES are left out.
    """
    place = np.digitize(np.log10(mass), EDGES) - 1
    inside = (place >= 0) & (place < len(EDGES) - 1)
    quarter = np.minimum((ranks * QUARTERS).astype(int), QUARTERS - 1)
    flat = (place * QUARTERS + quarter)[inside]
    weights = None, number[inside], number[inside]**2
    return np.stack([np.bincount(flat, weight, minlength=(len(EDGES) - 1) * QUARTERS) for weight in
                     weights]).reshape(3, -1, QUARTERS)


def exchanged(mass, rng):
    """Rows of haloes, (haloes,), each put in the place of another of its mass, at random; a halo that is alone in its
    bin stays where it is."""
    bins = np.floor(np.log10(mass) / WIDTH)
    mixed = rng.permutation(len(mass))
    target = np.empty(len(mass), np.int64)
    target[np.argsort(bins, kind="stable")] = mixed[np.argsort(bins[mixed], kind="stable")]
    return target


def shuffled(field, cells, target):
    """A field (n, n, n) in which the cells of each halo are moved to where the halo `target`, (haloes,), has its own.

    What is in no halo's cells stays. Where moved cells meet others they are added, so that the sum is the same.
    """
    own = np.zeros(field.shape, bool)
    own[tuple(cells.index.T)] = True
    value = field[tuple(cells.index.T)]
    filled = value != 0
    moved = cells.index[filled] + (cells.centre[target] - cells.centre)[cells.halo[filled]]
    made = np.where(own, 0, field).ravel().astype(np.float64)
    return (made + np.bincount(cells.flat(moved), value[filled], minlength=made.size)).reshape(field.shape)


def measure(counts, halos, boxsize, without):
    """Both rulers of one simulation: ({key: (shells,) spectrum of shuffled galaxies}, {key: {what: numbers}}).

    counts: {key: [(n, n, n), ...]}; halos: a catalogue with "rank"; without: {key: (raw, power)}, the mean spectrum of
    the fields as they are, and that less shot noise, of mean fields with their scatter: what is between the two is
    taken from the shuffled ones, too. Numbers: "occupation" as `occupation` has it, and "in_haloes", galaxies in cells
    of haloes and all, means of the fields. All are shuffled alike.
    """
    n = len(next(iter(counts.values()))[0])
    cells = cells_of(halos, boxsize, n)
    targets = [exchanged(halos["mass"], np.random.default_rng(seed)) for seed in range(SHUFFLES)]
    spectra, found = {}, {}
    for key, fields in counts.items():
        number = [numbers(one_field, cells) for one_field in fields]
        total = np.mean([one_field.sum(dtype=np.float64) for one_field in fields])
        found[key] = {"occupation": np.mean([occupation(one, halos["mass"], halos["rank"]) for one in number], axis=0),
                      "in_haloes": np.array([np.mean([one.sum() for one in number]), total])}
        raw, power = without[key]
        curves = []
        for place, target in enumerate(targets):
            field = shuffled(fields[place % len(fields)], cells, target)
            mean = field.mean()
            curves.append(power_spectrum(field / mean - 1 if mean > 0 else field, boxsize)[1])
        spectra[key] = np.mean(curves, axis=0) + power - raw
    return spectra, found


def entry(k, power, shuffled_power, table, in_haloes, bins):
    """The numbers of metrics.json of the truth or of what is held against it.

    k, power, shuffled_power: (shells,); table: as `occupation` has it; in_haloes: galaxies in haloes, and all; bins:
    places of the bins of mass that are given.
    """
    haloes, total, squares = table[:, bins]
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = total / haloes
        error = np.sqrt(np.maximum(squares / haloes - mean**2, 0) / haloes)
        densest, emptiest = mean[:, -1], mean[:, 0]
        contrast = densest / emptiest
        contrast_error = contrast * np.hypot(error[:, -1] / densest, error[:, 0] / emptiest)
        ratio = np.where(shuffled_power > 0, power / shuffled_power, np.nan)
        share = in_haloes[0] / in_haloes[1]
    return {"log_mass": [[float(EDGES[place]), float(EDGES[place + 1])] for place in bins],
            "haloes": listed(haloes), "mean_number": listed(mean), "mean_number_error": listed(error),
            "densest_over_emptiest": listed(contrast), "densest_over_emptiest_error": listed(contrast_error),
            "in_haloes": listed(share), "power_over_shuffled": listed(ratio),
            "power_over_shuffled_by_scale": metrics.by_scale(k, ratio)}


def given_bins(table):
    """Places of the bins of mass in which the truth, as `occupation` has it, has enough galaxies and haloes."""
    haloes, total, _ = table
    return np.flatnonzero((total.sum(axis=1) >= FEWEST_GALAXIES) & (haloes.min(axis=1) >= FEWEST_HALOES))


def listed(values):
    """An array as lists in lists; None for what is not finite, of which JSON knows nothing."""
    if np.ndim(values):
        return [listed(value) for value in values]
    return float(values) if np.isfinite(values) else None


def lines(entries):
    """The table as lines of text: {name: entry}, the truth first."""
    first = next(iter(entries.values()))
    columns = [f"{low:g} to {high:g}" for low, high in first["log_mass"]]
    yield ("assembly bias: galaxies of haloes in the densest quarter over those in the emptiest, for log10 mass "
           "[Msun/h]; P(k) over that of shuffled galaxies")
    yield f"{'':34s}" + "".join(name.rjust(16) for name in columns) + f"{'P, k<1':>9s}{'k>1':>7s}{'in haloes':>11s}"
    for name, found in entries.items():
        words = [text(value, error).rjust(16) for value, error in zip(found["densest_over_emptiest"],
                                                                      found["densest_over_emptiest_error"])]
        ratio = found["power_over_shuffled_by_scale"]
        words += [text(ratio["large"]).rjust(9), text(ratio["small"]).rjust(7)]
        share = found["in_haloes"]
        yield f"{name[-33:]:34s}" + "".join(words) + ("-" if share is None else f"{100 * share:.1f}%").rjust(11)


def text(value, error=None):
    """A number, with its error where there is one; - for what is undefined."""
    if value is None:
        return "-"
    return f"{value:.2f}" + (f" +- {error:.2f}" if error is not None else "")
