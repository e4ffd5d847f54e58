"""``vmsim validate``: published measurements, predicted."""

from __future__ import annotations

from importlib import import_module
from typing import Final

import click

from vmsim.errors import InputError, nearest

# One module of vmsim.validation each, with a function predict() -> Report.
STUDIES: Final = {
    "gups": "GUPS in a 64 GB guest (vMitosis, ASPLOS 2021).",
}


@click.command(epilog=f"Studies: {'; '.join(f'{name}, {text}' for name, text in STUDIES.items())}")
@click.argument("study")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(study: str, as_json: bool) -> int:
    """Predict published measurements, and say how far off.

    Exit code 1 says that a measurement lies outside the band that the prediction gives.
    """
    if study not in STUDIES:
        raise InputError(f"There is no study {study!r}. {nearest(study, STUDIES)}")
    report = import_module(f"vmsim.validation.{study}").predict()
    if as_json:
        from vmsim.cli.screen import print_json

        print_json(report.to_json())
    else:
        click.echo(str(report))
    return 0 if report.ok else 1
