"""Results as a notebook shows them: a small table, a bar for each VM, and why it stopped if it did."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING, Final

from vmsim.record.causes import cause_of, in_order
from vmsim.record.outcome import Ending

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["page"]

_COLUMNS: Final = {
    "vm": "VM",
    "mode": "mode",
    "workload": "workload",
    "accesses": "accesses",
    "l2_tlb_misses": "L2 TLB misses",
    "walk_refs": "walk references",
    "guest_faults": "guest faults",
    "exits": "VM exits",
    "cycles_per_access": "cycles/access",
}
_WIDTH: Final = 560
_ROW: Final = 22


def page(summary: pd.DataFrame, cycles: pd.DataFrame, ending: Ending | None) -> str:
    """Return HTML for tables of one run or of several.

    Parameters
    ----------
    summary, cycles : DataFrame
        As of `Result`; `cycles` has a column `mode` too where a VM appears under several.
    ending : Ending or None
        Why the simulation stopped early.
    """
    return "\n".join(["<div>", *_stopped(ending), *_table(summary), *_bars(summary, cycles), "</div>"])


def _stopped(ending: Ending | None) -> Iterator[str]:
    if ending:
        style = "border:2px solid #D55E00;padding:6px 10px;margin:6px 0;max-width:60em"
        yield f'<div style="{style}"><b>Stopped at cycle {ending.time:,}.</b> {escape(ending.message)}</div>'


def _table(summary: pd.DataFrame) -> Iterator[str]:
    columns = {column: label for column, label in _COLUMNS.items() if column in summary}
    head = "".join(f'<th style="text-align:left">{label}</th>' for label in columns.values())
    yield f"<table><thead><tr>{head}</tr></thead><tbody>"
    for row in summary[list(columns)].itertuples(index=False):
        cells = "".join(_cell(value) for value in row)
        yield f"<tr>{cells}</tr>"
    yield "</tbody></table>"


def _cell(value: object) -> str:
    if isinstance(value, str):
        return f'<td style="text-align:left">{escape(value)}</td>'
    text = f"{value:,.2f}" if isinstance(value, float) else f"{value:,}"
    return f'<td style="text-align:right">{text}</td>'


def _bars(summary: pd.DataFrame, cycles: pd.DataFrame) -> Iterator[str]:
    """Yield an SVG with a bar for each VM, its cycles per access split by cause."""
    keys = ["vm", "mode"] if "mode" in cycles else ["vm"]
    longest = max([float(value) for value in summary["cycles_per_access"]], default=0.0)
    if (cycles["per_access"] < 0).any():  # causes that overlap are longer than what they come to
        longest = float(cycles[cycles["per_access"] > 0].groupby(keys)["per_access"].sum().max())
    there = cycles.loc[cycles["per_access"] > 0, "cause"]
    causes = [(name, cause_of(name)) for name in in_order(there)]
    if not longest or not causes:
        return
    names = [" ".join(row) for row in summary[keys].itertuples(index=False)]
    left = 20 + 7 * max(map(len, names))
    legend = 18 * -(-len(causes) // 4) + 8
    height = _ROW * len(names) + legend + 22
    width = left + _WIDTH + 60
    yield f'<svg width="{width}" height="{height}" font-family="sans-serif" font-size="12" role="img">'
    yield '<text x="0" y="14" fill="currentColor">Cycles per access, by cause</text>'
    for number, (name, row) in enumerate(zip(names, summary[keys].itertuples(index=False), strict=True)):
        y = 22 + number * _ROW
        yield f'<text x="0" y="{y + 14}" fill="currentColor">{escape(name)}</text>'
        x = float(left)
        mine = cycles[(cycles[keys] == list(row)).all(axis=1)].set_index("cause")["per_access"]
        for key, cause in causes:
            share = float(mine.get(key, 0.0))
            length = share / longest * _WIDTH
            title = f"<title>{escape(cause.label)}: {share:.3f}</title>"
            yield (
                f'<rect x="{x:.1f}" y="{y}" width="{length:.1f}" height="{_ROW - 5}" fill="{cause.colour}">'
                f"{title}</rect>"
            )
            x += length
        yield f'<text x="{x + 6:.1f}" y="{y + 14}" fill="currentColor">{float(mine.sum()):.2f}</text>'
    for number, (_, cause) in enumerate(causes):
        x, y = number % 4 * 165, 22 + len(names) * _ROW + number // 4 * 18 + 6
        yield f'<rect x="{x}" y="{y}" width="11" height="11" fill="{cause.colour}"/>'
        yield f'<text x="{x + 16}" y="{y + 10}" fill="currentColor">{escape(cause.label)}</text>'
    yield "</svg>"
