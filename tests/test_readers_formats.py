"""Formats and layouts that public files have: each is written here number by number, and read independently.

The small files of `shared/inputs`, where they are there, are read besides.
"""

from datetime import timedelta
from pathlib import Path
from unittest import mock

import h5py
import hdf5plugin
import hypothesis
import numpy as np
import pytest
from hypothesis import strategies
from test_readers_pinocchio import PARTICLE, catalogue

from kerasgal.errors import DataError, MissingError
from kerasgal.readers import base
from kerasgal.readers.convert import convert as to_simulation
from kerasgal.readers.convert import write as convert
from kerasgal.simulation import Simulation


@pytest.fixture(scope="module", autouse=True)
def without_yt():
    """Damaged files are for our own readers: with yt, which is slow to import, they would have no deadline."""
    with mock.patch("kerasgal.readers.yt.is_installed", return_value=False):
        yield


N, BOX, OM0, H = 8, 50.0, 0.3, 0.7
CRITICAL = 27.7536627  # 1e10 Msun/h / (Mpc/h)^3
TOTAL = OM0 * CRITICAL * BOX**3  # all matter of the box, 1e10 Msun/h
MASS = TOTAL / N**3
MPC, SOLAR = 3.08567758e24, 1.98841e33  # cm, g


def positions(seed=0, number=N**3):
    """Mpc/h, (number, 3) float32."""
    return np.random.default_rng(seed).uniform(0, BOX, (number, 3)).astype(np.float32)


def weights(number=N**3, seed=1, total=TOTAL):
    """Masses of the whole box, very unequal, 1e10 Msun/h."""
    mass = np.random.default_rng(seed).choice([1.0, 30.0], number)
    return (mass * total / mass.sum()).astype(np.float32)


def on_grid(position, mass, n=8):
    """Density contrast by cloud-in-cell, written down separately; position in Mpc/h."""
    density = np.zeros((n, n, n))
    scaled = np.asarray(position, np.float64) / BOX * n - 0.5
    lower = np.floor(scaled).astype(int)
    for corner in np.ndindex(2, 2, 2):
        share = np.prod(np.where(corner, scaled - lower, 1 - (scaled - lower)), axis=1)
        np.add.at(density, tuple(((lower + corner) % n).T), share * mass)
    return density / density.mean() - 1


def delta_of(output):
    with Simulation(output, require=("final/delta",)) as simulation:
        assert simulation.problems() == []
        return simulation["final/delta"][...]


def check(tmp_path, path, position, mass, **arguments):
    """Convert a snapshot on 8^3 cells, and compare with the grid of position [Mpc/h] and mass."""
    convert(tmp_path / "run.h5", final=path, grid=8, overwrite=True, **arguments)
    np.testing.assert_allclose(delta_of(tmp_path / "run.h5"), on_grid(position, mass), rtol=2e-4, atol=2e-4)


# Gadget binary ------------------------------------------------------------------------------


def write_binary(path, kinds, version=1, byteorder="<", files=1, real="f4", redshift=0.0, lambda0=1 - OM0):
    """A file in kpc/h; kinds: {type: (position, mass)}, mass a number (in the header) or an array (in a block)."""
    counts, table, block = np.zeros(6, int), np.zeros(6), []
    for kind, (position, mass) in sorted(kinds.items()):
        counts[kind] = len(position)
        if np.ndim(mass):
            block.append(mass)
        else:
            table[kind] = mass

    def binary(values, kind):
        return np.asarray(values).astype(byteorder + kind).tobytes()

    header = (binary(counts, "u4") + binary([*table, 1 / (1 + redshift), redshift], "f8") + binary([0, 0], "i4")
              + binary(counts, "u4") + binary([0, files], "i4") + binary([BOX * 1000, OM0, lambda0, H], "f8"))
    place = np.concatenate([position for _, (position, _) in sorted(kinds.items())])
    blocks = [(b"HEAD", header.ljust(256, b"\0")), (b"POS ", binary(place * 1000, real)),
              (b"VEL ", binary(np.zeros_like(place), real)), (b"ID  ", binary(np.arange(len(place)), "u4"))]
    if block:
        blocks.append((b"MASS", binary(np.concatenate(block), real)))
    if version == 2:  # a block that is not wanted, before those that are
        blocks.insert(1, (b"INFO", b"\0" * 40))
    out = b""
    for name, content in blocks:
        size = binary(len(content), "u4")
        if version == 2:
            out += binary(8, "u4") + name + binary(len(content) + 8, "u4") + binary(8, "u4")
        out += size + content + size
    path.write_bytes(out)
    return path


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("real", ["f4", "f8"])
def test_masses_in_a_block_of_binary_files(tmp_path, version, byteorder, real):
    position, mass = positions(), weights()
    path = write_binary(tmp_path / "snap", {1: (position, mass)}, version, byteorder, real=real)
    check(tmp_path, path, position, mass, length_unit="kpc")
    # as if they weighed the same it would be quite another field
    assert np.abs(on_grid(position, mass) - on_grid(position, 1)).max() > 1


@pytest.mark.parametrize("version", [1, 2])
def test_all_types_of_binary_files(tmp_path, version):
    """Gas and stars have masses in the block, dark matter in the header, and type 3 is dark matter too."""
    share = {0: 0.15, 1: 0.5, 3: 0.3, 4: 0.05}
    kinds = {}
    for kind, part in share.items():
        number = 100 + kind
        mass = weights(number, kind, part * TOTAL) if kind in (0, 3, 4) else part * TOTAL / number
        kinds[kind] = positions(kind, number), mass
    path = write_binary(tmp_path / "snap", kinds, version)
    for particles, types in (("dark", (1, 3)), ("gas", (0,)), ("stars", (4,)), ("all", (0, 1, 3, 4))):
        position = np.concatenate([kinds[kind][0] for kind in types])
        mass = np.concatenate([np.broadcast_to(kinds[kind][1], len(kinds[kind][0])) for kind in types])
        check(tmp_path, path, position, mass, length_unit="kpc", particles=particles)
        with Simulation(tmp_path / "run.h5", require=()) as simulation:
            assert simulation.density_of == {"dark": "dark matter", "all": "all matter"}.get(particles, particles)
            assert ("types 1 and 3" in simulation.file.attrs["source"]) == (particles == "dark")


def test_binary_masses_that_are_missing_or_of_unequal_particles_of_a_lattice(tmp_path):
    path = write_binary(tmp_path / "snap", {1: (positions(), weights())})
    with pytest.raises(DataError, match="has dark-matter particles of masses from .* they have no Lagrangian lattice"):
        convert(tmp_path / "run.h5", initial=path, length_unit="kpc")
    content = path.read_bytes()
    path.write_bytes(content[:-(4 * N**3 + 8)])
    with pytest.raises(DataError, match="has no block of Masses, which its header says its particles have"):
        convert(tmp_path / "run.h5", final=path, grid=8, length_unit="kpc")
    path.write_bytes(content[:-100])
    with pytest.raises(DataError, match="is cut short within its block of Masses"):
        convert(tmp_path / "run.h5", final=path, grid=8, length_unit="kpc")


