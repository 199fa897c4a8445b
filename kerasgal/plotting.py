"""Figures that every app draws and the one way they are saved, and progress in the terminal."""

import contextlib
import functools
import importlib.util
import io
import time

from kerasgal.files import replacing

FORMATS = ("png", "pdf", "svg")
DPI = 150

shown = True  # whether progress is; --quiet sets it


@functools.cache
def _figure_class():
    """Matplotlib's Figure, which notebooks show only where pyplot has been imported, with a picture of itself."""
    import matplotlib.figure

    class Figure(matplotlib.figure.Figure):
        def _repr_png_(self):
            return png(self, dpi=self.dpi)

    return Figure


def figure(columns=1, rows=1, width=4.5, height=3.6, **options):
    """A Matplotlib figure and its axes, without a display; a notebook shows it."""
    drawing = _figure_class()(figsize=(width * columns, height * rows), layout="constrained")
    return drawing, drawing.subplots(rows, columns, **options)


def save(drawing, path):
    """Save a figure under `path`, whole or not at all."""
    with replacing(path) as temporary:
        drawing.savefig(temporary, dpi=DPI)


def png(drawing, dpi=DPI):
    """A figure as the bytes of a PNG."""
    picture = io.BytesIO()
    drawing.savefig(picture, format="png", dpi=dpi)
    return picture.getvalue()


def progress_bar(*columns):
    """A progress bar that vanishes when it is done, on the error stream: what is printed stays clean.

    columns: of rich; its own usual ones without any. None is shown where `shown` of this module is False.
    """
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    # Without ipywidgets rich writes a warning into a notebook instead, wherever a bar would be.
    possible = importlib.util.find_spec("ipywidgets") is not None if console.is_jupyter else console.is_terminal
    return Progress(*columns, console=console, transient=True, disable=not (shown and possible))


def track(items, description, total=None):
    """Iterate over a list under a progress bar; over anything else with a `total`, how many there are."""
    with progress_bar() as progress:
        yield from progress.track(items, total=total, description=description)


def loss_curve(history, best=None):
    """A figure of training and validation loss against epoch, from the rows of a run's history.

    best: the epoch whose weights are kept, which is marked.
    """
    from matplotlib.ticker import MaxNLocator

    drawing, axes = figure()
    epoch = [row["epoch"] for row in history]
    shown = [(name, label) for name, label in (("loss", "training"), ("val_loss", "validation")) if name in history[0]]
    for name, label in shown:
        axes.plot(epoch, [row[name] for row in history], marker=".", label=label)
    kept = [row for row in history if row["epoch"] == best]
    if kept:
        axes.plot(best, kept[0][shown[-1][0]], "o", mfc="none", mec="black", ms=10, label=f"best, epoch {best:g}")
    axes.set(xlabel="epoch", ylabel="loss")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False)
    return drawing


def loss_curves(folders):
    """A figure of the losses of several run folders against epoch: training dashed, validation in full.

    Each run has a colour; of one with several networks each has. Raises RunError for a folder without an epoch, and one
    that is given twice.
    """
    from pathlib import Path

    from matplotlib.ticker import MaxNLocator

    from kerasgal import run_folder
    from kerasgal.errors import RunError

    histories = {}
    for name, folder in run_folder.named(folders).items():
        # Runs of several networks have a folder for each.
        parts = [place.parent for pattern in ("history.csv", "*/history.csv")
                 for place in sorted(Path(folder).glob(pattern))]
        rows = {name if part == Path(folder) else f"{name}, {part.name}": run_folder.read_history(part)
                for part in parts}
        if not any(rows.values()):
            raise RunError(f"{folder} has no history of an epoch: it is no run folder, or its training has just begun")
        histories |= {label: part for label, part in rows.items() if part}
    drawing, axes = figure(width=6)
    for number, (label, rows) in enumerate(histories.items()):
        epoch = [row["epoch"] for row in rows]
        validated = "val_loss" in rows[0]
        style = {"linestyle": "--"} if validated else {"label": f"{label}, training"}
        axes.plot(epoch, [row["loss"] for row in rows], color=f"C{number % 10}", linewidth=1, **style)
        if validated:
            axes.plot(epoch, [row["val_loss"] for row in rows], color=f"C{number % 10}", label=label)
    axes.set(xlabel="epoch", ylabel="loss; dashed: of the training")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, fontsize="small")
    return drawing


@contextlib.contextmanager
def progress(description):
    """Yield a function (done, total) that moves a progress bar, for what is given such a function."""
    with progress_bar() as bar:
        task = bar.add_task(description, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextlib.contextmanager
def counted(description):
    """Yield a function that adds to a number, which is shown with its rate, where its end is not known."""
    from rich.progress import TextColumn

    start, done = time.monotonic(), 0
    with progress_bar(TextColumn("{task.description}")) as bar:
        task = bar.add_task(description, total=None)

        def add(number):
            nonlocal done
            done += number
            rate = done / max(time.monotonic() - start, 1e-3)
            bar.update(task, description=f"{description}: {done:,}, {rate:,.1f} a second")

        yield add


def counting(items, description):
    """Iterate over what has no known end under a count of how much is done, with its rate."""
    with counted(description) as add:
        for item in items:
            yield item
            add(1)
