"""What a run was trained on, and whether a box or an image is like it.

A network answers anything, also about cells of twice the size. So a run keeps, as domain.json, what describes its
training data: of each number the least and the greatest value, of each word all that there were. What is asked about is
described by the same names. Each rule says how far it may lie outside; what nobody said on either side is not compared.
"""

import logging
import math
from dataclasses import dataclass

from kerasgal.errors import DomainError

log = logging.getLogger(__name__)

COSMOLOGY = ("Om0", "Ob0", "h", "ns", "sigma8")


@dataclass(frozen=True)
class Rule:
    """How much a feature may differ from the training's.

    Parameters
    ----------
    words : str
        The feature with its value, e.g. "cells of {} Mpc/h".
    relative : float
        By which share a number may be smaller or larger than the nearest value of the training.
    absolute : float
        By how much.
    least : bool
        Whether only smaller numbers are outside.

    Examples
    --------
    >>> from kerasgal.domain import RULES
    >>> RULES["cellsize"].accepts(0.8, [0.75, 0.78]), RULES["cellsize"].accepts(1.56, [0.75, 0.78])
    (True, False)
    """

    words: str
    relative: float = 0.0
    absolute: float = 0.0
    least: bool = False

    def accepts(self, value, known):
        """Whether a value is like the known ones.

        Parameters
        ----------
        value : float or str
            What is asked about.
        known : list
            Of numbers [least, greatest], of words all that there were.

        Returns
        -------
        bool
        """
        if isinstance(value, str):
            return value in known
        low, high = known
        room = self.absolute + 1e-6
        if value < low - self.relative * abs(low) - room:
            return False
        return self.least or value <= high + self.relative * abs(high) + room

    def say(self, known):
        """The known values in words.

        Parameters
        ----------
        known : list
            Of numbers [least, greatest], of words all that there were.

        Returns
        -------
        str
        """
        if isinstance(known[0], str):
            return self.words.format(" or ".join(known))
        low, high = (f"{value:.4g}" for value in known)
        return self.words.format(low if low == high else f"{low} to {high}")


RULES = {
    "cellsize": Rule("cells of {} Mpc/h", relative=0.1),
    "spacing": Rule("particles {} Mpc/h apart", relative=0.1),
    # The linear density grows as 1 / (1 + z), which tells redshifts of initial conditions apart.
    "redshift_initial": Rule("an initial density at redshift {}", relative=0.05, absolute=0.05),
    "redshift_final": Rule("redshift {}", absolute=0.05),
    "density_of": Rule("a density of {}"),
    "drawn_of": Rule("a density of {}"),
    "deviation": Rule("a density contrast with the standard deviation {}", relative=0.3),
    # Fewer are noise: most cells have none.
    "particles_per_cell": Rule("{} particles per cell", relative=0.1, least=True),
    "sampling": Rule("a finer grid of {} particles per cell", relative=0.1),  # more are sharper
    "galaxy_density": Rule("{} galaxies in a (Mpc/h)^3", relative=0.3),
    "pixel_scale": Rule("pixels of {} arcsec", relative=0.1),
    "unit": Rule("flux in {}"),
    "bands": Rule("the bands {}"),
    "psf_fwhm": Rule("a seeing of {} arcsec", relative=0.3),
    "finder": Rule("haloes of the finder {}"),
    **{name: Rule(f"{name} = {{}}", relative=0.1) for name in COSMOLOGY},
}


def rule_of(name, within=()):
    """The `Rule` of a feature; one of those `within` must lie between the least and the greatest of the training."""
    return Rule(f"{name} = {{}}", relative=1e-6) if name in within else RULES[name]


def of(features):
    """The domain that features make: what is stored as domain.json.

    Parameters
    ----------
    features : list of dict
        One for each box or set of images; None and NaN are what is not known.

    Returns
    -------
    dict
        {name: [least, greatest]} of numbers, {name: [words]} of words.

    Examples
    --------
    >>> from kerasgal import domain
    >>> domain.of([{"cellsize": 0.78, "density_of": "dark matter"}, {"cellsize": 0.75}])
    {'cellsize': [0.75, 0.78], 'density_of': ['dark matter']}
    """
    names = dict.fromkeys(name for one in features for name in one)
    domain = {}
    for name in names:
        values = [one[name] for one in features if _is_known(one.get(name))]
        if not values:
            continue
        words = isinstance(values[0], str)
        domain[name] = sorted(set(values)) if words else [float(min(values)), float(max(values))]
    return domain


