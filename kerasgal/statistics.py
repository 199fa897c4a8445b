"""Summary statistics of fields and catalogues."""

import numpy as np
import scipy.fft


def power_spectrum(delta, boxsize, bins=None, cross=None, compensate=None):
    """Power spectrum of a periodic field, averaged over shells of the wavenumber.

    delta: (n, n, n); boxsize: Mpc/h; bins: edges of the shells in h/Mpc, by default shells as wide as the
    fundamental mode 2 pi / boxsize, centred on its multiples, up to the Nyquist wavenumber; cross: a second
    field (n, n, n), for the cross spectrum; compensate: "cic" divides by the square of the cloud-in-cell
    window (of both fields).
    Returns (k, P, n_modes): the mean |k| of each shell's modes in h/Mpc, their mean
    power in (Mpc/h)^3, and their number, where k and -k count as two although a real field has them in
    common: the sample variance of a Gaussian field is 2 P^2 / n_modes. Shells without modes have NaN.
    Raises ValueError if the fields' shapes do not fit or `compensate` is unknown.
    """
    n = len(delta)
    if delta.shape != (n, n, n) or (cross is not None and cross.shape != delta.shape):
        received = delta.shape if cross is None else (delta.shape, cross.shape)
        raise ValueError(f"power_spectrum takes fields of one shape (n, n, n). Received: {received}")
    if compensate not in (None, "cic"):
        raise ValueError(f"compensate must be None or 'cic'. Received: {compensate!r}")
    fundamental = 2 * np.pi / boxsize
    if bins is None:
        bins = fundamental * np.arange(0.5, n / 2)
    first = scipy.fft.rfftn(delta, workers=-1)
    second = first if cross is None else scipy.fft.rfftn(cross, workers=-1)
    power = (first.real * second.real + first.imag * second.imag) * (boxsize**3 / n**6)
    index = scipy.fft.fftfreq(n, 1 / n), scipy.fft.rfftfreq(n, 1 / n)
    if compensate == "cic":
        # The window of one axis is sinc^2, and the power carries it twice (Jing 2005, astro-ph/0409240).
        full, half = (np.sinc(axis / n)**4 for axis in index)
        power /= full[:, None, None] * full[:, None] * half
    k = fundamental * np.sqrt(index[0][:, None, None]**2 + index[0][:, None]**2 + index[1]**2)
    # The real FFT leaves out the conjugates of all modes but the first plane's and, for even n, the last's.
    multiplicity = np.full(n // 2 + 1, 2)
    multiplicity[0] = 1
    if n % 2 == 0:
        multiplicity[-1] = 1
    shell = np.searchsorted(bins, k.ravel(), side="right")  # 0 below the first edge, len(bins) above the last
    weight = np.broadcast_to(multiplicity, k.shape).ravel()

    def sum_in_shells(value):
        return np.bincount(shell, value, minlength=len(bins) + 1)[1:len(bins)]

    n_modes = sum_in_shells(weight)
    with np.errstate(invalid="ignore"):
        k_mean = sum_in_shells(weight * k.ravel()) / n_modes
        power_mean = sum_in_shells(weight * power.ravel()) / n_modes
    return k_mean, power_mean, n_modes.astype(np.int64)


def mass_bins(mass_minimum, mass_maximum, ratio=1.4):
    """Edges of mass bins: mass_minimum times powers of `ratio`, up to the first that reaches mass_maximum."""
    # Less a little: a maximum that is an exact power must not gain a bin from rounding.
    number = int(np.ceil(np.log(mass_maximum / mass_minimum) / np.log(ratio) - 1e-9))
    return mass_minimum * float(ratio)**np.arange(number + 1)


def mass_function(mass, edges, volume):
    """Number of objects per volume and per decade of mass, dn/dlog10(M), with its Poisson error.

    mass: (objects,) in Msun/h; edges: (bins + 1,) of the mass bins; volume: (Mpc/h)^3.
    Returns two arrays (bins,) in (h/Mpc)^3.
    """
    number = np.histogram(mass, edges)[0]
    per_object = 1 / (volume * np.diff(np.log10(edges)))
    return number * per_object, np.sqrt(number) * per_object
