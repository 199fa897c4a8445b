"""Training and prediction of every network on an accelerator: samples per second, memory, share of what it can do.

    KERAS_BACKEND=jax python tests/benchmarks/gpu.py [--preset paper] [--networks NAME...] [--ways WAY...]

It needs Keras, one backend and this package, no TensorFlow where the backend is another. Every network trains and
predicts in float32 and in bfloat16, in a process of its own (a backend keeps what it once took), and on TensorFlow
without XLA and with it. Where PyTorch is there, so do the networks of `torch_networks.py`, as they are and by
torch.compile. Data lie in the host's memory and are copied in every step, as in a real training.

The share is that of the arithmetic of a step, counted layer by layer, at the rate at which the same device multiplies
large matrices in the same precision. A training step counts as three predictions.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

STEPS = 30
NETWORKS = {  # {name: batch of the paper's preset, of the demo's}
    "protohalo": (16, 16), "halomass": (64, 256), "cascade classify": (16, 32), "cascade regress": (16, 32),
    "diffusion": (8, 64), "morph": (64, 64),
}
PEERS = {"protohalo": "protohalo", "halomass": "halomass", "cascade classify": "inception",
         "cascade regress": "r2unet", "morph": "pixelcnn"}  # what `peers.py` calls them
WAYS = {"keras": "auto", "no XLA": False, "XLA": True, "torch": False, "torch.compile": True}
TINY = {  # sizes that only show whether everything runs
    "protohalo": {"patch": 16, "margin": 4, "levels": 1, "filters": 2},
    "halomass": {"patch": 7, "convolutions": 3, "filters": 2, "dense": 4},
    "cascade": {"patch": 8, "filters": 2, "recurrences": 1},
    "diffusion": {"patch": 8, "filters": 4, "levels": 1, "norm_groups": 0},
    "morph": {"size": 8, "filters": 2, "mixtures": 2, "blocks": 1},
}


def settings(cls, preset, app):
    """The configuration of a preset; `tiny` is the demo's with smaller sizes."""
    from kerasgal import config as configuration

    if preset == "tiny":
        return configuration.replace(configuration.preset(cls, "demo"), TINY[app], origin="tiny")
    return configuration.preset(cls, preset)


