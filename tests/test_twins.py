"""Twins: the waves that they share, against sums of waves that are written out, and what is refused."""

import shutil
import tracemalloc
from collections import Counter

import numpy as np
import pytest

import kerasgal as kg
from kerasgal.simulation import from_array
from kerasgal.twins import blocks, majority, notes_of, paired, shared_field, shared_wavenumber, twin_labels


def waves(gridsize, boxsize, count, largest, seed=0):
    """A sum of a few plane waves of whole frequencies up to `largest` along each axis, at the cells' centres."""
    rng = np.random.default_rng(seed)
    x = (np.arange(gridsize) + 0.5) / gridsize * boxsize
    total = np.zeros((gridsize,) * 3)
    for _ in range(count):
        kx, ky, kz = 2 * np.pi / boxsize * rng.integers(-largest, largest + 1, 3)
        total += np.cos(kx * x[:, None, None] + ky * x[:, None] + kz * x + rng.uniform(0, 2 * np.pi))
    return total


@pytest.mark.parametrize("coarse, finer", [(8, 16), (8, 12), (7, 9), (9, 27)])
def test_a_field_is_continued_to_a_finer_grid(coarse, finer):
    largest = (coarse - 1) // 2
    found = shared_field(waves(coarse, 10, 20, largest), np.zeros((finer,) * 3), 10.0)
    np.testing.assert_allclose(found, waves(finer, 10, 20, largest), atol=1e-12)


def test_small_waves_are_those_of_the_other_field():
    fine = np.random.default_rng(1).normal(size=(16, 16, 16))
    made = shared_field(np.random.default_rng(2).normal(size=(8, 8, 8)), fine, 10.0)
    frequency = abs(np.fft.fftfreq(16, 1 / 16))
    small = np.maximum.reduce(np.meshgrid(*[frequency] * 3, indexing="ij")) >= 4
    np.testing.assert_allclose(np.fft.fftn(made)[small], np.fft.fftn(fine)[small], atol=1e-10)


def test_the_shared_wavenumber_is_found():
    rng = np.random.default_rng(3)
    one, other = (rng.normal(size=(16, 16, 16)) for _ in range(2))
    twin = shared_field(one, other, 20.0, share=1.9)
    frequency = np.fft.fftfreq(16, 1 / 16)
    k = 2 * np.pi / 20 * np.sqrt(frequency[:, None, None]**2 + frequency[:, None]**2 + frequency**2)
    equal = np.isclose(np.fft.fftn(one), np.fft.fftn(twin), atol=1e-9) & (k > 0)
    assert equal[(k > 0) & (k < 1.9)].all() and not equal[k >= 1.9].any()
    assert 1.9 - 2 * np.pi / 20 < shared_wavenumber(one, 5 * twin, 20.0) < 1.9
    assert shared_wavenumber(one, one, 20.0) == pytest.approx(2 * np.pi / 20 * np.sqrt(3) * 7)


def test_a_simulated_twin_shares_its_boxs_waves_and_most_of_its_haloes(boxes):
    with kg.Simulation(boxes[0]) as box:
        twin = kg.simulate(twin_of=box, seed=77)
        assert twin.gridsize == 2 * box.gridsize and twin.boxsize == box.boxsize and twin.cosmology == box.cosmology
        assert "twin of" in twin.file.attrs["source"]
        halo_id, mass, wavenumber = twin_labels(box, twin, minimum=50)
        nyquist = np.pi * box.gridsize / box.boxsize
        assert nyquist < wavenumber < np.sqrt(3) * nyquist
        there = box["halo_id"][...] >= 0
        assert halo_id.shape == there.shape and halo_id.max() < len(mass)
        # Of the cells that the twin puts into haloes of at least 50 cells most are in haloes of the box.
        assert there[halo_id >= 0].mean() > 1.5 * there.mean()


def test_a_twin_is_made_and_refused_on_the_command_line(boxes, invoke, tmp_path):
    made = invoke("simulate", tmp_path / "twin.h5", "--twin-of", boxes[0], "--particles", 32, "--share", 2, "--seed", 5)
    assert "32^3 particles in 25 Mpc/h" in made.stdout
    with kg.Simulation(boxes[0]) as box, kg.Simulation(tmp_path / "twin.h5") as twin:
        assert 1.7 < shared_wavenumber(box.delta(), twin.delta(), 25.0) < 2
        # Below it the waves of the two files are the same, to the rounding of the float32 that fields are kept in.
        one, other = (np.fft.fftn(file.delta().astype(float), norm="ortho") for file in (box, twin))
        frequency = np.fft.fftfreq(32, 1 / 32)
        k = 2 * np.pi / 25 * np.sqrt(frequency[:, None, None]**2 + frequency[:, None]**2 + frequency**2)
        rounding = np.finfo(np.float32).eps * np.abs(one).max()
        assert np.abs(one - other)[k < 2].max() < 4 * rounding < 1e-3 * np.abs(one - other)[k > 2].mean()
    for flags, words in (((), "as many cells"), (("--share", "0.1"), "no wave"), (("--share", "99"), "nothing"),
                         (("--share", "2", "--boxsize", "25"), "neither"), (("--particles", "16"), "at least")):
        given = ["--particles", 32, *flags] if "--particles" not in flags else flags
        refused = invoke("simulate", tmp_path / "no.h5", "--twin-of", boxes[0], *given, check=False)
        assert refused.returncode == 2 and words in refused.stderr and len(refused.stderr.splitlines()) <= 4
    own = shutil.copy(boxes[0], tmp_path / "own.h5")
    refused = invoke("simulate", own, "--twin-of", own, "--particles", 32, "--share", 2, "--overwrite", check=False)
    assert refused.returncode == 2 and "is what is read" in refused.stderr
    assert own.read_bytes() == boxes[0].read_bytes()
    refused = invoke("simulate", tmp_path / "no.h5", "--share", "2", check=False)
    assert refused.returncode == 2 and "--twin-of" in refused.stderr and not (tmp_path / "no.h5").exists()


