"""``vmsim compare``: one scenario under several paging modes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from vmsim.base.files import printable
from vmsim.cli.completing import modes as modes_completion
from vmsim.cli.completing import settings as settings_completion

if TYPE_CHECKING:
    import pandas as pd

    from vmsim.analysis.perf import Counted
    from vmsim.record.comparison import Comparison

COMPARED: Final = {
    "translation_cycles_per_access": "Translation (TLB and page walks), cycles per access",
    "management_cycles_per_access": "Memory management (faults, exits, waits for memory), cycles per access",
    "cycles_per_access": "All cycles per access",
}
"""Columns of the summary that are compared, and what they are called."""

_FILE = click.Path(path_type=Path)
_BY: Final = "vm_group"  # the unit of all tables: VMs of one table of the scenario count together
_COLUMN: Final = 1.6
_ROW: Final = 1.9
"""Inches of a panel of the figure."""
_KINDS: Final = {"guest": "guest memory", "table": "page tables", "pool": "pool"}


@click.command()
@click.argument("file", type=_FILE)
@click.option(
    "--modes",
    shell_complete=modes_completion,
    default="all",
    show_default=True,
    help="Paging modes, with commas between them; all: every one that the CPU has, or with host.what_if every one.",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    shell_complete=settings_completion,
    help="Change a key: host.pool.min=128.",
)
@click.option(
    "--measured",
    type=_FILE,
    multiple=True,
    metavar="FILE",
    help="Counters of a real machine: perf stat (plain, or -x), perf kvm stat report, kvm_stat. May be given again.",
)
@click.option("--out", type=_FILE, metavar="DIR", help="Write a run directory for each mode, and figures.")
@click.option("--force", is_flag=True, help="Replace the results of an earlier comparison in DIR.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--check", is_flag=True, help="Check the host's invariants at every boundary (slow).")
def command(
    file: Path,
    modes: str,
    settings: tuple[str, ...],
    measured: tuple[Path, ...],
    out: Path | None,
    force: bool,
    as_json: bool,
    check: bool,
) -> int:
    """Simulate a scenario under several paging modes, side by side.

    FILE is a scenario in TOML; every VM runs in each mode in turn. A mode that the host's CPU does not have is
    simulated as a what-if, and the output says so. With --measured, what a real machine counted is set beside it.
    """
    from vmsim.cli.run import STOPPED
    from vmsim.cli.screen import print_ending, print_json, say
    from vmsim.record.folder import check_folder
    from vmsim.scenario import Scenario, parse_settings

    scenario = Scenario.load(file, parse_settings(settings))
    if out:
        check_folder(out, force=force)
    from vmsim.analysis.perf import read_counts

    found = read_counts([*measured]) if measured else None
    from vmsim.api import compare

    wanted = None if modes.strip() == "all" else [mode.strip() for mode in modes.split(",") if mode.strip()]
    comparison = compare(scenario, wanted, check=check, progress=True)
    if out:
        _save(comparison, out, force=force)
    if as_json:
        print_json(json_of(comparison) | ({"measured": _measured(found, comparison)} if found else {}))
    else:
        print_comparison(comparison)
        if found:
            _print_measured(found, comparison)
        if out:
            say(f"All tables and the figures are in {printable(out)}.")
    if comparison.ending:
        print_ending(comparison.ending)
        return STOPPED
    return 0


def _measured(found: Counted, comparison: Comparison) -> dict[str, Any]:
    """Return what a real machine counted beside what the modes did, as JSON types."""
    from vmsim.analysis.perf import side_by_side

    frequency = next(iter(comparison.results.values())).facts.frequency
    rows = side_by_side(found, comparison.summary, comparison.exits, frequency)
    return {"compared": rows, "without_counterpart": found.unknown, "not_counted": found.missing}


def _print_measured(found: Counted, comparison: Comparison) -> None:
    from vmsim.cli.screen import Side, number, print_table, say

    told = _measured(found, comparison)
    modes = list(comparison.results)
    columns: dict[str, Side] = {"quantity": "left", "measured": "right", **dict.fromkeys(modes, "right")}
    rows = [
        [row["quantity"], *("–" if row[name] is None else number(row[name]) for name in ("measured", *modes))]
        for row in told["compared"]
    ]
    if rows:
        print_table("A real machine, and the modes", columns, rows)
    else:
        say("Nothing can be compared: ratios need cycles, or loads and stores, besides the events of TLBs and walks.")
    if told["without_counterpart"]:
        say(f"Events without a counterpart here: {', '.join(told['without_counterpart'])}.")
    if told["not_counted"]:
        say(f"Events that the machine did not count: {', '.join(told['not_counted'])}.")


def _parts(comparison: Comparison) -> dict[str, tuple[pd.DataFrame, str, str, str]]:
    """Return what is compared part by part: a table, its title, what its parts are called, what they count."""
    from vmsim.analysis.tables import cycles_by_cause, exits_by_reason, memory_by_kind

    summary = comparison.summary
    return {
        "cycles": (cycles_by_cause(summary, comparison.cycles, by=_BY), "Cycles per access", "cause", "per_access"),
        "memory": (memory_by_kind(summary, by=_BY), "Memory at the end, in frames of 4 KiB", "kind", "frames"),
        "exits": (exits_by_reason(summary, comparison.exits, by=_BY), "VM exits", "reason", "count"),
    }


def print_comparison(comparison: Comparison) -> None:
    """Print what paging modes cost, side by side."""
    from vmsim.analysis.tables import side_by_side, slowdown, total_by_mode
    from vmsim.cli.screen import hundredths, print_frame, rows_of, say
    from vmsim.record.causes import cause_of
    from vmsim.record.sentences import first_touches

    summary = comparison.summary
    called = _called(summary)
    headings = {_BY: "VM", "kind": "used for"}
    total = _total(summary)
    for note in comparison.notes:
        say(note)
    ended = [mode for mode, result in comparison.results.items() if not result.ending]
    if ended:
        say(f"{verdict(total[[_BY, *ended]])}\n")
    tables = {
        "All cycles per access, waits for a pCPU left out": total,
        f"Slowdown over {_base(total)}, of the same cycles": slowdown(total),
    }
    tables |= {
        title: total_by_mode(summary, column.removesuffix("_per_access"), by=_BY)
        for column, title in COMPARED.items()
        if column != "cycles_per_access"
    }
    for title, table in tables.items():
        if len(table.columns) == 1:
            continue  # nothing to compare a single mode with
        print_frame(title, table.replace({_BY: called}), headings=headings, best="row")
    for name, (table, title, what, value) in _parts(comparison).items():
        wide = side_by_side(table, what, value, by=_BY).replace({_BY: called})
        wide[what] = [_KINDS.get(part, part) if name == "memory" else part for part in wide[what]]
        if name == "cycles":
            wide[what] = [cause_of(part).label for part in wide[what]]
        modes = list(wide.columns[2:])
        if name == "cycles":
            wide[modes] = wide[modes].map(hundredths)
        else:
            wide = wide.astype(dict.fromkeys(modes, "Int64"))
        print_frame(title, wide, left=2, headings=headings)
    say(first_touches(rows_of(summary), warmed=comparison.warmed))


def _total(summary: pd.DataFrame) -> pd.DataFrame:
    """Return cycles per access by group and mode: what VMs take, not what they wait while others have the cores."""
    from vmsim.analysis.tables import total_by_mode

    own = summary["total_cycles"] - summary["pcpu_wait_cycles"]
    return total_by_mode(summary.assign(own_cycles=own), "own_cycles", by=_BY)


def _called(summary: pd.DataFrame) -> dict[str, str]:
    """Return what groups of several VMs are called."""
    counts = summary.groupby(_BY, sort=False)["vm"].nunique()
    return {str(name): f"{name} ×{count}" for name, count in counts.items() if count > 1}


def _base(total: pd.DataFrame) -> str:
    modes = list(total.columns[1:])
    return "native" if "native" in modes else modes[0]


def verdict(total: pd.DataFrame) -> str:
    """Say which mode takes the fewest cycles, and how many times as many the others take.

    Parameters
    ----------
    total : DataFrame
        As from `analysis.tables.total_by_mode`; its last row is for all VMs together.
    """
    from vmsim.base.errors import listed
    from vmsim.cli.screen import number

    ranked = total.iloc[-1, 1:].astype(float).sort_values(kind="stable")
    base = _base(total)
    if len(ranked) == 1:
        return f"All VMs together take {number(float(ranked.iloc[0]))} cycles per access in mode {base}."
    ratios = {str(mode): float(cycles / ranked[base]) for mode, cycles in ranked.items() if mode != base}
    (best, ratio), *others = ratios.items()
    if base == "native":
        first = f"Under {best} all VMs together take {ratio:.2f} times the cycles of native"
        lead = f"{first}, the least of the modes for VMs" if others else first
    elif ratio < 1:
        lead = f"All VMs together take the fewest cycles under {best}, {ratio:.2f} times those under {base}"
    else:
        lead = f"All VMs together take the fewest cycles under {base}; under {best} {ratio:.2f} times as many"
    rest = listed([f"{mode} {ratio:.2f}" for mode, ratio in others])
    return f"{lead}; {rest}." if rest else f"{lead}."


def json_of(comparison: Comparison) -> dict[str, Any]:
    """Return what ``--json`` prints of a comparison."""
    from vmsim.analysis.tables import compare_modes, slowdown
    from vmsim.cli.screen import rows_of

    modes = {
        mode: {
            "wall_seconds": result.facts.wall_seconds,
            "accesses_per_second": result.accesses_per_second,
            "outcome": result.facts.to_json(),
        }
        for mode, result in comparison.results.items()
    }
    total = _total(comparison.summary)
    return {
        "total": {"cycles_per_access": rows_of(total), "slowdown": rows_of(slowdown(total))},
        "vms": rows_of(comparison.summary),
        "comparison": {column: rows_of(compare_modes(comparison.summary, column)) for column in COMPARED},
        **{name: rows_of(table) for name, (table, *_) in _parts(comparison).items()},
        "modes": modes,
        "notes": list(comparison.notes),
    }


def _save(comparison: Comparison, out: Path, *, force: bool) -> None:
    from vmsim.analysis.figures import modes_side_by_side, translation_cycles
    from vmsim.analysis.style import WIDE, figure, save

    cycles, memory, exits = (table for table, *_ in _parts(comparison).values())
    columns = len(set(cycles[_BY]))

    def draw(folder: Path) -> None:
        with figure(height=2.6) as (fig, ax):
            translation_cycles(cycles, ax, by=_BY)
            save(fig, folder / "translation.png", folder / "translation.pdf")
        size = {"width": max(WIDE, _COLUMN * columns), "height": 3 * _ROW}
        with figure(rows=3, columns=columns, squeeze=False, **size) as (fig, axes):
            modes_side_by_side(cycles, memory, exits, axes, by=_BY)
            save(fig, folder / "comparison.png", folder / "comparison.pdf")

    comparison.save(out, force=force, also=draw)