@pytest.mark.parametrize("wrong", [-1.0, np.nan, np.inf])
def test_masses_that_are_none_are_refused(tmp_path, wrong):
    mass = weights()
    mass[7] = wrong
    path = write_binary(tmp_path / "snap", {1: (positions(), mass)})
    with pytest.raises(DataError, match="snap has particles whose mass is negative, NaN or infinite"):
        convert(tmp_path / "run.h5", final=path, grid=8, length_unit="kpc")
    assert not (tmp_path / "run.h5").exists()


def test_a_block_of_another_size_than_its_particles_is_refused(tmp_path):
    path = write_binary(tmp_path / "snap", {1: (positions(), weights())})
    content, size = path.read_bytes(), 12 * N**3
    longer = np.array(size + 12, "<u4").tobytes()  # positions of one more particle than there are
    path.write_bytes(content[:264] + longer + content[268:268 + size] + bytes(12) + longer + content[272 + size:])
    with pytest.raises(DataError, match=f"the block of Coordinates has {size + 12} bytes; accepted are {size} and "):
        convert(tmp_path / "run.h5", final=path, grid=8, length_unit="kpc")


def test_a_header_that_is_no_flat_universe(tmp_path):
    path = write_binary(tmp_path / "snap", {1: (positions(), MASS)}, lambda0=0.5)
    with pytest.raises(DataError, match="says Omega0 = 0.3 and OmegaLambda = 0.5, which are no flat universe"):
        convert(tmp_path / "run.h5", final=path, grid=8, length_unit="kpc")


# HDF5 of the Gadget family ------------------------------------------------------------------


def write_hdf5(path, kinds, units=None, header=None, names=("Coordinates", "Masses"), filters=None, length=1000):
    """A snapshot; kinds as of `write_binary`; units: {group or "Header": attributes}; length: of Mpc/h in the file."""
    counts, table = np.zeros(6, int), np.zeros(6)
    with h5py.File(path, "w") as file:
        for kind, (position, mass) in kinds.items():
            counts[kind] = len(position)
            group = file.create_group(f"PartType{kind}")
            group.create_dataset(names[0], data=position * length, **(filters or {}))
            group["ParticleIDs"] = np.arange(len(position)) + 1000 * kind
            if np.ndim(mass):
                group.create_dataset(names[1], data=mass, **(filters or {}))
            else:
                table[kind] = mass
        stated = {"BoxSize": BOX * length, "HubbleParam": H, "MassTable": table, "NumFilesPerSnapshot": 1,
                  "NumPart_ThisFile": counts, "Omega0": OM0, "Redshift": 0.0,
                  "UnitLength_in_cm": MPC / length} | (header or {})
        file.create_group("Header").attrs.update({name: value for name, value in stated.items() if value is not None})
        for group, attributes in (units or {}).items():
            file.require_group(group).attrs.update(attributes)
    return path


FILTERS = {"Blosc": hdf5plugin.Blosc(), "Blosc2": hdf5plugin.Blosc2(), "Zstd": hdf5plugin.Zstd(),
           "LZ4": hdf5plugin.LZ4(), "Bitshuffle": hdf5plugin.Bitshuffle(),
           "gzip": {"compression": "gzip", "shuffle": True}}


@pytest.mark.parametrize("name", FILTERS)
def test_compressed_hdf5(tmp_path, name):
    filters = {**FILTERS[name], "chunks": True}
    path = write_hdf5(tmp_path / "snap.hdf5", {1: (positions(), weights())}, filters=filters)
    check(tmp_path, path, positions(), weights())
    with h5py.File(tmp_path / "cube.h5", "w") as file:
        file.create_dataset("delta", data=np.tile([0.5, -0.5], (6, 6, 3)), **filters)
    made = to_simulation(density=tmp_path / "cube.h5", quantity="delta", boxsize=BOX, redshift=0, Om0=OM0, h=H)
    assert np.array_equal(made["final/delta"][0, 0], np.tile([0.5, -0.5], 3))


def test_a_filter_that_is_not_installed_is_named(tmp_path):
    path = write_hdf5(tmp_path / "snap.hdf5", {1: (positions(), MASS)})
    with h5py.File(path, "r+") as file:
        values = file["PartType1/Coordinates"][...]
        del file["PartType1/Coordinates"]
        # 32768 is a number for private use: no filter has it
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((64, 3))
        plist.set_filter(32768, h5py.h5z.FLAG_OPTIONAL, ())
        space = h5py.h5s.create_simple(values.shape)
        h5py.h5d.create(file["PartType1"].id, b"Coordinates", h5py.h5t.IEEE_F32LE, space, plist)
        item = h5py.Dataset(file["PartType1/Coordinates"].id)
        for start in range(0, len(values), 64):  # as if the filter had packed them
            item.id.write_direct_chunk((start, 0), values[start:start + 64].astype("<f4").tobytes(), 0)
    with pytest.raises(MissingError, match=r"is packed by filter \(32768\), a filter that HDF5 has not here"):
        convert(tmp_path / "run.h5", final=path, grid=8)


def test_eagle_has_a_group_of_units_and_names_of_its_own(tmp_path):
    units = {"Units": {"UnitLength_in_cm": 3.085678e24, "UnitMass_in_g": 1.989e43, "UnitVelocity_in_cm_per_s": 1e5},
             "Constants": {"SOLAR_MASS": 1.989e33}}
    kinds = {0: (positions(0, 300), weights(300, 0, 0.15 * TOTAL)), 1: (positions(1), 0.85 * MASS)}
    path = write_hdf5(tmp_path / "snap.hdf5", kinds, units, {"UnitLength_in_cm": None, "OmegaBaryon": 0.045},
                      names=("Coordinates", "Mass"), length=1)
    check(tmp_path, path, kinds[0][0], kinds[0][1], particles="gas")
    everything = np.concatenate([kinds[0][1], np.full(N**3, 0.85 * MASS)])
    check(tmp_path, path, np.concatenate([kinds[0][0], kinds[1][0]]), everything, particles="all")
    with Simulation(tmp_path / "run.h5", require=()) as simulation:
        assert simulation.boxsize == BOX and simulation.cosmology.Ob0 == 0.045


def test_eagle_velocities_are_called_otherwise(tmp_path):
    lattice = (np.stack(np.indices((N, N, N)), -1).reshape(-1, 3) + 0.5) * BOX / N
    path = write_hdf5(tmp_path / "ics.hdf5", {1: (lattice, MASS)}, header={"Redshift": 3.0})
    with h5py.File(path, "r+") as file:
        file["PartType1/Velocity"] = np.full((N**3, 3), 10.0)
    made = to_simulation(initial=path)
    np.testing.assert_allclose(made["initial/velocity"][...], 10 / 4**0.5)


