"""What a shell completes: keys of scenarios and their values, CPU presets, traces, modes, studies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click
from click.shell_completion import CompletionItem

__all__ = ["cpus", "modes", "questions", "settings", "studies", "traces"]

_LONGEST = 60  # characters of a help text


def settings(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete ``--set``: a dotted key, level by level, and after ``=`` a value where there are only some."""
    from vmsim.scenario import Scenario

    schema = Scenario.json_schema()
    key, equals, value = incomplete.partition("=")
    if equals:
        found = _values(schema, key.split("."))
        return [CompletionItem(f"{key}={each}") for each in found if each.startswith(value)]
    before, dot, last = key.rpartition(".")
    made = []
    for name, nodes in sorted(_keys(schema, before.split(".") if dot else []).items()):
        if name.startswith(last):
            inner = [each for node in nodes for each in _inner(schema, node)]
            end = "." if inner else "="
            about = next((str(each["description"]) for each in (*nodes, *inner) if "description" in each), "")
            made.append(CompletionItem(f"{before}{dot}{name}{end}", help=_brief(about)))
    return made


def cpus(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a CPU preset; a file's by the shell."""
    from vmsim.scenario import cpu_names

    names = [CompletionItem(name) for name in cpu_names() if name.startswith(incomplete)]
    return names or [CompletionItem(incomplete, type="file")]


def traces(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a bundled trace, and of files by the shell."""
    from vmsim.workloads.trace import bundled

    names = [CompletionItem(name) for name in bundled() if name.startswith(incomplete)]
    return [*names, CompletionItem(incomplete, type="file")]


def modes(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the last of some paging modes with commas between them."""
    from vmsim.scenario import mode_names

    before, comma, last = incomplete.rpartition(",")
    taken = before.split(",")
    names = [name for name in mode_names() if name.startswith(last) and name not in taken]
    names += ["all"] if not comma and "all".startswith(last) else []
    return [CompletionItem(f"{before}{comma}{name}") for name in names]


def questions(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete a question of ``vmsim advise``."""
    from vmsim.advice.questions import QUESTIONS

    return [
        CompletionItem(name, help=_brief(each.about)) for name, each in QUESTIONS.items() if name.startswith(incomplete)
    ]


def studies(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a study that is not named yet."""
    from vmsim.validation.studies import STUDIES

    taken = ctx.params.get("studies") or ()
    return [
        CompletionItem(name, help=_brief(about))
        for name, about in STUDIES.items()
        if name.startswith(incomplete) and name not in taken
    ]


def _keys(schema: dict[str, Any], path: list[str]) -> dict[str, list[dict[str, Any]]]:
    """Return the keys that can follow a path of keys, with all that the schema says of each: of each kind's, say."""
    found = _properties(schema, [schema])
    for part in path:
        found = _properties(schema, found.get(part, []))
    return found


def _values(schema: dict[str, Any], path: list[str]) -> list[str]:
    """Return the values that a key may have, if they are few and known."""
    from vmsim.scenario import cpu_names

    if path == ["host", "cpu"]:
        return list(cpu_names())
    found: list[str] = []
    for node in _keys(schema, path[:-1]).get(path[-1], []):
        for each in _all(schema, node):
            found += [str(value) for value in each.get("enum", [each["const"]] if "const" in each else [])]
            found += ["true", "false"] if each.get("type") == "boolean" else []
    return list(dict.fromkeys(found))


def _properties(schema: dict[str, Any], nodes: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for node in nodes:
        for table in _inner(schema, node):
            for name, each in table["properties"].items():
                found.setdefault(name, []).append(each)
    return found


def _inner(schema: dict[str, Any], node: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the tables that something may be."""
    return [each for each in _all(schema, node) if each.get("properties")]


def _all(schema: dict[str, Any], node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a node, and each that it refers to or is one of."""
    yield node
    if "$ref" in node:
        yield from _all(schema, schema["$defs"][node["$ref"].rpartition("/")[2]])
    for each in (*node.get("anyOf", ()), *node.get("oneOf", ()), *node.get("allOf", ())):
        yield from _all(schema, each)
    if isinstance(node.get("items"), dict):
        yield from _all(schema, node["items"])


def _brief(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
