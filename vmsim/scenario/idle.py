"""Keys of a ``[[vm]]`` table that would do nothing: which keys have an effect in which paging modes.

A value that would do nothing is refused, so that nobody reads a result as an answer to it. Where a mode is changed
(`Scenario.replace`, ``--set``, a sweep's axis), keys of the old mode go with it, as keys of a workload do when its kind
is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from vmsim.base.errors import listed
from vmsim.scenario.keys import VmKeys
from vmsim.scenario.modes import ModeTable, paging_modes
from vmsim.scenario.problems import KeyPath, Problem

__all__ = ["drop_idle", "idle_problems", "is_idle"]


class _Rule(NamedTuple):
    """Keys that have an effect only beside another key."""

    path: tuple[str, ...]
    beside: tuple[str, ...]
    off: Any

    def reason(self, get: Callable[[tuple[str, ...]], Any]) -> str | None:
        """Return why the keys do nothing, None if they do something."""
        found = get(self.beside)
        if found is not None and found != self.off:
            return None
        shown = f'"{self.off}"' if isinstance(self.off, str) else str(self.off).lower()
        return f"it has no effect with {'.'.join(self.beside)} = {shown}"


_PLAIN: Final = ("kernel_accesses", "tdp_mmu", "fill_chunk", "shares", "table_span", "fragmentation")
"""Keys that mean something in some modes only."""

_RULES: Final = (
    _Rule(("nx_recovery_period",), ("nx_split",), off=False),
    _Rule(("nx_recovery_ratio",), ("nx_split",), off=False),
    _Rule(("tdp_mmu",), ("vcpus",), off=1),
    _Rule(("content", "image_share"), ("content", "image"), off=""),
    _Rule(("dirty_log", "every"), ("dirty_log", "method"), off="none"),
    _Rule(("dirty_log", "stop"), ("dirty_log", "method"), off="none"),
    _Rule(("dirty_log", "split"), ("dirty_log", "method"), off="none"),
)


def is_idle(group: Mapping[str, Any], path: Iterable[str]) -> bool:
    """Whether a key of a ``[[vm]]`` table, as of a parsed file, would do nothing in the table's mode."""
    return _reason(tuple(path), str(group.get("mode")), lambda key: _raw(group, key)) is not None


def drop_idle(group: dict[str, Any], mode: str) -> None:
    """Take the keys away that would do nothing, or cannot be, in `mode` from a ``[[vm]]`` table; in place."""
    for path in [*_paths(group, ())]:
        if _reason(path, mode, lambda key: _raw(group, key)) is not None:
            _remove(group, path)
    chosen = paging_modes().get(mode)
    for key in chosen.refuses if chosen else ():
        group.pop(key, None)
    small = group.get("guest_page", "4K") == "4K" and group.get("thp", {}).get("enabled", "never") == "never"
    splits = chosen is not None and "nx_split" in chosen.features and not (chosen.whole_by_guest and small)
    if not splits and group.pop("nx_split", False):
        for key in ("nx_recovery_period", "nx_recovery_ratio"):
            group.pop(key, None)


def idle_problems(group: VmKeys) -> Iterator[Problem]:
    """Yield a problem for each key that is not at its default and would do nothing."""
    for path in _changed(group):
        reason = _reason(path, group.mode, lambda key: _of_model(group, key))
        if reason is not None:
            yield Problem(path, f"{reason}; leave it out")


def _reason(path: tuple[str, ...], mode: str, get: Callable[[tuple[str, ...]], Any]) -> str | None:
    """Return why a key does nothing, None if it does something."""
    modes = paging_modes()
    using = [name for name, each in modes.items() if each.uses(path)]
    if mode == "auto":
        if not any(modes[name].automatic for name in using):
            return f'mode "auto" never stands for {using[0]}, the mode that has this key'
    elif mode in modes and mode not in using:
        only = f", only in {listed(using)}" if len(using) <= 3 else ""
        return f"it has no effect in mode {mode}{only}"
    return next((rule.reason(get) for rule in _RULES if path[: len(rule.path)] == rule.path), None)


def _changed(group: VmKeys) -> Iterator[tuple[str, ...]]:
    """Yield the keys that mean something in some modes only, or beside others, whose value is not the default."""
    for name, value in group:
        if isinstance(value, ModeTable):
            for key in value.changed():
                yield name, key
    if group.pool is not None:
        for key in type(group.pool).model_fields:
            if getattr(group.pool, key) is not None:
                yield "pool", key
    fields = type(group).model_fields
    for key in type(group.dirty_log).model_fields:
        if key != "method" and getattr(group.dirty_log, key) != getattr(fields["dirty_log"].default, key):
            yield "dirty_log", key
    if group.content.image_share != 1:
        yield "content", "image_share"
    for key in (*_PLAIN, "nx_recovery_period", "nx_recovery_ratio"):
        if getattr(group, key) != fields[key].default:
            yield (key,)


def _paths(table: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for key, value in table.items():
        if isinstance(value, dict) and not path and key != "workload":
            yield from _paths(value, (key,))
        else:
            yield (*path, key)


def _raw(group: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = group
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _of_model(group: VmKeys, path: KeyPath) -> Any:
    value: Any = group
    for key in path:
        value = getattr(value, str(key))
    return value


def _remove(group: dict[str, Any], path: tuple[str, ...]) -> None:
    table = group
    for key in path[:-1]:
        table = table[key]
    table.pop(path[-1], None)
    if len(path) > 1 and not table:
        group.pop(path[0], None)
