"""The site: ``make docs`` builds it, with the repository's root as Sphinx's source directory."""

import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

from repository import linkcode_resolve  # noqa: E402, F401

from irevrnn import __version__  # noqa: E402

project, author, version = "irevrnn", "irevrnn contributors", __version__
copyright = "irevrnn contributors, MIT licence"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.linkcode",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "repository",
]
include_patterns = ["*.md", "data/README.md", "docs/*", "notebooks/*.ipynb", "paper/README.md"]
exclude_patterns = ["README.md", "build", "**/.*", "data/*/**"]  # index.md includes README.md
suppress_warnings = ["toc.not_readable"]  # a page of the nav that is gone; links to it still warn

# A role with one of our public names must lead somewhere.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!irevrnn\.).*|irevrnn\.\w+\..*")]

myst_enable_extensions = ["amsmath", "dollarmath"]
myst_heading_anchors = 4
nb_merge_streams = True
nb_execution_mode = "off"  # they are committed with their output
nb_render_markdown_format = "myst"
nb_ipywidgets_js = {}  # they would come from the network

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_maximum_signature_line_length = 88
napoleon_custom_sections = ["Inputs", "Outputs", "Shape"]
napoleon_use_ivar = True

html_theme = "furo"
html_title = "irevrnn"
html_copy_source = False
html_show_search_summary = False  # it would be fetched, which no browser does from a disk
# Equations and everything else without the network: MathJax in one file, fonts included.
mathjax = Path(find_spec("sphinx-mathjax-offline").origin).parent / "static/mathjax/tex-svg-full.js"
mathjax_path = mathjax.name
html_static_path = [str(mathjax), "site.css"]
html_css_files = ["site.css"]
