"""What a conversion is asked for: which files, what to take from them, and what they do not say. Its rules."""

import math
from dataclasses import dataclass, fields

from kerasgal.errors import SettingError

STELLAR_MASS = 2e8  # Msun/h; some 15 star particles at the resolution of CAMELS, 200 at that of TNG100


@dataclass(frozen=True)
class Sources:
    """Paths of files, None where there is none; see `convert.convert`."""

    initial: str | None = None
    final: str | None = None
    density: str | None = None
    groups: str | None = None
    galaxies: str | None = None
    counts: str | None = None
    parameter_table: str | None = None


@dataclass(frozen=True)
class Choices:
    """What to take from them; see `convert.convert`."""

    grid: int | None = None
    window: str = "cic"
    particles: str = "dark"
    subsample: float | None = None
    quantity: str | None = None
    index: int | None = None
    stellar_mass: float | None = None
    minimum_stars: int | None = None
    minimum: int | None = None


@dataclass(frozen=True)
class Unsaid:
    """What they do not say; see `convert.convert`."""

    length_unit: str | None = None
    boxsize: float | None = None
    redshift: float | None = None
    Om0: float | None = None
    h: float | None = None
    Ob0: float | None = None
    ns: float | None = None
    sigma8: float | None = None


ACCEPTED = {"window": ("ngp", "cic", "tsc"), "particles": ("dark", "gas", "stars", "all"),
            "quantity": ("rho", "1+delta", "delta"), "length_unit": ("kpc", "Mpc")}
LEAST = {"grid": 2, "index": 0, "minimum_stars": 1, "minimum": 1}  # of whole numbers
ABOVE = {"boxsize": 0, "redshift": -1, "Om0": 0, "h": 0, "Ob0": 0, "sigma8": 0}


def split(arguments):
    """`Sources`, `Choices` and `Unsaid` of keyword arguments; raises TypeError for one that is in none of them."""
    arguments = dict(arguments)
    made = []
    for kind in (Sources, Choices, Unsaid):
        made.append(kind(**{item.name: arguments.pop(item.name) for item in fields(kind) if item.name in arguments}))
    if arguments:
        raise TypeError(f"convert has no argument {next(iter(arguments))}")
    return made


def check(sources, choices, unsaid):
    """Raise SettingError for arguments that are none, or that contradict or need each other."""
    _check_values({**vars(choices), **vars(unsaid)})
    files, wanted = sources, choices
    field = files.density is not None or files.initial is None
    if files.initial is None and files.final is None and files.density is None:
        raise SettingError("nothing to convert: give `initial`, `final` or `density`")
    if files.density is not None and (files.initial is not None or files.final is not None):
        raise SettingError("`density` is a field of its own: leave `initial` and `final` out")
    if files.final is not None and files.initial is None and not wanted.grid:
        raise SettingError("`final` without `initial` goes on a grid: give `grid`, in cells a side")
    if wanted.grid and (files.initial is not None and files.final is not None or files.density is not None):
        raise SettingError("`grid` is for `final` or `initial` alone: with both, particles stay particles, and the "
                           "field of `density` has a grid of its own")
    for name in ("window", "particles", "subsample"):
        if getattr(wanted, name) != getattr(Choices, name) and not wanted.grid:
            raise SettingError(f"`{name}` goes with `grid`")
    if files.density is not None and not wanted.quantity:
        raise SettingError("`density` needs `quantity`: rho, 1+delta or delta")
    if wanted.quantity and files.density is None:
        raise SettingError("`quantity` is what the field of `density` is: give `density`")
    if files.counts is not None and not field:
        raise SettingError("`counts` goes with a field: `density`, or `final` without `initial`")
    if files.counts is not None and files.galaxies is not None:
        raise SettingError("`counts` and `galaxies` are two ways to say the same: give one")
    if files.groups is not None and files.final is None and files.density is None:
        raise SettingError("a group catalogue (`groups`) needs the snapshot that it belongs to (`final`)")
    if files.galaxies is not None and files.final is None and files.density is None:
        raise SettingError("a catalogue of galaxies (`galaxies`) needs the snapshot that it belongs to (`final`)")
    if files.groups is None and wanted.minimum is not None:
        raise SettingError("`minimum` chooses haloes of `groups`: give a catalogue")
    if files.galaxies is None and (wanted.stellar_mass is not None or wanted.minimum_stars is not None):
        raise SettingError("`stellar_mass` and `minimum_stars` choose `galaxies`: give a catalogue")
    if wanted.stellar_mass is not None and wanted.minimum_stars is not None:
        raise SettingError("`stellar_mass` and `minimum_stars` are two ways to choose galaxies: give one")
    if files.parameter_table is not None and wanted.index is None:
        raise SettingError("`parameter_table` needs `index`, the row of the simulation")
    if wanted.index is not None and files.parameter_table is None and files.density is None and files.counts is None:
        raise SettingError("`index` is the row of `parameter_table`, or the simulation in the file of `density` or "
                           "`counts`: give one of these")


def _check_values(values):
    """Raise SettingError for a value that is out of its range or none of its choices."""
    for name, value in values.items():
        if value is None:
            continue
        if name in ACCEPTED and value not in ACCEPTED[name]:
            raise SettingError(f"{name}={value}: accepted are {', '.join(ACCEPTED[name])}", value=value,
                               accepted=ACCEPTED[name])
        if name in LEAST and (isinstance(value, bool) or int(value) != value or value < LEAST[name]):
            raise SettingError(f"{name}={value}: accepted are whole numbers of at least {LEAST[name]}", value=value,
                               accepted=(LEAST[name], None))
        if name in ABOVE and not ABOVE[name] < value < math.inf:
            raise SettingError(f"{name}={value:g}: accepted are numbers above {ABOVE[name]}", value=value,
                               accepted=(ABOVE[name], None))
        if name == "subsample" and not 0 < value < 1:
            raise SettingError(f"subsample={value:g}: accepted is a share of the particles, between 0 and 1",
                               value=value, accepted=(0, 1))
        if name in ("stellar_mass", "ns") and not (math.isfinite(value) and (name == "ns" or value >= 0)):
            raise SettingError(f"{name}={value:g}: accepted are finite numbers"
                               + (" of at least 0" if name == "stellar_mass" else ""), value=value)