@pytest.mark.parametrize("with_h", [False, True])
@pytest.mark.parametrize("mass_unit", [1.989e43, 1.989e33])
def test_newer_gizmo_calls_its_units_otherwise(tmp_path, with_h, mass_unit):
    """And may count h in; masses may be in Msun."""
    counted = 1 / H if with_h else 1
    header = {"UnitLength_in_cm": None, "UnitLength_In_CGS": 3.085678e21 * counted, "UnitVelocity_In_CGS": 1e5,
              "UnitMass_In_CGS": mass_unit * counted, "Omega0": None, "Omega_Matter": OM0, "Omega_Baryon": 0.045}
    scale = 1.989e43 / mass_unit
    path = write_hdf5(tmp_path / "snap.hdf5", {1: (positions(), MASS * scale)}, header=header)
    check(tmp_path, path, positions(), 1)
    with Simulation(tmp_path / "run.h5", require=()) as simulation:
        assert simulation.particle_mass == pytest.approx(MASS * 1e10, rel=1e-6)
        assert simulation.cosmology.Ob0 == 0.045


def write_swift(path, kinds, cosmological=1, files=1):
    """As SWIFT writes it: Mpc and 1e10 Msun without h, a unit of time of Mpc/(km/s), attributes in arrays of one."""
    counts = np.zeros(7, int)
    with h5py.File(path, "w") as file:
        for kind, (position, mass) in kinds.items():
            counts[kind] = len(position)
            file[f"PartType{kind}/Coordinates"] = position.astype(float) / H
            file[f"PartType{kind}/Velocities"] = np.full((len(position), 3), 30.0)
            mass_called = "DynamicalMasses" if kind == 5 else "Masses"  # by its black_holes_io.h
            file[f"PartType{kind}/{mass_called}"] = np.broadcast_to(mass, len(position)) / H
            file[f"PartType{kind}/ParticleIDs"] = np.arange(len(position))
        file.create_group("Header").attrs.update({
            "BoxSize": np.full(3, BOX / H), "Code": np.bytes_("SWIFT"), "Dimension": np.array([3]),
            "MassTable": np.zeros(7), "NumFilesPerSnapshot": np.array([files]), "NumPart_ThisFile": counts,
            "NumPart_Total": counts, "NumPart_Total_HighWord": np.zeros(7, int), "Redshift": np.array([1.0]),
            "Scale-factor": np.array([0.5]), "Time": np.array([0.006])})
        file.create_group("Cosmology").attrs.update({
            "Cosmological run": np.array([cosmological]), "H0 [internal units]": np.array([70.0]), "h": np.array([H]),
            "Omega_m": np.array([OM0]), "Omega_b": np.array([0.045]), "Omega_lambda": np.array([1 - OM0]),
            "Omega_r": np.array([0.0]), "Omega_k": np.array([0.0]), "Redshift": np.array([1.0]),
            "w_0": np.array([-1.0]), "w_a": np.array([0.0])})
        units = {"Unit current in cgs (U_I)": 1.0, "Unit length in cgs (U_L)": MPC,
                 "Unit mass in cgs (U_M)": 1e10 * SOLAR, "Unit temperature in cgs (U_T)": 1.0,
                 "Unit time in cgs (U_t)": MPC / 1e5}
        for group in ("Units", "InternalCodeUnits"):
            file.create_group(group).attrs.update({name: np.array([value]) for name, value in units.items()})
    return path


def test_swift(tmp_path):
    kinds = {0: (positions(0, 300), weights(300, 0, 0.15 * TOTAL)), 1: (positions(1), 0.85 * MASS)}
    path = write_swift(tmp_path / "snap.hdf5", kinds)
    check(tmp_path, path, kinds[1][0], 1)
    with Simulation(tmp_path / "run.h5", require=()) as simulation:
        assert simulation.boxsize == pytest.approx(BOX) and simulation.redshift_final == 1
        assert (simulation.cosmology.Om0, simulation.cosmology.Ob0, simulation.cosmology.h) == (OM0, 0.045, H)
        assert simulation.particle_mass == pytest.approx(MASS * 1e10, rel=1e-4)
    everything = np.concatenate([kinds[0][1], np.full(N**3, 0.85 * MASS)])
    check(tmp_path, path, np.concatenate([kinds[0][0], kinds[1][0]]), everything, particles="all")
    with pytest.raises(DataError, match="is of no cosmological run"):
        convert(tmp_path / "run.h5", final=write_swift(path, kinds, cosmological=0), grid=8, overwrite=True)
    with h5py.File(write_swift(path, kinds), "r+") as file:
        del file["Cosmology"].attrs["h"]
    with pytest.raises(DataError, match="does not say h"):
        convert(tmp_path / "run.h5", final=path, grid=8, overwrite=True)


@pytest.mark.parametrize("kind, dark", [(2, True), (3, False), (5, False), (6, False)])
def test_which_types_of_swift_are_dark_matter(tmp_path, kind, dark):
    """2 is coarser dark matter, 3 is sinks, 5 black holes and 6 neutrinos; all are matter."""
    kinds = {1: (positions(1), 0.9 * MASS), kind: (positions(2, 30), 0.1 * TOTAL / 30)}
    path = write_swift(tmp_path / "snap.hdf5", kinds)
    both = np.concatenate([kinds[1][0], kinds[kind][0]]), np.repeat([0.9 * MASS, 0.1 * TOTAL / 30], [N**3, 30])
    check(tmp_path, path, *(both if dark else kinds[1]), particles="dark")
    check(tmp_path, path, *both, particles="all")


def test_velocities_of_swift_are_peculiar(tmp_path):
    lattice = (np.stack(np.indices((N, N, N)), -1).reshape(-1, 3) + 0.5) * BOX / N
    made = to_simulation(initial=write_swift(tmp_path / "ics.hdf5", {1: (lattice, MASS)}))
    np.testing.assert_allclose(made["initial/velocity"][...], 30, rtol=1e-6)
    np.testing.assert_allclose(made["initial/displacement"][...], 0, atol=1e-5)


# Which particles are dark matter --------------------------------------------------------------


def test_dark_matter_of_zoom_simulations_has_several_types(tmp_path):
    kinds = {kind: (positions(kind, 200), weights(200, kind, TOTAL / 4)) for kind in (1, 2, 3, 5)}
    path = write_hdf5(tmp_path / "snap.hdf5", kinds)
    position, mass = (np.concatenate([kinds[kind][item] for kind in kinds]) for item in (0, 1))
    for particles in ("dark", "all"):
        check(tmp_path, path, position, mass, particles=particles)
    with Simulation(tmp_path / "run.h5", require=()) as simulation:
        assert "all particles (types 1, 2, 3 and 5)" in simulation.file.attrs["source"]


def test_neutrinos_of_type_2_are_no_dark_matter(tmp_path, caplog):
    """As in Quijote, whose particles have their masses in the header: here neutrinos are 5% of all matter."""
    kinds = {1: (positions(1), 0.95 * MASS), 2: (positions(2), 0.05 * MASS)}
    for path in (write_binary(tmp_path / "snap", kinds), write_hdf5(tmp_path / "snap.hdf5", kinds),
                 write_hdf5(tmp_path / "own.hdf5", {kind: (place, np.full(N**3, mass, "f4"))
                                                    for kind, (place, mass) in kinds.items()})):
        caplog.clear()
        check(tmp_path, path, kinds[1][0], 1, length_unit="kpc", Ob0=0.045)
        assert [record.getMessage() for record in caplog.records] == [
            f"{path}: its particles of type 2 are lighter than those of type 1, as neutrinos are, and are not counted "
            "as dark matter"]
        check(tmp_path, path, np.concatenate([kinds[1][0], kinds[2][0]]), np.repeat([0.95, 0.05], N**3),
              length_unit="kpc", particles="all")


