"""What in the initial conditions decides a halo's mass (Lucie-Smith et al. 2020)."""

RUNS = {"halomass": "kerasgal.apps.halomass.run:HaloMass"}
