"""PINOCCHIO's catalogues, in made-up files of exactly the layout of its src/write_halos.c (version 5.1)."""

import struct

import numpy as np
import pytest

from kerasgal.cosmology import Cosmology, mean_density
from kerasgal.errors import DataError, MissingError
from kerasgal.readers import describe
from kerasgal.readers.convert import convert, write
from kerasgal.simulation import Simulation

HEADER = """# Group catalog for redshift 0.500000 and minimal mass of 10 particles
#    1) group ID
#    2) group mass (Msun{h})
# 3- 5) initial position (Mpc{h})
# 6- 8) final position (Mpc{h})
# 9-11) velocity (km/s)
{counted}#
"""
COUNTED = "#   12) number of particles\n"
# As its format says, " %12Lu %13.6e" and nine " %10.2f", then " %12d"
ROW = " {:12d} {:13.6e}" + " {:10.2f}" * 9 + " {:12d}\n"
PARTICLE = 6.938804e10  # of HMF_Validation/pinocchio.0.0000.test.catalog.out, Msun/h: 1.645871e14 over 2372
HALOES = [(1611284, 2372, (101.23, 45.51, 20.31), (102.85, 43.16, 21.56), (98.09, -121.57, 85.37)),
          (594288, 2737, (31.62, 32.50, 113.84), (37.54, 34.63, 117.34), (284.31, 123.57, 172.40)),
          (1835042, 486, (113.77, 0.21, 33.24), (114.63, 2.15, 128.0), (35.74, 89.90, 44.34))]
OTHERS = {"Om0": 0.25, "boxsize": 128.0}


def catalogue(path, haloes=HALOES, h=None, counted=True, **changes):
    """A catalogue; h: whose units it has none of, None for those over h; changes: texts in the header to others."""
    text = HEADER.format(h="/h" if h is None else "", counted=COUNTED if counted else "")
    for old, new in changes.items():
        text = text.replace(old.replace("_", " "), new)
    unit = 1.0 if h is None else h
    for name, count, before, after, velocity in haloes:
        row = ROW if counted else ROW[:-8] + "\n"
        lengths = [length / unit for length in (*before, *after)]
        text += row.format(name, count * PARTICLE / unit, *lengths, *velocity, *([count] if counted else []))
    path.write_text(text)
    return path


@pytest.fixture
def field(tmp_path):
    np.save(tmp_path / "delta.npy", np.zeros((4, 4, 4)))
    return {"density": tmp_path / "delta.npy", "quantity": "delta", "h": 0.7, **OTHERS}


@pytest.mark.parametrize("h", [None, 0.7])
@pytest.mark.parametrize("counted", [True, False])
def test_a_catalogue_becomes_haloes_with_both_positions(tmp_path, field, h, counted, caplog):
    path = catalogue(tmp_path / "pinocchio.0.5000.test.catalog.out", h=h, counted=counted)
    box = convert(groups=path, **field)
    assert box.problems() == [] and box.redshift_final == 0.5 and box.finder == "pinocchio"
    order = [1, 0, 2]  # most massive first
    np.testing.assert_allclose(box["halos/mass"], [HALOES[row][1] * PARTICLE for row in order], rtol=1e-6)
    for name, place in (("initial_position", 2), ("position", 3), ("velocity", 4)):
        expected = np.array([HALOES[row][place] for row in order])
        expected = expected % 128 if name != "velocity" else expected
        np.testing.assert_allclose(box[f"halos/{name}"], expected, atol=0.006, rtol=1e-5)
    assert box["halos/count"][...].tolist() == ([2737, 2372, 486] if counted else [0, 0, 0])
    assert ("has no numbers of particles" in caplog.text) == (not counted)
    within = 800 / 3 * np.pi * box["halos/radius"][...]**3 * mean_density(Cosmology(Om0=0.25, h=0.7))
    np.testing.assert_allclose(within, box["halos/mass"], rtol=1e-5)


def test_the_peak_that_names_a_group_lies_where_its_matter_was():
    """By its documentation the ID is k + j * N + i * N**2, of cells whose centres are at whole numbers and a half."""
    for name, count, before, *_ in HALOES:
        peak = np.array(np.unravel_index(name, (128, 128, 128))) + 0.5
        away = (peak - before + 64) % 128 - 64
        assert np.linalg.norm(away) < 1.5 * (3 * count / (4 * np.pi)) ** (1 / 3)


def test_files_of_one_catalogue_are_read_together(tmp_path, field, caplog):
    for number, haloes in enumerate((HALOES[:1], [], HALOES[1:])):
        catalogue(tmp_path / f"pinocchio.0.5000.test.catalog.out.{number}", haloes)
    caplog.set_level("INFO")
    for name in ("pinocchio.0.5000.test.catalog.out", "pinocchio.0.5000.test.catalog.out.2"):
        assert len(convert(groups=tmp_path / name, **field)["halos/mass"]) == 3
    assert "in 3 files; none of them says how many there should be" in caplog.text
    (tmp_path / "pinocchio.0.5000.test.catalog.out.1").unlink()
    with pytest.raises(MissingError, match="catalog.out.1 is missing"):
        convert(groups=tmp_path / "pinocchio.0.5000.test.catalog.out.0", **field)
    catalogue(tmp_path / "pinocchio.0.5000.test.catalog.out.1", minimal_mass_of_10="minimal mass of 20")
    with pytest.raises(DataError, match="not of one catalogue: their headers differ"):
        convert(groups=tmp_path / "pinocchio.0.5000.test.catalog.out.0", **field)


