"""The baselines to beat: haloes from peaks of the smoothed initial density that collapse, as spheres or ellipsoids.

Excursion-set reasoning made into objects, as in the peak-patch picture of Bond & Myers 1996: the largest scale on
which the linear density reaches the barrier decides which halo a cell belongs to. For a sphere the barrier is one
number. Tides shear a patch, and it takes more density to collapse along all three axes: that barrier depends on the
tidal field at the peak (Sheth, Mo & Tormen 2001, astro-ph/9907024), as in mass-Peak Patch (Stein et al. 2019,
arXiv:1810.07727).
"""

import numpy as np

from kerasgal.apps.protohalo.watershed import radius
from kerasgal.channels import tidal_tensor
from kerasgal.grid import top_hats

BARRIER = 1.686  # linear density contrast at which a sphere collapses
RATIO = 1.15  # between the volumes of successive filters
STEPS = 200  # of the iteration for the barrier of an ellipsoid


def ellipsoidal_barrier(tides):
    """Linear density contrast at which patches in a tidal field collapse along all axes; infinity where they never do.

    tides: eigenvalues of the tidal tensor, (..., 3) in rising order, whose sums, the density, are positive.
    Eq. 3 of astro-ph/9907024 (beta = 0.47, gamma = 0.615), a fit to the collapse of ellipsoids of moderate prolateness:
    for patches that are sheared along one axis alone (p = e) it gives the sphere's barrier.
    """
    low, middle, high = np.moveaxis(np.asarray(tides, float), -1, 0)
    density = low + middle + high
    ellipticity = (high - low) / (2 * density)
    prolateness = (high + low - 2 * middle) / (2 * density)
    shape = 5 * np.maximum(ellipticity**2 - np.sign(prolateness) * prolateness**2, 0)
    ratio = np.ones_like(density)
    with np.errstate(over="ignore"):
        for _ in range(STEPS):  # from below, so the first root is found; without one it grows beyond all bounds
            ratio = 1 + 0.47 * (shape * ratio**2) ** 0.615
    return BARRIER * np.where(ratio < 100, ratio, np.inf)


def tides_at(smooth, cells):
    """Eigenvalues of the tidal tensor, d_i d_j of the inverse Laplacian of a field, at some cells: (cells, 3), rising.

    smooth: (n, n, n), periodic. cells: (cells, 3) int.
    """
    tensor = np.empty((len(cells), 3, 3))
    for i, j, part in tidal_tensor(smooth):
        tensor[:, i, j] = tensor[:, j, i] = part[tuple(cells.T)]
    return np.linalg.eigvalsh(tensor)


def collapsed(smooth, cells, collapse):
    """Which cells of a smoothed field, (cells, 3), have collapsed: (cells,) bool. All are above the sphere's barrier.

    collapse: "spherical" or "ellipsoidal".
    """
    if collapse == "spherical" or not len(cells):
        return np.ones(len(cells), bool)
    return smooth[tuple(cells.T)] >= ellipsoidal_barrier(tides_at(smooth, cells))


def peak_haloes(delta, minimum, collapse="spherical"):
    """Label volume of the haloes that peaks make: (n, n, n) int32, 0 the largest, -1 none.

    delta: linear density contrast extrapolated to the final redshift, (n, n, n).
    minimum: fewest cells of a halo.
    collapse: "spherical" or "ellipsoidal".
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
        cells = cells[collapsed(smooth, cells, collapse)]
        reach = int(scale)
        offsets = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
        offsets = offsets[(offsets**2).sum(axis=1) <= scale**2]
        for peak in cells[np.argsort(-smooth[tuple(cells.T)], kind="stable")]:
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
