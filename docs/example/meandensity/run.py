"""A trained run of meandensity: what its network is trained on, and what it says of a simulation."""

import numpy as np

from kerasgal.apps.meandensity import data
from kerasgal.apps.meandensity.config import TrainConfig
from kerasgal.apps.meandensity.model import cnn
from kerasgal.pipeline import patches, tiles
from kerasgal.run import Evaluation, Prediction, Run, as_list


class MeanDensity(Run):
    """The final mean density of a cube, from the initial density inside it."""

    app, Config, loss = "meandensity", TrainConfig, "mse"

    @staticmethod
    def build(config, phase=""):
        return cnn(config.filters)

    @staticmethod
    def batches(sources, config, seed=None, **options):
        inputs, targets = zip(*[data.load(source, config.patch) for source in sources])
        corners = [tiles(len(delta), 1) for delta in inputs]  # a cube begins at every cell
        return patches([(delta,) for delta in inputs], corners, config.patch, config.batch, targets=targets, seed=seed,
                       symmetries=None if seed is None else "reflections", **options)

    def predict(self, source, *, outside_domain=False):
        """Predicted and true mean density of every cube of a simulation, in units of the mean, in order."""
        notes = self.check_domain(source, outside_domain=outside_domain)
        predicted = self.network.predict(self.batches([source], self.config), verbose=0)
        true = data.load(source, self.config.patch)[1]
        return Prediction(self, source, {"predicted": np.exp(predicted[:, 0]), "true": np.exp(true[:, 0])}, notes)

    def evaluate(self, sources, **options):
        """The correlation of prediction and truth in simulations that the run never saw."""
        self.check_unseen(as_list(sources))
        made = [self.predict(source, **options) for source in as_list(sources)]
        r = [float(np.corrcoef(np.log(one["predicted"]), np.log(one["true"]))[0, 1]) for one in made]
        return Evaluation({"r": r}, [f"r = {value:.3f} between predicted and true ln density" for value in r])

    def served(self):
        return self.network, {"input": "initial density contrast / its standard deviation over the whole box"}
