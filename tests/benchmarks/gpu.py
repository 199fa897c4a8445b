"""Training and prediction of every network on an accelerator: samples per second, and memory.

    KERAS_BACKEND=jax python tests/benchmarks/gpu.py [--preset paper]

It needs Keras, one backend and this package, no TensorFlow where the backend is another. Every network trains and
predicts in float32 and in bfloat16, in a process of its own (a backend keeps what it once took). Data lie in the host's
memory and are copied in every step, as in a real training.
"""

import argparse
import json
import os
import subprocess
import sys
import time

STEPS = 30
NETWORKS = {  # {name: batch of the paper's preset, of the demo's}
    "protohalo": (16, 16), "halomass": (64, 256), "cascade classify": (16, 32), "cascade regress": (16, 32),
    "diffusion": (8, 64), "morph": (64, 64),
}


def made(name, preset):
    """A network of an app, its loss, and the shapes of inputs and targets, the batch left out."""
    from kerasgal import config as configuration

    if name == "protohalo":
        from kerasgal.apps.protohalo.config import TrainConfig
        from kerasgal.apps.protohalo.losses import NormalisedDistance
        from kerasgal.apps.protohalo.model import unet

        config = configuration.preset(TrainConfig, preset)
        cube = (config.patch,) * 3 + (1,)
        return (unet(config.levels, config.filters, config.dropout, config.output_slope),
                NormalisedDistance(config.margin), [cube], cube)
    if name == "halomass":
        from kerasgal.apps.halomass.config import TrainConfig
        from kerasgal.apps.halomass.losses import LIKELIHOODS, SelectionLikelihood
        from kerasgal.apps.halomass.model import cnn
        from kerasgal.apps.halomass.regularizers import convolution_prior, dense_prior

        config = configuration.preset(TrainConfig, preset)
        law = LIKELIHOODS[config.likelihood]
        network = cnn(config.patch, 1, convolutions=config.convolutions, filters=config.filters,
                      dense=(config.dense, config.dense // 2), padding=config.padding, initial=law.initial,
                      least=law.least, rate=config.scale_rate, convolution_prior=convolution_prior(config.alpha),
                      dense_prior=dense_prior(config.alpha))
        return network, SelectionLikelihood(config.likelihood), [(config.patch,) * 3 + (1,)], (1,)
    if name.startswith("cascade"):
        from kerasgal.apps.cascade import losses, model
        from kerasgal.apps.cascade.config import TrainConfig

        config = configuration.preset(TrainConfig, preset)
        cube = (config.patch,) * 3
        if name.endswith("classify"):
            return model.inception(), losses.WeightedCrossEntropy(config.w1), [(*cube, 1)], (*cube, 1)
        network = model.r2unet(filters=config.filters, t=config.recurrences, output_slope=config.output_slope)
        return network, losses.WeightedSquaredError(config.w2), [(*cube, 1)], (*cube, 2)
    if name == "diffusion":
        from kerasgal.apps.cascade.diffusion.config import DiffusionConfig
        from kerasgal.apps.cascade.diffusion.network import score_network

        config = configuration.preset(DiffusionConfig, preset)
        network = score_network(2, filters=config.filters, levels=config.levels, groups=config.norm_groups,
                                dropout=config.dropout, attention=config.attention, fourier=config.fourier,
                                scaling=config.scaling, gamma_min=config.gamma_min, gamma_max=config.gamma_max)
        field = (config.patch,) * 2 + (1,)
        return network, "mse", [field, field, ()], field
    from kerasgal.apps.morph.config import TrainConfig
    from kerasgal.apps.morph.losses import LogisticMixture
    from kerasgal.apps.morph.model import pixelcnn

    config = configuration.preset(TrainConfig, preset)
    image = (config.size, config.size, 1)
    return (pixelcnn(image, blocks=config.blocks, filters=config.filters, mixtures=config.mixtures,
                     dropout=config.dropout), LogisticMixture(0), [image], image)


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
    return None


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


def measure(name, preset, precision, batch, jit):
    """One row: what a network does in one precision."""
    import keras
    import numpy as np

    keras.config.set_dtype_policy(precision)
    keras.utils.set_random_seed(0)
    network, loss, shapes, target = made(name, preset)
    network.compile(keras.optimizers.Adam(1e-4), loss=loss, jit_compile=jit)
    rng = np.random.default_rng(0)
    inputs = [np.abs(rng.normal(size=(batch, *shape))).astype(np.float32) for shape in shapes]
    targets = np.clip(rng.uniform(size=(batch, *target)), 0.01, 0.9).astype(np.float32)
    training, prediction = seconds_of(network, inputs, targets)
    return {"training": batch / training, "prediction": batch / prediction, "memory": memory(),
            "device": device()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="paper", choices=["paper", "demo"])
    parser.add_argument("--jit", default="auto", choices=["auto", "on", "off"])
    parser.add_argument("--networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--one", nargs=3, metavar=("NAME", "PRECISION", "BATCH"))
    chosen = parser.parse_args()
    jit = {"auto": "auto", "on": True, "off": False}[chosen.jit]
    if chosen.one:
        name, precision, batch = chosen.one
        print(json.dumps(measure(name, chosen.preset, precision, int(batch), jit)))
        return
    print(f"{'network':18s}{'precision':16s}{'batch':>6s}{'training/s':>12s}{'prediction/s':>14s}{'GiB':>7s}")
    row = None
    for name in chosen.networks:
        for precision in ("float32", "mixed_bfloat16"):
            batch = NETWORKS[name][chosen.preset == "demo"]
            command = [sys.executable, __file__, "--preset", chosen.preset, "--jit", chosen.jit, "--one", name,
                       precision, str(batch)]
            done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ))
            if done.returncode:
                print(f"{name:18s}{precision:16s} failed: {(done.stderr.strip().splitlines() or ['?'])[-1][:120]}",
                      flush=True)
                continue
            row = json.loads(done.stdout.strip().splitlines()[-1])
            held = f"{row['memory'] / 2**30:.1f}" if row["memory"] else "?"
            print(f"{name:18s}{precision:16s}{batch:>6d}{row['training']:>12.1f}{row['prediction']:>14.1f}{held:>7s}",
                  flush=True)
    if row:
        print(row["device"])


if __name__ == "__main__":
    main()
