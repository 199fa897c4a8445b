"""What a run is held against: halo models, fitted or counted, and trees; of painted galaxies floor and ceiling, too.

A halo model is fitted to simulations, kept in a file, and put into another's haloes.
"""

import dataclasses
import json
import logging
from pathlib import Path

import numpy as np

from colossus.halo.concentration import concentration
from colossus.halo.profile_nfw import NFWProfile

from kerasgal import domain, run_folder
from kerasgal.apps.cascade import data, hod, occupation
from kerasgal.apps.cascade.config import APP
from kerasgal.apps.cascade.occupation import Occupation
from kerasgal.cosmology import mean_density
from kerasgal.errors import DataError, MissingError, RunError, SettingError, UnseenError
from kerasgal.files import refuse_existing, replacing
from kerasgal.galaxies import GalaxyModel, centres, environment, environment_rank, prepare
from kerasgal.grid import wrap
from kerasgal.plotting import progress, track
from kerasgal.run import display_name, names_of
from kerasgal.simulation import check_suffix, opened

NEEDED = ("halos/mass", "halos/position", "halos/radius")
COUNTED = (*NEEDED, "galaxies/position", "galaxies/halo", "galaxies/central")  # of an occupation
FITS = "power", "poisson", "occupation"
ENVIRONMENTS = 4  # quarters of the haloes of a mass, by the density around them
PAINTED = "galaxies painted into them"  # how the source of a Simulation says that its galaxies are ours
ALIKE = ("redshift_final", *domain.COSMOLOGY, "finder")  # features of haloes that a model goes with
COARSER = 1.1  # times the mass of the smallest haloes, by which those of another simulation may differ
DEVIATION = 6  # standard deviations by which painted galaxies may be more or fewer than the rule makes

# Names in tables and in metrics.json
NAMES = {"power": "halo model", "poisson": "halo model, Poisson", "nfw": "occupation, NFW",
         "measured": "occupation, measured profile", "critical": "occupation, R200c",
         "environment": "occupation and environment"}
GIVEN = "`kerasgal cascade hod` fits one to simulations with galaxies, for hod='hod.json'"

log = logging.getLogger(__name__)


def haloes(simulation):
    """The halo catalogue of a Simulation, with positions at the densest points where its particles are there.

    There are the galaxies, too: the catalogue's centres of mass would put the halo model's beside them. It has no
    "count" where that of a halo is 0: the catalogue was of masses alone.
    """
    halos = simulation.halos()
    if "halo_id" in simulation and "final/position" in simulation and len(halos["mass"]):
        halos["position"] = wrap(centres(halos, simulation["halo_id"][...].ravel(), simulation["final/position"][...],
                                         simulation.boxsize), simulation.boxsize)
    if np.any(halos["count"] < 1):
        del halos["count"]
    return halos


def described(simulation):
    """The catalogue of `haloes` with what else halo models ask for, as far as the simulation has it.

    "concentration", Duffy et al. 2008 (arXiv:0804.2486); "critical", the radius of 200 times the critical density,
    Mpc/h, by an NFW profile; "rank" of the environment as `kerasgal.galaxies` measures it, of the final particles.
    """
    halos = haloes(simulation)
    if not len(halos["mass"]):
        return halos | {name: np.zeros(0) for name in ("concentration", "critical", "rank")}
    redshift = simulation.redshift_final
    halos["concentration"], _ = concentration(halos["mass"], "200m", redshift, model="duffy08", range_return=True)
    if "cosmology" in simulation.file:
        halos["critical"] = critical_radius(halos, simulation.cosmology, redshift)
    if "final/position" in simulation and "count" in halos:
        around = environment(halos, halos["position"], simulation["final/position"][...], simulation.boxsize,
                             GalaxyModel.environment_radius)
        halos["rank"] = environment_rank(halos["mass"], around)
    return halos


def critical_radius(halos, cosmology, redshift):
    """Radius of the sphere of 200 times the critical density, comoving Mpc/h, (haloes,), in NFW haloes.

    halos: with "concentration", of their own radius and the mass within.
    """
    matter = cosmology.Om0 * (1 + redshift)**3
    own = halos["mass"] / (4 / 3 * np.pi * halos["radius"]**3) / mean_density(cosmology)  # times the mean
    ratio = 200 * (matter + 1 - cosmology.Om0) / matter / own
    c = halos["concentration"]
    low, high = np.full(len(c), 1e-3), np.full(len(c), 10.0)  # over the halo's radius
    for _ in range(50):
        middle = np.sqrt(low * high)
        dense = NFWProfile.mu(middle * c) / NFWProfile.mu(c) / middle**3 > ratio
        low, high = np.where(dense, middle, low), np.where(dense, high, middle)
    return halos["radius"] * np.sqrt(low * high)


