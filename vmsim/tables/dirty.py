"""What a monitor does to nested tables to learn which pages are written to: protect, clear, gather, split, collapse.

The tables are host memory, so entries are found by their hpa. Only entries of 4 KiB pages tell of a page; larger ones
are write-protected, so that the first write to them splits them (KVM, arch/x86/kvm/mmu/tdp_mmu.c).
"""

from __future__ import annotations

from enum import IntEnum

from vmsim.frames.records import State
from vmsim.jit import kernel, leaf
from vmsim.machine.copies import note_read
from vmsim.machine.formats import ENTRIES, FRAME, LARGE, PAGE_SHIFT, WRITE
from vmsim.machine.memory import find_entry, read_word, write_word

__all__ = [
    "NO_LARGE",
    "PML_ENTRIES",
    "Store",
    "clean",
    "collapse",
    "gather",
    "large_page",
    "permit_one",
    "split",
    "store_at",
    "update_leaves",
]

PML_ENTRIES = 512  # of the page-modification log (SDM vol. 3C §30.3.6)
NO_LARGE = -1


class Store(IntEnum):
    """What a store to a gpa meets in the nested tables."""

    DONE = 0
    UNBACKED = 1
    PROTECTED = 2
    FULL = 3  # the page-modification log has no entry left


@leaf
def _beyond(address, level):
    """Return the first address that an entry of `level` at `address` has no say in."""
    span = 1 << (3 + 9 * level)
    return (address & ~(span - 1)) + span


@kernel
def update_leaves(memory, root, levels, pages, clear_small, clear_large, set_bits):
    """Clear bits in every entry that maps a page, `clear_small` in those of 4 KiB, `clear_large` in others; set some.

    Returns
    -------
    int
        Entries that were changed, or might have been.
    """
    seen = 0
    address = 0
    while address < pages << PAGE_SHIFT:
        hpa, level = find_entry(memory, root, levels, 1, address)
        entry = read_word(memory, hpa)
        if entry:
            seen += 1
            write_word(memory, hpa, entry & ~(clear_small if level == 1 else clear_large) | set_bits)
        address = _beyond(address, level)
    return seen


@kernel
def permit_one(memory, root, levels, address):
    """Give the entry that maps `address` the bit WRITE, if any does."""
    hpa, _ = find_entry(memory, root, levels, 1, address)
    entry = read_word(memory, hpa)
    if entry:
        write_word(memory, hpa, entry | WRITE)


@kernel
def gather(memory, root, levels, pages, mark, dirty):
    """Set `dirty` (bool[pages]) at each gfn whose entry of 4 KiB has the flag `mark`, and clear the flag.

    Returns
    -------
    int
        Entries that were looked at.
    """
    seen = 0
    address = 0
    while address < pages << PAGE_SHIFT:
        hpa, level = find_entry(memory, root, levels, 1, address)
        entry = read_word(memory, hpa)
        if entry:
            seen += 1
            note_read(memory, hpa)
            if level == 1 and entry & mark:
                dirty[address >> PAGE_SHIFT] = True
                write_word(memory, hpa, entry & ~mark)
        address = _beyond(address, level)
    return seen


@kernel
def clean(memory, root, levels, dirty, gone):
    """Take the bits `gone` from the entry of each gfn in `dirty` (bool[pages]); return how many there were."""
    count = 0
    for gfn in range(len(dirty)):
        if dirty[gfn]:
            hpa, _ = find_entry(memory, root, levels, 1, gfn << PAGE_SHIFT)
            write_word(memory, hpa, read_word(memory, hpa) & ~gone)
            count += 1
    return count


