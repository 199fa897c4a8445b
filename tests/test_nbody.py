import tracemalloc

import numpy as np
import pytest
import scipy.fft
from colossus.cosmology import cosmology as colossus_cosmology
from colossus.lss.mass_function import massFunction
from scipy.integrate import solve_ivp

import kerasgal as kg
from kerasgal import nbody
from kerasgal.cosmology import PLANCK_2018, Cosmology, growth_factor, linear_power, mean_density
from kerasgal.errors import DataError, SettingError
from kerasgal.grid import density_contrast, interpolate_cic, lattice
from kerasgal.halos import friends_of_friends
from kerasgal.run import check_once
from kerasgal.run_folder import told_of
from kerasgal.statistics import mass_function, power_spectrum

BOXSIZE = 50.0
FUNDAMENTAL = 2 * np.pi / BOXSIZE


@pytest.fixture(scope="module")
def runs():
    """Two pairs of boxes, with particles of 4e10 Msun/h.

    Fixed amplitudes, and each field with both signs, cancel much of the scatter between small boxes
    (Angulo & Pontzen 2016, arXiv:1603.05253).
    """
    fields = [nbody.gaussian_field(64, BOXSIZE, PLANCK_2018, seed, fixed_amplitude=True) for seed in (0, 1)]
    return [nbody.evolve(sign * delta, BOXSIZE) for delta in fields for sign in (1, -1)]


def plane_wave(particles, wave, amplitude):
    """amplitude * cos(k x + 1) on the cells' centres, its phase k x + 1, and the wavevector k, (3,)."""
    k = FUNDAMENTAL * np.array(wave)
    phase = lattice(particles, BOXSIZE).astype(float) @ k + 1
    return amplitude * np.cos(phase), phase, k


def test_fixed_amplitudes_are_the_linear_power_mode_by_mode():
    delta = nbody.gaussian_field(24, BOXSIZE, PLANCK_2018, seed=1, fixed_amplitude=True)
    assert delta.dtype == np.float32 and delta.shape == (24, 24, 24)
    power = np.abs(np.fft.fftn(delta))**2 * BOXSIZE**3 / 24**6
    frequency = FUNDAMENTAL * np.fft.fftfreq(24, 1 / 24)
    k = np.sqrt(frequency[:, None, None]**2 + frequency[:, None]**2 + frequency**2)
    k[0, 0, 0] = 1
    ratio = power / linear_power(PLANCK_2018, k)
    assert ratio[0, 0, 0] < 1e-6
    np.testing.assert_allclose(ratio.ravel()[1:], 1, rtol=1e-3)


def test_fixed_amplitudes_have_the_linear_power_in_every_shell():
    delta = nbody.gaussian_field(32, BOXSIZE, PLANCK_2018, seed=1, fixed_amplitude=True)
    k, power, _ = power_spectrum(delta, BOXSIZE)
    # The first shells are so wide that their mean power is not the power at their mean wavenumber.
    np.testing.assert_allclose(power[5:], linear_power(PLANCK_2018, k[5:]), rtol=0.01)


def test_random_amplitudes_scatter_about_the_linear_power():
    delta = nbody.gaussian_field(64, BOXSIZE, PLANCK_2018, seed=2)
    k, power, n_modes = power_spectrum(delta, BOXSIZE)
    deviation = (power[3:] / linear_power(PLANCK_2018, k[3:]) - 1) / np.sqrt(2 / n_modes[3:])
    assert np.abs(deviation).max() < 4
    assert 0.4 < (deviation**2).mean() < 2
    assert abs((delta**3).mean()) < 0.05 * (delta**2).mean()**1.5


def test_first_order_displacement_of_a_plane_wave():
    delta, phase, k = plane_wave(16, (1, -2, 3), 0.1)
    # delta = -div s1
    expected = -0.1 * np.sin(phase)[..., None] * k / (k @ k)
    np.testing.assert_allclose(nbody.displacement_1lpt(delta, BOXSIZE), expected, atol=1e-5)


