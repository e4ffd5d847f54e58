"""`vmsim.report`: one HTML page of a run, a comparison or a sweep; it needs no other file and no network."""

from __future__ import annotations

from html import escape
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from vmsim.base.files import printable, refuse_overwrite, replacing
from vmsim.plotting.api import Source, opened
from vmsim.record.comparison import Comparison
from vmsim.record.result import Result

if TYPE_CHECKING:
    import pandas as pd

    from vmsim.record.outcome import Ending
    from vmsim.reporting.parts import Section

__all__ = ["page", "report"]

# No script but ours, which the page has: whatever somebody's names and texts hold, a browser does not run it.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def report(source: Source, out: str | Path, *, title: str | None = None, force: bool = False) -> Path:
    """Write results as one HTML page, with charts that answer the pointer and the keyboard.

    The page needs no other file and no network, and is whole without scripts too. The same results give the same
    bytes.

    Parameters
    ----------
    source : Result, Comparison, DataFrame or path
        A run, a comparison, the results of a sweep; or the folder of any of these.
    out : path
        The file.
    title : str, optional
        Its heading; the folder's name otherwise.
    force : bool, optional
        Replace a file that is there.

    Raises
    ------
    InputError
        The results cannot be read, the file is there and `force` is false, or it cannot be written.
    """
    path = Path(out)
    refuse_overwrite(path, force=force)
    name = printable(Path(source).resolve().name) if isinstance(source, str | Path) else "Results"
    text = page(opened(source), title or name)
    with replacing(path, force=force) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def page(found: Result | Comparison | pd.DataFrame, title: str) -> str:
    """Return the page as HTML."""
    if isinstance(found, Result | Comparison):
        from vmsim.reporting.runs import sections_of

        about, sections, ending = _about(found), sections_of(found), found.ending
    else:
        from vmsim.reporting.sweeps import sections_of as sections_of_sweep

        points, vms = found["point"].nunique() if "point" in found else len(found), found["vm"].nunique()
        about = f"A sweep of {points:,} points, {vms:,} VM{'' if vms == 1 else 's'} at each."
        sections, ending = sections_of_sweep(found), None
    return _html(title, about, sections, ending)


def _about(found: Result | Comparison) -> str:
    results = list(found.results.values()) if isinstance(found, Comparison) else [found]
    scenario = results[0].scenario
    vms = len(scenario.vms)
    modes = f"in modes {', '.join(found.results)}, " if isinstance(found, Comparison) else ""
    cores = f"{scenario.host.cores} core{'' if scenario.host.cores == 1 else 's'}"
    notes = f" {' '.join(found.notes)}" if isinstance(found, Comparison) and found.notes else ""
    return (
        f"{vms:,} VM{'' if vms == 1 else 's'} {modes}on {scenario.cpu.name} with {cores} and "
        f"{scenario.host.memory >> 20:,} MiB; seed {scenario.seed}.{notes}"
    )


def _html(title: str, about: str, sections: list[Section], ending: Ending | None) -> str:
    folder = files("vmsim.reporting")
    style, script = (folder.joinpath(f"page.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    links = "".join(f'<li><a href="#{each.key}">{escape(each.title)}</a></li>' for each in sections)
    bodies = "".join(
        f'<section id="{each.key}" aria-labelledby="{each.key}-title">'
        f'<h2 id="{each.key}-title">{escape(each.title)}</h2>{each.body}</section>\n'
        for each in sections
    )
    stopped = f'<p class="stopped"><strong>Stopped early.</strong> {escape(ending.message)}</p>' if ending else ""
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        f'<a class="skip" href="#content">To the content</a>\n'
        f"<header><h1>{escape(title)}</h1>"
        f'<p class="soft">{escape(about)} vmsim {escape(version("vmsim"))}.</p>{stopped}\n'
        f'<nav aria-label="Sections"><ul>{links}</ul></nav></header>\n'
        f'<main id="content">\n{bodies}</main>\n<script>\n{script}</script>\n</body>\n</html>\n'
    )
