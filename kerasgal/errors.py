"""The one exception that a user's data, not our code, is to blame for."""


class DataError(Exception):
    """Input that cannot be used. The command line prints it as one line and exits with code 1.

    The message says what was wrong, what was received and what is accepted.
    """
