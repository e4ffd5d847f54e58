"""What compiled code of one room asks of another: the twins of `Kernel`, `Monitor`, `Backer` and `Mmu`.

A paging mode's state is a NamedTuple of arrays here, a guest kernel's another. For each there is an implementation of
what stands below, in the mode's own folder or in guest/, which waits for nobody: it first finds out whether it can go
through with what is asked, and changes nothing where it cannot. A `Monitor` does the rest.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import numpy as np

from vmsim.contracts.faults import KIND_BITS
from vmsim.contracts.steps import NONE
from vmsim.jit import kernel, leaf, of_one_type, overloaded, routine

__all__ = [
    "BILL",
    "FORGET_SPACE",
    "FORGET_UNTAGGED",
    "LATENCIES",
    "OPERATION",
    "ROOM",
    "SPILL",
    "Call",
    "Collected",
    "close",
    "collected",
    "commit_fault",
    "enter_kernel",
    "finish",
    "flushes",
    "handle",
    "invalidate",
    "load",
    "log",
    "log_kind",
    "make_bill",
    "operate",
    "pass_on",
    "reserve_fault",
    "reserve_range",
    "spare",
    "spend",
    "store",
    "touch",
    "words_of",
]

LATENCIES = 128  # that differ, and are kept until they are collected
SPILL = -2  # the status where no fault is left over, but something that the monitor's process is to give back or do
ROOM = 2048  # entries that one operation loads, or stores
FORGET_SPACE = 1  # what the processor keeps of the space that runs: a reload of CR3
FORGET_UNTAGGED = 2  # and of all that has no tag: an exit of a VM without one, and the entry after it
REASONS = 10  # that a monitor's exits can have


class Call(IntEnum):
    """What a program asks its kernel for, as far as compiled code does it."""

    OTHER = 0
    COMPUTE = 1  # nothing: it computes
    MAP = 2
    UNMAP = 3
    PROTECT = 4
    DISCARD = 5


# What a stream has between two accesses.
OPERATION = np.dtype(
    (
        np.record,
        [
            ("position", "i8"),  # of the run before which it happens
            ("call", "i8"),
            ("pid", "i8"),
            ("first", "i8"),  # gvas: [first, limit)
            ("limit", "i8"),
            ("argument", "i8"),  # protection bits; cycles
        ],
    )
)

# What a vCPU's exits and page faults took that compiled code has handled, until that is collected.
BILL = np.dtype(
    (
        np.record,
        [
            ("begun", "i8"),  # cycle of simulated time at which the run began, where the VM has several vCPUs
            ("who", "i8"),  # number of the vCPU
            ("now", "i8"),  # cycles since then, the guest's own accesses included
            ("spent", "i8"),  # of them in the exit under way
            ("status", "i8"),  # what is left of a fault that was begun, in the monitor's own terms; NONE: nothing
            ("value", "i8"),
            ("stop", "i8"),  # 1: to be collected before the guest goes on
            ("quiet", "i8"),  # cycles since the run began before which nobody else does anything
            ("unsettled", "i8"),  # 1: what is asked for concerns others, and they have not come as far yet
            ("each", "i8"),  # FORGET_UNTAGGED: with each exit; 0: not
            ("forget", "i8"),  # FORGET_SPACE, FORGET_UNTAGGED: what the processor forgets before the guest goes on
            ("calling", "i8"),  # 1: in a system call, whose exits are on the way to no page
            ("pending", "i8"),  # 1: there is something to collect: from here on
            ("flush", "i8"),  # 1: all that the processor keeps of the VM's spaces is to be forgotten then
            ("forgot", "i8"),  # 1: it has forgotten the space
            ("faults", "i8"),  # of the guest's kernel
            ("guest", "i8"),  # cycles of those
            ("kernel", "i8"),  # cycles of the guest's kernel in system calls
            ("compute", "i8"),  # cycles that programs compute
            ("flushes", "i8"),  # of the kernel's after it has changed entries
            ("given", "i8"),  # frames that went back to who the kernel has them from
            ("first", "i8"),  # cycles of exits on the way to a page that the guest maps for the first time
            ("exits", "i8", (REASONS,)),
            ("cycles", "i8", (REASONS,)),
            ("kind", "i8"),  # of the fault under way, so far (`FaultKind`)
            ("logged", "i8"),  # latencies of faults that differ, or their kinds
            ("latency", "i8", (LATENCIES,)),  # << KIND_BITS, and the kind; in no order
            ("times", "i8", (LATENCIES,)),  # how often each occurred; 0: there is none in this place
        ],
    )
)

_COLLECTED = BILL.fields["pending"][1] >> 3  # the first word that is
_LATENCY = (BILL.fields["latency"][1] >> 3) - _COLLECTED  # from there, the first of those of latencies
_TIMES = (BILL.fields["times"][1] >> 3) - _COLLECTED


class Collected(NamedTuple):
    """What is on a bill to be collected: the fields of `BILL` from `pending` on."""

    pending: int
    flush: int
    forgot: int
    faults: int
    guest: int
    kernel: int
    compute: int
    flushes: int
    given: int
    first: int
    exits: list[int]
    cycles: list[int]
    kind: int
    latencies: list[tuple[int, int]]  # each << KIND_BITS, and the kind; and how often it occurred


def make_bill(count: int = 1, first: int = 0) -> np.ndarray:
    """Return bills with nothing on them, BILL[count], of the vCPUs from number `first` on."""
    bill = np.zeros(count, BILL)
    bill["who"] = np.arange(first, first + count)
    bill["status"] = NONE
    return bill


def words_of(bill: np.ndarray) -> np.ndarray:
    """Return what is to be collected of a bill, BILL[1], as words: numpy takes longer to find the fields one by one."""
    words: np.ndarray = bill.view(np.int64)[_COLLECTED:]
    return words


@kernel
def _pour(words, found):
    """Take everything from a bill's words; fill `found` with those before the latencies, and these with their times.

    Returns how many latencies differ.
    """
    count = 0
    for at in range(_LATENCY):
        found[at] = words[at]
        words[at] = 0
    if found[_LATENCY - 1]:
        for place in range(LATENCIES):
            if words[_TIMES + place]:
                found[_LATENCY + 2 * count] = words[_LATENCY + place]
                found[_LATENCY + 2 * count + 1] = words[_TIMES + place]
                count += 1
                words[_TIMES + place] = 0
    return count


_poured = of_one_type(_pour)
_found = np.empty(_LATENCY + 2 * LATENCIES, np.int64)  # scratch


def collected(words: np.ndarray) -> Collected:
    """Return what is on a bill, of which `words_of` gives these, and take it from the bill."""
    count = _poured(words, _found)
    found = _found[: _LATENCY + 2 * count].tolist()
    exits, cycles = found[10 : 10 + REASONS], found[10 + REASONS : 10 + 2 * REASONS]
    latencies = [*zip(found[_LATENCY::2], found[_LATENCY + 1 :: 2], strict=True)]
    return Collected(*found[:10], exits, cycles, found[10 + 2 * REASONS], latencies)


@leaf
def spend(bill, cycles):
    """Use cycles in the exit under way."""
    bill.spent += cycles
    bill.now += cycles


@leaf
def close(bill, reason, first):
    """End an exit; `first` says whether it was on the way to a page's first touch."""
    bill.cycles[reason] += bill.spent
    bill.first += bill.spent if first and not bill.calling else 0
    bill.spent = 0
    bill.forget |= bill.each
    bill.pending = 1


