"""TIPSY: a real ChaNGa file, and tiny ones that are written here; damaged files, of Gadget-1 too."""

import tracemalloc
from datetime import timedelta
from unittest import mock

import hypothesis
import numpy as np
import pytest
from hypothesis import settings, strategies

from kerasgal.channels import initial_channels
from kerasgal.errors import DataError
from kerasgal.grid import deposit_cic
from kerasgal.readers import base, gadget_binary, tipsy
from kerasgal.readers.convert import write as convert
from kerasgal.simulation import Simulation


@pytest.fixture(scope="module", autouse=True)
def without_yt():
    """Damaged files are for our own readers: with yt, which is slow to import, they would have no deadline."""
    with mock.patch("kerasgal.readers.yt.is_installed", return_value=False):
        yield


GIVEN = {"boxsize": 16.0, "Om0": 0.3, "h": 0.7}
N = 8
LATTICE = np.stack(np.indices((N, N, N)), -1).reshape(-1, 3)
MOVE = 0.3 * np.sin(2 * np.pi * LATTICE / N + np.array([0.3, 1.1, 2.0]))  # cells


def write(path, position, velocity, byteorder=">", padding=True, time=0.02, gas=0, stars=0, masses=1.0):
    """One file, number after number as the format's manual has them; position in box sides from -1/2 to 1/2."""
    dark = np.zeros((len(position), 9))
    dark[:, 0], dark[:, 1:4], dark[:, 4:7] = masses, position, velocity
    numbers = [gas + len(dark) + stars, 3, gas, len(dark), stars] + [0] * padding
    path.write_bytes(np.array([time], byteorder + "f8").tobytes() + np.array(numbers, byteorder + "i4").tobytes()
                     + np.full((gas, 12), 0.25, byteorder + "f4").tobytes() + dark.astype(byteorder + "f4").tobytes()
                     + np.full((stars, 11), 0.25, byteorder + "f4").tobytes())
    return path


def lattice(folder, **arguments):
    return write(folder / "ics.tbin", (LATTICE + MOVE) / N - 0.5, np.arange(3 * N**3).reshape(-1, 3), **arguments)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("padding", [False, True])
@pytest.mark.parametrize("gas, stars", [(0, 0), (5, 3)])
def test_every_kind_of_header(tmp_path, monkeypatch, byteorder, padding, gas, stars):
    monkeypatch.setattr(base, "PARTICLES_AT_ONCE", 100)
    path = lattice(tmp_path, byteorder=byteorder, padding=padding, gas=gas, stars=stars)
    convert(tmp_path / "run.h5", initial=path, **GIVEN)
    with Simulation(tmp_path / "run.h5") as simulation:
        assert simulation.problems() == []
        assert (simulation.boxsize, simulation.redshift_initial, simulation.gridsize) == (16, 49, N)
        np.testing.assert_allclose(simulation["initial/displacement"][...].reshape(-1, 3), MOVE * 2, atol=1e-4)
        # H0 = 100 h km/s/Mpc is sqrt(8 pi / 3) in the file's units, of dx/dt.
        expected = np.arange(3 * N**3).reshape(-1, 3) * 16 * 100 / np.sqrt(8 * np.pi / 3) / 50
        np.testing.assert_allclose(simulation["initial/velocity"][...].reshape(-1, 3), expected, rtol=1e-5)


def test_initial_conditions_and_snapshot(tmp_path):
    first = lattice(tmp_path)
    last = write(tmp_path / "last.tbin", (LATTICE + 3 * MOVE) / N - 0.5, MOVE, time=1.0)
    summary = convert(tmp_path / "run.h5", initial=first, final=last, **GIVEN)
    assert summary["lattice"] == "particles in C order, lattice at (0.000, 0.000, 0.000) cells"
    with Simulation(tmp_path / "run.h5") as simulation:
        assert (simulation.redshift_initial, simulation.redshift_final) == (49, 0)
        expected = (LATTICE + 0.5 + 3 * MOVE) * 2 % 16
        np.testing.assert_allclose(simulation["final/position"][...], expected, atol=1e-4)


