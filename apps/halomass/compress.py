"""What the group lasso switched off, and the smaller network without it (Lucie-Smith et al. 2020, Sec. 3.3)."""

import json
from pathlib import Path

import numpy as np

from kerasgal.apps.halomass import predict
from kerasgal.files import replacing

DEAD = 1e-3  # absolute value from which on a weight is active, and so is a neuron that any active weight leaves


def dense_layers(model):
    """The dense layers of a network, from the features to the prediction."""
    from keras import layers

    return [layer for layer in model.layers if isinstance(layer, layers.Dense)]


def activity(model):
    """Active and all input neurons and weights of each dense layer: a list of dictionaries."""
    counts = []
    for layer in dense_layers(model):
        weights = np.abs(np.asarray(layer.kernel)) > DEAD
        counts.append({"layer": layer.name, "active_neurons": int(weights.any(axis=1).sum()),
                       "neurons": len(weights), "active_weights": int(weights.sum()), "weights": weights.size})
    return counts


def compress(run):
    """A `Run` without the dead neurons of `run`'s dense layers, and what is left of them, as `predict.build` takes it.

    A neuron is dead if no weight that leaves it exceeds 1e-3: its weights are taken for the zeros that the prior drove
    them towards.
    """
    import keras

    from kerasgal.apps.halomass.model import Select

    dense = dense_layers(run.model)
    weights = [[np.asarray(value) for value in (layer.kernel, layer.bias)] for layer in dense]
    alive = [np.flatnonzero((np.abs(kernel) > DEAD).any(axis=1)) for kernel, _ in weights]
    alive = [neurons if len(neurons) else np.arange(1) for neurons in alive]  # Keras has no layer of no neuron
    before = next((layer.kept for layer in run.model.layers if isinstance(layer, Select)), None)
    kept = alive[0] if before is None else np.asarray(before)[alive[0]]
    left = {"kept": [int(index) for index in kept], "dense": [len(neurons) for neurons in alive[1:]]}
    model = predict.build(run.config, **left)
    # Every other layer is the same in both, in the same order.
    rest = [[layer for layer in one.layers if layer.weights and not isinstance(layer, keras.layers.Dense)]
            for one in (run.model, model)]
    for old, new in zip(*rest):
        new.set_weights(old.get_weights())
    for number, layer in enumerate(dense_layers(model)):
        kernel, bias = weights[number]
        kernel = kernel[alive[number]]
        if number + 1 < len(dense):
            kernel, bias = kernel[:, alive[number + 1]], bias[alive[number + 1]]
        layer.set_weights([kernel, bias])
    return predict.Run(run.config, model, run.scale), left


def difference(run, smaller, inputs=64, seed=0):
    """Greatest difference of the predictions y of two runs on standardised noise as inputs."""
    noise = np.random.default_rng(seed).normal(size=(inputs, *run.model.input_shape[1:])).astype(np.float32)
    layer = next(layer for layer in run.model.layers if hasattr(layer, "deviation"))
    noise = noise * np.asarray(layer.deviation) + np.asarray(layer.mean)
    one, other = (np.concatenate([np.asarray(model.predict_on_batch(part))[:, 0] for part in np.split(noise, 16)])
                  for model in (run.model, smaller.model))
    return float(np.abs(one - other).max())


def write(folder, source, run, left, overwrite):
    """Write a compressed run as a run folder beside whose weights stands what is left of the dense layers."""
    with replacing(folder, overwrite) as temporary:
        temporary.mkdir()
        for name in ("config.json", "provenance.json", "history.csv"):
            if (Path(source) / name).exists():
                (temporary / name).write_bytes((Path(source) / name).read_bytes())
        (temporary / predict.COMPRESSED).write_text(json.dumps(left) + "\n")
        run.model.save_weights(temporary / "best.weights.h5")
