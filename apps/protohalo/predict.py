"""A trained run applied to a simulation: distance map, haloes, catalogue and mass function."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kerasgal.apps.protohalo import watershed
from kerasgal.apps.protohalo.config import APP, TrainConfig
from kerasgal.apps.protohalo.model import unet
from kerasgal.errors import DataError
from kerasgal.files import check_room, replacing
from kerasgal.statistics import mass_bins, mass_function
from kerasgal.tiling import predict_box
from kerasgal.training import load_config, load_weights


@dataclass
class Run:
    """A trained run: its configuration, the network with its best weights and the calibrated line of the cut."""

    config: TrainConfig
    model: object
    line: watershed.Line


def load_run(folder):
    """A `Run` from its folder; raises DataError if the folder is none, has no weights or no calibration."""
    config = load_config(folder, TrainConfig, APP)
    model = load_weights(build(config), folder)
    path = Path(folder) / "calibration.json"
    if not path.exists():
        raise DataError(f"{folder} has no calibration.json: its training did not come to an end; go on with "
                        "`kerasgal protohalo train --resume`")
    try:
        line = watershed.Line(**json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise DataError(f"{path} has no line of the cut: {error}") from error
    return Run(config, model, line)


def build(config):
    """The U-Net of a configuration, not compiled."""
    return unet(config.levels, config.filters, config.dropout, config.output_slope)


def predict_distance(model, config, delta, *, tile=None, halo=None, progress=None, warn=None):
    """Predicted distance map of a whole periodic box, (n, n, n) float32, from its normalised density, same shape.

    By default the halo of a tile is the margin that the loss left out in training, and its core a training patch.
    """
    multiple = 2**config.levels
    if halo is None:
        halo = -(-config.margin // multiple) * multiple
    if tile is None:
        tile = -(-config.patch // multiple) * multiple + 2 * halo
    return predict_box(model, delta[..., None], tile=tile, halo=halo, multiple=multiple,
                       progress=progress, warn=warn)[..., 0]


def find_trajectories(distance, config):
    """Trajectories of the native watershed's regions of a map."""
    markers, smooth = watershed.find_markers(distance, config.smoothing, config.marker, config.separation)
    labels = watershed.flood(smooth, markers, config.floor)
    if config.depth:
        labels = watershed.join_fragments(smooth, labels, config.depth)
    return watershed.trajectories(distance, labels)


def find_haloes(distance, config, line=None):
    """Label volume of a map, (n, n, n) int32, 0 the largest halo and -1 none: adaptive, or native without a line."""
    found = find_trajectories(distance, config)
    sizes = found.size if line is None else watershed.cut_sizes(found, line)
    return watershed.label_haloes(found, sizes, distance.shape, config.minimum)


def write_prediction(path, *, distance, halo_id, catalogue, boxsize, cell_mass, minimum, run, simulation,
                     overwrite=False):
    """Write the products of a prediction as HDF5.

    ::

        attributes      boxsize [Mpc/h], cell_mass [Msun/h], run, simulation
        distance        (n, n, n) predicted distance map
        halo_id         (n, n, n) row of /halos of every Lagrangian cell, -1 for none
        halos/...       halo_id, cells, mass [Msun/h], position (Lagrangian, Mpc/h), peak
        mass_function/  mass_edges [Msun/h], differential dn/dlog10 M and its error [(h/Mpc)^3 per decade],
                        cumulative n(> lower edge) [(h/Mpc)^3]
    """
    import h5py

    edges = mass_bins(minimum * cell_mass, max(catalogue["mass"].max(initial=0), 2 * minimum * cell_mass))
    differential, error = mass_function(catalogue["mass"], edges, boxsize**3)
    cumulative = np.array([(catalogue["mass"] >= edge).sum() for edge in edges[:-1]]) / boxsize**3
    check_room(path, 2 * distance.nbytes + 2**20)
    with replacing(path, overwrite) as temporary, h5py.File(temporary, "w") as file:
        file.attrs.update(format="kerasgal protohalo prediction", app=APP, boxsize=boxsize, cell_mass=cell_mass,
                          run=str(run), simulation=str(simulation))
        file["distance"], file["halo_id"] = distance, halo_id
        for name, values in catalogue.items():
            file[f"halos/{name}"] = values
        for name, values in {"mass_edges": edges, "differential": differential, "error": error,
                             "cumulative": cumulative}.items():
            file[f"mass_function/{name}"] = values
