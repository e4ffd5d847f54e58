"""Pieces of a page: tables, figures with their legends and data, sections."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any, Final, NamedTuple

import pandas as pd

__all__ = ["Section", "figure", "table"]

_ROWS: Final = 200  # of a table on the page; the files have all


class Section(NamedTuple):
    """A section of the page.

    Attributes
    ----------
    key : str
        Its anchor.
    title : str
    body : str
        HTML.
    """

    key: str
    title: str
    body: str


def table(data: pd.DataFrame, caption: str, headings: Mapping[str, str] | None = None) -> str:
    """Return a table that can be sorted, of its first rows at least."""
    shown = data.head(_ROWS)
    names = [not pd.api.types.is_numeric_dtype(data[column]) for column in data.columns]
    heads = [
        f'<th scope="col"{_kind(name)}>{escape((headings or {}).get(str(column), str(column).replace("_", " ")))}</th>'
        for column, name in zip(data.columns, names, strict=True)
    ]
    rows = ["".join(map(_cell, row)) for row in shown.itertuples(index=False)]
    more = f"<p>These are the first {_ROWS:,} of {len(data):,} rows.</p>" if len(data) > _ROWS else ""
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(caption)}">'
        f'<table class="sortable"><thead><tr>{"".join(heads)}</tr></thead><tbody>{body}</tbody></table></div>{more}'
    )


def figure(chart: str, caption: str, data: pd.DataFrame, legend: Sequence[tuple[str, str, str]] = ()) -> str:
    """Return a chart with what its colours mean, its caption, and its data as a table that can be opened.

    Parameters
    ----------
    chart : str
        As of `charts`.
    caption : str
    data : DataFrame
    legend : sequence of (str, str, str)
        Names with their colours and dashes; a part of a bar or a layer has the dash "fill".
    """
    return "".join(
        [
            f"<figure>{chart}",
            '<p class="tip" role="status" aria-live="polite"></p>',
            *_legend(legend),
            f"<figcaption>{escape(caption)}</figcaption>",
            f"<details><summary>Data</summary>{table(data, f'Data: {caption}')}</details></figure>",
        ]
    )


def _legend(names: Sequence[tuple[str, str, str]]) -> Iterator[str]:
    if not names:
        return
    yield '<ul class="legend">'
    for name, colour, dash in names:
        if dash == "fill":
            mark = f'<rect width="24" height="12" fill="{escape(colour)}"/>'
        else:
            stroke = f'stroke="{escape(colour)}" stroke-width="3" stroke-dasharray="{escape(dash)}"'
            mark = f'<line x1="0" x2="24" y1="6" y2="6" {stroke}/>'
        yield f'<li><svg viewBox="0 0 24 12" aria-hidden="true">{mark}</svg>{escape(name)}</li>'
    yield "</ul>"


def _kind(name: bool) -> str:
    return ' class="name"' if name else ""


def _cell(value: Any) -> str:
    if isinstance(value, str | bool):
        text = ("yes" if value else "no") if isinstance(value, bool) else value
        return f'<td class="name">{escape(text)}</td>'
    if value != value:
        return '<td data-value="0">–</td>'
    text = f"{value:,.2f}" if isinstance(value, float) and not float(value).is_integer() else f"{int(value):,}"
    return f'<td data-value="{value}">{text}</td>'
