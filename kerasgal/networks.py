"""Trained networks that come with the package, or from where the registry says, under names.

A name stands wherever a run folder can. The registry, shipped/registry.json, has for each name the app, what the
network is and was measured to be, and the SHA-256 of every file: a changed byte is refused. Nothing is ever unpickled:
weights are HDF5.
"""

import hashlib
import os
import shutil
from pathlib import Path

from kerasgal import registry as apps
from kerasgal import run_folder
from kerasgal.errors import DamagedError, DataError, MissingError, SettingError
from kerasgal.files import replacing

SHIPPED = Path(__file__).parent / "shipped"
REGISTRY = "registry.json"
CARD = "README.md"
LIMITS = "## What not to conclude"  # the heading of a card's last section
# Of a run folder, what only its training needs, and what figures of evaluations show of it beside
LEFT_OUT = {run_folder.LAST, "log.txt", "loss.png", "training_figures.json"}


def registry():
    """What networks there are.

    Returns
    -------
    dict
        {name: entry}. An entry has `app`, `summary`, `licence`, `figures` measured on data it never saw, {file:
        SHA-256} in `files`, `bytes`, and, where they do not come with the package, `url` and `sha256` of an archive.

    Examples
    --------
    >>> from kerasgal import networks
    >>> all("app" in entry for entry in networks.registry().values())
    True
    """
    return run_folder.read_json(SHIPPED / REGISTRY)


def models():
    """The networks that can be loaded by name.

    Returns
    -------
    astropy.table.Table
        A row for each: name, app, summary, figures, MB, licence.

    Examples
    --------
    >>> import kerasgal as kg
    >>> kg.models().colnames
    ['name', 'app', 'summary', 'figures', 'MB', 'licence']
    """
    from astropy.table import Table

    entries = registry()
    columns = {"name": list(entries), **{column: [entry[column] for entry in entries.values()]
                                         for column in ("app", "summary")},
               "figures": [measured(entry) for entry in entries.values()],
               "MB": [round(entry["bytes"] / 1e6, 2) for entry in entries.values()],
               "licence": [entry["licence"] for entry in entries.values()]}
    return Table(columns)


def measured(entry):
    """The figures of an entry of the registry, in words."""
    return ", ".join(f"{what} {value}" for what, value in entry["figures"].items())


def card(name):
    """What a network is, was trained on and was measured to do, as Markdown.

    Parameters
    ----------
    name : str
        Of the network.

    Returns
    -------
    str

    Raises
    ------
    MissingError
        If there is none of that name.

    Examples
    --------
    >>> from kerasgal.networks import card
    >>> print(card("NAME"))                            # doctest: +SKIP
    """
    return (folder_of(known(name)) / CARD).read_text(encoding="utf-8")


def limits_of(folder):
    """What a network's card says that is not to be concluded of it: text with code in backticks.

    folder: of a network with a name.
    """
    return (Path(folder) / CARD).read_text(encoding="utf-8").rpartition(LIMITS)[2].strip()


def known(name):
    """The name itself, if there is such a network; raises MissingError."""
    names = list(registry())
    if name not in names:
        raise MissingError(f"no network called {name}; there are: {', '.join(names) or 'none'}", value=name,
                           accepted=names)
    return name


def folder_of(run):
    """The run folder of a path or a name; a path that exists goes before a name.

    Parameters
    ----------
    run : str or Path
        A run folder, or the name of a network.

    Returns
    -------
    Path

    Raises
    ------
    MissingError
        If there is neither.
    SettingError
        For what is no path.
    DamagedError
        If a file of the network is not what was published.

    Examples
    --------
    >>> from kerasgal.networks import folder_of
    >>> folder_of("a/run").name                        # doctest: +SKIP
    'run'
    """
    if not isinstance(run, str | os.PathLike):
        raise SettingError(f"expected a run folder, or the name of a network, received {run!r}", value=run)
    path = Path(run)
    if path.exists():
        return path
    entry = registry().get(str(run))
    if entry is None:
        names = ", ".join(registry())
        raise MissingError(f"no such run folder: {run}" + (f"; networks that have a name: {names}" if names else ""))
    folder = fetched(str(run), entry) if entry.get("url") else SHIPPED / str(run)
    for name, digest in entry["files"].items():
        file = folder / name
        if not file.is_file() or sha256(file) != digest:
            raise DamagedError(f"{file} is not the file of the network {run} that was published: install kerasgal anew"
                               + (", or remove the folder" if entry.get("url") else ""))
    return folder


def is_name(run):
    """Whether a network is meant, and no folder."""
    return not Path(run).exists() and str(run) in registry()


def is_shipped(folder):
    """Whether a run folder is that of a network with a name, into which nothing is written."""
    folder = Path(folder).resolve()
    return any(folder.is_relative_to(place.resolve()) for place in (SHIPPED, cache()))


