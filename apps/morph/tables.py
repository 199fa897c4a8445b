"""Scores of any number of images on disk: written as they come, so that an interrupted table can be gone on with."""

import contextlib
import csv
import hashlib
import itertools
import json

import numpy as np

from kerasgal.apps.morph.config import APP
from kerasgal.apps.morph.score import COLUMNS, NUMBERS, score_on
from kerasgal.readers.images import PLACE
from kerasgal.errors import DataError, SettingError
from kerasgal.files import replacing
from kerasgal.plotting import counted
from kerasgal.tables import quantities, write_table

UNITS = {"ra": "deg", "dec": "deg"}


def write(run, images, path, *, maps=None, resume=False, overwrite=False, client=None, read_with=None, **header):
    """Score a stream of images into the table `path`; returns the numbers of images and of those that failed.

    Rows are appended to a CSV file beside it, which becomes the table when all are done; with `resume` what stands
    there is not scored again. maps: path of an HDF5 file for prepared images and maps. client: of Dask, whose workers
    score. read_with: how the images were read, a dictionary. header: what the table's says beside the app and the run.
    Raises DataError where what stands there is of another run, or of images read in another way.
    """
    if resume and maps:
        raise SettingError("`resume` goes on with a table, `maps` are written from the beginning: give one of them")
    progress, done = path.with_name(f".{path.name}.partial"), set()
    made_by = "# " + json.dumps({"networks": fingerprint(run), **(read_with or {})}, default=str)
    if resume and progress.exists():
        done = {row["id"] for row in read(whole_lines(progress))}
        with open(progress, encoding="utf-8") as file:
            if file.readline().rstrip("\n") != made_by:
                raise DataError(f"{progress} was begun by other networks, or with other options for reading images: "
                                "without resume=True it begins anew")
    images = (image for image in images if image.id not in done)
    scored = score_on(client, run, images, maps=bool(maps), begun=bool(done))
    begun = list(itertools.islice(scored, 1))  # raises an error before there is a file
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with (progress.open("a" if done else "w", newline="") as file,
              map_file(maps, run.config, overwrite) if maps else contextlib.nullcontext() as append,
              counted("scored") as add):
            names = _names(progress) if done else COLUMNS
            table = csv.DictWriter(file, names, extrasaction="ignore")
            if not done:
                file.write(f"{made_by}\n")
                table.writeheader()
            for rows, batch in itertools.chain(begun, scored):
                table.writerows(rows)
                file.flush()
                add(len(rows))
                if append and batch:
                    append(*batch)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"{path}: stopped; go on with resume=True") from None
    folder = {} if run.folder is None else {"run": str(run.folder)}
    number, failed = convert(progress, path, overwrite, {"app": APP, **folder, **header})
    progress.unlink()
    return number, failed


def fingerprint(run):
    """What tells the networks of a run from all others: the SHA-256 of their weights."""
    digest = hashlib.sha256()
    for network in (run.real, run.archetype):
        for values in network.get_weights():
            digest.update(np.ascontiguousarray(values))
    return digest.hexdigest()


def whole_lines(path):
    """Take a last line that was cut off away from a file of text; returns its path."""
    text = path.read_bytes()
    if not text.endswith(b"\n"):
        path.write_bytes(text[:text.rfind(b"\n") + 1])
    return path


def without_comments(file):
    """The lines of a table in CSV behind those that begin with #."""
    return itertools.dropwhile(lambda line: line.startswith("#"), file)


def _names(path):
    """Names of the columns of a table in CSV."""
    with open(path, newline="") as file:
        return next(csv.reader(without_comments(file)))


def read(path):
    """Rows of a table of scores in CSV, as dictionaries of text; a line that was cut off is left out.

    ra, dec and object need not be in it. Raises DataError if it has other columns than such tables have.
    """
    with open(path, newline="") as file:
        table = csv.DictReader(without_comments(file), restval=None)
        missing = set(COLUMNS) - set(table.fieldnames or COLUMNS)
        if not missing <= set(PLACE) or set(table.fieldnames or ()) - set(COLUMNS):
            raise DataError(f"{path} has the columns {', '.join(table.fieldnames)}; a table of scores has "
                            f"{', '.join(COLUMNS)}; without resume=True it begins anew")
        yield from (dict.fromkeys(missing, "") | row for row in table if None not in row.values())


def convert(progress, path, overwrite, header=None):
    """Turn the rows in the CSV file `progress` into the table `path`, by its suffix; returns how many, and failures."""
    rows = list(read(progress))
    columns = columns_of(rows)
    if path.suffix == ".csv":  # what is not known is an empty cell
        columns = {name: np.ma.masked_invalid(values) if values.dtype.kind == "f" else values
                   for name, values in columns.items()}
    write_table(path, quantities(columns, UNITS, header or {"app": APP}), overwrite=overwrite)
    return len(rows), sum(bool(row["error"]) for row in rows)


def columns_of(rows):
    """The columns of rows of `score`, or of their texts: arrays, NaN for numbers that there are not.

    ra, dec and object are left out where no image has them.
    """
    columns = {}
    for name in COLUMNS:
        values = [row[name] for row in rows]
        if name in PLACE and not any(value != "" for value in values):
            continue
        if name == "flag":
            columns[name] = np.array([int(value or 0) for value in values], int)
        elif name in (*NUMBERS, "ra", "dec"):
            columns[name] = np.array([np.nan if value == "" else float(value) for value in values], float)
        else:
            columns[name] = np.array(values, str)
    return columns


@contextlib.contextmanager
def map_file(path, config, overwrite):
    """Yield a function that appends a batch of `score` to an HDF5 file: id, image, log_p_real, log_p_archetype.

    Of several bands image is (n, y, x, band), and the attribute bands names them.
    """
    import h5py

    names = ("image", "log_p_real", "log_p_archetype")
    with replacing(path, overwrite) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["app"] = APP
        file.create_dataset("id", (0,), h5py.string_dtype(), maxshape=(None,))
        if config.channels > 1:
            file.attrs["bands"] = config.bands
        for name in names:
            sides = (config.size, config.size, *([config.channels] if name == "image" and config.channels > 1 else []))
            file.create_dataset(name, (0, *sides), "f4", maxshape=(None, *sides), chunks=(16, *sides))

        def append(ids, images, maps):
            for name, values in zip(("id", *names), (ids, images, *maps)):
                dataset = file[name]
                dataset.resize(len(dataset) + len(values), axis=0)
                dataset[-len(values):] = values

        yield append
