"""Parameters under all their usual names, in tables and headers; what contradicts, and what is not used."""

import h5py
import numpy as np
import pytest

from kerasgal.errors import DataError
from kerasgal.readers import base
from kerasgal.readers.convert import convert
from kerasgal.readers.parameters import read_parameters


def table(folder, names, *values, before=""):
    path = folder / "params.txt"
    path.write_text(f"{before}#{names}\n{' '.join(map(str, values))}\n")
    return path


@pytest.mark.parametrize("names, ours", [
    (("Omega_m", "Omega0", "Omega_matter", "Omega_Matter", "OmegaM", "Om0", "Om", "OMEGA_M"), "Om0"),
    (("Omega_b", "OmegaBaryon", "Omega_Baryon", "OmegaB", "omega_baryon", "Ob0"), "Ob0"),
    (("h", "HubbleParam", "H0", "h0", "hubble_constant", "little_h"), "h"),
    (("n_s", "ns", "PrimordialIndex", "spectral_index"), "ns"),
    (("sigma_8", "sigma8", "Sigma8", "SIGMA_8"), "sigma8")])
def test_usual_names_in_tables(tmp_path, names, ours):
    for name in names:
        assert read_parameters(table(tmp_path, name + " A_SN1", 0.5, 2), 0) == {ours: 0.5, "A_SN1": 2}
    assert read_parameters(table(tmp_path, "H0 A", 67.11, 2), 0)["h"] == pytest.approx(0.6711)


def test_columns_of_quijote(tmp_path):
    path = table(tmp_path, "   Omega_m   Omega_b   h   n_s   sigma_8", 0.1755, 0.06681, 0.7737, 0.8849, 0.6641)
    assert read_parameters(path, 0) == {"Om0": 0.1755, "Ob0": 0.06681, "h": 0.7737, "ns": 0.8849, "sigma8": 0.6641}


@pytest.mark.parametrize("before", ["#\n", "# a table\n#\n\n", "# Latin hypercube, made in 2024, of three\n"])
def test_comments_before_the_names(tmp_path, before):
    assert read_parameters(table(tmp_path, "Name Omega_m seed", "LH_0", 0.3, 7, before=before), 0) == {"Om0": 0.3}


def test_a_table_that_contradicts_itself(tmp_path):
    with pytest.raises(DataError, match="row 0, contradicts itself: Omega_m = 0.3, Omega0 = 0.31"):
        read_parameters(table(tmp_path, "Omega_m Omega0", 0.3, 0.31), 0)
    with pytest.raises(DataError, match="says Omega_m = 0.3 and OmegaLambda = 0.6, which are no flat universe"):
        read_parameters(table(tmp_path, "Omega_m OmegaLambda", 0.3, 0.6), 0)
    assert read_parameters(table(tmp_path, "Omega_m OmegaLambda", 0.3, 0.7), 0) == {"Om0": 0.3, "OmegaLambda": 0.7}
    with pytest.raises(DataError, match="Omega_m is nan in row 0; accepted is a number"):
        read_parameters(table(tmp_path, "Omega_m", "nan"), 0)


def test_what_is_said_and_not_used_is_said(tmp_path, caplog):
    found = read_parameters(table(tmp_path, "Omega_m M_nu w omega_b", 0.3, 0.4, -0.9, 0.022), 0)
    assert found == {"Om0": 0.3, "M_nu": 0.4, "w": -0.9, "omega_b": 0.022}
    message, = (record.getMessage() for record in caplog.records)
    assert "row 0, says M_nu = 0.4, w = -0.9, omega_b = 0.022, which is recorded at most" in message
    caplog.clear()
    read_parameters(table(tmp_path, "Omega_m M_nu w", 0.3, 0, -1), 0)
    assert not caplog.records


def write_snapshot(path, **header):
    """512 particles in 20 Mpc/h."""
    stated = {"BoxSize": 20.0, "Omega0": 0.3, "HubbleParam": 0.7, "Redshift": 0.0,
              "MassTable": [0, 0.3 * 27.7536627 * 20**3 / 512, 0, 0, 0, 0],
              "NumPart_ThisFile": [0, 512, 0, 0, 0, 0], "UnitLength_in_cm": 3.085678e24} | header
    with h5py.File(path, "w") as file:
        file.create_group("Header").attrs.update({name: value for name, value in stated.items() if value is not None})
        file["PartType1/Coordinates"] = np.random.default_rng(0).uniform(0, 20, (512, 3))
    return path


@pytest.mark.parametrize("name, ours", [("Omega_Baryon", "Ob0"), ("OmegaBaryon", "Ob0"), ("Sigma8", "sigma8"),
                                        ("PrimordialIndex", "ns")])
def test_usual_names_in_headers(tmp_path, name, ours):
    path = write_snapshot(tmp_path / "snap.hdf5", **{name: 0.12})
    assert base.open_snapshot(path).cosmology == {"Om0": 0.3, "h": 0.7, ours: 0.12}
    made = convert(final=path, grid=4)
    assert getattr(made.cosmology, ours) == 0.12 and f"{ours} = " not in made.file.attrs["source"]
    with pytest.raises(DataError, match=f"= 0.12, {ours}=0.2"):
        convert(final=path, grid=4, **{ours: 0.2})


def test_the_hubble_rate_in_internal_units_is_no_h(tmp_path):
    """Gadget-4 and MP-Gadget have a number Hubble of 0.1."""
    assert base.open_snapshot(write_snapshot(tmp_path / "snap.hdf5", Hubble=0.1)).cosmology["h"] == 0.7


def test_headers_that_contradict_themselves(tmp_path):
    with pytest.raises(DataError, match="contradicts itself"):
        base.open_snapshot(write_snapshot(tmp_path / "snap.hdf5", Omega_Matter=0.25))
    with pytest.raises(DataError, match="which are no flat universe"):
        base.open_snapshot(write_snapshot(tmp_path / "snap.hdf5", OmegaLambda=0.3))


def test_a_table_that_contradicts_the_snapshot(tmp_path):
    path = write_snapshot(tmp_path / "snap.hdf5", OmegaBaryon=0.05)
    for names, values, message in (("Omega_m", 0.25, "says Omega0 = 0.3, Om0=0.25"),
                                   ("Omega_b", 0.04, "says OmegaBaryon = 0.05, Ob0=0.04")):
        with pytest.raises(DataError, match=message):
            convert(final=path, grid=4, parameter_table=table(tmp_path, names, values), index=0)
    made = convert(final=path, grid=4, parameter_table=table(tmp_path, "Omega_m Omega_b n_s A", 0.3, 0.05, 0.95, 3),
                   index=0)
    assert made.parameters["ns"] == 0.95 and made.parameters["A"] == 3