@pytest.mark.parametrize("kind, particles", [(0, "gas"), (4, "stars"), (1, "dark")])
def test_masses_of_particles_count_before_that_of_the_header(tmp_path, kind, particles):
    """The header keeps that of the start, from which the masses of gas and stars depart."""
    mass = weights(300, 0, 0.9 * TOTAL)
    path = write_hdf5(tmp_path / "snap.hdf5", {kind: (positions(0, 300), mass)})
    with h5py.File(path, "r+") as file:
        file["Header"].attrs["MassTable"] = np.where(np.arange(6) == kind, 0.9 * TOTAL / 300, 0)
    check(tmp_path, path, positions(0, 300), mass, particles=particles)
    folder = mp_gadget(tmp_path / "PART_000", MassTable=[TOTAL / 2000, 0.85 * MASS, 0, 0, 0, 0])
    check(tmp_path, folder, positions(0, 300), weights(300, 0, 0.15 * TOTAL), particles="gas")


def test_the_header_says_the_mass_of_dark_matter_whose_particles_say_the_same(tmp_path):
    path = write_hdf5(tmp_path / "snap.hdf5", {1: (positions(), np.full(N**3, MASS, "f4"))},
                      header={"MassTable": [0, MASS, 0, 0, 0, 0]})
    assert base.open_snapshot(path).equal
    with h5py.File(path, "r+") as file:
        file["Header"].attrs["UnitLength_in_cm"] = 3.085678e24
    with pytest.raises(DataError, match="in a box of 50000 Mpc/h are 1e-09 of the mean matter density"):
        convert(tmp_path / "run.h5", final=path, grid=8)


def test_tracers_and_black_holes_are_no_dark_matter(tmp_path):
    """Type 3 of IllustrisTNG has neither positions nor mass, type 5 is black holes; those are matter all the same."""
    kinds = {0: (positions(0, 300), weights(300, 0, 0.15 * TOTAL)), 1: (positions(1), 0.84 * MASS),
             5: (positions(5, 50), weights(50, 5, 0.01 * TOTAL))}
    path = write_hdf5(tmp_path / "snap.hdf5", kinds, header={"OmegaBaryon": 0.048})
    with h5py.File(path, "r+") as file:
        file["PartType3/TracerID"] = np.arange(99)
        counts = file["Header"].attrs["NumPart_ThisFile"]
        counts[3] = 99
        file["Header"].attrs["NumPart_ThisFile"] = counts
        file["PartType5/BH_Mass"] = np.ones(50)
    check(tmp_path, path, kinds[1][0], 1)
    position = np.concatenate([kinds[kind][0] for kind in kinds])
    check(tmp_path, path, position, np.concatenate([kinds[0][1], np.full(N**3, 0.84 * MASS), kinds[5][1]]),
          particles="all")


@pytest.mark.parametrize("share, outcome", [(1, None), (0.9, "0.9 of the mean matter density, where 1 is expected"),
                                            (0.67, "have 0.67 of the mean matter density"), (1.2, "have 1.2 of the")])
@pytest.mark.parametrize("particles", ["dark", "all"])
def test_mass_that_is_missing_from_the_box_is_seen(tmp_path, caplog, share, outcome, particles):
    """In a box of matter of two types one of which is not in the file: refused for all, said for dark matter."""
    mass = weights(total=share * TOTAL)
    path = write_hdf5(tmp_path / "snap.hdf5", {1: (positions(), mass)})
    if outcome and (particles == "all" and share != 0.9 or share > 1):
        with pytest.raises(DataError, match=outcome):
            convert(tmp_path / "run.h5", final=path, grid=8, particles=particles)
        return
    check(tmp_path, path, positions(), mass, particles=particles)
    assert bool(outcome) == bool(caplog.records)
    assert not outcome or outcome.replace("have ", "") in caplog.records[0].getMessage()


def test_the_share_of_gas_is_known_from_the_baryons(tmp_path, caplog):
    """Where the high-resolution dark matter of a zoom is called gas, what is called dark matter is too little."""
    kinds = {0: (positions(0, 300), weights(300, 0, 0.5 * TOTAL)), 1: (positions(1), 0.5 * MASS)}
    path = write_hdf5(tmp_path / "snap.hdf5", kinds, header={"OmegaBaryon": 0.045})
    convert(tmp_path / "run.h5", final=path, grid=8)
    message, = (record.getMessage() for record in caplog.records)
    assert "its dark particles (type 1) have 0.5 of the mean matter density, where 0.85 is expected" in message


# Subsamples ---------------------------------------------------------------------------------


def test_a_subsample_scales_mass_and_is_said(tmp_path):
    position = positions(number=40_000)
    path = write_hdf5(tmp_path / "snap.hdf5", {1: (position, TOTAL / len(position))})
    check(tmp_path, path, position, 1)
    whole = delta_of(tmp_path / "run.h5")
    for name in ("first", "second"):
        convert(tmp_path / f"{name}.h5", final=path, grid=8, subsample=0.25)
    first, second = (delta_of(tmp_path / f"{name}.h5") for name in ("first", "second"))
    assert np.array_equal(first, second)
    # 40,000 / 512 particles a cell, smoothed: what is left out of them is noise of 3/4 of Poisson's
    noise = (first - whole).std() / np.sqrt(3 / (40_000 / 512) * 8 / 27)
    assert 0.8 < noise < 1.2
    with Simulation(tmp_path / "first.h5", require=()) as simulation:
        assert simulation.particle_mass == pytest.approx(4e10 * TOTAL / 40_000, rel=1e-5)
        assert "a random 0.25 of dark particles by cic" in simulation.file.attrs["source"]


def test_haloes_of_a_subsample_have_all_their_particles(tmp_path):
    """Of a catalogue of masses alone."""
    path = write_hdf5(tmp_path / "snap.hdf5", {1: (positions(number=40_000), TOTAL / 40_000)})
    groups = catalogue(tmp_path / "cat.out", [(7, 500, (1, 1, 1), (2, 2, 2), (0, 0, 0))], counted=False,
                       **{"redshift_0.500000": "redshift 0.000000"})
    expected = 500 * PARTICLE / (1e10 * TOTAL / 40_000)
    for subsample in (None, 0.25):
        box = to_simulation(final=path, grid=8, groups=groups, boxsize=BOX, subsample=subsample, minimum=int(expected))
        assert box["halos/count"][...].tolist() == [round(expected)]


