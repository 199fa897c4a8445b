"""Loops over particles, compiled by Numba: cloud-in-cell both ways, triangular clouds, COLA's updates, friends of
friends.

To be imported inside functions: Numba takes a moment to start. Nothing is checked here, and arrays are contiguous.
float32 numbers stay float32, sums are taken in the order of the particles, and without `fastmath` nothing is
rearranged: the loops round as the same arithmetic by NumPy and SciPy does.
"""

import numpy as np

from kerasgal.compiled import compiled, root


@compiled
def _surround(x, cells, half, n):
    """The two cells along an axis of `n` whose centres surround x, and x's shares of them; half: 0.5, of x's type."""
    scaled = x * cells - half
    floor = np.floor(scaled)
    lower = np.int64(floor)
    if lower < 0 or lower >= n:
        lower %= n
    upper = lower + 1 if lower + 1 < n else 0
    share = np.float32(scaled - floor)
    # Unsigned: with what may be negative every look-up is half as slow again.
    return np.uint64(lower), np.uint64(upper), np.float32(1) - share, share


@compiled
def deposit(position, cells, half, weight, total):
    """Add particles (p, 3) of weight (p,) to `total`, (x, y, z), both float32, which is periodic along each axis.

    cells: in a unit of length, in the type of `position`, as `half`, 0.5, is.
    """
    nx, ny, nz = total.shape
    long, wide, flat = np.uint64(ny), np.uint64(nz), total.reshape(-1)
    for particle in range(len(position)):
        x0, x1, share_x0, share_x1 = _surround(position[particle, 0], cells, half, nx)
        y0, y1, share_y0, share_y1 = _surround(position[particle, 1], cells, half, ny)
        z0, z1, share_z0, share_z1 = _surround(position[particle, 2], cells, half, nz)
        row, share = (x0 * long + y0) * wide, share_x0 * share_y0
        flat[row + z0] += share * share_z0 * weight[particle]
        flat[row + z1] += share * share_z1 * weight[particle]
        row, share = (x0 * long + y1) * wide, share_x0 * share_y1
        flat[row + z0] += share * share_z0 * weight[particle]
        flat[row + z1] += share * share_z1 * weight[particle]
        row, share = (x1 * long + y0) * wide, share_x1 * share_y0
        flat[row + z0] += share * share_z0 * weight[particle]
        flat[row + z1] += share * share_z1 * weight[particle]
        row, share = (x1 * long + y1) * wide, share_x1 * share_y1
        flat[row + z0] += share * share_z0 * weight[particle]
        flat[row + z1] += share * share_z1 * weight[particle]


@compiled
def _three(x, cells, half, n):
    """The cell along an axis of `n` that x is in and its two neighbours, and x's shares of the three."""
    scaled = x * cells
    floor = np.floor(scaled)
    middle = np.int64(floor)
    if middle < 0 or middle >= n:
        middle %= n
    lower, upper = middle - 1 if middle > 0 else n - 1, middle + 1 if middle + 1 < n else 0
    offset, one_half = np.float32(scaled - floor - half), np.float32(0.5)
    below, above = one_half - offset, one_half + offset
    cloud = one_half * below * below, np.float32(0.75) - offset * offset, one_half * above * above
    return (np.uint64(lower), np.uint64(middle), np.uint64(upper)), cloud


@compiled
def deposit_tsc(position, cells, half, weight, total):
    """Add particles to `total` as triangular-shaped clouds; arguments as those of `deposit`."""
    n, side, flat = len(total), np.uint64(len(total)), total.reshape(-1)
    for particle in range(len(position)):
        x, share_x = _three(position[particle, 0], cells, half, n)
        y, share_y = _three(position[particle, 1], cells, half, n)
        z, share_z = _three(position[particle, 2], cells, half, n)
        for i in range(3):
            for j in range(3):
                row, share = (x[i] * side + y[j]) * side, share_x[i] * share_y[j] * weight[particle]
                for k in range(3):
                    flat[row + z[k]] += share * share_z[k]


