"""What a stamp of sky alone can have for a likelihood: the table of docs/papers/morph.md.

    python tests/benchmarks/stamps.py

Gaussian noise of the deviation that the sky of SDSS images has is prepared in each way. Its negative entropy, -1/2 ln
det(2 pi e C), is the most that ln p can be of a stamp on average; C is the covariance of the pixels. ln det of the
covariance of so few stamps is low by a known amount if they are normal, which is put right. Beside it: the deviation of
a pixel, and the entropy if all pixels were independent and alike.
"""

import numpy as np
from scipy import ndimage
from scipy.special import digamma

from kerasgal.apps.morph.config import TrainConfig
from kerasgal.apps.morph.prepare import cut, stamp

SKY = 5.49  # counts a pixel
SIDE, CROP = 128, 64
STAMPS = 3000


def theirs(image, angle):
    """Zanisi et al.'s: stretch, turn, cut, and shrink."""
    stretched = np.arcsinh(image / 1000)
    turned = ndimage.rotate(stretched, angle, reshape=False, order=3) if angle else stretched
    return ndimage.zoom(cut(turned, CROP), 0.5)


def ours(rebin):
    config = TrainConfig(rebin=rebin)
    return lambda image, angle: stamp(image, config, angle)[..., 0]


def linear(image, angle):
    """As `--rebin mean`, but turned by a linear interpolation."""
    return ours("mean")(ndimage.rotate(image, angle, reshape=False, order=1), 0.0)


def log_determinant(stamps):
    """ln det of the covariance of normal vectors, (m, pixels) with a mean of zero, without bias."""
    m, pixels = stamps.shape
    bias = digamma((m - np.arange(pixels)) / 2).sum() + pixels * np.log(2 / m)
    return np.linalg.slogdet(stamps.T @ stamps / m)[1] - bias


WAYS = {"theirs, turned at random": (theirs, True), "theirs, not turned": (theirs, False),
        "--rebin spline": (ours("spline"), False), "--rebin mean": (ours("mean"), False),
        "--rebin mean, turned at random": (ours("mean"), True),
        "--rebin mean, turned at random by a linear interpolation": (linear, True)}


def main():
    for name, (prepared, turns) in WAYS.items():
        rng = np.random.default_rng(0)
        stamps = np.array([prepared(rng.normal(0, SKY, (SIDE, SIDE)), rng.uniform(0, 360) if turns else 0.0).ravel()
                           for _ in range(STAMPS)], dtype=float)
        deviation, pixels = stamps.std(), stamps.shape[1]
        most = -0.5 * (pixels * np.log(2 * np.pi * np.e) + log_determinant(stamps))
        apart = -pixels * (0.5 * np.log(2 * np.pi * np.e) + np.log(deviation))
        print(f"{name}: deviation {deviation:.5f}, {most:.0f} nats, {apart:.0f} if pixels were independent")


if __name__ == "__main__":
    main()