def _is_known(value):
    return value is not None and not (isinstance(value, float) and math.isnan(value))


def differences(domain, features, names, within=(), known_as="the run was trained on"):
    """What of the named features is not like the domain.

    Parameters
    ----------
    domain : dict
        See `of`.
    features : dict
        Of what is asked about.
    names : sequence of str
        The features that are compared.
    within : sequence of str
        Further ones, which must lie between the least and the greatest value of the training, under any names.
    known_as : str
        Words before what the domain says.

    Returns
    -------
    list of str
        Parts of sentences, each with both values.

    Examples
    --------
    >>> from kerasgal import domain
    >>> domain.differences({"cellsize": [0.78, 0.78]}, {"cellsize": 1.56}, ["cellsize"])
    ['cells of 1.56 Mpc/h, and the run was trained on cells of 0.78 Mpc/h']
    """
    found = []
    for name in (*names, *within):
        value, known, rule = features.get(name), domain.get(name), rule_of(name, within)
        if known and _is_known(value) and not rule.accepts(value, known):
            value = [value] if isinstance(value, str) else [value, value]
            found.append(f"{rule.say(value)}, and {known_as} {rule.say(known)}")
    return found


def unsaid(domain, features, names):
    """The named features that the domain has and the features leave unsaid."""
    return [name for name in names if name in domain and not _is_known(features.get(name))]


def check(domain, features, names, *, what, minor=(), within=(), outside_domain=False):
    """Notes for a product of what is asked about. Every note is logged as a warning, too.

    Parameters
    ----------
    domain : dict
        Of the run, see `of`; empty for one of an earlier version.
    features : dict
        Of what is asked about.
    names : sequence of str
        The features that must be alike.
    what : str
        What is asked about, for messages.
    minor : sequence of str
        The features whose difference is only noted.
    within : sequence of str
        Those that must lie between the least and the greatest value of the training: see `kerasgal.conditioning`.
    outside_domain : bool
        Go on where those that must be alike differ; what does is noted.

    Returns
    -------
    list of str

    Raises
    ------
    DomainError
        If what is asked about is not like what the run was trained on.

    Examples
    --------
    >>> from kerasgal import domain
    >>> domain.check({"cellsize": [0.78, 0.78]}, {"cellsize": 0.8}, ["cellsize"], what="box.h5")
    []
    """
    outside = differences(domain, features, names, within)
    if outside and not outside_domain:
        raise DomainError(f"{what} has {'; '.join(outside)}; give outside_domain=True to go on all the same",
                          value=features, accepted=domain)
    notes = [f"outside the domain of the run: {what} has {line}" for line in outside]
    minor = [name for name in minor if name not in within]
    notes += [f"{what} has {line}" for line in differences(domain, features, minor)]
    for note in notes:
        log.warning(note)
    return notes


def of_box(simulation, field, *, gridsize=None, deviation=None):
    """The features of a Simulation that a network of its density depends on.

    Parameters
    ----------
    simulation : Simulation
        An open one.
    field : {"initial/delta", "final/delta"}
        The density.
    gridsize : int, optional
        Cells a side of that field, where it is made of particles.
    deviation : float, optional
        Its standard deviation, where that is known already.

    Returns
    -------
    dict
        {name: value}, None for what the simulation does not say.

    Examples
    --------
    >>> import kerasgal as kg
    >>> from kerasgal.domain import of_box
    >>> of_box(kg.simulate(particles=16, boxsize=12.5, seed=1), "initial/delta")["cellsize"]
    0.78125
    """
    if gridsize is None:
        gridsize = simulation[field].shape[0]
    features = {
        "cellsize": simulation.boxsize / gridsize, "boxsize": simulation.boxsize, "gridsize": gridsize,
        "redshift_initial": simulation.redshift_initial if field.startswith("initial") else None,
        "redshift_final": simulation.redshift_final, "finder": simulation.finder, "minimum": simulation.minimum,
        "deviation": None if deviation is None else float(deviation),
        "density_of": simulation.density_of if field.startswith("final") else None,
    }
    if field.startswith("final") and "final/position" in simulation:
        features["particles_per_cell"] = simulation["final/position"].shape[0] / gridsize**3
    if "cosmology" in simulation:
        features |= {name: getattr(simulation.cosmology, name) for name in COSMOLOGY}
    return features
