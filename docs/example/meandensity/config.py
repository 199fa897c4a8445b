"""Hyper-parameters of meandensity."""

from dataclasses import dataclass

from kerasgal.config import setting
from kerasgal.training import TrainingConfig

APP = "meandensity"


@dataclass(frozen=True)
class TrainConfig(TrainingConfig):
    """Cubes, network and optimiser of one run; batch, seed, precision and the like are inherited."""

    patch: int = setting(16, "Cells per side of a cube.", demo=8, minimum=4)
    filters: int = setting(16, "Filters of the first convolution; the second has twice as many.", demo=4, minimum=1)
    learning_rate: float = setting(1e-3, "Learning rate of Adam.", demo=1e-2, minimum=0.0)
    epochs: int = setting(20, "Epochs; each ends with validation and a checkpoint.", demo=2, minimum=1, resumable=True)
