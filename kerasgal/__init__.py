"""Deep learning for cosmic structure and galaxies.

    import kerasgal as kg

    box = kg.simulate(particles=64, boxsize=50, seed=1)
    haloes = kg.load("RUN").predict(box)
    haloes.table
    haloes.plot()
    haloes.save("haloes.h5")

`load` opens a trained run, or a network that comes with kerasgal and is listed by `models`; `train` makes one, and
`plan` says what that would take. Both give one of the run classes (Protohalo, HaloMass, Cascade, Diffusion, Morph),
whose `predict` and `evaluate` take paths, opened files or arrays. `simulate` and `convert` make Simulation files,
`open` opens any file of ours. All errors that a user can mend are `DataError`s.
"""

import os as _os

__version__ = "0.2.0"

# TensorFlow reads it when it is imported. On processors without AVX-512 it leaves oneDNN's kernels off by itself, and a
# training step of the U-Net then takes three times as long.
_os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

# Imported where they are first asked for: `import kerasgal` and `kerasgal --help` must not wait for TensorFlow.
_PLACES = {
    **dict.fromkeys(("load", "train", "plan", "Run", "Prediction", "Evaluation"), "kerasgal.run"),
    "models": "kerasgal.networks",
    "open": "kerasgal.opening",
    "simulate": "kerasgal.simulations",
    "convert": "kerasgal.readers.convert",
    "Simulation": "kerasgal.simulation",
    "ImageSet": "kerasgal.imageset",
    "Cosmology": "kerasgal.cosmology",
    **dict.fromkeys(("DataError", "MissingError", "ExistsError", "DamagedError", "SettingError", "RunError",
                     "DomainError", "UnseenError"), "kerasgal.errors"),
    "TrainingInterrupted": "kerasgal.training",
}


def __getattr__(name):
    import importlib

    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    if name == "__all__":  # with the runs of all apps, as `help` shows what is there alone
        from kerasgal.registry import run_class_names

        return [*_PLACES, *run_class_names()]
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name[:1].isupper():
        from kerasgal.registry import run_class_called

        found = run_class_called(name)
        if found is not None:
            return found
    module = f"{__name__}.{name}"
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None


def __dir__():
    from kerasgal.registry import run_class_names

    return sorted({*_PLACES, *run_class_names(), "__version__", "apps"})
