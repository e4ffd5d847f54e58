"""How commands put tables on the screen: with colour and rules on a terminal, plain aligned text in a pipe."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import pandas as pd

    from vmsim.record.outcome import Ending

__all__ = ["number", "print_ending", "print_json", "print_table", "rows_of"]


def number(value: object) -> str:
    """Return a count with marks every three digits, a ratio with two decimals, and a dash for not a number."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return "–" if value != value else f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def rows_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a table's rows as JSON types; None in the place of what is not a number."""
    columns: list[list[Any]] = [
        table[column].astype(object).where(table[column].notna(), None).to_list() for column in table
    ]
    return [dict(zip(map(str, table.columns), row, strict=True)) for row in zip(*columns, strict=True)]


def print_table(title: str, columns: Mapping[str, str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table.

    Parameters
    ----------
    title : str
        Printed above it.
    columns : mapping of str to str
        Heading of each column, and "left" or "right".
    rows : iterable of sequence
        Strings, or numbers, which `number` writes.
    """
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    texts = [[number(value) for value in row] for row in rows]
    if not console.is_terminal:
        click.echo(f"{title}\n{_aligned(columns, texts)}\n")
        return
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading, side in columns.items():
        table.add_column(heading, justify="left" if side == "left" else "right", overflow="fold")
    for row in texts:
        table.add_row(*map(Text, row))
    console.print(Text(title, "bold"), table, sep="")


def print_json(data: object) -> None:
    """Print an object as JSON."""
    click.echo(json.dumps(data, indent=2, ensure_ascii=False))


def print_ending(ending: Ending) -> None:
    """Say on stderr why a simulation stopped before its VMs were done."""
    from rich.console import Console
    from rich.panel import Panel
    from rich.text import Text

    console = Console(stderr=True, highlight=False)
    if console.is_terminal:
        console.print(Panel(Text(ending.message), title="stopped", title_align="left", border_style="red"))
    else:
        click.echo(f"vmsim: {ending.message}", err=True)


def _aligned(columns: Mapping[str, str], texts: Sequence[Sequence[str]]) -> str:
    lines = [list(columns), *texts]
    widths = [max(len(line[place]) for line in lines) for place in range(len(columns))]
    sides = list(columns.values())
    return "\n".join(
        "  ".join(
            text.ljust(width) if side == "left" else text.rjust(width)
            for text, width, side in zip(line, widths, sides, strict=True)
        ).rstrip()
        for line in lines
    )
