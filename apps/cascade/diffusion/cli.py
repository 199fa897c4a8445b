"""kerasgal cascade diffusion: galaxies drawn from the dark matter (Kingma et al. 2021; Ono et al. 2024)."""

import click

from kerasgal.apps.cascade.diffusion.config import SAMPLERS, DiffusionConfig
from kerasgal.cluster import connect
from kerasgal.commands import App, old_command, old_option, standard_commands, together
from kerasgal.commands.base import DASK, PARAMETER


@click.group(cls=App)
def diffusion():
    """Galaxies drawn from the density of dark matter, by a variational diffusion model: many draws for one field.

    With --drawn matter it is the other way round.

    Kingma, Salimans, Poole & Ho 2021, arXiv:2107.00630; Ono et al. 2024, arXiv:2403.10648; Sether 2024.
    """


sampling_options = together([
    click.option("--steps", type=click.IntRange(1), default=25, show_default=True, help="Steps of the sampler."),
    click.option("--sampler", type=click.Choice(SAMPLERS), default="ancestral",
                 show_default=True, help="With fresh noise in each step; the same to second order; or without noise."),
    click.option("--seed", type=click.IntRange(0), default=0, show_default=True),
    click.option("--tile", type=click.IntRange(8), help="Cells per side that pass through the network at once. A "
                                                        "border of them is thrown away, as wide as its convolutions "
                                                        "see if that leaves a quarter.  [default: the whole map or "
                                                        "box, or what memory holds]"),
])


@old_option("--groups", "norm_groups", type=click.IntRange(0))
@old_option("--clip", "gradient_norm", type=click.FloatRange(0))
def train(cls, simulations, **options):
    """Train on SIMULATIONS, Simulation files with a final density and galaxies.

    The last of several is validated on. Without any, simulations with painted galaxies are made first (128^3 particles,
    50 Mpc/h) and the demo preset is used. --resume needs nothing but --run. The loss is the bound on -log2 p, in bits
    per cell; its three parts are in history.csv. Of galaxies p is a probability, of matter a density of the field.
    """
    return cls.train(simulations, **options)


@click.option("--draws", type=click.IntRange(1), default=8, show_default=True, help="Draws for each map, or the box.")
@click.option("--axis", type=click.Choice(["x", "y", "z"]), default="z", show_default=True,
              help="Along which the maps are taken, all there are; of no meaning for boxes.")
@sampling_options
@PARAMETER
def predict(run, source, **options):
    """Draw galaxies for each of SIMULATIONS from its dark matter, or the reverse, with the trained RUN."""
    return run.predict(source, **options)


@click.option("--regressor", type=click.Path(file_okay=False), metavar="RUN",
              help="A trained `kerasgal cascade` run to compare with: catalogues drawn from its mean field.")
@click.option("--hod", type=click.Path(dir_okay=False), metavar="FILE",
              help="Parameters of the halo model, written by `kerasgal cascade hod`.  [default: fitted to the "
                   "simulations that RUN was trained on]")
@click.option("--draws", type=click.IntRange(2), default=16, show_default=True, help="Draws for each map, or the box.")
@click.option("--maps", type=click.IntRange(1), help="Maps of each simulation, along z.  [default: all]")
@sampling_options
@click.option("--study", is_flag=True, help="Also draw with all samplers in few and many steps, and compare.")
@DASK
def evaluate(run, simulations, *, dask, **options):
    """Hold draws of the trained RUN against SIMULATIONS whose galaxies it never saw, against trees and the halo model.

    Occupied cells, power spectra with their scatter from draw to draw, cross-correlation also with draws given another
    map's density, the truth's rank among the draws, what the parameters do, if there are any, and how draws of what RUN
    was trained on are, where that is still there. Trees are fitted to that, too, and see what the network sees.
    Galaxies that `kerasgal simulate` painted are painted again, which says what is chance.
    """
    with connect(dask) as client:
        return run.evaluate(simulations, client=client, **options)


@click.option("--steps", type=click.IntRange(1), default=20, show_default=True,
              help="Steps of the deterministic sampler, which is in the graph.")
def export(run, directory, **options):
    """Write the trained RUN, network and deterministic sampler in one, as a TensorFlow SavedModel.

    It takes the density in units of its mean and standard normal noise, (batch, x, y, 1) or (batch, x, y, z, 1) each,
    and of a run with parameters these, (batch, p); it returns numbers of galaxies, another draw for other noise. A run
    with a regressor takes two channels in the place of the density, one that draws matter galaxies: kerasgal.json
    beside it says which.
    """
    return run.export(directory, **options)


standard_commands(diffusion, "kerasgal.apps.cascade.diffusion.run:Diffusion", DiffusionConfig, train=train,
                  predict=predict, evaluate=evaluate, export=export)
old_command(diffusion, "sample", "predict")
