"""What a file of another make is, before it is used; and what a conversion would need, before it is done."""

import math
import shlex
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np

from kerasgal.errors import DataError
from kerasgal.files import check_file, datasets
from kerasgal.readers import base, convert, cubes, facts, parameters, request

INITIAL = 10  # redshift from which a snapshot is taken for initial conditions
BYTES_PER_PARTICLE = 44  # of a Simulation file: ten numbers and a halo of four bytes each
FLAGS = {"boxsize": "--boxsize", "redshift": "--redshift", "Om0": "--omega-matter", "h": "--hubble",
         "length_unit": "--length-unit"}


def describe(path):
    """What a file of another make is.

    Parameters
    ----------
    path : str or Path
        A snapshot, a catalogue of haloes or galaxies, a table of members or of parameters, or a field; of several files
        any, or their name without the number.

    Returns
    -------
    dict
        `path`, `format` and `kind` ("snapshot", "catalogue", "table of members", "table of parameters", "field",
        "arrays", "table" or "not read") in words; `convert`, the line of the command that uses it, None where it
        cannot be; and of what is known `files`, `particles` {type in words: number}, `boxsize` [Mpc/h, or in the
        file's own unit, as `length_unit` says], `redshift`, `cosmology` {name: value}, `haloes`, `galaxies`, `rows`,
        `columns`, `shape`, and `missing`, the arguments of `convert` that say what the file does not.

    Raises
    ------
    DataError
        If the file is missing, damaged, or of no format that is known.

    Examples
    --------
    >>> import numpy as np
    >>> from kerasgal.readers import describe
    >>> np.save("delta.npy", np.zeros((8, 8, 8)))
    >>> describe("delta.npy")["kind"]
    'field'
    """
    format, found = base.recognise(path)
    about = {"path": str(found), "format": "", "kind": "", "convert": None}
    if format is not None and format.instead:
        return about | {"format": format.name, "kind": "not read", "instead": format.instead}
    if format is not None and format.snapshot:
        return about | _snapshot(found)
    if format is not None and (format.groups or format.galaxies) and format.size(found) is not None:
        return about | _catalogue(found, format)
    # A table of two columns may be one of members or of parameters: names of parameters say which.
    table = _table(found)
    if table is not None and (format is None or any(map(parameters.our_name, table["columns"]))):
        return about | table
    if format is not None:
        members = format.groups(found)
        return about | {"format": format.name, "kind": "table of members", "rows": len(members.ids),
                        "haloes": len(np.unique(members.halos[members.halos >= 0])),
                        "convert": _line(found, "--initial", "INITIAL", "--final", "SNAPSHOT", "--groups", found)}
    try:
        made, error = _arrays(found), None
    except DataError as reason:
        made, error = None, reason
    if made is None or made["kind"] == "arrays":
        format, _ = base.recognise(path, last=True)
        if format is not None:
            return about | _snapshot(found)
    if error is not None:
        raise error
    return about | made


def rows(described):
    """What `describe` returns as pairs of a name and a text, for a table."""
    made = []
    for name, value in described.items():
        if value is None or name == "path" or (isinstance(value, list | dict) and not value):
            continue
        if isinstance(value, dict):
            made += [(f"{name} {key}", f"{item:,}" if isinstance(item, int) else f"{item:.6g}")
                     for key, item in value.items()]
        elif isinstance(value, list | tuple):
            made.append((name, ", ".join(map(str, value))))
        else:
            made.append((name, f"{value:.6g}" if isinstance(value, float) else str(value)))
    return made


def _line(path, *words):
    """A line of the command with the words given; the output is named after the file."""
    name = Path(path).name.split(".")[0] or "run"
    return shlex.join(["kerasgal", "convert", f"{name}.h5", *map(str, words)])


def _header(item):
    """What the header of anything says, and what it does not: arguments of `convert`."""
    said = {"files": len(item.paths), "redshift": item.redshift, "cosmology": dict(item.cosmology)}
    in_mpc = facts.IN_MPC.get(item.length_unit)
    if item.boxsize is not None and not item.in_boxes:
        said["boxsize"] = item.boxsize * (in_mpc or 1.0)
        said["length_unit"] = "Mpc/h" if in_mpc else "unknown: kpc/h or Mpc/h"
    missing = [name for name in ("boxsize", "redshift") if getattr(item, name) is None]
    if item.length_unit is None:
        missing.append("length_unit")
    return said, missing


