"""Faults handled where they occur, as long as nobody has to wait or to be told: a monitor's and a guest kernel's.

The processes in monitor/, guest/ and vcpu.py say what a violation and a page fault are; here is the same in compiled
code, for the plain case alone: a small page from a pool that stays above its minimum, and tables that exist or can be
had likewise. A pool that need not be refilled is its VM's own, so nothing here is a matter of when. Each routine finds
out first, and changes nothing where it cannot go through with it. That both give the same, to the byte, is tested
(tests/simulation/test_serving.py).
"""

from __future__ import annotations

import numpy as np

from vmsim.frames.buddy import State, allocate, free
from vmsim.guest.demand import READY_BATCH, get_ready, permits
from vmsim.jit import kernel, routine
from vmsim.machine.formats import CODE_WRITE, DIRTY, PAGE_SHIFT
from vmsim.machine.vcpu import Reason, call
from vmsim.tables.backing import elsewhere, lacks
from vmsim.tables.edit import map_pages, missing_tables
from vmsim.tables.violation import violation

__all__ = ["run_and_serve"]

_LEAF = np.int64(1)  # the level that maps small pages; a literal is a type of its own, and compiled for once more


@routine
def _touch(memory, frames, pool, nested, backing, gfn):
    """Write to a frame, which is backed first if need be; return the cycles that take."""
    if nested.levels == 0 or not lacks(backing, gfn):
        return np.int64(0)
    return violation(memory, frames, pool, nested, backing, gfn)


@routine
def _suffices(demand, nested, zones, ready, pool, missing):
    """Return whether a page and `missing` tables for it can be had, and backed, without a wait."""
    if nested.levels == 0:  # bare: frames that are not ready are the host's
        return missing == 0 and ready[0] > 0
    pages = (1 + missing) * nested.levels
    return pool[0] - pages >= nested.least and zones[0].free >= READY_BATCH + missing


@routine
def _fault(memory, demand, zones, guest_frames, ready, nested, backing, host_frames, pool, gva, code):
    """Map a cleared page at `gva`; return the cycles, 0 if this fault is not as simple as that."""
    if not permits(demand, gva, code):
        return np.int64(0)
    gva &= -(1 << PAGE_SHIFT)
    missing = missing_tables(memory, demand.root, demand.levels, _LEAF, backing, gva)
    if missing < 0 or not _suffices(demand, nested, zones, ready, pool, missing):
        return np.int64(0)
    if ready[0] == 0:
        get_ready(zones, guest_frames, ready, demand.owner)
    level = ready[0]
    page = ready[level]
    taken = elsewhere(backing, page)
    for number in range(missing):  # above the page, which then is to be mapped first
        ready[level + 1 + number] = allocate(zones, guest_frames, np.int64(0), np.int64(State.TABLE), demand.owner)
        taken = taken or elsewhere(backing, ready[level + 1 + number])
    if taken:
        for number in range(missing - 1, -1, -1):
            free(zones, guest_frames, ready[level + 1 + number], np.int64(0))
        return np.int64(0)
    ready[0] = level - 1
    cycles = demand.fault + missing * demand.each_table + _touch(memory, host_frames, pool, nested, backing, page)
    for number in range(missing):
        cycles += _touch(memory, host_frames, pool, nested, backing, ready[level + 1 + number])
    map_pages(
        memory,
        guest_frames,
        demand.root,
        demand.levels,
        _LEAF,
        backing,
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
    demands,
    zones,
    guest_frames,
    ready,
    nesteds,
    backing,
    host_frames,
    pool,
):
    """Run a vCPU as `vcpu.run` does, and handle its faults, until one needs somebody else or the budget is used.

    Parameters
    ----------
    target : int
        From `vcpu.prepare`.
    core, llc : int64[:]
        One core and the LLC, `jit.opaque_core`, `opaque_llc`.
    vms : int64[:]
        As of `run`, `jit.opaque_records`.
    memory, address, count, kind, cursor, limit, budget
        As of `run`.
    demands : DEMAND[1]
        The guest kernel's.
    zones, guest_frames, ready : ZONE[1], FRAME_RECORD[:], int64[:]
        The frames it allocates from, and those that stand ready (`Stack.words`, with room for a few more).
    nesteds, backing : NESTED[1], int64[:]
        The monitor's, and where guest memory lies.
    host_frames, pool : FRAME_RECORD[:], int64[:]
        The host's frames, and the monitor's pool (`Stack.words`).

    Returns
    -------
    (reason, cursor, cycles, gva, gpa, code, served) : tuple of int
        As of `run`, and the cycles of what was done here, which are not among the others.
    """
    demand = demands[0]
    nested = nesteds[0]
    ran = np.int64(0)
    served = np.int64(0)
    while True:
        reason, cursor, cycles, gva, gpa, code = call(
            target, core, llc, vms, memory, address, count, kind, cursor, limit, budget - ran - served
        )
        ran += cycles
        cycles = np.int64(0)
        if reason == Reason.GUEST_FAULT:
            cycles = _fault(memory, demand, zones, guest_frames, ready, nested, backing, host_frames, pool, gva, code)
        elif reason == Reason.VIOLATION:
            cycles = violation(memory, host_frames, pool, nested, backing, gpa >> PAGE_SHIFT)
        if cycles == 0:
            break
        served += cycles
        if ran + served >= budget:
            reason = np.int64(Reason.BUDGET)
            break
    return reason, cursor, ran, gva, gpa, code, served
