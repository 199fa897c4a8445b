"""One network of protohalo or halomass over cosmologies, against truth, one that is not told, and colossus.

    python tests/benchmarks/cosmologies.py boxes FOLDER
    SETTINGS="--preset demo --patch 32 --margin 0 --batch 4 --minimum 32 --filters 8 --epochs 4"
    VALIDATION=$(printf -- "--validation %s " FOLDER/held_*)
    kerasgal protohalo train FOLDER/train_* $VALIDATION $SETTINGS --parameters Om0,sigma8 --run FOLDER/with
    kerasgal protohalo train FOLDER/train_* $VALIDATION $SETTINGS --run FOLDER/without
    python tests/benchmarks/cosmologies.py measure FOLDER FOLDER/with FOLDER/without

    SETTINGS="--preset demo --input multipoles --order 1 --patch 11 --shells 5 --low 13.1 --high 14.5"
    kerasgal halomass train FOLDER/train_* $VALIDATION $SETTINGS --parameters Om0,sigma8 --run FOLDER/told
    kerasgal halomass train FOLDER/train_* $VALIDATION $SETTINGS --run FOLDER/untold
    python tests/benchmarks/cosmologies.py masses FOLDER FOLDER/told FOLDER/untold

Boxes have 32^3 particles in 50 Mpc/h, so that two slow cores train in minutes. Those to train on, to validate on and to
test on stand on Latin hypercubes in Om0 and sigma8, the last of a smaller range. Steps of Om0 and of sigma8 about the
middle have the same phases each. Seeds stand in `design`. `measure` prints tables, and writes them as numbers and the
derivatives as a figure into FOLDER; `masses` prints how far off predicted masses are in each test cosmology.
"""

import json
import logging
import sys
from pathlib import Path

import numpy as np

import kerasgal as kg

LOWEST, HIGHEST = np.array([0.2, 0.65]), np.array([0.4, 0.95])  # Om0, sigma8
INNER = 0.85  # of that range is where the test cosmologies lie
MIDDLE, STEPS = {"Om0": 0.3, "sigma8": 0.8}, {"Om0": 0.04, "sigma8": 0.06}
TRAINING, HELD, TESTS, REALISATIONS, PHASES = 40, 4, 6, 4, 8
PARTICLES, SAMPLE = 32, 500  # along each axis; of which masses are predicted in a box
BINS = 10.0 ** np.array([13.1, 13.4, 13.8, 14.4])  # Msun/h, for derivatives: 32 particles are 1.15e13 at Om0 = 0.34
MODEL = "watson13"  # of friends-of-friends haloes


def hypercube(number, share, seed):
    """Om0 and sigma8 of so many cosmologies, (number, 2), on the middle `share` of the range."""
    from scipy.stats import qmc

    unit = 0.5 + share * (qmc.LatinHypercube(2, seed=seed).random(number) - 0.5)
    return np.round(LOWEST + unit * (HIGHEST - LOWEST), 4).tolist()


def design():
    """{name of a box: (cosmology, seed)}."""
    made = {}
    for name, number, first in (("train", TRAINING, 1), ("held", HELD, 3)):
        for place, (Om0, sigma8) in enumerate(hypercube(number, 1.0, first)):
            made[f"{name}_{place:02d}"] = {"Om0": Om0, "sigma8": sigma8}, 5000 + 100 * first + place
    for number, (Om0, sigma8) in enumerate(hypercube(TESTS, INNER, 2)):
        for again in range(REALISATIONS):
            made[f"test_{number}_{again}"] = {"Om0": Om0, "sigma8": sigma8}, 6000 + REALISATIONS * number + again
    for name, step in STEPS.items():
        for word, sign in (("low", -1), ("high", 1)):
            for number in range(PHASES):
                made[f"step_{name}_{word}_{number}"] = MIDDLE | {name: MIDDLE[name] + sign * step}, 7000 + number
    return made


