"""How the documentation is built: ``make docs``."""

import ast
import re
from collections.abc import Iterator
from importlib.metadata import version as version_of
from pathlib import Path

from sphinx.application import Sphinx

_ROOT = Path(__file__).resolve().parents[1]
_LINK = _ROOT / "docs/notebooks"  # Sphinx reads what lies in its folder: there while the site is built
if not _LINK.exists():
    _LINK.symlink_to("../notebooks")

project = "vmsim"
author = "The vmsim developers"
version = release = version_of("vmsim")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
    "sphinx_copybutton",
]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4

nb_execution_mode = "force"  # notebooks are kept without outputs: what the site shows is what they give today
nb_execution_raise_on_error = True
nb_execution_timeout = 120
nb_merge_streams = True

autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_rtype = False
add_module_names = False

html_theme = "pydata_sphinx_theme"
html_title = f"vmsim {release}"
html_show_sourcelink = False
html_static_path = ["static"]
html_css_files = ["wide.css"]
html_theme_options = {
    "navigation_depth": 2,
    "show_prev_next": False,
    "show_nav_level": 2,
    "header_links_before_dropdown": 8,
}
html_context = {"default_mode": "auto"}
copybutton_prompt_text = "$ "

_COLUMN = 1200  # dots: a figure that is wider has been made for two columns
_FILE = re.compile(r"\[([^\]]+)\]\((?!https?:|docs/|results/|#)[^)]*\)")


def _text_of_links(app: Sphinx, path: str, parent: str, content: list[str]) -> None:
    """Keep only the text of the README's links to files that are no pages."""
    content[0] = _FILE.sub(r"\1", content[0])


def _width(picture: Path) -> int:
    """Return the width of a PNG in dots, which its header has at byte 16 (PNG specification, 11.2.2)."""
    with picture.open("rb") as file:
        return int.from_bytes(file.read(20)[16:], "big")


def _captions() -> Iterator[str]:
    """Yield a section for each experiment: its figures, what the docstring of `figure.py` says, and its data."""
    for code in sorted(_ROOT.glob("experiments/*/figure.py")):
        name = code.parent.name
        title, text = (ast.get_docstring(ast.parse(code.read_text("utf-8"))) or "").split("\n", 1)
        command = f"    python experiments/{name}/figure.py"
        yield f"## {name}\n"
        for picture in sorted(_ROOT.glob(f"results/{name}/*.png")):
            image = f"```{{image}} ../results/{name}/{picture.name}\n:alt: {title}\n:width: 100%\n```"
            yield f"````{{container}} {'wide' if _width(picture) > _COLUMN else 'column'}-figure\n{image}\n````\n"
        yield f"**{title}** {text.replace(command, '').strip()}\n"
        tables = ", ".join(
            f"{{download}}`{table.name} <../results/{name}/{table.name}>`"
            for table in sorted(_ROOT.glob(f"results/{name}/*.csv"))
        )
        yield f"Made by `{command.strip()}`; data: {tables}.\n"


def _gallery(app: Sphinx, page: str, source: list[str]) -> None:
    """Append the figures of all experiments to the page that is there for them."""
    if page == "gallery":
        source[0] += "\n" + "\n".join(_captions())


def setup(app: Sphinx) -> None:
    """Have Sphinx call it."""
    app.connect("include-read", _text_of_links)
    app.connect("source-read", _gallery)
    app.connect("build-finished", lambda app, error: _LINK.unlink())
