"""``vmsim sweep``: simulate a scenario at many points."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from vmsim.sweeps.estimate import Estimate
    from vmsim.sweeps.plan import Plan
    from vmsim.sweeps.shard import Shard
    from vmsim.sweeps.sweep import Sweep

FAILED: Final = 1
"""Exit code where points failed."""

_FILE = click.Path(path_type=Path)
_SHOWN: Final = 20


@click.command()
@click.argument("file", type=_FILE)
@click.option("--out", type=_FILE, metavar="DIR", help="Where results are kept; FILE with .results if left out.")
@click.option("--jobs", type=click.IntRange(1, 4096), metavar="N", help="Processes; all cores if left out.")
@click.option("--dry-run", is_flag=True, help="Print the points that are missing and about how long they take.")
@click.option("--retries", type=click.IntRange(0, 100), default=1, show_default=True, help="Retries per failing point.")
@click.option("--again", is_flag=True, help="Run points again whose failure is recorded.")
@click.option(
    "--shard", metavar="I/N", help="Run one of N parts of the sweep, as in a job array; vmsim results merge joins them."
)
@click.option("--no-lock", is_flag=True, help="Do not lock DIR: for file systems without locks.")
@click.option("--scheduler", metavar="ADDRESS", help="Run on a Dask cluster: an address, or a TOML file for SLURM.")
@click.option("--json", "as_json", is_flag=True, help="Print events as JSON, one a line.")
def command(
    file: Path,
    out: Path | None,
    jobs: int | None,
    dry_run: bool,
    retries: int,
    again: bool,
    shard: str | None,
    no_lock: bool,
    scheduler: str | None,
    as_json: bool,
) -> int:
    """Simulate a scenario at many points of its parameters, in parallel.

    FILE is a sweep in TOML. Points whose results are in DIR are not run again, so the same command goes on where it
    was interrupted. Ctrl-C lets running points end; a second one drops them. Exit code 1 says that points failed.
    """
    from vmsim.sweeps.shard import Shard
    from vmsim.sweeps.sweep import Sweep

    sweep = Sweep.load(file)
    part = Shard.parse(shard) if shard is not None else None
    out = out or file.with_suffix(f".{part}.results" if part else ".results")
    if dry_run:
        return _dry_run(sweep, out, jobs, as_json, part)

    from vmsim.cli.sweep_screen import listening
    from vmsim.sweeps.driver import run_sweep
    from vmsim.sweeps.executors import executor_at

    with listening(as_json) as listener:
        summary = run_sweep(
            sweep,
            out,
            executor=executor_at(scheduler),
            jobs=jobs,
            retries=retries,
            again=again,
            lock=not no_lock,
            shard=part,
            listener=listener,
        )
    if summary.interrupted:
        raise KeyboardInterrupt(summary.kept(out))
    if not as_json:
        from vmsim.cli.screen import say

        skipped = f" {summary.skipped:,} skipped, whose scenarios cannot be." if summary.skipped else ""
        failed = f" {summary.failed:,} failed: vmsim results ls --failures {out}." if summary.failed else ""
        say(
            f"{summary.points:,} points: {summary.recorded:,} were there, {summary.done:,} done in "
            f"{summary.seconds:.1f} s.{skipped}{failed} The results are in {out}."
        )
    return FAILED if summary.failed else 0


def _dry_run(sweep: Sweep, out: Path, jobs: int | None, as_json: bool, shard: Shard | None) -> int:
    from vmsim.cli.screen import Side, print_table, say
    from vmsim.sweeps.estimate import estimate, missing_points

    plan = missing_points(sweep, out, shard)
    guess = estimate(plan, out, jobs)
    if as_json:
        _dry_json(plan, guess)
        return 0
    if len(plan):
        columns: dict[str, Side] = {name: "left" if kind == "str" else "right" for name, kind in plan.columns.items()}
        shown = [list(plan.values(place).values()) for place in range(min(len(plan), _SHOWN))]
        print_table("Points", columns | {"replicate": "right"}, _with_replicates(shown, plan))
        if len(plan) > _SHOWN:
            say(f"… and {len(plan) - _SHOWN:,} more\n")
    say(f"{plan.total:,} points, {plan.total - len(plan):,} of them recorded in {out}, {len(plan):,} to run.")
    if plan.skipped:
        skipped = "1 point is skipped: its" if plan.skipped == 1 else f"{plan.skipped:,} points are skipped: their"
        say(f"{skipped} scenario cannot be.")
    if guess:
        processes = "1 process" if guess.jobs == 1 else f"{guess.jobs} processes"
        say(f"About {guess.told} with {processes} ({guess.source}).")
    return 0


def _with_replicates(rows: list[list[Any]], plan: Plan) -> list[list[Any]]:
    return [[*row, int(plan.points["replicate"][place])] for place, row in enumerate(rows)]


def _dry_json(plan: Plan, guess: Estimate | None) -> None:
    import json

    for place in range(len(plan)):
        point = {"point": plan.identity(place), "values": plan.values(place)}
        event = {"event": "point", **point, "replicate": int(plan.points["replicate"][place])}
        click.echo(json.dumps(event, ensure_ascii=False))
    facts: dict[str, Any] = {"points": plan.total, "recorded": plan.total - len(plan), "pending": len(plan)}
    if plan.skipped:
        facts["skipped"] = plan.skipped
    if guess:
        facts |= {"seconds": round(guess.seconds, 3), "jobs": guess.jobs, "source": guess.source}
    click.echo(json.dumps({"event": "estimate", **facts}, ensure_ascii=False))
