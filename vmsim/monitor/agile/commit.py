"""Exits under agile paging that wait for nobody, compiled: a shadow's, and violations of walks that have switched."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vmsim.contracts.commit import (
    SPILL,
    finish,
    flushes,
    handle,
    invalidate,
    load,
    pass_on,
    spare,
    store,
    touch,
)
from vmsim.jit import leaf, routine
from vmsim.machine.formats import CODE_FETCH, CODE_PRESENT, CODE_SHADOW, CODE_WRITE, PAGE_SHIFT, SWITCH
from vmsim.machine.vcpu import Reason
from vmsim.monitor.backing.commit import NestedMode, can_back, fault_in, permit_write
from vmsim.monitor.shadow.accesses import shadow_load, shadow_store
from vmsim.monitor.shadow.commit import shadow_fault, shadow_flushes, shadow_touch, spill
from vmsim.monitor.shadow.fill import Status
from vmsim.monitor.shadow.prices import Exit
from vmsim.monitor.shadow.quadrants import root_frame, under_pae
from vmsim.monitor.shadow.records import ShadowTables
from vmsim.monitor.shadow.state import told
from vmsim.monitor.shadow.tables import end_exit

__all__ = ["AgileMode"]

VIOLATION = np.int64(len(Exit))  # the last of the monitor's reasons, which a shadow does not have


class AgileMode(NamedTuple):
    """The shadow of one VM, and the nested tables behind the guest's own; the first as of `ShadowMode`."""

    tables: ShadowTables
    nested: NestedMode
    prices: np.ndarray  # PRICES[1]
    tlb: np.ndarray
    found: np.ndarray
    cr3: np.ndarray  # int64[1], the register
    pdptes: np.ndarray  # int64[4], those registers


@routine
def _violation(mode, bill, gfn, write):
    """Handle a violation of a walk that has switched; return whether that could be done."""
    prices, state, cpu = mode.prices[0], mode.tables.states[0], mode.tables.cpus[0]
    if not fault_in(mode.nested, bill, gfn, write, prices.other + prices.host_walk, np.int64(0), VIOLATION, True):
        return False
    end_exit(state, cpu)
    end_exit(state, cpu)
    return True


@routine
def _pointer_astray(mode):
    """Return whether a table that a PDPTE leads to has changed sides."""
    state, cpu = mode.tables.states[0], mode.tables.cpus[0]
    for number in range(4):
        table = root_frame(state, cpu, mode.prices[0].cr3 >> PAGE_SHIFT, np.int64(number))
        if table >= 0 and (mode.tables.gfns[table].nested != 0) != (mode.pdptes[number] & SWITCH != 0):
            return True
    return False


@leaf
def _astray(mode):
    """Return whether the root has changed sides, and CR3 is to be pointed anew."""
    if under_pae(mode.tables.states[0]):
        return _pointer_astray(mode)
    nested = mode.tables.gfns[mode.prices[0].cr3 >> PAGE_SHIFT].nested
    return (nested != 0) != (mode.cr3[0] & SWITCH != 0)


@routine
def _finish(mode, bill):
    """Have the monitor's process point CR3 anew, or give back frames, where that is to be done."""
    if spill(mode) or _astray(mode):
        bill.status, bill.value = SPILL, bill.calling
        bill.stop = 1


@handle.register(AgileMode)
@routine
def _handle(mode, guest, reason, gva, gpa, code):
    """Handle a violation, or a page fault: one past the switch is the guest kernel's at once, without an exit."""
    bill = guest.bills[0]
    if reason == Reason.VIOLATION:
        if code & CODE_PRESENT:
            permits = code & CODE_FETCH == 0
            return permits and permit_write(mode.nested, bill, gpa >> PAGE_SHIFT, np.int64(Exit.WRITE_PROTECT))
        return _violation(mode, bill, gpa >> PAGE_SHIFT, code & CODE_WRITE != 0)
    if code & CODE_SHADOW:
        status, value = shadow_fault(mode, guest, gva, code & ~CODE_SHADOW)
        if status != Status.DONE:
            bill.status, bill.value = status, value
            return False
    elif not pass_on(mode, guest, reason, gva, gpa, code):
        return False
    _finish(mode, bill)
    return True


@spare.register(AgileMode)
@routine
def _spare(mode, gfn, count):
    record = mode.tables.gfns[gfn]
    return can_back(mode.nested, gfn, count) and record.tables == 0 and record.nested == 0 and record.writes == 0


@store.register(AgileMode)
@routine
def _store(mode, bill, places, values):
    """Store entries; those of shadowed tables trap, until their table goes over to nested walks."""
    shadow_store(mode, bill, places, values)
    end_exit(mode.tables.states[0], mode.tables.cpus[0])


@invalidate.register(AgileMode)
@leaf
def _invalidate(mode, bill, first, last):
    """Let INVLPGs be: they do not exit, for the shadow is in step with every store that trapped."""
    told(mode.tables)


flushes.register(AgileMode, shadow_flushes)
touch.register(AgileMode, shadow_touch)
load.register(AgileMode, shadow_load)
finish.register(AgileMode, _finish)
