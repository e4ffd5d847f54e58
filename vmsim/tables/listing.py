"""What kernels read of page tables as they go through them. `levels` is how deep the tables are, as in edit.py."""

from __future__ import annotations

import numpy as np

from vmsim.jit import kernel, leaf
from vmsim.machine.formats import FRAME, LARGE, PAGE_SHIFT, PRESENT, TWO_LEVEL
from vmsim.machine.memory import entry_at, read_entry, width_of, write_entry
from vmsim.tables.backing import UNBACKED, host_address

__all__ = ["list_tables", "mark_huge", "scan_entries", "take_pages", "walk_entries"]


@kernel
def walk_entries(memory, root, levels, leaf_level, backing, address, places, values):
    """List the entries that a kernel loads on its way down to `address`, one of each level.

    It ends at `leaf_level`, at an absent entry or at one that maps a large page. Fills `places` (gpas) and `values`,
    int64[5] or more; returns how many; n below 0 says that the last of -n lies in a table that has no host frame.
    """
    width = width_of(levels)
    level = levels
    table = root
    count = 0
    while True:
        places[count] = entry_at(table, address, level, width)
        hpa = host_address(backing, places[count])
        if hpa == UNBACKED:
            return -1 - count
        values[count] = read_entry(memory, hpa, width)
        entry = values[count]
        count += 1
        if level == leaf_level or entry == 0 or entry & LARGE:
            return count
        table = entry & FRAME
        level -= 1


@kernel
def scan_entries(memory, root, levels, backing, first, address, limit, every, places, values, starts, sizes):
    """List the entries that a kernel loads as it goes through [first, limit), table by table, from `address` on.

    An entry that leads to a table is loaded once, as by Linux's nested loops over pgd, p4d, pud and pmd
    (mm/pagewalk.c, walk_pgd_range), also where the caller goes on later: what covers `address` and begins before it
    has been listed when the scan came by.

    Parameters
    ----------
    first, address, limit : int
        Where the whole scan begins, where it goes on (`first`, or where it stopped), and where it ends (gvas).
    every : bool
        List the absent entries on the way too, which the kernel loads to find them so.
    places, values, starts, sizes : int64[n]
        Filled: gpa and value of each entry; where it maps a page, the page's gva and the level of the entry (1, 2 or
        3), else (a pointer to a table, an absent entry) a level of 0. n must be 518 or more, 1030 for 2 levels.

    Returns
    -------
    (address, count) : tuple of int
        Where it stopped because there might be no room for another table (else `limit`), and how many were listed;
        or UNBACKED and the gpa of an entry in a table that has no host frame.
    """
    shape = root, levels, backing, first, address, limit
    if levels == TWO_LEVEL:
        return _scan_entries(memory, *shape, every, places, values, starts, sizes, 10)
    return _scan_entries(memory, *shape, every, places, values, starts, sizes, 9)


@leaf
def _scan_entries(memory, root, levels, backing, first, address, limit, every, places, values, starts, sizes, width):
    entries = 1 << width
    count = 0
    while address < limit and count + entries + 6 <= len(places):
        level = levels
        table = root
        while True:
            place = entry_at(table, address, level, width)
            hpa = host_address(backing, place)
            if hpa == UNBACKED:
                return UNBACKED, place
            entry = read_entry(memory, hpa, width)
            if level == 1:
                break
            inside = address & ((1 << (PAGE_SHIFT - width + width * level)) - 1)
            if (entry or every) and (address == first or inside == 0):
                places[count] = place
                values[count] = entry
                sizes[count] = level if entry & LARGE else 0
                starts[count] = address - inside
                count += 1
            if entry == 0 or entry & LARGE:
                break
            table = entry & FRAME
            level -= 1
        span = 1 << (PAGE_SHIFT - width + width * level)
        address &= ~(span - 1)
        if level > 1:
            address += span
            continue
        while True:
            entry = read_entry(memory, hpa, width)
            if entry or every:
                places[count] = place
                values[count] = entry
                sizes[count] = 1 if entry else 0
                starts[count] = address
                count += 1
            address += span
            if address >= limit or (address >> PAGE_SHIFT) & (entries - 1) == 0:
                break
            hpa += 1 << (PAGE_SHIFT - width)
            place += 1 << (PAGE_SHIFT - width)
    return min(address, limit), count


@kernel
def take_pages(memory, root, levels, backing, first, address, limit, clear, columns):
    """List the entries that map pages of [first, limit), from `address` on, and clear them if that is asked for.

    Parameters
    ----------
    memory, root, levels, backing, first, address, limit
        As of `scan_entries`, which goes through the tables; it stops where that stops.
    clear : bool
        Clear the entries that are listed.
    columns : int64[4, n]
        Filled: starts, levels, gpas and values of the entries, as they were.

    Returns
    -------
    (address, count) : tuple of int
        As of `scan_entries`; with UNBACKED nothing is cleared.
    """
    starts, sizes, places, values = columns[0], columns[1], columns[2], columns[3]
    stop, count = scan_entries(
        memory, root, levels, backing, first, address, limit, False, places, values, starts, sizes
    )
    if stop == UNBACKED:
        return stop, count
    width = width_of(levels)
    kept = 0
    for number in range(count):
        if sizes[number]:
            for column in range(4):
                columns[column, kept] = columns[column, number]
            if clear:
                write_entry(memory, host_address(backing, places[kept]), np.int64(0), width)
            kept += 1
    return stop, kept


@kernel
def mark_huge(memory, root, levels, backing, limit, huge):
    """Mark the ranges of 512 frames that entries of large pages map below a root, in `huge` (bool[frames >> 9]).

    Tables that have no host frame are left out, and what lies at `limit` (a gva) and above.
    """
    width = width_of(levels)
    address = 0
    while address < limit:
        level = levels
        table = root
        entry = np.int64(0)
        while True:
            hpa = host_address(backing, entry_at(table, address, level, width))
            entry = read_entry(memory, hpa, width) if hpa != UNBACKED else np.int64(0)
            if level == 2 or entry == 0 or entry & LARGE:
                break
            table = entry & FRAME
            level -= 1
        span = 1 << (PAGE_SHIFT - width + width * level)
        if entry & LARGE and entry & PRESENT:
            first = ((entry & FRAME) >> PAGE_SHIFT & -(span >> PAGE_SHIFT)) >> 9
            for number in range(first, min(first + (span >> (PAGE_SHIFT + 9)), len(huge))):
                huge[number] = True
        address = (address & ~(span - 1)) + span


@kernel
def list_tables(memory, root, levels, backing, limit, places, tables):
    """List the tables below a root that translate addresses under `limit`, those of lower levels first.

    Fills `places` (gpa of the entry that points to each) and `tables` (its gpa), int64[n]; returns how many there
    are, which may be more than were filled; n below 0 says that the host has to back the frame -1 - n first. What hangs
    below a table beyond the guest's memory is left out.
    """
    width = width_of(levels)
    count = 0
    for wanted in range(1, levels):
        address = 0
        while address < limit:
            level = levels
            table = root
            while True:
                place = entry_at(table, address, level, width)
                hpa = host_address(backing, place)
                if hpa == UNBACKED:
                    if place >> PAGE_SHIFT < len(backing):
                        return -1 - (place >> PAGE_SHIFT)
                    break
                entry = read_entry(memory, hpa, width)
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
            span = 1 << (PAGE_SHIFT - width + width * level)
            address = (address & ~(span - 1)) + span
    return count
