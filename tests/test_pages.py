"""Do pages have a size that one can read?"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import vmsim

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/[!_]*/**/*.md"))]


def wide(text: str) -> Iterator[str]:
    """Yield lines of prose over 100 columns; rows of tables, code and addresses cannot be broken."""
    code = False
    for line in text.splitlines():
        code ^= line.lstrip().startswith("```")
        whole = code or line.startswith("    ") or line.lstrip().startswith("|") or "](http" in line
        if len(line) > 100 and not whole:
            yield line


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_prose_is_wrapped_at_100_columns(page: Path) -> None:
    assert not list(wide(page.read_text("utf-8")))


@pytest.mark.parametrize("text", ["x " * 60, "- " + "x " * 60])
def test_a_long_line_is_seen(text: str) -> None:
    assert list(wide(text))


def test_no_module_has_more_than_400_lines() -> None:
    assert [
        f"{path}" for path in (ROOT / "vmsim").rglob("*.py") if len(path.read_text("utf-8").splitlines()) > 400
    ] == []


@pytest.mark.parametrize("folder", ["reference", "extending", "decisions", "guides", "background"])
def test_the_index_of_a_folder_lists_its_pages(folder: str) -> None:
    index = (ROOT / "docs" / folder / "index.md").read_text("utf-8")
    pages = {page.name for page in (ROOT / "docs" / folder).glob("*.md")} - {"index.md"}
    assert pages == set(re.findall(r"^- \[[^]]*\]\(([^)]*\.md)\)", index, re.MULTILINE))


def test_the_page_on_python_has_every_public_name() -> None:
    page = (ROOT / "docs/reference/python.md").read_text("utf-8")
    assert set(re.findall(r":: vmsim\.(\w+)", page)) == {*vmsim.__all__} - {"__version__"}
