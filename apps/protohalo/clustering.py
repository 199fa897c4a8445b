"""How haloes cluster where they end: power spectra, bias, agreement with the true ones, and redshift space.

What a mock catalogue is made for. Predicted haloes are moved by `final.motion`, true ones stand where the simulation
has them, and between the two stand the true patches, moved likewise: what these lack the motion lacks and not the
network.
"""

import numpy as np

from kerasgal.apps.protohalo import final
from kerasgal.grid import density_contrast
from kerasgal.halos import renumbered
from kerasgal.statistics import jackknife, power_spectrum, redshift_space_multipoles

LARGE = 0.5  # h/Mpc: shells of modes up to here are large scales, on which bias is quoted
MOVED = "moved"  # the true patches, moved
MULTIPOLES = {"monopole": 0, "quadrupole": 2}


def true_haloes(simulation, rows):
    """Final positions and velocities of haloes of a Simulation, whose rows in its catalogue are given.

    No velocities where it has none.
    """
    position = simulation["halos/position"][...][rows].astype(np.float64)
    if "final/velocity" not in simulation:
        return position, None
    halo_id = simulation["halo_id"][...]
    velocity = simulation["final/velocity"][...].reshape(*halo_id.shape, 3)
    return position, final.mean_of_haloes(velocity, renumbered(halo_id, rows), len(rows))


def matter(simulation, gridsize):
    """The final density contrast of a Simulation on a grid, (n, n, n), from its particles; None without them."""
    if "final/position" not in simulation:
        return None
    return density_contrast(simulation["final/position"][...], gridsize, simulation.boxsize)


