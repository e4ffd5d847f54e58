"""What fork and exit do to whole lists of entries at once: shared, put into another space, given up.

Entries are listed as by `listing.take_pages`: columns of starts, levels, gpas and values, int64[4, n].
"""

from __future__ import annotations

import numpy as np

from vmsim.jit import kernel, leaf, routine
from vmsim.machine.formats import FRAME, PAGE_SHIFT, WRITE
from vmsim.machine.memory import clear_frame, entry_at, read_entry, width_of, write_entry
from vmsim.tables.backing import UNBACKED, host_address

__all__ = ["drop_frames", "place_pages", "share_frames", "share_pages"]


@leaf
def _first_frame(value, level, width):
    """Return the first frame of the page that an entry of a level maps."""
    return (value & FRAME & -(1 << (PAGE_SHIFT - width + width * level))) >> PAGE_SHIFT


@kernel
def share_pages(memory, backing, frames, more, sizes, places, values, levels):
    """Take the right to write from entries whose pages are to be mapped once more: fork.

    A frame that is shared has no reverse map.

    Parameters
    ----------
    memory, backing : int64[:]
        Host-physical memory, and where the guest's lies in it.
    frames : FRAME_RECORD[:]
        The guest's.
    more : int32[frames]
        How many entries map each frame besides the first.
    sizes, places, values : int64[n]
        Level, gpa and value of each entry.
    levels : int
        Of the tables.

    Returns
    -------
    int
        Entries that lost the right to write; UNBACKED, and nothing is done, where one lies in a table that has no host
        frame.
    """
    width = width_of(levels)
    for number in range(len(places)):
        if host_address(backing, places[number]) == UNBACKED:
            return np.int64(UNBACKED)
    protected = np.int64(0)
    for number in range(len(places)):
        value = values[number]
        if value & WRITE:
            write_entry(memory, host_address(backing, places[number]), value & ~WRITE, width)
            protected += 1
        first = _first_frame(value, sizes[number], width)
        for frame in range(first, first + (1 << (width * (sizes[number] - 1)))):
            more[frame] += 1
            frames[frame].rmap = 0
    return protected


@kernel
def share_frames(more, frames, firsts, order):
    """Note one entry more for each frame of pages of 2**order frames (`firsts`, int64[n]), the others as before."""
    for number in range(len(firsts)):
        for frame in range(firsts[number], firsts[number] + (1 << order)):
            more[frame] += 1
            frames[frame].rmap = 0


@leaf
def _new_home(columns, number, width):
    """Return whether an entry belongs to another table than the one before it."""
    if number == 0 or columns[1, number] != columns[1, number - 1]:
        return True
    shift = PAGE_SHIFT + width * columns[1, number]
    return columns[0, number] >> shift != columns[0, number - 1] >> shift


@routine
def _missing(memory, root, levels, backing, columns, count, width):
    """Return how many tables entries lack, and the guest frame of one that has no host frame, or UNBACKED."""
    needed = np.int64(0)
    for number in range(count):
        if not _new_home(columns, number, width):
            continue
        start = columns[0, number]
        table = root
        level = levels
        while True:
            hpa = host_address(backing, entry_at(table, start, level, width))
            if hpa == UNBACKED:
                return needed, table >> PAGE_SHIFT
            if level == columns[1, number]:
                break
            entry = read_entry(memory, hpa, width)
            if entry == 0:
                for below in range(columns[1, number], level):  # those of the entry before are counted
                    shift = PAGE_SHIFT + width * below
                    if number == 0 or start >> shift != columns[0, number - 1] >> shift:
                        needed += 1
                break
            table = entry & FRAME
            level -= 1
    return needed, np.int64(UNBACKED)


@kernel
def place_pages(memory, frames, root, levels, backing, columns, count, tables, table_bits):
    """Write entries to a space that lacks them, and make the tables that it lacks; no larger pages stand there.

    Parameters
    ----------
    memory, frames, backing
        As of `share_pages`.
    root, levels : int
        Of the space.
    columns : int64[4, n]
        The entries, by ascending address: their starts, levels and values are read.
    tables : int64[:]
        Frames to make tables of, in the order in which they are needed.
    table_bits : int
        Bits of an entry that points to a table.

    Returns
    -------
    (needed, absent) : tuple of int
        How many tables are needed, and a guest frame that must have a host frame first, or UNBACKED. Nothing is done
        where there is such a frame, or `tables` are too few.
    """
    width = width_of(levels)
    needed, absent = _missing(memory, root, levels, backing, columns, count, width)
    if absent == UNBACKED and needed <= len(tables):
        for number in range(needed):
            if host_address(backing, tables[number] << PAGE_SHIFT) == UNBACKED:
                absent = tables[number]
                break
    if absent != UNBACKED or needed > len(tables):
        return needed, absent
    used = np.int64(0)
    table = np.int64(0)
    for number in range(count):
        start = columns[0, number]
        wanted = columns[1, number]
        if _new_home(columns, number, width):
            table = root
            level = levels
            while level > wanted:
                gpa = entry_at(table, start, level, width)
                entry = read_entry(memory, host_address(backing, gpa), width)
                if entry == 0:
                    frame = tables[used]
                    used += 1
                    clear_frame(memory, host_address(backing, frame << PAGE_SHIFT))
                    entry = frame << PAGE_SHIFT | table_bits
                    write_entry(memory, host_address(backing, gpa), entry, width)
                    frames[frame].rmap = gpa
                table = entry & FRAME
                level -= 1
        place = entry_at(table, start, wanted, width)
        write_entry(memory, host_address(backing, place), columns[3, number], width)
        first = _first_frame(columns[3, number], wanted, width)
        if frames[first].rmap != 0:  # of a page that is shared there is none
            frames[first].rmap = place
    return needed, absent


@kernel
def drop_frames(more, frames):
    """Note one entry fewer for each of `frames` (int64[n]); move those that nobody maps any more to the front.

    Parameters
    ----------
    more : int32[:]
        As of `share_pages`.

    Returns
    -------
    int
        How many nobody maps.
    """
    alone = 0
    for number in range(len(frames)):
        frame = frames[number]
        if more[frame]:
            more[frame] -= 1
        else:
            frames[alone] = frame
            alone += 1
    return alone
