"""What ``vmsim validate --report`` writes: a page that needs nothing else, and its data beside it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from vmsim.validation.report import Report
from vmsim.validation.studies import DRAWN
from vmsim.validation.targets import Target

__all__ = ["FORM", "claims_of", "fits_of", "write_page"]

FORM: Final = "vmsim validation 1"
_STYLE: Final = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1a1a1a; --soft: #555; --line: #ccc; --link: #0b5394;
  --miss: #a33b00; --known: #7a5200; --good: #00538a; }
@media (prefers-color-scheme: dark) { :root { --paper: #16181b; --ink: #ececec; --soft: #b4b4b4; --line: #44484e;
  --link: #8ab8f0; --miss: #ff8a80; --known: #e6b450; --good: #8ab8f0; } }
body { font: 16px/1.45 system-ui, sans-serif; max-width: 62rem; margin: 0 auto; padding: 0 1rem 3rem;
  color: var(--ink); background: var(--paper); overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 2.2rem; border-bottom: 1px solid var(--line); }
a { color: var(--link); }
table { border-collapse: collapse; font-size: .86rem; overflow-wrap: normal; } .wide { overflow-x: auto; }
.wide:focus-visible, a:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
th, td { text-align: left; padding: .18rem .7rem .18rem 0; vertical-align: top; }
td:first-child, td:last-child { min-width: 9rem; }
th { border-bottom: 1px solid var(--line); } td.n, th.n { text-align: right; white-space: nowrap; }
.miss { color: var(--miss); font-weight: 600; } .known { color: var(--known); } .good { color: var(--good); }
img { min-width: 40rem; max-width: 100%; height: auto; background: #fff; }
img.narrow { min-width: 20rem; } .source { color: var(--soft); }
"""


def claims_of(reports: Mapping[str, Report]) -> list[dict[str, Any]]:
    """Return a row for each claim and finding: study, quantity, predicted, measured, low, high, kind, verdict."""
    rows: list[dict[str, Any]] = []
    for study, report in reports.items():
        for claim in report.claims:
            low, high = claim.interval or (None, None)
            verdict = report.verdict(claim)
            about = {"study": study, "quantity": claim.quantity, "predicted": claim.predicted}
            about |= {"measured": claim.measured, "low": low, "high": high, "kind": claim.kind, "verdict": verdict}
            rows.append(about | {"known_miss": report.known.get(claim.quantity, "") if claim.ok is False else ""})
        for finding in report.findings:
            about = {"study": study, "quantity": finding.quantity, "predicted": finding.predicted}
            about |= {"measured": finding.measured, "low": None, "high": None, "kind": finding.kind}
            known = report.known.get(finding.quantity, "") if not finding.ok else ""
            rows.append(about | {"verdict": report.verdict(finding), "known_miss": known})
    return rows


def fits_of(reports: Mapping[str, Report]) -> list[dict[str, Any]]:
    """Return a row for each number that was fitted: study, what, value, unit, file, rows, note."""
    return [
        {"study": study, "what": what, **fit.to_json()}
        for study, report in reports.items()
        for what, fit in report.fitted.items()
        if not isinstance(fit, str)
    ]


def write_page(reports: Mapping[str, Report], rows: tuple[Target, ...], folder: Path, *, force: bool = False) -> None:
    """Write ``index.html``, ``validation.json``, CSV files of claims, fits and rows, and a figure of each study.

    Parameters
    ----------
    reports : mapping of str to Report
        By study.
    rows : tuple of Target
        What becomes of the published rows.
    folder : Path
        Absent or empty, or with `force` one of an earlier page.

    Raises
    ------
    InputError
        It cannot be written there.
    """
    import pandas as pd

    from vmsim.record.folder import replacing_folder, write_manifest

    targets = [{**each.to_json(), "rows": " ".join(map(str, each.rows))} for each in rows]
    with replacing_folder(folder, force=force) as made:
        figures = {study: _figure(study, report, made) for study, report in reports.items()}
        (made / "index.html").write_text("\n".join(_page(reports, rows, figures)) + "\n", encoding="utf-8")
        data = {study: report.to_json() for study, report in reports.items()}
        text = json.dumps({"studies": data, "targets": [each.to_json() for each in rows]}, indent=1, ensure_ascii=False)
        (made / "validation.json").write_text(f"{text}\n", encoding="utf-8")
        for name, table in (("claims", claims_of(reports)), ("fitted", fits_of(reports)), ("targets", targets)):
            pd.DataFrame(table).to_csv(made / f"{name}.csv", index=False, lineterminator="\n")
        write_manifest(made, FORM, {})


