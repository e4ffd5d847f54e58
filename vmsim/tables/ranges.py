"""What a host does to the entries that map a range of guest frames, in nested tables: zap, protect, age, dirty.

As KVM does for its memory slots when the host takes, moves or looks at pages (Linux arch/x86/kvm/mmu/tdp_mmu.c,
`tdp_mmu_zap_leafs`, `kvm_tdp_mmu_age_gfn_range`). An entry of a large page counts as soon as it maps one of the frames;
tables stay.
"""

from __future__ import annotations

import numpy as np

from vmsim.frames.records import NO_FRAME
from vmsim.jit import kernel, routine
from vmsim.machine.copies import note_read
from vmsim.machine.formats import ACCESSED, ENTRIES, FRAME, LARGE, PAGE_SHIFT
from vmsim.machine.memory import entry_at, read_entry, width_of, write_entry

__all__ = ["age_pages", "change_each", "change_range", "lead_elsewhere", "take_empty_table"]


@routine
def _next_leaf(memory, root, levels, gfn, limit):
    """Return (first gfn, frames, place) of the first entry that maps a page from `gfn` on; 0 frames: there is none."""
    width = width_of(levels)
    while gfn < limit:
        level = levels
        table = root
        while True:
            place = entry_at(table, gfn << PAGE_SHIFT, level, width)
            entry = read_entry(memory, place, width)
            if level == 1 or entry == 0 or entry & LARGE:
                break
            table = entry & FRAME
            level -= 1
        size = np.int64(1) << (width * (level - 1))
        if entry:
            return gfn & ~(size - 1), size, place
        gfn = (gfn & ~(size - 1)) + size
    return limit, np.int64(0), np.int64(0)


@kernel
def change_range(memory, root, levels, first, count, mark, gone, found):
    """Look at the entries that map any of `count` guest frames from `first` on; take bits from those that have a flag.

    Parameters
    ----------
    memory : int64[:]
        Host-physical memory.
    root, levels : int
        Of the nested tables.
    first, count : int
        Guest frames.
    mark, gone : int
        The flag, one bit or any of several, and the bits to take; -1 takes the whole entry.
    found : bool[count]
        Set where an entry that maps the frame has the flag.

    Returns
    -------
    int
        How many entries had it.
    """
    width = width_of(levels)
    marked = 0
    gfn = np.int64(first)
    limit = np.int64(first + count)
    while True:
        start, size, place = _next_leaf(memory, root, levels, gfn, limit)
        if size == 0:
            return marked
        entry = read_entry(memory, place, width)
        if gone or mark != -1:
            note_read(memory, place)
        if entry & mark:
            marked += 1
            for each in range(max(start, first), min(start + size, limit)):
                found[each - first] = True
            write_entry(memory, place, entry & ~gone, width)
        gfn = start + size


@kernel
def change_each(memory, root, levels, gfns, mark, gone, found):
    """Look at the entry that maps each of some guest frames; take bits from those that have a flag.

    Other parameters are as of `change_range`, which takes a range.

    Parameters
    ----------
    gfns : int64[n]
        Guest frames.
    found : bool[n]
        Set where the entry that maps the frame has the flag.
    """
    width = width_of(levels)
    for number in range(len(gfns)):
        _, size, place = _next_leaf(memory, root, levels, gfns[number], gfns[number] + 1)
        entry = read_entry(memory, place, width) if size else np.int64(0)
        if size and (gone or mark != -1):
            note_read(memory, place)
        found[number] = entry & mark != 0
        if entry & mark and gone:
            write_entry(memory, place, entry & ~gone, width)


@kernel
def age_pages(memory, frames, numbers, width, clear, found):
    """Look for the A flags of the entries that the reverse map names of some frames, int64[n]; take them if asked to.

    `found` (bool[n]) says which had one.
    """
    for number in range(len(numbers)):
        place = np.int64(frames[numbers[number]].rmap)
        entry = read_entry(memory, place, width)
        note_read(memory, place)
        found[number] = entry & ACCESSED != 0
        if clear and entry & ACCESSED:
            write_entry(memory, place, entry & ~ACCESSED, width)


@kernel
def take_empty_table(memory, frames, root, levels, address):
    """Unlink the table of level 1 around `address`, if there is one and it maps nothing; return its frame, or NO_FRAME.

    The tables are the host's own, of entries of 8 bytes. KVM does so where a page of 2 MiB is to be mapped in the place
    of smaller ones (arch/x86/kvm/mmu/tdp_mmu.c, tdp_mmu_map_handle_target_level, handle_removed_pt).
    """
    table = root
    for level in range(levels, 1, -1):
        place = entry_at(table, address, level)
        entry = read_entry(memory, place, 9)
        if entry == 0 or entry & LARGE:
            return np.int64(NO_FRAME)
        table = entry & FRAME
    for index in range(ENTRIES):
        if read_entry(memory, table + 8 * index, 9):
            return np.int64(NO_FRAME)
    write_entry(memory, place, np.int64(0), 9)
    frames[table >> PAGE_SHIFT].rmap = 0
    return table >> PAGE_SHIFT


@kernel
def lead_elsewhere(memory, root, levels, old, new, places):
    """Have every small entry below a root that leads to frame `old` lead to frame `new`; return how many there were.

    `places` (int64[n]) is filled with the hpas of the entries, as far as there is room.
    """
    count = 0
    gfn = np.int64(0)
    width = width_of(levels)
    limit = np.int64(1) << (width * levels if levels != 3 else 20)
    while True:
        start, size, place = _next_leaf(memory, root, levels, gfn, limit)
        if size == 0:
            return count
        entry = read_entry(memory, place, width)
        if size == 1 and (entry & FRAME) >> PAGE_SHIFT == old:
            write_entry(memory, place, (entry & ~FRAME) | new << PAGE_SHIFT, width)
            if count < len(places):
                places[count] = place
            count += 1
        gfn = start + size
