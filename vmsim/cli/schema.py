"""``vmsim schema``: the JSON Schema of scenario files."""

from __future__ import annotations

import json
import sys

import click


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Plain text even on a terminal.")
def command(as_json: bool) -> None:
    """Print the JSON Schema of scenario files, for editors that complete and check TOML."""
    from vmsim.scenario import Scenario

    text = json.dumps(Scenario.json_schema(), indent=2, ensure_ascii=False)
    if as_json or not sys.stdout.isatty():
        click.echo(text)
    else:
        from rich.console import Console

        Console().print_json(text, indent=2)
