"""The command `kerasgal convert`."""

from kerasgal.readers.cli import convert  # noqa: F401
