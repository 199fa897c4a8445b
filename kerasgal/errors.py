"""Errors that a user's data or settings are to blame for, not our code.

They are worded for Python: an argument is written as it is given, ``patch=7``. The command line writes the same
words with its flags, ``--patch 7``, prints them as one line, and exits with code 1, or 2 for a `SettingError`.
"""


class DataError(ValueError):
    """Input that cannot be used: what was wrong, what was received and what is accepted, in one line.

    Parameters
    ----------
    message : str
        The whole line.
    value : object, optional
        What was received.
    accepted : object, optional
        What would have been accepted: a list of choices, or a range (least, greatest).

    Examples
    --------
    >>> import kerasgal as kg
    >>> try:
    ...     kg.simulate(particles=4)
    ... except kg.DataError as error:
    ...     print(error, error.value, error.accepted)
    particles=4: it must be a whole number of at least 8 4 (8, None)
    """

    def __init__(self, message, *, value=None, accepted=None):  # noqa: B042 (they are kept in __dict__)
        super().__init__(message)
        self.value, self.accepted = value, accepted


class MissingError(DataError):
    """A file, a dataset in it, or an optional package is not there."""


class ExistsError(DataError):
    """Something stands where an output is to be written."""


class DamagedError(DataError):
    """A file is cut short, or is not what its name says."""


class SettingError(DataError):
    """A setting of a config, or an argument of a function, is none that is accepted."""


class RunError(DataError):
    """A run folder is none, is another app's, lacks something, or may not be written into."""


class DomainError(DataError):
    """A simulation or an image is not like what a run was trained on."""


class UnseenError(DataError):
    """A run is to be judged on data that it was trained on."""


def first_line(error):
    """The first line of what another library says of an error."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def out_of_memory(error):
    """Whether an exception of any Keras backend says that memory ran out."""
    return isinstance(error, MemoryError) or "ResourceExhausted" in type(error).__name__ \
        or "RESOURCE_EXHAUSTED" in str(error)
