"""Are notebooks kept as the site needs them: no outputs, nothing defined, each listed? `make docs` runs them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
BOOKS = sorted(ROOT.glob("notebooks/*.ipynb"))


def code_of(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.stem)
def test_it_is_kept_without_outputs(path: Path) -> None:
    cells = code_of(path)
    assert cells
    assert [(cell.execution_count, cell.outputs) for cell in cells] == [(None, [])] * len(cells), "clear all outputs"


@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.stem)
def test_it_defines_nothing(path: Path) -> None:
    for cell in code_of(path):
        for node in ast.walk(ast.parse(cell.source)):
            assert not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda), cell.source


@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.stem)
def test_its_links_lead_to_pages(path: Path) -> None:
    for cell in nbformat.read(path, as_version=4).cells:
        for link in re.findall(r"\]\((?!https?:)([^)#]*)", cell.source if cell.cell_type == "markdown" else ""):
            assert (path.parent / link).exists(), link


def test_the_tutorials_list_each_notebook_in_the_same_order() -> None:
    page = (ROOT / "docs/tutorials/index.md").read_text("utf-8")
    listed = re.findall(r"<\.\./notebooks/([\w-]+)>", page)
    assert sorted(listed) == [path.stem for path in BOOKS]
    assert listed == re.findall(r"^\.\./notebooks/([\w-]+)$", page, re.MULTILINE)
