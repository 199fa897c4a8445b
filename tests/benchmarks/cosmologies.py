"""One network of protohalo over cosmologies, against truth, the network of one cosmology, and colossus.

    python tests/benchmarks/cosmologies.py boxes FOLDER
    kerasgal protohalo train FOLDER/train_*.h5 --preset demo --parameters Om0,sigma8 --run FOLDER/with
    kerasgal protohalo train FOLDER/train_*.h5 --preset demo --run FOLDER/without
    python tests/benchmarks/cosmologies.py measure FOLDER FOLDER/with FOLDER/without demo/protohalo

Boxes have 64^3 particles in 50 Mpc/h. 25 to train on, the last of which validates, stand on a Latin hypercube in Om0 and
sigma8, seeds 5001 to 5025; two for each of six test cosmologies between them have the seeds 6001 to 6012. Steps of Om0
and sigma8 about the middle, with the same phases each, have the seeds 7001 to 7006. `measure` prints what the docs say
and writes numbers and a figure into FOLDER.
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
TRAINING, TESTS, REALISATIONS, PHASES = 25, 6, 2, 6
BINS = 10.0 ** np.array([13.1, 13.4, 13.8, 14.4])  # Msun/h, for derivatives


def hypercube(number, share, seed):
    """Om0 and sigma8 of so many cosmologies, (number, 2), on the middle `share` of the range."""
    from scipy.stats import qmc

    unit = 0.5 + share * (qmc.LatinHypercube(2, seed=seed).random(number) - 0.5)
    return np.round(LOWEST + unit * (HIGHEST - LOWEST), 4)


def design():
    """{name of a box: (cosmology, seed)}."""
    made = {}
    for number, (Om0, sigma8) in enumerate(hypercube(TRAINING, 1.0, 1)):
        made[f"train_{number:02d}"] = {"Om0": Om0, "sigma8": sigma8}, 5001 + number
    for number, (Om0, sigma8) in enumerate(hypercube(TESTS, INNER, 2)):
        for again in range(REALISATIONS):
            made[f"test_{number}_{again}"] = {"Om0": Om0, "sigma8": sigma8}, 6001 + REALISATIONS * number + again
    for name, step in STEPS.items():
        for word, sign in (("low", -1), ("high", 1)):
            for number in range(PHASES):
                made[f"step_{name}_{word}_{number}"] = MIDDLE | {name: MIDDLE[name] + sign * step}, 7001 + number
    return made


def boxes(folder):
    """Make those that are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (cosmology, seed) in design().items():
        path = folder / f"{name}.h5"
        if not path.exists():
            kg.simulate(path, seed=seed, cosmology=kg.Cosmology(**cosmology)).close()
            print(path, cosmology, seed, flush=True)


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    {"boxes": boxes}[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
