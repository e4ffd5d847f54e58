"""``vmsim diff``: what two runs differ in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from vmsim.base.errors import InputError
from vmsim.base.files import printable

if TYPE_CHECKING:
    from vmsim.record.result import Result
    from vmsim.scenario import Scenario

_COUNTS: Final = {
    "accesses": "accesses",
    "l2_tlb_misses": "L2 TLB misses",
    "walk_refs": "walk references",
    "guest_faults": "guest faults",
    "exits": "VM exits",
}
_FILE = click.Path(path_type=Path)


@click.command()
@click.argument("first", type=_FILE, metavar="A")
@click.argument("second", type=_FILE, metavar="B")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(first: Path, second: Path, as_json: bool) -> None:
    """Say what two runs differ in: their scenarios, and what they cost.

    A and B are folders, as `vmsim run --out` writes them. VMs of the same name are compared: events as they were
    counted, cycles per access by cause. What is the same in both is left out.
    """
    from vmsim.cli.screen import print_json

    runs = [_load(path) for path in (first, second)]
    keys = [*_keys(runs[0].scenario, runs[1].scenario)]
    figures = [row for row in _figures(*runs) if row["a"] != row["b"]]
    if as_json:
        print_json({"keys": keys, "figures": figures, "only": _alone(*runs)})
    else:
        _print(keys, figures, _alone(*runs))


def _load(path: Path) -> Result:
    from vmsim.lookups import load
    from vmsim.record.result import Result

    found = load(path)
    if not isinstance(found, Result):
        modes = ", ".join(found.results)
        raise InputError(
            f"{printable(path)} is a comparison; name one of the runs in it, {printable(path)}/MODE, MODE of {modes}.",
            file=str(path),
        )
    return found


def _keys(first: Scenario, second: Scenario) -> Iterator[dict[str, Any]]:
    """Yield the keys whose values differ, defaults written out, with both values; None where there is no such key."""
    values = [dict(_leaves(scenario.model_dump(exclude_none=True))) for scenario in (first, second)]
    for key in dict.fromkeys([*values[0], *values[1]]):
        a, b = (each.get(key) for each in values)
        if a != b:
            yield {"key": key, "a": a, "b": b}


def _leaves(table: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted keys with their values; tables of an array by their name."""
    if isinstance(table, Mapping):
        for key, value in table.items():
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
    elif isinstance(table, list | tuple) and table and all(isinstance(each, Mapping) for each in table):
        for number, each in enumerate(table):
            yield from _leaves(each, f"{path}.{each.get('name', number)}")
    else:
        yield path, table


def _figures(first: Result, second: Result) -> Iterator[dict[str, Any]]:
    """Yield each figure of each VM that both have, with both values."""
    runs = first, second
    summaries = [{row["vm"]: row for row in run.rows("summary")} for run in runs]
    causes = [{(row["vm"], row["cause"]): row["per_access"] for row in run.rows("cycles")} for run in runs]
    for vm in (name for name in summaries[0] if name in summaries[1]):
        for column, label in _COUNTS.items():
            a, b = (each[vm][column] for each in summaries)
            yield {"vm": vm, "figure": label, "a": a, "b": b}
        for label, a, b in _by_cause(vm, *causes):
            yield {"vm": vm, "figure": label, "a": a, "b": b}
        a, b = (each[vm]["cycles_per_access"] for each in summaries)
        yield {"vm": vm, "figure": "all cycles per access", "a": a, "b": b}


def _by_cause(
    vm: str, first: Mapping[tuple[str, str], float], second: Mapping[tuple[str, str], float]
) -> Iterator[tuple[str, float, float]]:
    from vmsim.record.causes import cause_of, in_order

    for cause in in_order({cause for name, cause in [*first, *second] if name == vm}):
        yield f"{cause_of(cause).label}, per access", first.get((vm, cause), 0.0), second.get((vm, cause), 0.0)


def _alone(first: Result, second: Result) -> dict[str, list[str]]:
    """Return the VMs that only one of the runs has."""
    names = [[row["vm"] for row in run.rows("summary")] for run in (first, second)]
    return {
        "a": [name for name in names[0] if name not in names[1]],
        "b": [name for name in names[1] if name not in names[0]],
    }


def _print(keys: list[dict[str, Any]], figures: list[dict[str, Any]], alone: Mapping[str, list[str]]) -> None:
    from vmsim.cli.screen import Side, print_table, say

    if not keys and not figures:
        say("The scenarios are the same, and so are all figures of each VM.")
        return
    if keys:
        columns: dict[str, Side] = {"key": "left", "A": "left", "B": "left"}
        print_table("Scenario", columns, [[each["key"], *map(_text, (each["a"], each["b"]))] for each in keys])
    else:
        say("The scenarios are the same.\n")
    for vm in dict.fromkeys(row["vm"] for row in figures):
        columns = {"figure": "left", "A": "right", "B": "right", "change": "right"}
        rows = [[row["figure"], row["a"], row["b"], _change(row["a"], row["b"])] for row in figures if row["vm"] == vm]
        print_table(vm, columns, rows)
    for which, names in alone.items():
        if names:
            say(f"Only {which.upper()} has {', '.join(names)}.")


def _text(value: Any) -> str:
    if value is None:
        return "–"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _change(before: float, after: float) -> str:
    if not before:
        return "new"
    share = (after - before) / before
    return "<0.1%" if abs(share) < 0.0005 else f"{share:+.1%}".replace("-", "−")
