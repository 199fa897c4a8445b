"""Haloes from initial conditions (Bernardini et al. 2020)."""

RUNS = {"protohalo": "kerasgal.apps.protohalo.run:Protohalo"}
