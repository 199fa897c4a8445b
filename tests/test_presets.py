"""The presets `paper` at tiny sizes: which losses they compile, by their formulas, and that they take a batch."""

import keras
import numpy as np
import pytest

import kerasgal as kg
from kerasgal import training
from kerasgal.apps.cascade.losses import WeightedCrossEntropy, WeightedSquaredError
from kerasgal.apps.halomass.losses import SelectionLikelihood
from kerasgal.apps.morph.losses import Normal
from kerasgal.apps.protohalo.losses import NormalisedDistance

pytestmark = pytest.mark.usefixtures("eager")


def stepped(network, *batch):
    """The loss of a batch before a step of training on it, which changes the weights."""
    loss = np.ravel(network.test_on_batch(*batch))[0]
    before = [np.array(weight) for weight in network.trainable_weights]
    assert np.isfinite(network.train_on_batch(*batch)).all()
    assert any((np.asarray(new) != old).any() for new, old in zip(network.trainable_weights, before))
    return loss


def test_protohalo_takes_the_absolute_differences_within_the_margin():
    from kerasgal.apps.protohalo.train import compiled

    config = kg.Protohalo.configure(preset="paper", patch=16, margin=4, levels=1, filters=2, batch=2)
    network, rng = compiled(config), np.random.default_rng(0)
    seen, true = rng.normal(size=(2, 16, 16, 16, 1)).astype("f4"), rng.random((2, 16, 16, 16, 1), "f4")
    assert type(network.loss) is NormalisedDistance
    inner = np.s_[:, 4:-4, 4:-4, 4:-4]
    predicted = np.asarray(network(seen, training=False))
    expected = np.abs(true - predicted)[inner].sum() / true[inner].sum()
    assert stepped(network, seen, true) == pytest.approx(expected, rel=1e-4)


def test_protohalo_is_table_1_on_the_map_as_it_is():
    """Bernardini et al. 2020: 14,590,741 weights, a ReLU at the end, a histogram that calibrates, no smoothing."""
    config = kg.Protohalo.configure(preset="paper")
    assert kg.Protohalo.build(config).count_params() == 14_590_741
    assert config.output_slope == 0 and config.calibration == "histogram" and config.flooded == "map"
    assert not any((config.smoothing, config.marker, config.floor, config.depth, config.dynamics))


def test_halomass_takes_a_cauchy_likelihood_and_the_priors_of_the_authors_code():
    from kerasgal.apps.halomass.train import compiled

    config = kg.HaloMass.configure(preset="paper", patch=9, convolutions=3, filters=2, dense=8, batch=4)
    network, rng = compiled(config, np.zeros(1), np.ones(1)), np.random.default_rng(0)
    assert (config.alpha, type(network.loss), config.likelihood) == (-1, SelectionLikelihood, "cauchy")
    convolutions = [layer for layer in network.layers if isinstance(layer, keras.layers.Conv3D)]
    assert len(convolutions) == 3
    assert [float(layer.kernel_regularizer.l2) for layer in convolutions] == pytest.approx([10**-2.5] * 3)
    seen, true = rng.normal(size=(4, 9, 9, 9, 1)).astype("f4"), rng.uniform(-1, 1, (4, 1)).astype("f4")
    assert np.isfinite(stepped(network, seen, true))


def test_cascade_takes_the_papers_two_losses_and_a_relu():
    from kerasgal.apps.cascade.train import compiled

    config = kg.Cascade.configure(preset="paper", patch=16, filters=2, recurrences=0, batch=1)
    keras.utils.set_random_seed(0)  # with some weights the ReLU is dead
    rng = np.random.default_rng(0)
    density, counts = rng.lognormal(size=(1, 16, 16, 16, 1)).astype("f4"), rng.poisson(0.1, (1, 16, 16, 16, 1))
    called = rng.integers(0, 2, counts.shape)
    classifier, regressor = (compiled(config, phase, None) for phase in ("classify", "regress"))
    assert [type(network.loss) for network in (classifier, regressor)] == [WeightedCrossEntropy, WeightedSquaredError]
    chance = np.asarray(classifier(density, training=False))
    logarithms = np.where(counts[..., 0] > 0, 500 * np.log(chance[..., 1]), np.log(chance[..., 0]))
    assert classifier.test_on_batch(density, counts.astype("f4")) == pytest.approx(-logarithms.mean() / 501, rel=1e-4)
    number = np.asarray(regressor(density, training=False))
    assert (number >= 0).all() and (number == 0).any() and (number > 0).any()  # of a ReLU; softplus has no zeros
    expected = (called * np.where(counts > 0, 1.05, 1) * (number - counts)**2).sum()
    target = np.concatenate([counts, called], axis=-1).astype("f4")
    assert regressor.test_on_batch(density, target) == pytest.approx(expected, rel=1e-4)


def test_morph_takes_the_likelihood_of_one_normal_distribution():
    from kerasgal.apps.morph import score
    from kerasgal.apps.morph.losses import loss_of

    config = kg.Morph.configure(preset="paper", size=8, blocks=1, filters=4, batch=2)
    network, images = score.build(config), np.random.default_rng(0).random((2, 8, 8, 1), "f4")
    network.compile(training.optimizer(config), loss=loss_of(config))
    assert type(network.loss) is Normal
    assert np.isfinite(network.test_on_batch(images, images))
