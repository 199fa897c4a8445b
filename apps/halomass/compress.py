"""What the group lasso switched off, and the smaller network without it (Lucie-Smith et al. 2020, Methods, priors)."""

import logging

import numpy as np

from kerasgal import run_folder, workers
from kerasgal.apps.halomass import predict
from kerasgal.apps.halomass.config import APP
from kerasgal.apps.halomass.model import standardising
from kerasgal.files import refuse_existing, replacing
from kerasgal.tiling import beside

DEAD = 1e-3  # absolute value from which on a weight is active, and so is a neuron that any active weight leaves
COMPRESSED = "compressed.json"  # in a run folder: what is left of the dense layers

log = logging.getLogger(__name__)


def dense_layers(network):
    """The dense layers of a network, from the features to the prediction."""
    from keras import layers

    return [layer for layer in network.layers if isinstance(layer, layers.Dense)]


def activity(network):
    """Active and all input neurons and weights of each dense layer: a list of dictionaries."""
    counts = []
    for layer in dense_layers(network):
        weights = np.abs(np.asarray(layer.kernel)) > DEAD
        counts.append({"layer": layer.name, "active_neurons": int(weights.any(axis=1).sum()),
                       "neurons": len(weights), "active_weights": int(weights.sum()), "weights": weights.size})
    return counts


def log_activity(network):
    """Say how much of each dense layer is active."""
    for count in activity(network):
        log.info(f"  {count['layer']:12s} {count['active_neurons']:,} of {count['neurons']:,} input neurons and "
                 f"{count['active_weights']:,} of {count['weights']:,} weights active (above 1e-3)")


def left_of(network):
    """What there is of the dense layers of a network, as `predict.build` takes it."""
    from kerasgal.apps.halomass.model import Select

    kept = next((layer.kept for layer in network.layers if isinstance(layer, Select)), None)
    return {"kept": kept, "dense": [layer.units for layer in dense_layers(network)[:-1]]}


def smaller(network, config):
    """A network without the dead neurons of the dense layers of `network`.

    A neuron is dead if no weight that leaves it exceeds 1e-3: its weights are taken for the zeros that the prior drove
    them towards.
    """
    import keras

    dense = dense_layers(network)
    weights = [[np.asarray(value) for value in (layer.kernel, layer.bias)] for layer in dense]
    alive = [np.flatnonzero((np.abs(kernel) > DEAD).any(axis=1)) for kernel, _ in weights]
    alive = [neurons if len(neurons) else np.arange(1) for neurons in alive]  # Keras has no layer of no neuron
    before = left_of(network)["kept"]
    kept = alive[0] if before is None else np.asarray(before)[alive[0]]
    with workers.arithmetic("float32"):
        made = predict.build(config, [int(index) for index in kept], [len(neurons) for neurons in alive[1:]])
    # Every other layer is the same in both, in the same order.
    rest = [[layer for layer in one.layers if layer.weights and not isinstance(layer, keras.layers.Dense)]
            for one in (network, made)]
    for old, new in zip(*rest):
        new.set_weights(old.get_weights())
    for number, layer in enumerate(dense_layers(made)):
        kernel, bias = weights[number]
        kernel = kernel[alive[number]]
        if number + 1 < len(dense):
            kernel, bias = kernel[:, alive[number + 1]], bias[alive[number + 1]]
        layer.set_weights([kernel, bias])
    return made


def difference(one, other, inputs=64, seed=0):
    """Greatest difference of the predictions y of two networks on standardised noise as inputs."""
    noise = np.random.default_rng(seed).normal(size=(inputs, *one.inputs[0].shape[1:])).astype(np.float32)
    layer = standardising(one)
    noise = noise * np.asarray(layer.deviation) + np.asarray(layer.mean)
    given = np.ravel(one.get_layer("normalised_parameters").mean) if len(one.inputs) > 1 else ()
    y = [np.concatenate([np.asarray(beside(network, given).predict_on_batch(part))[:, 0]
                         for part in np.split(noise, 16)]) for network in (one, other)]
    return float(np.abs(y[0] - y[1]).max())


def compress(run, output=None, overwrite=False):
    """Write a run without its dead neurons, and return it; see `HaloMass.compress`.

    run: a HaloMass, or its run folder.
    """
    from kerasgal.apps.halomass.run import HaloMass

    if not isinstance(run, HaloMass):
        run = HaloMass.load(run)
    output = run.place(output, "compressed", argument="output")
    refuse_existing(output, overwrite)
    run_folder.check_folder(output, APP, resume=False, overwrite=True)  # what else there is stays
    log_activity(run.network)
    network = smaller(run.network, run.config)
    log.info(f"{network.count_params():,} parameters are left of {run.network.count_params():,}; predictions y in "
             f"[-1, 1] of 64 random inputs change by at most {difference(run.network, network):.1e}")
    write(output, run, network, overwrite)
    return HaloMass.load(output)


def write(folder, run, network, overwrite):
    """Write a run folder like that of `run`, with another network and what there is of its dense layers."""
    from kerasgal import config as configuration

    with replacing(folder, overwrite) as temporary:
        temporary.mkdir()
        configuration.write(run.config, temporary / run_folder.CONFIG, app=APP)
        for name in (run_folder.DOMAIN, run_folder.PROVENANCE, run_folder.HISTORY):
            if run.folder is not None and (run.folder / name).exists():
                (temporary / name).write_bytes((run.folder / name).read_bytes())
        run_folder.write_json(left_of(network), temporary / COMPRESSED)
        network.save_weights(temporary / run_folder.BEST)
