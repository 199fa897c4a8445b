"""How much lower than the first set's the mean likelihood ratios of other sets are: all galaxies, or matched ones.

Mass, size and Sersic index alone change a galaxy's ratio. Sets are therefore matched as Zanisi et al. 2020 do it: the
space of these columns is cut into cells, and each set contributes as many galaxies of a cell as the set that has the
fewest there. They average over 50 random choices of these galaxies; their mean is known without any choice, as the
weighted mean in which each galaxy of a cell has the weight `fewest / those of its set`. Cells in which some set has no
galaxy do not count.
"""

import numpy as np

DRAWS = 1000  # of the bootstrap
PER_CELL = 5  # galaxies of the smallest set in a cell, on average
FEWEST_BINS, MOST_BINS = 2, 10  # of each column
UNBALANCED = 0.1  # difference of means, in standard deviations, from which matched sets still differ (Austin 2009)
# Where columns are cut for tables, as the paper has it: mass [log10 Msun], n, specific star formation [log10 1/yr]
CUTS = {"log_mass": (10.0, 10.5), "n": (2.5,), "log_ssfr": (-11.0,)}


def cells(columns, names):
    """The cells of the space of some columns in which galaxies are.

    Parameters
    ----------
    columns : dict
        {set: {name: (n,)}}, the first of the observed.
    names : sequence of str
        The columns that count.

    Returns
    -------
    places : dict
        {set: (n,) int}, the number of the cell of each galaxy; -1 outside of what the first set covers, and for numbers
        that are not finite.
    bins : int
        Into how many each column is cut, so that the first set has as many galaxies in each.
    """
    reference = next(iter(columns.values()))
    fewest = min(len(table[names[0]]) for table in columns.values())
    bins = int(np.clip((fewest / PER_CELL)**(1 / len(names)), FEWEST_BINS, MOST_BINS))
    places = {label: np.zeros(len(table[names[0]]), int) for label, table in columns.items()}
    for name in names:
        known = reference[name][np.isfinite(reference[name])]
        edges = np.unique(np.quantile(known, np.linspace(0, 1, bins + 1))) if len(known) else np.zeros(1)
        for label, table in columns.items():
            inside = (table[name] >= edges[0]) & (table[name] <= edges[-1])
            bin = np.clip(np.searchsorted(edges, table[name], "right") - 1, 0, max(len(edges) - 2, 0))
            places[label] = np.where(inside & (places[label] >= 0), places[label] * bins + bin, -1)
    return places, bins


def weights(places):
    """The weight of each galaxy with which all sets have equally many in every cell, {set: (n,)}; see the module.

    places: {set: (n,) int} as of `cells`, whose weights are 0 where it is -1 or where a set has none.
    """
    number = 1 + max((int(place.max(initial=-1)) for place in places.values()), default=-1)
    counts = {label: np.bincount(place[place >= 0], minlength=number) for label, place in places.items()}
    fewest = np.min(list(counts.values()), axis=0)
    share = {label: fewest / np.maximum(count, 1) for label, count in counts.items()}
    return {label: np.where(place >= 0, np.append(share[label], 0)[place], 0.0) for label, place in places.items()}


def differences(llr, places=None, draws=DRAWS):
    """The mean ratio of each set, and Delta<LLR>, its difference to that of the first: 0 for a perfect simulation.

    Parameters
    ----------
    llr : dict
        {set: (n,)} ratios, the first of the observed.
    places : dict, optional
        {set: (n,) int}, the cells in which sets are matched, -1 for galaxies that do not count. Without them all count
        alike.
    draws : int
        Of the bootstrap over galaxies, by which the errors are; the weights are made again in each.

    Returns
    -------
    dict
        {set: {"images", "mean", "mean_error", "delta", "delta_error"}}: how many count, and numbers in nats. Those of
        the first set have no difference. None where no galaxy counts.
    """
    if places is None:
        places = {label: np.zeros(len(values), int) for label, values in llr.items()}
    kept = {label: np.flatnonzero(weight) for label, weight in weights(places).items()}
    if not all(len(rows) for rows in kept.values()):
        return None
    llr = {label: values[kept[label]] for label, values in llr.items()}
    places = {label: values[kept[label]] for label, values in places.items()}
    taken = np.unique(np.concatenate(list(places.values())))
    places = {label: np.searchsorted(taken, values) for label, values in places.items()}
    rng = np.random.default_rng(0)

    def means(picked):
        weight = weights({label: places[label][rows] for label, rows in picked.items()})
        return [np.average(llr[label][rows], weights=weight[label]) if weight[label].any() else np.nan
                for label, rows in picked.items()]

    found = np.array(means({label: np.arange(len(values)) for label, values in llr.items()}))
    drawn = np.array([means({label: rng.integers(len(values), size=len(values)) for label, values in llr.items()})
                      for _ in range(draws)])
    errors, apart = np.nanstd(drawn, axis=0), np.nanstd(drawn - drawn[:, :1], axis=0)
    made = {}
    for number, (label, values) in enumerate(llr.items()):
        made[label] = {"images": len(values), "mean": float(found[number]), "mean_error": float(errors[number])}
        if number:
            made[label] |= {"delta": float(found[number] - found[0]), "delta_error": float(apart[number])}
    return made


