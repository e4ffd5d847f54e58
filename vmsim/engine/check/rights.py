"""What the nested tables let a VM do to a page now, found by reading them entry by entry."""

from __future__ import annotations

from vmsim.jit import kernel
from vmsim.machine.formats import DIRTY, FRAME, LARGE, PAGE_SHIFT, PRESENT, USER, WRITE
from vmsim.machine.memory import entry_at, read_entry, width_of
from vmsim.tables.backing import UNBACKED
from vmsim.tables.edit import translate

__all__ = ["guest_address", "nested_rights"]


@kernel
def guest_address(memory, root, levels, nested_root, nested_levels, gva):  # type: ignore[no-untyped-def]
    """Return the gpa of `gva` by plain look-ups, or UNBACKED."""
    level = levels
    table = root
    width = width_of(levels)
    while True:
        hpa = translate(memory, nested_root, nested_levels, entry_at(table, gva, level, width))
        if hpa == UNBACKED:
            return UNBACKED
        entry = read_entry(memory, hpa, width)
        if entry & PRESENT == 0:
            return UNBACKED
        if level == 1 or entry & LARGE:
            offset = (1 << (PAGE_SHIFT - width + width * level)) - 1
            return (entry & FRAME & ~offset) | (gva & offset)
        table = entry & FRAME
        level -= 1


@kernel
def nested_rights(memory, root, levels, dirty, gpa):  # type: ignore[no-untyped-def]
    """Return WRITE, USER (in an EPT: execute) and DIRTY as the tables give them to a page at `gpa`; 0: it has none.

    `dirty` is the flag that the format has for it; 0: it has none, and pages are as dirty as can be.
    """
    width = width_of(levels)
    table, rights = root, WRITE | USER
    for step in range(levels):
        level = levels - step
        entry = read_entry(memory, entry_at(table, gpa, level, width), width)
        if entry == 0:
            return 0
        if not (level == 3 and levels == 3):  # a PAE PDPTE has no rights to take away
            rights &= entry
        if level == 1 or entry & LARGE:
            return rights | (DIRTY if entry & dirty == dirty else 0)
        table = entry & FRAME
    return 0
