"""Deep learning for cosmic structure and galaxies."""

__version__ = "0.1.0"
