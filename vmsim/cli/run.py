"""``vmsim run``: simulate a scenario."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from vmsim.base.errors import InputError
from vmsim.base.files import printable
from vmsim.cli.completing import settings as settings_completion

if TYPE_CHECKING:
    from vmsim.record.result import Result
    from vmsim.scenario import Scenario

STOPPED: Final = 3
"""Exit code where the simulated machine ran out of memory, or a VM reached beyond its own."""

_FILE = click.Path(path_type=Path)
_RIGHT: Final = "right"
_SUMMARY: Final = {
    "vm": "VM",
    "mode": "mode",
    "workload": "workload",
    "accesses": "accesses",
    "l1_tlb_misses": "L1 TLB misses",
    "l2_tlb_misses": "L2 TLB misses",
    "walk_refs": "walk references",
    "guest_faults": "guest faults",
    "exits": "VM exits",
    "cycles_per_access": "cycles per access",
}


@click.command()
@click.argument("file", type=_FILE)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    shell_complete=settings_completion,
    help="Change a key: host.pool.min=128.",
)
@click.option("--out", type=_FILE, metavar="DIR", help="Write a run directory with all tables.")
@click.option("--force", is_flag=True, help="Replace the results of an earlier run in DIR.")
@click.option(
    "--alone", is_flag=True, help="Simulate each VM alone too, and say how much slower it is with the others."
)
@click.option("--timeline", is_flag=True, help="Note what happens when, for vmsim timeline DIR (slow; needs --out).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--check", is_flag=True, help="Check the host's invariants at every boundary (slow).")
def command(
    file: Path,
    settings: tuple[str, ...],
    out: Path | None,
    force: bool,
    alone: bool,
    timeline: bool,
    as_json: bool,
    check: bool,
) -> int:
    """Simulate a scenario.

    FILE is a scenario in TOML. Exit code 3 says that the simulated machine ran out of memory, or that a VM reached
    beyond its own; the tables then hold what was measured until then.
    """
    from vmsim.cli.screen import print_ending, print_json, say
    from vmsim.record.folder import check_folder
    from vmsim.scenario import Scenario, parse_settings

    scenario = Scenario.load(file, parse_settings(settings))
    if timeline and not out:
        raise InputError("--timeline: give --out DIR too, which keeps it.")
    if out:
        check_folder(out, force=force)
    from vmsim.api import run

    result = run(scenario, check=check, progress=True, timeline=timeline)
    if out:
        result.save(out, force=force)
    slower = _slower(scenario, result, check=check) if alone else None
    if as_json:
        print_json(json_of(result) | (slower or {}))
    else:
        print_result(result)
        if slower:
            _print_slower(**slower)
        if out:
            say(f"All tables are in {printable(out)}.")
    if result.ending:
        print_ending(result.ending)
        return STOPPED
    return 0


def json_of(result: Result) -> dict[str, Any]:
    """Return what ``--json`` prints of a run."""
    return {
        "vms": result.rows("summary"),
        "wall_seconds": result.facts.wall_seconds,
        "accesses_per_second": result.accesses_per_second,
        "latency": _latencies(result),
        "fault_kinds": result.rows("fault_kinds"),
        "outcome": result.facts.to_json(),
        "chosen_modes": {
            vm: {"mode": choice.mode, "reason": choice.reason} for vm, choice in result.scenario.choices.items()
        },
    }


def _slower(scenario: Scenario, result: Result, *, check: bool) -> dict[str, Any]:
    """Return how much slower each VM is than alone, and how fair that is."""
    from vmsim.alone import fairness, slowdowns

    rows = list(slowdowns(scenario, result, check=check, progress=True))
    return {"slowdown": rows, "fairness": fairness(rows)}


def _print_slower(slowdown: list[dict[str, Any]], fairness: dict[str, float]) -> None:
    from vmsim.cli.screen import Side, hundredths, print_table, say

    columns: dict[str, Side] = {"VM": "left", "together": _RIGHT, "alone": _RIGHT, "slowdown": _RIGHT}
    names = ("together_cycles_per_access", "alone_cycles_per_access", "slowdown")
    rows = [[row["vm"], *(hundredths(row[name]) for name in names)] for row in slowdown]
    print_table("Cycles per access from start to end, waits for a pCPU included", columns, rows)
    say(
        f"Fairness of what is left of each VM's speed: Jain's index {fairness['jain']:.3f}, the least over the most "
        f"{fairness['least_over_most']:.3f}."
    )


def _latencies(result: Result) -> list[dict[str, Any]]:
    """Return how long faults took; of a run that was kept, all of them together."""
    from vmsim.record.tables import latencies, percentiles

    if result.outcome:
        return latencies(result.outcome)
    counts: dict[str, dict[int, int]] = {}
    for row in result.rows("fault_latency"):
        counts.setdefault(row["vm"], {})[row["cycles"]] = row["count"]
    return [percentiles(vm, "fault", each) for vm, each in counts.items()]


def print_result(result: Result) -> None:
    """Print the tables of a run that people look at first."""
    from vmsim.base.units import seconds
    from vmsim.cli.screen import Side, hundredths, number, print_table, say
    from vmsim.record.causes import cause_of, in_order
    from vmsim.record.sentences import first_touches

    for vm, choice in result.scenario.choices.items():
        say(f"{vm} runs in mode {choice.mode}: {choice.reason}.")
    summary = result.rows("summary")
    names = ("vm", "mode", "workload")
    columns: dict[str, Side] = {label: "left" if key in names else "right" for key, label in _SUMMARY.items()}
    print_table("VMs", columns, ([vm[key] for key in _SUMMARY] for vm in summary))

    vms = [vm["vm"] for vm in summary]
    spent = {(row["cause"], row["vm"]): row["per_access"] for row in result.rows("cycles")}
    there = in_order(cause for (cause, _), cycles in spent.items() if cycles)
    causes = {cause_of(cause).label: [spent.get((cause, vm), 0.0) for vm in vms] for cause in there}
    causes["total"] = [vm["cycles_per_access"] for vm in summary]
    columns = {"cause": "left", **dict.fromkeys(vms, _RIGHT)}
    print_table("Cycles per access", columns, [[label, *map(hundredths, each)] for label, each in causes.items()])

    exits = [list(row.values()) for row in result.rows("exits") if row["count"]]
    if exits:
        columns = {"VM": "left", "reason": "left", "count": "right", "cycles": "right", "cycles each": "right"}
        print_table("VM exits", columns, [[*row, round(row[3] / row[2])] for row in exits])

    waits = _latencies(result)
    if waits:
        columns = {"VM": "left", "kind": "left", **dict.fromkeys(("count", "p50", "p99", "p99.9"), _RIGHT)}
        shown = ("vm", "kind", "count", "p50_cycles", "p99_cycles", "p99_9_cycles")
        rows = [[*row.values()] for row in waits]
        rows += [[row[column] for column in shown] for row in result.rows("fault_kinds")]
        rows.sort(key=lambda row: vms.index(row[0]))
        print_table("How long faults took, in cycles", columns, rows)

    facts = result.facts
    say(first_touches(summary, warmed=result.warmed))
    milliseconds = number(float(seconds(facts.end, facts.frequency) * 1000))
    say(
        f"{milliseconds} ms simulated in {facts.wall_seconds:.2f} s: "
        f"{number(int(float(f'{result.accesses_per_second:.2g}')))} accesses a second."
    )
