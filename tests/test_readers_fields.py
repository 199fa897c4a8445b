"""Fields and galaxies: snapshots on a grid, cubes in files, tables of parameters, in files that are written here."""

import re

import h5py
import numpy as np
import pytest
from astropy.io import fits

from kerasgal.errors import DataError, SettingError
from kerasgal.grid import deposit_cic, deposit_ngp
from kerasgal.readers import base
from kerasgal.readers.convert import write as convert
from kerasgal.readers.fields import density_contrast, deposit
from kerasgal.readers.parameters import read_parameters
from kerasgal.simulation import Simulation

BOX, OM0, NUMBER = 20.0, 0.3, 1000  # Mpc/h, particles
MASS = OM0 * 27.7536627 * BOX**3 / NUMBER  # 1e10 Msun/h: all matter
# Five subhaloes: of no cosmological origin, too light, a central, its satellite, and a central of the second group.
SUBHALOES = {"SubhaloPos": [[1, 1, 1], [2, 2, 2], [4, 5, 6], [4.5, 5, 6], [19.9, 0.1, 10]],
             "SubhaloMassType": [[0, 0, 0, 0, mass, 0] for mass in (1.0, 0.001, 3.0, 0.5, 0.7)],
             "SubhaloLenType": [[0, 0, 0, 0, stars, 0] for stars in (900, 1, 3000, 500, 700)],
             "SubhaloGrNr": [0, 0, 0, 0, 1], "SubhaloFlag": [0, 1, 1, 1, 1]}
GROUPS = {"GroupMass": [50.0, 80.0], "GroupPos": [[4, 5, 6], [19.9, 0.1, 10]], "GroupFirstSub": [2, 4],
          "GroupLenType": [[0, 40, 0, 0, 9, 0], [0, 60, 0, 0, 9, 0]]}


def particles(seed=0):
    return np.random.default_rng(seed).uniform(0, BOX, (NUMBER, 3))


def header(**changes):
    stated = {"BoxSize": BOX * 1000, "HubbleParam": 0.7, "Omega0": OM0, "OmegaBaryon": 0.045, "Redshift": 0.5,
              "UnitLength_in_cm": 3.085678e21} | changes
    return {name: value for name, value in stated.items() if value is not None}


def write_snapshot(folder, position, files=1, gas=0, masses=None, **changes):
    """HDF5 files in kpc/h, with `gas` particles besides; returns the path of the first."""
    for chunk, some in enumerate(np.array_split(np.arange(len(position)), files)):
        with h5py.File(folder / (f"snap.{chunk}.hdf5" if files > 1 else "snap.hdf5"), "w") as file:
            file.create_group("Header").attrs.update(header(
                NumFilesPerSnapshot=files, NumPart_ThisFile=[gas, len(some), 0, 0, 0, 0],
                NumPart_Total=[gas * files, len(position), 0, 0, 0, 0],
                MassTable=[0, 0.85 * MASS if gas else MASS, 0, 0, 0, 0]) | changes)
            file["PartType1/Coordinates"] = position[some] * 1000
            if masses is not None:
                file["PartType1/Masses"] = masses[some]
                file["Header"].attrs["MassTable"] = np.zeros(6)
            if gas:
                file["PartType0/Coordinates"] = np.full((gas, 3), 500.0)
                file["PartType0/Masses"] = np.full(gas, 0.15 * MASS)
    return folder / ("snap.0.hdf5" if files > 1 else "snap.hdf5")


def write_catalogue(folder, cuts=((0, 2), (2, 5)), groups=((0, 1), (1, 2)), leave_out=(), **changes):
    """The groups and subhaloes in as many files as there are `cuts`; returns the path of the first."""
    for chunk, (sub, group) in enumerate(zip(cuts, groups)):
        with h5py.File(folder / f"fof.{chunk}.hdf5", "w") as file:
            file.create_group("Header").attrs.update(header(
                NumFiles=len(cuts), Ngroups_ThisFile=group[1] - group[0], Nsubgroups_ThisFile=sub[1] - sub[0],
                **changes))
            for name, values in SUBHALOES.items():
                if name not in leave_out:
                    file[f"Subhalo/{name}"] = np.array(values[slice(*sub)]) * (1000 if name == "SubhaloPos" else 1)
            for name, values in GROUPS.items():
                file[f"Group/{name}"] = np.array(values[slice(*group)]) * (1000 if name == "GroupPos" else 1)
    return folder / "fof.0.hdf5"


# Windows -------------------------------------------------------------------------------


@pytest.mark.parametrize("window", ["ngp", "cic", "tsc"])
def test_windows_are_b_splines_of_their_order(window):
    # Hockney & Eastwood (1981): the top-hat folded with itself 0, 1 and 2 times, here by SciPy.
    from scipy.interpolate import BSpline

    order = {"ngp": 1, "cic": 2, "tsc": 3}[window]
    spline = BSpline.basis_element(np.arange(order + 1) - order / 2, extrapolate=False)
    n, position = 8, np.random.default_rng(1).uniform(0, 8, (40, 3))
    distance = position[:, :, None] - (np.arange(n) + 0.5)  # (particle, axis, cell)
    share = np.nan_to_num(spline(distance - n * np.rint(distance / n)))
    expected = np.einsum("px,py,pz->xyz", *share.transpose(1, 0, 2))
    total = np.zeros((n, n, n), np.float32)
    deposit(total, position, None, window)
    np.testing.assert_allclose(total, expected, atol=2e-6)


