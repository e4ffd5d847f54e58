"""An EPT violation or NPF that waits for nobody, compiled."""

from __future__ import annotations

import numpy as np

from vmsim.contracts.commit import handle, pass_on, spare, touch
from vmsim.jit import leaf, routine
from vmsim.machine.formats import CODE_FETCH, CODE_PRESENT, CODE_WRITE, PAGE_SHIFT
from vmsim.machine.vcpu import Reason
from vmsim.monitor.backing.commit import NestedMode, can_back, fault_in, permit_write, touch_frame

__all__ = ["VIOLATION"]

_LEAF = np.int64(1)  # the level that maps small pages; a literal is a type of its own, and compiled for once more
VIOLATION = np.int64(0)  # the reasons, among the monitor's
PROTECTED = np.int64(1)


@handle.register(NestedMode)
@routine
def _handle(mode, guest, reason, gva, gpa, code):
    """Back the frame of a violation, or log it; a page fault is the guest kernel's, and no exit."""
    if reason == Reason.VIOLATION:
        if code & CODE_PRESENT:
            return code & CODE_FETCH == 0 and permit_write(mode, guest.bills[0], gpa >> PAGE_SHIFT, PROTECTED)
        nested = mode.nested[0]
        write = code & CODE_WRITE != 0
        return fault_in(mode, guest.bills[0], gpa >> PAGE_SHIFT, write, nested.before, nested.resume, VIOLATION, True)
    return pass_on(mode, guest, reason, gva, gpa, code)


@spare.register(NestedMode)
@leaf
def _spare(mode, gfn, count):
    return can_back(mode, gfn, count)


touch.register(NestedMode, touch_frame)
