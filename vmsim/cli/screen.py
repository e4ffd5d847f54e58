"""How commands put text and tables on the screen: with colour and in its width on a terminal, plain in a pipe."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import click

from vmsim.cli.layout import GAP, Best, Grid, Side, arrange, hundredths, number

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console
    from rich.table import Table

    from vmsim.record.outcome import Ending

__all__ = [
    "Best",
    "Side",
    "hundredths",
    "number",
    "print_ending",
    "print_facts",
    "print_frame",
    "print_json",
    "print_table",
    "rendered",
    "rows_of",
    "say",
    "standard_output",
]


def rows_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a table's rows as JSON types; None in the place of what is not a number."""
    columns: list[list[Any]] = [
        table[column].astype(object).where(table[column].notna(), None).to_list() for column in table
    ]
    return [dict(zip(map(str, table.columns), row, strict=True)) for row in zip(*columns, strict=True)]


def print_table(
    title: str, columns: Mapping[str, Side], rows: Iterable[Sequence[object]], *, console: Console | None = None
) -> None:
    """Print a table.

    On a terminal it keeps within the width, and numbers and headings stay whole: see `vmsim.cli.layout`. In a pipe it
    is plain text, as wide as it needs to be, one line a row.

    Parameters
    ----------
    title : str
        Printed above it, unless it is empty.
    columns : mapping of str to str
        Heading of each column, and how it is set: left (names), right (numbers) or text (sentences).
    rows : iterable of sequence
        Strings, or numbers, which `number` writes; a `Best` value stands out.
    console : Console, optional
        Where to print it; standard output if left out.
    """
    from rich.text import Text

    out = console or standard_output()
    width = out.width if out.is_terminal else None
    grids = arrange(columns, rows, width)
    if width is None:
        _plain(title, grids, out)
        return
    if title:
        out.print(Text(title, "bold"))
    for place, grid in enumerate(grids):
        if place:
            out.print()
        out.print(_rich(grid, grid.widths(width)), crop=False)
    out.print()


def print_frame(
    title: str, table: pd.DataFrame, *, left: int = 1, headings: Mapping[str, str] | None = None, best: str = ""
) -> None:
    """Print a data frame, whose first columns are names; a dash stands where there is no number.

    Parameters
    ----------
    title : str
        Printed above it.
    table : DataFrame
        What to print.
    left : int, optional
        How many columns are names.
    headings : mapping of str to str, optional
        What columns are called, where that is not their name.
    best : str, optional
        "row": the smallest number of each row stands out.
    """
    names = [(headings or {}).get(str(name), str(name)) for name in table.columns]
    columns: dict[str, Side] = {name: "left" if place < left else "right" for place, name in enumerate(names)}
    rows = [list(row.values()) for row in rows_of(table)]
    if best:
        rows = [[*row[:left], *_marked(row[left:])] for row in rows]
    print_table(title, columns, rows)


def _marked(values: list[Any]) -> list[Any]:
    """Let the smallest of some numbers stand out, if there are several and they differ."""
    there = [value for value in values if value is not None]
    if len(there) < 2 or min(there) == max(there):
        return values
    return [Best(value) if value == min(there) else value for value in values]


def print_facts(title: str, facts: Mapping[str, object]) -> None:
    """Print labels with what they stand for, a line each."""
    print_table(title, {"": "left", " ": "text"}, [[label, value] for label, value in facts.items()])


def print_json(data: object) -> None:
    """Print an object as JSON."""
    click.echo(json.dumps(data, indent=2, ensure_ascii=False))


def say(text: str, *, console: Console | None = None) -> None:
    """Print a paragraph, wrapped at words on a terminal."""
    from rich.text import Text

    out = console or standard_output()
    if out.is_terminal:
        out.print(Text(text))
    else:
        click.echo(text, file=out.file)


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


def rendered(columns: Mapping[str, Side], rows: Iterable[Sequence[object]], width: int) -> list[Table]:
    """Return what `print_table` prints on a terminal of a width, for a screen that changes."""
    return [_rich(grid, grid.widths(width)) for grid in arrange(columns, rows, width)]


def standard_output() -> Console:
    """Return standard output."""
    from rich.console import Console

    return Console(highlight=False)


def _rich(grid: Grid, widths: Sequence[int]) -> Table:
    from rich.table import Table
    from rich.text import Text

    headed = any(heading.strip() for heading in grid.headings)
    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, show_header=headed, header_style="bold cyan")
    for heading, side, width in zip(grid.head(widths), grid.sides, widths, strict=True):
        justify: Literal["right", "left"] = "right" if side == "right" else "left"
        table.add_column(Text(heading), justify=justify, no_wrap=side == "right", overflow="fold", width=width)
    for row in grid.rows:
        table.add_row(*(Text(cell.text, "bold green" if cell.best else "") for cell in row))
    return table


def _plain(title: str, grids: Sequence[Grid], out: Console) -> None:
    """Print grids without colour, and without blanks at the ends of lines."""
    from rich.console import Console

    lines = [title] if title else []
    for grid in grids:
        widths = grid.widths()
        page = Console(file=io.StringIO(), width=sum(widths) + GAP * len(widths) + 1, color_system=None)
        page.print(_rich(grid, widths), crop=False)
        lines += [line.rstrip() for line in page.file.getvalue().splitlines()]  # type: ignore[attr-defined]
    click.echo("\n".join([*lines, ""]), file=out.file)
