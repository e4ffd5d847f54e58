"""``vmsim report``: one HTML page of a run, a comparison or a sweep."""

from __future__ import annotations

from pathlib import Path

import click

from vmsim.base.files import printable

_FILE = click.Path(path_type=Path)


@click.command()
@click.argument("source", type=_FILE, metavar="RUN|SWEEP")
@click.option("--out", type=_FILE, metavar="FILE", help="Where to write it.  [default: RUN.html]")
@click.option("--title", metavar="TEXT", help="The heading.  [default: the folder's name]")
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(source: Path, out: Path | None, title: str | None, force: bool, as_json: bool) -> None:
    """Write one HTML page of a run, a comparison or a sweep.

    RUN|SWEEP is a folder that vmsim run, compare or sweep has written. The page needs no other file and no network.
    """
    from vmsim.cli.screen import print_json, say
    from vmsim.reporting.page import report

    file = report(source, out or Path(f"{source.resolve().name or 'run'}.html"), title=title, force=force)
    if as_json:
        print_json({"file": str(file), "bytes": file.stat().st_size})
    else:
        say(f"The page is {printable(file)}.")