def test_windows_add_to_what_is_there_and_wrap_and_weigh():
    position, weight = np.random.default_rng(2).uniform(-8, 16, (3000, 3)), np.random.default_rng(3).random(3000)
    for window, other in (("ngp", deposit_ngp), ("cic", deposit_cic)):
        total = np.ones((8, 8, 8), np.float32)
        deposit(total, position, weight, window)
        np.testing.assert_allclose(total - 1, other(position, 8, 8.0, weight), rtol=2e-5, atol=1e-5)


# Snapshots -----------------------------------------------------------------------------


@pytest.mark.parametrize("files", [1, 3])
@pytest.mark.parametrize("gas", [0, 7])
def test_snapshot_alone_becomes_a_field(tmp_path, monkeypatch, files, gas):
    monkeypatch.setattr(base, "PARTICLES_AT_ONCE", 300)
    seen = []
    summary = convert(tmp_path / "run.h5", final=write_snapshot(tmp_path, particles(), files, gas), grid=6,
                      progress=lambda *done: seen.append(done))
    assert (summary["gridsize"], summary["halos"], summary["galaxies"]) == (6, None, None)
    assert seen[-1] == (NUMBER, NUMBER)
    with Simulation(tmp_path / "run.h5", require=("final/delta",)) as simulation:
        assert simulation.problems() == []
        assert simulation.redshift_final == simulation.redshift_initial == 0.5
        assert simulation.particle_mass == pytest.approx(MASS * 1e10, rel=1e-5)
        expected = deposit_cic(particles(), 6, BOX) * 6**3 / NUMBER - 1
        np.testing.assert_allclose(simulation["final/delta"][...], expected, atol=2e-5)
        assert (simulation.window, simulation.particles_per_cell) == ("cic", NUMBER / 6**3)


def test_a_cell_of_millions_of_particles_gains_as_much_from_the_next():
    class Clump(base.Snapshot):  # in a corner of four cells
        def some(self, number, kind, start, stop, names):
            return [np.full((stop - start, 3), 1.5, np.float32)]

    counts = np.eye(base.KINDS, dtype=int)[[1]] * 3 * 2**20
    clump = Clump(("clump",), 4.0, "Mpc", 0.0, counts=counts, masses=np.ones(7))
    delta, mass, taken = density_contrast(clump, 4, "tsc")
    assert mass == taken == 3 * 2**20
    assert delta.mean(dtype=float) == pytest.approx(0, abs=1e-6)
    assert delta[1, 1, 1] == pytest.approx(64 * 0.75**3 - 1, rel=1e-6)


def test_memory_does_not_grow_with_the_snapshot(tmp_path, monkeypatch):
    import tracemalloc

    monkeypatch.setattr(base, "PARTICLES_AT_ONCE", 2**12)
    peaks = []
    for times in (20, 200):
        path = write_snapshot(tmp_path, np.tile(particles(), (times, 1)),
                              MassTable=[0, MASS / times, 0, 0, 0, 0])
        tracemalloc.start()
        convert(tmp_path / "run.h5", final=path, grid=8, overwrite=True)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0] < 200 * NUMBER * 24  # bytes of all positions


@pytest.mark.parametrize("types", ["dark", "gas", "all"])
def test_particles_weigh_by_their_masses(tmp_path, types):
    weight = np.random.default_rng(5).uniform(1, 3, NUMBER)
    weight *= (NUMBER - 5 * 0.15) * MASS / weight.sum()  # all matter of the box
    path = write_snapshot(tmp_path, particles(), gas=5, masses=weight)
    convert(tmp_path / "run.h5", final=path, grid=4, window="ngp", particles=types)
    mass = np.histogramdd(particles(), 4, [(0, BOX)] * 3, weights=weight)[0] if types != "gas" else np.zeros((4, 4, 4))
    if types != "dark":
        mass[0, 0, 0] += 5 * 0.15 * MASS
    with Simulation(tmp_path / "run.h5", require=()) as simulation:
        np.testing.assert_allclose(simulation["final/delta"][...], mass / mass.mean() - 1, rtol=1e-4, atol=1e-5)


def test_galaxies_are_the_subhaloes_with_stars(tmp_path):
    summary = convert(tmp_path / "run.h5", final=write_snapshot(tmp_path, particles()), grid=4,
                      galaxies=write_catalogue(tmp_path))
    assert (summary["halos"], summary["galaxies"]) == (2, 3)
    with Simulation(tmp_path / "run.h5", require=()) as simulation:
        assert simulation.problems() == []
        np.testing.assert_allclose(simulation["galaxies/position"][...], SUBHALOES["SubhaloPos"][2:], rtol=1e-6)
        assert simulation["galaxies/central"][...].tolist() == [1, 0, 1]
        # The second group is the heavier one, and so the first halo.
        assert simulation["galaxies/halo"][...].tolist() == [1, 1, 0]
        np.testing.assert_allclose(simulation["galaxies/stellar_mass"][...], [3e10, 5e9, 7e9])
        np.testing.assert_allclose(simulation["halos/mass"][...], [8e11, 5e11])
        assert simulation["halos/count"][...].tolist() == [60, 40]


