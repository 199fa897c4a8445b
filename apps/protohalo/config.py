"""Hyper-parameters of Bernardini et al. 2020 (MNRAS 496, 5116; arXiv:1912.04299)."""

from dataclasses import dataclass

from kerasgal.channel_names import CHANNELS, names_of
from kerasgal.conditioning import HELP, parameter_names
from kerasgal.config import default, setting
from kerasgal.errors import SettingError
from kerasgal.training import TrainingConfig

APP = "protohalo"
ARRANGEMENTS = ("paper", "inner")
NORMALISATIONS = ("batch", "patch")
FLOODED = ("map", "smoothed")
VOLUMES = ("native", "current")
NAMINGS = ("halotools", "rockstar")  # whose names a catalogue's columns may have


@dataclass(frozen=True)
class TrainConfig(TrainingConfig):
    """Target, patches, network, optimiser and watershed of one protohalo run."""

    groups = {
        "Target and patches": ("minimum", "channels", "parameters", "patch", "whole", "stride", "margin",
                               "symmetries"),
        "Network and loss": ("levels", "filters", "dropout", "arrangement", "output_slope", "loss", "normalisation"),
        "Prediction and watershed": ("mirrored", "smoothing", "marker", "separation", "flooded", "floor", "depth",
                                     "dynamics", "volume", "calibration"),
    }
    # Before version 3 there was no other choice.
    meant = {3: {"arrangement": "inner", "flooded": "smoothed", "volume": "current"}}
    # That of the demo, shown more, trained longer, and on whole boxes
    presets = {"whole": ("demo", {
        "channels": "density,potential,displacement,tide", "whole": True, "margin": 0, "smoothing": 1.0, "depth": 2.25,
        "epochs": 40, "steps_per_epoch": 100})}

    minimum: int = setting(4525, "Fewest cells of a halo; smaller ones are background. The paper's smallest halo has "
                                 "4,525.", demo=200, minimum=1)
    channels: str = setting("density", "What the network sees of the initial conditions, with commas between: "
                                       f"{', '.join(CHANNELS)}.")
    parameters: str = setting("", HELP)
    patch: int = setting(128, "Cells per side of a training patch.", demo=64, minimum=8)
    whole: bool = setting(False, "Train on whole boxes, of `patch` cells a side and without a margin: beyond a face "
                                 "the network sees the other side of the box, not zeros as beyond a patch.")
    stride: int = setting(64, "Cells between the patches cut from a box; 1 cuts them everywhere.", demo=1, minimum=1)
    margin: int = setting(16, "Cells at each face of a patch that the loss leaves out.", demo=8, minimum=0)
    symmetries: str = setting("rotations", "Symmetries of the cube under which patches are seen: none, the 24 "
                                           "rotations, or all 48.", choices=("none", "rotations", "reflections"))
    levels: int = setting(5, "Levels of the U-Net above its bottleneck.", demo=3, minimum=1)
    filters: int = setting(12, "Filters of the first level; they double at each level.", demo=16, minimum=1)
    dropout: float = setting(0.5, "Dropout of each level, on the way down and on the way up.", demo=0.0, minimum=0.0,
                             maximum=0.95)
    arrangement: str = setting("paper", "Where dropouts and activations stand: `paper` as in its Table 1; `inner` as "
                                        "in runs of earlier versions: dropout within the blocks of convolutions, no "
                                        "activation behind transposed ones.", choices=ARRANGEMENTS)
    output_slope: float = setting(0.0, "Slope of the output below zero while training; predictions are clipped at "
                                       "zero. 0 is the paper's ReLU, which can die.", demo=0.05, minimum=0.0,
                                  maximum=1.0)
    loss: str = setting("l1", "Normalised distance of the maps: l1 as in the paper's text, l2 as its Eq. 3 prints.",
                        choices=("l1", "l2"))
    normalisation: str = setting("batch", "Whose true maps the loss is divided by: those of the whole batch, or of "
                                          "each patch by itself.", choices=NORMALISATIONS)
    mirrored: bool = setting(False, "Predict the mean over a box and its seven mirror images, in eight times the time.",
                             resumable=True)
    learning_rate: float = default(1e-4, demo=1e-3)
    decay: str = default("none", demo="cosine")
    gradient_norm: float = default(0.0, demo=1.0)
    batch: int = default(16, demo=1)
    epochs: int = default(40, demo=16)
    smoothing: float = setting(0.0, "Gaussian smoothing of the predicted map before its peaks are sought, in cells.",
                               demo=0.5, minimum=0.0, resumable=True)
    marker: float = setting(0.0, "Lowest peak of the map that becomes a marker; 0 takes all that are above zero.",
                            demo=0.15, minimum=0.0, maximum=1.0, resumable=True)
    separation: int = setting(1, "Fewest cells between markers.", minimum=1, resumable=True)
    flooded: str = setting("map", "What is flooded from the markers: the `map` itself, or the `smoothed` one, as in "
                                  "runs of earlier versions.", choices=FLOODED, resumable=True)
    floor: float = setting(0.0, "Value of the map above which a cell belongs to a region of the watershed.",
                           demo=0.02, minimum=0.0, maximum=1.0, resumable=True)
    depth: float = setting(0.0, "Regions are one halo if the saddle between them lies deeper inside the smaller one "
                                "than so many cells; 0 joins none, as in the paper.", demo=2.5, minimum=0.0,
                           resumable=True)
    dynamics: float = setting(0.0, "Regions are one halo if the lower of their peaks is less than this above the "
                                   "saddle between them; 0 joins none so, as in the paper.", minimum=0.0, maximum=1.0,
                              resumable=True)
    volume: str = setting("native", "Volume whose sphere turns the normalised distance into cells: `native`, that of "
                                    "the whole region, as in the paper's Eq. 4; `current`, that of the part above the "
                                    "threshold, as in runs of earlier versions.", choices=VOLUMES, resumable=True)
    calibration: str = setting("histogram", "How the adaptive cut is found: `histogram` matches each mass bin's count, "
                                            "as in the paper; `residual` then minimises the residual of the whole mass "
                                            "function.", demo="residual", choices=("histogram", "residual"),
                               resumable=True)

    def check(self):
        names_of(self.channels)
        parameter_names(self)
        if self.patch <= 2 * self.margin:
            raise SettingError(f"patch={self.patch} leaves no cell to the loss with margin={self.margin}: the patch "
                               "must be larger than twice the margin")
        if self.whole and self.margin:
            raise SettingError(f"margin={self.margin}: a whole box has no face from which to keep away; with "
                               "whole=True give margin=0", value=self.margin, accepted=(0, 0))
        if self.patch % 2**self.levels:
            raise SettingError(f"patch={self.patch} cannot be halved {self.levels} times, once per level: give a "
                               f"multiple of {2**self.levels}, or fewer `levels`")
