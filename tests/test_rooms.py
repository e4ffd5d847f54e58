"""Do the rooms keep to what they ask of one another?"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import grimp

VMSIM = Path(__file__).parents[1] / "vmsim"
ROOMS = ("contracts", "engine", "frames", "guest", "host", "machine", "monitor", "observe", "tables")


def circles(graph: grimp.ImportGraph) -> Iterator[str]:
    """Yield the modules that import themselves, by way of others."""
    for module in sorted(graph.modules):
        if module.split(".")[1:2] and module.split(".")[1] in ROOMS:
            seen: set[str] = set()
            ahead = list(graph.find_modules_directly_imported_by(module))
            while ahead:
                if (each := ahead.pop()) not in seen:
                    seen.add(each)
                    ahead += graph.find_modules_directly_imported_by(each)
            if module in seen:
                yield module


def test_no_import_is_a_circle_one_for_types_alone_included() -> None:
    graph = grimp.build_graph("vmsim", exclude_type_checking_imports=False, cache_dir=None)
    assert not list(circles(graph))


def asked_of(path: Path) -> Iterator[str]:
    """Yield the classes of monitors and their features that a module tests something for."""
    tree = ast.parse(path.read_text("utf-8"))
    kinds = {
        name.asname or name.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vmsim.monitor")
        for name in node.names
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
            for name in ast.walk(node.args[1]):
                if isinstance(name, ast.Name) and name.id in kinds:
                    yield f"{path.relative_to(VMSIM)}: {name.id}"


def test_nobody_asks_of_which_kind_a_monitor_or_a_feature_is() -> None:
    """A mode that comes from outside would be of no kind that is asked for."""
    assert [each for path in sorted(VMSIM.rglob("*.py")) for each in asked_of(path)] == []
