"""Whether kerasgal's installation is sound: versions, devices, memory, precision, Numba's cache."""

import importlib
import os
import platform
import re
import subprocess
from dataclasses import dataclass
from importlib import metadata

from kerasgal.errors import first_line
from kerasgal.workers import accelerators

SHOWN = ("keras", "tensorflow", "numpy", "scipy", "h5py", "numba", "scikit-image")
OTHER_BACKENDS = ("jax", "torch")  # shown where they are
# Of what only those need who work on kerasgal, nothing is said.
NOT_SHOWN = ("test", "lint", "docs", "bench")
CELLS = 32  # a side: as many ones as these cells add up to no more than 256 in bfloat16
FILTERS = 8  # a single one takes other ways through the libraries
LITTLE = 2**30  # bytes of memory with which the demos do not train


@dataclass(frozen=True)
class Examination:
    """What `examine` finds.

    Parameters
    ----------
    rows : tuple of (str, str)
        Pairs of a name and a value: versions, extras, devices, memory.
    problems : tuple of str
        A sentence for each thing that is wrong; none where all is well.

    Examples
    --------
    >>> from kerasgal.doctor import Examination
    >>> Examination((("keras", "3.10.0"),), ()).sound
    True
    """

    rows: tuple
    problems: tuple

    @property
    def sound(self):
        """Whether nothing is wrong."""
        return not self.problems


def examine():
    """Look at the installation: what there is, and what is wrong with it.

    It imports the Keras backend and trains a small layer, which takes seconds. Mixed precision that trains wrongly is
    a problem where there is a GPU to train on; without one, kerasgal refuses it anyway.

    Returns
    -------
    Examination

    Examples
    --------
    >>> from kerasgal.doctor import examine
    >>> found = examine()
    >>> [name for name, value in found.rows][:3]
    ['kerasgal', 'Python', 'keras']
    """
    rows, problems = [], []
    for part in (versions, extras, devices, memory, precision, cache):
        found, wrong = part()
        rows += found
        problems += wrong
    return Examination(tuple(rows), tuple(problems))


def version(name):
    """The installed version of a distribution, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def requirements():
    """What kerasgal asks for, as its installation says: a list of `packaging` Requirements; none where it is not."""
    from packaging.requirements import Requirement

    try:
        return [Requirement(line) for line in metadata.requires("kerasgal") or []]
    except metadata.PackageNotFoundError:
        return []


def lacking(requirement):
    """What a requirement lacks, as words: a list, empty where it is met; its own extras count."""
    from packaging.requirements import Requirement

    found = version(requirement.name)
    if found is None:
        return [f"{requirement.name} is not installed"]
    if not requirement.specifier.contains(found, prereleases=True):
        return [f"{requirement.name} {found} is installed, needed is {requirement.specifier}"]
    more = [Requirement(line) for line in metadata.requires(requirement.name) or []] if requirement.extras else []
    return [words for extra in sorted(requirement.extras) for other in more if asked(other, extra)
            for words in lacking(other)]


def asked(requirement, extra=""):
    """Whether a requirement is one of an extra on this machine, or, without one, is always asked for."""
    if extra and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
        return False
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def versions():
    """Versions of kerasgal and what it runs on; what is too old or not there is a problem."""
    from kerasgal import __version__

    rows = [("kerasgal", __version__), ("Python", platform.python_version())]
    rows += [(name, version(name) or "not installed") for name in SHOWN]
    rows += [(name, version(name)) for name in OTHER_BACKENDS if version(name)]
    problems = [words for requirement in requirements() if asked(requirement) for words in lacking(requirement)]
    return rows, problems


def extras():
    """Which of the optional extras are there."""
    try:
        names = [name for name in metadata.metadata("kerasgal").get_all("Provides-Extra") or []
                 if name not in NOT_SHOWN]
    except metadata.PackageNotFoundError:
        return [], []
    rows = []
    for name in names:
        short = [words for requirement in requirements() if asked(requirement, name) for words in lacking(requirement)]
        more = f", and {len(short) - 1} more" if len(short) > 1 else ""
        rows.append((f"extra {name}", f"{short[0]}{more}" if short else "installed"))
    return rows, []


def backend():
    """The name of Keras's backend; imports it. Raises whatever its import raises."""
    from kerasgal.quiet import import_tensorflow

    import_tensorflow()
    return importlib.import_module("keras").backend.backend()


