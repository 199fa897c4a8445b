"""Galaxies drawn from the diffusion model, given the dark matter of a whole map or box."""

import keras
import numpy as np

from kerasgal.apps.cascade.diffusion import counts, vdm
from kerasgal.tiling import predict_box

SAMPLERS = ("ancestral", "deterministic")
CONTEXT = 16  # cells of a tile's border that are thrown away
WHOLE = 1024  # cells per side of a map that pass through the network at once


def gammas(model, steps):
    """gamma at evenly spaced times from 1 down to 0, (steps + 1,), by the schedule of a `VariationalDiffusion`."""
    gamma, _ = model.schedule(np.linspace(1, 0, steps + 1, dtype=np.float32))
    return np.asarray(gamma).tolist()


class Finder:
    """The network as `tiling.predict_box` calls it: noisy fields of all draws and the density, side by side, to noise.

    Blocks are (tiles, x, y, draws + 1) or (tiles, x, y, z, draws + 1).
    """

    def __init__(self, model, parameters):
        self.model, self.parameters, self.gamma = model, np.asarray(parameters, np.float32), None

    def predict_on_batch(self, blocks):
        draws = blocks.shape[-1] - 1
        z = np.moveaxis(blocks[..., :-1], -1, 1).reshape(-1, *blocks.shape[1:-1], 1)
        density = np.repeat(blocks[..., -1:], draws, axis=0)
        gamma = np.full(len(z), self.gamma, np.float32)
        rows = [np.tile(self.parameters, (len(z), 1))] if self.model.parameters else []
        found = self.model.network.predict_on_batch([z, density, gamma, *rows])
        found = vdm.noise_of(found, z, gamma, self.model.prediction)
        return np.moveaxis(np.asarray(found).reshape(len(blocks), draws, *blocks.shape[1:-1]), 1, -1)


def draw(model, config, density, draws, *, steps, sampler="ancestral", seed=0, parameters=(), tile=None,
         context=CONTEXT, progress=None):
    """Galaxies in each cell of a periodic map or box, drawn given its density: (draws, n, n) or (draws, n, n, n).

    model: a `VariationalDiffusion`, and its config.
    density: (n, n) or (n, n, n) in units of the mean. steps: of the sampler, "ancestral" or "deterministic".
    parameters: of the simulation, (p,), where the run was trained with some.
    tile, context: cells per side that pass through the network at once, and of its border that are thrown away. The
        noise is that of the whole field, and only what the network finds in it is put together from tiles, in every
        step: where the context reaches as far as the network sees, and with norm_groups=0, seams are none.
    progress: called as progress(done, total) in steps.

    Draw i of a seed is the same whatever the number of draws.
    """
    multiple = 2**config.levels
    if tile is None:
        tile = WHOLE if config.dimensions == 2 else config.patch + 2 * context
    finder = Finder(model, parameters)
    streams = [np.random.default_rng([seed, number]) for number in range(draws)]
    done = iter(range(1, steps + 1))

    def noise(_=None):
        return np.stack([stream.standard_normal(density.shape, np.float32) for stream in streams], axis=-1)

    def denoise(z, gamma):
        finder.gamma = gamma
        found = predict_box(finder, np.concatenate([z, density[..., None]], axis=-1).astype(np.float32), tile=tile,
                            context=context, multiple=multiple)
        if progress:
            progress(next(done), steps)
        return found

    places = gammas(model, steps)
    field = vdm.ancestral(denoise, places, noise(), noise) if sampler == "ancestral" else \
        vdm.deterministic(denoise, places, noise())
    return np.moveaxis(counts.counts_of(field, config.field, config.maximum), -1, 0)


@keras.saving.register_keras_serializable("kerasgal")
class NearestCount(keras.layers.Layer):
    """The numbers of galaxies whose field, one of rising `levels`, is nearest to the given one."""

    def __init__(self, levels, **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.levels = np.asarray(levels, np.float32)

    def call(self, field):
        place = keras.ops.searchsorted(counts.halfway(self.levels), keras.ops.reshape(field, (-1,)))
        return keras.ops.cast(keras.ops.reshape(place, keras.ops.shape(field)), "float32")

    def compute_output_shape(self, shape):
        return shape

    def get_config(self):
        return {**{key: value for key, value in super().get_config().items() if key != "dtype"},
                "levels": self.levels.tolist()}


def sampler_model(model, steps):
    """The deterministic sampler as one Keras model: [density, noise] or [density, noise, parameters] to galaxies."""
    network, inputs = model.network, {item.name: item for item in model.network.inputs}
    density, parameters = inputs["density"], [inputs["parameters"]] if model.parameters else []
    noise = keras.Input(density.shape[1:], name="noise")

    def denoise(z, gamma):
        gamma = keras.ops.zeros_like(keras.ops.sum(density, axis=range(1, len(density.shape)))) + gamma
        return vdm.noise_of(network([z, density, gamma, *parameters]), z, gamma, model.prediction)

    field = vdm.deterministic(denoise, gammas(model, steps), noise)
    return keras.Model([density, noise, *parameters], NearestCount(model.levels)(field), name="sampler")
