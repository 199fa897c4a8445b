"""What draws of dark matter have to beat: what boosted trees expect of the galaxies, with what they leave open.

Trees read of the galaxies around a cell what those of cascade read of the density, and are fitted by the squared error
of the logarithm of the density. What they leave open is drawn as a Gaussian field of the power spectrum that it has in
the simulations that end the boosting, so that draws have the right power if it is one.
"""

import math
from dataclasses import dataclass

import numpy as np

from kerasgal.apps.cascade import trees
from kerasgal.plotting import progress

OPTIONS = {**trees.OPTIONS, "loss": "squared_error"}
BINS = 24  # of the wavenumber, for the spectrum of what is left open


@dataclass
class Trees:
    """Fitted trees, and the spectrum of what they leave open of ln(1 + density)."""

    model: object
    wavenumber: np.ndarray  # cycles a cell, rising
    power: np.ndarray  # mean |F|^2 of a cell

    def predict(self, galaxies):
        """The expected ln(1 + density) of a map or box of galaxies."""
        return self.model.predict(trees.features(galaxies, np.ones(galaxies.shape, bool))).reshape(galaxies.shape)

    def draw(self, galaxies, rng):
        """A density, in units of the mean, given a map or box of galaxies."""
        power = np.interp(wavenumbers(galaxies.shape), self.wavenumber, self.power)
        noise = np.fft.fftn(rng.standard_normal(galaxies.shape))
        rest = np.fft.ifftn(noise * np.sqrt(power)).real
        return np.maximum(np.expm1(self.predict(galaxies) + rest), 0).astype(np.float32)


def wavenumbers(shape):
    """Of each mode of a periodic field, in cycles a cell."""
    axes = np.meshgrid(*(np.fft.fftfreq(cells) for cells in shape), indexing="ij")
    return np.sqrt(sum(axis**2 for axis in axes))


def fitted(inside, apart, seed=0):
    """`Trees` by lists of (galaxies, density, cells that count: all) to fit them to, and to end the boosting."""
    def samples(fields):
        inputs = [trees.features(galaxies, cells) for galaxies, _, cells in fields]
        targets = [np.log1p(density).ravel() for _, density, _ in fields]
        inputs, targets = np.concatenate(inputs), np.concatenate(targets)
        if len(targets) > trees.LARGEST:
            kept = np.random.default_rng(seed).choice(len(targets), trees.LARGEST, replace=False)
            inputs, targets = inputs[kept], targets[kept]
        return inputs, targets

    held_inputs, held_targets = samples(apart)
    with progress("fitting boosted trees"):
        model = trees.regressor(trees.TREES, stops=True, seed=seed, **OPTIONS)
        model.fit(*samples(inside), X_val=held_inputs, y_val=held_targets)
    made = Trees(model, np.zeros(1), np.zeros(1))
    rest = [np.log1p(density) - made.predict(galaxies) for galaxies, density, _ in apart]
    made.wavenumber, made.power = spectrum(rest)
    return made


def spectrum(fields):
    """The mean power, per cell, of fields: wavenumbers, and the power in bins of these, (bins,) each."""
    edges = np.linspace(0, 0.5 * math.sqrt(fields[0].ndim) * (1 + 1e-9), BINS + 1)
    sums = np.zeros((3, BINS))  # of modes, their wavenumbers and their power
    for field in fields:
        scale = wavenumbers(field.shape).ravel()
        power = np.abs(np.fft.fftn(field).ravel())**2 / field.size
        place = np.digitize(scale, edges) - 1
        sums += [np.bincount(place, values, minlength=BINS) for values in (np.ones(len(scale)), scale, power)]
    modes, scale, power = sums[:, sums[0] > 0]
    return scale / modes, power / modes
