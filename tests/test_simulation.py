import re
import shutil

import h5py
import numpy as np
import pytest

from kerasgal.cosmology import Cosmology
from kerasgal.errors import DataError, MissingError
from kerasgal.simulation import Simulation, check_mean, opened, write


def small(n=4):
    rng = np.random.default_rng(0)
    halo_id = np.full((n, n, n), -1, np.int32)
    halo_id[0], halo_id[1, :2] = 0, 1
    delta = rng.normal(size=(n, n, n))
    return {"initial/delta": delta - delta.mean(), "halo_id": halo_id,
            "halos/mass": np.array([16e10, 8e10]), "halos/position": np.zeros((2, 3)),
            "halos/radius": np.ones(2), "halos/count": np.array([16, 8])}


def write_small(path, datasets, boxsize=10.0, **options):
    write(path, boxsize=boxsize, cosmology=Cosmology(), redshift_initial=19, redshift_final=0, particle_mass=1e10,
          source="test", datasets=datasets, **options)


def test_a_closed_simulation_is_not_used(tmp_path):
    write_small(tmp_path / "box.h5", small())
    with Simulation(tmp_path / "box.h5") as simulation:
        with opened(simulation, require=("halo_id",)) as same:
            assert same is simulation
    with pytest.raises(DataError, match="box.h5 is closed: open it again"):
        with opened(simulation):
            pass


def test_what_is_written_is_read(tmp_path):
    datasets = small()
    write_small(tmp_path / "box.h5", datasets)
    with Simulation(tmp_path / "box.h5") as simulation:
        assert simulation.boxsize == 10 and simulation.gridsize == 4 and simulation.cellsize == 2.5
        assert simulation.cosmology == Cosmology()
        assert simulation.cell_mass == 1e10
        np.testing.assert_allclose(simulation.delta(), datasets["initial/delta"], rtol=1e-6)
        np.testing.assert_array_equal(simulation["halo_id"], datasets["halo_id"])
        np.testing.assert_allclose(simulation.halos()["mass"], [16e10, 8e10])
        assert simulation.problems() == []


def test_particles_finer_than_the_grid_share_a_cells_mass(tmp_path):
    datasets = small()
    datasets["halo_id"] = datasets["halo_id"].repeat(2, 0).repeat(2, 1).repeat(2, 2)
    write_small(tmp_path / "box.h5", datasets)
    with Simulation(tmp_path / "box.h5") as simulation:
        assert simulation.cell_mass == 8e10


