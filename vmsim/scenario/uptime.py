"""What a scenario says of free memory that lies as after some uptime: ``table_span``, and a guest's fragmentation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from vmsim.base.units import PAGE_BYTES, format_size
from vmsim.scenario.problems import Problem

__all__ = ["TABLE_SPAN", "guest_problems", "span_problems"]

TABLE_SPAN: Final = (
    "Memory over which the free pages for page tables are scattered before the start: every other one, in whole "
    "pageblocks of 2MiB anywhere. 0: tables lie together, as after booting."
)


def span_problems(span: int, memory: int) -> Iterator[Problem]:
    """Yield why page tables cannot be scattered over so many bytes of a memory, by the key ``table_span``."""
    if span % PAGE_BYTES["2M"]:
        yield Problem(("table_span",), f"{format_size(span)} is not a whole number of pageblocks of 2MiB")
    elif 2 * span > memory:
        text = f"table_span > half of the memory ({format_size(span)} > {format_size(memory // 2)})"
        yield Problem(("table_span",), text)


def guest_problems(group: Any, *, bare: str | bool) -> Iterator[Problem]:
    """Yield why a ``[[vm]]`` table's guest cannot have its frames so; `bare` is what a VM without one is called."""
    yield from span_problems(group.table_span, group.memory - group.virtio_mem.region)
    for key in ("table_span", "fragmentation"):
        if getattr(group, key) and bare:
            yield Problem((key,), f"{bare} has frames of the host, not a guest's; expected host.{key}")