def test_centrals_where_the_group_of_a_subhalo_is_not_said(tmp_path):
    final, galaxies = write_snapshot(tmp_path, particles()), write_catalogue(tmp_path, leave_out=("SubhaloGrNr",))
    convert(tmp_path / "run.h5", final=final, grid=4, galaxies=galaxies)
    with Simulation(tmp_path / "run.h5", require=()) as simulation:
        assert simulation["galaxies/central"][...].tolist() == [1, 0, 1]
        assert simulation["galaxies/halo"][...].tolist() == [-1, -1, -1]


def test_galaxies_without_centrals_and_without_subhaloes(tmp_path):
    """Gadget-4 calls the number of its subhaloes otherwise; any file of several may lack them."""
    final, galaxies = write_snapshot(tmp_path, particles()), write_catalogue(tmp_path)
    for number in range(2):
        with h5py.File(tmp_path / f"fof.{number}.hdf5", "r+") as file:
            del file["Group/GroupFirstSub"]
            attributes = file["Header"].attrs
            attributes["Nsubhalos_ThisFile"] = attributes["Nsubgroups_ThisFile"]
            attributes["Nsubhalos_Total"] = 5
            del attributes["Nsubgroups_ThisFile"]
    convert(tmp_path / "run.h5", final=final, grid=4, galaxies=galaxies)
    with Simulation(tmp_path / "run.h5", require=()) as simulation:
        assert "galaxies/central" not in simulation and len(simulation["galaxies/position"]) == 3
    for change, message in ((lambda file: file["Header"].attrs.modify("Nsubhalos_ThisFile", 4),
                             "fof.1.hdf5 has 3 subhaloes; its header says 4"),
                            (lambda file: file.pop("Subhalo/SubhaloPos"), "fof.1.hdf5 has no SubhaloPos"),
                            (lambda file: file["Header"].attrs.modify("Nsubhalos_ThisFile", 0),
                             "fof.0.hdf5: its files hold 2 subhaloes, its header says 5")):
        with h5py.File(tmp_path / "fof.1.hdf5", "r+") as file:
            change(file)
        with pytest.raises(DataError, match=message):
            convert(tmp_path / "new.h5", final=final, grid=4, galaxies=galaxies)


@pytest.mark.parametrize("particles_of", ["dark", "gas"])
def test_particles_in_a_corner_are_in_another_unit(tmp_path, particles_of):
    """Where the header does not say the box, the unit is the caller's to say."""
    path = write_snapshot(tmp_path, particles(), gas=40)
    with h5py.File(path, "r+") as file:
        for name in ("BoxSize", "UnitLength_in_cm"):
            del file["Header"].attrs[name]
    given = {"final": path, "grid": 4, "boxsize": BOX, "particles": particles_of}
    convert(tmp_path / "run.h5", length_unit="kpc", **given)
    with h5py.File(path, "r+") as file:
        for kind in (0, 1):
            file[f"PartType{kind}/Coordinates"][...] /= 1000
    convert(tmp_path / "run.h5", length_unit="Mpc", overwrite=True, **given)
    with pytest.raises(DataError, match="snap.hdf5 has [0-9]+ particles within [0-9.e-]+ of a box of 20000: is its"):
        convert(tmp_path / "new.h5", length_unit="kpc", **given)


def test_all_particles_need_masses_of_all_types(tmp_path):
    path = write_snapshot(tmp_path, particles(), gas=7)
    with h5py.File(path, "r+") as file:
        del file["PartType0/Masses"]
    with pytest.raises(DataError, match="has no masses of PartType0, neither Masses nor in its MassTable"):
        convert(tmp_path / "run.h5", final=path, grid=4, particles="all")
    convert(tmp_path / "run.h5", final=path, grid=4, particles="gas")


def test_a_run_with_much_gas_is_one(tmp_path):
    """CAMELS has dark matter of down to 0.3 of all matter."""
    path = write_snapshot(tmp_path, particles(), gas=7, MassTable=[0, 0.3 * MASS, 0, 0, 0, 0])
    convert(tmp_path / "run.h5", final=path, grid=4)
    with Simulation(tmp_path / "run.h5", require=()) as simulation:
        assert simulation.particle_mass == pytest.approx(MASS * 1e10, rel=1e-4)


def test_choice_of_galaxies(tmp_path):
    final, galaxies = write_snapshot(tmp_path, particles()), write_catalogue(tmp_path)
    for arguments, number in (({"stellar_mass": 6e9}, 2), ({"minimum_stars": 3000}, 1), ({"stellar_mass": 0}, 4)):
        assert convert(tmp_path / "run.h5", final=final, grid=4, galaxies=galaxies, overwrite=True,
                       **arguments)["galaxies"] == number
    with pytest.raises(DataError, match="no galaxy of at least 1e[+]12 Msun/h in stars; the largest has 3e[+]10"):
        convert(tmp_path / "run.h5", final=final, grid=4, galaxies=galaxies, stellar_mass=1e12, overwrite=True)


