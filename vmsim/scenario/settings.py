"""Dotted keys: ``host.pool.min = 128`` and ``vm.db.mode = "npt"``, on the command line and in Python."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from typing import Any, Final

from vmsim.base.errors import InputError, closest, nearest
from vmsim.scenario.idle import drop_idle, is_idle
from vmsim.scenario.problems import KeyPath
from vmsim.scenario.tables import VmGroup
from vmsim.scenario.toml import MAX_DEPTH

__all__ = ["apply_settings", "parse_settings"]

_LONGEST: Final = 80  # characters of an option that a message shows


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
            raise _refused(text, "expected key=value, for example host.pool.min=128")
        if key in settings:
            raise _refused(text, f"{key} is set twice")
        settings[key] = _value(value.strip())
    return settings


def apply_settings(
    data: dict[str, Any], settings: Mapping[str, Any], *, option: str = "", idle: set[str] | None = None
) -> dict[KeyPath, str]:
    """Put `settings` into the tables of a scenario, in place.

    A new `workload.kind` keeps those other keys that the new kind knows too, and a new `mode` those that have an
    effect in it; keys that are themselves in `settings` stay. A key of every VM (``vm.fill_chunk``) is set for those
    in which it has an effect, if there are any.

    Parameters
    ----------
    data : dict
        Tables as in the TOML file.
    settings : mapping of str to object
        By dotted key. ``vm.mode`` is the mode of every VM, ``vm.0.mode`` of the first table, ``vm.db.mode`` of
        the one named db. None takes the key away, and so gives it its default.
    option : str, optional
        Where they come from, for errors: ``"--set"``.
    idle : set of str, optional
        Gets the keys that have no effect in any VM, which are then left out; without it they are set, and refused
        when the tables are validated.

    Returns
    -------
    dict of key path to str
        The keys that were set, and what errors call the place each comes from.

    Raises
    ------
    InputError
        No such VM, or a key inside something that is not a table. Other wrong keys and values are found when
        the tables are validated.
    """
    origins: dict[KeyPath, str] = {}
    places: dict[str, list[tuple[dict[str, Any], list[str]]]] = {}
    # What decides which other keys there can be comes first.
    for key in sorted(settings, key=lambda key: not key.endswith((".workload.kind", ".mode"))):
        value = settings[key]
        origin = f"{option} {key}={value if isinstance(value, str) else repr(value)}"
        origin = _shown(origin)
        try:
            for path, table, keys in _targets(data, key):
                if path and keys == ["workload", "kind"]:
                    _change_kind(table, value)
                elif path and keys == ["mode"]:
                    _change_mode(table, value)
                else:
                    _put(table, keys, value, key)
                origins[(*path, *keys)] = origin
                if path and value is not None:
                    places.setdefault(key, []).append((table, keys))
        except InputError as error:
            if not option:
                raise
            message = f"{origin}: {error.message}"
            raise InputError(f"{origin}: {error}", key=error.key, message=message, nearest=error.nearest) from None
    for key, found in places.items():
        without = [(table, keys) for table, keys in found if is_idle(table, keys)]
        if len(without) == len(found):
            if idle is None:
                continue
            idle.add(key)
        for table, keys in without:
            _take(table, keys)
    return origins


def _refused(text: str, message: str) -> InputError:
    return InputError(f"--set {_shown(text)}: {message}")


def _shown(text: str) -> str:
    text = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text[: 2 * _LONGEST])
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _value(text: str) -> Any:
    try:
        value = tomllib.loads(f"value = {text}")
    except (tomllib.TOMLDecodeError, RecursionError, ValueError):
        return text
    return value["value"] if len(value) == 1 else text


def _targets(data: dict[str, Any], key: str) -> list[tuple[KeyPath, dict[str, Any], list[str]]]:
    """Return the tables that a dotted key is about, each with its path and the rest of the key inside it."""
    parts = [part.strip("\"'") for part in key.split(".")]
    if len(parts) > MAX_DEPTH:
        raise _wrong(key[:_LONGEST], f"a key of more than {MAX_DEPTH} parts")
    first, *rest = parts
    if first != "vm" or not rest:
        return [((), data, [first, *rest])]
    groups = data.get("vm")
    if not isinstance(groups, list) or not all(isinstance(group, dict) for group in groups):
        raise _wrong(key, "vm is not an array of tables; nothing can be set inside it")
    if rest[0] in VmGroup.model_fields:
        return [(("vm", number), group, rest) for number, group in enumerate(groups)]
    names = {str(group.get("name")): number for number, group in enumerate(groups)}
    if rest[0].isdecimal() and len(rest[0]) < 6 and int(rest[0]) < len(groups):
        number = int(rest[0])
    elif rest[0] in names:
        number = names[rest[0]]
    else:
        choices = [*VmGroup.model_fields, *names, *map(str, range(len(groups)))]
        text = f"{rest[0][:_LONGEST]!r} is neither a key of vm, nor a VM. {nearest(rest[0], choices)}"
        raise _wrong(key, text, closest(rest[0], choices))
    if len(rest) == 1:
        raise _wrong(key, f"expected a key after it, for example {key}.mode")
    return [(("vm", number), groups[number], rest[1:])]


def _wrong(key: str, message: str, close: str | None = None) -> InputError:
    key = _shown(key)
    return InputError(f"{key}: {message}", key=key, message=message, nearest=close)


def _put(table: dict[str, Any], keys: list[str], value: Any, key: str) -> None:
    for part in keys[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise _wrong(key, f"{part} is not a table; nothing can be set inside it")
    if value is None:
        table.pop(keys[-1], None)
    else:
        table[keys[-1]] = value


def _take(table: dict[str, Any], keys: list[str]) -> None:
    for part in keys[:-1]:
        table = table[part]
    table.pop(keys[-1], None)


def _change_kind(group: dict[str, Any], kind: Any) -> None:
    """Change the kind of a workload, and keep of its other keys those that the new kind knows too."""
    from vmsim.scenario.problems import valid_keys

    known = valid_keys(VmGroup, ("workload", kind)) if isinstance(kind, str) else []
    workload = group.get("workload", {})
    kept = {key: value for key, value in workload.items() if key in known} if isinstance(workload, dict) else {}
    group["workload"] = kept | {"kind": kind}


def _change_mode(group: dict[str, Any], mode: Any) -> None:
    """Change the mode of a VM, and take away the keys that have no effect in the new one."""
    if mode is None:
        group.pop("mode", None)
        return
    if mode != group.get("mode") and isinstance(mode, str):
        drop_idle(group, mode)
    group["mode"] = mode
