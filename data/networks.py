"""Put networks that the demos trained among those that come with kerasgal: `make models`.

Each is evaluated as it ships, in half precision, on the demo's test simulations, which it never saw; its card has these
numbers, those of the run in full precision beside them, and the commands that give them.
"""

import argparse
from pathlib import Path

import numpy as np

import kerasgal as kg
from kerasgal import networks

CARD = """# {name}

{what}

| | |
| --- | --- |
| app | `{app}` |
{about}
| parameters | {parameters:,}, kept in half precision |
| trained on | {trained} |
| licence | MIT |

## Measured on what it never saw

{tests}

| | as it ships | before it was packed, in single precision |
| --- | --- | --- |
{rows}

    {commands}

## What not to conclude

{limits}
"""

BOXES = "COLA simulations of {particles}^3 particles in 50 Mpc/h (`kerasgal simulate`), seeds {seeds}"


def protohalo(found):
    """Figures of an evaluation."""
    row, numbers = found["adaptive"], found["haloes_per_simulation"]
    single = [100 * (one / true - 1) for one, true in zip(numbers["adaptive"], numbers["true"])]
    return {"loss": f"{found['loss']:.3f}", "haloes": f"{100 * (row['total'] - 1):+.1f}%",
            "haloes in single boxes": f"{min(single):+.0f}% to {max(single):+.0f}%",
            "summed residual": f"{100 * row['summed_residual']:.1f}%", "Dice": f"{row['dice']:.3f}",
            "haloes one to one": f"{100 * row['objects']['completeness']:.0f}%"}


def halomass(found):
    """Figures of an evaluation of one run."""
    [row] = found["runs"].values()
    return {"r": f"{row['r']:.3f} +- {row['r_error']:.3f}",
            "rms": f"{row['rms_dex']:.3f} +- {row['rms_error']:.3f} dex"}


def cascade(found):
    """Figures of an evaluation of one run."""
    [row] = found["runs"].values()
    galaxies = [sum(line[name] for line in found["table"]) for name in ("galaxies", "true_galaxies")]
    triangles = row["bispectra"]["paper"]
    off, error = 100 * triangles["residual"], 100 * triangles["residual_error"]
    return {"Eq. 2 per sub-cube": f"{row['squared_error']:.1f}",
            "galaxies": f"{100 * (galaxies[0] / galaxies[1] - 1):+.1f}%",
            "P_xy / P_xx, 1 h/Mpc and more": f"{100 * row['calibration_error']['small']:.1f}% from one",
            "bispectrum of drawn galaxies": f"{off:.0f} +- {error:.0f}% off"}


def diffusion(found):
    """Figures of an evaluation of one run."""
    [row] = found["runs"].values()
    wrong = row["galaxies"] / found["truth"]["galaxies"] - 1
    k, agreement = np.array(found["k"]), np.array(row["correlation"])
    return {"galaxies": f"{100 * wrong:+.1f}%",
            "P(k) of draws, mean over k": f"{100 * row['power_residual']:.1f}% off",
            "P(k) of draws, largest": f"{100 * row['power_largest_residual']:.1f}% off",
            "r(k) of a draw with the truth, below 1 h/Mpc": f"{agreement[k < 1].mean():.3f}"}


def morph(found):
    """Figures of an evaluation: how often an observed galaxy looks more real than one of another set."""
    return {f"area under the curve, observed over {name}": f"{entry['area_under_curve']:.3f}"
            for name, entry in found["sets"].items() if "area_under_curve" in entry}


def of_boxes(domain):
    """What boxes a network is for."""
    return {"cells": f"{domain['cellsize'][0]:.4g} Mpc/h",
            "cosmology": f"Om0 = {domain['Om0'][0]:.4g}, sigma8 = {domain['sigma8'][0]:.4g}, h = {domain['h'][0]:.4g} "
                         "(Planck 2018)",
            "haloes": f"{', '.join(domain['finder'])}, at redshift {domain['redshift_final'][0]:g}"}


def of_images(domain):
    """What images a network is for."""
    return {"images": f"pixels of {domain['pixel_scale'][0]:g} arcsec, {domain['unit'][0]} of zero point "
                      f"{domain['zero_point'][0]:g}, PSF of {domain['psf_fwhm'][0]:g} arcsec"}


LIMITS_3D = ("It answers for cells and redshifts like those of its training, and refuses others; of another cosmology "
             "or halo finder it only warns. The boxes are small: haloes above 1e15 Msun/h were hardly seen. The "
             "cosmology is that of Planck 2018 alone. COLA's smallest haloes are fewer than those of a converged "
             "simulation.")