@compiled
def read_out(field, factor, position, cells, half, value, channel):
    """Interpolate factor * field, (n, n, n) float32, to particles (p, 3): into column `channel` of `value`."""
    n, side, flat = len(field), np.uint64(len(field)), field.reshape(-1)
    for particle in range(len(position)):
        x0, x1, share_x0, share_x1 = _surround(position[particle, 0], cells, half, n)
        y0, y1, share_y0, share_y1 = _surround(position[particle, 1], cells, half, n)
        z0, z1, share_z0, share_z1 = _surround(position[particle, 2], cells, half, n)
        row, share, total = (x0 * side + y0) * side, share_x0 * share_y0, np.float32(0)
        total += share * share_z0 * (flat[row + z0] * factor)
        total += share * share_z1 * (flat[row + z1] * factor)
        row, share = (x0 * side + y1) * side, share_x0 * share_y1
        total += share * share_z0 * (flat[row + z0] * factor)
        total += share * share_z1 * (flat[row + z1] * factor)
        row, share = (x1 * side + y0) * side, share_x1 * share_y0
        total += share * share_z0 * (flat[row + z0] * factor)
        total += share * share_z1 * (flat[row + z1] * factor)
        row, share = (x1 * side + y1) * side, share_x1 * share_y1
        total += share * share_z0 * (flat[row + z0] * factor)
        total += share * share_z1 * (flat[row + z1] * factor)
        value[particle, channel] = total


@compiled
def _six(x, cells, half, n):
    """Six cells along an axis of `n`, the middle two of which surround x; x's shares of these two, and slopes.

    The slopes are what the six enter 12 times the derivative at x with: its interpolation between the middle two, where
    it is (f(-2) - 8 f(-1) + 8 f(1) - f(2)) / 12 by differences of four neighbours.
    """
    scaled = x * cells - half
    floor = np.floor(scaled)
    low = np.int64(floor)
    above, eight = np.float32(scaled - floor), np.float32(8)
    below = np.float32(1) - above
    if low < 2 or low + 3 >= n:
        place = (np.uint64((low - 2) % n), np.uint64((low - 1) % n), np.uint64(low % n), np.uint64((low + 1) % n),
                 np.uint64((low + 2) % n), np.uint64((low + 3) % n))
    else:
        place = (np.uint64(low - 2), np.uint64(low - 1), np.uint64(low), np.uint64(low + 1), np.uint64(low + 2),
                 np.uint64(low + 3))
    slope = (below, above - eight * below, -eight * above, eight * below, eight * above - below, -above)
    return place, below, above, slope


@compiled
def gradient(field, factor, position, cells, half, value):
    """Interpolate factor times 12 times the gradient of `field`, (n, n, n), per cell to particles: `value`, (p, 3).

    By differences of four neighbours on the grid points and cloud-in-cell between these; all float32.
    """
    n, side, flat = len(field), np.uint64(len(field)), field.reshape(-1)
    for particle in range(len(position)):
        x, x0, x1, slope_x = _six(position[particle, 0], cells, half, n)
        y, y0, y1, slope_y = _six(position[particle, 1], cells, half, n)
        z, z0, z1, slope_z = _six(position[particle, 2], cells, half, n)
        z2, z3 = z[2], z[3]
        along_x = along_y = along_z = np.float32(0)
        for i in range(6):
            one, other = (x[i] * side + y[2]) * side, (x[i] * side + y[3]) * side
            along_x += slope_x[i] * (y0 * (z0 * flat[one + z2] + z1 * flat[one + z3])
                                     + y1 * (z0 * flat[other + z2] + z1 * flat[other + z3]))
        for i in range(6):
            one, other = (x[2] * side + y[i]) * side, (x[3] * side + y[i]) * side
            along_y += slope_y[i] * (x0 * (z0 * flat[one + z2] + z1 * flat[one + z3])
                                     + x1 * (z0 * flat[other + z2] + z1 * flat[other + z3]))
        for i in range(2):
            for j in range(2):
                row, share = (x[2 + i] * side + y[2 + j]) * side, (x1 if i else x0) * (y1 if j else y0)
                total = np.float32(0)
                for k in range(6):
                    total += slope_z[k] * flat[row + z[k]]
                along_z += share * total
        value[particle, 0] = factor * along_x
        value[particle, 1] = factor * along_y
        value[particle, 2] = factor * along_z


