"""Work that falls into independent pieces, in this process or on many: Dask hands the pieces out.

A piece is a call of one function with one argument. Nothing here says what the pieces are: the commands and the apps
do, and give `outcomes` or `each` a client of Dask, or None for this process.
"""

import collections
import contextlib
import functools
import itertools
import logging
import os
import uuid
import warnings

from kerasgal.errors import DataError, MissingError, SettingError, first_line

LOOK = 2.0  # seconds after which it is looked whether workers are gone
AHEAD = 3  # pieces for each worker that are handed out before they are needed

log = logging.getLogger(__name__)


@contextlib.contextmanager
def connect(where):
    """A client of Dask for a `with` block, or None, which is this process.

    Parameters
    ----------
    where : str or None
        "local": a process for each core of this machine. Else the address of a scheduler, e.g. "tcp://node1:8786", or
        a file that it wrote, `scheduler.json`. Its workers must find the same files under the same paths.

    Raises
    ------
    MissingError
        If Dask is not installed, or no scheduler answers.

    Examples
    --------
    >>> from kerasgal.cluster import connect, each
    >>> with connect(None) as client:
    ...     list(each(abs, [-1, 2], client))
    [1, 2]
    """
    if where is None:
        yield None
        return
    try:
        from dask import config
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise MissingError(f"dask={where} needs the package dask: pip install 'kerasgal[dask]'") from error
    with contextlib.ExitStack() as stack:
        if where == "local":
            # A piece that kills its workers again and again is given up early, by whichever process runs it.
            stack.enter_context(config.set({"distributed.scheduler.allowed-failures": 1}))
            where = stack.enter_context(LocalCluster(n_workers=os.cpu_count(), threads_per_worker=1,
                                                     dashboard_address="127.0.0.1:0", silence_logs=logging.CRITICAL))
            client = stack.enter_context(Client(where))
        else:
            given = {"scheduler_file": where} if str(where).endswith(".json") else {"address": where}
            try:
                client = stack.enter_context(Client(**given, timeout=10))
            except (OSError, ValueError, TypeError) as error:
                raise MissingError(f"dask={where}: no scheduler answers ({first_line(error)}); accepted are local and "
                                   "the address of one, e.g. tcp://node1:8786", value=where) from error
            if not client.ncores():
                log.warning(f"the scheduler at {where} has no workers yet: waiting for them")
        yield client


def outcomes(function, items, client=None):
    """Call a function for each item; yields (result, error) in the order of the items.

    error is the DataError that the call raised, or None. Other errors are raised here. What a worker logs is logged
    here when its result comes. A worker that dies is said, and its piece is done again by another; a piece that kills
    several has a DataError.

    Parameters
    ----------
    function : callable
        Of one argument; for a client, of a module that workers can import, with a result that can be pickled.
    items : iterable
        What to call it with; taken as they are needed.
    client : distributed.Client, optional
        From `connect`, or your own. Without one, items are taken and done one by one in this process.

    Yields
    ------
    tuple

    Examples
    --------
    >>> from kerasgal.cluster import outcomes
    >>> list(outcomes(len, ["one", "three"]))
    [(3, None), (5, None)]
    """
    if client is None:
        for item in items:
            try:
                result = function(item), None
            except DataError as error:
                result = None, error
            yield result
        return
    from distributed import KilledWorker
    from distributed.client import FutureCancelledError
    from distributed.comm import CommClosedError

    def submit(item):
        with warnings.catch_warnings(action="ignore"):  # of items beyond 10 MB
            return client.submit(_listened, function, item, pure=False)

    items, waiting, known, place = iter(items), collections.deque(), client.ncores(), 0
    future = None
    try:
        while True:
            # Items may be large, and many: never more on their way than keep the workers busy
            for item in itertools.islice(items, max(0, max(AHEAD * len(known), AHEAD) - len(waiting))):
                waiting.append((item, submit(item)))
            if not waiting:
                return
            place += 1
            item, future = waiting.popleft()
            result, error, heard = None, None, ()
            for again in (True, False):
                try:
                    known = _wait(client, future, known)
                    result, error, heard = future.result()
                    break
                except KilledWorker:
                    # Dask blames all that a dead worker was given, so one that killed nobody gets a second chance.
                    if again:
                        future = submit(item)
                        continue
                    error = DataError(f"piece {place} of the work was given up: the workers that it was given to "
                                      "died, which is mostly for want of memory")
                except (FutureCancelledError, CommClosedError) as lost:
                    raise DataError(f"the scheduler of Dask is gone: {first_line(lost)}") from lost
            item = future = None  # lets the workers forget the result
            for level, words in heard:
                log.log(level, words)
            if error is not None and not isinstance(error, DataError):
                raise error
            yield result, error
    finally:
        client.cancel([future for future in (future, *(later for _, later in waiting)) if future is not None])


