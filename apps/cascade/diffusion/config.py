"""Hyper-parameters of the variational diffusion model, as Ono et al. 2024 (arXiv:2403.10648) train it on CAMELS."""

from dataclasses import dataclass

from kerasgal.apps.cascade.config import SCALINGS
from kerasgal.conditioning import HELP, parameter_names
from kerasgal.config import default, setting
from kerasgal.errors import SettingError
from kerasgal.training import TrainingConfig

APP = "cascade diffusion"
FIELDS = ("log", "count")
DRAWN = GALAXIES, MATTER = ("galaxies", "matter")
SAMPLERS = ("ancestral", "multistep", "deterministic")
REGRESSOR = "regressor"  # folder of its copy in that of the run


@dataclass(frozen=True)
class DiffusionConfig(TrainingConfig):
    """Maps or boxes, noise, network and optimiser of one diffusion run."""

    groups = {
        "Maps or boxes": ("dimensions", "cell", "depth", "slab_stride", "patch", "stride", "drawn", "field", "maximum",
                          "scaling", "standardise", "regressor", "parameters"),
        "Noise and loss": ("schedule", "gamma_min", "gamma_max", "prediction", "weighting"),
        "Network": ("filters", "levels", "norm_groups", "norm_epsilon", "dropout", "attention", "projections",
                    "fourier"),
        "Optimiser": ("optimizer", "learning_rate", "decay", "decay_factor", "decay_epochs", "weight_decay",
                      "gradient_norm", "averaging"),
    }
    renamed = {"clip": "gradient_norm", "groups": "norm_groups"}
    meant = {5: {"standardise": False, "norm_epsilon": 1e-3, "projections": 2}}

    dimensions: int = setting(2, "2 for maps, the sums along one axis of slabs of the box; 3 for boxes.", minimum=2,
                              maximum=3)
    cell: float = setting(0.09765625, "Side of a cell [Mpc/h]; the grid has as many cells as the box holds.",
                          demo=0.78125, minimum=1e-3)
    depth: int = setting(51, "Cells from front to back of the slab that a map shows; 1 for slices.", demo=8, minimum=1)
    slab_stride: int = setting(0, "Cells from one slab of a training box to the next, where they are to overlap; 0: as "
                                  "many as a slab is deep.", demo=2, minimum=0)
    patch: int = setting(256, "Cells per side of what the network is trained on.", demo=48, minimum=8)
    stride: int = setting(256, "Cells from one patch of a training map or box to the next.", demo=16, minimum=1)
    drawn: str = setting(GALAXIES, "What is drawn: galaxies given the density of dark matter, or, as by Ono et al., "
                                   "that density given the galaxies.", choices=DRAWN)
    field: str = setting("log", "What is noised: log2(1 + galaxies in a cell), or galaxies in a cell; of drawn matter "
                                "its density in units of the mean likewise.", demo="count", choices=FIELDS)
    maximum: int = setting(63, "Most galaxies that a cell can have.", minimum=1)
    scaling: str = setting("log", "What the network makes of what it is given, x (the density in units of the mean, or "
                                  "numbers of galaxies), first: nothing, ln(1 + x), or arsinh(x).", choices=SCALINGS)
    standardise: bool = setting(True, "Noise the field less its mean in the training, over its standard deviation, and "
                                      "show the network what it is given, scaled, so, too.")
    regressor: str = setting("", "Run of cascade, on cells of the same size, whose expected numbers of galaxies the "
                                 "network is given, too, beside the density. The run keeps a copy.")
    parameters: str = setting("", HELP)
    schedule: str = setting("linear", "How gamma rises with time: evenly, or as a monotone network learns it.",
                            choices=("linear", "learned"))
    gamma_min: float = setting(-13.3, "gamma, minus the logarithm of the signal-to-noise ratio, at time 0.", demo=-3.5)
    gamma_max: float = setting(13.3, "gamma at time 1.", demo=14.0)
    prediction: str = setting("noise", "What the network predicts: the noise, or v = alpha noise - sigma field.",
                              demo="velocity", choices=("noise", "velocity"))
    weighting: str = setting("bound", "What training lowers: the bound, or the error of v evenly over gamma, which "
                                      "says more about large scales; validation is by the bound.", demo="velocity",
                             choices=("bound", "velocity"))
    filters: int = setting(48, "Filters of the network's first level, even; doubled with every further one.", demo=24,
                           minimum=4)
    levels: int = setting(4, "Levels of the U-Net above its bottleneck.", demo=2, minimum=1)
    norm_groups: int = setting(8, "Channels are normalised in so many groups over the whole patch; 0: cell by cell, "
                                  "which leaves no seams between tiles.", minimum=0)
    norm_epsilon: float = setting(1e-5, "What is added to the variance by which channels are normalised.", minimum=0.0)
    dropout: float = setting(0.1, "Share of the activations that dropout takes away.", demo=0.0, minimum=0.0,
                             maximum=0.99)
    attention: bool = setting(True, "Self-attention at the bottleneck.", demo=False)
    projections: int = setting(1, "Linear layers behind the attention.", minimum=1, maximum=2)
    fourier: bool = setting(False, "Give the network sines and cosines of the noisy field, too.", demo=True)
    weight_decay: float = setting(1e-5, "Decay of the weights, times the learning rate.", minimum=0.0)
    learning_rate: float = default(1e-4, demo=3e-3)
    decay: str = default("none", demo="cosine")
    gradient_norm: float = default(0.5, demo=10.0)
    averaging: float = default(0.0, demo=0.99)
    batch: int = default(12, demo=16)
    epochs: int = default(400, demo=14)
    steps_per_epoch: int = default(1250, demo=125)

    def check(self):
        if self.patch % 2**self.levels:
            raise SettingError(f"patch={self.patch} cannot be halved {self.levels} times, once per level: give a "
                               f"multiple of {2**self.levels}, or fewer `levels`")
        if self.norm_groups and self.filters % self.norm_groups or self.filters % 2:
            raise SettingError(f"filters={self.filters} must be even and a multiple of norm_groups={self.norm_groups}")
        if not self.gamma_min < self.gamma_max:
            raise SettingError(f"gamma_min={self.gamma_min:g} is not below gamma_max={self.gamma_max:g}")

        if self.matter and self.maximum != self.__dataclass_fields__["maximum"].default:
            raise SettingError(f"maximum={self.maximum} is of galaxies, which drawn=matter does not draw")
        if self.regressor and self.matter:
            raise SettingError(f"regressor={self.regressor}: what it expects of galaxies is made of the dark matter, "
                               "which drawn=matter is to draw")

    @property
    def matter(self):
        """Whether dark matter is drawn."""
        return self.drawn == MATTER

    @property
    def channels(self):
        """How many fields the network is given beside the noisy one."""
        return 2 if self.regressor else 1

    @property
    def names(self):
        """Names of the parameters that the network is given."""
        return parameter_names(self)