@kernel
def store_at(memory, registers, gpa):
    """Do to the tables what the hardware does at a store to `gpa` by its kernel; return a `Store`.

    Walkers do the same for accesses (walker.nested_walk): D is set, and with page-modification logging noted first.
    """
    vm = registers[0]
    hpa, _ = find_entry(memory, vm.nested_root, vm.nested_levels, 1, gpa)
    entry = read_word(memory, hpa)
    if entry == 0:
        return Store.UNBACKED
    if entry & WRITE == 0:
        return Store.PROTECTED
    if vm.nested_dirty & ~entry:
        if vm.pml:
            if vm.pml_index < 0:
                return Store.FULL
            vm.pml_log[vm.pml_index] = gpa & FRAME
            vm.pml_index -= 1
        write_word(memory, hpa, entry | vm.nested_dirty)
    return Store.DONE


@kernel
def large_page(memory, root, levels, address, limit):
    """Return the first address in [address, limit) that a large page maps, or NO_LARGE: there is none."""
    while address < limit:
        hpa, level = find_entry(memory, root, levels, 1, address)
        if level > 1 and read_word(memory, hpa):
            return address
        address = _beyond(address, level)
    return NO_LARGE


@kernel
def split(memory, frames, root, levels, address, table, table_bits, gone, alone):
    """Map by a table of smaller pages what one large page maps around `address`.

    Entries of 4 KiB lose the bits `gone`; larger ones keep what the large page's has, so they stay protected if it was.

    Parameters
    ----------
    memory, frames : arrays
        Host-physical memory and the host's frames.
    root, levels : int
        Of the nested tables.
    address : int
        A gpa in the large page.
    table : int
        Frame number of the new table.
    table_bits, gone : int
        Bits of the entry that points to it; bits taken from small entries.
    alone : bool
        The others are left out but for the entry of `address`.
    """
    hpa, level = find_entry(memory, root, levels, 1, address)
    entry = read_word(memory, hpa)
    low = entry & ~FRAME
    if level == 2:
        low = (low | WRITE) & ~(LARGE | gone)
    step = 1 << (9 * (level - 2))
    first = (entry & FRAME) >> PAGE_SHIFT
    wanted = address >> (9 * (level - 2) + PAGE_SHIFT) & (ENTRIES - 1)
    for index in range(ENTRIES):
        if alone and index != wanted:
            write_word(memory, (table << PAGE_SHIFT) + 8 * index, 0)
            continue
        pfn = first + index * step
        place = (table << PAGE_SHIFT) + 8 * index
        write_word(memory, place, pfn << PAGE_SHIFT | low)
        frames[pfn].state = State.GUEST
    write_word(memory, hpa, table << PAGE_SHIFT | table_bits)
    frames[table].state = State.TABLE
    frames[table].rmap = hpa


@kernel
def collapse(memory, frames, root, levels, pages, level, freed, gone, more):
    """Map by one large page what a table of `level` - 1 maps, wherever those are consecutive, aligned frames to write.

    The entry of a large page loses the bits `gone`, which those of the small ones have, and has `more`.

    Returns
    -------
    int
        Tables that are needed no more: their frame numbers stand in `freed` (int64[n], n tables of that level or more).
    """
    count = 0
    span = 1 << (3 + 9 * level)
    step = 1 << (9 * (level - 2))
    address = 0
    while address + span <= pages << PAGE_SHIFT:
        hpa, found = find_entry(memory, root, levels, level, address)
        entry = read_word(memory, hpa)
        if found == level and entry != 0 and entry & LARGE == 0:
            table = entry & FRAME
            head = read_word(memory, table)
            first = (head & FRAME) >> PAGE_SHIFT
            whole = head & WRITE != 0 and first % (ENTRIES * step) == 0 and (level == 2 or head & LARGE != 0)
            flags = head & ~FRAME
            for index in range(1, ENTRIES):
                each = read_word(memory, table + 8 * index)
                if each & WRITE == 0 or (each & FRAME) >> PAGE_SHIFT != first + index * step:
                    whole = False
                    break
                flags |= each & ~FRAME
            if whole:
                write_word(memory, hpa, first << PAGE_SHIFT | flags & ~gone | more | LARGE)
                frames[table >> PAGE_SHIFT].rmap = 0
                freed[count] = table >> PAGE_SHIFT
                count += 1
        address += span
    return count
