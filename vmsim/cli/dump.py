"""``vmsim dump``: what a run's directory does not hold."""

from __future__ import annotations

from pathlib import Path

import click

from vmsim.base.files import printable

_FOLDER = click.Path(path_type=Path)


@click.command()
@click.argument("run", type=_FOLDER)
@click.option("--tables", is_flag=True, help="Page tables, in the text form that DMT and SagePTE read: the default.")
@click.option("--out", type=_FOLDER, metavar="DIR", help="Folder to write to.  [default: RUN.tables]")
@click.option("--force", is_flag=True, help="Replace an earlier dump.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(run: Path, tables: bool, out: Path | None, force: bool, as_json: bool) -> None:
    """Write the page tables of a run, as they were when each VM ended.

    RUN is a run directory, as `vmsim run --out` writes it. It holds no tables: the run is simulated again, which takes
    as long as it did, and ends in the same tables. Each process of a VM gives VM.PID.guest.txt, each VM VM.host.txt.
    """
    from vmsim.base.progress import progress_bar
    from vmsim.cli.screen import print_json, print_table, say
    from vmsim.observe.dump import dump_tables
    from vmsim.record.result import Result

    out = out or run.with_name(f"{run.name}.tables")
    result = Result.load(run)
    with progress_bar("simulating") as show:
        records = dump_tables(result, out, force=force, progress=show)
    if as_json:
        print_json({"folder": str(out), "records": records})
        return
    print_table("Page tables", {"file": "left", "records": "right"}, records.items())
    say(f"They are in {printable(out)}.")