@pytest.mark.parametrize("given, message", [
    ({"subsample": 0.5}, "`subsample` goes with `grid`"),
    ({"window": "tsc"}, "`window` goes with `grid`"),
    ({"minimum": 20}, "`minimum` chooses haloes of `groups`"),
    ({"index": 3}, "`index` is the row of `parameter_table`, or the simulation in the file"),
    ({"subsample": 1.5, "grid": 8}, "subsample=1.5: accepted is a share of the particles"),
    ({"grid": 1}, "grid=1: accepted are whole numbers of at least 2"),
    ({"window": "gauss", "grid": 8}, "window=gauss: accepted are ngp, cic, tsc"),
    ({"particles": "neutrinos", "grid": 8}, "particles=neutrinos: accepted are dark, gas, stars, all"),
    ({"length_unit": "km", "grid": 8}, "length_unit=km: accepted are kpc, Mpc"),
    ({"boxsize": np.inf, "grid": 8}, "boxsize=inf: accepted are numbers above 0"),
])
def test_arguments_that_are_none(given, message):
    with pytest.raises(DataError, match=message):
        to_simulation(initial="x", **given)


# TIPSY --------------------------------------------------------------------------------------


def test_the_mass_of_tipsy_is_omega_m(tmp_path, caplog):
    position = positions()

    def write(total):
        dark = np.zeros((len(position), 9))
        dark[:, 0], dark[:, 1:4] = total * weights() / TOTAL, position / BOX - 0.5
        path = tmp_path / "run.tipsy"
        path.write_bytes(np.array([1.0], ">f8").tobytes() + np.array([N**3, 3, 0, N**3, 0, 0], ">i4").tobytes()
                         + dark.astype(">f4").tobytes())
        return path

    check(tmp_path, write(OM0), position, weights(), boxsize=BOX, h=H)
    with Simulation(tmp_path / "run.h5", require=()) as simulation:
        assert simulation.cosmology.Om0 == pytest.approx(OM0, rel=1e-5)
    check(tmp_path, write(OM0), position, weights(), boxsize=BOX, h=H, Om0=0.3)
    with pytest.raises(DataError, match="says by the mass of its particles Omega_m = 0.3, Om0=0.2"):
        convert(tmp_path / "run.h5", final=write(OM0), grid=8, boxsize=BOX, h=H, Om0=0.2, overwrite=True)
    assert not caplog.records
    check(tmp_path, write(512), position, weights(), boxsize=BOX, h=H, Om0=0.2)  # in other units
    assert "has particles of a mass of 512, which is no Omega_m" in caplog.records[0].getMessage()


# MP-Gadget ----------------------------------------------------------------------------------


def write_bigfile(folder, blocks, attributes):
    """A folder in the bigfile format, by its documentation: a header in text and the numbers in the file 000000."""
    for name, values in blocks.items():
        place = folder / name
        place.mkdir(parents=True)
        values = np.asarray(values)
        content = values.astype(values.dtype.newbyteorder("<")).tobytes()
        checksum = int(np.frombuffer(content, "u1").sum())
        (place / "header").write_text(
            f"DTYPE: <{values.dtype.kind}{values.dtype.itemsize}\nNMEMB: {values[0].size}\nNFILE: 1\n"
            f"000000: {len(values)} : {checksum} : {checksum}\n")
        (place / "000000").write_bytes(content)
    (folder / "Header").mkdir(parents=True)
    (folder / "Header" / "header").write_text("DTYPE: <i8\nNMEMB: 0\nNFILE: 0\n")
    lines = []
    for name, value in attributes.items():
        values = np.atleast_1d(np.asarray(value))
        values = values.astype("<f8" if values.dtype.kind == "f" else "<i8")
        lines.append(f"{name} {values.dtype.str} {len(values)} {values.tobytes().hex().upper()} #HUMANE [ ]\n")
    (folder / "Header" / "attr-v2").write_text("".join(lines))
    return folder


def mp_gadget(folder, **changes):
    """A snapshot in kpc/h with dark matter in the header's mass and gas in a block of masses."""
    attributes = {
        "BoxSize": BOX * 1000, "HubbleParam": H, "MassTable": [0, 0.85 * MASS, 0, 0, 0, 0], "Omega0": OM0,
        "OmegaBaryon": 0.045, "OmegaLambda": 1 - OM0, "Time": 0.5, "TotNumPart": [300, N**3, 0, 0, 0, 0],
        "UnitLength_in_cm": 3.085678e21, "UnitMass_in_g": 1.989e43, "UnitVelocity_in_cm_per_s": 1e5,
        "RSDFactor": 0.01, "TotNumPartInit": [300, N**3, 0, 0, 0, 0], "UsePeculiarVelocity": 1} | changes
    return write_bigfile(folder, {
        "0/Position": positions(0, 300) * 1000.0, "0/Mass": weights(300, 0, 0.15 * TOTAL),
        "1/Position": positions(1).astype(float) * 1000, "1/Velocity": np.full((N**3, 3), 5, np.float32),
        "1/ID": np.arange(N**3, dtype="u8")},
        {name: value for name, value in attributes.items() if value is not None})


def test_mp_gadget(tmp_path):
    folder = mp_gadget(tmp_path / "PART_000")
    check(tmp_path, folder, positions(1), 1)
    with Simulation(tmp_path / "run.h5", require=()) as simulation:
        assert (simulation.boxsize, simulation.redshift_final, simulation.cosmology.Ob0) == (BOX, 1, 0.045)
    check(tmp_path, folder, np.concatenate([positions(0, 300), positions(1)]),
          np.concatenate([weights(300, 0, 0.15 * TOTAL), np.full(N**3, 0.85 * MASS)]), particles="all")


GENIC = {"RSDFactor": None, "TotNumPartInit": None}  # which MP-GenIC does not write (its save.c)


@pytest.mark.parametrize("changes, expected", [
    ({}, 5), (GENIC, 5), ({"UsePeculiarVelocity": 0}, 10), (GENIC | {"UsePeculiarVelocity": 0}, 5 * 0.5**0.5),
    ({"UsePeculiarVelocity": None}, 10)])
def test_velocities_of_mp_gadget(tmp_path, caplog, changes, expected):
    """By its petaio.c they are peculiar, or a times that, or in the initial conditions over sqrt(a)."""
    snapshot = base.open_snapshot(mp_gadget(tmp_path / "PART_000", **changes))
    velocity, ids = next(iter(snapshot.read("velocity", "id")))
    unsaid = changes.get("UsePeculiarVelocity", 1) is None
    assert bool(caplog.records) == ("has no UsePeculiarVelocity in its header" in caplog.text) == unsaid
    np.testing.assert_allclose(velocity, expected)
    assert np.array_equal(ids, np.arange(N**3))


def test_a_folder_of_mp_gadget_that_is_not_complete(tmp_path):
    folder = mp_gadget(tmp_path / "PART_000")
    (folder / "1" / "Position" / "000000").unlink()
    with pytest.raises(DataError, match="is a folder of MP-Gadget that is damaged or not complete: .*000000"):
        convert(tmp_path / "run.h5", final=folder, grid=8)
    (folder / "Header" / "attr-v2").unlink()
    with pytest.raises(DataError, match="not complete: its Header has no attributes"):
        convert(tmp_path / "run.h5", final=folder, grid=8)


# Formats that are not read ------------------------------------------------------------------


