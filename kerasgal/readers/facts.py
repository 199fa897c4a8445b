"""What files and arguments say of a run together: box, units, redshift, cosmology; and what contradicts.

What is given must be what files say. One file's box or redshift is not taken for another's: they show whether the files
belong together.
"""

import logging

import numpy as np

from kerasgal.cosmology import Cosmology, mean_density
from kerasgal.errors import DataError
from kerasgal.readers import base, cubes, parameters

log = logging.getLogger(__name__)
IN_MPC = {"kpc": 1e-3, "Mpc": 1.0}
BOXES = (1e-3, 1e6)  # Mpc/h
# What files must say: their names in headers.
NEEDED = {"boxsize": "BoxSize", "redshift": "Redshift", "Om0": "Omega0", "h": "HubbleParam"}
TOLERANCE = 1e-3
# Of the mean matter density, particles of dark matter of one run that has gas, or of dark matter alone up to rounding.
# CAMELS goes down to 0.3.
SHARES = (0.05, 1.05)
SHARE_TOLERANCE = 0.05  # neutrinos, and rounding
SHARE_OF_ALL = 0.9
_MASSES = {}  # of the last file whose mass was summed


def given_parameters(path, index, density, given):
    """The further numbers in a table of parameters; those of the cosmology go into `given`."""
    if path is None:
        return {}
    table = parameters.read_parameters(path, index, None if density is None else cubes.simulations_in(density))
    for name in set(given) & set(table):
        if given[name] is not None and not np.isclose(given[name], table[name], rtol=1e-4):
            raise DataError(f"{path} says {name} = {table[name]:g} in row {index}, {name}={given[name]:g}")
        given[name] = table[name]
    return {name: value for name, value in table.items() if name not in given}


def gathered(source, headed, start, given, length_unit):
    """Box [Mpc/h], redshift and the cosmology: what is given, else what files say; the box None if it is not given.

    source: the snapshot, or the path of a field; headed: all snapshots and catalogues; start: the initial conditions
    among them, whose redshift is their own. Raises DataError naming what a file does not say and the arguments that do,
    and where what is given is not what a file says.
    """
    snapshots = [item for item in headed if isinstance(item, base.Snapshot)]
    if len(snapshots) > 1 and start.redshift is None:
        raise DataError(f"{start.path} has no Redshift in its header, and `redshift` is that of the final snapshot")
    facts, missing = {"boxsize": given["boxsize"], **_cosmology_said(snapshots, headed, given)}, {}
    for name in ("boxsize", "redshift"):
        said = {item.path: getattr(item, name) for item in headed if not (name == "boxsize" and item.in_boxes)}
        if given[name] is None:
            for path in [path for path, value in said.items() if value is None]:
                missing.setdefault(path, []).append(name)
            if not said:
                missing.setdefault(getattr(source, "path", source), []).append(name)
        if name == "redshift":
            if start is not None and len(headed) > 1:
                said.pop(start.path)
            stated = {path: value for path, value in said.items() if value is not None}
            for path, value in stated.items():
                if given[name] is not None and abs(value - given[name]) > TOLERANCE:
                    raise DataError(f"{path} says Redshift = {value:g}, redshift={given[name]:g}")
            facts[name] = given[name] if given[name] is not None else next(iter(stated.values()), None)
    for name in ("Om0", "h"):
        if facts.get(name) is None:
            missing.setdefault(snapshots[0].path if snapshots else getattr(source, "path", source), []).append(name)
    unitless = {item.path for item in headed if item.length_unit is None and length_unit is None}
    clauses, wanted = [], {}
    for path, names in missing.items():
        words, arguments = [NEEDED[name] for name in names], [f"`{name}`" for name in names]
        if "boxsize" in names and path in unitless:  # which no other file's BoxSize can tell
            words, arguments = [*words, "UnitLength_in_cm"], [*arguments, "`length_unit`"]
        where = ", and no other file says it" if path == source else " in its header"
        clauses.append(f"{path} has no {', '.join(words)}{where}")
        wanted |= dict.fromkeys(arguments)
    if clauses:
        raise DataError(f"{'; '.join(clauses)}; give {', '.join(wanted)}")
    return facts


def _cosmology_said(snapshots, headed, given):
    """{name: value} of parameters.OURS: given, else of the snapshots' headers, else of the catalogues'."""
    found = {name: given[name] for name in parameters.OURS if given[name] is not None}
    for snapshot in snapshots:
        for name, value in cosmology_of(snapshot).items():
            if given[name] is not None and abs(value - given[name]) > TOLERANCE:
                raise DataError(f"{snapshot.path} says {_word(name, snapshot)} = {value:g}, {name}={given[name]:g}")
            if given[name] is None and name in found and abs(found[name] - value) > TOLERANCE:
                raise DataError(f"{snapshots[0].path} and {snapshot.path} are not of one run: they say {name} = "
                                f"{found[name]:g} and {value:g}")
            found.setdefault(name, value)
    for item in headed:
        for name, value in ({} if isinstance(item, base.Snapshot) else item.cosmology).items():
            if abs(found.setdefault(name, value) - value) > TOLERANCE:
                # The headers of some of CAMELS' catalogues have another Omega0 than their snapshots, and are wrong.
                log.warning("%s says %s = %g, which is not used: what is given or the snapshot says %g", item.path,
                            name, value, found[name])
    return found


