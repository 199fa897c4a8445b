"""From an initial density to haloes: the network, the distance map of a whole box, watershed, adaptive cut."""

from kerasgal.apps.protohalo import data, watershed
from kerasgal.apps.protohalo.model import receptive_radius, unet
from kerasgal.channel_names import count, names_of, vector_of
from kerasgal.conditioning import parameter_names
from kerasgal.tiling import predict_whole


def build(config):
    """The U-Net of a configuration, not compiled."""
    names = names_of(config.channels)
    return unet(config.levels, config.filters, config.dropout, config.output_slope, config.arrangement, count(names),
                scaled=names != ("density",), parameters=len(parameter_names(config)))


def predict_distance(network, config, delta, boxsize, *, parameters=(), tile=None, context=None, progress=None):
    """Predicted distance map of a whole periodic box, (n, n, n) float32, from its density contrast, same shape.

    parameters: of the box, (p,), where the network is given some; see `kerasgal.conditioning.parameters_of`.
    The box passes through the network at once where memory is enough. Else, or where one of them is given, tiles do, by
    themselves with what the network sees as their context where memory holds that; see `kerasgal.tiling.choose_tiles`.
    """
    names = names_of(config.channels)
    field = data.network_input(delta, boxsize, names)
    return predict_whole(network, field, radius=receptive_radius(config.levels), patch=config.patch,
                         multiple=2**config.levels, tile=tile, context=context, parameters=parameters,
                         mirrored=config.mirrored, vector=vector_of(names), progress=progress)[..., 0]


def find_trajectories(distance, config):
    """Trajectories of the native watershed's regions of a map.

    Smoothing finds markers. The map that is flooded is the predicted one: flooded smooth, regions of a perfect map
    would be wider than its haloes.
    """
    markers, smooth = watershed.find_markers(distance, config.smoothing, config.marker, config.separation)
    flooded = smooth if config.flooded == "smoothed" else distance
    del smooth  # as large as the map: memory for what follows
    labels = watershed.native(flooded, markers, config.floor, out=markers)
    if config.depth or config.dynamics:
        labels = watershed.join_fragments(flooded, labels, config.depth, config.dynamics, out=labels)
    del flooded
    return watershed.trajectories(distance, labels, config.volume)


def find_haloes(distance, config, line=None):
    """Label volume of a map, (n, n, n) int32, 0 the largest halo and -1 none: adaptive, or native without a line."""
    found = find_trajectories(distance, config)
    sizes = found.size if line is None else watershed.cut_sizes(found, line)
    return watershed.label_haloes(found, sizes, distance.shape, config.minimum)