def test_galaxies_of_the_hydrodynamic_twin_and_groups_of_the_dark_run(tmp_path):
    for name in ("dark", "hydro"):
        (tmp_path / name).mkdir()
    final, groups = write_snapshot(tmp_path / "dark", particles()), write_catalogue(tmp_path / "dark")
    convert(tmp_path / "run.h5", final=final, grid=4, groups=groups, galaxies=write_catalogue(tmp_path / "hydro"))
    with Simulation(tmp_path / "run.h5", require=()) as simulation:
        assert simulation.problems() == [] and len(simulation["galaxies/position"]) == 3
        assert "galaxies/halo" not in simulation and len(simulation["halos/mass"]) == 2
    other = write_catalogue(tmp_path / "hydro", BoxSize=30000.0)
    with pytest.raises(DataError, match="are not of one run: their boxes are 20 and 30 Mpc/h"):
        convert(tmp_path / "run.h5", final=final, grid=4, galaxies=other, overwrite=True)
    other = write_catalogue(tmp_path / "hydro", Redshift=0.0)
    with pytest.raises(DataError, match="their redshifts are 0.000 and 0.500"):
        convert(tmp_path / "run.h5", final=final, grid=4, galaxies=other, overwrite=True)


def test_cascade_reads_what_is_written(tmp_path):
    from kerasgal.apps.cascade.data import density, galaxy_counts

    final, galaxies = write_snapshot(tmp_path, particles()), write_catalogue(tmp_path)
    convert(tmp_path / "run.h5", final=final, grid=4, galaxies=galaxies)
    with Simulation(tmp_path / "run.h5", require=()) as simulation:
        assert density(simulation, BOX / 4).mean() == pytest.approx(1, abs=1e-5)
        counts = galaxy_counts(simulation, BOX / 4)
        assert counts[0, 1, 1] == 2 and counts[3, 0, 2] == 1 and counts.sum() == 3


def test_what_a_header_does_not_say_is_asked_for(tmp_path):
    path = write_snapshot(tmp_path, particles())
    with h5py.File(path, "r+") as file:
        for name in ("BoxSize", "Redshift", "Omega0", "HubbleParam", "UnitLength_in_cm", "NumPart_ThisFile",
                     "NumFilesPerSnapshot", "MassTable"):
            del file["Header"].attrs[name]
    with pytest.raises(DataError) as error:
        convert(tmp_path / "run.h5", final=path, grid=4)
    assert str(error.value) == (
        f"{path} has no BoxSize, Redshift, Omega0, HubbleParam, UnitLength_in_cm in its header; give `boxsize`, "
        "`redshift`, `Om0`, `h`, `length_unit`")
    given = {"boxsize": BOX, "redshift": 0.5, "Om0": OM0, "h": 0.7, "length_unit": "kpc"}
    convert(tmp_path / "run.h5", final=path, grid=4, **given)
    with Simulation(tmp_path / "run.h5", require=()) as simulation:
        expected = deposit_cic(particles(), 4, BOX) * 4**3 / NUMBER - 1
        np.testing.assert_allclose(simulation["final/delta"][...], expected, atol=2e-5)
        assert simulation.particle_mass == pytest.approx(0.3 * 27.7536627e10 * BOX**3 / NUMBER, rel=1e-5)
    with pytest.raises(DataError, match="in a box of 20 .is the length unit right"):
        convert(tmp_path / "run.h5", final=path, grid=4, overwrite=True, **given | {"length_unit": "Mpc"})


def test_what_is_given_must_be_what_files_say(tmp_path):
    path = write_snapshot(tmp_path, particles())
    for given, message in (({"boxsize": 30}, "says that its box is 20 Mpc/h, boxsize=30"),
                           ({"redshift": 1}, "says Redshift = 0.5, redshift=1"),
                           ({"Om0": 0.25}, "says Omega0 = 0.3, Om0=0.25"),
                           ({"h": -1}, "h=-1: accepted are numbers above 0")):
        with pytest.raises(DataError, match=message):
            convert(tmp_path / "run.h5", final=path, grid=4, **given)
    assert not (tmp_path / "run.h5").exists()


def test_camels_sample(shared_data, tmp_path):
    # A cut of a real run without dark matter, box and group header: what it has, it gives when the rest is given.
    folder = shared_data / "camels_cv0_tng"
    snapshot, catalogue = folder / "camels_snap.hdf5", folder / "camels_subhalo.hdf5"
    arguments = {"final": snapshot, "grid": 8, "particles": "stars", "galaxies": catalogue, "minimum_stars": 20}
    with pytest.raises(DataError) as error:
        convert(tmp_path / "run.h5", **arguments)
    assert str(error.value) == (
        f"{snapshot} has no BoxSize, UnitLength_in_cm in its header; {catalogue} has no BoxSize, Redshift, "
        "UnitLength_in_cm in its header; give `boxsize`, `length_unit`, `redshift`")
    with pytest.raises(DataError) as error:
        convert(tmp_path / "run.h5", boxsize=25, length_unit="kpc", **arguments)
    assert str(error.value) == f"{catalogue} has no Redshift in its header; give `redshift`"
    convert(tmp_path / "run.h5", boxsize=25, length_unit="kpc", redshift=0.1, **arguments)
    with h5py.File(snapshot) as file, Simulation(tmp_path / "run.h5", require=()) as simulation:
        mass = deposit_cic(file["PartType4/Coordinates"][:], 8, 25e3, file["PartType4/Masses"][:])
        np.testing.assert_allclose(simulation["final/delta"][...], mass / mass.mean() - 1, rtol=1e-4, atol=1e-4)
        assert simulation.redshift_final == pytest.approx(0.1, abs=2e-4)
    with h5py.File(catalogue) as file, Simulation(tmp_path / "run.h5", require=()) as simulation:
        enough = file["Subhalo/SubhaloLenType"][:, 4] >= 20
        np.testing.assert_allclose(simulation["galaxies/position"][...], file["Subhalo/SubhaloPos"][:][enough] / 1e3)


