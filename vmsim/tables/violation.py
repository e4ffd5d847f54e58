"""An EPT violation or NPF that waits for nobody, compiled: a guest frame gets a page of its monitor's pool."""

from __future__ import annotations

import numpy as np

from vmsim.jit import kernel, routine
from vmsim.machine.formats import PAGE_SHIFT, PRESENT
from vmsim.tables.backing import lacks, set_backing
from vmsim.tables.edit import map_page, map_pages

__all__ = ["NESTED", "NEVER", "back_frame", "back_frames", "violation"]

_LEAF = np.int64(1)  # the level that maps small pages; a literal is a type of its own, and compiled for once more

NEVER = 1 << 62  # pages that no pool has, cycles that no host lives

# What a monitor backs a guest frame with, at which price.
NESTED = np.dtype(
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
            ("one", "i8", (1,)),  # scratch
            ("made", "i8", (8,)),  # violations by how many tables they made, not yet accounted for
        ],
    )
)


@routine
def _map_again(memory, frames, pool, nested, backing, gfn):
    """Map the page that a frame has, by an entry of 4 KiB; return how many tables were made, -1: it cannot be done."""
    root, levels, none = nested.root, nested.levels, backing[:0]
    place, level = gfn << PAGE_SHIFT, pool[0]
    pfn = backing[gfn] >> PAGE_SHIFT
    missing = map_page(memory, frames, root, levels, _LEAF, none, place, pfn, nested.page)
    if missing < 0 or level - missing < nested.least:
        return -1
    if missing:
        tables = pool[level - missing + 1 : level + 1]
        nested.one[0] = pfn
        map_pages(memory, frames, root, levels, _LEAF, none, place, nested.one, tables, nested.table, nested.page)
        pool[0] = level - missing
    return missing


@routine
def back_frame(memory, frames, pool, nested, backing, gfn):
    """Back a frame with a page of the pool, or map the page that it has; return how many tables were made for that.

    Returns -1, and has done nothing, where somebody must wait: for the pool, or for contents that are elsewhere.
    """
    if gfn >= nested.frames or (backing[gfn] and backing[gfn] & PRESENT == 0):
        return -1
    place = gfn << PAGE_SHIFT
    root, levels, none = nested.root, nested.levels, backing[:0]
    level = pool[0]
    if backing[gfn]:
        return _map_again(memory, frames, pool, nested, backing, gfn)
    if level - 1 < nested.least:
        return -1
    missing = map_page(memory, frames, root, levels, _LEAF, none, place, pool[level], nested.page)
    if missing < 0 or level - 1 - missing < nested.least:
        return -1
    if missing:
        page, tables = pool[level : level + 1], pool[level - missing : level]
        map_pages(memory, frames, root, levels, _LEAF, none, place, page, tables, nested.table, nested.page)
    set_backing(backing, gfn, pool[level], np.int64(0))
    pool[0] = level - 1 - missing
    return missing


@routine
def violation(memory, frames, pool, nested, backing, gfn):
    """Handle a violation; return its cycles, 0 if it cannot be done."""
    tables = back_frame(memory, frames, pool, nested, backing, gfn)
    if tables < 0:
        return np.int64(0)
    nested.made[tables] += 1
    return nested.before + nested.mapping + tables * nested.each_table + nested.resume


@kernel
def back_frames(memory, nesteds, backing, frames, pool, budget, gfn, limit):
    """Back the guest frames [gfn, limit) that lack a host frame, a violation each, as far as nothing has to wait.

    Parameters
    ----------
    memory : int64[:]
        Host-physical memory.
    nesteds, backing : NESTED[1], int64[:]
        The monitor's, and where guest memory lies.
    frames, pool : FRAME_RECORD[:], int64[:]
        The host's frames, and the monitor's pool (`Stack.words`).
    budget : int
        Cycles after which no further violation is begun.

    Returns
    -------
    (gfn, cycles) : tuple of int
        The first frame not dealt with, and the cycles used.
    """
    nested = nesteds[0]
    used = np.int64(0)
    while gfn < limit and used < budget:
        if lacks(backing, gfn):
            cycles = violation(memory, frames, pool, nested, backing, gfn)
            if cycles == 0:
                break
            used += cycles
        gfn += 1
    return gfn, used
