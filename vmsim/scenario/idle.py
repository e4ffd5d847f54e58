"""Keys of a ``[[vm]]`` table that would do nothing: which keys have an effect in which paging modes.

A value that would do nothing is refused, so that nobody reads a result as an answer to it. Where a mode is changed
(`Scenario.replace`, ``--set``, a sweep's axis), keys of the old mode go with it, as keys of a workload do when its kind
is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from vmsim.scenario.problems import KeyPath, Problem
from vmsim.scenario.shadow import ShadowTable

if TYPE_CHECKING:
    from vmsim.scenario.tables import VmGroup

__all__ = ["drop_idle", "idle_problems", "is_idle"]

_AUTO: Final = ("ept", "npt", "shadow", "vkernel")
"""What ``mode = "auto"`` may stand for: which, depends on the CPU."""
_ALL: Final = ("native", "ept", "npt", "shadow", "agile", "paired", "vkernel")


class _Rule(NamedTuple):
    """Keys that have an effect in some modes, or beside another key, and why not elsewhere."""

    path: tuple[str, ...]
    modes: tuple[str, ...]
    beside: tuple[str, ...] = ()
    off: Any = None

    def reason(self, mode: str, get: Callable[[tuple[str, ...]], Any]) -> str | None:
        """Return why the keys do nothing, None if they do something."""
        if mode == "auto":
            if not {*_AUTO} & {*self.modes}:
                return f'mode "auto" never stands for {self.modes[0]}, the mode that has this key'
        elif mode not in self.modes and mode in _ALL:
            if len(self.modes) > 3:
                return f"it has no effect in mode {mode}"
            return f"it has no effect in mode {mode}, only in {' and '.join(self.modes)}"
        if self.beside:
            found = get(self.beside)
            if found is None or found == self.off:
                shown = "false" if self.off is False else f'"{self.off}"'
                return f"it has no effect with {'.'.join(self.beside)} = {shown}"
        return None


_NOT_NATIVE: Final = _ALL[1:]
# The first rule whose path begins a key's is the key's.
_RULES: Final = (
    _Rule(("shadow", "limit"), ("shadow", "agile")),
    _Rule(("shadow",), ("shadow",)),
    _Rule(("software_tlb",), ("shadow",)),
    _Rule(("agile",), ("agile",)),
    _Rule(("paired",), ("paired",)),
    _Rule(("kernel_accesses",), ("ept", "npt", "shadow", "agile")),
    _Rule(("fill_chunk",), _NOT_NATIVE),
    _Rule(("pool",), _NOT_NATIVE),
    _Rule(("nx_recovery_period",), _ALL, ("nx_split",), False),
    _Rule(("nx_recovery_ratio",), _ALL, ("nx_split",), False),
    _Rule(("dirty_log", "every"), _ALL, ("dirty_log", "method"), "none"),
    _Rule(("dirty_log", "stop"), _ALL, ("dirty_log", "method"), "none"),
    _Rule(("dirty_log", "split"), _ALL, ("dirty_log", "method"), "none"),
)
# Keys that are refused in a mode by their own rules, and go back to their defaults when it is chosen.
_LEFT: Final[Mapping[str, tuple[str, ...]]] = {
    "native": ("host_page", "host_levels", "tags"),
    "vkernel": ("tags",),
}


_SHADOW: Final = ShadowTable()


def is_idle(group: Mapping[str, Any], path: Iterable[str]) -> bool:
    """Whether a key of a ``[[vm]]`` table, as of a parsed file, would do nothing in the table's mode."""
    return _reason(tuple(path), str(group.get("mode")), lambda key: _raw(group, key)) is not None


def drop_idle(group: dict[str, Any], mode: str) -> None:
    """Take the keys away that would do nothing, or cannot be, in `mode` from a ``[[vm]]`` table; in place."""
    for path in [*_paths(group, ())]:
        if _reason(path, mode, lambda key: _raw(group, key)) is not None:
            _remove(group, path)
    for key in _LEFT.get(mode, ()):
        group.pop(key, None)
    if mode != "ept" and group.pop("nx_split", False):
        for key in ("nx_recovery_period", "nx_recovery_ratio"):
            group.pop(key, None)


def idle_problems(group: VmGroup) -> Iterator[Problem]:
    """Yield a problem for each key that is not at its default and would do nothing."""
    for path in _changed(group):
        reason = _reason(path, group.mode, lambda key: _of_model(group, key))
        if reason is not None:
            yield Problem(path, f"{reason}; leave it out")


def _reason(path: tuple[str, ...], mode: str, get: Callable[[tuple[str, ...]], Any]) -> str | None:
    rule = next((rule for rule in _RULES if path[: len(rule.path)] == rule.path), None)
    return rule.reason(mode, get) if rule is not None else None


def _changed(group: VmGroup) -> Iterator[tuple[str, ...]]:
    """Yield the keys with a rule whose value is not the default."""
    fields = type(group).model_fields
    for key, value in group.shadow:
        if value not in (None, _SHADOW.preset if key == "preset" else getattr(_SHADOW.spec, key)):
            yield "shadow", key
    if group.pool is not None:
        for key in type(group.pool).model_fields:
            if getattr(group.pool, key) is not None:
                yield "pool", key
    for name in ("software_tlb", "agile", "paired", "dirty_log"):
        table, default = getattr(group, name), fields[name].default
        if table is not default and table != default:
            for key in type(table).model_fields:
                if key != "method" and getattr(table, key) != getattr(default, key):
                    yield name, key
    for name in ("kernel_accesses", "fill_chunk", "nx_recovery_period", "nx_recovery_ratio"):
        if getattr(group, name) != fields[name].default:
            yield (name,)


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


def _of_model(group: VmGroup, path: KeyPath) -> Any:
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
