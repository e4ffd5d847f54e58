"""A page fault of the guest's that waits for nobody, compiled: a cleared page is mapped, or the page of zeros.

`GuestKernel.page_fault` says what a fault is and costs. Here is the same for the plain case alone: a small page where
nothing is mapped, in tables made if need be, frames that the allocator has, and no frame that the host has taken.
System calls are in operations.py.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vmsim.contracts.commit import commit_fault, load, log_kind, reserve_fault, spare, store, touch
from vmsim.contracts.faults import FaultKind
from vmsim.frames.buddy import allocate, free
from vmsim.frames.records import State
from vmsim.guest.demand import READ_ONLY, get_ready, permits, reads_zeros
from vmsim.jit import leaf, routine
from vmsim.machine.formats import CODE_WRITE, DIRTY, FRAME, PAGE_SHIFT
from vmsim.machine.memory import entry_at, read_entry, width_of
from vmsim.tables.backing import elsewhere, host_address
from vmsim.tables.edit import map_pages, missing_tables

__all__ = ["Guest"]

_LEAF = np.int64(1)  # the level that maps small pages; a literal is a type of its own, and compiled for once more
_ORDER = np.int64(0)
_NO = np.int64(-1)
_GUEST = np.int64(FaultKind.GUEST)


class Guest(NamedTuple):
    """A guest's kernel on one vCPU."""

    memory: np.ndarray  # int64[:], host-physical memory
    backing: np.ndarray  # int64[frames], where the guest's lies; empty if that is the host's own
    zones: np.ndarray  # ZONE[1], the allocator
    frames: np.ndarray  # FRAME_RECORD[:], its frames
    demands: np.ndarray  # DEMAND[1], the vCPU's
    ready: np.ndarray  # int64[:], frames that stand ready for it (`Stack.words`, with room for a few more)
    bills: np.ndarray  # BILL[1], the vCPU's
    regions: np.ndarray  # int64[:, 3], of the address space that runs (`Regions.rows`)
    more: np.ndarray  # int32[frames], as of `Sharing.counts`; empty: no frame is shared
    columns: np.ndarray  # int64[5, :], scratch for entries


@routine
def _take_tables(guest, count, page):
    """Take frames for tables, and lay them above the page that would be taken first; return whether that could be.

    `page` is to be mapped: the host must not have taken it, nor them.
    """
    owner, backing, ready, zones, frames = guest.demands[0].owner, guest.backing, guest.ready, guest.zones, guest.frames
    level = ready[0]
    taken = elsewhere(backing, page)
    for number in range(count):
        ready[level + 1 + number] = allocate(zones, frames, _ORDER, np.int64(State.TABLE), owner)
        taken = taken or elsewhere(backing, ready[level + 1 + number])
    if taken:
        for number in range(count - 1, -1, -1):
            free(zones, frames, ready[level + 1 + number], _ORDER)
    return not taken


@reserve_fault.register(Guest)
@routine
def _reserve(guest, mode, gva, code):
    """Take a page, and tables where they need not be linked by stores that trap."""
    demand = guest.demands[0]
    zones, ready = guest.zones, guest.ready
    if not permits(demand, guest.regions, gva, code):
        return _NO
    backing = guest.backing
    missing = missing_tables(guest.memory, demand.root, demand.levels, _LEAF, backing, gva & -(1 << PAGE_SHIFT))
    if missing < 0 or (missing and (demand.traps or demand.batch == 0)):
        return _NO
    if demand.batch and zones[0].free < demand.least + demand.batch + missing:
        return _NO
    if ready[0] == 0:
        if demand.batch == 0:
            return _NO
        get_ready(zones, guest.frames, ready, demand.owner)
    page = demand.zeros if reads_zeros(demand, code) else ready[ready[0]]
    if not spare(mode, page, 1 + missing) or not _take_tables(guest, missing, page):
        return _NO
    return np.int64(missing)


@routine
def _note_places(guest, gva):
    """Note the places of the entries on the way to a page."""
    demand = guest.demands[0]
    width = width_of(demand.levels)
    table = demand.root
    for step in range(demand.levels):
        place = entry_at(table, gva, demand.levels - step, width)
        demand.place[step] = place
        table = read_entry(guest.memory, host_address(guest.backing, place), width) & FRAME


@leaf
def _count(guest, page, zeros):
    """Note one more entry for the page of zeros, which has no one entry."""
    if zeros:
        guest.more[page] += 1
        guest.frames[page].rmap = 0


@commit_fault.register(Guest)
@routine
def _commit(guest, mode, gva, code, missing):
    """Map a cleared page, or the page of zeros."""
    demand, bill, ready = guest.demands[0], guest.bills[0], guest.ready
    start = bill.now
    gva &= -(1 << PAGE_SHIFT)
    zeros = reads_zeros(demand, code)
    cycles = demand.fault + (0 if zeros else demand.clear) + missing * demand.each_table
    bill.faults += 1
    bill.guest += cycles
    bill.now += cycles
    level = ready[0]
    page = demand.zeros if zeros else ready[level]
    bits = np.int64(READ_ONLY) if zeros else demand.page | (DIRTY if code & CODE_WRITE else 0)
    if not zeros:
        ready[0] = level - 1
        touch(mode, bill, page)
    if demand.traps:
        _note_places(guest, gva)
        last = demand.levels - 1
        place, value = demand.place[last : last + 1], demand.value[:1]
        if demand.loads:
            load(mode, bill, demand.place[:last], demand.value)
            load(mode, bill, place, demand.value)
        guest.frames[page].rmap = place[0]
        value[0] = page << PAGE_SHIFT | bits
        store(mode, bill, place, value)
        _count(guest, page, zeros)
        log_kind(bill, start, _GUEST)
        return
    for number in range(missing):
        touch(mode, bill, ready[level + 1 + number])
    tables = ready[level + 1 : level + 1 + missing]
    demand.value[0] = page
    where = demand.root, demand.levels, _LEAF, guest.backing, gva
    map_pages(guest.memory, guest.frames, *where, demand.value[:1], tables, demand.table, bits)
    _count(guest, page, zeros)
    log_kind(bill, start, _GUEST)
