"""The tutorials as Jupyter notebooks with their outputs: ``python docs/notebooks.py FOLDER [NAME...]``.

Each runs in a folder of its own, which is thrown away. A NAME is that of a page, such as thirty_seconds; without any,
all are written.
"""

import re
import sys
import tempfile
import time
from pathlib import Path

import jupytext

HERE = Path(__file__).parent
PAGES = [HERE / "python.md", *sorted((HERE / "tutorials").glob("*.md"))]
SECONDS = 600  # that a cell may take


def notebook(page):
    """The notebook of a page in MyST: its text and its code, with links that lead nowhere outside the site left out."""
    made = jupytext.read(page, fmt="md:myst")
    for cell in made.cells:
        if cell.cell_type != "markdown":
            continue
        lines = [line for line in cell.source.splitlines() if "{download}" not in line]
        text = "\n".join(lines)
        cell.source = re.sub(r"\[([^\]]*)\]\((?!https?:)[^)]*\)", r"\1", text)
    made.cells = [cell for cell in made.cells if cell.source.strip()]
    made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    for name in ("file_format", "jupytext"):
        made.metadata.pop(name, None)
    return made


def run(made):
    """Run a notebook, which gets its outputs; raises nbclient's CellExecutionError where a cell fails."""
    from nbclient import NotebookClient

    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(made, timeout=SECONDS, resources={"metadata": {"path": folder}}).execute()
    for cell in made.cells:
        cell.metadata.pop("execution", None)  # when it ran
        if cell.cell_type == "code" and cell.metadata.get("mystnb", {}).get("output_stderr") != "show":
            # progress bars, and notices of TensorFlow, as on the site
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return made


def write(folder, names=(), outputs=True):
    """Write the notebooks of pages into a folder, and return their paths.

    names: of pages; all without any. Raises ValueError for one that there is not.
    """
    folder = Path(folder)
    pages = {page.stem: page for page in PAGES}
    for name in names:
        if name not in pages:
            raise ValueError(f"no page called {name}; there are {', '.join(pages)}")
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in names or pages:
        path = folder / f"{name}.ipynb"
        began = time.perf_counter()
        made = notebook(pages[name])
        if outputs:
            run(made)
            print(f"{path}: ran in {time.perf_counter() - began:.0f} s", flush=True)
        jupytext.write(made, path, fmt="ipynb")
        paths.append(path)
    return paths


if __name__ == "__main__":
    write(sys.argv[1], sys.argv[2:])
