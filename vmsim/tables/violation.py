"""An EPT violation or NPF that waits for nobody, compiled: a guest frame gets a page of its monitor's pool."""

from __future__ import annotations

import numpy as np

from vmsim.jit import kernel, routine
from vmsim.machine.formats import PAGE_SHIFT
from vmsim.tables.backing import lacks, set_backing
from vmsim.tables.edit import map_page, map_pages

__all__ = ["NESTED", "NEVER", "back_frame", "back_frames", "make_nested", "violation"]

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
            ("made", "i8", (8,)),  # violations by how many tables they made, not yet accounted for
        ],
    )
)


def make_nested(**fields: int) -> np.ndarray:
    """Return what a monitor backs frames with, shape (1,): the fields that are given, and nothing backed yet."""
    nested = np.zeros(1, NESTED)
    nested["least"] = NEVER
    for name, value in fields.items():
        nested[name] = value
    return nested


@routine
def back_frame(memory, frames, pool, nested, backing, gfn):
    """Back a frame that never was with a page of the pool; return how many tables were made for it.

    Returns -1, and has done nothing, where somebody must wait for the pool, or the host has a page of the frame's: one
    that lost its entry, or contents that are elsewhere.
    """
    if gfn >= nested.frames or backing[gfn]:
        return -1
    place = gfn << PAGE_SHIFT
    root, levels, none = nested.root, nested.levels, backing[:0]
    level = pool[0]
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
