"""Many conversions: a table with a row for each simulation, several at a time, and only those that are not done."""

import csv
import logging
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import fields
from pathlib import Path

from kerasgal.cluster import outcomes
from kerasgal.errors import DataError, SettingError
from kerasgal.files import check_file
from kerasgal.readers import request

FIELDS = {item.name: item.type for kind in (request.Sources, request.Choices, request.Unsaid) for item in fields(kind)}
# Names of columns as the command spells its options.
SPELLED = {"omega_matter": "Om0", "omega_baryon": "Ob0", "hubble": "h", "tilt": "ns"}
OUTPUT = ("output", "name")


def read(path, common=None):
    """The rows of a table of simulations in CSV: a list of (name of the output, arguments of `convert.convert`).

    Columns are such arguments, as Python or the command spells them, and `output` (or `name`), which is the name of the
    file; without it files are called after the row. What a row leaves empty is as in `common`, arguments for all.
    Raises DataError for a column that is none, a value that is none, or a name that is there twice.
    """
    path = Path(path)
    check_file(path)
    try:
        with path.open(newline="", encoding="utf-8") as file:
            table = list(csv.reader(line for line in file if not line.startswith("#")))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is no table in CSV: {type(error).__name__}") from error
    table = [[word.strip() for word in row] for row in table if any(word.strip() for word in row)]
    if len(table) < 2:
        raise DataError(f"{path} has no rows; accepted is a line of names, then a row for each simulation")
    names = [SPELLED.get(name.lstrip("-").replace("-", "_"), name.lstrip("-").replace("-", "_")) for name in table[0]]
    wrong = [name for name in names if name not in FIELDS and name not in OUTPUT]
    if wrong or len(set(names)) < len(names):
        fault = f"the column {wrong[0]!r}" if wrong else "a column twice"
        raise DataError(f"{path} has {fault}; accepted are output, {', '.join(FIELDS)}, each once")
    made, taken = [], set()
    for number, row in enumerate(table[1:]):
        if len(row) != len(names):
            raise DataError(f"{path} has {len(row)} columns in row {number}; accepted are {len(names)}")
        said = {name: word for name, word in zip(names, row) if word}
        output = next((said.pop(name) for name in OUTPUT if name in said), f"{path.stem}_{number}")
        output = output if output.endswith((".h5", ".hdf5")) else f"{output}.h5"
        if Path(output).is_absolute() or ".." in Path(output).parts:
            raise DataError(f"{path}: the output {output} of row {number} leads out of the folder")
        if output in taken:
            raise DataError(f"{path} has the output {output} twice")
        taken.add(output)
        made.append((output, {**(common or {}), **{name: _value(path, number, name, word) for name, word in
                                                   said.items() if name not in OUTPUT}}))
    return made


def _value(path, number, name, word):
    """A word of a table as its argument's type."""
    kind = {int | None: int, float | None: float}.get(FIELDS[name], str)
    try:
        return kind(word)
    except ValueError:
        raise DataError(f"{path}: {name} is {word} in row {number}; accepted is a number") from None


def run(rows, folder, *, jobs=1, overwrite=False, client=None):
    """Convert every row of `read` into `folder`; yields (output, outcome, words) as each is done.

    outcome: "done", "skipped" for one that exists and is sound, or "failed"; words: what was made, or why not, and what
    was warned of. jobs: how many at a time, each in a process of its own; or client: of Dask, whose workers do them,
    see `kerasgal.cluster.connect`. Raises SettingError for jobs below 1.
    """
    if jobs < 1:
        raise SettingError(f"jobs={jobs}: accepted are whole numbers of at least 1", value=jobs, accepted=(1, None))
    tasks = [(str(Path(folder) / output), arguments, overwrite) for output, arguments in rows]
    if client is not None:
        for (output, *_), (done, error) in zip(tasks, outcomes(_one, tasks, client)):
            yield done or (output, "failed", str(error))
        return
    if jobs == 1:
        yield from map(_one, tasks)
        return
    import multiprocessing

    # Not forked: HDF5 and threads of the libraries do not survive that
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        outputs = {pool.submit(_one, task): task[0] for task in tasks}
        for future in as_completed(outputs):
            try:
                yield future.result()
            except BrokenProcessPool:  # which all get that were not done
                why = "a process was ended from outside, which is mostly for want of memory: try fewer jobs"
                yield outputs[future], "failed", why


def _one(task):
    """Do one row; see `run`."""
    from kerasgal.readers import convert
    from kerasgal.simulation import Simulation

    output, arguments, overwrite = task
    heard = []

    class Listening(logging.Handler):
        def emit(self, record):
            heard.append(record.getMessage())

    log, listening = logging.getLogger("kerasgal.readers"), Listening(logging.WARNING)
    log.addHandler(listening)
    before, log.propagate = log.propagate, False
    try:
        if Path(output).exists() and not overwrite:
            with Simulation(output, require=()) as simulation:
                simulation.validate()
            return output, "skipped", "exists and is sound"
        made = convert.write(output, overwrite=overwrite, **arguments)
        what = "particles" if arguments.get("initial") and not arguments.get("grid") else "cells"
        words = [f"{made['gridsize']}^3 {what} in {made['boxsize']:g} Mpc/h; {made['lattice']}"]
        return output, "done", "; ".join([*words, *(f"warning: {line}" for line in heard)])
    except (DataError, OSError, MemoryError) as error:
        return output, "failed", str(error) or type(error).__name__
    finally:
        log.removeHandler(listening)
        log.propagate = before
