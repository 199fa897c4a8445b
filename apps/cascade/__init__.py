"""From dark matter to galaxies: expected by a cascade of two networks, or drawn by a diffusion model."""

RUNS = {"cascade": "kerasgal.apps.cascade.run:Cascade",
        "cascade diffusion": "kerasgal.apps.cascade.diffusion.run:Diffusion"}
