"""Does the notebook run, and show what it says it shows?"""

import ast
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

PATH = Path(__file__).resolve().parents[1] / "notebooks" / "getting-started.ipynb"
AGAIN = "run: make notebook"


@pytest.fixture(scope="module")
def committed() -> nbformat.NotebookNode:
    return nbformat.read(PATH, as_version=4)


def code_of(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tables_of(notebook: nbformat.NotebookNode) -> list[str]:
    outputs = [output for cell in code_of(notebook) for output in cell.outputs]
    return [output.data["text/plain"] for output in outputs if output.output_type == "execute_result"]


def test_it_runs_and_still_gives_the_tables_committed(committed: nbformat.NotebookNode) -> None:
    notebook = nbformat.read(PATH, as_version=4)
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": PATH.parent}})
    client.execute()
    assert tables_of(notebook) == tables_of(committed), AGAIN


def test_it_is_committed_with_all_its_outputs(committed: nbformat.NotebookNode) -> None:
    cells = code_of(committed)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), AGAIN
    kinds = {key for cell in cells for output in cell.outputs for key in output.get("data", {})}
    assert {"text/html", "image/png"} <= kinds
    assert not any(output.output_type in ("error", "stream") for cell in cells for output in cell.outputs)


def test_it_defines_nothing(committed: nbformat.NotebookNode) -> None:
    for cell in code_of(committed):
        for node in ast.walk(ast.parse(cell.source)):
            assert not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda), cell.source
