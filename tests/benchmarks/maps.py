"""Memory and time of whole boxes that are written as they are predicted: that grows with the tile, not with the box.

    python tests/benchmarks/maps.py [--small] [cascade] [halomass]

Both networks of cascade, and halomass's map, from a density in a file to fields in a file, of a box and of one with
eight times the cells. Peak memory of a fresh process less that of the same process before it predicts; CPU seconds.
--small: networks of few filters, on slow machines (cascade with the R2U-Net in both phases).
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bars import verdict

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

BOXES, TILES = (128, 256), {"cascade": 48, "halomass": 104}  # cells a side
GROWS = 1.25  # the bar: memory with the larger box over that with the smaller one
SMALL = {"cascade": {"filters": 2, "recurrences": 0, "classifier": "r2unet"}, "halomass": {"filters": 1}}
OWN = {"cascade": {}, "halomass": {"padding": "none"}}


def make(path, gridsize):
    """A Simulation file of white noise."""
    import numpy as np

    from kerasgal import simulation
    from kerasgal.cosmology import Cosmology

    delta = np.random.default_rng(0).standard_exponential((gridsize,) * 3, np.float32) - 1
    simulation.write(path, boxsize=gridsize * 0.390625, cosmology=Cosmology(), redshift_initial=50.0,
                     redshift_final=0.0, particle_mass=5e9, source="benchmark",
                     datasets={"initial/delta": delta, "final/delta": delta})


def measure(app, tile, small, path, output):
    import kerasgal as kg
    from kerasgal.apps.halomass import dense
    from kerasgal.apps.halomass.run import MassMap

    cls = {"cascade": kg.Cascade, "halomass": kg.HaloMass}[app]
    run = cls(cls.configure(preset="demo", **OWN[app], **(SMALL[app] if small else {})))

    def predict(source, tile, output):
        if app == "cascade":
            run.predict(source, tile=tile, output=output)
            return

        def fill(arrays):
            dense.predict_map(run.network, run.config, source, tile=tile, store=arrays["log_mass"].__setitem__)
            return {}

        with kg.Simulation(source) as simulation:
            shape = (simulation.gridsize,) * 3
        MassMap.filled(run, source, {"log_mass": shape}, fill, output=output)

    make(f"{output}.little.h5", 48)
    predict(f"{output}.little.h5", 24 if app == "cascade" else 48, f"{output}.first.h5")  # compiles
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    predict(path, tile, f"{output}.h5")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"memory": (peak - before) / 1024, "cpu": time.process_time() - start}))


def main():
    small, chosen = "--small" in sys.argv, [app for app in TILES if app in sys.argv] or list(TILES)
    with tempfile.TemporaryDirectory() as folder:
        for n in BOXES:
            make(f"{folder}/{n}.h5", n)
        for app in chosen:
            took = []
            for n in BOXES:
                command = ["--one", app, str(TILES[app]), str(int(small)), f"{folder}/{n}.h5", f"{folder}/{app}"]
                done = subprocess.run([sys.executable, __file__, *command], stdout=subprocess.PIPE, text=True,
                                      check=True)
                took.append(json.loads(done.stdout.splitlines()[-1]))
                print(f"{app}: {n}^3 cells in tiles of {TILES[app]}^3: {took[-1]['memory']:.0f} MiB more; a field has "
                      f"{n**3 * 4 / 2**20:.0f} MiB; {took[-1]['cpu']:.0f} CPU s", flush=True)
                for path in Path(folder).glob(f"{app}*"):
                    path.unlink()
            verdict(f"{app}, memory of the same tiles in {BOXES[1]}^3 cells / in {BOXES[0]}^3",
                    took[1]["memory"] / took[0]["memory"], GROWS)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        measure(sys.argv[2], int(sys.argv[3]), bool(int(sys.argv[4])), *sys.argv[5:])
    else:
        main()
