"""From networks to galaxies: where they are in a whole box, and how many."""

import numpy as np

from kerasgal.apps.cascade import finer, model
from kerasgal.apps.cascade.config import POOLINGS
from kerasgal.apps.cascade.scatter import draw, within
from kerasgal.errors import SettingError
from kerasgal.files import slabs
from kerasgal.tiling import predict_whole

CLASSIFY, REGRESS = "classify", "regress"  # the phases, and their folders inside a run's


def build(config, phase):
    """The network of a phase, not compiled. That of phase 2 takes what `surroundings` makes of the density."""
    more = finer.CHANNELS * config.finer + 3 * config.velocity + len(config.names)
    if phase == REGRESS:
        network = model.r2unet(density_channels(config, phase) + more, filters=config.filters, t=config.recurrences,
                               finest_skip=config.finest_skip, output=config.output, output_slope=config.output_slope)
    elif config.classifier == "inception":
        network = model.inception(1 + more)
    else:
        network = model.r2unet(1 + more, outputs=2, filters=config.filters, t=config.recurrences)
    return model.scaled(network, config.scaling, phase, finer=finer.CHANNELS * config.finer, velocity=config.velocity,
                        parameters=len(config.names))


def density_channels(config, phase):
    """Channels that the network of a phase sees of the density; those of what else it sees follow them."""
    return model.CHANNELS if phase == REGRESS and config.surroundings else 1


def radius(network, config):
    """Cells to either side of an output cell that a network sees."""
    if network.name == CLASSIFY and config.classifier == "inception":
        return model.INCEPTION_RADIUS
    return model.r2unet_radius(config.recurrences) + (model.surroundings_radius() if config.surroundings else 0)


def surroundings(network, density, config):
    """What phase 2 sees of the density of a whole periodic box, (n, n, n, 1): (n, n, n, CHANNELS).

    network: `model.surroundings()`. What stands behind the density, (n, n, n, more), stands behind these, too.
    """
    found = predict_whole(network, density[..., :1], radius=model.surroundings_radius(), patch=config.patch)
    return np.concatenate([found, density[..., 1:]], axis=-1) if density.shape[-1] > 1 else found


def predict_field(network, density, config, *, parameters=(), tile=None, context=None, store=None, progress=None):
    """The output of a network for a whole periodic box, (n, n, n, channels) float32; see `kerasgal.tiling`.

    density: in units of the mean, (n, n, n), or (n, n, n, 1), which may be read as it is needed, or of a run that sees
    more, what `data.seen` makes of it. parameters: those of the simulation that the run is given, (p,).
    tile: cells per side that are predicted at once, border of `context` included; without them the whole box where
    memory is enough, else tiles whose border is what the network sees, if memory holds that. store: see
    `kerasgal.tiling.predict_box`. Raises SettingError without what else a run sees, or its parameters.
    """
    if len(parameters) != len(config.names):
        raise SettingError(f"the run is given {', '.join(config.names) or 'no'} as `parameters`, received "
                           f"{', '.join(map(str, parameters)) or 'none'}")
    field = density if len(density.shape) == 4 else density[..., None]
    if config.of_particles and field.shape[-1] == 1:
        raise SettingError(f"the run sees channels={config.channels!r}, received a density alone")
    return predict_whole(network, field, radius=radius(network, config), patch=config.patch, multiple=POOLINGS,
                         tile=tile, context=context, parameters=parameters, store=store, progress=progress)


def draw_galaxies(counts, boxsize, scatter, seed=0):
    """Positions, (g, 3) in the unit of boxsize, of galaxies drawn from a field of expected numbers, (n, n, n).

    The numbers in cells scatter as the `Scatter` says, and within a cell galaxies fall evenly. The field may be a
    dataset; it is read slab by slab.
    """
    rng, cells, first = np.random.default_rng(seed), [], 0
    for slab in slabs(counts):
        number = draw(slab, rng, scatter).astype(int)
        cells.append(first + np.repeat(np.arange(slab.size), number.ravel()))
        first += slab.size
    return within(np.concatenate(cells), counts.shape, boxsize, rng)
