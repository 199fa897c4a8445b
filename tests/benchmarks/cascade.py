"""Memory and time of a whole-box prediction of cascade, against the box and against the tile.

    python tests/benchmarks/cascade.py

Peak memory of a fresh process less that of the same process before it predicts.
"""

import os
import resource
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

CASES = ((128, 48), (256, 48), (128, 96), (256, 96))


def measure(gridsize, tile):
    import numpy as np

    from kerasgal.apps.cascade import predict
    from kerasgal.apps.cascade.config import TrainConfig
    from kerasgal.apps.cascade.run import Cascade
    from kerasgal.config import preset

    config = preset(TrainConfig, "demo")
    network = Cascade(config).network
    density = np.random.default_rng(0).standard_exponential((gridsize,) * 3, np.float32)  # no larger copy on the way
    network.predict_on_batch(density[None, :24, :24, :24, None])
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    field = predict.predict_field(network, density, config, tile=tile)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{gridsize}^3 cells in tiles of {tile}^3: {(peak - before) / 1024:.0f} MiB more, of which the result has "
          f"{field.nbytes / 2**20:.0f} MiB; {time.process_time() - start:.0f} CPU s")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        measure(int(sys.argv[1]), int(sys.argv[2]))
    else:
        for case in CASES:
            subprocess.run([sys.executable, __file__, *map(str, case)], check=True)