@leaf
def log(bill, start):
    """Note how long a fault has taken since `start`; there must be room for one more latency."""
    log_kind(bill, start, bill.kind)
    bill.kind = 0


@leaf
def log_kind(bill, start, kind):
    """Note the same of a fault of a kind."""
    latency = bill.now - start << KIND_BITS | kind
    place = (latency ^ latency >> 7) & (LATENCIES - 1)
    while bill.times[place] and bill.latency[place] != latency:
        place = (place + 1) & (LATENCIES - 1)
    bill.logged += bill.times[place] == 0
    bill.latency[place] = latency
    bill.times[place] += 1


@overloaded
def handle(mode, guest, reason, gva, gpa, code):
    """Handle an exit as `Monitor.handle` does, as far as nobody has to wait.

    Parameters
    ----------
    mode, guest : NamedTuple
        The paging mode's state and the guest kernel's, which has the vCPU's bill.
    reason, gva, gpa, code : int
        As of `Exit`.

    Returns
    -------
    bool
        Whether the guest goes on. Else it is `Monitor.handle`'s, from the bill's status on.
    """
    return False


@overloaded
def reserve_fault(guest, mode, gva, code):
    """Have the guest's kernel take what it needs for a page fault, and find out whether somebody has to wait for more.

    Returns
    -------
    int
        Tables taken, and `commit_fault` is to follow; negative: the fault is not as simple as that, and nothing taken.
    """
    return np.int64(-1)


@overloaded
def commit_fault(guest, mode, gva, code, missing):
    """Have the guest's kernel handle a page fault for which `reserve_fault` has taken so many tables."""


@routine
def pass_on(mode, guest, reason, gva, gpa, code):
    """Have the guest's kernel handle a page fault of which its monitor does nothing, as `handle` does."""
    missing = reserve_fault(guest, mode, gva, code)
    if missing < 0:
        return False
    commit_fault(guest, mode, gva, code, missing)
    return True


@overloaded
def spare(mode, gfn, count):
    """Return whether software may write over frame `gfn` and others, `count` in all, and nobody waits or is told."""
    return True


@overloaded
def touch(mode, bill, gfn):
    """Write to a guest frame, which exits and is backed first if it never was; `spare` has said that this can be."""


@overloaded
def load(mode, bill, places, values):
    """Have the guest's kernel load entries, int64[n] gpas, where loads trap; the values are not asked for."""


@overloaded
def store(mode, bill, places, values):
    """Have the guest's kernel store entries, int64[n] gpas and values, where stores trap."""


@overloaded
def operate(guest, mode, words, units, asid, operation):
    """Carry out an operation of a program, as far as nobody has to wait.

    Parameters
    ----------
    guest, mode : NamedTuple
        As of `handle`.
    words, units : int64[1, :], int64[:, 6]
        The core's, as of `machine.flush`.
    asid : int64[1]
        The register.
    operation : OPERATION
        What is asked for.

    Returns
    -------
    bool
        Whether it is done. Else nothing is, and it is the kernel's process that does it.
    """
    return False


@overloaded
def enter_kernel(mode, bill):
    """Pay for a system call on its way to the guest's kernel and back."""


@overloaded
def flushes(mode):
    """Return whether the guest's kernel can reload CR3 with what it holds and nobody but the processor is told."""
    return True


@overloaded
def reserve_range(mode, first, limit):
    """Return whether the pages of [first, limit), gvas, can be taken out of all tables, and nobody waits for it."""
    return True


@overloaded
def invalidate(mode, bill, first, last):
    """Pay for INVLPGs of the pages of [first, last], gvas, and do what the monitor does; the TLBs are the caller's."""


@overloaded
def finish(mode, bill):
    """End an operation: have the monitor's process do what compiled code cannot, by the bill's status."""
