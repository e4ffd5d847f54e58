"""Run a vCPU as KVM runs one, in compiled code: until an exit for which somebody has to wait."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vmsim.contracts import NONE
from vmsim.contracts.commit import FORGET_UNTAGGED, LATENCIES, handle
from vmsim.jit import kernel
from vmsim.machine.flush import forget_asids, forget_space
from vmsim.machine.tlb import ASID_SHIFT
from vmsim.machine.vcpu import Reason, call

__all__ = ["Accesses", "Processor", "run_until_exit"]

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
    untagged: np.ndarray  # bool[ASIDS], what an exit without a tag forgets of the units of such kinds
    kinds: int


class Accesses(NamedTuple):
    """Runs of accesses to one page each."""

    address: np.ndarray  # int64[:], gvas
    count: np.ndarray  # int32[:]
    kind: np.ndarray  # uint8[:]


@kernel
def run_until_exit(target, processor, accesses, guest, mode, cursor, limit, budget):
    """Run a vCPU as `machine.vcpu.run` does, and handle its exits, until one needs somebody else or time is up.

    Parameters
    ----------
    target : int
        From `machine.vcpu.prepare`.
    processor, accesses : Processor, Accesses
        Who makes which accesses.
    guest, mode : NamedTuple
        The guest's kernel and the paging mode, as `contracts.commit.handle` is given them.
    cursor, limit, budget : int
        As of `machine.vcpu.run`; what is handled here uses the budget too.

    Returns
    -------
    (reason, cursor, cycles, gva, gpa, code, status, value, spent, handled, pending) : tuple of int
        As of `machine.vcpu.run`, the cycles with those of the exits handled; of an exit that could not be handled
        wholly its status, with a value and the cycles spent on it, which are not among the others. Then whether an
        exit was handled last, and the access that had made it is still to be made; and whether there is something to
        collect, 2 if the guest must not go on before that is done.
    """
    bill = guest.bills[0]
    bill.now = 0
    bill.spent = 0
    bill.stop = 0
    bill.status = NONE
    core, llc, vms, memory = processor.core, processor.llc, processor.vms, processor.memory
    address, count, kind = accesses.address, accesses.count, accesses.kind
    while True:
        handled = False
        reason, cursor, cycles, gva, gpa, code = call(
            target, core, llc, vms, memory, address, count, kind, cursor, limit, budget - bill.now
        )
        bill.now += cycles
        if reason <= Reason.BUDGET:
            break
        handled = handle(mode, guest, reason, gva, gpa, code)
        if handled or bill.status != NONE:
            bill.pending = 1
        if not handled:
            break
        if bill.forget:
            if bill.forget & FORGET_UNTAGGED:
                forget_asids(processor.words, processor.units, processor.untagged, processor.kinds)
            else:
                bill.forgot = 1
                forget_space(processor.words, processor.units, processor.asid[0] >> ASID_SHIFT)
            bill.forget = 0
        if bill.now >= budget or bill.stop or bill.logged > LATENCIES - _ROOM:
            reason = np.int64(Reason.BUDGET)
            break
    pending = bill.pending
    if bill.stop or bill.logged > LATENCIES // 2:
        pending *= 2
    return reason, cursor, bill.now - bill.spent, gva, gpa, code, bill.status, bill.value, bill.spent, handled, pending
