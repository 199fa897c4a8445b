"""How real a galaxy looks (Zanisi et al. 2020)."""

RUNS = {"morph": "kerasgal.apps.morph.run:Morph"}
