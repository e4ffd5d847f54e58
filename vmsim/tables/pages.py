"""What is done to many pages at once, each of which lies in a frame of its own."""

from __future__ import annotations

from vmsim.jit import kernel
from vmsim.machine.formats import ENTRIES, FRAME, LARGE, PAGE_SHIFT
from vmsim.machine.memory import entry_at, read_entry, width_of, write_entry

__all__ = ["clear_entries", "clear_pages", "find_words", "zap_each"]


@kernel
def find_words(memory, pfns, found):
    """Say which of some frames, int64[n], hold anything but zeros: `found`, bool[n]."""
    for at in range(len(pfns)):
        first = pfns[at] * ENTRIES
        found[at] = False
        for word in range(first, first + ENTRIES):
            if memory[word]:
                found[at] = True
                break


@kernel
def clear_pages(memory, pfns):
    """Write zeros to some frames, int64[n]."""
    for at in range(len(pfns)):
        first = pfns[at] * ENTRIES
        memory[first : first + ENTRIES] = 0


@kernel
def clear_entries(memory, places, width):
    """Clear the entries at some places (hpas, int64[n])."""
    for at in range(len(places)):
        write_entry(memory, places[at], 0, width)


@kernel
def zap_each(memory, root, levels, gfns):
    """Clear the entries of nested tables that map some guest frames, int64[n]; return how many there were.

    One of a large page counts as soon as it maps one of the frames.
    """
    width = width_of(levels)
    count = 0
    for number in range(len(gfns)):
        address = gfns[number] << PAGE_SHIFT
        level = levels
        table = root
        while True:
            place = entry_at(table, address, level, width)
            entry = read_entry(memory, place, width)
            if level == 1 or entry == 0 or entry & LARGE:
                break
            table = entry & FRAME
            level -= 1
        if entry:
            count += 1
            write_entry(memory, place, 0, width)
    return count
