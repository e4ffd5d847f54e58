"""Which of a guest's tables are guarded: whose accesses trap, and when the monitor gives that up."""

from __future__ import annotations

import numpy as np

from vmsim.jit import leaf, routine
from vmsim.machine.memory import width_of
from vmsim.monitor.shadow.quadrants import under_pae

__all__ = ["direct_reads", "floods", "guarded", "guards_within", "is_directory", "let_through"]

_LOW_MEMORY = 896 << 8  # frames


@leaf
def guarded(pages, gfns, gfn):
    """Return whether a guest frame is a table whose stores (or loads too) trap."""
    page = np.int64(gfns[gfn].tables)
    while page:
        if not pages[page - 1].unsync:
            return True
        page = np.int64(pages[page - 1].next)
    return False


@leaf
def is_directory(pages, gfns, gfn):
    """Return 1 if a guest frame is shadowed as a table that points to others, else 0."""
    page = np.int64(gfns[gfn].tables)
    while page:
        if pages[page - 1].level > 1:
            return np.int64(1)
        page = np.int64(pages[page - 1].next)
    return np.int64(0)


@routine
def guards_within(gfns, first, count):
    """Return whether any frame of a large page is shadowed as a table."""
    for gfn in range(first, first + count):  # noqa: SIM110
        if gfns[gfn].tables:
            return True
    return False


@leaf
def let_through(state, pages, gfns, gfn):
    """Leave a table of level 1 to the guest, whose shadow may then fall out of step; return whether that may be.

    As KVM's `mmu_try_to_unsync_pages` (arch/x86/kvm/mmu/mmu.c): never where a frame is a table of an upper level.
    """
    if not state.unsync or is_directory(pages, gfns, gfn):
        return False
    page = np.int64(gfns[gfn].tables)
    while page:
        state.unsynced += 1 - pages[page - 1].unsync
        pages[page - 1].unsync = 1
        page = np.int64(pages[page - 1].next)
    return True


@leaf
def floods(state, pages, page):
    """Return whether the stores counted to a table end its shadow.

    Where tables of level 1 are left to the guest, a flood is looked for in those above alone: KVM's
    `detect_write_flooding` (arch/x86/kvm/mmu/mmu.c).
    """
    return state.flood and pages[page].writes >= state.flood and not (state.unsync and pages[page].level == 1)


@leaf
def direct_reads(state, gfn):
    """Return how many entries lead to a guest frame in the map that the guest's kernel has of all its memory.

    The map has the largest pages that lie in guest memory as a whole: Linux's `init_memory_mapping`
    (arch/x86/mm/init.c) takes pages of 1 GiB where the CPU has them, else of 2 MiB (of 4 MiB in 32-bit paging). The map
    of a 32-bit kernel ends at 896 MiB; what lies above it maps by pages of 4 KiB (arch/x86/mm/highmem_32.c).
    """
    if under_pae(state) and gfn >= _LOW_MEMORY:
        return state.top
    level = min(state.largest, state.top)
    while level > 1 and (gfn | ((1 << (width_of(state.levels) * (level - 1))) - 1)) >= state.frames:
        level -= 1
    return state.top - level + 1
