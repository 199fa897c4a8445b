"""Twins: simulations that share the large waves of another one and differ in the small ones.

A network knows of a halo at most what the waves that it sees determine. How much that is, another simulation with these
waves and other small ones says: it is what the unseen waves may change (López-Cano et al. 2024, A&A 685, A37).
"""

import dataclasses
import logging

import numpy as np
import scipy.fft

from kerasgal.domain import RULES
from kerasgal.errors import DataError, SettingError
from kerasgal.halos import renumbered
from kerasgal.simulation import opened

ALIKE = 0.999  # correlation from which on waves are called shared; of those that are, rounding leaves 1e-6
FEWEST = 2  # fundamental wavenumbers that a twin must share to be called one
ROUNDED = 0.01  # by which share a number of the cosmology may differ, as files round them

log = logging.getLogger(__name__)


def shared_field(field, fine, boxsize, share=None):
    """A field with the large waves of one on a grid and the small ones of another.

    Parameters
    ----------
    field : array
        (n, n, n), whose waves are kept: along each axis those longer than two cells.
    fine : array
        (m, m, m), whose waves take the place of all others; m is n or larger.
    boxsize : float
        Mpc/h, of both.
    share : float, optional
        Keep only waves of less than this wavenumber, h/Mpc.

    Returns
    -------
    array
        (m, m, m), in the type of `fine`.

    Raises
    ------
    SettingError
        If `fine` has fewer cells, or the fields would differ in nothing or in everything; so they do where `fine` is
        the very field.

    Examples
    --------
    >>> import numpy as np
    >>> from kerasgal.twins import shared_field
    >>> wave = np.sin(2 * np.pi * (np.arange(8) + 0.5) / 8)[:, None, None] * np.ones((8, 8, 8))
    >>> finer = np.sin(2 * np.pi * (np.arange(16) + 0.5) / 16)[:, None, None] * np.ones((16, 16, 16))
    >>> bool(np.allclose(shared_field(wave, np.zeros((16, 16, 16)), 10.0), finer))
    True
    """
    coarse, finer = len(field), len(fine)
    if finer < coarse:
        raise SettingError(f"particles={finer}: a twin needs at least the {coarse} cells a side of the box",
                           value=finer, accepted=(coarse, None))
    if finer == coarse and share is None:
        raise SettingError(f"particles={finer}: the box has as many cells, so its twin would be itself: give more "
                           "`particles`, or the wavenumber to `share`", value=finer)
    wavenumber = _wavenumber(coarse, boxsize)
    kept = wavenumber < (np.inf if share is None else share)
    if share is not None and not kept[wavenumber > 0].any():
        raise SettingError(f"share={share:g}: no wave in a box of {boxsize:g} Mpc/h is below that wavenumber; the "
                           f"longest has {2 * np.pi / boxsize:.3g} h/Mpc", value=share)
    if finer == coarse and kept.all():
        raise SettingError(f"share={share:g}: with as many particles as the box has cells nothing would be left to "
                           f"differ; its waves reach {wavenumber.max():.3g} h/Mpc", value=share)
    modes = scipy.fft.rfftn(fine, workers=-1)
    place = _place(coarse, finer)
    large = _waves(field)[_place(coarse, coarse)] * (finer / coarse)**3 * _shift(coarse, finer)
    if finer == coarse and _correlation(large[~kept], modes[place][~kept]) >= ALIKE:
        raise SettingError("`seed` draws the small waves that the box has already, so that its twin would be itself: "
                           "give another number")
    modes[place] = np.where(kept, large, modes[place])
    return scipy.fft.irfftn(modes, fine.shape, workers=-1).astype(fine.dtype)


