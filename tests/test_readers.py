"""Readers: a real Arepo run, and tiny files of the same layouts that are written here."""

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from kerasgal.cli import main
from kerasgal.errors import DataError, SettingError
from kerasgal.readers import base, yt
from kerasgal.readers.convert import write as convert
from kerasgal.readers.lagrangian import lagrangian_order, linear_density
from kerasgal.simulation import Simulation

AREPO = Path(__file__).parents[2] / "shared" / "data" / "arepo_L50n32"
CAMELS = AREPO.parent / "camels_cv0_tng"
needs_arepo = pytest.mark.skipif(not AREPO.exists(), reason=f"the public data set {AREPO} is not here")
needs_camels = pytest.mark.skipif(not CAMELS.exists(), reason=f"the public data set {CAMELS} is not here")


# A real run ----------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[(1, 0, 61), (0, 1, 27)], ids=["z0", "z1"])
def arepo(request, tmp_path_factory):
    """(Simulation, snapshot number, redshift, number of groups) of the Arepo run converted."""
    number, redshift, groups = request.param
    output = tmp_path_factory.mktemp("arepo") / "run.h5"
    summary = convert(output, initial=AREPO / "ics", final=AREPO / f"snap_00{number}.hdf5",
                      groups=AREPO / f"fof_subhalo_tab_00{number}.hdf5")
    assert summary["halos"] == groups
    assert summary["lattice"] == "IDs from 1 in C order, lattice at (0.000, 0.000, 0.000) cells"
    with Simulation(output) as simulation:
        yield simulation, number, redshift, groups


