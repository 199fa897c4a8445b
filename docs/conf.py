from kerasgal import __version__

project = "kerasgal"
author = "The kerasgal authors"
release = __version__
extensions = ["myst_parser", "sphinx_click", "sphinx.ext.autodoc"]
html_theme = "alabaster"
html_theme_options = {"description": "Deep learning for cosmic structure and galaxies", "page_width": "1000px"}
exclude_patterns = ["_build"]
myst_heading_anchors = 3
