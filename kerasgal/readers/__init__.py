"""Readers of other people's files. A format is one module; see `base`."""


def describe(path):
    """What a file of another make is; see `kerasgal.readers.description.describe`."""
    from kerasgal.readers import description

    return description.describe(path)


def rows(described):
    """What `describe` returns as pairs of a name and a text, for a table."""
    from kerasgal.readers import description

    return description.rows(described)