SNAPSHOT_ERRORS = {
    "NaN": (lambda file: file["PartType1/Coordinates"].__setitem__((5, 1), np.nan),
            "has positions that are NaN or infinite"),
    "far outside": (lambda file: file["PartType1/Coordinates"].__setitem__((5, 1), 1e9),
                    "in a box of 20000 .is the length unit right, or is the file damaged"),
    "fewer than stated": (lambda file: file["Header"].attrs.modify("NumPart_ThisFile", [0, 2000, 0, 0, 0, 0]),
                          "has fewer Coordinates in PartType1 than NumPart_ThisFile says"),
    "other total": (lambda file: file["Header"].attrs.modify("NumPart_Total", [0, 2000, 0, 0, 0, 0]),
                    "its files hold 1000 particles of PartType1, NumPart_Total says 2000"),
    "shape": (lambda file: (file.move("PartType1/Coordinates", "old"),
                            file.create_dataset("PartType1/Coordinates", data=file["old"][:, :2])),
              r"Coordinates in PartType1 has the shape \(..., 2\)"),
    "too many files": (lambda file: file["Header"].attrs.modify("NumFilesPerSnapshot", 2**31 - 1),
                       "NumFilesPerSnapshot says 2147483647"),
    "no such particles": (lambda file: file["Header"].attrs.modify("NumPart_ThisFile", [0] * 6),
                          r"has no dark-matter particles \(PartType1\)"),
    "mass": (lambda file: file["Header"].attrs.modify("MassTable", [0, 1e3 * MASS, 0, 0, 0, 0]),
             "of the mean matter density; accepted are 0.05 to 1.05"),
    "no cube": (lambda file: file["Header"].attrs.__setitem__("BoxSize", [20e3, 20e3, 30e3]),
                r"has a BoxSize of \[20000. 30000.\]; accepted is a cube"),
    "text": (lambda file: file["Header"].attrs.__setitem__("BoxSize", "20 Mpc"), "has no BoxSize in its header"),
    "text for positions": (lambda file: (file.move("PartType1/Coordinates", "old"), file.create_dataset(
        "PartType1/Coordinates", data=np.full((NUMBER, 3), b"x"))), "Coordinates in PartType1 is of type .S1"),
    "a unit that is none": (lambda file: file["Header"].attrs.__setitem__("UnitLength_in_cm", "kpc"),
                            "has UnitLength_in_cm = nan; accepted is a number above 0"),
}


@pytest.mark.parametrize("name", SNAPSHOT_ERRORS)
def test_snapshot_error(tmp_path, name):
    damage, message = SNAPSHOT_ERRORS[name]
    path = write_snapshot(tmp_path, particles())
    with h5py.File(path, "r+") as file:
        damage(file)
    with pytest.raises(DataError, match=message):
        convert(tmp_path / "run.h5", final=path, grid=4)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["snap.hdf5"]


def test_truncated_hdf5_and_missing_chunks(tmp_path):
    path = write_snapshot(tmp_path, particles(), files=3)
    (tmp_path / "snap.1.hdf5").write_bytes((tmp_path / "snap.1.hdf5").read_bytes()[:-9000])
    with pytest.raises(DataError, match="snap.1.hdf5 is damaged or cut short: Unable to .*truncated file"):
        convert(tmp_path / "run.h5", final=path, grid=4)
    write_snapshot(tmp_path, particles(), files=3)
    with h5py.File(tmp_path / "snap.2.hdf5", "r+") as file:
        file["Header"].attrs["Redshift"] = 0.0
    with pytest.raises(DataError, match="snap.2.hdf5 is not of the snapshot of .*: its BoxSize or Redshift is another"):
        convert(tmp_path / "run.h5", final=path, grid=4)
    (tmp_path / "snap.1.hdf5").unlink()
    with pytest.raises(DataError, match="NumFilesPerSnapshot says 3 files, 2 found; missing: snap.1.hdf5"):
        convert(tmp_path / "run.h5", final=path, grid=4)


def test_catalogue_errors(tmp_path):
    final = write_snapshot(tmp_path, particles())
    with pytest.raises(DataError, match="has no stellar masses .SubhaloMassType.; give `minimum_stars`"):
        convert(tmp_path / "run.h5", final=final, grid=4,
                galaxies=write_catalogue(tmp_path, leave_out=("SubhaloMassType",)))
    with pytest.raises(DataError, match="has neither SubhaloMassType nor SubhaloLenType in its group Subhalo"):
        convert(tmp_path / "run.h5", final=final, grid=4,
                galaxies=write_catalogue(tmp_path, leave_out=("SubhaloMassType", "SubhaloLenType")))
    with pytest.raises(DataError, match="is no catalogue of galaxies that is read: it holds x"):
        with h5py.File(tmp_path / "other.hdf5", "w") as file:
            file["x"] = 1
        convert(tmp_path / "run.h5", final=final, grid=4, galaxies=tmp_path / "other.hdf5")
    with pytest.raises(DataError, match="is no catalogue of galaxies"):
        (tmp_path / "table.txt").write_text("1 2\n")
        convert(tmp_path / "run.h5", final=final, grid=4, galaxies=tmp_path / "table.txt")


