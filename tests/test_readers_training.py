"""From somebody else's files to trained networks: a public Arepo run, and one of ours in the same layout."""

import json

import h5py
import numpy as np
import pytest

from kerasgal.simulation import Simulation

pytestmark = pytest.mark.usefixtures("eager")

PROTOHALO = ["--preset", "demo", "--patch", "16", "--margin", "2", "--batch", "2", "--epochs", "1", "--steps-per-epoch",
             "3", "--filters", "2"]
HALOMASS = ["--preset", "demo", "--samples", "200", "--validation-samples", "40", "--patch", "7", "--convolutions", "3",
            "--filters", "3", "--dense", "12", "--batch", "20", "--epochs", "1", "--steps-per-epoch", "5"]


def write_as_arepo(path, folder):
    """A Simulation file as Arepo leaves it: binary initial conditions, a snapshot sorted by group, a group file."""
    with Simulation(path) as simulation:
        n, boxsize = simulation.gridsize, simulation.boxsize
        lattice = (np.stack(np.indices((n, n, n)), -1).reshape(-1, 3) + 0.5) * boxsize / n
        start = (lattice + simulation["initial/displacement"][...].reshape(-1, 3)) % boxsize
        halo_id, mass = simulation["halo_id"][...].ravel(), simulation.particle_mass / 1e10
        Om0, h = simulation.cosmology.Om0, simulation.cosmology.h
        halos, final = simulation.halos(), simulation["final/position"][...].astype(float)
        redshift = simulation.redshift_initial
    blocks = [np.array([0, n**3, 0, 0, 0, 0], "<i4").tobytes()
              + np.array([0, mass, 0, 0, 0, 0, 1 / (1 + redshift), redshift], "<f8").tobytes()
              + np.array([0, 0, 0, n**3, 0, 0, 0, 0, 0, 1], "<i4").tobytes()
              + np.array([boxsize * 1000, Om0, 1 - Om0, h], "<f8").tobytes(),
              (start * 1000).astype("<f4").tobytes(), np.zeros((n**3, 3), "<f4").tobytes(),
              np.arange(1, n**3 + 1, dtype="<u4").tobytes()]
    blocks[0] = blocks[0].ljust(256, b"\0")
    marks = [np.uint32(len(block)).tobytes() for block in blocks]
    (folder / "ics").write_bytes(b"".join(mark + block + mark for mark, block in zip(marks, blocks)))
    order = np.argsort(np.where(halo_id < 0, len(halos["mass"]), halo_id), kind="stable")
    with h5py.File(folder / "snap_001.hdf5", "w") as file:
        file.create_group("Header").attrs.update(
            BoxSize=boxsize * 1000, Omega0=Om0, HubbleParam=h, MassTable=[0, mass, 0, 0, 0, 0], Redshift=0.0,
            UnitLength_in_cm=3.085678e21, NumFilesPerSnapshot=1, NumPart_ThisFile=[0, n**3, 0, 0, 0, 0])
        file["PartType1/Coordinates"], file["PartType1/ParticleIDs"] = final[order] * 1000, order + 1
        file["PartType1/Velocities"] = np.zeros((n**3, 3), np.float32)
    with h5py.File(folder / "fof_subhalo_tab_001.hdf5", "w") as file:
        file.create_group("Header").attrs.update(BoxSize=boxsize * 1000, NumFiles=1, Redshift=0.0,
                                                 Ngroups_ThisFile=len(halos["mass"]))
        file["Group/GroupMass"], file["Group/GroupPos"] = halos["mass"] / 1e10, halos["position"] * 1000.0
        file["Group/Group_R_Mean200"] = halos["radius"] * 1000.0
        file["Group/GroupLenType"] = np.eye(6, dtype=int)[1] * halos["count"][:, None]


@pytest.fixture(scope="module", params=["public", "own"])
def converted(request, tmp_path_factory, invoke):
    """(Simulation file converted in one command, masses of the haloes that it must have, halo_id or None)."""
    folder = tmp_path_factory.mktemp("converted")
    if request.param == "public":
        source = request.getfixturevalue("shared_data") / "arepo_L50n32"
        mass, halo_id = np.loadtxt(source / "Masses_L50n32_z0.txt"), None
    else:
        source, box = folder, request.getfixturevalue("boxes")[0]
        write_as_arepo(box, folder)
        with Simulation(box) as simulation:
            mass, halo_id = simulation["halos/mass"][...], simulation["halo_id"][...]
    invoke("convert", folder / "run.h5", "--initial", source / "ics", "--final", source / "snap_001.hdf5", "--groups",
           source / "fof_subhalo_tab_001.hdf5")
    return folder / "run.h5", mass, halo_id


def test_haloes_are_those_of_the_group_file(converted):
    path, mass, halo_id = converted
    with Simulation(path) as simulation:
        np.testing.assert_allclose(simulation["halos/mass"], mass, rtol=1e-4)
        found = simulation["halo_id"][...]
        assert np.array_equal(np.bincount(found[found >= 0]), simulation["halos/count"])
        assert halo_id is None or np.array_equal(found, halo_id)


def test_protohalo_trains_and_predicts(converted, tmp_path, invoke):
    path, mass, _ = converted
    invoke("protohalo", "train", path, *PROTOHALO, "--run", tmp_path / "run")
    invoke("protohalo", "predict", tmp_path / "run", path, "--output", tmp_path / "found.h5")
    with h5py.File(tmp_path / "found.h5") as file, Simulation(path) as simulation:
        assert file["distance"].shape == simulation["initial/delta"].shape and np.isfinite(file["distance"][...]).all()


def test_halomass_trains_and_predicts(converted, tmp_path, invoke):
    path, mass, _ = converted
    low, high = np.log10(mass.min()) - 0.1, np.log10(mass.max()) + 0.1
    invoke("halomass", "train", path, *HALOMASS, "--low", low, "--high", high, "--run", tmp_path / "run")
    invoke("halomass", "predict", tmp_path / "run", path, "--sample", 30, "--output", tmp_path / "found.h5")
    with h5py.File(tmp_path / "found.h5") as file:
        assert np.all((file["log_mass"][...] > low) & (file["log_mass"][...] < high))
        # What is true is read from the catalogue: each particle has the mass of one of its haloes.
        distance = np.abs(file["log_mass_true"][...][:, None] - np.log10(mass))
        assert distance.min(axis=1).max() < 1e-4
    assert json.loads((tmp_path / "run" / "provenance.json").read_text())["data"]["training"] == [str(path)]
