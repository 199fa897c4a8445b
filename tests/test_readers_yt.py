"""Snapshots through yt: the same file by yt and by our own reader of its format, and fakes of what yt may say."""

import numpy as np
import pytest
from test_readers_formats import BOX, H, MASS, OM0, TOTAL, check, positions, weights, write_binary, write_hdf5

from kerasgal.errors import DataError
from kerasgal.readers import base, describe
from kerasgal.readers import yt as reader
from kerasgal.readers.convert import write as convert


def particles(snapshot, *names):
    """All particles of a snapshot, sorted by their x."""
    found = [np.concatenate(arrays) for arrays in zip(*snapshot.read(*names))]
    order = np.argsort(found[0][:, 0])
    return [values[order] for values in found]


@pytest.mark.parametrize("form", ["binary", "hdf5"])
def test_yt_reads_the_same_particles_as_our_own_reader(tmp_path, form):
    pytest.importorskip("yt")
    kinds = {4: (positions(2, 100), weights(100, 2, 0.2 * TOTAL)), 1: (positions(), weights(total=0.8 * TOTAL))}
    if form == "binary":
        path = write_binary(tmp_path / "snap.gad", kinds, redshift=1.0)
    else:
        path = write_hdf5(tmp_path / "snap.hdf5", kinds, header={"Time": 1.0, "OmegaLambda": 1 - OM0})
    before = sorted(tmp_path.iterdir())
    for choice in ("dark", "stars", "all"):
        ours, theirs = base.open_snapshot(path, choice), reader.read_header(path, choice)
        assert (theirs.particles, theirs.types) == (ours.particles, ours.types)
        assert theirs.redshift == pytest.approx(ours.redshift) and theirs.boxsize == pytest.approx(BOX)
        assert theirs.cosmology == pytest.approx({"Om0": OM0, "h": H})
        place, mass, ids = particles(theirs, "position", "mass", "id")
        expected, weight, numbers = particles(ours, "position", "mass", "id")
        np.testing.assert_array_equal(ids, numbers)
        np.testing.assert_allclose(place, expected / 1000, rtol=1e-5)
        np.testing.assert_allclose(mass, weight * 1e10, rtol=1e-3)  # yt's solar mass is another one
        assert theirs.total_mass(theirs.types) == pytest.approx(mass.sum())
    assert sorted(tmp_path.iterdir()) == before  # yt writes an index beside some files


def test_a_file_that_no_other_reader_knows_is_converted_through_yt(tmp_path, monkeypatch):
    pytest.importorskip("yt")
    path = write_binary(tmp_path / "snap.gad", {1: (positions(), weights())})
    others = [format for format in base.formats() if format.name != "Gadget binary" and "Gadget" not in format.name]
    monkeypatch.setattr(base, "formats", lambda: others)
    with pytest.raises(DataError, match="is no snapshot that is read"):  # what is read here is not left to yt
        base.open_snapshot(path)
    monkeypatch.setattr(reader, "READ_HERE", ("none",))
    check(tmp_path, path, positions(), weights())
    about = describe(path)
    assert (about["kind"], about["format"], about["boxsize"]) == ("snapshot", "Gadget by yt", pytest.approx(BOX))
    with pytest.raises(DataError, match="is no catalogue of haloes"):
        base.read_as("groups", path, H)


def test_what_yt_does_not_know_either_is_said_as_ever(tmp_path):
    pytest.importorskip("yt")
    (tmp_path / "none").write_bytes(b"\0nothing" * 100)
    with pytest.raises(DataError, match="is no snapshot that is read; accepted are .*MP-Gadget"):
        base.open_snapshot(tmp_path / "none")
    with pytest.raises(DataError, match="none cannot be read by yt: "):
        reader.read_header(tmp_path / "none")


def test_without_yt_the_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "is_installed", lambda: False)
    (tmp_path / "none").write_bytes(b"\0nothing" * 100)
    with pytest.raises(DataError, match=r"is no snapshot that is read; .*; pip install 'kerasgal\[yt\]' may read it"):
        convert(tmp_path / "o.h5", final=tmp_path / "none", grid=8)


class Lengths:
    """An array of yt's, of one unit."""

    def __init__(self, *values):
        self.value = np.array(values)

    def to(self, unit):
        assert unit == "Mpccm/h"
        return self


class Nyx:
    """As yt's datasets say what is in a file."""

    cosmological_simulation, periodicity = 1, (True, True, True)
    domain_width, domain_left_edge = Lengths(50.0, 50.0, 50.0), Lengths(0.0, 0.0, 0.0)
    particle_type_counts = {"DM": 8}
    omega_matter, hubble_constant, current_redshift = OM0, H, 0.5


@pytest.mark.parametrize("said, words", [
    ({"cosmological_simulation": 0}, r"is of no cosmological run, as yt reads it \(Nyx\)"),
    ({"periodicity": (True, True, False)}, "has a box that is not periodic"),
    ({"domain_width": Lengths(50.0, 50.0, 25.0)}, "has a box of 50 x 50 x 25 Mpc/h; accepted is a periodic cube"),
    ({"particle_type_counts": {"io": 8}}, "particles of the types io, .* nothing says whether they are dark matter"),
    ({"particle_type_counts": {"star": 8}}, "has no dark-matter particles"),
])
def test_what_is_no_periodic_cube_of_dark_matter_is_refused(tmp_path, monkeypatch, said, words):
    (tmp_path / "plt00000").write_text("x")
    made = type("Nyx", (Nyx,), said)()
    monkeypatch.setattr(reader, "_load", lambda path: made)
    with pytest.raises(DataError, match=words):
        reader.read_header(tmp_path / "plt00000")


def test_masses_are_held_against_the_mean_density(tmp_path, monkeypatch):
    """As of all formats: units that yt took a file to have and that are not its own are seen."""
    pytest.importorskip("yt")
    path = write_binary(tmp_path / "snap.gad", {1: (positions(), 100 * MASS)})
    monkeypatch.setattr(base, "recognise", lambda path, last=False: (next(
        format for format in base.formats() if format.last), path))
    with pytest.raises(DataError, match="100 of the mean matter density"):
        convert(tmp_path / "o.h5", final=path, grid=8)
