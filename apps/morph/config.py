"""Hyper-parameters of Zanisi et al. 2020 (arXiv:2007.00039) and of PixelCNN++ (arXiv:1701.05517)."""

from dataclasses import dataclass

from kerasgal.channel_names import band_names
from kerasgal.config import default, setting
from kerasgal.errors import SettingError
from kerasgal.training import TrainingConfig

APP = "morph"

SKIES = ("none", "border", "clipped")
REBINS = ("spline", "mean")
NORMAL, LOGISTIC = LIKELIHOODS = ("normal", "logistic")
POOLINGS = 4  # the sides of images that pass through the network are multiples of this


@dataclass(frozen=True)
class TrainConfig(TrainingConfig):
    """Preparation of the images, network, likelihood and optimiser of a morph run; both networks are trained alike.

    The preset `paper` is the network of Zanisi et al.'s code, `pixelcnn++` that of Salimans et al. for CIFAR-10.
    """

    groups = {
        "Preparation": ("bands", "sky", "softening", "crop", "size", "rebin", "rotate", "bits"),
        "Network": ("blocks", "filters", "likelihood", "mixtures", "dropout"),
    }
    renamed = {"step_decay": "decay_factor"}
    meant = {4: {"likelihood": LOGISTIC, "rebin": "mean", "decay": "exponential"}}
    presets = {"pixelcnn++": ("paper", {
        "rebin": "mean", "blocks": 5, "filters": 160, "likelihood": LOGISTIC, "mixtures": 10, "averaging": 0.9995,
        "learning_rate": 1e-3, "decay": "exponential", "epochs": 100, "patience": 10})}

    bands: str = setting("", "Bands that are seen together, with commas between, e.g. g,r,i; empty for images of one "
                             "band, whichever it is.")
    sky: str = setting("none", "Sky to subtract first: none, the median of the border, or the sigma-clipped median.",
                       choices=SKIES)
    softening: float = setting(1000.0, "Counts s of the stretch arsinh(counts / s), clipped at 1.", minimum=1e-30)
    crop: int = setting(64, "Pixels per side that are cut from the centre of an image.", minimum=POOLINGS)
    size: int = setting(32, "Pixels per side to which these are rebinned; divides crop.", minimum=POOLINGS)
    rebin: str = setting("spline", "How: by the values of a cubic spline at so many points, or by the means of pixels.",
                         choices=REBINS, demo="mean")
    rotate: bool = setting(True, "Show each image at sixteen angles, turned before it is cut.")
    blocks: int = setting(3, "Gated residual blocks at each of the three resolutions.", demo=1, minimum=1)
    filters: int = setting(64, "Filters of every block.", demo=24, minimum=1)
    likelihood: str = setting(NORMAL, "Distribution of a pixel given those before it: one normal distribution, or a "
                                      "mixture of logistic ones.", choices=LIKELIHOODS, demo=LOGISTIC)
    mixtures: int = setting(1, "Logistic distributions in the mixture.", demo=5, minimum=1)
    dropout: float = setting(0.5, "Share of a block's features that are dropped in training.", demo=0.1, minimum=0.0,
                             maximum=0.99)
    bits: int = setting(0, "Discretise the flux to 2^bits values from 0 on; 0 keeps it continuous and the likelihood a "
                           "density.", minimum=0, maximum=16)
    averaging: float = default(0.0, demo=0.995)
    learning_rate: float = default(3e-6, demo=4e-3)
    decay: str = default("cosine", demo="exponential")
    decay_factor: float = default(0.999995, demo=0.998)
    decay_epochs: int = default(0)  # in every step
    batch: int = default(64, demo=16)
    epochs: int = default(1000, demo=10)
    steps_per_epoch: int = default(1000, demo=120)
    patience: int = default(0)

    @property
    def names(self):
        """Names of the bands, a tuple; empty for one band without a name."""
        return band_names(self.bands)

    @property
    def channels(self):
        """How many bands there are."""
        return max(1, len(self.names))

    def check(self):
        band_names(self.bands)
        if self.crop % self.size or self.size % POOLINGS:
            raise SettingError(f"crop={self.crop} and size={self.size}: the size must divide the crop and be a "
                               f"multiple of {POOLINGS}")
        if self.likelihood == NORMAL and self.mixtures != 1:
            raise SettingError(f"mixtures={self.mixtures}: likelihood={NORMAL} has one distribution per pixel; "
                               f"accepted is mixtures=1, or likelihood={LOGISTIC}", value=self.mixtures, accepted=1)
        if self.likelihood == NORMAL and self.bits:
            raise SettingError(f"bits={self.bits}: likelihood={NORMAL} is a density; accepted is bits=0, or "
                               f"likelihood={LOGISTIC}", value=self.bits, accepted=0)
