"""Edits of page tables by kernels: descend, map, unmap. What hardware does with the tables is in walker.py.

Here `levels` is how deep the tables are, which also says what their entries look like: 2 are 32-bit paging's
(formats.TWO_LEVEL), 3 PAE's. What is done often is compiled twice, once for each width of an entry, and that for halves
of words lies out of the way.
"""

from __future__ import annotations

import numpy as np

from vmsim.frames.buddy import allocate, free_many
from vmsim.frames.records import NO_FRAME, State
from vmsim.jit import kernel, leaf, routine
from vmsim.machine.formats import FRAME, LARGE, PAGE_SHIFT, PRESENT, TWO_LEVEL
from vmsim.machine.memory import clear_frame, entry_at, read_entry, width_of, write_entry
from vmsim.tables.backing import UNBACKED, host_address, locate_page

__all__ = [
    "BLOCKED",
    "MAPPED",
    "NOWHERE",
    "find_address",
    "load_entries",
    "map_page",
    "map_pages",
    "missing_tables",
    "populate",
    "store_entries",
    "translate",
]

MAPPED = -1
BLOCKED = -2
NOWHERE = -3


@kernel
def translate(memory, root, levels, address):
    """Return what `address` is translated to by the tables below `root`, or UNBACKED; no levels change nothing."""
    if levels == TWO_LEVEL:
        return _translate_by_halves(memory, root, address)
    return _translate(memory, root, levels, address, 9)


@routine
def _translate_by_halves(memory, root, address):
    return _translate(memory, root, np.int64(TWO_LEVEL), address, 10)


@leaf
def _translate(memory, root, levels, address, width):
    level = levels
    table = root
    if level and address >> (PAGE_SHIFT + width * level):  # beyond what the tables can translate
        return UNBACKED
    while level:
        entry = read_entry(memory, entry_at(table, address, level, width), width)
        if entry == 0:
            return UNBACKED
        if level == 1 or entry & LARGE:
            offset = (1 << (PAGE_SHIFT - width + width * level)) - 1
            return (entry & FRAME & ~offset) | (address & offset)
        table = entry & FRAME
        level -= 1
    return address


@routine
def find_address(memory, root, levels, backing, gpa):
    """Return the hpa of `gpa` by nested tables, where there are none by what the host says of it, or UNBACKED."""
    if levels:
        return translate(memory, root, levels, gpa)
    if len(backing) == 0:
        return gpa
    hpa, backed, _ = locate_page(backing, gpa)
    return hpa if backed else np.int64(UNBACKED)


@leaf
def _all_there(backing, places):
    """Return whether the host has all that lies at the gpas `places`."""
    for number in range(len(places)):  # noqa: SIM110
        if host_address(backing, places[number]) == UNBACKED:
            return False
    return True


@kernel
def load_entries(memory, backing, places, values, width):
    """Set `values` (int64[n]) to the entries at the gpas `places` (int64[n]) of tables that translate `width` bits.

    Returns
    -------
    bool
        False, and nothing is loaded, where one of the tables has no host frame.
    """
    if not _all_there(backing, places):
        return False
    for number in range(len(places)):
        values[number] = read_entry(memory, host_address(backing, places[number]), width)
    return True


@kernel
def store_entries(memory, backing, places, values, width):
    """Store `values` (int64[n]) at the gpas `places` (int64[n]), in order; `width` and the answer as of `load_entries`.

    Where one of the tables has no host frame nothing is stored.
    """
    if not _all_there(backing, places):
        return False
    for number in range(len(places)):
        write_entry(memory, host_address(backing, places[number]), values[number], width)
    return True


@kernel
def missing_tables(memory, root, levels, leaf_level, backing, address):
    """Return how many tables must be made before `address` can be mapped at `leaf_level`; 0 if they are all there.

    MAPPED says that `address` is mapped already, at `leaf_level` or above; BLOCKED that a table of smaller pages
    stands where the large page would go; NOWHERE that an entry leads to a table that has no host frame. Tables are
    entered by their gpa through `backing` (by their hpa where it is empty).
    """
    if levels == TWO_LEVEL:
        return _missing_by_halves(memory, root, leaf_level, backing, address)
    return _missing(memory, root, levels, leaf_level, backing, address, 9)


@routine
def _missing_by_halves(memory, root, leaf_level, backing, address):
    return _missing(memory, root, np.int64(TWO_LEVEL), leaf_level, backing, address, 10)


@leaf
def _missing(memory, root, levels, leaf_level, backing, address, width):
    level = levels
    table = root
    while True:
        table = host_address(backing, table)
        if table == UNBACKED:
            return NOWHERE
        entry = read_entry(memory, entry_at(table, address, level, width), width)
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
def map_page(memory, frames, root, levels, leaf_level, backing, address, page, page_bits):
    """Map one page if all its tables are there; return what `missing_tables` does, 0 saying that it is mapped.

    Parameters are as of `map_pages`; `page` is the one frame number.
    """
    if levels == TWO_LEVEL:
        return _map_by_halves(memory, frames, root, leaf_level, backing, address, page, page_bits)
    return _map_page(memory, frames, root, levels, leaf_level, backing, address, page, page_bits, 9)


