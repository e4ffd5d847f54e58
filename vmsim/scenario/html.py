"""A scenario as a notebook shows it."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from vmsim.base.units import format_size

if TYPE_CHECKING:
    from vmsim.scenario.model import Scenario

__all__ = ["page"]

_HEADINGS = ("VM", "count", "mode", "memory", "guest page", "host page", "workload")


def page(scenario: Scenario) -> str:
    """Return HTML: the host in a line, a row for each table of VMs, and the whole as TOML to fold out."""
    host = scenario.host
    text = f"{scenario.cpu.name}, {host.cores} cores, {format_size(host.memory)}; seed {scenario.seed}"
    text += f", warmup {scenario.warmup}" if str(scenario.warmup) != "0%" else ""
    head = "".join(f'<th style="text-align:left">{name}</th>' for name in _HEADINGS)
    rows = ""
    for group in scenario.vm:
        pages = "" if group.bare else group.host_page
        fields = (group.name, group.count, group.mode, format_size(group.memory), group.guest_page, pages)
        cells = "".join(f"<td>{escape(str(field))}</td>" for field in (*fields, group.workload.kind))
        rows += f"<tr>{cells}</tr>"
    toml = f"<details><summary>TOML</summary><pre>{escape(scenario.to_toml())}</pre></details>"
    return f"<div><p>{escape(text)}</p><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{toml}</div>"
