"""The tutorials as Jupyter notebooks, without outputs: ``python docs/notebooks.py FOLDER``."""

import re
import sys
from pathlib import Path

import jupytext

HERE = Path(__file__).parent
PAGES = [HERE / "python.md", *sorted((HERE / "tutorials").glob("*.md"))]


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


def write(folder):
    """Write the notebooks of all pages into a folder, and return their paths."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for page in PAGES:
        path = folder / f"{page.stem}.ipynb"
        jupytext.write(notebook(page), path, fmt="ipynb")
        paths.append(path)
    return paths


if __name__ == "__main__":
    for written in write(sys.argv[1]):
        print(written)
