"""Hyper-parameters of Lucie-Smith et al. 2020 (arXiv:2011.10577)."""

from dataclasses import dataclass

from kerasgal.channel_names import CHANNELS, names_of
from kerasgal.conditioning import HELP, parameter_names
from kerasgal.config import default, setting
from kerasgal.errors import SettingError
from kerasgal.training import TrainingConfig

APP = "halomass"

INPUTS = ("raw", "averaged", "multipoles", "final", "channels")
SHELLS = ("averaged", "multipoles")  # inputs that are numbers of spherical shells
# Strength of the priors in the authors' code, which the text does not give; of inputs that they do not have, that of
# the input which is most alike.
ALPHA = {"raw": 10**-2.5, "channels": 10**-2.5, "averaged": 10**-4.3, "multipoles": 10**-4.3, "final": 10**-3}
LIKELIHOODS = ("cauchy", "gaussian", "laplace", "two_sided_cauchy", "student_t")


@dataclass(frozen=True)
class TrainConfig(TrainingConfig):
    """Sample, input, network, likelihood, priors and optimiser of one halomass run."""

    groups = {
        "Sample": ("low", "high", "samples", "validation_samples"),
        "Input": ("input", "channels", "parameters", "patch", "whole", "shells", "order", "extent", "symmetries"),
        "Network": ("padding", "convolutions", "filters", "dense"),
        "Likelihood and priors": ("likelihood", "scale_rate", "alpha", "last_prior"),
    }
    # Before version 3 there was no other choice.
    meant = {3: {"last_prior": True}}
    # That of the demo, but larger, of all channels, trained longer, and on whole boxes
    presets = {"whole": ("demo", {
        "whole": True, "channels": "density,potential,displacement,tide", "padding": "none", "filters": 16,
        "dense": 128, "optimizer": "muon", "learning_rate": 3e-3, "decay": "cosine", "batch": 2, "epochs": 25,
        "steps_per_epoch": 100})}

    # 11 and 13.4 in Msun, with the paper's h of 0.701
    low: float = setting(10.846, "Least log10 halo mass [Msun/h] of the sample.", demo=12.0)
    high: float = setting(13.246, "Greatest log10 halo mass [Msun/h] of the sample.", demo=14.5)
    samples: int = setting(200_000, "Training particles, drawn over all simulations.", demo=40_000, minimum=1)
    validation_samples: int = setting(10_000, "Validation particles, drawn over all simulations.", demo=2_000,
                                      minimum=1)
    input: str = setting("raw", "What the network sees: the initial density around the particle; its averages over "
                                "spherical shells; the shells' averages, dipoles and quadrupoles; the final density; "
                                "or initial density, potential and displacement.",
                         choices=INPUTS)
    channels: str = setting("density", "Of the input `raw`, what the network sees in the cube, with commas between: "
                                       f"{', '.join(CHANNELS)}. The input `channels` is the first three.")
    parameters: str = setting("", HELP)
    patch: int = setting(75, "Cells per side of the cube around a particle; odd, so that its cell is the centre.",
                         demo=21, minimum=5)
    whole: bool = setting(False, "Train a network without padding on whole boxes, a batch of them in each step, and on "
                                 "every fourth cell along each axis (with four convolutions) whose particle is in a "
                                 "halo of the range, not on so many `samples`.")
    shells: int = setting(20, "Spherical shells of `averaged` and `multipoles`.", demo=10, minimum=1)
    order: int = setting(2, "Highest of the `multipoles` of a shell: 0 is its average, 1 the dipole, 2 the quadrupole.",
                         minimum=0, maximum=2)
    extent: float = setting(1.5, "Side of the cube of `final` [Mpc/h].", demo=3.0, minimum=1e-3)
    symmetries: str = setting("none", "Symmetries of the cube under which inputs are seen in training: none, the 24 "
                                      "rotations, or all 48.", demo="reflections",
                              choices=("none", "rotations", "reflections"))
    padding: str = setting("same", "Convolve with zero padding, as the paper, or with none, on a cube as much larger, "
                                   "so that whole boxes can be predicted.", choices=("same", "none"))
    convolutions: int = setting(6, "Convolutions; all but the first are followed by a pooling.", demo=4, minimum=2)
    filters: int = setting(32, "Filters of the first two convolutions; the third has twice, all others four times as "
                               "many.", demo=8, minimum=1)
    dense: int = setting(256, "Neurons of the first dense layer; the second has half as many.", demo=64, minimum=2)
    likelihood: str = setting("cauchy", "Distribution of the true mass around the predicted one.", choices=LIKELIHOODS)
    alpha: float = setting(-1.0, "Strength of the priors on the weights; -1: as in the authors' code for the input, "
                                 "10^-2.5; of averages and multipoles 10^-4.3; of the final density 10^-3.",
                           demo=1e-5, minimum=-1.0)
    last_prior: bool = setting(False, "Priors on the last dense layer, too.", demo=True)
    scale_rate: float = setting(1.0, "How many times faster than the weights the likelihood's scale learns.", demo=10.0,
                                minimum=0.1)
    learning_rate: float = default(5e-5, demo=1e-3)
    gradient_norm: float = default(0.0, demo=1.0)
    batch: int = default(64)
    epochs: int = default(100, demo=10)
    steps_per_epoch: int = default(3125, demo=80)
    patience: int = default(10, demo=0)

    @property
    def prior_strength(self):
        """What the priors are multiplied by: `alpha`, or that of the authors' code for the input."""
        return ALPHA[self.input] if self.alpha == -1 else self.alpha

    @property
    def names(self):
        """The channels of the cubes of the initial density."""
        return ("density", "potential", "displacement") if self.input == "channels" else names_of(self.channels)

    def check(self):
        parameter_names(self)
        if names_of(self.channels) != ("density",) and self.input != "raw":
            raise SettingError(f"channels={self.channels!r} are those of input=raw, received input={self.input}",
                               value=self.channels, accepted=("density",))
        if not self.low < self.high:
            raise SettingError(f"low={self.low:g} and high={self.high:g} leave no mass: `low` must be the smaller one")
        if self.patch % 2 == 0:
            raise SettingError(f"patch={self.patch} is even and has no cell at its centre: give an odd number")
        if self.padding == "none" and self.input not in ("raw", "channels"):
            raise SettingError("padding=none predicts whole boxes from the initial density: it takes input=raw or "
                               f"input=channels, received input={self.input}")
        if self.whole and (self.padding != "none" or self.parameters):
            raise SettingError("whole=True takes a network without padding and without parameters: padding=none, "
                               f"parameters=''; received padding={self.padding}, parameters={self.parameters!r}")
        if -1 < self.alpha < 0:
            raise SettingError(f"alpha={self.alpha:g}: it must be at least 0, or -1 for that of the authors' code",
                               value=self.alpha, accepted=(0.0, None))
        if self.input in SHELLS:
            self.check_shells()

    def check_shells(self):
        """Raise SettingError if a shell has no cell: it has no average either."""
        from kerasgal.apps.halomass.shells import has_empty, most_shells

        if has_empty(self.patch, self.shells):
            most = most_shells(self.patch)
            raise SettingError(f"shells={self.shells} in patch={self.patch} leaves shells without a cell: accepted are "
                               f"up to {most}, or a larger `patch`", value=self.shells, accepted=(1, most))
