"""The apps that are installed: the folders of kerasgal.apps, and packages that say so by the entry point kerasgal.apps.

An app is a package with a Click group `cli` in its cli.py. Its `__init__.py` says under RUNS which classes of trained
runs it has, ``{"protohalo": "kerasgal.apps.protohalo.run:Protohalo"}``, by the name that their config.json has. Nothing
here imports them before they are asked for.
"""

import functools
import importlib
import importlib.metadata
import logging
import pkgutil

from kerasgal.errors import RunError, first_line

GROUP = "kerasgal.apps"  # of entry points: name of the app = its package

log = logging.getLogger(__name__)


def packages():
    """{name of an app: its package}, ours first."""
    import kerasgal.apps

    ours = {module.name: f"kerasgal.apps.{module.name}" for module in pkgutil.iter_modules(kerasgal.apps.__path__)
            if module.ispkg}
    others = {entry.name: entry.value for entry in importlib.metadata.entry_points(group=GROUP)}
    return {**others, **ours} if others else ours


def is_ours(name):
    """Whether an app is one of kerasgal's own."""
    return packages()[name] == f"kerasgal.apps.{name}"


def group_of(name):
    """The Click group of an app."""
    return importlib.import_module(f"{packages()[name]}.cli").cli


def places():
    """{app of a config.json: "module:class"} of all runs."""
    found = {}
    for package in packages().values():
        found.update(_runs_of(package))
    return found


@functools.cache
def _runs_of(package):
    """What a package says under RUNS; nothing, with a warning, if it cannot be imported: it may be anybody's."""
    try:
        return getattr(importlib.import_module(package), "RUNS", {})
    except Exception as error:
        log.warning(f"the app in {package} cannot be imported: {type(error).__name__}: {first_line(error)}")
        return {}


def imported(place):
    """The class at "module:class"."""
    module, name = place.split(":")
    return getattr(importlib.import_module(module), name)


def run_class(app):
    """The class of an app's runs; raises RunError for an app that is not installed."""
    known = places()
    if app not in known:
        raise RunError(f"there is no app {app!r}; installed are {', '.join(known)}", value=app, accepted=list(known))
    return imported(known[app])


def run_class_names():
    """Names of the classes of all runs."""
    return [place.partition(":")[2] for place in places().values()]


def run_class_called(name):
    """The class of that name, or None."""
    return next((imported(place) for place in places().values() if place.endswith(f":{name}")), None)
