"""What stands beside a run of cascade, without one: trees, halo models, another drawing, the exact expectation.

    python tests/benchmarks/cascade_bars.py TRAINING... --validation FILE --test FILES... [--figures PREFIX]

The table is that of `kerasgal cascade evaluate`; CPU seconds are of this process and its threads.
"""

import argparse
import logging
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("training", nargs="+")
    parser.add_argument("--validation", nargs="+", required=True)
    parser.add_argument("--test", nargs="+", required=True)
    parser.add_argument("--cell", type=float, default=0.390625)
    parser.add_argument("--figures")
    arguments = parser.parse_args()

    from kerasgal.apps.cascade import baseline, evaluate, figures, trees
    from kerasgal.apps.cascade.config import TrainConfig
    from kerasgal.config import preset, replace
    from kerasgal.plotting import save

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    config = replace(preset(TrainConfig, "demo"), {"cell": arguments.cell})
    start = time.process_time()
    models = baseline.halo_models(arguments.training, arguments.validation, config)
    counted = time.process_time()
    fitted = trees.fit(arguments.training, arguments.validation, config)
    print(f"halo models {counted - start:.0f} CPU s, trees {time.process_time() - counted:.0f} CPU s")
    start, measured = time.process_time(), []
    for source in arguments.test:
        sample, notes = evaluate.collect({}, evaluate.Bars(models, fitted), source, config)
        measured.append(evaluate.measure(sample))
        print("\n".join(notes), end="")
        for key, fields in sample.counts.items():
            print(f"{source[-12:]} {figures.label(key):34s}{sum(field.sum() for field in fields) / len(fields):8.0f}")
    whole = evaluate.averaged(measured, list(measured[0].numbers))
    result = {"table": [], "truth": {}, "runs": {}, "baselines": {}, "bounds": {}}
    for key in whole.numbers:
        evaluate.put(result, key, evaluate.entry_of(whole, key))
    print(f"measured in {time.process_time() - start:.0f} CPU s")
    print("\n".join(list(evaluate.lines(result))[1:]))
    if arguments.figures:
        save(figures.spectra(whole.k, whole.modes * len(measured), whole.curves), f"{arguments.figures}_power.png")
        save(figures.bispectra(whole.triangles, whole.bispectra, whole.masked), f"{arguments.figures}_bispectrum.png")
        save(figures.calibrations(whole.numbers), f"{arguments.figures}_calibration.png")
        save(figures.slices(sample, figures.ORACLE), f"{arguments.figures}_slices.png")


if __name__ == "__main__":
    main()
