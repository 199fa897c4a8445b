"""The variational diffusion model of Kingma et al. 2021 (arXiv:2107.00630) in continuous time.

A field x is noised to z_t = alpha_t x + sigma_t noise, with alpha_t^2 = sigmoid(-gamma_t) and sigma_t^2 =
sigmoid(gamma_t), from gamma_0, where hardly any noise is in it, to gamma_1, where hardly anything else is. A denoiser
is a function from z and gamma to the noise that it believes to be in z; how well it does bounds the likelihood of the
field, and step by step it turns noise into a field.

Arrays are (batch, ..., channel), gamma is (batch,), and losses are (batch,) in nats. The samplers are plain arithmetic:
they take NumPy arrays as well as tensors.
"""

import math

from keras import ops


def alike(gamma, x):
    """gamma, (batch,), with as many axes as x."""
    return ops.reshape(gamma, (-1, *[1] * (len(x.shape) - 1)))


def alpha(gamma):
    """Share of the field in z (Eq. 4)."""
    return ops.sqrt(ops.sigmoid(-gamma))


def sigma(gamma):
    """Standard deviation of the noise in z (Eq. 3)."""
    return ops.sqrt(ops.sigmoid(gamma))


def diffuse(x, noise, gamma):
    """z: the field x with noise (Eq. 1)."""
    gamma = alike(gamma, x)
    return alpha(gamma) * x + sigma(gamma) * noise


def noise_of(output, z, gamma, prediction):
    """The noise in z by the output of a network that predicts "noise", as what is to be added to z, or "velocity".

    The latter is v = alpha noise - sigma x (Salimans & Ho 2022, arXiv:2202.00512).
    """
    if prediction == "noise":
        return z + output
    gamma = alike(gamma, z)
    return alpha(gamma) * output + sigma(gamma) * z


def antithetic_times(batch, offset):
    """Times for a batch, evenly spread over [0, 1): the low-variance sampler of App. I.1. offset: in [0, 1)."""
    return ops.mod(offset + ops.arange(batch, dtype="float32") / ops.cast(batch, "float32"), 1.0)


def prior_loss(x, gamma_1):
    """Kullback-Leibler divergence of z_1 from a standard normal. gamma_1: a number."""
    nats = 0.5 * (ops.sigmoid(-gamma_1) * (ops.square(x) - 1) + ops.softplus(-gamma_1))
    return total(nats)


def diffusion_loss(noise, predicted, slope):
    """One draw of the diffusion loss at a time t where gamma has the given slope, (batch,) (Eq. 17)."""
    return 0.5 * slope * total(ops.square(noise - predicted))


def velocity_weight(gamma):
    """What makes of the diffusion loss one that weighs errors of v alike at all gamma: 1 / alpha^2 (Sec. 5.2)."""
    return 1 + ops.exp(gamma)


def reconstruction_loss(x, noise, gamma_0, levels=None):
    """-ln p(x | z_0) for z_0 = alpha_0 x + sigma_0 noise. gamma_0: a number.

    levels: the values that x can take, (k,): p is then a probability, each value's share in proportion to q(z_0 | x),
    as in Sec. 3.3. Without them p is a density, normal about z_0 / alpha_0.
    """
    if levels is None:
        return total(0.5 * ops.square(noise) + 0.5 * math.log(2 * math.pi) + 0.5 * gamma_0 + ops.zeros_like(x))
    seen = x + ops.exp(0.5 * gamma_0) * noise  # z_0 / alpha_0
    away = -0.5 * ops.exp(-gamma_0) * ops.square(ops.expand_dims(seen, -1) - levels)
    return total(ops.logsumexp(away, axis=-1) + 0.5 * ops.square(noise))


def total(nats):
    """Sum over all axes but the first."""
    return ops.sum(ops.reshape(nats, (ops.shape(nats)[0], -1)), axis=1)


