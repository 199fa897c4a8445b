"""The network applied to particles of a simulation: predicted halo masses."""

import os

import numpy as np

from kerasgal import workers
from kerasgal.apps.halomass import data
from kerasgal.apps.halomass.losses import LIKELIHOODS
from kerasgal.apps.halomass.model import cnn, perceptron
from kerasgal.apps.halomass.regularizers import convolution_prior, dense_prior
from kerasgal.channel_names import count
from kerasgal.conditioning import parameter_names
from kerasgal.errors import DataError, MissingError, SettingError
from kerasgal.training import PRECISIONS

QUANTILES = {"log_mass_p025": 0.025, "log_mass_p16": 0.16, "log_mass_p50": 0.5, "log_mass_p84": 0.84,
             "log_mass_p975": 0.975}
CUBES = 64  # that are predicted together where a batch of the training is of boxes


def build(config, kept=None, dense=None):
    """The network of a configuration, not compiled; `kept` and `dense` are those of a compressed one."""
    law, alpha = LIKELIHOODS[config.likelihood], config.prior_strength
    options = {"dense": dense or (config.dense, config.dense // 2), "kept": kept, "initial": law.initial,
               "least": law.least, "rate": config.scale_rate, "dense_prior": dense_prior(alpha),
               "last_prior": dense_prior(alpha) if config.last_prior else None,
               "parameters": len(parameter_names(config))}
    if config.input == "multipoles":
        return perceptron(config.shells * (config.order + 1), **options)
    return cnn(data.cube_side(config), count(config.names), convolutions=config.convolutions,
               filters=config.filters, padding=config.padding,
               shells=config.shells if config.input == "averaged" else None,
               convolution_prior=convolution_prior(alpha), **options)


def check_precision(precision):
    """Raise SettingError for a precision that is not known, and DataError for float16 without a GPU."""
    if precision not in PRECISIONS:
        raise SettingError(f"precision={precision!r}: accepted are {', '.join(PRECISIONS)}", value=precision,
                           accepted=PRECISIONS)
    if precision == "mixed_float16" and not has_gpu():
        raise DataError("precision=mixed_float16 needs a GPU, and this machine has none: use precision=mixed_bfloat16")


def has_gpu():
    """Whether Keras's backend sees a GPU."""
    import keras

    return bool(workers.accelerators(keras.backend.backend()))


def scales_of(network):
    """The likelihood's scales that a network has learnt: a number, or an array where there are several."""
    layer = network.get_layer("scales")
    scales = np.exp(layer.rate * np.asarray(layer.log_scales, np.float64)) + layer.least
    return float(scales[0]) if len(scales) == 1 else scales


def choose(simulation, config, particles=None, sample=None, seed=0):
    """Flat indices of the particles to predict, (m,): those given, a random sample, or all in haloes.

    particles: integers, or the path of a text file of them. Sample and haloes are of the run's range of masses. Raises
    DataError for what names no particle of the simulation, or a simulation without particles in that range.
    """
    if particles is not None:
        named = isinstance(particles, str | os.PathLike)
        chosen = read_numbers(particles) if named else numbers(particles)
        data.check_particles(simulation, chosen)
        return chosen
    simulation.check_has(("halo_id", "halos/mass"))
    if sample is not None:
        return data.sample_particles(simulation, sample, config.low, config.high, seed)[0]
    return data.halo_particles(simulation, config.low, config.high)


def numbers(particles):
    """Particle numbers as an array of integers, (m,); raises SettingError for anything else, or for none."""
    found = np.atleast_1d(np.asarray(particles))
    if found.ndim != 1 or found.dtype.kind not in "iu" or not len(found):
        raise SettingError("`particles` must be particle numbers, integers (m,), or the path of a text file of them; "
                           f"received an array {found.shape} of {found.dtype}")
    return found.astype(np.int64)


def read_numbers(path):
    """Integers of a text file, one per line, (m,); raises DataError where it holds anything else, or nothing."""
    try:
        with open(path) as file:
            found = [int(line) for line in file if line.strip()]
    except FileNotFoundError:
        raise MissingError(f"no such file: {path}") from None
    except ValueError as error:
        raise DataError(f"{path} must have one particle number per line: {error}") from None
    if not found:
        raise DataError(f"{path} has no particle number")
    return np.array(found)


def predict_particles(network, config, source, particles, progress=None, known=None):
    """Halo masses of particles, flat indices (m,), of a Simulation or its path.

    Returns a dictionary: `particle` as given; `log_mass_true`, NaN outside haloes, and `log_mass`, predicted, (m,) in
    log10 Msun/h; `y`, the rescaled prediction, (m,); `gamma`, the likelihood's scale (an array where it has two).
    progress: called as progress(done, total) in particles; known: as of `data.load`. Raises DataError as that does.
    """
    particles = np.asarray(particles, np.int64)
    sample = data.load(source, config, particles, known)
    parts, done = [], 0
    for (inputs,) in data.batches([sample], config, targets=False, batch=CUBES if config.whole else None):
        parts.append(np.asarray(network.predict_on_batch(inputs))[:, 0])
        done += len(parts[-1])
        if progress:
            progress(done, len(particles))
    y = np.concatenate(parts).astype(np.float64)
    return {"particle": particles, "log_mass_true": sample.log_mass,
            "log_mass": data.Scale(config.low, config.high).to_log_mass(y), "y": y, "gamma": scales_of(network)}
