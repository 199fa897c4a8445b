import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasgal.errors import DataError
from kerasgal.export import export


def test_a_saved_model_serves_what_the_model_says(tmp_path):
    """That it does so without Keras or our code is tested with every app's, in test_harness.py."""
    model = keras.Sequential([keras.Input((None, 3)), keras.layers.Dense(2, "tanh")])
    export(model, tmp_path / "served", {"input": "three numbers"})
    batch = np.random.default_rng(0).normal(size=(5, 7, 3)).astype("f4")
    served = tf.saved_model.load(tmp_path / "served")
    np.testing.assert_allclose(served.serve(batch), model(batch), atol=1e-5)
    assert json.loads((tmp_path / "served" / "kerasgal.json").read_text()) == {"input": "three numbers"}
    with pytest.raises(DataError, match="overwrite=True"):
        export(model, tmp_path / "served", {})
    export(model, tmp_path / "served", {"input": "other"}, overwrite=True)
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.tex").write_text("years")
    with pytest.raises(DataError, match="is not an exported model"):
        export(model, tmp_path / "precious", {}, overwrite=True)
    assert (tmp_path / "precious" / "thesis.tex").exists()
