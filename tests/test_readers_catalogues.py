"""Catalogues of other makes than FoF/SUBFIND, and a Simulation file through the IllustrisTNG layout and back."""

import h5py
import numpy as np
import pytest

from kerasgal.cosmology import Cosmology, mean_density
from kerasgal.errors import DataError
from kerasgal.readers.base import number_of_groups
from kerasgal.readers.convert import write as convert
from kerasgal.readers.lagrangian import linear_density
from kerasgal.simulation import Simulation, write

N, BOX, OM0 = 8, 16.0, 0.3  # particles a side, Mpc/h
MASS = OM0 * 27.7536627 * (BOX / N) ** 3  # 1e10 Msun/h
LATTICE = np.stack(np.indices((N, N, N)), -1).reshape(-1, 3)
GIVEN = {"boxsize": BOX, "redshift": 0.0, "Om0": OM0, "h": 0.7}
ROCKSTAR = """#ID DescID Mvir Vmax Vrms Rvir Rs Np X Y Z VX VY VZ JX JY JZ Spin rs_klypin Mvir_all{parent}
#a = 0.500000
#Om = 0.300000; Ol = 0.700000; h = 0.700000
#Particle mass: 1.03289e+10 Msun/h
#Box size: 16.000000 Mpc/h
#Units: Masses in Msun / h
"""
HOP = """# HALOS FOUND WITH HOP
# REDSHIFT OF OUTPUT = 0.000000
# Group\tMass\t# part\tmax densx\ty\tz\tcenter-of-mass\tx\ty\tz\tvx\tvy\tvz\tmax_r\trms_v\t
"""


def density(folder):
    np.save(folder / "density.npy", np.ones((4, 4, 4)))
    return {"density": folder / "density.npy", "quantity": "1+delta"}


def rockstar_row(number, mass, radius, count, position, parent=None):
    values = [number, -1, mass, 300, 310, radius, 20, count, *position, 1, 2, 3, 1e9, 1e9, 1e9, 0.03, 20, mass]
    return " ".join(f"{value:.6g}" for value in [*values, *([] if parent is None else [parent])]) + "\n"


def write_run(folder, position=None, ids=None):
    """Initial conditions `ics.hdf5` and snapshot `snap.hdf5` of the lattice; returns arguments of `convert`."""
    ids = np.arange(N**3) if ids is None else ids
    start = (LATTICE + 0.5) * BOX / N
    for name, where, redshift in (("ics", start, 63.0), ("snap", start if position is None else position, 0.0)):
        with h5py.File(folder / f"{name}.hdf5", "w") as file:
            file.create_group("Header").attrs.update(
                BoxSize=BOX * 1000, HubbleParam=0.7, MassTable=[0, MASS, 0, 0, 0, 0], Omega0=OM0, OmegaBaryon=0.045,
                NumFilesPerSnapshot=1, NumPart_ThisFile=[0, N**3, 0, 0, 0, 0], Redshift=redshift,
                UnitLength_in_cm=3.085678e21)
            file["PartType1/Coordinates"] = where * 1000.0
            file["PartType1/Velocities"] = np.zeros((N**3, 3))
            file["PartType1/ParticleIDs"] = ids
    return {"initial": folder / "ics.hdf5", "final": folder / "snap.hdf5"}


# Tables of haloes ----------------------------------------------------------------------


@pytest.mark.parametrize("parent", [False, True])
def test_rockstar(tmp_path, parent):
    rows = [(7, 1e12, 200, 50, [1, 2, 3], -1), (8, 5e13, 700, 2500, [4, 5, 6], -1), (9, 4e11, 100, 20, [4, 5, 7], 8)]
    (tmp_path / "out_0.list").write_text(ROCKSTAR.format(parent=" PID" if parent else "") + "".join(
        rockstar_row(*row[:5], parent=row[5] if parent else None) for row in rows))
    convert(tmp_path / "run.h5", groups=tmp_path / "out_0.list", Om0=OM0, h=0.7, **density(tmp_path))
    with Simulation(tmp_path / "run.h5", require=("final/delta",)) as simulation:
        assert simulation.problems() == []
        assert (simulation.boxsize, simulation.redshift_final) == (16, 1)  # its own header's
        halos = simulation.halos()
        assert len(halos["mass"]) == (2 if parent else 3)
        np.testing.assert_allclose(halos["mass"][:2], [5e13, 1e12])
        np.testing.assert_allclose(halos["position"][:2], [[4, 5, 6], [1, 2, 3]])
        np.testing.assert_allclose(halos["radius"][:2], [0.7, 0.2])
        assert halos["count"].tolist()[:2] == [2500, 50]