LIMITS_HALOMASS = (LIMITS_3D + " A mass is that of the halo if the particle ends in one of the range; it does not say "
                               "whether it does.")
LIMITS_PAINTED = (LIMITS_3D + " Its galaxies were painted on haloes by a rule that we chose: it has learnt that rule, "
                              "and says nothing of real galaxies or of a hydrodynamical simulation.")
WITHOUT_BARS = (" Trees and halo models are fitted to the simulations of the training, which do not come with it: the "
                "command on this card prints neither.")
SHIPPED = [
    {"name": "protohalo-demo", "run": "demo/density", "measure": protohalo, "tests": ("demo/test_{}.h5", 12),
     "summary": "haloes of 200 cells and more from the initial density, cells of 0.78 Mpc/h, z = 0",
     "what": "The network of the preset `demo`, trained on the boxes of `make demo`: haloes of at least 200 cells of "
             "0.78 Mpc/h from an initial density.",
     "trained": BOXES.format(particles=64, seeds="1 to 24; 25 to validate"), "words": "seeds 1001 to 1012",
     "commands": ["kerasgal simulate test.h5 --realisations 12 --seed 1001",
                  "kerasgal protohalo evaluate protohalo-demo test_*.h5"],
     "limits": LIMITS_3D + " Single haloes are uncertain: one in two is found with more than half of its cells. So is "
                           "the number in one box, of some 80: in 36 others (`kerasgal simulate single.h5 "
                           "--realisations 36 --seed 2001`) it was 3% too low with a scatter of 10% from box to box, "
                           "from 28% too low to 22% too high; in all of them together 4% too low."},
    {"name": "protohalo-longer", "run": "demo-longer/protohalo", "measure": protohalo,
     "tests": ("demo-longer/test_{}.h5", 12),
     "summary": "the same, trained sixteen times as long on more boxes, whole ones, and shown tides and displacements",
     "what": "The network of `make longer-protohalo`: that of `protohalo-demo`, shown the potential, the displacement "
             "and the tides beside the density, and trained for 13,100 steps instead of 800, on whole periodic boxes.",
     "trained": BOXES.format(particles=64, seeds="1 to 61; 2001 to 2012 to validate"), "words": "seeds 5001 to 5012",
     "commands": ["kerasgal simulate test.h5 --realisations 12 --seed 5001",
                  "kerasgal protohalo evaluate protohalo-longer test_*.h5"],
     "limits": LIMITS_3D + " Three of four haloes are found with more than half of their cells, of those below 280 "
                           "cells two of five. Haloes are too few, by 6% in these boxes and by 8% in twelve others "
                           "(seeds 8001 to 8012), and the number in one box, of some 80, is uncertain: Poisson noise "
                           "alone is 11%."},
    {"name": "cascade-demo", "run": "demo-cascade/cascade", "measure": cascade,
     "tests": ("demo-cascade/test_{}.h5", 4),
     "summary": "mean number of galaxies from dark matter, painted galaxies, cells of 0.39 Mpc/h, z = 0",
     "what": "The network of `make demo-cascade`: which cells of 0.39 Mpc/h hold galaxies, and how many are expected.",
     "trained": "COLA simulations of 128^3 particles in 50 Mpc/h with painted galaxies (`kerasgal simulate "
                "--galaxies`), seeds 1 to 4; 5 to validate. How galaxies move about the dark matter was "
                "measured later, in boxes of the same seeds",
     "words": "seeds 3001 to 3004",
     "commands": ["kerasgal simulate test.h5 --galaxies --particles 128 --realisations 4 --seed 3001",
                  "kerasgal cascade evaluate cascade-demo test_*.h5"],
     "limits": LIMITS_PAINTED + " Boosted trees on smoothed densities have 31.9 in Eq. 2, 0.4% too few galaxies and "
                                "28% in the bispectrum; the rule's own expectation has 17.1." + WITHOUT_BARS},
    {"name": "cascade-longer", "run": "demo-cascade-longer/cascade", "measure": cascade,
     "tests": ("demo-cascade-longer/test_{}.h5", 8),
     "summary": "the same, trained longer on four times the boxes, and shown where within cells particles are densest",
     "what": "The networks of `make longer-cascade`: those of `cascade-demo`, shown the highest density within each "
             "cell on a finer grid of the particles, too, and trained on sixteen simulations, phase 2 nearly four "
             "times as long.",
     "trained": "COLA simulations of 128^3 particles in 50 Mpc/h with painted galaxies (`kerasgal simulate "
                "--galaxies`), seeds 1 to 16; 17 to validate",
     "words": "seeds 7601 to 7608",
     "commands": ["kerasgal simulate test.h5 --galaxies --particles 128 --realisations 8 --seed 7601",
                  "kerasgal cascade evaluate cascade-longer test_*.h5"],
     "limits": LIMITS_PAINTED + " It asks for as many particles in each cell as in its training, one. It says better "
                                "than `cascade-demo` where galaxies are, and worse how many there are in the richest "
                                "places: its field is 4% too weak (P_xy / P_xx). Boosted trees that are shown the same "
                                "have 26.4 in Eq. 2, those of the density alone 31.1; the rule's own expectation has "
                                "16.6." + WITHOUT_BARS},
    {"name": "diffusion-demo", "run": "demo-diffusion/longer", "measure": diffusion,
     "tests": ("demo-diffusion/later_{}.h5", 8),
     "options": {"maps": 3, "draws": 8, "sampler": "multistep", "steps": 25},
     "summary": "draws of painted galaxies on maps of dark matter, cells of 0.78 Mpc/h, slabs of 6.25 Mpc/h, z = 0",
     "what": "The networks of `make longer-diffusion`: draws of galaxies on maps of 0.78 Mpc/h a cell, which show "
             "slabs of 6.25 Mpc/h, given the dark matter and what networks of cascade, which lie in its folder, expect "
             "of it.",
     "trained": "COLA simulations of 128^3 particles in 75 Mpc/h, 12 steps, with painted galaxies (`kerasgal simulate "
                "--galaxies`), seeds 1 to 23; 24 to validate. The networks of cascade: seeds 101 to 104; 105 to "
                "validate",
     "words": "seeds 7401 to 7408, three maps of each, eight draws of a map",
     "commands": ["kerasgal simulate test.h5 --galaxies --particles 128 --boxsize 75 --steps 12 --realisations 8 "
                  "--seed 7401",
                  "kerasgal cascade diffusion evaluate diffusion-demo test_*.h5 --maps 3 --draws 8 --sampler multistep "
                  "--steps 25"],
     "limits": LIMITS_3D + " Its galaxies were painted on haloes by a rule that we chose: it has learnt that rule, and "
                           "says nothing of real galaxies. The ranks of the truth among its draws are even in these "
                           "848 blocks of 12.5 Mpc/h (p = 0.86); by 25 ancestral steps, which are the default, in "
                           "boxes that another machine made, p = 0.16, with 1.5% too few galaxies; of other steps and "
                           "boxes that is not known. "
                           "The truth painted again differs from itself by 1.2% in P(k), and by 5.3% at most. Boosted "
                           "trees on the same maps have a residual of P(k) of 6.6% and r = 0.891; in boxes of the "
                           "same seeds that another machine made, draws have 4.7%, trees 2.3%, and galaxies drawn "
                           "from cascade's mean cell by cell 1.8%: it is no better in P(k). Trees are fitted to the "
                           "simulations of the training, which do not come with it: the command on this card prints "
                           "none."},
    {"name": "halomass-raw", "run": "demo-halomass/raw", "measure": halomass, "tests": ("demo-halomass/test_{}.h5", 4),
     "options": {"sample": 2000},
     "summary": "halo mass from the initial density in 21^3 cells of 0.78 Mpc/h around a particle, z = 0",
     "what": "The network of `make demo-halomass` on the raw density: masses of 1e12 to 1e14.5 Msun/h.",
     "trained": BOXES.format(particles=64, seeds="1 to 12; 501 and 502 to validate"),
     "words": "seeds 1001 to 1004, 2,000 particles of each",
     "commands": ["kerasgal simulate test.h5 --realisations 4 --seed 1001",
                  "kerasgal halomass evaluate halomass-raw test_*.h5 --sample 2000"],
     "limits": LIMITS_HALOMASS},
    {"name": "halomass-dipole", "run": "demo-halomass/multipoles", "measure": halomass,
     "tests": ("demo-halomass/test_{}.h5", 4), "options": {"sample": 2000},
     "summary": "halo mass from averages and dipoles of shells around a particle, cells of 0.78 Mpc/h, z = 0",
     "what": "A small network on 20 numbers, the average and the dipole of the density in ten shells: masses of 1e12 "
             "to 1e14.5 Msun/h, of all cells of a box at once (`--map`).",
     "trained": BOXES.format(particles=64, seeds="1 to 12; 501 and 502 to validate"),
     "words": "seeds 1001 to 1004, 2,000 particles of each",
     "commands": ["kerasgal simulate test.h5 --realisations 4 --seed 1001",
                  "kerasgal halomass evaluate halomass-dipole test_*.h5 --sample 2000"],
     "limits": LIMITS_3D + " That it does as well as the raw network says what carries the mass here, in these cells."},
    {"name": "halomass-longer", "run": "demo-halomass-longer/raw", "measure": halomass,
     "tests": ("demo-halomass-longer/test_{}.h5", 12), "options": {"sample": 1000},
     "summary": "halo mass from initial density, potential, displacement and tide in 40^3 cells of 0.78 Mpc/h around a "
                "particle, z = 0",
     "what": "The network of `make longer-halomass` on initial density, potential, displacement and tide, all of which "
             "are made of the density of the box, without padding, so that it predicts whole boxes, too (`--map`): "
             "masses of 1e12 to 1e14.5 Msun/h.",
     "trained": BOXES.format(particles=64, seeds="1 to 180; 2001 to 2012 to validate"),
     "words": "seeds 8001 to 8012, 1,000 particles of each",
     "commands": ["kerasgal simulate test.h5 --realisations 12 --seed 8001",
                  "kerasgal halomass evaluate halomass-longer test_*.h5 --sample 1000"],
     "limits": LIMITS_HALOMASS},
    {"name": "morph-demo", "run": "demo-morph/run", "measure": morph,
     "tests": {name: f"demo-morph/{name}.h5" for name in ("real", "fine", "smooth", "archetypes")},
     "summary": "realism of made-up galaxies in pixels of 0.396 arcsec, as an example",
     "what": "The networks of `make demo-morph`: 2,000 made-up galaxies with spiral arms and knots, and their smooth "
             "Sersic archetypes.",
     "trained": "`kerasgal morph simulate --number 2000 --seed 1`, and `kerasgal morph archetypes` of them",
     "words": "500 galaxies of each kind, seed 1001",
     "commands": [*(f"kerasgal morph simulate {kind}.h5 --kind {kind} --number 500 --seed 1001"
                    for kind in ("real", "fine", "smooth")),
                  "kerasgal morph archetypes archetypes.h5 --table real.h5 --seed 1001",
                  "kerasgal morph evaluate morph-demo real=real.h5 fine=fine.h5 smooth=smooth.h5 "
                  "archetypes=archetypes.h5"],
     "limits": "The galaxies that it takes for real are made up: it shows how scores, ranks and maps work, and says "
               "nothing of how real an image of yours is. Train on observed galaxies for that."},
]