@routine
def _map_by_halves(memory, frames, root, leaf_level, backing, address, page, page_bits):
    levels = np.int64(TWO_LEVEL)
    return _map_page(memory, frames, root, levels, leaf_level, backing, address, page, page_bits, 10)


@leaf
def _map_page(memory, frames, root, levels, leaf_level, backing, address, page, page_bits, width):
    level = levels
    table = root
    while True:
        gpa = entry_at(table, address, level, width)
        hpa = host_address(backing, gpa)
        if hpa == UNBACKED:
            return NOWHERE
        entry = read_entry(memory, hpa, width)
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
    write_entry(memory, hpa, page << PAGE_SHIFT | page_bits | (LARGE if leaf_level > 1 else 0), width)
    frames[page].state = State.GUEST
    frames[page].rmap = gpa
    return 0


@kernel
def map_pages(memory, frames, root, levels, leaf_level, backing, address, pages, tables, table_bits, page_bits):
    """Map consecutive pages from `address` on.

    Parameters
    ----------
    memory : int64[:]
        Host-physical memory.
    frames : FRAME_RECORD[:]
        Frames of the address space the entries point into; each notes its use and the entry that maps it (rmap).
    root, levels, leaf_level : int
        Root table, its level, and the level of the entries to write: 1, 2 or 3 for pages of 4K, 2M (4M), 1G.
    backing : int64[:]
        Where guest memory lies, through which the tables themselves are reached; empty where they are host memory.
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
    shape = root, levels, leaf_level, backing, address
    if levels == TWO_LEVEL:
        return _map_pages(memory, frames, *shape, pages, tables, table_bits, page_bits, 10)
    return _map_pages(memory, frames, *shape, pages, tables, table_bits, page_bits, 9)


@leaf
def _map_pages(
    memory,
    frames,
    root,
    levels,
    leaf_level,
    backing,
    address,
    pages,
    tables,
    table_bits,
    page_bits,
    width,
):
    used = 0
    step = 1 << (PAGE_SHIFT - width + width * leaf_level)
    if leaf_level > 1:
        page_bits |= LARGE
    hpa = 0
    gpa = 0
    for number in range(len(pages)):
        if number and (address // step) & ((1 << width) - 1):
            hpa += 1 << (PAGE_SHIFT - width)  # the next entry of the same table
            gpa += 1 << (PAGE_SHIFT - width)
        else:
            level = levels
            table = root
            while True:
                gpa = entry_at(table, address, level, width)
                hpa = host_address(backing, gpa)
                if level == leaf_level:
                    break
                entry = read_entry(memory, hpa, width)
                if entry == 0:
                    frame = tables[used]
                    used += 1
                    table = frame << PAGE_SHIFT
                    clear_frame(memory, host_address(backing, table))
                    write_entry(memory, hpa, table | (PRESENT if level == 3 == levels else table_bits), width)
                    frames[frame].state = State.TABLE
                    frames[frame].rmap = gpa
                else:
                    table = entry & FRAME
                level -= 1
        write_entry(memory, hpa, pages[number] << PAGE_SHIFT | page_bits, width)
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
    backing,
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
    width = width_of(levels)
    order = width * (leaf_level - 1)
    step = 1 << (PAGE_SHIFT + order)
    address &= ~(step - 1)
    while address < limit:
        missing = missing_tables(memory, root, levels, leaf_level, backing, address)
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
                backing,
                address,
                pages,
                tables,
                table_bits,
                page_bits,
            )
        address += step
        if missing >= 0:
            address = _fill_table(
                memory, zones, frames, owner, root, levels, leaf_level, backing, address, limit, page_bits, pages, width
            )
    return limit


@routine
def _fill_table(
    memory, zones, frames, owner, root, levels, leaf_level, backing, address, limit, page_bits, pages, width
):
    """Map what is left of a table, whose entry before that of `address` maps a page, as far as there are frames.

    Returns
    -------
    int
        The first address for which there was no frame, or that another table translates.
    """
    order = width * (leaf_level - 1)
    step = 1 << (PAGE_SHIFT + order)
    bits = page_bits | (LARGE if leaf_level > 1 else 0)
    table = root
    level = levels
    while level > leaf_level:
        table = read_entry(memory, host_address(backing, entry_at(table, address - step, level, width)), width) & FRAME
        level -= 1
    end = min(limit, ((address - step) | ((step << width) - 1)) + 1)
    while address < end:
        gpa = entry_at(table, address, leaf_level, width)
        hpa = host_address(backing, gpa)
        if read_entry(memory, hpa, width) == 0:
            if zones[0].free < 1 << order:
                break
            pages[0] = allocate(zones, frames, order, np.int64(State.GUEST), owner)
            if pages[0] == NO_FRAME:
                break
            write_entry(memory, hpa, pages[0] << PAGE_SHIFT | bits, width)
            frames[pages[0]].rmap = gpa
        address += step
    return address