def shared_wavenumber(field, other, boxsize):
    """Up to which wavenumber two fields have the same waves.

    Parameters
    ----------
    field, other : array
        (n, n, n) and (m, m, m), of any amplitude.
    boxsize : float
        Mpc/h, of both.

    Returns
    -------
    float
        h/Mpc: from the longest waves on, in shells one fundamental wide, they correlate by more than 0.999 up to here.

    Examples
    --------
    >>> import numpy as np
    >>> from kerasgal.twins import shared_field, shared_wavenumber
    >>> rng = np.random.default_rng(0)
    >>> one, other = rng.normal(size=(16, 16, 16)), rng.normal(size=(16, 16, 16))
    >>> round(shared_wavenumber(one, shared_field(one, other, 10.0, share=3.0), 10.0), 2)
    2.35
    >>> shared_wavenumber(one, other, 10.0)
    0.0
    """
    coarse = min(len(field), len(other))
    one, two = (_waves(values)[_place(coarse, len(values))] / _shift(coarse, len(values)) for values in (field, other))
    fundamental = 2 * np.pi / boxsize
    wavenumber = _wavenumber(coarse, boxsize) / fundamental
    shell = np.floor(wavenumber).astype(int).ravel()
    cross = np.bincount(shell, (one * two.conj()).real.ravel())
    power = np.bincount(shell, (abs(one)**2).ravel()) * np.bincount(shell, (abs(two)**2).ravel())
    alike = cross[1:] >= ALIKE * np.sqrt(power[1:])
    shells = len(alike) if alike.all() else int(np.argmin(alike))
    # Only the last shell that is shared whole counts; that of the wave itself is the first.
    return float(wavenumber[wavenumber < shells + 1].max() * fundamental) if shells else 0.0


def shared_by(simulation, other):
    """Up to which wavenumber, h/Mpc, two Simulations have the same waves; None for boxes of different sides."""
    if not np.isclose(other.boxsize, simulation.boxsize, rtol=1e-6):
        return None
    return shared_wavenumber(simulation.delta(), other.delta(), simulation.boxsize)


def enough(wavenumber, boxsize):
    """Whether a wavenumber up to which two boxes are alike makes them twins."""
    return wavenumber >= FEWEST * 2 * np.pi / boxsize


def paired(sources, twins):
    """Which simulation is whose twin.

    Each pair is compared once, and where twins are given in the order of the simulations nothing else is.

    Parameters
    ----------
    sources, twins : list of path or Simulation
        Simulations with initial density.

    Returns
    -------
    list of tuple
        For each of the sources its twin, and up to which wavenumber they share their waves, h/Mpc.

    Raises
    ------
    DataError
        If a simulation has no twin among those given, or one is no twin of any; also where redshifts of the haloes or
        cosmologies differ.

    Examples
    --------
    >>> import kerasgal as kg
    >>> from kerasgal.twins import paired
    >>> box = kg.simulate(particles=16, boxsize=12.5, seed=1)
    >>> twin = kg.simulate(twin_of=box, seed=2)
    >>> (found, wavenumber), = paired([box], [twin])
    >>> found is twin
    True
    """
    left, found = list(twins), []
    for source in sources:
        for twin in left:
            with opened(source) as simulation, opened(twin) as other:
                wavenumber = shared_by(simulation, other) or 0.0
                if enough(wavenumber, simulation.boxsize):
                    check_other(simulation, other, wavenumber)
                    break
        else:
            raise DataError(f"`ceiling`: none of {', '.join(map(_name, twins))} is a twin of {_name(source)} that no "
                            "other simulation has")
        left.remove(twin)
        found.append((twin, wavenumber))
    if left:
        raise DataError(f"`ceiling`: {', '.join(map(_name, left))} is left over: of the simulations, each of which "
                        "takes one twin, none is left that it is a twin of")
    return found


def _name(source):
    """What messages call a simulation."""
    return str(getattr(source, "path", source))


def check_twin(simulation, twin):
    """Up to which wavenumber, h/Mpc, a twin shares its waves; raises DataError if it is no twin of the simulation."""
    wavenumber = shared_by(simulation, twin)
    if wavenumber is None:
        raise DataError(f"{twin.path} is no twin of {simulation.path}: its box has {twin.boxsize:g} Mpc/h, not "
                        f"{simulation.boxsize:g}")
    if not enough(wavenumber, simulation.boxsize):
        raise DataError(f"{twin.path} is no twin of {simulation.path}: their initial densities have no waves in common")
    check_other(simulation, twin, wavenumber)
    return wavenumber


