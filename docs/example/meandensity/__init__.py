RUNS = {"meandensity": "kerasgal.apps.meandensity.run:MeanDensity"}