@pytest.mark.parametrize("spoilt", ["final", "galaxies"])
def test_spoilt_hdf5_is_refused_or_makes_a_sound_file(tmp_path, spoil, spoilt):
    arguments = {"final": write_snapshot(tmp_path, particles(), gas=5), "galaxies": write_catalogue(tmp_path)}
    made = tmp_path / "run.h5"
    spoil(arguments[spoilt], lambda: convert(made, grid=4, overwrite=True, **arguments), made)


# Fields in files -----------------------------------------------------------------------

GIVEN = {"boxsize": BOX, "redshift": 0.0, "Om0": OM0, "h": 0.7}


def cube(seed=0, n=6):
    """A density of mean 1, (n, n, n)."""
    values = np.random.default_rng(seed).lognormal(0, 1, (n, n, n))
    return values / values.mean()


def write_npy(folder, values):
    np.save(folder / "field.npy", values)
    return folder / "field.npy"


def write_h5(folder, values):
    with h5py.File(folder / "field.hdf5", "w") as file:
        file["fields/matter"], file["other"] = values, np.zeros(3)
    return f"{folder / 'field.hdf5'}:fields/matter"


def write_fits(folder, values):
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(values, name="MATTER")]).writeto(folder / "field.fits")
    return f"{folder / 'field.fits'}:matter"


@pytest.mark.parametrize("write", [write_npy, write_h5, write_fits])
@pytest.mark.parametrize("quantity, change", [("rho", lambda rho: 7e10 * rho), ("1+delta", lambda rho: rho),
                                              ("delta", lambda rho: rho - 1)])
def test_density_of_each_format_and_quantity(tmp_path, write, quantity, change):
    convert(tmp_path / "run.h5", density=write(tmp_path, change(cube())), quantity=quantity, **GIVEN)
    with Simulation(tmp_path / "run.h5", require=("final/delta",)) as simulation:
        assert simulation.problems() == []
        np.testing.assert_allclose(simulation["final/delta"][...], cube() - 1, atol=1e-5)
        assert (simulation.boxsize, simulation.redshift_final, simulation.cosmology.Om0) == (BOX, 0, OM0)
        assert simulation.particle_mass * 6**3 == pytest.approx(OM0 * 27.7536627e10 * BOX**3, rel=1e-5)


def test_density_with_counts_or_a_catalogue(tmp_path):
    counts = np.random.default_rng(1).poisson(1, (6, 6, 6))
    np.save(tmp_path / "counts.npy", counts)
    path = write_npy(tmp_path, cube())
    convert(tmp_path / "run.h5", density=path, quantity="1+delta", counts=tmp_path / "counts.npy", **GIVEN)
    with Simulation(tmp_path / "run.h5", require=()) as simulation:
        np.testing.assert_array_equal(simulation["galaxies/count"][...], counts)
    np.save(tmp_path / "counts.npy", counts[:5, :5, :5])
    with pytest.raises(DataError, match=r"galaxies/count has shape \(5, 5, 5\); final/delta has \(6, 6, 6\)"):
        convert(tmp_path / "run.h5", density=path, quantity="1+delta", counts=tmp_path / "counts.npy", overwrite=True,
                **GIVEN)
    # The box and the redshift are then the catalogue's.
    galaxies = write_catalogue(tmp_path)
    assert convert(tmp_path / "run.h5", density=path, quantity="1+delta", galaxies=galaxies, Om0=OM0, h=0.7,
                   overwrite=True)["galaxies"] == 3
    with Simulation(tmp_path / "run.h5", require=()) as simulation:
        assert (simulation.boxsize, simulation.redshift_final) == (BOX, 0.5)


