"""``vmsim schema``: the JSON Schema of scenario files, or of sweep files."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from vmsim.cli.choice import Choice


@click.command()
@click.argument("what", type=Choice(["scenario", "sweep"]), default="scenario")
@click.option("--json", "as_json", is_flag=True, help="Plain text even on a terminal.")
def command(what: str, as_json: bool) -> None:
    """Print the JSON Schema of scenario files, or of sweep files, for editors that complete and check TOML."""
    text = json.dumps(schema_of(what), indent=2, ensure_ascii=False)
    if as_json or not sys.stdout.isatty():
        click.echo(text)
    else:
        from rich.console import Console

        Console().print_json(text, indent=2)


def schema_of(what: str) -> dict[str, Any]:
    """Return the JSON Schema of scenario files, or of sweep files."""
    if what == "sweep":
        from vmsim.sweeps.sweep import Sweep

        return Sweep.json_schema()
    from vmsim.scenario import Scenario

    return Scenario.json_schema()