@pytest.mark.parametrize("wave", [(1, 0, 0), (1, -2, 3), (0, 8, 0)])  # the last at the Nyquist wavenumber
def test_second_order_displacement_of_a_plane_wave_vanishes(wave):
    delta, _, _ = plane_wave(16, wave, 1.0)
    np.testing.assert_allclose(nbody.displacement_2lpt(delta, BOXSIZE), 0, atol=1e-5)


@pytest.mark.parametrize("waves", [((1, 0, 0), (0, 1, 0)), ((1, 1, 0), (0, 1, -2)), ((2, 0, 1), (1, 1, 2))])
def test_second_order_displacement_of_two_plane_waves(waves):
    (first, alpha, k), (second, beta, p) = (plane_wave(16, wave, 0.5) for wave in waves)
    # Laplacian phi2 = 1/4 (1 - mu^2) cos(alpha) cos(beta), with mu the cosine between the waves
    mu = k @ p / np.sqrt((k @ k) * (p @ p))
    expected = sum(
        0.25 * (1 - mu**2) / 2 * np.sin(phase)[..., None] * q / (q @ q)
        for phase, q in ((alpha + beta, k + p), (alpha - beta, k - p)))
    np.testing.assert_allclose(nbody.displacement_2lpt(first + second, BOXSIZE), expected, atol=1e-5)
    assert np.abs(expected).max() > 0.05


def test_growth_outside_of_its_range_is_refused():
    growth = nbody.growth_history(Cosmology())
    assert growth(1 / 1000).D1 > 0 and growth(1 + 1e-6).D1 == pytest.approx(1, rel=1e-5)
    for a, words in ((1 / 1500, "redshift 999 to 0, received 1499"), (2.0, "received -0.5"), (np.nan, "received nan")):
        with pytest.raises(DataError, match=words):
            growth(a)
    for redshift in (600.0, -1.0, np.nan):
        with pytest.raises(DataError, match=f"up to redshift 500, received {redshift:g}"):
            growth_factor(Cosmology(), [1.0, redshift])


def test_growth_of_an_einstein_de_sitter_universe():
    growth = nbody.growth_history(Cosmology(Om0=1.0))
    for a in (0.02, 0.3, 1.0):
        now, today = growth(a), growth(1.0)
        np.testing.assert_allclose(
            now[:4], [a, a**1.5, -3 / 7 * a**2, -6 / 7 * a**2.5], rtol=1e-6)
        assert today.drift - now.drift == pytest.approx(2 * a**-0.5 - 2, abs=1e-6)
        assert today.kick - now.kick == pytest.approx(3 - 3 * a**0.5, abs=1e-6)


def test_growth_of_our_universe():
    growth = nbody.growth_history(PLANCK_2018)
    for z in (0.0, 1.0, 9.0, 19.0):
        now = growth(1 / (1 + z))
        assert now.D1 == pytest.approx(growth_factor(PLANCK_2018, z), rel=5e-4)
        Om = PLANCK_2018.Om0 * (1 + z)**3 / (PLANCK_2018.Om0 * (1 + z)**3 + 1 - PLANCK_2018.Om0)
        assert now.D2 == pytest.approx(-3 / 7 * now.D1**2 * Om**(-1 / 143), rel=2e-3)
        # Q = a^3 E; d ln D / d ln a = Om(z)^0.55 to half a percent (Linder 2005, astro-ph/0507263)
        Q = np.sqrt(PLANCK_2018.Om0 / (1 + z)**3 + (1 - PLANCK_2018.Om0) / (1 + z)**6)
        assert now.p1 / (Q * (1 + z) * now.D1) == pytest.approx(Om**0.55, rel=6e-3)
        assert now.p2 / (Q * (1 + z) * now.D2) == pytest.approx(2 * Om**(6 / 11), rel=0.01)