def _word(name, snapshot):
    if snapshot.mass_says_Om0:
        return "by the mass of its particles Omega_m"
    return {"Om0": "Omega0", "h": "HubbleParam", "Ob0": "OmegaBaryon"}.get(name, name)


def cosmology_of(snapshot):
    """What a snapshot says of the cosmology; TIPSY's Omega_m is the mass of all its particles.

    Logs a warning where that mass can be no Omega_m.
    """
    if not snapshot.mass_says_Om0:
        return snapshot.cosmology
    total = mass_of_all(snapshot)
    if _is_omega(total):
        return {**snapshot.cosmology, "Om0": float(f"{min(total, 1.0):.6g}")}
    log.warning("%s has particles of a mass of %.4g, which is no Omega_m: its masses are in units of their own, and "
                "are not held against the mean density", snapshot.path, total)
    return {}


def mass_of_all(snapshot):
    """Mass of all particles in the file's unit; read once for the same file."""
    about = snapshot.path.stat()
    key = (snapshot.path.resolve(), about.st_mtime_ns, about.st_size)
    if key not in _MASSES:
        _MASSES.clear()
        _MASSES[key] = snapshot.total_mass(snapshot.present)
    return _MASSES[key]


def _is_omega(total):
    """Whether a mass in critical densities can be Omega_m, up to rounding."""
    return 0.01 < total <= SHARES[1]


def units(headed, boxsize, length_unit, assumed):
    """{path: Mpc/h per length unit of that file}; boxsize [Mpc/h]: as given, None if files say it."""
    in_mpc = {item.path: IN_MPC[_length_unit(item, headed, length_unit, assumed)] for item in headed
              if not item.in_boxes}
    sides = [item.boxsize * in_mpc[item.path] for item in headed if item.path in in_mpc and item.boxsize]
    return {**{item.path: boxsize or sides[0] for item in headed if item.in_boxes}, **in_mpc}


def _length_unit(item, files, length_unit, assumed):
    """The length unit of a snapshot or catalogue: its own, the user's, or that of one of the same BoxSize."""
    if item.length_unit or length_unit:
        return item.length_unit or length_unit
    for other in files:
        if other.length_unit and None not in (other.boxsize, item.boxsize) and np.isclose(other.boxsize, item.boxsize):
            assumed.append(f"{other.length_unit}/h in {item.path.name}, as in {other.path.name} of the same "
                           "BoxSize")
            return other.length_unit
    stated = "" if item.boxsize is None else f" (its BoxSize is {item.boxsize:g})"
    raise DataError(f"{item.path} does not say its length unit{stated}; give length_unit=kpc or length_unit=Mpc")


def check_box(boxsize):
    """Raise DataError for a box [Mpc/h] that can be none."""
    if not BOXES[0] <= boxsize <= BOXES[1]:
        raise DataError(f"the box has {boxsize:g} Mpc/h; accepted are {BOXES[0]:g} to {BOXES[1]:g} (is the "
                        "length unit right, or a file damaged?)")


def check_together(headed, in_mpc, boxsize):
    """Raise DataError if the boxes of the files differ, or are not the one that is given [Mpc/h]."""
    for item in headed:
        side = item.boxsize * in_mpc[item.path]
        if np.isclose(side, boxsize, rtol=1e-4):
            continue
        first = headed[0].boxsize * in_mpc[headed[0].path]
        if np.isclose(first, boxsize, rtol=1e-4):
            raise DataError(f"{headed[0].path} and {item.path} are not of one run: their boxes are {first:g} "
                            f"and {side:g} Mpc/h")
        raise DataError(f"{item.path} says that its box is {side:g} Mpc/h, boxsize={boxsize:g}")


def check_kind(catalogue, start):
    """Raise DataError for haloes without members among Lagrangian particles, or members without these."""
    if isinstance(catalogue, base.Members):
        if start is None:
            raise DataError(f"{catalogue.path} is a table of which particles are in which halo; it needs their initial "
                            "conditions (`initial`)")
    elif catalogue is not None and start is not None and not catalogue.sorted:
        raise DataError(f"{catalogue.path} has haloes, but not which particles are in them, which a file of particles "
                        "needs; accepted with `initial` are FoF/SUBFIND catalogues and tables of members")


