"""``vmsim show``: the tables of a run or of a comparison that was kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from vmsim.cli.choice import Choice
from vmsim.record.tables import TABLES

if TYPE_CHECKING:
    from vmsim.record.comparison import Comparison
    from vmsim.record.result import Result

_MOST: Final = 200


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--table", type=Choice(tuple(TABLES)), metavar="NAME", help="One table, every column of it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, all rows.")
def command(run: Path, table: str | None, as_json: bool) -> None:
    """Print the tables of a run or of a comparison that was kept.

    RUN is a folder, as `vmsim run --out` or `vmsim compare --out` writes it. Without --table it prints what they
    printed. docs/reference/tables.md says what each column is.
    """
    from vmsim.cli.screen import print_json, rows_of
    from vmsim.lookups import load
    from vmsim.record.result import Result

    found = load(run)
    if table is not None:
        if as_json:
            print_json(rows_of(found.table(table)))
        else:
            _print_table(found, table)
    elif isinstance(found, Result):
        from vmsim.cli.run import json_of, print_result

        print_json(json_of(found)) if as_json else print_result(found)
    else:
        from vmsim.cli.compare import json_of as json_of_all
        from vmsim.cli.compare import print_comparison

        print_json(json_of_all(found)) if as_json else print_comparison(found)


def _print_table(found: Result | Comparison, name: str) -> None:
    from vmsim.cli.screen import number, print_frame, say

    table = found.table(name)
    names = next((place for place, kind in enumerate(table.dtypes) if kind.kind in "iuf"), len(table.columns))
    title = f"{name}, {number(len(table))} row{'' if len(table) == 1 else 's'}"
    print_frame(title, table.head(_MOST), left=names)
    if len(table) > _MOST:
        say(f"These are the first {_MOST}; --json prints all.")
