"""How long commands take to write their first character on a terminal, and what importing TensorFlow costs them.

    python tests/benchmarks/start.py [--rounds 5]

Wall time from the start of the process, the median of the rounds: code that was compiled and files that were read
before are there, as for the second command of a session. TensorFlow and Keras as a network's command imports them are
compared with a plain import of the two, in CPU seconds of processes that take turns.
"""

import argparse
import os
import pty
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bars import verdict

SECONDS = 1  # the bar
IMPORTS = {"ours": "from kerasgal.quiet import import_tensorflow; import_tensorflow(sparing=True)",
           "plain": "import tensorflow, keras"}


def commands(folder):
    """{what is called: arguments}: one command of each kind."""
    return {"--help": ["--help"], "protohalo --help": ["protohalo", "--help"],
            "simulate": ["simulate", f"{folder}/another.h5"], "info": ["info", f"{folder}/box.h5"],
            "extract": ["extract", f"{folder}/box.h5", "initial/delta", f"{folder}/delta.npy"],
            "plot": ["plot", f"{folder}/box.h5", "initial/delta", f"{folder}/slice.png"],
            "predict": ["protohalo", "predict", "protohalo-demo", f"{folder}/box.h5"]}


def first_character(arguments):
    """Wall and CPU seconds until a command writes something on a terminal; it is then stopped."""
    ours, its = pty.openpty()
    begun = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "kerasgal", *arguments], stdout=its, stderr=its, stdin=its)
    os.close(its)
    try:
        os.read(ours, 1)
        wall = time.monotonic() - begun
    finally:
        process.kill()
        _, _, used = os.wait4(process.pid, 0)
        process.returncode = -9
        os.close(ours)
    return wall, used.ru_utime + used.ru_stime


def seconds_of_import(program):
    """CPU seconds of a process that imports something."""
    before = os.times()
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def main(rounds):
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # or none of our code would be compiled before
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "kerasgal", "simulate", Path(folder) / "box.h5", "--particles", "16",
                        "--boxsize", "12.5"], check=True, capture_output=True)
        known = commands(folder)
        took = [[first_character(arguments) for arguments in known.values()] for _ in range(rounds)]
    for name, seconds in zip(known, zip(*took)):
        wall, cpu = map(statistics.median, zip(*seconds))
        print(f"kerasgal {name}: {cpu:.2f} CPU s until its first character", flush=True)
        verdict(f"first character of kerasgal {name}", wall, SECONDS, "s")
    took = [[seconds_of_import(program) for program in IMPORTS.values()] for _ in range(rounds)]
    for name, seconds in zip(IMPORTS, zip(*took)):
        print(f"import of TensorFlow and Keras, {name}: {statistics.median(seconds):.1f} CPU s", flush=True)
    verdict("import of TensorFlow and Keras, CPU time, as a network's command does it / plain, median of the rounds",
            statistics.median(own / plain for own, plain in took), 1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    main(parser.parse_args().rounds)