def test_plane_wave_follows_zeldovich_to_the_eve_of_shell_crossing():
    # In one dimension Zel'dovich's solution is exact until shells cross, at D1 amplitude = 1.
    delta, phase, k = plane_wave(32, (2, 0, 0), 0.8)
    run = nbody.evolve(delta.astype(np.float32), BOXSIZE)
    s1 = (-0.8 * np.sin(phase)[..., None] * k / (k @ k)).reshape(-1, 3)
    offset = run.position - lattice(32, BOXSIZE).reshape(-1, 3)
    offset -= BOXSIZE * np.rint(offset / BOXSIZE)
    np.testing.assert_allclose(offset, s1, atol=0.03 * np.abs(s1).max())
    # The peculiar velocity is f H0 s1 at z=0; f = Om0^0.55
    velocity = 100 * PLANCK_2018.Om0**0.55 * s1
    np.testing.assert_allclose(run.velocity, velocity, atol=0.06 * np.abs(velocity).max())
    growth = growth_factor(PLANCK_2018, 19.0)
    np.testing.assert_allclose(run.delta, growth * delta, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(run.displacement.reshape(-1, 3), growth * s1, atol=1e-4)
    assert run.redshift_initial == pytest.approx(19)


def test_cola_agrees_with_newtons_equation():
    # The full comoving equation of motion, without any of COLA's splitting, by an adaptive integrator:
    # x'' + (2 + dlnE/dlna) x' = 3/2 Om(a) g, where ' = d/dlna
    particles, Om0 = 16, PLANCK_2018.Om0
    delta = nbody.gaussian_field(particles, BOXSIZE, PLANCK_2018, seed=4)
    run = nbody.evolve(delta, BOXSIZE)

    def slope(log_a, state):
        position, velocity = state.reshape(2, -1, 3)
        Om = Om0 / (Om0 + (1 - Om0) * np.exp(3 * log_a))
        force = nbody.gravity(position.astype(np.float32), 2 * particles, BOXSIZE)
        return np.stack([velocity, 1.5 * Om * force - (2 - 1.5 * Om) * velocity]).ravel()

    # At a = 0.05 the growth is that of a universe of matter only: D1 ~ a, D2 ~ a^2.
    first_order = growth_factor(PLANCK_2018, 19.0) * nbody.displacement_1lpt(delta, BOXSIZE)
    second_order = run.displacement - first_order
    start = np.stack([lattice(particles, BOXSIZE) + run.displacement, first_order + 2 * second_order])
    end = solve_ivp(slope, (np.log(0.05), 0), start.ravel(), rtol=1e-4, atol=1e-4).y[:, -1].reshape(2, -1, 3)
    offset = run.position - end[0]
    offset -= BOXSIZE * np.rint(offset / BOXSIZE)
    travelled = end[0] - lattice(particles, BOXSIZE).reshape(-1, 3)
    assert offset.std() < 0.01 * travelled.std()
    assert (run.velocity - 100 * end[1]).std() < 0.03 * run.velocity.std()


@pytest.mark.parametrize("n", [7, 12, 30, 64])
def test_transforms_in_place_are_scipys(n):
    real = np.random.default_rng(n).standard_normal((n, n, n), dtype=np.float32)
    expected = scipy.fft.rfftn(real)
    modes = nbody._modes_into(np.empty_like(expected), real)
    np.testing.assert_allclose(modes, expected, atol=1e-5 * np.abs(expected).max())
    back = nbody._real(modes, real.shape)
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, real, atol=1e-5)