def test_a_field_of_an_unknown_redshift_has_no_twin(boxes):
    with kg.Simulation(boxes[0]) as box:
        field = from_array(box.delta(), boxsize=box.boxsize, cosmology=box.cosmology)
    with pytest.raises(kg.DataError, match="does not say the redshift of its initial density"):
        kg.simulate(twin_of=field)
    with pytest.raises(kg.SettingError, match="particles=0: it must be a whole number of at least 8"):
        kg.simulate(twin_of=boxes[0], particles=0)


def test_another_box_is_no_twin(boxes):
    with kg.Simulation(boxes[0]) as box, kg.Simulation(boxes[1]) as other:
        with pytest.raises(kg.DataError, match="no twin of .* no waves in common"):
            twin_labels(box, other, minimum=50)


def box_and(other):
    """A box with a twin, both of a density alone, and how the twin differs beside its small waves."""
    large, small = np.random.default_rng(6).normal(0, 0.1, size=(2, 16, 16, 16))
    common = {"boxsize": 10.0, "cosmology": kg.Cosmology(), "redshift_initial": 50.0, "redshift_final": 0.0}
    return (from_array(large - large.mean(), **common),
            from_array(shared_field(large - large.mean(), small, 10.0, share=3.0), **{**common, **other}))


@pytest.mark.parametrize("other, words", [
    ({"redshift_final": 0.5}, "its haloes are of redshift 0.5, not 0"),
    ({"cosmology": kg.Cosmology(sigma8=0.9)}, "it has sigma8 = 0.9, not 0.8102")])
def test_a_twin_is_of_the_redshift_and_the_cosmology_of_its_box(other, words):
    box, twin = box_and(other)
    with pytest.raises(kg.DataError, match=f"is no twin of .*: {words}"):
        paired([box], [twin])
    box, twin = box_and({"redshift_final": 0.01, "cosmology": kg.Cosmology(h=0.677)})  # as files round them
    (found, _), = paired([box], [twin])
    assert found is twin


def test_a_twin_too_many_is_refused():
    box, twin = box_and({})
    assert [found for found, _ in paired([box], [twin])] == [twin]
    with pytest.raises(kg.DataError, match="`ceiling`: .* is left over"):
        paired([box], [twin, box_and({})[1]])


def test_cells_hold_a_whole_number_of_a_twins_particles(boxes):
    with kg.Simulation(boxes[0]) as box:
        assert blocks(box, 16, box) == 2
        with pytest.raises(kg.DataError, match="its 32 particles a side are no multiple of the 24 cells of"):
            blocks(box, 24, box)


def test_a_box_that_does_not_end_today_has_no_twin():
    _, late = box_and({"redshift_final": 1.0})
    with pytest.raises(kg.DataError, match="ends at redshift 1, and a twin is evolved to redshift 0"):
        kg.simulate(twin_of=late)


def test_twins_of_another_finder_are_noted(caplog):
    box, twin = box_and({})
    assert notes_of([box], [(twin, 1.0)]) == []
    box.file.attrs["finder"], twin.file.attrs["finder"] = "fof", "hop"
    note, = notes_of([box], [(twin, 1.0)])
    assert "haloes of the finder hop" in note and note in caplog.text


def test_a_box_is_no_twin_of_itself(boxes, invoke, tmp_path):
    """The third box has seed 9: with it, the small waves that are drawn are its own."""
    refused = invoke("simulate", tmp_path / "no.h5", "--twin-of", boxes[2], "--particles", 32, "--share", 3.5,
                     "--seed", 9, check=False)
    assert refused.returncode == 2 and "--seed draws the small waves that the box has already" in " ".join(
        refused.stderr.split()) and not (tmp_path / "no.h5").exists()
    with pytest.raises(kg.DataError, match="is no twin of .* but the same"):
        paired([boxes[2]], [boxes[2]])
    with kg.Simulation(boxes[2]) as box, pytest.raises(kg.DataError, match="is no twin of .* but the same"):
        twin_labels(box, box, minimum=50)


def test_the_label_of_most_cells_is_that_of_a_count():
    halo_id = np.random.default_rng(4).integers(-1, 3, (8, 8, 8))
    found = majority(halo_id, 2)
    for x, y, z in np.ndindex(4, 4, 4):
        counts = Counter(halo_id[2 * x:2 * x + 2, 2 * y:2 * y + 2, 2 * z:2 * z + 2].ravel().tolist())
        most = max(counts.values())
        frequent = sorted(label for label, count in counts.items() if count == most)
        assert found[x, y, z] == next((label for label in frequent if label >= 0), -1)
    halo_id = np.zeros((96, 96, 96), np.int32)
    tracemalloc.start()
    assert not majority(halo_id, 4).any()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < halo_id.nbytes