def shells(gridsize, boxsize):
    """Edges of the shells of modes, h/Mpc: one fundamental mode wide, up to half the Nyquist wavenumber of the grid."""
    return 2 * np.pi / boxsize * np.arange(0.5, gridsize // 4 + 1)


def spectra(haloes, matter, boxsize, cosmology, redshift, gridsize):
    """Power spectra of haloes in one box, on a grid with cloud-in-cell, its window divided out.

    Parameters
    ----------
    haloes : dict
        {name: (position, velocity)} of catalogues, (haloes, 3) each, Mpc/h and km/s; velocity may be None. The true
        ones are called "true".
    matter : array or None
        (n, n, n), density contrast on the grid.
    boxsize : float
        Mpc/h.
    cosmology : Cosmology
        Of the redshifts.
    redshift : float
        Of the haloes.
    gridsize : int
        Cells a side of the grid, n.

    Returns
    -------
    dict
        k, modes and, without matter NaN, matter, (shells,) each; and under `haloes` for each name: number; shot_noise,
        (Mpc/h)^3; and, (shells,) in (Mpc/h)^3: power, with the shot noise in it; with_true and with_matter, the cross
        spectra with these; monopole and quadrupole in redshift space, the mean of three lines of sight, without shot
        noise, NaN where velocities are not known.

    Examples
    --------
    >>> import numpy as np
    >>> from kerasgal.apps.protohalo.clustering import spectra
    >>> from kerasgal.cosmology import Cosmology
    >>> position = np.random.default_rng(0).uniform(0, 100, (500, 3))
    >>> found = spectra({"true": (position, None)}, None, 100.0, Cosmology(), 0.0, gridsize=16)
    >>> found["haloes"]["true"]["shot_noise"], found["k"].shape
    (2000.0, (4,))
    """
    bins = shells(gridsize, boxsize)
    options = {"boxsize": boxsize, "bins": bins, "compensate": "cic"}
    nothing = np.full(len(bins) - 1, np.nan)

    def field(position):
        return density_contrast(position, gridsize, boxsize) if len(position) else np.zeros((gridsize,) * 3, np.float32)

    true = field(haloes["true"][0])
    k, _, modes = power_spectrum(true, **options)
    made = {"k": k, "modes": modes, "haloes": {},
            "matter": nothing if matter is None else power_spectrum(matter, **options)[1]}
    for name, (position, velocity) in haloes.items():
        delta = true if name == "true" else field(position)
        noise = boxsize**3 / len(position) if len(position) else 0.0
        row = {"number": len(position), "shot_noise": noise, "power": power_spectrum(delta, **options)[1],
               "with_true": power_spectrum(delta, cross=true, **options)[1],
               "with_matter": nothing if matter is None else power_spectrum(delta, cross=matter, **options)[1]}
        if velocity is None or not len(position):
            row |= dict.fromkeys(MULTIPOLES, nothing)
        else:
            row |= dict(zip(MULTIPOLES, redshift_space_multipoles(
                position, velocity, boxsize, cosmology, redshift, gridsize, tuple(MULTIPOLES.values()), bins)[1]))
        made["haloes"][name] = row
    return made


def summed(boxes):
    """The spectra of several boxes of one size as metrics.json has them, with errors from leaving out box after box.

    boxes: of `spectra`. For each catalogue: number; power, its shot noise subtracted; correlation with the true haloes,
    P_xy / sqrt(P_xx P_yy) with the shot noise of all in it, for the same haloes have the same; bias,
    P_halo,matter / P_matter; monopole and quadrupole; and of bias and correlation the mean of the shells up to `LARGE`,
    or of the first, weighted by their modes. Errors, NAME_error, are None of a single box, and numbers None that are
    not known. Returns None for boxes that do not have the same shells.
    """
    if len({(len(box["k"]), box["k"][0]) for box in boxes}) > 1:
        return None
    k, modes = boxes[0]["k"], boxes[0]["modes"]
    large = modes * (k <= max(LARGE, k[0]))
    matter_power = np.array([box["matter"] for box in boxes])
    true = np.array([box["haloes"]["true"]["power"] for box in boxes])
    result = {"k": k.tolist(), "modes": modes.tolist(), "boxes": len(boxes), "large_scales": float(k[large > 0].max()),
              **estimate("matter_power", lambda power: power, matter_power), "haloes": {}}
    for name in boxes[0]["haloes"]:
        rows = [box["haloes"][name] for box in boxes]
        part = {key: np.array([row[key] for row in rows]) for key in rows[0]}
        row = {"number": int(part["number"].sum())}
        row |= estimate("power", lambda power, noise: power - noise, part["power"], part["shot_noise"][:, None])
        row |= estimate("correlation", correlation, part["with_true"], part["power"], true)
        row |= estimate("bias", ratio, part["with_matter"], matter_power)
        row |= estimate("large_scale_correlation", lambda *power: correlation(*(large @ one for one in power)),
                        part["with_true"], part["power"], true)
        row |= estimate("large_scale_bias", lambda *power: ratio(*(large @ one for one in power)),
                        part["with_matter"], matter_power)
        for multipole in MULTIPOLES:
            row |= estimate(multipole, lambda power: power, part[multipole])
        result["haloes"][name] = row
    return result


def ratio(above, below):
    """A quotient, NaN where there is none."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(below > 0, above / below, np.nan)


def correlation(both, one, other):
    """P_xy / sqrt(P_xx P_yy), NaN where a field has no power."""
    return ratio(both, np.sqrt(np.maximum(one, 0) * np.maximum(other, 0)))


def estimate(name, statistic, *samples):
    """{name: value, name_error: error} of a statistic of the means of samples, (boxes, ...), as JSON has them."""
    value = statistic(*(sample.mean(axis=0) for sample in samples))
    error = jackknife(statistic, *samples) if len(samples[0]) > 1 else np.full(np.shape(value), np.nan)
    return {name: plain(value), f"{name}_error": plain(error)}


def plain(values):
    """A number or a list of numbers, with None for those that are not known."""
    if np.ndim(values):
        return [plain(value) for value in values]
    return float(values) if np.isfinite(values) else None
