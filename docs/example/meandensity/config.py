"""Hyper-parameters of meandensity."""

from dataclasses import dataclass

from kerasgal.config import default, setting
from kerasgal.training import TrainingConfig


@dataclass(frozen=True)
class TrainConfig(TrainingConfig):
    groups = {"Cubes and network": ("patch", "filters")}

    patch: int = setting(16, "Cells per side of a cube.", demo=8, minimum=4)
    filters: int = setting(16, "Filters of the first convolution; the second has twice as many.", demo=4, minimum=1)
    learning_rate: float = default(1e-3, demo=1e-2)
    epochs: int = default(20, demo=2)