def test_rockstar_of_another_box_or_redshift_or_without_columns(tmp_path):
    table = tmp_path / "out_0.list"
    table.write_text(ROCKSTAR.format(parent="") + rockstar_row(1, 1e12, 200, 50, [1, 2, 3]))
    with pytest.raises(DataError, match="says that its box is 16 Mpc/h, boxsize=25"):
        convert(tmp_path / "run.h5", groups=table, **density(tmp_path), **GIVEN | {"boxsize": 25, "redshift": 1})
    with pytest.raises(DataError, match="says Redshift = 1, redshift=0"):
        convert(tmp_path / "run.h5", groups=table, **density(tmp_path), **GIVEN)
    table.write_text("#ID DescID Mvir X Y Z\n1 -1 1e12 1 2 3\n")
    with pytest.raises(DataError, match="has no column rvir, np; a table of Rockstar"):
        convert(tmp_path / "run.h5", groups=table, **density(tmp_path), **GIVEN)
    table.write_text(ROCKSTAR.format(parent="") + "1 -1 twelve\n")
    with pytest.raises(DataError, match="is not a catalogue that is read"):
        convert(tmp_path / "run.h5", groups=table, **density(tmp_path), **GIVEN)
    table.write_text(ROCKSTAR.format(parent="") + rockstar_row(1, np.nan, 200, 50, [1, 2, 3]))
    with pytest.raises(DataError, match="negative, NaN or infinite in its columns mass"):
        convert(tmp_path / "run.h5", groups=table, **density(tmp_path), **GIVEN)


def test_rockstar_of_a_part_of_the_box(tmp_path):
    for part in (0, 1):
        (tmp_path / f"halos_3.{part}.ascii").write_text(
            ROCKSTAR.format(parent="") + rockstar_row(part, 1e12, 200, 50, [1 + 8 * part, 2, 3]))
    with pytest.raises(DataError, match="halos_3.0.ascii has the haloes of a part of the box.*; give its out_N.list"):
        convert(tmp_path / "run.h5", groups=tmp_path / "halos_3.0.ascii", Om0=OM0, h=0.7, **density(tmp_path))
    (tmp_path / "halos_3.1.ascii").unlink()
    assert convert(tmp_path / "run.h5", groups=tmp_path / "halos_3.0.ascii", Om0=OM0, h=0.7,
                   **density(tmp_path))["halos"] == 1


def test_galaxies_in_a_table_of_rockstar_galaxies_are_no_haloes(tmp_path):
    rows = [rockstar_row(number, mass, 200, 50, [1, 2, 3], parent) for number, mass, parent in
            ((1, 1e12, 0), (2, 1e10, 1))]
    (tmp_path / "out_0.list").write_text(ROCKSTAR.format(parent=" Type") + "".join(rows))
    convert(tmp_path / "run.h5", groups=tmp_path / "out_0.list", Om0=OM0, h=0.7, **density(tmp_path))
    with Simulation(tmp_path / "run.h5", require=()) as simulation:
        np.testing.assert_allclose(simulation["halos/mass"], [1e12])


@pytest.mark.parametrize("old, new, flag", [("#a = 0.500000", "#a = 0.000000", "redshift"),
                                            ("#a = 0.500000", "#a = .", "redshift"),
                                            ("Box size: 16.0", "Box size: 0.0", "boxsize"),
                                            ("Box size: 16.0", "Box size: 1.2.3 ", "boxsize")])
def test_rockstar_header_that_says_nothing(tmp_path, old, new, flag):
    table = tmp_path / "out_0.list"
    table.write_text(ROCKSTAR.format(parent="").replace(old, new) + rockstar_row(1, 1e12, 200, 50, [1, 2, 3]))
    with pytest.raises(DataError, match=f"in its header; give `{flag}`"):
        convert(tmp_path / "run.h5", groups=table, Om0=OM0, h=0.7, **density(tmp_path))


def test_an_empty_file_is_no_table_of_members(tmp_path):
    (tmp_path / "members.txt").write_text("")
    with pytest.raises(DataError, match="members.txt is empty; accepted are"):
        convert(tmp_path / "run.h5", groups=tmp_path / "members.txt", **write_run(tmp_path))


