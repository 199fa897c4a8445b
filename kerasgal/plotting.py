"""Figures that every app draws and the one way they are saved, and progress in the terminal."""

from kerasgal.files import replacing


def figure(columns=1, rows=1, width=4.5, height=3.6, **options):
    """A Matplotlib figure and its axes, without a display."""
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(width * columns, height * rows), layout="constrained")
    return drawing, drawing.subplots(rows, columns, **options)


def save(drawing, path):
    """Save a figure under `path`, whole or not at all."""
    with replacing(path) as temporary:
        drawing.savefig(temporary, dpi=150)


def progress_bar():
    """A progress bar that vanishes when it is done, on the error stream: what is printed stays clean."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    return Progress(console=console, transient=True, disable=not console.is_terminal)


def track(items, description):
    """Iterate over a list under a progress bar."""
    with progress_bar() as progress:
        yield from progress.track(items, description=description)


def loss_curve(history, path):
    """Draw training and validation loss against epoch from the rows of a run's history."""
    drawing, axes = figure()
    epoch = [row["epoch"] for row in history]
    for name, label in (("loss", "training"), ("val_loss", "validation")):
        if name in history[0]:
            axes.plot(epoch, [row[name] for row in history], marker=".", label=label)
    axes.set(xlabel="epoch", ylabel="loss")
    axes.legend(frameon=False)
    save(drawing, path)
