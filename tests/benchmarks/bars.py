"""All benchmarks of speed and size in one run, and after them each bar, what was found, and whether it holds.

    python tests/benchmarks/bars.py [NAME...]

Without names all are run, forty minutes to an hour and a half on two cores: `--list` says which there are. What cannot
run here, for want of a package or a GPU, is "not measured". A bar is a line that `verdict` or `claim` printed. The exit
code is 1 where a benchmark ended in an error, and 0 where a bar does not hold.
"""

import argparse
import re
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

BENCHMARKS = {  # {name: (arguments, packages or programs that it needs)}
    "start": (["start.py"], ()),
    "watershed": (["watershed.py", "--largest", "1024", "--demo"], ()),
    "patches": (["pipeline.py"], ()),
    "nbody": (["nbody.py", "--large"], ()),
    "convert": (["convert.py"], ()),
    "disk": (["disk.py", "--full", "--steps", "30"], ()),
    "maps": (["maps.py", "--small"], ()),
    "memory": (["memory.py"], ()),
    "blocks": (["blocks.py"], ("zarr", "distributed")),
    "tools": (["peers.py", "--only", "spectrum", "gravity"], ("jax",)),
    "peers": (["peers.py", "--only", "networks"], ("torch",)),
    "busy": (["peers.py", "--only", "r2unet", "--cores", "2", "--busy"], ("torch",)),
    "halomass": (["halomass.py"], ()),
    "diffusion": (["diffusion.py"], ()),
    "morph": (["morph.py"], ()),
    "gpu": (["gpu.py"], ("nvidia-smi",)),
}
HOLDS, FAILS = "holds", "does not hold"
BAR = re.compile(f": ({HOLDS}|{FAILS})$")


def verdict(what, value, bar, unit="", *, least=False):
    """Print what was measured, the bar, and whether it holds; least: the bar is the least that there may be."""
    unit = f" {unit}" if unit else ""
    claim(f"{what}: {value:.3g}{unit}, at {'least' if least else 'most'} {bar:g}{unit}",
          value >= bar if least else value <= bar)


def claim(what, holds):
    """Print a bar without a number, and whether it holds."""
    print(f"  {what}: {HOLDS if holds else FAILS}", flush=True)


def lacking(needed):
    """Those of some packages and programs that are not here."""
    return [name for name in needed if not find_spec(name) and not shutil.which(name)]


def run(command):
    """Run a benchmark and let it print; returns its bars, and whether it came to its end."""
    found = []
    with subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            if BAR.search(line.rstrip()):
                found.append(line.strip())
    if process.returncode:
        found.append(f"ended with exit code {process.returncode}: the rest was not measured")
    return found, process.returncode == 0


def main(names):
    """Run benchmarks and print all bars; returns whether all that could run came to their ends."""
    found, sound = {}, True
    for name in names:
        (script, *options), needed = BENCHMARKS[name]
        absent = lacking(needed)
        if absent:
            found[name] = [f"not measured: there is no {' and no '.join(absent)}"]
            continue
        begun = time.monotonic()
        print(f"\n{name}: {' '.join([script, *options])}", flush=True)
        found[name], ended = run([str(Path(__file__).parent / script), *options])
        sound &= ended
        print(f"  ({time.monotonic() - begun:.0f} s)", flush=True)
    print("\nAll bars")
    for name, lines in found.items():
        for line in lines:
            print(f"{name:12s}{line}")
    lines = [line for several in found.values() for line in several]
    hold = sum(line.endswith(f": {HOLDS}") for line in lines)
    fail = sum(line.endswith(FAILS) for line in lines)
    print(f"{hold} hold, {fail} do not, {sum('not measured' in line for line in lines)} not measured", flush=True)
    return sound


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--list", action="store_true", help="print what there is, and end")
    chosen = parser.parse_args()
    if chosen.list:
        for known, (words, needs) in BENCHMARKS.items():
            print(f"{known:12s}{' '.join(words)}{'' if not needs else '  (needs ' + ', '.join(needs) + ')'}")
        sys.exit()
    if set(chosen.names) - set(BENCHMARKS):
        parser.error(f"accepted are {', '.join(BENCHMARKS)}")
    sys.exit(not main(chosen.names or list(BENCHMARKS)))