def _snapshot(path):
    snapshot = base.open_snapshot(path, None)
    said, missing = _header(snapshot)
    known = facts.cosmology_of(snapshot)
    said["cosmology"] = dict(known)
    missing += [name for name in ("Om0", "h") if name not in known]
    counts = {f"{base.TYPE_NAMES[kind]} (type {kind})": int(snapshot.counts[:, kind].sum())
              for kind in snapshot.present}
    try:
        dark = base.open_snapshot(path).particles
    except DataError:
        dark = 0
    initial = snapshot.redshift is not None and snapshot.redshift >= INITIAL
    cells = max(2, round((dark or snapshot.particles) ** (1 / 3)))
    words = ["--initial" if initial else "--final", path, "--grid", cells]
    if not dark:
        words += ["--particles", "all"]
    if snapshot.in_boxes:  # of which an item that counts so cannot say the side
        missing.insert(0, "boxsize")
    for name in missing:
        words += [FLAGS[name], "kpc|Mpc" if name == "length_unit" else "NUMBER"]
    return {"format": snapshot.format, "kind": "snapshot", "particles": counts, **said,
            "masses": "in the header" if all(snapshot.masses[kind] > 0 for kind in snapshot.present) else
            "of each particle" if all(snapshot.massive(kind) for kind in snapshot.present) else "not of all types",
            "missing": missing, "convert": _line(path, *words).replace("'", "")}


def _catalogue(path, format):
    made = {"format": format.name, "kind": "catalogue"}
    words = ["--final", "SNAPSHOT", "--grid", "NUMBER"]
    for role, name, flag in (("groups", "haloes", "--groups"), ("galaxies", "galaxies", "--galaxies")):
        if not getattr(format, role):
            continue
        try:
            # HOP's masses need an h, of which their number does not depend
            item = format.groups(path, 1.0) if role == "groups" else format.galaxies(path)
        except DataError as error:
            made.setdefault("notes", []).append(str(error))
            continue
        said, missing = _header(item)
        made |= said | {"missing": missing}
        made[name] = len(item.position)
        if made[name] or role == "groups":
            words += [flag, path]
    return made | {"convert": _line(path, *words)}


def _table(path):
    """A table of parameters, None for anything else."""
    if path.is_dir():
        return None
    with open(path, "rb") as file:
        if b"\0" in file.read(4096):
            return None
    try:
        names, table = parameters.read_table(path)
    except DataError:
        return None
    used = {name: ours for name in names if (ours := parameters.our_name(name))}
    if not used:
        return None
    return {"format": "text", "kind": "table of parameters", "rows": len(table), "columns": list(names),
            "used": [f"{name} as {ours}" for name, ours in used.items()],
            "convert": _line(path, "--final", "SNAPSHOT", "--grid", "NUMBER", "--parameter-table", path, "--index",
                             "ROW")}


def _any_table(path):
    """A table in text with named columns, such as those that kerasgal writes or makes galaxies from, or None."""
    from astropy.table import Table

    kinds = {".csv": ("CSV", {"format": "ascii.csv", "comment": "#"}), ".ecsv": ("ECSV", {"format": "ascii.ecsv"})}
    if path.suffix not in kinds:
        return None
    name, options = kinds[path.suffix]
    try:
        with warnings.catch_warnings():  # units that astropy does not know by name stay text
            warnings.simplefilter("ignore")
            table = Table.read(path, **options)
    except Exception:  # what a reader of anybody's text raises
        return None
    columns = [f"{column.name} [{column.unit}]" if column.unit else column.name for column in table.itercols()]
    said = {key: value for key, value in table.meta.items() if isinstance(value, str | int | float)}
    return {"format": name, "kind": "table", "rows": len(table), "columns": columns, **said} if columns else None


