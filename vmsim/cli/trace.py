"""``vmsim trace``: record, convert and look at traces of real programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

_FILE = click.Path(path_type=Path)
_GRANULE = click.option(
    "--granule",
    type=click.Choice(["4096", "64"]),
    default="4096",
    show_default=True,
    help="Bytes of a block: pages for TLBs, or cache lines (larger files).",
)
_FETCH = click.option("--fetch", is_flag=True, help="Keep instruction fetches as well as loads and stores.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(name="trace")
def command() -> None:
    """Record, convert and look at traces of real programs."""


@command.command(context_settings={"ignore_unknown_options": True})
@click.option("-o", "--output", type=_FILE, help="The trace to write.  [default: PROGRAM.vmtrace]")
@_FETCH
@_GRANULE
@click.option("--max-accesses", type=click.IntRange(min=1), help="Stop the program after so many accesses.")
@_JSON
@click.argument("program", nargs=-1, required=True, type=click.UNPROCESSED)
def record(
    output: Path | None,
    fetch: bool,
    granule: str,
    max_accesses: int | None,
    as_json: bool,
    program: tuple[str, ...],
) -> None:
    """Run PROGRAM under valgrind and record its memory accesses: vmsim trace record -o sort.vmtrace -- sort FILE.

    Mappings, heap changes, forks and the exit stay in place between the accesses. Only the process started is
    recorded, not its children. Ctrl-C stops the program; what came until then is kept as a valid trace.
    """
    from vmsim.workloads.recorder import record as run

    path = output or Path(f"{Path(program[0]).name}.vmtrace")
    with _progress("recording", max_accesses) as progress:
        done = run(program, path, fetch=fetch, granule=int(granule), limit=max_accesses, progress=progress)
    told = {"output": str(path), "bytes": path.stat().st_size, "exit_status": done.status}
    told |= {"interrupted": done.interrupted} | done.totals
    if as_json:
        click.echo(json.dumps(told, indent=2))
        return
    if done.interrupted:
        how = "was interrupted; the trace holds what came until then"
    elif done.status is None:
        how = f"was stopped after {max_accesses:,} accesses"
    else:
        how = f"ended with exit status {done.status}"
    click.echo(f"{program[0]} {how}.", err=True)
    click.echo(f"{path}: {told['accesses']:,} accesses in {told['runs']:,} runs, {told['bytes']:,} bytes.", err=True)


@command.command()
@click.argument("source", type=_FILE, metavar="IN")
@click.argument("target", type=_FILE, metavar="OUT")
@click.option("--format", "form", default="auto", show_default=True, help="Format of IN: lackey, champsim, …")
@_FETCH
@_GRANULE
@_JSON
def convert(source: Path, target: Path, form: str, fetch: bool, granule: str, as_json: bool) -> None:
    """Convert the trace IN (of any known format, or the name of a bundled one) to OUT.

    OUT's suffix says its format: .vmtrace, or for other tools .u64 (one address an access), .csv or .parquet (one row
    a run).
    """
    from vmsim.workloads.export import export
    from vmsim.workloads.trace import find

    with _progress("converting", None) as progress:
        told = export(find(source, Path()), target, form=form, fetch=fetch, granule=int(granule), progress=progress)
    told = {"output": str(target), "bytes": target.stat().st_size} | told
    if as_json:
        click.echo(json.dumps(told, indent=2))
    else:
        click.echo(
            f"{target}: {told['accesses']:,} accesses in {told['runs']:,} runs, {told['bytes']:,} bytes.", err=True
        )


@command.command()
@click.argument("file", type=_FILE)
@click.option("--format", "form", default="auto", show_default=True, help="Format of FILE.")
@_JSON
def info(file: Path, form: str, as_json: bool) -> None:
    """Say what is in the trace FILE (of any known format, or the name of a bundled one)."""
    from vmsim.workloads.export import describe
    from vmsim.workloads.trace import find

    told = describe(find(file, Path()), form)
    if as_json:
        click.echo(json.dumps(told, indent=2))
        return
    from rich.console import Console

    console = Console()
    for table in _tables(told):
        console.print(table)


def _tables(told: dict[str, Any]) -> Iterator[Any]:
    from rich.table import Table

    from vmsim.workloads.summary import REUSE

    accesses, runs = told["accesses"], max(1, told["runs"])
    table = Table(title=told["path"], title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("format", told["format"])
    for key, label in (("command", "command"), ("tool", "recorded with")):
        if key in told:
            value = told[key]
            table.add_row(label, value if isinstance(value, str) else " ".join(map(str, value)))
    table.add_row("size", f"{told['bytes']:,} bytes, {8 * told['bytes'] / max(1, accesses):.2f} bits an access")
    table.add_row("granule", f"{told['granule']} bytes")
    for kind in ("reads", "writes", "fetches"):
        table.add_row(kind, f"{told[kind]:,} ({told[kind] / max(1, accesses):.1%})")
    table.add_row("accesses", f"{accesses:,}")
    table.add_row("runs", f"{told['runs']:,}: {accesses / runs:.2f} accesses each, the longest {told['longest_run']:,}")
    table.add_row("pages touched", f"{told['pages']:,} ({told['pages'] / 256:.1f} MiB) in {told['regions']:,} regions")
    table.add_row("processes", str(told["processes"]))
    table.add_row("events", ", ".join(f"{count:,} {op}" for op, count in told["events"].items()) or "none")
    yield table
    reuse = Table(title="Reuse: other blocks used since a run's block was last used", title_justify="left")
    reuse.add_column("blocks", justify="right")
    reuse.add_column("runs", justify="right")
    reuse.add_column("of all", justify="right")
    reuse.add_column("with nearer ones", justify="right")
    below = 0
    first = 0
    for end, count in zip(REUSE, told["reuse"], strict=True):
        below += count
        label = "more, or first use" if end == REUSE[-1] else str(end) if first == end else f"{first}–{end}"
        reuse.add_row(label, f"{count:,}", f"{count / runs:.2%}", f"{below / runs:.2%}")
        first = end + 1
    yield reuse


@contextmanager
def _progress(verb: str, total: int | None) -> Iterator[Callable[[int], None] | None]:
    """Show accesses and their rate on a terminal; give None where there is none."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[count]}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(verb, total=total, count="")

        def show(accesses: int) -> None:
            elapsed = bar.tasks[0].elapsed or 1.0
            count = f"{accesses:,} accesses, {accesses / elapsed / 1e6:.1f} M/s"
            bar.update(task, completed=accesses, count=count)

        yield show
