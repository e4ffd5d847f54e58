"""``vmsim compare``: one scenario under several paging modes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from vmsim.record.comparison import Comparison

COMPARED: Final = {
    "translation_cycles_per_access": "Translation (TLB and page walks), cycles per access",
    "management_cycles_per_access": "Memory management (faults, exits, waits for memory), cycles per access",
    "cycles_per_access": "All cycles per access",
}
"""Columns of the summary that are compared, and what they are called."""

_FILE = click.Path(path_type=Path)


@click.command()
@click.argument("file", type=_FILE)
@click.option("--modes", default="native,ept,npt", show_default=True, help="Paging modes, with commas between them.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change a key: host.pool.min=128.")
@click.option("--out", type=_FILE, metavar="DIR", help="Write a run directory for each mode, and a figure.")
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
    from vmsim.cli.run import OUT_OF_MEMORY
    from vmsim.cli.screen import print_ending
    from vmsim.record.folder import check_folder
    from vmsim.scenario import Scenario, parse_settings

    scenario = Scenario.load(file).replace(**parse_settings(settings))
    if out:
        check_folder(out, force=force)
    from vmsim.api import compare

    wanted = [mode.strip() for mode in modes.split(",") if mode.strip()]
    comparison = compare(scenario, wanted, check=check, progress=True)
    if out:
        _save(comparison, out, force=force)
    if as_json:
        _print_json(comparison)
    else:
        _print(comparison)
        if out:
            click.echo(f"All tables and the figure are in {out}.")
    if comparison.ending:
        print_ending(comparison.ending)
        return OUT_OF_MEMORY
    return 0


def _print(comparison: Comparison) -> None:
    from vmsim.analysis.tables import compare_modes
    from vmsim.cli.screen import print_table

    for note in comparison.notes:
        click.echo(note)
    for column, title in COMPARED.items():
        table = compare_modes(comparison.summary, column)
        columns = {str(name): "left" if name in ("vm", "workload") else "right" for name in table.columns}
        print_table(title, columns, zip(*(table[name].to_list() for name in table.columns), strict=True))


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
            "modes": modes,
            "notes": list(comparison.notes),
        }
    )


def _save(comparison: Comparison, out: Path, *, force: bool) -> None:
    from vmsim.analysis.figures import translation_cycles
    from vmsim.analysis.style import figure, save
    from vmsim.analysis.tables import cycles_by_cause
    from vmsim.record.folder import replacing_folder

    with replacing_folder(out, force=force) as folder:
        comparison.write(folder)
        with figure(height=2.6) as (fig, ax):
            translation_cycles(cycles_by_cause(comparison.summary, comparison.cycles), ax)
            save(fig, folder / "translation.png", folder / "translation.pdf")
        comparison.seal(folder)
