"""``vmsim messages``: what monitors and the host of a run said to each other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from vmsim.base.errors import InputError, nearest
from vmsim.base.files import printable, refuse_figure

if TYPE_CHECKING:
    import pandas as pd

    from vmsim.record.result import Facts, Result

_SHOWN: Final = 200
_RIGHT: Final = ("time_us", "pages", "cycles")


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--vm", "vms", multiple=True, metavar="NAME", help="Only of this VM's monitor; may be given again.")
@click.option("--from", "start", metavar="TIME", help="Only what was sent at this simulated time or later: 1.5ms.")
@click.option("--to", "end", metavar="TIME", help="Only what was sent before this time.")
@click.option("--figure", type=click.Path(path_type=Path), metavar="FILE", help="Draw the sequence: .png, .pdf, .svg.")
@click.option("--force", is_flag=True, help="Replace the figure's FILE if it is there.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, all of them.")
def command(
    run: Path,
    vms: tuple[str, ...],
    start: str | None,
    end: str | None,
    figure: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Print what monitors and the host of a run said to each other.

    RUN is a run directory, as `vmsim run --out` writes it.
    """
    from vmsim.record.result import Result

    if figure:
        refuse_figure(figure, force=force)
    result = Result.load(run)
    table = _chosen(result, vms, start, end)
    if figure:
        _draw(table, figure, force=force)
    if as_json:
        from vmsim.cli.screen import print_json, rows_of

        facts = result.facts
        print_json({"messages": rows_of(table), "dropped": facts.messages_dropped, "every": facts.messages_every})
    else:
        _print(table, result.facts)
        if figure:
            click.echo(f"The sequence is in {printable(figure)}.")


def _chosen(result: Result, vms: tuple[str, ...], start: str | None, end: str | None) -> pd.DataFrame:
    from vmsim.base.units import parse_duration

    known = [vm.name for vm in result.scenario.vms]
    for vm in vms:
        if vm not in known:
            raise InputError(f"--vm: the run has no VM {vm!r}. {nearest(vm, known)}")
    table = result.messages
    if vms:
        table = table[table["vm"].isin(vms)]
    if start is not None:
        table = table[table["time_cycles"] >= parse_duration(start).cycles(result.facts.frequency)]
    if end is not None:
        table = table[table["time_cycles"] < parse_duration(end).cycles(result.facts.frequency)]
    return table


def _draw(table: pd.DataFrame, path: Path, *, force: bool) -> None:
    from vmsim.analysis import style
    from vmsim.analysis.sequence import MOST, message_sequence

    if not 0 < len(table) <= MOST:
        raise InputError(
            f"--figure: {len(table):,} messages were chosen, and a diagram shows 1 to {MOST}. Choose a time window "
            f"with --from and --to, or VMs with --vm."
        )
    height = min(9.0, 1.2 + 0.28 * len(table))
    with style.figure(width=max(style.COLUMN, 1.5 * (1 + table["vm"].nunique())), height=height) as (fig, ax):
        message_sequence(table, ax)
        style.save(fig, path, force=force)


def _print(table: pd.DataFrame, facts: Facts) -> None:
    from vmsim.cli.screen import Side, number, print_table, rows_of, say

    columns = [column for column in table.columns if column != "time_cycles"]
    heading = {"time_us": "time (µs)"}
    sides: dict[str, Side] = {
        heading.get(column, column): "right" if column in _RIGHT else "left" for column in columns
    }
    rows = rows_of(table.head(_SHOWN))
    title = f"{number(len(table))} message{'' if len(table) == 1 else 's'}"
    if len(table) > _SHOWN:
        title += f", the first {_SHOWN} shown; --from, --to and --vm choose, --json has all"
    print_table(title, sides, ([row[column] for column in columns] for row in rows))
    if len(table):
        sums = table.groupby("kind", sort=True).agg(
            count=("pages", "size"), pages=("pages", "sum"), cycles=("cycles", "sum")
        )
        print_table(
            "Total by kind",
            {"kind": "left", "count": "right", "pages": "right", "cycles": "right"},
            ([row["kind"], row["count"], row["pages"], row["cycles"]] for row in rows_of(sums.reset_index())),
        )
    if facts.messages_dropped:
        every, dropped = number(facts.messages_every), number(facts.messages_dropped)
        say(f"Of the run's messages only one in {every} was kept: {dropped} are missing here, and in the totals above.")