def test_a_catalogue_without_haloes_has_none(tmp_path, field):
    assert len(convert(groups=catalogue(tmp_path / "cat.out", []), **field)["halos/mass"]) == 0


def test_units_without_h_need_one(tmp_path, field):
    with pytest.raises(DataError, match="has masses in Msun and lengths in Mpc, neither over h; give `h`"):
        convert(groups=catalogue(tmp_path / "cat.out", h=0.7), **field | {"h": None})


@pytest.mark.parametrize("changes, message", [
    ({"(Mpc/h)": "(Mpc)"}, "has units of Msun/h, Mpc, Mpc, km/s; accepted are Msun/h, Mpc/h and km/s, or"),
    ({"(km/s)": "(m/s)"}, "has units of Msun/h, Mpc/h, Mpc/h, m/s; accepted are"),
    ({"group_mass": "group radius"}, "says that its columns are group ID; group radius"),
    ({"12)_number": "13) number"}, "says that its columns are group ID"),
    ({"redshift_0.500000": "redshift half"}, "says redshift half, which is no number"),
    ({"redshift_0.500000": "redshift 1.000000"}, "says redshift 1, and its name 0.5000"),
    ({"minimal_mass_of_10": "minimal mass of 500"}, "has a group of 486 particles, and says that the smallest has 500"),
    ({COUNTED: ""}, "has rows of 12 numbers, and says 11 columns"),
    ({"haloes": [HALOES[0], HALOES[0]]}, "has the group 1611284 more than once"),
    ({"haloes": [(1, 20, (np.nan, 1, 1), (1, 1, 1), (1, 1, 1))]}, "has values that are NaN or infinite"),
    ({"haloes": [(1, 20, (1, 1, 1), (1, 900, 1), (1, 1, 1))]}, "has positions from 1 to 900 in a box of 128"),
    ({"haloes": [(1, 20, (1, 900, 1), (1, 1, 1), (1, 1, 1))]}, "has positions from 1 to 900 in a box of 128"),
])
def test_what_is_unknown_or_contradicts_itself_is_refused(tmp_path, field, changes, message):
    path = catalogue(tmp_path / "pinocchio.0.5000.test.catalog.out", **changes)
    with pytest.raises(DataError, match=message) as error:
        write(tmp_path / "run.h5", groups=path, **field)
    assert len(str(error.value).splitlines()) == 1 and not (tmp_path / "run.h5").exists()


def test_masses_that_are_not_those_of_their_particles_are_refused(tmp_path, field):
    path = catalogue(tmp_path / "cat.out")
    path.write_text(path.read_text().replace("          486", "          487"))
    with pytest.raises(DataError, match="all particles of PINOCCHIO have one mass"):
        convert(groups=path, **field)


def test_another_redshift_than_the_snapshots_and_initial_conditions_are_refused(tmp_path, field):
    path = catalogue(tmp_path / "cat.out")
    with pytest.raises(DataError, match="says Redshift = 0.5, redshift=0"):
        convert(groups=path, redshift=0.0, **field)


@pytest.mark.parametrize("content, name", [
    (b"# Group catalog on the Past Light Cone for a minimal mass of 10 particles\n#    1) group ID\n",
     "PINOCCHIO's past light cone"),
    (b"# Merger histories for halos with minimal mass of 10 particles\n#  1) group ID\n",
     "PINOCCHIO's merger histories"),
    (struct.pack("<4i", 8, 4, 96, 8) + bytes(100), "PINOCCHIO's binary catalogue")])
def test_its_other_files_are_named_and_not_read(tmp_path, field, content, name):
    (tmp_path / "pinocchio.test.out").write_bytes(content)
    with pytest.raises(DataError, match=f"is {name}, which is not read; "):
        convert(groups=tmp_path / "pinocchio.test.out", **field)
    assert describe(tmp_path / "pinocchio.test.out")["kind"] == "not read"


def test_it_says_what_it_is(tmp_path):
    about = describe(catalogue(tmp_path / "pinocchio.0.5000.test.catalog.out"))
    assert about["format"] == "PINOCCHIO's catalogues in text" and about["haloes"] == 3 and about["redshift"] == 0.5
    assert about["missing"] == ["boxsize"]


def test_the_table_of_haloes_is_extracted_with_both_positions(tmp_path, field, invoke):
    path = catalogue(tmp_path / "pinocchio.0.5000.test.catalog.out")
    convert(tmp_path / "run.h5", groups=path, **field).close()
    invoke("extract", tmp_path / "run.h5", "halos", tmp_path / "haloes.ecsv")
    assert {"mass", "position", "initial_position", "velocity"} <= set(
        line.split("name: ")[1].split(",")[0] for line in (tmp_path / "haloes.ecsv").read_text().splitlines()
        if "name: " in line)
    with Simulation(tmp_path / "run.h5", require=()) as box:
        assert box.problems() == []