def samples_of(sources):
    """What halo models are made of: (described haloes, columns of galaxies, boxsize) of each of Simulations or paths.

    The columns are `position`, and `halo` and `central` where the file has them.
    """
    samples = []
    for source in track(list(sources), "haloes and galaxies"):
        with opened(source, (*NEEDED, "galaxies/position")) as simulation:
            halos, boxsize = described(simulation), simulation.boxsize
            galaxies = {name.split("/")[1]: simulation[name][...] for name in COUNTED[len(NEEDED):]
                        if name in simulation}
        samples.append((halos, galaxies, boxsize))
    return samples


def outside(halos, galaxies, corner):
    """The haloes whose centre is not beyond `corner` [Mpc/h] along all axes, and the galaxies, with new rows."""
    kept = ~np.all(halos["position"] >= corner, axis=1)
    row = np.where(kept, np.cumsum(kept) - 1, -1)
    halos = {name: values[kept] for name, values in halos.items()}
    kept = ~np.all(galaxies["position"] >= corner, axis=1)
    galaxies = {name: values[kept] for name, values in galaxies.items()}
    if "halo" in galaxies:
        galaxies["halo"] = np.append(row, -1)[galaxies["halo"]]
    return halos, galaxies


def fit(sources, kind="power"):
    """A halo model of haloes and galaxies of Simulations or their paths; raises DataError without either.

    kind: "power", an `hod.HOD` fitted to the power spectrum; "poisson", the same without centrals; "occupation", an
    `occupation.Occupation` with NFW satellites.
    """
    return made(samples_of(sources), checked_fit(kind), sources)


def checked_fit(kind):
    """A kind of halo model; raises SettingError for one that is none."""
    if kind not in FITS:
        raise SettingError(f"fit={kind!r}: accepted are {', '.join(FITS)}", value=kind, accepted=FITS)
    return kind


def made(samples, kind, sources):
    """The halo model of a `kind`, one of FITS or of NAMES; sources: what the samples are of."""
    return dataclasses.replace(_made(samples, kind, sources), domain=domain_of(sources))


def domain_of(sources):
    """What halo models of Simulations are made of, as `kerasgal.domain.of`.

    Redshift, cosmology and finder; `least_mass` of a halo [Msun/h]; `simulations`, as `kerasgal.run.names_of`.
    """
    features = []
    for source, name in zip(sources, names_of(sources)):
        with opened(source, NEEDED) as simulation:
            features.append(features_of(simulation) | {"simulations": name})
    return domain.of(features)


def features_of(simulation):
    """What of the haloes of a Simulation must be as a halo model knows it."""
    mass = simulation["halos/mass"]
    found = {"redshift_final": simulation.redshift_final, "finder": simulation.finder,
             "least_mass": float(np.min(mass)) if len(mass) else None}
    if "cosmology" in simulation.file:
        found |= {name: getattr(simulation.cosmology, name) for name in domain.COSMOLOGY}
    return found


def unlike(models, simulation):
    """Notes, which are logged as warnings, too, where a Simulation's haloes are not like those that models know."""
    notes, name, features = [], display_name(simulation), features_of(simulation)
    least = features["least_mass"]
    for model in models:
        notes += [f"{name} has {line}" for line in
                  domain.differences(model.domain, features, ALIKE, known_as="the halo model is of")]
        if least is None:
            continue
        known = model.domain.get("least_mass", [model.lightest])[0]
        if least > COARSER * max(model.lightest, known):
            notes.append(f"{name} has haloes from {least:.2g} Msun/h on, and the halo model has galaxies from "
                         f"{model.lightest:.2g} Msun/h on: those of smaller haloes are missing")
        if model.lightest_as_others and COARSER * least < model.domain.get("least_mass", [0])[0]:
            notes.append(f"{name} has haloes from {least:.2g} Msun/h on, and the halo model was counted in those from "
                         f"{known:.2g} Msun/h on: smaller ones are given the galaxies of these")
    notes = list(dict.fromkeys(notes))
    for note in notes:
        log.warning(note)
    return notes


def _made(samples, kind, sources):
    """The model of `made`, which does not say what it is made of."""
    if kind in ("power", "poisson"):
        for (halos, *_), source in zip(samples, sources):
            check_counted(halos, source)
        positions = [(halos, galaxies["position"], boxsize) for halos, galaxies, boxsize in samples]
        with progress("fitting a halo model"):
            return hod.fit(positions, centrals=kind == "power")
    for (_, galaxies, _), source in zip(samples, sources):
        if "halo" not in galaxies or "central" not in galaxies:
            raise DataError(f"{display_name(source)} does not say in which halo its galaxies are: an occupation needs "
                            "galaxies/halo and galaxies/central")
    if kind in ("occupation", "nfw"):  # once, where there are several
        say_uncounted(samples, sources)
    profile = {"occupation": "nfw", "environment": "nfw"}.get(kind, kind)
    return occupation.measure(samples, ENVIRONMENTS if kind == "environment" else 1, profile)