@pytest.mark.parametrize("change, message", [
    ({"halo_id": np.zeros((4, 4, 5), np.int32)}, "halo_id has shape (4, 4, 5); it must be a cube"),
    ({"halo_id": np.full((4, 4, 4), 2, np.int32)}, "halo_id runs from 2 to 2; accepted are -1 (none) to 1"),
    ({"initial/delta": np.full((4, 4, 4), np.nan)}, "initial/delta has 64 values that are NaN or infinite"),
    ({"initial/delta": 1 + small()["initial/delta"]}, "initial/delta has the mean 1: expected is a density contrast"),
    ({"final/delta": np.ones((4, 4, 4))}, "final/delta has the mean 1: expected is a density contrast"),
    ({"final/position": np.full((64, 3), 5000.0)},
     "final/position runs from 5000 to 5000, and the box has 10 Mpc/h: is it in another unit?"),
    ({"halos/position": np.full((2, 3), -10.1)}, "halos/position runs from -10.1 to -10.1"),
    ({"galaxies/position": np.full((2, 3), 20.1)}, "galaxies/position runs from 20.1 to 20.1"),
    ({"initial/displacement": np.zeros((4, 4, 4))}, "initial/displacement has shape (4, 4, 4)"),
    ({"final/position": np.ones((60, 3))}, "there are 60 particles in final/..., and 64 in halo_id"),
    ({"final/position": np.ones(64)}, "final/position has shape (64,); expected (p, 3)"),
    ({"final/position": np.ones((64, 3)), "final/velocity": np.ones((8, 3))},
     "final/velocity has shape (8, 3); expected (64, 3)"),
    ({"final/delta": np.zeros((4, 4, 8))}, "final/delta has shape (4, 4, 8); it must be a cube"),
    ({"halos/velocity": np.ones((1, 3))}, "halos/velocity has shape (1, 3); expected (2, 3)"),
    ({"halos/initial_position": np.ones((2, 2))}, "halos/initial_position has shape (2, 2); expected (2, 3)"),
    ({"halos/mass": np.array(1e10)}, "halos/mass has shape (); expected (h,)"),
    ({"galaxies/position": np.zeros((3, 3)), "galaxies/mass": np.array(1.0)}, "galaxies/mass has no rows"),
    ({"halos/mass": np.array([8e10, 16e10])}, "halos/mass is not in descending order"),
    ({"halos/position": np.zeros((3, 3))}, "halos/position has shape (3, 3); expected (2, 3)"),
    ({"galaxies/position": np.zeros((3, 3)), "galaxies/mass": np.zeros(2)}, "galaxies/mass has 2 rows"),
    ({"galaxies/position": np.zeros((3, 3)), "galaxies/halo": np.array([0, 2, -1])},
     "galaxies/halo runs from -1 to 2; accepted are -1 (none) to 1, the last of 2 halos"),
    ({"galaxies/count": np.zeros((4, 4))}, "galaxies/count has shape (4, 4); it must be a cube"),
    ({"galaxies/count": np.zeros((4, 4, 4)), "final/delta": np.zeros((8, 8, 8))},
     "galaxies/count has shape (4, 4, 4); final/delta has (8, 8, 8)"),
    ({"galaxies/count": np.full((4, 4, 4), -1)}, "galaxies/count has cells of -1 galaxies; accepted are 0 and more"),
])
def test_inconsistent_data_are_named_and_not_written(tmp_path, change, message):
    with pytest.raises(DataError) as error:
        write_small(tmp_path / "box.h5", {**small(), **change})
    assert message in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_box_of_size_zero_is_refused(tmp_path):
    with pytest.raises(DataError, match="boxsize is 0; it must be positive"):
        write_small(tmp_path / "box.h5", small(), boxsize=0)
    with pytest.raises(DataError, match="boxsize is .*nan.*; it must be a finite number"):
        write_small(tmp_path / "box.h5", small(), boxsize=np.nan)


def test_a_missing_column_is_named(tmp_path):
    datasets = small()
    del datasets["halos/count"]
    with pytest.raises(DataError, match="halos/count is missing"):
        write_small(tmp_path / "box.h5", datasets)


def test_galaxies_may_be_a_catalogue_or_a_grid_or_none(tmp_path, invoke):
    columns = {"galaxies/position": np.zeros((5, 3)), "galaxies/halo": np.zeros(5, int), "galaxies/mass": np.ones(5)}
    gridded = {"final/delta": np.zeros((8, 8, 8)), "galaxies/count": np.full((8, 8, 8), 2)}
    nothing = {"galaxies/position": np.zeros((0, 3)), "galaxies/halo": np.zeros(0, int)}
    for datasets, shown in ((columns, "5, 0.005 per (Mpc/h)^3"), (gridded, "1024"), (nothing, "0, 0 per (Mpc/h)^3")):
        write_small(tmp_path / "box.h5", {**small(), **datasets}, overwrite=True)
        with Simulation(tmp_path / "box.h5") as simulation:
            assert simulation.problems() == []
        assert re.search(rf"galaxies +│ {re.escape(shown)} ", invoke("info", tmp_path / "box.h5").stdout)


def test_a_final_density_may_stand_without_an_initial_one(tmp_path, invoke):
    datasets = {"final/delta": np.zeros((8, 8, 8)), "galaxies/count": np.full((8, 8, 8), 2)}
    write_small(tmp_path / "box.h5", datasets)
    with Simulation(tmp_path / "box.h5", require=("final/delta",)) as simulation:
        assert simulation.problems() == []
    invoke("info", tmp_path / "box.h5")
    with pytest.raises(DataError, match="has no initial/delta; it holds final/delta"):
        Simulation(tmp_path / "box.h5")
    with pytest.raises(DataError, match="neither initial/delta nor final/delta"):
        write_small(tmp_path / "none.h5", {"galaxies/position": np.zeros((5, 3))})


def test_existing_files_stay_without_overwrite(tmp_path):
    write_small(tmp_path / "box.h5", small())
    before = (tmp_path / "box.h5").read_bytes()
    with pytest.raises(DataError, match="overwrite=True"):
        write_small(tmp_path / "box.h5", small(8))
    assert (tmp_path / "box.h5").read_bytes() == before
    write_small(tmp_path / "box.h5", small(8), overwrite=True)
    with Simulation(tmp_path / "box.h5") as simulation:
        assert simulation.gridsize == 8


