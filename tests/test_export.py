import json
import subprocess
import sys

import keras
import numpy as np
import pytest

from kerasgal.errors import DataError
from kerasgal.export import export


def test_a_saved_model_serves_without_keras_or_our_code(tmp_path):
    model = keras.Sequential([keras.Input((None, 3)), keras.layers.Dense(2, "tanh")])
    export(model, tmp_path / "served", {"input": "three numbers"})
    batch = np.random.default_rng(0).normal(size=(5, 7, 3)).astype("f4")
    np.save(tmp_path / "batch.npy", batch)
    program = ("import sys, numpy, tensorflow as tf; sys.modules['kerasgal'] = None; sys.modules['keras'] = None\n"
               f"model = tf.saved_model.load(r'{tmp_path}/served')\n"
               f"numpy.save(r'{tmp_path}/out.npy', model.serve(numpy.load(r'{tmp_path}/batch.npy')))")
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path)
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), model(batch), atol=1e-5)
    assert json.loads((tmp_path / "served" / "kerasgal.json").read_text()) == {"input": "three numbers"}
    with pytest.raises(DataError, match="overwrite=True"):
        export(model, tmp_path / "served", {})
    export(model, tmp_path / "served", {"input": "other"}, overwrite=True)
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.tex").write_text("years")
    with pytest.raises(DataError, match="is not an exported model"):
        export(model, tmp_path / "precious", {}, overwrite=True)
    assert (tmp_path / "precious" / "thesis.tex").exists()