def test_multifield_layout_and_its_parameters(tmp_path, invoke):
    np.save(tmp_path / "Grids_Mcdm.npy", np.stack([1e10 * cube(seed) for seed in range(3)]).astype(np.float32))
    np.savetxt(tmp_path / "params.txt", [[0.1 * row, 0.8, 1, 2, 3, 4 + row] for row in (1, 2, 3)])
    arguments = {"density": tmp_path / "Grids_Mcdm.npy", "quantity": "rho", "boxsize": 25, "redshift": 0, "h": 0.6711}
    convert(tmp_path / "run.h5", index=2, parameter_table=tmp_path / "params.txt", **arguments)
    with Simulation(tmp_path / "run.h5", require=()) as simulation:
        np.testing.assert_allclose(simulation["final/delta"][...], cube(2) - 1, atol=1e-5)
        assert simulation.parameters == {"Om0": pytest.approx(0.3), "sigma8": 0.8, "h": 0.6711, "Ob0": 0.049,
                                         "ns": 0.9665, "A_SN1": 1, "A_AGN1": 2, "A_SN2": 3, "A_AGN2": 7}
    shown = invoke("info", tmp_path / "run.h5").stdout
    assert re.search(r"parameters A_AGN2 *│ 7 ", shown) and re.search(r"cosmology Om0 *│ 0.3 ", shown)
    with pytest.raises(DataError, match=r"has fields of 3 simulations, of the shape \(3, 6, 6, 6\); give `index`"):
        convert(tmp_path / "new.h5", Om0=0.3, **arguments)
    np.save(tmp_path / "one.npy", cube())
    with pytest.raises(DataError, match="one.npy:3: the file has one field, of the shape"):
        convert(tmp_path / "new.h5", **arguments | {"density": f"{tmp_path}/one.npy:3"}, Om0=0.3)
    with pytest.raises(DataError, match="no such file: .*none.npy"):
        convert(tmp_path / "new.h5", **arguments | {"density": tmp_path / "none.npy"}, index=0,
                parameter_table=tmp_path / "params.txt")
    with pytest.raises(DataError, match="has no field 3; accepted are 0 to 2"):
        convert(tmp_path / "new.h5", Om0=0.3, index=3, **arguments)
    numbered = arguments | {"density": f"{tmp_path}/Grids_Mcdm.npy:2"}
    convert(tmp_path / "run.h5", index=2, parameter_table=tmp_path / "params.txt", overwrite=True, **numbered)
    with pytest.raises(SettingError, match="Grids_Mcdm.npy:2 is field 2, and index=1 is another: give one of them"):
        convert(tmp_path / "new.h5", index=1, parameter_table=tmp_path / "params.txt", **numbered)
    with pytest.raises(DataError, match="says Om0 = 0.1 in row 0, Om0=0.3"):
        convert(tmp_path / "new.h5", Om0=0.3, index=0, parameter_table=tmp_path / "params.txt", **arguments)
    np.savetxt(tmp_path / "params.txt", np.ones((3, 2)) * [0.3, 0.8])
    assert read_parameters(tmp_path / "params.txt", 1) == {"Om0": 0.3, "sigma8": 0.8}
    np.savetxt(tmp_path / "params.txt", np.ones((3, 5)))
    with pytest.raises(DataError, match="has a row of 5 columns; accepted are 6: Omega_m, sigma_8, A_SN1"):
        read_parameters(tmp_path / "params.txt", 1)
    np.savetxt(tmp_path / "params.txt", np.ones((4, 6)))
    with pytest.raises(DataError, match="params.txt has 4 rows, and the file of fields 3 simulations"):
        convert(tmp_path / "new.h5", index=0, parameter_table=tmp_path / "params.txt", **arguments)
    assert not (tmp_path / "new.h5").exists()


@pytest.mark.parametrize("name, index, row", [
    ("IllustrisTNG_L25n256_LH", 1, {"Om0": 0.3026, "sigma8": 0.9394, "A_SN1": 3.42001, "A_AGN1": 3.96137,
                                    "A_SN2": 1.03311, "A_AGN2": 1.1607}),
    ("SIMBA_L25n256_CV", 26, {"Om0": 0.3, "sigma8": 0.8, "A_SN1": 1, "A_AGN1": 1, "A_SN2": 1, "A_AGN2": 1}),
])
def test_camels_tables(shared_data, name, index, row):
    assert read_parameters(shared_data / "camels_params" / f"CosmoAstroSeed_{name}.txt", index) == row


@pytest.mark.parametrize("suite", ["IllustrisTNG", "SIMBA"])
def test_camels_tables_of_28_parameters(shared_data, suite):
    path = shared_data / "camels_params" / f"CosmoAstroSeed_{suite}_L25n256_1P.txt"
    found = read_parameters(path, 0)
    assert len(found) == 28 and "seed" not in found
    assert {name: found[name] for name in ("Om0", "sigma8", "Ob0", "h", "ns")} == {
        "Om0": 0.1, "sigma8": 0.8, "Ob0": 0.049, "h": 0.6711, "ns": 0.9624}
    with pytest.raises(DataError, match="has no row 1000; accepted are 0 to 13"):
        read_parameters(path, 1000)


FIELD_ERRORS = {
    "nothing given": (cube(), "1+delta", {name: None for name in GIVEN},
                      "has no BoxSize, Redshift, Omega0, HubbleParam, and no other file says it; give `boxsize`, "
                      "`redshift`, `Om0`, `h`"),
    "other quantity": (cube(), "delta", {}, "has a mean of 1; that of delta over a whole box is 0"),
    "density as contrast": (3 * cube(), "1+delta", {}, "has a mean of 3; that of 1[+]delta over a whole box is 1"),
    "negative": (cube() - 1 + 1.0 * (np.arange(216).reshape(6, 6, 6) == 7) * -216, "rho", {},
                 "which as rho are negative densities"),
    "negative in large units": (1e-6 * (cube() - 9.0 * (np.arange(216).reshape(6, 6, 6) == 7)), "rho", {},
                                "which as rho are negative densities"),
    "NaN": (np.where(cube() > 3, np.nan, cube()), "1+delta", {}, "values that are NaN or infinite"),
    "no mass": (np.zeros((6, 6, 6)), "rho", {}, "has a mean density of 0; accepted is one above 0"),
    "no cube": (np.ones((6, 6, 5)), "1+delta", {}, r"has the shape \(6, 6, 5\); accepted are \(n, n, n\) and"),
    "complex": (cube().astype(complex), "1+delta", {}, "values of type complex128; accepted are real numbers"),
    "flat universe": (cube(), "1+delta", {"Om0": 1.5}, "not a flat LCDM universe"),
}


@pytest.mark.parametrize("name", FIELD_ERRORS)
def test_field_error(tmp_path, name):
    values, quantity, given, message = FIELD_ERRORS[name]
    with pytest.raises(DataError, match=message):
        convert(tmp_path / "run.h5", density=write_npy(tmp_path, values), quantity=quantity, **GIVEN | given)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["field.npy"]