@pytest.mark.parametrize("names, message", [
    (["ic_velcx", "ic_velcy"], "is a folder of GRAFIC initial conditions, which is not read; MUSIC and genetIC write"),
    (["info_00080.txt", "amr_00080.out00001"], "is a folder of RAMSES, which is not read; yt and pynbody read it"),
    (["header", "slab000.asdf"], "is a folder of Abacus, which is not read; abacusutils reads it"),
    (["snap_099.0.hdf5", "snap_099.1.hdf5"], "is a folder of a snapshot in several files.*; give one of the files"),
    (["Header", "FOFGroups", "0"], "is a folder of MP-Gadget with its groups, which is not read; give the snapshot's"),
    (["notes.txt"], "is a folder; give one of the files in it"),
])
def test_folders_that_are_not_read(tmp_path, names, message):
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in names:
        (folder / name).write_text("x")
    with pytest.raises(DataError, match=message):
        convert(tmp_path / "run.h5", final=folder, grid=8)


def test_what_is_something_else_is_said(tmp_path):
    snapshot = write_hdf5(tmp_path / "snap.hdf5", {1: (positions(), MASS)})
    table = tmp_path / "run.z0.000.AHF_halos"
    table.write_text(AHF)
    with pytest.raises(DataError, match="is no catalogue of haloes, but HDF5 of the Gadget family"):
        convert(tmp_path / "run.h5", final=snapshot, grid=8, groups=snapshot)
    with pytest.raises(DataError, match="is no snapshot, but AHF's tables in text"):
        convert(tmp_path / "run.h5", final=table, grid=8)
    (tmp_path / "halos_0.0.bin").write_bytes((0xfadedacec0c0d0d0).to_bytes(8, "little") + bytes(300))
    with pytest.raises(DataError, match="is Rockstar's binary table, which is not read; give its out_N.list"):
        convert(tmp_path / "run.h5", final=snapshot, grid=8, groups=tmp_path / "halos_0.0.bin")


# Haloes -------------------------------------------------------------------------------------

AHF = """#ID(1)\thostHalo(2)\tnumSubStruct(3)\tMvir(4)\tnpart(5)\tXc(6)\tYc(7)\tZc(8)\tVXc(9)\tVYc(10)\tVZc(11)\
\tRvir(12)
{host}
"""
ROWS = ("11\t{none}\t1\t2e13\t1000\t25000\t26000\t27000\t0\t0\t0\t600\n"
        "12\t11\t0\t1e12\t50\t25100\t25000\t25000\t0\t0\t0\t200")
HLIST = """#scale(0) id(1) desc_scale(2) desc_id(3) num_prog(4) pid(5) upid(6) phantom(7) sam_mvir(8) mvir(9) rvir(10)\
 x(11) y(12) z(13)
#Omega_M = 0.300000; Omega_L = 0.700000; h0 = 0.680000
#Full box size = 50.000000 Mpc/h
{more}0.5 1 0 -1 1 -1 -1 0 2e13 2e13 500 24.5 40.5 5
0.5 2 0 -1 1 -1 -1 0 3e13 3e13 600 1 2 3
0.5 3 0 -1 1 2 2 0 1e12 1e12 100 1.1 2 3
"""


@pytest.fixture
def field(tmp_path):
    np.save(tmp_path / "delta.npy", np.zeros((8, 8, 8)))
    return {"density": tmp_path / "delta.npy", "quantity": "delta", "overwrite": True}


@pytest.mark.parametrize("none", [-1, 0])
def test_ahf(tmp_path, field, none):
    """Older versions have -1 for no host, newer ones 0; the redshift stands in the name."""
    table = tmp_path / "run.z0.250.AHF_halos"
    table.write_text(AHF.format(host=ROWS.format(none=none)))
    convert(tmp_path / "run.h5", groups=table, boxsize=BOX, Om0=OM0, h=H, **field)
    with Simulation(tmp_path / "run.h5", require=()) as simulation:
        halos = simulation.halos()
        assert halos["mass"].tolist() == [np.float32(2e13)] and halos["count"].tolist() == [1000]
        np.testing.assert_allclose(halos["position"], [[25, 26, 27]])
        np.testing.assert_allclose(halos["radius"], [0.6])
        assert (simulation.redshift_final, simulation.finder, simulation.minimum) == (0.25, "ahf", 1000)


def test_lengths_of_a_catalogue_that_are_not_those_of_the_box(tmp_path, field):
    row = "{}\t-1\t0\t2e13\t1000\t{}\t26\t27\t0\t0\t0\t0.6"  # in Mpc/h
    table = tmp_path / "run.z0.250.AHF_halos"
    table.write_text(AHF.format(host="\n".join(row.format(number, number) for number in range(50))))
    with pytest.raises(DataError, match="has 50 haloes within .* of a box of 50000: is its length unit right"):
        convert(tmp_path / "run.h5", groups=table, boxsize=BOX, Om0=OM0, h=H, **field)


def test_consistent_trees(tmp_path, field, caplog):
    table = tmp_path / "hlist_0.50000.list"
    table.write_text(HLIST.format(more=""))
    convert(tmp_path / "run.h5", groups=table, **field)
    with Simulation(tmp_path / "run.h5", require=()) as simulation:
        halos = simulation.halos()
        np.testing.assert_allclose(halos["mass"], [3e13, 2e13])
        np.testing.assert_allclose(halos["position"], [[1, 2, 3], [24.5, 40.5, 5]])
        np.testing.assert_allclose(halos["radius"], [0.6, 0.5])
        # Box, redshift and cosmology are those of its header.
        assert (simulation.boxsize, simulation.redshift_final) == (50, 1)
        assert (simulation.cosmology.Om0, simulation.cosmology.h, simulation.finder) == (OM0, 0.68, "rockstar")
    assert "has no numbers of particles: those of its haloes are unknown" in caplog.records[0].getMessage()
    with pytest.raises(DataError, match="has no numbers of particles, which `minimum` chooses by"):
        convert(tmp_path / "run.h5", groups=table, minimum=20, **field)
    table.write_text(HLIST.format(more="#Particle mass: 1e+11 Msun/h\n"))
    convert(tmp_path / "run.h5", groups=table, minimum=250, **field)
    with Simulation(tmp_path / "run.h5", require=()) as simulation:
        assert simulation["halos/count"][...].tolist() == [300]
    table.write_text(HLIST.format(more="#tree 7\n"))
    with pytest.raises(DataError, match="has merger trees, haloes of all times; give the list of one time"):
        convert(tmp_path / "run.h5", groups=table, **field)


def test_masses_in_particles_where_the_snapshot_says_what_one_has(tmp_path):
    snapshot = write_hdf5(tmp_path / "snap.hdf5", {1: (positions(), MASS)}, header={"Redshift": 1.0})
    (tmp_path / "hlist.list").write_text(HLIST.format(more="").replace("h0 = 0.68", "h0 = 0.70"))
    convert(tmp_path / "run.h5", final=snapshot, grid=8, groups=tmp_path / "hlist.list")
    with Simulation(tmp_path / "run.h5", require=()) as simulation:
        assert simulation["halos/count"][...].tolist() == [round(3e3 / MASS), round(2e3 / MASS)]


