"""``vmsim arrivals``: a scenario of VMs that come and go, from a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vmsim.base.files import printable, refuse_overwrite

if TYPE_CHECKING:
    from vmsim.scenario import Scenario

_FILE = click.Path(path_type=Path)


@click.command()
@click.argument("table", type=_FILE)
@click.argument("scenario", type=_FILE)
@click.option("--out", type=_FILE, metavar="FILE", required=True, help="Write the scenario here.")
@click.option("--form", metavar="NAME", help="events, azure, google, alibaba or alibaba-gpu; by default what it shows.")
@click.option("--first", type=click.IntRange(min=1), metavar="N", help="Take the N VMs that start first.")
@click.option("--after", default="0s", metavar="TIME", help="Leave out VMs that start before this time of the table.")
@click.option("--speed", type=float, default=1.0, metavar="X", help="Divide all times by X.")
@click.option("--scale", type=float, default=1.0, metavar="X", help="Multiply all sizes by X.")
@click.option("--machine", metavar="SIZE", help="Memory of a machine, where the table gives parts; the host's.")
@click.option("--footprint", metavar="SHARE", help="What a VM's workload uses of its memory: 60%.")
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    table: Path, scenario: Path, out: Path, form: str | None, force: bool, as_json: bool, **options: Any
) -> None:
    """Make a scenario of VMs that come, change their size and go.

    TABLE is a CSV of events (time, vm, event, size), or one of the traces of Azure, Google or Alibaba. SCENARIO has the
    host, and one [[vm]] that all VMs are made like.
    """
    from vmsim.lifetimes import arrivals

    refuse_overwrite(out, force=force)
    made = arrivals(table, scenario, form=form, **options)
    made.save(out)
    facts = _facts(made)
    if as_json:
        from vmsim.cli.screen import print_json

        print_json({"file": str(out), **facts})
        return
    from vmsim.base.units import format_size

    click.echo(
        f"{facts['vms']} VMs are in {printable(out)}: {facts['most_vms']} at a time at most, which have "
        f"{format_size(facts['most_memory'])} together, {facts['overcommit']:.2f} times the host's memory."
    )


def _facts(made: Scenario) -> dict[str, Any]:
    """Return how many VMs there are, and what those have together that there are at a time."""
    changes: list[tuple[int, int, int]] = []
    for vm in made.vms:
        changes.append((vm.start, 1, vm.memory))
        if vm.stop is not None:
            changes.append((vm.stop, -1, -vm.memory))
    count = memory = most = largest = 0
    for _, one, size in sorted(changes):
        count, memory = count + one, memory + size
        most, largest = max(most, count), max(largest, memory)
    return {
        "vms": len(made.vms),
        "most_vms": most,
        "most_memory": largest,
        "overcommit": largest / made.host.memory,
    }
