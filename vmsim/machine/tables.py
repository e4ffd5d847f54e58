"""Edits of page tables by kernels: descend, map, unmap. What hardware does with the tables is in walker.py."""

from __future__ import annotations

import numpy as np

from vmsim.jit import kernel
from vmsim.machine.buddy import NO_FRAME, State, allocate, free_many
from vmsim.machine.formats import FRAME, LARGE, PAGE_SHIFT
from vmsim.machine.memory import clear_frame, entry_at, read_word, write_word

__all__ = [
    "BLOCKED",
    "MAPPED",
    "UNBACKED",
    "host_address",
    "map_page",
    "map_pages",
    "missing_tables",
    "populate",
    "unmap_pages",
]

UNBACKED = -1
MAPPED = -1
BLOCKED = -2


@kernel
def host_address(memory, nested_root, nested_levels, gpa):
    """Return the hpa of `gpa` by the nested tables, or UNBACKED; with no nested level the two are the same."""
    level = nested_levels
    table = nested_root
    while level:
        entry = read_word(memory, entry_at(table, gpa, level))
        if entry == 0:
            return UNBACKED
        if level == 1 or entry & LARGE:
            offset = (1 << (3 + 9 * level)) - 1
            return (entry & FRAME & ~offset) | (gpa & offset)
        table = entry & FRAME
        level -= 1
    return gpa


@kernel
def missing_tables(memory, root, levels, leaf_level, nested_root, nested_levels, address):
    """Return how many tables must be made before `address` can be mapped at `leaf_level`; 0 if they are all there.

    MAPPED says that `address` is mapped already, at `leaf_level` or above; BLOCKED that a table of smaller pages
    stands where the large page would go. Tables are entered by their gpa through the nested tables (by their hpa
    where there are none).
    """
    level = levels
    table = root
    while True:
        table = host_address(memory, nested_root, nested_levels, table)
        entry = read_word(memory, entry_at(table, address, level))
        if level == leaf_level:
            if entry == 0:
                return 0
            return MAPPED if level == 1 or entry & LARGE else BLOCKED
        if entry == 0:
            return level - leaf_level
        if entry & LARGE:
            return MAPPED
        table = entry & FRAME
        level -= 1


@kernel
def map_page(memory, frames, root, levels, leaf_level, nested_root, nested_levels, address, page, page_bits):
    """Map one page if all its tables are there; return what `missing_tables` does, 0 saying that it is mapped.

    Parameters are as of `map_pages`; `page` is the one frame number.
    """
    level = levels
    table = root
    while True:
        gpa = entry_at(table, address, level)
        hpa = host_address(memory, nested_root, nested_levels, gpa)
        entry = read_word(memory, hpa)
        if level == leaf_level:
            break
        if entry == 0:
            return level - leaf_level
        if entry & LARGE:
            return MAPPED
        table = entry & FRAME
        level -= 1
    if entry:
        return MAPPED if level == 1 or entry & LARGE else BLOCKED
    write_word(memory, hpa, page << PAGE_SHIFT | page_bits | (LARGE if leaf_level > 1 else 0))
    frames[page].state = State.GUEST
    frames[page].rmap = gpa
    return 0