def each(function, items, client=None):
    """Call a function for each item; yields the results in the order of the items.

    As `outcomes`, but the first error is raised.

    Parameters
    ----------
    function, items, client
        See `outcomes`.

    Yields
    ------
    object

    Raises
    ------
    DataError
        The first one that a call raised, or if a piece killed its workers.

    Examples
    --------
    >>> from kerasgal.cluster import each
    >>> list(each(len, ["one", "three"]))
    [3, 5]
    """
    for result, error in outcomes(function, items, client):
        if error is not None:
            raise error
        yield result


def _wait(client, future, known):
    """Wait for a future, and say it when workers are gone meanwhile; returns the workers that are known now."""
    from distributed import wait

    while True:
        with contextlib.suppress(TimeoutError):
            wait(future, timeout=LOOK)
        now = client.ncores()
        gone = known.keys() - now.keys()
        if gone:
            log.warning(f"{len(gone)} of {len(known)} workers died; what they did is done again")
        known = now
        if future.status != "pending":
            return known


def _listened(function, item):
    """On a worker: the function's result, its error, and what it logged, a list of (level, words)."""
    heard = []

    class Listening(logging.Handler):
        def emit(self, record):
            heard.append((record.levelno, record.getMessage()))

    ours, listening = logging.getLogger("kerasgal"), Listening()
    before = ours.level, ours.propagate
    ours.addHandler(listening)
    ours.setLevel(logging.INFO)
    ours.propagate = False
    try:
        return function(item), None, heard
    except (DataError, OSError, MemoryError) as error:
        return None, error, heard
    finally:
        ours.removeHandler(listening)
        ours.level, ours.propagate = before


def run_of(cls, folder, token):
    """A trained run, loaded once in a process for all pieces of a piece of work; token: of which, see `token`."""
    run, = _runs_of(((cls, folder),), token)
    return run


@functools.lru_cache(maxsize=1)
def _runs_of(places, token):
    """Trained runs of [(class, folder)], loaded once in a process."""
    from kerasgal.quiet import import_tensorflow, keep_memory

    keep_memory()
    import_tensorflow(sparing=True)
    return tuple(cls.load(folder) for cls, folder in places)


class Runs:
    """Trained runs for pieces of work: themselves in this process, and in others what is loaded from their folders.

    Raises SettingError if a client's processes could not load one.
    """

    def __init__(self, runs, client=None):
        if client is not None and any(run.folder is None for run in runs):
            raise SettingError("other processes cannot load a run in the memory of this one: give a run folder, or "
                               "client=None")
        self.runs, self.places, self.token = tuple(runs), tuple((type(run), run.folder) for run in runs), token()

    def __getstate__(self):
        return {"runs": None, "places": self.places, "token": self.token}

    def get(self):
        """The runs, in their order."""
        return self.runs if self.runs is not None else _runs_of(self.places, self.token)


def check_paths(sources, client):
    """Raise SettingError for a source in this process's memory if a client's processes are to read it."""
    if client is not None and not all(isinstance(source, str | os.PathLike) for source in sources):
        raise SettingError("other processes cannot read a simulation in the memory of this one: give paths, or "
                           "client=None")


def token():
    """What tells a piece of work from all others: a worker that lives on loads a run again, which may be another."""
    return uuid.uuid4().hex