def test_rockstar_without_haloes(tmp_path):
    (tmp_path / "out_0.list").write_text(ROCKSTAR.format(parent=""))
    assert convert(tmp_path / "run.h5", groups=tmp_path / "out_0.list", Om0=OM0, h=0.7,
                   **density(tmp_path))["halos"] == 0


def test_hop(tmp_path):
    row = "{:10d}\t{:.9e}\t{:10d}\t" + "\t".join(["{:.9e}"] * 12) + "\n"
    (tmp_path / "HopAnalysis.out").write_text(
        HOP + row.format(0, 2e13, 400, 900.0, 0.1, 0.2, 0.3, 0.125, 0.25, 0.375, 1.0, 2.0, 3.0, 0.01, 100.0)
        + row.format(1, 1e13, 200, 900.0, 0.1, 0.2, 0.3, 0.5, 0.75, 0.5, 1.0, 2.0, 3.0, 0.01, 100.0))
    convert(tmp_path / "run.h5", groups=tmp_path / "HopAnalysis.out", **density(tmp_path), **GIVEN)
    with Simulation(tmp_path / "run.h5", require=()) as simulation:
        halos = simulation.halos()
        np.testing.assert_allclose(halos["mass"], [1.4e13, 7e12])
        np.testing.assert_allclose(halos["position"], [[2, 4, 6], [8, 12, 8]])
        assert halos["count"].tolist() == [400, 200]
        within = 4 / 3 * np.pi * halos["radius"] ** 3 * 200 * mean_density(Cosmology(Om0=OM0, h=0.7))
        np.testing.assert_allclose(within, halos["mass"], rtol=1e-5)
    with pytest.raises(DataError, match="has masses in Msun, not Msun/h; give `h`"):
        convert(tmp_path / "new.h5", groups=tmp_path / "HopAnalysis.out", **density(tmp_path), **GIVEN | {"h": None})


def test_haloes_without_members_do_not_go_with_particles(tmp_path):
    (tmp_path / "out_0.list").write_text(ROCKSTAR.format(parent="") + rockstar_row(1, 1e12, 200, 50, [1, 2, 3]))
    with pytest.raises(DataError, match="has haloes, but not which particles are in them"):
        convert(tmp_path / "run.h5", groups=tmp_path / "out_0.list", **write_run(tmp_path))


# CAESAR --------------------------------------------------------------------------------


def write_caesar(path, **changes):
    """In the layout of CAESAR's documentation: comoving kpc and Msun, neither over h."""
    attributes = {"boxsize": BOX * 1000 / 0.7, "boxsize_units": b"kpccm", "hubble_constant": 0.7, "redshift": 0.0,
                  "omega_matter": 0.3} | changes
    with h5py.File(path, "w") as file:
        file.create_group("simulation_attributes").attrs.update(attributes)
        for kind, columns in {
            "galaxy_data": {"pos": np.array([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]]) * 1000 / 0.7, "nstar": [50, 900, 40],
                            "dicts/masses.stellar": np.array([1e9, 2e10, 8e7]) / 0.7, "parent_halo_index": [1, 1, 0],
                            "central": [False, True, True], "GroupID": [0, 1, 2]},
            "halo_data": {"pos": np.array([[7.0, 8, 9], [4, 5, 6]]) * 1000 / 0.7, "ndm": [30, 700],
                          "minpotpos": np.array([[7.0, 8, 9.5], [4, 5, 6.5]]) * 1000 / 0.7,
                          "dicts/masses.total": np.array([1e11, 6e12]) / 0.7},
        }.items():
            for name, values in columns.items():
                file[f"{kind}/{name}"] = values
                if "pos" in name:
                    file[f"{kind}/{name}"].attrs["unit"] = "kpccm"
    return path


