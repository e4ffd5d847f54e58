"""A scenario as a notebook shows it."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from vmsim.base.units import format_size
from vmsim.scenario.tables import VmGroup

__all__ = ["page"]

_HEADINGS = ("VM", "count", "mode", "memory", "guest page", "host page", "workload")


def page(heading: str, groups: Iterable[VmGroup], text: str) -> str:
    """Return HTML: a heading, a row for each table of VMs, and the whole as TOML to fold out.

    Parameters
    ----------
    heading : str
        The host in a line.
    groups : iterable of VmGroup
        The tables of VMs.
    text : str
        The scenario as TOML.
    """
    head = "".join(f'<th style="text-align:left">{name}</th>' for name in _HEADINGS)
    rows = ""
    for group in groups:
        pages = "" if group.bare else group.host_page
        fields = (group.name, group.count, group.mode, format_size(group.memory), group.guest_page, pages)
        cells = "".join(f"<td>{escape(str(field))}</td>" for field in (*fields, group.workload.kind))
        rows += f"<tr>{cells}</tr>"
    toml = f"<details><summary>TOML</summary><pre>{escape(text)}</pre></details>"
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f"<div><p>{escape(heading)}</p>{table}{toml}</div>"
