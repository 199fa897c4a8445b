"""Gradient-boosted trees, the baseline of several apps, by scikit-learn, which is an optional package."""

from kerasgal.errors import MissingError


def regressor(trees=500, *, stops=False, seed=0, **options):
    """Gradient-boosted trees, not fitted yet.

    Parameters
    ----------
    trees : int
        At most.
    stops : bool
        Whether the boosting ends where the loss on samples apart, `X_val` and `y_val` of its `fit`, stops falling.
    seed : int
        Of the fit.
    **options
        Of scikit-learn's `HistGradientBoostingRegressor`.

    Returns
    -------
    HistGradientBoostingRegressor

    Raises
    ------
    MissingError
        If scikit-learn is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> from kerasgal.trees import regressor
    >>> x = np.random.default_rng(0).uniform(size=(1000, 1))
    >>> model = regressor(50).fit(x, (x[:, 0] > 0.5).astype(float))
    >>> model.predict([[0.2], [0.8]]).round(1).tolist()
    [0.0, 1.0]
    """
    try:
        from sklearn.ensemble import HistGradientBoostingRegressor
    except ImportError as error:
        raise MissingError("the baseline needs the optional package scikit-learn: install kerasgal[baseline]") \
            from error
    return HistGradientBoostingRegressor(max_iter=trees, early_stopping=stops, random_state=seed, **options)
