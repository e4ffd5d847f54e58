"""CPU files: presets, their inheritance, and the source of each figure.

In a file, a number stands in a table that says where it was found::

    [tlb.l1]
    "4K" = { entries = 64, ways = 4, source = "InstLatx64 7900X", confidence = "measured" }
    [cost]
    vm_exit = { value = 1650, source = "...", confidence = "guess" }

Files lie in vmsim/scenario/cpus and in the folders that other packages register (`vmsim.plugins`, group "cpus").

`source` and `confidence` hold for every number of their table and of the tables inside it that have none of
their own. A table with a `value` stands for that value.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, Final, NamedTuple

from pydantic import ValidationError

from vmsim import plugins
from vmsim.base.errors import InputError, nearest
from vmsim.base.files import printable
from vmsim.scenario import toml
from vmsim.scenario.cpu import CONFIDENCES, Cpu, Figure
from vmsim.scenario.locate import locate
from vmsim.scenario.problems import KeyPath, Problem, input_error, problems_of

__all__ = ["Override", "apply_override", "cpu_names", "load_cpu", "nested"]

_WORDS: Final = frozenset({"name", "vendor", "description", "modes"})
"""Keys that are no figures: they need no source."""
_GENERATIONS: Final = 16
_OVERRIDE: Final = ("set by host.cpu_override", "given")

Provenance = dict[KeyPath, tuple[str, str]]
Override = tuple[tuple[tuple[str, ...], Any], ...]


class _File(NamedTuple):
    """A CPU file with what it inherits: plain values, where each came from, and the lines of its keys."""

    values: dict[str, Any]
    provenance: Provenance
    source: str
    lines: dict[KeyPath, int]


def cpu_names() -> tuple[str, ...]:
    """Return the names of the presets, in alphabetical order."""
    return tuple(name for name in _stems() if name != "common-costs")


def load_cpu(name_or_path: str | Path, *, folder: Path | None = None) -> Cpu:
    """Return a preset by its name, or read a CPU file (its path relative to `folder`, else to where we are).

    Raises
    ------
    InputError
        No such preset or file, or something in the file is wrong.
    """
    text = str(name_or_path)
    if text in cpu_names():
        return _preset(text)
    if not text.endswith(".toml"):
        raise InputError(
            f"{text!r} is not a CPU preset. {nearest(text, cpu_names())} The path of a CPU file ends in .toml."
            + _broken()
        )
    return _validated(_read((folder or Path()) / text, ()))


@lru_cache(maxsize=64)
def apply_override(cpu: Cpu, override: Override) -> Cpu:
    """Return `cpu` with some of its numbers replaced.

    Parameters
    ----------
    cpu : Cpu
        Where the other numbers come from.
    override : tuple of (key path, value)
        For example ``((("tlb", "l2", "4K", "entries"), 2048),)``.

    Raises
    ------
    pydantic.ValidationError
        A key that a CPU does not have, or a value that it cannot have.
    """
    values, provenance = _from_figures(cpu)
    provenance |= {path: _OVERRIDE for path, _ in override}
    return _built(_merged(values, nested(override)), provenance)


@cache
def _presets() -> Mapping[str, tuple[Path, plugins.Plugin]]:
    """Return the preset files by name, with the folder's registration; vmsim's own and then those of other packages.

    A folder that cannot be used is passed over here, and told of where a name is not found.
    """
    found: dict[str, tuple[Path, plugins.Plugin]] = {}
    for name, plugin in plugins.find("cpus").items():
        try:
            module = plugins.load("cpus", name)
        except InputError:
            continue
        for file in sorted(resources.files(module).iterdir(), key=lambda file: file.name):
            if file.name.endswith(".toml"):
                found.setdefault(file.name.removesuffix(".toml"), (Path(str(file)), plugin))
    return found


def _stems() -> tuple[str, ...]:
    return tuple(sorted(_presets()))


def _broken() -> str:
    """Return what is wrong with registered folders of CPU files, as sentences with a blank before each."""
    told = []
    for name in plugins.names("cpus"):
        try:
            plugins.load("cpus", name)
        except InputError as error:
            told.append(f" {error}")
    return "".join(told)


@cache
def _preset(name: str) -> Cpu:
    return _validated(_read(_preset_path(name), ()))


def _preset_path(name: str) -> Path:
    return _presets()[name][0]


def _read(path: Path, heirs: tuple[str, ...]) -> _File:
    source = printable(path)
    text = toml.read_text(path, "CPU file")
    tables = toml.parse(text, source)
    lines = locate(text)
    parent = tables.pop("inherit", None)
    problems = list(_unsourced(tables))
    if parent is not None and (not isinstance(parent, str) or not _inheritable(parent)):
        text = f"found {parent!r}, expected a preset or the path of a CPU file. {nearest(str(parent), _stems())}"
        problems.append(Problem(("inherit",), text))
    place = os.path.realpath(path)
    if place in heirs:
        problems.append(Problem(("inherit",), f"{source} inherits from itself"))
    elif len(heirs) >= _GENERATIONS:
        problems.append(
            Problem(("inherit",), f"a chain of more than {_GENERATIONS} files; expected at most {_GENERATIONS}")
        )
    if problems:
        raise input_error(source, problems, lines)
    values, provenance = _split(tables)
    if parent is None:
        return _File(values, provenance, source, lines)
    origin = path.parent / parent if parent.endswith(".toml") else _preset_path(parent)
    inherited = _read(origin, (*heirs, place))
    return _File(_merged(inherited.values, values), inherited.provenance | provenance, source, lines)


def _inheritable(parent: str) -> bool:
    return parent.endswith(".toml") or parent in _stems()


def _validated(file: _File) -> Cpu:
    try:
        return _built(file.values, file.provenance)
    except ValidationError as error:
        problems = problems_of(error, Cpu)
    raise input_error(file.source, problems, file.lines)


def _built(values: Mapping[str, Any], provenance: Provenance) -> Cpu:
    cpu = Cpu.model_validate(values)
    order = list(Cpu.model_fields)
    leaves = sorted(_leaves(values), key=lambda leaf: order.index(str(leaf[0][0])))
    cpu._figures = tuple(
        Figure(".".join(map(str, path)), value, *provenance[path]) for path, value in leaves if path[0] not in _WORDS
    )
    return cpu


def _unsourced(table: Mapping[str, Any], path: KeyPath = (), sourced: bool = False) -> Iterator[Problem]:
    """Yield a problem for each number without a source, and each confidence that is none of ours."""
    sourced = sourced or ("source" in table and "confidence" in table)
    confidence = table.get("confidence", CONFIDENCES[0])
    if confidence not in CONFIDENCES:
        text = f"found {confidence!r}, expected one of {', '.join(CONFIDENCES)}"
        yield Problem((*path, "confidence"), text)
    if not isinstance(table.get("source", ""), str):
        yield Problem((*path, "source"), "expected text in quotes")
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _unsourced(value, (*path, key), sourced)
        elif not sourced and key not in ("source", "confidence") and (path or key not in _WORDS):
            text = 'it has no source; write { value = …, source = "…", confidence = "…" }'
            yield Problem((*path, key), text)


def _split(
    table: Mapping[str, Any], path: KeyPath = (), origin: tuple[str, str] = ("", "")
) -> tuple[dict[str, Any], Provenance]:
    """Part a table of figures into the plain values and where each came from."""
    if "source" in table or "confidence" in table:
        origin = (table.get("source", origin[0]), table.get("confidence", origin[1]))
    values: dict[str, Any] = {}
    provenance: Provenance = {}
    for key, value in table.items():
        if key in ("source", "confidence"):
            continue
        here = (*path, key)
        if not isinstance(value, Mapping):
            values[key] = value
            provenance[here] = origin
        elif "value" in value:
            values[key] = value["value"]
            provenance[here] = (value.get("source", origin[0]), value.get("confidence", origin[1]))
        else:
            values[key], inner = _split(value, here, origin)
            provenance |= inner
    return values, provenance


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        both = isinstance(value, Mapping) and isinstance(below, Mapping)
        merged[key] = _merged(below, value) if both else value  # type: ignore[arg-type]
    return merged


def nested(leaves: Override) -> dict[str, Any]:
    """Return pairs of key path and value as nested tables."""
    tables: dict[str, Any] = {}
    for path, value in leaves:
        table = tables
        for key in path[:-1]:
            table = table.setdefault(key, {})
        table[path[-1]] = value
    return tables


def _leaves(table: Mapping[str, Any], path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key), tuple(value) if isinstance(value, list) else value


def _from_figures(cpu: Cpu) -> tuple[dict[str, Any], Provenance]:
    """Take a CPU apart again into plain values and provenance."""
    provenance: Provenance = {
        tuple(figure.key.split(".")): (figure.source, figure.confidence) for figure in cpu.figures()
    }
    leaves = tuple((tuple(figure.key.split(".")), figure.value) for figure in cpu.figures())
    words = {key: getattr(cpu, key) for key in sorted(_WORDS)}
    empty: dict[str, Any] = {"tlb": {"l1": {}, "l2": {}}}  # a level without arrays has no figures
    return _merged(empty, words | nested(leaves)), provenance