def devices():
    """Cores that this process may use, the GPUs of the machine, and those that the backend sees."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    rows = [("CPU cores", f"{usable} of {os.cpu_count()} usable")]
    there = machine_gpus()
    rows += [(f"GPU {number}", words) for number, words in enumerate(there)]
    try:
        name = backend()
    except Exception as error:  # a broken installation raises anything
        return rows, [f"Keras cannot be imported: {type(error).__name__}: {first_line(error)}"]
    seen = seen_gpus(name)
    rows.append((f"GPUs that {name} sees", ", ".join(seen) or "none"))
    if there and not seen and os.environ.get("CUDA_VISIBLE_DEVICES") is None:
        how = "install kerasgal[gpu]" if name == "tensorflow" else f"install {name} with CUDA"
        return rows, [f"this machine has {len(there)} GPUs, and {name} sees none of them: {how}"]
    return rows, []


def machine_gpus():
    """GPUs with their memory, as NVIDIA's driver says them: a list of words, empty where there is no driver."""
    try:
        done = subprocess.run(["nvidia-smi", "--query-gpu=name,memory.total,memory.free", "--format=csv,noheader"],
                              capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return []
    fields = [re.split(r",\s*", line.strip()) for line in done.stdout.splitlines() if done.returncode == 0]
    return [f"{name}, {total}, {free} free" for name, total, free in (field for field in fields if len(field) == 3)]


def seen_gpus(name):
    """Names of the GPUs that a backend can use, a list."""
    if name == "torch":
        import torch

        return [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    found = accelerators(name)
    if name == "jax":
        return [device.device_kind for device in found]
    import tensorflow as tf

    return [tf.config.experimental.get_device_details(device).get("device_name", device.name) for device in found]


def memory():
    """Memory of the machine that is free."""
    import psutil

    now = psutil.virtual_memory()
    rows = [("free memory", f"{now.available / 2**30:.1f} of {now.total / 2**30:.1f} GiB")]
    return rows, [f"only {now.available / 2**20:.0f} MiB of memory are free"] if now.available < LITTLE else []


def precision():
    """Whether mixed precision trains rightly on this device, by the gradients of a small layer."""
    try:
        name = backend()
        wrong = wrong_gradients("mixed_bfloat16")
    except Exception as error:
        return [], [f"a layer cannot be trained: {type(error).__name__}: {first_line(error)}"]
    if wrong and seen_gpus(name):
        return [("mixed_bfloat16", wrong)], [f"mixed_bfloat16 trains wrongly on this GPU: {wrong}"]
    return [("mixed_bfloat16", f"do not train with it here: {wrong}" if wrong else "trains rightly")], []


def wrong_gradients(policy):
    """What is wrong with the gradients of a convolution under a precision policy, in words; empty where nothing is.

    The loss is the mean over the cells, summed over the filters, and every input is 1. So a bias's gradient is 1, and
    that of a kernel's cell the share of outputs for which the cell meets an input: at 2 cells a side 1/2, 1 and 1/2
    along each axis. TensorFlow's kernels for CPUs sum both in bfloat16.
    """
    import numpy as np

    found = []
    for cells in (CELLS, 2):
        kernel, bias = gradients(policy, cells)
        share = 1 - np.abs(np.arange(3) - 1) / cells
        true = (share[:, None, None] * share[:, None] * share)[..., None, None]
        if not np.all(np.abs(bias - 1) < 0.02):
            found.append(f"at {cells}^3 cells the gradient of a bias is {bias.mean():.2g} of the true one")
        wrong = ~(np.abs(kernel - true) < 0.02)  # NaN is wrong, too
        if wrong.any():
            found.append(f"at {cells}^3 cells {wrong.mean():.0%} of the gradients of a kernel are wrong")
    return "; ".join(found)


def gradients(policy, cells):
    """Gradients of a kernel, (3, 3, 3, channel, filter), and its biases, (filter,), for ones on cells^3.

    They are read off what a step of gradient descent changes, which is the same on all backends.
    """
    import keras
    import numpy as np

    def loss(true, output):
        return FILTERS * keras.ops.mean(keras.ops.cast(output, "float32"))

    layer = keras.layers.Conv3D(FILTERS, 3, padding="same", kernel_initializer="zeros", dtype=policy)
    network = keras.Sequential([keras.Input((cells, cells, cells, FILTERS)), layer])
    network.compile(keras.optimizers.SGD(1.0), loss=loss)
    ones = np.ones((1, cells, cells, cells, FILTERS), np.float32)
    network.train_on_batch(ones, ones)
    return tuple(-keras.ops.convert_to_numpy(variable) for variable in (layer.kernel, layer.bias))


def cache():
    """Whether the code of Numba's loops can be kept for later processes, and where."""
    from kerasgal.compiled import root

    try:
        place = root.stats.cache_path
    except Exception as error:
        return [], [f"Numba does not say where its cache is: {first_line(error)}"]
    if place is None or not os.access(place, os.W_OK):
        return [("Numba's cache", place or "none")], [
            "Numba's cache cannot be written, and every process compiles the loops anew: set NUMBA_CACHE_DIR to a "
            "folder that can be"]
    return [("Numba's cache", place)], []
