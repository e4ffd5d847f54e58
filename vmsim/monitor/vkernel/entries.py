"""The tables of a vkernel's maps, and which of their entries map each page of its memory, in whichever map.

The host finds them by the page (DragonFly's pv_entry, sys/platform/pc64/x86_64/pmap.c). Here an entry is a node, by the
number of its table among those of level 1 and its place there; the nodes of a guest frame are a list.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vmsim.jit import kernel, leaf
from vmsim.machine.copies import note_read
from vmsim.machine.formats import FRAME, PAGE_SHIFT
from vmsim.machine.memory import read_entry, width_of, write_entry

__all__ = [
    "MapTables",
    "add_table",
    "all_nodes",
    "attach",
    "change_entries",
    "detach",
    "drop_table",
    "has_room",
    "make_maps",
    "more_room",
    "node_of",
]

_TABLES = 64  # of level 1 that there is room for at first

LINK = np.dtype((np.record, [("gfn", "i8"), ("next", "i4"), ("prev", "i4")]))  # of a node; the others + 1


class MapTables(NamedTuple):
    """What the kernels of a vkernel's host work on."""

    memory: np.ndarray  # int64[:], host-physical memory
    backing: np.ndarray  # int64[frames], where guest memory lies
    walks: np.ndarray  # WALK[1], of `tables.make_walk`
    frames: np.ndarray  # FRAME_RECORD[:], the host's; rmap of a table of level 1: its number + 1
    free: np.ndarray  # int64[1], the first number that no table has, + 1; 0: there is none left
    tables: np.ndarray  # int64[room], hpas of tables of level 1 by number; of one that none has -1 - the next such + 1
    links: np.ndarray  # LINK[room << width]
    heads: np.ndarray  # int32[frames], the first node of each guest frame, + 1


def make_maps(
    memory: np.ndarray, backing: np.ndarray, walks: np.ndarray, frames: np.ndarray, room: int = _TABLES
) -> MapTables:
    """Return a vkernel's maps, none so far, with room for so many tables of level 1; parameters as the fields."""
    tables = -2 - np.arange(1, room + 1)
    tables[-1] = -1
    links = np.zeros(room << int(width_of(int(walks["levels"][0]))), LINK)
    return MapTables(
        memory, backing, walks, frames, np.ones(1, np.int64), tables, links, np.zeros(len(backing), np.int32)
    )


def more_room(maps: MapTables) -> MapTables:
    """Return the same maps with room for twice as many tables; there must be none left."""
    before = len(maps.tables)
    made = make_maps(maps.memory, maps.backing, maps.walks, maps.frames, 2 * before)
    made.tables[:before] = maps.tables
    made.links[: len(maps.links)] = maps.links
    made.free[0] = before + 1
    return made._replace(heads=maps.heads)


@leaf
def has_room(maps):
    """Return whether there is a number for one more table of level 1."""
    return maps.free[0] > 0


@leaf
def add_table(maps, table):
    """Give a table of level 1, by its frame, a number."""
    number = maps.free[0] - 1
    maps.free[0] = -1 - maps.tables[number]
    maps.tables[number] = table << PAGE_SHIFT
    maps.frames[table].rmap = number + 1


@leaf
def drop_table(maps, table):
    """Take a table's number back."""
    number = np.int64(maps.frames[table].rmap) - 1
    maps.frames[table].rmap = 0
    maps.tables[number] = -1 - maps.free[0]
    maps.free[0] = number + 1


@leaf
def node_of(maps, place, width):
    """Return the node of the entry of level 1 at an hpa."""
    return (np.int64(maps.frames[place >> PAGE_SHIFT].rmap) - 1) << width | (place & 0xFFF) >> (PAGE_SHIFT - width)


@leaf
def attach(maps, node, gfn):
    """Note that an entry maps a guest frame."""
    links, heads = maps.links, maps.heads
    after = np.int64(heads[gfn])
    links[node].gfn = gfn
    links[node].next = after
    links[node].prev = 0
    if after:
        links[after - 1].prev = node + 1
    heads[gfn] = node + 1


@leaf
def detach(maps, node):
    """Note that an entry maps nothing any more."""
    links = maps.links
    before, after = np.int64(links[node].prev), np.int64(links[node].next)
    if before:
        links[before - 1].next = after
    else:
        maps.heads[links[node].gfn] = after
    if after:
        links[after - 1].prev = before


@kernel
def change_entries(maps, gfns, mark, gone, found):
    """Look at the entries that map some guest frames; note which have a flag, and take bits from them.

    Parameters
    ----------
    maps : MapTables
        The maps.
    gfns : int64[n]
        Guest frames.
    mark, gone : int
        The flag, and the bits to take; -1: the whole entry.
    found : bool[n]
        Set where an entry of the frame has the flag.

    Returns
    -------
    int
        Entries that had it.
    """
    memory, width = maps.memory, width_of(maps.walks[0].levels)
    marked = 0
    for number in range(len(gfns)):
        node = np.int64(maps.heads[gfns[number]])
        while node:
            after = np.int64(maps.links[node - 1].next)
            place = maps.tables[(node - 1) >> width] + (((node - 1) & ((1 << width) - 1)) << (PAGE_SHIFT - width))
            entry = read_entry(memory, place, width)
            if gone or mark != -1:
                note_read(memory, place)
            if entry & mark:
                marked += 1
                found[number] = True
                write_entry(memory, place, entry & ~gone, width)
                if entry & ~gone == 0:
                    detach(maps, node - 1)
            node = after
    return marked


def all_nodes(maps: MapTables) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return guest frame, hpa and the frame that it leads to of each entry that is in a list, int64[n], for checks."""
    width, memory = int(width_of(int(maps.walks["levels"][0]))), maps.memory
    memory = memory if width == 9 else memory.view(np.uint32)
    gfns = np.flatnonzero(maps.heads)
    node, found = maps.heads[gfns].astype(np.int64), [np.empty((3, 0), np.int64)]
    while len(node):  # the first of all lists, then the second, and so on
        place = maps.tables[node - 1 >> width] + ((node - 1 & (1 << width) - 1) << PAGE_SHIFT - width)
        entry = memory[place >> PAGE_SHIFT - width].astype(np.int64)
        found.append(np.stack((gfns, place, (entry & FRAME) >> PAGE_SHIFT)))
        after = maps.links["next"][node - 1].astype(np.int64)
        gfns, node = gfns[after > 0], after[after > 0]
    return tuple(np.concatenate(found, axis=1))