def matched(llr, columns, names):
    """`differences` of sets matched in some columns, and what is left of their differences there.

    Parameters
    ----------
    llr : dict
        {set: (n,)}, the first of the observed.
    columns : dict
        {set: {name: (n,)}} of the same sets.
    names : sequence of str
        The columns that are matched.

    Returns
    -------
    made : dict
        "columns", "bins" of each, and "sets": what `differences` says, and under "imbalance" for each column the
        difference of the weighted means to the first set's, in standard deviations of the first's; or None where no
        cell has galaxies of every set.
    places : dict
        The cells, for `by_bins`.
    """
    places, bins = cells(columns, names)
    found = differences(llr, places)
    if found is None:
        return None, places
    weight, first = weights(places), next(iter(llr))
    for label, entry in found.items():
        entry["share"] = entry["images"] / len(llr[label])
        if label != first:
            entry["imbalance"] = {
                name: float((np.average(_known(columns[label][name]), weights=weight[label])
                             - np.average(_known(columns[first][name]), weights=weight[first]))
                            / max(np.std(columns[first][name], where=np.isfinite(columns[first][name])), 1e-300))
                for name in names}
    return {"columns": list(names), "bins": bins, "sets": found}, places


def _known(values):
    """Numbers of a column, of which those that are not finite have no weight."""
    return np.where(np.isfinite(values), values, 0)


def by_bins(llr, columns, places=None):
    """Tables of `differences` in bins of mass, Sersic index and star formation, `CUTS`, where sets have these columns.

    Parameters
    ----------
    llr, columns, places
        As of `matched` and `differences`.

    Returns
    -------
    dict
        {column: a list of dictionaries with "set", "low", "high" (None at an open end) and the numbers of
        `differences`}, of the columns that the first set and another one have; bins without galaxies are left out.
    """
    first, tables = next(iter(llr)), {}
    for name, cuts in CUTS.items():
        having = [label for label in llr if name in columns[label]]
        if first not in having or len(having) < 2:
            continue
        tables[name] = rows = []
        for low, high in zip((None, *cuts), (*cuts, None)):
            inside = {label: (columns[label][name] >= (-np.inf if low is None else low))
                      & (columns[label][name] < (np.inf if high is None else high)) for label in having}
            some = [label for label in having if inside[label].any()]
            if first not in some:
                continue
            if places is None:
                part = {label: np.where(inside[label], 0, -1) for label in some}
            else:
                part = {label: np.where(inside[label], places[label], -1) for label in some if label in places}
            found = differences({label: llr[label] for label in part}, part, DRAWS // 4)
            rows += [{"set": label, "low": low, "high": high, **entry} for label, entry in (found or {}).items()]
    return {name: rows for name, rows in tables.items() if rows}


def planes(llr, columns, pairs, bins=8, fewest=3):
    """Mean ratios in the cells of planes of two columns, and their differences to the first set's.

    Parameters
    ----------
    llr, columns
        As of `matched`.
    pairs : sequence of (str, str)
        Columns along x and along y.
    bins : int
        Cells along each axis, from the first to the last percent of all galaxies.
    fewest : int
        Galaxies that a cell must have.

    Returns
    -------
    dict
        {(x, y): {"x", "y": edges (bins + 1,); "sets": {set: {"mean", "images", "difference"}, (bins, bins) each, first
        axis x, NaN where there are too few}}} of the pairs that a set has.
    """
    made = {}
    for pair in pairs:
        having = [label for label in llr if all(name in columns[label] for name in pair)]
        if not having:
            continue
        along = [np.concatenate([columns[label][name] for label in having]) for name in pair]
        edges = [np.linspace(*np.nanpercentile(values, (1, 99)), bins + 1) for values in along]
        if not all(np.all(np.diff(edge) > 0) for edge in edges):
            continue
        found = {}
        for label in having:
            good = np.isfinite(columns[label][pair[0]]) & np.isfinite(columns[label][pair[1]])
            x, y = (columns[label][name][good] for name in pair)
            images, summed = (np.histogram2d(x, y, edges, weights=weight)[0] for weight in (None, llr[label][good]))
            mean = np.where(images >= fewest, summed / np.maximum(images, 1), np.nan)
            found[label] = {"mean": mean, "images": images.astype(int)}
        for entry in found.values():
            entry["difference"] = entry["mean"] - found[having[0]]["mean"]
        made[pair] = {"x": edges[0], "y": edges[1], "sets": found}
    return made


def with_derived(columns):
    """Columns of a set, {name: (n,)}, and what follows from them.

    log_radius: log10 of the half-light radius in kpc, of radius_kpc, or of radius [arcsec] and redshift; log_ssfr:
    log10 of the specific star-formation rate [1/yr], of sfr [Msun/yr] and log_mass.
    """
    made = dict(columns)
    with np.errstate(divide="ignore", invalid="ignore"):
        if "radius_kpc" not in made and {"radius", "redshift"} <= made.keys():
            from astropy.cosmology import FlatLambdaCDM

            redshift = np.where(made["redshift"] > 0, made["redshift"], np.nan)
            distance = FlatLambdaCDM(H0=70, Om0=0.3).angular_diameter_distance(redshift).value  # Mpc
            made["radius_kpc"] = made["radius"] * np.deg2rad(1 / 3600) * 1000 * distance
        if "radius_kpc" in made and "log_radius" not in made:
            made["log_radius"] = np.log10(made["radius_kpc"])
        if "log_ssfr" not in made and {"sfr", "log_mass"} <= made.keys():
            made["log_ssfr"] = np.log10(made["sfr"]) - made["log_mass"]
    return made