@pytest.mark.parametrize("kind, n", [("f4", 16), ("f8", 16), ("f4", 4)])
def test_forces_are_those_of_arrays(kind, n):
    """Of particles all over the box and outside it, on a mesh so coarse that all faces count."""
    position = np.random.default_rng(0).uniform(-BOXSIZE, 2 * BOXSIZE, (500, 3)).astype(kind)
    k = 2 * np.pi * np.fft.fftfreq(n, BOXSIZE / n)
    kx, ky, kz = np.meshgrid(k, k, k, indexing="ij")
    squared = kx**2 + ky**2 + kz**2
    squared[0, 0, 0] = np.inf
    window = np.prod(np.sinc(np.array([kx, ky, kz]) * BOXSIZE / n / (2 * np.pi)), axis=0)**2
    phi = np.fft.ifftn(-np.fft.fftn(density_contrast(position, n, BOXSIZE)) / squared / window).real
    slopes = [(8 * (np.roll(phi, -1, axis) - np.roll(phi, 1, axis)) - np.roll(phi, -2, axis) + np.roll(phi, 2, axis))
              / (12 * BOXSIZE / n) for axis in range(3)]
    force = nbody.gravity(position, n, BOXSIZE)
    expected = -interpolate_cic(np.stack(slopes, axis=-1), position, BOXSIZE)
    assert force.dtype == kind and force.shape == (500, 3)
    np.testing.assert_allclose(force, expected, atol=1e-4 * expected.std())


def test_forces_on_a_mesh_are_the_gradient_of_a_plane_wave():
    """Of many particles that are displaced a little, by the Zel'dovich displacement and its density contrast."""
    delta, phase, k = plane_wave(32, (1, -2, 1), 0.05)
    s1 = -0.05 * np.sin(phase)[..., None] * k / (k @ k)
    position = (lattice(32, BOXSIZE) + s1).reshape(-1, 3).astype(np.float32)
    force = nbody.gravity(position, 64, BOXSIZE)
    np.testing.assert_allclose(force, s1.reshape(-1, 3), atol=0.06 * np.abs(s1).max())