def cache():
    """Where networks are kept that are downloaded: KERASGAL_CACHE, or the user's cache."""
    import pooch

    return Path(os.environ.get("KERASGAL_CACHE") or pooch.os_cache("kerasgal"))


def fetched(name, entry):
    """The folder of a network that does not come with the package; downloaded where it is not there yet."""
    import pooch

    try:
        pooch.retrieve(entry["url"], known_hash=f"sha256:{entry['sha256']}", path=cache(), fname=f"{name}.zip",
                       processor=pooch.Unzip(extract_dir=name))
    except ValueError as error:
        raise DamagedError(f"{entry['url']} is not the archive of the network {name} that was published") from error
    except OSError as error:  # of requests, too
        raise DataError(f"the network {name} cannot be fetched from {entry['url']}: {error}") from error
    return cache() / name


def sha256(path):
    """The SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pack(run, name, *, summary, figures, card, licence="MIT", place=None, half=True):
    """Put a trained run among the networks that come with the package.

    Parameters
    ----------
    run : str or Path
        Run folder.
    name : str
        To be loaded by.
    summary : str
        One line: cells, cosmology, what it was trained on.
    figures : dict
        {what: text} that was measured on data it never saw.
    card : str
        Markdown: what it is, how it was measured, with which commands, and what not to conclude.
    licence : str
        SPDX name.
    place : str or Path, optional
        Folder of the registry; that of the package without one.
    half : bool
        Keep weights in half precision.

    Returns
    -------
    Path
        Its folder.

    Examples
    --------
    >>> from kerasgal.networks import pack
    >>> pack("run", "protohalo-demo", summary="64^3 cells of 0.78 Mpc/h", figures={"loss": "0.57"},
    ...      card="# protohalo-demo")                  # doctest: +SKIP
    """
    run, place = Path(run), Path(place or SHIPPED)
    app = run_folder.app_of(run)
    cls = apps.run_class(app)
    for phase in cls.phases:
        cls.check_phase(run, phase)
    folder = place / name
    # What was made from the run lies in other folders.
    places = {run, *(run / part for part in (*cls.phases, *cls.parts) if (run / part).is_dir())}
    with replacing(folder) as temporary:
        for path in sorted(path for place in places for path in place.iterdir()):
            if path.is_file() and path.name not in LEFT_OUT:
                target = temporary / path.relative_to(run)
                target.parent.mkdir(parents=True, exist_ok=True)
                if half and path.name == run_folder.BEST:
                    _halve(path, target)
                elif path.name == run_folder.PROVENANCE:
                    run_folder.write_json(_without_paths(run_folder.read_json(path)), target)
                elif path.name == run_folder.CONFIG:
                    run_folder.write_json(_without_folders(run_folder.read_json(path)), target)
                else:
                    shutil.copyfile(path, target)
        (temporary / CARD).write_text(card, encoding="utf-8")
    entries = run_folder.read_json(place / REGISTRY)
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    entries[name] = {"app": app, "summary": summary, "figures": figures, "licence": licence,
                     "bytes": sum(path.stat().st_size for path in files.values()),
                     "files": {key: sha256(path) for key, path in files.items()}}
    run_folder.write_json(dict(sorted(entries.items())), place / REGISTRY)
    return folder


def _without_paths(provenance):
    """Provenance as it is published: data by what their files say of themselves, and a command with bare names."""
    def told(paths):
        return [run_folder.told_of(path) or Path(path).name for path in paths]

    data = {kind: told(paths) if isinstance(paths, list) else paths
            for kind, paths in provenance.get("data", {}).items()}
    sessions = [{**session, "command": " ".join(Path(word).name for word in session.get("command", "").split())}
                for session in provenance.get("sessions", ())]
    before = {run_folder.FROM: Path(provenance[run_folder.FROM]).name,
              run_folder.BEFORE: told(provenance.get(run_folder.BEFORE, ()))} if run_folder.FROM in provenance else {}
    return {**provenance, **before, "data": data, "sessions": sessions}


def _without_folders(stored):
    """A stored config as it is published: a run that it names, of which the folder has a copy, by its bare name."""
    return {**stored, "config": {name: Path(value).name if isinstance(value, str) and Path(value).is_absolute()
                                 else value for name, value in stored["config"].items()}}


def _halve(path, target):
    """Copy a file of weights with its numbers in half precision."""
    import h5py
    import numpy as np

    with h5py.File(path) as source, h5py.File(target, "w") as file:
        file.attrs.update(source.attrs)

        def copy(name, item):
            if isinstance(item, h5py.Dataset):
                values = item[...]
                small = values.dtype == np.float32 and np.abs(values).max(initial=0) < np.finfo(np.float16).max
                made = file.create_dataset(name, data=values.astype(np.float16) if small else values)
            else:
                made = file.require_group(name)
            made.attrs.update(item.attrs)

        source.visititems(copy)