def check_other(simulation, twin, wavenumber):
    """Raise DataError for a twin of another redshift or cosmology, and for one that would agree with itself.

    The latter is one of as many cells that shares all waves.
    """
    ends = simulation.redshift_final, twin.redshift_final
    if np.isfinite(ends).all() and not RULES["redshift_final"].accepts(ends[1], [ends[0]] * 2):
        raise DataError(f"{twin.path} is no twin of {simulation.path}: its haloes are of redshift {ends[1]:g}, not "
                        f"{ends[0]:g}")
    if "cosmology" in simulation and "cosmology" in twin:
        expected, found = (dataclasses.asdict(box.cosmology) for box in (simulation, twin))
        others = [f"{name} = {value:.4g}, not {expected[name]:.4g}" for name, value in found.items()
                  if not np.isclose(value, expected[name], rtol=ROUNDED, atol=0)]
        if others:
            raise DataError(f"{twin.path} is no twin of {simulation.path}: it has {', '.join(others)}")
    n = simulation.gridsize
    if twin.gridsize == n and wavenumber >= 0.9999 * _wavenumber(n, simulation.boxsize).max():
        raise DataError(f"{twin.path} is no twin of {simulation.path} but the same: small waves must be others, which "
                        "another `seed` draws")


def notes_of(sources, twins):
    """Notes on twins whose haloes were found in another way, which are logged, too; twins: of `paired`."""
    notes = []
    for source, (twin, _) in zip(sources, twins):
        with opened(source) as simulation, opened(twin) as other:
            one, two = simulation.finder, other.finder
        if one and two and one != two:
            notes.append(f"{_name(twin)} has haloes of the finder {two}, and {_name(source)}, whose twin it is, of "
                         f"{one}: they differ by that, too")
    for note in notes:
        log.warning(note)
    return notes


def twin_labels(simulation, twin, minimum, wavenumber=None):
    """The haloes of a twin on the grid of a simulation.

    Parameters
    ----------
    simulation, twin : Simulation
        Open ones, with initial density; the twin with haloes.
    minimum : int
        Cells of the simulation's grid that make a halo.
    wavenumber : float, optional
        Up to which they share their waves, h/Mpc, where that is known: see `paired`. They are not compared then.

    Returns
    -------
    halo_id : array of int
        (n, n, n), the halo in which most of a cell's matter ends in the twin, -1 for none.
    mass : array
        (haloes,), Msun/h, of the twin's haloes that are as large.
    wavenumber : float
        Up to which they share their waves, h/Mpc.

    Raises
    ------
    DataError
        If it is no twin of the simulation.
    """
    if wavenumber is None:
        wavenumber = check_twin(simulation, twin)
    n = simulation.gridsize
    rows = np.flatnonzero(large_haloes(simulation, twin, minimum))
    halo_id = majority(renumbered(twin["halo_id"][...], rows), blocks(simulation, n, twin))
    return halo_id, twin["halos/mass"][...][rows], wavenumber


def large_haloes(simulation, twin, minimum):
    """Which haloes of a twin have the matter of at least `minimum` cells of a simulation's grid: boolean, (haloes,)."""
    return twin["halos/count"][...] * (simulation.gridsize / twin["halo_id"].shape[0])**3 >= minimum


def blocks(simulation, side, twin):
    """Particles of a twin along each side of one of `side` cells of a simulation; raises DataError for no whole number.
    """
    fine = twin["halo_id"].shape[0]
    if fine % side:
        raise DataError(f"{twin.path}: its {fine} particles a side are no multiple of the {side} cells of "
                        f"{simulation.path}")
    return fine // side


