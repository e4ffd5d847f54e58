"""How the documentation is built: ``make docs``."""

import re
from importlib.metadata import version as version_of

from sphinx.application import Sphinx

project = "vmsim"
author = "The vmsim developers"
version = release = version_of("vmsim")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
    "sphinx_copybutton",
]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4

autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_rtype = False
add_module_names = False

html_theme = "pydata_sphinx_theme"
html_title = f"vmsim {release}"
html_show_sourcelink = False
html_theme_options = {"navigation_depth": 2, "show_prev_next": False, "show_nav_level": 2}
copybutton_prompt_text = "$ "

_FILE = re.compile(r"\[([^\]]+)\]\((?!https?:|docs/|results/|#)[^)]*\)")


def _text_of_links(app: Sphinx, path: str, parent: str, content: list[str]) -> None:
    """Keep only the text of the README's links to files that are no pages."""
    content[0] = _FILE.sub(r"\1", content[0])


def setup(app: Sphinx) -> None:
    """Have Sphinx call it."""
    app.connect("include-read", _text_of_links)