def test_rockstar_with_comments_in_front_and_without_parents(tmp_path, field, caplog):
    table = tmp_path / "out_0.list"
    table.write_text("#\n# made by hand\n#ID DescID Mvir Rvir Np X Y Z\n#a = 1.0\n#Om = 0.300000; Ol = 0.700000; "
                     "h = 0.700000\n#Box size: 50.000000 Mpc/h\n1 -1 1e12 200 50 1 2 3\n")
    convert(tmp_path / "run.h5", groups=table, **field)
    with Simulation(tmp_path / "run.h5", require=()) as simulation:
        assert simulation.cosmology.Om0 == 0.3 and simulation.cosmology.h == 0.7
        np.testing.assert_allclose(simulation["halos/mass"][...], [1e12])
    assert "has no column PID, so that haloes within others are among its haloes" in caplog.records[0].getMessage()


def test_a_catalogue_that_contradicts_the_snapshot_is_not_used_and_that_is_said(tmp_path, caplog):
    """The headers of some of CAMELS' catalogues have a wrong Omega0."""
    snapshot = write_hdf5(tmp_path / "snap.hdf5", {1: (positions(), MASS)})
    with h5py.File(tmp_path / "groups.hdf5", "w") as file:
        file.create_group("Header").attrs.update(BoxSize=BOX * 1000, NumFiles=1, Ngroups_ThisFile=0, Redshift=0.0,
                                                 Omega0=0.25, HubbleParam=H, UnitLength_in_cm=3.085678e21)
    convert(tmp_path / "run.h5", final=snapshot, grid=8, groups=tmp_path / "groups.hdf5")
    with Simulation(tmp_path / "run.h5", require=()) as simulation:
        assert simulation.cosmology.Om0 == OM0
    assert "groups.hdf5 says Om0 = 0.25, which is not used" in caplog.records[0].getMessage()


def test_two_snapshots_that_contradict_each_other(tmp_path):
    lattice = (np.stack(np.indices((N, N, N)), -1).reshape(-1, 3) + 0.5) * BOX / N
    ics = write_hdf5(tmp_path / "ics.hdf5", {1: (lattice, MASS)}, header={"Redshift": 50.0})
    snap = write_hdf5(tmp_path / "snap.hdf5", {1: (lattice, MASS)}, header={"Omega0": 0.31})
    with pytest.raises(DataError, match="are not of one run: they say Om0 = 0.3 and 0.31"):
        convert(tmp_path / "run.h5", initial=ics, final=snap)


# Public inputs ------------------------------------------------------------------------------


@pytest.fixture
def inputs(shared_data):
    folder = shared_data.parent / "inputs"
    if not folder.exists():
        pytest.skip(f"no inputs at {folder}")
    return folder


def gadget_1(path):
    """{type: (position, mass)} of a little-endian file of format 1, in its own units, by NumPy alone."""
    content = path.read_bytes()
    counts, table = np.frombuffer(content, "<i4", 6, 4), np.frombuffer(content, "<f8", 6, 28)
    number, blocks, place = counts.sum(), [], 0
    while place < len(content):
        size = int(np.frombuffer(content, "<i4", 1, place)[0])
        blocks.append(content[place + 4:place + 4 + size])
        place += size + 8
    position = np.frombuffer(blocks[1], "<f4").reshape(number, 3)
    block = np.frombuffer(blocks[4], "<f4") if len(blocks) > 4 else np.zeros(0)
    found, start, done = {}, 0, 0
    for kind, count in enumerate(counts):
        if count:
            mass = np.full(count, table[kind]) if table[kind] else block[done:done + count]
            done += 0 if table[kind] else count
            found[kind] = position[start:start + count], mass
            start += count
    return found


@pytest.mark.parametrize("name", ["multimass.gad", "gas_and_dark.gad"])
@pytest.mark.parametrize("particles", ["dark", "gas", "all"])
def test_public_binary_files(inputs, tmp_path, name, particles):
    kinds = gadget_1(inputs / name)
    types = [kind for kind in kinds if particles == "all" or kind == {"dark": 1, "gas": 0}[particles]]
    if not types:
        with pytest.raises(DataError, match="has no gas particles"):
            convert(tmp_path / "run.h5", final=inputs / name, grid=8, particles=particles, length_unit="kpc")
        return
    position, mass = (np.concatenate([kinds[kind][item] for kind in types]) for item in (0, 1))
    check(tmp_path, inputs / name, position / 1000, mass, particles=particles, length_unit="kpc")


def test_public_format_2_is_format_1_with_16_bytes_before_each_block(inputs, tmp_path):
    content, place, out = (inputs / "format2.gad").read_bytes(), 0, b""
    while place < len(content):
        size = int(np.frombuffer(content, "<i4", 1, place + 16)[0])
        out += content[place + 16:place + 24 + size]
        place += size + 24
    (tmp_path / "format1").write_bytes(out)
    (position, mass), = gadget_1(tmp_path / "format1").values()
    check(tmp_path, inputs / "format2.gad", position / 1000, mass, length_unit="kpc")


@pytest.mark.parametrize("name, given", [
    ("multimass.hdf5", {"length_unit": "kpc"}), ("zoom_types_1_3.hdf5", {"length_unit": "kpc"}),
    ("snap_blosc.hdf5", {"length_unit": "kpc"}), ("eagle.hdf5", {}), ("gizmo.hdf5", {})])
@pytest.mark.parametrize("particles", ["dark", "all"])
def test_public_hdf5_files(inputs, tmp_path, name, given, particles):
    position, mass = [], []
    with h5py.File(inputs / name) as file:
        side = file["Header"].attrs["BoxSize"]
        for kind in range(6):
            if f"PartType{kind}" in file:
                group = file[f"PartType{kind}"]
                position.append(group["Coordinates"][...] / side * BOX)
                table = np.full(len(group["Coordinates"]), file["Header"].attrs["MassTable"][kind])
                mass.append(group["Masses"][...] if "Masses" in group else table)
    check(tmp_path, inputs / name, np.concatenate(position), np.concatenate(mass), particles=particles, **given)


def test_public_tipsy(inputs, tmp_path):
    content = (inputs / "run.tipsy").read_bytes()
    number = int(np.frombuffer(content, ">i4", 1, 8)[0])
    dark = np.frombuffer(content, ">f4", offset=32).reshape(number, 9)
    check(tmp_path, inputs / "run.tipsy", (dark[:, 1:4] + 0.5) * BOX, dark[:, 0], boxsize=BOX, h=H)
    with Simulation(tmp_path / "run.h5", require=()) as simulation:
        assert simulation.cosmology.Om0 == pytest.approx(dark[:, 0].sum(dtype=float), rel=1e-5)
    with pytest.raises(DataError, match="Omega_m = 0.3, Om0=0.2"):
        convert(tmp_path / "run.h5", final=inputs / "run.tipsy", grid=8, boxsize=BOX, h=H, Om0=0.2, overwrite=True)


