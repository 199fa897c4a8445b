"""The baseline to beat: haloes from peaks of the smoothed initial density above the spherical collapse barrier.

Excursion-set reasoning made into objects, as in the peak-patch picture of Bond & Myers 1996: the largest scale on
which the linear density reaches the barrier decides which halo a cell belongs to.
"""

import numpy as np

from kerasgal.apps.protohalo.watershed import radius
from kerasgal.grid import top_hats

BARRIER = 1.686  # linear density contrast at which a sphere collapses
RATIO = 1.15  # between the volumes of successive filters


def peak_haloes(delta, minimum):
    """Label volume of the haloes that peaks make: (n, n, n) int32, 0 the largest, -1 none.

    delta: linear density contrast extrapolated to the final redshift, (n, n, n).
    minimum: fewest cells of a halo.
    From the largest sphere to the smallest, each free peak above the barrier takes the free cells within the radius;
    one that finds less than half of its sphere free belongs to a larger halo and takes none.
    """
    from scipy import ndimage

    n = delta.shape[0]
    found = np.full(delta.shape, -1, np.int32)
    sizes = []
    volume = (n / 2) ** 3 / RATIO ** np.arange(200)  # from a third of the box in radius
    scales = radius(volume[volume >= minimum])
    for scale, smooth in zip(scales, top_hats(delta, scales)):
        peaks = (smooth >= BARRIER) & (smooth == ndimage.maximum_filter(smooth, 3, mode="wrap")) & (found < 0)
        cells = np.argwhere(peaks)
        reach = int(scale)
        offsets = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
        offsets = offsets[(offsets**2).sum(axis=1) <= scale**2]
        for peak in cells[np.argsort(-smooth[peaks])]:
            sphere = tuple(((peak + offsets) % n).T)
            free = found[sphere] < 0
            if free.sum() >= max(minimum, len(offsets) / 2):
                found[tuple(index[free] for index in sphere)] = len(sizes)
                sizes.append(free.sum())
    order = np.argsort(-np.array(sizes, dtype=int), kind="stable")
    number = np.empty(len(order) + 1, np.int32)
    number[order] = np.arange(len(order))
    number[-1] = -1
    return number[found]