def pack(entry, folder, place):
    """Pack one run of `SHIPPED` from a folder of demos into a registry; returns its name."""
    run = folder / entry["run"]
    trained = kg.load(run)
    if isinstance(entry["tests"], dict):
        tests = {name: str(folder / path) for name, path in entry["tests"].items()}
        words, about = entry["words"], of_images(trained.domain)
    else:
        pattern, count = entry["tests"]
        tests = [str(folder / pattern.format(number)) for number in range(count)]
        words, about = f"{count} boxes like those of the training, {entry['words']}", of_boxes(trained.domain)
    options = entry.get("options", {})
    before = entry["measure"](trained.evaluate(tests, **options))
    networks.pack(run, entry["name"], summary=entry["summary"], figures={}, card="", place=place)
    after = entry["measure"](kg.load(place / entry["name"]).evaluate(tests, **options))
    card = CARD.format(
        name=entry["name"], what=entry["what"], app=trained.app, trained=entry["trained"], limits=entry["limits"],
        about="\n".join(f"| {what} | {value} |" for what, value in about.items()),
        parameters=sum(network.count_params() for network in trained.networks.values()),
        tests=f"{words}.",
        rows="\n".join(f"| {what} | {after[what]} | {before[what]} |" for what in after),
        commands="\n    ".join(entry["commands"]))
    networks.pack(run, entry["name"], summary=entry["summary"], figures=after, card=card, place=place)
    return entry["name"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the folders of the demos are")
    parser.add_argument("--place", type=Path, default=networks.SHIPPED, help="the registry's folder")
    parser.add_argument("names", nargs="*", help="which; all without any")
    given = parser.parse_args()
    for entry in SHIPPED:
        if not given.names or entry["name"] in given.names:
            print(pack(entry, given.folder, given.place))
