"""``vmsim compare``: one scenario under several paging modes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    import pandas as pd

    from vmsim.record.comparison import Comparison

COMPARED: Final = {
    "translation_cycles_per_access": "Translation (TLB and page walks), cycles per access",
    "management_cycles_per_access": "Memory management (faults, exits, waits for memory), cycles per access",
    "cycles_per_access": "All cycles per access",
}
"""Columns of the summary that are compared, and what they are called."""

_FILE = click.Path(path_type=Path)
_COLUMN: Final = 1.6
_ROW: Final = 1.9
"""Inches of a panel of the figure."""
_KINDS: Final = {"guest": "guest memory", "table": "page tables", "pool": "pool"}


@click.command()
@click.argument("file", type=_FILE)
@click.option(
    "--modes",
    default="native,ept,npt",
    show_default=True,
    help="Paging modes, with commas between them; all: every one that the CPU has, or with host.what_if every one.",
)
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change a key: host.pool.min=128.")
@click.option("--out", type=_FILE, metavar="DIR", help="Write a run directory for each mode, and figures.")
@click.option("--force", is_flag=True, help="Replace the results of an earlier comparison in DIR.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--check", is_flag=True, help="Check the host's invariants at every boundary (slow).")
def command(
    file: Path, modes: str, settings: tuple[str, ...], out: Path | None, force: bool, as_json: bool, check: bool
) -> int:
    """Simulate a scenario under several paging modes, side by side.

    FILE is a scenario in TOML; every VM runs in each mode in turn. A mode that the host's CPU does not have is
    simulated as a what-if, and the output says so.
    """
    from vmsim.cli.run import STOPPED
    from vmsim.cli.screen import print_ending
    from vmsim.record.folder import check_folder
    from vmsim.scenario import Scenario, parse_settings

    scenario = Scenario.load(file).replace(**parse_settings(settings))
    if out:
        check_folder(out, force=force)
    from vmsim.api import compare, modes_of

    wanted = modes_of(scenario) if modes.strip() == "all" else [mode.strip() for mode in modes.split(",")]
    comparison = compare(scenario, [mode for mode in wanted if mode], check=check, progress=True)
    if out:
        _save(comparison, out, force=force)
    if as_json:
        _print_json(comparison)
    else:
        _print(comparison)
        if out:
            click.echo(f"All tables and the figures are in {out}.")
    if comparison.ending:
        print_ending(comparison.ending)
        return STOPPED
    return 0


def _parts(comparison: Comparison) -> dict[str, tuple[pd.DataFrame, str, str, str]]:
    """Return what is compared part by part: a table, its title, what its parts are called, what they count."""
    from vmsim.analysis.tables import cycles_by_cause, exits_by_reason, memory_by_kind

    summary = comparison.summary
    return {
        "cycles": (cycles_by_cause(summary, comparison.cycles), "Cycles per access", "cause", "per_access"),
        "memory": (memory_by_kind(summary), "Memory at the end, in frames of 4 KiB", "kind", "frames"),
        "exits": (exits_by_reason(summary, comparison.table("exits")), "VM exits", "reason", "count"),
    }


def _print(comparison: Comparison) -> None:
    from vmsim.analysis.tables import compare_modes, side_by_side
    from vmsim.record.html import LABELS

    for note in comparison.notes:
        click.echo(note)
    for name, (table, title, what, value) in _parts(comparison).items():
        wide = side_by_side(table, what, value)
        wide[what] = [(LABELS | _KINDS).get(part, part) for part in wide[what]]
        if name != "cycles":
            wide = wide.astype(dict.fromkeys(wide.columns[2:], "Int64"))
        _print_frame(title, wide, left=2)
    for column, title in COMPARED.items():
        _print_frame(title, compare_modes(comparison.summary, column), left=2)


def _print_frame(title: str, table: pd.DataFrame, *, left: int) -> None:
    """Print a table whose first columns are text; a dash stands where there is nothing."""
    from vmsim.cli.screen import print_table

    columns = {str(name): "left" if place < left else "right" for place, name in enumerate(table.columns)}
    rows = [[*row] for row in zip(*(_plain(table[name]) for name in table.columns), strict=True)]
    print_table(title, columns, rows)


def _plain(column: pd.Series[Any]) -> list[Any]:
    return column.astype(object).where(column.notna(), float("nan")).to_list()


def _print_json(comparison: Comparison) -> None:
    from vmsim.analysis.tables import compare_modes
    from vmsim.cli.screen import print_json, rows_of

    modes = {
        mode: {
            "wall_seconds": result.facts.wall_seconds,
            "accesses_per_second": result.accesses_per_second,
            "outcome": result.facts.to_json(),
        }
        for mode, result in comparison.results.items()
    }
    print_json(
        {
            "vms": rows_of(comparison.summary),
            "comparison": {column: rows_of(compare_modes(comparison.summary, column)) for column in COMPARED},
            **{name: rows_of(table) for name, (table, *_) in _parts(comparison).items()},
            "modes": modes,
            "notes": list(comparison.notes),
        }
    )


def _save(comparison: Comparison, out: Path, *, force: bool) -> None:
    from vmsim.analysis.figures import modes_side_by_side, translation_cycles
    from vmsim.analysis.style import WIDE, figure, save
    from vmsim.record.folder import replacing_folder

    cycles, memory, exits = (table for table, *_ in _parts(comparison).values())
    columns = len(set(cycles["workload"]))
    with replacing_folder(out, force=force) as folder:
        comparison.write(folder)
        with figure(height=2.6) as (fig, ax):
            translation_cycles(cycles, ax)
            save(fig, folder / "translation.png", folder / "translation.pdf")
        size = {"width": max(WIDE, _COLUMN * columns), "height": 3 * _ROW}
        with figure(rows=3, columns=columns, squeeze=False, **size) as (fig, axes):
            modes_side_by_side(cycles, memory, exits, axes)
            save(fig, folder / "comparison.png", folder / "comparison.pdf")
        comparison.seal(folder)