def bound(x, denoise, schedule, times, noise, noise_0, levels=None):
    """The three parts of the bound on -ln p(x) (Eq. 11): prior, reconstruction, diffusion, (batch,) each, in nats.

    denoise: function of z and gamma; schedule: function of times, (batch,), to gamma and its slope; noise, noise_0:
    standard normal, like x, for the diffusion and for the reconstruction. The diffusion loss is one draw: its mean over
    times is what counts.
    """
    ends, _ = schedule(ops.convert_to_tensor([0.0, 1.0]))
    gamma, slope = schedule(times)
    predicted = denoise(diffuse(x, noise, gamma), gamma)
    return (prior_loss(x, ends[1]), reconstruction_loss(x, noise_0, ends[0], levels),
            diffusion_loss(noise, predicted, slope))


def parts(gamma):
    """alpha and sigma as plain numbers, which leave an array's or a tensor's type as it is."""
    return (1 + math.exp(gamma))**-0.5, (1 + math.exp(-gamma))**-0.5


def ancestral(denoise, gammas, z, noise, settle=None):
    """Draw a field from noise by ancestral sampling (Eq. 34): z_0 / alpha_0.

    denoise: function of z and gamma, a number; gammas: (steps + 1,) from gamma_1 down to gamma_0; z: standard normal;
    noise: function of the step to standard normal numbers like z. settle: function of the expected field, the one that
    the step would lead towards, the one expected before, None at first, and the noise in z / alpha, to the field that
    it leads towards.
    """
    return _steps(denoise, gammas, z, noise, settle, second=False)


def multistep(denoise, gammas, z, noise, settle=None):
    """Draw a field from noise as `ancestral` does, to second order: z_0 / alpha_0.

    By the second-order multistep solver SDE-DPM-Solver++(2M) (Lu et al. 2022, arXiv:2211.01095, App. B): a step of
    `ancestral` towards the field that this and the last one point to. Arguments as in `ancestral`.
    """
    return _steps(denoise, gammas, z, noise, settle, second=True)


def _steps(denoise, gammas, z, noise, settle, second):
    """`ancestral` and `multistep`: z_s is normal about a mean of z_t and of the field that the step leads towards."""
    before = last = None
    for step, (above, below) in enumerate(zip(gammas[:-1], gammas[1:])):
        (alpha_t, sigma_t), (alpha_s, sigma_s) = parts(above), parts(below)
        field = (z - sigma_t * denoise(z, above)) / alpha_t
        width = (above - below) / 2  # of the step in ln(alpha / sigma)
        ahead = field + (field - before) * (width / last / 2) if second and step else field
        if settle:
            ahead = settle(field, ahead, before, sigma_t / alpha_t)
        share = -math.expm1(below - above)
        z = (alpha_t / alpha_s) * (sigma_s / sigma_t)**2 * z + alpha_s * share * ahead \
            + sigma_s * math.sqrt(share) * noise(step)
        before, last = field, width
    return z / parts(gammas[-1])[0]


def together(gammas, noise):
    """What several steps of the noise of `ancestral` and `multistep` are to one step that is as long: standard normal.

    gammas: (steps + 1,), falling, of these steps; noise: of each, (steps, ...).
    """
    parts = [math.exp((gammas[-1] - below) / 2) * math.sqrt(-math.expm1(below - above)) * one
             for above, below, one in zip(gammas[:-1], gammas[1:], noise)]
    return sum(parts) / math.sqrt(-math.expm1(gammas[-1] - gammas[0]))


def deterministic(denoise, gammas, z):
    """The field that the probability flow makes of the noise z: z_0 / alpha_0.

    By the second-order multistep solver DPM-Solver++(2M) (Lu et al. 2022, arXiv:2211.01095, Alg. 2); its first step is
    that of DDIM. Arguments as in `ancestral`.
    """
    before = last = None
    for above, below in zip(gammas[:-1], gammas[1:]):
        (alpha_t, sigma_t), (alpha_s, sigma_s) = parts(above), parts(below)
        field = (z - sigma_t * denoise(z, above)) / alpha_t
        width = (above - below) / 2  # of the step in ln(alpha / sigma)
        ahead = field if before is None else field + (field - before) * (width / last / 2)
        z = (sigma_s / sigma_t) * z - alpha_s * math.expm1(-width) * ahead
        before, last = field, width
    return z / parts(gammas[-1])[0]
