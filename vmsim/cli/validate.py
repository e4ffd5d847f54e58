"""``vmsim validate``: published measurements, predicted."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vmsim.base.errors import InputError
from vmsim.base.files import printable, refuse_figure
from vmsim.cli.completing import studies as studies_completion
from vmsim.validation.studies import DRAWN, PARTS, STUDIES, validate

if TYPE_CHECKING:
    from vmsim.validation.report import Report

_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("studies", nargs=-1, metavar="[STUDY]...", shell_complete=studies_completion)
@click.option("--list", "listed", is_flag=True, help="List the studies, what is known to miss, what is not attempted.")
@click.option("--figure", type=_PATH, metavar="FILE", help=f"Draw it as .png, .pdf or .svg ({', '.join(DRAWN)}).")
@click.option("--report", "page", type=_PATH, metavar="DIR", help="Write a page with figures, and its data, to DIR.")
@click.option("--force", is_flag=True, help="Replace the figure's FILE, or the page in DIR, if it is there.")
@click.option(
    "--only",
    metavar="NAMES",
    help=f"Some parts of the one study that is named ({', '.join(PARTS)}), with commas between them; or some studies.",
)
@click.option("--jobs", type=click.IntRange(1, 4096), metavar="N", help="Studies at a time; all cores if left out.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    studies: tuple[str, ...],
    listed: bool,
    figure: Path | None,
    page: Path | None,
    force: bool,
    only: str | None,
    jobs: int | None,
    as_json: bool,
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
    if page:
        from vmsim.record.folder import check_folder

        check_folder(page, force=force)
    parts = [name.strip() for name in only.split(",")] if only else None
    reports = validate(studies or None, only=parts, jobs=jobs, progress=True)
    if figure:
        import_module(f"vmsim.analysis.{studies[0]}").picture(reports[studies[0]].curves, figure, force=force)
    if page:
        from vmsim.cli.validation_page import write_page
        from vmsim.validation.targets import targets

        write_page(reports, targets(), page, force=force)
    if as_json:
        from vmsim.cli.screen import print_json

        print_json(reports[studies[0]].to_json() if len(studies) == 1 else _json(reports))
    else:
        for report in reports.values():
            _print(report)
        if len(studies) != 1:
            _print_summary(reports)
        if page:
            click.echo(f"The page is {printable(page / 'index.html')}.")
    return 1 if any(report.unexpected for report in reports.values()) else 0


def _list(as_json: bool) -> None:
    from vmsim.cli.screen import print_json, print_table
    from vmsim.validation.studies import known_misses
    from vmsim.validation.targets import targets

    if as_json:
        studies = {name: {"about": about, "known_misses": known_misses(name)} for name, about in STUDIES.items()}
        print_json({"studies": studies, "targets": [each.to_json() for each in targets()]})
        return
    rows = [[name, len(known_misses(name)), about] for name, about in STUDIES.items()]
    print_table("Studies", {"study": "left", "known misses": "right", "what": "text"}, rows)
    _print_left()


def _json(reports: dict[str, Report]) -> dict[str, Any]:
    """Return what ``--json`` prints of several studies."""
    from vmsim.validation.targets import targets

    return {
        "studies": {name: report.to_json() for name, report in reports.items()},
        "targets": [each.to_json() for each in targets()],
        "unexpected": {name: report.unexpected for name, report in reports.items() if report.unexpected},
    }


def _print_summary(reports: dict[str, Report]) -> None:
    """Print a line for each study, and what no study attempts."""
    from vmsim.cli.screen import Side, print_table, say

    columns: dict[str, Side] = {"study": "left", "predictions agree": "right", "conform": "right"}
    columns |= {"as fitted": "right", "known misses": "right", "new misses": "right", "seconds": "right"}
    rows: list[list[object]] = []
    for name, report in reports.items():
        counts = (report.counts.get(kind, (0, 0)) for kind in ("prediction", "conformance", "fit"))
        cells = [f"{agree} of {many}" if many else "" for agree, many in counts]
        known = report.misses - len(report.unexpected)
        rows.append([name, *cells, known or "", len(report.unexpected) or "", f"{report.seconds:.0f}"])
    print_table("All studies", columns, rows)
    agree, many = (sum(report.counts.get("prediction", (0, 0))[at] for report in reports.values()) for at in (0, 1))
    say(f"{agree} of {many} predictions agree.\n")
    _print_left()


def _print_left() -> None:
    """Print what no study attempts, and why."""
    from vmsim.cli.screen import print_table
    from vmsim.validation.targets import targets

    left = [[each.file.removesuffix(".csv"), f"{each.what}: {each.why}"] for each in targets() if _left(each.status)]
    print_table("Not attempted", {"table": "left", "what, and why not": "text"}, left)


def _left(status: str) -> bool:
    return status == "not attempted"


def _print(report: Report) -> None:
    from vmsim.cli.screen import Side, print_facts, print_table, say

    say(f"{report.title}\nMeasured by: {report.source}\n")
    fitted = {f"fitted: {name}": str(value) for name, value in report.fitted.items()}
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
