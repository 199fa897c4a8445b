import os
import sys
from pathlib import Path

from jupyter_cache import get_cache
from jupyter_cache.executors import load_executor
from myst_nb.core import render

from kerasgal import __version__

sys.path.insert(0, str(Path(__file__).parent))
import notebooks  # noqa: E402

# The tutorials call `kerasgal` as a shell does, and TensorFlow's notices at start-up teach nothing.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["TTY_COMPATIBLE"] = "0"  # no colours and progress bars, which Jupyter asks for

project = "kerasgal"
author = "The kerasgal authors"
release = __version__
copyright = "2026, The kerasgal authors. MIT licence"
extensions = ["myst_nb", "sphinx_click", "sphinx_design", "sphinx.ext.autodoc", "numpydoc"]
html_theme = "pydata_sphinx_theme"
html_title = f"kerasgal {release}"
html_theme_options = {
    "logo": {"text": "kerasgal"},
    "navigation_with_keys": False,
    "header_links_before_dropdown": 4,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": ["theme-version"],
    "show_prev_next": False,
}
html_context = {"default_mode": "auto"}
html_sidebars = {"index": []}
html_show_sourcelink = False
myst_enable_extensions = ["colon_fence"]
exclude_patterns = ["_build", "example"]
myst_heading_anchors = 3
default_role = "py:obj"  # a name in backticks in a docstring is a link where it stands in the reference
numpydoc_show_class_members = False
autodoc_member_order = "bysource"

# Tutorials run where a build finds them new or changed; `make clean` forgets what they gave.
nb_execution_mode = "cache"
nb_execution_cache_path = str(Path(__file__).parent / "_build" / ".jupyter_cache")
nb_execution_in_temp = True
nb_execution_timeout = notebooks.SECONDS
nb_execution_raise_on_error = True
nb_merge_streams = True
nb_output_stderr = "remove"  # progress bars, and notices of TensorFlow; a cell that shows an error asks for it


def joined(outputs):
    """Outputs of a cell, the pieces of its text streams put together.

    IPython hands a shell's output over in pieces of 100 bytes, and myst-nb begins a new line with each.
    """
    streams, kept = {}, []
    for output in outputs:
        name = output.get("name") if output["output_type"] == "stream" else None
        if name in streams:
            streams[name]["text"] += output["text"]
        else:
            kept.append(output)
            if name:
                streams[name] = output
    return kept


render.coalesce_streams = joined


def without_nameless_arguments(app, context, lines):
    """Leave out of an argument list of sphinx-click what shows no name, such as the rest of `--images *.fits`."""
    kept, leave = [], False
    for line in lines:
        if line.startswith(".. option::"):
            leave = not line.removeprefix(".. option::").strip()
        if not leave:
            kept.append(line)
    lines[:] = kept


def run_pages(app):
    """Run the pages with code that the cache does not have, as many at once as there are cores; myst-nb, one by one.

    What fails here fails again where its page is read, and says why.
    """
    if app.config.nb_execution_mode != "cache":  # as where a build is asked not to run them
        return
    cache = get_cache(app.config.nb_execution_cache_path)
    for page in notebooks.PAGES:
        cache.add_nb_to_project(str(page), read_data={"name": "myst_nb_md", "type": "plugin"})
    load_executor("temp-parallel", cache).run_and_cache(timeout=app.config.nb_execution_timeout)


def write_notebooks(app):
    """Write the pages with code as notebooks, for their links to lead to; what they give, the pages show."""
    notebooks.write(Path(app.srcdir) / "_build" / "downloads", outputs=False)


def link_notebook(app, docname, source):
    """Put a link to its notebook under the title of a page with code."""
    if docname in [page.relative_to(notebooks.HERE).with_suffix("").as_posix() for page in notebooks.PAGES]:
        name = f"{Path(docname).name}.ipynb"
        title = next(line for line in source[0].splitlines() if line.startswith("# "))
        link = f"As a notebook: {{download}}`{name} </_build/downloads/{name}>`"
        source[0] = source[0].replace(title, f"{title}\n\n{link}", 1)


def setup(app):
    app.connect("sphinx-click-process-arguments", without_nameless_arguments)
    app.connect("builder-inited", run_pages)
    app.connect("builder-inited", write_notebooks)
    app.connect("source-read", link_notebook)
