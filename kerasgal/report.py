"""What an evaluation found as one page that opens anywhere: numbers, figures, what was asked, how to go on."""

import base64
import csv
import io
import math
import re
import struct
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from html import unescape

from kerasgal import __version__, networks

REPORT = "report.html"
LONGEST = 200  # rows of a table; what is longer stands in metrics.json alone
UNITS = {"cellsize": "Mpc/h", "boxsize": "Mpc/h", "spacing": "Mpc/h", "minimum": "particles", "pixel_scale": "arcsec",
         "galaxy_density": "(h/Mpc)^3",
         "psf_fwhm": "arcsec", "zero_point": "mag"}  # of what runs know of their training
LIBRARIES = ("keras", "tensorflow", "jax", "numpy", "h5py")


def flat(metrics, prefix=""):
    """All numbers and words of nested metrics under one name each.

    Parameters
    ----------
    metrics : dict
        As metrics.json has them.
    prefix : str
        What the names begin with.

    Yields
    ------
    name : str
        The keys on the way, with dots between them; of a list the place, from 0.
    value : number, str, bool or None

    Examples
    --------
    >>> from kerasgal.report import flat
    >>> dict(flat({"loss": 0.5, "network": {"dice": 0.7, "residual": [0.1, None]}}))
    {'loss': 0.5, 'network.dice': 0.7, 'network.residual.0': 0.1, 'network.residual.1': None}
    """
    items = metrics.items() if isinstance(metrics, Mapping) else enumerate(metrics)
    for key, value in items:
        name = f"{prefix}{key}"
        if isinstance(value, Mapping | list | tuple):
            yield from flat(value, name + ".")
        else:
            yield name, value


