"""What a guest's kernel may map at a page fault, as compiled code reads it, and the frames that stand ready for it."""

from __future__ import annotations

import numpy as np

from vmsim.frames.buddy import allocate_many, free
from vmsim.frames.records import NO_FRAME, State
from vmsim.guest.region_rows import FILE, KINDS, NO_REGION, RIGHTS_OF, around
from vmsim.guest.region_rows import WRITE as WRITABLE
from vmsim.jit import kernel, leaf, routine
from vmsim.machine.formats import ACCESSED, CODE_PRESENT, CODE_WRITE, PRESENT, USER, WRITE

__all__ = [
    "DEMAND",
    "PAGE_BITS",
    "READY_BATCH",
    "READY_HIGH",
    "READ_ONLY",
    "get_ready",
    "give_back",
    "permits",
    "reads_zeros",
]

READY_BATCH = 64  # frames that a kernel takes from its buddy allocator at a time (Linux's per-cpu page lists)
READY_HIGH = 6 * READY_BATCH  # frames kept ready at most (their high mark)
PAGE_BITS = PRESENT | WRITE | USER | ACCESSED
READ_ONLY = PRESENT | USER | ACCESSED

# What a guest's kernel maps at a page fault of one vCPU, at which price.
DEMAND = np.dtype(
    (
        np.record,
        [
            ("root", "i8"),  # of the address space that runs
            ("levels", "i8"),
            ("pid", "i8"),
            ("open", "i8"),  # 1: compiled code may map pages; 0: another is changing the space
            ("operates", "i8"),  # 1: and carry out system calls
            ("first", "i8"),  # the gvas for which `page` holds: [first, last)
            ("last", "i8"),
            ("page", "i8"),  # bits of an entry; 0: nothing is mapped here
            ("writable", "i8"),  # whether a page may be mapped to be written at once
            ("table", "i8"),
            ("owner", "i8"),
            ("traps", "i8"),  # 1: stores of entries can trap
            ("loads", "i8"),  # 1: loads too
            ("least", "i8"),  # frames that are left in the allocator: below it the kernel is to reclaim some
            ("batch", "i8"),  # frames that are taken from the allocator when none stands ready; 0: another gives them
            ("zeros", "i8"),  # the page of zeros, which reads map; NO_FRAME: there is none
            ("zeroed", "i8"),  # 1: a page that is not there reads as zeros here
            ("fault", "i8"),  # cycles of a fault
            ("clear", "i8"),  # and of a page that is cleared
            ("each_table", "i8"),
            ("each_page", "i8"),  # cycles of a page that is unmapped
            ("each_edit", "i8"),  # and of an entry that is changed
            ("place", "i8", (8,)),  # of the entries on the way to a page, the root's first
            ("value", "i8", (8,)),
        ],
    )
)


@routine
def get_ready(zones, frames, ready, owner):
    """Take a batch of frames from the allocator; there must be as many."""
    allocate_many(zones, frames, np.int64(0), np.int64(State.GUEST), owner, ready[1 : 1 + READY_BATCH])
    ready[0] = READY_BATCH
    for at in range(1, 1 + READY_BATCH // 2):  # the first to be handed out is the last in the stack
        ready[at], ready[1 + READY_BATCH - at] = ready[1 + READY_BATCH - at], ready[at]


@kernel
def give_back(zones, frames, ready, pages):
    """Have single frames stand ready; what is too much goes to the allocator, the oldest first (Linux free_pcp)."""
    level = ready[0]
    over = level + len(pages) - READY_HIGH
    gone = over + READY_BATCH if over > 0 else np.int64(0)
    old = min(gone, level)
    for at in range(1, 1 + old):
        free(zones, frames, ready[at], np.int64(0))
    for at in range(1, 1 + level - old):
        ready[at] = ready[at + old]
    level -= old
    for at in range(len(pages)):
        if at < gone - old:
            free(zones, frames, pages[at], np.int64(0))
        else:
            level += 1
            ready[level] = pages[at]
    ready[0] = level


@routine
def _look(demand, regions, gva):
    """Find out what may be mapped at a gva and around."""
    start, end, rights = around(regions, gva)
    demand.first, demand.last = start, end
    demand.writable = rights == NO_REGION or rights & WRITABLE != 0
    demand.page = PAGE_BITS if demand.writable else READ_ONLY if rights & RIGHTS_OF else 0
    demand.zeroed = rights == NO_REGION or rights & KINDS == 0
    if rights != NO_REGION and rights & FILE:  # there is more to do at a fault in a file
        demand.page = 0


@leaf
def reads_zeros(demand, code):
    """Return whether a fault that is permitted maps the page of zeros."""
    return code & CODE_WRITE == 0 and demand.zeros != NO_FRAME and demand.zeroed != 0


@leaf
def permits(demand, regions, gva, code):
    """Return whether a fault is for a page that is not there and may be mapped as asked."""
    if demand.open == 0 or code & CODE_PRESENT:
        return False
    if not demand.first <= gva < demand.last:
        _look(demand, regions, gva)
    return demand.page != 0 and (code & CODE_WRITE == 0 or demand.writable != 0)
