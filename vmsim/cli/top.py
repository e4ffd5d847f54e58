"""``vmsim top``: the memory of a run's host and VMs, replayed as a table."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click

from vmsim.base.errors import InputError, nearest
from vmsim.base.files import printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from vmsim.record.result import Result

_WHOLE: Final = 10.0  # seconds that a replay lasts, unless it is said
_PAGES: Final = 256  # of 4 KiB in a MiB
_COLUMNS: Final = {
    "resident": "resident",
    "swapped": "swapped",
    "balloon": "balloon",
    "shared": "shared",
    "guest_free": "guest free",
    "free_resident": "gap",
    "some": "some %",
    "full": "full %",
}
"""What is shown of each VM, and what it is called: MiB, but for the pressure."""


class State(NamedTuple):
    """The memory of a host at a time.

    Attributes
    ----------
    time : int
        Cycles.
    host : dict
        The host's row of the table ``memory``, with `some` and `full` in percent of the time since the row before.
    vms : list of dict
        Those of the VMs that there are then, in their order.
    """

    time: int
    host: dict[str, Any]
    vms: list[dict[str, Any]]


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--at", metavar="TIME", help="Show the host at this simulated time alone, 1.5ms say.")
@click.option("--interval", type=click.FloatRange(0.05, 3600), default=0.5, metavar="S", help="Seconds of a screen.")
@click.option("--speed", metavar="TIME", help="Simulated time that passes in a second; by default all in ten.")
@click.option("--sort", metavar="COLUMN", help=f"VMs with most first: {', '.join(_COLUMNS)}.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: the last state, or that at TIME.")
def command(run: Path, at: str | None, interval: float, speed: str | None, sort: str | None, as_json: bool) -> None:
    """Replay the memory of a run's host and VMs as a live table.

    RUN is a run directory of a scenario with host.samples. Where the output is no terminal, the last state is printed
    alone. Sizes are in MiB; gap is host memory behind pages that the guest calls free; some and full are Linux's
    pressure stall information.
    """
    from vmsim.base.units import parse_duration
    from vmsim.cli.screen import print_json
    from vmsim.record.result import Result

    if sort is not None and sort not in _COLUMNS:
        raise InputError(f"--sort: there is no column {sort!r}. {nearest(sort, _COLUMNS)}")
    result = Result.load(run)
    found = list(states(result))
    if not found:
        raise InputError(f"{printable(run)}: its memory was not sampled. Run the scenario with host.samples, 1ms say.")
    frequency = result.facts.frequency
    chosen = found[-1]
    if at is not None:
        when = parse_duration(at).cycles(frequency)
        chosen = next((each for each in reversed(found) if each.time <= when), found[0])
    if as_json:
        print_json({"time_us": chosen.host["time_us"], "host": chosen.host, "vms": _sorted(chosen.vms, sort)})
        return
    from vmsim.cli.screen import standard_output

    out = standard_output()
    if at is not None or not out.is_terminal:
        _print(chosen, sort, out)
        return
    whole = found[-1].time - found[0].time
    step = parse_duration(speed).cycles(frequency) * interval if speed else whole * interval / _WHOLE
    _replay(found, sort, interval, max(1.0, step), out)


def states(result: Result) -> Iterator[State]:
    """Yield the states of a run's host, in the order of time."""
    before: dict[str, int] = {}
    together: list[dict[str, Any]] = []
    for row in [*result.rows("memory"), None]:
        if together and (row is None or row["time_cycles"] != together[0]["time_cycles"]):
            host = next(each for each in together if not each["vm"])
            yield State(host["time_cycles"], host, [each for each in together if each["vm"]])
            together = []
        if row is not None:
            past = row["time_cycles"] - before.get(row["vm"], 0)
            before[row["vm"]] = row["time_cycles"]
            shares = {name: 100 * row[f"{name}_cycles"] / past for name in ("some", "full")}
            together.append({**row, **shares})


def _sorted(vms: Sequence[dict[str, Any]], column: str | None) -> list[dict[str, Any]]:
    return list(vms) if column is None else sorted(vms, key=lambda vm: -vm[column])


def _heading(state: State) -> str:
    host = state.host
    return (
        f"{host['time_us'] / 1000:.3f} ms: {_mib(host['host_free'])} MiB free, {_mib(host['resident'])} of VMs, "
        f"{_mib(host['tables'])} tables, {_mib(host['pool'])} pools, {_mib(host['swapped'])} on the swap device; "
        f"some {host['some']:.1f} %, full {host['full']:.1f} %"
    )


def _mib(pages: int) -> str:
    return f"{pages / _PAGES:,.1f}"


def _rows(state: State, sort: str | None) -> list[list[str]]:
    return [
        [vm["vm"], *(f"{vm[name]:.1f}" if name in ("some", "full") else _mib(vm[name]) for name in _COLUMNS)]
        for vm in _sorted(state.vms, sort)
    ]


def _print(state: State, sort: str | None, out: Console) -> None:
    from vmsim.cli.screen import Side, print_table, say

    columns: dict[str, Side] = {"VM": "left", **dict.fromkeys(_COLUMNS.values(), "right")}
    say(_heading(state), console=out)
    print_table("", columns, _rows(state, sort), console=out)


def _replay(found: list[State], sort: str | None, interval: float, step: float, out: Console) -> None:
    """Show one state after the other, in the terminal's height, and leave the last one there."""
    from rich.live import Live

    at, when = 0, float(found[0].time)
    with Live(_screen(found[0], sort, out), console=out, auto_refresh=False, vertical_overflow="crop") as live:
        while at < len(found) - 1:
            time.sleep(interval)
            when += step
            while at < len(found) - 1 and found[at + 1].time <= when:
                at += 1
            live.update(_screen(found[at], sort, out), refresh=True)


def _screen(state: State, sort: str | None, out: Console) -> RenderableType:
    """Return a state as something that rich can show: as many VMs as there is room for."""
    from rich.console import Group
    from rich.text import Text

    from vmsim.cli.screen import Side, rendered

    columns: dict[str, Side] = {"VM": "left", **dict.fromkeys(_COLUMNS.values(), "right")}
    rows = _rows(state, sort)
    room = max(1, out.height - 8)
    more = [Text(f"and {len(rows) - room} more VMs")] if len(rows) > room else []
    return Group(Text(_heading(state)), *rendered(columns, rows[:room], out.width), *more)
