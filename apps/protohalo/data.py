"""Input and target of protohalo from a Simulation file (Bernardini et al. 2020, Sec. 2.2)."""

import numpy as np

from kerasgal.channel_names import count, vector_of
from kerasgal.channels import initial_channels
from kerasgal.conditioning import named
from kerasgal.domain import of_box
from kerasgal.errors import DataError
from kerasgal.simulation import opened


def normalise(delta):
    """Density contrast divided by its standard deviation, (n, n, n) float32."""
    deviation = delta.std()
    if deviation == 0:
        raise DataError("the initial density contrast is zero everywhere")
    return delta / deviation


def network_input(delta, boxsize, names=("density",)):
    """What the network sees of a box, (n, n, n, channel) float32: channels, see `kerasgal.channels`.

    All are of the density over its standard deviation, so that the amplitude and the redshift divide out; the network
    divides those other than the density by what they have in its training.
    """
    delta = normalise(delta)
    return delta[..., None] if tuple(names) == ("density",) else initial_channels(delta, boxsize, names)


def mean_squares(channels, names):
    """The mean square of each channel of `network_input`, (channel,); 1 of the density, one for the three of a vector.
    """
    squares = np.array([np.mean(np.square(channels[..., channel], dtype=np.float64))
                        for channel in range(channels.shape[-1])])
    vector = vector_of(names)
    if vector is not None:
        squares[vector:vector + 3] = squares[vector:vector + 3].mean()
    if "density" in names:
        squares[count(names[:names.index("density")])] = 1.0
    return squares


def lagrangian_halo_id(simulation, minimum):
    """The halo of every Lagrangian cell, (n, n, n) int32: its row in the catalogue, -1 for none.

    Where several particles share a cell the most massive halo has it: rows are in descending order of mass, so it is
    the lowest one. Haloes of fewer than `minimum` cells' mass are background.
    """
    halo_id = simulation["halo_id"][...]
    rows = simulation["halos/count"].shape[0]
    if halo_id.min() < -1 or halo_id.max() >= rows:
        raise DataError(f"{simulation.path}: halo_id runs from {halo_id.min()} to {halo_id.max()}; accepted are -1 "
                        f"(none) to {rows - 1}, the last of {rows} halos")
    factor = halo_id.shape[0] // simulation.gridsize
    if factor > 1:
        n = simulation.gridsize
        halo_id = np.where(halo_id < 0, np.iinfo(np.int32).max, halo_id)
        halo_id = halo_id.reshape(n, factor, n, factor, n, factor).min(axis=(1, 3, 5))
        halo_id[halo_id == np.iinfo(np.int32).max] = -1
    large = np.append(true_cells(simulation) >= minimum, False)  # the last one stands for id -1
    return np.where(large[halo_id], halo_id, -1).astype(np.int32)


def required_halo_id(simulation, minimum):
    """`lagrangian_halo_id`, but raises DataError if no halo is large enough."""
    halo_id = lagrangian_halo_id(simulation, minimum)
    if halo_id.max() < 0:
        largest = true_cells(simulation).max(initial=0)
        raise DataError(f"{simulation.path} has no halo of at least {minimum} cells; its largest has {largest:g}: "
                        "choose a smaller `minimum` (the preset demo has 200), or a larger simulation", value=largest)
    return halo_id


def true_cells(simulation):
    """Size of every halo in cells of the density grid, (h,): its particles over particles per cell."""
    particles_per_cell = (simulation["halo_id"].shape[0] / simulation.gridsize) ** 3
    return simulation["halos/count"][...] / particles_per_cell


def distance_map(halo_id):
    """The regression target: the distance of each cell from its halo's border, 1 at every halo's centre.

    halo_id: (n, n, n), -1 for background. Returns (n, n, n) float32 between 0 (background) and 1. The Euclidean
    distance transform of the multi-label map (Sec. 2.2), in the periodic box, divided by each halo's maximum.
    """
    import edt

    if halo_id.max() < 0:
        return np.zeros(halo_id.shape, np.float32)
    labels = halo_id.astype(np.int32) + 1
    # No cell is farther from its halo's border than the radius of the sphere with the halo's volume.
    largest = np.bincount(labels.ravel())[1:].max()
    pad = min(int(np.ceil((3 * largest / (4 * np.pi)) ** (1 / 3))) + 1, halo_id.shape[0])
    distance = edt.edt(np.pad(labels, pad, mode="wrap"), black_border=False, parallel=0)
    core = slice(pad, -pad)
    # A halo that fills the whole box has no border and infinite distances; no other one exceeds the padding.
    distance = np.minimum(distance[core, core, core], pad)
    maximum = np.zeros(labels.max() + 1, np.float32)
    np.maximum.at(maximum, labels.ravel(), distance.ravel())
    maximum[0] = 1.0
    return distance / np.maximum(maximum, 1e-6)[labels]


def load(source, minimum, names=("density",), parameters=()):
    """Input, (n, n, n, channel), and target, (n, n, n, 1), float32, of a Simulation or its path; the domain's features.

    names: of the input's channels; parameters: names of those that the network is given, which are among the features.

    Raises DataError if there are no haloes, none of at least `minimum` cells, values that are not finite, or a
    parameter that the file does not say.
    """
    with opened(source, require=("initial/delta", "halo_id", "halos/mass", "halos/count")) as simulation:
        delta = simulation.delta()
        halo_id = required_halo_id(simulation, minimum)
        features = of_box(simulation, "initial/delta", deviation=delta.std()) | named(simulation, parameters)
        boxsize = simulation.boxsize
    return network_input(delta, boxsize, names), distance_map(halo_id)[..., None], features
