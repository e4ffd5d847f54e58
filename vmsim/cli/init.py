"""``vmsim init``: files to begin with."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Final

import click

from vmsim.base.errors import InputError
from vmsim.base.files import printable, replacing
from vmsim.cli.choice import Choice

EXAMPLES: Final = ("starter", "overcommit")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=".", metavar="[DIR]")
@click.option("--example", type=Choice(EXAMPLES), default="starter", show_default=True, help="Which scenario.")
@click.option("--force", is_flag=True, help="Replace files of these names.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(folder: Path, example: str, force: bool, as_json: bool) -> None:
    """Write a scenario and a sweep to begin with.

    DIR, the current folder if it is left out, gets scenario.toml and sweep.toml, every line explained, and their JSON
    Schemas, by which editors complete and check what is written (Even Better TOML, taplo).
    """
    from vmsim.cli.schema import schema_of
    from vmsim.cli.screen import print_json

    texts = {
        "scenario.toml": _text(f"{example}.toml"),
        "sweep.toml": _text(f"{example}-sweep.toml"),
        **{f"vmsim.{what}.schema.json": json.dumps(schema_of(what), indent=1) for what in ("scenario", "sweep")},
    }
    there = [name for name in texts if (folder / name).exists()]
    if there and not force:
        raise InputError(
            f"{printable(folder / there[0])} is there; --force replaces it, another DIR keeps it.",
            file=str(folder / there[0]),
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{printable(folder)}: {error.strerror}.", file=str(folder)) from error
    for name, text in texts.items():
        with replacing(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    if as_json:
        print_json({"files": [str(folder / name) for name in texts]})
    else:
        click.echo(f"{', '.join(printable(folder / name) for name in texts)}")
        click.echo(f"Next: vmsim run {printable(folder / 'scenario.toml')}")


def _text(name: str) -> str:
    return files("vmsim.scenario").joinpath("examples", name).read_text(encoding="utf-8")
