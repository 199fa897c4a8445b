"""Hyper-parameters of Yip et al. 2019 (arXiv:1910.07813)."""

from dataclasses import dataclass

from kerasgal.conditioning import HELP, parameter_names
from kerasgal.config import default, setting
from kerasgal.errors import SettingError
from kerasgal.training import TrainingConfig

APP = "cascade"

OUTPUTS = ("relu", "softplus")
LOSSES = ("squared", "poisson")
CLASSIFIERS = ("inception", "r2unet")
SCALINGS = ("none", "log", "asinh")
CHANNELS = ("density", "density,finer", "density,velocity")
DEPOSITS = ("cic", "tsc")
POOLINGS = 8  # sides that pass through the R2U-Net must be multiples of this


@dataclass(frozen=True)
class TrainConfig(TrainingConfig):
    """Grid, sub-cubes, networks, losses and optimiser of one cascade run.

    Both phases are trained alike, but that weights are averaged in phase 2 alone: the classifier's batch normalisation
    keeps statistics that are those of the weights as they are.
    """

    groups = {
        "Grid and sub-cubes": ("cell", "deposit", "patch", "stride", "focus", "symmetries", "scaling", "surroundings",
                               "channels", "parameters"),
        "Networks": ("classifier", "filters", "recurrences", "finest_skip", "output", "output_slope"),
        "Losses": ("w1", "loss", "w2", "threshold"),
    }
    renamed = {"halving": "decay_epochs"}

    cell: float = setting(0.2, "Side of a cell [Mpc/h]; the grid has as many cells as the box holds.", demo=0.390625,
                          minimum=1e-3)
    deposit: str = setting("cic", "How particles are put on the grid: cloud-in-cell, or the smoother triangular-shaped "
                                  "clouds.", choices=DEPOSITS)
    patch: int = setting(32, "Cells per side of a sub-cube; a multiple of 8.", minimum=POOLINGS)
    stride: int = setting(32, "Cells from one sub-cube of a training simulation to the next.", demo=8, minimum=1)
    focus: int = setting(0, "Cells per side of the sub-cubes of phase 2, a multiple of 8 and at most those of phase 1, "
                            "which are taken the more often the more cells of theirs phase 1 calls occupied; 0: the "
                            "sub-cubes of phase 1.", demo=24, minimum=0)
    symmetries: str = setting("rotations", "Symmetries of the cube under which sub-cubes are seen in training: none, "
                                           "the 24 rotations, or all 48.", demo="reflections",
                              choices=("none", "rotations", "reflections"))
    scaling: str = setting("none", "What the networks make of the density (in units of the mean) first: nothing, "
                                   "ln(1 + density), or arsinh(density).", demo="log", choices=SCALINGS)
    surroundings: bool = setting(False, "Show phase 2 numbers like those that boosted trees read, too: the logarithms "
                                        "of the density, and over it of four smoothed densities (0.5 to 4 cells) and "
                                        "of the densest of three neighbourhoods.", demo=True)
    channels: str = setting("density", "What both networks see of the dark matter: its density alone, or also how "
                                       "dense it is at most within each cell, on a finer grid of the particles, or the "
                                       "three components of its mean velocity, from that of particles.",
                            choices=CHANNELS)
    parameters: str = setting("", HELP)
    classifier: str = setting("inception", "Network of phase 1.", choices=CLASSIFIERS)
    filters: int = setting(32, "Filters of the R2U-Net's first block, even; each further one has twice as many.",
                           demo=16, minimum=2)
    recurrences: int = setting(3, "Times that each recurrent unit of the R2U-Net returns to its input.", demo=0,
                               minimum=0)
    finest_skip: bool = setting(False, "Take full resolution past the R2U-Net's poolings, too: its first block to its "
                                       "last, and its input to two layers for each cell before the output.", demo=True)
    output: str = setting("relu", "What the R2U-Net's number of galaxies comes from: a ReLU, which may die, or "
                                  "softplus.", demo="softplus", choices=OUTPUTS)
    output_slope: float = setting(0.0, "Slope of a ReLU's output below zero in training; predictions are clipped. 0 is "
                                       "the paper's.", minimum=0.0)
    w1: float = setting(500.0, "Weight of occupied cells in the loss of phase 1.", minimum=0.0)
    loss: str = setting("squared", "Loss of phase 2: the squared error, Eq. 2, or the likelihood of Poisson numbers, "
                                   "which gives rich cells less weight.", demo="poisson", choices=LOSSES)
    w2: float = setting(1.05, "Weight of occupied cells in the loss of phase 2; with 1 it is best for the expectation.",
                        demo=1.0, minimum=0.0)
    threshold: float = setting(0.5, "Probability above which phase 1 calls a cell occupied.", minimum=0.0, maximum=1.0)
    learning_rate: float = default(1e-3, demo=3e-3)
    averaging: float = default(0.0, demo=0.99)
    decay: str = default("step")
    decay_epochs: int = default(4)
    batch: int = default(16, demo=4)
    epochs: int = default(50, demo=12)
    steps_per_epoch: int = default(1292, demo=80)  # 63.1% of the paper's 32,768 sub-cubes

    def check(self):
        if self.patch % POOLINGS:
            raise SettingError(f"patch={self.patch} is not a multiple of {POOLINGS}, as the R2U-Net's poolings need it")
        if self.focus % POOLINGS:
            raise SettingError(f"focus={self.focus} is not a multiple of {POOLINGS}, as the R2U-Net's poolings need it")
        if self.output != "relu" and self.output_slope:
            raise SettingError(f"output_slope={self.output_slope:g} is of a ReLU: it does not go with "
                               f"output={self.output}")
        if self.filters % 2:
            raise SettingError(f"filters={self.filters} is odd: the last block of the R2U-Net has half as many")

    @property
    def finer(self):
        """Whether the networks see what finer grids say of cells."""
        return self.channels == "density,finer"

    @property
    def velocity(self):
        """Whether the networks see the velocity of the dark matter."""
        return self.channels == "density,velocity"

    @property
    def of_particles(self):
        """Whether the networks see what is made of particles and not of a field of the density."""
        return self.finer or self.velocity

    @property
    def names(self):
        """Names of the parameters that the networks are given."""
        return parameter_names(self)

    @classmethod
    def migrate(cls, stored):
        return {"decay": "step", "decay_factor": 0.5, **super().migrate(stored)}  # there was no other decay
