"""What is asked of every app's runs and of everything that Keras must be able to load again.

A recipe says how an app is trained in seconds; an app without one fails `tests/test_harness.py`. The rest follows from
it: the trained run, its networks in other processes and on other backends.
"""

import dataclasses
import importlib.util
import os
import pkgutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

import keras
import numpy as np

import kerasgal.apps
from kerasgal import registry, simulation
from kerasgal.cosmology import Cosmology

BENCHMARKS = Path(__file__).parent / "benchmarks"
SIDE = 16  # cells of the inputs where a network leaves them free


@dataclasses.dataclass
class Recipe:
    """How to train an app on little: settings, the fixture of its data, variants of its networks, options of export.

    alike: its phases train one network and the same; graphs: whether the run of `conftest.trained` is trained with
    TensorFlow's graphs, which take a deep network a minute.
    """

    settings: dict
    data: str = "boxes"
    variants: tuple = ({},)
    export: dict = dataclasses.field(default_factory=dict)
    alike: bool = False
    graphs: bool = True


RECIPES = {
    "protohalo": Recipe({"minimum": 20, "patch": 16, "stride": 4, "margin": 4, "levels": 1, "filters": 4, "batch": 2,
                         "epochs": 2, "steps_per_epoch": 40},
                        variants=({"channels": "density,displacement,tide"}, {"parameters": "Om0,sigma8"})),
    "halomass": Recipe({"low": 11.9, "high": 13.8, "samples": 400, "validation_samples": 60, "patch": 7,
                        "convolutions": 3, "filters": 3, "dense": 12, "batch": 20, "padding": "none", "epochs": 1,
                        "steps_per_epoch": 20},
                       variants=({}, {"padding": "same", "patch": 9},
                                 {"input": "averaged", "padding": "same", "shells": 4},
                                 {"input": "multipoles", "padding": "same", "shells": 4},
                                 {"likelihood": "student_t"}, {"parameters": "Om0,sigma8"})),
    "cascade": Recipe({"patch": 16, "filters": 2, "recurrences": 0, "surroundings": False, "focus": 0, "batch": 4,
                       "epochs": 1, "steps_per_epoch": 1},
                      data="painted", graphs=False,
                      variants=({}, {"classifier": "r2unet", "scaling": "asinh", "filters": 4, "recurrences": 1,
                                     "surroundings": True, "channels": "density,finer"},
                                {"channels": "density,velocity", "parameters": "Om0,sigma8"})),
    "cascade diffusion": Recipe({"cell": 0.390625, "patch": 16, "depth": 8, "filters": 4, "levels": 1, "norm_groups": 0,
                                 "batch": 4, "epochs": 1, "steps_per_epoch": 1}, data="painted", graphs=False,
                                variants=({"filters": 8, "norm_groups": 4}, {"dimensions": 3, "patch": 8},
                                          {"attention": True, "schedule": "learned"}), export={"steps": 2}),
    "morph": Recipe({"crop": 64, "size": 8, "filters": 4, "mixtures": 2, "batch": 8, "epochs": 1, "steps_per_epoch": 1},
                    data="galaxies", variants=({"filters": 8, "size": 16},), alike=True, graphs=False),
}


def benchmark(name):
    """The script NAME.py of tests/benchmarks, as a module."""
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    with mock.patch.object(sys, "path", [*sys.path, str(BENCHMARKS)]):  # where they import each other
        spec.loader.exec_module(module)
    return module


def bars(app, result):
    """What tests/benchmarks/results.py says of the metrics.json of an evaluation: a text for each of its lines."""
    results = benchmark("results")
    return [results.judged(*line)[0] for line in results.JUDGES[app](result)]


def apps():
    """Names of all runs that are registered."""
    return list(registry.places())


def config_of(app, **settings):
    """The small configuration of an app."""
    cls = registry.run_class(app)
    return cls.configure(preset="demo", **{**RECIPES[app].settings, **settings})


def networks(app):
    """{name: network} of all variants of an app."""
    cls, found = registry.run_class(app), {}
    for number, settings in enumerate(RECIPES[app].variants):
        for phase in cls.phases[:1] if RECIPES[app].alike else cls.phases:
            made = cls.build(config_of(app, **settings), phase)
            # Of a model that is a loss around a network, the network
            found[f"{app}-{number}-{phase}"] = disturbed(getattr(made, "network", made))
    return found


def disturbed(network):
    """A network with noise on its weights: what begins at zero would hide what comes before it."""
    rng = np.random.default_rng(0)
    for variable in network.trainable_variables:
        variable.assign(np.asarray(variable) + 0.05 * rng.normal(size=variable.shape).astype(np.float32))
    return network


def register():
    """Import the modules of the apps that hold what Keras must know by name to load their networks."""
    for module in pkgutil.walk_packages(kerasgal.apps.__path__, "kerasgal.apps."):
        place = Path(module.module_finder.path, *module.name.rpartition(".")[2:]).with_suffix(".py")
        if place.exists() and "register_keras_serializable" in place.read_text(encoding="utf-8"):
            importlib.import_module(module.name)


def inputs_of(network, seed=0):
    """Something that a network takes: positive numbers, as densities are, in the shapes of its inputs, a list."""
    rng = np.random.default_rng(seed)
    shapes = [tuple(2 if axis == 0 else side or SIDE for axis, side in enumerate(item.shape))
              for item in network.inputs]
    return [np.abs(rng.normal(size=shape)).astype(np.float32) for shape in shapes]


def outputs_of(network, inputs):
    """What it makes of them, an array."""
    given = inputs if len(inputs) > 1 else inputs[0]
    if keras.backend.backend() == "jax":  # which compiles a network sooner than its operations one by one
        return network.predict_on_batch(given)
    return np.asarray(network(given, training=False))


def in_another_process(program, *arguments, backend="tensorflow"):
    """Run a program in a fresh process of another Keras backend; fails with what it says."""
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(Path(__file__).parent)}
    if backend == "jax":  # whose compiler takes longer than all else
        environment["XLA_FLAGS"] = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    done = subprocess.run([sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True,
                          env=environment, timeout=1500)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    return done.stdout


def sources(app, data):
    """What `Run.train` takes first, of the data of a recipe: two boxes, of which one validates, or images."""
    if app == "morph":
        return {"training": [data / "real.h5"], "archetypes": [data / "archetypes.h5"]}
    return {"training": data[:2]}


def box_of(position, velocity, boxsize=8.0, **more):
    """A simulation of particles that move, (p, 3) each, in memory."""
    return simulation.write(
        None, boxsize=boxsize, cosmology=Cosmology(), redshift_initial=50.0, redshift_final=0.0, particle_mass=1e10,
        source="made up", datasets={"initial/delta": np.zeros((8, 8, 8)), "final/position": position.astype("f4"),
                                    "final/velocity": velocity.astype("f4"), **more})


def arguments(app, data):
    """The same as arguments of the command, with the settings of the recipe."""
    given = sources(app, data)
    return given["training"] + [word for place in given.get("archetypes", []) for word in ("--archetypes", place)] \
        + flags(app)


def flags(app):
    """The settings of a recipe as flags."""
    words = []
    for name, value in {"preset": "demo", **RECIPES[app].settings}.items():
        flag = name.replace("_", "-")
        words += [f"--{flag}" if value else f"--no-{flag}"] if isinstance(value, bool) else [f"--{flag}", value]
    return words


def train(app, data, folder, **options):
    """Train an app by its recipe from Python."""
    options = {**sources(app, data), "preset": "demo", **RECIPES[app].settings, **options}
    return registry.run_class(app).train(run=folder, **options)
