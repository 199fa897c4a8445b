"""Where archetypes' parameters and skies come from: tables, image sets, fits, borders of images."""

import numpy as np

from kerasgal.apps.morph import archetypes
from kerasgal.errors import DataError
from kerasgal.imageset import ImageSet
from kerasgal.readers import images as readers

SKIES = 200  # stamps of sky that are patched together


def parameters_of(path, camera):
    """Sersic parameters of a table, or of the columns of an image set; see `archetypes.sersic_parameters`."""
    if str(path).endswith((".h5", ".hdf5")):
        with ImageSet(path) as images:
            return archetypes.sersic_parameters({"id": images["id"][...], **images.table()}, camera, str(path))
    return archetypes.read_parameters(path, camera)


def fitted(paths, psf, camera, say):
    """Sersic parameters fitted to images; says which cannot be fitted. Raises DataError where none can."""
    rows = []
    for image in readers.stream(paths):
        try:
            if image.error:
                raise DataError(image.error)
            rows.append({"id": image.id, **archetypes.fit_sersic(image.pixels, psf, camera, image.mask)})
        except DataError as error:
            say(f"left out: {image.id}: {error}")
    if not rows:
        raise DataError("no image could be fitted")
    columns = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    return archetypes.sersic_parameters(columns, camera, "the fits")


def skies(paths, size, rng):
    """Stamps of real sky from the borders of images, (SKIES, size, size)."""
    good = [image.pixels for image in readers.stream(paths) if not image.error]
    if not good:
        raise DataError(f"no image that can be read in {', '.join(map(str, paths))}")
    return archetypes.border_skies(good, SKIES, size, rng)
