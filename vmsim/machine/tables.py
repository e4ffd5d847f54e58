"""Edits of page tables by kernels: descend, map, unmap. What hardware does with the tables is in walker.py."""

from __future__ import annotations

import numpy as np

from vmsim.jit import kernel
from vmsim.machine.buddy import NO_FRAME, State, allocate, free_many
from vmsim.machine.formats import FRAME, LARGE, PAGE_SHIFT, PRESENT
from vmsim.machine.memory import clear_frame, entry_at, read_word, write_word

__all__ = [
    "BLOCKED",
    "MAPPED",
    "NOWHERE",
    "UNBACKED",
    "host_address",
    "list_tables",
    "load_entries",
    "map_page",
    "map_pages",
    "missing_tables",
    "populate",
    "scan_entries",
    "store_entries",
    "walk_entries",
]

UNBACKED = -1
MAPPED = -1
BLOCKED = -2
NOWHERE = -3


@kernel
def host_address(memory, nested_root, nested_levels, gpa):
    """Return the hpa of `gpa` by the nested tables, or UNBACKED; with no nested level the two are the same."""
    level = nested_levels
    table = nested_root
    if level and gpa >> (PAGE_SHIFT + 9 * level):  # beyond what the tables can translate
        return UNBACKED
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
def load_entries(memory, nested_root, nested_levels, places, values):
    """Set `values` (int64[n]) to the entries at the gpas `places` (int64[n])."""
    for number in range(len(places)):
        values[number] = read_word(memory, host_address(memory, nested_root, nested_levels, places[number]))


@kernel
def store_entries(memory, nested_root, nested_levels, places, values):
    """Store `values` (int64[n]) at the gpas `places` (int64[n]), in order."""
    for number in range(len(places)):
        write_word(memory, host_address(memory, nested_root, nested_levels, places[number]), values[number])


@kernel
def missing_tables(memory, root, levels, leaf_level, nested_root, nested_levels, address):
    """Return how many tables must be made before `address` can be mapped at `leaf_level`; 0 if they are all there.

    MAPPED says that `address` is mapped already, at `leaf_level` or above; BLOCKED that a table of smaller pages
    stands where the large page would go; NOWHERE that an entry leads to a table that the nested tables do not have.
    Tables are entered by their gpa through the nested tables (by their hpa where there are none).
    """
    level = levels
    table = root
    while True:
        table = host_address(memory, nested_root, nested_levels, table)
        if table == UNBACKED:
            return NOWHERE
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
        if hpa == UNBACKED:
            return NOWHERE
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
        Bits of the entries besides the address (LARGE is added here). The root of 3 levels is PAE's, whose entries
        have no rights: they are present and no more (SDM vol. 3A table 5-8; AMD APM vol. 2 figure 5-10).

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
                    write_word(memory, hpa, table | (PRESENT if level == 3 == levels else table_bits))
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
def walk_entries(memory, root, levels, leaf_level, nested_root, nested_levels, address, places, values):
    """List the entries that a kernel loads on its way down to `address`, one of each level.

    It ends at `leaf_level`, at an absent entry or at one that maps a large page. Fills `places` (gpas) and `values`,
    int64[5] or more; returns how many; n below 0 says that the last of -n lies where the nested tables have nothing.
    """
    level = levels
    table = root
    count = 0
    while True:
        places[count] = entry_at(table, address, level)
        hpa = host_address(memory, nested_root, nested_levels, places[count])
        if hpa == UNBACKED:
            return -1 - count
        values[count] = read_word(memory, hpa)
        entry = values[count]
        count += 1
        if level == leaf_level or entry == 0 or entry & LARGE:
            return count
        table = entry & FRAME
        level -= 1


@kernel
def scan_entries(
    memory, root, levels, nested_root, nested_levels, address, limit, every, places, values, starts, sizes
):
    """List the entries that a kernel loads as it goes through [address, limit), table by table.

    Parameters
    ----------
    every : bool
        List the absent entries on the way too, which the kernel loads to find them so.
    places, values, starts, sizes : int64[n]
        Filled: gpa and value of each entry; where it maps a page, the page's gva and the level of the entry (1, 2 or
        3), else (a pointer to a table, an absent entry) a level of 0. n must be 518 or more.

    Returns
    -------
    (address, count) : tuple of int
        Where it stopped because there might be no room for another table (else `limit`), and how many were listed;
        or UNBACKED and the gpa of an entry that lies where the nested tables have nothing.
    """
    count = 0
    while address < limit and count + 518 <= len(places):
        level = levels
        table = root
        while True:
            place = entry_at(table, address, level)
            hpa = host_address(memory, nested_root, nested_levels, place)
            if hpa == UNBACKED:
                return UNBACKED, place
            entry = read_word(memory, hpa)
            if level == 1:
                break
            if entry or every:
                places[count] = place
                values[count] = entry
                sizes[count] = level if entry & LARGE else 0
                starts[count] = address & ~((1 << (3 + 9 * level)) - 1)
                count += 1
            if entry == 0 or entry & LARGE:
                break
            table = entry & FRAME
            level -= 1
        span = 1 << (3 + 9 * level)
        address &= ~(span - 1)
        if level > 1:
            address += span
            continue
        while True:
            entry = read_word(memory, hpa)
            if entry or every:
                places[count] = place
                values[count] = entry
                sizes[count] = 1 if entry else 0
                starts[count] = address
                count += 1
            address += span
            if address >= limit or (address >> PAGE_SHIFT) & 511 == 0:
                break
            hpa += 8
            place += 8
    return min(address, limit), count


@kernel
def list_tables(memory, root, levels, nested_root, nested_levels, limit, places, tables):
    """List the tables below a root that translate addresses under `limit`, those of lower levels first.

    Fills `places` (gpa of the entry that points to each) and `tables` (its gpa), int64[n]; returns how many there
    are, which may be more than were filled. What hangs below a table that the nested tables do not have is left out.
    """
    count = 0
    for wanted in range(1, levels):
        address = 0
        while address < limit:
            level = levels
            table = root
            while True:
                place = entry_at(table, address, level)
                hpa = host_address(memory, nested_root, nested_levels, place)
                if hpa == UNBACKED:
                    break
                entry = read_word(memory, hpa)
                if entry == 0 or entry & LARGE:
                    break
                table = entry & FRAME
                level -= 1
                if level == wanted:
                    if count < len(places):
                        places[count] = place
                        tables[count] = table
                    count += 1
                    level += 1
                    break
            span = 1 << (3 + 9 * level)
            address = (address & ~(span - 1)) + span
    return count
