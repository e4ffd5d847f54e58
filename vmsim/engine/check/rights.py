"""What tables let a VM do to a page now, found by reading them entry by entry."""

from __future__ import annotations

from vmsim.jit import kernel
from vmsim.machine.formats import DIRTY, FRAME, LARGE, PAGE_SHIFT, PRESENT, USER, WRITE
from vmsim.machine.memory import entry_at, read_entry, width_of
from vmsim.tables.backing import UNBACKED
from vmsim.tables.edit import translate

__all__ = ["guest_address", "nested_rights", "walked_rights"]


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


@kernel
def walked_rights(memory, root, levels, switch, nested_root, nested_levels, nested_dirty, gva):  # type: ignore[no-untyped-def]
    """Return WRITE, USER and DIRTY as all tables that the hardware walks for `gva` give them; 0: they give none.

    Parameters
    ----------
    memory : int64[:]
        Host-physical memory.
    root, levels : int
        What CR3 holds, and the levels of the tables from there on.
    switch : int
        The bit of an entry, or of CR3, from which on a walk under agile paging goes through the guest's own tables;
        0: the walk is all nested, or, with no nested levels, all by hpas.
    nested_root, nested_levels, nested_dirty : int
        Of the nested tables; their dirty flag as of `nested_rights`.
    gva : int
        The address.

    Returns
    -------
    int
        A right is given that the entry of each level has, and D that the guest's page has and the host's.
    """
    width = width_of(levels)
    level, rights = levels, WRITE | USER
    nested = nested_levels > 0 and (switch == 0 or root & switch != 0)
    found = nested_levels == 0 or switch != 0  # the table is named by its hpa, as it is by an entry with SWITCH
    table = root & FRAME
    while True:
        hpa = entry_at(table, gva, level, width)
        if not found:
            hpa = translate(memory, nested_root, nested_levels, hpa)
            if hpa == UNBACKED:
                return 0
        entry = read_entry(memory, hpa, width)
        if entry & PRESENT == 0:
            return 0
        if not (level == 3 and levels == 3):  # a PAE PDPTE has no rights to take away
            rights &= entry
        if level == 1 or entry & LARGE:
            break
        table = entry & FRAME
        if nested:
            found = False
        elif entry & switch:
            nested = True
        level -= 1
    dirty = entry & DIRTY
    if nested:
        offset = (1 << (PAGE_SHIFT - width + width * level)) - 1
        given = nested_rights(
            memory, nested_root, nested_levels, nested_dirty, (entry & FRAME & ~offset) | gva & offset
        )
        rights &= given
        dirty &= given
    return rights | dirty
