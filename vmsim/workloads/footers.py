"""The JSON in a `.vmtrace`: every key of the type that it must have, and sums that agree with the rest of the file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from vmsim.base.errors import InputError
from vmsim.workloads.events import MOST_THREADS
from vmsim.workloads.stream import Op
from vmsim.workloads.summary import REUSE

__all__ = ["checked_header", "checked_totals", "parsed"]

_COUNTS = ("accesses", "runs", "reads", "writes", "fetches", "longest_run", "pages", "processes")
_MOST = (1 << 63) - 1


def parsed(text: bytes, where: str) -> dict[str, Any]:
    """Return a JSON object.

    Raises
    ------
    InputError
        It is none, or is nested too deeply.
    """

    def refuse(word: str) -> None:
        raise ValueError(f"{word} is no number of JSON")

    try:
        value = json.loads(text, parse_constant=refuse)
    except ValueError as error:
        raise InputError(f"{where}: expected JSON: {error}.") from error
    except RecursionError as error:
        raise InputError(f"{where}: expected JSON that is not nested so deeply.") from error
    if not isinstance(value, dict):
        raise InputError(f"{where}: expected a JSON object, found {type(value).__name__}.")
    return value


def checked_header(about: dict[str, Any], granules: Sequence[int], where: str) -> dict[str, Any]:
    """Return what a header says, once its keys have the right types.

    Raises
    ------
    InputError
        A key has another type.
    """
    granule = about.get("granule")
    if type(granule) is not int or granule not in granules:
        raise InputError(f"{where}: granule {_short(granule)}: expected {' or '.join(map(str, granules))}.")
    command = about.get("command", [])
    if not isinstance(command, str) and not (
        isinstance(command, list) and all(isinstance(word, str) for word in command)
    ):
        raise InputError(f"{where}: command {_short(command)}: expected a list of strings.")
    for key in ("tool", "source"):
        if not isinstance(about.get(key, ""), str):
            raise InputError(f"{where}: {key} {_short(about[key])}: expected a string.")
    if not isinstance(about.get("fetch", False), bool):
        raise InputError(f"{where}: fetch {_short(about['fetch'])}: expected true or false.")
    return about


def checked_totals(totals: dict[str, Any], sums: Mapping[str, int], where: str) -> dict[str, Any]:
    """Return a footer's totals, once they have the right types and agree with the index and the regions.

    Parameters
    ----------
    totals : dict
    sums : dict
        Accesses, runs, events and pages, as the rest of the file says.
    where : str
        For messages.

    Raises
    ------
    InputError
        A key is missing, has another type, or contradicts the rest.
    """
    for key in _COUNTS:
        if not _count(totals.get(key)):
            raise InputError(f"{where}: {key} = {_short(totals.get(key))}: expected a whole number of 0 or more.")
    threads = totals.get("threads", 1)
    if not _count(threads) or not 1 <= threads <= MOST_THREADS:
        raise InputError(f"{where}: threads = {_short(threads)}: expected a whole number of 1 to {MOST_THREADS}.")
    events = totals.get("events")
    names = {op.name.lower() for op in Op}
    if not isinstance(events, dict) or not set(events) <= names or not all(map(_count, events.values())):
        raise InputError(
            f"{where}: events = {_short(events)}: expected an object with a whole number for each of: "
            f"{', '.join(sorted(names))}."
        )
    reuse = totals.get("reuse")
    if not isinstance(reuse, list) or len(reuse) != len(REUSE) or not all(map(_count, reuse)):
        raise InputError(f"{where}: reuse = {_short(reuse)}: expected a list of {len(REUSE)} whole numbers.")
    found = {
        "accesses": (totals["accesses"], totals["reads"] + totals["writes"] + totals["fetches"]),
        "runs": (totals["runs"], sum(reuse)),
        "events": (sum(events.values()),),
        "pages": (totals["pages"],),
    }
    for key, values in found.items():
        wrong = next((value for value in values if value != sums[key]), None)
        if wrong is not None:
            raise InputError(f"{where}: expected {key} = {sums[key]}, found {wrong}.")
    return totals


def _count(value: object) -> bool:
    return type(value) is int and 0 <= value <= _MOST


def _short(value: object) -> str:
    try:
        text = json.dumps(value)
    except (RecursionError, ValueError):
        text = f"of type {type(value).__name__}"
    return text if len(text) <= 40 else f"{text[:40]}…"
