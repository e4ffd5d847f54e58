"""Run a vCPU as KVM runs one, in compiled code: until an exit for which somebody has to wait."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vmsim.contracts import NONE
from vmsim.contracts.commit import FORGET_UNTAGGED, LATENCIES, Call, handle, operate
from vmsim.jit import kernel, leaf, routine
from vmsim.machine.flush import forget_asids, forget_space
from vmsim.machine.tlb import ASID_SHIFT
from vmsim.machine.vcpu import Reason, call

__all__ = ["OPERATION_DUE", "SETTLEMENT_DUE", "Accesses", "Processor", "run_until_exit"]

OPERATION_DUE = -1  # the reason where an operation is due that has to be made by the kernel's process
SETTLEMENT_DUE = -2  # where one is due that can be made when the others have come as far in time
_ROOM = 16  # latencies that one exit can log


class Processor(NamedTuple):
    """What runs a VM: the first three are opaque (`vmsim.jit`)."""

    core: np.ndarray  # record[1]
    llc: np.ndarray  # record[sets]
    vms: np.ndarray  # record[1], the register file
    memory: np.ndarray  # int64[:], host-physical memory
    words: np.ndarray  # int64[1, :], the core's
    units: np.ndarray  # int64[:, 4], from machine.flush.places_of
    asid: np.ndarray  # int64[1], the register
    drained: np.ndarray  # int64[1], another
    untagged: np.ndarray  # bool[ASIDS], what an exit without a tag forgets of the units of such kinds
    kinds: int


class Accesses(NamedTuple):
    """Runs of accesses to one page each, and what comes between them."""

    address: np.ndarray  # int64[:], gvas
    count: np.ndarray  # int32[:]
    kind: np.ndarray  # uint8[:]
    operations: np.ndarray  # OPERATION[:], by position


@leaf
def _forget(processor, bill):
    """Have the processor forget what exits and the guest's kernel have asked for."""
    if bill.forget & FORGET_UNTAGGED:
        forget_asids(processor.words, processor.units, processor.untagged, processor.kinds)
    elif bill.forget:
        bill.forgot = 1
        forget_space(processor.words, processor.units, processor.asid[0] >> ASID_SHIFT)
    bill.forget = 0


@routine
def _operate(processor, operation, guest, mode, left):
    """Carry out an operation; return whether that could be done."""
    bill = guest.bills[0]
    processor.drained[0] = 1
    if operation.call == Call.COMPUTE:
        if operation.argument >= left:
            return False
        bill.compute += operation.argument
        bill.now += operation.argument
    elif not operate(guest, mode, processor.words, processor.units, processor.asid, operation):
        return False
    bill.pending = 1
    _forget(processor, bill)
    return True


@kernel
def run_until_exit(target, processor, accesses, guest, mode, cursor, turn, limit, budget, quiet):
    """Run a vCPU as `machine.vcpu.run` does, and handle its exits, until one needs somebody else or time is up.

    Parameters
    ----------
    target : int
        From `machine.vcpu.prepare`.
    processor, accesses : Processor, Accesses
        Who makes which accesses.
    guest, mode : NamedTuple
        The guest's kernel and the paging mode, as `contracts.commit.handle` is given them.
    turn : int
        The next operation. Those before access `limit` are carried out on the way.
    cursor, limit, budget : int
        As of `machine.vcpu.run`; what is handled here uses the budget too.
    quiet : int
        Cycles before which nobody else does anything.

    Returns
    -------
    (reason, cursor, cycles, gva, gpa, code, status, value, spent, handled, turn, pending) : tuple of int
        As of `machine.vcpu.run`, OPERATION_DUE or SETTLEMENT_DUE; the cycles with those of the exits handled; of an
        exit that could not be handled wholly its status, with a value and the cycles spent on it, which are not among
        the others. Then whether an exit was handled last, and the access that had made it is still to be made; the next
        operation; and whether there is something to collect, 2 if the guest must not go on before that is done.
    """
    bill = guest.bills[0]
    bill.now = 0
    bill.spent = 0
    bill.stop = 0
    bill.quiet = quiet
    bill.unsettled = 0
    bill.status = NONE
    core, llc, vms, memory = processor.core, processor.llc, processor.vms, processor.memory
    address, count, kind, operations = accesses.address, accesses.count, accesses.kind, accesses.operations
    reason, gva, gpa, code = np.int64(Reason.DONE), np.int64(0), np.int64(-1), np.int64(0)
    handled = False
    while cursor < limit:
        stop = limit
        if turn < len(operations) and operations[turn].position < limit:
            stop = operations[turn].position
        if stop == cursor:
            if bill.now >= budget:
                reason = np.int64(Reason.BUDGET)
                break
            if not _operate(processor, operations[turn], guest, mode, budget - bill.now):
                reason = np.int64(SETTLEMENT_DUE if bill.unsettled else OPERATION_DUE)
                break
            turn += 1
        else:
            handled = False
            reason, cursor, cycles, gva, gpa, code = call(
                target, core, llc, vms, memory, address, count, kind, cursor, stop, budget - bill.now
            )
            bill.now += cycles
            if reason == Reason.DONE:
                continue
            if reason == Reason.BUDGET:
                break
            handled = handle(mode, guest, reason, gva, gpa, code)
            if handled or bill.status != NONE:
                bill.pending = 1
            if not handled:
                break
            _forget(processor, bill)
        if bill.now >= budget or bill.stop or bill.logged > LATENCIES - _ROOM:
            reason = np.int64(Reason.BUDGET)
            break
    pending = bill.pending
    if bill.stop or bill.logged > LATENCIES // 2:
        pending *= 2
    cycles = bill.now - bill.spent
    return reason, cursor, cycles, gva, gpa, code, bill.status, bill.value, bill.spent, handled, turn, pending
