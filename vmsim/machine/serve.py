"""Faults handled where they occur, as long as nobody has to wait or to be told: a monitor's and a guest kernel's.

The processes in monitor/, guest/ and vcpu.py say what a violation and a page fault are; here is the same in compiled
code, for the plain case alone: a small page from a pool that stays above its minimum, tables that exist or can be had
likewise, and nothing else due in simulated time before it is done. Each routine finds out first, and changes nothing
where it cannot go through with it. That both give the same, to the byte, is tested (tests/simulation/test_serving.py).
"""

from __future__ import annotations

import numpy as np

from vmsim.jit import kernel, leaf, routine
from vmsim.machine.buddy import State, allocate, allocate_many
from vmsim.machine.calls import call
from vmsim.machine.formats import CODE_PRESENT, CODE_WRITE, DIRTY, PAGE_SHIFT
from vmsim.machine.tables import MAPPED, map_page, map_pages, missing_tables
from vmsim.machine.vcpu import Reason

__all__ = [
    "BACKING",
    "DEMAND",
    "NEVER",
    "READY_BATCH",
    "back_frame",
    "back_frames",
    "get_ready",
    "lacks",
    "permits",
    "run_and_serve",
]

_LEAF = np.int64(1)  # the level that maps small pages; a literal is a type of its own, and compiled for once more
_NONE = np.int64(0)  # root and levels of the tables through which the host's own are reached

NEVER = 1 << 62  # pages that no pool has, cycles that no host lives
READY_BATCH = 64  # frames that a kernel takes from its buddy allocator at a time (Linux's per-cpu page lists)

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

# What a guest's kernel maps at a page fault, at which price.
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
            ("fault", "i8"),  # cycles of a fault, the page cleared included
            ("each_table", "i8"),
            ("faults", "i8"),  # handled here and not yet accounted for
            ("tables", "i8"),  # made at those
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
def _violation(memory, frames, pool, backing, gfn):
    """Handle a violation; return its cycles, 0 if it cannot be done."""
    tables = back_frame(memory, frames, pool, backing, gfn)
    if tables < 0:
        return np.int64(0)
    backing.made[tables] += 1
    return backing.before + backing.mapping + tables * backing.each_table + backing.resume


@routine
def _touch(memory, frames, pool, backing, gfn):
    """Write to a frame, which is backed first if need be; return the cycles that take."""
    if backing.levels == 0 or not lacks(memory, backing, gfn):
        return np.int64(0)
    return _violation(memory, frames, pool, backing, gfn)


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
            cycles = _violation(memory, frames, pool, backing, gfn)
            if cycles == 0:
                break
            used += cycles
        gfn += 1
    return gfn, used


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


@routine
def _suffices(demand, backing, zones, ready, pool, missing, slack):
    """Return whether a page and `missing` tables for it can be had, and backed, without a wait."""
    if backing.levels == 0:  # bare: frames that are not ready are the host's
        return missing == 0 and ready[0] > 0
    pages = (1 + missing) * backing.levels
    dearest = backing.before + backing.mapping + (backing.levels - 1) * backing.each_table + backing.resume
    cycles = demand.fault + missing * demand.each_table + (1 + missing) * dearest
    return pool[0] - pages >= backing.least and zones[0].free >= READY_BATCH + missing and cycles < slack


@routine
def _fault(memory, demand, zones, guest_frames, ready, backing, host_frames, pool, gva, code, slack):
    """Map a cleared page at `gva`; return the cycles, 0 if this fault is not as simple as that."""
    if not permits(demand, gva, code):
        return np.int64(0)
    gva &= -(1 << PAGE_SHIFT)
    missing = missing_tables(memory, demand.root, demand.levels, _LEAF, backing.root, backing.levels, gva)
    if missing < 0 or not _suffices(demand, backing, zones, ready, pool, missing, slack):
        return np.int64(0)
    if ready[0] == 0:
        get_ready(zones, guest_frames, ready, demand.owner)
    level = ready[0]
    ready[0] = level - 1
    page = ready[level]
    cycles = demand.fault + missing * demand.each_table + _touch(memory, host_frames, pool, backing, page)
    for number in range(missing):  # above the page, which then is to be mapped first
        ready[level + 1 + number] = allocate(zones, guest_frames, np.int64(0), np.int64(State.TABLE), demand.owner)
        cycles += _touch(memory, host_frames, pool, backing, ready[level + 1 + number])
    map_pages(
        memory,
        guest_frames,
        demand.root,
        demand.levels,
        _LEAF,
        backing.root,
        backing.levels,
        gva,
        ready[level : level + 1],
        ready[level + 1 : level + 1 + missing],
        demand.table,
        demand.page | (DIRTY if code & CODE_WRITE else 0),
    )
    demand.faults += 1
    demand.tables += missing
    return cycles


@kernel
def run_and_serve(
    target,
    core,
    llc,
    vms,
    memory,
    address,
    count,
    kind,
    cursor,
    limit,
    budget,
    slack,
    demands,
    zones,
    guest_frames,
    ready,
    backings,
    host_frames,
    pool,
):
    """Run a vCPU as `vcpu.run` does, and handle its faults, until one needs somebody else or the budget is used.

    Parameters
    ----------
    target : int
        From `vcpu.prepare`.
    core, llc : int64[:]
        One core and the LLC, `calls.opaque`.
    vms : int64[:]
        As of `run`, `calls.opaque`.
    memory, address, count, kind, cursor, limit, budget
        As of `run`.
    slack : int
        Cycles until something else happens in simulated time: what must not come after it is not done here.
    demands : DEMAND[1]
        The guest kernel's.
    zones, guest_frames, ready : ZONE[1], FRAME_RECORD[:], int64[:]
        The frames it allocates from, and those that stand ready (`Stack.words`, with room for a few more).
    backings, host_frames, pool : BACKING[1], FRAME_RECORD[:], int64[:]
        The monitor's, the host's frames, and the monitor's pool (`Stack.words`).

    Returns
    -------
    (reason, cursor, cycles, gva, gpa, code, served) : tuple of int
        As of `run`, and the cycles of what was done here, which are not among the others.
    """
    demand = demands[0]
    backing = backings[0]
    ran = np.int64(0)
    served = np.int64(0)
    while True:
        used = ran + served
        reason, cursor, cycles, gva, gpa, code = call(
            target, core, llc, vms, memory, address, count, kind, cursor, limit, budget - used
        )
        ran += cycles
        used += cycles
        cycles = np.int64(0)
        if reason == Reason.GUEST_FAULT:
            cycles = _fault(
                memory, demand, zones, guest_frames, ready, backing, host_frames, pool, gva, code, slack - used
            )
        elif reason == Reason.VIOLATION and used + backing.before < slack:
            cycles = _violation(memory, host_frames, pool, backing, gpa >> PAGE_SHIFT)
        if cycles == 0:
            break
        served += cycles
        if ran + served >= budget:
            reason = np.int64(Reason.BUDGET)
            break
    return reason, cursor, ran, gva, gpa, code, served