@kernel
def map_pages(
    memory, frames, root, levels, leaf_level, nested_root, nested_levels, address, pages, tables, table_bits, page_bits
):
    """Map consecutive pages from `address` on.

    Parameters
    ----------
    memory : int64[:]
        Host-physical memory.
    frames : FRAME_RECORD[:]
        Frames of the address space the entries point into; each notes its use and the entry that maps it (rmap).
    root, levels, leaf_level : int
        Root table, its level, and the level of the entries to write: 1, 2 or 3 for pages of 4K, 2M, 1G.
    nested_root, nested_levels : int
        Nested tables through which the tables themselves are reached; 0 levels where they are host memory.
    address : int
        gva or gpa of the first page.
    pages : int64[:]
        Frame number of each page.
    tables : int64[:]
        Frame numbers to make tables of, as they are needed; enough of them, and backed.
    table_bits, page_bits : int
        Bits of the entries besides the address (LARGE is added here).

    Returns
    -------
    int
        How many of `tables` were used.
    """
    used = 0
    step = 1 << (3 + 9 * leaf_level)
    if leaf_level > 1:
        page_bits |= LARGE
    hpa = 0
    gpa = 0
    for number in range(len(pages)):
        if number and (address >> (3 + 9 * leaf_level)) & 511:
            hpa += 8  # the next entry of the same table
            gpa += 8
        else:
            level = levels
            table = root
            while True:
                gpa = entry_at(table, address, level)
                hpa = host_address(memory, nested_root, nested_levels, gpa)
                if level == leaf_level:
                    break
                entry = read_word(memory, hpa)
                if entry == 0:
                    frame = tables[used]
                    used += 1
                    table = frame << PAGE_SHIFT
                    clear_frame(memory, host_address(memory, nested_root, nested_levels, table))
                    write_word(memory, hpa, table | table_bits)
                    frames[frame].state = State.TABLE
                    frames[frame].rmap = gpa
                else:
                    table = entry & FRAME
                level -= 1
        write_word(memory, hpa, pages[number] << PAGE_SHIFT | page_bits)
        frames[pages[number]].state = State.GUEST
        frames[pages[number]].rmap = gpa
        address += step
    return used


@kernel
def populate(
    memory,
    zones,
    frames,
    owner,
    root,
    levels,
    leaf_level,
    nested_root,
    nested_levels,
    address,
    limit,
    table_bits,
    page_bits,
    tables,
    pages,
):
    """Map [address, limit) to newly allocated frames, page by page; what is mapped already stays.

    Parameters are as of `map_pages`, with the zone and the owner of the frames, and scratch space: `tables`
    (int64[8]) and `pages` (int64[1]).

    Returns
    -------
    int
        Where it stopped: `limit`, or the first address for which there was no frame.
    """
    step = 1 << (3 + 9 * leaf_level)
    order = 9 * (leaf_level - 1)
    address &= ~(step - 1)
    while address < limit:
        missing = missing_tables(memory, root, levels, leaf_level, nested_root, nested_levels, address)
        if missing >= 0:
            if zones[0].free < missing + (1 << order):
                return address
            for number in range(missing):
                tables[number] = allocate(zones, frames, np.int64(0), np.int64(State.TABLE), owner)
            pages[0] = allocate(zones, frames, order, np.int64(State.GUEST), owner)
            if pages[0] == NO_FRAME:
                free_many(zones, frames, np.int64(0), tables[:missing])
                return address
            map_pages(
                memory,
                frames,
                root,
                levels,
                leaf_level,
                nested_root,
                nested_levels,
                address,
                pages,
                tables,
                table_bits,
                page_bits,
            )
        address += step
    return limit


@kernel
def unmap_pages(memory, root, levels, nested_root, nested_levels, address, limit, gone, orders):
    """Clear the leaf entries of [address, limit); tables stay.

    Returns
    -------
    (address, count) : tuple of int
        Where it stopped because `gone` was full (else `limit`), and how many pages were unmapped: `gone` (int64[:])
        holds the frame numbers, `orders` (int64[:]) log2 of each page's 4 KiB frames. A page only part of which lies
        in the range stays mapped.
    """
    count = 0
    while address < limit and count < len(gone):
        level = levels
        table = root
        while True:
            hpa = host_address(memory, nested_root, nested_levels, entry_at(table, address, level))
            entry = read_word(memory, hpa)
            if entry == 0 or level == 1 or entry & LARGE:
                break
            table = entry & FRAME
            level -= 1
        span = 1 << (3 + 9 * level)
        start = address & ~(span - 1)
        if entry and start == address and start + span <= limit:
            write_word(memory, hpa, np.int64(0))
            gone[count] = (entry & FRAME & ~(span - 1)) >> PAGE_SHIFT
            orders[count] = 9 * (level - 1)
            count += 1
        address = start + span
    return min(address, limit), count
