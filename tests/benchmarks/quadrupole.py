"""Multipoles of galaxies in redshift space: simulated ones, and what a cascade run's catalogues have in their place.

    python tests/benchmarks/quadrupole.py RUN BOX BOX ...

For each set of positions and velocities a line per multipole, (Mpc/h)^3, by k [h/Mpc]: the mean over boxes and three
lines of sight, with its error from box to box. Catalogues are those of `cascade predict --catalogue` with seed 0; the
run must have measured how galaxies move.
"""

import sys

import numpy as np

import kerasgal as kg
from kerasgal.apps.cascade import motion
from kerasgal.grid import interpolate_cic
from kerasgal.statistics import redshift_space_multipoles

GRIDSIZE = 64
EDGES = np.array([0.2, 0.6, 1.0, 1.5, 2.0, 3.0])  # h/Mpc
ORDERS = (0, 2)


def sets_of(run, path):
    """Positions and velocities by name of what is compared in one box, its side, cosmology and redshift."""
    with kg.Simulation(path, ()) as box:
        cosmology, redshift = box.cosmology, box.redshift_final
    (density, field, boxsize, position, velocity), = motion.samples_of([path], run.config)
    drawn = run.predict(path, catalogue=True, seed=0)
    sets = {"truth": (position, velocity),
            "true places, velocities drawn": (position, motion.draw(position, density, field, boxsize, run.motion, 0)),
            "true places, the dark matter's velocity": (position, interpolate_cic(field, position, boxsize)),
            "catalogue": (drawn["galaxies/position"], drawn["galaxies/velocity"])}
    return sets, boxsize, cosmology, redshift


def main(folder, *paths):
    run, found = kg.load(folder), {}
    if run.motion is None:
        sys.exit(f"{folder}: this run did not measure how galaxies move")
    for path in paths:
        sets, *universe = sets_of(run, path)
        for name, (position, velocity) in sets.items():
            k, power, _ = redshift_space_multipoles(position, velocity, *universe, GRIDSIZE, ORDERS, EDGES)
            found.setdefault(name, []).append(power)
    print(f"{'k [h/Mpc]':45s}" + "".join(f"{value:>15.2f}" for value in k))
    for name, powers in found.items():
        mean, error = np.mean(powers, axis=0), np.std(powers, axis=0, ddof=1) / len(powers)**0.5
        for place, order in enumerate(ORDERS):
            values = "".join(f"{value:>8.0f} +- {size:<3.0f}" for value, size in zip(mean[place], error[place]))
            print(f"{name + f', l = {order}':45s}{values}")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
