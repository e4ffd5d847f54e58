"""Do the rooms keep to what they ask of one another?"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[1]
VMSIM = ROOT / "vmsim"
PAGE = (ROOT / "docs/background/architecture.md").read_text("utf-8")
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


def test_the_page_on_architecture_has_every_room_in_the_order_that_is_checked() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    layers = next(each["layers"] for each in contracts if each["type"] == "layers")
    rows = PAGE.partition("## The rooms")[2].partition("\n## ")[0].splitlines()
    told = [re.findall(r"`(\w+)`", row.split("|")[1]) for row in rows if row.startswith("| `")]
    assert told == [[room.strip().removeprefix("vmsim.") for room in layer.split("|")] for layer in layers]
    there = {path.stem for path in VMSIM.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert {room for row in told for room in row} == there - {"__init__", "py"}


def test_every_file_that_the_page_on_architecture_names_is_there() -> None:
    named = re.findall(r"`((?:vmsim|tests)/[\w/.]*)`", PAGE)
    assert len(named) > 20
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_noun_of_the_page_on_architecture_is_a_class_in_the_file_beside_it() -> None:
    rows = PAGE.partition("## The nouns")[2].partition("\n## ")[0]
    nouns = re.findall(r"^\| `(\w+)` \|.*\| `([\w/.]+)` \|$", rows, re.MULTILINE)
    assert len(nouns) > 9
    for noun, file in nouns:
        assert re.search(rf"^class {noun}\b", (ROOT / file).read_text("utf-8"), re.MULTILINE), noun