def _figure(study: str, report: Report, folder: Path) -> list[Path]:
    """Draw how far off a study is, and what else it has to show; return the files."""
    import pandas as pd

    from vmsim.analysis.style import COLUMN, WIDE, figure, save
    from vmsim.analysis.verdicts import by_line, height_of, verdicts

    words = {"MISS, known": "known miss", "MISS": "miss"}
    rows = []
    for claim in report.claims:
        if claim.ok is not None and claim.interval is not None:
            verdict = report.verdict(claim).removesuffix(", known to miss")
            low, high = claim.interval
            about = {"quantity": claim.quantity, "predicted": claim.predicted, "low": low, "high": high}
            rows.append(about | {"verdict": words.get(report.verdict(claim), verdict)})
    files = []
    if rows:
        path = folder / f"{study}.svg"
        with figure(width=WIDE, height=height_of(len(rows))) as (fig, ax):
            verdicts(pd.DataFrame(rows), ax)
            save(fig, path)
        files.append(path)
    if report.curves:
        path = folder / f"{study}-curves.svg"
        if study in DRAWN:
            import_module(f"vmsim.analysis.{study}").picture(report.curves, path)
        else:
            with figure(width=COLUMN, height=2.4) as (fig, ax):
                by_line(pd.DataFrame(report.curves), ax)
                ax.set_xlabel(report.axes[0])
                ax.set_ylabel(report.axes[1])
                save(fig, path)
        files.append(path)
    return files


def _page(reports: Mapping[str, Report], rows: tuple[Target, ...], figures: Mapping[str, list[Path]]) -> Iterator[str]:
    yield '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>vmsim: published measurements, predicted</title><style>{_STYLE}</style></head><body><main>"
    yield "<h1>Published measurements, predicted</h1>"
    yield (
        "<p>What somebody measured, and what the simulator says that it is. A <b>prediction</b> agrees where it lies "
        "within a band that was fixed before; nothing is fitted to what is predicted. <b>Conformance</b> is to a "
        "formula or an exact count. What is <b>fitted</b> agrees because it was fitted. Misses are shown as misses.</p>"
    )
    heads = ("study", "predictions that agree", "conform", "as fitted", "known misses", "new misses")
    summary = [_summary_row(study, report) for study, report in reports.items()]
    yield from _table(heads, summary, "all studies", numbers=(1, 2, 3, 4, 5), raw=(0,))
    agree, many = (sum(report.counts.get("prediction", (0, 0))[at] for report in reports.values()) for at in (0, 1))
    yield f"<p>{agree} of {many} predictions agree.</p>"
    yield '<p>Data: <a href="validation.json">validation.json</a>, <a href="claims.csv">claims.csv</a>, '
    yield '<a href="fitted.csv">fitted.csv</a>, <a href="targets.csv">targets.csv</a>.</p>'
    for study, report in reports.items():
        yield from _study(study, report, figures[study])
    yield "<h2>Not attempted</h2>"
    left = [(each.file, _numbers(each.rows), each.what, each.why) for each in rows if each.status == "not attempted"]
    yield from _table(("file", "rows", "what", "why"), left, "rows that are not attempted")
    yield "<h2>Every row</h2>"
    all_ = [(each.file, _numbers(each.rows), each.what, each.status, each.study or each.why) for each in rows]
    yield from _table(("file", "rows", "what", "status", "by, or for"), all_, "every published row")
    yield "</main></body></html>"