def made(name, preset):
    """A network of an app, its loss, the shapes of inputs and targets without the batch, and the configuration."""
    if name == "protohalo":
        from kerasgal.apps.protohalo.config import TrainConfig
        from kerasgal.apps.protohalo.losses import NormalisedDistance
        from kerasgal.apps.protohalo.model import unet

        config = settings(TrainConfig, preset, "protohalo")
        cube = (config.patch,) * 3 + (1,)
        return (unet(config.levels, config.filters, config.dropout, config.output_slope),
                NormalisedDistance(config.margin), [cube], cube, config)
    if name == "halomass":
        from kerasgal.apps.halomass.config import TrainConfig
        from kerasgal.apps.halomass.losses import LIKELIHOODS, SelectionLikelihood
        from kerasgal.apps.halomass.model import cnn
        from kerasgal.apps.halomass.regularizers import convolution_prior, dense_prior

        config = settings(TrainConfig, preset, "halomass")
        law, alpha = LIKELIHOODS[config.likelihood], config.prior_strength
        network = cnn(config.patch, 1, convolutions=config.convolutions, filters=config.filters,
                      dense=(config.dense, config.dense // 2), padding=config.padding, initial=law.initial,
                      least=law.least, rate=config.scale_rate, convolution_prior=convolution_prior(alpha),
                      dense_prior=dense_prior(alpha), last_prior=dense_prior(alpha) if config.last_prior else None)
        return network, SelectionLikelihood(config.likelihood), [(config.patch,) * 3 + (1,)], (1,), config
    if name.startswith("cascade"):
        from kerasgal.apps.cascade import losses, model
        from kerasgal.apps.cascade.config import TrainConfig

        config = settings(TrainConfig, preset, "cascade")
        cube = (config.patch,) * 3
        if name.endswith("classify"):
            return model.inception(), losses.WeightedCrossEntropy(config.w1), [(*cube, 1)], (*cube, 1), config
        network = model.r2unet(filters=config.filters, t=config.recurrences, output_slope=config.output_slope)
        return network, losses.WeightedSquaredError(config.w2), [(*cube, 1)], (*cube, 2), config
    if name == "diffusion":
        from kerasgal.apps.cascade.diffusion.config import DiffusionConfig
        from kerasgal.apps.cascade.diffusion.network import score_network

        config = settings(DiffusionConfig, preset, "diffusion")
        network = score_network(2, filters=config.filters, levels=config.levels, groups=config.norm_groups,
                                epsilon=config.norm_epsilon, dropout=config.dropout, attention=config.attention,
                                projections=config.projections, fourier=config.fourier, scaling=config.scaling,
                                standardise=config.standardise, gamma_min=config.gamma_min, gamma_max=config.gamma_max)
        field = (config.patch,) * 2 + (1,)
        return network, "mse", [field, field, ()], field, config
    from kerasgal.apps.morph.config import TrainConfig
    from kerasgal.apps.morph.losses import LogisticMixture
    from kerasgal.apps.morph.model import pixelcnn

    config = settings(TrainConfig, "pixelcnn++" if preset == "paper" else preset, "morph")
    image = (config.size, config.size, 1)
    return (pixelcnn(image, blocks=config.blocks, filters=config.filters, mixtures=config.mixtures,
                     dropout=config.dropout), LogisticMixture(0), [image], image, config)


def seconds_of(model, inputs, targets):
    """Seconds of a training step and of a prediction, each the mean of many after those that are compiled."""
    import keras

    class Clock(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.begun = time.monotonic()

        def on_epoch_end(self, epoch, logs=None):
            self.seconds = time.monotonic() - self.begun

    class Repeated(keras.utils.PyDataset):
        def __len__(self):
            return STEPS

        def __getitem__(self, number):
            return inputs if len(inputs) > 1 else inputs[0], targets

    clock = Clock()
    model.fit(Repeated(), epochs=2, verbose=0, callbacks=[clock])
    training = clock.seconds / STEPS
    one = inputs if len(inputs) > 1 else inputs[0]
    model.predict_on_batch(one)
    begun = time.monotonic()
    for _ in range(STEPS):
        model.predict_on_batch(one)
    return training, (time.monotonic() - begun) / STEPS


def memory():
    """Most bytes that the device has held, or None where the backend does not say."""
    import keras

    if keras.backend.backend() == "jax":
        import jax

        return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    if keras.backend.backend() == "torch":
        import torch

        return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
    import tensorflow as tf

    there = tf.config.list_physical_devices("GPU")
    return tf.config.experimental.get_memory_info("GPU:0")["peak"] if there else None


@contextlib.contextmanager
def counting():
    """Count the operations of all convolutions and dense layers that are called: yields a list of numbers.

    Two for each product of a kernel's weight, at every cell of the output, or of a transposed convolution's input.
    What has no kernel (activations, poolings, normalisations) is little and not counted.
    """
    import keras
    import numpy as np

    operations, call = [], keras.layers.Layer.__call__

    def counted(layer, *inputs, **options):
        output = call(layer, *inputs, **options)
        kernel = getattr(layer, "v", None)  # of a weight-normalised layer, whose `kernel` is a function
        kernel = getattr(layer, "kernel", None) if kernel is None else kernel
        if hasattr(kernel, "shape"):
            cells = inputs[0] if "Transpose" in type(layer).__name__ else output
            operations.append(2 * int(np.prod(kernel.shape)) * int(np.prod(cells.shape[:-1])))
        return output

    keras.layers.Layer.__call__ = counted
    try:
        yield operations
    finally:
        keras.layers.Layer.__call__ = call


def operations_of(network, inputs):
    """Operations of a network's prediction of one sample."""
    with counting() as operations:
        one = [values[:1] for values in inputs]
        network(one if len(one) > 1 else one[0], training=False)
    return sum(operations)


def rate_of_products(multiply, wait, side):
    """Operations per second of products of square matrices; `wait` returns when its argument is there."""
    wait(multiply())
    begun, times = time.monotonic(), 10
    for _ in range(times):
        product = multiply()
    wait(product)
    return 2 * side**3 * times / (time.monotonic() - begun)


def limit(precision, on_gpu):
    """Operations per second of large products of matrices in the arithmetic of a precision policy, by Keras."""
    import keras
    import numpy as np

    side = 8192 if on_gpu else 1024
    kind = "bfloat16" if precision.endswith("bfloat16") else "float32"
    matrix = keras.ops.convert_to_tensor(np.random.default_rng(0).normal(size=(side, side)), dtype=kind)
    return rate_of_products(lambda: keras.ops.matmul(matrix, matrix),
                            lambda product: keras.ops.convert_to_numpy(keras.ops.cast(product[0, 0], "float32")), side)


def on_gpu():
    """Whether the backend's first device is an accelerator."""
    words = device()
    return "0 GPUs" not in words and "CPU" not in words and not words.endswith(" cpu")


def device():
    """Backend and device in words."""
    import keras

    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return f"JAX {jax.__version__}, {jax.devices()[0].device_kind}"
    if backend == "torch":
        import torch

        return f"PyTorch {torch.__version__}, " + (torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU")
    import tensorflow as tf

    return f"TensorFlow {tf.__version__}, {len(tf.config.list_physical_devices('GPU'))} GPUs"


def data_of(shapes, target, batch):
    """Made-up inputs, a list, and targets."""
    import numpy as np

    rng = np.random.default_rng(0)
    inputs = [np.abs(rng.normal(size=(batch, *shape))).astype(np.float32) for shape in shapes]
    return inputs, np.clip(rng.uniform(size=(batch, *target)), 0.01, 0.9).astype(np.float32)


def measure(name, preset, precision, batch, way):
    """One row: what a network does in one precision."""
    import keras

    if way.startswith("torch"):
        return measure_torch(name, preset, precision, batch, WAYS[way])
    keras.config.set_dtype_policy(precision)
    keras.utils.set_random_seed(0)
    network, loss, shapes, target, _ = made(name, preset)
    network.compile(keras.optimizers.Adam(1e-4), loss=loss, jit_compile=WAYS[way])
    inputs, targets = data_of(shapes, target, batch)
    operations, fastest = operations_of(network, inputs), limit(precision, on_gpu())
    training, prediction = seconds_of(network, inputs, targets)
    return row_of(batch, training, prediction, operations, fastest, memory(), device())


def row_of(batch, training, prediction, operations, fastest, held, where):
    return {"training": batch / training, "prediction": batch / prediction, "memory": held, "device": where,
            "training share": 3 * operations * batch / training / fastest,
            "prediction share": operations * batch / prediction / fastest}


def measure_torch(name, preset, precision, batch, compiled):
    """The same of the network in PyTorch, with automatic mixed precision."""
    import keras
    import numpy as np
    import torch
    from peers import peer

    place = "cuda" if torch.cuda.is_available() else "cpu"
    ours, _, shapes, target, config = made(name, preset)
    inputs, targets = data_of(shapes, target, batch)
    operations = operations_of(ours, inputs)
    network, loss_of = peer(PEERS[name], config)
    network = network.to(place)
    run = torch.compile(network) if compiled else network
    optimizer = torch.optim.Adam(network.parameters(), 1e-4)
    batch_of = [torch.from_numpy(np.moveaxis(part, -1, 1).copy()) for part in (inputs[0], targets)]
    mixed = precision.endswith("bfloat16")

    def step():
        x, true = (part.to(place) for part in batch_of)
        optimizer.zero_grad()
        with torch.autocast(place, torch.bfloat16, enabled=mixed):
            output = run(x)
        loss_of(true, output.float()).backward()
        optimizer.step()

    def predict():
        with torch.no_grad(), torch.autocast(place, torch.bfloat16, enabled=mixed):
            return run(batch_of[0].to(place)).float().cpu()

    def seconds(work):
        for _ in range(3):
            work()
        if place == "cuda":
            torch.cuda.synchronize()
        begun = time.monotonic()
        for _ in range(STEPS):
            work()
        if place == "cuda":
            torch.cuda.synchronize()
        return (time.monotonic() - begun) / STEPS

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True  # as the others do by themselves
    side = 8192 if place == "cuda" else 1024
    matrix = torch.randn(side, side, device=place, dtype=torch.bfloat16 if mixed else torch.float32)
    fastest = rate_of_products(lambda: matrix @ matrix, lambda product: product[0, 0].item(), side)
    training = seconds(step)
    network.eval()
    prediction = seconds(predict)
    held = torch.cuda.max_memory_allocated() if place == "cuda" else None
    where = torch.cuda.get_device_name() if place == "cuda" else "CPU"
    return row_of(batch, training, prediction, operations, fastest, held,
                  f"PyTorch {torch.__version__}, {where} (ours counted by {keras.backend.backend()})")


def ways_of_backend():
    """The ways to run a network that there are here."""
    from importlib.util import find_spec

    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    return [*(["no XLA", "XLA"] if backend == "tensorflow" else ["keras"]),
            *(["torch", "torch.compile"] if find_spec("torch") else [])]


def main():
    global STEPS
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="paper", choices=["paper", "demo", "tiny"])
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--precisions", nargs="*", default=["float32", "mixed_bfloat16"])
    parser.add_argument("--ways", nargs="*", default=ways_of_backend(), choices=list(WAYS))
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--one", nargs=4, metavar=("NAME", "PRECISION", "WAY", "BATCH"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    STEPS = chosen.steps
    if chosen.one:
        name, precision, way, batch = chosen.one
        print(json.dumps(measure(name, chosen.preset, precision, int(batch), way)))
        return
    print(f"{'network':18s}{'arithmetic':16s}{'way':15s}{'batch':>6s}{'training/s':>12s}{'share':>7s}"
          f"{'prediction/s':>14s}{'share':>7s}{'GiB':>7s}")
    devices, failed = set(), 0
    for name in chosen.networks:
        for precision in chosen.precisions:
            for way in chosen.ways:
                if way.startswith("torch") and name not in PEERS:
                    continue
                row = in_process(chosen, name, precision, way)
                if row:
                    devices.add(row["device"])
                else:
                    failed += 1
    for words in sorted(devices):
        print(words)
    if failed or not devices:
        raise SystemExit(f"{failed} rows could not be measured" if failed else "nothing was measured")


def in_process(chosen, name, precision, way):
    """Measure one row in a process of its own and print it; returns it, or None where it failed."""
    batch = 2 if chosen.preset == "tiny" else NETWORKS[name][chosen.preset == "demo"]
    command = [sys.executable, __file__, "--preset", chosen.preset, "--steps", str(chosen.steps), "--one", name,
               precision, way, str(batch)]
    # Beside PyTorch ours only counts operations: it must not take the GPU's memory beforehand
    sparing = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    environment = {**(sparing if way.startswith("torch") else {}), **os.environ}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    start = f"{name:18s}{precision:16s}{way:15s}"
    if done.returncode:
        print(f"{start} failed: {(done.stderr.strip().splitlines() or ['?'])[-1][:120]}", flush=True)
        return None
    row = json.loads(done.stdout.strip().splitlines()[-1])
    held = f"{row['memory'] / 2**30:.1f}" if row["memory"] else "?"
    print(f"{start}{batch:>6d}{row['training']:>12.1f}{row['training share']:>7.1%}{row['prediction']:>14.1f}"
          f"{row['prediction share']:>7.1%}{held:>7s}", flush=True)
    return row


if __name__ == "__main__":
    main()
