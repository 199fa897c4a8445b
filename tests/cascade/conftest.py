"""Small simulations with painted galaxies, made once."""

import pytest


@pytest.fixture(scope="session")
def painted(tmp_path_factory, kerasgal):
    """Three simulations of 32^3 particles in 12.5 Mpc/h with painted galaxies."""
    folder = tmp_path_factory.mktemp("painted")
    kerasgal("simulate", folder / "box.h5", "--particles", 32, "--boxsize", 12.5, "--realisations", 3, "--seed", 5,
             "--galaxies")
    return [folder / f"box_{number}.h5" for number in range(3)]