def check_catalogue(start, end, catalogue, hosts, redshift):
    """Raise DataError if initial conditions or catalogues are not those of the snapshot `end`."""
    if start is not None and end is not None and start.particles != end.particles:
        raise DataError(f"{start.path} and {end.path} are not of one run: they have {start.particles} and "
                        f"{end.particles} dark-matter particles")
    for other in (catalogue, hosts):
        if other is None or isinstance(other, base.Members):
            continue
        # Twins agree in the logarithm of the expansion factor to some 1e-4.
        tolerance = 1e-3 * (1 + other.redshift)
        if end is None and not np.isclose(other.redshift, redshift, atol=tolerance):
            raise DataError(f"{other.path} is of the redshift {other.redshift:.3f}, another catalogue {redshift:.3f}")
        if end is not None and not np.isclose(end.redshift, other.redshift, atol=tolerance):
            raise DataError(f"{other.path} is not the group catalogue of {end.path}: their redshifts are "
                            f"{other.redshift:.3f} and {end.redshift:.3f}")
    if start is not None and isinstance(catalogue, base.Groups) and catalogue.count.sum() > end.particles:
        raise DataError(f"{catalogue.path} is not the group catalogue of {end.path}: it has "
                        f"{catalogue.count.sum()} dark-matter particles in groups, the snapshot "
                        f"{end.particles} in all")


def cosmology(facts, assumed):
    """The `Cosmology` of the facts, completed with Planck 2018; what is assumed is added to that list, in words."""
    chosen = {name: facts[name] for name in parameters.OURS if facts.get(name) is not None}
    for name in parameters.OURS:
        if name not in chosen:
            assumed.append(f"{name} = {getattr(Cosmology(), name)} (Planck 2018)")
    return Cosmology(**chosen)


def share(snapshot, mass, boxsize, cosmology):
    """Share of the mean matter density in a box [Mpc/h] of a mass in the snapshot's unit; None where it is unknown."""
    unit = snapshot.mass_in_msun()
    if unit is None or mass is None or (snapshot.mass_says_Om0 and not _is_omega(mass_of_all(snapshot))):
        return None
    return mass * unit / (mean_density(cosmology) * boxsize**3)


def check_equal_masses(snapshot, boxsize, cosmology):
    """Raise DataError if particles of one mass cannot be dark matter of that box; before they are read."""
    if not snapshot.equal:
        return
    mass = float(snapshot.masses[snapshot.types[0]]) * snapshot.particles
    found = share(snapshot, mass, boxsize, cosmology)
    if found is not None and not SHARES[0] < found < SHARES[1] and snapshot.types[0] not in (0, 4):
        one = mass / snapshot.particles * snapshot.mass_in_msun()
        raise DataError(f"{snapshot.path}: {snapshot.particles} particles of {one:.4g} Msun/h in a "
                        f"box of {boxsize:g} Mpc/h are {found:.3g} of the mean matter density; accepted are "
                        f"{SHARES[0]} to {SHARES[1]} (is the length unit right?)")


def check_share(snapshot, particles, mass, boxsize, cosmology, said):
    """Hold the mass of the particles that were read against the mean density of the box.

    particles: the choice of them; mass: theirs, in the snapshot's unit, None where it is not known; said: names of the
    parameters of the cosmology that are not assumed. Returns the share of the mean matter density, None where it is not
    known. Raises DataError where it cannot be; logs a warning where some of the matter must be missing.
    """
    found = share(snapshot, mass, boxsize, cosmology)
    if found is None:
        return None
    lowest, highest = {"dark": SHARES, "all": (SHARE_OF_ALL, SHARES[1])}.get(particles, (0, SHARES[1]))
    if not lowest < found < highest:
        why = "(is the length unit right?)"
        if particles == "all" and SHARES[0] < found < 1:
            why = "for all matter: some of it is in none of the file's particles"
        raise DataError(f"{snapshot.path}: its {particles} particles have {found:.3g} of the mean matter density of a "
                        f"box of {boxsize:g} Mpc/h; accepted are {lowest} to {highest} {why}")
    expected = _expected_share(snapshot, particles, boxsize, cosmology, said)
    if expected is not None and abs(found - expected) > SHARE_TOLERANCE:
        log.warning("%s: its %s particles (%s) have %.3g of the mean matter density, where %.3g is expected: %s",
                    snapshot.path, particles, type_words(snapshot.types), found, expected,
                    "some of the matter is elsewhere" if found < expected else "they are more than that")
    return found


def _expected_share(snapshot, particles, boxsize, cosmology, said):
    """The share of the mean density that particles should have, None where nothing says it."""
    if particles == "all":
        return 1.0
    if particles != "dark":
        return None
    others = [kind for kind in snapshot.present if kind not in snapshot.types and snapshot.massive(kind)]
    if not others:
        return 1.0
    if "Ob0" in said and {0, 4} & set(others):
        return 1 - cosmology.Ob0 / cosmology.Om0
    rest = share(snapshot, snapshot.total_mass(others), boxsize, cosmology)
    return None if rest is None else 1 - rest


def type_words(types):
    """Types of particles in words: type 1, types 1 and 3."""
    names = [str(kind) for kind in types]
    return f"type {names[0]}" if len(names) == 1 else f"types {', '.join(names[:-1])} and {names[-1]}"