@compiled  # the first mode is divided by zero on the way
def solve_poisson(modes, kx, ky, kz, sharpen):
    """Divide by -k^2 and multiply by the factors `sharpen` of each axis, (n,), all float32.

    modes: real and imaginary parts of a density contrast's real FFT, (n, n, 2 (n // 2 + 1)), overwritten.
    """
    for i in range(modes.shape[0]):
        for j in range(modes.shape[1]):
            row = modes[i, j]
            for k in range(len(kz)):
                inverse = np.float32(-1) / (kx[i] * kx[i] + ky[j] * ky[j] + kz[k] * kz[k])
                row[2 * k] = row[2 * k] * inverse * sharpen[i] * sharpen[j] * sharpen[k]
                row[2 * k + 1] = row[2 * k + 1] * inverse * sharpen[i] * sharpen[j] * sharpen[k]
    modes[0, 0, 0] = modes[0, 0, 1] = 0  # no force from the mean density


@compiled
def drift(position, s1, s2, residual, first, second, third):
    """position += first * s1 + second * s2, then += third * residual; flat arrays, all float32."""
    for i in range(len(position)):
        position[i] = position[i] + (first * s1[i] + second * s2[i]) + third * residual[i]


@compiled
def kick(residual, force, s1, s2, first, second, third):
    """residual += third * (force - (first * s1 + second * s2)); flat arrays, all float32."""
    for i in range(len(residual)):
        residual[i] += third * (force[i] - (first * s1[i] + second * s2[i]))


@compiled
def counting_sort(key, order, start, result):
    """Write the numbers `order`, (p,), into `result` in the order of key[order]; equal ones keep their order.

    start: how many keys are less than 0, 1, 2, ...; overwritten.
    """
    for i in range(len(order)):
        particle = order[i]
        result[start[key[particle]]] = particle
        start[key[particle]] += 1


@compiled
def _distance(x, boxsize):
    """The length of a difference along an axis that is periodic."""
    if x > boxsize / 2:
        return x - boxsize
    if x < -boxsize / 2:
        return x + boxsize
    return x


@compiled
def _link(position, i, start, end, boxsize, square, parent):
    """Join the tree of particle i with those of its friends among the particles from `start` to `end`."""
    one = root(parent, i)
    for j in range(start, end):
        x = _distance(position[i, 0] - position[j, 0], boxsize)
        y = _distance(position[i, 1] - position[j, 1], boxsize)
        z = _distance(position[i, 2] - position[j, 2], boxsize)
        if x * x + y * y + z * z <= square:
            other = root(parent, j)
            if one < other:
                parent[other] = one
            else:
                parent[one] = other
                one = other


@compiled
def _cell(height, start, end, wanted):
    """Where the particles of cell `wanted` of a column stand: `height` is in order from `start` to `end`."""
    stop = end
    while start < stop:
        middle = (start + stop) // 2
        if height[middle] < wanted:
            start = middle + 1
        else:
            stop = middle
    while stop < end and height[stop] == wanted:
        stop += 1
    return start, stop


@compiled
def friends(position, column, height, first, cells, boxsize, length, parent):
    """Group particles with their friends, friends of friends and so on: particles of a group get one `parent`, (p,).

    Cells are at least `length` wide, so that friends are in neighbouring ones; there are as many as is needed, because
    only columns have an entry of their own, `first`, in which the cells of particles are looked up. Trees of friends
    are joined as each pair is met (Tarjan 1975, doi:10.1145/321879.321884): no list of pairs is made.

    position: (p, 3) sorted by `column` and in it by `height`, the cell along the last axis; first: the first particle
    of each column, and their number; parent: 0, 1, 2, ...
    """
    particles, square = len(position), length * length
    start = 0
    while start < particles:
        c, z = column[start], height[start]
        x, y = c // cells, c % cells
        end = start + 1
        while end < particles and column[end] == c and height[end] == z:
            end += 1
        # The cell itself, number 13 of the 27 around it, and half of its neighbours: pairs are met once
        for number in range(13, 27):
            other = (x + number // 9 - 1) % cells * cells + (y + number // 3 % 3 - 1) % cells
            low, high = _cell(height, first[other], first[other + 1], (z + number % 3 - 1) % cells)
            for i in range(start, end):
                _link(position, i, low, high, boxsize, square, parent)
        start = end
    for i in range(particles):
        parent[i] = root(parent, i)