def _arrays(path):
    """A density field or several, or any other HDF5 or NumPy file; raises DataError for anything else."""
    if path.is_dir():
        check_file(path)
    with open(path, "rb") as file:
        start = file.read(8)
    if start[:6] == b"\x93NUMPY":
        shapes, format = {"": cubes.memory_map(path).shape}, "NumPy"
    elif start == b"\x89HDF\r\n\x1a\n":
        with base.opened(path) as file:
            shapes, format = {name: item.shape for name, item in datasets(file).items()}, "HDF5"
    elif (table := _any_table(path)) is not None:
        return table
    else:
        raise DataError(f"{path} is of no format that is known; read are {base.accepted('snapshot')}; "
                        f"{base.accepted('groups')}; fields in .npy, HDF5 and FITS; tables of parameters")
    made = {"format": format, "datasets": [f"{name} {shape}".strip() for name, shape in shapes.items()]}
    cubic = {name: shape for name, shape in shapes.items() if len(shape) in (3, 4) and len(set(shape[-3:])) == 1}
    if not cubic:
        return made | {"kind": "arrays"}
    name, shape = next(iter(cubic.items()))
    several = ["--index", "NUMBER"] if len(shape) == 4 else []
    unsaid = [word for flag in list(FLAGS.values())[:4] for word in (flag, "NUMBER")]
    line = _line(path, "--density", f"{path}:{name}" if name else path, "--quantity", "rho|1+delta|delta", *several,
                 *unsaid)
    return made | {"kind": "field", "shape": shape, "density_of": cubes.what_of(path), "missing": list(FLAGS)[:4],
                   "convert": line.replace("'", "")}


# Before a conversion ------------------------------------------------------------------------


def plan(output=None, *, overwrite=False, **arguments):
    """What a conversion would take, without doing it; the arguments are those of `convert.convert`.

    Returns a dictionary: problems, all that stands in its way, a list of words; particles or cells that would be read;
    gridsize; memory and size of the file, in bytes; seconds, at most, on one core of an ordinary machine. The last ones
    are None where the files could not be opened.
    """
    sources, choices, unsaid = request.split(arguments)
    problems = []

    def tried(function, *given):
        try:
            return function(*given)
        except DataError as error:
            if str(error) not in problems:
                problems.append(str(error))
            return None

    tried(request.check, sources, choices, unsaid)
    if output is not None:
        tried(convert.check_output, output, sources, overwrite)
    given = {name: value for name, value in vars(unsaid).items() if name != "length_unit"}
    tried(facts.given_parameters, sources.parameter_table, choices.index, sources.density, given)
    lagrangian = sources.initial is not None and not choices.grid
    start = sources.initial and tried(base.open_snapshot, sources.initial,
                                      choices.particles if choices.grid else "dark")
    end = sources.final and tried(base.open_snapshot, sources.final, "dark" if sources.initial else choices.particles)
    groups = sources.groups and tried(base.read_groups, sources.groups, given["h"])
    galaxies = sources.galaxies and tried(base.read_galaxies, sources.galaxies)
    for source in (sources.density, sources.counts):
        if source is not None:
            tried(cubes.read_cube, source, choices.index)
    headed = [item for item in (start, end, groups, galaxies) if isinstance(item, base.Stated)]
    source = start or end or sources.density
    if source is not None:
        tried(facts.gathered, source, headed, start, dict(given), unsaid.length_unit)
    for item in headed:
        asked = any("length_unit" in problem for problem in problems)
        if item.length_unit is None and unsaid.length_unit is None and not asked:
            tried(facts.units, [item, *(other for other in headed if other is not item)], unsaid.length_unit, None, [])
    if not problems:
        tried(convert.opened, sources, choices, unsaid)
    read = sum(item.particles for item in (start, end) if item is not None)
    gridsize = choices.grid or (round(start.particles ** (1 / 3)) if start is not None else None)
    made = {"problems": problems, "particles": read, "gridsize": gridsize,
            **dict.fromkeys(("memory", "seconds", "size"))}
    if gridsize and read:
        readable = replace(sources, groups=groups and sources.groups, galaxies=galaxies and sources.galaxies)
        made["memory"] = tried(convert.memory_needed, readable, choices)
        made["seconds"] = read / convert.RATE
        made["size"] = (BYTES_PER_PARTICLE if lagrangian else 4) * gridsize**3
    return made


def plan_lines(planned):
    """What `plan` returns in words, a line each."""
    if planned["memory"] is not None:
        yield (f"{planned['particles']:,} particles; about {planned['memory'] / 1e9:.2g} GB of memory, "
               f"{_time(planned['seconds'])} or less, a file of {planned['size'] / 1e6:.3g} MB")
    yield from (f"missing or wrong: {problem}" for problem in planned["problems"])


def _time(seconds):
    if seconds < 120:
        return f"{math.ceil(seconds)} s"
    return f"{seconds / 60:.3g} min" if seconds < 7200 else f"{seconds / 3600:.3g} h"