def test_files_of_other_kinds_are_refused(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        Simulation(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("no")
    with pytest.raises(DataError, match="is not an HDF5 file"):
        Simulation(tmp_path / "text.h5")
    h5py.File(tmp_path / "other.h5", "w").close()
    with pytest.raises(DataError, match="is not a Simulation file"):
        Simulation(tmp_path / "other.h5")
    with pytest.raises(DataError, match="is a folder; give one of the files in it"):
        Simulation(tmp_path)


def test_damaged_files_are_named(tmp_path, invoke):
    path = tmp_path / "box.h5"
    write_small(path, small())
    with h5py.File(path, "a") as file:
        file.attrs["boxsize"] = "50 Mpc/h"
    with pytest.raises(DataError, match="box.h5: boxsize is '50 Mpc/h'; it must be a finite number"):
        Simulation(path)
    with h5py.File(path, "a") as file:
        file.attrs["boxsize"] = 50.0
        del file["cosmology"]
    with Simulation(path) as simulation:
        assert simulation.problems() == ["there is no cosmology"]
    with h5py.File(path, "a") as file:
        file.create_group("cosmology").attrs.update(Om0=0.3, h="0.7", sigma8=0.8, ns=1.0, Neff=3.04, name="another")
    with Simulation(path) as simulation:
        assert simulation.problems() == ["there is no Ob0, h in the cosmology"]
        with pytest.raises(DataError, match="box.h5 has no Ob0, h in the cosmology"):
            simulation.cosmology
    with h5py.File(path, "a") as file:
        file["cosmology"].attrs.update(Ob0=0.05, h=0.7)
        file["note"], file["nothing"] = 1.5, h5py.Empty("f4")
    with Simulation(path) as simulation:
        assert simulation.cosmology == Cosmology(Om0=0.3, Ob0=0.05, h=0.7, ns=1.0, sigma8=0.8)
        assert simulation.parameters["Neff"] == 3.04 and simulation.problems() == []
    invoke("info", path)
    with h5py.File(path, "a") as file:
        del file["halos/mass"]
        file["halos/mass"] = h5py.Empty("f4")
    assert "halos/mass has shape (); expected (h,)" in invoke("info", path, check=False).stderr
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="box.h5 is damaged or cut short: .*truncated file"):
        Simulation(path)


def test_what_is_required_and_missing_is_named(tmp_path):
    write_small(tmp_path / "box.h5", {"initial/delta": small()["initial/delta"]})
    with pytest.raises(MissingError, match="has no halo_id; it holds initial/delta"):
        Simulation(tmp_path / "box.h5", require=("initial/delta", "halo_id"))


def test_same_seed_same_file_and_info(boxes, tmp_path, invoke):
    invoke("simulate", tmp_path / "again.h5", "--particles", 32, "--boxsize", 25, "--seed", 8)
    with h5py.File(boxes[1]) as first, h5py.File(tmp_path / "again.h5") as second, h5py.File(boxes[0]) as other:
        names = []
        first.visititems(lambda name, item: names.append(name) if hasattr(item, "shape") else None)
        for name in names:
            np.testing.assert_array_equal(first[name], second[name])
        assert not np.array_equal(first["initial/delta"], other["initial/delta"])
    shown = invoke("info", boxes[0]).stdout
    assert "(32, 32, 32)" in shown and "cosmology Om0" in shown
    broken = shutil.copy(boxes[0], tmp_path / "broken.h5")
    with h5py.File(broken, "a") as file:
        file["halo_id"][0, 0, 0] = 10**6
    done = invoke("info", broken, check=False)
    assert done.returncode == 1 and "halo_id runs from -1 to 1000000" in done.stderr


def test_a_large_density_is_checked_a_few_layers_at_a_time():
    class Dataset:
        shape, dtype, sizes = (512, 512, 512), np.dtype("float32"), []

        def __getitem__(self, slab):
            part = np.broadcast_to(np.float32(0), (len(range(512)[slab]), 512, 512))
            self.sizes.append(part.size)
            return part

    check_mean(Dataset(), "delta")
    assert sum(Dataset.sizes) == 512**3 and max(Dataset.sizes) <= 2**22
