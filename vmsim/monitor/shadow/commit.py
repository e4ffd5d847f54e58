"""Exits of a shadow monitor that wait for nobody, compiled.

monitor.py says what an exit is and costs. Here a fault of the hardware is taken as far as it goes: the shadow filled,
frames for it taken from the pool, the guest frame backed; or the fault handed to the guest's kernel. What is left then
the monitor's process takes up, from the last status on.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vmsim.contracts.commit import (
    SPILL,
    close,
    commit_fault,
    finish,
    flushes,
    handle,
    invalidate,
    log,
    reserve_fault,
    spare,
    spend,
    store,
    touch,
)
from vmsim.contracts.commit import load as load_entries
from vmsim.jit import leaf, routine
from vmsim.machine.formats import CODE_WRITE, PAGE_SHIFT
from vmsim.monitor.backing.commit import NestedMode, back_frame, can_back, fault_in, suffices
from vmsim.monitor.mmu_lock import hold_lock
from vmsim.monitor.shadow.fill import Status, fill
from vmsim.monitor.shadow.guards import reads_of
from vmsim.monitor.shadow.prices import Exit
from vmsim.monitor.shadow.records import SPARE, ShadowTables
from vmsim.monitor.shadow.tables import end_exit
from vmsim.monitor.shadow.traps import invalidated
from vmsim.monitor.shadow.traps import load as load_hidden
from vmsim.monitor.shadow.traps import store as store_hidden
from vmsim.tables.backing import lacks

__all__ = [
    "OTHERS",
    "OWN",
    "ShadowMode",
    "end",
    "shadow_fault",
    "shadow_flushes",
    "shadow_load",
    "shadow_store",
    "shadow_touch",
    "spill",
    "told",
    "work",
]

_HOST_FAULT = np.int64(Exit.HOST_FAULT)
OWN, OTHERS = np.int64(1), np.int64(2)  # whose TLBs are to be flushed: the vCPU's, those of the VM's others


class ShadowMode(NamedTuple):
    """The shadow of one VM."""

    tables: ShadowTables
    nested: NestedMode  # the pages of its memory
    prices: np.ndarray  # PRICES[1]


@leaf
def end(bill, tables, reason):
    """End an exit."""
    close(bill, reason, reason != Exit.SHADOW_FILL)
    end_exit(tables.states[0], tables.cpus[0])


@leaf
def work(mode, bill):
    """Pay for what the kernels did; a flush that they ask for is made when this is over, but before the guest runs.

    Other vCPUs are interrupted for it, once. All that is done with the MMU's lock held.
    """
    state, cpu, prices = mode.tables.states[0], mode.tables.cpus[0], mode.prices[0]
    held = cpu.due
    cpu.due = 0
    flush = (OWN if state.flush else 0) | (OTHERS if prices.others and (state.flush or state.remote) else 0)
    state.flush = state.remote = 0
    if flush:
        if flush & OTHERS and bill.flush & OTHERS == 0:
            held += prices.kick
        bill.flush |= flush
        bill.stop = 1
    if len(mode.nested.lock):
        held += hold_lock(mode.nested.lock[0], bill.begun + bill.now, held)
    spend(bill, held)


@leaf
def _trap(mode, bill, reason, count, reads):
    """Pay for accesses to hidden tables, on whose way the monitor has read so many entries."""
    prices = mode.prices[0]
    prices.walks += count
    spend(bill, count * prices.emulated + reads * prices.each_read)
    bill.exits[reason] += count
    if prices.stepped:
        cycles = count * prices.debug
        bill.exits[Exit.DEBUG] += count
        bill.cycles[Exit.DEBUG] += cycles
        bill.first += 0 if bill.calling else cycles
        bill.now += cycles


@routine
def _back(mode, bill, gfn):
    """Have the host back a guest frame; return whether that could be done."""
    cycles = back_frame(mode.nested, gfn)
    if cycles < 0:
        return False
    spend(bill, mode.prices[0].host_walk + cycles)
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
    if lacks(mode.nested.backing, gfn):
        prices = mode.prices[0]
        fault_in(mode.nested, bill, gfn, prices.fault + prices.host_walk, prices.kernels_entry, _HOST_FAULT, False)
        end_exit(mode.tables.states[0], mode.tables.cpus[0])


@routine
def shadow_load(mode, bill, places, values):
    """Load entries; those of tables hidden from loads trap."""
    state, prices = mode.tables.states[0], mode.prices[0]
    trapped = load_hidden(mode.tables, places, values, prices.trapped)
    if trapped:
        _trap(mode, bill, Exit.PT_READ, trapped, state.reads)
        work(mode, bill)
        end(bill, mode.tables, Exit.PT_READ)


@routine
def shadow_store(mode, bill, places, values):
    """Store entries of tables that the host backs; those of hidden tables trap."""
    prices = mode.prices[0]
    _, _, emulated, left = store_hidden(mode.tables, places, values, np.int64(0), prices.trapped)
    trapped = prices.trapped
    if emulated:
        _trap(mode, bill, Exit.PT_WRITE, emulated, reads_of(mode.tables.states, trapped[:emulated]))
    if left:
        reads = reads_of(mode.tables.states, trapped[len(trapped) - left :])
        prices.walks += left
        bill.exits[Exit.PT_WRITE] += left
        spend(bill, left * prices.left + reads * prices.each_read)
    if emulated or left:
        work(mode, bill)
        end(bill, mode.tables, Exit.PT_WRITE)


@routine
def shadow_fault(mode, guest, gva, code):
    """Handle a page fault of the hardware as far as that goes; return what is left of it, (status, value)."""
    state, prices, bill = mode.tables.states[0], mode.prices[0], guest.bills[0]
    start = bill.now
    prices.walks += 1
    spend(bill, prices.fault)
    walked = False
    while True:
        status, value = fill(mode.tables, prices.cr3, gva, code & CODE_WRITE != 0)
        if not walked:
            spend(bill, state.reads * prices.each_read)
            walked = True
        work(mode, bill)
        if status == Status.DONE:
            bill.exits[Exit.SHADOW_FILL] += 1
            end(bill, mode.tables, Exit.SHADOW_FILL)
            log(bill, start)
            return status, value
        if status == Status.FAULT:
            missing = reserve_fault(guest, mode, gva, value)
            if missing < 0:
                return status, value
            spend(bill, prices.inject)
            bill.exits[Exit.TRUE_FAULT] += 1
            end(bill, mode.tables, Exit.TRUE_FAULT)
            commit_fault(guest, mode, gva, value, missing)
            return np.int64(Status.DONE), value
        if status == Status.UNBACKED:
            if not _back(mode, bill, value):
                return status, value
        elif status != Status.NEED or not _restock(mode, bill):
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


@leaf
def told(tables):
    """Note that the vCPU's TLB has nothing any more that the guest has taken away."""
    tables.cpus[0].stale = 0
    tables.cpus[0].seen = tables.states[0].unseen


@flushes.register(ShadowMode)
@leaf
def shadow_flushes(mode):
    """Return whether a flush of all is done here: it has the monitor drop roots."""
    return False


@invalidate.register(ShadowMode)
@routine
def _invalidate(mode, bill, first, last):
    """Bring what INVLPGs name into step: each is an exit."""
    times = (last >> PAGE_SHIFT) - (first >> PAGE_SHIFT) + 1
    spend(bill, times * mode.prices[0].other)
    invalidated(mode.tables, first, last)
    told(mode.tables)
    work(mode, bill)
    bill.exits[Exit.INVLPG] += times
    end(bill, mode.tables, Exit.INVLPG)


touch.register(ShadowMode, shadow_touch)
finish.register(ShadowMode, _finish)
load_entries.register(ShadowMode, shadow_load)
store.register(ShadowMode, shadow_store)
