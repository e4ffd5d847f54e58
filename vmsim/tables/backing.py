"""Backing a guest frame with a page of its monitor's pool, compiled: a violation that waits for nobody."""

from __future__ import annotations

import numpy as np

from vmsim.jit import kernel, leaf, routine
from vmsim.machine.formats import PAGE_SHIFT
from vmsim.tables.edit import MAPPED, map_page, map_pages, missing_tables

__all__ = ["BACKING", "NEVER", "back_frame", "back_frames", "lacks", "violation"]

_LEAF = np.int64(1)  # the level that maps small pages; a literal is a type of its own, and compiled for once more
_NONE = np.int64(0)  # root and levels of the tables through which the host's own are reached

NEVER = 1 << 62  # pages that no pool has, cycles that no host lives

# What a monitor backs a guest frame with, at which price.
BACKING = np.dtype(
    (
        np.record,
        [
            ("root", "i8"),  # hpa of the nested tables' root
            ("levels", "i8"),
            ("frames", "i8"),  # the guest's: those above do not exist
            ("page", "i8"),  # bits of an entry that maps a page
            ("table", "i8"),  # and of one that points to a table
            ("before", "i8"),  # cycles of a violation until it asks the pool
            ("mapping", "i8"),  # until the entry is written
            ("each_table", "i8"),  # and for each table made
            ("resume", "i8"),  # from then on
            ("least", "i8"),  # pages that must be left in the pool; NEVER: nothing is backed here
            ("made", "i8", (8,)),  # violations by how many tables they made, not yet accounted for
        ],
    )
)


@leaf
def lacks(memory, backing, gfn):
    """Return whether a guest frame has no host frame."""
    place = gfn << PAGE_SHIFT
    return missing_tables(memory, backing.root, backing.levels, _LEAF, _NONE, _NONE, place) != MAPPED


@routine
def back_frame(memory, frames, pool, backing, gfn):
    """Back a frame with a page of the pool; return how many tables were made for it, -1 if it cannot be done."""
    level = pool[0]
    if level - 1 < backing.least or gfn >= backing.frames:
        return -1
    place = gfn << PAGE_SHIFT
    root, levels = backing.root, backing.levels
    missing = map_page(memory, frames, root, levels, _LEAF, _NONE, _NONE, place, pool[level], backing.page)
    if missing < 0 or level - 1 - missing < backing.least:
        return -1
    if missing:
        page, tables = pool[level : level + 1], pool[level - missing : level]
        map_pages(memory, frames, root, levels, _LEAF, _NONE, _NONE, place, page, tables, backing.table, backing.page)
    pool[0] = level - 1 - missing
    return missing


@routine
def violation(memory, frames, pool, backing, gfn):
    """Handle a violation; return its cycles, 0 if it cannot be done."""
    tables = back_frame(memory, frames, pool, backing, gfn)
    if tables < 0:
        return np.int64(0)
    backing.made[tables] += 1
    return backing.before + backing.mapping + tables * backing.each_table + backing.resume


@kernel
def back_frames(memory, backings, frames, pool, slack, gfn, limit):
    """Back the guest frames [gfn, limit) that lack a host frame, a violation each, as far as nothing has to wait.

    Parameters
    ----------
    memory : int64[:]
        Host-physical memory.
    backings, frames, pool : BACKING[1], FRAME_RECORD[:], int64[:]
        The monitor's, the host's frames, and the monitor's pool (`Stack.words`).
    slack : int
        Cycles until something else happens.

    Returns
    -------
    (gfn, cycles) : tuple of int
        The first frame not dealt with, and the cycles used.
    """
    backing = backings[0]
    used = np.int64(0)
    while gfn < limit and used + backing.before < slack:
        if lacks(memory, backing, gfn):
            cycles = violation(memory, frames, pool, backing, gfn)
            if cycles == 0:
                break
            used += cycles
        gfn += 1
    return gfn, used
