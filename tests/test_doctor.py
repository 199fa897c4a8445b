import os
import subprocess
import sys
from importlib import metadata

import keras
import numpy as np
import pytest

from kerasgal import doctor


def test_the_command_shows_versions_devices_and_precision_and_ends_well(invoke):
    shown = invoke("doctor").stdout
    for words in (metadata.version("numpy"), metadata.version("numba"), "extra baseline", "CPU cores", "free memory",
                  "mixed_bfloat16", "Numba's cache"):
        assert words in shown


def test_the_command_ends_with_code_1_and_a_line_for_each_thing_that_is_wrong(invoke, monkeypatch):
    found = doctor.Examination((("free memory", "none"),), ("one is wrong", "so is another"))
    monkeypatch.setattr(doctor, "examine", lambda: found)
    done = invoke("doctor", check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["Error: one is wrong", "Error: so is another"]


def test_gradients_in_float32_are_right_and_a_sum_in_bfloat16_is_found_out(monkeypatch):
    assert doctor.wrong_gradients("float32") == ""
    right = doctor.gradients

    def halved(policy, cells):  # 256 of 32768 ones, as a sum in bfloat16 has it
        kernel, bias = right("float32", cells)
        return kernel, bias * 256 / doctor.CELLS**3

    monkeypatch.setattr(doctor, "gradients", halved)
    assert "the gradient of a bias is 0.0078 of the true one" in doctor.wrong_gradients("mixed_bfloat16")


def test_gradients_are_those_of_the_explicit_sum():
    kernel, bias = doctor.gradients("float32", 2)
    padded = np.pad(np.ones((2, 2, 2)), 1)
    true = [[[padded[x:x + 2, y:y + 2, z:z + 2].mean() for z in range(3)] for y in range(3)] for x in range(3)]
    np.testing.assert_allclose(kernel, np.broadcast_to(np.array(true)[..., None, None], kernel.shape), rtol=1e-6)
    np.testing.assert_allclose(bias, 1, rtol=1e-6)


def test_wrong_mixed_precision_is_a_problem_only_with_a_gpu(monkeypatch):
    monkeypatch.setattr(doctor, "wrong_gradients", lambda policy: "all wrong")
    monkeypatch.setattr(doctor, "seen_gpus", lambda name: [])
    rows, problems = doctor.precision()
    assert "all wrong" in rows[0][1] and not problems
    monkeypatch.setattr(doctor, "seen_gpus", lambda name: ["a GPU"])
    assert "mixed_bfloat16 trains wrongly on this GPU: all wrong" in doctor.precision()[1]


def test_a_gpu_that_the_backend_does_not_see_is_a_problem(monkeypatch, tmp_path):
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\necho 'NVIDIA H100 80GB HBM3, 81559 MiB, 81000 MiB'\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(doctor, "seen_gpus", lambda name: [])
    rows, problems = doctor.devices()
    assert dict(rows)["GPU 0"] == "NVIDIA H100 80GB HBM3, 81559 MiB, 81000 MiB free"
    assert len(problems) == 1 and "sees none of them" in problems[0]
    monkeypatch.setattr(doctor, "seen_gpus", lambda name: ["NVIDIA H100"])
    assert doctor.devices()[1] == []


def test_a_backend_that_cannot_be_imported_is_one_line(monkeypatch):
    def broken():
        raise ImportError("libcudart.so is not there\nand more lines")

    monkeypatch.setattr(doctor, "backend", broken)
    assert doctor.devices()[1] == ["Keras cannot be imported: ImportError: libcudart.so is not there"]
    assert doctor.precision()[1] == ["a layer cannot be trained: ImportError: libcudart.so is not there"]


@pytest.mark.parametrize("line, said", [
    ("numpy>=1", []), ("numpy<1", ["is installed, needed is <1"]),
    ("no-such-package-of-ours", ["no-such-package-of-ours is not installed"]),
])
def test_a_requirement_is_compared_with_what_is_installed(line, said):
    from packaging.requirements import Requirement

    words = doctor.lacking(Requirement(line))
    assert len(words) == len(said) and all(part in found for part, found in zip(said, words))


def test_an_old_library_is_a_problem_and_a_missing_extra_is_none(monkeypatch):
    real = doctor.version
    pretended = {"keras": "3.1.0", "yt": None}
    monkeypatch.setattr(doctor, "version", lambda name: pretended[name] if name in pretended else real(name))
    assert [words for words in doctor.versions()[1] if words.startswith("keras 3.1.0 is installed, needed is")]
    rows, problems = doctor.extras()
    assert dict(rows)["extra yt"] == "yt is not installed" and not problems


def test_little_memory_is_a_problem(monkeypatch):
    import psutil

    class Now:
        available, total = 2**28, 2**34

    monkeypatch.setattr(psutil, "virtual_memory", lambda: Now)
    rows, problems = doctor.memory()
    assert rows == [("free memory", "0.2 of 16.0 GiB")] and problems == ["only 256 MiB of memory are free"]


def test_a_cache_of_numba_that_cannot_be_written_is_a_problem(tmp_path):
    """In a process of its own, where the loops are compiled anew: both places lie below files, not folders."""
    (tmp_path / "file").touch()
    program = ("import numba.core.caching as caching\n"
               "def none(*_): return None\n"
               "for locator in caching.CacheImpl._locator_classes: locator.from_function = none\n"
               "from kerasgal import doctor\n"
               "print(doctor.cache())\n")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "Numba's cache cannot be written" in done.stdout, done.stderr
    assert doctor.cache()[1] == []


def test_the_policy_of_the_session_is_left_as_it_is():
    before = keras.config.dtype_policy().name
    doctor.gradients("mixed_bfloat16", 2)
    assert keras.config.dtype_policy().name == before
