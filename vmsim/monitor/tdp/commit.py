"""An EPT violation or NPF that waits for nobody, compiled."""

from __future__ import annotations

import numpy as np

from vmsim.contracts.commit import LATENCIES, close, commit_fault, handle, log, reserve_fault, spare, spend, touch
from vmsim.jit import kernel, leaf, routine
from vmsim.machine.formats import CODE_FETCH, CODE_PRESENT, PAGE_SHIFT, WRITE
from vmsim.machine.memory import find_entry, read_word, write_word
from vmsim.machine.vcpu import Reason
from vmsim.monitor.backing.commit import NestedMode, can_back, fault_in, note
from vmsim.tables.backing import lacks, shared

__all__ = ["back_frames"]

_LEAF = np.int64(1)  # the level that maps small pages; a literal is a type of its own, and compiled for once more
VIOLATION = np.int64(0)  # the reasons, among the monitor's
PROTECTED = np.int64(1)


@leaf
def _violation(mode, bill, gfn):
    """Handle a violation; return whether that could be done."""
    nested = mode.nested[0]
    return fault_in(mode, bill, gfn, nested.before, nested.resume, VIOLATION, True)


@routine
def _permit(mode, bill, gfn):
    """Let a page be written to that is protected for the dirty log; return whether that could be done."""
    nested, memory = mode.nested[0], mode.memory
    if nested.logging == 0 or nested.protected == 0:
        return False
    place, level = find_entry(memory, nested.root, nested.levels, _LEAF, gfn << PAGE_SHIFT)
    entry = read_word(memory, place)
    if level > 1 or entry == 0 or shared(mode.backing, gfn):
        return False
    start = bill.now
    write_word(memory, place, entry | WRITE)
    note(mode, gfn)
    spend(bill, nested.protected)
    bill.exits[PROTECTED] += 1
    close(bill, PROTECTED, False)
    log(bill, start)
    return True


@handle.register(NestedMode)
@routine
def _handle(mode, guest, reason, gva, gpa, code):
    """Back the frame of a violation, or log it; a page fault is the guest kernel's, and no exit."""
    if reason == Reason.VIOLATION:
        if code & CODE_PRESENT:
            return code & CODE_FETCH == 0 and _permit(mode, guest.bills[0], gpa >> PAGE_SHIFT)
        return _violation(mode, guest.bills[0], gpa >> PAGE_SHIFT)
    missing = reserve_fault(guest, mode, gva, code)
    if missing < 0:
        return False
    commit_fault(guest, mode, gva, code, missing)
    return True


@spare.register(NestedMode)
@leaf
def _spare(mode, gfn, count):
    return can_back(mode, gfn, count)


@touch.register(NestedMode)
@leaf
def _touch(mode, bill, gfn):
    if lacks(mode.backing, gfn):
        _violation(mode, bill, gfn)


@kernel
def back_frames(mode, bills, budget, gfn, limit):
    """Back the guest frames [gfn, limit) that lack a host frame, a violation each, as far as nothing has to wait.

    Parameters
    ----------
    mode : NestedMode
        The monitor's.
    bills : BILL[1]
        What is to be paid for it.
    budget : int
        Cycles after which no further violation is begun.

    Returns
    -------
    int
        The first frame not dealt with.
    """
    bill = bills[0]
    bill.now = 0
    while gfn < limit and bill.now < budget and bill.logged < LATENCIES:
        if lacks(mode.backing, gfn) and not _violation(mode, bill, gfn):
            break
        gfn += 1
    return gfn