def say_uncounted(samples, sources):
    """Warn of galaxies that occupations leave out."""
    for (_, galaxies, _), source in zip(samples, sources):
        alone = np.count_nonzero(galaxies["halo"] < 0)
        if alone:
            log.warning(f"{display_name(source)}: {alone} of {len(galaxies['halo'])} galaxies are in no halo that is "
                        "counted (halo -1): an occupation leaves them out")


def check_counted(halos, source):
    """Raise DataError if nobody knows of how many particles the haloes of a simulation are."""
    if "count" not in halos:
        raise DataError(f"{display_name(source)} does not say how many particles its haloes have (halos/count has 0): "
                        "a fitted halo model takes its lowest mass by particles; an occupation does not")


def chosen(given, folder, sources):
    """The halo model that a run is held against in the haloes of `sources`, or None, with a warning that says why.

    given: an `hod.HOD` or an `Occupation`, the path of a file that `write` wrote, or None, which fits one to what the
    run in `folder` was trained on. Raises UnseenError for a given one that was made of one of `sources`.
    """
    if given is None:
        model = fit_to_training(folder)
    else:
        model = given if isinstance(given, hod.HOD | Occupation) else read(given)
        check_unseen(model, sources)
    model = comparable(model, sources)
    if model:
        log.info(f"halo model: {words(model)}")
    return model


def check_unseen(model, sources):
    """Raise UnseenError if a halo model was made of one of Simulations."""
    seen = {made for name in model.domain.get("simulations", ()) for made in (name, str(Path(name).resolve()))}
    again = [name for name in names_of(sources) if name in seen]
    if again:
        raise UnseenError(f"the halo model was made of {', '.join(again)}; evaluate on data it never saw")


def fit_to_training(folder):
    """The halo model fitted to what a run folder was trained on; None, with a warning, where that is gone."""
    try:
        return fit(run_folder.data_to_read(folder)[0])
    except RunError as error:
        log.warning(f"no halo model to compare with: {error}; {GIVEN}")
    except DataError as error:
        log.warning(f"no halo model to compare with: {error}")
    return None


def halo_models(training, validation, config, found=()):
    """The models `found`, and those of NAMES that can be made of training simulations: {name: model}.

    Of one that was split by volume, to which nothing was apart for validation, numbers are counted outside the test
    cube. A warning says which cannot be made, and why.
    """
    found, corner = dict(found), None
    try:
        if not validation:
            with opened(training[0], ()) as simulation:
                gridsize = data.cells_of(simulation, config.cell)
                corner = data.test_corner(gridsize, config.patch) * simulation.boxsize / gridsize
        samples = samples_of(training)
    except DataError as error:
        log.warning(f"no halo model to compare with: {error}")
        return found
    apart = samples
    if corner is not None:
        apart = [(*outside(halos, galaxies, corner), boxsize) for halos, galaxies, boxsize in samples]
    reasons = {}
    for kind, name in NAMES.items():
        if name in found:
            continue
        try:
            # A spectrum is of whole boxes: that of a simulation split by volume holds the test cube, too.
            found[name] = made(samples if kind in ("power", "poisson") else apart, kind, training)
            log.info(f"{name}: {words(found[name])}")
        except DataError as error:
            reasons.setdefault(str(error), []).append(name)
        except KeyError as error:
            reasons.setdefault(f"a simulation does not say the {error.args[0]} of its haloes", []).append(name)
    for reason, names in reasons.items():
        log.warning(f"no {' and no '.join(names)} to compare with: {reason}")
    return found


def populated(model, halos, boxsize, seeds):
    """Positions of galaxies drawn for the haloes of `described`, one array for each seed; None, where they lack what
    the model asks for."""
    try:
        return [hod.populate(halos, model, boxsize, np.random.default_rng(seed)) for seed in seeds]
    except KeyError:
        return None