def shells(first, second):
    """Cross power of two fields (n, n, n), summed over shells of |k| = 1, 2, ... fundamental modes."""
    n = len(first)
    mode = np.fft.fftfreq(n, 1 / n)
    shell = np.rint(np.sqrt(mode[:, None, None] ** 2 + mode[:, None] ** 2 + mode**2)).astype(int)
    power = (np.fft.fftn(first) * np.fft.fftn(second).conj()).real
    return np.bincount(shell.ravel(), power.ravel())[1 : n // 2]


def cloud_in_cell(position, n, boxsize):
    """Density contrast (n, n, n) at cell centres, written down separately from kerasgal.grid."""
    density = np.zeros((n, n, n))
    scaled = np.asarray(position, np.float64) / boxsize * n - 0.5
    lower = np.floor(scaled).astype(int)
    for corner in np.ndindex(2, 2, 2):
        weight = np.prod(np.where(corner, scaled - lower, 1 - (scaled - lower)), axis=1)
        np.add.at(density, tuple(((lower + corner) % n).T), weight)
    return density / density.mean() - 1


def growth(redshift, Om0):
    """Linear growth factor by the integral of Heath (1977), not normalised."""
    a = np.linspace(1e-6, 1 / (1 + redshift), 20001)
    hubble = np.sqrt(Om0 / a**3 + 1 - Om0)
    return hubble[-1] * np.trapezoid((a * hubble) ** -3, a)


@needs_arepo
def test_arepo_header(arepo):
    simulation, _, redshift, _ = arepo
    assert simulation.problems() == []
    assert (simulation.boxsize, simulation.gridsize, simulation.redshift_initial) == (50, 32, 127)
    assert simulation.redshift_final == pytest.approx(redshift, abs=3e-3)
    assert simulation.particle_mass == pytest.approx(32.70537839e10, rel=1e-8)
    assert simulation.cosmology.Om0 == 0.3089 and simulation.cosmology.h == 0.6774


@needs_arepo
def test_arepo_halo_masses_are_the_published_ones(arepo):
    simulation, _, redshift, groups = arepo
    published = np.loadtxt(AREPO / f"Masses_L50n32_z{redshift}.txt")
    halos = simulation.halos()
    assert len(published) == groups
    np.testing.assert_allclose(halos["mass"], published, rtol=1e-4)
    np.testing.assert_allclose(halos["count"] * simulation.particle_mass, published, rtol=1e-4)


@needs_arepo
def test_arepo_halo_members_are_those_of_the_group_file(arepo):
    simulation, number, _, groups = arepo
    with h5py.File(AREPO / f"snap_00{number}.hdf5") as file:
        ids = file["PartType1/ParticleIDs"][:].astype(int)
        positions = file["PartType1/Coordinates"][:]
    with h5py.File(AREPO / f"fof_subhalo_tab_00{number}.hdf5") as file:
        lengths, masses = file["Group/GroupLenType"][:, 1], file["Group/GroupMass"][:]
        centres, radii = file["Group/GroupPos"][:], file["Group/Group_R_Mean200"][:]
    halo_id = simulation["halo_id"][...]
    halos = simulation.halos()
    start = 0
    for group in range(groups):
        members = ids[start : start + lengths[group]]
        start += lengths[group]
        halo = int(np.sum(masses > masses[group]) + np.sum(masses[:group] == masses[group]))
        assert set(np.flatnonzero(halo_id == halo) + 1) == set(members)
        # The lattice of this run starts at 0, ours at half a cell.
        shifted = (centres[group] / 1000 + 50 / 64) % 50
        np.testing.assert_allclose(halos["position"][halo], shifted, rtol=1e-5)
        assert halos["radius"][halo] == pytest.approx(radii[group] / 1000, rel=1e-6)
    assert np.count_nonzero(halo_id >= 0) == start
    position = np.empty((32**3, 3))
    position[ids - 1] = (positions / 1000 + 50 / 64) % 50
    np.testing.assert_allclose(simulation["final/position"][...], position, atol=1e-5)


@needs_arepo
def test_arepo_initial_density(arepo):
    simulation, *_ = arepo
    delta, displacement = simulation.delta(), simulation["initial/displacement"][...]
    centre = (np.stack(np.indices((32, 32, 32)), -1) + 0.5) * 50 / 32
    deposited = cloud_in_cell((centre + displacement).reshape(-1, 3), 32, 50)
    auto = shells(delta, delta)
    correlation = shells(delta, deposited) / np.sqrt(auto * shells(deposited, deposited))
    assert np.all(correlation[:6] > 0.9) and correlation[0] > 0.999
    final = cloud_in_cell(simulation["final/position"][...], 32, 50)
    linear = growth(simulation.redshift_final, 0.3089) / growth(127, 0.3089)
    grown = shells(final, final) / auto / linear**2
    # Two shells of 18 and 62 modes, mildly non-linear: linear growth to a quarter.
    np.testing.assert_allclose(grown[:2], 1, atol=0.25)
    assert shells(delta, final)[0] / np.sqrt(auto[0] * shells(final, final)[0]) > 0.95


@needs_arepo
def test_arepo_initial_conditions_alone_on_a_grid(arepo, tmp_path, invoke):
    simulation, *_ = arepo
    said = invoke("convert", tmp_path / "field.h5", "--initial", AREPO / "ics", "--grid", 32, "--length-unit",
                  "kpc").stdout
    assert "32^3 cells in 50 Mpc/h, redshift 127; dark particles by cic" in said
    with Simulation(tmp_path / "field.h5") as field:
        assert field.problems() == [] and field.datasets() == ["initial/delta"] and field.redshift_initial == 127
        assert field.cell_mass == pytest.approx(simulation.cell_mass, rel=1e-4)
        # The lattice of this run stands at 0, half a cell from the centres of the grid.
        shift = np.exp(1j * np.pi * sum(np.meshgrid(*[np.fft.fftfreq(32)] * 3, indexing="ij")))
        moved = np.fft.ifftn(np.fft.fftn(simulation.delta()) * shift).real
        deposited = field.delta()
    correlation = shells(moved, deposited) / np.sqrt(shells(moved, moved) * shells(deposited, deposited))
    assert np.all(correlation[:6] > 0.85) and correlation[0] > 0.999


@needs_arepo
def test_arepo_initial_velocity_is_that_of_the_zeldovich_approximation(arepo):
    simulation, *_ = arepo
    velocity, displacement = simulation["initial/velocity"][...], simulation["initial/displacement"][...]
    a = 1 / 128
    hubble = 100 * np.sqrt(0.3089 / a**3 + 0.6911)  # km/s / (Mpc/h), and the growth rate is 1
    np.testing.assert_allclose(velocity, a * hubble * displacement, atol=2e-3 * velocity.std())


@needs_arepo
def test_arepo_snapshot_alone_on_a_grid(tmp_path):
    summary = convert(tmp_path / "run.h5", final=AREPO / "snap_001.hdf5", grid=32,
                      groups=AREPO / "fof_subhalo_tab_001.hdf5")
    assert (summary["gridsize"], summary["halos"]) == (32, 61)
    with h5py.File(AREPO / "snap_001.hdf5") as file:
        position = file["PartType1/Coordinates"][:] / 1000
    with Simulation(tmp_path / "run.h5", require=("final/delta",)) as simulation:
        assert simulation.problems() == []
        np.testing.assert_allclose(simulation["final/delta"][...], cloud_in_cell(position, 32, 50), atol=1e-3)
        np.testing.assert_allclose(simulation.halos()["mass"], np.loadtxt(AREPO / "Masses_L50n32_z0.txt"), rtol=1e-4)
        with h5py.File(AREPO / "fof_subhalo_tab_001.hdf5") as file:
            centre = file["Group/GroupPos"][np.argmax(file["Group/GroupMass"][:])] / 1000
        np.testing.assert_allclose(simulation.halos()["position"][0], centre, rtol=1e-6)
    with pytest.raises(DataError, match="has no galaxy of at least 2e[+]08 Msun/h in stars; there is none with stars"):
        convert(tmp_path / "new.h5", final=AREPO / "snap_001.hdf5", grid=32,
                galaxies=AREPO / "fof_subhalo_tab_001.hdf5")


@needs_camels
def test_incomplete_camels_files(tmp_path):
    with pytest.raises(DataError) as error:
        base.open_snapshot(CAMELS / "camels_snap.hdf5")
    assert str(error.value) == (f"{CAMELS}/camels_snap.hdf5 has no dark-matter particles (PartType1); it has gas "
                                "(PartType0), stars (PartType4), see `particles`")
    with pytest.raises(DataError) as error:
        base.read_groups(CAMELS / "camels_subhalo.hdf5")
    assert str(error.value) == (f"{CAMELS}/camels_subhalo.hdf5 has no group Header, so it is no Gadget group "
                                "file; it holds Subhalo")


# Tiny files ----------------------------------------------------------------------------

N, BOX, OM0 = 8, 16.0, 0.3  # particles a side, Mpc/h
CELL = BOX / N
MASS = OM0 * 27.7536627 * CELL**3  # 1e10 Msun/h
AMPLITUDE, PHASE = 0.4, np.array([0.3, 1.1, 2.0])  # Mpc/h
LATTICE = np.stack(np.indices((N, N, N)), -1).reshape(-1, 3)
DISPLACEMENT = AMPLITUDE * np.sin(2 * np.pi * LATTICE / N + PHASE)
VELOCITY = 100 * np.cos(2 * np.pi * LATTICE / N + 2 * PHASE)  # as in the file: km/s sqrt(a)
GROUP_CELLS = [np.arange(100, 105), np.arange(300, 309)]  # the smaller one first: not as in our catalogue
# The second lies across the edge: in y as it stands in the file, in x as it is shifted by half a cell.
GROUP_CENTRES = np.array([[3.0, 4.0, 5.0], [14.95, 15.95, 8.0]])
GROUPED = np.concatenate(GROUP_CELLS)
REST = np.setdiff1d(np.arange(N**3), GROUPED)
FILE_ORDER = np.concatenate([GROUPED, np.random.default_rng(0).permutation(REST)])


def particle_ids(order="C", first=1):
    """IDs of the particles of LATTICE."""
    return first + np.ravel_multi_index(LATTICE.T, (N, N, N), order=order)


def final_position():
    """Members of the groups around their centres, all else on the lattice, (N^3, 3)."""
    position = LATTICE * CELL
    for cells, centre in zip(GROUP_CELLS, GROUP_CENTRES):
        position[cells] = centre + np.random.default_rng(1).uniform(-0.2, 0.2, (len(cells), 3))
    return position % BOX


def write_binary(path, position, velocity, ids, byteorder="<", gas=0, real="f4", unit=1000, files=1,
                 boxsize=BOX):
    """One Gadget-1 file, lengths in (Mpc/h) / unit: `gas` particles of type 0 in front, then dark matter."""

    def binary(values, kind):
        return np.asarray(values).astype(byteorder + kind).tobytes()

    counts = [gas, len(ids), 0, 0, 0, 0]
    totals = counts if files == 1 else [gas * files, N**3, 0, 0, 0, 0]
    masses = [0, MASS if gas == 0 else 0.84 * MASS, 0, 0, 0, 0]
    header = (binary(counts, "i4") + binary([*masses, 0.02, 49], "f8")
              + binary([0, 0, *totals, 0, files], "i4") + binary([boxsize * unit, OM0, 1 - OM0, 0.7], "f8"))
    front = np.full((gas, 3), 1e5)
    blocks = [header.ljust(256, b"\0"), binary(np.concatenate([front, position * unit]), real),
              binary(np.concatenate([front, velocity]), real),
              binary(np.concatenate([np.arange(gas) + 10**6, ids]), "u4")]
    markers = [binary(len(block), "u4") for block in blocks]
    path.write_bytes(b"".join(marker + block + marker for marker, block in zip(markers, blocks)))


def write_hdf5(path, position, velocity, ids, files=1, **changes):
    """One HDF5 snapshot file in kpc/h; `changes` replace header attributes, None takes them out."""
    header = {"BoxSize": BOX * 1000, "HubbleParam": 0.7, "MassTable": [0, MASS, 0, 0, 0, 0], "Omega0": OM0,
              "NumFilesPerSnapshot": files, "NumPart_ThisFile": [0, len(ids), 0, 0, 0, 0],
              "Redshift": 0.0, "OmegaBaryon": 0.045, "UnitLength_in_cm": 3.085678e21} | changes
    with h5py.File(path, "w") as file:
        attributes = file.create_group("Header").attrs
        attributes.update({name: value for name, value in header.items() if value is not None})
        if len(ids):
            file["PartType1/Coordinates"], file["PartType1/Velocities"] = position * 1000, velocity
            file["PartType1/ParticleIDs"] = ids.astype(np.uint64)


def write_groups(path, rows, files=1, offset=0.0):
    """One group file with some of the two groups, of which only the first has a radius."""
    header = {"BoxSize": BOX * 1000, "NumFiles": files, "Ngroups_ThisFile": len(rows), "Redshift": 0.0}
    with h5py.File(path, "w") as file:
        file.create_group("Header").attrs.update(header)
        if len(rows):
            lengths = np.zeros((len(rows), 6), np.int32)
            lengths[:, 1] = [len(GROUP_CELLS[row]) for row in rows]
            file["Group/GroupLenType"] = lengths
            file["Group/GroupMass"] = (lengths[:, 1] * MASS).astype(np.float32)
            file["Group/GroupPos"] = ((GROUP_CENTRES[rows] + offset * CELL) % BOX * 1000).astype(np.float32)
            file["Group/Group_R_Mean200"] = np.array([500, 0], np.float32)[rows]


def write_run(folder, order="C", first=1, offset=0.0, **binary):
    """Initial conditions `ics`, snapshot `snap.hdf5` and `groups.hdf5`; returns arguments of `convert`."""
    ids = particle_ids(order, first)
    shuffled = np.random.default_rng(2).permutation(N**3)
    start = (LATTICE * CELL + DISPLACEMENT + offset * CELL) % BOX
    write_binary(folder / "ics", start[shuffled], VELOCITY[shuffled], ids[shuffled], **binary)
    end = (final_position() + offset * CELL) % BOX
    write_hdf5(folder / "snap.hdf5", end[FILE_ORDER], VELOCITY[FILE_ORDER], ids[FILE_ORDER])
    write_groups(folder / "groups.hdf5", [0, 1], offset=offset)
    return {"initial": folder / "ics", "final": folder / "snap.hdf5", "groups": folder / "groups.hdf5"}


def check(output):
    """Assert that the Simulation file `output` is the tiny run."""
    with Simulation(output) as simulation:
        assert simulation.problems() == []
        assert simulation.boxsize == BOX
        assert (simulation.redshift_initial, simulation.redshift_final) == (49, 0)
        assert simulation.cosmology.Ob0 == 0.045
        displacement, velocity = (simulation[f"initial/{name}"][...] for name in ("displacement", "velocity"))
        np.testing.assert_allclose(displacement.reshape(-1, 3), DISPLACEMENT, atol=1e-5)
        np.testing.assert_allclose(velocity.reshape(-1, 3), VELOCITY * 50**-0.5, rtol=1e-5)
        slope = -AMPLITUDE * 2 * np.pi / BOX * np.cos(2 * np.pi * LATTICE / N + PHASE)
        np.testing.assert_allclose(simulation.delta(), slope.sum(axis=1).reshape(N, N, N), atol=1e-5)
        expected = (final_position() + CELL / 2) % BOX  # the lattice, wherever it was, is at half a cell
        np.testing.assert_allclose(simulation["final/position"][...], expected, atol=1e-5)
        np.testing.assert_allclose(simulation["final/velocity"][...], VELOCITY, rtol=1e-5)
        halo_id = simulation["halo_id"][...].ravel()
        for halo, cells in enumerate(reversed(GROUP_CELLS)):
            assert np.array_equal(np.flatnonzero(halo_id == halo), cells)
        assert np.all(halo_id[REST] == -1)
        halos = simulation.halos()
        np.testing.assert_allclose(halos["mass"], np.array([9, 5]) * MASS * 1e10, rtol=1e-5)
        assert halos["count"].tolist() == [9, 5]
        np.testing.assert_allclose(halos["position"], (GROUP_CENTRES[::-1] + CELL / 2) % BOX, atol=1e-5)
        # The first has no radius in the file: 4/3 pi r^3 * 200 * the mean density is the mass of 9 cells.
        radius = CELL * (9 * 3 / (800 * np.pi)) ** (1 / 3)
        np.testing.assert_allclose(halos["radius"], [radius, 0.5], rtol=1e-4)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("first", [0, 1, 513])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_orders_of_ids_and_bytes(tmp_path, order, first, byteorder):
    summary = convert(tmp_path / "run.h5", **write_run(tmp_path, order, first, byteorder=byteorder))
    name = {"C": "C", "F": "Fortran"}[order]
    assert summary["lattice"] == f"IDs from {first} in {name} order, lattice at (0.000, 0.000, 0.000) cells"
    check(tmp_path / "run.h5")


def test_double_precision_and_lattice_at_cell_centres(tmp_path):
    files = write_run(tmp_path, real="f8", offset=0.5)
    assert "lattice at (0.500, 0.500, 0.500)" in convert(tmp_path / "run.h5", **files)["lattice"]
    check(tmp_path / "run.h5")


def test_gas_is_left_out_and_counted_in_the_cell_mass(tmp_path):
    convert(tmp_path / "run.h5", **write_run(tmp_path, gas=7))
    check(tmp_path / "run.h5")
    with Simulation(tmp_path / "run.h5") as simulation:
        assert simulation.particle_mass == pytest.approx(MASS * 1e10, rel=1e-4)


@pytest.fixture
def chunked(tmp_path):
    """The tiny run in several files each, cut across groups, one of them empty; arguments of `convert`."""
    ids, start, end = particle_ids(), (LATTICE * CELL + DISPLACEMENT) % BOX, final_position()
    for chunk, cells in enumerate(np.array_split(np.arange(N**3), 3)):
        write_binary(tmp_path / f"ics.{chunk}", start[cells], VELOCITY[cells], ids[cells], files=3)
    for chunk, cells in enumerate([FILE_ORDER[:3], FILE_ORDER[3:8], FILE_ORDER[:0], FILE_ORDER[8:]]):
        write_hdf5(tmp_path / f"snap_099.{chunk}.hdf5", end[cells], VELOCITY[cells], ids[cells], files=4)
    for chunk, rows in enumerate([[0], [], [1]]):
        write_groups(tmp_path / f"fof_subhalo_tab_099.{chunk}.hdf5", rows, files=3)
    return {"initial": tmp_path / "ics", "final": tmp_path / "snap_099.2.hdf5",
            "groups": tmp_path / "fof_subhalo_tab_099.hdf5"}


@pytest.mark.parametrize("at_once", [2**20, 3])
def test_several_files(tmp_path, chunked, at_once, monkeypatch):
    monkeypatch.setattr(base, "PARTICLES_AT_ONCE", at_once)
    seen = []
    convert(tmp_path / "run.h5", progress=lambda done, total: seen.append((done, total)), **chunked)
    check(tmp_path / "run.h5")
    assert seen[-1] == (2 * N**3, 2 * N**3) and sorted(seen) == seen


@pytest.mark.parametrize("changes, message", [
    ({"boxsize": BOX + 1}, "ics.1 is not of the snapshot of .*ics.0: their headers differ in boxsize"),
    ({"files": 2}, "ics.1 is not of the snapshot of .*ics.0: their headers differ in files"),
    ({"gas": 9}, "ics.1 is not of the snapshot of .*ics.0: their headers differ in masses, totals"),
    ({"byteorder": ">"}, "ics.1 is not of the snapshot of .*ics.0: its byte order or format is another"),
    ({"cells": 3}, "ics.0: its files hold 344 particles of type 1, its header says 512 in all"),
])
def test_binary_files_that_are_not_of_one_snapshot(tmp_path, chunked, changes, message):
    changes = {"files": 3, **changes}
    cells = np.arange(changes.pop("cells", 171))
    write_binary(tmp_path / "ics.1", LATTICE[cells] * CELL, VELOCITY[cells], cells, **changes)
    with pytest.raises(DataError, match=message):
        convert(tmp_path / "run.h5", **chunked)


def test_group_files_that_are_not_of_one_catalogue(tmp_path, chunked):
    path = tmp_path / "fof_subhalo_tab_099.2.hdf5"
    for name, value, message in (("Redshift", 0.5, "099.2.hdf5 is not of the catalogue of .*: its Redshift is another"),
                                 ("BoxSize", BOX, "099.2.hdf5 is not of the catalogue of .*: its BoxSize is another")):
        write_groups(path, [1], files=3)
        rewrite(path, **{name: value})
        with pytest.raises(DataError, match=message):
            convert(tmp_path / "run.h5", **chunked)
    write_groups(path, [1], files=3)
    rewrite(tmp_path / "fof_subhalo_tab_099.0.hdf5", Ngroups_Total=3)
    with pytest.raises(DataError, match="099.0.hdf5: its files hold 2 groups, its header says 3"):
        convert(tmp_path / "run.h5", **chunked)


def test_hdf5_initial_conditions_with_gadget4_parameters(tmp_path):
    files = write_run(tmp_path)
    start = (LATTICE * CELL + DISPLACEMENT) % BOX
    write_hdf5(tmp_path / "ics.hdf5", start, VELOCITY, particle_ids(), Redshift=None, Time=0.02, Omega0=None)
    with h5py.File(tmp_path / "ics.hdf5", "r+") as file:
        file.create_group("Parameters").attrs["Omega0"] = OM0
    convert(tmp_path / "run.h5", **files | {"initial": tmp_path / "ics.hdf5"})
    check(tmp_path / "run.h5")


def test_minimum_leaves_small_groups_out(tmp_path):
    assert convert(tmp_path / "run.h5", minimum=6, **write_run(tmp_path))["halos"] == 1
    with Simulation(tmp_path / "run.h5") as simulation:
        assert np.array_equal(np.flatnonzero(simulation["halo_id"][...] == 0), GROUP_CELLS[1])
        assert np.count_nonzero(simulation["halo_id"][...] >= 0) == 9


def test_catalogue_without_groups(tmp_path):
    files = write_run(tmp_path)
    write_groups(tmp_path / "groups.hdf5", [])
    assert convert(tmp_path / "run.h5", **files)["halos"] == 0


def test_initial_conditions_alone_and_what_is_assumed(tmp_path):
    initial = write_run(tmp_path, unit=1)["initial"]
    summary = convert(tmp_path / "run.h5", initial=initial, length_unit="Mpc", Ob0=0.05, ns=0.95)
    assert summary["assumed"] == ["sigma8 = 0.8102 (Planck 2018)"]
    assert (summary["halos"], summary["boxsize"], summary["redshift_final"]) == (None, BOX, 49)
    with Simulation(tmp_path / "run.h5") as simulation:
        assert "final/position" not in simulation and "halo_id" not in simulation
        assert (simulation.cosmology.Ob0, simulation.cosmology.ns) == (0.05, 0.95)


def test_order_is_found_where_particles_move_by_more_than_a_cell():
    lattice = np.stack(np.indices((32, 32, 32)), -1).reshape(-1, 3)
    move = 1.5 * np.sin(2 * np.pi * lattice / 32)
    for place in (0.0, 0.25):
        order, found = lagrangian_order((lattice + move + place) % 32, "ics")
        assert order == "C" and np.array_equal(found, [place] * 3)


def test_linear_density_of_an_odd_grid():
    wave = np.zeros((7, 7, 7, 3), np.float32)
    wave[..., 2] = np.sin(2 * np.pi * 3 * np.arange(7) / 7)
    expected = -2 * np.pi * 3 / 7 * np.cos(2 * np.pi * 3 * np.arange(7) / 7) * np.ones((7, 7, 7))
    np.testing.assert_allclose(linear_density(wave, 7.0), expected, atol=1e-5)


def test_linear_density_of_the_nyquist_wave_vanishes():
    x, _, z = np.indices((N, N, N))
    wave = np.zeros((N, N, N, 3), np.float32)
    wave[..., 0] = (-1.0) ** x * np.cos(2 * np.pi * z / N)
    np.testing.assert_allclose(linear_density(wave, 1.0), 0, atol=1e-5)


# Errors --------------------------------------------------------------------------------


def rewrite(path, **changes):
    """Change header attributes of an HDF5 file; None takes them out."""
    with h5py.File(path, "r+") as file:
        for name, value in changes.items():
            if value is None:
                del file["Header"].attrs[name]
            else:
                file["Header"].attrs[name] = value


def chunks(folder, *numbers):
    """The snapshot under other names, as if it were several files."""
    for number in numbers:
        shutil.copy(folder / "snap.hdf5", folder / f"snap.{number}.hdf5")
    (folder / "snap.hdf5").unlink()


def delete(path, name):
    with h5py.File(path, "r+") as file:
        del file[name]


def shorten(path, name):
    with h5py.File(path, "r+") as file:
        values = file[name][:9]
        del file[name]
        file[name] = values


def set_ids(path, ids):
    with h5py.File(path, "r+") as file:
        file["PartType1/ParticleIDs"][...] = ids


def cut(path, size):
    path.write_bytes(path.read_bytes()[:size])


def other_particles(folder):
    cells = np.arange(27)
    write_hdf5(folder / "snap.hdf5", final_position()[cells], VELOCITY[cells], particle_ids()[cells])


def lengthen_groups(path, by=500):
    with h5py.File(path, "r+") as file:
        file["Group/GroupLenType"][:, 1] += by


def shuffle_ids(folder):
    ids = np.random.default_rng(3).permutation(particle_ids())
    write_binary(folder / "ics", (LATTICE * CELL + DISPLACEMENT) % BOX, VELOCITY, ids)


def replace_initial(folder, cells, **arguments):
    write_binary(folder / "ics", (LATTICE * CELL)[cells], VELOCITY[cells], particle_ids()[cells], **arguments)


ERRORS = {
    "missing file": (
        lambda folder: (folder / "ics").unlink(), "no such file: {folder}/ics"),
    "missing groups": (
        lambda folder: (folder / "groups.hdf5").unlink(), "no such file: {folder}/groups.hdf5"),
    "not Gadget": (
        lambda folder: (folder / "ics").write_text("x, y, z\n1, 2, 3\n"),
        "{folder}/ics is no snapshot that is read; accepted are {snapshots}"),
    "empty": (
        lambda folder: cut(folder / "ics", 0),
        "{folder}/ics is empty; accepted are {snapshots}"),
    "the beginning of format 2": (
        lambda folder: (folder / "ics").write_bytes(b"\x08\0\0\0HEAD\x08\x01\0\0\x08\0\0\0"),
        "{folder}/ics is no Gadget snapshot in binary, or its beginning is damaged: it has no header of 256 bytes in "
        "front"),
    "cut short": (
        lambda folder: cut(folder / "ics", 2000),
        "{folder}/ics is cut short, or its header is damaged: 512 particles take at least "
        "14624 bytes, and it has 2000"),
    "cut short within a block": (
        lambda folder: cut(folder / "ics", 264 + 2 * (8 + 12 * N**3) + 1000),
        "{folder}/ics is cut short, or its header is damaged: 512 particles take at least "
        "14624 bytes, and it has 13568"),
    "groups not HDF5": (
        lambda folder: (folder / "groups.hdf5").write_text("0"),
        "{folder}/groups.hdf5 has the shape (1, 1); a table of members has two columns, particle ID and halo ID. "
        "Accepted are {groups}"),
    "no BoxSize in HDF5": (
        lambda folder: rewrite(folder / "snap.hdf5", BoxSize=None),
        "{folder}/snap.hdf5 has no BoxSize in its header; give `boxsize`"),
    "no BoxSize in binary": (
        lambda folder: replace_initial(folder, np.arange(N**3), boxsize=0),
        "{folder}/ics has no BoxSize, UnitLength_in_cm in its header; give `boxsize`, `length_unit`"),
    "no redshift": (
        lambda folder: rewrite(folder / "snap.hdf5", Redshift=None),
        "{folder}/snap.hdf5 has no Redshift in its header; give `redshift`"),
    "no snapshot Header": (
        lambda folder: delete(folder / "snap.hdf5", "Header"),
        "{folder}/snap.hdf5 has no group Header, so it is no Gadget snapshot; it holds PartType1"),
    "no group Header": (
        lambda folder: delete(folder / "groups.hdf5", "Header"),
        "{folder}/groups.hdf5 has no group Header, so it is no Gadget group file; it holds Group"),
    "no group columns": (
        lambda folder: delete(folder / "groups.hdf5", "Group/GroupLenType"),
        "{folder}/groups.hdf5 has no GroupLenType in its group Group"),
    "groups of fewer than no particles": (
        lambda folder: lengthen_groups(folder / "groups.hdf5", -600),
        "{folder}/groups.hdf5 has values that are negative, NaN or infinite in its columns GroupLenType"),
    "no dark matter": (
        lambda folder: rewrite(folder / "snap.hdf5", NumPart_ThisFile=[5, 0, 0, 0, 0, 0]),
        "{folder}/snap.hdf5 has no dark-matter particles (PartType1); it has gas (PartType0), see `particles`"),
    "no dataset": (
        lambda folder: delete(folder / "snap.hdf5", "PartType1/Velocities"),
        "{folder}/snap.hdf5 has no Velocities in its group PartType1"),
    "short dataset": (
        lambda folder: shorten(folder / "snap.hdf5", "PartType1/Velocities"),
        "{folder}/snap.hdf5 has fewer Velocities in PartType1 than NumPart_ThisFile says"),
    "missing chunks": (
        lambda folder: (rewrite(folder / "snap.hdf5", NumFilesPerSnapshot=4), chunks(folder, 0, 1, 3)),
        "{folder}/snap.0.hdf5: NumFilesPerSnapshot says 4 files, 3 found; missing: snap.2.hdf5"),
    "chunk without number": (
        lambda folder: rewrite(folder / "snap.hdf5", NumFilesPerSnapshot=2),
        "{folder}/snap.hdf5: NumFilesPerSnapshot says 2 files, but the file's name has no number; accepted "
        "are NAME.0, NAME.1, ... and NAME.0.hdf5, NAME.1.hdf5, ..."),
    "unknown length unit": (
        lambda folder: rewrite(folder / "snap.hdf5", UnitLength_in_cm=1.0),
        "{folder}/snap.hdf5 has UnitLength_in_cm = 1; accepted are 3.08568e+21 (kpc) and 3.08568e+24 (Mpc)"),
    "another mass unit": (
        lambda folder: rewrite(folder / "snap.hdf5", UnitMass_in_g=1.989e33),
        "{folder}/snap.hdf5: 512 particles of 66.61 Msun/h in a box of 16 Mpc/h are 1e-10 of the mean matter density; "
        "accepted are 0.05 to 1.05 (is the length unit right?)"),
    "a mass unit that is none": (
        lambda folder: rewrite(folder / "snap.hdf5", UnitMass_in_g="Msun"),
        "{folder}/snap.hdf5 has UnitMass_in_g = nan; accepted is a number above 0"),
    "no length unit": (
        lambda folder: rewrite(folder / "snap.hdf5", UnitLength_in_cm=None),
        "{folder}/ics does not say its length unit (its BoxSize is 16000); "
        "give length_unit=kpc or length_unit=Mpc"),
    "other box": (
        lambda folder: rewrite(folder / "groups.hdf5", BoxSize=20000.0, UnitLength_in_cm=3.085678e21),
        "{folder}/ics and {folder}/groups.hdf5 are not of one run: their boxes are 16 and 20 Mpc/h"),
    "other particles": (
        other_particles,
        "{folder}/ics and {folder}/snap.hdf5 are not of one run: they have 512 and 27 dark-matter particles"),
    "other redshift": (
        lambda folder: rewrite(folder / "groups.hdf5", Redshift=1.0),
        "{folder}/groups.hdf5 is not the group catalogue of {folder}/snap.hdf5: their redshifts are 1.000 "
        "and 0.000"),
    "no cube": (
        lambda folder: (replace_initial(folder, np.arange(500)),
                        rewrite(folder / "snap.hdf5", NumPart_ThisFile=[0, 500, 0, 0, 0, 0])),
        "{folder}/ics has 500 dark-matter particles, which is not the cube of a whole number: they have no "
        "Lagrangian lattice"),
    "IDs not consecutive": (
        lambda folder: write_binary(folder / "ics", LATTICE * CELL, VELOCITY, 2 * particle_ids()),
        "{folder}/ics: particle IDs run from 2 to 1024; accepted are consecutive ones, as the 512 particles "
        "of a lattice have"),
    "IDs without order": (
        shuffle_ids,
        "{folder}/ics: particle IDs have no Lagrangian order, or these are no initial conditions: "
        "displacements of lattice neighbours differ by 3.2 cells in C order, 3.3 cells in Fortran order; "
        "accepted is exactly one below 0.3"),
    "other IDs": (
        lambda folder: set_ids(folder / "snap.hdf5", particle_ids(first=5)),
        "{folder}/snap.hdf5: particle IDs run from 5 to 516; accepted are 1 to 512, as in the initial "
        "conditions"),
    "IDs twice": (
        lambda folder: set_ids(folder / "snap.hdf5", np.r_[7, particle_ids()[1:]]),
        "{folder}/snap.hdf5: 1 particle IDs between 1 and 512 are missing, others occur more than once"),
    "not sorted by group": (
        lambda folder: write_hdf5(folder / "snap.hdf5", final_position(), VELOCITY, particle_ids()),
        "{folder}/snap.hdf5 is not sorted by the groups of {folder}/groups.hdf5: the particles of "
        "the median halo would lie 10.9 of its radii from its centre; accepted is up to 2"),
    "more group members than particles": (
        lambda folder: lengthen_groups(folder / "groups.hdf5"),
        "{folder}/groups.hdf5 is not the group catalogue of {folder}/snap.hdf5: it has 1014 dark-matter "
        "particles in groups, the snapshot 512 in all"),
    "mass that does not fit the box": (
        lambda folder: rewrite(folder / "snap.hdf5", UnitLength_in_cm=3.085678e24),
        "{folder}/ics: 512 particles of 6.661e+11 Msun/h in a box of 16000 Mpc/h are 1e-09 of the mean "
        "matter density; accepted are 0.05 to 1.05 (is the length unit right?)"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_error(tmp_path, name):
    damage, message = ERRORS[name]
    files = write_run(tmp_path)
    damage(tmp_path)
    with pytest.raises(DataError) as error:
        convert(tmp_path / "run.h5", **files)
    # Of a file that nobody knows the line also says, where yt is not installed, that yt may read it.
    said = str(error.value).removesuffix(f"; {yt.INSTALL}")
    assert said == message.format(folder=tmp_path, snapshots=base.accepted("snapshot"), groups=base.accepted("groups"))
    assert not (tmp_path / "run.h5").exists()


def test_initial_and_final_are_one_file(tmp_path):
    files = write_run(tmp_path)
    for same in (files["final"], tmp_path / ".." / tmp_path.name / "snap.hdf5"):
        with pytest.raises(SettingError, match="`initial` and `final` are one snapshot, .*snap.hdf5: accepted are the"):
            convert(tmp_path / "run.h5", initial=same, final=files["final"])


def test_a_final_snapshot_in_another_unit_than_is_given(tmp_path):
    files = write_run(tmp_path)
    with h5py.File(files["final"], "r+") as file:
        del file["Header"].attrs["BoxSize"], file["Header"].attrs["UnitLength_in_cm"]
        file["PartType1/Coordinates"][...] /= 1000
    with pytest.raises(DataError, match="snap.hdf5 has 512 particles within 0.001 of a box of 16: is its length unit"):
        convert(tmp_path / "run.h5", **files, length_unit="kpc", boxsize=BOX)


def list_members(path, ids):
    """Write the IDs of the groups' particles into their file, as CAMELS does."""
    with h5py.File(path, "r+") as file:
        file["IDs/ID"] = ids


def test_members_that_the_group_file_lists(tmp_path):
    """The snapshot need not be sorted by group then."""
    files = write_run(tmp_path)
    write_hdf5(files["final"], final_position(), VELOCITY, particle_ids())
    list_members(files["groups"], particle_ids()[GROUPED])
    convert(tmp_path / "run.h5", **files)
    check(tmp_path / "run.h5")
    for name, ids, message in (
            ("other", particle_ids()[GROUPED + 100], "the particles that .*groups.hdf5 lists are not its groups' in"),
            ("twice", np.r_[particle_ids()[GROUPED[1:]], 102], "has particle 102 more than once"),
            ("unknown", np.r_[particle_ids()[GROUPED[1:]], 600], "has the particle ID 600; accepted are 1 to 512")):
        write_groups(files["groups"], [0, 1])
        list_members(files["groups"], ids)
        with pytest.raises(DataError, match=message):
            convert(tmp_path / f"{name}.h5", **files)


def test_fewer_types_of_particles(tmp_path):
    """Gadget-4 may be built for two types, and then writes two numbers."""
    files = write_run(tmp_path)
    rewrite(files["final"], NumPart_ThisFile=[0, N**3], MassTable=[0, MASS], NumPart_Total=[0, N**3])
    with h5py.File(files["groups"], "r+") as file:
        counts = file["Group/GroupLenType"][:, :2]
        del file["Group/GroupLenType"]
        file["Group/GroupLenType"] = counts
        file["Subhalo/SubhaloPos"], file["Subhalo/SubhaloLenType"] = GROUP_CENTRES, counts
    convert(tmp_path / "run.h5", **files)
    check(tmp_path / "run.h5")
    with pytest.raises(DataError, match="there is none with stars"):
        convert(tmp_path / "field.h5", final=files["final"], grid=4, galaxies=files["groups"], minimum_stars=1)
    assert convert(tmp_path / "field.h5", final=files["final"], grid=4, particles="all")["gridsize"] == 4


def test_groups_without_a_snapshot(tmp_path):
    files = write_run(tmp_path)
    with pytest.raises(DataError, match=r"^a group catalogue \(`groups`\) needs the snapshot .*$"):
        convert(tmp_path / "run.h5", initial=files["initial"], groups=files["groups"])


@pytest.mark.parametrize("spoilt", ["final", "groups"])
def test_spoilt_hdf5_is_refused_or_makes_a_sound_file(tmp_path, spoil, spoilt):
    files = write_run(tmp_path)
    made = tmp_path / "run.h5"
    spoil(files[spoilt], lambda: convert(made, overwrite=True, **files), made)


# The command ----------------------------------------------------------------------------


def test_command(tmp_path):
    files = write_run(tmp_path)
    output = tmp_path / "run.h5"
    arguments = ["convert", str(output), *(f"--{name}={path}" for name, path in files.items())]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0
    assert result.stdout.strip().splitlines() == [
        f"{output}: 8^3 particles in 16 Mpc/h, 2 haloes, redshift 49 to 0; IDs from 1 in C order, lattice at "
        "(0.000, 0.000, 0.000) cells",
        "assumed, as no file says it: kpc/h in ics, as in snap.hdf5 of the same BoxSize; kpc/h in "
        "groups.hdf5, as in snap.hdf5 of the same BoxSize; ns = 0.9665 (Planck 2018); sigma8 = 0.8102 "
        "(Planck 2018)"]
    check(output)
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == f"Error: {output} exists already; give --overwrite to replace it"
    assert CliRunner().invoke(main, [*arguments, "--overwrite"]).exit_code == 0
