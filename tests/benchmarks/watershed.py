"""Time and peak memory from a distance map to a halo catalogue.

    python tests/benchmarks/watershed.py [--large 512] [--compare 256] [--largest 1024] [--demo]

At `--compare` cells a side our functions stand beside the plain library pipeline: scikit-image's peak_local_max and
watershed, then a loop over regionprops that cuts region by region. At `--large` ours runs alone, and at `--largest`, if
it is given. Each runs in a process of its own, whose CPU seconds and peak memory are printed, and whether they hold
what they are to hold. They count the import of the libraries, but not the compilation of ours, which happens once: the
first line is what it costs. `--demo` predicts two boxes like those of protohalo's demo (seeds 1001 and 1002), which
are simulated, with the network that ships, and compares the mass functions of haloes after our watershed and after
scikit-image's flooding of the map with a rim of repeated cells.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np
from bars import verdict

LINE = ((50.0, 20000.0), (0.8, 1.4))
FLOOR, MARKER, SEPARATION, MINIMUM = 0.02, 0.15, 2, 100


def distance_map(n):
    """A periodic map with about 30% of its cells above the floor and a peak per some 2,000 cells."""
    from scipy import fft

    noise = np.random.default_rng(0).standard_normal((n, n, n), dtype=np.float32)
    modes = fft.rfftn(noise, workers=-1)
    del noise
    for k in (np.fft.fftfreq(n)[:, None, None], np.fft.fftfreq(n)[:, None], np.fft.rfftfreq(n)):
        modes *= np.exp(-0.5 * (2 * np.pi * 3 * k) ** 2).astype(np.float32)
    smooth = fft.irfftn(modes, (n, n, n), workers=-1, overwrite_x=True)
    del modes
    smooth /= np.sqrt(np.mean([np.mean(layer**2, dtype=float) for layer in smooth]))
    smooth -= 0.5
    smooth /= 3.5
    return np.clip(smooth, 0, 1, out=smooth)


def ours(distance):
    from kerasgal.apps.protohalo import watershed

    markers, smooth = watershed.find_markers(distance, 0.0, MARKER, SEPARATION)
    labels = watershed.native(smooth, markers, FLOOR, out=markers)
    labels = watershed.join_fragments(smooth, labels, 2.5, out=labels)
    del markers, smooth
    paths = watershed.trajectories(distance, labels)
    del labels
    sizes = watershed.cut_sizes(paths, watershed.Line(*LINE))
    halo_id = watershed.label_haloes(paths, sizes, distance.shape, MINIMUM)
    return len(watershed.catalogue(halo_id, distance, 1.0, 1.0)["mass"])


def plain(distance):
    from skimage.feature import peak_local_max
    from skimage.measure import regionprops
    from skimage.segmentation import watershed

    markers = np.zeros(distance.shape, np.int32)
    peaks = peak_local_max(distance, min_distance=SEPARATION, threshold_abs=MARKER, exclude_border=False)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    labels = watershed(-distance, markers, mask=distance > FLOOR)
    haloes = []
    for region in regionprops(labels, intensity_image=distance):
        value = np.sort(region.image_intensity[region.image])[::-1]
        volume = np.arange(1, len(value) + 1)
        path = value.cumsum(dtype=float) / volume * (3 * volume / (4 * np.pi)) ** (1 / 3)
        above = path >= np.interp(np.log(volume), np.log(LINE[0]), LINE[1])
        size = volume[above].max() if above.any() else 0
        if size >= MINIMUM:
            inside = region.image & (region.image_intensity >= value[size - 1])
            haloes.append((size, np.argwhere(inside).mean(axis=0) + region.bbox[:3], value[0]))
    return len(haloes)


def flooded(smooth, markers, floor, out=None, rim=32):
    """As `kerasgal.apps.protohalo.watershed.native`, by flooding the map with a rim of cells from beyond its faces.

    A marker that is repeated in the rim floods from there, too, under the same number.
    """
    from skimage.segmentation import watershed

    wide, marked = (np.pad(volume, rim, mode="wrap") for volume in (smooth, markers))
    return watershed(-wide, marked, mask=wide > floor)[(slice(rim, -rim),) * 3].astype(np.int32)


def demo(boxes=2, bins=6):
    """Whether counts of haloes by mass after both watersheds differ by less than their Poisson noise."""
    from unittest import mock

    import kerasgal as kg
    from kerasgal.apps.protohalo import predict, watershed

    run, found = kg.load("protohalo-demo"), {"ours": [], "flooding": []}
    for seed in range(1001, 1001 + boxes):
        distance = run.predict(kg.simulate(seed=seed))["distance"]
        for name, function in (("ours", watershed.native), ("flooding", flooded)):
            with mock.patch.object(watershed, "native", function):
                halo_id = predict.find_haloes(distance, run.config, run.line)
            found[name].append(np.bincount(halo_id[halo_id >= 0]))
    cells = {name: np.concatenate(several) for name, several in found.items()}
    edges = np.geomspace(run.config.minimum, max(map(np.max, cells.values())) + 1, bins + 1)
    own, other = (np.histogram(sizes, edges)[0] for sizes in cells.values())
    print(f"haloes by mass in {boxes} boxes of the demo, ours {own.tolist()}, flooding {other.tolist()}")
    verdict("largest difference of the two, of Poisson noise",
            np.max(np.abs(own - other) / np.sqrt(np.maximum(other, 1))), 1)


def run(name, n):
    """Make a map, find its haloes, and print what that took."""
    distance = distance_map(n)
    before, start, made = time.process_time(), time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    haloes = {"ours": ours, "plain": plain}[name](distance)
    print(json.dumps({"haloes": haloes, "cpu": time.process_time() - before, "wall": time.monotonic() - start,
                      "map": made / 2**20, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}))


def measure(name, n):
    done = subprocess.run([sys.executable, __file__, "--run", name, str(n)], stdout=subprocess.PIPE, text=True,
                          check=True)
    result = json.loads(done.stdout)
    print(f"{name:6s} {n}^3: {result['haloes']} haloes, {result['cpu']:.1f} CPU s, {result['wall']:.1f} s, peak memory "
          f"{result['peak']:.2f} GiB ({result['map']:.2f} when the map was made)", flush=True)
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", type=int, default=512)
    parser.add_argument("--compare", type=int, default=256)
    parser.add_argument("--largest", type=int)
    parser.add_argument("--demo", action="store_true")
    parser.add_argument("--run", nargs=2)
    arguments = parser.parse_args()
    if arguments.run:
        run(arguments.run[0], int(arguments.run[1]))
        sys.exit()
    with tempfile.TemporaryDirectory() as os.environ["NUMBA_CACHE_DIR"]:
        print("compiled: ", end="")
        measure("ours", 32)
        own, library = measure("ours", arguments.compare), measure("plain", arguments.compare)
        print("ours / plain (ours is periodic, plain is not)")
        verdict("CPU time", own["cpu"] / library["cpu"], 0.35)
        verdict("peak memory", own["peak"] / library["peak"], 1)
        for n, seconds, memory, of in ((arguments.large, 20, 3, 512), (arguments.largest, 180, 16, 1024)):
            if n:
                own = measure("ours", n)
                verdict("CPU s", own["cpu"], seconds * (n / of) ** 3)
                verdict("peak memory in GiB", own["peak"], memory * (n / of) ** 3)
        if arguments.demo:
            demo()