@pytest.mark.parametrize("write", [write_npy, write_h5, write_fits])
def test_fields_that_are_cut_short_or_missing(tmp_path, write):
    source = str(write(tmp_path, cube(n=20)))
    path = tmp_path / source.split(":")[0]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match="damaged"):
        convert(tmp_path / "run.h5", density=source, quantity="1+delta", **GIVEN)
    path.unlink()
    with pytest.raises(DataError, match="no such file"):
        convert(tmp_path / "run.h5", density=source, quantity="1+delta", **GIVEN)
    if source.endswith(".npy"):
        path.write_bytes(b"\x93NUMPY\x01\x00\x46\x00{'descr': '<f8', (" + b" " * 100)
        with pytest.raises(DataError, match="is damaged, cut short or no .npy file"):
            convert(tmp_path / "run.h5", density=source, quantity="1+delta", **GIVEN)
    with pytest.raises(DataError, match="accepted suffixes are .npy .h5 .hdf5 .fits"):
        (tmp_path / "field.dat").write_text("1")
        convert(tmp_path / "run.h5", density=tmp_path / "field.dat", quantity="1+delta", **GIVEN)


def test_names_in_files(tmp_path):
    source = write_h5(tmp_path, cube())
    path = source.split(":")[0]
    with pytest.raises(DataError, match=r"has 2 datasets; say which one by .*:NAME; it holds fields/matter \(6, "):
        convert(tmp_path / "run.h5", density=path, quantity="1+delta", **GIVEN)
    with pytest.raises(DataError, match="has no dataset gas; it holds"):
        convert(tmp_path / "run.h5", density=f"{path}:gas", quantity="1+delta", **GIVEN)
    path = write_fits(tmp_path, cube()).split(":")[0]
    convert(tmp_path / "run.h5", density=path, quantity="1+delta", **GIVEN)
    with pytest.raises(DataError, match="has no image gas; it has 1 MATTER"):
        convert(tmp_path / "run.h5", density=f"{path}:gas", quantity="1+delta", overwrite=True, **GIVEN)


# The command ---------------------------------------------------------------------------


def test_command(tmp_path, invoke):
    final, galaxies = write_snapshot(tmp_path, particles()), write_catalogue(tmp_path)
    done = invoke("convert", tmp_path / "run.h5", "--final", final, "--grid", 4, "--galaxies", galaxies)
    assert done.stdout.splitlines() == [
        f"{tmp_path / 'run.h5'}: 4^3 cells in 20 Mpc/h, 2 haloes, 3 galaxies, redshift 0.5; dark particles by cic",
        "assumed, as no file says it: ns = 0.9665 (Planck 2018); sigma8 = 0.8102 (Planck 2018)"]
    assert "galaxies" in invoke("info", tmp_path / "run.h5").stdout


def test_command_says_in_one_line_what_is_wrong(tmp_path, invoke):
    path = write_snapshot(tmp_path, particles())
    path.write_bytes(path.read_bytes()[:-5000])
    for arguments in (["--final", path, "--grid", 4], ["--initial", path],
                      ["--density", path, "--quantity", "rho", "--boxsize", 25]):
        done = invoke("convert", tmp_path / "run.h5", *arguments, check=False)
        assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith(f"Error: {path} ")
        assert "Traceback" not in done.stderr and not (tmp_path / "run.h5").exists()


def test_command_says_what_is_too_large_and_what_is_a_folder(tmp_path, invoke):
    path = write_snapshot(tmp_path, particles())
    done = invoke("convert", tmp_path / "run.h5", "--final", path, "--grid", 100_000, check=False)
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith("Error: out of memory: Unable to allocate")
    for arguments in (["--initial", tmp_path], ["--final", tmp_path, "--grid", 4],
                      ["--density", tmp_path, "--quantity", "rho", "--boxsize", 20, "--redshift", 0, "--omega-matter",
                       0.3, "--hubble", 0.7]):
        done = invoke("convert", tmp_path / "run.h5", *arguments, check=False)
        assert done.returncode == 1 and f"{tmp_path} is a folder; give one of the files in it" in done.stderr


@pytest.mark.parametrize("arguments, message", [
    ([], "nothing to convert: give --initial, --final or --density"),
    (["--final", "x"], "--final without --initial goes on a grid: give --grid"),
    (["--density", "x"], "--density needs --quantity: rho, 1+delta or delta"),
    (["--density", "x", "--initial", "y"], "leave --initial and --final out"),
    (["--initial", "x", "--final", "y", "--grid", "8"], "--grid is for --final or --initial alone"),
    (["--initial", "x", "--particles", "all"], "--particles goes with --grid"),
    (["--initial", "x", "--groups", "y"], "needs the snapshot that it belongs to (--final)"),
    (["--initial", "x", "--counts", "y"], "--counts goes with a field"),
    (["--initial", "x", "--galaxies", "y"], "needs the snapshot that it belongs to (--final)"),
    (["--initial", "x", "--stellar-mass", "1e9"], "give a catalogue"),
    (["--final", "x", "--grid", "8", "--galaxies", "y", "--stellar-mass", "1e9", "--minimum-stars", "3"], "give one"),
    (["--final", "x", "--grid", "8", "--quantity", "rho"], "give --density"),
    (["--final", "x", "--grid", "8", "--parameter-table", "y"], "needs --index"),
])
def test_usage(tmp_path, invoke, arguments, message):
    done = invoke("convert", tmp_path / "run.h5", *arguments, check=False)
    assert done.returncode == 2 and message in " ".join(done.stderr.split())