def test_caesar(tmp_path):
    path = write_caesar(tmp_path / "caesar_090.hdf5")
    convert(tmp_path / "run.h5", galaxies=path, Om0=OM0, h=0.7, **density(tmp_path))
    with Simulation(tmp_path / "run.h5", require=()) as simulation:
        assert simulation.problems() == [] and simulation.boxsize == pytest.approx(BOX)
        np.testing.assert_allclose(simulation["galaxies/position"][...], [[1, 2, 3], [4, 5, 6]], rtol=1e-6)
        np.testing.assert_allclose(simulation["galaxies/stellar_mass"][...], [1e9, 2e10], rtol=1e-6)
        assert simulation["galaxies/central"][...].tolist() == [0, 1]
        assert simulation["galaxies/halo"][...].tolist() == [0, 0]
        np.testing.assert_allclose(simulation["halos/mass"][...], [6e12, 1e11], rtol=1e-6)
        np.testing.assert_allclose(simulation["halos/position"][...], [[4, 5, 6.5], [7, 8, 9.5]], rtol=1e-6)
    with pytest.raises(DataError, match="has lengths in kpc; accepted are kpccm and Mpccm"):
        convert(tmp_path / "new.h5", galaxies=write_caesar(path, boxsize_units=b"kpc"), Om0=OM0, h=0.7,
                **density(tmp_path))
    with h5py.File(write_caesar(path), "r+") as file:
        file["galaxy_data/parent_halo_index"][0] = 2
    with pytest.raises(DataError, match="has galaxies in group 2; there are 2 groups"):
        convert(tmp_path / "new.h5", galaxies=path, Om0=OM0, h=0.7, **density(tmp_path))
    with h5py.File(write_caesar(path), "r+") as file:
        del file["galaxy_data/central"]
        file["galaxy_data/central"] = [1]
    with pytest.raises(DataError, match=r"has columns that do not fit together: .* central \(1,\)"):
        convert(tmp_path / "new.h5", galaxies=path, Om0=OM0, h=0.7, **density(tmp_path))
    with h5py.File(write_caesar(path), "r+") as file:
        del file["galaxy_data/dicts/masses.stellar"]
    with pytest.raises(DataError, match="has no dicts/masses.stellar in its group galaxy_data"):
        convert(tmp_path / "new.h5", galaxies=path, Om0=OM0, h=0.7, **density(tmp_path))


# Tables of members ---------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".txt", ".npy"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_members(tmp_path, suffix, order):
    ids = 5 + np.ravel_multi_index(LATTICE.T, (N, N, N), order=order)
    arguments = write_run(tmp_path, position=(LATTICE + 0.5) * 0.2 % BOX, ids=ids)
    cells = np.array([9, 10, 11, 20, 21, 30])
    table = np.stack([ids[cells], [70, 70, 70, 60, 60, -1]], axis=-1)
    path = tmp_path / f"members{suffix}"
    np.save(path, table) if suffix == ".npy" else np.savetxt(path, table, fmt="%d", header="particle halo")
    assert convert(tmp_path / "run.h5", groups=path, **arguments)["halos"] == 2
    with Simulation(tmp_path / "run.h5") as simulation:
        assert simulation.problems() == []
        halo_id = simulation["halo_id"][...].ravel()
        assert halo_id[cells].tolist() == [0, 0, 0, 1, 1, -1] and np.count_nonzero(halo_id >= 0) == 5
        halos = simulation.halos()
        np.testing.assert_allclose(halos["mass"], [3e10 * MASS, 2e10 * MASS], rtol=1e-6)
        expected = ((LATTICE[cells] + 0.5) * 0.2 % BOX)
        np.testing.assert_allclose(halos["position"], [expected[:3].mean(0), expected[3:5].mean(0)], atol=1e-5)
    assert convert(tmp_path / "run.h5", groups=path, minimum=3, overwrite=True, **arguments)["halos"] == 1
    if suffix == ".npy" and order == "C":  # galaxies of another catalogue, which knows none of these haloes
        with h5py.File(write_caesar(tmp_path / "caesar.hdf5"), "r") as file:
            number = len(file["galaxy_data/GroupID"])
        convert(tmp_path / "run.h5", groups=path, galaxies=tmp_path / "caesar.hdf5", overwrite=True, **arguments)
        with Simulation(tmp_path / "run.h5") as simulation:
            assert 0 < len(simulation["galaxies/position"]) <= number and "galaxies/halo" not in simulation


@pytest.mark.parametrize("rows, message", [
    ([[0, 1], [512, 1]], "has the particle ID 512; accepted are 0 to 511"),
    ([[-1, 1]], "has the particle ID -1; accepted are 0 to 511"),
    ([[3, 1], [4, 2], [3, 2]], "has particle 3 more than once"),
    ([[3, 1, 4]], r"has the shape \(1, 3\); a table of members has two columns"),
    ([[3, 0.5]], "has particle or halo IDs that are not whole numbers"),
    ([[3, np.nan]], "has particle or halo IDs that are not whole numbers"),
])
def test_members_error(tmp_path, rows, message):
    np.save(tmp_path / "members.npy", rows)
    with pytest.raises(DataError, match=message):
        convert(tmp_path / "run.h5", groups=tmp_path / "members.npy", **write_run(tmp_path))
    assert not (tmp_path / "run.h5").exists()


