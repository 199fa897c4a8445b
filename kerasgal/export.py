"""SavedModel: a network that serves in a process without our code."""

import json
from pathlib import Path

from kerasgal.errors import DataError
from kerasgal.files import replacing


def export(model, directory, description, overwrite=False):
    """Write `model` as a TensorFlow SavedModel to `directory`, with kerasgal.json beside its graph.

    The batch size, and every size that is None in the model's input shape, stays free. `description` is a dictionary
    of what a caller must know and the graph does not hold, above all how inputs are normalised. Raises DataError if
    the directory exists, unless `overwrite`, and in any case if it holds something else.
    """
    directory = Path(directory)
    if directory.exists() and overwrite and not (directory / "kerasgal.json").exists():
        raise DataError(f"{directory} is not an exported model (no kerasgal.json): not replacing it")
    with replacing(directory, overwrite) as temporary:
        model.export(temporary, format="tf_saved_model", verbose=False)
        (temporary / "kerasgal.json").write_text(json.dumps(description, indent=2) + "\n")
