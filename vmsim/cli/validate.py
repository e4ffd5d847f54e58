"""``vmsim validate``: published measurements, predicted."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vmsim.base.errors import InputError
from vmsim.base.files import refuse_figure
from vmsim.validation.studies import DRAWN, PARTS, STUDIES, validate

if TYPE_CHECKING:
    from vmsim.validation.report import Report


@click.command()
@click.argument("studies", nargs=-1, metavar="[STUDY]...")
@click.option("--list", "listed", is_flag=True, help="List the studies, and what is known to miss.")
@click.option(
    "--figure",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=f"Draw it as .png, .pdf or .svg ({', '.join(DRAWN)}).",
)
@click.option("--force", is_flag=True, help="Replace the figure's FILE if it is there.")
@click.option("--only", metavar="NAMES", help=f"Some parts of one study, with commas between them: {', '.join(PARTS)}.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    studies: tuple[str, ...], listed: bool, figure: Path | None, force: bool, only: str | None, as_json: bool
) -> int:
    """Predict published measurements, and say how far off.

    All studies are run unless some are named; --list says which there are. Exit code 1 says that a measurement lies
    outside the band of its prediction and is not known to: known misses are printed as such and do not count.
    """
    if listed:
        _list(as_json)
        return 0
    if figure and (len(studies) != 1 or (studies[0] in STUDIES and studies[0] not in DRAWN)):
        which = f"the study {studies[0]} has none" if len(studies) == 1 else "name one study"
        raise InputError(f"--figure: {which}; {', '.join(DRAWN)} has a figure.")
    if figure:
        refuse_figure(figure, force=force)
    parts = [name.strip() for name in only.split(",")] if only else None
    reports = validate(studies or None, only=parts, progress=True)
    if figure:
        import_module(f"vmsim.analysis.{studies[0]}").picture(reports[studies[0]].curves, figure, force=force)
    if as_json:
        from vmsim.cli.screen import print_json

        made = {name: report.to_json() for name, report in reports.items()}
        print_json(made[studies[0]] if len(studies) == 1 else made)
    else:
        for report in reports.values():
            _print(report)
    return 1 if any(report.unexpected for report in reports.values()) else 0


def _list(as_json: bool) -> None:
    from vmsim.cli.screen import print_json, print_table
    from vmsim.validation.studies import known_misses

    if as_json:
        print_json({name: {"about": about, "known_misses": known_misses(name)} for name, about in STUDIES.items()})
        return
    rows = [[name, len(known_misses(name)), about] for name, about in STUDIES.items()]
    print_table("Studies", {"study": "left", "known misses": "right", "what": "text"}, rows)


def _print(report: Report) -> None:
    from vmsim.cli.screen import Side, print_facts, print_table, say

    say(f"{report.title}\nMeasured by: {report.source}\n")
    fitted = {f"fitted: {name}": value for name, value in report.fitted.items()}
    print_facts("", fitted | report.details)
    columns: dict[str, Side] = {"quantity": "left", "predicted": "right", "measured": "right", "deviation": "right"}
    print_table("", columns | {"band": "right", "verdict": "left"}, report.rows)
    for finding in report.findings:
        say(f"{finding.quantity}: {report.verdict(finding)}")
        say(f"  predicted  {finding.predicted}\n  measured   {finding.measured}")
    if report.findings:
        say("")
    known: dict[str, list[str]] = {}
    for each in report.all:
        if each.ok is False and each.quantity in report.known:
            known.setdefault(report.known[each.quantity], []).append(each.quantity)
    for why, quantities in known.items():
        say(f"Known to miss ({len(quantities)}): {why}")
    say(f"{report.conclusion}\n")
