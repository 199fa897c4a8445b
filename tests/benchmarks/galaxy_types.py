"""Where the area under the curve of made-up galaxies comes from: ratios by type of galaxy, and areas between types.

    python tests/benchmarks/galaxy_types.py RUN real.h5 smooth.h5

of two sets that `kerasgal morph simulate` made.
"""

import sys

import numpy as np

import kerasgal as kg
from kerasgal.apps.morph.mock import TYPES


def area(one, other):
    """The share of pairs in which the one is the larger; equal ones count half."""
    return (one[:, None] > other).mean() + (one[:, None] == other).mean() / 2


def by_type(run, path):
    """{type: ratios} of the images of a set."""
    with kg.open(path) as images:
        kind = images["table/type"][...].astype(int)
    ratio = np.asarray(run.predict(path)["llr"])
    return {name: ratio[kind == number] for number, name in enumerate(TYPES)}


def main(folder, *paths):
    run = kg.load(folder)
    one, other = (by_type(run, path) for path in paths)
    print(f"{'':12s}{'images':>8s}{'median LLR':>12s}{'of the other set':>18s}   area against "
          + ", ".join(f"{name}s" for name in TYPES))
    for name, values in one.items():
        areas = "   ".join(f"{area(values, others):.3f}" for others in other.values())
        print(f"{name:12s}{len(values):8d}{np.median(values):12.1f}{np.median(other[name]):18.1f}   {areas}")
    print(f"all: {area(*(np.concatenate(list(values.values())) for values in (one, other))):.3f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