def boxes(folder):
    """Make those that are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (cosmology, seed) in design().items():
        path = folder / f"{name}.h5"
        if not path.exists():
            kg.simulate(path, particles=PARTICLES, seed=seed, cosmology=kg.Cosmology(**cosmology)).close()


# What the runs say ------------------------------------------------------------------------


def said_of(run, path):
    """Loss, Dice and halo masses [Msun/h] of a run on one box, and the true masses."""
    from kerasgal.apps.protohalo import data, metrics

    haloes = run.predict(path, outside_domain=True)
    with kg.Simulation(path) as box:
        true_id = data.required_halo_id(box, run.config.minimum)
        true = (data.true_cells(box) * box.cell_mass)[data.true_cells(box) >= run.config.minimum]
        least = run.config.minimum * box.cell_mass
    return {"loss": float(metrics.normalised_l1(data.distance_map(true_id), haloes.distance)),
            "members": metrics.membership(true_id, haloes.halo_id), "true": true, "masses": haloes["halos/mass"],
            "least": least}


def tests(folder, runs):
    """For each test cosmology what each run says, a list of rows."""
    from kerasgal.apps.protohalo import metrics

    rows, everything = [], {name: [] for name in runs}
    for number, (Om0, sigma8) in enumerate(hypercube(TESTS, INNER, 2)):
        row = {"Om0": Om0, "sigma8": sigma8}
        for name, run in runs.items():
            found = [said_of(run, folder / f"test_{number}_{again}.h5") for again in range(REALISATIONS)]
            everything[name] += found
            row["true"] = sum(len(one["true"]) for one in found)
            row[name] = {"haloes": sum(len(one["masses"]) for one in found),
                         "loss": float(np.mean([one["loss"] for one in found])),
                         "dice": metrics.dice(sum(one["members"] for one in found))}
        rows.append(row)
    # The mass function relative to the smallest halo of each box, whose particles have a mass of its own
    edges, summed = np.array([1, 1.5, 2.5, 5, 10, 1e9]), {}
    for name, found in everything.items():
        true, said = (sum(np.histogram(one[what] / one["least"], edges)[0] for one in found)
                      for what in ("true", "masses"))
        away = [abs(row[name]["haloes"] / row["true"] - 1) for row in rows]
        summed[name] = {"loss": float(np.mean([one["loss"] for one in found])),
                        "dice": metrics.dice(sum(one["members"] for one in found)),
                        "haloes": int(said.sum()), "true": int(true.sum()), "numbers_away": float(np.mean(away)),
                        "by_mass": (said / true - 1).tolist()}
    return rows, summed


def derivatives(folder, runs):
    """{parameter: {who: (derivative of ln n in each bin, its error)}}, and how many haloes there are."""
    found, numbers = {}, {}
    for name, step in STEPS.items():
        counts = {}
        for word in ("low", "high"):
            for phase in range(PHASES):
                path = folder / f"step_{name}_{word}_{phase}.h5"
                with kg.Simulation(path) as box:
                    counts.setdefault(("simulation", word), []).append(np.histogram(box["halos/mass"], BINS)[0])
                for who, run in runs.items():
                    masses = run.predict(path, outside_domain=True)["halos/mass"]
                    counts.setdefault((who, word), []).append(np.histogram(masses, BINS)[0])
        found[name] = {"colossus": (slope(*(expected(MIDDLE | {name: MIDDLE[name] + sign * step})
                                            for sign in (-1, 1)), step).tolist(), None)}
        for who in ("simulation", *runs):
            low, high = (np.array(counts[who, word]) for word in ("low", "high"))
            left_out = [slope(np.delete(low, one, 0).sum(0), np.delete(high, one, 0).sum(0), step)
                        for one in range(PHASES)]
            error = np.sqrt((PHASES - 1) * np.var(left_out, axis=0))
            found[name][who] = slope(low.sum(0), high.sum(0), step).tolist(), error.tolist()
            numbers[f"{name}, {who}"] = {"low": low.sum(0).tolist(), "high": high.sum(0).tolist()}
    return found, numbers


def slope(low, high, step):
    """d ln n by a central difference."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return (np.log(high) - np.log(low)) / (2 * step)


def expected(cosmology):
    """Number of haloes in each bin for each (Mpc/h)^3 by colossus (Diemer 2018)."""
    from colossus.cosmology import cosmology as colossus
    from colossus.lss import mass_function

    from kerasgal.cosmology import _colossus

    colossus.setCurrent(_colossus(kg.Cosmology(**cosmology)))
    mass = np.geomspace(BINS[0], BINS[-1], 400)
    density = mass_function.massFunction(mass, 0.0, mdef="fof", model=MODEL, q_out="dndlnM")
    total = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2 * np.diff(np.log(mass)))])
    return np.diff(np.interp(np.log(BINS), np.log(mass), total))