def test_members_that_are_not_near_each_other(tmp_path):
    """As of a number for none that is not negative, of another run, and of rows that are off by one."""
    cells = np.arange(N**3).reshape(-1, 8)[::5]  # of some haloes, at places of their own
    position = LATTICE * (BOX / N) + 1.0
    for halo, place in zip(cells, np.random.default_rng(0).uniform(0, BOX, (len(cells), 3))):
        position[halo] = (place + np.random.default_rng(halo[0]).uniform(-0.2, 0.2, (8, 3))) % BOX
    ids, arguments = np.arange(N**3), write_run(tmp_path, position=position)
    halo = np.full(N**3, -1)
    halo[cells] = 1 + np.arange(len(cells))[:, None]
    path = tmp_path / "members.npy"
    np.save(path, np.stack([ids, halo], axis=-1))
    assert convert(tmp_path / "run.h5", groups=path, **arguments)["halos"] == len(cells)
    for none in (0, 2**31 - 1, 2**32 - 1):
        np.save(path, np.stack([ids, np.where(halo < 0, none, halo)], axis=-1))
        with pytest.raises(DataError, match="has a number for none that is not negative: the particles of a halo would "
                                            "lie 0.4. of the box from its centre; accepted is up to 0.25"):
            convert(tmp_path / "new.h5", groups=path, **arguments)
    for other in (np.roll(halo, 1), np.random.default_rng(1).permutation(halo)):
        np.save(path, np.stack([ids, other], axis=-1))
        with pytest.raises(DataError, match="is not of the haloes of .*snap.hdf5, or has .*: the particles of "
                                            "the median halo would lie [0-9.]+ of its radii"):
            convert(tmp_path / "new.h5", groups=path, **arguments)


def test_a_table_of_members_is_told_from_tables_of_haloes(tmp_path):
    """For the memory that a conversion is said to take, which particles and not groups decide then."""
    for name, text, number in (("members.txt", "# particle halo\n1 2\n", None), ("plain.txt", "1 2\n", None),
                               ("out_0.list", ROCKSTAR.format(parent=""), 0), ("HopAnalysis.out", HOP, 0)):
        (tmp_path / name).write_text(text)
        assert number_of_groups(tmp_path / name) == number
    np.save(tmp_path / "members.npy", [[1, 2]])
    assert number_of_groups(tmp_path / "members.npy") is None


def test_no_members_and_members_without_particles(tmp_path):
    (tmp_path / "members.txt").write_text("# particle halo\n")
    arguments = write_run(tmp_path)
    assert convert(tmp_path / "run.h5", groups=tmp_path / "members.txt", **arguments)["halos"] == 0
    with pytest.raises(DataError, match="it needs their initial conditions .`initial`."):
        convert(tmp_path / "new.h5", groups=tmp_path / "members.txt", final=arguments["final"], grid=4)


def test_the_redshift_that_is_given_is_not_that_of_the_initial_conditions(tmp_path):
    arguments = write_run(tmp_path)
    with h5py.File(arguments["initial"], "r+") as file:
        del file["Header"].attrs["Redshift"]
    with pytest.raises(DataError, match="has no Redshift in its header, and `redshift` is that of the final snapshot"):
        convert(tmp_path / "run.h5", redshift=0.0, **arguments)


# There and back ------------------------------------------------------------------------


