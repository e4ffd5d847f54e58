"""The exits of a shadow monitor, as far as nobody waits: what is done, what it costs, and what is counted.

Each is written once, and called by two: the loop that runs the guest, by `contracts.commit`, and where that cannot go
on, or what is done has to wait in between, by the monitor's process (monitor.py), by a kernel that is given the bill.
A fault of the hardware is taken as far as it goes: the shadow filled, frames for it taken from the pool, the guest
frame backed; or the fault handed to the guest's kernel. What is left the process takes up, from the last status on.
"""

from __future__ import annotations

import numpy as np

from vmsim.contracts.commit import (
    SPILL,
    commit_fault,
    finish,
    flushes,
    handle,
    invalidate,
    load,
    log,
    reserve_fault,
    spare,
    spend,
    store,
    touch,
)
from vmsim.jit import kernel, leaf, routine
from vmsim.machine.formats import CODE_PRESENT, CODE_WRITE, PAGE_SHIFT
from vmsim.monitor.backing.commit import back_or_bring, can_back, suffices, touch_frame
from vmsim.monitor.mmu_lock import find_lock
from vmsim.monitor.shadow.accesses import note_store, shadow_invalidate, shadow_load, shadow_store
from vmsim.monitor.shadow.fill import Status, fill
from vmsim.monitor.shadow.prices import Exit
from vmsim.monitor.shadow.records import SPARE
from vmsim.monitor.shadow.software_tlb import drop_pages, look_up
from vmsim.monitor.shadow.state import ShadowMode, end, work
from vmsim.monitor.shadow.tables import end_exit
from vmsim.tables.backing import lacks

__all__ = ["advance", "shadow_fault", "shadow_flushes", "shadow_touch", "spill"]


@routine
def _back(mode, bill, gfn, write):
    """Have the host back a guest frame; return whether that could be done."""
    cycles = back_or_bring(mode.nested, bill, gfn, write)
    if cycles < 0:
        return False
    cycles += mode.prices[0].host_walk
    spend(bill, cycles + find_lock(mode.nested.lock, bill.begun + bill.now, cycles, bill.who))
    return True


@routine
def _restock(mode, bill):
    """Fill the stock of frames for shadow pages from the pool; return whether that could be done."""
    pool, stock, cpu = mode.nested.pool, mode.tables.stock, mode.tables.cpus[0]
    count = 2 * SPARE - cpu.stock
    if not suffices(mode.nested, 0, count):
        return False
    pool[0] -= count
    for number in range(count):
        stock[cpu.stock + number] = pool[1 + pool[0] + number]
    cpu.stock += count
    spend(bill, mode.prices[0].restock)
    return True


@routine
def shadow_touch(mode, bill, gfn):
    """Write to a guest frame: if it has no host frame, that is an exit."""
    logging = mode.tables.states[0].logging
    if lacks(mode.nested.backing, gfn):
        touch_frame(mode.nested, bill, gfn)
        end_exit(mode.tables.states[0], mode.tables.cpus[0])
        if logging:
            mode.tables.dirty[gfn] = True
    elif logging:
        note_store(mode, bill, gfn)


@routine
def _advance(mode, bill, gva, code, begun):
    """Take a page fault of the hardware as far as nobody waits; return (status, value).

    The shadow is filled, with frames from the pool, and guest frames are backed. `begun` says that it has been walked
    for: what a wait has made to be walked again is not paid for again. With DONE the exit is over. What else is left of
    it is the guest kernel's, or the monitor's process's.
    """
    state, prices, tlb = mode.tables.states[0], mode.prices[0], mode.tlb[0]
    if not begun:
        mode.tables.cpus[0].protected = mode.tables.cpus[0].split = 0
        spend(bill, prices.fault)
    while True:
        status, value = fill(mode.tables, prices.cr3, gva, code)
        if not begun:
            spend(bill, look_up(tlb, mode.found, gva >> PAGE_SHIFT, state.reads * prices.each_read))
            begun = True
        work(mode, bill)
        if status == Status.UNBACKED:
            if not _back(mode, bill, value, code & CODE_WRITE != 0):
                return status, value
        elif status != Status.NEED:
            break
        elif not _restock(mode, bill):
            return status, value
    if status == Status.DONE:
        logged = code & CODE_PRESENT and mode.tables.cpus[0].protected
        reason = np.int64(Exit.WRITE_PROTECT if logged else Exit.SHADOW_FILL)
        if mode.tables.cpus[0].split:
            reason = np.int64(Exit.NX_SPLIT)
        bill.exits[reason] += 1
        end(bill, mode.tables, reason, False)
    elif status == Status.FAULT:
        drop_pages(tlb, mode.found, gva >> PAGE_SHIFT, np.int64(1))
    return status, value


@kernel
def advance(mode, bills, gva, code, begun):
    """Take a page fault of the hardware as far as nobody waits; return what is left of it, (status, value)."""
    return _advance(mode, bills[0], gva, code, begun)


@routine
def shadow_fault(mode, guest, gva, code):
    """Handle a page fault of the hardware as far as that goes; return what is left of it, (status, value)."""
    prices, bill = mode.prices[0], guest.bills[0]
    start = bill.now
    status, value = _advance(mode, bill, gva, code, False)
    if status == Status.DONE:
        log(bill, start)
    elif status == Status.FAULT:
        missing = reserve_fault(guest, mode, gva, value)
        if missing >= 0:
            spend(bill, prices.inject)
            bill.exits[Exit.TRUE_FAULT] += 1
            end(bill, mode.tables, Exit.TRUE_FAULT, True)
            commit_fault(guest, mode, gva, value, missing)
            return np.int64(Status.DONE), value
    return status, value


@leaf
def spill(mode):
    """Return whether there are so many frames in stock that some must go back to the pool."""
    return mode.tables.cpus[0].stock > mode.prices[0].most


@leaf
def _finish(mode, bill):
    if spill(mode):
        bill.status = SPILL
        bill.stop = 1


@handle.register(ShadowMode)
@routine
def _handle(mode, guest, reason, gva, gpa, code):
    """Handle a page fault of the hardware."""
    bill = guest.bills[0]
    status, value = shadow_fault(mode, guest, gva, code)
    if status != Status.DONE:
        bill.status, bill.value = status, value
        return False
    _finish(mode, bill)
    return True


@spare.register(ShadowMode)
@routine
def _spare(mode, gfn, count):
    return can_back(mode.nested, gfn, count) and mode.tables.gfns[gfn].tables == 0


@flushes.register(ShadowMode)
@leaf
def shadow_flushes(mode):
    """Return whether a flush of all is done here: it has the monitor drop roots."""
    return False


@invalidate.register(ShadowMode)
@routine
def _invalidate_small(mode, bill, first, last):
    """Bring what INVLPGs name into step: each is an exit."""
    shadow_invalidate(mode, bill, first, last, np.int64(0))


touch.register(ShadowMode, shadow_touch)
finish.register(ShadowMode, _finish)
load.register(ShadowMode, shadow_load)
store.register(ShadowMode, shadow_store)