@pytest.mark.parametrize("particles", ["dark", "all", "gas"])
def test_field(tmp_path, particles):
    weight = np.random.default_rng(0).uniform(1, 2, N**3)
    path = lattice(tmp_path, masses=weight, gas=4, stars=2)
    convert(tmp_path / "run.h5", final=path, grid=4, particles=particles, **GIVEN)
    position, mass = (LATTICE + MOVE) / N % 1, weight
    if particles != "dark":  # those of gas and stars are all at 0.25, and so is their mass
        position = np.concatenate([position, np.full((6, 3), 0.75)])
        mass = np.append(weight * (particles == "all"), [0.25] * 4 + [0.25 * (particles == "all")] * 2)
    expected = deposit_cic(position, 4, 1.0, mass)
    with Simulation(tmp_path / "run.h5", require=()) as simulation:
        np.testing.assert_allclose(simulation["final/delta"][...], expected / expected.mean() - 1, atol=1e-4)


def test_real_file(shared_data, tmp_path):
    path = shared_data / "changa_cube300_ic" / "cube300.tbin"
    with pytest.raises(DataError) as error:
        convert(tmp_path / "run.h5", initial=path)
    assert str(error.value) == f"{path} has no BoxSize, HubbleParam in its header; give `boxsize`, `h`"
    summary = convert(tmp_path / "run.h5", initial=path, boxsize=210, Om0=0.3, h=0.7)
    assert summary["lattice"] == "particles in Fortran order, lattice at (0.000, 0.000, 0.000) cells"
    with Simulation(tmp_path / "run.h5") as simulation:
        assert simulation.problems() == [] and simulation.redshift_initial == pytest.approx(19)
        displacement, velocity = (simulation[f"initial/{name}"][...] for name in ("displacement", "velocity"))
        # Zel'dovich (1970): the velocity is a H f times the displacement; f is 1 to a part in a thousand.
        hubble = 100 * np.sqrt(0.3 * 20**3 + 0.7)
        np.testing.assert_allclose(velocity, displacement * hubble / 20, atol=1e-3 * velocity.std())
        # What a network is shown of the displacement, from the density, is the file's own.
        made = initial_channels(simulation.delta(), 210.0, ["displacement"])
        assert np.mean((made - displacement)**2) < 0.02**2 * np.mean(displacement**2)