def test_public_folder_of_mp_gadget_has_no_numbers(inputs, tmp_path):
    """Its Position says a file 000000, which is not there, and its Header has no attributes."""
    assert not (inputs / "PART_000" / "1" / "Position" / "000000").exists()
    with pytest.raises(DataError, match="is a folder of MP-Gadget that is damaged or not complete: its Header has no"):
        convert(tmp_path / "run.h5", final=inputs / "PART_000", grid=8)


def test_public_tables_of_haloes(inputs, tmp_path, field):
    for name, given in (("hlist_1.00000.list", {}), ("run.z0.000.AHF_halos", {"boxsize": BOX})):
        rows = [line.split() for line in (inputs / name).read_text().splitlines() if not line.startswith("#")]
        if name.startswith("hlist"):
            kept = [row for row in rows if row[5] == "-1"]
            mass, position = [float(row[10]) for row in kept], [[float(word) for word in row[16:19]] for row in kept]
        else:
            kept = [row for row in rows if row[1] == "-1"]
            mass = [float(row[3]) for row in kept]
            position = [[float(word) / 1000 for word in row[5:8]] for row in kept]
        convert(tmp_path / "run.h5", groups=inputs / name, Om0=OM0, h=H, **given, **field)
        with Simulation(tmp_path / "run.h5", require=()) as simulation:
            np.testing.assert_allclose(simulation["halos/mass"][...], mass)
            np.testing.assert_allclose(simulation["halos/position"][...], position, rtol=1e-6)


@pytest.mark.parametrize("index, Ob0", [(0, 0.069), (1, 0.031)])
def test_public_table_of_parameters_says_the_baryons(inputs, tmp_path, field, index, Ob0):
    summary = convert(tmp_path / "run.h5", parameter_table=inputs / "CosmoAstroSeed_SB7.txt", index=index, boxsize=25,
                      redshift=0, h=H, **field)
    assert not any("Ob0" in words for words in summary["assumed"])
    with Simulation(tmp_path / "run.h5", require=()) as simulation:
        assert simulation.cosmology.Ob0 == Ob0 and "Omega_b" not in simulation.parameters


# Damage -------------------------------------------------------------------------------------


def outcome(output, **arguments):
    """Convert what may be damaged: "written" or "refused"; raises AssertionError for anything else."""
    try:
        with np.errstate(all="ignore"):
            convert(output, overwrite=True, **arguments)
        with Simulation(output, require=()) as simulation:
            assert simulation.problems() == []
        return "written"
    except DataError as error:
        assert len(str(error).splitlines()) == 1
        return "refused"


def spoil_bytes(path, use, least=0, examples=40):
    """Cut a file short or flip some of its bits in many ways, and `use` it each time; returns the outcomes."""
    content, outcomes = path.read_bytes(), set()
    places = strategies.integers(0, min(len(content), 400) - 1) | strategies.integers(0, len(content) - 1)
    damage = (strategies.integers(-len(content), -1)
              | strategies.lists(strategies.tuples(places, strategies.integers(0, 255)), min_size=1, max_size=4))

    @hypothesis.settings(max_examples=examples, deadline=timedelta(seconds=20), derandomize=True, database=None)
    @hypothesis.given(damage)
    def check_one(damage):
        changed = bytearray(content)
        if isinstance(damage, int):
            changed = changed[:damage]
        else:
            for place, value in damage:
                changed[place] ^= value
        path.write_bytes(changed)
        outcomes.add(use())

    check_one()
    path.write_bytes(content)
    return outcomes


@pytest.mark.parametrize("version", [1, 2])
def test_damaged_binary_files_with_a_block_of_masses(tmp_path, version):
    kinds = {0: (positions(0, 60), weights(60, 0, 0.2 * TOTAL)), 1: (positions(1, 90), weights(90, 1, 0.8 * TOTAL))}
    path = write_binary(tmp_path / "snap", kinds, version)
    outcomes = spoil_bytes(path, lambda: outcome(tmp_path / "run.h5", final=path, grid=4, particles="all",
                                                 length_unit="kpc"))
    assert "refused" in outcomes


@pytest.mark.parametrize("text, suffix", [(AHF.format(host=ROWS.format(none=-1)), ".z0.000.AHF_halos"),
                                          (HLIST.format(more=""), ".list")])
def test_damaged_tables(tmp_path, field, text, suffix):
    path = tmp_path / f"run{suffix}"
    path.write_text(text)
    del field["overwrite"]
    outcomes = spoil_bytes(path, lambda: outcome(tmp_path / "run.h5", groups=path, boxsize=BOX, Om0=OM0, h=H, **field))
    assert "refused" in outcomes


def test_a_block_of_mp_gadget_in_several_files(tmp_path):
    """The sizes of a block's files stand in its header, their names are hexadecimal numbers."""
    folder = mp_gadget(tmp_path / "PART_000")
    place = folder / "1" / "Position"
    content = (place / "000000").read_bytes()
    sizes = [40] * 11 + [N**3 - 440]
    for number, size in enumerate(sizes):
        (place / f"{number:06X}").write_bytes(content[40 * 24 * number:][:24 * size])
    assert (place / "00000B").exists()
    (place / "header").write_text("DTYPE: <f8\nNMEMB: 3\nNFILE: 12\n" + "".join(
        f"{number:06X}: {size} : 0 : 0\n" for number, size in enumerate(sizes)))
    check(tmp_path, folder, positions(1), 1)
    position = np.concatenate([values for values, in base.open_snapshot(folder).read("position")])
    assert np.array_equal(position, positions(1).astype(float) * 1000)


@pytest.mark.parametrize("place", ["Header/attr-v2", "1/Position/header", "1/Position/000000"])
def test_damaged_folders_of_mp_gadget(tmp_path, place):
    folder = mp_gadget(tmp_path / "PART_000")
    outcomes = spoil_bytes(folder / place, lambda: outcome(tmp_path / "run.h5", final=folder, grid=4), examples=30)
    assert "refused" in outcomes


def test_spoilt_swift(tmp_path, spoil):
    path = write_swift(tmp_path / "snap.hdf5", {0: (positions(0, 60), 1.0), 1: (positions(1, 60), TOTAL / 60)})
    made = tmp_path / "run.h5"
    spoil(path, lambda: convert(made, final=path, grid=4, overwrite=True), made)


def test_spoilt_eagle(tmp_path, spoil):
    units = {"Units": {"UnitLength_in_cm": 3.085678e24, "UnitMass_in_g": 1.989e43, "UnitVelocity_in_cm_per_s": 1e5}}
    path = write_hdf5(tmp_path / "snap.hdf5", {1: (positions(1, 60), TOTAL / 60), 5: (positions(5, 9), 1.0)}, units,
                      {"UnitLength_in_cm": None}, length=1)
    made = tmp_path / "run.h5"
    spoil(path, lambda: convert(made, final=path, grid=4, particles="all", overwrite=True), made)


def test_one_file_says_which_formats_there_are():
    """A format is one module, named in `base.MODULES`."""
    folder = Path(base.__file__).parent
    registering = {path.stem for path in folder.glob("*.py") if "base.register(" in path.read_text()}
    assert registering == set(base.MODULES)
