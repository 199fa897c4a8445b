"""kerasgal beside its peers: training steps and PyTorch's, and what stands in for our tools, in one run.

    python tests/benchmarks/peers.py [--only NAME...] [--cores 1 2] [--rounds 5] [--keep] [--busy]
    python tests/benchmarks/peers.py --agree

It needs PyTorch: pip install '.[bench]'. Each network trains in three processes that take turns: ours as the command
line trains, with the pipeline of its app; PyTorch eager, channels first; and PyTorch with channels last. PyTorch gets
one batch that lies in memory as a NumPy array. The processes are pinned to the same cores, with as many threads. What
is compared is CPU seconds of a step over all rounds, the median of the rounds' ratios to the faster of PyTorch's
layouts. `--keep` lets PyTorch, too, keep freed memory (`kerasgal.quiet.keep_memory`). `--busy` gives each of the cores
another process that computes all the time: what is compared then is wall time, which must be no more than PyTorch's.
`--agree` gives both the same weights and compares numbers of parameters, outputs and losses.

The tools: from a map to a catalogue beside scikit-image (see `watershed.py`), the power spectrum beside NumPy's
transform and histograms, and the forces of an N-body step beside a particle mesh of arrays, of NumPy and of JAX. These
need no PyTorch. `--only` names networks and tools, one or several, or all of either: networks, tools.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np  # noqa: E402
from bars import verdict  # noqa: E402

AIMS = {"protohalo": 0.6, "halomass": 0.6, "r2unet": 0.8, "inception": 0.7, "pixelcnn": 0.8}
KINDS = ("ours", "torch", "torch channels-last")
BUSY = 1.0  # aim beside other processes, of the wall time
SECONDS = 2  # of CPU time, about, in which a process takes steps in its turn
TOOLS = ("watershed", "spectrum", "gravity")


def config_of(name):
    """Settings: the demo's of protohalo and halomass, else the paper's, with batches that two cores can take."""
    from kerasgal import registry

    app, preset, settings = {
        "protohalo": ("protohalo", "demo", {}), "halomass": ("halomass", "demo", {}),
        "r2unet": ("cascade", "paper", {"batch": 4}), "inception": ("cascade", "paper", {}),
        "pixelcnn": ("morph", "pixelcnn++", {"batch": 2}),
    }[name]
    return registry.run_class(app).configure(preset=preset, **settings)


def ours(name, config):
    """Our compiled network and its stream of batches, from made-up data."""
    rng = np.random.default_rng(0)
    if name == "protohalo":
        from kerasgal.apps.protohalo import train

        volumes = [tuple(rng.uniform(size=(64, 64, 64, 1)).astype(np.float32) for _ in range(2)) for _ in range(4)]
        return train.compiled(config), train.streams(volumes, [], config)[0](0)
    if name == "halomass":
        from kerasgal.apps.halomass import data, train

        particles, log_mass = rng.integers(0, 64**3, 5000), rng.uniform(config.low, config.high, 5000)
        field = rng.normal(size=(64, 64, 64, 1)).astype(np.float32)
        return (train.compiled(config, np.zeros(1), np.ones(1)),
                data.batches([data.Sample(particles, log_mass, particles, field)], config, seed=0))
    if name in ("r2unet", "inception"):
        from kerasgal.apps.cascade import train
        from kerasgal.pipeline import patches, tiles

        density = rng.lognormal(size=(128, 128, 128, 1)).astype(np.float32)
        target = (rng.uniform(size=(128, 128, 128, 2 if name == "r2unet" else 1)) < 0.1).astype(np.float32)
        stream = patches([(density, target)], [tiles(128, config.stride)], config.patch, config.batch, seed=0,
                         symmetries=config.symmetries)
        return train.compiled(config, "regress" if name == "r2unet" else "classify", None), stream
    from kerasgal import training
    from kerasgal.apps.morph.losses import LogisticMixture
    from kerasgal.apps.morph.model import initialise
    from kerasgal.apps.morph.score import build
    from kerasgal.pipeline import rows

    images = rng.uniform(size=(256, config.size, config.size, 1)).astype(np.float32)
    model = build(config)
    initialise(model, images[:config.batch])
    model.compile(training.optimizer(config), loss=LogisticMixture(config.bits))
    return model, rows([images], config.batch, seed=0).map(lambda image: (image, image))


def peer(name, config):
    """PyTorch's network, and its loss of a batch: a function of true values and outputs."""
    import torch_networks as networks

    if name == "protohalo":
        return (networks.UNet(config.levels, config.filters, config.dropout, config.output_slope),
                lambda true, output: networks.normalised_distance(true, output, config.margin))
    if name == "halomass":
        from kerasgal.apps.halomass.model import filters_of

        network = networks.HalomassNet(config.patch, filters_of(config.filters, config.convolutions),
                                       (config.dense, config.dense // 2), 0.2, config.scale_rate)
        return network, lambda true, output: (networks.selection_likelihood(true, output)
                                              + network.prior(config.prior_strength, config.last_prior))
    if name == "inception":
        return networks.Inception(), lambda true, output: networks.weighted_cross_entropy(true, output, config.w1)
    if name == "r2unet":
        return (networks.R2UNet(config.filters, config.recurrences, config.output_slope),
                lambda true, output: networks.weighted_squared_error(true, output, config.w2))
    return (networks.PixelCNN(config.blocks, config.filters, config.mixtures, config.dropout),
            networks.logistic_mixture)


def batch_in_memory(name, config):
    """Made-up inputs and true values as PyTorch has them, channels first; TensorFlow is not needed for them."""
    rng, cube = np.random.default_rng(0), (config.batch, 1, *(getattr(config, "patch", 0),) * 3)
    if name == "protohalo":
        made = rng.uniform(size=cube), rng.uniform(size=cube)
    elif name == "halomass":
        made = rng.normal(size=cube), rng.uniform(-1, 1, (config.batch, 1))
    elif name == "pixelcnn":
        made = (rng.uniform(size=(config.batch, 1, config.size, config.size)),) * 2
    else:
        channels = 2 if name == "r2unet" else 1
        made = rng.lognormal(size=cube), rng.uniform(size=(config.batch, channels, *cube[2:])) < 0.1
    return [part.astype(np.float32) for part in made]


def our_step(name, config):
    model, stream = ours(name, config)
    batches = iter(stream)
    return lambda: model.train_on_batch(*next(batches)), trainable(model)


def trainable(model):
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)


def peer_step(name, config, last):
    """A function that takes a step of training in PyTorch; `last`: channels last."""
    import torch

    network, loss_of = peer(name, config)
    batch = batch_in_memory(name, config)
    layout = torch.contiguous_format
    if last:
        layout = torch.channels_last if name == "pixelcnn" else torch.channels_last_3d
        network = network.to(memory_format=layout)
    optimizer = torch.optim.Adam(network.parameters(), config.learning_rate, amsgrad=name == "halomass", eps=1e-7)
    average = [part.detach().clone() for part in network.parameters()] if config.averaging else None

    def step():
        inputs, true = map(torch.from_numpy, batch)
        if last:
            inputs = inputs.contiguous(memory_format=layout)
        optimizer.zero_grad()
        loss = loss_of(true, network(inputs))
        loss.backward()
        if config.gradient_norm:
            torch.nn.utils.clip_grad_norm_(network.parameters(), config.gradient_norm)
        optimizer.step()
        if average:
            torch._foreach_lerp_(average, [part.detach() for part in network.parameters()], 1 - config.averaging)
        return loss.item()

    return step, sum(part.numel() for part in network.parameters())


def work(name, kind, cores, keep):
    """What a process does: two steps, then as many as each line of its input says."""
    cores = int(cores)
    pin(cores)
    if kind != "ours":
        import torch._dynamo  # noqa: F401: Triton, which comes with it, ends in a segmentation fault after TensorFlow
    from kerasgal.quiet import import_tensorflow, keep_memory

    if kind == "ours" or keep:
        keep_memory()
    config = config_of(name)
    if kind == "ours":
        import_tensorflow(sparing=True)
        step, parameters = our_step(name, config)
    else:
        import torch

        torch.set_num_threads(cores)
        step, parameters = peer_step(name, config, kind.endswith("last"))
    step()
    took = timed(step, 1)
    print(json.dumps({"parameters": parameters, "batch": config.batch, **took}), flush=True)
    for line in sys.stdin:
        print(json.dumps(timed(step, int(line))), flush=True)


def pin(cores):
    """Keep this process on so many cores, with as many threads of TensorFlow."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    os.environ["TF_NUM_INTRAOP_THREADS"] = os.environ["OMP_NUM_THREADS"] = str(cores)


def timed(step, times):
    """CPU and wall seconds of a step."""
    cpu, wall = time.process_time(), time.monotonic()
    for _ in range(times):
        step()
    return {"cpu": (time.process_time() - cpu) / times, "wall": (time.monotonic() - wall) / times}


@contextlib.contextmanager
def others(number):
    """So many processes that compute all the time, one on each of the first cores."""
    program = "import os, sys; os.sched_setaffinity(0, [int(sys.argv[1])])\nwhile True: pass"
    running = [subprocess.Popen([sys.executable, "-c", program, str(core)])
               for core in sorted(os.sched_getaffinity(0))[:number]]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def compare(name, cores, rounds, keep, busy=False):
    """Let the three processes take turns; print their medians, and the ratio with its aim."""
    workers = {kind: subprocess.Popen([sys.executable, __file__, "--work", name, kind, str(cores),
                                       *(["--keep"] if keep else [])],
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for kind in KINDS}
    answers = {kind: [] for kind in KINDS}
    try:
        begun = {kind: json.loads(worker.stdout.readline() or fail(name, kind)) for kind, worker in workers.items()}
        if len({found["parameters"] for found in begun.values()}) > 1:
            raise SystemExit(f"{name}: the networks have other numbers of parameters: {begun}")
        steps = max(1, round(SECONDS / max(found["cpu"] for found in begun.values())))
        with others(cores if busy else 0):
            for _ in range(rounds):
                for kind, worker in workers.items():
                    print(steps, file=worker.stdin, flush=True)
                    answers[kind].append(json.loads(worker.stdout.readline() or fail(name, kind)))
    finally:
        for worker in workers.values():
            worker.stdin.close()
            worker.wait()
    batch, where = begun["ours"]["batch"], f"{cores} core{'s' * (cores > 1)}{' with others' * busy}"
    print(f"{name}, {begun['ours']['parameters']:,} parameters, batch {batch}, {where}")
    judge(name, where, batch, answers, busy)


def judge(name, where, batch, answers, busy):
    """Print the medians of what the processes answered, {kind: seconds of each round}, and the ratio with its aim."""
    for kind, found in answers.items():
        cpu, wall = (statistics.median(one[key] for one in found) / batch * 1000 for key in ("cpu", "wall"))
        print(f"  {kind:20s}{cpu:10.2f} CPU ms per sample{wall:10.2f} ms wall")
    for key in ("cpu", "wall"):
        ratios = [own[key] / min(one[key], other[key]) for own, one, other in zip(*answers.values())]
        if busy and key == "cpu":
            print(f"  CPU time, ours / torch of the faster layout: {statistics.median(ratios):.2f}", flush=True)
            continue
        verdict(f"{name}, {where}, {'CPU' if key == 'cpu' else key} time, ours / torch of the faster layout",
                statistics.median(ratios), BUSY if busy else AIMS[name])


def fail(name, kind):
    raise SystemExit(f"{name}: {kind} ended without an answer")


def agree(name):
    """Give both networks the same weights; compare parameters, outputs and losses."""
    import torch
    import torch_networks as networks

    from kerasgal.quiet import import_tensorflow

    import_tensorflow()
    config = config_of(name)
    model, stream = ours(name, config)
    rng = np.random.default_rng(0)
    for variable in model.trainable_variables:  # what begins at zero would hide what comes before it
        noise = rng.normal(size=variable.shape).astype(np.float32)
        variable.assign(np.asarray(variable) + 0.02 * noise)
    inputs, true = (np.asarray(part) for part in next(iter(stream)))
    inputs, true = inputs[:2], true[:2]
    network, loss_of = peer(name, config)
    networks.copy(model, network)
    network.eval()
    with torch.no_grad():
        theirs = network(torch.from_numpy(np.moveaxis(inputs, -1, 1).copy()))
        loss = loss_of(torch.from_numpy(np.moveaxis(true, -1, 1).copy()), theirs).item()
    own = model(inputs, training=False)
    own_loss = float(model.compute_loss(inputs, true, own))
    own, theirs = np.asarray(own), np.moveaxis(theirs.numpy(), 1, -1)
    counts = trainable(model), sum(part.numel() for part in network.parameters())
    off = np.abs(own - theirs).max() / own.std()
    print(f"{name}: {counts[0]:,} and {counts[1]:,} parameters; outputs differ by at most {off:.1e} of their standard "
          f"deviation; losses {own_loss:.6g} and {loss:.6g}", flush=True)
    if counts[0] != counts[1] or off > 1e-3 or abs(loss - own_loss) > 1e-3 * abs(own_loss):
        raise SystemExit(f"{name}: the two networks are not the same")


def watershed_beside_scikit_image():
    """A periodic map of 256^3 cells to a catalogue, in processes of their own."""
    import watershed

    with tempfile.TemporaryDirectory() as os.environ["NUMBA_CACHE_DIR"]:
        watershed.measure("ours", 32)  # compiled
        own, plain = watershed.measure("ours", 256), watershed.measure("plain", 256)
    verdict("watershed to catalogue, CPU time, ours / scikit-image", own["cpu"] / plain["cpu"], 0.35)


def alternated(what, ways, aim, rounds=5):
    """Let ways, {name: function}, take turns in this process; print their CPU seconds, and the first over the fastest
    other."""
    for way in ways.values():  # what is compiled is compiled here
        way()
    took = [[timed(way, 1)["cpu"] for way in ways.values()] for _ in range(rounds)]
    for name, seconds in zip(ways, zip(*took)):
        print(f"  {what}: {name} {statistics.median(seconds):.3f} CPU s", flush=True)
    own, *others = ways
    verdict(f"{what}, CPU time, {own} / {' or '.join(others)}",
            statistics.median(first / min(rest) for first, *rest in took), aim)


def spectrum_beside_numpy(n=256, boxsize=100.0):
    """The power spectrum of a field beside the plain way."""
    from kerasgal.statistics import power_spectrum

    delta = np.random.default_rng(0).normal(size=(n, n, n)).astype(np.float32)
    edges = np.arange(0.5, n // 2) * 2 * np.pi / boxsize

    def plain():
        modes = np.abs(np.fft.rfftn(delta))**2 * boxsize**3 / float(n)**6
        k = 2 * np.pi / boxsize * n * np.sqrt(sum(axis**2 for axis in np.meshgrid(
            np.fft.fftfreq(n), np.fft.fftfreq(n), np.fft.rfftfreq(n), indexing="ij", sparse=True)))
        weight = np.full(modes.shape, 2.0)
        weight[..., 0] = weight[..., -1] = 1
        number, _ = np.histogram(k, edges, weights=weight)
        return np.histogram(k, edges, weights=weight * modes)[0] / number

    ways = {"ours": lambda: power_spectrum(delta, boxsize, bins=edges)[1], "NumPy": plain}
    np.testing.assert_allclose(*(way() for way in ways.values()), rtol=1e-4)
    alternated(f"power spectrum of {n}^3 cells", ways, 1, rounds=3)


def plain_gravity(xp, position, n, boxsize):
    """`kerasgal.nbody.gravity` as one writes it with arrays alone, of NumPy or of JAX: (particles, 3) float32."""
    at = position * np.float32(n / boxsize) - np.float32(0.5)
    first = xp.floor(at).astype(np.int32)
    share, flat, weights = at - first, [], []
    for corner in np.ndindex(2, 2, 2):
        index = (first + np.array(corner, np.int32)) % n
        flat.append((index[:, 0] * n + index[:, 1]) * n + index[:, 2])
        weights.append(xp.prod(xp.where(np.array(corner) == 1, share, 1 - share), axis=1))
    more = {"length": n**3} if xp is not np else {}
    density = sum(xp.bincount(cell, weight, minlength=n**3, **more) for cell, weight in zip(flat, weights))
    density = (density.reshape(n, n, n) * (n**3 / len(position))).astype(np.float32)
    cell = boxsize / n
    wave = 2 * np.pi * np.fft.fftfreq(n, cell).astype(np.float32)
    k = np.meshgrid(wave, wave, np.abs(wave[:n // 2 + 1]), indexing="ij", sparse=True)
    squared = sum(axis**2 for axis in k)
    squared[0, 0, 0] = np.inf
    window = np.prod(np.broadcast_arrays(*(np.sinc(axis * cell / (2 * np.pi))**2 for axis in k)), axis=0)
    phi = xp.fft.rfftn(density) / (-squared * window)
    force = []
    for axis in k:  # the derivative of four neighbours
        slope = ((8 * np.sin(axis * cell) - np.sin(2 * axis * cell)) / (6 * cell)).astype(np.float32)
        field = xp.fft.irfftn(-1j * slope * phi, (n, n, n), (0, 1, 2)).astype(np.float32).ravel()
        force.append(sum(field[cell] * weight for cell, weight in zip(flat, weights)))
    return xp.stack(force, axis=1)


def gravity_beside_arrays(particles=64, boxsize=50.0):
    """The force of an N-body step, on a mesh of twice as many cells a side, beside NumPy's arrays and JAX's."""
    import functools

    import jax

    from kerasgal.nbody import gravity

    n, rng = 2 * particles, np.random.default_rng(0)
    steps = rng.normal(size=(particles**3, 3)).cumsum(axis=0)  # a clustered walk
    position = (steps * 0.3 % boxsize).astype(np.float32)
    compiled = jax.jit(functools.partial(plain_gravity, jax.numpy, n=n, boxsize=boxsize))
    ways = {"ours": lambda: gravity(position, n, boxsize), "NumPy": lambda: plain_gravity(np, position, n, boxsize),
            "JAX": lambda: np.asarray(compiled(position))}
    own, *others = (way() for way in ways.values())
    for other in others:
        assert np.abs(own - other).max() < 1e-3 * own.std(), np.abs(own - other).max() / own.std()
    alternated(f"forces of {particles}^3 particles", ways, 1)


def main(chosen):
    networks, tools = ([name for name in known if {name, group} & set(chosen.only)]
                       for group, known in (("networks", AIMS), ("tools", TOOLS)))
    if find_spec("torch") is None and networks:
        raise SystemExit(f"the networks need PyTorch: pip install '.[bench]', or name tools: --only {' '.join(TOOLS)}")
    if chosen.agree:
        for name in networks:
            agree(name)
        return
    for name in networks:
        for cores in chosen.cores:
            compare(name, cores, chosen.rounds, chosen.keep, chosen.busy)
    for name in tools:
        {"watershed": watershed_beside_scikit_image, "spectrum": spectrum_beside_numpy,
         "gravity": gravity_beside_arrays}[name]()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=["networks", "tools"], metavar="NAME",
                        choices=["networks", "tools", *AIMS, *TOOLS],
                        help=f"of {', '.join((*AIMS, *TOOLS))}, or networks or tools")
    parser.add_argument("--cores", nargs="*", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--busy", action="store_true")
    parser.add_argument("--agree", action="store_true")
    parser.add_argument("--work", nargs=3, metavar=("NAME", "KIND", "CORES"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(*arguments.work, arguments.keep)
    else:
        main(arguments)
