"""Scores of any number of images on disk: written as they come, so that an interrupted table can be gone on with."""

import contextlib
import csv
import itertools

import numpy as np

from kerasgal.apps.morph.config import APP
from kerasgal.apps.morph.score import COLUMNS, NUMBERS, score
from kerasgal.errors import DataError
from kerasgal.files import replacing
from kerasgal.tables import write_table

SUFFIXES = (".csv", ".ecsv", ".fits")


def write(run, images, path, *, maps=None, resume=False, overwrite=False):
    """Score a stream of images into the table `path`; returns the numbers of images and of those that failed.

    Rows are appended to a CSV file beside it, which becomes the table when all are done; with `resume` what stands
    there is not scored again. maps: path of an HDF5 file for prepared images and maps.
    """
    progress = path.with_name(f".{path.name}.partial")
    done = {row["id"] for row in read(progress)} if resume and progress.exists() else set()
    scored = score(run, (image for image in images if image.id not in done))
    begun = list(itertools.islice(scored, 1))  # raises an error before there is a file
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with (progress.open("a" if done else "w", newline="") as file,
              map_file(maps, run.config.size, overwrite) if maps else contextlib.nullcontext() as append):
            table = csv.DictWriter(file, COLUMNS)
            if not done:
                table.writeheader()
            for rows, batch in itertools.chain(begun, scored):
                table.writerows(rows)
                file.flush()
                if append and batch:
                    append(*batch)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"{path}: stopped; go on with resume=True") from None
    number, failed = convert(progress, path, overwrite)
    progress.unlink()
    return number, failed


def read(path):
    """Rows of a table of scores in CSV, as dictionaries of text; a last line that was cut off is left out.

    Raises DataError if it has other columns than such tables have.
    """
    with open(path, newline="") as file:
        table = csv.DictReader(file)
        if table.fieldnames and tuple(table.fieldnames) != COLUMNS:
            raise DataError(f"{path} has the columns {', '.join(table.fieldnames)}; a table of scores has "
                            f"{', '.join(COLUMNS)}; without resume=True it begins anew")
        yield from (row for row in table if None not in row.values())


def convert(progress, path, overwrite):
    """Turn the rows in the CSV file `progress` into the table `path`, by its suffix; returns how many, and failures."""
    rows = list(read(progress))
    if path.suffix == ".csv":
        with replacing(path, overwrite) as temporary, temporary.open("w", newline="") as file:
            table = csv.DictWriter(file, COLUMNS)
            table.writeheader()
            table.writerows(rows)
    else:
        columns = {name: [row[name] for row in rows] for name in COLUMNS}
        for name in NUMBERS:
            columns[name] = np.array([float(value) if value else np.nan for value in columns[name]])
        columns["flag"] = np.array([int(value) for value in columns["flag"]])
        write_table(path, columns, {"app": APP}, overwrite)
    return len(rows), sum(bool(row["error"]) for row in rows)


@contextlib.contextmanager
def map_file(path, size, overwrite):
    """Yield a function that appends a batch of `score` to an HDF5 file: id, image, log_p_real, log_p_archetype."""
    import h5py

    names = ("image", "log_p_real", "log_p_archetype")
    with replacing(path, overwrite) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["app"] = APP
        file.create_dataset("id", (0,), h5py.string_dtype(), maxshape=(None,))
        for name in names:
            file.create_dataset(name, (0, size, size), "f4", maxshape=(None, size, size), chunks=(16, size, size))

        def append(ids, images, maps):
            for name, values in zip(("id", *names), (ids, images, *maps)):
                dataset = file[name]
                dataset.resize(len(dataset) + len(values), axis=0)
                dataset[-len(values):] = values

        yield append