NO_TIPSY = "is no snapshot that is read; accepted are .*TIPSY"
ERRORS = {
    "cut short": (lambda path: path.write_bytes(path.read_bytes()[:-1]), NO_TIPSY),
    "empty": (lambda path: path.write_bytes(b""), "is empty; accepted are .*TIPSY"),
    "one particle too few": (lambda path: path.write_bytes(path.read_bytes()[:-36]), NO_TIPSY),
    "no expansion factor": (lambda path: path.write_bytes(np.array(-1.0, ">f8").tobytes() + path.read_bytes()[8:]),
                            "has the time -1; accepted is an expansion factor"),
    "NaN": (lambda path: path.write_bytes(path.read_bytes()[:36] + b"\xff" * 4 + path.read_bytes()[40:]),
            "has positions that are NaN or infinite"),
    "far outside": (lambda path: path.write_bytes(path.read_bytes()[:36] + b"\x50" * 4 + path.read_bytes()[40:]),
                    "in a box of 1"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_error(tmp_path, name):
    damage, message = ERRORS[name]
    path = lattice(tmp_path)
    damage(path)
    with pytest.raises(DataError, match=message):
        convert(tmp_path / "run.h5", initial=path, **GIVEN)
    with pytest.raises(DataError, match=message):
        convert(tmp_path / "run.h5", final=path, grid=4, **GIVEN)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["ics.tbin"]


def test_no_such_particles(tmp_path):
    with pytest.raises(DataError, match="has no stars particles"):
        tipsy.read_header(lattice(tmp_path), "stars")


# Damage --------------------------------------------------------------------------------

# Whatever is wrong with a file, it is a DataError or a file that can be used. Memory is not to follow a damaged header:
# the largest array that is allocated is bounded by the size of the file.


def gadget_file(path):
    """Initial conditions in Gadget-1 binary of the same lattice."""
    header = np.zeros(1, gadget_binary.HEADER)
    header["counts"][0, 1], header["masses"][0, 1], header["files"] = N**3, 0.3 * 27.7536627 * 8, 1
    header["redshift"], header["boxsize"], header["Om0"], header["h"] = 49, 16, 0.3, 0.7
    blocks = [header.tobytes(), ((LATTICE + MOVE) * 2 % 16).astype("f4").tobytes(), MOVE.astype("f4").tobytes(),
              np.arange(N**3, dtype="u4").tobytes()]
    size = [np.array([len(block)], "u4").tobytes() for block in blocks]
    path.write_bytes(b"".join(marker + block + marker for marker, block in zip(size, blocks)))
    return path


def sound(kind, folder):
    """A sound file, and the arguments that convert it."""
    if kind == "tipsy":
        return lattice(folder), GIVEN
    return gadget_file(folder / "ics"), {"length_unit": "Mpc"}


WORD = strategies.integers(0, 74) | strategies.integers(0, 74) | strategies.integers(0, 3000)  # mostly in the header
NUMBER = (strategies.sampled_from([0, 1, 3, 2**24, 0x7FF0, 2**31 - 1, 2**31, 2**32 - 1])
          | strategies.integers(0, 2**32 - 1))
BIT = strategies.tuples(strategies.just("bit"), WORD, strategies.integers(0, 31))
VALUE = strategies.tuples(strategies.sampled_from("<>"), WORD, NUMBER)  # in either byte order
DAMAGE = (strategies.tuples(strategies.just("length"), strategies.integers(-20_000, 100))
          | strategies.lists(BIT | VALUE, min_size=1, max_size=3))


def damaged(content, damage):
    """A file's content cut short or made longer, or with some bits or whole numbers of four bytes changed."""
    if damage[0] == "length":
        return content + bytes(damage[1]) if damage[1] >= 0 else content[:damage[1]]
    words = np.frombuffer(content[:len(content) // 4 * 4], "<u4").copy()
    for how, word, value in damage:
        if how == "bit":
            words[word % len(words)] ^= np.uint32(1 << value)
        else:
            words[word % len(words)] = value if how == "<" else np.uint32(value).byteswap()
    return words.tobytes() + content[len(words) * 4:]


def outcome(path, output, arguments):
    """Convert a file that may be damaged: "written" or "refused"; raises AssertionError for anything else."""
    tracemalloc.start()
    try:
        with np.errstate(all="ignore"):
            convert(output, overwrite=True, **arguments)
        with Simulation(output, require=()) as simulation:
            assert simulation.problems() == []
        return "written"
    except DataError as error:
        assert len(str(error).splitlines()) == 1
        return "refused"
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 3e6  # the file has 20 kB


@pytest.mark.parametrize("kind, way", [
    ("gadget", "field"), ("tipsy", "particles"), pytest.param("gadget", "particles", marks=pytest.mark.slow),
    pytest.param("tipsy", "field", marks=pytest.mark.slow)])
def test_damaged_files(tmp_path, kind, way):
    path, given = sound(kind, tmp_path)
    arguments = {**given, **({"initial": path} if way == "particles" else {"final": path, "grid": 4})}
    assert outcome(path, tmp_path / "run.h5", arguments) == "written"
    content, outcomes = path.read_bytes(), set()

    # The same examples in every run: what fails is to be found again.
    @settings(max_examples=50, deadline=timedelta(seconds=10), derandomize=True,
              database=None)
    @hypothesis.given(DAMAGE)
    def check(damage):
        path.write_bytes(damaged(content, damage))
        outcomes.add(outcome(path, tmp_path / "run.h5", arguments))

    check()
    assert "refused" in outcomes
