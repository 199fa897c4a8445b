"""A trained run applied to a whole box: where galaxies are, and how many."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kerasgal.apps.cascade import model
from kerasgal.apps.cascade.config import APP, POOLINGS, TrainConfig
from kerasgal.errors import DataError
from kerasgal.files import replacing
from kerasgal.tiling import predict_box
from kerasgal.training import load_config, load_weights

CLASSIFY, REGRESS = "classify", "regress"  # the run folders of the two phases, inside that of the cascade
CONTEXT = 8  # cells of a tile's border that are thrown away


@dataclass
class Run:
    """A trained run: its configuration and the two networks with their best weights."""

    config: TrainConfig
    classifier: object
    regressor: object

    def network(self):
        """Both as one network: density to [probability that the cell is occupied, expected galaxies]."""
        return model.cascade(self.classifier, self.regressor, self.config.threshold)


def build_classifier(config):
    """The network of phase 1, not compiled."""
    if config.classifier == "inception":
        network = model.inception()
    else:
        network = model.r2unet(outputs=2, filters=config.filters, t=config.recurrences)
    return model.scaled(network, config.scaling)


def build_regressor(config):
    """The network of phase 2, not compiled."""
    network = model.r2unet(filters=config.filters, t=config.recurrences, output_slope=config.output_slope)
    return model.scaled(network, config.scaling)


def load_classifier(folder):
    """Configuration and network of phase 1 of a run folder; raises DataError if it has none."""
    if not (Path(folder) / CLASSIFY / "config.json").exists():
        raise DataError(f"{folder} is not a run folder of {APP}: it has no {CLASSIFY}/config.json")
    config = load_config(Path(folder) / CLASSIFY, TrainConfig, APP)
    return config, load_weights(build_classifier(config), Path(folder) / CLASSIFY)


def load_run(folder):
    """A `Run` from its folder; raises DataError if it is none, or phase 2 has not been trained yet."""
    _, classifier = load_classifier(folder)
    if not (Path(folder) / REGRESS / "config.json").exists():
        raise DataError(f"{folder} has phase 1 only: train phase 2 with `kerasgal cascade train --phase regress`")
    config = load_config(Path(folder) / REGRESS, TrainConfig, APP)
    return Run(config, classifier, load_weights(build_regressor(config), Path(folder) / REGRESS))


def predict_field(network, density, config, *, tile=None, context=CONTEXT, progress=None):
    """The output of a network for a whole periodic box, (n, n, n, channels) float32; see `kerasgal.tiling`.

    density: (n, n, n) in units of the mean; tile: cells per side that are predicted at once, border of `context` included,
    by default the training's sub-cube and its border.
    """
    return predict_box(network, density[..., None], tile=tile or config.patch + 2 * context, context=context,
                       multiple=POOLINGS, progress=progress)


def draw_galaxies(counts, boxsize, seed=0):
    """Positions, (g, 3) in the unit of boxsize, of galaxies drawn from a field of expected numbers, (n, n, n).

    The number in each cell is Poisson, and within the cell galaxies fall evenly.
    """
    rng = np.random.default_rng(seed)
    drawn = rng.poisson(counts).ravel()
    cell = np.stack(np.unravel_index(np.repeat(np.arange(counts.size), drawn), counts.shape), axis=1)
    return ((cell + rng.uniform(size=cell.shape)) * (boxsize / len(counts))).astype(np.float32)


def write(path, probability, counts, *, boxsize, run, simulation, galaxies=None, overwrite=False):
    """Write a prediction as HDF5.

    Datasets: `probability` that a cell holds a galaxy and `count`, galaxies in it, both (n, n, n) float32; with
    `galaxies` also `galaxies/position`, (g, 3) Mpc/h. Attributes: boxsize [Mpc/h], and where all came from.
    """
    import h5py

    with replacing(path, overwrite) as temporary, h5py.File(temporary, "w") as file:
        file.attrs.update(app=APP, boxsize=boxsize, run=str(run), source=str(simulation))
        file["probability"], file["count"] = probability, counts
        if galaxies is not None:
            file["galaxies/position"] = galaxies