def as_csv(metrics):
    """The text of metrics.csv: a line for each number, its name and its value.

    Parameters
    ----------
    metrics : dict
        As metrics.json has them.

    Returns
    -------
    str

    Examples
    --------
    >>> from kerasgal.report import as_csv
    >>> print(as_csv({"loss": 0.5, "network": {"dice": None}}))
    name,value
    loss,0.5
    network.dice,
    <BLANKLINE>
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["name", "value"])
    writer.writerows([name, "" if value is None else value] for name, value in flat(metrics))
    return text.getvalue()


def tables(metrics):
    """The tables that metrics are read in.

    Single numbers stand in one, words beside them. Things that are measured alike, say several methods or runs, are the
    rows of another. Numbers by bin are the columns of a third.

    Parameters
    ----------
    metrics : dict
        As metrics.json has them.

    Returns
    -------
    list of dict
        Each with `title`, `columns`, and `rows`, lists of values; `folded` where it is long.

    Examples
    --------
    >>> from kerasgal.report import tables
    >>> found = tables({"loss": 0.5, "network": {"dice": 0.7}, "baseline": {"dice": 0.6}})
    >>> [(table["columns"], table["rows"]) for table in found]
    [(['', 'value'], [['loss', 0.5]]), (['', 'dice'], [['network', 0.7], ['baseline', 0.6]])]
    """
    return [{"folded": False, **table} for table in _tables(metrics, "") if 0 < len(table["rows"]) <= LONGEST]


def _tables(metrics, title):
    single = {name: value for name, value in metrics.items() if _single(value)}
    if single:
        yield {"title": title, "columns": ["", "value"], "rows": [[name, value] for name, value in single.items()]}
    yield from _tables_of_parts({name: value for name, value in metrics.items() if name not in single}, title)


def _tables_of_parts(parts, title):
    """Tables of what is no single number."""
    groups = {}  # things that are measured alike, by their names of single numbers
    for name, value in parts.items():
        if isinstance(value, Mapping):
            groups.setdefault(tuple(_row(value)), {})[name] = value
    for columns, group in groups.items():
        if columns and (len(group) > 1 or title):
            rows = [[name, *_row(value).values()] for name, value in group.items()]
            yield {"title": title, "columns": ["", *columns], "rows": rows}
            for name, value in group.items():
                rest = {key: inner for key, inner in value.items() if _listed(inner)}
                yield from _tables_of_parts(rest, _joined(title, name))
        else:
            for name, value in group.items():
                yield from _tables(value, _joined(title, name))
    yield from _columns({name: value for name, value in parts.items() if _listed(value)}, title)


def _row(value):
    """The single numbers of a dictionary, those of dictionaries in it under both names."""
    found = {}
    for name, inner in value.items():
        if _single(inner):
            found[name] = inner
        elif isinstance(inner, Mapping):
            found |= {f"{name} {key}": last for key, last in inner.items() if _single(last)}
    return found


def _columns(lists, title):
    """Tables of lists: lists of one length are columns beside each other, a list of dictionaries has a row for each."""
    by_length = {}
    for name, values in lists.items():
        if values and all(isinstance(value, Mapping) for value in values):
            rows = [_row(value) for value in values]
            columns = list(dict.fromkeys(column for row in rows for column in row))
            yield {"title": _joined(title, name), "columns": columns, "folded": len(rows) > 12,
                   "rows": [[row.get(column) for column in columns] for row in rows]}
        elif values and all(_single(value) for value in values):
            by_length.setdefault(len(values), {})[name] = values
    for columns in by_length.values():
        yield {"title": title, "columns": list(columns), "folded": True,
               "rows": [list(row) for row in zip(*columns.values())]}


def _single(value):
    return value is None or isinstance(value, bool | int | float | str)


def _listed(value):
    return isinstance(value, list | tuple)


def _joined(title, name):
    return f"{title}: {name}" if title else str(name)


def shown(value):
    """A value as a table shows it: four digits of a number, a dash for none.

    Parameters
    ----------
    value : number, str, bool or None
        Any.

    Returns
    -------
    str

    Examples
    --------
    >>> from kerasgal.report import shown
    >>> [shown(value) for value in (0.123456, 12, 3.2e12, None, "box.h5")]
    ['0.1235', '12', '3.2e+12', '–', 'box.h5']
    """
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def html(evaluation, figures, *, command=None):
    """The page of an evaluation, one file that needs nothing else.

    Parameters
    ----------
    evaluation : Evaluation
        What was found.
    figures : dict
        {name: bytes of a PNG}.
    command : str, optional
        The command that made it.

    Returns
    -------
    str
        HTML.

    Examples
    --------
    >>> from kerasgal.report import html
    >>> from kerasgal.run import Evaluation
    >>> "<h1>" in html(Evaluation({"loss": 0.57}, ["loss 0.570"]), {})
    True
    """
    import jinja2

    environment = jinja2.Environment(loader=jinja2.PackageLoader("kerasgal"), autoescape=True, trim_blocks=True,
                                     lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters["shown"] = shown
    metrics, run = dict(evaluation.metrics), evaluation.run
    notes = metrics.pop("notes", [])
    pictures = [{"name": name.replace("_", " "), "data": base64.b64encode(data).decode(), "wide": _wide(data)}
                for name, data in figures.items()]
    versions = {"kerasgal": __version__, "Python": sys.version.split()[0]}
    versions |= {name: getattr(sys.modules[name], "__version__", "unknown") for name in LIBRARIES
                 if name in sys.modules}
    return environment.get_template("report.html").render(
        lines=evaluation.lines, notes=notes, tables=tables(metrics), figures=pictures, versions=versions,
        command=command, limits=_with_code(limits(run)), made=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        title=f"{run.app}: {_called(run)}" if run else "Evaluation", about=about(run) if run else {})


def figures_in(folder):
    """Files in which an evaluation that is in a folder has its figures, in any format; they need not be there."""
    from kerasgal.plotting import FORMATS

    page = folder / REPORT
    names = re.findall('<img alt="([^"]*)"', page.read_text(encoding="utf-8")) if page.exists() else []
    return [folder / f"{unescape(name).replace(' ', '_')}.{kind}" for name in names for kind in FORMATS]


def limits(run):
    """What is not to be concluded of a run: what the card of a network says, or what holds of all runs of its app.

    Parameters
    ----------
    run : Run or None
        What was evaluated.

    Returns
    -------
    str
        Sentences, with code in backticks; empty where nothing is known.

    Examples
    --------
    >>> import kerasgal as kg
    >>> from kerasgal.report import limits
    >>> limits(kg.Protohalo(kg.Protohalo.configure(preset="demo", levels=1)))[:30]
    'Not the fate of a single halo:'
    """
    if run is None:
        return ""
    if run.folder is not None and networks.is_shipped(run.folder):
        return networks.limits_of(run.folder)
    return run.limits


def _with_code(text):
    """Text as HTML, what stands in backticks as code."""
    from markupsafe import Markup

    parts = text.split("`")
    return Markup("").join(Markup("<code>{}</code>" if place % 2 else "{}").format(part)
                           for place, part in enumerate(parts))


def _wide(png):
    """Whether a picture is so much wider than high that a narrow screen cannot show the whole of it."""
    width, height = struct.unpack(">II", png[16:24])  # of the first chunk, IHDR
    return width > 1.5 * height


def _called(run):
    """What a run is called in commands: the name of a network that has one, else its folder."""
    if run.folder is None:
        return "RUN"
    return run.folder.name if networks.is_shipped(run.folder) else run.folder


def about(run):
    """What a report says of the run that it is of.

    Parameters
    ----------
    run : Run
        A trained one.

    Returns
    -------
    dict
        `settings`, `domain`, and `next`, the commands to go on with.

    Examples
    --------
    >>> import kerasgal as kg
    >>> from kerasgal.report import about
    >>> about(kg.load("RUN"))["next"]                       # doctest: +SKIP
    """
    from dataclasses import asdict

    called = _called(run)
    verbs = [f"predict {called} INPUT", f"summary {called}",
             f"export {called}" + (" --output FOLDER" if networks.is_shipped(run.folder or ".") else "")]
    domain = {f"{name} [{UNITS[name]}]" if name in UNITS else name:
              value if _single(value) else
              (" or " if isinstance(value[0], str) else " to ").join(shown(part) for part in dict.fromkeys(value))
              for name, value in (run.domain or {}).items()}
    return {"settings": asdict(run.config), "domain": domain,
            "next": [f"kerasgal {run.app} {words}" for words in verbs]}