def painting(simulation):
    """What `kerasgal.galaxies` knows of a simulation whose galaxies it painted; None, and why, where it did not.

    Returns (Painting or None, words or None).
    """
    name = display_name(simulation)
    needed = (*NEEDED, "halo_id", "final/position", "galaxies/position")
    if PAINTED not in str(simulation.file.attrs.get("source", "")):
        return None, f"{name} was not painted by `kerasgal simulate`"
    if any(dataset not in simulation for dataset in needed):
        return None, f"{name} lacks what they were painted by: {', '.join(needed)}"
    found = prepare(simulation.halos(), simulation["halo_id"][...].ravel(), simulation["final/position"][...],
                    simulation.boxsize, simulation.redshift_final, GalaxyModel())
    number, expected = len(simulation["galaxies/position"]), np.sum(found.central * (1 + found.satellites))
    if abs(number - expected) > DEVIATION * np.sqrt(found.variance()):
        return None, f"{name} has {number} galaxies, where the rule of today makes {expected:.0f}: it was another rule"
    return found, None


def comparable(model, sources):
    """`model`, to be put into the haloes of Simulations; None, with a warning, where one of them has none."""
    for source in sources if model else ():
        with opened(source, ()) as simulation:
            missing = [name for name in NEEDED if name not in simulation]
        if missing:
            log.warning(f"no halo model to compare with: {display_name(source)} has no {', '.join(missing)}")
            return None
    return model


def words(model):
    """The parameters as text; masses in Msun/h."""
    if isinstance(model, Occupation):
        slope = ", ".join(f"{alpha:.3f}" for alpha in model.alpha)
        return f"counted in {len(model.log_mass)} bins of mass, alpha = {slope}"
    return (f"log10 M_min = {model.log_minimum:.3f}, log10 M_1 = {model.log_first:.3f}, alpha = {model.alpha:.3f}")


def write(path, model, overwrite=False):
    """Write the parameters as JSON, with what they were fitted to."""
    with replacing(path, overwrite) as temporary:
        kind = "occupation" if isinstance(model, Occupation) else "hod"
        document = {"app": APP, kind: dataclasses.asdict(model)}
        temporary.write_text(json.dumps(document, indent=2) + "\n")


def read(path):
    """The parameters that `write` wrote; raises DataError for a file that has none."""
    try:
        document = json.loads(Path(path).read_text())
        # Files of earlier versions say by name alone what they were fitted to.
        known = {"simulations": list(document["simulations"])} if "simulations" in document else {}
        if "occupation" in document:
            values = {"domain": known, **document["occupation"]}
            return Occupation(**{name: as_tuples(value) for name, value in values.items()})
        values = {"centrals": True, "domain": known, **document["hod"]}
        centrals, known = bool(values.pop("centrals")), dict(values.pop("domain"))
        return hod.HOD(**{name: float(value) for name, value in values.items()}, centrals=centrals, domain=known)
    except FileNotFoundError:
        raise MissingError(f"no such file: {path}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DataError(f"{path} is not a halo model written by `kerasgal cascade hod`") from None


def as_tuples(value):
    """Lists in lists as tuples in tuples."""
    return tuple(as_tuples(item) for item in value) if isinstance(value, list) else value


def populate(model, source, output, seed=0, overwrite=False):
    """Write galaxies in the haloes of a Simulation as HDF5, `galaxies/position` [Mpc/h]; returns how many."""
    import h5py

    with opened(source, NEEDED) as simulation:
        boxsize, halos = simulation.boxsize, described(simulation)
        if isinstance(model, hod.HOD):
            check_counted(halos, source)
        notes = unlike([model], simulation)
        position = hod.populate(halos, model, boxsize, np.random.default_rng(seed))
    with replacing(output, overwrite) as temporary, h5py.File(temporary, "w") as file:
        file.attrs.update(app=APP, boxsize=boxsize, source=display_name(source), model=words(model))
        if notes:
            file.attrs["notes"] = "; ".join(notes)
        if isinstance(model, hod.HOD):
            file.attrs.update({name: value for name, value in dataclasses.asdict(model).items() if name != "domain"})
        file["galaxies/position"] = position
    return len(position)


def make(sources, output="hod.json", *, fit="power", target=None, catalogue=None, seed=0, overwrite=False):
    """Fit the halo model to Simulations and write it; with a target, a Simulation, also galaxies in its haloes.

    fit: one of FITS; catalogue: file for these, by default the target's name with _hod.h5, in the current folder.
    Raises DataError if a file exists (without `overwrite`) or there is nothing to fit to. Returns the model.
    """
    refuse_existing(output, overwrite)
    if target is not None:
        catalogue = check_suffix(catalogue or f"{Path(display_name(target)).stem}_hod.h5")
        refuse_existing(catalogue, overwrite)
    model = made(samples_of(sources), checked_fit(fit), sources)
    write(output, model, overwrite)
    log.info(f"{output}: {words(model)}")
    if target is not None:
        number = populate(model, target, catalogue, seed, overwrite)
        log.info(f"{catalogue}: {number} galaxies in the haloes of {display_name(target)}")
    return model
