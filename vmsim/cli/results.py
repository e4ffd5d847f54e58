"""``vmsim results``: what sweeps have left."""

from __future__ import annotations

from pathlib import Path

import click

from vmsim.base.files import printable

_FOLDER = click.Path(path_type=Path)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def command() -> None:
    """List, merge, export and verify the results of sweeps."""


@command.command("ls")
@click.argument("folders", nargs=-1, required=True, type=_FOLDER, metavar="DIR...")
@click.option("--failures", "show_failures", is_flag=True, help="List the points that failed, with their errors.")
@_JSON
def list_(folders: tuple[Path, ...], show_failures: bool, as_json: bool) -> None:
    """Summarise result stores: points, rows, failures."""
    from vmsim.cli.screen import Side, print_json, print_table
    from vmsim.sweeps.merging import contents
    from vmsim.sweeps.tables import read_failures

    if show_failures:
        failed = [(folder, row) for folder in folders for row in read_failures(folder).to_dict("records")]
        if as_json:
            print_json([{"folder": str(folder), **row} for folder, row in failed])
        else:
            for folder, row in failed:
                click.echo(f"{printable(folder)}: {row['point']}\n{row['failure']}")
        return
    found = {str(folder): contents(folder) for folder in folders}
    if as_json:
        print_json({folder: each._asdict() for folder, each in found.items()})
        return
    columns: dict[str, Side] = {"folder": "left", "state": "left"}
    columns |= dict.fromkeys(("points", "rows", "failures"), "right")
    rows = [
        [folder, "unfinished" if each.waiting else "whole", each.points, each.rows, each.failures]
        for folder, each in found.items()
    ]
    print_table("Sweeps", columns, rows)


@command.command()
@click.argument("folders", nargs=-1, required=True, type=_FOLDER, metavar="DIR...")
@click.option("--out", required=True, type=_FOLDER, metavar="DIR", help="A new folder.")
@_JSON
def merge(folders: tuple[Path, ...], out: Path, as_json: bool) -> None:
    """Put the results of several stores into a new one, each point once.

    Different results for the same point are an error.
    """
    from vmsim.cli.screen import print_json
    from vmsim.sweeps.merging import merge as merge_all

    made = merge_all(folders, out)
    if as_json:
        print_json({"folder": str(out), **made._asdict()})
    else:
        click.echo(f"{made.points:,} points, {made.rows:,} rows are in {printable(out)}.")


@command.command()
@click.argument("folder", type=_FOLDER, metavar="DIR")
@click.argument("file", type=_FOLDER)
@click.option("--force", is_flag=True, help="Replace FILE if it is there.")
@click.option("--no-formulas", is_flag=True, help="Put ' before texts of a CSV that spreadsheets take for formulas.")
@_JSON
def export(folder: Path, file: Path, force: bool, no_formulas: bool, as_json: bool) -> None:
    """Write all results to one FILE, CSV or Parquet as its name ends."""
    from vmsim.cli.screen import print_json
    from vmsim.sweeps.merging import export as export_all

    rows = export_all(folder, file, force=force, formulas=not no_formulas)
    if as_json:
        print_json({"file": str(file), "rows": rows})
    else:
        click.echo(f"{rows:,} rows are in {printable(file)}.")


@command.command()
@click.argument("folder", type=_FOLDER, metavar="DIR")
@click.option("--repair", is_flag=True, help="Set damaged parts aside, and make a missing manifest again.")
@click.option("--no-lock", is_flag=True, help="With --repair, do not lock DIR: for file systems without locks.")
@_JSON
def verify(folder: Path, repair: bool, no_lock: bool, as_json: bool) -> int:
    """Read every part and compare it with the manifest. Exit code 1 says that something is wrong.

    With --repair, a part that is not what the manifest says is renamed, and the next sweep runs its points again.
    """
    from vmsim.cli.screen import print_json
    from vmsim.sweeps.repair import repair as save
    from vmsim.sweeps.repair import verify as verify_all

    done = save(folder, lock=not no_lock) if repair else []
    problems = verify_all(folder)
    if as_json:
        print_json({"folder": str(folder), "repaired": done, "problems": problems})
    else:
        click.echo("\n".join([*done, *problems, *([] if problems else [f"{printable(folder)}: whole."])]))
    return 1 if problems else 0