@pytest.mark.parametrize("place", [0.5, 0.0])
def test_round_trip_through_the_layout_of_illustristng(tmp_path, place):
    rng = np.random.default_rng(0)
    half = rng.integers(-400, 400, (N // 2, N, N, 3))
    displacement = (np.concatenate([half, -half[::-1]]) / 4096 * BOX / N).astype(np.float32)
    displacement = np.cumsum(displacement, axis=1).astype(np.float32) / 8
    displacement -= displacement.mean(axis=(0, 1, 2), dtype=np.float64).astype(np.float32)
    position = (rng.integers(0, 16 * 4096, (N**3, 3)) / 4096).astype(np.float32)
    halo_id = np.full(N**3, -1, np.int32)
    members = rng.permutation(N**3)[:90]
    halo_id[members] = np.repeat([0, 1, 2], [50, 30, 10])
    centre = np.array([[3.0, 4, 5], [9, 9, 9], [15, 1, 8]], np.float32)
    position[members] = centre[halo_id[members]] + rng.integers(-400, 400, (90, 3)).astype(np.float32) / 4096
    position %= 16
    cosmology = Cosmology(Om0=OM0, Ob0=0.045, h=0.7)
    datasets = {
        "initial/delta": linear_density(displacement, BOX), "initial/displacement": displacement,
        "initial/velocity": rng.integers(-300, 300, (N, N, N, 3)).astype(np.float32),
        "final/position": position, "final/velocity": rng.integers(-300, 300, (N**3, 3)).astype(np.float32),
        "halo_id": halo_id.reshape(N, N, N), "halos/mass": np.array([5e13, 3e13, 1e13], np.float32),
        "halos/position": centre, "halos/radius": np.array([1, 0.75, 0.5], np.float32),
        "halos/count": np.array([50, 30, 10]),
        "galaxies/position": np.array([[3, 4, 5], [3.25, 4, 5], [15, 1, 8]], np.float32),
        "galaxies/halo": np.array([0, 0, 2], np.int32), "galaxies/central": np.array([1, 0, 1], np.int8),
        "galaxies/stellar_mass": np.array([4e10, 1e9, 2e10], np.float32),
    }
    write(tmp_path / "first.h5", boxsize=BOX, cosmology=cosmology, redshift_initial=63, redshift_final=0,
          particle_mass=MASS * 1e10, source="a test", datasets=datasets)

    def there(position):
        """Positions in kpc/h where the lattice is at `place` cells."""
        return (position.astype(float) + (place - 0.5) * BOX / N) % BOX * 1000

    with Simulation(tmp_path / "first.h5") as first:
        grouped = np.argsort(np.where(halo_id < 0, 9, halo_id), kind="stable")
        arguments = write_run(tmp_path, ids=grouped)
        with h5py.File(arguments["initial"], "r+") as file:
            file["PartType1/Coordinates"][...] = there(
                (LATTICE + 0.5) * BOX / N + first["initial/displacement"][...].reshape(-1, 3))
            file["PartType1/Velocities"][...] = first["initial/velocity"][...].reshape(-1, 3) * 8  # / sqrt(a)
            file["PartType1/ParticleIDs"][...] = np.arange(N**3)
        with h5py.File(arguments["final"], "r+") as file:
            file["PartType1/Coordinates"][...] = there(position[grouped])
            file["PartType1/Velocities"][...] = first["final/velocity"][...][grouped]
        with h5py.File(tmp_path / "fof.hdf5", "w") as file:
            file.create_group("Header").attrs.update(BoxSize=BOX * 1000, NumFiles=1, Ngroups_ThisFile=3,
                                                     Nsubgroups_ThisFile=3, Redshift=0.0, UnitLength_in_cm=3.085678e21)
            file["Group/GroupMass"] = first["halos/mass"][...].astype(float) / 1e10
            file["Group/GroupPos"] = there(first["halos/position"][...])
            file["Group/Group_R_Mean200"] = first["halos/radius"][...].astype(float) * 1000
            file["Group/GroupLenType"] = np.eye(6, dtype=int)[1] * first["halos/count"][...][:, None]
            file["Group/GroupFirstSub"] = [0, -1, 2]
            file["Subhalo/SubhaloPos"] = there(first["galaxies/position"][...])
            file["Subhalo/SubhaloGrNr"] = first["galaxies/halo"][...]
            file["Subhalo/SubhaloMassType"] = (np.eye(6)[4] * first["galaxies/stellar_mass"][...][:, None] / 1e10)
    convert(tmp_path / "second.h5", groups=tmp_path / "fof.hdf5", galaxies=tmp_path / "fof.hdf5", **arguments)
    with Simulation(tmp_path / "first.h5") as first, Simulation(tmp_path / "second.h5") as second:
        assert second.problems() == [] and second.cosmology == first.cosmology
        for name in ("boxsize", "redshift_initial", "redshift_final"):
            assert getattr(first, name) == getattr(second, name)
        assert second.particle_mass == pytest.approx(first.particle_mass, rel=1e-12)
        assert set(second.datasets()) == set(first.datasets())
        for name in first.datasets():
            assert second[name].dtype.kind == first[name].dtype.kind
            np.testing.assert_array_equal(second[name][...], first[name][...], err_msg=name)