def twin_masses(simulation, twin):
    """Mass of the halo in which each particle of a simulation ends in its twin.

    Parameters
    ----------
    simulation, twin : Simulation
        Open ones; the twin with haloes, and particles that are as many a side or a multiple of that.

    Returns
    -------
    array
        (particles,), Msun/h, of the halo that has most of the twin's particles from where the particle starts; NaN
        where most are in none.

    Raises
    ------
    DataError
        If the twin's particles are no multiple.

    Examples
    --------
    >>> import kerasgal as kg
    >>> from kerasgal.twins import twin_masses
    >>> box = kg.simulate(particles=16, boxsize=12.5, seed=1)
    >>> twin_masses(box, kg.simulate(twin_of=box, seed=2)).shape
    (4096,)
    """
    side = simulation["halo_id"].shape[0] if "halo_id" in simulation else simulation.gridsize
    mass = np.append(twin["halos/mass"][...].astype(np.float64), np.nan)  # the last one is for id -1
    return mass[majority(twin["halo_id"][...], blocks(simulation, side, twin))].ravel()


def majority(halo_id, factor):
    """The label that most of the cells in each block of `factor` a side have; of two as frequent a halo, the first.

    Parameters
    ----------
    halo_id : array of int
        (n, n, n), -1 for no halo.
    factor : int
        Cells of a block a side.

    Returns
    -------
    array of int32
        (n / factor,) * 3.

    Examples
    --------
    >>> import numpy as np
    >>> from kerasgal.twins import majority
    >>> majority(np.array([[[3, -1], [3, -1]], [[3, -1], [5, -1]]]), 2).tolist()
    [[[-1]]]
    """
    n = len(halo_id) // factor
    none = np.iinfo(np.int32).max  # that there is no halo counts last
    found = np.empty((n, n, n), np.int32)
    for x in range(n):  # the blocks of a whole box, and how often each label is in them, would take much memory
        slab = halo_id[x * factor:(x + 1) * factor].reshape(factor, n, factor, n, factor)
        blocks = slab.transpose(1, 3, 0, 2, 4).reshape(n, n, -1)
        blocks = np.where(blocks < 0, none, blocks)
        counts = np.stack([(blocks == blocks[..., [i]]).sum(-1) for i in range(blocks.shape[-1])], -1)
        # The first label in order among the most frequent
        best = np.where(counts == counts.max(-1, keepdims=True), blocks, none).min(-1)
        found[x] = np.where(best == none, -1, best)
    return found


def _correlation(one, other):
    """Correlation of two arrays of waves; 0 of none."""
    both = (one * other.conj()).real.sum()
    return both / max(np.sqrt((abs(one)**2).sum() * (abs(other)**2).sum()), 1e-300)


def _waves(field):
    """The real FFT of a field."""
    return scipy.fft.rfftn(np.asarray(field), workers=-1)


def _frequencies(gridsize):
    """Whole frequencies below that of two cells: of a full axis, in the order of an FFT, and of the halved one."""
    full = np.rint(scipy.fft.fftfreq(gridsize, 1 / gridsize)).astype(int)
    full = full[abs(full) < gridsize / 2]
    return full, full[full >= 0]


def _wavenumber(gridsize, boxsize):
    """The wavenumbers of these waves, h/Mpc."""
    full, half = _frequencies(gridsize)
    return 2 * np.pi / boxsize * np.sqrt(full[:, None, None]**2 + full[:, None]**2 + half**2)


def _place(coarse, finer):
    """Where the waves of a coarse grid stand in the FFT of a finer one, to index with."""
    full, half = _frequencies(coarse)
    return np.ix_(full % finer, full % finer, half)


def _shift(coarse, finer):
    """What turns the phases of those waves, for the centres of a coarse grid's cells, into those for a finer one's."""
    full, half = _frequencies(coarse)
    phase = -np.pi * (1 / coarse - 1 / finer)
    return np.exp(1j * phase * (full[:, None, None] + full[:, None] + half))