def _summary_row(study: str, report: Report) -> tuple[str, ...]:
    cells = [
        f"{agree} of {many}" if many else "" for agree, many in (report.counts.get(kind, (0, 0)) for kind in _KINDS)
    ]
    known = report.misses - len(report.unexpected)
    return (
        f'<a href="#{escape(study)}">{escape(study)}</a>',
        *cells,
        str(known or ""),
        str(len(report.unexpected) or ""),
    )


_KINDS: Final = ("prediction", "conformance", "fit")


def _study(study: str, report: Report, files: list[Path]) -> Iterator[str]:
    yield f'<h2 id="{escape(study)}">{escape(report.title)}</h2>'
    yield f'<p class="source">Measured by: {escape(report.source)}</p><p>{escape(report.conclusion)}</p>'
    if report.fitted:
        items = "".join(f"<li>{escape(what)}: {escape(str(fit))}</li>" for what, fit in report.fitted.items())
        yield f"<p>Fitted:</p><ul>{items}</ul>"
    for path in files:
        data = base64.b64encode(path.read_bytes()).decode()
        text = f"{report.title}: predicted and measured; the table below has the numbers"
        narrow = ' class="narrow"' if path.stem.endswith("-curves") and study not in DRAWN else ""
        image = f'<img{narrow} alt="{escape(text)}" src="data:image/svg+xml;base64,{data}">'
        yield f'<div class="wide" role="group" aria-label="figure of {escape(study)}" tabindex="0">{image}</div>'
    if report.claims:
        heads = ("quantity", "predicted", "measured", "deviation", "band", "verdict")
        yield from _table(heads, report.rows, f"predictions of {study}", numbers=(1, 2, 3, 4))
    if report.findings:
        found = [(each.quantity, each.predicted, each.measured, report.verdict(each)) for each in report.findings]
        yield from _table(("statement", "predicted", "measured", "verdict"), found, f"statements of {study}")
    known = {report.known[each.quantity] for each in report.all if each.ok is False and each.quantity in report.known}
    if known:
        yield "<p>Known to miss:</p><ul>" + "".join(f"<li>{escape(why)}</li>" for why in sorted(known)) + "</ul>"
    if report.details:
        yield (
            "<ul>"
            + "".join(f"<li>{escape(key)}: {escape(text)}</li>" for key, text in report.details.items())
            + "</ul>"
        )


def _table(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    label: str,
    *,
    numbers: tuple[int, ...] = (),
    raw: tuple[int, ...] = (),
) -> Iterator[str]:
    """Yield a table, which a keyboard can scroll and a screen reader calls `label`; `raw` columns are HTML already."""

    def cell(place: int, text: str, tag: str) -> str:
        classes = [*(["n"] if place in numbers else []), *([_class(text)] if tag == "td" and _class(text) else [])]
        named = f' class="{" ".join(classes)}"' if classes else ""
        scope = ' scope="col"' if tag == "th" else ""
        return f"<{tag}{scope}{named}>{text if place in raw and tag == 'td' else escape(text)}</{tag}>"

    yield f'<div class="wide" role="region" aria-label="{escape(label)}" tabindex="0"><table><thead><tr>'
    yield "".join(cell(at, head, "th") for at, head in enumerate(heads)) + "</tr></thead><tbody>"
    for row in rows:
        yield "<tr>" + "".join(cell(at, text, "td") for at, text in enumerate(row)) + "</tr>"
    yield "</tbody></table></div>"


def _class(text: str) -> str:
    if text == "MISS":
        return "miss"
    if text == "MISS, known":
        return "known"
    return "good" if text.split(",")[0] in ("agrees", "conforms") else ""


def _numbers(rows: tuple[int, ...]) -> str:
    """Return 1, 2, 3, 7 as 1–3, 7."""
    runs: list[list[int]] = []
    for row in rows:
        if runs and row == runs[-1][-1] + 1:
            runs[-1].append(row)
        else:
            runs.append([row])
    return ", ".join(f"{run[0]}–{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
