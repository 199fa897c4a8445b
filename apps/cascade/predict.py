"""From networks to galaxies: where they are in a whole box, and how many."""

import numpy as np

from kerasgal.apps.cascade import model
from kerasgal.apps.cascade.config import POOLINGS
from kerasgal.tiling import predict_box, predict_whole

CLASSIFY, REGRESS = "classify", "regress"  # the phases, and their folders inside a run's
CONTEXT = 8  # cells of a tile's border that are thrown away


def build(config, phase):
    """The network of a phase, not compiled."""
    if phase == REGRESS:
        network = model.r2unet(filters=config.filters, t=config.recurrences, output_slope=config.output_slope)
    elif config.classifier == "inception":
        network = model.inception()
    else:
        network = model.r2unet(outputs=2, filters=config.filters, t=config.recurrences)
    return model.scaled(network, config.scaling, phase)


def radius(network, config):
    """Cells to either side of an output cell that a network sees."""
    inner = network.layers[-1].name
    return model.INCEPTION_RADIUS if inner == "inception" else model.r2unet_radius(config.recurrences)


def predict_field(network, density, config, *, tile=None, context=CONTEXT, progress=None):
    """The output of a network for a whole periodic box, (n, n, n, channels) float32; see `kerasgal.tiling`.

    density: (n, n, n) in units of the mean; tile: cells per side that are predicted at once, border of `context`
    included. Without one the whole box is where memory is enough, else the training's sub-cube and its border.
    """
    options = {"tile": tile or config.patch + 2 * context, "context": context, "multiple": POOLINGS,
               "progress": progress}
    if tile:
        return predict_box(network, density[..., None], **options)
    return predict_whole(network, density[..., None], radius=radius(network, config), **options)


def draw_galaxies(counts, boxsize, seed=0):
    """Positions, (g, 3) in the unit of boxsize, of galaxies drawn from a field of expected numbers, (n, n, n).

    The number in each cell is Poisson, and within the cell galaxies fall evenly.
    """
    rng = np.random.default_rng(seed)
    drawn = rng.poisson(counts).ravel()
    cell = np.stack(np.unravel_index(np.repeat(np.arange(counts.size), drawn), counts.shape), axis=1)
    return ((cell + rng.uniform(size=cell.shape)) * (boxsize / len(counts))).astype(np.float32)
