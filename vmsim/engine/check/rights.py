"""What tables let a VM do to a page now, found by reading them entry by entry."""

from __future__ import annotations

from vmsim.jit import kernel, routine
from vmsim.machine.formats import DIRTY, FRAME, LARGE, PAGE_SHIFT, PRESENT, USER, WRITE
from vmsim.machine.memory import entry_at, read_entry, width_of
from vmsim.tables.backing import UNBACKED
from vmsim.tables.edit import find_address, translate

__all__ = ["resolve_each", "rights_of_each", "translate_each", "walk_each"]


@routine
def _guest_address(memory, root, levels, nested_root, nested_levels, backing, gva):  # type: ignore[no-untyped-def]
    """Return the gpa of `gva` by plain look-ups, or UNBACKED."""
    level = levels
    table = root
    width = width_of(levels)
    while True:
        hpa = find_address(memory, nested_root, nested_levels, backing, entry_at(table, gva, level, width))
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


@routine
def _nested_rights(memory, root, levels, dirty, gpa):  # type: ignore[no-untyped-def]
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
            if entry < 0:  # NO_EXECUTE
                rights &= ~USER
            return rights | (DIRTY if entry & dirty == dirty else 0)
        table = entry & FRAME
    return 0


@routine
def _walked_rights(memory, root, levels, switch, nested_tables, gva):  # type: ignore[no-untyped-def]
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
    nested_tables : tuple of int
        Root, levels and dirty flag of the nested tables; the flag as of `rights_of_each`.
    gva : int
        The address.

    Returns
    -------
    int
        A right is given that the entry of each level has, and D that the guest's page has and the host's.
    """
    width = width_of(levels)
    nested_root, nested_levels, nested_dirty = nested_tables
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
            if entry < 0:  # NO_EXECUTE
                rights &= ~USER
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
        given = _nested_rights(
            memory, nested_root, nested_levels, nested_dirty, (entry & FRAME & ~offset) | gva & offset
        )
        rights &= given
        dirty &= given
    return rights | dirty


@kernel
def resolve_each(memory, root, levels, nested_root, nested_levels, backing, gvas, found):  # type: ignore[no-untyped-def]
    """Set `found` (int64[n]) to the hpas of `gvas` (int64[n]) by plain look-ups, host(guest(gva)), or UNBACKED."""
    for number in range(len(gvas)):
        gpa = _guest_address(memory, root, levels, nested_root, nested_levels, backing, gvas[number])
        found[number] = UNBACKED if gpa == UNBACKED else find_address(memory, nested_root, nested_levels, backing, gpa)


@kernel
def translate_each(memory, root, levels, gpas, found):  # type: ignore[no-untyped-def]
    """Set `found` (int64[n]) to what `gpas` (int64[n]) are translated to, or UNBACKED."""
    for number in range(len(gpas)):
        found[number] = translate(memory, root, levels, gpas[number])


@kernel
def rights_of_each(memory, root, levels, dirty, gpas, given):  # type: ignore[no-untyped-def]
    """Set `given` (int64[n]) to WRITE, USER (in an EPT: execute) and DIRTY as tables give them to `gpas` (int64[n]).

    `dirty` is the flag that the format has for it; 0: it has none, and pages are as dirty as can be.
    """
    for number in range(len(gpas)):
        given[number] = _nested_rights(memory, root, levels, dirty, gpas[number])


@kernel
def walk_each(memory, root, levels, switch, nested_root, nested_levels, nested_dirty, gvas, given):  # type: ignore[no-untyped-def]
    """Set `given` (int64[n]) to the rights that all tables give which the hardware walks for `gvas` (int64[n])."""
    nested = nested_root, nested_levels, nested_dirty
    for number in range(len(gvas)):
        given[number] = _walked_rights(memory, root, levels, switch, nested, gvas[number])
