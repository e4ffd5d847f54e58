"""Dotted keys: ``host.pool.min = 128`` and ``vm.db.mode = "npt"``, on the command line and in Python."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from typing import Any

from vmsim.errors import InputError, nearest
from vmsim.scenario.tables import VmGroup

__all__ = ["apply_settings", "parse_settings"]


def parse_settings(texts: Iterable[str]) -> dict[str, Any]:
    """Return the keys and values of ``--set`` options such as ``host.pool.min=128``.

    A value is read as TOML, and as text if it is not TOML: ``vm.mode=npt`` needs no quotes.

    Raises
    ------
    InputError
        There is no equals sign, or no key before it, or the same key is set twice.
    """
    settings: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        key = key.strip()
        if not equals or not key:
            raise InputError(f"--set {text}: expected key=value, for example host.pool.min=128")
        if key in settings:
            raise InputError(f"--set {text}: {key} is set twice")
        settings[key] = _value(value.strip())
    return settings


def apply_settings(data: dict[str, Any], settings: Mapping[str, Any]) -> None:
    """Put `settings` into the tables of a scenario, in place.

    Parameters
    ----------
    data : dict
        Tables as in the TOML file.
    settings : mapping of str to object
        By dotted key. ``vm.mode`` is the mode of every VM, ``vm.0.mode`` of the first table, ``vm.db.mode`` of
        the one named db. None takes the key away, and so gives it its default.

    Raises
    ------
    InputError
        No such VM, or a key inside something that is not a table. Other wrong keys and values are found when
        the tables are validated.
    """
    # A kind of workload comes first: it decides which other keys there can be.
    for key in sorted(settings, key=lambda key: not key.endswith(".workload.kind")):
        for table, keys in _targets(data, key):
            if table is not data and keys == ["workload", "kind"]:
                _change_kind(table, settings[key])
            else:
                _put(table, keys, settings[key], key)


def _value(text: str) -> Any:
    try:
        value = tomllib.loads(f"value = {text}")
    except (tomllib.TOMLDecodeError, RecursionError, ValueError):
        return text
    return value["value"] if len(value) == 1 else text


def _targets(data: dict[str, Any], key: str) -> list[tuple[dict[str, Any], list[str]]]:
    """Return the tables that a dotted key is about, each with the rest of the key inside it."""
    first, *rest = (part.strip("\"'") for part in key.split("."))
    if first != "vm":
        return [(data, [first, *rest])]
    if not rest:
        return [(data, [first])]
    groups = data.get("vm")
    if not isinstance(groups, list) or not all(isinstance(group, dict) for group in groups):
        raise InputError(f"{key}: vm is not an array of tables; nothing can be set inside it")
    if rest[0] in VmGroup.model_fields:
        return [(group, rest) for group in groups]
    names = {str(group.get("name")): group for group in groups}
    if rest[0].isdigit() and int(rest[0]) < len(groups):
        group = groups[int(rest[0])]
    elif rest[0] in names:
        group = names[rest[0]]
    else:
        choices = [*VmGroup.model_fields, *names, *map(str, range(len(groups)))]
        raise InputError(f"{key}: {rest[0]!r} is neither a key of vm, nor a VM. {nearest(rest[0], choices)}")
    if len(rest) == 1:
        raise InputError(f"{key}: expected a key after it, for example {key}.mode")
    return [(group, rest[1:])]


def _put(table: dict[str, Any], keys: list[str], value: Any, key: str) -> None:
    for part in keys[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise InputError(f"{key}: {part} is not a table; nothing can be set inside it")
    if value is None:
        table.pop(keys[-1], None)
    else:
        table[keys[-1]] = value


def _change_kind(group: dict[str, Any], kind: Any) -> None:
    """Change the kind of a workload, and keep of its other keys those that the new kind knows too."""
    from vmsim.scenario.problems import valid_keys

    known = valid_keys(VmGroup, ("workload", kind)) if isinstance(kind, str) else []
    workload = group.get("workload", {})
    group["workload"] = {key: value for key, value in workload.items() if key in known} | {"kind": kind}
