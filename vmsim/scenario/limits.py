"""What a scenario cannot ask for of the limits of a VM's memory."""

from __future__ import annotations

from collections.abc import Iterator

from vmsim.base.units import PAGE, format_size
from vmsim.scenario.keys import VmKeys
from vmsim.scenario.modes import PagingMode
from vmsim.scenario.problems import Problem

__all__ = ["limit_problems"]


def limit_problems(group: VmKeys, mode: PagingMode) -> Iterator[Problem]:
    """Yield what is wrong with `memory_high` and `memory_max`, by the keys of the VM's table."""
    for key in ("memory_high", "memory_max"):
        size = getattr(group, key)
        if size is None:
            continue
        if size < PAGE:
            yield Problem((key,), f"{format_size(size)} is less than a page of 4KiB")
        elif mode.name == "paired" and mode.bare(group):
            yield Problem((key,), "a paired process without a guest keeps its pages, so that none could be taken")
        elif key == "memory_max" and group.populate == "eager" and size < group.memory:
            text = f"{format_size(size)} is less than the memory that is backed before the clock starts"
            yield Problem((key,), f'{text} ({format_size(group.memory)}); expected populate = "lazy"')
