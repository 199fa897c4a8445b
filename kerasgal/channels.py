"""What a network may see of an initial density beside the density itself: channels on the same grid.

Gravity is long-ranged: a network that sees a patch does not see what pulls at it from beyond. The potential, the
displacement and the tide have that in every cell. All are of linear theory, by FFT from the density contrast, and
proportional to it.
"""

import numpy as np

from kerasgal.channel_names import CHANNELS, count


def initial_channels(delta, boxsize, names=("density", "potential", "displacement")):
    """Channels of an initial density, side by side.

    Parameters
    ----------
    delta : array
        (n, n, n), density contrast of a periodic box.
    boxsize : float
        Mpc/h.
    names : sequence of str
        Of `CHANNELS`, in the order that is wanted.

    Returns
    -------
    array
        (n, n, n, channel), float32: `density`, delta itself; `potential`, whose Laplacian is delta, (Mpc/h)^2;
        `displacement`, of first order, three components, Mpc/h; `tide`, two invariants of the traceless tidal tensor
        K_ij = d_i d_j phi - delta_ij delta / 3, (K_ij K_ij)^(1/2) and (K_ij K_jk K_ki)^(1/3), both proportional to
        delta and the same however the box is turned.

    Examples
    --------
    >>> import numpy as np
    >>> from kerasgal.channels import initial_channels
    >>> delta = np.cos(2 * np.pi * np.arange(16) / 16)[:, None, None] * np.ones((16, 16, 16))
    >>> made = initial_channels(delta, 10.0, ["density", "tide"])
    >>> made.shape, bool(np.allclose(made[..., 1], np.sqrt(2 / 3) * abs(delta), atol=1e-6))
    ((16, 16, 16, 3), True)
    """
    from kerasgal.nbody import displacement_1lpt  # not for settings, which need the names alone

    made = {"density": lambda: delta[..., None], "potential": lambda: potential(delta, boxsize)[..., None],
            "displacement": lambda: displacement_1lpt(delta, boxsize), "tide": lambda: tidal_invariants(delta)}
    channels = np.empty((*delta.shape, count(names)), np.float32)
    place = 0
    for name in names:
        channels[..., place:place + CHANNELS[name]] = made[name]()
        place += CHANNELS[name]
    return channels


def potential(delta, boxsize):
    """The potential, (n, n, n), of mean zero, whose Laplacian is a density contrast, (n, n, n); boxsize: Mpc/h."""
    import scipy.fft

    modes = scipy.fft.rfftn(delta, workers=-1)
    axes = _frequencies(len(delta), 2 * np.pi / boxsize)
    return scipy.fft.irfftn(-modes / _squared(axes), delta.shape, workers=-1)


def tidal_tensor(delta):
    """The second derivatives of the potential, one after another.

    Parameters
    ----------
    delta : array
        (n, n, n), density contrast of a periodic box.

    Yields
    ------
    i, j : int
        i <= j.
    array
        (n, n, n), d_i d_j phi. Those of i = j add up to delta, less its mean.

    Examples
    --------
    >>> import numpy as np
    >>> from kerasgal.channels import tidal_tensor
    >>> delta = np.random.default_rng(0).normal(size=(8, 8, 8))
    >>> trace = sum(part for i, j, part in tidal_tensor(delta) if i == j)
    >>> bool(np.allclose(trace, delta - delta.mean()))
    True
    """
    import scipy.fft

    n = len(delta)
    axes = _frequencies(n, 1.0)
    modes = scipy.fft.rfftn(delta, workers=-1) / _squared(axes)
    # A wave of two cells has no slope on the grid: mixed derivatives of it vanish.
    slopes = [np.where(np.abs(axis) < n / 2, axis, 0) for axis in axes]
    for i in range(3):
        for j in range(i, 3):
            product = axes[i]**2 if i == j else slopes[i] * slopes[j]
            yield i, j, scipy.fft.irfftn(product * modes, delta.shape, workers=-1)


def tidal_invariants(delta):
    """The two invariants of `initial_channels`, (n, n, n, 2), of a density contrast, (n, n, n)."""
    tensor = {(i, j): part for i, j, part in tidal_tensor(delta)}
    trace = sum(tensor[i, i] for i in range(3)) / 3
    (xx, yy, zz), (xy, xz, yz) = [[tensor[i, i] - trace for i in range(3)],
                                  [tensor[place] for place in ((0, 1), (0, 2), (1, 2))]]
    squared = xx**2 + yy**2 + zz**2 + 2 * (xy**2 + xz**2 + yz**2)
    # The trace of the cube of a traceless symmetric matrix is three times its determinant.
    determinant = xx * (yy * zz - yz**2) - xy * (xy * zz - yz * xz) + xz * (xy * yz - yy * xz)
    return np.stack([np.sqrt(squared), np.cbrt(3 * determinant)], axis=-1)


def _frequencies(n, fundamental):
    """Wavenumbers of a real FFT along its axes, shaped to broadcast, in units of 1 / `fundamental`."""
    full, half = fundamental * np.fft.fftfreq(n, 1 / n), fundamental * np.fft.rfftfreq(n, 1 / n)
    return full[:, None, None], full[:, None], half


def _squared(axes):
    """Their squared length; infinite for the mean, which has no potential."""
    squared = axes[0]**2 + axes[1]**2 + axes[2]**2
    squared[0, 0, 0] = np.inf
    return squared
