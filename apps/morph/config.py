"""Hyper-parameters of Zanisi et al. 2020 (arXiv:2007.00039) and of PixelCNN++ (arXiv:1701.05517)."""

from dataclasses import dataclass

from kerasgal.config import default, setting
from kerasgal.errors import SettingError
from kerasgal.training import TrainingConfig

APP = "morph"

SKIES = ("none", "border", "clipped")
POOLINGS = 4  # the sides of images that pass through the network are multiples of this


@dataclass(frozen=True)
class TrainConfig(TrainingConfig):
    """Preparation of the images, network, likelihood and optimiser of a morph run; both networks are trained alike."""

    groups = {
        "Preparation": ("sky", "softening", "crop", "size", "rotate", "bits"),
        "Network": ("blocks", "filters", "mixtures", "dropout"),
    }
    renamed = {"step_decay": "decay_factor"}

    sky: str = setting("none", "Sky to subtract first: none, the median of the border, or the sigma-clipped median.",
                       choices=SKIES)
    softening: float = setting(1000.0, "Counts s of the stretch arsinh(counts / s), clipped at 1.", minimum=1e-30)
    crop: int = setting(64, "Pixels per side that are cut from the centre of an image.", minimum=POOLINGS)
    size: int = setting(32, "Pixels per side to which these are rebinned by averaging; divides crop.",
                        minimum=POOLINGS)
    rotate: bool = setting(True, "Show each image at sixteen angles, turned before it is cut.")
    blocks: int = setting(5, "Gated residual blocks at each of the three resolutions.", demo=1, minimum=1)
    filters: int = setting(160, "Filters of every block.", demo=24, minimum=1)
    mixtures: int = setting(10, "Logistic distributions whose mixture is a pixel's.", demo=5, minimum=1)
    dropout: float = setting(0.5, "Share of a block's features that are dropped in training.", demo=0.1, minimum=0.0,
                             maximum=0.99)
    bits: int = setting(0, "Discretise the flux to 2^bits values; 0 keeps it continuous and the likelihood a density.",
                        minimum=0, maximum=16)
    averaging: float = default(0.9995, demo=0.995)
    learning_rate: float = default(1e-3, demo=4e-3)
    decay: str = default("exponential")
    decay_factor: float = default(0.999995, demo=0.998)
    decay_epochs: int = default(0)  # in every step
    batch: int = default(64, demo=16)
    epochs: int = default(100, demo=10)
    steps_per_epoch: int = default(1000, demo=120)
    patience: int = default(10, demo=0)

    def check(self):
        if self.crop % self.size or self.size % POOLINGS:
            raise SettingError(f"crop={self.crop} and size={self.size}: the size must divide the crop and be a "
                               f"multiple of {POOLINGS}")
