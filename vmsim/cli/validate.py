"""``vmsim validate``: published measurements, predicted."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Final

import click

from vmsim.errors import InputError, nearest

# One module of vmsim.validation each, with a function predict() -> Report.
STUDIES: Final = {
    "adams-agesen": "single operations and forkwait under a shadow monitor (Adams & Agesen, ASPLOS 2006).",
    "agile": "page walks of eight programs, nested and shadow (Agile Paging, ISCA 2016).",
    "bhargava": "two-dimensional walks and their caching (Bhargava et al., ASPLOS 2008).",
    "gups": "GUPS in a 64 GB guest (vMitosis, ASPLOS 2021).",
    "instlat": "what translation adds to a load, by footprint (InstLatx64).",
}
# Of these, a module of vmsim.analysis with the study's name has a function picture(curves, path).
DRAWN: Final = ("instlat",)

# Of these, predict() takes some of the names that the module has under this one, in place of all.
PARTS: Final = {"agile": "FOOTPRINTS", "instlat": "CPUS"}


@click.command(epilog=f"Studies: {'; '.join(f'{name}, {text}' for name, text in STUDIES.items())}")
@click.argument("study")
@click.option("--figure", metavar="FILE", help=f"Draw it as .png, .pdf or .svg ({', '.join(DRAWN)}).")
@click.option("--only", metavar="NAMES", help=f"Some parts of a study, comma-separated ({', '.join(PARTS)}).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(study: str, figure: str | None, only: str | None, as_json: bool) -> int:
    """Predict published measurements, and say how far off.

    Exit code 1 says that a measurement lies outside the band that the prediction gives.
    """
    if study not in STUDIES:
        raise InputError(f"There is no study {study!r}. {nearest(study, STUDIES)}")
    if figure and study not in DRAWN:
        raise InputError(f"The study {study} has no figure; {', '.join(DRAWN)} has one.")
    if only and study not in PARTS:
        raise InputError(f"--only: the study {study} has no parts; {' and '.join(PARTS)} have.")
    module = import_module(f"vmsim.validation.{study.replace('-', '_')}")
    report = module.predict(*([_parts(only, [*getattr(module, PARTS[study])])] if only else []))
    if figure:
        import_module(f"vmsim.analysis.{study}").picture(report.curves, Path(figure))
    if as_json:
        from vmsim.cli.screen import print_json

        print_json(report.to_json())
    else:
        click.echo(str(report))
    return 0 if report.ok else 1


def _parts(names: str, known: list[str]) -> list[str]:
    """Return the parts named, in the study's order."""
    wanted = [name.strip() for name in names.split(",")]
    for name in wanted:
        if name not in known:
            raise InputError(f"--only: there is no {name!r}. {nearest(name, known)}")
    return [name for name in known if name in wanted]
