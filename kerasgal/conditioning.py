"""Numbers of a simulation that a network is given beside its fields, such as Om0 and sigma8.

A run whose setting `parameters` names them is one network for all the simulations that differ in them. They are the
simulation's own, or what is given in their place, and must lie within the range of those of the training.
"""

import logging
import math

from kerasgal.errors import DataError, SettingError

HELP = "Numbers of each simulation that are given to the network, e.g. Om0,sigma8; none if empty."

log = logging.getLogger(__name__)


def parameter_names(config):
    """Names of the parameters that the network of a config is given.

    Parameters
    ----------
    config : Config
        With a setting `parameters`, names with commas between them; one without it has none.

    Returns
    -------
    tuple of str

    Raises
    ------
    SettingError
        For a name that is given twice.

    Examples
    --------
    >>> import kerasgal as kg
    >>> from kerasgal.conditioning import parameter_names
    >>> parameter_names(kg.Protohalo.configure(preset="demo", parameters="Om0, sigma8"))
    ('Om0', 'sigma8')
    """
    text = getattr(config, "parameters", "")
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if len(set(names)) < len(names):
        raise SettingError(f"parameters={text!r} names one of them twice", value=text)
    return names


def named(simulation, names, known=None):
    """Parameters of a simulation by name.

    Parameters
    ----------
    simulation : Simulation
        An open one.
    names : sequence of str
        Of the parameters.
    known : dict, optional
        Those that are given, {name: value}, in place of the simulation's own.

    Returns
    -------
    dict
        {name: float}.

    Raises
    ------
    DataError
        If the simulation does not say one, or it is not finite.

    Examples
    --------
    >>> import kerasgal as kg
    >>> from kerasgal.conditioning import named
    >>> named(kg.simulate(particles=16, boxsize=12.5, seed=1), ["Om0", "sigma8"], {"sigma8": 0.7})
    {'Om0': 0.3111, 'sigma8': 0.7}
    """
    if not names:
        return {}
    known = simulation.parameters | (known or {})
    missing = [name for name in names if name not in known]
    if missing:
        raise DataError(f"{simulation.path} does not say its {', '.join(missing)}; it knows "
                        f"{', '.join(known) or 'no parameter'}")
    found = {name: float(known[name]) for name in names}
    bad = [name for name, value in found.items() if not math.isfinite(value)]
    if bad:
        raise DataError(f"{simulation.path} says {bad[0]} = {found[bad[0]]}; accepted are finite numbers")
    return found


def parameters_of(simulation, names, known=None):
    """Parameters of a simulation as a network is given them.

    Parameters
    ----------
    simulation, names, known
        See `named`.

    Returns
    -------
    array
        (p,) float32, in the order of the names.

    Raises
    ------
    DataError
        See `named`.

    Examples
    --------
    >>> import kerasgal as kg
    >>> from kerasgal.conditioning import parameters_of
    >>> parameters_of(kg.simulate(particles=16, boxsize=12.5, seed=1), ["Om0"])
    array([0.3111], dtype=float32)
    """
    import numpy as np

    return np.array(list(named(simulation, names, known).values()), np.float32)


def check_given(names, given):
    """Refuse parameters that a run was not trained with, or that are no numbers.

    Parameters
    ----------
    names : sequence of str
        Of the parameters of the run.
    given : dict
        {name: value} that are given.

    Raises
    ------
    SettingError
        If it names another one, or has a value that is not finite.

    Examples
    --------
    >>> from kerasgal.conditioning import check_given
    >>> check_given(("Om0", "sigma8"), {"Om0": 0.3})
    """
    unknown = [name for name in given if name not in names]
    if unknown:
        raise SettingError(f"the run was not trained with {', '.join(unknown)}; its parameters are "
                           f"{', '.join(names) or 'none'}", value=unknown, accepted=tuple(names))
    bad = [name for name, value in given.items() if not math.isfinite(value)]
    if bad:
        raise SettingError(f"`parameters`: {bad[0]} is {given[bad[0]]}, accepted are finite numbers")


def warn_of_constant(names, rows):
    """Warn of parameters that are the same in all simulations of a training; rows: theirs, (s, p)."""
    for name, values in zip(names, zip(*rows)):
        if min(values) == max(values):
            log.warning(f"{name} is {values[0]:g} in all simulations of the training: the network cannot learn what it "
                        "does, and will be asked about no other value")


def in_words(known):
    """Parameters, {name: value}, in words, such as "Om0 = 0.3, sigma8 = 0.8"."""
    return ", ".join(f"{name} = {value:.6g}" for name, value in known.items())
