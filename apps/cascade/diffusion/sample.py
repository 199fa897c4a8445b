"""Galaxies drawn from the diffusion model, given the dark matter of a whole map or box, or matter given galaxies."""

import logging

import keras
import numpy as np

from kerasgal.apps.cascade.diffusion import calibration, counts, vdm
from kerasgal.apps.cascade.diffusion.data import channelled
from kerasgal.apps.cascade.diffusion.network import radius
from kerasgal.tiling import choose_tiles, predict_at_once, predict_box

TOGETHER = 2**21  # cells of several draws that pass through the network at once
CHOOSE = object()

log = logging.getLogger(__name__)


def gammas(model, steps):
    """gamma at evenly spaced times from 1 down to 0, (steps + 1,), by the schedule of a `VariationalDiffusion`."""
    gamma, _ = model.schedule(np.linspace(1, 0, steps + 1, dtype=np.float32))
    return np.asarray(gamma).tolist()


class Finder:
    """The network as `tiling.predict_box` calls it: noisy fields of all draws beside what is given, to noise.

    Blocks are (tiles, x, y, draws + channels), or with z. whole: whether they are all of a periodic field. Its gamma is
    a number, or (draws,).
    """

    def __init__(self, model, parameters, whole=False):
        from kerasgal.periodic import periodic

        self.model, self.parameters, self.gamma = model, np.asarray(parameters, np.float32), None
        self.network = periodic(model.network) if whole else model.network
        self.channels = model.network.get_layer("density").output.shape[-1]

    def predict_on_batch(self, blocks):
        draws = blocks.shape[-1] - self.channels
        z = np.moveaxis(blocks[..., :draws], -1, 1).reshape(-1, *blocks.shape[1:-1], 1)
        density = np.repeat(blocks[..., draws:], draws, axis=0)
        gammas = np.tile(np.broadcast_to(np.float32(self.gamma), draws), len(blocks))
        found, together = [], max(1, TOGETHER // z[0].size)
        for first in range(0, len(z), together):
            part, gamma = z[first:first + together], gammas[first:first + together]
            rows = [np.tile(self.parameters, (len(part), 1))] if self.model.parameters else []
            output = self.network.predict_on_batch([part, density[first:first + together], gamma, *rows])
            found.append(np.asarray(vdm.noise_of(output, part, gamma, self.model.prediction)))
        return np.moveaxis(np.concatenate(found).reshape(len(blocks), draws, *blocks.shape[1:-1]), 1, -1)


def tiles_for(model, config, grid, draws, tile=None, context=None):
    """How a map or box of cells `grid` is drawn: see `kerasgal.tiling.choose_tiles`, which logs a line, as this does.

    That is where a network that sees all that it is given, be it only for norm_groups, is given tiles.
    """
    from kerasgal.periodic import largest

    network, multiple = model.network, 2**config.levels
    # Of a table of attention the side matters; else 64 cells are as good as any.
    side = -(-max(grid) // multiple) * multiple if config.attention else max(64, multiple)
    together = max(1, min(draws, TOGETHER // int(np.prod(grid))))
    chosen = choose_tiles(grid, numbers=largest(network, side) * together + 4 * (draws + 1),
                          radius=radius(config.levels), patch=config.patch, multiple=multiple, tile=tile,
                          context=context)
    if chosen is not None and (config.norm_groups or config.attention):
        which = "attends to" if config.attention else "normalises over"
        log.info(f"the network {which} all of a tile, here of {chosen[0]} cells: draws depend on its size")
    return chosen


def draw(model, config, density, draws, *, steps, sampler="ancestral", seed=0, parameters=(), tile=None,
         context=None, layout=CHOOSE, first=0, finest=None, progress=None):
    """Galaxies in each cell of a periodic map or box, drawn given its density: (draws, n, n) or (draws, n, n, n).

    Or, where the config says so, the density in units of its mean, drawn given the galaxies.
    model: a `VariationalDiffusion`, and its config.
    density: what is given, (n, n) or (n, n, n), or with channels (n, n, c), as `data.given` has it. steps: of the
        sampler, one of SAMPLERS of config.py.
    parameters: of the simulation, (p,), where the run was trained with some.
    tile, context: cells per side that pass through the network at once, and of its border that are thrown away; see
        `tiles_for`, which chooses what is not given: the whole field where memory is enough. The noise is that of the
        whole field, and only what the network finds in it is put together from tiles, in every step: where the context
        reaches as far as the network sees, and with norm_groups=0 and no attention, seams are none.
    layout: what `tiles_for` said, where it was asked before.
    first: number of the first of the draws.
    finest: a multiple of the steps, of which the noise of each step is put together: draws in fewer steps then begin
        with and meet the noise of those in so many, and differ by the steps alone.
    progress: called as progress(done, total) in steps.

    Draw i of a seed is the same whatever the number of draws.
    """
    grid = density.shape[:config.dimensions]
    if layout is CHOOSE:
        layout = tiles_for(model, config, grid, draws, tile, context)
    find = finding(model, config, density, parameters, layout)
    streams, chances = ([np.random.default_rng([seed, first + number, *more]) for number in range(draws)]
                        for more in ((), (1,)))
    done = iter(range(1, steps + 1))

    def noise():
        return np.stack([stream.standard_normal(grid, np.float32) for stream in streams], axis=-1)

    def denoise(z, gamma):
        found = np.asarray(put_right(model, find(z, gamma), z, gamma))
        if progress:
            progress(next(done), steps)
        return found

    several = (finest or steps) // steps
    fine = gammas(model, several * steps)

    def of_step(step):
        """The noise of one step; of `finest` ones as many as lie in it."""
        inside = fine[several * step:several * (step + 1) + 1]
        return vdm.together(inside, [noise() for _ in inside[1:]]) if several > 1 else noise()

    def chance():
        """The chances of one step; of `finest` ones those of the first that lies in it."""
        return [np.stack([stream.random(grid, np.float32) for stream in chances], axis=-1)
                for _ in range(several)][0]

    places, start, settle = fine[::several], noise(), None
    if model.calibration:  # by estimates that are not put right, empty cells would get galaxies
        settle = counts.whole(model.noised(model.levels), chance)
    if sampler == "deterministic":
        field = vdm.deterministic(denoise, places, start)
    else:
        field = getattr(vdm, sampler)(denoise, places, start, of_step, settle)
    found = model.field_of(np.asarray(field))
    if config.matter:
        return np.moveaxis(np.asarray(counts.densities_of(found, config.field)), -1, 0)
    return np.moveaxis(counts.counts_of(found, config.field, config.maximum), -1, 0)


def put_right(model, found, z, gamma):
    """The noise in z, where the network has `found` so much, by what its estimate of the field stands for."""
    if model.calibration is None:
        return found
    alpha, sigma = vdm.parts(gamma)
    expected = model.field_of((z - sigma * found) / alpha)
    return (z - alpha * model.noised(model.calibration(expected, gamma))) / sigma


def finding(model, config, density, parameters=(), layout=None):
    """The function from noisy fields, (n, n, draws) or (n, n, n, draws), and gamma to the noise that is found in them.

    gamma is a number, or (draws,). Arguments as in `draw`; layout: None for the whole field at once.
    """
    finder = Finder(model, parameters, whole=layout is None)
    seen = channelled(density, config.dimensions)

    def find(z, gamma):
        finder.gamma = gamma
        field = np.concatenate([z, seen], axis=-1, dtype=np.float32)
        if layout is None:
            return predict_at_once(finder, field)
        return predict_box(finder, field, tile=layout[0], context=layout[1], multiple=2**config.levels)

    return find


def calibrated(model, config, samples):
    """The `calibration.Calibration` of a `VariationalDiffusion` by lists of samples of `train.load`, or None."""
    def find(density, parameters):
        together = calibration.STEPS + 1 if config.dimensions == 2 else 1
        grid = density.shape[:config.dimensions]
        return finding(model, config, density, parameters, tiles_for(model, config, grid, together))

    return calibration.measure(find, model, config, samples)


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
    """The deterministic sampler as one Keras model: [density, noise] or [density, noise, parameters] to galaxies.

    Where matter is drawn: [galaxies, noise] to the density.
    """
    network, inputs = model.network, {item.name: item for item in model.network.inputs}
    density, parameters = inputs["density"], [inputs["parameters"]] if model.parameters else []
    noise = keras.Input((*density.shape[1:-1], 1), name="noise")

    def denoise(z, gamma):
        several = keras.ops.zeros_like(keras.ops.sum(density, axis=range(1, len(density.shape)))) + gamma
        found = vdm.noise_of(network([z, density, several, *parameters]), z, several, model.prediction)
        return put_right(model, found, z, gamma)

    field = vdm.deterministic(denoise, gammas(model, steps), noise)
    found = model.field_of(field)
    drawn = counts.densities_of(found, model.field) if model.levels is None else NearestCount(model.levels)(found)
    return keras.Model([density, noise, *parameters], drawn, name="sampler")