def masses(folder, *folders):
    """Print r, scatter and mean offset of the masses of particles that runs of halomass predict, by cosmology.

    Errors of the offset are from box to box; of all, those of the differences between runs are of boxes in pairs.
    """
    runs = {Path(place).name: kg.load(place) for place in folders}
    away, square = ({name: [] for name in runs} for _ in range(2))
    print("| Om0, sigma8 | " + " | ".join(f"{name}: r, rms, offset [dex]" for name in runs) + " |")
    for number, (Om0, sigma8) in enumerate(hypercube(TESTS, INNER, 2)):
        texts = []
        for name, run in runs.items():
            found = [run.predict(folder / f"test_{number}_{again}.h5", sample=SAMPLE, outside_domain=True).table
                     for again in range(REALISATIONS)]
            pairs = [(np.array(one["log_mass_true"]), np.array(one["log_mass"])) for one in found]
            offset = [float((said - true).mean()) for true, said in pairs]
            away[name] += offset
            square[name] += [float(((said - true)**2).mean()) for true, said in pairs]
            true, said = (np.concatenate(parts) for parts in zip(*pairs))
            error = np.std(offset, ddof=1) / len(offset)**0.5
            texts.append(f"{np.corrcoef(true, said)[0, 1]:.3f}, {np.sqrt(((said - true)**2).mean()):.3f}, "
                         f"{np.mean(offset):+.3f} ± {error:.3f}")
        print(f"| {Om0:.4f}, {sigma8:.4f} | " + " | ".join(texts) + " |")
    first = next(iter(runs))
    for name in runs:
        less = np.array(square[name]) - np.array(square[first])
        error, offsets = less.std(ddof=1) / len(less)**0.5, np.mean(np.square(away[name]))**0.5
        print(f"| {name} | rms {np.mean(square[name])**0.5:.3f}, mean square less that of {first}: {less.mean():+.4f} "
              f"± {error:.4f}; rms of the offsets {offsets:.3f} |")


# What is written --------------------------------------------------------------------------


def measure(folder, *folders):
    """Print and write it all."""
    runs = {Path(place).name: kg.load(place) for place in folders}
    rows, summed = tests(folder, runs)
    found, numbers = derivatives(folder, runs)
    result = {"tests": rows, "summed": summed, "bins": BINS.tolist(), "derivatives": found, "counts": numbers}
    name = "_".join(["cosmologies", *runs])
    (folder / f"{name}.json").write_text(json.dumps(result, indent=1))
    print("| Om0, sigma8 | true | " + " | ".join(f"{name}: haloes, loss, Dice" for name in runs) + " |")
    for row in rows:
        print(f"| {row['Om0']:.3f}, {row['sigma8']:.3f} | {row['true']} | " + " | ".join(
            f"{row[name]['haloes']}, {row[name]['loss']:.3f}, {row[name]['dice']:.3f}" for name in runs) + " |")
    for name, one in summed.items():
        by_mass = ", ".join(f"{100 * away:+.0f}%" for away in one["by_mass"])
        print(f"| {name} | {one['haloes']} of {one['true']} | {one['loss']:.3f} | {one['dice']:.3f} | "
              f"{100 * one['numbers_away']:.1f}% | {by_mass} |")
    for name, rows in found.items():
        for who, (values, errors) in rows.items():
            print(f"| d ln n / d {name}, {who} | " + " | ".join(
                f"{value:.1f}" + (f" ± {error:.1f}" if errors else "")
                for value, error in zip(values, errors or values)) + " |")
    draw(found, folder / f"{name}.png")


def draw(found, path):
    """The derivatives as a figure."""
    from kerasgal.plotting import figure, save

    drawing, panels = figure(len(found), 1)
    centre = np.sqrt(BINS[1:] * BINS[:-1])
    for panel, (name, rows) in zip(np.ravel(panels), found.items()):
        for number, (who, (values, errors)) in enumerate(rows.items()):
            if errors is None:
                panel.plot(centre, values, "k--", label=f"colossus, {MODEL}")
                continue
            style = {"color": "k", "marker": "s"} if who == "simulation" else {"marker": "o"}
            panel.errorbar(centre * 1.04 ** (number - 2), values, errors, label=who, linestyle="none", **style)
        panel.axhline(0, color="0.8", linewidth=0.5)
        panel.set(xscale="log", xlabel="halo mass [Msun/h]", ylabel=f"d ln n / d {name}")
    np.ravel(panels)[0].legend(frameon=False)
    save(drawing, path)


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    {"boxes": boxes, "measure": measure, "masses": masses}[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
