"""What a guest's kernel may map at a page fault, as compiled code reads it, and the frames that stand ready for it."""

from __future__ import annotations

import numpy as np

from vmsim.frames.buddy import State, allocate_many
from vmsim.jit import leaf, routine
from vmsim.machine.formats import CODE_PRESENT, CODE_WRITE

__all__ = ["DEMAND", "READY_BATCH", "get_ready", "permits"]

READY_BATCH = 64  # frames that a kernel takes from its buddy allocator at a time (Linux's per-cpu page lists)

# What a guest's kernel maps at a page fault of one vCPU, at which price.
DEMAND = np.dtype(
    (
        np.record,
        [
            ("root", "i8"),  # of the address space that runs
            ("levels", "i8"),
            ("first", "i8"),  # the gvas for which `page` holds: [first, last)
            ("last", "i8"),
            ("page", "i8"),  # bits of an entry; 0: nothing is mapped here
            ("writable", "i8"),  # whether a page may be mapped to be written at once
            ("table", "i8"),
            ("owner", "i8"),
            ("traps", "i8"),  # 1: stores of entries can trap
            ("loads", "i8"),  # 1: loads too
            ("batch", "i8"),  # frames that are taken from the allocator when none stands ready; 0: another gives them
            ("fault", "i8"),  # cycles of a fault, the page cleared included
            ("each_table", "i8"),
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


@leaf
def permits(demand, gva, code):
    """Return whether a fault is for a page that is not there and may be mapped as asked."""
    inside = demand.page != 0 and demand.first <= gva < demand.last
    return inside and code & CODE_PRESENT == 0 and (code & CODE_WRITE == 0 or demand.writable != 0)