def test_a_run_takes_memory_for_its_mesh_and_particles_and_no_more():
    nbody.simulate(8, BOXSIZE, steps=1)  # compiled before it is measured
    tracemalloc.start()
    nbody.simulate(48, BOXSIZE, steps=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # The mesh: 8 cells a particle, one real field and two complex ones that are half as large. Of particles: seven
    # vectors (s1, s2, displacement, position, momentum, force, and one on the way), density contrast and weight.
    assert peak < 1.1 * 48**3 * 4 * (8 * 3 * (1 + 2 / 96) + 7 * 3 + 2)


def test_large_scales_grow_linearly():
    boxsize = 1000.0
    delta = nbody.gaussian_field(48, boxsize, PLANCK_2018, seed=0, fixed_amplitude=True)
    run = nbody.evolve(delta, boxsize)
    # Both with the same cloud-in-cell window, which cancels
    initial = density_contrast((lattice(48, boxsize) + run.displacement).reshape(-1, 3), 48, boxsize)
    final = density_contrast(run.position, 48, boxsize)
    bins = np.array([0.5, 2.5, 4.5]) * 2 * np.pi / boxsize
    ratio = power_spectrum(final, boxsize, bins)[1] / power_spectrum(initial, boxsize, bins)[1]
    np.testing.assert_allclose(ratio, 1 / growth_factor(PLANCK_2018, 19.0)**2, rtol=0.02)


def test_momentum_is_conserved(runs):
    for run in runs:
        assert np.abs(run.velocity.mean(0, dtype=float)).max() < 1e-5 * run.velocity.std()


def test_run_is_complete(runs):
    for run in runs:
        assert run.delta.shape == (64, 64, 64) and run.displacement.shape == (64, 64, 64, 3)
        assert run.position.shape == run.velocity.shape == (64**3, 3)
        assert all(x.dtype == np.float32 for x in (run.delta, run.displacement, run.position, run.velocity))
        assert (run.position >= 0).all() and (run.position < BOXSIZE).all()


def test_haloes_are_as_many_as_watson_et_al_found(runs):
    # Watson et al. 2013 (arXiv:1212.0095), for friends-of-friends haloes of 50 to 1000 particles. Their
    # number in a pair of boxes scatters by 5, 5 and 10% in the three bins (measured with 10 pairs). Another
    # 10% are for the method: on average the three bins came out at 1.04, 1.09 and 1.13 of Watson's number.
    colossus_cosmology.setCosmology(
        "watson", flat=True, H0=67.66, Om0=0.3111, Ob0=0.049, sigma8=0.8102, ns=0.9665, persistence="")
    particle_mass = mean_density(PLANCK_2018) * (BOXSIZE / 64)**3
    edges = np.array([50, 100, 200, 1000]) * particle_mass
    halo_ids = [friends_of_friends(run.position, BOXSIZE) for run in runs]
    mass = particle_mass * np.concatenate([np.bincount(h[h >= 0]) for h in halo_ids])
    found, _ = mass_function(mass, edges, len(runs) * BOXSIZE**3)
    expected = []
    for low, high in zip(edges[:-1], edges[1:]):
        fine = np.geomspace(low, high, 100)
        dn_dlnM = massFunction(fine, 0.0, mdef="fof", model="watson13", q_out="dndlnM")
        expected.append(dn_dlnM.mean() * np.log(10))
    tolerance = 0.1 + 3 * np.array([0.05, 0.05, 0.10]) / np.sqrt(len(runs) / 2)
    ratio = found / expected
    assert (np.abs(ratio - 1) < tolerance).all(), ratio


def test_seed_decides_everything():
    first, again, other = (nbody.simulate(16, BOXSIZE, seed=seed, steps=3) for seed in (7, 7, 8))
    for name in ("delta", "displacement", "position", "velocity"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
        assert np.abs(getattr(first, name) - getattr(other, name)).mean() > 0.01


def test_progress_is_called_after_each_step():
    calls = []
    nbody.simulate(8, BOXSIZE, steps=3, progress=lambda *call: calls.append(call))
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_settings_out_of_range_are_refused():
    delta = np.zeros((4, 4, 4), np.float32)
    for a_initial, steps in ((0.0, 20), (1.0, 20), (0.05, 0)):
        with pytest.raises(ValueError, match="a_initial"):
            nbody.evolve(delta, BOXSIZE, steps=steps, a_initial=a_initial)
    with pytest.raises(ValueError, match=r"\(4, 4, 3\)"):
        nbody.evolve(delta[:, :, :3], BOXSIZE)


def test_boxes_of_one_seed_and_several_cosmologies_are_not_called_the_same():
    boxes = [kg.simulate(particles=8, boxsize=12.5, seed=3, steps=2, cosmology=cosmology)
             for cosmology in (None, kg.Cosmology(), kg.Cosmology(Om0=0.3), kg.Cosmology(Om0=0.3, sigma8=0.9))]
    assert boxes[0].path == boxes[1].path == ("kerasgal simulate: 8^3 particles in 12.5 Mpc/h, 2LPT and COLA, 2 steps, "
                                              "seed 3, fof haloes of at least 20")
    check_once(boxes[1:])
    assert "12.5 Mpc/h, Om0 0.3, sigma8 0.9, 2LPT" in told_of(boxes[3].path)
    with pytest.raises(SettingError, match="is given twice"):
        check_once(boxes)


def test_a_simulation_with_a_finer_mesh_is_that_of_the_mesh_and_says_so():
    box = kg.simulate(particles=16, boxsize=12.5, seed=3, steps=4, mesh=3)
    run = nbody.simulate(16, 12.5, seed=3, steps=4, mesh_factor=3)
    np.testing.assert_array_equal(box["final/position"][...], run.position)
    assert not np.array_equal(run.position, nbody.simulate(16, 12.5, seed=3, steps=4).position)
    assert "4 steps, a mesh of 3 cells per particle and side, seed 3" in box.file.attrs["source"]
    with pytest.raises(SettingError, match="mesh=0: it must be a whole number of at least 1"):
        kg.simulate(particles=16, mesh=0)
