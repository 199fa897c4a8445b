"""Numbers of galaxies in a cell and the field that is noised in their place."""

import numpy as np


def levels(field, maximum):
    """The field's value for every number of galaxies from 0 to the maximum, (maximum + 1,) float32."""
    return field_of(np.arange(maximum + 1, dtype=np.float32), field)


def field_of(counts, field):
    """The field that is noised, "log" or "count", of numbers of galaxies."""
    return np.log2(1 + counts) if field == "log" else counts


def halfway(values):
    """What lies half way between each of some rising values and the next."""
    return (values[1:] + values[:-1]) / 2


def counts_of(values, field, maximum):
    """The numbers of galaxies whose field is nearest to the given one, float32."""
    return np.searchsorted(halfway(levels(field, maximum)), values).astype(np.float32)
