"""``vmsim timeline``: a run as a trace for Perfetto."""

from __future__ import annotations

from pathlib import Path

import click

from vmsim.base.errors import InputError, nearest
from vmsim.base.files import printable, refuse_overwrite

_FILE = click.Path(path_type=Path)


@click.command()
@click.argument("run", type=_FILE)
@click.option("--out", type=_FILE, metavar="FILE", help="Where to write it.  [default: RUN.pftrace]")
@click.option("--vm", "vms", multiple=True, metavar="NAME", help="Only this VM and the host; may be given again.")
@click.option("--from", "start", metavar="TIME", help="Only what ends at this simulated time or later: 1.5ms.")
@click.option("--to", "end", metavar="TIME", help="Only what begins until this time.")
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    run: Path,
    out: Path | None,
    vms: tuple[str, ...],
    start: str | None,
    end: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Write what happened in a run as a timeline for Perfetto.

    RUN is a run directory, as `vmsim run --timeline --out` writes it; open FILE at https://ui.perfetto.dev. A run
    without --timeline has messages, pools and sampled memory, but not what vCPUs, pCPUs and daemons did.
    """
    from vmsim.base.units import parse_duration
    from vmsim.cli.screen import print_json, say
    from vmsim.observe.perfetto import write_timeline
    from vmsim.record.result import Result

    file = out or Path(f"{run.resolve().name or 'run'}.pftrace")
    refuse_overwrite(file, force=force)
    result = Result.load(run)
    known = [vm.name for vm in result.scenario.vms]
    for vm in vms:
        if vm not in known:
            raise InputError(f"--vm: the run has no VM {vm!r}. {nearest(vm, known)}")
    hertz = result.facts.frequency
    first = parse_duration(start).cycles(hertz) if start is not None else 0
    last = parse_duration(end).cycles(hertz) if end is not None else None
    told = write_timeline(result, file, vms=vms, start=first, end=last, force=force)
    if as_json:
        print_json({"file": str(file), **told._asdict()})
        return
    say(f"{told.slices:,} slices and {told.counts:,} values on {told.tracks:,} tracks are in {printable(file)}.")
    if not told.every:
        say("What vCPUs, pCPUs and daemons did was not noted: simulate it with vmsim run --timeline --out DIR.")
    elif told.every > 1:
        say(
            f"The run was long: of what vCPUs, pCPUs and daemons did, one in {told.every:,} was kept, and gaps show it."
        )
    say("Open it at https://ui.perfetto.dev.")
